//! A shard's dealings with its disk: WAL appends and what they make durable, flushes, the memory of tails and caches.

use std::collections::{BTreeSet, VecDeque};

use super::Shard;
use super::dirty::Dirty;
use super::event::Effect;
use super::mesh::{Answer, RequestId};
use crate::limits::{
    CANARY_MS, DISK_SLOW_MS, FLUSH_RETRY_MS, FLUSHES_IN_FLIGHT, LEASE_MS, SPENT_CHUNK_BYTES, WAL_PENDING_BYTES,
};
use crate::log::{DiskError, DiskReply, DiskRequest, Frame, FrameKind, SegmentName, WalId};
use crate::metrics::Held;
use crate::partition::{DiskRead, FlushOutcome, FlushStep, Partition, Place};
use crate::peer::{DiskState, PeerMessage};
use crate::types::{LogId, Map, Mono, Now, ShardId};

/// What the disk last said of a WAL.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct WalHealth {
    /// Age of the oldest append that is not durable, in milliseconds.
    pub(super) oldest_ms: u64,
    /// Bytes accepted and not durable.
    pub(super) pending_bytes: u64,
    /// Only the reserve is left.
    pub(super) full: bool,
    /// What is left is for checkpoints.
    pub(super) scarce: bool,
    /// It cannot have more segments than it has.
    pub(super) no_space: bool,
    /// Fenced after an error.
    pub(super) failed: bool,
}

/// Appends to one WAL.
#[derive(Default)]
pub(super) struct Appends {
    next_ticket: u64,
    /// Frames of this turn.
    frames: Vec<Frame>,
    /// What the frames of this turn make durable.
    outcome: Outcome,
    /// By ticket, with the time at which they were handed to the disk.
    in_flight: VecDeque<(u64, Mono, Outcome)>,
    /// When anything was handed to the disk last.
    last: Mono,
    /// When the disk said last that anything is durable.
    durable_at: Mono,
}

/// What an append makes durable.
#[derive(Default)]
struct Outcome {
    /// Readies of Raft groups.
    readies: Vec<(LogId, u64)>,
    /// Logs whose end was written.
    deleted: Vec<LogId>,
    /// Segments that no checkpoint names any more.
    released: Vec<(LogId, SegmentName)>,
    /// Logs with a checkpoint.
    checkpoints: Vec<LogId>,
    /// What the damage of the WAL has cost the logs of this shard.
    notes_damage: bool,
}

impl Appends {
    /// The damage of the WAL may be forgotten when all that was appended until now is durable; false where it is.
    pub(super) fn note_damage(&mut self) -> bool {
        let last = self.in_flight.back_mut().map(|(.., outcome)| outcome);
        let outcome = if self.frames.is_empty() { last } else { Some(&mut self.outcome) };
        outcome.map(|outcome| outcome.notes_damage = true).is_some()
    }

    /// Adds a checkpoint of a log, and what follows it.
    pub(super) fn checkpoint(&mut self, log: LogId, frames: impl IntoIterator<Item = Frame>) {
        self.frames.extend(frames);
        self.outcome.checkpoints.push(log);
    }

    /// Adds what a ready of a log made of frames.
    pub(super) fn ready(&mut self, log: LogId, number: u64) {
        self.outcome.readies.push((log, number));
    }

    /// The frames of this turn.
    pub(super) fn frames(&mut self) -> &mut Vec<Frame> {
        &mut self.frames
    }

    /// Whether there are no frames of this turn.
    pub(super) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    fn take(&mut self, now: Now, wal: WalId) -> Option<DiskRequest> {
        let outcome = std::mem::take(&mut self.outcome);
        if self.frames.is_empty() {
            assert!(outcome.readies.is_empty(), "a ready that must be durable has frames");
            return None;
        }
        self.next_ticket += 1;
        self.in_flight.push_back((self.next_ticket, now.mono, outcome));
        self.last = now.mono;
        Some(DiskRequest::Append { ticket: self.next_ticket, wal, frames: std::mem::take(&mut self.frames) })
    }
}

/// An operation on segments that was asked of the disk.
pub(super) enum Job {
    Read(LogId, DiskRead),
    Flush(LogId),
    Delete(LogId),
    Space(RequestId, u32),
    DeleteSegment(LogId),
    CompactionRead(LogId, DiskRead),
    CompactionWrite(LogId),
}

