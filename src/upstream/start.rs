//! The start: checks upstream, then continues the replica that is there or makes a new one.

use std::rc::Rc;

use kelvin_io::executor;
use kelvin_io::postgres::{Walsender, connect};
use tokio_postgres::Client;

use super::error::{Doing, Error};
use super::initial_sync::{self, Upstream};
use super::published::{self, Published};
use super::settings::Settings;
use super::shard::{self, Shard};
use super::slot::SlotState;
use super::watch::{Difference, compare};
use super::{check, replicas, slot};
use crate::model::logging::Level;
use crate::replica::events::Events;
use crate::replica::file::{self, FoundFile};
use crate::replica::gauges::Gauges;
use crate::replica::metadata::{self, Metadata};

/// A replica that can be followed, and how.
pub struct Ready {
    /// What is in the file.
    pub metadata: Metadata,
    /// The upstream database.
    pub upstream: Upstream,
    /// New with every start.
    pub epoch: u64,
    /// Recorded upstream as the one that streams.
    pub instance: String,
}

/// Why there is no replica to follow.
pub enum Failure {
    /// Something failed.
    Error(Error),
    /// A new sync is needed and not allowed.
    Halted(String),
}

impl From<Error> for Failure {
    fn from(e: Error) -> Self {
        Failure::Error(e)
    }
}

/// Makes the replica ready to be followed.
pub async fn run(
    settings: &Rc<Settings>,
    shard: &Rc<Shard>,
    events: &Rc<dyn Events>,
    gauges: &Gauges,
) -> Result<Ready, Failure> {
    events.progress("connecting to the upstream database");
    let mut connection = connect(&settings.target, "zero-change-source-init")
        .await
        .doing("connecting to the upstream database")?;
    let server = check::check(&connection.client, 0).await?;
    events.progress("preparing the upstream database");
    shard::setup(&mut connection.client, shard).await?;
    let epoch = shard::next_epoch(&connection.client, shard).await?;
    events.progress("asking the upstream server who it is");
    let system_identifier = identify(settings).await?;
    let upstream = Upstream { server, system_identifier };
    events.progress("reading the publications");
    let published = published::read(&connection.client, &shard.publications(), server.version).await?;
    for warning in published::fix_identities(&connection.client, &published).await {
        events.log(Level::Warn, &warning, &[]);
    }
    events.progress("looking at the replica's file");
    let existing = look_at_file(settings, events).await?;
    let decided = match existing {
        Existing::None => Err("there is no replica yet".to_owned()),
        Existing::Unusable(reason) => Err(reason),
        Existing::Replica(metadata) => {
            let published =
                published::read(&connection.client, &shard.publications(), server.version).await?;
            match resumable(&connection.client, shard, &upstream, &metadata, &published).await? {
                Ok(()) => Ok((metadata, published)),
                Err(Obstacle { reason, by_choice }) if settings.auto_reset || by_choice => Err(reason),
                Err(Obstacle { reason, .. }) => {
                    return Err(Failure::Halted(format!(
                        "the replica cannot be continued: {reason}. Set ZERO_AUTO_RESET=true, or remove {}, \
                         to make a new one",
                        settings.replica_file.display()
                    )));
                }
            }
        }
    };
    let metadata = match decided {
        Ok((metadata, published)) => follow_indexes(settings, *metadata, &published, epoch, events).await?,
        Err(reason) => {
            events.log(Level::Info, "starting an initial sync", &[("reason", reason)]);
            initial_sync::run(settings, shard, &upstream, epoch, events, gauges).await?
        }
    };
    let instance = format!("{}-{epoch}", settings.task_id);
    slot::take_over(&connection.client, &metadata.slot).await?;
    replicas::occupy(&connection.client, shard, &metadata.slot, &instance).await?;
    Ok(Ready { metadata, upstream, epoch, instance })
}

async fn identify(settings: &Settings) -> Result<String, Error> {
    let mut walsender = Walsender::connect(&settings.target, "zero-change-source-init")
        .await
        .map_err(|e| check::explain_walsender(e, &settings.target.user))?;
    identify_system(&mut walsender).await
}

/// `system_identifier` of the server behind a replication session.
pub async fn identify_system(walsender: &mut Walsender) -> Result<String, Error> {
    let doing = "asking the upstream server who it is";
    let rows = walsender.query("IDENTIFY_SYSTEM").await.doing(doing)?;
    rows.into_iter().next().and_then(|row| row.into_iter().next().flatten()).ok_or_else(|| Error::Postgres {
        doing,
        source: kelvin_io::postgres::Error::Protocol("no system identifier".into()),
    })
}

