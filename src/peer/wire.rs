//! Messages in frames; `docs/formats/peer.md` describes the bytes. All numbers are little-endian.
//!
//! A frame is a header, then `meta` with the messages, then `beside` with the record batches that belong to them. The
//! header's checksum covers itself, a second one `meta`. None covers `beside`: each batch carries a CRC-32C of its own,
//! which whoever stores it checks, so a checksum here would read all records once more for nothing.

use bytes::{Bytes, BytesMut};
use smallvec::SmallVec;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use self::layout::{
    BESIDE, REJECT, RawAsk, RawEntry, RawFetchLog, RawHandOver, RawHeader, RawLeader, RawLogPart, RawMessage, RawRaft,
    RawRest, RawSnapshot, RawTold, SNAPSHOT, kind,
};
use super::{PeerMessage, VERSION};
use crate::codec::{self, CodecError};
use crate::consensus::{Entry, Message, MessageKind, SnapshotPoint};
use crate::limits::{PEER_FRAME_BYTES, PEER_FRAME_FULL_BYTES};
use crate::log::Chunk;
use crate::types::{BrokerId, LogId};

mod layout;

/// Bytes of a frame's header.
pub const FRAME_HEADER_BYTES: usize = size_of::<RawHeader>();

const MAGIC: [u8; 4] = *b"RLPF";
/// The header's checksum is its last field and covers all that is before it.
const CHECKED_BYTES: usize = FRAME_HEADER_BYTES - size_of::<U32>();
/// Bodies of batches of at least this many bytes are sent from where they lie; smaller ones are copied, as a piece of
/// its own costs more than the copy.
const SHARED_BYTES: usize = 4096;

/// More messages than [`encode`] puts into a frame, as a full one is ended.
const MOST_MESSAGES: usize = PEER_FRAME_FULL_BYTES / size_of::<RawMessage>();

/// Why bytes are no frame.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// Nothing of ours, or damaged.
    #[error("a frame's header makes no sense")]
    Header,
    /// Of a version that this one cannot read.
    #[error("a frame has version {0}, this broker reads version {VERSION}")]
    Version(u16),
    /// Longer than any frame may be.
    #[error("a frame announces {0} bytes, more than the {PEER_FRAME_BYTES} it may have")]
    TooLarge(u64),
    /// Damaged on its way.
    #[error("a frame's checksum is wrong")]
    Checksum,
    /// Whole, and encoded wrongly.
    #[error("a frame makes no sense: {0}")]
    Malformed(&'static str),
    /// The same, in a part that [`codec`] reads.
    #[error("a frame makes no sense: {0}")]
    Codec(#[from] CodecError),
}

/// What a frame's header says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FrameHeader {
    /// Bytes of `meta`, which follow the header.
    pub meta_len: u32,
    /// Bytes of `beside`, which follow `meta`.
    pub beside_len: u32,
    /// CRC-32 (IEEE) of `meta`.
    pub meta_crc: u32,
}

impl FrameHeader {
    /// The header's bytes.
    pub fn encode(&self) -> [u8; FRAME_HEADER_BYTES] {
        let mut raw = RawHeader {
            magic: MAGIC,
            version: VERSION.into(),
            reserved: 0.into(),
            meta_len: self.meta_len.into(),
            beside_len: self.beside_len.into(),
            meta_crc: self.meta_crc.into(),
            header_crc: 0.into(),
        };
        raw.header_crc = crc32fast::hash(&raw.as_bytes()[..CHECKED_BYTES]).into();
        zerocopy::transmute!(raw)
    }

