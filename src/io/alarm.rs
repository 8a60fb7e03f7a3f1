//! A shard's alarm: a timer of the kernel's own that stays set while its executor sleeps and wakes.
//!
//! glommio takes its own timers out of the kernel whenever it wakes, and puts them back before it sleeps: two calls a
//! wake-up, for a timer that is there at all times. This one is a descriptor that the executor polls; it costs a call
//! when it is set and two when it rings.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use glommio::io::PollableFd;

/// A timer that belongs to no executor yet.
pub(super) struct Timer(OwnedFd);

impl Timer {
    /// A timer that is not set.
    ///
    /// # Errors
    /// Where the kernel gives no descriptor for it.
    pub(super) fn new() -> io::Result<Timer> {
        // SAFETY: timerfd_create takes no pointers.
        let fd = unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_NONBLOCK | libc::TFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new and nobody else's.
        Ok(Timer(unsafe { OwnedFd::from_raw_fd(fd) }))
    }
}

/// A timer that one task of an executor waits for, and any of its tasks may set.
pub(super) struct Alarm(PollableFd<OwnedFd>);

impl Alarm {
    /// Gives `timer` to the executor of this thread.
    pub(super) fn new(timer: Timer) -> Alarm {
        Alarm(PollableFd::new(timer.0).expect("an executor runs on this thread"))
    }

    /// Lets it ring once, after `wait`; whatever it was set to before is forgotten.
    pub(super) fn set(&self, wait: Duration) {
        // Zeros would turn it off.
        let wait = wait.max(Duration::from_nanos(1));
        let value = libc::timespec { tv_sec: wait.as_secs() as libc::time_t, tv_nsec: wait.subsec_nanos().into() };
        let once = libc::itimerspec { it_interval: libc::timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
        // SAFETY: the descriptor is open, `once` is live, and the earlier setting is not asked for.
        let result = unsafe { libc::timerfd_settime(self.0.as_raw_fd(), 0, &raw const once, std::ptr::null_mut()) };
        assert_eq!(result, 0, "a timer cannot be set: {}", io::Error::last_os_error());
    }

    /// Waits until it rings.
    pub(super) async fn rings(&self) {
        loop {
            self.0.readable().await.expect("the executor outlives its tasks");
            // Not where it was set anew just when it had rung.
            if self.has_rung() {
                return;
            }
        }
    }

    /// Whether it has rung since it was set, and since this was asked.
    fn has_rung(&self) -> bool {
        let mut rings = 0u64;
        // SAFETY: the descriptor is open, and the eight bytes are live and writable.
        let n = unsafe { libc::read(self.0.as_raw_fd(), (&raw mut rings).cast(), size_of_val(&rings)) };
        if n < 0 {
            let error = io::Error::last_os_error();
            assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "a timer cannot be read: {error}");
        }
        n > 0
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;
    use std::time::Instant;

    use glommio::LocalExecutorBuilder;

    use super::*;

    const SOON: Duration = Duration::from_millis(20);
    const LATE: Duration = Duration::from_secs(600);

    /// Runs `test` on an executor with an alarm.
    fn with_alarm<F: Future<Output = ()> + 'static>(test: impl FnOnce(Rc<Alarm>) -> F + Send + 'static) {
        let executor = LocalExecutorBuilder::default().spawn(|| test(Rc::new(Alarm::new(Timer::new().unwrap()))));
        executor.unwrap().join().unwrap();
    }

    #[test]
    fn it_rings_when_it_was_set_to_and_once() {
        with_alarm(|alarm| async move {
            for wait in [SOON, Duration::ZERO, SOON] {
                let begin = Instant::now();
                alarm.set(wait);
                alarm.rings().await;
                assert!(begin.elapsed() >= wait);
            }
            glommio::timer::sleep(SOON).await;
            assert!(!alarm.has_rung(), "it rang twice");
        });
    }

    #[test]
    fn who_waits_hears_of_an_earlier_time() {
        with_alarm(|alarm| async move {
            alarm.set(LATE);
            let other = Rc::clone(&alarm);
            let sets = glommio::spawn_local(async move { other.set(SOON) });
            alarm.rings().await;
            sets.await;
        });
    }

    #[test]
    fn a_ring_that_was_set_anew_does_not_count() {
        with_alarm(|alarm| async move {
            alarm.set(Duration::ZERO);
            alarm.0.readable().await.unwrap();
            let begin = Instant::now();
            alarm.set(SOON);
            alarm.rings().await;
            assert!(begin.elapsed() >= SOON);
        });
    }
}
