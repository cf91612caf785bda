//! What a core hears, and what it wants performed.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;

pub use super::replies::QuestionId;
use super::session::Session;
use crate::auth::token::Token;
use crate::backend::call::CallError;
use crate::backend::context::Context;
use crate::backend::turns::CallKind;
use crate::groups::record_log::{LogName, Output};
use crate::model::catalogue::Catalogue;
use crate::model::ids::ConnectionId;
use crate::protocol::error::ProtocolError;
use crate::protocol::inspect::Request;
use crate::replica::live_indexes::IndexRequest;
use crate::replica::reader::{ReadError, Reader};
use crate::views::scan::{Chunk, Job};

/// Number of a reading of a whole view.
pub type ReadingId = QuestionId;

/// Who ended a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The client, or the network: messages that came before count.
    Peer,
    /// This server: nothing counts any more.
    Ours,
}

/// A request of one of the app's endpoints.
#[derive(Debug)]
pub struct AppCall {
    /// What for, and so of which endpoint.
    pub kind: CallKind,
    /// Group that it is made for.
    pub group: Rc<str>,
    /// What goes along.
    pub context: Rc<Context>,
    /// Body.
    pub body: Bytes,
}

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
    /// A client has sent a message.
    Message(ConnectionId, String),
    /// A connection is over.
    Left(ConnectionId, End),
    /// The app has answered [`Effect::Call`], or cannot be asked.
    Answered(QuestionId, Result<Bytes, CallError>),
    /// Answers [`Effect::Judge`]; `None`: there is no token.
    Judged(QuestionId, Result<Option<Token>, ProtocolError>),
    /// The next message of whoever asked may be handled.
    Inspected(QuestionId),
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
    /// Call the app, and say [`Event::Answered`].
    Call(QuestionId, Box<AppCall>),
    /// Nobody waits for that answer any more.
    DropCall(QuestionId),
    /// Say whether a token is good, with [`Event::Judged`].
    Judge {
        /// Which question it is.
        id: QuestionId,
        /// The token.
        token: String,
        /// Whose it should be.
        user_id: Option<String>,
    },
    /// Answer the inspector, and say [`Event::Inspected`].
    Inspect {
        /// Which question it is.
        id: QuestionId,
        /// Who asks.
        session: Rc<Session>,
        /// Id to repeat in the answer.
        request_id: String,
        /// What is asked for.
        request: Request,
    },
    /// Queries would read by an index.
    WantIndex(IndexRequest),
    /// A batch has failed: say [`Event::Committed`] after a while.
    RetryBatch,
    /// Answers [`Event::Rebegin`]: whether that was possible.
    Rebegun(bool),
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
