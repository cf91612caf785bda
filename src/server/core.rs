//! One view-syncer core: its groups, its readers, its sockets.
//!
//! Everything here belongs to one executor. The groups are changed only in short calls that
//! do not wait; what takes long (evaluation, the app, sockets) happens between them.
//!
//! The *turn* orders what depends on the core's version: a batch, the work of groups
//! between batches, a lane that joins. Whoever holds it may rely on the live reader being
//! at the version of the groups.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use kelvin_io::channel::{Receiver, Sender, bounded};
use kelvin_io::executor::now;

use super::budget::Budget;
use super::cork::Cork;
use super::gate::Gate;
use super::handover::Handover;
use super::handshakes::Handshakes;
use super::inbox::Inbound;
use super::lanes::{Lanes, lanes_of};
use super::outbox::Outbox;
use super::pace::{CorePace, CpuClock};
use super::record_files;
use super::records::{self, Completed, Records};
use super::rounds;
use super::session::Session;
use super::status::Status;
use super::supervise::Supervisor;
use super::warnings::Warnings;
use crate::backend::answers::Answers;
use crate::backend::call::Caller;
use crate::backend::clean_up::CleanUps;
use crate::backend::push::Queue;
use crate::config::Config;
use crate::cvr::recovered::Recovered;
use crate::groups::recorder::LogName;
use crate::groups::restore::Restoration;
use crate::groups::shared::Shared;
use crate::groups::syncer::Syncer;
use crate::model::catalogue::Catalogue;
use crate::model::commit::Commit;
use crate::model::ids::ConnectionId;
use crate::model::version::StateVersion;
use crate::observe::metrics::Metrics;
use crate::replica::live_indexes::Wish;
use crate::replica::reader::{ReadError, Reader};
use crate::server::commit_queue::CommitReceiver;
use crate::upstream::manager::Start;
use crate::views::pace::Pace;
use crate::views::rows::Rows;
use crate::views::view::ViewId;

/// Steps of SQLite's machine that one statement of the live path may take: about a
/// millisecond. What takes more goes to a lane (rule 6).
const LIVE_BUDGET: u32 = 32_768;

/// Bytes that are read from a socket at a time.
const SCRATCH: usize = 64 << 10;

/// What the replication manager tells a core.
pub enum Control {
    /// The replica can be read.
    Start(Start),
    /// The replica has one more index; this is its catalogue now.
    Indexed(Arc<Catalogue>),
    /// Begin the read transactions anew; answer whether that was possible (rule 25).
    Rebegin(Sender<bool>),
    /// Close the connections and end.
    Stop,
}

