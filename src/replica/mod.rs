//! The SQLite replica: catalogue, stored values, writer, readers.
//!
//! One file in WAL mode. The replication-manager core owns the only writer; every
//! view-syncer core opens readers of its own. Nothing here knows of clients.
//!
//! | who | what |
//! |---|---|
//! | [`file`] | finds out what is at the configured path, sets strangers aside |
//! | [`load`] | fills a new file during an initial sync |
//! | [`writer`] | the thread that applies changes and hands out commits |
//! | [`durable`] | the thread that makes the log durable, after the fact |
//! | [`checkpoint`] | the thread that keeps the log short |
//! | [`lag`] | how far the replica is behind upstream |
//! | [`live_indexes`] | indexes that live queries need beside upstream's |

pub mod applied;
pub mod apply;
pub mod checkpoint;
pub mod durable;
mod error;
pub mod file;
pub mod gauges;
pub mod lag;
pub mod like;
pub mod live_indexes;
pub mod load;
pub mod metadata;
pub mod net;
pub mod reader;
pub mod schema;
mod shift_and;
mod statements;
pub mod stored;
pub mod work;
pub mod writer;

pub use error::Error;
