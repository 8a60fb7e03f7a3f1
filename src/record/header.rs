//! The 61 bytes in front of every batch.

use zerocopy::byteorder::big_endian::{I16, I32, I64, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Length of a [`BatchHeader`] on the wire and on disk.
pub const HEADER_LEN: usize = 61;

/// Bytes of a batch that its `batch_length` does not count: base offset and the length itself.
pub const LENGTH_OVERHEAD: usize = 12;

/// Where the part begins that the CRC covers: everything from `attributes` on. Base offset and leader epoch
/// lie before it, so a broker may set them without touching the CRC.
pub const CRC_START: usize = 21;

/// The only format that is taken.
pub const MAGIC: u8 = 2;

const COMPRESSION_MASK: i16 = 0x07;
const TIMESTAMP_TYPE: i16 = 0x08;
const TRANSACTIONAL: i16 = 0x10;
const CONTROL: i16 = 0x20;
const DELETE_HORIZON: i16 = 0x40;

/// Whose clock the timestamps of a batch are from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum TimestampType {
    /// The producer's.
    CreateTime,
    /// The broker's, at the time of the append.
    LogAppendTime,
}

/// How the records of a batch are compressed. The broker stores what it was sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip.
    Gzip,
    /// Snappy.
    Snappy,
    /// LZ4 frames.
    Lz4,
    /// Zstandard (Produce v7 and later).
    Zstd,
}

/// A batch header as it lies on the wire and on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct BatchHeader {
    /// Offset of the first record.
    pub base_offset: I64,
    /// Bytes that follow this field.
    pub batch_length: I32,
    /// Leader epoch of the leader that appended the batch.
    pub leader_epoch: I32,
    /// Format version; 2.
    pub magic: u8,
    /// CRC-32C of all that follows this field.
    pub crc: U32,
    /// Compression, timestamp type, transactional and control bits.
    pub attributes: I16,
    /// Offset of the last record minus the first one's.
    pub last_offset_delta: I32,
    /// What the records' times are counted from: the first one's, milliseconds since the Unix epoch, or the delete
    /// horizon where the batch has one.
    pub base_timestamp: I64,
    /// Largest timestamp of the batch, milliseconds since the Unix epoch.
    pub max_timestamp: I64,
    /// The idempotent producer, or -1.
    pub producer_id: I64,
    /// Its epoch, or -1.
    pub producer_epoch: I16,
    /// Sequence number of the first record, or -1.
    pub base_sequence: I32,
    /// Number of records.
    pub record_count: I32,
}

const _: () = assert!(size_of::<BatchHeader>() == HEADER_LEN);

impl BatchHeader {
    /// The header at the start of `bytes`, where there are enough; unchecked.
    pub fn peek(bytes: &[u8]) -> Option<BatchHeader> {
        BatchHeader::read_from_prefix(bytes).ok().map(|(header, _)| header)
    }

    /// Offset of the last record.
    pub fn last_offset(&self) -> i64 {
        self.base_offset.get() + i64::from(self.last_offset_delta.get())
    }

    /// Length of header and body together. Only for a header that passed the checks of a batch.
    pub fn total_len(&self) -> usize {
        self.batch_length.get() as usize + LENGTH_OVERHEAD
    }

    /// The compression, or `None` where the bits name none that exists.
    pub fn compression(&self) -> Option<Compression> {
        Some(match self.attributes.get() & COMPRESSION_MASK {
            0 => Compression::None,
            1 => Compression::Gzip,
            2 => Compression::Snappy,
            3 => Compression::Lz4,
            4 => Compression::Zstd,
            _ => return None,
        })
    }

    /// Whose clock the timestamps are from.
    pub fn timestamp_type(&self) -> TimestampType {
        if self.attributes.get() & TIMESTAMP_TYPE == 0 {
            TimestampType::CreateTime
        } else {
            TimestampType::LogAppendTime
        }
    }

    /// Whether the batch belongs to a transaction.
    pub fn is_transactional(&self) -> bool {
        self.attributes.get() & TRANSACTIONAL != 0
    }

    /// Whether the batch is a transaction marker, which only brokers write.
    pub fn is_control(&self) -> bool {
        self.attributes.get() & CONTROL != 0
    }

    /// Whether the batch comes from an idempotent producer.
    pub fn has_producer(&self) -> bool {
        self.producer_id.get() >= 0
    }

    /// Sequence number of the last record; sequences wrap from `i32::MAX` to 0.
    pub fn last_sequence(&self) -> i32 {
        advance_sequence(self.base_sequence.get(), self.last_offset_delta.get())
    }

    /// Until when the records in it that end a key are needed, milliseconds since the Unix epoch, where compaction has
    /// said so.
    pub fn delete_horizon(&self) -> Option<i64> {
        (self.attributes.get() & DELETE_HORIZON != 0).then(|| self.base_timestamp.get())
    }

    /// Marks the base timestamp as the delete horizon.
    pub(super) fn set_delete_horizon(&mut self) {
        self.attributes.set(self.attributes.get() | DELETE_HORIZON);
    }

    /// Marks the timestamps as the broker's.
    pub(super) fn set_log_append_time(&mut self, millis: i64) {
        self.attributes.set(self.attributes.get() | TIMESTAMP_TYPE);
        self.max_timestamp.set(millis);
    }
}

/// The sequence number `by` records after `sequence`.
pub fn advance_sequence(sequence: i32, by: i32) -> i32 {
    ((i64::from(sequence) + i64::from(by)) % (i64::from(i32::MAX) + 1)) as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_wrap_to_zero() {
        assert_eq!(advance_sequence(i32::MAX, 1), 0);
        assert_eq!(advance_sequence(i32::MAX - 1, 3), 1);
        assert_eq!(advance_sequence(7, 0), 7);
    }
}