/// One view-syncer core.
pub struct Core {
    /// Its number, from 0.
    pub index: usize,
    /// Hears of the end of its parts.
    pub supervisor: Supervisor,
    /// Settings.
    pub config: Arc<Config>,
    /// Its numbers.
    pub metrics: Arc<Metrics>,
    /// What clients make it warn of.
    pub warnings: Rc<Warnings>,
    /// Of the process.
    pub status: Arc<Status>,
    /// To every core, itself included: sockets whose group lives there.
    pub peers: Vec<Sender<Box<Handover>>>,
    /// Calls the app.
    pub caller: Caller,
    /// Its answers of the last seconds.
    pub answers: RefCell<Answers>,
    /// Verifies tokens.
    pub gate: Gate,
    /// Open connections of all groups, and those that have not joined one yet.
    pub sessions: RefCell<HashMap<ConnectionId, Rc<Outbox>>>,
    /// Connections that were initialised, for the checks that are repeated.
    pub live: RefCell<HashMap<ConnectionId, Weak<Session>>>,
    /// The newest connection of each tab, by group and client.
    pub tabs: RefCell<HashMap<(String, String), ConnectionId>>,
    /// Mutations on their way to the app, by group.
    pub pushes: RefCell<HashMap<Rc<str>, Queue>>,
    /// Results that the app may forget, by group.
    pub clean_ups: RefCell<HashMap<Rc<str>, CleanUps>>,
    /// Commits to come.
    pub commits: CommitReceiver,
    /// Held by whoever depends on the core's version.
    pub turn: async_lock::Mutex<()>,
    /// Commits kept for the lanes that are under way.
    pub recent: RefCell<Recent>,
    /// Where sockets are read into; borrowed only within a poll.
    pub scratch: RefCell<Vec<u8>>,
    /// Collects what goes out to its sockets.
    pub cork: Rc<Cork>,
    /// Lanes.
    pub lanes: Lanes,
    /// What is written down.
    pub records: Records,
    /// Memory of the process.
    pub budget: Arc<Budget>,
    /// What clients have sent and is not handled.
    pub inbound: Rc<Inbound>,
    /// Most connections of this core.
    pub most_connections: usize,
    /// Requests of connections that are being read.
    pub handshakes: Rc<Handshakes>,
    /// Analyses of queries that are under way.
    pub analyses: Cell<usize>,
    /// What was written down before the process started.
    recovered: Cell<Option<Recovered>>,
    /// To core 0: indexes that queries would read by.
    wishes: Sender<Wish>,
    syncer: RefCell<Option<Syncer>>,
    work: (Sender<()>, Receiver<()>),
    ready: (Sender<()>, Receiver<()>),
    stopping: (Sender<()>, Receiver<()>),
    next_connection: Cell<u64>,
    started: Instant,
    cpu_clock: CpuClock,
}

/// Commits since the oldest lane under way began.
#[derive(Default)]
pub struct Recent {
    /// In order.
    pub commits: VecDeque<Arc<Commit>>,
    /// Their size in bytes.
    pub bytes: usize,
    /// Some were dropped.
    pub gap: bool,
}

/// What a core is made of.
pub struct Parts {
    /// Number, from 0.
    pub index: usize,
    /// Hears of the end of essential parts.
    pub supervisor: Supervisor,
    /// Settings.
    pub config: Arc<Config>,
    /// Numbers.
    pub metrics: Arc<Metrics>,
    /// Of the process.
    pub status: Arc<Status>,
    /// To every core.
    pub peers: Vec<Sender<Box<Handover>>>,
    /// Commits to come.
    pub commits: CommitReceiver,
    /// To core 0: indexes that queries would read by.
    pub wishes: Sender<Wish>,
    /// What was written down before the process started.
    pub recovered: Recovered,
    /// Cores whose record log is complete.
    pub completed: Completed,
    /// Memory of the process.
    pub budget: Arc<Budget>,
    /// Most connections of this core.
    pub most_connections: usize,
}

impl Core {
    /// A core that waits for the replica.
    pub fn new(parts: Parts) -> Rc<Core> {
        let directory = record_files::directory(&parts.config.replica_file);
        let mode = parts.config.record_mode;
        let cores = parts.peers.len();
        let records = Records::new(mode, directory, cores, parts.completed);
        let lanes = lanes_of(std::thread::available_parallelism().map_or(1, usize::from), cores);
        let warnings = Rc::new(Warnings::new(parts.index));
        Rc::new(Core {
            index: parts.index,
            supervisor: parts.supervisor,
            caller: Caller::new(parts.config.app.clone()),
            answers: RefCell::default(),
            gate: Gate::new(parts.config.clone(), warnings.clone()),
            warnings,
            config: parts.config,
            metrics: parts.metrics,
            status: parts.status,
            peers: parts.peers,
            sessions: RefCell::default(),
            live: RefCell::default(),
            tabs: RefCell::default(),
            pushes: RefCell::default(),
            clean_ups: RefCell::default(),
            commits: parts.commits,
            turn: async_lock::Mutex::new(()),
            recent: RefCell::default(),
            scratch: RefCell::new(vec![0; SCRATCH]),
            cork: Rc::new(Cork::new()),
            lanes: Lanes::new(parts.index, lanes),
            records,
            budget: parts.budget,
            inbound: Rc::default(),
            most_connections: parts.most_connections,
            handshakes: Rc::default(),
            analyses: Cell::new(0),
            recovered: Cell::new(Some(parts.recovered)),
            wishes: parts.wishes,
            syncer: RefCell::new(None),
            work: bounded(1),
            ready: bounded(1),
            stopping: bounded(1),
            next_connection: Cell::new(1),
            started: now(),
            cpu_clock: CpuClock::of_this_thread(),
        })
    }

