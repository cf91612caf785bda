//! Hydrations: reading a whole view beside the live path (rules 10, 16, decision 005).
//!
//! A view is read on a snapshot of its own; when that is done it is brought to the core's version by the commits since
//! then, and joins.

use std::panic::AssertUnwindSafe;
use std::rc::Rc;

use futures_lite::FutureExt;

use super::batch::{advance, bring_forward};
use super::effect::Effect;
use super::host::Pressure;
use super::hydrations::HydrationId;
use super::overload;
use super::reading::{discard, fail, give_up, prepare, read};
use super::recording::RecordQueue;
use super::slices::Slices;
use super::state::CoreState;
use super::version_lock::Held;
use crate::groups::reading::{Begun, HydrationRequest};
use crate::model::version::StateVersion;
use crate::replica::reader::{ReadError, Reader};
use crate::testing::met::{Limit, met};
use crate::testing::panics;
use crate::zql::explain::explain;
use crate::zql::plan::Plan;

/// Starts as many of the waiting hydrations as may run, whenever that may have become more.
pub async fn start_waiting(state: Rc<CoreState>) {
    loop {
        state.signals.hydrate.wait().await;
        start_some(&state).await;
    }
}

async fn start_some(state: &Rc<CoreState>) {
    let slices = Slices::of(state);
    loop {
        let is_tight = state.host.memory().pressure >= Pressure::Tight;
        let is_overfull = state.record_queue() == RecordQueue::Overfull;
        if is_overfull && state.hydrations.can_start(&state.limits.get()) {
            met(Limit::RecordQueue);
        }
        if is_overfull || (is_tight && state.hydrations.running() >= state.limits.get().tight_hydrations) {
            return;
        }
        let wanted = |view| state.look().shared.views.subscribers(view);
        let Some((id, request)) = state.hydrations.start_next(&state.limits.get(), wanted) else { return };
        let hydration = Running(state.clone(), id, request);
        state.spawn("a hydration", async move {
            let ran = AssertUnwindSafe(run(&hydration.0, id, request)).catch_unwind().await;
            if ran.is_err() && !hydration.0.is_broken() {
                let now = hydration.0.now();
                hydration.0.with(|s| s.reading_lost(request, now));
            }
            drop(hydration);
        });
        slices.rest_if_over().await;
    }
}

/// Counts the hydration as over however it ends, and has the next one started; not from here,
/// or each short one would start the next on top of its own stack.
struct Running(Rc<CoreState>, HydrationId, HydrationRequest);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.hydrations.ended(self.1, self.2);
        self.0.signals.hydrate.raise();
    }
}

async fn run(state: &Rc<CoreState>, id: HydrationId, request: HydrationRequest) {
    let began = state.now();
    if overload::refuse(state, request) {
        return;
    }
    panics::here("a hydration");
    let (mut begun, reader, held) = match begin(state, id, request).await {
        Ok(Some(begun)) => begun,
        Ok(None) => return,
        Err(error) => return fail(state, request, None, None, &error),
    };
    if let Err(error) = overload::check_groups(state, request) {
        state.give_reader_back(reader);
        return give_up(state, begun, &error);
    }
    let (reader, result) = read(state, &mut begun, reader).await;
    let is_slow = || state.now() - began > state.entrance.settings.slow_after;
    // While the reader is there.
    let steps = reader.as_ref().filter(|_| is_slow()).map(|reader| steps(reader, &begun.plan, begun.driver));
    reader.into_iter().for_each(|reader| state.give_reader_back(reader));
    if let Err(error) = result {
        return give_up(state, begun, &error);
    }
    panics::here("what a hydration has read");
    let rows = begun.assembly.len();
    match begun.reading.frames_only {
        true => {
            drop(held);
            give_frames(state, begun).await;
        }
        false => join(state, begun, held).await,
    }
    let milliseconds = state.now() - began;
    let nanoseconds = (milliseconds * 1e6) as u64;
    state.metrics.hydration_done(nanoseconds);
    state.with(|s| s.hydration_took(request, nanoseconds));
    if is_slow() {
        let plan = steps.unwrap_or_default();
        state.effect(Effect::SlowHydration { rows, milliseconds, view: request.generation, plan });
    }
}

/// Most characters of a plan in the log.
const MAX_STEPS: usize = 2_000;

/// How SQLite reads a plan's rows, in one line.
fn steps(reader: &Reader, plan: &Plan, driver: usize) -> String {
    let text = match explain(reader, plan, driver) {
        Ok(steps) => steps.join("; "),
        Err(error) => error.to_string(),
    };
    text.chars().take(MAX_STEPS).collect()
}

/// Takes a snapshot, the core's own if that can be had: what is read of a view that
/// lives is of use only if the view was at that snapshot once. A view that would be
/// overtaken for ever keeps the version lock until it has joined.
async fn begin(
    state: &CoreState,
    id: HydrationId,
    request: HydrationRequest,
) -> Result<Option<(Begun, Reader, Option<Held<'_>>)>, ReadError> {
    let mut reader = state.take_reader()?;
    reader.stop_when(state.hydrations.stop_flag(id))?;
    let held = state.version_lock.lock().await;
    let mut at = reader.begin()?;
    let is_of_known_tables = |reader: &Reader| reader.epoch() == state.look().shared.catalogue.epoch;
    let mut begun = 0;
    // With other tables than the plan was made for nothing is read.
    while at != state.version() && (begun < state.limits.get().begins || !is_of_known_tables(&reader)) {
        advance(state).await?;
        at = reader.begin()?;
        begun += 1;
    }
    let in_step = at == state.version();
    if !in_step {
        met(Limit::Begins);
    }
    let Some(begun) = state.with(|s| s.begin_reading(request, at, in_step)) else {
        state.with(|s| s.hydration_given_up(request));
        state.give_reader_back(reader);
        return Ok(None);
    };
    state.hydrations.reads(id, &begun.reading);
    let inline = state.with(|s| s.shared.views.is_inline(request.view));
    Ok(Some((begun, reader, inline.then_some(held))))
}

/// Gives the rows of a view that lives to those who wait for them.
async fn give_frames(state: &CoreState, begun: Begun) {
    let _held = state.version_lock.lock().await;
    if let Err(error) = reach(state, begun.reading.at).await {
        return give_up(state, begun, &error);
    }
    if !state.with(|s| s.is_read(begun.reading.request)) {
        return give_up(state, begun, &ReadError::Interrupted);
    }
    let now = state.now();
    state.with(|s| s.frames_done(&begun.reading, begun.assembly, now));
}

/// Brings the view to the core's version and lets it join.
async fn join(state: &CoreState, begun: Begun, held: Option<Held<'_>>) {
    let Some((reading, found)) = prepare(state, begun).await else { return };
    let (request, at) = (reading.request, reading.at);
    let _held = match held {
        Some(held) => held,
        None => state.version_lock.lock().await,
    };
    if let Err(error) = reach(state, at).await {
        return discard(state, request, found, &error);
    }
    if !state.with(|s| s.is_read(request)) {
        return discard(state, request, found, &ReadError::Interrupted);
    }
    let now = state.now();
    if state.with(|s| s.hydration_done(&reading, found, now)) {
        bring_forward(state, request.view, at).await;
    }
    state.with(|s| s.hydration_joined(request.view));
}

/// Brings the core to a hydration's version: it may have seen a newer snapshot.
async fn reach(state: &CoreState, at: StateVersion) -> Result<(), ReadError> {
    while state.version() < at {
        advance(state).await?;
    }
    Ok(())
}
