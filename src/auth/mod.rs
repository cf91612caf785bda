//! Tokens and identity of connections.
//!
//! Decides only: keys, time and what the app said are arguments. `server` fetches and asks.

pub mod claims;
pub mod error;
pub mod guesses;
pub mod key;
pub mod key_set;
pub mod secret;
pub mod signed;
pub mod token;
pub mod upkeep;
