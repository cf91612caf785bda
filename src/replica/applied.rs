//! What it took to bring a commit into the replica, for metrics.

use std::time::{Duration, Instant};

/// How a [`Commit`](crate::model::commit::Commit) was applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Applied {
    /// Upstream transactions that it consists of: several when the writer was behind.
    pub transactions: u64,
    /// Changed rows, each as often as it was changed. Truncated tables count nothing.
    pub rows: u64,
    /// From the beginning of SQLite's transaction until its COMMIT had returned.
    pub took: Duration,
    /// When the end of the first of its upstream transactions was received; `None`: it did not come from
    /// a stream.
    pub arrived: Option<Instant>,
}
