//! One write-ahead log: gathers frames, writes them in order, and keeps the ring of its segments.
//!
//! Order of its positions: `recorded.confirmed <= durable < next_sequence`. All writes up to `durable` are on
//! the device; `recorded` is what the newest of them says about those before it, and is all that a recovery knows.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::disk::WalConfig;
use super::gather::{Acks, Gather, note_ack};
use super::ops::{Context, Purpose};
use super::pins::{Note, Pins};
use super::recovery::WalSeed;
use super::slots::{Free, Need, Slots, least_bytes};
use super::wal_format::{HEADER_BYTES, WriteHeader, align_up};
use super::{Buffers, DeviceDone, DeviceOp, DiskError, DiskReply, FileId, Frame, WalId};
use crate::limits::{
    AGAIN_BYTES, BLOCK, CANARY_MS, RELEASE_LOGS, TICK_MS, WAL_PENDING_BYTES, WAL_WRITE_BYTES, WAL_WRITES_IN_FLIGHT,
};
use crate::metrics::WalMetrics;
use crate::types::{LogId, Mono, Now, ShardId};

/// With writes in flight, a further one is started only for this many bytes: smaller ones wait and share one.
const WORTH_A_WRITE_BYTES: usize = 256 * 1024;
/// After this long without a further write, an empty one says that the last was durable. The canaries of a cluster's broker
/// are further writes, so that it makes no empty ones at rest.
pub(super) const CONFIRM_AFTER_MS: u64 = 150;
const _: () = assert!(CONFIRM_AFTER_MS > CANARY_MS + 2 * TICK_MS);
/// The logs that hold up the oldest segment are reminded this often.
const RELEASE_AGAIN_MS: u64 = 200;
/// Full buffers that may wait for their write. Frames beyond that wait as they are: each further buffer would be memory
/// that was not touched before, whose first touch costs more than the copy.
const GATHERED_AHEAD: usize = 1;
/// Ages below this are the usual course of a write, and reported as none.
const NOTABLE_AGE_MS: u64 = 20;

/// The last block of a segment is left to an empty write, so that a full ring can still record on the device
/// that its oldest segment is free: no slot is overwritten before that.
const CLOSING_BYTES: u64 = BLOCK as u64;

/// A segment that is in use, or was and may not be overwritten yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment {
    pub(super) generation: u64,
    pub(super) slot: u32,
    pub(super) len: u64,
    /// End of the last write to it.
    pub(super) used: u64,
    /// Writes to it that are not known to be durable.
    pub(super) in_flight: u32,
}

struct InFlight {
    generation: u64,
    confirmed: u64,
    oldest: u64,
    done: bool,
    empty: bool,
    bytes: u64,
    since: Mono,
    /// When it was handed to the device, and how long it is there.
    submitted: Mono,
    len: u64,
    notes: Vec<Note>,
    acks: Acks,
}

/// A frame that was accepted and not copied yet.
struct Waiting {
    frame: Frame,
    /// Bytes of it and of those behind it that are to be in the same write.
    together: usize,
    since: Mono,
    /// Whom to tell of it, with which ticket: the last frame of an append.
    ack: Option<(ShardId, u64)>,
}

/// Whose logs were asked to release it last.
#[derive(Clone, Copy)]
struct Asked {
    /// The segment.
    generation: u64,
    at: Mono,
    /// How many were not asked yet.
    left: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Default)]
struct Health {
    oldest_ms: u64,
    pending_bytes: u64,
    full: bool,
    scarce: bool,
    no_space: bool,
}

/// The state machine of one WAL.
pub(super) struct Wal<Buf> {
    id: WalId,
    config: WalConfig,

    next_sequence: u64,
    durable: u64,
    /// `confirmed` and `oldest` of the newest durable write.
    recorded_confirmed: u64,
    recorded_oldest: u64,
    /// The newest durable write that holds frames.
    last_framed: u64,
    last_durable_at: Mono,
    /// The segment of write `durable`. It and those after it stay in the ring, so that the segment that headers
    /// name as the oldest is always on the device.
    durable_generation: u64,

    /// Frames for which there was no buffer yet, in order.
    waiting: VecDeque<Waiting>,
    gathering: Option<Gather<Buf>>,
    /// Full buffers that wait for a write in flight to end, [`GATHERED_AHEAD`] at most.
    ready: VecDeque<Gather<Buf>>,
    /// Writes submitted, by sequence; the last is `next_sequence - 1`.
    in_flight: VecDeque<InFlight>,
    /// Bytes of frames accepted and not durable.
    pending_bytes: u64,
    spare_notes: Vec<Vec<Note>>,

