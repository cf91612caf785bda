//! Batches: bringing every view of a core to the newest snapshot (rules 2, 4, 9, 13).
//!
//! What a batch finds is held back until all of it is known, and then takes effect at once:
//! nobody sees some views at the new version and others at the old one.

use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;

use futures_lite::FutureExt;
use kelvin_io::executor::{now, sleep};

use super::core::{Core, Recent};
use super::lane::{give_reader_back, give_up, prepare, read, take_reader};
use crate::groups::reading::{Found, Reading};
use crate::groups::syncer::Syncer;
use crate::model::batch::Batch;
use crate::model::catalogue::Catalogue;
use crate::model::commit::Commit;
use crate::model::reason::Reason;
use crate::model::version::StateVersion;
use crate::observe::metrics::Metrics;
use crate::replica::reader::{ReadError, Reader};
use crate::server::commit_queue::Taken;
use crate::views::changed::Changed;
use crate::views::pace::Pace;
use crate::views::routing::Routing;
use crate::views::task::{self, Done, Outcome};
use crate::views::view::ViewId;

/// Most bytes of commits kept for lanes. A lane that misses some looks at its view again.
const MAX_RECENT: usize = 64 << 20;

/// Wait between attempts when the replica cannot be read: the disk is full or gone.
const RETRY: std::time::Duration = std::time::Duration::from_secs(1);

/// Runs batches for as long as commits come.
pub async fn run(core: Rc<Core>) {
    while core.commits.wait().await {
        let turn = core.turn.lock().await;
        if let Err(error) = advance(&core).await {
            crate::error!(core = core.index; "a batch failed and is tried again: {error}");
            sleep(RETRY).await;
        }
        drop(turn);
        core.with(|_| ());
    }
}

/// Brings all views to the newest snapshot. The caller holds the turn.
pub async fn advance(core: &Core) -> Result<(), ReadError> {
    let began = now();
    let Some((reader, from)) = core.with(|s| (s.shared.reader.clone(), s.shared.version)) else {
        return Ok(());
    };
    let spare = begin(core, &reader)?;
    let to = reader.version();
    if to == from {
        return spare.map_or(Ok(()), |spare| give_reader_back(core, spare));
    }
    let taken = take(core, from, to).await;
    remember(&mut core.recent.borrow_mut(), &taken, core.lanes.running() > 0);
    let count = taken.commits.len();
    let Some(catalogue) = core.with(|s| s.shared.catalogue.clone()) else { return Ok(()) };
    let batch = fold(&taken, &catalogue, to, &core.metrics);
    let mut brought = bring(core, &reader, &batch, None).await?;
    if let Some(spare) = spare {
        read_inline(core, spare, &mut brought, (from, to)).await?;
    }
    let clock = core.clock();
    core.with(|syncer| {
        syncer.shared.moved(to);
        brought.settle(syncer, from, clock);
        syncer.route_mutations(&batch);
    });
    core.metrics.batch_done(count, now().saturating_duration_since(began).as_nanos() as u64);
    Ok(())
}

/// Begins the live snapshot anew, and one for views that are read within the batch if there are
/// any: both at one version.
fn begin(core: &Core, live: &Reader) -> Result<Option<Reader>, ReadError> {
    let mut version = live.begin()?;
    if core.with(|s| s.shared.views.has_inline()) != Some(true) {
        return Ok(None);
    }
    let spare = take_reader(core)?;
    // A commit may come between the two; not again and again, since this is faster.
    while spare.begin()? != version {
        version = live.begin()?;
        if spare.version() == version {
            break;
        }
    }
    Ok(Some(spare))
}

/// Reads the views anew that cannot wait for a lane, since they would be overtaken there.
async fn read_inline(
    core: &Core,
    spare: Reader,
    brought: &mut Brought,
    (from, to): (StateVersion, StateVersion),
) -> Result<(), ReadError> {
    let mut reader = Some(spare);
    settle_interrupted(core, brought, from);
    for (view, reason) in std::mem::take(&mut brought.stale) {
        let inline = core.with(|s| s.shared.views.is_inline(view)) == Some(true);
        let Some(spare) = reader.take_if(|_| inline) else {
            brought.stale.push((view, reason));
            continue;
        };
        let Some(mut begun) = core.with(|s| s.begin_inline(view, from, reason, to)).flatten() else {
            reader = Some(spare);
            continue;
        };
        core.metrics.view_fell_back(reason);
        let (back, result) = Box::pin(read(core, &mut begun, spare)).await;
        reader = back;
        match result {
            Ok(()) => brought.read.extend(prepare(core, begun).await),
            Err(error) => give_up(core, begun, &error),
        }
    }
    reader.map_or(Ok(()), |reader| give_reader_back(core, reader))
}

/// Lets what took too long to look at take effect, so that it can be read instead.
fn settle_interrupted(core: &Core, brought: &mut Brought, from: StateVersion) {
    let is_inline = |done: &mut Done| {
        done.is_interrupted() && core.with(|s| s.shared.views.is_inline(done.view)) == Some(true)
    };
    for done in brought.done.extract_if(.., is_inline) {
        let view = done.view;
        if let Some(Outcome::Stale(reason)) = core.with(|s| done.settle(&mut s.shared.views, from)) {
            brought.stale.push((view, reason));
        }
    }
}

/// Takes the commits up to the snapshot; those that are still on their way are awaited. The
/// caller holds the turn, so nobody else waits for a commit.
async fn take(core: &Core, from: StateVersion, to: StateVersion) -> Taken {
    // The commit is sent right after its COMMIT returned, so this is a matter of microseconds.
    core.commits.until_reached(to).await;
    core.commits.take(from, to)
}

