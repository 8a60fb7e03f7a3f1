//! The files of one WAL: those that may be overwritten, those that are being made or removed, and how a start gets on where
//! the disk has no room for another.

use std::collections::{BTreeSet, VecDeque};

use super::disk::WalConfig;
use super::ops::{Context, Purpose};
use super::recovery::WalSeed;
use super::{Buffers, DeviceOp, FileId, WalId};
use crate::limits::BLOCK;
use crate::types::{Mono, Now};

/// Time between attempts to create a segment that failed.
const CREATE_AGAIN_MS: u64 = 1_000;

/// The very first segment is small, so that a new broker need not wait for a large file of zeros.
const FIRST_SEGMENT_BYTES: u64 = 4 * 1024 * 1024;

/// Where there is no room for more, a start makes do with a segment that has at least so many bytes.
const LEAST_SEGMENT_BYTES: u64 = 256 * 1024;

/// A slot that may be overwritten.
#[derive(Clone, Copy, Debug)]
pub(super) struct Free {
    pub(super) slot: u32,
    pub(super) len: u64,
}

/// What a WAL needs of its slots.
#[derive(Clone, Copy)]
pub(super) struct Need {
    /// Whether this run has a segment to write to. Until then it needs nothing but one.
    pub(super) started: bool,
    /// How many slots of full length are to be free.
    pub(super) spares: usize,
    /// The WAL calls itself full.
    pub(super) full: bool,
}

/// The slots of one WAL.
pub(super) struct Slots {
    wal: WalId,
    config: WalConfig,
    /// All slots that have a file, or are about to: those of segments in use too.
    known: BTreeSet<u32>,
    /// Those that may be overwritten, the longest free first.
    free: VecDeque<Free>,
    /// Those found at the start that cannot be used.
    unwanted: Vec<u32>,
    /// How many have a file that is being removed.
    removing: usize,
    creating: Option<Free>,
    /// A segment's file is being cut.
    cutting: bool,
    /// Bytes that the next one is to have where there was no room for a whole one.
    smaller: Option<u64>,
    /// There was no room for a whole one at the last attempt.
    no_space: bool,
    create_at: Mono,
    /// Most slots: more than configured while a start found so many in use that it could not go on.
    limit: usize,
}

impl Slots {
    pub(super) fn new(wal: WalId, config: WalConfig, seed: &WalSeed) -> Slots {
        let known = (seed.segments.iter().map(|segment| segment.slot))
            .chain(seed.free.iter().map(|free| free.slot))
            .chain(seed.unwanted.iter().copied())
            .collect();
        let (whole, odd): (Vec<Free>, Vec<Free>) = seed.free.iter().partition(|free| free.len == config.segment_bytes);
        // Each start takes a new segment, however little there is in the last one. Starts in quick succession must
        // not fill the WAL before anyone can write a checkpoint.
        let limit = (config.max_segments as usize).max(seed.segments.len() + config.reserve() + 2);
        Slots {
            wal,
            config,
            known,
            free: whole.into_iter().chain(odd).collect(),
            unwanted: seed.unwanted.clone(),
            removing: 0,
            creating: None,
            cutting: false,
            smaller: None,
            no_space: false,
            create_at: Mono::default(),
            limit,
        }
    }

    /// There was no room for a whole segment at the last attempt.
    pub(super) fn no_space(&self) -> bool {
        self.no_space
    }

    /// Whether none may be overwritten.
    pub(super) fn is_empty(&self) -> bool {
        self.free.is_empty()
    }

    /// Most segments, whatever room there is.
    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// A segment was given back: what a start had beyond the configured number goes with it.
    pub(super) fn lower_limit(&mut self) {
        self.limit = (self.config.max_segments as usize).max(self.limit - 1);
    }

    /// Segments that this WAL can have at all, before the next start.
    pub(super) fn capacity(&self) -> usize {
        match self.no_space {
            true => self.known.len().saturating_sub(self.held_back()),
            false => self.limit,
        }
    }

    /// Bytes of the slots that may be overwritten before the next start.
    pub(super) fn free_bytes(&self) -> u64 {
        let free: u64 = self.free.iter().map(|free| free.len).sum();
        free.saturating_sub(self.held_back() as u64 * self.config.segment_bytes)
    }

    /// Slots that are kept for the next start, which needs one: where there is no room for more, without it nobody could so
    /// much as delete what takes the room.
    fn held_back(&self) -> usize {
        usize::from(self.no_space)
    }

    /// A slot of `len` bytes or more, if one may be had.
    pub(super) fn take(&mut self, len: u64, started: bool) -> Option<Free> {
        if started && self.free.len() <= self.held_back() {
            return None;
        }
        let fits = self.free.iter().position(|free| len <= free.len)?;
        self.free.remove(fits)
    }

    /// Takes back the slot of a segment that is needed no longer.
    pub(super) fn give(&mut self, free: Free) {
        self.free.push_back(free);
    }

