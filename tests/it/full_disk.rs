//! A disk without room: produces are refused, everything else goes on, and room is all that it takes to recover.
//!
//! Needs root and loop devices, as the tests of a frozen disk do.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::{DeleteTopicsRequest, MetadataRequest};

use crate::common::disk::Mount;
use crate::common::process::{Launch, data_dir, external};
use crate::common::records::{batch, values};
use crate::common::wire::{Wire, partition_answer, produce_request, topic_name};
use crate::common::{noise, skipped, wait_until};

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
