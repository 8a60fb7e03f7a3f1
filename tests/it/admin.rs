//! Topics and configs, frame by frame: every error where Kafka gives one.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig,
};
use kafka_protocol::messages::create_topics_response::CreatableTopicResult;
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{
    BrokerId, CreateTopicsRequest, DeleteTopicsRequest, DescribeClusterRequest, DescribeConfigsRequest, MetadataRequest,
};
use uuid::Uuid;

use crate::common::process::{external, shared};
use crate::common::records::{batch, values};
use crate::common::wire::{Wire, code, text, topic_name};
use crate::common::{fresh, skipped, wait_until};

fn connect() -> Wire {
    Wire::connect(shared().address())
}

fn new_topic(name: &str) -> CreatableTopic {
    CreatableTopic::default().with_name(topic_name(name)).with_num_partitions(1).with_replication_factor(1)
}

fn create(wire: &mut Wire, topics: Vec<CreatableTopic>) -> Vec<CreatableTopicResult> {
    wire.call(7, &CreateTopicsRequest::default().with_topics(topics).with_timeout_ms(10_000)).topics
}

/// The topic is refused with this error and does not exist after it.
fn is_refused(topic: CreatableTopic, error: ResponseError) {
    let mut wire = connect();
    let name = topic.name.to_string();
    let results = create(&mut wire, vec![topic]);
    assert_eq!(results.len(), 1);
    let (given, message) = (ResponseError::try_from_code(results[0].error_code), &results[0].error_message);
    assert_eq!(given, Some(error), "{message:?}");
    assert!(message.as_ref().is_some_and(|message| !message.is_empty()), "the message says why");
    assert_ne!(wire.metadata(&name).topics[0].error_code, 0, "{name} does not exist");
}

fn config(name: &str, value: &str) -> CreatableTopicConfig {
    CreatableTopicConfig::default().with_name(text(name)).with_value(Some(text(value)))
}

fn assignment(partition: i32, brokers: &[i32]) -> CreatableReplicaAssignment {
    CreatableReplicaAssignment::default()
        .with_partition_index(partition)
        .with_broker_ids(brokers.iter().map(|broker| BrokerId(*broker)).collect())
}

fn assigned(name: &str, assignments: Vec<CreatableReplicaAssignment>) -> CreatableTopic {
    new_topic(name).with_num_partitions(-1).with_replication_factor(-1).with_assignments(assignments)
}

fn node_id(wire: &mut Wire) -> i32 {
    wire.call(0, &DescribeClusterRequest::default()).brokers[0].broker_id.0
}

#[test]
fn a_created_topic_can_be_used_at_once() {
    if external().is_some() {
        return skipped("Kafka answers before it shows the topic");
    }
    let mut wire = connect();
    for _ in 0..20 {
        let name = fresh("at-once");
        let created = create(&mut wire, vec![new_topic(&name).with_num_partitions(3)]).remove(0);
        assert_eq!((created.error_code, created.num_partitions, created.replication_factor), (0, 3, 1));
        let mut other = connect();
        let shown = other.metadata(&name).topics.remove(0);
        assert_eq!((shown.error_code, shown.topic_id), (0, created.topic_id));
        assert_eq!(shown.partitions.len(), 3);
        assert!(shown.partitions.iter().all(|partition| partition.error_code == 0 && partition.leader_id.0 >= 0));
        for partition in 0..3 {
            assert_eq!(other.produce(&name, partition, batch(&["at once"])).error_code, 0);
        }
    }
}

#[test]
fn names_that_are_none_are_refused() {
    for name in ["", ".", "..", "a/b", "a b", "ä", "a\0b", &"x".repeat(250)] {
        is_refused(new_topic(name), ResponseError::InvalidTopicException);
    }
    let longest = format!("{}{}", "x".repeat(249 - fresh("").len()), fresh(""));
    assert_eq!(create(&mut connect(), vec![new_topic(&longest[..249.min(longest.len())])])[0].error_code, 0);
}

#[test]
fn names_that_differ_by_dot_and_underscore_collide() {
    let name = fresh("a.b");
    let mut wire = connect();
    wire.create_topic(&name, 1, &[]);
    is_refused(new_topic(&name.replace('.', "_")), ResponseError::InvalidTopicException);
}

