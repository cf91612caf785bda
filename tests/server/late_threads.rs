//! A thread is left aside by a busy machine, for longer than anything that it waits for, and something that
//! was over is waited for again, or is never waited for again.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::app::{items, of, query};
use crate::support::client::{Client, Event};
use crate::support::load::{Load, difference};
use crate::support::server::scratch;
use crate::support::stage::Stage;
use serde_json::json;

/// How long each kind of thread is late now and then; five kinds make the minute. `KELVIN_LATE_SECONDS` sets
/// another.
const TIME: Duration = Duration::from_secs(12);

/// How long a thread is left aside: longer than the pauses between the looks at a silent socket, and half as
/// long as the watchdog's patience.
const LATE_MILLIS: u32 = 260;

/// One in so many looks at the clock takes that long. By looks, not by time: what breaks lies between two
/// certain looks, and most of the time nothing else looks.
const LATE_EVERY: u32 = 40;

/// Longest time until all have what there is, once the writing is over.
const SETTLED: Duration = Duration::from_secs(60);

fn time() -> Duration {
    let set = std::env::var("KELVIN_LATE_SECONDS").ok().and_then(|text| text.parse().ok());
    set.map_or(TIME, Duration::from_secs)
}

/// What makes threads late, built with the machine's compiler.
fn delaying(directory: &Path) -> PathBuf {
    let library = directory.join("delayclock.so");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/soak/delayclock.c");
    let mut compiler = Command::new("cc");
    compiler.args(["-O2", "-shared", "-fPIC", "-o"]).arg(&library).arg(source).arg("-ldl");
    assert!(compiler.status().expect("there is a compiler").success());
    library
}

/// Works on a server whose threads with these names are late, and compares what everybody holds then.
fn works_when_late(threads: &str) {
    let directory = scratch("late");
    let mut stage = Stage::new(&[("NUM_SYNC_WORKERS", "2")]);
    stage.server.kill();
    stage.server.environment(&[
        ("LD_PRELOAD", delaying(&directory).display().to_string()),
        ("DELAY_THREADS", threads.to_owned()),
        ("DELAY_MS", LATE_MILLIS.to_string()),
        ("DELAY_EVERY", LATE_EVERY.to_string()),
    ]);
    stage.server.start();
    let pid = stage.server.pid();
    let mut tabs: Vec<Client> = (0..4).map(|_| stage.tab(&[items()])).collect();
    let load = Load::paced(vec![stage.connect(), stage.connect()], Duration::from_millis(20));
    let until = Instant::now() + time();
    let mut round = 0;
    while Instant::now() < until {
        round += 1;
        let at = round % tabs.len();
        // One comes anew, one changes its mind, all hear of what is written.
        tabs[at].vanish();
        tabs[at].connect(&[items()]);
        let other = (at + 1) % tabs.len();
        tabs[other].change(vec![of(&format!("o{}", round % 50)).put()]);
        for tab in &mut tabs {
            tab.settle(Duration::from_millis(10));
            if !tab.is_connected() {
                tab.connect(&[items()]);
            }
        }
    }
    load.finish();
    let last: i64 =
        stage.sql.value("INSERT INTO tick SELECT count(*) FROM tick RETURNING id").parse().expect("a number");
    let mut witness = stage.tab(&[query("ticks", json!([]))]);
    witness.until("the last change", |c| c.store.row("tick", last).is_some());
    let expected: usize = stage.sql.value("SELECT count(*) FROM item").parse().expect("a number");
    let sum: i64 = stage.sql.value("SELECT coalesce(sum(n), 0) FROM item").parse().expect("a number");
    let is_right = |tab: &Client| {
        let rows = tab.store.table("item");
        rows.len() == expected && rows.iter().filter_map(|row| row["n"].as_i64()).sum::<i64>() == sum
    };
    for tab in &mut tabs {
        let until = Instant::now() + SETTLED;
        while !is_right(tab) {
            assert!(Instant::now() < until, "{} has not got the rows of Postgres", tab.id);
            // A tab that lost its socket before it was told something is sent back once to say what it wants.
            if !tab.is_connected() || matches!(tab.next(Duration::from_millis(100)), Some(Event::Closed(..)))
            {
                tab.vanish();
                tab.connect(&[items()]);
            }
        }
    }
    assert_eq!((stage.server.has_ended(), stage.server.pid()), (None, pid));
    assert!(!stage.server.log().contains("panicked"), "{}", stage.server.log());
    drop((tabs, witness));
    stage.server.signal("TERM");
    assert!(stage.server.until_ended().success(), "{}", stage.server.log());
    assert_eq!(difference(&stage.server.replica(), &mut stage.sql), None);
    let _ = std::fs::remove_dir_all(directory);
}

#[test]
fn the_thread_that_replicates_is_late() {
    works_when_late("replication");
}

#[test]
fn the_threads_of_cores_are_late() {
    works_when_late("syncer");
}

#[test]
fn the_threads_of_lanes_are_late() {
    works_when_late("hydration");
}

#[test]
fn the_threads_of_the_replica_are_late() {
    works_when_late("replica-");
}

#[test]
fn all_threads_are_late() {
    works_when_late("replication,syncer,hydration,replica-,memory,watchdog,log,kelvin");
}
