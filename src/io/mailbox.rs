//! Queues between the threads of the broker: many senders, one receiver, nobody ever blocks.
//!
//! What one sender sends arrives in the order in which it was sent. A queue has no bound of its own, since a shard
//! that had to wait for another could wait for ever; its length is counted, and the sources of new work (the
//! connections) stop reading while it is above [`crate::limits::MESH_QUEUE`].

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::task::{Context, Poll, Waker};

struct Receiving {
    queued: AtomicUsize,
    /// Whether the receiver found nothing and wants to be woken.
    asleep: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

/// The sending end; each thread has a clone.
pub(super) struct Sender<T> {
    queue: mpsc::Sender<T>,
    receiving: Arc<Receiving>,
}

/// The receiving end.
pub(super) struct Receiver<T> {
    queue: mpsc::Receiver<T>,
    receiving: Arc<Receiving>,
}

/// An empty queue.
pub(super) fn mailbox<T>() -> (Sender<T>, Receiver<T>) {
    let (sender, receiver) = mpsc::channel();
    let receiving =
        Arc::new(Receiving { queued: AtomicUsize::new(0), asleep: AtomicBool::new(false), waker: Mutex::new(None) });
    (Sender { queue: sender, receiving: Arc::clone(&receiving) }, Receiver { queue: receiver, receiving })
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Sender<T> {
        Sender { queue: self.queue.clone(), receiving: Arc::clone(&self.receiving) }
    }
}

impl<T> Sender<T> {
    /// Appends a message. It is lost if the receiver is gone, which happens only when the broker ends.
    pub(super) fn send(&self, message: T) {
        self.receiving.queued.fetch_add(1, Ordering::Relaxed);
        if self.queue.send(message).is_err() {
            return;
        }
        // Pairs with the fence in `Receiver::recv_or_sleep`: either this thread sees that the receiver sleeps, or the
        // receiver sees the message.
        fence(Ordering::SeqCst);
        if self.receiving.asleep.load(Ordering::Relaxed) && self.receiving.asleep.swap(false, Ordering::Relaxed) {
            self.receiving.wake();
        }
    }

    /// Messages that were sent and not received yet.
    pub(super) fn queued(&self) -> usize {
        self.receiving.queued.load(Ordering::Relaxed)
    }
}

impl Receiving {
    fn waker(&self) -> std::sync::MutexGuard<'_, Option<Waker>> {
        self.waker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        let waker = self.waker().clone();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<T> Receiver<T> {
    /// The next message, if one is there.
    pub(super) fn try_recv(&self) -> Option<T> {
        let message = self.queue.try_recv().ok()?;
        self.receiving.queued.fetch_sub(1, Ordering::Relaxed);
        Some(message)
    }

    /// The next message; if there is none, `waker` will be woken by it.
    pub(super) fn recv_or_sleep(&self, waker: &Waker) -> Option<T> {
        if let Some(message) = self.try_recv() {
            return Some(message);
        }
        {
            let mut current = self.receiving.waker();
            if !current.as_ref().is_some_and(|current| current.will_wake(waker)) {
                *current = Some(waker.clone());
            }
        }
        self.receiving.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let message = self.try_recv();
        if message.is_some() {
            self.receiving.asleep.store(false, Ordering::Relaxed);
        }
        message
    }

    /// Ends when a message is there.
    pub(super) fn poll_recv(&self, cx: &mut Context<'_>) -> Poll<T> {
        self.recv_or_sleep(cx.waker()).map_or(Poll::Pending, Poll::Ready)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Wake;
    use std::thread::{self, Thread};

    struct Unpark(Thread);

    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    #[test]
    fn no_message_and_no_wake_up_is_lost() {
        const SENDERS: u64 = 3;
        const EACH: u64 = 20_000;
        let (sender, receiver) = mailbox();
        let threads: Vec<_> = (0..SENDERS)
            .map(|id| {
                let sender = sender.clone();
                thread::spawn(move || {
                    for n in 0..EACH {
                        sender.send((id, n));
                        if n % 64 == 0 {
                            thread::yield_now();
                        }
                    }
                })
            })
            .collect();
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        let mut next = [0; SENDERS as usize];
        while next.iter().sum::<u64>() < SENDERS * EACH {
            match receiver.recv_or_sleep(&waker) {
                Some((id, n)) => {
                    assert_eq!(n, next[id as usize], "out of order");
                    next[id as usize] += 1;
                }
                // A lost wake-up hangs here, and with it the test.
                None => thread::park(),
            }
        }
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(sender.queued(), 0);
    }
}
