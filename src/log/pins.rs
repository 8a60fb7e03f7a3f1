//! What keeps the segments of a WAL: which logs need which of them, and why.

use std::collections::VecDeque;

use smallvec::SmallVec;

use super::FrameKind;
use crate::types::{LogId, Map};

/// What a durable frame means for the space of the WAL. Neighbouring entries of a log make one note.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Note {
    pub(super) log: LogId,
    pub(super) kind: FrameKind,
    /// The lowest index of the entries; for the other kinds the frame's index.
    pub(super) first: u64,
    /// The highest index of the entries; for the other kinds the frame's index.
    pub(super) last: u64,
}

/// The segments of a WAL that hold something of one log that is still needed, by generation.
#[derive(Debug, Default)]
struct LogPins {
    /// The index and the segment of the newest checkpoint.
    checkpoint: Option<(u64, u64)>,
    /// The segment of the newest hard state after the checkpoint.
    hard_state: Option<u64>,
    /// The segments of the entries after the checkpoint with the highest index in each; both rise.
    entries: SmallVec<[(u64, u64); 2]>,
}

/// The pins of one WAL. A segment without any is needed no longer.
///
/// A `Deleted` frame pins nothing: segments are given back oldest first, so that when it is the turn of the
/// frame's own segment no older one holds the log any more.
#[derive(Debug, Default)]
pub(super) struct Pins {
    logs: Map<LogId, LogPins>,
    segments: Segments,
}

/// What is pinned in each segment, oldest first.
#[derive(Debug, Default)]
struct Segments(VecDeque<Pinned>);

/// The pins in one segment.
#[derive(Debug)]
struct Pinned {
    generation: u64,
    count: u32,
    /// The logs that pin it, and those that did. So whoever needs the segment is found without a look at all logs.
    logs: VecDeque<LogId>,
}

impl Segments {
    fn of(&mut self, generation: u64) -> &mut Pinned {
        let at = match self.0.back() {
            Some(newest) if newest.generation == generation => self.0.len() - 1,
            _ => self
                .0
                .binary_search_by_key(&generation, |segment| segment.generation)
                .unwrap_or_else(|_| panic!("segment {generation} is pinned but not in the WAL")),
        };
        &mut self.0[at]
    }

    fn pin(&mut self, generation: u64) {
        self.of(generation).count += 1;
    }

    fn unpin(&mut self, generation: u64) {
        self.of(generation).count -= 1;
    }
}

impl Pins {
    /// Adds the segment after the newest.
    pub(super) fn open(&mut self, generation: u64) {
        if let Some(newest) = self.segments.0.back() {
            assert!(newest.generation < generation, "generations of segments must rise");
        }
        self.segments.0.push_back(Pinned { generation, count: 0, logs: VecDeque::new() });
    }

    /// Forgets the oldest segment, which nothing pins.
    pub(super) fn close_oldest(&mut self) {
        let oldest = self.segments.0.pop_front();
        assert!(oldest.is_some_and(|oldest| oldest.count == 0), "only a segment without pins is given back");
    }

    /// Whether the oldest segment is there and holds nothing that is needed.
    pub(super) fn oldest_is_free(&self) -> bool {
        self.segments.0.front().is_some_and(|oldest| oldest.count == 0)
    }

    /// How many logs there are.
    pub(super) fn logs(&self) -> usize {
        self.logs.len()
    }

    /// How many logs may need the oldest segment.
    pub(super) fn len_of_oldest(&self) -> usize {
        self.segments.0.front().map_or(0, |oldest| oldest.logs.len())
    }

    /// Looks at the next `most` of the logs that may need the oldest segment, and returns those that do. They come around
    /// again for as long as they do.
    pub(super) fn of_oldest(&mut self, most: usize) -> Vec<LogId> {
        let Some(oldest) = self.segments.0.front_mut() else {
            return Vec::new();
        };
        let seen: Vec<LogId> = oldest.logs.drain(..most.min(oldest.logs.len())).collect();
        let holds = |log: &LogId| self.logs.get(log).is_some_and(|pins| pins.hold(oldest.generation));
        let logs: Vec<LogId> = seen.into_iter().filter(holds).collect();
        oldest.logs.extend(&logs);
        logs
    }

    /// Takes note of a frame of segment `generation`; frames come in the order of the WAL, once they are durable.
    pub(super) fn apply(&mut self, generation: u64, note: &Note) {
        let segments = &mut self.segments;
        if note.kind == FrameKind::Deleted {
            if let Some(mut pins) = self.logs.remove(&note.log) {
                pins.clear(u64::MAX, segments);
            }
            return;
        }
        let pins = self.logs.entry(note.log).or_default();
        let held = pins.hold(generation);
        match note.kind {
            FrameKind::Entry => pins.add_entries(generation, note.first, note.last, segments),
            FrameKind::HardState => {
                segments.pin(generation);
                if let Some(older) = pins.hard_state.replace(generation) {
                    segments.unpin(older);
                }
            }
            FrameKind::Checkpoint | FrameKind::Snapshot => {
                let through = if note.kind == FrameKind::Snapshot { u64::MAX } else { note.last };
                pins.clear(through, segments);
                pins.checkpoint = Some((note.last, generation));
                segments.pin(generation);
            }
            FrameKind::Deleted => unreachable!("taken above"),
        }
        if !held && pins.hold(generation) {
            segments.of(generation).logs.push_back(note.log);
        }
    }
}

impl LogPins {
    fn hold(&self, generation: u64) -> bool {
        self.checkpoint.is_some_and(|(_, at)| at == generation)
            || self.hard_state == Some(generation)
            || self.entries.iter().any(|(at, _)| *at == generation)
    }

