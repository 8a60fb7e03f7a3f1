//! The groups whose partitions of the groups' topic this shard owns: their log is their coordinator's.
//!
//! A request is decoded on the shard of its connection and comes here as an op. While a partition is read back its
//! groups are refused as loading; where this broker does not lead it they are not here. Records are appended to the
//! partition as a producer's would be, those of a turn together (`writes`), and what waits for them goes on when the high
//! watermark has passed them.

mod writes;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::BytesMut;
use uuid::Uuid;

use super::Shard;
use super::mesh::{Answer, Op, OpKind, RequestId};
use super::requests::{Kind, Origin, Pending};
use super::view::{CommittedView, GroupPage, GroupView, MemberView};
use crate::group::{
    Ask, Assignor, Committed, DescribedMember, Error, GroupTimes, Groups, KnownTopic, OFFSETS_TOPIC, Output, Outside,
    Overrides, Record, Reply, Settings, Surveyed, Topics, Waiter, partition_of,
};
use crate::limits::{GROUP_LOAD_BYTES, LOOK_PARTITIONS, MAX_GROUP_MEMBERS};
use crate::metadata::State;
use crate::metadata::state::Topic;
use crate::partition::{Found, Records};
use crate::protocol::{ErrorCode, ResponseBody};
use crate::record::split_batches;
use crate::types::{Deadline, LeaderEpoch, LogId, Now, Offset};
use writes::Writes;

/// The partitions of the groups' topic on this shard.
#[derive(Default)]
pub(super) struct Coordinated {
    logs: BTreeMap<LogId, Hosted>,
    /// Those of them that have gathered records in this turn.
    gathering: Vec<LogId>,
    /// Bytes of records that are not durable yet.
    in_flight_bytes: usize,
}

/// A partition of the groups' topic.
#[derive(Default)]
struct Hosted {
    stage: Stage,
    writes: Writes,
}

#[derive(Default)]
enum Stage {
    /// Another broker leads the partition, or nobody.
    #[default]
    Away,
    /// What the log holds is read back: up to `next`, of `end`.
    Loading { epoch: LeaderEpoch, groups: Groups, next: Offset, end: Offset },
    /// The groups are here, for as long as this epoch lasts.
    Here { epoch: LeaderEpoch, groups: Groups },
    /// What the log holds cannot be read: the groups stay refused rather than begin anew without their offsets.
    Unreadable { epoch: LeaderEpoch },
}

impl Stage {
    fn epoch(&self) -> Option<LeaderEpoch> {
        match self {
            Stage::Away => None,
            Stage::Loading { epoch, .. } | Stage::Here { epoch, .. } | Stage::Unreadable { epoch } => Some(*epoch),
        }
    }
}

impl Coordinated {
    /// Whether something is under way that wants frequent ticks.
    pub(super) fn busy(&self) -> bool {
        self.logs.values().any(|hosted| matches!(hosted.stage, Stage::Loading { .. }))
    }
}

/// A request to groups whose answers are gathered.
pub(super) trait Gather: Send {
    /// Takes the answer to one of the asks, which stand as late until then.
    fn take(&mut self, part: usize, result: Result<Reply, Error>);

    /// The response, of what is known by now.
    fn finish(self: Box<Self>) -> ResponseBody;
}

fn view_of(surveyed: Surveyed) -> GroupView {
    let Surveyed { group, described, offsets } = surveyed;
    let member = |member: DescribedMember| MemberView {
        member_id: member.member_id,
        instance: member.instance,
        client_id: member.client_id,
        client_host: member.client_host,
    };
    let committed = |(topic, partition, committed): (Arc<str>, i32, Committed)| CommittedView {
        topic: topic.to_string(),
        partition,
        offset: committed.offset,
        committed_ms: committed.time_ms,
        high_watermark: None,
        lag: None,
    };
    GroupView {
        group: group.to_string(),
        state: described.state.name(),
        protocol_type: described.protocol_type,
        protocol: described.protocol,
        members: described.members.into_iter().map(member).collect(),
        offsets: offsets.into_iter().map(committed).collect(),
    }
}

