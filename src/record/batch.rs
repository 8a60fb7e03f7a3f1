//! A checked batch.

use bytes::Bytes;
use zerocopy::{FromBytes, IntoBytes};

use super::header::{BatchHeader, CRC_START, Compression, HEADER_LEN, LENGTH_OVERHEAD, MAGIC};
use crate::types::{LeaderEpoch, Offset};

/// Why bytes are no batch that may be appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// Fewer bytes than a header, or than the header says.
    #[error("the batch is cut short")]
    Truncated,
    /// More bytes than one batch, where exactly one is allowed.
    #[error("there is more than one batch, or bytes follow the batch")]
    TrailingBytes,
    /// Another format than v2.
    #[error("the batch has magic {0}, only 2 is supported")]
    Magic(u8),
    /// The CRC-32C does not match.
    #[error("the batch's CRC does not match its content")]
    Crc,
    /// Counts or lengths contradict each other.
    #[error("the batch contradicts itself: {0}")]
    Inconsistent(&'static str),
    /// The compression bits name no compression.
    #[error("the batch names an unknown compression")]
    UnknownCompression,
}

/// A batch: its header, which the broker owns and may patch, and its records, which it shares with the request
/// frame or the disk buffer that they came in.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The header.
    pub header: BatchHeader,
    /// The records, as sent.
    pub body: Bytes,
}

impl Batch {
    /// Takes the one batch that `records` must consist of, and checks length, magic, CRC and counts.
    ///
    /// # Errors
    /// Says what is wrong with it; nothing of it may be appended then.
    pub fn parse_produced(records: &Bytes) -> Result<Batch, BatchError> {
        let batch = Batch::parse_stored(records)?;
        if batch.header.total_len() != records.len() {
            return Err(BatchError::TrailingBytes);
        }
        batch.check_crc()?;
        let header = &batch.header;
        if header.record_count.get() <= 0 {
            return Err(BatchError::Inconsistent("no records"));
        }
        if header.last_offset_delta.get() != header.record_count.get() - 1 {
            return Err(BatchError::Inconsistent("last offset delta and record count differ"));
        }
        if header.has_producer() && (header.producer_epoch.get() < 0 || header.base_sequence.get() < 0) {
            return Err(BatchError::Inconsistent("a producer id without epoch or sequence"));
        }
        match header.compression() {
            None => return Err(BatchError::UnknownCompression),
            // What is compressed is the consumer's to open: a broker that did would pay for every producer.
            Some(Compression::None) => super::records::check_records(header, &batch.body)?,
            Some(_) => {}
        }
        Ok(batch)
    }

    /// The batch at the start of `bytes`, with no check but of lengths and magic.
    ///
    /// # Errors
    /// [`BatchError::Truncated`] where it does not lie in `bytes` whole.
    pub fn parse_stored(bytes: &Bytes) -> Result<Batch, BatchError> {
        let (header, rest) = BatchHeader::read_from_prefix(bytes).map_err(|_| BatchError::Truncated)?;
        if header.magic != MAGIC {
            return Err(BatchError::Magic(header.magic));
        }
        let length = header.batch_length.get();
        if (length as i64) < (HEADER_LEN - LENGTH_OVERHEAD) as i64 {
            return Err(BatchError::Inconsistent("the length is below a header's"));
        }
        let body_len = length as usize + LENGTH_OVERHEAD - HEADER_LEN;
        if rest.len() < body_len {
            return Err(BatchError::Truncated);
        }
        Ok(Batch { header, body: bytes.slice(HEADER_LEN..HEADER_LEN + body_len) })
    }

    /// Compares the CRC with the content.
    ///
    /// # Errors
    /// [`BatchError::Crc`] where they differ.
    pub fn check_crc(&self) -> Result<(), BatchError> {
        if self.computed_crc() == self.header.crc.get() { Ok(()) } else { Err(BatchError::Crc) }
    }

    pub(super) fn computed_crc(&self) -> u32 {
        let mut digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi);
        digest.update(&self.header.as_bytes()[CRC_START..]);
        digest.update(&self.body);
        digest.finalize() as u32
    }

    /// Gives the batch its place in the log. The CRC does not cover these fields.
    pub fn assign(&mut self, base_offset: Offset, epoch: LeaderEpoch) {
        self.header.base_offset.set(base_offset);
        self.header.leader_epoch.set(epoch);
    }

    /// Stamps the batch with the broker's clock (`message.timestamp.type=LogAppendTime`).
    pub fn stamp(&mut self, wall_ms: i64) {
        self.header.set_log_append_time(wall_ms);
        let crc = self.computed_crc();
        self.header.crc.set(crc);
    }

    /// Bytes of header and body.
    pub fn len(&self) -> usize {
        HEADER_LEN + self.body.len()
    }

    /// Whether the batch has no bytes, which none has.
    pub fn is_empty(&self) -> bool {
        false
    }
}

