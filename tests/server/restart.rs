//! Kelvin or Postgres goes away, in good order or not, and something is missing afterwards.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::support::app::query;
use crate::support::client::{Client, Event};
use crate::support::load::{Load, difference, replica_value};
use crate::support::ports::free_port;
use crate::support::postgres::Cluster;
use crate::support::server::{Server, scratch};
use crate::support::sql::Sql;
use crate::support::stage::Stage;
use serde_json::{Value, json};

/// How long Postgres is away.
const AWAY: Duration = Duration::from_secs(6);

/// Transactions before and after the server is killed.
const BEFORE: u64 = 300;
const AFTER: u64 = 150;

fn items() -> crate::support::app::Query {
    query("items", json!([]))
}

/// What a client should hold of the table `item`.
fn upstream_items(sql: &mut Sql) -> Vec<Value> {
    let rows = sql.rows("SELECT id, owner, n, payload FROM item ORDER BY id");
    let number = |n: &Option<String>| n.as_ref().map(|n| n.parse::<i64>().expect("a number"));
    rows.iter().map(|r| json!({"id": r[0], "owner": r[1], "n": number(&r[2]), "payload": r[3]})).collect()
}

/// Waits until a client holds exactly what Postgres does.
fn until_right(client: &mut Client, sql: &mut Sql) {
    let expected = upstream_items(sql);
    client.until("the rows of Postgres", |c| {
        c.store.rows.len() == expected.len() && c.store.table("item").into_iter().eq(expected.iter())
    });
}

/// Waits until the replica has everything that is there now, by way of a client.
fn until_caught_up(stage: &mut Stage) {
    let mut client = stage.client();
    client.connect(&[query("ticks", json!([]))]);
    let last: i64 =
        stage.sql.value("INSERT INTO tick SELECT count(*) FROM tick RETURNING id").parse().expect("a number");
    client.until("the last change", |c| c.store.row("tick", last).is_some());
}

/// Stops the server and compares its replica with Postgres, table by table.
fn stop_and_compare(stage: &mut Stage) {
    until_caught_up(stage);
    stage.server.signal("TERM");
    assert!(stage.server.until_ended().success());
    assert_eq!(difference(&stage.server.replica(), &mut stage.sql), None);
}

#[test]
fn a_stop_closes_connections_without_an_error() {
    let mut stage = Stage::prepared(
        "INSERT INTO item SELECT i, 'o', i, repeat('x', 200) FROM generate_series(1, 20000) i",
        &[("NUM_SYNC_WORKERS", "2")],
    );
    let mut clients: Vec<Client> = (0..6).map(|_| stage.client()).collect();
    for client in &mut clients[..4] {
        client.connect(&[items()]);
        client.until_got(&[items()]);
    }
    // One that is being sent a long poke, and one that has said nothing yet.
    clients[4].connect(&[items()]);
    clients[5].open(None);
    clients[5].until_connected();
    stage.server.signal("TERM");
    for client in &mut clients {
        let (code, reason) = client.until_closed();
        assert_eq!(code, None, "{} was closed with {reason:?}", client.id);
    }
    assert_eq!(stage.server.until_ended().code(), Some(0));
}

#[test]
fn a_returning_client_and_new_ones_are_served_and_cookies_grow() {
    let mut stage = Stage::prepared("INSERT INTO item VALUES ('a', 'o', 1, NULL)", &[]);
    let mut client = stage.client();
    client.connect(&[items()]);
    until_right(&mut client, &mut stage.sql);
    stage.server.signal("TERM");
    assert_eq!(client.until_closed().0, None);
    stage.server.until_ended();
    stage.sql.run("UPDATE item SET n = 2; INSERT INTO item VALUES ('b', 'o', 1, NULL)");
    let before = client.store.cookie.clone();
    stage.server.start();
    client.open(Some(&json!({"desiredQueriesPatch": []})));
    client.until_connected();
    until_right(&mut client, &mut stage.sql);
    let mut fresh = stage.client();
    fresh.connect(&[items()]);
    until_right(&mut fresh, &mut stage.sql);
    for cookie in [&client.store.cookie, &fresh.store.cookie] {
        assert!(*cookie > before, "cookies grow over restarts: {before:?}, {cookie:?}");
    }
}

#[test]
fn nothing_is_missing_after_a_kill_under_load() {
    let mut stage = Stage::new(&[]);
    for round in 0..3 {
        until_caught_up(&mut stage);
        let load = Load::start((0..3).map(|_| stage.connect()).collect());
        load.until_more(BEFORE + 50 * round);
        stage.server.kill();
        load.until_more(AFTER);
        stage.server.start();
        load.until_more(AFTER);
        load.finish();
        let mut client = stage.client();
        client.connect(&[items()]);
        until_right(&mut client, &mut stage.sql);
    }
    stop_and_compare(&mut stage);
}

