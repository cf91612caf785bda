//! What a batch has a view look at.

use std::collections::BTreeMap;
use std::rc::Rc;

use crate::model::commit::Row;
use crate::model::reason::Reason;

/// A row that a node has to look at again.
#[derive(Debug, Clone)]
pub enum Candidate {
    /// One that changed: its place among the changed rows of the node's identity.
    Changed(u32),
    /// One whose condition may be another now; as it is after the batch.
    Touched(Rc<Row>),
}

/// What one view has to look at.
#[derive(Debug, Default)]
pub struct Candidates {
    /// By node.
    pub nodes: BTreeMap<usize, Vec<Candidate>>,
    /// The view has to be read anew.
    pub evaluate: Option<Reason>,
    /// Rows of all nodes.
    pub(super) count: usize,
}
