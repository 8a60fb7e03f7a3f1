//! The coordinator: the metadata's log and those who wait for what they asked of it. Shard 0 has it, alone.
//!
//! A request becomes one command, one entry of the log. Its answer goes out when a majority holds the entry, every
//! shard has applied it, and every partition that it made has a leader that every shard knows.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use kafka_protocol::messages::{
    CreateTopicsResponse, DeleteTopicsResponse, InitProducerIdRequest, InitProducerIdResponse, ProducerId,
};

use super::Shard;
use super::handlers::{create_topics, delete_topics};
use super::mesh::{Question, Reply, RequestId, ShardMessage};
use crate::consensus::{Entry, Group, GroupState, HardState};
use crate::limits::PRODUCER_ID_BLOCK;
use crate::log::recovery::RecoveredLog;
use crate::log::{Frame, FrameKind};
use crate::metadata::command::NewBroker;
use crate::metadata::{Change, Command, State, codec};
use crate::protocol::ErrorCode;
use crate::types::{BrokerId, Deadline, LogId, Now, ShardId};

/// The coordinator's state beside the metadata, which every shard has.
pub(super) struct Coordinator {
    group: Group,
    /// Whether the commands from before this start are all applied and the shards have the metadata.
    started: bool,
    /// Requests whose command is proposed, by its index.
    proposed: BTreeMap<u64, Waiting>,
    /// Requests whose command is applied here, with the number of shards that still have to say so.
    applied: BTreeMap<u64, (u16, Waiting)>,
    /// Producer ids that may be handed out.
    producer_ids: std::ops::Range<i64>,
    allocating: bool,
    wanting_ids: VecDeque<(RequestId, Deadline)>,
    /// Drawn at each start.
    incarnation: u64,
    registered: bool,
}

enum Waiting {
    Register,
    ProducerIds,
    CreateTopics(RequestId, Box<CreateTopicsResponse>),
    DeleteTopics(RequestId, Box<DeleteTopicsResponse>),
}

/// The payload of the metadata's checkpoint frame.
#[derive(serde::Serialize, serde::Deserialize)]
struct MetadataCheckpoint {
    hard_state: HardState,
    snapshot: Vec<u8>,
}

/// What the WAL holds of the metadata cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("the metadata's log cannot be read: {0}")]
pub struct MetadataRecoveryError(String);

impl Coordinator {
    /// The coordinator and the metadata as of its last checkpoint, from what the disk holds.
    ///
    /// # Errors
    /// Where the checkpoint cannot be read: a broker without its metadata must not start.
    pub(super) fn recover(
        broker: BrokerId,
        recovered: Option<RecoveredLog>,
        incarnation: u64,
        logger: &slog::Logger,
    ) -> Result<(Coordinator, State), MetadataRecoveryError> {
        let unreadable = |error: &dyn std::fmt::Display| MetadataRecoveryError(error.to_string());
        let mut state = State::default();
        let mut group = GroupState::default();
        if let Some(recovered) = recovered {
            if let Some(frame) = recovered.checkpoint {
                let checkpoint: MetadataCheckpoint =
                    crate::codec::decode(&frame.payload).map_err(|error| unreadable(&error))?;
                let snapshot = codec::decode_snapshot(&checkpoint.snapshot).map_err(|error| unreadable(&error))?;
                state = State::from_snapshot(snapshot).map_err(|error| unreadable(&error))?;
                group.hard_state = checkpoint.hard_state;
                group.compacted = (frame.index, frame.term);
            }
            if let Some(bytes) = recovered.hard_state {
                group.hard_state =
                    HardState::from_bytes(&bytes).ok_or_else(|| unreadable(&"a hard state of the wrong length"))?;
            }
            let entries = recovered.entries.into_iter();
            group.entries =
                entries.map(|entry| Entry { index: entry.index, term: entry.term, data: entry.payload }).collect();
        }
        let coordinator = Coordinator {
            group: Group::new(LogId::METADATA, broker, &[broker], group, logger),
            started: false,
            proposed: BTreeMap::new(),
            applied: BTreeMap::new(),
            producer_ids: 0..0,
            allocating: false,
            wanting_ids: VecDeque::new(),
            incarnation,
            registered: false,
        };
        Ok((coordinator, state))
    }

    /// Whether the broker is registered and everything from before the start is applied.
    pub(super) fn ready(&self) -> bool {
        self.registered
    }

    /// Whether the broker should be registered now: everything older is applied, and it is not under way.
    fn wants_to_register(&self) -> bool {
        self.started && !self.registered && self.proposed.is_empty()
    }