    /// Reads what [`FrameHeader::encode`] wrote. What it returns announces no more than [`PEER_FRAME_BYTES`].
    ///
    /// # Errors
    /// Bytes that are no header, one of another version, or of too large a frame.
    pub fn decode(bytes: &[u8; FRAME_HEADER_BYTES]) -> Result<FrameHeader, WireError> {
        let raw: &RawHeader = zerocopy::transmute_ref!(bytes);
        if raw.magic != MAGIC || crc32fast::hash(&bytes[..CHECKED_BYTES]) != raw.header_crc.get() {
            return Err(WireError::Header);
        }
        if raw.version.get() != VERSION {
            return Err(WireError::Version(raw.version.get()));
        }
        let (meta_len, beside_len) = (raw.meta_len.get(), raw.beside_len.get());
        let len = u64::from(meta_len) + u64::from(beside_len);
        if len + FRAME_HEADER_BYTES as u64 > PEER_FRAME_BYTES as u64 {
            return Err(WireError::TooLarge(len));
        }
        Ok(FrameHeader { meta_len, beside_len, meta_crc: raw.meta_crc.get() })
    }

    /// Bytes of the frame that follow the header.
    pub fn body_len(&self) -> usize {
        self.meta_len as usize + self.beside_len as usize
    }
}

/// The messages as frames, in pieces to be sent one after the other. A frame is ended when it is full
/// ([`PEER_FRAME_FULL_BYTES`]) and another begun.
///
/// # Panics
/// Where a single message does not fit a frame: the limits of batches and snapshots exclude it.
pub fn encode(messages: &[PeerMessage]) -> SmallVec<[Bytes; 8]> {
    let mut chunks = SmallVec::new();
    let mut buf = BytesMut::new();
    let mut next = 0;
    while next < messages.len() {
        let (first, start) = (next, buf.len());
        buf.extend_from_slice(&[0; FRAME_HEADER_BYTES]);
        let mut beside_len = 0;
        while next < messages.len() {
            let message_start = buf.len();
            let len = put_message(&mut buf, &messages[next]);
            if next > first && buf.len() - start + beside_len + len > PEER_FRAME_FULL_BYTES {
                buf.truncate(message_start);
                break;
            }
            beside_len += len;
            next += 1;
        }
        let meta_start = start + FRAME_HEADER_BYTES;
        let meta = &buf[meta_start..];
        assert!(
            FRAME_HEADER_BYTES + meta.len() + beside_len <= PEER_FRAME_BYTES,
            "a message of {} bytes with {beside_len} beside them for another broker",
            meta.len()
        );
        let header =
            FrameHeader { meta_len: meta.len() as u32, beside_len: beside_len as u32, meta_crc: crc32fast::hash(meta) };
        buf[start..meta_start].copy_from_slice(&header.encode());
        for chunk in messages[first..next].iter().flat_map(chunks_of) {
            put_chunk(&mut chunks, &mut buf, chunk);
        }
    }
    if !buf.is_empty() {
        chunks.push(buf.freeze());
    }
    chunks
}

/// What lies beside a message.
fn chunks_of(message: &PeerMessage) -> &[Chunk] {
    match message {
        PeerMessage::Raft { beside, .. } => beside,
        PeerMessage::LogPart { batches, .. } => batches,
        _ => &[],
    }
}

fn chunk_len(chunk: &Chunk) -> usize {
    chunk.head.len() + chunk.body.len()
}

fn put_chunk(chunks: &mut SmallVec<[Bytes; 8]>, buf: &mut BytesMut, chunk: &Chunk) {
    buf.extend_from_slice(&chunk.head);
    if chunk.body.len() < SHARED_BYTES {
        buf.extend_from_slice(&chunk.body);
    } else {
        if !buf.is_empty() {
            chunks.push(buf.split().freeze());
        }
        chunks.push(chunk.body.clone());
    }
}

