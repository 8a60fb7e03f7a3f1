//! The machine of one disk: two write-ahead logs and the segment files. It owns every operation on the device.

use super::ops::{Context, Ops, Purpose};
use super::recovery::DiskSeed;
use super::segment::{FileOp, Segments};
use super::wal::Wal;
use super::{Buffers, DeviceDone, DeviceOp, DiskError, DiskReply, DiskRequest, Space, WalId};
use crate::limits;
use crate::metrics::DiskMetrics;
use crate::types::{Now, ShardId};

/// The size of one WAL.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WalConfig {
    /// Bytes of a segment, a multiple of 4096.
    pub segment_bytes: u64,
    /// Most segments, at least 4. The last two of them, or the last one of less than eight, are a reserve: when
    /// only it is left the WAL calls itself full, and shards write nothing but checkpoints and deletions; those of records
    /// stop before its last half segment.
    pub max_segments: u32,
}

impl WalConfig {
    pub(super) fn reserve(&self) -> usize {
        if self.max_segments < 8 { 1 } else { 2 }
    }
}

/// The sizes of a disk's WALs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DiskConfig {
    /// The metadata's WAL.
    pub meta: WalConfig,
    /// The WAL of the partitions.
    pub data: WalConfig,
}

impl Default for DiskConfig {
    fn default() -> DiskConfig {
        DiskConfig {
            meta: WalConfig { segment_bytes: limits::METADATA_WAL_SEGMENT_BYTES, max_segments: 4 },
            data: WalConfig { segment_bytes: limits::WAL_SEGMENT_BYTES, max_segments: 16 },
        }
    }
}

/// Something that happened to a disk's machine. `Buf` is the buffer of its [`Buffers`].
#[derive(Debug)]
pub enum DiskEvent<Buf> {
    /// A shard asked for something.
    Request {
        /// The shard; replies go to it.
        from: ShardId,
        /// What it asked.
        request: DiskRequest,
    },
    /// An operation of the device has ended.
    Done {
        /// The token of its [`DiskEffect::Device`].
        token: u64,
        /// Its outcome.
        done: DeviceDone<Buf>,
    },
}

/// Something that a disk's machine wants done.
#[derive(Debug)]
pub enum DiskEffect<Buf> {
    /// Start an operation; any number may be under way, and they may end in any order.
    Device {
        /// Comes back in [`DiskEvent::Done`], exactly once.
        token: u64,
        /// The operation.
        op: DeviceOp<Buf>,
    },
    /// Tell a shard something. Replies to one shard must arrive in the order they were made.
    Reply {
        /// The shard.
        to: ShardId,
        /// What to tell it.
        reply: DiskReply,
    },
}

/// The state machine of one disk. The driver hands it events with [`Disk::step`], calls [`Disk::finish_turn`]
/// whenever it has drained what was waiting, and [`Disk::tick`] after [`Disk::tick_in_ms`]. It starts its own work (the
/// first WAL segments) in the first `finish_turn`.
pub struct Disk<B: Buffers> {
    buffers: B,
    shards: u16,
    ops: Ops<FileOp>,
    meta: Wal<B::Buf>,
    data: Wal<B::Buf>,
    segments: Segments,
    /// Shards that have not said yet that the damage which the start has found may be forgotten.
    mindful: u16,
}

/// The parts of a disk's machine side by side.
struct Parts<'a, B: Buffers> {
    meta: &'a mut Wal<B::Buf>,
    data: &'a mut Wal<B::Buf>,
    segments: &'a mut Segments,
    mindful: &'a mut u16,
    cx: Context<'a, B, FileOp>,
}

impl<'a, B: Buffers> Parts<'a, B> {
    fn wal(&mut self, wal: WalId) -> (&mut Wal<B::Buf>, &mut Context<'a, B, FileOp>) {
        match wal {
            WalId::Meta => (self.meta, &mut self.cx),
            WalId::Data => (self.data, &mut self.cx),
        }
    }
}

impl<B: Buffers> Disk<B> {
    /// A machine that goes on where [`recover`](super::recovery::recover) ended.
    ///
    /// `shards` is the number of shards of this start; it says which shard owns a log.
    pub fn new(config: DiskConfig, seed: DiskSeed, buffers: B, shards: u16) -> Disk<B> {
        assert!(shards > 0, "a broker has at least one shard");
        let mut segments = Segments::default();
        for log in seed.deleted {
            segments.remove(None, log, None);
        }
        Disk {
            buffers,
            shards,
            ops: Ops::new(),
            meta: Wal::new(WalId::Meta, config.meta, seed.meta),
            data: Wal::new(WalId::Data, config.data, seed.data),
            segments,
            mindful: shards,
        }
    }

    /// What it counts, for any thread to read.
    pub fn metrics(&self) -> DiskMetrics {
        DiskMetrics { meta: self.meta.metrics(), data: self.data.metrics() }
    }

