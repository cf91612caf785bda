//! Filling a new replica during an initial sync.
//!
//! The rows go into a file beside the replica, without a journal and without indexes; it
//! takes the replica's place when it is complete and durable. A crash before that leaves
//! a file that the next attempt deletes.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::{Connection, OpenFlags, Statement};

use super::error::{Doing, Error};
use super::metadata::{self, Metadata};
use super::oversize::{self, MAX_ROW, Room};
use super::stored::{Stored, read_value};
use super::{file, schema};
use crate::model::catalogue::{Catalogue, Table, quote};
use crate::model::ids::TableId;
use crate::model::table_map::TableMap;
use crate::model::version::StateVersion;

/// Page cache while loading, in KiB. Also bounds what a sort for an index holds in memory.
const CACHE_KIB: u32 = 512 << 10;

/// Threads that sort beside the one that builds an index.
const SORT_THREADS: u32 = 2;

/// Rows that ANALYZE looks at per index: enough to know an index's selectivity, cheap on
/// a table of any size.
const ANALYSIS_LIMIT: u32 = 1000;

/// Path of the unfinished file.
fn unfinished(path: &Path) -> PathBuf {
    file::beside(path, ".sync")
}

/// Opens a new file and creates the tables of the catalogue in it.
pub fn open(path: &Path, catalogue: &Catalogue) -> Result<Connection, Error> {
    let unfinished = unfinished(path);
    file::remove(&unfinished)?;
    file::create(&unfinished)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(&unfinished, flags).doing("creating the replica")?;
    let doing = "preparing the new replica";
    connection
        .execute_batch(&format!(
            "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA locking_mode = EXCLUSIVE;
             PRAGMA cache_size = -{CACHE_KIB}; PRAGMA temp_store = MEMORY; PRAGMA threads = {SORT_THREADS};
             BEGIN EXCLUSIVE"
        ))
        .doing(doing)?;
    for sql in schema::create_tables(catalogue) {
        connection.execute_batch(&sql).doing(doing)?;
    }
    Ok(connection)
}

/// Inserts rows; borrows the connection for its prepared statements.
pub struct Loader<'c> {
    connection: &'c Connection,
    catalogue: Arc<Catalogue>,
    version: String,
    inserts: TableMap<Statement<'c>>,
    /// Most bytes of a row.
    pub row_limit: usize,
}

impl<'c> Loader<'c> {
    /// `version` becomes the version of every row.
    pub fn new(connection: &'c Connection, catalogue: Arc<Catalogue>, version: StateVersion) -> Self {
        let (version, inserts) = (version.to_lexi(), TableMap::default());
        Loader { connection, catalogue, version, inserts, row_limit: MAX_ROW }
    }

    /// The statement of a table, for as many rows as come together.
    pub fn table(&mut self, id: TableId) -> Result<TableLoader<'_, 'c>, Error> {
        let slot = self.inserts.slot(id);
        let statement = match slot {
            Some(statement) => statement,
            None => {
                let table = self.catalogue.get(id);
                let parameters = "?, ".repeat(table.columns.len());
                let sql = format!(
                    "INSERT INTO {} VALUES ({parameters}'{}')",
                    quote(&table.stored_name),
                    self.version
                );
                let statement = self.connection.prepare(&sql).doing("preparing an insert")?;
                slot.insert(statement)
            }
        };
        let (table, limit) = (self.catalogue.get(id), self.row_limit);
        Ok(TableLoader { connection: self.connection, table, statement, limit, room: Room::new(limit) })
    }
}

/// Inserts rows into one table.
pub struct TableLoader<'a, 'c> {
    connection: &'c Connection,
    table: &'a Table,
    statement: &'a mut Statement<'c>,
    limit: usize,
    /// What is left of it in the row at hand.
    room: Room,
}

impl TableLoader<'_, '_> {
    /// Sets a column of the next row, counted from 0.
    pub fn set(&mut self, column: usize, value: &Stored<'_>) -> Result<(), Error> {
        let value =
            if self.room.take(self.table, column, oversize::size(value)) { value } else { &Stored::Null };
        value.bind(self.statement, column + 1).doing("loading a row")
    }

    /// Inserts the row.
    pub fn insert(&mut self) -> Result<(), Error> {
        self.statement.raw_execute().doing("loading a row")?;
        let room = std::mem::replace(&mut self.room, Room::new(self.limit));
        if room.lacking.is_empty() { Ok(()) } else { self.report(&room) }
    }

    /// Says what the last row lacks.
    fn report(&self, room: &Room) -> Result<(), Error> {
        let doing = "looking at a row with a large value";
        let key = self.table.upstream_key();
        let name = |c: &u16| quote(&self.table.columns[usize::from(*c)].stored_name);
        let names: Vec<String> = key.iter().map(name).collect();
        let names = if names.is_empty() { "NULL".to_owned() } else { names.join(", ") };
        // A table whose columns have all the names of the row number is found by none, and has no key said.
        let Some(rowid) = schema::rowid_name(&self.table.columns) else {
            oversize::report(self.table, &[], &room.lacking);
            return Ok(());
        };
        let sql = format!("SELECT {names} FROM {} WHERE {rowid} = ?1", quote(&self.table.stored_name));
        let read = |row: &rusqlite::Row<'_>| (0..key.len()).map(|at| read_value(row, at)).collect();
        let values: Vec<_> =
            self.connection.query_row(&sql, [self.connection.last_insert_rowid()], read).doing(doing)?;
        oversize::report(self.table, &values, &room.lacking);
        Ok(())
    }
}

/// Creates the indexes, writes the metadata, makes the file durable and puts it in the
/// replica's place. `progress` is told the name of each index before it is built.
pub fn finish(
    connection: Connection,
    path: &Path,
    metadata: &Metadata,
    mut progress: impl FnMut(&str, usize, usize),
) -> Result<(), Error> {
    let doing = "building the indexes of the new replica";
    let indexes: Vec<(&str, String)> = metadata
        .catalogue
        .tables()
        .flat_map(|table| {
            schema::create_indexes(table).into_iter().map(|(_, sql)| (table.name.as_str(), sql))
        })
        .collect();
    for (at, (table, sql)) in indexes.iter().enumerate() {
        progress(table, at, indexes.len());
        connection.execute_batch(sql).doing(doing)?;
    }
    metadata::create(&connection, metadata)?;
    let doing = "completing the new replica";
    connection
        .execute_batch(&format!(
            "COMMIT; PRAGMA analysis_limit = {ANALYSIS_LIMIT}; ANALYZE; PRAGMA locking_mode = NORMAL"
        ))
        .doing(doing)?;
    drop(connection);
    let unfinished = unfinished(path);
    File::open(&unfinished).and_then(|file| file.sync_all()).map_err(|source| Error::Io {
        doing: "syncing",
        path: unfinished.clone(),
        source,
    })?;
    file::replace(&unfinished, path)
}
