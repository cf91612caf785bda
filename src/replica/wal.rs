//! Keeps the replica's log short, together with its readers (rule 25).

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kelvin_io::executor;

use super::checkpoint::Checkpointer;
use super::error::Error;
use super::events::Events;
use super::gauges::Gauges;
use crate::model::logging::Level;

/// Sizes of the log in bytes at which something is done about it.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// From here on it is tried to restart the log. Reading through a log costs a lookup
    /// per page, and a checkpoint a write per page, so neither often nor late.
    pub soft: u64,
    /// From here on commits may be held for longer, because the disk would fill.
    pub hard: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { soft: 64 << 20, hard: 1 << 30 }
    }
}

/// How long commits may be held, in total, for one attempt: less than anybody notices.
const HOLD: Duration = Duration::from_millis(10);

/// Doublings of that time, one for each doubling of the log beyond the soft limit: where
/// the disk cannot sync the last frames within it, holds get longer instead of the log
/// growing up to the hard limit.
const MAX_DOUBLINGS: u32 = 3;

/// The same beyond the hard limit: long enough for every core to come to a slice border.
const HOLD_HARD: Duration = Duration::from_secs(1);

/// How often the size is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// Pause after an attempt that somebody refused, or that was too slow.
const RETRY: Duration = Duration::from_millis(250);

/// The same when the log has grown to twice the soft limit. Holding commits then and again
/// is also what slows a writer that is faster than the disk: by a sixth at most.
const RETRY_SOON: Duration = Duration::from_millis(50);

/// The same beyond the hard limit: half of the time is left to replication.
const RETRY_HARD: Duration = Duration::from_secs(1);

/// Pause before readers that refused are asked again while commits are held.
const ASK_AGAIN: Duration = Duration::from_millis(5);

/// Frames that may be left to copy while commits are held: some milliseconds of work.
const FEW_FRAMES: i64 = 512;

/// Passive checkpoints in a row before commits are held all the same. Each one copies what
/// was written during the one before, so they get shorter while the disk is faster than
/// the writer.
const PASSES: u32 = 8;

/// Runs until it is dropped, or a checkpoint fails.
pub async fn keep_short(
    checkpointer: Checkpointer,
    gauges: Arc<Gauges>,
    events: Rc<dyn Events>,
    limits: Limits,
) -> Error {
    let mut warned = false;
    loop {
        executor::sleep(LOOK).await;
        let size = gauges.wal_bytes();
        if size < limits.soft {
            warned = false;
            continue;
        }
        if size > limits.hard && !warned {
            warned = true;
            events.log(
                Level::Warn,
                "the replica's log is large; a reader keeps it from being restarted",
                &[("bytes", size.to_string())],
            );
        }
        let (hold, retry) = match size {
            size if size > limits.hard => (HOLD_HARD, RETRY_HARD),
            size if size > 2 * limits.soft => (hold_for(size, limits), RETRY_SOON),
            _ => (HOLD, RETRY),
        };
        match attempt(&checkpointer, &events, hold).await {
            Ok(true) => wait_for_restart(&gauges, size).await,
            Ok(false) => executor::sleep(retry).await,
            Err(e) => return e,
        }
    }
}

fn hold_for(size: u64, limits: Limits) -> Duration {
    let doublings = (size / limits.soft.max(1)).checked_ilog2().unwrap_or(0);
    HOLD * 2u32.pow(doublings.min(MAX_DOUBLINGS))
}

/// One attempt; `true`: the next commit restarts the log.
async fn attempt(
    checkpointer: &Checkpointer,
    events: &Rc<dyn Events>,
    hold: Duration,
) -> Result<bool, Error> {
    copy_most(checkpointer).await?;
    let Some(until) = checkpointer.hold(hold).await else { return Ok(false) };
    let done = finish(checkpointer, events, until).await;
    // Not held all the time: a commit may have slipped in, and nothing is restarted.
    let held = checkpointer.release();
    Ok(done? && held)
}

/// Copies beside the writer until little is left, or it does not get less.
async fn copy_most(checkpointer: &Checkpointer) -> Result<(), Error> {
    let mut done = i64::MIN / 2;
    for _ in 0..PASSES {
        let progress = checkpointer.passive().await?;
        // What is new since the last pass is about what will be left after this one. Some
        // of it may not be copied yet: a reader is always a moment behind the writer.
        if progress.frames - done <= FEW_FRAMES {
            break;
        }
        done = progress.copied;
    }
    Ok(())
}

/// With commits held: all readers move to the newest state, the rest is copied, and all
/// begin once more, now without the log.
async fn finish(checkpointer: &Checkpointer, events: &Rc<dyn Events>, until: Instant) -> Result<bool, Error> {
    if !rebegin(events, until).await {
        return Ok(false);
    }
    let progress = checkpointer.passive().await?;
    if progress.copied < progress.frames {
        return Ok(false);
    }
    Ok(rebegin(events, until).await)
}

/// Asks the readers; again and again for as long as commits are held, since what keeps one
/// busy is usually short.
async fn rebegin(events: &Rc<dyn Events>, until: Instant) -> bool {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if executor::timeout(left, events.readers_rebegin()).await.unwrap_or(false) {
            return true;
        }
        if Instant::now() + ASK_AGAIN >= until {
            return false;
        }
        executor::sleep(ASK_AGAIN).await;
    }
}

/// The size is known again after the next commit.
async fn wait_for_restart(gauges: &Gauges, size: u64) {
    let restarts = gauges.wal_restarts();
    while gauges.wal_bytes() == size && gauges.wal_restarts() == restarts {
        executor::sleep(LOOK).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_grow_with_the_log() {
        let limits = Limits { soft: 64, hard: 1024 };
        let times: Vec<u128> =
            [10, 64, 127, 128, 300, 600, 100_000].iter().map(|s| hold_for(*s, limits).as_millis()).collect();
        assert_eq!(times, [10, 10, 10, 20, 40, 80, 80]);
    }
}
