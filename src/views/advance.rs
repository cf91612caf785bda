//! Keeps one view: looks again at its candidates on the snapshot after the batch, and says
//! what came, went and changed (rules 3, 7 and 8 of `docs/spec/rules.md`).
//!
//! Nodes are done parents first: what comes and goes at a node moves keys into the scopes of
//! its children and out of them. The state is the caller's to give and to take back: nobody
//! sees it half way.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use super::changed::{Changed, ChangedRows};
use super::journal::Delta;
use super::pace::Pace;
use super::rows::{RowId, RowMap, RowSet, Rows};
use super::state::{Slot, ViewState};
use super::view::{Layout, identity_bytes};
use crate::model::commit::Row;
use crate::model::version::StateVersion;
use crate::replica::reader::{ReadError, Reader};
use crate::views::candidates::{Candidate, Candidates};
use crate::zql::plan::{Kind, Node, Plan};
use crate::zql::sql::Statements;

/// A correlation key that came into the scope of a node, or left it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScopeChange {
    /// The node.
    pub node: u16,
    /// The key.
    pub key: Box<[u8]>,
    /// It came.
    pub entered: bool,
}

/// What became of a view.
pub struct Advanced {
    /// What it holds now.
    pub state: ViewState,
    /// What happened.
    pub delta: Delta,
    /// Keys that came and went, in order.
    pub scopes: Vec<ScopeChange>,
    /// References that keep the numbers in `delta` until somebody else does.
    pub held: Vec<RowId>,
}

/// A row to look at.
#[derive(Clone, Copy)]
pub(super) struct Look<'l> {
    pub old: Option<&'l Row>,
    pub new: Option<&'l Row>,
    /// It changed; else old and new are the same row.
    pub changed: bool,
}

/// Rows to look at at one node, by identity.
pub(super) type Looks<'l> = BTreeMap<Box<[u8]>, Look<'l>>;

/// A view on its way over a batch.
pub struct Advance<'a, 'c, P> {
    pub(super) changed: &'a Changed<'c>,
    pub(super) plan: &'a Plan,
    pub(super) layout: &'a Layout,
    pub(super) rows: Rc<RefCell<Rows>>,
    pub(super) reader: &'a Reader,
    pub(super) pace: &'a mut P,
    pub(super) state: ViewState,
    /// Whether the rows looked at were members before; holds a reference to each.
    was: RowMap<bool>,
    /// Of these, those that changed visibly.
    edited: RowSet,
    scopes: Vec<ScopeChange>,
    /// By node: how many parents more, or fewer, have a key.
    moved: Vec<BTreeMap<Box<[u8]>, i64>>,
}

impl<'a, 'c, P: Pace> Advance<'a, 'c, P> {
    /// Takes the state of a view as it was before the batch.
    pub fn new(
        changed: &'a Changed<'c>,
        (plan, layout): (&'a Plan, &'a Layout),
        rows: Rc<RefCell<Rows>>,
        reader: &'a Reader,
        state: ViewState,
        pace: &'a mut P,
    ) -> Self {
        let (was, edited) = (RowMap::default(), RowSet::default());
        let moved = vec![BTreeMap::new(); plan.nodes.len()];
        Advance { changed, plan, layout, rows, reader, pace, state, was, edited, scopes: Vec::new(), moved }
    }

    /// Looks at the candidates. After an error the state is not the query's answer, but what
    /// it holds and what is told of it agree.
    pub async fn run(mut self, candidates: &Candidates, end: StateVersion) -> (Advanced, Option<ReadError>) {
        let mut result = Ok(());
        for node in 0..self.plan.nodes.len() {
            let found = candidates.nodes.get(&node).map(Vec::as_slice).unwrap_or_default();
            result = self.node(node, found).await;
            if result.is_err() {
                break;
            }
        }
        let held = self.was.keys().copied().collect();
        let delta = self.delta(end);
        (Advanced { state: self.state, delta, scopes: self.scopes, held }, result.err())
    }

    fn delta(&self, end: StateVersion) -> Delta {
        let mut delta = Delta { end, ..Delta::default() };
        for (id, before) in &self.was {
            match (*before, self.state.contains(*id)) {
                (false, true) => delta.entered.push(*id),
                (true, false) => delta.left.push(*id),
                (true, true) if self.edited.contains(id) => delta.edited.push(*id),
                _ => {}
            }
        }
        [&mut delta.entered, &mut delta.left, &mut delta.edited]
            .into_iter()
            .for_each(|ids| ids.sort_unstable());
        delta
    }

    async fn node(&mut self, node: usize, found: &[Candidate]) -> Result<(), ReadError> {
        let entering = self.scope(node)?;
        if !found.is_empty() {
            let plan = self.plan;
            let looks = looks(&plan.nodes[node], self.changed.of(self.layout.identities[node]), found);
            self.note_edits(node, &looks);
            match plan.nodes[node].kind {
                Kind::Witness => self.witnesses(node, &looks, &entering).await?,
                _ if plan.nodes[node].limit.is_some() => self.windows(node, &looks, &entering).await?,
                _ => self.all(node, &looks, &entering).await?,
            }
        }
        if !entering.is_empty() {
            self.read_keys(node, &entering).await?;
        }
        Ok(())
    }

