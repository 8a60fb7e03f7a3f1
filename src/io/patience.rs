//! How long a connection's client is waited for: to bring the rest of a frame, to take responses, to do anything.

use std::cell::Cell;

use crate::limits::{CONN_LEAST_BYTES, CONN_STALLED_MS};
use crate::types::Mono;

/// When the client of one connection did what.
pub(super) struct Patience {
    last_read: Cell<Mono>,
    last_sent: Cell<Mono>,
    /// When the frame began that is not complete yet, if there is one.
    frame_since: Cell<Option<Mono>>,
    /// The stretch of time in which the client must take [`CONN_LEAST_BYTES`], and what it has taken so far.
    taking_since: Cell<Mono>,
    taken: Cell<u64>,
}

impl Patience {
    /// With a connection that was just accepted.
    pub(super) fn new(now: Mono) -> Patience {
        Patience {
            last_read: Cell::new(now),
            last_sent: Cell::new(now),
            frame_since: Cell::new(None),
            taking_since: Cell::new(now),
            taken: Cell::new(0),
        }
    }

    /// Something was read; `in_frame` says whether it ended in the middle of a frame.
    pub(super) fn read(&self, now: Mono, in_frame: bool) {
        self.last_read.set(now);
        self.frame_since.set(in_frame.then(|| self.frame_since.get().unwrap_or(now)));
    }

    /// A frame is complete: the next one has its time before it.
    pub(super) fn frame_complete(&self) {
        self.frame_since.set(None);
    }

    /// The broker did not read until now: that time does not count as the client's.
    pub(super) fn was_held_back(&self, now: Mono) {
        self.last_read.set(now);
        if self.frame_since.get().is_some() {
            self.frame_since.set(Some(now));
        }
    }

    /// The first response waits for the client to take it.
    pub(super) fn began_to_send(&self, now: Mono) {
        self.last_sent.set(now);
        self.taking_since.set(now);
        self.taken.set(0);
    }

    /// The client took some bytes.
    pub(super) fn sent(&self, now: Mono, bytes: usize) {
        self.last_sent.set(now);
        self.taken.set(self.taken.get() + bytes as u64);
    }

    /// Why the connection is to be ended at `now`, if it is. `unsent` says whether responses wait for the client, `busy`
    /// whether requests of it are under way, `held_back` whether it is the broker that does not read.
    pub(super) fn is_over(
        &self,
        now: Mono,
        unsent: bool,
        busy: bool,
        held_back: bool,
        idle_ms: u64,
    ) -> Option<&'static str> {
        let since = |then: Mono| now.micros_since(then) / 1000;
        if unsent {
            if since(self.taking_since.get()) <= CONN_STALLED_MS {
                return None;
            }
            if self.taken.replace(0) < CONN_LEAST_BYTES {
                return Some("its client takes responses too slowly");
            }
            self.taking_since.set(now);
            return None;
        }
        if held_back {
            return None;
        }
        if let Some(begun) = self.frame_since.get() {
            return (since(begun) > CONN_STALLED_MS).then_some("a request frame was not complete in time");
        }
        let idle = since(self.last_read.get()).min(since(self.last_sent.get()));
        (!busy && idle > idle_ms).then_some("it was idle for connections.max.idle.ms")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Mono = Mono(7_000_000);
    const IDLE_MS: u64 = 600_000;

    fn at(ms: u64) -> Mono {
        START.plus_millis(ms)
    }

    #[test]
    fn a_client_that_brings_a_frame_byte_by_byte_is_not_waited_for() {
        let patience = Patience::new(START);
        for second in 0..=60 {
            patience.read(at(second * 1000), true);
            assert_eq!(patience.is_over(at(second * 1000), false, false, false, IDLE_MS), None, "after {second} s");
        }
        let over = patience.is_over(at(60_001), false, false, false, IDLE_MS);
        assert_eq!(over, Some("a request frame was not complete in time"));
        patience.frame_complete();
        patience.read(at(60_001), true);
        assert_eq!(patience.is_over(at(60_002), false, false, false, IDLE_MS), None, "the next frame has its own time");
    }

    #[test]
    fn the_time_in_which_the_broker_does_not_read_is_not_the_client_s() {
        let patience = Patience::new(START);
        patience.read(at(0), true);
        assert_eq!(patience.is_over(at(100_000), false, true, true, IDLE_MS), None);
        patience.was_held_back(at(100_000));
        assert_eq!(patience.is_over(at(160_000), false, true, false, IDLE_MS), None);
        assert!(patience.is_over(at(160_001), false, true, false, IDLE_MS).is_some());
    }

    #[test]
    fn a_client_that_takes_responses_byte_by_byte_is_cut_off_and_a_slow_one_is_not() {
        let patience = Patience::new(START);
        patience.began_to_send(at(0));
        patience.sent(at(50_000), 10_000_000);
        assert_eq!(patience.is_over(at(60_001), true, false, false, IDLE_MS), None);
        for second in 61..=120 {
            patience.sent(at(second * 1000), 1);
        }
        let over = patience.is_over(at(120_002), true, false, false, IDLE_MS);
        assert_eq!(over, Some("its client takes responses too slowly"));

        let slow = Patience::new(START);
        slow.began_to_send(at(0));
        for minute in 1..10 {
            slow.sent(at(minute * 60_000), CONN_LEAST_BYTES as usize);
            assert_eq!(slow.is_over(at(minute * 60_001), true, false, false, IDLE_MS), None);
        }
    }

    #[test]
    fn a_silent_client_is_idle_unless_it_waits_for_an_answer() {
        let patience = Patience::new(START);
        assert_eq!(patience.is_over(at(IDLE_MS), false, false, false, IDLE_MS), None);
        assert_eq!(patience.is_over(at(IDLE_MS + 1), false, true, false, IDLE_MS), None);
        assert!(patience.is_over(at(IDLE_MS + 1), false, false, false, IDLE_MS).is_some());
        patience.sent(at(IDLE_MS), 1);
        assert_eq!(patience.is_over(at(IDLE_MS + 1), false, false, false, IDLE_MS), None);
    }
}
