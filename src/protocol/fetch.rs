//! The Fetch response without a copy of its records.

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::{ApiKey, TopicName};
use kafka_protocol::protocol::StrBytes;
use smallvec::SmallVec;
use uuid::Uuid;

use super::error::ErrorCode;
use super::response::EncodeError;
use super::schema;

/// A Fetch response whose records stay where they are.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct FetchResponse {
    /// Milliseconds for which the client is throttled.
    pub throttle_time_ms: i32,
    /// An error of the whole request (from version 7 on).
    pub error: Option<ErrorCode>,
    /// The fetch session, 0 where there is none (from version 7 on).
    pub session_id: i32,
    /// The topics in the order of the request.
    pub topics: Vec<FetchedTopic>,
    /// Where the leaders named in `current_leader` listen (from version 16 on).
    pub node_endpoints: Vec<NodeEndpoint>,
}

/// What was fetched of one topic.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct FetchedTopic {
    /// The topic's name (up to version 12).
    pub name: TopicName,
    /// The topic's id (from version 13 on).
    pub topic_id: Uuid,
    /// Its partitions in the order of the request.
    pub partitions: Vec<FetchedPartition>,
}

/// What was fetched of one partition.
#[derive(Debug, Clone, PartialEq)]
pub struct FetchedPartition {
    /// The partition's number in its topic.
    pub partition: i32,
    /// Why nothing was fetched.
    pub error: Option<ErrorCode>,
    /// The high watermark, -1 where it is not known.
    pub high_watermark: i64,
    /// The last stable offset, -1 where it is not known.
    pub last_stable_offset: i64,
    /// The log's first offset, -1 where it is not known (from version 5 on).
    pub log_start_offset: i64,
    /// Where the fetcher's log parts from the leader's: the last common epoch and its end (from version 12 on).
    pub diverging_epoch: Option<EpochEnd>,
    /// The leader, where the client has it wrong (from version 12 on).
    pub current_leader: Option<LeaderIdAndEpoch>,
    /// The aborted transactions among the records; `None` unless the client reads committed records only.
    pub aborted_transactions: Option<Vec<AbortedTransaction>>,
    /// The replica that the client should read from, -1 for the leader (from version 11 on).
    pub preferred_read_replica: i32,
    /// Batches back to back.
    pub records: Vec<Bytes>,
}

/// The end of an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EpochEnd {
    /// The epoch.
    pub epoch: i32,
    /// The offset behind its last record.
    pub end_offset: i64,
}

/// The leader of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaderIdAndEpoch {
    /// The broker.
    pub leader_id: i32,
    /// Its leader epoch.
    pub leader_epoch: i32,
}

/// A transaction that was aborted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AbortedTransaction {
    /// Its producer.
    pub producer_id: i64,
    /// Its first offset in the partition.
    pub first_offset: i64,
}

/// Where a broker listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeEndpoint {
    /// The broker.
    pub node_id: i32,
    /// Its host.
    pub host: StrBytes,
    /// Its port.
    pub port: i32,
    /// Its rack.
    pub rack: Option<StrBytes>,
}

impl FetchedPartition {
    /// A partition with nothing fetched and nothing known.
    pub fn new(partition: i32) -> FetchedPartition {
        FetchedPartition {
            partition,
            error: None,
            high_watermark: -1,
            last_stable_offset: -1,
            log_start_offset: -1,
            diverging_epoch: None,
            current_leader: None,
            aborted_transactions: None,
            preferred_read_replica: -1,
            records: Vec::new(),
        }
    }
}

/// Records shorter than this are copied: that is cheaper than a piece of their own for the socket.
const COPIED_BYTES: usize = 512;

/// The frame of a Fetch response, length prefix included, in pieces to be sent back to back. Records are shared, not
/// copied, but for the shortest. `version` is that of the request. Fails only where a length does not fit its field.
pub fn encode_fetch(
    correlation_id: i32,
    version: i16,
    response: &FetchResponse,
) -> Result<SmallVec<[Bytes; 4]>, EncodeError> {
    let partitions: usize = response.topics.iter().map(|topic| topic.partitions.len()).sum();
    let mut writer = Writer {
        meta: BytesMut::with_capacity(64 + 64 * response.topics.len() + 64 * partitions),
        shared: SmallVec::new(),
        version,
        flexible: version >= schema::FETCH.flexible,
        problem: None,
    };
    writer.response(correlation_id, response);
    writer.finish()
}

