//! Which views are being read, and which wait for it.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::lane::{MAX_LANES, MAX_LARGE};
use super::lane_threads::LaneThreads;
use crate::groups::reading::LaneRequest;
use crate::replica::reader::Reader;

/// The lanes of a core.
pub struct Lanes {
    /// Where views are read.
    pub threads: LaneThreads,
    /// Readers that are not in use.
    pub readers: RefCell<Vec<Reader>>,
    small: RefCell<VecDeque<LaneRequest>>,
    large: RefCell<VecDeque<LaneRequest>>,
    running: Cell<usize>,
    running_large: Cell<usize>,
    /// Flags that end readings, by incarnation.
    stops: RefCell<HashMap<u64, Arc<AtomicBool>>>,
}

impl Lanes {
    /// None under way.
    pub fn new(core: usize) -> Lanes {
        Lanes {
            threads: LaneThreads::new(core),
            readers: RefCell::default(),
            small: RefCell::default(),
            large: RefCell::default(),
            running: Cell::new(0),
            running_large: Cell::new(0),
            stops: RefCell::default(),
        }
    }

    /// Puts a request into its queue.
    pub fn ask(&self, request: LaneRequest) {
        let queue = if request.large { &self.large } else { &self.small };
        queue.borrow_mut().push_back(request);
    }

    /// Lanes under way.
    pub fn running(&self) -> usize {
        self.running.get()
    }

    /// Whether one could start.
    pub fn can_start(&self) -> bool {
        let large = self.running_large.get() < MAX_LARGE && !self.large.borrow().is_empty();
        self.running.get() < MAX_LANES && (large || !self.small.borrow().is_empty())
    }

    /// Takes the request that starts next, and counts it as under way.
    pub fn start_next(&self) -> Option<LaneRequest> {
        if self.running.get() >= MAX_LANES {
            return None;
        }
        let next = self.small.borrow_mut().pop_front().or_else(|| {
            (self.running_large.get() < MAX_LARGE).then(|| self.large.borrow_mut().pop_front()).flatten()
        })?;
        self.running.set(self.running.get() + 1);
        self.running_large.set(self.running_large.get() + next.large as usize);
        Some(next)
    }

    /// A lane is over.
    pub fn ended(&self, request: LaneRequest) {
        self.running.set(self.running.get() - 1);
        self.running_large.set(self.running_large.get() - request.large as usize);
        self.stops.borrow_mut().remove(&request.incarnation);
    }

    /// A flag that ends the reading of this incarnation.
    pub fn stop_flag(&self, incarnation: u64) -> Arc<AtomicBool> {
        let flag = Arc::new(AtomicBool::new(false));
        self.stops.borrow_mut().insert(incarnation, flag.clone());
        flag
    }

    /// Nobody wants the view any more.
    pub fn cancel(&self, incarnation: u64) {
        if let Some(flag) = self.stops.borrow().get(&incarnation) {
            flag.store(true, Ordering::Relaxed);
        }
    }
}