    /// Opens the replica and begins to serve.
    pub async fn start(self: &Rc<Self>, start: Start) -> Result<(), ReadError> {
        let mut reader = Reader::open(&self.replica_path())?;
        reader.limit(LIVE_BUDGET)?;
        reader.keep_pages()?;
        reader.keep_plans()?;
        let reader = Rc::new(reader);
        let version = reader.begin()?;
        let rows = Rc::new(RefCell::new(Rows::default()));
        let mut shared = Shared::new(rows, reader, version, start.epoch, start.catalogue.clone());
        shared.clock_zero = self.clock_zero();
        let mut syncer = Syncer::new(shared, &self.config.app.shard_schema());
        if let Some(rule) = self.config.purging {
            syncer.purge_by(rule);
        }
        *self.syncer.borrow_mut() = Some(syncer);
        self.restore(start.replica_version).await;
        let name = LogName { replica: start.replica_version, epoch: start.epoch, core: self.index };
        records::start(self, name);
        // Closing the channel lets everybody pass who waits, now and later.
        self.ready.0.close();
        let part = |what, part: Pin<Box<dyn Future<Output = ()>>>| self.supervisor.spawn(what, part);
        part("batches", Box::pin(super::batch::run(self.clone())));
        part("the work of groups", Box::pin(rounds::work(self.clone())));
        part("a core's clock", Box::pin(rounds::tick(self.clone())));
        part("pongs", Box::pin(rounds::pongs(self.clone())));
        part("checks that are repeated", Box::pin(super::maintenance::run(self.clone())));
        Ok(())
    }

    /// Brings back what was written down before the process started.
    async fn restore(&self, replica: StateVersion) {
        let Some(recovered) = self.recovered.take() else { return };
        let Some(restoration) = self.with(|s| Restoration::new(recovered, replica, &mut s.shared)) else {
            return;
        };
        let Some(mut restoration) = restoration else {
            crate::warn!(
                core = self.index;
                "the records of client views are of a later replica than this one: clients start anew"
            );
            return;
        };
        let (mut pace, now) = (self.pace("restoring groups"), self.clock());
        while self.with(|s| restoration.step(s, now)) == Some(true) {
            if pace.is_over() {
                pace.rest().await;
            }
        }
        pace.end();
        if restoration.misfits > 0 {
            crate::info!(
                core = self.index, misfits = restoration.misfits;
                "some groups or views do not fit the tables any more"
            );
        }
    }

    /// Path of the replica.
    pub fn replica_path(&self) -> PathBuf {
        self.config.replica_file.clone()
    }

    /// Waits until the replica can be read.
    pub async fn until_ready(&self) {
        let _ = self.ready.1.recv().await;
    }

    /// The core is to end: nobody is let in any more.
    pub fn stop(&self) {
        self.stopping.0.close();
    }

    /// Whether it is.
    pub fn is_stopping(&self) -> bool {
        self.stopping.0.is_closed()
    }

    /// Waits for that.
    pub async fn until_stopping(&self) {
        let _ = self.stopping.1.recv().await;
    }

    /// Calls into the groups. `None` before the replica can be read. The call must not wait,
    /// and must not come back here.
    pub fn with<T>(&self, f: impl FnOnce(&mut Syncer) -> T) -> Option<T> {
        if self.records.is_on() {
            // What is told is recorded first.
            self.cork.hold();
        }
        let _whole = Whole::begin(self);
        let out = self.syncer.borrow_mut().as_mut().map(f);
        self.after_call();
        out
    }

