//! Metadata: where the partitions are.

use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{self as kafka, CreateTopicsRequest, MetadataRequest, MetadataResponse, TopicName};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::{CLUSTER_OPERATIONS, OPERATIONS_NOT_ASKED, TOPIC_OPERATIONS};
use crate::config::BrokerConfig;
use crate::metadata::state::Partition;
use crate::metadata::{State, Topic, names};
use crate::protocol::ErrorCode;
use crate::types::{BrokerId, LeaderEpoch, LogId, Set};

/// First version that asks for topics by id.
const FIRST_WITH_IDS: i16 = 12;

/// First version that may ask for no topics: before, an empty list means all.
const FIRST_WITH_NONE: i16 = 1;

/// The version of the request that [`topics_to_create`] makes: nobody reads its answer, so one with little in it.
pub const AUTO_CREATE_VERSION: i16 = 4;

/// What the broker that answers knows of the cluster beside the metadata.
#[derive(Clone, Copy)]
pub struct Seen<'a> {
    /// Who leads a log, and in which epoch; none where nobody is known to.
    pub leaders: &'a dyn Fn(LogId) -> Option<(BrokerId, LeaderEpoch)>,
    /// Whether a broker is there.
    pub alive: &'a dyn Fn(BrokerId) -> bool,
    /// Whether a broker's replica of a log holds what the leader's does.
    pub in_sync: &'a dyn Fn(LogId, BrokerId) -> bool,
}

/// What one entry of a request asks for.
#[derive(PartialEq, Eq, Hash, Clone, Copy)]
enum Target<'a> {
    Name(&'a str),
    Id(Uuid),
    /// An id or no name, in a version that has no such thing.
    Malformed,
}

/// The answer. Topics in the order of the request; all of them ordered by name; brokers that are not there are left
/// out. The broker names itself as the controller: whatever is for the controller may be sent to any broker.
pub fn respond(
    state: &State,
    config: &BrokerConfig,
    request: &MetadataRequest,
    version: i16,
    seen: &Seen<'_>,
) -> MetadataResponse {
    let topic_operations =
        if request.include_topic_authorized_operations { TOPIC_OPERATIONS } else { OPERATIONS_NOT_ASKED };
    let known = |topic: &Topic| describe(state, topic, seen).with_topic_authorized_operations(topic_operations);
    let topics = match named(request, version) {
        None => state.topics().map(|topic| known(topic)).collect(),
        Some(targets) => targets
            .into_iter()
            .map(|target| match target {
                Target::Name(name) => match state.topic(name) {
                    Some(topic) => known(topic),
                    None => missing(name, name_error(state, config, request, name)),
                },
                Target::Id(id) => match state.topic_by_id(id) {
                    Some(topic) => known(topic),
                    None => MetadataResponseTopic::default()
                        .with_error_code(ErrorCode::UnknownTopicId.code())
                        .with_name(None)
                        .with_topic_id(id),
                },
                Target::Malformed => missing("", ErrorCode::InvalidRequest),
            })
            .collect(),
    };
    let brokers = state.brokers().filter(|broker| (seen.alive)(broker.id)).map(|broker| {
        MetadataResponseBroker::default()
            .with_node_id(broker.id.0.into())
            .with_host(StrBytes::from_string(broker.host.clone()))
            .with_port(i32::from(broker.port))
            .with_rack(broker.rack.clone().map(StrBytes::from_string))
    });
    MetadataResponse::default()
        .with_brokers(brokers.collect())
        .with_cluster_id(Some(StrBytes::from_string(config.cluster_id.clone())))
        .with_controller_id(config.broker_id.0.into())
        .with_topics(topics)
        .with_cluster_authorized_operations(match request.include_cluster_authorized_operations {
            true => CLUSTER_OPERATIONS,
            false => OPERATIONS_NOT_ASKED,
        })
}

/// The topics that are to be created before the request is answered: those that it names and that are not there,
/// where both the broker and the client want that. None where there are none.
pub fn topics_to_create(
    state: &State,
    config: &BrokerConfig,
    request: &MetadataRequest,
    version: i16,
) -> Option<CreateTopicsRequest> {
    if !auto_create(config, request) {
        return None;
    }
    let topics: Vec<_> = named(request, version)?
        .into_iter()
        .filter_map(|target| match target {
            Target::Name(name) if creatable(state, name) => Some(
                CreatableTopic::default()
                    .with_name(TopicName(StrBytes::from_string(name.to_owned())))
                    .with_num_partitions(-1)
                    .with_replication_factor(-1),
            ),
            Target::Name(_) | Target::Id(_) | Target::Malformed => None,
        })
        .collect();
    (!topics.is_empty()).then(|| CreateTopicsRequest::default().with_topics(topics))
}

