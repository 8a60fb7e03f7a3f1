//! The second driver: time, network, disks and processes of a broker or a cluster, in one thread, from one seed.
//!
//! It does what `io` does, with the same events, effects and turns, but decides by chance what comes first. Time
//! jumps from one event to the next. Here are the queue of what will happen and the phases of a run; the processes are
//! in [`super::node`], the connections of clients in [`super::server_side`], those between brokers in
//! [`super::network`].

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use bytes::Bytes;

use super::broker::{Actor, Broker, FIRST_BROKERS, Input};
use super::checkers::Model;
use super::clients::{Client, Consumer, Creator, Deleter, Elector, Manner, Member, Mover, Pair, Producer, Watcher};
use super::faults::{Fault, Plan};
use super::network::{LinkKey, Network};
use super::node::Node;
use super::observer::Observer;
use super::rng::Rng;
use super::server_side::{Conn, Seat, ServerEnd};
use super::trace::Trace;
use crate::limits::LEASE_BACK_MS;
use crate::log::disk::{DiskConfig, WalConfig};
use crate::peer::FrameHeader;
use crate::types::{Mono, Now};

/// Microseconds that the faults may last, and then that the clients may take to end what they began.
const SETTLE_WITHIN: u64 = 90_000_000;

/// Microseconds within which a broker that joins a cluster is started.
const JOINS_WITHIN: u64 = 6_000_000;

/// The wall clock at the start of a run, milliseconds since the Unix epoch.
const EPOCH_MS: i64 = 1_700_000_000_000;

/// Microseconds after the end of the faults, and of what clients still wanted, within which all replicas must agree. A move
/// may need a broker to lead whose disk was slow, and which is given no leaderships for so long.
const CONVERGE_WITHIN: u64 = 5_000_000 + LEASE_BACK_MS * 1_000;

