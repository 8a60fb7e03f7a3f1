//! Produce, frame by frame: what is taken, what is refused, with which error, and what stands in the log after it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::ProduceRequest;
use kafka_protocol::records::TimestampType;

use crate::common::process::{external, shared};
use crate::common::records::{Batch, COUNT_AT, CRC_AT, TIME, batch, records, values, with_crc};
use crate::common::wire::{Wire, code, partition_answer, produce_request};
use crate::common::{fresh, noise};

/// A connection, and a topic of one partition.
fn topic(name: &str, configs: &[(&str, &str)]) -> (Wire, String) {
    let mut wire = Wire::connect(shared().address());
    let name = fresh(name);
    wire.create_topic(&name, 1, configs);
    (wire, name)
}

fn wall_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis() as i64
}

/// Where the log ends.
fn end(wire: &mut Wire, topic: &str) -> i64 {
    wire.list_offset(topic, 0, -1).1
}

/// The batch is refused with one of `errors` and leaves nothing behind.
fn is_refused(records: Bytes, errors: &[ResponseError]) {
    let (mut wire, name) = topic("refused", &[]);
    wire.produce(&name, 0, batch(&["before"]));
    let answer = wire.produce(&name, 0, records);
    let error = ResponseError::try_from_code(answer.error_code);
    assert!(error.is_some_and(|error| errors.contains(&error)), "{error:?} instead of {errors:?}");
    assert_eq!(answer.base_offset, -1);
    assert_eq!(wire.produce(&name, 0, batch(&["after"])).base_offset, 1);
    assert_eq!(values(wire.fetch(&name, 0, 0).records.expect("records")), ["before", "after"]);
}

#[test]
fn offsets_count_records() {
    let (mut wire, name) = topic("offsets", &[]);
    for (round, base) in [0, 3, 6, 9].into_iter().enumerate() {
        let answer = wire.produce(&name, 0, batch(&[format!("a{round}"), format!("b{round}"), format!("c{round}")]));
        assert_eq!((answer.error_code, answer.base_offset), (0, base));
        assert_eq!(answer.log_append_time_ms, -1, "CreateTime has no append time");
        assert_eq!(answer.log_start_offset, 0);
    }
    let fetched = wire.fetch(&name, 0, 0);
    assert_eq!((fetched.high_watermark, fetched.last_stable_offset, fetched.log_start_offset), (12, 12, 0));
    let read = records(fetched.records.expect("records"));
    assert_eq!(read.iter().map(|record| record.offset).collect::<Vec<_>>(), (0..12).collect::<Vec<_>>());
    assert!(read.iter().all(|record| record.timestamp == TIME && record.timestamp_type == TimestampType::Creation));
}

#[test]
fn a_batch_is_stored_as_it_was_sent() {
    let (mut wire, name) = topic("bytes", &[]);
    let sent = batch(&[noise(1, 1_000), noise(2, 10)]);
    assert_eq!(wire.produce(&name, 0, sent.clone()).error_code, 0);
    let stored = wire.fetch(&name, 0, 0).records.expect("records");
    assert_eq!(stored.len(), sent.len());
    assert_eq!(stored[CRC_AT - 1..], sent[CRC_AT - 1..], "from the magic byte on: offset and epoch are the broker's");
}

#[test]
fn a_corrupt_checksum_is_a_corrupt_message() {
    let good = batch(&["some value"]);
    for at in [CRC_AT, CRC_AT + 4, COUNT_AT + 3, good.len() - 1] {
        let mut bad = good.to_vec();
        bad[at] ^= 1;
        is_refused(bad.into(), &[ResponseError::CorruptMessage]);
    }
}

#[test]
fn a_truncated_batch_is_refused() {
    let good = batch(&["some value"]);
    for length in [1, 11, 12, 16, 17, 60, 61, good.len() - 1] {
        is_refused(good.slice(..length), &[ResponseError::CorruptMessage, ResponseError::InvalidRecord]);
    }
}

#[test]
fn an_empty_or_missing_batch_is_refused() {
    is_refused(Bytes::new(), &[ResponseError::InvalidRecord, ResponseError::CorruptMessage]);
}

