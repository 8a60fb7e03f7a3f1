//! The ring of segments: what keeps them, what frees them, and what happens when there are none.

use super::rig::*;
use crate::log::disk::{DiskConfig, WalConfig};
use crate::log::*;
use crate::types::ShardId;

fn data_slots(rig: &Rig) -> usize {
    let is_data = |file: &&FileId| matches!(file, FileId::Wal { wal: WalId::Data, .. });
    rig.memory.files.keys().filter(is_data).count()
}

/// The logs that were asked to release, and whether the WAL last called itself full.
fn asked_and_full(rig: &mut Rig) -> (Vec<(u16, u64)>, Option<bool>) {
    let (mut asked, mut last) = (Vec::new(), None);
    for (shard, reply) in rig.take_replies() {
        match reply {
            DiskReply::Release { logs, .. } => asked.extend(logs.iter().map(|log| (shard.0, log.0))),
            DiskReply::Health { wal: WalId::Data, full, .. } => last = Some(full),
            _ => {}
        }
    }
    (asked, last)
}

#[test]
fn segments_go_round_for_ever_and_old_bytes_never_come_back() {
    let mut rig = Rig::started(small());
    for index in 1..=400 {
        append_durable(&mut rig, index, &filling(1 + index as usize % 4));
        if index % 13 == 0 {
            rig.append(0, index, vec![state(1, FrameKind::Checkpoint, index - 5, b"c")]);
            rig.settle();
            rig.acked();
        }
        if index % 7 == 0 {
            let found = rig.recover().expect("the disk is sound");
            assert_eq!(indexes(&found, 1).last(), Some(&index));
        }
        if index % 90 == 0 {
            rig = rig.restart().0;
            rig.settle();
        }
    }
    assert!(data_slots(&rig) <= 8, "{} slots", data_slots(&rig));
}

#[test]
fn the_oldest_segment_is_given_back_first_and_only_when_nobody_needs_it() {
    let mut rig = Rig::started(small());
    rig.append(0, 1, vec![entry(2, 1, b"quiet")]);
    rig.settle();
    for index in 1..=20 {
        append_durable(&mut rig, index, &filling(3));
    }
    rig.take_replies();
    rig.append(0, 21, vec![state(1, FrameKind::Checkpoint, 20, b"c")]);
    rig.settle();
    let (asked, _) = asked_and_full(&mut rig);
    assert_eq!(asked, [], "the same segment is not asked for again at once");
    rig.tick_after(200);
    let (asked, _) = asked_and_full(&mut rig);
    assert_eq!(asked, [(0, 2)], "only the log that still needs it, at its owner");
    let slots = data_slots(&rig);
    rig.append(0, 22, vec![state(2, FrameKind::Deleted, 0, b"")]);
    rig.settle();
    for index in 21..=50 {
        append_durable(&mut rig, index, &filling(3));
        rig.append(0, index, vec![state(1, FrameKind::Checkpoint, index, b"c")]);
        rig.settle();
    }
    assert_eq!(data_slots(&rig), slots, "the freed slots were used again");
    let (_, found) = rig.restart();
    assert_eq!(found.logs.len(), 1);
}

