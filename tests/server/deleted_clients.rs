//! Clients that are gone stay, or clients that are there go (`docs/spec/view-syncer.md` §2.9).

use std::time::{Duration, Instant};

use crate::support::app::{Query, THREE, items, of};
use crate::support::client::{Client, Event, WAIT};
use crate::support::stage::Stage;
use serde_json::json;

/// A further tab of the group that has these.
fn further(tab: &Client, queries: &[Query]) -> Client {
    let mut further = tab.sibling();
    further.connect(queries);
    further.until_got(queries);
    further
}

fn wants(seen_by: &Client, client: &str, query: &Query) -> bool {
    seen_by.store.desired.get(client).is_some_and(|wishes| wishes.contains(&query.hash()))
}

#[test]
fn every_tab_is_told_and_what_they_wanted_goes_after_its_time() {
    let stage = Stage::prepared(THREE, &[]);
    let mut tab = stage.tab(&[items()]);
    let x = of("x").ttl(4_000);
    let mut other = further(&tab, &[items()]);
    let mut gone = further(&tab, std::slice::from_ref(&x));
    gone.vanish();
    other.until("the wish of the one that goes", |c| wants(c, &gone.id, &x));
    tab.send(json!(["deleteClients", {"clientIDs": [gone.id, "unknown", gone.id]}]));
    let began = Instant::now();
    for tab in [&mut tab, &mut other] {
        tab.until("the acknowledgement", |c| !c.deleted.is_empty());
        // Each once, and whoever waits for the acknowledgement has heard of the wish before.
        assert_eq!(tab.deleted, [gone.id.as_str(), "unknown"]);
        assert!(!wants(tab, &gone.id, &x));
        assert!(tab.store.got.contains(&x.hash()), "its time is not over");
    }
    tab.until("the query's end", |c| !c.store.got.contains(&x.hash()));
    assert!(began.elapsed() > Duration::from_millis(3_750), "{:?}", began.elapsed());
    assert_eq!(tab.store.rows.len(), 3, "another query has them");
}

#[test]
fn who_is_not_named_active_is_deleted_but_not_acknowledged() {
    let stage = Stage::prepared(THREE, &[]);
    let (x, y) = (of("x"), of("y"));
    let first = stage.tab(std::slice::from_ref(&x));
    let second = further(&first, std::slice::from_ref(&y));
    let mut third = first.sibling();
    // Not even the one that says so has to be named.
    third.init = json!({"activeClients": [second.id]});
    third.connect(&[items()]);
    third.until_got(&[items()]);
    assert!(!wants(&third, &first.id, &x), "not named");
    assert!(wants(&third, &second.id, &y) && wants(&third, &third.id, &items()));
    third.quiet("no acknowledgement");
    assert!(third.deleted.is_empty());
    // With others that are named as deleted, all are acknowledged.
    third.vanish();
    third.init = json!({"activeClients": [third.id], "deleted": {"clientIDs": ["long-gone", "long-gone"]}});
    third.connect(&[]);
    third.until("the acknowledgement", |c| !c.deleted.is_empty());
    let mut told = third.deleted.clone();
    told.sort();
    let mut expected = vec![second.id.clone(), "long-gone".to_owned()];
    expected.sort();
    assert_eq!(told, expected);
    assert!(!wants(&third, &second.id, &y));
    // What is said in `initConnection` is no reason to call the app.
    assert!(stage.app.mutations().is_empty());
}

#[test]
fn nobody_is_deleted_by_a_connection_that_does_not_name_the_active() {
    let stage = Stage::prepared(THREE, &[]);
    let x = of("x");
    let first = stage.tab(std::slice::from_ref(&x));
    // A client whose first message did not fit into the header leaves the list out.
    let mut second = first.sibling();
    second.open(None);
    second.until_connected();
    second.send_init(&[items()]);
    second.until_got(&[items()]);
    assert!(wants(&second, &first.id, &x));
    second.send(json!(["deleteClients", {}]));
    second.send(json!(["deleteClients", {"clientGroupIDs": ["another-group"]}]));
    second.quiet("nobody is named");
    assert!(wants(&second, &first.id, &x) && second.deleted.is_empty());
}

#[test]
fn a_deleted_client_that_is_there_goes_on() {
    let stage = Stage::prepared(THREE, &[]);
    let x = of("x");
    let mut alive = stage.tab(std::slice::from_ref(&x));
    let mut second = alive.sibling();
    second.init = json!({"activeClients": [second.id]});
    second.connect(&[items()]);
    second.until_got(&[items()]);
    alive.until("the end of its wish", |c| !wants(c, &c.id, &x));
    // It notices that its wish is gone, and says it again.
    alive.change(vec![x.put()]);
    second.until("the wish of the one that was deleted", |c| wants(c, &alive.id, &x));
    // It counts again: if it is gone another time, its wishes go, too.
    let mut third = second.sibling();
    third.init = json!({"activeClients": [second.id, third.id]});
    third.connect(&[]);
    third.until("the end of its wish", |c| !wants(c, &alive.id, &x));
    alive.until("the end of its wish", |c| !wants(c, &c.id, &x));
}

#[test]
fn nobody_deletes_himself() {
    let stage = Stage::prepared(THREE, &[]);
    let mut tab = stage.tab(&[items()]);
    let mut other = further(&tab, &[of("x")]);
    tab.vanish();
    tab.init = json!({"deleted": {"clientIDs": [other.id, tab.id]}});
    tab.open(Some(&tab.init_body(Vec::new())));
    tab.until_connected();
    assert_eq!(tab.until_error()["kind"], "Internal");
    other.quiet("nothing of it has happened");
    assert!(wants(&other, &other.id, &of("x")) && other.deleted.is_empty());
    tab.init = json!({});
    tab.connect(&[]);
    tab.until("a poke", |c| !c.pokes.is_empty());
    let id = tab.id.clone();
    tab.send(json!(["deleteClients", {"clientIDs": ["somebody", id]}]));
    assert_eq!(tab.until_error()["kind"], "Internal");
    other.quiet("nothing of it has happened");
    assert!(other.deleted.is_empty());
}

#[test]
fn the_poke_comes_before_the_acknowledgement() {
    let stage = Stage::prepared(THREE, &[]);
    let mut tab = stage.tab(&[items()]);
    let gone = further(&tab, &[of("x")]);
    tab.until("the other's query", |c| c.store.got.contains(&of("x").hash()));
    tab.send(json!(["deleteClients", {"clientIDs": [gone.id]}]));
    let first = tab.until_event("what comes first", |event| match event {
        Event::Pong => None,
        other => Some(other),
    });
    let Event::Poke(poke) = first else { panic!("{first:?}") };
    assert_eq!(poke.desired, [(gone.id.clone(), "del".into(), of("x").hash())]);
    assert!(matches!(tab.next(WAIT), Some(Event::DeleteClients(ids)) if ids == [gone.id.clone()]));
}
