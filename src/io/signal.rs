//! Waiting within one executor.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::task::{Context, Poll, Waker};

/// Tells one task that something has changed. Setting it before the task waits is not lost.
#[derive(Default)]
pub(super) struct Signal {
    set: Cell<bool>,
    waiting: RefCell<Option<Waker>>,
}

impl Signal {
    /// Wakes the task that waits, or lets the next wait end at once.
    pub(super) fn set(&self) {
        if !self.set.replace(true)
            && let Some(waker) = self.waiting.take()
        {
            waker.wake();
        }
    }

    /// Ends when the signal is set, and takes it back.
    pub(super) fn poll(&self, cx: &Context<'_>) -> Poll<()> {
        if self.set.take() {
            return Poll::Ready(());
        }
        *self.waiting.borrow_mut() = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Waits until `condition` holds; it is asked again each time the signal is set.
    pub(super) async fn until(&self, condition: impl Fn() -> bool) {
        while !condition() {
            poll_fn(|cx| self.poll(cx)).await;
        }
    }
}

/// Lets the tasks run that are waiting for the executor.
pub(super) async fn yield_now() {
    let mut yielded = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
