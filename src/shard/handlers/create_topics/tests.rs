use kafka_protocol::messages::create_topics_request::CreatableTopicConfig;

use super::super::admin_tests::{assert_encodable, config, name, state, text};
use super::*;

fn topic(topic: &str, partitions: i32, replication: i16) -> CreatableTopic {
    CreatableTopic::default()
        .with_name(name(topic))
        .with_num_partitions(partitions)
        .with_replication_factor(replication)
}

fn with_config(topic: CreatableTopic, key: &str, value: Option<&str>) -> CreatableTopic {
    let mut topic = topic;
    topic.configs.push(CreatableTopicConfig::default().with_name(text(key)).with_value(value.map(text)));
    topic
}

fn assigned(name: &str, assignments: &[(i32, &[i32])]) -> CreatableTopic {
    let assignments = assignments.iter().map(|(index, brokers)| {
        CreatableReplicaAssignment::default()
            .with_partition_index(*index)
            .with_broker_ids(brokers.iter().map(|&broker| broker.into()).collect())
    });
    topic(name, -1, -1).with_assignments(assignments.collect())
}

fn request(topics: Vec<CreatableTopic>) -> CreateTopicsRequest {
    CreateTopicsRequest::default().with_topics(topics)
}

fn plan_for(state: &State, request: &CreateTopicsRequest) -> Plan {
    let plan = plan(state, &config(), &[], request, 7, &|place| Uuid::from_u128(1001 + place as u128));
    assert_encodable(&plan.response, 2..=7);
    plan
}

/// The error, by its code and message, that a topic alone in its request gets on a cluster of 3 brokers that has the
/// topics `taken` and `dot.ted`.
fn refusal(topic: CreatableTopic) -> (i16, String) {
    let plan = plan_for(&state(3, &[("taken", 1), ("dot.ted", 1)]), &request(vec![topic]));
    assert_eq!(plan.command, None);
    let result = &plan.response.topics[0];
    assert_eq!((result.num_partitions, result.replication_factor, result.topic_id), (-1, -1, Uuid::nil()));
    (result.error_code, result.error_message.as_ref().unwrap().to_string())
}

#[track_caller]
fn assert_refused(topic: CreatableTopic, error: ErrorCode, message: &str) {
    let (code, text) = refusal(topic);
    assert_eq!(code, error.code(), "{text}");
    assert!(text.contains(message), "{text}");
}

fn new_topics(plan: &Plan) -> &[NewTopic] {
    match &plan.command {
        Some(Command::CreateTopics { topics }) => topics,
        other => panic!("{other:?}"),
    }
}

fn replicas(topic: &NewTopic) -> Vec<Vec<i32>> {
    topic.partitions.iter().map(|partition| partition.replicas.iter().map(|broker| broker.0).collect()).collect()
}

#[test]
fn many_topics_are_one_command() {
    let wanted = request(vec![
        topic("a", 3, 1),
        topic("taken", 1, 1),
        with_config(topic("b", -1, -1), "retention.ms", Some(" 10 ")),
    ]);
    let plan = plan_for(&state(1, &[("taken", 1)]), &wanted);
    let [a, b] = new_topics(&plan) else { panic!("{plan:?}") };
    assert_eq!((a.name.as_str(), a.partitions.len(), a.id), ("a", 3, Uuid::from_u128(1001)));
    assert_eq!((b.name.as_str(), b.partitions.len(), b.id), ("b", 2, Uuid::from_u128(1003)));
    assert_eq!(b.configs, BTreeMap::from([("retention.ms".to_owned(), "10".to_owned())]));
    let results = &plan.response.topics;
    let codes: Vec<_> = results.iter().map(|result| (result.name.as_str(), result.error_code)).collect();
    assert_eq!(codes, [("a", 0), ("taken", 36), ("b", 0)]);
    assert_eq!((results[0].topic_id, results[0].num_partitions, results[0].replication_factor), (a.id, 3, 1));
    assert_eq!(results[0].error_message, None);
}

#[test]
fn the_configs_of_a_new_topic_are_listed_from_version_5() {
    let wanted = request(vec![with_config(topic("a", 1, 1), "retention.ms", Some("10"))]);
    let plan = plan_for(&state(1, &[]), &wanted);
    let listed = plan.response.topics[0].configs.as_ref().unwrap();
    assert_eq!(listed.len(), configs::keys().len());
    let retention = listed.iter().find(|config| &*config.name == "retention.ms").unwrap();
    assert_eq!((retention.value.as_deref(), retention.config_source, retention.read_only), (Some("10"), 1, false));
    let segment = listed.iter().find(|config| &*config.name == "segment.bytes").unwrap();
    assert_eq!((segment.value.as_deref(), segment.config_source), (Some("1073741824"), 5));
    let before = super::plan(&state(1, &[]), &config(), &[], &wanted, 4, &|_| Uuid::from_u128(9));
    assert_eq!(before.response.topics[0].configs, Some(Vec::new()));
}

