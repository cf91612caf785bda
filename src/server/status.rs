//! What the process is up to, for health pages; shared by all cores.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::auth::guesses::{Guesses, MAX_WRONG};
use crate::auth::secret::Secret;
use crate::replica::gauges::Gauges;

/// Silence after which a core counts as dead: it cannot answer for itself. The longest slice of work is some
/// milliseconds, but a machine that is short of memory or of processors stands still for seconds.
const SILENT: Duration = Duration::from_secs(10);

/// Readiness of the process.
#[derive(Default)]
pub struct Status {
    ready: AtomicBool,
    stopping: AtomicBool,
    cores_started: AtomicUsize,
    /// Times that `/keepalive` was asked for.
    keepalives: AtomicUsize,
    waiting_for: Mutex<String>,
    /// A part that has ended although nothing works without it.
    lost: Mutex<Option<String>>,
    cores: Vec<CoreStatus>,
    gauges: Mutex<Option<Arc<Gauges>>>,
    guesses: Mutex<Guesses>,
    /// How often the views were asked for, and what each core last said of its own.
    views_asked: AtomicUsize,
    views: Mutex<BTreeMap<usize, (usize, Vec<Value>)>>,
}

/// What a password is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Password {
    /// It is the administrator's.
    Right,
    /// It is not.
    Wrong,
    /// It was not looked at: its address has guessed too often.
    TooMany,
}

/// What a core says of itself.
#[derive(Default)]
struct CoreStatus {
    /// When it last showed that it lives; `None`: it has not begun.
    beat: Mutex<Option<Instant>>,
    /// Its disk does not take records, so it serves nobody.
    refuses: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Status {
    /// Looks at a password that somebody at an address gave, unless there were too many wrong ones. Wrong ones are
    /// logged, once in a while.
    pub fn judge(&self, expected: &Secret, given: &str, from: IpAddr, now: Instant) -> Password {
        let mut guesses = lock(&self.guesses);
        let password = match guesses.may_guess(from, now) {
            false => Password::TooMany,
            true if expected.matches(given) => return Password::Right,
            true => Password::Wrong,
        };
        if let Some(count) = guesses.wrong(from, now, password == Password::Wrong) {
            crate::warn!(
                address = from.to_string(), guesses = count;
                "wrong admin passwords were given: whoever gives more than {MAX_WRONG} has to wait"
            );
        }
        password
    }

    /// Of a process with so many cores.
    pub fn of_cores(cores: usize) -> Status {
        Status { cores: (0..cores).map(|_| CoreStatus::default()).collect(), ..Status::default() }
    }

    /// A core lives.
    pub fn beat(&self, core: usize) {
        if let Some(core) = self.cores.get(core) {
            *lock(&core.beat) = Some(Instant::now());
        }
    }

    /// Whether a core sends all its clients away because their records cannot be written.
    pub fn set_refuses(&self, core: usize, refuses: bool) {
        if let Some(core) = self.cores.get(core) {
            core.refuses.store(refuses, Ordering::Release);
        }
    }

    /// A part has ended although nothing works without it.
    pub fn set_lost(&self, what: &str) {
        lock(&self.lost).get_or_insert_with(|| what.to_owned());
    }

    /// Says what is being waited for.
    pub fn progress(&self, text: &str) {
        *lock(&self.waiting_for) = text.to_owned();
    }

    /// Clients can be served.
    pub fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Release);
    }

    /// `/keepalive` was asked for.
    pub fn keepalive_seen(&self) {
        self.keepalives.fetch_add(1, Ordering::AcqRel);
    }

    /// How often `/keepalive` was asked for.
    pub fn keepalives(&self) -> usize {
        self.keepalives.load(Ordering::Acquire)
    }

    /// One more core serves; returns how many do.
    pub fn core_started(&self) -> usize {
        self.cores_started.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// The process is about to end.
    pub fn set_stopping(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    /// Keeps the replica's numbers for pages.
    pub fn set_gauges(&self, gauges: Arc<Gauges>) {
        *lock(&self.gauges) = Some(gauges);
    }

    /// The replica's numbers.
    pub fn gauges(&self) -> Option<Arc<Gauges>> {
        lock(&self.gauges).clone()
    }

    /// Asks all cores what their views cost. Returns the number of the question.
    pub fn ask_views(&self) -> usize {
        self.views_asked.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// The question that a core has not answered yet, if there is one.
    pub fn views_wanted(&self, core: usize) -> Option<usize> {
        let asked = self.views_asked.load(Ordering::Acquire);
        let views = lock(&self.views);
        (asked > views.get(&core).map_or(0, |(answered, _)| *answered)).then_some(asked)
    }

    /// A core answers a question.
    pub fn set_views(&self, core: usize, question: usize, views: Vec<Value>) {
        lock(&self.views).insert(core, (question, views));
    }

    /// The answers to a question, by core; `None`: not all cores have answered.
    pub fn views(&self, question: usize) -> Option<Vec<(usize, Vec<Value>)>> {
        let views = lock(&self.views);
        let answered = views.iter().filter(|(_, (answered, _))| *answered >= question);
        let answers: Vec<_> = answered.map(|(core, (_, views))| (*core, views.clone())).collect();
        (answers.len() >= self.cores_started.load(Ordering::Acquire)).then_some(answers)
    }

    /// `Ok` if clients can be served, else what is being waited for (ruling 19), or what is wrong
    /// (`docs/decisions/010-essential-parts.md`). That Postgres is away is no reason: clients are served.
    pub fn health(&self) -> Result<(), String> {
        if self.stopping.load(Ordering::Acquire) {
            return Err("stopping".to_owned());
        }
        if let Some(what) = &*lock(&self.lost) {
            return Err(format!("a part has ended that the server cannot do without: {what}"));
        }
        if !self.ready.load(Ordering::Acquire) {
            return Err(format!("waiting for {}", lock(&self.waiting_for)));
        }
        let now = Instant::now();
        self.cores.iter().enumerate().try_for_each(|(index, core)| core.health(index, now))?;
        self.gauges().map_or(Ok(()), |gauges| gauges.lag.health(now))
    }
}

impl CoreStatus {
    fn health(&self, index: usize, now: Instant) -> Result<(), String> {
        let silence = lock(&self.beat).map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        if silence > SILENT {
            return Err(format!("core {index} has stood still for {} seconds", silence.as_secs()));
        }
        if self.refuses.load(Ordering::Acquire) {
            return Err(format!(
                "core {index} cannot write the records of client views: make room on the disk of the replica"
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready() -> Status {
        let status = Status::of_cores(2);
        status.beat(0);
        status.beat(1);
        status.set_ready(true);
        status
    }

    #[test]
    fn a_core_that_stands_still_shows() {
        let status = ready();
        assert_eq!(status.health(), Ok(()));
        *lock(&status.cores[1].beat) = Instant::now().checked_sub(SILENT * 2);
        assert!(status.health().is_err_and(|why| why.contains("core 1 has stood still for 20 seconds")));
        status.beat(1);
        assert_eq!(status.health(), Ok(()));
    }

    #[test]
    fn a_disk_that_takes_no_records_and_a_part_that_is_lost_show() {
        let status = ready();
        status.set_refuses(0, true);
        assert!(status.health().is_err_and(|why| why.contains("core 0 cannot write")));
        status.set_refuses(0, false);
        assert_eq!(status.health(), Ok(()));
        status.set_lost("batches");
        status.set_lost("what ended because of that");
        assert!(status.health().is_err_and(|why| why.ends_with("batches")));
    }
}
