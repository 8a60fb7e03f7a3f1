//! The network between clients and brokers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

use super::broker::{Actor, Broker, Input};
use super::clients::{Action, Client, Context};
use super::trace::digest;
use super::world::{What, World};
use crate::limits::DEADLINE_SLACK_MS;
use crate::shard::Event;
use crate::types::ConnId;

/// A connection, as the broker sees it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Conn {
    pub(super) node: usize,
    pub(super) shard: u16,
    pub(super) number: u64,
}

/// What is known of a connection on the broker's side.
pub(super) struct ServerEnd {
    pub(super) client: usize,
    pub(super) link: u64,
    /// Responses that went out, and when the requests that came must be answered.
    pub(super) answered: u64,
    pub(super) due: Vec<u64>,
    pub(super) to_broker: u64,
    pub(super) to_client: u64,
    /// What the client sent before it hung up is lost from here on.
    pub(super) deaf: bool,
}

/// A client, and what the network knows of it.
pub(super) struct Seat {
    pub(super) client: Box<dyn Client>,
    wake_at: Option<u64>,
    /// Its side of a connection to each broker.
    ends: Vec<ClientEnd>,
}

#[derive(Clone, Copy, Default)]
struct ClientEnd {
    /// Number of the connection; older ones are dead.
    link: u64,
    conn: Option<Conn>,
}

impl Seat {
    /// A client that has no connections yet to so many brokers.
    pub(super) fn new(client: Box<dyn Client>, brokers: usize) -> Seat {
        Seat { client, wake_at: None, ends: vec![ClientEnd::default(); brokers] }
    }
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

impl World {
    pub(super) fn connect(&mut self, client: usize, node: usize) {
        let end = &mut self.seats[client].ends[node];
        end.link += 1;
        let link = end.link;
        if !self.nodes[node].is_open() {
            let at = self.now + self.rng.between(5_000, 50_000);
            self.at(at, What::ToClient { client, node, link, frame: None });
            return;
        }
        let shards = self.nodes[node].broker.as_ref().map_or(1, Broker::shards);
        self.next_conn += 1;
        let conn = Conn { node, shard: self.rng.below(u64::from(shards)) as u16, number: self.next_conn };
        self.seats[client].ends[node].conn = Some(conn);
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
        self.deliver(node, Actor::Shard(conn.shard), Input::Event(event));
        self.with_client(client, |client, cx| client.connected(cx, node));
    }

    /// The process of a broker is gone, and so are these connections to it.
    pub(super) fn lose_connections(&mut self, node: usize, gone: BTreeMap<Conn, ServerEnd>) {
        for (_, end) in gone {
            let seat = &mut self.seats[end.client].ends[node];
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
            let (client, link) = (end.client, self.seats[end.client].ends[node].link);
            self.at(at, What::ToClient { client, node, link, frame: None });
        }
    }

    /// Some clients lose their connections to a broker.
    pub(super) fn cut_connections(&mut self, node: usize) {
        for client in 0..self.seats.len() {
            if self.seats[client].ends[node].conn.is_some() && self.rng.one_in(2) {
                self.hang_up(client, node);
                let link = self.seats[client].ends[node].link;
                self.at(self.now + 1, What::ToClient { client, node, link, frame: None });
            }
        }
    }

    /// The client closes its connection; what it sent may still arrive.
    fn hang_up(&mut self, client: usize, node: usize) {
        let seat = &mut self.seats[client].ends[node];
        seat.link += 1;
        let Some(conn) = seat.conn.take() else { return };
        let lost = self.rng.one_in(2);
        let delay = self.rng.between(1, 5_000);
        let Some(end) = self.conns.get_mut(&conn) else { return };
        end.deaf |= lost;
        let at = end.to_broker.max(self.now) + delay;
        self.at(at, What::HungUp { life: self.nodes[node].life, conn });
    }

    pub(super) fn hung_up(&mut self, conn: Conn) {
        if self.conns.remove(&conn).is_some() {
            self.nodes[conn.node].waiting_frames.retain(|(waiting, _, _)| *waiting != conn);
            let event = Event::Closed { conn: ConnId(conn.number) };
            self.deliver(conn.node, Actor::Shard(conn.shard), Input::Event(event));
        }
    }

    pub(super) fn frame_arrived(&mut self, conn: Conn, frame: Vec<u8>, answer_within_ms: i64) {
        if self.conns.get(&conn).is_none_or(|end| end.deaf) {
            return;
        }
        self.nodes[conn.node].waiting_frames.push((conn, frame, answer_within_ms));
        self.admit_waiting(conn.node);
    }

