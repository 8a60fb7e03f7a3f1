//! The coordinator: the metadata's log and those who wait for what they asked of it. Shard 0 has it, alone.
//!
//! A request becomes one command, one entry of the log. Its answer goes out when a majority holds the entry, every
//! shard has applied it, and every partition that it made has a leader that every shard knows.

mod creations;
mod durable;
mod quorum;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use kafka_protocol::messages::{
    CreateTopicsRequest, CreateTopicsResponse, DeleteTopicsRequest, DeleteTopicsResponse, InitProducerIdRequest,
    InitProducerIdResponse, ProducerId,
};

use durable::{MetadataCheckpoint, checkpoint_frame, entry_frame, hard_state_frame, read_checkpoint, with_hard_state};
pub use durable::{MetadataRecoveryError, metadata_of};

use super::Shard;
use super::ask::Asker;
use super::creation::{Stages, Watch};
use super::handlers::{create_topics, delete_topics, describe_quorum};
use super::in_sync::Followers;
use super::mesh::{Question, Reply, ShardMessage};
use super::rng::Rng;
use crate::consensus::{Entry, Group, GroupState, HardState, Message, NotLeader, SnapshotPoint};
use crate::limits::{PRODUCER_ID_BLOCK, REQUEST_TIMEOUT_MS};
use crate::log::recovery::RecoveredLog;
use crate::log::{Chunk, FrameKind};
use crate::metadata::command::NewPartition;
use crate::metadata::{Change, Command, State, codec};
use crate::metrics::Stage;
use crate::peer::PeerMessage;
use crate::protocol::request::RequestBody;
use crate::protocol::{ErrorCode, ResponseBody};
use crate::types::{BrokerId, Deadline, LogId, Mono, Now, PeerAddress, Set, ShardId};

/// The coordinator's state beside the metadata, which every shard has. Every broker of a cluster has one; the one whose
/// replica of the metadata's group leads does the work, the others send it what they are asked.
pub(super) struct Coordinator {
    group: Group,
    /// How far the other replicas are behind, where this one leads.
    followers: Followers,
    /// Whether the commands from before this start are all applied and the shards have the metadata.
    started: bool,
    /// Requests whose command is proposed, by its index, with the term it has there.
    proposed: BTreeMap<u64, (u64, Waiting)>,
    /// Commands that are applied here and not shown everywhere yet.
    applied: BTreeMap<u64, Showing>,
    /// Answers to creations that wait for the leaders of topics which were made before.
    made_before: Vec<MadeBefore>,
    /// Producer ids that may be handed out.
    producer_ids: std::ops::Range<i64>,
    allocating: bool,
    wanting_ids: VecDeque<(Asker, Deadline)>,
    /// Creations, by the index of their command, for which a stage has ended since the clock was looked at last.
    ended: Vec<(u64, Stage)>,
    /// Drawn at each start.
    incarnation: u64,
    registered: bool,
    next_register: Mono,
    /// Where brokers listen, by commands that the disk held at the start and that may not be committed.
    noted: Vec<PeerAddress>,
    /// Brokers that were not let in, with their data directories.
    turned_away: BTreeSet<(BrokerId, [u8; 16])>,
    /// The index of the checkpoint that is on its way to the WAL.
    checkpointing: Option<u64>,
}

/// A command that is applied here.
struct Showing {
    /// Shards that do not show it yet.
    shards: u16,
    /// Other brokers that do not, and are waited for.
    brokers: Set<BrokerId>,
    /// Since when they are.
    since: Mono,
    waiting: Option<Waiting>,
}

struct MadeBefore {
    asker: Asker,
    deadline: Deadline,
    logs: Vec<LogId>,
    reply: Reply,
    /// There where it answers a creation.
    watch: Option<Box<Watch>>,
}

enum Waiting {
    Register,
    ProducerIds,
    /// With the partitions that the command makes.
    CreateTopics(Asker, Box<CreateTopicsRequest>, Box<CreateTopicsResponse>, Vec<NewPartition>, Box<Watch>),
    DeleteTopics(Asker, Box<DeleteTopicsRequest>, Box<DeleteTopicsResponse>),
    Change(PlannedChange),
    ReplicasMoved,
}

