//! A replica of a partition: appends and reads where it leads, what the leader sends where it follows, the way of the
//! records into segments.
//!
//! A replica is owned by one shard and knows nothing of connections or requests. It hands out WAL frames, messages
//! for the other replicas and disk operations, and is told when they are done.

mod checkpoint;
mod compact;
mod flush;
mod install;
mod mend;
mod producers;
mod read;
mod replicate;
mod segments;
mod start;
mod tail;

use bytes::Bytes;
use smallvec::SmallVec;
use zerocopy::byteorder::little_endian::{I64, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

pub use checkpoint::Checkpoint;
pub use compact::CompactionStep;
pub use flush::{FlushOutcome, FlushStep, FlushWrite};
pub use install::Wanted;
pub use producers::{ActiveProducer, WINDOW as PRODUCER_WINDOW};
pub use read::{DiskRead, Found, ReadDone, ReadError, Records};
pub use segments::{INDEX_ENTRY_LEN, IndexEntry, Place};
pub use start::DeleteError;

use crate::consensus::{Entry, Group, GroupState, HardState, SnapshotPoint, members};
use crate::log::recovery::RecoveredLog;
use crate::log::{Frame, FrameKind, SegmentFile, SegmentName, SegmentRef};
use crate::metadata::configs::TopicConfig;
use crate::record::{Batch, TimestampType};
use crate::types::{BrokerId, LeaderEpoch, LogId, Now, Offset};
use compact::Pass;
use flush::Flush;
use install::Install;
use mend::Damage;
use producers::{Producers, SequenceCheck};
use read::Chunks;
use segments::Segment;
use start::Starts;
use tail::{Tail, TailEntry};

/// The data of a Raft entry that carries a batch: enough to tell the batch from any other. The batch itself
/// lies beside it, in the tail and in the WAL frame. An entry whose batch has no bytes has none: it says that the log
/// begins at `base_offset` now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Descriptor {
    base_offset: I64,
    batch_len: U32,
    batch_crc: U32,
}

const DESCRIPTOR_LEN: usize = size_of::<Descriptor>();

impl Descriptor {
    fn of(batch: &Batch) -> Descriptor {
        Descriptor {
            base_offset: batch.header.base_offset.get().into(),
            batch_len: (batch.len() as u32).into(),
            batch_crc: batch.header.crc.get().into(),
        }
    }

    fn of_start(start: Offset) -> Descriptor {
        Descriptor { base_offset: start.into(), batch_len: 0.into(), batch_crc: 0.into() }
    }

    /// The start of the log that an entry's data say, if they do.
    fn start_of(data: &[u8]) -> Option<Offset> {
        let descriptor = Descriptor::read_from_bytes(data).ok()?;
        (descriptor.batch_len.get() == 0).then_some(descriptor.base_offset.get())
    }

    /// Whether an entry with these data has a batch beside it.
    fn has_batch(data: &[u8]) -> bool {
        !data.is_empty() && !members::is_change(data) && Descriptor::start_of(data).is_none()
    }
}

/// Bytes that an entry takes on its way to another replica: its batch, and what goes before it.
fn weigh(data: &[u8]) -> u64 {
    if members::is_change(data) {
        return data.len() as u64 + 64;
    }
    let batch = Descriptor::read_from_prefix(data).map_or(0, |(descriptor, _)| descriptor.batch_len.get());
    u64::from(batch) + 64
}

/// Why a batch was not appended. Nothing of it is in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppendError {
    /// This replica does not lead.
    NotLeader,
    /// Larger than `max.message.bytes`.
    TooLarge,
    /// A timestamp outside of what the topic allows.
    InvalidTimestamp,
    /// A batch of this producer is missing in between.
    OutOfOrderSequence {
        /// The sequence number that it begins with.
        expected: i32,
    },
    /// A newer epoch of this producer has taken over.
    StaleProducerEpoch,
    /// An error of the disk has fenced the partition's files.
    Fenced,
    /// A record without a key, where the topic keeps the last one of each key.
    NoKey,
    /// A control or transactional batch, which producers without a transaction may not send.
    NotAllowed,
}

/// When an append counts as acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acks {
    /// When it is durable on the leader, or on a majority where that is earlier (Kafka's acks=1).
    Leader,
    /// When it is durable on a majority of the replicas, and on `min.insync.replicas` of them where those are more
    /// (Kafka's acks=all).
    All,
}

/// A batch that is in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Offset of its first record.
    pub base_offset: Offset,
    /// It is acknowledged once [`Partition::acknowledged`] has reached this offset.
    pub next_offset: Offset,
    /// The broker's time that it was stamped with, or -1.
    pub log_append_time: i64,
}

