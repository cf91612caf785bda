//! Batches: bringing every view of a core to the newest snapshot (rules 2, 4, 9, 13).
//!
//! What a batch finds is held back until all of it is known, and then takes effect at once:
//! nobody sees some views at the new version and others at the old one.

use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;

use futures_lite::FutureExt;

use super::effect::Effect;
use super::host::Commits;
use super::reading::{give_up, prepare, read};
use super::slices::Slices;
use super::state::CoreState;
use crate::groups::reading::{Found, Reading};
use crate::groups::syncer::Syncer;
use crate::model::batch::{Batch, widen};
use crate::model::catalogue::Catalogue;
use crate::model::reason::Reason;
use crate::model::version::StateVersion;
use crate::observe::metrics::Metrics;
use crate::replica::reader::{ReadError, Reader};
use crate::testing::faults::{self, Fault};
use crate::views::changed::Changed;
use crate::views::routing::Routing;
use crate::views::task::{self, Done, ViewOutcome};
use crate::views::view::ViewId;

/// Runs batches for as long as commits come.
pub async fn run(state: Rc<CoreState>) {
    loop {
        state.signals.batch.wait().await;
        let _held = state.version_lock.lock().await;
        if let Err(error) = advance(&state).await {
            crate::error!(core = state.index; "a batch failed and is tried again: {error}");
        }
    }
}

/// Brings all views to the newest snapshot. The caller holds the version lock.
pub async fn advance(state: &CoreState) -> Result<(), ReadError> {
    let done = try_advance(state).await;
    state.torn.set(done.is_err());
    match done {
        Ok(()) => state.with(|_| ()),
        Err(_) => state.effect(Effect::RetryBatch),
    }
    done
}

async fn try_advance(state: &CoreState) -> Result<(), ReadError> {
    let began = state.now();
    let (reader, from) = state.with(|s| (s.shared.reader.clone(), s.shared.version));
    let spare = begin(state, &reader)?;
    let to = reader.version();
    if to == from {
        spare.into_iter().for_each(|spare| state.give_reader_back(spare));
        return Ok(());
    }
    let mut taken = take(state, from, to).await;
    let catalogue = follow_schema(state, &reader)?;
    taken.commits = widen(taken.commits, &catalogue);
    let wanted = state.hydrations.running() > 0;
    state.recent.borrow_mut().keep(&taken, wanted, state.limits.get().recent_bytes);
    let batch = fold(&taken, &catalogue, to, &state.metrics);
    let mut brought = bring(state, &reader, &batch, None).await?;
    if let Some(spare) = spare {
        read_inline(state, spare, &mut brought, (from, to)).await;
    }
    let now = state.now();
    state.with(|syncer| {
        syncer.shared.moved(to);
        if faults::is_on(Fault::Barrier) {
            brought.settle_apart(syncer, from, now);
        }
        brought.settle(syncer, from, now);
        syncer.route_mutations(&batch);
    });
    let nanoseconds = (state.now() - began) * 1e6;
    state.metrics.batch_done(taken.commits.len(), nanoseconds as u64);
    Ok(())
}

/// The tables of the live snapshot, which the groups get to know if they are others than before: what is planned and
/// encoded from here on is of them (`docs/spec/schema-changes.md` S4). The caller holds the version lock.
fn follow_schema(state: &CoreState, reader: &Reader) -> Result<Arc<Catalogue>, ReadError> {
    let known = state.with(|s| s.shared.catalogue.clone());
    if reader.epoch() == known.epoch {
        return Ok(known);
    }
    let mut catalogue = reader.catalogue()?;
    catalogue.remember_gone(&known);
    let catalogue = Arc::new(catalogue);
    state.with(|s| s.follow_schema(&catalogue));
    Ok(catalogue)
}

/// Begins the live snapshot anew, and one for views that are read within the batch if there are
/// any: both at one version.
fn begin(state: &CoreState, live: &Reader) -> Result<Option<Reader>, ReadError> {
    let mut version = live.begin()?;
    if !state.with(|s| s.shared.views.has_inline()) {
        return Ok(None);
    }
    let spare = state.take_reader()?;
    // A commit may come between the two; not again and again, since this is faster.
    while spare.begin()? != version {
        version = live.begin()?;
        if spare.version() == version {
            break;
        }
    }
    Ok(Some(spare))
}

