//! What is there already changes: partitions are added, configs are altered, and what is under way goes by it at once.

use std::time::Duration;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::create_partitions_request::{CreatePartitionsAssignment, CreatePartitionsTopic};
use kafka_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::DescribeConfigsResourceResult;
use kafka_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::messages::{
    AlterConfigsRequest, BrokerId, CreatePartitionsRequest, DescribeConfigsRequest, IncrementalAlterConfigsRequest,
    alter_configs_request,
};

use crate::common::process::{Launch, data_dir, external, shared};
use crate::common::records::{batch, values};
use crate::common::wire::{Wire, code, text, topic_name};
use crate::common::{fresh, skipped};

/// Kafka's numbers of kinds of resources, and of operations.
const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;

fn connect() -> Wire {
    Wire::connect(shared().address())
}

fn grow(wire: &mut Wire, topic: CreatePartitionsTopic, validate_only: bool) -> CreatePartitionsTopicResult {
    let request = CreatePartitionsRequest::default()
        .with_topics(vec![topic])
        .with_timeout_ms(10_000)
        .with_validate_only(validate_only);
    wire.call(3, &request).results.remove(0)
}

fn to(name: &str, count: i32) -> CreatePartitionsTopic {
    CreatePartitionsTopic::default().with_name(topic_name(name)).with_count(count).with_assignments(None)
}

fn alter(wire: &mut Wire, kind: i8, name: &str, configs: &[(&str, i8, Option<&str>)]) -> i16 {
    let config = |(name, op, value): &(&str, i8, Option<&str>)| {
        AlterableConfig::default().with_name(text(name)).with_config_operation(*op).with_value(value.map(text))
    };
    let resource = AlterConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(text(name))
        .with_configs(configs.iter().map(config).collect());
    let answer = wire.call(1, &IncrementalAlterConfigsRequest::default().with_resources(vec![resource]));
    let [result] = &answer.responses[..] else { panic!("{answer:?}") };
    assert_eq!((result.resource_type, result.resource_name.as_str()), (kind, name));
    assert_eq!(result.error_code != 0, result.error_message.is_some(), "errors say why");
    result.error_code
}

fn described(wire: &mut Wire, kind: i8, name: &str, config: &str) -> Option<DescribeConfigsResourceResult> {
    let resource = DescribeConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(text(name))
        .with_configuration_keys(Some(vec![text(config)]));
    let request = DescribeConfigsRequest::default().with_resources(vec![resource]).with_include_synonyms(true);
    let mut result = wire.call(4, &request).results.remove(0);
    assert_eq!(result.error_code, 0);
    (!result.configs.is_empty()).then(|| result.configs.remove(0))
}

#[test]
fn added_partitions_can_be_used_at_once() {
    if external().is_some() {
        return skipped("Kafka answers before it shows the partitions");
    }
    let mut wire = connect();
    for _ in 0..10 {
        let name = fresh("grows");
        wire.create_topic(&name, 2, &[]);
        assert_eq!(wire.produce(&name, 0, batch(&["before"])).error_code, 0);
        assert_eq!(grow(&mut wire, to(&name, 5), false).error_code, 0);
        let mut other = connect();
        let shown = other.metadata(&name).topics.remove(0);
        assert_eq!((shown.error_code, shown.partitions.len()), (0, 5));
        assert!(shown.partitions.iter().all(|partition| partition.error_code == 0 && partition.leader_id.0 >= 0));
        for partition in 2..5 {
            assert_eq!(other.produce(&name, partition, batch(&["after"])).error_code, 0);
        }
        assert_eq!(values(other.fetch(&name, 0, 0).records.expect("records")), ["before"]);
        assert_eq!(values(other.fetch(&name, 4, 0).records.expect("records")), ["after"]);
    }
}

