//! Two members of a group of the consumer protocol: no partition is read by both, and in the end each is read by one.

use std::collections::BTreeSet;

use bytes::Bytes;
use kafka_protocol::messages::consumer_group_heartbeat_request::TopicPartitions;
use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::{
    ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse, FindCoordinatorRequest, FindCoordinatorResponse,
    GroupId, OffsetCommitRequest, OffsetCommitResponse,
};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::{Client, Context, Links, broker_index, topic_name};
use crate::config::GroupConfig;
use crate::group::OFFSETS_TOPIC;
use crate::limits::{AUTO_CREATE_MS, GROUP_COMMIT_MS};
use crate::sim::checkers::{Model, code};
use crate::sim::wire;

const GROUP: &str = "pair";
const FIND_VERSION: i16 = 4;
const HEARTBEAT_VERSION: i16 = 1;
const COMMIT_VERSION: i16 = 9;
const REBALANCE_MS: i32 = 300_000;

/// Milliseconds for which a coordinator of a cluster may answer though another has taken over and read its log: the
/// members' sessions began earlier there.
const DEPOSED_MS: u64 = 5_000;

const UNKNOWN_MEMBER_ID: i16 = 25;
const FENCED_MEMBER_EPOCH: i16 = 110;
const STALE_MEMBER_EPOCH: i16 = 113;

enum Purpose {
    Find,
    /// Of the member of this number.
    Heartbeat(usize),
    Commit(usize),
}

/// A member as it sees itself.
#[derive(Default)]
struct Half {
    epoch: i32,
    topic: Uuid,
    owned: BTreeSet<i32>,
    /// Until when the coordinator must take it for a member, microseconds of virtual time.
    sure_until: u64,
    /// When its last heartbeat was sent.
    sent_at: u64,
    lives: bool,
    /// An answer to it may have been lost, or the coordinator is another one.
    unsure: bool,
}

/// The two members, who share their connections.
pub(in crate::sim) struct Pair {
    halves: [Half; 2],
    next: usize,
    found: bool,
    partitions: usize,
    links: Links<Purpose>,
    /// The broker that is asked: the group's coordinator, or any while that one is looked for.
    broker: usize,
    retry_at: u64,
    settling: bool,
    last_error: i16,
}

impl Pair {
    /// The members of the only such group, which read a topic of so many partitions.
    pub(in crate::sim) fn new(partitions: usize) -> Pair {
        Pair {
            halves: Default::default(),
            next: 0,
            found: false,
            partitions,
            links: Links::default(),
            broker: 0,
            retry_at: 0,
            settling: false,
            last_error: code::NONE,
        }
    }

    fn is_shared(&self) -> bool {
        self.halves.iter().all(|half| half.lives)
            && self.halves.iter().map(|half| half.owned.len()).sum::<usize>() == self.partitions
    }

    fn go_on(&mut self, cx: &mut Context<'_>) {
        for broker in 0..cx.brokers {
            if self.links.at(broker).give_up(cx, false).is_some() {
                self.lost(cx);
            }
        }
        cx.wake_in(50_000);
        let done = self.settling && self.is_shared();
        let waits = done || cx.now < self.retry_at || self.links.pending() > 0;
        if waits || !self.links.at(self.broker).is_up(cx) {
            return;
        }
        if !self.found {
            let request = FindCoordinatorRequest::default().with_coordinator_keys(vec![text(GROUP)]);
            return self.links.at(self.broker).send(cx, FIND_VERSION, &request, AUTO_CREATE_MS, Purpose::Find);
        }
        self.next = 1 - self.next;
        let member = self.next;
        // Now and then one goes without a word, and comes again.
        if !self.settling && cx.rng.below(200) == 0 {
            self.halves[member] = Half::default();
        }
        if self.halves[member].epoch > 0 && cx.rng.below(4) == 0 {
            self.commit(cx, member)
        } else {
            self.beat(cx, member)
        }
    }

    fn beat(&mut self, cx: &mut Context<'_>, member: usize) {
        let half = &mut self.halves[member];
        let joins = half.epoch == 0;
        if joins {
            half.owned.clear();
        }
        // Whoever may have missed an answer says everything again, and so is told everything again.
        let whole = joins || std::mem::take(&mut half.unsure);
        half.sent_at = cx.now;
        let owned =
            TopicPartitions::default().with_topic_id(half.topic).with_partitions(half.owned.iter().copied().collect());
        let request = ConsumerGroupHeartbeatRequest::default()
            .with_group_id(GroupId(text(GROUP)))
            .with_member_id(text(&format!("member-{member}")))
            .with_member_epoch(half.epoch)
            .with_rebalance_timeout_ms(if whole { REBALANCE_MS } else { -1 })
            .with_subscribed_topic_names(whole.then(|| vec![topic_name(OFFSETS_TOPIC)]))
            .with_topic_partitions(Some(if joins { Vec::new() } else { vec![owned] }));
        let purpose = Purpose::Heartbeat(member);
        self.links.at(self.broker).send(cx, HEARTBEAT_VERSION, &request, GROUP_COMMIT_MS, purpose);
    }