/// A change of what is there already, whose command is proposed.
pub(super) struct PlannedChange {
    pub(super) asker: Asker,
    pub(super) deadline: Deadline,
    /// The request, to plan it again where another command came before.
    pub(super) request: Box<RequestBody>,
    /// Whether an earlier try of it may have been carried out.
    pub(super) again: bool,
    /// The answer once the command is shown everywhere.
    pub(super) response: Box<ResponseBody>,
}

impl Coordinator {
    /// The coordinator and the metadata as of its last checkpoint, from what the disk holds.
    ///
    /// # Errors
    /// Where the checkpoint cannot be read: a broker without its metadata must not start.
    pub(super) fn recover(
        broker: BrokerId,
        voters: &[BrokerId],
        recovered: Option<RecoveredLog>,
        incarnation: u64,
        logger: &slog::Logger,
    ) -> Result<(Coordinator, State), MetadataRecoveryError> {
        let mut state = State::default();
        let mut group = GroupState::default();
        let mut offer = None;
        if let Some(recovered) = recovered {
            if let Some(frame) = recovered.checkpoint {
                (group.hard_state, state, group.members) =
                    read_checkpoint(&frame.payload).map_err(MetadataRecoveryError)?;
                group.compacted = (frame.index, frame.term);
                offer = Some(SnapshotPoint { index: frame.index, term: frame.term, data: frame.payload });
            }
            if let Some(bytes) = recovered.hard_state {
                group.hard_state = HardState::from_bytes(&bytes)
                    .ok_or_else(|| MetadataRecoveryError("a hard state of the wrong length".to_owned()))?;
            }
            let entries = recovered.entries.into_iter();
            group.entries =
                entries.map(|entry| Entry { index: entry.index, term: entry.term, data: entry.payload }).collect();
        }
        let noted = group.entries.iter().filter_map(|entry| quorum::address_in(&entry.data)).collect();
        let weigh = |data: &[u8]| data.len() as u64 + 64;
        let mut group = Group::new(LogId::METADATA, (broker, 0), voters, group, weigh, logger);
        if let Some(point) = offer {
            group.offer_snapshot(point);
        }
        let coordinator = Coordinator {
            group,
            followers: Followers::default(),
            started: false,
            proposed: BTreeMap::new(),
            applied: BTreeMap::new(),
            made_before: Vec::new(),
            producer_ids: 0..0,
            allocating: false,
            wanting_ids: VecDeque::new(),
            ended: Vec::new(),
            incarnation,
            registered: false,
            next_register: Mono::default(),
            noted,
            turned_away: BTreeSet::new(),
            checkpointing: None,
        };
        Ok((coordinator, state))
    }

    /// Whether the broker is registered and everything from before the start is applied.
    pub(super) fn ready(&self) -> bool {
        self.registered
    }

    /// Whether someone waits for a command.
    pub(super) fn busy(&self) -> bool {
        !self.proposed.is_empty()
            || !self.applied.is_empty()
            || !self.made_before.is_empty()
            || !self.wanting_ids.is_empty()
    }

    /// Whether this broker's coordinator is the one that works.
    pub(super) fn leads(&self) -> bool {
        self.started && self.group.is_leader()
    }

    /// The broker whose coordinator works, as far as is known.
    pub(super) fn leader(&self) -> Option<BrokerId> {
        self.group.leader()
    }

    /// The metadata's Raft group.
    pub(super) fn group(&self) -> &Group {
        &self.group
    }

    /// The frames of its checkpoint are durable.
    pub(super) fn checkpoint_durable(&mut self) {
        self.checkpointing = None;
    }

    /// Raft's time has passed; whether the disk hangs.
    pub(super) fn tick(&mut self, now: Mono, hangs: bool) {
        self.group.set_hangs(hangs);
        self.group.tick();
        if self.group.is_leader() {
            self.followers.look(now, &self.group);
        }
    }

    /// The connection to a broker is lost.
    pub(super) fn peer_unreachable(&mut self, peer: BrokerId) {
        self.group.unreachable(peer);
    }
}

