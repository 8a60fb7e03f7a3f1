//! The processes of the brokers: starts, ends, faults, and the turns of what runs in them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

use super::broker::{self, Actor, Broker, Input};
use super::disk::VirtualDisk;
use super::faults::Fault;
use super::server_side::Conn;
use super::trace::digest;
use super::world::{Phase, What, World};
use crate::config::BrokerConfig;
use crate::limits::{DEADLINE_SLACK_MS, LEAVE_MS, STOP_MS};
use crate::log::disk::{DiskEffect, DiskEvent};
use crate::peer::PeerMessage;
use crate::shard::{Effect, Event};
use crate::types::{BrokerId, ShardId};

/// How far a process is with its end, where it was asked to stop.
pub(super) enum Ending {
    No,
    /// It hands over what it leads, and serves clients on.
    Leaving,
    /// It ends what is in flight; these shards have.
    Draining(Vec<bool>),
}

/// A broker with its machine.
pub(super) struct Node {
    pub(super) config: BrokerConfig,
    pub(super) disk: VirtualDisk,
    /// No operation of the disk ends before.
    pub(super) stalled_until: u64,
    /// The process gets no turns before.
    pub(super) paused_until: u64,
    pub(super) broker: Option<Broker>,
    /// Changes with every start and every end of the process; what was meant for an earlier life is dropped.
    pub(super) life: u64,
    pub(super) life_began: u64,
    pub(super) ending: Ending,
    /// Something on the disk is damaged or fenced.
    pub(super) impaired: bool,
    /// Frames that wait until there is memory for them.
    pub(super) waiting_frames: Vec<(Conn, Vec<u8>, i64)>,
    /// Bytes of frames that are held.
    pub(super) alive: Arc<AtomicUsize>,
    pub(super) wall_skew_ms: i64,
    /// The data directories with which other brokers are let in.
    pub(super) known: BTreeMap<BrokerId, [u8; 16]>,
}

impl Node {
    /// The broker at this place among so many, with an empty disk.
    pub(super) fn new(place: usize, brokers: usize) -> Node {
        Node {
            config: broker::config(place, brokers),
            disk: VirtualDisk::default(),
            stalled_until: 0,
            paused_until: 0,
            broker: None,
            life: 0,
            life_began: 0,
            ending: Ending::No,
            impaired: false,
            waiting_frames: Vec::new(),
            alive: Arc::default(),
            wall_skew_ms: 0,
            known: BTreeMap::new(),
        }
    }

    /// Until when a process that was paused may take for answers that were due meanwhile.
    pub(super) fn excused_until(&self) -> u64 {
        if self.paused_until == 0 { 0 } else { self.paused_until + DEADLINE_SLACK_MS * 1_000 }
    }

    /// Whether clients are let in.
    pub(super) fn is_open(&self) -> bool {
        !matches!(self.ending, Ending::Draining(_)) && self.broker.as_ref().is_some_and(Broker::ready)
    }
}

impl World {
    // The process.

