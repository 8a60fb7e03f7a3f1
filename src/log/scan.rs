//! Reading one WAL at a start: finds where it ends, and tells a torn tail from damage.
//!
//! The rule: writes are walked in the order of their sequence. Where the next one, `h`, cannot be read, every
//! header that lies behind that place is looked at. If one says that `h` was durable when it was encoded, then
//! acknowledged data is damaged; the walk goes on behind the damage, for what later checkpoints say. If none does,
//! nobody was ever told that `h` or anything after it is durable: the log ends there.

use bytes::Bytes;

use super::disk::WalConfig;
use super::pins::{Note, Pins};
use super::recovery::{Found, RecoveryError, WalSeed};
use super::slots::Free;
use super::wal::Segment;
use super::wal_format::{Frames, HEADER_BYTES, NotAHeader, WriteHeader};
use super::{Device, FileId, WalId};
use crate::limits::BLOCK;

/// Bytes of one read of the device, where a write is not larger.
const WINDOW_BYTES: u64 = 2 * 1024 * 1024;

/// One file of the WAL.
struct Slot {
    slot: u32,
    /// Bytes of the file.
    len: u64,
    /// Its first write, where that can be read.
    head: Option<WriteHeader>,
}

/// Sequential reading of one file through a window.
struct Reader<'a> {
    device: &'a dyn Device,
    file: FileId,
    /// Whole blocks of the file.
    len: u64,
    start: u64,
    window: Bytes,
}

