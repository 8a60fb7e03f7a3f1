//! librdkafka, the client under most clients that are not Java.

use std::time::Duration;

use rdkafka::admin::{ConfigSource, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, Producer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use crate::common::librdkafka::{
    Delivery, Read, Recorder, admin, admin_options, block_on, consumer, create_topic, read_all,
};
use crate::common::process::shared;
use crate::common::records::TIME;
use crate::common::wire::Wire;
use crate::common::{fresh, noise};

/// Sends `count` records over `partitions` partitions in turn and checks that each is acknowledged, in order.
fn round_trip(partitions: i32, count: usize, size: usize, settings: &[(&str, &str)]) -> String {
    let broker = shared();
    let topic = fresh("rdkafka");
    create_topic(broker.address(), &topic, partitions, &[]);
    let recorder = Recorder::new(broker.address(), settings);
    let value = |number: usize| {
        let mut value = format!("{number:08} ").into_bytes();
        value.extend_from_slice(&noise(number as u64, size));
        value
    };
    for number in 0..count {
        let partition = number as i32 % partitions;
        recorder.send(&topic, partition, number, Some(TIME + number as i64), &value(number)).expect("taken");
    }
    let reports = recorder.finish();
    assert_eq!(reports.len(), count);
    let known_offsets = !settings.contains(&("acks", "0"));
    for (number, delivery) in reports {
        let (partition, offset) = (number as i32 % partitions, (number as i32 / partitions) as i64);
        match delivery {
            Delivery::Acknowledged(p, o) if known_offsets => assert_eq!((p, o), (partition, offset)),
            Delivery::Acknowledged(..) => {}
            Delivery::Failed(error) => panic!("record {number}: {error}"),
        }
    }
    let read = read_all(broker.address(), &topic, partitions);
    for number in 0..count {
        let record = &read[number % partitions as usize][number / partitions as usize];
        assert!(record.value == value(number), "the value of record {number}");
        assert_eq!(record.timestamp, Some(TIME + number as i64));
    }
    topic
}

#[test]
fn produce_and_consume_with_acks_all() {
    round_trip(3, 30_000, 100, &[("acks", "all"), ("linger.ms", "1")]);
}

#[test]
fn produce_and_consume_with_acks_1() {
    round_trip(2, 5_000, 100, &[("acks", "1")]);
}

#[test]
fn produce_without_acks() {
    let topic = round_trip_without_acks();
    assert!(!topic.is_empty());
}

/// Without acknowledgements the client knows only that it has sent; what was sent arrives all the same.
fn round_trip_without_acks() -> String {
    let broker = shared();
    let topic = fresh("no-acks");
    create_topic(broker.address(), &topic, 1, &[]);
    let recorder = Recorder::new(broker.address(), &[("acks", "0")]);
    for number in 0..1_000 {
        recorder.send(&topic, 0, number, None, number.to_string().as_bytes()).expect("taken");
    }
    recorder.finish();
    let mut wire = Wire::connect(broker.address());
    let arrived = crate::common::wait_until(Duration::from_secs(10), || wire.list_offset(&topic, 0, -1).1 == 1_000);
    assert!(arrived, "{} of 1000 records arrived", wire.list_offset(&topic, 0, -1).1);
    let read = read_all(broker.address(), &topic, 1);
    assert!(read[0].iter().enumerate().all(|(number, record)| record.value == number.to_string().as_bytes()));
    topic
}

#[test]
fn idempotent_producer() {
    round_trip(4, 20_000, 50, &[("enable.idempotence", "true"), ("linger.ms", "1"), ("batch.num.messages", "50")]);
}

#[test]
fn idempotent_producer_of_single_records() {
    let settings = [("enable.idempotence", "true"), ("linger.ms", "0"), ("batch.num.messages", "1")];
    round_trip(3, 2_000, 20, &settings);
}

#[test]
fn many_partitions() {
    round_trip(200, 20_000, 30, &[("enable.idempotence", "true")]);
}

/// Compression is the client's: the broker keeps the batch as it came.
fn compressed(codec: &str, number: u8) {
    let broker = shared();
    let topic = fresh(codec);
    create_topic(broker.address(), &topic, 1, &[]);
    let recorder = Recorder::new(broker.address(), &[("compression.codec", codec), ("linger.ms", "50")]);
    let value = |number: usize| format!("a value that compresses well, number {number} ").repeat(10);
    for number in 0..1_000 {
        recorder.send(&topic, 0, number, None, value(number).as_bytes()).expect("taken");
    }
    assert!(recorder.finish().values().all(|delivery| matches!(delivery, Delivery::Acknowledged(..))));
    let stored = Wire::connect(broker.address()).fetch(&topic, 0, 0).records.expect("records");
    assert_eq!(stored[22] & 7, number, "the codec in the batch's attributes");
    let read = read_all(broker.address(), &topic, 1);
    assert!(read[0].iter().enumerate().all(|(number, record)| record.value == value(number).as_bytes()));
}

#[test]
fn gzip() {
    compressed("gzip", 1);
}

#[test]
fn snappy() {
    compressed("snappy", 2);
}

#[test]
fn lz4() {
    compressed("lz4", 3);
}

#[test]
fn records_up_to_and_over_message_max_bytes() {
    let broker = shared();
    let topic = fresh("large");
    create_topic(broker.address(), &topic, 1, &[("max.message.bytes", "5000000")]);
    let settings = [("message.max.bytes", "8000000"), ("acks", "all")];
    let recorder = Recorder::new(broker.address(), &settings);
    let sizes = [4_999_000, 6_000_000, 100, 4_000_000, 5_000_001];
    for (number, size) in sizes.into_iter().enumerate() {
        recorder.send(&topic, 0, number, None, &noise(number as u64, size)).expect("taken");
        recorder.finish();
    }
    let reports = recorder.finish();
    for (number, size) in sizes.into_iter().enumerate() {
        match reports[&number] {
            Delivery::Acknowledged(..) => assert!(size < 5_000_000, "{size} bytes were taken"),
            Delivery::Failed(error) => {
                assert_eq!(error, RDKafkaErrorCode::MessageSizeTooLarge);
                assert!(size > 5_000_000, "{size} bytes were refused");
            }
        }
    }
    let read = read_all(broker.address(), &topic, 1);
    let values: Vec<Vec<u8>> = [0, 2, 3].into_iter().map(|number| noise(number as u64, sizes[number])).collect();
    assert!(read[0].iter().map(|record| &record.value).eq(values.iter()));
}

/// Reads `count` records with a consumer that was placed somewhere.
fn take(consumer: &rdkafka::consumer::BaseConsumer, count: usize) -> Vec<Read> {
    let mut read = Vec::new();
    let end = std::time::Instant::now() + Duration::from_secs(20);
    while read.len() < count {
        assert!(std::time::Instant::now() < end, "{} of {count} records came", read.len());
        if let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) {
            read.push(Read::from(&message));
        }
    }
    read
}

