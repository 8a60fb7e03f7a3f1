//! The owner's side of a request: ops on the partitions that this shard owns.

use std::collections::VecDeque;

use super::Shard;
use super::event::Effect;
use super::in_sync::Followers;
use super::mesh::{Answer, AppendAnswer, Leader, OffsetAnswer, Op, OpKind, ReadAnswer, RequestId, ShardMessage};
use super::peers::Peers;
use super::refused::Refused;
use crate::consensus::{self, MessageKind};
use crate::limits::{INSTALL_BYTES, UNBORN_MESSAGES, WAL_STALLED_MS};
use crate::log::{DiskError, FileId};
use crate::partition::{Acks, AppendError, Appended, DeleteError, DiskRead, Found, Partition, ReadDone, ReadError};
use crate::peer::PeerMessage;
use crate::protocol::ErrorCode;
use crate::record::{Batch, split_batches};
use crate::types::{BrokerId, LeaderEpoch, LogId, Mono, Now, Offset};

/// Kafka's special timestamps of ListOffsets.
mod special {
    pub(super) const LATEST: i64 = -1;
    pub(super) const EARLIEST: i64 = -2;
    pub(super) const MAX_TIMESTAMP: i64 = -3;
    pub(super) const EARLIEST_LOCAL: i64 = -4;
    pub(super) const LATEST_TIERED: i64 = -5;
}

/// A partition on the shard that owns it, with all that waits on it.
pub(super) struct Owned {
    pub(super) partition: Partition,
    /// Whether its leader was announced to the other shards, and with which epoch.
    pub(super) announced: Option<LeaderEpoch>,
    /// When this replica of a new log stands for election, if nobody leads by then.
    pub(super) stands_at: Option<Mono>,
    /// Raft ticks since something happened.
    pub(super) quiet_ticks: u32,
    /// How far the other replicas are behind, where this one leads.
    pub(super) followers: Followers,
    /// What idempotent producers were refused of late.
    refused: Refused,
    /// Appends with acks=all that are not acknowledged yet, by their offsets.
    appends: VecDeque<WaitingAppend>,
    /// The same with acks=1.
    leader_appends: VecDeque<WaitingAppend>,
    /// Segments whose removal was asked for and has not ended.
    pub(super) removals: usize,
    /// Moves of the log's start that are not durable yet.
    pub(super) deletions: Vec<WaitingDeletion>,
    /// Reads that wait for new records.
    reads: Vec<Op>,
    /// Ops that wait for the disk.
    on_disk: Vec<Op>,
    /// Reads of the disk under way.
    disk_reads: Vec<DiskRead>,
}

/// Whether so many replicas of a log that is led here are in sync as acks=all asks for.
fn enough_in_sync(peers: &Peers, own: BrokerId, owned: &Owned) -> bool {
    let wanted = owned.partition.min_insync_replicas();
    wanted <= 1 || owned.in_sync(peers, own) >= wanted
}

struct WaitingAppend {
    request: RequestId,
    part: u32,
    appended: Appended,
    /// When it was appended.
    since: Mono,
}

/// A DeleteRecords request that waits for its log to begin there.
pub(super) struct WaitingDeletion {
    pub(super) request: RequestId,
    pub(super) part: u32,
    pub(super) start: Offset,
}

impl Owned {
    pub(super) fn new(partition: Partition) -> Owned {
        Owned {
            partition,
            announced: None,
            stands_at: None,
            quiet_ticks: 0,
            followers: Followers::default(),
            refused: Refused::default(),
            appends: VecDeque::new(),
            leader_appends: VecDeque::new(),
            removals: 0,
            deletions: Vec::new(),
            reads: Vec::new(),
            on_disk: Vec::new(),
            disk_reads: Vec::new(),
        }
    }

    fn waiting(&mut self, acks: Acks) -> &mut VecDeque<WaitingAppend> {
        match acks {
            Acks::All => &mut self.appends,
            Acks::Leader => &mut self.leader_appends,
        }
    }

