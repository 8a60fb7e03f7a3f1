//! A consumer that is alone in its group, but for what it left behind itself: it joins, lives, commits ever greater offsets and looks what became of them.

use bytes::Bytes;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    FindCoordinatorRequest, FindCoordinatorResponse, GroupId, HeartbeatRequest, HeartbeatResponse, JoinGroupRequest,
    JoinGroupResponse, OffsetCommitRequest, OffsetCommitResponse, OffsetFetchRequest, OffsetFetchResponse,
    SyncGroupRequest, SyncGroupResponse,
};
use kafka_protocol::protocol::StrBytes;

use super::{Client, Context, Links, broker_index, topic_name};
use crate::group::OFFSETS_TOPIC;
use crate::limits::{AUTO_CREATE_MS, GROUP_COMMIT_MS, JOIN_SLACK_MS, REQUEST_TIMEOUT_MS};
use crate::sim::checkers::{Model, code};
use crate::sim::wire;

const FIND_VERSION: i16 = 4;
/// A version that gives a member its id with the first join.
const JOIN_VERSION: i16 = 3;
const SYNC_VERSION: i16 = 2;
const HEARTBEAT_VERSION: i16 = 2;
const COMMIT_VERSION: i16 = 6;
const FETCH_VERSION: i16 = 7;

const SESSION_MS: i32 = 10_000;
const REBALANCE_MS: i32 = 3_000;
const ASSIGNMENT: &[u8] = b"everything";

enum Purpose {
    Find,
    Join,
    Sync,
    Heartbeat,
    /// With the offset.
    Commit(i64),
    Fetch,
}

/// What is to be done next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Find,
    Join,
    Sync,
    Work,
}

/// A member of a group of its own.
pub(in crate::sim) struct Member {
    group: String,
    stage: Stage,
    member_id: String,
    generation: i32,
    leads: bool,
    /// The greatest offset that was sent, and the greatest that is known to be kept.
    sent: i64,
    kept: i64,
    links: Links<Purpose>,
    /// The broker that is asked: the group's coordinator, or any while that one is looked for.
    broker: usize,
    retry_at: u64,
    settling: bool,
    verified: bool,
    last_error: i16,
}

impl Member {
    /// The only member of the group of this number.
    pub(in crate::sim) fn new(number: u64) -> Member {
        Member {
            group: format!("group-{number}"),
            stage: Stage::Find,
            member_id: String::new(),
            generation: -1,
            leads: false,
            sent: -1,
            kept: -1,
            links: Links::default(),
            broker: 0,
            retry_at: 0,
            settling: false,
            verified: false,
            last_error: code::NONE,
        }
    }

    fn group(&self) -> GroupId {
        GroupId(text(&self.group))
    }

    fn go_on(&mut self, cx: &mut Context<'_>) {
        for broker in 0..cx.brokers {
            if let Some(lost) = self.links.at(broker).give_up(cx, false) {
                self.lost(cx, &lost);
            }
        }
        cx.wake_in(20_000);
        let waits = self.verified || cx.now < self.retry_at || self.links.pending() > 0;
        if waits || !self.links.at(self.broker).is_up(cx) {
            return;
        }
        match self.stage {
            Stage::Find => {
                let request = FindCoordinatorRequest::default().with_coordinator_keys(vec![text(&self.group)]);
                self.links.at(self.broker).send(cx, FIND_VERSION, &request, AUTO_CREATE_MS, Purpose::Find);
            }
            _ if self.settling => self.fetch(cx),
            Stage::Join => {
                let protocol = JoinGroupRequestProtocol::default().with_name(text("range"));
                let request = JoinGroupRequest::default()
                    .with_group_id(self.group())
                    .with_session_timeout_ms(SESSION_MS)
                    .with_rebalance_timeout_ms(REBALANCE_MS)
                    .with_member_id(text(&self.member_id))
                    .with_protocol_type(text("consumer"))
                    .with_protocols(vec![protocol]);
                let within = i64::from(REBALANCE_MS) + JOIN_SLACK_MS;
                self.links.at(self.broker).send(cx, JOIN_VERSION, &request, within, Purpose::Join);
            }
            Stage::Sync => {
                let own = SyncGroupRequestAssignment::default()
                    .with_member_id(text(&self.member_id))
                    .with_assignment(Bytes::from_static(ASSIGNMENT));
                let request = SyncGroupRequest::default()
                    .with_group_id(self.group())
                    .with_generation_id(self.generation)
                    .with_member_id(text(&self.member_id))
                    .with_assignments(vec![own]);
                self.links.at(self.broker).send(cx, SYNC_VERSION, &request, REQUEST_TIMEOUT_MS, Purpose::Sync);
            }
            Stage::Work => match cx.rng.below(4) {
                0 => {
                    let request = HeartbeatRequest::default()
                        .with_group_id(self.group())
                        .with_generation_id(self.generation)
                        .with_member_id(text(&self.member_id));
                    self.links.at(self.broker).send(
                        cx,
                        HEARTBEAT_VERSION,
                        &request,
                        REQUEST_TIMEOUT_MS,
                        Purpose::Heartbeat,
                    );
                }
                1 => self.fetch(cx),
                _ => self.commit(cx),
            },
        }
    }