#[test]
fn a_wal_without_checkpoints_asks_then_calls_itself_full_then_waits_and_goes_on_after_a_release() {
    let mut rig = Rig::started(small());
    let mut full_at = None;
    let mut asked_at = None;
    for ticket in 1..=60 {
        rig.append(0, ticket, vec![entry(1, ticket, &filling(3))]);
        rig.settle();
        let in_use = data_slots(&rig);
        let (asked, full) = asked_and_full(&mut rig);
        if !asked.is_empty() {
            asked_at.get_or_insert(in_use);
            assert_eq!(asked, [(1, 1)]);
        }
        if full == Some(true) {
            full_at.get_or_insert(in_use);
        }
    }
    // Two more than in use are always made ahead.
    assert_eq!((asked_at, full_at), (Some(6), Some(8)));
    assert_eq!(data_slots(&rig), 8, "the limit holds");
    assert!(rig.disk.busy() && rig.ops.is_empty());
    rig.tick_after(2_000);
    let health = |rig: &mut Rig| {
        let replies = rig.take_replies();
        let ages = replies.into_iter().filter_map(|(_, reply)| match reply {
            DiskReply::Health { oldest_ms, pending_bytes, .. } => Some((oldest_ms, pending_bytes > 0)),
            _ => None,
        });
        ages.last()
    };
    assert_eq!(health(&mut rig), Some((2_000, true)));

    let (mut rig, found) = rig.restart();
    assert_eq!(indexes(&found, 1), (1..=40).collect::<Vec<_>>(), "all that was acknowledged");
    rig.append(0, 1, vec![state(1, FrameKind::Checkpoint, 40, b"c")]);
    rig.settle();
    assert_eq!(rig.acked(), [(0, 1)], "a start makes room beyond the limit");
    append_durable(&mut rig, 41, b"x");
    assert_eq!(data_slots(&rig), 8, "and goes back to it");
}

#[test]
fn entries_that_cannot_be_passed_are_written_again_and_keep_no_segment() {
    let mut rig = Rig::started(small());
    let stuck: Vec<Frame> = (4..=6).map(|index| entry(2, index, &[index as u8; 100])).collect();
    rig.append(0, 1, [vec![state(2, FrameKind::Checkpoint, 3, b"stuck")], stuck.clone()].concat());
    let again = || stuck.iter().cloned().map(|frame| Frame { again: true, ..frame });
    for ticket in 2..=200 {
        let asked: Vec<LogId> = asked_for_space(&rig.take_replies()).into_iter().map(|(log, _)| log).collect();
        let mut frames = vec![entry(1, ticket - 1, &filling(2))];
        if asked.contains(&LogId(1)) {
            frames.push(state(1, FrameKind::Checkpoint, ticket - 1, b"c"));
        }
        if asked.contains(&LogId(2)) {
            frames.push(state(2, FrameKind::Checkpoint, 3, b"stuck"));
            frames.extend(again());
        }
        rig.append(0, ticket, frames);
        rig.settle();
        rig.tick_after(250);
        let (found, expected) = (rig.recover().expect("the disk is sound"), (4..=6));
        let expected: Vec<_> = expected.map(|index| (index, Bytes::from(vec![index as u8; 100]))).collect();
        assert_eq!(entries(&found, 2), expected, "at ticket {ticket}");
    }
    assert!(data_slots(&rig) <= 6, "{} segments", data_slots(&rig));
}

#[test]
fn starts_in_quick_succession_do_not_fill_the_wal() {
    let mut rig = Rig::started(small());
    for index in 1..=30 {
        rig.append(0, index, vec![entry(1, index, b"x")]);
        rig.settle();
        let replies = rig.take_replies();
        assert!(!replies.iter().any(|(_, reply)| matches!(reply, DiskReply::Health { full: true, .. })));
        assert!(replies.iter().any(|(_, reply)| matches!(reply, DiskReply::Appended { .. })), "start {index}");
        rig = rig.restart().0;
    }
    rig.append(0, 31, vec![state(1, FrameKind::Checkpoint, 30, b"c")]);
    rig.settle();
    append_durable(&mut rig, 31, b"x");
    assert_eq!(data_slots(&rig), 8, "all but the usual number are removed");
}

