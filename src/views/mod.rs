//! Shared views: who holds which rows, and what changed.
//!
//! A view is a query as it is executed, held once per core, whichever and however many
//! client groups want it. It is a set of row numbers that is kept equal to what the
//! evaluator finds, by looking again at exactly the rows that a batch may have brought in or
//! taken out: `routing` finds them for all views together, `advance` looks at them. This module
//! decides and never performs: it opens no file, sends nothing, reads no clock.

pub mod advance;
pub mod assemble;
pub mod candidates;
pub mod changed;
pub mod contents;
pub mod cost;
mod deferred_drop;
pub mod difference;
pub mod encoded;
pub mod entries;
pub mod explain;
pub mod journal;
mod limited;
pub mod limits;
pub mod pace;
mod read;
pub mod registry;
pub mod routing;
pub mod rows;
pub mod scan;
pub mod shapes;
pub mod sharded;
pub mod state;
pub mod subscription_index;
pub mod task;
pub mod time_digest;
pub mod view;
pub mod window;
pub mod witnesses;
