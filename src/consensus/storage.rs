//! What raft-rs reads of a log: the newest entries' descriptors, in memory.

use std::collections::VecDeque;

use raft::eraftpb::{ConfState, Entry as RaftEntry, EntryType, HardState as RaftHardState, Snapshot as RaftSnapshot};
use raft::{GetEntriesContext, RaftState, Result, Storage, StorageError};

use super::{Entry, GroupState, HardState, SnapshotPoint};

/// The part of a log that is not only in segments.
///
/// `compacted.0 < entries.front().index`, and entries are without gaps.
pub(super) struct GroupStorage {
    voters: Vec<u64>,
    hard_state: HardState,
    compacted: (u64, u64),
    entries: VecDeque<Entry>,
    /// Bytes that an entry takes on its way to a peer, by its data.
    weigh: fn(&[u8]) -> u64,
    /// What a follower is sent that needs entries which are not here any more.
    snapshot: Option<SnapshotPoint>,
}

impl GroupStorage {
    pub(super) fn new(
        voters: Vec<u64>,
        hard_state: HardState,
        state: GroupState,
        weigh: fn(&[u8]) -> u64,
    ) -> GroupStorage {
        for (expected, entry) in (state.compacted.0 + 1..).zip(&state.entries) {
            assert_eq!(entry.index, expected, "the log must have no gap");
        }
        let (compacted, entries) = (state.compacted, state.entries.into());
        GroupStorage { voters, hard_state, compacted, entries, weigh, snapshot: None }
    }

    pub(super) fn voters(&self) -> &[u64] {
        &self.voters
    }

    /// Puts a snapshot in the place of the log.
    pub(super) fn restore(&mut self, index: u64, term: u64) {
        self.compacted = (index, term);
        self.entries.clear();
    }

    /// The snapshot to send to those who need entries that are not here any more.
    pub(super) fn offer(&mut self, snapshot: SnapshotPoint) {
        self.snapshot = Some(snapshot);
    }

    pub(super) fn append(&mut self, entries: &[RaftEntry]) {
        let Some(first) = entries.first() else { return };
        assert!(first.index > self.compacted.0, "entry {} is compacted already", first.index);
        assert!(first.index <= self.next_index(), "entry {} would leave a gap", first.index);
        self.entries.truncate((first.index - self.compacted.0 - 1) as usize);
        self.entries.extend(entries.iter().map(|entry| {
            assert_eq!(entry.entry_type, EntryType::EntryNormal, "membership changes are not proposed");
            Entry { index: entry.index, term: entry.term, data: entry.data.clone() }
        }));
    }

    pub(super) fn set_hard_state(&mut self, state: HardState) {
        self.hard_state = state;
    }

    pub(super) fn compact(&mut self, index: u64) {
        while self.entries.front().is_some_and(|entry| entry.index <= index) {
            let entry = self.entries.pop_front().expect("there is a front");
            self.compacted = (entry.index, entry.term);
        }
    }

    pub(super) fn range(&self, low: u64, high: u64) -> impl Iterator<Item = Entry> + '_ {
        assert!(
            low > self.compacted.0 && high <= self.next_index() && low <= high,
            "range {low}..{high} is not in memory"
        );
        let from = (low - self.compacted.0 - 1) as usize;
        self.entries.range(from..from + (high - low) as usize).cloned()
    }

    fn next_index(&self) -> u64 {
        self.compacted.0 + 1 + self.entries.len() as u64
    }
}

impl Storage for GroupStorage {
    fn initial_state(&self) -> Result<RaftState> {
        let hard_state = RaftHardState {
            term: self.hard_state.term,
            vote: self.hard_state.vote,
            commit: self.hard_state.commit,
            ..RaftHardState::default()
        };
        let mut conf_state = ConfState::default();
        conf_state.set_voters(self.voters.clone());
        Ok(RaftState::new(hard_state, conf_state))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _: GetEntriesContext,
    ) -> Result<Vec<RaftEntry>> {
        if low <= self.compacted.0 {
            return Err(raft::Error::Store(StorageError::Compacted));
        }
        let mut room = max_size.into().unwrap_or(u64::MAX);
        let mut out = Vec::new();
        for entry in self.range(low, high) {
            let size = (self.weigh)(&entry.data);
            if size > room && !out.is_empty() {
                break;
            }
            room = room.saturating_sub(size);
            out.push(RaftEntry { index: entry.index, term: entry.term, data: entry.data, ..RaftEntry::default() });
        }
        Ok(out)
    }

    fn term(&self, index: u64) -> Result<u64> {
        if index == self.compacted.0 {
            return Ok(self.compacted.1);
        }
        if index < self.compacted.0 {
            return Err(raft::Error::Store(StorageError::Compacted));
        }
        match self.entries.get((index - self.compacted.0 - 1) as usize) {
            Some(entry) => Ok(entry.term),
            None => Err(raft::Error::Store(StorageError::Unavailable)),
        }
    }

    fn first_index(&self) -> Result<u64> {
        Ok(self.compacted.0 + 1)
    }

    fn last_index(&self) -> Result<u64> {
        Ok(self.next_index() - 1)
    }

    fn snapshot(&self, request_index: u64, _: u64) -> Result<RaftSnapshot> {
        let Some(point) = self.snapshot.as_ref().filter(|point| point.index >= request_index) else {
            return Err(raft::Error::Store(StorageError::SnapshotTemporarilyUnavailable));
        };
        let mut snapshot = RaftSnapshot { data: point.data.clone(), ..RaftSnapshot::default() };
        let metadata = snapshot.mut_metadata();
        metadata.index = point.index;
        metadata.term = point.term;
        metadata.mut_conf_state().set_voters(self.voters.clone());
        Ok(snapshot)
    }
}