    /// How many replicas are in sync, this one included, which leads.
    fn in_sync(&self, peers: &Peers, own: BrokerId) -> usize {
        let lagging = self.followers.lagging();
        let in_sync = |broker: &BrokerId| peers.can_follow(own, *broker) && !lagging.contains(broker);
        self.partition.replicas().filter(in_sync).count()
    }
}

/// What an op came to at once.
enum Outcome {
    Answer(Answer),
    /// Wait for the append to be acknowledged.
    Appended(Appended, Acks),
    /// Wait for the log to begin there.
    Start(Offset),
    /// Wait for more records.
    More,
    /// Wait for the disk.
    Disk(DiskRead),
    /// Batches for another broker; none where there are none before the end that it asked for.
    Copied {
        batches: Option<bytes::Bytes>,
        start: Offset,
    },
    /// Nothing can be done, and nobody waits.
    Nothing,
}

impl Shard {
    /// Hands an op to the shard that owns the log.
    pub(super) fn send_op(&mut self, now: Now, op: Op) {
        let owner = op.log.shard(self.shards);
        if owner == self.id {
            return self.run_op(now, op);
        }
        let timed = self.requests.get(op.request.number).and_then(|pending| pending.origin.timed);
        self.send(owner, ShardMessage::Op(op, timed));
    }

    pub(super) fn run_op(&mut self, now: Now, op: Op) {
        if matches!(op.kind, OpKind::Group { .. }) {
            return self.run_group_op(now, op);
        }
        if let OpKind::Sizes(logs) = &op.kind {
            let size = |log| self.owned.get(log).map(|owned| owned.partition.size());
            let sizes = logs.iter().map(size).collect();
            return self.answer_op(now, op.request, op.part, Answer::Sizes(sizes));
        }
        // Behind an append that waits for memory, the others wait too: a partition's order is its client's.
        let full = self.storage.full() || !self.backlog.is_empty();
        if full && matches!(op.kind, OpKind::Append { .. }) && self.refusal().is_none() {
            return self.backlog.push_back(op);
        }
        self.run_op_now(now, op);
    }

