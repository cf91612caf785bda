//! What a core asks of the server.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kelvin_io::executor::now;

use super::budget::Budget;
use super::commit_queue::CommitReceiver;
use super::records::Records;
use super::send_buffer::SendBuffer;
use crate::config::Config;
use crate::core::host::{Commits, Host, Memory, RecordQueue};
use crate::model::version::StateVersion;
use crate::replica::reader::{ReadError, Reader};

/// How long a core works before it lets its other tasks run.
const SLICE: Duration = Duration::from_micros(500);

/// Sockets that one slice of work sends to: that comes on top of the slice, and takes some ten
/// microseconds for each.
const MAX_SENDS: usize = 100;

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
    /// What is written down.
    pub records: Rc<Records>,
    /// Collects what goes out.
    pub send_buffer: Rc<SendBuffer>,
    /// When the present slice began, and for how many sockets something waited then.
    pub slice: Cell<(Instant, usize)>,
}

impl ServerHost {
    /// A slice begins.
    pub fn begin(&self) {
        self.slice.set((now(), self.send_buffer.collected()));
    }
}

impl Host for ServerHost {
    fn now(&self) -> f64 {
        now().saturating_duration_since(self.started).as_secs_f64() * 1000.0
    }

    fn is_over(&self) -> bool {
        let (began, collected) = self.slice.get();
        now().saturating_duration_since(began) >= SLICE
            || self.send_buffer.collected() >= collected + MAX_SENDS
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

    fn record_queue(&self) -> RecordQueue {
        self.records.queue()
    }
}
