//! Names, keys, values or messages are not what clients of some version expect
//! (`docs/spec/sync-protocol.md` §2, §10, §11).

use std::time::Duration;

use crate::support::app::{Answer, Query, THREE, items, query, schema};
use crate::support::client::{Client, protocol};
use crate::support::stage::Stage;
use crate::support::store::keys;
use serde_json::{Value, json};

/// All rows of a table.
fn all_of(table: &str) -> Query {
    query("spelled", json!([{"table": table, "orderBy": [["id", "asc"]]}]))
}

/// A tab whose schema has one more table, with this key.
fn knowing(stage: &Stage, table: &str, columns: &[(&str, &str)], key: &[&str]) -> Client {
    let mut tab = stage.client();
    let mut schema = schema();
    let columns = columns.iter().map(|(n, t)| ((*n).to_owned(), json!({"type": t})));
    let columns: serde_json::Map<String, Value> = columns.collect();
    schema["tables"][table] = json!({"columns": columns, "primaryKey": key});
    tab.init = json!({"clientSchema": schema});
    tab.store.known.insert(table.to_owned(), key.iter().map(|k| (*k).to_owned()).collect());
    tab
}

fn connect(tab: &mut Client, queries: &[Query]) {
    tab.connect(queries);
    tab.until_got(queries);
    // It is sent only while the client has nothing.
    tab.init = json!({});
}

