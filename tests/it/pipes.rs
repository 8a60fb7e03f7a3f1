//! `ringlog produce` and `ringlog consume`, as a user pipes through them.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

use rdkafka::config::{ClientConfig, FromClientConfig};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::Value;

use crate::cluster::Cluster;
use crate::commands::{failure, lines, ringlog, rows};
use crate::common::librdkafka::{self, create_topic};
use crate::common::process::{binary, shared};
use crate::common::{fresh, wait_until};

/// How long a rebalance may take before a test fails.
const LIMIT: Duration = Duration::from_secs(20);

fn consumed(at: &str, arguments: &[&str]) -> Vec<String> {
    lines(at, &[&["consume", "--exit-at-end"], arguments].concat(), "")
}

fn json(at: &str, topic: &str) -> Vec<Value> {
    let lines = consumed(at, &[topic, "--from-beginning", "--format", "json"]);
    lines.iter().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[test]
fn lines_go_there_and_back_with_every_compression() {
    let broker = shared();
    let at = broker.address();
    let input: String = (0..5_000).map(|number| format!("record {number}\n")).collect();
    for compression in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let topic = fresh("piped");
        create_topic(at, &topic, 1, &[]);
        let output = ringlog(at, &["produce", &topic, "--compression", compression], &input);
        assert!(output.status.success(), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("5000 records acknowledged"), "{output:?}");
        let back = consumed(at, &[&topic, "--from-beginning"]);
        assert!(back.iter().eq(input.lines().collect::<Vec<_>>().iter()), "{compression}: {} lines", back.len());
    }
}

#[test]
fn keys_go_where_other_clients_put_them_and_headers_come_along() {
    let broker = shared();
    let at = broker.address();
    let topic = fresh("keyed");
    create_topic(at, &topic, 8, &[]);
    let input: String = (0..200).map(|number| format!("key{number}:value {number}\n")).collect();
    lines(at, &["produce", &topic, "-k", ":", "-H", "from=test", "--null", "value 7"], &input);
    let ours = json(at, &topic);
    assert_eq!(ours.len(), 200);
    let placed: BTreeMap<&str, &Value> =
        ours.iter().map(|record| (record["key"].as_str().expect("a key"), &record["partition"])).collect();
    let tombstone = ours.iter().find(|record| record["key"] == "key7").expect("it is there");
    assert_eq!((&tombstone["value"], &tombstone["headers"][0]["value"]), (&Value::Null, &"test".into()));

    let other = fresh("keyed");
    create_topic(at, &other, 8, &[]);
    let mut config = librdkafka::config(at);
    config.set("partitioner", "murmur2");
    let producer: BaseProducer = BaseProducer::from_config(&config).expect("a producer");
    for number in 0..200 {
        let key = format!("key{number}");
        producer.send(BaseRecord::to(&other).key(&key).payload("x")).map_err(|(error, _)| error).expect("taken");
    }
    producer.flush(LIMIT).expect("acknowledged");
    for record in json(at, &other) {
        assert_eq!(placed[record["key"].as_str().expect("a key")], &record["partition"], "{record}");
    }
}

