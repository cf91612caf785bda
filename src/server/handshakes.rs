//! Connections whose request is being read, or that have another before them on a page's connection.
//!
//! A peer that says nothing may be slow, or a load balancer that keeps a connection for its next
//! question, so it has long. But a thousand of them must not keep out those who have something to
//! say: when there are too many, those that came first go.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use kelvin_io::channel::{Receiver, Sender, bounded};

/// Most at a time. Each may have as much memory as a request's head.
pub const MAX_HANDSHAKES: usize = 1_024;

/// Milliseconds that a connection has in any case: a request that was sent at once has come by then.
const GRACE: f64 = 1_000.0;

/// So many are told to go at a time, so that others need not wait for each of them.
pub const AT_A_TIME: usize = 32;

/// Those of one core.
#[derive(Default)]
pub struct Handshakes {
    next: Cell<u64>,
    /// In the order in which they came: since when each is here, and how it is told to go.
    open: RefCell<BTreeMap<u64, (f64, Sender<()>)>>,
}

impl Handshakes {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.open.borrow().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.open.borrow().is_empty()
    }

    /// Counts one more. `now`: milliseconds.
    pub fn begin(self: &Rc<Self>, now: f64) -> Handshake {
        let number = self.next.replace(self.next.get() + 1);
        let (sender, told) = bounded(1);
        self.open.borrow_mut().insert(number, (now, sender));
        Handshake { all: self.clone(), number, told }
    }

    /// Whether one more may come. If not, the oldest ones are told to go, if they have been here for long enough.
    pub fn make_room(&self, now: f64) -> bool {
        let open = self.open.borrow();
        if open.len() < MAX_HANDSHAKES {
            return true;
        }
        // Those who were told go as soon as they are let: others need not, however long that takes.
        if open.values().take(AT_A_TIME).any(|(_, sender)| sender.is_closed()) {
            return false;
        }
        let oldest = open.values().take(AT_A_TIME);
        oldest.take_while(|(since, _)| now - since >= GRACE).for_each(|(_, sender)| {
            sender.close();
        });
        false
    }
}

/// One of them, for as long as it lives.
pub struct Handshake {
    all: Rc<Handshakes>,
    number: u64,
    told: Receiver<()>,
}

impl Handshake {
    /// Waits until it is told to go.
    pub async fn is_told(&self) {
        let _ = self.told.recv().await;
    }
}

impl Drop for Handshake {
    fn drop(&mut self) {
        self.all.open.borrow_mut().remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn while_those_that_were_told_are_on_their_way_nobody_else_has_to_go() {
        let all = Rc::new(Handshakes::default());
        let mut open: Vec<Handshake> = (0..MAX_HANDSHAKES).map(|_| all.begin(0.0)).collect();
        let told = |open: &[Handshake]| open.iter().filter(|h| h.told.is_closed()).count();
        for _ in 0..10 {
            assert!(!all.make_room(GRACE));
            assert_eq!(told(&open), AT_A_TIME);
        }
        // Some of them have gone.
        open.drain(..AT_A_TIME - 1);
        assert!(all.make_room(GRACE));
        open.extend((0..AT_A_TIME - 1).map(|_| all.begin(GRACE)));
        assert!(!all.make_room(GRACE));
        assert_eq!(told(&open), 1, "one is still on its way");
        open.remove(0);
        open.push(all.begin(GRACE));
        assert!(!all.make_room(GRACE));
        assert_eq!(told(&open), AT_A_TIME);
    }

    #[test]
    fn those_that_came_first_make_room() {
        let all = Rc::new(Handshakes::default());
        let mut open: Vec<Handshake> = (0..MAX_HANDSHAKES).map(|n| all.begin(n as f64)).collect();
        assert!(!all.make_room(GRACE - 1.0), "all of them have just come");
        let told = |open: &[Handshake]| open.iter().filter(|h| h.told.is_closed()).count();
        assert_eq!(told(&open), 0);
        assert!(!all.make_room(GRACE) && !all.make_room(GRACE));
        assert!(
            open[0].told.is_closed() && told(&open) == 1,
            "one at a time, and the next after it had its time"
        );
        open.remove(0);
        assert!(all.make_room(GRACE));
        open.push(all.begin(GRACE));
        drop(open);
        assert!(all.is_empty());
    }
}
