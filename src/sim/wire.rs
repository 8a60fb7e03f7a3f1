//! The clients' side of the protocol: request frames out, response frames in, and records that say who they are.

use bytes::{Buf, Bytes, BytesMut};
use kafka_protocol::messages::{RequestHeader, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};
use kafka_protocol::records as kp;

use super::checkers::ValueId;
use super::rng::Rng;

/// A request frame without its length prefix.
pub(super) fn request<R: Request>(version: i16, correlation: i32, body: &R) -> Vec<u8> {
    let header = RequestHeader::default()
        .with_request_api_key(R::KEY)
        .with_request_api_version(version)
        .with_correlation_id(correlation)
        .with_client_id(Some(StrBytes::from_static_str("simulated")));
    let mut out = BytesMut::new();
    header.encode(&mut out, R::header_version(version)).expect("the header can be encoded");
    body.encode(&mut out, version).expect("the request can be encoded");
    out.to_vec()
}

/// The correlation id of a response frame without its length prefix.
pub(super) fn correlation(frame: &Bytes) -> i32 {
    frame.clone().get_i32()
}

/// The body of a response.
pub(super) fn response<M: Decodable + HeaderVersion>(version: i16, mut frame: Bytes) -> M {
    ResponseHeader::decode(&mut frame, M::header_version(version))
        .unwrap_or_else(|error| panic!("protocol: the response's header cannot be read: {error}"));
    let body =
        M::decode(&mut frame, version).unwrap_or_else(|error| panic!("protocol: the response cannot be read: {error}"));
    assert!(frame.is_empty(), "protocol: {} bytes follow the response", frame.len());
    body
}

/// Who sends a batch: producer id, epoch and first sequence, where there is one.
pub(super) type Identity = Option<(i64, i16, i32)>;

/// A batch of one record a value.
pub(super) fn batch(values: &[ValueId], identity: Identity, timestamp: i64) -> Bytes {
    let (producer_id, producer_epoch, sequence) = identity.unwrap_or((-1, -1, 0));
    let records: Vec<kp::Record> = (values.iter().enumerate())
        .map(|(at, value)| kp::Record {
            transactional: false,
            control: false,
            delete_horizon: false,
            partition_leader_epoch: -1,
            producer_id,
            producer_epoch,
            timestamp_type: kp::TimestampType::Creation,
            offset: at as i64,
            sequence: sequence + at as i32,
            timestamp,
            key: Some(Bytes::copy_from_slice(&[key(*value)])),
            value: (!ends_key(*value)).then(|| payload(*value)),
            headers: [(StrBytes::from_static_str("number"), Some(Bytes::copy_from_slice(&value.to_be_bytes())))]
                .into_iter()
                .filter(|_| ends_key(*value))
                .collect(),
        })
        .collect();
    let mut out = BytesMut::new();
    let options = kp::RecordEncodeOptions { version: 2, compression: kp::Compression::None };
    kp::RecordBatchEncoder::encode(&mut out, records.iter(), &options).expect("the batch can be encoded");
    out.freeze()
}

/// The key of a value.
pub(super) fn key(value: ValueId) -> u8 {
    (value % 7) as u8
}

/// Whether the record of a value has none, and so ends its key. Its number is in a header then.
pub(super) fn ends_key(value: ValueId) -> bool {
    value % 5 == 4
}

/// The bytes of a value: its number, then bytes that follow from it.
fn payload(value: ValueId) -> Bytes {
    let mut rng = Rng::new(value);
    let len = match rng.below(24) {
        0..2 => rng.between(4_000, 12_000),
        2..4 => rng.between(500, 2_000),
        _ => rng.between(0, 200),
    };
    let mut bytes = value.to_be_bytes().to_vec();
    let filler = rng.bits() as u8;
    bytes.extend((0..len).map(|at| filler.wrapping_add(at as u8)));
    bytes.into()
}

/// The offsets and values in the records of a fetch; `None` where they are damaged.
pub(super) fn values(records: &Bytes) -> Option<Vec<(i64, ValueId)>> {
    let sets = kp::RecordBatchDecoder::decode_all(&mut records.clone()).ok()?;
    let mut out = Vec::new();
    for record in sets.into_iter().flat_map(|set| set.records) {
        let numbered = record.value.as_ref().or_else(|| record.headers.values().next()?.as_ref())?;
        let value = ValueId::from_be_bytes(numbered.get(..8)?.try_into().ok()?);
        let expected = (!ends_key(value)).then(|| payload(value));
        if record.value != expected || record.key.as_deref() != Some(&[key(value)]) {
            return None;
        }
        out.push((record.offset, value));
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_survive_the_way_there_and_back() {
        let bytes = batch(&[5, 6, 99], Some((7, 0, 3)), 1_000);
        assert_eq!(values(&bytes), Some(vec![(0, 5), (1, 6), (2, 99)]));
        let mut damaged = bytes.to_vec();
        *damaged.last_mut().unwrap() ^= 1;
        assert_eq!(values(&damaged.into()), None);
    }
}
