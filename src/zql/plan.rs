//! A query resolved against the catalogue: one statement per node of its tree.
//!
//! Nodes are the root, every `related` subquery, and every EXISTS whose rows clients are
//! sent as witnesses. Node 0 is the root; a node comes after its parent. Whether an EXISTS
//! holds is decided inside its parent's statement; the node only lists its witnesses. Beside
//! the nodes a plan lists its conditions, for those who look again at rows (rules 4 and 5).

use std::sync::Arc;

use super::builder::Statement;
use super::limits::TooMuch;
use super::order::{Cursor, Order};
use super::predicate::Predicate;
use super::sql::{Refill, Statements};
use crate::model::catalogue::{Catalogue, ColumnIndex, Table};
use crate::model::ids::TableId;
use crate::model::value::Value;
use crate::replica::live_indexes::IndexRequest;

pub use super::planner::plan;

/// Most rows of an EXISTS that are sent per parent key (ruling 1).
pub const MAX_WITNESSES: usize = 3;

/// Why a query cannot be executed. Named to the app, so it says which name is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanError(pub String);

impl PlanError {
    pub(super) fn new(message: impl Into<String>) -> PlanError {
        PlanError(message.into())
    }
}

impl std::fmt::Display for PlanError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for PlanError {}

impl From<TooMuch> for PlanError {
    fn from(what: TooMuch) -> PlanError {
        PlanError(what.0)
    }
}

/// How clients know the rows of each table.
pub trait Keys {
    /// Key columns that the client schema names, sorted by name; `None` if the client
    /// schema lacks the table, whose rows are then never sent (ruling 8).
    fn client_key(&self, table: &Table) -> Option<Vec<ColumnIndex>>;
}

/// What a node is in its query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The query itself.
    Root,
    /// Rows below each parent row.
    Related,
    /// Up to [`MAX_WITNESSES`] rows that show why an EXISTS holds.
    Witness,
}

/// One node.
#[derive(Debug)]
pub struct Node {
    /// Table that its rows come from.
    pub table: TableId,
    /// Columns that identify a row for clients, sorted by name.
    pub key: Arc<[ColumnIndex]>,
    /// Whether its rows are sent at all.
    pub emitted: bool,
    /// What it is.
    pub kind: Kind,
    /// Position of the parent in [`Plan::nodes`].
    pub parent: Option<usize>,
    /// Positions of its children.
    pub children: Vec<usize>,
    /// Columns of the parent's table that select rows here.
    pub parent_columns: Vec<ColumnIndex>,
    /// Columns of this table that are equal to those.
    pub child_columns: Vec<ColumnIndex>,
    /// Columns that a statement returns, in order: all that clients may see.
    pub columns: Arc<[ColumnIndex]>,
    /// Columns of the table.
    pub width: usize,
    /// Its statements.
    pub statements: Statements,
    /// Whether the row with a given key passes the filter and the cursor: it gives one row if so.
    pub holds: Statement,
    /// The row with a given key, whether it passes or not.
    pub lookup: Statement,
    /// Part of the filter that one row alone decides.
    pub filter: Predicate,
    /// The conditions of its filter that one row does not decide: positions in
    /// [`Plan::conditions`]. If there are none, the filter and the cursor decide alone.
    pub conditions: Vec<usize>,
    /// Where its rows begin.
    pub cursor: Option<Cursor>,
    /// Order of its rows, completed with the key.
    pub order: Arc<Order>,
    /// Most rows, per parent key for a child.
    pub limit: Option<u64>,
    /// Of a node with a limit: rows after those that it has.
    pub refill: Option<Refill>,
}

impl Node {
    /// Where a statement's rows have this column.
    pub fn position(&self, column: ColumnIndex) -> usize {
        self.columns.binary_search(&column).unwrap_or(usize::MAX)
    }

    /// Whether one row alone decides about itself.
    pub fn is_exact(&self) -> bool {
        self.conditions.is_empty()
    }

    /// Whether the row may pass: all that one row alone can tell.
    pub fn may_hold(&self, row: &[Value]) -> bool {
        self.filter.may_hold(row) && self.cursor.as_ref().is_none_or(|c| c.admits(&self.order, row))
    }
}

