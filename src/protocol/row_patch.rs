//! JSON fragments of row patches (`docs/spec/sync-protocol.md` §9.1, §10): written once
//! per row and version, straight from stored values, and copied into every poke.

use std::sync::Arc;

use crate::model::catalogue::{ColumnIndex, Table, ZeroType};
use crate::model::key::{self, MAX_SAFE_INTEGER, Scalar};

/// An integer that no client can hold, in a row: what to say of it.
#[derive(Debug)]
pub struct UnsafeInteger(pub String);

/// Writes the patches of one table as clients with one key see it.
pub struct Encoder {
    table_name: String,
    /// `{"op":"put","tableName":…,"value":{`
    put_prefix: Vec<u8>,
    /// `{"op":"del","tableName":…,"id":{`
    del_prefix: Vec<u8>,
    /// Visible columns in order, each with its label `"name":`, a comma before all but the first.
    columns: Vec<(ColumnIndex, ZeroType, Vec<u8>)>,
    key: Vec<(ZeroType, Vec<u8>)>,
}

impl Encoder {
    /// For a table and the key columns of its identity.
    pub fn new(table: &Table, key: &Arc<[ColumnIndex]>) -> Encoder {
        let mut name = Vec::new();
        write_string(table.name.as_bytes(), &mut name);
        let prefix = |op: &str, field: &str| {
            let mut out = format!("{{\"op\":\"{op}\",\"tableName\":").into_bytes();
            out.extend(&name);
            out.extend(format!(",\"{field}\":{{").as_bytes());
            out
        };
        let visible = table.visible_columns().filter_map(|(i, c)| Some((i, c.zero_type?, c.name.as_str())));
        let columns = visible
            .enumerate()
            .map(|(position, (index, zero_type, name))| (index, zero_type, label(position, name)))
            .collect();
        let key = key
            .iter()
            .enumerate()
            .map(|(position, index)| {
                let column = &table.columns[*index as usize];
                (column.zero_type.unwrap_or(ZeroType::String), label(position, &column.name))
            })
            .collect();
        Encoder {
            table_name: table.name.clone(),
            put_prefix: prefix("put", "value"),
            del_prefix: prefix("del", "id"),
            columns,
            key,
        }
    }

    /// Appends a put of the row whose visible columns are given in order.
    pub fn put<'v, E: From<UnsafeInteger>>(
        &self,
        mut value: impl FnMut(usize, ColumnIndex) -> Result<Scalar<'v>, E>,
        out: &mut Vec<u8>,
    ) -> Result<(), E> {
        out.extend(&self.put_prefix);
        for (position, (index, zero_type, label)) in self.columns.iter().enumerate() {
            out.extend(label);
            if !write_value(value(position, *index)?, *zero_type, out) {
                return Err(self.unsafe_integer(label).into());
            }
        }
        out.extend(b"}}");
        Ok(())
    }

    /// Whether clients can hold the row whose visible columns are given in order: what
    /// [`Encoder::put`] finds out, without the text.
    pub fn check<'v, E: From<UnsafeInteger>>(
        &self,
        mut value: impl FnMut(usize, ColumnIndex) -> Result<Scalar<'v>, E>,
    ) -> Result<(), E> {
        for (position, (index, zero_type, label)) in self.columns.iter().enumerate() {
            // Only numbers are stored as integers of any size.
            if *zero_type == ZeroType::Number && !is_safe(value(position, *index)?) {
                return Err(self.unsafe_integer(label).into());
            }
        }
        Ok(())
    }

    /// Appends a deletion of the row with this key.
    pub fn del(&self, key_bytes: &[u8], out: &mut Vec<u8>) {
        out.extend(&self.del_prefix);
        for (value, (zero_type, label)) in key::values(key_bytes).iter().zip(&self.key) {
            out.extend(label);
            write_value(value.into(), *zero_type, out);
        }
        out.extend(b"}}");
    }

    fn unsafe_integer(&self, label: &[u8]) -> UnsafeInteger {
        let column = String::from_utf8_lossy(label);
        UnsafeInteger(format!(
            "a value of {} in table \"{}\" is outside the integers that clients can hold (2^53-1)",
            column.trim_matches([',', ':']),
            self.table_name
        ))
    }
}

