//! A query goes too early, too late, or in pieces after nobody wants it any more
//! (`docs/spec/view-syncer.md` §3.6).

use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::support::app::{Query, THREE, of};
use crate::support::client::Client;
use crate::support::stage::Stage;
use crate::support::store::keys;
use serde_json::json;

/// How exactly times are met: the server looks at its clock five times a second.
const MARGIN: Duration = Duration::from_millis(250);

fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Waits until a query has gone; returns how long that took.
fn until_gone(tab: &mut Client, query: &Query) -> Duration {
    let began = Instant::now();
    tab.until("the query's end", |c| !c.store.got.contains(&query.hash()));
    began.elapsed()
}

fn has(tab: &Client, query: &Query) -> bool {
    tab.store.got.contains(&query.hash())
}

/// A second tab of the group that wants these, too.
fn second(tab: &Client, queries: &[Query]) -> Client {
    let mut second = tab.sibling();
    second.connect(queries);
    second.until("a poke", |c| !c.pokes.is_empty());
    second
}

#[test]
fn time_stands_while_nobody_is_connected() {
    let stage = Stage::prepared(THREE, &[]);
    let query = of("x").ttl(6_000);
    let mut tab = stage.tab(std::slice::from_ref(&query));
    tab.change(vec![query.del()]);
    let began = Instant::now();
    tab.until("the wish is gone", |c| c.store.desired[&c.id].is_empty());
    sleep(millis(3_000));
    tab.vanish();
    let counted = began.elapsed();
    sleep(millis(2_000));
    tab.connect(&[]);
    tab.until("a first poke", |c| !c.pokes.is_empty());
    assert!(has(&tab, &query), "it went while nobody was there");
    let rest = until_gone(&mut tab, &query);
    assert!(counted + rest + MARGIN > millis(6_000), "it went early: {counted:?} and {rest:?}");
    assert!(rest < millis(5_500), "it began anew: {counted:?} and {rest:?}");
    assert!(tab.store.rows.is_empty());
}

#[test]
fn a_query_of_two_tabs_goes_when_the_last_time_is_over() {
    let stage = Stage::prepared(THREE, &[]);
    let (x, y) = (of("x"), of("y"));
    let mut first = stage.tab(&[x.clone().ttl(300), y.clone().ttl(8_000)]);
    let mut second = second(&first, &[x.clone().ttl(4_000), y.clone().ttl(0)]);
    // The one with the longer time is the last to want x, and the first not to want y.
    first.change(vec![x.del(), y.del()]);
    let first_gone = Instant::now();
    sleep(millis(800));
    first.round_trip();
    assert!(has(&first, &x), "the other tab wants it");
    second.change(vec![x.del(), y.del()]);
    let second_gone = Instant::now();
    first.round_trip();
    assert!(has(&first, &x) && has(&first, &y));
    until_gone(&mut first, &x);
    assert!(second_gone.elapsed() + MARGIN > millis(4_000), "{:?}", second_gone.elapsed());
    until_gone(&mut first, &y);
    assert!(first_gone.elapsed() + MARGIN > millis(8_000), "{:?}", first_gone.elapsed());
    second.until("the end of both", |c| c.store.got.is_empty() && c.store.rows.is_empty());
}

#[test]
fn expiries_close_to_each_other_are_one_poke() {
    let stage = Stage::prepared("INSERT INTO item SELECT i, 'o' || i, i FROM generate_series(0, 7) i", &[]);
    let queries: Vec<Query> = (0..8).map(|n| of(&format!("o{n}")).ttl(3_000 + 5 * n)).collect();
    // The server looks at its clock every now and then: some of these are looked at half way.
    let mut tabs: Vec<Client> = (0..6).map(|_| stage.tab(&queries)).collect();
    let mut before = Vec::new();
    for tab in &mut tabs {
        tab.change(queries.iter().map(Query::del).collect());
        tab.until("the wishes are gone", |c| c.store.desired[&c.id].is_empty());
        before.push(tab.pokes.len());
        sleep(millis(35));
    }
    for (tab, before) in tabs.iter_mut().zip(before) {
        tab.until("all queries gone", |c| c.store.got.is_empty());
        let pokes = &tab.pokes[before..];
        assert_eq!(pokes.len(), 1, "{} of {} queries went first", pokes[0].got.len(), queries.len());
        assert_eq!((pokes[0].got.len(), pokes[0].dels.len()), (8, 8));
    }
}

#[test]
fn the_time_is_that_of_the_last_wish_that_counts() {
    let stage = Stage::prepared(THREE, &[]);
    let (x, y) = (of("x"), of("y"));
    let mut tab = stage.tab(&[x.clone().ttl(30_000), y.clone().ttl(6_000)]);
    // Of a query that is wanted, a shorter time says nothing.
    tab.change(vec![y.clone().ttl(100).put()]);
    tab.quiet("a shorter time");
    // Of one that is not, the new wish counts.
    tab.change(vec![x.del()]);
    tab.change(vec![x.clone().ttl(300).put()]);
    tab.change(vec![x.del(), y.del()]);
    let began = Instant::now();
    until_gone(&mut tab, &x);
    assert!(has(&tab, &y) && began.elapsed() < millis(5_500), "{:?}", began.elapsed());
    until_gone(&mut tab, &y);
    assert!(began.elapsed() + MARGIN > millis(6_000), "{:?}", began.elapsed());
}

#[test]
fn no_time_is_longer_than_ten_minutes() {
    let stage = Stage::prepared(THREE, &[]);
    let x = of("x");
    let mut tab = stage.tab(&[x.clone().ttl(600_000)]);
    for longer in [600_001, 86_400_000, -1] {
        tab.change(vec![x.clone().ttl(longer).put()]);
    }
    tab.quiet("more than ten minutes are ten minutes");
}

#[test]
fn a_query_that_is_not_wanted_is_kept_up_to_date_until_it_goes() {
    let mut stage = Stage::prepared(THREE, &[]);
    let x = of("x").ttl(20_000);
    let mut tab = stage.tab(std::slice::from_ref(&x));
    tab.change(vec![x.del()]);
    tab.until("the wish is gone", |c| c.store.desired[&c.id].is_empty());
    stage.sql.run("UPDATE item SET n = 2 WHERE id = 'a'; DELETE FROM item WHERE id = 'b'");
    tab.until("the change", |c| c.store.row("item", "a").is_some_and(|r| r["n"] == 2));
    tab.until("the deletion", |c| c.store.rows.len() == 1);
    // Wanted again by somebody else: nothing is asked of the database, nothing is sent.
    let calls = tab.pokes.len();
    let mut other = second(&tab, std::slice::from_ref(&x));
    other.round_trip();
    assert!(other.pokes.iter().all(|p| p.got.is_empty() && p.puts.is_empty()), "{:?}", other.pokes);
    tab.round_trip();
    assert!(tab.pokes[calls..].iter().all(|p| p.got.is_empty() && keys(&p.puts).is_empty()));
    assert_eq!(tab.store.desired[&other.id].len(), 1);
    // `clear` leaves no time at all; the one whose time runs is not asked.
    other.change(vec![json!({"op": "clear"})]);
    other.until("its wish is gone", |c| c.store.desired[&c.id].is_empty());
    other.quiet("the first tab's time is not over");
    assert!(has(&other, &x));
}
