//! What the simulator's checkers look at inside of a shard.

use super::Shard;
use crate::consensus::Group;
use crate::types::{BrokerId, LogId, Offset};

impl Shard {
    /// The index of the last metadata command applied here, and the hash of the state after it.
    pub(crate) fn metadata_state(&self) -> (u64, u64) {
        (self.state.applied(), self.state.hash())
    }

    /// Calls `look` with each Raft group of this shard, in the order of their logs.
    pub(crate) fn each_group(&self, look: &mut dyn FnMut(LogId, &Group)) {
        if let Some(coordinator) = &self.coordinator {
            look(LogId::METADATA, coordinator.group());
        }
        let mut logs: Vec<LogId> = self.owned.keys().copied().collect();
        logs.sort_unstable();
        for log in logs {
            look(log, self.owned[&log].partition.group());
        }
    }

    /// Start, high watermark and end of a partition's log that is here.
    pub(crate) fn offsets(&self, log: LogId) -> Option<(Offset, Offset, Offset)> {
        let partition = &self.owned.get(&log)?.partition;
        Some((partition.log_start(), partition.high_watermark(), partition.next_offset()))
    }

    /// A log with a replica that is not in sync, as far as this shard knows.
    pub(crate) fn out_of_sync(&self) -> Option<(LogId, BrokerId)> {
        let partitions = self.state.topics().flat_map(|topic| topic.partitions.iter());
        let mut replicas = partitions.flat_map(|found| found.replicas.iter().map(|broker| (found.log, *broker)));
        replicas.find(|(log, broker)| !self.is_in_sync(*log, *broker))
    }

    /// A log of the metadata whose leader this shard does not know.
    pub(crate) fn unknown_leader(&self) -> Option<LogId> {
        self.replica_counts().map(|(log, _)| log).find(|log| !self.leaders.contains_key(log))
    }

    /// A log whose replicas are being moved.
    pub(crate) fn moving(&self) -> Option<LogId> {
        self.state.moving().next().map(|(log, _)| log)
    }

    /// How many replicas each log of the metadata has.
    pub(crate) fn replica_counts(&self) -> impl Iterator<Item = (LogId, usize)> + '_ {
        let partitions = self.state.topics().flat_map(|topic| topic.partitions.iter());
        partitions.map(|partition| (partition.log, partition.replicas.len()))
    }
}
