//! Looks at upstream from a second connection: whether the schema still is the catalogue's,
//! whether the slot holds back too much, whether old slots can be dropped, and whether
//! another process has replaced this one.

use std::cell::RefCell;
use std::collections::HashSet;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kelvin_io::channel::Receiver;
use kelvin_io::executor;
use kelvin_io::postgres::{Connection, connect};

use super::error::{Doing, Error};
use super::glance::Glance;
use super::heartbeat::Heartbeat;
use super::look::{self, Looker};
use super::published::{Published, fix_identities};
use super::schedule::{LOOK_AT_LEAST, Schedule};
use super::schema_change::{Difference, compare};
use super::settings::Settings;
use super::shard::Shard;
use super::{replicas, slot, triggers};
use crate::model::catalogue::Catalogue;
use crate::model::logging::Level;
use crate::replica::events::Events;
use crate::replica::gauges::Gauges;

/// How often slots of older replicas are tried again.
const CLEANUP: Duration = Duration::from_secs(30);

/// How long the stream has time to bring the marker of a look: it may have hours to catch up, or the connection was lost
/// on which it came.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// WAL that the slot keeps, in bytes, above which the operator is warned.
const RETAINED_WARNING: i64 = 1 << 30;

/// What the watch found; replication does not go on after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// Rows can no longer follow, for this reason.
    SchemaChanged(String),
    /// Another process streams for the shard, on this slot or on one of its own.
    TakenOver,
}

/// What the watch needs to know.
pub struct Watch {
    /// Whom to connect to.
    pub settings: Rc<Settings>,
    /// Names.
    pub shard: Rc<Shard>,
    /// Looks at the schema.
    pub looker: Rc<Looker>,
    /// What the tables are where the stream is.
    pub catalogue: Rc<RefCell<Arc<Catalogue>>>,
    /// What the start has warned of.
    pub warnings: Vec<String>,
    /// The slot in use.
    pub slot: String,
    /// Who we are in the row that claims the slot.
    pub instance: String,
    /// Where numbers go.
    pub gauges: Arc<Gauges>,
    /// Where to report.
    pub events: Rc<dyn Events>,
    /// Asks for a look at once.
    pub hints: Receiver<()>,
}

impl Watch {
    /// Looks again and again, until something ends replication.
    pub async fn run(self) -> Finding {
        let mut connection: Option<Connection> = None;
        let mut cleanup = Cleanup { due: Instant::now(), done: false };
        let mut told = Told { warnings: self.warnings.iter().cloned().collect(), ..Told::default() };
        let interval = self.settings.heartbeat_interval;
        let mut heartbeat = Heartbeat::new(&self.shard.message_prefix(), interval, Instant::now());
        let mut schedule = Schedule::new(Instant::now());
        let mut glance = Glance::new();
        glance.set_needed(true, Instant::now());
        loop {
            let due = [Some(schedule.due()), heartbeat.due(), glance.due()].into_iter().flatten().min();
            let wait = due.unwrap_or_else(Instant::now).saturating_duration_since(Instant::now());
            if executor::timeout(wait, self.hints.recv()).await.is_some() {
                schedule.prompt(Instant::now());
            }
            let now = Instant::now();
            let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
            let found = if is_due(Some(schedule.due())) {
                told.found = false;
                let look = self.look(&mut connection, &mut cleanup, &mut told, &mut glance);
                let found =
                    executor::timeout(look::LIMIT, look).await.unwrap_or_else(|| late("a look at it"));
                schedule.looked(now, Instant::now(), told.found);
                found
            } else if is_due(heartbeat.due()) {
                self.beat(&mut connection, &mut heartbeat).await
            } else if is_due(glance.due()) {
                self.glance(&mut connection, &mut glance, &mut schedule).await
            } else {
                Ok(None)
            };
            match found {
                Ok(None) => {}
                Ok(Some(finding)) => return finding,
                // Postgres is away, or refuses; the stream deals with that.
                Err(e) => {
                    connection = None;
                    self.events.log(Level::Debug, "could not look at upstream", &[("error", e.to_string())]);
                }
            }
        }
    }

