//! One view-syncer core: its groups, its readers, its sockets.
//!
//! Everything here belongs to one executor. What the core decides is in [`ViewSyncer`]; it is changed only in short
//! calls that do not wait.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use kelvin_io::channel::{Receiver, Sender, bounded};
use kelvin_io::executor::now;

use super::authenticator::Authenticator;
use super::budget::Budget;
use super::handover::Handover;
use super::handshakes::Handshakes;
use super::host::ServerHost;
use super::inbox::Inbound;
use super::pace::{CorePace, CpuClock};
use super::pushes::Pushes;
use super::reading_threads::ReadingThreads;
use super::record_files;
use super::record_writer::{self, Completed, RecordWriter};
use super::serving::Serving;
use super::session::Session;
use super::sockets::ServerSockets;
use super::status::Status;
use super::supervise::Supervisor;
use super::warnings::Warnings;
use super::{driver, rounds};
use crate::backend::answers::Answers;
use crate::backend::call::Caller;
use crate::backend::clean_up::CleanUps;
use crate::config::Config;
use crate::core::connections::Connections;
use crate::core::effect::ReadingId;
use crate::core::limits::Limits;
use crate::core::send_buffer::SendBuffer;
use crate::core::state;
use crate::core::view_syncer::ViewSyncer;
use crate::cvr::recovered::Recovered;
use crate::groups::record_log::LogName;
use crate::groups::restore::Restoration;
use crate::groups::shared::Shared;
use crate::groups::syncer::Syncer;
use crate::model::catalogue::Catalogue;
use crate::model::ids::ConnectionId;
use crate::model::version::StateVersion;
use crate::observe::metrics::Metrics;
use crate::replica::events::Start;
use crate::replica::live_indexes::IndexRequest;
use crate::replica::reader::{ReadError, Reader};
use crate::server::commit_queue::CommitReceiver;
use crate::views::pace::Pace;
use crate::views::rows::Rows;