fn auto_create(config: &BrokerConfig, request: &MetadataRequest) -> bool {
    config.auto_create_topics && request.allow_auto_topic_creation
}

fn creatable(state: &State, name: &str) -> bool {
    names::validate(name).is_ok() && state.topic(name).is_none() && state.colliding(name).is_none()
}

/// What the request asks for by name or id, each once; `None` where it asks for everything.
fn named(request: &MetadataRequest, version: i16) -> Option<Vec<Target<'_>>> {
    let topics = request.topics.as_ref()?;
    if topics.is_empty() && version < FIRST_WITH_NONE {
        return None;
    }
    let mut seen = Set::default();
    Some(topics.iter().map(|topic| target(topic, version)).filter(|&target| seen.insert(target)).collect())
}

fn target(topic: &MetadataRequestTopic, version: i16) -> Target<'_> {
    match &topic.name {
        _ if version >= FIRST_WITH_IDS && !topic.topic_id.is_nil() => Target::Id(topic.topic_id),
        Some(name) if topic.topic_id.is_nil() => Target::Name(name),
        Some(_) | None => Target::Malformed,
    }
}

/// Why a topic is not there. A name that its creation would refuse is not worth trying again.
fn name_error(state: &State, config: &BrokerConfig, request: &MetadataRequest, name: &str) -> ErrorCode {
    let never = names::validate(name).is_err() || (auto_create(config, request) && !creatable(state, name));
    if never { ErrorCode::InvalidTopicException } else { ErrorCode::UnknownTopicOrPartition }
}

fn missing(name: &str, error: ErrorCode) -> MetadataResponseTopic {
    MetadataResponseTopic::default()
        .with_error_code(error.code())
        .with_name(Some(TopicName(StrBytes::from_string(name.to_owned()))))
        .with_is_internal(names::is_internal(name))
}

fn describe(state: &State, topic: &Topic, seen: &Seen<'_>) -> MetadataResponseTopic {
    MetadataResponseTopic::default()
        .with_name(Some(TopicName(StrBytes::from_string(topic.name.to_string()))))
        .with_topic_id(topic.id)
        .with_is_internal(names::is_internal(&topic.name))
        .with_partitions(
            topic.partitions.iter().zip(0..).map(|(partition, index)| placed(state, partition, index, seen)).collect(),
        )
}

/// A partition.
pub(super) fn placed(state: &State, partition: &Partition, index: i32, seen: &Seen<'_>) -> MetadataResponsePartition {
    let hosts: Vec<BrokerId> = state.hosts(partition).collect();
    let known = (seen.leaders)(partition.log);
    let leader = known.filter(|(broker, _)| (seen.alive)(*broker));
    let those = |wanted: &dyn Fn(BrokerId) -> bool| -> Vec<kafka::BrokerId> {
        hosts.iter().filter(|broker| wanted(**broker)).map(|broker| broker.0.into()).collect()
    };
    let replicas = those(&|_| true);
    let in_sync = those(&|broker| (seen.in_sync)(partition.log, broker));
    let offline = those(&|broker| !(seen.alive)(broker));
    MetadataResponsePartition::default()
        .with_error_code(ErrorCode::code_of(leader.is_none().then_some(ErrorCode::LeaderNotAvailable)))
        .with_partition_index(index)
        .with_leader_id(leader.map_or(-1, |(broker, _)| broker.0).into())
        .with_leader_epoch(known.map_or(-1, |(_, epoch)| epoch))
        .with_isr_nodes(in_sync)
        .with_offline_replicas(offline)
        .with_replica_nodes(replicas)
}

#[cfg(test)]
mod tests {
    use super::super::admin_tests::{assert_encodable, config, name, state};
    use super::*;
    use crate::metadata::Command;
    use crate::metadata::command::{NewPartition, NewTopic};

