//! The driver on Linux, and the only code that names glommio or io_uring: executors, sockets, files and clocks around
//! the core.
//!
//! One glommio executor a shard, pinned to a core, with its connections ([`driver`], [`connection`], [`listener`]).
//! One thread for the disk with a ring of its own ([`disk`]): a shard never touches a file, because a file system
//! that stalls holds up the thread that asks it for something. Mailboxes between them ([`mailbox`]). Connections to and
//! from other brokers ([`peers`], [`peer_link`], [`peer_reader`]). The page, metrics and health for whoever watches, on threads
//! of their own ([`http`]). [`run`] puts it all together; [`wal_bench`] runs the disk's part alone.

pub mod probe;

mod admission;
mod alarm;
mod clock;
mod connection;
mod disk;
mod driver;
mod files;
mod frames;
mod http;
mod identity;
mod listener;
mod mailbox;
mod memory;
mod patience;
mod peer_link;
mod peer_reader;
mod peers;
mod rouse;
mod run;
mod signal;
mod slice;
mod wal_bench;

pub use identity::{IdentityError, lock_data_dir, random_bytes};
pub use run::{RunError, run};
pub use wal_bench::{WalBandwidth, WalBenchError, wal_bandwidth};

use std::sync::mpsc::SyncSender;

use glommio::net::AcceptedTcpStream;

use self::admission::Place;
use crate::log::DiskReply;
use crate::peer::Hello;
use crate::shard::mesh::ShardMessage;
use crate::shard::view::{Look, Seen};
use crate::types::ShardId;

/// What a shard is sent by the broker's other threads.
enum Incoming {
    /// A message of another shard.
    Mesh {
        /// The sender.
        from: ShardId,
        /// The message.
        message: ShardMessage,
    },
    /// An answer of the disk.
    Disk(DiskReply),
    /// A connection that another shard has accepted.
    Connection(AcceptedTcpStream, Place),
    /// A connection of another broker that another shard has greeted.
    Peer(AcceptedTcpStream, Hello),
    /// Somebody looks at the shard from outside. The channel has room for the answers of all shards.
    Look(Look, SyncSender<(ShardId, Seen)>),
}

/// What the main thread is told.
enum Report {
    /// A shard can serve clients.
    Ready,
    /// A shard of a broker that is about to stop leads nothing any more that another broker could.
    Left,
    /// A stopping shard has nothing in flight any more.
    Drained,
    /// The stopping disk has nothing in flight any more.
    DiskDrained,
    /// The process was asked to stop, by SIGTERM or SIGINT.
    Signal,
}

/// How long an ending process waits for its log lines to be written.
const LOG_FLUSH: std::time::Duration = std::time::Duration::from_millis(500);

/// Ends the process at once, because it cannot go on: nothing that was acknowledged depends on a clean end.
fn fatal(reason: &str) -> ! {
    tracing::error!("fatal: {reason}");
    crate::logging::flush(LOG_FLUSH);
    // The log may be filtered or lost; whoever started the broker sees this.
    eprintln!("ringlog: fatal: {reason}");
    // SAFETY: `_exit` runs no destructors and no exit handlers, which other threads could trip over.
    unsafe { libc::_exit(1) }
}
