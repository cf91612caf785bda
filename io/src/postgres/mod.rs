//! Postgres: ordinary connections through `tokio-postgres`, and the replication protocol,
//! which that crate lacks.
//!
//! Both share one way to a connected, possibly encrypted stream ([`Target`]) and one
//! [`Error`]. Nothing here knows what is replicated or why.

mod connect;
mod error;
mod farewell;
mod startup;
mod stream;
mod walsender;

pub use connect::{Connection, Target, TlsMode, connect};
pub use error::{Error, ServerError};
pub use farewell::until_closed;
pub use walsender::{Message, Reader, SimpleRow, Walsender, Writer};
