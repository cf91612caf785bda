//! A running replication: the replica's threads, the stream that is connected again and
//! again, and what watches over both.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::{self, Either};
use kelvin_io::channel::{Receiver, Sender, bounded};
use kelvin_io::executor;
use kelvin_io::postgres::{Walsender, connect};

use super::decode::{Decoder, Stop};
use super::error::{Doing, Error};
use super::manager::{EXIT_CONFIGURATION, End, Events, FIRST_PAUSE, LONGEST_PAUSE, Level, Settings, Start};
use super::shard::Shard;
use super::start::{Ready, identify_system, slot_problem};
use super::stream::{Ended, Statuses, Stream, report, settle};
use super::tasks::{Tasks, Verdict};
use super::watch::{Difference, Finding, Watch, compare};
use super::{check, published, replicas, slot, wal};
use crate::model::catalogue::{Catalogue, quote};
use crate::model::version::StateVersion;
use crate::replica;
use crate::replica::checkpoint::{Checkpointer, Gate};
use crate::replica::durable::Syncer;
use crate::replica::file;
use crate::replica::gauges::Gauges;
use crate::replica::work::{Batch, Op};
use crate::replica::writer::{self, Commits, Output, Writer};

/// A connection that lived this long makes the next pause short again.
const STABLE: Duration = Duration::from_secs(10);

struct Session {
    settings: Rc<Settings>,
    shard: Rc<Shard>,
    events: Rc<dyn Events>,
    ready: Rc<Ready>,
    catalogue: Arc<Catalogue>,
    gauges: Arc<Gauges>,
    queue: Sender<Batch>,
    /// The status task of the present connection.
    statuses: Rc<std::cell::RefCell<Option<Statuses>>>,
    hints: Sender<()>,
    /// A connection of this run has streamed: a further one is a reconnect.
    has_streamed: Cell<bool>,
}

/// Replicates from a ready replica until the end.
pub async fn run(
    settings: Rc<Settings>,
    shard: Rc<Shard>,
    events: Rc<dyn Events>,
    gauges: Arc<Gauges>,
    ready: Ready,
    stop: Receiver<()>,
) -> End {
    let catalogue = Arc::new(ready.metadata.catalogue.clone());
    let indexed = match with_live_indexes(&settings, &catalogue).await {
        Ok(indexed) => indexed,
        Err(e) => return End::failed(&Error::Replica(e)),
    };
    let threads = match Threads::start(&settings, &ready, &indexed, &gauges, events.commits()).await {
        Ok(threads) => threads,
        Err(e) => return End::failed(&Error::Replica(e)),
    };
    events.ready(Start {
        catalogue: indexed,
        version: ready.metadata.state_version,
        replica_version: ready.metadata.replica_version,
        epoch: ready.epoch,
    });
    let (hints, hinted) = bounded(1);
    let session = Rc::new(Session {
        settings: settings.clone(),
        shard: shard.clone(),
        events: events.clone(),
        ready: Rc::new(ready),
        catalogue,
        gauges,
        queue: threads.writer.queue.clone(),
        statuses: Rc::default(),
        hints,
        has_streamed: Cell::new(false),
    });
    let tasks = session.clone().begin(&threads, hinted);
    let verdict = match future::select(std::pin::pin!(stop.recv()), std::pin::pin!(tasks.verdict())).await {
        Either::Left(_) => Verdict::Stopped,
        Either::Right((verdict, _)) => verdict,
    };
    tasks.end().await;
    drop(session);
    executor::blocking(move || threads.stop()).await;
    end(verdict, &settings, &events).await
}

/// The catalogue with the indexes that queries have asked for in earlier runs.
async fn with_live_indexes(
    settings: &Settings,
    catalogue: &Arc<Catalogue>,
) -> Result<Arc<Catalogue>, replica::Error> {
    let (path, catalogue) = (settings.replica_file.clone(), catalogue.clone());
    executor::blocking(move || file::with_live_indexes(&path, &catalogue)).await.map(Arc::new)
}

