//! What time brings: expiries, what is idle or old, what memory is short for, numbers.

use std::cell::Cell;
use std::rc::Rc;

use super::shedding::shed;
use super::state::CoreState;
use super::transforms::pass_on;
use super::upkeep::look_after;
use crate::groups::execution::SPELLED;

/// Rounds without a hydration after which the memory of a peak is given back: that takes
/// milliseconds, and more hydrations may be about to come.
const CALM: u32 = 25;

/// Milliseconds between warnings of queries that clients spelled out.
const WARN_OF_SPELLED: f64 = 600_000.0;

/// What a round has to know of those before it.
#[derive(Default)]
pub struct Rounds {
    /// There were hydrations, or encoded views, since memory was given back.
    peak: Cell<bool>,
    /// Rounds since then without any.
    calm: Cell<u32>,
    warned: Cell<Option<f64>>,
}

impl Rounds {
    /// A round.
    pub(super) fn tick(&self, state: &Rc<CoreState>, clock_zero: f64) {
        let now = state.now();
        state.answers.borrow_mut().forget(now);
        state.entrance.sessions.end_late(now);
        self.give_back_after_a_peak(state);
        shed(state, now);
        let purged = state.with(|syncer| {
            syncer.shared.clock_zero = clock_zero;
            syncer.purge(now)
        });
        if purged > 0 {
            crate::info!(core = state.index; "purged {purged} inactive CVRs");
        }
        state.with(|syncer| {
            syncer.tick(now);
            state.metrics.set_groups(syncer.groups.len());
            state.metrics.set_clients(syncer.connected());
            state.metrics.set_queries(syncer.desired_queries());
            state.metrics.set_views(syncer.shared.views.len());
        });
        let unplanned = state.with(|syncer| syncer.retry_unplanned());
        unplanned.iter().for_each(|group| pass_on(state, group));
        self.warn_of_spelled(state, now);
        look_after(state);
    }

    /// Once the hydrations of a peak are done and their encoded views are gone.
    fn give_back_after_a_peak(&self, state: &CoreState) {
        let is_busy = state.hydrations.running() > 0 || !state.look().shared.encoded.is_empty();
        self.calm.set(if is_busy { 0 } else { self.calm.get() + 1 });
        self.peak.set(self.peak.get() || is_busy);
        if self.peak.get() && self.calm.get() >= CALM {
            state.host.give_memory_back();
            self.peak.set(false);
        }
    }

    fn warn_of_spelled(&self, state: &CoreState, now: f64) {
        if self.warned.get().is_some_and(|at| now - at < WARN_OF_SPELLED) {
            return;
        }
        let count = state.with(|s| std::mem::take(&mut s.shared.spelled));
        if count > 0 {
            self.warned.set(Some(now));
            crate::warn!(core = state.index, queries = count; "queries were not answered: {SPELLED}");
        }
    }
}
