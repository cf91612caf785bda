//! A query with EXISTS is read from the side that takes a thousand times longer.

use crate::model::build::{Build, and, exists, flipped, from, not_exists, or, test};
use crate::model::cell::{Cell, Kind};
use crate::model::database::Write;
use crate::model::probe::Probe;
use crate::model::replica::Replica;
use crate::model::schema::{Schema, TableSpec};
use kelvin::replica::reader::Reader;
use kelvin::zql::ast::{Ast, Condition};
use kelvin::zql::evaluate::evaluate_from;
use kelvin::zql::limits::Limits;
use kelvin::zql::plan::{Plan, plan};
use kelvin::zql::sql::Statements;

/// Enough that looking at each takes longer than the first trial.
const ISSUES: usize = 20_000;

/// Of which each has a thousand issues.
const PROJECTS: usize = 20;

/// From the table itself.
const TABLE: usize = 0;

fn schema() -> Schema {
    let table = |name, columns: &[(&'static str, Kind)], key: &[usize], indexes: &[&[usize]]| {
        let columns = columns.iter().map(|(name, kind)| (*name, *kind, true)).collect();
        TableSpec::new(name, columns, &[key], indexes)
    };
    let text = Kind::Text;
    Schema::new(vec![
        table(
            "issue",
            &[("id", text), ("created", Kind::Int), ("owner", text), ("project", text)],
            &[0],
            &[&[1], &[2], &[3]],
        ),
        table("project", &[("id", text), ("name", text)], &[0], &[]),
        table("label", &[("id", text), ("name", text)], &[0], &[]),
        table("issue_label", &[("issue", text), ("label", text)], &[0, 1], &[&[1]]),
    ])
}

fn text(value: String) -> Cell {
    Cell::Text(value)
}

fn issue(n: usize) -> Cell {
    text(format!("i{n:06}"))
}

/// Every issue has the label "common", ten have "rare", one has "unique".
fn filled(schema: &Schema) -> Replica {
    let mut replica = Replica::create(schema);
    let insert = |table: &str, row: Vec<Cell>| Write::Insert { table: schema.find(table), row };
    let names = ["common", "rare", "unique", "nobody's"];
    let mut writes: Vec<Write> = names
        .iter()
        .map(|name| insert("label", vec![text(format!("l-{name}")), text((*name).into())]))
        .collect();
    let label = |name: &str| text(format!("l-{name}"));
    for n in 0..ISSUES {
        let owner = text(format!("u{}", n % 5_000));
        let project = text(format!("p{}", n % PROJECTS));
        writes.push(insert("issue", vec![issue(n), Cell::Int(n as i64), owner, project]));
        writes.push(insert("issue_label", vec![issue(n), label("common")]));
        if n % (ISSUES / 10) == 3 {
            writes.push(insert("issue_label", vec![issue(n), label("rare")]));
        }
    }
    writes.push(insert("issue_label", vec![issue(7), label("unique")]));
    for n in 0..PROJECTS {
        writes.push(insert("project", vec![text(format!("p{n}")), text(format!("project {n}"))]));
    }
    replica.commit(&writes);
    replica
}

fn with_label(name: &str) -> Condition {
    exists(
        "id=issue",
        from("issue_label").filter(exists("label=id", from("label").filter(test("name", "=", name)))),
    )
}

fn planned(ast: &Ast, schema: &Schema) -> Plan {
    plan(ast, &schema.catalogue, schema, &Limits::DEFAULT).expect("a plan")
}

fn chosen(reader: &Reader, plan: &Plan) -> usize {
    match &plan.nodes[0].statements {
        Statements::Once(once) => once.choose(reader).expect("a choice"),
        other => panic!("a root is read once: {other:?}"),
    }
}

fn answer(reader: &Reader, plan: &Plan, driver: usize) -> Vec<(usize, String)> {
    let mut probe = Probe::of(plan);
    evaluate_from(reader, plan, driver, &mut probe).expect("an answer");
    probe.rows.into_keys().collect()
}

/// What is chosen, and that every way gives the same answer.
fn check(reader: &Reader, schema: &Schema, ast: &Ast, expected: usize) {
    let plan = planned(ast, schema);
    assert_eq!(chosen(reader, &plan), expected, "{}", crate::model::print::query(ast));
    let Statements::Once(once) = &plan.nodes[0].statements else { return };
    let all: Vec<_> = (0..=once.drivers()).map(|driver| answer(reader, &plan, driver)).collect();
    assert!(all.windows(2).all(|two| two[0] == two[1]), "{}", crate::model::print::query(ast));
}

#[test]
fn few_are_found_by_what_makes_them_few_and_many_in_their_order() {
    let schema = schema();
    let replica = filled(&schema);
    let mut reader = replica.reader();
    reader.begin().expect("a snapshot");
    let newest = |condition: Condition| from("issue").filter(condition).order("created desc").limit(50);
    let all = |condition: Condition| from("issue").filter(condition);
    for query in [newest as fn(_) -> _, all] {
        check(&reader, &schema, &query(with_label("rare")), 1);
        check(&reader, &schema, &query(with_label("nobody's")), 1);
        check(&reader, &schema, &query(with_label("common")), TABLE);
        let both = and(vec![with_label("common"), with_label("unique")]);
        check(&reader, &schema, &query(both), 2);
        let either = or(vec![test("owner", "=", "u17"), with_label("rare")]);
        check(&reader, &schema, &query(either), 1);
        let either = or(vec![test("owner", "=", "u17"), with_label("common")]);
        check(&reader, &schema, &query(either), TABLE);
        let few = and(vec![test("owner", "=", "u17"), with_label("rare")]);
        check(&reader, &schema, &query(few), TABLE);
    }
    // One row of the subquery, and a thousand of the table by its key.
    let in_project = || exists("project=id", from("project").filter(test("name", "=", "project 3")));
    check(&reader, &schema, &newest(in_project()), TABLE);
    check(&reader, &schema, &all(in_project()), 1);
    let hinted = newest(flipped(with_label("rare"), true));
    assert_eq!(answer(&reader, &planned(&hinted, &schema), TABLE).len(), 21, "issues and witnesses");
    let without = planned(&newest(not_exists("id=issue", from("issue_label"))), &schema);
    assert_eq!(chosen(&reader, &without), TABLE, "what is not there cannot be started from");
    reader.let_try(false);
    assert_eq!(chosen(&reader, &planned(&newest(with_label("rare")), &schema)), TABLE, "not allowed");
}
