//! Groups of the consumer protocol (KIP-848), frame by frame and by librdkafka.

use std::collections::BTreeMap;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::consumer_group_heartbeat_request::TopicPartitions;
use kafka_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::messages::list_groups_response::ListedGroup;
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestGroup;
use kafka_protocol::messages::{
    ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse, ConsumerGroupHeartbeatRequest,
    ConsumerGroupHeartbeatResponse, DescribeGroupsRequest, IncrementalAlterConfigsRequest, ListGroupsRequest,
    OffsetFetchRequest,
};
use rdkafka::config::FromClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use uuid::Uuid;

use crate::common::librdkafka::{config, create_topic};
use crate::common::process::{Launch, data_dir, external, shared};
use crate::common::wire::{Wire, code, text, topic_name};
use crate::common::{fresh, skipped};
use crate::group_clients::{PARTITIONS, assigned, count, member, produce, read_a_half_each, read_until};
use crate::groups::commit;

/// The first heartbeat of a member.
fn join(group: &str, member: &str, topic: &str) -> ConsumerGroupHeartbeatRequest {
    ConsumerGroupHeartbeatRequest::default()
        .with_group_id(text(group).into())
        .with_member_id(text(member))
        .with_rebalance_timeout_ms(20_000)
        .with_subscribed_topic_names(Some(vec![topic_name(topic)]))
        .with_topic_partitions(Some(Vec::new()))
}

/// A later one, of a member that reads these partitions.
fn beat(group: &str, member: &str, epoch: i32, topic: Uuid, owned: &[i32]) -> ConsumerGroupHeartbeatRequest {
    let owned = TopicPartitions::default().with_topic_id(topic).with_partitions(owned.to_vec());
    ConsumerGroupHeartbeatRequest::default()
        .with_group_id(text(group).into())
        .with_member_id(text(member))
        .with_member_epoch(epoch)
        .with_topic_partitions(Some(vec![owned]))
}

/// What a member is told to read; nothing where that is as it was.
fn told(response: &ConsumerGroupHeartbeatResponse) -> Option<Vec<i32>> {
    assert_eq!(response.error_code, 0, "{:?}", response.error_message);
    let topics = response.assignment.as_ref()?.topic_partitions.iter();
    Some(topics.flat_map(|topic| topic.partitions.iter().copied()).collect())
}

fn described(wire: &mut Wire, group: &str) -> ConsumerGroupDescribeResponse {
    wire.call(1, &ConsumerGroupDescribeRequest::default().with_group_ids(vec![text(group).into()]))
}

fn listed(wire: &mut Wire, group: &str, types: &[&str]) -> Option<ListedGroup> {
    let request = ListGroupsRequest::default().with_types_filter(types.iter().map(|name| text(name)).collect());
    wire.call(5, &request).groups.into_iter().find(|listed| listed.group_id.as_str() == group)
}

/// The errors of a commit of offset 5 in partition 0.
fn committing(wire: &mut Wire, group: &str, member: &str, epoch: i32, topic: &str) -> i16 {
    wire.call(9, &commit(group, epoch, member, topic, &[(0, 5)])).topics[0].partitions[0].error_code
}

/// A member joins a group that was assigned to just now: it comes again when it is told to, and is at `epoch` then.
fn join_later(wire: &mut Wire, group: &str, member: &str, topic: (&str, Uuid), epoch: i32) {
    let joined = wire.call(1, &join(group, member, topic.0));
    assert_eq!((joined.member_epoch, told(&joined)), (epoch - 1, Some(vec![])));
    assert!((1..=1_000).contains(&joined.heartbeat_interval_ms), "{}", joined.heartbeat_interval_ms);
    std::thread::sleep(std::time::Duration::from_millis(joined.heartbeat_interval_ms as u64));
    let again = wire.call(1, &beat(group, member, epoch - 1, topic.1, &[]));
    assert_eq!((again.member_epoch, told(&again)), (epoch, None));
}

