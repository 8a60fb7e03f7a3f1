//! The creations of topics that the coordinator has under way, and the times of their stages.

use kafka_protocol::messages::CreateTopicsResponse;

use super::{Coordinator, Waiting};
use crate::metrics::Stage;
use crate::shard::creation::{Trace, Watch};
use crate::shard::mesh::Reply;
use crate::types::Now;

impl Coordinator {
    /// Creations that are not answered.
    fn creations(&mut self) -> impl Iterator<Item = (&mut Watch, &CreateTopicsResponse)> {
        let proposed = self.proposed.values_mut().map(|(_, waiting)| waiting);
        let applied = self.applied.values_mut().filter_map(|showing| showing.waiting.as_mut());
        let made_before = self.made_before.iter_mut().filter_map(|made| match (&mut made.watch, &made.reply) {
            (Some(watch), Reply::CreateTopics(response, _)) => Some((&mut **watch, &**response)),
            _ => None,
        });
        let waiting = proposed.chain(applied).filter_map(|waiting| match waiting {
            Waiting::CreateTopics(_, _, response, _, watch) => Some((&mut **watch, &**response)),
            _ => None,
        });
        waiting.chain(made_before)
    }

    /// The creation whose command is at this index.
    fn creation_at(&mut self, index: u64) -> Option<&mut Watch> {
        let proposed = self.proposed.get_mut(&index).map(|(_, waiting)| waiting);
        let applied = self.applied.get_mut(&index).and_then(|showing| showing.waiting.as_mut());
        match proposed.or(applied) {
            Some(Waiting::CreateTopics(.., watch)) => Some(watch),
            _ => None,
        }
    }

    /// A stage of a creation has ended.
    pub(in crate::shard) fn stage_ended(&mut self, now: Now, index: u64, stage: Stage) {
        if let Some(watch) = self.creation_at(index) {
            watch.end(now, stage);
        }
    }

    /// The clock was looked at: what ended a stage in the step before took until now.
    pub(in crate::shard) fn clock_creations(&mut self, now: Now) {
        for (index, stage) in std::mem::take(&mut self.ended) {
            self.stage_ended(now, index, stage);
        }
    }

    /// The commands of this turn were handed to the disk and the other brokers.
    pub(in crate::shard) fn creations_proposed(&mut self, now: Now) {
        for (_, waiting) in self.proposed.values_mut().rev() {
            let Waiting::CreateTopics(.., watch) = waiting else { continue };
            if watch.has_ended(Stage::Propose) {
                return;
            }
            watch.end(now, Stage::Propose);
        }
    }

    /// Notes the creations whose time is up although their command is applied, once each, and returns how many.
    pub(in crate::shard) fn late_creations(&mut self, now: Now) -> u64 {
        self.creations().map(|(watch, _)| u64::from(watch.is_late(now))).sum()
    }

    /// The creations that are under way.
    pub(in crate::shard) fn creations_under_way(&mut self) -> Vec<Trace> {
        self.creations().map(|(watch, response)| watch.trace(response)).collect()
    }
}
