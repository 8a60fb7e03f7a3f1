//! Torn tails, damage and missing files.

use bytes::Bytes;

use super::rig::*;
use crate::log::disk::DiskConfig;
use crate::log::recovery::{Recovered, RecoveryError, recover};
use crate::log::wal::CONFIRM_AFTER_MS;
use crate::log::wal_format::{HEADER_BYTES, WriteHeader};
use crate::log::*;

/// The damage that a start finds.
fn damage_in(memory: &Memory, config: &DiskConfig) -> RecoveryError {
    recover(memory, config).expect("it is for others to make up for").damage.expect("the damage is noticed")
}

/// Three acknowledged writes and a last one in flight, each of two blocks.
fn with_a_write_in_flight() -> Rig {
    let mut rig = Rig::started(small());
    for index in 1..=3 {
        append_durable(&mut rig, index, &filling(2));
    }
    rig.append(0, 4, vec![entry(1, 4, &filling(2))]);
    rig.turn();
    rig
}

#[test]
fn a_write_torn_at_any_sectors_is_cut_off() {
    let rig = with_a_write_in_flight();
    let at = rig.writes()[0];
    let DeviceOp::Write { file, offset, buf, len } = &rig.ops[at].1 else { panic!("it is a write") };
    let sectors = len / 512;
    let masks = (0..sectors)
        .flat_map(|cut| [(1u32 << cut) - 1, !((1u32 << cut) - 1), !(1 << cut), 1 << cut, 0x5555_5555 << (cut % 2)]);
    for mask in masks.map(|mask| mask & ((1 << sectors) - 1)) {
        let mut memory = rig.memory.clone();
        for sector in (0..sectors).filter(|sector| mask & (1 << sector) != 0) {
            let from = sector * 512;
            let to = *offset as usize + from;
            memory.files.get_mut(file).unwrap()[to..to + 512].copy_from_slice(&buf[from..from + 512]);
        }
        let mut found = recover(&memory, &rig.config).expect("a torn tail is no damage");
        let whole = mask == (1 << sectors) - 1;
        let expected: Vec<u64> = (1..=if whole { 4 } else { 3 }).collect();
        assert_eq!(indexes(&found, 1), expected, "sectors {mask:b}");

        // Going on after the cut never brings the torn write back.
        let mut next = Rig::over(rig.config, memory, std::mem::take(&mut found.disk));
        next.settle();
        let index = expected.len() as u64 + 1;
        append_durable(&mut next, index, b"new");
        let (_, found) = next.restart();
        assert_eq!(entries(&found, 1).last(), Some(&(index, Bytes::from_static(b"new"))));
    }
}

#[test]
fn a_torn_write_with_whole_ones_behind_it_is_cut_off_with_them_for_good() {
    let mut config = small();
    config.data.segment_bytes = 4 * 1024 * 1024;
    let mut rig = Rig::started(config);
    append_durable(&mut rig, 1, b"kept");
    for ticket in 2..=4 {
        rig.append(0, ticket, vec![entry(1, ticket, &filling(70))]);
        rig.turn();
    }
    let last = rig.writes()[2];
    rig.complete(last);
    let middle = rig.writes()[1];
    rig.complete(middle);
    assert_eq!(rig.acked(), []);
    let (mut rig, found) = rig.restart();
    assert_eq!(indexes(&found, 1), [1]);
    assert_eq!(found.report.torn_bytes, 2 * 70 * 4096);
    rig.settle();
    append_durable(&mut rig, 2, b"second");
    let (mut rig, found) = rig.restart();
    assert_eq!(entries(&found, 1)[1..], [(2, Bytes::from_static(b"second"))]);
    rig.settle();
    append_durable(&mut rig, 3, b"third");
    let (_, found) = rig.restart();
    assert_eq!(indexes(&found, 1), [1, 2, 3]);
}

#[test]
fn a_flipped_bit_in_an_acknowledged_write_is_an_error_that_names_it() {
    let mut rig = Rig::started(small());
    for index in 1..=4 {
        append_durable(&mut rig, index, &filling(2));
    }
    rig.tick_after(CONFIRM_AFTER_MS);
    rig.settle();
    for sector in 0..4 * 16 {
        let mut memory = rig.memory.clone();
        memory.files.get_mut(&wal(0)).unwrap()[sector * 512 + 7] ^= 0x10;
        let error = damage_in(&memory, &rig.config);
        let write = sector as u64 / 16;
        match &error {
            RecoveryError::Damaged { file, offset, sequence, .. } => {
                assert_eq!(file, "wal/data-0000.wal");
                assert_eq!((*offset, *sequence), (write * 8192, write + 1));
            }
            // Of the very first header nothing is left that could name the segment.
            other => panic!("sector {sector}: {other}"),
        }
        assert!(error.to_string().contains("peers"), "{error}");
    }
}

