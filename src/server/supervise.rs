//! Whoever starts a part that the process cannot do without owns its end.
//!
//! A part that ends without having been told to, by a panic or by a mistake, ends the process: clients would
//! stay connected, and be told by every page that all is well, while nothing moves any more. A supervisor of
//! processes starts it anew, and clients find their groups in the records.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;

use futures_lite::FutureExt;
use kelvin_io::executor;
use kelvin_io::signals::Signal;

use super::status::Status;
use crate::replica::verdict::End;
use crate::testing::panics;

/// What ends a run.
pub enum Ending {
    /// The process was told to.
    Signal(Signal),
    /// Replication has ended.
    Replication(End),
    /// A part has ended that must not; what it is, and why if that is known.
    Lost(String),
}

/// Hears of the end of every essential part of one run.
#[derive(Clone)]
pub struct Supervisor {
    endings: mpsc::Sender<Ending>,
    status: Arc<Status>,
    /// The run is being stopped: whatever ends now was told to.
    stopping: Arc<AtomicBool>,
}

impl Supervisor {
    /// Of a run; `endings`: where the process waits for its end.
    pub fn new(endings: mpsc::Sender<Ending>, status: Arc<Status>) -> Supervisor {
        Supervisor { endings, status, stopping: Arc::default() }
    }

    /// From now on parts may end.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    /// Tells how replication has ended.
    pub fn replication_ended(&self, end: End) {
        // Nobody listens any more when the process is stopping.
        let _ = self.endings.send(Ending::Replication(end));
    }

    /// Runs a part on this executor for as long as the run lasts.
    pub fn spawn(&self, what: &'static str, part: impl Future<Output = ()> + 'static) {
        let guard = self.guard(what);
        executor::spawn(async move {
            let _guard = guard;
            part.or(panics::when_ordered(what)).await;
        })
        .detach();
    }

    /// For a part that runs elsewhere: when the guard is dropped, the part has ended.
    pub fn guard(&self, what: impl Into<String>) -> Guard {
        Guard { supervisor: self.clone(), what: what.into(), done: false }
    }

    /// A part has ended, or is of no use any more.
    pub fn lost(&self, what: &str) {
        if !self.stopping.load(Ordering::Acquire) {
            self.status.set_lost(what);
            let _ = self.endings.send(Ending::Lost(what.to_owned()));
        }
    }
}

/// Of a part that must not end unheard.
pub struct Guard {
    supervisor: Supervisor,
    what: String,
    done: bool,
}

impl Guard {
    /// The part has ended because it was told to.
    pub fn done(mut self) {
        self.done = true;
    }

    /// The part cannot go on, for this reason.
    pub fn failed(mut self, why: &str) {
        self.done = true;
        self.supervisor.lost(&format!("{}: {why}", self.what));
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if !self.done {
            self.supervisor.lost(&self.what);
        }
    }
}

#[cfg(test)]
mod tests {
    use kelvin_io::executor::{start, yield_now};

    use super::*;

    /// What is heard of a part that ends in some way.
    fn heard(part: impl FnOnce(&Supervisor) + Send + 'static) -> Vec<String> {
        let (endings, ended) = mpsc::channel();
        let executor = start("test", None, move || async move {
            part(&Supervisor::new(endings, Arc::default()));
            yield_now().await;
        });
        executor.unwrap().join().unwrap();
        ended
            .try_iter()
            .map(|ending| if let Ending::Lost(what) = ending { what } else { String::new() })
            .collect()
    }

    #[test]
    fn a_part_that_ends_or_panics_is_heard_of_once() {
        assert_eq!(heard(|s| s.spawn("a part", async {})), ["a part"]);
        assert_eq!(heard(|s| s.spawn("a part", async { panic!("on purpose") })), ["a part"]);
        assert_eq!(heard(|s| s.guard("a thread").failed("no room")), ["a thread: no room"]);
    }

    #[test]
    fn a_part_that_was_told_to_end_is_not() {
        assert!(heard(|s| s.guard("a thread").done()).is_empty());
        assert!(
            heard(|s| {
                s.spawn("a part", std::future::pending());
                s.stop();
            })
            .is_empty()
        );
    }
}