#[test]
fn partitions_that_cannot_be_added_are_refused() {
    let mut wire = connect();
    let name = fresh("stays");
    wire.create_topic(&name, 2, &[]);
    let node = wire.metadata(&name).brokers[0].node_id;
    let assigned = |count, brokers: &[&[i32]]| {
        let assignment = |brokers: &&[i32]| {
            CreatePartitionsAssignment::default().with_broker_ids(brokers.iter().copied().map(BrokerId).collect())
        };
        to(&name, count).with_assignments(Some(brokers.iter().map(assignment).collect()))
    };
    for (topic, error) in [
        (to(&name, 2), ResponseError::InvalidPartitions),
        (to(&name, 1), ResponseError::InvalidPartitions),
        (to(&name, -1), ResponseError::InvalidPartitions),
        (to(&fresh("nowhere"), 3), ResponseError::UnknownTopicOrPartition),
        (assigned(3, &[&[node.0 + 77]]), ResponseError::InvalidReplicaAssignment),
        (assigned(4, &[&[node.0]]), ResponseError::InvalidReplicaAssignment),
        (assigned(3, &[&[]]), ResponseError::InvalidReplicaAssignment),
    ] {
        let result = grow(&mut wire, topic, false);
        assert_eq!(result.error_code, code(error), "{:?}", result.error_message);
        assert!(result.error_message.is_some_and(|message| !message.is_empty()));
    }
    let twice = CreatePartitionsRequest::default().with_topics(vec![to(&name, 3), to(&name, 4)]).with_timeout_ms(5_000);
    let twice = wire.call(3, &twice).results;
    assert_eq!((twice.len(), twice[0].error_code), (1, code(ResponseError::InvalidRequest)));
    assert_eq!(grow(&mut wire, to(&name, 3), true).error_code, 0, "only validated");
    assert_eq!(wire.metadata(&name).topics[0].partitions.len(), 2);
    assert_eq!(grow(&mut wire, assigned(3, &[&[node.0]]), false).error_code, 0);
    assert_eq!(wire.metadata(&name).topics[0].partitions.len(), 3);
}

#[test]
fn a_topics_configs_take_effect_on_what_is_open() {
    let mut wire = connect();
    let name = fresh("altered");
    wire.create_topic(&name, 1, &[]);
    let large = "x".repeat(2_000);
    assert_eq!(wire.produce(&name, 0, batch(&[&large])).error_code, 0);

    assert_eq!(alter(&mut wire, TOPIC, &name, &[("max.message.bytes", SET, Some("1000"))]), 0);
    assert_eq!(wire.produce(&name, 0, batch(&[&large])).error_code, code(ResponseError::MessageTooLarge));
    let found = described(&mut wire, TOPIC, &name, "max.message.bytes").expect("the config");
    assert_eq!((found.value.as_deref(), found.config_source, found.read_only), (Some("1000"), 1, false));
    let sources: Vec<i8> = found.synonyms.iter().map(|synonym| synonym.source).collect();
    assert_eq!((sources.first(), sources.last()), (Some(&1), Some(&5)), "its own before the built-in one");

    assert_eq!(alter(&mut wire, TOPIC, &name, &[("max.message.bytes", DELETE, None)]), 0);
    assert_eq!(wire.produce(&name, 0, batch(&[&large])).error_code, 0);

    assert_eq!(alter(&mut wire, TOPIC, &name, &[("message.timestamp.type", SET, Some("LogAppendTime"))]), 0);
    assert!(wire.produce(&name, 0, batch(&["stamped"])).log_append_time_ms > 0);
    assert_eq!(alter(&mut wire, TOPIC, &name, &[("message.timestamp.type", DELETE, None)]), 0);
    assert_eq!(alter(&mut wire, TOPIC, &name, &[("message.timestamp.before.max.ms", SET, Some("0"))]), 0);
    assert_eq!(wire.produce(&name, 0, batch(&["from the past"])).error_code, code(ResponseError::InvalidTimestamp));
}

