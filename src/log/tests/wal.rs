//! Group commit, order of acknowledgement, confirmation.

use bytes::Bytes;

use super::rig::*;
use crate::limits::IDLE_TICK_MS;
use crate::log::wal::CONFIRM_AFTER_MS;
use crate::log::*;

#[test]
fn a_first_start_makes_a_segment_and_a_spare_and_then_rests() {
    let mut rig = Rig::new(small());
    rig.append(0, 1, vec![entry(1, 1, b"early")]);
    rig.turn();
    assert!(rig.writes().is_empty(), "there is no segment yet");
    rig.settle();
    assert_eq!(rig.acked(), [(0, 1)]);
    rig.tick_after(CONFIRM_AFTER_MS);
    rig.settle();
    assert!(!rig.disk.busy());
    assert_eq!(rig.memory.files.len(), 3, "two of the data's, one of the metadata's");
}

#[test]
fn what_was_appended_is_recovered() {
    let mut rig = Rig::started(small());
    rig.append(0, 1, vec![entry(2, 1, b"one"), entry(2, 2, b"two"), state(2, FrameKind::HardState, 0, b"vote")]);
    rig.append(1, 1, vec![entry(1, 1, b"other")]);
    rig.request(0, DiskRequest::Append { ticket: 1, wal: WalId::Meta, frames: vec![entry(0, 1, b"meta")] });
    rig.settle();
    let (_, found) = rig.restart();
    assert_eq!(entries(&found, 2), [(1, Bytes::from_static(b"one")), (2, Bytes::from_static(b"two"))]);
    assert_eq!(found.logs[2].hard_state.as_deref(), Some(&b"vote"[..]));
    assert_eq!(entries(&found, 1), [(1, Bytes::from_static(b"other"))]);
    assert_eq!(entries(&found, 0), [(1, Bytes::from_static(b"meta"))]);
    assert_eq!(found.report.writes, 2);
    assert_eq!(found.report.frames, 5);
}

#[test]
fn appends_of_a_turn_share_a_write_and_those_of_a_busy_time_the_next() {
    let mut rig = Rig::started(small());
    for index in 1..=10 {
        rig.append(index as u16 % 2, index, vec![entry(index, 1, b"x")]);
    }
    rig.turn();
    assert_eq!(rig.writes().len(), 1);
    for index in 11..=20 {
        rig.append(index as u16 % 2, index, vec![entry(index, 1, b"x")]);
        rig.turn();
    }
    assert_eq!(rig.writes().len(), 1, "small frames wait for the write in flight");
    let at = rig.writes()[0];
    rig.complete(at);
    assert_eq!(rig.acked(), [(1, 9), (0, 10)], "one reply a shard, with the newest ticket");
    rig.settle();
    assert_eq!(rig.acked(), [(1, 19), (0, 20)]);
}

#[test]
fn writes_that_end_out_of_order_are_acknowledged_in_order() {
    let mut config = small();
    config.data.segment_bytes = 4 * 1024 * 1024;
    let mut rig = Rig::started(config);
    for ticket in 1..=3 {
        rig.append(0, ticket, vec![entry(1, ticket, &filling(70))]);
        rig.turn();
    }
    assert_eq!(rig.writes().len(), 3, "large appends do not wait");
    let last = rig.writes()[2];
    rig.complete(last);
    let middle = rig.writes()[1];
    rig.complete(middle);
    assert_eq!(rig.acked(), []);
    let first = rig.writes()[0];
    rig.complete(first);
    assert_eq!(rig.acked(), [(0, 3)]);
}

#[test]
fn at_most_four_writes_are_in_flight_and_the_rest_waits_in_full_buffers() {
    let mut config = small();
    config.data.segment_bytes = 16 * 1024 * 1024;
    let mut rig = Rig::started(config);
    for ticket in 1..=30 {
        rig.append(0, ticket, vec![entry(1, ticket, &filling(80))]);
        rig.turn();
    }
    assert_eq!(rig.writes().len(), 4);
    rig.settle();
    assert_eq!(rig.acked().last(), Some(&(0, 30)));
    let (_, found) = rig.restart();
    assert_eq!(indexes(&found, 1), (1..=30).collect::<Vec<_>>());
    assert!(found.report.writes < 20, "three frames of 320 KiB fit a write of 1 MiB");
}

#[test]
fn a_frame_larger_than_a_write_gets_one_of_its_own() {
    let mut config = small();
    config.data.segment_bytes = 8 * 1024 * 1024;
    let mut rig = Rig::started(config);
    let large = vec![7; 3 * 1024 * 1024];
    rig.append(0, 1, vec![entry(1, 1, b"before"), entry(1, 2, &large), entry(1, 3, b"after")]);
    rig.settle();
    assert_eq!(rig.acked().last(), Some(&(0, 1)));
    let (_, found) = rig.restart();
    assert_eq!(indexes(&found, 1), [1, 2, 3]);
    assert_eq!(entries(&found, 1)[1].1, large);
}

#[test]
fn the_last_write_is_confirmed_once_and_then_there_is_silence() {
    let mut rig = Rig::started(small());
    append_durable(&mut rig, 1, b"x");
    assert!(rig.disk.busy());
    assert_eq!(rig.disk.tick_in_ms(rig.now), IDLE_TICK_MS);
    rig.tick_after(CONFIRM_AFTER_MS - 10);
    assert!(rig.ops.is_empty());
    assert_eq!(rig.disk.tick_in_ms(rig.now), 10);
    rig.tick_after(10);
    assert_eq!(rig.writes().len(), 1);
    rig.settle();
    rig.take_replies();
    assert!(!rig.disk.busy());
    for _ in 0..100 {
        rig.tick_after(100);
    }
    assert!(rig.ops.is_empty() && rig.replies.is_empty());
    let before = rig.memory.clone();
    let (mut rig, found) = rig.restart();
    assert_eq!(found.report.writes, 2);
    for _ in 0..100 {
        rig.tick_after(100);
        rig.settle();
    }
    assert!(rig.memory.files == before.files, "a start without work writes nothing");
}

#[test]
fn the_first_segment_is_small_and_the_spare_behind_it_is_not() {
    let mut config = small();
    config.data.segment_bytes = 16 * 1024 * 1024;
    let mut rig = Rig::new(config);
    // The first does not fit the small segment and waits for the large one.
    rig.append(0, 1, vec![entry(1, 1, &vec![1; 5 * 1024 * 1024])]);
    rig.append(0, 2, vec![entry(1, 2, b"x")]);
    rig.turn();
    let first = rig.ops.iter().position(|(_, op)| matches!(op, DeviceOp::Create { file, .. } if *file == wal(0)));
    rig.complete(first.expect("it is made"));
    let len = |rig: &Rig, slot| rig.memory.files.get(&wal(slot)).map(|bytes| bytes.len() >> 20);
    assert_eq!(len(&rig, 0), Some(4));
    rig.settle();
    assert_eq!(rig.acked(), [(0, 2)]);
    assert_eq!(len(&rig, 1), Some(16));
    for index in 3..=5 {
        append_durable(&mut rig, index, &vec![1; 3 * 1024 * 1024]);
    }
    let (mut rig, found) = rig.restart();
    assert_eq!(indexes(&found, 1), [1, 2, 3, 4, 5]);
    rig.append(0, 1, vec![state(1, FrameKind::Checkpoint, 5, b"c")]);
    rig.settle();
    append_durable(&mut rig, 6, b"x");
    assert!([0, 1, 2].iter().all(|slot| len(&rig, *slot).is_none_or(|len| len == 16)), "it is removed when it is free");
}