/// A query that can be executed at one schema epoch.
#[derive(Debug)]
pub struct Plan {
    /// The tree; parents first.
    pub nodes: Vec<Node>,
    /// Every EXISTS and NOT EXISTS that can change its answer, each after those inside it.
    pub conditions: Vec<Exists>,
    /// Every table that the answer depends on, witnesses and conditions included.
    pub tables: Vec<TableId>,
    /// Indexes that are not there and by which it would be read.
    pub index_requests: Vec<IndexRequest>,
    /// About how many bytes it takes, without the texts of its statements: plans of one shape share them.
    pub bytes: usize,
}

impl Plan {
    /// Whether the tables, columns and keys that it asks by are still there.
    pub fn is_answerable(&self, catalogue: &Catalogue) -> bool {
        let is_known = |id: &TableId| catalogue.find(*id).is_some();
        self.tables.iter().all(is_known)
            && self.nodes.iter().all(|node| self.is_node_answerable(node, catalogue))
            && self.conditions.iter().all(|condition| condition.is_answerable(catalogue))
    }

    fn is_node_answerable(&self, node: &Node, catalogue: &Catalogue) -> bool {
        let table = catalogue.get(node.table);
        let mut used = [&node.key[..], &node.child_columns].concat();
        node.filter.columns(&mut used);
        used.extend(node.order.iter().map(|(column, _)| *column));
        let parent = node.parent.map(|parent| catalogue.get(self.nodes[parent].table));
        let mut key = node.key.to_vec();
        key.sort_unstable();
        let is_key = |candidate: &Vec<ColumnIndex>| {
            let mut candidate = candidate.clone();
            candidate.sort_unstable();
            candidate == key
        };
        are_there(&used, table)
            && parent.is_none_or(|parent| are_there(&node.parent_columns, parent))
            && (!node.emitted || table.candidate_keys.iter().any(is_key))
    }

    /// The statement that lists the rows of the root, without its constants.
    pub fn text(&self) -> &str {
        match self.nodes.first().map(|root| &root.statements) {
            Some(Statements::Once(once)) => &once.statement.text,
            Some(Statements::PerKey(statement) | Statements::Batch(statement)) => &statement.text,
            Some(Statements::Witness { fill, .. }) => &fill.text,
            Some(Statements::Never) | None => "",
        }
    }
}

/// A condition on the rows of another table: EXISTS or NOT EXISTS. Whose rows change looks
/// again at the parents with the same key (rule 5).
#[derive(Debug)]
pub struct Exists {
    /// What is asked, as bytes: conditions with equal bytes are one for all views.
    pub shape: Arc<[u8]>,
    /// Table of the rows that have the condition.
    pub parent_table: TableId,
    /// Their correlated columns.
    pub parent_columns: Vec<ColumnIndex>,
    /// Table of the subquery.
    pub table: TableId,
    /// Its columns, pairwise equal to those.
    pub child_columns: Vec<ColumnIndex>,
    /// Part of its filter that one row alone decides.
    pub filter: Predicate,
    /// Where its rows begin, and the order that this means.
    pub cursor: Option<(Cursor, Arc<Order>)>,
    /// Columns whose change can change whether a row counts, and for which parent.
    pub structural: Vec<ColumnIndex>,
    /// Conditions directly inside it, by position in [`Plan::conditions`].
    pub nested: Vec<usize>,
    /// The node that sends its rows, if there is one.
    pub witness: Option<usize>,
    /// Parents with a given key: all columns of the table. `None`: that would be a scan.
    pub parents: Option<Arc<str>>,
}

/// Whether a table still has columns.
fn are_there(columns: &[ColumnIndex], table: &Table) -> bool {
    columns.iter().all(|column| !table.columns[usize::from(*column)].gone)
}

impl Exists {
    fn is_answerable(&self, catalogue: &Catalogue) -> bool {
        are_there(&self.structural, catalogue.get(self.table))
            && are_there(&self.parent_columns, catalogue.get(self.parent_table))
    }

    /// Whether the row may count: all that one row alone can tell.
    pub fn may_hold(&self, row: &[Value]) -> bool {
        self.filter.may_hold(row)
            && self.cursor.as_ref().is_none_or(|(cursor, order)| cursor.admits(order, row))
    }
}
