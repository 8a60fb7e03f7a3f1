//! Produce: each partition's batch is checked here, appended by its owner, answered once it is durable.

use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::produce_response::{
    LeaderIdAndEpoch, NodeEndpoint, PartitionProduceResponse, TopicProduceResponse,
};
use kafka_protocol::messages::{ProduceRequest, ProduceResponse};
use kafka_protocol::protocol::StrBytes;

use crate::metadata::names;
use crate::partition::Acks;
use crate::protocol::ErrorCode;
use crate::record::{Batch, BatchError, Compression};
use crate::shard::Shard;
use crate::shard::connections::Response;
use crate::shard::event::Effect;
use crate::shard::mesh::{AppendAnswer, Op, OpKind, RequestId};
use crate::shard::requests::{Kind, Origin, Pending};
use crate::types::{Deadline, LogId, Now};

/// Zstandard may be used from this version on.
const ZSTD_VERSION: i16 = 7;
/// Clients are told of the leader that they should have asked from this version on.
const CURRENT_LEADER_VERSION: i16 = 10;
/// Topics are named by id from this version on.
const TOPIC_ID_VERSION: i16 = 13;

/// A Produce request whose appends are under way. Parts that are not answered yet stand as timed out.
pub(in crate::shard) struct Gathering {
    response: ProduceResponse,
    /// Topic and partition of each op in the response, and its log.
    places: Vec<(usize, usize, LogId)>,
    open: usize,
}

impl Gathering {
    /// Takes the outcome of an append; whether it was the last.
    pub(in crate::shard) fn answered(&mut self, part: usize, result: Result<AppendAnswer, ErrorCode>) -> bool {
        let (topic, partition, _) = self.places[part];
        let place = &mut self.response.responses[topic].partition_responses[partition];
        match result {
            Ok(answer) => {
                place.error_code = 0;
                place.base_offset = answer.base_offset;
                place.log_append_time_ms = answer.log_append_time;
                place.log_start_offset = answer.log_start;
            }
            Err(error) => place.error_code = error.code(),
        }
        self.open -= 1;
        self.open == 0
    }
}

/// Why a partition's records are refused before they reach their owner.
struct Refusal {
    error: ErrorCode,
    message: Option<String>,
}

impl From<ErrorCode> for Refusal {
    fn from(error: ErrorCode) -> Refusal {
        Refusal { error, message: None }
    }
}

impl From<BatchError> for Refusal {
    fn from(error: BatchError) -> Refusal {
        let code = match error {
            BatchError::Truncated | BatchError::Crc => ErrorCode::CorruptMessage,
            BatchError::UnknownCompression => ErrorCode::UnsupportedCompressionType,
            BatchError::TrailingBytes | BatchError::Magic(_) | BatchError::Inconsistent(_) => ErrorCode::InvalidRecord,
        };
        Refusal { error: code, message: Some(error.to_string()) }
    }
}

