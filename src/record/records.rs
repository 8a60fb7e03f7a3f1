//! The records of an uncompressed batch, as far as a broker looks at them.

use super::batch::BatchError;
use super::header::{BatchHeader, TimestampType};

/// Walks the records of an uncompressed batch and checks that their lengths fill the body exactly, that there
/// are as many as the header says, and that their offsets rise by one.
///
/// # Errors
/// [`BatchError::Inconsistent`] with the first contradiction: consumers would stumble over it.
pub fn check_records(header: &BatchHeader, body: &[u8]) -> Result<(), BatchError> {
    let mut rest = body;
    for expected in 0..header.record_count.get() {
        let record = next_record(&mut rest).ok_or(BatchError::Inconsistent("a record does not fit the batch"))?;
        if record.offset_delta != i64::from(expected) {
            return Err(BatchError::Inconsistent("record offsets do not rise by one"));
        }
    }
    if rest.is_empty() { Ok(()) } else { Err(BatchError::Inconsistent("bytes follow the last record")) }
}

/// Offsets and timestamps of the records of an uncompressed batch that passed [`check_records`].
pub struct RecordTimes<'a> {
    header: &'a BatchHeader,
    rest: &'a [u8],
}

impl<'a> RecordTimes<'a> {
    /// Iterates over the records of the batch.
    pub fn new(header: &'a BatchHeader, body: &'a [u8]) -> RecordTimes<'a> {
        RecordTimes { header, rest: body }
    }
}

impl Iterator for RecordTimes<'_> {
    /// Offset, and timestamp in milliseconds since the Unix epoch.
    type Item = (i64, i64);

    fn next(&mut self) -> Option<(i64, i64)> {
        let record = next_record(&mut self.rest)?;
        let timestamp = match self.header.timestamp_type() {
            TimestampType::CreateTime => self.header.base_timestamp.get().saturating_add(record.timestamp_delta),
            TimestampType::LogAppendTime => self.header.max_timestamp.get(),
        };
        Some((self.header.base_offset.get() + record.offset_delta, timestamp))
    }
}

/// What stands in front of a record's key, and the rest from the key's length on.
#[derive(Clone, Copy, Debug)]
pub(super) struct RecordHead<'a> {
    pub(super) attributes: u8,
    pub(super) timestamp_delta: i64,
    pub(super) offset_delta: i64,
    pub(super) key: Option<&'a [u8]>,
    pub(super) has_value: bool,
    pub(super) rest: &'a [u8],
}

/// Takes the next record; `None` where there is none, or none that is well-formed.
#[inline]
pub(super) fn next_record<'a>(rest: &mut &'a [u8]) -> Option<RecordHead<'a>> {
    let len = usize::try_from(varint(rest)?).ok()?;
    let (mut record, after) = rest.split_at_checked(len)?;
    *rest = after;
    let (attributes, fields) = record.split_first()?;
    record = fields;
    let timestamp_delta = varint(&mut record)?;
    let offset_delta = varint(&mut record)?;
    let rest = record;
    let key = take_nullable(&mut record)?;
    let has_value = take_nullable(&mut record)?.is_some();
    let headers = varint(&mut record)?;
    if headers < 0 {
        return None;
    }
    for _ in 0..headers {
        let key = varint(&mut record)?;
        if key < 0 {
            return None;
        }
        skip(&mut record, key)?;
        take_nullable(&mut record)?;
    }
    let head = RecordHead { attributes: *attributes, timestamp_delta, offset_delta, key, has_value, rest };
    record.is_empty().then_some(head)
}

/// Nullable bytes; not there where the record is cut short.
#[expect(clippy::option_option, reason = "cut short, or null, or there")]
#[inline]
pub(super) fn take_nullable<'a>(rest: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    let len = varint(rest)?;
    if len == -1 {
        return Some(None);
    }
    let (bytes, after) = rest.split_at_checked(usize::try_from(len).ok()?)?;
    *rest = after;
    Some(Some(bytes))
}

pub(super) fn skip(rest: &mut &[u8], len: i64) -> Option<()> {
    *rest = rest.get(usize::try_from(len).ok()?..)?;
    Some(())
}

/// A zigzag varint of at most ten bytes. Nearly all are of one or two.
#[inline]
pub(super) fn varint(rest: &mut &[u8]) -> Option<i64> {
    let (first, after) = rest.split_first()?;
    if first & 0x80 == 0 {
        *rest = after;
        return Some(unzigzag(u64::from(*first)));
    }
    if let Some((second, after)) = after.split_first()
        && second & 0x80 == 0
    {
        *rest = after;
        return Some(unzigzag(u64::from(first & 0x7f) | u64::from(*second) << 7));
    }
    long_varint(rest)
}

#[cold]
fn long_varint(rest: &mut &[u8]) -> Option<i64> {
    let mut value = 0u64;
    for (i, byte) in rest.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            *rest = &rest[i + 1..];
            return Some(unzigzag(value));
        }
    }
    None
}

fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

#[cfg(test)]
mod tests {
    use super::super::batch::{Batch, tests::encoded};
    use super::*;

    #[test]
    fn times_are_those_of_the_records() {
        let batch = Batch::parse_produced(&encoded(&[b"a", b"b", b"c"], 500)).unwrap();
        let times: Vec<_> = RecordTimes::new(&batch.header, &batch.body).collect();
        assert_eq!(times, vec![(0, 500), (1, 501), (2, 502)]);
    }

    #[test]
    fn contradictions_are_found() {
        let batch = Batch::parse_produced(&encoded(&[b"abc", b"d"], 0)).unwrap();
        let mut header = batch.header;
        header.record_count.set(3);
        assert!(check_records(&header, &batch.body).is_err());
        header.record_count.set(1);
        assert!(check_records(&header, &batch.body).is_err());
        for cut in 0..batch.body.len() {
            assert!(check_records(&batch.header, &batch.body[..cut]).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn varints_of_every_length_come_back() {
        let mut values: Vec<i64> = (0..63).flat_map(|bit| [1i64 << bit, (1 << bit) - 1, -(1 << bit)]).collect();
        values.extend([i64::MIN, i64::MAX, 0, -1]);
        for value in values {
            let mut left = ((value << 1) ^ (value >> 63)) as u64;
            let mut bytes = Vec::new();
            while left >= 0x80 {
                bytes.push(left as u8 | 0x80);
                left >>= 7;
            }
            bytes.push(left as u8);
            for cut in 0..bytes.len() {
                assert_eq!(varint(&mut &bytes[..cut]), None, "{value} cut at {cut}");
            }
            bytes.push(0xAA);
            let mut rest = &bytes[..];
            assert_eq!(varint(&mut rest), Some(value));
            assert_eq!(rest, [0xAA]);
        }
        assert_eq!(varint(&mut &[0x80; 11][..]), None, "longer than a varint can be");
    }

    #[test]
    fn arbitrary_bytes_never_panic() {
        proptest::proptest!(|(body: Vec<u8>, count in 0i32..5)| {
            let mut header = Batch::parse_produced(&encoded(&[b"a"], 0)).unwrap().header;
            header.record_count.set(count);
            let _ = check_records(&header, &body);
        });
    }
}
