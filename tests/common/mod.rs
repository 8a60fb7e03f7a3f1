//! What the tests against a running broker share: the broker's process, a plain connection, records, and librdkafka.

pub mod disk;
pub mod librdkafka;
pub mod process;
pub mod records;
pub mod wire;

use std::fs::{self, Metadata};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// A topic name that no other test, and no earlier run against the same broker, has used.
pub fn fresh(name: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{name}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Says on the real standard error, past the test harness's capture, why a test did nothing.
pub fn skipped(why: &str) {
    let name = std::thread::current().name().unwrap_or("?").to_owned();
    let _ = writeln!(std::io::stderr(), "skipped: {name}: {why}");
}

/// Asks `condition` every 20 ms until it is true; false when `limit` has passed before that.
pub fn wait_until(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + limit;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The files below a directory. One that is removed meanwhile is not among them.
pub fn files_below(directory: &Path) -> Vec<(PathBuf, Metadata)> {
    fn there<T>(asked: io::Result<T>) -> Option<T> {
        match asked {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            asked => Some(asked.expect("what lies below the directory")),
        }
    }
    let mut files = Vec::new();
    for entry in there(fs::read_dir(directory)).into_iter().flatten().filter_map(there) {
        match there(entry.metadata()) {
            Some(metadata) if metadata.is_dir() => files.extend(files_below(&entry.path())),
            Some(metadata) => files.push((entry.path(), metadata)),
            None => {}
        }
    }
    files
}

/// Bytes of all files below a directory.
pub fn bytes_below(directory: &Path) -> u64 {
    files_below(directory).iter().map(|(_, metadata)| metadata.len()).sum()
}

/// The bytes of each segment below a directory.
pub fn segments_below(directory: &Path) -> Vec<u64> {
    let is_segment = |path: &Path| path.extension().is_some_and(|extension| extension == "log");
    let files = files_below(directory).into_iter();
    files.filter(|(path, _)| is_segment(path)).map(|(_, metadata)| metadata.len()).collect()
}

/// `len` bytes that do not compress, the same for the same `seed` (an xorshift generator).
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}