/// The state of all that.
pub(super) struct Storage {
    pub(super) data: WalHealth,
    pub(super) meta: WalHealth,
    pub(super) data_appends: Appends,
    pub(super) meta_appends: Appends,
    jobs: Map<u64, Job>,
    next_token: u64,
    /// Memory for tails on this shard, in bytes.
    tail_budget: u64,
    /// How much of it clients may fill.
    append_budget: u64,
    tail_bytes: u64,
    unflushed_bytes: u64,
    dirty: Dirty,
    flushing: usize,
    /// A write to a segment has failed: what a log took since then stays in the WAL.
    segment_failed: bool,
    /// Logs whose last flush found no room, in the order of their numbers.
    without_room: BTreeSet<LogId>,
    next_retry: u64,
    /// Batches that may be dropped from tails, oldest first.
    evictable: VecDeque<(LogId, u64)>,
    /// Memory for chunks read from segments on this shard, in bytes.
    chunk_budget: u64,
    chunk_bytes: u64,
    /// Log, place and cost of each, oldest first.
    chunks: VecDeque<(LogId, Place, u64)>,
    /// The same for those that a reader has passed: they go first.
    spent: VecDeque<(LogId, Place, u64)>,
    spent_bytes: u64,
}

impl Storage {
    /// With these bytes for tails and for chunks, on one of so many brokers: see [`Storage::share_with`].
    pub(super) fn new(tail_budget: u64, chunk_budget: u64, brokers: usize) -> Storage {
        Storage {
            data: WalHealth::default(),
            meta: WalHealth::default(),
            data_appends: Appends::default(),
            meta_appends: Appends::default(),
            jobs: Map::default(),
            next_token: 0,
            tail_budget,
            append_budget: tail_budget / brokers as u64,
            tail_bytes: 0,
            unflushed_bytes: 0,
            dirty: Dirty::default(),
            flushing: 0,
            segment_failed: false,
            without_room: BTreeSet::new(),
            next_retry: 0,
            evictable: VecDeque::new(),
            chunk_budget,
            chunk_bytes: 0,
            chunks: VecDeque::new(),
            spent: VecDeque::new(),
            spent_bytes: 0,
        }
    }

    /// There are so many brokers. Each takes from its clients its share of what every one has room for: so followers have
    /// room for all that is not committed yet, whoever leads.
    pub(super) fn share_with(&mut self, brokers: usize) {
        self.append_budget = self.tail_budget / brokers as u64;
    }

    /// The token of an operation that is about to be asked for.
    pub(super) fn job(&mut self, job: Job) -> u64 {
        self.next_token += 1;
        self.jobs.insert(self.next_token, job);
        self.next_token
    }

    /// A read for a partition.
    pub(super) fn read(&mut self, log: LogId, read: DiskRead) -> DiskRequest {
        let token = self.job(Job::Read(log, read));
        DiskRequest::ReadSegment { token, segment: read.segment, position: read.position, len: read.len }
    }

    /// A look at the room on the disk, for a part of a request.
    pub(super) fn space(&mut self, request: RequestId, part: u32) -> DiskRequest {
        DiskRequest::Space { token: self.job(Job::Space(request, part)) }
    }

    /// Whether more unflushed records are in memory than clients may add to.
    pub(super) fn tail_full(&self) -> bool {
        self.unflushed_bytes > self.append_budget
    }

    /// Whether so many unflushed records are in memory that some are to be moved to segments.
    fn wants_flush(&self) -> bool {
        self.unflushed_bytes > self.append_budget / 2
    }

    /// Whether an append has to wait: for memory, or for room in the WAL.
    pub(super) fn full(&self) -> bool {
        self.tail_full() || self.data.full || self.data.pending_bytes > WAL_PENDING_BYTES
    }

    /// Whether the disk has no room for what clients would append: nothing but room will change that, so they need not wait.
    pub(super) fn no_room(&self) -> bool {
        let segments = !self.without_room.is_empty();
        segments && self.tail_full() || self.data.full && (segments || self.data.no_space)
    }

    /// Whether a follower has to wait with new entries. Those that are not committed leave its memory only if it takes what
    /// comes after them: memory is a reason no longer than some of it is on its way into segments, or finds no room there.
    pub(super) fn follower_full(&self) -> bool {
        let drains = self.flushing > 0 || !self.without_room.is_empty();
        drains && self.unflushed_bytes > self.tail_budget || self.data.pending_bytes > WAL_PENDING_BYTES
    }

