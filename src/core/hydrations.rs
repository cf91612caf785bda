//! Which views are being hydrated, and which wait for it.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::limits::Limits;
use crate::groups::reading::{HydrationRequest, Reading};
use crate::testing::met::{Limit, met};
use crate::views::view::ViewId;

/// Requests that are compared to find the one that most wait for. After a restart thousands may wait.
const COMPARED: usize = 64;

/// A hydration under way.
pub struct Hydrating {
    /// The life of the view that is hydrated.
    generation: u64,
    /// What it reads, once it has begun.
    pub reading: Option<Reading>,
    /// Its rows are sent while it goes on.
    pub streams: bool,
    /// Ends the reading.
    stop: Arc<AtomicBool>,
}

/// Number of a hydration.
pub type HydrationId = u64;

/// The hydrations of a core.
#[derive(Default)]
pub struct Hydrations {
    small: RefCell<VecDeque<HydrationRequest>>,
    large: RefCell<VecDeque<HydrationRequest>>,
    running: Cell<usize>,
    running_large: Cell<usize>,
    /// Started so far.
    started: Cell<u64>,
    /// Those under way. There may be two of one life of a view: one that is given up, and one that was asked for since.
    under_way: RefCell<BTreeMap<HydrationId, Hydrating>>,
}

impl Hydrations {
    /// Puts a request into its queue.
    pub fn ask(&self, request: HydrationRequest) {
        let queue = if request.large { &self.large } else { &self.small };
        queue.borrow_mut().push_back(request);
    }

    /// How many are under way.
    pub fn running(&self) -> usize {
        self.running.get()
    }

    /// Whether one could start.
    pub fn can_start(&self, limits: &Limits) -> bool {
        let large = self.running_large.get() < limits.large_hydrations && !self.large.borrow().is_empty();
        self.running.get() < limits.hydrations && (large || !self.small.borrow().is_empty())
    }

    /// Takes the request that starts next, and counts it as under way. `wanted`: how many wait for
    /// a view.
    pub fn start_next(
        &self,
        limits: &Limits,
        wanted: impl Fn(ViewId) -> usize,
    ) -> Option<(HydrationId, HydrationRequest)> {
        let waits = |queue: &RefCell<VecDeque<HydrationRequest>>| !queue.borrow().is_empty();
        if self.running.get() >= limits.hydrations {
            if waits(&self.small) || waits(&self.large) {
                met(Limit::Hydrations);
            }
            return None;
        }
        if self.running_large.get() >= limits.large_hydrations && waits(&self.large) {
            met(Limit::LargeHydrations);
        }
        // The one that came first is not passed for ever: those that others want more might never end.
        let in_order = self.started.get().is_multiple_of(2);
        let next = take(&mut self.small.borrow_mut(), in_order, &wanted).or_else(|| {
            let free = self.running_large.get() < limits.large_hydrations;
            free.then(|| take(&mut self.large.borrow_mut(), in_order, &wanted)).flatten()
        })?;
        let id = self.started.replace(self.started.get() + 1);
        let hydrating =
            Hydrating { generation: next.generation, reading: None, streams: false, stop: Arc::default() };
        self.under_way.borrow_mut().insert(id, hydrating);
        self.running.set(self.running.get() + 1);
        self.running_large.set(self.running_large.get() + next.large as usize);
        Some((id, next))
    }

    /// A hydration is over.
    pub fn ended(&self, id: HydrationId, request: HydrationRequest) {
        self.running.set(self.running.get() - 1);
        self.running_large.set(self.running_large.get() - request.large as usize);
        self.under_way.borrow_mut().remove(&id);
    }

    /// A flag that ends the reading of a hydration.
    pub fn stop_flag(&self, id: HydrationId) -> Arc<AtomicBool> {
        self.under_way.borrow().get(&id).map(|one| one.stop.clone()).unwrap_or_default()
    }

    /// What a hydration reads is known.
    pub fn reads(&self, id: HydrationId, reading: &Reading) {
        if let Some(one) = self.under_way.borrow_mut().get_mut(&id) {
            one.reading = Some(reading.clone());
        }
    }

    /// Whether the rows of a reading are sent while it goes on.
    pub fn streams(&self, reading: &Reading, streams: bool) {
        let mut under_way = self.under_way.borrow_mut();
        let is_it = |one: &&mut Hydrating| one.reading.as_ref().is_some_and(|r| r.poke_id == reading.poke_id);
        if let Some(one) = under_way.values_mut().find(is_it) {
            one.streams = streams;
        }
    }

    /// Nobody wants this life of a view any more.
    pub fn cancel(&self, generation: u64) {
        for one in self.under_way.borrow().values().filter(|one| one.generation == generation) {
            one.stop.store(true, Ordering::Relaxed);
        }
    }

    /// What is being read, and whether it is sent meanwhile.
    pub fn list(&self) -> Vec<(Reading, bool)> {
        let under_way = self.under_way.borrow();
        under_way.values().filter_map(|one| Some((one.reading.clone()?, one.streams))).collect()
    }
}

/// The first request, or of the first ones that which most wait for.
fn take(
    queue: &mut VecDeque<HydrationRequest>,
    in_order: bool,
    wanted: &impl Fn(ViewId) -> usize,
) -> Option<HydrationRequest> {
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

    fn ask(hydrations: &Hydrations, view: u32, large: bool) {
        hydrations.ask(HydrationRequest { view: ViewId(view), generation: view.into(), large });
    }

    #[test]
    fn what_most_wait_for_passes_and_keeps_nobody_waiting_for_ever() {
        let (waiting, limits) = (Hydrations::default(), Limits::of(4, 1));
        (0..6).for_each(|view| ask(&waiting, view, false));
        // The last two are wanted most, the others equally.
        let wanted = |view: ViewId| if view.0 >= 4 { view.0 as usize } else { 1 };
        let next = || waiting.start_next(&limits, wanted);
        let order: Vec<u32> = std::iter::from_fn(next).map(|(_, request)| request.view.0).collect();
        assert_eq!(order, [0, 5, 1, 4, 2, 3]);
    }

    #[test]
    fn large_ones_leave_room_for_small_ones() {
        let (waiting, limits) = (Hydrations::default(), Limits::of(2, 1));
        (0..10).for_each(|view| ask(&waiting, view, true));
        let started = || std::iter::from_fn(|| waiting.start_next(&limits, |_| 1)).count();
        assert_eq!(started(), limits.large_hydrations);
        assert!(!waiting.can_start(&limits));
        (10..20).for_each(|view| ask(&waiting, view, false));
        assert_eq!(started(), limits.hydrations - limits.large_hydrations);
    }

    /// The second could not be stopped any more, whatever becomes of its view.
    #[test]
    fn one_that_is_given_up_leaves_the_next_one_of_its_view_alone() {
        let (hydrations, limits) = (Hydrations::default(), Limits::of(4, 1));
        (0..2).for_each(|_| ask(&hydrations, 7, false));
        let next = || hydrations.start_next(&limits, |_| 1).unwrap();
        let ((first, request), (second, _)) = (next(), next());
        let stop = hydrations.stop_flag(second);
        hydrations.ended(first, request);
        hydrations.cancel(7);
        assert!(stop.load(Ordering::Relaxed));
    }
}