    /// Brings the scope of a node up to date: rows under keys that are gone go. Returns the
    /// keys that came; they are not read yet.
    fn scope(&mut self, node: usize) -> Result<Vec<Box<[u8]>>, ReadError> {
        let mut entering = Vec::new();
        for (key, count) in std::mem::take(&mut self.moved[node]) {
            if count == 0 {
                continue;
            }
            let slots = &mut self.state.nodes[node];
            let parents = slots.get(&*key).map_or(0, |slot| slot.parents as i64) + count;
            if parents > 0 {
                let slot = slots.or_default(key.clone());
                let is_new = slot.parents == 0;
                slot.parents = parents as u32;
                if is_new {
                    self.scopes.push(ScopeChange { node: node as u16, key: key.clone(), entered: true });
                    entering.push(key);
                }
            } else if let Some(slot) = slots.remove(&*key) {
                self.scopes.push(ScopeChange { node: node as u16, key, entered: false });
                for id in slot.rows.iter() {
                    self.row_out(node, id)?;
                }
            }
        }
        Ok(entering)
    }

    /// Notes which of the rows are not to clients what they were.
    fn note_edits(&mut self, node: usize, looks: &Looks) {
        if !self.plan.nodes[node].emitted {
            return;
        }
        for (identity, look) in looks {
            let (true, Some(old), Some(new)) = (look.changed, look.old, look.new) else { continue };
            let columns = &self.plan.nodes[node].columns;
            if !columns.iter().any(|c| old[*c as usize] != new[*c as usize]) {
                continue;
            }
            // A row without a number may still come, but it is no member that changed.
            if let Some(id) = self.find(node, identity) {
                self.note(id);
                self.edited.insert(id);
            }
        }
    }

    /// Remembers whether a row was a member.
    fn note(&mut self, id: RowId) {
        if !self.was.contains_key(&id) {
            self.was.insert(id, self.state.contains(id));
            self.rows.borrow_mut().acquire(id);
        }
    }

    pub(super) fn find(&self, node: usize, identity: &[u8]) -> Option<RowId> {
        self.rows.borrow().find(self.layout.identities[node], identity)
    }

    /// Looks at rows of a node without a limit.
    async fn all(&mut self, node: usize, looks: &Looks<'_>, entering: &[Box<[u8]>]) -> Result<(), ReadError> {
        for (identity, look) in looks {
            let (old_key, new_key) = self.keys(node, look);
            let known = self.find(node, identity);
            let held =
                known.filter(|id| old_key.as_ref().is_some_and(|key| self.state.holds(node, key, *id)));
            let new_key = new_key.filter(|key| self.is_open(node, key, entering));
            let passes = match new_key {
                Some(_) => self.passes(node, identity, look).await?,
                None => false,
            };
            match (held, new_key.filter(|_| passes)) {
                (None, None) => {}
                (Some(id), None) => {
                    self.take_out(node, old_key.as_deref().unwrap_or_default(), id);
                    self.row_out_as(node, id, look.old)?;
                }
                (None, Some(key)) => {
                    let id = self.row_in(node, identity, look.new)?;
                    self.put_in(node, &key, id);
                }
                (Some(id), Some(key)) => {
                    if old_key.as_deref() != Some(&*key) {
                        self.take_out(node, old_key.as_deref().unwrap_or_default(), id);
                        self.put_in(node, &key, id);
                    }
                    self.row_stays(node, look)?;
                }
            }
        }
        Ok(())
    }

    /// Correlation keys of a row before and after.
    pub(super) fn keys(&self, node: usize, look: &Look) -> (Option<Vec<u8>>, Option<Vec<u8>>) {
        let columns = &self.plan.nodes[node].child_columns;
        let key = |row: Option<&Row>| row.and_then(|row| identity_bytes(columns, row));
        (key(look.old), key(look.new))
    }

    /// Whether a key is in scope, and its rows are not read anyway.
    pub(super) fn is_open(&self, node: usize, key: &[u8], entering: &[Box<[u8]>]) -> bool {
        self.state.nodes[node].contains_key(key) && !entering.iter().any(|k| **k == *key)
    }

    pub(super) fn take_out(&mut self, node: usize, key: &[u8], id: RowId) {
        if self.state.is_flat(node) {
            self.state.flat_rows -= 1;
        } else if let Some(slot) = self.state.nodes[node].get_mut(key) {
            slot.rows.remove(id);
        }
    }

    pub(super) fn put_in(&mut self, node: usize, key: &[u8], id: RowId) {
        if self.state.is_flat(node) {
            self.state.flat_rows += 1;
        } else if let Some(slot) = self.state.nodes[node].get_mut(key) {
            slot.rows.insert(id);
        }
    }

