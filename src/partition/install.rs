//! Catching up where the leader's entries begin behind the end of this replica's log: the records come first, in
//! bounded pieces, straight into segments; then Raft takes the leader's point as the start of its log.
//!
//! The records up to the point are committed, so it is safe to take them from whoever leads. Until all of them are
//! durable, Raft keeps the log that it had, and this replica votes and answers by that.

use smallvec::SmallVec;
use zerocopy::IntoBytes;

use super::flush::{FlushStep, FlushWrite};
use super::producers::Producers;
use super::segments::Segment;
use super::tail::TailEntry;
use super::{Checkpoint, Partition};
use crate::consensus::{Message, MessageKind, SnapshotPoint};
use crate::limits::INSTALL_AGAIN_MS;
use crate::log::{Chunk, Frame, FrameKind, SegmentFile};
use crate::record::split_batches;
use crate::types::{BrokerId, LogId, Mono, Now, Offset};

/// Where the log will go on from, and what of it is still missing.
#[derive(Debug)]
pub(super) struct Install {
    message: Message,
    point: SnapshotPoint,
    checkpoint: Checkpoint,
    /// When records were asked for that have not come.
    asked: Option<Mono>,
    /// Raft was told to go on from the point.
    restoring: bool,
}

/// Records that a replica wants from the leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The leader.
    pub from: BrokerId,
    /// The log.
    pub log: LogId,
    /// The first record wanted.
    pub offset: Offset,
    /// The offset after the last.
    pub end: Offset,
}

impl Partition {
    /// A leader offers a point to go on from.
    pub(super) fn offered(&mut self, from: BrokerId, message: Message) {
        let Some(point) = message.snapshot.clone() else { return };
        let has_it = self.group.term_at(point.index) == Some(point.term);
        if has_it || message.term < self.group.term() || point.index <= self.group.committed() {
            // No records are missing; Raft answers how far this log is.
            return self.group.step(from, message);
        }
        if self.install.as_ref().is_some_and(|install| install.restoring || install.point.index >= point.index) {
            return;
        }
        match Checkpoint::decode(&point.data) {
            Ok(checkpoint) => {
                let asked = self.install.take().and_then(|install| install.asked);
                self.install = Some(Box::new(Install { message, point, checkpoint, asked, restoring: false }));
            }
            Err(error) => tracing::error!(log = %self.log, %error, "the leader's snapshot cannot be read"),
        }
    }

    /// Whether records are being fetched.
    pub fn is_installing(&self) -> bool {
        self.install.is_some()
    }

    /// What to ask the leader for next. Where nothing is missing any more, Raft goes on from the point.
    pub fn wanted(&mut self, now: Now) -> Option<Wanted> {
        let (log, flushing) = (self.log, self.is_flushing());
        let install = self.install.as_mut()?;
        if flushing || install.restoring {
            return None;
        }
        let end = install.checkpoint.next_offset;
        // What the leader has deleted is not there to be fetched.
        self.stored_to = self.stored_to.max(install.checkpoint.log_start);
        let offset = self.stored_to;
        if offset >= end {
            assert!(offset == end, "log {log}: segments reach {offset}, the leader's checkpoint {end}");
            let leader = self.group.leader()?;
            install.restoring = true;
            // The point is committed, so it holds in every later term.
            let message = Message { term: self.group.term(), ..install.message.clone() };
            self.group.step(leader, message);
            return None;
        }
        if install.asked.is_some_and(|at| now.mono < at.plus_millis(INSTALL_AGAIN_MS)) {
            return None;
        }
        let from = self.group.leader()?;
        install.asked = Some(now.mono);
        Some(Wanted { from, log, offset, end })
    }

    /// Records that were asked for have come, `offset` on, those left out that the leader has deleted or compacted; they
    /// are written to the segments. Without any the leader says that it has none before `offset`. `start` is where the
    /// leader's log begins.
    pub fn fetched(&mut self, offset: Offset, start: Offset, batches: &[Chunk]) -> FlushStep {
        if self.is_flushing() {
            return FlushStep::Done;
        }
        let Some(install) = self.install.as_mut().filter(|install| !install.restoring) else {
            return FlushStep::Done;
        };
        let (index, term, end) = (install.point.index, install.point.term, install.checkpoint.next_offset);
        // Deleted since the point: this log would have a hole if it began earlier than the one that the rest is from.
        install.checkpoint.log_start = install.checkpoint.log_start.max(start.min(end));
        if batches.is_empty() {
            if (self.stored_to..=end).contains(&offset) {
                self.stored_to = offset;
                install.asked = None;
            }
            return FlushStep::Done;
        }
        if offset != self.stored_to {
            return FlushStep::Done;
        }
        let mut next = offset;
        let mut entries = Vec::new();
        for (_, batch) in batches.iter().flat_map(|chunk| split_batches(&chunk.body)) {
            let header = &batch.header;
            if header.last_offset() < next || header.last_offset() >= end || batch.check_crc().is_err() {
                tracing::warn!(log = %self.log, offset = next, "records came damaged from the leader");
                break;
            }
            next = header.last_offset() + 1;
            entries.push(TailEntry { index, term, batch });
        }
        if entries.is_empty() {
            // They came damaged; they are asked for again when the time is up.
            return FlushStep::Done;
        }
        self.write_fetched(entries)
    }

