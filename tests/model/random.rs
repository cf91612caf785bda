//! Random tables' contents and random transactions.

use super::cell::{Cell, Kind};
use super::choices::Choices;
use super::database::{Database, Row, Write};
use super::schema::{NotNull, Schema, TableSpec};

/// Few values, so that rows meet: equal strings in other cases, in other normal forms,
/// with characters that patterns give a meaning; numbers that are equal as integer and as
/// double.
const TEXTS: [&str; 12] = ["a", "b", "A", "é", "～", "😀", "a%b", "x\ny", "1", "", "ΑΣ", "q\"\\_"];
const REALS: [f64; 8] = [0.0, 1.0, 2.0, 0.5, -1.5, 1e300, 0.1, 1704164645678.901];
const JSONS: [&str; 5] = ["null", "1", "\"a\"", "{\"a\":[1,null]}", "[]"];

/// Columns that all tables have, in this order.
pub const ID: usize = 0;
pub const K: usize = 1;

/// Of every type one, and those that make keys.
pub fn columns() -> Vec<(&'static str, Kind, NotNull)> {
    vec![
        ("id", Kind::Text, true),
        ("k", Kind::Int, true),
        ("i", Kind::Int, false),
        ("r", Kind::Real, false),
        ("s", Kind::Text, false),
        ("b", Kind::Bool, false),
        ("j", Kind::Json, false),
        ("z", Kind::Bytes, false),
    ]
}

/// Tables that differ in their keys and indexes.
pub fn schema() -> Schema {
    let table =
        |name, keys: &[&[usize]], indexes: &[&[usize]]| TableSpec::new(name, columns(), keys, indexes);
    Schema::new(vec![
        table("alpha", &[&[ID]], &[&[2], &[4], &[4, 2]]),
        // A compound key that is not declared in the order of names.
        table("beta", &[&[K, ID]], &[&[2, 4], &[5]]),
        // Clients know the rows by another key than the replica, and nothing else is indexed.
        table("gamma", &[&[ID], &[K]], &[]).known_by(Some(&[K])),
        // Clients do not know the table.
        table("omega", &[&[ID]], &[&[2]]).known_by(None),
    ])
}

/// A value of one column.
pub fn cell(choices: &mut Choices, kind: Kind, not_null: bool) -> Cell {
    if !not_null && choices.percent(20) {
        return Cell::Null;
    }
    match kind {
        Kind::Bool => Cell::Bool(choices.below(2) == 1),
        Kind::Int => Cell::Int(choices.below(4) as i64),
        Kind::Real => Cell::Real(*choices.pick(&REALS)),
        Kind::Text => Cell::Text((*choices.pick(&TEXTS)).to_owned()),
        Kind::Json => Cell::Json((*choices.pick(&JSONS)).to_owned()),
        Kind::Bytes => Cell::Bytes(vec![choices.below(2) as u8]),
    }
}

fn row(choices: &mut Choices, spec: &TableSpec) -> Row {
    spec.columns.iter().map(|(_, kind, not_null)| cell(choices, *kind, *not_null)).collect()
}

/// Makes the row's keys free ones; false if it could not be done.
fn make_unique(
    db: &Database,
    table: usize,
    row: &mut Row,
    choices: &mut Choices,
    except: Option<&Row>,
) -> bool {
    for _ in 0..4 {
        let taken = db.rows(table).filter(|r| Some(*r) != except).any(|other| {
            let keys = &db.schema.spec(table).candidate_keys;
            keys.iter().any(|key| key.iter().all(|c| other[*c] == row[*c]))
        });
        if !taken {
            return true;
        }
        row[ID] = Cell::Text((*choices.pick(&TEXTS)).to_owned());
        row[K] = Cell::Int(choices.below(16) as i64);
    }
    false
}

/// One transaction, applied to `db`.
pub fn transaction(choices: &mut Choices, db: &mut Database, most: usize) -> Vec<Write> {
    let mut writes = Vec::new();
    for _ in 0..=choices.below(most) {
        let before = writes.len();
        step(choices, db, &mut writes);
        assert!(writes.len() - before <= 3);
    }
    writes
}

fn step(choices: &mut Choices, db: &mut Database, writes: &mut Vec<Write>) {
    let schema = db.schema.clone();
    let table = choices.below(schema.of_app());
    let spec = schema.spec(table);
    let mut write = |db: &mut Database, w: Write| {
        db.apply(&w);
        writes.push(w);
    };
    let count = db.len(table);
    let what = choices.below(100);
    if count == 0 || what < 25 {
        let mut new = row(choices, spec);
        if make_unique(db, table, &mut new, choices, None) {
            write(db, Write::Insert { table, row: new });
        }
        return;
    }
    let old = db.nth(table, choices.below(count)).clone();
    match what {
        // One column changes; a key, if it is one.
        25..60 => {
            let column = choices.below(spec.columns.len());
            let mut new = old.clone();
            new[column] = cell(choices, spec.columns[column].1, spec.columns[column].2);
            if make_unique(db, table, &mut new, choices, Some(&old)) {
                write(db, Write::Update { table, old, new });
            }
        }
        60..78 => write(db, Write::Delete { table, row: old }),
        // The row goes and comes back, perhaps changed, perhaps under another key.
        78..86 => {
            let mut new = if choices.percent(70) { row(choices, spec) } else { old.clone() };
            if choices.percent(50) {
                new[K] = old[K].clone();
            } else {
                new[ID] = old[ID].clone();
            }
            write(db, Write::Delete { table, row: old });
            if make_unique(db, table, &mut new, choices, None) {
                write(db, Write::Insert { table, row: new });
            }
        }
        // Two rows swap a unique value, as a deferrable constraint allows.
        86..96 => {
            let other = db.nth(table, choices.below(count)).clone();
            if spec.row_key != [ID] || other == old {
                return;
            }
            let (mut a, mut b) = (old.clone(), other.clone());
            std::mem::swap(&mut a[K], &mut b[K]);
            write(db, Write::Update { table, old, new: a });
            write(db, Write::Update { table, old: other, new: b });
        }
        _ => write(db, Write::Truncate { table }),
    }
}
