//! Kelvin: a sync server for applications written with Rocicorp Zero.
//!
//! `docs/architecture.md` is the map, and says which folder may use which; only the `kelvin-io` crate names
//! the runtime.

pub mod auth;
pub mod backend;
pub mod config;
pub mod core;
pub mod cvr;
pub mod groups;
pub mod model;
pub mod observe;
pub mod protocol;
pub mod replica;
pub mod server;
pub mod testing;
pub mod upstream;
pub mod views;
pub mod zql;
