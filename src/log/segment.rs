//! The partitions' segment files: writes at any position made of whole blocks, reads of any range, removal.
//!
//! The device takes whole blocks only. A write begins with the block that its position lies in, whose earlier
//! bytes are kept in memory, and ends with a block padded with zeros; the next write writes that block again.
//! That is sound because the earlier bytes stay what they were.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use libc::{EBADMSG, EDQUOT, EILSEQ, EIO, ENODATA, ENOENT, ENOSPC, EUCLEAN};

use super::names::PARTITIONS_DIR;
use super::ops::{Context, Purpose};
use super::wal_format::align_up;
use super::{Buffers, Chunk, DeviceDone, DeviceOp, DiskError, DiskReply, FileId, SegmentFile, SegmentName, SegmentRef};
use crate::limits::{
    BLOCK, SEGMENT_CHUNK_BYTES, SEGMENT_FILES_KNOWN, SEGMENT_READS_IN_FLIGHT, SEGMENT_REMOVALS_IN_FLIGHT,
    SEGMENT_WRITES_IN_FLIGHT,
};
use crate::types::{LogId, Map, ShardId};

/// Room is made ahead of the writes: at first this much, then as much again as there is, up to the most.
const FIRST_ROOM_BYTES: u64 = 64 * 1024;
const MOST_ROOM_BYTES: u64 = 16 * 1024 * 1024;

/// An operation on segment files that is in flight.
#[derive(Debug)]
pub(super) enum FileOp {
    /// Reads the block that a write begins in.
    Tail(SegmentRef),
    /// Makes room; `until` is the end of it.
    Room { segment: SegmentRef, until: u64 },
    /// Writes blocks at `offset`; the file's own bytes end at `end` then.
    Write { segment: SegmentRef, offset: u64, end: u64 },
    /// Reads for a shard.
    Read(Read),
    /// Removes files; the number of the removal.
    Remove(u64),
}

/// A read that a shard asked for.
#[derive(Debug)]
pub(super) struct Read {
    from: ShardId,
    token: u64,
    segment: SegmentRef,
    position: u64,
    len: u32,
}

/// A write that a shard asked for, and how far it has come.
struct Write {
    from: ShardId,
    token: u64,
    /// The end of what is durable.
    position: u64,
    data: VecDeque<Chunk>,
    /// Bytes of the first chunk that are written already.
    skip: usize,
    left: u64,
}

/// What is known of a file while it is in use and for some time after.
#[derive(Default)]
struct File {
    /// Reads accepted and the write under way.
    users: u32,
    write: Option<Write>,
    /// Where the last write ended; `tail` holds the bytes of the block before it.
    end: Option<u64>,
    tail: Vec<u8>,
    /// The device has room up to here; 0 until this process made some.
    room: u64,
    fenced: bool,
    /// The moment it was used last, in uses.
    used: u64,
}

/// A removal of one segment or of a whole log.
struct Removal {
    /// Whom to tell, and its token; nobody where a start cleans up after a crash.
    asked: Option<(ShardId, u64)>,
    log: LogId,
    /// The segment, or the whole log.
    segment: Option<SegmentName>,
    /// Operations of the device that are not done.
    left: u32,
    error: Option<DiskError>,
}

/// The machine of all segment files of a disk.
#[derive(Default)]
pub(super) struct Segments {
    files: BTreeMap<SegmentRef, File>,
    /// Files without users, by the time of their last use.
    idle: BTreeMap<u64, SegmentRef>,
    uses: u64,
    /// Files whose write may go on with its next operation.
    writable: VecDeque<SegmentRef>,
    writes_in_flight: usize,
    reads: VecDeque<Read>,
    reads_in_flight: usize,
    /// Removals that wait for operations on their files, or for others to end.
    waiting: VecDeque<Removal>,
    removals: Map<u64, Removal>,
    removal_number: u64,
    /// How many removals of a segment, or of a whole log, were accepted and have not ended.
    doomed: Map<(LogId, Option<SegmentName>), u32>,
}