impl Shard {
    /// Stands for election of the metadata's group where there is nobody else to.
    pub(super) fn start_coordinator(&mut self) {
        if let Some(coordinator) = self.coordinator.as_mut().filter(|coordinator| coordinator.group.is_alone()) {
            coordinator.group.campaign();
        }
        self.know_peers();
        self.reach_noted();
    }

    /// Moves what the metadata's group must write into this turn's frames, and what it says to the other brokers into
    /// theirs.
    pub(super) fn take_metadata_frames(&mut self, now: Now) {
        let Some(coordinator) = &mut self.coordinator else { return };
        let log = LogId::METADATA;
        while let Some(ready) = coordinator.group.take_ready() {
            let appends = &mut self.storage.meta_appends;
            if let Some(point) = ready.snapshot {
                // Another broker has made it. This one's own hard state belongs into the same frame: between two, a power
                // cut could leave the other's vote for this one's.
                let point = with_hard_state(point, coordinator.group.hard_state());
                appends.frames().push(checkpoint_frame(FrameKind::Snapshot, &point));
                coordinator.group.offer_snapshot(point);
            }
            if let Some(state) = ready.hard_state {
                appends.frames().push(hard_state_frame(state));
            }
            appends.frames().extend(ready.entries.into_iter().map(|entry| entry_frame(entry, false)));
            appends.ready(log, ready.number);
        }
        for (to, message) in coordinator.group.take_messages() {
            let beside =
                message.entries.iter().map(|_| Chunk { head: Default::default(), body: Bytes::new() }).collect();
            self.peers.send(to, PeerMessage::Raft { log, message, beside });
        }
        // With nothing else to write, a state that is there already shows whether the disk takes writes.
        if self.peers.any() && self.storage.meta_appends.is_empty() && self.storage.wants_canary(now) {
            self.storage.meta_appends.frames().push(hard_state_frame(coordinator.group.hard_state()));
        }
    }

    /// Frames of the metadata are durable up to this ready.
    pub(super) fn metadata_persisted(&mut self, now: Now, number: u64) {
        let coordinator = self.coordinator.as_mut().expect("the shard with the metadata's log");
        coordinator.group.persisted(number);
        self.metadata_moved(now);
    }

    /// Another replica of the metadata's group has sent something.
    pub(super) fn metadata_stepped(&mut self, now: Now, from: BrokerId, message: Message) {
        let Some(coordinator) = &mut self.coordinator else { return };
        let snapshot = message.snapshot.clone().filter(|point| point.index > coordinator.group.committed());
        coordinator.group.step(from, message);
        if let Some(point) = snapshot.filter(|point| coordinator.group.committed() == point.index) {
            self.metadata_replaced(now, &point);
        }
        self.metadata_moved(now);
    }

    /// The metadata's log begins anew with a snapshot of another broker's.
    fn metadata_replaced(&mut self, now: Now, point: &SnapshotPoint) {
        let state = match read_checkpoint(&point.data) {
            Ok((_, state, _)) => state,
            Err(error) => return self.fatal(format!("the metadata's snapshot cannot be read: {error}")),
        };
        let coordinator = self.coordinator.as_mut().expect("the shard with the metadata's log");
        if !coordinator.started {
            self.state = state;
            return;
        }
        for shard in 1..self.shards {
            self.send(ShardId(shard), ShardMessage::Metadata(Box::new(state.clone())));
        }
        self.metadata_arrived(now, state);
    }

    /// Applies what is committed and was not.
    fn metadata_moved(&mut self, now: Now) {
        let coordinator = self.coordinator.as_mut().expect("the shard with the metadata's log");
        let committed = coordinator.group.committed();
        let from = self.state.applied() + 1;
        if from <= committed {
            for entry in coordinator.group.entries(from, committed + 1) {
                self.commit_metadata(now, entry);
            }
        }
        let coordinator = self.coordinator.as_mut().expect("the shard with the metadata's log");
        if !coordinator.started && coordinator.group.term_at(committed) == Some(coordinator.group.term()) {
            coordinator.started = true;
            for shard in 1..self.shards {
                self.send(ShardId(shard), ShardMessage::Metadata(Box::new(self.state.clone())));
            }
            self.open_partitions(now);
        }
        self.register(now);
    }