#[test]
fn a_full_ring_whose_oldest_segment_is_free_records_it_in_the_block_kept_for_that() {
    let mut rig = Rig::started(small());
    for index in 1..=39 {
        append_durable(&mut rig, index, &filling(3));
    }
    assert_eq!(data_slots(&rig), 8);
    rig.append(0, 40, vec![state(1, FrameKind::Checkpoint, 39, &filling(3))]);
    rig.turn();
    rig.append(0, 41, vec![entry(1, 40, &[0x77; 12_000])]);
    while !rig.ops.is_empty() {
        for at in rig.writes() {
            let mut memory = rig.memory.clone();
            if let DeviceOp::Write { file, offset, buf, len } = &rig.ops[at].1 {
                let from = *offset as usize;
                memory.files.get_mut(file).unwrap()[from + 512..from + len].copy_from_slice(&buf[512..*len]);
            }
            let found = recovery::recover(&memory, &rig.config).expect("a torn write over a freed slot is no damage");
            assert!(indexes(&found, 1).last().is_none_or(|last| *last == 39));
        }
        rig.complete(0);
        rig.turn();
    }
    assert_eq!(rig.acked(), [(0, 40), (0, 41)]);
    assert_eq!(data_slots(&rig), 8);
    let (_, found) = rig.restart();
    assert_eq!(indexes(&found, 1), [40]);
}

#[test]
fn a_torn_first_write_over_a_slot_in_its_second_use_is_a_torn_tail() {
    let mut rig = Rig::started(small());
    for index in 1..=5 {
        append_durable(&mut rig, index, &filling(3));
    }
    for index in 6..=15 {
        append_durable(&mut rig, index, &filling(3));
        rig.append(0, index, vec![state(1, FrameKind::Checkpoint, index, b"c")]);
        rig.settle();
        rig.acked();
    }
    let mut index = 15;
    let second_use = |rig: &Rig| {
        let at = *rig.writes().first()?;
        match &rig.ops[at].1 {
            DeviceOp::Write { file, offset: 0, buf, len } if rig.memory.files[file][..4] == *b"RLWL" => {
                Some((*file, buf[..*len].to_vec()))
            }
            _ => None,
        }
    };
    let (file, bytes) = loop {
        index += 1;
        rig.append(0, index, vec![entry(1, index, &vec![index as u8; filling(3).len()])]);
        rig.turn();
        if let Some(found) = second_use(&rig) {
            break found;
        }
        rig.settle();
        rig.acked();
    };
    for cut in 0..bytes.len() / 512 {
        for (from, to) in [(0, cut * 512), (cut * 512 + 512, bytes.len())] {
            let mut memory = rig.memory.clone();
            memory.files.get_mut(&file).unwrap()[from..to].copy_from_slice(&bytes[from..to]);
            let found = recovery::recover(&memory, &rig.config).expect("a torn tail is no damage");
            assert_eq!(indexes(&found, 1), (16..index).collect::<Vec<_>>(), "sectors {from}..{to}");
        }
    }
}

#[test]
fn without_space_the_wal_makes_do_and_tries_again_every_second() {
    let mut rig = Rig::started(small());
    append_durable(&mut rig, 1, &filling(3));
    let create = |rig: &Rig| rig.ops.iter().position(|(_, op)| matches!(op, DeviceOp::Create { .. }));
    let mut index = 1;
    let at = loop {
        index += 1;
        rig.append(0, index, vec![entry(1, index, &filling(3))]);
        rig.turn();
        if let Some(at) = create(&rig) {
            break at;
        }
        rig.settle();
    };
    rig.fail(at, ENOSPC);
    rig.settle();
    let grows = |reply: &DiskReply| matches!(reply, DiskReply::Health { no_space: false, .. });
    let last = rig.replies.iter().rfind(|(_, reply)| matches!(reply, DiskReply::Health { .. }));
    assert!(last.is_some_and(|(_, reply)| !grows(reply)), "{last:?}");
    assert_eq!(asked_and_full(&mut rig), (vec![(1, 1)], Some(true)));
    rig.tick_after(500);
    assert_eq!(create(&rig), None);
    rig.tick_after(600);
    assert!(create(&rig).is_some(), "it is tried again");
    rig.settle();
    assert_eq!(asked_and_full(&mut rig).1, Some(false));
}

