//! Compaction in the background, and the mending of damaged segments: one partition of a shard at a time, one step after the
//! other, within an I/O budget.

use std::collections::VecDeque;

use super::Shard;
use super::event::Effect;
use super::storage::Job;
use crate::limits::{COMPACTION_BYTES_PER_SECOND, INSTALL_AGAIN_MS, LEASE_MS, MEND_QUESTIONS, TICK_MS};
use crate::log::{Chunk, DiskRequest};
use crate::partition::{CompactionStep, DiskRead, FlushOutcome, FlushWrite};
use crate::peer::PeerMessage;
use crate::types::{LogId, Mono, Now, Offset};

/// The pass that is under way, and what it may do.
#[derive(Default)]
pub(super) struct Compactor {
    log: Option<LogId>,
    /// A read or a write was asked for and has not come back.
    waits: bool,
    /// Bytes that may be read or written; below zero it has to wait.
    allowance: i64,
    refilled: Mono,
    /// The dirtiest log of the round that is under way.
    dirtiest: Option<(LogId, f64)>,
    /// Logs with segments that are damaged.
    damaged: VecDeque<LogId>,
    /// How often other brokers were asked in vain for what the pass lacks, and when last.
    asked: Option<(usize, Mono)>,
}

/// What a step may take before it has to wait for the next tick: as much as comes in some ticks.
const MOST_ALLOWANCE: i64 = (COMPACTION_BYTES_PER_SECOND * TICK_MS * 4 / 1_000) as i64;

impl Compactor {
    /// Whether a pass is under way, or should be.
    pub(super) fn busy(&self) -> bool {
        self.log.is_some() || !self.damaged.is_empty()
    }

    /// Notes how dirty a log is.
    pub(super) fn consider(&mut self, log: LogId, dirtiness: f64) {
        if self.dirtiest.is_none_or(|(_, most)| dirtiness > most) {
            self.dirtiest = Some((log, dirtiness));
        }
    }
}

impl Shard {
    /// A damaged segment of this log may have been found.
    pub(super) fn note_damage(&mut self, now: Now, log: LogId) {
        let wants = self.owned.get(&log).is_some_and(|owned| owned.partition.wants_mend(now));
        if wants && self.compactor.log != Some(log) && !self.compactor.damaged.contains(&log) {
            self.compactor.damaged.push_back(log);
        }
    }

    /// Begins to mend one of the damaged segments, if that can be done just now.
    fn begin_mend(&mut self, now: Now) {
        for _ in 0..self.compactor.damaged.len() {
            if self.compactor.log.is_some() {
                return;
            }
            let Some(log) = self.compactor.damaged.pop_front() else { return };
            let Some(owned) = self.owned.get_mut(&log) else { continue };
            // Files that are still to be removed may have the name that the new one would get.
            if owned.removals == 0 && owned.partition.begin_mend(now) {
                self.compactor.log = Some(log);
                self.compactor.asked = None;
            } else if owned.partition.wants_mend(now) {
                self.compactor.damaged.push_back(log);
            }
        }
    }

    /// Asks another broker for the records between these offsets; after a while, the next one. False where all were asked
    /// in vain.
    fn ask_for_records(&mut self, now: Now, log: LogId, offset: Offset, end: Offset) -> bool {
        let (times, last) = self.compactor.asked.unwrap_or_default();
        if times > 0 && now.mono < last.plus_millis(INSTALL_AGAIN_MS) {
            return true;
        }
        let Some(owned) = self.owned.get(&log) else { return false };
        let others: Vec<_> = owned.partition.replicas().filter(|broker| *broker != self.config.broker_id).collect();
        if others.is_empty() || times >= MEND_QUESTIONS {
            return false;
        }
        let to = others[times % others.len()];
        self.compactor.asked = Some((times + 1, now.mono));
        self.peers.send(to, PeerMessage::FetchLog { log, offset, end });
        true
    }

    /// Records that a pass may have asked other brokers for.
    pub(super) fn mend_fetched(&mut self, now: Now, log: LogId, offset: Offset, batches: &[Chunk]) {
        if self.owned.get_mut(&log).is_some_and(|owned| owned.partition.mend_fetched(offset, batches)) {
            self.compactor.asked = None;
            self.compact(now);
        }
    }

