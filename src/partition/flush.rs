//! The way of committed records from the tail into segments, and the checkpoint that lets the WAL forget them.
//!
//! One flush at a time: log file, then index file, then the checkpoint frame. Each waits for the one before it,
//! so that a checkpoint never speaks of bytes that are not durable.

use super::segments::{INDEX_ENTRY_LEN, Segment};
use super::tail::TailEntry;
use super::{Checkpoint, Partition};
use crate::consensus::{HardState, SnapshotPoint};
use crate::limits::{FLUSH_BYTES, INDEX_WRITE_ENTRIES};
use crate::log::{Chunk, Frame, FrameKind, SegmentFile, SegmentName, SegmentRef};
use crate::types::Offset;
use smallvec::SmallVec;
use zerocopy::IntoBytes;

/// Where the flush of a partition stands.
#[derive(Debug, Default)]
pub(super) struct Flush {
    stage: Stage,
    /// Write a checkpoint even if there was nothing to flush: the WAL asked for its oldest segment.
    checkpoint_wanted: bool,
    /// Whether records were written that no checkpoint speaks of.
    wrote: bool,
}

#[derive(Debug, Default)]
enum Stage {
    #[default]
    Idle,
    /// The log file is being written.
    Log { batches: usize },
    /// The index file is being written.
    Index { segment: SegmentName, entries: usize },
    /// Records that the leader sent are being written.
    Fetched { entries: Vec<TailEntry> },
    /// An error fenced a file: nothing is flushed any more, reads go on.
    Fenced,
}

impl Flush {
    /// Records that the leader sent are being written.
    pub(super) fn fetched(&mut self, entries: Vec<TailEntry>) {
        self.stage = Stage::Fetched { entries };
    }

    /// A checkpoint was written that speaks of all writes.
    pub(super) fn forget_writes(&mut self) {
        self.wrote = false;
    }
}

/// A write to a segment file.
#[derive(Debug)]
pub struct FlushWrite {
    /// The file.
    pub segment: SegmentRef,
    /// Its length so far.
    pub position: u64,
    /// What to append.
    pub data: Vec<Chunk>,
}

/// What became of a write to a segment file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlushOutcome {
    /// It is durable.
    Durable,
    /// There was no room for it; nothing was written, and it may be tried again.
    NoSpace,
    /// It failed, and the file is fenced: the partition flushes no more and takes no more records.
    Failed,
}

/// What a flush wants next.
#[derive(Debug)]
pub enum FlushStep {
    /// Write this, then call [`Partition::flush_written`].
    Write(FlushWrite),
    /// Append these to the WAL. The flush is over.
    Checkpoint {
        /// The checkpoint, and the entries after it that are to be written again.
        frames: Vec<Frame>,
        /// Segments that it does not name any more: their files are to be removed when it is durable.
        released: Vec<SegmentName>,
    },
    /// Nothing to do.
    Done,
}

impl Partition {
    /// Whether a flush is under way.
    pub fn is_flushing(&self) -> bool {
        !matches!(self.flush.stage, Stage::Idle)
    }

    /// Whether [`Partition::flush`] would begin to move records now.
    pub fn can_flush(&self) -> bool {
        let first = self.tail.unflushed().next();
        let committed = first.is_some_and(|first| first.batch.header.last_offset() < self.high_watermark);
        committed && !self.is_flushing() && !self.is_installing()
    }

    /// Whether an error has fenced a file: nothing can be moved to segments any more.
    pub fn is_fenced(&self) -> bool {
        matches!(self.flush.stage, Stage::Fenced)
    }

    /// Begins to flush what is committed, up to [`FLUSH_BYTES`]. With `checkpoint` one is written even if nothing is
    /// left to flush. Does nothing but remember that while a flush is under way.
    pub fn flush(&mut self, checkpoint: bool) -> FlushStep {
        self.flush.checkpoint_wanted |= checkpoint;
        // While records are fetched, the segments are theirs.
        if self.is_flushing() || self.is_installing() {
            return FlushStep::Done;
        }
        self.next_step()
    }

    /// The WAL wants its oldest segment: a checkpoint with all that follows it, where that is little. Many small logs cost the
    /// disk more as files of their own than as a few bytes that are written again. None where [`Partition::flush`] has to be
    /// called instead: more than `most` bytes follow, or what does is due to be rolled.
    pub fn stay_in_wal(&mut self, most: u64) -> Option<FlushStep> {
        let busy = self.is_flushing() || self.is_installing() || self.has_obsolete() || !self.released.is_empty();
        let since = self.tail.unflushed().next()?.batch.header.max_timestamp.get();
        let moves = self.tail.unflushed_cost() > most || self.tail.last().is_some_and(|last| self.is_due(since, last));
        (!busy && !moves).then(|| self.checkpoint(true))
    }

