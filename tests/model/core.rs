//! The part of a core that drives the groups: batches in two halves, lanes in slices. The
//! order of things is that of `src/server`; what happens between them is up to the test.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use futures_lite::future::block_on;
use kelvin::groups::reading::{Begun, Found, LaneRequest, Reading};
use kelvin::groups::recorder::Output;
use kelvin::groups::shared::Shared;
use kelvin::groups::syncer::Syncer;
use kelvin::model::batch::Batch;
use kelvin::model::commit::Commit;
use kelvin::model::purging::Purging;
use kelvin::model::reason::Reason;
use kelvin::model::version::StateVersion;
use kelvin::replica::reader::{ReadError, Reader};
use kelvin::testing::faults::{self, Fault};
use kelvin::views::changed::Changed;
use kelvin::views::difference::difference;
use kelvin::views::pace::NoPace;
use kelvin::views::rows::Rows;
use kelvin::views::scan::{Chunk, scan};
use kelvin::views::task::{Done, Outcome, Task};
use kelvin::views::view::ViewId;
use kelvin::views::witnesses::witnesses;

use super::counts::Counts;
use super::keeper::route;
use super::replica::Replica;
use super::schema::Schema;

/// A lane under way: the thread that reads is done at once, what it found comes bit by bit.
struct Lane {
    begun: Begun,
    chunks: VecDeque<Chunk>,
    result: Result<(), ReadError>,
    /// Whether it keeps what is encoded; `None`: not decided yet.
    keeps: Option<bool>,
}

/// A batch of which nothing has taken effect yet.
struct Half {
    commits: Vec<Arc<Commit>>,
    /// There were others.
    lost: bool,
    end: StateVersion,
    tasks: Vec<Task>,
    stale: Vec<(ViewId, Reason)>,
    done: Vec<Done>,
    /// Views that were read within the batch.
    read: Vec<(Reading, Found)>,
}

pub struct Core {
    pub syncer: Syncer,
    pub counts: Counts,
    /// What was recorded in the middle of something.
    pub recorded: Vec<Output>,
    queue: VecDeque<Arc<Commit>>,
    /// The queue overflowed: what the commits changed is not known.
    lost: bool,
    recent: Vec<Arc<Commit>>,
    /// Some that a lane needs are not among these.
    recent_lost: bool,
    waiting: VecDeque<LaneRequest>,
    lanes: Vec<Lane>,
    half: Option<Half>,
    path: PathBuf,
}

/// Zero of the clock, in milliseconds since 1970.
const STARTED: f64 = 1_800_000_000_000.0;

/// Between the times that pass at once: groups of which some views are kept, and others, go.
const PURGING: Purging = Purging { after: 100_000.0, interval: 0.0, batch: 1 };

type Stale = Vec<(ViewId, Reason)>;

impl Core {
    pub fn new(replica: &Replica, schema: &Schema, epoch: u64) -> Core {
        let reader = Rc::new(replica.reader());
        let version = reader.begin().expect("a snapshot");
        let rows = Rc::new(RefCell::new(Rows::default()));
        let mut shared = Shared::new(rows, reader, version, epoch, schema.catalogue.clone());
        shared.clock_zero = STARTED;
        let mut syncer = Syncer::new(shared, "test_0");
        syncer.purge_by(PURGING);
        Core {
            syncer,
            counts: Counts::default(),
            recorded: Vec::new(),
            queue: VecDeque::new(),
            lost: false,
            recent: Vec::new(),
            recent_lost: false,
            waiting: VecDeque::new(),
            lanes: Vec::new(),
            half: None,
            path: replica.path(),
        }
    }

    /// A commit has been made.
    pub fn commit(&mut self, commit: Arc<Commit>) {
        self.queue.push_back(commit);
    }

    /// The queue overflows: the next batch has to look at everything.
    pub fn lose_commits(&mut self) {
        if !self.queue.is_empty() {
            self.lost = true;
            self.counts.lost += 1;
        }
    }

    /// Whether a batch is half done: what needs the turn has to wait.
    pub fn is_busy(&self) -> bool {
        self.half.is_some()
    }

    /// Begins a batch: finds what it touches.
    pub fn begin_batch(&mut self) {
        let reader = self.syncer.shared.reader.clone();
        let end = reader.begin().expect("a snapshot");
        if end == self.syncer.shared.version {
            return;
        }
        let commits: Vec<Arc<Commit>> = self.queue.drain(..).collect();
        if self.lanes.is_empty() {
            self.recent.clear();
            self.recent_lost = false;
        } else {
            self.recent_lost |= self.lost;
            self.recent.extend(commits.iter().cloned());
        }
        let lost = std::mem::take(&mut self.lost);
        let batch = batch(&self.syncer, &commits, lost, end);
        let tasks = route(&mut self.syncer.shared.views, &reader, &batch, None);
        let (tasks, stale, done) = (tasks.advance, tasks.stale, Vec::new());
        self.counts.batches += 1;
        self.counts.advanced += tasks.len();
        self.counts.anew += stale.len();
        let (stale, read) = self.read_inline(stale, end);
        self.half = Some(Half { commits, lost, end, tasks, stale, done, read });
    }