#[test]
fn a_request_that_only_validates_changes_nothing() {
    let wanted = request(vec![topic("a", 3, 1), topic("taken", 1, 1)]).with_validate_only(true);
    let plan = plan_for(&state(1, &[("taken", 1)]), &wanted);
    assert_eq!(plan.command, None);
    let results = &plan.response.topics;
    assert_eq!((results[0].error_code, results[0].num_partitions, results[0].topic_id), (0, 3, Uuid::nil()));
    assert_eq!(results[1].error_code, ErrorCode::TopicAlreadyExists.code());
}

#[test]
fn names() {
    for illegal in ["", ".", "..", "a b", &"x".repeat(250)] {
        assert_refused(topic(illegal, 1, 1), ErrorCode::InvalidTopicException, "Topic name is invalid");
    }
    assert_refused(topic("taken", 1, 1), ErrorCode::TopicAlreadyExists, "Topic 'taken' already exists.");
    assert_refused(topic("dot.ted", 1, 1), ErrorCode::TopicAlreadyExists, "already exists");
    let collides = "Topic 'dot_ted' collides with existing topic: dot.ted";
    assert_refused(topic("dot_ted", 1, 1), ErrorCode::InvalidTopicException, collides);
    assert_refused(topic("__cluster_metadata", 1, 1), ErrorCode::InvalidRequest, "prohibited");
}

#[test]
fn a_name_twice_in_a_request_is_refused_once() {
    let wanted = request(vec![topic("a", 1, 1), topic("b", 1, 1), topic("a", 2, 1), topic("a", 1, 1)]);
    let plan = plan_for(&state(1, &[]), &wanted);
    assert_eq!(new_topics(&plan).len(), 1);
    let codes: Vec<_> = plan.response.topics.iter().map(|result| (result.name.as_str(), result.error_code)).collect();
    assert_eq!(codes, [("a", ErrorCode::InvalidRequest.code()), ("b", 0)]);
}

#[test]
fn names_of_one_request_collide() {
    let plan = plan_for(&state(1, &[]), &request(vec![topic("a.b", 1, 1), topic("a_b", 1, 1)]));
    assert_eq!(new_topics(&plan).len(), 1);
    assert_eq!(plan.response.topics[1].error_code, ErrorCode::InvalidTopicException.code());
    let refused = topic("a.b", 0, 1);
    let plan = plan_for(&state(1, &[]), &request(vec![refused, topic("a_b", 1, 1)]));
    assert_eq!(new_topics(&plan)[0].name, "a_b", "a topic that is refused takes no name");
}

#[test]
fn numbers() {
    for partitions in [0, -2, i32::MIN] {
        assert_refused(topic("a", partitions, 1), ErrorCode::InvalidPartitions, "larger than 0");
    }
    for replication in [0, -2, i16::MIN] {
        assert_refused(topic("a", 1, replication), ErrorCode::InvalidReplicationFactor, "larger than 0");
    }
    assert_refused(topic("a", 1, 4), ErrorCode::InvalidReplicationFactor, "only 3 broker(s) are registered");
}

#[test]
fn no_brokers_no_topics() {
    let plan = plan_for(&State::default(), &request(vec![topic("a", 1, 1)]));
    assert_eq!(plan.response.topics[0].error_code, ErrorCode::InvalidReplicationFactor.code());
}

#[test]
fn replicas_go_round_the_brokers_topic_by_topic() {
    let plan = plan_for(&state(3, &[]), &request(vec![topic("a", 2, 2), topic("b", 1, 3)]));
    assert_eq!(replicas(&new_topics(&plan)[0]), [[2, 3], [1, 3]]);
    assert_eq!(replicas(&new_topics(&plan)[1]), [[3, 2, 1]]);
}

#[test]
fn the_client_may_choose_the_replicas() {
    let wanted = request(vec![assigned("a", &[(1, &[3, 1]), (0, &[2, 3])])]);
    let plan = plan_for(&state(3, &[]), &wanted);
    assert_eq!(replicas(&new_topics(&plan)[0]), [[2, 3], [3, 1]]);
    let result = &plan.response.topics[0];
    assert_eq!((result.num_partitions, result.replication_factor), (2, 2));
}