    fn run_op_now(&mut self, now: Now, mut op: Op) {
        let refusal = match op.kind {
            OpKind::Append { .. } => self.refusal(),
            OpKind::DeleteRecords { .. } => self.deletion_refusal(),
            _ => None,
        };
        let Some(owned) = self.owned.get_mut(&op.log) else {
            // The log was deleted, or is not here yet: the metadata of the two shards differ for a moment.
            let elsewhere = self.elsewhere.contains(&op.log);
            let error = if elsewhere { ErrorCode::NotLeaderOrFollower } else { ErrorCode::UnknownTopicOrPartition };
            return self.answer_failed(now, &op, error);
        };
        let before = owned.partition.tail_cost();
        let outcome = match &mut op.kind {
            OpKind::Append { batch, acks, deadline, .. } => {
                let refusal = if !owned.partition.is_up() {
                    Some(ErrorCode::NotLeaderOrFollower)
                } else if refusal.is_none() && deadline.passed(now) {
                    // Its client was told so, by the shard of the connection.
                    owned.refused.note(now.mono, &batch.header, ErrorCode::RequestTimedOut);
                    return;
                } else if *acks == Acks::All && !enough_in_sync(&self.peers, self.config.broker_id, owned) {
                    refusal.or(Some(ErrorCode::NotEnoughReplicas))
                } else {
                    refusal
                };
                append(now, owned, batch, *acks, refusal)
            }
            OpKind::Read { offset, max_bytes, epoch, more_than, from_follower } => {
                let served = check_epoch(&owned.partition, *epoch, *from_follower);
                let outcome = read(&owned.partition, *offset, *max_bytes, *more_than, served);
                let (ahead, spent) =
                    (owned.partition.read_ahead(*offset, *max_bytes), owned.partition.spent_chunk(*offset));
                if let Some(place) = spent {
                    self.storage.chunk_spent(op.log, place);
                    self.evict_chunks();
                }
                if let Some(ahead) = ahead {
                    self.read_disk(op.log, ahead);
                }
                outcome
            }
            OpKind::Copy { offset, end, .. } => copy(&owned.partition, *offset, *end),
            OpKind::Group { .. } | OpKind::Sizes(_) => unreachable!("taken by run_op"),
            OpKind::Producers => {
                let up = owned.partition.is_up().then(|| owned.partition.active_producers(now));
                Outcome::Answer(Answer::Producers(up.ok_or(ErrorCode::NotLeaderOrFollower)))
            }
            OpKind::DeleteRecords { before, deadline } => match refusal {
                Some(error) => Outcome::Answer(Answer::DeleteRecords(Err(error))),
                None if deadline.passed(now) => return,
                None => delete_records(&mut owned.partition, *before),
            },
            OpKind::ListOffset { timestamp, epoch } => list_offset(&owned.partition, *timestamp, *epoch),
            OpKind::EpochEnd { wanted, epoch } => Outcome::Answer(Answer::EpochEnd(
                check_epoch(&owned.partition, *epoch, false)
                    .map(|()| owned.partition.end_of_epoch(*wanted).unwrap_or((-1, -1))),
            )),
        };
        let log = op.log;
        self.note_damage(now, log);
        match outcome {
            Outcome::Answer(answer) => self.answer_op(now, op.request, op.part, answer),
            Outcome::Copied { batches, start } => {
                let OpKind::Copy { to, offset, end } = op.kind else { unreachable!("only a copy is copied") };
                let message = match batches {
                    Some(body) => {
                        let batches = vec![crate::log::Chunk { head: Default::default(), body }];
                        PeerMessage::LogPart { log, offset, start, batches }
                    }
                    None => PeerMessage::LogPart { log, offset: end, start, batches: Vec::new() },
                };
                self.peers.send(to, message);
            }
            Outcome::Start(start) => {
                let waiting = WaitingDeletion { request: op.request, part: op.part, start };
                self.owned.get_mut(&log).expect("it was there").deletions.push(waiting);
                self.wake(log);
                self.touch(log);
                // The log may begin there, or later, already.
                self.settle_start(now, log);
            }
            Outcome::Nothing => {}
            Outcome::Appended(appended, acks) => {
                let owned = self.owned.get_mut(&log).expect("it was there");
                let waiting = WaitingAppend { request: op.request, part: op.part, appended, since: now.mono };
                let appends = owned.waiting(acks);
                let at = appends.partition_point(|other| other.appended.next_offset <= appended.next_offset);
                appends.insert(at, waiting);
                let grown = owned.partition.tail_cost() - before;
                self.storage.tail_grew(grown);
                if grown > 0 {
                    self.count_append(now, &op.kind);
                }
                self.wake(log);
                self.touch(log);
                // A duplicate of what is acknowledged already waits for nothing.
                self.settle_appends(now, log);
            }
            Outcome::More => self.owned.get_mut(&log).expect("it was there").reads.push(op),
            Outcome::Disk(wanted) => {
                self.owned.get_mut(&log).expect("it was there").on_disk.push(op);
                self.read_disk(log, wanted);
            }
        }
    }

    /// Why no append is taken just now. Nothing of a refused batch is in any log.
    pub(super) fn refusal(&self) -> Option<ErrorCode> {
        self.refusal_for(self.storage.no_room())
    }

    /// Why nothing is deleted just now. Deleting brings room, so that a disk without any is no reason. The end of the WAL's
    /// reserve is: deletions would use up what checkpoints need that release it.
    fn deletion_refusal(&self) -> Option<ErrorCode> {
        self.refusal_for(self.storage.data.scarce)
    }

