//! One shared view: what it holds, and what a batch of changes means for it.

use std::rc::Rc;

use hashbrown::{HashMap, HashSet};
use smallvec::SmallVec;

use super::fragment::{Encoder, is_safe};
use super::journal::{Delta, Journal};
use super::rows::{IdentityId, RowId, RowSet, Rows};
use crate::changes::batch::{Batch, Change, TableBatch};
use crate::changes::commit::Row;
use crate::changes::version::StateVersion;
use crate::replica::catalogue::ColumnIndex;
use crate::zql::key;
use crate::zql::plan::{Kind, Node, Plan, Watch};

/// Witnesses of one EXISTS for one parent key: node, correlation key.
pub type WitnessKey = (u16, Box<[u8]>);

/// What a view holds at one version.
#[derive(Debug, Default)]
pub struct State {
    /// Rows sent, each once, in order of their numbers.
    pub members: Box<[RowId]>,
    /// Hashes of the correlation keys in scope, per `related` node. A collision costs an
    /// evaluation, never a wrong answer.
    pub scopes: Vec<HashSet<u64>>,
    /// Rows that show why an EXISTS holds.
    pub witnesses: HashMap<WitnessKey, SmallVec<[RowId; 3]>>,
}

impl State {
    /// Whether the row is a member.
    pub fn contains(&self, id: RowId) -> bool {
        self.members.binary_search(&id).is_ok()
    }
}

/// How the nodes of a plan map to identities and encoders; by node.
pub struct Layout {
    /// `None` for nodes whose rows are not sent.
    pub identities: Vec<Option<IdentityId>>,
    /// Encoders of the same nodes.
    pub encoders: Vec<Option<Rc<Encoder>>>,
    /// No other emitted node reads the same table.
    pub distinct: Vec<bool>,
}

/// What a batch means for a view.
#[derive(Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    None,
    /// The same rows, some with other contents.
    Contents(Vec<RowId>),
    /// Rows may have come or gone: evaluate again. Holds the rows whose contents changed, if
    /// they stay.
    Evaluate(Vec<RowId>),
}

/// Number of a view on this core.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ViewId(pub u32);

/// One view, shared by every group of the core that wants it.
pub struct View {
    /// One life of one view; never used again (rules, "incarnation").
    pub incarnation: u64,
    /// The query.
    pub plan: Rc<Plan>,
    /// Its identities and encoders.
    pub layout: Rc<Layout>,
    /// Version of its last change.
    pub at: StateVersion,
    /// Hydrated, and kept at the core's version by every batch.
    pub live: bool,
    /// What it holds.
    pub state: Rc<State>,
    /// What happened of late.
    pub journal: Journal,
}

impl View {
    /// What a batch means for this view (rule 4, for an engine that evaluates again).
    pub fn effect(&self, batch: &Batch, rows: &Rows) -> Effect {
        let mut edited = RowSet::default();
        let mut evaluate = false;
        for (index, node) in self.plan.nodes.iter().enumerate() {
            match batch.tables.get(&node.table) {
                None => {}
                Some(TableBatch::Bulk) => {
                    evaluate = true;
                    edited.extend(self.members_of(index, rows));
                }
                Some(TableBatch::Rows(changes)) => {
                    for change in changes {
                        evaluate |= self.change(index, node, change, rows, &mut edited);
                    }
                }
            }
        }
        evaluate |= self.plan.watches.iter().any(|watch| match batch.tables.get(&watch.table) {
            None => false,
            Some(TableBatch::Bulk) => true,
            Some(TableBatch::Rows(changes)) => changes.iter().any(|c| watched(watch, c)),
        });
        let mut edited: Vec<RowId> = edited.into_iter().collect();
        edited.sort_unstable();
        match (evaluate, edited.is_empty()) {
            (true, _) => Effect::Evaluate(edited),
            (false, true) => Effect::None,
            (false, false) => Effect::Contents(edited),
        }
    }

    /// Notes a member whose contents changed; true if the change may move rows.
    fn change(&self, index: usize, node: &Node, change: &Change, rows: &Rows, edited: &mut RowSet) -> bool {
        let relevant = |row: Option<&Row>| {
            row.is_some_and(|row| self.in_scope(index, node, row) && node.filter.may_hold(row))
        };
        if !relevant(change.old) && !relevant(change.new) {
            return false;
        }
        let differs = match (change.old, change.new) {
            (Some(old), Some(new)) => visibly_differs(node, old, new),
            _ => true,
        };
        if let Some(identity) = self.layout.identities[index].filter(|_| differs) {
            // Clients may know the row by another key than the replica: the identity that a
            // row gave up, or took, may be that of a member that stays (rule 3).
            for row in change.old.into_iter().chain(change.new) {
                if let Some(id) = identity_bytes(&node.key, row).and_then(|bytes| rows.find(identity, &bytes))
                    && self.state.contains(id)
                {
                    edited.insert(id);
                }
            }
        }
        match (change.old, change.new) {
            (Some(old), Some(new)) => {
                let differs = |c: &ColumnIndex| old[*c as usize] != new[*c as usize];
                // A value that no client can hold makes the query fail, which evaluation finds.
                let unsafe_now = |c: &ColumnIndex| differs(c) && !is_safe((&new[*c as usize]).into());
                node.structural.iter().any(differs) || node.columns.iter().any(unsafe_now)
            }
            _ => true,
        }
    }

