//! The broker as it is seen from outside, by HTTP.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use rdkafka::config::FromClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::{Offset, TopicPartitionList};
use serde_json::Value;

use crate::common::librdkafka::{self, Recorder, create_topic};
use crate::common::process::{Broker, Launch, data_dir, external, free_port};
use crate::common::skipped;

/// Asks the port and returns status and body.
pub fn get(port: u16, target: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the HTTP port answers");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
    write!(stream, "GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    (status, body.to_owned())
}

fn json(port: u16, target: &str) -> Value {
    let (status, body) = get(port, target);
    assert_eq!(status, 200, "{target}: {body}");
    serde_json::from_str(&body).expect("JSON")
}

/// The value of a metric, by the start of its line.
pub fn metric(port: u16, series: &str) -> Option<f64> {
    let (status, text) = get(port, "/metrics");
    assert_eq!(status, 200);
    let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ').map(str::to_owned))?;
    value.parse().ok()
}

fn started(directory: &tempfile::TempDir) -> (Broker, u16) {
    let port = free_port();
    (Launch::new(directory.path()).with(&["--http", &format!("127.0.0.1:{port}")]).start(), port)
}

fn produce(broker: &str, topic: &str, records: usize) {
    let recorder = Recorder::new(broker, &[]);
    for number in 0..records {
        recorder.send(topic, (number % 3) as i32, number, None, format!("value {number}").as_bytes()).expect("taken");
    }
    recorder.finish();
}

#[test]
fn topics_records_groups_and_counts_are_seen_from_outside() {
    if external().is_some() {
        return skipped("the broker is not ours to start");
    }
    let directory = data_dir();
    let (broker, port) = started(&directory);
    let address = broker.address();
    assert_eq!(get(port, "/health/live"), (200, "alive\n".to_owned()));
    assert_eq!(get(port, "/health/ready"), (200, "ready\n".to_owned()));
    create_topic(&address, "seen", 3, &[]);
    produce(&address, "seen", 30);

    let cluster = json(port, "/v1/cluster");
    assert_eq!((&cluster["broker"], &cluster["controller"]), (&1.into(), &1.into()));
    assert_eq!(cluster["brokers"][0]["state"], "well");

    let topics = json(port, "/v1/topics");
    let seen = topics["topics"].as_array().expect("topics").iter().find(|topic| topic["name"] == "seen");
    let seen = seen.expect("the topic");
    assert_eq!((&seen["partitions"], &seen["records"], &seen["leaderless"]), (&3.into(), &30.into(), &0.into()));

    let topic = json(port, "/v1/topics/seen");
    let partitions = topic["partitions"].as_array().expect("partitions");
    let ends: Vec<_> = partitions.iter().map(|partition| partition["replica"]["high_watermark"].as_i64()).collect();
    assert_eq!(ends, [Some(10), Some(10), Some(10)]);
    assert_eq!((&partitions[2]["leader"], &partitions[2]["isr"]), (&1.into(), &serde_json::json!([1])));
    assert_eq!(get(port, "/v1/topics/unseen").0, 404);

    let records = json(port, "/v1/topics/seen/partitions/1/records?offset=-3");
    let values: Vec<_> = records["records"].as_array().expect("records").iter().map(|r| &r["value"]["text"]).collect();
    assert_eq!(values, ["value 22", "value 25", "value 28"]);
    assert_eq!(records["next"], 10);
    let first = json(port, "/v1/topics/seen/partitions/1/records?offset=0&limit=1");
    assert_eq!((&first["records"][0]["offset"], &first["next"]), (&0.into(), &1.into()));
    assert_eq!(get(port, "/v1/topics/seen/partitions/1/records?offset=11").0, 416);
    assert_eq!(get(port, "/v1/topics/seen/partitions/3/records").0, 404);

    let consumer: BaseConsumer =
        BaseConsumer::from_config(librdkafka::config(&address).set("group.id", "readers/of it")).expect("a consumer");
    let mut offsets = TopicPartitionList::new();
    offsets.add_partition_offset("seen", 0, Offset::Offset(4)).expect("an offset");
    offsets.add_partition_offset("seen", 1, Offset::Offset(10)).expect("an offset");
    consumer.commit(&offsets, CommitMode::Sync).expect("a commit");
    let group = json(port, "/v1/groups/readers%2Fof%20it");
    let lag = |partition: usize| group["offsets"][partition]["lag"].as_i64();
    assert_eq!((lag(0), lag(1), group["offsets"].as_array().map(Vec::len)), (Some(6), Some(0), Some(2)));
    assert_eq!(json(port, "/v1/groups")["groups"][0]["lag"], 6);
    assert_eq!(
        metric(port, r#"kafka_consumergroup_lag{consumergroup="readers/of it",topic="seen",partition="0"}"#),
        Some(6.0)
    );

    assert_eq!(metric(port, "kafka_server_brokertopicmetrics_messagesin_total"), Some(30.0));
    assert!(metric(port, r#"kafka_network_requestmetrics_requests_total{request="CreateTopics"}"#) >= Some(1.0));
    assert_eq!(metric(port, "topic_creation_timeout_count"), Some(0.0));
    assert!(metric(port, r#"ringlog_wal_write_seconds_count{wal="data"}"#) >= Some(1.0));
    assert!(metric(port, "kafka_server_replicamanager_leadercount") >= Some(3.0));
    assert_eq!(metric(port, "kafka_server_replicamanager_underreplicatedpartitions"), Some(0.0));
    let (status, page) = get(port, "/");
    assert!(status == 200 && page.contains("<title>ringlog"), "{page}");
}

#[test]
fn a_creation_is_shown_stage_by_stage() {
    if external().is_some() {
        return skipped("the broker is not ours to start");
    }
    let directory = data_dir();
    let (broker, port) = started(&directory);
    create_topic(&broker.address(), "traced", 3, &[]);
    let trace = json(port, "/v1/topics/traced/trace");
    let stages = trace["stages"].as_array().expect("stages");
    let names: Vec<_> = stages.iter().map(|stage| stage["stage"].as_str().expect("a name")).collect();
    assert_eq!(names, ["forward", "validate", "propose", "commit", "apply", "leaders", "show"]);
    // The stages follow each other, so together they are the whole.
    let sum: i64 = stages.iter().map(|stage| stage["us"].as_i64().expect("a time")).sum();
    assert_eq!(Some(sum), trace["total_us"].as_i64());
    assert_eq!((&trace["topics"], &trace["error"]), (&serde_json::json!(["traced"]), &Value::Null));
    assert_eq!(json(port, "/v1/creations")["coordinated"][0]["topic_count"], 1);
    assert_eq!(get(port, "/v1/topics/untraced/trace").0, 404);
}

#[test]
fn an_http_port_that_is_taken_is_a_clear_error() {
    if external().is_some() {
        return skipped("the broker is not ours to start");
    }
    let directory = data_dir();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("its address").to_string();
    let output =
        Launch::new(directory.path()).with(&["--http", &address]).command().output().expect("the program runs");
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains(&format!("{address} is in use by another program")) && said.contains("--http"), "{said}");
}
