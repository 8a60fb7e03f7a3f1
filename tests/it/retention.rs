//! Records that go: by request, by time and size, and because a later one has the same key.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::DeleteRecordsRequest;
use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};

use crate::common::process::{Broker, Launch, data_dir, shared};
use crate::common::records::{Batch, batch, records, values};
use crate::common::wire::{Wire, code, topic_name};
use crate::common::{bytes_below, fresh, wait_until};

const EARLIEST: i64 = -2;

/// Error and low watermark.
fn delete(wire: &mut Wire, topic: &str, offset: i64) -> (i16, i64) {
    let partition = DeleteRecordsPartition::default().with_offset(offset);
    let topic = DeleteRecordsTopic::default().with_name(topic_name(topic)).with_partitions(vec![partition]);
    let request = DeleteRecordsRequest::default().with_topics(vec![topic]).with_timeout_ms(10_000);
    let answer = wire.call(2, &request).topics.remove(0).partitions.remove(0);
    (answer.error_code, answer.low_watermark)
}

fn is_at(wire: &mut Wire, topic: &str, start: i64) {
    assert_eq!(wire.list_offset(topic, 0, EARLIEST).1, start);
    let gone = wire.fetch(topic, 0, start - 1);
    assert_eq!((gone.error_code, gone.log_start_offset), (code(ResponseError::OffsetOutOfRange), start));
}

#[test]
fn records_are_deleted_by_request() {
    let broker = shared();
    let mut wire = Wire::connect(broker.address());
    let topic = fresh("deleted");
    wire.create_topic(&topic, 1, &[("retention.ms", "-1")]);
    for n in 0..10 {
        wire.produce(&topic, 0, batch(&[format!("v{n}")]));
    }
    assert_eq!(delete(&mut wire, &topic, 11), (code(ResponseError::OffsetOutOfRange), -1));
    assert_eq!(delete(&mut wire, &topic, 4), (0, 4));
    is_at(&mut wire, &topic, 4);
    assert_eq!(values(wire.fetch(&topic, 0, 4).records.unwrap())[0], "v4");
    assert_eq!(delete(&mut wire, &topic, 2), (0, 4), "what is gone already is deleted");
    assert_eq!(delete(&mut wire, &topic, -1), (0, 10));
    is_at(&mut wire, &topic, 10);
    let produced = wire.produce(&topic, 0, batch(&["more"]));
    assert_eq!((produced.base_offset, produced.log_start_offset), (10, 10));
    let unknown = delete(&mut wire, &fresh("unknown"), 0);
    assert_eq!(unknown, (code(ResponseError::UnknownTopicOrPartition), -1));
    let compacted = fresh("compacted");
    wire.create_topic(&compacted, 1, &[("cleanup.policy", "compact")]);
    assert_eq!(delete(&mut wire, &compacted, 0), (code(ResponseError::PolicyViolation), -1));
    let keyless = wire.produce(&compacted, 0, batch(&["without a key"]));
    assert_eq!(keyless.error_code, code(ResponseError::InvalidRecord));
}

#[test]
fn deleted_records_stay_so_after_a_kill() {
    let dir = data_dir();
    let broker = Launch::new(dir.path()).start();
    let mut wire = Wire::connect(&broker.address());
    wire.create_topic("t", 1, &[("retention.ms", "-1")]);
    for n in 0..10 {
        wire.produce("t", 0, batch(&[format!("v{n}")]));
    }
    assert_eq!(delete(&mut wire, "t", 7), (0, 7));
    let broker = broker.kill().start();
    let mut wire = Wire::connect(&broker.address());
    is_at(&mut wire, "t", 7);
    assert_eq!(values(wire.fetch("t", 0, 7).records.unwrap()), ["v7", "v8", "v9"]);
}

/// Whether the first partition has a segment that begins at offset `from` or later, and one that was written anew, which its
/// name says.
fn is_rewritten(partitions: &Path, from: u64) -> bool {
    let Some(Ok(log)) = std::fs::read_dir(partitions).ok().and_then(|mut logs| logs.next()) else { return false };
    let files = std::fs::read_dir(log.path()).expect("the partition's folder").flatten();
    let names: Vec<String> = files.map(|file| file.file_name().to_string_lossy().into_owned()).collect();
    let base = |name: &String| name[..20].parse::<u64>().expect("a name begins with an offset");
    names.iter().any(|name| base(name) >= from) && names.iter().any(|name| name.contains('-'))
}

