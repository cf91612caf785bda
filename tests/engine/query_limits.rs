//! A query becomes more than its limits allow, or ends the process instead of being refused.

use std::time::{Duration, Instant};

use crate::model::build::{Build, Constant, and, exists, from, or, test};
use crate::model::probe::Probe;
use crate::model::random;
use crate::model::replica::Replica;
use crate::model::schema::Schema;
use kelvin::protocol::parse;
use kelvin::replica::reader::Reader;
use kelvin::zql::ast::{Ast, Condition, Direction, Literal};
use kelvin::zql::builder::Statement;
use kelvin::zql::canonical;
use kelvin::zql::evaluate::evaluate;
use kelvin::zql::limits::Limits;
use kelvin::zql::parser::{self, ParseError, Strictness};
use kelvin::zql::plan::{Plan, PlanError, plan};
use kelvin::zql::sql::Statements;
use serde_json::{Value, json};

fn planned(schema: &Schema, ast: &Ast, limits: &Limits) -> Result<Plan, PlanError> {
    plan(ast, &schema.catalogue, schema, limits)
}

fn parsed(query: &Value, limits: &Limits) -> Result<Ast, ParseError> {
    parser::parse(&query.to_string(), Strictness::Tolerant, limits)
}

fn repeated(count: usize) -> Ast {
    let mut ast = from("alpha").start(&[("id", Literal::String("x".into()))], true);
    ast.order_by = (0..count).map(|_| ("id".to_owned(), Direction::Ascending)).collect();
    ast
}

/// The statements of a plan that list rows, and those that look at one.
fn statements(plan: &Plan) -> Vec<&Statement> {
    let mut out = Vec::new();
    for node in &plan.nodes {
        match &node.statements {
            Statements::Once(once) => out.extend((0..=once.drivers()).map(|driver| once.from(driver))),
            Statements::PerKey(statement) | Statements::Batch(statement) => out.push(statement),
            Statements::Witness { fill, holds } => out.extend([fill, holds]),
            Statements::Never => {}
        }
        out.extend([&node.holds, &node.lookup]);
    }
    out
}

/// Has SQLite read it.
fn read(reader: &Reader, plan: &Plan) -> usize {
    reader.begin().expect("a snapshot");
    let mut probe = Probe::of(plan);
    evaluate(reader, plan, &mut probe).expect("SQLite takes the statements");
    for statement in statements(plan) {
        reader.prepare_once(&statement.text).expect("SQLite takes the statement");
    }
    probe.rows.len()
}

