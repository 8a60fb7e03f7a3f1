//! The second driver: time, network, disk and process of one broker, in one thread, from one seed.
//!
//! It does what `io` does, with the same events, effects and turns, but decides by chance what comes first. Time
//! jumps from one event to the next.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

use super::broker::{Actor, Broker, Input};
use super::checkers::Model;
use super::clients::{Action, Client, Consumer, Context, Creator, Manner, Member, Producer, Watcher};
use super::disk::VirtualDisk;
use super::faults::{Fault, Plan};
use super::rng::Rng;
use super::trace::{Trace, digest};
use crate::config::GroupConfig;
use crate::limits::{DEADLINE_SLACK_MS, IDLE_TICK_MS, TICK_MS};
use crate::log::disk::{DiskConfig, DiskEffect, DiskEvent, WalConfig};
use crate::shard::{Effect, Event};
use crate::types::{ConnId, Mono, Now, ShardId};

/// Microseconds that the faults may last, and then that the clients may take to end what they began.
const SETTLE_WITHIN: u64 = 90_000_000;

/// The wall clock at the start of a run, milliseconds since the Unix epoch.
const EPOCH_MS: i64 = 1_700_000_000_000;

/// Something that will happen.
enum What {
    /// An actor takes its turn.
    Turn { life: u64, actor: Actor },
    /// An actor is told of something.
    Deliver { life: u64, actor: Actor, input: Input },
    /// An actor's tick is due.
    Tick { life: u64, actor: Actor },
    /// An operation of the disk ends.
    DeviceDone { life: u64, token: u64 },
    /// A request frame arrives.
    Frame { life: u64, conn: Conn, frame: Vec<u8>, answer_within_ms: i64 },
    /// The client's side of a connection was closed.
    HungUp { life: u64, conn: Conn },
    /// A connection is made, or refused.
    Connect { client: usize },
    /// A response frame arrives; `None` is the end of the connection.
    ToClient { client: usize, link: u64, frame: Option<Bytes> },
    /// A client's moment has come.
    Wake { client: usize },
    /// An answer must have gone out.
    Overdue { life: u64, conn: Conn, number: u64 },
    /// The next fault.
    Fault(Fault),
    /// The process starts.
    Start,
    /// The process that is being stopped has ended, or is looked at again.
    Stopping { life: u64, until: u64 },
    /// Looks whether the run goes on.
    Look,
}

/// A connection, as the broker sees it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Conn {
    shard: u16,
    number: u64,
}

/// What is known of a connection on the broker's side.
struct ServerEnd {
    client: usize,
    link: u64,
    /// Responses that went out, and when the requests that came must be answered.
    answered: u64,
    due: Vec<u64>,
    to_broker: u64,
    to_client: u64,
    /// What the client sent before it hung up is lost from here on.
    deaf: bool,
}

struct Seat {
    client: Box<dyn Client>,
    wake_at: Option<u64>,
    /// Number of its connection; older ones are dead.
    link: u64,
    conn: Option<Conn>,
}

struct Entry {
    at: u64,
    order: u64,
    what: What,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Entry) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}
impl Eq for Entry {}
impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Entry) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Entry {
    fn cmp(&self, other: &Entry) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

/// Where a run stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// Clients work and faults happen.
    Working,
    /// Faults are over; clients end what they began.
    Settling {
        until: u64,
    },
    /// Everything is read once more.
    Verifying {
        until: u64,
    },
    Done,
}

/// What a run was.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Summary {
    /// Equal for equal runs.
    pub(super) hash: u64,
    /// Events and effects.
    pub(super) steps: u64,
    /// Times that the process started.
    pub(super) starts: u64,
    /// Microseconds of virtual time.
    pub(super) micros: u64,
    /// Batches that were acknowledged.
    pub(super) acked_batches: u64,
    /// Records that consumers read.
    pub(super) records_read: u64,
}

/// A frame's memory, counted while any slice of it lives.
struct CountedFrame {
    bytes: Vec<u8>,
    alive: Arc<AtomicUsize>,
}

