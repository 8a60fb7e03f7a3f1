//! Records to batches as they are sent.

use bytes::{Bytes, BytesMut};
use kafka_protocol::protocol::StrBytes;
use kafka_protocol::records::{
    self, NO_PARTITION_LEADER_EPOCH, NO_PRODUCER_EPOCH, NO_PRODUCER_ID, NO_SEQUENCE, RecordBatchEncoder,
    RecordEncodeOptions, TimestampType,
};

use super::super::client::Failure;
use super::super::setting::Setting;
use super::input::Input;
use crate::record::{Compression, compress};

/// Who writes a batch: what keeps it from being written twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Producer {
    pub(super) id: i64,
    pub(super) epoch: i16,
}

/// The bytes of a batch with these records. With a producer, `sequence` is that of the first.
///
/// # Errors
/// Where a compressing library fails.
pub(super) fn encode(
    inputs: &[Input],
    headers: &[Setting],
    timestamp: i64,
    compression: Compression,
    producer: Option<(Producer, i32)>,
) -> Result<Bytes, Failure> {
    let all: Vec<records::Record> = inputs
        .iter()
        .enumerate()
        .map(|(at, input)| {
            let mut record = records::Record {
                transactional: false,
                control: false,
                delete_horizon: false,
                partition_leader_epoch: NO_PARTITION_LEADER_EPOCH,
                producer_id: producer.map_or(NO_PRODUCER_ID, |(producer, _)| producer.id),
                producer_epoch: producer.map_or(NO_PRODUCER_EPOCH, |(producer, _)| producer.epoch),
                timestamp_type: TimestampType::Creation,
                offset: at as i64,
                // The encoder gives one batch to records whose sequences rise with their offsets; without a producer
                // the field says so all the same.
                sequence: producer.map_or(NO_SEQUENCE, |(_, sequence)| sequence).wrapping_add(at as i32),
                timestamp,
                key: input.key.clone(),
                value: input.value.clone(),
                headers: Default::default(),
            };
            for header in headers {
                let value = Bytes::copy_from_slice(header.value.as_bytes());
                record.headers.insert(StrBytes::from_string(header.name.clone()), Some(value));
            }
            record
        })
        .collect();
    let options = RecordEncodeOptions { version: 2, compression: named(compression) };
    let close = |records: &mut BytesMut, out: &mut BytesMut, _| -> anyhow::Result<()> {
        out.extend_from_slice(&compress(compression, records.to_vec())?);
        Ok(())
    };
    let mut bytes = BytesMut::new();
    RecordBatchEncoder::encode_with_custom_compression(&mut bytes, &all, &options, Some(close))
        .map_err(|error| Failure::Failed(format!("the records cannot be encoded: {error:#}")))?;
    Ok(bytes.freeze())
}

fn named(compression: Compression) -> records::Compression {
    match compression {
        Compression::None => records::Compression::None,
        Compression::Gzip => records::Compression::Gzip,
        Compression::Snappy => records::Compression::Snappy,
        Compression::Lz4 => records::Compression::Lz4,
        Compression::Zstd => records::Compression::Zstd,
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::setting::setting;
    use super::*;
    use crate::record::{Batch, records};

    #[test]
    fn a_batch_is_one_that_brokers_take() {
        let input = |line, key: Option<&'static str>, value: &'static str| Input {
            line,
            key: key.map(|key| Bytes::from_static(key.as_bytes())),
            value: Some(Bytes::from_static(value.as_bytes())),
            bytes_read: 0,
        };
        let inputs = [input(1, None, "a"), input(2, Some("k"), "b"), input(3, None, "")];
        let header = setting("h=v").unwrap();
        for compression in
            [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd]
        {
            for producer in [None, Some((Producer { id: 7, epoch: 1 }, i32::MAX - 1))] {
                let bytes = encode(&inputs, std::slice::from_ref(&header), 1_234, compression, producer).unwrap();
                let batch = Batch::parse_produced(&bytes).unwrap();
                assert_eq!(batch.header.record_count.get(), 3);
                assert_eq!(batch.header.base_sequence.get(), producer.map_or(-1, |(_, sequence)| sequence));
                let body = batch.open().unwrap();
                let read: Vec<_> = records(&batch.header, &body).collect();
                assert_eq!((read[1].key, read[1].timestamp(&batch.header)), (Some(&b"k"[..]), 1_234));
                assert_eq!(read[1].contents(), (Some(&b"b"[..]), vec![(&b"h"[..], Some(&b"v"[..]))]));
            }
        }
    }
}
