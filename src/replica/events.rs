//! What replication tells the rest of the server, and asks of it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use kelvin_io::channel::Receiver;

use super::gauges::Gauges;
use super::live_indexes::IndexRequest;
use super::writer::Commits;
use crate::model::catalogue::Catalogue;
use crate::model::logging::Level;
use crate::model::version::StateVersion;

/// Called on the executor of the engine, except for commits. Implementations must not block.
pub trait Events {
    /// What is being done until [`Events::ready`], for health endpoints.
    fn progress(&self, text: &str);
    /// A log line.
    fn log(&self, level: Level, message: &str, fields: &[(&str, String)]);
    /// Numbers that can be read at any time from now on; first of all, and once.
    fn gauges(&self, gauges: Arc<Gauges>);
    /// The replica can be read. Once per run, before the first commit.
    fn ready(&self, start: ReplicaReady);
    /// What takes commits once readers can see them: in order, without gaps from [`Start::version`]
    /// on, on the writer's thread. Asked for once per run.
    fn commits(&self) -> Commits;
    /// The replica has one more index: this is its catalogue now. The rows are the same.
    fn indexed(&self, catalogue: Arc<Catalogue>);
    /// Where indexes are asked for. Asked for once per run.
    fn index_requests(&self) -> Receiver<IndexRequest>;
    /// Asks every reader of the replica to end its read transaction and begin a new one;
    /// answers `true` when all have, `false` if one cannot now. May be dropped half way.
    fn readers_rebegin(&self) -> Pin<Box<dyn Future<Output = bool>>>;
}

/// The replica as it is when reading may begin.
#[derive(Debug, Clone)]
pub struct ReplicaReady {
    /// Its tables.
    pub catalogue: Arc<Catalogue>,
    /// Its state.
    pub version: StateVersion,
    /// State at its initial sync; names its lineage.
    pub replica_version: StateVersion,
    /// Grows with every start of any process of the shard (rule 18).
    pub epoch: u64,
}
