//! What tasks of a core wait for.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::task::{Poll, Waker};

/// Stays raised until the task that waits for it has seen it.
#[derive(Default)]
pub struct Signal {
    raised: Cell<bool>,
    waiting: RefCell<Option<Waker>>,
}

impl Signal {
    /// Has the task go on that waits, or the next one.
    pub fn raise(&self) {
        self.raised.set(true);
        if let Some(waker) = self.waiting.borrow_mut().take() {
            waker.wake();
        }
    }

    /// Waits until it is raised. One task at a time may wait.
    pub async fn wait(&self) {
        poll_fn(|cx| {
            if self.raised.take() {
                return Poll::Ready(());
            }
            *self.waiting.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

/// Tasks that wait for the same, each for its own reason.
#[derive(Default)]
pub struct WaitList {
    waiting: RefCell<Vec<Waker>>,
}

impl WaitList {
    /// Waits until it is so. It is looked at again whenever [`WaitList::wake`] is called.
    pub async fn until(&self, is_so: impl Fn() -> bool) {
        poll_fn(|cx| {
            if is_so() {
                return Poll::Ready(());
            }
            let mut waiting = self.waiting.borrow_mut();
            if !waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
                waiting.push(cx.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }

    /// Has all who wait look again.
    pub fn wake(&self) {
        self.waiting.take().into_iter().for_each(Waker::wake);
    }
}
