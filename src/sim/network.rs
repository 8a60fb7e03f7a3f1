//! The network between brokers: ordered connections that break, hang and come back.
//!
//! Each shard of a broker has a connection to each other broker, on which messages go one way. What comes out of it at
//! the other end is a part of what went in, without gaps before its end, and nothing of it comes once a newer one was
//! made.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::broker::{Actor, Broker, FIRST_BROKERS, Input, broker_id};
use super::faults::Cut;
use super::world::{What, World};
use crate::limits::{PEER_RETRY_MOST_MS, PEER_RETRY_MS, PEER_UNACKED_MS};
use crate::peer::{FRAME_HEADER_BYTES, FrameHeader};
use crate::shard::Event;

/// The sending broker, its shard, and the receiving broker.
pub(super) type LinkKey = (usize, u16, usize);

/// A connection between brokers.
#[derive(Default)]
struct Link {
    up: bool,
    /// Counts the connections that there were.
    session: u64,
    /// What is on its way on the last connection is lost.
    lost: bool,
    /// The life of the receiving process that it was made to.
    receiver_life: u64,
    receiver_shard: u16,
    /// When the last frame arrives.
    arrival: u64,
    /// Frames that hang in a cut.
    held: Vec<(FrameHeader, Bytes)>,
}

/// All connections between brokers.
#[derive(Default)]
pub(super) struct Network {
    links: BTreeMap<LinkKey, Link>,
    /// Directions in which nothing arrives, with the end of that.
    cuts: BTreeMap<(usize, usize), u64>,
}

impl Network {
    fn is_cut(&self, from: usize, to: usize) -> bool {
        self.cuts.contains_key(&(from, to))
    }
}

impl World {
    /// A process has started: its shards connect to the brokers that the cluster began with.
    pub(super) fn begin_links(&mut self, from: usize, shards: u16) {
        for to in (0..self.nodes.len().min(FIRST_BROKERS)).filter(|to| *to != from) {
            for shard in 0..shards {
                self.connect_soon((from, shard, to), 100, 2_000);
            }
        }
    }

    /// A shard knows of another broker.
    pub(super) fn reach_peer(&mut self, key: LinkKey) {
        // The others are connected to from the start.
        if key.2 >= FIRST_BROKERS {
            self.connect_soon(key, 100, 2_000);
        }
    }

    fn connect_soon(&mut self, key: LinkKey, least: u64, most: u64) {
        let at = self.now + self.rng.between(least, most);
        let life = self.nodes[key.0].life;
        self.at(at, What::PeerConnect { life, key });
    }

    pub(super) fn peer_connect(&mut self, life: u64, key: LinkKey) {
        let (from, shard, to) = key;
        if self.nodes[from].life != life || self.network.links.get(&key).is_some_and(|link| link.up) {
            return;
        }
        let (sender, receiver) = (&self.nodes[from], &self.nodes[to]);
        // Both sides know each other by their data directories; here, they are never changed.
        let trusts = |one: &super::node::Node, other: &super::node::Node| {
            one.known.get(&other.config.broker_id).is_none_or(|known| *known == other.config.directory_id)
        };
        assert!(trusts(sender, receiver) && trusts(receiver, sender), "a broker is taken for another one");
        let cut = self.network.is_cut(from, to) || self.network.is_cut(to, from);
        let shards = receiver.broker.as_ref().map(Broker::shards);
        let awake = self.now >= receiver.paused_until && self.now >= sender.paused_until;
        let Some(shards) = shards.filter(|_| awake && !cut) else {
            return self.connect_soon(key, PEER_RETRY_MS * 1_000, PEER_RETRY_MOST_MS * 1_000);
        };
        let receiver_life = receiver.life;
        let link = self.network.links.entry(key).or_default();
        link.up = true;
        link.session += 1;
        link.lost = false;
        link.receiver_life = receiver_life;
        link.receiver_shard = shard % shards;
        link.held.clear();
        self.trace.note(self.now, "link up", from as u64, to as u64);
        self.trace.line(self.now, || format!("broker {from} shard {shard} is connected to broker {to}"));
        let event = Event::PeerUp { peer: broker_id(to) };
        self.deliver(from, Actor::Shard(shard), Input::Event(event));
    }

    /// Frames back to back go out to another broker, if there is a connection.
    pub(super) fn send_to_peer(&mut self, key: LinkKey, mut bytes: Bytes) {
        let (now, delay) = (self.now, self.plan.net_micros(&mut self.rng));
        let Some(link) = self.network.links.get_mut(&key).filter(|link| link.up) else { return };
        let mut frames = Vec::new();
        while !bytes.is_empty() {
            let header = bytes.split_to(FRAME_HEADER_BYTES);
            let header = header[..].try_into().expect("a header has its length");
            let header = FrameHeader::decode(header).expect("a broker sends frames that can be read");
            let frame = bytes.split_to(header.body_len());
            frames.push((header, frame));
        }
        link.arrival = link.arrival.max(now + delay);
        let (at, session, life) = (link.arrival, link.session, link.receiver_life);
        for (header, frame) in frames {
            self.at(at, What::PeerFrame { key, session, life, header, frame });
        }
    }