/// Appends a message to `meta`. Returns the bytes that lie beside it.
fn put_message(meta: &mut BytesMut, message: &PeerMessage) -> usize {
    let start = meta.len();
    let mut put = |bytes: &[u8]| meta.extend_from_slice(bytes);
    put(&[0; size_of::<RawMessage>()]);
    let kind = match message {
        PeerMessage::Raft { log, message, beside } => {
            put_raft(&mut put, *log, message, beside);
            kind::RAFT
        }
        PeerMessage::Leaders(leaders) => {
            for (log, epoch) in leaders {
                put(RawLeader { log: log.0.into(), epoch: (*epoch).into() }.as_bytes());
            }
            kind::LEADERS
        }
        PeerMessage::Rest(logs) => {
            for (log, term, index) in logs {
                put(RawRest { log: log.0.into(), term: (*term).into(), index: (*index).into() }.as_bytes());
            }
            kind::REST
        }
        PeerMessage::Applied { index } => {
            put(&index.to_le_bytes());
            kind::APPLIED
        }
        PeerMessage::Ask { shard, number, time_left_ms, question } => {
            let raw = RawAsk { number: (*number).into(), time_left_ms: (*time_left_ms).into(), shard: (*shard).into() };
            put(raw.as_bytes());
            put(question);
            kind::ASK
        }
        PeerMessage::Told { shard, number, reply } => {
            put(RawTold { number: (*number).into(), shard: (*shard).into() }.as_bytes());
            put(reply);
            kind::TOLD
        }
        PeerMessage::Status(status) => {
            put(&codec::encode(status));
            kind::STATUS
        }
        PeerMessage::FetchLog { log, offset, end } => {
            put(RawFetchLog { log: log.0.into(), offset: (*offset).into(), end: (*end).into() }.as_bytes());
            kind::FETCH_LOG
        }
        PeerMessage::LogPart { log, offset, start, batches } => {
            put(RawLogPart { log: log.0.into(), offset: (*offset).into(), start: (*start).into() }.as_bytes());
            batches.iter().for_each(|batch| put(&length(chunk_len(batch)).to_le_bytes()));
            kind::LOG_PART
        }
        PeerMessage::Hail => kind::HAIL,
        PeerMessage::HandOver { log, to } => {
            put(RawHandOver { log: log.0.into(), to: to.0.into() }.as_bytes());
            kind::HAND_OVER
        }
        PeerMessage::Lagging(lagging) => {
            put(&codec::encode(lagging));
            kind::LAGGING
        }
        PeerMessage::Addresses(addresses) => {
            put(&codec::encode(addresses));
            kind::ADDRESSES
        }
    };
    let body = start + size_of::<RawMessage>();
    let head = RawMessage { kind, reserved: [0; 3], len: length(meta.len() - body).into() };
    meta[start..body].copy_from_slice(head.as_bytes());
    chunks_of(message).iter().map(chunk_len).sum()
}

fn put_raft(put: &mut impl FnMut(&[u8]), log: LogId, message: &Message, beside: &[Chunk]) {
    assert!(beside.is_empty() || beside.len() == message.entries.len(), "one chunk lies beside each entry");
    let flag = |is: bool, flag: u8| if is { flag } else { 0 };
    let raw = RawRaft {
        log: log.0.into(),
        term: message.term.into(),
        log_term: message.log_term.into(),
        index: message.index.into(),
        commit: message.commit.into(),
        commit_term: message.commit_term.into(),
        reject_hint: message.reject_hint.into(),
        request_snapshot: message.request_snapshot.into(),
        from_life: message.from_life.into(),
        to_life: message.to_life.into(),
        context_len: length(message.context.len()).into(),
        entries: length(message.entries.len()).into(),
        kind: message.kind as u8,
        flags: flag(message.reject, REJECT)
            | flag(message.snapshot.is_some(), SNAPSHOT)
            | flag(!beside.is_empty(), BESIDE),
        reserved: [0; 6],
    };
    put(raw.as_bytes());
    put(&message.context);
    if let Some(SnapshotPoint { index, term, data }) = &message.snapshot {
        let data_len = length(data.len()).into();
        put(RawSnapshot { index: (*index).into(), term: (*term).into(), data_len }.as_bytes());
        put(data);
    }
    for (n, Entry { index, term, data }) in message.entries.iter().enumerate() {
        let raw = RawEntry {
            term: (*term).into(),
            index: (*index).into(),
            data_len: length(data.len()).into(),
            beside_len: length(beside.get(n).map_or(0, chunk_len)).into(),
        };
        put(raw.as_bytes());
        put(data);
    }
}

