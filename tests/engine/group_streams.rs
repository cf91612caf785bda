//! A large result that is sent while it is read is not what the query says, or what a tab
//! was sent in vain stays with it (rule 22).

use crate::model::choices::Choices;
use crate::model::world::{World, put};
use kelvin::groups::syncer::KEEP_ENCODED;
use kelvin::protocol::error::{Kind, ProtocolError};
use kelvin::protocol::upstream::QueryOp;

const LARGE: usize = 8;

/// Rows of the table, read two parts at a time.
const ROWS: usize = 1_300;

fn choices() -> Choices {
    Choices::new((0, 0))
}

fn come(world: &mut World, group: usize, query: usize) {
    world.tab(group, &[query]);
    world.reply(&mut choices(), false);
}

/// A tab that has been sent the first rows of the large view, and has read them.
fn streaming() -> World {
    let mut world = World::new(2, ROWS);
    come(&mut world, 0, LARGE);
    world.mutate(&mut choices(), 0);
    world.batch();
    world.core.syncer().work(&"g0".into(), world.now);
    world.core.start_hydrations(false);
    read_on(&mut world);
    assert_eq!(world.core.streams(), 1, "the rows wait for the end of the hydration");
    world.receive(0, 0, usize::MAX).unwrap();
    assert!(world.groups[0].tabs[0].receiver.is_in_poke(), "no poke is open");
    world
}

fn read_on(world: &mut World) {
    world.core.step_hydration(0, 200);
}

fn settled(mut world: World) {
    world.settled();
    world.end().unwrap();
}

#[test]
fn rows_that_change_while_they_are_sent_are_corrected() {
    let mut world = streaming();
    // Of the first rows, that have been sent; of the last, that have not; and new ones.
    world.write("big 7 n=9; -big 8; big 1250 n=9; -big 1251; +big 5000 1");
    world.batch();
    read_on(&mut world);
    world.write("big 7 n=5; +big 8 3; -big 5000");
    settled(world);
}

#[test]
fn what_a_tab_gave_up_is_taken_back() {
    let mut world = streaming();
    world.groups[0].tabs[0].wanted.clear();
    world.want(0, 0, vec![QueryOp::Clear]).unwrap();
    settled(world);
}

#[test]
fn what_a_tab_gave_up_is_taken_back_though_others_have_it() {
    let mut world = streaming();
    come(&mut world, 1, LARGE);
    world.groups[0].tabs[0].wanted.clear();
    world.want(0, 0, vec![QueryOp::Clear]).unwrap();
    settled(world);
}

#[test]
fn another_answer_of_the_app_takes_back_what_was_sent() {
    let mut world = streaming();
    // Nothing else happens: the cookie stays, and a poke at it must not say anything.
    world.groups[0].forms[LARGE] = 1;
    world.ask(0, true);
    world.reply(&mut choices(), false);
    settled(world);
}

#[test]
fn a_group_that_comes_meanwhile_gets_all_rows() {
    let mut world = streaming();
    come(&mut world, 1, LARGE);
    world.write("big 7 n=9; -big 8");
    while world.core.hydrations() > 0 {
        read_on(&mut world);
    }
    world.core.start_hydrations(false);
    assert_eq!(world.core.hydrations(), 1, "the others are not read a hydration of their own");
    settled(world);
}

#[test]
fn a_second_tab_that_comes_meanwhile_gets_all_rows() {
    let mut world = streaming();
    come(&mut world, 0, LARGE);
    read_on(&mut world);
    settled(world);
}

#[test]
fn a_second_tab_that_shares_the_disk_of_the_first_gets_all_rows() {
    let mut world = streaming();
    let store = world.groups[0].tabs[0].receiver.store.clone();
    come(&mut world, 0, LARGE);
    world.disconnect(0, 1);
    world.groups[0].tabs[1].receiver.store = store;
    world.connect(&mut choices(), 0, 1).unwrap();
    read_on(&mut world);
    settled(world);
}

#[test]
fn a_tab_that_leaves_meanwhile_and_comes_back_gets_all_rows() {
    let mut world = streaming();
    world.disconnect(0, 0);
    read_on(&mut world);
    world.connect(&mut choices(), 0, 0).unwrap();
    settled(world);
}

#[test]
fn a_query_that_comes_meanwhile_is_answered() {
    let mut world = streaming();
    world.groups[0].tabs[0].wanted.insert(0);
    world.want(0, 0, vec![put(0, 300_000.0)]).unwrap();
    world.reply(&mut choices(), false);
    world.write("+tag a - 0");
    read_on(&mut world);
    settled(world);
}

#[test]
fn a_hydration_that_fails_takes_back_what_was_sent() {
    let mut world = streaming();
    let request = world.core.reading(0).request;
    world.core.syncer().hydration_failed(request, None, "the disk is gone");
    world.settle().unwrap();
    let receiver = &world.groups[0].tabs[0].receiver;
    assert!(!receiver.is_in_poke(), "the poke was never ended");
    assert!(receiver.store.rows.is_empty(), "rows of a refused query are left");
    world.end().unwrap();
}

#[test]
fn a_group_that_ends_meanwhile_leaves_nothing() {
    let mut world = streaming();
    world.disconnect(0, 0);
    let over = ProtocolError::new(Kind::Internal, "over");
    world.core.syncer().fail_group(&"g0".into(), &over);
    world.groups[0].tabs.clear();
    world.groups[0].history.clear();
    read_on(&mut world);
    come(&mut world, 0, 0);
    settled(world);
}

#[test]
fn rows_that_only_the_hydration_saw_are_sent_to_nobody() {
    let mut world = World::new(2, ROWS);
    come(&mut world, 0, LARGE);
    world.settle().unwrap();
    world.now += KEEP_ENCODED;
    world.core.syncer().tick(world.now);
    come(&mut world, 1, LARGE);
    world.write("+big -5 1");
    world.core.start_hydrations(true);
    world.write("-big -5");
    world.batch();
    read_on(&mut world);
    settled(world);
}

#[test]
fn a_view_that_lives_is_sent_while_it_is_read_again() {
    let mut world = World::new(2, ROWS);
    come(&mut world, 0, LARGE);
    world.settle().unwrap();
    world.now += KEEP_ENCODED;
    world.core.syncer().tick(world.now);
    come(&mut world, 1, LARGE);
    world.core.start_hydrations(false);
    read_on(&mut world);
    assert_eq!(world.core.streams(), 1, "the rows wait for the end of the hydration");
    world.write("big 7 n=9; -big 8; big 1250 n=9; -big 1251; +big 5000 1");
    world.batch();
    settled(world);
}

#[test]
fn a_tab_that_has_other_rows_is_not_held_up() {
    let mut world = World::new(1, ROWS);
    world.write("+tag a - 0");
    come(&mut world, 0, 0);
    world.settle().unwrap();
    world.groups[0].tabs[0].wanted.insert(LARGE);
    world.want(0, 0, vec![put(LARGE, 300_000.0)]).unwrap();
    world.reply(&mut choices(), false);
    world.core.start_hydrations(false);
    read_on(&mut world);
    assert_eq!(world.core.streams(), 0, "a long poke is open before live rows");
    settled(world);
}
