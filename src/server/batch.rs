//! Batches: bringing every view of a core to the newest snapshot (rules 2, 4, 9, 13).
//!
//! What a batch finds is held back until all of it is known, and then takes effect at once:
//! nobody sees some views at the new version and others at the old one.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use kelvin_io::executor::{now, sleep};

use super::core::{Core, Recent};
use crate::changes::batch::Batch;
use crate::changes::commit::Commit;
use crate::changes::queue::Taken;
use crate::changes::version::StateVersion;
use crate::replica::reader::{ReadError, Reader};
use crate::views::collect::Collector;
use crate::views::rows::{RowId, Rows};
use crate::views::view::{Effect, State, View, ViewId};
use crate::zql::evaluate::evaluate;
use crate::zql::plan::Plan;

/// Most bytes of commits kept for lanes. A lane that misses some looks at its view again.
const MAX_RECENT: usize = 64 << 20;

/// Wait between attempts when the replica cannot be read: the disk is full or gone.
const RETRY: std::time::Duration = std::time::Duration::from_secs(1);

/// A view that has to be evaluated again. Until that is done the collector keeps what it
/// needs of the view, which may go meanwhile.
struct Touched {
    view: ViewId,
    incarnation: u64,
    plan: Rc<Plan>,
    collector: Collector,
    edited: Vec<RowId>,
}

impl Touched {
    fn new(id: ViewId, view: &View, rows: &Rc<RefCell<Rows>>, edited: Vec<RowId>) -> Touched {
        let plan = view.plan.clone();
        let collector =
            Collector::new(rows.clone(), view.layout.clone(), plan.clone(), view.state.clone(), None);
        Touched { view: id, incarnation: view.incarnation, plan, collector, edited }
    }
}

/// The same with what was found.
struct Evaluated {
    view: ViewId,
    incarnation: u64,
    edited: Vec<RowId>,
    found: Result<State, ReadError>,
}

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
    let to = reader.begin()?;
    if to == from {
        return Ok(());
    }
    let taken = take(core, from, to).await;
    remember(&mut core.recent.borrow_mut(), &taken, core.lanes_running.get() > 0);
    let count = taken.commits.len();
    let Some(catalogue) = core.with(|s| s.shared.catalogue.clone()) else { return Ok(()) };
    let batch = if taken.gap {
        core.metrics.queue_overflowed();
        Batch::everything(&catalogue, to)
    } else {
        Batch::fold(&taken.commits, to)
    };
    let (contents, touched) = core.with(|s| classify(s, &batch)).unwrap_or_default();
    let mut evaluated = Vec::with_capacity(touched.len());
    for touched in touched {
        evaluated.push(evaluate_again(core, &reader, touched).await);
    }
    core.with(|s| apply(s, &batch, contents, evaluated));
    core.metrics.batch_done(count, now().saturating_duration_since(began).as_nanos() as u64);
    Ok(())
}

/// Takes the commits up to the snapshot; those that are still on their way are awaited. The
/// caller holds the turn, so nobody else waits for a commit.
async fn take(core: &Core, from: StateVersion, to: StateVersion) -> Taken {
    // The commit is sent right after its COMMIT returned, so this is a matter of microseconds.
    core.commits.until_reached(to).await;
    core.commits.take(from, to)
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

type Contents = Vec<(ViewId, u64, Vec<RowId>)>;

fn classify(syncer: &mut crate::groups::syncer::Syncer, batch: &Batch) -> (Contents, Vec<Touched>) {
    let shared = &syncer.shared;
    let mut contents = Vec::new();
    let mut touched = Vec::new();
    for id in shared.views.reading(batch.tables.keys()) {
        let Some(view) = shared.views.get(id).filter(|v| v.live) else { continue };
        let effect = view.effect(batch, &shared.rows.borrow());
        match effect {
            Effect::None => {}
            Effect::Contents(edited) => contents.push((id, view.incarnation, edited)),
            Effect::Evaluate(edited) => touched.push(Touched::new(id, view, &shared.rows, edited)),
        }
    }
    (contents, touched)
}

async fn evaluate_again(core: &Core, reader: &Reader, touched: Touched) -> Evaluated {
    let Touched { view, incarnation, plan, mut collector, edited } = touched;
    let mut pace = core.pace();
    let result = evaluate(reader, &plan, &mut collector, &mut pace).await;
    pace.end();
    let found = result.map(|()| collector.finish(reader.version()).0);
    Evaluated { view, incarnation, edited, found }
}

/// Makes everything that a batch found take effect.
fn apply(
    syncer: &mut crate::groups::syncer::Syncer,
    batch: &Batch,
    contents: Contents,
    evaluated: Vec<Evaluated>,
) {
    syncer.shared.moved(batch.end);
    for (id, incarnation, edited) in contents {
        let rows = syncer.shared.rows.clone();
        if let Some(view) = syncer.shared.views.get_mut(id).filter(|v| v.incarnation == incarnation) {
            view.edit(edited, batch.end, &mut rows.borrow_mut());
            syncer.touched(id);
        }
    }
    for evaluated in evaluated {
        replace(syncer, evaluated, batch.end);
    }
    syncer.route_mutations(batch);
}

fn replace(syncer: &mut crate::groups::syncer::Syncer, evaluated: Evaluated, end: StateVersion) {
    let Evaluated { view: id, incarnation, edited, found } = evaluated;
    let rows = syncer.shared.rows.clone();
    let view = syncer.shared.views.get_mut(id).filter(|v| v.incarnation == incarnation);
    match (view, found) {
        (None, Ok(state)) => rows.borrow_mut().release_all(&state.members),
        (None, Err(_)) => {}
        (Some(view), Ok(state)) => {
            if view.replace(state, &edited, end, &mut rows.borrow_mut()) {
                syncer.touched(id);
            }
        }
        (Some(_), Err(error)) => syncer.view_failed(id, &error.to_string()),
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
    let touched = core.with(|syncer| {
        let rows = syncer.shared.rows.clone();
        let view = syncer.shared.views.get_mut(id)?;
        let effect = view.effect(&batch, &rows.borrow());
        match effect {
            Effect::None => None,
            Effect::Contents(edited) => {
                view.edit(edited, end, &mut rows.borrow_mut());
                None
            }
            Effect::Evaluate(edited) => Some(Touched::new(id, view, &rows, edited)),
        }
    });
    if let Some(touched) = touched.flatten() {
        let evaluated = evaluate_again(core, &reader, touched).await;
        core.with(|syncer| replace(syncer, evaluated, end));
    }
}
