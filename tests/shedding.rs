//! Memory is full, and those are sent away who hardly take any (`docs/decisions/008-overload.md`).

mod model;

use kelvin::protocol::error::ProtocolError;
use model::world::World;

/// Items, and names: one query each.
const ITEMS: usize = 0;
const NAMES: usize = 5;

fn connected(world: &World) -> Vec<bool> {
    let groups = &world.core.syncer.groups;
    world.groups.iter().map(|group| !groups[group.id.as_str()].connections.is_empty()).collect()
}

/// Sends groups away until so many bytes are free.
fn shed(world: &mut World, bytes: usize) -> usize {
    let error = ProtocolError::overloaded("there is no memory", 5_000);
    world.core.syncer.shed_connected(bytes, &error, world.now)
}

/// One group has many small rows, another has fewer with long keys.
fn world() -> World {
    let mut world = World::new(2, 0);
    let names: Vec<String> = (0..60).map(|n| format!("+named n{n} x{n} 1")).collect();
    let long = "k".repeat(400);
    let items: Vec<String> = (0..40).map(|n| format!("+item {long}{n} - 1 -")).collect();
    world.write(&names.join("; "));
    world.write(&items.join("; "));
    world.tab(0, &[NAMES]);
    world.tab(1, &[ITEMS]);
    world.settled();
    assert_eq!(connected(&world), [true, true]);
    world
}

#[test]
fn whose_rows_have_long_keys_goes_before_who_has_more_rows() {
    let mut world = world();
    assert_eq!(shed(&mut world, 1), 1);
    assert_eq!(connected(&world), [true, false]);
}

#[test]
fn no_more_are_sent_away_than_make_the_room() {
    let mut world = world();
    // What the keys alone take.
    assert_eq!(shed(&mut world, 40 * 400), 1);
    assert_eq!(connected(&world), [true, false]);
    assert_eq!(shed(&mut world, 1 << 30), 1);
    assert_eq!(connected(&world), [false, false]);
}