#[test]
fn tables_outside_of_public_and_keys_of_the_clients_choice() {
    let mut stage = Stage::prepared(
        "CREATE SCHEMA shop;
         CREATE TABLE shop.\"Place\" (id int4 PRIMARY KEY, code text NOT NULL UNIQUE, \"Name\" text);
         CREATE PUBLICATION everything FOR TABLES IN SCHEMA public, shop;
         INSERT INTO shop.\"Place\" VALUES (1, 'one', 'A'), (2, 'two', NULL)",
        &[("APP_PUBLICATIONS", "everything")],
    );
    let table = "shop.Place";
    let columns = [("id", "number"), ("code", "string"), ("Name", "string")];
    let mut by_id = knowing(&stage, table, &columns, &["id"]);
    let mut by_code = knowing(&stage, table, &columns, &["code"]);
    for tab in [&mut by_id, &mut by_code] {
        connect(tab, &[all_of(table)]);
        assert_eq!(tab.store.table(table).len(), 2);
    }
    assert_eq!(by_code.store.row(table, "one"), Some(&json!({"id": 1, "code": "one", "Name": "A"})));
    // Every key column, as the client knows them, with the value that the row was put with.
    let step = |stage: &mut Stage, tabs: [&mut Client; 2], sql: &str| {
        stage.sql.run(sql);
        tabs.map(|tab| {
            let before = tab.pokes.len();
            tab.until(sql, |c| c.pokes.len() > before);
            let ops = tab.pokes[before].parts.iter().flat_map(|p| p["rowsPatch"].as_array().cloned());
            let poke = &tab.pokes[before];
            let dels: Vec<Value> = ops.flatten().filter(|op| op["op"] == "del").collect();
            (keys(&poke.puts).join(" "), dels)
        })
    };
    let del = |id: Value| vec![json!({"op": "del", "tableName": table, "id": id})];
    let [id, code] =
        step(&mut stage, [&mut by_id, &mut by_code], "UPDATE shop.\"Place\" SET code = 'uno' WHERE id = 1");
    assert_eq!(id, ("[1]".to_owned(), vec![]));
    assert_eq!(code, (r#"["uno"]"#.to_owned(), del(json!({"code": "one"}))));
    let [id, code] =
        step(&mut stage, [&mut by_id, &mut by_code], "UPDATE shop.\"Place\" SET id = 5 WHERE id = 2");
    assert_eq!(id, ("[5]".to_owned(), del(json!({"id": 2}))));
    assert_eq!(code, (r#"["two"]"#.to_owned(), vec![]));
    // Two rows that swap their keys are two rows, not two deletions.
    stage.sql.run(
        "BEGIN; UPDATE shop.\"Place\" SET code = 'x' WHERE id = 1; UPDATE shop.\"Place\" SET code = 'uno' WHERE id = 5;
         UPDATE shop.\"Place\" SET code = 'two' WHERE id = 1; COMMIT",
    );
    by_code.until("the swap", |c| c.store.row(table, "uno").is_some_and(|r| r["id"] == 5));
    assert_eq!(by_code.store.row(table, "two").map(|r| r["id"].clone()), Some(json!(1)));
    by_id.until("the swap", |c| c.store.row(table, 5).is_some_and(|r| r["code"] == "uno"));
    let [id, code] = step(&mut stage, [&mut by_id, &mut by_code], "DELETE FROM shop.\"Place\" WHERE id = 1");
    assert_eq!((id.1, code.1), (del(json!({"id": 1})), del(json!({"code": "two"}))));
}

#[test]
fn columns_that_the_client_does_not_know_come_along() {
    let mut stage = Stage::prepared(THREE, &[]);
    let mut tab = stage.client();
    let mut narrow = schema();
    narrow["tables"]["item"]["columns"] = json!({"id": {"type": "string"}});
    tab.init = json!({"clientSchema": narrow});
    connect(&mut tab, &[items()]);
    let whole = json!({"id": "a", "owner": "x", "n": 1, "payload": null});
    assert_eq!(tab.store.row("item", "a"), Some(&whole));
    stage.sql.run("UPDATE item SET payload = 'p' WHERE id = 'a'");
    tab.until("the change", |c| c.store.row("item", "a").is_some_and(|r| r["payload"] == "p"));
}

#[test]
fn values_are_what_clients_expect() {
    let mut stage = Stage::prepared(
        "CREATE TYPE mood AS ENUM ('sad', 'ok');
         CREATE TABLE shape (
            id int4 PRIMARY KEY, i2 int2, i8 int8, f4 float4, f8 float8, num numeric(12, 5), flag bool, c char(5),
            v varchar, u uuid, m mood, ts timestamp, tz timestamptz, d date, t time, j json, jb jsonb, texts text[],
            ints int4[], b bytea, span interval);
         INSERT INTO shape VALUES (
            1, -3, 9007199254740991, 1.5, 1e300, 12345.67890, true, 'abc', 'é\"\\', 'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11',
            'ok', '2024-01-02 03:04:05.678901', '2024-01-02 03:04:05+02', '2024-01-02', '24:00:00',
            '{\"b\": 1.0, \"a\": [null]}', '12345678901234567890', ARRAY['x', NULL, 'NULL'], ARRAY[[1, 2], [3, 4]],
            '\\x01', '1 day');
         INSERT INTO shape (id) VALUES (2);
         INSERT INTO shape (id, f8, ts, d) VALUES (3, 'NaN', 'infinity', '-infinity')",
        &[],
    );
    let mut tab = knowing(&stage, "shape", &[("id", "number")], &["id"]);
    connect(&mut tab, &[all_of("shape")]);
    let check = |tab: &Client| {
        let row = tab.store.row("shape", 1).expect("a row").as_object().expect("an object").clone();
        let expected = [
            ("i2", json!(-3)),
            ("i8", json!(9_007_199_254_740_991u64)),
            ("f4", json!(1.5)),
            ("f8", json!(1e300)),
            ("num", json!(12345.6789)),
            ("flag", json!(true)),
            ("c", json!("abc  ")),
            ("v", json!("é\"\\")),
            ("u", json!("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11")),
            ("m", json!("ok")),
            ("ts", json!(1704164645678.901)),
            ("tz", json!(1704157445000.0)),
            ("d", json!(1704153600000.0)),
            ("t", json!(86_400_000.0)),
            ("j", json!({"b": 1.0, "a": [null]})),
            ("jb", json!(1.2345678901234567e19)),
            ("texts", json!(["x", null, "NULL"])),
            ("ints", json!([[1, 2], [3, 4]])),
        ];
        for (name, value) in &expected {
            assert!(same(&row[*name], value), "{name}: {} for {value}", row[*name]);
        }
        assert_eq!(row.len(), expected.len() + 1, "nothing else: {row:?}");
        let empty = tab.store.row("shape", 2).expect("a row").as_object().expect("an object");
        assert!(empty.iter().all(|(name, value)| name == "id" || value.is_null()), "{empty:?}");
        let odd = tab.store.row("shape", 3).expect("a row");
        assert!(odd["f8"].is_null() && odd["ts"].is_null() && odd["d"].is_null(), "{odd}");
    };
    check(&tab);
    // The same when they come as changes.
    stage.sql.run("CREATE TEMP TABLE kept AS TABLE shape; DELETE FROM shape");
    tab.until("no rows", |c| c.store.rows.is_empty());
    stage.sql.run("INSERT INTO shape TABLE kept");
    tab.until("the rows", |c| c.store.rows.len() == 3);
    check(&tab);
    // What no client can hold is not rounded: the query is refused, and the connection stays.
    stage.sql.run("INSERT INTO shape (id, i8) VALUES (4, 9007199254740992)");
    tab.until("its refusal", |c| !c.refused.is_empty() && c.store.got.is_empty());
    assert!(tab.store.rows.is_empty());
    tab.round_trip();
}

/// Equal as JavaScript sees it: a number is a number.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(k, v)| b.get(k).is_some_and(|w| same(v, w)))
        }
        _ => a == b,
    }
}

#[test]
fn clients_of_all_versions_are_served() {
    let mut stage = Stage::prepared(THREE, &[]);
    let mut tabs = Vec::new();
    for version in [30, 37, 39, 44, 45, 49, 50, 51, 52] {
        let mut tab = stage.client();
        tab.version = version;
        if version == 30 {
            // What they send was renamed since, and is not known by that name any more.
            tab.init =
                json!({"userPushParams": {"url": "u"}, "userQueryParams": {"queryParams": {"a": "b"}}});
        }
        tab.connect(&[items()]);
        tab.until_got(&[items()]);
        tabs.push(tab);
    }
    stage.sql.run("UPDATE item SET n = 2 WHERE id = 'a'");
    for tab in &mut tabs {
        tab.until("the change", |c| c.store.row("item", "a").is_some_and(|r| r["n"] == 2));
    }
    // Errors are of kinds that they know.
    let kinds = [(30, 401, "AuthInvalidated"), (37, 500, "Internal"), (38, 401, "TransformFailed")];
    for (version, status, kind) in kinds {
        let mut tab = stage.client();
        tab.version = version;
        stage.app.script_query(vec![Answer::Status(status, "no"); 4]);
        tab.connect(&[items()]);
        assert_eq!(tab.until_error()["kind"], kind, "version {version}");
        stage.app.forget_script();
    }
    // So are refusals of single queries: old clients insist on details.
    let refused = [query("unparsed", json!([])), query("noTable", json!([]))];
    for (version, kinds) in [(37, ["app", "app"]), (51, ["parse", "app"])] {
        let mut tab = stage.client();
        tab.version = version;
        tab.connect(&refused);
        tab.until("both refusals", |c| c.refused.len() == 2);
        for (query, kind) in refused.iter().zip(kinds) {
            let told = tab.refused.iter().find(|e| e["id"] == json!(query.hash())).expect("told");
            assert_eq!(
                (&told["error"], &told["name"]),
                (&json!(kind), &json!(query.name)),
                "version {version}"
            );
            assert!(version > 37 || !told["details"].is_null(), "version {version}: {told}");
        }
    }
}

#[test]
fn a_long_header_comes_back_as_it_was() {
    let stage = Stage::prepared(THREE, &[]);
    // Close to the longest that clients send; the client here refuses any other answer.
    let mut tab = stage.client();
    let mut queries = vec![items()];
    while protocol(Some(&tab.init_body(queries.iter().map(Query::put).collect())), None).len() < 8_000 {
        queries.push(query("itemsOf", json!([format!("ö+/{}", queries.len())])));
    }
    tab.connect(&queries);
    tab.until_got(&queries);
    // With what apps put beside it.
    tab.vanish();
    tab.headers = vec![("Cookie".into(), format!("session={}", "x".repeat(12_000)))];
    tab.connect(&[]);
    tab.until("a poke", |c| !c.pokes.is_empty());
}

#[test]
fn messages_that_are_not_answered() {
    let stage = Stage::prepared(THREE, &[]);
    let mut tab = stage.tab(&[items()]);
    tab.send(json!(["pull", {"clientGroupID": tab.group, "cookie": null, "requestID": "r"}]));
    tab.send(json!(["closeConnection", []]));
    tab.send(json!(["ackMutationResponses", {"clientID": "nobody", "id": 7}]));
    tab.round_trip();
    assert!(tab.settle(Duration::from_millis(300)).is_empty());
    stage.app.until_mutations(1, "_zero_cleanupResults");
}
