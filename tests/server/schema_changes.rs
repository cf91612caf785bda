//! A table changes upstream, and clients get stuck, or are served what they cannot understand
//! (`docs/spec/view-syncer.md` §6).

use crate::support::app::{THREE, items, query, schema};
use crate::support::client::{Client, Event};
use crate::support::stage::Stage;
use serde_json::{Value, json};

/// Runs a statement that changes a table, and waits until the replica follows it.
fn change(stage: &mut Stage, statement: &str, told: &str) {
    stage.sql.run(statement);
    stage.server.until_log("the replica follows a change of the schema", told);
}

fn narrow() -> Value {
    let mut narrow = schema();
    narrow["tables"]["item"]["columns"].as_object_mut().expect("columns").remove("payload");
    narrow
}

fn wide() -> Value {
    let mut wide = schema();
    wide["tables"]["item"]["columns"]["extra"] = json!({"type": "string"});
    wide
}

/// The same as soon as a client with this schema is let in.
fn until_fits(stage: &mut Stage, schema: &Value) -> Client {
    for _ in 0..200 {
        let mut client = with_schema(stage, schema);
        if client.was_let_in() {
            client.until_got(&[items()]);
            return client;
        }
    }
    panic!("the schema never fits")
}

/// A tab of a group of its own whose client has this schema.
fn with_schema(stage: &mut Stage, schema: &Value) -> Client {
    let mut client = stage.client();
    client.init = json!({"clientSchema": schema});
    client.connect(&[items()]);
    client
}

#[test]
fn a_column_that_is_added_disturbs_nobody_and_is_there_for_those_who_know_it() {
    let mut stage = Stage::prepared(THREE, &[]);
    let mut tab = stage.tab(&[items()]);
    let early = with_schema(&mut stage, &wide()).until_error();
    assert_eq!(early["kind"], "SchemaVersionNotSupported");
    let before = tab.store.cookie.clone();
    change(&mut stage, "ALTER TABLE item ADD COLUMN extra text DEFAULT 'e'", "item.extra was added");
    let mut newer = until_fits(&mut stage, &wide());
    tab.quiet("nothing is sent to those who do not know the column");
    assert_eq!(tab.store.cookie, before);
    let whole = json!({"id": "a", "owner": "x", "n": 1, "payload": null, "extra": "e"});
    assert_eq!(newer.store.row("item", "a"), Some(&whole));
    stage.sql.run("INSERT INTO item (id, owner, n, extra) VALUES ('later', 'x', 9, 'f')");
    stage.sql.run("UPDATE item SET n = 7 WHERE id = 'a'");
    for client in [&mut tab, &mut newer] {
        client.until("the writes of afterwards", |c| {
            let n = |id: &str| c.store.row("item", id).map(|row| row["n"].clone());
            n("a") == Some(json!(7)) && n("later") == Some(json!(9))
        });
    }
    assert_eq!(newer.store.row("item", "later").map(|row| row["extra"].clone()), Some(json!("f")));
}