    /// The write that was wanted last has ended. Returns what is next, and how many batches of the tail may be
    /// evicted from now on. Without room the flush is over until [`Partition::flush`] is called again.
    pub fn flush_written(&mut self, outcome: FlushOutcome) -> (FlushStep, u64) {
        let stage = std::mem::take(&mut self.flush.stage);
        match outcome {
            FlushOutcome::Durable => self.may_fetch_on(),
            FlushOutcome::NoSpace => return (FlushStep::Done, 0),
            FlushOutcome::Failed => {
                self.flush.stage = Stage::Fenced;
                return (FlushStep::Done, 0);
            }
        }
        let mut flushed = 0;
        match stage {
            Stage::Log { batches } => {
                let segment = self.segments.last_mut().expect("a flush has a segment");
                for entry in self.tail.unflushed().take(batches) {
                    segment.note(&entry.batch, entry.index, entry.term);
                }
                self.stored_to = segment.meta.next_offset;
                self.tail.mark_flushed(batches);
                self.flush.wrote = true;
                flushed = batches as u64;
            }
            Stage::Index { segment, entries } => {
                let at = self.segments.partition_point(|known| known.meta.name < segment);
                self.segments[at].index_written(entries);
            }
            Stage::Fetched { entries } => {
                let segment = self.segments.last_mut().expect("a write has a segment");
                for entry in &entries {
                    segment.note(&entry.batch, entry.index, entry.term);
                }
                self.stored_to = segment.meta.next_offset;
            }
            Stage::Idle | Stage::Fenced => unreachable!("no write was under way"),
        }
        (self.next_step(), flushed)
    }

    fn next_step(&mut self) -> FlushStep {
        if (self.has_obsolete() || !self.released.is_empty()) && !self.is_installing() {
            // First of all: a disk without room gets some.
            return self.checkpoint(false);
        }
        if let Some(write) = self.index_write() {
            return FlushStep::Write(write);
        }
        if self.is_installing() {
            return FlushStep::Done;
        }
        if let Some(write) = self.log_write() {
            return FlushStep::Write(write);
        }
        let wanted = std::mem::take(&mut self.flush.checkpoint_wanted);
        if wanted || self.flush.wrote { self.checkpoint(false) } else { FlushStep::Done }
    }

    fn log_write(&mut self) -> Option<FlushWrite> {
        if self.flush.wrote {
            // One write a checkpoint: the WAL gets its space back in even steps.
            return None;
        }
        let (mut batches, mut bytes) = (0, 0);
        let first = self.tail.unflushed().next()?.clone();
        let roll = self.segments.last().is_none_or(|active| {
            let full = active.meta.len + first.batch.len() as u64 > self.config.segment_bytes;
            let over = full || self.is_closed(active) || self.is_due(active.meta.first_timestamp, &first);
            active.meta.len > 0 && over
        });
        let since = match self.segments.last().filter(|active| !roll && active.meta.len > 0) {
            Some(active) => active.meta.first_timestamp,
            None => first.batch.header.max_timestamp.get(),
        };
        let room = if roll {
            self.config.segment_bytes
        } else {
            self.config.segment_bytes.saturating_sub(self.segments.last()?.meta.len)
        };
        for entry in self.tail.unflushed() {
            let len = entry.batch.len() as u64;
            let committed = entry.batch.header.last_offset() < self.high_watermark;
            let full = bytes + len > FLUSH_BYTES || bytes + len > room || self.is_due(since, entry);
            if !committed || batches > 0 && full {
                break;
            }
            batches += 1;
            bytes += len;
        }
        if batches == 0 {
            return None;
        }
        if roll {
            if let Some(write) = self.seal_write() {
                return Some(write);
            }
            self.segments.push(Segment::begin(&first.batch, first.index));
        }
        let active = self.segments.last().expect("there is an active segment");
        let chunk = |entry: &TailEntry| Chunk {
            head: SmallVec::from_slice(entry.batch.header.as_bytes()),
            body: entry.batch.body.clone(),
        };
        // There may be very many small ones: the list is made once they are counted, and grows no more.
        let mut data = Vec::with_capacity(batches);
        data.extend(self.tail.unflushed().take(batches).map(chunk));
        self.flush.stage = Stage::Log { batches };
        Some(FlushWrite { segment: self.file(active.meta.name, SegmentFile::Log), position: active.meta.len, data })
    }

