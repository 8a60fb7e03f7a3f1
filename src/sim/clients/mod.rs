//! The clients: small machines that send requests, believe nothing but answers, and tell the model of both.

mod admin;
mod consumer;
mod group;
mod producer;

use std::collections::VecDeque;

use bytes::Bytes;
use kafka_protocol::messages::TopicName;
use kafka_protocol::protocol::{Request, StrBytes};

use super::checkers::Model;
use super::rng::Rng;
use super::wire;

pub(super) use admin::{Creator, Watcher};
pub(super) use consumer::Consumer;
pub(super) use group::Member;
pub(super) use producer::{Manner, Producer};

/// Milliseconds that the broker may take for an answer that waits for nothing.
const AT_ONCE_MS: i64 = 0;

/// What a client wants of the network and the clock.
pub(super) enum Action {
    /// Connect to a shard of chance; [`Client::connected`] follows when it worked, [`Client::closed`] when not.
    Connect,
    /// Close the connection. [`Client::closed`] is not called.
    Close,
    /// Send a request, which must have been answered after this many milliseconds.
    Send { frame: Vec<u8>, answer_within_ms: i64 },
    /// Call [`Client::wake`] then, at the latest.
    WakeAt(u64),
}

/// What a client works with while it has its turn.
pub(super) struct Context<'a> {
    /// Microseconds of virtual time.
    pub(super) now: u64,
    /// Milliseconds since the Unix epoch, as the client's clock has it.
    pub(super) wall_ms: i64,
    pub(super) rng: &'a mut Rng,
    pub(super) model: &'a mut Model,
    pub(super) actions: Vec<Action>,
}

impl Context<'_> {
    fn wake_in(&mut self, micros: u64) {
        self.actions.push(Action::WakeAt(self.now + micros));
    }
}

/// A client with one connection at a time.
pub(super) trait Client {
    /// A moment that it asked for has come.
    fn wake(&mut self, cx: &mut Context<'_>);

    /// The connection that it asked for is there.
    fn connected(&mut self, cx: &mut Context<'_>);

    /// A response frame has come.
    fn answered(&mut self, cx: &mut Context<'_>, frame: Bytes);

    /// The connection is gone, or could not be made.
    fn closed(&mut self, cx: &mut Context<'_>);

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

impl<P> Default for Link<P> {
    fn default() -> Link<P> {
        Link { state: LinkState::Down, correlation: 0, pending: VecDeque::new() }
    }
}

impl<P> Link<P> {
    /// Whether requests can be sent; connects where that was not done yet.
    fn is_up(&mut self, cx: &mut Context<'_>) -> bool {
        if self.state == LinkState::Down {
            self.state = LinkState::Connecting;
            cx.actions.push(Action::Connect);
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
        cx.actions.push(Action::Send { frame, answer_within_ms: within_ms });
        // Longer than the broker may take and the way there and back.
        let give_up_at = cx.now + (within_ms.max(0) as u64 + 3_000) * 1_000;
        self.pending.push_back(Sent { correlation: self.correlation, give_up_at, purpose });
        cx.actions.push(Action::WakeAt(give_up_at));
    }

    /// A request that nobody answers.
    fn send_only<R: Request>(&mut self, cx: &mut Context<'_>, version: i16, body: &R) {
        self.correlation += 1;
        let frame = wire::request(version, self.correlation, body);
        cx.actions.push(Action::Send { frame, answer_within_ms: 0 });
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
        cx.actions.push(Action::Close);
        Some(self.closed())
    }
}

fn topic_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}
