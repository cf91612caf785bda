//! The conversion of a scalar's binary form, for types whose form is simpler than their text.
//! What is stored is what [`super::convert`] makes of the text: the tests send every type
//! both ways.

use std::borrow::Cow;

use super::{Kind, Malformed, Stored, convert, millis, number};

/// How a value comes in a row of a binary COPY.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Big-endian, as wide as it comes.
    Integer,
    /// An IEEE double.
    Double,
    /// One byte.
    Boolean,
    /// Days since 2000-01-01.
    Date,
    /// Microseconds since midnight.
    Time,
    /// Microseconds since 2000-01-01.
    Timestamp,
    /// Sixteen bytes.
    Uuid,
    /// A version byte, then the text.
    Jsonb,
    /// The bytes themselves.
    Bytes,
    /// The text of the type's output function.
    Text,
    /// The binary form is that text.
    Raw,
}

/// Microseconds from 1970 to 2000, where Postgres counts from.
pub(super) const EPOCH: i128 = 946_684_800_000_000;

const MICROS_PER_DAY: i128 = 86_400_000_000;

impl Form {
    /// By the OID of the type, which is fixed for built-in types.
    pub fn of(type_oid: u32) -> Form {
        match type_oid {
            16 => Form::Boolean,
            17 => Form::Bytes,
            20 | 21 | 23 => Form::Integer,
            // text, json, bpchar, varchar; a cast of bpchar to text would lose its blanks.
            25 | 114 | 1042 | 1043 => Form::Raw,
            701 => Form::Double,
            1082 => Form::Date,
            1083 => Form::Time,
            1114 | 1184 => Form::Timestamp,
            2950 => Form::Uuid,
            3802 => Form::Jsonb,
            _ => Form::Text,
        }
    }
}

/// Converts a value. A NULL never comes here.
pub fn convert_binary(form: Form, kind: Kind, field: &[u8]) -> Result<Stored<'_>, Malformed> {
    Ok(match form {
        Form::Integer => Stored::Integer(integer(field)?),
        Form::Double => number(f64::from_be_bytes(fixed(field)?)),
        Form::Boolean => Stored::Integer(i64::from(fixed::<1>(field)? != [0])),
        Form::Date => date(i32::from_be_bytes(fixed(field)?)),
        Form::Time => Stored::Integer(i64::from_be_bytes(fixed(field)?) / 1000),
        Form::Timestamp => timestamp(i64::from_be_bytes(fixed(field)?)),
        Form::Uuid => Stored::Text(Cow::Owned(uuid(fixed(field)?))),
        Form::Jsonb => match field.split_first() {
            Some((1, text)) => convert(kind, Cow::Borrowed(utf8(text)?))?,
            _ => return Err(Malformed::bytes("jsonb of version 1")),
        },
        Form::Bytes => Stored::Blob(field.to_vec()),
        Form::Text | Form::Raw => convert(kind, Cow::Borrowed(utf8(field)?))?,
    })
}

pub(super) fn fixed<const N: usize>(field: &[u8]) -> Result<[u8; N], Malformed> {
    field.try_into().map_err(|_| Malformed::bytes("value of a fixed size"))
}

fn utf8(field: &[u8]) -> Result<&str, Malformed> {
    std::str::from_utf8(field).map_err(|_| Malformed::not_utf8())
}

fn integer(field: &[u8]) -> Result<i64, Malformed> {
    Ok(match field.len() {
        2 => i64::from(i16::from_be_bytes(fixed(field)?)),
        4 => i64::from(i32::from_be_bytes(fixed(field)?)),
        _ => i64::from_be_bytes(fixed(field)?),
    })
}

/// The largest and the smallest value are the infinities, which no client can hold.
fn date(days: i32) -> Stored<'static> {
    match days {
        i32::MAX | i32::MIN => Stored::Null,
        _ => millis(i128::from(days) * MICROS_PER_DAY + EPOCH),
    }
}

fn timestamp(micros: i64) -> Stored<'static> {
    match micros {
        i64::MAX | i64::MIN => Stored::Null,
        _ => millis(i128::from(micros) + EPOCH),
    }
}

fn uuid(bytes: [u8; 16]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut out = String::with_capacity(36);
    for (at, byte) in bytes.iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            out.push('-');
        }
        out.push(DIGITS[usize::from(byte >> 4)] as char);
        out.push(DIGITS[usize::from(byte & 15)] as char);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(oid: u32, field: &[u8]) -> Stored<'_> {
        convert_binary(Form::of(oid), Kind::of(oid, ""), field).unwrap()
    }

    #[test]
    fn values_are_those_of_their_text() {
        assert_eq!(stored(20, &(-7i64).to_be_bytes()), Stored::Integer(-7));
        assert_eq!(stored(21, &i16::MIN.to_be_bytes()), Stored::Integer(-32768));
        assert_eq!(stored(701, &100f64.to_be_bytes()), Stored::Integer(100));
        assert_eq!(stored(701, &f64::NAN.to_be_bytes()), Stored::Null);
        assert_eq!(stored(16, &[1]), Stored::Integer(1));
        assert_eq!(stored(1082, &(-1i32).to_be_bytes()), Stored::Integer(946_598_400_000));
        assert_eq!(stored(1082, &i32::MAX.to_be_bytes()), Stored::Null);
        assert_eq!(stored(1184, &(-1i64).to_be_bytes()), Stored::Real(946_684_799_999.999));
        assert_eq!(stored(1114, &i64::MIN.to_be_bytes()), Stored::Null);
        assert_eq!(stored(1083, &86_400_000_000i64.to_be_bytes()), Stored::Integer(86_400_000));
        assert_eq!(stored(3802, b"\x01{\"a\": 1.0}"), Stored::Text("{\"a\": 1.0}".into()));
        assert_eq!(stored(17, &[0, 255]), Stored::Blob(vec![0, 255]));
        let uuid = 0xa0ee_bc99_9c0b_4ef8_bb6d_6bb9_bd38_0a11_u128;
        assert_eq!(
            stored(2950, &uuid.to_be_bytes()),
            Stored::Text("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11".into())
        );
    }

    #[test]
    fn other_sizes_and_versions_are_errors() {
        for (oid, field) in
            [(23, &b"\0"[..]), (701, b"\0\0\0\0"), (3802, b"\x02{}"), (3802, b""), (25, b"\xff")]
        {
            assert!(convert_binary(Form::of(oid), Kind::of(oid, ""), field).is_err(), "{oid} {field:?}");
        }
    }
}