    /// Does what is due by time.
    pub(super) fn tick_coordinator(&mut self, now: Now) {
        if self.coordinator.is_none() {
            return;
        }
        self.register(now);
        self.give_older_back(now);
        self.count_late_creations(now);
        self.settle_shown(now);
        self.settle_made_before(now);
        self.ask_again(now);
    }

    /// A broker is gone: nobody waits for it to show anything, and where it led, another may at once.
    pub(super) fn metadata_peer_lost(&mut self, now: Now, peer: BrokerId) {
        let leads = self.peers.leads(now);
        let Some(coordinator) = &mut self.coordinator else { return };
        let led = coordinator.group.lost(peer);
        if led && leads && self.peers.is_first(coordinator.group.voters(), self.config.broker_id) {
            coordinator.group.campaign();
        }
        for showing in coordinator.applied.values_mut() {
            showing.brokers.remove(&peer);
        }
        self.settle_shown(now);
    }

    /// Hands the metadata's group to another broker.
    pub(super) fn hand_metadata_over(&mut self, now: Now) {
        let own = self.config.broker_id;
        let Some(coordinator) = &mut self.coordinator else { return };
        coordinator.group.hand_over(|broker| self.peers.is_fitter(now, own, broker));
    }

    /// Whether this broker leads the metadata's group although one of those that have a vote is `fitter`.
    pub(super) fn leads_metadata_before(&self, fitter: impl Fn(BrokerId) -> bool) -> bool {
        let leading = self.coordinator.as_ref().filter(|coordinator| coordinator.group.is_leader());
        leading.is_some_and(|coordinator| coordinator.group.voters().any(fitter))
    }

    /// Proposes a command for which `waiting` waits.
    fn propose(&mut self, command: &Command, waiting: Waiting) -> Result<(), (ErrorCode, Waiting)> {
        let coordinator = self.coordinator.as_mut().expect("the shard with the metadata's log");
        // What is left of the WAL is for what makes room, and for brokers that start.
        let needed = matches!(command, Command::DeleteTopics { .. } | Command::RegisterBroker(_));
        let full = if needed { self.storage.meta.scarce } else { self.storage.meta.full };
        if self.storage.meta.failed || full {
            return Err((ErrorCode::KafkaStorageError, waiting));
        }
        let Ok(data) = codec::encode_command(command) else {
            return Err((ErrorCode::PolicyViolation, waiting));
        };
        let Ok(index) = coordinator.group.propose(data) else {
            return Err((ErrorCode::NotController, waiting));
        };
        let term = coordinator.group.term();
        if let Waiting::CreateTopics(..) = &waiting {
            coordinator.ended.push((index, Stage::Validate));
        }
        coordinator.proposed.insert(index, (term, waiting));
        Ok(())
    }

