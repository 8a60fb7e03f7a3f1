//! A disk that loses and damages what real ones lose and damage.
//!
//! It has sectors of 512 bytes. An operation has no effect before it is completed; when the process dies or the power
//! fails while one is in flight, any part of it may have happened: any subset of the sectors of a write, a file
//! that was created or not or is too short. What was completed is durable.

use std::collections::BTreeMap;
use std::io;

use bytes::Bytes;

use super::rng::Rng;
use crate::limits::BLOCK;
use crate::log::{Buffers, Device, DeviceDone, DeviceOp, FileId, SegmentRef, Space};
use crate::types::LogId;

const SECTOR: usize = 512;

/// Completed writes that are remembered as places for damage.
const WRITES_REMEMBERED: usize = 4096;

/// Memory for the disk's machine. Its contents are undefined: garbage in new memory, and what was there before in memory
/// that is used again.
#[derive(Default)]
pub(super) struct HeapBuffers {
    /// By their length.
    idle: BTreeMap<usize, Vec<Vec<u8>>>,
}

impl Buffers for HeapBuffers {
    type Buf = Vec<u8>;

    fn take(&mut self, len: usize) -> Vec<u8> {
        assert!(len > 0 && len.is_multiple_of(BLOCK), "a buffer of {len} bytes");
        self.idle.get_mut(&len).and_then(Vec::pop).unwrap_or_else(|| vec![0xDB; len])
    }

    fn give(&mut self, buf: Vec<u8>) {
        self.idle.entry(buf.len()).or_default().push(buf);
    }
}

/// A bit that is not what was written.
#[derive(Clone, Copy, Debug)]
struct Flip {
    at: u64,
    mask: u8,
}

/// A write that was completed, as a place where damage may be done.
#[derive(Clone, Copy, Debug)]
struct Written {
    file: FileId,
    offset: u64,
    len: u64,
    at: u64,
}

/// What an armed error does to the operations that it meets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Target {
    /// The next write to a WAL fails.
    Wal,
    /// The next write to a segment fails.
    Segment,
}

/// The disk: its files as they are durable, and what is in flight.
#[derive(Default)]
pub(super) struct VirtualDisk {
    files: BTreeMap<FileId, Vec<u8>>,
    in_flight: BTreeMap<u64, DeviceOp<Vec<u8>>>,
    flips: BTreeMap<FileId, Vec<Flip>>,
    written: Vec<Written>,
    /// The next write of this kind fails with EIO.
    pub(super) error_armed: Option<Target>,
    /// Nothing grows.
    pub(super) full: bool,
    /// But for so many bytes, which were cut off elsewhere.
    gained: u64,
}

impl VirtualDisk {
    /// Takes an operation; `token` is the machine's own number for it.
    pub(super) fn start(&mut self, token: u64, op: DeviceOp<Vec<u8>>) {
        if let DeviceOp::Write { file, offset, len, ref buf } = op {
            assert!(len > 0 && len.is_multiple_of(BLOCK) && offset.is_multiple_of(BLOCK as u64), "an unaligned write");
            assert!(len <= buf.len(), "a write of more than its buffer");
            let overlaps = |other: &DeviceOp<Vec<u8>>| match *other {
                DeviceOp::Write { file: of, offset: at, len: size, .. } => {
                    of == file && at < offset + len as u64 && offset < at + size as u64
                }
                _ => false,
            };
            assert!(!self.in_flight.values().any(overlaps), "two writes to one place of {file:?} at once");
        }
        assert!(self.in_flight.insert(token, op).is_none(), "operation {token} is in flight already");
    }

