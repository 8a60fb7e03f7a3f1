//! A broker of three finds its write-ahead log or its segments damaged: the others make up for it.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::cluster::Cluster;
use crate::common::librdkafka::{
    RESILIENT, Recorder, assert_exactly_once, create_replicated, keep_producing, read_all,
};
use crate::common::process::{Broker, binary};
use crate::common::records::batch;
use crate::common::wire::Wire;
use crate::common::{bytes_below, files_below, wait_until};

const BLOCK: usize = 4096;
const PARTITIONS: usize = 3;

/// The partitions' WAL of a data directory.
fn data_wal(directory: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(directory.join("wal")).expect("the directory of the WALs");
    let files = files.map(|file| file.expect("an entry").path());
    files.filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("data-"))).collect()
}

/// Turns a bit over in the middle of what lies in the segment that was written to last.
fn damage(directory: &Path) {
    let modified = |path: &PathBuf| fs::metadata(path).and_then(|metadata| metadata.modified()).expect("it is there");
    let newest = data_wal(directory).into_iter().max_by_key(modified).expect("there is a segment");
    let bytes = fs::read(&newest).expect("it can be read");
    let written: Vec<usize> = (0..bytes.len() / BLOCK)
        .filter(|block| bytes[block * BLOCK..][..BLOCK].iter().any(|byte| *byte != 0))
        .collect();
    let at = written[written.len() / 2] * BLOCK + 7;
    assert!(turn_over(&newest, at as u64), "it ends before");
}

/// Turns a bit over in the byte at this place of a file, where it is so long.
fn turn_over(path: &Path, at: u64) -> bool {
    let file = File::options().read(true).write(true).open(path).expect("it can be opened");
    let mut byte = [0];
    let there = file.read_exact_at(&mut byte, at).is_ok();
    if there {
        file.write_all_at(&[byte[0] ^ 1], at).expect("it can be written");
    }
    there
}

/// Turns a bit over in every file of a partition's records, so far from its beginning, and in every index.
fn damage_segments(directory: &Path, quarters: u64) -> usize {
    let mut damaged = 0;
    for (path, metadata) in files_below(&directory.join("partitions")) {
        let at = match path.extension().and_then(|extension| extension.to_str()) {
            Some("log") => metadata.len() / 4 * quarters,
            Some("index") => 5,
            _ => continue,
        };
        damaged += usize::from(turn_over(&path, at));
    }
    damaged
}

/// Removes one file of records and the index of another, and cuts a third short.
fn lose_files(directory: &Path) {
    let of = |ending: &str| {
        let files = files_below(&directory.join("partitions")).into_iter().map(|(path, _)| path);
        let mut files: Vec<PathBuf> =
            files.filter(|path| path.extension().is_some_and(|found| found == ending)).collect();
        files.sort();
        files
    };
    let (records, indexes) = (of("log"), of("index"));
    std::fs::remove_file(&records[0]).unwrap();
    std::fs::remove_file(&indexes[1]).unwrap();
    let cut = std::fs::OpenOptions::new().write(true).open(&records[2]).unwrap();
    cut.set_len(1_000_000).unwrap();
}

/// Whether a start would find damage.
fn is_damaged(directory: &Path) -> bool {
    let output =
        Command::new(binary()).args(["inspect", "logs", "--data-dir"]).arg(directory).output().expect("it runs");
    String::from_utf8_lossy(&output.stderr).contains("was acknowledged")
}

/// Waits until a broker that was damaged has its place back in all groups.
fn await_whole(broker: &Broker) {
    let whole = wait_until(Duration::from_secs(30), || broker.said("this replica is whole again") == PARTITIONS);
    assert!(whole, "only {} replicas are whole", broker.said("this replica is whole again"));
}

