//! What a start finds on a disk.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::disk::DiskConfig;
use super::pins::Pins;
use super::slots::Free;
use super::wal::Segment;
use super::wal_format::{self, FrameHeader};
use super::{Device, FrameKind, SegmentName, SegmentRef, WalId, scan};
use crate::types::LogId;

/// An entry of a log that was found in the WAL.
#[derive(Clone, Debug)]
pub struct RecoveredEntry {
    /// Its Raft index.
    pub index: u64,
    /// Its Raft term.
    pub term: u64,
    /// The frame's payload, head and body back to back.
    pub payload: Bytes,
}

/// The newest durable checkpoint of a log.
#[derive(Clone, Debug)]
pub struct RecoveredCheckpoint {
    /// The index it reaches.
    pub index: u64,
    /// The term of that index.
    pub term: u64,
    /// The frame's payload.
    pub payload: Bytes,
}

/// All that the WAL holds of a log. A log whose `Deleted` frame was found is not among the recovered.
#[derive(Clone, Debug)]
pub struct RecoveredLog {
    /// The log.
    pub log: LogId,
    /// The newest checkpoint.
    pub checkpoint: Option<RecoveredCheckpoint>,
    /// The payload of the newest hard state after that checkpoint.
    pub hard_state: Option<Bytes>,
    /// Entries after the checkpoint's index, in index order without gaps: where an index was written twice,
    /// the later write won and all that followed the earlier one is dropped, as Raft demands.
    pub entries: Vec<RecoveredEntry>,
    /// The segments of which there are files, needed or not.
    pub segments: BTreeSet<SegmentName>,
}

/// What [`Disk::new`](super::disk::Disk::new) needs to go on where the last run ended. The default is an empty disk.
#[derive(Debug, Default)]
pub struct DiskSeed {
    pub(super) meta: WalSeed,
    pub(super) data: WalSeed,
    /// Logs whose deletion a crash cut short: their files are still there.
    pub(super) deleted: Vec<LogId>,
}

/// Where one WAL ended.
#[derive(Debug, Default)]
pub(super) struct WalSeed {
    /// The newest valid write, and the newest with frames.
    pub(super) last_sequence: u64,
    pub(super) last_framed: u64,
    /// `confirmed` and `oldest` of the newest valid write.
    pub(super) confirmed: u64,
    pub(super) oldest: u64,
    /// The highest generation on the device, that of writes which were dropped included.
    pub(super) last_generation: u64,
    pub(super) segments: Vec<Segment>,
    pub(super) pins: Pins,
    /// Slots that can be used.
    pub(super) free: Vec<Free>,
    /// Those that may have been made in part only.
    pub(super) unwanted: Vec<u32>,
    /// A write that was acknowledged cannot be read.
    pub(super) damage: Option<RecoveryError>,
    /// Then: the oldest segment that writes are to name, and no segment is given back, until the damage may be forgotten.
    pub(super) held: Option<u64>,
}

/// What the scan counted, of both WALs together, for a line in the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RecoveryReport {
    /// WAL segments that were read.
    pub segments: u64,
    /// Valid writes.
    pub writes: u64,
    /// Frames in them.
    pub frames: u64,
    /// Bytes of frames in them.
    pub bytes: u64,
    /// Bytes of writes behind the end of the log that were never acknowledged, and are dropped.
    pub torn_bytes: u64,
}

/// All that was found on a disk.
#[derive(Debug)]
pub struct Recovered {
    /// The logs in the order of their numbers.
    pub logs: Vec<RecoveredLog>,
    /// For [`Disk::new`](super::disk::Disk::new).
    pub disk: DiskSeed,
    /// The segment files, without those of logs whose `Deleted` frame was found.
    pub segment_files: Vec<SegmentRef>,
    /// The counts.
    pub report: RecoveryReport,
    /// Where the partitions' WAL is damaged: what is wrong. The logs are then as of their newest checkpoints, without
    /// what came after them; and there may be further logs. Every start finds the damage again until each shard has asked
    /// for [`ForgetDamage`](super::DiskRequest::ForgetDamage).
    pub damage: Option<RecoveryError>,
}

