//! A disk without room: produces are refused, everything else goes on, and room is all that it takes to recover. A disk
//! that fails: its broker steps back until it is started again.
//!
//! Needs root and loop devices, as the tests of a frozen disk do.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use kafka_protocol::ResponseError;
use kafka_protocol::messages::{DeleteTopicsRequest, MetadataRequest};

use crate::cluster::Cluster;
use crate::common::disk::Mount;
use crate::common::librdkafka::create_replicated;
use crate::common::process::{Launch, data_dir, external, free_port};
use crate::common::records::{batch, values};
use crate::common::wire::{Wire, fetch_request, only_partition, partition_answer, produce_request, text, topic_name};
use crate::common::{noise, skipped, wait_until};
use crate::http::metric;

/// Small, so that it is soon full: the WAL alone takes up to 1 GiB.
const BYTES: u64 = 1536 << 20;

/// A file that takes all the room that there is.
struct Ballast(PathBuf);

impl Ballast {
    fn fill(root: &Path) -> Ballast {
        let path = root.join("ballast");
        let file = File::create(&path).expect("a file");
        let mut size = 256 << 20;
        let mut at = 0;
        while size >= 4096 {
            // SAFETY: a plain system call on an open descriptor.
            if unsafe { libc::fallocate(file.as_raw_fd(), 0, at, size) } == 0 {
                at += size;
            } else {
                size /= 2;
            }
        }
        Ballast(path)
    }
}

impl Drop for Ballast {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn small_disk(directory: &Path) -> Option<Mount> {
    if external().is_some() {
        skipped("the broker's disk is not ours to fill");
        return None;
    }
    Mount::new(&directory.join("disk.img"), BYTES, directory.join("disk"))
        .inspect_err(|error| skipped(&format!("no disk to fill: {error}")))
        .ok()
}

/// Produces until the broker refuses; returns the error and the records that were acknowledged.
fn produce_until_refused(wire: &mut Wire, topic: &str, from: usize) -> (ResponseError, usize) {
    for n in from.. {
        assert!(n < 10_000, "the disk does not get full");
        let request = produce_request(topic, &[(0, batch(&[noise(n as u64, 900_000)]))], -1, 5_000);
        let answer = partition_answer(wire.call(9, &request));
        if let Some(error) = ResponseError::try_from_code(answer.error_code) {
            return (error, n);
        }
        assert_eq!(answer.base_offset, n as i64);
    }
    unreachable!()
}

#[test]
fn a_full_disk_refuses_produces_only_and_recovers_with_room() {
    let directory = data_dir();
    let Some(disk) = small_disk(directory.path()) else { return };
    let broker = Launch::new(&disk.root().join("data")).start();
    let mut wire = Wire::connect(&broker.address());
    wire.create_topic("kept", 1, &[]);
    wire.create_topic("deleted", 1, &[]);
    assert_eq!(wire.produce("kept", 0, batch(&["first"])).error_code, 0);
    assert_eq!(wire.produce("deleted", 0, batch(&["gone soon"])).error_code, 0);

    let ballast = Ballast::fill(disk.root());
    let (error, written) = produce_until_refused(&mut wire, "deleted", 1);
    assert!(error.is_retriable(), "refused with {error:?}, which no client tries again");

    // Everything else goes on.
    assert_eq!(values(wire.fetch("kept", 0, 0).records.expect("records")), ["first"]);
    assert_eq!(wire.fetch("deleted", 0, written as i64 - 1).error_code, 0);
    wire.call(9, &MetadataRequest::default().with_topics(None));
    let delete = DeleteTopicsRequest::default().with_topic_names(vec![topic_name("deleted")]).with_timeout_ms(5_000);
    assert_eq!(wire.call(5, &delete).responses[0].error_code, 0, "a topic can be deleted");

    // Room is all that it takes.
    drop(ballast);
    let recovered = wait_until(Duration::from_secs(20), || wire.produce("kept", 0, batch(&["later"])).error_code == 0);
    assert!(recovered, "produces are refused although there is room");

    // A restart finds it all.
    let broker = broker.kill().start();
    let mut wire = Wire::connect(&broker.address());
    // One answer need not hold both: the first lies in a segment, the second may not yet.
    for (offset, value) in [(0, "first"), (1, "later")] {
        let fetched = wire.fetch("kept", 0, offset);
        assert_eq!(fetched.high_watermark, 2);
        assert_eq!(values(fetched.records.expect("records"))[0], value);
    }
}

/// Produces large records to one partition until it is told to stop, wherever that is led, and notes when each was
/// acknowledged.
fn produce_through(cluster: &Cluster, topic: &str, partition: i32, stop: &AtomicBool) -> Vec<Instant> {
    let mut wires: Vec<Wire> = (0..3).map(|node| Wire::connect(&cluster.broker(node).address())).collect();
    let (mut at, mut acknowledged) = (0, Vec::new());
    let mut seed = partition as u64;
    while !stop.load(Ordering::Relaxed) {
        seed += 3;
        let request = produce_request(topic, &[(partition, batch(&[noise(seed, 300_000)]))], -1, 5_000);
        let answer = partition_answer(wires[at].call(9, &request));
        match ResponseError::try_from_code(answer.error_code) {
            None => acknowledged.push(Instant::now()),
            Some(error) => {
                assert!(error.is_retriable(), "refused with {error:?}, which no client tries again");
                thread::sleep(Duration::from_millis(20));
                let metadata = wires[1].metadata(topic);
                let shown = metadata.topics[0].partitions.iter().find(|shown| shown.partition_index == partition);
                at = shown.map_or(0, |shown| shown.leader_id.0 - 1).max(0) as usize;
            }
        }
    }
    acknowledged
}

#[test]
fn a_broker_whose_disk_fails_leads_nothing_and_leaves_the_isr() {
    const FAILED: usize = 0;
    const SECOND: Duration = Duration::from_secs(1);
    let directory = data_dir();
    let Some(disk) = small_disk(directory.path()) else { return };
    let http = free_port();
    let arguments = |node: u16| match usize::from(node) - 1 {
        FAILED => vec!["--http".to_owned(), format!("127.0.0.1:{http}")],
        _ => Vec::new(),
    };
    let Some(mut cluster) = Cluster::on(&[disk.root()], &arguments) else { return };
    (0..3).for_each(|node| cluster.await_all(node));
    create_replicated(&cluster.addresses(), "kept", 3, 3, &[]);
    let mut other = Wire::connect(&cluster.broker(1).address());
    let mut partitions = move || other.metadata("kept").topics.remove(0).partitions;
    let id = FAILED as i32 + 1;
    let leads = wait_until(20 * SECOND, || partitions().iter().any(|partition| partition.leader_id.0 == id));
    assert!(leads, "the broker leads nothing that it could lose");
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let (cluster, stop) = (&cluster, &stop);
        let producers: Vec<_> =
            (0..3).map(|part| scope.spawn(move || produce_through(cluster, "kept", part, stop))).collect();
        thread::sleep(SECOND);
        let failed = Instant::now();
        disk.fail().expect("a disk can be made to fail");
        let left = wait_until(5 * SECOND, || {
            partitions().iter().all(|partition| {
                let leader = partition.leader_id.0;
                leader > 0 && leader != id && partition.isr_nodes.iter().all(|replica| replica.0 != id)
            })
        });
        assert!(left, "a broker whose disk has failed leads, or is called in sync");
        thread::sleep(SECOND);
        stop.store(true, Ordering::Relaxed);
        for producer in producers {
            let gap = longest_gap(failed, &producer.join().expect("a producer"));
            assert!(gap < 5 * SECOND, "nothing was acknowledged for {gap:?}");
        }
    });
    assert_eq!(metric(http, "ringlog_disk_well"), Some(0.0));
    assert_eq!(metric(http, "ringlog_wal_failed"), Some(1.0));

    // The operator's part: the disk is put right, and the broker started again.
    let launch = cluster.kill(FAILED);
    let _disk = disk.again().expect("the disk can be mounted again");
    cluster.put_back(FAILED, launch);
    let back = wait_until(20 * SECOND, || partitions().iter().all(|partition| partition.isr_nodes.len() == 3));
    assert!(back, "the broker is not in sync again");
    // It is dropped before its disk.
    drop(cluster);
}

