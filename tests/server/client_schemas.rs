//! A client whose schema does not fit is served, or is not told what is wrong
//! (`docs/spec/sync-protocol.md` §12).

use crate::support::app::{THREE, items, schema};
use crate::support::client::Client;
use crate::support::stage::Stage;
use serde_json::{Value, json};

const TABLES: &str = "
    CREATE TABLE keyless (id text);
    CREATE TABLE odd (at interval PRIMARY KEY, note bytea);
    CREATE TABLE twice (id int4 PRIMARY KEY, code text NOT NULL, shop text NOT NULL, maybe text UNIQUE);
    CREATE UNIQUE INDEX ON twice (shop, code);
    CREATE UNIQUE INDEX ON twice (code) WHERE id > 7;
    CREATE TABLE noted (id text PRIMARY KEY, note bytea);
";

fn table(columns: &[(&str, &str)], key: &[&str]) -> Value {
    let columns = columns.iter().map(|(n, t)| ((*n).to_owned(), json!({"type": t})));
    json!({"columns": columns.collect::<serde_json::Map<_, _>>(), "primaryKey": key})
}

/// A client that knows the app's tables and these.
fn knowing(stage: &Stage, tables: &[(&str, Value)]) -> Client {
    let mut tab = stage.client();
    let mut schema = schema();
    for (name, table) in tables {
        schema["tables"][*name] = table.clone();
    }
    tab.init = json!({"clientSchema": schema});
    tab
}

/// The lines of what a client with these tables, too, is told.
fn problems(stage: &Stage, tables: &[(&str, Value)]) -> Vec<String> {
    let mut tab = knowing(stage, tables);
    tab.connect(&[items()]);
    let error = tab.until_error();
    assert_eq!(
        (&error["kind"], &error["origin"]),
        (&json!("SchemaVersionNotSupported"), &json!("zeroCache"))
    );
    assert!(tab.store.rows.is_empty() && tab.store.got.is_empty());
    error["message"].as_str().expect("a message").lines().map(str::to_owned).collect()
}

/// Checks that there is one problem, told with these words.
fn one(stage: &Stage, name: &str, definition: Value, words: &[&str]) {
    let lines = problems(stage, &[(name, definition)]);
    let [line] = lines.as_slice() else { panic!("{name}: {lines:#?}") };
    for word in words {
        assert!(line.contains(word), "{line:?} does not name {word}");
    }
}

#[test]
fn each_problem_is_named() {
    let stage = Stage::prepared(TABLES, &[]);
    // The tables that there are, but not those of the server itself. They are for the log: anybody can send a schema.
    let known = ["hidden", "item", "noted", "pair", "tick", "twice"];
    let lines = problems(&stage, &[("zebra", table(&[("id", "string")], &["id"]))]);
    let [line] = lines.as_slice() else { panic!("{lines:#?}") };
    assert!(line.contains(r#""zebra""#) && !known.iter().any(|name| line.contains(name)), "{line}");
    stage.server.until_log("zebra", "");
    let log = stage.server.log();
    let logged = log.lines().find(|l| l.contains("zebra")).unwrap_or_default();
    assert!(known.iter().all(|name| logged.contains(name)) && !logged.contains("schemaVersions"), "{logged}");
    assert!(!line.contains("zero"), "{line}");
    assert!(!line.contains("PUBLICATION"), "nothing of a schema: {line}");
    let id = [("id", "string")];
    one(&stage, "shop.place", table(&id, &["id"]), &[r#""shop.place""#, "public", "PUBLICATION"]);
    one(&stage, "keyless", table(&id, &["id"]), &[r#""keyless""#, "primary key", "unique index"]);
    one(&stage, "odd", table(&id, &["id"]), &[r#""odd""#, r#""at""#, "interval"]);
    let item = |more: &[(&str, &str)], key: &[&str]| {
        table(&[&[("id", "string"), ("n", "number")], more].concat(), key)
    };
    one(&stage, "item", item(&[("size", "string")], &["id"]), &[r#""item"."size""#]);
    one(&stage, "item", item(&[("_0_version", "string")], &["id"]), &[r#""item"."_0_version""#]);
    one(
        &stage,
        "item",
        item(&[("owner", "json")], &["id"]),
        &[r#""item"."owner""#, r#""string""#, r#""json""#],
    );
    one(
        &stage,
        "noted",
        table(&[("id", "string"), ("note", "string")], &["id"]),
        &[r#""noted"."note""#, "bytea"],
    );
    for key in [&["n"][..], &["id", "n"], &[], &["nonesuch"], &["owner"]] {
        one(&stage, "item", item(&[], key), &[r#""item""#, &format!("<{}>", key.join(","))]);
    }
    let twice = [("id", "number"), ("code", "string"), ("shop", "string"), ("maybe", "string")];
    for key in [&["code"][..], &["maybe"], &["code", "id", "shop"]] {
        one(&stage, "twice", table(&twice, key), &[r#""twice""#, &format!("<{}>", key.join(","))]);
    }
}

#[test]
fn all_problems_are_told_in_order() {
    let stage = Stage::prepared(TABLES, &[]);
    let lines = problems(
        &stage,
        &[
            ("zebra", table(&[("id", "string")], &["id"])),
            (
                "twice",
                table(&[("z", "string"), ("a", "string"), ("shop", "number"), ("code", "json")], &["maybe"]),
            ),
            ("keyless", table(&[("id", "string")], &["id"])),
            ("item", table(&[("id", "number")], &["id"])),
        ],
    );
    let words = [
        r#""keyless""#,
        r#""zebra""#,
        r#""item"."id""#,
        r#""twice"."a""#,
        r#""twice"."z""#,
        r#""twice"."code""#,
        r#""twice"."shop""#,
        r#""twice""#,
    ];
    assert_eq!(lines.len(), words.len(), "{lines:#?}");
    for (line, word) in lines.iter().zip(words) {
        assert!(line.contains(word), "{line:?} is not about {word}");
    }
}

#[test]
fn any_unique_key_without_nulls_is_good_in_any_order() {
    let stage = Stage::prepared(&format!("{TABLES}; {THREE}"), &[]);
    let columns = [("id", "number"), ("code", "string"), ("shop", "string")];
    for key in [&["id"][..], &["code", "shop"], &["shop", "code"]] {
        let mut tab = knowing(&stage, &[("twice", table(&columns, key))]);
        tab.connect(&[items()]);
        tab.until_got(&[items()]);
        // Sent again in another order of tables and columns: the same.
        let mut again = Client::in_group(&stage.server, &tab.group);
        let reversed: Vec<_> = columns.iter().rev().copied().collect();
        again.init = knowing(&stage, &[("twice", table(&reversed, key))]).init;
        again.connect(&[]);
        again.until("a poke", |c| !c.pokes.is_empty());
        // Less is another one.
        let mut less = Client::in_group(&stage.server, &tab.group);
        less.init = knowing(&stage, &[("twice", table(&columns[..2], key))]).init;
        less.connect(&[]);
        assert!(matches!(less.until_error()["kind"].as_str(), Some("InvalidConnectionRequest")));
        tab.round_trip();
    }
}
