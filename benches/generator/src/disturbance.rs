//! What goes on beside the commits of `bench live`: large hydrations back to back, and files
//! that are pushed out of the page cache.

use std::fs::File;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{Advice, fadvise};

use super::common::Common;
use super::error::BenchError;
use super::message::Search;
use super::query::Query;
use super::swarm::Swarm;

/// How often the files are pushed out. A hydration of half a million rows takes a second or
/// more: none goes without.
const EVICT_EVERY: Duration = Duration::from_millis(20);
/// How long one turn waits before it looks whether it is to stop.
const TURN: Duration = Duration::from_millis(20);

/// What the hydrations came to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Hydrated {
    /// Those that were complete.
    pub queries: u64,
    /// Rows of all.
    pub rows: u64,
}

/// Hydrates `rows`, `rows + 1`, ... of the newest issues, each for a client of its own that
/// goes when it has them, until it is told to stop.
pub fn hydrate(common: &Common, rows: u64, stop: &AtomicBool) -> Result<Hydrated, BenchError> {
    let mut done = Hydrated::default();
    while !stop.load(Ordering::Relaxed) {
        let limit = rows + done.queries;
        let mut swarm = Swarm::new(Search::Queries)?;
        swarm.add(&common.target, &[Query::recent(limit).forgotten_at_once()])?;
        while swarm.connections[0].got_at.is_none() && !stop.load(Ordering::Relaxed) {
            swarm.turn(Instant::now() + TURN, &mut |_, _, _| ())?;
        }
        let came = swarm.counts().rows;
        done.rows += came;
        if swarm.connections[0].got_at.is_some() {
            done.queries += 1;
            // A row that changes while they are sent is sent again.
            if came < limit {
                let text = format!("{came} rows were sent for {limit} (are there as many issues?)");
                return Err(BenchError::NotFinished(text));
            }
        }
    }
    Ok(done)
}

/// Pushes a SQLite database and its log out of the page cache again and again.
pub fn evict(path: &str, stop: &AtomicBool) -> Result<(), BenchError> {
    while !stop.load(Ordering::Relaxed) {
        for suffix in ["", "-wal"] {
            let path = format!("{path}{suffix}");
            match File::open(&path) {
                Ok(file) => {
                    fadvise(&file, 0, None, Advice::DontNeed).map_err(|e| BenchError::at(&path, e))?
                }
                // A log goes away with its last reader.
                Err(e) if suffix.is_empty() => return Err(BenchError::at(&path, e)),
                Err(_) => {}
            }
        }
        std::thread::sleep(EVICT_EVERY);
    }
    Ok(())
}
