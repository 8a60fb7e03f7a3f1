//! Rouses executors that sleep although some of their tasks are ready.
//!
//! glommio looks at its rings, and then runs the tasks that are ready, unless there is something new in the ring that counts as
//! urgent. If that is nothing which a task waits for, it goes to sleep next, with all tasks as they are, and nothing but an
//! event from outside ends that: what would set the next timer is one of the tasks. On a machine whose cores are all busy this
//! happens once in some minutes, and held a shard up for a minute, until a client gave up.
//!
//! So each shard says when its alarm rings next, and a thread sends a signal to those that are late. It ends a sleep in the
//! kernel, does nothing to a thread that is awake, and is no event that could be lost.

use std::io;
use std::sync::Weak;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use super::clock::Clock;
use crate::limits::IDLE_TICK_MS;
use crate::signals;
use crate::types::Mono;

/// An alarm that is so late has not been heard.
const LATE_MS: u64 = 20;
/// An alarm may be set to an earlier time while nobody looks: so long at most, that a broker at rest is not woken more often
/// than it ticks.
const LOOK_MS: u64 = IDLE_TICK_MS + LATE_MS;
/// A signal that is ignored where nothing handles it.
const SIGNAL: libc::c_int = libc::SIGURG;

/// A thread that may have to be roused.
#[derive(Debug)]
pub(super) struct Sleeper {
    /// When it is to be awake next, in microseconds; never, at first.
    due: AtomicU64,
    thread: AtomicI32,
}

impl Sleeper {
    pub(super) fn new() -> Sleeper {
        Sleeper { due: AtomicU64::new(u64::MAX), thread: AtomicI32::new(0) }
    }

    /// The calling thread is the one.
    pub(super) fn is_here(&self) {
        // SAFETY: gettid takes nothing and does not fail.
        self.thread.store(unsafe { libc::gettid() }, Ordering::Relaxed);
    }

    /// It is to be awake at `at`, and not before.
    pub(super) fn is_due(&self, at: Mono) {
        self.due.store(at.0, Ordering::Relaxed);
    }

    /// When it is to be awake.
    pub(super) fn due(&self) -> Mono {
        Mono(self.due.load(Ordering::Relaxed))
    }

    fn rouse(&self) {
        // SAFETY: the signal has a handler, which does nothing. A thread that has ended is an error, and nothing else.
        unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), self.thread.load(Ordering::Relaxed), SIGNAL) };
    }
}

/// Starts the thread that rouses `sleepers` for as long as there are any.
///
/// # Errors
/// Where the kernel gives no handler or no thread.
pub(super) fn watch(clock: Clock, sleepers: Vec<Weak<Sleeper>>) -> io::Result<()> {
    extern "C" fn nothing(_: libc::c_int) {}
    // SAFETY: the handler does nothing.
    unsafe { signals::handle(SIGNAL, nothing, libc::SA_RESTART) }?;
    thread::Builder::new().name("rouse".to_owned()).spawn(move || {
        while let Some(pause) = look(clock.mono(), &sleepers) {
            thread::sleep(pause);
        }
    })?;
    Ok(())
}

/// Rouses those that are late. How long until the next look; none where nobody is left.
fn look(now: Mono, sleepers: &[Weak<Sleeper>]) -> Option<Duration> {
    let mut next = None;
    for sleeper in sleepers.iter().filter_map(Weak::upgrade) {
        let late = sleeper.due().0.saturating_add(LATE_MS * 1_000);
        if now.0 >= late {
            sleeper.rouse();
        }
        let again = late.clamp(now.0 + LATE_MS * 1_000, now.0 + LOOK_MS * 1_000);
        next = Some(next.unwrap_or(again).min(again));
    }
    next.map(|next| Duration::from_micros(next - now.0))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_sleep_in_the_kernel_ends_when_it_is_late() {
        let clock = Clock::start();
        let sleeper = Arc::new(Sleeper::new());
        watch(clock, vec![Arc::downgrade(&sleeper)]).unwrap();
        sleeper.is_here();
        let due = clock.mono().plus_millis(10);
        sleeper.is_due(due);
        // SAFETY: poll is given no descriptors.
        let ended = unsafe { libc::poll(std::ptr::null_mut(), 0, 60_000) };
        assert_eq!((ended, io::Error::last_os_error().kind()), (-1, io::ErrorKind::Interrupted));
        assert!(clock.mono() >= due.plus_millis(LATE_MS), "it is not woken before");
    }

    #[test]
    fn who_is_late_is_roused_and_the_others_are_not() {
        let sleepers: Vec<Arc<Sleeper>> = (0..2).map(|_| Arc::new(Sleeper::new())).collect();
        let weak: Vec<Weak<Sleeper>> = sleepers.iter().map(Arc::downgrade).collect();
        let now = Mono(1_000_000);
        assert_eq!(look(now, &weak), Some(Duration::from_millis(LOOK_MS)), "nobody has said when");
        sleepers[0].is_due(now.plus_millis(5));
        assert_eq!(look(now, &weak), Some(Duration::from_millis(5 + LATE_MS)));
        drop(sleepers);
        assert_eq!(look(now, &weak), None);
    }
}
