//! The views of one core: found by what they ask for, by the tables they read, by number.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use hashbrown::{HashMap, HashSet};

use super::assemble::Assembly;
use super::cost::Cost;
use super::deferred_drop::DeferredDrop;
use super::entries::IdentityId;
use super::journal::Journal;
use super::limits::ViewLimits;
use super::rows::Rows;
use super::shapes::Shapes;
use super::state::ViewState;
use super::subscription_index::SubscriptionIndex;
use super::view::{Layout, Status, View, ViewId};
use crate::model::catalogue::Catalogue;
use crate::model::ids::TableId;
use crate::model::version::StateVersion;
use crate::protocol::row_patch::Encoder;
use crate::zql::ast::Ast;
use crate::zql::limits::Limits;
use crate::zql::plan::{Keys, Node, Plan, plan};

mod life;

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
    next_generation: u64,
    encoders: HashMap<IdentityId, Arc<Encoder>>,
    subscription_index: SubscriptionIndex,
    shapes: Shapes,
    /// States to be given up, the oldest first.
    deferred_drops: VecDeque<DeferredDrop>,
    /// Generations that went before they could be had, for whoever reads them.
    unread: Vec<u64>,
    /// Views that are read anew within the batch, and batches since that was last needed.
    inline: BTreeMap<ViewId, u32>,
    limits: ViewLimits,
    /// For whoever writes down what happened.
    changed: Vec<ViewId>,
    newly_stale: Vec<(ViewId, StateVersion)>,
}

/// Batches that do not need it after which a view is no longer read within the batch.
const INLINE_FOR: u32 = 16;

/// Rows of a state that nobody needs that are given up at once.
const SWEEP: usize = 2_000;

struct Slot {
    key: ViewKey,
    subscribers: usize,
    view: View,
    /// What it was planned from, if a further index would give it a better plan.
    source: Option<Box<Source>>,
}

/// What a view was planned from.
pub struct Source {
    /// The query.
    pub ast: Ast,
    /// How its clients know the tables.
    pub keys: Rc<dyn Keys>,
}

impl Views {
    /// No views yet; `rows` is shared with everything that names rows on this core.
    pub fn new(rows: Rc<RefCell<Rows>>, limits: ViewLimits) -> Views {
        Views {
            rows,
            by_key: HashMap::new(),
            by_table: HashMap::new(),
            slots: Vec::new(),
            free: Vec::new(),
            next_generation: 1,
            encoders: HashMap::new(),
            subscription_index: SubscriptionIndex::default(),
            shapes: Shapes::default(),
            deferred_drops: VecDeque::new(),
            unread: Vec::new(),
            inline: BTreeMap::new(),
            limits,
            changed: Vec::new(),
            newly_stale: Vec::new(),
        }
    }

    /// Its limits.
    pub fn limits(&self) -> &ViewLimits {
        &self.limits
    }

    /// A journal that knows nothing from before this version.
    pub fn journal(&self, from: StateVersion) -> Journal {
        Journal::starting_at(from, self.limits)
    }

    /// The view with this key, made if there is none. The caller is one of its subscribers
    /// until [`Views::unsubscribe`].
    pub fn subscribe(
        &mut self,
        key: ViewKey,
        catalogue: &Catalogue,
        plan: impl FnOnce() -> Arc<Plan>,
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
            generation: self.next_generation,
            record: None,
            plan: plan.clone(),
            layout,
            at: StateVersion::ZERO,
            status: Status::New,
            state: ViewState::default(),
            size: 0,
            journal: self.journal(StateVersion::ZERO),
            shapes: Rc::from([]),
            overtaken: 0,
            asked: plan.bytes + key.len(),
            cost: Cost::default(),
        };
        self.next_generation += 1;
        let slot = Some(Slot { key: key.clone(), subscribers: 1, view, source: None });
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

