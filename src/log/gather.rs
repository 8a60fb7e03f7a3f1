//! Frames on their way into a WAL write: copied once, into the buffer that goes to the device.

use smallvec::SmallVec;

use super::pins::Note;
use super::wal_format::{FrameHeader, HEADER_BYTES, WriteHeader, align_up};
use super::{Frame, FrameKind};
use crate::types::{Mono, ShardId};

/// The newest ticket of each shard that a write makes durable.
pub(super) type Acks = SmallVec<[(ShardId, u64); 4]>;

/// Raises the ticket of `shard` to `ticket`.
pub(super) fn note_ack(acks: &mut Acks, shard: ShardId, ticket: u64) {
    match acks.iter_mut().find(|(known, _)| *known == shard) {
        Some((_, newest)) => *newest = ticket,
        None => acks.push((shard, ticket)),
    }
}

/// The buffer of a coming write. Its header is left blank until the write is submitted.
pub(super) struct Gather<Buf> {
    buf: Buf,
    used: usize,
    crc: crc32fast::Hasher,
    frames: u32,
    pub(super) notes: Vec<Note>,
    pub(super) acks: Acks,
    /// When the first frame came.
    pub(super) since: Mono,
}

impl<Buf: AsRef<[u8]> + AsMut<[u8]>> Gather<Buf> {
    pub(super) fn new(buf: Buf, notes: Vec<Note>, since: Mono) -> Gather<Buf> {
        assert!(notes.is_empty() && buf.as_ref().len() >= HEADER_BYTES);
        Gather { buf, used: HEADER_BYTES, crc: crc32fast::Hasher::new(), frames: 0, notes, acks: Acks::new(), since }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.frames == 0
    }

    /// Bytes so far, header included.
    pub(super) fn used(&self) -> usize {
        self.used
    }

    /// Bytes of frames.
    pub(super) fn payload_len(&self) -> usize {
        self.used - HEADER_BYTES
    }

    /// Bytes of the write, whole blocks.
    pub(super) fn write_len(&self) -> u64 {
        align_up(self.used as u64)
    }

    /// Whether there is room for so many bytes of frames.
    pub(super) fn fits(&self, bytes: usize) -> bool {
        self.used + bytes <= self.buf.as_ref().len()
    }

    /// Copies a frame, which [`Gather::fits`].
    pub(super) fn push(&mut self, frame: &Frame) {
        let header = FrameHeader {
            log: frame.log,
            kind: frame.kind,
            term: frame.term,
            index: frame.index,
            payload_len: frame.payload_len() as u32,
        };
        let start = self.used;
        for piece in [&header.encode()[..], &frame.head, &frame.body] {
            self.buf.as_mut()[self.used..self.used + piece.len()].copy_from_slice(piece);
            self.used += piece.len();
        }
        self.crc.update(&self.buf.as_ref()[start..self.used]);
        self.frames += 1;
        if frame.kind == FrameKind::Entry
            && let Some(last) = self.notes.last_mut()
            && last.log == frame.log
            && last.kind == FrameKind::Entry
            && last.last + 1 == frame.index
        {
            last.last = frame.index;
            return;
        }
        self.notes.push(Note { log: frame.log, kind: frame.kind, first: frame.index, last: frame.index });
    }

    /// Fills in the header and the padding. Returns the buffer, its notes and its acknowledgements.
    pub(super) fn seal(mut self, mut header: WriteHeader) -> (Buf, Vec<Note>, Acks) {
        header.payload_len = self.payload_len() as u32;
        header.frames = self.frames;
        header.payload_crc = self.crc.finalize();
        let end = align_up(self.used as u64) as usize;
        let bytes = self.buf.as_mut();
        header.encode(bytes);
        bytes[self.used..end].fill(0);
        (self.buf, self.notes, self.acks)
    }

    /// The buffer of a gathering that will never be written.
    pub(super) fn discard(self) -> Buf {
        self.buf
    }
}
