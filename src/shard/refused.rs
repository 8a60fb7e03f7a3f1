//! Batches of idempotent producers that were refused for a time, so that those behind them are refused alike.
//!
//! A client has up to five batches in flight. If the first is refused because the leader is not up yet, and the second comes
//! a moment later when it is, the second may not overtake the first. To call it out of order would be true, but costly:
//! librdkafka then goes on with a new epoch in all its partitions, and what it cannot tell to be written elsewhere it
//! sends again under new sequence numbers, so that it is there twice.

use smallvec::SmallVec;

use crate::limits::{REFUSED_MS, REFUSED_PRODUCERS};
use crate::partition::PRODUCER_WINDOW;
use crate::protocol::ErrorCode;
use crate::record::BatchHeader;
use crate::types::{Map, Mono};

/// The refused batches of a partition's producers.
#[derive(Default)]
pub(super) struct Refused {
    by_producer: Map<i64, Refusals>,
}

struct Refusals {
    epoch: i16,
    error: ErrorCode,
    since: Mono,
    /// The first sequence numbers of the last batches that were refused.
    sequences: SmallVec<[i32; PRODUCER_WINDOW]>,
}

impl Refusals {
    fn is_past(&self, now: Mono) -> bool {
        now > self.since.plus_millis(REFUSED_MS)
    }
}

impl Refused {
    /// Notes that a batch was refused with `error`, if that is an error for a time.
    pub(super) fn note(&mut self, now: Mono, header: &BatchHeader, error: ErrorCode) {
        let for_a_time = matches!(
            error,
            ErrorCode::NotLeaderOrFollower
                | ErrorCode::NotEnoughReplicas
                | ErrorCode::KafkaStorageError
                | ErrorCode::RequestTimedOut
        );
        if !for_a_time || !header.has_producer() {
            return;
        }
        let (producer, epoch) = (header.producer_id.get(), header.producer_epoch.get());
        if self.by_producer.len() >= REFUSED_PRODUCERS && !self.by_producer.contains_key(&producer) {
            self.by_producer.retain(|_, refusals| !refusals.is_past(now));
            if self.by_producer.len() >= REFUSED_PRODUCERS {
                return;
            }
        }
        let new = || Refusals { epoch, error, since: now, sequences: SmallVec::new() };
        let refusals = self.by_producer.entry(producer).or_insert_with(new);
        if refusals.epoch != epoch || refusals.is_past(now) {
            *refusals = new();
        }
        (refusals.error, refusals.since) = (error, now);
        let sequence = header.base_sequence.get();
        if !refusals.sequences.contains(&sequence) {
            if refusals.sequences.len() == PRODUCER_WINDOW {
                refusals.sequences.remove(0);
            }
            refusals.sequences.push(sequence);
        }
    }

    /// The error that the batch of this producer was refused with which begins with the sequence number `expected`, where
    /// that is not long ago.
    pub(super) fn before(&self, now: Mono, header: &BatchHeader, expected: i32) -> Option<ErrorCode> {
        let refusals = self.by_producer.get(&header.producer_id.get())?;
        let known = refusals.epoch == header.producer_epoch.get() && refusals.sequences.contains(&expected);
        (known && !refusals.is_past(now)).then_some(refusals.error)
    }
}

#[cfg(test)]
mod tests {
    use zerocopy::FromZeros;

    use super::*;

    fn header(producer: i64, epoch: i16, sequence: i32) -> BatchHeader {
        let mut header = BatchHeader::new_zeroed();
        header.producer_id.set(producer);
        header.producer_epoch.set(epoch);
        header.base_sequence.set(sequence);
        header
    }

    #[test]
    fn what_comes_behind_a_refused_batch_is_refused_alike_for_a_while() {
        let mut refused = Refused::default();
        let (start, later) = (Mono(0), Mono(0).plus_millis(REFUSED_MS + 1));
        refused.note(start, &header(1, 0, 10), ErrorCode::NotLeaderOrFollower);
        let next = header(1, 0, 20);
        assert_eq!(refused.before(start, &next, 10), Some(ErrorCode::NotLeaderOrFollower));
        assert_eq!(refused.before(start, &next, 5), None, "another batch is missing");
        assert_eq!(refused.before(start, &header(1, 1, 20), 10), None, "another epoch");
        assert_eq!(refused.before(start, &header(2, 0, 20), 10), None, "another producer");
        assert_eq!(refused.before(later, &next, 10), None, "it will not come any more");
        refused.note(start, &next, ErrorCode::NotLeaderOrFollower);
        assert_eq!(refused.before(start, &header(1, 0, 30), 20), Some(ErrorCode::NotLeaderOrFollower));
    }

    #[test]
    fn what_is_refused_for_good_leaves_a_gap() {
        let mut refused = Refused::default();
        refused.note(Mono(0), &header(1, 0, 10), ErrorCode::MessageTooLarge);
        assert_eq!(refused.before(Mono(0), &header(1, 0, 20), 10), None);
    }

    #[test]
    fn many_producers_cost_bounded_memory() {
        const LAST: i64 = 2 * REFUSED_PRODUCERS as i64;
        let mut refused = Refused::default();
        for producer in 0..LAST {
            refused.note(Mono(0), &header(producer, 0, 0), ErrorCode::NotLeaderOrFollower);
        }
        assert_eq!(refused.by_producer.len(), REFUSED_PRODUCERS);
        let later = Mono(0).plus_millis(REFUSED_MS + 1);
        refused.note(later, &header(LAST, 0, 0), ErrorCode::NotLeaderOrFollower);
        assert_eq!(refused.by_producer.len(), 1, "those of before are past");
        for sequence in 0..2 * PRODUCER_WINDOW as i32 {
            refused.note(later, &header(LAST, 0, sequence), ErrorCode::NotLeaderOrFollower);
        }
        assert_eq!(refused.before(later, &header(LAST, 0, 50), 0), None);
        assert_eq!(refused.before(later, &header(LAST, 0, 50), 9), Some(ErrorCode::NotLeaderOrFollower));
    }
}