impl AsRef<[u8]> for CountedFrame {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for CountedFrame {
    fn drop(&mut self) {
        self.alive.fetch_sub(self.bytes.len(), Ordering::Relaxed);
    }
}

/// A whole run.
pub(super) struct World {
    now: u64,
    order: u64,
    queue: BinaryHeap<Reverse<Entry>>,
    rng: Rng,
    trace: Trace,
    model: Model,
    plan: Plan,
    phase: Phase,
    disk: VirtualDisk,
    disk_config: DiskConfig,
    /// No operation of the disk ends before.
    stalled_until: u64,
    broker: Option<Broker>,
    /// Changes with every start and every end of the process; what was meant for an earlier life is dropped.
    life: u64,
    life_began: u64,
    starts: u64,
    /// The process ends as soon as it can.
    stopping: bool,
    conns: BTreeMap<Conn, ServerEnd>,
    next_conn: u64,
    seats: Vec<Seat>,
    /// Frames that wait until there is memory for them.
    waiting_frames: Vec<(Conn, Vec<u8>, i64)>,
    alive: Arc<AtomicUsize>,
    wall_skew_ms: i64,
    /// Logs that the topic of all groups has, where there are groups.
    group_logs: usize,
}

impl World {
    /// A run that is about to begin.
    pub(super) fn new(seed: u64, print: bool) -> World {
        let mut rng = Rng::new(seed);
        let plan = Plan::draw(&mut rng);
        let wal = |segment_bytes, max_segments| WalConfig { segment_bytes, max_segments };
        let disk_config = DiskConfig {
            meta: wal(*rng.pick(&[64 << 10, 256 << 10]), 4),
            data: wal(*rng.pick(&[128 << 10, 512 << 10]), *rng.pick(&[4, 8])),
        };
        let mut world = World {
            now: 0,
            order: 0,
            queue: BinaryHeap::new(),
            trace: Trace::new(print),
            model: Model::default(),
            phase: Phase::Working,
            disk: VirtualDisk::default(),
            disk_config,
            stalled_until: 0,
            broker: None,
            life: 0,
            life_began: 0,
            starts: 0,
            stopping: false,
            conns: BTreeMap::new(),
            next_conn: 0,
            seats: Vec::new(),
            waiting_frames: Vec::new(),
            alive: Arc::default(),
            wall_skew_ms: 0,
            group_logs: 0,
            plan,
            rng,
        };
        world.invite_clients();
        // In every fifth run there are groups too.
        if seed.is_multiple_of(5) {
            world.group_logs = GroupConfig::default().offsets_partitions as usize;
            (0..2).for_each(|number| world.invite(Box::new(Member::new(number))));
        }
        for (at, fault) in world.plan.faults.clone() {
            world.at(at, What::Fault(fault));
        }
        world.at(0, What::Start);
        world.at(world.plan.end, What::Look);
        world
    }

    fn invite_clients(&mut self) {
        let mut rng = self.rng.fork();
        let mut clients: Vec<Box<dyn Client>> = vec![Box::new(Watcher::new())];
        for _ in 0..rng.between(1, 2) {
            clients.push(Box::new(Creator::new(&mut rng)));
        }
        let idempotent = rng.between(1, 3);
        for number in 0..idempotent + rng.between(0, 2) {
            let manner = Manner::draw(&mut rng, number < idempotent);
            clients.push(Box::new(Producer::new(number as u32, manner)));
        }
        for _ in 0..rng.between(1, 2) {
            clients.push(Box::new(Consumer::new(&mut rng)));
        }
        for client in clients {
            self.invite(client);
        }
    }

    fn invite(&mut self, client: Box<dyn Client>) {
        self.seats.push(Seat { client, wake_at: None, link: 0, conn: None });
        self.wake_client(self.seats.len() - 1, self.now + 1);
    }

