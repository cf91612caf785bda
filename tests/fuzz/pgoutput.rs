//! What the plugin of Postgres writes.

use kelvin::upstream::pgoutput::{Field, Old, Pgoutput, Tuple, parse};
use proptest::prelude::*;

use super::engine::fuzz;
use super::mutate::bytes;

fn seeds() -> Vec<Vec<u8>> {
    let seed = |bytes: &[u8]| bytes.to_vec();
    vec![
        seed(b"B\0\0\0\0\0\0\0\x07\0\0\0\0\0\0\0\0\0\0\0\x01"),
        seed(b"C\0\0\0\0\0\0\0\0\x07\0\0\0\0\0\0\0\x09\0\0\0\0\0\0\0\0"),
        seed(b"R\0\0\0\x07public\0item\0d\0\x02\x01id\0\0\0\0\x19\xff\xff\xff\xff\0n\0\0\0\0\x14\xff\xff\xff\xff"),
        seed(b"I\0\0\0\x07N\0\x02t\0\0\0\x02ab\0n"),
        seed(b"U\0\0\0\x07K\0\x02t\0\0\0\x01anN\0\x03t\0\0\0\x02\xc3\xa9un"),
        seed(b"D\0\0\0\x07O\0\x01t\0\0\0\x01a"),
        seed(b"T\0\0\0\x02\x01\0\0\0\x07\0\0\0\x08"),
        seed(b"M\x01\0\0\0\0\0\0\0\x07zero/0\0\0\0\0\x02{}"),
        seed(b"O\0\0\0\0\0\0\0\0origin\0"),
        seed(b"Y\0\0\0\x07public\0mood\0"),
        // A tuple that announces more columns than it has.
        seed(b"I\0\0\0\x07N\xff\xff"),
    ]
}

fn tuple(out: &mut Vec<u8>, tuple: &Tuple) {
    out.extend((tuple.len() as u16).to_be_bytes());
    for field in tuple {
        match field {
            Field::Null => out.push(b'n'),
            Field::Unchanged => out.push(b'u'),
            Field::Text(text) => {
                out.push(b't');
                out.extend((text.len() as u32).to_be_bytes());
                out.extend(text.as_bytes());
            }
        }
    }
}

/// The bytes of a message about a row; `None`: of another.
fn written(message: &Pgoutput) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let start = |out: &mut Vec<u8>, kind: u8, oid: u32| {
        out.push(kind);
        out.extend(oid.to_be_bytes());
    };
    let old = |out: &mut Vec<u8>, old: &Old| match old {
        Old::Key(fields) => {
            out.push(b'K');
            tuple(out, fields);
        }
        Old::Full(fields) => {
            out.push(b'O');
            tuple(out, fields);
        }
    };
    match message {
        Pgoutput::Insert { oid, new } => {
            start(&mut out, b'I', *oid);
            out.push(b'N');
            tuple(&mut out, new);
        }
        Pgoutput::Update { oid, old: before, new } => {
            start(&mut out, b'U', *oid);
            before.iter().for_each(|before| old(&mut out, before));
            out.push(b'N');
            tuple(&mut out, new);
        }
        Pgoutput::Delete { oid, old: before } => {
            start(&mut out, b'D', *oid);
            old(&mut out, before);
        }
        _ => return None,
    }
    Some(out)
}

fn room(message: &Pgoutput) -> usize {
    match message {
        Pgoutput::Insert { new, .. } => new.capacity(),
        Pgoutput::Update { old, new, .. } => {
            let Some(Old::Key(before) | Old::Full(before)) = old else { return new.capacity() };
            new.capacity().max(before.capacity())
        }
        Pgoutput::Delete { old: Old::Key(before) | Old::Full(before), .. } => before.capacity(),
        Pgoutput::Relation(relation) => relation.columns.capacity(),
        Pgoutput::Truncate { oids } => oids.capacity(),
        _ => 0,
    }
}

#[test]
fn messages_about_rows_say_what_was_written() {
    fuzz(bytes(seeds(), vec![b"N\0\x01n", b"t\0\0\0\x01", b"\xff\xff\xff\xff", b"\0", b"K\0\0"]), |bytes| {
        let Ok(message) = parse(&bytes) else { return Ok(()) };
        if let Some(written) = written(&message) {
            prop_assert_eq!(&written, &bytes);
        }
        prop_assert!(
            room(&message) <= bytes.len().max(8),
            "room for {} of {} bytes",
            room(&message),
            bytes.len()
        );
        Ok(())
    });
}
