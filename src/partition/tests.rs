use std::collections::BTreeMap;

use super::*;
use crate::log::recovery::{RecoveredCheckpoint, RecoveredEntry};
use crate::metadata::configs::Cleanup;
use crate::record::{encoded, split_batches};
use crate::types::Mono;

/// A disk that does at once what it is asked, and can be lost but for what the WAL and the segments hold.
#[derive(Default)]
pub(super) struct Disk {
    pub(super) frames: Vec<Frame>,
    files: BTreeMap<SegmentRef, Vec<u8>>,
}

impl Disk {
    pub(super) fn recovered(&self) -> RecoveredLog {
        let mut log = RecoveredLog {
            log: LogId(1),
            checkpoint: None,
            hard_state: None,
            entries: Vec::new(),
            segments: self.files.keys().map(|file| file.name).collect(),
        };
        for frame in &self.frames {
            let payload: Bytes = [&frame.head[..], &frame.body[..]].concat().into();
            let (index, term) = (frame.index, frame.term);
            match frame.kind {
                FrameKind::Entry => {
                    log.entries.retain(|entry| entry.index < index);
                    log.entries.push(RecoveredEntry { index, term, payload });
                }
                FrameKind::HardState => log.hard_state = Some(payload),
                FrameKind::Checkpoint => {
                    log.entries.retain(|entry| entry.index > index);
                    log.hard_state = None;
                    log.checkpoint = Some(RecoveredCheckpoint { index, term, payload });
                }
                FrameKind::Snapshot => {
                    log.entries.clear();
                    log.hard_state = None;
                    log.checkpoint = Some(RecoveredCheckpoint { index, term, payload });
                }
                FrameKind::Deleted => unreachable!(),
            }
        }
        log
    }

    pub(super) fn write(&mut self, write: &FlushWrite) {
        let file = self.files.entry(write.segment).or_default();
        file.truncate(write.position as usize);
        for chunk in &write.data {
            file.extend_from_slice(&chunk.head);
            file.extend_from_slice(&chunk.body);
        }
    }

    pub(super) fn flush(&mut self, partition: &mut Partition) {
        let mut step = partition.flush(true);
        loop {
            match step {
                FlushStep::Write(write) => {
                    self.write(&write);
                    (step, _) = partition.flush_written(FlushOutcome::Durable);
                }
                FlushStep::Checkpoint { frames, released } => {
                    self.frames.extend(frames);
                    partition.checkpoint_durable();
                    self.files.retain(|file, _| !released.contains(&file.name));
                    return;
                }
                FlushStep::Done => return,
            }
        }
    }

    /// Carries out a step of a pass, where that is the disk's to do; what is not is given back.
    pub(super) fn carry_out(&mut self, partition: &mut Partition, step: CompactionStep) -> Option<CompactionStep> {
        match step {
            CompactionStep::Read(read) => {
                let bytes = self.read(read);
                partition.compaction_read(read, Some(bytes));
            }
            CompactionStep::Write(write) => {
                self.write(&write);
                partition.compaction_written(FlushOutcome::Durable);
            }
            CompactionStep::Checkpoint => self.flush(partition),
            step => return Some(step),
        }
        None
    }

    /// How many files there are.
    pub(super) fn files(&self) -> usize {
        self.files.len()
    }

    pub(super) fn names(&self) -> Vec<SegmentName> {
        self.files.keys().map(|file| file.name).collect()
    }

    /// The files, each with its length in bytes.
    pub(super) fn lengths(&self) -> Vec<(SegmentRef, usize)> {
        self.files.iter().map(|(file, bytes)| (*file, bytes.len())).collect()
    }

    /// Flips a bit of a byte of a file.
    pub(super) fn flip(&mut self, file: SegmentRef, at: usize) {
        self.files.get_mut(&file).unwrap()[at] ^= 1 << (at % 8);
    }

    pub(super) fn remove(&mut self, segment: SegmentName) {
        self.files.retain(|file, _| file.name != segment);
    }