#[test]
fn a_column_that_an_order_repeats_adds_nothing() {
    let schema = random::schema();
    let (once, often) = (repeated(1), repeated(5_000));
    let texts = |ast: &Ast| {
        let plan = planned(&schema, ast, &Limits::DEFAULT).expect("a plan");
        statements(&plan).iter().map(|statement| statement.text.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(texts(&once), texts(&often));
    let key = |ast: &Ast| {
        let mut bytes = Vec::new();
        canonical::write(ast, &mut bytes);
        bytes
    };
    assert_eq!(key(&once), key(&often), "they are one view");
    // The first direction counts.
    let mut down = repeated(0).order("id desc");
    down.order_by.extend(once.order_by.clone());
    assert_ne!(key(&once), key(&down));
}

#[test]
fn a_cursor_is_as_long_as_its_order_and_not_its_square() {
    let schema = random::schema();
    let length = |columns: &[&str]| {
        let start = columns.iter().fold(from("alpha"), |ast, column| ast.order(column)).start(&[], true);
        let without = Ast { start: None, ..start.clone() };
        let of = |ast: &Ast| planned(&schema, ast, &Limits::DEFAULT).expect("a plan").text().len();
        of(&start) - of(&without)
    };
    // Each column adds the same, with the key at the end.
    let lengths: Vec<usize> = (1..=5).map(|n| length(&["k", "i", "r", "s", "b"][..n])).collect();
    let steps: Vec<usize> = lengths.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(steps.iter().all(|step| *step == steps[0]), "{lengths:?}");
}

#[test]
fn each_limit_of_what_is_read_is_one() {
    let small = Limits {
        text: 2_000,
        depth: 4,
        nodes: 6,
        order: 3,
        correlation: 2,
        values: 5,
        constants: 40,
        ..Limits::DEFAULT
    };
    let simple = |value: Value| {
        json!({"type": "simple", "op": "IN", "left": {"type": "column", "name": "id"},
            "right": {"type": "literal", "value": value}})
    };
    let all = |conditions: Vec<Value>| json!({"table": "alpha", "where": {"type": "and", "conditions": conditions}});
    let list = |count: usize| all(vec![simple(json!(vec![1; count]))]);
    let order = |count: usize| json!({"table": "alpha", "orderBy": vec![["id", "asc"]; count]});
    let related = |columns: usize| {
        json!({"table": "alpha", "related": [{"correlation":
            {"parentField": vec!["id"; columns], "childField": vec!["id"; columns]}, "subquery": {"table": "beta"}}]})
    };
    let nested = |depth: usize| {
        (0..depth).fold(
            json!({"type": "and", "conditions": []}),
            |inner, _| json!({"type": "or", "conditions": [inner]}),
        )
    };
    let cursor = |count: usize| {
        let row: serde_json::Map<String, Value> = (0..count).map(|n| (n.to_string(), json!(1))).collect();
        json!({"table": "alpha", "start": {"row": row, "exclusive": true}})
    };
    let fits = [
        (all(vec![simple(json!([])); 4]), all(vec![simple(json!([])); 5]), "more than 6 conditions"),
        (list(4), list(5), "more than 5 constants"),
        (cursor(5), cursor(6), "more than 5 constants"),
        (order(3), order(4), "more than 3 columns in an order"),
        (related(2), related(3), "more than 2 columns in a correlation"),
        (
            json!({"table": "alpha", "where": nested(3)}),
            json!({"table": "alpha", "where": nested(4)}),
            "more than 4 levels",
        ),
        (
            all(vec![simple(json!(["x".repeat(20), "y".repeat(20)]))]),
            all(vec![simple(json!(["x".repeat(20), "y".repeat(21)]))]),
            "more than 40 bytes of constants",
        ),
        (json!({"table": "a".repeat(1_900)}), json!({"table": "a".repeat(2_000)}), "more than 2000 bytes"),
    ];
    for (fitting, too_much, expected) in fits {
        assert!(parsed(&fitting, &small).is_ok(), "{fitting}: {:?}", parsed(&fitting, &small));
        match parsed(&too_much, &small) {
            Err(ParseError::TooMuch(what)) => assert!(what.0.contains(expected), "{what}: {expected}"),
            other => panic!("{expected}: {other:?}"),
        }
    }
}

/// Nothing of it may use the stack for each level: reading, giving up what was read.
#[test]
fn nesting_of_a_hundred_thousand_levels_is_refused() {
    const DEEP: usize = 100_000;
    let wrap = |before: &str, inner: &str, after: &str| {
        format!("{}{inner}{}", before.repeat(DEEP), after.repeat(DEEP))
    };
    let condition = wrap(r#"{"type":"and","conditions":["#, r#"{"type":"and","conditions":[]}"#, "]}");
    let array = wrap("[", "1", "]");
    let object = wrap(r#"{"a":"#, "1", "}");
    let subquery = wrap(
        r#"{"type":"correlatedSubquery","op":"EXISTS","related":{"correlation":{"parentField":["id"],"childField":["id"]},"subquery":{"table":"alpha","where":"#,
        r#"{"type":"and","conditions":[]}"#,
        "}}}",
    );
    let literal = format!(
        r#"{{"type":"simple","op":"=","left":{{"type":"column","name":"id"}},"right":{{"type":"literal","value":{array}}}}}"#
    );
    let filters = [&condition, &subquery, &literal];
    let mut queries: Vec<String> =
        filters.iter().map(|filter| format!(r#"{{"table":"alpha","where":{filter}}}"#)).collect();
    queries.push(format!(r#"{{"table":"alpha","start":{{"row":{{"id":{object}}},"exclusive":true}}}}"#));
    queries.push(wrap(
        r#"{"table":"alpha","related":[{"correlation":{"parentField":["id"],"childField":["id"]},"subquery":"#,
        r#"{"table":"alpha"}"#,
        "}]}",
    ));
    queries.extend([array, object]);
    for query in &queries {
        let unlimited = Limits { text: usize::MAX, ..Limits::DEFAULT };
        for strictness in [Strictness::Strict, Strictness::Tolerant] {
            let error = parser::parse(query, strictness, &unlimited).expect_err("it is too deep");
            assert!(matches!(error, ParseError::TooMuch(_)), "{error}");
        }
        // As it comes in.
        let message = format!(
            r#"["changeDesiredQueries",{{"desiredQueriesPatch":[{{"op":"put","hash":"h","ast":{query}}}]}}]"#
        );
        assert!(parse::parse(&message).is_ok());
        let message = format!(
            r#"["changeDesiredQueries",{{"desiredQueriesPatch":[{{"op":"put","hash":"h","name":"n","args":[{query}]}}]}}]"#
        );
        assert!(parse::parse(&message).is_ok());
    }
}

#[test]
fn what_conditions_inside_of_others_repeat_is_counted_before_it_is_there() {
    let schema = random::schema();
    // Each level is part of the statements of all levels above it.
    let nested =
        |depth: usize| (0..depth).fold(from("beta"), |inner, _| from("beta").filter(exists("k=k", inner)));
    let small = Limits { plan: 256 << 10, ..Limits::DEFAULT };
    assert!(planned(&schema, &nested(4), &small).is_ok());
    let error = planned(&schema, &nested(60), &small).expect_err("it takes megabytes");
    assert!(error.0.contains("256 KiB"), "{error}");
    // Wide, not deep.
    let wide = |count: usize| from("alpha").filter(and(vec![exists("k=k", from("beta")); count]));
    assert!(planned(&schema, &wide(10), &small).is_ok());
    assert!(planned(&schema, &wide(1_000), &small).is_err());
    let related = |count: usize| (0..count).fold(from("alpha"), |ast, _| ast.related("k=k", from("beta")));
    assert!(
        planned(&schema, &related(10), &small).is_ok() && planned(&schema, &related(1_000), &small).is_err()
    );
}

#[test]
fn a_constant_counts_once_however_many_statements_have_it() {
    let schema = random::schema();
    const LONG: usize = 1 << 20;
    let long = Literal::String("x".repeat(LONG));
    let list = Literal::Array((0..20_000).map(|n| Literal::String(format!("{n:050}"))).collect());
    let inner = || from("beta").filter(and(vec![test("s", "LIKE", "a%"), exists("k=k", from("gamma"))]));
    for condition in [test("s", "=", Constant(long)), test("id", "IN", Constant(list))] {
        let plan =
            |filter: Condition| planned(&schema, &from("alpha").filter(filter).limit(5), &Limits::DEFAULT);
        let alone = plan(condition.clone()).expect("a plan").bytes;
        // Three conditions that the root may be read from: each has two statements more.
        let others = (0..3).map(|_| exists("k=k", inner()));
        let many = plan(and(others.chain([condition]).collect::<Vec<_>>())).expect("a plan").bytes;
        assert!(alone > LONG && many < alone + LONG / 4, "{alone} alone, {many} in many statements");
    }
}

/// A cursor is part of every statement that lists rows.
#[test]
fn what_a_query_starts_at_counts_once_however_many_statements_have_it() {
    let schema = random::schema();
    const LONG: usize = 1 << 20;
    let at = [("s", Literal::String("x".repeat(LONG))), ("id", Literal::String("a".into()))];
    let start = || from("alpha").order("s").start(&at, false).limit(5);
    let plan = |ast: &Ast| planned(&schema, ast, &Limits::DEFAULT).expect("a plan");
    let alone = plan(&start()).bytes;
    let many = plan(&start().filter(and(vec![exists("k=k", from("beta")); 3])));
    assert!(statements(&many).len() > statements(&plan(&start())).len());
    assert!(alone > LONG && many.bytes < alone + LONG / 4, "{alone} alone, {} in many", many.bytes);
}

#[test]
fn what_statements_bind_counts_beside_their_text() {
    let schema = random::schema();
    let filter = or((0..2_000).map(|n| test("k", "=", n as f64)).collect::<Vec<_>>());
    let plan = planned(&schema, &from("alpha").filter(filter), &Limits::DEFAULT).expect("a plan");
    let made = statements(&plan).into_iter();
    let (texts, bound) = made.fold((0, 0), |(texts, bound), statement| {
        (texts + statement.text.len(), bound + size_of_val(&*statement.constants))
    });
    assert!(bound > texts / 2 && plan.bytes >= texts + bound, "{} for {texts} and {bound}", plan.bytes);
}

/// One statement may become many times what the whole plan may have: it ends where that is exceeded, before
/// what comes behind is even looked at.
#[test]
fn a_statement_that_is_too_much_is_given_up_while_it_is_made() {
    let schema = random::schema();
    let small = Limits { plan: 256 << 10, ..Limits::DEFAULT };
    let wrong = exists("k=k", from("beta").filter(test("nonesuch", "=", 1.0)));
    let with = |count: usize| {
        let many = vec![exists("k=k", from("beta")); count];
        planned(&schema, &from("alpha").filter(and([many, vec![wrong.clone()]].concat())), &small)
    };
    let error = with(1).expect_err("a wrong name");
    assert!(error.0.contains("nonesuch"), "{error}");
    let error = with(10_000).expect_err("too much");
    assert!(error.0.contains("256 KiB"), "{error}");
}

#[test]
fn more_constants_than_sqlite_binds_in_one_statement_are_refused() {
    let schema = random::schema();
    let small = Limits { bound: 100, ..Limits::DEFAULT };
    let filter = |count: usize| {
        from("alpha").filter(or((0..count).map(|n| test("k", "=", n as f64)).collect::<Vec<_>>()))
    };
    assert!(planned(&schema, &filter(90), &small).is_ok());
    let error = planned(&schema, &filter(110), &small).expect_err("too many");
    assert!(error.0.contains("more than 100 constants"), "{error}");
}

/// The widest and the deepest that the limits let through: SQLite has limits of its own, and nobody may wait for
/// long.
#[test]
fn sqlite_takes_whatever_the_limits_let_through() {
    let schema = random::schema();
    let replica = Replica::create(&schema);
    let reader = replica.reader();
    let limits = Limits::DEFAULT;
    let many = |count: usize| (0..count).map(|n| test("k", "=", n as f64)).collect::<Vec<_>>();
    let different =
        (0..limits.nodes - 2).map(|n| test("s", "!=", format!("{n}").as_str())).collect::<Vec<_>>();
    let mut nested = test("k", "=", 1.0);
    for level in 0..limits.depth - 2 {
        nested = if level % 2 == 0 {
            or(vec![nested, test("k", "=", 2.0)])
        } else {
            and(vec![nested, test("k", ">", 0.0)])
        };
    }
    let subqueries =
        (0..(limits.depth - 1) / 3).fold(from("beta"), |inner, _| from("beta").filter(exists("k=k", inner)));
    let columns = ["k", "i desc", "r", "s desc", "b", "id"];
    let cursor =
        columns.iter().fold(from("alpha"), |ast, column| ast.order(column)).start(&[], false).limit(3);
    for (what, ast) in [
        ("or", from("alpha").filter(or(many(limits.nodes - 2)))),
        ("and", from("alpha").filter(and(different))),
        ("nested", from("alpha").filter(nested)),
        ("subqueries", subqueries),
        ("cursor", cursor),
    ] {
        let began = Instant::now();
        let plan = match planned(&schema, &ast, &limits) {
            Ok(plan) => plan,
            Err(error) => panic!("{what}: {error}"),
        };
        read(&reader, &plan);
        assert!(began.elapsed() < Duration::from_secs(10), "{what}: {:?}", began.elapsed());
        println!("{what}: {:?}, {} bytes", began.elapsed(), plan.bytes);
    }
}
