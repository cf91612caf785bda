//! Which limits were met, so that the tests can prove that what happens at each of them is tried.
//!
//! In builds without debug assertions nothing is noted, and nothing is paid.

/// A limit of the part that decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// Row keys of a journal.
    JournalKeys,
    /// Deltas of a journal.
    JournalDeltas,
    /// Rows that came, went and changed between two readings of a view.
    Difference,
    /// Parents of a key of a condition.
    Parents,
    /// Keys of a condition in a batch.
    DirtyKeys,
    /// Rows of a view to look at again.
    Candidates,
    /// Row keys of views that a group has left.
    LeftKeys,
    /// Removed queries of a group.
    RemovedQueries,
    /// Changes of mutation results of a group.
    ResultChanges,
    /// Queries that a client's record names.
    RememberedQueries,
    /// Groups without connections.
    IdleGroups,
    /// Bytes of encoded views.
    EncodedBytes,
    /// A view that is read as a whole to be sent.
    SmallView,
    /// Rows of a catch-up at once.
    CatchUpRows,
    /// Readings of a view that were overtaken.
    Overtaken,
    /// Views that joined while their group waits for others.
    Passed,
    /// Rows of one record of members.
    RecordRows,
    /// Bytes of a frame of the record log that is written in parts.
    RecordPart,
    /// Bytes of a frame of the record log that cannot be written.
    RecordFrame,
    /// Bytes of commits kept for hydrations.
    RecentBytes,
    /// Hydrations at a time.
    Hydrations,
    /// Large hydrations at a time.
    LargeHydrations,
    /// Batches by which a hydration tries to begin at the core's version.
    Begins,
    /// Encoded bytes after which a hydration is sent while it goes on.
    StreamFrom,
    /// Records that wait for the disk while a view could be read.
    RecordQueue,
    /// Records that wait for the disk while a file is filled.
    RecordFilling,
    /// Bytes that wait for a socket.
    OutboxBytes,
    /// Sockets that one slice of work sends to.
    Sends,
    /// Connections of a core.
    Connections,
    /// Bytes of mutations that wait for the app.
    PushBytes,
}

impl Limit {
    /// All there are.
    pub const ALL: [Limit; 30] = [
        Limit::JournalKeys,
        Limit::JournalDeltas,
        Limit::Difference,
        Limit::Parents,
        Limit::DirtyKeys,
        Limit::Candidates,
        Limit::LeftKeys,
        Limit::RemovedQueries,
        Limit::ResultChanges,
        Limit::RememberedQueries,
        Limit::IdleGroups,
        Limit::EncodedBytes,
        Limit::SmallView,
        Limit::CatchUpRows,
        Limit::Overtaken,
        Limit::Passed,
        Limit::RecordRows,
        Limit::RecordPart,
        Limit::RecordFrame,
        Limit::RecentBytes,
        Limit::Hydrations,
        Limit::LargeHydrations,
        Limit::Begins,
        Limit::StreamFrom,
        Limit::RecordQueue,
        Limit::RecordFilling,
        Limit::OutboxBytes,
        Limit::Sends,
        Limit::Connections,
        Limit::PushBytes,
    ];
}

#[cfg(debug_assertions)]
mod noted {
    use std::cell::Cell;

    use super::Limit;

    thread_local! {
        /// A bit for each limit, of this thread.
        static MET: Cell<u64> = const { Cell::new(0) };
    }

    /// A limit was met on this thread.
    pub fn met(limit: Limit) {
        MET.set(MET.get() | 1 << limit as u64);
    }

    /// Those that were met on this thread since the last call, a bit for each.
    pub fn take() -> u64 {
        MET.take()
    }
}

#[cfg(not(debug_assertions))]
mod noted {
    use super::Limit;

    /// Does nothing.
    #[inline(always)]
    pub fn met(_: Limit) {}

    /// None was.
    pub fn take() -> u64 {
        0
    }
}

pub use noted::{met, take};
