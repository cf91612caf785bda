//! The record log begins a new file under clients, or lies beside a replica of another time.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::support::app::{Query, items};
use crate::support::client::{Client, Event, WAIT};
use crate::support::stage::Stage;
use serde_json::json;

/// Rows, and the length of their keys in bytes: just short of what an index of Postgres takes. A
/// change of all of them is two megabytes of the log.
const ROWS: usize = 1_000;
const KEY: usize = 2_000;

/// A log begins a new file when it is twice what lives and 16 MiB: eleven changes of all rows.
/// Twice that never fails to do.
const MOST_ROUNDS: i64 = 24;

/// Keys that cannot be compressed much: the index holds them as they are.
fn rows() -> String {
    format!(
        "INSERT INTO item SELECT rpad(i || '-', {KEY}, md5(i::text) || md5((-i)::text)), 'o', 0, NULL
         FROM generate_series(1, {ROWS}) i"
    )
}

/// A few changes, and how many rows they are.
const CHANGES: &str = "UPDATE item SET n = -1 WHERE id LIKE '3-%' OR id LIKE '5-%'; \
     DELETE FROM item WHERE id LIKE '7-%'; INSERT INTO item VALUES ('new', 'o', -1, NULL)";
const CHANGED: usize = 4;

/// The files of the records.
fn files(stage: &Stage) -> Vec<PathBuf> {
    let mut directory = stage.server.replica().into_os_string();
    directory.push("-records");
    let entries = std::fs::read_dir(directory).expect("the directory of the records");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    files
}

fn tab(stage: &Stage, group: Option<&Client>) -> Client {
    let mut client = group.map_or_else(|| stage.client(), Client::sibling);
    let queries: [Query; 1] = [items()];
    client.connect(&queries);
    client.until_got(&queries);
    client
}

/// Comes back with its cookie and nothing new, and takes what it is sent until it is as Postgres
/// has it: operations on rows, and whether it had to start over.
fn come_back(client: &mut Client, stage: &Stage) -> (usize, bool) {
    client.open(Some(&json!({"desiredQueriesPatch": []})));
    client.until_connected();
    let deadline = Instant::now() + WAIT;
    let (mut operations, mut cleared) = (0, false);
    while !is_right(client, stage) {
        match client.next(Duration::from_millis(500)) {
            Some(Event::Poke(poke)) => {
                operations += poke.puts.len() + poke.dels.len();
                cleared |= poke.cleared;
            }
            Some(Event::Error(error)) => panic!("told {error}"),
            Some(_) => {}
            None => assert!(Instant::now() < deadline, "not caught up at {:?}", client.store.cookie),
        }
    }
    (operations, cleared)
}

/// Whether it has the items that Postgres has.
fn is_right(client: &Client, stage: &Stage) -> bool {
    let mut held: Vec<String> = client
        .store
        .table("item")
        .iter()
        .map(|row| format!("{}={}", row["id"].as_str().unwrap_or_default(), row["n"]))
        .collect();
    held.sort();
    let there = "SELECT coalesce(string_agg(id || '=' || n, ' ' ORDER BY (id || '=' || n) COLLATE \"C\"), '') FROM item";
    held.join(" ") == stage.connect().value(there)
}

#[test]
fn a_new_file_is_begun_under_clients_and_each_is_sent_only_what_changed() {
    let mut stage = Stage::prepared(&rows(), &[]);
    let mut here = tab(&stage, None);
    let mut away = tab(&stage, Some(&here));
    let mut other = tab(&stage, None);
    here.until("the other tab", |c| c.store.desired.contains_key(&away.id));
    let first = files(&stage);
    let mut round = 0;
    while files(&stage).iter().any(|file| first.contains(file)) {
        round += 1;
        assert!(round <= MOST_ROUNDS, "no new file after {round} rounds: {first:?}");
        if round == 3 {
            away.close();
        }
        stage.sql.run(&format!("UPDATE item SET n = {round}"));
        for client in [&mut here, &mut other] {
            client.until("the change", |c| {
                let items = c.store.table("item");
                items.len() == ROWS && items.iter().all(|row| row["n"] == round)
            });
        }
    }
    assert!(round > 4, "a file is begun anew after {round} rounds already");
    assert_eq!(files(&stage).len(), 1, "the one before is removed");
    // What the new file says besides what it was filled with.
    stage.sql.run("UPDATE item SET n = 99 WHERE id LIKE '11-%'");
    let is_told = |c: &Client| c.store.table("item").iter().any(|row| row["n"] == 99);
    here.until("a change after that", is_told);
    other.until("a change after that", is_told);
    here.round_trip();
    other.round_trip();
    stage.server.kill();
    stage.sql.run(CHANGES);
    stage.server.start();
    assert_eq!(come_back(&mut here, &stage), (CHANGED, false));
    assert_eq!(come_back(&mut other, &stage), (CHANGED, false));
    // All rows were changed while it was away.
    assert_eq!(come_back(&mut away, &stage), (ROWS + 1, false));
    here.round_trip();
    away.until("the same label", |c| c.store.cookie == here.store.cookie);
    assert!(here.store == away.store);
}

/// The replica and what SQLite has beside it.
fn replica_files(replica: &Path) -> Vec<PathBuf> {
    ["", "-wal", "-shm"]
        .iter()
        .map(|ending| PathBuf::from(format!("{}{ending}", replica.display())))
        .collect()
}

#[test]
fn a_replica_that_is_older_than_its_records_is_never_believed() {
    let mut stage = Stage::prepared(&rows(), &[]);
    let mut client = tab(&stage, None);
    let mut away = tab(&stage, Some(&client));
    client.until("the other tab", |c| c.store.desired.contains_key(&away.id));
    away.round_trip();
    away.close();
    stage.server.kill();
    let kept: Vec<(PathBuf, Vec<u8>)> = replica_files(&stage.server.replica())
        .into_iter()
        .filter_map(|path| Some((path.clone(), std::fs::read(path).ok()?)))
        .collect();
    stage.server.start();
    // Rows come, change and go that the older replica knows nothing of.
    stage.sql.run("UPDATE item SET n = 1; DELETE FROM item WHERE id LIKE '9%'; INSERT INTO item VALUES ('lost', 'o', 0, NULL)");
    come_back(&mut client, &stage);
    // The slot is acknowledged up to there.
    let end = stage.sql.value("SELECT pg_current_wal_lsn()");
    let reached = format!(
        "SELECT confirmed_flush_lsn >= '{end}' FROM pg_replication_slots WHERE database = current_database()"
    );
    let deadline = Instant::now() + WAIT;
    while stage.sql.value(&reached) != "t" {
        assert!(Instant::now() < deadline, "the slot is not acknowledged up to {end}");
        std::thread::sleep(Duration::from_millis(20));
    }
    client.round_trip();
    client.close();
    stage.server.kill();
    stage.sql.run("DELETE FROM item WHERE id = 'lost'");
    for path in replica_files(&stage.server.replica()) {
        let _ = std::fs::remove_file(path);
    }
    for (path, bytes) in kept {
        std::fs::write(path, bytes).expect("it can be put back");
    }
    stage.server.start();
    for tab in [&mut client, &mut away] {
        let what = come_back(tab, &stage);
        println!("{what:?}");
        tab.round_trip();
        assert!(is_right(tab, &stage), "it stays so");
    }
    stage.sql.run(CHANGES);
    let deadline = Instant::now() + WAIT;
    while !is_right(&client, &stage) || !is_right(&away, &stage) {
        assert!(Instant::now() < deadline, "a change is not told");
        client.settle(Duration::from_millis(50));
        away.settle(Duration::from_millis(50));
    }
}
