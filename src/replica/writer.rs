//! The only writer of the replica: a thread, because SQLite blocks.
//!
//! It takes batches of decoded changes, applies each upstream transaction within one of
//! SQLite (several in one when it is behind), and hands out a [`Commit`] after SQLite's
//! COMMIT has returned, from its own thread: nobody else has to wake up for it. It neither syncs nor checkpoints.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use kelvin_io::channel::{Receiver, Sender, bounded};
use rusqlite::{Connection, OpenFlags, Statement, params};

use super::applied::Applied;
use super::apply::Applier;
use super::checkpoint::Gate;
use super::durable::Written;
use super::error::{Doing, Error};
use super::filling::Fillings;
use super::gauges::Gauges;
use super::live_indexes::IndexRequest;
use super::metadata::{self, SET_SEEN, SET_STATE, now_millis};
use super::work::{Op, Operations, Reached, Work};
use crate::model::catalogue::Catalogue;
use crate::model::commit::Commit;
use crate::model::version::StateVersion;
use crate::testing::panics;

mod between;
mod tables;

/// Name of the writer's thread.
pub const THREAD: &str = "replica-writer";

/// Batches that may wait for the writer. A batch is what one read of the stream returned
/// (at most a few hundred KiB, or one larger row), so this bounds memory to some tens of
/// MiB; beyond it reading stops, and Postgres keeps the rest.
const QUEUE: usize = 64;

/// Other things said that may wait to be heard.
const OUTPUTS: usize = 64;

/// Takes each commit that readers can see, in order, on the writer's thread. It must not block.
pub type Commits = Box<dyn Fn(Arc<Commit>, Applied) + Send>;

/// Rows after which a transaction that gathers several of upstream's is committed. More
/// would save little per row, and delays the first of them.
const COALESCE_ROWS: u64 = 2_000;

/// Page cache of the writer, in KiB: the inner pages of all indexes of a large replica.
/// It also bounds how much of an open transaction is in memory.
const CACHE_KIB: u32 = 256 << 10;

/// Bytes of a frame's header and of the log's, in SQLite's format.
const FRAME_HEADER: u64 = 24;
const LOG_HEADER: u64 = 32;

/// What the writer says beside commits.
#[derive(Debug)]
pub enum Output {
    /// The replica has one more index; from now on this is its catalogue.
    Indexed(Arc<Catalogue>),
    /// The writer has stopped because of this.
    Failed(Error),
}

/// What the writer needs to begin.
pub struct WriterParts {
    /// Schema of the file.
    pub catalogue: Arc<Catalogue>,
    /// The same as upstream has it: without the indexes that only the replica has.
    pub upstream: Arc<Catalogue>,
    /// Last transaction in the file.
    pub version: StateVersion,
    /// Position recorded in the file.
    pub position: StateVersion,
    /// Most bytes of a row.
    pub row_limit: usize,
}

/// Handle of the thread.
pub struct Writer {
    /// Where work goes; waiting when it is full is the back-pressure.
    pub queue: Sender<Work>,
    /// What comes back.
    pub output: Receiver<Output>,
    thread: JoinHandle<()>,
}

impl Writer {
    /// Opens the file and starts the thread. Blocks shortly.
    pub fn start(
        path: &Path,
        start: WriterParts,
        gauges: Arc<Gauges>,
        gate: Arc<Gate>,
        written: Written,
        commits: Commits,
    ) -> Result<Writer, Error> {
        let connection = open(path, gauges.clone())?;
        let (queue, work) = bounded(QUEUE);
        let (sender, output) = bounded(OUTPUTS);
        gauges.set_written(start.position);
        written.commit(start.position);
        let thread = std::thread::Builder::new()
            .name(THREAD.into())
            .spawn(move || {
                let result =
                    Session::new(&connection, start, gauges, gate, written, (commits, sender.clone()))
                        .and_then(|mut session| session.run(&work));
                if let Err(e) = result {
                    let _ = sender.send_blocking(Output::Failed(e));
                }
            })
            .map_err(|source| Error::Io { doing: "starting a thread for", path: path.to_owned(), source })?;
        Ok(Writer { queue, output, thread })
    }

    /// Ends the thread after what is queued. Blocks.
    pub fn stop(self) {
        self.queue.close();
        // Nobody listens any more; the thread must not wait for that.
        self.output.close();
        let _ = self.thread.join();
    }
}

fn open(path: &Path, gauges: Arc<Gauges>) -> Result<Connection, Error> {
    let doing = "opening the replica for writing";
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags).doing(doing)?;
    connection
        .execute_batch(&format!(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA wal_autocheckpoint = 0;
             PRAGMA cache_size = -{CACHE_KIB}; PRAGMA temp_store = MEMORY"
        ))
        .doing(doing)?;
    connection.execute_batch("BEGIN IMMEDIATE").doing(doing)?;
    metadata::upgrade(&connection)?;
    connection.execute_batch("COMMIT").doing(doing)?;
    let page_size: u64 =
        connection.query_row("PRAGMA page_size", [], |row| row.get::<_, i64>(0)).doing(doing)? as u64;
    let hook = move |_: &mut rusqlite::hooks::Wal, frames: std::ffi::c_int| {
        let bytes = LOG_HEADER + frames.max(0) as u64 * (page_size + FRAME_HEADER);
        if bytes < gauges.wal_bytes() {
            gauges.wal_restarted();
        }
        gauges.set_wal_bytes(bytes);
        Ok(())
    };
    connection.wal_hook(Some(hook)).doing(doing)?;
    Ok(connection)
}

