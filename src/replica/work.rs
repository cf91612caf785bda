//! What the writer is given to do: decoded changes in upstream's order.

use std::sync::Arc;
use std::time::Instant;

use kelvin_io::channel::Sender;
use smallvec::SmallVec;

use super::live_indexes::IndexRequest;
use crate::model::catalogue::{Catalogue, ColumnIndex};
use crate::model::commit::{Row, RowKey};
use crate::model::ids::TableId;
use crate::model::version::StateVersion;

/// How the row before an update or a deletion is found.
#[derive(Debug, Clone, PartialEq)]
pub enum Before {
    /// By the key of the new row: the key did not change.
    SameKey,
    /// By this key.
    Key(RowKey),
    /// By all its values: the table has no key (REPLICA IDENTITY FULL).
    Whole(Row),
}

/// Columns that a new row does not carry because they did not change (TOAST).
pub type Absent = SmallVec<[ColumnIndex; 4]>;

/// One step of an upstream transaction: what a source yields.
#[derive(Debug, Clone, PartialEq)]
pub enum Op {
    /// A transaction begins.
    Begin {
        /// Its commit position.
        version: StateVersion,
        /// Its end is in the same batch, so it cannot hold up what came before it.
        whole: bool,
    },
    /// A new row, or one that replaces the row with its key.
    Insert {
        /// Where.
        table: TableId,
        /// All columns.
        row: Row,
    },
    /// A changed row.
    Update {
        /// Where.
        table: TableId,
        /// The row that it was.
        before: Before,
        /// The row that it is; NULL in the absent columns.
        row: Row,
        /// Columns that stay as they were.
        absent: Absent,
    },
    /// A removed row.
    Delete {
        /// Where.
        table: TableId,
        /// The row that it was; never [`Before::SameKey`].
        before: Before,
    },
    /// From here on the tables are these, until the next such operation.
    Schema {
        /// What the catalogue of before has become ([`Catalogue::followed_by`]).
        catalogue: Arc<Catalogue>,
    },
    /// All rows of these tables go.
    Truncate {
        /// Which.
        tables: Vec<TableId>,
    },
    /// The transaction is complete.
    Commit,
    /// Upstream has nothing more for us below this position.
    Seen {
        /// Not inside a transaction.
        position: StateVersion,
    },
    /// The rest of the transaction, if one is open, will not come: the connection was lost, or the schema
    /// changed under it. What has been applied of it is undone.
    Abort,
}

/// Ops that came together.
#[derive(Debug, Default)]
pub struct Operations {
    /// In order.
    pub ops: Vec<Op>,
    /// When the last bytes of it were received, if they came from upstream.
    pub arrived: Option<Instant>,
}

/// What waits for the writer.
#[derive(Debug)]
pub enum Work {
    /// Changes from the source.
    Changes(Operations),
    /// Queries would read by an index that is not there. Not before what else waits is done.
    Index(IndexRequest),
    /// Something for a table that is being filled. Done between two transactions of upstream's.
    Fill(FillWork),
    /// No more comes of what is open: complete transactions are committed, the rest is undone, and then it is told
    /// where the replica is.
    Settle(Sender<Reached>),
}

/// Makes rows out of what was copied, on the writer's thread: all columns, in the catalogue's order. An error says what
/// cannot be stored.
pub type Copied = Box<dyn FnOnce() -> Result<Vec<Row>, String> + Send>;

/// The filling of a table ([`Catalogue::filling`]), step by step.
pub enum FillWork {
    /// Its rows are copied, from the beginning, as they were after all transactions below this position.
    Begin {
        /// Which.
        table: TableId,
        /// Changes from here on come by the stream.
        from: StateVersion,
    },
    /// Some of them. The answer says how many, or what is wrong.
    Rows {
        /// Of which.
        table: TableId,
        /// The rows.
        rows: Copied,
        /// Where the answer goes.
        reply: Sender<Result<u64, String>>,
    },
    /// That was all of them. The answer comes when what the stream has brought meanwhile has been added.
    End {
        /// Of which.
        table: TableId,
        /// Where the answer goes.
        reply: Sender<()>,
    },
}

impl std::fmt::Debug for FillWork {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (what, table) = match self {
            FillWork::Begin { table, .. } => ("Begin", table),
            FillWork::Rows { table, .. } => ("Rows", table),
            FillWork::End { table, .. } => ("End", table),
        };
        write!(f, "{what}({table:?})")
    }
}

/// Where the replica is.
#[derive(Debug, Clone, PartialEq)]
pub struct Reached {
    /// Last applied transaction.
    pub version: StateVersion,
    /// Position below which upstream has nothing more for us; not below `version`.
    pub position: StateVersion,
    /// Tables at that version, as upstream has them.
    pub catalogue: Arc<Catalogue>,
}

impl Reached {
    /// Where to continue: after the transaction whose commit record is at `version`, but
    /// with one whose record is at a later `position`, which lies behind what was seen.
    pub fn resume_at(&self) -> StateVersion {
        StateVersion(self.position.0.max(self.version.0 + 1))
    }
}
