//! The disk's thread on real files: what it says is durable is there for the next start.

use std::time::Instant;

use bytes::Bytes;
use smallvec::SmallVec;

use super::super::files::RecoveryDevice;
use super::super::mailbox::mailbox;
use super::*;
use crate::log::disk::{DiskConfig, WalConfig};
use crate::log::recovery::{Recovered, recover};
use crate::log::{Chunk, DiskError, DiskReply, Frame, FrameKind, SegmentFile, SegmentName, SegmentRef, WalId};

const FIRST: SegmentName = SegmentName { base: 0, revision: 0 };

const MIB: u64 = 1024 * 1024;

fn config() -> DiskConfig {
    let wal = WalConfig { segment_bytes: 4 * MIB, max_segments: 4 };
    DiskConfig { meta: wal, data: wal }
}

struct Running {
    disk: Sender<ToDisk>,
    replies: Receiver<Incoming>,
    reports: mpsc::Receiver<Report>,
    thread: thread::JoinHandle<io::Result<()>>,
}

fn recovered(dir: &std::path::Path) -> Recovered {
    let files = Files::open_dir(dir).unwrap();
    recover(&RecoveryDevice::new(files), &config()).unwrap()
}

fn start(dir: &std::path::Path) -> Running {
    let (disk, inbox) = mailbox();
    let (shard, replies) = mailbox();
    let (reporter, reports) = mpsc::channel();
    let setup = DiskSetup {
        clock: Clock::start(),
        pulse: Pulse::default(),
        machine: Disk::new(config(), recovered(dir).disk, WriteBuffers::new(), 1),
        files: Files::open_dir(dir).unwrap(),
        keep_open: 4,
        mailbox: (disk.clone(), inbox),
        shards: vec![shard],
        reports: reporter,
    };
    let thread = thread::spawn(move || DiskThread::new(setup).unwrap().run());
    Running { disk, replies, reports, thread }
}

impl Running {
    fn ask(&self, request: DiskRequest) {
        self.disk.send(ToDisk::Request { from: ShardId(0), request });
    }

    /// The next reply that is no report on the WAL's health.
    fn reply(&self) -> DiskReply {
        let started = Instant::now();
        loop {
            match self.replies.try_recv() {
                Some(Incoming::Disk(DiskReply::Health { .. } | DiskReply::Release { .. })) => {}
                Some(Incoming::Disk(reply)) => return reply,
                Some(Incoming::Mesh { .. } | Incoming::Connection(..) | Incoming::Peer(..) | Incoming::Look(..)) => {
                    panic!("there is no other shard")
                }
                None => {
                    assert!(started.elapsed() < Duration::from_secs(20), "no reply");
                    thread::sleep(Duration::from_micros(100));
                }
            }
        }
    }

    fn stop(self) {
        self.disk.send(ToDisk::Stop);
        assert!(matches!(self.reports.recv_timeout(Duration::from_secs(20)), Ok(Report::DiskDrained)));
        self.thread.join().unwrap().unwrap();
    }
}

fn entry(log: u64, index: u64, body: Vec<u8>) -> Frame {
    let head = SmallVec::from_slice(&index.to_be_bytes());
    Frame { log: LogId(log), kind: FrameKind::Entry, term: 1, index, head, body: Bytes::from(body), again: false }
}

fn body(log: u64, index: u64, len: usize) -> Vec<u8> {
    (0..len).map(|i| (i as u64 * 31 + index * 7 + log) as u8).collect()
}