    pub(super) fn read(&self, read: DiskRead) -> Bytes {
        let file = &self.files[&read.segment];
        let end = file.len().min(read.position as usize + read.len as usize);
        Bytes::copy_from_slice(&file[read.position as usize..end])
    }
}

pub(super) fn config() -> TopicConfig {
    TopicConfig {
        segment_bytes: 100_000,
        segment_ms: i64::MAX,
        cleanup: Cleanup { delete: true, compact: false },
        retention_ms: -1,
        retention_bytes: -1,
        delete_retention_ms: 0,
        min_compaction_lag_ms: 0,
        max_compaction_lag_ms: i64::MAX,
        min_cleanable_ratio: 0.5,
        max_message_bytes: 1_000_000,
        timestamp_type: TimestampType::CreateTime,
        timestamp_before_max_ms: i64::MAX,
        timestamp_after_max_ms: i64::MAX,
        min_insync_replicas: 1,
    }
}

fn open(disk: &Disk) -> Partition {
    open_with(disk, config())
}

pub(super) fn open_with(disk: &Disk, config: TopicConfig) -> Partition {
    let logger = slog::Logger::root(slog::Discard, slog::o!());
    let recovered = (!disk.frames.is_empty()).then(|| disk.recovered());
    let mut partition =
        Partition::open(LogId(1), (BrokerId(0), 0), &[BrokerId(0)], config, recovered, &logger).unwrap();
    partition.campaign();
    partition
}

pub(super) fn persist(partition: &mut Partition, disk: &mut Disk) {
    if let Some(ready) = partition.take_frames(&mut disk.frames) {
        partition.persisted(ready.number);
        assert!(partition.take_frames(&mut disk.frames).is_none());
    }
}

pub(super) fn now(wall_ms: i64) -> Now {
    Now { mono: Mono(0), wall_ms }
}

pub(super) fn batch(values: &[&[u8]], timestamp: i64) -> Batch {
    Batch::parse_produced(&encoded(values, timestamp)).unwrap()
}

/// Reads everything from `offset` to the high watermark the way a consumer does.
pub(super) fn consume(partition: &mut Partition, disk: &Disk, offset: Offset) -> Vec<Batch> {
    consume_undamaged(partition, disk, offset).expect("nothing is damaged")
}

/// The same; none where damage is in the way.
pub(super) fn consume_undamaged(partition: &mut Partition, disk: &Disk, mut offset: Offset) -> Option<Vec<Batch>> {
    let mut out = Vec::new();
    while offset < partition.high_watermark() {
        let found = match partition.read(offset, 50_000) {
            Err(ReadError::Corrupt) => return None,
            found => found.unwrap(),
        };
        match found {
            Found::Here(records) => {
                assert!(records.len > 0, "nothing at {offset}");
                let bytes: Bytes = records.chunks.concat().into();
                for (_, batch) in split_batches(&bytes) {
                    batch.check_crc().unwrap();
                    assert!(batch.header.last_offset() >= offset);
                    offset = batch.header.last_offset() + 1;
                    out.push(batch);
                }
            }
            Found::OnDisk(mut read) => loop {
                match partition.read_done(read, disk.read(read)) {
                    ReadDone::Larger(larger) => read = larger,
                    ReadDone::Damaged => return None,
                    ReadDone::Chunk { .. } | ReadDone::Index => break,
                    ReadDone::Gone => panic!("nothing was deleted"),
                }
            },
        }
    }
    Some(out)
}