    /// Whether someone waits for a command.
    pub(super) fn busy(&self) -> bool {
        !self.proposed.is_empty() || !self.applied.is_empty() || !self.wanting_ids.is_empty()
    }
}

impl Shard {
    /// Stands for election of the metadata's group.
    pub(super) fn start_coordinator(&mut self) {
        if let Some(coordinator) = &mut self.coordinator {
            coordinator.group.campaign();
        }
    }

    /// Moves what the metadata's group must write into this turn's frames.
    pub(super) fn take_metadata_frames(&mut self) {
        let Some(coordinator) = &mut self.coordinator else { return };
        while let Some(ready) = coordinator.group.take_ready() {
            let appends = &mut self.storage.meta_appends;
            let log = LogId::METADATA;
            if let Some(state) = ready.hard_state {
                let head = state.to_bytes().as_slice().into();
                let kind = FrameKind::HardState;
                appends.frames().push(Frame { log, kind, term: state.term, index: 0, head, body: Bytes::new() });
            }
            for entry in ready.entries {
                let kind = FrameKind::Entry;
                let (term, index, body) = (entry.term, entry.index, entry.data);
                appends.frames().push(Frame { log, kind, term, index, head: Default::default(), body });
            }
            appends.ready(log, ready.number);
        }
    }

    /// Frames of the metadata are durable up to this ready.
    pub(super) fn metadata_persisted(&mut self, now: Now, number: u64) {
        let coordinator = self.coordinator.as_mut().expect("the shard with the metadata's log");
        coordinator.group.persisted(number);
        let committed = coordinator.group.committed();
        let entries: Vec<Entry> = coordinator.group.entries(self.state.applied() + 1, committed + 1).collect();
        for entry in entries {
            self.commit_metadata(now, entry);
        }
        let coordinator = self.coordinator.as_mut().expect("the shard with the metadata's log");
        if !coordinator.started && coordinator.group.term_at(committed) == Some(coordinator.group.term()) {
            coordinator.started = true;
            for shard in 1..self.shards {
                self.send(ShardId(shard), ShardMessage::Metadata(Box::new(self.state.clone())));
            }
            self.open_partitions(now);
            self.register_broker();
        }
    }

    /// Tries again to register the broker where its start found no room in the WAL for that.
    pub(super) fn register_again(&mut self) {
        if self.coordinator.as_ref().is_some_and(Coordinator::wants_to_register) {
            self.register_broker();
        }
    }

    fn register_broker(&mut self) {
        let coordinator = self.coordinator.as_ref().expect("the shard with the metadata's log");
        let broker = NewBroker {
            id: self.config.broker_id,
            host: self.config.advertised_host.clone(),
            port: self.config.advertised_port,
            rack: self.config.rack.clone(),
            incarnation: coordinator.incarnation,
        };
        if let Err(error) = self.propose(&Command::RegisterBroker(broker), Waiting::Register) {
            tracing::debug!(?error, "the broker cannot be registered yet");
        }
    }

    /// Proposes a command for which `waiting` waits.
    fn propose(&mut self, command: &Command, waiting: Waiting) -> Result<(), ErrorCode> {
        let coordinator = self.coordinator.as_mut().expect("the shard with the metadata's log");
        if self.storage.meta.failed || self.storage.meta.full {
            return Err(ErrorCode::KafkaStorageError);
        }
        let data = codec::encode_command(command).map_err(|_| ErrorCode::PolicyViolation)?;
        let index = coordinator.group.propose(data).map_err(|_| ErrorCode::NotController)?;
        coordinator.proposed.insert(index, waiting);
        Ok(())
    }