/// Draws the consequence; remembers in the file that it must be made anew.
async fn end(verdict: Verdict, settings: &Settings, events: &Rc<dyn Events>) -> End {
    match verdict {
        Verdict::Stopped => End::Stopped,
        Verdict::Failed(error) => End::failed(&error),
        Verdict::CannotFollow(reason) if settings.auto_reset => {
            let path = settings.replica_file.clone();
            let text = reason.clone();
            let marked = executor::blocking(move || file::mark_for_resync(&path, &text)).await;
            if let Err(e) = marked {
                return End::failed(&Error::Replica(e));
            }
            events.log(
                Level::Warn,
                "the replica cannot follow upstream; it will be synced anew",
                &[("reason", reason.clone())],
            );
            End::Resync(reason)
        }
        Verdict::CannotFollow(reason) => End::Failed {
            message: format!(
                "the replica cannot follow upstream: {reason}. ZERO_AUTO_RESET is off; set it to true, or \
                 remove {} and restart, to make a new replica",
                settings.replica_file.display()
            ),
            exit_code: EXIT_CONFIGURATION,
        },
    }
}

/// The replica's threads.
struct Threads {
    writer: Writer,
    syncer: Syncer,
    synced: Receiver<Result<(), replica::Error>>,
    checkpointer: Checkpointer,
}

impl Threads {
    async fn start(
        settings: &Settings,
        ready: &Ready,
        catalogue: &Arc<Catalogue>,
        gauges: &Arc<Gauges>,
        commits: Commits,
    ) -> Result<Threads, replica::Error> {
        let path = settings.replica_file.clone();
        let gauges = gauges.clone();
        let start = writer::Start {
            catalogue: catalogue.clone(),
            version: ready.metadata.state_version,
            position: ready.metadata.position,
        };
        executor::blocking(move || {
            let gate = Arc::new(Gate::default());
            let (notify, synced) = bounded(1);
            let syncer = Syncer::start(&path, gauges.clone(), notify)?;
            let writer = Writer::start(&path, start, gauges, gate.clone(), syncer.written(), commits)?;
            let checkpointer = Checkpointer::start(&path, gate)?;
            Ok(Threads { writer, syncer, synced, checkpointer })
        })
        .await
    }

    /// Ends all of them. Blocks.
    fn stop(self) {
        let Threads { writer, syncer, checkpointer, synced } = self;
        synced.close();
        // A held gate would only delay the writer.
        checkpointer.release();
        drop(checkpointer);
        writer.stop();
        syncer.stop();
    }
}

impl Session {
    fn begin(self: Rc<Self>, threads: &Threads, hinted: Receiver<()>) -> Tasks {
        let mut tasks = Tasks::new();
        let (session, output) = (self.clone(), threads.writer.output.clone());
        tasks.begin("what the writer says", async move {
            Verdict::Failed(Error::Replica(session.hand_out(&output).await))
        });
        let session = self.clone();
        tasks.begin("index requests", async move {
            Verdict::Failed(Error::Replica(session.pass_index_requests_on().await))
        });
        let (session, synced) = (self.clone(), threads.synced.clone());
        tasks.begin("what was synced", async move {
            Verdict::Failed(Error::Replica(session.watch_syncs(&synced).await))
        });
        let keeper = wal::keep_short(
            threads.checkpointer.clone(),
            self.gauges.clone(),
            self.events.clone(),
            self.settings.log_limits,
        );
        tasks.begin("keeping the log short", async move { Verdict::Failed(Error::Replica(keeper.await)) });
        let (session, watch) = (self.clone(), self.watch(hinted));
        tasks.begin("the watch over upstream", async move {
            match watch.run().await {
                Finding::SchemaChanged(what) => {
                    Verdict::CannotFollow(format!("the schema has changed: {what}"))
                }
                Finding::TakenOver => session.taken_over(None),
            }
        });
        tasks.begin("the stream", async move { self.stream_for_ever().await });
        tasks
    }

    fn watch(&self, hints: Receiver<()>) -> Watch {
        Watch {
            settings: self.settings.clone(),
            shard: self.shard.clone(),
            server: self.ready.upstream.server,
            catalogue: self.catalogue.clone(),
            slot: self.ready.metadata.slot.clone(),
            instance: self.ready.instance.clone(),
            gauges: self.gauges.clone(),
            events: self.events.clone(),
            hints,
        }
    }

