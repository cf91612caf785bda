//! Memory is full, and those are sent away who hardly take any (`docs/decisions/008-overload.md`).

use crate::model::world::World;
use kelvin::groups::shedding::Excess;
use kelvin::model::ids::ConnectionId;
use kelvin::protocol::error::ProtocolError;
use kelvin::protocol::upstream::{QueryBody, QueryOp};

/// Items, and names: one query each.
const ITEMS: usize = 0;
const NAMES: usize = 5;

fn connected(world: &World) -> Vec<bool> {
    let syncer = world.core.syncer();
    world.groups.iter().map(|group| !syncer.groups[group.id.as_str()].connections.is_empty()).collect()
}

/// Sends groups away until so many bytes are free.
fn shed(world: &mut World, bytes: usize) -> usize {
    let error = ProtocolError::overloaded("there is no memory", 5_000);
    let excess = Excess { bytes, in_use: bytes, stays: true };
    world.core.syncer().shed_connected(excess, |_| 0, &error, world.now)
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

/// A query that is spelled by so many bytes; its answer does not come.
fn large(hash: &str, args: &str) -> QueryOp<'static> {
    let args: &'static str = args.to_owned().leak();
    let args = serde_json::from_str(args).expect("JSON");
    QueryOp::Put {
        hash: hash.to_owned(),
        ttl: None,
        query: Some(QueryBody::Named { name: "large".to_owned(), args }),
    }
}

/// The connection of a group.
fn connection(world: &World, group: usize) -> ConnectionId {
    world.core.syncer().groups[world.groups[group].id.as_str()].connections[0].id
}

#[test]
fn what_spells_queries_counts_for_who_sent_it() {
    let mut world = world();
    let args = format!("[\"{}\"]", "x".repeat(1 << 20));
    let (id, now) = (connection(&world, 0), world.now);
    world.core.syncer().change_desired(id, &[large("h", &args)], now).expect("it is within the limits");
    assert_eq!(shed(&mut world, 1), 1);
    assert_eq!(connected(&world), [false, true], "it has the smaller rows, but its query is a megabyte");
    // Its views are gone, and what is left is still large: it is forgotten.
    assert_eq!(world.core.syncer().shed_large(1), 1);
    assert!(!world.core.syncer().groups.contains_key(world.groups[0].id.as_str()));
    assert_eq!(world.core.syncer().shed_large(1), 0, "the other one is connected");
}

#[test]
fn who_takes_little_is_not_sent_away_with_who_takes_much() {
    let mut world = world();
    let args = format!("[\"{}\"]", "x".repeat(1 << 20));
    let (id, now) = (connection(&world, 0), world.now);
    world.core.syncer().change_desired(id, &[large("h", &args)], now).expect("it is within the limits");
    assert_eq!(shed(&mut world, 1 << 30), 1, "though that is not enough");
    assert_eq!(connected(&world), [false, true]);
}

#[test]
fn what_is_on_the_way_goes_with_the_large_ones_that_sent_it() {
    let world = world();
    let (now, error) = (world.now, ProtocolError::overloaded("there is no memory", 5_000));
    for (group, bytes) in [(0, 1 << 20), (1, 1 << 19)] {
        let args = format!("[\"{}\"]", "x".repeat(bytes));
        let id = connection(&world, group);
        world.core.syncer().change_desired(id, &[large("h", &args)], now).expect("it is within the limits");
    }
    // A hundred times what is known is in use, and three fifths of it have to go.
    let mut excess = Excess { bytes: 90 << 20, in_use: 150 << 20, stays: false };
    assert_eq!(world.core.syncer().shed_connected(excess, |_| 0, &error, now), 0, "it would not help");
    excess.stays = true;
    assert_eq!(world.core.syncer().shed_connected(excess, |_| 0, &error, now), 1);
    assert_eq!(connected(&world), [false, true]);
}

#[test]
fn what_waits_for_the_app_or_a_socket_counts_for_who_caused_it() {
    let world = world();
    let (id, now) = (world.groups[0].id.clone(), world.now);
    let error = ProtocolError::overloaded("there is no memory", 5_000);
    let elsewhere = |group: &str| if group == id.as_str() { 1 << 20 } else { 0 };
    assert_eq!(
        world.core.syncer().shed_connected(
            Excess { bytes: 1, in_use: 1, stays: true },
            elsewhere,
            &error,
            now
        ),
        1
    );
    assert_eq!(connected(&world), [false, true]);

    let mut world = self::world();
    world.groups[0].tabs[0].line.as_ref().expect("connected").socket.stopped.set(true);
    let sink = world.core.syncer().groups[world.groups[0].id.as_str()].connections[0].sink.clone();
    sink.send(&[vec![0; 1 << 20].into()]);
    assert_eq!(shed(&mut world, 1), 1);
    assert_eq!(connected(&world), [false, true]);
}
