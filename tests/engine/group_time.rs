//! Nobody is connected for an hour, and queries have gone or are told wrongly afterwards
//! (`docs/spec/view-syncer.md` §3.6; ruling 16).

use crate::model::choices::Choices;
use crate::model::world::World;
use kelvin::groups::syncer::LINGER;
use kelvin::protocol::upstream::QueryOp;

/// Items, and names: one query each.
const ITEMS: usize = 0;
const NAMES: usize = 5;

/// As the stock client's default, in milliseconds.
const TIME_TO_LIVE: f64 = 300_000.0;

const HOUR: f64 = 3_600_000.0;

fn got(world: &World) -> Vec<&String> {
    world.groups[0].tabs[0].receiver.store.got.iter().collect()
}

/// Time passes, and the core looks at its clock.
fn pass(world: &mut World, time: f64) {
    world.now += time;
    world.core.syncer().tick(world.now);
    world.settle().unwrap();
}

fn come_back(world: &mut World) {
    world.connect(&mut Choices::new((0, 0)), 0, 0).unwrap();
    world.settle().unwrap();
}

/// A tab with both queries, which does not want the items any more since 100 seconds.
fn fading() -> World {
    let mut world = World::new(1, 0);
    world.write("+item a - 1 -; +named x x 1");
    world.tab(0, &[ITEMS, NAMES]);
    world.settled();
    world.groups[0].tabs[0].wanted.remove(&ITEMS);
    world.want(0, 0, vec![QueryOp::Del { hash: "q0".into() }]).unwrap();
    world.settle().unwrap();
    pass(&mut world, 100_000.0);
    assert_eq!(got(&world), ["q0", "q5"]);
    world
}

#[test]
fn the_rest_of_a_time_to_live_counts_after_an_hour() {
    let mut world = fading();
    world.disconnect(0, 0);
    for _ in 0..60 {
        pass(&mut world, HOUR / 60.0);
    }
    // Its views are gone by then; what it holds is made good, and the time goes on.
    world.write("item a n=2; +named y y 1");
    come_back(&mut world);
    assert_eq!(got(&world), ["q0", "q5"]);
    pass(&mut world, TIME_TO_LIVE - 100_000.0 - 1_000.0);
    assert_eq!(got(&world), ["q0", "q5"]);
    pass(&mut world, 2_000.0);
    assert_eq!(got(&world), ["q5"]);
    world.settled();
    world.end().unwrap();
}

#[test]
fn a_group_that_comes_back_before_its_views_are_gone_keeps_them() {
    let mut world = fading();
    let cookie = world.groups[0].tabs[0].receiver.store.cookie.clone();
    world.disconnect(0, 0);
    pass(&mut world, LINGER - 1.0);
    let views = world.core.syncer().shared.views.len();
    assert!(views >= 2);
    come_back(&mut world);
    assert_eq!(world.groups[0].tabs[0].receiver.store.cookie, cookie, "nothing has happened");
    assert_eq!(world.core.syncer().shared.views.len(), views);
    pass(&mut world, TIME_TO_LIVE - 100_000.0 + 1_000.0);
    assert_eq!(got(&world), ["q5"]);
    world.end().unwrap();
}
