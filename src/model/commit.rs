//! The unit of replication that every core hears of (rule 1).

use std::collections::HashMap;

use crate::model::catalogue::Table;
use crate::model::ids::TableId;
use crate::model::value::Value;
use crate::model::version::StateVersion;

/// All columns of one row, in catalogue order, without `_0_version`.
pub type Row = Box<[Value]>;

/// Values of a table's row key, in key order.
pub type RowKey = Box<[Value]>;

/// Net change of one row by one transaction. A change of the key is a removal of the
/// old row and an addition of the new one.
#[derive(Debug, Clone, PartialEq)]
pub struct RowChange {
    /// Key by which the replica knows the row.
    pub key: RowKey,
    /// The whole row before the transaction, unchanged TOAST values merged in.
    pub old: Option<Row>,
    /// The whole row after it.
    pub new: Option<Row>,
}

impl RowChange {
    /// Gives rows of before the table got its newest columns what they have in them.
    pub fn widen(&mut self, table: &Table) {
        for row in self.old.iter_mut().chain(&mut self.new).filter(|row| row.len() < table.columns.len()) {
            let mut values = std::mem::take(row).into_vec();
            values.extend(table.columns[values.len()..].iter().map(|column| column.missing.clone()));
            *row = values.into_boxed_slice();
        }
    }
}

/// What happened to one table.
#[derive(Debug, Clone, PartialEq)]
pub enum TableChange {
    /// Every changed row.
    Rows(Vec<RowChange>),
    /// Too much or too general to list: truncation, or more rows than
    /// [`MAX_ROWS_PER_TABLE`]. Whoever uses the table looks at all of it again.
    Bulk,
}

/// One or several upstream transactions, applied to the replica as one.
#[derive(Debug, Clone, PartialEq)]
pub struct Commit {
    /// State of the replica after it.
    pub version: StateVersion,
    /// State before it. A receiver whose last version differs has a gap.
    pub previous: StateVersion,
    /// Changed tables, net over the commit.
    pub tables: HashMap<TableId, TableChange>,
    /// Approximate size of the rows in bytes, for queue budgets.
    pub size: usize,
}

/// Most rows of one table that a commit lists; above it the table is `Bulk`.
///
/// Looking at ten thousand rows one by one costs about as much as evaluating a large
/// query again, and a commit is held in memory until the slowest core has taken it.
pub const MAX_ROWS_PER_TABLE: usize = 10_000;
