//! A client's query reads by columns that have no index, through the whole server.

use std::time::{Duration, Instant};

use crate::support::app::{Query, query};
use crate::support::client::{Client, WAIT};
use crate::support::stage::Stage;
use rusqlite::{Connection, OpenFlags};
use serde_json::json;

const ROWS: &str = "INSERT INTO item SELECT 'i' || i, 'o' || i % 10, i FROM generate_series(1, 100) i;
     INSERT INTO pair SELECT 'a' || i, i, 'i' || i % 100 FROM generate_series(1, 5000) i";

/// The items of an owner with their pairs, which are found by a column that no index has.
fn with_pairs(owner: &str) -> Query {
    let ast = json!({
        "table": "item", "orderBy": [["id", "asc"]],
        "where": {"type": "simple", "op": "=", "left": {"type": "column", "name": "owner"},
                  "right": {"type": "literal", "value": owner}},
        "related": [{
            "correlation": {"parentField": ["id"], "childField": ["c"]},
            "subquery": {"table": "pair", "alias": "pairs", "orderBy": [["a", "asc"], ["b", "asc"]]},
        }],
    });
    query("spelled", json!([ast]))
}

fn tab(stage: &Stage, owner: &str) -> Client {
    stage.tab(&[with_pairs(owner)])
}

/// Names of the indexes that the replica has for live queries.
fn indexes(stage: &Stage) -> Vec<String> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let replica = Connection::open_with_flags(stage.server.replica(), flags).expect("the replica opens");
    let sql =
        "SELECT name FROM sqlite_schema WHERE type = 'index' AND name LIKE '\\_kelvin.live.%' ESCAPE '\\'";
    let mut statement = replica.prepare(sql).expect("it is read");
    let names = statement.query_map([], |row| row.get(0)).expect("it is read");
    names.map(|name| name.expect("a name")).collect()
}

/// Lines of the log about queries that took long.
fn slow(stage: &Stage) -> Vec<String> {
    let log = stage.server.log();
    log.lines().filter(|line| line.contains("Slow query materialization")).map(str::to_owned).collect()
}

#[test]
fn an_index_that_a_clients_query_needs_is_made_and_the_client_is_told_as_before() {
    let mut stage = Stage::prepared(ROWS, &[("LOG_SLOW_HYDRATE_THRESHOLD", "0")]);
    assert!(indexes(&stage).is_empty());
    let mut client = tab(&stage, "o1");
    assert_eq!(client.store.table("pair").len(), 500);
    stage.server.until_log("Slow query materialization", "plan");
    let before = slow(&stage).pop().expect("a line");
    assert!(before.contains("SCAN") && !before.contains("_kelvin.live"), "{before}");
    let deadline = Instant::now() + WAIT;
    while !indexes(&stage).iter().any(|name| name == "_kelvin.live.pair(c)") {
        assert!(Instant::now() < deadline, "there are only {:?}", indexes(&stage));
        std::thread::sleep(Duration::from_millis(50));
    }
    // A change of a child, of its key, and of a parent.
    stage.sql.run("INSERT INTO pair VALUES ('new', 1, 'i1'), ('none', 1, 'i2')");
    client.until("a pair that came", |c| c.store.table("pair").len() == 501);
    stage.sql.run("UPDATE pair SET c = 'i2' WHERE a = 'new'");
    client.until("a pair that went elsewhere", |c| c.store.table("pair").len() == 500);
    stage.sql.run("UPDATE item SET owner = 'o1' WHERE id = 'i2'");
    client.until("an item with its pairs", |c| c.store.table("pair").len() == 552);
    // Whoever asks now is answered by the index.
    let mut later = tab(&stage, "o3");
    assert_eq!(later.store.table("pair").len(), 500);
    stage.server.until_log("Slow query materialization", "_kelvin.live.pair(c)");
    later.round_trip();
    assert_eq!(indexes(&stage).len(), 1, "{:?}", indexes(&stage));
}
