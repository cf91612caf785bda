//! A private, read-only connection of one core, and its snapshot.
//!
//! A reader that has begun sees one state of the replica until it begins again. Readers
//! never write and never checkpoint; they keep moving so that the log can be restarted
//! (rule 25).

use std::cell::Cell;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::config::DbConfig;
use rusqlite::functions::FunctionFlags;
use rusqlite::types::ValueRef;
use rusqlite::{CachedStatement, Connection, OpenFlags};

use super::{live_indexes, metadata};
use crate::model::catalogue::Catalogue;
use crate::model::version::StateVersion;
use crate::replica::like::{self, Pattern};

/// Prepared statements kept per connection. Statements are shared by all queries of one
/// shape, so a thousand shapes is a large application.
const STATEMENT_CACHE: usize = 1024;

/// Bytes of the file that are mapped. Reads then come from the page cache, which all
/// readers share, without a copy.
const MMAP_SIZE: i64 = 16 << 30;

/// Page cache of one connection in KiB (SQLite takes it as a negative number). Small: the
/// kernel's page cache is the shared one.
const CACHE_KIB: i64 = 2048;

/// The same of a connection that does not map the file: what a large batch looks at.
const LIVE_CACHE_KIB: i64 = 16_384;

/// Why the replica could not be read.
#[derive(Debug)]
pub enum ReadError {
    /// SQLite refused or failed.
    Sqlite(rusqlite::Error),
    /// A stored value that no client can hold.
    Unsupported(String),
    /// The read was given up: nobody wants it any more, or it takes more than it may.
    Interrupted,
}

impl std::fmt::Display for ReadError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ReadError::Sqlite(e) => write!(f, "the replica could not be read: {e}"),
            ReadError::Unsupported(what) => f.write_str(what),
            ReadError::Interrupted => f.write_str("the read was given up"),
        }
    }
}

impl std::error::Error for ReadError {}

impl ReadError {
    /// What clients are told. What SQLite says holds statements and names, which are for the log.
    pub fn for_clients(&self) -> String {
        match self {
            ReadError::Sqlite(_) => "the server could not read its data; its log says why".to_owned(),
            other => other.to_string(),
        }
    }
}

impl From<rusqlite::Error> for ReadError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::OperationInterrupted) => ReadError::Interrupted,
            _ => ReadError::Sqlite(error),
        }
    }
}

/// Steps of SQLite's machine between looks at a statement's budget: some forty microseconds.
const BUDGET_STEP: i32 = 2_048;

/// A reading connection.
pub struct Reader {
    connection: Connection,
    version: Cell<StateVersion>,
    epoch: Cell<u64>,
    budget: Arc<Budget>,
    may_try: bool,
}

/// Bytes of texts that are compared with patterns that count as one look: they take about as long.
const BUDGET_BYTES: u32 = 32 << 10;

/// What the statement at hand may take, in looks at it.
struct Budget {
    /// Looks since the last statement was asked for.
    spent: AtomicU32,
    /// At so many it ends.
    most: AtomicU32,
    /// Bytes that do not count as a look yet.
    bytes: AtomicU32,
    /// It ends in any case.
    stop: Mutex<Arc<AtomicBool>>,
}

impl Default for Budget {
    fn default() -> Budget {
        let most = AtomicU32::new(Budget::NO_END);
        Budget { spent: AtomicU32::new(0), most, bytes: AtomicU32::new(0), stop: Mutex::default() }
    }
}

impl Budget {
    const NO_END: u32 = u32::MAX;

    /// The same between looks, when a function of ours is given a text of so many bytes: SQLite does not look
    /// while it runs, and a thousand long texts are few steps.
    fn is_over_with(&self, bytes: usize) -> bool {
        let bytes = self.bytes.load(Ordering::Relaxed).saturating_add(bytes.min(u32::MAX as usize) as u32);
        self.bytes.store(bytes % BUDGET_BYTES, Ordering::Relaxed);
        match bytes / BUDGET_BYTES {
            0 => false,
            looks => self.spend(looks),
        }
    }

    /// Counts looks. True: that is enough.
    fn spend(&self, looks: u32) -> bool {
        let spent = self.spent.fetch_add(looks, Ordering::Relaxed);
        spent.saturating_add(looks - 1) >= self.most.load(Ordering::Relaxed) || self.is_stopped()
    }

