//! The wire: handshake, messages up and down, LexiVersion, errors.
//!
//! Follows `docs/spec/sync-protocol.md`. Pure: bytes in, values out, and back.

pub mod client_schema;
pub mod connect;
pub mod cookie;
pub mod downstream;
pub mod error;
pub mod inspect;
mod list;
pub mod parse;
pub(crate) mod problem;
pub mod upstream;
