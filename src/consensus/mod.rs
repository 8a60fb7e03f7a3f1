//! One Raft group per log: raft-rs driven without waiting, its effects handed to the caller.
//!
//! raft-rs sees only small descriptors as entry data; what they describe (record batches) lies beside, in the
//! partition. The caller persists what [`Group::take_ready`] returns and reports it with [`Group::persisted`];
//! in between the group goes on. This layer knows nothing of Kafka and nothing of disks.

pub mod members;
mod message;
mod repair;
mod storage;

use std::cmp::Reverse;
use std::collections::VecDeque;

use bytes::Bytes;
use raft::eraftpb::EntryType;
use raft::{GetEntriesContext, ProgressState, RawNode, StateRole};

pub use members::Members;
pub use message::{Message, MessageKind, SnapshotPoint};

use members::{broker_of, life_of, raft_id};

use crate::limits::{APPEND_BYTES, APPENDS_IN_FLIGHT, METADATA_APPENDS_IN_FLIGHT};
use crate::types::{BrokerId, LogId};
use repair::Repair;
use storage::GroupStorage;

/// A Raft hard state: what must be durable before a vote or a term is used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct HardState {
    /// The term.
    pub term: u64,
    /// Raft id of the node voted for in that term, 0 for none, the highest number where that is lost.
    pub vote: u64,
    /// The commit index when the state was written; the true one may be higher.
    pub commit: u64,
}

impl HardState {
    /// Length of [`HardState::to_bytes`].
    pub const LEN: usize = 24;

    /// As three little-endian numbers.
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[..8].copy_from_slice(&self.term.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.vote.to_le_bytes());
        bytes[16..].copy_from_slice(&self.commit.to_le_bytes());
        bytes
    }

    /// Reads what [`HardState::to_bytes`] wrote; `None` where the length is another.
    pub fn from_bytes(bytes: &[u8]) -> Option<HardState> {
        let bytes: &[u8; Self::LEN] = bytes.try_into().ok()?;
        let number = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        Some(HardState { term: number(0), vote: number(8), commit: number(16) })
    }
}

/// An entry as Raft sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its index, from 1.
    pub index: u64,
    /// Its term.
    pub term: u64,
    /// The descriptor that was proposed; empty for the entry with which a leader opens its term. See
    /// [`members::is_change`] for the third kind.
    pub data: Bytes,
}

impl Entry {
    fn from_raft(entry: raft::eraftpb::Entry) -> Entry {
        let data = match entry.entry_type {
            EntryType::EntryNormal => entry.data,
            _ => Members::decode(&entry.context).expect("changes of members are made here").to_data(),
        };
        Entry { index: entry.index, term: entry.term, data }
    }

    fn into_raft(self) -> raft::eraftpb::Entry {
        let mut entry = raft::eraftpb::Entry { index: self.index, term: self.term, ..Default::default() };
        match Members::from_data(&self.data) {
            // What raft-rs itself would read is only in a proposal.
            Some(members) => {
                entry.set_entry_type(EntryType::EntryConfChangeV2);
                entry.context = members.encode().into();
            }
            None => entry.data = self.data,
        }
        entry
    }

    /// Whether it carries nothing of the log's owner.
    pub fn is_rafts_own(&self) -> bool {
        self.data.is_empty() || members::is_change(&self.data)
    }
}

/// Where a group starts: what its log holds on disk.
#[derive(Clone, Debug, Default)]
pub struct GroupState {
    /// The hard state.
    pub hard_state: HardState,
    /// Index and term of the last entry that only segments or a snapshot hold.
    pub compacted: (u64, u64),
    /// The members as of that entry, where they were written; else they are the group's first.
    pub members: Option<Members>,
    /// The entries after it.
    pub entries: Vec<Entry>,
}

/// What must become durable, in this order, before [`Group::persisted`] is called with its number.
#[derive(Debug)]
pub struct Ready {
    /// The number to report.
    pub number: u64,
    /// The log was replaced by a snapshot that ends here: its owner writes it, and everything older is void.
    pub snapshot: Option<SnapshotPoint>,
    /// A hard state to write before the entries.
    pub hard_state: Option<HardState>,
    /// Entries to write. The first may replace an earlier one of the same index and all that followed it.
    pub entries: Vec<Entry>,
}

