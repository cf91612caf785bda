//! A tab changed what it wants, its socket died before the answer, and what it wants in the end is
//! not what the server believes (rule 21).

use std::time::{Duration, Instant};

use crate::support::app::{THREE, of};
use crate::support::client::{Client, Event};
use crate::support::stage::Stage;
use serde_json::json;

/// A client that comes back is closed after five seconds at the earliest; until then nothing may happen.
const NOT_YET: Duration = Duration::from_secs(3);

/// Sends a change that the server takes, and loses the socket before anything comes back.
fn lose(
    tab: &mut Client,
    other: &mut Client,
    patch: Vec<serde_json::Value>,
    taken: impl Fn(&Client, &str) -> bool,
) {
    let id = tab.id.clone();
    tab.change(patch);
    other.until("the change", |c| taken(c, &id));
    tab.vanish();
}

fn wants(tab: &Client, id: &str, hash: &str) -> bool {
    tab.store.desired.get(id).is_some_and(|set| set.contains(hash))
}

/// Waits until the server closes the connection, without an error.
fn until_sent_back(tab: &mut Client) {
    tab.until_event("the close", |event| match event {
        Event::Closed(None, _) => Some(()),
        Event::Poke(_) | Event::Pong => None,
        other => panic!("{other:?} instead of a close"),
    });
}

/// Comes back as it is, with nothing to say.
fn come_back(tab: &mut Client) {
    tab.open(Some(&json!({"desiredQueriesPatch": []})));
    tab.until_connected();
    tab.until("a poke", |c| !c.pokes.is_empty());
}

#[test]
fn a_query_that_was_taken_out_and_is_wanted_again_is_not_lost() {
    let stage = Stage::prepared(THREE, &[]);
    let (x, y) = (of("x"), of("y"));
    let mut tab = stage.tab(&[x.clone(), y.clone()]);
    let mut other = tab.sibling();
    other.connect(&[]);
    other.until("a poke", |c| !c.pokes.is_empty());
    lose(&mut tab, &mut other, vec![x.del()], |c, id| !wants(c, id, &x.hash()));
    // It believes that the server knows that it wants both.
    come_back(&mut tab);
    tab.until("what the server knows", |c| !wants(c, &c.id, &x.hash()));
    let before = Instant::now();
    until_sent_back(&mut tab);
    assert!(before.elapsed() > NOT_YET, "it has the time to take in what it was told");
    // Now it compares, and is not sent back again.
    tab.connect(std::slice::from_ref(&x));
    tab.until("its wish", |c| wants(c, &c.id, &x.hash()) && wants(c, &c.id, &y.hash()));
    assert!(tab.store.got.contains(&x.hash()));
    other.round_trip();
    stays(&mut tab);
    stays(&mut other);
}

/// Stays connected for longer than it took to be sent back.
fn stays(tab: &mut Client) {
    let end = Instant::now() + Duration::from_secs(8);
    while Instant::now() < end {
        let event = tab.next(Duration::from_millis(200));
        assert!(!matches!(event, Some(Event::Closed(..) | Event::Error(_))), "{}: {event:?}", tab.id);
    }
}

#[test]
fn a_query_that_was_put_and_is_not_wanted_any_more_goes() {
    let stage = Stage::prepared(THREE, &[]);
    let (x, y) = (of("x").ttl(0), of("y"));
    let mut tab = stage.tab(std::slice::from_ref(&y));
    let mut other = tab.sibling();
    other.connect(&[]);
    other.until("a poke", |c| !c.pokes.is_empty());
    lose(&mut tab, &mut other, vec![x.put()], |c, id| wants(c, id, &x.hash()));
    come_back(&mut tab);
    tab.until("what the server knows", |c| wants(c, &c.id, &x.hash()));
    until_sent_back(&mut tab);
    let init = tab.init_body(vec![x.del()]);
    tab.open(Some(&init));
    tab.until_connected();
    tab.until("the end of the query", |c| {
        !c.store.got.contains(&x.hash()) && c.store.got.contains(&y.hash())
    });
}

#[test]
fn who_has_not_changed_his_mind_is_not_sent_back() {
    let stage = Stage::prepared(THREE, &[]);
    let (x, y) = (of("x"), of("y"));
    let mut tab = stage.tab(std::slice::from_ref(&x));
    let mut other = tab.sibling();
    other.connect(&[]);
    other.until("a poke", |c| !c.pokes.is_empty());
    lose(&mut tab, &mut other, vec![x.del(), y.put()], |c, id| wants(c, id, &y.hash()));
    // What others want has changed, too.
    other.change(vec![y.put()]);
    other.until_got(std::slice::from_ref(&y));
    let init = tab.init_body(vec![x.del(), y.put()]);
    tab.open(Some(&init));
    tab.until_connected();
    tab.until_got(std::slice::from_ref(&y));
    stays(&mut tab);
}

#[test]
fn a_client_that_others_took_for_gone_says_again_what_it_wants() {
    let stage = Stage::prepared(THREE, &[]);
    let x = of("x");
    let mut away = stage.tab(std::slice::from_ref(&x));
    let mut there = away.sibling();
    there.connect(std::slice::from_ref(&x));
    there.until("its wish", |c| wants(c, &c.id, &x.hash()));
    away.vanish();
    let mut third = there.sibling();
    third.init = json!({"activeClients": [third.id]});
    third.connect(&[]);
    third.until("both are gone", |c| !wants(c, &away.id, &x.hash()) && !wants(c, &there.id, &x.hash()));
    // One was away, one was there all the time.
    come_back(&mut away);
    for tab in [&mut away, &mut there] {
        until_sent_back(tab);
        assert!(!wants(tab, &tab.id, &x.hash()));
        tab.connect(std::slice::from_ref(&x));
        tab.until("its wish", |c| wants(c, &c.id, &x.hash()));
    }
    stays(&mut third);
}

#[test]
fn a_restart_in_between_loses_no_wish() {
    let mut stage = Stage::prepared(THREE, &[]);
    let x = of("x");
    let mut tab = stage.tab(std::slice::from_ref(&x));
    let mut other = tab.sibling();
    other.connect(&[]);
    other.until("a poke", |c| !c.pokes.is_empty());
    lose(&mut tab, &mut other, vec![x.del()], |c, id| !wants(c, id, &x.hash()));
    other.vanish();
    stage.server.kill();
    stage.server.start();
    come_back(&mut tab);
    tab.until("what the server knows", |c| !wants(c, &c.id, &x.hash()));
    until_sent_back(&mut tab);
    tab.connect(std::slice::from_ref(&x));
    tab.until("its wish", |c| wants(c, &c.id, &x.hash()) && c.store.got.contains(&x.hash()));
}

#[test]
fn who_comes_back_as_it_was_is_given_longer_each_time() {
    let stage = Stage::prepared(THREE, &[]);
    let x = of("x");
    let mut tab = stage.tab(std::slice::from_ref(&x));
    let mut other = tab.sibling();
    other.connect(&[]);
    other.until("a poke", |c| !c.pokes.is_empty());
    let before = tab.store.clone();
    lose(&mut tab, &mut other, vec![x.del()], |c, id| !wants(c, id, &x.hash()));
    let mut times = Vec::new();
    for _ in 0..2 {
        // It was too slow: what it was told has no effect.
        tab.store = before.clone();
        tab.store.disconnected();
        come_back(&mut tab);
        let began = Instant::now();
        until_sent_back(&mut tab);
        times.push(began.elapsed());
    }
    assert!(times[1] > times[0] + NOT_YET, "{times:?}");
}
