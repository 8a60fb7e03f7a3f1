//! A shard's executor: hands events to the core, and carries out what it wants done.
//!
//! The tasks that read (connections, mailbox) hand their events to the core as they come. That sets off the turn's
//! task, which the executor runs behind all tasks that are ready by then; so what one look at the kernel brought
//! in goes out together, in one append to the WAL.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use bytes::Bytes;
use glommio::net::AcceptedTcpStream;
use glommio::{Latency, Shares};

use super::admission::{Admission, Place};
use super::alarm::{Alarm, Timer};
use super::clock::{Clock, Pulse};
use super::connection::{self, Connection, End};
use super::disk::ToDisk;
use super::frames::FrameBudget;
use super::mailbox::{Receiver, Sender};
use super::peers::{self, Peering, Peers};
use super::rouse::Sleeper;
use super::signal::{Signal, yield_now};
use super::{Incoming, Report, listener, peer_reader};
use crate::limits::{DISK_SILENT_MS, IDLE_TICK_MS, MESH_QUEUE, TICK_MS};
use crate::log::{DiskReply, WalId};
use crate::metrics::ShardMetrics;
use crate::shard::view::{Look, Seen};
use crate::shard::{Effect, Event, Shard};
use crate::types::{ConnId, Map, Mono, Now, ShardId};

/// Bytes of the buffer that the connections of a shard read into, one at a time.
const SCRATCH_BYTES: usize = 64 * 1024;

/// Messages taken from the mailbox before other tasks get their turn.
const MAILBOX_TURN: usize = 256;

/// Milliseconds between two looks for stalled connections.
const SWEEP_MS: u64 = 1_000;

/// Log lines about clients' mistakes that a shard writes in one second at most.
const CLIENT_LINES_PER_S: u32 = 10;

/// The broker's logic on one shard, as the driver sees it. Tests put something simpler in its place.
pub(super) trait Core: 'static {
    /// See [`Shard::start`].
    fn start(&mut self, now: Now, effects: &mut Vec<Effect>);
    /// See [`Shard::step`].
    fn step(&mut self, now: Now, event: Event, effects: &mut Vec<Effect>);
    /// See [`Shard::is_timed`].
    fn is_timed(&self) -> bool;
    /// See [`Shard::worked`].
    fn worked(&mut self, now: Now);
    /// See [`Shard::finish_turn`].
    fn finish_turn(&mut self, now: Now, effects: &mut Vec<Effect>);
    /// See [`Shard::busy`].
    fn busy(&self) -> bool;
    /// See [`Shard::ready`].
    fn ready(&self) -> bool;
    /// See [`Shard::drained`].
    fn drained(&self) -> bool;
    /// See [`Shard::has_left`].
    fn has_left(&self, now: Now) -> bool;
    /// See [`Shard::metrics`].
    fn metrics(&self) -> Arc<ShardMetrics>;
    /// See [`Shard::look`].
    fn look(&mut self, now: Now, look: &Look, effects: &mut Vec<Effect>) -> Seen;
}

impl Core for Shard {
    fn start(&mut self, now: Now, effects: &mut Vec<Effect>) {
        Shard::start(self, now, effects);
    }

    fn step(&mut self, now: Now, event: Event, effects: &mut Vec<Effect>) {
        Shard::step(self, now, event, effects);
    }

    fn is_timed(&self) -> bool {
        Shard::is_timed(self)
    }

    fn worked(&mut self, now: Now) {
        Shard::worked(self, now);
    }

    fn finish_turn(&mut self, now: Now, effects: &mut Vec<Effect>) {
        Shard::finish_turn(self, now, effects);
    }

    fn busy(&self) -> bool {
        Shard::busy(self)
    }

    fn ready(&self) -> bool {
        Shard::ready(self)
    }

    fn drained(&self) -> bool {
        Shard::drained(self)
    }