    /// Lets go of all but the entries after `through`.
    fn clear(&mut self, through: u64, segments: &mut Segments) {
        if let Some((_, at)) = self.checkpoint.take() {
            segments.unpin(at);
        }
        if let Some(at) = self.hard_state.take() {
            segments.unpin(at);
        }
        self.entries.retain(|(at, highest)| {
            let needed = *highest > through;
            if !needed {
                segments.unpin(*at);
            }
            needed
        });
    }

    fn add_entries(&mut self, generation: u64, first: u64, last: u64, segments: &mut Segments) {
        let reached = self.checkpoint.map_or(0, |(index, _)| index);
        if last <= reached {
            return;
        }
        // An entry that is written again takes the place of the earlier one and of all that followed it.
        while let Some(&(at, highest)) = self.entries.last() {
            if highest < first {
                break;
            }
            let before = match self.entries.len() {
                1 => reached,
                len => self.entries[len - 2].1.max(reached),
            };
            if before + 1 < first {
                let newest = self.entries.len() - 1;
                self.entries[newest].1 = first - 1;
                break;
            }
            segments.unpin(at);
            self.entries.pop();
        }
        match self.entries.last_mut() {
            Some((at, highest)) if *at == generation => *highest = last,
            _ => {
                segments.pin(generation);
                self.entries.push((generation, last));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(log: u64, kind: FrameKind, first: u64, last: u64) -> Note {
        Note { log: LogId(log), kind, first, last }
    }

    fn pins(generations: u64) -> Pins {
        let mut pins = Pins::default();
        (1..=generations).for_each(|generation| pins.open(generation));
        pins
    }

    #[test]
    fn a_checkpoint_frees_the_entries_it_reaches_and_no_more() {
        let mut pins = pins(4);
        pins.apply(1, &note(1, FrameKind::Entry, 1, 10));
        pins.apply(2, &note(1, FrameKind::Entry, 11, 20));
        pins.apply(3, &note(1, FrameKind::Checkpoint, 19, 19));
        assert!(pins.oldest_is_free());
        pins.close_oldest();
        assert_eq!(pins.of_oldest(9), [LogId(1)]);
        pins.apply(4, &note(1, FrameKind::Checkpoint, 20, 20));
        pins.close_oldest();
        pins.close_oldest();
        assert_eq!(pins.of_oldest(9), [LogId(1)], "the checkpoint itself is kept");
    }

    #[test]
    fn those_who_need_the_oldest_segment_come_in_turn_for_as_long_as_they_do() {
        let mut pins = pins(2);
        for log in 1..=5 {
            pins.apply(1, &note(log, FrameKind::HardState, 0, 0));
            pins.apply(1, &note(log, FrameKind::Entry, 1, 1));
        }
        assert_eq!(pins.of_oldest(2), [LogId(1), LogId(2)]);
        pins.apply(2, &note(1, FrameKind::Checkpoint, 1, 1));
        pins.apply(2, &note(3, FrameKind::Checkpoint, 1, 1));
        assert_eq!(pins.of_oldest(3), [LogId(4), LogId(5)]);
        assert_eq!(pins.len_of_oldest(), 4);
        assert_eq!(pins.of_oldest(9), [LogId(2), LogId(4), LogId(5)]);
    }

    #[test]
    fn a_hard_state_frees_the_one_before_and_a_checkpoint_both() {
        let mut pins = pins(3);
        pins.apply(1, &note(1, FrameKind::HardState, 0, 0));
        pins.apply(2, &note(1, FrameKind::HardState, 0, 0));
        assert!(pins.oldest_is_free());
        pins.close_oldest();
        assert!(!pins.oldest_is_free());
        pins.apply(3, &note(1, FrameKind::Checkpoint, 5, 5));
        assert!(pins.oldest_is_free());
    }

    #[test]
    fn entries_written_again_free_those_that_they_replace() {
        let mut pins = pins(3);
        pins.apply(1, &note(1, FrameKind::Entry, 1, 10));
        pins.apply(2, &note(1, FrameKind::Entry, 11, 12));
        pins.apply(3, &note(1, FrameKind::Entry, 6, 6));
        assert_eq!(pins.segments.of(2).count, 0);
        pins.apply(3, &note(1, FrameKind::Checkpoint, 5, 5));
        assert!(pins.oldest_is_free(), "indexes 6 to 10 of segment 1 are gone");
    }

    #[test]
    fn deletion_frees_everything() {
        let mut pins = pins(2);
        pins.apply(1, &note(1, FrameKind::Entry, 1, 10));
        pins.apply(1, &note(1, FrameKind::HardState, 0, 0));
        pins.apply(1, &note(2, FrameKind::Checkpoint, 3, 3));
        pins.apply(2, &note(1, FrameKind::Deleted, 0, 0));
        assert_eq!(pins.of_oldest(9), [LogId(2)]);
        pins.apply(2, &note(2, FrameKind::Deleted, 0, 0));
        pins.close_oldest();
        assert!(pins.oldest_is_free());
    }

    #[test]
    fn entries_that_a_checkpoint_has_passed_pin_nothing() {
        let mut pins = pins(2);
        pins.apply(1, &note(1, FrameKind::Checkpoint, 10, 10));
        pins.apply(2, &note(1, FrameKind::Entry, 4, 9));
        assert_eq!(pins.segments.of(2).count, 0);
        pins.apply(2, &note(1, FrameKind::Entry, 11, 11));
        assert_eq!(pins.segments.of(2).count, 1);
    }
}
