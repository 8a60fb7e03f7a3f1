//! Checks of the environment, made before glommio starts: what it does not find there it answers with a panic.
//!
//! `ringlog doctor` prints the same checks, so that what it finds and what the broker refuses never differ.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use io_uring::{IoUring, Probe, opcode};

use crate::limits::BLOCK;

/// Locked memory that each executor needs at least, in bytes; glommio refuses to start below it.
pub const MIN_MEMLOCK: u64 = 512 * 1024;

/// Open files that a broker needs at least: its WALs, its rings and pipes, and some clients.
pub const MIN_OPEN_FILES: u64 = 256;

/// Creates the data directory where it is missing, and checks that this process may write to it and that it is not on
/// FUSE.
pub fn create_data_dir(dir: &Path) -> Result<(), ProbeError> {
    fs::create_dir_all(dir).map_err(|cause| data_dir(dir, "creating it", cause))?;
    let writable = || {
        let path = CString::new(dir.as_os_str().as_bytes()).map_err(io::Error::other)?;
        // SAFETY: the path is live and ends in NUL.
        if unsafe { libc::access(path.as_ptr(), libc::W_OK | libc::X_OK) } == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    };
    writable().map_err(|cause| data_dir(dir, "writing to it", cause))?;
    // Asked before anything is written, so that nothing stays behind on a file system that cannot be used.
    known_file_system(dir).map(drop)
}

/// Why the broker cannot run here. The text names the cause and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The kernel has no io_uring.
    #[error("this kernel ({kernel}) has no io_uring: run ringlog on Linux 5.11 or newer (6.1 or newer is recommended)")]
    NoIoUring {
        /// The running kernel's release.
        kernel: String,
    },
    /// The sysctl `kernel.io_uring_disabled` forbids io_uring.
    #[error(
        "io_uring is switched off on this machine (kernel.io_uring_disabled = {value}): as root run \
         `sysctl -w kernel.io_uring_disabled=0`, and write the line into /etc/sysctl.d/ to keep it"
    )]
    DisabledBySysctl {
        /// The sysctl's value.
        value: u8,
    },
    /// A seccomp filter or security module forbids a system call of io_uring.
    #[error(
        "{call} is forbidden to this process ({cause}), most likely by a container's seccomp profile: start the \
         container with `--security-opt seccomp=contrib/seccomp/ringlog.json` (a file that comes with ringlog's source), \
         or with another profile that allows io_uring_setup, io_uring_enter and io_uring_register"
    )]
    Forbidden {
        /// The system call.
        call: &'static str,
        /// What the kernel said.
        cause: io::Error,
    },
    /// Too little memory may be locked.
    #[error(
        "only {limit} bytes of memory may be locked and at least {MIN_MEMLOCK} are needed: run `ulimit -l unlimited` \
         before the start, set `LimitMEMLOCK=infinity` in the systemd unit, or give the container \
         `--ulimit memlock=-1`"
    )]
    Memlock {
        /// The soft limit in bytes.
        limit: u64,
    },
    /// Too few files may be open.
    #[error(
        "only {limit} files and sockets may be open at once and at least {MIN_OPEN_FILES} are needed: run `ulimit -n 65536` \
         before the start, set `LimitNOFILE=65536` in the systemd unit, or give the container `--ulimit nofile=65536`"
    )]
    OpenFiles {
        /// The soft limit.
        limit: u64,
    },
    /// The kernel's io_uring lacks operations.
    #[error("the io_uring of this kernel ({kernel}) lacks {missing}: run ringlog on Linux 5.11 or newer")]
    OldIoUring {
        /// The running kernel's release.
        kernel: String,
        /// The operations' names.
        missing: String,
    },
    /// io_uring failed for a reason of its own.
    #[error("{call} failed: {cause}")]
    IoUring {
        /// The system call.
        call: &'static str,
        /// What the kernel said.
        cause: io::Error,
    },
    /// The data directory's file system cannot do direct I/O.
    #[error(
        "{} lies on {file_system}, which refuses direct I/O ({cause}): choose a --data-dir on ext4 or XFS",
        dir.display()
    )]
    NoDirectIo {
        /// The data directory.
        dir: PathBuf,
        /// The name of its file system.
        file_system: &'static str,
        /// What the kernel said.
        cause: io::Error,
    },
    /// The data directory is served by a user-space process.
    #[error(
        "{} lies on FUSE, where a stall of the serving process stops the broker's threads: choose a --data-dir on a \
         local ext4 or XFS",
        dir.display()
    )]
    Fuse {
        /// The data directory.
        dir: PathBuf,
    },
    /// The data directory belongs to somebody else.
    #[error(
        "cannot use the data directory {}: {what}: {cause}; the broker runs as user {user}: `chown -R {user} {}` as root, \
         or run it as the directory's owner",
        dir.display(), dir.display()
    )]
    NotAllowed {
        /// The data directory.
        dir: PathBuf,
        /// What was tried.
        what: &'static str,
        /// What the kernel said.
        cause: io::Error,
        /// The user that this process runs as.
        user: u32,
    },
    /// The data directory cannot be used.
    #[error("cannot use the data directory {}: {what}: {cause}", dir.display())]
    DataDir {
        /// The data directory.
        dir: PathBuf,
        /// What was tried.
        what: &'static str,
        /// What the kernel said.
        cause: io::Error,
    },
}

