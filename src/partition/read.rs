//! Reading a partition: from its tail, from chunks read from segments, or by asking for one.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use zerocopy::IntoBytes;

use super::Partition;
use super::segments::{IndexMissing, Place, Segment};
use crate::limits::{INDEX_INTERVAL_BYTES, MAX_BATCH_BYTES, READ_CHUNK_BYTES};
use crate::log::{FileId, SegmentFile, SegmentRef};
use crate::record::{Batch, BatchHeader, HEADER_LEN, split_batches};
use crate::types::Offset;

/// Bodies up to this size are copied next to their headers; larger ones are shared.
const COPY_BELOW: usize = 4096;

/// Whole batches back to back, to be sent as they are.
#[derive(Clone, Debug, Default)]
pub struct Records {
    /// The bytes in order.
    pub chunks: Vec<Bytes>,
    /// Their sum.
    pub len: usize,
}

/// What a read found.
#[derive(Debug)]
pub enum Found<T> {
    /// The answer.
    Here(T),
    /// The answer needs this from the disk first; then ask again.
    OnDisk(DiskRead),
}

/// A read that a partition needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DiskRead {
    /// The file.
    pub segment: SegmentRef,
    /// First byte.
    pub position: u64,
    /// Most bytes.
    pub len: u32,
}

/// Why a partition cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadError {
    /// The offset lies before the log's start or after its end.
    OutOfRange,
    /// What the disk holds there is damaged.
    Corrupt,
}

/// Whole batches read from a segment.
#[derive(Debug)]
struct Chunk {
    bytes: Bytes,
    next_offset: Offset,
    /// Where in the segment's file they end.
    end: u64,
}

/// Chunks by the place of their first batch.
#[derive(Debug, Default)]
pub(super) struct Chunks {
    by_place: BTreeMap<Place, Chunk>,
    /// A place where damage was found.
    corrupt: Option<Place>,
}

impl Chunks {
    /// The chunk that holds the batch at this place.
    fn covering(&self, place: Place) -> Option<(Place, &Chunk)> {
        let (start, chunk) = self.by_place.range(..=place).next_back()?;
        (start.segment == place.segment && place.position < chunk.end).then_some((*start, chunk))
    }

    /// Drops the chunk that begins at this place.
    pub(super) fn evict(&mut self, place: Place) {
        self.by_place.remove(&place);
    }
}

/// Where a record lies that is not in the tail.
enum Located<'a> {
    /// In the chunk of this place, or where it is gone, the next one does.
    Chunk(Place, &'a Chunk),
    /// This must be read first.
    OnDisk(DiskRead),
    /// Segments hold nothing from there on.
    Tail,
}

/// Gathers batches into few pieces.
#[derive(Default)]
struct Gather {
    records: Records,
    small: BytesMut,
}

impl Gather {
    fn push(&mut self, header: &BatchHeader, body: &Bytes) {
        self.small.extend_from_slice(header.as_bytes());
        if body.len() <= COPY_BELOW {
            self.small.extend_from_slice(body);
        } else {
            self.records.chunks.push(self.small.split().freeze());
            self.records.chunks.push(body.clone());
        }
        self.records.len += HEADER_LEN + body.len();
    }

    fn finish(mut self) -> Records {
        if !self.small.is_empty() {
            self.records.chunks.push(self.small.freeze());
        }
        self.records
    }
}

impl Partition {
    /// Committed records from `offset` on: whole batches of up to `max_bytes` in all, but at least one where
    /// there is one. Nothing at the high watermark.
    ///
    /// # Errors
    /// [`ReadError`] where there is nothing to wait for.
    pub fn read(&self, offset: Offset, max_bytes: usize) -> Result<Found<Records>, ReadError> {
        if offset < self.log_start || offset > self.next_offset {
            return Err(ReadError::OutOfRange);
        }
        if offset >= self.high_watermark || max_bytes == 0 {
            return Ok(Found::Here(Records::default()));
        }
        if self.tail.first_offset().is_some_and(|first| first <= offset) {
            return Ok(Found::Here(self.read_tail(offset, max_bytes)));
        }
        Ok(match self.locate(offset, max_bytes)? {
            Located::Chunk(_, chunk) => {
                Found::Here(chunk_records(&chunk.bytes, offset, self.high_watermark, max_bytes))
            }
            Located::OnDisk(read) => Found::OnDisk(read),
            Located::Tail => Found::Here(self.read_tail(offset, max_bytes)),
        })
    }

    /// What is worth reading ahead for a reader that is at `offset` and takes up to `max_bytes` at once: the chunk after
    /// the one that it reads; `None` where that is in memory.
    pub fn read_ahead(&self, offset: Offset, max_bytes: usize) -> Option<DiskRead> {
        let in_tail = |offset| self.tail.first_offset().is_some_and(|first| first <= offset);
        if in_tail(offset) || offset < self.log_start {
            return None;
        }
        let Ok(Located::Chunk(_, Chunk { next_offset: next, .. })) = self.locate(offset, max_bytes) else {
            return None;
        };
        if in_tail(*next) || *next >= self.high_watermark {
            return None;
        }
        match self.locate(*next, max_bytes) {
            Ok(Located::OnDisk(read)) => Some(read),
            _ => None,
        }
    }