    /// A partition has taken `bytes` more of records into its tail.
    pub(super) fn tail_grew(&mut self, bytes: u64) {
        self.tail_bytes += bytes;
        self.unflushed_bytes += bytes;
    }

    /// A partition with its memory is gone.
    pub(super) fn forget(&mut self, log: LogId, partition: &Partition) {
        self.tail_bytes -= partition.tail_cost();
        if !partition.is_fenced() {
            self.unflushed_bytes -= partition.unflushed_cost();
        }
        self.dirty.remove(log);
        self.without_room.remove(&log);
        self.drop_chunks(|owner, _| owner == log);
    }

    /// Takes chunks out of the account.
    fn drop_chunks(&mut self, which: impl Fn(LogId, Place) -> bool) {
        let (all, of_spent) = (&mut self.chunk_bytes, &mut self.spent_bytes);
        self.chunks.retain(|(log, place, cost)| {
            let dropped = which(*log, *place);
            *all -= if dropped { *cost } else { 0 };
            !dropped
        });
        self.spent.retain(|(log, place, cost)| {
            let dropped = which(*log, *place);
            *all -= if dropped { *cost } else { 0 };
            *of_spent -= if dropped { *cost } else { 0 };
            !dropped
        });
    }

    /// Takes a recovered partition's memory into account.
    pub(super) fn adopt(&mut self, log: LogId, partition: &Partition) {
        self.tail_bytes += partition.tail_cost();
        self.unflushed_bytes += partition.unflushed_cost();
        self.note_movable(log, partition);
    }

    /// More of a partition's records may be such that can be moved to segments.
    pub(super) fn note_movable(&mut self, log: LogId, partition: &Partition) {
        // What found no room is tried again in its time.
        if partition.can_flush() && !self.without_room.contains(&log) {
            self.dirty.put(log, partition.unflushed_cost());
        }
    }

    /// A chunk was put into a partition's cache, in the place of an older one where `replaced`.
    pub(super) fn chunk_cached(&mut self, log: LogId, place: Place, cost: u64, replaced: bool) {
        if replaced {
            self.drop_chunks(|owner, other| (owner, other) == (log, place));
        }
        self.chunk_bytes += cost;
        self.chunks.push_back((log, place, cost));
    }

    /// A reader has passed a chunk.
    pub(super) fn chunk_spent(&mut self, log: LogId, place: Place) {
        let at = self.chunks.iter().position(|(owner, other, _)| (*owner, *other) == (log, place));
        if let Some(chunk) = at.and_then(|at| self.chunks.remove(at)) {
            self.spent_bytes += chunk.2;
            self.spent.push_back(chunk);
        }
    }

    /// Takes a chunk out of the account that is one too many.
    fn surplus_chunk(&mut self) -> Option<(LogId, Place)> {
        if self.spent_bytes <= SPENT_CHUNK_BYTES && self.chunk_bytes <= self.chunk_budget {
            return None;
        }
        let (log, place, cost) = match self.spent.pop_front() {
            Some(spent) => {
                self.spent_bytes -= spent.2;
                spent
            }
            None => self.chunks.pop_front()?,
        };
        self.chunk_bytes -= cost;
        Some((log, place))
    }

    /// How the disk takes writes, as far as this shard's own tell, and whether it has room.
    pub(super) fn disk_state(&self, now: Now) -> DiskState {
        let state = |health: &WalHealth, appends: &Appends| {
            // A disk that is behind with its work and gets on with it does not hang.
            let since = appends.in_flight.front().map(|(_, since, _)| (*since).max(appends.durable_at));
            match since.map_or(0, |since| now.mono.micros_since(since) / 1_000) {
                _ if health.failed || self.segment_failed => DiskState::Failed,
                LEASE_MS.. => DiskState::Hangs,
                DISK_SLOW_MS.. => DiskState::Slow,
                _ => DiskState::Well,
            }
        };
        let writes = state(&self.data, &self.data_appends).max(state(&self.meta, &self.meta_appends));
        // One that has room for nothing more is as bad, for those who want to append.
        if self.no_room() { writes.max(DiskState::Hangs) } else { writes }
    }