/// Lets everything end, on a disk that holds no more than `room` bytes.
fn settle_within(rig: &mut Rig, room: usize) {
    rig.turn();
    while let Some((_, op)) = rig.ops.first() {
        let taken: usize = rig.memory.files.values().map(Vec::len).sum();
        match op {
            DeviceOp::Create { len, .. } if taken + *len as usize > room => rig.fail(0, ENOSPC),
            _ => rig.complete(0),
        }
        rig.turn();
    }
}

/// Appends more than a disk of `room` bytes takes. Returns how many entries were acknowledged.
fn fill(rig: &mut Rig, room: usize) -> u64 {
    for index in 1..=80 {
        rig.append(0, index, vec![entry(1, index, &filling(3))]);
        settle_within(rig, room);
    }
    rig.acked().len() as u64
}

#[test]
fn a_start_on_a_disk_without_room_has_a_slot_to_go_on_in() {
    let mut rig = Rig::started(small());
    let room = 300_000;
    let taken = fill(&mut rig, room);
    assert!((7..30).contains(&taken), "{taken} were taken");
    let (mut rig, found) = rig.restart();
    assert_eq!(indexes(&found, 1), (1..=taken).collect::<Vec<_>>());
    for ticket in 1..=4 {
        rig.append(0, ticket, vec![entry(1, taken + ticket, b"on")]);
        settle_within(&mut rig, room);
    }
    rig.append(0, 5, vec![state(1, FrameKind::Deleted, 0, b"")]);
    settle_within(&mut rig, room);
    assert_eq!(rig.acked(), [(0, 1), (0, 2), (0, 3), (0, 4), (0, 5)]);
    for index in 1..=20 {
        rig.append(0, index, vec![entry(2, index, &filling(3)), state(2, FrameKind::Checkpoint, index, b"c")]);
        settle_within(&mut rig, room);
        assert_eq!(rig.acked(), [(0, index)], "what was deleted has made room");
    }
}

#[test]
fn many_starts_on_a_disk_without_room_go_on_in_what_the_ones_before_left_unused() {
    let config = WalConfig { segment_bytes: 1024 * 1024, max_segments: 8 };
    let mut rig = Rig::started(DiskConfig { meta: WalConfig { segment_bytes: 64 * 1024, ..config }, data: config });
    for index in 1..=20 {
        append_durable(&mut rig, index, &filling(10));
    }
    let room = rig.memory.files.values().map(Vec::len).sum();
    let mut last = 20;
    for start in 1..=6 {
        let found;
        (rig, found) = rig.restart();
        assert_eq!(indexes(&found, 1), (1..=last).collect::<Vec<_>>(), "start {start}");
        last += 1;
        rig.append(0, 1, vec![entry(1, last, b"on")]);
        // With the tick it tries whether there is room by now.
        for _ in 0..3 {
            settle_within(&mut rig, room);
            rig.tick_after(1_100);
        }
        assert_eq!(rig.acked(), [(0, 1)], "start {start}");
        assert!(asked_and_full(&mut rig).1.is_none_or(|full| full), "start {start}");
    }
    rig.append(0, 2, vec![state(1, FrameKind::Deleted, 0, b"")]);
    settle_within(&mut rig, room);
    rig.tick_after(1_100);
    settle_within(&mut rig, room);
    for index in 1..=20 {
        rig.append(0, index, vec![entry(2, index, &filling(10)), state(2, FrameKind::Checkpoint, index, b"c")]);
        settle_within(&mut rig, room);
        rig.tick_after(1_100);
        settle_within(&mut rig, room);
    }
    assert_eq!(rig.acked().last(), Some(&(0, 20)), "what was deleted has made room");
}

