//! What brokers of a cluster say to each other, and how it lies in frames.
//!
//! A broker has a connection to each other broker for each of its shards; messages go one way on it, in order. What
//! was sent on a connection that was lost may not have come; nothing comes of it once a later one was greeted.

use bytes::Bytes;

use crate::consensus::Message;
use crate::log::Chunk;
use crate::types::{BrokerId, LeaderEpoch, LogId, Offset, PeerAddress};

mod hello;
mod wire;

pub use hello::{Hello, HelloError, Refusal, Welcome};
pub use wire::{FRAME_HEADER_BYTES, FrameHeader, WireError, decode, encode};

/// The version of greetings and frames that this broker speaks, and the only one.
const VERSION: u16 = 3;

/// A message to another broker.
#[derive(Clone, Debug)]
pub enum PeerMessage {
    /// From a replica of a log to another.
    Raft {
        /// The log.
        log: LogId,
        /// The message.
        message: Message,
        /// What lies beside each entry of the message; empty where nothing does.
        beside: Vec<Chunk>,
    },
    /// Logs that the sender leads, with their epochs.
    Leaders(Vec<(LogId, LeaderEpoch)>),
    /// Logs that the sender leads and lets rest, with their terms and the index that all replicas hold: their followers
    /// hear nothing until something happens, and need not wonder.
    Rest(Vec<(LogId, u64, u64)>),
    /// All shards of the sender show the metadata's command at `index`.
    Applied {
        /// The index.
        index: u64,
    },
    /// Work for the coordinator.
    Ask {
        /// The sender's shard that asks, and its number for the question.
        shard: u16,
        /// See `shard`.
        number: u64,
        /// Milliseconds until nobody waits for the reply any more.
        time_left_ms: u32,
        /// The question.
        question: Bytes,
    },
    /// The coordinator's reply.
    Told {
        /// As in the [`PeerMessage::Ask`].
        shard: u16,
        /// As in the [`PeerMessage::Ask`].
        number: u64,
        /// The reply.
        reply: Bytes,
    },
    /// Replicas of logs that the sender leads which are not in sync.
    Lagging(Vec<Lagging>),
    /// How the sender is; comes all the time, so that silence means something.
    Status(Status),
    /// Whether the receiver is there: it answers with its status, at once.
    Hail,
    /// Where the sender and the others that it knows listen for brokers; comes when a connection is there. So those that
    /// join, or do not know yet who has joined, can be answered.
    Addresses(Vec<PeerAddress>),
    /// A replica whose log ends where the leader's entries are gone asks for the records themselves; so does one that cannot
    /// read its own any more, of the leader or another.
    FetchLog {
        /// The log.
        log: LogId,
        /// The first record wanted.
        offset: Offset,
        /// The offset after the last record wanted.
        end: Offset,
    },
    /// The receiver leads the log, and another replica should.
    HandOver {
        /// The log.
        log: LogId,
        /// The broker that should lead it.
        to: BrokerId,
    },
    /// Records for a [`PeerMessage::FetchLog`]: whole batches from `offset` on, none where the sender has none before
    /// `offset`.
    LogPart {
        /// The log.
        log: LogId,
        /// As asked for.
        offset: Offset,
        /// Where the sender's log begins: what it lacks before that was deleted, what it lacks later was compacted.
        start: Offset,
        /// The batches, back to back.
        batches: Vec<Chunk>,
    },
}

/// How a disk takes writes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, serde::Serialize, serde::Deserialize)]
pub enum DiskState {
    /// In time.
    #[default]
    Well,
    /// None was durable for half of the lease: it may be about to hang, and is given no leaderships.
    Slow,
    /// None was durable for the whole lease, or there is no room for any.
    Hangs,
    /// It has failed a write, and takes none until the broker is started again.
    Failed,
}

/// The replicas of a log that are not in sync, though their brokers may be there.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Lagging {
    /// The log.
    pub log: LogId,
    /// The epoch of the leader that says so.
    pub epoch: LeaderEpoch,
    /// The brokers that have them; none where all are in sync.
    pub brokers: Vec<BrokerId>,
}

/// How a broker is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Status {
    /// Whether its disk took writes for so long now that it may lead.
    pub leads: bool,
    /// How its disk takes writes just now.
    pub disk: DiskState,
    /// The last command of the metadata that it has applied.
    pub applied: u64,
    /// The hash of the metadata's state after that command.
    pub hash: u64,
}
