//! What the kernel says about the device below the data directory, and about who uses it.

use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::mebibytes;
use super::report::Check;
use crate::cli::machine::read_trimmed;

/// Free space below which a warning is due, in bytes: the WAL alone takes some hundred MiB.
const LITTLE_SPACE_BYTES: u64 = 2 << 30;

/// Space and device of `dir`, which exists.
pub fn checks(dir: &Path) -> Vec<Check> {
    let mut checks = vec![free_space(dir)];
    if let Some(queue) = queue(dir) {
        checks.push(write_cache(&queue));
        checks.extend(scheduler(&queue));
    }
    checks
}

fn free_space(dir: &Path) -> Check {
    const NAME: &str = "free space";
    match available_bytes(dir) {
        None => Check::warn(NAME, "unknown", "statvfs fails for the data directory"),
        Some(bytes) if bytes < LITTLE_SPACE_BYTES => Check::warn(
            NAME,
            mebibytes(bytes),
            "the broker refuses produces when the disk is full: 2 GiB is little for a log",
        ),
        Some(bytes) => Check::ok(NAME, mebibytes(bytes)),
    }
}

fn available_bytes(dir: &Path) -> Option<u64> {
    let path = CString::new(dir.as_os_str().as_bytes()).ok()?;
    // SAFETY: statvfs is plain old data, for which all zeros is a value.
    let mut stat: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to live objects of ours, the path ends in NUL.
    let result = unsafe { libc::statvfs(path.as_ptr(), &mut stat) };
    (result == 0).then(|| stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// The queue settings of the device that `dir` lies on. File systems without a block device of their own have none.
fn queue(dir: &Path) -> Option<PathBuf> {
    let device = fs::metadata(dir).ok()?.dev();
    let device = fs::canonicalize(format!("/sys/dev/block/{}:{}", libc::major(device), libc::minor(device))).ok()?;
    // A partition's queue is that of the disk, the directory above it.
    [device.join("queue"), device.parent()?.join("queue")].into_iter().find(|queue| queue.is_dir())
}

fn write_cache(queue: &Path) -> Check {
    const NAME: &str = "write cache";
    let cache = read_trimmed(queue.join("write_cache")).unwrap_or_else(|| "unknown".into());
    let forced = read_trimmed(queue.join("fua")).as_deref() == Some("1");
    match (cache.as_str(), forced) {
        ("write back", false) => {
            Check::ok(NAME, "volatile, no FUA: a durable write is a write and a flush of the cache")
        }
        ("write back", true) => Check::ok(NAME, "volatile, with FUA: a durable write is one command"),
        ("write through", _) => Check::ok(NAME, "none that is volatile: a write is durable when it completes"),
        _ => Check::ok(NAME, cache),
    }
}

fn scheduler(queue: &Path) -> Option<Check> {
    let text = read_trimmed(queue.join("scheduler"))?;
    // The kernel puts the choice in brackets, unless there is but one.
    let chosen =
        text.split_once('[').and_then(|(_, rest)| rest.split_once(']')).map_or(text.as_str(), |(word, _)| word);
    let name = queue.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy();
    Some(match chosen {
        "none" | "mq-deadline" => Check::ok("scheduler", chosen),
        _ => Check::warn(
            "scheduler",
            chosen,
            format!(
                "it may hold a flushed write back in favour of others, by milliseconds: \
                 `echo none > /sys/block/{name}/queue/scheduler`"
            ),
        ),
    })
}

/// The process that holds the lock of the data directory, a running broker. The kernel's list of locks is read, and
/// none is taken: that could get into the way of a broker that starts at this moment.
pub fn broker_at(data_dir: &Path) -> Option<String> {
    let lock = fs::metadata(data_dir.join("lock")).ok()?;
    let file = format!("{:02x}:{:02x}:{}", libc::major(lock.dev()), libc::minor(lock.dev()), lock.ino());
    holder(&fs::read_to_string("/proc/locks").ok()?, &file)
}

/// The process that has a whole-file lock on `file`, by the text of `/proc/locks`.
fn holder(locks: &str, file: &str) -> Option<String> {
    locks.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        match fields.as_slice() {
            [_, "FLOCK", _, _, process, of, ..] if *of == file => Some((*process).to_owned()),
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_of_a_lock_is_found() {
        let locks = "1: POSIX  ADVISORY  WRITE 12 08:01:131 0 EOF\n2: FLOCK  ADVISORY  WRITE 34 08:01:131 0 EOF\n";
        assert_eq!(holder(locks, "08:01:131"), Some("34".into()));
        assert_eq!(holder(locks, "08:01:13"), None);
        assert_eq!(holder("", "08:01:131"), None);
    }

    #[test]
    fn a_directory_has_free_space() {
        assert!(available_bytes(Path::new("/")).is_some());
        assert_eq!(available_bytes(Path::new("/nowhere")), None);
    }
}
