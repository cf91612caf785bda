//! Tokens and identity of connections.

pub mod token;
