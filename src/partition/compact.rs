//! Compaction: of each key the last record is kept. Every replica compacts the segments that it has.
//!
//! A pass goes over the segments before the newest one, whose records are all committed. It first notes where the last
//! record of each key lies among those that no pass has seen yet, then writes the segments anew from the first on, a
//! group of small ones as one, without the records that a later one has replaced. New files are durable before the
//! checkpoint that names them, which is before the old ones are removed: a crash in between leaves the old segments.
//!
//! Batches keep their offsets, producer and sequence. A batch without any records left is dropped whole: what is known
//! of producers is in checkpoints and is not read back from segments. The record that ends a key stays until its batch's
//! delete horizon, which the pass sets that has removed all before it (`delete.retention.ms`).

use std::ops::Range;

use bytes::Bytes;
use siphasher::sip128::SipHasher13;
use smallvec::SmallVec;
use zerocopy::IntoBytes;

use super::Partition;
use super::flush::{FlushOutcome, FlushWrite};
use super::mend::Mend;
use super::read::DiskRead;
use super::segments::{INDEX_ENTRY_LEN, Segment};
use crate::limits::{COMPACTION_CHUNK_BYTES, MAX_COMPACTION_KEYS, MAX_DECOMPRESSED_BYTES};
use crate::log::{Chunk, SegmentFile, SegmentName, SegmentRef};
use crate::record::{Batch, BatchHeader, Record, records, split_batches};
use crate::types::{LogId, Map, Now, Offset};

/// What a pass wants next. One thing at a time.
#[derive(Debug)]
pub enum CompactionStep {
    /// Read this, then call [`Partition::compaction_read`].
    Read(DiskRead),
    /// Write this, then call [`Partition::compaction_written`].
    Write(FlushWrite),
    /// Ask other replicas for the records from the first offset on, up to the second, then call
    /// [`Partition::mend_fetched`].
    Fetch(Offset, Offset),
    /// A flush is under way: ask again when it is over.
    Wait,
    /// Segments were written anew: a checkpoint makes that true, by [`Partition::flush`]. Then ask again.
    Checkpoint,
    /// The pass is over.
    Done {
        /// Bytes of segments before it and after it; none where it was given up.
        compacted: Option<(u64, u64)>,
        /// A segment that was begun and is not needed.
        stray: Option<SegmentName>,
        /// Whether it was a damaged segment that was written anew.
        mended: bool,
    },
}

/// Where the last record of each key lies, by a hash of the key that nobody can find two keys for.
struct Keys {
    hasher: SipHasher13,
    last: Map<(u64, u64), Offset>,
}

impl Keys {
    fn hash(&self, key: &[u8]) -> (u64, u64) {
        self.hasher.hash(key).as_u64()
    }

    /// Whether a later record has the same key.
    fn replaced(&self, record: &Record<'_>) -> bool {
        let last = record.key.and_then(|key| self.last.get(&self.hash(key)));
        last.is_some_and(|last| *last > record.offset)
    }
}

/// A pass that is under way.
pub(super) struct Pass {
    keys: Keys,
    /// Where it is not to compact, but to write a damaged segment anew.
    pub(super) mend: Option<Mend>,
    /// The segments that it goes over.
    inputs: Vec<SegmentName>,
    /// Records before it are clean when the pass is over: there was room for the keys up to there.
    end: Offset,
    pub(super) stage: Stage,
    /// Where the next batch is read: number of the input, position in it.
    pub(super) at: usize,
    pub(super) position: u64,
    /// Bytes to read, where a batch is larger than usual.
    pub(super) larger: Option<u32>,
    wall_ms: i64,
    before: u64,
    after: u64,
    pub(super) given_up: bool,
}

pub(super) enum Stage {
    /// The keys of the dirty segments are noted.
    Keys,
    /// A group of segments is written anew.
    Copy(Box<Copy>),
    /// Everything is written.
    Over,
}

/// A segment that takes the place of a group of others.
pub(super) struct Copy {
    /// The numbers of the inputs.
    group: Range<usize>,
    output: Segment,
    /// Bytes of the output's log file that were written, and those that follow.
    written: u64,
    gathered: Vec<u8>,
    /// The disk was asked to write something of it.
    begun: bool,
    indexed: bool,
}

impl Partition {
    /// How much a pass would be worth: the share of the log that no pass has seen, above 1 where the topic does not want
    /// to wait any longer. `None` where none is due.
    pub fn dirtiness(&self, now: Now) -> Option<f64> {
        if !self.config.cleanup.compact || self.pass.is_some() || self.is_fenced() || self.is_installing() {
            return None;
        }
        let cleanable = self.cleanable(now);
        let dirty = &cleanable[self.first_dirty(cleanable)..];
        let oldest = dirty.first()?.meta.first_timestamp;
        let bytes = |segments: &[Segment]| segments.iter().map(|segment| segment.meta.len).sum::<u64>() as f64;
        if oldest >= 0 && now.wall_ms.saturating_sub(oldest) > self.config.max_compaction_lag_ms {
            return Some(2.0);
        }
        let share = bytes(dirty) / bytes(cleanable).max(1.0);
        (share > self.config.min_cleanable_ratio).then_some(share)
    }