/// The error that a client is told of.
pub(super) fn error_code(error: Error) -> ErrorCode {
    match error {
        Error::UnknownMember => ErrorCode::UnknownMemberId,
        Error::IllegalGeneration => ErrorCode::IllegalGeneration,
        Error::RebalanceInProgress => ErrorCode::RebalanceInProgress,
        Error::InconsistentProtocol => ErrorCode::InconsistentGroupProtocol,
        Error::MaxSizeReached => ErrorCode::GroupMaxSizeReached,
        Error::FencedInstance => ErrorCode::FencedInstanceId,
        Error::GroupIdNotFound => ErrorCode::GroupIdNotFound,
        Error::NonEmptyGroup => ErrorCode::NonEmptyGroup,
        Error::SubscribedToTopic => ErrorCode::GroupSubscribedToTopic,
        Error::InvalidCommitSize => ErrorCode::InvalidCommitOffsetSize,
        Error::NotCoordinator => ErrorCode::NotCoordinator,
        Error::NotAvailable => ErrorCode::CoordinatorNotAvailable,
        Error::Loading => ErrorCode::CoordinatorLoadInProgress,
        // What Kafka says where a group's record is larger than its topic takes.
        Error::TooLarge => ErrorCode::UnknownServerError,
        Error::InvalidRequest => ErrorCode::InvalidRequest,
        Error::FencedMemberEpoch => ErrorCode::FencedMemberEpoch,
        Error::StaleMemberEpoch => ErrorCode::StaleMemberEpoch,
        Error::UnreleasedInstance => ErrorCode::UnreleasedInstanceId,
        Error::UnsupportedAssignor => ErrorCode::UnsupportedAssignor,
        Error::InvalidRegex => ErrorCode::InvalidRegularExpression,
        Error::UnsupportedVersion => ErrorCode::UnsupportedVersion,
    }
}

impl Topics for State {
    fn version(&self) -> u64 {
        self.applied()
    }

    fn by_name(&self, name: &str) -> Option<KnownTopic> {
        self.topic(name).map(|topic| known(topic))
    }

    fn by_id(&self, id: Uuid) -> Option<KnownTopic> {
        self.topic_by_id(id).map(|topic| known(topic))
    }

    fn each_name(&self, each: &mut dyn FnMut(&str)) {
        self.topics().for_each(|topic| each(&topic.name));
    }
}

impl Overrides for State {
    fn of(&self, group: &str) -> GroupTimes {
        let configs = self.own().of_group(group);
        let ms = |name: &str| configs.get(name).and_then(|value| value.parse().ok());
        GroupTimes { session_ms: ms("consumer.session.timeout.ms"), heartbeat_ms: ms("consumer.heartbeat.interval.ms") }
    }
}

fn known(topic: &Topic) -> KnownTopic {
    KnownTopic { id: topic.id, name: topic.name.clone(), partitions: topic.partitions.len() as i32 }
}

impl Shard {
    // ---- the shard of the connection ----

    /// The log that keeps a group; none where the topic of all groups is not there yet.
    pub(super) fn group_log(&self, group: &str) -> Option<LogId> {
        let topic = self.state.topic(OFFSETS_TOPIC)?;
        Some(topic.partitions[partition_of(group, topic.partitions.len())].log)
    }

    /// Sends each ask to the log's owner, and answers when all are answered or the time is up. The number of an ask in
    /// the list is its part. One without a log is refused: its client must look for the coordinator first.
    pub(super) fn ask_groups(
        &mut self,
        now: Now,
        origin: Origin,
        deadline: Deadline,
        mut gathering: Box<dyn Gather>,
        asks: Vec<(Option<LogId>, Ask)>,
    ) {
        let mut ops = Vec::with_capacity(asks.len());
        for (part, (log, ask)) in asks.into_iter().enumerate() {
            match log {
                Some(log) => ops.push((part as u32, log, ask)),
                None => gathering.take(part, Err(Error::NotCoordinator)),
            }
        }
        if ops.is_empty() {
            return self.respond(origin, &gathering.finish());
        }
        let kind = Kind::Groups { open: ops.len(), gathering };
        let number = self.requests.insert(Pending { origin, deadline, kind });
        let request = RequestId { shard: self.id, number };
        for (part, log, ask) in ops {
            self.send_op(now, Op { request, part, log, kind: OpKind::Group { ask: Box::new(ask), deadline } });
        }
    }

