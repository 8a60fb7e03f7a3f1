//! The broker's logic, without I/O, clock or randomness: events in, effects out.
//!
//! A shard owns connections, and the partitions whose [`LogId::shard`] it is; nothing of it is shared. A request is
//! decoded on the shard of its connection, its parts go to the owners of the partitions as ops (over the mesh where
//! the owner is another shard), and the answers are gathered where the request came in.

mod ask;
mod changes;
mod compaction;
mod connections;
mod coordinator;
pub mod creation;
mod dirty;
pub mod event;
mod groups;
pub mod handlers;
mod in_sync;
#[cfg(test)]
mod inspect;
mod leave;
mod look;
pub mod mesh;
mod metadata;
mod moves;
mod observe;
mod ops;
mod peers;
mod quotas;
mod refused;
mod requests;
mod retention;
mod rng;
mod sessions;
mod storage;
pub mod view;
mod word;

pub use event::{Effect, Event};

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use kafka_protocol::messages::TopicName;
use uuid::Uuid;

use crate::config::BrokerConfig;
use crate::consensus::Message;
use crate::log::Chunk;
use crate::log::recovery::RecoveredLog;
use crate::metadata::State;
use crate::metadata::state::Topic;
use crate::metrics::ShardMetrics;
use crate::peer::Lagging;
use crate::protocol::ErrorCode;
use crate::types::{BrokerId, LogId, Map, Mono, Now, Set, ShardId};
use ask::Asks;
use compaction::Compactor;
use connections::Connections;
use coordinator::Coordinator;
pub use coordinator::{MetadataRecoveryError, metadata_of};
use creation::Creations;
use groups::Coordinated;
use mesh::{Leader, Op, ShardMessage};
use metadata::{Unsure, Visibility};
use moves::Throttle;
use ops::Owned;
use peers::Peers;
use quotas::Meters;
use requests::Requests;
use retention::Rounds;
use rng::Rng;
use storage::Storage;

/// One shard: the owner of some logs and of the connections that its executor accepted.
pub struct Shard {
    id: ShardId,
    shards: u16,
    config: BrokerConfig,
    rng: Rng,
    logger: slog::Logger,
    connections: Connections,
    requests: Requests,
    /// What clients have used of their quotas.
    meters: Meters,
    /// The metadata as of the last command applied here.
    state: State,
    leaders: Map<LogId, Leader>,
    /// Logs with replicas that are not in sync, though their brokers may be there.
    lagging: Map<LogId, Lagging>,
    visibility: Visibility,
    /// The metadata's log, on shard 0.
    coordinator: Option<Coordinator>,
    asks: Asks,
    peers: Peers,
    /// Each in a box: they are large, and the map must grow without moving them all.
    owned: Map<LogId, Box<Owned>>,
    /// This shard's logs of which this broker has no replica.
    elsewhere: Set<LogId>,
    /// Logs with other replicas whose Raft groups need ticks.
    awake: BTreeSet<LogId>,
    /// What replicas of logs said that are not open here yet.
    unborn: Vec<(LogId, BrokerId, Message, Vec<Chunk>)>,
    /// Logs that only this broker has, and whose leader is not known here yet.
    rising: Set<LogId>,
    /// Leaders that came up in this turn.
    announcements: Vec<Leader>,
    /// ElectLeaders requests under way.
    elections: Vec<u64>,
    /// Logs that were here and whose files are not all removed yet.
    ending: Set<LogId>,
    /// What new replicas may fetch.
    throttle: Throttle,
    /// When the metadata is told again of replicas that have moved.
    next_moved: Mono,
    storage: Storage,
    /// The groups that this shard coordinates.
    groups: Coordinated,
    /// Appends that wait until flushes have freed memory.
    backlog: VecDeque<Op>,
    /// Logs that may have frames to write, each once, in the order in which they were touched.
    touched: Set<LogId>,
    touched_order: Vec<LogId>,
    /// What the disk held at the start, until the metadata says which of it is still wanted.
    recovered: Map<LogId, RecoveredLog>,
    /// Logs of which it is not known yet, from before the metadata is current, whether they are this broker's, with what the
    /// disk holds of them and where they belong; in a fixed order, for replays.
    unsure: BTreeMap<LogId, Unsure>,
    /// Whether the metadata holds all that was committed before this start: see [`Shard::metadata_is_current`].
    current: bool,
    /// What is wrong with the partitions' WAL, as long as logs are to be opened of which the damage may have held something:
    /// until the metadata is current.
    damage: Option<String>,
    /// Whether the metadata of the start has come and the partitions are open.
    opened: bool,
    /// Messages that came before that.
    early: Vec<(ShardId, ShardMessage)>,
    stopping: bool,
    rounds: Rounds,
    compactor: Compactor,
    hailed: word::Hailed,
    /// When the event came that is being taken: the end of whatever is measured.
    now: Now,
    metrics: Arc<ShardMetrics>,
    /// The last creations of topics, stage by stage.
    creations: Creations,
    out: Vec<Effect>,
}