/// Why a disk's logs cannot be recovered. Nothing on the disk was changed.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    /// The file system reported an error.
    #[error("cannot read {file}: {cause}; repair the file system or the device, then start again")]
    Io {
        /// The file, or the directory.
        file: String,
        /// What the system said.
        cause: std::io::Error,
    },
    /// A write that was acknowledged cannot be read any more.
    #[error(
        "{file} is damaged at byte {offset}: write {sequence} was acknowledged (write {later} at byte {later_offset} of \
         {later_file} says so) but cannot be read; put the data directory back from a copy, or move it away and let \
         the broker fetch its partitions from its peers"
    )]
    Damaged {
        /// The file in which the write should be.
        file: String,
        /// Where it should begin.
        offset: u64,
        /// Its number.
        sequence: u64,
        /// The write that proves it to have been durable.
        later: u64,
        /// The file of that one.
        later_file: String,
        /// Where that one begins.
        later_offset: u64,
    },
    /// A segment that is still needed is not there.
    #[error(
        "segment {generation} of the {wal:?} WAL is missing: {file} still needs it; put the missing file back, or move \
         the data directory away and let the broker fetch its partitions from its peers"
    )]
    Missing {
        /// The WAL.
        wal: WalId,
        /// The segment's generation.
        generation: u64,
        /// The newest segment, which names it.
        file: String,
    },
    /// Two files claim to be the same segment.
    #[error("{first} and {second} are copies of the same WAL segment; remove the copy")]
    Copy {
        /// One of them.
        first: String,
        /// The other.
        second: String,
    },
    /// The file was written by a newer version.
    #[error(
        "{file} has format version {version}, this ringlog reads version {}; use the one that wrote it",
        wal_format::VERSION
    )]
    Version {
        /// The file.
        file: String,
        /// Its version.
        version: u16,
    },
    /// A write whose checksum is right holds something else than frames.
    #[error("{file} holds an unknown frame in the write at byte {offset}; use the version of ringlog that wrote it")]
    Malformed {
        /// The file.
        file: String,
        /// Where the write begins.
        offset: u64,
    },
    /// Entries of a log that should be in the WAL are not in it, though none of its segments is missing.
    #[error(
        "log {log} goes on at index {found} but its checkpoint reaches {reached} only; move the data directory away and \
         let the broker fetch its partitions from its peers, and report this as a defect"
    )]
    Gap {
        /// The log.
        log: LogId,
        /// The index that the checkpoint reaches; 0 without one.
        reached: u64,
        /// The first index after it that is there.
        found: u64,
    },
}

/// Reads the WALs and lists the segment files. Changes nothing.
///
/// # Errors
/// [`RecoveryError`]: nothing can be recovered. Damage of the partitions' WAL is not among the errors but in
/// [`Recovered::damage`]: replicas on other brokers may make up for it.
///
/// Bytes that are read here count as durable from now on: before the disk's machine runs, the driver flushes
/// the device, so that what lay in the device's cache when the last process died is not lost by a power cut.
pub fn recover(device: &dyn Device, config: &DiskConfig) -> Result<Recovered, RecoveryError> {
    let unlisted = |cause| RecoveryError::Io { file: "the data directory".to_owned(), cause };
    let files = device.wal_files().map_err(unlisted)?;
    let mut found = Found::default();
    let mut disk = DiskSeed {
        meta: scan::scan(device, WalId::Meta, &config.meta, &files, &mut found)?,
        data: scan::scan(device, WalId::Data, &config.data, &files, &mut found)?,
        deleted: Vec::new(),
    };
    let mut segment_files = device.segment_files().map_err(unlisted)?;
    let mut deleted = BTreeSet::new();
    segment_files.retain(|segment| {
        let ended = found.deleted.contains(&segment.log);
        if ended {
            deleted.insert(segment.log);
        }
        !ended
    });
    segment_files.sort_unstable();
    disk.deleted = deleted.into_iter().collect();
    if let Some(damage) = disk.meta.damage.take() {
        return Err(damage);
    }
    let report = found.report;
    let damage = disk.data.damage.take();
    let mut logs = found.into_logs(damage.is_some())?;
    for segment in &segment_files {
        if let Ok(at) = logs.binary_search_by_key(&segment.log, |log| log.log) {
            logs[at].segments.insert(segment.name);
        }
    }
    Ok(Recovered { report, logs, disk, segment_files, damage })
}

