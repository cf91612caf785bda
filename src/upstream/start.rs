//! The start: checks upstream, then continues the replica that is there or makes a new one.

use std::rc::Rc;

use kelvin_io::executor;
use kelvin_io::postgres::{Walsender, connect};
use tokio_postgres::Client;

use super::error::{Doing, Error};
use super::initial_sync::{self, Upstream};
use super::published::{self, Published};
use super::schema_change::{Difference, Looks, compare};
use super::settings::Settings;
use super::shard::{self, Shard};
use super::slot::SlotState;
use super::triggers::{self, Announced};
use super::{check, replicas, slot};
use crate::model::logging::Level;
use crate::model::version::StateVersion;
use crate::replica::events::Events;
use crate::replica::file::{self, FoundFile};
use crate::replica::gauges::Gauges;
use crate::replica::metadata::Metadata;

const WITHOUT_TRIGGERS: &str = "not all event triggers are in place, so changes of the schema are found by looking: within milliseconds in a small \
     database, a second in others. To have them announced instead, let ZERO_UPSTREAM_DB be a role that may make event \
     triggers (a superuser, or the provider's administrator) at one start; until then roles without rights on the \
     shard's schema may be refused to change tables, if a zero-cache has left triggers";

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
    /// What an operator should know of what is published.
    pub warnings: Vec<String>,
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
    if let Announced::No(reason) = triggers::install(&mut connection.client, shard).await? {
        events.log(Level::Info, WITHOUT_TRIGGERS, &[("reason", reason)]);
    }
    let epoch = shard::next_epoch(&connection.client, shard).await?;
    events.progress("asking the upstream server who it is");
    let identity = identify(settings).await?;
    let upstream = Upstream { server, system_identifier: identity.system };
    events.progress("reading the publications");
    let published = published::read(&connection.client, &shard.publications(), server.version).await?;
    for (_, warning) in published::fix_identities(&connection.client, &published, |_| false).await {
        events.log(Level::Warn, &warning, &[]);
    }
    events.progress("looking at the replica's file");
    let warnings = published.warnings;
    let existing = look_at_file(settings, events).await?;
    let decided = match existing {
        Existing::None => Err("there is no replica yet".to_owned()),
        Existing::Unusable(reason) => Err(reason),
        Existing::Replica(metadata) => {
            let published =
                published::read(&connection.client, &shard.publications(), server.version).await?;
            let resumable = resumable(&connection.client, shard, &upstream, &metadata, &published).await?;
            let gone_back = gone_back(metadata.position, identity.position)
                .map(|reason| Obstacle { reason, by_choice: false });
            match resumable.and(gone_back.map_or(Ok(()), Err)) {
                Ok(()) => Ok(metadata),
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
        Ok(metadata) => *metadata,
        Err(reason) => {
            events.log(Level::Info, "starting an initial sync", &[("reason", reason)]);
            initial_sync::run(settings, shard, &upstream, epoch, events, gauges).await?
        }
    };
    let instance = format!("{}-{epoch}", settings.task_id);
    slot::take_over(&connection.client, &metadata.slot).await?;
    replicas::occupy(&connection.client, shard, &metadata.slot, &instance).await?;
    Ok(Ready { metadata, upstream, epoch, instance, warnings })
}

async fn identify(settings: &Settings) -> Result<Identity, Error> {
    let mut walsender = Walsender::connect(&settings.target, "zero-change-source-init")
        .await
        .map_err(|e| check::explain_walsender(e, &settings.target.user))?;
    identify_system(&mut walsender).await
}

/// The server behind a replication session.
pub struct Identity {
    /// `system_identifier`: the same in all copies of a cluster.
    pub system: String,
    /// End of its log.
    pub position: StateVersion,
}

/// Asks a server who it is.
pub async fn identify_system(walsender: &mut Walsender) -> Result<Identity, Error> {
    let doing = "asking the upstream server who it is";
    let rows = walsender.query("IDENTIFY_SYSTEM").await.doing(doing)?;
    let field = |at: usize| rows.first().and_then(|row| row.get(at).cloned().flatten());
    match (field(0), field(2).as_deref().and_then(StateVersion::from_lsn)) {
        (Some(system), Some(position)) => Ok(Identity { system, position }),
        _ => Err(Error::Postgres {
            doing,
            source: kelvin_io::postgres::Error::Protocol("no system identifier or position".into()),
        }),
    }
}

/// Why a server at this position cannot continue a replica, if it is behind it: it was restored from before, or a
/// standby was promoted that had not everything yet. What it writes next takes the positions of what is lost.
pub fn gone_back(replica: StateVersion, upstream: StateVersion) -> Option<String> {
    (upstream < replica).then(|| {
        format!(
            "the upstream database has gone back: it is at {} and the replica at {}. It was restored from a backup, or \
             a standby took over that had not received everything",
            upstream.to_lsn(),
            replica.to_lsn()
        )
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
    match compare(&metadata.catalogue, published, &Looks::default()) {
        Difference::Rows(reason) => obstacle(format!("the schema has changed: {reason}"), false),
        // The stream follows the rest.
        Difference::None | Difference::Schema(_) => Ok(Ok(())),
    }
}

/// Why the slot cannot continue a replica at this position.
fn slot_obstacle(metadata: &Metadata, state: Option<&SlotState>) -> Option<String> {
    slot_problem(&metadata.slot, metadata.position, state)
}

/// Why a slot cannot continue from a position: it is missing or lost, or it has been
/// moved past it (trap 3: Postgres would silently skip what is between).
pub fn slot_problem(name: &str, position: StateVersion, state: Option<&SlotState>) -> Option<String> {
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
