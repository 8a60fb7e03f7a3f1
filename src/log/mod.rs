//! Bytes and positions: the write-ahead log of a disk, the partitions' segment files, recovery.
//!
//! This layer knows nothing of Kafka, Raft or glommio. A shard sends [`DiskRequest`]s to the state machine of a
//! disk ([`disk::Disk`]) and gets [`DiskReply`]s; that machine in turn asks its driver for [`DeviceOp`]s. A
//! disk's machine runs on an executor of its own, so that a device that hangs holds up nobody else.
//!
//! What "done" means here: a reply says that the bytes are on the device and flushed, never less.

use bytes::Bytes;
use smallvec::SmallVec;

use crate::types::LogId;

pub mod disk;
mod gather;
pub mod names;
mod ops;
mod pins;
pub mod recovery;
mod scan;
mod segment;
mod slots;
#[cfg(test)]
mod tests;
mod wal;
pub mod wal_format;

/// What a frame of the WAL holds. The numbers are on disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u8)]
pub enum FrameKind {
    /// A Raft entry. It is kept until a durable checkpoint of its log has reached its index.
    Entry = 1,
    /// A Raft hard state. It is kept until a later hard state or checkpoint of its log is durable.
    HardState = 2,
    /// The state of a log up to `index`: the log's entries through `index` and all older hard states and
    /// checkpoints are needed no longer. Kept until a later checkpoint of its log is durable.
    Checkpoint = 3,
    /// The log is gone for good: nothing older of it is kept, and nothing newer will come.
    Deleted = 4,
    /// A checkpoint that takes the place of the whole log: all older entries are void, whatever their index.
    Snapshot = 5,
}

/// The unit of the WAL. Its payload is `head` followed by `body`, opaque to this layer.
#[derive(Clone, Debug)]
pub struct Frame {
    /// The log it belongs to.
    pub log: LogId,
    /// What it holds.
    pub kind: FrameKind,
    /// The Raft term of the entry or state.
    pub term: u64,
    /// The Raft index of the entry, or the index that the checkpoint reaches.
    pub index: u64,
    /// The part of the payload that was made for this frame (descriptors, patched headers).
    pub head: SmallVec<[u8; 96]>,
    /// The part of the payload that is shared with a request frame; empty where there is none.
    pub body: Bytes,
    /// An entry that is in the WAL already and follows its log's checkpoint, or another such entry, in the same append. It
    /// is written in one write with that checkpoint, so that older segments need not be kept for it; where all of them
    /// are too many for a write, none is written, and the older segments stay.
    pub again: bool,
}

impl Frame {
    /// Bytes of payload.
    pub fn payload_len(&self) -> usize {
        self.head.len() + self.body.len()
    }

    /// Bytes of its write that it takes.
    fn wal_len(&self) -> usize {
        wal_format::FRAME_BYTES + self.payload_len()
    }
}

/// Which write-ahead log of a disk's machine: the metadata has one of its own, and its writes go first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum WalId {
    /// The log of [`LogId::METADATA`].
    Meta,
    /// The log that all partitions on the disk share.
    Data,
}

/// Names a segment among those of its log. Ordered as their records are.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash, serde::Serialize, serde::Deserialize)]
pub struct SegmentName {
    /// The offset at which it begins: none of its records has a smaller one.
    pub base: i64,
    /// How often it was written anew; files of one base but different revisions are different files.
    pub revision: u32,
}

/// The two files of a partition segment.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum SegmentFile {
    /// Kafka batches back to back, as they are served (`<base-offset>.log`, with a revision `<base-offset>-<revision>.log`).
    Log,
    /// The sparse index of the log file (`.index`, named alike).
    Index,
}

/// Names one file of one segment of one log.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct SegmentRef {
    /// The log it belongs to.
    pub log: LogId,
    /// The segment.
    pub name: SegmentName,
    /// Which of the segment's files.
    pub file: SegmentFile,
}

/// A piece of a segment write: `head` then `body`, so that a batch whose header was patched needs no copy
/// before it reaches the disk's own buffer.
#[derive(Clone, Debug)]
pub struct Chunk {
    /// Bytes made for this write.
    pub head: SmallVec<[u8; 64]>,
    /// Bytes shared with whoever else holds them.
    pub body: Bytes,
}

