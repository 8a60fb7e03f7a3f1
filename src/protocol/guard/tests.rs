//! The schemas against the generated decoders, which were made from Kafka's own definitions: frames are made by
//! schema, decoded, encoded again, and must be what they were.

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::{ApiKey, RequestHeader};
use kafka_protocol::protocol::{Encodable, StrBytes};
use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestRng};

use super::*;
use crate::protocol::request::{self, FrameError, RequestBody};
use crate::protocol::schema::Schema;
use crate::protocol::versions::APIS;

/// Writes frames that hold something of everything a schema allows.
struct Maker<'a> {
    rng: &'a mut TestRng,
    out: Vec<u8>,
    version: i16,
    flexible: bool,
}

impl Maker<'_> {
    fn below(&mut self, bound: u32) -> u32 {
        self.rng.next_u32() % bound
    }

    fn uvarint(&mut self, mut value: usize) {
        while value >= 0x80 {
            self.out.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.out.push(value as u8);
    }

    fn length(&mut self, length: Option<usize>, legacy_bytes: usize) {
        if self.flexible {
            self.uvarint(length.map_or(0, |n| n + 1));
        } else {
            let length = length.map_or(-1, |n| n as i64);
            self.out.extend_from_slice(&length.to_be_bytes()[8 - legacy_bytes..]);
        }
    }

    fn value(&mut self, kind: Kind, nullable: bool) {
        let null = nullable && self.below(4) == 0;
        match kind {
            // A boolean, or a number that is as good as any other.
            Kind::Fixed(1) => {
                let bit = self.below(2) as u8;
                self.out.push(bit);
            }
            Kind::Fixed(size) => {
                for _ in 0..size {
                    let byte = self.below(256) as u8;
                    self.out.push(byte);
                }
            }
            Kind::String | Kind::Bytes => {
                let bytes = if matches!(kind, Kind::String) { 2 } else { 4 };
                let length = [0, 1, 9, 130][self.below(4) as usize];
                self.length((!null).then_some(length), bytes);
                if !null {
                    self.out.extend(std::iter::repeat_n(b'x', length));
                }
            }
            Kind::Array(element) => {
                let count = self.below(4) as usize;
                self.length((!null).then_some(count), 4);
                for _ in 0..if null { 0 } else { count } {
                    self.value(*element, false);
                }
            }
            Kind::Struct(fields) => {
                if nullable {
                    self.out.push(if null { 0xff } else { 1 });
                }
                if !null {
                    self.structure(fields);
                }
            }
        }
    }

    fn structure(&mut self, fields: &'static [Field]) {
        let version = self.version;
        for field in fields.iter().filter(|field| field.tag.is_none() && field.is_in(version)) {
            self.value(field.kind, version >= field.nullable);
        }
        if !self.flexible {
            return;
        }
        let mut tagged: Vec<(u32, Vec<u8>)> = Vec::new();
        for field in fields.iter().filter(|field| field.is_in(version)) {
            if let Some(tag) = field.tag
                && self.below(2) == 0
            {
                let before = std::mem::take(&mut self.out);
                self.value(field.kind, false);
                tagged.push((tag, std::mem::replace(&mut self.out, before)));
            }
        }
        tagged.sort();
        // Tags of a future version, which must be passed over.
        for tag in 0..self.below(3) {
            tagged.push((1_000 + tag, vec![0xee; self.below(200) as usize]));
        }
        self.uvarint(tagged.len());
        for (tag, value) in tagged {
            self.uvarint(tag as usize);
            self.uvarint(value.len());
            self.out.extend(value);
        }
    }
}

fn body(schema: &Schema, version: i16, rng: &mut TestRng) -> Vec<u8> {
    let flexible = version >= schema.flexible;
    let mut maker = Maker { rng, out: Vec::new(), version, flexible };
    maker.structure(schema.fields);
    maker.out
}

fn header(api: &Api, version: i16) -> BytesMut {
    let mut frame = BytesMut::new();
    let header = RequestHeader::default()
        .with_request_api_key(api.key as i16)
        .with_request_api_version(version)
        .with_correlation_id(77)
        .with_client_id(Some(StrBytes::from_static_str("a client")));
    header.encode(&mut frame, api.key.request_header_version(version)).unwrap();
    frame
}

fn frame(api: &Api, version: i16, body: &[u8]) -> Bytes {
    let mut frame = header(api, version);
    frame.extend_from_slice(body);
    frame.freeze()
}