/// Records in each of the rounds, which have 20 keys, and rounds: more than a broker keeps in memory.
const ROUNDS: usize = 96;

/// Starts a broker that looks often, and has it move records into segments.
fn filled(dir: &Path, configs: &[(&str, &str)]) -> Broker {
    let broker = Launch::new(dir).shards(1).with(&["--log-retention-check-interval-ms", "100"]).start();
    let mut wire = Wire::connect(&broker.address());
    wire.create_topic("t", 1, &[&[("segment.bytes", "1048576"), ("retention.ms", "-1")], configs].concat());
    for round in 0..ROUNDS {
        let keys: Vec<String> = (0..20).map(|key| format!("k{key}")).collect();
        let values: Vec<String> = keys.iter().map(|key| format!("{key} {round} {}", "x".repeat(25_000))).collect();
        assert_eq!(wire.produce("t", 0, Batch::of(&values).keyed(&keys).bytes()).error_code, 0);
    }
    broker
}

/// The last value of each key from the start of the log on, without what fills it up; and the number of records.
fn last_of_keys(wire: &mut Wire) -> (BTreeMap<String, String>, usize) {
    let (mut found, mut count) = (BTreeMap::new(), 0);
    let (mut next, end) = (wire.list_offset("t", 0, EARLIEST).1, wire.list_offset("t", 0, -1).1);
    let text = |bytes: Option<bytes::Bytes>| String::from_utf8(bytes.expect("not null").to_vec()).expect("UTF-8");
    while next < end {
        let fetched = wire.fetch("t", 0, next);
        assert_eq!(fetched.error_code, 0, "a fetch at {next} of {end}");
        for record in records(fetched.records.unwrap_or_default()) {
            next = record.offset + 1;
            count += 1;
            found.insert(text(record.key), text(record.value).trim_end_matches('x').trim().to_owned());
        }
    }
    (found, count)
}

#[test]
fn of_a_compacted_topic_the_last_record_of_each_key_is_left() {
    let dir = data_dir();
    let broker = filled(dir.path(), &[("cleanup.policy", "compact"), ("min.cleanable.dirty.ratio", "0.1")]);
    let partitions = dir.path().join("partitions");
    let expected: BTreeMap<String, String> =
        (0..20).map(|key| (format!("k{key}"), format!("k{key} {}", ROUNDS - 1))).collect();
    let mut wire = Wire::connect(&broker.address());
    // Of 1,920 records 500 have left the memory, and 160 at most of these are left.
    let small =
        wait_until(Duration::from_secs(30), || is_rewritten(&partitions, 500) && bytes_below(&partitions) < (4 << 20));
    assert!(small, "{} bytes are left", bytes_below(&partitions));
    // Some of them are read from memory still, as they were.
    assert_eq!(last_of_keys(&mut wire).0, expected);
    let broker = broker.kill().start();
    let (found, count) = last_of_keys(&mut Wire::connect(&broker.address()));
    assert_eq!(found, expected);
    assert!(count < ROUNDS * 20 - 300, "{count} records are left");
}

#[test]
fn what_is_more_than_retention_bytes_is_deleted() {
    let dir = data_dir();
    // What is still in memory counts too.
    let broker = filled(dir.path(), &[("retention.bytes", "20000000")]);
    let mut wire = Wire::connect(&broker.address());
    // It moves by a segment of 1 MiB at a time, as records are moved into segments: the last of them stays.
    let partitions = dir.path().join("partitions");
    let moved = wait_until(Duration::from_secs(30), || {
        wire.list_offset("t", 0, EARLIEST).1 > 100 && bytes_below(&partitions) < (2 << 20)
    });
    let start = wire.list_offset("t", 0, EARLIEST).1;
    assert!(moved, "{} bytes are left, from {start} on", bytes_below(&partitions));
    is_at(&mut wire, "t", start);
    let (found, count) = last_of_keys(&mut wire);
    assert_eq!(found.len(), 20);
    assert!(count * 25_000 > 19_000_000, "{count} records are left");
}