#[test]
fn an_existing_topic_is_not_created_again() {
    let name = fresh("twice");
    let mut wire = connect();
    let id = wire.create_topic(&name, 1, &[]);
    let again = create(&mut wire, vec![new_topic(&name)]).remove(0);
    assert_eq!(again.error_code, code(ResponseError::TopicAlreadyExists));
    assert_eq!(wire.metadata(&name).topics[0].topic_id, id);
}

#[test]
fn numbers_that_make_no_sense_are_refused() {
    for partitions in [0, -2, i32::MIN] {
        is_refused(new_topic(&fresh("parts")).with_num_partitions(partitions), ResponseError::InvalidPartitions);
    }
    for replicas in [0, -2, 2, i16::MAX] {
        let topic = new_topic(&fresh("replicas")).with_replication_factor(replicas);
        is_refused(topic, ResponseError::InvalidReplicationFactor);
    }
}

#[test]
fn numbers_left_out_are_the_brokers_defaults() {
    let topic = new_topic(&fresh("defaults")).with_num_partitions(-1).with_replication_factor(-1);
    let created = create(&mut connect(), vec![topic]).remove(0);
    assert_eq!((created.error_code, created.num_partitions, created.replication_factor), (0, 1, 1));
}

#[test]
fn configs_are_checked() {
    for (name, value) in [
        ("no.such.config", "1"),
        ("retention.ms", "soon"),
        ("max.message.bytes", "-1"),
        ("message.timestamp.type", "WallTime"),
        ("cleanup.policy", "burn"),
        ("segment.bytes", "many"),
    ] {
        is_refused(new_topic(&fresh("config")).with_configs(vec![config(name, value)]), ResponseError::InvalidConfig);
    }
}

#[test]
fn configs_are_kept_and_described() {
    let mut wire = connect();
    let name = fresh("configs");
    wire.create_topic(&name, 1, &[("retention.ms", "12345678"), ("max.message.bytes", "500000")]);
    let resource = |keys: Option<Vec<&str>>| {
        DescribeConfigsResource::default()
            .with_resource_type(2)
            .with_resource_name(text(&name))
            .with_configuration_keys(keys.map(|keys| keys.into_iter().map(text).collect()))
    };
    let all = wire.call(4, &DescribeConfigsRequest::default().with_resources(vec![resource(None)])).results.remove(0);
    let find = |wanted: &str| all.configs.iter().find(|config| config.name.as_str() == wanted).expect("the config");
    assert_eq!(find("retention.ms").value.as_deref(), Some("12345678"));
    assert_eq!(find("retention.ms").config_source, 1, "set on the topic");
    assert_eq!(find("max.message.bytes").value.as_deref(), Some("500000"));
    assert_eq!(find("cleanup.policy").config_source, 5, "a default");
    let asked = resource(Some(vec!["retention.ms", "cleanup.policy", "no.such.config"]));
    let some = wire.call(4, &DescribeConfigsRequest::default().with_resources(vec![asked])).results.remove(0);
    let mut names: Vec<&str> = some.configs.iter().map(|config| config.name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["cleanup.policy", "retention.ms"]);
}

#[test]
fn configs_of_the_broker_and_of_nothing_are_described() {
    let mut wire = connect();
    let node = node_id(&mut wire).to_string();
    let resource = |kind: i8, name: &str| {
        DescribeConfigsResource::default().with_resource_type(kind).with_resource_name(text(name))
    };
    let request =
        DescribeConfigsRequest::default().with_resources(vec![resource(4, &node), resource(2, &fresh("nowhere"))]);
    let results = wire.call(4, &request).results;
    assert_eq!(results[0].error_code, 0);
    assert!(results[0].configs.iter().any(|config| config.name.as_str() == "message.max.bytes"));
    assert_eq!(results[1].error_code, code(ResponseError::UnknownTopicOrPartition));
}

