//! A shard's connections: requests may be answered in any order, responses go out in the order of the requests.

use std::collections::{BTreeSet, VecDeque};
use std::net::IpAddr;

use bytes::Bytes;
use smallvec::SmallVec;

use super::event::Effect;
use super::sessions::Sessions;
use crate::metrics::ShardMetrics;
use crate::types::{ConnId, Map, Mono, Now};

/// The bytes of a response, in pieces; no pieces at all where the request wants none (acks=0).
pub type Response = SmallVec<[Bytes; 4]>;

/// Where the response to a request belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// The connection.
    pub conn: ConnId,
    /// The request's number on it.
    pub number: u64,
}

/// A request that is not answered, or whose answer waits for those before it.
struct Place {
    /// The place of its API in the table of those that the broker answers.
    api: usize,
    /// When its frame was there.
    since: Mono,
    /// The answer, and since when it is there.
    response: Option<(Response, Mono)>,
}

/// One client.
struct Connection {
    peer: IpAddr,
    /// The number of the first slot.
    first: u64,
    slots: VecDeque<Place>,
    sessions: Sessions,
    /// Until when no further request is taken.
    muted_until: Mono,
    /// Requests that came meanwhile; the driver reads no more than so many ahead.
    held: VecDeque<Bytes>,
}

/// All clients of a shard.
#[derive(Default)]
pub struct Connections {
    by_id: Map<ConnId, Connection>,
    unanswered: usize,
    /// Connections that hold requests back, by when they do so no longer.
    holding: BTreeSet<(Mono, ConnId)>,
}

impl Connections {
    /// A client has come.
    pub fn open(&mut self, conn: ConnId, peer: IpAddr) {
        let connection = Connection {
            peer,
            first: 0,
            slots: VecDeque::new(),
            sessions: Sessions::default(),
            muted_until: Mono::default(),
            held: VecDeque::new(),
        };
        let before = self.by_id.insert(conn, connection);
        assert!(before.is_none(), "connection numbers are used once");
    }

    /// A client has gone; what is answered on its requests later is dropped.
    pub fn close(&mut self, conn: ConnId) {
        if let Some(connection) = self.by_id.remove(&conn) {
            self.unanswered -= connection.slots.len();
            self.holding.remove(&(connection.muted_until, conn));
        }
    }

    /// Takes no further request of a client until then.
    pub fn mute(&mut self, conn: ConnId, until: Mono) {
        let Some(connection) = self.by_id.get_mut(&conn) else { return };
        if connection.muted_until < until {
            if self.holding.remove(&(connection.muted_until, conn)) {
                self.holding.insert((until, conn));
            }
            connection.muted_until = until;
        }
    }

    /// Keeps a request back where its client is muted, or others of it are kept; gives it back otherwise.
    pub fn hold(&mut self, now: Now, conn: ConnId, frame: Bytes) -> Option<Bytes> {
        let Some(connection) = self.by_id.get_mut(&conn) else { return Some(frame) };
        if connection.held.is_empty() && connection.muted_until <= now.mono {
            return Some(frame);
        }
        connection.held.push_back(frame);
        self.holding.insert((connection.muted_until, conn));
        None
    }

    /// A request that was kept back and is to be taken now.
    pub fn next_held(&mut self, now: Now) -> Option<(ConnId, Bytes)> {
        let (until, conn) = *self.holding.first().filter(|(until, _)| *until <= now.mono)?;
        let held = &mut self.by_id.get_mut(&conn).expect("a connection that holds is open").held;
        let frame = held.pop_front().expect("it holds something");
        if held.is_empty() {
            self.holding.remove(&(until, conn));
        }
        Some((conn, frame))
    }

    /// Whether any request is kept back.
    pub fn any_held(&self) -> bool {
        !self.holding.is_empty()
    }

    /// Nobody is muted any more.
    pub fn end_mutes(&mut self) {
        let conns: Vec<ConnId> = std::mem::take(&mut self.holding).into_iter().map(|(_, conn)| conn).collect();
        self.by_id.values_mut().for_each(|connection| connection.muted_until = Mono::default());
        self.holding.extend(conns.into_iter().map(|conn| (Mono::default(), conn)));
    }

    /// A place in line for the response to a request of the API at this place of the table, which came at `since`;
    /// `None` where the client is gone.
    pub fn next_slot(&mut self, conn: ConnId, api: usize, since: Mono) -> Option<Slot> {
        let connection = self.by_id.get_mut(&conn)?;
        let number = connection.first + connection.slots.len() as u64;
        connection.slots.push_back(Place { api, since, response: None });
        self.unanswered += 1;
        Some(Slot { conn, number })
    }

