//! The broker ends, in good order or not, and starts again on the same data.

use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use kafka_protocol::ResponseError;
use kafka_protocol::messages::{ApiVersionsRequest, DeleteTopicsRequest, FetchRequest, ProduceRequest};

use crate::common::librdkafka::{RESILIENT, Recorder, assert_exactly_once, create_topic, keep_producing, read_all};
use crate::common::process::{Broker, Launch, data_dir, external};
use crate::common::records::{Batch, batch, values};
use crate::common::wire::{Wire, code, fetch_request, only_partition, partition_answer, produce_request, topic_name};
use crate::common::{files_below, noise, segments_below, skipped, wait_until};

/// These tests hold the process in their hands.
fn impossible() -> bool {
    let impossible = external().is_some();
    if impossible {
        skipped("the broker is not ours to stop");
    }
    impossible
}

/// Bytes that the files below a directory take on the disk.
fn disk_usage(directory: &Path) -> u64 {
    files_below(directory).iter().map(|(_, metadata)| metadata.blocks() * 512).sum()
}

#[test]
fn an_idempotent_producer_sees_ten_kills_and_loses_nothing() {
    if impossible() {
        return;
    }
    let rounds = std::env::var("RINGLOG_KILL_ROUNDS").ok().map_or(10, |rounds| rounds.parse().expect("a number"));
    const PARTITIONS: usize = 4;
    let directory = data_dir();
    let mut broker = Launch::new(directory.path()).start();
    let address = broker.address();
    create_topic(&address, "kills", PARTITIONS as i32, &[]);
    let stop = Arc::new(AtomicBool::new(false));
    let recorder = Arc::new(Recorder::new(&address, &RESILIENT));
    let producer = keep_producing(&recorder, "kills", PARTITIONS, &stop);
    recorder.wait_for(100);
    for round in 0..rounds {
        thread::sleep(Duration::from_millis(100 + 83 * (round * 7 % 11)));
        broker = broker.kill().start();
    }
    recorder.wait_for(1_000);
    stop.store(true, Ordering::Relaxed);
    producer.join().expect("the producer");
    let acknowledged = assert_exactly_once(&address, "kills", PARTITIONS, &recorder);
    assert!(acknowledged > rounds as usize * 100, "only {acknowledged} records in {rounds} rounds");
    assert!(broker.is_alive());
}

#[test]
fn many_small_logs_outlive_the_turns_of_the_wal_without_a_file() {
    if impossible() {
        return;
    }
    const SMALL: i32 = 300;
    let directory = data_dir();
    let broker = Launch::new(directory.path()).start();
    let mut wire = Wire::connect(&broker.address());
    wire.create_topic("small", SMALL, &[]);
    wire.create_topic("large", 1, &[]);
    for partition in 0..SMALL {
        assert_eq!(wire.produce("small", partition, batch(&[partition.to_string()])).error_code, 0);
    }
    // More than the WAL has room for.
    for n in 0..1_400 {
        assert_eq!(wire.produce("large", 0, batch(&[noise(n, 900_000)])).base_offset, n as i64);
    }
    let files = segments_below(directory.path()).len();
    assert!((1..10).contains(&files), "{files} segments");
    let broker = broker.kill().start();
    let mut wire = Wire::connect(&broker.address());
    for partition in 0..SMALL {
        let found = wire.fetch("small", partition, 0).records.expect("records");
        assert_eq!(values(found), [partition.to_string()]);
    }
    assert_eq!(wire.list_offset("large", 0, -1).1, 1_400);
}

