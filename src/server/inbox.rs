//! Messages of one connection that wait to be handled.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Poll, Waker};

use futures_lite::future::poll_fn;

/// Most messages, and most bytes of them, that wait. Beyond either the socket is not read:
/// the kernel holds the sender back. One message more may always come.
const MAX_MESSAGES: usize = 256;
const MAX_BYTES: usize = 4 << 20;

/// The queue between the task that reads a socket and the one that handles its messages.
#[derive(Default)]
pub struct Inbox {
    messages: RefCell<VecDeque<String>>,
    bytes: Cell<usize>,
    closed: Cell<bool>,
    sender: RefCell<Option<Waker>>,
    receiver: RefCell<Option<Waker>>,
}

fn wake(waker: &RefCell<Option<Waker>>) {
    if let Some(waker) = waker.borrow_mut().take() {
        waker.wake();
    }
}

impl Inbox {
    /// An empty one.
    pub fn new() -> Rc<Inbox> {
        Rc::default()
    }

    /// Waits until a message may be added.
    pub async fn until_room(&self) {
        poll_fn(|cx| {
            let full = self.messages.borrow().len() >= MAX_MESSAGES || self.bytes.get() >= MAX_BYTES;
            if !full || self.closed.get() {
                return Poll::Ready(());
            }
            *self.sender.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Adds a message.
    pub fn push(&self, message: String) {
        self.bytes.set(self.bytes.get() + message.len());
        self.messages.borrow_mut().push_back(message);
        wake(&self.receiver);
    }

    /// Waits for the next message; `None` when the connection is over.
    pub async fn next(&self) -> Option<String> {
        poll_fn(|cx| {
            if let Some(message) = self.messages.borrow_mut().pop_front() {
                self.bytes.set(self.bytes.get() - message.len());
                wake(&self.sender);
                return Poll::Ready(Some(message));
            }
            if self.closed.get() {
                return Poll::Ready(None);
            }
            *self.receiver.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// Nobody handles messages any more.
    pub fn close(&self) {
        self.closed.set(true);
        wake(&self.sender);
        wake(&self.receiver);
    }
}

#[cfg(test)]
mod tests {
    use futures_lite::future::{block_on, or};

    use super::*;

    /// Whether there is room, asked once.
    fn has_room(inbox: &Inbox) -> bool {
        block_on(or(
            async {
                inbox.until_room().await;
                true
            },
            async { false },
        ))
    }

    #[test]
    fn it_is_full_by_number_or_by_size_and_empties_in_order() {
        let inbox = Inbox::new();
        for n in 0..MAX_MESSAGES {
            assert!(has_room(&inbox));
            inbox.push(n.to_string());
        }
        assert!(!has_room(&inbox));
        assert_eq!(block_on(inbox.next()).as_deref(), Some("0"));
        assert!(has_room(&inbox));
        while block_on(inbox.next()).as_deref() != Some("255") {}
        inbox.push("x".repeat(MAX_BYTES));
        assert!(!has_room(&inbox));
        inbox.close();
        assert!(block_on(inbox.next()).is_some());
        assert!(block_on(inbox.next()).is_none());
    }
}
