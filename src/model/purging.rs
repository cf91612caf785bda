//! The setting of groups that nobody comes back to.

/// When groups are forgotten, and how many at a time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Purging {
    /// Time without a connection after which a group may go, in milliseconds.
    pub after: f64,
    /// Time between two purges while there is something to purge, in milliseconds.
    pub interval: f64,
    /// Groups of a first purge. While more become due than are purged, each takes so many more.
    pub batch: usize,
}
