//! Lanes: reading a whole view beside the live path (rules 10, 16, decision 005).
//!
//! A thread reads on a snapshot of its own (`lane_threads.rs`); the core takes what it finds in
//! slices, so live latency never waits for it. When it is done its view is brought to the
//! core's version by the commits since then, and joins.

use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;

use futures_lite::FutureExt;
use kelvin_io::executor::{now, spawn};

use super::batch::{advance, bring_forward};
use super::budget::Pressure;
use super::core::Core;
use super::lane_threads::Message;
use super::overload::{self, TIGHT_LANES};
use super::warnings::Warning;
use crate::groups::reading::{Begun, Found, LaneRequest, Reading};
use crate::model::version::StateVersion;
use crate::observe::log::{self, Level};
use crate::replica::reader::{ReadError, Reader};
use crate::testing::panics;
use crate::views::difference::difference;
use crate::views::full::Part;
use crate::views::pace::Pace;
use crate::views::scan::Witnesses;
use crate::views::state::State;
use crate::views::witnesses::witnesses;
use crate::zql::explain::explain;
use crate::zql::plan::Plan;

/// Encoded bytes after which a lane offers them to the tab that waits. What is smaller is over
/// at once, and is better shared with whoever asks for the same within the next seconds.
const STREAM_FROM: usize = 1 << 20;

/// Attempts to begin at the core's own version.
const BEGINS: usize = 3;

/// Slots of a new state that are put in place between looks at the clock.
const SETTLE: usize = 64;

