use super::super::tests::{Disk, batch, config, consume, now, open_with, persist};
use super::*;
use crate::metadata::configs::{Cleanup, TopicConfig};
use crate::partition::ReadError;

/// A partition with 60 batches of two records and some 9,000 bytes each, a few to a segment; the first record of batch
/// `n` has the time 1,000 + `n`.
fn filled(config: TopicConfig) -> (Disk, Partition) {
    let mut disk = Disk::default();
    let mut partition = open_with(&disk, config);
    persist(&mut partition, &mut disk);
    let value = vec![5u8; 9_000];
    for i in 0..60i64 {
        partition.append(now(0), batch(&[&value, &[i as u8]], 1_000 + i)).unwrap();
        persist(&mut partition, &mut disk);
        disk.flush(&mut partition);
    }
    assert!(partition.segments.len() > 4, "{} segments", partition.segments.len());
    (disk, partition)
}

fn delete(partition: &mut Partition, disk: &mut Disk, offset: Offset) {
    let start = partition.delete_records(offset).unwrap();
    persist(partition, disk);
    assert_eq!(partition.log_start(), start);
}

#[test]
fn deleted_records_are_gone_and_stay_so() {
    let (mut disk, mut partition) = filled(config());
    let files = disk.files();
    delete(&mut partition, &mut disk, 61);
    assert!(partition.has_obsolete());
    let reopened = open_with(&disk, config());
    assert_eq!(reopened.log_start(), 0, "the entry counts once it is known to be committed");
    assert_eq!(reopened.strays(disk.names()), []);
    disk.flush(&mut partition);
    assert!(!partition.has_obsolete());
    assert!(disk.files() < files, "the segments before it are removed");
    for _ in 0..2 {
        assert_eq!(partition.log_start(), 61);
        assert_eq!(partition.read(60, 100).err(), Some(ReadError::OutOfRange));
        while partition.evict_one().is_some() {}
        let read = consume(&mut partition, &disk, 61);
        assert_eq!(read.len(), 30, "the batch that holds the start is given whole");
        partition = open_with(&disk, config());
        persist(&mut partition, &mut disk);
    }
    assert_eq!(partition.delete_records(60), Ok(60), "what is gone already is deleted");
    assert_eq!(partition.log_start(), 61);
}

#[test]
fn everything_may_be_deleted_and_the_log_goes_on() {
    let (mut disk, mut partition) = filled(config());
    partition.append(now(0), batch(&[b"in memory"], 1)).unwrap();
    persist(&mut partition, &mut disk);
    delete(&mut partition, &mut disk, TO_HIGH_WATERMARK);
    assert_eq!((partition.log_start(), partition.high_watermark()), (121, 121));
    disk.flush(&mut partition);
    disk.flush(&mut partition);
    assert_eq!(disk.files(), 0);
    partition = open_with(&disk, config());
    persist(&mut partition, &mut disk);
    assert_eq!((partition.log_start(), partition.high_watermark()), (121, 121));
    assert_eq!(partition.append(now(0), batch(&[b"more"], 1)).unwrap().base_offset, 121);
    persist(&mut partition, &mut disk);
    disk.flush(&mut partition);
    while partition.evict_one().is_some() {}
    assert_eq!(consume(&mut partition, &disk, 121).len(), 1);
}

#[test]
fn records_that_no_segment_holds_may_be_deleted() {
    let mut disk = Disk::default();
    let mut partition = open_with(&disk, config());
    persist(&mut partition, &mut disk);
    for _ in 0..5 {
        partition.append(now(0), batch(&[b"a"], 1)).unwrap();
    }
    persist(&mut partition, &mut disk);
    delete(&mut partition, &mut disk, 3);
    for _ in 0..2 {
        // The checkpoint ends before the start, which an entry behind it says.
        partition = open_with(&disk, config());
        persist(&mut partition, &mut disk);
        assert_eq!(partition.log_start(), 3);
        assert_eq!(consume(&mut partition, &disk, 3).len(), 2);
        disk.flush(&mut partition);
    }
}