    /// Whether a segment whose first batch has the time `since` is too old for this batch (`segment.ms`, and
    /// `max.compaction.lag.ms`, as the newest segment is not compacted).
    fn is_due(&self, since: i64, entry: &TailEntry) -> bool {
        let age = match self.config.cleanup.compact {
            true => self.config.segment_ms.min(self.config.max_compaction_lag_ms),
            false => self.config.segment_ms,
        };
        since >= 0 && entry.batch.header.max_timestamp.get().saturating_sub(since) > age
    }

    /// The rest of the active segment's index, before a new segment begins.
    pub(super) fn seal_write(&mut self) -> Option<FlushWrite> {
        self.write_index(true, 1)
    }

    fn index_write(&mut self) -> Option<FlushWrite> {
        self.write_index(false, INDEX_WRITE_ENTRIES)
    }

    fn write_index(&mut self, sealed: bool, at_least: usize) -> Option<FlushWrite> {
        let active = self.segments.last()?;
        let entries = active.index_to_write(sealed);
        if entries.len() < at_least {
            return None;
        }
        let name = active.meta.name;
        let write = FlushWrite {
            segment: self.file(name, SegmentFile::Index),
            position: active.meta.index_persisted * INDEX_ENTRY_LEN as u64,
            data: vec![Chunk { head: SmallVec::new(), body: entries.as_bytes().to_vec().into() }],
        };
        let entries = entries.len();
        self.flush.stage = Stage::Index { segment: name, entries };
        Some(write)
    }

    /// The Raft index up to which nothing but segments is needed.
    fn flush_index(&self) -> u64 {
        let committed = self.group.committed();
        self.tail.unflushed().next().map_or(committed, |entry| committed.min(entry.index - 1))
    }

    /// The state beside the segments, which end at `next_offset`, as of a Raft index.
    pub(super) fn checkpoint_state(&self, hard_state: HardState, index: u64, next_offset: Offset) -> Checkpoint {
        Checkpoint {
            hard_state,
            life: self.life,
            members: self.group.members_at(index).clone(),
            // A start beyond them is said by an entry behind the checkpoint.
            log_start: self.log_start.min(next_offset),
            cleaned_to: self.cleaned_to,
            next_offset,
            segments: self.segments.iter().map(|segment| segment.meta.clone()).collect(),
            pending_index: self.segments.last().map(Segment::pending_bytes).unwrap_or_default(),
            epochs: self.epochs.iter().filter(|(_, start)| *start < next_offset).copied().collect(),
            producers: self.producers.snapshot(self.high_watermark),
            forgotten_producer: self.producers.forgotten(),
        }
    }

    /// A checkpoint, with the entries after it where `again` says so, or where it would free nothing without them.
    fn checkpoint(&mut self, again: bool) -> FlushStep {
        let index = self.flush_index();
        let Some(term) = self.group.term_at(index) else {
            // Nothing of this log is durable yet; its first entry is on the way.
            return FlushStep::Done;
        };
        self.drop_obsolete();
        let stays = self.checkpointed == index;
        if stays && self.checkpointing && self.released.is_empty() && !self.flush.wrote {
            return FlushStep::Done;
        }
        let checkpoint = self.checkpoint_state(self.group.hard_state(), index, self.stored_to);
        self.flush.wrote = false;
        (self.checkpointed, self.checkpointing) = (index, true);
        self.compact();
        let body = checkpoint.encode();
        if self.is_replicated() {
            self.group.offer_snapshot(SnapshotPoint { index, term, data: body.clone() });
        }
        let frame = Frame { body, ..self.frame(FrameKind::Checkpoint, term, index, &[], bytes::Bytes::new()) };
        let mut frames = vec![frame];
        if stays || again {
            // What cannot be committed for long, as where too few replicas are there, keeps segments of the WAL, which is the
            // other logs' too. Under load the first checkpoint frees them.
            let again = |entry| Frame { again: true, ..self.entry_frame(&entry) };
            frames.extend(self.group.written_after(index).into_iter().map(again));
        }
        FlushStep::Checkpoint { frames, released: std::mem::take(&mut self.released) }
    }

    /// The frames of a checkpoint are durable.
    pub fn checkpoint_durable(&mut self) {
        self.checkpointing = false;
    }
}