    fn commit_metadata(&mut self, now: Now, entry: Entry) {
        if entry.data.is_empty() {
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
        let shards = self.shards;
        let coordinator = self.coordinator.as_mut().expect("the shard with the metadata's log");
        let waiting = coordinator.proposed.remove(&entry.index);
        let changes = self.state.apply(entry.index, &command);
        if let Some(mut waiting) = waiting {
            match &mut waiting {
                Waiting::CreateTopics(_, response) => create_topics::note_rejections(response, &changes),
                Waiting::DeleteTopics(_, response) => delete_topics::note_rejections(response, &changes),
                Waiting::Register => coordinator.registered = true,
                Waiting::ProducerIds => {
                    coordinator.allocating = false;
                    for change in &changes {
                        if let Change::ProducerIds { first, count, .. } = change {
                            coordinator.producer_ids = *first..*first + i64::from(*count);
                        }
                    }
                }
            }
            coordinator.applied.insert(entry.index, (shards, waiting));
        }
        self.enact(now, entry.index, changes);
    }

    /// A shard shows all of the command at `index`.
    pub(super) fn shard_applied(&mut self, now: Now, index: u64) {
        let coordinator = self.coordinator.as_mut().expect("the shard with the metadata's log");
        let Some((missing, _)) = coordinator.applied.get_mut(&index) else { return };
        *missing -= 1;
        if *missing > 0 {
            return;
        }
        let (_, waiting) = coordinator.applied.remove(&index).expect("it was there");
        match waiting {
            Waiting::Register => {}
            Waiting::ProducerIds => self.hand_out_producer_ids(now),
            Waiting::CreateTopics(request, response) => self.tell(now, request, Reply::CreateTopics(response)),
            Waiting::DeleteTopics(request, response) => self.tell(now, request, Reply::DeleteTopics(response)),
        }
    }

    /// Takes a question to the coordinator from any shard.
    pub(super) fn ask(&mut self, now: Now, request: RequestId, deadline: Deadline, question: Question) {
        if self.coordinator.is_none() {
            return self.send(ShardId(0), ShardMessage::Ask { request, deadline, question });
        }
        match question {
            Question::CreateTopics { request: wanted, version } => {
                let rng = &mut self.rng;
                let plan = create_topics::plan(&self.state, &self.config, &wanted, version, &mut || rng.uuid());
                let response = Box::new(plan.response);
                let Some(command) = plan.command else {
                    return self.tell(now, request, Reply::CreateTopics(response));
                };
                if let Err(error) = self.propose(&command, Waiting::CreateTopics(request, response)) {
                    let refused = create_topics::failed(&wanted, error);
                    self.tell(now, request, Reply::CreateTopics(Box::new(refused)));
                }
            }
            Question::DeleteTopics { request: wanted } => {
                let plan = delete_topics::plan(&self.state, &wanted);
                let response = Box::new(plan.response);
                let Some(command) = plan.command else {
                    return self.tell(now, request, Reply::DeleteTopics(response));
                };
                if let Err(error) = self.propose(&command, Waiting::DeleteTopics(request, response)) {
                    let refused = delete_topics::failed(&wanted, error);
                    self.tell(now, request, Reply::DeleteTopics(Box::new(refused)));
                }
            }
            Question::InitProducerId { request: wanted } => {
                if let Some(refused) = refuse_producer(&wanted) {
                    return self.tell(now, request, Reply::InitProducerId(Box::new(refused)));
                }
                let coordinator = self.coordinator.as_mut().expect("the shard with the metadata's log");
                coordinator.wanting_ids.push_back((request, deadline));
                self.hand_out_producer_ids(now);
            }
        }
    }

    fn hand_out_producer_ids(&mut self, now: Now) {
        let broker = self.config.broker_id;
        loop {
            let coordinator = self.coordinator.as_mut().expect("the shard with the metadata's log");
            let Some(&(request, deadline)) = coordinator.wanting_ids.front() else { return };
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
                    Err(error) => {
                        let coordinator = self.coordinator.as_mut().expect("the shard with the metadata's log");
                        coordinator.wanting_ids.pop_front();
                        let refused = InitProducerIdResponse::default().with_error_code(error.code());
                        self.tell(now, request, Reply::InitProducerId(Box::new(refused)));
                        continue;
                    }
                }
            };
            coordinator.wanting_ids.pop_front();
            let response = InitProducerIdResponse::default().with_producer_id(ProducerId(id)).with_producer_epoch(0);
            self.tell(now, request, Reply::InitProducerId(Box::new(response)));
        }
    }

    fn tell(&mut self, now: Now, request: RequestId, reply: Reply) {
        if request.shard == self.id {
            self.told(now, request, reply);
        } else {
            self.send(request.shard, ShardMessage::Told { request, reply });
        }
    }

    /// The WAL wants the metadata's oldest segment back.
    pub(super) fn checkpoint_metadata(&mut self) {
        let Some(coordinator) = &mut self.coordinator else { return };
        let index = self.state.applied();
        let Some(term) = coordinator.group.term_at(index) else { return };
        let snapshot = match codec::encode_snapshot(&self.state.snapshot()) {
            Ok(snapshot) => snapshot,
            Err(error) => return tracing::error!(%error, "the metadata is too large for a checkpoint"),
        };
        let checkpoint = MetadataCheckpoint { hard_state: coordinator.group.hard_state(), snapshot };
        coordinator.group.compact(index);
        self.storage.meta_appends.frames().push(Frame {
            log: LogId::METADATA,
            kind: FrameKind::Checkpoint,
            term,
            index,
            head: Default::default(),
            body: crate::codec::encode(&checkpoint).into(),
        });
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