    /// The view with this key, if there is one. The caller becomes one of its subscribers.
    pub fn join(&mut self, key: &[u8]) -> Option<ViewId> {
        let id = *self.by_key.get(key)?;
        if let Some(slot) = &mut self.slots[id.0 as usize] {
            slot.subscribers += 1;
        }
        Some(id)
    }

    /// What a view answers, in canonical form; nothing for one that is not there.
    pub fn key(&self, id: ViewId) -> &[u8] {
        self.slots.get(id.0 as usize).and_then(Option::as_ref).map_or(&[], |slot| &*slot.key)
    }

    /// Remembers what a view was planned from, so that it can be planned anew.
    pub fn remember_source(&mut self, id: ViewId, source: Source) {
        if let Some(slot) = self.slots.get_mut(id.0 as usize).and_then(Option::as_mut) {
            slot.view.asked += source.ast.bytes();
            slot.source = Some(Box::new(source));
        }
    }

    /// The tables are these from now on. What views hold and how they are read goes on; how rows are written does not.
    /// Returns the views that ask for something that is gone, which cannot be kept.
    pub fn follow_schema(&mut self, catalogue: &Catalogue) -> Vec<ViewId> {
        self.encoders.clear();
        let mut unanswerable = Vec::new();
        for (index, slot) in self.slots.iter_mut().enumerate() {
            let Some(slot) = slot else { continue };
            // Planned anew it would be another view.
            if let Some(source) = slot.source.take() {
                slot.view.asked = slot.view.asked.saturating_sub(source.ast.bytes());
            }
            if !slot.view.plan.is_answerable(catalogue) {
                unanswerable.push(ViewId(index as u32));
            }
        }
        unanswerable
    }

    /// Plans the views anew that a further index would serve. What they hold stays: a plan
    /// says how rows are read, never which. No batch may be under way.
    pub fn plan_anew(&mut self, catalogue: &Catalogue, limits: &Limits) {
        for slot in self.slots.iter_mut().flatten() {
            let Some(source) = &slot.source else { continue };
            let Ok(plan) = plan(&source.ast, catalogue, &*source.keys, limits) else { continue };
            let plan = Arc::new(plan);
            if plan.index_requests.is_empty() {
                slot.view.asked = slot.view.asked.saturating_sub(source.ast.bytes());
                slot.source = None;
            }
            for (condition, shape) in slot.view.shapes.iter().enumerate() {
                self.shapes.plan_anew(*shape, &plan, condition);
            }
            slot.view.plan = plan;
        }
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
        self.inline.remove(&id);
        if self.by_key.get(&slot.key) == Some(&id) {
            self.by_key.remove(&slot.key);
        }
        for table in &slot.view.plan.tables {
            if let Some(views) = self.by_table.get_mut(table) {
                views.remove(&id);
            }
        }
        if !matches!(slot.view.status, Status::New | Status::Recorded(_)) {
            self.listen_root(id, &slot.view, false);
            self.shapes.remove(id, &slot.view.shapes, &mut self.subscription_index);
        }
        if !slot.view.is_live() {
            self.unread.push(slot.view.generation);
        }
        slot.view.journal.clear(&mut self.rows.borrow_mut());
        let state = std::mem::take(&mut slot.view.state);
        self.give_up(DeferredDrop::new(id, slot.view.plan.clone(), state, true));
        self.free.push(id.0);
        true
    }

    /// Has a view read anew within the batch from now on, whenever that is needed.
    pub fn read_inline(&mut self, id: ViewId) {
        self.inline.insert(id, 0);
    }

    /// Whether there are views that may have to be read within the batch.
    pub fn has_inline(&self) -> bool {
        !self.inline.is_empty()
    }

    /// Whether a view is read within the batch.
    pub fn is_inline(&self, id: ViewId) -> bool {
        self.inline.contains_key(&id)
    }

    /// A batch is over. `read`: views that were read within it.
    pub fn inline_done(&mut self, read: &[ViewId]) {
        self.inline.retain(|id, quiet| {
            *quiet = if read.contains(id) { 0 } else { *quiet + 1 };
            *quiet < INLINE_FOR
        });
    }