    /// Removes what a start has found and cannot use.
    pub(super) fn remove_unwanted<B: Buffers, F>(&mut self, cx: &mut Context<'_, B, F>) {
        for slot in std::mem::take(&mut self.unwanted) {
            self.remove(slot, cx);
        }
    }

    fn remove<B: Buffers, F>(&mut self, slot: u32, cx: &mut Context<'_, B, F>) {
        self.removing += 1;
        let wal = self.wal;
        cx.start(Purpose::WalRemove { wal, slot }, DeviceOp::Remove { file: FileId::Wal { wal, slot } });
    }

    /// The file is gone, or stays until the next start finds it; either way the slot is not used.
    pub(super) fn removed(&mut self, slot: u32) {
        self.removing -= 1;
        self.known.remove(&slot);
    }

    /// Removes the free ones that are not of full length, and those beyond `spares` that are too many.
    fn trim<B: Buffers, F>(&mut self, spares: usize, cx: &mut Context<'_, B, F>) {
        while let Some(free) = self.unneeded(spares).and_then(|at| self.free.remove(at)) {
            self.remove(free.slot, cx);
        }
    }

    /// The place of a free slot that is to go.
    fn unneeded(&self, spares: usize) -> Option<usize> {
        let odd = self.free.iter().position(|free| free.len != self.config.segment_bytes);
        let many = self.known.len() - self.removing > self.config.max_segments as usize && self.free.len() > spares;
        odd.or(many.then(|| self.free.len() - 1))
    }

    /// Keeps free slots ahead of need, up to the limit, and no others.
    pub(super) fn make_spare<B: Buffers, F>(&mut self, now: Now, need: Need, cx: &mut Context<'_, B, F>) {
        let whole = self.free.iter().filter(|free| free.len == self.config.segment_bytes).count();
        let enough = whole >= need.spares;
        // Before there are enough nobody knows whether the disk has room for them.
        if enough && need.started && !self.no_space {
            self.trim(need.spares, cx);
        }
        // A ring that is full for want of space tries again, even with slots at hand: it stays full until it grows.
        let starved = self.no_space && need.full;
        // A start whose slots are all held or wait for a write that says so needs one more for that write.
        let stuck = !need.started && self.free.is_empty();
        if self.creating.is_some()
            || self.cutting
            || (enough && !starved)
            || (self.known.len() >= self.limit && !stuck)
            || now.mono < self.create_at
        {
            return;
        }
        let Some(slot) = (0..).find(|slot| !self.known.contains(slot)) else { return };
        let whole = match self.known.is_empty() {
            true => self.config.segment_bytes.min(FIRST_SEGMENT_BYTES),
            false => self.config.segment_bytes,
        };
        let len = self.smaller.map_or(whole, |smaller| smaller.min(whole));
        self.known.insert(slot);
        self.creating = Some(Free { slot, len });
        let wal = self.wal;
        let op = DeviceOp::Create { file: FileId::Wal { wal, slot }, len };
        cx.start(Purpose::WalCreate { wal, slot }, op);
    }

    /// A slot was created, or could not be; then what is there must do, and it is tried again later.
    pub(super) fn created(&mut self, now: Now, slot: u32, result: Result<(), i32>) {
        let Some(made) = self.creating.take_if(|creating| creating.slot == slot) else {
            panic!("a slot was created that nobody wanted")
        };
        match result {
            Ok(()) => {
                self.no_space = self.smaller.take().is_some();
                self.free.push_back(made);
            }
            Err(_) => {
                self.no_space = true;
                self.known.remove(&slot);
                self.create_at = now.mono.plus_millis(CREATE_AGAIN_MS);
            }
        }
    }

    /// For a start that found no room for a slot: cuts the file of a segment after `len` bytes, and tries then for one of the
    /// bytes gained.
    pub(super) fn cut<B: Buffers, F>(&mut self, segment: Free, gained: u64, cx: &mut Context<'_, B, F>) {
        self.cutting = true;
        self.smaller = Some(gained);
        let wal = self.wal;
        let file = FileId::Wal { wal, slot: segment.slot };
        cx.start(Purpose::WalShorten { wal }, DeviceOp::Shorten { file, len: segment.len });
    }

    /// The same where there is nothing to cut: there may be room for one half as large. With too little even for the least it
    /// begins anew when it is time.
    pub(super) fn halve(&mut self, now: Now) {
        let half = (self.smaller.unwrap_or(self.config.segment_bytes) / 2).next_multiple_of(BLOCK as u64);
        self.smaller = (half >= least_bytes(&self.config)).then_some(half);
        if self.smaller.is_some() {
            self.create_at = now.mono;
        }
    }

    /// A segment's file was cut, or could not be: then there will be no room, and less is tried.
    pub(super) fn shortened(&mut self, now: Now) {
        self.cutting = false;
        self.create_at = now.mono;
    }
}

/// Bytes of the smallest segment that is any use to a start.
pub(super) fn least_bytes(config: &WalConfig) -> u64 {
    LEAST_SEGMENT_BYTES.min(config.segment_bytes / 4)
}