#[test]
fn what_cannot_be_deleted_is_refused() {
    let mut disk = Disk::default();
    let mut partition = open_with(&disk, config());
    assert_eq!(partition.delete_records(0), Err(DeleteError::NotLeader));
    persist(&mut partition, &mut disk);
    partition.append(now(0), batch(&[b"a"], 1)).unwrap();
    assert_eq!(partition.delete_records(1), Err(DeleteError::OutOfRange), "it is not committed");
    assert_eq!(partition.delete_records(-2), Err(DeleteError::OutOfRange));
    assert_eq!(partition.delete_records(0), Ok(0));
    partition.config.cleanup = Cleanup { delete: false, compact: true };
    assert_eq!(partition.delete_records(0), Err(DeleteError::NotDeleted));
}

#[test]
fn epochs_follow_the_start() {
    let (mut disk, _) = filled(config());
    let mut partition = open_with(&disk, config());
    persist(&mut partition, &mut disk);
    partition.append(now(0), batch(&[b"of the second epoch"], 1)).unwrap();
    persist(&mut partition, &mut disk);
    delete(&mut partition, &mut disk, 50);
    assert_eq!((partition.epoch_of(50), partition.end_of_epoch(1)), (1, Some((1, 120))));
    delete(&mut partition, &mut disk, 120);
    assert_eq!((partition.epoch_of(120), partition.epoch_of(119)), (2, -1));
    assert_eq!(partition.end_of_epoch(1), Some((1, 120)), "what is left begins there");
}

#[test]
fn old_segments_are_deleted_and_young_ones_kept() {
    let (mut disk, mut partition) = filled(TopicConfig { retention_ms: 1_000, ..config() });
    assert!(!partition.retain(now(2_000)), "nothing is older than a second");
    let second = partition.segments[1].meta.clone();
    assert!(
        !partition.retain(now(second.max_timestamp + 999)) || partition.starts.furthest() < Some(second.next_offset)
    );
    assert!(partition.retain(now(second.max_timestamp + 1_001)));
    assert!(!partition.retain(now(second.max_timestamp + 1_001)), "it is on its way");
    persist(&mut partition, &mut disk);
    assert_eq!(partition.log_start(), second.next_offset);
    // Once the newest segment is due too, nothing is left.
    assert!(partition.retain(now(1_000_000)));
    persist(&mut partition, &mut disk);
    assert_eq!(partition.log_start(), 120);
    assert!(!partition.retain(now(2_000_000)));
}

#[test]
fn records_in_memory_grow_old_too_and_young_ones_keep_their_segment() {
    let (mut disk, mut partition) = filled(TopicConfig { retention_ms: 1_000, ..config() });
    partition.append(now(0), batch(&[b"young"], 900_000)).unwrap();
    persist(&mut partition, &mut disk);
    let newest = partition.segments.last().unwrap().meta.name.base;
    assert!(partition.retain(now(900_001)));
    persist(&mut partition, &mut disk);
    assert_eq!(partition.log_start(), newest);
    assert!(partition.retain(now(901_001)));
    persist(&mut partition, &mut disk);
    assert_eq!(partition.log_start(), 121);
}

#[test]
fn more_than_is_to_be_kept_is_deleted_from_the_front() {
    let (mut disk, mut partition) = filled(TopicConfig { retention_bytes: 250_000, ..config() });
    assert!(partition.retain(now(0)));
    persist(&mut partition, &mut disk);
    disk.flush(&mut partition);
    let kept: u64 = partition.segments.iter().map(|segment| segment.meta.len).sum();
    assert!((250_000..350_000).contains(&kept), "{kept} bytes are kept");
    assert_eq!(partition.log_start(), partition.segments[0].meta.name.base);
    assert!(!partition.retain(now(0)));
}

#[test]
fn nothing_is_deleted_where_the_policy_does_not_say_so() {
    let (_, mut partition) = filled(TopicConfig { retention_bytes: 0, retention_ms: 0, ..config() });
    partition.config.cleanup = Cleanup { delete: false, compact: true };
    assert!(!partition.retain(now(1_000_000)));
}

#[test]
fn a_segment_is_closed_when_its_time_is_up() {
    let mut disk = Disk::default();
    let mut partition = open_with(&disk, TopicConfig { segment_ms: 100, ..config() });
    persist(&mut partition, &mut disk);
    for time in [1_000, 1_050, 1_100, 1_101, 1_150, 1_300] {
        partition.append(now(0), batch(&[b"a"], time)).unwrap();
    }
    persist(&mut partition, &mut disk);
    for _ in 0..3 {
        disk.flush(&mut partition);
    }
    let bases: Vec<Offset> = partition.segments.iter().map(|segment| segment.meta.name.base).collect();
    assert_eq!(bases, [0, 3, 5]);
}