    /// Views that went before anybody could have them, since the last call.
    pub fn take_unread(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.unread)
    }

    fn give_up(&mut self, mut deferred: DeferredDrop) {
        if deferred.give_up(SWEEP, &mut self.rows.borrow_mut(), &mut self.subscription_index) == 0 {
            self.deferred_drops.push_back(deferred);
        }
    }

    /// Gives a state up: one that a view had, whose keys are registered.
    pub fn discard(&mut self, id: ViewId, plan: &Arc<Plan>, state: ViewState) {
        self.give_up(DeferredDrop::new(id, plan.clone(), state, true));
    }

    /// Gives up a view's state in the making.
    pub fn discard_assembly(&mut self, id: ViewId, assembly: Assembly) {
        assembly.give_up(id).into_iter().for_each(|deferred| self.give_up(deferred));
    }

    /// Gives up some more of the states that nobody needs. False: nothing is left.
    pub fn sweep(&mut self) -> bool {
        let mut most = SWEEP;
        while let Some(first) = self.deferred_drops.front_mut() {
            most = first.give_up(most, &mut self.rows.borrow_mut(), &mut self.subscription_index);
            if most == 0 {
                return true;
            }
            self.deferred_drops.pop_front();
        }
        false
    }

    /// Whether states wait to be given up.
    pub fn has_deferred_drops(&self) -> bool {
        !self.deferred_drops.is_empty()
    }

    /// A view.
    pub fn get(&self, id: ViewId) -> Option<&View> {
        self.slots.get(id.0 as usize)?.as_ref().map(|slot| &slot.view)
    }

    /// A view, to change.
    pub fn get_mut(&mut self, id: ViewId) -> Option<&mut View> {
        self.slots.get_mut(id.0 as usize)?.as_mut().map(|slot| &mut slot.view)
    }

    /// How many subscribe to a view.
    pub fn subscribers(&self, id: ViewId) -> usize {
        let slot = self.slots.get(id.0 as usize).and_then(Option::as_ref);
        slot.map_or(0, |slot| slot.subscribers)
    }

    /// All views, each with the number of its subscribers.
    pub fn iter(&self) -> impl Iterator<Item = (&View, usize)> {
        self.slots.iter().flatten().map(|slot| (&slot.view, slot.subscribers))
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
    pub fn subscription_index(&self) -> &SubscriptionIndex {
        &self.subscription_index
    }

    /// The conditions of all views.
    pub fn shapes(&self) -> &Shapes {
        &self.shapes
    }

    /// What a view asks, as bytes that are the same in every process.
    pub fn key_of(&self, id: ViewId) -> Option<&[u8]> {
        // The epoch of the catalogue comes first.
        self.slots.get(id.0 as usize)?.as_ref()?.key.get(8..)
    }

    /// The key that a view is found by.
    pub fn whole_key_of(&self, id: ViewId) -> Option<&ViewKey> {
        self.slots.get(id.0 as usize)?.as_ref().map(|slot| &slot.key)
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
    pub fn encoder(&mut self, identity: IdentityId, catalogue: &Catalogue) -> Arc<Encoder> {
        let rows = self.rows.borrow();
        let described = rows.describe(identity);
        self.encoders
            .entry(identity)
            .or_insert_with(|| Arc::new(Encoder::new(catalogue.get(described.table), &described.key)))
            .clone()
    }

    /// How the nodes of a plan map to rows and encoders.
    pub fn layout(&mut self, plan: &Plan, catalogue: &Catalogue) -> Layout {
        let of = |node: &Node| self.rows.borrow_mut().identity(node.table, &node.key);
        let identities: Vec<IdentityId> = plan.nodes.iter().map(of).collect();
        let encoders = identities.iter().map(|identity| self.encoder(*identity, catalogue)).collect();
        Layout::new(plan, identities, encoders)
    }
}
