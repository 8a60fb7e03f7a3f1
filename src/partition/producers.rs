//! What a partition remembers of idempotent producers, to tell duplicates and gaps (invariant S3).

use std::collections::VecDeque;

use crate::record::{BatchHeader, advance_sequence};
use crate::types::{Map, Mono, Now, Offset};

/// Batches of a producer that are remembered, Kafka's number: a client has at most five in flight.
pub const WINDOW: usize = 5;

/// A batch of a producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Sequence {
    /// Producer epoch.
    pub epoch: i16,
    /// Sequence number of the first record.
    pub first: i32,
    /// Sequence number of the last record.
    pub last: i32,
    /// Offset of the first record.
    pub base_offset: Offset,
}

/// A producer as DescribeProducers tells of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ActiveProducer {
    /// Producer id.
    pub id: i64,
    /// Producer epoch.
    pub epoch: i16,
    /// Sequence number of its last record.
    pub last_sequence: i32,
    /// The broker's time of its last append, in milliseconds since the Unix epoch; -1 where that was before this
    /// replica started or led.
    pub last_append_ms: i64,
}

/// What a producer's batch is, seen from those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SequenceCheck {
    /// The next one: append it.
    Next,
    /// It was appended before, with this offset; it may not be committed yet.
    Duplicate {
        /// Offset of its first record.
        base_offset: Offset,
    },
    /// A batch in between is missing.
    OutOfOrder {
        /// The sequence number that it begins with.
        expected: i32,
    },
    /// A producer with a newer epoch has taken over.
    StaleEpoch,
}

/// The producers of a partition. Batches enter when they are appended; those at or after an offset leave again
/// when the log is cut there.
#[derive(Clone, Debug, Default)]
pub struct Producers {
    by_id: Map<i64, Producer>,
    /// No producer with a greater id was ever forgotten.
    forgotten: Option<i64>,
}

#[derive(Clone, Debug, Default)]
struct Producer {
    /// Committed batches, the newest [`WINDOW`] of them, then those that are not committed yet.
    window: VecDeque<Sequence>,
    /// When it last appended here. That is the broker's own time: records may carry times of years ago, and their
    /// producer is no less alive for it. Unknown after a recovery, until somebody looks.
    seen: Option<Mono>,
}

impl Producers {
    /// Judges a batch before it is appended.
    pub fn check(&self, header: &BatchHeader) -> SequenceCheck {
        let (epoch, first) = (header.producer_epoch.get(), header.base_sequence.get());
        let window = self.by_id.get(&header.producer_id.get()).map(|producer| &producer.window);
        let Some((window, newest)) = window.and_then(|window| Some((window, window.back()?))) else {
            // A producer whose state may have expired here goes on where it says. Of one that is new, the batches
            // before this one were refused: taken now, it would overtake them.
            let expired = self.forgotten.is_some_and(|most| header.producer_id.get() <= most);
            return next_if(first == 0 || expired, 0);
        };
        if epoch < newest.epoch {
            return SequenceCheck::StaleEpoch;
        }
        if epoch > newest.epoch {
            return next_if(first == 0, 0);
        }
        let last = header.last_sequence();
        if let Some(known) =
            window.iter().rev().find(|known| (known.epoch, known.first, known.last) == (epoch, first, last))
        {
            return SequenceCheck::Duplicate { base_offset: known.base_offset };
        }
        let expected = advance_sequence(newest.last, 1);
        next_if(first == expected, expected)
    }

    /// Notes a batch that was appended at the offset in its header, `now`, or at a time that is not known. One that is
    /// known already changes nothing, so that a log may be replayed over a newer snapshot.
    pub fn note(&mut self, header: &BatchHeader, high_watermark: Offset, now: Option<Mono>) {
        if !header.has_producer() {
            return;
        }
        let base_offset = header.base_offset.get();
        let Producer { window, seen } = self.by_id.entry(header.producer_id.get()).or_default();
        if window.back().is_some_and(|newest| newest.base_offset >= base_offset) {
            return;
        }
        window.push_back(Sequence {
            epoch: header.producer_epoch.get(),
            first: header.base_sequence.get(),
            last: header.last_sequence(),
            base_offset,
        });
        *seen = now;
        let committed = window.partition_point(|known| known.base_offset < high_watermark);
        window.drain(..committed.saturating_sub(WINDOW));
    }

    /// The log was cut at this offset: batches from there on were never committed.
    pub fn truncate(&mut self, end: Offset) {
        self.by_id.retain(|_, producer| {
            let kept = producer.window.partition_point(|known| known.base_offset < end);
            producer.window.truncate(kept);
            kept > 0
        });
    }