    pub(super) fn start(&mut self, place: usize) {
        let now = self.now;
        let cluster = self.nodes.len() > 1;
        let node = &mut self.nodes[place];
        if node.broker.is_some() {
            return;
        }
        if now < node.stalled_until {
            // Recovery reads the disk.
            let at = node.stalled_until;
            self.at(at, What::Start { node: place });
            return;
        }
        node.life += 1;
        self.starts += 1;
        self.model.lives[place] += 1;
        node.life_began = now;
        node.ending = Ending::No;
        let shards = self.rng.between(1, if self.nodes.len() == 1 { 4 } else { 3 }) as u16;
        let seed = self.rng.bits();
        let node = &mut self.nodes[place];
        let life = node.life;
        self.trace.note(now, "start", u64::from(shards), life);
        self.trace.line(now, || format!("broker {place} starts with {shards} shards"));
        let mut broker = match Broker::start(&node.disk, self.disk_config, shards, seed, &node.config) {
            Ok(broker) => broker,
            Err(error) => {
                self.trace.line(now, || format!("broker {place} does not start: {error}"));
                assert!(node.disk.is_damaged(), "S7: no start though nothing is damaged: {error}");
                // Somebody puts the disk right.
                node.disk.repair();
                self.at(now + 1_000, What::Start { node: place });
                return;
            }
        };
        // For a damaged WAL others make up, and nobody is to notice.
        let impaired = if cluster { node.disk.has_bad_segments() } else { node.disk.is_damaged() };
        node.impaired &= impaired;
        self.model.impaired = self.nodes.iter().any(|node| node.impaired);
        let now = self.clocks(place);
        let mut begun = Vec::new();
        for shard in 0..shards {
            let mut effects = Vec::new();
            broker.shard(shard).start(now, &mut effects);
            begun.push(effects);
        }
        self.nodes[place].broker = Some(broker);
        self.observer.started(place);
        for (shard, effects) in (0..).zip(begun) {
            self.carry_out(place, ShardId(shard), effects);
        }
        for shard in 0..shards {
            self.nudge(place, Actor::Shard(shard));
        }
        self.nudge(place, Actor::Disk);
        self.begin_links(place, shards);
    }

    /// The process is gone from one moment to the next.
    pub(super) fn crash(&mut self, place: usize, down_for: u64) {
        let node = &mut self.nodes[place];
        if node.broker.take().is_none() {
            return;
        }
        node.life += 1;
        node.disk.crash(&mut self.rng);
        node.waiting_frames.clear();
        node.paused_until = node.paused_until.min(self.now);
        let (gone, kept) = std::mem::take(&mut self.conns).into_iter().partition(|(conn, _)| conn.node == place);
        self.conns = kept;
        self.lose_connections(place, gone);
        self.lose_links(place);
        self.at(self.now + down_for, What::Start { node: place });
    }

    /// Looks how far a broker is that stops; `until` is when it goes on in any case.
    pub(super) fn look_if_stopped(&mut self, place: usize, until: u64) {
        let clocks = self.clocks(place);
        let node = &mut self.nodes[place];
        let life = node.life;
        let Some(broker) = &node.broker else { return };
        match &mut node.ending {
            Ending::No => unreachable!("nobody asked it to stop"),
            Ending::Leaving => {
                let shards = broker.shards();
                if broker.all_shards().iter().all(|shard| shard.has_left(clocks)) || self.now >= until {
                    self.trace.line(self.now, || format!("broker {place} has handed over what it leads"));
                    node.ending = Ending::Draining(vec![false; usize::from(shards)]);
                    self.tell_all(place, || Event::Stop);
                    return self
                        .at(self.now + 1_000, What::Stopping { node: place, life, until: self.now + STOP_MS * 1_000 });
                }
            }
            Ending::Draining(drained) => {
                // Each says so once, whatever it is sent later.
                drained.iter_mut().enumerate().for_each(|(number, drained)| *drained |= broker.has_drained(number));
                if drained.iter().all(|drained| *drained) || self.now >= until {
                    self.trace.line(self.now, || format!("broker {place} has stopped"));
                    let down_for = self.rng.between(1_000, 300_000);
                    return self.crash(place, down_for);
                }
            }
        }
        self.at(self.now + 1_000, What::Stopping { node: place, life, until });
    }

    fn tell_all(&mut self, place: usize, event: fn() -> Event) {
        let shards = self.nodes[place].broker.as_ref().map_or(0, Broker::shards);
        (0..shards).for_each(|shard| self.deliver(place, Actor::Shard(shard), Input::Event(event())));
    }

