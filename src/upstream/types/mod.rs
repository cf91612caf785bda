//! Types and values: from Postgres text to what the replica stores
//! (`docs/spec/replication.md` §7).
//!
//! Streaming sends a type's text output, and [`convert`] takes it. The initial copy asks for
//! binary values where these are simpler ([`Form`]), and for the same text elsewhere; both
//! paths store the same (ruling 29).

mod array;
mod binary;
mod exact;
mod kind;
mod text;
mod time;

pub use binary::{Form, convert_binary};
pub use exact::{ExactKey, is_lossy};
pub use kind::{Element, Kind, TypeFacts, zero_type};
pub use text::convert;

pub use crate::replica::stored::Stored;

/// Above this, not every integer is a double, and a double is stored as such.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// A number as stored: integral ones as integers (smaller on disk, equal in every
/// comparison), NaN and infinities as NULL because no client can hold them.
fn number(n: f64) -> Stored<'static> {
    if !n.is_finite() {
        Stored::Null
    } else if n.trunc() == n && n.abs() < EXACT {
        Stored::Integer(n as i64)
    } else {
        Stored::Real(n)
    }
}

/// Microseconds as stored: milliseconds, with a fraction where there is one.
fn millis(micros: i128) -> Stored<'static> {
    // Beyond 2^53 an integer is one that no client can hold, and a query that has it fails. A date so far away is
    // a number all the same.
    if micros % 1000 == 0 && (micros / 1000).unsigned_abs() < EXACT as u128 {
        Stored::Integer((micros / 1000) as i64)
    } else if micros % 1000 == 0 {
        Stored::Real((micros / 1000) as f64)
    } else {
        Stored::Real(micros as f64 / 1000.0)
    }
}

/// A text that its type does not allow. Postgres never sends one, so it means that the
/// session prints values in a way that we did not ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Malformed {
    /// What was expected.
    pub kind: &'static str,
    /// The start of what came.
    pub text: String,
}

impl Malformed {
    fn new(kind: &'static str, text: &str) -> Self {
        // Enough to recognise a format; not a whole document in a log line.
        Malformed { kind, text: text.chars().take(60).collect() }
    }
}

impl Malformed {
    /// Bytes that are not text at all.
    pub fn not_utf8() -> Self {
        Malformed::bytes("UTF-8 text")
    }

    /// Bytes that are something else.
    pub fn bytes(kind: &'static str) -> Self {
        Malformed { kind, text: String::new() }
    }
}

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} is not a {} as Postgres prints it", self.text, self.kind)
    }
}

impl std::error::Error for Malformed {}
