//! Clients of protocol 52, whose parts come as bytes, beside older ones (`docs/spec/sync-protocol.md` §9.5). The client
//! of the tests refuses either form where it does not belong, and chunks that are too long.

use std::time::Instant;

use serde_json::json;

use crate::support::app::{THREE, items, of};
use crate::support::client::{Client, WAIT};
use crate::support::stage::Stage;
use crate::support::store::Poke;

/// A tab of this group that speaks this version.
fn speaking(stage: &Stage, group: &str, version: u32) -> Client {
    let mut tab = Client::in_group(&stage.server, group);
    tab.version = version;
    tab
}

/// Waits until all are at one cookie: then they hold the same.
fn in_step(tabs: &mut [Client]) {
    let deadline = Instant::now() + WAIT;
    while tabs.iter().any(|tab| tab.store.cookie != tabs[0].store.cookie) {
        assert!(Instant::now() < deadline, "the tabs stay at different cookies");
        tabs.iter_mut().for_each(Client::round_trip);
    }
    for tab in &tabs[1..] {
        assert!(tab.store == tabs[0].store, "{:#?}\n{:#?}", tab.store, tabs[0].store);
    }
}

#[test]
fn tabs_of_51_and_52_hold_the_same_side_by_side() {
    let mut stage = Stage::prepared(THREE, &[]);
    let mut tabs: Vec<Client> = [51, 52, 30, 52].map(|version| speaking(&stage, "mixed", version)).into();
    for tab in &mut tabs {
        tab.connect(&[items(), of("x")]);
        tab.until_got(&[items(), of("x")]);
    }
    in_step(&mut tabs);
    for n in 0..8 {
        stage.sql.run(&format!("INSERT INTO item VALUES ('n{n}', 'x', {n}, 'é€😀')"));
        let last = tabs[n % 4].mutate(
            if n < 4 { "put" } else { "nonesuch" },
            json!({"id": format!("m{n}"), "owner": "y", "n": n}),
        );
        let client = tabs[n % 4].id.clone();
        for tab in &mut tabs {
            let row = format!("n{n}");
            tab.until("the row", |c| c.store.row("item", row.clone()).is_some());
            tab.until("the mutation", |c| c.store.lmids.get(&client) >= Some(&last));
        }
        in_step(&mut tabs);
        // A browser is updated, or goes back to the version before.
        let tab = &mut tabs[(n + 1) % 4];
        tab.vanish();
        tab.version = if tab.version == 52 { 51 } else { 52 };
        // Of what this connection has committed: the mutation may have been replicated before Postgres shows it to others.
        stage.sql.run(&format!("UPDATE item SET n = n + 1; DELETE FROM item WHERE id = 'n{n}'"));
        tab.connect(&[]);
        tab.until("a poke", |c| !c.pokes.is_empty());
        for tab in &mut tabs {
            tab.until("what changed meanwhile", |c| c.store.row("item", format!("n{n}")).is_none());
        }
        in_step(&mut tabs);
    }
}

#[test]
fn a_poke_without_parts_has_one_chunk() {
    let stage = Stage::prepared(THREE, &[]);
    let mut tab = speaking(&stage, "quiet", 52);
    tab.connect(&[items()]);
    tab.until_got(&[items()]);
    tab.vanish();
    tab.connect(&[]);
    tab.until("a poke", |c| !c.pokes.is_empty());
    let first = &tab.pokes[0];
    assert!(first.is_empty() && first.base.as_ref() == Some(&first.cookie), "{first:?}");
    assert_eq!(first.chunks, 1);
}

#[test]
fn results_and_rows_of_more_than_a_mebibyte_come_in_chunks_of_at_most_that() {
    // 3 MB of rows, and a row of 2.5 MB by itself.
    let mut stage = Stage::prepared(
        "INSERT INTO item SELECT i, 'o', i, repeat('aé€', 200) FROM generate_series(1, 2500) i;
         INSERT INTO item VALUES ('large', 'o', 0, repeat('é', 1250000))",
        &[],
    );
    let mut tabs: Vec<Client> = [52, 51].map(|version| speaking(&stage, "large", version)).into();
    for tab in &mut tabs {
        tab.connect(&[items()]);
        tab.until_got(&[items()]);
    }
    in_step(&mut tabs);
    assert_eq!(tabs[0].store.table("item").len(), 2_501);
    let most = |poke: &Poke| poke.chunks;
    let chunks = tabs[0].pokes.iter().map(most).max();
    assert!(chunks >= Some(6), "{chunks:?}");
    stage.sql.run("UPDATE item SET n = 1");
    for tab in &mut tabs {
        tab.until("the change", |c| c.store.row("item", "large").is_some_and(|row| row["n"] == 1));
    }
    in_step(&mut tabs);
    // One that comes now is caught up row by row.
    let mut late = speaking(&stage, "large", 52);
    late.connect(&[]);
    late.until("all rows", |c| c.store.table("item").len() == 2_501);
    tabs.push(late);
    in_step(&mut tabs);
    assert!(tabs[2].pokes.iter().map(most).max() >= Some(6));
}