#[test]
fn contradictory_assignments() {
    let one: &[(i32, &[i32])] = &[(0, &[1])];
    let with_numbers = "With a manual partition assignment";
    assert_refused(assigned("a", one).with_num_partitions(1), ErrorCode::InvalidRequest, with_numbers);
    assert_refused(assigned("a", one).with_replication_factor(1), ErrorCode::InvalidRequest, with_numbers);
    type Assignments<'a> = &'a [(i32, &'a [i32])];
    let cases: [(Assignments, &str); 8] = [
        (&[(0, &[1]), (0, &[2])], "multiple manual partition assignments for partition 0"),
        (&[(0, &[1]), (2, &[2])], "consecutive"),
        (&[(1, &[1])], "consecutive"),
        (&[(-1, &[1]), (0, &[1])], "consecutive"),
        (&[(0, &[])], "is empty"),
        (&[(0, &[1, 1])], "more than once"),
        (&[(0, &[1, 4])], "includes broker 4, but no such broker is registered"),
        (&[(0, &[1, 2]), (1, &[1])], "has 1 replica(s)"),
    ];
    for (assignments, message) in cases {
        assert_refused(assigned("a", assignments), ErrorCode::InvalidReplicaAssignment, message);
    }
}

#[test]
fn configs_are_checked() {
    let refused = |key, value, message| {
        assert_refused(with_config(topic("a", 1, 3), key, value), ErrorCode::InvalidConfig, message);
    };
    refused("retention.ms", None, "Null value not supported for topic configs: retention.ms");
    refused("no.such.config", Some("1"), "Unknown topic config name: no.such.config");
    refused("cleanup.policy", Some("burn"), "must be one of");
    refused("min.insync.replicas", Some("4"), "only 3 replica(s)");
    let kept = with_config(topic("a", 1, 3), "min.insync.replicas", Some("3"));
    assert!(plan_for(&state(3, &[]), &request(vec![kept])).command.is_some());
}

#[test]
fn a_request_for_too_many_partitions_is_refused_whole() {
    let most = MAX_PARTITIONS_PER_REQUEST as i32;
    let plan = plan_for(&state(1, &[]), &request(vec![topic("a", most, 1)]));
    assert_eq!(new_topics(&plan)[0].partitions.len(), MAX_PARTITIONS_PER_REQUEST);
    for wanted in [vec![topic("a", most, 1), topic("b", 1, 1)], vec![topic("a", i32::MAX, 1), topic("b", i32::MAX, 1)]]
    {
        let plan = plan_for(&state(1, &[]), &request(wanted));
        assert_eq!(plan.command, None);
        let codes: Vec<_> = plan.response.topics.iter().map(|result| result.error_code).collect();
        assert_eq!(codes, [ErrorCode::PolicyViolation.code(); 2]);
    }
}

#[test]
fn a_full_cluster_takes_no_more_topics() {
    let state = state(1, &[("full", MAX_PARTITIONS - 3)]);
    let plan = plan_for(&state, &request(vec![topic("a", 2, 1), topic("b", 2, 1), topic("c", 1, 1)]));
    let codes: Vec<_> = plan.response.topics.iter().map(|result| result.error_code).collect();
    assert_eq!(codes, [0, ErrorCode::PolicyViolation.code(), 0]);
}

#[test]
fn what_the_command_could_not_do_any_more_is_told() {
    let mut state = state(1, &[]);
    let wanted = request(vec![topic("a", 1, 1), topic("b_c", 1, 1), topic("d", 1, 1)]);
    let first = plan_for(&state, &request(vec![topic("a", 1, 1), topic("b.c", 1, 1)]));
    let mut second = super::plan(&state, &config(), &[], &wanted, 7, &|_| Uuid::max());
    let Some(Command::CreateTopics { topics }) = &mut second.command else { panic!("{second:?}") };
    for (topic, id) in topics.iter_mut().zip(2000..) {
        topic.id = Uuid::from_u128(id);
    }
    state.apply(101, first.command.as_ref().unwrap());
    let changes = state.apply(102, second.command.as_ref().unwrap());
    note_rejections(&mut second.response, &changes);
    let results = second.response.topics;
    assert_eq!(results[0].error_code, ErrorCode::TopicAlreadyExists.code());
    assert_eq!(results[0].topic_id, Uuid::nil());
    assert_eq!(results[1].error_code, ErrorCode::InvalidTopicException.code());
    assert_eq!(results[2].error_code, 0);
}

#[test]
fn a_request_fails_as_a_whole() {
    let response = failed(&request(vec![topic("a", 1, 1), topic("a", 1, 1)]), ErrorCode::RequestTimedOut);
    assert_encodable(&response, 2..=7);
    let codes: Vec<_> = response.topics.iter().map(|result| (result.name.as_str(), result.error_code)).collect();
    assert_eq!(codes, [("a", ErrorCode::RequestTimedOut.code())]);
}