impl<'a> Reader<'a> {
    fn new(device: &'a dyn Device, wal: WalId, slot: &Slot) -> Reader<'a> {
        Reader {
            device,
            file: FileId::Wal { wal, slot: slot.slot },
            len: slot.len - slot.len % BLOCK as u64,
            start: 0,
            window: Bytes::new(),
        }
    }

    /// `len` bytes at `offset`; `None` where the file ends before.
    fn get(&mut self, offset: u64, len: u64) -> Result<Option<Bytes>, RecoveryError> {
        if offset.checked_add(len).is_none_or(|end| end > self.len) {
            return Ok(None);
        }
        let covered = self.start + self.window.len() as u64;
        if offset < self.start || offset + len > covered {
            let read = len.max(WINDOW_BYTES).min(self.len - offset);
            self.window = self.read(offset, read)?;
            self.start = offset;
        }
        let from = (offset - self.start) as usize;
        Ok(Some(self.window.slice(from..from + len as usize)))
    }

    fn read(&mut self, offset: u64, len: u64) -> Result<Bytes, RecoveryError> {
        // A window of which nobody kept a slice is used again: the first touch of fresh memory costs more than
        // reading into it.
        let window = std::mem::take(&mut self.window);
        let mut bytes = window.try_into_mut().unwrap_or_default();
        bytes.resize(len as usize, 0);
        (self.device)
            .read_exact_at(self.file, offset, &mut bytes)
            .map_err(|cause| RecoveryError::Io { file: self.file.to_string(), cause })?;
        Ok(bytes.freeze())
    }

    /// The header at `offset`, if there is a whole one.
    fn header(&mut self, offset: u64) -> Result<Option<WriteHeader>, RecoveryError> {
        let block = self.get(offset, BLOCK as u64)?;
        Ok(block.and_then(|block| WriteHeader::decode(&block).ok()))
    }

    /// The frames of the write at `offset`, if its payload is whole.
    fn payload(&mut self, offset: u64, header: &WriteHeader) -> Result<Option<Bytes>, RecoveryError> {
        let Some(write) = self.get(offset, header.write_len())? else {
            return Ok(None);
        };
        let payload = write.slice(HEADER_BYTES..HEADER_BYTES + header.payload_len as usize);
        Ok((crc32fast::hash(&payload) == header.payload_crc).then_some(payload))
    }
}

/// Where the walk stands.
#[derive(Clone, Copy)]
struct Walk {
    /// The segment, by its place among the slots.
    at: usize,
    offset: u64,
    /// The write that is expected next.
    sequence: u64,
    /// The first write that a later segment holds: from there on this segment's own do not count. A start that cut
    /// the log off has opened that segment; a write that the process before it had in flight may have arrived since.
    end: u64,
}

/// Reads the WAL `wal` whole. The frames go to `found` in their order.
pub(super) fn scan(
    device: &dyn Device,
    wal: WalId,
    config: &WalConfig,
    files: &[(FileId, u64)],
    found: &mut Found,
) -> Result<WalSeed, RecoveryError> {
    let slots = read_heads(device, wal, files)?;
    let mut seed = WalSeed::default();
    let mut walk = Walk { at: 0, offset: 0, sequence: 1, end: u64::MAX };
    let mut visited = vec![false; slots.len()];
    let (oldest, first) = find_oldest(device, wal, &slots)?;
    let mut damage = None;
    if let Some((at, head)) = first.and_then(|at| Some((at, slots[at].head?))) {
        walk = Walk { at, sequence: head.sequence, ..walk };
        if head.generation != oldest {
            let file = FileId::Wal { wal, slot: slots[slots.len() - 1].slot }.to_string();
            damage = Some(RecoveryError::Missing { wal, generation: oldest, file });
        }
    }
    let mut goes_on = first.is_some();
    let behind = loop {
        while goes_on {
            visited[walk.at] = true;
            let later = slots[walk.at + 1..].iter().filter_map(|slot| slot.head);
            walk.end = later.map(|head| head.sequence).min().unwrap_or(u64::MAX);
            walk_segment(device, wal, &slots[walk.at], &mut walk, &mut seed, found)?;
            goes_on = false;
            if let Some(at) = next_segment(&slots, walk.at, walk.sequence) {
                walk = Walk { at, offset: 0, ..walk };
                goes_on = true;
            }
        }
        let behind = look_behind(device, wal, &slots, &visited, &walk, seed.last_generation)?;
        let Some((later, file, offset)) = behind.proof else { break behind };
        damage.get_or_insert_with(|| damaged(wal, &slots, &walk, &later, file, offset));
        match behind_damage(device, wal, &slots, &walk)? {
            Some(next) => (walk, goes_on) = (next, true),
            None => break behind,
        }
    };
    seed.last_generation = seed.last_generation.max(behind.generation);
    seed.last_sequence = walk.sequence - 1;
    found.report.torn_bytes += behind.bytes;
    if damage.is_some() {
        // The number of the damaged write stays unused: until the damage is forgotten, each start must see it.
        seed.last_sequence = seed.last_sequence.max(behind.sequence);
        seed.held = Some(oldest);
        seed.damage = damage;
    }
    let live = |slot: &Slot| seed.segments.iter().any(|segment| segment.slot == slot.slot);
    for slot in slots.iter().filter(|slot| !live(slot)) {
        // One that was never written to may have been made in part only.
        match slot.len == config.segment_bytes || slot.head.is_some() {
            true => seed.free.push(Free { slot: slot.slot, len: slot.len }),
            false => seed.unwanted.push(slot.slot),
        }
    }
    Ok(seed)
}

/// The slots, by the generation of their contents; those without come first.
fn read_heads(device: &dyn Device, wal: WalId, files: &[(FileId, u64)]) -> Result<Vec<Slot>, RecoveryError> {
    let mut slots = Vec::new();
    for (file, len) in files {
        let FileId::Wal { wal: of, slot } = *file else {
            continue;
        };
        if of != wal {
            continue;
        }
        let mut slot = Slot { slot, len: *len, head: None };
        let block = match slot.len >= BLOCK as u64 {
            true => Reader::new(device, wal, &slot).read(0, BLOCK as u64)?,
            false => Bytes::new(),
        };
        slot.head = match WriteHeader::decode(&block) {
            Ok(header) => (header.wal == wal).then_some(header),
            Err(NotAHeader::Unreadable) => None,
            Err(NotAHeader::Version(version)) => {
                return Err(RecoveryError::Version { file: file.to_string(), version });
            }
        };
        slots.push(slot);
    }
    slots.sort_by_key(|slot| (slot.head.map(|head| head.generation), slot.slot));
    for pair in slots.windows(2) {
        if let [Some(first), Some(second)] = [pair[0].head, pair[1].head]
            && first.generation == second.generation
        {
            let name = |slot: &Slot| {
                let slot = slot.slot;
                FileId::Wal { wal, slot }.to_string()
            };
            return Err(RecoveryError::Copy { first: name(&pair[0]), second: name(&pair[1]) });
        }
    }
    Ok(slots)
}

/// The generation of the oldest segment that is needed, and the place of the first that is there from it on; none
/// where there is no segment at all. Older segments may be overwritten in part already, so nothing is read of them.
fn find_oldest(device: &dyn Device, wal: WalId, slots: &[Slot]) -> Result<(u64, Option<usize>), RecoveryError> {
    let Some((newest, head)) = slots.last().and_then(|newest| Some((newest, newest.head?))) else {
        return Ok((0, None));
    };
    // A slot is overwritten only after a durable write has named a later oldest segment: that write is in the
    // newest segment, or before that segment's first write, which then names it too.
    let heads = slots.iter().filter_map(|slot| slot.head);
    let mut oldest = heads.map(|head| head.oldest).max().unwrap_or(1);
    let mut reader = Reader::new(device, wal, newest);
    let (mut offset, mut sequence) = (0, head.sequence);
    while let Some(header) = reader.header(offset)?
        && (header.generation, header.sequence) == (head.generation, sequence)
    {
        oldest = oldest.max(header.oldest);
        offset += header.write_len();
        sequence += 1;
    }
    let place = (slots.iter()).position(|slot| slot.head.is_some_and(|head| head.generation >= oldest));
    Ok((oldest, place))
}

/// Takes all writes of a segment up to the first that is not the one expected.
fn walk_segment(
    device: &dyn Device,
    wal: WalId,
    slot: &Slot,
    walk: &mut Walk,
    seed: &mut WalSeed,
    found: &mut Found,
) -> Result<(), RecoveryError> {
    let Some(head) = slot.head else {
        return Ok(());
    };
    let generation = head.generation;
    if seed.last_generation != generation {
        found.report.segments += 1;
    }
    seed.last_generation = generation;
    let mut reader = Reader::new(device, wal, slot);
    while walk.sequence < walk.end
        && let Some(header) = reader.header(walk.offset)?
        && (header.wal, header.generation, header.sequence) == (wal, generation, walk.sequence)
        && let Some(payload) = reader.payload(walk.offset, &header)?
    {
        let malformed = || RecoveryError::Malformed { file: reader.file.to_string(), offset: walk.offset };
        if seed.segments.last().is_none_or(|newest| newest.generation != generation) {
            seed.pins.open(generation);
            seed.segments.push(Segment { generation, slot: slot.slot, len: slot.len, used: 0, in_flight: 0 });
        }
        let mut frames = 0;
        for frame in Frames::new(payload) {
            let (frame, payload) = frame.map_err(|_| malformed())?;
            apply(&mut seed.pins, generation, &frame);
            found.frame(&frame, payload);
            frames += 1;
        }
        if frames != header.frames {
            return Err(malformed());
        }
        seed.confirmed = header.confirmed;
        seed.oldest = header.oldest;
        if frames > 0 {
            seed.last_framed = header.sequence;
        }
        found.report.writes += 1;
        found.report.frames += u64::from(frames);
        found.report.bytes += u64::from(header.payload_len);
        walk.offset += header.write_len();
        walk.sequence += 1;
        if let Some(newest) = seed.segments.last_mut() {
            newest.used = walk.offset;
        }
    }
    Ok(())
}

fn apply(pins: &mut Pins, generation: u64, frame: &super::wal_format::FrameHeader) {
    let note = Note { log: frame.log, kind: frame.kind, first: frame.index, last: frame.index };
    pins.apply(generation, &note);
}

/// The segment that goes on with the write that is expected. A start that cut the log off opens a new segment
/// with the same sequence as what it dropped: the newest is the one that counts.
fn next_segment(slots: &[Slot], at: usize, sequence: u64) -> Option<usize> {
    (at + 1..slots.len()).rev().find(|at| slots[*at].head.is_some_and(|head| head.sequence == sequence))
}

/// The first write behind a damaged one, at which the walk stands, that has a header.
fn behind_damage(device: &dyn Device, wal: WalId, slots: &[Slot], walk: &Walk) -> Result<Option<Walk>, RecoveryError> {
    let slot = &slots[walk.at];
    if let Some(head) = slot.head {
        let mut reader = Reader::new(device, wal, slot);
        let own = |header: &WriteHeader| (header.wal, header.generation) == (wal, head.generation);
        // Bytes of a damaged payload are no headers.
        let known = reader.header(walk.offset)?.filter(|header| own(header) && header.sequence == walk.sequence);
        let mut offset = walk.offset + known.map_or(BLOCK as u64, |header| header.write_len());
        while let Some(block) = reader.get(offset, BLOCK as u64)? {
            if let Ok(header) = WriteHeader::decode(&block)
                && own(&header)
                && (walk.sequence + 1..walk.end).contains(&header.sequence)
            {
                return Ok(Some(Walk { offset, sequence: header.sequence, ..*walk }));
            }
            offset += BLOCK as u64;
        }
    }
    let next = next_segment(slots, walk.at, walk.end);
    Ok(next.map(|at| Walk { at, offset: 0, sequence: walk.end, end: u64::MAX }))
}

/// What lies behind the place where the log seems to end.
struct Behind {
    /// A write that proves that the log does not end there, its file, and where in it.
    proof: Option<(WriteHeader, FileId, u64)>,
    /// The highest generation and sequence.
    generation: u64,
    sequence: u64,
    /// Bytes of all writes.
    bytes: u64,
}

/// Looks at every header behind the place where the log seems to end, in the segment `ended_in`.
fn look_behind(
    device: &dyn Device,
    wal: WalId,
    slots: &[Slot],
    visited: &[bool],
    walk: &Walk,
    ended_in: u64,
) -> Result<Behind, RecoveryError> {
    let mut behind = Behind { proof: None, generation: 0, sequence: 0, bytes: 0 };
    for (at, slot) in slots.iter().enumerate() {
        let last = visited[at] && at == walk.at;
        if visited[at] && !last {
            continue;
        }
        let mut reader = Reader::new(device, wal, slot);
        let mut offset = if last { walk.offset } else { 0 };
        while let Some(block) = reader.get(offset, BLOCK as u64)? {
            if let Ok(header) = WriteHeader::decode(&block)
                && header.wal == wal
                && (header.generation > ended_in || last && header.generation == ended_in)
            {
                if header.confirmed >= walk.sequence && behind.proof.is_none() {
                    behind.proof = Some((header, reader.file, offset));
                }
                behind.generation = behind.generation.max(header.generation);
                behind.sequence = behind.sequence.max(header.sequence);
                behind.bytes += header.write_len();
            }
            offset += BLOCK as u64;
        }
    }
    Ok(behind)
}

fn damaged(
    wal: WalId,
    slots: &[Slot],
    walk: &Walk,
    later: &WriteHeader,
    later_file: FileId,
    later_offset: u64,
) -> RecoveryError {
    // Where no segment has a readable beginning, it is the one with the later write that lost its own.
    let file = match &slots[walk.at] {
        Slot { slot, head: Some(_), .. } => FileId::Wal { wal, slot: *slot },
        _ => later_file,
    };
    RecoveryError::Damaged {
        file: file.to_string(),
        offset: walk.offset,
        sequence: walk.sequence,
        later: later.sequence,
        later_file: later_file.to_string(),
        later_offset,
    }
}
