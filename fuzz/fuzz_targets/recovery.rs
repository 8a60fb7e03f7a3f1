//! What a start finds on a disk: files with anything in them, damaged or made up, are recovered or refused.
#![no_main]

use std::collections::BTreeMap;
use std::io;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use ringlog::log::disk::{DiskConfig, WalConfig};
use ringlog::log::recovery::recover;
use ringlog::log::wal_format::{FRAME_BYTES, FrameHeader, Frames, HEADER_BYTES, WriteHeader};
use ringlog::log::{Device, FileId, FrameKind, WalId};
use ringlog::types::LogId;

const BLOCK: usize = 4096;
const SEGMENT_BLOCKS: usize = 8;

struct Memory(BTreeMap<FileId, Vec<u8>>);

impl Device for Memory {
    fn list(&self) -> io::Result<Vec<(FileId, u64)>> {
        Ok(self.0.iter().map(|(file, bytes)| (*file, bytes.len() as u64)).collect())
    }

    fn read_exact_at(&self, file: FileId, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let bytes = self.0.get(&file).ok_or(io::ErrorKind::NotFound)?;
        let piece = bytes.get(offset as usize..).and_then(|rest| rest.get(..buf.len()));
        buf.copy_from_slice(piece.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

/// Numbers that the input chooses; small ones, so that they meet.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }
}

/// A write whose checksums are right, with what the input says in it; nothing where the input ends.
fn write(input: &mut Input, wal: WalId) -> Option<Vec<u8>> {
    let [generation, sequence, confirmed, oldest, frames] =
        [input.byte()?, input.byte()?, input.byte()?, input.byte()?, input.byte()?];
    let mut payload = Vec::new();
    for _ in 0..frames % 8 {
        let kind = [
            FrameKind::Entry,
            FrameKind::HardState,
            FrameKind::Checkpoint,
            FrameKind::Deleted,
            FrameKind::Snapshot,
        ][usize::from(input.byte()? % 5)];
        let [log, term, index, len] = [input.byte()?, input.byte()?, input.byte()?, input.byte()?];
        let len = usize::from(len % 64);
        let body = &input.0[..len.min(input.0.len())];
        let header = FrameHeader {
            log: LogId(u64::from(log % 4)),
            kind,
            term: u64::from(term % 8),
            index: u64::from(index % 16),
            payload_len: body.len() as u32,
        };
        payload.extend_from_slice(&header.encode());
        payload.extend_from_slice(body);
        input.0 = &input.0[body.len()..];
    }
    // A frame that is not whole behind a checksum that is right.
    if frames & 0x80 != 0 {
        payload.extend_from_slice(&[0x5A; FRAME_BYTES / 2]);
    }
    let header = WriteHeader {
        wal,
        generation: u64::from(generation % 8),
        sequence: u64::from(sequence % 32),
        confirmed: u64::from(confirmed % 32),
        oldest: u64::from(oldest % 8),
        payload_len: payload.len() as u32,
        frames: u32::from(frames % 8),
        payload_crc: crc32fast::hash(&payload),
    };
    let mut bytes = vec![0; header.write_len() as usize];
    header.encode(&mut bytes);
    bytes[HEADER_BYTES..HEADER_BYTES + payload.len()].copy_from_slice(&payload);
    let _ = WriteHeader::decode(&bytes);
    Some(bytes)
}

fuzz_target!(|data: &[u8]| {
    let wal = WalConfig { segment_bytes: (SEGMENT_BLOCKS * BLOCK) as u64, max_segments: 8 };
    let config = DiskConfig { meta: wal, data: wal };
    let mut input = Input(data);
    let mut files: BTreeMap<FileId, Vec<u8>> = BTreeMap::new();
    while let Some(choice) = input.byte() {
        let wal = if choice & 1 == 0 { WalId::Data } else { WalId::Meta };
        let file = files.entry(FileId::Wal { wal, slot: u32::from(choice >> 1 & 3) }).or_default();
        if choice & 0x80 != 0 {
            // Noise, up to a block of it.
            let len = usize::from(choice & 0x7F).min(input.0.len());
            file.extend_from_slice(&input.0[..len]);
            input.0 = &input.0[len..];
            file.resize(file.len().next_multiple_of(BLOCK), 0);
        } else if let Some(bytes) = write(&mut input, wal) {
            file.extend_from_slice(&bytes);
        }
    }
    for file in files.values_mut() {
        file.resize(SEGMENT_BLOCKS * BLOCK, 0);
    }
    for frame in Frames::new(Bytes::copy_from_slice(data)) {
        let _ = frame;
    }
    if let Ok(recovered) = recover(&Memory(files), &config) {
        for log in recovered.logs {
            let covered = log.checkpoint.map(|checkpoint| checkpoint.index);
            let indexes: Vec<u64> = log.entries.iter().map(|entry| entry.index).collect();
            assert!(indexes.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{indexes:?} has a gap");
            assert!(indexes.first() > covered.as_ref() || indexes.is_empty(), "{indexes:?} is covered to {covered:?}");
        }
    }
});
