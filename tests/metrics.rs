//! A series that shows what is not so. Each is driven to a value that is known from elsewhere: from the tab, the
//! app, Postgres, or the disk.

#[path = "series/page.rs"]
mod page;
mod support;

use std::time::{Duration, Instant};

use page::Page;
use serde_json::{Value, json};
use support::app::{Answer, Query, of, query};
use support::client::{Client, Event};
use support::http;
use support::stage::Stage;

/// Longest time until a series shows what was done. Most are brought up to date once in a second.
const SHOWN: Duration = Duration::from_secs(40);

/// Rows of the table before anything is done.
const ROWS: u64 = 22_010;
const PREPARE: &str = "
    INSERT INTO item SELECT 'z' || i, 'z', i FROM generate_series(1, 10) i;
    ANALYZE item;
    INSERT INTO item SELECT 's' || i, 'slow', 0, repeat('x', 1000) FROM generate_series(1, 2000) i;
    INSERT INTO item SELECT 'zz' || i, 'o', i FROM generate_series(1, 20000) i";

/// A server, a tab, and what was seen before the present act.
struct World {
    stage: Stage,
    tab: Client,
    others: Vec<Client>,
    before: Page,
    /// Calls of the app, messages and bytes of the tab, and the log's position, before the present act.
    calls: usize,
    sent: (u64, u64),
    received: u64,
    lsn: f64,
}

impl World {
    fn page(&self) -> Page {
        let (status, text) = http::get(self.stage.server.port, "/metrics").expect("a page");
        assert_eq!(status, 200);
        Page::parse(&text)
    }

    fn lsn(&self) -> f64 {
        let now = "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')";
        self.stage.connect().value(now).parse().expect("a number")
    }

    fn remember(&mut self) {
        self.before = self.page();
        self.calls = self.stage.app.queries().len();
        (self.sent, self.received) = (self.tab.sent, self.tab.received);
        self.lsn = self.lsn();
    }

    fn bytes_of(&self, directory: &str) -> f64 {
        let files = std::fs::read_dir(self.stage.server.directory.join(directory)).expect("it is there");
        files.flatten().map(|file| file.metadata().map_or(0, |meta| meta.len())).sum::<u64>() as f64
    }

    fn log_bytes(&self) -> f64 {
        let log = self.stage.server.directory.join("replica.db-wal");
        std::fs::metadata(log).map_or(0.0, |meta| meta.len() as f64)
    }
}

/// What a series must show.
enum Shows {
    /// This.
    Is(fn(&World) -> f64),
    /// So much more than before the act.
    Grows(fn(&World) -> f64),
    /// Something between these two.
    Within(fn(&World) -> (f64, f64)),
    /// Something between these two more than before the act.
    GrowsWithin(fn(&World) -> (f64, f64)),
    /// It cannot be driven from outside: the test that does, and the file that it is in.
    Elsewhere(&'static str, &'static str),
}
use Shows::{Elsewhere, Grows, GrowsWithin, Is, Within};

impl Shows {
    /// Why a series does not show it.
    fn misses(&self, world: &World, page: &Page, series: &str) -> Option<String> {
        let (value, before) = (page.value(series), world.before.value(series));
        let (low, high, base) = match self {
            Is(wanted) => (wanted(world), wanted(world), 0.0),
            Grows(wanted) => (wanted(world), wanted(world), before),
            Within(range) => (range(world).0, range(world).1, 0.0),
            GrowsWithin(range) => (range(world).0, range(world).1, before),
            Elsewhere(file, test) => {
                let source = std::fs::read_to_string(file).unwrap_or_default();
                let is_there = source.contains(&format!("fn {test}()"));
                return (!is_there).then(|| format!("{file} has no test {test}"));
            }
        };
        let seen = value - base;
        (seen < low || seen > high)
            .then(|| format!("{series} shows {value}, {seen} more than {base}; expected {low} to {high}"))
    }
}

/// What is done, in this order.
const ACTS: [(&str, fn(&mut World)); 13] = [
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
    ("the replica is made anew in the process", resync),
];