    fn has_left(&self, now: Now) -> bool {
        Shard::has_left(self, now)
    }

    fn metrics(&self) -> Arc<ShardMetrics> {
        Shard::metrics(self)
    }

    fn look(&mut self, now: Now, look: &Look, effects: &mut Vec<Effect>) -> Seen {
        Shard::look(self, now, look, effects)
    }
}

/// What a shard's executor is started with.
pub(super) struct ShardSetup<C> {
    /// The shard's number.
    pub(super) id: ShardId,
    /// Its logic.
    pub(super) core: C,
    /// Shows that its executor turns.
    pub(super) pulse: Pulse,
    /// What its ticks go by.
    pub(super) timer: Timer,
    /// This thread, for the one that rouses it.
    pub(super) sleeper: Arc<Sleeper>,
    /// The clock of all threads.
    pub(super) clock: Clock,
    /// The listening socket, which all shards accept from.
    pub(super) listener: std::net::TcpListener,
    /// Counts the connections of all shards.
    pub(super) admission: Arc<Admission>,
    /// `connections.max.idle.ms`.
    pub(super) idle_ms: u64,
    /// Where its messages come in.
    pub(super) inbox: Receiver<Incoming>,
    /// All shards' mailboxes, its own included.
    pub(super) shards: Vec<Sender<Incoming>>,
    /// The disk's mailbox.
    pub(super) disk: Sender<ToDisk>,
    /// Shows whether the disk's thread is at work.
    pub(super) disk_pulse: Pulse,
    /// The memory of request frames.
    pub(super) budget: Arc<FrameBudget>,
    /// `socket.request.max.bytes`.
    pub(super) max_request_bytes: usize,
    /// What it needs for talking to other brokers, if there are any.
    pub(super) peering: Option<Arc<Peering>>,
    /// The socket that other brokers connect to, if it is this shard that accepts them.
    pub(super) peer_listener: Option<std::net::TcpListener>,
    /// Set when the broker is about to stop.
    pub(super) leave: Arc<AtomicBool>,
    /// Set when the broker is to stop.
    pub(super) stop: Arc<AtomicBool>,
    /// Where it reports that it is ready, and drained.
    pub(super) reports: mpsc::Sender<Report>,
}

/// A shard's executor, shared by its tasks.
pub(super) struct Driver<C> {
    /// The shard's number.
    pub(super) id: ShardId,
    /// The clocks.
    pub(super) clock: Clock,
    /// The memory of request frames.
    pub(super) budget: Arc<FrameBudget>,
    /// `socket.request.max.bytes`.
    pub(super) max_request_bytes: usize,
    /// What connections read into. Borrowed within a poll only.
    pub(super) scratch: RefCell<Box<[u8]>>,
    core: RefCell<C>,
    metrics: Arc<ShardMetrics>,
    pulse: Pulse,
    effects: RefCell<Vec<Effect>>,
    connections: RefCell<Map<ConnId, Rc<Connection>>>,
    admission: Arc<Admission>,
    idle_ms: u64,
    next_connection: Cell<u64>,
    /// Connections whose readers wait for the next tick to look again.
    held_back: RefCell<Vec<Rc<Connection>>>,
    /// All shards' mailboxes.
    pub(super) shards: Vec<Sender<Incoming>>,
    /// The connections to other brokers, if there are any.
    pub(super) peers: Option<Peers>,
    disk: Sender<ToDisk>,
    disk_pulse: Pulse,
    /// What the disk last said of its WALs.
    health: RefCell<Vec<(WalId, DiskReply)>>,
    /// Whether the core was told that the disk's thread is stuck.
    disk_silent: Cell<bool>,
    turn: Signal,
    alarm: Alarm,
    sleeper: Arc<Sleeper>,
    last_tick: Cell<Mono>,
    /// Whether that is after the long time of an idle shard.
    ticks_slowly: Cell<bool>,
    next_sweep: Cell<Mono>,
    client_lines: LineLimit,
    reports: mpsc::Sender<Report>,
    reported_ready: Cell<bool>,
    leave: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    /// What of the end was told to the core, and reported by it.
    ending: Cell<Ending>,
}

