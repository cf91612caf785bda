//! What the tasks of a core leave to each other goes wrong: the lock after a batch that failed, readers, snapshots that
//! a commit comes between, threads that read for nobody.

use kelvin::core::host::Memory;
use kelvin::core::recording::RecordQueue;
use kelvin::groups::housekeeping::READ_FOR_NOBODY;
use kelvin::protocol::error::{Kind, ProtocolError};

use crate::model::choices::Choices;
use crate::model::core::{BATCHES, ENDLESS, GROUPS, HYDRATION, STARTING};
use crate::model::disk::Disk;
use crate::model::host::{Moment, ROOM};
use crate::model::world::World;

const ITEMS: usize = 0;
const NAMED: usize = 5;
const LARGE: usize = 8;

/// A tab with one item in a group of its own, and a second group; the core has one reader that is idle.
fn world(large: usize) -> World {
    let mut world = World::new(2, large);
    world.watch();
    world.write("+item a - 1 -");
    world.tab(0, &[ITEMS]);
    world.settled();
    assert_eq!(world.core.opened(), 1);
    world
}

/// A group wants the large table, and its hydration has taken the idle reader.
fn reading(world: &mut World) {
    world.tab(1, &[LARGE]);
    world.reply(&mut Choices::new((0, 0)), false);
    world.core.start_hydrations(false);
    assert_eq!((world.core.hydrations(), world.core.opened()), (1, 1));
}

/// What the tab of the first group holds when it has read all that it was sent.
fn told(world: &mut World) -> usize {
    world.receive(0, 0, usize::MAX).unwrap();
    world.groups[0].tabs[0].receiver.store.rows.len()
}

/// Whether the query of the large table was refused to a group.
fn is_refused(world: &World, group: usize) -> bool {
    let syncer = world.core.look();
    let group = syncer.groups.get(world.groups[group].id.as_str());
    group.and_then(|group| group.queries.get("q8")).is_some_and(|query| query.failed)
}

fn settled(mut world: World) {
    world.core.set_memory(ROOM);
    world.settled();
    world.end().unwrap();
}

#[test]
fn a_reader_serves_one_hydration_after_the_other() {
    let mut world = world(0);
    world.write("+named a a 1");
    world.tab(1, &[NAMED]);
    world.settled();
    assert_eq!(world.core.opened(), 1, "each hydration opens the file once more");
    // One that ends without a result, and a batch that reads a view.
    world.tab(0, &[NAMED, ITEMS]);
    let items = world.view(0, ITEMS);
    world.read_inline(items);
    world.replicate("truncate item; +item b - 1 -");
    world.settled();
    assert_eq!(world.core.opened(), 1, "a batch keeps the reader that it read a view with");
    settled(world);
}

#[test]
fn a_commit_between_the_two_snapshots_of_a_batch_is_in_both_or_in_none() {
    let mut world = world(350);
    reading(&mut world);
    let items = world.view(0, ITEMS);
    world.read_inline(items);
    world.write("truncate item; +item b - 1 -");
    world.write_at(Moment::Opening, "+item c - 1 -; item b s=x");
    world.batch();
    assert!(!world.core.awaits_commit(), "the view was not read within the batch");
    while world.work() {}
    told(&mut world);
    settled(world);
}

#[test]
fn a_batch_that_fails_is_tried_again_by_itself() {
    let mut world = world(350);
    reading(&mut world);
    let items = world.view(0, ITEMS);
    world.read_inline(items);
    world.write("truncate item; +item b - 1 -; +item c - 1 -");
    world.core.fail_to_open();
    // Nothing happens outside but what the core asks for.
    while world.core.run(BATCHES, ENDLESS) {}
    world.core.end_batch();
    assert_eq!(world.core.counts.failed, 1);
    while world.work() {}
    assert_eq!(told(&mut world), 2, "nobody begins the batch anew");
    settled(world);
}

#[test]
fn groups_that_waited_for_a_batch_that_failed_go_on_waiting() {
    let mut world = world(350);
    let items = world.view(0, ITEMS);
    world.write("item a n=3");
    world.core.run(BATCHES, 0);
    assert!(world.core.is_busy(), "the batch was over at once");
    world.write("item a n=4");
    // In this order: a hydration that has to bring the core forward, and the work of groups.
    world.tab(1, &[LARGE]);
    world.reply(&mut Choices::new((0, 0)), false);
    world.core.limit(|limits| limits.begins = 3);
    world.core.run(STARTING, ENDLESS);
    world.core.run(HYDRATION, ENDLESS);
    let line = world.groups[0].tabs[0].line.as_ref().map(|line| line.id);
    world.core.syncer().drained(line.unwrap());
    world.core.run(GROUPS, 0);
    world.core.run(BATCHES, ENDLESS);
    // The next batch cannot be done.
    world.read_inline(items);
    world.core.fail_to_open();
    world.core.run(HYDRATION, ENDLESS);
    assert_eq!(world.core.counts.failed, 1, "the batch of the hydration did not fail");
    let before = world.groups[0].tabs[0].receiver.pokes;
    world.core.run(GROUPS, 0);
    told(&mut world);
    assert_eq!(world.groups[0].tabs[0].receiver.pokes, before, "groups read what their views do not have");
    settled(world);
}

