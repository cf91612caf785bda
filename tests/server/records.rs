//! The server comes back and clients start over, are sent everything, or what is wrong.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::support::app::{Answer, Query, query};
use crate::support::client::{Client, Event};
use crate::support::stage::Stage;
use serde_json::{Value, json};

const ROWS: usize = 2_000;

fn items() -> Query {
    query("items", json!([]))
}

fn rows() -> String {
    format!("INSERT INTO item SELECT 'i' || i, 'o', i, repeat('x', 100) FROM generate_series(1, {ROWS}) i")
}

/// A few changes, and how many rows they are.
const CHANGES: &str = "UPDATE item SET n = 0 WHERE id IN ('i3', 'i5'); DELETE FROM item WHERE id = 'i7'; \
     INSERT INTO item VALUES ('new', 'o', 1, NULL)";
const CHANGED: usize = 4;

fn is_right(client: &Client, n: &Value) -> bool {
    let store = &client.store;
    store.rows.len() == ROWS
        && store.row("item", "i3").is_some_and(|row| row["n"] == *n)
        && store.row("item", "i7").is_none()
        && store.row("item", "new").is_some()
}

/// Comes back as a page that was reloaded: with its cookie, and nothing new.
fn return_to(client: &mut Client) {
    client.open(Some(&json!({"desiredQueriesPatch": []})));
    client.until_connected();
}

/// Everything that the client is sent until it has what it should, as operations on rows.
fn caught_up(client: &mut Client, is_done: impl Fn(&Client) -> bool) -> (usize, bool) {
    let (mut operations, mut cleared) = (0, false);
    while !is_done(client) {
        match client.next(Duration::from_secs(20)) {
            Some(Event::Poke(poke)) => {
                operations += poke.puts.len() + poke.dels.len();
                cleared |= poke.cleared;
            }
            Some(Event::Error(error)) => panic!("told {error}"),
            Some(_) => {}
            None => panic!("not caught up; the server said\n{:?}", client.store.cookie),
        }
    }
    (operations, cleared)
}

/// A group that has its rows, and a mutation behind it.
fn settled(settings: &[(&str, &str)]) -> (Stage, Client) {
    let stage = Stage::prepared(&rows(), settings);
    let mut client = stage.client();
    client.connect(&[items()]);
    client.until_got(&[items()]);
    client.mutate("put", json!({"id": "i9", "n": -1}));
    client.until("its mutation", |c| c.store.lmids.get(&c.id) == Some(&1));
    client.round_trip();
    (stage, client)
}

#[test]
fn after_a_kill_a_client_is_sent_only_what_changed() {
    let (mut stage, mut client) = settled(&[]);
    stage.server.kill();
    stage.sql.run(CHANGES);
    stage.server.start();
    return_to(&mut client);
    let (operations, cleared) = caught_up(&mut client, |c| is_right(c, &json!(0)));
    assert_eq!((operations, cleared), (CHANGED, false));
    assert_eq!(client.store.lmids.get(&client.id), Some(&1));
    assert!(client.store.got.contains(&items().hash()));
    // It goes on as if nothing had been.
    stage.sql.run("UPDATE item SET n = 1 WHERE id = 'i3'");
    assert_eq!(caught_up(&mut client, |c| is_right(c, &json!(1))), (1, false));
}

#[test]
fn a_process_that_nobody_came_back_to_passes_on_what_was_known() {
    for milliseconds in [0, 50, 500] {
        let (mut stage, mut client) = settled(&[]);
        stage.server.kill();
        stage.sql.run(CHANGES);
        stage.server.start();
        std::thread::sleep(Duration::from_millis(milliseconds));
        stage.server.kill();
        stage.server.start();
        return_to(&mut client);
        let (operations, cleared) = caught_up(&mut client, |c| is_right(c, &json!(0)));
        assert_eq!((operations, cleared), (CHANGED, false), "killed after {milliseconds} ms");
    }
}

