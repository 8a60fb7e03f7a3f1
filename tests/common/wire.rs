//! A connection that speaks the protocol frame by frame, with nothing of a client's kindness in between.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::produce_response::PartitionProduceResponse;
use kafka_protocol::messages::{
    ApiKey, BrokerId, CreateTopicsRequest, FetchRequest, FetchResponse, FindCoordinatorRequest, InitProducerIdRequest,
    ListOffsetsRequest, MetadataRequest, MetadataResponse, OffsetFetchRequest, ProduceRequest, ProduceResponse,
    RequestHeader, RequestKind, ResponseHeader, ResponseKind, TopicName,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};
use uuid::Uuid;

/// How long a test waits for bytes before it fails.
const READ_LIMIT: Duration = Duration::from_secs(20);

/// The code of an error, as it stands in a response.
pub fn code(error: ResponseError) -> i16 {
    error.code()
}

/// A string of the protocol.
pub fn text(value: &str) -> StrBytes {
    StrBytes::from_string(value.to_owned())
}

/// A topic's name as the protocol has it.
pub fn topic_name(name: &str) -> TopicName {
    TopicName(text(name))
}

/// One connection.
pub struct Wire {
    stream: TcpStream,
    next_correlation: i32,
    client_id: StrBytes,
}

impl Wire {
    /// Connects to `HOST:PORT`.
    pub fn connect(address: &str) -> Wire {
        let stream = TcpStream::connect(address).unwrap_or_else(|error| panic!("connecting to {address}: {error}"));
        stream.set_nodelay(true).expect("TCP_NODELAY");
        stream.set_read_timeout(Some(READ_LIMIT)).expect("a read timeout");
        Wire { stream, next_correlation: 1, client_id: text("wire") }
    }

    /// Connects as a client of this id.
    pub fn connect_as(address: &str, client_id: &str) -> Wire {
        Wire { client_id: text(client_id), ..Wire::connect(address) }
    }

    /// A request and its answer.
    pub fn call<R: Request>(&mut self, version: i16, request: &R) -> R::Response {
        let correlation = self.send(version, request);
        let (answered, response) = self.receive::<R>(version);
        assert_eq!(answered, correlation, "the answer's correlation id");
        response
    }

    /// Sends a request and returns its correlation id.
    pub fn send<R: Request>(&mut self, version: i16, request: &R) -> i32 {
        let frame = self.frame(R::KEY, version, R::header_version(version), |bytes| request.encode(bytes, version));
        self.send_bytes(&frame);
        self.next_correlation - 1
    }

    /// The frame of a request, its length in front, as [`send`](Wire::send) would send it.
    pub fn encode<R: Request>(&mut self, version: i16, request: &R) -> Bytes {
        self.frame(R::KEY, version, R::header_version(version), |bytes| request.encode(bytes, version))
    }

    /// The same for a request whose type is known at run time only.
    pub fn encode_kind(&mut self, api: ApiKey, version: i16, request: &RequestKind) -> Bytes {
        let header = api.request_header_version(version);
        self.frame(api as i16, version, header, |bytes| request.encode(bytes, version))
    }

    /// A request whose type is known at run time only, and its answer.
    pub fn call_kind(&mut self, api: ApiKey, version: i16, request: &RequestKind) -> ResponseKind {
        let frame = self.encode_kind(api, version, request);
        self.send_bytes(&frame);
        let mut answer = self.frame_in().unwrap_or_else(|| panic!("{api:?} v{version}: the connection was closed"));
        let header = ResponseHeader::decode(&mut answer, api.response_header_version(version)).expect("a header");
        assert_eq!(header.correlation_id, self.next_correlation - 1, "{api:?} v{version}: correlation id");
        let response = ResponseKind::decode(api, &mut answer, version)
            .unwrap_or_else(|error| panic!("{api:?} v{version}: the answer cannot be read: {error}"));
        assert!(answer.is_empty(), "{api:?} v{version}: {} bytes after the answer", answer.len());
        response
    }

    fn frame(
        &mut self,
        api: i16,
        version: i16,
        header_version: i16,
        body: impl FnOnce(&mut BytesMut) -> anyhow::Result<()>,
    ) -> Bytes {
        let header = RequestHeader::default()
            .with_request_api_key(api)
            .with_request_api_version(version)
            .with_correlation_id(self.next_correlation)
            .with_client_id(Some(self.client_id.clone()));
        self.next_correlation += 1;
        let mut bytes = BytesMut::new();
        bytes.put_i32(0);
        header.encode(&mut bytes, header_version).expect("the header can be encoded");
        body(&mut bytes).unwrap_or_else(|error| panic!("API {api} v{version}: the request cannot be encoded: {error}"));
        let length = bytes.len() as i32 - 4;
        bytes[..4].copy_from_slice(&length.to_be_bytes());
        bytes.freeze()
    }