#[test]
fn consume_from_an_offset_and_from_a_time() {
    let topic = round_trip(1, 1_000, 10, &[("batch.num.messages", "7")]);
    let broker = shared();
    let at_offset = consumer(broker.address(), &topic, 1, Offset::Offset(500), &[]);
    let read = take(&at_offset, 500);
    assert_eq!((read[0].offset, read[499].offset), (500, 999));

    let limit = Duration::from_secs(10);
    assert_eq!(at_offset.fetch_watermarks(&topic, 0, limit).expect("watermarks"), (0, 1_000));
    for (time, expected) in [
        (TIME - 5, Offset::Offset(0)),
        (TIME + 1, Offset::Offset(1)),
        (TIME + 777, Offset::Offset(777)),
        (TIME + 999, Offset::Offset(999)),
        (TIME + 1_000, Offset::End),
    ] {
        let mut asked = TopicPartitionList::new();
        asked.add_partition_offset(&topic, 0, Offset::Offset(time)).expect("a time");
        let found = at_offset.offsets_for_times(asked, limit).expect("offsets");
        assert_eq!(found.elements()[0].offset(), expected, "{time}");
    }

    let tail = consumer(broker.address(), &topic, 1, Offset::OffsetTail(10), &[]);
    assert_eq!(take(&tail, 10)[0].offset, 990);
}

