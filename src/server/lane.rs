//! Lanes: reading a whole view beside the live path (rule 10).
//!
//! A lane has a reader of its own, pinned to one snapshot, and works in slices, so live
//! latency never waits for it. When it is done its view is brought to the core's version
//! by the commits since then, and joins.

use std::rc::Rc;

use kelvin_io::executor::{now, spawn};

use super::batch::{advance, bring_forward};
use super::core::Core;
use crate::changes::version::StateVersion;
use crate::groups::syncer::LaneRequest;
use crate::replica::reader::{ReadError, Reader};
use crate::views::collect::Collector;
use crate::views::full::Full;
use crate::views::view::State;
use crate::zql::evaluate::{Pace, evaluate};

/// Lanes under way at a time on one core. A few, so that a large query does not keep small
/// ones waiting; not many, since each holds a snapshot and its result in memory.
pub const MAX_LANES: usize = 4;

/// Starts as many of the waiting lanes as may run. A short one may be over at once.
pub async fn start_waiting(core: &Rc<Core>) {
    let mut pace = core.pace();
    while core.lanes_running.get() < MAX_LANES {
        let Some(request) = core.lanes.borrow_mut().pop_front() else { break };
        core.lanes_running.set(core.lanes_running.get() + 1);
        let lane = Running(core.clone());
        spawn(async move {
            run(&lane.0, request).await;
            drop(lane);
        })
        .detach();
        if pace.is_over() {
            pace.rest().await;
        }
    }
    pace.end();
}

/// Counts the lane as over however it ends, and has the next one started; not from here,
/// or each short lane would start the next one on top of its own stack.
struct Running(Rc<Core>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.lanes_running.set(self.0.lanes_running.get() - 1);
        self.0.wake();
    }
}

async fn run(core: &Rc<Core>, request: LaneRequest) {
    let began = now();
    let read = read(core, request).await;
    let _turn = core.turn.lock().await;
    let (state, full) = match read {
        Ok(Some(found)) => found,
        // Nobody wants the view any more.
        Ok(None) => return,
        Err(error) => {
            crate::warn!(core = core.index; "a query could not be hydrated: {error}");
            core.with(|s| s.lane_failed(request, &error.to_string()));
            return;
        }
    };
    // The lane may have seen a newer snapshot than the core has taken.
    let at = full.at;
    while core.with(|s| s.shared.version).is_some_and(|version| version < at) {
        if let Err(error) = advance(core).await {
            core.with(|s| s.lane_failed(request, &error.to_string()));
            return;
        }
    }
    let took = now().saturating_duration_since(began);
    core.metrics.hydration_done(took.as_nanos() as u64);
    if took > core.config.log.slow_hydrate {
        crate::info!(
            core = core.index, rows = state.members.len(), ms = took.as_millis() as u64;
            "Slow query materialization"
        );
    }
    let clock = core.clock();
    if core.with(|s| s.lane_done(request, state, full, clock)) == Some(true) {
        bring_forward(core, request.view, at).await;
    }
}

/// Reads the view on a snapshot of its own.
async fn read(core: &Rc<Core>, request: LaneRequest) -> Result<Option<(State, Full)>, ReadError> {
    let view = core.with(|syncer| {
        let view = syncer.shared.views.get(request.view).filter(|v| v.incarnation == request.incarnation)?;
        Some((view.plan.clone(), view.layout.clone(), view.state.clone(), syncer.shared.rows.clone()))
    });
    let Some((plan, layout, state, rows)) = view.flatten() else { return Ok(None) };
    let reader = take_reader(core)?;
    let at = reader.begin()?;
    let poke_id = format!("v{}.{}", request.incarnation, at.to_lexi());
    let mut collector = Collector::new(rows, layout, plan.clone(), state, Some(poke_id));
    let mut pace = core.pace();
    let result = evaluate(&reader, &plan, &mut collector, &mut pace).await;
    pace.end();
    give_reader_back(core, reader)?;
    result?;
    let (state, full) = collector.finish(at);
    Ok(Some((state, full.unwrap_or_else(|| empty(at)))))
}

fn empty(at: StateVersion) -> Full {
    Full { at, poke_id: String::new(), parts: Vec::new(), size: 0 }
}

fn take_reader(core: &Core) -> Result<Reader, ReadError> {
    match core.lane_readers.borrow_mut().pop() {
        Some(reader) => Ok(reader),
        None => Reader::open(&core.replica_path()),
    }
}

/// An idle reader holds no snapshot, so it is never in the way of the log's restart.
fn give_reader_back(core: &Core, reader: Reader) -> Result<(), ReadError> {
    reader.end()?;
    core.lane_readers.borrow_mut().push(reader);
    Ok(())
}