#[test]
fn several_topics_each_have_their_own_result() {
    let mut wire = connect();
    let (good, bad, twin) = (fresh("good"), fresh("bad"), fresh("twin"));
    let topics = vec![new_topic(&good), new_topic(&bad).with_num_partitions(0), new_topic(&twin), new_topic(&twin)];
    let results = create(&mut wire, topics);
    let error = |name: &str| {
        let result = results.iter().find(|result| result.name.as_str() == name).expect("a result");
        ResponseError::try_from_code(result.error_code)
    };
    assert_eq!(error(&good), None);
    assert_eq!(error(&bad), Some(ResponseError::InvalidPartitions));
    assert_eq!(error(&twin), Some(ResponseError::InvalidRequest));
    assert_ne!(wire.metadata(&twin).topics[0].error_code, 0, "a name given twice is not created");
}

#[test]
fn validate_only_creates_nothing() {
    let mut wire = connect();
    let (name, bad) = (fresh("trial"), fresh("bad-trial"));
    let topics = vec![new_topic(&name).with_num_partitions(5), new_topic(&bad).with_num_partitions(0)];
    let request = CreateTopicsRequest::default().with_topics(topics).with_timeout_ms(5_000).with_validate_only(true);
    let results = wire.call(7, &request).topics;
    let result = |name: &str| results.iter().find(|result| result.name.as_str() == name).expect("a result").clone();
    assert_eq!((result(&name).error_code, result(&name).num_partitions), (0, 5));
    assert_eq!(result(&bad).error_code, code(ResponseError::InvalidPartitions));
    assert_eq!(wire.metadata(&name).topics[0].error_code, code(ResponseError::UnknownTopicOrPartition));
}

#[test]
fn replicas_can_be_assigned() {
    let mut wire = connect();
    let node = node_id(&mut wire);
    let name = fresh("assigned");
    let created = create(&mut wire, vec![assigned(&name, vec![assignment(0, &[node]), assignment(1, &[node])])]);
    assert_eq!((created[0].error_code, created[0].num_partitions), (0, 2), "{:?}", created[0].error_message);
    let none = node + 77;
    let invalid = ResponseError::InvalidReplicaAssignment;
    is_refused(assigned(&fresh("gap"), vec![assignment(0, &[node]), assignment(2, &[node])]), invalid);
    is_refused(assigned(&fresh("nobody"), vec![assignment(0, &[none])]), invalid);
    is_refused(assigned(&fresh("double"), vec![assignment(0, &[node, node])]), invalid);
    is_refused(assigned(&fresh("empty"), vec![assignment(0, &[])]), invalid);
    let both = assigned(&fresh("both"), vec![assignment(0, &[node])]).with_num_partitions(1);
    is_refused(both, ResponseError::InvalidRequest);
}

#[test]
fn a_deleted_topic_is_gone_and_its_name_is_free() {
    let mut wire = connect();
    let name = fresh("phoenix");
    let first = wire.create_topic(&name, 2, &[]);
    assert_eq!(wire.produce(&name, 0, batch(&["old"])).error_code, 0);
    let delete =
        |state: DeleteTopicState| DeleteTopicsRequest::default().with_topics(vec![state]).with_timeout_ms(5_000);
    let by_name = delete(DeleteTopicState::default().with_name(Some(topic_name(&name))));
    let answer = wire.call(6, &by_name).responses.remove(0);
    assert_eq!((answer.error_code, answer.topic_id), (0, first));
    let unknown = code(ResponseError::UnknownTopicOrPartition);
    let gone = wait_until(std::time::Duration::from_secs(5), || wire.metadata(&name).topics[0].error_code == unknown);
    assert!(gone);
    assert_eq!(wire.produce(&name, 0, batch(&["ghost"])).error_code, unknown);
    assert_eq!(wire.call(6, &by_name).responses[0].error_code, unknown);

    let second = wire.create_topic(&name, 1, &[]);
    assert_ne!(first, second);
    assert_eq!(wire.produce(&name, 0, batch(&["new"])).base_offset, 0);
    assert_eq!(values(wire.fetch(&name, 0, 0).records.expect("records")), ["new"]);

    let by_old_id = delete(DeleteTopicState::default().with_name(None).with_topic_id(first));
    assert_eq!(wire.call(6, &by_old_id).responses[0].error_code, code(ResponseError::UnknownTopicId));
    let by_id = delete(DeleteTopicState::default().with_name(None).with_topic_id(second));
    assert_eq!(wire.call(6, &by_id).responses[0].error_code, 0);
}