    // ---- the owner of the log ----

    /// A partition was opened: where it is one of the groups' topic, its groups will be here.
    pub(super) fn host_groups(&mut self, topic: &Topic, log: LogId) {
        if &*topic.name == OFFSETS_TOPIC {
            self.groups.logs.insert(log, Hosted::default());
        }
    }

    /// A partition is gone, and its groups with it.
    pub(super) fn end_groups(&mut self, now: Now, log: LogId) {
        self.leave_groups(now, log);
        self.groups.logs.remove(&log);
    }

    /// Takes a request to a group.
    pub(super) fn run_group_op(&mut self, now: Now, op: Op) {
        let OpKind::Group { ask, deadline } = op.kind else { unreachable!("only asks of groups come here") };
        if deadline.passed(now) {
            // Its client was told so by the shard of the connection.
            return;
        }
        self.look_after(now, op.log);
        let waiter = Waiter { shard: op.request.shard, number: op.request.number, part: op.part };
        let stopping = self.stopping && matches!(*ask, Ask::Join(_) | Ask::Sync(_));
        let refused = match self.groups.logs.get_mut(&op.log).map(|hosted| &mut hosted.stage) {
            None | Some(Stage::Away) => Error::NotCoordinator,
            // The member does well to stay: that it is one is not known to be wrong.
            Some(Stage::Loading { .. }) if matches!(*ask, Ask::Heartbeat(_)) => {
                return self.answer_waiter(now, waiter, Ok(Reply::Done));
            }
            Some(Stage::Loading { .. }) => Error::Loading,
            Some(Stage::Unreadable { .. }) => Error::NotAvailable,
            Some(Stage::Here { .. }) if stopping => Error::NotAvailable,
            Some(Stage::Here { groups, .. }) => {
                groups.ask(outside(now, &self.state), waiter, *ask);
                return self.carry_out(now, op.log);
            }
        };
        self.answer_waiter(now, waiter, Err(refused));
    }

    /// Looks whether this broker leads a partition, as it must to have its groups, and reads on where it loads.
    fn look_after(&mut self, now: Now, log: LogId) {
        let Some(hosted) = self.groups.logs.get(&log) else { return };
        let led = self.owned.get(&log).filter(|owned| owned.partition.is_up());
        let epoch = led.map(|owned| owned.partition.epoch());
        if hosted.stage.epoch() != epoch {
            self.leave_groups(now, log);
            let Some(owned) = self.owned.get(&log).filter(|_| epoch.is_some()) else { return };
            let (next, end) = (owned.partition.log_start(), owned.partition.high_watermark());
            let groups = Groups::new(self.group_settings());
            let stage = Stage::Loading { epoch: owned.partition.epoch(), groups, next, end };
            self.groups.logs.get_mut(&log).expect("it was there").stage = stage;
            self.load_groups(now, log);
        }
    }

    fn group_settings(&self) -> Settings {
        let groups = &self.config.groups;
        let policy = &*groups.consumer_migration_policy;
        Settings {
            initial_rebalance_delay_ms: self.config.groups.initial_rebalance_delay_ms,
            max_size: self.config.groups.max_size.min(MAX_GROUP_MEMBERS),
            offsets_retention_ms: self.config.groups.offsets_retention_ms,
            consumer_session_ms: groups.consumer_session_timeout_ms,
            consumer_heartbeat_ms: groups.consumer_heartbeat_interval_ms,
            consumer_assignment_ms: groups.consumer_assignment_interval_ms,
            consumer_max_size: groups.consumer_max_size.min(MAX_GROUP_MEMBERS),
            assignors: groups.consumer_assignors.split(',').filter_map(Assignor::named).collect(),
            upgrade: matches!(policy, "bidirectional" | "upgrade"),
            downgrade: matches!(policy, "bidirectional" | "downgrade"),
        }
    }

    fn groups_here(&self) -> impl Iterator<Item = &Groups> {
        self.groups.logs.values().filter_map(|hosted| match &hosted.stage {
            Stage::Here { groups, .. } => Some(groups),
            _ => None,
        })
    }

