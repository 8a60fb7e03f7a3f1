//! librdkafka's consumers in groups.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use rdkafka::Message;
use rdkafka::config::FromClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};

use crate::common::librdkafka::{Recorder, config, create_topic};
use crate::common::process::{Launch, data_dir, external, shared};
use crate::common::{fresh, skipped};

pub(crate) const PARTITIONS: usize = 4;

/// A member of a group that reads a topic from its beginning and commits when it is told to.
pub(crate) fn member(brokers: &str, group: &str, topic: &str) -> BaseConsumer {
    let consumer = BaseConsumer::from_config(
        config(brokers)
            .set("group.id", group)
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "earliest")
            .set("session.timeout.ms", "6000")
            .set("heartbeat.interval.ms", "200"),
    );
    let consumer: BaseConsumer = consumer.expect("a consumer");
    consumer.subscribe(&[topic]).expect("a subscription");
    consumer
}

/// Lets the members read until `done`, which is asked after every record and every pause with what each has read.
pub(crate) fn read_until(
    members: &[&BaseConsumer],
    read: &mut [BTreeMap<i32, Vec<i64>>],
    mut done: impl FnMut(&[BTreeMap<i32, Vec<i64>>]) -> bool,
) {
    let end = Instant::now() + Duration::from_secs(60);
    while !done(read) {
        assert!(Instant::now() < end, "not within a minute: {read:?}");
        for (member, read) in members.iter().zip(read.iter_mut()) {
            // A broker that is starting is called again by the client: its errors are no end.
            if let Some(Ok(message)) = member.poll(Duration::from_millis(20)) {
                read.entry(message.partition()).or_default().push(message.offset());
            }
        }
    }
}

pub(crate) fn count(read: &[BTreeMap<i32, Vec<i64>>]) -> usize {
    read.iter().flat_map(BTreeMap::values).map(Vec::len).sum()
}

pub(crate) fn produce(brokers: &str, topic: &str, records: usize) {
    let recorder = Recorder::new(brokers, &[("acks", "all")]);
    for number in 0..records {
        recorder.send(topic, (number % PARTITIONS) as i32, number, None, b"x").expect("taken");
    }
    recorder.finish();
}

pub(crate) fn assigned(member: &BaseConsumer) -> BTreeSet<i32> {
    let assignment = member.assignment().expect("an assignment");
    assignment.elements().iter().map(|element| element.partition()).collect()
}

/// Has two members of a group take a half of the topic each, read 400 records and commit. Returns what each has read.
pub(crate) fn read_a_half_each(
    address: &str,
    topic: &str,
    members: [&BaseConsumer; 2],
) -> Vec<BTreeMap<i32, Vec<i64>>> {
    let mut read = vec![BTreeMap::new(); 2];
    read_until(&members, &mut read, |_| members.iter().all(|member| assigned(member).len() == 2));
    assert!(assigned(members[0]).is_disjoint(&assigned(members[1])));
    produce(address, topic, 400);
    read_until(&members, &mut read, |read| count(read) == 400);
    for member in members {
        member.commit_consumer_state(CommitMode::Sync).expect("committed");
    }
    read
}

#[test]
fn two_members_share_a_topic_and_one_takes_over() {
    let broker = shared();
    let (topic, group) = (fresh("shared-topic"), fresh("sharing"));
    create_topic(broker.address(), &topic, PARTITIONS as i32, &[]);
    let (first, second) = (member(broker.address(), &group, &topic), member(broker.address(), &group, &topic));
    let mut read = read_a_half_each(broker.address(), &topic, [&first, &second]);
    assert!(read.iter().all(|read| count(std::slice::from_ref(read)) == 200), "{read:?}");
    // The one that leaves says so: the other has everything at once.
    drop(second);
    read.pop();
    read_until(&[&first], &mut read, |_| assigned(&first).len() == PARTITIONS);
    produce(broker.address(), &topic, 400);
    let before = count(&read);
    read_until(&[&first], &mut read, |read| count(read) >= before + 400);
    let newest: Vec<i64> = read[0].values().map(|offsets| *offsets.last().expect("some")).collect();
    assert_eq!(newest, [199; PARTITIONS]);
    assert_eq!(count(&read), 600, "what the other had committed was not read again");
}

#[test]
fn a_group_goes_on_after_a_kill() {
    if external().is_some() {
        return skipped("the broker is not ours to stop");
    }
    let directory = data_dir();
    let mut broker = Launch::new(directory.path()).start();
    let address = broker.address();
    create_topic(&address, "kills", PARTITIONS as i32, &[]);
    let consumer = member(&address, "survivors", "kills");
    let mut read = vec![BTreeMap::new()];
    for round in 1..=3 {
        produce(&address, "kills", 100);
        read_until(&[&consumer], &mut read, |read| count(read) == 100 * round);
        consumer.commit_consumer_state(CommitMode::Sync).expect("committed");
        broker = broker.kill().start();
    }
    // The member that was there goes on; one that is new begins where the group was.
    produce(&address, "kills", 100);
    read_until(&[&consumer], &mut read, |read| count(read) == 400);
    for offsets in read[0].values() {
        assert!(offsets.iter().copied().eq(0..100), "each record once and in order: {offsets:?}");
    }
    consumer.commit_consumer_state(CommitMode::Sync).expect("committed");
    drop(consumer);
    let broker = broker.kill().start();
    let consumer = member(&address, "survivors", "kills");
    produce(&address, "kills", 40);
    let mut read = vec![BTreeMap::new()];
    read_until(&[&consumer], &mut read, |read| count(read) == 40);
    assert!(read[0].values().all(|offsets| offsets.iter().copied().eq(100..110)), "{read:?}");
    drop(consumer);
    drop(broker);
}
