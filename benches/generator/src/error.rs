//! Why a bench command could not give its answer.

use std::fmt;
use std::io;

/// A failure of a bench command.
#[derive(Debug)]
pub enum BenchError {
    /// The command line is wrong; the text names the flag and the remedy.
    Usage(String),
    /// The server did not do what the scenario asks for: it refused, closed, answered
    /// wrongly, or was not done within the time limit. Not a number, and never a ratio.
    NotFinished(String),
    /// The generator itself, Postgres or the machine failed.
    Failed(String),
}

impl BenchError {
    /// Exit status of the process.
    pub fn exit_status(&self) -> i32 {
        match self {
            BenchError::Usage(_) => 2,
            BenchError::NotFinished(_) | BenchError::Failed(_) => 1,
        }
    }

    /// Says where a failure happened.
    pub fn at(what: &str, cause: impl fmt::Display) -> BenchError {
        BenchError::Failed(format!("{what}: {cause}"))
    }
}

impl fmt::Display for BenchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BenchError::Usage(text) | BenchError::Failed(text) => f.write_str(text),
            BenchError::NotFinished(text) => write!(f, "did not finish: {text}"),
        }
    }
}

impl std::error::Error for BenchError {}

impl From<io::Error> for BenchError {
    fn from(e: io::Error) -> BenchError {
        BenchError::Failed(e.to_string())
    }
}
