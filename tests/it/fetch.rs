//! Fetch, ListOffsets and OffsetForLeaderEpoch, frame by frame.

use std::time::{Duration, Instant};

use kafka_protocol::ResponseError;
use kafka_protocol::messages::fetch_request::ForgottenTopic;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic};
use kafka_protocol::messages::{
    BrokerId, FetchRequest, FetchResponse, ListOffsetsRequest, OffsetForLeaderEpochRequest,
};
use uuid::Uuid;

use crate::common::process::shared;
use crate::common::records::{Batch, TIME, batch, records, values};
use crate::common::wire::{Wire, code, fetch_request, only_partition, topic_name};
use crate::common::{fresh, noise};

/// A connection, and a topic with `records` records of one batch each in each of its partitions.
fn topic(name: &str, partitions: i32, records: i32) -> (Wire, String) {
    let mut wire = Wire::connect(shared().address());
    let name = fresh(name);
    wire.create_topic(&name, partitions, &[]);
    for partition in 0..partitions {
        for number in 0..records {
            let answer = wire.produce(&name, partition, batch(&[format!("{partition}-{number}")]));
            assert_eq!((answer.error_code, answer.base_offset), (0, i64::from(number)));
        }
    }
    (wire, name)
}

fn leader_epoch(wire: &mut Wire, topic: &str) -> i32 {
    wire.metadata(topic).topics[0].partitions[0].leader_epoch
}

