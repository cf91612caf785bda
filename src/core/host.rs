//! What a core asks of whoever runs it.

use std::sync::Arc;

use crate::model::commit::Commit;
use crate::model::version::StateVersion;
use crate::replica::reader::{ReadError, Reader};

/// Commits that a core takes at a time.
#[derive(Debug, Default)]
pub struct Commits {
    /// In order.
    pub commits: Vec<Arc<Commit>>,
    /// Commits are missing: everything has to be looked at again.
    pub gap: bool,
}

/// How near the process is to the memory that it may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pressure {
    /// There is room.
    Calm,
    /// Little is left: nothing large is begun.
    Tight,
    /// Nothing is left: something has to go.
    Full,
}

/// Memory of the process.
#[derive(Debug, Clone, Copy)]
pub struct Memory {
    /// How near it is to its limit.
    pub pressure: Pressure,
    /// Most bytes of one view.
    pub of_view: usize,
    /// Most bytes of one group.
    pub of_group: usize,
}

/// How much waits to be written to the record log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordQueue {
    /// Little, or nothing is recorded.
    Short,
    /// So much that what is not live waits.
    Long,
    /// So much that no view is read meanwhile.
    Overfull,
    /// The disk takes nothing.
    Failed,
}

/// Whoever runs a core.
pub trait Host {
    /// Milliseconds since the core began.
    fn now(&self) -> f64;
    /// Whether the present slice of work is over. Looks at a clock: not to be asked for every row.
    fn is_over(&self) -> bool;
    /// Takes the commits after `from` up to `to`. `None`: the last of them has not come yet;
    /// [`super::effect::Event::Committed`] says when more has.
    fn take_commits(&self, from: StateVersion, to: StateVersion) -> Option<Commits>;
    /// Opens a reader for views that are hydrated.
    fn open_reader(&self) -> Result<Reader, ReadError>;
    /// Memory of the process.
    fn memory(&self) -> Memory;
    /// The record log.
    fn record_queue(&self) -> RecordQueue;
}
