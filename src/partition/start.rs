//! Where a log starts: what moves it (DeleteRecords, retention), and the segments that are not needed then.
//!
//! A move is an entry of the partition's Raft log, so that all replicas agree on it and none forgets it. It takes effect
//! when it is committed. Segments that lie before the start altogether are left out of the next checkpoint, and their
//! files are removed when that checkpoint is durable.

use std::collections::VecDeque;

use zerocopy::IntoBytes;

use super::{Descriptor, Partition};
use crate::consensus::{Entry, NotLeader};
use crate::log::SegmentName;
use crate::types::{LeaderEpoch, Now, Offset};

/// Kafka's offset of a DeleteRecords request that stands for the high watermark.
const TO_HIGH_WATERMARK: Offset = -1;

/// Why records were not deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeleteError {
    /// This replica does not lead.
    NotLeader,
    /// The offset is negative, or beyond the high watermark.
    OutOfRange,
    /// The topic's `cleanup.policy` deletes nothing.
    NotDeleted,
    /// An error of the disk has fenced the partition's files.
    Fenced,
}

/// Moves of the start that are in the log and not committed: index, term and the start, in the order of the indexes.
#[derive(Debug, Default)]
pub(super) struct Starts(VecDeque<(u64, u64, Offset)>);

impl Starts {
    /// Notes an entry that is in the log, if it moves the start.
    pub(super) fn note(&mut self, entry: &Entry) {
        if let Some(start) = Descriptor::start_of(&entry.data)
            && self.0.back().is_none_or(|(index, ..)| *index < entry.index)
        {
            self.0.push_back((entry.index, entry.term, start));
        }
    }

    /// Forgets those that `holds` says are not in the log any more, by index and term.
    pub(super) fn cut(&mut self, holds: impl Fn(u64, u64) -> bool) {
        while self.0.back().is_some_and(|(index, term, _)| !holds(*index, *term)) {
            self.0.pop_back();
        }
    }

    /// Takes the start that the entries up to `committed` amount to.
    fn take_committed(&mut self, committed: u64) -> Option<Offset> {
        let mut reached = None;
        while let Some((index, _, start)) = self.0.front()
            && *index <= committed
        {
            reached = reached.max(Some(*start));
            self.0.pop_front();
        }
        reached
    }

    fn furthest(&self) -> Option<Offset> {
        self.0.iter().map(|(.., start)| *start).max()
    }
}

impl Partition {
    /// Deletes the records before `offset`, as DeleteRecords says it. Done, and durable, when [`Partition::log_start`]
    /// has reached the offset returned.
    ///
    /// # Errors
    /// [`DeleteError`]; nothing was or will be deleted.
    pub fn delete_records(&mut self, offset: Offset) -> Result<Offset, DeleteError> {
        if !self.is_up() {
            return Err(DeleteError::NotLeader);
        }
        if self.is_fenced() {
            return Err(DeleteError::Fenced);
        }
        if !self.config.cleanup.delete {
            return Err(DeleteError::NotDeleted);
        }
        let start = if offset == TO_HIGH_WATERMARK { self.high_watermark } else { offset };
        if !(0..=self.high_watermark).contains(&start) {
            return Err(DeleteError::OutOfRange);
        }
        self.move_start(start).map_err(|_| DeleteError::NotLeader)?;
        Ok(start)
    }

    /// Proposes that the log begins at `start`, which is committed; does nothing where it does already.
    fn move_start(&mut self, start: Offset) -> Result<(), NotLeader> {
        if start <= self.log_start.max(self.starts.furthest().unwrap_or(0)) {
            return Ok(());
        }
        let data = Descriptor::of_start(start).as_bytes().to_vec();
        let index = self.group.propose(data.clone())?;
        self.starts.note(&Entry { index, term: self.group.term(), data: data.into() });
        Ok(())
    }

    /// Lets the log begin where the committed entries say.
    pub(super) fn settle_start(&mut self) {
        let Some(start) = self.starts.take_committed(self.group.committed()) else { return };
        assert!(start <= self.high_watermark, "log {}: its start {start} is not committed", self.log);
        self.begin_at(start);
    }

