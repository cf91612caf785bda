//! Operations as bytes, and back: a block of them is a byte with its format, and then one after another.
//!
//! The writer of this process takes operations as they are, and pays nothing for this. It is the form in which they
//! are to leave the process: in a log of changes that is kept, and on the way to nodes that follow a replication
//! manager. Both mean that another version of Kelvin reads what this one has written. So what cannot be understood
//! is an error that says so, and is never passed over: a missing operation is a replica that differs for ever.
//!
//! A block may come from anywhere. Every length in it is compared with what is left of the block before anything
//! is made of it. Whether tables and columns are those of the replica is looked at when an operation is applied.

use std::ops::RangeInclusive;
use std::sync::Arc;

use super::work::{Absent, Before, Op};
use crate::model::catalogue::Catalogue;
use crate::model::codec::{Input, Malformed, bytes, number};
use crate::model::ids::TableId;
use crate::model::value::Value;
use crate::model::version::StateVersion;

/// What is written. A further format is read by the release before the one that writes it, so that nodes can be
/// replaced one after another, and back.
const FORMAT: u8 = 1;

/// What is read.
pub const FORMATS: RangeInclusive<u8> = 1..=FORMAT;

/// First bytes of the operations.
mod kind {
    pub const BEGIN: u8 = 1;
    /// A transaction whose end is in the same batch.
    pub const BEGIN_WHOLE: u8 = 2;
    pub const INSERT: u8 = 3;
    pub const UPDATE: u8 = 4;
    pub const DELETE: u8 = 5;
    pub const TRUNCATE: u8 = 6;
    pub const COMMIT: u8 = 7;
    pub const SEEN: u8 = 8;
    pub const ABORT: u8 = 9;
    /// The catalogue from here on, as JSON.
    pub const SCHEMA: u8 = 10;
}

/// First bytes of what says how a row is found.
mod before {
    pub const SAME_KEY: u8 = 0;
    pub const KEY: u8 = 1;
    pub const WHOLE: u8 = 2;
}

/// First bytes of values.
mod value {
    pub const NULL: u8 = 0;
    pub const INTEGER: u8 = 1;
    pub const REAL: u8 = 2;
    pub const TEXT: u8 = 3;
    pub const BLOB: u8 = 4;
}

/// Why a block cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unreadable {
    /// It is of a format that this version does not read.
    Format(u8),
    /// An operation in it is of a kind that this version does not know.
    Kind {
        /// Format of the block.
        format: u8,
        /// The kind.
        kind: u8,
    },
    /// It is damaged.
    Malformed,
}

impl std::fmt::Display for Unreadable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (version, first, last) = (env!("CARGO_PKG_VERSION"), FORMATS.start(), FORMATS.end());
        match self {
            Unreadable::Format(format) => write!(
                f,
                "operations of format {format}; version {version} of Kelvin reads formats {first} to {last}"
            ),
            Unreadable::Kind { format, kind } => write!(
                f,
                "an operation of kind {kind} in format {format}; version {version} of Kelvin, which reads formats \
                 {first} to {last}, does not know it"
            ),
            Unreadable::Malformed => f.write_str("operations that are damaged"),
        }
    }
}

impl std::error::Error for Unreadable {}

impl From<Malformed> for Unreadable {
    fn from(_: Malformed) -> Self {
        Unreadable::Malformed
    }
}

/// Appends a block.
pub fn write<'o>(ops: impl IntoIterator<Item = &'o Op>, out: &mut Vec<u8>) {
    out.push(FORMAT);
    ops.into_iter().for_each(|op| write_op(op, out));
}

fn write_op(op: &Op, out: &mut Vec<u8>) {
    match op {
        Op::Begin { version, whole } => {
            out.push(if *whole { kind::BEGIN_WHOLE } else { kind::BEGIN });
            number(version.0, out);
        }
        Op::Insert { table, row } => {
            of_table(kind::INSERT, *table, out);
            write_values(row, out);
        }
        Op::Update { table, before, row, absent } => {
            of_table(kind::UPDATE, *table, out);
            write_before(before, out);
            write_values(row, out);
            number(absent.len() as u64, out);
            absent.iter().for_each(|column| number(u64::from(*column), out));
        }
        Op::Delete { table, before } => {
            of_table(kind::DELETE, *table, out);
            write_before(before, out);
        }
        Op::Schema { catalogue } => {
            out.push(kind::SCHEMA);
            bytes(catalogue.to_json().as_bytes(), out);
        }
        Op::Truncate { tables } => {
            out.push(kind::TRUNCATE);
            number(tables.len() as u64, out);
            tables.iter().for_each(|table| number(u64::from(table.0), out));
        }
        Op::Commit => out.push(kind::COMMIT),
        Op::Seen { position } => {
            out.push(kind::SEEN);
            number(position.0, out);
        }
        Op::Abort => out.push(kind::ABORT),
    }
}