    fn refusal_for(&self, no_room: bool) -> Option<ErrorCode> {
        let health = &self.storage.data;
        let stalled = health.oldest_ms > WAL_STALLED_MS;
        (no_room || health.failed || stalled || self.stopping).then_some(ErrorCode::KafkaStorageError)
    }

    /// Runs the appends that waited for memory, as far as there is some now, or refuses them where the disk hangs.
    pub(super) fn run_backlog(&mut self, now: Now) {
        while !self.storage.full() || self.refusal().is_some() {
            let Some(op) = self.backlog.pop_front() else { return };
            self.run_op_now(now, op);
        }
    }

    /// Drops appends whose clients were told that the time is up.
    pub(super) fn expire_backlog(&mut self, now: Now) {
        let owned = &mut self.owned;
        self.backlog.retain(|op| {
            let OpKind::Append { deadline, batch, .. } = &op.kind else { return true };
            if deadline.passed(now)
                && let Some(owned) = owned.get_mut(&op.log)
            {
                owned.refused.note(now.mono, &batch.header, ErrorCode::RequestTimedOut);
            }
            !deadline.passed(now)
        });
    }

    pub(super) fn answer_op(&mut self, now: Now, request: RequestId, part: u32, answer: Answer) {
        if request.shard == self.id {
            self.op_answered(now, request, part, answer);
        } else {
            self.send(request.shard, ShardMessage::Answer { request, part, answer });
        }
    }

    /// Withdraws what waits on a log for a request.
    pub(super) fn cancel_ops(&mut self, request: RequestId, log: LogId) {
        if let Some(owned) = self.owned.get_mut(&log) {
            owned.reads.retain(|op| op.request != request);
            owned.on_disk.retain(|op| op.request != request);
        }
    }

    fn answer_failed(&mut self, now: Now, op: &Op, error: ErrorCode) {
        if let Some(answer) = failed(&op.kind, error) {
            self.answer_op(now, op.request, op.part, answer);
        }
    }

    /// Frames of the log are durable up to this ready.
    pub(super) fn log_persisted(&mut self, now: Now, log: LogId, number: u64) {
        let Some(owned) = self.owned.get_mut(&log) else { return };
        let moved = owned.partition.persisted(number);
        self.touch(log);
        self.raft_moved(now, log, moved);
        self.settle_appends(now, log);
    }

    /// Another replica of the log has sent something.
    pub(super) fn log_stepped(
        &mut self,
        now: Now,
        from: BrokerId,
        log: LogId,
        mut message: consensus::Message,
        mut beside: Vec<crate::log::Chunk>,
    ) {
        let (full, wal_full) = (self.storage.follower_full(), self.storage.data.full);
        let no_room = self.storage.no_room();
        let Some(owned) = self.owned.get_mut(&log) else {
            // The leader of a new topic may be faster than the word of its creation.
            if log >= self.state.next_log_id() && self.unborn.len() < UNBORN_MESSAGES {
                self.unborn.push((log, from, message, beside));
            }
            return;
        };
        // Without room for them new entries are not taken; the leader finds out and sends them again. Those that are here
        // already are: only by answering for them does this replica hear what is committed, and may be moved to segments.
        // New ones that are committed may have what is left of the WAL, for the same reason, where that brings room: a disk
        // without any keeps it for what makes room.
        let committed = message.entries.last().is_none_or(|last| last.index <= message.commit);
        if full || wal_full && (no_room || !committed) {
            let known = owned.partition.free_entries(&message);
            message.entries.truncate(known);
            beside.truncate(known);
        }
        let routine = matches!(message.kind, MessageKind::Heartbeat | MessageKind::HeartbeatResponse);
        let before = owned.partition.tail_costs();
        let reached = owned.partition.high_watermark();
        if let Err(error) = owned.partition.step(now, from, message, beside) {
            tracing::error!(%log, from = from.0, %error, "a replica sent a damaged entry");
        }
        let after = owned.partition.tail_costs();
        let moved = owned.partition.high_watermark() > reached;
        let more_wanted = owned.partition.wants_more_than_majority();
        self.storage.tail_changed(before, after);
        if !routine || !self.awake.contains(&log) {
            self.wake(log);
        }
        self.touch(log);
        self.raft_moved(now, log, moved);
        if more_wanted {
            self.settle_appends(now, log);
        }
    }