#[test]
fn what_was_acknowledged_just_before_a_kill_is_there() {
    if impossible() {
        return;
    }
    let directory = data_dir();
    let mut broker = Launch::new(directory.path()).start();
    let mut wire = Wire::connect(&broker.address());
    wire.create_topic("sizes", 1, &[("max.message.bytes", "4000000")]);
    let sizes = [1, 100, 4_000, 4_096, 70_000, 1_000_000, 3_900_000, 10];
    for (round, size) in sizes.into_iter().enumerate() {
        let answer = wire.produce("sizes", 0, batch(&[noise(round as u64, size)]));
        assert_eq!((answer.error_code, answer.base_offset), (0, round as i64));
        broker = broker.kill().start();
        wire = Wire::connect(&broker.address());
        for (offset, size) in sizes.into_iter().enumerate().take(round + 1) {
            let fetched = wire.fetch("sizes", 0, offset as i64);
            assert_eq!(fetched.high_watermark, round as i64 + 1, "the high watermark after kill {round}");
            let records = crate::common::records::records(fetched.records.expect("records"));
            let record = records.iter().find(|record| record.offset == offset as i64).expect("the record");
            assert!(record.value.as_deref() == Some(&noise(offset as u64, size)), "offset {offset}");
        }
    }
}

#[test]
fn producers_are_known_after_a_kill() {
    if impossible() {
        return;
    }
    let directory = data_dir();
    let broker = Launch::new(directory.path()).start();
    let mut wire = Wire::connect(&broker.address());
    wire.create_topic("known", 1, &[]);
    let (id, epoch) = wire.producer_id();
    let send = |sequence: i32| Batch::of(&["a", "b"]).by(id, epoch, sequence).bytes();
    for n in 0..7 {
        assert_eq!(wire.produce("known", 0, send(n * 2)).base_offset, i64::from(n) * 2);
    }
    let broker = broker.kill().start();
    let mut wire = Wire::connect(&broker.address());
    for n in 2..7 {
        let answer = wire.produce("known", 0, send(n * 2));
        assert_eq!((answer.error_code, answer.base_offset), (0, i64::from(n) * 2), "batch {n} again");
    }
    assert_eq!(wire.produce("known", 0, send(20)).error_code, code(ResponseError::OutOfOrderSequenceNumber));
    assert_eq!(wire.produce("known", 0, send(14)).base_offset, 14);
    assert_ne!(wire.producer_id().0, id, "an id is never given twice");
}

#[test]
fn topics_live_and_die_across_kills() {
    if impossible() {
        return;
    }
    let directory = data_dir();
    let mut broker = Launch::new(directory.path()).start();
    for round in 0..4 {
        let mut wire = Wire::connect(&broker.address());
        let (kept, doomed) = (format!("kept-{round}"), format!("doomed-{round}"));
        let id = wire.create_topic(&kept, 3, &[("retention.ms", "99999")]);
        wire.create_topic(&doomed, 3, &[]);
        assert_eq!(wire.produce(&kept, 2, batch(&["kept"])).error_code, 0);
        assert_eq!(wire.produce(&doomed, 1, batch(&["doomed"])).error_code, 0);
        let delete = DeleteTopicsRequest::default().with_topic_names(vec![topic_name(&doomed)]).with_timeout_ms(5_000);
        assert_eq!(wire.call(5, &delete).responses[0].error_code, 0);
        broker = broker.kill().start();
        let mut wire = Wire::connect(&broker.address());
        let shown = wire.metadata(&kept).topics.remove(0);
        assert_eq!((shown.error_code, shown.topic_id, shown.partitions.len()), (0, id, 3));
        assert_ne!(wire.metadata(&doomed).topics[0].error_code, 0);
        for earlier in 0..=round {
            let read = wire.fetch(&format!("kept-{earlier}"), 2, 0).records.expect("records");
            assert_eq!(values(read), ["kept"]);
        }
    }
}