    fn commit(&mut self, cx: &mut Context<'_>) {
        self.sent += 1;
        // Of all topics this one is never deleted.
        let partition = OffsetCommitRequestPartition::default()
            .with_committed_offset(self.sent)
            .with_committed_metadata(Some(text("kept")));
        let topic =
            OffsetCommitRequestTopic::default().with_name(topic_name(OFFSETS_TOPIC)).with_partitions(vec![partition]);
        let request = OffsetCommitRequest::default()
            .with_group_id(self.group())
            .with_generation_id_or_member_epoch(self.generation)
            .with_member_id(text(&self.member_id))
            .with_topics(vec![topic]);
        self.links.at(self.broker).send(cx, COMMIT_VERSION, &request, GROUP_COMMIT_MS, Purpose::Commit(self.sent));
    }

    fn fetch(&mut self, cx: &mut Context<'_>) {
        let request = OffsetFetchRequest::default().with_group_id(self.group()).with_topics(None);
        self.links.at(self.broker).send(cx, FETCH_VERSION, &request, GROUP_COMMIT_MS, Purpose::Fetch);
    }

    fn lost(&mut self, cx: &mut Context<'_>, purposes: &[Purpose]) {
        let committing = purposes.iter().any(|purpose| matches!(purpose, Purpose::Commit(_)));
        // A commit that is still on its way must not come after the next: it is not begun after its deadline.
        let wait = if committing { 2 * GROUP_COMMIT_MS as u64 * 1_000 } else { 100_000 };
        self.retry_at = cx.now + wait;
        self.find(cx);
    }

    fn find(&mut self, cx: &mut Context<'_>) {
        self.stage = Stage::Find;
        self.broker = cx.any_broker();
    }

    /// Goes on after an answer to a member: it joins again where it must.
    fn refused(&mut self, cx: &mut Context<'_>, error: i16) {
        self.last_error = error;
        self.retry_at = cx.now + 50_000;
        match error {
            UNKNOWN_MEMBER_ID => {
                self.member_id.clear();
                self.stage = Stage::Join;
            }
            ILLEGAL_GENERATION | REBALANCE_IN_PROGRESS => self.stage = Stage::Join,
            _ => self.find(cx),
        }
    }

    fn fetched(&mut self, cx: &mut Context<'_>, frame: Bytes) {
        let response: OffsetFetchResponse = wire::response(FETCH_VERSION, frame);
        if response.error_code != code::NONE {
            return self.refused(cx, response.error_code);
        }
        let offset = response.topics.first().map_or(-1, |topic| topic.partitions[0].committed_offset);
        let (kept, sent) = (self.kept, self.sent);
        assert!(offset >= kept, "S9: the offset of {} went back from {kept} to {offset}", self.group);
        assert!(offset <= sent, "S9: {} keeps {offset}, and {sent} is the greatest that was sent", self.group);
        self.kept = offset;
        self.verified = self.settling;
    }
}

const ILLEGAL_GENERATION: i16 = 22;
const UNKNOWN_MEMBER_ID: i16 = 25;
const REBALANCE_IN_PROGRESS: i16 = 27;

fn text(value: &str) -> StrBytes {
    StrBytes::from_string(value.to_owned())
}

impl Client for Member {
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
                    return self.refused(cx, found.error_code);
                }
                self.broker = broker_index(found.node_id.0, cx.brokers);
                self.stage = if self.generation >= 0 { Stage::Work } else { Stage::Join };
            }
            Purpose::Join => {
                let response: JoinGroupResponse = wire::response(JOIN_VERSION, frame);
                if response.error_code != code::NONE {
                    return self.refused(cx, response.error_code);
                }
                // A join whose connection was lost leaves a member behind, which may even lead for a while.
                self.leads = response.leader == response.member_id;
                assert_eq!(response.members.is_empty(), !self.leads, "protocol: the leader is told of the members");
                self.member_id = response.member_id.to_string();
                self.generation = response.generation_id;
                self.stage = Stage::Sync;
            }
            Purpose::Sync => {
                let response: SyncGroupResponse = wire::response(SYNC_VERSION, frame);
                if response.error_code != code::NONE {
                    return self.refused(cx, response.error_code);
                }
                assert!(!self.leads || response.assignment == ASSIGNMENT, "protocol: another assignment");
                self.stage = Stage::Work;
            }
            Purpose::Heartbeat => {
                let response: HeartbeatResponse = wire::response(HEARTBEAT_VERSION, frame);
                if response.error_code != code::NONE {
                    self.refused(cx, response.error_code);
                }
            }
            Purpose::Commit(offset) => {
                let response: OffsetCommitResponse = wire::response(COMMIT_VERSION, frame);
                match response.topics[0].partitions[0].error_code {
                    code::NONE => self.kept = self.kept.max(offset),
                    error => self.refused(cx, error),
                }
            }
            Purpose::Fetch => self.fetched(cx, frame),
        }
    }

    fn closed(&mut self, cx: &mut Context<'_>, broker: usize) {
        let lost = self.links.at(broker).closed();
        if broker == self.broker {
            self.lost(cx, &lost);
        }
        cx.wake_in(10_000);
    }

    fn settle(&mut self, _now: u64) {
        self.settling = true;
    }

    fn is_settled(&self, model: &Model) -> bool {
        // A partition of the groups' topic that cannot be read back is refused rather than begun anew.
        self.verified || model.impaired
    }

    fn state(&self) -> String {
        format!(
            "{} at {:?}, generation {}, {} of {} kept, last error {}, {} requests under way",
            self.group,
            self.stage,
            self.generation,
            self.kept,
            self.sent,
            self.last_error,
            self.links.pending()
        )
    }
}
