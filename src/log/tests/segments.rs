//! Segment files: positions of any alignment on a device of whole blocks.

use bytes::Bytes;

use super::rig::*;
use crate::log::*;
use crate::types::ShardId;

fn log_file(log: u64, base: i64) -> SegmentRef {
    SegmentRef { log: LogId(log), name: SegmentName { base, revision: 0 }, file: SegmentFile::Log }
}

fn bytes(from: u64, len: usize) -> Vec<u8> {
    (from..from + len as u64).map(|at| (at * 31 + (at >> 8)) as u8).collect()
}

fn write(rig: &mut Rig, token: u64, segment: SegmentRef, position: u64, data: &[u8]) {
    let (head, body) = data.split_at(data.len().min(61));
    let chunk = Chunk { head: SmallVec::from_slice(head), body: Bytes::copy_from_slice(body) };
    rig.request(0, DiskRequest::WriteSegment { token, segment, position, data: vec![chunk] });
}

fn read(rig: &mut Rig, token: u64, segment: SegmentRef, position: u64, len: u32) {
    rig.request(1, DiskRequest::ReadSegment { token, segment, position, len });
}

/// The result of the only write that was answered.
fn written(rig: &mut Rig) -> Result<(), DiskError> {
    match &rig.take_replies()[..] {
        [(ShardId(0), DiskReply::Written { result, .. })] => result.clone(),
        other => panic!("{other:?}"),
    }
}