#[test]
fn the_number_of_shards_may_change_between_runs() {
    if impossible() {
        return;
    }
    const PARTITIONS: i32 = 7;
    let directory = data_dir();
    let mut launch = Launch::new(directory.path());
    for (round, shards) in [1, 3, 2, 1].into_iter().enumerate() {
        let broker = launch.shards(shards).start();
        let mut wire = Wire::connect(&broker.address());
        if round == 0 {
            wire.create_topic("moving", PARTITIONS, &[]);
        }
        for partition in 0..PARTITIONS {
            let answer = wire.produce("moving", partition, batch(&[format!("{partition} in round {round}")]));
            assert_eq!((answer.error_code, answer.base_offset), (0, round as i64), "with {shards} shards");
        }
        let read = read_all(&broker.address(), "moving", PARTITIONS);
        for (partition, records) in read.iter().enumerate() {
            assert_eq!(records.len(), round + 1);
            for (offset, record) in records.iter().enumerate() {
                assert_eq!(record.value, format!("{partition} in round {offset}").as_bytes());
            }
        }
        launch = if round % 2 == 0 { broker.kill() } else { broker.stop() };
    }
}

#[test]
fn a_clean_stop_drains() {
    if impossible() {
        return;
    }
    const PARTITIONS: usize = 2;
    let directory = data_dir();
    let broker = Launch::new(directory.path()).start();
    let address = broker.address();
    create_topic(&address, "drained", PARTITIONS as i32, &[]);
    let stop = Arc::new(AtomicBool::new(false));
    let recorder = Arc::new(Recorder::new(&address, &RESILIENT));
    let producer = keep_producing(&recorder, "drained", PARTITIONS, &stop);
    recorder.wait_for(1_000);
    let broker = broker.stop().start();
    recorder.wait_for(1_000);
    stop.store(true, Ordering::Relaxed);
    producer.join().expect("the producer");
    assert_exactly_once(&broker.address(), "drained", PARTITIONS, &recorder);
}

#[test]
fn requests_under_way_at_a_clean_stop_are_answered() {
    if impossible() {
        return;
    }
    let directory = data_dir();
    let broker = Launch::new(directory.path()).start();
    let mut wire = Wire::connect(&broker.address());
    wire.create_topic("last", 1, &[]);
    for number in 0..10 {
        wire.send(9, &produce_request("last", &[(0, batch(&[number.to_string()]))], -1, 5_000));
    }
    // The first answer shows that the requests have arrived.
    assert_eq!(partition_answer(wire.receive::<ProduceRequest>(9).1).error_code, 0);
    broker.terminate();
    let mut acknowledged = 1;
    while let Some(frame) = wire.frame_in() {
        let answer = partition_answer(crate::common::wire::decode::<ProduceRequest>(frame, 9).1);
        assert_eq!((answer.error_code, answer.base_offset), (0, acknowledged));
        acknowledged += 1;
    }
    let (status, launch) = broker.wait(Duration::from_secs(15));
    assert!(status.success(), "{status}");
    let broker = launch.start();
    let stored = Wire::connect(&broker.address()).list_offset("last", 0, -1).1;
    assert!(stored >= acknowledged, "{acknowledged} acknowledged, {stored} stored");
}

#[test]
fn a_clean_stop_does_not_wait_for_who_waits_for_records() {
    if impossible() {
        return;
    }
    let directory = data_dir();
    let broker = Launch::new(directory.path()).start();
    let mut wire = Wire::connect(&broker.address());
    wire.create_topic("quiet", 1, &[]);
    let produce = wire.encode(9, &produce_request("quiet", &[(0, batch(&["first"]))], -1, 5_000));
    let poll = wire.encode(12, &fetch_request("quiet", &[(0, 1)], 1, 60_000));
    // In one piece, so that the first answer shows that both requests have arrived.
    wire.send_bytes(&[produce, poll].concat());
    assert_eq!(partition_answer(wire.receive::<ProduceRequest>(9).1).error_code, 0);
    broker.terminate();
    let began = Instant::now();
    let polled = only_partition(wire.receive::<FetchRequest>(12).1);
    assert_eq!((polled.error_code, polled.records.map_or(0, |records| records.len())), (0, 0));
    let (status, _) = broker.wait(Duration::from_secs(15));
    assert!(status.success() && began.elapsed() < Duration::from_secs(5), "{status} after {:?}", began.elapsed());
}