#[test]
fn nothing_is_readable_before_it_is_durable() {
    let mut disk = Disk::default();
    let mut partition = open(&disk);
    assert_eq!(partition.append(now(0), batch(&[b"a"], 0)), Err(AppendError::NotLeader), "the term is not durable");
    persist(&mut partition, &mut disk);
    assert!(partition.is_up());
    let appended = partition.append(now(0), batch(&[b"a", b"b"], 0)).unwrap();
    assert_eq!((appended.base_offset, appended.next_offset), (0, 2));
    let ready = partition.take_frames(&mut disk.frames).unwrap();
    assert!(matches!(partition.read(0, 100), Ok(Found::Here(records)) if records.len == 0));
    assert!(partition.persisted(ready.number));
    assert_eq!(partition.high_watermark(), 2);
    assert_eq!(consume(&mut partition, &disk, 0).len(), 1);
    assert_eq!(partition.read(3, 100).err(), Some(ReadError::OutOfRange));
}

#[test]
fn a_restart_serves_what_was_durable_from_wal_and_segments() {
    let mut disk = Disk::default();
    let mut partition = open(&disk);
    persist(&mut partition, &mut disk);
    let value = vec![5u8; 9_000];
    for i in 0..60i64 {
        partition.append(now(0), batch(&[&value, &[i as u8]], 1_000 + i)).unwrap();
        persist(&mut partition, &mut disk);
        if i % 7 == 0 {
            disk.flush(&mut partition);
        }
    }
    assert!(partition.segments.len() > 4, "{} segments", partition.segments.len());
    for run in 0..3 {
        while partition.evict_one().is_some() {}
        let read = consume(&mut partition, &disk, 0);
        assert_eq!(read.len(), 60, "run {run}");
        assert_eq!(partition.find_time_blocking(&disk, 1_030), Some((59, 1_030)), "the second record is 1 ms later");
        assert_eq!(partition.find_time_blocking(&disk, 1_060), Some((119, 1_060)));
        assert_eq!(partition.find_time_blocking(&disk, 1_061), None);
        partition = open(&disk);
        persist(&mut partition, &mut disk);
        assert_eq!(partition.epoch(), run + 2, "each start opens a term");
    }
    let after = partition.append(now(0), batch(&[b"more"], 2_000)).unwrap();
    assert_eq!(after.base_offset, 120);
    assert_eq!(partition.end_of_epoch(1), Some((1, 120)));
    assert_eq!(partition.epoch_of(119), 1);
}

#[test]
fn a_reader_leaves_one_chunk_behind_and_has_the_next_read_ahead() {
    let mut disk = Disk::default();
    let mut partition = open(&disk);
    partition.config.segment_bytes = 10 << 20;
    persist(&mut partition, &mut disk);
    let value = vec![5u8; 300_000];
    for _ in 0..10 {
        partition.append(now(0), batch(&[&value], 0)).unwrap();
        persist(&mut partition, &mut disk);
        disk.flush(&mut partition);
    }
    while partition.evict_one().is_some() {}
    // A reader that takes little reads little.
    let Ok(Found::OnDisk(small)) = partition.read(0, 1_000) else { panic!("all is on disk") };
    assert!(small.len < 100_000, "{} bytes", small.len);
    let (mut offset, mut spent) = (0, Vec::new());
    while offset < 10 {
        if let Found::OnDisk(read) = partition.read(offset, 1 << 20).unwrap() {
            assert!(matches!(partition.read_done(read, disk.read(read)), ReadDone::Chunk { replaced: false, .. }));
        }
        assert!(matches!(partition.read(offset, 1 << 20), Ok(Found::Here(_))));
        spent.extend(partition.spent_chunk(offset));
        if let Some(ahead) = partition.read_ahead(offset, 1 << 20) {
            assert!(matches!(partition.read_done(ahead, disk.read(ahead)), ReadDone::Chunk { .. }));
        }
        assert_eq!(partition.read_ahead(offset, 1 << 20), None, "it is read ahead once");
        offset += 3;
    }
    let batch_len = partition.segments[0].meta.len / 10;
    let batches: Vec<u64> = spent.iter().map(|place| place.position / batch_len).collect();
    assert_eq!(batches, [0, 3, 6]);
    partition.evict_chunk(spent[0]);
    assert_eq!(partition.spent_chunk(3), None, "it is gone");
}

