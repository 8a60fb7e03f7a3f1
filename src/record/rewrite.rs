//! The records of a batch with their keys, and the batch with some of them left out: what compaction needs.

use bytes::Bytes;

use super::batch::Batch;
use super::compression::{compress, decompress};
use super::entries::put_varint;
use super::header::{BatchHeader, HEADER_LEN, LENGTH_OVERHEAD, TimestampType};
use super::records::{RecordHead, next_record, skip, take_nullable, varint};
use crate::types::Offset;

/// A record, as a part of the opened body that it lies in.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Its offset.
    pub offset: Offset,
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Without a value it is the end of its key.
    pub has_value: bool,
    head: RecordHead<'a>,
}

/// The records of a body that was opened with [`Batch::open`], in order; ends early where they are not well-formed.
pub fn records<'a>(header: &'a BatchHeader, body: &'a [u8]) -> impl Iterator<Item = Record<'a>> {
    let mut rest = body;
    std::iter::from_fn(move || {
        let head = next_record(&mut rest)?;
        let offset = header.base_offset.get() + head.offset_delta;
        Some(Record { offset, key: head.key, has_value: head.has_value, head })
    })
}

/// A record's header: its name, and its value where it has one.
pub type RecordHeader<'a> = (&'a [u8], Option<&'a [u8]>);

impl<'a> Record<'a> {
    /// Its value, where it has one, and its headers in their order.
    pub fn contents(&self) -> (Option<&'a [u8]>, Vec<RecordHeader<'a>>) {
        self.parse_contents().expect("a record is only made of what was parsed whole")
    }

    fn parse_contents(&self) -> Option<(Option<&'a [u8]>, Vec<RecordHeader<'a>>)> {
        let mut rest = self.head.rest;
        take_nullable(&mut rest)?;
        let value = take_nullable(&mut rest)?;
        let mut headers = Vec::new();
        for _ in 0..varint(&mut rest)? {
            let len = varint(&mut rest)?;
            let name = rest.get(..usize::try_from(len).ok()?)?;
            skip(&mut rest, len)?;
            headers.push((name, take_nullable(&mut rest)?));
        }
        Some((value, headers))
    }

    /// Its time in milliseconds since the Unix epoch; `header` is its batch's.
    pub fn timestamp(&self, header: &BatchHeader) -> i64 {
        match header.timestamp_type() {
            TimestampType::CreateTime => header.base_timestamp.get().saturating_add(self.head.timestamp_delta),
            TimestampType::LogAppendTime => header.max_timestamp.get(),
        }
    }
}

impl Batch {
    /// The records, decompressed; `None` where they are damaged, or larger than the broker opens.
    pub fn open(&self) -> Option<Bytes> {
        decompress(self.header.compression()?, &self.body).ok()
    }

    /// Whether some record has no key. One that cannot be opened counts as having them all.
    pub fn lacks_key(&self) -> bool {
        self.open().is_some_and(|body| records(&self.header, &body).any(|record| record.key.is_none()))
    }