#[test]
fn configs_that_are_none_are_refused() {
    let mut wire = connect();
    let name = fresh("configs");
    wire.create_topic(&name, 1, &[("retention.ms", "5000")]);
    let node = wire.metadata(&name).brokers[0].node_id.0.to_string();
    let (invalid, config) = (ResponseError::InvalidRequest, ResponseError::InvalidConfig);
    for (kind, resource, key, op, value, error) in [
        (TOPIC, name.as_str(), "no.such.config", SET, Some("1"), config),
        (TOPIC, &name, "retention.ms", SET, Some("soon"), config),
        (TOPIC, &name, "retention.ms", SET, None, invalid),
        (TOPIC, &name, "retention.ms", APPEND, Some("1"), config),
        (TOPIC, &name, "retention.ms", 9, Some("1"), invalid),
        (TOPIC, "no-such-topic", "retention.ms", SET, Some("1"), ResponseError::UnknownTopicOrPartition),
        (BROKER, "4711", "message.max.bytes", SET, Some("1"), invalid),
        (BROKER, "", "log.segment.bytes", SET, Some("many"), invalid),
        (BROKER, &node, "node.id", SET, Some("9"), invalid),
        (77, "", "x", SET, Some("1"), invalid),
    ] {
        assert_eq!(alter(&mut wire, kind, resource, &[(key, op, value)]), code(error), "{resource} {key} {op}");
    }
    let kept = described(&mut wire, TOPIC, &name, "retention.ms").expect("the config");
    assert_eq!(kept.value.as_deref(), Some("5000"));
}

#[test]
fn the_older_request_replaces_all_configs() {
    let mut wire = connect();
    let name = fresh("replaced");
    wire.create_topic(&name, 1, &[("retention.ms", "5000")]);
    let config = alter_configs_request::AlterableConfig::default()
        .with_name(text("segment.bytes"))
        .with_value(Some(text("2097152")));
    let resource = alter_configs_request::AlterConfigsResource::default()
        .with_resource_type(TOPIC)
        .with_resource_name(text(&name))
        .with_configs(vec![config]);
    let request = AlterConfigsRequest::default().with_resources(vec![resource]);
    assert_eq!(wire.call(2, &request.clone().with_validate_only(true)).responses[0].error_code, 0);
    assert_eq!(described(&mut wire, TOPIC, &name, "retention.ms").expect("it").config_source, 1, "only validated");
    assert_eq!(wire.call(2, &request).responses[0].error_code, 0);
    assert_eq!(described(&mut wire, TOPIC, &name, "retention.ms").expect("it").config_source, 5);
    assert_eq!(described(&mut wire, TOPIC, &name, "segment.bytes").expect("it").value.as_deref(), Some("2097152"));
}

#[test]
fn what_is_set_for_all_brokers_outlives_them() {
    if external().is_some() {
        return skipped("the broker is not ours to restart");
    }
    let directory = data_dir();
    let broker = Launch::new(directory.path()).start();
    let mut wire = Wire::connect(&broker.address());
    let (plain, own) = (fresh("plain"), fresh("own"));
    wire.create_topic(&plain, 1, &[]);
    wire.create_topic(&own, 1, &[("max.message.bytes", "100000")]);
    assert_eq!(alter(&mut wire, BROKER, "", &[("message.max.bytes", SET, Some("1000"))]), 0);
    assert_eq!(grow(&mut wire, to(&plain, 3), false).error_code, 0);
    let launch = broker.kill();
    let broker = launch.start();
    let mut wire = Wire::connect(&broker.address());
    let large = "x".repeat(2_000);
    for partition in 0..3 {
        let refused = wire.produce(&plain, partition, batch(&[&large])).error_code;
        assert_eq!(refused, code(ResponseError::MessageTooLarge), "partition {partition}");
    }
    assert_eq!(wire.produce(&own, 0, batch(&[&large])).error_code, 0);
    let found = described(&mut wire, TOPIC, &plain, "max.message.bytes").expect("the config");
    assert_eq!((found.value.as_deref(), found.config_source), (Some("1000"), 3));
    let found = described(&mut wire, BROKER, "", "message.max.bytes").expect("the config");
    assert_eq!((found.value.as_deref(), found.config_source), (Some("1000"), 3));
    assert_eq!(alter(&mut wire, BROKER, "", &[("message.max.bytes", DELETE, None)]), 0);
    assert!(described(&mut wire, BROKER, "", "message.max.bytes").is_none());
    assert_eq!(wire.produce(&plain, 0, batch(&[&large])).error_code, 0);
}

