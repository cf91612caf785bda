//! The open connections of a core.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use super::outbox::Outbox;
use super::send_buffer::SendBuffer;
use crate::groups::sink::Sink;
use crate::model::ids::ConnectionId;
use crate::protocol::error::ProtocolError;

/// A client of a group, whatever connection it has.
pub type Tab = (String, String);

/// What becomes of a tab that another connection may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// It had none.
    First,
    /// It had this one, which is to be closed.
    From(ConnectionId),
    /// It has a newer one: this one was only longer about its token.
    ByAnother,
}

/// Connections that were told `connected` and have not ended.
pub struct Connections {
    /// Collects what goes out to their sockets.
    pub send_buffer: Rc<SendBuffer>,
    open: RefCell<BTreeMap<ConnectionId, Rc<Outbox>>>,
    /// The newest connection of each tab, by group and client.
    tabs: RefCell<BTreeMap<Tab, ConnectionId>>,
}

impl Connections {
    /// None yet.
    pub fn new(send_buffer: Rc<SendBuffer>) -> Connections {
        Connections { send_buffer, open: RefCell::default(), tabs: RefCell::default() }
    }

    /// A connection is open.
    pub fn insert(&self, id: ConnectionId, outbox: Rc<Outbox>) {
        self.open.borrow_mut().insert(id, outbox);
    }

    /// The way out of a connection that is open.
    pub fn get(&self, id: ConnectionId) -> Option<Rc<Outbox>> {
        self.open.borrow().get(&id).cloned()
    }

    /// A connection is over.
    pub fn remove(&self, id: ConnectionId) -> Option<Rc<Outbox>> {
        self.open.borrow_mut().remove(&id)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.open.borrow().len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.open.borrow().is_empty()
    }

    /// All of them.
    pub fn all(&self) -> Vec<Rc<Outbox>> {
        self.open.borrow().values().cloned().collect()
    }

    /// Tells every client an error, and closes.
    pub fn fail_all(&self, error: &ProtocolError) {
        // Not while it is borrowed: whoever hears of an end may come back here.
        self.all().iter().for_each(|outbox| outbox.fail(error));
    }

    /// A connection of a tab was let in.
    pub fn take_over(&self, tab: Tab, id: ConnectionId) -> Taken {
        let mut tabs = self.tabs.borrow_mut();
        if tabs.get(&tab).is_some_and(|newest| *newest > id) {
            return Taken::ByAnother;
        }
        tabs.insert(tab, id).map_or(Taken::First, Taken::From)
    }

    /// A connection of a tab is over.
    pub fn leave(&self, tab: &Tab, id: ConnectionId) {
        let mut tabs = self.tabs.borrow_mut();
        if tabs.get(tab) == Some(&id) {
            tabs.remove(tab);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::limits::OutboxLimits;
    use crate::core::socket::{Sending, Sockets};

    struct NoSockets;

    impl Sockets for NoSockets {
        fn now(&self) -> f64 {
            0.0
        }

        fn sends_together(&self) -> bool {
            false
        }

        fn send_together(&self, _: &mut [Sending<'_>]) {}
    }

    #[test]
    fn a_connection_that_was_longer_about_its_token_takes_nothing_from_a_newer_one() {
        let buffer = SendBuffer::new(Rc::new(NoSockets), OutboxLimits::default());
        let (connections, tab) = (Connections::new(Rc::new(buffer)), ("g".to_owned(), "c".to_owned()));
        let take = |id| connections.take_over(tab.clone(), ConnectionId(id));
        let taken = [take(2), take(1), take(3)];
        assert_eq!(taken, [Taken::First, Taken::ByAnother, Taken::From(ConnectionId(2))]);
        // The one that was closed leaves the newer one alone.
        connections.leave(&tab, ConnectionId(2));
        assert_eq!(take(4), Taken::From(ConnectionId(3)));
        connections.leave(&tab, ConnectionId(4));
        assert_eq!(take(5), Taken::First);
    }
}
