//! The part of a core that drives the groups: batches in two halves, lanes in slices. The
//! order of things is that of `src/server`; what happens between them is up to the test.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use futures_lite::future::{block_on, yield_now};
use kelvin::changes::batch::Batch;
use kelvin::changes::commit::Commit;
use kelvin::changes::version::StateVersion;
use kelvin::groups::shared::Shared;
use kelvin::groups::syncer::{LaneRequest, Reading, Syncer};
use kelvin::replica::reader::{ReadError, Reader};
use kelvin::views::changed::Changed;
use kelvin::views::collect::Collector;
use kelvin::views::full::{Finished, Full};
use kelvin::views::rows::Rows;
use kelvin::views::state::State;
use kelvin::views::task::{Done, Task};
use kelvin::views::view::ViewId;
use kelvin::zql::evaluate::{NoPace, Pace, evaluate};
use kelvin::zql::plan::Plan;

use super::keeper::route;
use super::replica::Replica;
use super::schema::Schema;

type Found = Result<(State, Full), ReadError>;

/// A lane under way.
struct Lane {
    reading: Reading,
    finished: Finished,
    /// Whether it keeps what it encodes; `None`: not decided yet.
    keeps: Option<bool>,
    steps: Rc<Cell<usize>>,
    future: Pin<Box<dyn Future<Output = Found>>>,
    done: Option<Found>,
}

/// A batch of which nothing has taken effect yet.
struct Half {
    commits: Vec<Arc<Commit>>,
    end: StateVersion,
    tasks: Vec<Task>,
    done: Vec<Done>,
}

pub struct Core {
    pub syncer: Syncer,
    queue: VecDeque<Arc<Commit>>,
    recent: Vec<Arc<Commit>>,
    waiting: VecDeque<LaneRequest>,
    lanes: Vec<Lane>,
    half: Option<Half>,
}

impl Core {
    pub fn new(replica: &Replica, schema: &Schema, epoch: u64) -> Core {
        let reader = Rc::new(replica.reader());
        let version = reader.begin().expect("a snapshot");
        let rows = Rc::new(RefCell::new(Rows::default()));
        let shared = Shared::new(rows, reader, version, epoch, schema.catalogue.clone());
        Core {
            syncer: Syncer::new(shared, "test_0"),
            queue: VecDeque::new(),
            recent: Vec::new(),
            waiting: VecDeque::new(),
            lanes: Vec::new(),
            half: None,
        }
    }

