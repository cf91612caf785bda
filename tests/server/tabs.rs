//! A tab that was away, or that comes a second time, ends with something else than the others
//! (`docs/spec/view-syncer.md` §2.5, §5.7).

use std::io::Write;
use std::time::{Duration, Instant};

use crate::support::app::{Answer, Query, THREE, items, of, query};
use crate::support::client::{Client, WAIT, upgrade};
use crate::support::frames::{TEXT, frame};
use crate::support::http;
use crate::support::stage::Stage;
use serde_json::json;

fn second(tab: &Client, queries: &[Query]) -> Client {
    let mut second = tab.sibling();
    second.connect(queries);
    second.until_got(queries);
    second
}

/// Waits until the tabs are at the same cookie; they must hold the same then.
fn in_step(first: &mut Client, second: &mut Client) {
    let deadline = Instant::now() + WAIT;
    while first.store.cookie != second.store.cookie {
        assert!(Instant::now() < deadline, "{:?}, {:?}", first.store.cookie, second.store.cookie);
        first.round_trip();
        second.round_trip();
    }
    assert!(first.store == second.store, "{:?}\n{:?}", first.store, second.store);
}

/// How many views were evaluated from the beginning.
fn hydrations(stage: &Stage) -> u64 {
    let (_, page) = http::get(stage.server.port, "/metrics").expect("a page");
    let counts = page.lines().filter(|l| l.starts_with("kelvin_hydration_seconds_count"));
    counts.map(|l| l.rsplit(' ').next().and_then(|n| n.parse::<u64>().ok()).expect("a number")).sum()
}

#[test]
fn a_page_that_is_reloaded_finds_its_group() {
    let mut stage = Stage::prepared(THREE, &[]);
    let mut tab = stage.tab(&[items(), of("x")]);
    let before = hydrations(&stage);
    assert!(before > 0);
    tab.vanish();
    // A reload makes a new client, which holds what the old one did.
    let mut reloaded = tab.sibling();
    reloaded.connect(&[items()]);
    reloaded.until("a poke", |c| !c.pokes.is_empty());
    stage.sql.run("UPDATE item SET n = 2 WHERE id = 'a'");
    reloaded.until("a change", |c| c.store.row("item", "a").is_some_and(|r| r["n"] == 2));
    assert!(reloaded.pokes.iter().all(|p| p.got.is_empty() && !p.cleared));
    let puts: usize = reloaded.pokes.iter().map(|p| p.puts.len()).sum();
    assert_eq!((puts, hydrations(&stage)), (1, before), "nothing is read or sent again");
}

#[test]
fn queries_that_came_and_went_while_a_tab_was_away() {
    let mut stage = Stage::prepared(THREE, &[]);
    let (x, y) = (of("x").ttl(0), of("y").ttl(0));
    let mut tab = stage.tab(&[x.clone(), query("ticks", json!([]))]);
    let mut away = second(&tab, &[]);
    in_step(&mut tab, &mut away);
    away.vanish();
    let mut other = second(&tab, std::slice::from_ref(&y));
    tab.change(vec![x.del()]);
    tab.until("the end of x", |c| !c.store.got.contains(&x.hash()));
    // One that comes and goes altogether.
    tab.change(vec![items().ttl(0).put()]);
    tab.until_got(&[items()]);
    tab.change(vec![items().del()]);
    tab.until("the end of items", |c| !c.store.got.contains(&items().hash()));
    stage.sql.run("UPDATE item SET n = 3 WHERE id = 'c'");
    other.until("the change", |c| c.store.row("item", "c").is_some_and(|r| r["n"] == 3));
    away.connect(&[]);
    in_step(&mut tab, &mut away);
    assert_eq!(away.store.got.len(), 2);
    assert_eq!(away.store.rows.len(), 1);
    assert!(away.store.desired[&tab.id].len() == 1 && away.store.desired[&other.id].len() == 1);
    in_step(&mut other, &mut away);
}

