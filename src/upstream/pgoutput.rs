//! The messages of the `pgoutput` plugin, protocol version 1.
//!
//! Pure and borrowing: bytes in, a [`Pgoutput`] out. Nothing is copied.

/// One message.
#[derive(Debug, PartialEq)]
pub enum Pgoutput<'a> {
    /// A transaction begins.
    Begin {
        /// Start of its commit record.
        commit_lsn: u64,
    },
    /// It is complete.
    Commit {
        /// Start of its commit record.
        commit_lsn: u64,
    },
    /// What rows of a relation look like from here on.
    Relation(Relation<'a>),
    /// A new row.
    Insert {
        /// Relation.
        oid: u32,
        /// The row.
        new: Tuple<'a>,
    },
    /// A changed row.
    Update {
        /// Relation.
        oid: u32,
        /// The row before, as far as the replica identity tells it.
        old: Option<Old<'a>>,
        /// The row after.
        new: Tuple<'a>,
    },
    /// A removed row.
    Delete {
        /// Relation.
        oid: u32,
        /// The row before.
        old: Old<'a>,
    },
    /// All rows of some relations are gone.
    Truncate {
        /// Relations.
        oids: Vec<u32>,
    },
    /// A logical message.
    Message {
        /// It is part of the transaction that has begun.
        transactional: bool,
        /// Where it stands in the log.
        position: u64,
        /// Names its sender.
        prefix: &'a str,
        /// What it says.
        content: &'a [u8],
    },
    /// Origins and type names: of no use here.
    Other,
}

/// A relation message.
#[derive(Debug, PartialEq)]
pub struct Relation<'a> {
    /// OID.
    pub oid: u32,
    /// Schema.
    pub schema: &'a str,
    /// Name.
    pub name: &'a str,
    /// `REPLICA IDENTITY`: d, n, f or i.
    pub identity: u8,
    /// In order.
    pub columns: Vec<RelationColumn<'a>>,
}

/// A column in a relation message.
#[derive(Debug, PartialEq, Eq)]
pub struct RelationColumn<'a> {
    /// Part of the replica identity.
    pub key: bool,
    /// Name.
    pub name: &'a str,
    /// Type.
    pub type_oid: u32,
}

/// The values of a row, in the order of the relation's columns.
pub type Tuple<'a> = Vec<Field<'a>>;

/// One value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field<'a> {
    /// NULL.
    Null,
    /// Stored out of line and not changed, so not sent.
    Unchanged,
    /// Output text of the type.
    Text(&'a str),
}

/// What is sent of a row before its change.
#[derive(Debug, PartialEq)]
pub enum Old<'a> {
    /// The columns of the key; the others are NULL.
    Key(Tuple<'a>),
    /// All columns (REPLICA IDENTITY FULL).
    Full(Tuple<'a>),
}

/// A message that does not follow the protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid(pub &'static str);

impl std::fmt::Display for Invalid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "invalid pgoutput message: {}", self.0)
    }
}

impl std::error::Error for Invalid {}

/// Reads one message.
pub fn parse(bytes: &[u8]) -> Result<Pgoutput<'_>, Invalid> {
    let mut input = Input(bytes);
    let message = match input.u8()? {
        b'B' => {
            let commit_lsn = input.u64()?;
            input.skip(8 + 4)?; // time, xid
            Pgoutput::Begin { commit_lsn }
        }
        b'C' => {
            input.skip(1)?; // flags
            let commit_lsn = input.u64()?;
            input.skip(8 + 8)?; // end of the record, time
            Pgoutput::Commit { commit_lsn }
        }
        b'R' => Pgoutput::Relation(relation(&mut input)?),
        b'I' => {
            let oid = input.u32()?;
            input.expect(b'N')?;
            Pgoutput::Insert { oid, new: tuple(&mut input)? }
        }
        b'U' => update(&mut input)?,
        b'D' => {
            let oid = input.u32()?;
            let kind = input.u8()?;
            Pgoutput::Delete { oid, old: old(kind, &mut input)?.ok_or(Invalid("a deletion without key"))? }
        }
        b'T' => {
            let count = input.u32()? as usize;
            input.skip(1)?; // cascade, restart identity
            let oids: Result<Vec<u32>, Invalid> =
                (0..count.min(input.0.len())).map(|_| input.u32()).collect();
            Pgoutput::Truncate { oids: oids? }
        }
        b'M' => {
            let transactional = input.u8()? & 1 == 1;
            let position = input.u64()?;
            let prefix = input.string()?;
            let length = input.u32()? as usize;
            let content = input.take(length)?;
            Pgoutput::Message { transactional, position, prefix, content }
        }
        b'O' | b'Y' => return Ok(Pgoutput::Other),
        _ => return Err(Invalid("unknown kind")),
    };
    if input.0.is_empty() { Ok(message) } else { Err(Invalid("bytes after the end")) }
}