    fn commit(&mut self, cx: &mut Context<'_>, member: usize) {
        let partition = OffsetCommitRequestPartition::default().with_committed_offset(1);
        let topic =
            OffsetCommitRequestTopic::default().with_name(topic_name(OFFSETS_TOPIC)).with_partitions(vec![partition]);
        let request = OffsetCommitRequest::default()
            .with_group_id(GroupId(text(GROUP)))
            .with_generation_id_or_member_epoch(self.halves[member].epoch)
            .with_member_id(text(&format!("member-{member}")))
            .with_topics(vec![topic]);
        self.links.at(self.broker).send(cx, COMMIT_VERSION, &request, GROUP_COMMIT_MS, Purpose::Commit(member));
    }

    fn lost(&mut self, cx: &mut Context<'_>) {
        self.retry_at = cx.now + 100_000;
        self.find(cx);
    }

    fn find(&mut self, cx: &mut Context<'_>) {
        self.halves.iter_mut().for_each(|half| half.unsure = true);
        self.found = false;
        self.broker = cx.any_broker();
    }

    fn refused(&mut self, cx: &mut Context<'_>, member: usize, error: i16) {
        self.last_error = error;
        self.retry_at = cx.now + 50_000;
        match error {
            // It gives up all that it has at once.
            UNKNOWN_MEMBER_ID | FENCED_MEMBER_EPOCH => self.halves[member] = Half::default(),
            STALE_MEMBER_EPOCH => {}
            _ => self.find(cx),
        }
    }

    fn told(&mut self, cx: &mut Context<'_>, member: usize, response: &ConsumerGroupHeartbeatResponse) {
        let session = GroupConfig::default().consumer_session_timeout_ms * 1_000;
        let half = &mut self.halves[member];
        assert!(response.member_epoch >= half.epoch, "protocol: the epoch of member {member} went back");
        half.epoch = response.member_epoch;
        half.lives = true;
        half.sure_until = half.sent_at + session - if cx.brokers > 1 { DEPOSED_MS * 1_000 } else { 0 };
        if let Some(assignment) = &response.assignment {
            half.owned =
                assignment.topic_partitions.iter().flat_map(|topic| topic.partitions.iter().copied()).collect();
            half.topic = assignment.topic_partitions.first().map_or(half.topic, |topic| topic.topic_id);
        }
        let [one, other] = &self.halves;
        if one.sure_until > cx.now && other.sure_until > cx.now {
            let both: Vec<&i32> = one.owned.intersection(&other.owned).collect();
            assert!(both.is_empty(), "partitions {both:?} are read by two members");
        }
    }
}

fn text(value: &str) -> StrBytes {
    StrBytes::from_string(value.to_owned())
}

impl Client for Pair {
    fn wake(&mut self, cx: &mut Context<'_>) {
        self.go_on(cx);
    }

    fn connected(&mut self, cx: &mut Context<'_>, broker: usize) {
        self.links.at(broker).connected();
        self.go_on(cx);
    }

    fn answered(&mut self, cx: &mut Context<'_>, broker: usize, frame: Bytes) {
        match self.links.at(broker).answered(&frame) {
            Purpose::Find => {
                let response: FindCoordinatorResponse = wire::response(FIND_VERSION, frame);
                let found = &response.coordinators[0];
                if found.error_code != code::NONE {
                    self.last_error = found.error_code;
                    self.retry_at = cx.now + 50_000;
                    return self.find(cx);
                }
                self.found = true;
                self.broker = broker_index(found.node_id.0, cx.brokers);
            }
            Purpose::Heartbeat(member) => {
                let response: ConsumerGroupHeartbeatResponse = wire::response(HEARTBEAT_VERSION, frame);
                match response.error_code {
                    code::NONE => self.told(cx, member, &response),
                    error => self.refused(cx, member, error),
                }
            }
            Purpose::Commit(member) => {
                let response: OffsetCommitResponse = wire::response(COMMIT_VERSION, frame);
                match response.topics[0].partitions[0].error_code {
                    code::NONE => {}
                    error => self.refused(cx, member, error),
                }
            }
        }
    }

    fn closed(&mut self, cx: &mut Context<'_>, broker: usize) {
        self.links.at(broker).closed();
        if broker == self.broker {
            self.lost(cx);
        }
        cx.wake_in(10_000);
    }

    fn settle(&mut self, _now: u64) {
        self.settling = true;
    }

    fn is_settled(&self, model: &Model) -> bool {
        self.is_shared() || model.impaired
    }

    fn state(&self) -> String {
        let halves: Vec<(i32, usize)> = self.halves.iter().map(|half| (half.epoch, half.owned.len())).collect();
        format!(
            "members of the group {GROUP} with (epoch, partitions) {halves:?}, last error {}, {} requests under way",
            self.last_error,
            self.links.pending()
        )
    }
}
