//! The parts of a frame as they lie in it.

use zerocopy::little_endian::{I32, I64, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct RawHeader {
    pub(super) magic: [u8; 4],
    pub(super) version: U16,
    pub(super) reserved: U16,
    pub(super) meta_len: U32,
    pub(super) beside_len: U32,
    pub(super) meta_crc: U32,
    pub(super) header_crc: U32,
}

/// Begins each message.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct RawMessage {
    pub(super) kind: u8,
    pub(super) reserved: [u8; 3],
    /// Bytes of the message that follow.
    pub(super) len: U32,
}

/// Then come the context, the snapshot where there is one, and the entries.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct RawRaft {
    pub(super) log: U64,
    pub(super) term: U64,
    pub(super) log_term: U64,
    pub(super) index: U64,
    pub(super) commit: U64,
    pub(super) commit_term: U64,
    pub(super) reject_hint: U64,
    pub(super) request_snapshot: U64,
    pub(super) from_life: U32,
    pub(super) to_life: U32,
    pub(super) context_len: U32,
    pub(super) entries: U32,
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) reserved: [u8; 6],
}

pub(super) const REJECT: u8 = 1;
pub(super) const SNAPSHOT: u8 = 2;
/// Something lies beside the entries.
pub(super) const BESIDE: u8 = 4;

/// Then comes the snapshot's data.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct RawSnapshot {
    pub(super) index: U64,
    pub(super) term: U64,
    pub(super) data_len: U32,
}

/// Then come the entry's data.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct RawEntry {
    pub(super) term: U64,
    pub(super) index: U64,
    pub(super) data_len: U32,
    pub(super) beside_len: U32,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct RawRest {
    pub(super) log: U64,
    pub(super) term: U64,
    pub(super) index: U64,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct RawLeader {
    pub(super) log: U64,
    pub(super) epoch: I32,
}

/// Then comes the question.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct RawAsk {
    pub(super) number: U64,
    pub(super) time_left_ms: U32,
    pub(super) shard: U16,
}

/// Then comes the reply.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct RawTold {
    pub(super) number: U64,
    pub(super) shard: U16,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct RawFetchLog {
    pub(super) log: U64,
    pub(super) offset: I64,
    pub(super) end: I64,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct RawHandOver {
    pub(super) log: U64,
    pub(super) to: I32,
}

/// Then come the lengths of the batches, four bytes each.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct RawLogPart {
    pub(super) log: U64,
    pub(super) offset: I64,
    pub(super) start: I64,
}

/// The kinds of messages; the numbers are on the wire.
pub(super) mod kind {
    pub(in super::super) const RAFT: u8 = 1;
    pub(in super::super) const LEADERS: u8 = 2;
    pub(in super::super) const APPLIED: u8 = 3;
    pub(in super::super) const ASK: u8 = 4;
    pub(in super::super) const TOLD: u8 = 5;
    pub(in super::super) const STATUS: u8 = 6;
    pub(in super::super) const FETCH_LOG: u8 = 7;
    pub(in super::super) const LOG_PART: u8 = 8;
    pub(in super::super) const REST: u8 = 9;
    pub(in super::super) const LAGGING: u8 = 10;
    pub(in super::super) const HAND_OVER: u8 = 11;
    pub(in super::super) const ADDRESSES: u8 = 12;
    pub(in super::super) const HAIL: u8 = 13;
}

const _: () = assert!(size_of::<RawHeader>() == 24);
const _: () = assert!(size_of::<RawMessage>() == 8);
const _: () = assert!(size_of::<RawRaft>() == 88);
const _: () = assert!(size_of::<RawEntry>() == 24);