fn of_table(kind: u8, table: TableId, out: &mut Vec<u8>) {
    out.push(kind);
    number(u64::from(table.0), out);
}

fn write_before(before: &Before, out: &mut Vec<u8>) {
    match before {
        Before::SameKey => out.push(before::SAME_KEY),
        Before::Key(key) => {
            out.push(before::KEY);
            write_values(key, out);
        }
        Before::Whole(row) => {
            out.push(before::WHOLE);
            write_values(row, out);
        }
    }
}

fn write_values(values: &[Value], out: &mut Vec<u8>) {
    number(values.len() as u64, out);
    for value in values {
        match value {
            Value::Null => out.push(value::NULL),
            Value::Integer(i) => {
                out.push(value::INTEGER);
                // Numbers near zero are short, whatever their sign.
                number(((i << 1) ^ (i >> 63)) as u64, out);
            }
            Value::Real(r) => {
                out.push(value::REAL);
                out.extend(r.to_bits().to_le_bytes());
            }
            Value::Text(text) => {
                out.push(value::TEXT);
                bytes(text.as_bytes(), out);
            }
            Value::Blob(blob) => {
                out.push(value::BLOB);
                bytes(blob, out);
            }
        }
    }
}

/// The operations of a block, one after another. After an error there are no more.
pub fn read(block: &[u8]) -> Result<Ops<'_>, Unreadable> {
    let mut input = Input(block);
    let format = input.byte()?;
    if !FORMATS.contains(&format) {
        return Err(Unreadable::Format(format));
    }
    Ok(Ops { format, input })
}

/// What is left of a block that is being read.
#[derive(Debug, Clone)]
pub struct Ops<'b> {
    format: u8,
    input: Input<'b>,
}

impl Iterator for Ops<'_> {
    type Item = Result<Op, Unreadable>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.input.0.is_empty() {
            return None;
        }
        let op = read_op(self.format, &mut self.input);
        if op.is_err() {
            self.input = Input(&[]);
        }
        Some(op)
    }
}

fn read_op(format: u8, input: &mut Input) -> Result<Op, Unreadable> {
    Ok(match input.byte()? {
        kind::BEGIN => Op::Begin { version: StateVersion(input.number()?), whole: false },
        kind::BEGIN_WHOLE => Op::Begin { version: StateVersion(input.number()?), whole: true },
        kind::INSERT => Op::Insert { table: TableId(small(input)?), row: read_values(input)? },
        kind::UPDATE => Op::Update {
            table: TableId(small(input)?),
            before: read_before(input)?,
            row: read_values(input)?,
            absent: Absent::from_vec(read_list(input, small)?),
        },
        kind::DELETE => Op::Delete { table: TableId(small(input)?), before: read_before(input)? },
        kind::TRUNCATE => Op::Truncate { tables: read_list(input, |input| small(input).map(TableId))? },
        kind::COMMIT => Op::Commit,
        kind::SEEN => Op::Seen { position: StateVersion(input.number()?) },
        kind::ABORT => Op::Abort,
        kind::SCHEMA => {
            let json = std::str::from_utf8(input.bytes()?).map_err(|_| Malformed)?;
            let catalogue = Catalogue::from_json(json).map_err(|_| Malformed)?;
            Op::Schema { catalogue: Arc::new(catalogue) }
        }
        kind => return Err(Unreadable::Kind { format, kind }),
    })
}

/// A table or a column.
fn small(input: &mut Input) -> Result<u16, Malformed> {
    u16::try_from(input.number()?).map_err(|_| Malformed)
}

fn read_before(input: &mut Input) -> Result<Before, Malformed> {
    Ok(match input.byte()? {
        before::SAME_KEY => Before::SameKey,
        before::KEY => Before::Key(read_values(input)?),
        before::WHOLE => Before::Whole(read_values(input)?),
        _ => return Err(Malformed),
    })
}

fn read_values(input: &mut Input) -> Result<Box<[Value]>, Malformed> {
    read_list(input, read_value).map(Vec::into_boxed_slice)
}

/// A list of what takes a byte each at least: its count is no larger than what is left.
fn read_list<T>(
    input: &mut Input,
    one: impl Fn(&mut Input) -> Result<T, Malformed>,
) -> Result<Vec<T>, Malformed> {
    let count = input.count()?;
    let mut list = Vec::with_capacity(count);
    for _ in 0..count {
        list.push(one(input)?);
    }
    Ok(list)
}