/// The state of the thread.
struct Session<'c> {
    connection: &'c Connection,
    applier: Applier<'c>,
    begin: Statement<'c>,
    commit: Statement<'c>,
    set_state: Statement<'c>,
    set_seen: Statement<'c>,
    catalogue: Arc<Catalogue>,
    /// The same as upstream has it.
    upstream: Arc<Catalogue>,
    fillings: Fillings<'c>,
    /// Both as they were before the open transaction, if it changed them.
    before: Option<(Arc<Catalogue>, Arc<Catalogue>)>,
    gauges: Arc<Gauges>,
    gate: Arc<Gate>,
    written: Written,
    commits: Commits,
    output: Sender<Output>,
    /// Last transaction handed out.
    published: StateVersion,
    /// Last complete upstream transaction in the open one, or `published`.
    complete: StateVersion,
    /// Position to record with the next commit.
    seen: Option<StateVersion>,
    /// Upstream transaction that is being applied.
    current: Option<StateVersion>,
    /// The current transaction is one that the replica has already.
    skip: bool,
    /// A transaction of SQLite is open, since this time.
    open: Option<Instant>,
    /// Upstream transactions complete in it.
    transactions: u64,
    /// When the batch that is being applied was received.
    arrived: Option<Instant>,
    /// When the end of the first complete one was received.
    first_arrived: Option<Instant>,
    /// Rows may have been shown whose versions are not written.
    lacks_versions: bool,
    /// Indexes to be created, with the time since which they wait.
    index_requests: VecDeque<(IndexRequest, Instant)>,
}

impl<'c> Session<'c> {
    fn new(
        connection: &'c Connection,
        start: WriterParts,
        gauges: Arc<Gauges>,
        gate: Arc<Gate>,
        written: Written,
        (commits, output): (Commits, Sender<Output>),
    ) -> Result<Self, Error> {
        let doing = "preparing the writer";
        let mut applier = Applier::new(connection, start.catalogue.clone());
        applier.row_limit = start.row_limit;
        Ok(Session {
            connection,
            applier,
            begin: connection.prepare("BEGIN IMMEDIATE").doing(doing)?,
            commit: connection.prepare("COMMIT").doing(doing)?,
            set_state: connection.prepare(SET_STATE).doing(doing)?,
            set_seen: connection.prepare(SET_SEEN).doing(doing)?,
            catalogue: start.catalogue,
            upstream: start.upstream,
            fillings: Fillings::new(connection, start.row_limit)?,
            before: None,
            gauges,
            gate,
            written,
            commits,
            output,
            published: start.version,
            complete: start.version,
            seen: None,
            current: None,
            skip: false,
            open: None,
            transactions: 0,
            arrived: None,
            first_arrived: None,
            lacks_versions: true,
            index_requests: VecDeque::new(),
        })
    }

    fn run(&mut self, queue: &Receiver<Work>) -> Result<(), Error> {
        while let Ok(work) = queue.recv_blocking() {
            panics::here(THREAD);
            match work {
                Work::Changes(Operations { ops, arrived }) => {
                    self.arrived = arrived;
                    ops.into_iter().try_for_each(|op| self.apply(op))?;
                }
                Work::Index(index_request) => self.note(index_request),
                Work::Fill(work) => self.fillings.add(work),
                Work::Settle(reply) => self.settle(&reply)?,
            }
            // With nothing waiting, what is complete is shown at once.
            if self.current.is_none() && queue.is_empty() {
                self.finish()?;
            }
            self.fulfil(queue)?;
            self.fill(queue)?;
            self.drop_tables(queue)?;
            self.set_versions(queue)?;
            self.gauges.lag.worked(Instant::now());
        }
        // The stream ended; what is complete is kept, the rest comes again.
        self.undo_what_is_open()
    }

    /// Commits what is complete, undoes the rest, and says where that has led.
    fn settle(&mut self, reply: &Sender<Reached>) -> Result<(), Error> {
        self.undo_what_is_open()?;
        self.finish()?;
        // Nobody waits for it any more when replication ends.
        let catalogue = self.upstream.clone();
        let _ =
            reply.try_send(Reached { version: self.published, position: self.gauges.written(), catalogue });
        Ok(())
    }

