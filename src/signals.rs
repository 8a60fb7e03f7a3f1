//! Handlers of signals.

use std::io;

/// Has a signal handled by `handler`, with these flags of sigaction(2).
///
/// # Errors
/// Where there is no such signal, or it cannot be handled.
///
/// # Safety
/// The handler may interrupt any thread anywhere: it must do only what signal-safety(7) allows.
pub(crate) unsafe fn handle(
    signal: libc::c_int,
    handler: extern "C" fn(libc::c_int),
    flags: libc::c_int,
) -> io::Result<()> {
    // SAFETY: a sigaction of zeros is one with an empty mask and without flags; the handler has the type of one without
    // SA_SIGINFO, and all pointers are to live objects. What it does is the caller's to answer for.
    let result = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as *const () as libc::sighandler_t;
        action.sa_flags = flags;
        libc::sigaction(signal, &raw const action, std::ptr::null_mut())
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