    fn commit_metadata(&mut self, now: Now, entry: Entry) {
        let coordinator = self.coordinator.as_mut().expect("the shard with the metadata's log");
        let waiting = coordinator.proposed.remove(&entry.index);
        let waiting = match waiting {
            Some((term, waiting)) if term == entry.term => Some(waiting),
            // Another leader has put its own in this place.
            Some((_, waiting)) => {
                self.give_back(now, waiting);
                None
            }
            None => None,
        };
        if entry.is_rafts_own() {
            self.state.skip_to(entry.index);
            return;
        }
        let command = match codec::decode_command(&entry.data) {
            Ok(command) => Arc::new(command),
            Err(error) => {
                // Going on without it would make this broker's metadata differ from all others'.
                let reason = format!("entry {} of the metadata's log cannot be read: {error}", entry.index);
                return self.fatal(reason);
            }
        };
        let started = self.coordinator.as_ref().is_some_and(|coordinator| coordinator.started);
        if !started {
            self.state.apply(entry.index, &command);
            return;
        }
        for shard in 1..self.shards {
            self.send(ShardId(shard), ShardMessage::Committed { index: entry.index, command: command.clone() });
        }
        let changes = self.state.apply(entry.index, &command);
        let coordinator = self.coordinator.as_mut().expect("the shard with the metadata's log");
        let (own, incarnation) = (self.config.broker_id, coordinator.incarnation);
        let registered = self.state.broker(own).is_some_and(|broker| broker.incarnation == incarnation);
        let is_news = registered && !std::mem::replace(&mut coordinator.registered, registered);
        let mut waiting = waiting;
        if let Some(Waiting::Change(planned)) = waiting {
            waiting = self.note_change(now, planned, &changes).map(Waiting::Change);
        }
        let coordinator = self.coordinator.as_mut().expect("the shard with the metadata's log");
        match &mut waiting {
            Some(Waiting::CreateTopics(_, _, response, _, watch)) => {
                watch.end(now, Stage::Commit);
                coordinator.ended.push((entry.index, Stage::Apply));
                create_topics::note_rejections(response, &changes);
            }
            Some(Waiting::DeleteTopics(_, _, response)) => delete_topics::note_rejections(response, &changes),
            Some(Waiting::ProducerIds) => {
                coordinator.allocating = false;
                for change in &changes {
                    if let Change::ProducerIds { first, count, .. } = change {
                        coordinator.producer_ids = *first..*first + i64::from(*count);
                    }
                }
            }
            Some(Waiting::Register | Waiting::Change(_) | Waiting::ReplicasMoved) | None => {}
        }
        let brokers = if waiting.is_some() { self.peers.alive().collect() } else { Set::default() };
        let showing = Showing { shards: self.shards, brokers, since: now.mono, waiting };
        coordinator.applied.insert(entry.index, showing);
        self.enact(now, entry.index, changes);
        if is_news {
            for shard in 1..self.shards {
                self.send(ShardId(shard), ShardMessage::Current);
            }
            self.metadata_is_current(now);
        }
    }

    /// A shard shows all of the command at `index`.
    pub(super) fn shard_applied(&mut self, now: Now, index: u64) {
        let coordinator = self.coordinator.as_mut().expect("the shard with the metadata's log");
        let Some(showing) = coordinator.applied.get_mut(&index) else { return };
        showing.shards -= 1;
        if showing.shards > 0 {
            return;
        }
        if showing.waiting.is_none() {
            coordinator.applied.remove(&index);
            if let Some(leader) = coordinator.group.leader() {
                self.peers.send(leader, PeerMessage::Applied { index });
            }
            return;
        }
        self.settle_shown(now);
    }

    /// Another broker shows all of the command at `index`.
    pub(super) fn peer_applied(&mut self, now: Now, from: BrokerId, index: u64) {
        let Some(coordinator) = &mut self.coordinator else { return };
        let Some(showing) = coordinator.applied.get_mut(&index) else { return };
        showing.brokers.remove(&from);
        self.settle_shown(now);
    }

    /// Answers those whose command is shown wherever it is waited for.
    fn settle_shown(&mut self, now: Now) {
        let coordinator = self.coordinator.as_mut().expect("the shard with the metadata's log");
        let shown = |showing: &Showing| {
            let given_up = |broker| now.mono >= showing.since.plus_millis(self.peers.shows_within_ms(broker));
            showing.waiting.is_some() && showing.shards == 0 && showing.brokers.iter().copied().all(given_up)
        };
        let indexes: Vec<u64> =
            coordinator.applied.iter().filter(|(_, showing)| shown(showing)).map(|(index, _)| *index).collect();
        for index in indexes {
            let coordinator = self.coordinator.as_mut().expect("the shard with the metadata's log");
            match coordinator.applied.remove(&index).and_then(|showing| showing.waiting) {
                None | Some(Waiting::Register | Waiting::ReplicasMoved) => {}
                Some(Waiting::ProducerIds) => self.hand_out_producer_ids(now),
                Some(Waiting::CreateTopics(asker, _, response, _, watch)) => {
                    let deadline = Deadline::after_millis(now, REQUEST_TIMEOUT_MS);
                    self.answer_when_led(now, asker, deadline, Vec::new(), response, watch);
                }
                Some(Waiting::DeleteTopics(asker, _, response)) => {
                    self.tell(now, asker, Ok(Reply::DeleteTopics(response)));
                }
                Some(Waiting::Change(PlannedChange { asker, response, .. })) => {
                    self.tell(now, asker, Ok(Reply::Change(response)));
                }
            }
        }
    }