const TABLE: &[(&str, &str, Shows)] = &[
    ("kelvin_initial_sync_rows", "the server starts", Is(|_| ROWS as f64 + 1.0)),
    ("kelvin_initial_sync_rows_expected", "the server starts", Is(|_| ROWS as f64 + 1.0)),
    ("kelvin_memory_budget_bytes", "the server starts", Is(|_| (2_048u64 << 20) as f64)),
    ("kelvin_memory_in_use_bytes", "the server starts", Within(|_| (1e6, 1e9))),
    (
        "kelvin_memory_held_bytes",
        "the server starts",
        Within(|w| (1e6, 1.5 * w.stage.server.memory() as f64)),
    ),
    ("kelvin_connections_accepted_total", ASKS, Grows(|_| 1.0)),
    ("kelvin_connections_open", ASKS, Is(|_| 1.0)),
    ("kelvin_client_groups", ASKS, Is(|_| 1.0)),
    ("kelvin_clients", ASKS, Is(|_| 1.0)),
    ("kelvin_queries", ASKS, Is(|_| 1.0)),
    ("kelvin_views", ASKS, Is(|_| 1.0)),
    ("kelvin_hydration_seconds", ASKS, Grows(|_| 1.0)),
    ("kelvin_hydration_seconds_sum", ASKS, Within(|_| (1e-5, 30.0))),
    ("kelvin_transform_requests_total", ASKS, Grows(|w| (w.stage.app.queries().len() - w.calls) as f64)),
    ("kelvin_transform_seconds", ASKS, Grows(|w| (w.stage.app.queries().len() - w.calls) as f64)),
    ("kelvin_transform_seconds_sum", ASKS, Within(|_| (0.3, 30.0))),
    ("kelvin_pokes_out_total", ASKS, Grows(|w| w.tab.pokes.len() as f64)),
    ("kelvin_slice_seconds", ASKS, GrowsWithin(|_| (3.0, 1e5))),
    ("kelvin_slice_cpu_seconds", ASKS, GrowsWithin(|_| (3.0, 1e5))),
    ("kelvin_slice_longest_seconds", ASKS, Within(|w| longest(w, "kelvin_slice_seconds"))),
    ("kelvin_slice_cpu_longest_seconds", ASKS, Within(|w| longest(w, "kelvin_slice_cpu_seconds"))),
    ("kelvin_record_writes_total", ASKS, GrowsWithin(|_| (1.0, 100.0))),
    ("kelvin_record_bytes_total", ASKS, Within(|w| (1.0, w.bytes_of("replica.db-records")))),
    ("kelvin_messages_in_total", "the tab sends three pings", Grows(|w| (w.tab.sent.0 - w.sent.0) as f64)),
    ("kelvin_bytes_in_total", "the tab sends three pings", Grows(|w| (w.tab.sent.1 - w.sent.1) as f64)),
    ("kelvin_bytes_out_total", "the tab sends three pings", Grows(|w| (w.tab.received - w.received) as f64)),
    ("kelvin_commits_applied_total", CHANGES, Grows(|_| 3.0)),
    ("kelvin_rows_applied_total", CHANGES, Grows(|_| 5.0)),
    ("kelvin_commit_apply_seconds", CHANGES, Grows(|_| 3.0)),
    ("kelvin_commit_apply_seconds_sum", CHANGES, Within(|_| (3e-6, 30.0))),
    ("kelvin_commit_to_broadcast_seconds", CHANGES, Grows(|_| 3.0)),
    ("kelvin_commit_to_broadcast_seconds_sum", CHANGES, Within(|w| (w.page().value(APPLY_SUM), 30.0))),
    ("kelvin_batched_commits_total", CHANGES, Grows(|_| 3.0)),
    ("kelvin_batch_seconds", CHANGES, Grows(|_| 3.0)),
    ("kelvin_batch_seconds_sum", CHANGES, GrowsWithin(|_| (3e-6, 30.0))),
    ("kelvin_view_advances_total", CHANGES, Grows(|_| 3.0)),
    ("kelvin_pokes_out_total", CHANGES, Grows(|_| 3.0)),
    ("kelvin_replica_watermark_lsn", CHANGES, Within(|w| (w.lsn, w.lsn()))),
    ("kelvin_replica_synced_watermark_lsn", CHANGES, Within(|w| (w.lsn, w.lsn()))),
    ("kelvin_replica_wal_bytes", CHANGES, Is(World::log_bytes)),
    ("kelvin_replica_wal_synced_bytes_total", CHANGES, Within(|w| (1.0, w.log_bytes()))),
    ("kelvin_commits_applied_total", "fifty transactions come at once", Grows(|_| 50.0)),
    ("kelvin_rows_applied_total", "fifty transactions come at once", Grows(|_| 50.0)),
    ("kelvin_commit_apply_seconds", "fifty transactions come at once", GrowsWithin(|_| (1.0, 50.0))),
    ("kelvin_view_evaluations_bulk_total", "a table is truncated", Grows(|_| 1.0)),
    ("kelvin_view_evaluations_candidates_total", ACTS[6].0, Grows(|_| 1.0)),
    ("kelvin_view_evaluations_condition_total", ACTS[7].0, Grows(|_| 1.0)),
    ("kelvin_view_evaluations_budget_total", ACTS[8].0, Grows(|_| 1.0)),
    ("kelvin_slow_socket_catch_ups_total", "a socket is slow", Grows(|_| 1.0)),
    ("kelvin_push_requests_total", FAILS, Grows(|_| 3.0)),
    ("kelvin_push_failures_total", FAILS, Grows(|_| 2.0)),
    ("kelvin_push_seconds", FAILS, Grows(|_| 3.0)),
    ("kelvin_push_seconds_sum", FAILS, GrowsWithin(|_| (0.3, 30.0))),
    ("kelvin_transform_failures_total", FAILS, Grows(|_| 2.0)),
    ("kelvin_errors_sent_total{kind=\"TransformFailed\"}", FAILS, Grows(|_| 2.0)),
    ("kelvin_errors_sent_total{kind=\"PushFailed\"}", FAILS, Grows(|_| 2.0)),
    ("kelvin_connections_closed_total", FAILS, GrowsWithin(|_| (4.0, 5.0))),
    ("kelvin_upstream_reconnects_total", CUT, Grows(|_| 1.0)),
    ("kelvin_slot_lag_bytes", CUT, Within(|_| (8e6, 1e9))),
    ("kelvin_initial_sync_rows", ANEW, Is(|_| 2_004.0)),
    ("kelvin_initial_sync_rows_expected", ANEW, Is(|_| 2_004.0)),
    ("kelvin_connections_open", ANEW, Is(|_| 0.0)),
    ("kelvin_clients", ANEW, Is(|_| 0.0)),
    ("kelvin_connections_accepted_total", ANEW, Grows(|_| 0.0)),
    ("kelvin_commits_applied_total", ANEW, GrowsWithin(|_| (0.0, 10.0))),
    // Cores of this stage are one; see `sockets_go_to_the_core_of_their_group`.
    ("kelvin_sockets_handed_over_total", ANEW, Is(|_| 0.0)),
    ("kelvin_sockets_received_total", ANEW, Is(|_| 0.0)),
    ("kelvin_overload_refusals_total", ANEW, Elsewhere("tests/metrics.rs", "those_without_room_are_counted")),
    (
        "kelvin_overload_groups_shed_total",
        ANEW,
        Elsewhere("tests/metrics.rs", "those_without_room_are_counted"),
    ),
    ("kelvin_queue_overflows_total", ANEW, Elsewhere("src/server/batch.rs", "a_gap_is_counted")),
    ("kelvin_executor_nudges_total", ANEW, Elsewhere("src/server/replication.rs", "nudges_are_counted")),
    (
        "kelvin_log_lines_dropped_total",
        ANEW,
        Elsewhere(
            "src/observe/log/sink.rs",
            "a_blocked_output_drops_lines_beyond_the_limit_and_says_how_many",
        ),
    ),
];

