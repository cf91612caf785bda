//! A query that cannot be answered takes others down with it (ruling 7; entry 53 of the
//! conformance checklist, `docs/spec/zql.md` §17.2).

mod model;

use model::world::{World, put};

/// Items, and names: one query each.
const ITEMS: usize = 0;
const NAMES: usize = 5;

/// The first integer that no client can hold.
const TOO_LARGE: i64 = 1 << 53;

fn got(world: &World, group: usize) -> Vec<String> {
    world.groups[group].tabs[0].receiver.store.got.iter().cloned().collect()
}

fn two_groups() -> World {
    let mut world = World::new(2, 0);
    world.write("+item a - 1 -; +named x x 1");
    world.tab(0, &[ITEMS, NAMES]);
    world.tab(1, &[NAMES]);
    world.settled();
    assert_eq!(got(&world, 0), ["q0", "q5"]);
    world
}

/// The query for items is refused, everything else goes on; and it comes back.
fn only_items_fail(mut world: World, remedy: &str) {
    world.settled();
    assert_eq!((got(&world, 0), got(&world, 1)), (vec!["q5".to_owned()], vec!["q5".to_owned()]));
    let rows = &world.groups[0].tabs[0].receiver.store.rows;
    assert!(rows.keys().all(|(table, _)| table == "named"), "rows of a refused query stay: {rows:?}");
    world.write(&format!("+named y y 1; {remedy}"));
    world.settled();
    world.want(0, 0, vec![put(ITEMS, 1.0)]).unwrap();
    world.settled();
    assert_eq!(got(&world, 0), ["q0", "q5"]);
    world.end().unwrap();
}

#[test]
fn a_row_that_no_client_can_hold_comes_into_a_live_view() {
    let mut world = two_groups();
    world.write(&format!("+item b - {TOO_LARGE} -"));
    only_items_fail(world, "-item b");
}

#[test]
fn a_row_of_a_live_view_takes_a_value_that_no_client_can_hold() {
    let mut world = two_groups();
    world.write(&format!("item a n={TOO_LARGE}"));
    only_items_fail(world, "item a n=1");
}

#[test]
fn a_query_fails_while_it_is_hydrated() {
    let mut world = World::new(2, 0);
    world.write(&format!("+item a - {TOO_LARGE} -; +named x x 1"));
    world.tab(0, &[ITEMS, NAMES]);
    world.tab(1, &[NAMES]);
    only_items_fail(world, "item a n=1");
}

#[test]
fn a_group_that_asks_just_after_a_view_failed_is_refused_too() {
    let mut world = two_groups();
    world.write(&format!("+item b - {TOO_LARGE} -"));
    world.core.begin_batch();
    world.core.end_batch();
    // The groups have not given the view up yet.
    world.want(1, 0, vec![put(ITEMS, 1.0)]).unwrap();
    only_items_fail(world, "-item b");
}