#[test]
fn bytes_after_the_batch_are_refused() {
    let mut two = batch(&["one"]).to_vec();
    two.extend_from_slice(&batch(&["two"]));
    is_refused(two.into(), &[ResponseError::InvalidRecord]);
}

#[test]
fn a_batch_that_contradicts_itself_is_refused() {
    let good = batch(&["one", "two"]);
    let change = |at: usize, to: &[u8]| {
        let mut bad = good.to_vec();
        bad[at..at + to.len()].copy_from_slice(to);
        with_crc(bad)
    };
    let invalid = [ResponseError::InvalidRecord, ResponseError::CorruptMessage];
    // The last offset delta says one record more than the count.
    is_refused(change(23, &2i32.to_be_bytes()), &invalid);
    // No records at all, a negative number of them, and more than there are bytes for.
    is_refused(change(COUNT_AT, &0i32.to_be_bytes()), &invalid);
    is_refused(change(COUNT_AT, &(-1i32).to_be_bytes()), &invalid);
    if external().is_none() {
        // Kafka runs out of an array there, and answers with UNKNOWN_SERVER_ERROR.
        is_refused(change(COUNT_AT, &i32::MAX.to_be_bytes()), &invalid);
    }
    // A control batch: only brokers write those.
    is_refused(change(21, &0x20i16.to_be_bytes()), &invalid);
    // A length that is negative, or shorter than a header.
    is_refused(change(8, &(-1i32).to_be_bytes()), &invalid);
    is_refused(change(8, &10i32.to_be_bytes()), &invalid);
    is_refused(change(8, &i32::MAX.to_be_bytes()), &invalid);
}

#[test]
fn a_format_of_the_past_or_the_future_is_refused() {
    for magic in [0, 1, 3, 0x7f] {
        let mut bad = batch(&["value"]).to_vec();
        bad[16] = magic;
        let errors =
            [ResponseError::InvalidRecord, ResponseError::CorruptMessage, ResponseError::UnsupportedForMessageFormat];
        is_refused(bad.into(), &errors);
    }
}

#[test]
fn each_partition_has_its_own_error() {
    let mut wire = Wire::connect(shared().address());
    let name = fresh("partitions");
    wire.create_topic(&name, 3, &[]);
    let mut corrupt = batch(&["bad"]).to_vec();
    *corrupt.last_mut().expect("a byte") ^= 1;
    let batches = [(0, batch(&["zero"])), (7, batch(&["seven"])), (1, corrupt.into()), (2, batch(&["two"]))];
    let mut request = produce_request(&name, &batches, -1, 5_000);
    request.topic_data.extend(produce_request(&fresh("nowhere"), &[(0, batch(&["x"]))], -1, 5_000).topic_data);
    let response = wire.call(9, &request);
    let mut answers: Vec<(i32, i16)> = response
        .responses
        .iter()
        .find(|topic| topic.name.as_str() == name)
        .expect("the topic is answered")
        .partition_responses
        .iter()
        .map(|answer| (answer.index, answer.error_code))
        .collect();
    answers.sort_unstable();
    let unknown = code(ResponseError::UnknownTopicOrPartition);
    assert_eq!(answers, [(0, 0), (1, code(ResponseError::CorruptMessage)), (2, 0), (7, unknown)]);
    let other = response.responses.iter().find(|topic| topic.name.as_str() != name).expect("the other topic");
    assert_eq!(other.partition_responses[0].error_code, unknown);
    assert_eq!(values(wire.fetch(&name, 2, 0).records.expect("records")), ["two"]);
}

#[test]
fn a_batch_larger_than_the_topic_allows_is_too_large() {
    let (mut wire, name) = topic("large", &[("max.message.bytes", "10000")]);
    let over = wire.produce(&name, 0, batch(&[noise(1, 10_000)]));
    assert_eq!(over.error_code, code(ResponseError::MessageTooLarge));
    let overhead = batch(&[noise(1, 9_000)]).len() - 9_000;
    assert_eq!(wire.produce(&name, 0, batch(&[noise(1, 10_000 - overhead)])).base_offset, 0, "just fits");
    let one_more = wire.produce(&name, 0, batch(&[noise(1, 10_001 - overhead)]));
    assert_eq!(one_more.error_code, code(ResponseError::MessageTooLarge));
}

