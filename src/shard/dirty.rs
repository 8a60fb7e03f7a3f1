//! The logs of a shard with records that can be moved to segments, those with the most first.

use std::collections::BTreeSet;

use crate::limits::FLUSH_BYTES;
use crate::types::{LogId, Map};

/// Logs in order of how much each holds: what fills one write to a segment, what fills half of one, and so on. A write
/// costs the disk about the same whether it brings much or little. Of those with about as much the one that has waited
/// longest is first.
#[derive(Default)]
pub(super) struct Dirty {
    /// How often a full write has to be halved until the log fills it, the number of its turn, and the log.
    order: BTreeSet<(u32, u64, LogId)>,
    places: Map<LogId, (u32, u64)>,
    turns: u64,
}

impl Dirty {
    /// A log holds `bytes` of records, at least some of which can be moved.
    pub(super) fn put(&mut self, log: LogId, bytes: u64) {
        let halvings = FLUSH_BYTES.ilog2().saturating_sub(bytes.max(1).ilog2());
        let before = self.places.get(&log).copied();
        if before.is_some_and(|(known, _)| known == halvings) {
            return;
        }
        self.remove(log);
        self.turns += 1;
        self.places.insert(log, (halvings, self.turns));
        self.order.insert((halvings, self.turns, log));
    }

    /// The log that is to be flushed next.
    pub(super) fn first(&self) -> Option<LogId> {
        self.order.first().map(|(_, _, log)| *log)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.order.len()
    }

    pub(super) fn remove(&mut self, log: LogId) {
        if let Some((halvings, turn)) = self.places.remove(&log) {
            self.order.remove(&(halvings, turn, log));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: fn(u64) -> LogId = LogId;

    fn taken(mut dirty: Dirty) -> Vec<u64> {
        let next = || dirty.first().inspect(|log| dirty.remove(*log));
        std::iter::from_fn(next).map(|log| log.0).collect()
    }

    #[test]
    fn logs_with_more_come_first_and_of_those_with_about_as_much_the_one_that_waited_longest() {
        let mut dirty = Dirty::default();
        for (log, bytes) in [(1, 100), (2, 5_000), (3, 120), (4, 8_000), (5, FLUSH_BYTES), (6, 9 * FLUSH_BYTES)] {
            dirty.put(LOG(log), bytes);
        }
        assert_eq!(taken(dirty), [5, 6, 2, 4, 1, 3]);
    }

    #[test]
    fn a_log_that_grows_takes_the_place_of_what_it_holds_and_has_no_other() {
        let mut dirty = Dirty::default();
        dirty.put(LOG(1), 100);
        dirty.put(LOG(2), 3_000);
        dirty.put(LOG(1), 100_000);
        dirty.put(LOG(3), 0);
        dirty.remove(LOG(2));
        assert_eq!(taken(dirty), [1, 3]);
    }
}
