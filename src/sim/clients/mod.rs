//! The clients: small machines that send requests, believe nothing but answers, and tell the model of both.

mod admin;
mod consumer;
mod deleter;
mod elector;
mod errand;
mod group;
mod mover;
mod pair;
mod producer;

use std::collections::VecDeque;

use bytes::Bytes;
use kafka_protocol::messages::TopicName;
use kafka_protocol::protocol::{Request, StrBytes};

use super::checkers::{Model, Part};
use super::rng::Rng;
use super::wire;

pub(super) use admin::{Creator, Watcher};
pub(super) use consumer::Consumer;
pub(super) use deleter::Deleter;
pub(super) use elector::Elector;
pub(super) use group::Member;
pub(super) use mover::Mover;
pub(super) use pair::Pair;
pub(super) use producer::{Manner, Producer};

/// Milliseconds that the broker may take for an answer that waits for nothing.
const AT_ONCE_MS: i64 = 0;

/// What a client wants of the network and the clock.
pub(super) enum Action {
    /// Connect to a shard of chance of a broker; [`Client::connected`] follows when it worked, [`Client::closed`] when
    /// not.
    Connect { broker: usize },
    /// Close the connection to a broker. [`Client::closed`] is not called.
    Close { broker: usize },
    /// Send a request to a broker, which must have answered it after this many milliseconds.
    Send { broker: usize, frame: Vec<u8>, answer_within_ms: i64 },
    /// Call [`Client::wake`] then, at the latest.
    WakeAt(u64),
}

/// What a client works with while it has its turn.
pub(super) struct Context<'a> {
    /// Microseconds of virtual time.
    pub(super) now: u64,
    /// Milliseconds since the Unix epoch, as the client's clock has it.
    pub(super) wall_ms: i64,
    /// Brokers of the cluster, numbered from 0.
    pub(super) brokers: usize,
    pub(super) rng: &'a mut Rng,
    pub(super) model: &'a mut Model,
    pub(super) actions: Vec<Action>,
}

impl Context<'_> {
    fn wake_in(&mut self, micros: u64) {
        self.actions.push(Action::WakeAt(self.now + micros));
    }

    /// A broker of chance. Nothing is drawn where there is only one.
    fn any_broker(&mut self) -> usize {
        if self.brokers == 1 { 0 } else { self.rng.below(self.brokers as u64) as usize }
    }

    /// The broker that leads a partition, as far as clients were told, and the epoch in which it does.
    fn leader(&self, part: &Part) -> Option<(usize, i32)> {
        if self.brokers == 1 { Some((0, -1)) } else { self.model.leader(part) }
    }
}