impl Partition {
    fn find_time_blocking(&mut self, disk: &Disk, timestamp: i64) -> Option<(Offset, i64)> {
        loop {
            match self.find_time(timestamp).unwrap() {
                Found::Here(found) => return found,
                Found::OnDisk(read) => {
                    let done = self.read_done(read, disk.read(read));
                    assert!(!matches!(done, ReadDone::Damaged | ReadDone::Gone), "{done:?}");
                }
            }
        }
    }
}

#[test]
fn damage_on_disk_is_an_error_and_not_a_wrong_answer() {
    let mut disk = Disk::default();
    let mut partition = open(&disk);
    persist(&mut partition, &mut disk);
    partition.append(now(0), batch(&[&[1u8; 500]], 0)).unwrap();
    persist(&mut partition, &mut disk);
    disk.flush(&mut partition);
    while partition.evict_one().is_some() {}
    let Ok(Found::OnDisk(read)) = partition.read(0, 1_000) else { panic!("the batch is on disk") };
    let mut bytes = disk.read(read).to_vec();
    bytes[300] ^= 1;
    assert_eq!(partition.read_done(read, bytes.into()), ReadDone::Damaged);
    assert_eq!(partition.read(0, 1_000).err(), Some(ReadError::Corrupt));
}

/// A partition whose records, one a batch, are only on disk.
fn on_disk(disk: &mut Disk, records: &[&[u8]]) -> Partition {
    let mut partition = open(disk);
    persist(&mut partition, disk);
    for record in records {
        partition.append(now(0), batch(&[record], 0)).unwrap();
        persist(&mut partition, disk);
        disk.flush(&mut partition);
    }
    while partition.evict_one().is_some() {}
    partition
}

fn wanted(partition: &Partition, offset: Offset) -> DiskRead {
    match partition.read(offset, 10_000) {
        Ok(Found::OnDisk(read)) => read,
        other => panic!("expected a read of the disk, not {other:?}"),
    }
}

#[test]
fn a_chunk_that_ends_early_hides_no_other() {
    let mut disk = Disk::default();
    let mut partition = on_disk(&mut disk, &[b"a", b"b"]);
    let whole = wanted(&partition, 0);
    let len = (whole.len / 2) as usize;
    partition.read_done(whole, disk.read(whole).slice(..len));
    let second = wanted(&partition, 1);
    partition.read_done(second, disk.read(second));
    partition.evict_chunk(Place { segment: whole.segment.name, position: whole.position });
    for record in [b"c", b"d"] {
        partition.append(now(0), batch(&[record], 0)).unwrap();
        persist(&mut partition, &mut disk);
        disk.flush(&mut partition);
    }
    while partition.evict_one().is_some() {}
    let all = wanted(&partition, 3);
    assert_eq!(all.position, 0, "the index knows of no later place");
    partition.read_done(all, disk.read(all));
    assert!(matches!(partition.read(3, 10_000), Ok(Found::Here(records)) if records.len == len));
}

#[test]
fn a_read_behind_damage_comes_to_an_end() {
    let mut disk = Disk::default();
    let mut partition = on_disk(&mut disk, &[b"a", b"b", b"c"]);
    let read = wanted(&partition, 2);
    let mut bytes = disk.read(read).to_vec();
    let len = bytes.len() / 3;
    bytes[2 * len - 1] ^= 1;
    let bytes = Bytes::from(bytes);
    assert!(matches!(partition.read_done(read, bytes.clone()), ReadDone::Chunk { .. }));
    assert!(matches!(partition.read(0, 10_000), Ok(Found::Here(records)) if records.len == len));
    let behind = wanted(&partition, 2);
    assert_eq!(behind.position, len as u64);
    assert_eq!(partition.read_done(behind, bytes.slice(len..)), ReadDone::Damaged);
    assert_eq!(partition.read(2, 10_000).err(), Some(ReadError::Corrupt));
}

