//! The share of a processor that a thread asks the kernel for.

use std::io;

use libc::{SYS_sched_getattr, SYS_sched_setattr, c_uint, sched_attr, syscall};

/// The shortest turn that the kernel grants (Linux 6.12 or newer), in nanoseconds.
const SHORTEST_NS: u64 = 100_000;

/// Asks that the calling thread, when it wakes, runs before threads that want longer turns. It gets no more of the
/// processor than before, only sooner: without this, a disk's thread waits behind shards and clients for tens of
/// milliseconds on a machine whose cores are all busy, and every acknowledgement with it.
///
/// Kernels before 6.12 take no notice.
///
/// # Errors
/// Where the kernel refuses; the thread runs as before.
pub(super) fn run_soon() -> io::Result<()> {
    // SAFETY: all fields are numbers, for which zeros are valid.
    let mut attributes: sched_attr = unsafe { std::mem::zeroed() };
    let size = size_of::<sched_attr>() as c_uint;
    // SAFETY: the kernel writes up to `size` bytes of `attributes`, which are its own. 0 is the calling thread.
    check(unsafe { syscall(SYS_sched_getattr, 0, &raw mut attributes, size, 0) })?;
    // Priority and policy stay as they are.
    attributes.sched_runtime = SHORTEST_NS;
    // SAFETY: `attributes` is live, and its own `size` field tells the kernel how long it is.
    check(unsafe { syscall(SYS_sched_setattr, 0, &raw const attributes, 0) })
}

fn check(result: i64) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_keeps_its_priority() {
        // SAFETY: getpriority takes no pointers.
        let nice = || unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
        let before = nice();
        run_soon().unwrap();
        assert_eq!(nice(), before);
    }
}