    /// Runs to the end. A broken invariant is a panic.
    pub(super) fn run(mut self) -> Summary {
        while self.phase != Phase::Done {
            let Reverse(entry) = self.queue.pop().expect("there is always a next event");
            assert!(entry.at >= self.now, "time went back");
            self.now = entry.at;
            self.happen(entry.what);
            super::progress(self.trace.step(), self.now);
        }
        Summary {
            hash: self.trace.hash(),
            steps: self.trace.step(),
            starts: self.starts,
            micros: self.now,
            acked_batches: self.model.acked_batches,
            records_read: self.model.records_read,
        }
    }

    fn at(&mut self, at: u64, what: What) {
        self.order += 1;
        self.queue.push(Reverse(Entry { at, order: self.order, what }));
    }

    fn clocks(&self) -> Now {
        Now { mono: Mono(self.now - self.life_began), wall_ms: self.wall_ms() }
    }

    fn wall_ms(&self) -> i64 {
        EPOCH_MS + (self.now / 1_000) as i64 + self.wall_skew_ms
    }

    fn happen(&mut self, what: What) {
        match what {
            What::Turn { life, actor } if life == self.life => self.turn(actor),
            What::Deliver { life, actor, input } if life == self.life => self.deliver(actor, input),
            What::Tick { life, actor } if life == self.life => self.tick(actor),
            What::DeviceDone { life, token } if life == self.life => self.device_done(token),
            What::Frame { life, conn, frame, answer_within_ms } if life == self.life => {
                self.frame_arrived(conn, frame, answer_within_ms);
            }
            What::HungUp { life, conn } if life == self.life => self.hung_up(conn),
            What::Overdue { life, conn, number } if life == self.life => self.check_answered(conn, number),
            What::Stopping { life, until } if life == self.life => self.look_if_drained(until),
            What::Turn { .. }
            | What::Deliver { .. }
            | What::Tick { .. }
            | What::DeviceDone { .. }
            | What::Frame { .. }
            | What::HungUp { .. }
            | What::Overdue { .. }
            | What::Stopping { .. } => {}
            What::Connect { client } => self.connect(client),
            What::ToClient { client, link, frame } => self.to_client(client, link, frame),
            What::Wake { client } => self.client_woken(client),
            What::Fault(fault) => self.fault(fault),
            What::Start => self.start(),
            What::Look => self.look(),
        }
    }

    // The process.

    fn start(&mut self) {
        if self.broker.is_some() {
            return;
        }
        if self.now < self.stalled_until {
            // Recovery reads the disk.
            self.at(self.stalled_until, What::Start);
            return;
        }
        self.life += 1;
        self.starts += 1;
        self.model.life = self.starts;
        self.life_began = self.now;
        self.stopping = false;
        let shards = self.rng.between(1, 4) as u16;
        let seed = self.rng.bits();
        self.trace.note(self.now, "start", u64::from(shards), self.life);
        self.trace.line(self.now, || format!("the process starts with {shards} shards"));
        let mut broker = match Broker::start(&self.disk, self.disk_config, shards, seed) {
            Ok(broker) => broker,
            Err(error) => {
                self.trace.line(self.now, || format!("the process does not start: {error}"));
                assert!(self.disk.is_damaged(), "S7: no start though nothing is damaged: {error}");
                // Somebody puts the disk right.
                self.disk.repair();
                self.at(self.now + 1_000, What::Start);
                return;
            }
        };
        if !self.disk.is_damaged() {
            self.model.impaired = false;
        }
        let now = self.clocks();
        let mut begun = Vec::new();
        for shard in 0..shards {
            let mut effects = Vec::new();
            broker.shard(shard).start(now, &mut effects);
            begun.push(effects);
        }
        self.broker = Some(broker);
        for (shard, effects) in (0..).zip(begun) {
            self.carry_out(ShardId(shard), effects);
        }
        for shard in 0..shards {
            self.nudge(Actor::Shard(shard));
        }
        self.nudge(Actor::Disk);
    }