    /// Answers those whose topics were made by an earlier try, once their leaders are known.
    fn settle_made_before(&mut self, now: Now) {
        let coordinator = self.coordinator.as_mut().expect("the shard with the metadata's log");
        for made in std::mem::take(&mut coordinator.made_before) {
            if made.deadline.passed(now) {
                continue;
            }
            if made.logs.iter().all(|log| self.leaders.contains_key(log)) {
                let mut reply = made.reply;
                if let (Reply::CreateTopics(response, stages), Some(watch)) = (&mut reply, made.watch) {
                    *stages = self.creation_coordinated(now, *watch, response);
                }
                self.tell(now, made.asker, Ok(reply));
            } else {
                self.coordinator.as_mut().expect("it is there").made_before.push(made);
            }
        }
    }

    /// Answers a creation once all these logs have leaders, and those of the topics that it says are there already:
    /// whoever is told of a topic may use it.
    fn answer_when_led(
        &mut self,
        now: Now,
        asker: Asker,
        deadline: Deadline,
        mut logs: Vec<LogId>,
        response: Box<CreateTopicsResponse>,
        watch: Box<Watch>,
    ) {
        let exists = ErrorCode::TopicAlreadyExists.code();
        let there = response.topics.iter().filter(|result| result.error_code == exists);
        let there = there.filter_map(|result| self.state.topic(&result.name));
        logs.extend(there.flat_map(|topic| topic.partitions.iter().map(|partition| partition.log)));
        let reply = Reply::CreateTopics(response, Stages::default());
        self.tell_when_led(now, asker, deadline, logs, reply, Some(watch));
    }

    /// Tells whoever asked once all these logs have leaders.
    pub(super) fn tell_when_led(
        &mut self,
        now: Now,
        asker: Asker,
        deadline: Deadline,
        logs: Vec<LogId>,
        reply: Reply,
        watch: Option<Box<Watch>>,
    ) {
        let coordinator = self.coordinator.as_mut().expect("the shard with the metadata's log");
        coordinator.made_before.push(MadeBefore { asker, deadline, logs, reply, watch });
        self.settle_made_before(now);
    }

    /// Nobody knows what becomes of the commands of an earlier term: whoever asked for them asks again.
    fn give_older_back(&mut self, now: Now) {
        let coordinator = self.coordinator.as_mut().expect("the shard with the metadata's log");
        let term = coordinator.group.term();
        let older: Vec<u64> =
            coordinator.proposed.iter().filter(|(_, (of, _))| *of < term).map(|(index, _)| *index).collect();
        for index in older {
            let coordinator = self.coordinator.as_mut().expect("it is there");
            if let Some((_, waiting)) = coordinator.proposed.remove(&index) {
                self.give_back(now, waiting);
            }
        }
    }

    /// A command was not committed: whoever asked may ask the coordinator that leads now.
    fn give_back(&mut self, now: Now, waiting: Waiting) {
        match waiting {
            Waiting::Register | Waiting::ReplicasMoved => {}
            Waiting::ProducerIds => {
                self.coordinator.as_mut().expect("it is there").allocating = false;
                self.hand_out_producer_ids(now);
            }
            Waiting::CreateTopics(asker, ..)
            | Waiting::DeleteTopics(asker, ..)
            | Waiting::Change(PlannedChange { asker, .. }) => self.tell(now, asker, Err(NotLeader)),
        }
    }

    /// The partitions of the topics whose creation is proposed and not applied yet.
    fn partitions_under_way(&self) -> impl Iterator<Item = &NewPartition> {
        let proposed = self.coordinator.iter().flat_map(|coordinator| coordinator.proposed.values());
        proposed.flat_map(|(_, waiting)| match waiting {
            Waiting::CreateTopics(.., partitions, _) => partitions.iter(),
            _ => [].iter(),
        })
    }

