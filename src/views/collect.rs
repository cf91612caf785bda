//! Takes what an evaluation finds and makes the state of a view out of it.

use std::cell::RefCell;
use std::rc::Rc;

use hashbrown::HashMap;
use rusqlite::Row;
use smallvec::SmallVec;

use super::full::{Finished, Full, FullBuilder, MAX_FULL_SIZE};
use super::rows::{RowId, Rows};
use super::state::{Slot, State};
use super::view::Layout;
use super::window::TAIL;
use crate::changes::version::StateVersion;
use crate::replica::reader::ReadError;
use crate::zql::evaluate::Collect;
use crate::zql::key::Scalar;
use crate::zql::order::Position;
use crate::zql::plan::{Kind, Node, Plan};

/// Most rows that one view may hold. A browser's local store is far below it.
pub const MAX_MEMBERS: usize = 4_000_000;

/// Only integers that no client can hold are equal to a number without having its key.
pub(super) const UNEQUAL: &str = "a correlation key is an integer that clients cannot hold";

/// Witnesses of one EXISTS for one parent key: node, correlation key.
pub type WitnessKey = (u16, Box<[u8]>);

/// The witnesses that a view has. Holds a reference to each: the view may change, or go,
/// while it is being evaluated.
struct Witnesses {
    rows: Rc<RefCell<Rows>>,
    by_key: HashMap<WitnessKey, SmallVec<[RowId; 3]>>,
}

impl Witnesses {
    fn of(state: &State, plan: &Plan, rows: Rc<RefCell<Rows>>) -> Witnesses {
        let mut by_key: HashMap<WitnessKey, SmallVec<[RowId; 3]>> = HashMap::new();
        for (node, slots) in state.nodes.iter().enumerate() {
            if plan.nodes[node].kind == Kind::Witness {
                by_key.extend(
                    slots.iter().map(|(k, slot)| ((node as u16, k.clone()), slot.rows.iter().collect())),
                );
            }
        }
        by_key.values().flatten().for_each(|id| rows.borrow_mut().acquire(*id));
        Witnesses { rows, by_key }
    }
}

impl Drop for Witnesses {
    fn drop(&mut self) {
        let mut rows = self.rows.borrow_mut();
        self.by_key.values().for_each(|ids| rows.release_all(ids));
    }
}

/// Collects one evaluation. Holds a reference to every row found; [`Collector::finish`]
/// hands them over, dropping the collector gives them back.
pub struct Collector {
    rows: Rc<RefCell<Rows>>,
    layout: Rc<Layout>,
    plan: Rc<Plan>,
    previous: Witnesses,
    state: State,
    full: Option<FullBuilder>,
}

impl Collector {
    /// `previous`: the state of the view so far, whose witnesses are preferred.
    /// `poke_id`: encode every row, for pokes with this id.
    pub fn new(
        rows: Rc<RefCell<Rows>>,
        layout: Rc<Layout>,
        plan: Rc<Plan>,
        previous: &State,
        poke_id: Option<String>,
    ) -> Collector {
        let previous = Witnesses::of(previous, &plan, rows.clone());
        let state = State::new(plan.nodes.len(), layout.flat());
        Collector { rows, layout, plan, previous, state, full: poke_id.map(FullBuilder::new) }
    }

    /// The state found, and the encoded rows if they were asked for. The caller owns the
    /// references that the state holds.
    pub fn finish(mut self, at: StateVersion) -> (State, Option<Full>) {
        (std::mem::take(&mut self.state), self.full.take().map(|full| full.finish(at)))
    }

    /// Where encoded parts are left while the view is read.
    pub fn finished(&self) -> Finished {
        self.full.as_ref().map(FullBuilder::finished).unwrap_or_default()
    }

    fn encode(&mut self, node: usize, id: RowId, row: &Row<'_>) -> Result<(), ReadError> {
        let encoder = &self.layout.encoders[node];
        let Some(full) = &mut self.full else {
            // Found out now, it is this query that fails and not the poke of a group.
            return encoder.check(|position, _| Ok(row.get_ref(position)?.into()));
        };
        encoder.put(|position, _| Ok(row.get_ref(position)?.into()), full.begin_row())?;
        full.commit(id);
        if full.size() > MAX_FULL_SIZE {
            return Err(ReadError::Unsupported(format!(
                "the query's result is larger than {} MiB; give it a limit",
                MAX_FULL_SIZE >> 20
            )));
        }
        Ok(())
    }

    /// Puts the row into its node's slot.
    fn place(&mut self, node: usize, key: &[u8], id: RowId, row: &Row<'_>) -> Result<(), ReadError> {
        let flat = self.state.is_flat(node);
        let count = self.state.flat_rows;
        let Some(slot) = self.state.nodes[node].get_mut(key) else {
            // Equal to SQLite, not to us.
            return Err(ReadError::Unsupported(UNEQUAL.to_owned()));
        };
        let plan = &self.plan.nodes[node];
        if let Some(limit) = plan.limit.filter(|_| plan.kind != Kind::Witness) {
            let before = if flat { count } else { slot.rows.len() };
            if before as u64 + TAIL as u64 >= limit {
                slot.window.get_or_insert_default().push(position(plan, row)?, id);
            }
        }
        match flat {
            true => self.state.flat_rows += 1,
            false => slot.rows.insert(id),
        }
        Ok(())
    }
}

fn position(node: &Node, row: &Row<'_>) -> Result<Position, ReadError> {
    let mut out = Vec::with_capacity(node.order.len());
    for (column, _) in node.order.iter() {
        out.push(Scalar::from(row.get_ref(node.position(*column))?).to_value());
    }
    Ok(out.into())
}

impl Collect for Collector {
    fn row(&mut self, node: usize, key: &[u8], identity: &[u8], row: &Row<'_>) -> Result<(), ReadError> {
        let id = self.rows.borrow_mut().intern(self.layout.identities[node], identity);
        if let Err(error) = self.place(node, key, id, row) {
            self.rows.borrow_mut().release(id);
            return Err(error);
        }
        if !self.plan.nodes[node].emitted || !self.state.enter(id) {
            return Ok(());
        }
        if self.state.len() > MAX_MEMBERS {
            return Err(ReadError::Unsupported(format!(
                "the query's result has more than {MAX_MEMBERS} rows; give it a limit"
            )));
        }
        self.encode(node, id, row)
    }

    fn scope(&mut self, node: usize, key: &[u8]) -> bool {
        let slots = &mut self.state.nodes[node];
        match slots.get_mut(key) {
            Some(slot) => {
                slot.parents += 1;
                false
            }
            None => {
                slots.insert(key.into(), Slot { parents: 1, ..Slot::default() });
                true
            }
        }
    }

    fn witnesses(&self, node: usize, key: &[u8]) -> Vec<Vec<u8>> {
        let Some(previous) = self.previous.by_key.get(&(node as u16, key.into())) else { return Vec::new() };
        let rows = self.rows.borrow();
        previous.iter().map(|id| rows.key_of(*id).to_vec()).collect()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.state.release(&mut self.rows.borrow_mut());
    }
}