#[test]
fn clients_stay_while_postgres_is_away_and_get_everything_afterwards() {
    let cluster = Cluster::start("");
    let mut stage = Stage::unstarted(&cluster, "INSERT INTO item VALUES ('a', 'o', 1, NULL)", &[]);
    stage.server.start();
    let mut clients: Vec<Client> = (0..3).map(|_| stage.client()).collect();
    for client in &mut clients {
        client.connect(&[items()]);
        client.until_got(&[items()]);
    }
    let load = Load::start(vec![stage.connect()]);
    load.until_more(20);
    load.finish();
    cluster.stop("immediate");
    let back = Instant::now() + AWAY;
    // Each sends pings as a stock client does, and fails without a pong.
    while Instant::now() < back {
        for client in &mut clients {
            let event = client.next(Duration::from_millis(50));
            assert!(!matches!(event, Some(Event::Error(_) | Event::Closed(..))), "{event:?}");
        }
    }
    clients.iter_mut().for_each(Client::round_trip);
    // Who comes meanwhile is served from the replica.
    let mut late = stage.client();
    late.connect(&[items()]);
    late.until_got(&[items()]);
    cluster.launch();
    stage.sql = stage.connect();
    stage.sql.run("INSERT INTO item VALUES ('after', 'o', 1, NULL)");
    clients.push(late);
    for client in &mut clients {
        until_right(client, &mut stage.sql);
    }
}

/// A position as Postgres prints it.
fn position(lsn: &str) -> u64 {
    let (high, low) = lsn.split_once('/').expect("a position");
    let hex = |text| u64::from_str_radix(text, 16).expect("a position");
    hex(high) << 32 | hex(low)
}

