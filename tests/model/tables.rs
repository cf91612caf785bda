//! The tables and the queries of the tests of client groups.

use std::rc::Rc;

use kelvin::zql::ast::Ast;

use super::build::*;
use super::cell::{Cell, Kind};
use super::choices::Choices;
use super::database::{Database, Row, Write};
use super::scenario::Scenario;
use super::schema::{Schema, TableSpec};

/// Queries that clients know, and the forms that the app gives each of them.
const QUERIES: usize = 9;
const FORMS: usize = 3;

/// The query of the large table.
const LARGE: usize = 8;

/// `rows`: of the large table.
pub fn scenario(rows: usize) -> Scenario {
    let schema = schema();
    let forms = |number| (0..FORMS).map(|form| query(number, form).map(Rc::new)).collect();
    Scenario {
        believed: vec![schema.clone()],
        queries: (0..QUERIES).map(forms).collect(),
        large: (rows > 100).then_some(LARGE),
        initial: many(&schema, rows),
        transaction,
        schema,
    }
}

fn schema() -> Schema {
    let (text, int) = (Kind::Text, Kind::Int);
    let item = vec![("id", text, true), ("parent", text, false), ("n", int, false), ("s", text, false)];
    let tag = vec![("id", text, true), ("item", text, false), ("v", int, false)];
    let named = vec![("id", text, true), ("name", text, true), ("n", int, false)];
    let big = vec![("id", int, true), ("n", int, false)];
    let mut tables = vec![
        TableSpec::new("item", item, &[&[0]], &[&[1]]),
        TableSpec::new("tag", tag, &[&[0]], &[&[1]]),
        // Clients know its rows by another key than the replica.
        TableSpec::new("named", named, &[&[0], &[1]], &[]).known_by(Some(&[1])),
        TableSpec::new("big", big, &[&[0]], &[]),
    ];
    tables.extend(TableSpec::of_the_shard());
    Schema::new(tables)
}

/// One form of one query. `None`: the app refuses it.
fn query(query: usize, form: usize) -> Option<Ast> {
    let n = form as f64;
    let tags = || from("tag").filter(test("v", "=", n));
    Some(match query {
        // Forms that two queries have in common: one view answers both.
        0 | 1 if form == 2 => from("item").filter(test("n", "IS NOT", 2.0)),
        3 | 6 if form == 0 => from("item").related("id=item", from("tag").order("v").limit(1)),
        0 => from("item").filter(test("n", "IS NOT", n)),
        1 => from("item").order("n desc").limit(2 + form),
        2 => from("item").filter(exists("id=item", if form == 0 { from("tag") } else { tags() })),
        3 => from("item").related("id=item", from("tag").order("v").limit(1 + form)),
        4 => from("tag").filter(exists("item=id", from("item").filter(test("n", "=", n)))),
        5 if form == 0 => from("named"),
        5 => from("named").order("n").limit(2),
        6 => from("item")
            .filter(test("n", "=", n))
            .related("id=parent", from("item").related("id=item", tags())),
        // A form that the app refuses, and one that cannot be planned.
        7 if form == 0 => from("item").filter(not_exists("id=item", from("tag"))),
        7 if form == 1 => return None,
        7 => from("item").filter(test("nothing", "=", n)),
        _ if form == 0 => from("big"),
        _ if form == 1 => from("big").filter(exists("n=v", from("tag"))),
        _ => from("big").filter(test("n", "=", n)),
    })
}

/// Rows enough for results that are not sent at once.
fn many(schema: &Schema, count: usize) -> Vec<Write> {
    let table = schema.find("big");
    let row = |i: usize| vec![Cell::Int(i as i64), Cell::Int((i % 2) as i64)];
    (0..count).map(|i| Write::Insert { table, row: row(i) }).collect()
}

/// A transaction of the app. Where there are many rows it is mostly they that change.
fn transaction(choices: &mut Choices, db: &mut Database) -> Vec<Write> {
    let mut writes = Vec::new();
    let big = db.schema.find("big");
    let changes_many = db.len(big) > 100 && choices.percent(60);
    for _ in 0..=choices.below(3) {
        let table = db.schema.find(choices.pick::<&str>(&["item", "tag", "named", "item", "tag", "big"]));
        let table = if changes_many { big } else { table };
        for write in change(choices, db, table) {
            db.apply(&write);
            writes.push(write);
        }
    }
    writes
}

fn change(choices: &mut Choices, db: &Database, table: usize) -> Vec<Write> {
    let count = db.len(table);
    let new = row(choices, db, table);
    match (choices.below(100), db.same_key(table, &new).cloned()) {
        (3..90, None) => vec![Write::Insert { table, row: new }],
        (3..35, Some(row)) => vec![Write::Delete { table, row }],
        (35..90, Some(old)) => vec![Write::Update { table, old, new }],
        (90.., _) if count > 1 && db.schema.spec(table).name == "named" => {
            let (one, other) = (db.nth(table, 0).clone(), db.nth(table, count - 1).clone());
            let (mut a, mut b) = (one.clone(), other.clone());
            std::mem::swap(&mut a[1], &mut b[1]);
            vec![Write::Update { table, old: one, new: a }, Write::Update { table, old: other, new: b }]
        }
        (..3, _) if count < 100 => vec![Write::Truncate { table }],
        _ => Vec::new(),
    }
}

fn row(choices: &mut Choices, db: &Database, table: usize) -> Row {
    let spec = db.schema.spec(table);
    let mut row: Row = Vec::new();
    for (column, (_, kind, not_null)) in spec.columns.iter().enumerate() {
        row.push(match kind {
            _ if !not_null && choices.percent(15) => Cell::Null,
            Kind::Int if column == 0 => Cell::Int(choices.below(8) as i64),
            Kind::Int => Cell::Int(choices.below(3) as i64),
            _ => Cell::Text(format!("x{}", choices.below(6))),
        });
    }
    if spec.name == "named" {
        // The name is unique: a row keeps its own, a new one takes one that is free.
        let taken = |cell: &Cell| db.rows(table).any(|r| r[1] == *cell && r[0] != row[0]);
        let free = (0..).map(|i| Cell::Text(format!("x{i}"))).find(|c| !taken(c));
        if taken(&row[1].clone()) {
            row[1] = free.expect("there is always another name");
        }
    }
    row
}
