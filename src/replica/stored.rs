//! A value on its way into the replica, and the binding of values to statements.

use std::borrow::Cow;

use rusqlite::Statement;
use rusqlite::types::{ToSqlOutput, ValueRef};

use crate::model::value::Value;

/// A [`Value`] that borrows from the text it was made of where it can.
#[derive(Debug, Clone, PartialEq)]
pub enum Stored<'a> {
    /// SQL NULL.
    Null,
    /// See [`Value::Integer`].
    Integer(i64),
    /// See [`Value::Real`].
    Real(f64),
    /// See [`Value::Text`].
    Text(Cow<'a, str>),
    /// See [`Value::Blob`].
    Blob(Vec<u8>),
}

impl Stored<'_> {
    /// The owned form.
    pub fn into_value(self) -> Value {
        match self {
            Stored::Null => Value::Null,
            Stored::Integer(i) => Value::Integer(i),
            Stored::Real(r) => Value::Real(r),
            Stored::Text(t) => Value::Text(t.into_owned().into_boxed_str()),
            Stored::Blob(b) => Value::Blob(b.into_boxed_slice()),
        }
    }

    pub(super) fn bind(&self, statement: &mut Statement<'_>, at: usize) -> rusqlite::Result<()> {
        bind(
            statement,
            at,
            match self {
                Stored::Null => ValueRef::Null,
                Stored::Integer(i) => ValueRef::Integer(*i),
                Stored::Real(r) => ValueRef::Real(*r),
                Stored::Text(t) => ValueRef::Text(t.as_bytes()),
                Stored::Blob(b) => ValueRef::Blob(b),
            },
        )
    }
}

/// Binds a value to parameter `at`, counted from 1.
pub(super) fn bind_value(statement: &mut Statement<'_>, at: usize, value: &Value) -> rusqlite::Result<()> {
    bind(
        statement,
        at,
        match value {
            Value::Null => ValueRef::Null,
            Value::Integer(i) => ValueRef::Integer(*i),
            Value::Real(r) => ValueRef::Real(*r),
            Value::Text(t) => ValueRef::Text(t.as_bytes()),
            Value::Blob(b) => ValueRef::Blob(b),
        },
    )
}

fn bind(statement: &mut Statement<'_>, at: usize, value: ValueRef<'_>) -> rusqlite::Result<()> {
    statement.raw_bind_parameter(at, ToSqlOutput::Borrowed(value))
}

/// Reads a column of a result row.
pub(super) fn read_value(row: &rusqlite::Row<'_>, at: usize) -> rusqlite::Result<Value> {
    Ok(match row.get_ref(at)? {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(i) => Value::Integer(i),
        ValueRef::Real(r) => Value::Real(r),
        // What was bound was a string, so nothing is ever replaced here.
        ValueRef::Text(t) => Value::Text(String::from_utf8_lossy(t).into_owned().into_boxed_str()),
        ValueRef::Blob(b) => Value::Blob(b.into()),
    })
}
