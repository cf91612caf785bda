//! What waits for the app, by client group: one task at a time brings the queue of a group to the app.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

/// Queues that are not empty, or whose last entry is on its way.
pub struct Queues<Q> {
    by_group: RefCell<BTreeMap<Rc<str>, Q>>,
}

impl<Q> Default for Queues<Q> {
    fn default() -> Queues<Q> {
        Queues { by_group: RefCell::default() }
    }
}

impl<Q: Default> Queues<Q> {
    /// Adds to the queue of a group. True: nobody brings it to the app yet.
    pub fn add(&self, group: &Rc<str>, add: impl FnOnce(&mut Q)) -> bool {
        let mut by_group = self.by_group.borrow_mut();
        let is_new = !by_group.contains_key(group);
        add(by_group.entry(group.clone()).or_default());
        is_new
    }

    /// The next that `take` finds in the queue of a group; `None`: the queue is no more.
    pub fn next<T>(&self, group: &str, take: impl FnOnce(&mut Q) -> Option<T>) -> Option<T> {
        let mut by_group = self.by_group.borrow_mut();
        let next = by_group.get_mut(group).and_then(take);
        if next.is_none() {
            by_group.remove(group);
        }
        next
    }

    /// Forgets what a group has waiting. Returns it.
    pub fn remove(&self, group: &str) -> Option<Q> {
        self.by_group.borrow_mut().remove(group)
    }

    /// What is to be known of the queue of a group, if there is one.
    pub fn look<T>(&self, group: &str, f: impl FnOnce(&Q) -> T) -> Option<T> {
        self.by_group.borrow().get(group).map(f)
    }
}
