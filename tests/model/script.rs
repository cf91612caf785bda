//! Transactions written down: `+issue e open - u1` adds, `issue a p=5 owner=-` changes,
//! `-issue a` removes, `truncate issue` empties; separated by semicolons. `-` is NULL.

use super::cell::{Cell, Kind};
use super::database::{Database, Row, Write};

/// Reads a script and applies it to `db`.
pub fn writes(script: &str, db: &mut Database) -> Vec<Write> {
    let steps = script.split(';').map(str::trim).filter(|s| !s.is_empty());
    steps
        .map(|step| {
            let write = read(step, db);
            db.apply(&write);
            write
        })
        .collect()
}

fn read(step: &str, db: &Database) -> Write {
    let words: Vec<&str> = step.split_whitespace().collect();
    let schema = &db.schema;
    if let Some(table) = step.strip_prefix("truncate ") {
        return Write::Truncate { table: schema.find(table) };
    }
    if let Some(name) = words[0].strip_prefix('+') {
        let table = schema.find(name);
        let columns = &schema.spec(table).columns;
        assert_eq!(words.len(), columns.len() + 1, "{step}");
        let row = columns.iter().zip(&words[1..]).map(|(c, word)| cell(c.1, word)).collect();
        return Write::Insert { table, row };
    }
    let table = schema.find(words[0].trim_start_matches('-'));
    let key = schema.spec(table).row_key.len();
    let old = find(db, table, &words[1..=key]);
    if words[0].starts_with('-') {
        return Write::Delete { table, row: old };
    }
    let mut new = old.clone();
    for change in &words[key + 1..] {
        let (name, value) = change.split_once('=').expect("column=value");
        let column = schema.column(table, name);
        new[column] = cell(schema.spec(table).columns[column].1, value);
    }
    Write::Update { table, old, new }
}

fn find(db: &Database, table: usize, key: &[&str]) -> Row {
    let spec = db.schema.spec(table);
    let is_it = |row: &&Row| {
        spec.row_key
            .iter()
            .zip(key)
            .all(|(column, value)| row[*column] == cell(spec.columns[*column].1, value))
    };
    db.rows(table).find(is_it).unwrap_or_else(|| panic!("no {} {key:?}", spec.name)).clone()
}

fn cell(kind: Kind, word: &str) -> Cell {
    if word == "-" {
        return Cell::Null;
    }
    match kind {
        Kind::Bool => Cell::Bool(word == "true"),
        Kind::Int => Cell::Int(word.parse().expect("an integer")),
        Kind::Real => Cell::Real(word.parse().expect("a number")),
        Kind::Text => Cell::Text(word.replace("\\s", " ").replace("\\n", "\n")),
        Kind::Json => Cell::Json(word.to_owned()),
        Kind::Bytes => Cell::Bytes(word.as_bytes().to_vec()),
    }
}