/// How far a shard is with the end of the broker.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd)]
enum Ending {
    No,
    /// The core hands over what it leads.
    Leaving,
    /// It leads nothing any more that another broker could.
    Left,
    /// The core ends what is in flight.
    Stopping,
    /// Nothing is in flight any more.
    Drained,
}

/// Runs a shard on the executor of this thread. Never ends: a broker that stops ends its process.
pub(super) async fn run<C: Core>(setup: ShardSetup<C>) {
    let driver = Rc::new(Driver {
        id: setup.id,
        clock: setup.clock,
        budget: setup.budget,
        max_request_bytes: setup.max_request_bytes,
        scratch: RefCell::new(vec![0; SCRATCH_BYTES].into_boxed_slice()),
        metrics: setup.core.metrics(),
        core: RefCell::new(setup.core),
        pulse: setup.pulse,
        effects: RefCell::default(),
        connections: RefCell::default(),
        admission: setup.admission,
        idle_ms: setup.idle_ms,
        next_connection: Cell::new(0),
        held_back: RefCell::default(),
        shards: setup.shards,
        peers: setup.peering.map(Peers::new),
        disk: setup.disk,
        disk_pulse: setup.disk_pulse,
        health: RefCell::default(),
        disk_silent: Cell::new(false),
        turn: Signal::default(),
        alarm: Alarm::new(setup.timer),
        sleeper: setup.sleeper,
        last_tick: Cell::new(setup.clock.mono()),
        ticks_slowly: Cell::new(false),
        next_sweep: Cell::new(Mono::default()),
        client_lines: LineLimit::default(),
        reports: setup.reports,
        reported_ready: Cell::new(false),
        leave: setup.leave,
        stop: setup.stop,
        ending: Cell::new(Ending::No),
    });
    // Ticks carry deadlines and elections: they must not wait behind a connection that moves megabytes.
    let urgent = glommio::executor().create_task_queue(
        Shares::Static(1000),
        Latency::Matters(Duration::from_millis(TICK_MS)),
        "ticks",
    );
    driver.sleeper.is_here();
    driver.core.borrow_mut().start(driver.clock.now(), &mut driver.effects.borrow_mut());
    driver.turn.set();
    glommio::spawn_local_into(Rc::clone(&driver).tick_for_ever(), urgent).expect("the queue was just created").detach();
    glommio::spawn_local(listener::accept_for_ever(Rc::clone(&driver), setup.listener)).detach();
    glommio::spawn_local(Rc::clone(&driver).receive_for_ever(setup.inbox)).detach();
    peers::start(&driver, setup.peer_listener);
    driver.turns_for_ever().await;
}

impl<C: Core> Driver<C> {
    /// Hands a request to the core.
    pub(super) fn request(&self, conn: ConnId, frame: Bytes) {
        self.event(Event::Request { conn, frame });
    }

    /// Hands an event to the core.
    pub(super) fn event(&self, event: Event) {
        let mut core = self.core.borrow_mut();
        core.step(self.clock.now(), event, &mut self.effects.borrow_mut());
        if core.is_timed() {
            core.worked(self.clock.now());
        }
        self.turn.set();
    }

    /// Gives a connection that was just accepted to its shard, or closes it where there may be no more.
    pub(super) fn accepted(self: &Rc<Self>, stream: AcceptedTcpStream) {
        // A client that has gone again already has no address.
        let Ok(peer) = stream.peer_addr() else {
            // Binding it here and dropping it closes it.
            return drop(stream.bind_to_executor());
        };
        match self.admission.admit(peer.ip(), self.id) {
            Ok(place) if place.shard == self.id => self.connected(stream, place),
            Ok(place) => self.shards[usize::from(place.shard.0)].send(Incoming::Connection(stream, place)),
            Err(refused) => {
                drop(stream.bind_to_executor());
                self.client_line(|| tracing::warn!(%peer, "a connection was refused: {refused}"));
            }
        }
    }