/// Reads the views anew that cannot wait for a hydration, since they would be overtaken there.
async fn read_inline(
    state: &CoreState,
    spare: Reader,
    brought: &mut Brought,
    (from, to): (StateVersion, StateVersion),
) {
    let mut reader = Some(spare);
    settle_interrupted(state, brought, from);
    for (view, reason) in std::mem::take(&mut brought.stale) {
        let inline = state.with(|s| s.shared.views.is_inline(view));
        let Some(spare) = reader.take_if(|_| inline) else {
            brought.stale.push((view, reason));
            continue;
        };
        let Some(mut begun) = state.with(|s| s.begin_inline(view, from, reason, to)) else {
            reader = Some(spare);
            continue;
        };
        state.metrics.view_fell_back(reason);
        let (back, result) = Box::pin(read(state, &mut begun, spare)).await;
        reader = back;
        match result {
            Ok(()) => brought.read.extend(prepare(state, begun).await),
            Err(error) => give_up(state, begun, &error),
        }
    }
    reader.into_iter().for_each(|reader| state.give_reader_back(reader));
}

/// Lets what took too long to look at take effect, so that it can be read instead.
fn settle_interrupted(state: &CoreState, brought: &mut Brought, from: StateVersion) {
    let is_inline =
        |done: &mut Done| done.is_interrupted() && state.with(|s| s.shared.views.is_inline(done.view));
    for done in brought.done.extract_if(.., is_inline) {
        let view = done.view;
        if let ViewOutcome::Stale(reason) = state.with(|s| done.settle(&mut s.shared.views, from)) {
            brought.stale.push((view, reason));
        }
    }
}

/// Takes the commits up to the snapshot; those that are still on their way are awaited. The
/// caller holds the version lock, so nobody else waits for a commit.
async fn take(state: &CoreState, from: StateVersion, to: StateVersion) -> Commits {
    loop {
        if let Some(taken) = state.host.take_commits(from, to) {
            return taken;
        }
        // A commit is announced right after it is made, so this is a matter of microseconds.
        state.signals.commits.wait().await;
    }
}

/// What was taken as one batch. With a gap it is everything that there is.
fn fold<'c>(taken: &'c Commits, catalogue: &Catalogue, to: StateVersion, metrics: &Metrics) -> Batch<'c> {
    if taken.gap {
        metrics.queue_overflowed();
        return Batch::everything(catalogue, to);
    }
    Batch::fold(&taken.commits, to)
}

/// Brings the views that a batch touches to its end, or `only` one. Nothing takes effect yet.
async fn bring(
    state: &CoreState,
    reader: &Reader,
    batch: &Batch<'_>,
    only: Option<ViewId>,
) -> Result<Brought, ReadError> {
    let mut brought = Brought { metrics: Some(state.metrics.clone()), ..Brought::default() };
    let changed = state.with(|s| {
        s.shared.contents.give_up_coming();
        Changed::new(batch, &s.shared.rows.borrow())
    });
    let mut routing = state.with(|s| Routing::new(batch, &changed, &s.shared.views, only));
    let mut slices = Slices::of(state);
    while state.with(|s| routing.step(&s.shared.views, reader))? {
        slices.rest_if_over().await;
    }
    let tasks = state.with(|s| task::take(&mut s.shared.views, routing.finish()));
    brought.stale = tasks.stale;
    for task in tasks.advance {
        state.metrics.view_advanced();
        let (began, view) = (state.now(), task.view);
        let performed = AssertUnwindSafe(task.perform(&changed, reader, &mut slices)).catch_unwind().await;
        let Ok(mut done) = performed else {
            brought.lost.push(view);
            continue;
        };
        // Others may have run meanwhile; most views take no more than one slice.
        done.nanoseconds = ((state.now() - began) * 1e6) as u64;
        state.with(|s| s.shared.contents.expect(done.delta(), &changed, &mut s.shared.views));
        brought.done.push(done);
        slices.rest_if_over().await;
    }
    Ok(brought)
}

