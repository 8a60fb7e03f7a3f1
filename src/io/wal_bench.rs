//! How fast the WAL takes large appends: the disk's thread and its machine, without clients and partitions.

use std::path::Path;
use std::sync::{Arc, mpsc};
use std::task::{Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use bytes::Bytes;
use smallvec::SmallVec;

use super::disk::ToDisk;
use super::run::Threads;
use super::{Incoming, Report, RunError, probe};
use crate::limits::{BLOCK, WAL_WRITE_BYTES, WAL_WRITES_IN_FLIGHT};
use crate::log::{DiskReply, DiskRequest, Frame, FrameKind, WalId};
use crate::types::{LogId, ShardId};

/// The log that is written to.
const LOG: LogId = LogId(1);

/// Bytes of an append's records: as many as one write takes beside what describes them.
const RECORDS_BYTES: usize = WAL_WRITE_BYTES - BLOCK;

/// Appends that are not durable, at most: for the writes in flight, as many again behind them, so that none waits for this
/// thread.
const APPENDS_IN_FLIGHT: u64 = 2 * WAL_WRITES_IN_FLIGHT as u64;

/// After so many appends a checkpoint says that nothing of those before is needed, as flushes do in a broker.
const APPENDS_TO_CHECKPOINT: u64 = 32;

/// Wakes the thread that it was made by.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum WalBenchError {
    /// The disk's thread did not start.
    #[error(transparent)]
    Start(#[from] RunError),
    /// A write failed.
    #[error("the WAL cannot be written: {0}")]
    Write(String),
}

/// What was written.
#[derive(Clone, Copy, Debug)]
pub struct WalBandwidth {
    /// Bytes of records that became durable.
    pub bytes: u64,
    /// In how long.
    pub time: Duration,
}

/// Appends to a WAL in `data_dir` as fast as it takes it, for `warm_up` and then for `time`, which is measured. The
/// directory keeps the files; it must not be a broker's, which would find what it never wrote.
///
/// # Errors
/// Where the WAL cannot be opened or written.
pub fn wal_bandwidth(data_dir: &Path, warm_up: Duration, time: Duration) -> Result<WalBandwidth, WalBenchError> {
    probe::check_process().map_err(RunError::from)?;
    probe::create_data_dir(data_dir).map_err(RunError::from)?;
    probe::check_data_dir(data_dir).map_err(RunError::from)?;
    let (reporter, reports) = mpsc::channel();
    let (threads, mut inboxes) = Threads::new(1, reporter);
    let inbox = inboxes.shards.remove(0);
    threads.start_disk(data_dir, inboxes.disk, false)?;

    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let records = Bytes::from(vec![0x5A; RECORDS_BYTES]);
    let (mut sent, mut durable) = (0, 0);
    let begin = Instant::now();
    let mut measured = None;
    loop {
        while sent - durable < APPENDS_IN_FLIGHT {
            sent += 1;
            threads.disk.send(ToDisk::Request { from: ShardId(0), request: append(sent, &records) });
        }
        match inbox.recv_or_sleep(&waker) {
            Some(Incoming::Disk(DiskReply::Appended { ticket, .. })) => durable = ticket,
            Some(Incoming::Disk(DiskReply::WalFailed { error, .. })) => {
                return Err(WalBenchError::Write(error.to_string()));
            }
            // Health, and requests for checkpoints, which come anyway.
            Some(_) => continue,
            None => {
                thread::park();
                continue;
            }
        }
        let now = Instant::now();
        let (from, since) = match measured {
            None if now - begin < warm_up => continue,
            None => *measured.insert((durable, now)),
            Some(start) => start,
        };
        if now - since >= time {
            threads.disk.send(ToDisk::Stop);
            while !matches!(reports.recv(), Ok(Report::DiskDrained) | Err(_)) {}
            return Ok(WalBandwidth { bytes: (durable - from) * RECORDS_BYTES as u64, time: now - since });
        }
    }
}

fn append(number: u64, records: &Bytes) -> DiskRequest {
    let frame =
        |kind, body| Frame { log: LOG, kind, term: 1, index: number, head: SmallVec::new(), body, again: false };
    let mut frames = vec![frame(FrameKind::Entry, records.clone())];
    if number.is_multiple_of(APPENDS_TO_CHECKPOINT) {
        frames.push(frame(FrameKind::Checkpoint, Bytes::new()));
    }
    DiskRequest::Append { ticket: number, wal: WalId::Data, frames }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_round_the_ring_of_segments() {
        let dir = tempfile::tempdir().unwrap();
        let done = wal_bandwidth(dir.path(), Duration::ZERO, Duration::from_millis(200)).unwrap();
        assert!(done.bytes > 0 && done.time >= Duration::from_millis(200));
        assert_eq!(done.bytes % RECORDS_BYTES as u64, 0);
    }
}