    /// Does what the coordinator is asked; it leads.
    pub(super) fn answer_question(&mut self, now: Now, asker: Asker, deadline: Deadline, question: Question) {
        match question {
            Question::CreateTopics { request: wanted, version, token } => {
                let watch = Box::new(Watch::start(now, deadline));
                let new_id = |place: usize| Rng::new(token.wrapping_add(place as u64)).uuid();
                let under_way: Vec<NewPartition> = self.partitions_under_way().cloned().collect();
                let plan = create_topics::plan(&self.state, &self.config, &under_way, &wanted, version, &new_id);
                let mut response = Box::new(plan.response);
                let Some(mut command) = plan.command else {
                    let logs = create_topics::note_made_before(
                        &mut response,
                        &self.state,
                        &self.config,
                        &wanted,
                        version,
                        &new_id,
                    );
                    return self.answer_when_led(now, asker, deadline, logs, response, watch);
                };
                let own = self.config.broker_id;
                prefer(&mut command, |broker| self.peers.unfitness(now, own, broker));
                let waiting = Waiting::CreateTopics(asker, wanted, response, partitions_of(&command), watch);
                if let Err((error, Waiting::CreateTopics(asker, wanted, ..))) = self.propose(&command, waiting) {
                    let reply = create_topics::failed(&wanted, error);
                    self.refuse(now, asker, error, Reply::CreateTopics(Box::new(reply), Stages::default()));
                }
            }
            Question::DeleteTopics { request: wanted, .. } => {
                let plan = delete_topics::plan(&self.state, &wanted);
                let response = Box::new(plan.response);
                let Some(command) = plan.command else {
                    return self.tell(now, asker, Ok(Reply::DeleteTopics(response)));
                };
                let waiting = Waiting::DeleteTopics(asker, wanted, response);
                if let Err((error, Waiting::DeleteTopics(asker, wanted, _))) = self.propose(&command, waiting) {
                    let reply = delete_topics::failed(&wanted, error);
                    self.refuse(now, asker, error, Reply::DeleteTopics(Box::new(reply)));
                }
            }
            Question::InitProducerId { request: wanted } => {
                if let Some(refused) = refuse_producer(&wanted) {
                    return self.tell(now, asker, Ok(Reply::InitProducerId(Box::new(refused))));
                }
                let coordinator = self.coordinator.as_mut().expect("the shard with the metadata's log");
                coordinator.wanting_ids.push_back((asker, deadline));
                self.hand_out_producer_ids(now);
            }
            Question::Change { request, again } => self.change(now, asker, deadline, request, again),
            Question::ReplicasMoved { placed, number } => {
                // It is said again until it shows.
                let command = Command::ReplicasMoved { placed, number };
                if let Err((error, _)) = self.propose(&command, Waiting::ReplicasMoved) {
                    tracing::debug!(?error, "that replicas have moved cannot be noted yet");
                }
            }
            Question::DescribeQuorum(wanted) => {
                let response = describe_quorum::respond(&self.quorum(now), &wanted);
                self.tell(now, asker, Ok(Reply::DescribeQuorum(Box::new(response))));
            }
            Question::Register(broker, address) => {
                if let Some(refusal) = self.state.refuses(&broker) {
                    return self.turn_away(&broker, refusal);
                }
                let command = match address {
                    Some(address) => Command::RegisterPeer { broker: *broker, address },
                    None => Command::RegisterBroker(*broker),
                };
                if let Err((error, _)) = self.propose(&command, Waiting::Register) {
                    tracing::debug!(?error, "a broker cannot be registered yet");
                }
            }
        }
    }

    /// Proposes the command of a planned change.
    pub(super) fn propose_change(
        &mut self,
        command: &Command,
        planned: PlannedChange,
    ) -> Result<(), (ErrorCode, PlannedChange)> {
        self.propose(command, Waiting::Change(planned)).map_err(|(error, waiting)| match waiting {
            Waiting::Change(planned) => (error, planned),
            _ => unreachable!("what is not proposed is given back"),
        })
    }

    pub(super) fn refuse(&mut self, now: Now, asker: Asker, error: ErrorCode, reply: Reply) {
        let reply = if error == ErrorCode::NotController { Err(NotLeader) } else { Ok(reply) };
        self.tell(now, asker, reply);
    }