    /// Starts the tasks of a connection that is this shard's.
    fn connected(self: &Rc<Self>, stream: AcceptedTcpStream, place: Place) {
        let stream = stream.bind_to_executor();
        let (false, Ok(peer), Ok(())) = (self.stopping(), stream.peer_addr(), stream.set_nodelay(true)) else {
            return;
        };
        let id = ConnId(self.next_connection.get());
        self.next_connection.set(id.0 + 1);
        let conn = Rc::new(Connection::new(id, peer, stream, place, self.clock.mono()));
        self.connections.borrow_mut().insert(id, Rc::clone(&conn));
        self.event(Event::Connected { conn: id, peer: peer.ip() });
        glommio::spawn_local(connection::read(Rc::clone(self), Rc::clone(&conn))).detach();
        glommio::spawn_local(connection::write(Rc::clone(self), conn)).detach();
    }

    /// Forgets a connection that has ended.
    pub(super) fn closed(&self, conn: &Connection, end: &End) {
        self.connections.borrow_mut().remove(&conn.id);
        self.event(Event::Closed { conn: conn.id });
        match end {
            End::Client | End::Broker => tracing::debug!(peer = %conn.peer, "connection {end}"),
            // A client that goes without reading what it asked for; that is no fault of anybody's.
            End::Read(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                tracing::debug!(peer = %conn.peer, "connection {end}");
            }
            End::Read(_) | End::Frame(_) | End::Starved => {
                self.client_line(|| tracing::warn!(peer = %conn.peer, "connection closed: {end}"));
            }
        }
    }

    /// Writes a log line that clients can cause, unless there were too many of them in this second.
    pub(super) fn client_line(&self, line: impl FnOnce()) {
        match self.client_lines.take(self.clock.mono()) {
            Line::Write { left_out: 0 } => line(),
            Line::Write { left_out } => {
                tracing::warn!(left_out, "log lines about clients were left out");
                line();
            }
            Line::LeaveOut => {}
        }
    }

    /// Whether connections may hand in more requests: not before the shard knows its cluster and its logs (a client
    /// that is told of a cluster without brokers does not ask again for long), not while others are behind with what
    /// was sent to them, and not when the broker stops.
    pub(super) fn takes_requests(&self) -> bool {
        self.reported_ready.get()
            && !self.stopping()
            && self.disk.queued() < MESH_QUEUE
            && self.shards.iter().all(|shard| shard.queued() < MESH_QUEUE)
    }

    /// Whether the broker is about to stop, or is to.
    fn leaving(&self) -> bool {
        self.leave.load(Ordering::Relaxed)
    }

    /// Whether the broker is to stop.
    pub(super) fn stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Has the next tick wake the connection's reader.
    pub(super) fn hold_back(&self, conn: &Rc<Connection>) {
        self.held_back.borrow_mut().push(Rc::clone(conn));
        self.hurry_ticker();
    }

    async fn turns_for_ever(self: Rc<Self>) {
        let mut effects = Vec::new();
        loop {
            poll_fn(|cx| self.turn.poll(cx)).await;
            std::mem::swap(&mut effects, &mut self.effects.borrow_mut());
            let now = self.clock.now();
            self.core.borrow_mut().finish_turn(now, &mut effects);
            for effect in effects.drain(..) {
                self.carry_out(effect, now.mono);
            }
            if self.wants_ticks() {
                self.hurry_ticker();
            }
            if !self.reported_ready.get() && self.core.borrow().ready() {
                self.reported_ready.set(true);
                self.report(Report::Ready);
            }
        }
    }