    /// The process is gone from one moment to the next.
    fn crash(&mut self, down_for: u64) {
        if self.broker.take().is_none() {
            return;
        }
        self.life += 1;
        self.disk.crash(&mut self.rng);
        self.waiting_frames.clear();
        for (_, end) in std::mem::take(&mut self.conns) {
            let seat = &mut self.seats[end.client];
            if seat.link != end.link {
                continue;
            }
            seat.conn = None;
            // What was on its way comes, or is lost.
            let mut at = end.to_client.max(self.now) + self.rng.between(1, 2_000);
            if self.rng.one_in(2) {
                seat.link += 1;
                at = self.now + self.rng.between(1, 2_000);
            }
            let (client, link) = (end.client, self.seats[end.client].link);
            self.at(at, What::ToClient { client, link, frame: None });
        }
        self.at(self.now + down_for, What::Start);
    }

    fn look_if_drained(&mut self, until: u64) {
        let Some(broker) = &mut self.broker else { return };
        if broker.drained() || self.now >= until {
            self.trace.line(self.now, || "the process has stopped".into());
            let down_for = self.rng.between(1_000, 300_000);
            self.crash(down_for);
        } else {
            self.at(self.now + 1_000, What::Stopping { life: self.life, until });
        }
    }

    fn fault(&mut self, fault: Fault) {
        if self.phase != Phase::Working {
            return;
        }
        self.trace.note(self.now, "fault", 0, fault.kind());
        self.trace.line(self.now, || format!("{fault:?}"));
        match fault {
            Fault::Stall { micros } => self.stalled_until = self.stalled_until.max(self.now + micros),
            Fault::Kill { down_for } => self.crash(down_for),
            Fault::Stop => {
                let stopping = self.stopping;
                let Some(broker) = &self.broker else { return };
                if stopping {
                    return;
                }
                self.stopping = true;
                for shard in 0..broker.shards() {
                    self.deliver(Actor::Shard(shard), Input::Event(Event::Stop));
                }
                let until = self.now + 10_000_000;
                self.at(self.now + 1_000, What::Stopping { life: self.life, until });
            }
            Fault::Error { target, restart_after, down_for } => {
                self.disk.error_armed = Some(target);
                self.model.impaired = true;
                self.at(self.now + restart_after, What::Fault(Fault::Kill { down_for }));
            }
            Fault::Full { micros } => {
                self.disk.full = true;
                self.at(self.now + micros, What::Fault(Fault::NotFull));
            }
            Fault::NotFull => self.disk.full = false,
            Fault::Flip { count } => {
                // Of what was written last, a start cannot know whether it was acknowledged.
                let settled = self.now >= self.stalled_until + 1_000_000 && self.now >= self.life_began + 1_000_000;
                if !settled || self.broker.is_none() || self.model.impaired {
                    return;
                }
                for _ in 0..count {
                    let flipped = self.disk.flip(self.now - 1_000_000, &mut self.rng);
                    self.model.impaired |= flipped.is_some();
                    self.trace.line(self.now, || format!("a bit was flipped: {flipped:?}"));
                }
            }
            Fault::CutConnections => {
                for client in 0..self.seats.len() {
                    if self.seats[client].conn.is_some() && self.rng.one_in(2) {
                        self.hang_up(client);
                        let link = self.seats[client].link;
                        self.at(self.now + 1, What::ToClient { client, link, frame: None });
                    }
                }
            }
            Fault::WallClock { millis } => self.wall_skew_ms += millis,
        }
    }

    // Actors and their turns.

    /// Gives an actor a turn soon, if it has none coming.
    fn nudge(&mut self, actor: Actor) {
        let at = self.now + self.rng.below(60);
        let Some(broker) = &mut self.broker else { return };
        if broker.wants_turn(actor) {
            self.at(at, What::Turn { life: self.life, actor });
        }
    }

    fn deliver(&mut self, actor: Actor, input: Input) {
        let Some(broker) = &mut self.broker else { return };
        broker.push(actor, input);
        self.nudge(actor);
    }

    fn tick(&mut self, actor: Actor) {
        let Some(broker) = &mut self.broker else { return };
        if broker.tick_due(actor, self.now) {
            self.deliver(actor, Input::Tick);
        }
    }