    /// Reads the frames that there is memory for, each connection's in order.
    pub(super) fn admit_waiting(&mut self, place: usize) {
        for (conn, frame, answer_within_ms) in std::mem::take(&mut self.nodes[place].waiting_frames) {
            let node = &mut self.nodes[place];
            let blocked = node.waiting_frames.iter().any(|(waiting, _, _)| *waiting == conn);
            let alive = node.alive.load(Ordering::Relaxed);
            if blocked || alive + frame.len() > self.plan.frame_bytes {
                node.waiting_frames.push((conn, frame, answer_within_ms));
                continue;
            }
            node.alive.fetch_add(frame.len(), Ordering::Relaxed);
            let frame = Bytes::from_owner(CountedFrame { bytes: frame, alive: Arc::clone(&node.alive) });
            let input = Input::Request { conn: ConnId(conn.number), frame, answer_within_ms };
            self.deliver(place, Actor::Shard(conn.shard), input);
        }
    }

    pub(super) fn respond(&mut self, conn: Conn, bytes: Vec<u8>) {
        let delay = self.rng.between(20, 400);
        let Some(end) = self.conns.get_mut(&conn) else { return };
        let due = end.due.get(end.answered as usize).copied();
        let due = due.unwrap_or_else(|| panic!("protocol: a response without a request on {conn:?}"));
        // A process that got no turns could not answer.
        let due = due.max(self.nodes[conn.node].excused_until());
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
        self.at(at, What::ToClient { client, node: conn.node, link, frame });
    }

    pub(super) fn check_answered(&mut self, conn: Conn, number: u64) {
        let Some(end) = self.conns.get(&conn) else { return };
        let excused_until = self.nodes[conn.node].excused_until();
        if end.answered < number && self.now <= excused_until {
            let life = self.nodes[conn.node].life;
            return self.at(excused_until + 1, What::Overdue { life, conn, number });
        }
        if end.answered < number {
            let client = self.seats[end.client].client.state();
            panic!(
                "L1: request {number} on {conn:?} is not answered at its deadline + {DEADLINE_SLACK_MS} ms: {client}"
            );
        }
    }

    pub(super) fn reach_client(&mut self, client: usize, node: usize, link: u64, frame: Option<Bytes>) {
        if self.seats[client].ends[node].link != link {
            return;
        }
        match frame {
            Some(frame) => self.with_client(client, |client, cx| client.answered(cx, node, frame)),
            None => {
                self.seats[client].ends[node].conn = None;
                self.with_client(client, |client, cx| client.closed(cx, node));
            }
        }
    }

    // The clients.

    pub(super) fn wake_client(&mut self, client: usize, at: u64) {
        let seat = &mut self.seats[client];
        if seat.wake_at.is_none_or(|known| at < known) {
            seat.wake_at = Some(at);
            self.at(at, What::Wake { client });
        }
    }

    pub(super) fn client_woken(&mut self, client: usize) {
        if self.seats[client].wake_at.is_some_and(|at| at <= self.now) {
            self.seats[client].wake_at = None;
            self.with_client(client, |client, cx| client.wake(cx));
        }
    }

    fn with_client(&mut self, number: usize, act: impl FnOnce(&mut dyn Client, &mut Context<'_>)) {
        // A single broker's clock is its clients' too, so that they agree on what is far in the past.
        let brokers = self.nodes.len();
        let skew_ms = if brokers == 1 { self.nodes[0].wall_skew_ms } else { 0 };
        let mut cx = Context {
            now: self.now,
            wall_ms: self.wall_ms() + skew_ms,
            brokers,
            rng: &mut self.rng,
            model: &mut self.model,
            actions: Vec::new(),
        };
        act(&mut *self.seats[number].client, &mut cx);
        for action in cx.actions {
            match action {
                Action::WakeAt(at) => self.wake_client(number, at.max(self.now + 1)),
                Action::Connect { broker } => {
                    let at = self.now + self.rng.between(50, 2_000);
                    self.at(at, What::Connect { client: number, node: broker });
                }
                Action::Close { broker } => self.hang_up(number, broker),
                Action::Send { broker, frame, answer_within_ms } => {
                    let delay = self.rng.between(20, 400);
                    let Some(conn) = self.seats[number].ends[broker].conn else { continue };
                    let Some(end) = self.conns.get_mut(&conn) else { continue };
                    end.to_broker = end.to_broker.max(self.now + delay);
                    let at = end.to_broker;
                    self.trace.note(self.now, "send", conn.number, digest(&frame));
                    let life = self.nodes[broker].life;
                    self.at(at, What::Frame { life, conn, frame, answer_within_ms });
                }
            }
        }
    }
}