fn relation<'a>(input: &mut Input<'a>) -> Result<Relation<'a>, Invalid> {
    let oid = input.u32()?;
    let schema = match input.string()? {
        // How the protocol abbreviates it.
        "" => "pg_catalog",
        schema => schema,
    };
    let name = input.string()?;
    let identity = input.u8()?;
    let count = input.u16()?;
    let mut columns = Vec::with_capacity(input.at_most(count));
    for _ in 0..count {
        let key = input.u8()? & 1 == 1;
        let name = input.string()?;
        let type_oid = input.u32()?;
        input.skip(4)?; // type modifier
        columns.push(RelationColumn { key, name, type_oid });
    }
    Ok(Relation { oid, schema, name, identity, columns })
}

fn update<'a>(input: &mut Input<'a>) -> Result<Pgoutput<'a>, Invalid> {
    let oid = input.u32()?;
    let kind = input.u8()?;
    let old = old(kind, input)?;
    if old.is_some() {
        input.expect(b'N')?;
    }
    Ok(Pgoutput::Update { oid, old, new: tuple(input)? })
}

fn old<'a>(kind: u8, input: &mut Input<'a>) -> Result<Option<Old<'a>>, Invalid> {
    match kind {
        b'K' => Ok(Some(Old::Key(tuple(input)?))),
        b'O' => Ok(Some(Old::Full(tuple(input)?))),
        b'N' => Ok(None),
        _ => Err(Invalid("unknown kind of tuple")),
    }
}

fn tuple<'a>(input: &mut Input<'a>) -> Result<Tuple<'a>, Invalid> {
    let count = input.u16()?;
    let mut fields = Tuple::with_capacity(input.at_most(count));
    for _ in 0..count {
        fields.push(match input.u8()? {
            b'n' => Field::Null,
            b'u' => Field::Unchanged,
            b't' => {
                let length = input.u32()? as usize;
                let text = input.take(length)?;
                Field::Text(std::str::from_utf8(text).map_err(|_| Invalid("text that is not UTF-8"))?)
            }
            _ => return Err(Invalid("unknown kind of value")),
        });
    }
    Ok(fields)
}

struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8], Invalid> {
        if self.0.len() < n {
            return Err(Invalid("it ends too early"));
        }
        let (head, tail) = self.0.split_at(n);
        self.0 = tail;
        Ok(head)
    }

    /// A number of things of which each takes a byte at least: what is announced is not yet there.
    fn at_most(&self, announced: u16) -> usize {
        usize::from(announced).min(self.0.len())
    }

    fn skip(&mut self, n: usize) -> Result<(), Invalid> {
        self.take(n).map(|_| ())
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Invalid> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    fn u8(&mut self) -> Result<u8, Invalid> {
        self.array::<1>().map(|b| b[0])
    }

    fn u16(&mut self) -> Result<u16, Invalid> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Result<u32, Invalid> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Result<u64, Invalid> {
        self.array().map(u64::from_be_bytes)
    }

    fn expect(&mut self, byte: u8) -> Result<(), Invalid> {
        if self.u8()? == byte { Ok(()) } else { Err(Invalid("no new row")) }
    }

    fn string(&mut self) -> Result<&'a str, Invalid> {
        let end = self.0.iter().position(|b| *b == 0).ok_or(Invalid("a name without end"))?;
        let bytes = self.take(end)?;
        self.skip(1)?;
        std::str::from_utf8(bytes).map_err(|_| Invalid("a name that is not UTF-8"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_update_with_all_kinds_of_values() {
        let mut bytes = b"U\0\0\0\x07K\0\x02t\0\0\0\x01an".to_vec();
        bytes.extend(b"N\0\x03t\0\0\0\x02\xc3\xa9un");
        let expected = Pgoutput::Update {
            oid: 7,
            old: Some(Old::Key(vec![Field::Text("a"), Field::Null])),
            new: vec![Field::Text("é"), Field::Unchanged, Field::Null],
        };
        assert_eq!(parse(&bytes), Ok(expected));
        for cut in 1..bytes.len() {
            assert!(parse(&bytes[..cut]).is_err());
        }
        bytes.push(0);
        assert_eq!(parse(&bytes), Err(Invalid("bytes after the end")));
    }

    #[test]
    fn oids_above_two_thousand_million_are_read() {
        let bytes = b"T\0\0\0\x01\0\xff\xff\xff\xff";
        assert_eq!(parse(bytes), Ok(Pgoutput::Truncate { oids: vec![u32::MAX] }));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = parse(&bytes);
        }
    }
}
