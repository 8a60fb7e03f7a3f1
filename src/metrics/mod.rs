//! Counters and histograms that the core keeps while it works, for whoever watches the broker from outside.
//!
//! Each shard, and the machine of each disk, has its own and is their only writer, so counting is a load and a store and
//! never a lock. Any thread may read them at any time, however busy or stuck the writer is; nothing in the core reads
//! them.

mod cells;
mod topics;

use std::sync::Arc;

pub use cells::{BOUNDS_MICROS, Counter, Gauge, Histogram};
pub use topics::{Creation, STAGES, Stage};

/// What a shard counts. Its stages of a request meet in the time of the request as a whole.
#[derive(Debug)]
pub struct ShardMetrics {
    /// By the place of the API in the table of those that the broker answers.
    pub apis: Box<[ApiMetrics]>,
    /// The names of the errors that are counted, in their order.
    pub error_names: Box<[String]>,
    /// The stages of a produce.
    pub produce: ProduceMetrics,
    /// The stages of the topics' creations that were asked of this shard or coordinated by it.
    pub creation: Creation,
    /// Bytes of request frames that came, and of responses that left.
    pub request_bytes: Counter,
    /// See `request_bytes`.
    pub response_bytes: Counter,
    /// Frames that were no requests, whose connections were closed.
    pub malformed: Counter,
    /// Bytes, records and batches that were appended for producers.
    pub appended_bytes: Counter,
    /// See `appended_bytes`.
    pub appended_records: Counter,
    /// See `appended_bytes`.
    pub appended_batches: Counter,
    /// Bytes of records that fetches were answered with.
    pub fetched_bytes: Counter,
    /// Leaderships of partitions that came here, and that went or were given away.
    pub leaderships_taken: Counter,
    /// See `leaderships_taken`.
    pub leaderships_lost: Counter,
    /// Times that this shard saw the lease of the disk end.
    pub leases_lost: Counter,
    /// What the shard holds at its last tick.
    pub held: Held,
    /// How late its ticks came: the longest turns of its executor.
    pub tick_delay: Histogram,
}

impl ShardMetrics {
    /// Nothing counted yet, of APIs and errors of these names.
    pub fn new(apis: impl IntoIterator<Item = &'static str>, errors: impl IntoIterator<Item = String>) -> ShardMetrics {
        let error_names: Box<[String]> = errors.into_iter().collect();
        ShardMetrics {
            apis: apis.into_iter().map(|name| ApiMetrics::new(name, error_names.len())).collect(),
            error_names,
            produce: ProduceMetrics::default(),
            creation: Creation::default(),
            request_bytes: Counter::default(),
            response_bytes: Counter::default(),
            malformed: Counter::default(),
            appended_bytes: Counter::default(),
            appended_records: Counter::default(),
            appended_batches: Counter::default(),
            fetched_bytes: Counter::default(),
            leaderships_taken: Counter::default(),
            leaderships_lost: Counter::default(),
            leases_lost: Counter::default(),
            held: Held::default(),
            tick_delay: Histogram::default(),
        }
    }
}

/// What is counted of one API.
#[derive(Debug)]
pub struct ApiMetrics {
    /// Its name.
    pub name: &'static str,
    /// From the whole frame to the response's place at the front of its connection's line.
    pub time: Histogram,
    /// The part of that which the response waited behind those of earlier requests.
    pub line: Histogram,
    /// By the place of the error code in the list of those that the broker gives. A response may bring several.
    pub errors: Box<[Counter]>,
    /// Requests that were answered because their time was up.
    pub deadlines_missed: Counter,
}

impl ApiMetrics {
    fn new(name: &'static str, errors: usize) -> ApiMetrics {
        ApiMetrics {
            name,
            time: Histogram::default(),
            line: Histogram::default(),
            errors: (0..errors).map(|_| Counter::default()).collect(),
            deadlines_missed: Counter::default(),
        }
    }
}

/// The stages of a produce, by the shard that owns the partition. How long a response waited for its connection is
/// [`ApiMetrics::line`].
#[derive(Debug, Default)]
pub struct ProduceMetrics {
    /// From the whole frame to the append, over the mesh and past a backlog.
    pub queue: Histogram,
    /// From the end of the turn to the durable write here; one for all that an append of the shard to the WAL holds.
    pub wal: Histogram,
    /// From the append to the high watermark behind it: durable on a majority.
    pub commit: Histogram,
}

/// What a shard holds.
#[derive(Debug, Default)]
pub struct Held {
    /// Connections of clients.
    pub connections: Gauge,
    /// Requests that are not answered.
    pub requests: Gauge,
    /// Appends that wait for memory or for room in the WAL.
    pub backlog: Gauge,
    /// Bytes of records in tails.
    pub tail_bytes: Gauge,
    /// The part of `tail_bytes` that no segment holds.
    pub unflushed_bytes: Gauge,
    /// Most of `tail_bytes`.
    pub tail_limit_bytes: Gauge,
    /// Bytes of chunks that were read from segments.
    pub cache_bytes: Gauge,
    /// Most of `cache_bytes`.
    pub cache_limit_bytes: Gauge,
    /// Age of the oldest append to the partitions' WAL that is not durable, in milliseconds.
    pub wal_age_ms: Gauge,
    /// Bytes that the partitions' WAL has accepted and that are not durable, of all shards.
    pub wal_pending_bytes: Gauge,
    /// 1 where the partitions' WAL has only its reserve left.
    pub wal_full: Gauge,
    /// 1 where one of the WALs is fenced after an error.
    pub wal_failed: Gauge,
    /// 1 while the disk takes writes within the lease.
    pub disk_well: Gauge,
    /// 1 while this broker may lead.
    pub may_lead: Gauge,
    /// 1 where this broker's coordinator is the one that works.
    pub coordinates: Gauge,
    /// The index of the last metadata command that is applied.
    pub metadata_applied: Gauge,
}

/// What the machine of a disk counts.
#[derive(Debug, Default)]
pub struct DiskMetrics {
    /// Of the metadata's WAL.
    pub meta: Arc<WalMetrics>,
    /// Of the partitions' WAL.
    pub data: Arc<WalMetrics>,
}

/// What one WAL counts.
#[derive(Debug, Default)]
pub struct WalMetrics {
    /// From the start of a device write to its end: durable.
    pub write: Histogram,
    /// From the first frame of a write to the start of the write.
    pub gather: Histogram,
    /// Bytes of the writes that ended, padding included.
    pub written_bytes: Counter,
    /// Writes that failed.
    pub failures: Counter,
}
