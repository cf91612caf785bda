//! What is bounded in a group's history is used beyond its bound: journals, rows of views
//! that were left. Rules 19 to 21 of `docs/spec/rules.md`.

mod model;

use std::collections::BTreeSet;

use kelvin::protocol::upstream::QueryOp;
use kelvin::views::journal::MAX_DELTAS;
use model::choices::Choices;
use model::client::{Receiver, Store};
use model::database::Write;
use model::script::writes;
use model::world::{Tab, World, put};

fn tab(world: &mut World, wanted: &[usize]) -> usize {
    let client = format!("t{}", world.groups[0].tabs.len());
    let receiver = Receiver::new(world.schema.clone(), Store::default());
    let wanted: BTreeSet<usize> = wanted.iter().copied().collect();
    world.groups[0].tabs.push(Tab { client, receiver, wanted, line: None });
    let tab = world.groups[0].tabs.len() - 1;
    world.connect(&mut Choices::new((0, 0)), 0, tab).expect("connected");
    tab
}

fn commit(world: &mut World, script: &str) {
    let writes: Vec<Write> = writes(script, &mut world.db);
    world.commit(writes);
    world.core.begin_batch();
    world.core.end_batch();
}

fn work(world: &mut World) {
    while let Some(group) = world.core.syncer.next_due() {
        world.core.syncer.work(&group, world.now);
    }
}

fn settled(world: &mut World) {
    world.settle().and_then(|()| world.check()).unwrap_or_else(|e| panic!("{e}"));
}

/// Fills the journal of the view of all items until it has forgotten how it began, with
/// changes that add up to nothing.
fn overflow(world: &mut World) {
    for _ in 0..=MAX_DELTAS / 2 {
        commit(world, "+item again - 1 -");
        work(world);
        commit(world, "-item again");
        work(world);
    }
}

/// A group of which one query is being replaced, and so held.
fn held() -> World {
    let mut world = World::new(1, 0);
    commit(&mut world, "+item gone - 1 -; +item stays - 1 -; +named a a 1");
    tab(&mut world, &[0, 5]);
    settled(&mut world);
    answer(&mut world, 1);
    commit(&mut world, "-item gone");
    work(&mut world);
    overflow(&mut world);
    world
}

/// The app answers the query for names anew.
fn answer(world: &mut World, form: usize) {
    world.groups[0].forms[5] = form;
    world.ask(0, true);
    world.reply(&mut Choices::new((0, 0)), false);
}

#[test]
fn a_held_group_whose_journals_overflowed_clears_its_tabs() {
    let mut world = held();
    settled(&mut world);
    world.end().unwrap();
}

#[test]
fn a_hold_that_ends_without_a_swap_tells_what_happened_meanwhile() {
    let mut world = held();
    answer(&mut world, 0);
    settled(&mut world);
    world.end().unwrap();
}

#[test]
fn a_tab_in_the_middle_of_a_catch_up_survives_an_overflow() {
    let mut world = World::new(1, 2_500);
    commit(&mut world, "+item gone - 1 -; +item stays - 1 -");
    tab(&mut world, &[0]);
    settled(&mut world);
    world.want(0, 0, vec![put(8, 0.0)]).unwrap();
    settled(&mut world);
    let late = tab(&mut world, &[0, 8]);
    let pipe = world.groups[0].tabs[late].line.clone().expect("connected").1;
    // Slices until the item has been written, none after that.
    for _ in 0..3 {
        world.core.syncer.work(&"g0".into(), world.now);
    }
    world.receive(0, late, usize::MAX).unwrap();
    pipe.behind.set(true);
    world.disconnect(0, 0);
    commit(&mut world, "-item gone");
    work(&mut world);
    overflow(&mut world);
    settled(&mut world);
    world.end().unwrap();
}

#[test]
fn a_large_view_that_is_left_takes_all_its_rows_along() {
    let mut world = World::new(1, 100_100);
    tab(&mut world, &[0, 8]);
    settled(&mut world);
    assert_eq!(world.groups[0].tabs[0].receiver.store.rows.len(), 100_100);
    world.want(0, 0, vec![QueryOp::Clear]).unwrap();
    settled(&mut world);
    assert_eq!(world.groups[0].tabs[0].receiver.store.rows.len(), 0);
    world.end().unwrap();
}

#[test]
fn a_query_that_takes_over_anothers_view_takes_what_the_old_one_held_away() {
    let mut world = World::new(1, 0);
    commit(&mut world, "+item a - 0 -; +item b - 2 -");
    // Form 0: items whose n is not 0; form 2: items whose n is not 2.
    world.groups[0].forms[1] = 2;
    tab(&mut world, &[0, 1]);
    settled(&mut world);
    let away = tab(&mut world, &[0, 1]);
    settled(&mut world);
    world.disconnect(0, away);
    // The row goes while the tab is away, then the view that held it.
    commit(&mut world, "-item b");
    settled(&mut world);
    world.groups[0].forms[0] = 2;
    world.ask(0, true);
    settled(&mut world);
    world.connect(&mut Choices::new((0, 0)), 0, away).unwrap();
    settled(&mut world);
    world.end().unwrap();
}