    /// Whether the metadata's WAL was not written to for a while, so that a write would tell how the disk is.
    pub(super) fn wants_canary(&self, now: Now) -> bool {
        self.meta_appends.in_flight.is_empty() && now.mono >= self.meta_appends.last.plus_millis(CANARY_MS)
    }

    /// A partition's tail has changed otherwise than by an append: what it took before, and takes now.
    pub(super) fn tail_changed(&mut self, before: (u64, u64), after: (u64, u64)) {
        self.tail_bytes = self.tail_bytes + after.0 - before.0;
        self.unflushed_bytes = self.unflushed_bytes + after.1 - before.1;
    }

    /// Whether nothing is on its way to the disk that a client or a restart would miss.
    pub(super) fn drained(&self) -> bool {
        let idle = |appends: &Appends| appends.frames.is_empty() && appends.in_flight.is_empty();
        (idle(&self.data_appends) || self.data.failed) && (idle(&self.meta_appends) || self.meta.failed)
    }

    /// Whether anything at all is under way.
    pub(super) fn busy(&self) -> bool {
        !self.drained() || !self.jobs.is_empty()
    }

    fn appends(&mut self, wal: WalId) -> &mut Appends {
        match wal {
            WalId::Meta => &mut self.meta_appends,
            WalId::Data => &mut self.data_appends,
        }
    }

    fn health(&mut self, wal: WalId) -> &mut WalHealth {
        match wal {
            WalId::Meta => &mut self.meta,
            WalId::Data => &mut self.data,
        }
    }

    /// Shows the memory of records and chunks, and what is known of the WAL.
    pub(super) fn show_held(&self, held: &Held) {
        held.tail_bytes.set(self.tail_bytes);
        held.unflushed_bytes.set(self.unflushed_bytes);
        held.tail_limit_bytes.set(self.tail_budget);
        held.cache_bytes.set(self.chunk_bytes);
        held.cache_limit_bytes.set(self.chunk_budget);
        held.wal_age_ms.set(self.data.oldest_ms);
        held.wal_pending_bytes.set(self.data.pending_bytes);
        held.wal_full.set(u64::from(self.data.full));
        held.wal_failed.set(u64::from(self.data.failed || self.meta.failed));
    }

    /// The bytes of records and chunks that are held in memory.
    pub(super) fn memory(&self) -> u64 {
        self.tail_bytes + self.chunk_bytes
    }
}

impl Shard {
    /// The log may have frames to write at the end of this turn.
    pub(super) fn touch(&mut self, log: LogId) {
        if self.touched.insert(log) {
            self.touched_order.push(log);
        }
    }

    /// Gathers the frames of all logs that were touched and hands them to the disk, and the messages of their groups
    /// to the other brokers.
    pub(super) fn write_wals(&mut self, now: Now) {
        let mut behind = Vec::new();
        for log in std::mem::take(&mut self.touched_order) {
            self.touched.remove(&log);
            let Some(owned) = self.owned.get_mut(&log) else { continue };
            let before = owned.partition.tail_costs();
            if let Some(ready) = owned.partition.take_frames(self.storage.data_appends.frames()) {
                self.storage.data_appends.ready(log, ready.number);
            }
            if owned.partition.is_replicated() {
                for (to, message, beside) in owned.partition.take_messages() {
                    self.peers.send(to, PeerMessage::Raft { log, message, beside });
                }
                let after = owned.partition.tail_costs();
                if owned.partition.takes_point_wanted() {
                    behind.push(log);
                }
                self.storage.tail_changed(before, after);
            }
        }
        // Followers that need what is only in segments can go on from a checkpoint that reaches as far.
        for log in behind {
            self.flush_log(log, true);
        }
        self.take_metadata_frames(now);
        for wal in [WalId::Meta, WalId::Data] {
            if let Some(request) = self.storage.appends(wal).take(now, wal) {
                self.out.push(Effect::Disk { request });
            }
        }
        self.send_to_peers();
    }

    /// Ends a log: its last frame is written, then its files are removed.
    pub(super) fn end_log(&mut self, log: LogId) {
        let frame = Frame {
            log,
            kind: FrameKind::Deleted,
            term: 0,
            index: 0,
            head: Default::default(),
            body: Default::default(),
            again: false,
        };
        self.ending.insert(log);
        self.storage.data_appends.frames().push(frame);
        self.storage.data_appends.outcome.deleted.push(log);
    }