/// A proposal to a group that does not lead.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("this replica does not lead the group")]
pub struct NotLeader;

/// A log's Raft group on this broker.
pub struct Group {
    raw: RawNode<GroupStorage>,
    broker: BrokerId,
    /// The life of this replica: see [`members`].
    life: u32,
    /// The members as of the snapshot that is being taken, and its index.
    offered: Option<(u64, Members)>,
    /// The hard state as last handed out for writing, for checkpoints.
    written: HardState,
    /// Numbers of readies that were handed out for writing and are not durable.
    unsynced: VecDeque<u64>,
    /// Messages that say something of a ready which is not durable, by its number; they wait for it.
    held: VecDeque<(u64, Message, BrokerId)>,
    /// Messages that may go out.
    outbox: Vec<(BrokerId, Message)>,
    /// The ready with a snapshot that is not durable, and the index that it reaches. Until it is, raft-rs cannot read
    /// what it takes for not applied, so the group must not stand for election.
    restoring: Option<(u64, u64)>,
    /// The disk hangs: see [`Group::set_hangs`].
    hangs: bool,
    /// The index before the entries that the leader sent last, where they did not fit this log.
    refused: Option<u64>,
    /// A candidate that asked for votes while this replica still believed in a leader: it may have been first to hear that
    /// the leader is gone, and would ask again only when a time-out is over.
    early_bid: Option<(BrokerId, Message)>,
    /// Followers that were let go on since the last tick: see [`Group::end_probe`].
    went_on: Vec<BrokerId>,
    /// There where a part of the log was lost.
    repair: Option<Repair>,
    /// It was made whole, and the owner was not told yet.
    made_whole: bool,
}

/// Raft ticks until a follower that hears nothing stands for election; each replica of a group adds its own share,
/// so that they do not stand at once.
const ELECTION_TICKS: usize = 10;
const ELECTION_STEP_TICKS: usize = 4;
/// How many different shares those have that were not among a group's first voters.
const LATER_PLACES: usize = 5;
const HEARTBEAT_TICKS: usize = 2;

impl Group {
    /// The group of `log`, whose first voters these are, starting from what the disk holds, for the replica of a broker that
    /// has this life (0 for one that is there since the log was made). `weigh` gives the bytes that an entry takes on its
    /// way to a peer, by its data.
    ///
    /// # Panics
    /// Where `state` contradicts itself: a log with a gap must never be served.
    pub fn new(
        log: LogId,
        (broker, life): (BrokerId, u32),
        voters: &[BrokerId],
        state: GroupState,
        weigh: fn(&[u8]) -> u64,
        logger: &slog::Logger,
    ) -> Group {
        let repair = (!state.hard_state.is_whole()).then(Repair::default);
        let written = match repair {
            Some(_) => HardState { vote: 0, ..state.hard_state },
            None => state.hard_state,
        };
        // Everything up to `compacted` was committed before it was moved to segments.
        // What others hold may have been committed before it was durable here; then the end of the log lies before it.
        let last = state.entries.last().map_or(state.compacted.0, |entry| entry.index);
        let mut commit = state.hard_state.commit.clamp(state.compacted.0, last);
        // A leader changes the members only when the change before is committed. Who has the second change in its log must
        // not forget that: with the members of before the first it could be elected by those who do not count any more.
        let mut changes = state.entries.iter().rev().filter(|entry| members::is_change(&entry.data));
        if let Some(change) = changes.nth(1) {
            commit = commit.max(change.index);
        }
        // Those that came later have their places by their numbers, so that two of them seldom stand at once.
        let later = || voters.len() + broker.0 as usize % LATER_PLACES;
        let place = voters.iter().position(|voter| *voter == broker).unwrap_or_else(later);
        let election = ELECTION_TICKS + place * ELECTION_STEP_TICKS;
        let config = raft::Config {
            id: raft_id(broker, life),
            election_tick: ELECTION_TICKS,
            heartbeat_tick: HEARTBEAT_TICKS,
            // One tick wide, so that raft-rs's own thread_rng has nothing to choose and a seed replays.
            min_election_tick: election,
            max_election_tick: election + 1,
            applied: commit,
            max_size_per_msg: APPEND_BYTES as u64,
            max_inflight_msgs: match log {
                LogId::METADATA => METADATA_APPENDS_IN_FLIGHT,
                _ => APPENDS_IN_FLIGHT,
            },
            check_quorum: true,
            pre_vote: true,
            // raft-rs 0.7 adds entries to an empty append that is still to be sent, whatever index that one speaks of; after a
            // step back the follower is told that they lie behind it. Messages to one peer share frames anyway.
            batch_append: false,
            ..raft::Config::default()
        };
        let storage = GroupStorage::new(&Members::of(voters), HardState { commit, ..written }, state, weigh);
        let raw = RawNode::new(&config, storage, logger)
            .unwrap_or_else(|error| panic!("the Raft group of log {log} cannot start: {error}"));
        Group {
            raw,
            broker,
            life,
            offered: None,
            written,
            unsynced: VecDeque::new(),
            held: VecDeque::new(),
            outbox: Vec::new(),
            restoring: None,
            hangs: false,
            early_bid: None,
            went_on: Vec::new(),
            refused: None,
            repair,
            made_whole: false,
        }
    }

