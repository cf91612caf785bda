//! Lanes: reading a whole view beside the live path (rules 10, 16, decision 005).
//!
//! A thread reads on a snapshot of its own (`lane_threads.rs`); the core takes what it finds in
//! slices, so live latency never waits for it. When it is done its view is brought to the
//! core's version by the commits since then, and joins.

use std::rc::Rc;
use std::sync::Arc;

use kelvin_io::executor::{now, spawn};

use super::batch::{advance, bring_forward};
use super::core::Core;
use super::lane_threads::Message;
use crate::changes::version::StateVersion;
use crate::groups::reading::{Begun, Found, LaneRequest, Reading};
use crate::replica::reader::{ReadError, Reader};
use crate::views::assemble::Assembly;
use crate::views::difference::difference;
use crate::views::full::Part;
use crate::views::pace::Pace;
use crate::views::scan::Witnesses;
use crate::views::state::State;
use crate::views::witnesses::witnesses;
use crate::zql::plan::Plan;

/// Lanes under way at a time on one core. Each holds a snapshot, and its result in memory.
pub const MAX_LANES: usize = 8;

/// Of these, lanes whose query may have any number of rows: the others are kept for queries
/// that are known to be small, which a large one must not keep waiting.
pub const MAX_LARGE: usize = 4;

/// Encoded bytes after which a lane offers them to the tab that waits. What is smaller is over
/// at once, and is better shared with whoever asks for the same within the next seconds.
const STREAM_FROM: usize = 1 << 20;

/// Attempts to begin at the core's own version.
const BEGINS: usize = 3;

/// Slots of a new state that are put in place between looks at the clock.
const SETTLE: usize = 64;

/// Starts as many of the waiting lanes as may run. A short one may be over at once.
pub async fn start_waiting(core: &Rc<Core>) {
    let mut pace = core.pace();
    while let Some(request) = core.lanes.start_next() {
        let lane = Running(core.clone(), request);
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
struct Running(Rc<Core>, LaneRequest);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.lanes.ended(self.1);
        self.0.wake();
    }
}

async fn run(core: &Rc<Core>, request: LaneRequest) {
    let began = now();
    let (mut begun, reader, turn) = match begin(core, request).await {
        Ok(Some(begun)) => begun,
        Ok(None) => return,
        Err(error) => return fail(core, request, None, None, &error),
    };
    let prior = begun.prior.take();
    let mut rest = Some(begun);
    let result = read(core, &mut rest, prior.as_ref(), reader).await;
    let Some(begun) = rest else { return };
    if let Err(error) = result {
        let plan = begun.plan.clone();
        core.with(|s| s.shared.views.discard_assembly(request.view, begun.assembly));
        return fail(core, request, Some(&plan), prior, &error);
    }
    let lane = Lane { core, request, reading: begun.reading, plan: begun.plan };
    let rows = begun.assembly.len();
    match lane.reading.frames_only {
        true => lane.give_frames(begun.assembly).await,
        false => lane.join(begun.assembly, prior, turn.is_some()).await,
    }
    drop(turn);
    let took = now().saturating_duration_since(began);
    core.metrics.hydration_done(took.as_nanos() as u64);
    if took > core.config.log.slow_hydrate {
        crate::info!(
            core = core.index, rows = rows, ms = took.as_millis() as u64;
            "Slow query materialization"
        );
    }
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
            crate::warn!(core = core.index; "a query could not be hydrated: {error}");
        }
        s.lane_failed(request, plan.zip(prior), &error.to_string());
    });
}

/// What begins a lane: the reading, its reader on the snapshot, and the turn if the lane has to
/// keep it.
type Beginning<'c> = (Begun, Reader, Option<async_lock::MutexGuard<'c, ()>>);

/// Takes a snapshot, the core's own if that can be had: what a lane reads of a view that
/// lives is of use only if the view was at the lane's snapshot once.
async fn begin(core: &Core, request: LaneRequest) -> Result<Option<Beginning<'_>>, ReadError> {
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
    let turn = begun.exclusive.then_some(turn);
    Ok(Some((begun, reader, turn)))
}

