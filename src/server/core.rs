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
use super::pace::{CorePace, CpuClock};
use super::questions::AppCalls;
use super::reading_threads::ReadingThreads;
use super::record_files;
use super::record_writer::{self, Completed, RecordWriter};
use super::serving::Serving;
use super::sockets::ServerSockets;
use super::status::Status;
use super::supervise::Supervisor;
use super::warnings::Warnings;
use super::{driver, rounds};
use crate::auth::upkeep::Intervals;
use crate::backend::call::Caller;
use crate::config::Config;
use crate::core::admission::Arrived;
use crate::core::connections::Connections;
use crate::core::effect::ReadingId;
use crate::core::entrance::Entrance;
use crate::core::limits::Limits;
use crate::core::send_buffer::SendBuffer;
use crate::core::session::{Session, Sessions};
use crate::core::settings::Settings;
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
use crate::protocol::connect::ConnectRequest;
use crate::protocol::error::ProtocolError;
use crate::replica::events::ReplicaReady;
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
    Start(ReplicaReady),
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
    /// Verifies tokens.
    pub authenticator: Authenticator,
    /// Those who were let in.
    pub entrance: Rc<Entrance>,
    /// Calls of the app under way.
    pub app_calls: AppCalls,
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
    /// Requests of connections that are being read.
    pub handshakes: Rc<Handshakes>,
    /// Analyses of queries that are under way.
    pub analyses: Cell<usize>,
    /// What was written down before the process started.
    recovered: Cell<Option<Recovered>>,
    /// To core 0: indexes that queries would read by.
    pub index_requests: Sender<IndexRequest>,
    /// Of its tasks, which have it for as long as they run; of nobody before the replica can be read.
    serving: RefCell<Weak<Serving>>,
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

/// What the operator has said that a core decides by.
fn settings(config: &Config) -> Settings {
    let auth = &config.auth;
    Settings {
        has_queries: !config.query.urls.is_empty(),
        has_mutations: !config.mutate.urls.is_empty(),
        checks: Intervals::new(auth.revalidate_interval, auth.retransform_interval),
        slow_after: config.log.slow_hydrate.as_secs_f64() * 1000.0,
    }
}

impl Core {
    /// A core that waits for the replica.
    pub fn new(parts: Parts) -> Rc<Core> {
        let directory = record_files::directory(&parts.config.replica_file);
        let mode = parts.config.record_mode;
        let cores = parts.peers.len();
        let records = RecordWriter::new(mode, directory, cores, parts.completed);
        let (commits, started) = (Rc::new(parts.commits), now());
        let warnings = Rc::new(Warnings::new(parts.index));
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let limits = Limits { connections: parts.most_connections, ..Limits::of(processors, cores) };
        let send_buffer = SendBuffer::new(Rc::new(ServerSockets::new(started)), limits.outboxes);
        let host = ServerHost {
            config: parts.config.clone(),
            started,
            commits: commits.clone(),
            budget: parts.budget.clone(),
            cores,
            warnings: warnings.clone(),
            slice: Cell::new(started),
        };
        let entrance = Entrance {
            connections: Rc::new(Connections::new(Rc::new(send_buffer))),
            sessions: Sessions::default(),
            settings: settings(&parts.config),
            limits: Rc::new(Cell::new(limits)),
            host: Rc::new(host),
            metrics: parts.metrics.clone(),
            inbound: Rc::default(),
        };
        Rc::new(Core {
            index: parts.index,
            supervisor: parts.supervisor,
            caller: Caller::new(parts.config.app.clone()),
            authenticator: Authenticator::new(parts.config.clone(), warnings.clone()),
            warnings,
            config: parts.config,
            metrics: parts.metrics,
            status: parts.status,
            peers: parts.peers,
            entrance: Rc::new(entrance),
            app_calls: AppCalls::default(),
            commits,
            reading_threads: ReadingThreads::new(parts.index),
            readings: RefCell::default(),
            scratch: RefCell::new(vec![0; SCRATCH]),
            records,
            budget: parts.budget,
            handshakes: Rc::default(),
            analyses: Cell::new(0),
            recovered: Cell::new(Some(parts.recovered)),
            index_requests: parts.index_requests,
            serving: RefCell::default(),
            stopping: bounded(1),
            next_connection: Cell::new(1),
            started,
            cpu_clock: CpuClock::of_this_thread(),
        })
    }

    /// Opens the replica and begins to serve.
    pub async fn start(self: &Rc<Self>, start: ReplicaReady) -> Result<(), ReadError> {
        let mut reader = Reader::open(&self.replica_path())?;
        reader.limit(LIVE_BUDGET)?;
        reader.keep_pages()?;
        reader.keep_plans()?;
        let reader = Rc::new(reader);
        let version = reader.begin()?;
        let rows = Rc::new(RefCell::new(Rows::default()));
        let mut shared = Shared::new(
            rows,
            reader,
            version,
            start.epoch,
            start.catalogue.clone(),
            self.entrance.limits.get().groups,
        );
        shared.clock_zero = self.clock_zero();
        let mut syncer = Syncer::new(shared, &self.config.app.shard_schema());
        if let Some(rule) = self.config.purging {
            syncer.purge_by(rule);
        }
        let parts = state::Parts { index: self.index, syncer, entrance: self.entrance.clone() };
        let serving = Serving::new(self.clone(), ViewSyncer::new(parts));
        self.restore(&serving, start.replica_version).await;
        let name = LogName { replica: start.replica_version, epoch: start.epoch, core: self.index };
        record_writer::start(&serving, name);
        *self.serving.borrow_mut() = Rc::downgrade(&serving);
        serving.open();
        let part = |what, part: Pin<Box<dyn Future<Output = ()>>>| self.supervisor.spawn(what, part);
        part("what a core goes on with", Box::pin(driver::run(serving.clone())));
        part("commits", Box::pin(driver::commits(serving.clone())));
        part("a core's clock", Box::pin(rounds::tick(serving)));
        part("pongs", Box::pin(rounds::pongs(self.clone())));
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

    /// Why somebody is not let in, if that can be said before its token is judged.
    pub fn refusal(&self, request: &ConnectRequest) -> Option<ProtocolError> {
        match self.serving() {
            Some(serving) => serving.refusal(request),
            None => self.entrance.refusal(request, None),
        }
    }

    /// Lets somebody in, or says why not.
    pub fn admit(&self, arrived: Arrived) -> Option<Rc<Session>> {
        match self.serving() {
            Some(serving) => serving.admit(arrived),
            None => self.entrance.admit(arrived, None),
        }
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