#[test]
fn what_is_acknowledged_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let sizes = [10, 4_096, 100_000, 0, 1_500_000];
    for round in 0..3 {
        let disk = start(dir.path());
        for n in 0..10 {
            let index = round * 10 + n + 1;
            let frames = (1..=3).map(|log| entry(log, index, body(log, index, sizes[n as usize % 5] / 3))).collect();
            disk.ask(DiskRequest::Append { ticket: n + 1, wal: WalId::Data, frames });
            if n % 3 == 0 {
                let frames = vec![entry(0, index / 3 + 1, body(0, index, 50))];
                disk.ask(DiskRequest::Append { ticket: n / 3 + 1, wal: WalId::Meta, frames });
            }
        }
        let (mut data, mut meta) = (0, 0);
        while (data, meta) != (10, 4) {
            match disk.reply() {
                DiskReply::Appended { wal: WalId::Data, ticket } => data = ticket,
                DiskReply::Appended { wal: WalId::Meta, ticket } => meta = ticket,
                other => panic!("{other:?}"),
            }
        }
        disk.stop();
        let found = recovered(dir.path());
        assert_eq!(found.report.torn_bytes, 0);
        for log in 1..=3 {
            let entries = &found.logs.iter().find(|found| found.log == LogId(log)).unwrap().entries;
            assert_eq!(entries.len() as u64, (round + 1) * 10, "log {log} in round {round}");
            for found in entries {
                let len = sizes[(found.index as usize - 1) % 5] / 3;
                let wanted = [&found.index.to_be_bytes()[..], &body(log, found.index, len)].concat();
                assert!(found.payload == wanted, "log {log}, index {}", found.index);
            }
        }
    }
}

#[test]
fn segments_are_written_read_and_removed() {
    let dir = tempfile::tempdir().unwrap();
    let disk = start(dir.path());
    let segment = |log: u64| SegmentRef { log: LogId(log), name: FIRST, file: SegmentFile::Log };
    // More logs than files may stay open.
    for log in 1..=12 {
        let mut position = 0;
        for (token, len) in [1_000, 5_000_usize, 2_000_000, 3].into_iter().enumerate() {
            let data = vec![Chunk { head: SmallVec::new(), body: Bytes::from(body(log, token as u64, len)) }];
            disk.ask(DiskRequest::WriteSegment { token: token as u64, segment: segment(log), position, data });
            match disk.reply() {
                DiskReply::Written { token: done, result: Ok(()) } if done == token as u64 => {}
                other => panic!("{other:?}"),
            }
            position += len as u64;
        }
    }
    let read = |log, position, len| {
        disk.ask(DiskRequest::ReadSegment { token: 9, segment: segment(log), position, len });
        match disk.reply() {
            DiskReply::Read { token: 9, result } => result,
            other => panic!("{other:?}"),
        }
    };
    for log in 1..=12 {
        let bytes = read(log, 500, 1_000_000).unwrap();
        let written = [body(log, 0, 1_000), body(log, 1, 5_000), body(log, 2, 2_000_000)].concat();
        assert!(bytes[..] == written[500..500 + bytes.len()], "log {log}");
        assert!(bytes.len() > 100_000);
    }
    disk.ask(DiskRequest::DeleteSegment { token: 10, log: LogId(3), segment: FIRST });
    assert!(matches!(disk.reply(), DiskReply::Removed { token: 10, result: Ok(()) }));
    disk.ask(DiskRequest::DeleteLog { token: 11, log: LogId(4) });
    assert!(matches!(disk.reply(), DiskReply::Removed { token: 11, result: Ok(()) }));
    for log in [3, 4, 50] {
        assert!(matches!(read(log, 0, 10), Err(DiskError::NotFound { .. })), "log {log}");
    }
    disk.stop();
    let left: Vec<u64> = recovered(dir.path()).segment_files.iter().map(|segment| segment.log.0).collect();
    assert_eq!(left, [1, 2, 5, 6, 7, 8, 9, 10, 11, 12]);
}

#[test]
fn an_error_of_the_file_system_reaches_the_shard() {
    let dir = tempfile::tempdir().unwrap();
    let disk = start(dir.path());
    // A folder where a segment's should be made.
    std::fs::write(dir.path().join("partitions/5"), b"not a folder").unwrap();
    let segment = SegmentRef { log: LogId(5), name: FIRST, file: SegmentFile::Log };
    let data = vec![Chunk { head: SmallVec::new(), body: Bytes::from_static(b"bytes") }];
    disk.ask(DiskRequest::WriteSegment { token: 1, segment, position: 0, data });
    match disk.reply() {
        DiskReply::Written { token: 1, result: Err(DiskError::Io { file, .. }) } => {
            assert!(file.contains("partitions/5"))
        }
        other => panic!("{other:?}"),
    }
    disk.stop();
}
