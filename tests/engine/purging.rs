//! What is known of browsers that never come back is kept for ever, or that of those that do is
//! not (`docs/spec/view-syncer.md` §4.7).

use std::thread::sleep;
use std::time::Duration;

use crate::model::choices::Choices;
use crate::model::disk::{Disk, End};
use crate::model::world::World;
use crate::support::app::{THREE, of};
use crate::support::stage::Stage;
use kelvin::model::purging::Purging;
use kelvin::protocol::cookie::{Cookie, MAX_STEP};

const HOUR: f64 = 3_600_000.0;
const RULE: Purging = Purging { after: 48.0 * HOUR, interval: 60_000.0, batch: 25 };

fn is_known(world: &World, group: usize) -> bool {
    world.core.syncer().groups.contains_key(world.groups[group].id.as_str())
}

/// Time passes, and the core looks at its clock then and a minute later. Returns how many groups went.
fn pass(world: &mut World, time: f64) -> usize {
    world.now += time;
    let mut purged = world.core.syncer().purge(world.now);
    // The first look only notes the time.
    world.now += RULE.interval;
    purged += world.core.syncer().purge(world.now);
    world.settle().unwrap();
    purged
}

/// Two groups with records; nobody is in the first one any more.
fn left() -> World {
    let mut world = World::new(2, 0);
    world.start_recording(Disk::new(true));
    world.core.syncer().purge_by(RULE);
    world.write("+item a - 1 -");
    world.tab(0, &[0]);
    world.tab(1, &[0]);
    world.settled();
    world.disconnect(0, 0);
    world.flush();
    world
}

#[test]
fn a_group_goes_after_its_time_unless_somebody_is_there() {
    let mut world = left();
    assert_eq!(pass(&mut world, 47.0 * HOUR), 0);
    assert!(is_known(&world, 0));
    assert_eq!(pass(&mut world, HOUR), 1);
    assert!(!is_known(&world, 0) && is_known(&world, 1));
    assert_eq!(pass(&mut world, 480.0 * HOUR), 0);
    assert!(is_known(&world, 1), "somebody has been there all the time");
    world.end().unwrap();
}

#[test]
fn the_time_without_connections_goes_on_when_the_server_starts_anew() {
    let (mut world, mut choices) = (left(), Choices::new((0, 0)));
    for _ in 0..2 {
        world.now += 20.0 * HOUR;
        world.crash(&mut choices, End::Kill);
        world.core.syncer().purge_by(RULE);
        while world.core.syncer().is_filling() {
            world.flush();
        }
        assert_eq!(pass(&mut world, 0.0), 0);
    }
    assert!(is_known(&world, 0) && is_known(&world, 1));
    assert_eq!(pass(&mut world, 8.0 * HOUR), 1);
    assert!(!is_known(&world, 0));
    assert!(is_known(&world, 1), "somebody was there when the server ended, eight hours ago");
    world.flush();
    world.crash(&mut choices, End::Kill);
    assert!(!is_known(&world, 0), "it is in no record any more");
    assert!(is_known(&world, 1));
    world.end().unwrap();
}

#[test]
fn a_cookie_of_a_group_that_is_gone_is_not_taken_for_one_of_the_group_that_follows_it() {
    let (mut world, mut choices) = (World::new(1, 0), Choices::new((0, 0)));
    world.core.syncer().purge_by(RULE);
    world.tab(0, &[0]);
    world.tab(0, &[0]);
    world.settled();
    world.disconnect(0, 0);
    world.disconnect(0, 1);
    assert_eq!(pass(&mut world, 48.0 * HOUR), 1);
    // One has deleted all it had and wants another query; nothing was written since.
    let first = &mut world.groups[0].tabs[0];
    first.receiver.store = Default::default();
    first.wanted = [5].into();
    world.connect(&mut choices, 0, 0).unwrap();
    world.settled();
    world.connect(&mut choices, 0, 1).unwrap();
    assert_eq!(world.resets, 1, "it is told that its group is not known any more");
    world.connect(&mut choices, 0, 1).unwrap();
    world.settled();
    assert!(world.groups[0].tabs[1].receiver.store.got.contains("q0"));
    world.end().unwrap();
}

#[test]
fn a_group_that_used_up_its_cookies_begins_again_at_the_next_version() {
    let (mut world, mut choices) = (left(), Choices::new((0, 0)));
    let epoch = world.epoch;
    let id = world.groups[0].id.clone();
    {
        let mut syncer = world.core.syncer();
        let group = syncer.groups.get_mut(id.as_str()).expect("the group");
        group.cookie = Cookie::new(group.cookie.major, epoch, MAX_STEP);
    }
    assert_eq!(pass(&mut world, 48.0 * HOUR), 1);
    world.groups[0].tabs[0].receiver.store = Default::default();
    assert!(world.connect(&mut choices, 0, 0).is_err(), "none are left for it");
    world.write("item a n=2");
    world.settled();
    world.connect(&mut choices, 0, 0).unwrap();
    world.settled();
    world.end().unwrap();
}

#[test]
fn a_group_that_came_back_was_there_when_the_server_ended() {
    let (mut world, mut choices) = (left(), Choices::new((0, 0)));
    world.connect(&mut choices, 0, 0).unwrap();
    world.settled();
    world.flush();
    world.now += 480.0 * HOUR;
    world.crash(&mut choices, End::Kill);
    world.core.syncer().purge_by(RULE);
    assert_eq!(pass(&mut world, 0.0), 0);
    assert!(is_known(&world, 0), "nobody knows since when it was alone");
    world.end().unwrap();
}

/// Two seconds, in hours.
const TWO_SECONDS: &str = "0.000556";

#[test]
fn a_tab_that_comes_back_too_late_starts_over_and_nobody_else_does() {
    let mut stage = Stage::prepared(
        THREE,
        &[
            ("CVR_GARBAGE_COLLECTION_INACTIVITY_THRESHOLD_HOURS", TWO_SECONDS),
            ("CVR_GARBAGE_COLLECTION_INITIAL_INTERVAL_SECONDS", "0.5"),
        ],
    );
    let mut gone = stage.tab(&[of("x")]);
    let mut stays = stage.tab(&[of("x")]);
    gone.vanish();
    stage.server.until_log("purged 1 inactive CVRs", "");
    gone.connect(&[]);
    assert_eq!(gone.until_error()["kind"], "ClientNotFound");
    stage.server.kill();
    stage.server.start();
    stays.connect(&[]);
    stays.until("a first poke", |c| !c.pokes.is_empty());
    gone.connect(&[]);
    assert_eq!(gone.until_error()["kind"], "ClientNotFound", "its record is gone, too");
    stays.round_trip();
}

#[test]
fn a_batch_of_none_turns_it_off() {
    let stage = Stage::prepared(
        THREE,
        &[
            ("CVR_GARBAGE_COLLECTION_INACTIVITY_THRESHOLD_HOURS", "0"),
            ("CVR_GARBAGE_COLLECTION_INITIAL_INTERVAL_SECONDS", "0.1"),
            ("CVR_GARBAGE_COLLECTION_INITIAL_BATCH_SIZE", "0"),
        ],
    );
    let mut tab = stage.tab(&[of("x")]);
    tab.vanish();
    sleep(Duration::from_millis(1_500));
    tab.connect(&[]);
    tab.until("a first poke", |c| !c.pokes.is_empty());
}
