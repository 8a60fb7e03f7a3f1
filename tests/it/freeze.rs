//! A disk that stands still under load, and comes back.
//!
//! This needs root, loop devices and the tools of util-linux and e2fsprogs; where they are missing, the tests say so and
//! do nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use kafka_protocol::ResponseError;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::{ApiVersionsRequest, CreateTopicsRequest};

use crate::common::disk::disk;
use crate::common::librdkafka::{RESILIENT, Recorder, assert_exactly_once, create_topic, keep_producing, read_all};
use crate::common::process::{Launch, free_port};
use crate::common::records::{batch, values};
use crate::common::wire::{Wire, partition_answer, produce_request, topic_name};
use crate::http::{get, metric};

/// What an answer may be late, in milliseconds: the promise itself.
const SLACK_MS: u64 = 50;

fn freeze_time() -> Duration {
    let seconds = std::env::var("RINGLOG_FREEZE_SECONDS").ok();
    Duration::from_secs(seconds.map_or(10, |seconds| seconds.parse().expect("a number of seconds")))
}

/// Measures by how much this machine, not the broker, is late: the most that a thread overslept so far.
struct Lag {
    most_ms: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    watchers: Vec<thread::JoinHandle<()>>,
}

impl Lag {
    fn watch() -> Lag {
        let (most_ms, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let watchers = (0..2)
            .map(|_| {
                let (most_ms, stop) = (most_ms.clone(), stop.clone());
                thread::spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        let begin = Instant::now();
                        thread::sleep(Duration::from_millis(5));
                        let late = begin.elapsed().saturating_sub(Duration::from_millis(5));
                        most_ms.fetch_max(late.as_millis() as u64, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        Lag { most_ms, stop, watchers }
    }

    /// The answer's own way through a late machine has two such waits: into the broker and back.
    fn allowance(&self) -> Duration {
        Duration::from_millis(2 * self.most_ms.load(Ordering::Relaxed))
    }
}

impl Drop for Lag {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for watcher in self.watchers.drain(..) {
            let _ = watcher.join();
        }
    }
}

/// What became of one record.
struct Outcome {
    value: String,
    partition: i32,
    sent: Instant,
    took: Duration,
    error: Option<ResponseError>,
    offset: i64,
}

const PARTITIONS: i32 = 3;
const TIMEOUT_MS: u64 = 1_000;

fn produce_until(stop: &AtomicBool, address: &str, topic: &str, producer: usize) -> Vec<Outcome> {
    let mut wire = Wire::connect(address);
    let mut outcomes = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let value = format!("{producer}-{}", outcomes.len());
        let partition = outcomes.len() as i32 % PARTITIONS;
        let sent = Instant::now();
        let request = produce_request(topic, &[(partition, batch(&[&value]))], -1, TIMEOUT_MS as i32);
        let answer = partition_answer(wire.call(9, &request));
        let took = sent.elapsed();
        let error = ResponseError::try_from_code(answer.error_code);
        outcomes.push(Outcome { value, partition, sent, took, error, offset: answer.base_offset });
        // Refused at once: do as a client does, wait a little before the next try.
        if error.is_some() && took < Duration::from_millis(50) {
            thread::sleep(Duration::from_millis(20));
        } else {
            thread::sleep(Duration::from_millis(1));
        }
    }
    outcomes
}

#[test]
fn a_frozen_disk_delays_nobody_beyond_the_deadline_and_loses_nothing() {
    let Some(disk) = disk() else { return };
    let http = free_port();
    let launch = Launch::new(&disk.root().join("data")).with(&["--http", &format!("127.0.0.1:{http}")]);
    let broker = launch.start();
    let address = broker.address();
    let mut wire = Wire::connect(&address);
    wire.create_topic("frozen", PARTITIONS, &[]);
    assert_eq!(wire.produce("frozen", 0, batch(&["in memory"])).base_offset, 0);

    let lag = Lag::watch();
    let stop = Arc::new(AtomicBool::new(false));
    let producers: Vec<_> = (0..4)
        .map(|producer| {
            let (stop, address) = (stop.clone(), address.clone());
            thread::spawn(move || produce_until(&stop, &address, "frozen", producer))
        })
        .collect();
    thread::sleep(Duration::from_secs(2));

    let frozen = disk.freeze().expect("it could be frozen before");
    let freeze_begin = Instant::now();
    let mut asked = 0u32;
    let mut slowest = Duration::ZERO;
    let mut created = false;
    let mut oldest = 0.0;
    while freeze_begin.elapsed() < freeze_time() {
        let begin = Instant::now();
        assert_eq!(wire.call(3, &api_versions()).error_code, 0);
        assert_eq!(wire.metadata("frozen").topics[0].error_code, 0);
        assert_eq!(values(wire.fetch("frozen", 0, 0).records.expect("records"))[0], "in memory");
        asked += 1;
        slowest = slowest.max(begin.elapsed());
        // What watches the broker does not depend on its disk either.
        assert_eq!(get(http, "/health/ready").0, 200);
        let age = metric(http, "ringlog_wal_oldest_append_seconds").expect("the metric");
        oldest = f64::max(oldest, age);
        if !created && freeze_begin.elapsed() > Duration::from_secs(2) {
            created = true;
            create_while_frozen(&mut Wire::connect(&address), &lag);
        }
        thread::sleep(Duration::from_millis(20));
    }
    // The topic's creation was told so, and its time counts as missed.
    assert_eq!(metric(http, "topic_creation_timeout_count"), Some(1.0));
    assert!(oldest > 1.0 && metric(http, "ringlog_disk_well") == Some(0.0), "the oldest append was {oldest} s old");
    drop(frozen);
    let thawed = Instant::now();
    let limit = Duration::from_millis(3 * SLACK_MS) + 3 * lag.allowance();
    assert!(slowest <= limit, "ApiVersions, Metadata and a fetch from memory took {slowest:?}, allowed {limit:?}");
    assert!(asked > 20, "{asked} rounds of questions were answered while the disk stood still");

    thread::sleep(Duration::from_secs(6));
    stop.store(true, Ordering::Relaxed);
    let outcomes: Vec<Outcome> =
        producers.into_iter().flat_map(|producer| producer.join().expect("a producer")).collect();
    let while_frozen = |outcome: &&Outcome| outcome.sent > freeze_begin && outcome.sent < thawed;

    let limit = Duration::from_millis(TIMEOUT_MS + SLACK_MS) + lag.allowance();
    for outcome in &outcomes {
        assert!(outcome.took <= limit, "{} was answered after {:?}, allowed {limit:?}", outcome.value, outcome.took);
        if let Some(error) = outcome.error {
            assert!(error.is_retriable(), "{} was answered with {error:?}", outcome.value);
        }
    }
    let unanswered = outcomes.iter().filter(while_frozen).filter(|outcome| outcome.error.is_some()).count();
    assert!(unanswered > 0, "a disk that stands still acknowledges nothing");
    let recovered = outcomes.iter().filter(|outcome| outcome.sent > thawed && outcome.error.is_none()).map(|o| o.sent);
    let first = recovered.min().expect("records are acknowledged again after the thaw");
    assert!(first - thawed < Duration::from_secs(5), "the first one {:?} after the thaw", first - thawed);
    let last_failure = outcomes.iter().filter(|outcome| outcome.error.is_some()).map(|outcome| outcome.sent).max();
    let late = last_failure.map_or(Duration::ZERO, |last| last.saturating_duration_since(thawed));
    assert!(late < Duration::from_secs(5), "still refusing {late:?} after the thaw");

    check_contents(&address, "frozen", &outcomes);
    // And again after a restart, from the disk alone.
    let broker = broker.kill().start();
    check_contents(&broker.address(), "frozen", &outcomes);
}

fn api_versions() -> ApiVersionsRequest {
    let name = kafka_protocol::protocol::StrBytes::from_static_str("tests");
    ApiVersionsRequest::default().with_client_software_name(name.clone()).with_client_software_version(name)
}

fn create_while_frozen(wire: &mut Wire, lag: &Lag) {
    let topic = CreatableTopic::default()
        .with_name(topic_name("born-frozen"))
        .with_num_partitions(2)
        .with_replication_factor(1);
    let begin = Instant::now();
    let request = CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(TIMEOUT_MS as i32);
    let answer = wire.call(7, &request).topics.remove(0);
    let limit = Duration::from_millis(TIMEOUT_MS + SLACK_MS) + lag.allowance();
    assert!(begin.elapsed() <= limit, "CreateTopics took {:?}, allowed {limit:?}", begin.elapsed());
    let error = ResponseError::try_from_code(answer.error_code).expect("nothing is created on a frozen disk");
    assert!(error.is_retriable(), "{error:?}");
}

/// Every acknowledged record is where its answer says; what was definitely refused is nowhere; nothing is twice.
fn check_contents(address: &str, topic: &str, outcomes: &[Outcome]) {
    let read = read_all(address, topic, PARTITIONS);
    let mut stored = BTreeMap::new();
    for (partition, records) in read.iter().enumerate() {
        for record in records {
            let value = String::from_utf8(record.value.clone()).expect("UTF-8");
            let before = stored.insert(value.clone(), (partition as i32, record.offset));
            assert_eq!(before, None, "{value} is stored twice");
        }
    }
    let mut expected: BTreeSet<&str> = BTreeSet::from(["in memory"]);
    for outcome in outcomes {
        let place = stored.get(&outcome.value);
        match outcome.error {
            None => assert_eq!(place, Some(&(outcome.partition, outcome.offset)), "{} was acknowledged", outcome.value),
            // Its time was up while the write was under way: nobody knows, the broker included.
            Some(ResponseError::RequestTimedOut) => {}
            Some(error) => assert_eq!(place, None, "{} was refused with {error:?}", outcome.value),
        }
        expected.insert(&outcome.value);
    }
    assert!(stored.keys().all(|value| expected.contains(value.as_str())), "records that nobody sent");
}

#[test]
fn an_idempotent_producer_sees_a_frozen_disk_as_a_pause() {
    let Some(disk) = disk() else { return };
    let broker = Launch::new(&disk.root().join("data")).start();
    let address = broker.address();
    create_topic(&address, "paused", PARTITIONS, &[]);
    let stop = Arc::new(AtomicBool::new(false));
    let recorder = Arc::new(Recorder::new(&address, &RESILIENT));
    let producer = keep_producing(&recorder, "paused", PARTITIONS as usize, &stop);
    recorder.wait_for(1_000);
    let frozen = disk.freeze().expect("it could be frozen before");
    thread::sleep(freeze_time() / 2);
    drop(frozen);
    recorder.wait_for(10_000);
    stop.store(true, Ordering::Relaxed);
    producer.join().expect("the producer");
    assert_exactly_once(&address, "paused", PARTITIONS as usize, &recorder);
}

/// The kernel ends what a killed process had under way after the process: its writes reach the frozen disk only when
/// that thaws, and by then another broker runs on the same data.
#[test]
fn a_broker_killed_on_a_frozen_disk_leaves_nothing_behind() {
    let Some(disk) = disk() else { return };
    let broker = Launch::new(&disk.root().join("data")).start();
    let address = broker.address();
    create_topic(&address, "haunted", PARTITIONS, &[]);
    let stop = Arc::new(AtomicBool::new(false));
    let recorder = Arc::new(Recorder::new(&address, &RESILIENT));
    let producer = keep_producing(&recorder, "haunted", PARTITIONS as usize, &stop);
    recorder.wait_for(1_000);
    let frozen = disk.freeze().expect("it could be frozen before");
    thread::sleep(Duration::from_millis(500));
    let thaw = thread::spawn(move || {
        thread::sleep(Duration::from_secs(3));
        drop(frozen);
    });
    let broker = broker.kill().start();
    recorder.wait_for(5_000);
    thaw.join().expect("the thaw");
    let broker = broker.kill().start();
    recorder.wait_for(1_000);
    stop.store(true, Ordering::Relaxed);
    producer.join().expect("the producer");
    assert_exactly_once(&broker.address(), "haunted", PARTITIONS as usize, &recorder);
}
