//! Failures on the upstream side, by what to do about them.

use kelvin_io::postgres;

use super::types::Malformed;
use crate::replica;
use crate::replica::verdict::Failure;

/// Why upstream work did not succeed.
#[derive(Debug)]
pub enum Error {
    /// A conversation with Postgres failed.
    Postgres {
        /// What was being done, as in "while …".
        doing: &'static str,
        /// What went wrong.
        source: postgres::Error,
    },
    /// Upstream is not set up so that it can be replicated; the text says what to change.
    Setup(String),
    /// A migration has rewritten a table while it was copied: the copy has to begin anew.
    Rewritten(String),
    /// The replica file failed.
    Replica(replica::Error),
    /// A value came in a form that it cannot have.
    Value {
        /// `table.column`.
        column: String,
        /// What was expected and what came.
        source: Malformed,
    },
}

/// Others were in the way: a deadlock, a lock that was not had in time, a session that somebody cancelled; or a migration
/// has taken a table or a column away since it was listed.
const IN_THE_WAY: [&str; 5] = ["40P01", "55P03", "57014", "42P01", "42703"];

impl Error {
    /// Whether trying again without changing anything may help.
    pub fn is_transient(&self) -> bool {
        match self {
            Error::Postgres { source, .. } => {
                source.is_transient() || source.sqlstate().is_some_and(|state| IN_THE_WAY.contains(&state))
            }
            Error::Rewritten(_) => true,
            _ => false,
        }
    }

    /// SQLSTATE, if Postgres gave one.
    pub fn sqlstate(&self) -> Option<&str> {
        match self {
            Error::Postgres { source, .. } => source.sqlstate(),
            _ => None,
        }
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Error::Postgres { doing, source } => write!(f, "while {doing}: {source}"),
            Error::Setup(text) => f.write_str(text),
            Error::Rewritten(table) => {
                write!(f, "table {table} was rewritten while it was copied, by a migration or a TRUNCATE")
            }
            Error::Replica(e) => write!(f, "replica: {e}"),
            Error::Value { column, source } => write!(f, "column {column}: {source}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Postgres { source, .. } => Some(source),
            Error::Replica(e) => Some(e),
            Error::Value { source, .. } => Some(source),
            Error::Setup(_) | Error::Rewritten(_) => None,
        }
    }
}

impl From<Error> for Failure {
    fn from(e: Error) -> Self {
        match e {
            Error::Replica(e) => Failure::Replica(e),
            other => Failure::Source(other.to_string()),
        }
    }
}

impl From<replica::Error> for Error {
    fn from(e: replica::Error) -> Self {
        Error::Replica(e)
    }
}

/// Names what was being done when Postgres failed.
pub trait Doing<T> {
    /// As in "while `doing`".
    fn doing(self, doing: &'static str) -> Result<T, Error>;
}

impl<T, E: Into<postgres::Error>> Doing<T> for Result<T, E> {
    fn doing(self, doing: &'static str) -> Result<T, Error> {
        self.map_err(|e| Error::Postgres { doing, source: e.into() })
    }
}