impl Segments {
    /// Whether anything waits for an operation; those in flight are counted elsewhere.
    pub(super) fn busy(&self) -> bool {
        !self.writable.is_empty() || !self.reads.is_empty() || !self.waiting.is_empty()
    }

    /// Takes a write, which is answered when all of it is durable.
    pub(super) fn write<B: Buffers>(
        &mut self,
        (from, token): (ShardId, u64),
        segment: SegmentRef,
        position: u64,
        data: Vec<Chunk>,
        cx: &mut Context<'_, B, FileOp>,
    ) {
        let answer = |result, cx: &mut Context<'_, B, FileOp>| {
            cx.reply(from, DiskReply::Written { token, result });
        };
        if self.is_doomed(segment) {
            return answer(Err(not_found(segment)), cx);
        }
        let left = data.iter().map(chunk_len).sum::<usize>() as u64;
        let file = self.files.entry(segment).or_default();
        if file.fenced {
            let file = name(segment);
            return answer(Err(DiskError::Fenced { file }), cx);
        }
        assert!(file.write.is_none(), "a segment file has one write under way at a time");
        let within = (position % BLOCK as u64) as usize;
        let start = position - within as u64;
        let known = file.end.is_some_and(|end| (start..=end).contains(&position) && start == align_down(end));
        if known || within == 0 {
            file.tail.truncate(within);
            file.end = Some(position);
        } else {
            file.end = None;
        }
        file.write = Some(Write { from, token, position, data: data.into(), skip: 0, left });
        self.acquire(segment);
        if left == 0 {
            self.end_write(segment, Ok(()), cx);
        } else {
            self.writable.push_back(segment);
        }
    }

    /// Takes a read.
    pub(super) fn read<B: Buffers>(
        &mut self,
        (from, token): (ShardId, u64),
        segment: SegmentRef,
        position: u64,
        len: u32,
        cx: &mut Context<'_, B, FileOp>,
    ) {
        if self.is_doomed(segment) {
            let result = Err(not_found(segment));
            return cx.reply(from, DiskReply::Read { token, result });
        }
        self.acquire(segment);
        self.reads.push_back(Read { from, token, segment, position, len });
    }

    /// Takes a removal of one segment, or of all the log's where `segment` is `None`. Operations on its files that
    /// were accepted before end first; later ones are refused.
    pub(super) fn remove(&mut self, asked: Option<(ShardId, u64)>, log: LogId, segment: Option<SegmentName>) {
        *self.doomed.entry((log, segment)).or_default() += 1;
        self.waiting.push_back(Removal { asked, log, segment, left: 0, error: None });
    }

    /// Starts what may be started.
    pub(super) fn pump<B: Buffers>(&mut self, cx: &mut Context<'_, B, FileOp>) {
        while self.writes_in_flight < SEGMENT_WRITES_IN_FLIGHT
            && let Some(segment) = self.writable.pop_front()
        {
            self.writes_in_flight += 1;
            self.go_on(segment, cx);
        }
        while self.reads_in_flight < SEGMENT_READS_IN_FLIGHT
            && let Some(read) = self.reads.pop_front()
        {
            self.reads_in_flight += 1;
            let offset = align_down(read.position);
            let end = align_up(read.position + u64::from(read.len));
            let op = DeviceOp::Read { file: FileId::Segment(read.segment), offset, len: (end - offset) as usize };
            cx.start(Purpose::File(FileOp::Read(read)), op);
        }
        while self.removals.len() < SEGMENT_REMOVALS_IN_FLIGHT
            && let Some(at) = (self.waiting.iter()).position(|removal| !self.in_use(removal))
            && let Some(removal) = self.waiting.remove(at)
        {
            self.start_removal(removal, cx);
        }
    }

    /// An operation has ended.
    pub(super) fn done<B: Buffers>(&mut self, op: FileOp, done: DeviceDone<B::Buf>, cx: &mut Context<'_, B, FileOp>) {
        match op {
            FileOp::Tail(segment) => {
                self.writes_in_flight -= 1;
                self.tail_read(segment, done.result, cx);
            }
            FileOp::Room { segment, until } => {
                self.writes_in_flight -= 1;
                match done.result {
                    Ok(_) => {
                        self.file(segment).room = until;
                        self.writable.push_back(segment);
                    }
                    Err(errno) => self.fail_write(segment, errno, cx),
                }
            }
            FileOp::Write { segment, offset, end } => {
                self.writes_in_flight -= 1;
                let bytes = done.buf.as_ref().map(|buf| buf.as_ref());
                match (&done.result, bytes) {
                    (Ok(_), Some(bytes)) => self.written(segment, offset, end, bytes, cx),
                    (Ok(_), None) => panic!("the driver kept the buffer of a write"),
                    (Err(errno), _) => self.fail_write(segment, *errno, cx),
                }
                if let Some(buf) = done.buf {
                    cx.buffers.give(buf);
                }
            }
            FileOp::Read(read) => {
                self.reads_in_flight -= 1;
                let result = match done.result {
                    Ok(bytes) => Ok(trim(&bytes, &read)),
                    Err(errno) => Err(read_error(read.segment, errno)),
                };
                let token = read.token;
                cx.reply(read.from, DiskReply::Read { token, result });
                self.let_go(read.segment);
            }
            FileOp::Remove(number) => self.removed(number, done.result, cx),
        }
    }

    fn file(&mut self, segment: SegmentRef) -> &mut File {
        match self.files.get_mut(&segment) {
            Some(file) => file,
            None => panic!("{} has an operation in flight but no state", name(segment)),
        }
    }

    /// Starts the next operation of the write under way.
    fn go_on<B: Buffers>(&mut self, segment: SegmentRef, cx: &mut Context<'_, B, FileOp>) {
        let file = self.file(segment);
        let (Some(write), id) = (file.write.as_mut(), FileId::Segment(segment)) else {
            panic!("{} goes on without a write", name(segment));
        };
        if file.end.is_none() {
            let op = DeviceOp::Read { file: id, offset: align_down(write.position), len: BLOCK };
            return cx.start(Purpose::File(FileOp::Tail(segment)), op);
        }
        let offset = align_down(write.position);
        let space = (SEGMENT_CHUNK_BYTES - file.tail.len()) as u64;
        let end = write.position + write.left.min(space);
        let until = align_up(end);
        if until > file.room {
            let start = file.room.max(offset);
            let len = (until - start).max(start.clamp(FIRST_ROOM_BYTES, MOST_ROOM_BYTES));
            let purpose = FileOp::Room { segment, until: start + len };
            let op = DeviceOp::Allocate { file: id, offset: start, len };
            return cx.start(Purpose::File(purpose), op);
        }
        let len = (until - offset) as usize;
        let mut buf = cx.buffers.take(len);
        let bytes = &mut buf.as_mut()[..len];
        let (tail, rest) = bytes.split_at_mut(file.tail.len());
        tail.copy_from_slice(&file.tail);
        let (fresh, padding) = rest.split_at_mut((end - write.position) as usize);
        write.copy_to(fresh);
        padding.fill(0);
        let purpose = FileOp::Write { segment, offset, end };
        let op = DeviceOp::Write { file: id, offset, buf, len };
        cx.start(Purpose::File(purpose), op);
    }

    fn tail_read<B: Buffers>(
        &mut self,
        segment: SegmentRef,
        result: Result<Bytes, i32>,
        cx: &mut Context<'_, B, FileOp>,
    ) {
        let file = self.file(segment);
        let Some(position) = file.write.as_ref().map(|write| write.position) else {
            panic!("{} read its end without a write", name(segment));
        };
        let within = (position % BLOCK as u64) as usize;
        let error = match result {
            Ok(bytes) if bytes.len() >= within => {
                file.tail.clear();
                file.tail.extend_from_slice(&bytes[..within]);
                file.end = Some(position);
                self.writable.push_back(segment);
                return;
            }
            Ok(_) => DiskError::Io {
                file: name(segment),
                detail: format!("the file ends before byte {position}, where it was to go on"),
            },
            Err(errno) => read_error(segment, errno),
        };
        self.end_write(segment, Err(error), cx);
    }

    fn written<B: Buffers>(
        &mut self,
        segment: SegmentRef,
        offset: u64,
        end: u64,
        bytes: &[u8],
        cx: &mut Context<'_, B, FileOp>,
    ) {
        let file = self.file(segment);
        let tail = (align_down(end) - offset) as usize..(end - offset) as usize;
        file.tail.clear();
        file.tail.extend_from_slice(&bytes[tail]);
        file.end = Some(end);
        let Some(write) = file.write.as_mut() else {
            panic!("{} was written without a write", name(segment));
        };
        write.left -= end - write.position;
        write.position = end;
        if write.left == 0 {
            self.end_write(segment, Ok(()), cx);
        } else {
            self.writable.push_back(segment);
        }
    }

    /// An operation that changes the file failed. Without space nothing was changed that matters; after any other
    /// error nobody knows what is on the device, and the file is written to no more.
    fn fail_write<B: Buffers>(&mut self, segment: SegmentRef, errno: i32, cx: &mut Context<'_, B, FileOp>) {
        let no_space = matches!(errno, ENOSPC | EDQUOT);
        let file = self.file(segment);
        file.end = None;
        file.fenced = !no_space;
        let error = match no_space {
            true => DiskError::NoSpace { file: name(segment) },
            false => io_error(segment, errno),
        };
        self.end_write(segment, Err(error), cx);
    }

    fn end_write<B: Buffers>(
        &mut self,
        segment: SegmentRef,
        result: Result<(), DiskError>,
        cx: &mut Context<'_, B, FileOp>,
    ) {
        if let Some(Write { from, token, .. }) = self.file(segment).write.take() {
            cx.reply(from, DiskReply::Written { token, result });
        }
        self.let_go(segment);
    }

    fn acquire(&mut self, segment: SegmentRef) {
        let file = self.files.entry(segment).or_default();
        if file.users == 0 {
            self.idle.remove(&file.used);
        }
        file.users += 1;
    }

    /// Ends one use. The end of the file is remembered for a while, a fence for ever.
    fn let_go(&mut self, segment: SegmentRef) {
        self.uses += 1;
        let uses = self.uses;
        let file = self.file(segment);
        file.users -= 1;
        if file.users > 0 || file.fenced {
            return;
        }
        if file.end.is_none() {
            self.files.remove(&segment);
            return;
        }
        file.used = uses;
        self.idle.insert(uses, segment);
        if self.idle.len() > SEGMENT_FILES_KNOWN
            && let Some((_, longest_idle)) = self.idle.pop_first()
        {
            self.files.remove(&longest_idle);
        }
    }

    fn is_doomed(&self, segment: SegmentRef) -> bool {
        !self.doomed.is_empty()
            && (self.doomed.contains_key(&(segment.log, None))
                || self.doomed.contains_key(&(segment.log, Some(segment.name))))
    }

    fn in_use(&self, removal: &Removal) -> bool {
        let (from, to) = removal.range();
        self.files.range(from..=to).any(|(_, file)| file.users > 0)
    }

    fn start_removal<B: Buffers>(&mut self, mut removal: Removal, cx: &mut Context<'_, B, FileOp>) {
        let (from, to) = removal.range();
        let known: Vec<SegmentRef> = (self.files.range(from..=to)).map(|(segment, _)| *segment).collect();
        for segment in known {
            if let Some(file) = self.files.remove(&segment) {
                self.idle.remove(&file.used);
            }
        }
        let number = self.removal_number;
        self.removal_number += 1;
        let mut start = |op| {
            removal.left += 1;
            cx.start(Purpose::File(FileOp::Remove(number)), op);
        };
        match removal.segment {
            None => start(DeviceOp::RemoveLog { log: removal.log }),
            Some(_) => {
                for segment in [from, to] {
                    let file = FileId::Segment(segment);
                    start(DeviceOp::Remove { file });
                }
            }
        }
        self.removals.insert(number, removal);
    }

    fn removed<B: Buffers>(&mut self, number: u64, result: Result<Bytes, i32>, cx: &mut Context<'_, B, FileOp>) {
        let Some(mut removal) = self.removals.remove(&number) else {
            panic!("removal {number} ended twice");
        };
        removal.left -= 1;
        if let Err(errno) = result {
            removal.error = Some(DiskError::Io {
                file: removal.name(),
                detail: std::io::Error::from_raw_os_error(errno).to_string(),
            });
        }
        if removal.left > 0 {
            self.removals.insert(number, removal);
            return;
        }
        let key = (removal.log, removal.segment);
        if let Some(count) = self.doomed.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                self.doomed.remove(&key);
            }
        }
        if let Some((shard, token)) = removal.asked {
            let result = removal.error.map_or(Ok(()), Err);
            cx.reply(shard, DiskReply::Removed { token, result });
        }
    }
}