    /// Removes files of a log that the WAL knows nothing of.
    pub(super) fn remove_files(&mut self, log: LogId) {
        let token = self.storage.job(Job::Delete(log));
        self.out.push(Effect::Disk { request: DiskRequest::DeleteLog { token, log } });
    }

    /// Removes a segment of a log that no durable checkpoint names.
    pub(super) fn remove_segment(&mut self, log: LogId, segment: SegmentName) {
        if let Some(owned) = self.owned.get_mut(&log) {
            owned.removals += 1;
        }
        let token = self.storage.job(Job::DeleteSegment(log));
        self.out.push(Effect::Disk { request: DiskRequest::DeleteSegment { token, log, segment } });
    }

    pub(super) fn disk_replied(&mut self, now: Now, reply: DiskReply) {
        match reply {
            DiskReply::Appended { wal, ticket } => self.appended(now, wal, ticket),
            DiskReply::WalFailed { wal, error } => {
                // Every shard hears of it; one speaks for the broker.
                if !std::mem::replace(&mut self.storage.health(wal).failed, true) && self.id == ShardId(0) {
                    tracing::error!(?wal, %error, "the WAL is fenced: nothing is acknowledged any more; restart the broker once the disk is well");
                }
            }
            DiskReply::Written { token, result } => {
                let (log, compacts) = match self.storage.jobs.remove(&token) {
                    Some(Job::Flush(log)) => (log, false),
                    Some(Job::CompactionWrite(log)) => (log, true),
                    _ => unreachable!("a write was asked for under this token"),
                };
                let outcome = match result {
                    Ok(()) => FlushOutcome::Durable,
                    Err(DiskError::NoSpace { .. }) => FlushOutcome::NoSpace,
                    // Its topic was deleted meanwhile.
                    Err(_) if !self.owned.contains_key(&log) => FlushOutcome::Failed,
                    Err(error) if compacts => {
                        tracing::error!(%log, %error, "writing a segment anew failed: it stays as it was");
                        FlushOutcome::Failed
                    }
                    Err(error) => {
                        tracing::error!(%log, %error, "moving records to a segment failed: the partition takes no more; restart the broker once the disk is well");
                        self.storage.segment_failed = true;
                        FlushOutcome::Failed
                    }
                };
                match compacts {
                    true => self.compaction_written(now, log, outcome),
                    false => self.flush_written(now, log, outcome),
                }
            }
            DiskReply::Read { token, result } => match self.storage.jobs.remove(&token) {
                Some(Job::Read(log, read)) => self.disk_read_done(now, log, read, result),
                Some(Job::CompactionRead(log, read)) => self.compaction_read(now, log, read, result.ok()),
                _ => unreachable!("a read was asked for under this token"),
            },
            DiskReply::Removed { token, result } => {
                let log = match self.storage.jobs.remove(&token) {
                    Some(Job::Delete(log)) => log,
                    Some(Job::DeleteSegment(log)) => {
                        if let Some(owned) = self.owned.get_mut(&log) {
                            owned.removals -= 1;
                        }
                        log
                    }
                    _ => unreachable!("a removal was asked for under this token"),
                };
                if let Err(error) = result {
                    tracing::warn!(%log, %error, "removing files that are not needed failed; the next start tries again");
                }
                self.log_removed(now, log);
            }
            DiskReply::Space { token, result } => {
                let Some(Job::Space(request, part)) = self.storage.jobs.remove(&token) else {
                    unreachable!("space was asked for under this token")
                };
                if let Err(error) = &result {
                    tracing::warn!(%error, "the room on the disk cannot be seen");
                }
                self.op_answered(now, request, part, Answer::Space(result.ok()));
            }
            DiskReply::Release { wal: WalId::Meta, .. } => self.checkpoint_metadata(),
            DiskReply::Release { wal: WalId::Data, logs, again } => {
                for log in logs {
                    self.release(log, again);
                }
            }
            DiskReply::Health { wal, oldest_ms, pending_bytes, full, scarce, no_space } => {
                let health = self.storage.health(wal);
                *health = WalHealth { oldest_ms, pending_bytes, full, scarce, no_space, ..*health };
            }
        }
        self.run_backlog(now);
        self.flush_dirty();
    }

