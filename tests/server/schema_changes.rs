//! A table changes upstream, and clients get stuck, or are served what they cannot understand
//! (`docs/spec/view-syncer.md` §6).

use crate::support::app::{THREE, items, schema};
use crate::support::client::Client;
use crate::support::stage::Stage;
use serde_json::json;

/// Runs a statement that changes a table, and one that has it noticed, and waits for the new
/// replica; the connection must be closed without an error, or the client would not come back.
fn change(stage: &mut Stage, tab: &mut Client, statement: &str) {
    stage.sql.run(statement);
    stage.sql.run("INSERT INTO item (id, owner, n) VALUES ('later', 'x', 1)");
    assert_eq!(tab.until_closed().0, None, "{statement}");
    stage.server.until_log("epoch=2", "the replica is ready");
}

#[test]
fn a_column_that_is_added_reaches_clients() {
    let mut stage = Stage::prepared(THREE, &[]);
    let mut tab = stage.tab(&[items()]);
    let before = tab.store.cookie.clone();
    change(&mut stage, &mut tab, "ALTER TABLE item ADD COLUMN extra text DEFAULT 'e'");
    let mut fresh = stage.tab(&[items()]);
    fresh.until("all rows", |c| c.store.rows.len() == 4);
    let whole = json!({"id": "a", "owner": "x", "n": 1, "payload": null, "extra": "e"});
    assert_eq!(fresh.store.row("item", "a"), Some(&whole));
    assert!(fresh.store.cookie > before, "cookies grow: {before:?}, {:?}", fresh.store.cookie);
    // A client may know of it from now on.
    let mut newer = stage.client();
    let mut schema = schema();
    schema["tables"]["item"]["columns"]["extra"] = json!({"type": "string"});
    newer.init = json!({"clientSchema": schema});
    newer.connect(&[items()]);
    newer.until_got(&[items()]);
}

#[test]
fn a_column_that_is_dropped_is_missed_by_those_who_know_it_only() {
    let mut stage = Stage::prepared(THREE, &[]);
    let mut narrow = schema();
    narrow["tables"]["item"]["columns"].as_object_mut().expect("columns").remove("payload");
    let mut tab = stage.tab(&[items()]);
    change(&mut stage, &mut tab, "ALTER TABLE item DROP COLUMN payload");
    let mut knowing = stage.client();
    knowing.connect(&[items()]);
    let error = knowing.until_error();
    assert_eq!(error["kind"], "SchemaVersionNotSupported");
    assert!(error["message"].as_str().is_some_and(|m| m.contains(r#""item"."payload""#)), "{error}");
    let mut other = stage.client();
    other.init = json!({"clientSchema": narrow});
    other.connect(&[items()]);
    other.until_got(&[items()]);
    assert_eq!(other.store.row("item", "a"), Some(&json!({"id": "a", "owner": "x", "n": 1})));
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
    change(&mut stage, &mut tab, "ALTER TABLE item DROP COLUMN payload");
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
    return_to(&mut tab);
    let whole = json!({"id": "a", "owner": "x", "n": 1, "payload": "again"});
    tab.until("its rows as they are now", |c| c.store.row("item", "a") == Some(&whole));
}
