//! Ctrl-C, for commands that have something to put in order before they end.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::signals;

static CAME: AtomicBool = AtomicBool::new(false);

extern "C" fn note(_: libc::c_int) {
    CAME.store(true, Ordering::Relaxed);
}

/// From now on SIGINT and SIGTERM are noted ([`came`]) instead of ending the process; a second one ends it.
pub fn watch() {
    for signal in [libc::SIGINT, libc::SIGTERM] {
        // SAFETY: the handler stores to an atomic.
        unsafe { signals::handle(signal, note, libc::SA_RESETHAND) }.expect("both signals can be handled");
    }
}

/// Whether one of the signals has come.
pub fn came() -> bool {
    CAME.load(Ordering::Relaxed)
}