impl Write {
    /// Fills `out` with the next bytes of the data.
    fn copy_to(&mut self, mut out: &mut [u8]) {
        while !out.is_empty() {
            let Some(chunk) = self.data.front() else {
                panic!("a segment write ran out of data");
            };
            let pieces = [&chunk.head[..], &chunk.body[..]];
            let mut skip = self.skip;
            for piece in pieces {
                let from = skip.min(piece.len());
                skip -= from;
                let len = (piece.len() - from).min(out.len());
                let (now, later) = out.split_at_mut(len);
                now.copy_from_slice(&piece[from..from + len]);
                out = later;
                self.skip += len;
            }
            if self.skip == chunk_len(chunk) {
                self.data.pop_front();
                self.skip = 0;
            }
        }
    }
}

impl Removal {
    /// The first and the last file that it can concern.
    fn range(&self) -> (SegmentRef, SegmentRef) {
        let file = |name, file| SegmentRef { log: self.log, name, file };
        let first = SegmentName { base: i64::MIN, revision: 0 };
        let last = SegmentName { base: i64::MAX, revision: u32::MAX };
        let (first, last) = (self.segment.unwrap_or(first), self.segment.unwrap_or(last));
        (file(first, SegmentFile::Log), file(last, SegmentFile::Index))
    }