/// Something that will happen. A `life` is that of the process it was meant for.
pub(super) enum What {
    /// An actor takes its turn.
    Turn { node: usize, life: u64, actor: Actor },
    /// An actor is told of something.
    Deliver { node: usize, life: u64, actor: Actor, input: Input },
    /// An actor's tick is due.
    Tick { node: usize, life: u64, actor: Actor },
    /// An operation of the disk ends.
    DeviceDone { node: usize, life: u64, token: u64 },
    /// A request frame arrives.
    Frame { life: u64, conn: Conn, frame: Vec<u8>, answer_within_ms: i64 },
    /// The client's side of a connection was closed.
    HungUp { life: u64, conn: Conn },
    /// A connection is made, or refused.
    Connect { client: usize, node: usize },
    /// A response frame arrives; `None` is the end of the connection.
    ToClient { client: usize, node: usize, link: u64, frame: Option<Bytes> },
    /// A client's moment has come.
    Wake { client: usize },
    /// An answer must have gone out.
    Overdue { life: u64, conn: Conn, number: u64 },
    /// The next fault.
    Fault { node: usize, fault: Fault },
    /// The process starts.
    Start { node: usize },
    /// A process that is being stopped is looked at.
    Stopping { node: usize, life: u64, until: u64 },
    /// A broker tries to connect to another.
    PeerConnect { life: u64, key: LinkKey },
    /// A frame of another broker arrives, if its connection was not lost.
    PeerFrame { key: LinkKey, session: u64, life: u64, header: FrameHeader, frame: Bytes },
    /// A broker notices that a connection to another is lost.
    PeerBroken { key: LinkKey, session: u64 },
    /// A connection was cut so long ago that its sender gives up.
    PeerUnacked { key: LinkKey, session: u64 },
    /// A cut of the network is over.
    CutOver { from: usize, to: usize },
    /// Looks whether the run goes on.
    Look,
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
pub(super) enum Phase {
    /// Clients work and faults happen.
    Working,
    /// Faults are over; clients end what they began.
    Settling {
        until: u64,
    },
    /// Clients have ended what they began; the replicas come to agree.
    Converging {
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

/// A whole run.
pub(super) struct World {
    pub(super) now: u64,
    order: u64,
    queue: BinaryHeap<Reverse<Entry>>,
    pub(super) rng: Rng,
    pub(super) trace: Trace,
    pub(super) model: Model,
    pub(super) plan: Plan,
    pub(super) phase: Phase,
    pub(super) disk_config: DiskConfig,
    pub(super) nodes: Vec<Node>,
    pub(super) network: Network,
    pub(super) observer: Observer,
    pub(super) starts: u64,
    pub(super) conns: BTreeMap<Conn, ServerEnd>,
    pub(super) next_conn: u64,
    pub(super) seats: Vec<Seat>,
    /// Logs that the topic of all groups has, where there are groups.
    group_logs: usize,
}

/// Topics that are to get further partitions in the run of this seed: some in every fourth.
fn grows(seed: u64) -> u64 {
    if seed.is_multiple_of(4) { 2 } else { 0 }
}

impl World {
    /// A run of a single broker that is about to begin.
    pub(super) fn new(seed: u64, print: bool) -> World {
        let mut rng = Rng::new(seed);
        let plan = Plan::draw(&mut rng);
        // In every fifth run there are groups too.
        World::begin(rng, plan, 1, (seed.is_multiple_of(5), grows(seed)), print)
    }

    /// A run of a cluster of three, which a fourth broker joins, that is about to begin.
    pub(super) fn joined(seed: u64, print: bool) -> World {
        let mut rng = Rng::new(seed ^ 0xC4C4_C4C4_0000_0000);
        let brokers = FIRST_BROKERS + 1;
        let plan = Plan::draw_cluster(&mut rng, brokers);
        World::begin(rng, plan, brokers, (seed.is_multiple_of(5), grows(seed)), print)
    }

    /// A run of a cluster of three that is about to begin. Its seeds have nothing to do with those of a single broker.
    pub(super) fn cluster(seed: u64, print: bool) -> World {
        let mut rng = Rng::new(seed ^ 0xC1C1_C1C1_0000_0000);
        let plan = match seed % 10 {
            7 => Plan::draw_frozen(&mut rng, FIRST_BROKERS),
            8 => Plan::draw_full(&mut rng, FIRST_BROKERS),
            6 => Plan::draw_damaged(&mut rng, FIRST_BROKERS),
            _ => Plan::draw_cluster(&mut rng, FIRST_BROKERS),
        };
        World::begin(rng, plan, FIRST_BROKERS, (seed.is_multiple_of(5), grows(seed)), print)
    }

    fn begin(mut rng: Rng, plan: Plan, brokers: usize, (groups, grows): (bool, u64), print: bool) -> World {
        let wal = |segment_bytes, max_segments| WalConfig { segment_bytes, max_segments };
        let disk_config = DiskConfig {
            meta: wal(*rng.pick(&[64 << 10, 256 << 10]), 4),
            // What all shards have under way at once must fit in what is kept for checkpoints.
            data: wal(*rng.pick(&[256 << 10, 512 << 10]), *rng.pick(&[4, 8])),
        };
        let disk_config = match brokers {
            1 => disk_config,
            // A WAL that is full of entries which are not committed makes a follower refuse what would commit them:
            // small ones are left to the runs of one broker.
            FIRST_BROKERS => DiskConfig { meta: wal(64 << 10, 4), data: wal(*rng.pick(&[512 << 10, 1 << 20]), 8) },
            // Who joins is to find that the metadata's log does not reach back to its beginning.
            _ => DiskConfig { meta: wal(64 << 10, 4), data: wal(*rng.pick(&[256 << 10, 1 << 20]), 8) },
        };
        let mut world = World {
            now: 0,
            order: 0,
            queue: BinaryHeap::new(),
            trace: Trace::new(print),
            model: Model::of(brokers),
            phase: Phase::Working,
            disk_config,
            nodes: (0..brokers).map(|place| Node::new(place, brokers)).collect(),
            network: Network::default(),
            observer: Observer::default(),
            starts: 0,
            conns: BTreeMap::new(),
            next_conn: 0,
            seats: Vec::new(),
            group_logs: 0,
            plan,
            rng,
        };
        world.model.disturbed = !world.plan.is_quick() && brokers > 1;
        world.model.frozen = world.plan.frozen;
        let flips = world.plan.faults.iter().any(|(.., fault)| matches!(fault, Fault::Flip { .. }));
        world.model.everywhere = brokers > 1 && (flips || world.plan.frozen);
        world.invite_clients(grows);
        if groups {
            world.group_logs = world.nodes[0].config.groups.offsets_partitions as usize;
            (0..2).for_each(|number| world.invite(Box::new(Member::new(number))));
            world.invite(Box::new(Pair::new(world.group_logs)));
        }
        for (at, node, fault) in world.plan.faults.clone() {
            world.at(at, What::Fault { node, fault });
        }
        for node in 0..brokers {
            let at = if node < FIRST_BROKERS { 0 } else { world.rng.between(100_000, JOINS_WITHIN) };
            world.at(at, What::Start { node });
        }
        world.at(world.plan.end, What::Look);
        world
    }

    fn invite_clients(&mut self, grows: u64) {
        let brokers = self.nodes.len();
        let mut rng = self.rng.fork();
        let mut clients: Vec<Box<dyn Client>> = Vec::new();
        for broker in 0..brokers {
            clients.push(Box::new(Watcher::of(broker)));
        }
        for _ in 0..rng.between(1, 2) {
            clients.push(Box::new(Creator::new(&mut rng).growing(grows)));
        }
        let idempotent = rng.between(1, 3);
        for number in 0..idempotent + rng.between(0, 2) {
            let manner = Manner::draw(&mut rng, number < idempotent);
            let manner = if self.plan.frozen { manner.calmer() } else { manner };
            clients.push(Box::new(Producer::new(number as u32, manner)));
        }
        for _ in 0..rng.between(1, 2) {
            clients.push(Box::new(Consumer::new(&mut rng, brokers)));
        }
        if rng.one_in(2) {
            clients.push(Box::new(Deleter::default()));
        }
        if brokers > 1 && rng.one_in(2) {
            clients.push(Box::new(Mover::new(&mut rng)));
        }
        if brokers > FIRST_BROKERS && rng.one_in(2) {
            clients.push(Box::new(Elector::new(&mut rng)));
        }
        for client in clients {
            self.invite(client);
        }
    }

    fn invite(&mut self, client: Box<dyn Client>) {
        self.seats.push(Seat::new(client, self.nodes.len()));
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

    /// Lets something happen then.
    pub(super) fn at(&mut self, at: u64, what: What) {
        self.order += 1;
        self.queue.push(Reverse(Entry { at, order: self.order, what }));
    }

    /// The clocks of a broker.
    pub(super) fn clocks(&self, node: usize) -> Now {
        let node = &self.nodes[node];
        Now { mono: Mono(self.now - node.life_began), wall_ms: self.wall_ms() + node.wall_skew_ms }
    }

    /// The clock of the clients: in a run of one broker it is wrong together with that of the broker.
    pub(super) fn wall_ms(&self) -> i64 {
        EPOCH_MS + (self.now / 1_000) as i64
    }

    fn is_alive(&self, node: usize, life: u64) -> bool {
        self.nodes[node].life == life
    }

    fn happen(&mut self, what: What) {
        match what {
            What::Turn { node, life, actor } if self.is_alive(node, life) => self.turn(node, actor),
            What::Deliver { node, life, actor, input } if self.is_alive(node, life) => self.deliver(node, actor, input),
            What::Tick { node, life, actor } if self.is_alive(node, life) => self.tick(node, actor),
            What::DeviceDone { node, life, token } if self.is_alive(node, life) => self.device_done(node, token),
            What::Frame { life, conn, frame, answer_within_ms } if self.is_alive(conn.node, life) => {
                self.frame_arrived(conn, frame, answer_within_ms);
            }
            What::HungUp { life, conn } if self.is_alive(conn.node, life) => self.hung_up(conn),
            What::Overdue { life, conn, number } if self.is_alive(conn.node, life) => self.check_answered(conn, number),
            What::Stopping { node, life, until } if self.is_alive(node, life) => self.look_if_stopped(node, until),
            What::Turn { .. }
            | What::Deliver { .. }
            | What::Tick { .. }
            | What::DeviceDone { .. }
            | What::Frame { .. }
            | What::HungUp { .. }
            | What::Overdue { .. }
            | What::Stopping { .. } => {}
            What::Connect { client, node } => self.connect(client, node),
            What::ToClient { client, node, link, frame } => self.reach_client(client, node, link, frame),
            What::Wake { client } => self.client_woken(client),
            What::Fault { node, fault } => self.fault(node, fault),
            What::Start { node } => self.start(node),
            What::PeerConnect { life, key } => self.peer_connect(life, key),
            What::PeerFrame { key, session, life, header, frame } => {
                self.peer_frame_arrived(key, session, life, header, frame);
            }
            What::PeerBroken { key, session } => self.peer_broken(key, session),
            What::PeerUnacked { key, session } => self.peer_unacked(key, session),
            What::CutOver { from, to } => self.cut_over(from, to),
            What::Look => self.look(),
        }
    }

    // The phases of a run.

    /// Faults are over: whatever is broken is mended.
    fn heal(&mut self) {
        let cluster = self.nodes.len() > 1;
        for at in 0..self.nodes.len() {
            let (before, rest) = self.nodes.split_at_mut(at);
            let (node, behind) = rest.split_first_mut().expect("there is one");
            node.disk.full = false;
            // A damaged WAL is for the other brokers to make up for, and so are segments that two of them have, whole.
            let whole = |log, other: &Node| other.disk.has_bad(log) == Some(false);
            let others = |log| before.iter().chain(&*behind).filter(|other| whole(log, other)).count() >= 2;
            match cluster {
                true => node.disk.repair_segments(others),
                false => node.disk.repair(),
            }
            // A broker whose clock is more than an hour behind refuses the timestamps of its clients.
            node.wall_skew_ms = 0;
        }
        let power_cut = cluster && self.rng.one_in(3);
        self.model.disturbed |= power_cut;
        for node in 0..self.nodes.len() {
            let known = &mut self.nodes[node];
            if known.impaired || known.disk.is_damaged() || known.disk.error_armed.is_some() || power_cut {
                // Only a start makes fenced files and damage that was seen good again.
                known.disk.error_armed = None;
                self.crash(node, 100_000);
            }
        }
        self.heal_network();
    }

    /// When the last fault that is still felt is over.
    fn calm_at(&self) -> u64 {
        let felt = self.nodes.iter().map(|node| node.stalled_until.max(node.paused_until));
        felt.max().unwrap_or(0).max(self.now)
    }

    fn look(&mut self) {
        let brokers = self.nodes.len();
        let settled = self.seats.iter().all(|seat| seat.client.is_settled(&self.model));
        let up = self.nodes.iter().all(|node| node.broker.as_ref().is_some_and(Broker::ready));
        match self.phase {
            Phase::Working => {
                self.trace.line(self.now, || "faults are over".into());
                self.phase = Phase::Settling { until: self.now + SETTLE_WITHIN };
                self.heal();
                let now = self.calm_at();
                for client in 0..self.seats.len() {
                    self.seats[client].client.settle(now);
                    self.wake_client(client, self.now + 1);
                }
            }
            Phase::Settling { until } if settled && up => {
                self.trace.line(self.now, || "clients have ended what they began".into());
                assert!(self.now <= until);
                if self.nodes.len() > 1 {
                    self.phase = Phase::Converging { until: self.now + CONVERGE_WITHIN };
                } else {
                    self.phase = Phase::Verifying { until: self.now + SETTLE_WITHIN };
                    if self.rng.one_in(2) {
                        self.crash(0, 50_000);
                    }
                    let mut rng = self.rng.fork();
                    self.invite(Box::new(Consumer::verifier(&mut rng, 1)));
                }
            }
            Phase::Converging { until } => match self.disagreement() {
                None => {
                    self.trace.line(self.now, || "the replicas agree".into());
                    self.phase = Phase::Verifying { until: self.now + SETTLE_WITHIN };
                    self.model.disturbed = !self.plan.is_quick();
                    let mut rng = self.rng.fork();
                    let creator = Creator::last(&mut rng, &mut self.model);
                    self.invite(Box::new(creator));
                    self.invite(Box::new(Consumer::verifier(&mut rng, self.nodes.len())));
                    for client in 0..self.seats.len() {
                        self.seats[client].client.settle(self.now);
                        self.wake_client(client, self.now + 1);
                    }
                }
                Some(why) => assert!(self.now <= until, "L4: replicas do not agree though the faults are over: {why}"),
            },
            Phase::Verifying { .. } if settled && up && (brokers == 1 || self.disagreement().is_none()) => {
                self.model.check_complete();
                self.check_space();
                self.phase = Phase::Done;
            }
            Phase::Settling { until } | Phase::Verifying { until } => {
                if self.now > until {
                    let states: Vec<String> = self.seats.iter().map(|seat| seat.client.state()).collect();
                    let disagreement = self.disagreement();
                    panic!("L4: no end though the faults are over (ready: {up}, {disagreement:?}): {states:#?}");
                }
            }
            Phase::Done => {}
        }
        self.at(self.now + 100_000, What::Look);
    }

    /// Deleted topics must not hold space.
    fn check_space(&self) {
        let most = self.model.partitions_that_may_exist() + self.group_logs;
        for node in &self.nodes {
            let logs = node.disk.logs_with_segments();
            assert!(logs <= most, "deleted topics still hold space: {logs} logs have files, {most} may exist");
        }
    }
}
