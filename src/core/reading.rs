//! Has a whole view read beside the core, and makes a state out of what is found.
//!
//! A statement cannot be left in the middle: one that sorts a million rows, or meets pages that are not in memory,
//! holds its thread until it is done. So somebody else reads (decision 005); the core takes what is found in
//! slices, and live latency never waits for it.

use std::sync::Arc;

use super::effect::{Effect, Reported};
use super::overload;
use super::slices::Slices;
use super::state::CoreState;
use super::warning::Warning;
use crate::groups::reading::{Begun, Found, HydrationRequest, Reading};
use crate::replica::reader::{ReadError, Reader};
use crate::testing::met::{Limit, met};
use crate::views::difference::difference;
use crate::views::encoded::Part;
use crate::views::scan::Witnesses;
use crate::views::state::ViewState;
use crate::views::witnesses::witnesses;
use crate::zql::plan::Plan;

/// Has the view read, and takes what is found. The reader comes back if it can be used again.
pub async fn read(
    state: &CoreState,
    begun: &mut Begun,
    reader: Reader,
) -> (Option<Reader>, Result<(), ReadError>) {
    let mut slices = Slices::of(state);
    let known = match &begun.prior {
        Some(prior) => {
            let rows = state.with(|s| s.shared.rows.clone());
            witnesses(prior, &begun.plan, &rows, &mut slices).await
        }
        None => Witnesses::new(),
    };
    let open = state.readings.open();
    let view = begun.reading.request.generation;
    state.effect(Effect::Read { id: open.id, view, reader, job: Box::new(begun.job(known)) });
    let mut outlet = Outlet { state, reading: &begun.reading, keeps: None };
    let mut stopped = Ok(());
    loop {
        match open.next().await {
            Reported::Chunk(_) if stopped.is_err() => {}
            Reported::Chunk(chunk) => begun.assembly.take(chunk),
            Reported::End(reader, result) => {
                let result = stopped.and(result).map(|driver| begun.driver = driver);
                return (reader, result);
            }
        }
        state.effect(Effect::ReadOn(open.id));
        outlet.offer(&mut begun.assembly.parts);
        let request = begun.reading.request;
        stopped = stopped.and_then(|()| overload::check(state, request, &begun.assembly));
        if stopped.is_err() {
            state.hydrations.cancel(request.generation);
        }
        slices.rest_if_over().await;
    }
}

/// Where encoded parts go while the reading goes on.
struct Outlet<'s> {
    state: &'s CoreState,
    reading: &'s Reading,
    /// Whether the hydration keeps them; `None`: not decided yet.
    keeps: Option<bool>,
}

impl Outlet<'_> {
    fn offer(&mut self, parts: &mut Vec<Part>) {
        let due = match self.keeps {
            Some(keeps) => !keeps && !parts.is_empty(),
            None => {
                let bytes = parts.iter().map(|part| part.encoded.bytes()).sum::<usize>();
                bytes > 0 && bytes >= self.state.limits.get().stream_from
            }
        };
        if due {
            met(Limit::StreamFrom);
            let taken = self.state.with(|s| s.stream(self.reading, parts));
            self.keeps = Some(!taken);
            self.state.hydrations.streams(self.reading, taken);
        }
    }
}

/// Makes a state out of what was read, and finds how it differs from the one before. `None`:
/// nobody wants it any more.
pub async fn prepare(state: &CoreState, mut begun: Begun) -> Option<(Reading, Found)> {
    let request = begun.reading.request;
    let mut slices = Slices::of(state);
    let most = state.limits.get().settled_slots;
    let settle = |begun: &mut Begun| {
        let assembly = &mut begun.assembly;
        state.with(|s| s.is_read(request) && s.shared.views.settle(request.view, assembly, most))
    };
    while settle(&mut begun) {
        slices.rest_if_over().await;
    }
    if !state.with(|s| s.is_read(request)) {
        give_up(state, begun, &ReadError::Interrupted);
        return None;
    }
    let most_keys = state.limits.get().groups.views.journal_keys;
    let Begun { reading, assembly, prior, plan, .. } = begun;
    let (found, encoded, edited) = assembly.finish(reading.at, &reading.poke_id);
    let prior = match prior {
        None => None,
        Some(prior) => {
            let delta = difference(&prior, &found, &edited, (reading.at, most_keys), &mut slices).await;
            Some((prior, delta))
        }
    };
    Some((reading, Found { state: found, encoded, prior, plan }))
}

/// Ends a hydration that could not read its view. What the view held before goes back to it.
pub fn fail(
    state: &CoreState,
    request: HydrationRequest,
    plan: Option<&Arc<Plan>>,
    prior: Option<ViewState>,
    error: &ReadError,
) {
    let is_wanted = state.with(|s| {
        let is_wanted = s.is_read(request);
        s.hydration_failed(request, plan.zip(prior), &error.for_clients());
        is_wanted
    });
    if is_wanted {
        state.host.warn(Warning::Hydration, format_args!("a query could not be hydrated: {error}"));
    }
}

/// Ends a reading that cannot go on, or that nobody wants any more.
pub fn give_up(state: &CoreState, begun: Begun, error: &ReadError) {
    let request = begun.reading.request;
    state.with(|s| s.shared.views.discard_assembly(request.view, begun.assembly));
    fail(state, request, Some(&begun.plan), begun.prior, error);
}

/// Gives up what was found: it is not wanted any more, or cannot be used.
pub fn discard(state: &CoreState, request: HydrationRequest, found: Found, error: &ReadError) {
    state.with(|s| s.shared.views.discard(request.view, &found.plan, found.state));
    fail(state, request, Some(&found.plan), found.prior.map(|(prior, _)| prior), error);
}
