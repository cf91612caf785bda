//! One shared view: what it asks, what it holds, and what happened to it.

use std::rc::Rc;

use super::fragment::Encoder;
use super::interests::ShapeId;
use super::journal::{Delta, Journal};
use super::rows::{IdentityId, RowId, Rows};
use super::state::State;
use crate::changes::commit::Row;
use crate::changes::version::StateVersion;
use crate::replica::catalogue::ColumnIndex;
use crate::zql::key;
use crate::zql::plan::{Node, Plan};

/// How the nodes of a plan map to identities and encoders; by node.
pub struct Layout {
    /// How clients know the node's rows.
    pub identities: Vec<IdentityId>,
    /// Encoders of the same.
    pub encoders: Vec<Rc<Encoder>>,
    flat: Option<IdentityId>,
}

impl Layout {
    /// Of a plan.
    pub fn new(plan: &Plan, identities: Vec<IdentityId>, encoders: Vec<Rc<Encoder>>) -> Layout {
        let root = identities[0];
        let emitted = |(node, _): &(&Node, &IdentityId)| node.emitted;
        let of_root = plan.nodes.iter().zip(&identities).filter(emitted).filter(|(_, i)| **i == root);
        let flat = (plan.nodes[0].emitted && of_root.count() == 1).then_some(root);
        Layout { identities, encoders, flat }
    }

    /// The identity of the root's rows, if no other node sends rows of it.
    pub fn flat(&self) -> Option<IdentityId> {
        self.flat
    }
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
    /// What it holds. Empty while a batch brings it forward.
    pub state: State,
    /// Rows that it sends.
    pub size: usize,
    /// What happened of late.
    pub journal: Journal,
    /// Numbers of the plan's conditions, while it is live.
    pub shapes: Rc<[ShapeId]>,
}

impl View {
    /// Takes the result of an evaluation at `end`. `edited`: tells which rows have other
    /// contents. Returns whether anything did.
    pub fn replace(
        &mut self,
        state: State,
        edited: impl Fn(RowId) -> bool,
        end: StateVersion,
        rows: &mut Rows,
    ) -> bool {
        let delta = difference(&self.state.sorted(), &state.sorted(), edited, end);
        let changed = !delta.is_empty();
        self.journal.push(delta, rows);
        self.state.release(rows);
        self.size = state.len();
        self.state = state;
        self.at = end;
        changed
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

/// Compares two sorted member lists.
fn difference(before: &[RowId], after: &[RowId], edited: impl Fn(RowId) -> bool, end: StateVersion) -> Delta {
    let mut delta = Delta { end, ..Delta::default() };
    let (mut b, mut a) = (0, 0);
    loop {
        match (before.get(b), after.get(a)) {
            (None, None) => break,
            (Some(old), Some(new)) if old == new => {
                if edited(*old) {
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
        let delta = difference(
            &ids(&[1, 2, 3, 9]),
            &ids(&[2, 3, 4]),
            |id| [1, 3, 4].contains(&id.0),
            StateVersion(5),
        );
        assert_eq!(delta.left, ids(&[1, 9]));
        assert_eq!(delta.entered, ids(&[4]));
        assert_eq!(delta.edited, ids(&[3]), "only rows that stay are edited");
    }
}