    /// Ends an operation at `now`.
    pub(super) fn complete(&mut self, now: u64, token: u64, rng: &mut Rng) -> DeviceDone<Vec<u8>> {
        const EIO: i32 = 5;
        let op = self.in_flight.remove(&token).expect("only what is in flight can be completed");
        let done = |result: Result<Bytes, i32>| DeviceDone { buf: None, result };
        if let DeviceOp::Write { file, .. } = &op {
            let target = if matches!(file, FileId::Wal { .. }) { Target::Wal } else { Target::Segment };
            if self.error_armed == Some(target) {
                self.error_armed = None;
                self.half(&op, rng);
                let DeviceOp::Write { buf, .. } = op else { unreachable!("it is a write") };
                return DeviceDone { buf: Some(buf), result: Err(EIO) };
            }
        }
        match op {
            DeviceOp::Create { file, len } => {
                if self.full {
                    let Some(left) = self.gained.checked_sub(len) else { return done(Err(libc::ENOSPC)) };
                    self.gained = left;
                }
                self.forget(file);
                self.files.insert(file, vec![0; len as usize]);
                done(Ok(Bytes::new()))
            }
            DeviceOp::Allocate { file, offset, len } => {
                if self.full {
                    return done(Err(libc::ENOSPC));
                }
                self.grow(file, offset + len);
                done(Ok(Bytes::new()))
            }
            DeviceOp::Write { file, offset, buf, len } => {
                let Some(bytes) = self.files.get(&file) else {
                    return DeviceDone { buf: Some(buf), result: Err(libc::ENOENT) };
                };
                if self.full && offset + len as u64 > bytes.len() as u64 {
                    return DeviceDone { buf: Some(buf), result: Err(libc::ENOSPC) };
                }
                for sector in 0..len / SECTOR {
                    self.write_sector(file, offset, &buf[..len], sector);
                }
                if self.written.len() == WRITES_REMEMBERED {
                    self.written.drain(..WRITES_REMEMBERED / 2);
                }
                self.written.push(Written { file, offset, len: len as u64, at: now });
                DeviceDone { buf: Some(buf), result: Ok(Bytes::new()) }
            }
            DeviceOp::Read { file, offset, len } => match self.files.get(&file) {
                None => done(Err(libc::ENOENT)),
                Some(bytes) => {
                    let from = (offset as usize).min(bytes.len());
                    let to = (from + len).min(bytes.len());
                    done(Ok(Bytes::copy_from_slice(&bytes[from..to])))
                }
            },
            DeviceOp::Shorten { file, len } => {
                self.shorten(file, len);
                done(Ok(Bytes::new()))
            }
            DeviceOp::Remove { file } => {
                self.remove(file);
                done(Ok(Bytes::new()))
            }
            DeviceOp::Space => {
                done(Ok(Space { total: 1 << 40, usable: if self.full { 0 } else { 1 << 39 } }.to_bytes()))
            }
            DeviceOp::RemoveLog { log } => {
                for file in self.files_of(log) {
                    self.remove(file);
                }
                done(Ok(Bytes::new()))
            }
        }
    }

    /// The process is gone, or the power: any part of what is in flight has happened.
    pub(super) fn crash(&mut self, rng: &mut Rng) {
        for (_, op) in std::mem::take(&mut self.in_flight) {
            self.half(&op, rng);
        }
        self.error_armed = None;
    }

    /// Does any part of an operation, or all of it, or nothing.
    fn half(&mut self, op: &DeviceOp<Vec<u8>>, rng: &mut Rng) {
        match *op {
            DeviceOp::Create { file, len } => match rng.below(3) {
                0 => {}
                1 => {
                    self.forget(file);
                    self.files.insert(file, vec![0; (rng.below(len / BLOCK as u64 + 1) as usize) * BLOCK]);
                }
                _ => {
                    self.forget(file);
                    self.files.insert(file, vec![0; len as usize]);
                }
            },
            DeviceOp::Allocate { file, offset, len } => {
                if rng.one_in(2) {
                    self.grow(file, offset + len);
                }
            }
            DeviceOp::Write { file, offset, ref buf, len } => {
                if !self.files.contains_key(&file) {
                    return;
                }
                let sectors = len / SECTOR;
                let (kind, cut) = (rng.below(4), rng.below(sectors as u64 + 1) as usize);
                for sector in 0..sectors {
                    let lands = match kind {
                        0 => false,
                        1 => true,
                        2 => sector < cut,
                        _ => rng.one_in(2),
                    };
                    if lands {
                        self.write_sector(file, offset, &buf[..len], sector);
                    }
                }
            }
            DeviceOp::Read { .. } | DeviceOp::Space => {}
            DeviceOp::Shorten { file, len } => {
                if rng.one_in(2) {
                    self.shorten(file, len);
                }
            }
            DeviceOp::Remove { file } => {
                if rng.one_in(2) {
                    self.remove(file);
                }
            }
            DeviceOp::RemoveLog { log } => {
                for file in self.files_of(log) {
                    if rng.one_in(2) {
                        self.remove(file);
                    }
                }
            }
        }
    }

