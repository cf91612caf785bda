//! Which views are being read, and which wait for it.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::lane_threads::LaneThreads;
use crate::groups::reading::LaneRequest;
use crate::replica::reader::Reader;
use crate::views::view::ViewId;

/// Most lanes under way at a time on one core. Each holds a snapshot, and its result in memory.
pub const MAX_LANES: usize = 8;

/// Least lanes: one for small queries when the other has a large one.
const MIN_LANES: usize = 2;

/// Lanes by processor: some wait for the disk. Of more, each takes longer, and so do those whom they keep from
/// their processor, however low their priority.
const PER_PROCESSOR: usize = 2;

/// Requests that are compared to find the one that most wait for. After a restart thousands may wait.
const COMPARED: usize = 64;

/// Lanes of each of so many cores.
pub fn lanes_of(processors: usize, cores: usize) -> usize {
    (processors * PER_PROCESSOR / cores.max(1)).clamp(MIN_LANES, MAX_LANES)
}

/// The lanes of a core.
pub struct Lanes {
    most: usize,
    /// Of these, lanes whose query may have any number of rows: the others are kept for queries
    /// that are known to be small, which a large one must not keep waiting.
    most_large: usize,
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
    /// None under way. `most`: so many may be, of [`MAX_LANES`].
    pub fn new(core: usize, most: usize) -> Lanes {
        Lanes {
            most,
            most_large: most / 2,
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
        let large = self.running_large.get() < self.most_large && !self.large.borrow().is_empty();
        self.running.get() < self.most && (large || !self.small.borrow().is_empty())
    }

    /// Takes the request that starts next, and counts it as under way. `wanted`: how many wait for
    /// a view.
    pub fn start_next(&self, wanted: impl Fn(ViewId) -> usize) -> Option<LaneRequest> {
        if self.running.get() >= self.most {
            return None;
        }
        // The one that came first has its turn, too: those that others want more might never end.
        let in_order = self.started.get().is_multiple_of(2);
        let next = take(&mut self.small.borrow_mut(), in_order, &wanted).or_else(|| {
            let free = self.running_large.get() < self.most_large;
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
        let lanes = Lanes::new(0, MAX_LANES);
        for view in 0..6 {
            lanes.ask(LaneRequest { view: ViewId(view), incarnation: view.into(), large: false });
        }
        // The last two are wanted most, the others equally.
        let wanted = |view: ViewId| if view.0 >= 4 { view.0 as usize } else { 1 };
        let order: Vec<u32> = std::iter::from_fn(|| lanes.start_next(wanted)).map(|r| r.view.0).collect();
        assert_eq!(order, [0, 5, 1, 4, 2, 3]);
    }

    #[test]
    fn large_ones_leave_a_lane_to_small_ones() {
        for (processors, cores, lanes) in [(1, 1, 2), (2, 1, 4), (2, 2, 2), (64, 32, 4), (64, 1, 8)] {
            assert_eq!(lanes_of(processors, cores), lanes, "{processors} processors, {cores} cores");
            let waiting = Lanes::new(0, lanes);
            let ask = |view: usize, large| {
                waiting.ask(LaneRequest { view: ViewId(view as u32), incarnation: view as u64, large })
            };
            (0..10).for_each(|view| ask(view, true));
            assert_eq!(std::iter::from_fn(|| waiting.start_next(|_| 1)).count(), lanes / 2);
            assert!(!waiting.can_start());
            (10..20).for_each(|view| ask(view, false));
            assert_eq!(std::iter::from_fn(|| waiting.start_next(|_| 1)).count(), lanes - lanes / 2);
        }
    }
}