#[test]
fn acks_are_none_one_or_all() {
    let (mut wire, name) = topic("acks", &[]);
    // No answer to the first: the next answer on the connection belongs to the next request.
    wire.send(9, &produce_request(&name, &[(0, batch(&["none"]))], 0, 5_000));
    for (value, acks) in [("one", 1), ("all", -1)] {
        let response = wire.call(9, &produce_request(&name, &[(0, batch(&[value]))], acks, 5_000));
        assert_eq!(partition_answer(response).error_code, 0);
    }
    for acks in [2, -2] {
        let response = wire.call(9, &produce_request(&name, &[(0, batch(&["never"]))], acks, 5_000));
        assert_eq!(partition_answer(response).error_code, code(ResponseError::InvalidRequiredAcks));
    }
    assert_eq!(values(wire.fetch(&name, 0, 0).records.expect("records")), ["none", "one", "all"]);
}

#[test]
fn a_refused_batch_without_acks_is_not_answered() {
    let (mut wire, name) = topic("silent", &[]);
    let mut corrupt = batch(&["bad"]).to_vec();
    *corrupt.last_mut().expect("a byte") ^= 1;
    wire.send(9, &produce_request(&name, &[(0, corrupt.into())], 0, 5_000));
    // A broker cannot say what went wrong without an answer; it may close the connection, so that the client asks
    // for metadata again. It must not answer.
    let _ = wire.try_send_bytes(&[]);
    assert!(
        wire.is_closed_within(Duration::from_secs(2)) || end(&mut Wire::connect(shared().address()), &name) == 0,
        "neither closed nor ignored"
    );
}

#[test]
fn many_requests_on_one_connection_keep_their_order() {
    let (mut wire, name) = topic("order", &[]);
    for number in 0..60 {
        wire.send(9, &produce_request(&name, &[(0, batch(&[number.to_string()]))], -1, 10_000));
    }
    for number in 0..60 {
        let answer = partition_answer(wire.receive::<ProduceRequest>(9).1);
        assert_eq!((answer.error_code, answer.base_offset), (0, number));
    }
    let read = values(wire.fetch(&name, 0, 0).records.expect("records"));
    assert_eq!(read, (0..60).map(|number| number.to_string()).collect::<Vec<_>>());
}

#[test]
fn a_repeated_batch_is_answered_with_its_first_offset() {
    let (mut wire, name) = topic("repeat", &[]);
    let (id, epoch) = wire.producer_id();
    let batches: Vec<Bytes> =
        (0..5).map(|n| Batch::of(&[format!("{n}a"), format!("{n}b")]).by(id, epoch, n * 2).bytes()).collect();
    for (n, batch) in batches.iter().enumerate() {
        assert_eq!(wire.produce(&name, 0, batch.clone()).base_offset, n as i64 * 2);
    }
    // All five that may be in flight are known, in any order.
    for n in [4, 0, 2, 1, 3, 4] {
        let answer = wire.produce(&name, 0, batches[n].clone());
        assert_eq!((answer.error_code, answer.base_offset), (0, n as i64 * 2), "batch {n} again");
    }
    assert_eq!(end(&mut wire, &name), 10);
}

#[test]
fn a_batch_repeated_while_the_first_is_in_flight_is_written_once() {
    let (mut wire, name) = topic("twins", &[]);
    let (id, epoch) = wire.producer_id();
    for round in 0..20 {
        let twin = Batch::of(&["twin"]).by(id, epoch, round).bytes();
        let request = produce_request(&name, &[(0, twin)], -1, 5_000);
        wire.send(9, &request);
        wire.send(9, &request);
        for _ in 0..2 {
            let answer = partition_answer(wire.receive::<ProduceRequest>(9).1);
            assert_eq!((answer.error_code, answer.base_offset), (0, i64::from(round)));
        }
    }
    assert_eq!(end(&mut wire, &name), 20);
}

