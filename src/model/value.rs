//! A value as SQLite stores it (`docs/spec/replication.md` §7.2).

use serde::{Deserialize, Serialize};

/// One stored column value.
///
/// Columns are declared so that SQLite never converts what it is given: what the
/// conversion from Postgres produced is what every reader sees.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Value {
    /// SQL NULL. Also NaN and infinities, which no client can hold.
    #[default]
    Null,
    /// Integers and booleans (0 or 1).
    Integer(i64),
    /// Floating point numbers, numerics, and times in milliseconds.
    Real(f64),
    /// Text, and JSON as its text.
    Text(Box<str>),
    /// `bytea`; never sent to clients.
    Blob(Box<[u8]>),
}

impl Value {
    /// A number as the replica stores it: -0 is 0, integers are integers.
    pub fn number(n: f64) -> Value {
        const SAFE: f64 = 9_007_199_254_740_991.0;
        if n.fract() == 0.0 && n.abs() <= SAFE { Value::Integer(n as i64) } else { Value::Real(n) }
    }

    /// Bytes that the value occupies beside the enum itself, for budgets.
    pub fn heap_size(&self) -> usize {
        match self {
            Value::Text(text) => text.len(),
            Value::Blob(bytes) => bytes.len(),
            _ => 0,
        }
    }

    /// Whether this is SQL NULL.
    pub fn is_null(&self) -> bool {
        matches!(self, Value::Null)
    }
}