    fn entry(topic: Option<&str>, id: u128) -> MetadataRequestTopic {
        MetadataRequestTopic::default().with_name(topic.map(name)).with_topic_id(Uuid::from_u128(id))
    }

    fn request(topics: &[MetadataRequestTopic]) -> MetadataRequest {
        MetadataRequest::default().with_topics(Some(topics.to_vec()))
    }

    fn named_only(names: &[&str]) -> MetadataRequest {
        request(&names.iter().map(|&name| entry(Some(name), 0)).collect::<Vec<_>>())
    }

    /// Broker 1 leads every log but the third.
    fn leaders(log: LogId) -> Option<(BrokerId, LeaderEpoch)> {
        (log != LogId(3)).then_some((BrokerId(1), 5))
    }

    const SEEN: Seen<'static> = Seen { leaders: &leaders, alive: &|_| true, in_sync: &|_, _| true };

    fn answer(state: &State, request: &MetadataRequest, version: i16) -> MetadataResponse {
        let response = respond(state, &config(), request, version, &SEEN);
        assert_encodable(&response, version..=version);
        response
    }

    /// Name, id and error code of each topic of an answer.
    fn topics(response: &MetadataResponse) -> Vec<(Option<&str>, u128, i16)> {
        let topics = response.topics.iter();
        topics
            .map(|topic| (topic.name.as_ref().map(|name| name.as_str()), topic.topic_id.as_u128(), topic.error_code))
            .collect()
    }

    #[test]
    fn brokers_and_the_cluster() {
        let response = answer(&state(2, &[]), &request(&[]), 13);
        assert_eq!((response.cluster_id.as_deref(), response.controller_id.0), (Some("a-cluster"), 1));
        let brokers: Vec<_> =
            response.brokers.iter().map(|broker| (broker.node_id.0, &*broker.host, broker.port)).collect();
        assert_eq!(brokers, [(1, "host-1", 9001), (2, "host-2", 9002)]);
        assert_eq!(response.brokers[1].rack.as_deref(), Some("rack-2"));
        assert_eq!(response.cluster_authorized_operations, i32::MIN);
    }

    #[test]
    fn all_topics_or_none() {
        let state = state(1, &[("b", 1), ("a", 1)]);
        let all = MetadataRequest::default().with_topics(None);
        for version in 1..=13 {
            assert_eq!(topics(&answer(&state, &all, version)), [(Some("a"), 2, 0), (Some("b"), 1, 0)]);
            assert_eq!(topics(&answer(&state, &request(&[]), version)), []);
        }
        assert_eq!(topics(&answer(&state, &request(&[]), 0)).len(), 2);
    }

    #[test]
    fn partitions_and_their_leaders() {
        let response = answer(&state(1, &[("a", 3)]), &named_only(&["a"]), 13);
        let partitions: Vec<_> = response.topics[0]
            .partitions
            .iter()
            .map(|partition| {
                (partition.partition_index, partition.leader_id.0, partition.leader_epoch, partition.error_code)
            })
            .collect();
        let missing = ErrorCode::LeaderNotAvailable.code();
        assert_eq!(partitions, [(0, 1, 5, 0), (1, 1, 5, 0), (2, -1, -1, missing)]);
        let first = &response.topics[0].partitions[0];
        assert_eq!((&first.replica_nodes[..], &first.isr_nodes[..]), (&[1.into()][..], &[1.into()][..]));
        assert!(first.offline_replicas.is_empty());
    }

    #[test]
    fn replicas_that_are_behind_and_replicas_that_are_gone() {
        let mut state = state(3, &[]);
        let new = NewTopic {
            name: "a".to_owned(),
            id: Uuid::from_u128(1),
            partitions: vec![NewPartition { replicas: [3, 1, 2].map(BrokerId).to_vec() }],
            configs: Default::default(),
        };
        state.apply(101, &Command::CreateTopics { topics: vec![new] });
        // Broker 2 is gone, broker 3 is behind.
        let alive = |broker: BrokerId| broker.0 != 2;
        let seen = Seen { leaders: &leaders, alive: &alive, in_sync: &|_, broker| broker.0 == 1 };
        let response = respond(&state, &config(), &named_only(&["a"]), 13, &seen);
        let partition = &response.topics[0].partitions[0];
        let ids = |brokers: &[kafka::BrokerId]| brokers.iter().map(|broker| broker.0).collect::<Vec<_>>();
        assert_eq!(ids(&partition.replica_nodes), [3, 1, 2]);
        assert_eq!(ids(&partition.isr_nodes), [1]);
        assert_eq!(ids(&partition.offline_replicas), [2]);
        assert_eq!(response.brokers.len(), 2);
    }