    pub(super) fn peer_frame_arrived(
        &mut self,
        key: LinkKey,
        session: u64,
        life: u64,
        header: FrameHeader,
        frame: Bytes,
    ) {
        let (from, _, to) = key;
        let cut = self.network.is_cut(from, to);
        let Some(link) = self.network.links.get_mut(&key) else { return };
        if link.session != session || link.lost || self.nodes[to].life != life {
            return;
        }
        if cut || !link.held.is_empty() {
            return link.held.push((header, frame));
        }
        let shard = link.receiver_shard;
        let event = Event::Peer { from: broker_id(from), header, frame };
        self.deliver(to, Actor::Shard(shard), Input::Event(event));
    }

    /// What was sent into a cut was not acknowledged for long: the sender gives up, where the cut still lasts.
    pub(super) fn peer_unacked(&mut self, key: LinkKey, session: u64) {
        if self.network.is_cut(key.0, key.2) {
            self.peer_broken(key, session);
        }
    }

    /// The sender notices that a connection is lost.
    pub(super) fn peer_broken(&mut self, key: LinkKey, session: u64) {
        let (from, shard, to) = key;
        let Some(link) = self.network.links.get_mut(&key) else { return };
        if link.session != session || !link.up {
            return;
        }
        link.up = false;
        link.lost = !link.held.is_empty() || self.rng.one_in(2);
        self.trace.note(self.now, "link down", from as u64, to as u64);
        self.trace.line(self.now, || format!("broker {from} shard {shard} has lost its connection to broker {to}"));
        let event = Event::PeerDown { peer: broker_id(to) };
        self.deliver(from, Actor::Shard(shard), Input::Event(event));
        self.connect_soon(key, PEER_RETRY_MS * 1_000, PEER_RETRY_MOST_MS * 1_000);
    }

    fn keys(&self, wanted: impl Fn(usize, usize) -> bool) -> Vec<(LinkKey, u64)> {
        let links = self.network.links.iter().filter(|((from, _, to), link)| link.up && wanted(*from, *to));
        links.map(|(key, link)| (*key, link.session)).collect()
    }

    /// The process of a broker is gone, with its side of all connections.
    pub(super) fn lose_links(&mut self, gone: usize) {
        if self.nodes.len() == 1 {
            return;
        }
        for (key, _) in self.keys(|from, _| from == gone) {
            let lost = self.rng.one_in(2);
            let link = self.network.links.get_mut(&key).expect("it is there");
            link.up = false;
            link.lost = lost || !link.held.is_empty();
        }
        // Its kernel says so at once, or is gone as well.
        let most = if self.rng.one_in(4) { PEER_UNACKED_MS * 1_000 } else { 50_000 };
        for (key, session) in self.keys(|_, to| to == gone) {
            let at = self.now + self.rng.between(50, most);
            self.at(at, What::PeerBroken { key, session });
        }
    }

    /// What a broker sends does not arrive for a while.
    pub(super) fn cut(&mut self, from: usize, to: Option<usize>, manner: Cut, micros: u64) {
        let until = self.now + micros;
        for other in (0..self.nodes.len()).filter(|other| *other != from && to.is_none_or(|to| to == *other)) {
            let mut directions = vec![(from, other)];
            if manner.both {
                directions.push((other, from));
            }
            for (from, to) in directions {
                let known = self.network.cuts.entry((from, to)).or_default();
                *known = until.max(*known);
                self.at(until, What::CutOver { from, to });
                for (key, session) in self.keys(|a, b| (a, b) == (from, to)) {
                    match manner.resets {
                        true => self.at(self.now + 1, What::PeerBroken { key, session }),
                        false => self.at(self.now + PEER_UNACKED_MS * 1_000, What::PeerUnacked { key, session }),
                    }
                }
            }
        }
    }

    /// A cut may be over: what hung in it arrives.
    pub(super) fn cut_over(&mut self, from: usize, to: usize) {
        if self.network.cuts.get(&(from, to)).is_none_or(|until| *until > self.now) {
            return;
        }
        self.network.cuts.remove(&(from, to));
        for (key, _) in self.keys(|a, b| (a, b) == (from, to)) {
            let link = self.network.links.get_mut(&key).expect("it is there");
            let (held, shard, life) = (std::mem::take(&mut link.held), link.receiver_shard, link.receiver_life);
            for (header, frame) in held {
                if self.nodes[to].life == life {
                    let event = Event::Peer { from: broker_id(from), header, frame };
                    self.deliver(to, Actor::Shard(shard), Input::Event(event));
                }
            }
        }
    }

    /// All cuts are over, and who sends to a process that is gone learns of it: later it would be a fault of the calm.
    pub(super) fn heal_network(&mut self) {
        for (key, session) in self.keys(|_, _| true) {
            let link = &self.network.links[&key];
            if self.nodes[key.2].life != link.receiver_life {
                self.at(self.now + 1, What::PeerBroken { key, session });
            }
        }
        let cuts: Vec<(usize, usize)> = self.network.cuts.keys().copied().collect();
        for (from, to) in cuts {
            self.network.cuts.insert((from, to), self.now);
            self.cut_over(from, to);
        }
    }
}
