//! `ringlog inspect` on what a broker has left behind.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::common::process::{Launch, binary, data_dir, external};
use crate::common::records::batch;
use crate::common::skipped;
use crate::common::wire::Wire;

fn inspect(dir: &Path, arguments: &[&str]) -> Output {
    Command::new(binary()).arg("inspect").args(arguments).arg("--data-dir").arg(dir).output().expect("it runs")
}

fn rows(dir: &Path, arguments: &[&str]) -> Vec<Value> {
    let output = inspect(dir, &[arguments, &["--format", "json"]].concat());
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("JSON is UTF-8");
    text.lines().map(|line| serde_json::from_str(line).expect("a line is JSON")).collect()
}

#[test]
fn a_stopped_broker_s_logs_are_shown_and_a_running_one_s_are_not() {
    if external().is_some() {
        return skipped("the broker is not ours to stop");
    }
    let directory = data_dir();
    let broker = Launch::new(directory.path()).start();
    let mut wire = Wire::connect(&broker.address());
    wire.create_topic("seen", 2, &[]);
    for _ in 0..5 {
        assert_eq!(wire.produce("seen", 1, batch(&["a", "b"])).error_code, 0);
    }
    let refused = inspect(directory.path(), &["logs"]);
    assert!(!refused.status.success(), "the broker writes to what would be read");
    broker.kill();

    let logs = rows(directory.path(), &["logs"]);
    let log = logs.iter().find(|log| log["partition"] == "seen-1").expect("the partition has a log");
    assert!(log["entries_in_wal"].as_u64() >= Some(5), "{log}");
    let topics = rows(directory.path(), &["metadata"]);
    let log_of = topics.iter().find(|row| row["topic"] == "seen" && row["partition"] == 1).expect("it is there");
    assert_eq!(log_of["log"], log["log"]);
    let frames = rows(directory.path(), &["wal", "--frames"]);
    let entries = frames.iter().filter(|frame| frame["kind"] == "Entry" && frame["log"] == log["log"]);
    assert_eq!(entries.count() as u64, log["entries_in_wal"].as_u64().expect("a number"));
    assert!(rows(directory.path(), &["wal"]).iter().all(|segment| segment["damaged_writes"] == 0));
    let table = inspect(directory.path(), &["logs"]);
    assert!(String::from_utf8_lossy(&table.stdout).contains("in segments to"), "{table:?}");

    let elsewhere = inspect(&directory.path().join("wal"), &["logs"]);
    assert!(String::from_utf8_lossy(&elsewhere.stderr).contains("no data directory"), "{elsewhere:?}");
}
