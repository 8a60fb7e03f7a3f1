//! kcat, as the README shows it: a real file in, the same file out.

use std::fs;
use std::process::{Command, Stdio};

use crate::common::fresh;
use crate::common::process::shared;

fn kcat(arguments: &[&str], input: Option<&std::path::Path>) -> Vec<u8> {
    let mut command = Command::new("kcat");
    // Cargo puts the librdkafka that these tests are linked with on the path, and kcat would take it for its own.
    command.env_remove("LD_LIBRARY_PATH");
    command.args(["-b", shared().address(), "-X", "broker.address.family=v4", "-X", "socket.timeout.ms=10000"]);
    command.args(arguments).stdin(input.map_or(Stdio::null(), |path| fs::File::open(path).expect("a file").into()));
    let output = command.output().expect("kcat is installed: scripts/test.sh brings it");
    assert!(output.status.success(), "kcat {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

#[test]
#[ignore = "needs kcat: scripts/test.sh"]
fn a_file_line_by_line() {
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.lock");
    let original = fs::read(&file).expect("the file");
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let topic = fresh("kcat");
        // One line a record; -Z would keep empty lines as null values, -e ends at the end of the partition.
        kcat(&["-P", "-t", &topic, "-p", "0", "-z", codec, "-X", "enable.idempotence=true"], Some(&file));
        let read = kcat(&["-C", "-t", &topic, "-p", "0", "-o", "beginning", "-e", "-q"], None);
        let lines = |bytes: &[u8]| -> Vec<Vec<u8>> {
            bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(<[u8]>::to_vec).collect()
        };
        assert!(lines(&read) == lines(&original), "{codec}: what came out is not what went in");
    }
}

#[test]
#[ignore = "needs kcat: scripts/test.sh"]
fn a_whole_file_as_one_record() {
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.lock");
    let path = file.to_str().expect("a UTF-8 path");
    let topic = fresh("kcat-file");
    kcat(&["-P", "-t", &topic, "-p", "0", path], None);
    let read = kcat(&["-C", "-t", &topic, "-p", "0", "-o", "beginning", "-e", "-q", "-D", ""], None);
    assert!(read == fs::read(&file).expect("the file"));
}

#[test]
#[ignore = "needs kcat: scripts/test.sh"]
fn the_list_of_topics() {
    let topic = fresh("kcat-list");
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    kcat(&["-P", "-t", &topic, "-p", "0"], Some(&file));
    let listed = String::from_utf8(kcat(&["-L"], None)).expect("UTF-8");
    assert!(listed.contains("1 brokers:"), "{listed}");
    assert!(listed.contains(&format!("topic \"{topic}\" with 1 partitions")), "{listed}");
}

#[test]
#[ignore = "needs kcat: scripts/test.sh"]
fn offsets_by_time() {
    let topic = fresh("kcat-query");
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    kcat(&["-P", "-t", &topic, "-p", "0"], Some(&file));
    let found = String::from_utf8(kcat(&["-Q", "-t", &format!("{topic}:0:1")], None)).expect("UTF-8");
    assert!(found.contains("offset 0"), "{found}");
}

#[test]
#[ignore = "needs kcat: scripts/test.sh"]
fn a_group_goes_on_where_it_was() {
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    let lines = fs::read_to_string(&file).expect("the file").lines().filter(|line| !line.is_empty()).count();
    let (topic, group) = (fresh("kcat-group"), fresh("kcat-members"));
    kcat(&["-P", "-t", &topic, "-p", "0"], Some(&file));
    let settings = ["-X", "auto.offset.reset=earliest", "-X", "topic.auto.offset.reset=earliest", "-e", "-q"];
    let read = |group: &str| {
        let arguments: Vec<&str> = ["-G", group].into_iter().chain(settings).chain([topic.as_str()]).collect();
        kcat(&arguments, None)
    };
    let first = read(&group);
    assert_eq!(first.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).count(), lines);
    assert!(read(&group).is_empty(), "the group has read everything");
    assert_eq!(read(&fresh("kcat-others")), first, "another group has not");
}