    /// The segments before the newest that are old enough (`min.compaction.lag.ms`).
    fn cleanable(&self, now: Now) -> &[Segment] {
        let newest = self.segments.iter().rposition(|segment| segment.meta.len > 0).unwrap_or(0);
        let sealed = &self.segments[..newest];
        let young = |segment: &Segment| {
            let age = now.wall_ms.saturating_sub(segment.meta.max_timestamp);
            let lag = self.config.min_compaction_lag_ms;
            segment.meta.next_offset > self.cleaned_to && lag > 0 && age < lag
        };
        &sealed[..sealed.iter().position(young).unwrap_or(sealed.len())]
    }

    fn first_dirty(&self, segments: &[Segment]) -> usize {
        segments.partition_point(|segment| segment.meta.next_offset <= self.cleaned_to)
    }

    /// Begins a pass. `seed` must not be known to whoever makes the keys.
    pub fn begin_compaction(&mut self, now: Now, seed: [u8; 16]) {
        let cleanable = self.cleanable(now);
        let inputs: Vec<SegmentName> = cleanable.iter().map(|segment| segment.meta.name).collect();
        let (Some(last), at) = (cleanable.last(), self.first_dirty(cleanable)) else { return };
        self.pass = Some(Box::new(Pass {
            keys: Keys { hasher: SipHasher13::new_with_key(&seed), last: Map::default() },
            mend: None,
            end: last.meta.next_offset,
            before: cleanable.iter().map(|segment| segment.meta.len).sum(),
            after: 0,
            inputs,
            stage: Stage::Keys,
            at,
            position: 0,
            larger: None,
            wall_ms: now.wall_ms,
            given_up: false,
        }));
    }

    /// What the pass wants next; a call for each answer to the step before.
    pub fn compaction_step(&mut self) -> CompactionStep {
        let Some(mut pass) = self.pass.take() else {
            return CompactionStep::Done { compacted: None, stray: None, mended: false };
        };
        if pass.given_up || self.is_fenced() || self.is_installing() {
            return pass.abandoned();
        }
        loop {
            match &mut pass.stage {
                Stage::Keys if pass.at == pass.inputs.len() => {
                    let end = pass.end;
                    pass.inputs.retain(|input| input.base < end);
                    (pass.at, pass.position) = (0, 0);
                    let Some(copy) = self.begin_copy(&pass) else { return pass.abandoned() };
                    pass.stage = Stage::Copy(copy);
                }
                Stage::Copy(copy) if pass.at == copy.group.end || copy.gathered.len() >= COMPACTION_CHUNK_BYTES => {
                    if let Some(write) = copy.write(self.log) {
                        self.pass = Some(pass);
                        return CompactionStep::Write(write);
                    }
                    if pass.mend.is_some() && self.is_flushing() {
                        // It may write to the segment that is replaced, which may be the newest.
                        self.pass = Some(pass);
                        return CompactionStep::Wait;
                    }
                    let Some(len) = self.replace(&pass.inputs[copy.group.clone()], &copy.output) else {
                        return pass.abandoned();
                    };
                    pass.after += len;
                    if pass.mend.is_some() {
                        self.mended(pass.inputs[0]);
                        pass.stage = Stage::Over;
                    } else if pass.at == pass.inputs.len() {
                        self.cleaned_to = self.cleaned_to.max(pass.end);
                        pass.stage = Stage::Over;
                    } else {
                        let Some(copy) = self.begin_copy(&pass) else {
                            // The next call says so: what was written until now is to be kept.
                            (pass.stage, pass.given_up) = (Stage::Over, true);
                            self.pass = Some(pass);
                            return CompactionStep::Checkpoint;
                        };
                        pass.stage = Stage::Copy(copy);
                    }
                    self.pass = Some(pass);
                    return CompactionStep::Checkpoint;
                }
                Stage::Over => {
                    let (compacted, mended) = (Some((pass.before, pass.after)), pass.mend.is_some());
                    return CompactionStep::Done { compacted, stray: None, mended };
                }
                Stage::Keys | Stage::Copy(_) => {}
            }
            if let Some((from, to)) = pass.missing() {
                self.pass = Some(pass);
                return CompactionStep::Fetch(from, to);
            }
            let name = pass.inputs[pass.at];
            // It may have been deleted meanwhile.
            let Some(input) = self.segments.iter().find(|segment| segment.meta.name == name) else {
                return pass.abandoned();
            };
            if pass.position < input.meta.len {
                let len = pass.larger.take().unwrap_or(COMPACTION_CHUNK_BYTES as u32);
                let len = u64::from(len).min(input.meta.len - pass.position) as u32;
                let read = DiskRead { segment: self.file(name, SegmentFile::Log), position: pass.position, len };
                self.pass = Some(pass);
                return CompactionStep::Read(read);
            }
            if pass.has_all() {
                (pass.at, pass.position) = (pass.at + 1, 0);
            }
        }
    }