    /// The committed part, in a fixed order, for a checkpoint.
    pub fn snapshot(&self, high_watermark: Offset) -> Vec<(i64, Vec<Sequence>)> {
        let mut out: Vec<(i64, Vec<Sequence>)> = Vec::with_capacity(self.by_id.len());
        for (id, producer) in &self.by_id {
            let committed: Vec<Sequence> =
                producer.window.iter().filter(|known| known.base_offset < high_watermark).copied().collect();
            if !committed.is_empty() {
                out.push((*id, committed[committed.len().saturating_sub(WINDOW)..].to_vec()));
            }
        }
        out.sort_unstable_by_key(|(id, _)| *id);
        out
    }

    /// All producers, ordered by their ids.
    pub fn active(&self, now: Now) -> Vec<ActiveProducer> {
        let told = |(id, producer): (&i64, &Producer)| {
            let newest = producer.window.back()?;
            let ago_ms = |seen| (now.mono.micros_since(seen) / 1_000) as i64;
            let last_append_ms = producer.seen.map_or(-1, |seen| now.wall_ms - ago_ms(seen));
            Some(ActiveProducer { id: *id, epoch: newest.epoch, last_sequence: newest.last, last_append_ms })
        };
        let mut active: Vec<_> = self.by_id.iter().filter_map(told).collect();
        active.sort_unstable_by_key(|producer| producer.id);
        active
    }

    /// The greatest id that was forgotten, for a checkpoint.
    pub fn forgotten(&self) -> Option<i64> {
        self.forgotten
    }

    /// The state that [`Producers::snapshot`] and [`Producers::forgotten`] gave.
    pub fn from_snapshot(snapshot: Vec<(i64, Vec<Sequence>)>, forgotten: Option<i64>) -> Producers {
        let producer = |window: Vec<Sequence>| Producer { window: window.into(), seen: None };
        Producers { by_id: snapshot.into_iter().map(|(id, window)| (id, producer(window))).collect(), forgotten }
    }

    /// Forgets producers that have appended nothing for `silence_ms` (`producer.id.expiration.ms`). Those of before a
    /// recovery count as seen at the first call after it.
    pub fn expire(&mut self, now: Mono, silence_ms: u64, high_watermark: Offset) {
        let forgotten = &mut self.forgotten;
        self.by_id.retain(|id, producer| {
            let seen = *producer.seen.get_or_insert(now);
            let kept = seen.plus_millis(silence_ms) > now
                || producer.window.back().is_some_and(|newest| newest.base_offset >= high_watermark);
            if !kept {
                *forgotten = (*forgotten).max(Some(*id));
            }
            kept
        });
    }
}

