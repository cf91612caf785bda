//! `bench wait-quiet`: waits until nothing else uses the machine.

use std::time::{Duration, Instant};

use super::args::{Args, Flag};
use super::error::BenchError;
use super::procfs::{self, Cores};

/// A load average below this is quiet.
const LOAD: f64 = 0.5;
/// Cores that are all less busy than this are quiet, though the load average, which looks
/// back a minute, still remembers the run before.
const BUSY: f64 = 0.1;
/// For so many seconds in a row.
const SECONDS: u32 = 5;

/// Flags of `bench wait-quiet`.
pub const FLAGS: &[Flag] = &[Flag {
    name: "at-most",
    value: "SECONDS",
    default: Some("60"),
    help: "go on after so long, with a warning",
}];

/// Runs `bench wait-quiet`.
pub fn run(args: &Args) -> Result<(), BenchError> {
    let until = Instant::now() + Duration::from_secs(args.number("at-most")?);
    let mut quiet = 0;
    let mut before = Cores::now();
    while procfs::load_average() >= LOAD && quiet < SECONDS {
        if Instant::now() >= until {
            println!("warning: the machine is not quiet (load {:.2})", procfs::load_average());
            return Ok(());
        }
        std::thread::sleep(Duration::from_secs(1));
        let now = Cores::now();
        let busiest = now.busy_since(&before).into_iter().fold(0.0, f64::max);
        quiet = if busiest < BUSY { quiet + 1 } else { 0 };
        before = now;
    }
    Ok(())
}