#[test]
fn a_consumer_begins_where_it_is_told_to() {
    let broker = shared();
    let at = broker.address();
    let topic = fresh("begun");
    create_topic(at, &topic, 2, &[]);
    lines(at, &["produce", &topic, "-p", "1"], "a\nb\nc\nd\n");
    assert_eq!(consumed(at, &[&topic, "--last", "2"]), ["c", "d"]);
    assert_eq!(consumed(at, &[&topic, "-p", "1", "--offset", "1", "-n", "2"]), ["b", "c"]);
    assert_eq!(consumed(at, &[&topic]), Vec::<String>::new(), "nothing is new");
    assert_eq!(consumed(at, &[&topic, "--from-time", "2000-01-01T00:00:00Z"]), ["a", "b", "c", "d"]);
    assert_eq!(consumed(at, &[&topic, "--from-time", "2100-01-01T00:00:00Z"]), Vec::<String>::new());
    assert_eq!(
        consumed(at, &[&topic, "--from-beginning", "--format", "{partition}/{offset}/{key}/{value}", "-n", "1"]),
        ["1/0//a"]
    );

    // One that waits shows what comes while it does.
    let mut child = Command::new(binary())
        .args(["consume", &topic, "-b", at, "-n", "2"])
        .args(["--offset", "3", "-p", "1"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut out = child.stdout.take().expect("a pipe");
    let mut first = [0; 2];
    out.read_exact(&mut first).expect("the record that was there");
    lines(at, &["produce", &topic, "-p", "1", "--acks", "1"], "e");
    let mut rest = String::new();
    out.read_to_string(&mut rest).expect("UTF-8");
    assert_eq!((&first, rest.as_str()), (b"d\n", "e\n"));
    assert!(child.wait().expect("it ends").success());
}

#[test]
fn what_is_refused_is_named_by_its_line_and_the_rest_is_written() {
    let broker = shared();
    let at = broker.address();
    let topic = fresh("strict");
    lines(at, &["topic", "create", &topic, "--config", "max.message.bytes=1000"], "");
    let input = format!("one\n{}\nthree\n", "x".repeat(5_000));
    let output = ringlog(at, &["produce", &topic], &input);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("line 2 (partition 0): MESSAGE_TOO_LARGE") && said.contains("2 records"), "{said}");
    assert_eq!(consumed(at, &[&topic, "--from-beginning"]), ["one", "three"]);

    let output = ringlog(at, &["produce", &topic, "-k", "="], "a=1\nnone\nb=2\n");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("line 2"), "{output:?}");
    assert_eq!(rows(at, &["topic", "describe", &topic])[0]["end"], 4);

    let absent = fresh("absent");
    for arguments in [["consume", &absent], ["produce", &absent]] {
        let (code, said) = failure(at, &arguments);
        assert!(code == Some(1) && said.contains("UNKNOWN_TOPIC_OR_PARTITION"), "{said}");
    }
    let (code, said) = failure(at, &["consume", &topic, "--offset", "99"]);
    assert!(code == Some(1) && said.contains("OFFSET_OUT_OF_RANGE"), "{said}");
    assert_eq!(failure(at, &["consume", &topic, "-p", "5"]).0, Some(1));
    assert_eq!(failure(at, &["consume", &topic, "--format", "xml"]).0, Some(2));
    assert_eq!(failure(at, &["consume", &topic, "--last", "1", "--from-beginning"]).0, Some(2));
    for arguments in [["consume", &topic], ["produce", &topic]] {
        let (code, said) = failure("127.0.0.1:1", &arguments);
        assert!(code == Some(3) && said.contains("127.0.0.1:1"), "{said}");
    }
}

#[test]
fn a_group_goes_on_where_it_left_off() {
    goes_on_where_it_left_off("classic");
}

#[test]
fn a_group_of_the_consumer_protocol_does_so_too() {
    goes_on_where_it_left_off("consumer");
}

fn goes_on_where_it_left_off(protocol: &str) {
    let broker = shared();
    let at = broker.address();
    let (topic, group) = (fresh("grouped"), fresh("left-off"));
    create_topic(at, &topic, 2, &[]);
    lines(at, &["produce", &topic, "-p", "0"], "a\nb\nc\n");
    lines(at, &["produce", &topic, "-p", "1"], "d\n");
    let read = |arguments: &[&str]| {
        let group = [topic.as_str(), "--group", &group, "--group-protocol", protocol, "--from-beginning"];
        consumed(at, &[&group, arguments].concat())
    };
    let first = read(&["-n", "2"]);
    assert_eq!(first.len(), 2, "{first:?}");
    let mut all = [first, read(&[])].concat();
    all.sort();
    assert_eq!(all, ["a", "b", "c", "d"], "once each, though all lie in a batch or two");
    assert_eq!(read(&[]), Vec::<String>::new());
    let offsets = rows(at, &["group", "describe", &group]);
    assert_eq!(
        (&offsets[0]["committed"], &offsets[1]["committed"], &offsets[0]["lag"]),
        (&3.into(), &1.into(), &0.into())
    );
    assert_eq!(offsets[0]["member"], Value::Null, "it has left");
    lines(at, &["produce", &topic, "-p", "1"], "e\n");
    assert_eq!(read(&[]), ["e"]);
}

