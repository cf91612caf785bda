//! Queries: as an app spells them out that takes what clients give it, or that was taken over; and as clients spell
//! them out themselves.

use serde_json::{Value, json};

use super::outcome::Outcome::{self, Error, Served};
use super::suite::Suite;
use crate::support::app::Answer;
use crate::support::client::{Client, Event, WAIT};

/// What becomes of a query.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fate {
    /// It is answered, with this many rows.
    Rows(usize),
    /// It alone is refused.
    Refused,
    /// The app's answer cannot be read: the connection is told so.
    Unread,
    /// Answered or refused; no row comes.
    Empty,
    /// Refused, alone or with the whole answer.
    Denied,
}
use Fate::{Denied, Empty, Refused, Rows, Unread};

/// The rows in the table `item`.
const ALL: usize = 4;

type Row = (&'static str, Value, Fate);

fn column(name: &str) -> Value {
    json!({"type": "column", "name": name})
}

fn literal(value: Value) -> Value {
    json!({"type": "literal", "value": value})
}

fn simple(left: Value, op: &str, right: Value) -> Value {
    json!({"type": "simple", "op": op, "left": left, "right": right})
}

fn is(name: &str, value: Value) -> Value {
    simple(column(name), "=", literal(value))
}

/// All items for which this holds.
fn items(condition: Value) -> Value {
    json!({"table": "item", "where": condition, "orderBy": [["id", "asc"]]})
}

fn group(kind: &str, members: Vec<Value>) -> Value {
    json!({"type": kind, "conditions": members})
}

/// Groups within groups.
fn nested(depth: usize) -> Value {
    (0..depth).fold(is("id", json!("watched")), |inner, n| {
        group(if n % 2 == 0 { "and" } else { "or" }, vec![inner])
    })
}

fn exists(op: &str, subquery: Value) -> Value {
    json!({"type": "correlatedSubquery", "op": op, "related": {
        "correlation": {"parentField": ["id"], "childField": ["id"]}, "subquery": subquery}})
}

/// Subqueries within subqueries.
fn subqueries(depth: usize) -> Value {
    let innermost = json!({"table": "item", "alias": "innermost"});
    (0..depth).fold(
        innermost,
        |inner, n| json!({"table": "item", "alias": format!("a{n}"), "where": exists("EXISTS", inner)}),
    )
}

fn related(count: usize) -> Value {
    let one = |n| {
        json!({"correlation": {"parentField": ["owner"], "childField": ["owner"]},
                         "subquery": {"table": "item", "alias": format!("r{n}")}})
    };
    json!({"table": "item", "related": (0..count).map(one).collect::<Vec<_>>()})
}

fn with(field: &str, value: Value) -> Value {
    let mut ast = json!({"table": "item", "orderBy": [["id", "asc"]]});
    ast[field] = value;
    ast
}

/// No queries at all.
fn malformed() -> Vec<Row> {
    let row = |name, ast| (name, ast, Unread);
    let condition = |name, condition| (name, items(condition), Unread);
    vec![
        row("a number", json!(7)),
        row("a list", json!([])),
        row("nothing", json!({})),
        row("a table that is a list", json!({"table": ["item"]})),
        row("a limit that is a text", with("limit", json!("few"))),
        row("related that is none", with("related", json!([7]))),
        row("an order that is none", with("orderBy", json!({"id": "asc"}))),
        row("an order sideways", with("orderBy", json!([["id", "sideways"]]))),
        row("an order by SQL", with("orderBy", json!([["id", "asc; DROP TABLE item"]]))),
        row("an order by a number", with("orderBy", json!([[1, "asc"]]))),
        row("a start without a row", with("start", json!({"exclusive": true}))),
        row("a start that may be exclusive", with("start", json!({"row": {}, "exclusive": "maybe"}))),
        condition("a condition of SQL", json!({"type": "raw", "sql": "1=1"})),
        condition("an operator of SQL", simple(column("id"), "= '' OR 1 =", literal(json!(1)))),
        condition("a regular expression", simple(column("id"), "~", literal(json!("(a+)+$")))),
        condition("a column on the right", simple(column("id"), "=", column("id"))),
        condition("an object for a value", simple(column("id"), "=", literal(json!({"$gt": ""})))),
        condition("a side that is missing", json!({"type": "simple", "op": "=", "left": column("id")})),
        condition("a subquery that may exist", exists("MAYBE", json!({"table": "item"}))),
        condition(
            "a subquery without a tie",
            json!({"type": "correlatedSubquery", "op": "EXISTS", "related": {"subquery": {"table": "item"}}}),
        ),
        condition(
            "a subquery with half a tie",
            json!({"type": "correlatedSubquery", "op": "EXISTS", "related": {
            "correlation": {"parentField": ["id", "n"], "childField": ["id"]}, "subquery": {"table": "item"}}}),
        ),
        condition(
            "a subquery with a tie of nothing",
            json!({"type": "correlatedSubquery", "op": "EXISTS", "related": {
            "correlation": {"parentField": [], "childField": []}, "subquery": {"table": "item"}}}),
        ),
        condition(
            "a hint that is none",
            json!({"type": "correlatedSubquery", "op": "EXISTS", "flip": "often", "related": {
            "correlation": {"parentField": ["id"], "childField": ["id"]}, "subquery": {"table": "item"}}}),
        ),
    ]
}

/// Queries that are more than one may be.
fn too_much() -> Vec<Row> {
    let condition = |name, condition| (name, items(condition), Denied);
    vec![
        condition("groups too deep", nested(70)),
        condition("groups far too deep", nested(120)),
        condition("subqueries too deep", exists("EXISTS", subqueries(40))),
        condition("too many conditions", group("or", vec![is("id", json!("x")); 4_100])),
    ]
}

/// Names that mean something to SQLite, to Postgres or to the server.
fn names() -> Vec<Row> {
    let table = |name, table: &str, fate| (name, json!({"table": table}), fate);
    let with_column = |name, column: &str| (name, items(is(column, json!(1))), Refused);
    vec![
        table("a table that is not there", "nonesuch", Refused),
        table("a table without a name", "", Refused),
        table("a table of SQLite's", "sqlite_master", Refused),
        table("a function of SQLite's", "pragma_table_info('item')", Refused),
        table("the schema in SQLite", "main.item", Refused),
        table("a table of the server's", "_zero.replicationConfig", Refused),
        table("a table of Postgres'", "pg_catalog.pg_authid", Refused),
        table("SQL", "item\" UNION TABLE \"hidden", Refused),
        table("a name with a NUL", "item\0", Refused),
        table("a name of a megabyte", &"x".repeat(1 << 20), Refused),
        table("a table that the client does not know", "hidden", Rows(0)),
        table("mutations' results", "zero_0.mutations", Empty),
        table("clients' mutations", "zero_0.clients", Empty),
        with_column("a column that is not there", "nonesuch"),
        with_column("a row's number", "rowid"),
        with_column("a row's other number", "_rowid_"),
        with_column("the server's own column", "_0_version"),
        with_column("a column of SQL", "n\" = 1 OR 1=1 --"),
        with_column("a prototype", "__proto__"),
        ("an order by a column that is not there", with("orderBy", json!([["nonesuch", "asc"]])), Refused),
        ("an order by a row's number", with("orderBy", json!([["rowid", "asc"]])), Refused),
        (
            "a tie to a column that is not there",
            with(
                "related",
                json!([{
            "correlation": {"parentField": ["nonesuch"], "childField": ["id"]}, "subquery": {"table": "item", "alias": "x"}}]),
            ),
            Refused,
        ),
        (
            "a parameter of permissions",
            items(simple(column("id"), "=", json!({"type": "static", "anchor": "authData", "field": "sub"}))),
            Refused,
        ),
    ]
}

/// Queries that can be answered, and take more than others.
fn costly() -> Vec<Row> {
    let among = |values: Vec<Value>| simple(column("id"), "IN", literal(json!(values)));
    let like = |op: &str, pattern: &str| items(simple(column("id"), op, literal(json!(pattern))));
    let texts = |count: usize| (0..count).map(|n| json!(format!("v{n}"))).collect::<Vec<_>>();
    vec![
        ("groups as deep as may be", items(nested(60)), Rows(1)),
        ("four hundred conditions", items(group("or", vec![is("id", json!("watched")); 400])), Rows(1)),
        (
            "four hundred different conditions",
            items(group("or", texts(400).into_iter().map(|v| is("id", v)).collect())),
            Rows(0),
        ),
        ("all of nothing", items(group("and", vec![])), Rows(ALL)),
        ("any of nothing", items(group("or", vec![])), Rows(0)),
        ("one of ten thousand", items(among(texts(10_000))), Rows(0)),
        ("one of none", items(among(vec![])), Rows(0)),
        ("one of the same ten thousand times", items(among(vec![json!("watched"); 10_000])), Rows(1)),
        ("a text of a megabyte", items(is("id", json!("x".repeat(1 << 20)))), Rows(0)),
        ("a text with a NUL", items(is("id", json!("watched\0"))), Rows(0)),
        ("a text that is SQL", items(is("id", json!("' OR '1'='1"))), Rows(0)),
        ("a text of characters that are none", items(is("id", json!("\u{fffe}\u{202e}\u{10ffff}"))), Rows(0)),
        ("a thousand wildcards", like("LIKE", &"%".repeat(1_000)), Rows(ALL)),
        ("wildcards that do not match", like("LIKE", &"%_".repeat(500)), Rows(0)),
        ("a pattern that ends too early", like("LIKE", "x\\"), Empty),
        ("a pattern that is a set", like("ILIKE", "[a-z]*"), Rows(0)),
        ("twenty subqueries within another", items(exists("EXISTS", subqueries(15))), Rows(ALL)),
        (
            "a subquery that must not be, of one that must not be",
            items(exists(
                "NOT EXISTS",
                json!({"table": "item", "alias": "a", "where": exists("NOT EXISTS", json!({"table": "item", "alias": "b"}))}),
            )),
            Rows(ALL),
        ),
        ("twenty related", related(20), Rows(ALL)),
        (
            "a tie of a text and a number",
            items(json!({"type": "correlatedSubquery", "op": "EXISTS", "related": {
            "correlation": {"parentField": ["n"], "childField": ["id"]}, "subquery": {"table": "item", "alias": "x"}}})),
            Empty,
        ),
    ]
}

/// Queries whose numbers are strange.
fn numbers() -> Vec<Row> {
    let n = |value: Value| items(is("n", value));
    let limit = |limit: Value| with("limit", limit);
    let start = |row: Value| with("start", json!({"row": row, "exclusive": true}));
    vec![
        ("no rows at all", limit(json!(0)), Rows(0)),
        ("as many as there are numbers", limit(json!(1e308)), Rows(ALL)),
        ("two to the 64th", limit(json!(u64::MAX)), Rows(ALL)),
        ("a number of nothing", n(json!(-0.0)), Empty),
        ("a number next to nothing", n(json!(5e-324)), Rows(0)),
        ("a number that is not exact", n(json!(9_007_199_254_740_993_u64)), Rows(0)),
        ("a number without an end", n(json!(1e308)), Rows(0)),
        ("a number of a column of texts", items(is("id", json!(7))), Empty),
        ("a start nowhere", start(json!({})), Rows(ALL)),
        ("a start at a text of a megabyte", start(json!({"id": "x".repeat(1 << 20)})), Rows(0)),
        ("a start at an object", start(json!({"id": {"a": [1]}})), Empty),
        ("a start with a column that is not there", start(json!({"nonesuch": 1, "id": "zz"})), Empty),
        (
            "a start with a thousand columns",
            start(Value::Object((0..1_000).map(|n| (format!("c{n}"), json!(n))).collect())),
            Rows(ALL),
        ),
    ]
}

#[test]
fn queries_of_the_app() {
    let mut suite = Suite::new(&[]);
    // A text that patterns have to be tried at many places of.
    suite.stage.sql.run("INSERT INTO item VALUES ('long', 'somebody', 1, repeat('a', 100000))");
    for (name, ast, fate) in [malformed(), too_much(), names(), costly(), numbers(), multiplied()].concat() {
        suite.input(name, |suite| met(suite, name, &ast, fate));
    }
    suite.finish();
}

/// Has the app spell a query out so.
fn met(suite: &mut Suite, name: &str, ast: &Value, fate: Fate) {
    let hash = "hostile";
    let answer = json!({"kind": "QueryResponse", "queries": [{"id": hash, "name": "q", "ast": ast}]});
    let mut client = suite.tab_whose_app_says(Answer::Text(answer.to_string()));
    client.change(vec![json!({"op": "put", "hash": hash, "name": "q", "args": []})]);
    if fate == Unread {
        return Error("TransformFailed").check(&mut client, name);
    }
    if fate == Denied {
        return is_denied(&mut client, name, hash);
    }
    client.until(name, |c| c.store.got.contains(hash) || c.refused.iter().any(|e| e["id"] == hash));
    let is_refused = !client.store.got.contains(hash);
    let rows = client.store.rows.len();
    match fate {
        Rows(count) => assert!(!is_refused && rows == count, "{name}: {rows} rows, {:?}", client.refused),
        Refused => {
            assert!(is_refused && rows == 0, "{name}: it is answered with {rows} rows");
            let said = client.refused[0].to_string();
            assert!(said.len() < 5 << 10, "{name}: a refusal of {} bytes", said.len());
            assert!(!said.contains("zero_0.clients"), "{name}: a list of tables: {said}");
            assert!(!said.contains("SELECT ") && !said.contains("SQLite"), "{name}: {said}");
        }
        _ => assert_eq!(rows, 0, "{name}"),
    }
    client.round_trip();
}

/// It does not matter whether the query or the whole answer is refused, as long as nothing is read for it.
fn is_denied(client: &mut Client, name: &str, hash: &str) {
    loop {
        match client.next(WAIT) {
            Some(Event::TransformError(_)) => return client.round_trip(),
            Some(Event::Error(error)) => {
                return assert_eq!(error["kind"], "TransformFailed", "{name}: {error}");
            }
            Some(Event::Poke(_)) => assert!(!client.store.got.contains(hash), "{name}: it is answered"),
            other => panic!("{name}: it is not refused: {other:?}"),
        }
    }
}

/// Queries whose statements, or whose comparisons, grow with the square of what is sent. Last: they end what they can.
fn multiplied() -> Vec<Row> {
    let order = |count: usize| (0..count).map(|_| json!(["id", "asc"])).collect::<Vec<_>>();
    let started = |count: usize| json!({"table": "item", "orderBy": order(count), "start": {"row": {"id": "a"}, "exclusive": true}});
    let among = |count: usize| {
        let values: Vec<Value> = (0..count).map(|n| json!(format!("v{n}"))).collect();
        items(simple(column("id"), "IN", literal(json!(values))))
    };
    let like = |op: &str, pattern: String| items(simple(column("payload"), op, literal(json!(pattern))));
    vec![
        ("a pattern that ends at a NUL", like("LIKE", "%\0zzz".to_owned()), Rows(0)),
        ("the same in any letters", like("ILIKE", "%\0zzz".to_owned()), Rows(0)),
        ("a pattern of forty thousand letters", like("LIKE", format!("%{}b%", "a".repeat(40_000))), Empty),
        ("the same in any letters, not", like("ILIKE", format!("%{}b%", "A".repeat(40_000))), Empty),
        (
            "a thousand conditions",
            items(group(
                "or",
                (0..1_000).map(|n| is("n", json!(n))).chain([is("id", json!("watched"))]).collect(),
            )),
            Rows(ALL),
        ),
        ("one of three hundred thousand", among(300_000), Denied),
        ("a text of twenty megabytes", items(is("id", json!("x".repeat(20 << 20)))), Denied),
        // A column that is there twice decides nothing.
        ("a start in an order of a hundred", started(100), Rows(ALL)),
        ("a start in an order of five thousand", started(5_000), Denied),
        ("a start in an order of twenty thousand", started(20_000), Denied),
    ]
}

/// Queries that a client spells out: an unknown key anywhere is an error.
#[test]
fn queries_of_a_client() {
    let mut suite = Suite::new(&[]);
    let tie = json!({"parentField": ["id"], "childField": ["id"]});
    let surprise = |mut value: Value| {
        value["surprise"] = json!(1);
        value
    };
    let strict: Vec<(&str, Value)> = vec![
        ("a surprise in a query", surprise(json!({"table": "item"}))),
        ("a surprise in a condition", items(surprise(is("id", json!(1))))),
        ("a surprise in a group", items(surprise(group("and", vec![])))),
        ("a surprise in a column", items(simple(surprise(column("id")), "=", literal(json!(1))))),
        ("a surprise in a value", items(simple(column("id"), "=", surprise(literal(json!(1)))))),
        ("a surprise in a start", with("start", surprise(json!({"row": {}, "exclusive": true})))),
        (
            "a surprise in a tie",
            with("related", json!([{"correlation": surprise(tie.clone()), "subquery": {"table": "item"}}])),
        ),
        (
            "a surprise in related",
            with("related", json!([surprise(json!({"correlation": tie, "subquery": {"table": "item"}}))])),
        ),
        (
            "somebody else's part",
            with(
                "related",
                json!([{"correlation": {"parentField": ["id"], "childField": ["id"]},
            "subquery": {"table": "item"}, "system": "root"}]),
            ),
        ),
    ];
    let malformed = malformed().into_iter().map(|(name, ast, _)| (name, ast));
    let rows: Vec<(&str, Value, Outcome)> =
        malformed.chain(strict).map(|(n, a)| (n, a, Error("InvalidMessage"))).collect();
    for (name, ast, outcome) in rows {
        suite.input(name, |suite| {
            let mut client = suite.tab();
            client.change(vec![json!({"op": "put", "hash": "h", "ast": ast})]);
            outcome.check(&mut client, name);
        });
    }
    for (name, ast, _) in too_much() {
        suite.input(name, |suite| {
            let mut client = suite.tab();
            client.change(vec![json!({"op": "put", "hash": "h", "ast": ast})]);
            is_denied(&mut client, name, "h");
        });
    }
    // Text that no value can spell.
    let deep = format!(r#"{{"table":"item","where":{}"#, r#"{"type":"and","conditions":["#.repeat(50_000));
    let raw = [
        ("groups without an end", deep),
        ("a key twice", r#"{"table":"item","table":"hidden","limit":"x"}"#.to_owned()),
        ("a number beyond all", r#"{"table":"item","limit":1e999}"#.to_owned()),
        ("half a character", r#"{"table":"\ud800"}"#.to_owned()),
    ];
    for (name, ast) in raw {
        suite.input(name, |suite| {
            let mut client = suite.tab();
            client.send_text(format!(r#"["changeDesiredQueries",{{"desiredQueriesPatch":[{{"op":"put","hash":"h","ast":{ast}}}]}}]"#));
            Error("InvalidMessage").check(&mut client, name);
        });
    }
    suite.input("a query that is spelled well", |suite| {
        let mut client = suite.tab();
        client.change(vec![json!({"op": "put", "hash": "h", "ast": {"table": "item"}})]);
        Served.check(&mut client, "spelled well");
        assert!(client.store.rows.is_empty(), "without permissions no client's own query has rows");
    });
    suite.finish();
}