    /// Reads what cannot wait for a lane; gives the others back.
    fn read_inline(&mut self, stale: Stale, end: StateVersion) -> (Stale, Vec<(Reading, Found)>) {
        let (mut rest, mut found) = (Vec::new(), Vec::new());
        let from = self.syncer.shared.version;
        for (view, reason) in stale {
            if !self.syncer.shared.views.is_inline(view) {
                rest.push((view, reason));
                continue;
            }
            let Some(begun) = self.syncer.begin_inline(view, from, reason, end) else { continue };
            let reader = Reader::open(&self.path).expect("a reader");
            assert_eq!(reader.begin().expect("a snapshot"), end);
            let mut lane = read(&self.syncer, begun, &reader);
            lane.result.as_ref().expect("an answer");
            lane.chunks.drain(..).for_each(|chunk| lane.begun.assembly.take(chunk));
            self.counts.inline += 1;
            found.push(prepare(&mut self.syncer, lane.begun));
        }
        (rest, found)
    }

    /// Goes on with a batch: brings one view forward.
    pub fn step_batch(&mut self) {
        if let Some(half) = &mut self.half
            && let Some(task) = half.tasks.pop()
        {
            let batch = batch(&self.syncer, &half.commits, half.lost, half.end);
            half.done.push(perform(&mut self.syncer, &batch, task));
        }
    }

    /// Ends a batch: all of it takes effect.
    pub fn end_batch(&mut self) {
        while self.half.as_ref().is_some_and(|h| !h.tasks.is_empty()) {
            self.step_batch();
        }
        let Some(half) = self.half.take() else { return };
        let batch = batch(&self.syncer, &half.commits, half.lost, half.end);
        let from = self.syncer.shared.version;
        self.syncer.shared.moved(half.end);
        let mut done = half.done;
        if faults::is_on(Fault::Barrier) {
            self.settle_apart(&mut done, from);
        }
        settle(&mut self.syncer, done, half.stale, from);
        let read: Vec<ViewId> = half.read.iter().map(|(reading, _)| reading.request.view).collect();
        for (reading, found) in half.read {
            self.syncer.inline_done(&reading, found, 0.0);
        }
        self.syncer.shared.views.inline_done(&read);
        self.syncer.route_mutations(&batch);
    }

    /// Views take effect one by one, and groups step in between: what must not be.
    fn settle_apart(&mut self, done: &mut Vec<Done>, from: StateVersion) {
        while done.len() > 1
            && let Some(next) = done.pop()
        {
            settle(&mut self.syncer, vec![next], Vec::new(), from);
            while let Some(group) = self.syncer.next_due() {
                self.syncer.work(&group, 0.0);
            }
        }
    }

    /// Starts the lanes that were asked for. `racing`: commits come between the core's
    /// snapshot and the lane's.
    pub fn start_lanes(&mut self, replica: &Replica, racing: bool, now: f64) {
        self.waiting.extend(self.syncer.take_lane_requests());
        if self.is_busy() || self.waiting.is_empty() {
            return;
        }
        if !racing {
            self.begin_batch();
            self.end_batch();
        }
        while let Some(request) = self.waiting.pop_front() {
            let reader = replica.lane_reader();
            let at = reader.begin().expect("a snapshot");
            let in_step = at == self.syncer.shared.version;
            let Some(begun) = self.syncer.begin_reading(request, at, in_step) else {
                self.syncer.lane_given_up(request);
                continue;
            };
            self.lanes.push(read(&self.syncer, begun, &reader));
            // It keeps the turn until it has joined.
            if self.syncer.shared.views.is_inline(request.view) {
                let lane = self.lanes.len() - 1;
                self.step_lane(lane, usize::MAX, now);
                self.step_lane(lane, usize::MAX, now);
            }
        }
    }

    pub fn lanes(&self) -> usize {
        self.lanes.len()
    }

    /// A lane offers what it has encoded so far; once that was refused, never again.
    pub fn offer(&mut self, which: usize) {
        let lane = &mut self.lanes[which];
        if lane.keeps == Some(true) || lane.begun.assembly.parts.is_empty() {
            return;
        }
        let taken = self.syncer.stream(&lane.begun.reading, &mut lane.begun.assembly.parts);
        lane.keeps = Some(!taken);
    }

    /// What a lane reads.
    pub fn reading(&self, which: usize) -> &Reading {
        &self.lanes[which].begun.reading
    }

    /// Lanes that send what they read.
    pub fn streams(&self) -> usize {
        self.lanes.iter().filter(|lane| lane.keeps == Some(false)).count()
    }