    /// Whether this replica is the only one.
    pub fn is_alone(&self) -> bool {
        self.members().all() == [self.broker] && self.members().life(self.broker) == self.life
    }

    /// Time has passed: heartbeats, elections.
    pub fn tick(&mut self) {
        self.went_on.clear();
        if self.repair.is_some() {
            self.tick_repair();
        } else if self.restoring.is_none() {
            self.raw.tick();
        }
    }

    /// Takes a message of another replica. One for a replica that this broker had before is left alone.
    pub fn step(&mut self, from: BrokerId, message: Message) {
        match message.kind {
            MessageKind::Inquiry => return self.answer_inquiry(from, &message),
            MessageKind::Standing => return self.hear_standing(from, &message),
            kind if self.repair.as_ref().is_some_and(|repair| !repair.takes(kind)) => return self.note_sender(from),
            _ => {}
        }
        if message.to_life != self.life || message.kind == MessageKind::TimeoutNow && self.restoring.is_some() {
            return;
        }
        if let Some(point) = &message.snapshot {
            let Some(members) = Members::decode(&message.context) else { return };
            self.offered = Some((point.index, members));
        }
        if message.kind == MessageKind::HeartbeatResponse {
            self.end_answered_snapshot(from, message.commit);
        }
        let went_on = (message.kind == MessageKind::AppendResponse && !message.reject).then_some(message.index);
        let append = (message.kind == MessageKind::Append).then_some((message.index, message.log_term));
        let bid = (message.kind == MessageKind::PreVote).then_some((message.log_term, message.index));
        if bid.is_some() && self.leader().is_some_and(|leader| leader != from) {
            self.early_bid = Some((from, message.clone()));
        }
        let message = self.after_committed(message).into_raft(from, self.broker);
        // What raft-rs refuses here is a message of a broker that is no replica: it is not for this log any more.
        let _ = self.raw.step(message);
        if let Some(index) = went_on {
            self.end_snapshot(from);
            self.end_probe(from, index);
        }
        if let Some(log) = bid {
            self.outbid(log);
        }
        if let Some((index, log_term)) = append.filter(|_| self.leader() == Some(from)) {
            // What is committed is the same in every log.
            let agrees = index <= self.committed() || self.term_at(index) == Some(log_term);
            self.refused = Some(index).filter(|_| !agrees);
            if self.hangs && agrees && !self.unsynced.is_empty() {
                let index = index.min(self.durable());
                self.outbox.push((from, Message { index, ..self.early(MessageKind::AppendResponse) }));
            }
        }
    }

    /// A candidate whose log ends with this term and index has asked for votes. Where this replica has more, the other
    /// cannot win against it; nobody is to wait until its own time is up.
    fn outbid(&mut self, log: (u64, u64)) {
        let last = self.raw.raft.raft_log.last_index();
        let more = (self.raw.raft.raft_log.last_term(), last) > log;
        if more && !self.hangs && self.raw.raft.state == StateRole::Follower && self.leader().is_none() {
            self.campaign();
        }
    }

