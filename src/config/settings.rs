//! The validated settings: plain data, shared by all cores through an `Arc`.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value as Json;

use super::app::App;
use super::endpoint::Endpoint;
use super::postgres::PostgresUrl;
use crate::auth::key::Key;
use crate::auth::secret::Secret;
use crate::model::logging::{Format, Level};
use crate::model::purging::Purging;

/// What a change that clients hear of waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordMode {
    /// Nothing: nothing is recorded.
    Off,
    /// Its record survives the process.
    Written,
    /// Its record survives the machine.
    Synced,
}

/// All settings. `Debug` shows no secrets.
#[derive(Clone, Debug)]
pub struct Config {
    /// The database that holds the data.
    pub upstream: Upstream,
    /// The app, its publications and its shard.
    pub app: App,
    /// The database for client view records.
    pub cvr: Pool,
    /// What of client view records is kept in files.
    pub record_mode: RecordMode,
    /// When groups that nobody uses are forgotten; `None`: never.
    pub purging: Option<Purging>,
    /// The database for the change log.
    pub change: Pool,
    /// Memory that the process may use, in bytes; `None`: a part of what it can have.
    pub memory_budget: Option<usize>,
    /// The SQLite replica; relative to the working directory.
    pub replica_file: PathBuf,
    /// TCP port for clients and health. 0 lets the system choose.
    pub port: u16,
    /// The stream of changes between nodes.
    pub change_streamer: ChangeStreamer,
    /// Number of cores that serve clients; 0 on a replication manager.
    pub num_sync_workers: usize,
    /// The app's endpoint that transforms named queries.
    pub query: Endpoint,
    /// The app's endpoint that runs custom mutators.
    pub mutate: Endpoint,
    /// Whether CRUD mutations are executed.
    pub enable_crud_mutations: bool,
    /// Checks of tokens.
    pub auth: Auth,
    /// Password of the administrator; without it the endpoints that need it answer 403 in production.
    pub admin_password: Option<Secret>,
    /// `NODE_ENV=development`.
    pub development: bool,
    /// Client sockets.
    pub websocket: WebSocket,
    /// The first copy of the data.
    pub initial_sync: InitialSync,
    /// Whether a replica that cannot go on is made anew at the next start.
    pub auto_reset: bool,
    /// Whether replication waits for the first client.
    pub lazy_startup: bool,
    /// Time between probes of the replication lag; `None` when off.
    pub lag_report_interval: Option<Duration>,
    /// Whether the side from which a query with an EXISTS is read is chosen by cost.
    pub query_planner: bool,
    /// Longest uninterrupted work of a core for one client group; at least 2 ms.
    pub yield_threshold: Duration,
    /// Silence of `/keepalive` after which the server drains; `None` when off.
    pub keepalive_timeout: Option<Duration>,
    /// What is logged, and how.
    pub log: Log,
    /// Name of this instance.
    pub task_id: String,
    /// Where to ask for the task id on AWS ECS; only when the user did not set one.
    pub ecs_metadata_uri: Option<String>,
    /// Version for logs and the inspector.
    pub server_version: String,
    /// Schema and permissions of a deployment older than 0.15 (`docs/spec/config-ops.md` §4).
    pub legacy_schema: Option<LegacySchema>,
}

/// What this process does among several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Replicates from Postgres and serves clients.
    SingleNode,
    /// Replicates from Postgres and serves other nodes only.
    ReplicationManager,
    /// Follows a replication manager and serves clients.
    ViewSyncer,
}

impl Config {
    /// The role that the settings ask for (`docs/spec/config-ops.md` §7.2).
    pub fn role(&self) -> Role {
        match (self.change_streamer.uri.is_some() || self.change_streamer.discover, self.num_sync_workers) {
            (true, _) => Role::ViewSyncer,
            (false, 0) => Role::ReplicationManager,
            (false, _) => Role::SingleNode,
        }
    }
}

/// The database that holds the data, and how it is followed.
#[derive(Clone, Debug)]
pub struct Upstream {
    /// Where it is.
    pub db: PostgresUrl,
    /// Largest number of connections for CRUD mutations, over all cores; at least 1.
    pub max_conns: usize,
    /// How long to keep trying to reach it at start; zero tries once.
    pub connect_timeout: Duration,
    /// Whether slots are made with `failover = true`.
    pub slot_failover: bool,
    /// Silence of the replication stream after which it is reconnected; `None`: twice the server's
    /// `wal_sender_timeout`.
    pub stream_inbound_timeout: Option<Duration>,
}

