//! What clients share that ask for one change after the other, of any broker, while everything else goes on.

use super::{Context, Link};

/// So many changes, with pauses between them.
pub(super) struct Errand<P> {
    pub(super) link: Link<P>,
    pub(super) left: u64,
    next_at: u64,
    pub(super) settling: bool,
}

impl<P> Errand<P> {
    pub(super) fn new(left: u64) -> Errand<P> {
        Errand { link: Link::roaming(), left, next_at: 0, settling: false }
    }

    /// Whether the next change is to be asked for now.
    pub(super) fn is_due(&mut self, cx: &mut Context<'_>) -> bool {
        self.link.give_up(cx, false);
        if self.settling || self.left == 0 {
            return false;
        }
        cx.wake_in(50_000);
        cx.now >= self.next_at && self.link.is_up(cx) && self.link.pending.is_empty()
    }

    /// One is asked for; the next one at most so many microseconds later.
    pub(super) fn take_one(&mut self, cx: &mut Context<'_>, most: u64) {
        self.left -= 1;
        self.next_at = cx.now + cx.rng.between(50_000, most);
    }

    pub(super) fn closed(&mut self, cx: &mut Context<'_>) {
        self.link.closed();
        cx.wake_in(10_000);
    }
}