    /// How many groups wait for a view, or have it.
    pub fn subscribers(&self, view: ViewId) -> usize {
        self.syncer.borrow().as_ref().map_or(0, |s| s.shared.views.subscribers(view))
    }

    /// Starts what a call into the groups asked for.
    fn after_call(&self) {
        self.record();
        let (lanes, unread, work) = match self.syncer.borrow_mut().as_mut() {
            None => return,
            Some(syncer) => {
                let views = &mut syncer.shared.views;
                let work = views.has_remains();
                for wish in syncer.shared.wishes.drain(..) {
                    // A core 0 that is busy hears of it from the next view of the kind.
                    let _ = self.wishes.try_send(wish);
                }
                (syncer.take_lane_requests(), syncer.shared.views.take_unread(), work || syncer.has_work())
            }
        };
        unread.into_iter().for_each(|incarnation| self.lanes.cancel(incarnation));
        lanes.into_iter().for_each(|request| self.lanes.ask(request));
        // When all lanes are taken, the one that ends starts the next.
        if work || self.lanes.can_start() {
            self.wake();
        }
    }

    /// Hands what has to be recorded to the writer; what was told may go if there is nothing.
    fn record(&self) {
        let now = self.clock();
        let taken = self.syncer.borrow_mut().as_mut().map(|s| (s.take_records(now), s.is_filling()));
        let Some((output, filling)) = taken.filter(|_| self.records.is_on()) else { return };
        if self.records.refusal().is_some() {
            self.cork.drop_held();
        } else if let Some(output) = output {
            self.records.push(output);
        }
        // After what was just told was handed over: it does not go with what is done now.
        if let Some(bytes) = self.records.is_done() {
            records::written_some(self, bytes);
        }
        if self.records.begin() {
            self.cork.mark();
        }
        if !self.records.is_behind() {
            self.cork.release_marked(true);
        }
        if filling {
            self.records.wake_filling();
        }
    }

    /// Waits until there may be something to do. False: never again.
    pub async fn until_work(&self) -> bool {
        self.work.1.recv().await.is_ok()
    }

    /// Has the worker look for something to do.
    pub fn wake(&self) {
        // A full queue means that it knows already.
        let _ = self.work.0.try_send(());
    }

    /// Milliseconds since the core began; its only clock.
    pub fn clock(&self) -> f64 {
        now().saturating_duration_since(self.started).as_secs_f64() * 1000.0
    }

    /// Milliseconds since 1970 at zero of the core's clock, as the calendar is now.
    pub fn clock_zero(&self) -> f64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        since.as_secs_f64() * 1000.0 - self.clock()
    }

    /// A number for a new connection.
    pub fn new_connection(&self) -> ConnectionId {
        let id = self.next_connection.get();
        self.next_connection.set(id + 1);
        ConnectionId(id)
    }

    /// Gives slices of the core to long work. `what`: its name, for the log.
    pub fn pace(&self, what: &'static str) -> CorePace {
        CorePace::new(self.metrics.clone(), self.index, what, self.cpu_clock.clone())
    }
}

/// Notices a panic in a call into the groups. What such a call changes many share, and it may be left half done:
/// nobody is told anything of it, and the process ends.
struct Whole<'c> {
    core: &'c Core,
    /// Something else has panicked, and is being put in order by this call.
    within: bool,
}

impl Whole<'_> {
    fn begin(core: &Core) -> Whole<'_> {
        Whole { core, within: std::thread::panicking() }
    }
}

impl Drop for Whole<'_> {
    fn drop(&mut self) {
        if self.within || !std::thread::panicking() {
            return;
        }
        self.core.cork.drop_held();
        if let Ok(mut syncer) = self.core.syncer.try_borrow_mut() {
            // To take it apart might panic again.
            std::mem::forget(syncer.take());
        }
        self.core.supervisor.lost(&format!("the groups of core {}", self.core.index));
    }
}
