//! FindCoordinator: which broker keeps a group. The topic of all groups is created with the first question.

use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::{
    BrokerId, CreateTopicsRequest, FindCoordinatorRequest, FindCoordinatorResponse, TopicName,
};
use kafka_protocol::protocol::StrBytes;

use crate::group::OFFSETS_TOPIC;
use crate::limits::{AUTO_CREATE_MS, MAX_GROUP_BATCH_BYTES};
use crate::protocol::ErrorCode;
use crate::shard::Shard;
use crate::shard::mesh::{Question, RequestId};
use crate::shard::requests::{Kind, Origin, Pending};
use crate::types::{Deadline, Now};

/// Keys that are groups.
const GROUP: i8 = 0;

/// Keys that are transactional ids.
const TRANSACTION: i8 = 1;

/// Several keys may be asked about from this version on.
const BATCH_VERSION: i16 = 4;

/// The version of the request that creates the topic: nobody reads its answer, so one with little in it.
const CREATE_VERSION: i16 = 4;

/// Kafka's `offsets.topic.segment.bytes`.
const SEGMENT_BYTES: &str = "104857600";

impl Shard {
    pub(in crate::shard) fn find_coordinator(&mut self, now: Now, origin: Origin, request: FindCoordinatorRequest) {
        if request.key_type != GROUP || self.state.topic(OFFSETS_TOPIC).is_some() {
            return self.respond_coordinators(origin, &request);
        }
        let deadline = Deadline::after_millis(now, AUTO_CREATE_MS);
        let kind = Kind::FindCoordinator(Box::new(request));
        let number = self.requests.insert(Pending { origin, deadline, kind });
        let token = self.rng.next();
        let question = Question::CreateTopics { request: Box::new(offsets_topic()), version: CREATE_VERSION, token };
        self.ask(now, RequestId { shard: self.id, number }, deadline, question);
    }

    pub(in crate::shard) fn respond_coordinators(&mut self, origin: Origin, request: &FindCoordinatorRequest) {
        let body = if origin.version >= BATCH_VERSION {
            let keys = request.coordinator_keys.iter();
            let found = keys.map(|key| self.coordinator_of(request.key_type, key).with_key(key.clone()));
            FindCoordinatorResponse::default().with_coordinators(found.collect())
        } else {
            let found = self.coordinator_of(request.key_type, &request.key);
            FindCoordinatorResponse::default()
                .with_error_code(found.error_code)
                .with_error_message(found.error_message)
                .with_node_id(found.node_id)
                .with_host(found.host)
                .with_port(found.port)
        };
        self.respond(origin, &body.into());
    }

    fn coordinator_of(&self, key_type: i8, key: &str) -> Coordinator {
        let nobody = |error: ErrorCode, message: &'static str| {
            Coordinator::default()
                .with_error_code(error.code())
                .with_error_message(Some(StrBytes::from_static_str(message)))
                .with_node_id(BrokerId(-1))
                .with_port(-1)
        };
        if key_type == TRANSACTION {
            // librdkafka asks again until its time is up, whatever the error but for those of authorization. Of these,
            // this is the one with which the Java client shows the message too.
            return nobody(ErrorCode::ClusterAuthorizationFailed, "This broker has no transactions.");
        }
        if key_type != GROUP {
            // As Kafka where it has no such coordinator: the client gives up rather than ask for ever.
            return nobody(ErrorCode::InvalidRequest, "This broker coordinates groups only.");
        }
        let leader = self.group_log(key).and_then(|log| self.leaders.get(&log));
        match leader.and_then(|leader| self.state.broker(leader.broker)) {
            Some(broker) => Coordinator::default()
                .with_error_message(None)
                .with_node_id(BrokerId(broker.id.0))
                .with_host(StrBytes::from_string(broker.host.clone()))
                .with_port(i32::from(broker.port)),
            None => nobody(ErrorCode::CoordinatorNotAvailable, "The coordinator is not available."),
        }
    }
}

/// The topic of all groups. What its number of partitions is, the broker's configuration says.
fn offsets_topic() -> CreateTopicsRequest {
    let config = |name: &'static str, value: StrBytes| {
        CreatableTopicConfig::default().with_name(StrBytes::from_static_str(name)).with_value(Some(value))
    };
    let largest = StrBytes::from_string(MAX_GROUP_BATCH_BYTES.to_string());
    let topic = CreatableTopic::default()
        .with_name(TopicName(StrBytes::from_static_str(OFFSETS_TOPIC)))
        .with_num_partitions(-1)
        .with_replication_factor(-1)
        .with_configs(vec![
            config("cleanup.policy", StrBytes::from_static_str("compact")),
            config("max.message.bytes", largest),
            config("segment.bytes", StrBytes::from_static_str(SEGMENT_BYTES)),
        ]);
    CreateTopicsRequest::default().with_topics(vec![topic])
}

#[cfg(test)]
mod tests {
    use super::super::admin_tests::{config, state};
    use super::super::create_topics;
    use super::*;
    use crate::metadata::Command;

    #[test]
    fn the_topic_of_all_groups_can_be_created() {
        let plan = create_topics::plan(&state(1, &[]), &config(), &[], &offsets_topic(), CREATE_VERSION, &|_| {
            uuid::Uuid::from_u128(7)
        });
        let Some(Command::CreateTopics { topics }) = plan.command else { panic!("{:?}", plan.response) };
        assert_eq!(topics[0].partitions.len(), config().groups.offsets_partitions as usize);
        assert_eq!(topics[0].configs["max.message.bytes"], MAX_GROUP_BATCH_BYTES.to_string());
    }
}
