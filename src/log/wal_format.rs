//! The bytes of the write-ahead log; `docs/formats/wal.md` describes them. All numbers are little-endian.

use bytes::Bytes;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{FrameKind, WalId};
use crate::types::LogId;

/// The version that this code writes, and the only one that it reads.
pub const VERSION: u16 = 1;
/// Bytes of a write's header.
pub const HEADER_BYTES: usize = size_of::<RawHeader>();
/// Bytes of a frame's header.
pub const FRAME_BYTES: usize = size_of::<RawFrame>();

const MAGIC: [u8; 4] = *b"RLWL";
/// The header's checksum is its last field and covers all that is before it.
const CHECKED_BYTES: usize = HEADER_BYTES - size_of::<U32>();

const _: () = assert!(HEADER_BYTES == 64);
const _: () = assert!(FRAME_BYTES == 32);

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawHeader {
    magic: [u8; 4],
    version: U16,
    wal: u8,
    reserved: u8,
    generation: U64,
    sequence: U64,
    confirmed: U64,
    oldest: U64,
    payload_len: U32,
    frames: U32,
    payload_crc: U32,
    reserved2: [u8; 8],
    header_crc: U32,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawFrame {
    log: U64,
    term: U64,
    index: U64,
    payload_len: U32,
    kind: u8,
    reserved: [u8; 3],
}

/// What the header of a write says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WriteHeader {
    /// The WAL it was made for.
    pub wal: WalId,
    /// The generation of the segment: it rises by at least one each time that a slot is taken into use.
    pub generation: u64,
    /// The number of the write; the first of a WAL is 1, and they rise by one across segments.
    pub sequence: u64,
    /// All writes up to this one were durable when this one was encoded; 0 where none was.
    pub confirmed: u64,
    /// The generation of the oldest segment that was needed when this write was encoded.
    pub oldest: u64,
    /// Bytes of frames that follow the header.
    pub payload_len: u32,
    /// Number of frames.
    pub frames: u32,
    /// CRC-32 (IEEE) of the frames.
    pub payload_crc: u32,
}

/// Why some bytes are not the header of a write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NotAHeader {
    /// Nothing of ours, or damaged.
    Unreadable,
    /// Written whole, by a version that this one cannot read.
    Version(u16),
}

impl WriteHeader {
    /// Bytes of the write on the device, padding included.
    pub fn write_len(&self) -> u64 {
        align_up(HEADER_BYTES as u64 + u64::from(self.payload_len))
    }

    /// Encodes into the first [`HEADER_BYTES`] of `out`.
    pub fn encode(&self, out: &mut [u8]) {
        let mut raw = RawHeader {
            magic: MAGIC,
            version: VERSION.into(),
            wal: wal_number(self.wal),
            reserved: 0,
            generation: self.generation.into(),
            sequence: self.sequence.into(),
            confirmed: self.confirmed.into(),
            oldest: self.oldest.into(),
            payload_len: self.payload_len.into(),
            frames: self.frames.into(),
            payload_crc: self.payload_crc.into(),
            reserved2: [0; 8],
            header_crc: 0.into(),
        };
        raw.header_crc = crc32fast::hash(&raw.as_bytes()[..CHECKED_BYTES]).into();
        out[..HEADER_BYTES].copy_from_slice(raw.as_bytes());
    }

    /// Reads the header at the start of `block`. That it is whole says nothing yet about the payload.
    pub fn decode(block: &[u8]) -> Result<WriteHeader, NotAHeader> {
        let Ok((raw, _)) = RawHeader::ref_from_prefix(block) else {
            return Err(NotAHeader::Unreadable);
        };
        if raw.magic != MAGIC || crc32fast::hash(&raw.as_bytes()[..CHECKED_BYTES]) != raw.header_crc.get() {
            return Err(NotAHeader::Unreadable);
        }
        if raw.version.get() != VERSION {
            return Err(NotAHeader::Version(raw.version.get()));
        }
        let wal = match raw.wal {
            0 => WalId::Meta,
            1 => WalId::Data,
            _ => return Err(NotAHeader::Unreadable),
        };
        let header = WriteHeader {
            wal,
            generation: raw.generation.get(),
            sequence: raw.sequence.get(),
            confirmed: raw.confirmed.get(),
            oldest: raw.oldest.get(),
            payload_len: raw.payload_len.get(),
            frames: raw.frames.get(),
            payload_crc: raw.payload_crc.get(),
        };
        let sound = header.confirmed < header.sequence
            && (1..=header.generation).contains(&header.oldest)
            && u64::from(header.frames) * FRAME_BYTES as u64 <= u64::from(header.payload_len);
        sound.then_some(header).ok_or(NotAHeader::Unreadable)
    }
}

/// The header of one frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FrameHeader {
    /// The log it belongs to.
    pub log: LogId,
    /// What it holds.
    pub kind: FrameKind,
    /// The Raft term.
    pub term: u64,
    /// The Raft index.
    pub index: u64,
    /// Bytes that follow the header.
    pub payload_len: u32,
}

impl FrameHeader {
    /// The header's bytes.
    pub fn encode(&self) -> [u8; FRAME_BYTES] {
        zerocopy::transmute!(RawFrame {
            log: self.log.0.into(),
            term: self.term.into(),
            index: self.index.into(),
            payload_len: self.payload_len.into(),
            kind: self.kind as u8,
            reserved: [0; 3],
        })
    }
}

/// The frames of a write's payload, whose checksum was found right.
pub struct Frames {
    payload: Bytes,
}

impl Frames {
    /// Walks `payload`, the `payload_len` bytes after a write's header.
    pub fn new(payload: Bytes) -> Frames {
        Frames { payload }
    }
}

