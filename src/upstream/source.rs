//! Postgres as a source of changes: connects, checks that the replica can be continued, streams, and watches over
//! what else may end that.

use std::cell::RefCell;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{self, Either};
use kelvin_io::channel::{Receiver, Sender, bounded};
use kelvin_io::postgres::{Walsender, connect};

use super::decode::Decoder;
use super::error::{Doing, Error};
use super::filling::Filler;
use super::look::Looker;
use super::schema_change::{Difference, Looks, compare};
use super::settings::Settings;
use super::shard::Shard;
use super::start::{Ready, gone_back, identify_system, slot_problem};
use super::stop::Stop;
use super::stream::{self, Statuses, Stream, report};
use super::watch::{Finding, Watch};
use super::{check, replicas, slot};
use crate::model::catalogue::{Catalogue, quote};
use crate::model::logging::Level;
use crate::model::version::StateVersion;
use crate::replica::events::Events;
use crate::replica::feed::{Feed, FillFeed};
use crate::replica::gauges::Gauges;
use crate::replica::source::{ChangeSource, Ended};
use crate::replica::verdict::Verdict;
use crate::replica::work::Reached;

/// The replication slot of a replica, through one connection after another.
pub struct Postgres {
    settings: Rc<Settings>,
    shard: Rc<Shard>,
    events: Rc<dyn Events>,
    gauges: Arc<Gauges>,
    ready: Ready,
    /// What the tables are where the stream is, as upstream has them: without the indexes that only the replica has.
    catalogue: Rc<RefCell<Arc<Catalogue>>>,
    looker: Rc<Looker>,
    /// From the stream to the watch: the schema may have changed.
    hints: (Sender<()>, Receiver<()>),
}

impl ChangeSource for Postgres {
    async fn stream(&self, from: Reached, feed: &Feed) -> Ended {
        self.stream_once(from, feed).await.map_or_else(|obstructed| obstructed, judge)
    }

    async fn watch(&self, fill: FillFeed) -> Verdict {
        let filler = Filler {
            settings: self.settings.clone(),
            slot: self.ready.metadata.slot.clone(),
            catalogue: self.catalogue.clone(),
            looker: self.looker.clone(),
            events: self.events.clone(),
            gauges: self.gauges.clone(),
        };
        let watch = Watch {
            settings: self.settings.clone(),
            shard: self.shard.clone(),
            looker: self.looker.clone(),
            catalogue: self.catalogue.clone(),
            warnings: self.ready.warnings.clone(),
            slot: self.ready.metadata.slot.clone(),
            instance: self.ready.instance.clone(),
            gauges: self.gauges.clone(),
            events: self.events.clone(),
            hints: self.hints.1.clone(),
        };
        let found = match future::select(pin!(watch.run()), pin!(filler.run(&fill))).await {
            Either::Left((found, _)) => found,
            // The writer says why it ended.
            Either::Right(((), watching)) => watching.await,
        };
        match found {
            Finding::SchemaChanged(what) => Verdict::CannotFollow(format!("the schema has changed: {what}")),
            Finding::TakenOver => self.taken_over(None),
        }
    }
}

impl Postgres {
    /// The source of a replica that is ready to be followed.
    pub fn new(
        settings: Rc<Settings>,
        shard: Rc<Shard>,
        events: Rc<dyn Events>,
        gauges: Arc<Gauges>,
        ready: Ready,
    ) -> Postgres {
        let catalogue = Rc::new(RefCell::new(Arc::new(ready.metadata.catalogue.clone())));
        let (server, instance) = (ready.upstream.server, ready.instance.clone());
        let looker = Rc::new(Looker::new(settings.clone(), shard.clone(), server, instance));
        Postgres { settings, shard, events, gauges, ready, catalogue, looker, hints: bounded(1) }
    }

