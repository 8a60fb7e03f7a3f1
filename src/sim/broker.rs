//! One process: its shards, its disk's machine, and what waits to be told to each.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use super::disk::{HeapBuffers, VirtualDisk};
use super::rng::Rng;
use super::trace::digest;
use crate::config::{BrokerConfig, Machine, PeerAddress, Settings};
use crate::consensus::Members;
use crate::limits::{IDLE_TICK_MS, TICK_MS};
use crate::log::DeviceOp;
use crate::log::disk::{Disk, DiskConfig, DiskEvent};
use crate::log::recovery::recover;
use crate::shard::{Event, Shard};
use crate::types::{BrokerId, ConnId, Now, ShardId};

/// A part of the process that takes turns.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Actor {
    /// A shard.
    Shard(u16),
    /// The disk's machine.
    Disk,
}

/// What an actor is told in its next turns.
pub(super) enum Input {
    /// For a shard.
    Event(Event),
    /// For a shard: a request, with the milliseconds within which it must be answered.
    Request { conn: ConnId, frame: Bytes, answer_within_ms: i64 },
    /// For the disk.
    Disk(DiskEvent<Vec<u8>>),
    /// Time has passed.
    Tick,
}

#[derive(Default)]
struct Inbox {
    waiting: VecDeque<Input>,
    has_turn: bool,
    tick_at: u64,
}

/// A running process.
pub(super) struct Broker {
    shards: Vec<Shard>,
    disk: Disk<HeapBuffers>,
    inboxes: Vec<Inbox>,
    arrivals: BTreeMap<(Actor, Actor), u64>,
}

/// Memory of a simulated broker's records, in bytes, small enough that it runs out.
pub(super) const TAIL_BYTES: u64 = 192 << 10;
/// Memory of its read cache, in bytes.
pub(super) const READ_CACHE_BYTES: u64 = 128 << 10;

/// Memory for the metadata's entries that a checkpoint has passed, in bytes: so little that some replicas need a snapshot.
const METADATA_KEPT_BYTES: u64 = 1 << 10;

/// Brokers that a cluster begins with; further ones join it.
pub(super) const FIRST_BROKERS: usize = 3;

/// Partitions of the groups' topic in a cluster, whose logs are all replicated: the fewer, the more seeds can be run.
const GROUP_PARTITIONS: u32 = 4;

/// The configuration of the broker at this place among so many.
pub(super) fn config(place: usize, brokers: usize) -> BrokerConfig {
    let machine = Machine { cores: 1, memory_bytes: 8 << 30, hostname: "simulated".into() };
    let config = Settings::default().resolve(&machine).expect("the defaults are a configuration");
    let mut config = BrokerConfig {
        cluster_id: "simulated".into(),
        message_max_bytes: 100_000,
        retention_check_ms: 300,
        tail_bytes: TAIL_BYTES,
        read_cache_bytes: READ_CACHE_BYTES,
        metadata_kept_bytes: METADATA_KEPT_BYTES,
        ..config.broker
    };
    if brokers > 1 {
        config.broker_id = broker_id(place);
        config.directory_id = [place as u8 + 1; 16];
        let peer = |place| PeerAddress { id: broker_id(place), host: "simulated".into(), port: 1 };
        config.peers = (0..brokers.min(FIRST_BROKERS)).map(peer).collect();
        config.peer_address = Some(peer(place));
        config.groups.offsets_partitions = GROUP_PARTITIONS;
    }
    config
}

/// The id of the broker at this place of a cluster.
pub(super) fn broker_id(place: usize) -> BrokerId {
    BrokerId(place as i32 + 1)
}

impl Broker {
    /// Starts from what is on the disk; an error is why it cannot.
    pub(super) fn start(
        disk: &VirtualDisk,
        sizes: DiskConfig,
        shards: u16,
        seed: u64,
        config: &BrokerConfig,
    ) -> Result<Broker, String> {
        let recovered = recover(disk, &sizes).map_err(|error| error.to_string())?;
        let damage = recovered.damage.map(|damage| damage.to_string());
        if let Some(damage) =
            damage.clone().filter(|_| !Members::of(&config.first_voters()).can_do_without(config.broker_id))
        {
            return Err(damage);
        }
        let mut logs: Vec<Vec<_>> = (0..shards).map(|_| Vec::new()).collect();
        for log in recovered.logs {
            logs[usize::from(log.log.shard(shards).0)].push(log);
        }
        let mut rng = Rng::new(seed);
        let mut started = Vec::new();
        for (id, logs) in (0..).zip(logs) {
            let shard = Shard::new(ShardId(id), shards, config.clone(), logs, damage.clone(), rng.bits());
            started.push(shard.map_err(|error| error.to_string())?);
        }
        Ok(Broker {
            shards: started,
            disk: Disk::new(sizes, recovered.disk, HeapBuffers::default(), shards),
            inboxes: (0..=shards).map(|_| Inbox::default()).collect(),
            arrivals: BTreeMap::new(),
        })
    }

    /// How many shards it has.
    pub(super) fn shards(&self) -> u16 {
        self.shards.len() as u16
    }

    /// All shards.
    pub(super) fn all_shards(&self) -> &[Shard] {
        &self.shards
    }

    /// A shard.
    pub(super) fn shard(&mut self, number: u16) -> &mut Shard {
        &mut self.shards[usize::from(number)]
    }