/// Steps of SQLite's machine that one statement of the live path may take: about a
/// millisecond. What takes more goes to a hydration (rule 6).
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
    pub authenticator: Authenticator,
    /// Open connections of all groups, and those that have not joined one yet.
    pub connections: Rc<Connections>,
    /// Connections that were initialised, for the checks that are repeated.
    pub live: RefCell<HashMap<ConnectionId, Weak<Session>>>,
    /// Mutations on their way to the app, by group.
    pub pushes: Rc<Pushes>,
    /// Results that the app may forget, by group.
    pub clean_ups: RefCell<HashMap<Rc<str>, CleanUps>>,
    /// Commits to come.
    pub commits: Rc<CommitReceiver>,
    /// Threads that read whole views.
    pub reading_threads: ReadingThreads,
    /// By reading: what has it go on once the core has taken what it reported.
    pub readings: RefCell<HashMap<ReadingId, Sender<()>>>,
    /// Where sockets are read into; borrowed only within a poll.
    pub scratch: RefCell<Vec<u8>>,
    /// What is written down.
    pub records: RecordWriter,
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
    pub index_requests: Sender<IndexRequest>,
    host: Rc<ServerHost>,
    limits: Limits,
    /// Of its tasks, which have it for as long as they run; of nobody before the replica can be read.
    serving: RefCell<Weak<Serving>>,
    ready: (Sender<()>, Receiver<()>),
    stopping: (Sender<()>, Receiver<()>),
    next_connection: Cell<u64>,
    started: Instant,
    cpu_clock: CpuClock,
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
    pub index_requests: Sender<IndexRequest>,
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
        let records = RecordWriter::new(mode, directory, cores, parts.completed);
        let (commits, pushes, started) = (Rc::new(parts.commits), Rc::<Pushes>::default(), now());
        let limits = Limits::of(std::thread::available_parallelism().map_or(1, usize::from), cores);
        let send_buffer = SendBuffer::new(Rc::new(ServerSockets::new(started)), limits.outboxes);
        let host = ServerHost {
            config: parts.config.clone(),
            started,
            commits: commits.clone(),
            budget: parts.budget.clone(),
            cores,
            pushes: pushes.clone(),
            slice: Cell::new(started),
        };
        let warnings = Rc::new(Warnings::new(parts.index));
        Rc::new(Core {
            index: parts.index,
            supervisor: parts.supervisor,
            caller: Caller::new(parts.config.app.clone()),
            answers: RefCell::default(),
            authenticator: Authenticator::new(parts.config.clone(), warnings.clone()),
            warnings,
            config: parts.config,
            metrics: parts.metrics,
            status: parts.status,
            peers: parts.peers,
            connections: Rc::new(Connections::new(Rc::new(send_buffer))),
            live: RefCell::default(),
            pushes,
            clean_ups: RefCell::default(),
            commits,
            reading_threads: ReadingThreads::new(parts.index),
            readings: RefCell::default(),
            scratch: RefCell::new(vec![0; SCRATCH]),
            records,
            budget: parts.budget,
            inbound: Rc::default(),
            most_connections: parts.most_connections,
            handshakes: Rc::default(),
            analyses: Cell::new(0),
            recovered: Cell::new(Some(parts.recovered)),
            index_requests: parts.index_requests,
            host: Rc::new(host),
            limits,
            serving: RefCell::default(),
            ready: bounded(1),
            stopping: bounded(1),
            next_connection: Cell::new(1),
            started,
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
        let mut shared =
            Shared::new(rows, reader, version, start.epoch, start.catalogue.clone(), self.limits.groups);
        shared.clock_zero = self.clock_zero();
        let mut syncer = Syncer::new(shared, &self.config.app.shard_schema());
        if let Some(rule) = self.config.purging {
            syncer.purge_by(rule);
        }
        let slow_after = self.config.log.slow_hydrate.as_secs_f64() * 1000.0;
        let parts = state::Parts {
            index: self.index,
            syncer,
            connections: self.connections.clone(),
            host: self.host.clone(),
            metrics: self.metrics.clone(),
            limits: self.limits,
            slow_after,
        };
        let serving = Serving::new(self.clone(), ViewSyncer::new(parts));
        self.restore(&serving, start.replica_version).await;
        let name = LogName { replica: start.replica_version, epoch: start.epoch, core: self.index };
        record_writer::start(&serving, name);
        *self.serving.borrow_mut() = Rc::downgrade(&serving);
        // Closing the channel lets everybody pass who waits, now and later.
        self.ready.0.close();
        let part = |what, part: Pin<Box<dyn Future<Output = ()>>>| self.supervisor.spawn(what, part);
        part("what a core goes on with", Box::pin(driver::run(serving.clone())));
        part("commits", Box::pin(driver::commits(serving.clone())));
        part("a core's clock", Box::pin(rounds::tick(serving.clone())));
        part("pongs", Box::pin(rounds::pongs(self.clone())));
        part("checks that are repeated", Box::pin(super::maintenance::run(serving)));
        Ok(())
    }

    /// Brings back what was written down before the process started.
    async fn restore(&self, serving: &Serving, replica: StateVersion) {
        let Some(recovered) = self.recovered.take() else { return };
        let restoration = serving.with(|s| Restoration::new(recovered, replica, &mut s.shared));
        let Some(mut restoration) = restoration else {
            crate::warn!(
                core = self.index;
                "the records of client views are of a later replica than this one: clients start anew"
            );
            return;
        };
        let (mut pace, now) = (self.pace("restoring groups"), self.clock());
        while serving.with(|s| restoration.step(s, now)) {
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

    /// The core as one that serves. `None`: the replica cannot be read yet, or everything is about to end.
    pub fn serving(&self) -> Option<Rc<Serving>> {
        self.serving.borrow().upgrade()
    }

    /// Waits until the replica can be read. `None`: everything is about to end.
    pub async fn until_ready(&self) -> Option<Rc<Serving>> {
        let _ = self.ready.1.recv().await;
        self.serving()
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