fn label(position: usize, name: &str) -> Vec<u8> {
    let mut out = Vec::new();
    if position > 0 {
        out.push(b',');
    }
    write_string(name.as_bytes(), &mut out);
    out.push(b':');
    out
}

/// Whether clients can tell the value from its neighbours.
pub fn is_safe(value: Scalar) -> bool {
    match value {
        Scalar::Integer(i) => i.unsigned_abs() <= MAX_SAFE_INTEGER as u64,
        _ => true,
    }
}

/// Appends one value; false if no client can hold it.
fn write_value(value: Scalar, zero_type: ZeroType, out: &mut Vec<u8>) -> bool {
    match (value, zero_type) {
        (Scalar::Null, _) => out.extend(b"null"),
        (Scalar::Integer(i), ZeroType::Boolean) => {
            out.extend(if i != 0 { b"true".as_slice() } else { b"false" });
        }
        (Scalar::Integer(_), _) if !is_safe(value) => return false,
        (Scalar::Integer(i), _) => out.extend(itoa::Buffer::new().format(i).as_bytes()),
        (Scalar::Real(r), _) if r.is_finite() => {
            out.extend(ryu_js::Buffer::new().format_finite(r).as_bytes());
        }
        (Scalar::Real(_), _) => out.extend(b"null"),
        // JSON is stored as its text and goes out as it is.
        (Scalar::Text(text), ZeroType::Json) => out.extend(text),
        (Scalar::Text(text) | Scalar::Blob(text), _) => write_string(text, out),
    }
    true
}

/// Position of the next byte that must be escaped, from `start` on. Looks at eight bytes at
/// a time: most text has none.
fn next_escape(text: &[u8], start: usize) -> Option<usize> {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let mut at = start;
    while let Some(chunk) = text.get(at..at + 8) {
        let word = u64::from_le_bytes(chunk.try_into().unwrap_or_default());
        let zero_in = |w: u64| w.wrapping_sub(ONES) & !w;
        let control = word.wrapping_sub(ONES * 0x20) & !word;
        let quote = zero_in(word ^ (ONES * b'"' as u64));
        let backslash = zero_in(word ^ (ONES * b'\\' as u64));
        if (control | quote | backslash) & HIGH != 0 {
            break;
        }
        at += 8;
    }
    let rest = text[at..].iter().position(|b| *b < 0x20 || *b == b'"' || *b == b'\\');
    rest.map(|offset| at + offset)
}

/// Appends a JSON string.
pub fn write_string(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    let mut clean = 0;
    while let Some(i) = next_escape(text, clean) {
        out.extend(&text[clean..i]);
        clean = i + 1;
        match text[i] {
            b'"' => out.extend(b"\\\""),
            b'\\' => out.extend(b"\\\\"),
            b'\n' => out.extend(b"\\n"),
            b'\r' => out.extend(b"\\r"),
            b'\t' => out.extend(b"\\t"),
            other => out.extend(format!("\\u{other:04x}").as_bytes()),
        }
    }
    out.extend(&text[clean..]);
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_are_written_as_javascript_writes_them() {
        for (value, text) in [
            (Scalar::Real(100.0), "100"),
            (Scalar::Real(1e21), "1e+21"),
            (Scalar::Real(1e-7), "1e-7"),
            (Scalar::Real(1704164645678.901), "1704164645678.901"),
            (Scalar::Real(f64::NAN), "null"),
            (Scalar::Integer(-7), "-7"),
        ] {
            let mut out = Vec::new();
            assert!(write_value(value, ZeroType::Number, &mut out));
            assert_eq!(String::from_utf8(out).unwrap(), text);
        }
        assert!(!write_value(Scalar::Integer(1 << 53), ZeroType::Number, &mut Vec::new()));
    }

    proptest! {
        #[test]
        fn strings_survive(text in "\\PC*|[\\x00-\\x40\"\\\\é😀]*") {
            let mut out = Vec::new();
            write_string(text.as_bytes(), &mut out);
            let back: String = serde_json::from_slice(&out).unwrap();
            prop_assert_eq!(back, text);
        }
    }
}