/// What a batch did to the views that it touched. Nothing has taken effect yet.
#[derive(Default)]
struct Brought {
    done: Vec<Done>,
    stale: Vec<(ViewId, Reason)>,
    /// Views that were read within the batch.
    read: Vec<(Reading, Found)>,
    /// Views whose way over the batch ended in a panic.
    lost: Vec<ViewId>,
    metrics: Option<Arc<Metrics>>,
}

impl Brought {
    /// Makes it take effect. `from`: the version before.
    fn settle(self, syncer: &mut Syncer, from: StateVersion, now: f64) {
        syncer.shared.contents.arrived();
        let metrics = self.metrics;
        for done in self.done {
            let view = done.view;
            let outcome = done.settle(&mut syncer.shared.views, from);
            match &outcome {
                ViewOutcome::Stale(reason) => {
                    metrics.iter().for_each(|metrics| metrics.view_fell_back(*reason));
                }
                ViewOutcome::Failed(why) => {
                    crate::warn!("the queries of a view are refused until it can be kept again: {why}");
                }
                ViewOutcome::Same | ViewOutcome::Touched => {}
            }
            syncer.brought_forward(view, outcome);
        }
        for (view, reason) in self.stale {
            syncer.shared.views.make_stale(view, from, reason);
            metrics.iter().for_each(|metrics| metrics.view_fell_back(reason));
            syncer.brought_forward(view, ViewOutcome::Stale(reason));
        }
        self.lost.into_iter().for_each(|view| syncer.lose_view(view, now));
        let read: Vec<ViewId> = self.read.iter().map(|(reading, _)| reading.request.view).collect();
        for (reading, found) in self.read {
            // A view that went meanwhile has no groups that could wait for it.
            syncer.inline_done(&reading, found, now);
        }
        if syncer.shared.views.has_inline() {
            syncer.shared.views.inline_done(&read);
        }
    }

    /// Rule 13 broken: views take effect one by one, and groups step in between.
    fn settle_apart(&mut self, syncer: &mut Syncer, from: StateVersion, now: f64) {
        while self.done.len() > 1
            && let Some(next) = self.done.pop()
        {
            Brought { done: vec![next], ..Brought::default() }.settle(syncer, from, now);
            while let Some(group) = syncer.next_due() {
                syncer.work(&group, now);
            }
        }
    }
}

/// Brings one view, hydrated at `at`, to the core's version. The caller holds the version lock.
pub async fn bring_forward(state: &CoreState, id: ViewId, at: StateVersion) {
    let mut commits = state.recent.borrow().since(at);
    let (reader, catalogue, end) =
        state.with(|s| (s.shared.reader.clone(), s.shared.catalogue.clone(), s.shared.version));
    commits.commits = widen(commits.commits, &catalogue);
    let batch = match commits.gap {
        true => Batch::everything(&catalogue, end),
        false => Batch::fold(&commits.commits, end),
    };
    match bring(state, &reader, &batch, Some(id)).await {
        Ok(done) => {
            let now = state.now();
            state.with(|syncer| done.settle(syncer, at, now));
        }
        Err(error) => {
            crate::warn!(core = state.index; "a view could not be brought forward: {error}");
            state.with(|syncer| syncer.view_failed(id, &error.for_clients()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::exposition::prometheus;

    #[test]
    fn a_gap_is_counted() {
        let (metrics, catalogue) = (Arc::new(Metrics::new(1)), Catalogue::default());
        let shown = || prometheus(std::slice::from_ref(&metrics), 0);
        let whole = Commits::default();
        fold(&whole, &catalogue, StateVersion(7), &metrics);
        assert!(shown().contains("\nkelvin_queue_overflows_total 0\n"));
        let gap = Commits { gap: true, ..Commits::default() };
        fold(&gap, &catalogue, StateVersion(7), &metrics);
        assert!(shown().contains("\nkelvin_queue_overflows_total 1\n"));
    }
}
