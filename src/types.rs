//! The words that every layer shares: identities, offsets and time.

use std::fmt;
use std::hash::BuildHasherDefault;

/// A hash map whose iteration order depends on nothing but its history, so that a simulation replays.
pub type Map<K, V> = std::collections::HashMap<K, V, BuildHasherDefault<rustc_hash::FxHasher>>;
/// A hash set with the same property as [`Map`].
pub type Set<K> = std::collections::HashSet<K, BuildHasherDefault<rustc_hash::FxHasher>>;

/// The position of a record in its partition, counted in records from 0.
pub type Offset = i64;

/// The number of a leadership of a partition; it is the Raft term.
pub type LeaderEpoch = i32;

/// A broker's number in its cluster (Kafka's `node.id`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, serde::Serialize, serde::Deserialize)]
pub struct BrokerId(pub i32);

/// A broker, and where it listens for the others of its cluster.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
pub struct PeerAddress {
    /// Its `node.id`.
    pub id: BrokerId,
    /// Its name or IP address, the latter without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
}

/// One shard of a broker: one executor on one core, the sole owner of some logs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ShardId(pub u16);

/// A replicated log: the metadata's, or one partition's. Numbers are never used twice in a cluster.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, serde::Serialize, serde::Deserialize)]
pub struct LogId(pub u64);

impl LogId {
    /// The log of the cluster's metadata. Partitions have numbers from 1 up.
    pub const METADATA: LogId = LogId(0);

    /// The shard that owns this log on a broker of `shards` shards. It changes when the number of
    /// shards does, which is why nothing on disk is named after a shard.
    pub fn shard(self, shards: u16) -> ShardId {
        ShardId((self.0 % u64::from(shards)) as u16)
    }
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A connection of a client, unique on its shard while the process lives.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ConnId(pub u64);

/// A point on the monotonic clock, in microseconds since a moment that the driver chose.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Mono(pub u64);

impl Mono {
    /// The instant `millis` milliseconds later.
    pub fn plus_millis(self, millis: u64) -> Mono {
        Mono(self.0.saturating_add(millis.saturating_mul(1_000)))
    }

    /// Microseconds since `earlier`; zero when that lies ahead.
    pub fn micros_since(self, earlier: Mono) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// What the clocks show at one step: the core has no other source of time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Now {
    /// The monotonic clock; never goes back.
    pub mono: Mono,
    /// Milliseconds since the Unix epoch; may jump. Used for record timestamps and retention alone.
    pub wall_ms: i64,
}

/// The instant at which a request must have been answered. Made once, when the frame is decoded, and
/// handed on; no stage makes one of its own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Deadline(pub Mono);

impl Deadline {
    /// The deadline `millis` milliseconds from `now`; a negative time is none at all.
    pub fn after_millis(now: Now, millis: i64) -> Deadline {
        Deadline(now.mono.plus_millis(millis.max(0) as u64))
    }

    /// Whether the time is up at `now`.
    pub fn passed(self, now: Now) -> bool {
        now.mono >= self.0
    }
}
