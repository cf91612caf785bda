//! What an operator has said that a core decides by.

use crate::auth::upkeep::Intervals;

/// Settings of a core.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// The app has an endpoint that transforms queries.
    pub has_queries: bool,
    /// The app has an endpoint that takes mutations.
    pub has_mutations: bool,
    /// When the checks of connections are repeated.
    pub checks: Intervals,
    /// Milliseconds after which a hydration is worth a line in the log.
    pub slow_after: f64,
}