    fn carry_out(self: &Rc<Self>, effect: Effect, now: Mono) {
        match effect {
            Effect::Respond { conn, chunks } => {
                // A client that has gone meanwhile gets no answer.
                if let Some(conn) = self.connections.borrow().get(&conn) {
                    conn.respond(chunks, now);
                }
            }
            Effect::Close { conn, reason } => {
                if let Some(conn) = self.connections.borrow().get(&conn) {
                    self.client_line(|| tracing::warn!(peer = %conn.peer, "connection closed: {reason}"));
                    conn.close();
                }
            }
            Effect::Mesh { to, message } => {
                assert_ne!(to, self.id, "a shard sent a message to itself");
                self.shards[usize::from(to.0)].send(Incoming::Mesh { from: self.id, message });
            }
            Effect::Peer { to, chunks } => {
                if let Some(peers) = &self.peers {
                    peers.send(to, chunks);
                }
            }
            Effect::ReachPeer { peer } => self.reach_peer(peer),
            Effect::KnowPeer { peer, directory_id } => {
                if let Some(peers) = &self.peers {
                    peers.know(peer, directory_id);
                }
            }
            Effect::ForgetPeer { peer } => {
                if let Some(peers) = &self.peers {
                    peers.forget(peer);
                }
            }
            Effect::LimitConnections { most, most_per_address } => self.admission.limit(most, most_per_address),
            Effect::Disk { request } => self.disk.send(ToDisk::Request { from: self.id, request }),
            Effect::Fatal { reason } => super::fatal(&reason),
        }
    }

    async fn receive_for_ever(self: Rc<Self>, inbox: Receiver<Incoming>) {
        let mut taken = 0;
        loop {
            match poll_fn(|cx| inbox.poll_recv(cx)).await {
                Incoming::Mesh { from, message } => self.event(Event::Mesh { from, message }),
                Incoming::Disk(reply) => {
                    self.note_health(&reply);
                    self.event(Event::Disk { reply });
                }
                Incoming::Connection(stream, place) => self.connected(stream, place),
                Incoming::Peer(stream, hello) => peer_reader::start(&self, stream, hello),
                Incoming::Look(look, reply) => self.look(&look, &reply),
            }
            taken += 1;
            if taken == MAILBOX_TURN {
                taken = 0;
                yield_now().await;
            }
        }
    }

    fn look(&self, look: &Look, reply: &mpsc::SyncSender<(ShardId, Seen)>) {
        let seen = self.core.borrow_mut().look(self.clock.now(), look, &mut self.effects.borrow_mut());
        self.turn.set();
        // Whoever asked may have stopped waiting; the channel has room for all that were asked.
        let _ = reply.try_send((self.id, seen));
    }

    /// Whether anything waits that needs short ticks.
    fn wants_ticks(&self) -> bool {
        self.core.borrow().busy() || !self.held_back.borrow().is_empty() || self.leaving()
    }

    /// Puts the next tick where it would be if the shard had been busy at the last.
    fn hurry_ticker(&self) {
        if self.ticks_slowly.replace(false) {
            self.set_alarm(TICK_MS);
        }
    }

    /// A shard that is busy off and on must not put its tick off again and again: ticks are counted from the last.
    fn set_alarm(&self, after_ms: u64) {
        let due = self.last_tick.get().plus_millis(after_ms);
        self.sleeper.is_due(due);
        self.alarm.set(Duration::from_micros(due.micros_since(self.clock.mono())));
    }

    async fn tick_for_ever(self: Rc<Self>) {
        loop {
            let slowly = !self.wants_ticks();
            self.ticks_slowly.set(slowly);
            self.set_alarm(if slowly { IDLE_TICK_MS } else { TICK_MS });
            self.alarm.rings().await;
            let now = self.clock.mono();
            self.last_tick.set(now);
            self.metrics.tick_delay.observe(now.micros_since(self.sleeper.due()));
            self.pulse.beat(now);
            self.tick();
        }
    }