/// Something that does not keep the broker from running but is worth saying. The text names the remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning(pub String);

/// The running kernel's release, such as `6.1.0-18-amd64`.
pub fn kernel_release() -> String {
    fs::read_to_string("/proc/sys/kernel/osrelease").map_or_else(|_| "unknown".to_owned(), |s| s.trim().to_owned())
}

/// The value of the sysctl `kernel.io_uring_disabled`; `None` on kernels that do not have it.
pub fn io_uring_disabled() -> Option<u8> {
    fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok()?.trim().parse().ok()
}

/// Sets up a ring, runs one operation through it and asks which operations it knows: the three system calls that
/// the executors make.
pub fn io_uring() -> Result<(), ProbeError> {
    let mut ring = IoUring::new(8).map_err(|e| refused("io_uring_setup", e))?;
    let nop = opcode::Nop::new().build();
    // SAFETY: a no-op refers to no memory.
    unsafe { ring.submission().push(&nop) }.expect("an empty ring of 8 entries takes one");
    ring.submit_and_wait(1).map_err(|e| refused("io_uring_enter", e))?;
    let mut probe = Probe::new();
    ring.submitter().register_probe(&mut probe).map_err(|e| refused("io_uring_register", e))?;

    // The newest operations that the broker or glommio submits; a kernel with these has all older ones.
    let needed = [
        ("IORING_OP_FALLOCATE", opcode::Fallocate::CODE),
        ("IORING_OP_OPENAT", opcode::OpenAt::CODE),
        ("IORING_OP_STATX", opcode::Statx::CODE),
        ("IORING_OP_READ", opcode::Read::CODE),
        ("IORING_OP_WRITE", opcode::Write::CODE),
        ("IORING_OP_SEND", opcode::Send::CODE),
        ("IORING_OP_RECV", opcode::Recv::CODE),
        ("IORING_OP_ASYNC_CANCEL", opcode::AsyncCancel::CODE),
    ];
    let missing: Vec<&str> =
        needed.iter().filter(|(_, code)| !probe.is_supported(*code)).map(|(name, _)| *name).collect();
    if missing.is_empty() {
        Ok(())
    } else {
        Err(ProbeError::OldIoUring { kernel: kernel_release(), missing: missing.join(", ") })
    }
}

