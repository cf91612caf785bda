//! Reading whole views, by hydrations beside the live path (rules 10, 16): why, at which version,
//! and what becomes of what was found.

use std::rc::Rc;
use std::sync::Arc;

use crate::groups::syncer::Syncer;
use crate::model::reason::Reason;
use crate::model::version::StateVersion;
use crate::protocol::dialect::Dialect;
use crate::testing::faults::{self, Fault};
use crate::testing::met::{Limit, met};
use crate::views::assemble::Assembly;
use crate::views::encoded::EncodedView;
use crate::views::journal::Delta;
use crate::views::scan::{Job, Witnesses};
use crate::views::state::ViewState;
use crate::views::view::{Layout, Status, View, ViewId};
use crate::zql::plan::Plan;

/// Most rows of a query that is read among the small ones.
const SMALL_LIMIT: u64 = 10_000;

/// A view that has to be read by a hydration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HydrationRequest {
    /// The view.
    pub view: ViewId,
    /// Its life: a result for another one is thrown away.
    pub generation: u64,
    /// Nothing says that it is small: it has no limit, and its filter fixes no column.
    pub large: bool,
}

/// A hydration that reads a view.
#[derive(Debug, Clone)]
pub struct Reading {
    /// For whom.
    pub request: HydrationRequest,
    /// Version of its snapshot.
    pub at: StateVersion,
    /// The core was at that version when the hydration began.
    pub in_step: bool,
    /// The view lives: only its rows in encoded form are wanted.
    pub frames_only: bool,
    /// `pokeID` in the parts that it makes.
    pub poke_id: String,
    /// Dialect of them.
    pub dialect: Dialect,
}

/// A reading that has begun.
pub struct Begun {
    /// Which.
    pub reading: Reading,
    /// Makes the state out of what is found.
    pub assembly: Assembly,
    /// What the view held, if it is read anew. The caller gives it back with the result.
    pub prior: Option<ViewState>,
    /// Plan of the view.
    pub plan: Arc<Plan>,
    /// The condition that its root was read from, once that is known.
    pub driver: usize,
    layout: Rc<Layout>,
    since: Option<StateVersion>,
    encode: bool,
}

impl Begun {
    /// What the thread that reads has to do. `witnesses`: those of the prior state.
    pub fn job(&self, witnesses: Witnesses) -> Job {
        let (layout, encode) = (&self.layout, self.encode);
        Job {
            plan: self.plan.clone(),
            nodes: layout.identities.iter().copied().zip(layout.encoders.iter().cloned()).collect(),
            poke_id: encode.then(|| self.reading.poke_id.clone()),
            dialect: self.reading.dialect,
            witnesses,
            since: self.since,
        }
    }
}

/// What a hydration found.
pub struct Found {
    /// The view's state.
    pub state: ViewState,
    /// Its rows in encoded form.
    pub encoded: EncodedView,
    /// What it held before and how that differs, if it was read anew; no delta: in more than
    /// can be told.
    pub prior: Option<(ViewState, Option<Delta>)>,
    /// Plan of the view.
    pub plan: Arc<Plan>,
}

impl Syncer {
    /// Asks for a hydration if the view has to be read before anybody can have its rows.
    pub(super) fn request_hydration(&mut self, id: ViewId) {
        let Some(view) = self.shared.views.get(id) else { return };
        // A number is used again: the hydration under way may be one of a view that is gone.
        if self.hydrations.get(&id) == Some(&view.generation) {
            return;
        }
        let small = view.size <= self.shared.limits.small_view;
        if !small && view.is_live() {
            met(Limit::SmallView);
        }
        if view.is_live() && (small || self.shared.encoded_view(id).is_some()) {
            return;
        }
        self.hydrations.insert(id, view.generation);
        self.requested.push(HydrationRequest {
            view: id,
            generation: view.generation,
            large: is_large(view),
        });
    }

    /// Hydrations asked for since the last call.
    pub fn take_hydration_requests(&mut self) -> Vec<HydrationRequest> {
        if self.shared.version < self.shared.wait_for {
            return Vec::new();
        }
        std::mem::take(&mut self.requested)
    }

