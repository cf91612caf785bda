//! Tabs of a group hold different things, get too much, too little, or in the wrong order.

use std::time::{Duration, Instant};

use crate::support::app::{Answer, Query, query};
use crate::support::client::{Client, Event, WAIT};
use crate::support::lateness::Lateness;
use crate::support::stage::Stage;
use crate::support::store::Poke;
use serde_json::json;

/// Time in which a poke that must not come would have come.
const QUIET: Duration = Duration::from_millis(300);

const THREE: &str = "INSERT INTO item VALUES ('a', 'x', 1, NULL), ('b', 'x', 1, NULL), ('c', 'y', 1, NULL)";

fn items() -> Query {
    query("items", json!([]))
}

fn of(owner: &str) -> Query {
    query("itemsOf", json!([owner]))
}

/// A tab that has the given queries.
fn with(stage: &Stage, queries: &[Query]) -> Client {
    let mut client = stage.client();
    client.connect(queries);
    client.until_got(queries);
    client
}

/// Keys of the rows of a poke, sorted.
fn keys(rows: &[(String, String)]) -> Vec<&str> {
    let mut keys: Vec<&str> = rows.iter().map(|(_, key)| key.as_str()).collect();
    keys.sort_unstable();
    keys
}

/// Checks that nothing comes.
fn quiet(client: &mut Client, what: &str) {
    client.round_trip();
    let before = client.pokes.len();
    client.settle(QUIET);
    assert_eq!(client.pokes.len(), before, "{what}: {:?}", client.pokes.last());
}

fn in_step(tabs: &mut [&mut Client]) {
    let deadline = Instant::now() + WAIT;
    loop {
        tabs.iter_mut().for_each(|t| t.round_trip());
        if tabs.iter().all(|t| t.store.cookie == tabs[0].store.cookie) {
            break;
        }
        let cookies: Vec<_> = tabs.iter().map(|t| t.store.cookie.clone()).collect();
        assert!(Instant::now() < deadline, "the tabs stay at {cookies:?}");
    }
    for tab in &tabs[1..] {
        assert!(
            tab.store == tabs[0].store,
            "equal cookies mean equal contents: {:?} {:?}",
            tab.store,
            tabs[0].store
        );
    }
}