    /// How many groups are here.
    pub(super) fn group_count(&self) -> usize {
        self.groups_here().map(Groups::len).sum()
    }

    /// Groups that are here, at most `most` of those whose ids come after `after`, by id, and whether there are more.
    pub(super) fn group_views(&self, after: &str, most: usize) -> GroupPage {
        let parts = self.groups_here().map(|groups| groups.survey(after, most, LOOK_PARTITIONS));
        GroupPage::join(
            parts.map(|(found, more)| GroupPage { groups: found.into_iter().map(view_of).collect(), more }),
            most,
        )
    }

    /// A group, where it is here.
    pub(super) fn group_view(&self, id: &str) -> Option<GroupView> {
        self.groups_here().find_map(|groups| groups.survey_one(id)).map(view_of)
    }

    /// Reads on in a partition that is being taken over.
    pub(super) fn load_groups(&mut self, now: Now, log: LogId) {
        let Some(Hosted { stage: Stage::Loading { groups, next, end, .. }, .. }) = self.groups.logs.get_mut(&log)
        else {
            return;
        };
        let Some(owned) = self.owned.get(&log) else { return };
        if *next < *end {
            match owned.partition.read(*next, GROUP_LOAD_BYTES) {
                // What was there was deleted.
                Ok(Found::Here(records)) if records.len == 0 => *next = *end,
                Ok(Found::Here(records)) => {
                    let before = *next;
                    *next = replay(outside(now, &self.state), log, groups, records, *next, *end);
                    assert!(*next > before, "a read below the high watermark finds a batch");
                }
                Ok(Found::OnDisk(read)) => return self.read_disk(log, read),
                Err(error) => return self.groups_unreadable(now, log, &format!("{error:?}")),
            }
        }
        if let Some(Hosted { stage, .. }) = self.groups.logs.get_mut(&log)
            && matches!(&*stage, Stage::Loading { next, end, .. } if next >= end)
            && let Stage::Loading { epoch, groups, end, .. } = std::mem::take(stage)
        {
            if groups.is_empty() {
                tracing::debug!(%log, epoch, "a partition of the groups' topic is here");
            } else {
                tracing::info!(%log, epoch, groups = groups.len(), records = end, "the groups of a partition are here");
            }
            *stage = Stage::Here { epoch, groups };
            self.forget_missing_topics(now, log);
        }
    }

    /// Topics may have been deleted while nobody had the groups.
    fn forget_missing_topics(&mut self, now: Now, log: LogId) {
        if let Some(Hosted { stage: Stage::Here { groups, .. }, .. }) = self.groups.logs.get_mut(&log) {
            let state = &self.state;
            groups.forget_topics(outside(now, state), |topic| state.topic(topic).is_none());
            self.carry_out(now, log);
        }
    }

    /// A topic was deleted: how far it was read means nothing any more.
    pub(super) fn forget_topic_offsets(&mut self, now: Now, topic: &Topic) {
        let logs: Vec<LogId> = self.groups.logs.keys().copied().collect();
        for log in logs {
            if let Some(Hosted { stage: Stage::Here { groups, .. }, .. }) = self.groups.logs.get_mut(&log) {
                groups.forget_topics(outside(now, &self.state), |name| name == &*topic.name);
                self.carry_out(now, log);
            }
        }
    }

    /// A read of the disk that a partition needed is done, or has failed.
    pub(super) fn groups_read(&mut self, now: Now, log: LogId, failure: Option<ErrorCode>) {
        match failure {
            None => self.load_groups(now, log),
            Some(error) => self.groups_unreadable(now, log, &format!("{error:?}")),
        }
    }

    fn groups_unreadable(&mut self, now: Now, log: LogId, why: &str) {
        self.note_damage(now, log);
        if self.owned.get(&log).is_some_and(|owned| owned.partition.is_mendable()) {
            // They are read on from there when that is done.
            return;
        }
        if let Some(Hosted { stage, .. }) = self.groups.logs.get_mut(&log)
            && let Stage::Loading { epoch, .. } = stage
        {
            tracing::error!(%log, why, "the groups of a partition cannot be read back; they are refused until another broker, or the next start, can");
            *stage = Stage::Unreadable { epoch: *epoch };
        }
    }

