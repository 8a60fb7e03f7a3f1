//! What the process takes of the machine.

use std::fs;

/// What the process takes.
pub(super) struct Usage {
    /// Resident memory, in bytes; 0 where the kernel does not say.
    pub(super) resident_bytes: u64,
    /// User and system time, in seconds.
    pub(super) cpu_seconds: f64,
}

/// What it takes now. The kernel answers from memory, whatever the disks do.
pub(super) fn usage() -> Usage {
    // SAFETY: sysconf takes no pointers.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) }.max(0) as u64;
    let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0);
    // SAFETY: rusage is plain data, and the pointer is to a live one.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &mut usage);
        usage
    };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    Usage { resident_bytes: pages * page, cpu_seconds: seconds(usage.ru_utime) + seconds(usage.ru_stime) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_takes_something() {
        let usage = usage();
        assert!(usage.resident_bytes > 100_000 && usage.cpu_seconds > 0.0);
    }
}
