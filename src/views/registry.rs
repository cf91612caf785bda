//! The views of one core: found by what they ask for, by the tables they read, by number.

use std::cell::RefCell;
use std::rc::Rc;

use hashbrown::{HashMap, HashSet};

use super::advance::{Advanced, ScopeChange};
use super::fragment::Encoder;
use super::interests::{Interests, Target};
use super::journal::Journal;
use super::rows::{IdentityId, RowSet, Rows};
use super::shapes::Shapes;
use super::state::State;
use super::view::{Layout, View, ViewId};
use crate::changes::version::StateVersion;
use crate::replica::catalogue::{Catalogue, TableId};
use crate::zql::plan::{Node, Plan};

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
    interests: Interests,
    shapes: Shapes,
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
            interests: Interests::default(),
            shapes: Shapes::default(),
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
            state: State::default(),
            size: 0,
            journal: Journal::default(),
            shapes: Rc::from([]),
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
        if slot.view.live {
            self.listen(id, &slot.view, false);
            self.shapes.remove(id, &slot.view.shapes, &mut self.interests);
        }
        let mut rows = self.rows.borrow_mut();
        slot.view.state.release(&mut rows);
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

    /// Row numbers, shared with everything that names rows on this core.
    pub fn rows(&self) -> &Rc<RefCell<Rows>> {
        &self.rows
    }

    /// Who wants to hear of which rows.
    pub fn interests(&self) -> &Interests {
        &self.interests
    }

    /// The conditions of all views.
    pub fn shapes(&self) -> &Shapes {
        &self.shapes
    }

    /// A view has been read at `at`: from now on it hears of changes.
    pub fn hydrated(&mut self, id: ViewId, state: State, at: StateVersion) {
        let Some(slot) = self.slots.get_mut(id.0 as usize).and_then(Option::as_mut) else { return };
        let view = &mut slot.view;
        view.journal = Journal::starting_at(at);
        view.size = state.len();
        view.state = state;
        view.at = at;
        view.live = true;
        let plan = view.plan.clone();
        let shapes = self.shapes.add(id, &plan, &mut self.interests).into();
        let Some(mut slot) = self.slots[id.0 as usize].take() else { return };
        slot.view.shapes = shapes;
        self.listen(id, &slot.view, true);
        self.slots[id.0 as usize] = Some(slot);
    }

    /// Registers what a view wants to hear of, or ends that.
    fn listen(&mut self, id: ViewId, view: &View, on: bool) {
        let root = &view.plan.nodes[0];
        let target = Target::Node(id, 0);
        match (root.filter.wanted(), on) {
            (None, true) => self.interests.add_short(root.table, target),
            (None, false) => self.interests.remove_short(root.table, target),
            (Some(all), true) => all.iter().for_each(|w| self.interests.add(root.table, w, target)),
            (Some(all), false) => all.iter().for_each(|w| self.interests.remove(root.table, w, target)),
        }
        self.listen_keys(id, &view.plan, &view.state, on);
    }

    fn listen_keys(&mut self, id: ViewId, plan: &Plan, state: &State, on: bool) {
        for (node, slots) in state.nodes.iter().enumerate().skip(1) {
            slots.keys().for_each(|key| self.listen_key(id, plan, node, key, on));
        }
    }

    fn listen_key(&mut self, id: ViewId, plan: &Plan, node: usize, key: &[u8], on: bool) {
        let (plan, target) = (&plan.nodes[node], Target::Node(id, node as u16));
        match on {
            true => self.interests.add_key(plan.table, &plan.child_columns, key, target),
            false => self.interests.remove_key(plan.table, &plan.child_columns, key, target),
        }
    }

    /// Takes the state of a live view out, to be brought forward.
    pub fn take_state(&mut self, id: ViewId) -> Option<State> {
        self.get_mut(id).filter(|view| view.live).map(|view| std::mem::take(&mut view.state))
    }

    /// Gives a view its state back. True if anything happened to it.
    pub fn put_state(&mut self, id: ViewId, incarnation: u64, plan: &Plan, advanced: Advanced) -> bool {
        let Advanced { state, delta, scopes, held } = advanced;
        for ScopeChange { node, key, entered } in &scopes {
            self.listen_key(id, plan, *node as usize, key, *entered);
        }
        let rows = self.rows.clone();
        let changed = !delta.is_empty();
        let view = self.get_mut(id).filter(|view| view.incarnation == incarnation);
        match view {
            Some(view) => {
                if changed {
                    view.at = delta.end;
                    view.journal.push(delta, &mut rows.borrow_mut());
                }
                view.size = state.len();
                view.state = state;
            }
            None => {
                // It has gone meanwhile, without the keys that it listened to.
                self.listen_keys(id, plan, &state, false);
                state.release(&mut rows.borrow_mut());
            }
        }
        rows.borrow_mut().release_all(&held);
        changed
    }

    /// Gives a live view the result of an evaluation at `end`. `edited`: rows whose contents
    /// changed, if they stay. True if anything did.
    pub fn replace(&mut self, id: ViewId, state: State, edited: &RowSet, end: StateVersion) -> bool {
        let Some(mut slot) = self.slots.get_mut(id.0 as usize).and_then(Option::take) else { return false };
        self.listen(id, &slot.view, false);
        let rows = self.rows.clone();
        let changed = slot.view.replace(state, |row| edited.contains(&row), end, &mut rows.borrow_mut());
        self.listen(id, &slot.view, true);
        self.slots[id.0 as usize] = Some(slot);
        changed
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
        let of = |node: &Node| self.rows.borrow_mut().identity(node.table, &node.key);
        let identities: Vec<IdentityId> = plan.nodes.iter().map(of).collect();
        let encoders = identities.iter().map(|identity| self.encoder(*identity, catalogue)).collect();
        Layout::new(plan, identities, encoders)
    }
}
