//! A disk in memory whose operations end when the test says so, and in the order that it says.

use std::collections::BTreeMap;
use std::io;

use bytes::Bytes;

use crate::log::disk::{Disk, DiskConfig, DiskEffect, DiskEvent, WalConfig};
use crate::log::recovery::{DiskSeed, Recovered, RecoveryError, recover};
use crate::log::*;
use crate::types::{Mono, Now, ShardId};

pub(super) const SHARDS: u16 = 2;
pub(super) const EIO: i32 = 5;
pub(super) const ENOSPC: i32 = 28;

/// Segments of 16 blocks, so that a test fills many.
pub(super) fn small() -> DiskConfig {
    let wal = WalConfig { segment_bytes: 64 * 1024, max_segments: 8 };
    DiskConfig { meta: wal, data: wal }
}

/// Buffers that are full of garbage when they are taken.
#[derive(Default)]
pub(super) struct Pool;

impl Buffers for Pool {
    type Buf = Vec<u8>;

    fn take(&mut self, len: usize) -> Vec<u8> {
        assert!(len.is_multiple_of(4096) && len > 0);
        vec![0xEE; len]
    }

    fn give(&mut self, _: Vec<u8>) {}
}

/// The files' bytes.
#[derive(Clone, Default)]
pub(super) struct Memory {
    pub(super) files: BTreeMap<FileId, Vec<u8>>,
}

impl Device for Memory {
    fn wal_files(&self) -> io::Result<Vec<(FileId, u64)>> {
        let wals = self.files.iter().filter(|(file, _)| matches!(file, FileId::Wal { .. }));
        Ok(wals.map(|(file, bytes)| (*file, bytes.len() as u64)).collect())
    }

    fn segment_files(&self) -> io::Result<Vec<SegmentRef>> {
        Ok(self.files.keys().filter_map(|file| file.segment()).collect())
    }

    fn read_exact_at(&self, file: FileId, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let bytes = self.files.get(&file).ok_or(io::ErrorKind::NotFound)?;
        let from = offset as usize;
        let piece = bytes.get(from..from + buf.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        buf.copy_from_slice(piece);
        Ok(())
    }
}

/// A disk's machine with its device.
pub(super) struct Rig {
    pub(super) config: DiskConfig,
    pub(super) disk: Disk<Pool>,
    pub(super) memory: Memory,
    /// Operations started and not ended.
    pub(super) ops: Vec<(u64, DeviceOp<Vec<u8>>)>,
    /// Replies not taken yet.
    pub(super) replies: Vec<(ShardId, DiskReply)>,
    pub(super) now: Now,
}

impl Rig {
    pub(super) fn new(config: DiskConfig) -> Rig {
        Rig::over(config, Memory::default(), DiskSeed::default())
    }

    pub(super) fn over(config: DiskConfig, memory: Memory, seed: DiskSeed) -> Rig {
        let disk = Disk::new(config, seed, Pool, SHARDS);
        let now = Now { mono: Mono(1_000_000), wall_ms: 0 };
        Rig { config, disk, memory, ops: Vec::new(), replies: Vec::new(), now }
    }

    /// A rig with its first WAL segments made.
    pub(super) fn started(config: DiskConfig) -> Rig {
        let mut rig = Rig::new(config);
        rig.settle();
        rig
    }

    fn collect(&mut self, effects: Vec<DiskEffect<Vec<u8>>>) {
        for effect in effects {
            match effect {
                DiskEffect::Device { token, op } => self.ops.push((token, op)),
                DiskEffect::Reply { to, reply } => self.replies.push((to, reply)),
            }
        }
    }

    pub(super) fn step(&mut self, event: DiskEvent<Vec<u8>>) {
        let mut effects = Vec::new();
        self.disk.step(self.now, event, &mut effects);
        self.collect(effects);
    }

    pub(super) fn request(&mut self, shard: u16, request: DiskRequest) {
        self.step(DiskEvent::Request { from: ShardId(shard), request });
    }

    pub(super) fn append(&mut self, shard: u16, ticket: u64, frames: Vec<Frame>) {
        self.request(shard, DiskRequest::Append { ticket, wal: WalId::Data, frames });
    }

    pub(super) fn turn(&mut self) {
        let mut effects = Vec::new();
        self.disk.finish_turn(self.now, &mut effects);
        self.collect(effects);
    }

    pub(super) fn tick_after(&mut self, millis: u64) {
        self.now.mono = self.now.mono.plus_millis(millis);
        let mut effects = Vec::new();
        self.disk.tick(self.now, &mut effects);
        self.collect(effects);
    }

    /// Carries out operation `at` of those in flight and reports it done.
    pub(super) fn complete(&mut self, at: usize) {
        let (token, op) = self.ops.remove(at);
        let done = self.memory.carry_out(op);
        self.step(DiskEvent::Done { token, done });
    }

    /// Ends operation `at` with an error, without any effect.
    pub(super) fn fail(&mut self, at: usize, errno: i32) {
        let (token, op) = self.ops.remove(at);
        let buf = match op {
            DeviceOp::Write { buf, .. } => Some(buf),
            _ => None,
        };
        self.step(DiskEvent::Done { token, done: DeviceDone { buf, result: Err(errno) } });
    }

    /// Runs turns until nothing is in flight.
    pub(super) fn settle(&mut self) {
        self.turn();
        while !self.ops.is_empty() {
            self.complete(0);
            self.turn();
        }
    }

