//! One shared view: what it asks, what it holds, and what happened to it.

use std::rc::Rc;
use std::sync::Arc;

use super::cost::Cost;
use super::entries::IdentityId;
use super::journal::Journal;
use super::rows::{RowId, Rows};
use super::state::{Slots, ViewState};
use crate::model::catalogue::ColumnIndex;
use crate::model::commit::Row;
use crate::model::ids::RecordId;
use crate::model::key;
use crate::model::version::StateVersion;
use crate::protocol::row_patch::Encoder;
use crate::zql::plan::{Node, Plan};

/// How the nodes of a plan map to identities and encoders; by node.
pub struct Layout {
    /// How clients know the node's rows.
    pub identities: Vec<IdentityId>,
    /// Encoders of the same.
    pub encoders: Vec<Arc<Encoder>>,
    flat: Option<IdentityId>,
}

impl Layout {
    /// Of a plan.
    pub fn new(plan: &Plan, identities: Vec<IdentityId>, encoders: Vec<Arc<Encoder>>) -> Layout {
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

/// Number of a condition that views of this core share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShapeId(pub u32);

/// Number of a view on this core.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ViewId(pub u32);

/// Whether a view can be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It was not read yet.
    New,
    /// It is kept at the core's version by every batch.
    Live,
    /// It is the query's answer at this version and not after it: it is being read anew. Groups
    /// that have it are held meanwhile (rule 16).
    Stale(StateVersion),
    /// The same of one that a process before this one kept, of which only the rows are known.
    Recorded(StateVersion),
}

/// Bytes of a view without rows: its plan, its texts, its places in the indexes of the core.
const EMPTY: usize = 4_096;

/// Bytes that a row number takes in a set, a slot, or a journal.
const PER_ROW: usize = 8;

/// Bytes that a correlation key takes: itself, its slot, and its place in the subscription index.
const PER_KEY: usize = 180;

/// Rows of a view from which the size of its keys is judged. Few: keys of a table are much alike, and when
/// memory is full the views of all connected groups are judged in one step of the core.
const SAMPLE: usize = 4;

/// One view, shared by every group of the core that wants it.
pub struct View {
    /// One life of one view; never used again (rules, "generation").
    pub generation: u64,
    /// Its life as records have it, once it is recorded: that may go on in the next process.
    pub record: Option<RecordId>,
    /// The query.
    pub plan: Arc<Plan>,
    /// Its identities and encoders.
    pub layout: Rc<Layout>,
    /// Version of its last change.
    pub at: StateVersion,
    /// Whether it can be had.
    pub status: Status,
    /// What it holds. Empty while a batch brings it forward, or a hydration reads it anew.
    pub state: ViewState,
    /// Rows that it sends.
    pub size: usize,
    /// What happened of late.
    pub journal: Journal,
    /// Numbers of the plan's conditions, once it was read.
    pub shapes: Rc<[ShapeId]>,
    /// How often in a row it had to be read anew before it could join its groups.
    pub overtaken: u32,
    /// Bytes of what it asks: its plan, its key, what it was planned from.
    pub asked: usize,
    /// What it costs.
    pub cost: Cost,
}

impl View {
    /// Whether it is at the core's version.
    pub fn is_live(&self) -> bool {
        self.status == Status::Live
    }

    /// About how much memory it takes, in bytes, without the keys of its rows: those are shared.
    pub fn bytes(&self) -> usize {
        let keys: usize = self.state.nodes.iter().map(Slots::len).sum();
        // Rows of a node with keys are in its slots, too.
        let times = if self.state.flat.is_some() { 1 } else { 2 };
        EMPTY + self.asked + keys * PER_KEY + (self.size * times + self.journal.keys()) * PER_ROW
    }

    /// About how much memory the keys of its rows take, in bytes, from a few of them. `own`: of each the
    /// part of one of those who hold it.
    pub fn bytes_of_keys(&self, rows: &Rows, own: bool) -> usize {
        let cost = |id: RowId| {
            let (bytes, holders) = rows.cost_of(id);
            if own { bytes / holders.max(1) as usize } else { bytes }
        };
        let (sum, count) =
            self.state.iter().take(SAMPLE).fold((0, 0), |(sum, count), id| (sum + cost(id), count + 1));
        sum * self.size / count.max(1)
    }

    /// Whether it waits to be read anew.
    pub fn is_stale(&self) -> bool {
        matches!(self.status, Status::Stale(_) | Status::Recorded(_))
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