    fn apply(&mut self, op: Op) -> Result<(), Error> {
        match op {
            Op::Begin { version, whole } => self.begin(version, whole),
            Op::Commit => self.end(),
            Op::Seen { position } => {
                self.seen = Some(position);
                Ok(())
            }
            Op::Abort => self.undo_what_is_open(),
            // SQLite would commit each change by itself.
            _ if self.current.is_none() => Err(Error::Misfit("a change outside of a transaction")),
            _ if self.skip => Ok(()),
            Op::Schema { catalogue } => self.follow(catalogue),
            Op::Truncate { tables } => {
                let (aside, shown): (Vec<_>, Vec<_>) =
                    tables.into_iter().partition(|table| self.catalogue.is_filling(*table));
                aside
                    .into_iter()
                    .try_for_each(|table| self.put_aside(table, Op::Truncate { tables: vec![table] }))?;
                self.applier.truncate(&shown)
            }
            Op::Insert { table, .. } | Op::Update { table, .. } | Op::Delete { table, .. }
                if self.catalogue.is_filling(table) =>
            {
                self.put_aside(table, op)
            }
            op => self.applier.apply(op),
        }
    }

    /// Begins an upstream transaction.
    fn begin(&mut self, version: StateVersion, whole: bool) -> Result<(), Error> {
        if self.current.is_some() {
            return Err(Error::Misfit("a transaction within a transaction"));
        }
        // One whose end has not arrived may take long, and may be undone: what came
        // before it is not made to wait. Nor is a checkpoint that waits for a border.
        let enough = self.applier.rows >= COALESCE_ROWS || self.gate.is_wanted();
        if self.transactions > 0 && (!whole || enough) {
            self.finish()?;
        }
        self.current = Some(version);
        // Upstream never sends below the position it was asked for; if it did, applying
        // again would hand out changes twice.
        self.skip = version <= self.complete;
        if !self.skip {
            self.open()?;
            self.applier.begin(version);
        }
        Ok(())
    }

    fn open(&mut self) -> Result<(), Error> {
        if self.open.is_none() {
            self.gauges.held(self.gate.enter());
            let began = Instant::now();
            self.begin.raw_execute().doing("beginning a transaction")?;
            self.open = Some(began);
        }
        Ok(())
    }

    /// The upstream transaction is complete.
    fn end(&mut self) -> Result<(), Error> {
        let skipped = std::mem::take(&mut self.skip);
        if let (Some(version), false) = (self.current.take(), skipped) {
            self.complete = version;
            self.transactions += 1;
            self.first_arrived = self.first_arrived.or(self.arrived);
        }
        // What comes next is of other tables than what was gathered.
        if self.before.is_some() { self.finish() } else { Ok(()) }
    }

    /// Commits what is complete and hands it out.
    fn finish(&mut self) -> Result<(), Error> {
        let seen = self.seen.take();
        if self.transactions == 0 && seen.is_none() {
            return Ok(());
        }
        self.open()?;
        let doing = "committing";
        if self.transactions > 0 {
            self.set_state.execute(params![self.complete.to_lexi(), now_millis()]).doing(doing)?;
        }
        if let Some(position) = seen {
            self.set_seen.execute([position.to_lexi()]).doing(doing)?;
        }
        self.commit.raw_execute().doing(doing)?;
        if self.before.take().is_some() {
            self.fillings.committed(&self.upstream);
        }
        let took = self.closed();
        let position = seen.map_or(self.complete, |seen| seen.max(self.complete));
        self.gauges.set_written(position.max(self.gauges.written()));
        self.written.commit(position);
        self.publish(took)
    }

    /// SQLite's transaction has ended. Returns how long it was open.
    fn closed(&mut self) -> Duration {
        self.gate.leave();
        self.open.take().map(|began| began.elapsed()).unwrap_or_default()
    }

    fn publish(&mut self, took: Duration) -> Result<(), Error> {
        let transactions = std::mem::take(&mut self.transactions);
        if transactions == 0 {
            return Ok(());
        }
        let rows = std::mem::take(&mut self.applier.rows);
        self.gauges.applied(rows, transactions);
        self.gauges.surprised(std::mem::take(&mut self.applier.surprises));
        let (tables, size) = self.applier.net.take();
        let commit = Commit {
            version: self.complete,
            previous: std::mem::replace(&mut self.published, self.complete),
            tables,
            size,
        };
        let applied = Applied { transactions, rows, took, arrived: self.first_arrived.take() };
        (self.commits)(Arc::new(commit), applied);
        Ok(())
    }

    /// Undoes the transaction that is being applied, if one is; else what is complete is committed. It is alone
    /// in SQLite's, except for complete ones when it was expected to be whole; those come again.
    fn undo_what_is_open(&mut self) -> Result<(), Error> {
        if self.current.take().is_none() {
            return self.finish();
        }
        self.skip = false;
        if self.open.is_some() {
            self.connection.execute_batch("ROLLBACK").doing("undoing a transaction")?;
            self.closed();
        }
        if let Some((upstream, catalogue)) = self.before.take() {
            self.applier.go_back(catalogue.clone());
            (self.upstream, self.catalogue) = (upstream, catalogue);
        }
        self.complete = self.published;
        self.transactions = 0;
        self.first_arrived = None;
        self.applier.net.clear();
        self.applier.rows = 0;
        self.applier.surprises = 0;
        Ok(())
    }
}