    /// A follower holds what it is known to hold, durably, and has taken what came next. raft-rs sends one that has refused
    /// an append a single one at a time until it knows it to hold more, which one whose disk hangs cannot. Once a tick is
    /// often enough, as all that is not durable there is sent to it again.
    fn end_probe(&mut self, follower: BrokerId, index: u64) {
        let id = self.members().id(follower);
        let raft = &mut self.raw.raft;
        let leads = raft.state == StateRole::Leader;
        let Some(progress) = raft.mut_prs().get_mut(id).filter(|_| leads) else { return };
        let waits = progress.state == ProgressState::Probe && progress.matched == index;
        if waits && !self.went_on.contains(&follower) {
            self.went_on.push(follower);
            progress.become_replicate();
            raft.send_append(id);
        }
    }

    /// A follower has gone on from a point: if an earlier one than it was sent last, raft-rs would wait for an answer to the
    /// later one for ever, which it does not look at while it restores the earlier.
    fn end_snapshot(&mut self, follower: BrokerId) {
        if self.awaited_point(follower).is_some() {
            self.raw.report_snapshot(self.members().id(follower), raft::SnapshotStatus::Failure);
        }
    }

    /// A follower knows so much to be committed: if that reaches the point that it was sent, its answer was lost, for which
    /// raft-rs would wait for ever.
    fn end_answered_snapshot(&mut self, follower: BrokerId, committed: u64) {
        if self.awaited_point(follower).is_some_and(|point| point <= committed) {
            self.raw.report_snapshot(self.members().id(follower), raft::SnapshotStatus::Finish);
        }
    }

    /// The point that a follower was sent to go on from, while its answer is awaited here.
    fn awaited_point(&self, follower: BrokerId) -> Option<u64> {
        let progress = self.raw.raft.prs().get(self.members().id(follower)).filter(|_| self.is_leader())?;
        (progress.state == ProgressState::Snapshot).then_some(progress.pending_snapshot)
    }

    /// Of an append that begins before what is committed here, the part after that. raft-rs would take nothing of it, but a
    /// leader sends a follower again what is not durable there, and that may be committed long since.
    fn after_committed(&self, mut message: Message) -> Message {
        let committed = self.committed();
        if message.kind == MessageKind::Append
            && message.index < committed
            && let Some(known) = message.entries.iter().position(|entry| entry.index == committed)
        {
            message.index = committed;
            message.log_term = message.entries[known].term;
            message.entries.drain(..=known);
        }
        message
    }

    /// The last index that is durable here.
    pub fn durable(&self) -> u64 {
        self.raw.raft.raft_log.persisted
    }

    /// Whether the disk hangs; called at every tick. This replica could answer the leader only when its disk is back, and
    /// who does not answer is sent little or nothing. So it shows that it is there, as often as it takes to hear of all
    /// that is committed meanwhile, and says where the leader is to begin if what came last did not fit. It never says
    /// that it holds more than is durable.
    pub fn set_hangs(&mut self, hangs: bool) {
        self.hangs = hangs;
        let Some(leader) = self.leader().filter(|leader| hangs && *leader != self.broker) else { return };
        if self.unsynced.is_empty() {
            return;
        }
        let durable = self.durable();
        let said = match self.refused {
            None => self.early(MessageKind::HeartbeatResponse),
            Some(index) => Message {
                index,
                reject: true,
                reject_hint: durable,
                log_term: self.term_at(durable).unwrap_or(0),
                ..self.early(MessageKind::AppendResponse)
            },
        };
        self.outbox.push((leader, said));
    }

    /// An answer to the leader that does not wait for the disk.
    fn early(&self, kind: MessageKind) -> Message {
        Message {
            kind,
            from_life: self.life,
            to_life: life_of(self.raw.raft.leader_id),
            term: self.term(),
            log_term: 0,
            index: 0,
            commit: self.committed(),
            commit_term: 0,
            reject: false,
            reject_hint: 0,
            request_snapshot: 0,
            context: Bytes::new(),
            entries: Vec::new(),
            snapshot: None,
        }
    }

    /// Messages that may go out now, in order.
    pub fn take_messages(&mut self) -> Vec<(BrokerId, Message)> {
        std::mem::take(&mut self.outbox)
    }

    /// What was sent to a broker may not have come, a snapshot neither.
    pub fn unreachable(&mut self, broker: BrokerId) {
        let id = self.members().id(broker);
        self.raw.report_unreachable(id);
        self.raw.report_snapshot(id, raft::SnapshotStatus::Failure);
    }