    /// All logs were looked at: the dirtiest is compacted, if none is just now.
    pub(super) fn begin_compaction(&mut self, now: Now) {
        if self.compactor.busy() {
            return;
        }
        let Some((log, _)) = self.compactor.dirtiest.take() else { return };
        let seed = u128::from(self.rng.next()) << 64 | u128::from(self.rng.next());
        let Some(owned) = self.owned.get_mut(&log).filter(|owned| owned.removals == 0) else { return };
        owned.partition.begin_compaction(now, seed.to_le_bytes());
        self.compactor.log = Some(log);
        self.compact(now);
    }

    /// Time has passed: there is more to spend.
    pub(super) fn tick_compaction(&mut self, now: Now) {
        let micros = now.mono.micros_since(self.compactor.refilled).min(1_000_000);
        self.compactor.refilled = now.mono;
        let more = (COMPACTION_BYTES_PER_SECOND * micros / 1_000_000) as i64;
        self.compactor.allowance = (self.compactor.allowance + more).min(MOST_ALLOWANCE);
        self.begin_mend(now);
        self.compact(now);
    }

    /// Goes on with the pass as far as it may: not while the disk is behind with what clients wait for.
    fn compact(&mut self, now: Now) {
        while let Some(log) = self.compactor.log {
            let health = &self.storage.data;
            let behind = self.storage.full() || health.oldest_ms > LEASE_MS || health.failed;
            if self.compactor.waits || self.compactor.allowance < 0 || behind {
                return;
            }
            let Some(owned) = self.owned.get_mut(&log) else {
                self.compactor.log = None;
                return;
            };
            let (len, request) = match owned.partition.compaction_step() {
                CompactionStep::Read(read) => {
                    let token = self.storage.job(Job::CompactionRead(log, read));
                    let DiskRead { segment, position, len } = read;
                    (u64::from(len), DiskRequest::ReadSegment { token, segment, position, len })
                }
                CompactionStep::Write(FlushWrite { segment, position, data }) => {
                    let token = self.storage.job(Job::CompactionWrite(log));
                    let len = data.iter().map(|chunk| chunk.head.len() + chunk.body.len()).sum::<usize>();
                    (len as u64, DiskRequest::WriteSegment { token, segment, position, data })
                }
                CompactionStep::Checkpoint => {
                    self.flush_log(log, true);
                    continue;
                }
                CompactionStep::Fetch(offset, end) => {
                    if self.ask_for_records(now, log, offset, end) {
                        return;
                    }
                    if let Some(owned) = self.owned.get_mut(&log) {
                        owned.partition.give_mend_up();
                    }
                    continue;
                }
                CompactionStep::Wait => return,
                CompactionStep::Done { compacted, stray, mended } => {
                    self.compactor.log = None;
                    match compacted {
                        Some(_) if mended => tracing::info!(%log, "a damaged segment was written anew"),
                        Some((before, after)) => tracing::debug!(%log, before, after, "a log was compacted"),
                        None => tracing::debug!(%log, "a log was not compacted"),
                    }
                    // A pass may have found damage, and there may be more than one damaged segment.
                    self.note_damage(now, log);
                    if let Some(segment) = stray {
                        self.remove_segment(log, segment);
                    }
                    if compacted.is_some() && !mended {
                        // Others may be dirty too.
                        self.look_again(now);
                    }
                    return;
                }
            };
            self.compactor.waits = true;
            self.compactor.allowance -= len as i64;
            self.out.push(Effect::Disk { request });
        }
    }

    /// A read that a pass wanted has come back; without bytes it failed.
    pub(super) fn compaction_read(&mut self, now: Now, log: LogId, read: DiskRead, bytes: Option<bytes::Bytes>) {
        self.compactor.waits = false;
        if let Some(owned) = self.owned.get_mut(&log) {
            owned.partition.compaction_read(read, bytes);
        }
        self.compact(now);
    }

    /// A write that a pass wanted has ended.
    pub(super) fn compaction_written(&mut self, now: Now, log: LogId, outcome: FlushOutcome) {
        self.compactor.waits = false;
        if let Some(owned) = self.owned.get_mut(&log) {
            owned.partition.compaction_written(outcome);
        }
        self.compact(now);
    }
}
