//! A large view that lives is read once more for somebody who has none of it: what the
//! hydration read and what the view holds must be one thing (rule 10).

use crate::model::choices::Choices;
use crate::model::world::World;
use kelvin::groups::syncer::KEEP_ENCODED;
use kelvin::protocol::error::{Kind, ProtocolError};

const LARGE: usize = 8;

/// A commit comes between the core's snapshot and the hydration's.
const RACING: bool = true;

/// Two groups that want a large view; the second one when its encoded form is gone.
fn reading_again(form: usize) -> World {
    let mut world = World::new(2, 1_300);
    world.write("+tag a - 0; +tag b - 1; +tag c - 1; +tag d - 1; +tag e - 1");
    world.batch();
    world.groups[0].forms[LARGE] = form;
    world.groups[1].forms[LARGE] = form;
    world.tab(0, &[LARGE]);
    world.settle().unwrap();
    world.check().unwrap();
    world.now += KEEP_ENCODED;
    world.core.syncer().tick(world.now);
    world.tab(1, &[LARGE]);
    world.reply(&mut Choices::new((0, 0)), false);
    world
}

fn settled(mut world: World) {
    world.settled();
    let refused = |world: &World| {
        let syncer = world.core.syncer();
        syncer.groups.values().flat_map(|g| g.queries.values()).any(|q| q.failed)
    };
    assert!(!refused(&world), "a query was refused");
    world.end().unwrap();
}

#[test]
fn a_row_that_only_the_hydration_saw_is_sent_to_nobody() {
    let mut world = reading_again(0);
    world.write("+big 5000 1");
    world.core.start_hydrations(RACING);
    // The core goes to a snapshot that does not have the row, past the one that had it.
    world.write("-big 5000");
    world.batch();
    settled(world);
}

#[test]
fn contents_that_only_the_hydration_saw_are_sent_to_nobody() {
    let mut world = reading_again(0);
    world.write("big 7 n=9");
    world.core.start_hydrations(RACING);
    world.write("big 7 n=1");
    world.batch();
    settled(world);
}

#[test]
fn witnesses_that_the_hydration_chose_are_those_of_the_view() {
    let mut world = reading_again(1);
    world.write("-tag b");
    world.core.start_hydrations(RACING);
    world.write("+tag b - 1");
    world.batch();
    settled(world);
}

#[test]
fn a_hydration_whose_view_is_gone_harms_nobody() {
    let mut world = reading_again(1);
    world.core.start_hydrations(RACING);
    // The rows of the table are read, witnesses are still to come.
    world.core.step_hydration(0, 1_300);
    let over = ProtocolError::new(Kind::Internal, "over");
    for group in 0..2 {
        world.disconnect(group, 0);
        world.core.syncer().fail_group(&format!("g{group}").as_str().into(), &over);
        world.groups[group].tabs.clear();
        world.groups[group].history.clear();
    }
    // Another view takes the number of the one that is gone, while its hydration goes on.
    world.tab(0, &[0]);
    world.reply(&mut Choices::new((0, 0)), false);
    settled(world);
}