#[test]
fn brokers_whose_logs_are_damaged_one_after_the_other_are_made_whole() {
    let Some(mut cluster) = Cluster::start() else { return };
    (0..3).for_each(|node| cluster.await_all(node));
    create_replicated(&cluster.addresses(), "repaired", PARTITIONS as i32, 3, &[]);
    let stop = Arc::new(AtomicBool::new(false));
    let recorder = Arc::new(Recorder::new(&cluster.addresses(), &RESILIENT));
    let producer = keep_producing(&recorder, "repaired", PARTITIONS, &stop);
    for node in [1, 2] {
        recorder.wait_for(1_000);
        let launch = cluster.kill(node);
        damage(cluster.data_dir(node));
        assert!(is_damaged(cluster.data_dir(node)), "the damage lies where nobody would look");
        cluster.put_back(node, launch);
        recorder.wait_for(1_000);
        await_whole(cluster.broker(node));
    }
    // Without the one that was never damaged these two are the majority, and all that is left of the records.
    let launch = cluster.kill(0);
    recorder.wait_for(1_000);
    stop.store(true, Ordering::Relaxed);
    producer.join().expect("the producer");
    for node in [1, 2] {
        let acknowledged = assert_exactly_once(&cluster.broker(node).address(), "repaired", PARTITIONS, &recorder);
        assert!(acknowledged >= 5_000, "only {acknowledged} records");
    }
    // What was made up for is forgotten.
    cluster.put_back(0, launch);
    let launch = cluster.kill(1);
    assert!(!is_damaged(cluster.data_dir(1)), "the next start would find the damage again");
    cluster.put_back(1, launch);
}

#[test]
fn a_damaged_log_that_the_others_cannot_make_whole_is_refused() {
    let Some(mut cluster) = Cluster::start() else { return };
    (0..3).for_each(|node| cluster.await_all(node));
    create_replicated(&cluster.addresses(), "alone", 3, 1, &[]);
    let mut wire = Wire::connect(&cluster.broker(0).address());
    let leader = |partition: i32, wire: &mut Wire| {
        wire.metadata("alone").topics[0].partitions[partition as usize].leader_id.0 as usize - 1
    };
    let partition = (0..3).find(|partition| leader(*partition, &mut wire) == 1).expect("each broker has one");
    let mut wire = Wire::connect(&cluster.broker(1).address());
    for _ in 0..10 {
        assert_eq!(wire.produce("alone", partition, batch(&["only here"])).error_code, 0);
    }
    let launch = cluster.kill(1);
    damage(cluster.data_dir(1));
    assert!(is_damaged(cluster.data_dir(1)), "the damage lies where nobody would look");
    for _ in 0..2 {
        // A start that is refused changes nothing: the next one says the same.
        let output = launch.command().output().expect("it runs");
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "it starts");
        assert!(text.contains("too few replicas") && text.contains("alone"), "{text}");
        assert!(!text.contains("panicked"), "{text}");
        assert!(is_damaged(cluster.data_dir(1)));
    }
}

#[test]
fn damaged_segments_of_every_broker_are_made_whole_when_they_are_read() {
    let Some(mut cluster) = Cluster::start() else { return };
    (0..3).for_each(|node| cluster.await_all(node));
    // The records are of another year.
    let settings = [("segment.bytes", "4194304"), ("retention.ms", "-1")];
    create_replicated(&cluster.addresses(), "rotten", 1, 3, &settings);
    let leader = |cluster: &Cluster, broker: usize| {
        Wire::connect(&cluster.broker(broker).address()).metadata("rotten").topics[0].partitions[0].leader_id.0
    };
    let first = leader(&cluster, 0) as usize - 1;
    let mut wire = Wire::connect(&cluster.broker(first).address());
    let value = |number: usize| format!("{number:>25000}");
    for round in 0..600 {
        let values: Vec<String> = (0..4).map(|n| value(round * 4 + n)).collect();
        assert_eq!(wire.produce("rotten", 0, batch(&values)).error_code, 0);
    }
    let in_files = |node| bytes_below(&cluster.data_dir(node).join("partitions"));
    let moved = wait_until(Duration::from_secs(30), || (0..3).all(|node| in_files(node) > 20_000_000));
    assert!(moved, "nothing is moved into segments");
    let launches = (0..3).map(|node| cluster.kill(node)).collect();
    for node in 0..3 {
        let damaged = damage_segments(cluster.data_dir(node), node as u64 + 1);
        assert!(damaged >= 10, "only {damaged} files");
    }
    lose_files(cluster.data_dir(0));
    cluster.start_all(launches);
    let led = wait_until(Duration::from_secs(20), || leader(&cluster, 0) > 0);
    assert!(led, "nobody leads");
    // Whoever leads hands over when it finds damage, and any of them may come to lead.
    for _ in 0..3 {
        let read = read_all(&cluster.addresses(), "rotten", 1);
        assert_eq!(read[0].len(), 2_400);
        for (number, record) in read[0].iter().enumerate() {
            assert!(record.value == value(number).as_bytes(), "record {number}");
        }
    }
    let mended: usize = (0..3).map(|node| cluster.broker(node).said("a damaged segment was written anew")).sum();
    assert!(mended >= 10, "{mended} segments were written anew");
}
