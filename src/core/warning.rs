//! What an operator is warned of, now and then, however often clients cause it.

/// What is warned of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Warning {
    /// The query endpoint gives no answer that can be used.
    Query,
    /// The mutate endpoint does not.
    Mutate,
    /// Results of mutations could not be cleaned up.
    CleanUp,
    /// A token came that nothing can judge.
    Token,
    /// Queries or mutations came for which no endpoint is set.
    NoEndpoint,
    /// A query could not be read.
    Hydration,
    /// A query took long to be read for the first time.
    Slow,
    /// The core has as many connections as it takes.
    Connections,
    /// A socket could not be accepted, or not be given to its core.
    Sockets,
}