fn read_value(input: &mut Input) -> Result<Value, Malformed> {
    Ok(match input.byte()? {
        value::NULL => Value::Null,
        value::INTEGER => {
            let folded = input.number()?;
            Value::Integer((folded >> 1) as i64 ^ -((folded & 1) as i64))
        }
        value::REAL => {
            let (bits, rest) = input.0.split_first_chunk::<8>().ok_or(Malformed)?;
            input.0 = rest;
            Value::Real(f64::from_bits(u64::from_le_bytes(*bits)))
        }
        value::TEXT => Value::Text(input.text()?.into()),
        value::BLOB => Value::Blob(input.bytes()?.into()),
        _ => return Err(Malformed),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_value() -> impl Strategy<Value = Value> {
        prop_oneof![
            Just(Value::Null),
            any::<i64>().prop_map(Value::Integer),
            (-70_i64..70).prop_map(Value::Integer),
            any::<f64>().prop_map(Value::Real),
            ".{0,12}".prop_map(|text| Value::Text(text.into())),
            prop::collection::vec(any::<u8>(), 0..12).prop_map(|bytes| Value::Blob(bytes.into())),
        ]
    }

    fn values() -> impl Strategy<Value = Box<[Value]>> {
        prop::collection::vec(any_value(), 0..6).prop_map(Vec::into_boxed_slice)
    }

    fn any_before() -> impl Strategy<Value = Before> {
        prop_oneof![Just(Before::SameKey), values().prop_map(Before::Key), values().prop_map(Before::Whole)]
    }

    fn any_op() -> impl Strategy<Value = Op> {
        let table = || any::<u16>().prop_map(TableId);
        let absent = prop::collection::vec(any::<u16>(), 0..6);
        prop_oneof![
            (any::<u64>(), any::<bool>())
                .prop_map(|(version, whole)| Op::Begin { version: StateVersion(version), whole }),
            (table(), values()).prop_map(|(table, row)| Op::Insert { table, row }),
            (table(), any_before(), values(), absent).prop_map(|(table, before, row, absent)| {
                Op::Update { table, before, row, absent: absent.into() }
            }),
            (table(), any_before()).prop_map(|(table, before)| Op::Delete { table, before }),
            prop::collection::vec(table(), 0..6).prop_map(|tables| Op::Truncate { tables }),
            any::<u64>().prop_map(|position| Op::Seen { position: StateVersion(position) }),
            Just(Op::Commit),
            Just(Op::Abort),
        ]
    }

    fn written(ops: &[Op]) -> Vec<u8> {
        let mut block = Vec::new();
        write(ops, &mut block);
        block
    }

    fn all(block: &[u8]) -> Result<Vec<Op>, Unreadable> {
        read(block)?.collect()
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(ops in prop::collection::vec(any_op(), 0..12)) {
            prop_assert_eq!(all(&written(&ops)), Ok(ops));
        }

        #[test]
        fn a_block_that_was_cut_gives_what_came_before(
            ops in prop::collection::vec(any_op(), 1..6),
            cut: prop::sample::Index,
        ) {
            let block = written(&ops);
            let cut = 1 + cut.index(block.len() - 1);
            let found: Vec<_> = read(&block[..cut]).unwrap().collect();
            let whole = found.iter().filter(|op| op.is_ok()).count();
            prop_assert!(whole < ops.len());
            for (found, op) in found.iter().zip(&ops).take(whole) {
                prop_assert_eq!(found.as_ref(), Ok(op));
            }
            // Either it was cut between two of them, or the last one is refused.
            prop_assert!(found.len() - whole <= 1);
            let is_border = written(&ops[..whole]).len() == cut;
            prop_assert_eq!(found.len() == whole, is_border);
            prop_assert!(is_border || found[whole] == Err(Unreadable::Malformed));
        }
    }

    #[test]
    fn what_another_version_writes_is_named_and_not_passed_over() {
        let mut block = written(&[Op::Commit, Op::Abort, Op::Commit]);
        block[2] = 200;
        let found: Vec<_> = read(&block).unwrap().collect();
        let unknown = Unreadable::Kind { format: 1, kind: 200 };
        assert_eq!(found, [Ok(Op::Commit), Err(unknown)], "and no more after it");
        let told = unknown.to_string();
        for part in ["kind 200", "format 1", "formats 1 to 1", env!("CARGO_PKG_VERSION")] {
            assert!(told.contains(part), "no {part:?} in {told:?}");
        }
        block[0] = 9;
        assert_eq!(all(&block), Err(Unreadable::Format(9)));
        let told = Unreadable::Format(9).to_string();
        for part in ["format 9", "formats 1 to 1", env!("CARGO_PKG_VERSION")] {
            assert!(told.contains(part), "no {part:?} in {told:?}");
        }
        assert_eq!(all(&[]), Err(Unreadable::Malformed));
    }

    #[test]
    fn a_row_that_says_it_is_large_gets_no_room() {
        let huge = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
        for start in [
            &[FORMAT, kind::INSERT, 0][..],
            &[FORMAT, kind::TRUNCATE],
            &[FORMAT, kind::DELETE, 0, before::KEY],
            &[FORMAT, kind::INSERT, 0, 1, value::TEXT],
            &[FORMAT, kind::UPDATE, 0, before::SAME_KEY, 0],
        ] {
            assert_eq!(all(&[start, &huge].concat()), Err(Unreadable::Malformed), "{start:?}");
        }
    }
}