    /// Lets a lane go on for some chunks; if it is at its end and nobody has the turn, it joins.
    pub fn step_lane(&mut self, which: usize, steps: usize, now: f64) {
        let lane = &mut self.lanes[which];
        if !lane.chunks.is_empty() {
            let chunks = lane.chunks.drain(..lane.chunks.len().min(steps));
            return chunks.for_each(|chunk| lane.begun.assembly.take(chunk));
        }
        if self.is_busy() {
            return;
        }
        // The lane counts as under way until it has joined: commits are kept for it.
        while self.lanes[which].result.is_ok()
            && self.syncer.shared.version < self.lanes[which].begun.reading.at
        {
            self.begin_batch();
            self.end_batch();
        }
        let lane = self.lanes.swap_remove(which);
        self.join(lane, now);
    }

    fn join(&mut self, lane: Lane, now: f64) {
        let Lane { begun, result, .. } = lane;
        let request = begun.reading.request;
        let error = result.err().map(|e| e.to_string());
        if error.is_some() || !self.syncer.is_read(request) {
            return give_up(&mut self.syncer, begun, &error.unwrap_or_default());
        }
        self.counts.lanes += 1;
        if begun.reading.frames_only {
            return self.syncer.frames_done(&begun.reading, begun.assembly, now);
        }
        let (reading, found) = prepare(&mut self.syncer, begun);
        let is_behind = self.syncer.lane_done(&reading, found, now);
        // What is recorded is taken after every call, and this is one.
        if is_behind {
            self.recorded.extend(self.syncer.take_records(now));
        }
        if is_behind {
            self.bring_forward(request.view, reading.at);
        }
        self.syncer.lane_joined(request.view);
    }

    fn bring_forward(&mut self, id: ViewId, at: StateVersion) {
        let end = self.syncer.shared.version;
        let commits: Vec<_> = self.recent.iter().filter(|c| c.version > at).cloned().collect();
        let batch = batch(&self.syncer, &commits, self.recent_lost, end);
        let reader = self.syncer.shared.reader.clone();
        let tasks = route(&mut self.syncer.shared.views, &reader, &batch, Some(id));
        let done = tasks.advance.into_iter().map(|task| perform(&mut self.syncer, &batch, task)).collect();
        settle(&mut self.syncer, done, tasks.stale, at);
    }

    /// Gives up every lane.
    pub fn stop(&mut self) {
        self.end_batch();
        for lane in std::mem::take(&mut self.lanes) {
            give_up(&mut self.syncer, lane.begun, "the core stops");
        }
    }
}

/// What commits changed; everything, if some were lost.
fn batch<'c>(syncer: &Syncer, commits: &'c [Arc<Commit>], lost: bool, end: StateVersion) -> Batch<'c> {
    if lost { Batch::everything(&syncer.shared.catalogue, end) } else { Batch::fold(commits, end) }
}

/// Has a view read, all at once.
fn read(syncer: &Syncer, begun: Begun, reader: &Reader) -> Lane {
    let known = begun.prior.as_ref().map_or_else(Default::default, |prior| {
        block_on(witnesses(prior, &begun.plan, &syncer.shared.rows, &mut NoPace))
    });
    let mut chunks = VecDeque::new();
    let mut hand = |chunk| {
        chunks.push_back(chunk);
        Ok(())
    };
    let result = scan(reader, &begun.job(known), &mut hand);
    Lane { begun, chunks, result: result.map(drop), keeps: None }
}

/// Makes a state out of what was read.
fn prepare(syncer: &mut Syncer, begun: Begun) -> (Reading, Found) {
    let Begun { reading, mut assembly, prior, plan, .. } = begun;
    while syncer.shared.views.settle(reading.request.view, &mut assembly, 3) {}
    let (state, full, edited) = assembly.finish(reading.at, &reading.poke_id);
    let prior = prior.map(|prior| {
        let delta = block_on(difference(&prior, &state, &edited, reading.at, &mut NoPace));
        (prior, delta)
    });
    (reading, Found { state, full, prior, plan })
}

fn give_up(syncer: &mut Syncer, begun: Begun, error: &str) {
    let request = begun.reading.request;
    syncer.shared.views.discard_assembly(request.view, begun.assembly);
    syncer.lane_failed(request, Some(&begun.plan).zip(begun.prior), error);
}

fn perform(syncer: &mut Syncer, batch: &Batch<'_>, task: Task) -> Done {
    let shared = &mut syncer.shared;
    let changed = Changed::new(batch, &shared.rows.borrow());
    let done = block_on(task.perform(&changed, &shared.reader, &mut NoPace));
    shared.contents.expect(done.delta(), &changed, &mut shared.views);
    done
}

fn settle(syncer: &mut Syncer, done: Vec<Done>, stale: Vec<(ViewId, Reason)>, from: StateVersion) {
    syncer.shared.contents.arrived();
    for done in done {
        let view = done.view;
        let outcome = done.settle(&mut syncer.shared.views, from);
        syncer.brought_forward(view, outcome);
    }
    for (view, reason) in stale {
        syncer.shared.views.make_stale(view, from, reason);
        syncer.brought_forward(view, Outcome::Stale(reason));
    }
}
