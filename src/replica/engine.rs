//! A running replica: its threads, the source that it follows, and what connects both.
//!
//! The engine knows nothing of where changes come from: connecting, decoding and asking are the source's
//! ([`ChangeSource`]); writing, syncing, keeping the log short, handing out commits and making indexes are its own.

use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::{self, Either};
use kelvin_io::channel::{Receiver, Sender};
use kelvin_io::executor;

use super::error::Error;
use super::events::{Events, ReplicaReady};
use super::feed::{Feed, FillFeed, WriterGone};
use super::file;
use super::gauges::Gauges;
use super::metadata::Metadata;
use super::source::{ChangeSource, Ended};
use super::tasks::Tasks;
use super::threads::Threads;
use super::verdict::{EXIT_CONFIGURATION, End, Failure, Verdict};
use super::wal::{self, Limits};
use super::work::Work;
use super::writer::{self, Output};
use crate::model::logging::Level;

/// Pause before the first new attempt to connect; doubles up to the longest.
pub const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// Longest pause between attempts.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// A connection that lived this long makes the next pause short again.
const STABLE: Duration = Duration::from_secs(10);

/// What an engine is told.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Path of the replica.
    pub file: PathBuf,
    /// Have a replica that cannot follow synced anew, instead of halting.
    pub auto_reset: bool,
    /// Sizes of the replica's log.
    pub log_limits: Limits,
    /// Most bytes of a row ([`super::oversize`]).
    pub row_limit: usize,
}

/// A replica that can be read and written.
pub struct Engine {
    settings: Settings,
    events: Rc<dyn Events>,
    gauges: Arc<Gauges>,
    threads: Threads,
}

impl Engine {
    /// Starts the threads of a replica, and tells that it can be read. `epoch` is that of this start.
    pub async fn start(
        settings: Settings,
        events: Rc<dyn Events>,
        gauges: Arc<Gauges>,
        metadata: &Metadata,
        epoch: u64,
    ) -> Result<Engine, Error> {
        let (path, of_upstream) = (settings.file.clone(), metadata.catalogue.clone());
        let with_live_indexes = move || file::with_live_indexes(&path, &of_upstream);
        let catalogue = Arc::new(executor::blocking(with_live_indexes).await?);
        let start = writer::WriterParts {
            catalogue: catalogue.clone(),
            upstream: Arc::new(metadata.catalogue.clone()),
            version: metadata.state_version,
            position: metadata.position,
            row_limit: settings.row_limit,
        };
        let (path, numbers, commits) = (settings.file.clone(), gauges.clone(), events.commits());
        let threads = executor::blocking(move || Threads::start(&path, start, &numbers, commits)).await?;
        events.ready(ReplicaReady {
            catalogue,
            version: metadata.state_version,
            replica_version: metadata.replica_version,
            epoch,
        });
        Ok(Engine { settings, events, gauges, threads })
    }

    /// Follows a source until `stop` gets a message (or is closed), or something else ends it. The threads have ended
    /// then.
    pub async fn follow(self, source: impl ChangeSource, stop: Receiver<()>) -> End {
        let tasks = self.begin(Rc::new(source));
        let verdict = match future::select(std::pin::pin!(stop.recv()), std::pin::pin!(tasks.verdict())).await
        {
            Either::Left(_) => Verdict::Stopped,
            Either::Right((verdict, _)) => verdict,
        };
        tasks.end().await;
        let threads = self.threads;
        executor::blocking(move || threads.stop()).await;
        conclude(verdict, &self.settings, &*self.events).await
    }

    /// Each task runs until it has a verdict.
    fn begin(&self, source: Rc<impl ChangeSource>) -> Tasks {
        let mut tasks = Tasks::new();
        let failed = |e| Verdict::Failed(Failure::Replica(e));
        let queue = self.threads.writer.queue.clone();
        let (feed, durable_grew) = Feed::new(queue.clone(), self.gauges.clone());
        let (events, output) = (self.events.clone(), self.threads.writer.output.clone());
        tasks.begin("what the writer says", async move { failed(hand_out(&*events, &output).await) });
        let events = self.events.clone();
        tasks.begin("index requests", async move { failed(pass_index_requests_on(&*events, &queue).await) });
        let synced = self.threads.synced.clone();
        tasks.begin("what was synced", async move { failed(watch_syncs(&synced, &durable_grew).await) });
        let keeper = wal::keep_short(
            self.threads.checkpointer.clone(),
            self.gauges.clone(),
            self.events.clone(),
            self.settings.log_limits,
        );
        tasks.begin("keeping the log short", async move { failed(keeper.await) });
        let watched = source.clone();
        let fill = FillFeed::new(self.threads.writer.queue.clone());
        tasks.begin("the watch over upstream", async move { watched.watch(fill).await });
        let events = self.events.clone();
        tasks.begin("the stream", async move { stream_for_ever(&*source, &feed, &*events).await });
        tasks
    }
}