/// Frames to write, and the number to report when they are durable.
pub struct PartitionReady {
    /// For [`Partition::persisted`].
    pub number: u64,
}

/// What is on disk contradicts itself.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    /// A checkpoint cannot be read.
    #[error("the checkpoint of log {log} cannot be read: {error}")]
    Checkpoint {
        /// The log.
        log: LogId,
        /// Why.
        error: crate::codec::CodecError,
    },
    /// An entry is no batch, or not the one that its descriptor names.
    #[error("entry {index} of log {log} is damaged")]
    Entry {
        /// The log.
        log: LogId,
        /// Its Raft index.
        index: u64,
    },
    /// A hard state has the wrong length.
    #[error("the hard state of log {log} is damaged")]
    HardState {
        /// The log.
        log: LogId,
    },
}

/// A partition.
///
/// `log_start <= high_watermark <= next_offset` and `stored_to <= high_watermark`; the tail begins at or before
/// `stored_to`. Segments are in order and overlap nowhere, but between two of them, and in them, offsets may be missing.
pub struct Partition {
    log: LogId,
    life: u32,
    config: TopicConfig,
    /// The brokers that should have a replica, the preferred leader first.
    placed_on: Vec<BrokerId>,
    group: Group,
    tail: Tail,
    segments: Vec<Segment>,
    chunks: Chunks,
    producers: Producers,
    epochs: Vec<(LeaderEpoch, Offset)>,
    log_start: Offset,
    /// Moves of the start that are not committed yet.
    starts: Starts,
    /// Records before it lie in segments, as far as they are kept.
    stored_to: Offset,
    high_watermark: Offset,
    next_offset: Offset,
    flush: Flush,
    /// The index of the last checkpoint: what is before it need not stay in memory.
    checkpointed: u64,
    /// It is on its way to the WAL.
    checkpointing: bool,
    /// Records that are fetched because the leader's log begins behind the end of this one.
    install: Option<Box<Install>>,
    /// A follower needs entries whose batches are only in segments.
    point_wanted: bool,
    /// Segments that the next checkpoint does not name any more: their files can go when it is durable.
    released: Vec<SegmentName>,
    /// Before it compaction has left one record of each key.
    cleaned_to: Offset,
    /// A pass of compaction that is under way.
    pass: Option<Box<Pass>>,
    /// A segment that was found damaged, the last one.
    damage: Option<Damage>,
}

