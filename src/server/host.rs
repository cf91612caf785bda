//! What a core asks of the server.

use std::cell::Cell;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kelvin_io::executor::now;

use super::budget::Budget;
use super::commit_queue::CommitReceiver;
use super::warnings::Warnings;
use crate::config::Config;
use crate::core::host::{Commits, Host, Memory, Pressure};
use crate::core::warning::Warning;
use crate::groups::shedding::Excess;
use crate::model::version::StateVersion;
use crate::replica::reader::{ReadError, Reader};

/// How long a core works before it lets its other tasks run.
const SLICE: Duration = Duration::from_micros(500);

/// The server, as a core sees it.
pub struct ServerHost {
    /// Settings.
    pub config: Arc<Config>,
    /// Zero of the core's clock.
    pub started: Instant,
    /// Commits to come.
    pub commits: Rc<CommitReceiver>,
    /// Memory of the process.
    pub budget: Arc<Budget>,
    /// Cores of the process, which share it.
    pub cores: usize,
    /// What clients make it warn of.
    pub warnings: Rc<Warnings>,
    /// When the present slice began.
    pub slice: Cell<Instant>,
}

impl Host for ServerHost {
    fn now(&self) -> f64 {
        now().saturating_duration_since(self.started).as_secs_f64() * 1000.0
    }

    fn begin_slice(&self) {
        self.slice.set(now());
    }

    fn is_over(&self) -> bool {
        now().saturating_duration_since(self.slice.get()) >= SLICE
    }

    fn take_commits(&self, from: StateVersion, to: StateVersion) -> Option<Commits> {
        self.commits.has_reached(to).then(|| self.commits.take(from, to))
    }

    fn open_reader(&self) -> Result<Reader, ReadError> {
        let mut reader = Reader::open(&self.config.replica_file)?;
        reader.let_try(self.config.query_planner);
        Ok(reader)
    }

    fn memory(&self) -> Memory {
        let budget = &self.budget;
        Memory { pressure: budget.pressure(), of_view: budget.of_view(), of_group: budget.of_group() }
    }

    fn excess(&self) -> usize {
        self.budget.excess() / self.cores
    }

    fn excess_in_use(&self) -> Option<Excess> {
        let (budget, cores) = (&self.budget, self.cores);
        // What hydrations gave up a moment ago is no reason to send anybody away: the system has it back now, or will.
        kelvin_io::memory::give_back();
        budget.look_again();
        if budget.pressure() < Pressure::Full {
            return None;
        }
        if budget.stays_full() {
            let in_use = budget.in_use().max(budget.held()) / cores;
            return Some(Excess { bytes: budget.excess() / cores, in_use, stays: true });
        }
        let bytes = budget.excess_in_use() / cores;
        (bytes > 0).then(|| Excess { bytes, in_use: budget.in_use() / cores, stays: false })
    }

    fn give_memory_back(&self) {
        kelvin_io::memory::give_back();
    }

    fn warn(&self, warning: Warning, text: fmt::Arguments<'_>) {
        self.warnings.warn(warning, text);
    }
}
