//! The SQLite replica: catalogue, stored values, writer, readers.
//!
//! One file in WAL mode. The replication-manager core owns the only writer; every
//! view-syncer core opens readers of its own. Nothing here knows of clients, or talks to Postgres.
//!
//! | who | what |
//! |---|---|
//! | [`engine`] | lets a replica live: starts its threads, follows a source, connects again, ends |
//! | [`source`] | what the engine is fed by: upstream's Postgres, as far as this folder knows nobody |
//! | [`file`] | finds out what is at the configured path, sets strangers aside |
//! | [`load`] | fills a new file during an initial sync |
//! | [`writer`] | the thread that applies changes and hands out commits |
//! | [`durable`] | the thread that makes the log durable, after the fact |
//! | [`checkpoint`] | the thread that keeps the log short |
//! | [`schema_change`] | brings the file to what upstream's tables have become |
//! | [`lag`] | how far the replica is behind upstream |
//! | [`live_indexes`] | indexes that live queries need beside upstream's |

pub mod applied;
pub mod apply;
pub mod checkpoint;
pub mod durable;
pub mod engine;
mod error;
pub mod events;
pub mod feed;
pub mod file;
mod filling;
pub mod gauges;
pub mod lag;
pub mod like;
pub mod live_indexes;
pub mod load;
pub mod metadata;
pub mod net;
pub mod op_codec;
pub mod oversize;
pub mod reader;
mod refilling;
pub mod schema;
pub mod schema_change;
mod shift_and;
pub mod source;
mod statements;
pub mod stored;
mod tasks;
mod threads;
pub mod verdict;
pub mod wal;
pub mod work;
pub mod writer;

pub use error::Error;