#[test]
fn a_stop_in_good_order_and_another_number_of_cores_cost_no_more() {
    let (mut stage, mut client) = settled(&[("NUM_SYNC_WORKERS", "1")]);
    for (n, cores) in [(10, "3"), (20, "2")] {
        stage.server.signal("TERM");
        client.until_closed();
        stage.server.until_ended();
        stage.sql.run(&format!("UPDATE item SET n = {n} WHERE id = 'i3'"));
        stage.server.set(&[("NUM_SYNC_WORKERS", cores.into())]);
        stage.server.start();
        return_to(&mut client);
        let is_done = |c: &Client| c.store.row("item", "i3").is_some_and(|row| row["n"] == n);
        assert_eq!(caught_up(&mut client, is_done), (1, false), "with {cores} cores");
    }
}

#[test]
fn tabs_that_were_away_before_the_kill_miss_nothing_of_either_time() {
    let (mut stage, mut away) = settled(&[]);
    let mut other = away.sibling();
    other.connect(&[items()]);
    other.until_got(&[items()]);
    away.until("the other tab", |c| c.store.desired.contains_key(&other.id));
    away.close();
    stage.sql.run("UPDATE item SET n = 77 WHERE id = 'i20'; DELETE FROM item WHERE id = 'i21'");
    other.until("the change", |c| c.store.row("item", "i21").is_none());
    stage.server.kill();
    stage.sql.run(CHANGES);
    stage.server.start();
    return_to(&mut away);
    let is_done = |c: &Client| {
        let row = |id: &str| c.store.row("item", id).cloned();
        row("i20").is_some_and(|row| row["n"] == 77) && row("i21").is_none() && row("new").is_some()
    };
    assert_eq!(caught_up(&mut away, is_done), (CHANGED + 2, false));
    return_to(&mut other);
    let is_done = |c: &Client| c.store.row("item", "new").is_some();
    assert_eq!(caught_up(&mut other, is_done), (CHANGED, false));
    away.round_trip();
    other.until("the same label", |c| c.store.cookie == away.store.cookie);
    assert!(away.store == other.store);
}

#[test]
fn a_query_that_means_something_else_after_the_restart_leaves_no_rows_behind() {
    let mut stage = Stage::prepared(&rows(), &[]);
    stage.sql.run("UPDATE item SET owner = 'p' WHERE n > 100");
    let mine = query("itemsOf", json!(["o"]));
    let mut client = stage.client();
    client.connect(std::slice::from_ref(&mine));
    client.until_got(std::slice::from_ref(&mine));
    client.round_trip();
    stage.server.kill();
    let other = query("itemsOf", json!(["p"]));
    let ast = json!({"table": "item", "orderBy": [["id", "asc"]],
        "where": {"type": "simple", "op": "=", "left": {"type": "column", "name": "owner"},
                  "right": {"type": "literal", "value": "p"}}});
    let answer = json!(["transformed", [{"id": mine.hash(), "name": other.name, "ast": ast}]]);
    stage.app.script_query((0..5).map(|_| Answer::Text(answer.to_string())));
    stage.server.start();
    return_to(&mut client);
    let is_done = |c: &Client| c.store.rows.len() == ROWS - 100;
    let (_, cleared) = caught_up(&mut client, is_done);
    assert!(!cleared);
    assert!(client.store.table("item").iter().all(|row| row["owner"] == "p"));
}

/// The files of the records.
fn files(stage: &Stage) -> Vec<PathBuf> {
    let mut directory = stage.server.replica().into_os_string();
    directory.push("-records");
    let entries = std::fs::read_dir(directory).expect("the directory of the records");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    files
}