    pub(super) fn slot(&mut self, node: usize, key: &[u8]) -> Option<&mut Slot> {
        self.state.nodes[node].get_mut(key)
    }

    /// Whether a row is part of a node's result, keys and limits aside.
    pub(super) async fn passes(
        &mut self,
        node: usize,
        identity: &[u8],
        look: &Look<'_>,
    ) -> Result<bool, ReadError> {
        let plan = &self.plan.nodes[node];
        let Some(new) = look.new else { return Ok(false) };
        if matches!(plan.statements, Statements::Never) || !plan.may_hold(new) {
            return Ok(false);
        }
        if self.pace.due() {
            self.pace.rest().await;
        }
        if plan.is_exact() {
            return Ok(true);
        }
        let key = crate::model::key::values(identity);
        let mut statement = self.reader.prepare(&plan.holds.text)?;
        let mut rows = statement.query(crate::zql::evaluate::parameters(&key, &plan.holds.constants))?;
        Ok(rows.next()?.is_some())
    }

    /// A row comes to a node. The caller puts it into its slot.
    pub(super) fn row_in(
        &mut self,
        node: usize,
        identity: &[u8],
        row: Option<&Row>,
    ) -> Result<RowId, ReadError> {
        if let Some(row) = row {
            self.check(node, row)?;
        }
        let id = self.rows.borrow_mut().intern(self.layout.identities[node], identity);
        let Some(row) = row else { return Ok(id) };
        if self.plan.nodes[node].emitted {
            self.note(id);
            self.state.enter(id);
        }
        self.move_keys(node, row, 1);
        Ok(id)
    }

    /// A row of a node that stays may have other children.
    pub(super) fn row_stays(&mut self, node: usize, look: &Look) -> Result<(), ReadError> {
        let (true, Some(old), Some(new)) = (look.changed, look.old, look.new) else { return Ok(()) };
        self.move_keys(node, old, -1);
        self.move_keys(node, new, 1);
        self.check(node, new)
    }

    /// A row leaves a node. The caller has taken it out of its slot.
    pub(super) fn row_out(&mut self, node: usize, id: RowId) -> Result<(), ReadError> {
        let changed = self.changed.of(self.layout.identities[node]);
        let at = changed.find(self.rows.borrow().key_of(id));
        match at {
            Some(at) => self.row_out_as(node, id, changed.get(at).old),
            None if self.plan.nodes[node].children.is_empty() => self.row_out_as(node, id, None),
            None => {
                // It did not change, so it is what it was.
                let row = self.lookup(node, id)?;
                self.row_out_as(node, id, row.as_ref())
            }
        }
    }

    pub(super) fn row_out_as(&mut self, node: usize, id: RowId, old: Option<&Row>) -> Result<(), ReadError> {
        if let Some(old) = old {
            self.move_keys(node, old, -1);
        }
        if self.plan.nodes[node].emitted {
            self.note(id);
            self.state.leave(id);
        }
        self.rows.borrow_mut().release(id);
        Ok(())
    }

    fn lookup(&self, node: usize, id: RowId) -> Result<Option<Row>, ReadError> {
        let plan = &self.plan.nodes[node];
        let key = crate::model::key::values(self.rows.borrow().key_of(id));
        let mut statement = self.reader.prepare(&plan.lookup.text)?;
        let mut rows = statement.query(crate::zql::evaluate::parameters(&key, &plan.lookup.constants))?;
        rows.next()?.map(|row| super::read::row(plan, row)).transpose()
    }

    /// One parent row more, or fewer, has its keys.
    fn move_keys(&mut self, node: usize, row: &Row, count: i64) {
        for child in &self.plan.nodes[node].children {
            if let Some(key) = identity_bytes(&self.plan.nodes[*child].parent_columns, row) {
                *self.moved[*child].entry(key.into()).or_default() += count;
            }
        }
    }

    /// Whether clients can hold the row.
    fn check(&self, node: usize, row: &Row) -> Result<(), ReadError> {
        match self.plan.nodes[node].emitted {
            true => self.layout.encoders[node].check(|_, column| Ok((&row[column as usize]).into())),
            false => Ok(()),
        }
    }
}

/// The candidates of a node as rows, each once.
fn looks<'l>(node: &Node, changed: &'l ChangedRows<'_>, found: &'l [Candidate]) -> Looks<'l> {
    let mut out = Looks::new();
    for candidate in found {
        let (identity, at) = match candidate {
            Candidate::Changed(at) => (changed.get(*at).identity.clone(), Some(*at)),
            Candidate::Touched(row) => {
                let Some(identity) = identity_bytes(&node.key, row) else { continue };
                let at = changed.find(&identity);
                (identity.into(), at)
            }
        };
        let look = match (at, candidate) {
            (Some(at), _) => Look { old: changed.get(at).old, new: changed.get(at).new, changed: true },
            (None, Candidate::Touched(row)) => Look { old: Some(row), new: Some(row), changed: false },
            (None, Candidate::Changed(_)) => continue,
        };
        out.insert(identity, look);
    }
    out
}