/// A length or number as it is sent.
fn length(len: usize) -> u32 {
    u32::try_from(len).expect("a frame is smaller than 4 GiB, and so is each of its parts")
}

/// The messages of a frame, whose header was read before and whose other bytes are `frame`. What is large in them are
/// slices of `frame`.
///
/// # Errors
/// Bytes that differ from what [`encode`] wrote.
pub fn decode(header: &FrameHeader, frame: Bytes) -> Result<Vec<PeerMessage>, WireError> {
    if frame.len() != header.body_len() {
        return Err(WireError::Malformed("it has another length than its header says"));
    }
    let mut beside = frame;
    let meta = beside.split_to(header.meta_len as usize);
    if crc32fast::hash(&meta) != header.meta_crc {
        return Err(WireError::Checksum);
    }
    let mut meta = Cursor(meta);
    let mut beside = Cursor(beside);
    let mut messages = Vec::new();
    while !meta.0.is_empty() {
        let head = meta.take::<RawMessage>()?;
        if messages.len() == MOST_MESSAGES {
            return Err(WireError::Malformed("it has more messages than any frame"));
        }
        let mut body = Cursor(meta.bytes(head.len)?);
        messages.push(take_message(head.kind, &mut body, &mut beside)?);
        if !body.0.is_empty() {
            return Err(WireError::Malformed("bytes follow a message"));
        }
    }
    if !beside.0.is_empty() {
        return Err(WireError::Malformed("more lies beside the messages than they say"));
    }
    Ok(messages)
}

/// Bytes that are read from front to back.
struct Cursor(Bytes);

impl Cursor {
    fn take<T: FromBytes + KnownLayout + Immutable + Unaligned>(&mut self) -> Result<T, WireError> {
        let bytes = self.bytes(length(size_of::<T>()).into())?;
        T::read_from_bytes(&bytes).map_err(|_| WireError::Malformed("a part has the wrong size"))
    }

    fn bytes(&mut self, len: U32) -> Result<Bytes, WireError> {
        let len = len.get() as usize;
        if len > self.0.len() {
            return Err(WireError::Malformed("a part ends too early"));
        }
        Ok(self.0.split_to(len))
    }

    fn rest(&mut self) -> Bytes {
        std::mem::take(&mut self.0)
    }

    /// A batch or what lies beside an entry.
    fn chunk(&mut self, len: U32) -> Result<Chunk, WireError> {
        Ok(Chunk { head: SmallVec::new(), body: self.bytes(len)? })
    }

    /// Every `T` up to the end.
    fn all<T: FromBytes + KnownLayout + Immutable + Unaligned>(&mut self) -> Result<Vec<T>, WireError> {
        if !self.0.len().is_multiple_of(size_of::<T>()) {
            return Err(WireError::Malformed("a list ends too early"));
        }
        let mut all = Vec::with_capacity(self.0.len() / size_of::<T>());
        while !self.0.is_empty() {
            all.push(self.take()?);
        }
        Ok(all)
    }
}