    /// A commit has been made.
    pub fn commit(&mut self, commit: Arc<Commit>) {
        self.queue.push_back(commit);
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
        } else {
            self.recent.extend(commits.iter().cloned());
        }
        let batch = Batch::fold(&commits, end);
        let tasks = route(&mut self.syncer.shared.views, &reader, &batch, None);
        self.half = Some(Half { commits, end, tasks, done: Vec::new() });
    }

    /// Goes on with a batch: brings one view forward.
    pub fn step_batch(&mut self) {
        if let Some(half) = &mut self.half
            && let Some(task) = half.tasks.pop()
        {
            let batch = Batch::fold(&half.commits, half.end);
            half.done.push(perform(&self.syncer, &batch, task));
        }
    }

    /// Ends a batch: all of it takes effect.
    pub fn end_batch(&mut self) {
        while self.half.as_ref().is_some_and(|h| !h.tasks.is_empty()) {
            self.step_batch();
        }
        let Some(half) = self.half.take() else { return };
        let batch = Batch::fold(&half.commits, half.end);
        self.syncer.shared.moved(half.end);
        half.done.into_iter().for_each(|done| settle(&mut self.syncer, done, half.end));
        self.syncer.route_mutations(&batch);
    }

    /// Starts the lanes that were asked for. `racing`: commits come between the core's
    /// snapshot and the lane's.
    pub fn start_lanes(&mut self, replica: &Replica, racing: bool) {
        self.waiting.extend(self.syncer.take_lane_requests());
        if self.is_busy() || self.waiting.is_empty() {
            return;
        }
        if !racing {
            self.begin_batch();
            self.end_batch();
        }
        while let Some(request) = self.waiting.pop_front() {
            let shared = &self.syncer.shared;
            let Some(view) = shared.views.get(request.view).filter(|v| v.incarnation == request.incarnation)
            else {
                continue;
            };
            let reader = replica.reader();
            let at = reader.begin().expect("a snapshot");
            let reading = Reading::new(request, at, at == shared.version);
            let plan = view.plan.clone();
            let collector = Collector::new(
                shared.rows.clone(),
                view.layout.clone(),
                plan.clone(),
                &view.state,
                Some(reading.poke_id.clone()),
            );
            let finished = collector.finished();
            let steps = Rc::new(Cell::new(0));
            let future = Box::pin(read(reader, plan, collector, Steps(steps.clone())));
            self.lanes.push(Lane { reading, finished, keeps: None, steps, future, done: None });
        }
    }

    pub fn lanes(&self) -> usize {
        self.lanes.len()
    }

    /// A lane offers what it has encoded so far; once that was refused, never again.
    pub fn offer(&mut self, which: usize) {
        let lane = &mut self.lanes[which];
        if lane.keeps == Some(true) || lane.finished.borrow().is_empty() {
            return;
        }
        let mut parts = lane.finished.take();
        lane.keeps = Some(!self.syncer.stream(&lane.reading, &mut parts));
        lane.finished.replace(parts);
    }

    /// What a lane reads.
    pub fn reading(&self, which: usize) -> &Reading {
        &self.lanes[which].reading
    }

    /// Lanes that send what they read.
    pub fn streams(&self) -> usize {
        self.lanes.iter().filter(|lane| lane.keeps == Some(false)).count()
    }

    /// Lets a lane go on for some rows; if it is at its end and nobody has the turn, it joins.
    pub fn step_lane(&mut self, which: usize, steps: usize, now: f64) {
        let lane = &mut self.lanes[which];
        if lane.done.is_none() {
            lane.steps.set(steps);
            let mut context = Context::from_waker(Waker::noop());
            if let Poll::Ready(found) = lane.future.as_mut().poll(&mut context) {
                lane.done = Some(found);
            }
            return;
        }
        if self.is_busy() {
            return;
        }
        // The lane counts as under way until it has joined: commits are kept for it.
        while let Some(Ok((_, full))) = &self.lanes[which].done
            && self.syncer.shared.version < full.at
        {
            self.begin_batch();
            self.end_batch();
        }
        let lane = self.lanes.swap_remove(which);
        let (state, full) = match lane.done {
            Some(Ok(found)) => found,
            Some(Err(error)) => return self.syncer.lane_failed(lane.reading.request, &error.to_string()),
            None => return,
        };
        let at = full.at;
        if self.syncer.lane_done(&lane.reading, state, full, now) {
            self.bring_forward(lane.reading.request.view, at);
        }
    }

    fn bring_forward(&mut self, id: ViewId, at: StateVersion) {
        let end = self.syncer.shared.version;
        let commits: Vec<_> = self.recent.iter().filter(|c| c.version > at).cloned().collect();
        let batch = Batch::fold(&commits, end);
        let reader = self.syncer.shared.reader.clone();
        for task in route(&mut self.syncer.shared.views, &reader, &batch, Some(id)) {
            let done = perform(&self.syncer, &batch, task);
            settle(&mut self.syncer, done, end);
        }
    }

    /// Gives up every lane.
    pub fn stop(&mut self) {
        self.end_batch();
        self.lanes.clear();
    }
}

fn perform(syncer: &Syncer, batch: &Batch<'_>, task: Task) -> Done {
    let shared = &syncer.shared;
    let changed = Changed::new(batch, &shared.rows.borrow());
    block_on(task.perform(&changed, &shared.reader, &mut NoPace))
}

fn settle(syncer: &mut Syncer, done: Done, end: StateVersion) {
    let view = done.view;
    let outcome = done.settle(&mut syncer.shared.views, end);
    syncer.brought_forward(view, outcome);
}

async fn read(reader: Reader, plan: Rc<Plan>, mut collector: Collector, mut steps: Steps) -> Found {
    let at = reader.version();
    evaluate(&reader, &plan, &mut collector, &mut steps).await?;
    let (state, full) = collector.finish(at);
    Ok((state, full.expect("the lane encodes")))
}

/// Rests when the steps that it was given are used up.
struct Steps(Rc<Cell<usize>>);

impl Pace for Steps {
    fn due(&mut self) -> bool {
        let left = self.0.get();
        self.0.set(left.saturating_sub(1));
        left == 0
    }

    async fn rest(&mut self) {
        yield_now().await;
    }
}