/// A client with one connection to a broker at a time.
pub(super) trait Client {
    /// A moment that it asked for has come.
    fn wake(&mut self, cx: &mut Context<'_>);

    /// The connection to a broker that it asked for is there.
    fn connected(&mut self, cx: &mut Context<'_>, broker: usize);

    /// A response frame of a broker has come.
    fn answered(&mut self, cx: &mut Context<'_>, broker: usize, frame: Bytes);

    /// The connection to a broker is gone, or could not be made.
    fn closed(&mut self, cx: &mut Context<'_>, broker: usize);

    /// Whether the broker may close its connection: it refuses in no other way what asked for no answer.
    fn asks_for_no_answer(&self) -> bool {
        false
    }

    /// Faults are over: begin nothing new, end what is begun.
    fn settle(&mut self, now: u64);

    /// Whether everything that was begun has ended.
    fn is_settled(&self, model: &Model) -> bool;

    /// What it waits for, for the message when it waits for ever.
    fn state(&self) -> String;
}

/// A client's side of its connection: what was sent and is not answered yet.
struct Link<P> {
    /// The broker that it goes to.
    broker: usize,
    /// Whether each new connection goes to a broker of chance.
    roams: bool,
    state: LinkState,
    correlation: i32,
    pending: VecDeque<Sent<P>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum LinkState {
    Down,
    Connecting,
    Up,
}

/// A request under way.
struct Sent<P> {
    correlation: i32,
    /// When the client gives the connection up, in microseconds of virtual time.
    give_up_at: u64,
    purpose: P,
}

/// A client's connections, at most one to each broker.
struct Links<P>(Vec<Link<P>>);

impl<P> Default for Links<P> {
    fn default() -> Links<P> {
        Links(Vec::new())
    }
}

impl<P> Links<P> {
    fn at(&mut self, broker: usize) -> &mut Link<P> {
        while self.0.len() <= broker {
            self.0.push(Link::to(self.0.len()));
        }
        &mut self.0[broker]
    }

    /// Requests that are not answered.
    fn pending(&self) -> usize {
        self.0.iter().map(|link| link.pending.len()).sum()
    }
}

impl<P> Link<P> {
    /// A link to this broker.
    fn to(broker: usize) -> Link<P> {
        Link { broker, roams: false, state: LinkState::Down, correlation: 0, pending: VecDeque::new() }
    }

    /// A link to whichever broker is chosen for each connection.
    fn roaming() -> Link<P> {
        Link { roams: true, ..Link::to(0) }
    }

    /// Whether requests can be sent; connects where that was not done yet.
    fn is_up(&mut self, cx: &mut Context<'_>) -> bool {
        if self.state == LinkState::Down {
            self.state = LinkState::Connecting;
            if self.roams {
                self.broker = cx.any_broker();
            }
            cx.actions.push(Action::Connect { broker: self.broker });
        }
        self.state == LinkState::Up
    }

    fn connected(&mut self) {
        assert_eq!(self.state, LinkState::Connecting, "nobody asked for a connection");
        self.state = LinkState::Up;
    }

    fn send<R: Request>(&mut self, cx: &mut Context<'_>, version: i16, body: &R, within_ms: i64, purpose: P) {
        self.correlation += 1;
        let frame = wire::request(version, self.correlation, body);
        cx.actions.push(Action::Send { broker: self.broker, frame, answer_within_ms: within_ms });
        // Longer than the broker may take and the way there and back.
        let give_up_at = cx.now + (within_ms.max(0) as u64 + 3_000) * 1_000;
        self.pending.push_back(Sent { correlation: self.correlation, give_up_at, purpose });
        cx.actions.push(Action::WakeAt(give_up_at));
    }

    /// A request that nobody answers.
    fn send_only<R: Request>(&mut self, cx: &mut Context<'_>, version: i16, body: &R) {
        self.correlation += 1;
        let frame = wire::request(version, self.correlation, body);
        cx.actions.push(Action::Send { broker: self.broker, frame, answer_within_ms: 0 });
    }

    /// The request that a response belongs to.
    fn answered(&mut self, frame: &Bytes) -> P {
        let sent = self.pending.pop_front().unwrap_or_else(|| panic!("protocol: a response that nobody waits for"));
        let correlation = wire::correlation(frame);
        assert_eq!(correlation, sent.correlation, "protocol: responses out of order");
        sent.purpose
    }

    /// What was under way when the connection went.
    fn closed(&mut self) -> Vec<P> {
        self.state = LinkState::Down;
        self.pending.drain(..).map(|sent| sent.purpose).collect()
    }

    /// Closes the connection when an answer is overdue or `anyway`; says what was under way then.
    fn give_up(&mut self, cx: &mut Context<'_>, anyway: bool) -> Option<Vec<P>> {
        let overdue = self.pending.front().is_some_and(|sent| sent.give_up_at <= cx.now);
        if self.state != LinkState::Up || !(overdue || anyway) {
            return None;
        }
        cx.actions.push(Action::Close { broker: self.broker });
        Some(self.closed())
    }
}

fn topic_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}

/// The place of a broker in the simulation, by its id.
fn broker_index(id: i32, brokers: usize) -> usize {
    if brokers == 1 {
        return 0;
    }
    let index = usize::try_from(id - 1).ok().filter(|index| *index < brokers);
    index.unwrap_or_else(|| panic!("protocol: broker {id} leads, which there is not"))
}