/// The batches that lie whole in `bytes`, in order; an incomplete one at the end is left out.
///
/// Items are the batches with their positions in `bytes`. Ends early at bytes that are no batch.
pub fn split_batches(bytes: &Bytes) -> Batches {
    Batches { rest: bytes.clone(), position: 0 }
}

/// Iterator of [`split_batches`].
pub struct Batches {
    rest: Bytes,
    position: usize,
}

impl Iterator for Batches {
    type Item = (usize, Batch);

    fn next(&mut self) -> Option<(usize, Batch)> {
        let batch = Batch::parse_stored(&self.rest).ok()?;
        let at = self.position;
        let len = batch.len();
        self.rest = self.rest.slice(len..);
        self.position += len;
        Some((at, batch))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use kafka_protocol::records as kp;

    /// A batch of `values` as a client would send it.
    pub(crate) fn encoded(values: &[&[u8]], timestamp: i64) -> Bytes {
        let records: Vec<kp::Record> = values
            .iter()
            .enumerate()
            .map(|(i, value)| kp::Record {
                transactional: false,
                control: false,
                partition_leader_epoch: -1,
                producer_id: -1,
                producer_epoch: -1,
                timestamp_type: kp::TimestampType::Creation,
                delete_horizon: false,
                offset: i as i64,
                sequence: i as i32,
                timestamp: timestamp + i as i64,
                key: None,
                value: Some(Bytes::copy_from_slice(value)),
                headers: Default::default(),
            })
            .collect();
        let mut out = bytes::BytesMut::new();
        let options = kp::RecordEncodeOptions { version: 2, compression: kp::Compression::None };
        kp::RecordBatchEncoder::encode(&mut out, records.iter(), &options).unwrap();
        out.freeze()
    }

    /// A batch of one record with `len` bytes of value, as it is in a log at `offset`.
    pub(crate) fn test_batch(offset: i64, len: usize, timestamp: i64) -> Batch {
        let mut batch = Batch::parse_produced(&encoded(&[&vec![7; len]], timestamp)).unwrap();
        batch.assign(offset, 1);
        batch
    }

    fn damaged(bytes: &Bytes, at: usize) -> Bytes {
        let mut copy = bytes.to_vec();
        copy[at] ^= 0x40;
        copy.into()
    }

    #[test]
    fn takes_what_a_client_sends() {
        let batch = Batch::parse_produced(&encoded(&[b"a", b"bc"], 1_000)).unwrap();
        assert_eq!(batch.header.record_count.get(), 2);
        assert_eq!(batch.header.max_timestamp.get(), 1_001);
    }

    #[test]
    fn every_flipped_byte_after_the_epoch_is_noticed() {
        let bytes = encoded(&[b"hello", b"world"], 5);
        for at in (8..12).chain(16..bytes.len()) {
            assert!(Batch::parse_produced(&damaged(&bytes, at)).is_err(), "byte {at}");
        }
    }

    #[test]
    fn every_truncation_is_noticed() {
        let bytes = encoded(&[b"hello"], 5);
        for len in 0..bytes.len() {
            assert_eq!(Batch::parse_produced(&bytes.slice(..len)).err(), Some(BatchError::Truncated));
        }
        let twice: Bytes = [&bytes[..], &bytes[..]].concat().into();
        assert_eq!(Batch::parse_produced(&twice).err(), Some(BatchError::TrailingBytes));
        assert_eq!(split_batches(&twice).count(), 2);
        assert_eq!(split_batches(&twice.slice(..twice.len() - 1)).count(), 1);
    }

    #[test]
    fn a_stamped_batch_keeps_a_valid_crc() {
        let mut batch = Batch::parse_produced(&encoded(&[b"x"], 5)).unwrap();
        batch.assign(77, 3);
        batch.check_crc().unwrap();
        batch.stamp(99);
        batch.check_crc().unwrap();
        assert_eq!(batch.header.max_timestamp.get(), 99);
        assert_eq!(batch.header.last_offset(), 77);
    }
}