    next_generation: u64,
    /// Segments with anything needed, oldest first; the last is written to once this run has `started`.
    ring: VecDeque<Segment>,
    /// Whether this run has a segment: a start goes on in a new one.
    started: bool,
    pins: Pins,
    /// Needed no longer, but no durable write says so yet.
    released: VecDeque<Segment>,
    slots: Slots,

    fenced: bool,
    reported: Health,
    asked: Option<Asked>,
    /// The start has found damage that it must not forget: the oldest segment that headers name until it may.
    held: Option<u64>,
    metrics: Arc<WalMetrics>,
}

impl<Buf: AsRef<[u8]> + AsMut<[u8]> + 'static> Wal<Buf> {
    pub(super) fn new(id: WalId, config: WalConfig, seed: WalSeed) -> Wal<Buf> {
        assert!(
            config.segment_bytes.is_multiple_of(BLOCK as u64)
                && config.segment_bytes >= 4 * BLOCK as u64
                && config.max_segments >= 4,
            "a WAL has at least four segments of at least four blocks"
        );
        Wal {
            id,
            config,
            slots: Slots::new(id, config, &seed),
            next_sequence: seed.last_sequence + 1,
            durable: seed.last_sequence,
            recorded_confirmed: seed.confirmed,
            recorded_oldest: seed.oldest,
            last_framed: seed.last_framed,
            last_durable_at: Mono::default(),
            durable_generation: seed.segments.last().map_or(0, |last| last.generation),
            waiting: VecDeque::new(),
            gathering: None,
            ready: VecDeque::new(),
            in_flight: VecDeque::new(),
            pending_bytes: 0,
            spare_notes: Vec::new(),
            next_generation: seed.last_generation + 1,
            ring: seed.segments.into(),
            started: false,
            pins: seed.pins,
            released: VecDeque::new(),
            fenced: false,
            reported: Health::default(),
            asked: None,
            held: seed.held,
            metrics: Arc::default(),
        }
    }

    /// What it counts, for any thread to read.
    pub(super) fn metrics(&self) -> Arc<WalMetrics> {
        Arc::clone(&self.metrics)
    }

    /// Accepts the frames for the coming writes. They are answered when all of them are durable.
    pub(super) fn append<B: Buffers<Buf = Buf>, F>(
        &mut self,
        now: Now,
        from: ShardId,
        ticket: u64,
        frames: Vec<Frame>,
        cx: &mut Context<'_, B, F>,
    ) {
        assert!(!frames.is_empty(), "an append has at least one frame");
        if self.fenced {
            let error = DiskError::Fenced { file: self.name_of_newest() };
            cx.reply(from, DiskReply::WalFailed { wal: self.id, error });
            return;
        }
        let mut frames = frames.into_iter().peekable();
        while let Some(frame) = frames.next() {
            let again: Vec<Frame> = std::iter::from_fn(|| frames.next_if(|frame| frame.again)).collect();
            let alone = frame.wal_len();
            let together = alone + again.iter().map(Frame::wal_len).sum::<usize>();
            let fits = HEADER_BYTES + together <= (self.config.segment_bytes / 2) as usize;
            let (together, again) = if fits { (together, again) } else { (alone, Vec::new()) };
            self.pending_bytes += together as u64;
            self.waiting.push_back(Waiting { frame, together, since: now.mono, ack: None });
            let waiting = |frame: Frame| Waiting { together: frame.wal_len(), frame, since: now.mono, ack: None };
            self.waiting.extend(again.into_iter().map(waiting));
        }
        if let Some(last) = self.waiting.back_mut() {
            last.ack = Some((from, ticket));
        }
    }

    /// Copies frames into the coming writes, as far as buffers may be ahead of them.
    fn gather<B: Buffers<Buf = Buf>, F>(&mut self, cx: &mut Context<'_, B, F>) {
        let most = self.config.segment_bytes - CLOSING_BYTES;
        while let Some(next) = self.waiting.front() {
            if let Some(full) = self.gathering.take_if(|gather| !gather.fits(next.together)) {
                self.ready.push_back(full);
            }
            if self.gathering.is_none() && self.ready.len() >= GATHERED_AHEAD {
                return;
            }
            let Some(Waiting { frame, together, since, ack }) = self.waiting.pop_front() else { return };
            let notes = &mut self.spare_notes;
            let gather = self.gathering.get_or_insert_with(|| {
                let needed = align_up((HEADER_BYTES + together) as u64);
                assert!(needed <= most, "a frame of {} bytes does not fit a WAL segment", frame.payload_len());
                let len = needed.max(most.min(WAL_WRITE_BYTES as u64));
                let buf = cx.buffers.take(len as usize);
                Gather::new(buf, notes.pop().unwrap_or_default(), since)
            });
            gather.push(&frame);
            if let Some((from, ticket)) = ack {
                note_ack(&mut gather.acks, from, ticket);
            }
        }
    }

    /// Starts what may be started: writes, a spare segment, requests for space.
    pub(super) fn pump<B: Buffers<Buf = Buf>, F>(&mut self, now: Now, cx: &mut Context<'_, B, F>) {
        self.slots.remove_unwanted(cx);
        if self.fenced {
            return;
        }
        self.release_oldest();
        loop {
            self.gather(cx);
            let Some(len) = self.next_write_len() else { break };
            if !self.make_room(len) {
                self.record_released(now, cx);
                break;
            }
            let gather = self.ready.pop_front().or_else(|| self.gathering.take());
            if let Some(gather) = gather {
                self.submit(now, gather, cx);
            }
        }
        self.slots.make_spare(now, self.need(), cx);
        self.ask_for_release(now, cx);
        let health = self.health(now);
        let relieved =
            self.reported.pending_bytes >= WAL_PENDING_BYTES / 2 && health.pending_bytes < WAL_PENDING_BYTES / 2;
        let recovered = self.reported.oldest_ms > 0 && health.oldest_ms == 0;
        let room = |health: &Health| (health.full, health.scarce, health.no_space);
        if relieved || recovered || room(&health) != room(&self.reported) {
            self.report(health, cx);
        }
    }

    /// Does what is due by time.
    pub(super) fn tick<B: Buffers<Buf = Buf>, F>(&mut self, now: Now, cx: &mut Context<'_, B, F>) {
        if self.fenced {
            return;
        }
        if self.wants_confirm() && now.mono >= self.confirm_due() && self.make_confirming_room() {
            self.submit_empty(now, cx);
        }
        self.pump(now, cx);
        let health = self.health(now);
        if health.oldest_ms > 0 || health != self.reported {
            self.report(health, cx);
        }
    }

    /// Whether it waits for its next tick or for a slot; operations in flight are counted elsewhere.
    pub(super) fn works(&self) -> bool {
        let asks = self.asked.is_some_and(|asked| asked.left > 0);
        !self.fenced && (self.has_work() || asks)
    }

    /// When it is to say that its last write was durable, where that was not said.
    pub(super) fn confirms_at(&self) -> Option<Mono> {
        let can_write = self.started || !self.slots.is_empty();
        (!self.fenced && self.wants_confirm() && can_write).then(|| self.confirm_due())
    }

    fn confirm_due(&self) -> Mono {
        self.last_durable_at.plus_millis(CONFIRM_AFTER_MS)
    }

    fn has_work(&self) -> bool {
        !self.in_flight.is_empty() || !self.ready.is_empty() || self.gathering.is_some() || !self.waiting.is_empty()
    }

    fn wants_confirm(&self) -> bool {
        self.recorded_confirmed < self.last_framed
    }

    /// Bytes of the next write that may be started now.
    fn next_write_len(&self) -> Option<u64> {
        if self.in_flight.len() >= WAL_WRITES_IN_FLIGHT {
            return None;
        }
        if let Some(full) = self.ready.front() {
            return Some(full.write_len());
        }
        let gather = self.gathering.as_ref()?;
        (self.in_flight.is_empty() || gather.used() >= WORTH_A_WRITE_BYTES).then(|| gather.write_len())
    }

    /// Sees to it that the newest segment takes `len` more bytes; false while there is no slot for a new one.
    fn make_room(&mut self, len: u64) -> bool {
        if self.unused() >= len + CLOSING_BYTES {
            return true;
        }
        let Some(Free { slot, len }) = self.slots.take(len + CLOSING_BYTES, self.started) else {
            return false;
        };
        let generation = self.next_generation;
        self.next_generation += 1;
        self.pins.open(generation);
        self.ring.push_back(Segment { generation, slot, len, used: 0, in_flight: 0 });
        self.started = true;
        true
    }

    /// Bytes of the newest segment that are left to write to.
    fn unused(&self) -> u64 {
        self.ring.back().filter(|_| self.started).map_or(0, |newest| newest.len - newest.used)
    }

    fn closing_room(&self) -> bool {
        self.unused() >= CLOSING_BYTES
    }

    /// Room for an empty write: the last block of a segment will do.
    fn make_closing_room(&mut self) -> bool {
        self.closing_room() || self.make_room(CLOSING_BYTES)
    }

    /// Room to confirm the last write: when nothing else is to be written, or while what is has to wait for a slot. Then the
    /// last block stays for the write that makes slots usable.
    fn make_confirming_room(&mut self) -> bool {
        if !self.has_work() {
            return self.make_closing_room();
        }
        self.in_flight.is_empty() && self.unused() >= 2 * CLOSING_BYTES
    }

    /// Without a slot for the next segment: an empty write makes those usable that were released.
    fn record_released<B: Buffers<Buf = Buf>, F>(&mut self, now: Now, cx: &mut Context<'_, B, F>) {
        if self.in_flight.is_empty() && !self.released.is_empty() && self.closing_room() {
            self.submit_empty(now, cx);
        }
    }

    fn submit_empty<B: Buffers<Buf = Buf>, F>(&mut self, now: Now, cx: &mut Context<'_, B, F>) {
        let notes = self.spare_notes.pop().unwrap_or_default();
        let empty = Gather::new(cx.buffers.take(BLOCK), notes, now.mono);
        self.submit(now, empty, cx);
    }

    fn submit<B: Buffers<Buf = Buf>, F>(&mut self, now: Now, gather: Gather<Buf>, cx: &mut Context<'_, B, F>) {
        let Some(oldest) = self.ring.front().filter(|_| self.started) else {
            panic!("a write was submitted without a segment");
        };
        let oldest = self.held.unwrap_or(oldest.generation);
        let Some(segment) = self.ring.back_mut() else {
            panic!("a write was submitted without a segment");
        };
        let len = gather.write_len();
        let offset = segment.used;
        assert!(offset + len <= segment.len, "a write must not reach beyond its segment");
        segment.in_flight += 1;
        segment.used += len;
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        let mut write = InFlight {
            generation: segment.generation,
            confirmed: self.durable,
            oldest,
            done: false,
            empty: gather.is_empty(),
            bytes: gather.payload_len() as u64,
            since: gather.since,
            submitted: now.mono,
            len,
            notes: Vec::new(),
            acks: Acks::new(),
        };
        let header = WriteHeader {
            wal: self.id,
            generation: segment.generation,
            sequence,
            confirmed: self.durable,
            oldest,
            payload_len: 0,
            frames: 0,
            payload_crc: 0,
        };
        let file = FileId::Wal { wal: self.id, slot: segment.slot };
        let buf;
        (buf, write.notes, write.acks) = gather.seal(header);
        self.metrics.gather.observe(now.mono.micros_since(write.since));
        self.in_flight.push_back(write);
        let purpose = Purpose::WalWrite { wal: self.id, sequence };
        let len = len as usize;
        cx.start(purpose, DeviceOp::Write { file, offset, buf, len });
    }

    /// A write has ended, not necessarily the oldest.
    pub(super) fn write_done<B: Buffers<Buf = Buf>, F>(
        &mut self,
        now: Now,
        sequence: u64,
        done: DeviceDone<Buf>,
        cx: &mut Context<'_, B, F>,
    ) {
        if let Some(buf) = done.buf {
            cx.buffers.give(buf);
        }
        if self.fenced {
            return;
        }
        let first = self.durable + 1;
        let write = &mut self.in_flight[(sequence - first) as usize];
        if let Err(errno) = done.result {
            let generation = write.generation;
            self.metrics.failures.add(1);
            self.fail(generation, errno, cx);
            return;
        }
        self.metrics.write.observe(now.mono.micros_since(write.submitted));
        self.metrics.written_bytes.add(write.len);
        write.done = true;
        let mut acks = Acks::new();
        while self.in_flight.front().is_some_and(|write| write.done)
            && let Some(mut write) = self.in_flight.pop_front()
        {
            self.durable += 1;
            self.recorded_confirmed = write.confirmed;
            self.recorded_oldest = write.oldest;
            self.last_durable_at = now.mono;
            self.durable_generation = write.generation;
            if !write.empty {
                self.last_framed = self.durable;
            }
            self.pending_bytes -= write.bytes;
            let mut ring = self.ring.iter_mut().rev();
            match ring.find(|segment| segment.generation == write.generation) {
                Some(segment) => segment.in_flight -= 1,
                None => panic!("a segment was given back with writes in flight"),
            }
            for note in write.notes.drain(..) {
                self.pins.apply(write.generation, &note);
            }
            self.spare_notes.push(write.notes);
            for (shard, ticket) in write.acks {
                note_ack(&mut acks, shard, ticket);
            }
        }
        for (shard, ticket) in acks {
            cx.reply(shard, DiskReply::Appended { wal: self.id, ticket });
        }
        self.release_oldest();
        let recorded = self.recorded_oldest;
        while (self.released.front()).is_some_and(|old| old.generation < recorded)
            && let Some(segment) = self.released.pop_front()
        {
            self.slots.give(Free { slot: segment.slot, len: segment.len });
        }
    }

    /// Moves segments that nobody needs out of the ring, oldest first.
    fn release_oldest(&mut self) {
        while let Some(&oldest) = self.ring.front() {
            let passed = oldest.generation < self.durable_generation && self.held.is_none();
            if !passed || oldest.in_flight > 0 || !self.pins.oldest_is_free() {
                return;
            }
            self.pins.close_oldest();
            self.ring.pop_front();
            self.slots.lower_limit();
            self.released.push_back(oldest);
        }
    }

    /// What was lost by the damage that the start has found is noted elsewhere: the next start need not see it.
    pub(super) fn forget_damage(&mut self) {
        self.held = None;
    }

    /// Slots are kept ahead of need, up to the limit: as many as are left when the WAL calls itself full. So where the disk has
    /// no room for more, there is some for what was accepted, for checkpoints, and for the next start.
    fn need(&self) -> Need {
        // Released slots come free with the next durable write. The first after a start needs a slot itself.
        let soon = if self.started { self.released.len() } else { 0 };
        // The first segment of a new WAL has one behind it.
        let ahead = self.config.reserve().min(self.ring.len().max(1));
        Need { started: self.started, spares: ahead.saturating_sub(soon), full: self.full() }
    }

    /// The file of a slot is gone, or stays.
    pub(super) fn removed(&mut self, slot: u32) {
        self.slots.removed(slot);
    }

    /// A slot was created, or could not be. A start that has no other makes do with what it can get: the unused end of a
    /// segment is of no use where it is, as each start goes on in a new one.
    pub(super) fn created<B: Buffers<Buf = Buf>, F>(
        &mut self,
        now: Now,
        slot: u32,
        result: Result<(), i32>,
        cx: &mut Context<'_, B, F>,
    ) {
        let failed = result.is_err();
        self.slots.created(now, slot, result);
        if !failed || self.started || !self.slots.is_empty() {
            return;
        }
        // Where there is damage the next start is to find it as it is.
        let longest =
            self.ring.iter_mut().filter(|_| self.held.is_none()).max_by_key(|segment| segment.len - segment.used);
        match longest.map(|segment| (segment.len - segment.used, segment)) {
            Some((unused, segment)) if unused >= least_bytes(&self.config) => {
                segment.len = segment.used;
                self.slots.cut(Free { slot: segment.slot, len: segment.len }, unused, cx);
            }
            _ => self.slots.halve(now),
        }
    }

    /// The unused end of a segment was cut off, or could not be.
    pub(super) fn shortened(&mut self, now: Now) {
        self.slots.shortened(now);
    }

    /// Bytes of the segments that are left before the next start.
    fn left_bytes(&self) -> u64 {
        match self.slots.no_space() {
            true => self.slots.free_bytes() + self.released.iter().map(|segment| segment.len).sum::<u64>(),
            false => self.slots.limit().saturating_sub(self.ring.len()) as u64 * self.config.segment_bytes,
        }
    }

    /// Whether the segments that are left, less what will be written of the bytes accepted, are the reserve.
    fn full(&self) -> bool {
        let left = self.left_bytes() / self.config.segment_bytes;
        let spoken_for = self.pending_bytes / self.config.segment_bytes;
        left <= self.config.reserve() as u64 + spoken_for
    }

    /// Whether less than half a segment is left, less what will be written of the bytes accepted; half of what a start had to
    /// make do with, where that is smaller.
    fn scarce(&self) -> bool {
        let newest = self.ring.back().filter(|_| self.started);
        let segment = newest.map_or(self.config.segment_bytes, |segment| segment.len).min(self.config.segment_bytes);
        self.left_bytes() + self.unused() < segment / 2 + self.pending_bytes
    }

    fn ask_for_release<B: Buffers<Buf = Buf>, F>(&mut self, now: Now, cx: &mut Context<'_, B, F>) {
        let Some(oldest) = self.ring.front() else {
            return;
        };
        let only = self.ring.len() == 1;
        let wanted = self.ring.len() * 2 >= self.slots.capacity().min(self.config.max_segments as usize) || self.full();
        if !wanted || only || self.pins.oldest_is_free() {
            self.asked = None;
            return;
        }
        let asked = self.asked.filter(|asked| asked.generation == oldest.generation);
        // All are asked one after the other, then those again that have not released it.
        let left = match asked {
            Some(Asked { left, at, .. }) if left > 0 && now.mono < at.plus_millis(TICK_MS) => return,
            Some(Asked { left: 0, at, .. }) if now.mono < at.plus_millis(RELEASE_AGAIN_MS) => return,
            Some(Asked { left, .. }) if left > 0 => left,
            _ => self.pins.len_of_oldest(),
        };
        let most = left.min(RELEASE_LOGS);
        self.asked = Some(Asked { generation: oldest.generation, at: now.mono, left: left - most });
        let mut owners: BTreeMap<ShardId, Vec<LogId>> = BTreeMap::new();
        for log in self.pins.of_oldest(most) {
            owners.entry(log.shard(cx.shards)).or_default().push(log);
        }
        // All of them together write no more than half a segment again.
        let again = (self.config.segment_bytes / 2 / self.pins.logs().max(1) as u64).min(AGAIN_BYTES);
        for (shard, logs) in owners {
            cx.reply(shard, DiskReply::Release { wal: self.id, logs, again });
        }
    }

    fn health(&self, now: Now) -> Health {
        let gathered = self.ready.front().or(self.gathering.as_ref());
        let since = (self.in_flight.front().map(|write| write.since))
            .or(gathered.map(|gather| gather.since))
            .or(self.waiting.front().map(|waiting| waiting.since));
        let age = since.map_or(0, |since| now.mono.micros_since(since) / 1_000);
        Health {
            oldest_ms: if age >= NOTABLE_AGE_MS { age } else { 0 },
            pending_bytes: self.pending_bytes,
            full: self.full(),
            scarce: self.scarce(),
            no_space: self.slots.no_space(),
        }
    }

    fn report<B: Buffers<Buf = Buf>, F>(&mut self, health: Health, cx: &mut Context<'_, B, F>) {
        self.reported = health;
        cx.reply_to_all(&DiskReply::Health {
            wal: self.id,
            oldest_ms: health.oldest_ms,
            pending_bytes: health.pending_bytes,
            full: health.full,
            scarce: health.scarce,
            no_space: health.no_space,
        });
    }

    /// Fences the WAL: what is in flight may or may not be on the device, and nobody is told that it is. All shards are
    /// told of it, those too that wait for nothing.
    fn fail<B: Buffers<Buf = Buf>, F>(&mut self, generation: u64, errno: i32, cx: &mut Context<'_, B, F>) {
        self.fenced = true;
        self.in_flight.clear();
        for gather in self.ready.drain(..).chain(self.gathering.take()) {
            cx.buffers.give(gather.discard());
        }
        self.waiting.clear();
        self.pending_bytes = 0;
        let slot = self.ring.iter().find(|s| s.generation == generation);
        let file = slot.map_or_else(String::new, |segment| self.name(segment.slot));
        let error = DiskError::Io { file, detail: std::io::Error::from_raw_os_error(errno).to_string() };
        cx.reply_to_all(&DiskReply::WalFailed { wal: self.id, error });
    }

    fn name(&self, slot: u32) -> String {
        FileId::Wal { wal: self.id, slot }.to_string()
    }

    fn name_of_newest(&self) -> String {
        self.name(self.ring.back().map_or(0, |segment| segment.slot))
    }
}
