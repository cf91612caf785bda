//! Runs a property for a while.

use std::time::{Duration, Instant};

use proptest::strategy::Strategy;
use proptest::test_runner::{Config, TestCaseResult, TestRunner};

/// Inputs between two looks at the clock.
const AT_A_TIME: u32 = 64;

/// How long a target runs.
fn time() -> Duration {
    let given = std::env::var("KELVIN_FUZZ_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(given.unwrap_or(2))
}

/// Gives inputs to a property until the time is over. One that fails is made as small as possible first.
pub fn fuzz<S: Strategy>(inputs: S, property: impl Fn(S::Value) -> TestCaseResult) {
    let until = Instant::now() + time();
    let config = Config {
        cases: AT_A_TIME,
        failure_persistence: None,
        max_shrink_time: 20_000,
        max_global_rejects: u32::MAX,
        ..Config::default()
    };
    let mut tried = 0;
    while Instant::now() < until {
        // One that has tried as many as it should tries no more.
        let mut runner = TestRunner::new(config.clone());
        if let Err(failure) = runner.run(&inputs, &property) {
            panic!("after {tried} inputs: {failure}");
        }
        tried += AT_A_TIME;
    }
    println!("{tried} inputs");
}
