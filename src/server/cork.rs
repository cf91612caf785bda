//! What a core has to send is collected while it tells its groups of a batch, and goes out in
//! few system calls: a slice of work ends with one for all sockets.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use kelvin_io::sends::Sends;

use super::outbox::Outbox;

/// Bytes of one poke up to which it is collected. What is larger costs its copy anyway.
pub const MAX_COLLECTED: usize = 32 << 10;

/// Sockets of a core that something waits for.
pub struct Cork {
    closed: Cell<bool>,
    waiting: RefCell<Vec<Rc<Outbox>>>,
    /// `None`: the kernel has no such thing, or it failed; each socket is then written by itself.
    ring: RefCell<Option<Sends>>,
}

impl Cork {
    /// Open: nothing is collected.
    pub fn new() -> Cork {
        let ring = RefCell::new(Sends::new().ok());
        Cork { closed: Cell::new(false), waiting: RefCell::default(), ring }
    }

    /// From now on small pokes are collected, until [`Cork::open`].
    pub fn close(&self) {
        self.closed.set(self.ring.borrow().is_some());
    }

    /// Whether they are.
    pub fn is_closed(&self) -> bool {
        self.closed.get()
    }

    /// A socket that something waits for since the cork was closed.
    pub fn push(&self, outbox: Rc<Outbox>) {
        self.waiting.borrow_mut().push(outbox);
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
