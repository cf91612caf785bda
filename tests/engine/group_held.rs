//! A view that has to be read anew: its groups wait for it and are told everything at once,
//! nobody else waits (rules 6, 13, 16).

use crate::model::choices::Choices;
use crate::model::world::World;
use kelvin::groups::housekeeping::READ_FOR_NOBODY;
use kelvin::groups::limits::GroupLimits;

const ITEMS: usize = 0;
const NAMED: usize = 5;
const LARGE: usize = 8;

/// Does everything that is due, and has a tab take what was sent to it.
fn told(world: &mut World, group: usize) -> usize {
    while let Some(due) = world.core.next_due() {
        world.core.syncer().work(&due, world.now);
    }
    world.receive(group, 0, usize::MAX).unwrap();
    world.groups[group].tabs[0].receiver.store.rows.len()
}

/// Ends all hydrations; no batch comes in between.
fn read_all(world: &mut World) {
    world.core.start_hydrations(true);
    while world.core.hydrations() > 0 {
        world.core.step_hydration(0, usize::MAX);
    }
}

/// A group with two views, and another one that has neither.
fn two_groups() -> World {
    let mut world = World::new(2, 0);
    world.write("+item a - 1 -; +big 1 1; +named a a 1");
    world.batch();
    world.tab(0, &[ITEMS, LARGE]);
    world.tab(1, &[NAMED]);
    world.settled();
    world
}

#[test]
fn a_group_is_told_of_both_views_or_of_none() {
    let mut world = two_groups();
    world.replicate("truncate item; +item b - 1 -; +item c - 1 -; +big 2 1; +named b b 1");
    assert_eq!(told(&mut world, 0), 2, "its other view is ahead of the one that is read");
    assert_eq!(told(&mut world, 1), 2, "the other group does not wait");
    world.replicate("+big 3 1");
    assert_eq!(told(&mut world, 0), 2);
    read_all(&mut world);
    assert_eq!(told(&mut world, 0), 5);
    world.settled();
    world.end().unwrap();
}

#[test]
fn what_happens_while_a_view_is_read_anew_is_not_lost() {
    let mut world = two_groups();
    world.replicate("truncate item; +item b - 1 -; +item c - 1 -");
    world.core.start_hydrations(true);
    world.replicate("-item b; +item d - 1 -; item c s=x");
    world.settled();
    assert_eq!(world.groups[0].tabs[0].receiver.store.rows.len(), 3);
    world.end().unwrap();
}

#[test]
fn a_view_that_is_overtaken_again_and_again_joins() {
    let mut world = two_groups();
    world.replicate("truncate item; +item x0 - 1 -");
    let mut rounds = 0;
    while told(&mut world, 0) == 2 && rounds < 10 {
        rounds += 1;
        world.core.start_hydrations(true);
        world.replicate(&format!("truncate item; +item x{rounds} - 1 -; +item y - 1 -"));
        while world.core.hydrations() > 0 {
            world.core.step_hydration(0, usize::MAX);
        }
    }
    assert_eq!(
        rounds,
        GroupLimits::default().overtaken + 1,
        "the batch waits for a view that would never be there in time"
    );
    // And goes on waiting for it, for as long as that is needed.
    world.replicate("truncate item");
    assert_eq!(told(&mut world, 0), 1);
    world.settled();
    world.end().unwrap();
}

#[test]
fn a_tab_that_comes_while_its_group_waits_is_served_afterwards() {
    let mut world = two_groups();
    world.replicate("truncate item; +item b - 1 -; +item c - 1 -");
    let tab = world.tab(0, &[ITEMS, LARGE, NAMED]);
    world.reply(&mut Choices::new((0, 0)), false);
    told(&mut world, 0);
    world.receive(0, tab, usize::MAX).unwrap();
    assert_eq!(world.groups[0].tabs[tab].receiver.store.rows.len(), 0);
    world.settled();
    world.end().unwrap();
}

#[test]
fn nothing_is_read_for_clients_that_are_gone() {
    let mut world = World::new(1, 350);
    world.batch();
    world.tab(0, &[LARGE]);
    world.reply(&mut Choices::new((0, 0)), false);
    world.core.start_hydrations(false);
    let request = world.core.reading(0).request;
    world.disconnect(0, 0);
    world.core.syncer().tick(world.now);
    assert!(world.core.syncer().is_read(request), "a page that is reloaded is back at once");
    world.now += READ_FOR_NOBODY;
    world.core.syncer().tick(world.now);
    assert!(!world.core.syncer().is_read(request));
    read_all(&mut world);
    world.connect(&mut Choices::new((0, 0)), 0, 0).unwrap();
    world.settled();
    assert_eq!(world.groups[0].tabs[0].receiver.store.rows.len(), 350);
    world.end().unwrap();
}