    /// The disk's machine.
    pub(super) fn disk(&mut self) -> &mut Disk<HeapBuffers> {
        &mut self.disk
    }

    /// Whether clients can be served.
    pub(super) fn ready(&self) -> bool {
        self.shards.iter().all(Shard::ready)
    }

    /// Whether a shard has nothing in flight.
    pub(super) fn has_drained(&self, shard: usize) -> bool {
        self.inboxes[shard].waiting.is_empty() && self.shards[shard].drained()
    }

    /// Bytes of records that the shards hold.
    pub(super) fn memory(&self) -> u64 {
        self.shards.iter().map(Shard::memory).sum()
    }

    fn inbox(&mut self, actor: Actor) -> &mut Inbox {
        let disk = self.shards.len();
        &mut self.inboxes[match actor {
            Actor::Shard(number) => usize::from(number),
            Actor::Disk => disk,
        }]
    }

    /// Puts something in an actor's inbox.
    pub(super) fn push(&mut self, actor: Actor, input: Input) {
        self.inbox(actor).waiting.push_back(input);
    }

    /// Takes the oldest input of an actor, which has one.
    pub(super) fn pop(&mut self, actor: Actor) -> Input {
        self.inbox(actor).waiting.pop_front().expect("a turn takes no more than there is")
    }

    /// Whether an actor has something to take in.
    pub(super) fn has_input(&mut self, actor: Actor) -> bool {
        !self.inbox(actor).waiting.is_empty()
    }

    /// Whether an actor should be given a turn: it has none coming. Now it has.
    pub(super) fn wants_turn(&mut self, actor: Actor) -> bool {
        !std::mem::replace(&mut self.inbox(actor).has_turn, true)
    }

    /// Begins an actor's turn and says how many inputs it takes.
    pub(super) fn take_turn(&mut self, actor: Actor, rng: &mut Rng) -> usize {
        let inbox = self.inbox(actor);
        inbox.has_turn = false;
        match inbox.waiting.len() {
            0 => 0,
            waiting => rng.between(1, waiting as u64) as usize,
        }
    }

    /// Time until an actor wants to tick, in milliseconds.
    pub(super) fn tick_in_ms(&self, actor: Actor, now: Now) -> u64 {
        match actor {
            Actor::Shard(number) if self.shards[usize::from(number)].busy() => TICK_MS,
            Actor::Shard(_) => IDLE_TICK_MS,
            Actor::Disk => self.disk.tick_in_ms(now),
        }
    }

    /// Says when to tick next, if that is earlier than what is planned.
    pub(super) fn next_tick(&mut self, actor: Actor, due: u64) -> Option<u64> {
        let inbox = self.inbox(actor);
        (inbox.tick_at == 0 || due < inbox.tick_at).then(|| inbox.tick_at = due).map(|()| due)
    }

    /// Whether this is the tick that is planned; the next one is then to be planned.
    pub(super) fn tick_due(&mut self, actor: Actor, now: u64) -> bool {
        let inbox = self.inbox(actor);
        let due = inbox.tick_at <= now && inbox.tick_at != 0;
        if due {
            inbox.tick_at = 0;
        }
        due
    }

    /// When something sent between two actors arrives, if it would at `at` were it alone.
    pub(super) fn in_order(&mut self, from: Actor, to: Actor, at: u64) -> u64 {
        let last = self.arrivals.entry((from, to)).or_default();
        *last = at.max(*last);
        *last
    }
}

/// A disk event in a few words.
pub(super) fn brief(event: &DiskEvent<Vec<u8>>) -> String {
    match event {
        DiskEvent::Request { from, request } => {
            let mut text = format!("shard {}: {request:?}", from.0);
            text.truncate(text.char_indices().nth(300).map_or(text.len(), |(at, _)| at));
            text
        }
        DiskEvent::Done { token, .. } => format!("done {token}"),
    }
}

/// An operation in a few words.
pub(super) fn brief_op(op: &DeviceOp<Vec<u8>>) -> String {
    match op {
        DeviceOp::Create { file, len } => format!("create {file} of {len}"),
        DeviceOp::Allocate { file, offset, len } => format!("allocate {file} {len} at {offset}"),
        DeviceOp::Write { file, offset, len, .. } => format!("write {file} {len} at {offset}"),
        DeviceOp::Read { file, offset, len } => format!("read {file} {len} at {offset}"),
        DeviceOp::Shorten { file, len } => format!("shorten {file} to {len}"),
        DeviceOp::Remove { file } => format!("remove {file}"),
        DeviceOp::RemoveLog { log } => format!("remove log {log}"),
        DeviceOp::Space => "look for space".into(),
    }
}

/// A number for an operation's content.
pub(super) fn op_digest(op: &DeviceOp<Vec<u8>>) -> u64 {
    match op {
        DeviceOp::Write { buf, len, offset, .. } => digest(&buf[..*len]) ^ offset,
        DeviceOp::Create { len, .. } | DeviceOp::Shorten { len, .. } => *len,
        DeviceOp::Allocate { offset, len, .. } => offset ^ len,
        DeviceOp::Read { offset, len, .. } => offset ^ *len as u64,
        DeviceOp::Remove { .. } | DeviceOp::Space => 0,
        DeviceOp::RemoveLog { log } => log.0,
    }
}
