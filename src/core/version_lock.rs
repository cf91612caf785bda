//! Who may rely on a core's version.
//!
//! A batch moves every view of a core from one version to the next, in slices. What depends on the version, or on the
//! live reader being at it, must not happen in between: the work of groups, the beginning and the joining of a
//! hydration, the filling of a record log. Whoever holds this lock is alone with the version. Those who wait get it in
//! the order in which they asked.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

/// The lock of one core.
#[derive(Default)]
pub struct VersionLock {
    held: Cell<bool>,
    /// Tickets of those who wait, in order.
    waiting: RefCell<VecDeque<(u64, Waker)>>,
    next: Cell<u64>,
}

/// The lock, held.
pub struct Held<'l>(&'l VersionLock);

impl VersionLock {
    /// Waits for the lock.
    pub fn lock(&self) -> Locking<'_> {
        Locking { lock: self, ticket: None }
    }

    /// Whether somebody has it.
    pub fn is_held(&self) -> bool {
        self.held.get()
    }

    /// Takes it if nobody has it or waits for it.
    pub fn try_lock(&self) -> Option<Held<'_>> {
        let is_free = !self.held.get() && self.waiting.borrow().is_empty();
        is_free.then(|| self.take())
    }

    fn take(&self) -> Held<'_> {
        self.held.set(true);
        Held(self)
    }

    fn wake_first(&self) {
        if let Some((_, waker)) = self.waiting.borrow().front().filter(|_| !self.held.get()) {
            waker.wake_by_ref();
        }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.held.set(false);
        self.0.wake_first();
    }
}

/// Waits for a lock.
pub struct Locking<'l> {
    lock: &'l VersionLock,
    ticket: Option<u64>,
}

impl<'l> Future for Locking<'l> {
    type Output = Held<'l>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Held<'l>> {
        let lock = self.lock;
        let mut waiting = lock.waiting.borrow_mut();
        let is_first = waiting.front().is_none_or(|(first, _)| Some(*first) == self.ticket);
        if !lock.held.get() && is_first {
            if self.ticket.take().is_some() {
                waiting.pop_front();
            }
            return Poll::Ready(lock.take());
        }
        match self.ticket {
            Some(ticket) => {
                if let Some(place) = waiting.iter_mut().find(|(waits, _)| *waits == ticket) {
                    place.1.clone_from(cx.waker());
                }
            }
            None => {
                let ticket = lock.next.replace(lock.next.get() + 1);
                waiting.push_back((ticket, cx.waker().clone()));
                self.ticket = Some(ticket);
            }
        }
        Poll::Pending
    }
}

impl Drop for Locking<'_> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            self.lock.waiting.borrow_mut().retain(|(waits, _)| *waits != ticket);
            self.lock.wake_first();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_lite::future::{block_on, poll_once};

    use super::*;

    #[test]
    fn those_who_wait_get_it_in_order_and_those_who_gave_up_are_passed() {
        block_on(async {
            let lock = VersionLock::default();
            let held = lock.lock().await;
            let (mut first, mut second, mut third) = (lock.lock(), lock.lock(), lock.lock());
            for waiting in [&mut first, &mut second, &mut third] {
                assert!(poll_once(waiting).await.is_none());
            }
            assert!(lock.try_lock().is_none());
            drop(held);
            assert!(lock.try_lock().is_none(), "somebody has waited for longer");
            drop(first);
            assert!(poll_once(&mut third).await.is_none());
            let held = poll_once(&mut second).await.unwrap();
            assert!(poll_once(&mut third).await.is_none());
            drop(held);
            drop(poll_once(&mut third).await.unwrap());
            assert!(lock.try_lock().is_some() && !lock.is_held());
        });
    }
}