    /// The place of the chunk that a reader at `offset` has just left behind.
    pub fn spent_chunk(&self, offset: Offset) -> Option<Place> {
        let Ok(Located::Chunk(current, _)) = self.locate(offset, 0) else { return None };
        let (place, chunk) = self.chunks.by_place.range(..current).next_back()?;
        let next = match place.segment == current.segment {
            true => chunk.end == current.position,
            false => current.position == 0,
        };
        (next && chunk.next_offset <= offset).then_some(*place)
    }

    fn read_tail(&self, offset: Offset, max_bytes: usize) -> Records {
        let mut gather = Gather::default();
        for entry in self.tail.since(offset) {
            let batch = &entry.batch;
            if batch.header.base_offset.get() >= self.high_watermark {
                break;
            }
            if gather.records.len > 0 && gather.records.len + batch.len() > max_bytes {
                break;
            }
            gather.push(&batch.header, &batch.body);
        }
        gather.finish()
    }

    /// Where the first record at or after `offset` lies, for someone who takes up to `max_bytes`.
    fn locate(&self, offset: Offset, max_bytes: usize) -> Result<Located<'_>, ReadError> {
        let from = self.segments.partition_point(|segment| segment.meta.next_offset <= offset);
        for segment in &self.segments[from..] {
            let mut place = match segment.place_of(offset) {
                Ok(place) => place,
                Err(missing) => return Ok(Located::OnDisk(self.index_read(missing))),
            };
            // From the nearest place that the index knows of.
            while place.position < segment.meta.len {
                let Some((start, chunk)) = self.chunks.covering(place) else {
                    return Ok(Located::OnDisk(self.chunk_read(segment, place, max_bytes)?));
                };
                if chunk.next_offset > offset {
                    return Ok(Located::Chunk(start, chunk));
                }
                place.position = chunk.end;
            }
            // The rest of the segment's offsets are gone.
        }
        Ok(Located::Tail)
    }

    /// A read for someone who takes up to `max_bytes`, with what may lie before the first of them since the last entry of
    /// the index.
    fn chunk_read(&self, segment: &Segment, place: Place, max_bytes: usize) -> Result<DiskRead, ReadError> {
        if self.chunks.corrupt == Some(place) {
            return Err(ReadError::Corrupt);
        }
        let wanted = (max_bytes as u64).saturating_add(INDEX_INTERVAL_BYTES).min(READ_CHUNK_BYTES as u64);
        let len = (segment.meta.len - place.position).min(wanted) as u32;
        Ok(DiskRead { segment: self.file(place.segment, SegmentFile::Log), position: place.position, len })
    }

    fn index_read(&self, missing: IndexMissing) -> DiskRead {
        DiskRead {
            segment: self.file(missing.segment, SegmentFile::Index),
            position: 0,
            len: u32::try_from(missing.len).expect("a segment's index is far below 4 GiB"),
        }
    }

    /// Takes what a [`DiskRead`] gave. A batch larger than the read asks for a larger one. The memory that was
    /// taken for the cache, with the place to evict it by, is returned where a chunk was added.
    pub fn read_done(&mut self, read: DiskRead, bytes: Bytes) -> ReadDone {
        let Some(at) = self.segments.iter().position(|segment| segment.meta.name == read.segment.name) else {
            return ReadDone::Gone;
        };
        if read.segment.file == SegmentFile::Index {
            if self.segments[at].load_index(&bytes).is_err() {
                self.lose_index(at, read.segment);
            }
            return ReadDone::Index;
        }
        let place = Place { segment: read.segment.name, position: read.position };
        let usable = (self.segments[at].meta.len - read.position).min(bytes.len() as u64) as usize;
        let bytes = bytes.slice(..usable);
        let meta = &self.segments[at].meta;
        // Where the batches end that are well, and the offset after their last one; the same before the last of them.
        let (mut reached, mut before) = ((0, meta.name.base), (0, meta.name.base));
        for (position, batch) in split_batches(&bytes) {
            let (base, last) = (batch.header.base_offset.get(), batch.header.last_offset());
            if base < reached.1 {
                // A checksum does not cover offsets: it may be the one before that is wrong.
                reached = before;
                break;
            }
            if !(base..meta.next_offset).contains(&last) || batch.check_crc().is_err() {
                break;
            }
            before = std::mem::replace(&mut reached, (position + batch.len(), last + 1));
        }
        let (end, next_offset) = reached;
        if end == 0 {
            // Either the first batch is larger than what was read, or it is damaged.
            return match BatchHeader::peek(&bytes) {
                Some(header) if header.total_len() > usable && (read.len as usize) < header.total_len() => {
                    let larger = DiskRead { len: header.total_len() as u32, ..read };
                    let within = read.position + u64::from(larger.len) <= self.segments[at].meta.len;
                    let fits = within && header.total_len() <= MAX_BATCH_BYTES;
                    if fits { ReadDone::Larger(larger) } else { self.damaged(place) }
                }
                _ => self.damaged(place),
            };
        }
        // What follows is another's, or damaged: it is looked at when it is asked for.
        let bytes = bytes.slice(..end);
        let cost = bytes.len() as u64;
        let chunk = Chunk { bytes, next_offset, end: place.position + end as u64 };
        let replaced = self.chunks.by_place.insert(place, chunk).is_some();
        ReadDone::Chunk { place, cost, replaced }
    }

    /// Takes note that what a [`DiskRead`] wanted is lost. `None` where nobody else has it: another try may have more luck.
    pub fn read_lost(&mut self, read: DiskRead) -> Option<ReadDone> {
        let Some(at) = self.segments.iter().position(|segment| segment.meta.name == read.segment.name) else {
            return Some(ReadDone::Gone);
        };
        match read.segment.file {
            SegmentFile::Index => {
                self.lose_index(at, read.segment);
                Some(ReadDone::Index)
            }
            SegmentFile::Log => {
                let place = Place { segment: read.segment.name, position: read.position };
                self.is_replicated().then(|| self.damaged(place))
            }
        }
    }

    fn lose_index(&mut self, at: usize, file: SegmentRef) {
        tracing::error!(log = %self.log, file = %FileId::Segment(file), "a segment's index is damaged: it is read without");
        self.segments[at].lose_index();
        self.note_damage(file);
    }

    fn damaged(&mut self, place: Place) -> ReadDone {
        self.note_damage(self.file(place.segment, SegmentFile::Log));
        self.chunks.corrupt = Some(place);
        ReadDone::Damaged
    }

    /// Offset and timestamp of the first committed record whose timestamp is at least `timestamp`.
    ///
    /// # Errors
    /// [`ReadError::Corrupt`] where the batch that should hold it is damaged.
    pub fn find_time(&self, timestamp: i64) -> Result<Found<Option<(Offset, i64)>>, ReadError> {
        for segment in &self.segments {
            let mut place = match segment.place_of_time(timestamp) {
                Ok(Some(place)) => place,
                Ok(None) => continue,
                Err(missing) => return Ok(Found::OnDisk(self.index_read(missing))),
            };
            // The stretch may be longer than a chunk; walk on through the chunks that follow it.
            while place.position < segment.meta.len {
                let Some((_, chunk)) = self.chunks.covering(place) else {
                    return Ok(Found::OnDisk(self.chunk_read(segment, place, READ_CHUNK_BYTES)?));
                };
                let found = split_batches(&chunk.bytes).find_map(|(_, batch)| self.time_in(&batch, timestamp));
                if found.is_some() {
                    return Ok(Found::Here(found));
                }
                place.position = chunk.end;
            }
        }
        let found = self
            .tail
            .iter()
            .take_while(|entry| entry.batch.header.base_offset.get() < self.high_watermark)
            .find_map(|entry| self.time_in(&entry.batch, timestamp));
        Ok(Found::Here(found))
    }

    fn time_in(&self, batch: &Batch, timestamp: i64) -> Option<(Offset, i64)> {
        if batch.header.max_timestamp.get() < timestamp || batch.header.last_offset() < self.log_start {
            return None;
        }
        batch.find_time(self.log_start, timestamp)
    }

    /// The largest timestamp of any committed record.
    pub fn max_timestamp(&self) -> Option<i64> {
        let stored = self.segments.iter().map(|segment| segment.meta.max_timestamp);
        let tail = self
            .tail
            .iter()
            .filter(|entry| entry.batch.header.base_offset.get() < self.high_watermark)
            .map(|entry| entry.batch.header.max_timestamp.get());
        stored.chain(tail).max()
    }
}