#[test]
fn a_fetch_begins_with_the_batch_that_holds_its_offset() {
    let (mut wire, name) = topic("middle", 1, 0);
    wire.produce(&name, 0, batch(&["a", "b", "c"]));
    wire.produce(&name, 0, batch(&["d", "e"]));
    for offset in 0..3 {
        let read = records(wire.fetch(&name, 0, offset).records.expect("records"));
        assert_eq!(read.iter().map(|r| r.offset).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    }
    for offset in 3..5 {
        assert_eq!(values(wire.fetch(&name, 0, offset).records.expect("records")), ["d", "e"]);
    }
    let at_the_end = wire.fetch(&name, 0, 5);
    assert_eq!((at_the_end.error_code, at_the_end.high_watermark), (0, 5));
    assert!(at_the_end.records.is_none_or(|records| records.is_empty()));
}

#[test]
fn an_offset_outside_of_the_log_is_out_of_range() {
    let (mut wire, name) = topic("range", 1, 2);
    for offset in [3, 1_000_000, i64::MAX, -1, -2, i64::MIN] {
        let answer = wire.fetch(&name, 0, offset);
        assert_eq!(answer.error_code, code(ResponseError::OffsetOutOfRange), "offset {offset}");
        assert!(answer.records.is_none_or(|records| records.is_empty()));
    }
}

#[test]
fn an_error_answers_at_once_and_leaves_the_other_partitions_alone() {
    let (mut wire, name) = topic("errors", 2, 1);
    let begin = Instant::now();
    let response = wire.call(12, &fetch_request(&name, &[(0, 99), (9, 0), (1, 0)], 1 << 20, 10_000));
    assert!(begin.elapsed() < Duration::from_secs(5), "an error is no reason to wait for data");
    let mut answers: Vec<(i32, i16)> =
        response.responses[0].partitions.iter().map(|p| (p.partition_index, p.error_code)).collect();
    answers.sort_unstable();
    assert_eq!(
        answers,
        [(0, code(ResponseError::OffsetOutOfRange)), (1, 0), (9, code(ResponseError::UnknownTopicOrPartition)),]
    );
    let unknown = wire.call(12, &fetch_request(&fresh("nowhere"), &[(0, 0)], 1, 100));
    assert_eq!(only_partition(unknown).error_code, code(ResponseError::UnknownTopicOrPartition));
}

#[test]
fn a_response_that_cannot_hold_everything_holds_something_of_each_partition() {
    let (mut wire, name) = topic("shares", 8, 0);
    for partition in 0..8 {
        for number in 0..8 {
            wire.produce(&name, partition, batch(&[noise(number, 40_000)]));
        }
    }
    let request = fetch_request(&name, &std::array::from_fn::<_, 8, _>(|partition| (partition as i32, 0)), 1, 100);
    let response = wire.call(12, &request.with_max_bytes(1 << 20));
    let counts: Vec<usize> = (response.responses[0].partitions.iter())
        .map(|partition| records(partition.records.clone().expect("records")).len())
        .collect();
    assert_eq!(counts, [3; 8], "an eighth of a MiB each");
    let all = wire.call(12, &fetch_request(&name, &[(0, 0), (1, 0)], 1, 100));
    assert!(all.responses[0].partitions.iter().all(|p| records(p.records.clone().expect("records")).len() == 8));
}

#[test]
fn an_unknown_topic_id_is_said_to_be_one() {
    let (mut wire, name) = topic("ids", 1, 1);
    let mut request = fetch_request(&name, &[(0, 0)], 1, 100);
    request.topics[0].topic = Default::default();
    request.topics[0].topic_id = Uuid::from_u128(0x1234_5678_9abc_4def_8123_4567_89ab_cdef);
    let answer = only_partition(wire.call(13, &request));
    assert_eq!(answer.error_code, code(ResponseError::UnknownTopicId));
}

#[test]
fn an_empty_fetch_waits_its_time() {
    let (mut wire, name) = topic("wait", 1, 1);
    let begin = Instant::now();
    let answer = only_partition(wire.call(12, &fetch_request(&name, &[(0, 1)], 1, 600)));
    let waited = begin.elapsed();
    assert_eq!((answer.error_code, answer.high_watermark), (0, 1));
    assert!(waited >= Duration::from_millis(595) && waited < Duration::from_millis(1_600), "{waited:?}");
}

#[test]
fn a_waiting_fetch_is_answered_when_data_comes() {
    let (mut wire, name) = topic("poll", 1, 1);
    let mut producer = Wire::connect(shared().address());
    for round in 1..10 {
        wire.send(12, &fetch_request(&name, &[(0, round)], 1, 10_000));
        std::thread::sleep(Duration::from_millis(20));
        let begin = Instant::now();
        assert_eq!(producer.produce(&name, 0, batch(&[format!("round {round}")])).base_offset, round);
        let answer = only_partition(wire.receive::<FetchRequest>(12).1);
        assert!(begin.elapsed() < Duration::from_secs(2), "answered after {:?}", begin.elapsed());
        assert_eq!(values(answer.records.expect("records")), [format!("round {round}")]);
        assert_eq!(answer.high_watermark, round + 1);
    }
}

#[test]
fn a_fetch_waits_for_min_bytes_over_all_of_its_partitions() {
    let (mut wire, name) = topic("min-bytes", 3, 0);
    let mut producer = Wire::connect(shared().address());
    wire.send(12, &fetch_request(&name, &[(0, 0), (1, 0), (2, 0)], 25_000, 10_000));
    for partition in 0..3 {
        assert_eq!(producer.produce(&name, partition, batch(&[noise(1, 10_000)])).error_code, 0);
    }
    let begin = Instant::now();
    let response = wire.receive::<FetchRequest>(12).1;
    assert!(begin.elapsed() < Duration::from_secs(2));
    let bytes: usize = response.responses.iter().flat_map(|topic| &topic.partitions).map(length).sum();
    assert!(bytes >= 25_000, "{bytes} bytes");
    // Too little, and the time runs out: what there is.
    let begin = Instant::now();
    let answer = only_partition(wire.call(12, &fetch_request(&name, &[(0, 0)], 25_000, 300)));
    assert!(begin.elapsed() >= Duration::from_millis(295));
    assert!(length(&answer) >= 10_000);
}

fn length(partition: &kafka_protocol::messages::fetch_response::PartitionData) -> usize {
    partition.records.as_ref().map_or(0, |records| records.len())
}

#[test]
fn a_fetch_keeps_to_max_bytes_and_always_gives_one_batch() {
    let (mut wire, name) = topic("max-bytes", 2, 0);
    for partition in 0..2 {
        for number in 0..10 {
            wire.produce(&name, partition, batch(&[noise(number, 10_000)]));
        }
    }
    let mut limited = |partition_max_bytes: i32, max_bytes: i32| {
        let mut request = fetch_request(&name, &[(0, 0), (1, 0)], 1, 1_000).with_max_bytes(max_bytes);
        for partition in &mut request.topics[0].partitions {
            partition.partition_max_bytes = partition_max_bytes;
        }
        let response: FetchResponse = wire.call(12, &request);
        let batches = |partition: &_| length(partition) / 10_000;
        response.responses.iter().flat_map(|topic| &topic.partitions).map(batches).collect::<Vec<_>>()
    };
    assert_eq!(limited(35_000, 1 << 20), [3, 3]);
    assert_eq!(limited(1 << 20, 1 << 20), [10, 10]);
    // The first batch comes whole, whatever the limits say; without it a consumer would never get past it.
    assert_eq!(limited(1, 1 << 20).iter().sum::<usize>(), 1);
    assert_eq!(limited(1, 1).iter().sum::<usize>(), 1);
    let both: usize = limited(1 << 20, 35_000).iter().sum();
    assert!((1..=3).contains(&both), "{both} batches of 10 kB under 35 kB in all");
}

#[test]
fn a_leader_epoch_ahead_of_the_leaders_is_unknown() {
    let (mut wire, name) = topic("epoch", 1, 1);
    let epoch = leader_epoch(&mut wire, &name);
    let mut request = fetch_request(&name, &[(0, 0)], 1, 100);
    request.topics[0].partitions[0].current_leader_epoch = epoch;
    assert_eq!(only_partition(wire.call(12, &request)).error_code, 0);
    request.topics[0].partitions[0].current_leader_epoch = epoch + 1;
    assert_eq!(only_partition(wire.call(12, &request)).error_code, code(ResponseError::UnknownLeaderEpoch));

    let partition =
        ListOffsetsPartition::default().with_partition_index(0).with_current_leader_epoch(epoch + 1).with_timestamp(-1);
    let asked = ListOffsetsTopic::default().with_name(topic_name(&name)).with_partitions(vec![partition]);
    let request = ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![asked]);
    let answer = wire.call(7, &request);
    assert_eq!(answer.topics[0].partitions[0].error_code, code(ResponseError::UnknownLeaderEpoch));
}