/// Names the cause of a failed system call of io_uring.
fn refused(call: &'static str, cause: io::Error) -> ProbeError {
    match (cause.raw_os_error(), io_uring_disabled()) {
        (Some(libc::ENOSYS), _) => ProbeError::NoIoUring { kernel: kernel_release() },
        (Some(libc::EPERM), Some(value)) if value > 0 => ProbeError::DisabledBySysctl { value },
        (Some(libc::EPERM | libc::EACCES), _) => ProbeError::Forbidden { call, cause },
        (Some(libc::ENOMEM), _) => ProbeError::Memlock { limit: memlock_limit() },
        _ => ProbeError::IoUring { call, cause },
    }
}

/// Bytes of memory that this process may lock; `u64::MAX` when unlimited.
pub fn memlock_limit() -> u64 {
    soft_limit(libc::RLIMIT_MEMLOCK)
}

/// Files and sockets that this process may have open at once.
pub fn open_files_limit() -> u64 {
    soft_limit(libc::RLIMIT_NOFILE)
}

/// Raises the limits of locked memory and of open files as far as this process may. A shell's are low by default (1,024
/// files) for the sake of programs that use select(2).
pub fn raise_limits() {
    for resource in [libc::RLIMIT_MEMLOCK, libc::RLIMIT_NOFILE] {
        let limit = libc::rlimit { rlim_cur: limits(resource).rlim_max, ..limits(resource) };
        // SAFETY: the pointer is to a live rlimit of ours. Should it fail, the lower limit stays, and is what the checks find.
        unsafe { libc::setrlimit(resource, &limit) };
    }
}

fn soft_limit(resource: libc::__rlimit_resource_t) -> u64 {
    limits(resource).rlim_cur
}

fn limits(resource: libc::__rlimit_resource_t) -> libc::rlimit {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to a live rlimit of ours.
    let result = unsafe { libc::getrlimit(resource, &mut limit) };
    assert_eq!(result, 0, "getrlimit fails only for an unknown resource");
    limit
}

/// Whether enough memory may be locked for the executors' rings.
pub fn memlock() -> Result<(), ProbeError> {
    match memlock_limit() {
        limit if limit < MIN_MEMLOCK => Err(ProbeError::Memlock { limit }),
        _ => Ok(()),
    }
}

/// Whether enough files may be open for a broker.
pub fn open_files() -> Result<(), ProbeError> {
    match open_files_limit() {
        limit if limit < MIN_OPEN_FILES => Err(ProbeError::OpenFiles { limit }),
        _ => Ok(()),
    }
}

/// The name of the file system that `path` lies on, as `mount` shows it; `"an unknown file system"` otherwise.
pub fn file_system(path: &Path) -> io::Result<&'static str> {
    let path = CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)?;
    // SAFETY: statfs is plain old data, for which all zeros is a value.
    let mut stat: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to live objects of ours, the path ends in NUL.
    if unsafe { libc::statfs(path.as_ptr(), &mut stat) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // The numbers are those of linux/magic.h; f_type's width differs between targets.
    Ok(match stat.f_type as u32 {
        0xEF53 => "ext4",
        0x5846_5342 => "xfs",
        0x9123_683E => "btrfs",
        0x0102_1994 => "tmpfs",
        0x8584_58F6 => "ramfs",
        0x794C_7630 => "overlay",
        0x6573_5546 => "fuse",
        0x6969 => "nfs",
        0xFF53_4D42 | 0xFE53_4D42 => "cifs",
        0x0102_1997 => "9p",
        0x2FC1_2FC1 => "zfs",
        0xF2F5_2010 => "f2fs",
        0xCA45_1A4E => "bcachefs",
        _ => "an unknown file system",
    })
}

/// A file that is removed again when this is dropped.
struct Scratch {
    file: File,
    path: PathBuf,
}

impl Scratch {
    fn create(dir: &Path, name: &str, flags: i32) -> io::Result<Scratch> {
        let path = dir.join(name);
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(true).custom_flags(flags).open(&path)?;
        Ok(Scratch { file, path })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A scratch file that stays behind does no harm: the next start truncates it.
        let _ = fs::remove_file(&self.path);
    }
}

/// Memory that direct I/O accepts: a whole number of blocks, aligned to one.
struct Aligned {
    memory: Vec<u8>,
    start: usize,
    len: usize,
}

