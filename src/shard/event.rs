//! What happens to a shard, and what it wants done. The two drivers (`io` and `sim`) know nothing else of it.

use bytes::Bytes;
use smallvec::SmallVec;

use super::mesh::ShardMessage;
use crate::log::{DiskReply, DiskRequest};
use crate::peer::FrameHeader;
use crate::types::{BrokerId, ConnId, PeerAddress, ShardId};

/// Something that happened.
#[derive(Debug)]
pub enum Event {
    /// A client connected.
    Connected {
        /// The connection's number, unique on this shard while the process lives.
        conn: ConnId,
        /// The client's address, for logs and limits.
        peer: std::net::IpAddr,
    },
    /// A whole request frame came, without its length prefix.
    Request {
        /// The connection it came on.
        conn: ConnId,
        /// Its bytes; the memory is charged to the broker's budget until the last slice of it is dropped.
        frame: Bytes,
    },
    /// The connection is gone; nothing can be sent on it any more.
    Closed {
        /// The connection.
        conn: ConnId,
    },
    /// Another shard of this broker sent something. Messages of one shard come in the order they were sent.
    Mesh {
        /// The sender.
        from: ShardId,
        /// The message.
        message: ShardMessage,
    },
    /// A connection to another broker is there; what is sent from now on goes out on it, in order.
    PeerUp {
        /// The broker.
        peer: BrokerId,
    },
    /// The connection to another broker is lost, and what was sent on it may be.
    PeerDown {
        /// The broker.
        peer: BrokerId,
    },
    /// A frame of another broker. Frames of one of its shards come in the order they were sent.
    Peer {
        /// The sender.
        from: BrokerId,
        /// What the frame says of itself.
        header: FrameHeader,
        /// Its bytes after the header.
        frame: Bytes,
    },
    /// A disk answered.
    Disk {
        /// The answer.
        reply: DiskReply,
    },
    /// Time passed. Comes at least every [`crate::limits::TICK_MS`] while [`super::Shard::busy`], and
    /// at least every [`crate::limits::IDLE_TICK_MS`] otherwise.
    Tick,
    /// The broker is about to stop: what it leads goes to others, as far as they can take it, and clients are served on
    /// until [`super::Shard::has_left`].
    Leave,
    /// The broker is stopping: new records are refused, what is under way is finished.
    Stop,
}

/// Something that a shard wants done. The driver carries effects out in order.
#[derive(Debug)]
pub enum Effect {
    /// Send a response: the pieces back to back, length prefix included. Responses of one connection come in
    /// the order of its requests.
    Respond {
        /// The connection.
        conn: ConnId,
        /// The bytes, shared with the partition's memory where they are records.
        chunks: SmallVec<[Bytes; 4]>,
    },
    /// Close the connection after what was sent before has gone out.
    Close {
        /// The connection.
        conn: ConnId,
        /// Why, for the log.
        reason: String,
    },
    /// Send a message to another shard.
    Mesh {
        /// The receiver, never the shard itself.
        to: ShardId,
        /// The message.
        message: ShardMessage,
    },
    /// Send a frame to another broker, if there is a connection.
    Peer {
        /// The receiver.
        to: BrokerId,
        /// The frame, its header included, back to back.
        chunks: SmallVec<[Bytes; 8]>,
    },
    /// From now on, keep a connection to this other broker, at this address.
    ReachPeer {
        /// The broker and its address.
        peer: PeerAddress,
    },
    /// From now on, another broker is only let in with this data directory.
    KnowPeer {
        /// The broker.
        peer: BrokerId,
        /// The id of its data directory.
        directory_id: [u8; 16],
    },
    /// From now on, talk to this other broker no more.
    ForgetPeer {
        /// The broker.
        peer: BrokerId,
    },
    /// From now on there may be so many connections of clients.
    LimitConnections {
        /// `max.connections`.
        most: usize,
        /// `max.connections.per.ip`.
        most_per_address: usize,
    },
    /// Ask the disk for something.
    Disk {
        /// The request.
        request: DiskRequest,
    },
    /// The broker cannot go on (its own invariant is broken, or metadata cannot be read): stop the process.
    Fatal {
        /// Why.
        reason: String,
    },
}