    fn turn(&mut self, actor: Actor) {
        let now = self.clocks();
        let Some(mut broker) = self.broker.take() else { return };
        let count = broker.take_turn(actor, &mut self.rng);
        let life = self.life;
        match actor {
            Actor::Shard(number) => {
                let mut effects = Vec::new();
                for _ in 0..count {
                    let (event, within) = match broker.pop(actor) {
                        Input::Event(event) => (event, None),
                        Input::Request { conn, frame, answer_within_ms } => {
                            (Event::Request { conn, frame }, Some((conn, answer_within_ms)))
                        }
                        Input::Tick => (Event::Tick, None),
                        Input::Disk(_) => unreachable!("disk events go to the disk"),
                    };
                    self.trace.note(self.now, event_kind(&event), u64::from(number), 0);
                    self.trace.line(self.now, || format!("shard {number} <- {}", shown(&event)));
                    if let Some((conn, millis)) = within {
                        let conn = Conn { shard: number, number: conn.0 };
                        let due = self.now + (millis.max(0) as u64 + DEADLINE_SLACK_MS) * 1_000;
                        if let Some(end) = self.conns.get_mut(&conn) {
                            end.due.push(due);
                            let number = end.due.len() as u64;
                            self.at(due + 1, What::Overdue { life, conn, number });
                        }
                    }
                    broker.shard(number).step(now, event, &mut effects);
                }
                broker.shard(number).finish_turn(now, &mut effects);
                let memory = broker.memory();
                self.plan.check_memory(memory, self.alive.load(Ordering::Relaxed) as u64);
                self.broker = Some(broker);
                self.carry_out(ShardId(number), effects);
                self.admit_waiting();
            }
            Actor::Disk => {
                let mut effects = Vec::new();
                for _ in 0..count {
                    match broker.pop(actor) {
                        Input::Disk(event) => {
                            self.trace.note(self.now, "disk", 0, disk_digest(&event));
                            self.trace.line(self.now, || format!("disk <- {}", super::broker::brief(&event)));
                            broker.disk().step(now, event, &mut effects);
                        }
                        Input::Tick => {
                            self.trace.note(self.now, "disk tick", 0, 0);
                            broker.disk().tick(now, &mut effects);
                        }
                        Input::Event(_) | Input::Request { .. } => unreachable!("shard events go to shards"),
                    }
                }
                broker.disk().finish_turn(now, &mut effects);
                self.broker = Some(broker);
                self.carry_out_disk(effects);
            }
        }
        self.schedule_tick(actor);
        if self.broker.as_mut().is_some_and(|broker| broker.has_input(actor)) {
            self.nudge(actor);
        }
    }

    fn schedule_tick(&mut self, actor: Actor) {
        let Some(broker) = &mut self.broker else { return };
        let wait = if broker.is_busy(actor) { TICK_MS } else { IDLE_TICK_MS };
        // A little early, as a timer that fires between two turns would be late by the next.
        let due = self.now + wait * 1_000 - 100;
        if let Some(at) = broker.next_tick(actor, due) {
            self.at(at, What::Tick { life: self.life, actor });
        }
    }

    fn carry_out(&mut self, from: ShardId, effects: Vec<Effect>) {
        let life = self.life;
        for effect in effects {
            match effect {
                Effect::Respond { conn, chunks } => {
                    let conn = Conn { shard: from.0, number: conn.0 };
                    let bytes = chunks.concat();
                    self.trace.note(self.now, "respond", conn.number, digest(&bytes));
                    self.respond(conn, bytes);
                }
                Effect::Close { conn, reason } => {
                    self.trace.note(self.now, "close", conn.0, 0);
                    let conn = Conn { shard: from.0, number: conn.0 };
                    let Some(end) = self.conns.get(&conn) else { continue };
                    let (client, link, at) = (end.client, end.link, end.to_client.max(self.now) + 1);
                    let allowed = self.seats[client].client.asks_for_no_answer();
                    assert!(allowed, "protocol: the broker closes a connection that did nothing wrong: {reason}");
                    self.hung_up(conn);
                    self.at(at, What::ToClient { client, link, frame: None });
                }
                Effect::Mesh { to, message } => {
                    assert!(to != from, "a shard sends to itself");
                    self.trace.note(self.now, "mesh", u64::from(to.0), u64::from(from.0));
                    let at = self.in_order(Actor::Shard(from.0), Actor::Shard(to.0));
                    let input = Input::Event(Event::Mesh { from, message });
                    self.at(at, What::Deliver { life, actor: Actor::Shard(to.0), input });
                }
                Effect::Disk { request } => {
                    let at = self.in_order(Actor::Shard(from.0), Actor::Disk);
                    let input = Input::Disk(DiskEvent::Request { from, request });
                    self.at(at, What::Deliver { life, actor: Actor::Disk, input });
                }
                Effect::Fatal { reason } => {
                    self.trace.note(self.now, "fatal", u64::from(from.0), 0);
                    self.trace.line(self.now, || format!("shard {} ends the process: {reason}", from.0));
                    assert!(self.model.impaired, "the broker gives up: {reason}");
                    let down_for = self.rng.between(1_000, 300_000);
                    self.crash(down_for);
                    return;
                }
            }
        }
    }

