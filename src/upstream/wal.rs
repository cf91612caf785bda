//! Keeps the replica's log short, together with its readers (rule 25).

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kelvin_io::executor;

use super::manager::{Events, Level};
use crate::replica;
use crate::replica::checkpoint::Checkpointer;
use crate::replica::gauges::Gauges;

/// Size of the log in bytes at which to begin. Reading through a log costs a lookup per
/// page, and a checkpoint a write per page, so neither often nor late.
const SOFT_LIMIT: u64 = 64 << 20;

/// Size at which commits may be held for longer, because the disk would fill.
const HARD_LIMIT: u64 = 1 << 30;

/// How long commits may be held, in total, for one attempt: less than anybody notices.
const HOLD: Duration = Duration::from_millis(10);

/// The same beyond the hard limit.
const HOLD_HARD: Duration = Duration::from_secs(1);

/// How often the size is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// Pause after an attempt that somebody refused.
const RETRY: Duration = Duration::from_millis(250);

/// Frames that may be left to copy while commits are held: some milliseconds of work.
const FEW_FRAMES: i64 = 256;

/// Passive checkpoints in a row before giving up for now. Each one copies what was
/// written during the one before, so they get shorter while the disk is faster than the
/// writer.
const PASSES: u32 = 20;

/// Runs until it is dropped, or a checkpoint fails.
pub async fn keep_short(
    checkpointer: Checkpointer,
    gauges: Arc<Gauges>,
    events: Rc<dyn Events>,
) -> replica::Error {
    let mut warned = false;
    loop {
        executor::sleep(LOOK).await;
        let size = gauges.wal_bytes();
        if size < SOFT_LIMIT {
            warned = false;
            continue;
        }
        if size > HARD_LIMIT && !warned {
            warned = true;
            events.log(
                Level::Warn,
                "the replica's log is large; a reader keeps it from being restarted",
                &[("bytes", size.to_string())],
            );
        }
        let hold = if size > HARD_LIMIT { HOLD_HARD } else { HOLD };
        match attempt(&checkpointer, &events, hold).await {
            Ok(true) => wait_for_restart(&gauges, size).await,
            Ok(false) => executor::sleep(RETRY).await,
            Err(e) => return e,
        }
    }
}

/// One attempt; `true`: the next commit restarts the log.
async fn attempt(
    checkpointer: &Checkpointer,
    events: &Rc<dyn Events>,
    hold: Duration,
) -> Result<bool, replica::Error> {
    if !copy_most(checkpointer).await? {
        return Ok(false);
    }
    let until = Instant::now() + hold;
    if !checkpointer.hold(hold).await {
        return Ok(false);
    }
    let done = finish(checkpointer, events, until).await;
    // Not held all the time: a commit may have slipped in, and nothing is restarted.
    let held = checkpointer.release();
    Ok(done? && held)
}

/// Copies beside the writer until little is left.
async fn copy_most(checkpointer: &Checkpointer) -> Result<bool, replica::Error> {
    let mut done = 0;
    for _ in 0..PASSES {
        let progress = checkpointer.passive().await?;
        // What the pass found new is about what the next one will find.
        if progress.copied == progress.frames && progress.copied - done <= FEW_FRAMES {
            return Ok(true);
        }
        done = progress.copied;
    }
    Ok(false)
}

/// With commits held: all readers move to the newest state, the rest is copied, and all
/// begin once more, now without the log.
async fn finish(
    checkpointer: &Checkpointer,
    events: &Rc<dyn Events>,
    until: Instant,
) -> Result<bool, replica::Error> {
    if !rebegin(events, until).await {
        return Ok(false);
    }
    let progress = checkpointer.passive().await?;
    if progress.copied < progress.frames {
        return Ok(false);
    }
    Ok(rebegin(events, until).await)
}

async fn rebegin(events: &Rc<dyn Events>, until: Instant) -> bool {
    let left = until.saturating_duration_since(Instant::now());
    executor::timeout(left, events.readers_rebegin()).await.unwrap_or(false)
}

/// The size is known again after the next commit.
async fn wait_for_restart(gauges: &Gauges, size: u64) {
    let restarts = gauges.wal_restarts();
    while gauges.wal_bytes() == size && gauges.wal_restarts() == restarts {
        executor::sleep(LOOK).await;
    }
}
