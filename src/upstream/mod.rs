//! Postgres: shard objects, publications, initial sync, streaming, types.
//!
//! [`manager::run`] is all that the rest of the server calls. It makes the replica ready, and has an
//! [`Engine`](crate::replica::engine::Engine) follow what this folder is to it: a source of changes. What decides is sans-IO
//! ([`decode`], [`pgoutput`], [`copy`], [`keys`], [`acks`], the judging half of
//! [`check`]); the rest talks to Postgres through `kelvin_io::postgres` and to the replica
//! through its threads.

pub mod acks;
mod alignment;
mod announcement;
pub mod attributes;
pub mod check;
pub mod copy;
pub mod decode;
mod error;
mod filling;
mod glance;
mod heartbeat;
mod initial_sync;
pub mod keys;
mod look;
pub mod manager;
pub mod names;
mod partitions;
pub mod pgoutput;
mod progress;
pub mod published;
mod relations;
mod replicas;
mod row_changes;
mod schedule;
pub mod schema_change;
pub mod settings;
mod shape;
pub mod shard;
pub mod slot;
mod snapshot;
mod source;
pub mod start;
pub mod stop;
mod stream;
mod triggers;
pub mod types;
mod watch;

pub use error::Error;