    /// The leader, as far as this replica knows.
    pub fn leader(&self) -> Option<BrokerId> {
        let leader = self.raw.raft.leader_id;
        (leader != raft::INVALID_ID).then(|| broker_of(leader))
    }

    /// A broker is known to be gone. Whether it led: a vote for another may be given, and asked for, at once.
    pub fn lost(&mut self, broker: BrokerId) -> bool {
        self.unreachable(broker);
        let led = broker != self.broker && self.leader() == Some(broker);
        if led {
            self.raw.raft.leader_id = raft::INVALID_ID;
            if let Some((from, bid)) = self.early_bid.take().filter(|(from, _)| *from != broker) {
                self.step(from, bid);
            }
        }
        led
    }

    /// Hands the leadership to the replica that has most of the log among those that `may_lead`, as soon as it has all
    /// of it; until then nothing is appended. False where there is none, or nothing to hand over.
    pub fn hand_over(&mut self, may_lead: impl Fn(BrokerId) -> bool) -> bool {
        if !self.is_leader() || self.is_transferring() {
            return false;
        }
        let candidates =
            self.members().voters.iter().copied().filter(|broker| *broker != self.broker && may_lead(*broker));
        let best = candidates.max_by_key(|broker| (self.matched(*broker), Reverse(broker.0)));
        if let Some(to) = best {
            self.raw.transfer_leader(self.members().id(to));
        }
        best.is_some()
    }

    /// Whether it is being handed over.
    pub fn is_transferring(&self) -> bool {
        self.raw.raft.lead_transferee.is_some()
    }

    /// How far the log of a follower is known to agree and to be durable, on the leader.
    pub fn matched(&self, broker: BrokerId) -> Option<u64> {
        self.raw.raft.prs().get(self.members().id(broker)).map(|progress| progress.matched)
    }

    /// The highest index that at least `count` replicas hold durably, as far as the leader knows; `count` is at least 1.
    pub fn held_by(&self, count: usize) -> u64 {
        let mut matched: Vec<u64> = self.voters().filter_map(|broker| self.matched(broker)).collect();
        matched.sort_unstable_by_key(|index| Reverse(*index));
        matched.get(count - 1).copied().unwrap_or(0)
    }

    /// How many replicas make a majority.
    pub fn majority(&self) -> usize {
        self.members().voters.len() / 2 + 1
    }

    /// What followers are sent that need entries which are compacted.
    pub fn offer_snapshot(&mut self, point: SnapshotPoint) {
        self.raw.mut_store().offer(point);
    }

    /// Whether since the last call a follower needed a snapshot that was not there: none, or one from before it was taken
    /// into the group.
    pub fn takes_snapshot_wanted(&self) -> bool {
        self.raw.store().takes_snapshot_wanted()
    }

    /// The members as of the last change that is applied here.
    pub fn members(&self) -> &Members {
        self.raw.store().members()
    }

    /// The members as of this index, which is committed and not before the start of the log in memory.
    pub fn members_at(&self, index: u64) -> &Members {
        self.raw.store().members_at(index)
    }

