use std::collections::BTreeMap;

use super::super::tests::{Disk, config, consume, now, open_with, persist};
use super::*;
use crate::metadata::configs::{Cleanup, TopicConfig};
use crate::partition::{AppendError, Found, ReadDone};
use crate::record::Entry;

fn compacted() -> TopicConfig {
    TopicConfig { cleanup: Cleanup { delete: false, compact: true }, segment_bytes: 4_000, ..config() }
}

fn entry(key: u32, value: Option<Vec<u8>>) -> Entry {
    let key = Some(Bytes::copy_from_slice(&key.to_be_bytes()));
    Entry { key, value: value.map(Bytes::from) }
}

fn append(partition: &mut Partition, disk: &mut Disk, entries: &[Entry]) -> Offset {
    let appended = partition.append(now(0), Batch::of_entries(entries, 1_000)).unwrap();
    persist(partition, disk);
    appended.base_offset
}

fn flush_all(partition: &mut Partition, disk: &mut Disk) {
    while partition.unflushed_cost() > 0 {
        disk.flush(partition);
    }
}

/// Runs a pass to its end, or so many steps of it.
fn compact(partition: &mut Partition, disk: &mut Disk, wall_ms: i64, steps: usize) -> Option<(u64, u64)> {
    partition.begin_compaction(now(wall_ms), [7; 16]);
    for _ in 0..steps {
        let step = partition.compaction_step();
        match disk.carry_out(partition, step) {
            None => {}
            Some(CompactionStep::Done { compacted, stray, mended }) => {
                assert!(!mended);
                assert_eq!(stray, None);
                return compacted;
            }
            Some(step) => panic!("nothing is damaged: {step:?}"),
        }
    }
    None
}

/// Every record as a consumer reads it from the segments and the tail.
fn read(partition: &mut Partition, disk: &Disk) -> Vec<(Offset, u32, Option<Vec<u8>>)> {
    while partition.evict_one().is_some() {}
    let start = partition.log_start();
    let batches = consume(partition, disk, start);
    let entries = batches.iter().flat_map(|batch| batch.entries().unwrap());
    let number = |key: &Option<Bytes>| u32::from_be_bytes(key.as_ref().unwrap()[..].try_into().unwrap());
    entries.map(|(at, entry)| (at, number(&entry.key), entry.value.map(|value| value.to_vec()))).collect()
}

/// Offset, key and value of a record.
type Seen = (Offset, u32, Option<Vec<u8>>);

/// The last record of each key.
fn last(records: &[Seen]) -> BTreeMap<u32, (Offset, Option<Vec<u8>>)> {
    records.iter().map(|(offset, key, value)| (*key, (*offset, value.clone()))).collect()
}

/// A partition with records of few keys in many segments, and all its records.
fn filled() -> (Disk, Partition, Vec<Seen>) {
    let mut disk = Disk::default();
    let mut partition = open_with(&disk, compacted());
    persist(&mut partition, &mut disk);
    for i in 0..100u32 {
        let value = |n: u32| Some(vec![(i + n) as u8; 150]);
        append(&mut partition, &mut disk, &[entry(i % 10, value(0)), entry(10 + i % 3, value(1)), entry(i, value(2))]);
    }
    flush_all(&mut partition, &mut disk);
    assert!(partition.segments.len() > 10, "{} segments", partition.segments.len());
    let all = read(&mut partition, &disk);
    assert_eq!(all.len(), 300);
    (disk, partition, all)
}

#[test]
fn the_last_record_of_each_key_is_kept_at_its_offset() {
    let (mut disk, mut partition, all) = filled();
    assert!(partition.dirtiness(now(0)) > Some(0.9));
    let (before, after) = compact(&mut partition, &mut disk, 0, usize::MAX).expect("the pass ends");
    assert!(after < before / 2, "{before} bytes became {after}");
    assert_eq!(partition.dirtiness(now(0)), None);
    let newest = partition.segments.last().unwrap().meta.name.base;
    for run in 0..2 {
        let kept = read(&mut partition, &disk);
        assert_eq!(last(&kept), last(&all), "run {run}");
        let twice = kept.iter().filter(|(offset, ..)| *offset < newest).map(|(_, key, _)| key);
        let mut count = BTreeMap::new();
        twice.for_each(|key| *count.entry(key).or_insert(0) += 1);
        assert!(count.values().all(|count| *count == 1), "{count:?}");
        // The files of the old segments are gone, and a restart finds the new ones.
        assert_eq!(disk.names().into_iter().collect::<std::collections::BTreeSet<_>>().len(), partition.segments.len());
        partition = open_with(&disk, compacted());
        assert_eq!(partition.strays(disk.names()), []);
        persist(&mut partition, &mut disk);
    }
}

