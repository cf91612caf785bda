//! A table that clients see is copied anew: they lose its rows, are sent all of them, or are not told what has changed
//! (`docs/spec/schema-changes.md` S21).

use crate::support::app::{THREE, items, of, query, schema};
use crate::support::client::Client;
use crate::support::stage::Stage;
use crate::support::store::keys;
use serde_json::{Value, json};

const MANY: &str = "INSERT INTO item SELECT 'm' || i, 'many', i, NULL FROM generate_series(1, 20000) i";

/// Runs a statement whose table has to be copied, and waits until the copy is shown.
fn change(stage: &mut Stage, statement: &str) {
    stage.sql.run(statement);
    stage.server.until_log("the replica follows a change of the schema", "has been filled");
}

fn n(client: &Client, id: &str) -> Option<Value> {
    client.store.row("item", id).map(|row| row["n"].clone())
}

/// Keys of the rows that a client was sent since it had so many pokes, and of those that were taken from it.
fn sent(client: &Client, since: usize) -> (Vec<String>, Vec<String>) {
    let pokes = &client.pokes[since..];
    let of = |rows: Vec<(String, String)>| {
        keys(&rows).into_iter().map(|key| key.trim_matches(['[', '"', ']']).to_owned()).collect()
    };
    (
        of(pokes.iter().flat_map(|poke| poke.puts.clone()).collect()),
        of(pokes.iter().flat_map(|poke| poke.dels.clone()).collect()),
    )
}

/// Comes back as a page that was reloaded: with its cookie, and nothing new.
fn return_to(tab: &mut Client) {
    tab.open(Some(&json!({"desiredQueriesPatch": []})));
    tab.until_connected();
}

const REWRITTEN: &str =
    "ALTER TABLE item ALTER n TYPE int8 USING CASE WHEN id IN ('a', 'm7') THEN n + 100 ELSE n END";

#[test]
fn values_that_are_rewritten_are_not_seen_or_everything_is_sent() {
    let mut stage = Stage::prepared(&format!("{THREE}; {MANY}"), &[]);
    let all = [items(), of("x")];
    let mut tabs: Vec<Client> = (0..3).map(|_| stage.tab(&all)).collect();
    // What a client was sent is counted anew when it comes back.
    let counts = [tabs[0].pokes.len(), 0, 0];
    tabs[1].vanish();
    tabs[2].vanish();
    change(&mut stage, REWRITTEN);
    for at in 0..3 {
        let tab = &mut tabs[at];
        match at {
            0 => {}
            1 => return_to(tab),
            _ => {
                // What it had is known from the disk alone.
                stage.server.kill();
                stage.server.start();
                return_to(tab);
            }
        }
        tab.until("the new values", |c| n(c, "a") == Some(json!(101)) && n(c, "m7") == Some(json!(107)));
        let (puts, dels) = sent(tab, counts[at]);
        assert_eq!((puts, dels.len()), (vec!["a".to_owned(), "m7".to_owned()], 0), "tab {at}");
    }
    stage.sql.run("UPDATE item SET n = 5 WHERE id = 'm8'; DELETE FROM item WHERE id = 'm9'");
    for tab in tabs.iter_mut().skip(1) {
        return_to(tab);
        tab.until("the writes of afterwards", |c| n(c, "m8") == Some(json!(5)) && n(c, "m9").is_none());
    }
}

#[test]
fn rows_are_written_while_their_table_is_copied_and_are_lost() {
    let mut stage = Stage::prepared(&format!("{THREE}; {MANY}"), &[]);
    let mut tab = stage.tab(&[items()]);
    stage.sql.run(REWRITTEN);
    for round in 0..60 {
        let id = round * 11;
        stage.sql.run(&format!(
            "UPDATE item SET n = n + 1 WHERE id = 'm{id}'; INSERT INTO item VALUES ('new{round}', 'x', {round}, NULL);
             DELETE FROM item WHERE id = 'm{}'; UPDATE item SET id = 'moved{round}' WHERE id = 'm{}'",
            id + 1,
            id + 2
        ));
    }
    stage.server.until_log("the replica follows a change of the schema", "has been filled");
    stage.sql.run("UPDATE item SET n = -1 WHERE id = 'c'");
    tab.until("the last write", |c| n(c, "c") == Some(json!(-1)) && n(c, "m7") == Some(json!(107)));
    let mut fresh = stage.tab(&[items()]);
    fresh.round_trip();
    assert_eq!(tab.store.rows, fresh.store.rows);
    assert_eq!(tab.store.rows.len().to_string(), stage.sql.value("SELECT count(*) FROM item"));
}

#[test]
fn a_process_that_ends_while_a_table_is_copied_never_ends_the_copy() {
    let mut stage = Stage::prepared(&format!("{THREE}; {MANY}; {}", MANY.replace("'m'", "'k'")), &[]);
    let mut tab = stage.tab(&[items()]);
    stage.sql.run(REWRITTEN);
    stage.server.until_log("the replica follows a change of the schema", "is copied anew");
    for round in 0..4 {
        stage.sql.run(&format!("UPDATE item SET n = {round} WHERE id = 'm{round}'"));
        stage.server.kill();
        stage.server.start();
        return_to(&mut tab);
    }
    tab.until("the new values", |c| n(c, "a") == Some(json!(101)) && n(c, "m3") == Some(json!(3)));
    let mut fresh = stage.tab(&[items()]);
    fresh.round_trip();
    assert_eq!(tab.store.rows, fresh.store.rows);
}