    fn is_stopped(&self) -> bool {
        self.stop.lock().unwrap_or_else(PoisonError::into_inner).load(Ordering::Relaxed)
    }

    fn begin(&self) {
        self.spent.store(0, Ordering::Relaxed);
        self.bytes.store(0, Ordering::Relaxed);
    }

    fn set(&self, most: u32) -> u32 {
        self.most.swap(most, Ordering::Relaxed)
    }
}

impl Reader {
    /// Opens the replica for reading. It has no snapshot yet: call [`Reader::begin`].
    pub fn open(path: &Path) -> Result<Reader, ReadError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.set_prepared_statement_cache_capacity(STATEMENT_CACHE);
        connection.pragma_update(None, "mmap_size", 0)?;
        connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
        connection.pragma_update(None, "query_only", true)?;
        connection.pragma_update(None, "temp_store", "memory")?;
        // Else a name that is no column's would be taken for a text, and sent to clients.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DML, false)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DDL, false)?;
        let budget = Arc::new(Budget::default());
        prepare_comparisons(&connection, &budget)?;
        let (version, epoch) = (Cell::new(StateVersion::ZERO), Cell::new(0));
        let mut reader = Reader { connection, version, epoch, budget, may_try: true };
        reader.stop_when(Arc::default())?;
        Ok(reader)
    }

    /// Whether [`Reader::within`] may be used to find out which of several ways is the best.
    pub fn may_try(&self) -> bool {
        self.may_try
    }

    /// Lets nobody try out ways, or lets them: an operator's choice.
    pub fn let_try(&mut self, may_try: bool) {
        self.may_try = may_try;
    }

    /// Keeps more pages. What moves to a new snapshot hundreds of times a second and looks at a few
    /// rows each time is better off with pages of its own than with a mapping, which goes with
    /// each snapshot: every page touched would be a page fault again.
    pub fn keep_pages(&self) -> Result<(), ReadError> {
        Ok(self.connection.pragma_update(None, "cache_size", -LIVE_CACHE_KIB)?)
    }

    /// Has a statement keep its plan, whatever values it is given. Where there are statistics, SQLite
    /// plans anew for each value that they may say something of, which takes three times as long as to look at
    /// a row by its key. Whoever reads much in one statement is better off without this.
    pub fn keep_plans(&self) -> Result<(), ReadError> {
        self.connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
        Ok(())
    }

    /// Maps the file, or gives the mapping up. SQLite gives it up by itself when a new snapshot
    /// begins, on the thread that begins it: of a large file that takes milliseconds. So whoever
    /// reads much maps it once the snapshot is taken, on a thread that may take its time. No
    /// statement may be open.
    pub fn map(&self, on: bool) -> Result<(), ReadError> {
        Ok(self.connection.pragma_update(None, "mmap_size", if on { MMAP_SIZE } else { 0 })?)
    }

    /// Gives up the current snapshot and takes the newest one. Returns its version, read
    /// from inside it (rule 2). No statement may be open.
    pub fn begin(&self) -> Result<StateVersion, ReadError> {
        self.end()?;
        self.prepare("BEGIN")?.execute([])?;
        let (text, epoch): (String, i64) = self
            .prepare("SELECT stateVersion, epoch FROM \"_zero.replicationState\", \"_kelvin.schema\"")?
            .query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let version = StateVersion::from_lexi(&text)
            .ok_or_else(|| ReadError::Unsupported(format!("the replica's state version is {text:?}")))?;
        self.version.set(version);
        self.epoch.set(epoch as u64);
        Ok(version)
    }

    /// Gives up the current snapshot, if there is one.
    pub fn end(&self) -> Result<(), ReadError> {
        if !self.connection.is_autocommit() {
            self.prepare("ROLLBACK")?.execute([])?;
        }
        Ok(())
    }

    /// Version of the snapshot.
    pub fn version(&self) -> StateVersion {
        self.version.get()
    }

    /// Epoch of the catalogue that is the snapshot's: a plan of another one may name what is not there.
    pub fn epoch(&self) -> u64 {
        self.epoch.get()
    }

    /// The snapshot's tables, with the indexes that only the replica has.
    pub fn catalogue(&self) -> Result<Catalogue, ReadError> {
        let known = metadata::catalogue(&self.connection)?;
        let known =
            known.ok_or_else(|| ReadError::Unsupported("the replica's catalogue cannot be read".into()))?;
        live_indexes::find(&self.connection, &known)
            .map_err(|error| ReadError::Unsupported(error.to_string()))
    }

    /// Has every statement that takes more than about so many steps of SQLite's machine end with
    /// [`ReadError::Interrupted`]. Counted, not timed: the same data gives the same answer.
    pub fn limit(&mut self, steps: u32) -> Result<(), ReadError> {
        self.budget.set(steps / BUDGET_STEP as u32);
        Ok(())
    }

    /// Runs one statement within about so many steps; `None`: it was not over by then.
    pub fn within<T>(
        &self,
        steps: u32,
        run: impl FnOnce() -> Result<T, ReadError>,
    ) -> Result<Option<T>, ReadError> {
        // SQLite counts over all executions of a statement; what is spent by this one is known
        // only to within one look.
        let most = (steps / BUDGET_STEP as u32).max(1);
        let before = self.budget.set(most);
        let out = run();
        let spent = self.budget.spent.load(Ordering::Relaxed);
        self.budget.set(before);
        match out {
            // If not by the budget, then by whoever stopped the reading.
            Err(ReadError::Interrupted) if spent > most => Ok(None),
            out => out.map(Some),
        }
    }

    /// Has statements end with [`ReadError::Interrupted`] once the flag is raised, wherever the
    /// reader is by then.
    pub fn stop_when(&mut self, flag: Arc<AtomicBool>) -> Result<(), ReadError> {
        *self.budget.stop.lock().unwrap_or_else(PoisonError::into_inner) = flag;
        let budget = self.budget.clone();
        Ok(self.connection.progress_handler(BUDGET_STEP, Some(move || budget.spend(1)))?)
    }

    /// A prepared statement that is not kept.
    pub fn prepare_once(&self, sql: &str) -> Result<rusqlite::Statement<'_>, ReadError> {
        Ok(self.connection.prepare(sql)?)
    }

    /// A prepared statement from the cache.
    pub fn prepare(&self, sql: &str) -> Result<CachedStatement<'_>, ReadError> {
        self.budget.begin();
        Ok(self.connection.prepare_cached(sql)?)
    }
}