#[test]
fn snapshots_begin_anew_only_when_nobody_has_one() {
    let mut world = world(350);
    assert!(world.core.rebegin());
    reading(&mut world);
    assert!(!world.core.rebegin(), "the snapshot of a hydration is not begun anew");
    while world.core.hydrations() > 0 {
        world.core.step_hydration(0, usize::MAX);
    }
    world.settled();
    world.write("item a n=3");
    world.core.run(BATCHES, 0);
    assert!(world.core.is_busy());
    assert!(!world.core.rebegin(), "a batch is half way");
    world.core.end_batch();
    assert!(world.core.rebegin());
    settled(world);
}

#[test]
fn a_thread_that_reads_more_than_one_view_may_have_is_stopped() {
    let mut world = world(1_300);
    reading(&mut world);
    world.core.step_hydration(0, 1);
    assert!(!world.core.is_stopped(0));
    world.core.set_memory(Memory { of_view: 1, ..ROOM });
    world.core.step_hydration(0, 1);
    assert!(world.core.is_stopped(0), "it reads on, and nobody wants what it finds");
    while world.core.hydrations() > 0 {
        world.core.step_hydration(0, usize::MAX);
    }
    assert!(is_refused(&world, 1), "nobody is told that it is too much");
}

#[test]
fn a_thread_that_reads_for_nobody_is_stopped() {
    let mut world = world(1_300);
    reading(&mut world);
    world.disconnect(1, 0);
    world.now += READ_FOR_NOBODY;
    world.core.syncer().tick(world.now);
    assert!(world.core.is_stopped(0), "it reads on for nobody");
    while world.core.hydrations() > 0 {
        world.core.step_hydration(0, usize::MAX);
    }
    settled(world);
}

#[test]
fn who_gets_the_reader_of_a_reading_that_was_stopped_can_read() {
    let mut world = World::new(2, 1_300);
    world.watch();
    world.write("+item a - 1 -");
    world.tab(0, &[LARGE]);
    world.settled();
    let large = world.view(0, LARGE);
    world.tab(1, &[ITEMS]);
    world.reply(&mut Choices::new((0, 0)), false);
    world.core.start_hydrations(false);
    assert_eq!((world.core.hydrations(), world.core.opened()), (1, 1));
    world.disconnect(1, 0);
    world.now += READ_FOR_NOBODY;
    world.core.syncer().tick(world.now);
    assert!(world.core.is_stopped(0));
    while world.core.hydrations() > 0 {
        world.core.step_hydration(0, usize::MAX);
    }
    // The batch takes that reader.
    world.read_inline(large);
    world.write("big 7 n=9");
    world.core.lose_commits();
    world.batch();
    while world.work() {}
    assert_eq!(world.core.opened(), 1);
    assert!(!is_refused(&world, 0), "a query was refused for want of a reader");
    settled(world);
}

#[test]
fn what_a_large_view_that_is_gone_has_left_goes_by_itself() {
    let mut world = World::new(1, 5_000);
    world.tab(0, &[LARGE]);
    world.settled();
    let over = ProtocolError::new(Kind::Internal, "over");
    world.core.syncer().fail_group(&"g0".into(), &over);
    assert!(world.core.look().shared.views.has_deferred_drops(), "the view is so small that it goes at once");
    // Nothing else happens.
    while world.core.work() {}
    assert!(!world.core.look().shared.views.has_deferred_drops(), "it stays until somebody comes");
}

#[test]
fn views_wait_while_there_is_no_room_for_their_records_and_no_longer() {
    let mut world = world(0);
    world.core.limit(|limits| limits.records.waiting_bytes = 0);
    world.start_recording(Disk::new(true));
    // One record is being written, and one waits.
    world.replicate("item a n=3");
    assert_eq!(world.core.record_queue(), RecordQueue::Overfull);
    world.tab(1, &[NAMED]);
    world.reply(&mut Choices::new((0, 0)), false);
    world.core.start_hydrations(false);
    assert_eq!(world.core.hydrations(), 0, "more is read than the disk takes");
    world.flush();
    world.core.start_hydrations(false);
    assert_eq!(world.core.hydrations(), 1, "nobody reads when there is room again");
    settled(world);
}
