//! Ctrl-C, for commands that have something to put in order before they end.

use std::sync::atomic::{AtomicBool, Ordering};

static CAME: AtomicBool = AtomicBool::new(false);

extern "C" fn note(_: libc::c_int) {
    CAME.store(true, Ordering::Relaxed);
}

/// From now on SIGINT and SIGTERM are noted ([`came`]) instead of ending the process; a second one ends it.
pub fn watch() {
    for signal in [libc::SIGINT, libc::SIGTERM] {
        // SAFETY: a zeroed sigaction is a valid one, with no signals masked. The handler stores to an atomic and does
        // nothing else, which is allowed in a handler. sigaction fails for signals that do not exist only.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = note as *const () as libc::sighandler_t;
            action.sa_flags = libc::SA_RESETHAND;
            libc::sigaction(signal, &action, std::ptr::null_mut());
        }
    }
}

/// Whether one of the signals has come.
pub fn came() -> bool {
    CAME.load(Ordering::Relaxed)
}
