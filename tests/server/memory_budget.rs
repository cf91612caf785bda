//! The server is asked for more than its memory holds. It says so to those that it cannot serve,
//! and serves the others as before.

use std::io::Write;
use std::time::{Duration, Instant};

use crate::support::app::{Query, items, query};
use crate::support::client::{Client, Event, WAIT};
use crate::support::frames::{TEXT, head};
use crate::support::stage::Stage;
use serde_json::{Value, json};

/// A bystander must see a commit within this time.
const PROMPT: Duration = Duration::from_secs(3);

/// Owners, and rows of each. A row's key has 400 bytes, so an owner's rows take about half a megabyte.
const OWNERS: usize = 200;
const ROWS: usize = 1_000;

/// What is set, and what may be needed beside it: pages of SQLite, buffers, what the allocator keeps.
const BUDGET_MIB: u64 = 96;
const BESIDE_MIB: u64 = 32;

fn stage(mib: u64) -> Stage {
    let rows = format!(
        "INSERT INTO item SELECT repeat('k', 400) || i, 'o' || i % {OWNERS}, i FROM generate_series(1, {}) i",
        OWNERS * ROWS
    );
    let stage = Stage::prepared(&rows, &[("MEMORY_BUDGET_MB", &mib.to_string())]);
    // The first copy takes more for a moment.
    std::thread::sleep(Duration::from_millis(300));
    stage
}

fn of(owner: usize) -> Query {
    query("itemsOf", json!([format!("o{owner}")]))
}

/// Connects. Whether the client is served; if not, it was told to come back.
fn is_served(client: &mut Client, queries: &[Query]) -> bool {
    let init = client.init_body(queries.iter().map(Query::put).collect());
    client.open(Some(&init));
    let hashes: Vec<String> = queries.iter().map(Query::hash).collect();
    let deadline = Instant::now() + WAIT;
    while !hashes.iter().all(|hash| client.store.got.contains(hash)) {
        match client.next(Duration::from_millis(100)) {
            Some(Event::Error(error)) => {
                assert_eq!(error["kind"], "ServerOverloaded", "{error}");
                assert!(error["minBackoffMs"].as_u64().is_some_and(|ms| ms >= 5_000), "{error}");
                client.vanish();
                return false;
            }
            Some(Event::Closed(code, reason)) => panic!("closed without a reason: {code:?} {reason}"),
            _ => assert!(Instant::now() < deadline, "neither an answer nor a refusal"),
        }
    }
    true
}

/// Until it holds what it should. A group with much of its own may be sent away even while it is served: then
/// it comes back, as the stock client does.
fn until_held(client: &mut Client, queries: &[Query], holds: impl Fn(&Client) -> bool) {
    let deadline = Instant::now() + WAIT;
    while !holds(client) {
        assert!(Instant::now() < deadline, "waited in vain at {:?}", client.store.cookie);
        if !client.is_connected() {
            std::thread::sleep(Duration::from_millis(200));
            is_served(client, queries);
            continue;
        }
        match client.next(Duration::from_millis(100)) {
            Some(Event::Error(error)) => {
                assert_eq!(error["kind"], "ServerOverloaded", "{error}");
                client.vanish();
            }
            Some(Event::Closed(code, reason)) => panic!("closed without a reason: {code:?} {reason}"),
            _ => {}
        }
    }
}

/// Memory that the system cannot take back, in MiB.
fn held(stage: &Stage) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", stage.server.pid())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("RssAnon");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") >> 10
}

fn check_memory(stage: &Stage) {
    let mib = held(stage);
    assert!(mib < BUDGET_MIB + BESIDE_MIB, "{mib} MiB of {BUDGET_MIB}");
}