/// Segments 0 to 2 full of acknowledged writes of log 1, five of three blocks in each.
fn three_segments() -> Rig {
    let mut rig = Rig::started(small());
    for index in 1..=15 {
        append_durable(&mut rig, index, &filling(3));
    }
    rig
}

#[test]
fn a_missing_segment_is_an_error_wherever_it_was() {
    let rig = three_segments();
    let mut memory = rig.memory.clone();
    memory.files.remove(&wal(0));
    let error = damage_in(&memory, &rig.config);
    assert!(matches!(error, RecoveryError::Missing { generation: 1, .. }), "{error}");
    let mut memory = rig.memory.clone();
    memory.files.remove(&wal(1));
    let error = damage_in(&memory, &rig.config);
    assert!(matches!(error, RecoveryError::Damaged { sequence: 6, .. }), "{error}");
}

#[test]
fn a_damaged_head_of_a_segment_is_an_error_wherever_it_was() {
    let rig = three_segments();
    for (slot, sequence) in [(0, 1), (1, 6), (2, 11)] {
        let mut memory = rig.memory.clone();
        memory.files.get_mut(&wal(slot)).unwrap()[..4096].fill(0);
        match damage_in(&memory, &rig.config) {
            RecoveryError::Missing { generation, .. } => assert_eq!((slot, generation), (0, 1)),
            RecoveryError::Damaged { sequence: found, .. } => assert_eq!(found, sequence),
            other => panic!("{other}"),
        }
    }
}

