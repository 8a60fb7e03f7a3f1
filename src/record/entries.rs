//! Records with keys: batches that the broker itself writes, and their records read back.

use bytes::Bytes;
use zerocopy::FromZeros;

use super::batch::Batch;
use super::header::{BatchHeader, Compression, HEADER_LEN, LENGTH_OVERHEAD, MAGIC};
use super::records::{skip, varint};
use crate::types::Offset;

/// Key and value of a record; a record without a value is the end of its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: Option<Bytes>,
    /// The value.
    pub value: Option<Bytes>,
}

impl Batch {
    /// An uncompressed batch of the broker's own, with the time of its clock. It has no place in a log yet.
    pub fn of_entries(entries: &[Entry], wall_ms: i64) -> Batch {
        assert!(!entries.is_empty(), "a batch has records");
        let mut body = Vec::new();
        let mut record = Vec::new();
        for (delta, entry) in entries.iter().enumerate() {
            record.clear();
            // Attributes, of which there are none, and the time since the batch's.
            record.extend([0, 0]);
            put_varint(&mut record, delta as i64);
            put_bytes(&mut record, entry.key.as_ref());
            put_bytes(&mut record, entry.value.as_ref());
            // No headers.
            record.push(0);
            put_varint(&mut body, record.len() as i64);
            body.extend_from_slice(&record);
        }
        let mut header = BatchHeader::new_zeroed();
        header.batch_length.set((HEADER_LEN - LENGTH_OVERHEAD + body.len()) as i32);
        header.leader_epoch.set(-1);
        header.magic = MAGIC;
        header.last_offset_delta.set(entries.len() as i32 - 1);
        header.base_timestamp.set(wall_ms);
        header.max_timestamp.set(wall_ms);
        header.producer_id.set(-1);
        header.producer_epoch.set(-1);
        header.base_sequence.set(-1);
        header.record_count.set(entries.len() as i32);
        let mut batch = Batch { header, body: body.into() };
        let crc = batch.computed_crc();
        batch.header.crc.set(crc);
        batch
    }

    /// The records with their offsets; `None` where they are compressed or not well-formed.
    pub fn entries(&self) -> Option<Vec<(Offset, Entry)>> {
        if self.header.compression() != Some(Compression::None) {
            return None;
        }
        let mut rest = &self.body[..];
        let count = usize::try_from(self.header.record_count.get()).ok()?;
        let mut entries = Vec::new();
        for _ in 0..count {
            let len = usize::try_from(varint(&mut rest)?).ok()?;
            let mut record = rest.get(..len)?;
            rest = &rest[len..];
            skip(&mut record, 1)?;
            varint(&mut record)?;
            let delta = varint(&mut record)?;
            let key = self.take_bytes(&mut record)?;
            let value = self.take_bytes(&mut record)?;
            entries.push((self.header.base_offset.get() + delta, Entry { key, value }));
        }
        Some(entries)
    }

    /// Nullable bytes, shared with the body. Not there where the record is cut short.
    fn take_bytes(&self, record: &mut &[u8]) -> Option<Option<Bytes>> {
        let len = varint(record)?;
        if len < 0 {
            return Some(None);
        }
        let bytes = record.get(..usize::try_from(len).ok()?)?;
        skip(record, len)?;
        Some(Some(self.body.slice_ref(bytes)))
    }
}

fn put_bytes(out: &mut Vec<u8>, bytes: Option<&Bytes>) {
    match bytes {
        Some(bytes) => {
            put_varint(out, bytes.len() as i64);
            out.extend_from_slice(bytes);
        }
        None => put_varint(out, -1),
    }
}

/// A zigzag varint.
pub(super) fn put_varint(out: &mut Vec<u8>, value: i64) {
    let mut zigzag = ((value << 1) ^ (value >> 63)) as u64;
    while zigzag >= 0x80 {
        out.push(zigzag as u8 | 0x80);
        zigzag >>= 7;
    }
    out.push(zigzag as u8);
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::IntoBytes;

    fn entry(key: &str, value: Option<&str>) -> Entry {
        let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
        Entry { key: Some(bytes(key)), value: value.map(bytes) }
    }

    #[test]
    fn what_is_written_passes_the_checks_and_is_read_back() {
        let long = "x".repeat(300);
        let entries = [entry("a", Some("1")), entry("", None), entry(&long, Some(&long))];
        let mut batch = Batch::of_entries(&entries, 77);
        let bytes: Bytes = [batch.header.as_bytes(), &batch.body].concat().into();
        Batch::parse_produced(&bytes).expect("a batch as a client could send it");
        batch.assign(40, 2);
        let read = batch.entries().unwrap();
        assert_eq!(read.iter().map(|(offset, _)| *offset).collect::<Vec<_>>(), [40, 41, 42]);
        assert!(read.into_iter().map(|(_, entry)| entry).eq(entries));
    }

    #[test]
    fn damaged_records_are_not_read() {
        let batch = Batch::of_entries(&[entry("key", Some("value"))], 0);
        for cut in 0..batch.body.len() {
            assert!(Batch { body: batch.body.slice(..cut), ..batch.clone() }.entries().is_none(), "cut at {cut}");
        }
    }
}
