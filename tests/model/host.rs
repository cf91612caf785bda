//! What is around a core in a test: a clock, a queue of commits, memory.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use kelvin::core::host::{Commits, Host, Memory, Pressure};
use kelvin::core::warning::Warning;
use kelvin::groups::shedding::Excess;
use kelvin::model::commit::Commit;
use kelvin::model::version::StateVersion;
use kelvin::replica::reader::{ReadError, Reader};

use super::socket::SimulatedSockets;

/// Memory for whatever a test has.
pub const ROOM: Memory = Memory { pressure: Pressure::Calm, of_view: usize::MAX, of_group: usize::MAX };

/// Moments that only the core knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// A reader is opened.
    Opening,
    /// Commits are taken: the live snapshot has just been begun.
    Taking,
}

/// A commit that comes at such a moment.
pub struct Sudden {
    pub at: Moment,
    pub commit: Arc<Commit>,
    pub show: Box<dyn FnOnce()>,
}

/// Around the core.
pub struct SimulatedHost {
    pub sockets: Rc<SimulatedSockets>,
    /// Looks at the clock until the slice is over.
    pub slice: Cell<usize>,
    pub commits: RefCell<VecDeque<Arc<Commit>>>,
    /// Commits were dropped: the queue was full.
    pub gap: Cell<bool>,
    /// So many of the next readers cannot be opened.
    pub unopened: Cell<usize>,
    pub memory: Cell<Memory>,
    pub sudden: RefCell<Option<Sudden>>,
    /// Readers that were opened.
    pub opened: Cell<usize>,
    pub path: PathBuf,
}

impl SimulatedHost {
    fn passes(&self, moment: Moment) {
        let sudden = self.sudden.borrow_mut().take_if(|sudden| sudden.at == moment);
        if let Some(Sudden { commit, show, .. }) = sudden {
            show();
            self.commits.borrow_mut().push_back(commit);
        }
    }
}

impl Host for SimulatedHost {
    fn now(&self) -> f64 {
        self.sockets.now.get()
    }

    fn begin_slice(&self) {}

    fn is_over(&self) -> bool {
        let left = self.slice.get();
        self.slice.set(left.saturating_sub(1));
        left == 0
    }

    fn take_commits(&self, from: StateVersion, to: StateVersion) -> Option<Commits> {
        let mut waiting = self.commits.borrow_mut();
        let mut taken = Commits { gap: self.gap.take(), ..Commits::default() };
        let mut last = from;
        while let Some(commit) = waiting.front().filter(|commit| commit.version <= to).cloned() {
            waiting.pop_front();
            if commit.version > from {
                taken.gap |= commit.previous != last;
                last = commit.version;
                taken.commits.push(commit);
            }
        }
        taken.gap |= last != to;
        drop(waiting);
        self.passes(Moment::Taking);
        Some(taken)
    }

    fn open_reader(&self) -> Result<Reader, ReadError> {
        if let Some(left) = self.unopened.get().checked_sub(1) {
            self.unopened.set(left);
            return Err(ReadError::Unsupported("no file can be opened".to_owned()));
        }
        self.opened.set(self.opened.get() + 1);
        let reader = Reader::open(&self.path);
        self.passes(Moment::Opening);
        reader
    }

    fn memory(&self) -> Memory {
        self.memory.get()
    }

    fn excess(&self) -> usize {
        1
    }

    fn excess_in_use(&self) -> Option<Excess> {
        Some(Excess { bytes: 1, in_use: 1, stays: true })
    }

    fn give_memory_back(&self) {}

    fn warn(&self, _: Warning, _: fmt::Arguments<'_>) {}
}
