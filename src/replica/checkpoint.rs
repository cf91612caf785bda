//! Keeping the log short (rule 25).
//!
//! SQLite restarts its log only when every frame has been copied to the database and no
//! reader holds any of it. So, beyond a soft limit: frames are copied by passive
//! checkpoints on this thread, beside the writer; then commits are held for a moment, the
//! last frames are copied, every reader begins again (and now reads the database alone),
//! and the next commit starts the log from its beginning. Whoever is busy refuses, and
//! the attempt is dropped and made again later.

use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use kelvin_io::channel::{Receiver, Sender, bounded};
use rusqlite::{Connection, OpenFlags};

use super::error::{Doing, Error};

/// Stops commits for a moment, at the border of a transaction.
#[derive(Default)]
pub struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Commits wait until then, or until the gate is opened.
    held_until: Option<Instant>,
    /// A transaction is open.
    busy: bool,
}

impl Gate {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// The writer begins a transaction; waits while the gate is held. Blocks.
    pub fn enter(&self) {
        let mut state = self.lock();
        while let Some(until) = state.held_until {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                // Whoever holds it is too slow; replication does not wait for it.
                state.held_until = None;
                break;
            }
            let waited = self.changed.wait_timeout(state, left);
            state = waited.map(|(state, _)| state).unwrap_or_else(|poisoned| poisoned.into_inner().0);
        }
        state.busy = true;
    }

    /// The writer's transaction has ended.
    pub fn leave(&self) {
        self.lock().busy = false;
        self.changed.notify_all();
    }

    /// Holds the gate for at most `limit`; `false` if the writer did not come to the end
    /// of its transaction within that time. Blocks.
    fn hold(&self, limit: Duration) -> bool {
        let until = Instant::now() + limit;
        let mut state = self.lock();
        state.held_until = Some(until);
        while state.busy {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                state.held_until = None;
                return false;
            }
            let waited = self.changed.wait_timeout(state, left);
            state = waited.map(|(state, _)| state).unwrap_or_else(|poisoned| poisoned.into_inner().0);
        }
        true
    }

    /// Lets commits go on. `true` if they were held all the time.
    pub fn open(&self) -> bool {
        let mut state = self.lock();
        let held = state.held_until.take().is_some_and(|until| Instant::now() < until);
        self.changed.notify_all();
        held
    }
}

/// Frames in the log, and how many of them are in the database too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// In the log.
    pub frames: i64,
    /// Copied.
    pub copied: i64,
}

enum Request {
    Passive(Sender<Result<Progress, Error>>),
    Hold(Duration, Sender<bool>),
}

/// The checkpoint thread.
#[derive(Clone)]
pub struct Checkpointer {
    requests: Sender<Request>,
    gate: Arc<Gate>,
}

impl Checkpointer {
    /// Starts the thread; it ends when the last handle is dropped.
    pub fn start(path: &Path, gate: Arc<Gate>) -> Result<Checkpointer, Error> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags).doing("opening the replica")?;
        connection
            .execute_batch("PRAGMA synchronous = NORMAL; PRAGMA wal_autocheckpoint = 0")
            .doing("preparing checkpoints")?;
        // One request is made at a time.
        let (requests, received) = bounded(1);
        let worker = gate.clone();
        std::thread::Builder::new()
            .name("replica-checkpoint".into())
            .spawn(move || run(&connection, &worker, &received))
            .map_err(|source| Error::Io { doing: "starting a thread for", path: path.to_owned(), source })?;
        Ok(Checkpointer { requests, gate })
    }

    /// Copies what readers allow.
    pub async fn passive(&self) -> Result<Progress, Error> {
        let (sender, answer) = bounded(1);
        let gone = |_| Error::ThreadGone("replica-checkpoint");
        self.requests
            .send(Request::Passive(sender))
            .await
            .map_err(|_| Error::ThreadGone("replica-checkpoint"))?;
        answer.recv().await.map_err(gone)?
    }

    /// Holds commits for at most `limit`; `false` if a transaction is open for longer.
    pub async fn hold(&self, limit: Duration) -> bool {
        let (sender, answer) = bounded(1);
        if self.requests.send(Request::Hold(limit, sender)).await.is_err() {
            return false;
        }
        answer.recv().await.unwrap_or(false)
    }

    /// Lets commits go on. `true` if they were held all the time.
    pub fn release(&self) -> bool {
        self.gate.open()
    }
}

fn run(connection: &Connection, gate: &Gate, requests: &Receiver<Request>) {
    while let Ok(request) = requests.recv_blocking() {
        // An answer that nobody waits for any more is not a failure.
        match request {
            Request::Passive(answer) => {
                let _ = answer.try_send(passive(connection));
            }
            Request::Hold(limit, answer) => {
                let _ = answer.try_send(gate.hold(limit));
            }
        }
    }
}

fn passive(connection: &Connection) -> Result<Progress, Error> {
    connection
        .query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| {
            Ok(Progress { frames: row.get(1)?, copied: row.get(2)? })
        })
        .doing("copying the log into the replica")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_held_gate_lets_go_by_itself() {
        let gate = Gate::default();
        assert!(gate.hold(Duration::from_millis(5)));
        gate.enter();
        assert!(!gate.hold(Duration::from_millis(1)), "a transaction is open");
        gate.leave();
        assert!(gate.hold(Duration::from_secs(60)));
        assert!(gate.open());
        gate.enter();
    }
}
