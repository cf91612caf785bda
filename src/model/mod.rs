//! What several folders need and none owns: values and keys of rows, tables, versions, commits, ids.
//!
//! Rules 1 and 2 of `docs/spec/rules.md`.

pub mod batch;
pub mod catalogue;
pub mod codec;
pub mod commit;
pub mod following;
pub mod ids;
pub mod key;
pub mod lexi;
pub mod logging;
pub mod purging;
pub mod reason;
pub mod refill;
pub mod table;
pub mod table_map;
pub mod value;
pub mod version;