    /// Does what follows from a change of the log's Raft group; `moved` where the high watermark has.
    pub(super) fn raft_moved(&mut self, now: Now, log: LogId, moved: bool) {
        let Some(owned) = self.owned.get_mut(&log) else { return };
        if owned.partition.takes_made_whole() {
            tracing::info!(%log, "this replica is whole again");
            self.flush_log(log, true);
        }
        let Some(owned) = self.owned.get_mut(&log) else { return };
        if moved {
            self.storage.note_movable(log, &owned.partition);
        }
        let epoch = owned.partition.epoch();
        let deposed = owned.announced.is_some_and(|announced| announced != epoch || !owned.partition.leads());
        // First of all: what moves the high watermark of a leader that was may be another's record.
        if deposed {
            self.step_down(now, log);
        }
        self.settle_start(now, log);
        if moved {
            self.settle_appends(now, log);
            self.settle_groups(now, log);
        }
        let Some(owned) = self.owned.get_mut(&log) else { return };
        if owned.announced != Some(epoch) && owned.partition.is_up() {
            owned.announced = Some(epoch);
            self.metrics.leaderships_taken.add(1);
            self.announcements.push(Leader { log, broker: self.config.broker_id, epoch });
        }
        if moved {
            let waiting = std::mem::take(&mut self.owned.get_mut(&log).expect("it was there").reads);
            for op in waiting {
                self.run_op(now, op);
            }
        }
    }

    /// Another replica leads now: those who wait here are sent there. What they appended may be in the log or not.
    fn step_down(&mut self, now: Now, log: LogId) {
        let Some(owned) = self.owned.get_mut(&log) else { return };
        owned.announced = None;
        self.metrics.leaderships_lost.add(1);
        let (appends, reads) = (std::mem::take(&mut owned.appends), std::mem::take(&mut owned.reads));
        // Those that wait for memory here need not.
        let (backlog, others) = std::mem::take(&mut self.backlog).into_iter().partition(|op| op.log == log);
        self.backlog = others;
        for waiting in std::mem::take(&mut owned.deletions) {
            let answer = Answer::DeleteRecords(Err(ErrorCode::NotLeaderOrFollower));
            self.answer_op(now, waiting.request, waiting.part, answer);
        }
        let Some(owned) = self.owned.get_mut(&log) else { return };
        let leader_appends = std::mem::take(&mut owned.leader_appends);
        for op in &backlog {
            if let OpKind::Append { batch, .. } = &op.kind {
                owned.refused.note(now.mono, &batch.header, ErrorCode::NotLeaderOrFollower);
            }
        }
        for waiting in appends.into_iter().chain(leader_appends) {
            let answer = Answer::Append(Err(ErrorCode::NotLeaderOrFollower));
            self.answer_op(now, waiting.request, waiting.part, answer);
        }
        for op in VecDeque::from(reads).into_iter().chain(backlog) {
            self.answer_failed(now, &op, ErrorCode::NotLeaderOrFollower);
        }
        self.leave_groups(now, log);
    }

