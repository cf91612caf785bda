//! The conversion of a scalar's text.

use std::borrow::Cow;

use super::{Kind, Malformed, Stored, array, millis, number, time};

/// Converts the text output of a value. A NULL never comes here.
pub fn convert<'a>(kind: Kind, text: Cow<'a, str>) -> Result<Stored<'a>, Malformed> {
    Ok(match kind {
        Kind::Text | Kind::Json => Stored::Text(text),
        Kind::Inet => Stored::Text(inet(text)),
        Kind::Integer => Stored::Integer(integer(&text)?),
        Kind::Number | Kind::Float => number(double(&text)?),
        Kind::Boolean => Stored::Integer(i64::from(boolean(&text)?)),
        Kind::Timestamp => time::timestamp(&text)?.map_or(Stored::Null, millis),
        Kind::Date => time::date(&text)?.map_or(Stored::Null, millis),
        Kind::Time => Stored::Integer(time::time(&text)?),
        Kind::TimeTz => Stored::Integer(time::time_tz(&text)?),
        Kind::Bytes => Stored::Blob(bytes(&text)?),
        Kind::Array(element, delimiter) => {
            Stored::Text(Cow::Owned(array::to_json(element, delimiter, &text)?))
        }
    })
}

/// A host address is printed without its prefix length, and cast to text with it. Clients
/// of the reference know the cast (`docs/spec/replication.md` §7.2).
fn inet(text: Cow<'_, str>) -> Cow<'_, str> {
    match (text.contains('/'), text.contains(':')) {
        (true, _) => text,
        (false, true) => Cow::Owned(format!("{text}/128")),
        (false, false) => Cow::Owned(format!("{text}/32")),
    }
}

pub(super) fn integer(text: &str) -> Result<i64, Malformed> {
    text.parse().map_err(|_| Malformed::new("integer", text))
}

/// Rust reads `NaN`, `Infinity` and `-Infinity` as Postgres prints them.
pub(super) fn double(text: &str) -> Result<f64, Malformed> {
    text.parse().map_err(|_| Malformed::new("number", text))
}

pub(super) fn boolean(text: &str) -> Result<bool, Malformed> {
    match text {
        "t" => Ok(true),
        "f" => Ok(false),
        _ => Err(Malformed::new("boolean", text)),
    }
}

fn bytes(text: &str) -> Result<Vec<u8>, Malformed> {
    let malformed = || Malformed::new("bytea", text);
    let digits = text.strip_prefix("\\x").ok_or_else(malformed)?.as_bytes();
    if digits.len() % 2 != 0 {
        return Err(malformed());
    }
    let nibble = |d: u8| (d as char).to_digit(16).ok_or_else(malformed);
    digits.chunks_exact(2).map(|pair| Ok((nibble(pair[0])? << 4 | nibble(pair[1])?) as u8)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(kind: Kind, text: &str) -> Stored<'_> {
        convert(kind, Cow::Borrowed(text)).unwrap()
    }

    #[test]
    fn numbers_are_integers_where_nothing_is_lost() {
        assert_eq!(stored(Kind::Number, "0.1"), Stored::Real(0.1));
        assert_eq!(stored(Kind::Number, "100"), Stored::Integer(100));
        assert_eq!(stored(Kind::Number, "-0"), Stored::Integer(0));
        assert_eq!(stored(Kind::Number, "1e+21"), Stored::Real(1e21));
        assert_eq!(stored(Kind::Number, "9007199254740993"), Stored::Real(9007199254740992.0));
        assert_eq!(stored(Kind::Number, "NaN"), Stored::Null);
        assert_eq!(stored(Kind::Number, "-Infinity"), Stored::Null);
        assert_eq!(stored(Kind::Integer, "9223372036854775807"), Stored::Integer(i64::MAX));
    }

    #[test]
    fn a_host_address_has_its_prefix_length() {
        assert_eq!(stored(Kind::Inet, "10.0.0.1"), Stored::Text("10.0.0.1/32".into()));
        assert_eq!(stored(Kind::Inet, "::1"), Stored::Text("::1/128".into()));
        assert_eq!(stored(Kind::Inet, "10.0.0.0/8"), Stored::Text("10.0.0.0/8".into()));
    }

    #[test]
    fn bytes_are_decoded_and_text_is_not() {
        assert_eq!(stored(Kind::Bytes, "\\x00ff"), Stored::Blob(vec![0, 255]));
        assert_eq!(stored(Kind::Json, "{ \"a\": 1.0 }"), Stored::Text("{ \"a\": 1.0 }".into()));
        for bad in ["00", "\\x0", "\\x0g"] {
            assert!(convert(Kind::Bytes, bad.into()).is_err());
        }
    }
}