#[test]
fn the_end_of_an_epoch_is_known() {
    let (mut wire, name) = topic("epoch-end", 1, 3);
    let epoch = leader_epoch(&mut wire, &name);
    let mut ask = |partition: i32, current: i32, asked: i32| {
        let partition = OffsetForLeaderPartition::default()
            .with_partition(partition)
            .with_current_leader_epoch(current)
            .with_leader_epoch(asked);
        let topic = OffsetForLeaderTopic::default().with_topic(topic_name(&name)).with_partitions(vec![partition]);
        let request = OffsetForLeaderEpochRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![topic]);
        let answer = wire.call(4, &request).topics[0].partitions[0].clone();
        (answer.error_code, answer.leader_epoch, answer.end_offset)
    };
    assert_eq!(ask(0, -1, epoch), (0, epoch, 3));
    assert_eq!(ask(0, epoch, epoch), (0, epoch, 3));
    assert_eq!(ask(0, epoch + 1, epoch).0, code(ResponseError::UnknownLeaderEpoch));
    assert_eq!(ask(9, -1, epoch).0, code(ResponseError::UnknownTopicOrPartition));
}

#[test]
fn offsets_are_found_by_time() {
    let (mut wire, name) = topic("times", 1, 0);
    // Offsets 0, 1, 2 / 3, 4 / 5; the times are not in order, as with real producers.
    wire.produce(&name, 0, Batch::of(&["a", "b", "c"]).at(&[TIME, TIME + 50, TIME + 20]).bytes());
    wire.produce(&name, 0, Batch::of(&["d", "e"]).at(&[TIME + 10, TIME + 100]).bytes());
    wire.produce(&name, 0, Batch::of(&["f"]).at(&[TIME + 90]).bytes());
    assert_eq!(wire.list_offset(&name, 0, -2).1, 0, "earliest");
    assert_eq!(wire.list_offset(&name, 0, -1).1, 6, "latest");
    assert_eq!(wire.list_offset(&name, 0, -3), (TIME + 100, 4), "the maximum timestamp");
    assert_eq!(wire.list_offset(&name, 0, 0), (TIME, 0));
    assert_eq!(wire.list_offset(&name, 0, TIME), (TIME, 0));
    assert_eq!(wire.list_offset(&name, 0, TIME + 1), (TIME + 50, 1));
    assert_eq!(wire.list_offset(&name, 0, TIME + 50), (TIME + 50, 1));
    assert_eq!(wire.list_offset(&name, 0, TIME + 51), (TIME + 100, 4));
    assert_eq!(wire.list_offset(&name, 0, TIME + 100), (TIME + 100, 4));
    assert_eq!(wire.list_offset(&name, 0, TIME + 101), (-1, -1), "nothing is that late");
}

#[test]
fn offsets_of_an_empty_partition() {
    let (mut wire, name) = topic("empty", 1, 0);
    assert_eq!(wire.list_offset(&name, 0, -2).1, 0);
    assert_eq!(wire.list_offset(&name, 0, -1).1, 0);
    assert_eq!(wire.list_offset(&name, 0, -3), (-1, -1));
    assert_eq!(wire.list_offset(&name, 0, TIME), (-1, -1));
}

