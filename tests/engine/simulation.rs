//! A whole core, simulated: random schemas, rows, queries, commits, tabs that come and go, slow
//! sockets, hydrations and batches in every order. After every step each tab's rows are compared
//! with what plain SQL says.
//!
//! `KELVIN_SIM_SEEDS`, `KELVIN_SIM_STEPS` and `KELVIN_SIM_FIRST` (the first seed) make a run longer:
//!
//! ```text
//! KELVIN_SIM_SEEDS=10000 KELVIN_SIM_STEPS=100 \
//!     cargo test --profile ci --test engine simulation::tabs_hold -- --nocapture
//! ```

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::model::simulation::{Failure, Life, Run, run};
use kelvin::testing::faults::{self, Fault};
use kelvin::testing::met::Limit;

/// Seeds that found something once, with the steps that it took: every run repeats them.
const KEPT: [(u64, usize); 5] = [(5082, 100), (202, 200), (605, 200), (772, 200), (843, 200)];

/// The same of runs in which hardly anything is kept.
const KEPT_TINY: [(u64, usize); 3] = [(8, 300), (231, 300), (547, 500)];

/// The same of runs in which the server ends.
const KEPT_ENDS: [(u64, usize); 7] =
    [(675, 500), (2128, 300), (1808, 300), (5425, 300), (6159, 300), (28288, 300), (27, 300)];

/// Seeds and steps of a run that nobody asked to be longer: half a minute of one core.
const SEEDS: u64 = 1_000;
const STEPS: usize = 200;

/// Threads that share the seeds.
const THREADS: usize = 2;

/// What somebody asked for, or `otherwise`.
fn asked(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// Runs a seed; a panic is a failure, too.
fn attempt(seed: u64, steps: usize, life: Life) -> Result<Run, Failure> {
    catch_unwind(AssertUnwindSafe(|| run(seed, steps, life))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("a panic");
        Err(Failure { step: steps, message: format!("panicked: {text}") })
    })
}

/// What to type to see a failure again.
fn again(seed: u64, steps: usize) -> String {
    format!(
        "KELVIN_SIM_FIRST={seed} KELVIN_SIM_SEEDS=1 KELVIN_SIM_STEPS={steps} \
         cargo test --profile ci --test engine simulation::tabs_hold -- --nocapture"
    )
}

#[derive(Default)]
struct Total {
    runs: usize,
    sum: Run,
    failures: Vec<(u64, Failure)>,
}

impl Total {
    fn add(&mut self, seed: u64, result: Result<Run, Failure>) {
        self.runs += 1;
        match result {
            Ok(run) => {
                self.sum.steps += run.steps;
                self.sum.checked += run.checked;
                self.sum.crashes += run.crashes;
                self.sum.resets += run.resets;
                self.sum.parts += run.parts;
                self.sum.unrecorded += run.unrecorded;
                self.sum.met |= run.met;
                self.sum.counts.add(run.counts);
            }
            Err(failure) => self.failures.push((seed, failure)),
        }
    }
}

/// Most failures after which a run ends.
const ENOUGH: usize = 5;

fn runs(first: u64, seeds: u64, steps: usize, life: Life) -> Total {
    let next = AtomicU64::new(first);
    let total = Mutex::new(Total::default());
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + seeds || total.lock().expect("whole").failures.len() >= ENOUGH {
                        break;
                    }
                    let result = attempt(seed, steps, life);
                    total.lock().expect("whole").add(seed, result);
                }
            });
        }
    });
    total.into_inner().expect("whole")
}

#[test]
fn tabs_hold_what_plain_sql_says_after_every_step() {
    for (seed, steps) in KEPT {
        if let Err(failure) = attempt(seed, steps, Life::Whole) {
            panic!("{}\n{}", failure.message, again(seed, steps));
        }
    }
    let began = Instant::now();
    let (first, seeds) = (asked("KELVIN_SIM_FIRST", 1), asked("KELVIN_SIM_SEEDS", SEEDS));
    let steps = asked("KELVIN_SIM_STEPS", STEPS as u64) as usize;
    let total = runs(first, seeds, steps, Life::Whole);
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "{} seeds, {} steps, {} stores compared, {}; {seconds:.1} s",
        total.runs, total.sum.steps, total.sum.checked, total.sum.counts
    );
    meets(total.sum.met, seeds, |limit| !OF_RECORDS.contains(limit));
    if let Some((seed, failure)) = total.failures.first() {
        let others: Vec<u64> = total.failures.iter().map(|(seed, _)| *seed).collect();
        panic!("{}\n{}\nseeds {others:?}", failure.message, again(*seed, failure.step));
    }
}

/// Limits of the record log: only a core that records meets them.
const OF_RECORDS: [Limit; 5] =
    [Limit::RecordRows, Limit::RecordPart, Limit::RecordFrame, Limit::RecordQueue, Limit::RecordFilling];

