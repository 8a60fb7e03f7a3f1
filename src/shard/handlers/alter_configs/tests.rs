use kafka_protocol::messages::alter_configs_request::{
    AlterConfigsResource as ReplacedResource, AlterableConfig as ReplacedConfig,
};
use kafka_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};

use super::super::admin_tests::{assert_encodable, config, state, text};
use super::*;
use crate::config::GroupConfig;

const OWN: BrokerId = BrokerId(1);
const SESSION: &str = "consumer.session.timeout.ms";
const HEARTBEAT: &str = "consumer.heartbeat.interval.ms";

fn resource(resource_type: i8, name: &str, configs: &[(&str, Op, Option<&str>)]) -> AlterConfigsResource {
    let config = |(name, op, value): &(&str, Op, Option<&str>)| {
        AlterableConfig::default().with_name(text(name)).with_config_operation(*op as i8).with_value(value.map(text))
    };
    AlterConfigsResource::default()
        .with_resource_type(resource_type)
        .with_resource_name(text(name))
        .with_configs(configs.iter().map(config).collect())
}

fn request(resources: Vec<AlterConfigsResource>) -> IncrementalAlterConfigsRequest {
    IncrementalAlterConfigsRequest::default().with_resources(resources)
}

/// Plans and applies; the error code and message of the only resource.
fn alter(state: &mut State, resource: AlterConfigsResource) -> (i16, String) {
    let plan = plan(state, &config(), &request(vec![resource]), OWN);
    let response = plan.outcome.incremental();
    assert_encodable(&response, 0..=1);
    let [result] = &response.responses[..] else { panic!("{response:?}") };
    assert_eq!(result.error_code != 0, result.error_message.is_some());
    assert!(result.error_code == 0 || plan.command.is_none(), "what is refused changes nothing");
    if let Some(command) = plan.command {
        let changes = state.apply(state.applied() + 1, &command);
        assert!(!matches!(changes[0], crate::metadata::Change::Overtaken), "{changes:?}");
    }
    (result.error_code, result.error_message.clone().unwrap_or_default().to_string())
}

