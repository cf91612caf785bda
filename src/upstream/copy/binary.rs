//! Rows of COPY in binary format.

use bytes::{Buf, Bytes};

use crate::upstream::types::{ExactKey, Form, Kind, Malformed, Stored, convert_binary};

const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";

/// Bit of the header's flags that says that rows begin with an OID; Postgres 12 ended that.
const CRITICAL_FLAGS: u32 = 0xffff_0000;

/// Number of columns that stands for the end.
const END: &[u8] = &(-1i16).to_be_bytes();

/// What a message holds beside the header: a row, unless it is the end.
pub fn row(mut message: Bytes, first: bool) -> Result<Option<Bytes>, Malformed> {
    if first {
        let malformed = || Malformed::bytes("binary COPY");
        if !message.starts_with(SIGNATURE) {
            return Err(malformed());
        }
        message.advance(SIGNATURE.len());
        let flags = message.try_get_u32().map_err(|_| malformed())?;
        let extension = message.try_get_u32().map_err(|_| malformed())? as usize;
        if flags & CRITICAL_FLAGS != 0 || extension > message.len() {
            return Err(malformed());
        }
        message.advance(extension);
    }
    let nothing = message.is_empty() || &message[..] == END;
    Ok((!nothing).then_some(message))
}

/// Calls `set` with every column of a row, in order. `Ok(false)`: the number of columns is
/// another than that of `expected`. `key`: positions of the columns of which more is kept than their values; it comes last.
pub fn columns<E: From<(usize, Malformed)>>(
    row: &[u8],
    expected: &[(Kind, Form)],
    key: &[usize],
    mut set: impl FnMut(usize, &Stored<'_>) -> Result<(), E>,
) -> Result<bool, E> {
    let Some((count, mut rest)) = row.split_first_chunk() else { return Ok(false) };
    if usize::try_from(i16::from_be_bytes(*count)) != Ok(expected.len()) {
        return Ok(false);
    }
    let mut exact = ExactKey::default();
    for (at, (kind, form)) in expected.iter().enumerate() {
        let Some((length, after)) = rest.split_first_chunk() else { return Ok(false) };
        rest = after;
        let length = i32::from_be_bytes(*length);
        if length == -1 {
            set(at, &Stored::Null)?;
            continue;
        }
        let Some((field, after)) = usize::try_from(length).ok().and_then(|n| rest.split_at_checked(n)) else {
            return Ok(false);
        };
        rest = after;
        if key.contains(&at) {
            exact.add_binary(*form, *kind, field);
        }
        set(at, &convert_binary(*form, *kind, field).map_err(|e| E::from((at, e)))?)?;
    }
    if !key.is_empty() {
        set(expected.len(), &Stored::Text(exact.into_text().into()))?;
    }
    Ok(rest.is_empty())
}

#[cfg(test)]
mod tests {
    use super::super::reading::{Bad, seen};
    use super::*;

    fn read(row: &[u8], oids: &[u32]) -> Result<Option<Vec<String>>, Bad> {
        let expected: Vec<_> = oids.iter().map(|oid| (Kind::of(*oid, ""), Form::of(*oid))).collect();
        seen(&expected, |expected, set| columns(row, expected, &[], set))
    }

    const ROW: &[u8] = b"\0\x03\0\0\0\x02\x01\0\xff\xff\xff\xff\0\0\0\x01a";

    #[test]
    fn rows_are_taken_apart() {
        let seen = read(ROW, &[21, 23, 25]).unwrap().unwrap();
        assert_eq!(seen, ["0:Integer(256)", "1:Null", "2:Text(\"a\")"]);
        assert_eq!(read(ROW, &[21, 23]).unwrap(), None);
        assert_eq!(read(b"\0\0", &[]).unwrap(), Some(vec![]));
    }

    #[test]
    fn a_row_that_is_cut_is_no_row() {
        for length in 0..ROW.len() {
            assert_eq!(read(&ROW[..length], &[21, 23, 25]).unwrap_or(None), None, "{length} bytes");
        }
        assert_eq!(read(&[ROW, b"x"].concat(), &[21, 23, 25]).unwrap(), None);
        assert!(read(ROW, &[701, 23, 25]).is_err(), "a double of two bytes");
    }

    #[test]
    fn header_and_end_are_no_rows() {
        let header = [SIGNATURE, &[0; 8]].concat();
        let message = |parts: &[&[u8]]| Bytes::from(parts.concat());
        assert_eq!(row(message(&[&header]), true).unwrap(), None);
        assert_eq!(row(message(&[&header, END]), true).unwrap(), None);
        assert_eq!(row(message(&[&header, ROW]), true).unwrap().unwrap(), ROW);
        let extended = [SIGNATURE, &[0, 0, 0, 0, 0, 0, 0, 2, 9, 9]].concat();
        assert_eq!(row(message(&[&extended, ROW]), true).unwrap().unwrap(), ROW);
        assert_eq!(row(message(&[ROW]), false).unwrap().unwrap(), ROW);
        assert_eq!(row(message(&[END]), false).unwrap(), None);
        assert!(row(message(&[ROW]), true).is_err());
        assert!(row(message(&[SIGNATURE, &[0, 1, 0, 0, 0, 0, 0, 0]]), true).is_err());
    }
}