/// The largest time without an acknowledgement since `begin`.
fn longest_gap(begin: Instant, acknowledged: &[Instant]) -> Duration {
    let times: Vec<Instant> =
        std::iter::once(begin).chain(acknowledged.iter().copied().filter(|at| *at > begin)).collect();
    assert!(times.len() > 1, "nothing was acknowledged");
    times.windows(2).map(|two| two[1] - two[0]).max().expect("two times")
}

#[test]
fn one_full_disk_of_three_stops_nobody() {
    const FULL: usize = 0;
    const SECOND: Duration = Duration::from_secs(1);
    let directory = data_dir();
    let Some(disk) = small_disk(directory.path()) else { return };
    let ports: Vec<u16> = (0..3).map(|_| free_port()).collect();
    let arguments = |node: u16| {
        let http = format!("127.0.0.1:{}", ports[usize::from(node) - 1]);
        ["--http", &http, "--broker-rack", &format!("rack-{node}")].map(str::to_owned).to_vec()
    };
    let Some(cluster) = Cluster::on(&[disk.root()], &arguments) else { return };
    (0..3).for_each(|node| cluster.await_all(node));
    create_replicated(&cluster.addresses(), "shared", 3, 3, &[]);
    let mut other = Wire::connect(&cluster.broker(1).address());
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let (cluster, stop) = (&cluster, &stop);
        let producers: Vec<_> =
            (0..3).map(|part| scope.spawn(move || produce_through(cluster, "shared", part, stop))).collect();
        thread::sleep(SECOND);
        let ballast = Ballast::fill(disk.root());
        let told = wait_until(20 * SECOND, || metric(ports[FULL], "ringlog_disk_well") == Some(0.0));
        assert!(told, "the broker does not say that its disk is full");
        let noticed = Instant::now();
        let handed_over = wait_until(5 * SECOND, || {
            let shown = other.metadata("shared").topics.remove(0).partitions;
            shown.iter().all(|partition| partition.leader_id.0 > 0 && partition.leader_id.0 != FULL as i32 + 1)
        });
        assert!(handed_over, "the broker without room leads");
        thread::sleep(2 * SECOND);
        // It shows what it has.
        let mut full = Wire::connect(&cluster.broker(FULL).address());
        let near = fetch_request("shared", &[(0, 0)], 1, 500).with_rack_id(text("rack-1"));
        let read = only_partition(full.call(11, &near));
        assert_eq!((read.error_code, read.records.is_some_and(|records| !records.is_empty())), (0, true));
        stop.store(true, Ordering::Relaxed);
        for producer in producers {
            // A hand-over takes some 100 ms, and more on a machine that has other things to do as well.
            let gap = longest_gap(noticed, &producer.join().expect("a producer"));
            assert!(gap < 5 * SECOND, "nothing was acknowledged for {gap:?}");
        }
        drop(ballast);
        let back = wait_until(15 * SECOND, || {
            let shown = other.metadata("shared").topics.remove(0).partitions;
            metric(ports[FULL], "ringlog_disk_well") == Some(1.0)
                && shown.iter().all(|partition| partition.isr_nodes.len() == 3)
        });
        assert!(back, "the broker is not in sync again though there is room");
    });
}