impl Aligned {
    fn new(len: usize) -> Aligned {
        let memory = vec![0x5A; len + BLOCK];
        let start = memory.as_ptr().align_offset(BLOCK);
        Aligned { memory, start, len }
    }

    fn bytes(&self) -> &[u8] {
        &self.memory[self.start..self.start + self.len]
    }
}

/// Writes all of `buf` at `offset` in one call, as direct I/O wants it.
fn write_once(file: &File, buf: &[u8], offset: u64) -> io::Result<()> {
    // SAFETY: the buffer is live for the length given.
    let written = unsafe { libc::pwrite(file.as_raw_fd(), buf.as_ptr().cast(), buf.len(), offset as libc::off_t) };
    match usize::try_from(written) {
        Err(_) => Err(io::Error::last_os_error()),
        Ok(n) if n == buf.len() => Ok(()),
        Ok(n) => Err(io::Error::other(format!("wrote {n} of {} bytes", buf.len()))),
    }
}

/// The name of the file system that `dir` lies on, unless it is FUSE.
fn known_file_system(dir: &Path) -> Result<&'static str, ProbeError> {
    match file_system(dir).map_err(|cause| data_dir(dir, "statfs", cause))? {
        "fuse" => Err(ProbeError::Fuse { dir: dir.to_owned() }),
        name => Ok(name),
    }
}

/// Whether `dir`, which must exist, takes direct writes. One without room passes: the broker starts there, and all but
/// produces goes on.
pub fn direct_io(dir: &Path) -> Result<(), ProbeError> {
    let file_system = known_file_system(dir)?;
    // A directory that takes no file at all is a different matter from one that takes no direct I/O.
    match Scratch::create(dir, ".probe", 0) {
        Err(cause) if is_full(&cause) => return Ok(()),
        created => drop(created.map_err(|cause| data_dir(dir, "creating a file in it", cause))?),
    }
    let refused = |cause| ProbeError::NoDirectIo { dir: dir.to_owned(), file_system, cause };
    let scratch = Scratch::create(dir, ".probe", libc::O_DIRECT | libc::O_DSYNC).map_err(refused)?;
    match write_once(&scratch.file, Aligned::new(BLOCK).bytes(), 0) {
        Err(cause) if is_full(&cause) => Ok(()),
        Err(cause) if cause.raw_os_error() == Some(libc::EINVAL) => Err(refused(cause)),
        written => written.map_err(|cause| data_dir(dir, "writing to a file in it", cause)),
    }
}

