//! Keys as bytes: one form for identities of rows and for correlation keys (rule 3).
//!
//! Equal values have equal bytes whatever SQLite stored them as: numbers are doubles, -0
//! is 0, an integer equals the real of the same value. A NULL makes no key.

use rusqlite::types::ValueRef;

use crate::model::value::Value;

/// Integers beyond this cannot be told apart as doubles, and no client can hold them.
pub const MAX_SAFE_INTEGER: i64 = 9_007_199_254_740_991;

/// A stored value, borrowed from a row of SQLite or of a commit.
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)]
pub enum Scalar<'a> {
    Null,
    Integer(i64),
    Real(f64),
    Text(&'a [u8]),
    Blob(&'a [u8]),
}

impl<'a> From<ValueRef<'a>> for Scalar<'a> {
    fn from(value: ValueRef<'a>) -> Self {
        match value {
            ValueRef::Null => Scalar::Null,
            ValueRef::Integer(i) => Scalar::Integer(i),
            ValueRef::Real(r) => Scalar::Real(r),
            ValueRef::Text(t) => Scalar::Text(t),
            ValueRef::Blob(b) => Scalar::Blob(b),
        }
    }
}

impl<'a> From<&'a Value> for Scalar<'a> {
    fn from(value: &'a Value) -> Self {
        match value {
            Value::Null => Scalar::Null,
            Value::Integer(i) => Scalar::Integer(*i),
            Value::Real(r) => Scalar::Real(*r),
            Value::Text(t) => Scalar::Text(t.as_bytes()),
            Value::Blob(b) => Scalar::Blob(b),
        }
    }
}

impl Scalar<'_> {
    /// An owned copy.
    pub fn to_value(self) -> Value {
        match self {
            Scalar::Null => Value::Null,
            Scalar::Integer(i) => Value::Integer(i),
            Scalar::Real(r) => Value::Real(r),
            Scalar::Text(t) => Value::Text(String::from_utf8_lossy(t).into()),
            Scalar::Blob(b) => Value::Blob(b.into()),
        }
    }
}

const NUMBER: u8 = 1;
const TEXT: u8 = 2;
const LARGE_INTEGER: u8 = 3;
const BLOB: u8 = 4;

/// Appends one value of a key. False, and nothing appended, for NULL.
pub fn push(value: Scalar, out: &mut Vec<u8>) -> bool {
    match value {
        Scalar::Null => return false,
        Scalar::Integer(i) if i.unsigned_abs() <= MAX_SAFE_INTEGER as u64 => push_number(i as f64, out),
        Scalar::Integer(i) => {
            out.push(LARGE_INTEGER);
            out.extend(i.to_be_bytes());
        }
        Scalar::Real(r) => push_number(r + 0.0, out),
        Scalar::Text(text) => push_bytes(TEXT, text, out),
        Scalar::Blob(bytes) => push_bytes(BLOB, bytes, out),
    }
    true
}

fn push_number(n: f64, out: &mut Vec<u8>) {
    out.push(NUMBER);
    out.extend(n.to_bits().to_be_bytes());
}

fn push_bytes(tag: u8, bytes: &[u8], out: &mut Vec<u8>) {
    out.push(tag);
    out.extend((bytes.len() as u32).to_be_bytes());
    out.extend(bytes);
}

/// Reads the values back. Malformed bytes end the list early; they are only ever our own.
pub fn values(mut bytes: &[u8]) -> Vec<Value> {
    let mut out = Vec::new();
    while let Some((value, rest)) = next(bytes) {
        out.push(value);
        bytes = rest;
    }
    out
}

fn next(bytes: &[u8]) -> Option<(Value, &[u8])> {
    let (tag, rest) = bytes.split_first()?;
    match *tag {
        NUMBER => {
            let (number, rest) = rest.split_first_chunk::<8>()?;
            Some((Value::number(f64::from_bits(u64::from_be_bytes(*number))), rest))
        }
        LARGE_INTEGER => {
            let (number, rest) = rest.split_first_chunk::<8>()?;
            Some((Value::Integer(i64::from_be_bytes(*number)), rest))
        }
        TEXT | BLOB => {
            let (length, rest) = rest.split_first_chunk::<4>()?;
            let (text, rest) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
            let value = if *tag == TEXT {
                Value::Text(String::from_utf8_lossy(text).into())
            } else {
                Value::Blob(text.into())
            };
            Some((value, rest))
        }
        _ => None,
    }
}

/// Hash of a key, the same in every process.
pub fn hash(key: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(value: Value) -> Vec<u8> {
        let mut out = Vec::new();
        push((&value).into(), &mut out);
        out
    }

    #[test]
    fn equal_numbers_have_one_key() {
        assert_eq!(bytes(Value::Integer(5)), bytes(Value::Real(5.0)));
        assert_eq!(bytes(Value::Real(-0.0)), bytes(Value::Integer(0)));
        assert_ne!(bytes(Value::Integer(i64::MAX)), bytes(Value::Integer(i64::MAX - 1)));
        assert_ne!(bytes(Value::Integer(i64::MIN)), bytes(Value::Real(i64::MIN as f64)));
        assert_ne!(bytes(Value::Text("5".into())), bytes(Value::Integer(5)));
    }

    #[test]
    fn keys_are_read_back() {
        let mut key = bytes(Value::Text("a".into()));
        key.extend(bytes(Value::Integer(7)));
        key.extend(bytes(Value::Real(1.5)));
        assert_eq!(values(&key), [Value::Text("a".into()), Value::Integer(7), Value::Real(1.5)]);
    }
}