    /// Streams, if nothing is in the way, and returns how that ended.
    async fn stream_once(&self, from: Reached, feed: &Feed) -> Result<stream::Ended, Ended> {
        self.catalogue.borrow_mut().clone_from(&from.catalogue);
        let timeout = self.check_before(&from).await?;
        let mut walsender = Walsender::connect(&self.settings.target, "zero-replicator")
            .await
            .map_err(|e| check::explain_walsender(e, &self.settings.target.user))?;
        let identity = identify_system(&mut walsender).await?;
        if identity.system != self.ready.upstream.system_identifier {
            return Err(cannot_follow("the upstream database is another one".into()));
        }
        if let Some(reason) = gone_back(from.position, identity.position) {
            return Err(cannot_follow(reason));
        }
        let (reader, writer) =
            walsender.start(&self.start_command(from.resume_at())).await.map_err(refused)?;
        self.events.log(
            Level::Info,
            "streaming",
            &[("slot", self.ready.metadata.slot.clone()), ("from", from.resume_at().to_lsn())],
        );
        feed.connected();
        let (statuses, woken) = Statuses::new();
        let reporting = report(writer, statuses.clone(), woken, feed, self.gauges.clone(), timeout);
        let stream = Stream {
            reader,
            decoder: Decoder::new(
                from.catalogue.clone(),
                self.shard.message_prefix(),
                self.looker.looks.clone(),
            ),
            events: self.events.clone(),
            looker: self.looker.clone(),
            catalogue: self.catalogue.clone(),
            feed,
            inbound_timeout: self.inbound_timeout(timeout),
            statuses,
            hints: self.hints.0.clone(),
            gauges: self.gauges.clone(),
        };
        match future::select(pin!(stream.run()), pin!(reporting)).await {
            Either::Left((ended, _)) => Ok(ended),
            Either::Right((e, _)) => Ok(stream::Ended::Lost(e)),
        }
    }

    /// Everything that could have changed while nobody was connected. Returns the
    /// server's `wal_sender_timeout`.
    async fn check_before(&self, from: &Reached) -> Result<Duration, Ended> {
        let name = &self.ready.metadata.slot;
        let connection =
            connect(&self.settings.target, "zero-change-source-init").await.doing("connecting again")?;
        let client = &connection.client;
        match replicas::occupant(client, &self.shard, name).await? {
            Some(instance) if instance == self.ready.instance => {}
            other => return Err(Ended::ForGood(self.taken_over(other))),
        }
        let state = slot::state(client, name).await?;
        if let Some(problem) = slot_problem(name, from.position, state.as_ref()) {
            return Err(cannot_follow(problem));
        }
        // Our own last connection may not have noticed yet that we left it.
        slot::take_over(client, name).await?;
        let published = match self.looker.published(client).await {
            Err(Error::Setup(reason)) => return Err(cannot_follow(reason)),
            published => published?,
        };
        if let Difference::Rows(reason) = compare(&from.catalogue, &published, &Looks::default()) {
            return Err(cannot_follow(format!("the schema has changed: {reason}")));
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

impl From<Error> for Ended {
    fn from(e: Error) -> Self {
        Ended::Lost(e.to_string())
    }
}

fn cannot_follow(reason: String) -> Ended {
    Ended::ForGood(Verdict::CannotFollow(reason))
}

/// SQLSTATE of a stream that names a publication which is not there, at its place in the log.
const UNDEFINED_OBJECT: &str = "42704";

/// Why the connection was lost, or what follows from its end.
fn judge(ended: stream::Ended) -> Ended {
    match ended {
        stream::Ended::Lost(e) if e.sqlstate() == Some(UNDEFINED_OBJECT) => cannot_follow(format!(
            "a publication was not there when something was written, which was not sent therefore: {e}"
        )),
        stream::Ended::Lost(e) => Ended::Lost(e.to_string()),
        stream::Ended::Silent(limit) => Ended::Lost(format!("nothing was received for {limit:?}")),
        stream::Ended::Unseen(reason, error) => {
            Ended::Lost(format!("the schema has changed ({reason}) and could not be looked at: {error}"))
        }
        stream::Ended::WriterGone => Ended::Lost("the writer has stopped".into()),
        stream::Ended::Stopped(Stop::Protocol(what)) => Ended::Lost(what),
        stream::Ended::Stopped(Stop::SchemaChanged(reason) | Stop::Look(reason)) => {
            cannot_follow(format!("the schema has changed: {reason}"))
        }
        stream::Ended::Stopped(Stop::Value { column, source }) => {
            Ended::ForGood(Verdict::Failed(Error::Value { column, source }.into()))
        }
    }
}

fn refused(e: kelvin_io::postgres::Error) -> Ended {
    // Object not in prerequisite state: the slot was invalidated.
    if e.sqlstate() == Some("55000") {
        return cannot_follow(format!("the replication slot cannot be used any more: {e}"));
    }
    Error::Postgres { doing: "starting to stream", source: e }.into()
}
