//! The wire: handshake, messages up and down, LexiVersion, errors.
//!
//! Follows `docs/spec/sync-protocol.md`. Pure: bytes in, values out, and back.

pub mod lexi;