    async fn connected<'c>(&self, connection: &'c mut Option<Connection>) -> Result<&'c Connection, Error> {
        match connection {
            Some(connection) => Ok(connection),
            None => {
                let new = connect(&self.settings.target, "zero-replication-monitor").await;
                Ok(connection.insert(new.doing("connecting to watch upstream")?))
            }
        }
    }

    async fn beat(
        &self,
        connection: &mut Option<Connection>,
        heartbeat: &mut Heartbeat,
    ) -> Result<Option<Finding>, Error> {
        let client = &self.connected(connection).await?.client;
        let beat = heartbeat.beat(client, &self.gauges.lag, &*self.events);
        match executor::timeout(LOOK_AT_LEAST, beat).await {
            Some(result) => result.map(|()| None),
            None => late("a heartbeat"),
        }
    }

    async fn glance(
        &self,
        connection: &mut Option<Connection>,
        glance: &mut Glance,
        schedule: &mut Schedule,
    ) -> Result<Option<Finding>, Error> {
        let client = &self.connected(connection).await?.client;
        match executor::timeout(LOOK_AT_LEAST, glance.is_other(client)).await {
            Some(Ok(true)) => schedule.prompt(Instant::now()),
            Some(Ok(false)) => {}
            Some(Err(e)) => return Err(e),
            None => return late("a glance at it"),
        }
        Ok(None)
    }

    async fn look(
        &self,
        connection: &mut Option<Connection>,
        cleanup: &mut Cleanup,
        told: &mut Told,
        glance: &mut Glance,
    ) -> Result<Option<Finding>, Error> {
        let client = &self.connected(connection).await?.client;
        // Somebody may have dropped or disabled them.
        glance.set_needed(!triggers::are_in_place(client, &self.shard).await?, Instant::now());
        // One that has synced a replica of its own removes the claims of older ones.
        if replicas::occupant(client, &self.shard, &self.slot).await?.as_deref() != Some(&*self.instance) {
            return Ok(Some(Finding::TakenOver));
        }
        if let Some(finding) = self.look_at_schema(client, told).await? {
            return Ok(Some(finding));
        }
        if let Some(state) = slot::state(client, &self.slot).await? {
            self.gauges.set_retained_bytes(state.retained.max(0) as u64);
            self.gauges.lag.upstream_is_at(state.current);
            self.warn_of_retention(state.retained, told);
        }
        if !cleanup.done && Instant::now() >= cleanup.due {
            cleanup.due = Instant::now() + CLEANUP;
            cleanup.done = !self.clean_up(client).await?;
        }
        Ok(None)
    }

    /// Has the stream follow what has changed, though no row says so.
    async fn look_at_schema(
        &self,
        client: &tokio_postgres::Client,
        told: &mut Told,
    ) -> Result<Option<Finding>, Error> {
        let before = self.catalogue.borrow().clone();
        let published = match self.looker.published(client).await {
            Ok(published) => published,
            Err(Error::Setup(reason)) => return Ok(Some(Finding::SchemaChanged(reason))),
            Err(e) => return Err(e),
        };
        self.warn_of(&published, told);
        let tried = |oid: u32| told.identities.contains(&oid);
        for (oid, warning) in fix_identities(client, &published, tried).await {
            told.identities.insert(oid);
            self.events.log(Level::Warn, &warning, &[]);
        }
        // What the stream has followed meanwhile may be newer than what was read.
        if !Arc::ptr_eq(&before, &self.catalogue.borrow()) {
            return Ok(None);
        }
        let difference = compare(&before, &published, &self.looker.looks.borrow());
        told.found = !matches!(difference, Difference::None);
        match difference {
            Difference::None => {}
            Difference::Rows(reason) => return Ok(Some(Finding::SchemaChanged(reason))),
            // Its marker is on the way, if it was not lost.
            Difference::Schema(_)
                if self.looker.looks.borrow().is_ahead()
                    && told.looked.is_some_and(|at| at.elapsed() < LOOK_AGAIN) => {}
            Difference::Schema(_) => {
                told.looked = Some(Instant::now());
                self.looker.look(client).await?;
            }
        }
        Ok(None)
    }

    /// Says what an operator should know of tables that have come.
    fn warn_of(&self, published: &Published, told: &mut Told) {
        for warning in published.warnings.iter().filter(|warning| !told.warnings.contains(*warning)) {
            self.events.log(Level::Warn, warning, &[]);
        }
        told.warnings = published.warnings.iter().cloned().collect();
    }

    fn warn_of_retention(&self, retained: i64, told: &mut Told) {
        // Again only when it has doubled.
        let limit = if told.retained == 0 { RETAINED_WARNING } else { told.retained * 2 };
        if retained < RETAINED_WARNING {
            told.retained = 0;
        } else if retained >= limit {
            told.retained = retained;
            self.events.log(
                Level::Warn,
                "the replication slot makes Postgres keep much WAL: replication is behind, or a transaction \
                 is open for long",
                &[("slot", self.slot.clone()), ("bytes", retained.to_string())],
            );
        }
    }

    /// Drops claims and slots of replicas that this one replaced. `true`: one of them is
    /// still in use.
    async fn clean_up(&self, client: &tokio_postgres::Client) -> Result<bool, Error> {
        slot::lock(client, &self.shard).await?;
        let cleaned = async {
            replicas::remove_older(client, &self.shard, &self.slot).await?;
            slot::drop_unclaimed(client, &self.shard).await
        };
        let cleaned = cleaned.await;
        slot::unlock(client, &self.shard).await?;
        let (dropped, in_use) = cleaned?;
        for name in dropped {
            self.events.log(Level::Info, "dropped an unused replication slot", &[("slot", name)]);
        }
        Ok(in_use)
    }
}

struct Cleanup {
    due: Instant,
    done: bool,
}

#[derive(Default)]
struct Told {
    /// What the last look at the schema warned of.
    warnings: HashSet<String>,
    /// Tables whose replica identity could not be set.
    identities: HashSet<u32>,
    /// When a change of the schema was last looked at for the stream.
    looked: Option<Instant>,
    /// The last look saw what was not known.
    found: bool,
    retained: i64,
}

fn late(what: &str) -> Result<Option<Finding>, Error> {
    Err(Error::Setup(format!("upstream did not answer {what} in time")))
}
