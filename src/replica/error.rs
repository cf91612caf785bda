//! Failures of the replica file.

use std::path::PathBuf;

/// What went wrong with the file or the database in it.
#[derive(Debug)]
pub enum Error {
    /// SQLite refused.
    Sqlite {
        /// What was being done, as in "while …".
        doing: &'static str,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// The file system refused.
    Io {
        /// What was being done, as in "while …".
        doing: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The source yielded an operation that the replica cannot have: in the wrong place, or not of its catalogue.
    Misfit(&'static str),
    /// A thread of the replica ended early. The panic hook has said why.
    ThreadGone(&'static str),
}

impl Error {
    /// Whether the file itself is damaged, so that only a new one helps.
    pub fn is_corruption(&self) -> bool {
        use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
        match self {
            Error::Sqlite { source, .. } => {
                matches!(source.sqlite_error_code(), Some(DatabaseCorrupt | NotADatabase))
            }
            _ => false,
        }
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Error::Sqlite { doing, source } => write!(f, "while {doing}: {source}"),
            Error::Io { doing, path, source } => write!(f, "while {doing} {}: {source}", path.display()),
            Error::Misfit(what) => write!(f, "the source of changes yielded {what}"),
            Error::ThreadGone(name) => write!(f, "the {name} thread ended unexpectedly"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Sqlite { source, .. } => Some(source),
            Error::Io { source, .. } => Some(source),
            Error::Misfit(_) | Error::ThreadGone(_) => None,
        }
    }
}

/// Names what was being done when SQLite failed.
pub(super) trait Doing<T> {
    fn doing(self, doing: &'static str) -> Result<T, Error>;
}

impl<T> Doing<T> for rusqlite::Result<T> {
    fn doing(self, doing: &'static str) -> Result<T, Error> {
        self.map_err(|source| Error::Sqlite { doing, source })
    }
}