/// What was taken as one batch. With a gap it is everything that there is.
fn fold<'c>(taken: &'c Taken, catalogue: &Catalogue, to: StateVersion, metrics: &Metrics) -> Batch<'c> {
    if taken.gap {
        metrics.queue_overflowed();
        return Batch::everything(catalogue, to);
    }
    Batch::fold(&taken.commits, to)
}

/// Keeps commits for lanes that are under way.
fn remember(recent: &mut Recent, taken: &Taken, wanted: bool) {
    if !wanted {
        *recent = Recent::default();
        return;
    }
    recent.gap |= taken.gap;
    for commit in &taken.commits {
        recent.bytes += commit.size;
        recent.commits.push_back(commit.clone());
    }
    if recent.bytes > MAX_RECENT {
        *recent = Recent { gap: true, ..Recent::default() };
    }
}

/// Brings the views that a batch touches to its end, or `only` one. Nothing takes effect yet.
async fn bring(
    core: &Core,
    reader: &Reader,
    batch: &Batch<'_>,
    only: Option<ViewId>,
) -> Result<Brought, ReadError> {
    let mut brought = Brought::default();
    let begin = |s: &mut Syncer| {
        s.shared.contents.give_up_coming();
        Changed::new(batch, &s.shared.rows.borrow())
    };
    let Some(changed) = core.with(begin) else { return Ok(brought) };
    let Some(mut routing) = core.with(|s| Routing::new(batch, &changed, &s.shared.views, only)) else {
        return Ok(brought);
    };
    let mut pace = core.pace("a batch");
    while core.with(|s| routing.step(&s.shared.views, reader)).unwrap_or(Ok(false))? {
        if pace.is_over() {
            pace.rest().await;
        }
    }
    let found = routing.finish();
    let tasks = core.with(|s| task::take(&mut s.shared.views, found)).unwrap_or_default();
    brought.stale = tasks.stale;
    for task in tasks.advance {
        core.metrics.view_advanced();
        let (began, view) = (now(), task.view);
        let performed = AssertUnwindSafe(task.perform(&changed, reader, &mut pace)).catch_unwind().await;
        let Ok(mut done) = performed else {
            brought.lost.push(view);
            continue;
        };
        // Others may have run meanwhile; most views take no more than one slice.
        done.nanoseconds = now().saturating_duration_since(began).as_nanos() as u64;
        core.with(|s| s.shared.contents.expect(done.delta(), &changed, &mut s.shared.views));
        brought.done.push(done);
        if pace.is_over() {
            pace.rest().await;
        }
    }
    pace.end();
    brought.metrics = Some(core.metrics.clone());
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
    fn settle(self, syncer: &mut Syncer, from: StateVersion, clock: f64) {
        syncer.shared.contents.arrived();
        let metrics = self.metrics;
        for done in self.done {
            let view = done.view;
            let outcome = done.settle(&mut syncer.shared.views, from);
            match &outcome {
                Outcome::Stale(reason) => {
                    metrics.iter().for_each(|metrics| metrics.view_fell_back(*reason));
                }
                Outcome::Failed(why) => {
                    crate::warn!("the queries of a view are refused until it can be kept again: {why}");
                }
                Outcome::Same | Outcome::Touched => {}
            }
            syncer.brought_forward(view, outcome);
        }
        for (view, reason) in self.stale {
            syncer.shared.views.make_stale(view, from, reason);
            metrics.iter().for_each(|metrics| metrics.view_fell_back(reason));
            syncer.brought_forward(view, Outcome::Stale(reason));
        }
        self.lost.into_iter().for_each(|view| syncer.lose_view(view, clock));
        let read: Vec<ViewId> = self.read.iter().map(|(reading, _)| reading.request.view).collect();
        for (reading, found) in self.read {
            // A view that went meanwhile has no groups that could wait for it.
            syncer.inline_done(&reading, found, clock);
        }
        if syncer.shared.views.has_inline() {
            syncer.shared.views.inline_done(&read);
        }
    }
}

/// Brings one view, read in a lane at `at`, to the core's version. The caller holds the turn.
pub async fn bring_forward(core: &Core, id: ViewId, at: StateVersion) {
    let commits: Vec<Arc<Commit>> = {
        let recent = core.recent.borrow();
        recent.commits.iter().filter(|c| c.version > at).cloned().collect()
    };
    let gap = core.recent.borrow().gap;
    let Some((reader, catalogue, end)) =
        core.with(|s| (s.shared.reader.clone(), s.shared.catalogue.clone(), s.shared.version))
    else {
        return;
    };
    let batch = if gap { Batch::everything(&catalogue, end) } else { Batch::fold(&commits, end) };
    match bring(core, &reader, &batch, Some(id)).await {
        Ok(done) => {
            let clock = core.clock();
            core.with(|syncer| done.settle(syncer, at, clock));
        }
        Err(error) => {
            crate::warn!(core = core.index; "a view could not be brought forward: {error}");
            core.with(|syncer| syncer.view_failed(id, &error.for_clients()));
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
        let whole = Taken::default();
        fold(&whole, &catalogue, StateVersion(7), &metrics);
        assert!(shown().contains("\nkelvin_queue_overflows_total 0\n"));
        let gap = Taken { gap: true, ..Taken::default() };
        fold(&gap, &catalogue, StateVersion(7), &metrics);
        assert!(shown().contains("\nkelvin_queue_overflows_total 1\n"));
    }
}