#[test]
fn a_column_that_is_dropped_is_missed_by_those_who_know_it_only() {
    let mut stage = Stage::prepared(THREE, &[]);
    let mut tab = stage.tab(&[items()]);
    let mut other = with_schema(&mut stage, &narrow());
    other.until_got(&[items()]);
    change(&mut stage, "ALTER TABLE item DROP COLUMN payload", "item.payload is gone");
    let error = tab.until_error();
    assert_eq!(error["kind"], "SchemaVersionNotSupported");
    assert!(error["message"].as_str().is_some_and(|m| m.contains(r#""item"."payload""#)), "{error}");
    stage.sql.run("UPDATE item SET n = 5 WHERE id = 'a'");
    let row = json!({"id": "a", "owner": "x", "n": 5});
    other.until("the write of afterwards", |c| c.store.row("item", "a") == Some(&row));
    let mut fresh = with_schema(&mut stage, &narrow());
    fresh.until_got(&[items()]);
    assert_eq!(fresh.store.row("item", "a"), Some(&row));
}

#[test]
fn a_renamed_column_is_gone_for_those_who_know_its_old_name_until_it_has_it_again() {
    let mut stage = Stage::prepared(THREE, &[]);
    let mut tab = stage.tab(&[items()]);
    let mut renamed = narrow();
    renamed["tables"]["item"]["columns"]["content"] =
        schema()["tables"]["item"]["columns"]["payload"].clone();
    change(&mut stage, "ALTER TABLE item RENAME COLUMN payload TO content", "item.payload is called content");
    assert_eq!(tab.until_error()["kind"], "SchemaVersionNotSupported");
    let mut newer = until_fits(&mut stage, &renamed);
    assert_eq!(
        newer.store.row("item", "a"),
        Some(&json!({"id": "a", "owner": "x", "n": 1, "content": null}))
    );
    stage.sql.run("UPDATE item SET content = 'new', n = 2 WHERE id = 'a'");
    let row = json!({"id": "a", "owner": "x", "n": 2, "content": "new"});
    newer.until("a value under the new name", |c| c.store.row("item", "a") == Some(&row));
    stage.sql.run("ALTER TABLE item RENAME COLUMN content TO payload");
    assert_eq!(newer.until_error()["kind"], "SchemaVersionNotSupported");
    return_to(&mut tab);
    let row = json!({"id": "a", "owner": "x", "n": 2, "payload": "new"});
    tab.until("its row under its name", |c| c.store.row("item", "a") == Some(&row));
}

#[test]
fn a_table_that_is_dropped_or_renamed_ends_nobody_but_those_who_know_it() {
    let mut stage = Stage::prepared(THREE, &[]);
    stage.sql.run("INSERT INTO pair VALUES ('p', 1, 'c')");
    let pairs = query("pairs", json!([]));
    let mut without = schema();
    without["tables"].as_object_mut().expect("tables").remove("pair");
    let mut tab = stage.tab(&[items(), pairs.clone()]);
    let mut other = with_schema(&mut stage, &without);
    other.until_got(&[items()]);
    // Its rows are nobody's who does not know the table; the app asks for them all the same.
    other.change(vec![pairs.put()]);
    other.until_got(std::slice::from_ref(&pairs));
    change(&mut stage, "ALTER TABLE pair RENAME TO couple", "table pair is called couple");
    assert_eq!(tab.until_error()["kind"], "SchemaVersionNotSupported");
    let row = |n: i64| json!({"id": "a", "owner": "x", "n": n, "payload": null});
    stage.sql.run("UPDATE couple SET c = 'd'; UPDATE item SET n = 2 WHERE id = 'a'");
    other.until("it goes on", |c| c.store.row("item", "a") == Some(&row(2)));
    change(&mut stage, "ALTER TABLE couple RENAME TO pair", "table couple is called pair");
    return_to(&mut tab);
    tab.until("its rows under its name", |c| {
        c.store.row("item", "a") == Some(&row(2)) && c.store.rows.values().any(|row| row["c"] == json!("d"))
    });
    change(&mut stage, "DROP TABLE pair", "table pair is not published any more");
    assert_eq!(tab.until_error()["kind"], "SchemaVersionNotSupported");
    other.until_event("the query is refused", |event| match event {
        Event::TransformError(errors) => Some(errors),
        _ => None,
    });
    stage.sql.run("UPDATE item SET n = 3 WHERE id = 'a'");
    other.until("it goes on", |c| c.store.row("item", "a") == Some(&row(3)));
    // What was recorded of rows that are gone is read, or not, by the next process.
    stage.server.kill();
    stage.server.start();
    other.open(Some(&json!({"desiredQueriesPatch": []})));
    other.until_connected();
    stage.sql.run("UPDATE item SET n = 4 WHERE id = 'a'");
    other.until("it is back", |c| c.store.row("item", "a") == Some(&row(4)));
    return_to(&mut tab);
    assert_eq!(tab.until_error()["kind"], "SchemaVersionNotSupported");
}

#[test]
fn a_table_that_is_created_is_there_for_those_who_know_it() {
    let mut stage = Stage::prepared(THREE, &[]);
    let mut tab = stage.tab(&[items()]);
    let before = tab.store.cookie.clone();
    stage.sql.run("CREATE TABLE later (id text PRIMARY KEY, n int8 NOT NULL)");
    stage.sql.run("INSERT INTO later SELECT 'l' || i, i FROM generate_series(1, 2000) i");
    stage.server.until_log("the replica follows a change of the schema", "table later has been filled");
    let mut knowing = schema();
    knowing["tables"]["later"] =
        json!({"columns": {"id": {"type": "string"}, "n": {"type": "number"}}, "primaryKey": ["id"]});
    let mut newer = until_fits(&mut stage, &knowing);
    newer.store.known.insert("later".to_owned(), vec!["id".to_owned()]);
    tab.quiet("nothing is sent to those who do not know the table");
    assert_eq!(tab.store.cookie, before);
    let all = query("spelled", json!([{"table": "later", "orderBy": [["id", "asc"]]}]));
    newer.change(vec![all.put()]);
    newer.until_got(&[items(), all]);
    stage.sql.run("UPDATE later SET n = -1 WHERE id = 'l7'; DELETE FROM later WHERE id = 'l8'");
    newer.until("its rows as they are", |c| {
        c.store.row("later", "l7").is_some_and(|row| row["n"] == json!(-1))
            && c.store.row("later", "l8").is_none()
    });
    assert_eq!(newer.store.rows.len(), 3 + 1999);
}

#[test]
fn a_query_of_the_app_that_asks_by_what_is_gone_is_refused_and_answered_when_it_is_there() {
    let mut stage = Stage::prepared(THREE, &[]);
    let by_note = json!({"table": "item", "orderBy": [["id", "asc"]], "where": {"type": "simple", "op": "=",
        "left": {"type": "column", "name": "note"}, "right": {"type": "literal", "value": "keep"}}});
    let by_note = query("spelled", json!([by_note]));
    let refused = |event| match event {
        Event::TransformError(errors) => Some(errors),
        _ => None,
    };
    let mut tab = stage.tab(&[items()]);
    tab.change(vec![by_note.put()]);
    tab.until_event("it is refused", refused);
    // The app is there before its column.
    change(&mut stage, "ALTER TABLE item ADD COLUMN note text DEFAULT 'keep'", "item.note was added");
    tab.until_got(&[items(), by_note.clone()]);
    change(&mut stage, "ALTER TABLE item DROP COLUMN note", "item.note is gone");
    let errors = tab.until_event("it is refused again", refused);
    assert!(errors[0].to_string().contains("not there any more"), "{errors:?}");
    // Its own schema does not name the column.
    stage.sql.run("UPDATE item SET n = 8 WHERE id = 'a'");
    tab.until("it goes on", |c| c.store.row("item", "a").is_some_and(|row| row["n"] == json!(8)));
    assert!(!tab.store.got.contains(&by_note.hash()));
}

/// Comes back as a page that was reloaded: with its cookie, and nothing new.
fn return_to(tab: &mut Client) {
    tab.open(Some(&json!({"desiredQueriesPatch": []})));
    tab.until_connected();
}

#[test]
fn a_client_that_comes_back_is_not_told_what_is_gone() {
    let mut stage = Stage::prepared(THREE, &[]);
    let mut tab = stage.tab(&[items()]);
    change(&mut stage, "ALTER TABLE item DROP COLUMN payload", "item.payload is gone");
    tab.until_error();
    let mut fresh = stage.client();
    fresh.connect(&[items()]);
    let told = fresh.until_error();
    for restarts in 0..3 {
        return_to(&mut tab);
        let error = tab.until_error();
        assert_eq!(error["kind"], "SchemaVersionNotSupported", "after {restarts} restarts");
        assert_eq!(error["message"], told["message"], "after {restarts} restarts");
        stage.server.kill();
        stage.server.start();
    }
    // It is known still, so that it is served when the column is there again.
    stage.server.kill();
    stage.sql.run("ALTER TABLE item ADD COLUMN payload text DEFAULT 'again'");
    stage.server.start();
    stage.server.until_log("the replica follows a change of the schema", "table item has been filled");
    let mut tries = 0..200;
    while tries.next().is_some() {
        tab.open(Some(&json!({"desiredQueriesPatch": []})));
        if tab.was_let_in() {
            break;
        }
    }
    let whole = json!({"id": "a", "owner": "x", "n": 1, "payload": "again"});
    tab.until("its rows as they are now", |c| c.store.row("item", "a") == Some(&whole));
}