fn take_message(kind: u8, body: &mut Cursor, beside: &mut Cursor) -> Result<PeerMessage, WireError> {
    Ok(match kind {
        kind::RAFT => take_raft(body, beside)?,
        kind::LEADERS => {
            let leaders = body.all::<RawLeader>()?;
            PeerMessage::Leaders(leaders.iter().map(|raw| (LogId(raw.log.get()), raw.epoch.get())).collect())
        }
        kind::REST => {
            let logs = body.all::<RawRest>()?;
            let rest = |raw: &RawRest| (LogId(raw.log.get()), raw.term.get(), raw.index.get());
            PeerMessage::Rest(logs.iter().map(rest).collect())
        }
        kind::APPLIED => PeerMessage::Applied { index: body.take::<U64>()?.get() },
        kind::ASK => {
            let raw = body.take::<RawAsk>()?;
            PeerMessage::Ask {
                shard: raw.shard.get(),
                number: raw.number.get(),
                time_left_ms: raw.time_left_ms.get(),
                question: body.rest(),
            }
        }
        kind::TOLD => {
            let raw = body.take::<RawTold>()?;
            PeerMessage::Told { shard: raw.shard.get(), number: raw.number.get(), reply: body.rest() }
        }
        kind::STATUS => PeerMessage::Status(codec::decode(&body.rest())?),
        kind::FETCH_LOG => {
            let raw = body.take::<RawFetchLog>()?;
            PeerMessage::FetchLog { log: LogId(raw.log.get()), offset: raw.offset.get(), end: raw.end.get() }
        }
        kind::LOG_PART => {
            let raw = body.take::<RawLogPart>()?;
            let lengths = body.all::<U32>()?;
            // Judged before anything is allocated for them.
            if lengths.iter().any(|len| len.get() == 0) || lengths.len() > beside.0.len() {
                return Err(WireError::Malformed("an empty batch"));
            }
            let batches = lengths.into_iter().map(|len| beside.chunk(len)).collect::<Result<_, _>>()?;
            PeerMessage::LogPart {
                log: LogId(raw.log.get()),
                offset: raw.offset.get(),
                start: raw.start.get(),
                batches,
            }
        }
        kind::HAND_OVER => {
            let raw = body.take::<RawHandOver>()?;
            PeerMessage::HandOver { log: LogId(raw.log.get()), to: BrokerId(raw.to.get()) }
        }
        kind::HAIL => PeerMessage::Hail,
        kind::LAGGING => PeerMessage::Lagging(codec::decode(&body.rest())?),
        kind::ADDRESSES => PeerMessage::Addresses(codec::decode(&body.rest())?),
        _ => return Err(WireError::Malformed("an unknown kind of message")),
    })
}

fn take_raft(body: &mut Cursor, chunks: &mut Cursor) -> Result<PeerMessage, WireError> {
    let raw = body.take::<RawRaft>()?;
    let kind = MessageKind::from_number(raw.kind).ok_or(WireError::Malformed("an unknown kind of Raft message"))?;
    if raw.flags & !(REJECT | SNAPSHOT | BESIDE) != 0 {
        return Err(WireError::Malformed("unknown flags of a Raft message"));
    }
    let context = body.bytes(raw.context_len)?;
    let snapshot = if raw.flags & SNAPSHOT == 0 {
        None
    } else {
        let raw = body.take::<RawSnapshot>()?;
        Some(SnapshotPoint { index: raw.index.get(), term: raw.term.get(), data: body.bytes(raw.data_len)? })
    };
    let count = raw.entries.get() as usize;
    // Judged before anything is allocated for them.
    if count > body.0.len() / size_of::<RawEntry>() {
        return Err(WireError::Malformed("a Raft message has fewer entries than it says"));
    }
    let mut entries = Vec::with_capacity(count);
    let mut beside = Vec::new();
    if raw.flags & BESIDE != 0 {
        beside.reserve_exact(count);
    }
    for _ in 0..count {
        let entry = body.take::<RawEntry>()?;
        entries.push(Entry { index: entry.index.get(), term: entry.term.get(), data: body.bytes(entry.data_len)? });
        if raw.flags & BESIDE != 0 {
            beside.push(chunks.chunk(entry.beside_len)?);
        } else if entry.beside_len.get() != 0 {
            return Err(WireError::Malformed("something lies beside an entry where nothing does"));
        }
    }
    let message = Message {
        kind,
        from_life: raw.from_life.get(),
        to_life: raw.to_life.get(),
        term: raw.term.get(),
        log_term: raw.log_term.get(),
        index: raw.index.get(),
        commit: raw.commit.get(),
        commit_term: raw.commit_term.get(),
        reject: raw.flags & REJECT != 0,
        reject_hint: raw.reject_hint.get(),
        request_snapshot: raw.request_snapshot.get(),
        context,
        entries,
        snapshot,
    };
    Ok(PeerMessage::Raft { log: LogId(raw.log.get()), message, beside })
}

#[cfg(test)]
mod tests;
