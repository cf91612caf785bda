//! What a view costs: counted where it happens, for whoever asks why a core is busy.

use std::collections::BTreeMap;

use super::time_digest::TimeDigest;
use crate::model::reason::Reason;

/// Sums over the life of a view.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cost {
    /// Batches that touched it.
    pub batches: u64,
    /// Rows that were looked at.
    pub looked_at: u64,
    /// Rows that came.
    pub entered: u64,
    /// Rows that went.
    pub left: u64,
    /// Rows that changed and stayed.
    pub edited: u64,
    /// Time of the core, in nanoseconds. Given to it: nothing here reads a clock.
    pub nanoseconds: u64,
    /// The same, batch by batch.
    pub updates: TimeDigest,
    /// How often it was read from the beginning, the first time included.
    pub readings: u64,
    /// How long that took, in nanoseconds, on threads beside the core and on it.
    pub reading_nanoseconds: u64,
    /// The last one alone.
    pub last_reading: Option<u64>,
    /// Why it had to be read anew, and how often.
    pub fallbacks: BTreeMap<Reason, u64>,
}