#[test]
fn a_gap_in_the_sequence_is_out_of_order() {
    let (mut wire, name) = topic("gap", &[]);
    let (id, epoch) = wire.producer_id();
    let mut produce = |sequence: i32| {
        let answer = wire.produce(&name, 0, Batch::of(&["v"]).by(id, epoch, sequence).bytes());
        (answer.error_code, answer.base_offset)
    };
    let out_of_order = (code(ResponseError::OutOfOrderSequenceNumber), -1);
    assert_eq!(produce(0), (0, 0));
    assert_eq!(produce(2), out_of_order);
    assert_eq!(produce(1), (0, 1));
    assert_eq!(produce(10), out_of_order);
    assert_eq!(produce(2), (0, 2));
    for sequence in 3..9 {
        assert_eq!(produce(sequence), (0, i64::from(sequence)));
    }
    // Too old to be known as a repetition.
    assert_eq!(produce(0), out_of_order);
    assert_eq!(produce(9), (0, 9));
}

#[test]
fn an_older_epoch_is_fenced() {
    let (mut wire, name) = topic("epochs", &[]);
    let (id, epoch) = wire.producer_id();
    let mut produce = |epoch: i16, sequence: i32| {
        wire.produce(&name, 0, Batch::of(&["v"]).by(id, epoch, sequence).bytes()).error_code
    };
    assert_eq!(produce(epoch, 0), 0);
    assert_eq!(produce(epoch + 1, 5), code(ResponseError::OutOfOrderSequenceNumber), "a new epoch begins at 0");
    assert_eq!(produce(epoch + 1, 0), 0);
    assert_eq!(produce(epoch, 1), code(ResponseError::InvalidProducerEpoch));
    assert_eq!(produce(epoch + 1, 1), 0);
}

#[test]
fn a_new_producer_begins_at_zero() {
    let (mut wire, name) = topic("begin", &[]);
    let (id, epoch) = wire.producer_id();
    let mut produce = |sequence: i32| {
        let answer = wire.produce(&name, 0, Batch::of(&["v"]).by(id, epoch, sequence).bytes());
        (answer.error_code, answer.base_offset)
    };
    // The batches before it were refused; taken now, it would overtake them.
    assert_eq!(produce(1), (code(ResponseError::OutOfOrderSequenceNumber), -1));
    assert_eq!(produce(0), (0, 0));
    assert_eq!(produce(1), (0, 1));
}

#[test]
fn producers_do_not_disturb_each_other() {
    let (mut wire, name) = topic("producers", &[]);
    let producers: Vec<(i64, i16)> = (0..10).map(|_| wire.producer_id()).collect();
    let mut ids: Vec<i64> = producers.iter().map(|producer| producer.0).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 10, "ids are never given twice");
    for round in 0..5 {
        for (id, epoch) in &producers {
            let answer = wire.produce(&name, 0, Batch::of(&["v"]).by(*id, *epoch, round).bytes());
            assert_eq!(answer.error_code, 0);
        }
    }
    assert_eq!(end(&mut wire, &name), 50);
}

#[test]
fn log_append_time_is_the_brokers() {
    let (mut wire, name) = topic("append-time", &[("message.timestamp.type", "LogAppendTime")]);
    let before = wall_ms();
    let answer = wire.produce(&name, 0, Batch::of(&["a", "b"]).at(&[1, 2]).bytes());
    let after = wall_ms();
    assert_eq!(answer.error_code, 0);
    assert!((before..=after).contains(&answer.log_append_time_ms), "{} is the time now", answer.log_append_time_ms);
    let stored = wire.fetch(&name, 0, 0).records.expect("records");
    assert_eq!(stored[22] & 0x08, 0x08, "the timestamp type in the attributes");
    assert_eq!(stored[35..43], answer.log_append_time_ms.to_be_bytes(), "the batch's maximum timestamp");
    // The checksum covers what the broker changed: the decoder checks it.
    assert_eq!(values(stored), ["a", "b"]);
    assert_eq!(wire.list_offset(&name, 0, before), (answer.log_append_time_ms, 0));
    assert_eq!(wire.list_offset(&name, 0, after + 1), (-1, -1));
}

#[test]
fn a_time_far_ahead_is_refused() {
    let (mut wire, name) = topic("ahead", &[]);
    let day = 24 * 3_600_000;
    let ahead = wire.produce(&name, 0, Batch::of(&["v"]).at(&[wall_ms() + day]).bytes());
    assert_eq!(ahead.error_code, code(ResponseError::InvalidTimestamp));
    assert_eq!(wire.produce(&name, 0, Batch::of(&["v"]).at(&[wall_ms() - 1_000 * day]).bytes()).error_code, 0);
}
