//! Rows of COPY in text format.

use std::borrow::Cow;

use crate::upstream::types::{ExactKey, Form, Kind, Malformed, Stored, convert};

/// Calls `set` with every column of a line, in order; the newline at its end is optional.
/// `Ok(false)`: the number of columns is another than that of `expected`. `key`: positions of the columns of which more is
/// kept than their values; it comes last.
pub fn columns<E: From<(usize, Malformed)>>(
    line: &[u8],
    expected: &[(Kind, Form)],
    key: &[usize],
    mut set: impl FnMut(usize, &Stored<'_>) -> Result<(), E>,
) -> Result<bool, E> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    if expected.is_empty() {
        return Ok(line.is_empty());
    }
    let (mut count, mut exact) = (0, ExactKey::default());
    for field in line.split(|b| *b == b'\t') {
        let Some((kind, _)) = expected.get(count) else { return Ok(false) };
        let stored = if field == b"\\N" { Ok(Stored::Null) } else { value(*kind, field) };
        if key.contains(&count) {
            exact.add(*kind, &String::from_utf8_lossy(&unescape(field)));
        }
        set(count, &stored.map_err(|e| E::from((count, e)))?)?;
        count += 1;
    }
    if count == expected.len() && !key.is_empty() {
        set(count, &Stored::Text(exact.into_text().into()))?;
    }
    Ok(count == expected.len())
}

fn value(kind: Kind, field: &[u8]) -> Result<Stored<'_>, Malformed> {
    let text = unescape(field);
    match text {
        Cow::Borrowed(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => convert(kind, Cow::Borrowed(text)),
            Err(_) => Err(Malformed::not_utf8()),
        },
        Cow::Owned(bytes) => match String::from_utf8(bytes) {
            Ok(text) => convert(kind, Cow::Owned(text)),
            Err(_) => Err(Malformed::not_utf8()),
        },
    }
}

/// Undoes the escapes that the server writes.
fn unescape(field: &[u8]) -> Cow<'_, [u8]> {
    let Some(first) = field.iter().position(|b| *b == b'\\') else { return Cow::Borrowed(field) };
    let mut out = Vec::with_capacity(field.len());
    out.extend_from_slice(&field[..first]);
    let mut rest = field[first..].iter();
    while let Some(byte) = rest.next() {
        if *byte != b'\\' {
            out.push(*byte);
            continue;
        }
        match rest.next() {
            Some(b'b') => out.push(8),
            Some(b'f') => out.push(12),
            Some(b'n') => out.push(b'\n'),
            Some(b'r') => out.push(b'\r'),
            Some(b't') => out.push(b'\t'),
            Some(b'v') => out.push(11),
            Some(other) => out.push(*other),
            None => out.push(b'\\'),
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::super::reading::seen;
    use super::*;

    fn read(line: &[u8], kinds: &[Kind]) -> Option<Vec<String>> {
        let expected: Vec<_> = kinds.iter().map(|kind| (*kind, Form::Text)).collect();
        seen(&expected, |expected, set| columns(line, expected, &[], set)).unwrap()
    }

    #[test]
    fn lines_are_taken_apart() {
        let line = b"a\\tb\\\\N\t\\N\t-7\t\n";
        let kinds = [Kind::Text, Kind::Text, Kind::Integer, Kind::Text];
        let seen = read(line, &kinds).unwrap();
        assert_eq!(seen, ["0:Text(\"a\\tb\\\\N\")", "1:Null", "2:Integer(-7)", "3:Text(\"\")"]);
        assert_eq!(read(b"a\tb\n", &[Kind::Text]), None);
        assert_eq!(read(b"a\n", &[Kind::Text, Kind::Text]), None);
        assert_eq!(read(b"\n", &[]), Some(vec![]));
    }
}