enum Existing {
    None,
    Unusable(String),
    Replica(Box<Metadata>),
}

async fn look_at_file(settings: &Settings, events: &Rc<dyn Events>) -> Result<Existing, Error> {
    let path = settings.replica_file.clone();
    match executor::blocking(move || file::inspect(&path)).await? {
        FoundFile::Nothing => Ok(Existing::None),
        FoundFile::Unusable(reason) => Ok(Existing::Unusable(reason)),
        FoundFile::Replica(metadata) => Ok(Existing::Replica(metadata)),
        FoundFile::Foreign => {
            let path = settings.replica_file.clone();
            let aside = executor::blocking(move || file::set_aside(&path)).await?;
            events.log(
                Level::Warn,
                "the file at ZERO_REPLICA_FILE is not a replica of Kelvin; it was renamed",
                &[
                    ("file", settings.replica_file.display().to_string()),
                    ("renamedTo", aside.display().to_string()),
                ],
            );
            Ok(Existing::None)
        }
    }
}

/// Why a replica cannot be continued.
pub struct Obstacle {
    /// For the log.
    pub reason: String,
    /// The operator asked for something else, so a new sync is what they want.
    pub by_choice: bool,
}

/// Whether the slot can continue the replica.
async fn resumable(
    client: &Client,
    shard: &Shard,
    upstream: &Upstream,
    metadata: &Metadata,
    published: &Published,
) -> Result<Result<(), Obstacle>, Error> {
    let state = slot::state(client, &metadata.slot).await?;
    let obstacle = |reason: String, by_choice| Ok(Err(Obstacle { reason, by_choice }));
    if metadata.shard != shard.schema() {
        return obstacle(format!("it belongs to {}, not to {}", metadata.shard, shard.schema()), true);
    }
    if metadata.publications != shard.publications() {
        let (was, is) = (&metadata.publications, shard.publications());
        return obstacle(format!("the publications are {is:?} instead of {was:?}"), true);
    }
    if metadata.system_identifier != upstream.system_identifier
        || metadata.database_oid != upstream.server.database_oid
    {
        return obstacle("the upstream database is another one".into(), false);
    }
    if let Some(reason) = slot_obstacle(metadata, state.as_ref()) {
        return obstacle(reason, false);
    }
    match compare(&metadata.catalogue, published) {
        Difference::Rows(reason) => obstacle(format!("the schema has changed: {reason}"), false),
        Difference::None | Difference::Indexes(_) => Ok(Ok(())),
    }
}

/// Why the slot cannot continue a replica at this position.
fn slot_obstacle(metadata: &Metadata, state: Option<&SlotState>) -> Option<String> {
    slot_problem(&metadata.slot, metadata.position, state)
}

/// Why a slot cannot continue from a position: it is missing or lost, or it has been
/// moved past it (trap 3: Postgres would silently skip what is between).
pub fn slot_problem(
    name: &str,
    position: crate::model::version::StateVersion,
    state: Option<&SlotState>,
) -> Option<String> {
    let Some(state) = state else {
        return Some(format!("replication slot {name} does not exist any more"));
    };
    if let Some(lost) = &state.lost {
        return Some(lost.clone());
    }
    (state.confirmed > position).then(|| {
        format!(
            "replication slot {name} was moved to {} while the replica is at {}: changes between are lost",
            state.confirmed.to_lsn(),
            position.to_lsn()
        )
    })
}

/// Gives the replica upstream's indexes, if they changed while nobody looked.
async fn follow_indexes(
    settings: &Settings,
    mut metadata: Metadata,
    published: &Published,
    epoch: u64,
    events: &Rc<dyn Events>,
) -> Result<Metadata, Error> {
    let Difference::Indexes(mut catalogue) = compare(&metadata.catalogue, published) else {
        return Ok(metadata);
    };
    events.progress("following changed indexes");
    catalogue.epoch = epoch;
    let path = settings.replica_file.clone();
    let (old, new) = (metadata.catalogue.clone(), catalogue.clone());
    executor::blocking(move || metadata::follow_indexes(&path, &old, &new)).await?;
    metadata.catalogue = catalogue;
    Ok(metadata)
}