    pub(super) fn fault(&mut self, place: usize, fault: Fault) {
        if self.phase != Phase::Working {
            return;
        }
        self.trace.note(self.now, "fault", place as u64, fault.kind());
        self.trace.line(self.now, || format!("broker {place}: {fault:?}"));
        let now = self.now;
        self.model.disturbed = self.nodes.len() > 1;
        let node = &mut self.nodes[place];
        match fault {
            Fault::Stall { micros } => node.stalled_until = node.stalled_until.max(now + micros),
            Fault::Kill { down_for } => self.crash(place, down_for),
            Fault::Stop => {
                if node.broker.is_none() || !matches!(node.ending, Ending::No) {
                    return;
                }
                node.ending = Ending::Leaving;
                let life = node.life;
                self.tell_all(place, || Event::Leave);
                self.at(now + 1_000, What::Stopping { node: place, life, until: now + LEAVE_MS * 1_000 });
            }
            Fault::Error { target, restart_after, down_for } => {
                node.disk.error_armed = Some(target);
                node.impaired = true;
                self.model.impaired = true;
                self.at(now + restart_after, What::Fault { node: place, fault: Fault::Kill { down_for } });
            }
            Fault::Full { micros } => {
                node.disk.full = true;
                self.at(now + micros, What::Fault { node: place, fault: Fault::NotFull });
            }
            Fault::NotFull => node.disk.full = false,
            Fault::Flip { count } => {
                // Of what was written last, a start cannot know whether it was acknowledged.
                let settled = now >= node.stalled_until + 1_000_000 && now >= node.life_began + 1_000_000;
                if !settled || node.broker.is_none() || node.impaired {
                    return;
                }
                for _ in 0..count {
                    let flipped = node.disk.flip(now - 1_000_000, &mut self.rng);
                    node.impaired |= flipped.is_some();
                    self.model.impaired |= flipped.is_some();
                    self.trace.line(now, || format!("a bit was flipped: {flipped:?}"));
                }
            }
            Fault::CutConnections => self.cut_connections(place),
            Fault::WallClock { millis } => node.wall_skew_ms += millis,
            Fault::Pause { micros } => node.paused_until = node.paused_until.max(now + micros),
            Fault::Cut { to, manner, micros } => self.cut(place, to, manner, micros),
            Fault::PowerCut { down_for } => {
                for place in 0..self.nodes.len() {
                    let later = self.rng.below(1_000_000);
                    self.crash(place, down_for + later);
                }
            }
        }
    }

    // Actors and their turns.

    /// Gives an actor a turn soon, if it has none coming.
    fn nudge(&mut self, place: usize, actor: Actor) {
        let at = self.now + self.rng.below(60);
        let node = &mut self.nodes[place];
        let Some(broker) = &mut node.broker else { return };
        if broker.wants_turn(actor) {
            let life = node.life;
            self.at(at, What::Turn { node: place, life, actor });
        }
    }

    pub(super) fn deliver(&mut self, place: usize, actor: Actor, input: Input) {
        let Some(broker) = &mut self.nodes[place].broker else { return };
        broker.push(actor, input);
        self.nudge(place, actor);
    }

    pub(super) fn tick(&mut self, place: usize, actor: Actor) {
        let Some(broker) = &mut self.nodes[place].broker else { return };
        if broker.tick_due(actor, self.now) {
            self.deliver(place, actor, Input::Tick);
        }
    }

