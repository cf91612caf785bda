//! The life of a view: it is hydrated, brought forward, read anew, and comes back from a record.

use std::sync::Arc;

use super::Views;
use crate::model::ids::RecordId;
use crate::model::reason::Reason;
use crate::model::version::StateVersion;
use crate::views::advance::{Advanced, ScopeChange};
use crate::views::assemble::Assembly;
use crate::views::journal::{Delta, Journal};
use crate::views::rows::RowId;
use crate::views::state::{Slot as Held, ViewState};
use crate::views::subscription_index::{Listening, Target};
use crate::views::view::{Status, View, ViewId};
use crate::zql::plan::Plan;

impl Views {
    /// Puts up to `most` slots of a state in the making where they belong, and registers their
    /// keys. False: all are there. The view must be the one that it is made for.
    pub fn settle(&mut self, id: ViewId, assembly: &mut Assembly, most: usize) -> bool {
        let Some(plan) = self.get(id).map(|view| view.plan.clone()) else { return false };
        (0..most).all(|_| {
            assembly.settle_one(|node, key| {
                if node > 0 {
                    self.listen_key(id, &plan, node, key, true);
                }
            })
        })
    }

    /// A view has been read at `at`: from now on it hears of changes. The keys of its state
    /// are registered already.
    pub fn hydrated(&mut self, id: ViewId, state: ViewState, at: StateVersion) {
        let journal = self.journal(at);
        let Some(view) = self.get_mut(id) else { return };
        view.journal = journal;
        view.size = state.len();
        view.state = state;
        view.at = at;
        view.status = Status::Live;
        self.listen(id);
    }

    /// From now on a view hears of changes of its own table and of its conditions.
    pub(super) fn listen(&mut self, id: ViewId) {
        let Some(mut slot) = self.slots.get_mut(id.0 as usize).and_then(Option::take) else { return };
        slot.view.shapes = self.shapes.add(id, &slot.view.plan, &mut self.subscription_index).into();
        self.listen_root(id, &slot.view, true);
        self.slots[id.0 as usize] = Some(slot);
    }

    /// A new view goes on from what one of a process before this one held at `at`, once it has
    /// been read anew. Takes over a reference to each of the members.
    pub fn adopt(
        &mut self,
        id: ViewId,
        record: RecordId,
        members: Vec<RowId>,
        journal: Journal,
        at: StateVersion,
    ) {
        let Some(view) = self.get_mut(id) else { return };
        // Where in the tree they were is not known, nor needed: they only have to be given back.
        let mut state = ViewState::new(view.plan.nodes.len(), None);
        let mut slot = Held { parents: 1, ..Held::default() };
        for id in members {
            state.enter(id);
            slot.rows.insert(id);
        }
        state.nodes[0].insert(Box::default(), slot);
        view.record = Some(record);
        view.size = state.len();
        (view.state, view.journal, view.at) = (state, journal, at);
        view.status = Status::Recorded(at);
    }

    /// Views that changed, and views that became stale, since the last call.
    pub fn take_marks(&mut self) -> (Vec<ViewId>, Vec<(ViewId, StateVersion)>) {
        (std::mem::take(&mut self.changed), std::mem::take(&mut self.newly_stale))
    }

    /// A view that lives can no longer be kept by looking at rows: it has to be read anew. It
    /// is right up to `since`.
    pub fn make_stale(&mut self, id: ViewId, since: StateVersion, reason: Reason) {
        if let Some(view) = self.get_mut(id).filter(|view| view.is_live()) {
            view.status = Status::Stale(since);
            self.newly_stale.push((id, since));
            let Some(view) = self.get_mut(id) else { return };
            *view.cost.fallbacks.entry(reason).or_default() += 1;
        }
    }

    /// Takes the state out of a view that is to be read anew.
    pub fn take_prior(&mut self, id: ViewId) -> ViewState {
        let view = self.get_mut(id).filter(|view| view.is_stale());
        view.map(|view| std::mem::take(&mut view.state)).unwrap_or_default()
    }

