//! A large view that lives is read once more for somebody who has none of it: what the
//! lane read and what the view holds must be one thing (rule 10).

mod model;

use std::collections::BTreeSet;

use kelvin::groups::syncer::KEEP_FULL;
use kelvin::protocol::error::{Kind, ProtocolError};
use model::choices::Choices;
use model::client::{Receiver, Store};
use model::script::writes;
use model::world::{Tab, World};

const LARGE: usize = 8;

/// A commit comes between the core's snapshot and the lane's.
const RACING: bool = true;

fn connect(world: &mut World, group: usize, query: usize) {
    let receiver = Receiver::new(world.schema.clone(), Store::default());
    let client = format!("g{group}t{}", world.groups[group].tabs.len());
    world.groups[group].tabs.push(Tab { client, receiver, wanted: BTreeSet::from([query]), line: None });
    let tab = world.groups[group].tabs.len() - 1;
    world.connect(&mut Choices::new((0, 0)), group, tab).expect("connected");
}

/// Two groups that want a large view; the second one when its encoded form is gone.
fn reading_again(form: usize) -> World {
    let mut world = World::new(2, 1_300);
    commit(&mut world, "+tag a - 0; +tag b - 1; +tag c - 1; +tag d - 1; +tag e - 1");
    batch(&mut world);
    world.groups[0].forms[LARGE] = form;
    world.groups[1].forms[LARGE] = form;
    connect(&mut world, 0, LARGE);
    world.settle().unwrap();
    world.check().unwrap();
    world.now += KEEP_FULL;
    world.core.syncer.tick(world.now);
    connect(&mut world, 1, LARGE);
    world.reply(&mut Choices::new((0, 0)), false);
    world
}

fn commit(world: &mut World, script: &str) {
    let writes = writes(script, &mut world.db);
    world.commit(writes);
}

fn batch(world: &mut World) {
    world.core.begin_batch();
    world.core.end_batch();
}

fn settled(mut world: World) {
    world.settle().and_then(|()| world.check()).unwrap_or_else(|e| panic!("{e}"));
    let queries = world.core.syncer.groups.values().flat_map(|g| g.queries.values());
    assert!(queries.into_iter().all(|q| !q.failed), "a query was refused");
    world.end().unwrap();
}

#[test]
fn a_row_that_only_the_lane_saw_is_sent_to_nobody() {
    let mut world = reading_again(0);
    commit(&mut world, "+big 5000 1");
    world.core.start_lanes(&world.replica, RACING);
    // The core goes to a snapshot that does not have the row, past the one that had it.
    commit(&mut world, "-big 5000");
    batch(&mut world);
    settled(world);
}

#[test]
fn contents_that_only_the_lane_saw_are_sent_to_nobody() {
    let mut world = reading_again(0);
    commit(&mut world, "big 7 n=9");
    world.core.start_lanes(&world.replica, RACING);
    commit(&mut world, "big 7 n=1");
    batch(&mut world);
    settled(world);
}

#[test]
fn witnesses_that_the_lane_chose_are_those_of_the_view() {
    let mut world = reading_again(1);
    commit(&mut world, "-tag b");
    world.core.start_lanes(&world.replica, RACING);
    commit(&mut world, "+tag b - 1");
    batch(&mut world);
    settled(world);
}

#[test]
fn a_lane_whose_view_is_gone_harms_nobody() {
    let mut world = reading_again(1);
    world.core.start_lanes(&world.replica, RACING);
    // The rows of the table are read, witnesses are still to come.
    world.core.step_lane(0, 1_300, world.now);
    let over = ProtocolError::new(Kind::Internal, "over");
    for group in 0..2 {
        world.disconnect(group, 0);
        world.core.syncer.fail_group(&format!("g{group}").as_str().into(), &over);
        world.groups[group].tabs.clear();
        world.groups[group].history.clear();
    }
    // Another view takes the number of the one that is gone, while its lane goes on.
    connect(&mut world, 0, 0);
    world.reply(&mut Choices::new((0, 0)), false);
    settled(world);
}
