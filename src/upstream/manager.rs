//! The replication manager: connects, checks, syncs or resumes, streams, reconnects.
//!
//! [`run`] runs on one executor until it is told to stop or cannot go on. Everything that
//! blocks (SQLite, the disk) is on the replica's threads; everything that the rest of the
//! server must know goes through [`Events`].

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::{self, Either};
use kelvin_io::channel::Receiver;
use kelvin_io::executor;
use kelvin_io::postgres::Target;

use super::copy::Format;
use super::error::Error;
use super::session;
use super::shard::Shard;
use super::start::{self, Ready};
use super::wal::Limits;
use crate::model::catalogue::Catalogue;
use crate::model::version::StateVersion;
use crate::replica::gauges::Gauges;
use crate::replica::live_indexes::IndexRequest;
use crate::replica::writer::Commits;

/// Exit code for what an operator must change, and for Postgres being away at start.
pub const EXIT_CONFIGURATION: i32 = 14;

/// Exit code for a replica that cannot be written.
pub const EXIT_REPLICA: i32 = 255;

/// What the manager is told.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The upstream database.
    pub target: Target,
    /// `ZERO_APP_ID`.
    pub app_id: String,
    /// Shard number.
    pub shard: u32,
    /// Publications of the user; empty: one of the whole schema `public` is made.
    pub publications: Vec<String>,
    /// Path of the replica.
    pub replica_file: PathBuf,
    /// Connections that copy tables in an initial sync.
    pub copy_workers: usize,
    /// How their rows come.
    pub copy_format: Format,
    /// Sync anew when the replica cannot follow, instead of halting.
    pub auto_reset: bool,
    /// How long to retry when Postgres is away at the start.
    pub connect_timeout: Duration,
    /// Create slots that fail over (Postgres 17).
    pub failover: bool,
    /// Longest silence of the stream; `None`: twice the server's `wal_sender_timeout`.
    pub inbound_timeout: Option<Duration>,
    /// Time between two heartbeats in upstream's log; `None`: none are written.
    pub heartbeat_interval: Option<Duration>,
    /// Sizes of the replica's log.
    pub log_limits: Limits,
    /// Names this process in the upstream database.
    pub task_id: String,
}

/// Importance of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Something failed for good.
    Error,
    /// Something needs attention.
    Warn,
    /// Something happened that happens rarely.
    Info,
    /// For the curious.
    Debug,
}

/// What the manager tells, on its own executor except for commits. Implementations must not block.
pub trait Events {
    /// What is being done until [`Events::ready`], for health endpoints.
    fn progress(&self, text: &str);
    /// A log line.
    fn log(&self, level: Level, message: &str, fields: &[(&str, String)]);
    /// Numbers that can be read at any time from now on; first of all, and once.
    fn gauges(&self, gauges: Arc<Gauges>);
    /// The replica can be read. Once per [`run`], before the first commit.
    fn ready(&self, start: Start);
    /// What takes commits once readers can see them: in order, without gaps from [`Start::version`]
    /// on, on the writer's thread. Asked for once per [`run`].
    fn commits(&self) -> Commits;
    /// The replica has one more index: this is its catalogue now. The rows are the same.
    fn indexed(&self, catalogue: Arc<Catalogue>);
    /// Where indexes are asked for. Asked for once per [`run`].
    fn index_requests(&self) -> Receiver<IndexRequest>;
    /// Asks every reader of the replica to end its read transaction and begin a new one;
    /// answers `true` when all have, `false` if one cannot now. May be dropped half way.
    fn readers_rebegin(&self) -> Pin<Box<dyn Future<Output = bool>>>;
}

/// The replica as it is when reading may begin.
#[derive(Debug, Clone)]
pub struct Start {
    /// Its tables.
    pub catalogue: Arc<Catalogue>,
    /// Its state.
    pub version: StateVersion,
    /// State at its initial sync; names its lineage.
    pub replica_version: StateVersion,
    /// Grows with every start of any process of the shard (rule 18).
    pub epoch: u64,
}

/// Why [`run`] returned. All its threads have ended then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// It was told to, or another process has taken over.
    Stopped,
    /// The replica cannot follow upstream any more: call [`run`] again, which syncs anew.
    Resync(String),
    /// It cannot go on, and what must change.
    Failed {
        /// For the log.
        message: String,
        /// For the process.
        exit_code: i32,
    },
}

impl End {
    pub(super) fn failed(error: &Error) -> End {
        let exit_code = match error {
            Error::Replica(_) | Error::TaskGone(_) => EXIT_REPLICA,
            _ => EXIT_CONFIGURATION,
        };
        End::Failed { message: error.to_string(), exit_code }
    }
}

/// Replicates until `stop` gets a message (or is closed), or nothing more can be done.
pub async fn run(settings: Settings, events: Rc<dyn Events>, stop: Receiver<()>) -> End {
    let end = replicate(settings, events, stop).await;
    kelvin_io::postgres::until_closed().await;
    end
}

async fn replicate(settings: Settings, events: Rc<dyn Events>, stop: Receiver<()>) -> End {
    let shard = match Shard::new(&settings.app_id, settings.shard, &settings.publications) {
        Ok(shard) => Rc::new(shard),
        Err(e) => return End::failed(&e),
    };
    let settings = Rc::new(settings);
    let gauges = Arc::new(Gauges::default());
    events.gauges(gauges.clone());
    let ready = {
        let starting = std::pin::pin!(begin(&settings, &shard, &events, &gauges));
        match future::select(std::pin::pin!(stop.recv()), starting).await {
            Either::Left(_) => return End::Stopped,
            Either::Right((ready, _)) => ready,
        }
    };
    let ready = match ready {
        Ok(ready) => ready,
        Err(end) => return end,
    };
    session::run(settings, shard, events, gauges, ready, stop).await
}

/// Pause before the first new attempt to connect; doubles up to the longest.
pub(super) const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Longest pause between attempts.
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Prepares the replica; tries again while Postgres is away, for the time that is set.
async fn begin(
    settings: &Rc<Settings>,
    shard: &Rc<Shard>,
    events: &Rc<dyn Events>,
    gauges: &Gauges,
) -> Result<Ready, End> {
    let started = Instant::now();
    let mut pause = FIRST_PAUSE;
    loop {
        let error = match start::run(settings, shard, events, gauges).await {
            Ok(ready) => return Ok(ready),
            Err(start::Failure::Halted(message)) => {
                return Err(End::Failed { message, exit_code: EXIT_CONFIGURATION });
            }
            Err(start::Failure::Error(error)) => error,
        };
        if !error.is_transient() {
            return Err(End::failed(&error));
        }
        if started.elapsed() + pause > settings.connect_timeout {
            let message = format!(
                "the upstream database could not be reached for {:?}: {error}. Check ZERO_UPSTREAM_DB and \
                 that Postgres runs",
                settings.connect_timeout
            );
            return Err(End::Failed { message, exit_code: EXIT_CONFIGURATION });
        }
        events.progress(&format!("waiting for the upstream database: {error}"));
        events.log(
            Level::Warn,
            "the upstream database is not available; trying again",
            &[("error", error.to_string())],
        );
        executor::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}
