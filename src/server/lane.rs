//! Lanes: reading a whole view beside the live path (rule 10).
//!
//! A lane has a reader of its own, pinned to one snapshot, and works in slices, so live
//! latency never waits for it. When it is done its view is brought to the core's version
//! by the commits since then, and joins.

use std::rc::Rc;

use kelvin_io::executor::{now, spawn};

use super::batch::{advance, bring_forward};
use super::core::{Core, CorePace};
use crate::changes::version::StateVersion;
use crate::groups::syncer::{LaneRequest, Reading};
use crate::replica::reader::{ReadError, Reader};
use crate::views::collect::Collector;
use crate::views::full::{Finished, Full};
use crate::views::state::State;
use crate::zql::evaluate::{Pace, evaluate};

/// Lanes under way at a time on one core. A few, so that a large query does not keep small
/// ones waiting; not many, since each holds a snapshot and its result in memory.
pub const MAX_LANES: usize = 4;

/// Encoded bytes after which a lane offers them to the tab that waits. What is smaller is over
/// at once, and is better shared with whoever asks for the same within the next seconds.
const STREAM_FROM: usize = 1 << 20;

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
    let Read { reading, state, full } = match read {
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
            core = core.index, rows = state.len(), ms = took.as_millis() as u64;
            "Slow query materialization"
        );
    }
    let clock = core.clock();
    if core.with(|s| s.lane_done(&reading, state, full, clock)) == Some(true) {
        bring_forward(core, request.view, at).await;
    }
}

/// What a lane read.
struct Read {
    reading: Reading,
    state: State,
    full: Full,
}

/// Reads the view on a snapshot of its own.
async fn read(core: &Rc<Core>, request: LaneRequest) -> Result<Option<Read>, ReadError> {
    let reader = take_reader(core)?;
    let (at, in_step) = begin(core, &reader).await?;
    let reading = Reading::new(request, at, in_step);
    let collector = core.with(|syncer| {
        let view = syncer.shared.views.get(request.view).filter(|v| v.incarnation == request.incarnation)?;
        let (rows, plan) = (syncer.shared.rows.clone(), view.plan.clone());
        let poke_id = Some(reading.poke_id.clone());
        Some((plan.clone(), Collector::new(rows, view.layout.clone(), plan, &view.state, poke_id)))
    });
    let Some((plan, mut collector)) = collector.flatten() else {
        give_reader_back(core, reader)?;
        return Ok(None);
    };
    let outlet = Outlet { core, reading: &reading, finished: collector.finished(), keeps: None };
    let mut pace = StreamingPace { pace: core.pace(), outlet };
    let result = evaluate(&reader, &plan, &mut collector, &mut pace).await;
    pace.pace.end();
    give_reader_back(core, reader)?;
    result?;
    let (state, full) = collector.finish(at);
    Ok(Some(Read { reading, state, full: full.unwrap_or_else(|| empty(at)) }))
}

/// Hands on what a lane has encoded at the end of each of its slices.
struct StreamingPace<'c> {
    pace: CorePace,
    outlet: Outlet<'c>,
}

impl Pace for StreamingPace<'_> {
    fn due(&mut self) -> bool {
        self.pace.due()
    }

    async fn rest(&mut self) {
        self.outlet.offer();
        self.pace.rest().await;
    }
}

/// Where encoded parts go while the lane goes on.
struct Outlet<'c> {
    core: &'c Core,
    reading: &'c Reading,
    finished: Finished,
    /// Whether the lane keeps them; `None`: not decided yet.
    keeps: Option<bool>,
}

impl Outlet<'_> {
    fn offer(&mut self) {
        let size: usize = self.finished.borrow().iter().map(|part| part.frame.len()).sum();
        let due = match self.keeps {
            Some(keeps) => !keeps && size > 0,
            None => size >= STREAM_FROM,
        };
        if !due {
            return;
        }
        let mut parts = self.finished.take();
        let taken = self.core.with(|s| s.stream(self.reading, &mut parts)).unwrap_or(false);
        self.keeps = Some(!taken);
        self.finished.replace(parts);
    }
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
    Full { at, poke_id: String::new(), parts: Vec::new(), size: 0, partial: false }
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
