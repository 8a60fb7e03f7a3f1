//! What is done to the logs of a shard by and by: silent producers are forgotten, records are deleted that their topics do
//! not want kept any longer, and the dirtiest log is compacted.

use super::Shard;
use super::mesh::Answer;
use crate::limits::{PRODUCER_ID_EXPIRATION_MS, RETENTION_LOGS_PER_TICK};
use crate::types::{LogId, Mono, Now};

/// Looks at all logs of a shard, one round after the other.
#[derive(Default)]
pub(super) struct Rounds {
    /// The first round comes an interval after the start, which has enough to do.
    next_at: Option<Mono>,
    /// The logs of this round that were not looked at yet, the next one last.
    left: Vec<LogId>,
}

impl Shard {
    /// Time has passed: goes on with the round, or begins one (`log.retention.check.interval.ms`).
    pub(super) fn tick_retention(&mut self, now: Now) {
        if !self.opened {
            return;
        }
        let next_at = *self.rounds.next_at.get_or_insert(now.mono.plus_millis(self.config.retention_check_ms));
        if self.rounds.left.is_empty() && now.mono >= next_at {
            self.rounds.next_at = Some(now.mono.plus_millis(self.config.retention_check_ms));
            self.rounds.left = self.owned.keys().copied().collect();
            self.rounds.left.sort_unstable_by(|one, other| other.cmp(one));
        }
        // Where a log starts is an entry of it, and the end of the WAL's reserve is for checkpoints.
        if self.storage.data.scarce {
            return;
        }
        for _ in 0..RETENTION_LOGS_PER_TICK {
            let Some(log) = self.rounds.left.pop() else {
                return self.begin_compaction(now);
            };
            let Some(owned) = self.owned.get_mut(&log) else { continue };
            owned.partition.expire_producers(now, PRODUCER_ID_EXPIRATION_MS);
            if owned.partition.retain(now) {
                self.wake(log);
                self.touch(log);
                continue;
            }
            // Files that are still to be removed may have the names that a pass would give.
            if let Some(dirtiness) = owned.partition.dirtiness(now).filter(|_| owned.removals == 0) {
                self.compactor.consider(log, dirtiness);
            }
        }
    }

    /// Has the next round begin at once.
    pub(super) fn look_again(&mut self, now: Now) {
        self.rounds.next_at = Some(now.mono);
    }

    /// A log may begin later than before: whoever waited for that is answered, and what lies before it is let go.
    pub(super) fn settle_start(&mut self, now: Now, log: LogId) {
        let Some(owned) = self.owned.get_mut(&log) else { return };
        let start = owned.partition.log_start();
        let obsolete = owned.partition.has_obsolete();
        let waiting = owned.deletions.extract_if(.., |waiting| waiting.start <= start).collect::<Vec<_>>();
        for waiting in waiting {
            self.answer_op(now, waiting.request, waiting.part, Answer::DeleteRecords(Ok(start)));
        }
        if obsolete {
            self.flush_log(log, true);
        }
    }
}