    /// Hands the writer what indexes are asked for, until it is gone.
    async fn pass_index_requests_on(&self) -> replica::Error {
        let index_requests = self.events.index_requests();
        // When nobody can ask any more the cores are gone, and this node is about to stop.
        while let Ok(index_request) = index_requests.recv().await {
            let batch = Batch { ops: vec![Op::Index(index_request)], ..Batch::default() };
            if self.queue.send(batch).await.is_err() {
                return replica::Error::ThreadGone("replica-writer");
            }
        }
        std::future::pending().await
    }

    /// Passes on what the writer says, until it fails.
    async fn hand_out(&self, output: &Receiver<Output>) -> replica::Error {
        loop {
            match output.recv().await {
                Ok(Output::Indexed(catalogue)) => self.events.indexed(catalogue),
                Ok(Output::Failed(e)) => return e,
                Err(_) => return replica::Error::ThreadGone("replica-writer"),
            }
        }
    }

    /// Lets the status task know of every sync, until one fails.
    async fn watch_syncs(&self, synced: &Receiver<Result<(), replica::Error>>) -> replica::Error {
        loop {
            match synced.recv().await {
                Ok(Ok(())) => {
                    let statuses = self.statuses.borrow().clone();
                    if let Some(statuses) = statuses {
                        statuses.wake();
                    }
                }
                Ok(Err(e)) => return e,
                Err(_) => return replica::Error::ThreadGone("replica-sync"),
            }
        }
    }