fn next_if(is_next: bool, expected: i32) -> SequenceCheck {
    if is_next { SequenceCheck::Next } else { SequenceCheck::OutOfOrder { expected } }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::FromZeros;

    fn header(epoch: i16, sequence: i32, count: i32, offset: i64) -> BatchHeader {
        let mut header = BatchHeader::new_zeroed();
        header.producer_id.set(9);
        header.producer_epoch.set(epoch);
        header.base_sequence.set(sequence);
        header.record_count.set(count);
        header.last_offset_delta.set(count - 1);
        header.base_offset.set(offset);
        header
    }

    #[test]
    fn the_window_tells_duplicates_from_gaps() {
        let mut producers = Producers::default();
        for i in 0..8 {
            let batch = header(0, i * 10, 10, i64::from(i) * 10);
            assert_eq!(producers.check(&batch), SequenceCheck::Next);
            producers.note(&batch, i64::from(i) * 10, None);
        }
        assert_eq!(producers.check(&header(0, 70, 10, 0)), SequenceCheck::Duplicate { base_offset: 70 });
        assert_eq!(producers.check(&header(0, 40, 10, 0)), SequenceCheck::Duplicate { base_offset: 40 });
        assert_eq!(
            producers.check(&header(0, 0, 10, 0)),
            SequenceCheck::OutOfOrder { expected: 80 },
            "left the window long ago"
        );
        assert_eq!(producers.check(&header(0, 90, 10, 0)), SequenceCheck::OutOfOrder { expected: 80 });
        assert_eq!(
            producers.check(&header(0, 75, 5, 0)),
            SequenceCheck::OutOfOrder { expected: 80 },
            "a part of a batch is no duplicate"
        );
        assert_eq!(producers.check(&header(0, 80, 1, 0)), SequenceCheck::Next);
    }

    #[test]
    fn active_producers_are_told_with_their_last_append() {
        let mut producers = Producers::default();
        producers.note(&header(3, 7, 2, 0), 0, Some(Mono(5_000_000)));
        let now = Now { mono: Mono(7_000_000), wall_ms: 100_000 };
        let told = ActiveProducer { id: 9, epoch: 3, last_sequence: 8, last_append_ms: 98_000 };
        assert_eq!(producers.active(now), [told]);
        let recovered = Producers::from_snapshot(producers.snapshot(9), None);
        assert_eq!(recovered.active(now), [ActiveProducer { last_append_ms: -1, ..told }]);
    }

    #[test]
    fn only_a_producer_that_may_have_expired_begins_in_the_middle() {
        let mut producers = Producers::default();
        assert_eq!(
            producers.check(&header(0, 5, 1, 0)),
            SequenceCheck::OutOfOrder { expected: 0 },
            "the batch before was refused"
        );
        producers.note(&header(0, 0, 5, 0), 0, Some(Mono(0)));
        producers.expire(Mono(2_000), 1, 5);
        assert_eq!(producers.check(&header(0, 5, 1, 5)), SequenceCheck::Next);
        let restarted = Producers::from_snapshot(producers.snapshot(5), producers.forgotten());
        assert_eq!(restarted.check(&header(0, 5, 1, 5)), SequenceCheck::Next);
    }

    #[test]
    fn a_sequence_goes_on_from_zero_after_its_last_number() {
        let mut producers = Producers::default();
        producers.note(&header(0, i32::MAX - 1, 2, 0), 0, None);
        assert_eq!(producers.check(&header(0, 0, 1, 2)), SequenceCheck::Next);
        assert_eq!(producers.check(&header(0, 1, 1, 2)), SequenceCheck::OutOfOrder { expected: 0 });
    }

    #[test]
    fn a_new_epoch_starts_at_zero_and_fences_the_old() {
        let mut producers = Producers::default();
        producers.note(&header(3, 0, 1, 0), 0, None);
        assert_eq!(producers.check(&header(4, 5, 1, 1)), SequenceCheck::OutOfOrder { expected: 0 });
        assert_eq!(producers.check(&header(4, 0, 1, 1)), SequenceCheck::Next);
        assert_eq!(producers.check(&header(2, 1, 1, 1)), SequenceCheck::StaleEpoch);
    }

    #[test]
    fn replay_over_a_newer_snapshot_changes_nothing() {
        let mut producers = Producers::default();
        for i in 0..7 {
            producers.note(&header(0, i, 1, i64::from(i)), i64::from(i), None);
        }
        let before = producers.snapshot(7);
        let mut replayed = Producers::from_snapshot(before.clone(), None);
        for i in 3..7 {
            replayed.note(&header(0, i, 1, i64::from(i)), 7, None);
        }
        assert_eq!(replayed.snapshot(7), before);
    }

    #[test]
    fn silence_is_counted_by_the_brokers_clock_and_from_a_recovery_on() {
        let mut producers = Producers::default();
        producers.note(&header(0, 0, 1, 0), 1, Some(Mono(5_000_000)));
        producers.expire(Mono(5_999_000), 1_000, 1);
        assert!(matches!(producers.check(&header(0, 0, 1, 0)), SequenceCheck::Duplicate { .. }));
        let mut recovered = Producers::from_snapshot(producers.snapshot(1), None);
        recovered.expire(Mono(70_000_000), 1_000, 1);
        assert!(matches!(recovered.check(&header(0, 0, 1, 0)), SequenceCheck::Duplicate { .. }), "just recovered");
        recovered.expire(Mono(71_000_000), 1_000, 0);
        assert!(matches!(recovered.check(&header(0, 0, 1, 0)), SequenceCheck::Duplicate { .. }), "not committed");
        recovered.expire(Mono(71_000_000), 1_000, 1);
        assert_eq!(recovered.check(&header(0, 0, 1, 0)), SequenceCheck::Next);
    }

    #[test]
    fn uncommitted_batches_stay_however_many() {
        let mut producers = Producers::default();
        for i in 0..20 {
            producers.note(&header(0, i, 1, i64::from(i)), 0, None);
        }
        assert_eq!(producers.check(&header(0, 0, 1, 0)), SequenceCheck::Duplicate { base_offset: 0 });
        assert!(producers.snapshot(0).is_empty());
    }
}