    /// Sends bytes as they are.
    pub fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the broker takes the bytes");
    }

    /// Sends bytes to a broker that may close the connection while they are under way.
    pub fn try_send_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// The next answer, which must be to a request of type `R`, with its correlation id.
    pub fn receive<R: Request>(&mut self, version: i16) -> (i32, R::Response) {
        let frame = self.frame_in().expect("the connection was closed instead of an answer");
        decode::<R>(frame, version)
    }

    /// The next frame without its length; nothing when the broker has closed the connection.
    pub fn frame_in(&mut self) -> Option<Bytes> {
        self.try_frame_in().unwrap_or_else(|error| panic!("no answer: {error}"))
    }

    /// The same, with the error where nothing came within the read timeout. A reset counts as closed.
    pub fn try_frame_in(&mut self) -> io::Result<Option<Bytes>> {
        let closed =
            |error: &io::Error| matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset);
        let mut length = [0; 4];
        match self.stream.read_exact(&mut length) {
            Err(error) if closed(&error) => return Ok(None),
            other => other?,
        }
        let mut frame = vec![0; usize::try_from(i32::from_be_bytes(length)).expect("a length that is not negative")];
        match self.stream.read_exact(&mut frame) {
            Err(error) if closed(&error) => return Ok(None),
            other => other?,
        }
        Ok(Some(frame.into()))
    }

    /// Whether the broker closes the connection within `limit`, without a byte before that.
    pub fn is_closed_within(&mut self, limit: Duration) -> bool {
        self.stream.set_read_timeout(Some(limit)).expect("a read timeout");
        let result = self.stream.read(&mut [0]);
        self.stream.set_read_timeout(Some(READ_LIMIT)).expect("a read timeout");
        match result {
            Ok(0) => true,
            Ok(_) => panic!("the broker sent something"),
            Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
        }
    }

    /// The stream itself, for tests that break it.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    // ---- the requests that most tests need ----

    /// Waits until the groups of this name's coordinator can be used; the first to ask has their topic created.
    pub fn await_coordinator(&mut self, group: &str) {
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            let asked = FindCoordinatorRequest::default().with_coordinator_keys(vec![text(group)]);
            let found = self.call(4, &asked).coordinators[0].error_code;
            let asked = OffsetFetchRequest::default().with_group_id(text(group).into()).with_topics(None);
            let loaded = self.call(7, &asked).error_code;
            if (found, loaded) == (0, 0) {
                return;
            }
            let last = Instant::now() >= end;
            assert!(!last, "no coordinator of {group} within 20 s: errors {found} and {loaded}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Metadata of one topic, which is not created by asking.
    pub fn metadata(&mut self, topic: &str) -> MetadataResponse {
        let request = MetadataRequest::default()
            .with_topics(Some(vec![MetadataRequestTopic::default().with_name(Some(topic_name(topic)))]))
            .with_allow_auto_topic_creation(false);
        self.call(12, &request)
    }

    /// Creates a topic, waits until all of its partitions have a leader and returns its id.
    pub fn create_topic(&mut self, name: &str, partitions: i32, configs: &[(&str, &str)]) -> Uuid {
        let configs = configs
            .iter()
            .map(|(key, value)| CreatableTopicConfig::default().with_name(text(key)).with_value(Some(text(value))))
            .collect();
        let topic = CreatableTopic::default()
            .with_name(topic_name(name))
            .with_num_partitions(partitions)
            .with_replication_factor(1)
            .with_configs(configs);
        let request = CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(10_000);
        let response = self.call(7, &request);
        let created = &response.topics[0];
        assert_eq!(created.error_code, 0, "creating {name}: {:?}", created.error_message);
        let id = created.topic_id;
        let end = Instant::now() + Duration::from_secs(10);
        while !self.is_led(name, partitions) {
            assert!(Instant::now() < end, "{name} has leaders within 10 s");
            std::thread::sleep(Duration::from_millis(10));
        }
        id
    }

    /// Whether all partitions of a topic are shown with a leader, and the leaders know of it.
    fn is_led(&mut self, name: &str, partitions: i32) -> bool {
        let shown = self.metadata(name).topics.remove(0).partitions;
        if shown.len() != partitions as usize || shown.iter().any(|p| p.error_code != 0 || p.leader_id.0 < 0) {
            return false;
        }
        let partitions = (0..partitions)
            .map(|partition| ListOffsetsPartition::default().with_partition_index(partition).with_timestamp(-1))
            .collect();
        let asked = ListOffsetsTopic::default().with_name(topic_name(name)).with_partitions(partitions);
        let request = ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![asked]);
        self.call(7, &request).topics[0].partitions.iter().all(|partition| partition.error_code == 0)
    }

    /// Produces one batch with acks=all and returns the partition's answer.
    pub fn produce(&mut self, topic: &str, partition: i32, records: Bytes) -> PartitionProduceResponse {
        let response = self.call(9, &produce_request(topic, &[(partition, records)], -1, 10_000));
        partition_answer(response)
    }

    /// Fetches from one partition, at once.
    pub fn fetch(&mut self, topic: &str, partition: i32, offset: i64) -> PartitionData {
        let response = self.call(12, &fetch_request(topic, &[(partition, offset)], 0, 0));
        assert_eq!(response.error_code, 0);
        only_partition(response)
    }

    /// One offset by timestamp (-1 latest, -2 earliest, -3 maximum): timestamp and offset.
    pub fn list_offset(&mut self, topic: &str, partition: i32, timestamp: i64) -> (i64, i64) {
        let partition = ListOffsetsPartition::default()
            .with_partition_index(partition)
            .with_current_leader_epoch(-1)
            .with_timestamp(timestamp);
        let request = ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![
            ListOffsetsTopic::default().with_name(topic_name(topic)).with_partitions(vec![partition]),
        ]);
        let response = self.call(7, &request);
        let answer = &response.topics[0].partitions[0];
        assert_eq!(answer.error_code, 0, "ListOffsets of {timestamp}");
        (answer.timestamp, answer.offset)
    }

    /// A new producer id with its epoch, without a transactional id.
    pub fn producer_id(&mut self) -> (i64, i16) {
        let request = InitProducerIdRequest::default()
            .with_transactional_id(None)
            .with_transaction_timeout_ms(60_000)
            .with_producer_id((-1).into())
            .with_producer_epoch(-1);
        // A broker that has just started may have to fetch a block of ids first.
        let end = Instant::now() + Duration::from_secs(10);
        loop {
            let response = self.call(4, &request);
            match ResponseError::try_from_code(response.error_code) {
                None => return (response.producer_id.0, response.producer_epoch),
                Some(error) => assert!(error.is_retriable() && Instant::now() < end, "InitProducerId: {error:?}"),
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Reads a frame as the answer to a request of type `R`, to its last byte.
pub fn decode<R: Request>(mut frame: Bytes, version: i16) -> (i32, R::Response) {
    let header = ResponseHeader::decode(&mut frame, R::Response::header_version(version)).expect("a response header");
    let response = R::Response::decode(&mut frame, version).expect("a response");
    assert!(!frame.has_remaining(), "{} bytes after the answer", frame.len());
    (header.correlation_id, response)
}

/// A produce of one topic.
pub fn produce_request(topic: &str, batches: &[(i32, Bytes)], acks: i16, timeout_ms: i32) -> ProduceRequest {
    let partitions = batches
        .iter()
        .map(|(partition, records)| {
            PartitionProduceData::default().with_index(*partition).with_records(Some(records.clone()))
        })
        .collect();
    ProduceRequest::default()
        .with_acks(acks)
        .with_timeout_ms(timeout_ms)
        .with_topic_data(vec![TopicProduceData::default().with_name(topic_name(topic)).with_partition_data(partitions)])
}

/// A fetch of one topic, outside of any session, for versions up to 12 (later ones name a topic by its id).
pub fn fetch_request(topic: &str, partitions: &[(i32, i64)], min_bytes: i32, max_wait_ms: i32) -> FetchRequest {
    let partitions = partitions
        .iter()
        .map(|(partition, offset)| {
            FetchPartition::default()
                .with_partition(*partition)
                .with_fetch_offset(*offset)
                .with_current_leader_epoch(-1)
                .with_partition_max_bytes(8 << 20)
        })
        .collect();
    FetchRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_max_wait_ms(max_wait_ms)
        .with_min_bytes(min_bytes)
        .with_max_bytes(32 << 20)
        .with_session_id(0)
        .with_session_epoch(-1)
        .with_topics(vec![FetchTopic::default().with_topic(topic_name(topic)).with_partitions(partitions)])
}

/// The answer for the one partition of a produce.
pub fn partition_answer(mut response: ProduceResponse) -> PartitionProduceResponse {
    assert_eq!(response.responses.len(), 1, "topics in the answer");
    let mut topic = response.responses.remove(0);
    assert_eq!(topic.partition_responses.len(), 1, "partitions in the answer");
    topic.partition_responses.remove(0)
}

/// The answer for the one partition of a fetch.
pub fn only_partition(mut response: FetchResponse) -> PartitionData {
    assert_eq!(response.responses.len(), 1, "topics in the answer");
    let mut topic = response.responses.remove(0);
    assert_eq!(topic.partitions.len(), 1, "partitions in the answer");
    topic.partitions.remove(0)
}