#[test]
fn an_error_of_a_write_fences_the_wal_for_all_that_wait_and_all_that_come() {
    let mut rig = Rig::started(small());
    append_durable(&mut rig, 1, b"durable");
    rig.append(0, 2, vec![entry(1, 2, b"in flight")]);
    rig.turn();
    rig.append(1, 1, vec![entry(2, 1, b"gathering")]);
    let at = rig.writes()[0];
    rig.fail(at, EIO);
    let failed = |rig: &mut Rig| -> Vec<(u16, DiskError)> {
        let replies = rig.take_replies();
        let failed = replies.into_iter().map(|(shard, reply)| match reply {
            DiskReply::WalFailed { wal: WalId::Data, error } => (shard.0, error),
            other => panic!("{other:?}"),
        });
        failed.collect()
    };
    let told = failed(&mut rig);
    assert_eq!(told.iter().map(|(shard, _)| *shard).collect::<Vec<_>>(), [0, 1]);
    assert!(told.iter().all(|(_, error)| matches!(error, DiskError::Io { file, .. } if file == "wal/data-0000.wal")));
    rig.turn();
    assert!(rig.writes().is_empty(), "nothing is tried again");
    rig.append(0, 3, vec![entry(1, 3, b"later")]);
    let told = failed(&mut rig);
    assert!(matches!(&told[..], [(0, DiskError::Fenced { .. })]), "{told:?}");
    rig.tick_after(5_000);
    assert!(rig.replies.is_empty() && !rig.disk.busy());
    let meta = DiskRequest::Append { ticket: 1, wal: WalId::Meta, frames: vec![entry(0, 1, b"m")] };
    rig.request(0, meta);
    rig.settle();
    assert!(matches!(rig.replies[..], [(ShardId(0), DiskReply::Appended { wal: WalId::Meta, ticket: 1 })]));
}

#[test]
fn a_write_that_ends_well_after_an_earlier_one_failed_is_not_acknowledged() {
    let mut config = small();
    config.data.segment_bytes = 4 * 1024 * 1024;
    let mut rig = Rig::started(config);
    for ticket in 1..=2 {
        rig.append(0, ticket, vec![entry(1, ticket, &filling(70))]);
        rig.turn();
    }
    let first = rig.writes()[0];
    rig.fail(first, EIO);
    let second = rig.writes()[0];
    rig.complete(second);
    assert_eq!(rig.acked(), []);
}

#[test]
fn a_stall_is_reported_while_it_lasts_and_its_end_at_once() {
    let mut rig = Rig::started(small());
    rig.append(0, 1, vec![entry(1, 1, b"x")]);
    rig.turn();
    let ages = |rig: &mut Rig| -> Vec<(u16, u64)> {
        let replies = rig.take_replies();
        let ages = replies.into_iter().filter_map(|(shard, reply)| match reply {
            DiskReply::Health { oldest_ms, .. } => Some((shard.0, oldest_ms)),
            _ => None,
        });
        ages.collect()
    };
    rig.tick_after(10);
    assert_eq!(ages(&mut rig), [(0, 0), (1, 0)], "bytes are pending");
    rig.tick_after(10);
    rig.tick_after(10);
    assert_eq!(ages(&mut rig), [(0, 20), (1, 20), (0, 30), (1, 30)]);
    rig.settle();
    assert_eq!(ages(&mut rig), [(0, 0), (1, 0)]);
}

#[test]
fn what_waits_behind_a_stall_counts_as_space_in_use() {
    let mut rig = Rig::started(small());
    let mut changes = Vec::new();
    for ticket in 1..=40 {
        rig.append(0, ticket, vec![entry(1, ticket, &filling(3))]);
        rig.turn();
        let room = rig.take_replies().into_iter().find_map(|(_, reply)| match reply {
            DiskReply::Health { wal: WalId::Data, full, scarce, .. } => Some((ticket, full, scarce)),
            _ => None,
        });
        changes.extend(room);
    }
    // Five of eight segments' worth of bytes are accepted: with the one in use only the reserve is left. Then seven and a
    // half are.
    assert_eq!(changes, [(27, true, false), (40, true, true)]);
}