    fn carry_out_disk(&mut self, effects: Vec<DiskEffect<Vec<u8>>>) {
        let life = self.life;
        for effect in effects {
            match effect {
                DiskEffect::Device { token, op } => {
                    self.trace.note(self.now, "device", token, super::broker::op_digest(&op));
                    self.trace.line(self.now, || format!("device <- {token} {}", super::broker::brief_op(&op)));
                    self.disk.start(token, op);
                    let at = self.now.max(self.stalled_until) + self.plan.disk_micros(&mut self.rng);
                    self.at(at, What::DeviceDone { life, token });
                }
                DiskEffect::Reply { to, reply } => {
                    let actor = Actor::Shard(to.0);
                    let at = self.in_order(Actor::Disk, actor);
                    self.at(at, What::Deliver { life, actor, input: Input::Event(Event::Disk { reply }) });
                }
            }
        }
    }

    fn device_done(&mut self, token: u64) {
        if self.now < self.stalled_until {
            let at = self.stalled_until + self.rng.below(2_000);
            self.at(at, What::DeviceDone { life: self.life, token });
            return;
        }
        let done = self.disk.complete(self.now, token, &mut self.rng);
        self.trace.line(self.now, || format!("device -> {token} {:?}", done.result.as_ref().map(|bytes| bytes.len())));
        self.deliver(Actor::Disk, Input::Disk(DiskEvent::Done { token, done }));
    }

    /// When something from one actor to another arrives: later than all that went before it.
    fn in_order(&mut self, from: Actor, to: Actor) -> u64 {
        let at = self.now + self.plan.hop_micros(&mut self.rng);
        self.broker.as_mut().map_or(at, |broker| broker.in_order(from, to, at))
    }

    // The network.

    fn connect(&mut self, client: usize) {
        let seat = &mut self.seats[client];
        seat.link += 1;
        let link = seat.link;
        let ready = !self.stopping && self.broker.as_ref().is_some_and(Broker::ready);
        if !ready {
            let at = self.now + self.rng.between(5_000, 50_000);
            self.at(at, What::ToClient { client, link, frame: None });
            return;
        }
        let shards = self.broker.as_ref().map_or(1, Broker::shards);
        self.next_conn += 1;
        let conn = Conn { shard: self.rng.below(u64::from(shards)) as u16, number: self.next_conn };
        self.seats[client].conn = Some(conn);
        let end = ServerEnd {
            client,
            link,
            answered: 0,
            due: Vec::new(),
            to_broker: self.now,
            to_client: self.now,
            deaf: false,
        };
        self.conns.insert(conn, end);
        let peer = std::net::IpAddr::from([127, 0, 0, 1]);
        let event = Event::Connected { conn: ConnId(conn.number), peer };
        self.deliver(Actor::Shard(conn.shard), Input::Event(event));
        self.with_client(client, |client, cx| client.connected(cx));
    }