fn is_full(cause: &io::Error) -> bool {
    matches!(cause.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// The error where the data directory's full path cannot be found.
pub(super) fn data_dir_error(dir: &Path, cause: io::Error) -> ProbeError {
    data_dir(dir, "finding its full path", cause)
}

fn data_dir(dir: &Path, what: &'static str, cause: io::Error) -> ProbeError {
    let dir = dir.to_owned();
    if cause.kind() != io::ErrorKind::PermissionDenied {
        return ProbeError::DataDir { dir, what, cause };
    }
    // SAFETY: geteuid(2) takes nothing and cannot fail.
    let user = unsafe { libc::geteuid() };
    ProbeError::NotAllowed { dir, what, cause, user }
}

/// Checks what concerns the process: io_uring and the limits.
pub fn check_process() -> Result<Vec<Warning>, ProbeError> {
    io_uring()?;
    memlock()?;
    open_files()?;
    let files = open_files_limit();
    if files >= 4_096 {
        return Ok(Vec::new());
    }
    Ok(vec![Warning(format!(
        "only {files} files may be open at once, connections included: raise it with `ulimit -n 65536` or \
         LimitNOFILE= in the systemd unit"
    ))])
}

/// Checks what concerns the data directory, which must exist. Writes a scratch file into it: the broker does so
/// only while it holds the directory's lock.
pub fn check_data_dir(dir: &Path) -> Result<Vec<Warning>, ProbeError> {
    direct_io(dir)?;
    let mut warnings = Vec::new();
    match known_file_system(dir)? {
        "ext4" | "xfs" => {}
        "tmpfs" | "ramfs" => warnings
            .push(Warning(format!("{} lies in memory: everything is lost when the machine stops", dir.display()))),
        other => warnings.push(Warning(format!(
            "{} lies on {other}, where ringlog is not tested: prefer XFS or ext4",
            dir.display()
        ))),
    }
    Ok(warnings)
}

/// Overwrites blocks of `len` bytes (a multiple of 4096) of a scratch file in `dir`, which was written before, the
/// way the WAL is written: direct and flushed, one after the other. Stops after `count` writes or when `most` has
/// passed, whichever comes first, but makes one write at least. Returns how long each took; nothing where there is no
/// room for the file.
pub fn write_latencies(dir: &Path, len: usize, count: usize, most: Duration) -> Result<Vec<Duration>, ProbeError> {
    /// Blocks that are overwritten in turn: few, so that preparing them takes no time at a start.
    const BLOCKS: usize = 8;
    assert!(len > 0 && len.is_multiple_of(BLOCK), "direct I/O wants whole blocks");
    let failed = |cause| data_dir(dir, "measuring its write latency", cause);
    let buf = Aligned::new(len);
    let all = Aligned::new(len * BLOCKS);
    let prepared = Scratch::create(dir, ".probe", libc::O_DIRECT | libc::O_DSYNC)
        .and_then(|scratch| write_once(&scratch.file, all.bytes(), 0).map(|()| scratch));
    let scratch = match prepared {
        Err(cause) if is_full(&cause) => return Ok(Vec::new()),
        prepared => prepared.map_err(failed)?,
    };
    let started = Instant::now();
    let mut latencies = Vec::with_capacity(count);
    while latencies.len() < count && (latencies.is_empty() || started.elapsed() < most) {
        let before = Instant::now();
        let offset = (latencies.len() % BLOCKS * len) as u64;
        write_once(&scratch.file, buf.bytes(), offset).map_err(failed)?;
        latencies.push(before.elapsed());
    }
    Ok(latencies)
}

/// The middle of some durations, where there are any.
pub fn median(mut durations: Vec<Duration>) -> Option<Duration> {
    durations.sort_unstable();
    durations.get(durations.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_passes_and_its_latency_is_measured() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        check_process().unwrap();
        create_data_dir(&data).unwrap();
        check_data_dir(&data).unwrap();
        let latencies = write_latencies(&data, BLOCK, 8, Duration::from_secs(5)).unwrap();
        assert_eq!(latencies.len(), 8);
        assert!(median(latencies).unwrap() > Duration::ZERO);
        assert_eq!(fs::read_dir(&data).unwrap().count(), 0, "a scratch file stayed behind");
    }

    #[test]
    fn each_refusal_names_its_cause_and_remedy() {
        let os = |errno| refused("io_uring_setup", io::Error::from_raw_os_error(errno)).to_string();
        assert!(os(libc::ENOSYS).contains("Linux 5.11"));
        assert!(os(libc::EPERM).contains("seccomp") || os(libc::EPERM).contains("sysctl"));
        assert!(os(libc::EINVAL).contains("io_uring_setup failed"));
        assert!(ProbeError::Memlock { limit: 65_536 }.to_string().contains("ulimit -l"));
    }

    #[test]
    fn a_directory_that_cannot_be_used_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, b"").unwrap();
        let error = create_data_dir(&file.join("data")).unwrap_err();
        assert!(error.to_string().contains("cannot use the data directory"), "{error}");
        // procfs takes no files at all.
        let error = direct_io(Path::new("/proc/self")).unwrap_err();
        assert!(matches!(error, ProbeError::DataDir { .. }), "{error}");
    }

    #[test]
    fn nothing_has_no_median() {
        assert_eq!(median(Vec::new()), None);
        assert_eq!(median([3, 1, 2].map(Duration::from_millis).to_vec()), Some(Duration::from_millis(2)));
    }
}
