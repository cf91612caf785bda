//! The wire: handshake, messages up and down, LexiVersion, errors, and the frames around all that goes to clients.
//!
//! Follows `docs/spec/sync-protocol.md`. Pure: bytes in, values out, and back.

mod chunk;
pub mod client_schema;
pub mod connect;
pub mod cookie;
pub mod dialect;
pub mod downstream;
pub mod error;
pub mod inspect;
mod list;
pub mod mutation_result;
pub mod parse;
pub mod poke;
pub mod poke_writer;
pub(crate) mod problem;
pub mod row_part;
pub mod row_patch;
pub mod upstream;
pub mod websocket;
