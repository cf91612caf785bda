//! Makes the state of a view out of what a scan found ([`super::scan`]), chunk by chunk.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use super::deferred_drop::DeferredDrop;
use super::encoded::{EncodedView, Part};
use super::rows::{RowId, RowSet, Rows};
use super::scan::{Chunk, FoundRow};
use super::state::{Slot, ViewState};
use super::view::{Layout, ViewId};
use crate::model::version::StateVersion;
use crate::protocol::row_part::RowPart;
use crate::zql::plan::Plan;

/// Bytes of a row: its number where it is held, its key, its reference count.
const PER_ROW: usize = 80;

/// A view's state in the making. Holds a reference to every row; [`Assembly::finish`] hands
/// them over, dropping it gives them back.
pub struct Assembly {
    rows: Rc<RefCell<Rows>>,
    layout: Rc<Layout>,
    plan: Arc<Plan>,
    state: ViewState,
    /// By node: the slots by number of their keys, until they are settled.
    open: Vec<Vec<(Box<[u8]>, Slot)>>,
    /// Parts with the rows; whoever drives this may take some (rule 22).
    pub parts: Vec<Part>,
    /// How many there were, and their bytes.
    count: usize,
    size: usize,
    edited: RowSet,
}

impl Assembly {
    /// Of a view.
    pub fn new(rows: Rc<RefCell<Rows>>, layout: Rc<Layout>, plan: Arc<Plan>) -> Assembly {
        let state = ViewState::new(plan.nodes.len(), layout.flat());
        let open = plan.nodes.iter().map(|_| Vec::new()).collect();
        let (parts, edited) = (Vec::new(), RowSet::default());
        Assembly { rows, layout, plan, state, open, parts, count: 0, size: 0, edited }
    }

    /// Takes what was found next.
    pub fn take(&mut self, chunk: Chunk) {
        let mut start = 0;
        for found in &chunk.keys {
            let slots = found.keys.iter().map(|(end, parents)| {
                let key = &chunk.key_bytes[start..*end as usize];
                start = *end as usize;
                (key.into(), Slot { parents: *parents, ..Slot::default() })
            });
            self.open[found.node as usize].extend(slots);
        }
        let rows = self.rows.clone();
        let mut rows = rows.borrow_mut();
        let mut encoded = Vec::new();
        let mut start = 0;
        for found in chunk.rows {
            let identity = &chunk.bytes[start..found.end as usize];
            start = found.end as usize;
            let id = rows.intern(self.layout.identities[found.node as usize], identity);
            if found.encoded {
                encoded.push(id);
            }
            self.place(found, id);
        }
        let mut encoded = encoded.into_iter();
        chunk.parts.into_iter().for_each(|part| self.add(part, &mut encoded));
    }

    fn place(&mut self, found: FoundRow, id: RowId) {
        let node = found.node as usize;
        if self.plan.nodes[node].emitted {
            self.state.enter(id);
            if found.edited {
                self.edited.insert(id);
            }
        }
        let flat = self.state.is_flat(node);
        let (_, slot) = &mut self.open[node][found.key as usize];
        if let Some(position) = &found.position {
            slot.window.get_or_insert_default().push(position.clone(), id);
        }
        match flat {
            true => self.state.flat_rows += 1,
            false => slot.rows.insert(id),
        }
    }

    fn add(&mut self, encoded: RowPart, rows: &mut impl Iterator<Item = RowId>) {
        let rows = rows.take(encoded.rows()).collect();
        self.count += 1;
        self.size += encoded.bytes();
        self.parts.push(Part { encoded, rows });
    }

    /// Rows found so far.
    pub fn len(&self) -> usize {
        self.state.len()
    }

    /// About how many bytes it takes, with the keys of its rows and the parts that are still here.
    pub fn bytes(&self) -> usize {
        let parts: usize = self.parts.iter().map(|part| part.encoded.bytes()).sum();
        self.len() * PER_ROW + parts
    }

    /// Whether nothing was found yet.
    pub fn is_empty(&self) -> bool {
        self.state.is_empty()
    }

    /// Puts a slot where it belongs; its node and its key are given to `heed` first. False: all
    /// are there.
    pub(super) fn settle_one(&mut self, heed: impl FnOnce(usize, &[u8])) -> bool {
        let Some(node) = self.open.iter().position(|slots| !slots.is_empty()) else { return false };
        if let Some((key, slot)) = self.open[node].pop() {
            heed(node, &key);
            self.state.nodes[node].insert(key, slot);
        }
        true
    }

    /// The parts that were not taken.
    pub fn take_parts(&mut self, at: StateVersion, poke_id: &str) -> EncodedView {
        let parts = std::mem::take(&mut self.parts);
        let partial = parts.len() < self.count;
        EncodedView::new(at, poke_id, parts, self.size, partial)
    }

    /// The state, the parts that were not taken, and the rows that are marked as edited. All
    /// must have been settled. The caller owns the references that the state holds.
    pub fn finish(mut self, at: StateVersion, poke_id: &str) -> (ViewState, EncodedView, RowSet) {
        let encoded = self.take_parts(at, poke_id);
        (std::mem::take(&mut self.state), encoded, std::mem::take(&mut self.edited))
    }

    /// What is left of it if it is given up: with keys that were heeded, and without.
    pub(super) fn give_up(mut self, view: ViewId) -> [DeferredDrop; 2] {
        let mut rest = ViewState::new(self.open.len(), None);
        for (node, slots) in self.open.iter_mut().enumerate() {
            rest.nodes[node].extend(slots.drain(..));
        }
        let heeded = std::mem::take(&mut self.state);
        [
            DeferredDrop::new(view, self.plan.clone(), heeded, true),
            DeferredDrop::new(view, self.plan.clone(), rest, false),
        ]
    }
}

impl Drop for Assembly {
    fn drop(&mut self) {
        let mut rows = self.rows.borrow_mut();
        self.state.release(&mut rows);
        let open = self.open.iter().flatten().flat_map(|(_, slot)| slot.rows.iter());
        open.for_each(|id| rows.release(id));
    }
}