#[test]
fn metadata_answers_by_name_by_id_and_for_all() {
    let mut wire = connect();
    let name = fresh("metadata");
    let id = wire.create_topic(&name, 2, &[]);
    let ask = |wire: &mut Wire, topic: MetadataRequestTopic| {
        let request = MetadataRequest::default().with_topics(Some(vec![topic])).with_allow_auto_topic_creation(false);
        wire.call(12, &request).topics.remove(0)
    };
    let by_id = ask(&mut wire, MetadataRequestTopic::default().with_name(None).with_topic_id(id));
    assert_eq!((by_id.error_code, by_id.name.map(|name| name.to_string())), (0, Some(name.clone())));
    let stranger = Uuid::from_u128(0xabcd_ef01_2345_4678_9abc_def0_1234_5678);
    let unknown_id = ask(&mut wire, MetadataRequestTopic::default().with_name(None).with_topic_id(stranger));
    assert_eq!(unknown_id.error_code, code(ResponseError::UnknownTopicId));
    let unknown = ask(&mut wire, MetadataRequestTopic::default().with_name(Some(topic_name(&fresh("nowhere")))));
    assert_eq!(unknown.error_code, code(ResponseError::UnknownTopicOrPartition));
    let invalid = ask(&mut wire, MetadataRequestTopic::default().with_name(Some(topic_name("a/b"))));
    assert_eq!(invalid.error_code, code(ResponseError::InvalidTopicException));

    let all = wire.call(12, &MetadataRequest::default().with_topics(None));
    assert!(all.topics.iter().any(|topic| topic.topic_id == id));
    assert_eq!(all.cluster_id.map(|id| id.len()), Some(22));
    assert_eq!(all.controller_id, all.brokers[0].node_id);
    let none = wire.call(12, &MetadataRequest::default().with_topics(Some(vec![])));
    assert!(none.topics.is_empty());
}

#[test]
fn metadata_creates_a_topic_where_the_client_allows_it() {
    let mut wire = connect();
    let name = fresh("auto");
    let unknown = code(ResponseError::UnknownTopicOrPartition);
    assert_eq!(wire.metadata(&name).topics[0].error_code, unknown);
    let request = MetadataRequest::default()
        .with_topics(Some(vec![MetadataRequestTopic::default().with_name(Some(topic_name(&name)))]))
        .with_allow_auto_topic_creation(true);
    wire.call(12, &request);
    let created = wait_until(std::time::Duration::from_secs(5), || wire.metadata(&name).topics[0].error_code == 0);
    assert!(created);
}

#[test]
fn a_thousand_topics_in_one_request() {
    if external().is_some() {
        return skipped("Kafka takes its time");
    }
    let mut wire = connect();
    let prefix = fresh("thousand");
    let topics = (0..1_000).map(|number| new_topic(&format!("{prefix}-{number}")).with_num_partitions(3)).collect();
    let results = create(&mut wire, topics);
    assert_eq!(results.len(), 1_000);
    assert!(results.iter().all(|result| result.error_code == 0));
    let all = wire.call(12, &MetadataRequest::default().with_topics(None));
    let of_ours = |topic: &&kafka_protocol::messages::metadata_response::MetadataResponseTopic| {
        topic.name.as_ref().is_some_and(|name| name.starts_with(&prefix))
    };
    let ours: Vec<_> = all.topics.iter().filter(of_ours).collect();
    assert_eq!(ours.len(), 1_000);
    assert!(ours.iter().all(|topic| topic.partitions.len() == 3));
    assert_eq!(wire.produce(&format!("{prefix}-999"), 2, batch(&["x"])).error_code, 0);
    let names = (0..1_000).map(|number| topic_name(&format!("{prefix}-{number}"))).collect();
    let delete = DeleteTopicsRequest::default().with_topic_names(names).with_timeout_ms(10_000);
    assert!(wire.call(5, &delete).responses.iter().all(|response| response.error_code == 0));
}