/// What [`Partition::read_done`] made of the bytes.
#[derive(Debug, PartialEq, Eq)]
pub enum ReadDone {
    /// Batches are in the cache now.
    Chunk {
        /// By this place they are evicted again.
        place: Place,
        /// Memory taken, in bytes.
        cost: u64,
        /// Whether an older chunk was in its place.
        replaced: bool,
    },
    /// An index was loaded.
    Index,
    /// The first batch is larger: read this instead.
    Larger(DiskRead),
    /// What lies there is damaged.
    Damaged,
    /// The segment was deleted meanwhile.
    Gone,
}

/// Whole batches from `offset` on, and before `end`: a follower may store records before it knows them to be committed.
fn chunk_records(bytes: &Bytes, offset: Offset, end: Offset, max_bytes: usize) -> Records {
    let mut range: Option<(usize, usize)> = None;
    for (position, batch) in split_batches(bytes) {
        if batch.header.last_offset() < offset {
            continue;
        }
        if batch.header.base_offset.get() >= end {
            break;
        }
        let start = range.map_or(position, |(start, _)| start);
        let end = position + batch.len();
        if range.is_some() && end - start > max_bytes {
            break;
        }
        range = Some((start, end));
    }
    match range {
        Some((start, end)) => Records { chunks: vec![bytes.slice(start..end)], len: end - start },
        None => Records::default(),
    }
}