    fn name(&self) -> String {
        match self.segment {
            Some(_) => name(self.range().0),
            None => format!("{PARTITIONS_DIR}/{}", self.log),
        }
    }
}

fn chunk_len(chunk: &Chunk) -> usize {
    chunk.head.len() + chunk.body.len()
}

fn align_down(position: u64) -> u64 {
    position - position % BLOCK as u64
}

/// The bytes that a read asked for, of the whole blocks that came.
fn trim(bytes: &Bytes, read: &Read) -> Bytes {
    let from = ((read.position % BLOCK as u64) as usize).min(bytes.len());
    let to = (from + read.len as usize).min(bytes.len());
    bytes.slice(from..to)
}

fn name(segment: SegmentRef) -> String {
    FileId::Segment(segment).to_string()
}

fn not_found(segment: SegmentRef) -> DiskError {
    DiskError::NotFound { file: name(segment) }
}

fn io_error(segment: SegmentRef, errno: i32) -> DiskError {
    DiskError::Io { file: name(segment), detail: std::io::Error::from_raw_os_error(errno).to_string() }
}

fn read_error(segment: SegmentRef, errno: i32) -> DiskError {
    match errno {
        ENOENT => not_found(segment),
        EIO | ENODATA | EUCLEAN | EBADMSG | EILSEQ => {
            DiskError::Lost { file: name(segment), detail: std::io::Error::from_raw_os_error(errno).to_string() }
        }
        _ => io_error(segment, errno),
    }
}