#[test]
fn clients_that_alter_one_topic_at_once_do_not_overwrite_each_other() {
    let mut wire = connect();
    let name = fresh("contended");
    wire.create_topic(&name, 1, &[]);
    let keys = ["retention.ms", "max.message.bytes", "segment.bytes", "message.timestamp.after.max.ms"];
    std::thread::scope(|scope| {
        for key in keys {
            let name = &name;
            scope.spawn(move || {
                let mut wire = connect();
                for value in 2_000_000..2_000_020 {
                    assert_eq!(alter(&mut wire, TOPIC, name, &[(key, SET, Some(&value.to_string()))]), 0);
                    let found = described(&mut wire, TOPIC, name, key).expect("the config");
                    assert_eq!(found.value, Some(text(&value.to_string())), "{key}");
                }
            });
        }
    });
    for key in keys {
        let found = described(&mut wire, TOPIC, &name, key).expect("the config");
        assert_eq!((found.value.as_deref(), found.config_source), (Some("2000019"), 1), "{key}");
    }
}

#[test]
fn of_clients_that_want_the_same_partitions_one_is_told_that_it_made_them() {
    if external().is_some() {
        return skipped("Kafka answers before it shows the partitions");
    }
    let mut wire = connect();
    let name = fresh("race");
    wire.create_topic(&name, 1, &[]);
    let errors: Vec<i16> = std::thread::scope(|scope| {
        let racers: Vec<_> =
            (0..6).map(|_| scope.spawn(|| grow(&mut connect(), to(&name, 4), false).error_code)).collect();
        racers.into_iter().map(|racer| racer.join().expect("the client")).collect()
    });
    assert_eq!(errors.iter().filter(|error| **error == 0).count(), 1, "{errors:?}");
    let late = code(ResponseError::InvalidPartitions);
    assert!(errors.iter().all(|error| [0, late].contains(error)), "{errors:?}");
    assert_eq!(wire.metadata(&name).topics[0].partitions.len(), 4);
}

#[test]
fn what_is_set_for_one_broker_takes_effect_there_and_outlives_it() {
    if external().is_some() {
        return skipped("the broker is not ours to restart");
    }
    let directory = data_dir();
    let broker = Launch::new(directory.path()).start();
    let mut wire = Wire::connect(&broker.address());
    let name = fresh("own-broker");
    wire.create_topic(&name, 1, &[]);
    let set = |value| [("message.max.bytes", SET, Some(value)), ("max.connections.per.ip", SET, Some("2"))];
    assert_eq!(alter(&mut wire, BROKER, "", &set("5000")), 0);
    assert_eq!(alter(&mut wire, BROKER, "1", &set("1000")), 0);
    let launch = broker.kill();
    let broker = launch.start();
    let mut wire = Wire::connect(&broker.address());
    let large = "x".repeat(2_000);
    assert_eq!(wire.produce(&name, 0, batch(&[&large])).error_code, code(ResponseError::MessageTooLarge));
    let found = described(&mut wire, BROKER, "1", "message.max.bytes").expect("the config");
    let synonyms: Vec<_> =
        found.synonyms.iter().map(|synonym| (synonym.value.as_deref().unwrap(), synonym.source)).collect();
    assert_eq!(synonyms, [("1000", 2), ("5000", 3), ("1048588", 5)]);
    // Two connections there may be, so a third is closed until more are allowed.
    let mut second = Wire::connect(&broker.address());
    // Shards take connections side by side: the second must have been taken before there is a third.
    second.metadata(&name);
    assert!(Wire::connect(&broker.address()).is_closed_within(Duration::from_secs(10)));
    let unset = [("message.max.bytes", DELETE, None), ("max.connections.per.ip", SET, Some("3"))];
    assert_eq!(alter(&mut wire, BROKER, "1", &unset), 0);
    let mut third = Wire::connect(&broker.address());
    assert_eq!(third.produce(&name, 0, batch(&[&large])).error_code, 0, "5000 bytes are allowed everywhere");
    drop(second);
}
