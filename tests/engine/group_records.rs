//! A core that comes back with large views stands still while it writes them again, or does not have
//! them whole afterwards; or with a view that changed in more than its journal keeps.

use crate::model::choices::Choices;
use crate::model::disk::{Disk, End};
use crate::model::world::World;

const LARGE: usize = 8;
const ROWS: usize = 350;

/// Writes everything; returns how many steps that took.
fn written(world: &mut World) -> usize {
    let mut steps = 0;
    loop {
        world.flush();
        if !world.core.syncer().is_filling() {
            return steps;
        }
        steps += 1;
    }
}

#[test]
fn a_large_view_that_nobody_came_back_to_is_written_in_pieces() {
    let mut choices = Choices::new((0, 0));
    let mut world = World::new(1, ROWS);
    world.start_recording(Disk::new(true));
    world.batch();
    world.tab(0, &[LARGE]);
    world.settled();
    written(&mut world);
    world.crash(&mut choices, End::Kill);
    // It ends again in the middle of it.
    (0..ROWS / 20).for_each(|_| world.flush());
    assert!(world.core.syncer().is_filling());
    world.crash(&mut choices, End::Kill);
    assert!(written(&mut world) > ROWS / 10, "it is not written in one step");
    world.crash(&mut choices, End::Kill);
    world.connect(&mut choices, 0, 0).unwrap();
    world.settled();
    let tab = &world.groups[0].tabs[0].receiver;
    assert_eq!((tab.store.rows.len(), tab.clears), (ROWS, 0), "it goes on with what it had");
    world.end().unwrap();
}

/// Items: a few rows.
const ITEMS: usize = 0;

#[test]
fn a_batch_that_changes_more_than_a_journal_keeps_is_not_taken_for_one_that_changed_nothing() {
    let mut choices = Choices::new((0, 0));
    let mut world = World::with_journals_of(2);
    world.start_recording(Disk::new(true));
    world.write("+item a - 1 -; +item b - 1 -; +item c - 1 -");
    world.tab(0, &[ITEMS]);
    world.settled();
    written(&mut world);
    // The batch is recorded, and the server ends before anybody is told.
    world.replicate("item a n=2; item b n=2; item c n=2");
    world.flush();
    world.crash(&mut choices, End::Kill);
    world.connect(&mut choices, 0, 0).unwrap();
    world.settled();
    world.end().unwrap();
}

#[test]
fn a_view_read_anew_that_differs_in_more_than_a_journal_keeps_is_not_taken_for_one_that_is_as_it_was() {
    let mut choices = Choices::new((0, 0));
    let mut world = World::with_journals_of(2);
    world.start_recording(Disk::new(true));
    world.write("+item a - 1 -; +item b - 1 -; +item c - 1 -");
    world.tab(0, &[ITEMS]);
    world.settled();
    written(&mut world);
    // What changed is not known: the view is left aside and read once more.
    world.write("item a n=2; item b n=2; item c n=2");
    world.core.lose_commits();
    world.batch();
    world.flush();
    let read = world.core.counts.hydrations;
    world.core.start_hydrations(false);
    while world.core.hydrations() > 0 {
        world.core.step_hydration(0, usize::MAX);
    }
    assert_eq!(world.core.counts.hydrations, read + 1);
    // That it is back is recorded, and the server ends before anybody is told of the rows, which are the same
    // ones with other contents.
    world.flush();
    world.crash(&mut choices, End::Kill);
    world.connect(&mut choices, 0, 0).unwrap();
    world.settled();
    world.end().unwrap();
}