const ASKS: &str = ACTS[1].0;
const CHANGES: &str = ACTS[3].0;
const FAILS: &str = ACTS[10].0;
const CUT: &str = ACTS[11].0;
const ANEW: &str = ACTS[12].0;
const APPLY_SUM: &str = "kelvin_commit_apply_seconds_sum";

/// The longest of some times is no more than their sum, and no less than the mean.
fn longest(world: &World, times: &str) -> (f64, f64) {
    let page = world.page();
    let sum = page.value(&format!("{times}_sum"));
    // More may have come since the other look.
    (sum / page.value(times) / 2.0, sum)
}

fn live() -> Query {
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
                      "right": {"type": "literal", "value": "z%"}});
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
    let lag = || world.page().value("kelvin_slot_lag_bytes");
    let began = Instant::now();
    // It is looked at every ten seconds; the transaction stays open until then.
    while lag() < 8e6 && began.elapsed() < SHOWN {
        std::thread::sleep(Duration::from_millis(200));
    }
    drop(open);
}

fn resync(world: &mut World) {
    world.stage.sql.run("DELETE FROM item WHERE owner <> 'slow'; DELETE FROM pair; ANALYZE item");
    world.stage.sql.run("INSERT INTO tick VALUES (1), (2); ALTER TABLE item ADD COLUMN more text");
    world.stage.server.until_log("epoch=2", "the replica is ready");
    world.tab.until_closed();
}