    /// Those who vote on what comes next, this replica mostly included.
    pub fn voters(&self) -> impl Iterator<Item = BrokerId> + '_ {
        self.members().voters.iter().copied()
    }

    /// Whether this replica has a vote.
    pub fn votes(&self) -> bool {
        self.raw.raft.promotable()
    }

    /// The other members of the group.
    pub fn followers(&self) -> impl Iterator<Item = BrokerId> + '_ {
        self.members().all().into_iter().filter(|broker| *broker != self.broker)
    }

    /// Whether a change of the members may be under way.
    pub fn is_changing(&self) -> bool {
        self.raw.raft.has_pending_conf()
    }

    /// Proposes to change the members to `wanted`, which one step leads to: a learner more or less, a second set of voters, or
    /// the end of the first one.
    ///
    /// # Errors
    /// [`NotLeader`] where this replica does not lead, or an earlier change is under way.
    pub fn change_members(&mut self, wanted: &Members) -> Result<(), NotLeader> {
        if !self.is_leader() || self.is_changing() || self.is_transferring() {
            return Err(NotLeader);
        }
        let change = self.members().change_to(wanted);
        self.raw.propose_conf_change(wanted.encode(), change).map_err(|_| NotLeader)
    }

    fn apply_members(&mut self, wanted: Members) {
        let applied = self.raw.apply_conf_change(&self.members().change_to(&wanted));
        applied.unwrap_or_else(|error| panic!("the members cannot become {wanted:?}: {error}"));
        let reached = Members::from_conf_state(&self.raw.raft.prs().conf().to_conf_state(), wanted.number);
        assert!(reached.equals(&wanted), "the members became {reached:?}, not {wanted:?}");
        self.raw.mut_store().set_members(wanted);
        if self.is_leader() && !self.votes() {
            // An earlier leader proposed this, or it would have handed over before. raft-rs 0.7 leads on, and looks for itself
            // among the members as soon as its disk has written something.
            let term = self.raw.raft.term;
            self.raw.raft.become_follower(term, raft::INVALID_ID);
        }
    }

    /// Stands for election now, without waiting for a time-out.
    pub fn campaign(&mut self) {
        if self.restoring.is_some() || self.repair.is_some() || !self.raw.raft.promotable() {
            return;
        }
        // A group of one voter wins at once; raft-rs reports no other error here.
        self.raw.campaign().expect("a campaign can always be started");
    }

    /// Appends an entry to the log of a leader and returns its index.
    ///
    /// # Errors
    /// [`NotLeader`]: nothing was appended.
    pub fn propose(&mut self, data: Vec<u8>) -> Result<u64, NotLeader> {
        // raft-rs 0.7 would forward a follower's proposal and could do so twice.
        if !self.is_leader() {
            return Err(NotLeader);
        }
        self.raw.propose(Vec::new(), data).map_err(|_| NotLeader)?;
        Ok(self.last_index())
    }

    /// What to persist next, or `None`. The group goes on meanwhile; call again until `None`, then take the
    /// messages.
    pub fn take_ready(&mut self) -> Option<Ready> {
        while self.raw.has_ready() {
            let mut ready = self.raw.ready();
            let number = ready.number();
            let entries = ready.take_entries();
            let must_sync = ready.must_sync();
            let hard_state = ready.hs().map(|hs| HardState { term: hs.term, vote: hs.vote, commit: hs.commit });
            let applied = ready.committed_entries().last().map(|entry| entry.index);
            let changes = ready.committed_entries().iter().filter(|entry| entry.entry_type != EntryType::EntryNormal);
            let changes: Vec<Members> = changes.filter_map(|entry| Members::decode(&entry.context)).collect();
            let at_once = ready.take_messages();
            let once_durable = ready.take_persisted_messages();
            let snapshot = Some(ready.snapshot().clone()).filter(|snapshot| !snapshot.is_empty());
            let snapshot = snapshot.map(|snapshot| {
                let metadata = snapshot.metadata.unwrap_or_default();
                SnapshotPoint { index: metadata.index, term: metadata.term, data: snapshot.data }
            });
            // raft-rs requires the entries to be readable before the ready is handed back.
            let storage = self.raw.mut_store();
            if let Some(point) = &snapshot {
                let offered = self.offered.take().filter(|(index, _)| *index == point.index);
                let (_, members) = offered.expect("raft-rs takes what it was given last");
                storage.restore(point.index, point.term, members);
                self.restoring = Some((number, point.index));
            }
            storage.append(&entries);
            if let Some(state) = hard_state {
                storage.set_hard_state(state);
            }
            self.raw.advance_append_async(ready);
            for members in changes {
                self.apply_members(members);
            }
            if let Some(applied) = applied {
                self.raw.advance_apply_to(applied);
            }
            for (to, mut message) in at_once.into_iter().filter_map(Message::from_raft) {
                if let Some(point) = &message.snapshot {
                    let Some(members) = self.raw.store().members_of_snapshot(point.index) else {
                        // A later point was offered since raft-rs took this one. It is told that this one did not come: else
                        // it would wait for an answer for ever, and send this follower nothing more.
                        self.unreachable(to);
                        continue;
                    };
                    message.context = members.encode().into();
                }
                self.outbox.push((to, message));
            }
            let waits = must_sync || !self.unsynced.is_empty();
            for (to, message) in once_durable.into_iter().filter_map(Message::from_raft) {
                match waits {
                    // Too late, it would say nothing; at once, it would hide that the disk hangs.
                    true if message.kind == MessageKind::HeartbeatResponse => {}
                    true => self.held.push_back((number, message, to)),
                    false => self.outbox.push((to, message)),
                }
            }
            if must_sync {
                self.unsynced.push_back(number);
                // A commit index alone needs no write: it is found again from the log.
                let hard_state =
                    hard_state.filter(|state| (state.term, state.vote) != (self.written.term, self.written.vote));
                self.written = hard_state.unwrap_or(self.written);
                let hard_state = hard_state.map(|state| self.marked(state));
                let entries = entries.into_iter().map(Entry::from_raft).collect();
                return Some(Ready { number, snapshot, hard_state, entries });
            }
            if !waits {
                self.raw.on_persist_ready(number);
            }
        }
        None
    }

    /// The ready of this number, and all before it, are durable.
    pub fn persisted(&mut self, number: u64) {
        while self.unsynced.front().is_some_and(|first| *first <= number) {
            self.unsynced.pop_front();
        }
        // Readies without a write of their own count as durable with those before them.
        let through = self.unsynced.front().map_or(u64::MAX, |first| first - 1);
        while self.held.front().is_some_and(|(held, ..)| *held <= through) {
            let (_, message, to) = self.held.pop_front().expect("there is a front");
            self.outbox.push((to, message));
        }
        self.raw.on_persist_ready(through);
        if let Some((_, index)) = self.restoring.take_if(|(number, _)| *number <= through) {
            self.raw.advance_apply_to(index);
        }
        self.settle_repair();
    }

    /// The highest index that a majority holds durably. The truth by which data is acknowledged, even where this
    /// broker's own disk is behind.
    pub fn committed(&self) -> u64 {
        self.raw.raft.raft_log.committed
    }

    /// The index of the last entry, durable or not.
    pub fn last_index(&self) -> u64 {
        self.raw.raft.raft_log.last_index()
    }

    /// The current term.
    pub fn term(&self) -> u64 {
        self.raw.raft.term
    }

    /// Whether this replica leads.
    pub fn is_leader(&self) -> bool {
        self.raw.raft.state == StateRole::Leader
    }

    /// The hard state to put into a checkpoint.
    pub fn hard_state(&self) -> HardState {
        self.marked(HardState { commit: self.committed(), ..self.written })
    }

    /// The term of the entry at `index`, where the log still holds it.
    pub fn term_at(&self, index: u64) -> Option<u64> {
        self.raw.raft.raft_log.term(index).ok()
    }

    /// The entries of `low..high`, which must be in the log, written or not.
    pub fn entries(&self, low: u64, high: u64) -> Vec<Entry> {
        let entries = self.raw.raft.raft_log.slice(low, high, None, GetEntriesContext::empty(false));
        let entries = entries.unwrap_or_else(|error| panic!("entries {low}..{high} are not in the log: {error}"));
        entries.into_iter().map(Entry::from_raft).collect()
    }

    /// The entries after `index` that were given out to be written, in order. Those are left out that a leader has put others
    /// in the place of, which are given out next.
    pub fn written_after(&self, index: u64) -> Vec<Entry> {
        let end = self.raw.store().next_index().min(self.raw.raft.raft_log.unstable.offset);
        match index + 1 < end {
            true => self.raw.store().range(index + 1, end).collect(),
            false => Vec::new(),
        }
    }

    /// The index of the last entry that is not in memory.
    #[cfg(test)]
    pub(crate) fn compacted(&self) -> u64 {
        raft::Storage::first_index(self.raw.store()).map_or(0, |first| first - 1)
    }

    /// Forgets the entries up to `index`, but for the last of them that weigh no more than `kept` bytes together.
    pub fn compact_but(&mut self, index: u64, kept: u64) {
        self.compact(self.raw.store().before_last(index, kept));
    }

    /// Forgets the entries up to `index`, which lie in segments or a snapshot now; those that raft-rs has still to look
    /// at stay until the next call.
    pub fn compact(&mut self, index: u64) {
        let applied = self.raw.raft.raft_log.applied;
        self.raw.mut_store().compact(index.min(applied));
    }
}

#[cfg(test)]
mod tests;