#[test]
fn two_members_are_led_to_their_halves() {
    let broker = shared();
    let mut wire = Wire::connect(broker.address());
    let (topic, group) = (fresh("led-topic"), fresh("led"));
    let id = wire.create_topic(&topic, 4, &[]);
    wire.await_coordinator(&group);
    let first = wire.call(1, &join(&group, "a", &topic));
    assert_eq!((first.member_epoch, told(&first)), (1, Some(vec![0, 1, 2, 3])));
    assert_eq!(first.heartbeat_interval_ms, 5_000);
    join_later(&mut wire, &group, "b", (&topic, id), 2);
    let back = wire.call(1, &beat(&group, "a", 1, id, &[0, 1, 2, 3]));
    assert_eq!((back.member_epoch, told(&back)), (1, Some(vec![0, 1])));
    assert_eq!(committing(&mut wire, &group, "a", 1, &topic), 0);
    assert_eq!(described(&mut wire, &group).groups[0].group_state.as_str(), "Reconciling");
    assert_eq!(wire.call(1, &beat(&group, "a", 1, id, &[0, 1])).member_epoch, 2);
    let given = wire.call(1, &beat(&group, "b", 2, id, &[]));
    assert_eq!(told(&given), Some(vec![2, 3]));
    assert_eq!(told(&wire.call(1, &beat(&group, "b", 2, id, &[2, 3]))), None);

    assert_eq!(committing(&mut wire, &group, "a", 1, &topic), code(ResponseError::StaleMemberEpoch));
    assert_eq!(committing(&mut wire, &group, "x", 1, &topic), code(ResponseError::UnknownMemberId));
    let fenced = wire.call(1, &beat(&group, "b", 7, id, &[]));
    assert_eq!(fenced.error_code, code(ResponseError::FencedMemberEpoch));
    for (member, epoch, error) in [("a", 2, 0), ("a", 1, code(ResponseError::StaleMemberEpoch))] {
        let asked = OffsetFetchRequestGroup::default()
            .with_group_id(text(&group).into())
            .with_member_id(Some(text(member)))
            .with_member_epoch(epoch)
            .with_topics(None);
        let fetched = wire.call(9, &OffsetFetchRequest::default().with_groups(vec![asked]));
        assert_eq!(fetched.groups[0].error_code, error);
    }
    let mut group_described = described(&mut wire, &group).groups.remove(0);
    assert_eq!(group_described.group_state.as_str(), "Stable");
    assert_eq!((group_described.group_epoch, group_described.assignment_epoch), (2, 2));
    assert_eq!(group_described.assignor_name.as_str(), "uniform");
    let a = group_described.members.remove(0);
    assert_eq!((a.member_id.as_str(), a.member_epoch, a.member_type), ("a", 2, 1));
    assert_eq!(a.assignment, a.target_assignment);
    assert_eq!(a.assignment.topic_partitions[0].topic_name.as_str(), topic);
    let classic = wire.call(5, &DescribeGroupsRequest::default().with_groups(vec![text(&group).into()]));
    assert_eq!(classic.groups[0].group_state.as_str(), "Dead", "it is no classic group");
    let shown = listed(&mut wire, &group, &["consumer"]).expect("it is listed");
    assert_eq!((shown.group_state.as_str(), shown.group_type.as_str()), ("Stable", "consumer"));
    assert!(listed(&mut wire, &group, &["classic"]).is_none());
    for member in ["a", "b"] {
        let leave = ConsumerGroupHeartbeatRequest::default().with_group_id(text(&group).into());
        let left = wire.call(1, &leave.with_member_id(text(member)).with_member_epoch(-1));
        assert_eq!((left.error_code, left.member_epoch), (0, -1));
    }
    assert_eq!(listed(&mut wire, &group, &[]).expect("it is listed").group_state.as_str(), "Empty");
}

#[test]
fn a_kill_loses_no_group() {
    if external().is_some() {
        return skipped("the broker is not ours to stop");
    }
    let directory = data_dir();
    let mut broker = Launch::new(directory.path()).start();
    let mut wire = Wire::connect(&broker.address());
    let id = wire.create_topic("t", 2, &[]);
    wire.await_coordinator("g");
    assert_eq!(told(&wire.call(1, &join("g", "a", "t"))), Some(vec![0, 1]));
    join_later(&mut wire, "g", "b", ("t", id), 2);
    for _ in 0..2 {
        let before = described(&mut wire, "g");
        broker = broker.kill().start();
        wire = Wire::connect(&broker.address());
        wire.await_coordinator("g");
        assert_eq!(described(&mut wire, "g"), before);
    }
    assert_eq!(told(&wire.call(1, &beat("g", "a", 1, id, &[0, 1]))), Some(vec![0]));
    drop(broker);
}