/// What the frames read so far amount to.
#[derive(Default)]
pub(super) struct Found {
    logs: BTreeMap<LogId, RecoveredLog>,
    deleted: BTreeSet<LogId>,
    pub(super) report: RecoveryReport,
}

impl Found {
    /// Takes the next frame of a WAL.
    pub(super) fn frame(&mut self, header: &FrameHeader, payload: Bytes) {
        // A replica that was moved away and back again begins anew after its end.
        if header.kind != FrameKind::Deleted {
            self.deleted.remove(&header.log);
        }
        let log = (self.logs.entry(header.log)).or_insert_with(|| RecoveredLog {
            log: header.log,
            checkpoint: None,
            hard_state: None,
            entries: Vec::new(),
            segments: BTreeSet::new(),
        });
        match header.kind {
            FrameKind::Entry => log.add_entry(header, payload),
            // States live long: a copy lets go of the large buffer that they were read into.
            FrameKind::HardState => log.hard_state = Some(Bytes::copy_from_slice(&payload)),
            FrameKind::Checkpoint | FrameKind::Snapshot => {
                let replaced = header.kind == FrameKind::Snapshot;
                let passed = (log.entries).partition_point(|entry| replaced || entry.index <= header.index);
                log.entries.drain(..passed);
                log.hard_state = None;
                log.checkpoint = Some(RecoveredCheckpoint {
                    index: header.index,
                    term: header.term,
                    payload: Bytes::copy_from_slice(&payload),
                });
            }
            FrameKind::Deleted => {
                self.logs.remove(&header.log);
                self.deleted.insert(header.log);
            }
        }
    }

    fn into_logs(mut self, damaged: bool) -> Result<Vec<RecoveredLog>, RecoveryError> {
        if damaged {
            // An entry may have been replaced by one that cannot be read, a hard state likewise. A checkpoint speaks of
            // what is committed.
            for log in self.logs.values_mut().filter(|log| log.log != LogId::METADATA) {
                log.entries.clear();
                log.hard_state = None;
            }
        }
        for log in self.logs.values() {
            let reached = log.reached();
            if let Some(first) = log.entries.first()
                && first.index != reached + 1
            {
                return Err(RecoveryError::Gap { log: log.log, reached, found: first.index });
            }
        }
        Ok(self.logs.into_values().collect())
    }
}

impl RecoveredLog {
    /// The index that the checkpoint reaches; 0 without one.
    fn reached(&self) -> u64 {
        (self.checkpoint.as_ref()).map_or(0, |checkpoint| checkpoint.index)
    }

    fn add_entry(&mut self, header: &FrameHeader, payload: Bytes) {
        if header.index <= self.reached() {
            return;
        }
        let follows = |last: &RecoveredEntry| last.index + 1 == header.index;
        if !self.entries.last().is_some_and(follows) {
            // Written again, the entry takes the place of the earlier one and of all after it. Where indexes are
            // left out, a checkpoint further on has passed them: its absence is noticed at the end.
            let kept = (self.entries).partition_point(|entry| entry.index < header.index);
            self.entries.truncate(kept);
            if !self.entries.last().is_some_and(follows) {
                self.entries.clear();
            }
        }
        self.entries.push(RecoveredEntry { index: header.index, term: header.term, payload });
    }
}
