//! Says to one waiter, on whatever thread, that there is something new.
//!
//! A channel with one place says the same, but wakes while it holds the lock of its list of waiters: a
//! waiter on another processor runs at once, wants that lock, and goes back to sleep. Here nothing is held.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;

/// A notifier and its waiter.
pub fn notify() -> (Notifier, Notified) {
    let shared = Arc::new(Shared::default());
    (Notifier { last: Arc::new(Last(shared.clone())) }, Notified { shared })
}

#[derive(Default)]
struct Shared {
    /// Something is new since the last wait ended.
    new: AtomicBool,
    /// Nothing will be any more.
    closed: AtomicBool,
    waiter: AtomicWaker,
}

/// Dropped with the last notifier.
struct Last(Arc<Shared>);

impl Drop for Last {
    fn drop(&mut self) {
        self.0.closed.store(true, Ordering::Release);
        self.0.waiter.wake();
    }
}

/// Notifies. When the last clone is dropped, waiting ends.
#[derive(Clone)]
pub struct Notifier {
    last: Arc<Last>,
}

impl Notifier {
    /// Ends the wait, or else the next one. Calls between two waits are one.
    pub fn notify(&self) {
        let shared = &self.last.0;
        if !shared.new.swap(true, Ordering::AcqRel) {
            shared.waiter.wake();
        }
    }
}

/// Waits.
pub struct Notified {
    shared: Arc<Shared>,
}

impl Notified {
    /// Waits until there was a notification since the last wait ended; `false`: none will come any more.
    /// One task at a time may wait. A wait that is dropped takes no notification with it.
    pub async fn wait(&self) -> bool {
        poll_fn(|cx| self.poll(cx)).await
    }

    fn poll(&self, cx: &mut Context<'_>) -> Poll<bool> {
        let shared = &*self.shared;
        if shared.new.swap(false, Ordering::AcqRel) {
            return Poll::Ready(true);
        }
        shared.waiter.register(cx.waker());
        // What came before it was registered woke nobody.
        if shared.new.swap(false, Ordering::AcqRel) {
            return Poll::Ready(true);
        }
        if !shared.closed.load(Ordering::Acquire) {
            return Poll::Pending;
        }
        // The last notification and the end may both have come in between.
        Poll::Ready(shared.new.swap(false, Ordering::AcqRel))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use futures_lite::future::{block_on, poll_once};

    use super::*;

    #[test]
    fn nothing_is_missed_by_a_waiter_on_another_thread() {
        let (notifier, notified) = notify();
        let made = Arc::new(AtomicU64::new(0));
        let seen = made.clone();
        let waiter = std::thread::spawn(move || {
            block_on(async {
                while notified.wait().await {}
                seen.load(Ordering::Acquire)
            })
        });
        for _ in 0..100_000 {
            made.fetch_add(1, Ordering::Release);
            notifier.notify();
        }
        drop(notifier);
        assert_eq!(waiter.join().unwrap(), 100_000);
    }

    #[test]
    fn each_notification_wakes_a_waiter_that_has_gone_to_sleep() {
        let ((there, heard), (back, answered)) = (notify(), notify());
        let echo = std::thread::spawn(move || {
            block_on(async {
                while heard.wait().await {
                    back.notify();
                }
            })
        });
        block_on(async {
            for _ in 0..20_000 {
                there.notify();
                assert!(answered.wait().await);
            }
        });
        drop(there);
        echo.join().unwrap();
    }

    #[test]
    fn several_notifications_are_one_and_a_dropped_wait_loses_none() {
        block_on(async {
            let (notifier, notified) = notify();
            assert_eq!(poll_once(notified.wait()).await, None);
            notifier.notify();
            notifier.clone().notify();
            assert!(notified.wait().await);
            assert_eq!(poll_once(notified.wait()).await, None);
            notifier.notify();
            drop(notifier);
            assert!(notified.wait().await, "the last one counts");
            assert!(!notified.wait().await);
        });
    }
}