    fn hand_out_producer_ids(&mut self, now: Now) {
        let broker = self.config.broker_id;
        loop {
            let coordinator = self.coordinator.as_mut().expect("the shard with the metadata's log");
            let Some(&(asker, deadline)) = coordinator.wanting_ids.front() else { return };
            if deadline.passed(now) {
                // Its client was told so by the shard of its connection.
                coordinator.wanting_ids.pop_front();
                continue;
            }
            let Some(id) = coordinator.producer_ids.next() else {
                if coordinator.allocating {
                    return;
                }
                let command = Command::AllocateProducerIds { broker, count: PRODUCER_ID_BLOCK };
                match self.propose(&command, Waiting::ProducerIds) {
                    Ok(()) => {
                        self.coordinator.as_mut().expect("the shard with the metadata's log").allocating = true;
                        return;
                    }
                    Err((error, _)) => {
                        let coordinator = self.coordinator.as_mut().expect("the shard with the metadata's log");
                        coordinator.wanting_ids.pop_front();
                        let refused = InitProducerIdResponse::default().with_error_code(error.code());
                        self.refuse(now, asker, error, Reply::InitProducerId(Box::new(refused)));
                        continue;
                    }
                }
            };
            coordinator.wanting_ids.pop_front();
            let response = InitProducerIdResponse::default().with_producer_id(ProducerId(id)).with_producer_epoch(0);
            self.tell(now, asker, Ok(Reply::InitProducerId(Box::new(response))));
        }
    }

    /// The WAL wants the metadata's oldest segment back.
    pub(super) fn checkpoint_metadata(&mut self) {
        let Some(coordinator) = &mut self.coordinator else { return };
        let index = self.state.applied();
        let Some(term) = coordinator.group.term_at(index) else { return };
        if coordinator.checkpointing == Some(index) {
            return;
        }
        let snapshot = match codec::encode_snapshot(&self.state.snapshot()) {
            Ok(snapshot) => snapshot,
            Err(error) => return tracing::error!(%error, "the metadata is too large for a checkpoint"),
        };
        let (hard_state, members) = (coordinator.group.hard_state(), coordinator.group.members_at(index).clone());
        let data = MetadataCheckpoint { hard_state, snapshot, members: Some(members) }.encode();
        let point = SnapshotPoint { index, term, data };
        coordinator.group.compact_but(index, self.config.metadata_kept_bytes);
        let after = coordinator.group.written_after(index);
        // What cannot be committed for long, as where nobody else is there, keeps no more of the WAL than this.
        let again = after.into_iter().map(|entry| entry_frame(entry, true));
        let frames = [checkpoint_frame(FrameKind::Checkpoint, &point)].into_iter().chain(again);
        self.storage.meta_appends.checkpoint(LogId::METADATA, frames);
        coordinator.checkpointing = Some(index);
        coordinator.group.offer_snapshot(point);
    }
}

/// Transactions need a transaction coordinator, which this broker does not have yet.
fn refuse_producer(request: &InitProducerIdRequest) -> Option<InitProducerIdResponse> {
    request.transactional_id.as_ref()?;
    Some(
        InitProducerIdResponse::default()
            .with_error_code(ErrorCode::InvalidRequest.code())
            .with_producer_id(ProducerId(-1))
            .with_producer_epoch(-1),
    )
}

/// Puts brokers that are not fit to lead just now last among the replicas of new partitions.
pub(super) fn prefer(command: &mut Command, unfitness: impl Fn(BrokerId) -> u8) {
    let sort = |partitions: &mut Vec<NewPartition>| {
        partitions.iter_mut().for_each(|partition| partition.replicas.sort_by_key(|broker| unfitness(*broker)));
    };
    match command {
        Command::CreateTopics { topics } => topics.iter_mut().for_each(|topic| sort(&mut topic.partitions)),
        Command::CreatePartitions { topics } => topics.iter_mut().for_each(|topic| sort(&mut topic.partitions)),
        _ => {}
    }
}

/// The partitions that a command makes.
fn partitions_of(command: &Command) -> Vec<NewPartition> {
    match command {
        Command::CreateTopics { topics } => topics.iter().flat_map(|topic| topic.partitions.iter().cloned()).collect(),
        _ => Vec::new(),
    }
}