/// The result of the only read that was answered.
fn read_back(rig: &mut Rig) -> Result<Bytes, DiskError> {
    match &rig.take_replies()[..] {
        [(ShardId(1), DiskReply::Read { result, .. })] => result.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn writes_of_odd_lengths_follow_each_other_without_a_seam() {
    let mut rig = Rig::started(small());
    let segment = log_file(3, 100);
    let mut end = 0;
    for (token, len) in [1, 4095, 1, 5000, 4096, 12_345, 2_500_000, 3, 8192].into_iter().enumerate() {
        write(&mut rig, token as u64, segment, end, &bytes(end, len));
        rig.settle();
        assert_eq!(written(&mut rig), Ok(()));
        end += len as u64;
        let file = &rig.memory.files[&FileId::Segment(segment)];
        assert!(file[..end as usize] == bytes(0, end as usize));
        assert!(file[end as usize..].iter().all(|byte| *byte == 0), "the padding is zeros");
    }
    for (position, len) in [(0, 10), (4095, 2), (4096, 4096), (99_999, 100_001), (end - 1, 1)] {
        read(&mut rig, 1, segment, position, len);
        rig.settle();
        assert_eq!(read_back(&mut rig), Ok(bytes(position, len as usize).into()));
    }
    read(&mut rig, 1, segment, end.next_multiple_of(4096) + 5, 10);
    rig.settle();
    assert_eq!(read_back(&mut rig), Ok(Bytes::new()), "nothing is behind the end");
}

#[test]
fn after_a_start_the_last_block_is_read_before_it_is_written_again() {
    let mut rig = Rig::started(small());
    let segment = log_file(3, 0);
    write(&mut rig, 1, segment, 0, &bytes(0, 10_000));
    rig.settle();
    let (mut rig, found) = rig.restart();
    assert_eq!(found.segment_files, [segment]);
    assert_eq!(rig.memory.files[&FileId::Segment(segment)].len(), 12_288);
    // The log's owner knows of 9,000 bytes only: the rest is overwritten.
    write(&mut rig, 1, segment, 9_000, &bytes(9_000, 500));
    rig.settle();
    assert_eq!(written(&mut rig), Ok(()));
    let file = &rig.memory.files[&FileId::Segment(segment)];
    assert!(file[..9_500] == bytes(0, 9_500) && file[9_500..12_288].iter().all(|byte| *byte == 0));
    write(&mut rig, 1, segment, 50_000, b"far behind the end");
    rig.settle();
    let error = written(&mut rig).expect_err("bytes are missing before it");
    assert!(error.to_string().contains("50000"), "{error}");
    write(&mut rig, 1, log_file(3, 77), 100, b"x");
    rig.settle();
    assert!(matches!(written(&mut rig), Ok(()) | Err(_)));
}

#[test]
fn a_write_is_answered_when_its_last_piece_is_durable() {
    let mut rig = Rig::started(small());
    write(&mut rig, 1, log_file(3, 0), 0, &bytes(0, 3_000_000));
    rig.turn();
    let mut pieces = 0;
    while !rig.ops.is_empty() {
        assert!(rig.replies.is_empty());
        pieces += usize::from(matches!(rig.ops[0].1, DeviceOp::Write { .. }));
        rig.complete(0);
        rig.turn();
    }
    assert_eq!((written(&mut rig), pieces), (Ok(()), 3));
}

#[test]
fn few_files_are_written_at_once_and_reads_go_on_beside_them() {
    let mut rig = Rig::started(small());
    for log in 1..=100 {
        write(&mut rig, log, log_file(log, 0), 0, &bytes(0, 100));
    }
    rig.turn();
    assert_eq!(rig.ops.len(), 4);
    for log in 1..=100 {
        read(&mut rig, log, log_file(log, 0), 0, 100);
    }
    rig.turn();
    assert_eq!(rig.ops.len(), 4 + 32);
    rig.settle();
    assert_eq!(rig.take_replies().len(), 200);
    assert!(!rig.disk.busy());
}

#[test]
fn an_error_of_a_write_fences_the_file_for_writes_alone() {
    let mut rig = Rig::started(small());
    let segment = log_file(3, 0);
    write(&mut rig, 1, segment, 0, &bytes(0, 100));
    rig.settle();
    rig.take_replies();
    write(&mut rig, 2, segment, 100, &bytes(100, 100));
    rig.turn();
    rig.fail(0, EIO);
    assert!(matches!(written(&mut rig), Err(DiskError::Io { .. })));
    write(&mut rig, 3, segment, 100, &bytes(100, 100));
    rig.settle();
    assert!(matches!(written(&mut rig), Err(DiskError::Fenced { .. })));
    read(&mut rig, 4, segment, 0, 100);
    rig.settle();
    assert_eq!(read_back(&mut rig), Ok(bytes(0, 100).into()));
}

#[test]
fn a_full_disk_refuses_a_write_and_takes_it_later() {
    let mut rig = Rig::started(small());
    let segment = log_file(3, 0);
    write(&mut rig, 1, segment, 0, &bytes(0, 100));
    rig.turn();
    rig.fail(0, ENOSPC);
    assert!(matches!(written(&mut rig), Err(DiskError::NoSpace { .. })));
    write(&mut rig, 2, segment, 0, &bytes(0, 100));
    rig.settle();
    assert_eq!(written(&mut rig), Ok(()));
}

#[test]
fn removal_waits_for_what_was_accepted_and_refuses_what_comes_later() {
    let mut rig = Rig::started(small());
    let segment = log_file(3, 0);
    write(&mut rig, 1, segment, 0, &bytes(0, 100));
    write(&mut rig, 2, log_file(3, 50), 0, &bytes(0, 100));
    rig.turn();
    rig.request(0, DiskRequest::DeleteLog { token: 3, log: LogId(3) });
    rig.turn();
    assert!(!rig.ops.iter().any(|(_, op)| matches!(op, DeviceOp::RemoveLog { .. })));
    write(&mut rig, 4, log_file(3, 60), 0, b"late");
    read(&mut rig, 5, segment, 0, 100);
    let refused = rig.take_replies();
    assert!(matches!(&refused[0].1, DiskReply::Written { token: 4, result: Err(DiskError::NotFound { .. }) }));
    assert!(matches!(&refused[1].1, DiskReply::Read { token: 5, result: Err(DiskError::NotFound { .. }) }));
    rig.settle();
    let tokens: Vec<_> = (rig.take_replies().into_iter())
        .map(|(_, reply)| match reply {
            DiskReply::Written { token, result: Ok(()) } | DiskReply::Removed { token, result: Ok(()) } => token,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(tokens, [1, 2, 3]);
    assert!(!rig.memory.files.contains_key(&FileId::Segment(segment)));
    assert!(!rig.disk.busy());
}

#[test]
fn a_segment_is_removed_with_its_index_and_its_neighbours_stay() {
    let mut rig = Rig::started(small());
    let names = [(0, 0), (0, 1), (50, 0)].map(|(base, revision)| SegmentName { base, revision });
    for name in names {
        for file in [SegmentFile::Log, SegmentFile::Index] {
            write(&mut rig, 1, SegmentRef { log: LogId(3), name, file }, 0, b"x");
        }
    }
    rig.settle();
    rig.take_replies();
    rig.request(0, DiskRequest::DeleteSegment { token: 9, log: LogId(3), segment: names[0] });
    rig.settle();
    assert!(matches!(rig.replies[..], [(ShardId(0), DiskReply::Removed { token: 9, result: Ok(()) })]));
    let (_, found) = rig.restart();
    assert_eq!(found.segment_files.iter().map(|segment| segment.name.base).collect::<Vec<_>>(), [0, 0, 50, 50]);
}

#[test]
fn a_start_removes_the_files_of_a_log_whose_deletion_was_cut_short() {
    let mut rig = Rig::started(small());
    write(&mut rig, 1, log_file(3, 0), 0, b"x");
    write(&mut rig, 2, log_file(4, 0), 0, b"x");
    rig.append(0, 1, vec![state(3, FrameKind::Deleted, 0, b"")]);
    rig.settle();
    let (mut rig, found) = rig.restart();
    assert_eq!(found.segment_files.len(), 1);
    rig.settle();
    assert!(rig.memory.files.contains_key(&FileId::Segment(log_file(4, 0))));
    assert!(!rig.memory.files.contains_key(&FileId::Segment(log_file(3, 0))));
    assert!(rig.replies.is_empty());
}