fn rng(seed: u8) -> TestRng {
    TestRng::from_seed(RngAlgorithm::ChaCha, &[seed; 32])
}

fn every_version() -> impl Iterator<Item = (&'static Api, i16)> {
    APIS.iter().flat_map(|api| (api.min..=api.max).map(move |version| (api, version)))
}

fn api(key: ApiKey) -> &'static Api {
    Api::by_key(key as i16).unwrap()
}

fn problem(key: ApiKey, version: i16, body: &[u8]) -> Problem {
    check(&frame(api(key), version, body), api(key), version).unwrap_err().problem
}

#[test]
fn schemas_are_those_of_the_generated_decoders() {
    for (api, version) in every_version() {
        for seed in 0..100 {
            let body = body(api.schema, version, &mut rng(seed));
            let frame = frame(api, version, &body);
            let request = request::decode(frame).unwrap_or_else(|error| panic!("{error} ({body:02x?})"));
            assert_eq!(request.version, version);
            assert_eq!(request.correlation_id, 77);
            assert_eq!(request.client_id.as_deref(), Some("a client"));
            assert_eq!(request.body.api(), api.key);
            let again = encode(&request.body, version);
            assert!(again == body, "{:?} version {version}: {body:02x?} became {again:02x?}", api.key);
        }
    }
}

/// `body` as Kafka's clients encode it.
fn encode(body: &RequestBody, version: i16) -> Vec<u8> {
    let mut out = BytesMut::new();
    body.encode(&mut out, version).unwrap();
    out.to_vec()
}

#[test]
fn a_frame_cut_short_is_refused() {
    for (api, version) in every_version() {
        let body = body(api.schema, version, &mut rng(1));
        let frame = frame(api, version, &body);
        for length in 0..frame.len() {
            request::decode(frame.slice(..length)).expect_err("part of a frame");
        }
    }
}

#[test]
fn bytes_behind_the_body_are_ignored() {
    for (api, version) in every_version() {
        let mut body = body(api.schema, version, &mut rng(1));
        let exact = request::decode(frame(api, version, &body)).expect("a good frame");
        body.extend_from_slice(&[0, 1, 2]);
        let longer = request::decode(frame(api, version, &body)).expect("a good frame with bytes behind it");
        assert_eq!(longer.body, exact.body);
    }
}

#[test]
fn mutated_frames_do_no_harm() {
    for (api, version) in every_version() {
        let frame = frame(api, version, &body(api.schema, version, &mut rng(2)));
        for at in FIXED_HEADER..frame.len() {
            // Within a string or bytes one place is as good as the next.
            if matches!(frame[at - 1..=at], [b'x', b'x'] | [0xee, 0xee]) {
                continue;
            }
            for change in [
                &[frame[at] ^ 0xff][..],
                &[frame[at] ^ 1],
                &[0x80],
                &[0xff, 0xff],
                &[0x7f, 0xff],
                &[0x7f, 0xff, 0xff, 0xff],
                &[0xff, 0xff, 0xff, 0xff],
                &[0x80, 0x00, 0x00, 0x00],
                &[0xff, 0xff, 0xff, 0xff, 0x0f],
                &[0xff, 0xff, 0xff, 0xff, 0x7f],
                &[0x80, 0x80, 0x80, 0x80, 0x80, 0x00],
            ] {
                let mut mutated = frame.to_vec();
                let end = (at + change.len()).min(frame.len());
                mutated[at..end].copy_from_slice(&change[..end - at]);
                // A panic or an abort fails the test; being another legal request is fine.
                let _ = request::decode(Bytes::from(mutated));
            }
        }
    }
}

proptest! {
    #[test]
    fn noise_does_no_harm(index in 0..APIS.len(), step in any::<u16>(), noise in proptest::collection::vec(any::<u8>(), 0..300)) {
        let api = &APIS[index];
        let version = api.min + (step % (api.max - api.min + 1) as u16) as i16;
        let _ = request::decode(frame(api, version, &noise));
        let _ = request::decode(Bytes::from(noise));
    }
}

