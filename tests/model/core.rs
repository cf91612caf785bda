//! A core of the server as a test drives it: the test says which of its tasks goes on, and for how long; the disk, the
//! threads that read and the queue of commits are simulated.

use std::cell::{Cell, Ref, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use kelvin::auth::upkeep::Intervals;
use kelvin::core::connections::Connections;
use kelvin::core::effect::{AppCall, Effect, Event, QuestionId, ReadingId};
use kelvin::core::entrance::Entrance;
use kelvin::core::host::Memory;
use kelvin::core::limits::Limits;
use kelvin::core::recording::RecordQueue;
use kelvin::core::send_buffer::SendBuffer;
use kelvin::core::session::Sessions;
use kelvin::core::settings::Settings;
use kelvin::core::state::Parts;
use kelvin::core::view_syncer::{Entry, ViewSyncer};
use kelvin::groups::limits::GroupLimits;
use kelvin::groups::record_log::{LogName, Output};
use kelvin::groups::shared::Shared;
use kelvin::groups::syncer::Syncer;
use kelvin::model::commit::Commit;
use kelvin::model::purging::Purging;
use kelvin::observe::exposition::prometheus;
use kelvin::observe::metrics::Metrics;
use kelvin::replica::live_indexes::IndexRequest;
use kelvin::views::rows::Rows;

mod readings;
mod sessions;

use self::readings::Thread;
use super::choices::Choices;
use super::counts::Counts;
use super::host::{Moment, ROOM, SimulatedHost, Sudden};
use super::replica::Replica;
use super::schema::Schema;
use super::socket::{Line, SimulatedSockets};

/// Zero of the clock, in milliseconds since 1970.
const STARTED: f64 = 1_800_000_000_000.0;

/// Between the times that pass at once: groups of which some views are kept, and others, go.
const PURGING: Purging = Purging { after: 100_000.0, interval: 0.0, batch: 1 };

/// Tasks of a core, by name.
pub const BATCHES: &str = "batches";
pub const GROUPS: &str = "the work of groups";
pub const STARTING: &str = "starting hydrations";
pub const HYDRATION: &str = "a hydration";
const FILLING: &str = "filling record logs";
const SNAPSHOT: &str = "a snapshot";

/// Both endpoints are there, and whoever is let in is looked at again a minute later.
const SETTINGS: Settings = Settings {
    has_queries: true,
    has_mutations: true,
    checks: Intervals { revalidate: Some(60_000.0), retransform: Some(60_000.0) },
    slow_after: f64::INFINITY,
};

/// Looks at the clock within one slice, if somebody chooses.
const SLICES: [usize; 8] = [0, 0, 0, 1, 2, 5, 20, 1_000];

/// Where nothing is to be held up.
pub const ENDLESS: usize = usize::MAX;

pub struct Core {
    pub counts: Counts,
    /// Chooses how long slices are; `None`: as long as there is something to do.
    pub slices: Option<Choices>,
    /// Indexes that queries would read by.
    pub index_requests: Vec<IndexRequest>,
    /// Those who were let in.
    pub entrance: Rc<Entrance>,
    /// What the app is being asked.
    pub calls: BTreeMap<QuestionId, AppCall>,
    /// What is being written down.
    writes: Vec<Output>,
    value: ViewSyncer,
    host: Rc<SimulatedHost>,
    metrics: Arc<Metrics>,
    threads: BTreeMap<ReadingId, Thread>,
    /// Whether the read transactions could begin anew.
    rebegun: Option<bool>,
}

impl Core {
    pub fn new(replica: &Replica, schema: &Schema, epoch: u64, limits: Limits) -> Core {
        let reader = Rc::new(replica.reader());
        let version = reader.begin().expect("a snapshot");
        let rows = Rc::new(RefCell::new(Rows::default()));
        let mut shared = Shared::new(rows, reader, version, epoch, schema.catalogue.clone(), limits.groups);
        shared.clock_zero = STARTED;
        let mut syncer = Syncer::new(shared, "test_0");
        syncer.purge_by(PURGING);
        let sockets = Rc::new(SimulatedSockets::default());
        let host = Rc::new(SimulatedHost {
            sockets: sockets.clone(),
            slice: Cell::new(ENDLESS),
            commits: RefCell::default(),
            gap: Cell::new(false),
            unopened: Cell::new(0),
            memory: Cell::new(ROOM),
            sudden: RefCell::default(),
            opened: Cell::new(0),
            path: replica.path(),
        });
        let metrics = Arc::new(Metrics::new(0));
        let send_buffer = SendBuffer::new(sockets, limits.outboxes);
        let entrance = Rc::new(Entrance {
            connections: Rc::new(Connections::new(Rc::new(send_buffer))),
            sessions: Sessions::default(),
            settings: SETTINGS,
            limits: Rc::new(Cell::new(limits)),
            host: host.clone(),
            metrics: metrics.clone(),
            inbound: Rc::default(),
        });
        let value = ViewSyncer::new(Parts { index: 0, syncer, entrance: entrance.clone() });
        Core {
            counts: Counts::default(),
            slices: None,
            index_requests: Vec::new(),
            entrance,
            calls: BTreeMap::new(),
            writes: Vec::new(),
            value,
            host,
            metrics,
            threads: BTreeMap::new(),
            rebegun: None,
        }
    }

    /// The groups, as they are.
    pub fn look(&self) -> Ref<'_, Syncer> {
        self.value.look()
    }

    /// The groups, for one call.
    pub fn syncer(&self) -> Entry<'_> {
        self.value.groups()
    }

    /// The next group that has something to do.
    pub fn next_due(&self) -> Option<Rc<str>> {
        self.value.groups().next_due()
    }

    /// Other limits.
    pub fn limit(&mut self, change: impl FnOnce(&mut Limits)) {
        let mut limits = self.value.limits();
        change(&mut limits);
        self.value.limit(limits);
    }

    /// It is that late now.
    pub fn set_time(&self, now: f64) {
        self.host.sockets.now.set(now);
    }

    /// A commit has been made.
    pub fn commit(&mut self, commit: Arc<Commit>) {
        self.host.commits.borrow_mut().push_back(commit);
        self.value.handle(Event::Committed);
    }

    /// A commit comes at a moment that only the core knows.
    pub fn commit_at(&mut self, at: Moment, commit: Arc<Commit>, show: impl FnOnce() + 'static) {
        self.host.sudden.replace(Some(Sudden { at, commit, show: Box::new(show) }));
    }

    /// Whether that is still to come.
    pub fn awaits_commit(&self) -> bool {
        self.host.sudden.borrow().is_some()
    }

    /// The queue overflows: the next batch has to look at everything.
    pub fn lose_commits(&mut self) {
        let mut commits = self.host.commits.borrow_mut();
        if !commits.is_empty() {
            commits.clear();
            self.host.gap.set(true);
            self.counts.lost += 1;
        }
    }

    /// The next reader cannot be opened.
    pub fn fail_to_open(&self) {
        self.host.unopened.set(1);
    }

    /// Readers that were opened so far.
    pub fn opened(&self) -> usize {
        self.host.opened.get()
    }

    /// How much memory there is.
    pub fn set_memory(&self, memory: Memory) {
        self.host.memory.set(memory);
    }

    /// The read transactions are to begin anew; whether that was possible.
    pub fn rebegin(&mut self) -> bool {
        self.rebegun = None;
        self.value.handle(Event::Rebegin);
        while self.run(SNAPSHOT, ENDLESS) {}
        self.rebegun.expect("an answer")
    }

    /// What goes to several sockets leaves together, or not.
    pub fn send_apart(&self, apart: bool) {
        self.host.sockets.apart.set(apart);
    }

    /// Writes what a socket takes.
    pub fn write(&mut self, line: &Line) {
        if line.write() {
            self.value.handle(Event::Drained);
        }
    }

    /// Time has passed.
    pub fn tick(&mut self) {
        self.value.handle(Event::Tick { clock_zero: STARTED });
    }

    /// From now on everything is recorded.
    pub fn start_recording(&mut self, name: LogName) {
        self.value.handle(Event::StartRecords(name));
    }

    /// What is to be written down.
    pub fn take_writes(&mut self) -> Vec<Output> {
        self.perform();
        std::mem::take(&mut self.writes)
    }

    /// It is.
    pub fn recorded(&mut self) {
        self.value.handle(Event::Recorded);
    }

    /// The disk does not take it.
    pub fn record_failed(&mut self) {
        self.value.handle(Event::RecordFailed);
    }

    /// It takes records again.
    pub fn record_recovered(&mut self) {
        self.value.handle(Event::RecordRecovered);
    }

    /// How much waits to be recorded.
    pub fn record_queue(&self) -> RecordQueue {
        self.value.record_queue()
    }

    /// Whether somebody depends on the version: a batch is half way, or a view joins.
    pub fn is_busy(&self) -> bool {
        self.value.is_version_held()
    }

    /// Lets a task of this name go on for a slice, if there is one that can.
    pub fn run(&mut self, name: &str, slice: usize) -> bool {
        let Some((task, _)) = self.value.ready().into_iter().find(|(_, what)| *what == name) else {
            return false;
        };
        self.host.slice.set(slice);
        self.value.begin_slice();
        self.value.run(task);
        self.value.end_slice();
        self.perform();
        true
    }

    /// The same for a slice of any length.
    fn run_some(&mut self, name: &str) -> bool {
        let slice = self.slices.as_mut().map_or(ENDLESS, |choices| *choices.pick(&SLICES));
        self.run(name, slice)
    }

    fn perform(&mut self) {
        for effect in self.value.take_effects() {
            match effect {
                Effect::Read { id, view, reader, job } => {
                    drop(self.threads.insert(id, Thread::read(view, reader, &job)))
                }
                Effect::ReadOn(id) => {
                    self.threads.get_mut(&id).into_iter().for_each(|one| one.is_asked = true)
                }
                Effect::Record(outputs) => self.writes.extend(outputs),
                Effect::WantIndex(index_request) => self.index_requests.push(index_request),
                Effect::RetryBatch => {
                    self.counts.failed += 1;
                    self.value.handle(Event::Committed);
                }
                Effect::Rebegun(could) => self.rebegun = Some(could),
                effect => self.ask(effect),
            }
        }
    }

    /// Begins a batch, or goes on with it.
    pub fn begin_batch(&mut self) {
        self.value.handle(Event::Committed);
        self.run_some(BATCHES);
    }

    /// Goes on with a batch.
    pub fn step_batch(&mut self) {
        self.run_some(BATCHES);
    }

    /// Goes on with anything but the work of groups, at which somebody has to look before and after.
    pub fn go_on_with_any(&mut self, choices: &mut Choices) {
        let ready: Vec<&str> = self.value.ready().into_iter().map(|(_, what)| what).collect();
        let others: Vec<&str> = ready.into_iter().filter(|what| *what != GROUPS).collect();
        if !others.is_empty() {
            let what = others[choices.below(others.len())];
            self.run(what, *choices.pick(&SLICES));
        }
    }

    /// Ends a batch, or whatever else depends on the version.
    pub fn end_batch(&mut self) {
        while self.is_busy() {
            if self.run(BATCHES, ENDLESS) && !self.is_busy() {
                return;
            }
            // A batch reads a view, or a view joins that has the version for itself.
            let ids: Vec<ReadingId> = self.threads.keys().copied().collect();
            ids.into_iter().for_each(|id| self.read_on(id, usize::MAX));
            while self.run(HYDRATION, ENDLESS) {}
        }
    }

    /// Brings the core to the newest snapshot.
    pub fn batch(&mut self) {
        self.end_batch();
        self.value.handle(Event::Committed);
        while self.run(BATCHES, ENDLESS) {}
        self.end_batch();
    }

    /// Lets a group do what is due for it, if there is one and nobody depends on the version.
    pub fn work(&mut self) -> bool {
        self.run(GROUPS, 0)
    }

    /// Goes on with the filling of the record log.
    pub fn fill(&mut self) {
        self.run(FILLING, 0);
    }

    /// Whether there is something to go on with, beside the filling of the record log.
    pub fn is_ready(&self) -> bool {
        self.value.ready().iter().any(|(_, what)| *what != FILLING)
    }

    /// What it could go on with, for people.
    pub fn doing(&self) -> Vec<&'static str> {
        self.value.ready().into_iter().map(|(_, what)| what).collect()
    }

    /// Whether whoever runs it lets it go on.
    pub fn goes_on(&self) -> bool {
        self.value.is_ready()
    }

    /// What it has done.
    pub fn counts(&self) -> Counts {
        let text = prometheus(std::slice::from_ref(&self.metrics), 0);
        let number = |name: &str| -> usize {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.and_then(|number| number.parse::<f64>().ok()).map_or(0, |number| number as usize)
        };
        let kinds = ["bulk", "condition", "candidates", "budget"];
        Counts {
            batches: self.counts.batches + number("kelvin_batch_seconds_count"),
            advanced: self.counts.advanced + number("kelvin_view_advances_total"),
            anew: kinds.iter().fold(self.counts.anew, |sum, kind| {
                sum + number(&format!("kelvin_view_evaluations_{kind}_total"))
            }),
            ..self.counts
        }
    }
}

/// Room for whatever a test has, but every slice may end anywhere.
pub fn roomy() -> Limits {
    Limits {
        hydrations: 1_000,
        large_hydrations: 1_000,
        rows_per_look: 1,
        stream_from: 1,
        settled_slots: 3,
        groups: GroupLimits { record_rows: 3, ..GroupLimits::default() },
        ..Limits::of(1, 1)
    }
}