/// Starts as many of the waiting lanes as may run. A short one may be over at once.
pub async fn start_waiting(core: &Rc<Core>) {
    let mut pace = core.pace("starting lanes");
    loop {
        let is_tight = core.budget.pressure() >= Pressure::Tight;
        if core.records.is_overfull() || (is_tight && core.lanes.running() >= TIGHT_LANES) {
            break;
        }
        let wanted = |view| core.subscribers(view);
        let Some(request) = core.lanes.start_next(wanted) else { break };
        let lane = Running(core.clone(), request);
        spawn(async move {
            let ran = AssertUnwindSafe(run(&lane.0, request)).catch_unwind().await;
            if ran.is_err() {
                let clock = lane.0.clock();
                lane.0.with(|s| s.reading_lost(request, clock));
            }
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
struct Running(Rc<Core>, LaneRequest);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.lanes.ended(self.1);
        self.0.wake();
    }
}

async fn run(core: &Rc<Core>, request: LaneRequest) {
    let began = now();
    if overload::refuse_lane(core, request) {
        return;
    }
    panics::here("a lane");
    let (mut begun, reader, turn) = match begin(core, request).await {
        Ok(Some(begun)) => begun,
        Ok(None) => return,
        Err(error) => return fail(core, request, None, None, &error),
    };
    if let Err(error) = overload::check_groups(core, request) {
        let ended = give_reader_back(core, reader);
        return give_up(core, begun, &ended.err().unwrap_or(error));
    }
    let (reader, result) = read(core, &mut begun, reader).await;
    let is_slow = || now().saturating_duration_since(began) > core.config.log.slow_hydrate;
    // While the reader is there.
    let steps = reader.as_ref().filter(|_| is_slow()).map(|reader| steps(reader, &begun.plan, begun.driver));
    let ended = reader.map_or(Ok(()), |reader| give_reader_back(core, reader));
    if let Err(error) = result.and(ended) {
        return give_up(core, begun, &error);
    }
    panics::here("what a lane has read");
    let rows = begun.assembly.len();
    match begun.reading.frames_only {
        true => {
            drop(turn);
            give_frames(core, begun).await;
        }
        false => join(core, begun, turn).await,
    }
    let took = now().saturating_duration_since(began);
    core.metrics.hydration_done(took.as_nanos() as u64);
    core.with(|s| s.lane_took(request, took.as_nanos() as u64));
    if is_slow() {
        let level = if core.warnings.is_due(Warning::Slow) { Level::Warn } else { Level::Info };
        let plan = steps.unwrap_or_default();
        let fields = [
            ("core", core.index.into()),
            ("rows", rows.into()),
            ("ms", (took.as_millis() as u64).into()),
            ("view", request.incarnation.into()),
            ("plan", plan.as_str().into()),
        ];
        log::write(level, format_args!("Slow query materialization"), &fields);
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

/// Ends a lane that could not read its view. What the view held before goes back to it.
fn fail(
    core: &Core,
    request: LaneRequest,
    plan: Option<&Arc<Plan>>,
    prior: Option<State>,
    error: &ReadError,
) {
    core.with(|s| {
        if s.is_read(request) {
            core.warnings.warn(Warning::Hydration, format_args!("a query could not be hydrated: {error}"));
        }
        s.lane_failed(request, plan.zip(prior), &error.for_clients());
    });
}

/// Ends a reading that cannot go on, or that nobody wants any more.
pub fn give_up(core: &Core, begun: Begun, error: &ReadError) {
    let request = begun.reading.request;
    core.with(|s| s.shared.views.discard_assembly(request.view, begun.assembly));
    fail(core, request, Some(&begun.plan), begun.prior, error);
}

/// The turn of a core, held.
type Turn<'c> = async_lock::MutexGuard<'c, ()>;

/// Takes a snapshot, the core's own if that can be had: what a lane reads of a view that
/// lives is of use only if the view was at the lane's snapshot once. A view that would be
/// overtaken for ever keeps the turn until it has joined.
async fn begin<'c>(
    core: &'c Core,
    request: LaneRequest,
) -> Result<Option<(Begun, Reader, Option<Turn<'c>>)>, ReadError> {
    let mut reader = take_reader(core)?;
    reader.stop_when(core.lanes.stop_flag(request.incarnation))?;
    let turn = core.turn.lock().await;
    let (mut at, mut in_step) = (StateVersion::ZERO, false);
    // A commit may come between the two; hardly ever twice in a row.
    for _ in 0..BEGINS {
        advance(core).await?;
        at = reader.begin()?;
        in_step = core.with(|s| s.shared.version) == Some(at);
        if in_step {
            break;
        }
    }
    let Some(begun) = core.with(|s| s.begin_reading(request, at, in_step)).flatten() else {
        core.with(|s| s.lane_given_up(request));
        give_reader_back(core, reader)?;
        return Ok(None);
    };
    let inline = core.with(|s| s.shared.views.is_inline(request.view)) == Some(true);
    Ok(Some((begun, reader, inline.then_some(turn))))
}

/// Has the view read, and takes what is found. The reader comes back if it can be used again.
pub async fn read(core: &Core, begun: &mut Begun, reader: Reader) -> (Option<Reader>, Result<(), ReadError>) {
    let mut pace = core.pace("taking what a lane reads");
    let known = match (&begun.prior, core.with(|s| s.shared.rows.clone())) {
        (Some(prior), Some(rows)) => witnesses(prior, &begun.plan, &rows, &mut pace).await,
        _ => Witnesses::new(),
    };
    let messages = match core.lanes.threads.read(reader, begun.job(known)) {
        Ok(messages) => messages,
        Err(error) => return (None, Err(error)),
    };
    let mut outlet = Outlet { core, reading: &begun.reading, keeps: None };
    let mut stopped = Ok(());
    loop {
        pace.end();
        // The thread is gone, and the reader with it.
        let Ok(message) = messages.recv().await else { return (None, Err(ReadError::Interrupted)) };
        pace.begin();
        match message {
            Message::Chunk(_) if stopped.is_err() => {}
            Message::Chunk(chunk) => begun.assembly.take(chunk),
            Message::End(reader, result) => {
                let result = stopped.and(result).map(|driver| begun.driver = driver);
                return (Some(reader), result);
            }
        }
        outlet.offer(&mut begun.assembly.parts);
        let request = begun.reading.request;
        stopped = stopped.and_then(|()| overload::check_lane(core, request, &begun.assembly));
        if stopped.is_err() {
            core.lanes.cancel(request.incarnation);
        }
        if pace.is_over() {
            pace.rest().await;
        }
    }
}

/// Where encoded parts go while the lane goes on.
struct Outlet<'c> {
    core: &'c Core,
    reading: &'c Reading,
    /// Whether the lane keeps them; `None`: not decided yet.
    keeps: Option<bool>,
}

impl Outlet<'_> {
    fn offer(&mut self, parts: &mut Vec<Part>) {
        let due = match self.keeps {
            Some(keeps) => !keeps && !parts.is_empty(),
            None => parts.iter().map(|part| part.frame.len()).sum::<usize>() >= STREAM_FROM,
        };
        if due {
            let taken = self.core.with(|s| s.stream(self.reading, parts)).unwrap_or(false);
            self.keeps = Some(!taken);
        }
    }
}

/// Gives the rows of a view that lives to those who wait for them.
async fn give_frames(core: &Core, begun: Begun) {
    let _turn = core.turn.lock().await;
    if let Err(error) = reach(core, begun.reading.at).await {
        return give_up(core, begun, &error);
    }
    if core.with(|s| s.is_read(begun.reading.request)) != Some(true) {
        return give_up(core, begun, &ReadError::Interrupted);
    }
    let now = core.clock();
    core.with(|s| s.frames_done(&begun.reading, begun.assembly, now));
}

/// Makes a state out of what was read, and finds how it differs from the one before. `None`:
/// nobody wants it any more.
pub async fn prepare(core: &Core, mut begun: Begun) -> Option<(Reading, Found)> {
    let request = begun.reading.request;
    let mut pace = core.pace("putting a state in place");
    let settle = |begun: &mut Begun| {
        let assembly = &mut begun.assembly;
        core.with(|s| s.is_read(request) && s.shared.views.settle(request.view, assembly, SETTLE))
    };
    while settle(&mut begun) == Some(true) {
        if pace.is_over() {
            pace.rest().await;
        }
    }
    if core.with(|s| s.is_read(request)) != Some(true) {
        give_up(core, begun, &ReadError::Interrupted);
        return None;
    }
    let Begun { reading, assembly, prior, plan, .. } = begun;
    let (state, full, edited) = assembly.finish(reading.at, &reading.poke_id);
    let prior = match prior {
        None => None,
        Some(prior) => {
            let delta = difference(&prior, &state, &edited, reading.at, &mut pace).await;
            Some((prior, delta))
        }
    };
    pace.end();
    Some((reading, Found { state, full, prior, plan }))
}

/// Gives up what was found: it is not wanted any more, or cannot be used.
pub fn discard(core: &Core, request: LaneRequest, found: Found, error: &ReadError) {
    core.with(|s| s.shared.views.discard(request.view, &found.plan, found.state));
    fail(core, request, Some(&found.plan), found.prior.map(|(prior, _)| prior), error);
}

/// Brings the view to the core's version and lets it join.
async fn join(core: &Core, begun: Begun, turn: Option<Turn<'_>>) {
    let Some((reading, found)) = prepare(core, begun).await else { return };
    let (request, at) = (reading.request, reading.at);
    let _turn = match turn {
        Some(turn) => turn,
        None => core.turn.lock().await,
    };
    if let Err(error) = reach(core, at).await {
        return discard(core, request, found, &error);
    }
    if core.with(|s| s.is_read(request)) != Some(true) {
        return discard(core, request, found, &ReadError::Interrupted);
    }
    let clock = core.clock();
    if core.with(|s| s.lane_done(&reading, found, clock)) == Some(true) {
        bring_forward(core, request.view, at).await;
    }
    core.with(|s| s.lane_joined(request.view));
}

/// Brings the core to a lane's version: it may have seen a newer snapshot.
async fn reach(core: &Core, at: StateVersion) -> Result<(), ReadError> {
    while core.with(|s| s.shared.version).is_some_and(|version| version < at) {
        advance(core).await?;
    }
    Ok(())
}

/// A reader that is not in use.
pub fn take_reader(core: &Core) -> Result<Reader, ReadError> {
    let Some(mut reader) = core.lanes.readers.borrow_mut().pop() else {
        let mut reader = Reader::open(&core.replica_path())?;
        reader.let_try(core.config.query_planner);
        return Ok(reader);
    };
    // The flag of its last lane may be up.
    reader.stop_when(Arc::default())?;
    Ok(reader)
}

/// An idle reader holds no snapshot, so it is never in the way of the log's restart.
pub fn give_reader_back(core: &Core, reader: Reader) -> Result<(), ReadError> {
    reader.end()?;
    core.lanes.readers.borrow_mut().push(reader);
    Ok(())
}
