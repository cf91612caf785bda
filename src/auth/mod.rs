//! Tokens and identity of connections.
