//! Postgres: shard objects, publications, initial sync, streaming, types.
//!
//! [`manager::run`] is all that the rest of the server calls. What decides is sans-IO
//! ([`decode`], [`pgoutput`], [`copy`], [`keys`], [`acks`], the judging half of
//! [`check`]); the rest talks to Postgres through `kelvin_io::postgres` and to the replica
//! through its threads.

pub mod acks;
pub mod check;
pub mod copy;
pub mod decode;
mod error;
mod heartbeat;
mod initial_sync;
pub mod keys;
pub mod manager;
pub mod names;
pub mod pgoutput;
mod progress;
pub mod published;
mod replicas;
mod session;
pub mod shard;
pub mod slot;
pub mod start;
mod stream;
mod tasks;
pub mod types;
pub mod wal;
mod watch;

pub use error::Error;