/// Everything but the shared records, and where these go.
struct Writer<'a> {
    meta: BytesMut,
    /// Pieces of records, each with the position in `meta` that it comes before.
    shared: SmallVec<[(usize, &'a Bytes); 4]>,
    version: i16,
    flexible: bool,
    /// What does not fit the frame.
    problem: Option<String>,
}

impl<'a> Writer<'a> {
    fn response(&mut self, correlation_id: i32, response: &'a FetchResponse) {
        self.meta.put_i32(0);
        self.meta.put_i32(correlation_id);
        self.no_tagged_fields();
        self.meta.put_i32(response.throttle_time_ms);
        if self.version >= 7 {
            self.meta.put_i16(ErrorCode::code_of(response.error));
            self.meta.put_i32(response.session_id);
        }
        self.count(response.topics.len());
        for topic in &response.topics {
            self.topic(topic);
        }
        if self.version >= 16 && !response.node_endpoints.is_empty() {
            self.node_endpoints(&response.node_endpoints);
        } else {
            self.no_tagged_fields();
        }
    }

    fn topic(&mut self, topic: &'a FetchedTopic) {
        if self.version >= 13 {
            self.meta.put_slice(topic.topic_id.as_bytes());
        } else {
            self.string(&topic.name);
        }
        self.count(topic.partitions.len());
        for partition in &topic.partitions {
            self.partition(partition);
        }
        self.no_tagged_fields();
    }

    fn partition(&mut self, partition: &'a FetchedPartition) {
        self.meta.put_i32(partition.partition);
        self.meta.put_i16(ErrorCode::code_of(partition.error));
        self.meta.put_i64(partition.high_watermark);
        self.meta.put_i64(partition.last_stable_offset);
        if self.version >= 5 {
            self.meta.put_i64(partition.log_start_offset);
        }
        match &partition.aborted_transactions {
            None => self.null(),
            Some(aborted) => {
                self.count(aborted.len());
                for transaction in aborted {
                    self.meta.put_i64(transaction.producer_id);
                    self.meta.put_i64(transaction.first_offset);
                    self.no_tagged_fields();
                }
            }
        }
        if self.version >= 11 {
            self.meta.put_i32(partition.preferred_read_replica);
        }
        self.records(&partition.records);
        if self.flexible {
            self.partition_tags(partition);
        }
    }

    fn partition_tags(&mut self, partition: &FetchedPartition) {
        let count = u8::from(partition.diverging_epoch.is_some()) + u8::from(partition.current_leader.is_some());
        self.meta.put_u8(count);
        // Each is a tag, a length, the fields, and an empty list of tagged fields.
        if let Some(end) = partition.diverging_epoch {
            self.meta.put_slice(&[0, 4 + 8 + 1]);
            self.meta.put_i32(end.epoch);
            self.meta.put_i64(end.end_offset);
            self.meta.put_u8(0);
        }
        if let Some(leader) = partition.current_leader {
            self.meta.put_slice(&[1, 4 + 4 + 1]);
            self.meta.put_i32(leader.leader_id);
            self.meta.put_i32(leader.leader_epoch);
            self.meta.put_u8(0);
        }
    }

    fn node_endpoints(&mut self, endpoints: &[NodeEndpoint]) {
        let frame = std::mem::take(&mut self.meta);
        self.count(endpoints.len());
        for endpoint in endpoints {
            self.meta.put_i32(endpoint.node_id);
            self.string(&endpoint.host);
            self.meta.put_i32(endpoint.port);
            match &endpoint.rack {
                None => self.null(),
                Some(rack) => self.string(rack),
            }
            self.no_tagged_fields();
        }
        // A tagged field is preceded by its length, so it is written apart.
        let field = std::mem::replace(&mut self.meta, frame);
        self.meta.put_slice(&[1, 0]);
        self.uvarint(field.len());
        self.meta.put_slice(&field);
    }

    fn records(&mut self, pieces: &'a [Bytes]) {
        let length = pieces.iter().map(Bytes::len).sum();
        self.count(length);
        for piece in pieces {
            if piece.len() < COPIED_BYTES {
                self.meta.put_slice(piece);
            } else {
                self.shared.push((self.meta.len(), piece));
            }
        }
    }

    fn string(&mut self, value: &str) {
        if self.flexible {
            self.uvarint(value.len() + 1);
        } else {
            match i16::try_from(value.len()) {
                Ok(length) => self.meta.put_i16(length),
                Err(_) => self.problem = Some(format!("a string of {} bytes", value.len())),
            }
        }
        self.meta.put_slice(value.as_bytes());
    }

    /// The length of an array or of bytes.
    fn count(&mut self, count: usize) {
        if self.flexible {
            self.uvarint(count + 1);
        } else {
            // One that does not fit makes the whole frame too long, which `finish` finds.
            self.meta.put_u32(count as u32);
        }
    }

    /// An array or a string that is null in a flexible version, an array otherwise.
    fn null(&mut self) {
        if self.flexible {
            self.meta.put_u8(0);
        } else {
            self.meta.put_i32(-1);
        }
    }

    fn no_tagged_fields(&mut self) {
        if self.flexible {
            self.meta.put_u8(0);
        }
    }

    fn uvarint(&mut self, mut value: usize) {
        while value >= 0x80 {
            self.meta.put_u8(value as u8 | 0x80);
            value >>= 7;
        }
        self.meta.put_u8(value as u8);
    }

    fn finish(mut self) -> Result<SmallVec<[Bytes; 4]>, EncodeError> {
        let shared: usize = self.shared.iter().map(|(_, piece)| piece.len()).sum();
        let length = self.meta.len() - 4 + shared;
        let prefix = i32::try_from(length).unwrap_or_else(|_| {
            self.problem = Some(format!("{length} bytes"));
            0
        });
        if let Some(detail) = self.problem {
            return Err(EncodeError { api: ApiKey::Fetch, version: self.version, detail });
        }
        self.meta[..4].copy_from_slice(&prefix.to_be_bytes());
        let meta = self.meta.freeze();
        let mut pieces = SmallVec::with_capacity(2 * self.shared.len() + 1);
        let mut from = 0;
        for (before, piece) in self.shared {
            if before > from {
                pieces.push(meta.slice(from..before));
            }
            pieces.push(piece.clone());
            from = before;
        }
        if from < meta.len() {
            pieces.push(meta.slice(from..));
        }
        Ok(pieces)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::response::{self, ResponseBody};
    use crate::protocol::versions::Api;
    use kafka_protocol::messages as kp;
    use proptest::prelude::*;

    prop_compose! {
        fn partition()(
            partition in any::<i32>(),
            error in proptest::option::of(proptest::sample::select(ErrorCode::ALL)),
            offsets in any::<[i64; 3]>(),
            end in proptest::option::of(any::<(i32, i64)>()),
            leader in proptest::option::of(any::<(i32, i32)>()),
            aborted in proptest::option::of(proptest::collection::vec(any::<(i64, i64)>(), 0..3)),
            preferred_read_replica in any::<i32>(),
            sizes in proptest::collection::vec(prop_oneof![0..3usize, 100..200usize, 400..2_000usize], 0..4),
            fill in any::<u8>(),
        ) -> FetchedPartition {
            FetchedPartition {
                partition,
                error,
                high_watermark: offsets[0],
                last_stable_offset: offsets[1],
                log_start_offset: offsets[2],
                // Kafka's default means that there is none, so it is left out.
                diverging_epoch: end.map(|(epoch, end_offset)| EpochEnd { epoch, end_offset })
                    .filter(|end| *end != EpochEnd { epoch: -1, end_offset: -1 }),
                current_leader: leader.map(|(leader_id, leader_epoch)| LeaderIdAndEpoch { leader_id, leader_epoch })
                    .filter(|leader| *leader != LeaderIdAndEpoch { leader_id: -1, leader_epoch: -1 }),
                aborted_transactions: aborted.map(|all| {
                    all.into_iter()
                        .map(|(producer_id, first_offset)| AbortedTransaction { producer_id, first_offset })
                        .collect()
                }),
                preferred_read_replica,
                records: sizes.into_iter().map(|size| Bytes::from(vec![fill; size])).collect(),
            }
        }
    }

    fn endpoint(node_id: i32, rack: Option<String>) -> NodeEndpoint {
        let host = StrBytes::from_string(format!("broker-{node_id}.example"));
        NodeEndpoint { node_id, host, port: 9092, rack: rack.map(StrBytes::from_string) }
    }

    prop_compose! {
        fn fetch_response()(
            throttle_time_ms in any::<i32>(),
            error in proptest::option::of(proptest::sample::select(ErrorCode::ALL)),
            session_id in any::<i32>(),
            topics in proptest::collection::vec(
                ("[a-z]{1,40}", any::<u128>(), proptest::collection::vec(partition(), 0..4)), 0..4),
            endpoints in proptest::collection::vec((any::<i32>(), proptest::option::of("[a-z]{0,300}")), 0..4),
        ) -> FetchResponse {
            FetchResponse {
                throttle_time_ms,
                error,
                session_id,
                topics: topics.into_iter().map(|(name, id, partitions)| FetchedTopic {
                    name: TopicName(StrBytes::from_string(name)),
                    topic_id: Uuid::from_u128(id),
                    partitions,
                }).collect(),
                node_endpoints: endpoints.into_iter().map(|(id, rack)| endpoint(id, rack)).collect(),
            }
        }
    }

    /// The same response in the generated types, without what `version` lacks.
    fn generated(response: &FetchResponse, version: i16) -> ResponseBody {
        let partition = |p: &FetchedPartition| {
            let mut data = kp::fetch_response::PartitionData::default()
                .with_partition_index(p.partition)
                .with_error_code(ErrorCode::code_of(p.error))
                .with_high_watermark(p.high_watermark)
                .with_last_stable_offset(p.last_stable_offset)
                .with_log_start_offset(p.log_start_offset)
                .with_aborted_transactions(p.aborted_transactions.as_ref().map(|all| {
                    let one = |t: &AbortedTransaction| {
                        kp::fetch_response::AbortedTransaction::default()
                            .with_producer_id(t.producer_id.into())
                            .with_first_offset(t.first_offset)
                    };
                    all.iter().map(one).collect()
                }))
                .with_records(Some(p.records.concat().into()));
            if version >= 11 {
                data = data.with_preferred_read_replica(p.preferred_read_replica.into());
            }
            if let Some(end) = p.diverging_epoch.filter(|_| version >= 12) {
                let end =
                    kp::fetch_response::EpochEndOffset::default().with_epoch(end.epoch).with_end_offset(end.end_offset);
                data = data.with_diverging_epoch(end);
            }
            if let Some(leader) = p.current_leader.filter(|_| version >= 12) {
                let leader = kp::fetch_response::LeaderIdAndEpoch::default()
                    .with_leader_id(leader.leader_id.into())
                    .with_leader_epoch(leader.leader_epoch);
                data = data.with_current_leader(leader);
            }
            data
        };
        let topic = |t: &FetchedTopic| {
            let topic = kp::fetch_response::FetchableTopicResponse::default()
                .with_partitions(t.partitions.iter().map(partition).collect());
            if version >= 13 { topic.with_topic_id(t.topic_id) } else { topic.with_topic(t.name.clone()) }
        };
        let endpoint = |e: &NodeEndpoint| {
            kp::fetch_response::NodeEndpoint::default()
                .with_node_id(e.node_id.into())
                .with_host(e.host.clone())
                .with_port(e.port)
                .with_rack(e.rack.clone())
        };
        let mut body = kp::FetchResponse::default()
            .with_throttle_time_ms(response.throttle_time_ms)
            .with_responses(response.topics.iter().map(topic).collect());
        if version >= 7 {
            body = body.with_error_code(ErrorCode::code_of(response.error)).with_session_id(response.session_id);
        }
        if version >= 16 {
            body = body.with_node_endpoints(response.node_endpoints.iter().map(endpoint).collect());
        }
        body.into()
    }

    proptest! {
        #[test]
        fn is_what_the_generated_encoder_gives(response in fetch_response(), correlation_id in any::<i32>()) {
            let api = Api::by_key(ApiKey::Fetch as i16).unwrap();
            for version in api.min..=api.max {
                let pieces = encode_fetch(correlation_id, version, &response).unwrap();
                let expected = response::encode(correlation_id, version, &generated(&response, version)).unwrap();
                prop_assert_eq!(&pieces.concat(), &expected, "version {}", version);
                prop_assert!(pieces.iter().all(|piece| !piece.is_empty()));
            }
        }
    }

    #[test]
    fn long_records_are_shared() {
        let records = Bytes::from(vec![7; COPIED_BYTES]);
        let mut partition = FetchedPartition::new(0);
        partition.records = vec![records.clone(), records.clone()];
        let topic = FetchedTopic { partitions: vec![partition], ..FetchedTopic::default() };
        let response = FetchResponse { topics: vec![topic], ..FetchResponse::default() };
        let pieces = encode_fetch(1, 17, &response).unwrap();
        let shared = pieces.iter().filter(|piece| piece.as_ptr() == records.as_ptr());
        assert_eq!(shared.count(), 2);
    }

    #[test]
    fn a_name_too_long_for_the_version_is_an_error() {
        let name = TopicName(StrBytes::from_string("a".repeat(40_000)));
        let topic = FetchedTopic { name, ..FetchedTopic::default() };
        let response = FetchResponse { topics: vec![topic], ..FetchResponse::default() };
        let error = encode_fetch(1, 11, &response).unwrap_err();
        assert_eq!(error.detail, "a string of 40000 bytes");
    }
}