impl Partition {
    /// The partition as the disk knows it; a new one where nothing was recovered, for a replica of this life (see
    /// [`members`]).
    ///
    /// # Errors
    /// Where what was recovered contradicts itself: the partition must not be served then.
    pub fn open(
        log: LogId,
        (broker, life): (BrokerId, u32),
        voters: &[BrokerId],
        config: TopicConfig,
        recovered: Option<RecoveredLog>,
        logger: &slog::Logger,
    ) -> Result<Partition, RecoveryError> {
        let mut state = GroupState::default();
        let mut checkpoint = None;
        let mut offer = None;
        let mut found = Vec::new();
        if let Some(recovered) = recovered {
            if let Some(frame) = recovered.checkpoint {
                let decoded =
                    Checkpoint::decode(&frame.payload).map_err(|error| RecoveryError::Checkpoint { log, error })?;
                state.hard_state = decoded.hard_state;
                state.compacted = (frame.index, frame.term);
                state.members = Some(decoded.members.clone());
                checkpoint = Some(decoded);
                // The first frame of a replica holds nothing to go on from.
                offer = (frame.index > 0).then_some(SnapshotPoint {
                    index: frame.index,
                    term: frame.term,
                    data: frame.payload,
                });
            }
            if let Some(bytes) = recovered.hard_state {
                state.hard_state = HardState::from_bytes(&bytes).ok_or(RecoveryError::HardState { log })?;
            }
            found = recovered.entries;
        }
        let mut segments = Vec::new();
        let (mut log_start, mut next_offset, mut cleaned_to) = (0, 0, 0);
        let (mut epochs, mut producers) = (Vec::new(), Producers::default());
        if let Some(checkpoint) = checkpoint {
            (log_start, next_offset) = (checkpoint.log_start, checkpoint.next_offset);
            cleaned_to = checkpoint.cleaned_to;
            epochs = checkpoint.epochs;
            producers = Producers::from_snapshot(checkpoint.producers, checkpoint.forgotten_producer);
            let last = checkpoint.segments.len().saturating_sub(1);
            for (i, meta) in checkpoint.segments.into_iter().enumerate() {
                let pending = if i == last { &checkpoint.pending_index[..] } else { &[] };
                let segment =
                    Segment::recovered(meta, pending).ok_or(RecoveryError::Entry { log, index: state.compacted.0 })?;
                segments.push(segment);
            }
        }
        let (mut tail, mut starts) = (Tail::default(), Starts::default());
        let stored_to = next_offset;
        for entry in found {
            let damaged = RecoveryError::Entry { log, index: entry.index };
            let data = if !Descriptor::has_batch(&entry.payload) {
                entry.payload.clone()
            } else {
                let (descriptor, _) = Descriptor::read_from_prefix(&entry.payload).map_err(|_| damaged)?;
                let damaged = RecoveryError::Entry { log, index: entry.index };
                let Ok(batch) = Batch::parse_stored(&entry.payload.slice(DESCRIPTOR_LEN..)) else {
                    return Err(damaged);
                };
                if Descriptor::of(&batch) != descriptor || batch.header.base_offset.get() != next_offset {
                    return Err(damaged);
                }
                next_offset = batch.header.last_offset() + 1;
                producers.note(&batch.header, stored_to, None);
                note_epoch(&mut epochs, entry.term as LeaderEpoch, batch.header.base_offset.get());
                tail.push(TailEntry { index: entry.index, term: entry.term, batch });
                entry.payload.slice(..DESCRIPTOR_LEN)
            };
            let entry = Entry { index: entry.index, term: entry.term, data };
            starts.note(&entry);
            state.entries.push(entry);
        }
        let checkpointed = state.compacted.0;
        let mut group = Group::new(log, (broker, life), voters, state, weigh, logger);
        if let Some(point) = offer.filter(|_| !group.is_alone()) {
            // A follower may lack what only the segments hold since before this start.
            group.offer_snapshot(point);
        }
        let mut partition = Partition {
            log,
            life,
            config,
            placed_on: voters.to_vec(),
            group,
            tail,
            segments,
            chunks: Chunks::default(),
            producers,
            epochs,
            log_start,
            starts,
            stored_to,
            high_watermark: stored_to,
            next_offset,
            flush: Flush::default(),
            checkpointed,
            checkpointing: false,
            install: None,
            point_wanted: false,
            released: Vec::new(),
            cleaned_to,
            pass: None,
            damage: None,
        };
        partition.advance_high_watermark();
        Ok(partition)
    }

    /// The log's number.
    pub fn log(&self) -> LogId {
        self.log
    }

    /// The life of this replica: see [`members`].
    pub fn life(&self) -> u32 {
        self.life
    }

    /// The life of the replica that the disk holds; 0 where it does not say.
    pub fn life_of(recovered: &RecoveredLog) -> u32 {
        let checkpoint = recovered.checkpoint.as_ref().and_then(|frame| Checkpoint::decode(&frame.payload).ok());
        checkpoint.map_or(0, |checkpoint| checkpoint.life)
    }

    /// The frame with which a replica begins that a move has made: by it a start knows whose the frames behind it are.
    pub fn first_frame(&self) -> Frame {
        let body = Checkpoint::empty(self.life, self.group.members().clone()).encode();
        Frame { body, ..self.frame(FrameKind::Checkpoint, 0, 0, &[], Bytes::new()) }
    }

    /// Goes by another configuration from now on. What is in the log stays as it is.
    pub fn configure(&mut self, config: TopicConfig) {
        self.config = config;
    }

    /// Stands for election now.
    pub fn campaign(&mut self) {
        self.group.campaign();
    }

    /// Whether this replica leads and its term is durable: it may serve.
    pub fn is_up(&self) -> bool {
        // The entry that opens the term is committed only once the term is durable.
        self.group.is_leader() && self.group.term_at(self.group.committed()) == Some(self.group.term())
    }

    /// The current leader epoch.
    pub fn epoch(&self) -> LeaderEpoch {
        self.group.term() as LeaderEpoch
    }

    /// Bytes of the records that this replica has on its disk: in segments, and in the WAL until they are.
    pub fn size(&self) -> u64 {
        self.segment_bytes() + self.tail.unflushed().map(|entry| entry.batch.len() as u64).sum::<u64>()
    }

    /// The idempotent producers that are remembered, ordered by their ids.
    pub fn active_producers(&self, now: Now) -> Vec<ActiveProducer> {
        self.producers.active(now)
    }

    /// The first offset that may be read.
    pub fn log_start(&self) -> Offset {
        self.log_start
    }

    /// The offset after the last committed record.
    pub fn high_watermark(&self) -> Offset {
        self.high_watermark
    }

    /// Number of segments.
    pub fn segment_count(&self) -> usize {
        self.segments.len()
    }