/// A database that is used through a pool.
#[derive(Clone, Debug)]
pub struct Pool {
    /// Where it is; the upstream database when not set.
    pub db: PostgresUrl,
    /// Largest number of connections, over all cores; at least 1.
    pub max_conns: usize,
}

/// The stream of changes between nodes.
#[derive(Clone, Debug)]
pub struct ChangeStreamer {
    /// TCP port on which the stream is served. 0 lets the system choose.
    pub port: u16,
    /// Address of the replication manager that this node follows.
    pub uri: Option<url::Url>,
    /// Whether that address is read from the change database.
    pub discover: bool,
    /// How long a new replication manager waits before it takes over.
    pub startup_delay: Duration,
}

/// Checks of tokens.
#[derive(Clone, Debug)]
pub struct Auth {
    /// What JSON web tokens are verified with; `None`: tokens are not looked into.
    pub key: Option<JwtKey>,
    /// The `iss` claim that tokens must have.
    pub issuer: Option<String>,
    /// The `aud` claim that tokens must have.
    pub audience: Option<String>,
    /// Time between checks of each connection; `None` when off.
    pub revalidate_interval: Option<Duration>,
    /// Time between transformations of a client group's queries; `None` when off.
    pub retransform_interval: Option<Duration>,
}

/// What JSON web tokens are verified with.
#[derive(Clone, Debug)]
pub enum JwtKey {
    /// A symmetric key.
    Secret(Secret),
    /// One JWK.
    Jwk(Box<Key>),
    /// A URL of a set of JWKs.
    JwksUrl(url::Url),
}

/// Client sockets.
#[derive(Clone, Debug)]
pub struct WebSocket {
    /// Largest message of a client in bytes.
    pub max_payload_bytes: usize,
    /// `None`: permessage-deflate is not offered.
    pub compression: Option<Compression>,
}

/// How messages to clients are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compression {
    /// Messages with fewer bytes are sent as they are.
    pub threshold_bytes: usize,
    /// Level of zlib, 0 to 9; `None`: zlib's own choice.
    pub level: Option<u8>,
}

impl Compression {
    /// Reads the options of Node's `ws`; unknown ones are ignored.
    pub(super) fn parse(text: &str) -> Result<Compression, String> {
        let json: Json = serde_json::from_str(text).map_err(|error| format!("is not JSON ({error})"))?;
        let Json::Object(options) = json else { return Err("is not a JSON object".to_owned()) };
        let mut read = Compression::default();
        if let Some(threshold) = options.get("threshold") {
            let bytes = threshold.as_u64().ok_or("has a threshold that is not a number of bytes")?;
            read.threshold_bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        }
        if let Some(level) = options.get("zlibDeflateOptions").and_then(|zlib| zlib.get("level")) {
            // -1 is zlib's way of saying "your own choice".
            read.level = match level.as_i64() {
                Some(-1) => None,
                Some(level @ 0..=9) => Some(level as u8),
                _ => return Err("has a zlibDeflateOptions.level that is not 0 to 9".to_owned()),
            };
        }
        Ok(read)
    }
}

impl Default for Compression {
    /// As Node's `ws`.
    fn default() -> Compression {
        Compression { threshold_bytes: 1024, level: None }
    }
}

/// The first copy of the data.
#[derive(Clone, Copy, Debug)]
pub struct InitialSync {
    /// Connections that copy in parallel; at least 1.
    pub table_copy_workers: usize,
    /// In text format instead of binary.
    pub text_copy: bool,
}

/// What is logged, and how.
#[derive(Clone, Copy, Debug)]
pub struct Log {
    /// Least severe level.
    pub level: Level,
    /// Text or JSON.
    pub format: Format,
    /// Reads of the replica that take longer are warned of.
    pub slow_row: Duration,
    /// First evaluations of a query that take longer are warned of.
    pub slow_hydrate: Duration,
}

/// Schema and permissions of a deployment older than 0.15.
#[derive(Clone, Debug)]
pub enum LegacySchema {
    /// The text of `ZERO_SCHEMA_JSON`.
    Json(Secret),
    /// The path in `ZERO_SCHEMA_FILE`.
    File(PathBuf),
}
