//! Which views are being read, and which wait for it.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::lane::{MAX_LANES, MAX_LARGE};
use super::lane_threads::LaneThreads;
use crate::groups::reading::LaneRequest;
use crate::replica::reader::Reader;
use crate::views::view::ViewId;

/// Requests that are compared to find the one that most wait for. After a restart thousands may wait.
const COMPARED: usize = 64;

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
    /// Lanes started so far.
    started: Cell<u64>,
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
            started: Cell::new(0),
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

    /// Takes the request that starts next, and counts it as under way. `wanted`: how many wait for
    /// a view.
    pub fn start_next(&self, wanted: impl Fn(ViewId) -> usize) -> Option<LaneRequest> {
        if self.running.get() >= MAX_LANES {
            return None;
        }
        // The one that came first has its turn, too: those that others want more might never end.
        let in_order = self.started.get().is_multiple_of(2);
        let next = take(&mut self.small.borrow_mut(), in_order, &wanted).or_else(|| {
            let free = self.running_large.get() < MAX_LARGE;
            free.then(|| take(&mut self.large.borrow_mut(), in_order, &wanted)).flatten()
        })?;
        self.started.set(self.started.get() + 1);
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

/// The first request, or of the first ones that which most wait for.
fn take(
    queue: &mut VecDeque<LaneRequest>,
    in_order: bool,
    wanted: &impl Fn(ViewId) -> usize,
) -> Option<LaneRequest> {
    if in_order {
        return queue.pop_front();
    }
    // Of equals the last one counts as the greatest, so they are looked at from the back.
    let first = queue.iter().take(COMPARED).enumerate().rev();
    let (at, _) = first.max_by_key(|(_, request)| wanted(request.view))?;
    queue.remove(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_most_wait_for_passes_and_keeps_nobody_waiting_for_ever() {
        let lanes = Lanes::new(0);
        for view in 0..6 {
            lanes.ask(LaneRequest { view: ViewId(view), incarnation: view.into(), large: false });
        }
        // The last two are wanted most, the others equally.
        let wanted = |view: ViewId| if view.0 >= 4 { view.0 as usize } else { 1 };
        let order: Vec<u32> = std::iter::from_fn(|| lanes.start_next(wanted)).map(|r| r.view.0).collect();
        assert_eq!(order, [0, 5, 1, 4, 2, 3]);
    }
}