    /// The next segments that together are no larger than one may be, as one.
    fn begin_copy(&self, pass: &Pass) -> Option<Box<Copy>> {
        let (mut end, mut bytes, mut revision) = (pass.at, 0, 0);
        let first = self.segments.iter().position(|segment| segment.meta.name == pass.inputs[pass.at])?;
        for (name, segment) in pass.inputs[pass.at..].iter().zip(&self.segments[first..]) {
            if segment.meta.name != *name {
                return None;
            }
            bytes += segment.meta.len;
            if end > pass.at && bytes > self.config.segment_bytes {
                break;
            }
            revision = revision.max(name.revision);
            end += 1;
        }
        let name = SegmentName { base: pass.inputs[pass.at].base, revision: revision + 1 };
        Some(Copy::begin(pass.at..end, Segment::empty(name, self.segments[first].meta.first_index)))
    }

    /// Takes what a read of the pass gave; `None` where it failed.
    pub fn compaction_read(&mut self, read: DiskRead, bytes: Option<Bytes>) {
        let Some(pass) = &mut self.pass else { return };
        if pass.mend.is_some() {
            let input = self.segments.iter().find(|segment| segment.meta.name == read.segment.name);
            let left = input.map_or(0, |input| input.meta.len.saturating_sub(read.position));
            return pass.mend_read(read, left, bytes.as_ref());
        }
        let Some(bytes) = bytes else {
            pass.given_up = true;
            return;
        };
        let (mut taken, mut opened_bytes) = (0, 0);
        for (at, batch) in split_batches(&bytes) {
            if batch.check_crc().is_err() {
                tracing::error!(log = %self.log, ?read, "records on disk are damaged: they are not compacted");
                pass.given_up = true;
                return self.note_damage(read.segment);
            }
            let body = opened(&batch);
            match &mut pass.stage {
                Stage::Keys => {
                    if body.as_ref().is_some_and(|body| !pass.keys.note(&batch, body, self.cleaned_to)) {
                        pass.end = batch.header.base_offset.get();
                        pass.at = pass.inputs.len();
                        return;
                    }
                }
                Stage::Copy(copy) => {
                    let horizon = pass.wall_ms.saturating_add(self.config.delete_retention_ms);
                    let dirty = batch.header.base_offset.get() >= pass.end;
                    match body.as_ref().filter(|_| !dirty) {
                        Some(body) => {
                            if let Some(batch) = pass.keys.filter(&batch, body, pass.wall_ms, horizon) {
                                copy.push(&batch);
                            }
                        }
                        None => copy.push(&batch),
                    }
                }
                Stage::Over => unreachable!("nothing is read when all is written"),
            }
            taken = at + batch.len();
            opened_bytes += body.map_or(0, |body| body.len());
            if opened_bytes >= MAX_DECOMPRESSED_BYTES {
                // The rest is for the next step: each must be short.
                break;
            }
        }
        if taken == 0 {
            match BatchHeader::peek(&bytes).map(|header| header.total_len()) {
                Some(len) if len > bytes.len() && (read.len as usize) < len => pass.larger = Some(len as u32),
                _ => pass.given_up = true,
            }
        }
        pass.position += taken as u64;
    }

    /// A write of the pass has ended.
    pub fn compaction_written(&mut self, outcome: FlushOutcome) {
        let Some(pass) = &mut self.pass else { return };
        match (&mut pass.stage, outcome) {
            (Stage::Copy(copy), FlushOutcome::Durable) => copy.durable(),
            _ => pass.given_up = true,
        }
    }

    /// Puts the output in the place of its group and returns its length; `None` where that is not there any more.
    fn replace(&mut self, group: &[SegmentName], output: &Segment) -> Option<u64> {
        let first = self.segments.iter().position(|segment| segment.meta.name == group[0])?;
        let range = first..first + group.len();
        let there = self.segments.get(range.clone())?;
        if !there.iter().map(|segment| segment.meta.name).eq(group.iter().copied()) {
            return None;
        }
        let mut output = output.clone();
        output.meta.next_offset = there.last()?.meta.next_offset;
        let len = output.meta.len;
        let output = (len > 0).then_some(output);
        self.released.extend(self.segments.splice(range, output).map(|segment| segment.meta.name));
        Some(len)
    }
}

