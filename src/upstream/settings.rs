//! What replication is told.

use std::path::PathBuf;
use std::time::Duration;

use kelvin_io::postgres::Target;

use super::copy::Format;
use crate::replica::wal::Limits;

/// Where changes come from, and what becomes of them.
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
    /// Most bytes of a row that the replica takes.
    pub row_limit: usize,
    /// Names this process in the upstream database.
    pub task_id: String,
}
