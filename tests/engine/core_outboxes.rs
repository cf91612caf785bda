//! What is told before it is recorded, or after it cannot be; and connections that nobody goes on with when their
//! sockets take more again.

use std::panic::{AssertUnwindSafe, catch_unwind};

use kelvin::core::host::{Memory, Pressure};
use kelvin::groups::sink::Sink;

use crate::model::disk::Disk;
use crate::model::host::ROOM;
use crate::model::socket::{Came, Line};
use crate::model::world::World;

const ITEMS: usize = 0;
const LARGE: usize = 8;

/// A tab that has a row and whose group is recorded.
fn world() -> World {
    let mut world = World::new(1, 350);
    world.watch();
    world.start_recording(Disk::new(true));
    world.write("+item a - 1 -");
    world.tab(0, &[ITEMS]);
    world.settled();
    world
}

fn line(world: &World, tab: usize) -> Line {
    world.groups[0].tabs[tab].line.clone().expect("connected")
}

/// A commit that the tab is told of, as soon as it is recorded.
fn tell(world: &mut World, script: &str) {
    world.replicate(script);
    while world.work() {}
}

/// How many pokes the tab has taken, reading all that was sent to it.
fn told(world: &mut World) -> usize {
    world.receive(0, 0, usize::MAX).unwrap();
    world.groups[0].tabs[0].receiver.pokes
}

#[test]
fn what_is_told_while_a_record_is_written_goes_with_the_next_one() {
    let mut world = world();
    let before = told(&mut world);
    tell(&mut world, "item a n=2");
    // The batch is being written; this is told before that is done, and recorded after it.
    tell(&mut world, "item a n=3");
    assert_eq!(told(&mut world), before, "it was told before anything of it was recorded");
    assert!(world.written());
    let first = told(&mut world);
    assert!(first <= before + 1, "it was told before it was recorded");
    while world.written() {}
    assert_eq!(told(&mut world), before + 2);
    world.settled();
    world.end().unwrap();
}

#[test]
fn nobody_is_told_what_a_call_that_panicked_left_behind() {
    let mut world = world();
    let before = told(&mut world);
    tell(&mut world, "item a n=2");
    let call = AssertUnwindSafe(|| {
        let _syncer = world.core.syncer();
        std::panic::resume_unwind(Box::new("half way"));
    });
    assert!(catch_unwind(call).is_err());
    world.commit(Vec::new());
    assert!(!world.core.goes_on(), "what is half done is gone on with");
    while world.written() {}
    assert_eq!(told(&mut world), before, "it may be half done, and was told");
}

#[test]
fn a_disk_that_fails_sends_clients_away_and_tells_nobody_what_is_not_recorded() {
    let mut world = world();
    let before = told(&mut world);
    tell(&mut world, "item a n=2");
    let line = line(&world, 0);
    world.core.take_writes();
    world.core.record_failed();
    assert!(line.outbox.has_ended());
    world.core.write(&line);
    let Some(Came::Frame(frame)) = line.socket.next() else { panic!("nobody says why") };
    let text = String::from_utf8_lossy(&frame).into_owned();
    assert!(text.contains("Rehome") && !text.contains("poke"), "{text}");
    assert!(matches!(line.socket.next(), Some(Came::Close)));
    // Nothing is written before the disk takes it.
    world.disconnect(0, 0);
    tell(&mut world, "item a n=3");
    assert!(world.core.take_writes().is_empty());
    world.core.record_recovered();
    let mut choices = crate::model::choices::Choices::new((0, 0));
    world.connect(&mut choices, 0, 0).unwrap();
    world.settled();
    assert!(world.groups[0].tabs[0].receiver.pokes > 0 && before > 0);
    world.end().unwrap();
}

/// A poke that is held takes as much room as one that waits for the socket; when it has gone nothing else may
/// happen for hours.
#[test]
fn a_tab_that_was_behind_because_of_what_was_held_goes_on_by_itself() {
    let mut world = world();
    world.core.limit(|limits| limits.outboxes.bytes = 1);
    let late = world.tab(0, &[ITEMS]);
    while world.work() {}
    assert!(line(&world, late).outbox.is_behind(), "it was told all at once");
    while world.written() {
        while world.core.work() {}
    }
    world.receive(0, late, usize::MAX).unwrap();
    assert_eq!(world.groups[0].tabs[late].receiver.store.rows.len(), 1, "nobody goes on");
    world.settled();
    world.end().unwrap();
}

#[test]
fn a_tab_whose_socket_takes_more_again_goes_on_by_itself() {
    let mut world = World::new(1, 350);
    world.core.limit(|limits| limits.outboxes.bytes = 1_000);
    let tab = world.tab(0, &[LARGE]);
    line(&world, tab).socket.stopped.set(true);
    let mut choices = crate::model::choices::Choices::new((0, 0));
    world.reply(&mut choices, false);
    world.core.start_hydrations(false);
    while world.core.hydrations() > 0 {
        world.core.step_hydration(0, usize::MAX);
    }
    while world.work() {}
    assert!(line(&world, tab).outbox.is_behind());
    line(&world, tab).socket.stopped.set(false);
    for _ in 0..1_000 {
        world.receive(0, tab, usize::MAX).unwrap();
        while world.core.work() {}
    }
    assert_eq!(world.groups[0].tabs[tab].receiver.store.rows.len(), 350, "nobody goes on");
    world.settled();
    world.end().unwrap();
}

#[test]
fn less_waits_for_a_socket_while_memory_is_tight() {
    let mut world = World::new(1, 0);
    world.core.limit(|limits| {
        limits.outboxes.bytes = 1_000;
        limits.outboxes.tight_bytes = 10;
    });
    let tab = world.tab(0, &[ITEMS]);
    world.settled();
    let line = line(&world, tab);
    line.socket.stopped.set(true);
    line.outbox.message(&[b' '; 100]);
    assert!(!line.outbox.is_behind());
    world.core.set_memory(Memory { pressure: Pressure::Tight, ..ROOM });
    world.core.tick();
    assert!(line.outbox.is_behind(), "many slow sockets fill the memory");
    world.core.set_memory(ROOM);
    world.core.tick();
    assert!(!line.outbox.is_behind());
}