    /// The client closes its connection; what it sent may still arrive.
    fn hang_up(&mut self, client: usize) {
        let seat = &mut self.seats[client];
        seat.link += 1;
        let Some(conn) = seat.conn.take() else { return };
        let lost = self.rng.one_in(2);
        let delay = self.rng.between(1, 5_000);
        let Some(end) = self.conns.get_mut(&conn) else { return };
        end.deaf |= lost;
        let at = end.to_broker.max(self.now) + delay;
        self.at(at, What::HungUp { life: self.life, conn });
    }

    fn hung_up(&mut self, conn: Conn) {
        if self.conns.remove(&conn).is_some() {
            self.waiting_frames.retain(|(waiting, _, _)| *waiting != conn);
            let event = Event::Closed { conn: ConnId(conn.number) };
            self.deliver(Actor::Shard(conn.shard), Input::Event(event));
        }
    }

    fn frame_arrived(&mut self, conn: Conn, frame: Vec<u8>, answer_within_ms: i64) {
        if self.conns.get(&conn).is_none_or(|end| end.deaf) {
            return;
        }
        self.waiting_frames.push((conn, frame, answer_within_ms));
        self.admit_waiting();
    }

    /// Reads the frames that there is memory for, each connection's in order.
    fn admit_waiting(&mut self) {
        for (conn, frame, answer_within_ms) in std::mem::take(&mut self.waiting_frames) {
            let blocked = self.waiting_frames.iter().any(|(waiting, _, _)| *waiting == conn);
            let alive = self.alive.load(Ordering::Relaxed);
            if blocked || alive + frame.len() > self.plan.frame_bytes {
                self.waiting_frames.push((conn, frame, answer_within_ms));
                continue;
            }
            self.alive.fetch_add(frame.len(), Ordering::Relaxed);
            let frame = Bytes::from_owner(CountedFrame { bytes: frame, alive: Arc::clone(&self.alive) });
            let input = Input::Request { conn: ConnId(conn.number), frame, answer_within_ms };
            self.deliver(Actor::Shard(conn.shard), input);
        }
    }

    fn respond(&mut self, conn: Conn, bytes: Vec<u8>) {
        let delay = self.rng.between(20, 400);
        let Some(end) = self.conns.get_mut(&conn) else { return };
        let due = end.due.get(end.answered as usize).copied();
        let due = due.unwrap_or_else(|| panic!("protocol: a response without a request on {conn:?}"));
        assert!(self.now <= due, "L1: an answer came {} ms late", (self.now - due) / 1_000);
        end.answered += 1;
        if bytes.is_empty() {
            return;
        }
        let (prefix, frame) = bytes.split_at(4);
        let len = i32::from_be_bytes(prefix.try_into().expect("four bytes"));
        assert_eq!(len as usize, frame.len(), "protocol: the length prefix is wrong");
        end.to_client = end.to_client.max(self.now + delay);
        let frame = Some(Bytes::copy_from_slice(frame));
        let (at, client, link) = (end.to_client, end.client, end.link);
        self.at(at, What::ToClient { client, link, frame });
    }

    fn check_answered(&mut self, conn: Conn, number: u64) {
        let Some(end) = self.conns.get(&conn) else { return };
        if end.answered < number {
            let client = self.seats[end.client].client.state();
            panic!(
                "L1: request {number} on {conn:?} is not answered at its deadline + {DEADLINE_SLACK_MS} ms: {client}"
            );
        }
    }

    fn to_client(&mut self, client: usize, link: u64, frame: Option<Bytes>) {
        if self.seats[client].link != link {
            return;
        }
        match frame {
            Some(frame) => self.with_client(client, |client, cx| client.answered(cx, frame)),
            None => {
                self.seats[client].conn = None;
                self.with_client(client, |client, cx| client.closed(cx));
            }
        }
    }

    // The clients.

    fn wake_client(&mut self, client: usize, at: u64) {
        let seat = &mut self.seats[client];
        if seat.wake_at.is_none_or(|known| at < known) {
            seat.wake_at = Some(at);
            self.at(at, What::Wake { client });
        }
    }

    fn client_woken(&mut self, client: usize) {
        if self.seats[client].wake_at.is_some_and(|at| at <= self.now) {
            self.seats[client].wake_at = None;
            self.with_client(client, |client, cx| client.wake(cx));
        }
    }