    /// Begins to read a view on the snapshot of version `at`. `in_step`: that is the core's
    /// version. `None`: nobody wants it any more.
    pub fn begin_reading(
        &mut self,
        request: HydrationRequest,
        at: StateVersion,
        in_step: bool,
    ) -> Option<Begun> {
        if self.hydrations.get(&request.view) != Some(&request.generation) {
            return None;
        }
        let view = self.shared.views.get_mut(request.view).filter(|v| v.generation == request.generation)?;
        view.cost.readings += 1;
        let status = view.status;
        let (plan, layout) = (view.plan.clone(), view.layout.clone());
        let since = match status {
            Status::Recorded(_) if faults::is_on(Fault::Edits) => Some(at),
            Status::Stale(since) | Status::Recorded(since) => Some(since),
            Status::New | Status::Live => None,
        };
        let prior = since.map(|_| self.shared.views.take_prior(request.view));
        let assembly = Assembly::new(self.shared.rows.clone(), layout.clone(), plan.clone());
        let encode = since.is_none() || self.is_awaited(request.view);
        // Two hydrations of one view may be at one version, but never on one connection.
        let poke_id = format!("v{}.{}", request.generation, at.to_lexi());
        let (frames_only, dialect) = (status == Status::Live, self.dialect_awaited(request.view));
        let reading = Reading { request, at, in_step, frames_only, poke_id, dialect };
        Some(Begun { reading, assembly, prior, plan, driver: 0, layout, since, encode })
    }

    /// The dialect in which a view is encoded: that of those who wait for it. If they speak both it is text, and the
    /// other is made of it once.
    fn dialect_awaited(&self, view: ViewId) -> Dialect {
        let groups = self.shared.interested.get(&view).into_iter().flatten();
        let waiting = groups.filter(|id| self.waits_for(id, view)).filter_map(|id| self.groups.get(id));
        let mut dialects = waiting.flat_map(|group| &group.connections).map(|connection| connection.dialect);
        match (dialects.next(), dialects.any(|dialect| dialect == Dialect::Text)) {
            (Some(Dialect::Binary), false) => Dialect::Binary,
            _ => Dialect::Text,
        }
    }

    /// Notes how long a reading took, in nanoseconds.
    pub fn hydration_took(&mut self, request: HydrationRequest, nanoseconds: u64) {
        let view = self.shared.views.get_mut(request.view);
        if let Some(view) = view.filter(|view| view.generation == request.generation) {
            view.cost.reading_nanoseconds += nanoseconds;
            view.cost.last_reading = Some(nanoseconds);
        }
    }

    /// Whether a hydration that is under way is still wanted.
    pub fn is_read(&self, request: HydrationRequest) -> bool {
        self.hydrations.get(&request.view) == Some(&request.generation)
            && self.shared.views.get(request.view).is_some_and(|v| v.generation == request.generation)
    }

    /// Takes the result of a hydration. The core must be at its version or later, and
    /// [`Syncer::is_read`] must hold. True if the view still has to be brought forward to the
    /// core's version.
    pub fn hydration_done(&mut self, reading: &Reading, found: Found, now: f64) -> bool {
        let request = reading.request;
        let Found { state, mut encoded, prior, .. } = found;
        if encoded.partial {
            self.stream(reading, &mut encoded.parts);
        }
        self.end_stream(request.generation);
        self.hydrations.remove(&request.view);
        let at = reading.at;
        match prior {
            Some((prior, mut delta)) => {
                let end = self.after_record(request.view, at);
                delta.iter_mut().for_each(|delta| delta.end = end);
                self.shared.views.rejoin(request.view, prior, state, delta, end);
            }
            None => self.shared.views.hydrated(request.view, state, at),
        }
        self.keep_encoded(reading, encoded, now);
        let is_behind = at < self.shared.version && !faults::is_on(Fault::Overtaken);
        if is_behind {
            self.shared.record_log.falls_behind(request.view);
        }
        is_behind
    }

    /// Version at which what was read counts. A view that was recorded may differ from its record at
    /// the same version, in witnesses: whoever knows the record's version has to hear of that,
    /// so it counts as later. No commit has such a version.
    fn after_record(&self, view: ViewId, at: StateVersion) -> StateVersion {
        match self.shared.views.get(view).map(|view| view.status) {
            Some(Status::Recorded(since)) if at <= since => StateVersion(since.0 + 1),
            _ => at,
        }
    }

    /// Takes the result of a hydration for a view that lives: the rows in encoded form. The state
    /// that belongs to them is given up.
    pub fn frames_done(&mut self, reading: &Reading, assembly: Assembly, now: f64) {
        let request = reading.request;
        let mut assembly = assembly;
        let mut encoded = assembly.take_parts(reading.at, &reading.poke_id);
        if encoded.partial {
            self.stream(reading, &mut encoded.parts);
        }
        self.end_stream(request.generation);
        self.hydrations.remove(&request.view);
        let stale = self.shared.views.get(request.view).is_some_and(View::is_stale);
        if stale {
            // It has to be read once more, and cannot tell what happened since.
            self.request_hydration(request.view);
        } else {
            self.keep_encoded(reading, encoded, now);
        }
        // Only now: a number that is free could be given to another row.
        self.shared.views.discard_assembly(request.view, assembly);
    }