    fn write_sector(&mut self, file: FileId, offset: u64, data: &[u8], sector: usize) {
        let bytes = self.files.get_mut(&file).expect("the file exists");
        let at = offset as usize + sector * SECTOR;
        if bytes.len() < at + SECTOR {
            bytes.resize(at + SECTOR, 0);
        }
        bytes[at..at + SECTOR].copy_from_slice(&data[sector * SECTOR..(sector + 1) * SECTOR]);
        if let Some(flips) = self.flips.get_mut(&file) {
            flips.retain(|flip| !(at as u64..(at + SECTOR) as u64).contains(&flip.at));
        }
    }

    fn grow(&mut self, file: FileId, len: u64) {
        let bytes = self.files.entry(file).or_default();
        if bytes.len() < len as usize {
            bytes.resize(len as usize, 0);
        }
    }

    fn shorten(&mut self, file: FileId, len: u64) {
        let bytes = self.files.get_mut(&file).expect("the file exists");
        if self.full {
            self.gained += bytes.len() as u64 - len;
        }
        bytes.truncate(len as usize);
        if let Some(flips) = self.flips.get_mut(&file) {
            flips.retain(|flip| flip.at < len);
        }
        self.written.retain(|written| written.file != file || written.offset + written.len <= len);
    }

    fn remove(&mut self, file: FileId) {
        self.forget(file);
        self.files.remove(&file);
    }

    fn forget(&mut self, file: FileId) {
        self.flips.remove(&file);
        self.written.retain(|written| written.file != file);
    }

    fn files_of(&self, log: crate::types::LogId) -> Vec<FileId> {
        self.files
            .keys()
            .filter(|file| matches!(file, FileId::Segment(segment) if segment.log == log))
            .copied()
            .collect()
    }

    /// Flips one bit somewhere in what was completed before `before`, where there is something. Blocks that a segment
    /// may still be rewriting are left alone: damage there would be read, and written again, as if it were data.
    pub(super) fn flip(&mut self, before: u64, rng: &mut Rng) -> Option<FileId> {
        let old: Vec<Written> = self.written.iter().filter(|written| written.at < before).copied().collect();
        if old.is_empty() {
            return None;
        }
        let place = *rng.pick(&old);
        let mut len = place.len;
        if matches!(place.file, FileId::Segment(_)) {
            len = len.saturating_sub(BLOCK as u64);
        }
        if len == 0 {
            return None;
        }
        let flip = Flip { at: place.offset + rng.below(len), mask: 1 << rng.below(8) };
        let newer = |other: &Written| {
            other.file == place.file
                && other.at >= before
                && (other.offset..other.offset + other.len).contains(&flip.at)
        };
        if self.written.iter().any(newer) {
            return None;
        }
        let bytes = self.files.get_mut(&place.file)?;
        bytes[flip.at as usize] ^= flip.mask;
        self.flips.entry(place.file).or_default().push(flip);
        Some(place.file)
    }

    /// Puts every flipped bit right that was not overwritten since.
    pub(super) fn repair(&mut self) {
        self.repair_files(|_| true);
    }

    /// Puts the flipped bits of segments right, but for those of the logs that `others` make whole.
    pub(super) fn repair_segments(&mut self, others: impl Fn(LogId) -> bool) {
        self.repair_files(|file| file.segment().is_some_and(|segment| !others(segment.log)));
    }

    /// Whether a bit of a segment of this log is wrong now, or where there is none of it, `None`.
    pub(super) fn has_bad(&self, log: LogId) -> Option<bool> {
        let of_log = |file: &FileId| file.segment().is_some_and(|segment| segment.log == log);
        let bad = self.flips.iter().any(|(file, flips)| of_log(file) && !flips.is_empty());
        self.files.keys().any(of_log).then_some(bad)
    }

