//! What a core has to send is collected while it tells its groups of a batch, and goes out in
//! few system calls: a slice of work ends with one for all sockets. And it is held while what it
//! stands for is not recorded yet.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::limits::OutboxLimits;
use super::outbox::Outbox;
use super::socket::Sockets;
use crate::model::ids::ConnectionId;
use crate::testing::met::{Limit, met};

/// Sockets of a core that something waits for.
pub struct SendBuffer {
    sockets: Rc<dyn Sockets>,
    limits: Cell<OutboxLimits>,
    closed: Cell<bool>,
    waiting: RefCell<Vec<Rc<Outbox>>>,
    /// What is sent has to wait for a record.
    held: Cell<bool>,
    /// Memory is tight: less may wait for a socket.
    tight: Cell<bool>,
    holding: RefCell<Vec<Rc<Outbox>>>,
    /// Connections that were behind, and are no longer.
    drained: RefCell<Vec<ConnectionId>>,
}

impl SendBuffer {
    /// Open: nothing is collected.
    pub fn new(sockets: Rc<dyn Sockets>, limits: OutboxLimits) -> SendBuffer {
        SendBuffer {
            sockets,
            limits: Cell::new(limits),
            closed: Cell::new(false),
            waiting: RefCell::default(),
            held: Cell::new(false),
            tight: Cell::new(false),
            holding: RefCell::default(),
            drained: RefCell::default(),
        }
    }

    /// Milliseconds since the core began.
    pub fn now(&self) -> f64 {
        self.sockets.now()
    }

    /// Other limits, from now on.
    pub(super) fn limit(&self, limits: OutboxLimits) {
        self.limits.set(limits);
    }

    /// A connection was behind, and is no longer.
    pub(super) fn has_drained(&self, id: ConnectionId) {
        self.drained.borrow_mut().push(id);
    }

    /// Those that have drained since the last call.
    pub(super) fn take_drained(&self) -> Vec<ConnectionId> {
        self.drained.take()
    }

    /// Whether memory is tight.
    pub fn set_tight(&self, tight: bool) {
        self.tight.set(tight);
    }

    /// Bytes that may wait for one socket before its connection counts as behind.
    pub fn behind(&self) -> usize {
        let limits = self.limits.get();
        if self.tight.get() { limits.tight_bytes } else { limits.bytes }
    }

    /// From now on what is sent is held.
    pub(super) fn hold(&self) {
        self.held.set(true);
    }

    /// Whether it is.
    pub(super) fn is_held(&self) -> bool {
        self.held.get()
    }

    /// A socket that something is held for, the first time.
    pub(super) fn push_held(&self, outbox: Rc<Outbox>) {
        self.holding.borrow_mut().push(outbox);
    }

    /// What is held now may go with the next [`SendBuffer::release_marked`].
    pub(super) fn mark(&self) {
        self.holding.borrow().iter().for_each(|outbox| outbox.mark_held());
    }

    /// Lets what was marked go. `all`: nothing is waited for any more, all of it may go.
    pub(super) fn release_marked(&self, all: bool) {
        if all {
            self.mark();
            self.held.set(false);
        }
        let holding = std::mem::take(&mut *self.holding.borrow_mut());
        if holding.is_empty() {
            return;
        }
        let was_closed = self.closed.get();
        self.close();
        let rest = holding.into_iter().filter(|outbox| outbox.release_marked());
        let rest: Vec<Rc<Outbox>> = rest.collect();
        self.holding.borrow_mut().extend(rest);
        if !was_closed {
            self.open();
        }
    }

    /// Drops what is held: it will not be recorded.
    pub(super) fn drop_held(&self) {
        self.holding.borrow_mut().drain(..).for_each(|outbox| outbox.drop_held());
    }

    /// From now on small pokes are collected, until [`SendBuffer::open`].
    pub(super) fn close(&self) {
        self.closed.set(self.sockets.sends_together());
    }

    /// Whether a poke of so many bytes is collected.
    pub(super) fn collects(&self, bytes: usize) -> bool {
        self.closed.get() && bytes <= self.limits.get().collected_bytes
    }

    /// A socket that something waits for since it was closed.
    pub(super) fn push(&self, outbox: Rc<Outbox>) {
        self.waiting.borrow_mut().push(outbox);
    }

    /// Sockets that something was collected for, or is held for: each costs a send.
    pub(super) fn collected(&self) -> usize {
        self.waiting.borrow().len() + self.holding.borrow().len()
    }

    /// Whether so much more than `before` was collected that the slice of work has to end.
    pub(super) fn is_full(&self, before: usize) -> bool {
        let is_full = self.collected() >= before + self.limits.get().sends;
        if is_full {
            met(Limit::Sends);
        }
        is_full
    }

    /// Sends what was collected.
    pub(super) fn open(&self) {
        self.closed.set(false);
        let waiting = std::mem::take(&mut *self.waiting.borrow_mut());
        if !waiting.is_empty() {
            Outbox::send_all(&waiting, &*self.sockets);
        }
    }
}