    /// Time has passed for all groups of this shard.
    pub(super) fn tick_groups(&mut self, now: Now) {
        let logs: Vec<LogId> = self.groups.logs.keys().copied().collect();
        for log in logs {
            self.look_after(now, log);
            match self.groups.logs.get_mut(&log).map(|hosted| &mut hosted.stage) {
                Some(Stage::Here { groups, .. }) => {
                    groups.tick(outside(now, &self.state));
                    self.carry_out(now, log);
                }
                Some(Stage::Loading { .. }) => self.load_groups(now, log),
                _ => {}
            }
        }
    }

    /// The broker is stopping: whoever waits for others is answered, to look for another coordinator.
    pub(super) fn stop_groups(&mut self, now: Now) {
        let logs: Vec<LogId> = self.groups.logs.keys().copied().collect();
        for log in logs {
            if let Some(Hosted { stage: Stage::Here { groups, .. }, .. }) = self.groups.logs.get_mut(&log) {
                groups.release(Error::NotAvailable);
                self.carry_out(now, log);
            }
        }
    }

    /// The groups of a partition are not here any more: everyone who waits must look for them elsewhere.
    pub(super) fn leave_groups(&mut self, now: Now, log: LogId) {
        let Some(hosted) = self.groups.logs.get_mut(&log) else { return };
        let stage = std::mem::take(&mut hosted.stage);
        let writes = std::mem::take(&mut hosted.writes);
        self.groups.in_flight_bytes -= writes.in_flight_bytes();
        for waiter in writes.into_waiters() {
            self.answer_waiter(now, waiter, Err(Error::NotCoordinator));
        }
        if let Stage::Here { mut groups, .. } = stage {
            groups.release(Error::NotCoordinator);
            for output in groups.take_outputs() {
                if let Output::Answer(waiter, result) = output {
                    self.answer_waiter(now, waiter, result);
                }
            }
        }
    }

    /// Does what the groups of a partition want done.
    fn carry_out(&mut self, now: Now, log: LogId) {
        loop {
            let Some(Hosted { stage: Stage::Here { groups, .. }, .. }) = self.groups.logs.get_mut(&log) else { return };
            let outputs = groups.take_outputs();
            if outputs.is_empty() {
                return;
            }
            for output in outputs {
                match output {
                    Output::Answer(waiter, result) => self.answer_waiter(now, waiter, result),
                    Output::AnswerDurable(waiter, result) => self.answer_behind(now, log, waiter, result),
                    Output::Write(write) => self.gather_records(now, log, write),
                    Output::Change(write) => self.append_change(now, log, write),
                }
            }
        }
    }

    fn answer_waiter(&mut self, now: Now, waiter: Waiter, result: Result<Reply, Error>) {
        let request = RequestId { shard: waiter.shard, number: waiter.number };
        self.answer_op(now, request, waiter.part, Answer::Group(result));
    }
}

/// What groups see of the metadata.
fn outside(now: Now, state: &State) -> Outside<'_> {
    Outside { now, topics: state, overrides: state }
}

/// Replays what was read from `from` on, and says where to go on. A record that cannot be understood is passed over:
/// the others are no worse for it.
fn replay(at: Outside<'_>, log: LogId, groups: &mut Groups, records: Records, from: Offset, end: Offset) -> Offset {
    let mut bytes = BytesMut::with_capacity(records.len);
    for chunk in records.chunks {
        bytes.extend_from_slice(&chunk);
    }
    let mut next = from;
    for (_, batch) in split_batches(&bytes.freeze()) {
        let Some(entries) = batch.entries() else {
            tracing::warn!(%log, offset = batch.header.base_offset.get(), "a batch of the groups' topic is passed over");
            next = batch.header.last_offset() + 1;
            continue;
        };
        for (offset, entry) in entries {
            if offset < from || offset >= end {
                continue;
            }
            match Record::decode(&entry) {
                Ok(Some(record)) => groups.replay(at, record),
                Ok(None) => {}
                Err(error) => tracing::warn!(%log, offset, %error, "a record of the groups' topic is passed over"),
            }
        }
        next = batch.header.last_offset() + 1;
    }
    next
}