    /// The batch with only these of its records, which keep their offsets and times. Its own place, producer and
    /// sequence stay what they were. With a `horizon`, a time in milliseconds since the Unix epoch, it says that what
    /// ends a key in it is needed until then. `None` where the records cannot be compressed again.
    pub fn with_records(&self, kept: &[Record<'_>], horizon: Option<i64>) -> Option<Batch> {
        let mut header = self.header;
        let old_base = header.base_timestamp.get();
        let base = horizon.unwrap_or(old_base);
        let (mut body, mut record) = (Vec::new(), Vec::new());
        let mut newest = i64::MIN;
        for Record { head, .. } in kept {
            let timestamp = old_base.saturating_add(head.timestamp_delta);
            newest = newest.max(timestamp);
            record.clear();
            record.push(head.attributes);
            put_varint(&mut record, timestamp.saturating_sub(base));
            put_varint(&mut record, head.offset_delta);
            record.extend_from_slice(head.rest);
            put_varint(&mut body, record.len() as i64);
            body.extend_from_slice(&record);
        }
        let body = compress(header.compression()?, body).ok()?;
        header.batch_length.set(i32::try_from(HEADER_LEN - LENGTH_OVERHEAD + body.len()).ok()?);
        header.record_count.set(kept.len() as i32);
        header.base_timestamp.set(base);
        if horizon.is_some() {
            header.set_delete_horizon();
        }
        if header.timestamp_type() == TimestampType::CreateTime {
            header.max_timestamp.set(newest);
        }
        let mut batch = Batch { header, body };
        let crc = batch.computed_crc();
        batch.header.crc.set(crc);
        Some(batch)
    }

    /// Offset and time of the first record from `offset` on whose time is at least `timestamp`, where there is one.
    pub fn find_time(&self, offset: Offset, timestamp: i64) -> Option<(Offset, i64)> {
        let Some(body) = self.open() else {
            // It cannot be opened: whoever reads from its first record on misses none that is wanted.
            return Some((self.header.base_offset.get().max(offset), self.header.max_timestamp.get()));
        };
        super::RecordTimes::new(&self.header, &body).find(|(at, time)| *time >= timestamp && *at >= offset)
    }
}

#[cfg(test)]
mod tests {
    use super::super::compression::tests::ALL;
    use super::super::entries::Entry;
    use super::*;

    /// A batch of four records, the third the end of its key, closed with each compression.
    fn batches() -> impl Iterator<Item = Batch> {
        ALL.into_iter().map(|compression| {
            let entry = |key: &'static str, value: Option<&'static str>| Entry {
                key: Some(Bytes::from_static(key.as_bytes())),
                value: value.map(|value| Bytes::from_static(value.as_bytes())),
            };
            let entries = [entry("a", Some("1")), entry("b", Some("2")), entry("c", None), entry("d", Some("4"))];
            let mut batch = Batch::of_entries(&entries, 1_000);
            batch.body = compress(compression, batch.body.to_vec()).unwrap();
            batch.header.attributes.set(ALL.iter().position(|other| *other == compression).unwrap() as i16);
            batch.header.batch_length.set((HEADER_LEN - LENGTH_OVERHEAD + batch.body.len()) as i32);
            let crc = batch.computed_crc();
            batch.header.crc.set(crc);
            batch.assign(40, 2);
            batch
        })
    }

    #[test]
    fn what_is_kept_keeps_its_place_and_time() {
        for batch in batches() {
            let body = batch.open().unwrap();
            let kept: Vec<Record<'_>> = records(&batch.header, &body).filter(|record| record.offset % 2 == 0).collect();
            for horizon in [None, Some(5_000)] {
                let rest = batch.with_records(&kept, horizon).unwrap();
                rest.check_crc().unwrap();
                assert_eq!((rest.header.base_offset.get(), rest.header.last_offset()), (40, 43));
                assert_eq!(rest.header.record_count.get(), 2);
                assert_eq!(rest.header.delete_horizon(), horizon);
                let body = rest.open().unwrap();
                let read: Vec<_> = records(&rest.header, &body).map(|r| (r.offset, r.key, r.has_value)).collect();
                let contents: Vec<_> = records(&rest.header, &body).map(|r| r.contents()).collect();
                assert_eq!(contents, [(Some(&b"1"[..]), vec![]), (None, vec![])]);
                assert!(records(&rest.header, &body).all(|r| r.timestamp(&rest.header) == 1_000));
                assert_eq!(read, [(40, Some(&b"a"[..]), true), (42, Some(&b"c"[..]), false)]);
                assert_eq!(rest.find_time(41, 0), Some((42, 1_000)));
                assert_eq!(rest.header.max_timestamp.get(), 1_000);
            }
        }
    }

    #[test]
    fn missing_keys_are_noticed_in_compressed_batches_too() {
        for batch in batches() {
            assert!(!batch.lacks_key());
            let mut without = Batch::of_entries(&[Entry { key: None, value: None }], 0);
            let compression = batch.header.compression().unwrap();
            without.body = compress(compression, without.body.to_vec()).unwrap();
            without.header.attributes = batch.header.attributes;
            assert!(without.lacks_key());
        }
    }
}