    /// Bytes of records in segments.
    pub fn segment_bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.meta.len).sum()
    }

    /// The offset before which everything is acknowledged to those who want these acks.
    pub fn acknowledged(&self, acks: Acks) -> Offset {
        match acks {
            Acks::Leader => self.high_watermark.max(self.offset_after(self.group.durable())),
            Acks::All if self.wants_more_than_majority() => {
                self.high_watermark.min(self.offset_after(self.group.held_by(self.config.min_insync_replicas)))
            }
            Acks::All => self.high_watermark,
        }
    }

    /// `min.insync.replicas`.
    pub fn min_insync_replicas(&self) -> usize {
        self.config.min_insync_replicas
    }

    /// Whether acks=all waits for more replicas than the high watermark.
    pub fn wants_more_than_majority(&self) -> bool {
        self.config.min_insync_replicas > self.group.majority()
    }

    /// The offset after the last record whose entry is at or before `index`; 0 where memory does not reach back so far.
    fn offset_after(&self, index: u64) -> Offset {
        match self.tail.last_up_to(index) {
            Some(last) => last.batch.header.last_offset() + 1,
            None if index >= self.group.last_index() => self.next_offset,
            None => 0,
        }
    }

    /// Memory of the tail, in bytes.
    pub fn tail_cost(&self) -> u64 {
        self.tail.cost()
    }

    /// Memory of the records that no segment holds yet, in bytes.
    pub fn unflushed_cost(&self) -> u64 {
        self.tail.unflushed_cost()
    }

    /// Memory of the tail, and of the part of it that no segment holds, in bytes.
    pub fn tail_costs(&self) -> (u64, u64) {
        (self.tail_cost(), self.unflushed_cost())
    }

    /// Appends a checked batch: assigns its offsets and proposes it. It is in the WAL only after
    /// [`Partition::take_frames`], durable only when [`Partition::high_watermark`] has passed it.
    ///
    /// # Errors
    /// [`AppendError`]; nothing was appended. A duplicate is no error: the answer is that of the first one.
    pub fn append(&mut self, now: Now, mut batch: Batch) -> Result<Appended, AppendError> {
        if !self.is_up() {
            return Err(AppendError::NotLeader);
        }
        if self.is_fenced() {
            return Err(AppendError::Fenced);
        }
        if batch.len() > self.config.max_message_bytes {
            return Err(AppendError::TooLarge);
        }
        if batch.header.is_control() || batch.header.is_transactional() {
            return Err(AppendError::NotAllowed);
        }
        if self.config.cleanup.compact && batch.lacks_key() {
            return Err(AppendError::NoKey);
        }
        let mut log_append_time = -1;
        if self.config.timestamp_type == TimestampType::LogAppendTime {
            log_append_time = now.wall_ms;
        } else if !self.timestamp_allowed(now, &batch) {
            return Err(AppendError::InvalidTimestamp);
        }
        if batch.header.has_producer() {
            match self.producers.check(&batch.header) {
                SequenceCheck::Next => {}
                SequenceCheck::Duplicate { base_offset } => {
                    let next_offset = base_offset + i64::from(batch.header.record_count.get());
                    return Ok(Appended { base_offset, next_offset, log_append_time: -1 });
                }
                SequenceCheck::OutOfOrder { expected } => return Err(AppendError::OutOfOrderSequence { expected }),
                SequenceCheck::StaleEpoch => return Err(AppendError::StaleProducerEpoch),
            }
        }
        let (base_offset, epoch) = (self.next_offset, self.epoch());
        if log_append_time >= 0 {
            batch.stamp(log_append_time);
        }
        batch.assign(base_offset, epoch);
        let descriptor = Descriptor::of(&batch).as_bytes().to_vec();
        let index = self.group.propose(descriptor).map_err(|_| AppendError::NotLeader)?;
        self.next_offset = batch.header.last_offset() + 1;
        self.producers.note(&batch.header, self.high_watermark, Some(now.mono));
        note_epoch(&mut self.epochs, epoch, base_offset);
        self.tail.push(TailEntry { index, term: self.group.term(), batch });
        Ok(Appended { base_offset, next_offset: self.next_offset, log_append_time })
    }

    fn timestamp_allowed(&self, now: Now, batch: &Batch) -> bool {
        let ahead = batch.header.max_timestamp.get().saturating_sub(now.wall_ms);
        let behind = now.wall_ms.saturating_sub(batch.header.base_timestamp.get());
        ahead <= self.config.timestamp_after_max_ms && behind <= self.config.timestamp_before_max_ms
    }

    /// Moves what must be written next into `frames` and returns the number to report when it is durable.
    pub fn take_frames(&mut self, frames: &mut Vec<Frame>) -> Option<PartitionReady> {
        let mut last = None;
        while let Some(ready) = self.group.take_ready() {
            last = Some(PartitionReady { number: ready.number });
            if let Some(point) = ready.snapshot {
                frames.push(self.installed(&point));
            } else if let Some(state) = ready.hard_state {
                frames.push(self.frame(FrameKind::HardState, state.term, 0, &state.to_bytes(), Bytes::new()));
            }
            for entry in ready.entries {
                frames.push(self.entry_frame(&entry));
            }
        }
        last
    }

    fn entry_frame(&self, entry: &Entry) -> Frame {
        let mut frame = self.frame(FrameKind::Entry, entry.term, entry.index, &entry.data, Bytes::new());
        if Descriptor::has_batch(&entry.data) {
            let found = self.tail.at_index(entry.index);
            let Some(TailEntry { batch, .. }) = found else {
                panic!("entry {} of log {} has lost its batch", entry.index, self.log);
            };
            frame.head.extend_from_slice(batch.header.as_bytes());
            frame.body = batch.body.clone();
        }
        frame
    }

    fn frame(&self, kind: FrameKind, term: u64, index: u64, head: &[u8], body: Bytes) -> Frame {
        Frame { log: self.log, kind, term, index, head: SmallVec::from_slice(head), body, again: false }
    }

    fn file(&self, name: SegmentName, file: SegmentFile) -> SegmentRef {
        SegmentRef { log: self.log, name, file }
    }

    /// The frames up to this number are durable. Whether the high watermark moved.
    pub fn persisted(&mut self, number: u64) -> bool {
        self.group.persisted(number);
        self.advance_high_watermark()
    }

    fn advance_high_watermark(&mut self) -> bool {
        if self.install.is_some() {
            // The tail may not be what is committed; what takes its place is.
            return false;
        }
        let last = self.tail.last_up_to(self.group.committed());
        let reached = last.map_or(0, |last| last.batch.header.last_offset() + 1);
        let moved = reached > self.high_watermark;
        self.high_watermark = self.high_watermark.max(reached);
        self.settle_start();
        moved
    }

    /// The end offset of an epoch, as OffsetForLeaderEpoch wants it: the largest epoch known up to the asked one,
    /// and the offset where the next begins.
    pub fn end_of_epoch(&self, epoch: LeaderEpoch) -> Option<(LeaderEpoch, Offset)> {
        if epoch == self.epoch() {
            return Some((epoch, self.high_watermark));
        }
        if epoch > self.epoch() {
            return None;
        }
        let after = self.epochs.partition_point(|(known, _)| *known <= epoch);
        // Of epochs whose records are all deleted nobody knows; what is left begins where the first known one does.
        let Some(at) = after.checked_sub(1) else { return self.before_epochs(epoch) };
        let (known, _) = self.epochs.get(at)?;
        let end = self.epochs.get(after).map_or(self.high_watermark, |(_, start)| *start);
        Some((*known, end))
    }

    /// The epoch of the record at `offset`.
    pub fn epoch_of(&self, offset: Offset) -> LeaderEpoch {
        let after = self.epochs.partition_point(|(_, start)| *start <= offset);
        after.checked_sub(1).map_or(-1, |at| self.epochs[at].0)
    }

    /// Forgets idempotent producers that were silent for `silence_ms`.
    pub fn expire_producers(&mut self, now: Now, silence_ms: u64) {
        self.producers.expire(now.mono, silence_ms, self.high_watermark);
    }

    /// Drops one batch from memory that a segment holds too; returns the bytes that were freed.
    pub fn evict_one(&mut self) -> Option<u64> {
        let freed = self.tail.evict_one()?;
        self.compact();
        Some(freed)
    }

    /// Lets Raft forget what a checkpoint has passed and the tail has dropped: a follower can be sent the entries
    /// whose batches are in memory.
    fn compact(&mut self) {
        let kept = self.tail.iter().next().map_or(u64::MAX, |first| first.index - 1);
        self.group.compact(self.checkpointed.min(kept));
    }

    /// Drops a chunk of the read cache.
    pub fn evict_chunk(&mut self, place: Place) {
        self.chunks.evict(place);
    }
}

fn note_epoch(epochs: &mut Vec<(LeaderEpoch, Offset)>, epoch: LeaderEpoch, offset: Offset) {
    if epochs.last().is_none_or(|(last, _)| *last < epoch) {
        epochs.push((epoch, offset));
    }
}

#[cfg(test)]
mod tests;