/// Passes on what the writer says, until it fails.
async fn hand_out(events: &dyn Events, output: &Receiver<Output>) -> Error {
    loop {
        match output.recv().await {
            Ok(Output::Indexed(catalogue)) => events.indexed(catalogue),
            Ok(Output::Failed(e)) => return e,
            Err(_) => return Error::ThreadGone(writer::THREAD),
        }
    }
}

/// Hands the writer what indexes are asked for, until it is gone.
async fn pass_index_requests_on(events: &dyn Events, queue: &Sender<Work>) -> Error {
    let index_requests = events.index_requests();
    // When nobody can ask any more the cores are gone, and this node is about to stop.
    while let Ok(index_request) = index_requests.recv().await {
        if queue.send(Work::Index(index_request)).await.is_err() {
            return Error::ThreadGone(writer::THREAD);
        }
    }
    std::future::pending().await
}

/// Lets the source know of every sync, until one fails.
async fn watch_syncs(synced: &Receiver<Result<(), Error>>, durable_grew: &Sender<()>) -> Error {
    loop {
        match synced.recv().await {
            Ok(Ok(())) => {
                // Full: the source is about to look.
                let _ = durable_grew.try_send(());
            }
            Ok(Err(e)) => return e,
            Err(_) => return Error::ThreadGone("replica-sync"),
        }
    }
}

/// Streams, and connects again whenever the connection is lost.
async fn stream_for_ever(source: &impl ChangeSource, feed: &Feed, events: &dyn Events) -> Verdict {
    let mut pause = FIRST_PAUSE;
    loop {
        let started = Instant::now();
        let reached = match feed.settle().await {
            Ok(reached) => reached,
            // It reports why by itself.
            Err(WriterGone) => return Verdict::Failed(Failure::Replica(Error::ThreadGone(writer::THREAD))),
        };
        let ended = source.stream(reached, feed).await;
        feed.disconnected().await;
        let lost = match ended {
            Ended::Lost(why) => why,
            Ended::ForGood(verdict) => return verdict,
        };
        if started.elapsed() >= STABLE {
            pause = FIRST_PAUSE;
        }
        events.log(
            Level::Warn,
            "the replication stream was lost; connecting again",
            &[("error", lost), ("pauseMs", pause.as_millis().to_string())],
        );
        executor::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// A replica that is damaged is removed: nothing can be noted in it, and no later start would get any further with it.
async fn make_anew_damaged(error: &Error, settings: &Settings, events: &dyn Events) -> End {
    let reason = format!("the replica is damaged: {error}");
    let path = settings.file.clone();
    if let Err(error) = executor::blocking(move || file::remove(&path)).await {
        return Failure::Replica(error).into();
    }
    let fields = [("file", settings.file.display().to_string()), ("error", error.to_string())];
    events.log(
        Level::Error,
        "the replica is damaged; it is removed and made anew. Look at the disk",
        &fields,
    );
    End::Resync(reason)
}

/// Draws the consequence; remembers in the file that it must be made anew.
async fn conclude(verdict: Verdict, settings: &Settings, events: &dyn Events) -> End {
    let reason = match verdict {
        Verdict::Stopped => return End::Stopped,
        Verdict::Failed(Failure::Replica(error)) if error.is_corruption() && settings.auto_reset => {
            return make_anew_damaged(&error, settings, events).await;
        }
        Verdict::Failed(failure) => return failure.into(),
        Verdict::CannotFollow(reason) => reason,
    };
    if !settings.auto_reset {
        let file = settings.file.display();
        return End::Failed {
            message: format!(
                "the replica cannot follow upstream: {reason}. ZERO_AUTO_RESET is off; set it to true, or \
                 remove {file} and restart, to make a new replica"
            ),
            exit_code: EXIT_CONFIGURATION,
        };
    }
    let (path, text) = (settings.file.clone(), reason.clone());
    if let Err(e) = executor::blocking(move || file::mark_for_resync(&path, &text)).await {
        return Failure::Replica(e).into();
    }
    events.log(
        Level::Warn,
        "the replica cannot follow upstream; it will be synced anew",
        &[("reason", reason.clone())],
    );
    End::Resync(reason)
}
