//! What the checks that are repeated have to know of those before them.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use super::session::Session;
use crate::auth::upkeep::Upkeep;

/// What the looks at connections have to know of those before them.
#[derive(Default)]
pub struct Upkeeps {
    /// Groups with open connections, and those whose checks are under way.
    pub groups: RefCell<BTreeMap<String, Rc<Checked>>>,
    /// When all connections were looked at last, in milliseconds of the core.
    pub looked_at: Cell<f64>,
    /// A look takes several slices.
    pub looking: Cell<bool>,
}

impl Upkeeps {
    /// A connection of a group, for the present round.
    pub fn add(&self, session: Rc<Session>) {
        let mut groups = self.groups.borrow_mut();
        let id = &session.request.group_id;
        let group = match groups.get(id) {
            Some(group) => group,
            None => groups.entry(id.clone()).or_default(),
        };
        group.sessions.borrow_mut().push(session);
    }
}

/// A group with open connections.
#[derive(Default)]
pub struct Checked {
    /// What is due when.
    pub upkeep: RefCell<Upkeep>,
    /// Its checks are being done.
    pub busy: Cell<bool>,
    /// Its connections as of this round.
    pub sessions: RefCell<Vec<Rc<Session>>>,
}

/// Checks of a group that are under way, until they are over or have panicked.
pub struct Checking(pub Rc<Checked>);

impl Checking {
    /// Begins them.
    pub fn begin(group: Rc<Checked>) -> Checking {
        group.busy.set(true);
        Checking(group)
    }
}

impl Drop for Checking {
    fn drop(&mut self) {
        self.0.busy.set(false);
    }
}