    pub(super) fn turn(&mut self, place: usize, actor: Actor) {
        let now = self.clocks(place);
        let node = &mut self.nodes[place];
        let life = node.life;
        if self.now < node.paused_until {
            let at = node.paused_until + self.rng.below(60);
            return self.at(at, What::Turn { node: place, life, actor });
        }
        let Some(mut broker) = node.broker.take() else { return };
        let count = broker.take_turn(actor, &mut self.rng);
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
                    self.trace.line(self.now, || format!("broker {place} shard {number} <- {}", shown(&event)));
                    if let Some((conn, millis)) = within {
                        let conn = Conn { node: place, shard: number, number: conn.0 };
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
                let node = &mut self.nodes[place];
                self.plan.check_memory(memory, node.alive.load(Ordering::Relaxed) as u64);
                if self.model.cluster {
                    self.observer.look(place, broker.shard(number));
                }
                node.broker = Some(broker);
                self.carry_out(place, ShardId(number), effects);
                self.admit_waiting(place);
            }
            Actor::Disk => {
                let mut effects = Vec::new();
                for _ in 0..count {
                    match broker.pop(actor) {
                        Input::Disk(event) => {
                            self.trace.note(self.now, "disk", 0, disk_digest(&event));
                            self.trace
                                .line(self.now, || format!("broker {place} disk <- {}", super::broker::brief(&event)));
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
                self.nodes[place].broker = Some(broker);
                self.carry_out_disk(place, effects);
            }
        }
        self.schedule_tick(place, actor);
        if self.nodes[place].broker.as_mut().is_some_and(|broker| broker.has_input(actor)) {
            self.nudge(place, actor);
        }
    }

    fn schedule_tick(&mut self, place: usize, actor: Actor) {
        let now = self.clocks(place);
        let node = &mut self.nodes[place];
        let life = node.life;
        let Some(broker) = &mut node.broker else { return };
        let wait = broker.tick_in_ms(actor, now);
        // A little early, as a timer that fires between two turns would be late by the next.
        let due = self.now + wait * 1_000 - 100;
        if let Some(at) = broker.next_tick(actor, due) {
            self.at(at, What::Tick { node: place, life, actor });
        }
    }

    fn carry_out(&mut self, place: usize, from: ShardId, effects: Vec<Effect>) {
        let life = self.nodes[place].life;
        for effect in effects {
            match effect {
                Effect::Respond { conn, chunks } => {
                    let conn = Conn { node: place, shard: from.0, number: conn.0 };
                    let bytes = chunks.concat();
                    self.trace.note(self.now, "respond", conn.number, digest(&bytes));
                    self.respond(conn, bytes);
                }
                Effect::Close { conn, reason } => {
                    self.trace.note(self.now, "close", conn.0, 0);
                    let conn = Conn { node: place, shard: from.0, number: conn.0 };
                    let Some(end) = self.conns.get(&conn) else { continue };
                    let (client, link, at) = (end.client, end.link, end.to_client.max(self.now) + 1);
                    let allowed = self.seats[client].client.asks_for_no_answer();
                    assert!(allowed, "protocol: the broker closes a connection that did nothing wrong: {reason}");
                    self.hung_up(conn);
                    self.at(at, What::ToClient { client, node: place, link, frame: None });
                }
                Effect::Mesh { to, message } => {
                    assert!(to != from, "a shard sends to itself");
                    self.trace.note(self.now, "mesh", u64::from(to.0), u64::from(from.0));
                    let at = self.in_order(place, Actor::Shard(from.0), Actor::Shard(to.0));
                    let input = Input::Event(Event::Mesh { from, message });
                    self.at(at, What::Deliver { node: place, life, actor: Actor::Shard(to.0), input });
                }
                Effect::Disk { request } => {
                    let at = self.in_order(place, Actor::Shard(from.0), Actor::Disk);
                    let input = Input::Disk(DiskEvent::Request { from, request });
                    self.at(at, What::Deliver { node: place, life, actor: Actor::Disk, input });
                }
                Effect::Fatal { reason } => {
                    self.trace.note(self.now, "fatal", u64::from(from.0), 0);
                    self.trace.line(self.now, || format!("shard {} of broker {place} ends it: {reason}", from.0));
                    let node = &mut self.nodes[place];
                    assert!(node.impaired || node.disk.is_damaged(), "the broker gives up: {reason}");
                    // Somebody puts the disk right: a log with too few replicas was to be repaired.
                    node.disk.repair();
                    let down_for = self.rng.between(1_000, 300_000);
                    self.crash(place, down_for);
                    return;
                }
                Effect::Peer { to, chunks } => {
                    let bytes: Bytes = chunks.concat().into();
                    self.trace.note(self.now, "peer", to.0 as u64, digest(&bytes));
                    self.send_to_peer((place, from.0, to.0 as usize - 1), bytes);
                }
                Effect::ReachPeer { peer } => self.reach_peer((place, from.0, peer.id.0 as usize - 1)),
                Effect::KnowPeer { peer, directory_id } => {
                    self.nodes[place].known.insert(peer, directory_id);
                }
                Effect::ForgetPeer { .. } => unreachable!("no broker is removed"),
                // There are as many connections as there are clients.
                Effect::LimitConnections { .. } => {}
            }
        }
    }

    fn carry_out_disk(&mut self, place: usize, effects: Vec<DiskEffect<Vec<u8>>>) {
        let life = self.nodes[place].life;
        for effect in effects {
            match effect {
                DiskEffect::Device { token, op } => {
                    self.trace.note(self.now, "device", token, super::broker::op_digest(&op));
                    self.trace.line(self.now, || {
                        format!("broker {place} device <- {token} {}", super::broker::brief_op(&op))
                    });
                    self.nodes[place].disk.start(token, op);
                    let free = self.now.max(self.nodes[place].stalled_until);
                    let at = free + self.plan.disk_micros(&mut self.rng);
                    self.at(at, What::DeviceDone { node: place, life, token });
                }
                DiskEffect::Reply { to, reply } => {
                    let actor = Actor::Shard(to.0);
                    let at = self.in_order(place, Actor::Disk, actor);
                    self.at(at, What::Deliver { node: place, life, actor, input: Input::Event(Event::Disk { reply }) });
                }
            }
        }
    }

    pub(super) fn device_done(&mut self, place: usize, token: u64) {
        let node = &mut self.nodes[place];
        let life = node.life;
        if self.now < node.stalled_until {
            let at = node.stalled_until + self.rng.below(2_000);
            self.at(at, What::DeviceDone { node: place, life, token });
            return;
        }
        let done = node.disk.complete(self.now, token, &mut self.rng);
        if done.result == Err(libc::EIO) {
            // It may have been armed in an earlier life; the file is fenced in this one.
            node.impaired = true;
            self.model.impaired = true;
        }
        let result = done.result.as_ref().map(bytes::Bytes::len);
        self.trace.line(self.now, || format!("broker {place} device -> {token} {result:?}"));
        self.deliver(place, Actor::Disk, Input::Disk(DiskEvent::Done { token, done }));
    }

    /// When something from one actor to another arrives: later than all that went before it.
    fn in_order(&mut self, place: usize, from: Actor, to: Actor) -> u64 {
        let at = self.now + self.plan.hop_micros(&mut self.rng);
        self.nodes[place].broker.as_mut().map_or(at, |broker| broker.in_order(from, to, at))
    }
}

fn event_kind(event: &Event) -> &'static str {
    match event {
        Event::Connected { .. } => "connected",
        Event::Request { .. } => "request",
        Event::Closed { .. } => "closed",
        Event::Mesh { .. } => "mesh",
        Event::Disk { .. } => "disk reply",
        Event::PeerUp { .. } => "peer up",
        Event::PeerDown { .. } => "peer down",
        Event::Peer { .. } => "peer",
        Event::Tick => "tick",
        Event::Leave => "leave",
        Event::Stop => "stop",
    }
}

fn shown(event: &Event) -> String {
    if let Event::Peer { from, header, frame } = event {
        let messages = crate::peer::decode(header, frame.clone());
        let texts: Vec<String> = messages.iter().flatten().map(spell).collect();
        return format!("broker {}: {}", from.0 - 1, texts.join(", "));
    }
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

/// A message of another broker in a few words.
fn spell(message: &PeerMessage) -> String {
    match message {
        PeerMessage::Raft { log, message, .. } => {
            let entries = message.entries.iter().map(|entry| (entry.index, entry.term)).collect::<Vec<_>>();
            format!(
                "log {log} {:?} term {} at {}/{} commit {} reject {} {entries:?} {:?}",
                message.kind,
                message.term,
                message.index,
                message.log_term,
                message.commit,
                message.reject,
                message.snapshot.as_ref().map(|point| (point.index, point.term)),
            )
        }
        PeerMessage::LogPart { log, offset, batches, .. } => {
            let len = batches.iter().map(|chunk| chunk.body.len()).sum::<usize>();
            format!("part of log {log} from {offset}, {len} bytes")
        }
        other => format!("{other:?}"),
    }
}
