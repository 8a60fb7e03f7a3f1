//! The console page in a real browser.

use std::process::Command;

use crate::common::librdkafka::{Recorder, create_topic};
use crate::common::process::{Launch, data_dir, external, free_port};
use crate::common::skipped;

/// What a page looks like once its script has run for a while.
fn rendered(profile: &std::path::Path, port: u16, page: &str) -> String {
    let output = Command::new("chromium")
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"])
        .args(["--disable-component-update", "--disable-sync", "--disable-quic", "--virtual-time-budget=5000"])
        .arg(format!("--user-data-dir={}", profile.display()))
        .args(["--dump-dom", &format!("http://127.0.0.1:{port}/#/{page}")])
        .output()
        .expect("chromium is installed: scripts/test.sh brings it");
    assert!(output.status.success(), "{page}: {}", String::from_utf8_lossy(&output.stderr));
    let whole = String::from_utf8_lossy(&output.stdout).into_owned();
    // What the script says is no sign that it ran.
    let begin = whole.find("<body").expect("a body");
    whole[begin..].split("<script>").next().expect("something before the script").to_owned()
}

#[test]
#[ignore = "needs chromium: scripts/test.sh"]
fn pages_show_what_the_broker_has() {
    if external().is_some() {
        return skipped("the broker is not ours to start");
    }
    let (directory, profile) = (data_dir(), data_dir());
    let port = free_port();
    let broker = Launch::new(directory.path()).with(&["--http", &format!("127.0.0.1:{port}")]).start();
    create_topic(&broker.address(), "looked-at", 2, &[]);
    let recorder = Recorder::new(&broker.address(), &[]);
    recorder.send("looked-at", 1, 0, None, b"<img src=x onerror=alert(1)>").expect("taken");
    recorder.finish();
    for (page, expected) in [
        ("", vec!["ready", "disk well", "may lead", "Produce", "WAL write, 99th percentile"]),
        ("topics", vec!["looked-at", "1 topics"]),
        ("topics/looked-at", vec!["high watermark", "records ›"]),
        // Text of a record is text, whatever it says.
        ("topics/looked-at/1", vec!["&lt;img src=x onerror=alert(1)&gt;"]),
        ("groups", vec!["This broker coordinates no group."]),
        ("disk", vec!["partitions: device write", "Deadlines missed since the start"]),
        ("creations", vec!["looked-at", "commit", "made"]),
    ] {
        let found = rendered(profile.path(), port, page);
        for text in expected {
            assert!(found.contains(text), "page {page:?} does not show {text:?}:\n{found}");
        }
        assert!(!found.contains("class=\"lost\""), "page {page:?} says that the broker does not answer");
    }
}