#[test]
fn a_log_that_is_torn_or_damaged_or_gone_costs_rows_but_never_rightness() {
    for damage in ["torn", "flipped", "half"] {
        let (mut stage, mut client) = settled(&[]);
        stage.server.kill();
        stage.sql.run(CHANGES);
        let file = files(&stage).pop().expect("a file");
        let mut bytes = std::fs::read(&file).expect("its bytes");
        match damage {
            "torn" => bytes.truncate(bytes.len() - 7),
            "half" => bytes.truncate(bytes.len() / 2),
            _ => {
                let middle = bytes.len() - 100;
                bytes[middle] ^= 4;
            }
        }
        std::fs::write(&file, bytes).expect("other bytes");
        stage.server.start();
        return_to(&mut client);
        let (_, cleared) = caught_up(&mut client, |c| is_right(c, &json!(0)));
        // Its view is not known any more, so nothing that it holds can be believed.
        assert!(cleared || damage != "half");
    }
}

#[test]
fn files_that_are_not_needed_any_more_are_removed() {
    let (mut stage, mut client) = settled(&[("NUM_SYNC_WORKERS", "2")]);
    for n in 1..=3 {
        stage.server.kill();
        stage.server.start();
        return_to(&mut client);
        stage.sql.run(&format!("UPDATE item SET n = {n} WHERE id = 'i3'"));
        let is_done = |c: &Client| c.store.row("item", "i3").is_some_and(|row| row["n"] == n);
        assert!(!caught_up(&mut client, is_done).1);
        let deadline = Instant::now() + Duration::from_secs(40);
        while files(&stage).len() > 2 {
            assert!(Instant::now() < deadline, "left behind: {:?}", files(&stage));
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

#[test]
fn without_records_a_client_is_told_to_start_anew() {
    let (mut stage, mut client) = settled(&[("CVR_LOG", "off")]);
    stage.server.kill();
    stage.server.start();
    return_to(&mut client);
    assert_eq!(client.until_error()["kind"], "ClientNotFound");
}

#[test]
fn what_was_known_before_a_disk_was_full_is_known_when_it_is_not() {
    let (mut stage, mut client) = settled(&[]);
    let first = files(&stage).pop().expect("a file");
    let directory = first.parent().expect("its directory").to_owned();
    stage.server.kill();
    // The files that the next process begins are where nothing can be written.
    let epoch: u64 =
        first.file_name().and_then(|n| n.to_str()).expect("a name")[..20].parse().expect("an epoch");
    let trap = directory.join(format!("{:020}-0000-00000001.records", epoch + 1));
    std::os::unix::fs::symlink("/dev/full", &trap).expect("a link");
    stage.server.start();
    stage.server.until_log("records", "cannot be written");
    client.open(Some(&json!({"desiredQueriesPatch": []})));
    // It may be let in again at once: the next file is as good as any.
    stage.server.until_log("the disk takes records again", "served");
    let _ = client.settle(Duration::from_millis(100));
    if !client.is_connected() {
        return_to(&mut client);
    }
    stage.sql.run("UPDATE item SET n = 5 WHERE id = 'i3'");
    let is_done = |c: &Client| c.store.row("item", "i3").is_some_and(|row| row["n"] == 5);
    assert!(!caught_up(&mut client, is_done).1, "what was known before is known still");
}

#[test]
fn whose_browser_profile_a_group_is_survives_a_restart() {
    let (mut stage, _client) = settled(&[]);
    let is_named = |stage: &Stage, name: &PathBuf| {
        let bytes = std::fs::read(name).unwrap_or_default();
        files(stage).contains(name) && memchr::memmem::find(&bytes, br#""profile":"p1""#).is_some()
    };
    let first = files(&stage).pop().expect("a file");
    assert!(is_named(&stage, &first));
    stage.server.kill();
    stage.server.start();
    let deadline = Instant::now() + Duration::from_secs(40);
    // Nobody has come back: what the new process writes down it has read.
    while !files(&stage).iter().any(|file| *file != first && is_named(&stage, file)) {
        assert!(Instant::now() < deadline, "{:?} name no profile", files(&stage));
        std::thread::sleep(Duration::from_millis(20));
    }
}