/// A write whose checksum is right does not hold whole frames: it was encoded wrongly, or by a newer version.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MalformedFrame;

impl Iterator for Frames {
    type Item = Result<(FrameHeader, Bytes), MalformedFrame>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.payload.is_empty() {
            return None;
        }
        let frame = take_frame(&mut self.payload);
        if frame.is_err() {
            self.payload.clear();
        }
        Some(frame)
    }
}

fn take_frame(payload: &mut Bytes) -> Result<(FrameHeader, Bytes), MalformedFrame> {
    if payload.len() < FRAME_BYTES {
        return Err(MalformedFrame);
    }
    let head = payload.split_to(FRAME_BYTES);
    let raw = RawFrame::ref_from_bytes(&head).map_err(|_| MalformedFrame)?;
    let kind = match raw.kind {
        1 => FrameKind::Entry,
        2 => FrameKind::HardState,
        3 => FrameKind::Checkpoint,
        4 => FrameKind::Deleted,
        5 => FrameKind::Snapshot,
        _ => return Err(MalformedFrame),
    };
    let header = FrameHeader {
        log: LogId(raw.log.get()),
        kind,
        term: raw.term.get(),
        index: raw.index.get(),
        payload_len: raw.payload_len.get(),
    };
    if payload.len() < header.payload_len as usize {
        return Err(MalformedFrame);
    }
    Ok((header, payload.split_to(header.payload_len as usize)))
}

/// `len` rounded up to whole blocks.
pub fn align_up(len: u64) -> u64 {
    len.next_multiple_of(crate::limits::BLOCK as u64)
}

fn wal_number(wal: WalId) -> u8 {
    match wal {
        WalId::Meta => 0,
        WalId::Data => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> WriteHeader {
        WriteHeader {
            wal: WalId::Data,
            generation: 0x0102,
            sequence: 0x0304,
            confirmed: 0x0303,
            oldest: 0x0101,
            payload_len: 0x0506,
            frames: 2,
            payload_crc: 0xAABB_CCDD,
        }
    }

    #[test]
    fn the_bytes_of_a_header_never_change() {
        let mut bytes = [0; HEADER_BYTES];
        header().encode(&mut bytes);
        let expected = [
            0x52, 0x4c, 0x57, 0x4c, 1, 0, 1, 0, // magic, version, wal
            2, 1, 0, 0, 0, 0, 0, 0, // generation
            4, 3, 0, 0, 0, 0, 0, 0, // sequence
            3, 3, 0, 0, 0, 0, 0, 0, // confirmed
            1, 1, 0, 0, 0, 0, 0, 0, // oldest
            6, 5, 0, 0, 2, 0, 0, 0, // payload length, frames
            0xdd, 0xcc, 0xbb, 0xaa, 0, 0, 0, 0, // payload checksum
            0, 0, 0, 0,
        ];
        assert_eq!(bytes[..CHECKED_BYTES], expected);
        assert_eq!(bytes[CHECKED_BYTES..], GOLDEN_CRC);
        assert_eq!(WriteHeader::decode(&bytes), Ok(header()));
    }

    /// CRC-32 of the bytes before it, computed with another implementation.
    const GOLDEN_CRC: [u8; 4] = [0xea, 0x32, 0xe6, 0xe4];

    #[test]
    fn the_bytes_of_a_frame_header_never_change() {
        let frame =
            FrameHeader { log: LogId(0x0102), kind: FrameKind::HardState, term: 0x0304, index: 0x0506, payload_len: 3 };
        let bytes = frame.encode();
        let expected = [
            2, 1, 0, 0, 0, 0, 0, 0, // log
            4, 3, 0, 0, 0, 0, 0, 0, // term
            6, 5, 0, 0, 0, 0, 0, 0, // index
            3, 0, 0, 0, 2, 0, 0, 0, // payload length, kind
        ];
        assert_eq!(bytes, expected);
        let mut payload = bytes.to_vec();
        payload.extend_from_slice(b"abc");
        let mut frames = Frames::new(payload.into());
        assert_eq!(frames.next(), Some(Ok((frame, Bytes::from_static(b"abc")))));
        assert_eq!(frames.next(), None);
    }

    #[test]
    fn every_flipped_bit_of_a_header_is_noticed() {
        let mut bytes = [0; HEADER_BYTES];
        header().encode(&mut bytes);
        for bit in 0..HEADER_BYTES * 8 {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(WriteHeader::decode(&damaged), Err(NotAHeader::Unreadable), "bit {bit}");
        }
        assert_eq!(WriteHeader::decode(&bytes[..HEADER_BYTES - 1]), Err(NotAHeader::Unreadable));
    }

    #[test]
    fn a_newer_version_is_named() {
        let mut bytes = [0; HEADER_BYTES];
        header().encode(&mut bytes);
        bytes[4] = 2;
        let crc = crc32fast::hash(&bytes[..CHECKED_BYTES]);
        bytes[CHECKED_BYTES..].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(WriteHeader::decode(&bytes), Err(NotAHeader::Version(2)));
    }

    #[test]
    fn frames_that_are_cut_or_of_an_unknown_kind_are_malformed() {
        let frame = FrameHeader { log: LogId(1), kind: FrameKind::Entry, term: 1, index: 1, payload_len: 3 };
        let mut payload = frame.encode().to_vec();
        payload.extend_from_slice(b"abc");
        for len in 1..payload.len() {
            let cut = Bytes::copy_from_slice(&payload[..len]);
            let frames: Vec<_> = Frames::new(cut).collect();
            assert_eq!(frames, [Err(MalformedFrame)]);
        }
        payload[28] = 6;
        assert_eq!(Frames::new(payload.into()).next(), Some(Err(MalformedFrame)));
    }
}
