//! The SQLite replica: catalogue, stored values, writer, readers.
//!
//! One file in WAL mode. The replication-manager core owns the only writer; every
//! view-syncer core opens readers of its own. Nothing here knows of clients.

pub mod catalogue;
pub mod reader;
pub mod value;