#[test]
fn clients_beyond_what_the_memory_holds_are_told_to_come_back() {
    let stage = stage(BUDGET_MIB);
    let bystander = stage.bystander();
    let (mut served, mut refused) = (Vec::new(), 0);
    for owner in 0..OWNERS {
        let mut client = stage.client();
        match is_served(&mut client, &[of(owner)]) {
            true => served.push(client),
            false => refused += 1,
        }
        check_memory(&stage);
    }
    assert!(served.len() > 30 && refused > 30, "{} served, {refused} refused", served.len());
    // Those that are served have their rows, and hear of changes.
    stage.connect().run("UPDATE item SET n = -1 WHERE owner = 'o3' AND n < 4000");
    let third = served.iter_mut().find(|client| client.store.got.contains(&of(3).hash()));
    let third = third.expect("the first ones are served");
    let changed = |c: &Client| c.store.table("item").iter().filter(|row| row["n"] == -1).count();
    until_held(third, &[of(3)], |c| changed(c) == 4000 / OWNERS);
    assert_eq!(third.store.table("item").len(), ROWS);
    bystander.finish(PROMPT);
    // When they have gone there is room again.
    served.iter_mut().for_each(Client::close);
    let mut late = stage.client();
    let deadline = Instant::now() + WAIT;
    while !is_served(&mut late, &[of(OWNERS - 1)]) {
        assert!(Instant::now() < deadline, "nothing was given up for clients that are gone");
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(late.store.table("item").len(), ROWS);
}

#[test]
fn groups_that_are_gone_make_room_for_others_and_come_back() {
    let stage = stage(BUDGET_MIB);
    let mut first = None;
    for owner in 0..OWNERS {
        let mut client = stage.client();
        let deadline = Instant::now() + WAIT;
        while !is_served(&mut client, &[of(owner)]) {
            assert!(Instant::now() < deadline, "nothing was given up for clients that are gone");
            std::thread::sleep(Duration::from_millis(200));
        }
        client.close();
        first.get_or_insert(client);
        check_memory(&stage);
    }
    // What was given up is sent anew; the client need not start over.
    let mut first = first.expect("there are owners");
    stage.connect().run("DELETE FROM item WHERE owner = 'o0' AND n > 100000");
    until_held(&mut first, &[of(0)], |c| c.store.table("item").len() == ROWS / 2);
}

#[test]
fn a_query_that_takes_more_than_its_part_is_refused_and_others_are_not() {
    let stage = stage(64);
    let mut greedy = stage.client();
    greedy.connect(&[of(1), items()]);
    greedy.until("a refusal", |c| !c.refused.is_empty());
    let text = greedy.refused[0].to_string();
    assert!(text.contains("16 MiB") && text.contains(&items().hash()), "{text}");
    greedy.until_got(&[of(1)]);
    assert_eq!(greedy.store.table("item").len(), ROWS);
    stage.tab(&[of(2)]);
}

#[test]
fn a_group_that_takes_more_than_its_part_is_refused_what_is_too_much() {
    const MIB: u64 = 96;
    let stage = stage(MIB);
    let bystander = stage.bystander();
    let mut greedy = stage.tab(&[of(0)]);
    // Half of the memory is some ninety of them. A few at a time: what reading many of them at once
    // takes beside them would be too much by itself.
    let answered = |c: &Client| c.store.got.len() + c.refused.len();
    for owner in 1..130 {
        greedy.change(vec![of(owner).put()]);
        greedy.until("an answer", |c| answered(c) > owner);
    }
    let (got, refused) = (greedy.store.got.len(), greedy.refused.len());
    assert!(got >= 60 && refused >= 10, "{got} served, {refused} refused");
    let text = greedy.refused[0].to_string();
    assert!(text.contains(&format!("more than {} MiB", MIB / 2)) && text.contains("close some"), "{text}");
    assert_eq!(greedy.store.table("item").len(), got * ROWS);
    assert!(greedy.is_connected(), "what it has it keeps");
    bystander.finish(PROMPT);
}

/// Asks for a query with an argument of so many bytes, which its answer repeats as a constant.
fn with_argument(which: usize, bytes: usize) -> Value {
    let argument = format!("{which} {}", "x".repeat(bytes));
    json!({"op": "put", "hash": format!("large {which}"), "name": "itemsOf", "args": [argument]})
}

#[test]
fn who_fills_the_memory_with_queries_is_sent_away_and_not_who_has_rows() {
    const MIB: u64 = 128;
    let stage = stage(MIB);
    let mine: Vec<Query> = (0..4).map(of).collect();
    let mut bystander = stage.tab(&mine);
    let mut others: Vec<Client> = (0..5).map(|_| stage.tab(&[])).collect();
    let mut told = 0;
    let deadline = Instant::now() + WAIT;
    for which in 0.. {
        if told >= 2 {
            break;
        }
        for client in others.iter_mut().filter(|client| client.is_connected()) {
            let more = with_argument(which, 1 << 20);
            client.try_send(json!(["changeDesiredQueries", {"desiredQueriesPatch": [more]}]));
            if let Some(Event::Error(error)) = client.next(Duration::from_millis(5)) {
                assert_eq!(error["kind"], "ServerOverloaded", "{error}");
                client.vanish();
                told += 1;
            }
            assert!(Instant::now() < deadline, "memory was never full: {} MiB", held(&stage));
        }
    }
    // It was never told anything, has all it had, and hears of changes.
    stage.connect().run("UPDATE item SET n = -1 WHERE owner = 'o3' AND n < 4000");
    let changed = |c: &Client| c.store.table("item").iter().filter(|row| row["n"] == -1).count();
    bystander.until("the change", |c| changed(c) == 4000 / OWNERS);
    assert_eq!(bystander.store.table("item").len(), 4 * ROWS);
    // What those had that were sent away is free in time, though they do not come back.
    others.iter_mut().for_each(Client::vanish);
    let mut late = stage.client();
    while !is_served(&mut late, &[of(OWNERS - 1)]) {
        assert!(
            Instant::now() < deadline + WAIT,
            "nothing is given up of clients that are gone: {} MiB",
            held(&stage)
        );
        std::thread::sleep(Duration::from_millis(200));
    }
    bystander.round_trip();
}

#[test]
fn queries_with_literals_of_megabytes_are_refused_one_by_one() {
    let stage = stage(BUDGET_MIB);
    let bystander = stage.bystander();
    let mut sender = stage.tab(&[of(0)]);
    for which in 0..6 {
        sender.change(vec![with_argument(which, 8 << 20), of(which + 1).put()]);
        sender.until("both answers", |c| {
            c.refused.len() > which && c.store.got.contains(&of(which + 1).hash())
        });
    }
    let text = sender.refused[0].to_string();
    assert!(
        text.contains("may have 2097152 bytes") && text.len() < 9 << 20,
        "{}",
        &text[..200.min(text.len())]
    );
    assert_eq!(sender.store.table("item").len(), 7 * ROWS);
    sender.round_trip();
    bystander.finish(PROMPT);
    check_memory(&stage);
}

#[test]
fn halves_of_large_messages_do_not_fill_the_memory() {
    const CONNECTIONS: usize = 40;
    const HALF: usize = 4 << 20;
    let stage = Stage::new(&[]);
    let bystander = stage.bystander();
    let before = held(&stage);
    let mut clients: Vec<Client> = Vec::new();
    let mut most = 0;
    for _ in 0..CONNECTIONS {
        let mut client = stage.tab(&[items()]);
        let mut bytes = head(TEXT, 2 * HALF as u64, true);
        bytes.extend([0; 4]);
        bytes.resize(bytes.len() + HALF, b' ');
        // Some are cut off while they send.
        let _ = client.raw().write_all(&bytes);
        clients.push(client);
        most = most.max(held(&stage));
    }
    assert!(most < before + 120, "{before} MiB before, {most} MiB with {CONNECTIONS} halves of 4 MiB");
    let mut told = 0;
    for client in &mut clients {
        let event = client.next(Duration::from_millis(20));
        if let Some(Event::Error(error)) = event {
            assert_eq!(error["kind"], "ServerOverloaded", "{error}");
            told += 1;
        }
    }
    assert!(told > 0, "nobody was told");
    bystander.finish(PROMPT);
}

/// Each thread keeps what others have freed of its memory: more of them tha hydrations would take the more
/// the longer the server runs.
#[test]
fn views_are_read_by_no_more_threads_than_there_is_room_for() {
    const MOST: usize = 8;
    let stage = Stage::prepared("INSERT INTO item SELECT i, 'o' || i, i FROM generate_series(1, 600) i", &[]);
    let mut client = stage.client();
    client.connect(&[]);
    for some in (0..600).collect::<Vec<usize>>().chunks(20) {
        let queries: Vec<Query> = some.iter().map(|owner| of(*owner)).collect();
        client.change(queries.iter().map(Query::put).collect());
        client.until_got(&queries);
    }
    let tasks = std::fs::read_dir(format!("/proc/{}/task", stage.server.pid())).expect("it runs");
    let names = tasks.flatten().filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
    let threads = names.filter(|name| name.starts_with("reader-")).count();
    // One that has read for long ends, and another takes its place meanwhile.
    assert!((1..=MOST + 2).contains(&threads), "{threads} threads");
}