impl Shard {
    /// A shard that owns what `recovered` holds (only logs whose [`LogId::shard`] it is, the metadata's on shard 0).
    /// `damage` says what is wrong with the partitions' WAL, where something is: then what was recovered are checkpoints.
    /// `seed` feeds its only source of randomness; it must differ from start to start.
    ///
    /// # Errors
    /// Where the metadata cannot be read: the broker must not start.
    pub fn new(
        id: ShardId,
        shards: u16,
        config: BrokerConfig,
        recovered: Vec<RecoveredLog>,
        damage: Option<String>,
        seed: u64,
    ) -> Result<Shard, MetadataRecoveryError> {
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let mut recovered: Map<LogId, RecoveredLog> = recovered.into_iter().map(|log| (log.log, log)).collect();
        let mut rng = Rng::new(seed);
        let (mut coordinator, mut state) = (None, State::default());
        if id == LogId::METADATA.shard(shards) {
            let found = recovered.remove(&LogId::METADATA);
            let (begun, metadata) =
                Coordinator::recover(config.broker_id, &config.first_voters(), found, rng.next(), &logger)?;
            (coordinator, state) = (Some(begun), metadata);
        }
        let share = |bytes: u64| bytes / u64::from(shards);
        let peers = Peers::new(config.broker_id, &config.peers);
        let throttle = Throttle::new(share(config.follower_throttled_rate));
        let storage = Storage::new(share(config.tail_bytes), share(config.read_cache_bytes), peers.count() + 1);
        Ok(Shard {
            id,
            shards,
            config,
            rng,
            logger,
            connections: Connections::default(),
            requests: Requests::default(),
            meters: Meters::default(),
            state,
            leaders: Map::default(),
            lagging: Map::default(),
            visibility: Visibility::default(),
            coordinator,
            asks: Asks::default(),
            peers,
            owned: Map::default(),
            elsewhere: Set::default(),
            awake: BTreeSet::new(),
            unborn: Vec::new(),
            rising: Set::default(),
            announcements: Vec::new(),
            elections: Vec::new(),
            ending: Set::default(),
            throttle,
            next_moved: Mono::default(),
            storage,
            groups: Coordinated::default(),
            backlog: VecDeque::new(),
            touched: Set::default(),
            touched_order: Vec::new(),
            recovered,
            unsure: BTreeMap::new(),
            current: false,
            damage,
            opened: false,
            early: Vec::new(),
            stopping: false,
            rounds: Rounds::default(),
            compactor: Compactor::default(),
            hailed: word::Hailed::default(),
            now: Now::default(),
            metrics: Arc::new(observe::metrics()),
            creations: Creations::default(),
            out: Vec::new(),
        })
    }

    /// Called once before the first event.
    pub fn start(&mut self, _now: Now, effects: &mut Vec<Effect>) {
        self.start_coordinator();
        effects.append(&mut self.out);
    }

    /// Takes one event. Effects of several events may be carried out together, after [`Shard::finish_turn`].
    pub fn step(&mut self, now: Now, event: Event, effects: &mut Vec<Effect>) {
        self.look_at_clock(now);
        self.meters.works_for_nobody();
        match event {
            Event::Connected { conn, peer } => self.connections.open(conn, peer),
            Event::Closed { conn } => self.connections.close(conn),
            Event::Request { conn, frame } => self.request(now, conn, frame),
            Event::Mesh { from, message } => self.message(now, from, message),
            Event::PeerUp { peer } => self.peer_up(now, peer),
            Event::PeerDown { peer } => self.peer_down(now, peer),
            Event::Peer { from, header, frame } => self.peer_frame(now, from, &header, frame),
            Event::Disk { reply } => self.disk_replied(now, reply),
            Event::Tick => self.tick(now),
            Event::Leave => self.leave(now),
            Event::Stop => {
                self.stopping = true;
                self.connections.end_mutes();
                self.end_polls(now);
                self.stop_groups(now);
                self.run_backlog(now);
            }
        }
        effects.append(&mut self.out);
    }

    /// Whether the event that was taken last was work for clients that may use so much time and no more: then
    /// [`Shard::worked`] is to be told when it was done.
    pub fn is_timed(&self) -> bool {
        self.meters.is_timed()
    }

    /// The event that was taken last was done at `now`.
    pub fn worked(&mut self, now: Now) {
        self.meters.worked(now, now.mono.micros_since(self.now.mono));
    }