    /// Keeps encoded rows for those who wait for them.
    fn keep_encoded(&mut self, reading: &Reading, encoded: EncodedView, now: f64) {
        let view = reading.request.view;
        // The journal of a view that lives knows nothing of a snapshot between two batches: a
        // row that was there then and only then would be sent, and never be taken back.
        if encoded.partial {
            // Whoever began to wait after the first rows had left needs all of them.
            if self.is_awaited_beside_stream(reading.request) {
                self.request_hydration(view);
            }
        } else if !encoded.is_empty() && (!reading.frames_only || reading.in_step) {
            self.shared.encoded.insert(view, Rc::new(encoded));
            self.encoded_since.insert(view, now);
        }
        self.wake_interested(view);
    }

    /// Begins to read a view within a batch that ends at `to` and makes it stale.
    pub fn begin_inline(
        &mut self,
        view: ViewId,
        from: StateVersion,
        reason: Reason,
        to: StateVersion,
    ) -> Option<Begun> {
        self.shared.views.make_stale(view, from, reason);
        let generation = self.shared.views.get(view).filter(|v| v.is_stale())?.generation;
        let request = HydrationRequest { view, generation, large: false };
        self.hydrations.insert(view, generation);
        self.begin_reading(request, to, true)
    }

    /// Takes the result of a reading within a batch, at the core's version.
    pub fn inline_done(&mut self, reading: &Reading, found: Found, now: f64) {
        let request = reading.request;
        if self.is_read(request) {
            self.hydration_done(reading, found, now);
            return;
        }
        self.shared.views.discard(request.view, &found.plan, found.state);
        let prior = found.prior.map(|(prior, _)| (&found.plan, prior));
        self.hydration_failed(request, prior, "nobody wants it");
    }

    /// A view has joined at the core's version, or is stale again already.
    pub fn hydration_joined(&mut self, id: ViewId) {
        self.shared.record_log.keeps_up(id);
        let views = &mut self.shared.views;
        let Some(view) = views.get_mut(id) else { return };
        view.overtaken = if view.is_stale() { view.overtaken + 1 } else { 0 };
        if view.overtaken >= self.shared.limits.overtaken {
            met(Limit::Overtaken);
            views.read_inline(id);
        }
        let groups: Vec<Rc<str>> = self.shared.interested.get(&id).into_iter().flatten().cloned().collect();
        for group in groups {
            let Some(group) = self.groups.get_mut(&group).filter(|g| g.has_stale(&self.shared)) else {
                continue;
            };
            group.passed += 1;
            if group.passed >= self.shared.limits.passed {
                met(Limit::Passed);
                let is_stale = |id: &&ViewId| self.shared.views.get(**id).is_some_and(View::is_stale);
                let stale: Vec<ViewId> = group.views.keys().filter(is_stale).copied().collect();
                stale.into_iter().for_each(|id| self.shared.views.read_inline(id));
            }
        }
    }

    /// A hydration ended without a result: nobody wants it any more.
    pub fn hydration_given_up(&mut self, request: HydrationRequest) {
        self.end_stream(request.generation);
        if self.hydrations.get(&request.view) == Some(&request.generation) {
            self.hydrations.remove(&request.view);
        }
    }

    /// A hydration could not read its view: the queries that wait for it are refused (ruling 7).
    /// `prior`: what it held, if it was read anew.
    pub fn hydration_failed(
        &mut self,
        request: HydrationRequest,
        prior: Option<(&Arc<Plan>, ViewState)>,
        message: &str,
    ) {
        if let Some((plan, prior)) = prior {
            self.shared.views.put_prior(request.view, request.generation, plan, prior);
        }
        let current = self.is_read(request);
        self.hydration_given_up(request);
        // The number may be another view's by now.
        if current {
            self.view_failed(request.view, message);
        }
    }
}

/// Whether nothing says that a view is small.
fn is_large(view: &View) -> bool {
    let root = &view.plan.nodes[0];
    let limited = root.limit.is_some_and(|limit| limit <= SMALL_LIMIT);
    view.size > SMALL_LIMIT as usize || (!limited && root.filter.wanted().is_none())
}