    /// Takes one event. What it leads to on the device is started by the next [`Disk::finish_turn`], so that the
    /// appends of a turn share a write.
    pub fn step(&mut self, now: Now, event: DiskEvent<B::Buf>, effects: &mut Vec<DiskEffect<B::Buf>>) {
        match event {
            DiskEvent::Request { from, request } => self.request(now, from, request, effects),
            DiskEvent::Done { token, done } => self.done(now, token, done, effects),
        }
    }

    fn request(&mut self, now: Now, from: ShardId, request: DiskRequest, effects: &mut Vec<DiskEffect<B::Buf>>) {
        let mut parts = self.parts(effects);
        let Parts { segments, cx, .. } = &mut parts;
        match request {
            DiskRequest::Append { ticket, wal, frames } => {
                let (wal, cx) = parts.wal(wal);
                wal.append(now, from, ticket, frames, cx);
            }
            DiskRequest::WriteSegment { token, segment, position, data } => {
                segments.write((from, token), segment, position, data, cx)
            }
            DiskRequest::ReadSegment { token, segment, position, len } => {
                segments.read((from, token), segment, position, len, cx)
            }
            DiskRequest::DeleteSegment { token, log, segment } => {
                segments.remove(Some((from, token)), log, Some(segment));
            }
            DiskRequest::DeleteLog { token, log } => {
                segments.remove(Some((from, token)), log, None);
            }
            DiskRequest::ForgetDamage => {
                *parts.mindful -= 1;
                if *parts.mindful == 0 {
                    parts.data.forget_damage();
                }
            }
            DiskRequest::Space { token } => cx.start(Purpose::Space { from, token }, DeviceOp::Space),
        }
    }

    fn done(&mut self, now: Now, token: u64, done: DeviceDone<B::Buf>, effects: &mut Vec<DiskEffect<B::Buf>>) {
        let purpose = self.ops.take(token);
        let mut parts = self.parts(effects);
        match purpose {
            Purpose::WalWrite { wal, sequence } => {
                let (wal, cx) = parts.wal(wal);
                wal.write_done(now, sequence, done, cx);
            }
            Purpose::WalCreate { wal, slot } => {
                let (wal, cx) = parts.wal(wal);
                wal.created(now, slot, done.result.map(|_| ()), cx);
            }
            Purpose::WalShorten { wal } => parts.wal(wal).0.shortened(now),
            Purpose::WalRemove { wal, slot } => parts.wal(wal).0.removed(slot),
            Purpose::Space { from, token } => {
                let error = |errno| DiskError::Io {
                    file: ".".to_owned(),
                    detail: std::io::Error::from_raw_os_error(errno).to_string(),
                };
                let result = done.result.map(|bytes| Space::from_bytes(&bytes)).map_err(error);
                parts.cx.reply(from, DiskReply::Space { token, result });
            }
            Purpose::File(op) => parts.segments.done(op, done, &mut parts.cx),
        }
    }

    fn parts<'a>(&'a mut self, effects: &'a mut Vec<DiskEffect<B::Buf>>) -> Parts<'a, B> {
        Parts {
            meta: &mut self.meta,
            data: &mut self.data,
            segments: &mut self.segments,
            mindful: &mut self.mindful,
            cx: Context { buffers: &mut self.buffers, ops: &mut self.ops, effects, shards: self.shards },
        }
    }

    /// Submits what was gathered, as far as the writes in flight allow: the metadata's first.
    pub fn finish_turn(&mut self, now: Now, effects: &mut Vec<DiskEffect<B::Buf>>) {
        let mut parts = self.parts(effects);
        parts.meta.pump(now, &mut parts.cx);
        parts.data.pump(now, &mut parts.cx);
        parts.segments.pump(&mut parts.cx);
    }

    /// Does what is due by time: health reports, confirming writes, further attempts to get WAL space.
    pub fn tick(&mut self, now: Now, effects: &mut Vec<DiskEffect<B::Buf>>) {
        let mut parts = self.parts(effects);
        parts.meta.tick(now, &mut parts.cx);
        parts.data.tick(now, &mut parts.cx);
    }

    /// Whether an operation is in flight, or something waits for one or for a tick. A machine that is not busy
    /// has made everything durable that it accepted, and has said so on the device.
    pub fn busy(&self) -> bool {
        self.works() || self.wals().any(|wal| wal.confirms_at().is_some())
    }

    /// Time until the next tick, in milliseconds, [`limits::IDLE_TICK_MS`] at most.
    pub fn tick_in_ms(&self, now: Now) -> u64 {
        if self.works() {
            return limits::TICK_MS;
        }
        let confirms = self.wals().filter_map(Wal::confirms_at).min();
        let wait = confirms.map_or(u64::MAX, |at| at.micros_since(now.mono).div_ceil(1_000));
        wait.clamp(1, limits::IDLE_TICK_MS)
    }

    fn works(&self) -> bool {
        !self.ops.is_empty() || self.wals().any(Wal::works) || self.segments.busy()
    }

    fn wals(&self) -> impl Iterator<Item = &Wal<B::Buf>> {
        [&self.meta, &self.data].into_iter()
    }
}