    /// Ends a turn of the driver: what was gathered over the events (WAL frames above all) goes out.
    pub fn finish_turn(&mut self, now: Now, effects: &mut Vec<Effect>) {
        self.look_at_clock(now);
        self.announce_leaders(now);
        self.append_groups(now);
        self.flush_dirty();
        self.write_wals(now);
        self.creations_proposed(now);
        effects.append(&mut self.out);
    }

    /// What the shard counts, for any thread to read.
    pub fn metrics(&self) -> Arc<ShardMetrics> {
        Arc::clone(&self.metrics)
    }

    /// Whether anything is under way that needs ticks of [`crate::limits::TICK_MS`].
    pub fn busy(&self) -> bool {
        !self.requests.is_empty()
            || self.connections.any_held()
            || self.meters.busy()
            || !self.asks.is_empty()
            || !self.awake.is_empty()
            || self.storage.busy()
            || self.groups.busy()
            || self.compactor.busy()
            || self.coordinator.as_ref().is_some_and(Coordinator::busy)
            || !self.ready()
    }

    /// Whether the shard can serve clients: recovery is over and its logs have leaders.
    pub fn ready(&self) -> bool {
        self.opened && self.rising.is_empty() && self.coordinator.as_ref().is_none_or(Coordinator::ready)
    }

    /// Whether nothing is in flight any more, so that a stopping broker may end: no request unanswered, no append
    /// that is not durable.
    pub fn drained(&self) -> bool {
        self.connections.idle() && !self.connections.any_held() && self.storage.drained()
    }

    /// Bytes of records that the shard holds in memory: tails of partitions and chunks read from segments.
    pub fn memory(&self) -> u64 {
        self.storage.memory()
    }

    fn tick(&mut self, now: Now) {
        self.tell_used();
        self.take_held(now);
        self.expire_requests(now);
        self.settle_elections(now);
        self.expire_backlog(now);
        self.tick_groups(now);
        self.retry_flushes(now);
        self.tick_peers(now);
        self.tick_coordinator(now);
        self.tick_retention(now);
        self.tick_compaction(now);
        self.show_held(now);
    }

    fn message(&mut self, now: Now, from: ShardId, message: ShardMessage) {
        if let ShardMessage::Metadata(state) = message {
            return self.metadata_arrived(now, *state);
        }
        if !self.opened {
            return self.early.push((from, message));
        }
        match message {
            ShardMessage::Metadata(_) => unreachable!("taken above"),
            ShardMessage::Op(op, timed) => {
                self.meters.works_for(timed);
                self.run_op(now, op);
            }
            ShardMessage::Answer { request, part, answer } => self.op_answered(now, request, part, answer),
            ShardMessage::Cancel { request, log } => self.cancel_ops(request, log),
            ShardMessage::Ask { request, deadline, question } => self.ask(now, request, deadline, question),
            ShardMessage::Told { request, reply } => self.told(now, request, reply),
            ShardMessage::Committed { index, command } => self.committed(now, index, &command),
            ShardMessage::Current => self.metadata_is_current(now),
            ShardMessage::Applied { index } => self.shard_applied(now, index),
            ShardMessage::Leaders(leaders) => self.leaders_up(now, leaders),
            ShardMessage::Lagging(lagging) => self.note_lagging(lagging),
            ShardMessage::Peer { from, message } => self.peer_message(now, from, *message),
            ShardMessage::DiskIs(state) => self.disk_is(now, state),
            ShardMessage::Used(used) => self.used_elsewhere(now, used),
        }
    }

    fn send(&mut self, to: ShardId, message: ShardMessage) {
        assert!(to != self.id, "a shard does not send to itself");
        self.out.push(Effect::Mesh { to, message });
    }

    fn fatal(&mut self, reason: String) {
        self.out.push(Effect::Fatal { reason });
    }

    fn log_by_name(&self, topic: &TopicName, partition: i32) -> Result<LogId, ErrorCode> {
        let topic = self.state.topic(topic).ok_or(ErrorCode::UnknownTopicOrPartition)?;
        log_of(topic, partition)
    }

    fn log_by_id(&self, id: Uuid, partition: i32) -> Result<LogId, ErrorCode> {
        let topic = self.state.topic_by_id(id).ok_or(ErrorCode::UnknownTopicId)?;
        log_of(topic, partition)
    }
}

fn log_of(topic: &Topic, partition: i32) -> Result<LogId, ErrorCode> {
    let number = usize::try_from(partition).ok();
    let partition = number.and_then(|number| topic.partitions.get(number));
    partition.map(|partition| partition.log).ok_or(ErrorCode::UnknownTopicOrPartition)
}