    fn repair_files(&mut self, which: impl Fn(FileId) -> bool) {
        let (bad, others) = std::mem::take(&mut self.flips).into_iter().partition(|(file, _)| which(*file));
        self.flips = others;
        let bad: BTreeMap<FileId, Vec<Flip>> = bad;
        for (file, flips) in bad {
            let bytes = self.files.get_mut(&file).expect("flips are forgotten with their file");
            for flip in flips {
                bytes[flip.at as usize] ^= flip.mask;
            }
        }
    }

    /// Whether a bit of a segment is wrong now.
    pub(super) fn has_bad_segments(&self) -> bool {
        self.flips.iter().any(|(file, flips)| matches!(file, FileId::Segment(_)) && !flips.is_empty())
    }

    /// Whether a bit is wrong now.
    pub(super) fn is_damaged(&self) -> bool {
        self.flips.values().any(|flips| !flips.is_empty())
    }

    /// How many logs have segment files.
    pub(super) fn logs_with_segments(&self) -> usize {
        let mut logs: Vec<_> = (self.files.keys()).filter_map(|file| Some(file.segment()?.log)).collect();
        logs.dedup();
        logs.len()
    }
}

impl Device for VirtualDisk {
    fn wal_files(&self) -> io::Result<Vec<(FileId, u64)>> {
        let wals = self.files.iter().filter(|(file, _)| matches!(file, FileId::Wal { .. }));
        Ok(wals.map(|(file, bytes)| (*file, bytes.len() as u64)).collect())
    }

    fn segment_files(&self) -> io::Result<Vec<SegmentRef>> {
        Ok(self.files.keys().filter_map(|file| file.segment()).collect())
    }

    fn read_exact_at(&self, file: FileId, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let bytes = self.files.get(&file).ok_or(io::ErrorKind::NotFound)?;
        let from = (offset as usize).min(bytes.len());
        let part = bytes.get(from..from + buf.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        buf.copy_from_slice(part);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::WalId;

    const FILE: FileId = FileId::Wal { wal: WalId::Data, slot: 0 };

    fn disk() -> VirtualDisk {
        let mut disk = VirtualDisk::default();
        disk.start(0, DeviceOp::Create { file: FILE, len: 4 * BLOCK as u64 });
        disk.complete(0, 0, &mut Rng::new(1)).result.unwrap();
        disk
    }

    fn write(value: u8) -> DeviceOp<Vec<u8>> {
        DeviceOp::Write { file: FILE, offset: BLOCK as u64, buf: vec![value; BLOCK], len: BLOCK }
    }

    #[test]
    fn a_cut_tears_what_is_in_flight_and_nothing_else() {
        let mut torn = 0;
        for seed in 0..64 {
            let mut disk = disk();
            disk.start(1, write(7));
            disk.complete(0, 1, &mut Rng::new(seed)).result.unwrap();
            disk.start(2, write(9));
            disk.crash(&mut Rng::new(seed));
            let sectors: Vec<&[u8]> = disk.files[&FILE].chunks(SECTOR).collect();
            assert!(sectors[..8].iter().chain(&sectors[16..]).all(|sector| sector.iter().all(|byte| *byte == 0)));
            assert!(sectors[8..16].iter().all(|s| s.iter().all(|b| *b == 7) || s.iter().all(|b| *b == 9)));
            torn += u32::from(sectors[8..16].iter().any(|s| s[0] == 7) && sectors[8..16].iter().any(|s| s[0] == 9));
        }
        assert!(torn > 10, "{torn} of 64 writes were torn");
    }

    #[test]
    fn a_flip_is_put_right_unless_it_was_overwritten() {
        let mut disk = disk();
        disk.start(1, write(7));
        disk.complete(0, 1, &mut Rng::new(1)).result.unwrap();
        let before = disk.files[&FILE].clone();
        disk.flip(1, &mut Rng::new(3)).unwrap();
        assert!(disk.is_damaged() && disk.files[&FILE] != before);
        disk.repair();
        assert!(!disk.is_damaged() && disk.files[&FILE] == before);
        disk.flip(1, &mut Rng::new(3)).unwrap();
        disk.start(2, write(8));
        disk.complete(2, 2, &mut Rng::new(1)).result.unwrap();
        assert!(!disk.is_damaged());
    }
}
