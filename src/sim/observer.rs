//! What no client sees and must be true all the same: of leaders, of committed entries, of the metadata's states, and
//! at the end of the replicas.

use std::collections::BTreeMap;

use super::broker::Broker;
use super::trace::digest;
use super::world::World;
use crate::consensus::Group;
use crate::shard::Shard;
use crate::types::{BrokerId, LogId};

/// All that was seen of a cluster's insides.
#[derive(Default)]
pub(super) struct Observer {
    /// Who led a log in a term.
    leaders: BTreeMap<(LogId, u64), usize>,
    /// The term and the data of the entries that a broker held to be committed, and which broker was the first to.
    entries: BTreeMap<(LogId, u64), (u64, u64, usize)>,
    /// How far a broker's committed entries were looked at.
    looked: BTreeMap<(usize, LogId), u64>,
    /// The hash of the metadata after the command of this index, and which broker was the first to have it.
    hashes: BTreeMap<u64, (u64, usize)>,
}

impl Observer {
    /// A broker starts anew: it is looked at from what it holds.
    pub(super) fn started(&mut self, place: usize) {
        self.looked.retain(|(broker, _), _| *broker != place);
    }

    /// Looks at a shard of a broker after its turn.
    pub(super) fn look(&mut self, place: usize, shard: &Shard) {
        let (applied, hash) = shard.metadata_state();
        let (known, first) = *self.hashes.entry(applied).or_insert((hash, place));
        assert_eq!(known, hash, "S8: brokers {first} and {place} have different metadata at index {applied}");
        shard.each_group(&mut |log, group| self.look_at_group(place, log, group));
    }

    fn look_at_group(&mut self, place: usize, log: LogId, group: &Group) {
        if group.is_leader() {
            let leader = *self.leaders.entry((log, group.term())).or_insert(place);
            assert_eq!(leader, place, "S6: log {log} has two leaders in term {}", group.term());
        }
        let committed = group.committed();
        // Where less is committed than before, the replica was moved away and back: it is another one.
        let looked = self.looked.get(&(place, log)).copied().filter(|looked| *looked <= committed);
        let from = looked.unwrap_or(0).max(group.compacted()) + 1;
        if from > committed {
            return;
        }
        self.looked.insert((place, log), committed);
        for entry in group.entries(from, committed + 1) {
            let seen = (entry.term, digest(&entry.data), place);
            let known = *self.entries.entry((log, entry.index)).or_insert(seen);
            assert!(
                (known.0, known.1) == (seen.0, seen.1),
                "S2: entry {} of log {log} is committed with term {} on broker {} and with term {} on broker {place}",
                entry.index,
                known.0,
                known.2,
                entry.term,
            );
        }
    }
}

/// Where a replica stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Standing {
    leader: Option<BrokerId>,
    term: u64,
    last_index: u64,
    committed: u64,
    /// Start, high watermark and end of the log; none of the metadata.
    offsets: Option<(i64, i64, i64)>,
}

impl World {
    /// Why the brokers do not agree in everything, if they do not.
    pub(super) fn disagreement(&self) -> Option<String> {
        let mut standings: BTreeMap<LogId, Vec<(usize, Standing)>> = BTreeMap::new();
        let mut metadata = BTreeMap::new();
        let mut expected: BTreeMap<LogId, usize> = BTreeMap::new();
        for (place, node) in self.nodes.iter().enumerate() {
            let Some(broker) = node.broker.as_ref().filter(|broker| broker.ready()) else {
                return Some(format!("broker {place} is not ready"));
            };
            if let Some(log) = broker.all_shards().iter().find_map(Shard::unknown_leader) {
                return Some(format!("broker {place} knows no leader of log {log}"));
            }
            if let Some((log, lagging)) = broker.all_shards().iter().find_map(Shard::out_of_sync) {
                return Some(format!("broker {place} takes broker {} to be behind with log {log}", lagging.0));
            }
            if let Some(log) = broker.all_shards().iter().find_map(Shard::moving) {
                return Some(format!("broker {place} takes the replicas of log {log} to be on their way"));
            }
            self.look_at_broker(place, broker, &mut standings, &mut metadata, &mut expected);
        }
        if metadata.len() > 1 {
            return Some(format!("metadata (applied, hash) by brokers: {metadata:?}"));
        }
        for (log, replicas) in expected {
            let found = standings.get(&log).map_or(&[][..], Vec::as_slice);
            let same = found.iter().all(|(_, standing)| *standing == found[0].1);
            if found.len() != replicas || !same || found[0].1.leader.is_none() {
                return Some(format!("log {log} of {replicas} replicas: {found:?}"));
            }
        }
        None
    }

    fn look_at_broker(
        &self,
        place: usize,
        broker: &Broker,
        standings: &mut BTreeMap<LogId, Vec<(usize, Standing)>>,
        metadata: &mut BTreeMap<(u64, u64), Vec<usize>>,
        expected: &mut BTreeMap<LogId, usize>,
    ) {
        for (number, shard) in broker.all_shards().iter().enumerate() {
            // Only the first shard hears of entries without a command; what the others have is compared at each step.
            if number == 0 {
                metadata.entry(shard.metadata_state()).or_default().push(place);
            }
            expected.extend(shard.replica_counts());
            expected.insert(LogId::METADATA, self.nodes.len());
            shard.each_group(&mut |log, group| {
                let offsets = shard.offsets(log);
                let (leader, term) = (group.leader(), group.term());
                let standing =
                    Standing { leader, term, last_index: group.last_index(), committed: group.committed(), offsets };
                standings.entry(log).or_default().push((place, standing));
            });
        }
    }
}
