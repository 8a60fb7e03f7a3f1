//! A segment that cannot be read as it was written is written anew, as compaction does it: what is well from the disk,
//! the rest from other replicas. What lies in segments is committed, so whoever has it has the same.
//!
//! A batch's checksum does not cover its offset. So where others can be asked, only a batch that begins exactly where the
//! one before ended is taken from the disk; what was left out by compaction is left out by the others too.

use bytes::Bytes;

use super::Partition;
use super::compact::{Pass, Stage};
use super::read::DiskRead;
use super::segments::Segment;
use crate::limits::{MAX_BATCH_BYTES, MEND_AGAIN_MS};
use crate::log::{Chunk, SegmentFile, SegmentName, SegmentRef};
use crate::record::{BatchHeader, split_batches};
use crate::types::{Mono, Now, Offset};

/// A segment that was found damaged.
pub(super) struct Damage {
    segment: SegmentName,
    /// Of records; otherwise only of its index, which can be made from them.
    of_records: bool,
    /// When it was tried last to mend it.
    tried: Option<Mono>,
}

/// What is particular to a pass that mends.
pub(super) struct Mend {
    /// The first record that is not in the new segment yet.
    next: Offset,
    /// The offset after the last.
    end: Offset,
    /// Whether other replicas can be asked.
    shared: bool,
    /// What is next cannot be read here.
    missing: bool,
}

impl Partition {
    /// Notes that a segment's file cannot be read as it was written.
    pub(super) fn note_damage(&mut self, file: SegmentRef) {
        let of_records = file.file == SegmentFile::Log;
        let known = self.damage.as_ref().filter(|known| known.segment == file.name);
        let tried = known.and_then(|known| known.tried);
        let of_records = of_records || known.is_some_and(|known| known.of_records);
        self.damage = Some(Damage { segment: file.name, of_records, tried });
    }

    /// Whether a damaged segment was found that there is a way to mend: by its records, or by other replicas.
    pub fn is_mendable(&self) -> bool {
        self.damage.as_ref().is_some_and(|damage| !damage.of_records || self.is_replicated())
    }

    /// Whether that is to be done now.
    pub fn wants_mend(&self, now: Now) -> bool {
        let again = |tried: Mono| now.mono >= tried.plus_millis(MEND_AGAIN_MS);
        self.is_mendable() && self.damage.as_ref().is_some_and(|damage| damage.tried.is_none_or(again))
    }

    /// Begins to write the damaged segment anew: call [`Partition::compaction_step`] then. Whether it did; otherwise try
    /// again while [`Partition::wants_mend`].
    pub fn begin_mend(&mut self, now: Now) -> bool {
        let idle = self.pass.is_none() && !self.is_flushing() && !self.is_installing();
        let shared = self.is_replicated();
        let Some(damage) = self.damage.as_mut().filter(|_| idle) else { return false };
        let Some(segment) = self.segments.iter().find(|segment| segment.meta.name == damage.segment) else {
            // It was deleted meanwhile.
            self.damage = None;
            return false;
        };
        damage.tried = Some(now.mono);
        let mend = Mend { next: segment.meta.name.base, end: segment.meta.next_offset, shared, missing: false };
        let pass = Pass::to_mend(segment, mend);
        self.pass = Some(Box::new(pass));
        true
    }

    /// Whether nothing may be appended to a segment any more. One that was written anew has no end to go on from.
    pub(super) fn is_closed(&self, segment: &Segment) -> bool {
        let name = segment.meta.name;
        name.revision > 0 || self.damage.as_ref().is_some_and(|damage| damage.segment == name)
    }

    /// A segment was written anew.
    pub(super) fn mended(&mut self, segment: SegmentName) {
        self.damage = self.damage.take().filter(|damage| damage.segment != segment);
    }

    /// Other replicas were asked in vain for what a pass that mends lacks.
    pub fn give_mend_up(&mut self) {
        if let Some(pass) = &mut self.pass {
            pass.given_up = true;
        }
    }

    /// Takes records that another replica has from `offset` on; without any it has none before `offset`. Whether they
    /// were wanted.
    pub fn mend_fetched(&mut self, offset: Offset, batches: &[Chunk]) -> bool {
        let Some(pass) = &mut self.pass else { return false };
        let (Some(mend), Stage::Copy(copy)) = (&mut pass.mend, &mut pass.stage) else { return false };
        if !mend.missing {
            return false;
        }
        let before = mend.next;
        if batches.is_empty() && (mend.next..=mend.end).contains(&offset) {
            mend.next = offset;
        }
        for (_, batch) in batches.iter().filter(|_| offset == before).flat_map(|chunk| split_batches(&chunk.body)) {
            let header = &batch.header;
            if header.base_offset.get() < mend.next || header.last_offset() >= mend.end || batch.check_crc().is_err() {
                break;
            }
            copy.push(&batch);
            mend.next = header.last_offset() + 1;
            // Where nothing was compacted, what follows here begins as far behind the damage as it does there.
            pass.position += batch.len() as u64;
        }
        if mend.next == mend.end {
            pass.at += 1;
        }
        let taken = mend.next > before;
        mend.missing &= !taken;
        taken
    }
}

impl Pass {
    /// What other replicas are to be asked for: from the first of these offsets on, up to the second.
    pub(super) fn missing(&self) -> Option<(Offset, Offset)> {
        self.mend.as_ref().filter(|mend| mend.missing).map(|mend| (mend.next, mend.end))
    }

    /// Takes what a read gave for a pass that mends; `None` where it failed. `left` bytes of the segment's file were there
    /// to be read.
    pub(super) fn mend_read(&mut self, read: DiskRead, left: u64, bytes: Option<&Bytes>) {
        let (Some(mend), Stage::Copy(copy)) = (&mut self.mend, &mut self.stage) else { return };
        let mut taken = 0;
        for (at, batch) in bytes.into_iter().flat_map(split_batches) {
            let (base, last) = (batch.header.base_offset.get(), batch.header.last_offset());
            let follows = base == mend.next || !mend.shared && base > mend.next;
            if !follows || !(base..mend.end).contains(&last) || batch.check_crc().is_err() {
                break;
            }
            copy.push(&batch);
            mend.next = last + 1;
            taken = at + batch.len();
        }
        self.position += taken as u64;
        if taken > 0 {
            return;
        }
        let len = bytes.and_then(|bytes| BatchHeader::peek(bytes)).map_or(0, |header| header.total_len());
        if len > read.len as usize && len as u64 <= left && len <= MAX_BATCH_BYTES {
            self.larger = Some(len as u32);
        } else if mend.shared {
            mend.missing = true;
        } else {
            self.given_up = true;
        }
    }

    /// The whole file was read. Whether a pass that mends has all records now; otherwise it asks for the rest.
    pub(super) fn has_all(&mut self) -> bool {
        let Some(mend) = &mut self.mend else { return true };
        // Of a log that nobody else has, compaction may have removed the last ones.
        mend.missing = mend.shared && mend.next < mend.end;
        !mend.missing
    }
}

#[cfg(test)]
mod tests;