#[test]
fn the_first_pokes_of_a_group() {
    let stage = Stage::prepared(THREE, &[]);
    let mut in_header = with(&stage, &[items()]);
    let mut by_message = stage.client();
    by_message.open(None);
    by_message.until_connected();
    // Nothing before it, however long it takes; what is sent before it means nothing.
    by_message.change(vec![items().put()]);
    by_message.send(json!(["deleteClients", {"clientIDs": [by_message.id]}]));
    by_message.send(json!(["ackMutationResponses", {"id": 1, "clientID": "c"}]));
    quiet(&mut by_message, "before initConnection");
    by_message.send_init(&[items()]);
    by_message.until_got(&[items()]);
    for client in [&mut in_header, &mut by_message] {
        let [config, data] = client.pokes.as_slice() else { panic!("{:?}", client.pokes) };
        let put = ("put".to_owned(), items().hash());
        assert_eq!(config.base, None);
        assert_eq!(config.desired, [(client.id.clone(), put.0.clone(), put.1.clone())]);
        assert!(config.puts.is_empty() && config.got.is_empty());
        assert_eq!(data.base.as_ref(), Some(&config.cookie), "no gap");
        assert_eq!(data.got, [put]);
        assert_eq!(keys(&data.puts), [r#"["a"]"#, r#"["b"]"#, r#"["c"]"#]);
        assert_eq!(
            client.store.row("item", "a"),
            Some(&json!({"id": "a", "owner": "x", "n": 1, "payload": null}))
        );
    }
    // Without queries: pokes all the same, and nothing in them.
    let mut idle = stage.client();
    idle.connect(&[]);
    idle.until("a poke", |c| c.store.cookie.is_some());
    assert!(idle.pokes.iter().all(Poke::is_empty));
    // Once is enough.
    by_message.send_init(&[]);
    assert_eq!(by_message.until_error()["kind"], "Internal");
}

#[test]
fn rows_follow_upstream() {
    let mut stage = Stage::prepared(THREE, &[]);
    let mut tab = with(&stage, &[of("x"), query("top", json!([2])), query("pairs", json!([]))]);
    let step = |stage: &mut Stage, tab: &mut Client, sql: &str| -> Poke {
        let before = tab.pokes.len();
        stage.sql.run(sql);
        tab.until(sql, |c| c.pokes.len() > before);
        tab.pokes[before].clone()
    };
    let poke = step(&mut stage, &mut tab, "UPDATE item SET n = 5 WHERE id = 'b'");
    assert_eq!((keys(&poke.puts), keys(&poke.dels)), (vec![r#"["b"]"#], vec![]));
    // Leaves one query, stays in the other: no deletion.
    let poke = step(&mut stage, &mut tab, "UPDATE item SET owner = 'y' WHERE id = 'b'");
    assert_eq!((keys(&poke.puts), keys(&poke.dels)), (vec![r#"["b"]"#], vec![]));
    // A change of the key is a deletion and a row.
    let poke = step(&mut stage, &mut tab, "UPDATE item SET id = 'aa' WHERE id = 'a'");
    assert_eq!((keys(&poke.puts), keys(&poke.dels)), (vec![r#"["aa"]"#], vec![r#"["a"]"#]));
    let poke = step(&mut stage, &mut tab, "INSERT INTO pair VALUES ('p', 1, 'c')");
    assert_eq!(keys(&poke.puts), [r#"["p",1]"#]);
    // Two changes of one transaction come together; what cancels out does not come.
    let poke = step(
        &mut stage,
        &mut tab,
        "BEGIN; INSERT INTO item VALUES ('t', 'x', 0, NULL); DELETE FROM item WHERE id = 't';
         UPDATE pair SET c = 'd'; DELETE FROM item WHERE id = 'aa'; COMMIT",
    );
    assert_eq!((keys(&poke.puts).contains(&r#"["t"]"#), keys(&poke.dels)), (false, vec![r#"["aa"]"#]));
    assert!(keys(&poke.puts).contains(&r#"["p",1]"#));
    quiet(&mut tab, "nothing more");
    stage.sql.run("INSERT INTO hidden VALUES ('h'); INSERT INTO tick VALUES (1)");
    quiet(&mut tab, "a change that no query sees");
    let poke = step(&mut stage, &mut tab, "TRUNCATE item, pair");
    assert_eq!((poke.puts.len(), poke.dels.len()), (0, 3));
    assert!(tab.store.rows.is_empty());
}

#[test]
fn a_reconnect_brings_what_changed() {
    let mut stage = Stage::prepared(THREE, &[]);
    let mut tab = with(&stage, &[items()]);
    // Nothing has changed: one poke, empty, or the client would trust nothing that it has.
    let cookie = tab.store.cookie.clone();
    tab.vanish();
    tab.connect(&[]);
    tab.until("a first poke", |c| !c.pokes.is_empty());
    quiet(&mut tab, "a second poke");
    assert!(tab.pokes[0].is_empty());
    assert_eq!((tab.pokes[0].base.clone(), tab.store.cookie.clone()), (cookie.clone(), cookie));
    // Something has.
    tab.vanish();
    stage.sql.run("UPDATE item SET n = 2 WHERE id = 'a'; DELETE FROM item WHERE id = 'b'");
    stage.sql.run("INSERT INTO item VALUES ('d', 'x', 1, NULL); INSERT INTO item VALUES ('e', 'x', 1, NULL)");
    stage.sql.run("DELETE FROM item WHERE id = 'e'");
    tab.connect(&[]);
    // Row e may be seen between its two commits.
    let right = |c: &Client| {
        c.store.row("item", "d").is_some()
            && c.store.row("item", "a").is_some_and(|r| r["n"] == 2)
            && c.store.rows.len() == 3
    };
    tab.until("what changed", right);
    assert!(!tab.pokes.iter().any(|p| keys(&p.puts).contains(&r#"["c"]"#)), "c has not changed");
    assert!(tab.pokes.iter().all(|p| p.got.is_empty() && !p.cleared));
    assert_eq!(tab.store.rows.len(), 3);
    // In the middle of being connected, again and again.
    for n in 0..20 {
        tab.vanish();
        stage.sql.run(&format!("UPDATE item SET n = {n} + 100 WHERE id = 'a'"));
        tab.connect(&[]);
        if n % 3 > 0 {
            tab.until("a poke", |c| !c.pokes.is_empty());
        }
    }
    tab.until("the last change", |c| c.store.row("item", "a").is_some_and(|r| r["n"] == 119));
    in_step(&mut [&mut tab]);
}

#[test]
fn tabs_of_a_group_hold_the_same() {
    let mut stage = Stage::prepared(THREE, &[("NUM_SYNC_WORKERS", "2")]);
    let mut first = with(&stage, &[items()]);
    let before = first.pokes.len();
    // A tab that holds nothing gets everything, the first one only hears of it.
    let mut second = Client::in_group(&stage.server, &first.group);
    second.connect(&[items(), of("x")]);
    second.until_got(&[items(), of("x")]);
    first.until("the other's queries", |c| c.store.got.contains(&of("x").hash()));
    let heard = &first.pokes[before..];
    assert!(heard.iter().all(|p| p.puts.is_empty() && p.dels.is_empty()), "{heard:?}");
    assert_eq!(first.store.desired[&second.id].len(), 2);
    in_step(&mut [&mut first, &mut second]);
    let mut old = first.sibling();
    stage.sql.run("UPDATE item SET n = 7 WHERE id = 'c'; DELETE FROM item WHERE id = 'a'");
    first.until("the deletion", |c| c.store.row("item", "a").is_none());
    // A tab with an older cookie gets what changed since.
    let before = first.pokes.len();
    old.connect(&[]);
    old.until("the deletion", |c| c.store.row("item", "a").is_none());
    let puts: Vec<&str> = old.pokes.iter().flat_map(|p| keys(&p.puts)).collect();
    assert_eq!(puts, [r#"["c"]"#]);
    in_step(&mut [&mut first, &mut second, &mut old]);
    assert!(first.pokes[before..].iter().all(|p| p.puts.is_empty()), "others get no rows because of it");
    // All of them at once, while upstream changes.
    for n in 0..30 {
        stage
            .sql
            .run(&format!("UPDATE item SET n = n + 1; INSERT INTO item VALUES ('n{n}', 'x', {n}, NULL)"));
        let tab = [&mut first, &mut second, &mut old].into_iter().nth(n % 3).expect("three tabs");
        match n % 4 {
            0 => {
                tab.vanish();
                tab.connect(&[]);
            }
            1 => tab.change(vec![of(&format!("o{}", n % 2)).ttl(0).put()]),
            2 => tab.change(vec![of(&format!("o{}", n % 2)).del()]),
            _ => tab.round_trip(),
        }
    }
    // What was committed last may still be on its way.
    first.until("all rows", |c| c.store.table("item").len() == 32);
    in_step(&mut [&mut first, &mut second, &mut old]);
    assert_eq!(first.store.table("item").len(), 32);
}

#[test]
fn a_client_that_connects_again_replaces_itself() {
    let mut stage = Stage::prepared(THREE, &[]);
    let mut tab = with(&stage, &[items()]);
    let again = |tab: &Client| {
        let mut again = tab.sibling();
        again.id.clone_from(&tab.id);
        again
    };
    let mut newer = again(&tab);
    newer.connect(&[]);
    assert_eq!(tab.until_closed().0, None, "without an error, or the tab would stop");
    stage.sql.run("UPDATE item SET n = 2");
    newer.until("a change", |c| c.store.row("item", "c").is_some_and(|r| r["n"] == 2));
    // Before it has said anything, and while the app is asked.
    let mut silent = again(&newer);
    newer.vanish();
    silent.open(None);
    silent.until_connected();
    let mut asked = again(&silent);
    let calls = stage.app.queries().len();
    stage.app.script_query([Answer::Hang]);
    asked.connect(&[]);
    assert_eq!(silent.until_closed().0, None, "one that had not said anything");
    asked.round_trip();
    stage.app.until_queries(calls + 1);
    let mut last = again(&asked);
    last.connect(&[of("x")]);
    assert_eq!(asked.until_closed().0, None, "one that the app was asked about");
    last.until_got(&[of("x")]);
    stage.app.release();
    stage.sql.run("UPDATE item SET n = 3");
    last.until("a change", |c| c.store.row("item", "c").is_some_and(|r| r["n"] == 3));
    // Somebody who is refused pushes nobody out.
    let mut intruder = again(&last);
    intruder.user = Some("mallory".into());
    intruder.open(Some(&json!({"desiredQueriesPatch": []})));
    let error = intruder.until_error();
    assert_eq!(error["kind"], "Unauthorized");
    last.round_trip();
}

#[test]
fn clients_that_are_deleted() {
    let stage = Stage::prepared(THREE, &[]);
    let mut tab = with(&stage, &[items()]);
    let mut other = tab.sibling();
    other.connect(&[of("x").ttl(0)]);
    other.until_got(&[of("x")]);
    in_step(&mut [&mut tab, &mut other]);
    let gone = other.id.clone();
    other.vanish();
    // An id that nobody knows is acknowledged too, or it would be sent for ever.
    tab.send(json!(["deleteClients", {"clientIDs": [gone, "unknown"]}]));
    tab.until("its end", |c| {
        c.deleted == [gone.clone(), "unknown".into()] && !c.store.got.contains(&of("x").hash())
    });
    assert!(tab.store.desired[&gone].is_empty());
    let calls = stage.app.until_mutation("the cleanup", |c| c.names() == ["_zero_cleanupResults"]);
    let arg = &calls.last().expect("a call").body["mutations"][0]["args"][0];
    assert_eq!(arg["type"], "bulk");
    assert_eq!(arg["clientIDs"], json!([gone, "unknown"]));
    assert_eq!(arg["clientGroupID"], json!(tab.group));
    tab.send(json!(["deleteClients", {"clientIDs": []}]));
    quiet(&mut tab, "nobody is deleted");
    // It comes back with its old cookie: registered again, wanting nothing.
    other.connect(&[]);
    in_step(&mut [&mut tab, &mut other]);
    assert!(!other.store.got.contains(&of("x").hash()));
    // By way of `activeClients`: no acknowledgement.
    other.change(vec![of("y").put()]);
    tab.until_got(&[of("y")]);
    tab.vanish();
    tab.init = json!({"activeClients": [tab.id]});
    tab.connect(&[]);
    tab.until("the other's end", |c| c.store.desired[&gone].is_empty());
    quiet(&mut tab, "an acknowledgement");
    assert!(tab.deleted.is_empty());
    // By way of `initConnection.deleted`: acknowledged.
    tab.vanish();
    tab.init = json!({"deleted": {"clientIDs": ["long-gone"]}});
    tab.connect(&[]);
    tab.until("the acknowledgement", |c| c.deleted == ["long-gone"]);
    // Nobody deletes himself.
    let id = tab.id.clone();
    tab.send(json!(["deleteClients", {"clientIDs": [id]}]));
    assert_eq!(tab.until_error()["kind"], "Internal");
}

#[test]
fn queries_live_as_long_as_they_are_wanted() {
    let stage = Stage::prepared(THREE, &[]);
    let mut tab = with(&stage, &[of("x").ttl(0), of("y").ttl(1_500)]);
    let got = |hash: &Query| (String::from("del"), hash.hash());
    // No time to live: two pokes, one after the other.
    let before = tab.pokes.len();
    tab.change(vec![of("x").del()]);
    tab.until("its end", |c| !c.store.got.contains(&of("x").hash()));
    let [config, data] = &tab.pokes[before..] else { panic!("{:?}", &tab.pokes[before..]) };
    assert_eq!(config.desired, [(tab.id.clone(), "del".into(), of("x").hash())]);
    assert!(config.dels.is_empty());
    assert_eq!((data.got.clone(), keys(&data.dels)), (vec![got(&of("x"))], vec![r#"["a"]"#, r#"["b"]"#]));
    // A short one. Wanted again in time: nothing but the wish changes.
    let before = tab.pokes.len();
    tab.change(vec![of("y").del()]);
    tab.change(vec![of("y").ttl(1_500).put()]);
    tab.change(vec![of("y").del(), of("y").ttl(1_500).put()]);
    tab.settle(Duration::from_millis(2_500));
    assert!(tab.pokes[before..].iter().all(|p| p.got.is_empty() && p.dels.is_empty() && p.puts.is_empty()));
    assert!(tab.store.desired[&tab.id].contains(&of("y").hash()));
    // Not in time.
    let began = Instant::now();
    tab.change(vec![of("y").del()]);
    tab.until("its end", |c| !c.store.got.contains(&of("y").hash()));
    assert!(began.elapsed() > Duration::from_millis(1_400), "{:?}", began.elapsed());
    assert!(tab.store.rows.is_empty());
    // The same wish again is none; a longer one is.
    tab.change(vec![of("x").ttl(1_000).put()]);
    tab.until_got(&[of("x")]);
    tab.change(vec![of("x").ttl(1_000).put(), of("x").ttl(10).put()]);
    quiet(&mut tab, "the same wish");
    let before = tab.pokes.len();
    tab.change(vec![of("x").ttl(-1).put()]);
    tab.until("a longer wish", |c| c.pokes.len() > before);
    // Wanted by two: it stays until neither wants it.
    let mut other = tab.sibling();
    other.connect(&[of("x").ttl(0)]);
    other.until("a poke", |c| !c.pokes.is_empty());
    tab.change(vec![json!({"op": "clear"})]);
    tab.until("the end of its wishes", |c| c.store.desired[&c.id].is_empty());
    quiet(&mut tab, "the other wants it");
    other.change(vec![of("x").del()]);
    tab.until("its end", |c| c.store.got.is_empty() && c.store.rows.is_empty());
    in_step(&mut [&mut tab, &mut other]);
}

#[test]
fn a_close_is_answered_by_a_close() {
    let stage = Stage::prepared(THREE, &[]);
    let mut tab = with(&stage, &[items()]);
    tab.close();
    let mut silent = stage.client();
    silent.open(None);
    silent.until_connected();
    silent.close();
    for client in [tab, silent] {
        stage.server.until_log(&client.id, "connection ended");
    }
}

#[test]
fn a_silent_socket_is_kept_awake() {
    let stage = Stage::new(&[]);
    let mut silent = stage.client();
    silent.open(None);
    silent.until_connected();
    let (began, lateness) = (Instant::now(), Lateness::measured());
    // Unasked: the server cannot know that nobody waits for a pong. The bare socket, because
    // the client would ask.
    let event = match silent.next_without_pings(Duration::from_secs(30)) {
        Some(Event::Pong) => began.elapsed(),
        other => panic!("{other:?}"),
    };
    let latest = lateness.allow(Duration::from_secs(10));
    assert!(event > Duration::from_secs(5) && event < latest, "{event:?}");
}