#[test]
fn counts_and_lengths_must_be_backed_by_bytes() {
    // 2^31 - 1 topics in 8 bytes.
    assert_eq!(
        problem(ApiKey::Metadata, 1, &[0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0]),
        Problem::Count { count: i32::MAX as usize, left: 4 }
    );
    // The same with compact lengths: 2^32 - 2 topics.
    assert_eq!(
        problem(ApiKey::Metadata, 12, &[0xff, 0xff, 0xff, 0xff, 0x0f, 1, 0, 0]),
        Problem::Count { count: u32::MAX as usize - 1, left: 3 }
    );
    assert_eq!(problem(ApiKey::Metadata, 1, &[0xff, 0xff, 0xff, 0xfe]), Problem::Negative(-2));
    assert_eq!(problem(ApiKey::Metadata, 12, &[0xff, 0xff, 0xff, 0xff, 0x1f]), Problem::Varint);
    // A name of 300 bytes of which 1 is there.
    assert_eq!(problem(ApiKey::Metadata, 1, &[0, 0, 0, 1, 1, 44, b'a']), Problem::Short { needed: 300, left: 1 });
    // 2^31 - 1 bytes of records.
    let produce = [255, 255, 0, 1, 0, 0, 0, 9, 0, 0, 0, 1, 0, 1, b't', 0, 0, 0, 1, 0, 0, 0, 0, 0x7f, 255, 255, 255];
    assert_eq!(problem(ApiKey::Produce, 3, &produce), Problem::Short { needed: i32::MAX as usize, left: 0 });
}

#[test]
fn the_elements_of_a_request_are_bounded() {
    let topics = |count: usize| {
        let mut body = (count as i32).to_be_bytes().to_vec();
        body.resize(4 + 2 * count, 0);
        body
    };
    let most = topics(MAX_REQUEST_ELEMENTS);
    check(&frame(api(ApiKey::Metadata), 1, &most), api(ApiKey::Metadata), 1).unwrap();
    assert_eq!(problem(ApiKey::Metadata, 1, &topics(MAX_REQUEST_ELEMENTS + 1)), Problem::TooMany);
    // Tagged fields count as well: no topics, three booleans, and one tagged field too many.
    let mut body = vec![1, 0, 0];
    let tagged = MAX_REQUEST_ELEMENTS + 1;
    body.extend([tagged as u8 | 0x80, (tagged >> 7) as u8 | 0x80, (tagged >> 14) as u8]);
    body.resize(body.len() + 2 * tagged, 0);
    assert_eq!(problem(ApiKey::Metadata, 12, &body), Problem::TooMany);
}

#[test]
fn null_is_allowed_where_kafka_allows_it() {
    assert_eq!(problem(ApiKey::Metadata, 0, &[0xff; 4]), Problem::Null);
    assert!(check(&frame(api(ApiKey::Metadata), 1, &[0xff; 4]), api(ApiKey::Metadata), 1).is_ok());
    // A topic without a name but with an id, from version 10 on.
    let mut body = vec![2];
    body.extend([7; 16]);
    body.extend([0, 0, 0, 0, 0]);
    assert!(check(&frame(api(ApiKey::Metadata), 12, &body), api(ApiKey::Metadata), 12).is_ok());
    assert_eq!(problem(ApiKey::Metadata, 9, &[2, 0, 0, 0, 0, 0]), Problem::Null);
}

#[test]
fn a_known_tagged_field_must_be_as_long_as_it_says() {
    // A Fetch request whose cluster id, tag 0, is followed by a stray byte within its field.
    let mut body = [0; 21].to_vec();
    body.extend([1, 1, 1]);
    body.extend([1, 0, 3, 2, b'a', b'b']);
    assert_eq!(problem(ApiKey::Fetch, 15, &body), Problem::TagLength(1));
}

#[test]
fn unknown_requests_are_named() {
    let unknown = [0x7f, 0xff, 0, 3, 0, 0, 0, 5, 0xff, 0xff];
    let error = request::decode(Bytes::copy_from_slice(&unknown)).unwrap_err();
    assert_eq!(error, FrameError::UnsupportedApi { api_key: 0x7fff, version: 3, correlation_id: 5 });

    let newer = [0, 18, 0, 99, 0, 0, 0, 5];
    let error = request::decode(Bytes::copy_from_slice(&newer)).unwrap_err();
    assert_eq!(error, FrameError::UnsupportedVersion { api: ApiKey::ApiVersions, version: 99, correlation_id: 5 });

    // Announced, yet not answered.
    let old_produce = [0, 0, 0, 2, 0, 0, 0, 5];
    let error = request::decode(Bytes::copy_from_slice(&old_produce)).unwrap_err();
    assert_eq!(error, FrameError::UnsupportedVersion { api: ApiKey::Produce, version: 2, correlation_id: 5 });

    let error = request::decode(Bytes::from_static(b"GET / ")).unwrap_err();
    assert_eq!(error, FrameError::Truncated { length: 6 });
}