#[test]
fn results_of_mutations_that_came_and_went_while_a_tab_was_away() {
    let stage = Stage::new(&[]);
    let mut tab = stage.tab(&[items()]);
    let first = tab.mutate("nonesuch", json!({"n": 1}));
    let key = (tab.id.clone(), first);
    tab.until("the result", |c| c.store.results.contains_key(&key));
    let mut away = second(&tab, &[]);
    in_step(&mut tab, &mut away);
    away.vanish();
    tab.send(json!(["ackMutationResponses", {"clientID": tab.id, "id": first}]));
    tab.until("its end", |c| c.store.results.is_empty());
    let last = tab.mutate("nonesuch", json!({"n": 2}));
    tab.until("the result", |c| !c.store.results.is_empty());
    away.connect(&[]);
    in_step(&mut tab, &mut away);
    assert_eq!(away.store.results.keys().collect::<Vec<_>>(), [&(tab.id.clone(), last)]);
    assert_eq!(away.store.lmids[&tab.id], last);
    // One that has nothing hears of what is there, not of what was.
    let mut late = Client::in_group(&stage.server, &tab.group);
    late.connect(&[]);
    in_step(&mut tab, &mut late);
    assert_eq!(late.pokes.iter().map(|p| p.results.len()).sum::<usize>(), 1);
}

#[test]
fn what_a_replaced_connection_says_means_nothing() {
    let stage = Stage::prepared(THREE, &[]);
    let mut old = stage.tab(&[items()]);
    let mut new = old.sibling();
    new.id.clone_from(&old.id);
    new.connect(&[]);
    new.until("a poke", |c| !c.pokes.is_empty());
    let late = [
        json!(["changeDesiredQueries", {"desiredQueriesPatch": [items().del(), of("x").put()]}]),
        json!(["deleteClients", {"clientIDs": ["somebody"]}]),
        json!(["updateAuth", {"auth": ""}]),
        json!(["no such message", {}]),
    ];
    for message in late {
        // The peer may have gone by then: all the better.
        let _ = old.raw().write_all(&frame(TEXT, message.to_string().as_bytes()));
    }
    assert_eq!(old.until_closed().0, None, "without an error, or the tab would stop");
    new.quiet("nothing of that counts");
    assert!(new.deleted.is_empty() && new.store.desired[&new.id].len() == 1);
    // Nor does its end.
    drop(old);
    new.change(vec![of("x").put()]);
    new.until_got(&[of("x")]);
}

#[test]
fn a_tab_that_comes_again_and_again_while_the_app_is_slow_has_one_connection() {
    let stage = Stage::prepared(THREE, &[]);
    let first = stage.tab(&[items()]);
    stage.app.script_query((0..4).map(|_| Answer::Slow(Duration::from_millis(400))));
    let mut tabs: Vec<Client> = (0..4).map(|_| first.sibling()).collect();
    let id = tabs[0].id.clone();
    for tab in &mut tabs {
        tab.id.clone_from(&id);
        tab.connect(&[of("x")]);
    }
    let mut last = tabs.pop().expect("four");
    for mut tab in tabs {
        assert_eq!(tab.until_closed().0, None);
        assert!(tab.pokes.is_empty(), "a connection that was replaced is told nothing");
    }
    last.until_got(&[of("x")]);
    assert_eq!(last.store.desired[&id].len(), 1);
}

#[test]
fn groups_with_the_same_client_id_have_nothing_in_common() {
    let stage = Stage::prepared(THREE, &[]);
    let mut one = stage.tab(&[items()]);
    let mut two = stage.client();
    two.id.clone_from(&one.id);
    two.connect(&[of("x")]);
    two.until_got(&[of("x")]);
    one.round_trip();
    two.mutate("put", json!({"id": "z", "owner": "x", "n": 1}));
    one.until("the row", |c| c.store.row("item", "z").is_some());
    two.until("its number", |c| c.store.lmids.get(&c.id) == Some(&1));
    assert!(one.store.lmids.is_empty(), "numbers are the group's");
}

#[test]
fn a_connection_that_says_nothing_is_no_tab_yet() {
    let stage = Stage::prepared(THREE, &[]);
    let mut tab = stage.tab(&[items()]);
    let mut silent = tab.sibling();
    silent.open(None);
    silent.until_connected();
    let socket = upgrade(stage.server.port, &tab.target(), Some("e30%3D"), &[]);
    drop(socket.expect("it is let in"));
    tab.until_closed();
    silent.quiet("nothing was asked for");
    tab.connect(&[]);
    tab.until("a poke", |c| !c.pokes.is_empty());
    assert!(!tab.store.desired.contains_key(&silent.id));
}
