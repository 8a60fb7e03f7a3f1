//! What raft-rs reads of a log: the newest entries' descriptors, in memory.

use std::cell::Cell;
use std::collections::VecDeque;

use raft::eraftpb::{Entry as RaftEntry, HardState as RaftHardState, Snapshot as RaftSnapshot};
use raft::{GetEntriesContext, RaftState, Result, Storage, StorageError};

use super::{Entry, GroupState, HardState, Members, SnapshotPoint};

/// The part of a log that is not only in segments.
///
/// `compacted.0 < entries.front().index`, and entries are without gaps.
pub(super) struct GroupStorage {
    /// The members as of `compacted`.
    base: Members,
    /// The changes in `entries`, by their indexes.
    changes: Vec<(u64, Members)>,
    /// The members as of the last change that is applied.
    members: Members,
    hard_state: HardState,
    compacted: (u64, u64),
    entries: VecDeque<Entry>,
    /// Bytes that an entry takes on its way to a peer, by its data.
    weigh: fn(&[u8]) -> u64,
    /// What a follower is sent that needs entries which are not here any more.
    snapshot: Option<(SnapshotPoint, Members)>,
    /// There was none for a follower that needed one.
    snapshot_wanted: Cell<bool>,
}

impl GroupStorage {
    pub(super) fn new(
        first: &Members,
        hard_state: HardState,
        state: GroupState,
        weigh: fn(&[u8]) -> u64,
    ) -> GroupStorage {
        for (expected, entry) in (state.compacted.0 + 1..).zip(&state.entries) {
            assert_eq!(entry.index, expected, "the log must have no gap");
        }
        let base = state.members.unwrap_or_else(|| first.clone());
        let change = |entry: &Entry| Some((entry.index, Members::from_data(&entry.data)?));
        let changes = state.entries.iter().filter_map(change).collect();
        let (compacted, entries) = (state.compacted, state.entries.into());
        let members = Members::default();
        let (snapshot, snapshot_wanted) = (None, Cell::default());
        let mut storage =
            GroupStorage { base, changes, members, hard_state, compacted, entries, weigh, snapshot, snapshot_wanted };
        storage.members = storage.members_at(hard_state.commit).clone();
        storage
    }

    pub(super) fn members(&self) -> &Members {
        &self.members
    }

    pub(super) fn set_members(&mut self, members: Members) {
        self.members = members;
    }

    pub(super) fn members_at(&self, index: u64) -> &Members {
        self.changes.iter().rev().find(|(at, _)| *at <= index).map_or(&self.base, |(_, members)| members)
    }

    /// Puts a snapshot in the place of the log.
    pub(super) fn restore(&mut self, index: u64, term: u64, members: Members) {
        self.compacted = (index, term);
        self.entries.clear();
        self.changes.clear();
        self.base = members.clone();
        self.members = members;
    }

    pub(super) fn takes_snapshot_wanted(&self) -> bool {
        self.snapshot_wanted.take()
    }

    /// The members as of the snapshot that is offered, if it ends here.
    pub(super) fn members_of_snapshot(&self, index: u64) -> Option<&Members> {
        self.snapshot.as_ref().filter(|(point, _)| point.index == index).map(|(_, members)| members)
    }

    /// The snapshot to send to those who need entries that are not here any more.
    pub(super) fn offer(&mut self, snapshot: SnapshotPoint) {
        let members = self.members_at(snapshot.index).clone();
        self.snapshot = Some((snapshot, members));
    }

    pub(super) fn append(&mut self, entries: &[RaftEntry]) {
        let Some(first) = entries.first() else { return };
        assert!(first.index > self.compacted.0, "entry {} is compacted already", first.index);
        assert!(first.index <= self.next_index(), "entry {} would leave a gap", first.index);
        self.entries.truncate((first.index - self.compacted.0 - 1) as usize);
        self.changes.retain(|(index, _)| *index < first.index);
        for entry in entries.iter().cloned().map(Entry::from_raft) {
            self.changes.extend(Members::from_data(&entry.data).map(|members| (entry.index, members)));
            self.entries.push_back(entry);
        }
    }

    pub(super) fn set_hard_state(&mut self, state: HardState) {
        self.hard_state = state;
    }

    /// The index before the last entries up to `index` that weigh no more than `bytes` together.
    pub(super) fn before_last(&self, index: u64, bytes: u64) -> u64 {
        let mut room = bytes;
        let passed = self.entries.iter().rev().skip_while(|entry| entry.index > index);
        let fits = |entry: &&Entry| {
            let weight = (self.weigh)(&entry.data);
            let fits = weight <= room;
            room = room.saturating_sub(weight);
            fits
        };
        let kept = passed.take_while(fits).count() as u64;
        index.saturating_sub(kept)
    }

    pub(super) fn compact(&mut self, index: u64) {
        while self.entries.front().is_some_and(|entry| entry.index <= index) {
            let entry = self.entries.pop_front().expect("there is a front");
            self.compacted = (entry.index, entry.term);
        }
        while self.changes.first().is_some_and(|(at, _)| *at <= self.compacted.0) {
            self.base = self.changes.remove(0).1;
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

    pub(super) fn next_index(&self) -> u64 {
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
        Ok(RaftState::new(hard_state, self.members.conf_state()))
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
            out.push(entry.into_raft());
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

    fn snapshot(&self, request_index: u64, to: u64) -> Result<RaftSnapshot> {
        let found = self.snapshot.as_ref().filter(|(point, members)| point.index >= request_index && members.has(to));
        let Some((point, members)) = found else {
            self.snapshot_wanted.set(true);
            return Err(raft::Error::Store(StorageError::SnapshotTemporarilyUnavailable));
        };
        let mut snapshot = RaftSnapshot { data: point.data.clone(), ..RaftSnapshot::default() };
        let metadata = snapshot.mut_metadata();
        metadata.index = point.index;
        metadata.term = point.term;
        *metadata.mut_conf_state() = members.conf_state();
        Ok(snapshot)
    }
}