/// What a shard asks of a disk. A `token` or `ticket` is the shard's own and comes back in the reply.
#[derive(Debug)]
pub enum DiskRequest {
    /// Append frames to a WAL. Tickets of one shard and WAL rise by one; replies come in that order.
    Append {
        /// The shard's number of this append.
        ticket: u64,
        /// The WAL it goes to.
        wal: WalId,
        /// At least one frame; all are durable when the reply comes.
        frames: Vec<Frame>,
    },
    /// Write `data` at the end of a segment file, whose length so far is `position` bytes (any alignment).
    /// Creates the file and its folder where they are missing. Durable when the reply comes. One at a time a file.
    WriteSegment {
        /// Comes back in the reply.
        token: u64,
        /// The file.
        segment: SegmentRef,
        /// Bytes in the file before this write. Whatever lies beyond it in the file is overwritten.
        position: u64,
        /// What to append.
        data: Vec<Chunk>,
    },
    /// Read up to `len` bytes at `position` (any alignment); fewer where the file ends before.
    ReadSegment {
        /// Comes back in the reply.
        token: u64,
        /// The file.
        segment: SegmentRef,
        /// First byte.
        position: u64,
        /// Most bytes to read.
        len: u32,
    },
    /// Remove both files of a segment.
    DeleteSegment {
        /// Comes back in the reply.
        token: u64,
        /// The log it belongs to.
        log: LogId,
        /// The segment.
        segment: SegmentName,
    },
    /// Remove all files of a log. Its `Deleted` frame is durable by then, so that a crash half-way leaves
    /// only files which the next start removes.
    DeleteLog {
        /// Comes back in the reply.
        token: u64,
        /// The log.
        log: LogId,
    },
    /// This shard has noted durably what the damage that the start has found may have cost its logs. When all shards have,
    /// the next start need not find it. Once a shard and start.
    ForgetDamage,
    /// Look how much room there is.
    Space {
        /// Comes back in [`DiskReply::Space`].
        token: u64,
    },
}

/// Why a disk did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DiskError {
    /// The device or file system reported an error (`errno` where there is one). The file is fenced: nothing
    /// more is written to it, and no flush of it is tried again.
    #[error("input/output error on {file}: {detail}")]
    Io {
        /// The file's name, relative to the data directory.
        file: String,
        /// What the kernel said.
        detail: String,
    },
    /// No room for a new segment or WAL segment.
    #[error("no space left on the disk for {file}")]
    NoSpace {
        /// The file's name, relative to the data directory.
        file: String,
    },
    /// Refused because an earlier error fenced the WAL or the file.
    #[error("{file} is fenced after an earlier error")]
    Fenced {
        /// The file's name, relative to the data directory.
        file: String,
    },
    /// The file does not exist.
    #[error("{file} does not exist")]
    NotFound {
        /// The file's name, relative to the data directory.
        file: String,
    },
    /// What was to be read is lost: the file ends before it, or the device or the file system cannot give it back.
    #[error("{file} cannot be read: {detail}")]
    Lost {
        /// The file's name, relative to the data directory.
        file: String,
        /// What the kernel said.
        detail: String,
    },
}

/// The room on a disk's volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Bytes of the volume.
    pub total: u64,
    /// Bytes of it that the broker may still write.
    pub usable: u64,
}

impl Space {
    /// As the bytes that [`DeviceOp::Space`] ends with.
    pub fn to_bytes(self) -> Bytes {
        Bytes::from([self.total.to_le_bytes(), self.usable.to_le_bytes()].concat())
    }

    fn from_bytes(bytes: &[u8]) -> Space {
        let (total, rest) = bytes.split_first_chunk().expect("a driver gives both numbers");
        let usable = rest.first_chunk().expect("a driver gives both numbers");
        Space { total: u64::from_le_bytes(*total), usable: u64::from_le_bytes(*usable) }
    }
}

/// What a disk tells a shard.
#[derive(Clone, Debug)]
pub enum DiskReply {
    /// All appends of this shard to `wal` up to `ticket` are durable.
    Appended {
        /// The WAL.
        wal: WalId,
        /// The newest durable ticket.
        ticket: u64,
    },
    /// The WAL is fenced: no append after the last `Appended` is known to be durable, and none will be taken
    /// until the process starts anew. Whether the bytes of those in flight are on the disk is not known.
    WalFailed {
        /// The WAL.
        wal: WalId,
        /// Why.
        error: DiskError,
    },
    /// Answer to [`DiskRequest::WriteSegment`].
    Written {
        /// The request's token.
        token: u64,
        /// Whether the bytes are durable.
        result: Result<(), DiskError>,
    },
    /// Answer to [`DiskRequest::ReadSegment`].
    Read {
        /// The request's token.
        token: u64,
        /// The bytes.
        result: Result<Bytes, DiskError>,
    },
    /// Answer to [`DiskRequest::DeleteSegment`] and [`DiskRequest::DeleteLog`].
    Removed {
        /// The request's token.
        token: u64,
        /// Whether the files are gone.
        result: Result<(), DiskError>,
    },
    /// Answer to [`DiskRequest::Space`].
    Space {
        /// The request's token.
        token: u64,
        /// What there is.
        result: Result<Space, DiskError>,
    },
    /// The WAL wants its oldest segment back: write a checkpoint for each of these logs, after moving the entries that it
    /// passes to segments, or with the entries behind it once more. Sent again only for logs that still hold the oldest
    /// segment later.
    Release {
        /// The WAL.
        wal: WalId,
        /// Logs of this shard whose checkpoint or entries lie in the oldest segment.
        logs: Vec<LogId>,
        /// Bytes of entries that each of them may write again.
        again: u64,
    },
    /// What the WAL holds and how it does, sent when it changed and at least every tick while writes are under way:
    /// the shard lets new work wait or refuses it by this.
    Health {
        /// The WAL.
        wal: WalId,
        /// Age of the oldest append that is not durable yet, in milliseconds; 0 where there is none.
        oldest_ms: u64,
        /// Bytes accepted and not durable yet, of all shards.
        pending_bytes: u64,
        /// Whether the WAL has no room but its reserve: appends wait until it was released.
        full: bool,
        /// Whether less than half a segment is left of the reserve: nothing is written any more but what lets go of the
        /// oldest segment.
        scarce: bool,
        /// Whether the last segment that it wanted could not be made: it does not grow.
        no_space: bool,
    },
}