fn set_of(state: &State) -> Vec<(&str, &str)> {
    let configs = &state.topic("a").unwrap().configs;
    configs.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

#[test]
fn a_topics_configs_are_set_and_deleted() {
    let mut state = state(1, &[("a", 1)]);
    let change = [
        ("max.message.bytes", Op::Set, Some(" 07 ")),
        ("retention.ms", Op::Delete, None),
        ("no.such", Op::Delete, None),
    ];
    assert_eq!(alter(&mut state, resource(TOPIC, "a", &change)).0, 0);
    assert_eq!(set_of(&state), [("max.message.bytes", "7")]);
    assert!(
        plan(&state, &config(), &request(vec![resource(TOPIC, "a", &change)]), OWN).command.is_none(),
        "it is so already"
    );
}

#[test]
fn lists_grow_and_shrink() {
    let mut state = state(1, &[("a", 1)]);
    let policy = |op, value| resource(TOPIC, "a", &[("cleanup.policy", op, Some(value))]);
    assert_eq!(alter(&mut state, policy(Op::Append, "delete")).0, 0, "the default has it");
    assert_eq!(set_of(&state)[0], ("cleanup.policy", "delete"));
    let (code, message) = alter(&mut state, policy(Op::Subtract, "delete"));
    assert_eq!(code, ErrorCode::InvalidConfig.code(), "{message}");
    let no_list = resource(TOPIC, "a", &[("retention.ms", Op::Append, Some("1"))]);
    let (code, message) = alter(&mut state, no_list);
    assert_eq!(code, ErrorCode::InvalidConfig.code());
    assert!(message.contains("no list"), "{message}");
}

#[test]
fn elements_are_added_once_and_taken_away() {
    let key = ConfigKey::named("cleanup.policy").unwrap();
    let combined = |current, op, value| combined(key, current, op, value).unwrap();
    assert_eq!(combined("delete", Op::Append, "compact, delete"), "delete,compact");
    assert_eq!(combined("compact,delete", Op::Subtract, "delete"), "compact");
    assert_eq!(combined("delete", Op::Subtract, "x,delete"), "");
}

#[test]
fn all_brokers_give_topics_a_value_where_they_set_none() {
    let mut state = state(1, &[("a", 1)]);
    let defaults = [("log.retention.ms", Op::Set, Some("9")), ("message.max.bytes", Op::Set, Some("8"))];
    assert_eq!(alter(&mut state, resource(BROKER, "", &defaults)).0, 0);
    let of_a = state.configs_of(state.topic("a").unwrap(), OWN);
    assert_eq!((of_a["retention.ms"].as_str(), of_a["max.message.bytes"].as_str()), ("5", "8"));
    assert_eq!(alter(&mut state, resource(BROKER, "", &[("message.max.bytes", Op::Delete, None)])).0, 0);
    assert_eq!(state.defaults().keys().collect::<Vec<_>>(), ["retention.ms"]);
}

#[test]
fn what_cannot_be_altered_says_why() {
    let set = |name| vec![(name, Op::Set, Some("1"))];
    let (invalid, wrong) = (ErrorCode::InvalidRequest, ErrorCode::InvalidConfig);
    let cases = [
        (TOPIC, "no", set("retention.ms"), ErrorCode::UnknownTopicOrPartition, "does not exist"),
        (TOPIC, "a/b", set("retention.ms"), ErrorCode::InvalidTopicException, "invalid"),
        (TOPIC, "a", set("no.such"), wrong, "Unknown topic config name: no.such"),
        (TOPIC, "a", vec![("no.such", Op::Append, Some("1"))], wrong, "Unknown topic config name: no.such"),
        (TOPIC, "a", vec![("retention.ms", Op::Set, Some("x"))], wrong, "Not a number"),
        (TOPIC, "a", vec![("retention.ms", Op::Set, None)], invalid, "Null value not supported for: retention.ms"),
        (TOPIC, "a", vec![("retention.ms", Op::Unknown, Some("1"))], invalid, "Unknown operation"),
        (TOPIC, "a", [set("retention.ms"), set("retention.ms")].concat(), invalid, "more than once"),
        (TOPIC, "a", vec![("min.insync.replicas", Op::Set, Some("9"))], wrong, "min.insync.replicas is 9"),
        (BROKER, "", set("no.such"), invalid, "Unknown broker config name"),
        (BROKER, "", set("num.partitions"), invalid, "Cannot update these configs dynamically: num.partitions"),
        (BROKER, "", set("min.insync.replicas"), invalid, "for all topics at once"),
        (BROKER, "", vec![("log.segment.bytes", Op::Set, Some("1"))], invalid, "at least 1048576"),
        (BROKER, "1", set("node.id"), invalid, "Cannot update these configs dynamically: node.id"),
        (BROKER, "1", vec![("max.connections", Op::Set, Some("0"))], invalid, "at least 1"),
        (BROKER, "1", set("min.insync.replicas"), invalid, "for all topics at once"),
        (BROKER, "1", set("log.cleaner.threads"), invalid, "Unknown broker config name"),
        (BROKER, "2", set("message.max.bytes"), invalid, "Unexpected broker id, expected 1"),
        (BROKER, "x", set("message.max.bytes"), invalid, "must be an integer"),
        (GROUP, "", set("consumer.session.timeout.ms"), invalid, "Default group resources are not allowed"),
        (GROUP, "g", set("no.such"), wrong, "Unknown group config name: no.such"),
        (GROUP, "g", set("consumer.session.timeout.ms"), wrong, "equal to group.consumer.min.session.timeout.ms"),
        (GROUP, "g", vec![(SESSION, Op::Set, Some("60001"))], wrong, "equal to group.consumer.max.session.timeout.ms"),
        (GROUP, "g", vec![(HEARTBEAT, Op::Set, Some("4999"))], wrong, "group.consumer.min.heartbeat.interval.ms"),
        (GROUP, "g", vec![(HEARTBEAT, Op::Set, Some("15001"))], wrong, "group.consumer.max.heartbeat.interval.ms"),
        (GROUP, "g", vec![(SESSION, Op::Set, Some("x"))], wrong, "Not a number"),
        (8, "1", set("ringlog"), invalid, "Unsupported resource type: 8"),
    ];
    for (resource_type, name, configs, error, why) in cases {
        let (code, message) = alter(&mut state(1, &[("a", 1)]), resource(resource_type, name, &configs));
        assert_eq!(code, error.code(), "{resource_type} {name}: {message}");
        assert!(message.contains(why), "{message}");
    }
    let nothing = [("message.max.bytes", Op::Delete, None), ("no.such", Op::Delete, None)];
    assert_eq!(alter(&mut state(1, &[]), resource(BROKER, "1", &nothing)).0, 0, "nothing is set for it");
}

#[test]
fn a_broker_has_configs_of_its_own() {
    let mut state = state(2, &[("a", 1)]);
    let set = [("max.connections", Op::Set, Some("9")), ("log.segment.bytes", Op::Set, Some("2000000"))];
    assert_eq!(alter(&mut state, resource(BROKER, "1", &set)).0, 0);
    assert_eq!(state.own().of_broker(OWN).len(), 2);
    assert!(state.defaults().is_empty() && state.own().of_broker(BrokerId(2)).is_empty());
    let topic = state.topic("a").unwrap();
    assert_eq!(state.configs_of(topic, OWN)["segment.bytes"], "2000000");
    assert!(!state.configs_of(topic, BrokerId(2)).contains_key("segment.bytes"));
    assert!(plan(&state, &config(), &request(vec![resource(BROKER, "1", &set)]), OWN).command.is_none());
    assert_eq!(alter(&mut state, resource(BROKER, "1", &set.map(|(name, ..)| (name, Op::Delete, None)))).0, 0);
    assert!(state.own().of_broker(OWN).is_empty());
}

#[test]
fn a_group_has_configs_whether_it_is_there_or_not() {
    let mut state = state(1, &[]);
    assert_eq!(alter(&mut state, resource(GROUP, "g", &[(SESSION, Op::Set, Some("50000"))])).0, 0);
    assert_eq!(state.own().of_group("g")[SESSION], "50000");
    let bounds = BrokerConfig {
        groups: GroupConfig { consumer_heartbeat_intervals_ms: 1..=60_000, ..config().groups },
        ..config()
    };
    let late = request(vec![resource(GROUP, "g", &[(HEARTBEAT, Op::Set, Some("50000"))])]);
    let refused = plan(&state, &bounds, &late, OWN).outcome.incremental().responses.remove(0);
    assert_eq!(refused.error_code, ErrorCode::InvalidConfig.code());
    assert!(refused.error_message.unwrap().contains("must be greater than consumer.heartbeat.interval.ms"));
    assert_eq!(alter(&mut state, resource(GROUP, "g", &[(SESSION, Op::Delete, None)])).0, 0);
    assert_eq!(state.own().groups().next(), None);
}

#[test]
fn each_resource_has_its_own_result() {
    let set = [("retention.ms", Op::Set, Some("1"))];
    let mut resources: Vec<_> = ["a", "b", "no", "b"].map(|name| resource(TOPIC, name, &set)).into();
    resources.push(resource(BROKER, "", &[("log.retention.ms", Op::Set, Some("2"))]));
    let state = state(1, &[("a", 1), ("b", 1)]);
    let planned = plan(&state, &config(), &request(resources.clone()), OWN);
    let Some(Command::AlterConfigs { topics, defaults: Some(_) }) = planned.command else { panic!("{planned:?}") };
    assert_eq!(topics.len(), 1);
    let (twice, unknown) = (ErrorCode::InvalidRequest.code(), ErrorCode::UnknownTopicOrPartition.code());
    let codes: Vec<i16> = planned.outcome.incremental().responses.iter().map(|result| result.error_code).collect();
    assert_eq!(codes, [0, twice, unknown, twice, 0]);
    let validated = plan(&state, &config(), &request(resources).with_validate_only(true), OWN);
    assert!(validated.command.is_none());
    assert_eq!(validated.outcome.incremental().responses[0].error_code, 0);
}

#[test]
fn the_older_form_replaces_all_configs() {
    let set = |value: Option<&str>| {
        ReplacedConfig::default().with_name(text("max.message.bytes")).with_value(value.map(text))
    };
    let request = |value| {
        let resource = ReplacedResource::default()
            .with_resource_type(TOPIC)
            .with_resource_name(text("a"))
            .with_configs(vec![set(value)]);
        AlterConfigsRequest::default().with_resources(vec![resource])
    };
    let mut state = state(1, &[("a", 1)]);
    let plan = plan_replace(&state, &config(), &request(Some("7")), OWN);
    let response = plan.outcome.replaced();
    assert_encodable(&response, 0..=2);
    assert_eq!(response.responses[0].error_code, 0);
    state.apply(101, &plan.command.unwrap());
    assert_eq!(set_of(&state), [("max.message.bytes", "7")], "retention.ms is not set any more");
    let null = plan_replace(&state, &config(), &request(None), OWN).outcome.replaced();
    assert_eq!(null.responses[0].error_code, ErrorCode::InvalidRequest.code());
    let late = failed_replace(&request(None), ErrorCode::RequestTimedOut).replaced();
    assert_eq!((late.responses[0].error_code, &*late.responses[0].resource_name), (7, "a"));
}