#[test]
fn a_failed_write_leaves_the_records_in_memory() {
    let mut disk = Disk::default();
    let mut partition = open(&disk);
    persist(&mut partition, &mut disk);
    partition.append(now(0), batch(&[b"a"], 0)).unwrap();
    persist(&mut partition, &mut disk);
    assert!(matches!(partition.flush(true), FlushStep::Write(_)));
    assert!(matches!(partition.flush_written(FlushOutcome::Failed), (FlushStep::Done, 0)));
    assert!(matches!(partition.flush(true), FlushStep::Done), "a fenced file is not written again");
    assert_eq!(partition.evict_one(), None);
    assert_eq!(partition.append(now(0), batch(&[b"b"], 0)), Err(AppendError::Fenced));
    assert_eq!(consume(&mut partition, &disk, 0).len(), 1);
}

#[test]
fn a_few_records_are_written_to_the_wal_again_and_get_no_file() {
    let mut disk = Disk::default();
    let mut partition = open(&disk);
    persist(&mut partition, &mut disk);
    assert!(partition.stay_in_wal(u64::MAX).is_none(), "there is nothing to write again");
    for second in 0..5 {
        partition.append(now(0), batch(&[b"a"], 1_000 * second)).unwrap();
    }
    persist(&mut partition, &mut disk);
    let cost = partition.unflushed_cost();
    assert!(partition.stay_in_wal(cost - 1).is_none(), "they are too many");
    for _ in 0..2 {
        let Some(FlushStep::Checkpoint { frames, .. }) = partition.stay_in_wal(cost) else { panic!("they stay") };
        assert!(!frames[0].again && frames[1..].iter().all(|frame| frame.again));
        // All that the WAL held before may be gone.
        disk.frames = frames;
        partition.checkpoint_durable();
        assert_eq!(disk.files(), 0);
        assert_eq!(consume(&mut open(&disk), &disk, 0).len(), 5);
    }
    partition.config.segment_ms = 3_000;
    assert!(partition.stay_in_wal(cost).is_none(), "they are due to be rolled");
    disk.flush(&mut partition);
    assert_eq!(disk.files(), 1);
}

#[test]
fn a_full_disk_is_tried_again() {
    let mut disk = Disk::default();
    let mut partition = open(&disk);
    persist(&mut partition, &mut disk);
    partition.append(now(0), batch(&[b"a"], 0)).unwrap();
    persist(&mut partition, &mut disk);
    assert!(matches!(partition.flush(true), FlushStep::Write(_)));
    assert!(matches!(partition.flush_written(FlushOutcome::NoSpace), (FlushStep::Done, 0)));
    partition.append(now(0), batch(&[b"b"], 0)).unwrap();
    persist(&mut partition, &mut disk);
    disk.flush(&mut partition);
    assert_eq!(partition.unflushed_cost(), 0);
    while partition.evict_one().is_some() {}
    assert_eq!(consume(&mut partition, &disk, 0).len(), 2);
}

#[test]
fn limits_of_the_topic_hold() {
    let mut disk = Disk::default();
    let mut partition = open(&disk);
    persist(&mut partition, &mut disk);
    partition.config.max_message_bytes = 100;
    assert_eq!(partition.append(now(0), batch(&[&[0; 100]], 0)), Err(AppendError::TooLarge));
    partition.config.timestamp_after_max_ms = 1_000;
    assert_eq!(partition.append(now(0), batch(&[b"a"], 1_001)), Err(AppendError::InvalidTimestamp));
    partition.config.timestamp_type = TimestampType::LogAppendTime;
    let appended = partition.append(now(77), batch(&[b"a"], 1_001)).unwrap();
    assert_eq!(appended.log_append_time, 77);
    persist(&mut partition, &mut disk);
    let read = consume(&mut partition, &disk, 0);
    assert_eq!(read[0].header.max_timestamp.get(), 77);
    assert_eq!(read[0].header.timestamp_type(), TimestampType::LogAppendTime);
}