#[test]
fn each_series_shows_what_was_done() {
    let stage = Stage::prepared(PREPARE, &[("MEMORY_BUDGET_MB", "2048")]);
    let tab = stage.client();
    let mut world = World {
        stage,
        tab,
        others: Vec::new(),
        before: Page::default(),
        calls: 0,
        sent: (0, 0),
        received: 0,
        lsn: 0.0,
    };
    let names: std::collections::BTreeSet<String> = TABLE
        .iter()
        .map(|(series, ..)| series.split('{').next().unwrap_or(series).trim_end_matches("_sum").to_owned())
        .collect();
    assert_eq!(world.page().names, names, "the page and the table name the same series");
    for (act, perform) in ACTS {
        world.remember();
        perform(&mut world);
        let deadline = Instant::now() + SHOWN;
        loop {
            let page = world.page();
            let rows = TABLE.iter().filter(|(_, of, _)| *of == act);
            let misses: Vec<String> =
                rows.filter_map(|(series, _, shows)| shows.misses(&world, &page, series)).collect();
            if misses.is_empty() {
                break;
            }
            assert!(Instant::now() < deadline, "after: {act}\n{}", misses.join("\n"));
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

#[test]
fn sockets_go_to_the_core_of_their_group() {
    let stage = Stage::new(&[("NUM_SYNC_WORKERS", "2")]);
    let page = || Page::parse(&http::get(stage.server.port, "/metrics").expect("a page").1);
    let mut tabs: Vec<Client> = (0..30).map(|_| stage.tab(&[live()])).collect();
    let open = page();
    let moved = open.value("kelvin_sockets_handed_over_total");
    assert!(moved > 0.0, "one of two cores accepts all the sockets of its groups");
    assert_eq!(open.value("kelvin_sockets_received_total"), moved);
    assert_eq!(open.value("kelvin_connections_accepted_total"), 30.0);
    assert_eq!(open.value("kelvin_connections_open"), 30.0);
    tabs.iter_mut().for_each(Client::close);
    let deadline = Instant::now() + SHOWN;
    while page().value("kelvin_connections_open") > 0.0 {
        assert!(Instant::now() < deadline, "{:?}", page());
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(page().value("kelvin_connections_closed_total"), 30.0);
}

#[test]
fn those_without_room_are_counted() {
    let rows =
        "INSERT INTO item SELECT repeat('k', 400) || i, 'o' || i % 200, i FROM generate_series(1, 200000) i";
    let stage = Stage::prepared(rows, &[("MEMORY_BUDGET_MB", "96")]);
    let page = || Page::parse(&http::get(stage.server.port, "/metrics").expect("a page").1);
    // Who is told before it is let in, who after that, and who is served.
    let (mut refused, mut sent_away, mut served) = (0u32, 0u32, Vec::new());
    for owner in 0..200 {
        let mut client = stage.client();
        client.open(Some(&client.init_body(vec![of(&format!("o{owner}")).put()])));
        let mut is_in = false;
        loop {
            match client.next(SHOWN).expect("an answer") {
                Event::Connected(_) => is_in = true,
                Event::Error(error) => {
                    assert_eq!(error["kind"], "ServerOverloaded");
                    *(if is_in { &mut sent_away } else { &mut refused }) += 1;
                    break;
                }
                _ if client.store.got.len() == 1 => {
                    served.push(client);
                    break;
                }
                _ => {}
            }
        }
        if refused > 2 {
            break;
        }
    }
    assert!(refused > 2, "{sent_away} were sent away, {} served", served.len());
    assert_eq!(page().value("kelvin_overload_refusals_total"), f64::from(refused));
    // Those that close leave what can be given up.
    let closed = served.len();
    served.iter_mut().for_each(|client| client.vanish());
    let deadline = Instant::now() + SHOWN;
    loop {
        let shed = page().value("kelvin_overload_groups_shed_total");
        assert!(shed <= closed as f64 + f64::from(sent_away), "{shed} of {closed} and {sent_away}");
        if shed > f64::from(sent_away) {
            break;
        }
        assert!(Instant::now() < deadline, "nothing was given up");
        std::thread::sleep(Duration::from_millis(50));
    }
}