/// Gives a connection the comparisons of `docs/spec/zql.md` §4.4. SQLite's own LIKE takes the product of what
/// it is given, ends a pattern at a NUL, and cannot be interrupted.
fn prepare_comparisons(connection: &Connection, budget: &Arc<Budget>) -> Result<(), ReadError> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
    for (name, folds) in [("zero_like", false), ("zero_ilike", true)] {
        let budget = budget.clone();
        connection.create_scalar_function(name, 2, flags, move |context| {
            // Prepared once for all rows of an execution.
            let pattern: Arc<Pattern> = context.get_or_create_aux(1, |pattern| {
                let pattern = pattern.as_str().map_err(|_| "a pattern is a text".to_owned())?;
                Pattern::new(pattern)
            })?;
            // As on the core: what is no text is not like anything, nor unlike it.
            let ValueRef::Text(text) = context.get_raw(0) else { return Ok(None) };
            let text = String::from_utf8_lossy(text);
            if budget.is_over_with(text.len()) {
                let interrupted = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_INTERRUPT);
                return Err(rusqlite::Error::SqliteFailure(interrupted, None));
            }
            Ok(Some(if folds { pattern.matches(&like::fold(&text)) } else { pattern.matches(&text) }))
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_not_told_statements() {
        let connection = Connection::open_in_memory().unwrap();
        let error = ReadError::from(connection.prepare("SELECT hidden FROM secret").unwrap_err());
        assert!(error.to_string().contains("secret"), "the log has it: {error}");
        assert!(!error.for_clients().contains("secret") && !error.for_clients().contains("SELECT"));
        let ours = ReadError::Unsupported("a row's key is null".to_owned());
        assert_eq!(ours.for_clients(), ours.to_string());
    }
}