    /// Puts a response in its place and sends those that are next in line.
    pub fn respond(
        &mut self,
        now: Mono,
        slot: Slot,
        response: Response,
        metrics: &ShardMetrics,
        effects: &mut Vec<Effect>,
    ) {
        let Some(connection) = self.by_id.get_mut(&slot.conn) else { return };
        let at = (slot.number - connection.first) as usize;
        let before = connection.slots[at].response.replace((response, now));
        assert!(before.is_none(), "a request is answered once");
        while let Some(place) = connection.slots.front_mut()
            && let Some((chunks, answered)) = place.response.take()
        {
            let (api, since) = (&metrics.apis[place.api], place.since);
            connection.slots.pop_front();
            connection.first += 1;
            self.unanswered -= 1;
            api.time.observe(now.micros_since(since));
            api.line.observe(now.micros_since(answered));
            metrics.response_bytes.add(chunks.iter().map(|chunk| chunk.len() as u64).sum());
            effects.push(Effect::Respond { conn: slot.conn, chunks });
        }
    }

    /// The client's address as Kafka shows it; empty where the client is gone.
    pub fn host(&self, conn: ConnId) -> String {
        self.by_id.get(&conn).map(|connection| format!("/{}", connection.peer)).unwrap_or_default()
    }

    /// The client's fetch sessions; `None` where it is gone.
    pub fn sessions(&mut self, conn: ConnId) -> Option<&mut Sessions> {
        self.by_id.get_mut(&conn).map(|connection| &mut connection.sessions)
    }

    /// How many clients there are.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// How many requests are not answered, or their answers not sent.
    pub fn unanswered(&self) -> usize {
        self.unanswered
    }

    /// Whether every request was answered.
    pub fn idle(&self) -> bool {
        self.unanswered == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(effects: &[Effect]) -> Vec<&[u8]> {
        effects
            .iter()
            .map(|effect| match effect {
                Effect::Respond { chunks, .. } => &chunks[0][..],
                other => panic!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn responses_leave_in_the_order_of_the_requests() {
        let mut connections = Connections::default();
        let conn = ConnId(1);
        connections.open(conn, [127, 0, 0, 1].into());
        assert_eq!(connections.host(conn), "/127.0.0.1");
        let slots: Vec<Slot> = (1..=3).map(|n| connections.next_slot(conn, 0, Mono(n)).unwrap()).collect();
        let metrics = ShardMetrics::new(["Fetch"], []);
        let mut effects = Vec::new();
        let response = |text: &'static [u8]| SmallVec::from_elem(Bytes::from_static(text), 1);
        connections.respond(Mono(10), slots[1], response(b"b"), &metrics, &mut effects);
        assert!(effects.is_empty());
        connections.respond(Mono(200), slots[0], response(b"a"), &metrics, &mut effects);
        assert_eq!(sent(&effects), [b"a", b"b"]);
        assert!(!connections.idle());
        connections.respond(Mono(200), slots[2], response(b"c"), &metrics, &mut effects);
        assert_eq!(sent(&effects).len(), 3);
        assert!(connections.idle());
        // The second waited for the first, and that is part of its time.
        assert_eq!(metrics.apis[0].time.sum_micros(), 199 + 198 + 197);
        assert_eq!(metrics.apis[0].line.sum_micros(), 190);
        assert_eq!(metrics.response_bytes.get(), 3);
        connections.next_slot(conn, 0, Mono(300)).unwrap();
        connections.close(conn);
        assert!(connections.idle());
        assert_eq!(connections.next_slot(conn, 0, Mono(300)), None);
    }

    #[test]
    fn a_client_that_is_muted_is_heard_later_and_in_order() {
        let at = |mono| Now { mono: Mono(mono), wall_ms: 0 };
        let mut connections = Connections::default();
        let (conn, other) = (ConnId(1), ConnId(2));
        connections.open(conn, [127, 0, 0, 1].into());
        connections.open(other, [127, 0, 0, 1].into());
        let frame = |text: &'static str| Bytes::from_static(text.as_bytes());
        assert!(connections.hold(at(1), conn, frame("a")).is_some());
        connections.mute(conn, Mono(10));
        assert!(!connections.any_held());
        assert!(connections.hold(at(9), conn, frame("b")).is_none());
        assert!(connections.hold(at(9), other, frame("x")).is_some(), "another client is not muted");
        assert!(connections.hold(at(10), conn, frame("c")).is_none(), "behind the one before it");
        assert_eq!(connections.next_held(at(9)), None);
        assert_eq!(connections.next_held(at(10)), Some((conn, frame("b"))));
        connections.mute(conn, Mono(20));
        assert_eq!(connections.next_held(at(19)), None, "muted again by the request before");
        assert_eq!(connections.next_held(at(20)), Some((conn, frame("c"))));
        assert!(!connections.any_held());
        connections.mute(conn, Mono(30));
        connections.hold(at(21), conn, frame("d"));
        connections.end_mutes();
        assert_eq!(connections.next_held(at(21)), Some((conn, frame("d"))));
        connections.mute(conn, Mono(40));
        connections.hold(at(31), conn, frame("e"));
        connections.close(conn);
        assert!(!connections.any_held());
    }
}
