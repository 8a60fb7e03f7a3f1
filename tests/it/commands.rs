//! The commands that talk to a broker, as a user runs them.

use std::io::Write;
use std::net::TcpListener;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::common::librdkafka::{Recorder, create_topic};
use crate::common::process::{Launch, binary, data_dir, external, free_port, shared};
use crate::common::{fresh, skipped};

/// Runs `ringlog` against a broker, with text on its standard input.
pub fn ringlog(broker: &str, arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(binary())
        .args(arguments)
        .env_clear()
        .envs(std::env::vars().filter(|(name, _)| !name.starts_with("RINGLOG_")))
        .env("RINGLOG_BOOTSTRAP_SERVER", broker)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    // A command that ends before it has read everything has its reason, which its output shows.
    let _ = child.stdin.take().expect("a pipe").write_all(input.as_bytes());
    child.wait_with_output().expect("it ends")
}

/// The same where all must go well; gives the lines of standard output.
pub fn lines(broker: &str, arguments: &[&str], input: &str) -> Vec<String> {
    let output = ringlog(broker, arguments, input);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", err(&output));
    String::from_utf8(output.stdout).expect("UTF-8").lines().map(str::to_owned).collect()
}

/// The same with each line as JSON.
pub fn rows(broker: &str, arguments: &[&str]) -> Vec<Value> {
    let lines = lines(broker, &[arguments, &["--format", "json"]].concat(), "");
    lines.iter().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// The exit code of what must fail, and what it says.
pub fn failure(broker: &str, arguments: &[&str]) -> (Option<i32>, String) {
    let output = ringlog(broker, arguments, "");
    (output.status.code(), err(&output))
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_topic_is_created_described_altered_and_deleted() {
    let broker = shared();
    let at = broker.address();
    let (topic, other) = (fresh("made"), fresh("made"));
    let create = ["topic", "create", &topic, &other, "--partitions", "3", "--config", "retention.ms=60000"];
    let table = lines(at, &create, "");
    assert!(table[0].starts_with("topic") && table[1].contains("created"), "{table:?}");
    assert_eq!(table.len(), 3, "{table:?}");

    let listed = rows(at, &["topic", "list"]);
    let found = listed.iter().find(|row| row["topic"] == topic.as_str()).expect("it is listed");
    assert_eq!((&found["partitions"], &found["leaderless"]), (&3.into(), &0.into()));
    assert!(listed.iter().all(|row| row["internal"] == false));

    let recorder = Recorder::new(at, &[]);
    recorder.send(&topic, 1, 0, None, b"x").expect("taken");
    recorder.finish();
    let described = rows(at, &["topic", "describe", &topic]);
    let ends: Vec<_> = described.iter().map(|row| (&row["begin"], &row["end"])).collect();
    assert_eq!(ends, [(&0.into(), &0.into()), (&0.into(), &1.into()), (&0.into(), &0.into())]);
    assert_eq!(described[0]["replicas"], described[0]["in_sync"]);
    assert_eq!(lines(at, &["topic", "describe", &topic, "--unhealthy"], ""), ["nothing"]);

    lines(
        at,
        &["topic", "alter", &topic, "--partitions", "5", "--set", "max.message.bytes=2000", "--unset", "retention.ms"],
        "",
    );
    assert_eq!(rows(at, &["topic", "describe", &topic]).len(), 5);
    let changed = rows(at, &["config", "get", "--topic", &topic, "--changed"]);
    assert_eq!(changed.len(), 1, "{changed:?}");
    assert_eq!((&changed[0]["name"], &changed[0]["value"]), (&"max.message.bytes".into(), &"2000".into()));
    let (code, said) = failure(at, &["topic", "alter", &topic, "--partitions", "2"]);
    assert!(code == Some(1) && said.contains("INVALID_PARTITIONS"), "{said}");

    assert_eq!(rows(at, &["topic", "delete", &topic])[0]["outcome"], "deleted");
    assert!(rows(at, &["topic", "list"]).iter().all(|row| row["topic"] != topic.as_str()));
    lines(at, &["topic", "delete", &other], "");
}

#[test]
fn refusals_have_kafka_s_names_and_exit_codes() {
    let broker = shared();
    let at = broker.address();
    let (topic, absent) = (fresh("refused"), fresh("absent"));
    lines(at, &["topic", "create", &topic], "");
    let (code, said) = failure(at, &["topic", "create", &topic]);
    assert!(code == Some(1) && said.contains("TOPIC_ALREADY_EXISTS"), "{said}");
    let again = rows(at, &["topic", "create", &topic, "--if-not-exists"]);
    assert_eq!(again[0]["outcome"], "there already");

    // What can be done is, and what cannot is told in the form that was asked for.
    let output = ringlog(at, &["topic", "delete", &absent, &topic, "--format", "json"], "");
    assert_eq!(output.status.code(), Some(1));
    let told: Value = serde_json::from_str(&err(&output)).expect("an error as JSON");
    assert_eq!(told["error"], "UNKNOWN_TOPIC_OR_PARTITION");
    assert!(String::from_utf8_lossy(&output.stdout).contains("deleted"));
    lines(at, &["topic", "delete", &absent, "--if-exists"], "");

    let (code, said) = failure(at, &["topic", "describe", &absent]);
    assert!(code == Some(1) && said.contains("UNKNOWN_TOPIC_OR_PARTITION"), "{said}");
    let (code, said) = failure(at, &["topic", "create", &absent, "--config", "no.such.config=1"]);
    assert!(code == Some(1) && said.contains("INVALID_CONFIG") && said.contains("no.such.config"), "{said}");
    assert_eq!(rows(at, &["topic", "create", &absent, "--validate-only"])[0]["outcome"], "could be created");
    assert!(rows(at, &["topic", "list"]).iter().all(|row| row["topic"] != absent.as_str()));
    let (code, said) = failure(at, &["group", "describe", &absent]);
    assert!(code == Some(1) && said.contains("GROUP_ID_NOT_FOUND"), "{said}");

    assert_eq!(failure(at, &["topic", "create"]).0, Some(2));
    assert_eq!(failure(at, &["config", "get"]).0, Some(2));
    assert_eq!(failure(at, &["topic", "alter", &topic]).0, Some(2));
}

#[test]
fn who_cannot_be_reached_is_an_exit_code_of_its_own_and_in_time() {
    let nobody = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("its address").to_string();
    let (code, said) = failure(&nobody, &["topic", "list"]);
    assert!(code == Some(3) && said.contains(&nobody), "{said}");
    // Someone who takes connections and says nothing, and then a broker: the list is gone through.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let silent = silent.local_addr().expect("its address").to_string();
    let begin = std::time::Instant::now();
    let (code, said) = failure(&silent, &["topic", "list", "--timeout", "300ms"]);
    assert!(code == Some(3), "{said}");
    assert!(begin.elapsed() < std::time::Duration::from_secs(5), "{:?}", begin.elapsed());
    let broker = shared();
    lines(&format!("{nobody},{}", broker.address()), &["topic", "list"], "");
}

#[test]
fn configs_are_shown_set_and_unset() {
    let broker = shared();
    let at = broker.address();
    let topic = fresh("configured");
    lines(at, &["topic", "create", &topic], "");
    let get = |name: &str| rows(at, &["config", "get", "--topic", &topic, name])[0].clone();
    let default = get("retention.ms");
    assert_eq!(default["source"], "default");
    lines(at, &["config", "set", "--topic", &topic, "retention.ms=1000", "cleanup.policy=compact"], "");
    assert_eq!((&get("retention.ms")["value"], &get("retention.ms")["source"]), (&"1000".into(), &"topic".into()));
    lines(at, &["config", "unset", "--topic", &topic, "retention.ms"], "");
    assert_eq!(get("retention.ms"), default);
    let (code, said) = failure(at, &["config", "set", "--topic", &topic, "retention.ms=soon"]);
    assert!(code == Some(1) && said.contains("INVALID_CONFIG"), "{said}");
    let (code, said) = failure(at, &["config", "get", "--topic", &topic, "no.such.config"]);
    assert!(code == Some(1) && said.contains("no.such.config"), "{said}");

    let id = rows(at, &["topic", "describe", &topic])[0]["leader"].to_string();
    assert!(rows(at, &["config", "get", "--broker", &id]).iter().any(|row| row["name"] == "num.partitions"));
    assert_eq!(failure(at, &["config", "get", "--broker", "99"]).0, Some(3));
}

#[test]
fn a_group_is_listed_described_reset_and_deleted() {
    use rdkafka::config::FromClientConfig;
    use rdkafka::consumer::{BaseConsumer, Consumer};

    let broker = shared();
    let at = broker.address();
    let (topic, group) = (fresh("read"), fresh("readers"));
    create_topic(at, &topic, 2, &[]);
    let recorder = Recorder::new(at, &[]);
    for number in 0..10 {
        recorder.send(&topic, 0, number, None, b"x").expect("taken");
    }
    recorder.finish();
    let mut config = crate::common::librdkafka::config(at);
    config.set("group.id", &group).set("auto.offset.reset", "earliest").set("client.id", "a-reader");
    let consumer = BaseConsumer::from_config(&config).expect("a consumer");
    consumer.subscribe(&[&topic]).expect("subscribed");
    let read = crate::common::wait_until(std::time::Duration::from_secs(20), || {
        consumer.poll(std::time::Duration::from_millis(100)).is_some_and(|record| record.is_ok())
    });
    assert!(read, "the consumer reads");
    let members = rows(at, &["group", "describe", &group, "--members"]);
    let of_member = members[0]["partitions"].as_array().expect("partitions");
    assert_eq!((of_member.len(), &members[0]["client"]), (2, &"a-reader".into()), "{members:?}");
    let (code, said) = failure(at, &["group", "reset", &group, "--to-end"]);
    assert!(code == Some(1) && said.contains("NON_EMPTY_GROUP"), "{said}");
    let (code, said) = failure(at, &["group", "delete", &group]);
    assert!(code == Some(1) && said.contains("NON_EMPTY_GROUP"), "{said}");
    drop(consumer);

    let to = |to: &[&str]| rows(at, &[&["group", "reset", &group, "--topic", &topic], to].concat())[0]["after"].clone();
    assert_eq!(to(&["--to-offset", "4"]), 4);
    assert_eq!(to(&["--by", "-1", "--dry-run"]), 3);
    let offsets = rows(at, &["group", "describe", &group]);
    assert_eq!((&offsets[0]["committed"], &offsets[0]["end"], &offsets[0]["lag"]), (&4.into(), &10.into(), &6.into()));
    assert_eq!(to(&["--by", "100"]), 10, "no further than the end");
    assert_eq!(to(&["--to-time", "2000-01-01T00:00:00Z"]), 0);
    assert_eq!(to(&["--to-time", "2100-01-01T00:00:00Z"]), 10);
    assert_eq!(to(&["--to-begin"]), 0);

    let listed = rows(at, &["group", "list", "--state", "empty"]);
    let found = listed.iter().find(|row| row["group"] == group.as_str()).expect("it is listed");
    assert_eq!(found["state"], "Empty");
    assert_eq!(rows(at, &["group", "delete", &group])[0]["outcome"], "deleted");
    assert_eq!(failure(at, &["group", "describe", &group]).0, Some(1));
}

#[test]
fn the_stages_of_a_creation_are_printed() {
    if external().is_some() {
        return skipped("the broker is not ours to start");
    }
    let directory = data_dir();
    let http = format!("127.0.0.1:{}", free_port());
    let broker = Launch::new(directory.path()).with(&["--http", &http]).start();
    let at = broker.address();
    let printed = rows(&at, &["topic", "create", "traced", "--trace", "--http", &http]);
    let stages: Vec<_> = printed[1..].iter().map(|row| row["stage"].as_str().expect("a stage")).collect();
    assert_eq!(stages, ["forward", "validate", "propose", "commit", "apply", "leaders", "show", "total"]);
    let us = |row: &Value| row["us"].as_u64().expect("a time");
    assert_eq!(printed[1..8].iter().map(us).sum::<u64>(), us(&printed[8]));
    let table = lines(&at, &["topic", "create", "traced-too", "--trace", "--http", &http], "");
    assert!(table.iter().any(|line| line.starts_with("commit")), "{table:?}");

    // The topic is there all the same where there is no trace to be had.
    let (code, said) = failure(&at, &["topic", "create", "untraced", "--trace", "--http", "127.0.0.1:1"]);
    assert!(code == Some(3) && said.contains("127.0.0.1:1"), "{said}");
    assert_eq!(rows(&at, &["topic", "describe", "untraced"]).len(), 1);
    assert_eq!(failure(&at, &["topic", "create", "x", "--trace"]).0, Some(2), "there is no port to ask");
}

#[test]
fn a_shell_takes_the_completions_and_man_the_pages() {
    let script = lines("", &["completions", "bash"], "").join("\n");
    let complete = format!(
        "{script}\nCOMP_WORDS=(ringlog topic cr) COMP_CWORD=2; _ringlog ringlog cr topic; echo \"${{COMPREPLY[@]}}\""
    );
    let output = Command::new("bash").args(["-c", &complete]).output().expect("bash is there");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "create\n", "{output:?}");
    let directory = data_dir();
    let path = directory.path().to_str().expect("UTF-8");
    lines("", &["man", path], "");
    let page = std::fs::read_to_string(directory.path().join("ringlog-group-reset.1")).expect("a page");
    assert!(page.contains("dry") && page.contains("NAME"), "{page}");
    let (code, said) = failure("", &["man", "/nowhere/at/all"]);
    assert!(code == Some(1) && said.contains("/nowhere/at/all"), "{said}");
}