impl Shard {
    pub(in crate::shard) fn produce(&mut self, now: Now, origin: Origin, request: ProduceRequest) {
        let deadline = Deadline::after_millis(now, i64::from(request.timeout_ms));
        let acks = request.acks;
        let refuse_all = if !(-1..=1).contains(&acks) {
            Some(ErrorCode::InvalidRequiredAcks)
        } else if request.transactional_id.is_some() {
            // No transaction was ever begun on this broker.
            Some(ErrorCode::InvalidRequest)
        } else {
            None
        };
        let mut response = ProduceResponse::default();
        let mut ops = Vec::new();
        let mut places = Vec::new();
        let mut refused = None;
        for (t, topic) in request.topic_data.iter().enumerate() {
            let mut partitions = Vec::with_capacity(topic.partition_data.len());
            for (p, data) in topic.partition_data.iter().enumerate() {
                let mut place = PartitionProduceResponse::default()
                    .with_index(data.index)
                    .with_error_code(ErrorCode::RequestTimedOut.code())
                    .with_base_offset(-1)
                    .with_log_append_time_ms(-1)
                    .with_log_start_offset(-1);
                let checked = match refuse_all {
                    Some(error) => Err(error.into()),
                    None => self.check_produced(origin.version, topic, data),
                };
                match checked {
                    Ok(op) => {
                        places.push((t, p, op.0));
                        ops.push(op);
                    }
                    Err(refusal) => {
                        place.error_code = refusal.error.code();
                        place.error_message = refusal.message.map(StrBytes::from_string);
                        refused = Some(refusal.error);
                    }
                }
                partitions.push(place);
            }
            response.responses.push(
                TopicProduceResponse::default()
                    .with_name(topic.name.clone())
                    .with_topic_id(topic.topic_id)
                    .with_partition_responses(partitions),
            );
        }
        let number = if acks == 0 {
            // Nobody waits: ops go out under the number of a request that is over.
            if let Some(error) = refused {
                let reason = format!("a produce request without acknowledgement was refused: {error:?}");
                self.out.push(Effect::Close { conn: origin.slot.conn, reason });
            }
            self.respond_encoded(origin, Ok(Response::new()));
            0
        } else if ops.is_empty() {
            return self.respond(origin, &response.into());
        } else {
            let open = ops.len();
            let kind = Kind::Produce(Gathering { response, places, open });
            self.requests.insert(Pending { origin, deadline, kind })
        };
        let request = RequestId { shard: self.id, number };
        let acks = if acks == -1 { Acks::All } else { Acks::Leader };
        for (part, (log, batch)) in ops.into_iter().enumerate() {
            let kind = OpKind::Append { batch, acks, deadline, since: origin.since };
            self.send_op(now, Op { request, part: part as u32, log, kind });
        }
    }

    /// Answers with what is known of each append, and tells the leaders of what is led elsewhere.
    pub(in crate::shard) fn finish_produce(&mut self, origin: Origin, gathering: Gathering) {
        let Gathering { mut response, places, .. } = gathering;
        if origin.version >= CURRENT_LEADER_VERSION {
            for (topic, partition, log) in places {
                let place = &mut response.responses[topic].partition_responses[partition];
                let error = ErrorCode::ALL.iter().find(|error| error.code() == place.error_code);
                let Some((leader, broker)) = error.and_then(|error| self.leader_to_tell(log, *error)) else { continue };
                place.current_leader =
                    LeaderIdAndEpoch::default().with_leader_id(leader.broker.0.into()).with_leader_epoch(leader.epoch);
                if response.node_endpoints.iter().all(|endpoint| endpoint.node_id.0 != leader.broker.0) {
                    let endpoint = NodeEndpoint::default()
                        .with_node_id(leader.broker.0.into())
                        .with_host(StrBytes::from_string(broker.host.clone()))
                        .with_port(i32::from(broker.port))
                        .with_rack(broker.rack.clone().map(StrBytes::from_string));
                    response.node_endpoints.push(endpoint);
                }
            }
        }
        self.respond(origin, &response.into());
    }

    fn check_produced(
        &self,
        version: i16,
        topic: &TopicProduceData,
        data: &PartitionProduceData,
    ) -> Result<(LogId, Batch), Refusal> {
        let (log, name) = if version >= TOPIC_ID_VERSION {
            let log = self.log_by_id(topic.topic_id, data.index)?;
            (log, self.state.topic_by_id(topic.topic_id).map_or("", |topic| &*topic.name))
        } else {
            (self.log_by_name(&topic.name, data.index)?, &*topic.name.0)
        };
        if names::is_internal(name) {
            // The broker believes what it reads there.
            return Err(ErrorCode::InvalidTopicException.into());
        }
        let records = data.records.as_ref().filter(|records| !records.is_empty());
        let Some(records) = records else {
            let message = Some("a partition was sent without a batch".to_owned());
            return Err(Refusal { error: ErrorCode::InvalidRecord, message });
        };
        let batch = Batch::parse_produced(records)?;
        if batch.header.compression() == Some(Compression::Zstd) && version < ZSTD_VERSION {
            return Err(ErrorCode::UnsupportedCompressionType.into());
        }
        Ok((log, batch))
    }
}