#[test]
fn a_copied_segment_and_a_newer_version_are_named() {
    let rig = three_segments();
    let mut memory = rig.memory.clone();
    let copy = memory.files[&wal(0)].clone();
    memory.files.insert(wal(9), copy);
    let error = recover(&memory, &rig.config).expect_err("a copy");
    assert!(error.to_string().contains("wal/data-0009.wal"), "{error}");

    let mut memory = rig.memory.clone();
    let bytes = memory.files.get_mut(&wal(0)).unwrap();
    bytes[4] = 9;
    let crc = crc32fast::hash(&bytes[..HEADER_BYTES - 4]);
    bytes[HEADER_BYTES - 4..HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
    let error = recover(&memory, &rig.config).expect_err("a newer version");
    assert!(matches!(error, RecoveryError::Version { version: 9, .. }), "{error}");
}

#[test]
fn an_unknown_frame_under_a_right_checksum_is_refused() {
    let rig = three_segments();
    let mut memory = rig.memory.clone();
    let bytes = memory.files.get_mut(&wal(0)).unwrap();
    bytes[HEADER_BYTES + 28] = 77;
    let mut header = WriteHeader::decode(bytes).expect("the first write");
    header.payload_crc = crc32fast::hash(&bytes[HEADER_BYTES..HEADER_BYTES + header.payload_len as usize]);
    header.encode(bytes);
    let error = recover(&memory, &rig.config).expect_err("not a frame");
    assert!(matches!(error, RecoveryError::Malformed { offset: 0, .. }), "{error}");
}

#[test]
fn segments_of_another_size_are_read_and_then_replaced() {
    let mut rig = three_segments();
    rig.config.data.segment_bytes *= 2;
    let (mut rig, found) = rig.restart();
    assert_eq!(indexes(&found, 1), (1..=15).collect::<Vec<_>>());
    rig.append(0, 1, vec![state(1, FrameKind::Checkpoint, 15, b"c")]);
    rig.settle();
    rig.append(0, 2, vec![entry(1, 16, b"x")]);
    rig.settle();
    assert_eq!(rig.acked(), [(0, 1), (0, 2)]);
    let sizes: Vec<usize> = (rig.memory.files.iter())
        .filter(|(file, _)| matches!(file, FileId::Wal { wal: WalId::Data, .. }))
        .map(|(_, bytes)| bytes.len())
        .collect();
    assert_eq!(sizes, [128 * 1024; 2]);
}

#[test]
fn a_gap_between_the_checkpoint_and_the_entries_is_an_error() {
    let mut rig = Rig::started(small());
    rig.append(0, 1, vec![state(1, FrameKind::Checkpoint, 5, b"c"), entry(1, 7, b"x")]);
    rig.settle();
    let error = rig.recover().expect_err("entry 6 is not there");
    assert!(matches!(error, RecoveryError::Gap { reached: 5, found: 7, .. }), "{error}");
}

#[test]
fn a_dropped_write_is_not_read_after_its_slot_is_used_again_even_where_the_sequence_fits() {
    let mut config = small();
    config.data.segment_bytes = 2 * 1024 * 1024;
    let mut rig = Rig::started(config);
    append_durable(&mut rig, 1, b"kept");
    for ticket in 2..=5 {
        rig.append(0, ticket, vec![entry(1, ticket, &filling(70))]);
        rig.turn();
    }
    for _ in 0..3 {
        let last = *rig.writes().last().expect("it is in flight");
        rig.complete(last);
    }
    // Write 2 is lost, and 5 lies behind 211 blocks of slot 0.
    let (mut rig, found) = rig.restart();
    assert_eq!(indexes(&found, 1), [1]);
    rig.append(0, 1, vec![state(1, FrameKind::Checkpoint, 1, &filling(400))]);
    rig.settle();
    append_durable(&mut rig, 2, &filling(400));
    append_durable(&mut rig, 3, &filling(211));
    let header = |at: usize| WriteHeader::decode(&rig.memory.files[&wal(0)][at..]).expect("a header");
    assert_eq!((header(0).sequence, header(211 * 4096).sequence), (4, 5));
    assert_ne!(header(0).generation, header(211 * 4096).generation);
    let (_, found) = rig.restart();
    assert_eq!(indexes(&found, 1), [2, 3]);
}

#[test]
fn of_two_segments_that_begin_alike_the_one_of_the_later_start_counts() {
    let mut rig = Rig::started(small());
    for index in 1..=5 {
        append_durable(&mut rig, index, &filling(3));
    }
    rig.append(0, 6, vec![entry(1, 6, &filling(3))]);
    rig.turn();
    rig.complete(1);
    let DeviceOp::Write { file, offset: 0, buf, .. } = &rig.ops[0].1 else { panic!("it opens a segment") };
    rig.memory.files.get_mut(file).unwrap()[..512].copy_from_slice(&buf[..512]);
    for index in 6..=8 {
        rig = rig.restart().0;
        rig.settle();
        append_durable(&mut rig, index, b"later");
    }
    let (_, found) = rig.restart();
    assert_eq!(indexes(&found, 1), (1..=8).collect::<Vec<_>>());
}

#[test]
fn a_segment_whose_first_write_was_lost_is_not_missed_by_the_next() {
    let mut config = small();
    config.data.segment_bytes = 2 * 1024 * 1024;
    let mut rig = Rig::started(config);
    append_durable(&mut rig, 1, &filling(200));
    rig.append(0, 2, vec![state(1, FrameKind::Deleted, 0, b"")]);
    rig.settle();
    // Nothing is needed any more. Two writes that open a segment each are in flight, and only the later arrives.
    for log in 2..=3 {
        rig.append(0, log, vec![entry(log, 1, &filling(400))]);
        rig.turn();
        let create = rig.ops.iter().position(|(_, op)| matches!(op, DeviceOp::Create { .. }));
        if let Some(create) = create {
            rig.complete(create);
            rig.turn();
        }
    }
    assert_eq!(rig.writes().len(), 2);
    let later = rig.writes()[1];
    rig.complete(later);
    let (mut rig, found) = rig.restart();
    assert!(found.logs.is_empty());
    rig.settle();
    append_durable(&mut rig, 1, b"goes on");
}

#[test]
fn a_write_of_the_process_before_that_arrives_after_the_start_does_not_count() {
    let rig = with_a_write_in_flight();
    let at = rig.writes()[0];
    let DeviceOp::Write { file, offset, buf, len } = &rig.ops[at].1 else { panic!("it is a write") };
    let late = (*file, *offset as usize, buf[..*len].to_vec());
    let (mut rig, found) = rig.restart();
    assert_eq!(indexes(&found, 1), [1, 2, 3]);
    rig.settle();
    append_durable(&mut rig, 4, b"of the new process");
    let (file, from, bytes) = late;
    rig.memory.files.get_mut(&file).unwrap()[from..from + bytes.len()].copy_from_slice(&bytes);
    for index in 5..=6 {
        append_durable(&mut rig, index, b"x");
        let (next, found) = rig.restart();
        assert_eq!(entries(&found, 1)[3].1, b"of the new process"[..]);
        assert_eq!(indexes(&found, 1), (1..=index).collect::<Vec<_>>());
        rig = next;
        rig.settle();
    }
}

/// A ring of segments 0 to 3: a checkpoint of log 1 at 3 in the first, entries, one of log 2 in the last.
fn with_checkpoints() -> Rig {
    let mut rig = Rig::started(small());
    append_durable(&mut rig, 3, b"x");
    rig.append(0, 4, vec![state(1, FrameKind::Checkpoint, 3, b"first")]);
    rig.settle();
    for index in 4..=15 {
        rig.append(0, index + 1, vec![entry(1, index, &filling(3))]);
        rig.settle();
    }
    rig.append(0, 17, vec![state(2, FrameKind::Checkpoint, 7, b"second"), entry(2, 8, b"y")]);
    rig.settle();
    rig.tick_after(CONFIRM_AFTER_MS);
    rig.settle();
    rig
}

/// The indexes that checkpoints reach, by logs, where nothing but checkpoints was recovered.
fn reached(found: &Recovered) -> Vec<(u64, u64)> {
    assert!(found.logs.iter().all(|log| log.entries.is_empty() && log.hard_state.is_none()));
    found.logs.iter().map(|log| (log.log.0, log.checkpoint.as_ref().map_or(0, |point| point.index))).collect()
}

#[test]
fn behind_damage_the_newest_checkpoints_are_found() {
    let rig = with_checkpoints();
    let blocks = |slot: u32| rig.memory.files[&wal(slot)].len() / 4096;
    let second_at = (0..3).flat_map(|slot| (0..blocks(slot)).map(move |block| (slot, block))).find(|(slot, block)| {
        let header = WriteHeader::decode(&rig.memory.files[&wal(*slot)][block * 4096..]);
        header.is_ok_and(|header| header.frames == 2)
    });
    let second_at = second_at.expect("it was written");
    for (slot, block) in (0..3).flat_map(|slot| (0..blocks(slot)).map(move |block| (slot, block))) {
        let mut memory = rig.memory.clone();
        memory.files.get_mut(&wal(slot)).unwrap()[block * 4096 + 9] ^= 1;
        let found = recover(&memory, &rig.config).expect("it is for others to make up for");
        if found.damage.is_none() {
            // Nothing was written there, or the last write, which no other speaks of.
            let bytes = &rig.memory.files[&wal(slot)][block * 4096..][..4096];
            let last = WriteHeader::decode(bytes).is_ok_and(|header| header.frames == 0);
            assert!(last || bytes.iter().all(|byte| *byte == 0), "slot {slot} block {block} was written to");
            continue;
        }
        // What lies before the damage stays known, and so does what lies behind it; a segment without its head is lost.
        let lost = |at: (u32, usize)| (slot, block) == at || (slot, block) == (at.0, 0);
        let first = Some((1, 3)).filter(|_| !lost((0, 1)));
        let second = Some((2, 7)).filter(|_| !lost(second_at));
        let known: Vec<_> = reached(&found).into_iter().filter(|(_, reached)| *reached > 0).collect();
        assert_eq!(known, first.into_iter().chain(second).collect::<Vec<_>>(), "slot {slot} block {block}");
    }
}

#[test]
fn damage_is_found_at_every_start_until_all_shards_have_noted_it() {
    for (slot, from, to) in [(0, 0, 4096), (1, 4096, 8192), (2, 0, 4096), (1, 0, 65536), (0, 0, 65536)] {
        let mut rig = with_checkpoints();
        rig.memory.files.get_mut(&wal(slot)).unwrap()[from..to].fill(0);
        for start in 1..=3 {
            let (next, found) = rig.restart();
            rig = next;
            assert!(found.damage.is_some(), "slot {slot}, start {start}");
            rig.settle();
            // All logs that are known are written anew, and nothing old is needed any more.
            let frames = [1, 2].map(|log| state(log, FrameKind::Snapshot, 20 + start, b"anew"));
            rig.append(0, 1, frames.to_vec());
            rig.settle();
            rig.request(0, DiskRequest::ForgetDamage);
            rig.append(0, 2, vec![entry(1, 21 + start, &filling(3))]);
            rig.settle();
        }
        rig.request(1, DiskRequest::ForgetDamage);
        for ticket in 3..=20 {
            rig.append(
                0,
                ticket,
                vec![state(1, FrameKind::Snapshot, 100 + ticket, &filling(3)), state(2, FrameKind::Snapshot, 5, b"")],
            );
            rig.settle();
        }
        let (_, found) = rig.restart();
        assert!(found.damage.is_none(), "slot {slot}: {:?}", found.damage);
        assert_eq!(found.logs[0].checkpoint.as_ref().map(|point| point.index), Some(120));
    }
}