/// A member of the consumer protocol.
pub fn modern(brokers: &str, group: &str, topic: &str) -> BaseConsumer {
    let consumer = BaseConsumer::from_config(
        config(brokers)
            .set("group.id", group)
            .set("group.protocol", "consumer")
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "earliest"),
    );
    let consumer: BaseConsumer = consumer.expect("a consumer");
    consumer.subscribe(&[topic]).expect("a subscription");
    consumer
}

#[test]
fn librdkafkas_members_share_a_topic_and_one_takes_over() {
    let broker = shared();
    let (topic, group) = (fresh("modern-topic"), fresh("modern"));
    create_topic(broker.address(), &topic, PARTITIONS as i32, &[]);
    // The second subscribes with a regular expression.
    let pattern = format!("^{topic}$");
    let (first, second) = (modern(broker.address(), &group, &topic), modern(broker.address(), &group, &pattern));
    let mut read = read_a_half_each(broker.address(), &topic, [&first, &second]);
    drop(second);
    read.pop();
    read_until(&[&first], &mut read, |_| assigned(&first).len() == PARTITIONS);
    produce(broker.address(), &topic, 400);
    let before = count(&read);
    read_until(&[&first], &mut read, |read| count(read) == before + 400);
}

#[test]
fn librdkafkas_members_go_over_from_one_protocol_to_the_other() {
    let broker = shared();
    let (topic, group) = (fresh("over-topic"), fresh("over"));
    create_topic(broker.address(), &topic, PARTITIONS as i32, &[]);
    let classic = member(broker.address(), &group, &topic);
    let mut read = vec![BTreeMap::new()];
    read_until(&[&classic], &mut read, |_| assigned(&classic).len() == PARTITIONS);
    produce(broker.address(), &topic, 100);
    read_until(&[&classic], &mut read, |read| count(read) == 100);
    classic.commit_consumer_state(CommitMode::Sync).expect("committed");

    let modern = modern(broker.address(), &group, &topic);
    let mut read = vec![BTreeMap::new(); 2];
    let both = [&classic, &modern];
    read_until(&both, &mut read, |_| both.iter().all(|member| assigned(member).len() == PARTITIONS / 2));
    let mut wire = Wire::connect(broker.address());
    let members = described(&mut wire, &group).groups.remove(0).members;
    let mut types: Vec<i8> = members.iter().map(|member| member.member_type).collect();
    types.sort_unstable();
    assert_eq!(types, [0, 1]);
    produce(broker.address(), &topic, 100);
    read_until(&both, &mut read, |read| count(read) == 100);
    both.iter().for_each(|member| member.commit_consumer_state(CommitMode::Sync).expect("committed"));

    // The only one of the consumer protocol leaves: the group is a classic one again.
    drop(modern);
    read.pop();
    read_until(&[&classic], &mut read, |_| assigned(&classic).len() == PARTITIONS);
    assert!(listed(&mut wire, &group, &["classic"]).is_some());
    let before = count(&read);
    produce(broker.address(), &topic, 100);
    read_until(&[&classic], &mut read, |read| count(read) == before + 100);
}

#[test]
fn a_group_is_told_the_interval_that_was_set_for_it() {
    const GROUP: i8 = 32;
    let broker = shared();
    let mut wire = Wire::connect(broker.address());
    let (topic, group) = (fresh("paced-topic"), fresh("paced"));
    wire.create_topic(&topic, 1, &[]);
    wire.await_coordinator(&group);
    let set = |wire: &mut Wire, value: Option<&str>| {
        let config = AlterableConfig::default()
            .with_name(text("consumer.heartbeat.interval.ms"))
            .with_config_operation(if value.is_some() { 0 } else { 1 })
            .with_value(value.map(text));
        let resource = AlterConfigsResource::default()
            .with_resource_type(GROUP)
            .with_resource_name(text(&group))
            .with_configs(vec![config]);
        let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
        wire.call(1, &request).responses[0].error_code
    };
    assert_eq!(set(&mut wire, Some("1")), code(ResponseError::InvalidConfig));
    assert_eq!(set(&mut wire, Some("7000")), 0);
    let joined = wire.call(1, &join(&group, "a", &topic));
    assert_eq!((told(&joined), joined.heartbeat_interval_ms), (Some(vec![0]), 7_000));
    assert_eq!(set(&mut wire, None), 0);
    assert_eq!(wire.call(1, &join(&group, "a", &topic)).heartbeat_interval_ms, 5_000);
}
