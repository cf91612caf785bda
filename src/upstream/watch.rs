//! Looks at upstream from a second connection: whether the schema still is the catalogue's,
//! whether the slot holds back too much, whether old slots can be dropped, and whether
//! another process has replaced this one.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kelvin_io::channel::Receiver;
use kelvin_io::executor;
use kelvin_io::postgres::{Connection, connect};

use super::check::Server;
use super::error::{Doing, Error};
use super::heartbeat::Heartbeat;
use super::published::{self, Published};
use super::settings::Settings;
use super::shard::Shard;
use super::{replicas, slot};
use crate::model::catalogue::{Catalogue, Table};
use crate::model::logging::Level;
use crate::replica::events::Events;
use crate::replica::gauges::Gauges;

/// How often upstream is looked at without a reason.
const LOOK: Duration = Duration::from_secs(10);

/// Longest time a look may take: a catalogue of ten thousands of tables is read in some seconds. A connection
/// that has taken longer is given up, as it may be dead without a word.
const LOOK_LIMIT: Duration = Duration::from_secs(60);

/// How often slots of older replicas are tried again.
const CLEANUP: Duration = Duration::from_secs(30);

/// WAL that the slot keeps, in bytes, above which the operator is warned.
const RETAINED_WARNING: i64 = 1 << 30;

/// How the published schema differs from the catalogue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    /// Not at all.
    None,
    /// In indexes that do not identify rows: the rows are the same, and this is the catalogue now.
    Indexes(Catalogue),
    /// In something that rows depend on.
    Rows(String),
}

/// Compares the catalogue with what is published now.
pub fn compare(catalogue: &Catalogue, published: &Published) -> Difference {
    let Some(now) = published.following(catalogue) else {
        return Difference::Rows("more tables came and went than one replica can have".into());
    };
    if *catalogue == now {
        return Difference::None;
    }
    for table in catalogue.tables() {
        let Some(new) = now.find(table.id) else {
            return Difference::Rows(format!("table {} is not published any more", table.name));
        };
        if let Some(what) = difference(table, new) {
            return Difference::Rows(what);
        }
    }
    if let Some(new) = now.tables().find(|table| catalogue.find(table.id).is_none()) {
        return Difference::Rows(format!("table {} was added to the publications", new.name));
    }
    Difference::Indexes(now)
}

fn difference(old: &Table, new: &Table) -> Option<String> {
    if old.name != new.name {
        return Some(format!("table {} was renamed to {}", old.name, new.name));
    }
    if old.columns.len() != new.columns.len() {
        let (before, after) = (old.columns.len(), new.columns.len());
        return Some(format!("table {} has {after} columns instead of {before}", old.name));
    }
    if let Some((was, is)) = old.columns.iter().zip(&new.columns).find(|(was, is)| was != is) {
        return Some(format!(
            "column {}.{} ({}) has become {} ({}{})",
            old.name,
            was.name,
            was.upstream_type,
            is.name,
            is.upstream_type,
            if is.not_null { ", not null" } else { "" }
        ));
    }
    if old.row_key != new.row_key || old.candidate_keys != new.candidate_keys {
        return Some(format!("table {} has other keys", old.name));
    }
    None
}

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
    /// The server at the start.
    pub server: Server,
    /// What the replica holds.
    pub catalogue: Arc<Catalogue>,
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
        let mut told = Told::default();
        let interval = self.settings.heartbeat_interval;
        let mut heartbeat = Heartbeat::new(&self.shard.message_prefix(), interval, Instant::now());
        let mut look_due = Instant::now() + LOOK;
        loop {
            let due = heartbeat.due().map_or(look_due, |beat| beat.min(look_due));
            let wait = due.saturating_duration_since(Instant::now());
            let hinted = executor::timeout(wait, self.hints.recv()).await.is_some();
            let found = if hinted || Instant::now() >= look_due {
                look_due = Instant::now() + LOOK;
                let look = self.look(&mut connection, &mut cleanup, &mut told);
                let late = || Err(Error::Setup("upstream did not answer a look at it in time".into()));
                executor::timeout(LOOK_LIMIT, look).await.unwrap_or_else(late)
            } else {
                self.beat(&mut connection, &mut heartbeat).await
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
        match executor::timeout(LOOK, beat).await {
            Some(result) => result.map(|()| None),
            None => Err(Error::Setup("a heartbeat was not taken in time".into())),
        }
    }

    async fn look(
        &self,
        connection: &mut Option<Connection>,
        cleanup: &mut Cleanup,
        told: &mut Told,
    ) -> Result<Option<Finding>, Error> {
        let client = &self.connected(connection).await?.client;
        // One that has synced a replica of its own removes the claims of older ones.
        if replicas::occupant(client, &self.shard, &self.slot).await?.as_deref() != Some(&*self.instance) {
            return Ok(Some(Finding::TakenOver));
        }
        let published = match published::read(client, &self.shard.publications(), self.server.version).await {
            Ok(published) => published,
            Err(Error::Setup(reason)) => return Ok(Some(Finding::SchemaChanged(reason))),
            Err(e) => return Err(e),
        };
        match compare(&self.catalogue, &published) {
            Difference::None => {}
            Difference::Rows(reason) => return Ok(Some(Finding::SchemaChanged(reason))),
            Difference::Indexes(_) if told.indexes => {}
            Difference::Indexes(_) => {
                told.indexes = true;
                self.events.log(
                    Level::Info,
                    "indexes changed upstream; the replica follows at the next start",
                    &[],
                );
            }
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
    indexes: bool,
    retained: i64,
}
