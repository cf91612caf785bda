//! What a core asks of whoever runs it.

use std::fmt;
use std::sync::Arc;

use super::warning::Warning;
use crate::groups::shedding::Excess;
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

/// Whoever runs a core.
pub trait Host {
    /// Milliseconds since the core began.
    fn now(&self) -> f64;
    /// A slice of work begins.
    fn begin_slice(&self);
    /// Whether the present slice of work is over. Looks at a clock: not to be asked for every row.
    fn is_over(&self) -> bool;
    /// Takes the commits after `from` up to `to`. `None`: the last of them has not come yet;
    /// [`super::effect::Event::Committed`] says when more has.
    fn take_commits(&self, from: StateVersion, to: StateVersion) -> Option<Commits>;
    /// Opens a reader for views that are hydrated.
    fn open_reader(&self) -> Result<Reader, ReadError>;
    /// Memory of the process.
    fn memory(&self) -> Memory;
    /// Bytes that this core has to give up, where there is too little memory.
    fn excess(&self) -> usize;
    /// What those have to give up who are connected; `None`: nothing after all.
    fn excess_in_use(&self) -> Option<Excess>;
    /// Gives free memory back to the system. Takes milliseconds after a peak.
    fn give_memory_back(&self);
    /// Logs what an operator has to act on, unless that was done a moment ago.
    fn warn(&self, warning: Warning, text: fmt::Arguments<'_>);
}
