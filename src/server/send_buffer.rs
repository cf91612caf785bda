//! What a core has to send is collected while it tells its groups of a batch, and goes out in
//! few system calls: a slice of work ends with one for all sockets. And it is held while what it
//! stands for is not recorded yet.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use kelvin_io::sends::Sends;

use super::outbox::Outbox;

/// Bytes of one poke up to which it is collected. What is larger costs its copy anyway.
pub const MAX_COLLECTED: usize = 32 << 10;

/// Bytes that may wait before a connection counts as behind. Live pokes are small; this is several
/// seconds of a busy view.
const BEHIND: usize = 1 << 20;

/// The same while memory is tight: many slow sockets must not be what fills it.
const BEHIND_TIGHT: usize = 64 << 10;

/// Sockets of a core that something waits for.
pub struct SendBuffer {
    closed: Cell<bool>,
    waiting: RefCell<Vec<Rc<Outbox>>>,
    /// What is sent has to wait for a record.
    held: Cell<bool>,
    /// Memory is tight: less may wait for a socket.
    tight: Cell<bool>,
    holding: RefCell<Vec<Rc<Outbox>>>,
    /// `None`: the kernel has no such thing, or it failed; each socket is then written by itself.
    ring: RefCell<Option<Sends>>,
}

impl SendBuffer {
    /// Open: nothing is collected.
    pub fn new() -> SendBuffer {
        let ring = RefCell::new(Sends::new().ok());
        SendBuffer {
            closed: Cell::new(false),
            waiting: RefCell::default(),
            held: Cell::new(false),
            tight: Cell::new(false),
            holding: RefCell::default(),
            ring,
        }
    }

    /// Whether memory is tight.
    pub fn set_tight(&self, tight: bool) {
        self.tight.set(tight);
    }

    /// Bytes that may wait for one socket before its connection counts as behind.
    pub fn behind(&self) -> usize {
        if self.tight.get() { BEHIND_TIGHT } else { BEHIND }
    }

    /// From now on what is sent is held.
    pub fn hold(&self) {
        self.held.set(true);
    }

    /// Whether it is.
    pub fn is_held(&self) -> bool {
        self.held.get()
    }

    /// A socket that something is held for, the first time.
    pub fn push_held(&self, outbox: Rc<Outbox>) {
        self.holding.borrow_mut().push(outbox);
    }

    /// What is held now may go with the next [`SendBuffer::release_marked`].
    pub fn mark(&self) {
        self.holding.borrow().iter().for_each(|outbox| outbox.mark_held());
    }

    /// Lets what was marked go. `all`: nothing is waited for any more, all of it may go.
    pub fn release_marked(&self, all: bool) {
        if all {
            self.mark();
            self.held.set(false);
        }
        let holding = std::mem::take(&mut *self.holding.borrow_mut());
        if holding.is_empty() {
            return;
        }
        let was_closed = self.is_closed();
        self.close();
        let rest = holding.into_iter().filter(|outbox| outbox.release_marked());
        let rest: Vec<Rc<Outbox>> = rest.collect();
        self.holding.borrow_mut().extend(rest);
        if !was_closed {
            self.open();
        }
    }

    /// Drops what is held: it will not be recorded.
    pub fn drop_held(&self) {
        self.holding.borrow_mut().drain(..).for_each(|outbox| outbox.drop_held());
    }

    /// From now on small pokes are collected, until [`SendBuffer::open`].
    pub fn close(&self) {
        self.closed.set(self.ring.borrow().is_some());
    }

    /// Whether they are.
    pub fn is_closed(&self) -> bool {
        self.closed.get()
    }

    /// A socket that something waits for since it was closed.
    pub fn push(&self, outbox: Rc<Outbox>) {
        self.waiting.borrow_mut().push(outbox);
    }

    /// Sockets that something was collected for, or is held for: each costs a send.
    pub fn collected(&self) -> usize {
        self.waiting.borrow().len() + self.holding.borrow().len()
    }

    /// Sends what was collected.
    pub fn open(&self) {
        self.closed.set(false);
        let waiting = std::mem::take(&mut *self.waiting.borrow_mut());
        if waiting.is_empty() {
            return;
        }
        let mut ring = self.ring.borrow_mut();
        let result = ring.as_mut().map_or(Ok(()), |ring| Outbox::send_all(&waiting, ring));
        if let Err(error) = result {
            crate::warn!("sends are no longer collected: {error}");
            *ring = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use futures_lite::AsyncReadExt;
    use kelvin_io::executor::{start, timeout};
    use kelvin_io::socket::{Listener, TcpStream};

    use super::*;
    use crate::observe::metrics::Metrics;
    use crate::protocol::websocket::text_frame;

    /// What has come by now.
    async fn come(client: &mut TcpStream) -> Vec<u8> {
        let mut chunk = [0; 100];
        let read = timeout(Duration::from_millis(50), client.read(&mut chunk)).await;
        chunk[..read.map_or(0, |count| count.expect("it is open"))].to_vec()
    }

    #[test]
    fn what_is_told_while_a_record_is_written_goes_with_the_next_one() {
        let executor = start("test", None, || async {
            let send_buffer = Rc::new(SendBuffer::new());
            let listener = Listener::bind(0).expect("a port");
            let port = listener.local_addr().expect("an address").port();
            let mut client = TcpStream::connect("127.0.0.1", port).await.expect("connected");
            let writer = listener.accept().await.expect("accepted").split().1;
            let outbox = Outbox::new(writer, 51, Arc::new(Metrics::new(0)), send_buffer.clone());
            send_buffer.hold();
            outbox.message(b"first");
            send_buffer.mark();
            outbox.message(b"second");
            let before = come(&mut client).await;
            send_buffer.release_marked(false);
            let first = come(&mut client).await;
            send_buffer.release_marked(true);
            [before, first, come(&mut client).await]
        });
        let frames = [Vec::new(), text_frame(b"first").to_vec(), text_frame(b"second").to_vec()];
        assert_eq!(executor.unwrap().join().unwrap(), frames);
    }
}
