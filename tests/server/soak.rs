//! Something is lost, sent twice or left behind when the server is killed under load, again and
//! again.
//!
//! `KELVIN_SOAK_ROUNDS` says how often; `make soak-kills` does it fifty times. `KELVIN_TEST_SEED` repeats
//! what the tabs do, though not the moments.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::crowd::Crowd;
use crate::support::load::Load;
use crate::support::random::Random;
use crate::support::stage::Stage;

/// Rounds of a run that nobody asked to be longer.
const ROUNDS: u64 = 5;

/// Connections that write, and their pause between transactions: what two cores bear beside two
/// hundred tabs and a server that checks itself.
const WRITERS: usize = 2;
const PAUSE: Duration = Duration::from_millis(15);

/// Longest time that the tabs are at work before the server is killed, in milliseconds.
const WORK: u64 = 1_500;

/// Longest time after which it is killed once more while it starts, in milliseconds.
const START: u64 = 400;

/// Longest time until files that are not needed any more are gone.
const TIDY: Duration = Duration::from_secs(10);

/// Memory that a round may take beyond the first, in bytes: the tables grow a little, and an
/// allocator keeps some.
const GROWTH: u64 = 96 << 20;

/// Descriptors that a round may have beyond the first: connections to the app's endpoints come
/// and go.
const DESCRIPTORS: usize = 24;

/// Rows held of which one may be sent again as it was: one that left a window and came back meanwhile, or one of a
/// query that came meanwhile and has rows in common with others.
const RESENT: usize = 40;

fn rounds() -> u64 {
    std::env::var("KELVIN_SOAK_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(ROUNDS)
}

/// What the server has of resources, and the files of its records.
#[derive(Debug)]
struct Remains {
    memory: u64,
    descriptors: usize,
    files: Vec<PathBuf>,
    bytes: u64,
}

impl Remains {
    fn of(stage: &Stage) -> Remains {
        let mut directory = stage.server.replica().into_os_string();
        directory.push("-records");
        let entries = std::fs::read_dir(directory).expect("the directory of the records");
        let files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
        // A file may be removed meanwhile.
        let bytes = files.iter().filter_map(|file| file.metadata().ok()).map(|about| about.len()).sum();
        let (memory, descriptors) = (stage.server.memory(), stage.server.descriptors());
        Remains { memory, descriptors, files, bytes }
    }

    /// Waits until only one file of each core is there.
    fn tidy(stage: &Stage, cores: usize) -> Remains {
        let deadline = Instant::now() + TIDY;
        loop {
            let remains = Remains::of(stage);
            if remains.files.len() == cores {
                return remains;
            }
            assert!(Instant::now() < deadline, "of {cores} cores there are {:?}", remains.files);
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Tabs at work until the server is killed at a random moment; the load goes on.
fn work_and_kill(stage: &mut Stage, crowd: &mut Crowd, random: &mut Random) {
    let (killed, time) = (AtomicBool::new(false), Duration::from_millis(random.below(WORK)));
    crowd.work(&killed, || {
        std::thread::sleep(time);
        killed.store(true, Ordering::Release);
        stage.server.kill();
    });
    // Now and then it does not even get to serve.
    while random.chance(3) {
        stage.server.spawn();
        std::thread::sleep(Duration::from_millis(random.below(START)));
        stage.server.kill();
    }
    stage.server.start();
}

fn soak(settings: &[(&str, &str)], cores: usize) {
    let mut random = Random::new(std::process::id().into());
    let mut stage = Stage::new(settings);
    let mut crowd = Crowd::new(&stage.server, &mut random);
    let mut first: Option<Remains> = None;
    for round in 1..=rounds() {
        let began = Instant::now();
        let load = Load::paced((0..WRITERS).map(|_| stage.connect()).collect(), PAUSE);
        for _ in 0..1 + random.below(2) {
            work_and_kill(&mut stage, &mut crowd, &mut random);
        }
        let commits = load.finish();
        crowd.gather();
        crowd.settle(&mut stage.sql);
        let remains = Remains::tidy(&stage, cores);
        println!(
            "round {round}: {:.1} s, {commits} commits, {:?}, {} MiB, {} descriptors, {} KiB of records",
            began.elapsed().as_secs_f64(),
            crowd.tally(),
            remains.memory >> 20,
            remains.descriptors,
            remains.bytes >> 10
        );
        let first = first.get_or_insert_with(|| Remains::of(&stage));
        assert!(remains.memory < first.memory + GROWTH, "{} bytes, after {first:?}", remains.memory);
        assert!(remains.descriptors < first.descriptors + DESCRIPTORS, "{remains:?} after {first:?}");
    }
    let tally = crowd.tally();
    assert!(tally.resent <= tally.held / RESENT, "tabs that came back were sent what they had: {tally:?}");
}

#[test]
fn killed_under_load_nothing_is_lost_and_nobody_starts_over() {
    soak(&[], 1);
}

#[test]
fn nor_with_two_cores() {
    soak(&[("NUM_SYNC_WORKERS", "2")], 2);
}

#[test]
fn nor_when_each_record_is_on_the_disk_before_it_is_told() {
    soak(&[("CVR_LOG", "synced")], 1);
}