    fn appended(&mut self, now: Now, wal: WalId, ticket: u64) {
        self.storage.appends(wal).durable_at = now.mono;
        while self.storage.appends(wal).in_flight.front().is_some_and(|(known, ..)| *known <= ticket) {
            let (_, since, outcome) = self.storage.appends(wal).in_flight.pop_front().expect("there is a front");
            if wal == WalId::Data {
                self.metrics.produce.wal.observe(now.mono.micros_since(since));
            }
            for (log, number) in outcome.readies {
                match wal {
                    WalId::Meta => self.metadata_persisted(now, number),
                    WalId::Data => self.log_persisted(now, log, number),
                }
            }
            for log in outcome.checkpoints {
                self.checkpoint_durable(log);
            }
            if outcome.notes_damage {
                self.out.push(Effect::Disk { request: DiskRequest::ForgetDamage });
            }
            for log in outcome.deleted {
                self.remove_files(log);
            }
            for (log, segment) in outcome.released {
                // Those of a deleted log go with it.
                if self.owned.contains_key(&log) {
                    self.remove_segment(log, segment);
                }
            }
        }
    }

    /// A checkpoint of a log is durable, which may be deleted by now.
    fn checkpoint_durable(&mut self, log: LogId) {
        if let Some(owned) = self.owned.get_mut(&log) {
            owned.partition.checkpoint_durable();
        } else if let Some(coordinator) = self.coordinator.as_mut().filter(|_| log == LogId::METADATA) {
            coordinator.checkpoint_durable();
        }
    }

    /// Moves records to segments while more of them are in memory than should be. Logs with so little that all of them would
    /// fill no more than a quarter of that are left alone while others are on their way: a write to a file costs the disk about
    /// the same whether it brings much or little.
    pub(super) fn flush_dirty(&mut self) {
        while self.storage.flushing < FLUSHES_IN_FLIGHT && self.storage.wants_flush() {
            let Some(log) = self.storage.dirty.first() else { return };
            // None that stands behind it has twice as much.
            let worth = self.storage.append_budget / 8 / self.storage.dirty.len() as u64;
            let held = self.owned.get(&log).map_or(0, |owned| owned.partition.unflushed_cost());
            if held < worth && self.storage.flushing > 0 {
                return;
            }
            self.storage.dirty.remove(log);
            self.flush_log(log, false);
            // It may have got no further than to let go of old files.
            if let Some(owned) = self.owned.get(&log) {
                self.storage.note_movable(log, &owned.partition);
            }
        }
    }

    /// Flushes again what found no room, once in a while.
    pub(super) fn retry_flushes(&mut self, now: Now) {
        if self.storage.without_room.is_empty() || now.mono.0 < self.storage.next_retry {
            return;
        }
        self.storage.next_retry = now.mono.plus_millis(FLUSH_RETRY_MS).0;
        for log in self.storage.without_room.clone() {
            self.flush_log(log, true);
        }
    }

    /// Lets go of the WAL's oldest segment, by writing no more than `again` bytes of entries once more.
    fn release(&mut self, log: LogId, again: u64) {
        match self.owned.get_mut(&log).and_then(|owned| owned.partition.stay_in_wal(again)) {
            Some(step) => self.flush_step(log, step),
            None => self.flush_log(log, true),
        }
    }

    pub(super) fn flush_log(&mut self, log: LogId, checkpoint: bool) {
        let Some(owned) = self.owned.get_mut(&log) else { return };
        let step = owned.partition.flush(checkpoint);
        self.begin_flush(log, step);
    }

    /// Carries out the first step of a flush.
    pub(super) fn begin_flush(&mut self, log: LogId, step: FlushStep) {
        let started = matches!(step, FlushStep::Write(_));
        self.storage.flushing += usize::from(started);
        self.flush_step(log, step);
    }

