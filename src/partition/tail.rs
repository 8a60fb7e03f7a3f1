//! The newest batches of a partition, in memory: all that segments do not hold yet, and a cache of those before.

use std::collections::VecDeque;

use crate::record::Batch;
use crate::types::Offset;

/// What an entry costs beyond the bytes of its batch, for the budget.
const ENTRY_OVERHEAD: u64 = 160;

/// A batch in memory with its place in the Raft log.
#[derive(Clone, Debug)]
pub struct TailEntry {
    /// Raft index.
    pub index: u64,
    /// Raft term.
    pub term: u64,
    /// The batch, its base offset and leader epoch assigned.
    pub batch: Batch,
}

impl TailEntry {
    fn cost(&self) -> u64 {
        self.batch.len() as u64 + ENTRY_OVERHEAD
    }
}

/// Entries in log order. The first `flushed` of them lie in segments too and may be dropped at any time.
#[derive(Debug, Default)]
pub struct Tail {
    entries: VecDeque<TailEntry>,
    flushed: usize,
    cost: u64,
    unflushed_cost: u64,
}

impl Tail {
    /// Appends the newest entry.
    pub fn push(&mut self, entry: TailEntry) {
        if let Some(last) = self.entries.back() {
            assert!(entry.index > last.index, "Raft indexes rise");
            assert_eq!(
                entry.batch.header.base_offset.get(),
                last.batch.header.last_offset() + 1,
                "offsets have no gaps"
            );
        }
        self.cost += entry.cost();
        self.unflushed_cost += entry.cost();
        self.entries.push_back(entry);
    }

    /// Memory of all entries, in bytes.
    pub fn cost(&self) -> u64 {
        self.cost
    }

    /// Memory of the entries that no segment holds, in bytes.
    pub fn unflushed_cost(&self) -> u64 {
        self.unflushed_cost
    }

    /// Offset of the first record in memory.
    pub fn first_offset(&self) -> Option<Offset> {
        self.entries.front().map(|entry| entry.batch.header.base_offset.get())
    }

    /// The entries from the one that holds `offset` on.
    pub fn since(&self, offset: Offset) -> impl Iterator<Item = &TailEntry> {
        let at = self.entries.partition_point(|entry| entry.batch.header.last_offset() < offset);
        self.entries.range(at..)
    }

    /// All entries in order.
    pub fn iter(&self) -> impl Iterator<Item = &TailEntry> {
        self.entries.iter()
    }

    /// The entry of this Raft index.
    pub fn at_index(&self, index: u64) -> Option<&TailEntry> {
        self.last_up_to(index).filter(|entry| entry.index == index)
    }

    /// The last entry at or before this Raft index.
    pub fn last_up_to(&self, index: u64) -> Option<&TailEntry> {
        // Mostly it is one of the last, and no entry without a batch lies between.
        let behind = self.entries.back()?.index.saturating_sub(index);
        let guess = (self.entries.len() as u64).checked_sub(behind + 1).and_then(|at| self.entries.get(at as usize));
        if let Some(found) = guess.filter(|entry| entry.index == index) {
            return Some(found);
        }
        let at = self.entries.partition_point(|entry| entry.index <= index);
        self.entries.get(at.checked_sub(1)?)
    }

    /// The entries that no segment holds, in order.
    pub fn unflushed(&self) -> impl Iterator<Item = &TailEntry> {
        self.entries.range(self.flushed..)
    }

    /// The newest entry.
    pub fn last(&self) -> Option<&TailEntry> {
        self.entries.back()
    }

    /// Takes the newest entry back; it must not lie in a segment.
    pub fn pop(&mut self) -> Option<TailEntry> {
        let entry = self.entries.pop_back()?;
        assert!(self.entries.len() >= self.flushed, "an entry in a segment is committed and is never taken back");
        self.cost -= entry.cost();
        self.unflushed_cost -= entry.cost();
        Some(entry)
    }

    /// Drops all entries.
    pub fn clear(&mut self) {
        *self = Tail::default();
    }

    /// The next `count` entries lie in a segment now.
    pub fn mark_flushed(&mut self, count: usize) {
        let newly: u64 = self.entries.range(self.flushed..self.flushed + count).map(TailEntry::cost).sum();
        self.flushed += count;
        self.unflushed_cost -= newly;
    }

    /// Drops the oldest entry that a segment holds too, and returns the memory that was freed, in bytes.
    pub fn evict_one(&mut self) -> Option<u64> {
        if self.flushed == 0 {
            return None;
        }
        let entry = self.entries.pop_front()?;
        self.flushed -= 1;
        self.cost -= entry.cost();
        Some(entry.cost())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::record::Entry;

    #[test]
    fn entries_are_found_by_index_though_some_have_no_batch() {
        let mut tail = Tail::default();
        assert!(tail.last_up_to(9).is_none());
        let indexes = [3, 4, 5, 8, 9, 12];
        for (offset, index) in indexes.into_iter().enumerate() {
            let mut batch = Batch::of_entries(&[Entry { key: None, value: Some(Bytes::from_static(b"v")) }], 0);
            batch.assign(offset as Offset, 1);
            tail.push(TailEntry { index, term: 1, batch });
        }
        for asked in 0..15 {
            let found = tail.last_up_to(asked).map(|entry| entry.index);
            assert_eq!(found, indexes.into_iter().rfind(|index| *index <= asked), "up to {asked}");
            assert_eq!(tail.at_index(asked).is_some(), indexes.contains(&asked), "at {asked}");
        }
    }
}