    #[test]
    fn topics_by_name_each_once() {
        let state = state(1, &[("a", 1), ("__consumer_offsets", 1)]);
        let response = answer(&state, &named_only(&["a", "no", "a", "__consumer_offsets", "b/c", ""]), 9);
        let unknown = ErrorCode::UnknownTopicOrPartition.code();
        let invalid = ErrorCode::InvalidTopicException.code();
        assert_eq!(
            topics(&response),
            [
                (Some("a"), 1, 0),
                (Some("no"), 0, unknown),
                (Some("__consumer_offsets"), 2, 0),
                (Some("b/c"), 0, invalid),
                (Some(""), 0, invalid),
            ]
        );
        let internal: Vec<_> = response.topics.iter().map(|topic| topic.is_internal).collect();
        assert_eq!(internal, [false, false, true, false, false]);
    }

    #[test]
    fn topics_by_id() {
        let wanted = request(&[entry(None, 1), entry(None, 9), entry(Some("a"), 2), entry(None, 0)]);
        let response = answer(&state(1, &[("a", 1), ("b", 1)]), &wanted, 12);
        let unknown = ErrorCode::UnknownTopicId.code();
        let malformed = ErrorCode::InvalidRequest.code();
        assert_eq!(
            topics(&response),
            [(Some("a"), 1, 0), (None, 9, unknown), (Some("b"), 2, 0), (Some(""), 0, malformed)]
        );
    }

    #[test]
    fn ids_in_versions_without_them_are_refused() {
        for version in [10, 11] {
            let response = answer(&state(1, &[("a", 1)]), &request(&[entry(None, 1), entry(Some("a"), 1)]), version);
            assert_eq!(topics(&response), [(Some(""), 0, ErrorCode::InvalidRequest.code())]);
        }
    }

    #[test]
    fn operations_where_asked_for() {
        let state = state(1, &[("a", 1)]);
        let asked = named_only(&["a"])
            .with_include_topic_authorized_operations(true)
            .with_include_cluster_authorized_operations(true);
        let response = answer(&state, &asked, 8);
        assert_eq!(response.topics[0].topic_authorized_operations, 3576, "the number that Kafka gives without ACLs");
        assert_eq!(response.cluster_authorized_operations, 8096, "the number that Kafka gives without ACLs");
        let response = answer(&state, &named_only(&["a"]), 8);
        assert_eq!(response.topics[0].topic_authorized_operations, i32::MIN);
    }

    #[test]
    fn topics_that_are_not_there_are_to_be_created() {
        let state = state(1, &[("a", 1), ("b.c", 1)]);
        let wanted = named_only(&["a", "new", "b_c", "x/y", "new", "other"]);
        let create = topics_to_create(&state, &config(), &wanted, 12).unwrap();
        let names: Vec<_> = create.topics.iter().map(|topic| topic.name.as_str()).collect();
        assert_eq!(names, ["new", "other"]);
        assert!(create.topics.iter().all(|topic| (topic.num_partitions, topic.replication_factor) == (-1, -1)));

        let late = topics(&answer(&state, &wanted, 12)).iter().map(|topic| topic.2).collect::<Vec<_>>();
        let invalid = ErrorCode::InvalidTopicException.code();
        let retriable = ErrorCode::UnknownTopicOrPartition.code();
        assert_eq!(late, [0, retriable, invalid, invalid, retriable]);
    }

    #[test]
    fn nothing_is_created_unasked() {
        let state = state(1, &[]);
        let wanted = named_only(&["new"]);
        assert!(
            topics_to_create(&state, &config(), &wanted.clone().with_allow_auto_topic_creation(false), 12).is_none()
        );
        let disabled = BrokerConfig { auto_create_topics: false, ..config() };
        assert!(topics_to_create(&state, &disabled, &wanted, 12).is_none());
        let all = MetadataRequest::default().with_topics(None);
        assert!(topics_to_create(&state, &config(), &all, 12).is_none());
        assert!(topics_to_create(&state, &config(), &request(&[entry(None, 5)]), 12).is_none());
    }
}