#[test]
fn members_share_partitions_with_other_clients_and_leave_at_ctrl_c() {
    shares_with_other_clients("classic", |config| {
        config.set("partition.assignment.strategy", "range").set("heartbeat.interval.ms", "300")
    });
}

#[test]
fn members_of_the_consumer_protocol_share_partitions_too() {
    shares_with_other_clients("consumer", |config| config.set("group.protocol", "consumer"));
}

fn shares_with_other_clients(protocol: &str, configure: fn(&mut ClientConfig) -> &mut ClientConfig) {
    let broker = shared();
    let at = broker.address();
    let (topic, group) = (fresh("shared-out"), fresh("mixed"));
    create_topic(at, &topic, 4, &[]);
    let mut child = Command::new(binary())
        .args(["consume", &topic, "-b", at, "--group", &group, "--group-protocol", protocol])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let partitions_of_members = || -> Vec<usize> {
        let output = ringlog(at, &["group", "describe", &group, "--members", "--format", "json"], "");
        let rows = String::from_utf8(output.stdout).expect("UTF-8");
        let rows = rows.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        rows.filter_map(|row| row["partitions"].as_array().map(Vec::len)).collect()
    };
    let alone = wait_until(LIMIT, || partitions_of_members() == [4]);
    assert!(alone, "{:?}", partitions_of_members());
    let mut config = librdkafka::config(at);
    configure(config.set("group.id", &group));
    let other: BaseConsumer = BaseConsumer::from_config(&config).expect("a consumer");
    other.subscribe(&[&topic]).expect("subscribed");
    let poll = || drop(other.poll(Duration::from_millis(100)));
    let both = wait_until(LIMIT, || {
        poll();
        partitions_of_members() == [2, 2]
    });
    assert!(both, "{:?}", partitions_of_members());
    // SAFETY: kill(2) takes two integers; the child has not been waited for.
    assert_eq!(unsafe { libc::kill(child.id() as libc::pid_t, libc::SIGINT) }, 0);
    let status = child.wait().expect("it ends");
    let mut said = String::new();
    child.stderr.take().expect("a pipe").read_to_string(&mut said).expect("UTF-8");
    assert!(status.success(), "{status}: {said}");
    let whole = wait_until(LIMIT, || {
        poll();
        partitions_of_members() == [4]
    });
    assert!(whole, "{:?}", partitions_of_members());
}

#[test]
fn leaders_and_coordinators_are_found_and_followed() {
    let Some(mut cluster) = Cluster::start() else { return };
    cluster.await_all(0);
    let all = cluster.addresses();
    // Any broker takes what is for the controller, and each leads some of the partitions.
    let first = cluster.broker(0).address();
    lines(&first, &["topic", "create", "spread", "--partitions", "6", "--replication-factor", "3"], "");
    let leaders = |at: &str| -> BTreeSet<u64> {
        rows(at, &["topic", "describe", "spread"]).iter().filter_map(|row| row["leader"].as_u64()).collect()
    };
    assert_eq!(leaders(&first).len(), 3);
    let mut child = Command::new(binary())
        .args(["produce", "spread", "-b", &all, "-k", "="])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut input = child.stdin.take().expect("a pipe");
    let mut write = |numbers: std::ops::Range<u32>| {
        let text: String = numbers.map(|number| format!("{number}=value\n")).collect();
        input.write_all(text.as_bytes()).expect("it reads");
    };
    write(0..500);
    assert!(wait_until(LIMIT, || lines(&all, &["consume", "spread", "--from-beginning", "-n", "500"], "").len() == 500));
    // The first of the list dies with its leaderships; what was begun goes on, each record written once.
    drop(cluster.kill(0));
    write(500..1_000);
    drop(input);
    let output = child.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.contains("1000 records acknowledged"), "{said}");
    let group = ["consume", "spread", "--group", "followers", "--from-beginning", "-n", "1000", "--format", "{key}"];
    let mut keys: Vec<u32> = lines(&all, &group, "").iter().map(|key| key.parse().expect("a number")).collect();
    keys.sort_unstable();
    assert!(keys.into_iter().eq(0..1_000), "each once");
    let lag: u64 = rows(&all, &["group", "describe", "followers"]).iter().filter_map(|row| row["lag"].as_u64()).sum();
    assert_eq!(lag, 0);
    assert!(!leaders(&all).contains(&1));
}