#[test]
fn every_offset_can_be_read_from() {
    let (mut disk, mut partition, _) = filled();
    compact(&mut partition, &mut disk, 0, usize::MAX).unwrap();
    let kept = read(&mut partition, &disk);
    partition = open_with(&disk, compacted());
    persist(&mut partition, &mut disk);
    for from in 0..300 {
        let records = loop {
            match partition.read(from, 1).unwrap() {
                Found::Here(records) => break records,
                Found::OnDisk(wanted) => {
                    let done = partition.read_done(wanted, disk.read(wanted));
                    assert!(!matches!(done, ReadDone::Damaged | ReadDone::Gone), "{done:?}");
                }
            }
        };
        let bytes: Bytes = records.chunks.concat().into();
        let (_, batch) = split_batches(&bytes).next().expect("a batch");
        let next = kept.iter().find(|(offset, ..)| *offset >= from).unwrap().0;
        let held = batch.header.base_offset.get()..=batch.header.last_offset();
        assert!(held.contains(&next), "{held:?} at {from}, {next} is the next record");
    }
}

#[test]
fn a_crash_at_any_step_loses_nothing() {
    let mut steps = 1;
    loop {
        let (mut disk, mut partition, all) = filled();
        let over = compact(&mut partition, &mut disk, 0, steps).is_some();
        partition = open_with(&disk, compacted());
        for stray in partition.strays(disk.names()) {
            disk.remove(stray);
        }
        persist(&mut partition, &mut disk);
        assert_eq!(last(&read(&mut partition, &disk)), last(&all), "after {steps} steps");
        compact(&mut partition, &mut disk, 0, usize::MAX);
        assert_eq!(last(&read(&mut partition, &disk)), last(&all), "after {steps} steps and another pass");
        if over {
            return;
        }
        steps += 1;
    }
}

#[test]
fn the_end_of_a_key_is_kept_until_its_horizon() {
    let mut disk = Disk::default();
    let config = TopicConfig { delete_retention_ms: 1_000, ..compacted() };
    let mut partition = open_with(&disk, config);
    persist(&mut partition, &mut disk);
    append(&mut partition, &mut disk, &[entry(1, Some(vec![1; 3_000]))]);
    append(&mut partition, &mut disk, &[entry(1, None), entry(2, Some(vec![2; 3_000]))]);
    append(&mut partition, &mut disk, &[entry(3, Some(vec![3; 3_000]))]);
    flush_all(&mut partition, &mut disk);
    let keys = |partition: &mut Partition, disk: &mut Disk, wall_ms| {
        // Something dirty, or there is no pass.
        append(partition, disk, &[entry(3, Some(vec![3; 3_000]))]);
        flush_all(partition, disk);
        compact(partition, disk, wall_ms, usize::MAX).expect("a pass");
        read(partition, disk).into_iter().map(|(offset, key, _)| (offset, key)).take(2).collect::<Vec<_>>()
    };
    assert_eq!(keys(&mut partition, &mut disk, 5_000), [(1, 1), (2, 2)]);
    assert_eq!(keys(&mut partition, &mut disk, 5_999), [(1, 1), (2, 2)]);
    partition = open_with(&disk, config);
    persist(&mut partition, &mut disk);
    assert_eq!(keys(&mut partition, &mut disk, 6_000)[0], (2, 2));
    assert_eq!(partition.log_start(), 0, "what is compacted is not deleted");
}

#[test]
fn what_cannot_be_opened_and_what_is_young_stays() {
    let (mut disk, mut partition, _) = filled();
    partition.config.min_compaction_lag_ms = 500;
    assert_eq!(partition.dirtiness(now(1_400)), None, "all records are of 1,000");
    assert!(partition.dirtiness(now(1_500)).is_some());
    partition.config.min_cleanable_ratio = 1.0;
    assert_eq!(partition.dirtiness(now(1_500)), None);
    partition.config.max_compaction_lag_ms = 600;
    assert!(partition.dirtiness(now(1_601)) > Some(1.0));
    let mut closed = Batch::of_entries(&[entry(1, Some(vec![9; 10]))], 1_000);
    closed.header.attributes.set(4);
    closed.stamp(1_000);
    let offset = partition.append(now(0), closed).unwrap().base_offset;
    append(&mut partition, &mut disk, &[entry(1, Some(vec![1; 3_900]))]);
    append(&mut partition, &mut disk, &[entry(1, Some(vec![1; 3_900]))]);
    flush_all(&mut partition, &mut disk);
    compact(&mut partition, &mut disk, 2_000, usize::MAX).unwrap();
    while partition.evict_one().is_some() {}
    let batches = consume(&mut partition, &disk, offset);
    assert_eq!(batches[0].header.base_offset.get(), offset);
}

#[test]
fn a_record_without_a_key_is_refused() {
    let mut disk = Disk::default();
    let mut partition = open_with(&disk, compacted());
    persist(&mut partition, &mut disk);
    let batch = Batch::of_entries(&[Entry { key: None, value: None }], 0);
    assert_eq!(partition.append(now(0), batch), Err(AppendError::NoKey));
}

#[test]
fn segments_deleted_during_a_pass_end_it() {
    let (mut disk, mut partition, all) = filled();
    partition.config.cleanup.delete = true;
    partition.begin_compaction(now(0), [7; 16]);
    let CompactionStep::Read(first) = partition.compaction_step() else { panic!("it reads first") };
    partition.delete_records(150).unwrap();
    persist(&mut partition, &mut disk);
    disk.flush(&mut partition);
    partition.compaction_read(first, None);
    assert!(matches!(partition.compaction_step(), CompactionStep::Done { compacted: None, stray: None, .. }));
    assert_eq!(read(&mut partition, &disk), all[150..]);
}