    /// A view that was stale has been read at `at`. `delta`: how it differs from `prior`, what
    /// it held until now; `None`: in more than can be told. True if anything does.
    pub fn rejoin(
        &mut self,
        id: ViewId,
        prior: ViewState,
        state: ViewState,
        delta: Option<Delta>,
        at: StateVersion,
    ) -> bool {
        let Some(view) = self.get_mut(id) else { return false };
        let plan = view.plan.clone();
        let is_new = matches!(view.status, Status::Recorded(_));
        view.status = Status::Live;
        view.size = state.len();
        view.state = state;
        if is_new {
            self.listen(id);
        }
        let (rows, journal) = (self.rows.clone(), self.journal(at));
        let view = self.slots[id.0 as usize].as_mut().map(|slot| &mut slot.view);
        let changed = view.is_some_and(|view| {
            let changed = delta.as_ref().is_none_or(|delta| !delta.is_empty());
            if changed {
                view.at = at;
            }
            match delta {
                Some(delta) => view.journal.push(delta, &mut rows.borrow_mut()),
                None => {
                    view.journal.clear(&mut rows.borrow_mut());
                    view.journal = journal;
                }
            }
            changed
        });
        self.discard(id, &plan, prior);
        changed
    }

    /// Gives a view that could not be read anew back what it held. Its queries are refused.
    pub fn put_prior(&mut self, id: ViewId, generation: u64, plan: &Arc<Plan>, prior: ViewState) {
        match self.get_mut(id).filter(|view| view.generation == generation) {
            Some(view) => {
                view.state = prior;
                if !matches!(view.status, Status::Recorded(_)) {
                    view.status = Status::Live;
                }
            }
            None => self.discard(id, plan, prior),
        }
    }

    /// Registers which rows of its own table a view wants to hear of, or ends that.
    pub(super) fn listen_root(&mut self, id: ViewId, view: &View, on: bool) {
        let root = &view.plan.nodes[0];
        let cursor = root.cursor.as_ref().map(|cursor| (cursor, &*root.order));
        let listening = Listening::of(&root.filter, cursor);
        self.subscription_index.listen(root.table, &listening, Target::Node(id, 0), on);
    }

    pub(super) fn listen_key(&mut self, id: ViewId, plan: &Plan, node: usize, key: &[u8], on: bool) {
        let (plan, target) = (&plan.nodes[node], Target::Node(id, node as u16));
        match on {
            true => self.subscription_index.add_key(plan.table, &plan.child_columns, key, target),
            false => self.subscription_index.remove_key(plan.table, &plan.child_columns, key, target),
        }
    }

    /// Takes the state of a live view out, to be brought forward.
    pub fn take_state(&mut self, id: ViewId) -> Option<ViewState> {
        self.get_mut(id).filter(|view| view.is_live()).map(|view| std::mem::take(&mut view.state))
    }

    /// Gives a view its state back. True if anything happened to it.
    pub fn put_state(&mut self, id: ViewId, generation: u64, plan: &Arc<Plan>, advanced: Advanced) -> bool {
        let Advanced { state, delta, scopes, held } = advanced;
        for ScopeChange { node, key, entered } in &scopes {
            self.listen_key(id, plan, *node as usize, key, *entered);
        }
        let rows = self.rows.clone();
        let changed = !delta.is_empty();
        let view = self.get_mut(id).filter(|view| view.generation == generation);
        match view {
            Some(view) => {
                view.cost.batches += 1;
                view.cost.entered += delta.entered.len() as u64;
                view.cost.left += delta.left.len() as u64;
                view.cost.edited += delta.edited.len() as u64;
                if changed {
                    view.at = delta.end;
                    view.journal.push(delta, &mut rows.borrow_mut());
                }
                view.size = state.len();
                view.state = state;
                if changed {
                    self.changed.push(id);
                }
            }
            // It has gone meanwhile, without the keys that it listened to.
            None => self.discard(id, plan, state),
        }
        rows.borrow_mut().release_all(&held);
        changed
    }
}
