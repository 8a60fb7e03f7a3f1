//! Clients that need a program from outside: the checks of `tests/clients` that are quick. `scripts/clients.sh` runs
//! all of them.

use std::path::Path;
use std::process::Command;

use crate::common::process::shared;

/// Runs checks of a client, `CLIENT:CHECK,CHECK`, against the broker that the tests share.
fn passes(checks: &str) {
    let output = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/clients.sh"))
        .args(["--brokers", shared().address(), checks])
        .output()
        .expect("bash is installed");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    // A check whose API the broker has not would be said to be missing, and is not passed.
    let asked = checks.split(',').count();
    assert!(text.contains(&format!("{asked} passed, 0 failed")), "{text}");
}

#[test]
#[ignore = "needs clients: scripts/test.sh"]
fn confluent_kafka() {
    passes("confluent-kafka:shapes,times,resets,offsets,administration,recreation");
}

#[test]
#[ignore = "needs clients: scripts/test.sh"]
fn kafka_python() {
    passes("kafka-python:shapes,sizes,times,resets,administration,creation");
}

#[test]
#[ignore = "needs clients: scripts/test.sh"]
fn franz_go() {
    passes("franz-go:codecs,shapes,sizes,times,resets,cooperative,recreation");
}

#[test]
#[ignore = "needs clients: scripts/test.sh"]
fn kafkajs() {
    passes("kafkajs:shapes,sizes,times,administration,pattern");
}

#[test]
#[ignore = "needs clients: scripts/test.sh"]
fn the_programs_of_apache_kafka() {
    passes("kafka-tools:console,cluster,dynamic");
}