    /// The log begins at `start` at least.
    pub(super) fn begin_at(&mut self, start: Offset) {
        if start <= self.log_start {
            return;
        }
        self.log_start = start;
        // The epoch of the first record stays known, but begins with it.
        let over = self.epochs.partition_point(|(_, first)| *first <= start);
        self.epochs.drain(..over.saturating_sub(1));
        if let Some((_, first)) = self.epochs.first_mut() {
            *first = start.max(*first);
        }
    }

    /// Whether there are segments that lie before the start: a checkpoint without them lets their files go.
    pub fn has_obsolete(&self) -> bool {
        self.segments.first().is_some_and(|segment| segment.is_before(self.log_start))
    }

    /// Drops the segments that lie before the start; their files are for the next checkpoint to let go.
    pub(super) fn drop_obsolete(&mut self) {
        let count = self.segments.iter().take_while(|segment| segment.is_before(self.log_start)).count();
        self.released.extend(self.segments.drain(..count).map(|segment| segment.meta.name));
    }

    /// The segments among `found` that are not needed: a crash has kept their files from being removed. What lies behind
    /// the last checkpoint's end is written again, under names that may be the same.
    pub fn strays(&self, found: impl IntoIterator<Item = SegmentName>) -> Vec<SegmentName> {
        let known = |name: &SegmentName| self.segments.iter().any(|segment| segment.meta.name == *name);
        found.into_iter().filter(|name| name.base < self.stored_to && !known(name)).collect()
    }

    /// Deletes what `retention.ms` and `retention.bytes` do not want kept: whole segments, and the newest one with the
    /// records that no segment holds yet only as a whole, as Kafka does. Whether anything was proposed.
    pub fn retain(&mut self, now: Now) -> bool {
        if !self.is_up() || self.is_fenced() || !self.config.cleanup.delete {
            return false;
        }
        let start = self.too_old(now).max(self.too_much());
        start > self.log_start.max(self.starts.furthest().unwrap_or(0)) && self.move_start(start).is_ok()
    }

    /// The end of the oldest segments whose newest records are older than `retention.ms`.
    fn too_old(&self, now: Now) -> Offset {
        let Ok(age) = u64::try_from(self.config.retention_ms) else { return self.log_start };
        // Records without a time do not grow old.
        let old = |newest: i64| newest >= 0 && now.wall_ms.saturating_sub(newest) > age.min(i64::MAX as u64) as i64;
        let mut start = self.log_start;
        let (active, sealed) = match self.segments.split_last() {
            Some((active, sealed)) => (Some(active), sealed),
            None => (None, &[][..]),
        };
        for segment in sealed {
            if !old(segment.meta.max_timestamp) {
                return start;
            }
            start = start.max(segment.meta.next_offset);
        }
        let stored = active.map(|active| active.meta.max_timestamp).filter(|_| self.stored_to > self.log_start);
        if stored.is_some_and(|newest| !old(newest)) {
            return start;
        }
        let newest = self.tail.unflushed().map(|entry| entry.batch.header.max_timestamp.get()).max().max(stored);
        let all_committed = self.high_watermark == self.next_offset;
        if newest.is_some_and(old) && all_committed { self.high_watermark } else { start }
    }

    /// The end of the oldest segments without which there are still `retention.bytes`.
    fn too_much(&self) -> Offset {
        let Ok(kept) = u64::try_from(self.config.retention_bytes) else { return self.log_start };
        let unflushed: u64 = self.tail.unflushed().map(|entry| entry.batch.len() as u64).sum();
        let stored: u64 = self.segments.iter().map(|segment| segment.meta.len).sum();
        let Some(mut surplus) = (stored + unflushed).checked_sub(kept) else { return self.log_start };
        let mut start = self.log_start;
        for (at, segment) in self.segments.iter().enumerate() {
            let newest = at + 1 == self.segments.len();
            let len = segment.meta.len + if newest { unflushed } else { 0 };
            if len > surplus {
                break;
            }
            surplus -= len;
            start = if newest { self.high_watermark } else { segment.meta.next_offset };
        }
        start.max(self.log_start)
    }

    /// The first known epoch and its first record, for a question about an older one.
    pub(super) fn before_epochs(&self, wanted: LeaderEpoch) -> Option<(LeaderEpoch, Offset)> {
        self.epochs.first().map(|(_, first)| (wanted, *first))
    }
}

#[cfg(test)]
mod tests;
