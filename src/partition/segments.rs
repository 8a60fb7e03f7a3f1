//! The segments of a partition: which there are, what they reach, where in them an offset or a time lies.

use bytes::Bytes;
use zerocopy::byteorder::little_endian::{I64, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::limits::INDEX_INTERVAL_BYTES;
use crate::log::SegmentName;
use crate::record::Batch;
use crate::types::Offset;

/// One entry of a segment's index file: a stretch of at least [`INDEX_INTERVAL_BYTES`] of the log file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct IndexEntry {
    /// Offset of the stretch's first record.
    pub base_offset: I64,
    /// Position of its first batch in the log file.
    pub position: U64,
    /// Raft index of its first batch.
    pub raft_index: U64,
    /// Largest timestamp in the stretch, milliseconds since the Unix epoch.
    pub max_timestamp: I64,
    /// Raft term of its first batch.
    pub term: U32,
    /// CRC-32 (IEEE) of the fields above.
    pub crc: U32,
}

/// Bytes of an [`IndexEntry`] on disk.
pub const INDEX_ENTRY_LEN: usize = size_of::<IndexEntry>();

const _: () = assert!(INDEX_ENTRY_LEN == 40);

impl IndexEntry {
    fn new(batch: &Batch, position: u64, raft_index: u64, term: u64) -> IndexEntry {
        IndexEntry {
            base_offset: batch.header.base_offset.get().into(),
            position: position.into(),
            raft_index: raft_index.into(),
            max_timestamp: batch.header.max_timestamp.get().into(),
            term: (term as u32).into(),
            crc: 0.into(),
        }
        .sealed()
    }

    fn computed_crc(&self) -> u32 {
        crc32fast::hash(&self.as_bytes()[..INDEX_ENTRY_LEN - 4])
    }

    fn sealed(mut self) -> IndexEntry {
        self.crc = self.computed_crc().into();
        self
    }

    /// Reads an index file, or the part of one that was asked for.
    ///
    /// # Errors
    /// The number of the first entry whose checksum does not match.
    pub fn parse_all(bytes: &[u8]) -> Result<Vec<IndexEntry>, usize> {
        bytes
            .as_chunks::<INDEX_ENTRY_LEN>()
            .0
            .iter()
            .enumerate()
            .map(|(number, bytes)| {
                let entry = IndexEntry::read_from_bytes(bytes).expect("the chunk has an entry's length");
                if entry.crc.get() == entry.computed_crc() { Ok(entry) } else { Err(number) }
            })
            .collect()
    }
}

/// The part of a segment's description that is in checkpoints.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SegmentMeta {
    /// Names the files. The first record's offset is its base, or a greater one where the segment was compacted.
    pub name: SegmentName,
    /// Offset after the last record, those included that are gone.
    pub next_offset: Offset,
    /// Raft index of the first batch.
    pub first_index: u64,
    /// Durable bytes of the log file.
    pub len: u64,
    /// Largest timestamp of the first batch, milliseconds since the Unix epoch.
    pub first_timestamp: i64,
    /// Largest timestamp, milliseconds since the Unix epoch.
    pub max_timestamp: i64,
    /// Entries in the index file that are durable.
    pub index_persisted: u64,
}

/// A segment.
#[derive(Clone, Debug)]
pub struct Segment {
    /// What checkpoints say of it.
    pub meta: SegmentMeta,
    /// The entries that the index file holds, where they were loaded since the start.
    persisted: Option<Vec<IndexEntry>>,
    /// The index file cannot be read: what lies before the pending entries is looked for from the beginning on.
    lost: bool,
    /// The entries that the index file does not hold yet; the last one still grows.
    pending: Vec<IndexEntry>,
}

/// Where to read in a segment's log file. Ordered as the records are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The segment.
    pub segment: SegmentName,
    /// Position of a batch in its log file.
    pub position: u64,
}

/// The index entries of this segment are on disk and have to be read first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexMissing {
    /// The segment.
    pub segment: SegmentName,
    /// Bytes of its index file.
    pub len: u64,
}

impl Segment {
    /// A segment that begins with this batch and holds nothing yet.
    pub fn begin(batch: &Batch, raft_index: u64) -> Segment {
        let base = batch.header.base_offset.get();
        Segment::empty(SegmentName { base, revision: 0 }, raft_index)
    }

    /// One that holds nothing yet.
    pub fn empty(name: SegmentName, first_index: u64) -> Segment {
        let meta = SegmentMeta {
            name,
            next_offset: name.base,
            first_index,
            len: 0,
            first_timestamp: i64::MIN,
            max_timestamp: i64::MIN,
            index_persisted: 0,
        };
        Segment { meta, persisted: Some(Vec::new()), lost: false, pending: Vec::new() }
    }

    /// Whether the log begins behind all its records. One that holds nothing yet waits for some.
    pub fn is_before(&self, log_start: Offset) -> bool {
        self.meta.len > 0 && self.meta.next_offset <= log_start
    }

    /// A segment as a checkpoint describes it, with the entries that were not in the index file then.
    pub fn recovered(meta: SegmentMeta, pending: &[u8]) -> Option<Segment> {
        let persisted = (meta.index_persisted == 0).then(Vec::new);
        Some(Segment { meta, persisted, lost: false, pending: IndexEntry::parse_all(pending).ok()? })
    }