    fn tick(&self) {
        if self.leaving() && self.ending.get() == Ending::No {
            self.ending.set(Ending::Leaving);
            self.event(Event::Leave);
        }
        if self.stopping() && self.ending.get() < Ending::Stopping {
            self.ending.set(Ending::Stopping);
            self.event(Event::Stop);
        }
        self.event(Event::Tick);
        for conn in self.held_back.take() {
            conn.look_again();
        }
        let now = self.clock.mono();
        self.watch_disk(now);
        if now >= self.next_sweep.get() {
            self.next_sweep.set(now.plus_millis(SWEEP_MS));
            self.sweep(now);
        }
        if self.ending.get() == Ending::Leaving && self.core.borrow().has_left(self.clock.now()) {
            self.ending.set(Ending::Left);
            self.report(Report::Left);
        }
        if self.ending.get() == Ending::Stopping {
            // The turn that hands the last responses to their connections may be still to come.
            let handed = !self.effects.borrow().iter().any(|effect| matches!(effect, Effect::Respond { .. }));
            let sent = || self.connections.borrow().values().all(|conn| conn.drained());
            if self.core.borrow().drained() && handed && sent() {
                self.ending.set(Ending::Drained);
                // The end of the process closes them too, but late where it has much memory to give back.
                self.connections.borrow().values().for_each(|conn| conn.close());
                self.report(Report::Drained);
            }
        }
    }

    fn note_health(&self, reply: &DiskReply) {
        if let DiskReply::Health { wal, .. } = reply {
            let mut health = self.health.borrow_mut();
            health.retain(|(other, _)| other != wal);
            health.push((*wal, reply.clone()));
        }
    }

    /// A file system that stalls can hold up the disk's thread itself, which then reports nothing. The shard speaks
    /// for it until it is back, so that requests are refused rather than taken in without end.
    fn watch_disk(&self, now: Mono) {
        let silent_ms = self.disk_pulse.silent_ms(now);
        let silent = silent_ms >= DISK_SILENT_MS;
        if !self.disk_silent.replace(silent) && !silent {
            return;
        }
        for wal in [WalId::Meta, WalId::Data] {
            let known = self.health.borrow().iter().find(|(other, _)| *other == wal).map(|(_, reply)| reply.clone());
            let fresh =
                DiskReply::Health { wal, oldest_ms: 0, pending_bytes: 0, full: false, scarce: false, no_space: false };
            let mut reply = known.unwrap_or(fresh);
            if let (true, DiskReply::Health { oldest_ms, .. }) = (silent, &mut reply) {
                *oldest_ms = (*oldest_ms).max(silent_ms);
            }
            self.event(Event::Disk { reply });
        }
    }

    fn sweep(&self, now: Mono) {
        for conn in self.connections.borrow().values() {
            if let Some(reason) = conn.stalled(now, self.idle_ms) {
                self.client_line(|| tracing::info!(peer = %conn.peer, "connection closed: {reason}"));
                conn.kill();
            }
        }
    }

    fn report(&self, report: Report) {
        // Nobody listens only when the process is ending already.
        let _ = self.reports.send(report);
    }
}

/// Bounds the log lines of one second.
#[derive(Default)]
struct LineLimit {
    second: Cell<u64>,
    lines: Cell<u32>,
    left_out: Cell<u64>,
}

enum Line {
    Write {
        /// Lines that were left out since the last one that was written.
        left_out: u64,
    },
    LeaveOut,
}

impl LineLimit {
    fn take(&self, now: Mono) -> Line {
        let second = now.0 / 1_000_000;
        if self.second.replace(second) != second {
            self.lines.set(0);
        }
        if self.lines.get() == CLIENT_LINES_PER_S {
            self.left_out.set(self.left_out.get() + 1);
            return Line::LeaveOut;
        }
        self.lines.set(self.lines.get() + 1);
        Line::Write { left_out: self.left_out.take() }
    }
}
