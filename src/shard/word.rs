//! Where partitions are led is told to a client when the brokers that lead them have given word of late.
//!
//! A client that loses its connection to a broker asks another where to go, at once. That one may hear some milliseconds later
//! that the broker is gone; a client that is sent back there looks again only after a second. So brokers that were silent
//! for more than a moment are hailed first, and the answer waits for their word, a short time.

use std::collections::VecDeque;

use kafka_protocol::messages::MetadataRequest;

use super::Shard;
use super::requests::{Kind, Origin, Pending};
use crate::limits::{WORD_FRESH_MS, WORD_MS};
use crate::peer::PeerMessage;
use crate::types::{BrokerId, Deadline, Mono, Now};

/// Requests that wait for word of other brokers, and since when, in order.
pub(super) type Hailed = VecDeque<(Mono, u64)>;

impl Shard {
    /// Answers a client that asks where partitions are, as soon as that is known.
    pub(super) fn locate(&mut self, now: Now, origin: Origin, request: MetadataRequest) {
        let silent: Vec<_> = self.silent_at(now.mono).collect();
        if silent.is_empty() {
            return self.respond_metadata(origin, &request);
        }
        for peer in silent {
            self.peers.send(peer, PeerMessage::Hail);
        }
        let deadline = Deadline::after_millis(now, WORD_MS);
        let number = self.requests.insert(Pending { origin, deadline, kind: Kind::Locate(Box::new(request)) });
        self.hailed.push_back((now.mono, number));
    }

    /// The brokers that count as there and of which nothing had come for a moment at that time, or since.
    fn silent_at(&self, time: Mono) -> impl Iterator<Item = BrokerId> + '_ {
        let silent = move |heard: Mono| heard.plus_millis(WORD_FRESH_MS) < time;
        self.peers.alive().filter(move |peer| self.peers.heard(*peer).is_none_or(silent))
    }

    /// Something came from another broker, or it is gone: whoever waits for nobody else any more is answered.
    pub(super) fn word_came(&mut self, now: Now) {
        while let Some((since, number)) = self.hailed.front().copied() {
            if self.requests.get(number).is_some() && self.silent_at(since).next().is_some() {
                return;
            }
            self.hailed.pop_front();
            self.finish(now, number);
        }
    }
}