#[test]
fn a_deleted_topic_frees_its_disk() {
    if impossible() {
        return;
    }
    let directory = data_dir();
    let broker = Launch::new(directory.path()).start();
    let mut wire = Wire::connect(&broker.address());
    wire.create_topic("bulky", 2, &[]);
    let before = disk_usage(directory.path());
    const MIB: u64 = 1 << 20;
    for number in 0..300 {
        let answer = wire.produce("bulky", number % 2, batch(&[noise(number as u64, 1_000_000)]));
        assert_eq!(answer.error_code, 0);
    }
    let grown = wait_until(Duration::from_secs(20), || disk_usage(directory.path()) > before + 100 * MIB);
    assert!(grown, "300 MB of records take {} MiB more", (disk_usage(directory.path()) - before) / MIB);
    let full = disk_usage(directory.path());
    let delete = DeleteTopicsRequest::default().with_topic_names(vec![topic_name("bulky")]).with_timeout_ms(5_000);
    assert_eq!(wire.call(5, &delete).responses[0].error_code, 0);
    // What the write-ahead log keeps for its next use is not the topic's.
    let freed = wait_until(Duration::from_secs(20), || disk_usage(directory.path()) < full - 90 * MIB);
    assert!(freed, "{} MiB before, {} MiB after", full / MIB, disk_usage(directory.path()) / MIB);
    let broker = broker.stop().start();
    assert!(disk_usage(directory.path()) < full - 90 * MIB, "the space comes back with a restart");
    assert_ne!(Wire::connect(&broker.address()).metadata("bulky").topics[0].error_code, 0);
}

#[test]
fn a_second_broker_on_the_same_data_is_refused() {
    if impossible() {
        return;
    }
    let directory = data_dir();
    let broker = Launch::new(directory.path()).start();
    let output = Launch::new(directory.path()).command().output().expect("it runs");
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains(&*directory.path().to_string_lossy()), "the message names the directory: {text}");
    assert!(!text.contains("panicked"), "{text}");
    Wire::connect(&broker.address()).call(0, &ApiVersionsRequest::default());
}

#[test]
fn a_port_in_use_is_refused() {
    if impossible() {
        return;
    }
    let directory = data_dir();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let output = Command::new(crate::common::process::binary())
        .args(["server", "--listen", &address, "--shards", "1", "--data-dir"])
        .arg(directory.path())
        .output()
        .expect("it runs");
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains(&address), "the message names the address: {text}");
    assert!(!text.contains("panicked"), "{text}");
}

/// A broker with topics, connections and a waiting consumer, and nothing to do.
fn idle(directory: &Path) -> (Broker, Wire) {
    let broker = Launch::new(directory).start();
    let mut wire = Wire::connect(&broker.address());
    wire.create_topic("idle", 50, &[]);
    assert_eq!(wire.produce("idle", 0, batch(&["one"])).error_code, 0);
    (broker, wire)
}

#[test]
fn an_idle_broker_rests() {
    if impossible() {
        return;
    }
    let directory = data_dir();
    let (broker, mut wire) = idle(directory.path());
    wire.send(12, &crate::common::wire::fetch_request("idle", &[(0, 1)], 1, 60_000));
    // Segments are written in the background after the last record: let that end first.
    thread::sleep(Duration::from_secs(3));
    let (begin, before) = (Instant::now(), broker.cpu_time());
    thread::sleep(Duration::from_secs(4));
    let used = broker.cpu_time() - before;
    // 1 % of a core for each of two shards; one tick of the accounting is 10 ms.
    let limit = begin.elapsed() / 50 + Duration::from_millis(10);
    assert!(used <= limit, "{used:?} of CPU time in {:?} of idleness", begin.elapsed());
}
