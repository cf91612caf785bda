//! Somebody asks for more than his share. He gets what can be given; the server's memory
//! stays bounded, and everybody else is served promptly.

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::support::app::{Answer, Query, query};
use crate::support::client::{Client, WAIT, protocol, upgrade};
use crate::support::frames::{TEXT, frame, head};
use crate::support::proxy;
use crate::support::stage::Stage;
use serde_json::json;

/// A bystander must see a commit within this time while others do their worst. Both share
/// a core or two with the database and the test itself.
const PROMPT: Duration = Duration::from_secs(3);

/// What the server may grow by because of one client that misbehaves.
const GROWTH: u64 = 64 << 20;

fn items() -> Query {
    query("items", json!([]))
}

/// Checks that the server's memory does not grow beyond what it was.
struct Bound<'s> {
    stage: &'s Stage,
    before: u64,
    most: u64,
}

impl<'s> Bound<'s> {
    fn new(stage: &'s Stage) -> Bound<'s> {
        Bound { stage, before: stage.server.memory(), most: 0 }
    }

    fn look(&mut self) {
        self.most = self.most.max(self.stage.server.memory());
    }

    fn check(&mut self, what: &str, growth: u64) {
        self.look();
        let grown = self.most.saturating_sub(self.before);
        assert!(grown < growth, "{what}: grown by {} MiB, to {} MiB", grown >> 20, self.most >> 20);
    }
}

/// Waits until the client has the same items as Postgres.
fn until_right(client: &mut Client, stage: &Stage) {
    let mut sql = stage.connect();
    let expected = sql.value("SELECT count(*) || ' ' || coalesce(sum(n), 0) FROM item");
    client.until(&format!("items {expected}"), |c| {
        let items = c.store.table("item");
        let sum: i64 = items.iter().filter_map(|r| r["n"].as_i64()).sum();
        format!("{} {sum}", items.len()) == expected
    });
}

#[test]
fn ten_thousand_queries() {
    let mut stage =
        Stage::prepared("INSERT INTO item SELECT i, 'o' || i, i FROM generate_series(1, 100) i", &[]);
    let bystander = stage.bystander();
    let many: Vec<Query> = (0..10_000).map(|i| query("itemsOf", json!([format!("o{i}")])).ttl(0)).collect();
    let puts = |queries: &[Query]| queries.iter().map(Query::put).collect();
    // In one message.
    let mut greedy = stage.client();
    greedy.connect(&[items()]);
    greedy.until_got(&[items()]);
    let mut tab = greedy.sibling();
    tab.connect(&[items()]);
    tab.until_got(&[items()]);
    greedy.change(puts(&many));
    let error = greedy.until_error();
    assert_eq!(error["kind"], "InvalidMessage");
    assert!(error["message"].as_str().is_some_and(|m| m.contains("5000")), "it names the limit: {error}");
    // Over many messages.
    let mut greedy = stage.client();
    greedy.connect(&[items()]);
    for some in many.chunks(100) {
        greedy.change(puts(some));
    }
    assert_eq!(greedy.until_error()["kind"], "InvalidMessage");
    // Fewer are served, all of them.
    let mut busy = stage.client();
    busy.connect(&[items()]);
    busy.change(puts(&many[..3_000]));
    busy.until_within(Duration::from_secs(40), "3000 queries", |c| c.store.got.len() == 3_001);
    stage.sql.run("UPDATE item SET n = -1 WHERE id = '17'");
    let changed = |c: &Client| c.store.row("item", "17").is_some_and(|r| r["n"] == -1);
    busy.until("a change", changed);
    // A tab of the greedy group has seen nothing that it should not.
    tab.until("a change", changed);
    let mut fresh = Client::in_group(&stage.server, &tab.group);
    fresh.connect(&[items()]);
    fresh.until_got(&[items()]);
    tab.until("the same cookie", |c| c.store.cookie == fresh.store.cookie);
    assert!(tab.store == fresh.store, "equal cookies mean equal contents");
    bystander.finish(PROMPT);
}

#[test]
fn messages_that_are_too_large() {
    let stage = Stage::new(&[]);
    let bystander = stage.bystander();
    let mut bound = Bound::new(&stage);
    let large = vec![b'x'; 20 << 20];
    let start = |stage: &Stage| {
        let mut client = stage.client();
        client.connect(&[]);
        client
    };
    // The client writes all of it before it reads: a reset would hide the code, and a
    // client without the code sends the message again for ever.
    let mut client = start(&stage);
    client.raw().write_all(&frame(TEXT, &large)).expect("the server takes or drops it");
    let (code, reason) = client.until_closed();
    assert_eq!(code, Some(1009), "{reason}");
    bound.check("one frame", GROWTH);
    let mut client = start(&stage);
    client.raw().write_all(&frame(0x01, &large[..6 << 20])).expect("it is within the limit");
    client.raw().write_all(&frame(0x80, &large[..6 << 20])).expect("the server takes or drops it");
    assert_eq!(client.until_closed().0, Some(1009), "in two parts");
    bound.check("two frames", GROWTH);
    // Many who announce much and send nothing.
    let mut waiting: Vec<Client> = (0..50).map(|_| start(&stage)).collect();
    for client in &mut waiting {
        client.raw().write_all(&head(TEXT, 10 << 20, true)).expect("it can be sent");
        client.raw().write_all(&[0; 4]).expect("it can be sent");
    }
    start(&stage).round_trip();
    bound.check("announcements", GROWTH);
    // The largest message that is allowed is a message.
    let mut client = start(&stage);
    let arg = "x".repeat((10 << 20) - 200);
    client.change(vec![json!({"op": "put", "hash": "h", "name": "items", "args": [arg]})]);
    // The message is taken; a query's arguments may not be so large, which is that query's affair.
    client.until("it is taken", |c| c.refused.iter().any(|entry| entry["id"] == "h"));
    bystander.finish(PROMPT);
}

/// Writes as much as the server takes until the sender is told to stop; returns when that
/// was too little to go on, or all was written.
fn flood(stream: &TcpStream, bytes: Vec<u8>, times: usize) -> std::thread::JoinHandle<bool> {
    let mut stream = stream.try_clone().expect("a handle");
    std::thread::spawn(move || (0..times).all(|_| stream.write_all(&bytes).is_ok()))
}

#[test]
fn a_flood_of_pings_that_nobody_reads_the_answers_of() {
    let stage = Stage::new(&[]);
    let bystander = stage.bystander();
    for (what, one) in [("messages", frame(TEXT, br#"["ping",{}]"#)), ("frames", frame(0x89, &[b'x'; 125]))] {
        let mut bound = Bound::new(&stage);
        let mut client = stage.client();
        client.connect(&[]);
        let times = (1 << 20) / one.len();
        let sender = flood(client.raw(), one.repeat(times), 40);
        // Much is taken at once; the rest is taken slowly, and held back by the kernel.
        let until = Instant::now() + Duration::from_secs(5);
        while !sender.is_finished() && Instant::now() < until {
            bound.look();
            std::thread::sleep(Duration::from_millis(20));
        }
        bound.check(what, GROWTH);
        let _ = client.raw().shutdown(std::net::Shutdown::Both);
        client.vanish();
        sender.join().expect("it ends");
    }
    bystander.finish(PROMPT);
}

#[test]
fn a_flood_of_messages_to_a_server_that_waits_for_the_app() {
    let stage = Stage::new(&[]);
    let bystander = stage.bystander();
    stage.app.script_query([Answer::Hang]);
    let mut client = stage.client();
    client.connect(&[items()]);
    let mut bound = Bound::new(&stage);
    let message = json!(["changeDesiredQueries", {"desiredQueriesPatch": [
        {"op": "put", "hash": "h", "name": "items", "args": ["x".repeat(5 << 20)], "ttl": 0}]}]);
    let sender = flood(client.raw(), frame(TEXT, message.to_string().as_bytes()), 30);
    // Either all has been taken, or no more is taken.
    let until = Instant::now() + Duration::from_secs(3);
    while !sender.is_finished() && Instant::now() < until {
        bound.look();
        std::thread::sleep(Duration::from_millis(20));
    }
    bound.check("messages that wait", GROWTH);
    stage.app.release();
    // The client sends pings while it waits; they must not come into the middle of a frame.
    assert!(sender.join().expect("it ends"), "all is taken in the end");
    client.until_got(&[items()]);
    client.until("the last message is handled", |c| c.refused.iter().any(|entry| entry["id"] == "h"));
    client.round_trip();
    bystander.finish(PROMPT);
}

const ROWS: &str = "INSERT INTO item SELECT i, 'o', 0, repeat('x', 500) FROM generate_series(1, 20000) i";

/// Changes of 120 000 rows, some at a time: 60 MB of pokes. Somebody sees each of them
/// before the next one is made: what is measured is not how fast the database is.
fn change_rows(stage: &Stage) {
    let mut sql = stage.connect();
    let mut witness = stage.client();
    witness.connect(&[query("item", json!(["1"])), query("item", json!(["11000"]))]);
    for round in 0..120 {
        let from = round % 2 * 10_000;
        let step = round / 2 * 1_000 % 10_000;
        sql.run(&format!(
            "UPDATE item SET n = n + 1 WHERE id::int > {from} + {step} AND id::int <= {from} + {step} + 1000;
             UPDATE item SET owner = 'r{round}' WHERE id = '1'"
        ));
        let seen = json!(format!("r{round}"));
        witness.until("the change", |c| c.store.row("item", "1").is_some_and(|r| r["owner"] == seen));
    }
}

#[test]
fn a_client_that_does_not_read() {
    let stage = Stage::prepared(ROWS, &[]);
    let mut lazy = stage.client();
    lazy.connect(&[items()]);
    lazy.until_got(&[items()]);
    // Another holds the same rows, so that what follows is the price of the lazy one alone.
    let bystander = stage.bystander();
    let mut bound = Bound::new(&stage);
    std::thread::scope(|scope| {
        let changes = scope.spawn(|| change_rows(&stage));
        while !changes.is_finished() {
            bound.look();
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    bystander.finish(PROMPT);
    bound.check("a client that does not read", GROWTH);
    // When it reads again it is brought to the present; no change is lost.
    until_right(&mut lazy, &stage);
    assert!(lazy.pokes.len() < 100, "it is sent the sum of what it missed, not every poke");
}

#[test]
fn a_client_that_is_gone_without_a_word_is_given_up() {
    let more_than_kernels_hold = ROWS.replace("500", "2000");
    let stage = Stage::prepared(&more_than_kernels_hold, &[]);
    let mut client = stage.client();
    client.open(Some(&client.init_body(vec![items().put()])));
    // 40 MB that nobody reads. A client that reads would have missed pongs by then.
    let deadline = Instant::now() + Duration::from_secs(90);
    let ended = |log: &str| log.lines().any(|l| l.contains(&client.id) && l.ends_with("connection ended"));
    while !ended(&stage.server.log()) {
        assert!(Instant::now() < deadline, "it is still connected");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_client_that_reads_slowly_and_then_catches_up() {
    let stage = Stage::prepared(ROWS, &[]);
    let mut slow = stage.client();
    slow.connect(&[items()]);
    slow.until_got(&[items()]);
    std::thread::scope(|scope| {
        let changes = scope.spawn(|| change_rows(&stage));
        while !changes.is_finished() {
            slow.next(Duration::from_millis(1));
            std::thread::sleep(Duration::from_millis(40));
        }
    });
    until_right(&mut slow, &stage);
    let mut fresh = Client::in_group(&stage.server, &slow.group);
    fresh.connect(&[items()]);
    fresh.until_got(&[items()]);
    slow.until("the same cookie", |c| c.store.cookie == fresh.store.cookie);
    assert!(slow.store == fresh.store, "equal cookies mean equal contents");
}

#[test]
fn five_hundred_connections_that_vanish() {
    let stage = Stage::prepared("INSERT INTO item SELECT i, 'o', i FROM generate_series(1, 500) i", &[]);
    let bystander = stage.bystander();
    // One round to warm up what is kept for good.
    for round in 0..2 {
        let before = stage.server.descriptors();
        let mut bound = Bound::new(&stage);
        for number in 0..500 {
            let mut client = stage.client();
            match number % 5 {
                0 => drop(TcpStream::connect(("127.0.0.1", stage.server.port))),
                1 => {
                    let header = protocol(None, None);
                    drop(upgrade(stage.server.port, &client.target(), Some(&header), &[]));
                }
                2 => client.open(Some(&client.init_body(vec![items().put()]))),
                3 => {
                    client.connect(&[items()]);
                    client.send_text(r#"["changeDesired"#.repeat(10));
                }
                _ => {
                    client.connect(&[items()]);
                    client.until_got(&[items()]);
                }
            }
        }
        let deadline = Instant::now() + WAIT;
        while stage.server.descriptors() > before + 16 {
            assert!(Instant::now() < deadline, "{before} descriptors became {}", stage.server.descriptors());
            std::thread::sleep(Duration::from_millis(20));
        }
        if round > 0 {
            bound.check("connections that vanish", GROWTH / 2);
        }
    }
    bystander.finish(PROMPT);
}

#[test]
fn pongs_during_a_long_poke() {
    let stage = Stage::prepared(
        "INSERT INTO item SELECT i, 'o', i, repeat('x', 1000) FROM generate_series(1, 10000) i",
        &[],
    );
    // 11 MB in 14 seconds. What the kernels hold comes before a pong.
    let port = proxy::slow(stage.server.port, 800 << 10);
    let mut client = stage.client().through(port);
    client.connect(&[items()]);
    let began = Instant::now();
    let mut pinged = 0;
    while !client.store.got.contains(&items().hash()) {
        assert!(began.elapsed() < Duration::from_secs(40), "{:?}", client.store.cookie);
        if client.store.is_open() && began.elapsed() > Duration::from_secs(pinged) {
            client.round_trip();
            pinged = began.elapsed().as_secs() + 1;
        }
        client.next(Duration::from_millis(10));
    }
    assert!(pinged > 3, "the poke was not long: {:?}, {:?}", began.elapsed(), client.slowest_pong);
    assert!(client.slowest_pong < Duration::from_secs(5), "a pong took {:?}", client.slowest_pong);
    assert_eq!(client.store.rows.len(), 10_000);
}

#[test]
fn an_app_that_does_not_answer() {
    let mut stage = Stage::new(&[]);
    let bystander = stage.bystander();
    // Queries. The call of one client must have arrived before the next one's is made.
    let calls = stage.app.queries().len();
    stage.app.script_query([Answer::Hang]);
    let mut waiting = stage.client();
    waiting.connect(&[items()]);
    waiting.round_trip();
    stage.app.until_queries(calls + 1);
    assert!(waiting.pokes.is_empty(), "nothing before the app has agreed");
    let mut other = stage.client();
    other.connect(&[items()]);
    other.until_got(&[items()]);
    // Mutations: those of other groups go on.
    stage.app.script_mutate([Answer::Hang]);
    let mut stuck = stage.client();
    stuck.connect(&[items()]);
    stuck.mutate("put", json!({"id": "stuck", "n": 1}));
    stage.app.until_mutation("the first push", |c| c.names() == ["put"]);
    other.mutate("put", json!({"id": "other", "n": 1}));
    other.until("its own mutation", |c| c.store.row("item", "other").is_some());
    let last = (0..50).map(|n| stuck.mutate("put", json!({"id": "stuck", "n": n}))).last();
    stuck.round_trip();
    assert_eq!(stuck.store.row("item", "stuck"), None);
    stage.app.release();
    let (id, last) = (stuck.id.clone(), last.expect("mutations"));
    stuck.until("its mutations", |c| c.store.lmids.get(&id) == Some(&last));
    waiting.until_got(&[items()]);
    stage.sql.run("DELETE FROM item");
    for client in [&mut waiting, &mut other, &mut stuck] {
        client.until("no rows", |c| c.store.rows.is_empty());
    }
    bystander.finish(PROMPT);
}

#[test]
fn more_mutations_than_the_app_takes() {
    let stage = Stage::new(&[]);
    let bystander = stage.bystander();
    stage.app.script_mutate((0..20).map(|_| Answer::Slow(Duration::from_millis(50))));
    let mut first = stage.client();
    first.connect(&[items()]);
    first.until_got(&[items()]);
    let mut tabs = vec![first];
    for _ in 0..2 {
        let mut tab = tabs[0].sibling();
        tab.connect(&[]);
        tabs.push(tab);
    }
    const EACH: u64 = 400;
    for n in 0..EACH {
        for tab in &mut tabs {
            let id = format!("{}-{}", tab.id, n % 10);
            tab.mutate("put", json!({"id": id, "owner": tab.id, "n": n}));
        }
    }
    let ids: Vec<String> = tabs.iter().map(|t| t.id.clone()).collect();
    for tab in &mut tabs {
        tab.until("all mutations", |c| ids.iter().all(|id| c.store.lmids.get(id) == Some(&EACH)));
    }
    let calls = stage.app.mutations();
    for id in &ids {
        let of_client = |c: &crate::support::app::Call| {
            let mutations = c.body["mutations"].as_array().cloned().unwrap_or_default();
            mutations.into_iter().filter(|m| m["clientID"] == json!(id)).collect::<Vec<_>>()
        };
        let seen: Vec<u64> = calls.iter().flat_map(of_client).filter_map(|m| m["id"].as_u64()).collect();
        assert_eq!(seen, (1..=EACH).collect::<Vec<_>>(), "each once and in order");
    }
    assert!(calls.len() < 3 * EACH as usize / 4, "what waits is sent together: {} calls", calls.len());
    bystander.finish(PROMPT);
}

#[test]
fn mutations_that_pile_up_do_not_fill_the_memory() {
    let stage = Stage::new(&[]);
    let bystander = stage.bystander();
    stage.app.script_mutate([Answer::Hang]);
    let mut client = stage.client();
    client.connect(&[items()]);
    client.until_got(&[items()]);
    let mut bound = Bound::new(&stage);
    let filler = "x".repeat(1 << 20);
    let mut bytes = Vec::new();
    for n in 0..80 {
        let mutation = client.mutation("put", json!({"id": "a", "n": n, "filler": filler}));
        let push = json!(["push", {"clientGroupID": client.group, "mutations": [mutation], "pushVersion": 1,
                                   "timestamp": 1, "requestID": "r"}]);
        bytes.extend(frame(TEXT, push.to_string().as_bytes()));
    }
    let sender = flood(client.raw(), bytes, 1);
    let began = Instant::now();
    while !sender.is_finished() && began.elapsed() < Duration::from_secs(3) {
        bound.look();
        std::thread::sleep(Duration::from_millis(20));
    }
    bound.check("mutations that wait", 2 * GROWTH);
    stage.app.release();
    // The client sends pings while it waits; they must not come into the middle of a frame.
    assert!(sender.join().expect("it ends"));
    let id = client.id.clone();
    client.until("all mutations", |c| c.store.lmids.get(&id) == Some(&80));
    bystander.finish(PROMPT);
}
