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

/// Attempts to begin at the core's own version.
const BEGINS: usize = 3;

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
    let Read { state, full, in_step } = match read {
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
    if core.with(|s| s.lane_done(request, state, full, in_step, clock)) == Some(true) {
        bring_forward(core, request.view, at).await;
    }
}

/// What a lane read.
struct Read {
    state: State,
    full: Full,
    /// The core was at the version of the lane's snapshot when the lane began.
    in_step: bool,
}

/// Reads the view on a snapshot of its own.
async fn read(core: &Rc<Core>, request: LaneRequest) -> Result<Option<Read>, ReadError> {
    let reader = take_reader(core)?;
    let (at, in_step) = begin(core, &reader).await?;
    let poke_id = format!("v{}.{}", request.incarnation, at.to_lexi());
    let collector = core.with(|syncer| {
        let view = syncer.shared.views.get(request.view).filter(|v| v.incarnation == request.incarnation)?;
        let (rows, state) = (syncer.shared.rows.clone(), view.state.clone());
        let plan = view.plan.clone();
        Some((plan.clone(), Collector::new(rows, view.layout.clone(), plan, state, Some(poke_id))))
    });
    let Some((plan, mut collector)) = collector.flatten() else {
        give_reader_back(core, reader)?;
        return Ok(None);
    };
    let mut pace = core.pace();
    let result = evaluate(&reader, &plan, &mut collector, &mut pace).await;
    pace.end();
    give_reader_back(core, reader)?;
    result?;
    let (state, full) = collector.finish(at);
    Ok(Some(Read { state, full: full.unwrap_or_else(|| empty(at)), in_step }))
}

/// Takes a snapshot, the core's own if that can be had: what a lane reads of a view that
/// lives is of use only if the view was at the lane's snapshot once.
async fn begin(core: &Core, reader: &Reader) -> Result<(StateVersion, bool), ReadError> {
    let _turn = core.turn.lock().await;
    let mut at = StateVersion::ZERO;
    // A commit may come between the two; hardly ever twice in a row.
    for _ in 0..BEGINS {
        advance(core).await?;
        at = reader.begin()?;
        if core.with(|s| s.shared.version) == Some(at) {
            return Ok((at, true));
        }
    }
    Ok((at, false))
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