    /// Answers the appends that are acknowledged, and those that only replicas could acknowledge which are not in sync.
    pub(super) fn settle_appends(&mut self, now: Now, log: LogId) {
        for acks in [Acks::Leader, Acks::All] {
            loop {
                let Some(owned) = self.owned.get_mut(&log) else { return };
                let Some(next_offset) = owned.waiting(acks).front().map(|waiting| waiting.appended.next_offset) else {
                    break;
                };
                let log_start = owned.partition.log_start();
                let result = if next_offset <= owned.partition.acknowledged(acks) {
                    Ok(log_start)
                } else if next_offset <= owned.partition.high_watermark()
                    && !enough_in_sync(&self.peers, self.config.broker_id, owned)
                {
                    Err(ErrorCode::NotEnoughReplicasAfterAppend)
                } else {
                    break;
                };
                let waiting = owned.waiting(acks).pop_front().expect("there is a front");
                self.metrics.produce.commit.observe(now.mono.micros_since(waiting.since));
                let answer = result.map(|log_start| AppendAnswer {
                    base_offset: waiting.appended.base_offset,
                    log_append_time: waiting.appended.log_append_time,
                    log_start,
                });
                self.answer_op(now, waiting.request, waiting.part, Answer::Append(answer));
            }
        }
    }

    /// The broker's partition is gone: everything that waits on it is answered.
    pub(super) fn disown(&mut self, now: Now, log: LogId, error: ErrorCode) {
        self.end_groups(now, log);
        let Some(owned) = self.owned.remove(&log) else { return };
        self.storage.forget(log, &owned.partition);
        for waiting in owned.appends.into_iter().chain(owned.leader_appends) {
            let answer = Answer::Append(Err(error));
            self.answer_op(now, waiting.request, waiting.part, answer);
        }
        for waiting in owned.deletions {
            let answer = Answer::DeleteRecords(Err(ErrorCode::UnknownTopicOrPartition));
            self.answer_op(now, waiting.request, waiting.part, answer);
        }
        for op in owned.reads.into_iter().chain(owned.on_disk) {
            self.answer_failed(now, &op, error);
        }
    }

    /// Asks the disk for something that ops wait for, unless it was asked already.
    pub(super) fn read_disk(&mut self, log: LogId, read: DiskRead) {
        let Some(owned) = self.owned.get_mut(&log) else { return };
        if owned.disk_reads.contains(&read) {
            return;
        }
        owned.disk_reads.push(read);
        let request = self.storage.read(log, read);
        self.out.push(Effect::Disk { request });
    }

    /// A read of the disk is back: whoever waited tries again.
    pub(super) fn disk_read_done(
        &mut self,
        now: Now,
        log: LogId,
        read: DiskRead,
        result: Result<bytes::Bytes, DiskError>,
    ) {
        let Some(owned) = self.owned.get_mut(&log) else { return };
        owned.disk_reads.retain(|other| *other != read);
        let done = match result {
            Ok(bytes) => Some(owned.partition.read_done(read, bytes)),
            Err(error) => {
                tracing::error!(%log, %error, "reading records failed");
                let lost = matches!(error, DiskError::Lost { .. } | DiskError::NotFound { .. });
                lost.then(|| owned.partition.read_lost(read)).flatten()
            }
        };
        let failure = match done {
            Some(ReadDone::Chunk { place, cost, replaced }) => {
                self.storage.chunk_cached(log, place, cost, replaced);
                None
            }
            Some(ReadDone::Index | ReadDone::Gone) => None,
            Some(ReadDone::Larger(read)) => return self.read_disk(log, read),
            Some(ReadDone::Damaged) => {
                if owned.partition.wants_mend(now) || !owned.partition.is_mendable() {
                    tracing::error!(%log, file = %FileId::Segment(read.segment), position = read.position, "records on disk are damaged");
                }
                let peers = &self.peers;
                if owned.partition.is_mendable() && owned.partition.hand_over(|broker| peers.may_lead(broker)) {
                    // Another replica can be read from at once.
                    self.wake(log);
                    self.touch(log);
                }
                self.owned.get(&log).map(|owned| damage_error(&owned.partition))
            }
            None => Some(ErrorCode::KafkaStorageError),
        };
        self.note_damage(now, log);
        self.groups_read(now, log, failure);
        let Some(owned) = self.owned.get_mut(&log) else { return };
        for op in std::mem::take(&mut owned.on_disk) {
            match failure {
                Some(error) => self.answer_failed(now, &op, error),
                None => self.run_op(now, op),
            }
        }
        self.evict_chunks();
    }
}

