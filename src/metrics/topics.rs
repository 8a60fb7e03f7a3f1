//! The stages of a topic's creation.

use super::cells::{Counter, Histogram};

/// A stage of a topic's creation. Each begins where the one before it ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// The request is on its way from the shard that the client asked to the coordinator that leads, and the answer on
    /// its way back.
    Forward,
    /// The coordinator checks and plans, and proposes the one entry.
    Validate,
    /// The entry waits for the end of the turn, when it is handed to the disk and the other brokers.
    Propose,
    /// A majority makes it durable.
    Commit,
    /// The coordinator's shard applies it: the topics exist.
    Apply,
    /// Each partition gets a leader that the coordinator's shard knows.
    Leaders,
    /// Every shard of every broker that is well shows the topics with their leaders.
    Show,
}

/// All stages, in their order.
pub const STAGES: [Stage; 7] =
    [Stage::Forward, Stage::Validate, Stage::Propose, Stage::Commit, Stage::Apply, Stage::Leaders, Stage::Show];

impl Stage {
    /// Its name in metrics and traces.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Forward => "forward",
            Stage::Validate => "validate",
            Stage::Propose => "propose",
            Stage::Commit => "commit",
            Stage::Apply => "apply",
            Stage::Leaders => "leaders",
            Stage::Show => "show",
        }
    }
}

/// What is counted of creations.
#[derive(Debug, Default)]
pub struct Creation {
    /// By [`Stage`]: [`Stage::Forward`] where the client asked, the others where the coordinator leads.
    pub stages: [Histogram; STAGES.len()],
    /// From the request to its answer, where the client asked.
    pub total: Histogram,
    /// Creations whose time was up before they were answered, where the client asked.
    pub timeouts: Counter,
    /// The part of them whose entry was committed in time: what was missing were leaders, or shards that show them.
    /// Counted by the coordinator.
    pub assignment_timeouts: Counter,
}