/// What happens at a limit that no run meets is tried by nobody. `seeds`: fewer may not meet all.
fn meets(met: u64, seeds: u64, wanted: impl Fn(&Limit) -> bool) {
    let unmet: Vec<Limit> =
        Limit::ALL.into_iter().filter(|one| wanted(one) && met & 1 << *one as u64 == 0).collect();
    println!("limits that were not met: {unmet:?}");
    assert!(unmet.is_empty() || seeds < CRASH_SEEDS || !cfg!(debug_assertions), "not met: {unmet:?}");
}

/// Seeds and steps of a run with crashes that nobody asked to be longer.
const CRASH_SEEDS: u64 = 300;
const CRASH_STEPS: usize = 300;

#[test]
fn tabs_hold_it_too_when_the_server_ends_at_any_moment() {
    for (seed, steps) in KEPT_ENDS {
        if let Err(failure) = attempt(seed, steps, Life::Ends) {
            panic!("{}\n{} steps, seed {seed}", failure.message, failure.step);
        }
    }
    ends(Life::Ends);
}

/// Frames take a few hundred bytes, journals a few rows: batches are written in parts, groups and views are not
/// written at all, and what changed is more than is listed.
#[test]
fn tabs_hold_it_too_when_hardly_anything_fits_into_the_record_log() {
    for (seed, steps) in KEPT_TINY {
        if let Err(failure) = attempt(seed, steps, Life::Tiny) {
            panic!("{}\n{} steps, seed {seed}", failure.message, failure.step);
        }
    }
    let sum = ends(Life::Tiny);
    assert!(sum.parts > 0 && sum.unrecorded > 0, "the limits are not reached");
    meets(sum.met, asked("KELVIN_SIM_SEEDS", CRASH_SEEDS), |limit| OF_RECORDS.contains(limit));
}

fn ends(life: Life) -> Run {
    let began = Instant::now();
    let (first, seeds) = (asked("KELVIN_SIM_FIRST", 1), asked("KELVIN_SIM_SEEDS", CRASH_SEEDS));
    let steps = asked("KELVIN_SIM_STEPS", CRASH_STEPS as u64) as usize;
    let total = runs(first, seeds, steps, life);
    let (sum, seconds) = (total.sum, began.elapsed().as_secs_f64());
    println!(
        "{} seeds, {} steps, {} ends, {} tabs reset, {} parts read, {} not recorded, {} stores compared; \
         {seconds:.1} s",
        total.runs, sum.steps, sum.crashes, sum.resets, sum.parts, sum.unrecorded, sum.checked
    );
    for (seed, failure) in &total.failures {
        let first = failure.message.lines().next().unwrap_or_default();
        println!("seed {seed}, {} steps: {first}", failure.step);
    }
    if let Some((seed, failure)) = total.failures.first() {
        panic!("{}\n{} steps, seed {seed}", failure.message, failure.step);
    }
    sum
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    for seed in 1..40 {
        let digest =
            || attempt(seed, STEPS, Life::Whole).map(|run| run.digest).map_err(|failure| failure.message);
        assert_eq!(digest(), digest(), "seed {seed}");
    }
}

/// Most seeds that may be needed to see that a rule is not kept.
const SEEDS_PER_FAULT: u64 = 300;

/// Runs seeds with a rule switched off. Returns how many were tried, and failed.
fn with_fault(rule: u8, fault: Fault, all: bool) -> (u64, u64) {
    faults::switch(Some(fault));
    let (mut tried, mut failed) = (0, 0);
    for seed in 1..=SEEDS_PER_FAULT {
        tried += 1;
        // Rules from 17 on are about what comes after a restart, or a long absence.
        let life = if rule > 16 { Life::Ends } else { Life::Whole };
        failed += attempt(seed, STEPS, life).is_err() as u64;
        if failed > 0 && !all {
            break;
        }
    }
    faults::switch(None);
    (tried, failed)
}

/// `KELVIN_SIM_TABLE=1` tries all seeds of each rule and prints a table.
#[test]
fn each_rule_that_is_not_kept_is_seen() {
    if !cfg!(debug_assertions) {
        // Nothing can be switched off.
        return;
    }
    let all = asked("KELVIN_SIM_TABLE", 0) != 0;
    // What breaks here is meant to: its panics are no news.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if !Fault::ALL.iter().any(|(_, fault)| faults::is_on(*fault)) {
            hook(info);
        }
    }));
    println!("| rule | switched off | seeds tried | failures |\n|---|---|---|---|");
    let mut unseen = Vec::new();
    for (rule, fault) in Fault::ALL {
        let (tried, failed) = with_fault(rule, fault, all);
        println!("| {rule} | {fault:?} | {tried} | {failed} |");
        if failed == 0 {
            unseen.push(fault);
        }
    }
    assert!(unseen.is_empty(), "nobody sees that these are not kept: {unseen:?}");
}
