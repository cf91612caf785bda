//! Messages of one connection that wait to be handled.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use super::signal::WaitList;

/// Most messages, and most bytes of them, that wait. Beyond either the socket is not read:
/// the kernel holds the sender back. One message more may always come.
const MAX_MESSAGES: usize = 256;
const MAX_BYTES: usize = 4 << 20;

/// Most bytes that a core has of messages that came and were not handled, whole or in part, over all
/// its connections; and what each connection may have in any case. Together the connections could
/// otherwise take their number times the largest message.
pub const MAX_INBOUND: usize = 64 << 20;
const FAIR: usize = 64 << 10;

/// Bytes that came to a core and were not handled.
#[derive(Default)]
pub struct Inbound(Cell<usize>);

impl Inbound {
    fn change(&self, from: usize, to: usize) {
        self.0.set(self.0.get() - from + to);
    }
}

/// The queue between whoever reads a socket and the task that handles its messages.
pub struct Inbox {
    core: Rc<Inbound>,
    messages: RefCell<VecDeque<String>>,
    bytes: Cell<usize>,
    /// Bytes of a message that is not whole yet.
    partial: Cell<usize>,
    /// Nobody handles messages any more.
    stopped: Cell<bool>,
    room: WaitList,
}

impl Inbox {
    /// An empty one, of a connection of a core.
    pub fn new(core: Rc<Inbound>) -> Rc<Inbox> {
        Rc::new(Inbox {
            core,
            messages: RefCell::default(),
            bytes: Cell::new(0),
            partial: Cell::new(0),
            stopped: Cell::new(false),
            room: WaitList::default(),
        })
    }

    /// So many bytes of the next message are there.
    pub fn set_partial(&self, bytes: usize) {
        self.core.change(self.partial.replace(bytes), bytes);
    }

    /// Whether the core has too much of what clients send, and this one is among those with most.
    pub fn is_too_much(&self) -> bool {
        self.core.0.get() > MAX_INBOUND && self.bytes.get() + self.partial.get() > FAIR
    }

    /// Bytes of messages that came and were not handled, whole or in part.
    pub fn bytes(&self) -> usize {
        self.bytes.get() + self.partial.get()
    }

    fn set_bytes(&self, bytes: usize) {
        self.core.change(self.bytes.replace(bytes), bytes);
    }

    /// Waits until a message may be added.
    pub async fn until_room(&self) {
        let is_full = || self.messages.borrow().len() >= MAX_MESSAGES || self.bytes.get() >= MAX_BYTES;
        self.room.until(|| !is_full() || self.stopped.get()).await;
    }

    /// Adds a message.
    pub fn push(&self, message: String) {
        if !self.stopped.get() {
            self.set_bytes(self.bytes.get() + message.len());
            self.messages.borrow_mut().push_back(message);
        }
    }

    /// Takes the next message, if there is one.
    pub fn pop(&self) -> Option<String> {
        let message = self.messages.borrow_mut().pop_front()?;
        self.set_bytes(self.bytes.get() - message.len());
        self.room.wake();
        Some(message)
    }

    /// Whether no message waits.
    pub fn is_empty(&self) -> bool {
        self.messages.borrow().is_empty()
    }

    /// No message is handled any more: those that wait go, and so does whatever comes.
    pub fn stop(&self) {
        self.stopped.set(true);
        self.messages.borrow_mut().clear();
        self.set_bytes(0);
        self.room.wake();
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.set_partial(0);
        self.set_bytes(0);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::task::{Context, Wake, Waker};

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
        let inbox = Inbox::new(Rc::default());
        for n in 0..MAX_MESSAGES {
            assert!(has_room(&inbox));
            inbox.push(n.to_string());
        }
        assert!(!has_room(&inbox));
        assert_eq!(inbox.pop().as_deref(), Some("0"));
        assert!(has_room(&inbox));
        while inbox.pop().as_deref() != Some("255") {}
        inbox.push("x".repeat(MAX_BYTES));
        assert!(!has_room(&inbox));
        inbox.stop();
        inbox.push("too late".to_owned());
        assert!(has_room(&inbox) && inbox.is_empty() && inbox.bytes() == 0, "it is in nobody's way");
    }

    #[test]
    fn whoever_waits_for_room_goes_on_when_a_message_is_taken() {
        let inbox = Inbox::new(Rc::default());
        inbox.push("x".repeat(MAX_BYTES));
        let mut waiting = Box::pin(inbox.until_room());
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(woken.clone());
        assert!(waiting.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        assert!(inbox.pop().is_some());
        assert!(woken.0.load(Ordering::Relaxed), "the socket is not read any more");
        assert!(waiting.as_mut().poll(&mut Context::from_waker(&waker)).is_ready());
    }

    #[derive(Default)]
    struct Woken(AtomicBool);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    #[test]
    fn of_a_core_with_too_much_only_those_with_more_than_their_share_go() {
        let core = Rc::new(Inbound::default());
        let (large, small) = (Inbox::new(core.clone()), Inbox::new(core.clone()));
        large.set_partial(MAX_INBOUND);
        small.push("x".repeat(FAIR));
        assert!(large.is_too_much() && !small.is_too_much());
        small.push("x".to_owned());
        assert!(small.is_too_much());
        large.set_partial(0);
        assert!(!small.is_too_much());
        drop((large, small));
        assert_eq!(core.0.get(), 0);
    }
}
