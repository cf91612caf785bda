//! Durability after the fact.
//!
//! The writer commits without waiting for the disk: what it wrote survives the process,
//! not a power cut. This thread syncs the log every little while, and only what it has
//! synced is acknowledged upstream; whatever a power cut takes, upstream still has.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use kelvin_io::channel::Sender;

use super::error::Error;
use super::file;
use super::gauges::Gauges;
use crate::model::version::StateVersion;
use crate::testing::panics;

/// Shortest time between two syncs. Each one makes the disk work; upstream does not mind
/// to keep a twentieth of a second of its log for longer.
const PAUSE: Duration = Duration::from_millis(50);

/// The sync thread, and what it waits for.
pub struct SyncThread {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Committed, and therefore in the log file.
    written: StateVersion,
    /// The thread waits for a commit. At other times none of them has to wake it.
    idle: bool,
    stopped: bool,
}

/// Given to the writer: how it says that it committed.
#[derive(Clone)]
pub struct Written(Arc<Shared>);

impl Written {
    /// The log holds everything up to this position.
    pub fn commit(&self, position: StateVersion) {
        let mut state = lock(&self.0);
        state.written = state.written.max(position);
        if state.idle {
            self.0.changed.notify_one();
        }
    }
}

fn lock(shared: &Shared) -> MutexGuard<'_, State> {
    // The state is a few words that are always valid, whatever panicked.
    shared.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl SyncThread {
    /// Starts the thread. `notify` gets a message whenever the durable position grew; a
    /// failure is sent once and ends the thread.
    pub fn start(
        path: &Path,
        gauges: Arc<Gauges>,
        notify: Sender<Result<(), Error>>,
    ) -> Result<SyncThread, Error> {
        let shared = Arc::new(Shared { state: Mutex::default(), changed: Condvar::new() });
        let log = file::beside(path, "-wal");
        let worker = shared.clone();
        let thread = std::thread::Builder::new()
            .name("replica-sync".into())
            .spawn(move || run(&log, &worker, &gauges, &notify))
            .map_err(|source| Error::Io { doing: "starting a thread for", path: path.to_owned(), source })?;
        Ok(SyncThread { shared, thread: Some(thread) })
    }

    /// How the writer reports commits.
    pub fn written(&self) -> Written {
        Written(self.shared.clone())
    }

    /// Syncs what is left and ends the thread. Blocks.
    pub fn stop(mut self) {
        lock(&self.shared).stopped = true;
        self.shared.changed.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for SyncThread {
    fn drop(&mut self) {
        lock(&self.shared).stopped = true;
        self.shared.changed.notify_one();
    }
}

fn run(log: &PathBuf, shared: &Shared, gauges: &Gauges, notify: &Sender<Result<(), Error>>) {
    let mut durable = StateVersion::ZERO;
    let mut file: Option<File> = None;
    let mut seen = 0;
    loop {
        let (written, stopped) = wait(shared, durable);
        panics::here("replica-sync");
        if written > durable {
            let size = gauges.wal_bytes();
            // Smaller than before: the log was restarted meanwhile.
            gauges.synced(if size < seen { size } else { size - seen });
            seen = size;
            match sync(log, &mut file) {
                Ok(length) => {
                    durable = written;
                    gauges.set_synced_wal_bytes(length);
                    gauges.set_durable(durable);
                    // A full queue means that a message about it is already waiting.
                    let _ = notify.try_send(Ok(()));
                }
                Err(e) => {
                    let _ = notify.send_blocking(Err(e));
                    return;
                }
            }
        }
        if stopped {
            return;
        }
        pause(shared);
    }
}

/// Waits until there is something to sync, or the end.
fn wait(shared: &Shared, durable: StateVersion) -> (StateVersion, bool) {
    let mut state = lock(shared);
    state.idle = true;
    while state.written <= durable && !state.stopped {
        state = shared.changed.wait(state).unwrap_or_else(|poisoned| poisoned.into_inner());
    }
    state.idle = false;
    (state.written, state.stopped)
}

fn pause(shared: &Shared) {
    let mut left = PAUSE;
    let until = std::time::Instant::now() + PAUSE;
    let mut state = lock(shared);
    while !state.stopped && !left.is_zero() {
        let waited = shared.changed.wait_timeout(state, left);
        state = waited.map(|(state, _)| state).unwrap_or_else(|poisoned| poisoned.into_inner().0);
        left = until.saturating_duration_since(std::time::Instant::now());
    }
}

/// Syncs the log and returns its length in bytes.
///
/// If the log was restarted meanwhile, the checkpoint before that made what it held
/// durable in the database itself.
fn sync(path: &PathBuf, file: &mut Option<File>) -> Result<u64, Error> {
    let fail = |source| Error::Io { doing: "syncing", path: path.clone(), source };
    let log = match file {
        Some(log) => log,
        None => match File::open(path) {
            Ok(opened) => {
                file::sync_directory(path)?;
                file.insert(opened)
            }
            // There was no commit since the last checkpoint, or since the initial sync,
            // and both have synced the database.
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(0),
            Err(e) => return Err(fail(e)),
        },
    };
    let length = log.metadata().map_err(fail)?.len();
    log.sync_data().map_err(fail)?;
    Ok(length)
}
