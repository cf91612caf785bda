//! Probes are told that all is well although nothing moves, or that something is wrong although clients are
//! served.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::app::{items, query};
use crate::support::http;
use crate::support::postgres::Cluster;
use crate::support::stage::Stage;
use serde_json::json;

/// Longest time until a probe has noticed something.
const NOTICED: Duration = Duration::from_secs(120);

/// The answer to a probe.
fn probe(stage: &Stage) -> (u16, String) {
    http::get(stage.server.port, "/keepalive").expect("an answer")
}

/// A series without labels, as the page shows it.
fn series(stage: &Stage, name: &str) -> f64 {
    let (_, page) = http::get(stage.server.port, "/metrics").expect("the page");
    let value = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("no {name}")).parse().expect("a number")
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + NOTICED;
    while !done() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_stream_that_stands_still_while_upstream_moves_is_well() {
    let cluster = Cluster::start("");
    let mut stage = Stage::unstarted(&cluster, "", &[("REPLICATION_LAG_REPORT_INTERVAL_MS", "500")]);
    stage.server.start();
    let mut client = stage.tab(&[items()]);
    until("heartbeats that come back", || series(&stage, "kelvin_replication_lag_seconds") > 0.0);
    assert_eq!(probe(&stage), (200, "OK".to_owned()));
    let walsender = stage.sql.value("SELECT pid FROM pg_stat_replication WHERE state = 'streaming'");
    let signal = |name: &str| {
        let sent = Command::new("kill").args(["-s", name, &walsender]).status();
        assert!(sent.is_ok_and(|status| status.success()), "{name}");
    };
    signal("STOP");
    let stopped = Instant::now();
    until("503", || probe(&stage).0 == 503);
    let (_, why) = probe(&stage);
    assert!(why.contains("replication stands still"), "{why}");
    assert!(stopped.elapsed() > Duration::from_secs(50), "no pause is a standstill");
    assert!(series(&stage, "kelvin_replication_lag_seconds") > 50.0);
    assert!(series(&stage, "kelvin_upstream_silence_seconds") > 50.0);
    assert!(series(&stage, "kelvin_replication_lag_bytes") > 0.0);
    assert_eq!(series(&stage, "kelvin_upstream_connected"), 1.0);
    signal("CONT");
    until("200", || probe(&stage).0 == 200);
    stage.sql.run("INSERT INTO item VALUES ('after', 'o', 1, NULL)");
    client.until("what came after", |c| c.store.row("item", "after").is_some());
}

#[test]
fn postgres_is_away_and_clients_that_are_served_are_sent_elsewhere() {
    let cluster = Cluster::start("");
    let mut stage = Stage::unstarted(&cluster, "", &[("REPLICATION_LAG_REPORT_INTERVAL_MS", "500")]);
    stage.server.start();
    let mut client = stage.tab(&[items()]);
    until("a stream", || series(&stage, "kelvin_upstream_connected") == 1.0);
    cluster.stop("immediate");
    until("no stream", || series(&stage, "kelvin_upstream_connected") == 0.0);
    until("silence", || series(&stage, "kelvin_upstream_silence_seconds") > 2.0);
    assert_eq!(probe(&stage), (200, "OK".to_owned()));
    client.round_trip();
    cluster.launch();
    stage.sql = stage.connect();
    until("a stream", || series(&stage, "kelvin_upstream_connected") == 1.0);
    stage.sql.run("INSERT INTO item VALUES ('after', 'o', 1, NULL)");
    client.until("what came after", |c| c.store.row("item", "after").is_some());
}

#[test]
fn a_role_that_may_not_write_heartbeats_is_served_with_a_warning() {
    let cluster = Cluster::start("");
    let statements = "REVOKE EXECUTE ON FUNCTION pg_logical_emit_message(boolean, text, text) FROM PUBLIC; \
                      CREATE PUBLICATION app_data FOR TABLE item, pair, tick; CREATE ROLE quiet LOGIN REPLICATION; \
                      GRANT ALL ON DATABASE stage_0 TO quiet; GRANT ALL ON SCHEMA public TO quiet; \
                      GRANT ALL ON ALL TABLES IN SCHEMA public TO quiet";
    let settings = [("REPLICATION_LAG_REPORT_INTERVAL_MS", "200"), ("APP_PUBLICATIONS", "app_data")];
    let mut stage = Stage::unstarted(&cluster, "", &settings);
    let statements = statements.replace("stage_0", &stage.database);
    stage.sql.run(&statements);
    for table in ["item", "pair", "tick"] {
        stage.sql.run(&format!("ALTER TABLE {table} OWNER TO quiet"));
    }
    let url = format!("postgres://quiet@127.0.0.1:{}/{}", stage.postgres, stage.database);
    stage.server.set(&[("UPSTREAM_DB", url)]);
    stage.server.start();
    stage.server.until_log("WARN", "the replication lag is not measured");
    assert_eq!(probe(&stage), (200, "OK".to_owned()));
    let ticks = query("ticks", json!([]));
    let mut client = stage.tab(std::slice::from_ref(&ticks));
    stage.sql.run("INSERT INTO tick VALUES (1)");
    client.until("a change", |c| c.store.row("tick", 1).is_some());
    let warnings = stage.server.log().matches("the replication lag is not measured").count();
    assert_eq!(warnings, 1);
}
