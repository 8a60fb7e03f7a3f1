//! Record batches as a client writes and reads them.

use bytes::{Bytes, BytesMut};
use kafka_protocol::records::{
    Compression, Record, RecordBatchDecoder, RecordBatchEncoder, RecordEncodeOptions, TimestampType,
};

/// Where the checksum stands in a batch, and where the bytes begin that it covers.
pub const CRC_AT: usize = 17;
/// Where the number of records stands in a batch.
pub const COUNT_AT: usize = 57;
/// A time that all records carry where a test does not say otherwise, in milliseconds since the Unix epoch.
pub const TIME: i64 = 1_700_000_000_000;

/// A batch to be written.
#[derive(Clone)]
pub struct Batch {
    values: Vec<Bytes>,
    keys: Vec<Option<Bytes>>,
    timestamps: Vec<i64>,
    producer_id: i64,
    producer_epoch: i16,
    base_sequence: i32,
}

impl Batch {
    /// Records with these values, without a producer's identity.
    pub fn of<V: AsRef<[u8]>>(values: &[V]) -> Batch {
        Batch {
            values: values.iter().map(|value| Bytes::copy_from_slice(value.as_ref())).collect(),
            keys: vec![None; values.len()],
            timestamps: vec![TIME; values.len()],
            producer_id: -1,
            producer_epoch: -1,
            base_sequence: -1,
        }
    }

    /// From an idempotent producer.
    pub fn by(mut self, producer_id: i64, producer_epoch: i16, base_sequence: i32) -> Batch {
        (self.producer_id, self.producer_epoch, self.base_sequence) = (producer_id, producer_epoch, base_sequence);
        self
    }

    /// With a key for each record.
    pub fn keyed(mut self, keys: &[String]) -> Batch {
        assert_eq!(keys.len(), self.values.len());
        self.keys = keys.iter().map(|key| Some(Bytes::copy_from_slice(key.as_bytes()))).collect();
        self
    }

    /// With a timestamp for each record.
    pub fn at(mut self, timestamps: &[i64]) -> Batch {
        assert_eq!(timestamps.len(), self.values.len());
        self.timestamps = timestamps.to_vec();
        self
    }

    /// The bytes of the batch.
    pub fn bytes(&self) -> Bytes {
        let records: Vec<Record> = self
            .values
            .iter()
            .zip(&self.timestamps)
            .enumerate()
            .map(|(index, (value, timestamp))| Record {
                transactional: false,
                control: false,
                delete_horizon: false,
                partition_leader_epoch: -1,
                producer_id: self.producer_id,
                producer_epoch: self.producer_epoch,
                timestamp_type: TimestampType::Creation,
                offset: index as i64,
                // The encoder puts records into one batch while offset and sequence go up together, so that a batch
                // without a sequence (-1) has to count from there too.
                sequence: self.base_sequence + index as i32,
                timestamp: *timestamp,
                key: self.keys[index].clone(),
                value: Some(value.clone()),
                headers: Default::default(),
            })
            .collect();
        let mut bytes = BytesMut::new();
        let options = RecordEncodeOptions { version: 2, compression: Compression::None };
        RecordBatchEncoder::encode(&mut bytes, &records, &options).expect("a batch can be encoded");
        bytes.freeze()
    }
}

/// The bytes of a batch with these values.
pub fn batch<V: AsRef<[u8]>>(values: &[V]) -> Bytes {
    Batch::of(values).bytes()
}

/// Writes the right checksum into a batch that a test has changed.
pub fn with_crc(mut bytes: Vec<u8>) -> Bytes {
    let crc = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, &bytes[CRC_AT + 4..]) as u32;
    bytes[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_be_bytes());
    bytes.into()
}

/// Every record of a fetched partition, batch by batch. A batch that is cut off at the end is left out, as every
/// consumer does.
pub fn records(mut bytes: Bytes) -> Vec<Record> {
    let mut whole = 0;
    while bytes.len() >= whole + 12 {
        let length = i32::from_be_bytes(bytes[whole + 8..whole + 12].try_into().expect("four bytes"));
        let end = whole + 12 + usize::try_from(length).expect("a batch length that is not negative");
        if end > bytes.len() {
            break;
        }
        whole = end;
    }
    bytes.truncate(whole);
    let sets = RecordBatchDecoder::decode_all(&mut bytes).expect("batches can be decoded");
    sets.into_iter().flat_map(|set| set.records).collect()
}

/// The values of the records, as text.
pub fn values(bytes: Bytes) -> Vec<String> {
    let text = |record: Record| String::from_utf8(record.value.expect("a value").to_vec()).expect("UTF-8");
    records(bytes).into_iter().map(text).collect()
}