/// A file on the device, named in one place so that driver, simulator and tools agree.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub enum FileId {
    /// Slot `slot` of a WAL: `wal/meta-NNNN.wal`, `wal/data-NNNN.wal`.
    Wal {
        /// Which WAL.
        wal: WalId,
        /// The slot; slots are reused, the order of their contents is in their headers.
        slot: u32,
    },
    /// A file of a partition segment: `partitions/<log>/<base, 20 digits>.log` or `.index`, with `-<revision>` behind the
    /// base where the segment was written anew.
    Segment(SegmentRef),
}

impl FileId {
    /// The segment's file that it is, if it is one.
    pub fn segment(self) -> Option<SegmentRef> {
        match self {
            FileId::Segment(segment) => Some(segment),
            FileId::Wal { .. } => None,
        }
    }
}

/// A source of buffers that the device can write from (aligned to 4096 bytes), taken once and reused.
pub trait Buffers {
    /// A buffer; its length is fixed when it is taken.
    type Buf: AsRef<[u8]> + AsMut<[u8]> + 'static;

    /// A buffer of at least `len` bytes (a multiple of 4096), its contents undefined.
    fn take(&mut self, len: usize) -> Self::Buf;

    /// Gives a buffer back for reuse.
    fn give(&mut self, buf: Self::Buf);
}

/// What a disk's machine asks of its driver. Offsets and lengths are multiples of 4096. Every operation is
/// completed by exactly one `Done` with the same token, however late; nothing is ever cancelled.
#[derive(Debug)]
pub enum DeviceOp<B> {
    /// Create the file with `len` bytes of zeros, allocated, written and flushed, folder entry included. It takes
    /// the place of a file of that name, which an attempt that failed may have left.
    Create {
        /// The file.
        file: FileId,
        /// Its length, a multiple of 4096.
        len: u64,
    },
    /// Make room for `len` more bytes at `offset` without changing the file's contents; creates the file and its
    /// folder (durably) where they are missing.
    Allocate {
        /// The file.
        file: FileId,
        /// First byte.
        offset: u64,
        /// Number of bytes.
        len: u64,
    },
    /// Write the first `len` bytes of `buf` at `offset`; durable when done.
    Write {
        /// The file.
        file: FileId,
        /// First byte.
        offset: u64,
        /// The buffer; it comes back in `Done`.
        buf: B,
        /// How much of it.
        len: usize,
    },
    /// Read up to `len` bytes at `offset`.
    Read {
        /// The file.
        file: FileId,
        /// First byte.
        offset: u64,
        /// Most bytes to read.
        len: usize,
    },
    /// Cut the file off after `len` bytes, durably.
    Shorten {
        /// The file.
        file: FileId,
        /// Its new length, a multiple of 4096 and no more than the old.
        len: u64,
    },
    /// Remove the file; one that does not exist is no error.
    Remove {
        /// The file.
        file: FileId,
    },
    /// Remove all segment files of a log and its folder; none there is no error.
    RemoveLog {
        /// The log.
        log: LogId,
    },
    /// Look how much room there is; the result is [`Space::to_bytes`].
    Space,
}

/// The outcome of a [`DeviceOp`].
#[derive(Debug)]
pub struct DeviceDone<B> {
    /// The buffer of a write, for reuse.
    pub buf: Option<B>,
    /// The bytes of a read, empty for the others; or the errno.
    pub result: Result<Bytes, i32>,
}

/// Blocking access to a disk's files at start and in the offline tools, before its executor runs.
pub trait Device {
    /// The files of both WALs with their lengths in bytes.
    fn wal_files(&self) -> std::io::Result<Vec<(FileId, u64)>>;

    /// The segment files, in any order. Their lengths are whole blocks and say nothing: the end of the data is for
    /// checkpoints to say, and asking for each would take as long as finding it.
    fn segment_files(&self) -> std::io::Result<Vec<SegmentRef>>;

    /// Reads exactly `buf.len()` bytes at `offset` or fails.
    fn read_exact_at(&self, file: FileId, offset: u64, buf: &mut [u8]) -> std::io::Result<()>;
}
