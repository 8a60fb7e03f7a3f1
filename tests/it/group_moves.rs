//! Three brokers: a group goes on where its coordinator is killed, with its members, its generation and its offsets.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use kafka_protocol::messages::FindCoordinatorRequest;
use rdkafka::Message;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};

use crate::cluster::{Cluster, NODES};
use crate::common::librdkafka::{RESILIENT, Recorder, create_replicated};
use crate::common::wait_until;
use crate::common::wire::{Wire, text};
use crate::consumer_groups::modern;
use crate::group_clients::{assigned, member};
use crate::groups::{commit, committed, heartbeat, kept, settle_alone};

const LIMIT: Duration = Duration::from_secs(30);

/// The place of the broker that coordinates a group, as one of the brokers says.
fn coordinator(cluster: &Cluster, asked: usize, group: &str) -> Option<usize> {
    let mut wire = Wire::connect(&cluster.broker(asked).address());
    let request = FindCoordinatorRequest::default().with_coordinator_keys(vec![text(group)]);
    let found = wire.call(4, &request).coordinators.remove(0);
    (found.error_code == 0).then(|| found.node_id.0 as usize - 1)
}

fn await_coordinator(cluster: &Cluster, asked: usize, group: &str, not: Option<usize>) -> usize {
    let mut found = None;
    let there = wait_until(LIMIT, || {
        found = coordinator(cluster, asked, group);
        found.is_some() && found != not
    });
    assert!(there, "no coordinator of {group}: {found:?}");
    found.expect("it was found")
}

#[test]
fn a_group_keeps_its_generation_when_its_coordinator_is_killed() {
    let Some(mut cluster) = Cluster::start() else { return };
    (0..NODES as usize).for_each(|node| cluster.await_all(node));
    create_replicated(&cluster.addresses(), "moving", 1, 3, &[]);
    let mut home = await_coordinator(&cluster, 0, "movers", None);
    let mut wire = Wire::connect(&cluster.broker(home).address());
    wire.await_coordinator("movers");
    let (member, generation) = settle_alone(&mut wire, "movers", "all of it");
    // Each broker that coordinates the group is killed in its turn.
    for round in 1..=2 {
        assert_eq!(committed(&mut wire, &commit("movers", generation, &member, "moving", &[(0, round)])), [0]);
        let launch = cluster.kill(home);
        let asked = (home + 1) % NODES as usize;
        let next = await_coordinator(&cluster, asked, "movers", Some(home));
        wire = Wire::connect(&cluster.broker(next).address());
        wire.await_coordinator("movers");
        assert_eq!(wire.call(4, &heartbeat("movers", generation, &member)).error_code, 0, "the generation goes on");
        assert_eq!(kept(&mut wire, "movers"), [("moving".to_owned(), 0, round)]);
        cluster.brokers[home] = Some(launch.start());
        cluster.await_all(home);
        home = next;
    }
    assert_eq!(committed(&mut wire, &commit("movers", generation, &member, "moving", &[(0, 9)])), [0]);
}

/// Two consumers of a group with what each has read.
struct Readers {
    members: [BaseConsumer; 2],
    read: [BTreeMap<i32, Vec<i64>>; 2],
}

impl Readers {
    fn count(&self) -> usize {
        self.read.iter().flat_map(BTreeMap::values).map(Vec::len).sum()
    }

    /// Reads until `done`.
    fn read_until(&mut self, what: &str, done: impl Fn(&Readers) -> bool) {
        let end = Instant::now() + LIMIT;
        while !done(self) {
            assert!(Instant::now() < end, "{what}: {} records are read", self.count());
            for (member, read) in self.members.iter().zip(&mut self.read) {
                // A broker that dies is an error to the client, from which it recovers.
                if let Some(Ok(message)) = member.poll(Duration::from_millis(5)) {
                    read.entry(message.partition()).or_default().push(message.offset());
                }
            }
        }
    }

    /// Whether both can commit what they have read.
    fn commit(&self) -> bool {
        self.members.iter().all(|member| member.commit_consumer_state(CommitMode::Sync).is_ok())
    }
}

#[test]
fn consumers_go_on_without_reading_anything_twice_when_their_coordinator_is_killed() {
    go_on_without_their_coordinator(member);
}

#[test]
fn members_of_the_consumer_protocol_go_on_likewise() {
    go_on_without_their_coordinator(modern);
}

fn go_on_without_their_coordinator(member: fn(&str, &str, &str) -> BaseConsumer) {
    let Some(mut cluster) = Cluster::start() else { return };
    const PARTITIONS: usize = 4;
    const EACH: usize = 400;
    (0..NODES as usize).for_each(|node| cluster.await_all(node));
    let addresses = cluster.addresses();
    create_replicated(&addresses, "followed", PARTITIONS as i32, 3, &[]);
    let member = || member(&addresses, "followers", "followed");
    let mut readers = Readers { members: [member(), member()], read: Default::default() };
    readers
        .read_until("sharing", |readers| readers.members.iter().all(|member| assigned(member).len() == PARTITIONS / 2));
    let shares: Vec<BTreeSet<i32>> = readers.members.iter().map(assigned).collect();

    let recorder = Recorder::new(&addresses, &RESILIENT);
    let produce = |round: usize| {
        for number in round * EACH..(round + 1) * EACH {
            recorder.send("followed", (number % PARTITIONS) as i32, number, None, b"x").expect("taken");
        }
    };
    produce(0);
    readers.read_until("before", |readers| readers.count() == EACH);
    assert!(readers.commit());
    let home = await_coordinator(&cluster, 0, "followers", None);
    let launch = cluster.kill(home);
    produce(1);
    readers.read_until("while it is away", |readers| readers.count() == 2 * EACH);
    readers.read_until("committing elsewhere", Readers::commit);
    cluster.brokers[home] = Some(launch.start());
    produce(2);
    readers.read_until("after", |readers| readers.count() == 3 * EACH);

    assert_eq!(readers.members.iter().map(assigned).collect::<Vec<_>>(), shares, "everyone keeps its share");
    for offsets in readers.read.iter().flat_map(BTreeMap::values) {
        assert!(offsets.iter().copied().eq(0..offsets.len() as i64), "each record once and in order: {offsets:?}");
    }
}
