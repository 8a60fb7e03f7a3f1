//! The clocks, read here and handed to the core.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::types::{Mono, Now};

/// The clocks of this process. All executors share one, because deadlines travel between them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    origin: Instant,
}

impl Clock {
    /// A clock whose monotonic time begins now.
    pub(super) fn start() -> Clock {
        Clock { origin: Instant::now() }
    }

    /// A clock whose monotonic time began a while ago.
    #[cfg(test)]
    pub(super) fn started_ago(ago: std::time::Duration) -> Clock {
        Clock { origin: Instant::now().checked_sub(ago).expect("the machine has run for longer") }
    }

    /// What both clocks show.
    pub(super) fn now(self) -> Now {
        // A wall clock before 1970 is taken for 1970: it dates records, nothing else depends on it.
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now { mono: self.mono(), wall_ms: wall.as_millis() as i64 }
    }

    /// What the monotonic clock shows.
    pub(super) fn mono(self) -> Mono {
        Mono(self.origin.elapsed().as_micros() as u64)
    }
}

/// When a thread was last seen at work, for the others.
#[derive(Clone, Debug, Default)]
pub(super) struct Pulse(Arc<AtomicU64>);

impl Pulse {
    /// The thread is at work at `now`.
    pub(super) fn beat(&self, now: Mono) {
        self.0.store(now.0, Ordering::Relaxed);
    }

    /// Milliseconds of silence up to `now`.
    pub(super) fn silent_ms(&self, now: Mono) -> u64 {
        now.micros_since(Mono(self.0.load(Ordering::Relaxed))) / 1000
    }
}
