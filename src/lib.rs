//! Kelvin: a sync server for applications written with Rocicorp Zero.
//!
//! `docs/architecture.md` is the map. Dependencies point downward only:
//! `server → groups → views → zql → replica`; `protocol` knows nobody, and only the
//! `kelvin-io` crate names the runtime.

pub mod auth;
pub mod backend;
pub mod changes;
pub mod config;
pub mod cvr;
pub mod groups;
pub mod observe;
pub mod protocol;
pub mod replica;
pub mod server;
pub mod upstream;
pub mod views;
pub mod zql;