    fn flush_written(&mut self, now: Now, log: LogId, outcome: FlushOutcome) {
        let step = match self.owned.get_mut(&log) {
            Some(owned) => {
                let before = owned.partition.unflushed_cost();
                let (step, batches) = owned.partition.flush_written(outcome);
                let after = owned.partition.unflushed_cost();
                // What a fenced partition holds will never be moved: the others must not wait for it.
                let gone = if outcome == FlushOutcome::Failed { before } else { before - after };
                self.storage.unflushed_bytes -= gone;
                if batches > 0 {
                    self.storage.evictable.push_back((log, batches));
                }
                step
            }
            None => FlushStep::Done,
        };
        let over = !matches!(step, FlushStep::Write(_));
        self.storage.flushing -= usize::from(over);
        self.note_room(log, outcome, over);
        if let Some(owned) = self.owned.get(&log) {
            self.storage.note_movable(log, &owned.partition);
        }
        self.flush_step(log, step);
        self.evict_tails();
        if self.owned.get(&log).is_some_and(|owned| owned.partition.is_installing()) {
            self.fetch_next(now, log);
        }
    }

    /// A flush has found room, or none. Before it is over, only a part of it has.
    fn note_room(&mut self, log: LogId, outcome: FlushOutcome, over: bool) {
        let without = &mut self.storage.without_room;
        let before = without.is_empty();
        match outcome {
            FlushOutcome::NoSpace if self.owned.contains_key(&log) => _ = without.insert(log),
            FlushOutcome::Durable if !over => {}
            FlushOutcome::Durable | FlushOutcome::Failed | FlushOutcome::NoSpace => _ = without.remove(&log),
        }
        match (before, without.is_empty()) {
            (true, false) => tracing::error!("no space left for segments; what was accepted stays in the WAL"),
            (false, true) => tracing::info!("there is space for segments again"),
            (true, true) | (false, false) => {}
        }
    }

    fn flush_step(&mut self, log: LogId, step: FlushStep) {
        match step {
            FlushStep::Write(write) => {
                let token = self.storage.job(Job::Flush(log));
                let request = DiskRequest::WriteSegment {
                    token,
                    segment: write.segment,
                    position: write.position,
                    data: write.data,
                };
                self.out.push(Effect::Disk { request });
            }
            FlushStep::Checkpoint { frames, released } => {
                let appends = &mut self.storage.data_appends;
                appends.checkpoint(log, frames);
                appends.outcome.released.extend(released.into_iter().map(|segment| (log, segment)));
            }
            FlushStep::Done => {}
        }
    }

    fn evict_tails(&mut self) {
        while self.storage.tail_bytes > self.storage.tail_budget {
            let Some((log, batches)) = self.storage.evictable.pop_front() else { return };
            let Some(owned) = self.owned.get_mut(&log) else { continue };
            for _ in 0..batches {
                self.storage.tail_bytes -= owned.partition.evict_one().unwrap_or(0);
            }
        }
    }

    pub(super) fn evict_chunks(&mut self) {
        while let Some((log, place)) = self.storage.surplus_chunk() {
            if let Some(owned) = self.owned.get_mut(&log) {
                owned.partition.evict_chunk(place);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(position: u64) -> Place {
        Place { segment: SegmentName { base: 0, revision: 0 }, position }
    }

    #[test]
    fn chunks_that_were_passed_go_first_and_soon() {
        const CHUNK: u64 = SPENT_CHUNK_BYTES / 4;
        let log = LogId(7);
        let mut storage = Storage::new(0, 100 * CHUNK, 1);
        for first in 0..8 {
            storage.chunk_cached(log, place(first), CHUNK, false);
        }
        storage.chunk_cached(log, place(7), CHUNK, true);
        assert_eq!(storage.memory(), 8 * CHUNK);
        for first in [5, 3, 6, 4] {
            storage.chunk_spent(log, place(first));
        }
        assert_eq!(storage.surplus_chunk(), None, "so many are kept for those who follow");
        storage.chunk_spent(log, place(0));
        assert_eq!(storage.surplus_chunk(), Some((log, place(5))));
        assert_eq!(storage.surplus_chunk(), None);
        storage.chunk_budget = 4 * CHUNK;
        let rest: Vec<u64> = std::iter::from_fn(|| storage.surplus_chunk()).map(|(_, at)| at.position).collect();
        assert_eq!(rest, [3, 6, 4], "before those that nobody has read");
        storage.chunk_budget = 0;
        storage.drop_chunks(|_, at| at == place(0));
        let rest: Vec<u64> = std::iter::from_fn(|| storage.surplus_chunk()).map(|(_, at)| at.position).collect();
        assert_eq!((rest, storage.memory()), (vec![1, 2, 7], 0));
    }
}