#[test]
fn a_session_answers_only_with_what_changed() {
    let (mut wire, name) = topic("session", 3, 1);
    let call = |wire: &mut Wire, id: i32, epoch: i32, partitions: &[(i32, i64)], forget: &[i32]| {
        let mut request = fetch_request(&name, partitions, 0, 0).with_session_id(id).with_session_epoch(epoch);
        if partitions.is_empty() {
            request.topics.clear();
        }
        if !forget.is_empty() {
            let topic = ForgottenTopic::default().with_topic(topic_name(&name)).with_partitions(forget.to_vec());
            request.forgotten_topics_data = vec![topic];
        }
        let response = wire.call(12, &request);
        let mut answered: Vec<(i32, usize)> = response
            .responses
            .iter()
            .flat_map(|topic| &topic.partitions)
            .map(|partition| (partition.partition_index, length(partition)))
            .collect();
        answered.sort_unstable();
        (response.error_code, response.session_id, answered)
    };
    // A full request begins a session, and is answered with every partition.
    let (error, id, answered) = call(&mut wire, 0, 0, &[(0, 1), (1, 1), (2, 1)], &[]);
    assert_eq!(error, 0);
    assert_ne!(id, 0, "a session is given");
    assert_eq!(answered, [(0, 0), (1, 0), (2, 0)]);
    // Nothing changed.
    assert_eq!(call(&mut wire, id, 1, &[], &[]), (0, id, vec![]));
    // One partition has a record more.
    let record = batch(&["more"]);
    wire.produce(&name, 1, record.clone());
    assert_eq!(call(&mut wire, id, 2, &[], &[]), (0, id, vec![(1, record.len())]));
    // The consumer went past it, and another gets one while it is forgotten.
    wire.produce(&name, 2, record.clone());
    assert_eq!(call(&mut wire, id, 3, &[(1, 2)], &[2]), (0, id, vec![]));
    assert_eq!(call(&mut wire, id, 4, &[(2, 1)], &[]), (0, id, vec![(2, record.len())]));
    // An epoch that is not the next one, and a session that nobody has.
    assert_eq!(call(&mut wire, id, 9, &[], &[]).0, code(ResponseError::InvalidFetchSessionEpoch));
    assert_eq!(call(&mut wire, id.wrapping_add(1).max(1), 5, &[], &[]).0, code(ResponseError::FetchSessionIdNotFound));
    // The session is closed by its owner.
    let (error, closed, _) = call(&mut wire, id, -1, &[(0, 0)], &[]);
    assert_eq!((error, closed), (0, 0));
    assert_eq!(call(&mut wire, id, 5, &[], &[]).0, code(ResponseError::FetchSessionIdNotFound));
}

#[test]
fn a_waiting_session_fetch_is_answered_when_data_comes() {
    let (mut wire, name) = topic("session-wait", 2, 0);
    let begin = fetch_request(&name, &[(0, 0), (1, 0)], 1, 0).with_session_id(0).with_session_epoch(0);
    let id = wire.call(12, &begin).session_id;
    let mut next = fetch_request(&name, &[], 1, 10_000).with_session_id(id).with_session_epoch(1);
    next.topics.clear();
    wire.send(12, &next);
    let mut producer = Wire::connect(shared().address());
    producer.produce(&name, 1, batch(&["here"]));
    let answer = only_partition(wire.receive::<FetchRequest>(12).1);
    assert_eq!(answer.partition_index, 1);
    assert_eq!(values(answer.records.expect("records")), ["here"]);
}

#[test]
fn old_records_are_read_from_the_disk() {
    let (mut wire, name) = topic("old", 1, 0);
    for number in 0..60 {
        let mut value = format!("{number} ").into_bytes();
        value.extend_from_slice(&noise(number, 900_000));
        assert_eq!(wire.produce(&name, 0, batch(&[value])).base_offset, number as i64);
    }
    let mut offset = 0;
    while offset < 60 {
        let read = records(
            only_partition(wire.call(12, &fetch_request(&name, &[(0, offset)], 1, 1_000))).records.expect("records"),
        );
        assert!(!read.is_empty(), "nothing at offset {offset}");
        let first = offset;
        for record in read.into_iter().filter(|record| record.offset >= first) {
            assert_eq!(record.offset, offset);
            let value = record.value.expect("a value");
            let begin = format!("{offset} ");
            assert!(value.starts_with(begin.as_bytes()));
            assert_eq!(value[begin.len()..], noise(offset as u64, 900_000));
            offset += 1;
        }
    }
}
