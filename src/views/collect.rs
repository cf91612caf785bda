//! Takes what an evaluation finds and makes the next state of a view out of it.

use std::cell::RefCell;
use std::rc::Rc;

use hashbrown::{HashMap, HashSet};
use rusqlite::Row;
use smallvec::SmallVec;

use super::full::{Finished, Full, FullBuilder, MAX_FULL_SIZE};
use super::rows::{RowId, RowSet, Rows};
use super::view::{Layout, State, WitnessKey};
use crate::changes::version::StateVersion;
use crate::replica::reader::ReadError;
use crate::zql::evaluate::Collect;
use crate::zql::key;
use crate::zql::plan::{Kind, Plan};

/// Most rows that one view may hold. A browser's local store is far below it.
pub const MAX_MEMBERS: usize = 4_000_000;

/// Collects one evaluation. Holds a reference to every row found; [`Collector::finish`]
/// hands them over, dropping the collector gives them back. It also holds the witnesses of
/// the previous state: the view may change, or go, while it is being evaluated.
pub struct Collector {
    rows: Rc<RefCell<Rows>>,
    layout: Rc<Layout>,
    plan: Rc<Plan>,
    previous: Rc<State>,
    seen: RowSet,
    members: Vec<RowId>,
    scopes: Vec<HashSet<u64>>,
    witnesses: HashMap<WitnessKey, SmallVec<[RowId; 3]>>,
    full: Option<FullBuilder>,
}

impl Collector {
    /// `previous`: the state of the view so far, whose witnesses are preferred. The view must
    /// have it still.
    /// `poke_id`: encode every row, for pokes with this id.
    pub fn new(
        rows: Rc<RefCell<Rows>>,
        layout: Rc<Layout>,
        plan: Rc<Plan>,
        previous: Rc<State>,
        poke_id: Option<String>,
    ) -> Collector {
        let mut numbers = rows.borrow_mut();
        previous.witnesses.values().flatten().for_each(|id| numbers.acquire(*id));
        drop(numbers);
        let scopes = plan.nodes.iter().map(|_| HashSet::new()).collect();
        Collector {
            rows,
            layout,
            plan,
            previous,
            seen: RowSet::default(),
            members: Vec::new(),
            scopes,
            witnesses: HashMap::new(),
            full: poke_id.map(FullBuilder::new),
        }
    }

    /// The state found, and the encoded rows if they were asked for. The caller owns one
    /// reference to each member.
    pub fn finish(mut self, at: StateVersion) -> (State, Option<Full>) {
        let mut members = std::mem::take(&mut self.members);
        members.sort_unstable();
        let state = State {
            members: members.into(),
            scopes: std::mem::take(&mut self.scopes),
            witnesses: std::mem::take(&mut self.witnesses),
        };
        (state, self.full.take().map(|full| full.finish(at)))
    }

    /// Where encoded parts are left while the view is read.
    pub fn finished(&self) -> Finished {
        self.full.as_ref().map(FullBuilder::finished).unwrap_or_default()
    }

    fn witness_key(node: usize, key: &[u8]) -> WitnessKey {
        (node as u16, key.into())
    }

    fn encode(&mut self, node: usize, id: RowId, row: &Row<'_>) -> Result<(), ReadError> {
        let Some(encoder) = &self.layout.encoders[node] else { return Ok(()) };
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
}

impl Collect for Collector {
    fn row(&mut self, node: usize, identity: &[u8], row: &Row<'_>) -> Result<(), ReadError> {
        let Some(identity_id) = self.layout.identities[node] else { return Ok(()) };
        let id = self.rows.borrow_mut().intern(identity_id, identity);
        // A table that only one node reads gives each row once.
        if !self.layout.distinct[node] && !self.seen.insert(id) {
            self.rows.borrow_mut().release(id);
            return Ok(());
        }
        self.members.push(id);
        if self.members.len() > MAX_MEMBERS {
            return Err(ReadError::Unsupported(format!(
                "the query's result has more than {MAX_MEMBERS} rows; give it a limit"
            )));
        }
        self.encode(node, id, row)
    }

    fn scope(&mut self, node: usize, key: &[u8]) {
        // Rows that make an EXISTS true for other parents are outside of every scope.
        if self.plan.nodes[node].kind == Kind::Related {
            self.scopes[node].insert(key::hash(key));
        }
    }

    fn witnesses(&self, node: usize, key: &[u8]) -> Vec<Vec<u8>> {
        let Some(previous) = self.previous.witnesses.get(&Self::witness_key(node, key)) else {
            return Vec::new();
        };
        let rows = self.rows.borrow();
        previous.iter().map(|id| rows.key_of(*id).to_vec()).collect()
    }

    fn witness(&mut self, node: usize, key: &[u8], identity: &[u8]) {
        let Some(identity_id) = self.layout.identities[node] else { return };
        // Found: `row` was called for it just before.
        if let Some(id) = self.rows.borrow().find(identity_id, identity) {
            self.witnesses.entry(Self::witness_key(node, key)).or_default().push(id);
        }
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        let mut rows = self.rows.borrow_mut();
        rows.release_all(&self.members);
        self.previous.witnesses.values().for_each(|ids| rows.release_all(ids));
    }
}