    /// The places of the WAL writes in flight.
    pub(super) fn writes(&self) -> Vec<usize> {
        let is_write = |op: &DeviceOp<_>| matches!(op, DeviceOp::Write { file: FileId::Wal { .. }, .. });
        (0..self.ops.len()).filter(|at| is_write(&self.ops[*at].1)).collect()
    }

    pub(super) fn take_replies(&mut self) -> Vec<(ShardId, DiskReply)> {
        std::mem::take(&mut self.replies)
    }

    /// The acknowledged tickets since the last call.
    pub(super) fn acked(&mut self) -> Vec<(u16, u64)> {
        let replies = self.take_replies();
        let acked = replies.into_iter().filter_map(|(shard, reply)| match reply {
            DiskReply::Appended { ticket, .. } => Some((shard.0, ticket)),
            _ => None,
        });
        acked.collect()
    }

    /// What a start after a crash finds.
    pub(super) fn recover(&self) -> Result<Recovered, RecoveryError> {
        recover(&self.memory, &self.config)
    }

    /// Dies with everything in flight lost, and starts anew.
    pub(super) fn restart(self) -> (Rig, Recovered) {
        let mut found = self.recover().expect("the disk is sound");
        let seed = std::mem::take(&mut found.disk);
        (Rig::over(self.config, self.memory, seed), found)
    }
}

impl Memory {
    pub(super) fn carry_out(&mut self, op: DeviceOp<Vec<u8>>) -> DeviceDone<Vec<u8>> {
        let mut done = DeviceDone { buf: None, result: Ok(Bytes::new()) };
        match op {
            DeviceOp::Create { file, len } => {
                self.files.insert(file, vec![0; len as usize]);
            }
            DeviceOp::Allocate { file, offset, len } => {
                assert!(offset.is_multiple_of(4096) && len.is_multiple_of(4096));
                self.files.entry(file).or_default();
            }
            DeviceOp::Write { file, offset, buf, len } => {
                assert!(offset.is_multiple_of(4096) && len.is_multiple_of(4096));
                let bytes = self.files.get_mut(&file).expect("a file is created before it is written");
                let end = offset as usize + len;
                if matches!(file, FileId::Wal { .. }) {
                    assert!(end <= bytes.len(), "WAL segments never grow");
                }
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                bytes[offset as usize..end].copy_from_slice(&buf[..len]);
                done.buf = Some(buf);
            }
            DeviceOp::Read { file, offset, len } => {
                assert!(offset.is_multiple_of(4096) && len.is_multiple_of(4096));
                done.result = match self.files.get(&file) {
                    Some(bytes) => {
                        let from = bytes.len().min(offset as usize);
                        let to = bytes.len().min(offset as usize + len);
                        Ok(Bytes::copy_from_slice(&bytes[from..to]))
                    }
                    None => Err(libc::ENOENT),
                };
            }
            DeviceOp::Shorten { file, len } => {
                self.files.get_mut(&file).expect("it is there").truncate(len as usize);
            }
            DeviceOp::Remove { file } => {
                self.files.remove(&file);
            }
            DeviceOp::Space => done.result = Ok(Space { total: 9, usable: 4 }.to_bytes()),
            DeviceOp::RemoveLog { log } => {
                self.files.retain(|file, _| !matches!(file, FileId::Segment(segment) if segment.log == log));
            }
        }
        done
    }
}

pub(super) fn entry(log: u64, index: u64, payload: &[u8]) -> Frame {
    Frame {
        log: LogId(log),
        kind: FrameKind::Entry,
        term: 1,
        index,
        head: SmallVec::from_slice(&payload[..payload.len().min(16)]),
        body: Bytes::copy_from_slice(&payload[payload.len().min(16)..]),
        again: false,
    }
}

pub(super) fn state(log: u64, kind: FrameKind, index: u64, payload: &[u8]) -> Frame {
    Frame { kind, ..entry(log, index, payload) }
}

/// The logs that these replies ask for space, and how many bytes of entries each may write once more for it.
pub(super) fn asked_for_space<'a>(replies: impl IntoIterator<Item = &'a (ShardId, DiskReply)>) -> Vec<(LogId, u64)> {
    let mut asked = Vec::new();
    for (_, reply) in replies {
        if let DiskReply::Release { logs, again, .. } = reply {
            asked.extend(logs.iter().map(|log| (*log, *again)));
        }
    }
    asked
}

/// The entries of a log as indexes and payloads.
pub(super) fn entries(found: &Recovered, log: u64) -> Vec<(u64, Bytes)> {
    let log = found.logs.iter().find(|found| found.log == LogId(log));
    log.map_or(Vec::new(), |log| log.entries.iter().map(|entry| (entry.index, entry.payload.clone())).collect())
}

/// The indexes of a log's entries.
pub(super) fn indexes(found: &Recovered, log: u64) -> Vec<u64> {
    entries(found, log).into_iter().map(|(index, _)| index).collect()
}

/// A payload whose frame fills a write of `blocks` blocks.
pub(super) fn filling(blocks: usize) -> Vec<u8> {
    vec![0x5A; blocks * 4096 - wal_format::HEADER_BYTES - wal_format::FRAME_BYTES]
}

/// Appends one entry of log 1 and makes it durable.
pub(super) fn append_durable(rig: &mut Rig, index: u64, payload: &[u8]) {
    rig.append(0, index, vec![entry(1, index, payload)]);
    rig.settle();
    assert_eq!(rig.acked().last(), Some(&(0, index)));
}

/// Slot `slot` of the partitions' WAL.
pub(super) fn wal(slot: u32) -> FileId {
    FileId::Wal { wal: WalId::Data, slot }
}
