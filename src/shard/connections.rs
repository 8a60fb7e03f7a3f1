//! A shard's connections: requests may be answered in any order, responses go out in the order of the requests.

use std::collections::VecDeque;
use std::net::IpAddr;

use bytes::Bytes;
use smallvec::SmallVec;

use super::event::Effect;
use super::sessions::Sessions;
use crate::types::{ConnId, Map};

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

/// One client.
struct Connection {
    peer: IpAddr,
    /// The number of the first slot.
    first: u64,
    slots: VecDeque<Option<Response>>,
    sessions: Sessions,
}

/// All clients of a shard.
#[derive(Default)]
pub struct Connections {
    by_id: Map<ConnId, Connection>,
    unanswered: usize,
}

impl Connections {
    /// A client has come.
    pub fn open(&mut self, conn: ConnId, peer: IpAddr) {
        let connection = Connection { peer, first: 0, slots: VecDeque::new(), sessions: Sessions::default() };
        let before = self.by_id.insert(conn, connection);
        assert!(before.is_none(), "connection numbers are used once");
    }

    /// A client has gone; what is answered on its requests later is dropped.
    pub fn close(&mut self, conn: ConnId) {
        if let Some(connection) = self.by_id.remove(&conn) {
            self.unanswered -= connection.slots.len();
        }
    }

    /// A place in line for the response to a request; `None` where the client is gone.
    pub fn next_slot(&mut self, conn: ConnId) -> Option<Slot> {
        let connection = self.by_id.get_mut(&conn)?;
        let number = connection.first + connection.slots.len() as u64;
        connection.slots.push_back(None);
        self.unanswered += 1;
        Some(Slot { conn, number })
    }

    /// Puts a response in its place and sends those that are next in line.
    pub fn respond(&mut self, slot: Slot, response: Response, effects: &mut Vec<Effect>) {
        let Some(connection) = self.by_id.get_mut(&slot.conn) else { return };
        let at = (slot.number - connection.first) as usize;
        assert!(connection.slots[at].is_none(), "a request is answered once");
        connection.slots[at] = Some(response);
        while let Some(Some(_)) = connection.slots.front() {
            let chunks = connection.slots.pop_front().flatten().expect("the front is answered");
            connection.first += 1;
            self.unanswered -= 1;
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
        let slots: Vec<Slot> = (0..3).map(|_| connections.next_slot(conn).unwrap()).collect();
        let mut effects = Vec::new();
        let response = |text: &'static [u8]| SmallVec::from_elem(Bytes::from_static(text), 1);
        connections.respond(slots[1], response(b"b"), &mut effects);
        assert!(effects.is_empty());
        connections.respond(slots[0], response(b"a"), &mut effects);
        assert_eq!(sent(&effects), [b"a", b"b"]);
        assert!(!connections.idle());
        connections.respond(slots[2], response(b"c"), &mut effects);
        assert_eq!(sent(&effects).len(), 3);
        assert!(connections.idle());
        connections.next_slot(conn).unwrap();
        connections.close(conn);
        assert!(connections.idle());
        assert_eq!(connections.next_slot(conn), None);
    }
}
