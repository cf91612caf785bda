//! What Postgres' log says of a server that starts, serves and stops.

use std::time::{Duration, Instant};

use crate::support::app::items;
use crate::support::postgres::Cluster;
use crate::support::sql::Sql;
use crate::support::stage::Stage;

/// Everything that the server says of sessions, with the name of each.
const LOGGING: &str = "log_min_messages = debug1\nlog_line_prefix = '%a|'";

/// What Postgres says of a session that vanishes, or that had to be thrown out.
const RUDE: [&str; 5] = [
    "unexpected EOF",
    "could not receive data from client",
    "could not send data to client",
    "connection to client lost",
    "terminating connection",
];

/// Lines about sessions of the server under test that did not end well.
fn rude_lines(cluster: &Cluster) -> Vec<String> {
    let log = cluster.log();
    let of_server = log.lines().filter(|line| line.starts_with("zero-"));
    of_server.filter(|line| RUDE.iter().any(|rude| line.contains(rude))).map(str::to_owned).collect()
}

/// Waits until no session of the server under test is left.
fn until_gone(sql: &mut Sql) {
    let deadline = Instant::now() + Duration::from_secs(20);
    let count = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'zero-%'";
    while sql.value(count) != "0" {
        assert!(Instant::now() < deadline, "sessions are left");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn no_session_vanishes_without_a_goodbye() {
    let cluster = Cluster::start(LOGGING);
    let mut stage = Stage::unstarted(
        &cluster,
        "INSERT INTO item SELECT i, 'o', i FROM generate_series(1, 5000) i",
        &[("INITIAL_SYNC_TABLE_COPY_WORKERS", "3")],
    );
    // What is looked for is what this server writes.
    let mut rude = Sql::connect(cluster.port, &stage.database);
    rude.run("SET application_name = 'zero-rude'; BEGIN");
    drop(rude);
    until_gone(&mut stage.sql);
    assert_eq!(rude_lines(&cluster).len(), 1, "{}", cluster.log());
    for round in 0..3 {
        stage.server.start();
        let mut tab = stage.tab(&[items()]);
        stage.sql.run(&format!("INSERT INTO item VALUES ('new {round}', 'o', {round})"));
        tab.until("the new row", |c| c.store.row("item", format!("new {round}")).is_some());
        if round == 1 {
            // The replica is made anew in the process.
            stage.sql.run("DROP PUBLICATION \"_zero_public_0\"");
            stage.server.until_log("epoch=3", "the replica is ready");
            // One that has not begun cannot say goodbye.
            stage.server.until_log("slot=zero_0_b from=", "streaming");
        }
        stage.server.signal("TERM");
        assert!(stage.server.until_ended().success());
        until_gone(&mut stage.sql);
        assert_eq!(rude_lines(&cluster)[1..], [] as [String; 0], "after round {round}");
    }
}