/// What clients are told of damaged records: to come again where they can be had from another replica.
fn damage_error(partition: &Partition) -> ErrorCode {
    if partition.is_mendable() { ErrorCode::KafkaStorageError } else { ErrorCode::CorruptMessage }
}

/// The answer to an op that failed; none where nobody waits for one.
fn failed(kind: &OpKind, error: ErrorCode) -> Option<Answer> {
    Some(match kind {
        OpKind::Append { .. } => Answer::Append(Err(error)),
        OpKind::Read { .. } => Answer::Read(ReadAnswer::failed(error)),
        OpKind::ListOffset { .. } => Answer::ListOffset(Err(error)),
        OpKind::DeleteRecords { .. } => Answer::DeleteRecords(Err(error)),
        OpKind::EpochEnd { .. } => Answer::EpochEnd(Err(error)),
        OpKind::Group { .. } => Answer::Group(Err(crate::group::Error::NotCoordinator)),
        OpKind::Producers => Answer::Producers(Err(error)),
        OpKind::Sizes(logs) => Answer::Sizes(vec![None; logs.len()]),
        OpKind::Copy { .. } => return None,
    })
}

/// Records for a replica that lacks the entries before them, or cannot read them any more. What is committed is the same
/// everywhere; only what a replica still fetches itself may have gaps.
fn copy(partition: &Partition, offset: Offset, end: Offset) -> Outcome {
    if partition.is_installing() || !partition.is_whole() {
        return Outcome::Nothing;
    }
    let start = partition.log_start();
    let offset = offset.max(start);
    if offset >= end {
        return Outcome::Copied { batches: None, start };
    }
    match partition.read(offset, INSTALL_BYTES) {
        // This leader does not know yet that they are committed.
        Ok(Found::Here(records)) if records.len == 0 => Outcome::Nothing,
        Ok(Found::Here(records)) => {
            let whole: bytes::Bytes = records.chunks.concat().into();
            let within = split_batches(&whole).take_while(|(_, batch)| batch.header.last_offset() < end);
            let batches = within.last().map(|(at, batch)| whole.slice(..at + batch.len()));
            Outcome::Copied { batches, start }
        }
        Ok(Found::OnDisk(read)) => Outcome::Disk(read),
        Err(_) => Outcome::Nothing,
    }
}

/// Kafka's check of the leader epoch that a client believes in. A follower that hears of no leader knows too little to
/// answer anybody.
fn check_epoch(partition: &Partition, believed: LeaderEpoch, from_follower: bool) -> Result<(), ErrorCode> {
    let follows = || from_follower && !partition.leads() && partition.leader().is_some();
    match believed {
        _ if !partition.is_up() && !follows() => Err(ErrorCode::NotLeaderOrFollower),
        -1 => Ok(()),
        older if older < partition.epoch() => Err(ErrorCode::FencedLeaderEpoch),
        newer if newer > partition.epoch() => Err(ErrorCode::UnknownLeaderEpoch),
        _ => Ok(()),
    }
}

/// Appends a batch, if nothing speaks against it.
fn append(now: Now, owned: &mut Owned, batch: &Batch, acks: Acks, refusal: Option<ErrorCode>) -> Outcome {
    let refused = match refusal {
        Some(error) => error,
        None => match owned.partition.append(now, batch.clone()) {
            Ok(appended) => return Outcome::Appended(appended, acks),
            Err(AppendError::OutOfOrderSequence { expected }) => {
                let before = owned.refused.before(now.mono, &batch.header, expected);
                before.unwrap_or(ErrorCode::OutOfOrderSequenceNumber)
            }
            Err(AppendError::NotLeader) => ErrorCode::NotLeaderOrFollower,
            Err(AppendError::TooLarge) => ErrorCode::MessageTooLarge,
            Err(AppendError::InvalidTimestamp) => ErrorCode::InvalidTimestamp,
            Err(AppendError::StaleProducerEpoch) => ErrorCode::InvalidProducerEpoch,
            Err(AppendError::Fenced) => ErrorCode::KafkaStorageError,
            Err(AppendError::NotAllowed | AppendError::NoKey) => ErrorCode::InvalidRecord,
        },
    };
    owned.refused.note(now.mono, &batch.header, refused);
    Outcome::Answer(Answer::Append(Err(refused)))
}

