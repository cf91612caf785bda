//! A part that nothing works without has ended, and the process goes on as if all were well; or the mistake
//! in the work of one client or one query ends more than that.

use std::time::{Duration, Instant};

use crate::support::app::{THREE, items, of, query};
use crate::support::client::{Client, Event};
use crate::support::stage::Stage;
use serde_json::{Value, json};

/// Exit status that any supervisor of processes takes for a failure.
const FAILURE: i32 = 255;

/// Longest time until a tab is told of an error. One that has not sent anything yet is told after its first ping.
const TOLD: Duration = Duration::from_secs(30);

/// Has a place of the running server panic, the next time that it is passed.
fn order(stage: &Stage, place: &str) {
    std::fs::write(stage.server.replica().with_extension("panic"), place).expect("it can be written");
    let taken = || !stage.server.replica().with_extension("panic").exists();
    let until = Instant::now() + Duration::from_secs(20);
    while !taken() {
        assert!(Instant::now() < until, "nobody took the order for {place}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A server with a client that has all items.
fn stage() -> (Stage, Client) {
    let stage = Stage::prepared(THREE, &[("LOG_LEVEL", "debug")]);
    let client = stage.tab(&[items()]);
    (stage, client)
}

/// The process ends, says why, and serves when it is started again.
fn ends_the_process(places: &[&str], provoke: impl Fn(&mut Stage, &mut Client)) {
    let (mut stage, mut client) = stage();
    for place in places {
        order(&stage, place);
        provoke(&mut stage, &mut client);
        assert_eq!(stage.server.until_ended().code(), Some(FAILURE), "{place}\n{}", stage.server.log());
        let log = stage.server.log();
        assert!(log.contains(&format!("on purpose: {place}")), "{place}: {log}");
        client.vanish();
        stage.server.start();
        client.connect(&[items()]);
        let rows: usize = stage.sql.value("SELECT count(*) FROM item").parse().expect("a number");
        client.until("all rows", |c| c.store.rows.len() == rows);
    }
}

fn write(stage: &mut Stage) {
    stage.sql.run("UPDATE item SET n = n + 1 WHERE id = 'a'");
}

#[test]
fn a_task_of_a_core_ends_and_nothing_moves_any_more() {
    ends_the_process(
        &[
            "batches",
            "the work of groups",
            "a core's clock",
            "pongs",
            "looking after connections",
            "writing records",
            "filling record logs",
            "accepting connections",
            "sockets of other cores",
            "a core's heart",
        ],
        |_, _| {},
    );
}

#[test]
fn a_task_of_replication_ends_and_rows_stay_as_they_are() {
    ends_the_process(
        &[
            "numbers of the replica",
            "what the writer says",
            "index requests",
            "what was synced",
            "keeping the log short",
            "the watch over upstream",
            "the stream",
        ],
        |_, _| {},
    );
}

#[test]
fn a_thread_ends_and_is_not_missed() {
    ends_the_process(&["watching memory", "replica-writer", "replica-sync"], |stage, _| write(stage));
    ends_the_process(&["replica-checkpoint"], |stage, _| {
        // More than the replica's log may grow to before it is looked at.
        stage.sql.run(
            "INSERT INTO item SELECT i::text, 'z', i, repeat('x', 10000) FROM generate_series(1, 9000) i",
        );
    });
}

#[test]
fn what_all_groups_share_is_left_half_done() {
    ends_the_process(&["the work of a group"], |stage, _| write(stage));
}

/// A tab that is connected, whatever became of its last connection.
fn reconnect(stage: &Stage, client: &mut Client) {
    client.vanish();
    client.connect(&[items()]);
    until_right(stage, client);
}

/// Waits until a tab holds the rows of Postgres.
fn until_right(stage: &Stage, client: &mut Client) {
    let rows = stage.connect().rows("SELECT id, n FROM item ORDER BY id");
    let expected: Vec<Value> = rows
        .iter()
        .map(|row| json!([row[0], row[1].as_ref().map(|n| n.parse::<i64>().expect("a number"))]))
        .collect();
    client.until("the rows of Postgres", |c| {
        c.store.table("item").into_iter().map(|row| json!([row["id"], row["n"]])).eq(expected.iter().cloned())
    });
}

/// Somebody else is served on, by the same process.
fn is_served(stage: &mut Stage, bystander: &mut Client, pid: u32) {
    let id: i64 =
        stage.sql.value("INSERT INTO tick SELECT count(*) FROM tick RETURNING id").parse().expect("a number");
    bystander.until("a change for the bystander", |c| c.store.row("tick", id).is_some());
    bystander.round_trip();
    assert_eq!((stage.server.has_ended(), stage.server.pid()), (None, pid));
}

#[test]
fn a_mistake_in_the_work_of_one_client_ends_another() {
    let (mut stage, mut client) = stage();
    let pid = stage.server.pid();
    let mut bystander = stage.tab(&[query("ticks", json!([]))]);

    order(&stage, "a message");
    client.change(vec![of("x").put()]);
    assert_eq!(client.until_error()["kind"], "Internal");
    is_served(&mut stage, &mut bystander, pid);
    reconnect(&stage, &mut client);

    order(&stage, "a transformation");
    client.change(vec![of("x").put()]);
    assert_eq!(client.until_error()["kind"], "Internal");
    is_served(&mut stage, &mut bystander, pid);
    reconnect(&stage, &mut client);

    order(&stage, "calling the app");
    client.change(vec![of("not asked for before").put()]);
    assert_eq!(client.until_error()["kind"], "TransformFailed");
    is_served(&mut stage, &mut bystander, pid);
    reconnect(&stage, &mut client);

    order(&stage, "a first message");
    let mut refused = client.sibling();
    refused.connect(&[items()]);
    assert_eq!(refused.until_error()["kind"], "Internal");
    is_served(&mut stage, &mut bystander, pid);

    order(&stage, "a push");
    client.mutate("put", json!({"id": "a", "n": 7}));
    assert_eq!(client.until_error()["kind"], "Rehome");
    is_served(&mut stage, &mut bystander, pid);
    reconnect(&stage, &mut client);
}

#[test]
fn a_mistake_in_the_work_of_one_query_ends_another() {
    let (mut stage, mut client) = stage();
    let pid = stage.server.pid();
    let mut bystander = stage.tab(&[query("ticks", json!([]))]);
    for (number, place) in
        ["planning a query", "a hydration", "a hydration's thread", "what a hydration has read"]
            .into_iter()
            .enumerate()
    {
        let owner = of(&format!("nobody {number}"));
        order(&stage, place);
        client.change(vec![owner.put()]);
        client.until("a refusal", |c| c.refused.iter().any(|entry| entry["id"] == owner.hash()));
        is_served(&mut stage, &mut bystander, pid);
        write(&mut stage);
        until_right(&stage, &mut client);
        // Asked for again it is answered.
        let mut other = stage.tab(&[owner]);
        other.round_trip();
    }
}

#[test]
fn a_view_whose_way_over_a_batch_ended_is_frozen() {
    let (mut stage, mut client) = stage();
    let pid = stage.server.pid();
    let mut sibling = stage.tab(&[items(), of("x")]);
    let mut bystander = stage.tab(&[query("ticks", json!([]))]);
    order(&stage, "bringing a view forward");
    write(&mut stage);
    // Both have the view of all items, one has both that are touched; which of them was lost is open.
    let is_told = |tab: &mut Client| matches!(tab.next(Duration::from_millis(20)), Some(Event::Error(_)));
    let until = Instant::now() + TOLD;
    while !is_told(&mut sibling) && !is_told(&mut client) {
        assert!(Instant::now() < until, "nobody was told");
    }
    is_served(&mut stage, &mut bystander, pid);
    reconnect(&stage, &mut client);
    sibling.vanish();
    sibling.connect(&[items(), of("x")]);
    until_right(&stage, &mut sibling);
    write(&mut stage);
    until_right(&stage, &mut client);
    until_right(&stage, &mut sibling);
}

#[test]
fn a_connection_whose_writer_has_ended_looks_served() {
    let (mut stage, mut client) = stage();
    let pid = stage.server.pid();
    let mut bystander = stage.tab(&[query("ticks", json!([]))]);
    stage
        .sql
        .run("INSERT INTO item SELECT 'm' || i, 'z', i, repeat('x', 2000) FROM generate_series(1, 9000) i");
    client.until("all rows", |c| c.store.rows.len() == 9003);
    order(&stage, "writing to a client");
    // More than the socket takes at once: the writer has to do it.
    let mut slow = stage.client();
    slow.open(Some(&slow.init_body(vec![items().put()])));
    std::thread::sleep(Duration::from_millis(300));
    slow.until_connected();
    let (code, _) = slow.until_closed();
    assert_eq!(code, Some(1006), "nothing can be said any more");
    is_served(&mut stage, &mut bystander, pid);
    reconnect(&stage, &mut slow);
}
