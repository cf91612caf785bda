//! What a core hears, and what it wants performed.

use std::sync::Arc;

use crate::groups::record_log::{LogName, Output};
use crate::model::catalogue::Catalogue;
use crate::replica::live_indexes::IndexRequest;
use crate::replica::reader::{ReadError, Reader};
use crate::views::scan::{Chunk, Job};

/// Number of a reading of a whole view.
pub type ReadingId = u64;

/// Something has happened outside.
pub enum Event {
    /// The replica has more commits.
    Committed,
    /// A reading has found something.
    Read(ReadingId, Reported),
    /// The replica has one more index; this is its catalogue now.
    Indexed(Arc<Catalogue>),
    /// The read transactions are to begin anew (rule 25).
    Rebegin,
    /// From now on everything is recorded, under this name. The groups that were restored are there.
    StartRecords(LogName),
    /// What [`Effect::Record`] said last is on the disk.
    Recorded,
    /// The disk does not take it.
    RecordFailed,
    /// The disk takes records again.
    RecordRecovered,
    /// Some outbox was behind, and is no longer.
    Drained,
    /// Time has passed. `clock_zero`: milliseconds since 1970 at zero of the core's clock, as the calendar is now.
    Tick {
        /// It may have been set, or the machine asleep.
        clock_zero: f64,
    },
}

/// What a reading reports.
pub enum Reported {
    /// Something was found. The next comes when [`Effect::ReadOn`] asks for it.
    Chunk(Chunk),
    /// It is over; the reader comes back, if it can be used again. Which condition the root was read from.
    End(Option<Reader>, Result<usize, ReadError>),
}

/// Something is to be done outside.
pub enum Effect {
    /// Read a whole view beside the core, and report what is found.
    Read {
        /// Which reading it is.
        id: ReadingId,
        /// Number of the life of the view that is read.
        view: u64,
        /// On a snapshot of its own.
        reader: Reader,
        /// What to read.
        job: Box<Job>,
    },
    /// What a reading reported last has been taken.
    ReadOn(ReadingId),
    /// Write this to the record log, and say [`Event::Recorded`]. The next comes only then.
    Record(Vec<Output>),
    /// Memory is short: forget what the app has answered.
    ForgetAnswers,
    /// Queries would read by an index.
    WantIndex(IndexRequest),
    /// A batch has failed: say [`Event::Committed`] after a while.
    RetryBatch,
    /// Answers [`Event::Rebegin`]: whether that was possible.
    Rebegun(bool),
    /// A query could not be hydrated.
    HydrationFailed(String),
    /// A query took long to be hydrated.
    SlowHydration {
        /// Rows that were read.
        rows: usize,
        /// Milliseconds that it took.
        milliseconds: f64,
        /// Number of the view's life.
        view: u64,
        /// How SQLite read it.
        plan: String,
    },
}