    fn with_client(&mut self, number: usize, act: impl FnOnce(&mut dyn Client, &mut Context<'_>)) {
        let wall_ms = self.wall_ms();
        let mut cx =
            Context { now: self.now, wall_ms, rng: &mut self.rng, model: &mut self.model, actions: Vec::new() };
        act(&mut *self.seats[number].client, &mut cx);
        for action in cx.actions {
            match action {
                Action::WakeAt(at) => self.wake_client(number, at.max(self.now + 1)),
                Action::Connect => {
                    let at = self.now + self.rng.between(50, 2_000);
                    self.at(at, What::Connect { client: number });
                }
                Action::Close => self.hang_up(number),
                Action::Send { frame, answer_within_ms } => {
                    let delay = self.rng.between(20, 400);
                    let Some(conn) = self.seats[number].conn else { continue };
                    let Some(end) = self.conns.get_mut(&conn) else { continue };
                    end.to_broker = end.to_broker.max(self.now + delay);
                    let at = end.to_broker;
                    self.trace.note(self.now, "send", conn.number, digest(&frame));
                    self.at(at, What::Frame { life: self.life, conn, frame, answer_within_ms });
                }
            }
        }
    }

    // The phases of a run.

    fn look(&mut self) {
        let settled = self.seats.iter().all(|seat| seat.client.is_settled(&self.model));
        let up = self.broker.as_ref().is_some_and(Broker::ready);
        match self.phase {
            Phase::Working => {
                self.trace.line(self.now, || "faults are over".into());
                self.phase = Phase::Settling { until: self.now + SETTLE_WITHIN };
                self.disk.full = false;
                self.disk.repair();
                if self.model.impaired || self.disk.error_armed.is_some() {
                    // Only a start makes fenced files and damage that was seen good again.
                    self.disk.error_armed = None;
                    self.crash(100_000);
                }
                let now = self.now.max(self.stalled_until);
                for client in 0..self.seats.len() {
                    self.seats[client].client.settle(now);
                    self.wake_client(client, self.now + 1);
                }
            }
            Phase::Settling { until } if settled && up => {
                self.trace.line(self.now, || "clients have ended what they began".into());
                assert!(self.now <= until);
                self.phase = Phase::Verifying { until: self.now + SETTLE_WITHIN };
                if self.rng.one_in(2) {
                    self.crash(50_000);
                }
                let mut rng = self.rng.fork();
                self.invite(Box::new(Consumer::verifier(&mut rng)));
            }
            Phase::Verifying { .. } if settled && up => {
                self.model.check_complete();
                let logs = self.disk.logs_with_segments();
                let most = self.model.partitions_that_may_exist() + self.group_logs;
                assert!(logs <= most, "deleted topics still hold space: {logs} logs have files, {most} may exist");
                self.phase = Phase::Done;
            }
            Phase::Settling { until } | Phase::Verifying { until } => {
                if self.now > until {
                    let states: Vec<String> = self.seats.iter().map(|seat| seat.client.state()).collect();
                    panic!("L4: no end though the faults are over (ready: {up}): {states:#?}");
                }
            }
            Phase::Done => {}
        }
        self.at(self.now + 100_000, What::Look);
    }
}

fn event_kind(event: &Event) -> &'static str {
    match event {
        Event::Connected { .. } => "connected",
        Event::Request { .. } => "request",
        Event::Closed { .. } => "closed",
        Event::Mesh { .. } => "mesh",
        Event::Disk { .. } => "disk reply",
        Event::Tick => "tick",
        Event::Stop => "stop",
    }
}

fn shown(event: &Event) -> String {
    let mut text = format!("{event:?}");
    text.truncate(text.char_indices().nth(300).map_or(text.len(), |(at, _)| at));
    text
}

fn disk_digest(event: &DiskEvent<Vec<u8>>) -> u64 {
    match event {
        DiskEvent::Request { from, .. } => u64::from(from.0),
        DiskEvent::Done { token, done } => token << 1 | u64::from(done.result.is_ok()),
    }
}
