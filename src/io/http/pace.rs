//! Looks at the shards take turns, and leave them time for their own work: however many clients ask at this port, and
//! however often, the shards spend a fifth of their time on them at most.

use std::sync::{Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use super::Late;

/// How much longer than a turn took the next has to wait, as a multiple of it.
const REST: u32 = 4;

/// Longest time between two turns. A turn that waited for a shard in vain has not cost the shard that time.
const REST_MOST: Duration = Duration::from_millis(250);

/// How often it is looked whether it is one's turn.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// Whose turn it is.
pub(in crate::io) struct Pace {
    /// When the next turn may begin; held while one is taken.
    next: Mutex<Instant>,
}

impl Pace {
    /// Nobody has had a turn.
    pub(in crate::io) fn new() -> Pace {
        Pace { next: Mutex::new(Instant::now()) }
    }

    /// Waits for a turn, as long as it takes until `end`.
    ///
    /// # Errors
    /// [`Late`], where others had all turns until then.
    pub(super) fn turn(&self, end: Instant) -> Result<Turn<'_>, Late> {
        loop {
            let now = Instant::now();
            if let Ok(next) = self.next.try_lock()
                && *next <= now
            {
                return Ok(Turn { next, began: now });
            }
            if now >= end {
                return Err(Late);
            }
            thread::sleep(LOOK_AGAIN);
        }
    }
}

/// A turn. It ends when this is dropped.
pub(super) struct Turn<'a> {
    next: MutexGuard<'a, Instant>,
    began: Instant,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let now = Instant::now();
        *self.next = now + ((now - self.began) * REST).min(REST_MOST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_is_followed_by_a_rest_in_proportion() {
        let pace = Pace::new();
        let soon = || Instant::now() + Duration::from_secs(10);
        let turn = pace.turn(soon()).ok().expect("nobody else has it");
        assert!(pace.turn(Instant::now() + Duration::from_millis(10)).is_err(), "it is taken");
        drop(turn);
        let ended = Instant::now();
        assert!(pace.turn(ended).is_err(), "the shards have their rest");
        drop(pace.turn(soon()).ok().expect("after the rest"));
        assert!(ended.elapsed() >= Duration::from_millis(4 * 10 - 5), "{:?}", ended.elapsed());
        thread::scope(|scope| {
            let takers: Vec<_> = (0..4).map(|_| scope.spawn(|| pace.turn(soon()).is_ok())).collect();
            assert!(takers.into_iter().all(|taker| taker.join().expect("a taker")), "each has its turn");
        });
    }
}