    fn in_scope(&self, index: usize, node: &Node, row: &Row) -> bool {
        if node.kind != Kind::Related || self.under_condition(index) {
            return true;
        }
        match identity_bytes(&node.child_columns, row) {
            Some(bytes) => self.state.scopes.get(index).is_some_and(|s| s.contains(&key::hash(&bytes))),
            None => false,
        }
    }

    /// Whether a condition stands between the node and the root.
    fn under_condition(&self, index: usize) -> bool {
        let mut at = Some(index);
        while let Some(i) = at {
            if self.plan.nodes[i].kind == Kind::Witness {
                return true;
            }
            at = self.plan.nodes[i].parent;
        }
        false
    }

    fn members_of(&self, index: usize, rows: &Rows) -> Vec<RowId> {
        let Some(identity) = self.layout.identities[index] else { return Vec::new() };
        self.state.members.iter().copied().filter(|id| rows.identity_of(*id) == identity).collect()
    }

    /// Takes the result of an evaluation at `end`. `edited`: rows whose contents changed.
    /// Returns whether anything did.
    pub fn replace(&mut self, state: State, edited: &[RowId], end: StateVersion, rows: &mut Rows) -> bool {
        let delta = difference(&self.state.members, &state.members, edited, end);
        let changed = !delta.is_empty();
        self.journal.push(delta, rows);
        rows.release_all(&self.state.members);
        self.state = Rc::new(state);
        self.at = end;
        changed
    }

    /// Takes changed contents of members that stay.
    pub fn edit(&mut self, edited: Vec<RowId>, end: StateVersion, rows: &mut Rows) {
        self.journal.push(Delta { end, edited, ..Delta::default() }, rows);
        self.at = end;
    }
}

/// Whether a change may make a condition that sends no rows true or false for some parent.
fn watched(watch: &Watch, change: &Change) -> bool {
    let may_hold = |row: Option<&Row>| row.is_some_and(|row| watch.filter.may_hold(row));
    if !may_hold(change.old) && !may_hold(change.new) {
        return false;
    }
    match (change.old, change.new) {
        (Some(old), Some(new)) => watch.structural.iter().any(|c| old[*c as usize] != new[*c as usize]),
        _ => true,
    }
}

/// Bytes of a key out of a row in catalogue order; `None` if a column is null.
pub fn identity_bytes(key_columns: &[ColumnIndex], row: &Row) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(32);
    for column in key_columns {
        if !key::push((&row[*column as usize]).into(), &mut bytes) {
            return None;
        }
    }
    Some(bytes)
}

fn visibly_differs(node: &Node, old: &Row, new: &Row) -> bool {
    node.columns.iter().any(|c| old[*c as usize] != new[*c as usize])
}

/// Compares two sorted member lists.
fn difference(before: &[RowId], after: &[RowId], edited: &[RowId], end: StateVersion) -> Delta {
    let mut delta = Delta { end, ..Delta::default() };
    let (mut b, mut a) = (0, 0);
    loop {
        match (before.get(b), after.get(a)) {
            (None, None) => break,
            (Some(old), Some(new)) if old == new => {
                if edited.binary_search(old).is_ok() {
                    delta.edited.push(*old);
                }
                b += 1;
                a += 1;
            }
            (Some(old), new) if new.is_none_or(|new| old < new) => {
                delta.left.push(*old);
                b += 1;
            }
            (_, Some(new)) => {
                delta.entered.push(*new);
                a += 1;
            }
            (Some(_), None) => unreachable!("covered by the guard above"),
        }
    }
    delta
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_names_what_came_went_and_changed() {
        let ids = |ids: &[u32]| -> Vec<RowId> { ids.iter().map(|i| RowId(*i)).collect() };
        let delta = difference(&ids(&[1, 2, 3, 9]), &ids(&[2, 3, 4]), &ids(&[1, 3, 4]), StateVersion(5));
        assert_eq!(delta.left, ids(&[1, 9]));
        assert_eq!(delta.entered, ids(&[4]));
        assert_eq!(delta.edited, ids(&[3]), "only rows that stay are edited");
    }
}
