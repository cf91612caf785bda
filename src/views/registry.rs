//! The views of one core: found by what they ask for, by the tables they read, by number.

use std::cell::RefCell;
use std::rc::Rc;

use hashbrown::{HashMap, HashSet};

use super::fragment::Encoder;
use super::journal::Journal;
use super::rows::{IdentityId, Rows};
use super::view::{Layout, State, View, ViewId};
use crate::changes::version::StateVersion;
use crate::replica::catalogue::{Catalogue, TableId};
use crate::zql::plan::Plan;

/// Identity of a view: canonical query, and for each table in it the key by which the
/// client schema knows it (rule 11). Compared as bytes.
pub type ViewKey = Rc<[u8]>;

/// All views of a core.
pub struct Views {
    rows: Rc<RefCell<Rows>>,
    by_key: HashMap<ViewKey, ViewId>,
    by_table: HashMap<TableId, HashSet<ViewId>>,
    slots: Vec<Option<Slot>>,
    free: Vec<u32>,
    next_incarnation: u64,
    encoders: HashMap<IdentityId, Rc<Encoder>>,
}

struct Slot {
    key: ViewKey,
    subscribers: usize,
    view: View,
}

impl Views {
    /// No views yet; `rows` is shared with everything that names rows on this core.
    pub fn new(rows: Rc<RefCell<Rows>>) -> Views {
        Views {
            rows,
            by_key: HashMap::new(),
            by_table: HashMap::new(),
            slots: Vec::new(),
            free: Vec::new(),
            next_incarnation: 1,
            encoders: HashMap::new(),
        }
    }

    /// The view with this key, made if there is none. The caller is one of its subscribers
    /// until [`Views::unsubscribe`].
    pub fn subscribe(
        &mut self,
        key: ViewKey,
        catalogue: &Catalogue,
        plan: impl FnOnce() -> Rc<Plan>,
    ) -> ViewId {
        if let Some(id) = self.by_key.get(&key) {
            if let Some(slot) = &mut self.slots[id.0 as usize] {
                slot.subscribers += 1;
            }
            return *id;
        }
        let plan = plan();
        let layout = Rc::new(self.layout(&plan, catalogue));
        let view = View {
            incarnation: self.next_incarnation,
            plan: plan.clone(),
            layout,
            at: StateVersion::ZERO,
            live: false,
            state: Rc::new(State::default()),
            journal: Journal::default(),
        };
        self.next_incarnation += 1;
        let slot = Some(Slot { key: key.clone(), subscribers: 1, view });
        let id = match self.free.pop() {
            Some(index) => {
                self.slots[index as usize] = slot;
                ViewId(index)
            }
            None => {
                self.slots.push(slot);
                ViewId((self.slots.len() - 1) as u32)
            }
        };
        self.by_key.insert(key, id);
        for table in &plan.tables {
            self.by_table.entry(*table).or_default().insert(id);
        }
        id
    }

    /// Nobody finds the view any more: it could not be kept. It goes with its last
    /// subscriber; whoever asks for the same meanwhile gets a new one.
    pub fn retire(&mut self, id: ViewId) {
        if let Some(slot) = self.slots.get(id.0 as usize).and_then(Option::as_ref)
            && self.by_key.get(&slot.key) == Some(&id)
        {
            self.by_key.remove(&slot.key);
        }
    }

    /// Ends one subscription; the view goes with its last one. True if it is gone.
    pub fn unsubscribe(&mut self, id: ViewId) -> bool {
        let Some(slot) = self.slots[id.0 as usize].as_mut() else { return false };
        slot.subscribers -= 1;
        if slot.subscribers > 0 {
            return false;
        }
        let Some(mut slot) = self.slots[id.0 as usize].take() else { return false };
        if self.by_key.get(&slot.key) == Some(&id) {
            self.by_key.remove(&slot.key);
        }
        for table in &slot.view.plan.tables {
            if let Some(views) = self.by_table.get_mut(table) {
                views.remove(&id);
            }
        }
        let mut rows = self.rows.borrow_mut();
        rows.release_all(&slot.view.state.members);
        slot.view.journal.clear(&mut rows);
        self.free.push(id.0);
        true
    }

    /// A view.
    pub fn get(&self, id: ViewId) -> Option<&View> {
        self.slots.get(id.0 as usize)?.as_ref().map(|slot| &slot.view)
    }

    /// A view, to change.
    pub fn get_mut(&mut self, id: ViewId) -> Option<&mut View> {
        self.slots.get_mut(id.0 as usize)?.as_mut().map(|slot| &mut slot.view)
    }

    /// Views that read any of these tables, in order of their numbers.
    pub fn reading<'t>(&self, tables: impl Iterator<Item = &'t TableId>) -> Vec<ViewId> {
        let mut out: Vec<ViewId> = tables.filter_map(|t| self.by_table.get(t)).flatten().copied().collect();
        out.sort_unstable();
        out.dedup();
        out
    }

    /// Views at the moment.
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The encoder of an identity.
    pub fn encoder(&mut self, identity: IdentityId, catalogue: &Catalogue) -> Rc<Encoder> {
        let rows = self.rows.borrow();
        let described = rows.describe(identity);
        self.encoders
            .entry(identity)
            .or_insert_with(|| Rc::new(Encoder::new(catalogue.get(described.table), &described.key)))
            .clone()
    }

    fn layout(&mut self, plan: &Plan, catalogue: &Catalogue) -> Layout {
        let mut identities = Vec::with_capacity(plan.nodes.len());
        let mut encoders = Vec::with_capacity(plan.nodes.len());
        for node in &plan.nodes {
            let identity = node.emitted.then(|| self.rows.borrow_mut().identity(node.table, &node.key));
            identities.push(identity);
            encoders.push(identity.map(|identity| self.encoder(identity, catalogue)));
        }
        let distinct = identities
            .iter()
            .map(|identity| identities.iter().filter(|other| *other == identity).count() == 1)
            .collect();
        // A node of witnesses may meet one row under several keys only if the row has
        // several keys, which it has not; but it may be chosen as kept and as filled.
        Layout { identities, encoders, distinct }
    }
}