    /// Notes a batch that was written at the end of the log file.
    pub fn note(&mut self, batch: &Batch, raft_index: u64, term: u64) {
        let timestamp = batch.header.max_timestamp.get();
        let begin = match self.pending.last() {
            Some(last) => self.meta.len - last.position.get() >= INDEX_INTERVAL_BYTES,
            None => true,
        };
        if begin {
            self.pending.push(IndexEntry::new(batch, self.meta.len, raft_index, term));
        } else if let Some(last) = self.pending.last_mut() {
            last.max_timestamp.set(last.max_timestamp.get().max(timestamp));
            *last = last.sealed();
        }
        if self.meta.len == 0 {
            self.meta.first_timestamp = timestamp;
        }
        self.meta.len += batch.len() as u64;
        self.meta.next_offset = batch.header.last_offset() + 1;
        self.meta.max_timestamp = self.meta.max_timestamp.max(timestamp);
    }

    /// The entries to append to the index file: those that grow no more, or all where the segment is sealed.
    pub fn index_to_write(&self, sealed: bool) -> &[IndexEntry] {
        let count = if sealed { self.pending.len() } else { self.pending.len().saturating_sub(1) };
        &self.pending[..count]
    }

    /// The first `count` pending entries are durable in the index file.
    pub fn index_written(&mut self, count: usize) {
        let written = self.pending.drain(..count);
        match &mut self.persisted {
            Some(persisted) => persisted.extend(written),
            None => drop(written),
        }
        self.meta.index_persisted += count as u64;
    }

    /// The pending entries as bytes, for a checkpoint.
    pub fn pending_bytes(&self) -> Vec<u8> {
        self.pending.as_bytes().to_vec()
    }

    /// Takes the content of the index file.
    ///
    /// # Errors
    /// The number of the first damaged entry; the index stays missing.
    pub fn load_index(&mut self, bytes: &Bytes) -> Result<(), usize> {
        let wanted = self.meta.index_persisted as usize;
        let available = bytes.len() / INDEX_ENTRY_LEN;
        if available < wanted {
            return Err(available);
        }
        self.persisted = Some(IndexEntry::parse_all(&bytes[..wanted * INDEX_ENTRY_LEN])?);
        Ok(())
    }

    /// The content of the index file is damaged: the segment does without.
    pub fn lose_index(&mut self) {
        self.persisted = Some(Vec::new());
        self.lost = true;
    }

    /// The entries of the index file, and those that it does not hold yet.
    fn index(&self) -> Result<[&[IndexEntry]; 2], IndexMissing> {
        match &self.persisted {
            Some(persisted) => Ok([persisted, &self.pending]),
            None => {
                let len = self.meta.index_persisted * INDEX_ENTRY_LEN as u64;
                Err(IndexMissing { segment: self.meta.name, len })
            }
        }
    }

    /// A batch at or before the one that holds `offset`, near it.
    ///
    /// # Errors
    /// [`IndexMissing`] where the index has to be read first.
    pub fn place_of(&self, offset: Offset) -> Result<Place, IndexMissing> {
        let last = |entries: &[IndexEntry]| {
            let after = entries.partition_point(|entry| entry.base_offset.get() <= offset);
            Some(entries[after.checked_sub(1)?].position.get())
        };
        let [persisted, pending] = self.index()?;
        let position = last(pending).or_else(|| last(persisted)).unwrap_or(0);
        Ok(Place { segment: self.meta.name, position })
    }

    /// The beginning of the first stretch that holds a timestamp of at least `timestamp`.
    ///
    /// # Errors
    /// [`IndexMissing`] where the index has to be read first.
    pub fn place_of_time(&self, timestamp: i64) -> Result<Option<Place>, IndexMissing> {
        if self.meta.max_timestamp < timestamp {
            return Ok(None);
        }
        let place = |position| Place { segment: self.meta.name, position };
        if self.lost {
            return Ok(Some(place(0)));
        }
        let entry = self.index()?.into_iter().flatten().find(|entry| entry.max_timestamp.get() >= timestamp);
        Ok(entry.map(|entry| place(entry.position.get())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::test_batch;

    fn filled(batches: i64) -> Segment {
        let first = test_batch(100, 40_000, 0);
        let mut segment = Segment::begin(&first, 7);
        for i in 0..batches {
            segment.note(&test_batch(100 + i, 40_000, 1_000 + i), 7 + i as u64, 3);
        }
        segment
    }

    #[test]
    fn offsets_and_times_are_found_near() {
        let segment = filled(10);
        let batch_len = segment.meta.len / 10;
        for i in 0..10 {
            let place = segment.place_of(100 + i).unwrap();
            assert!(place.position <= batch_len * i as u64);
            assert!(batch_len * i as u64 - place.position <= INDEX_INTERVAL_BYTES + batch_len);
            let place = segment.place_of_time(1_000 + i).unwrap().unwrap();
            assert!(place.position <= batch_len * i as u64);
        }
        assert_eq!(segment.place_of_time(1_010).unwrap(), None);
    }

    #[test]
    fn an_index_on_disk_is_asked_for_and_checked() {
        let mut segment = filled(10);
        let bytes = segment.index_to_write(false).as_bytes().to_vec();
        let count = bytes.len() / INDEX_ENTRY_LEN;
        assert!(count > 2);
        let before = segment.place_of(108).unwrap();
        segment.index_written(count);
        let mut recovered = Segment::recovered(segment.meta.clone(), &segment.pending_bytes()).unwrap();
        assert_eq!(
            recovered.place_of(108),
            Err(IndexMissing { segment: segment.meta.name, len: (count * INDEX_ENTRY_LEN) as u64 })
        );
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert_eq!(recovered.load_index(&damaged.into()), Err(at / INDEX_ENTRY_LEN));
        }
        recovered.load_index(&bytes.into()).unwrap();
        assert_eq!(recovered.place_of(108).unwrap(), before);
    }
}
