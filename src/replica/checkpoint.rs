//! Keeping the log short (rule 25).
//!
//! SQLite restarts its log only when every frame has been copied to the database and no
//! reader holds any of it. So, beyond a soft limit: frames are copied by passive
//! checkpoints on this thread, beside the writer; then commits are held for a moment, the
//! last frames are copied, every reader begins again (and now reads the database alone),
//! and the next commit starts the log from its beginning. Whoever is busy refuses, and
//! the attempt is dropped and made again later.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use kelvin_io::channel::{Receiver, Sender, bounded};
use rusqlite::{Connection, OpenFlags};

use super::error::{Doing, Error};
use crate::testing::panics;

/// How long to wait for the end of an open transaction before holding commits. Nothing is
/// held meanwhile; a transaction that takes longer is a large one of upstream's.
const PATIENCE: Duration = Duration::from_secs(1);

/// Stops commits for a moment, at the border of a transaction.
#[derive(Default)]
pub struct Gate {
    state: Mutex<State>,
    changed: Condvar,
    /// Somebody waits for the end of the open transaction. Beside the state, so that the
    /// writer can look at it between any two upstream transactions.
    wanted: AtomicBool,
}

#[derive(Default)]
struct State {
    /// Hold the gate for so long once the open transaction has ended.
    wanted: Option<Duration>,
    /// Commits wait until then, or until the gate is opened.
    held_until: Option<Instant>,
    /// A transaction is open.
    busy: bool,
}

impl Gate {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>, time: Duration) -> MutexGuard<'a, State> {
        let waited = self.changed.wait_timeout(state, time);
        waited.map(|(state, _)| state).unwrap_or_else(|poisoned| poisoned.into_inner().0)
    }

    /// The writer begins a transaction; waits while the gate is held, and returns for how
    /// long. Blocks.
    pub fn enter(&self) -> Duration {
        let mut state = self.lock();
        if state.held_until.is_none() {
            state.busy = true;
            return Duration::ZERO;
        }
        let began = Instant::now();
        while let Some(until) = state.held_until {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                // Whoever holds it is too slow; replication does not wait for it.
                state.held_until = None;
                break;
            }
            state = self.wait(state, left);
        }
        state.busy = true;
        began.elapsed()
    }

    /// The writer's transaction has ended.
    pub fn leave(&self) {
        let mut state = self.lock();
        state.busy = false;
        if let Some(limit) = state.wanted.take() {
            self.wanted.store(false, Ordering::Relaxed);
            state.held_until = Some(Instant::now() + limit);
        }
        self.changed.notify_all();
    }

    /// Whether the writer should end its transaction soon.
    pub fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Relaxed)
    }

    /// Waits for the end of the open transaction for as long as `patience` lasts, and then
    /// holds the gate for at most `limit`. Returns until when, or `None` if the transaction
    /// did not end. Blocks.
    fn hold(&self, limit: Duration, patience: Duration) -> Option<Instant> {
        let mut state = self.lock();
        if !state.busy {
            state.held_until = Some(Instant::now() + limit);
            return state.held_until;
        }
        let give_up = Instant::now() + patience;
        state.wanted = Some(limit);
        self.wanted.store(true, Ordering::Relaxed);
        while state.wanted.is_some() {
            let left = give_up.saturating_duration_since(Instant::now());
            if left.is_zero() {
                state.wanted = None;
                self.wanted.store(false, Ordering::Relaxed);
                return None;
            }
            state = self.wait(state, left);
        }
        state.held_until
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
    Hold(Duration, Sender<Option<Instant>>),
}

/// The checkpoint thread.
#[derive(Clone)]
pub struct Checkpointer {
    requests: Sender<Request>,
    gate: Arc<Gate>,
}

impl Checkpointer {
    /// Starts the thread, which ends after [`Checkpointer::end`].
    pub fn start(path: &Path, gate: Arc<Gate>) -> Result<(Checkpointer, JoinHandle<()>), Error> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags).doing("opening the replica")?;
        connection
            .execute_batch("PRAGMA synchronous = NORMAL; PRAGMA wal_autocheckpoint = 0")
            .doing("preparing checkpoints")?;
        // One request is made at a time.
        let (requests, received) = bounded(1);
        let worker = gate.clone();
        let thread = std::thread::Builder::new()
            .name("replica-checkpoint".into())
            .spawn(move || run(&connection, &worker, &received))
            .map_err(|source| Error::Io { doing: "starting a thread for", path: path.to_owned(), source })?;
        Ok((Checkpointer { requests, gate }, thread))
    }

    /// Lets commits go on, and the thread end.
    pub fn end(self) {
        self.release();
        self.requests.close();
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

    /// Waits for the end of the open transaction and then holds commits for at most
    /// `limit`. Returns until when; `None` if the transaction does not end soon.
    pub async fn hold(&self, limit: Duration) -> Option<Instant> {
        let (sender, answer) = bounded(1);
        self.requests.send(Request::Hold(limit, sender)).await.ok()?;
        answer.recv().await.ok()?
    }

    /// Lets commits go on. `true` if they were held all the time.
    pub fn release(&self) -> bool {
        self.gate.open()
    }
}

fn run(connection: &Connection, gate: &Gate, requests: &Receiver<Request>) {
    while let Ok(request) = requests.recv_blocking() {
        panics::here("replica-checkpoint");
        // An answer that nobody waits for any more is not a failure.
        match request {
            Request::Passive(answer) => {
                let _ = answer.try_send(passive(connection));
            }
            Request::Hold(limit, answer) => {
                let _ = answer.try_send(gate.hold(limit, PATIENCE));
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
        let (moment, minute) = (Duration::from_millis(1), Duration::from_secs(60));
        let gate = Gate::default();
        assert!(gate.hold(Duration::from_millis(5), moment).is_some());
        gate.enter();
        assert!(gate.hold(minute, moment).is_none(), "a transaction is open");
        assert!(!gate.is_wanted(), "it was given up");
        gate.leave();
        assert!(gate.hold(minute, moment).is_some());
        assert!(gate.open());
        assert_eq!(gate.enter(), Duration::ZERO);
    }

    #[test]
    fn it_is_held_from_the_end_of_the_open_transaction_on() {
        let gate = Gate::default();
        gate.enter();
        std::thread::scope(|scope| {
            let held = scope.spawn(|| gate.hold(Duration::from_millis(20), Duration::from_secs(60)));
            while !gate.is_wanted() {
                std::thread::yield_now();
            }
            gate.leave();
            // The writer is back at once, and waits all the same.
            assert!(gate.enter() > Duration::from_millis(10));
            assert!(held.join().unwrap().is_some());
        });
    }
}