/// Position up to which the slot has been told that everything is safe; after the server
/// was killed, when nothing can change it any more.
fn confirmed(sql: &mut Sql) -> u64 {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let rows = sql.rows(
            "SELECT active, confirmed_flush_lsn FROM pg_replication_slots WHERE database = current_database()",
        );
        assert_eq!(rows.len(), 1, "one slot");
        if rows[0][0].as_deref() == Some("f") {
            return position(rows[0][1].as_deref().expect("a position"));
        }
        assert!(Instant::now() < deadline, "the slot stays in use");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Position that a copy of the replica with so much of its log is at.
fn position_with_log(replica: &Path, log: &[u8]) -> u64 {
    let directory = scratch("cut");
    let copy = directory.join("replica.db");
    std::fs::copy(replica, &copy).expect("a copy");
    std::fs::write(directory.join("replica.db-wal"), log).expect("a copy");
    let at = |sql| u64::from_str_radix(&replica_value(&copy, sql)[1..], 36).expect("a position");
    let seen = at(r#"SELECT seen FROM "_kelvin.position""#);
    let applied = at(r#"SELECT stateVersion FROM "_zero.replicationState""#);
    std::fs::remove_dir_all(&directory).expect("it was made");
    seen.max(applied)
}

/// Lengths at which the log ends with a transaction.
fn ends_of_transactions(log: &[u8]) -> Vec<usize> {
    let word = |at: usize| u32::from_be_bytes(log[at..at + 4].try_into().expect("four bytes"));
    let (header, frame) = (32, 24 + word(8) as usize);
    let of_this_round = |at: &usize| log[at + 8..at + 16] == log[16..24];
    let frames = (header..).step_by(frame).take_while(|at| at + frame <= log.len()).take_while(of_this_round);
    frames.filter(|at| word(at + 4) > 0).map(|at| at + frame).collect()
}

/// What a power cut leaves of the log behind the last byte that was synced.
#[derive(Clone, Copy, Debug)]
enum Tail {
    Nothing,
    /// The commit that follows, but for its last byte.
    Torn,
    /// The length was written, the content was not.
    Zeros,
}

#[test]
fn a_log_cut_back_by_a_power_cut_is_filled_again() {
    let mut stage = Stage::new(&[]);
    let replica = stage.server.replica();
    let log_path = replica.with_file_name("replica.db-wal");
    let lineage = r#"SELECT replicaVersion FROM "_zero.replicationConfig""#;
    let began = replica_value(&replica, lineage);
    let mut lost = 0;
    for tail in [Tail::Nothing, Tail::Torn, Tail::Zeros] {
        until_caught_up(&mut stage);
        let load = Load::start((0..3).map(|_| stage.connect()).collect());
        load.until_more(BEFORE);
        stage.server.kill();
        load.finish();
        let confirmed = confirmed(&mut stage.sql);
        let log = std::fs::read(&log_path).expect("a log");
        let ends = ends_of_transactions(&log);
        // The shortest log that still has all that Postgres was told to be safe.
        let kept = ends.partition_point(|end| position_with_log(&replica, &log[..*end]) < confirmed);
        assert!(kept < ends.len(), "Postgres was told more than was written");
        lost += ends.len() - 1 - kept;
        let mut left = log[..ends[kept]].to_vec();
        let next = ends.get(kept + 1).copied().unwrap_or(left.len());
        match tail {
            Tail::Nothing => {}
            // All of the next transaction but its last byte, if there is one.
            Tail::Torn => left.extend(&log[left.len()..(next - 1).max(left.len())]),
            Tail::Zeros => left.resize(log.len(), 0),
        }
        std::fs::write(&log_path, left).expect("the log can be cut");
        let _ = std::fs::remove_file(replica.with_file_name("replica.db-shm"));
        stage.server.start();
        let mut client = stage.client();
        client.connect(&[items()]);
        until_right(&mut client, &mut stage.sql);
        println!("{tail:?}");
        stop_and_compare(&mut stage);
        stage.server.start();
    }
    assert_eq!(replica_value(&replica, lineage), began, "the replica was filled again, not made anew");
    assert!(lost > 0, "nothing was ever lost: the cut was none");
}

#[test]
fn a_start_that_fails_says_why() {
    let directory = scratch("fails");
    let nobody = format!("postgres://postgres@127.0.0.1:{}/x", free_port());
    let taken = std::net::TcpListener::bind("[::]:0").expect("a port is free");
    let port = taken.local_addr().expect("it is bound").port().to_string();
    let missing = directory.join("nonesuch/replica.db").display().to_string();
    type Case<'a> = (&'a [(&'a str, &'a str)], i32, &'a [&'a str]);
    let cases: [Case; 7] = [
        (&[("UPSTREAM_DB", "")], 2, &["ZERO_UPSTREAM_DB"]),
        (&[("UPSTREAM_DB", "mysql://x")], 2, &["ZERO_UPSTREAM_DB"]),
        (&[("UPSTREAM_DB", &nobody), ("PORT", "many")], 2, &["ZERO_PORT", "many"]),
        (&[("UPSTREAM_DB", &nobody), ("AUTO_RESET", "maybe")], 2, &["ZERO_AUTO_RESET", "maybe"]),
        (&[("UPSTREAM_DB", &nobody), ("PORT", &port)], 255, &["in use", "ZERO_PORT", &port]),
        (&[("UPSTREAM_DB", &nobody), ("REPLICA_FILE", &missing)], 255, &["ZERO_REPLICA_FILE", &missing]),
        (
            &[("UPSTREAM_DB", &nobody), ("UPSTREAM_CONNECT_TIMEOUT_SECONDS", "1")],
            14,
            &["could not be reached", "ZERO_UPSTREAM_DB"],
        ),
    ];
    for (settings, status, words) in cases {
        let mut server = Server::new(&[]);
        server.set(&settings.iter().map(|(n, v)| (*n, (*v).to_owned())).collect::<Vec<_>>());
        server.spawn();
        assert_eq!(server.until_ended().code(), Some(status), "{settings:?}: {}", server.log());
        let log = server.log().to_lowercase();
        for word in words {
            assert!(log.contains(&word.to_lowercase()), "{settings:?} does not say {word:?}: {log}");
        }
    }
    drop(taken);
    std::fs::remove_dir_all(directory).expect("it was made");
}

#[test]
fn a_server_that_waits_for_postgres_says_so_and_then_serves() {
    let cluster = Cluster::start("");
    let mut stage = Stage::unstarted(&cluster, "INSERT INTO item VALUES ('a', 'o', 1, NULL)", &[]);
    cluster.stop("immediate");
    stage.server.spawn();
    let deadline = Instant::now() + Duration::from_secs(20);
    // The page names what is being waited for.
    loop {
        match crate::support::http::get(stage.server.port, "/") {
            Ok((503, why)) if why.contains("database") => break,
            Ok((200, _)) => panic!("it says that it is ready"),
            _ => assert!(Instant::now() < deadline && stage.server.has_ended().is_none()),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    // A client may come already; it is served as soon as that is possible.
    let mut client = stage.client();
    client.connect(&[items()]);
    client.round_trip();
    cluster.launch();
    stage.sql = stage.connect();
    until_right(&mut client, &mut stage.sql);
}