fn delete_records(partition: &mut Partition, before: Offset) -> Outcome {
    match partition.delete_records(before) {
        Ok(start) => Outcome::Start(start),
        Err(error) => Outcome::Answer(Answer::DeleteRecords(Err(match error {
            DeleteError::NotLeader => ErrorCode::NotLeaderOrFollower,
            DeleteError::OutOfRange => ErrorCode::OffsetOutOfRange,
            DeleteError::NotDeleted => ErrorCode::PolicyViolation,
            DeleteError::Fenced => ErrorCode::KafkaStorageError,
        }))),
    }
}

fn read(
    partition: &Partition,
    offset: Offset,
    max_bytes: usize,
    more_than: Option<usize>,
    served: Result<(), ErrorCode>,
) -> Outcome {
    let answer = |error, records| {
        Outcome::Answer(Answer::Read(ReadAnswer {
            error,
            high_watermark: partition.high_watermark(),
            log_start: partition.log_start(),
            records,
        }))
    };
    if let Err(error) = served {
        return Outcome::Answer(Answer::Read(ReadAnswer::failed(error)));
    }
    if !partition.leads() && offset > partition.high_watermark() {
        // The leader may have shown it as committed already.
        return answer(Some(ErrorCode::OffsetNotAvailable), Default::default());
    }
    match partition.read(offset, max_bytes) {
        Ok(Found::Here(records)) => match more_than {
            Some(seen) if records.len <= seen => Outcome::More,
            _ => answer(None, records),
        },
        Ok(Found::OnDisk(read)) => Outcome::Disk(read),
        Err(ReadError::OutOfRange) => answer(Some(ErrorCode::OffsetOutOfRange), Default::default()),
        Err(ReadError::Corrupt) => answer(Some(damage_error(partition)), Default::default()),
    }
}

fn list_offset(partition: &Partition, timestamp: i64, epoch: LeaderEpoch) -> Outcome {
    let none = OffsetAnswer { offset: -1, timestamp: -1, epoch: -1 };
    let at = |offset, epoch| OffsetAnswer { offset, epoch, ..none };
    let answer = |result| Outcome::Answer(Answer::ListOffset(result));
    if let Err(error) = check_epoch(partition, epoch, false) {
        return answer(Err(error));
    }
    let wanted = match timestamp {
        special::LATEST => return answer(Ok(at(partition.high_watermark(), partition.epoch()))),
        special::EARLIEST | special::EARLIEST_LOCAL => {
            let start = partition.log_start();
            return answer(Ok(at(start, partition.epoch_of(start))));
        }
        special::LATEST_TIERED => return answer(Ok(none)),
        special::MAX_TIMESTAMP => match partition.max_timestamp() {
            Some(newest) => newest,
            None => return answer(Ok(none)),
        },
        time if time >= 0 => time,
        _ => return answer(Err(ErrorCode::InvalidRequest)),
    };
    match partition.find_time(wanted) {
        Ok(Found::Here(Some((offset, timestamp)))) => {
            answer(Ok(OffsetAnswer { offset, timestamp, epoch: partition.epoch_of(offset) }))
        }
        Ok(Found::Here(None)) => answer(Ok(none)),
        Ok(Found::OnDisk(read)) => Outcome::Disk(read),
        Err(_) => answer(Err(damage_error(partition))),
    }
}
