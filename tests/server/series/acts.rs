//! What is done to a server whose series are looked at.

use std::time::Duration;

use serde_json::{Value, json};

use super::world::World;
use crate::support::app::{Answer, Query, of, query};
use crate::support::client::Client;
use crate::support::sql::Sql;

/// Longest time until a series shows what was done. Most are brought up to date once in a second.
pub const SHOWN: Duration = Duration::from_secs(40);

/// Rows of the table before anything is done.
pub const ROWS: u64 = 22_010;
pub const PREPARE: &str = "
    INSERT INTO item SELECT 'z' || i, 'z', i FROM generate_series(1, 10) i;
    ANALYZE item;
    INSERT INTO item SELECT 's' || i, 'slow', 0, repeat('x', 1000) FROM generate_series(1, 2000) i;
    INSERT INTO item SELECT 'zz' || i, 'o', i FROM generate_series(1, 20000) i";

/// What is done, and its name.
pub type Act = (&'static str, fn(&mut World));

/// What is done, in this order.
pub const ACTS: [Act; 15] = [
    ("the server starts", |_| {}),
    ("a tab asks for a query, and the app takes 0.3 s", ask),
    ("the tab sends three pings", |w| (0..3).for_each(|_| w.tab.round_trip())),
    ("three transactions change five rows, one after the other", change),
    ("fifty transactions come at once", burst),
    ("a table is truncated", truncate),
    ("more rows of a view change than are looked at", many_rows),
    ("more keys of a condition change than are followed", many_keys),
    ("a window has to be filled from far away", far_window),
    ("a socket is slow", slow_socket),
    ("the app is slow, fails and refuses", fail),
    ("the stream is cut, and Postgres has to keep its log", cut),
    ("the stream is cut, and nobody may connect", close),
    ("one may connect again", open_again),
    ("the replica is made anew in the process", resync),
];

/// Lets nobody, or everybody, connect to the database.
fn allow(world: &World, connections: bool) {
    let mut sql = Sql::connect(world.stage.postgres, "postgres");
    sql.run(&format!("ALTER DATABASE {} ALLOW_CONNECTIONS {connections}", world.stage.database));
    if !connections {
        sql.run(&format!(
            "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE active AND database = '{}'",
            world.stage.database
        ));
    }
}

fn close(world: &mut World) {
    world.open = None;
    allow(world, false);
}

fn open_again(world: &mut World) {
    allow(world, true);
}

pub fn live() -> Query {
    of("live")
}

fn ask(world: &mut World) {
    world.stage.app.script_query([Answer::Slow(Duration::from_millis(300))]);
    world.tab.connect(&[live()]);
    world.tab.until_got(&[live()]);
}

fn n(client: &mut Client, id: &str, n: i64) {
    client.until("the change", |c| c.store.row("item", id).is_some_and(|row| row["n"] == n));
}

fn change(world: &mut World) {
    let (sql, tab) = (&mut world.stage.sql, &mut world.tab);
    sql.run("INSERT INTO item SELECT 'l' || i, 'live', i FROM generate_series(1, 3) i");
    n(tab, "l3", 3);
    sql.run("UPDATE item SET n = 7 WHERE id = 'l1'");
    n(tab, "l1", 7);
    sql.run("DELETE FROM item WHERE id = 'l2'");
    tab.until("it is gone", |c| c.store.row("item", "l2").is_none());
}

fn burst(world: &mut World) {
    let one = |n: u64| format!("BEGIN; UPDATE item SET n = {n} WHERE id = 'l3'; COMMIT;");
    world.stage.sql.run(&(101..=150).map(one).collect::<String>());
    n(&mut world.tab, "l3", 150);
}

/// A further tab in a group of its own that has a query.
fn another(world: &mut World, query: Query) {
    let tab = world.stage.tab(&[query]);
    world.others.push(tab);
}

fn last(world: &mut World) -> &mut Client {
    world.others.last_mut().expect("a tab")
}

fn truncate(world: &mut World) {
    world.stage.sql.run("INSERT INTO tick VALUES (1)");
    another(world, query("ticks", json!([])));
    world.stage.sql.run("TRUNCATE tick");
    last(world).until("no rows", |c| c.store.rows.is_empty());
}

fn many_rows(world: &mut World) {
    another(world, of("c"));
    world.stage.sql.run("INSERT INTO item SELECT 'c' || i, 'c', i FROM generate_series(1, 5000) i");
    last(world).until("all rows", |c| c.store.rows.len() == 5_000);
}

fn spelled(condition: Value, limit: Value) -> Query {
    let mut ast = json!({"table": "item", "where": condition, "orderBy": [["id", "asc"]]});
    if !limit.is_null() {
        ast["limit"] = limit;
    }
    query("spelled", json!([ast]))
}

fn many_keys(world: &mut World) {
    let exists = json!({"type": "correlatedSubquery", "op": "EXISTS", "related": {
        "correlation": {"parentField": ["owner"], "childField": ["a"]},
        "subquery": {"table": "pair", "alias": "pairs", "orderBy": [["a", "asc"], ["b", "asc"]]}}});
    another(world, spelled(exists, Value::Null));
    world.stage.sql.run("INSERT INTO pair SELECT 'k' || i, 1, 'x' FROM generate_series(1, 2500) i;");
    world.stage.sql.run("INSERT INTO pair VALUES ('z', 1, 'x')");
    last(world).until("the rows", |c| c.store.table("item").len() == 10);
}

fn far_window(world: &mut World) {
    let like = json!({"type": "simple", "op": "LIKE", "left": {"type": "column", "name": "owner"},
                      "right": {"type": "literal", "value": "%z"}});
    another(world, spelled(like, json!(5)));
    world.stage.sql.run("DELETE FROM item WHERE owner = 'z' AND n > 1");
    last(world).until("one row", |c| c.store.table("item").len() == 1);
}

fn slow_socket(world: &mut World) {
    let mut slow = world.stage.tab(&[of("slow")]);
    another(world, of("slow"));
    // 40 MB, which is more than kernels hold for a socket.
    for round in 1..=20 {
        world.stage.sql.run(&format!("UPDATE item SET n = {round} WHERE owner = 'slow'"));
        n(last(world), "s1", round);
    }
    slow.until("the last change", |c| c.store.row("item", "s2000").is_some_and(|row| row["n"] == 20));
    world.others.push(slow);
}

fn fail(world: &mut World) {
    let app = &world.stage.app;
    // Each is let in first.
    let mut tabs: Vec<Client> = (0..2).map(|_| world.stage.tab(&[live()])).collect();
    app.script_mutate([Answer::Slow(Duration::from_millis(300))]);
    world.tab.mutate("put", json!({"id": "l9", "owner": "live", "n": 9}));
    n(&mut world.tab, "l9", 9);
    app.script_mutate([Answer::Status(400, "no"), Answer::Text("{}".into())]);
    for tab in &mut tabs {
        tab.mutate("put", json!({"id": "l9", "owner": "live", "n": 10}));
        assert_eq!(tab.until_error()["kind"], "PushFailed");
    }
    app.script_query([Answer::Status(400, "no"), Answer::Text("{}".into())]);
    for _ in 0..2 {
        let mut tab = world.stage.client();
        tab.connect(&[of("never asked for before")]);
        assert_eq!(tab.until_error()["kind"], "TransformFailed");
    }
}

fn cut(world: &mut World) {
    let mut open = world.stage.connect();
    open.run("BEGIN; INSERT INTO hidden VALUES ('open')");
    let mut sql = world.stage.connect();
    sql.run("SELECT pg_logical_emit_message(false, 'x', repeat('y', 1000000)) FROM generate_series(1, 10)");
    sql.run("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE active");
    sql.run("UPDATE item SET n = 1000 WHERE id = 'l3'");
    n(&mut world.tab, "l3", 1_000);
    // Postgres has to keep its log for as long as that transaction is open.
    world.open = Some(open);
}

fn resync(world: &mut World) {
    world.stage.sql.run("DELETE FROM item WHERE owner <> 'slow'; DELETE FROM pair; ANALYZE item");
    world.stage.sql.run("INSERT INTO tick VALUES (1), (2); UPDATE item SET n = 0 WHERE id = 's1'");
    world.stage.sql.run("DROP PUBLICATION \"_zero_public_0\"");
    world.stage.server.until_log("epoch=2", "the replica is ready");
    world.tab.until_closed();
}
