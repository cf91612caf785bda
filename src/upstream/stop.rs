//! Why the stream stops before it can be decoded any further.

use super::pgoutput::Invalid;
use super::types::Malformed;

/// Why a stream cannot be decoded any further. What came before is in the batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// The schema is not the catalogue's any more, for this reason: upstream has to be looked at, and what was seen be
    /// given to the decoder.
    Look(String),
    /// The schema has become what the replica cannot follow.
    SchemaChanged(String),
    /// The server, or we, broke the protocol.
    Protocol(String),
    /// A value that its type does not allow.
    Value {
        /// `table.column`.
        column: String,
        /// What was expected and what came.
        source: Malformed,
    },
}

impl From<Invalid> for Stop {
    fn from(e: Invalid) -> Self {
        Stop::Protocol(e.to_string())
    }
}
