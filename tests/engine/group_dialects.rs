//! Connections that speak different dialects, within one group and beside each other.

use crate::model::choices::Choices;
use crate::model::dialects::Dialects;
use crate::model::world::World;
use kelvin::protocol::dialect::Dialect;
use kelvin::protocol::upstream::QueryOp;

/// Rows of the large view, and its query.
const ROWS: usize = 1_300;
const LARGE: usize = 8;

fn choices() -> Choices {
    Choices::new((0, 0))
}

/// A tab of the group that speaks this dialect.
fn come(world: &mut World, group: usize, dialect: Dialect, wanted: &[usize]) {
    world.dialects = Dialects::only(dialect);
    world.tab(group, wanted);
    world.reply(&mut choices(), false);
}

/// From now on what is told to the first tab of a group waits in its outbox.
fn stop(world: &World, group: usize) {
    world.groups[group].tabs[0].line.as_ref().expect("connected").socket.stopped.set(true);
}

/// Where the frames are that wait for the first tab of a group.
fn frames(world: &World, group: usize) -> Vec<*const u8> {
    let line = world.groups[group].tabs[0].line.as_ref().expect("connected");
    line.outbox.offer(|frames| frames.iter().map(|frame| frame.as_ptr()).collect())
}

fn in_common(one: &[*const u8], other: &[*const u8]) -> usize {
    one.iter().filter(|frame| other.contains(frame)).count()
}

#[test]
fn tabs_of_one_group_hold_the_same_whatever_they_speak() {
    let mut world = World::new(1, ROWS);
    world.watch();
    for dialect in [Dialect::Text, Dialect::Binary, Dialect::Binary, Dialect::Text] {
        come(&mut world, 0, dialect, &[0, 1, LARGE]);
        world.settled();
        world.write("big 7 n=9; -big 8; +tag x - 1");
        world.settled();
        world.write("+big 8 3; -tag x");
    }
    // Each comes back with the other one.
    for (tab, dialect) in
        [Dialect::Binary, Dialect::Text, Dialect::Text, Dialect::Binary].into_iter().enumerate()
    {
        world.disconnect(0, tab);
        world.write("big 7 n=1");
        world.batch();
        world.dialects = Dialects::only(dialect);
        world.connect(&mut choices(), 0, tab).unwrap();
        world.write("big 7 n=9");
        world.settled();
    }
    world.end().unwrap();
}

#[test]
fn groups_share_the_frames_of_a_step_with_those_who_speak_the_same() {
    for dialect in Dialect::ALL {
        let mut world = World::new(3, ROWS);
        for group in 0..2 {
            come(&mut world, group, dialect, &[LARGE]);
        }
        let other = if dialect == Dialect::Text { Dialect::Binary } else { Dialect::Text };
        come(&mut world, 2, other, &[LARGE]);
        world.settled();
        (0..3).for_each(|group| stop(&world, group));
        world.write("big 7 n=9");
        world.batch();
        for group in ["g0", "g1", "g2"] {
            world.core.syncer().work(&group.into(), world.now);
        }
        let told: Vec<Vec<*const u8>> = (0..3).map(|group| frames(&world, group)).collect();
        assert_eq!([told[0].len(), told[1].len(), told[2].len()], [3, 3, 3], "a beginning, the rows, an end");
        assert_eq!(in_common(&told[0], &told[1]), 2, "rows and end are shared in {dialect:?}");
        assert_eq!(in_common(&told[0], &told[2]), 1, "the end is the same in all dialects");
    }
}

/// Bytes of all encoded views, and those that were written when they were read.
fn encoded(world: &World) -> (usize, usize) {
    let syncer = world.core.look();
    let views = syncer.shared.encoded.values();
    views.fold((0, 0), |(bytes, size), view| (bytes + view.bytes(), size + view.size))
}

#[test]
fn a_view_is_encoded_once_unless_both_dialects_are_waited_for_in() {
    for (dialects, copies) in [
        ([Dialect::Text, Dialect::Text], false),
        ([Dialect::Binary, Dialect::Binary], false),
        ([Dialect::Text, Dialect::Binary], true),
        ([Dialect::Binary, Dialect::Text], true),
    ] {
        let mut world = World::new(2, ROWS);
        // None is sent while it is read.
        world.core.limit(|limits| limits.stream_from = usize::MAX);
        for (group, dialect) in dialects.into_iter().enumerate() {
            come(&mut world, group, dialect, &[LARGE]);
        }
        world.settled();
        let (bytes, size) = encoded(&world);
        assert!(size > 0, "nothing is encoded");
        assert_eq!(bytes > size, copies, "{bytes} of {size} for {dialects:?}");
        world.end().unwrap();
    }
}

#[test]
fn a_group_that_comes_later_is_sent_the_parts_that_are_there() {
    for dialect in Dialect::ALL {
        let mut world = World::new(2, ROWS);
        come(&mut world, 0, dialect, &[LARGE]);
        // A second tab: so the rows are not sent while they are read.
        come(&mut world, 0, dialect, &[LARGE]);
        world.settled();
        come(&mut world, 1, dialect, &[LARGE]);
        stop(&world, 1);
        let parts = world.core.look().shared.encoded.values().map(|view| view.parts.len()).sum::<usize>();
        assert!(parts > 10, "{parts} parts");
        let shared: Vec<*const u8> = {
            let syncer = world.core.look();
            let views = syncer.shared.encoded.values().flat_map(|view| &view.parts);
            views.map(|part| part.encoded.frames(dialect)[0].as_ptr()).collect()
        };
        world.core.syncer().work(&"g1".into(), world.now);
        let found = in_common(&shared, &frames(&world, 1));
        assert_eq!(found, parts, "in {dialect:?}");
    }
}

/// A tab that has been sent the first rows of the large view, in its dialect, and has read them.
fn streaming(dialect: Dialect) -> World {
    let mut world = World::new(2, ROWS);
    come(&mut world, 0, dialect, &[LARGE]);
    world.mutate(&mut choices(), 0);
    world.batch();
    world.core.syncer().work(&"g0".into(), world.now);
    world.core.start_hydrations(false);
    world.core.step_hydration(0, 200);
    assert_eq!(world.core.streams(), 1, "the rows wait for the end of the hydration");
    world.receive(0, 0, usize::MAX).unwrap();
    assert!(world.groups[0].tabs[0].receiver.is_in_poke(), "no poke is open");
    world
}

#[test]
fn rows_that_are_sent_while_they_are_read_are_one_poke_in_either_dialect() {
    for dialect in Dialect::ALL {
        let mut world = streaming(dialect);
        world.write("big 7 n=9; -big 8; big 1250 n=9; -big 1251; +big 5000 1");
        // Somebody who speaks the other one waits for the same rows.
        let other = if dialect == Dialect::Text { Dialect::Binary } else { Dialect::Text };
        come(&mut world, 1, other, &[LARGE]);
        world.batch();
        world.core.step_hydration(0, 200);
        world.write("big 7 n=5; +big 8 3; -big 5000");
        world.settled();
        world.end().unwrap();
    }
}

#[test]
fn what_was_sent_while_it_was_read_is_cancelled_in_either_dialect() {
    for dialect in Dialect::ALL {
        let mut world = streaming(dialect);
        world.groups[0].tabs[0].wanted.clear();
        world.want(0, 0, vec![QueryOp::Clear]).unwrap();
        world.settled();
        world.end().unwrap();
    }
}