/// Has the view read, and takes what is found.
async fn read(
    core: &Rc<Core>,
    begun: &mut Option<Begun>,
    prior: Option<&State>,
    reader: Reader,
) -> Result<(), ReadError> {
    let Some(begun) = begun else { return Ok(()) };
    let mut pace = core.pace();
    let known = match (prior, core.with(|s| s.shared.rows.clone())) {
        (Some(prior), Some(rows)) => witnesses(prior, &begun.plan, &rows, &mut pace).await,
        _ => Witnesses::new(),
    };
    let messages = core.lanes.threads.read(reader, begun.job(known))?;
    let mut outlet = Outlet { core, reading: &begun.reading, keeps: None };
    loop {
        pace.end();
        // A lane that goes without the reader has none to give back.
        let Ok(message) = messages.recv().await else { return Err(ReadError::Interrupted) };
        pace.begin();
        match message {
            Message::Chunk(chunk) => begun.assembly.take(chunk),
            Message::End(reader, result) => {
                give_reader_back(core, reader)?;
                return result;
            }
        }
        outlet.offer(&mut begun.assembly.parts);
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

/// A lane that has read everything.
struct Lane<'c> {
    core: &'c Rc<Core>,
    request: LaneRequest,
    reading: Reading,
    plan: Arc<Plan>,
}

impl Lane<'_> {
    /// Gives the rows of a view that lives to those who wait for them.
    async fn give_frames(self, assembly: Assembly) {
        let _turn = self.core.turn.lock().await;
        if let Err(error) = self.reach().await {
            self.core.with(|s| s.shared.views.discard_assembly(self.request.view, assembly));
            return fail(self.core, self.request, None, None, &error);
        }
        let now = self.core.clock();
        self.core.with(|s| match s.is_read(self.request) {
            true => s.frames_done(&self.reading, assembly, now),
            false => s.shared.views.discard_assembly(self.request.view, assembly),
        });
    }

    /// Brings the view to the core's version and lets it join. `has_turn`: nothing else happens.
    async fn join(self, mut assembly: Assembly, prior: Option<State>, has_turn: bool) {
        let (core, view) = (self.core, self.request.view);
        let mut pace = core.pace();
        while core.with(|s| s.is_read(self.request) && s.shared.views.settle(view, &mut assembly, SETTLE))
            == Some(true)
        {
            if pace.is_over() {
                pace.rest().await;
            }
        }
        if core.with(|s| s.is_read(self.request)) != Some(true) {
            return self.forget(assembly, prior);
        }
        let (state, full, edited) = assembly.finish(self.reading.at, &self.reading.poke_id);
        let prior = match prior {
            None => None,
            Some(prior) => {
                let delta = difference(&prior, &state, &edited, self.reading.at, &mut pace).await;
                Some((prior, delta))
            }
        };
        pace.end();
        let _turn = if has_turn { None } else { Some(core.turn.lock().await) };
        let reached = self.reach().await;
        self.end(Found { state, full, prior }, reached).await;
    }

    /// The view has gone.
    fn forget(self, assembly: Assembly, prior: Option<State>) {
        self.core.with(|s| s.shared.views.discard_assembly(self.request.view, assembly));
        fail(self.core, self.request, Some(&self.plan), prior, &ReadError::Interrupted);
    }

    /// Brings the core to the lane's version: it may have seen a newer snapshot.
    async fn reach(&self) -> Result<(), ReadError> {
        while self.core.with(|s| s.shared.version).is_some_and(|version| version < self.reading.at) {
            advance(self.core).await?;
        }
        Ok(())
    }

    async fn end(self, found: Found, reached: Result<(), ReadError>) {
        let (core, view, at) = (self.core, self.request.view, self.reading.at);
        let wanted = core.with(|s| s.is_read(self.request)) == Some(true);
        if !wanted || reached.is_err() {
            core.with(|s| s.shared.views.discard(view, &self.plan, found.state));
            let error = reached.err().unwrap_or(ReadError::Interrupted);
            let prior = found.prior.map(|(prior, _)| prior);
            return fail(core, self.request, Some(&self.plan), prior, &error);
        }
        let clock = core.clock();
        if core.with(|s| s.lane_done(&self.reading, found, clock)) == Some(true) {
            bring_forward(core, view, at).await;
        }
        core.with(|s| s.lane_joined(view));
    }
}

fn take_reader(core: &Core) -> Result<Reader, ReadError> {
    match core.lanes.readers.borrow_mut().pop() {
        Some(reader) => Ok(reader),
        None => Reader::open(&core.replica_path()),
    }
}

/// An idle reader holds no snapshot, so it is never in the way of the log's restart.
fn give_reader_back(core: &Core, reader: Reader) -> Result<(), ReadError> {
    reader.end()?;
    core.lanes.readers.borrow_mut().push(reader);
    Ok(())
}