#[test]
fn a_column_of_another_type_is_what_it_was_for_those_who_know_it() {
    let mut stage = Stage::prepared(THREE, &[]);
    let mut tab = stage.tab(&[items()]);
    let mut narrow = schema();
    narrow["tables"]["item"]["columns"].as_object_mut().expect("columns").remove("n");
    let mut other = stage.client();
    other.init = json!({"clientSchema": narrow});
    other.connect(&[items()]);
    other.until_got(&[items()]);
    let pokes = other.pokes.len();
    change(&mut stage, "ALTER TABLE item ALTER n TYPE text USING 'number ' || n");
    assert_eq!(tab.until_error()["kind"], "SchemaVersionNotSupported");
    assert!(other.is_connected());
    let mut wide = schema();
    wide["tables"]["item"]["columns"]["n"] = json!({"type": "string"});
    let mut newer = stage.client();
    newer.init = json!({"clientSchema": wide});
    newer.connect(&[items()]);
    newer.until_got(&[items()]);
    assert_eq!(n(&newer, "a"), Some(json!("number 1")));
    stage.sql.run("UPDATE item SET n = 'two', payload = 'p' WHERE id = 'b'");
    newer.until("a text", |c| n(c, "b") == Some(json!("two")));
    other
        .until("what it knows", |c| c.store.row("item", "b").is_some_and(|row| row["payload"] == json!("p")));
    assert!(other.pokes.len() > pokes);
    change(&mut stage, "ALTER TABLE item ALTER n TYPE int8 USING length(n)");
    assert_eq!(newer.until_error()["kind"], "SchemaVersionNotSupported");
    return_to(&mut tab);
    let row = json!({"id": "a", "owner": "x", "n": 8, "payload": null});
    tab.until("its rows as they are", |c| c.store.row("item", "a") == Some(&row));
    assert_eq!(n(&tab, "b"), Some(json!(3)));
}

#[test]
fn another_table_takes_a_name_and_its_rows_are_missed() {
    let mut stage = Stage::prepared(THREE, &[]);
    let mut tab = stage.tab(&[items(), of("x")]);
    let counts = tab.pokes.len();
    change(
        &mut stage,
        "BEGIN; CREATE TABLE next (LIKE item INCLUDING ALL); INSERT INTO next SELECT * FROM item WHERE id <> 'b';
         INSERT INTO next VALUES ('d', 'x', 4, NULL); DROP TABLE item; ALTER TABLE next RENAME TO item; COMMIT",
    );
    tab.until("the other table's rows", |c| n(c, "d") == Some(json!(4)) && n(c, "b").is_none());
    assert_eq!(sent(&tab, counts), (vec!["d".to_owned()], vec!["b".to_owned()]));
    stage.sql.run("UPDATE item SET n = 9 WHERE id = 'a'");
    tab.until("a write of afterwards", |c| n(c, "a") == Some(json!(9)));
}

#[test]
fn a_column_with_values_of_its_own_disturbs_those_who_do_not_know_it() {
    let mut stage = Stage::prepared(THREE, &[]);
    let mut tab = stage.tab(&[items()]);
    let before = (tab.pokes.len(), tab.store.cookie.clone());
    change(&mut stage, "ALTER TABLE item ADD COLUMN extra float8 NOT NULL DEFAULT random()");
    tab.quiet("nothing is sent to those who do not know the column");
    assert_eq!((tab.pokes.len(), tab.store.cookie.clone()), before);
    let mut wide = schema();
    wide["tables"]["item"]["columns"]["extra"] = json!({"type": "number"});
    let mut newer = stage.client();
    newer.init = json!({"clientSchema": wide});
    newer.connect(&[items(), query("itemsOf", json!(["x"]))]);
    newer.until_got(&[items()]);
    assert!(newer.store.row("item", "a").is_some_and(|row| row["extra"].is_f64()), "{:?}", newer.store.rows);
}

/// Upstream says which row changed by other columns than before.
#[test]
fn rows_are_told_by_another_key_and_are_doubled() {
    let mut stage = Stage::prepared(THREE, &[]);
    let mut tab = stage.tab(&[items(), of("x")]);
    stage.sql.run("CREATE UNIQUE INDEX by_n ON item (n, id)");
    for (identity, at) in [("USING INDEX by_n", 10), ("DEFAULT", 20)] {
        let counts = tab.pokes.len();
        stage.sql.run(&format!("ALTER TABLE item REPLICA IDENTITY {identity}"));
        stage.sql.run(&format!("UPDATE item SET n = {at} WHERE id = 'a'"));
        tab.until("a value of the key", |c| n(c, "a") == Some(json!(at)));
        stage.sql.run(&format!("UPDATE item SET payload = 'p{at}', n = n + 1 WHERE id = 'b'"));
        stage.sql.run(&format!("INSERT INTO item VALUES ('i{at}', 'x', 1, NULL)"));
        tab.until("a row of the other key", |c| n(c, &format!("i{at}")).is_some());
        assert_eq!(sent(&tab, counts).0, ["a".to_owned(), "b".to_owned(), format!("i{at}")]);
        let mut fresh = stage.tab(&[items(), of("x")]);
        fresh.round_trip();
        assert_eq!(tab.store.rows, fresh.store.rows);
    }
    stage.sql.run("DELETE FROM item WHERE id IN ('a', 'i10')");
    tab.until("rows are gone", |c| c.store.rows.len() == 3);
}
