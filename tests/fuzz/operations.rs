//! Blocks of operations, as another node or an older log gives them.

use std::sync::Arc;

use kelvin::model::catalogue::{Catalogue, Table};
use kelvin::model::ids::TableId;
use kelvin::model::value::Value;
use kelvin::model::version::StateVersion;
use kelvin::replica::op_codec::{FORMATS, Unreadable, read, write};
use kelvin::replica::work::{Absent, Before, Op};
use proptest::prelude::*;

use super::engine::fuzz;
use super::mutate::bytes;

fn ops() -> Vec<Op> {
    let row = || -> Box<[Value]> {
        Box::new([
            Value::Null,
            Value::Integer(-3),
            Value::Real(1.5),
            Value::Text("é".into()),
            Value::Blob([0, 255].into()),
        ])
    };
    let key = || Before::Key(Box::new([Value::Text("a".into())]));
    let table = TableId(300);
    vec![
        Op::Begin { version: StateVersion(1 << 40), whole: false },
        Op::Begin { version: StateVersion(7), whole: true },
        Op::Insert { table, row: row() },
        Op::Update { table, before: Before::SameKey, row: row(), absent: Absent::from_slice(&[3, 400]) },
        Op::Update { table, before: key(), row: row(), absent: Absent::new() },
        Op::Delete { table, before: key() },
        Op::Delete { table, before: Before::Whole(row()) },
        Op::Truncate { tables: vec![TableId(0), table] },
        Op::Schema {
            catalogue: Arc::new(Catalogue::new(3, vec![Table { name: "t".into(), ..Table::default() }])),
        },
        Op::Commit,
        Op::Seen { position: StateVersion(u64::MAX) },
        Op::Abort,
    ]
}

fn written<'o>(ops: impl IntoIterator<Item = &'o Op>) -> Vec<u8> {
    let mut block = Vec::new();
    write(ops, &mut block);
    block
}

/// Bytes that an operation occupies beside itself.
fn room(op: &Op) -> usize {
    let values = |values: &[Value]| size_of_val(values) + values.iter().map(Value::heap_size).sum::<usize>();
    let before = |before: &Before| match before {
        Before::SameKey => 0,
        Before::Key(list) | Before::Whole(list) => values(list),
    };
    match op {
        Op::Insert { row, .. } => values(row),
        Op::Update { before: found, row, absent, .. } => {
            before(found) + values(row) + absent.capacity() * size_of::<u16>()
        }
        Op::Delete { before: found, .. } => before(found),
        Op::Truncate { tables } => tables.capacity() * size_of::<TableId>(),
        // As many tables as texts of tables, and each text is far longer than what is made of it.
        Op::Schema { .. } | Op::Begin { .. } | Op::Commit | Op::Seen { .. } | Op::Abort => 0,
    }
}

#[test]
fn operations_that_are_read_are_written_alike() {
    let mut seeds: Vec<Vec<u8>> = ops().iter().map(|op| written([op])).collect();
    seeds.push(written(&ops()));
    let words: Vec<&[u8]> =
        vec![b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", b"\x80", b"\x03\x01", b"\x04\x7f"];
    fuzz(bytes(seeds, words), |block| {
        let format = block.first().copied();
        let found = match read(&block) {
            Ok(found) => found,
            Err(Unreadable::Format(other)) => {
                prop_assert!(format == Some(other) && !FORMATS.contains(&other));
                return Ok(());
            }
            Err(error) => {
                prop_assert_eq!((error, format), (Unreadable::Malformed, None));
                return Ok(());
            }
        };
        let mut ops = Vec::new();
        let mut refused = false;
        for op in found {
            prop_assert!(!refused, "an operation after an error");
            match op {
                Ok(op) => ops.push(op),
                Err(_) => refused = true,
            }
        }
        // What can be told apart is: numbers that are none are not equal to themselves, so bytes are compared.
        let again = written(&ops);
        let reread: Result<Vec<Op>, Unreadable> = read(&again).and_then(Iterator::collect);
        prop_assert_eq!(reread.map(|ops| written(&ops)), Ok(again));
        // A byte of the block is a value at most, and an inline list of columns costs nothing.
        let total: usize = ops.iter().map(room).sum();
        let most = block.len() * size_of::<Value>() + ops.len() * size_of::<Absent>();
        prop_assert!(total <= most, "room for {total} of {} bytes", block.len());
        Ok(())
    });
}