    /// Streams, and connects again whenever the connection is lost.
    async fn stream_for_ever(&self) -> Verdict {
        let mut pause = FIRST_PAUSE;
        loop {
            let started = Instant::now();
            let lost = match self.stream_once().await {
                Ok(lost) => lost,
                Err(Obstructed::Verdict(verdict)) => return verdict,
                Err(Obstructed::Error(e)) => e.to_string(),
            };
            if started.elapsed() >= STABLE {
                pause = FIRST_PAUSE;
            }
            self.events.log(
                Level::Warn,
                "the replication stream was lost; connecting again",
                &[("error", lost), ("pauseMs", pause.as_millis().to_string())],
            );
            executor::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// One connection, from its start to its loss.
    async fn stream_once(&self) -> Result<String, Obstructed> {
        let Some(reached) = settle(&self.queue).await else {
            // The writer reports why by itself.
            return Err(Obstructed::Verdict(Verdict::Failed(Error::Replica(replica::Error::ThreadGone(
                "replica-writer",
            )))));
        };
        let timeout = self.check_before(reached.position).await?;
        let mut walsender = Walsender::connect(&self.settings.target, "zero-replicator")
            .await
            .map_err(|e| check::explain_walsender(e, &self.settings.target.user))?;
        if identify_system(&mut walsender).await? != self.ready.upstream.system_identifier {
            return Err(Obstructed::cannot_follow("the upstream database is another one".into()));
        }
        let (reader, writer) =
            walsender.start(&self.start_command(reached.resume_at())).await.map_err(refused)?;
        self.events.log(
            Level::Info,
            "streaming",
            &[("slot", self.ready.metadata.slot.clone()), ("from", reached.resume_at().to_lsn())],
        );
        if self.has_streamed.replace(true) {
            self.gauges.reconnected();
        }
        let (statuses, woken) = Statuses::new();
        *self.statuses.borrow_mut() = Some(statuses.clone());
        self.gauges.lag.connected(true, Instant::now());
        let reporting = report(writer, statuses.clone(), woken, self.gauges.clone(), timeout);
        let stream = Stream {
            reader,
            decoder: Decoder::new(self.catalogue.clone(), self.shard.message_prefix()),
            queue: self.queue.clone(),
            inbound_timeout: self.inbound_timeout(timeout),
            statuses,
            hints: self.hints.clone(),
            gauges: self.gauges.clone(),
        };
        let ended = match future::select(std::pin::pin!(stream.run()), std::pin::pin!(reporting)).await {
            Either::Left((ended, _)) => ended,
            Either::Right((e, _)) => Ended::Lost(e),
        };
        *self.statuses.borrow_mut() = None;
        self.gauges.lag.connected(false, Instant::now());
        self.judge(ended)
    }

    fn judge(&self, ended: Ended) -> Result<String, Obstructed> {
        match ended {
            Ended::Lost(e) => Ok(e.to_string()),
            Ended::Silent(limit) => Ok(format!("nothing was received for {limit:?}")),
            Ended::WriterGone => Ok("the writer has stopped".into()),
            Ended::Stopped(Stop::SchemaChanged(reason)) => {
                Err(Obstructed::cannot_follow(format!("the schema has changed: {reason}")))
            }
            Ended::Stopped(Stop::Protocol(what)) => Ok(what),
            Ended::Stopped(Stop::Value { column, source }) => {
                Err(Obstructed::Verdict(Verdict::Failed(Error::Value { column, source })))
            }
        }
    }

    /// Everything that could have changed while nobody was connected. Returns the
    /// server's `wal_sender_timeout`.
    async fn check_before(&self, position: StateVersion) -> Result<Duration, Obstructed> {
        let name = &self.ready.metadata.slot;
        let connection =
            connect(&self.settings.target, "zero-change-source-init").await.doing("connecting again")?;
        let client = &connection.client;
        match replicas::occupant(client, &self.shard, name).await? {
            Some(instance) if instance == self.ready.instance => {}
            other => return Err(Obstructed::Verdict(self.taken_over(other))),
        }
        let state = slot::state(client, name).await?;
        if let Some(problem) = slot_problem(name, position, state.as_ref()) {
            return Err(Obstructed::cannot_follow(problem));
        }
        // Our own last connection may not have noticed yet that we left it.
        slot::take_over(client, name).await?;
        let publications = self.shard.publications();
        let published = match published::read(client, &publications, self.ready.upstream.server.version).await
        {
            Err(Error::Setup(reason)) => return Err(Obstructed::cannot_follow(reason)),
            published => published?,
        };
        if let Difference::Rows(reason) = compare(&self.catalogue, &published) {
            return Err(Obstructed::cannot_follow(format!("the schema has changed: {reason}")));
        }
        let row = client
            .query_one("SELECT setting::int8 FROM pg_settings WHERE name = 'wal_sender_timeout'", &[])
            .await
            .doing("reading wal_sender_timeout")?;
        Ok(Duration::from_millis(row.get::<_, i64>(0).unsigned_abs()))
    }

    fn taken_over(&self, by: Option<String>) -> Verdict {
        self.events.log(
            Level::Warn,
            "another process has taken over; stopping",
            &[("slot", self.ready.metadata.slot.clone()), ("taskID", by.unwrap_or_default())],
        );
        Verdict::Stopped
    }

    fn inbound_timeout(&self, wal_sender_timeout: Duration) -> Option<Duration> {
        let limit = self.settings.inbound_timeout.unwrap_or(wal_sender_timeout * 2);
        (!limit.is_zero() && !wal_sender_timeout.is_zero()).then_some(limit)
    }

    fn start_command(&self, from: StateVersion) -> String {
        // Quoted twice: as identifiers in a list, and the list as a literal. The names
        // hold no quotes (see `Shard::new`).
        let publications: Vec<String> = self.shard.publications().iter().map(|name| quote(name)).collect();
        format!(
            "START_REPLICATION SLOT {} LOGICAL {} (proto_version '1', publication_names '{}', messages 'true')",
            quote(&self.ready.metadata.slot),
            from.to_lsn(),
            publications.join(",")
        )
    }
}

/// Why there was no stream.
enum Obstructed {
    /// Try again.
    Error(Error),
    /// Do not.
    Verdict(Verdict),
}

impl Obstructed {
    fn cannot_follow(reason: String) -> Self {
        Obstructed::Verdict(Verdict::CannotFollow(reason))
    }
}

impl From<Error> for Obstructed {
    fn from(e: Error) -> Self {
        Obstructed::Error(e)
    }
}

fn refused(e: kelvin_io::postgres::Error) -> Obstructed {
    // Object not in prerequisite state: the slot was invalidated.
    if e.sqlstate() == Some("55000") {
        return Obstructed::cannot_follow(format!("the replication slot cannot be used any more: {e}"));
    }
    Obstructed::Error(Error::Postgres { doing: "starting to stream", source: e })
}