    /// A write is durable: where records are being fetched, the next may be asked for. Where there was no room, they are asked
    /// for again only when the time is up.
    pub(super) fn may_fetch_on(&mut self) {
        if let Some(install) = &mut self.install {
            install.asked = None;
        }
    }

    fn write_fetched(&mut self, entries: Vec<TailEntry>) -> FlushStep {
        let takes_more = |active: &Segment| active.meta.len < self.config.segment_bytes && !self.is_closed(active);
        let full = !self.segments.last().is_some_and(takes_more);
        if full {
            if let Some(write) = self.seal_write() {
                // The rest of the index goes first; the records are asked for once more.
                return FlushStep::Write(write);
            }
            self.segments.push(Segment::begin(&entries[0].batch, entries[0].index));
        }
        let active = self.segments.last().expect("there is an active segment");
        let segment = self.file(active.meta.name, SegmentFile::Log);
        let position = active.meta.len;
        let chunk = |entry: &TailEntry| crate::log::Chunk {
            head: SmallVec::from_slice(entry.batch.header.as_bytes()),
            body: entry.batch.body.clone(),
        };
        let data = entries.iter().map(chunk).collect();
        self.flush.fetched(entries);
        FlushStep::Write(FlushWrite { segment, position, data })
    }

    /// A part of the log was lost: it is now as of the checkpoint with which it was opened, and must not vote until the
    /// others have made it whole; `nonce` must not have been used before.
    pub fn begin_repair(&mut self, nonce: u64) {
        self.group.begin_repair(nonce);
    }

    /// Whether the log is known to hold all that this replica ever acknowledged.
    pub fn is_whole(&self) -> bool {
        self.group.is_whole()
    }

    /// Whether the log was made whole since the last call; a checkpoint says so.
    pub fn takes_made_whole(&mut self) -> bool {
        self.group.takes_made_whole()
    }

    /// The frame that notes durably that a part of the log was lost, and makes all older ones void.
    pub fn loss_frame(&self) -> Frame {
        let index = self.checkpointed;
        let term = self.group.term_at(index).expect("the log begins behind its checkpoint");
        let body = self.checkpoint_state(self.group.hard_state(), index, self.stored_to).encode();
        Frame { body, ..self.frame(FrameKind::Snapshot, term, index, &[], bytes::Bytes::new()) }
    }

    /// Whether all segments of the log are among those that there are files of.
    pub fn has_files(&self, found: &std::collections::BTreeSet<crate::log::SegmentName>) -> bool {
        self.segments.iter().all(|segment| found.contains(&segment.meta.name))
    }

    /// Raft has taken the point: so does everything else. The frame makes it durable and all older ones void.
    pub(super) fn installed(&mut self, point: &SnapshotPoint) -> Frame {
        let install = self.install.take().expect("Raft is given a point only after the records");
        assert_eq!((install.point.index, install.point.term), (point.index, point.term));
        debug_assert_eq!(install.message.kind, MessageKind::Snapshot);
        self.tail.clear();
        self.starts = Default::default();
        self.epochs = install.checkpoint.epochs;
        self.producers = Producers::from_snapshot(install.checkpoint.producers, install.checkpoint.forgotten_producer);
        self.next_offset = install.checkpoint.next_offset;
        self.begin_at(install.checkpoint.log_start);
        self.drop_obsolete();
        self.high_watermark = self.next_offset;
        self.checkpointed = point.index;
        self.flush.forget_writes();
        let body = self.checkpoint_state(self.group.hard_state(), point.index, self.next_offset).encode();
        self.group.offer_snapshot(SnapshotPoint { index: point.index, term: point.term, data: body.clone() });
        Frame { body, ..self.frame(FrameKind::Snapshot, point.term, point.index, &[], bytes::Bytes::new()) }
    }
}