#[test]
fn a_consumer_at_the_end_sees_what_comes() {
    let broker = shared();
    let topic = fresh("tailing");
    create_topic(broker.address(), &topic, 1, &[]);
    let recorder = Recorder::new(broker.address(), &[("acks", "all")]);
    recorder.send(&topic, 0, 0, None, b"before").expect("taken");
    recorder.finish();
    let consumer = consumer(broker.address(), &topic, 1, Offset::Offset(1), &[]);
    for number in 1..50 {
        recorder.send(&topic, 0, number, None, number.to_string().as_bytes()).expect("taken");
        let read = take(&consumer, 1);
        assert_eq!((read[0].offset, &read[0].value[..]), (number as i64, number.to_string().as_bytes()));
    }
}

#[test]
fn an_offset_out_of_range_is_reset() {
    let topic = round_trip(1, 100, 10, &[]);
    let broker = shared();
    let reset = [("auto.offset.reset", "earliest")];
    let read = take(&consumer(broker.address(), &topic, 1, Offset::Offset(5_000), &reset), 100);
    assert_eq!((read[0].offset, read[99].offset), (0, 99));
}

#[test]
fn topics_are_created_described_and_deleted() {
    let broker = shared();
    let admin = admin(broker.address());
    let limit = Duration::from_secs(10);
    let names: Vec<String> = (0..20).map(|_| fresh("admin")).collect();
    let topics: Vec<NewTopic<'_>> = names
        .iter()
        .map(|name| NewTopic::new(name, 3, TopicReplication::Fixed(1)).set("retention.ms", "7200000"))
        .collect();
    let created = block_on(admin.create_topics(&topics, &admin_options())).expect("an answer");
    assert!(created.iter().zip(&names).all(|(result, name)| result.as_ref() == Ok(name)), "{created:?}");

    let again = block_on(admin.create_topics(&topics[..1], &admin_options())).expect("an answer");
    assert_eq!(again, [Err((names[0].clone(), RDKafkaErrorCode::TopicAlreadyExists))]);

    let metadata = admin.inner().fetch_metadata(Some(&names[7]), limit).expect("metadata");
    assert_eq!(metadata.topics()[0].partitions().len(), 3);

    let described = block_on(admin.describe_configs([&ResourceSpecifier::Topic(&names[0])], &admin_options()))
        .expect("an answer")
        .remove(0)
        .expect("a resource");
    let retention = described.get("retention.ms").expect("the config");
    assert_eq!(retention.value.as_deref(), Some("7200000"));
    assert_eq!(retention.source, ConfigSource::DynamicTopic);
    assert!(!retention.is_default);
    let size = described.get("max.message.bytes").expect("the config");
    assert_eq!(size.value.as_deref(), Some("1048588"));
    assert!(size.is_default);

    let doomed: Vec<&str> = names.iter().map(String::as_str).collect();
    let deleted = block_on(admin.delete_topics(&doomed, &admin_options())).expect("an answer");
    assert!(deleted.iter().all(Result::is_ok), "{deleted:?}");
    let gone = block_on(admin.delete_topics(&doomed[..1], &admin_options())).expect("an answer");
    assert_eq!(gone, [Err((names[0].clone(), RDKafkaErrorCode::UnknownTopicOrPartition))]);
}

#[test]
fn a_topic_is_created_by_its_first_record() {
    let broker = shared();
    let topic = fresh("auto");
    let recorder = Recorder::new(broker.address(), &[]);
    recorder.send(&topic, 0, 0, None, b"first").expect("taken");
    assert_eq!(recorder.finish()[&0], Delivery::Acknowledged(0, 0));
    assert_eq!(read_all(broker.address(), &topic, 1)[0][0].value, b"first");
}

#[test]
fn a_transactional_producer_is_told_at_once_that_there_are_no_transactions() {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", shared().address()).set("transactional.id", "t");
    let producer: BaseProducer = config.create().expect("a producer");
    let error = producer.init_transactions(Duration::from_secs(60)).expect_err("it is refused");
    let KafkaError::Transaction(error) = error else { panic!("{error}") };
    assert!(error.is_fatal() && error.to_string().contains("This broker has no transactions."), "{error}");
}