impl Pass {
    /// One that copies this segment whole.
    pub(super) fn to_mend(segment: &Segment, mend: Mend) -> Pass {
        let input = segment.meta.name;
        let output = SegmentName { revision: input.revision + 1, ..input };
        Pass {
            keys: Keys { hasher: SipHasher13::new(), last: Map::default() },
            mend: Some(mend),
            inputs: vec![input],
            end: input.base,
            stage: Stage::Copy(Copy::begin(0..1, Segment::empty(output, segment.meta.first_index))),
            at: 0,
            position: 0,
            larger: None,
            wall_ms: 0,
            before: segment.meta.len,
            after: 0,
            given_up: false,
        }
    }

    fn abandoned(self: Box<Pass>) -> CompactionStep {
        let stray = match self.stage {
            Stage::Copy(copy) if copy.begun => Some(copy.output.meta.name),
            _ => None,
        };
        CompactionStep::Done { compacted: None, stray, mended: false }
    }
}

impl Keys {
    /// Notes the keys of a batch from `from` on. False where there is no room for them.
    fn note(&mut self, batch: &Batch, body: &[u8], from: Offset) -> bool {
        let most = batch.header.record_count.get().max(0) as usize;
        if !self.last.is_empty() && self.last.len() + most > MAX_COMPACTION_KEYS {
            return false;
        }
        for record in records(&batch.header, body).filter(|record| record.offset >= from) {
            if let Some(key) = record.key {
                let hash = self.hash(key);
                self.last.insert(hash, record.offset);
            }
        }
        true
    }

    /// What is kept of a batch: without records that a later one replaces, and without those that end a key and were
    /// needed until a time that is over.
    fn filter(&self, batch: &Batch, body: &[u8], wall_ms: i64, horizon: i64) -> Option<Batch> {
        let over = batch.header.delete_horizon().is_some_and(|until| wall_ms >= until);
        let (mut all, mut ends) = (0, false);
        let kept: Vec<Record<'_>> = records(&batch.header, body)
            .inspect(|_| all += 1)
            .filter(|record| !self.replaced(record) && (record.has_value || record.key.is_none() || !over))
            .inspect(|record| ends |= !record.has_value && record.key.is_some())
            .collect();
        if kept.is_empty() {
            return None;
        }
        let horizon = (ends && batch.header.delete_horizon().is_none()).then_some(horizon);
        let changed = kept.len() < all || horizon.is_some();
        // Where a delete horizon is known already, it stays.
        let horizon = horizon.or(batch.header.delete_horizon());
        let rewritten = if changed { batch.with_records(&kept, horizon) } else { None };
        Some(rewritten.unwrap_or_else(|| batch.clone()))
    }
}

/// The records of a batch; `None` for one that is kept whole: markers of transactions, and what cannot be opened or is
/// not well-formed.
fn opened(batch: &Batch) -> Option<Bytes> {
    let header = &batch.header;
    if header.is_control() || header.is_transactional() {
        return None;
    }
    let body = batch.open()?;
    let count = usize::try_from(header.record_count.get()).ok()?;
    (count <= MAX_COMPACTION_KEYS && records(header, &body).count() == count).then_some(body)
}

impl Copy {
    fn begin(group: Range<usize>, output: Segment) -> Box<Copy> {
        Box::new(Copy { group, output, written: 0, gathered: Vec::new(), begun: false, indexed: false })
    }

    pub(super) fn push(&mut self, batch: &Batch) {
        let (index, term) = (self.output.meta.first_index, batch.header.leader_epoch.get());
        self.output.note(batch, index, term.max(0) as u64);
        self.gathered.extend_from_slice(batch.header.as_bytes());
        self.gathered.extend_from_slice(&batch.body);
    }

    /// The next write: of records, or when there are no more, of the index.
    fn write(&mut self, log: LogId) -> Option<FlushWrite> {
        let file = |file| SegmentRef { log, name: self.output.meta.name, file };
        if !self.gathered.is_empty() {
            self.begun = true;
            let body = std::mem::take(&mut self.gathered).into();
            let data = vec![Chunk { head: SmallVec::new(), body }];
            return Some(FlushWrite { segment: file(SegmentFile::Log), position: self.written, data });
        }
        let entries = self.output.index_to_write(true);
        if entries.is_empty() || self.indexed {
            return None;
        }
        self.indexed = true;
        let data = vec![Chunk { head: SmallVec::new(), body: entries.as_bytes().to_vec().into() }];
        let position = self.output.meta.index_persisted * INDEX_ENTRY_LEN as u64;
        Some(FlushWrite { segment: file(SegmentFile::Index), position, data })
    }

    fn durable(&mut self) {
        if self.indexed {
            let count = self.output.index_to_write(true).len();
            self.output.index_written(count);
        } else {
            self.written = self.output.meta.len;
        }
    }
}

#[cfg(test)]
mod tests;
