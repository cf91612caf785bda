//! What is bounded in a group's history is used beyond its bound: journals, rows of views
//! that were left. Rules 19 to 21 of `docs/spec/rules.md`.

use crate::model::choices::Choices;
use crate::model::world::{World, put};
use kelvin::protocol::downstream::PONG;
use kelvin::protocol::upstream::QueryOp;
use kelvin::views::limits::ViewLimits;

fn work(world: &mut World) {
    while let Some(group) = world.core.next_due() {
        world.core.syncer().work(&group, world.now);
    }
}

/// Fills the journal of the view of all items until it has forgotten how it began, with
/// changes that add up to nothing.
fn overflow(world: &mut World) {
    for _ in 0..=ViewLimits::DEFAULT.journal_deltas / 2 {
        world.replicate("+item again - 1 -");
        work(world);
        world.replicate("-item again");
        work(world);
    }
}

/// A group of which one query is being replaced, and so held.
fn held() -> World {
    let mut world = World::new(1, 0);
    world.replicate("+item gone - 1 -; +item stays - 1 -; +named a a 1");
    world.tab(0, &[0, 5]);
    world.settled();
    answer(&mut world, 1);
    world.replicate("-item gone");
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
    world.settled();
    world.end().unwrap();
}

#[test]
fn a_hold_that_ends_without_a_swap_tells_what_happened_meanwhile() {
    let mut world = held();
    answer(&mut world, 0);
    world.settled();
    world.end().unwrap();
}

#[test]
fn a_tab_in_the_middle_of_a_catch_up_survives_an_overflow() {
    let mut world = World::new(1, 2_500);
    world.replicate("+item gone - 1 -; +item stays - 1 -");
    world.tab(0, &[0]);
    world.settled();
    world.want(0, 0, vec![put(8, 0.0)]).unwrap();
    world.settled();
    let late = world.tab(0, &[0, 8]);
    let line = world.groups[0].tabs[late].line.clone().expect("connected");
    world.core.limit(|limits| limits.outboxes.bytes = 1);
    // Slices until the item has been written, none after that.
    for _ in 0..3 {
        world.core.syncer().work(&"g0".into(), world.now);
    }
    world.receive(0, late, usize::MAX).unwrap();
    line.socket.stopped.set(true);
    line.outbox.urgent(PONG);
    world.disconnect(0, 0);
    world.replicate("-item gone");
    work(&mut world);
    overflow(&mut world);
    world.settled();
    world.end().unwrap();
}

#[test]
fn a_large_view_that_is_left_takes_all_its_rows_along() {
    let mut world = World::new(1, 100_100);
    world.tab(0, &[0, 8]);
    world.settled();
    assert_eq!(world.groups[0].tabs[0].receiver.store.rows.len(), 100_100);
    world.want(0, 0, vec![QueryOp::Clear]).unwrap();
    world.settled();
    assert_eq!(world.groups[0].tabs[0].receiver.store.rows.len(), 0);
    world.end().unwrap();
}

#[test]
fn a_query_that_takes_over_anothers_view_takes_what_the_old_one_held_away() {
    let mut world = World::new(1, 0);
    world.replicate("+item a - 0 -; +item b - 2 -");
    // Form 0: items whose n is not 0; form 2: items whose n is not 2.
    world.groups[0].forms[1] = 2;
    world.tab(0, &[0, 1]);
    world.settled();
    let away = world.tab(0, &[0, 1]);
    world.settled();
    world.disconnect(0, away);
    // The row goes while the tab is away, then the view that held it.
    world.replicate("-item b");
    world.settled();
    world.groups[0].forms[0] = 2;
    world.ask(0, true);
    world.settled();
    world.connect(&mut Choices::new((0, 0)), 0, away).unwrap();
    world.settled();
    world.end().unwrap();
}
