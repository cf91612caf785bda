//! A query that cannot be answered takes others down with it (ruling 7; entry 53 of the
//! conformance checklist, `docs/spec/zql.md` §17.2).

use crate::model::choices::Choices;
use crate::model::world::{World, put};

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

/// How often the tab of a group was told that it cannot have the items.
fn told(world: &World, group: usize) -> usize {
    world.groups[group].tabs[0].receiver.refused.iter().filter(|hash| *hash == "q0").count()
}

/// So many milliseconds later.
fn later(world: &mut World, milliseconds: f64) {
    world.now += milliseconds;
    world.settled();
}

/// The query for items is refused, everything else goes on; and it comes back by itself.
fn only_items_fail(mut world: World, remedy: &str) {
    world.settled();
    assert_eq!((got(&world, 0), got(&world, 1)), (vec!["q5".to_owned()], vec!["q5".to_owned()]));
    let rows = &world.groups[0].tabs[0].receiver.store.rows;
    assert!(rows.keys().all(|(table, _)| table == "named"), "rows of a refused query stay: {rows:?}");
    assert_eq!(told(&world, 0), 1);
    // Its clients hear of it again and again: what an app shows anew asks nothing of the server.
    world.write("+named y y 1");
    later(&mut world, 11_000.0);
    assert_eq!(got(&world, 0), ["q5"]);
    assert!(told(&world, 0) > 1);
    // And whoever comes back, without asking.
    let before = told(&world, 0);
    world.disconnect(0, 0);
    world.connect(&mut Choices::new((0, 0)), 0, 0).unwrap();
    world.settled();
    assert_eq!(told(&world, 0), before + 1);
    world.write(remedy);
    later(&mut world, 60_000.0);
    assert_eq!(got(&world, 0), ["q0", "q5"]);
    let all = told(&world, 0);
    later(&mut world, 60_000.0);
    assert_eq!(told(&world, 0), all, "it is over");
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

#[test]
fn a_view_that_cannot_be_kept_is_read_less_and_less_often() {
    let mut world = two_groups();
    world.write(&format!("+item b - {TOO_LARGE} -"));
    world.settled();
    let mut last = told(&world, 0);
    let mut tried_at = Vec::new();
    for second in 1..300 {
        world.write(&format!("item a n={second}"));
        later(&mut world, 1_000.0);
        // Read again and refused again, or only told again.
        if told(&world, 0) > last {
            tried_at.push(second);
        }
        last = told(&world, 0);
    }
    assert!(tried_at.len() < 60, "{tried_at:?}");
    world.write("-item b");
    later(&mut world, 60_000.0);
    assert_eq!(got(&world, 0), ["q0", "q5"]);
    world.end().unwrap();
}

#[test]
fn a_view_that_comes_back_and_fails_again_does_so_each_time() {
    let mut world = two_groups();
    for round in 0..4 {
        world.write(&format!("+item b - {TOO_LARGE} -; +named n{round} n{round} 1"));
        world.settled();
        assert_eq!(got(&world, 0), ["q5"], "round {round}");
        world.write("-item b");
        later(&mut world, 60_000.0);
        assert_eq!(got(&world, 0), ["q0", "q5"], "round {round}");
    }
    world.end().unwrap();
}

#[test]
fn what_the_app_refuses_meanwhile_is_not_tried_again() {
    let mut world = two_groups();
    world.write(&format!("+item b - {TOO_LARGE} -"));
    world.settled();
    // The app refuses it now.
    world.scenario.queries[ITEMS].push(None);
    world.groups[0].forms[ITEMS] = world.scenario.queries[ITEMS].len() - 1;
    world.ask(0, true);
    world.settled();
    world.write("-item b");
    later(&mut world, 60_000.0);
    assert_eq!(got(&world, 0), ["q5"]);
    world.end().unwrap();
}
