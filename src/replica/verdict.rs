//! What ends replication, and what becomes of the process then.

use super::error::Error;

/// Exit code for what an operator must change, and for Postgres being away at start.
pub const EXIT_CONFIGURATION: i32 = 14;

/// Exit code for a replica that cannot be written.
pub const EXIT_REPLICA: i32 = 255;

/// What ends an engine for good.
#[derive(Debug)]
pub enum Verdict {
    /// It was told to, or another process has taken over.
    Stopped,
    /// The replica cannot follow its source any more; what happens depends on the settings.
    CannotFollow(String),
    /// It cannot go on.
    Failed(Failure),
}

/// Why replication cannot go on.
#[derive(Debug)]
pub enum Failure {
    /// The replica's file or one of its threads.
    Replica(Error),
    /// A task ended early. The panic hook has said why.
    TaskGone(&'static str),
    /// The source, in its own words. What to do about it is up to an operator.
    Source(String),
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Failure::Replica(e) => write!(f, "replica: {e}"),
            Failure::TaskGone(what) => write!(f, "a task of replication panicked: {what}"),
            Failure::Source(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for Failure {}

/// Why replication has returned. All its threads have ended then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// It was told to, or another process has taken over.
    Stopped,
    /// The replica cannot follow its source any more: begin again, which syncs anew.
    Resync(String),
    /// It cannot go on, and what must change.
    Failed {
        /// For the log.
        message: String,
        /// For the process.
        exit_code: i32,
    },
}

impl From<Failure> for End {
    fn from(failure: Failure) -> End {
        let exit_code = match failure {
            Failure::Replica(_) | Failure::TaskGone(_) => EXIT_REPLICA,
            Failure::Source(_) => EXIT_CONFIGURATION,
        };
        End::Failed { message: failure.to_string(), exit_code }
    }
}
