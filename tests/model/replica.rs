//! A replica file of a test, written by the real applier.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use kelvin::model::catalogue::Catalogue;
use kelvin::model::commit::{Commit, Row as StoredRow};
use kelvin::model::ids::TableId;
use kelvin::model::version::StateVersion;
use kelvin::replica::apply::Applier;
use kelvin::replica::live_indexes::{self, IndexRequest};
use kelvin::replica::metadata::{self, Metadata};
use kelvin::replica::reader::Reader;
use kelvin::replica::schema as sql;
use kelvin::replica::work::{Absent, Before};
use rusqlite::Connection;

use super::cell::Cell;
use super::database::{Row, Write};
use super::schema::Schema;

/// Version of the empty replica.
pub const FIRST: StateVersion = StateVersion(10);

pub struct Replica {
    directory: PathBuf,
    connection: Rc<Connection>,
    schema: Schema,
    pub version: StateVersion,
}

impl Replica {
    pub fn create(schema: &Schema) -> Replica {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let name = format!("kelvin-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let directory = files().join(name);
        std::fs::create_dir_all(&directory).expect("a directory for the replica");
        let connection = Connection::open(directory.join("replica")).expect("a new file");
        connection
            .execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF; BEGIN")
            .expect("a transaction");
        for statement in sql::create_tables(&schema.catalogue) {
            connection.execute_batch(&statement).expect("a table");
        }
        for (_, statement) in schema.catalogue.tables().flat_map(sql::create_indexes) {
            connection.execute_batch(&statement).expect("an index");
        }
        metadata::create(&connection, &about(schema)).expect("the metadata");
        connection.execute_batch("COMMIT").expect("a commit");
        let connection = Rc::new(connection);
        Replica { directory, connection, schema: schema.clone(), version: FIRST }
    }

    pub fn path(&self) -> PathBuf {
        file(&self.directory)
    }

    /// A reader as hydrations have.
    pub fn hydration_reader(&self) -> Reader {
        Reader::open(&self.path()).expect("a reader")
    }

    /// A reader as a core looks again with.
    pub fn reader(&self) -> Reader {
        let reader = self.hydration_reader();
        reader.keep_plans().expect("the setting");
        reader
    }

    /// Creates an index that a query would read by. `None`: there are too many, or it is there.
    pub fn index(&mut self, catalogue: &Catalogue, index_request: &IndexRequest) -> Option<Arc<Catalogue>> {
        let created = live_indexes::create(&self.connection, catalogue, index_request).expect("an index");
        created.map(Arc::new)
    }

    /// Applies one upstream transaction.
    pub fn commit(&mut self, writes: &[Write]) -> Arc<Commit> {
        let (commit, show) = self.prepare(writes);
        show();
        commit
    }

    /// The same up to where readers would see it; they do from the call that is returned.
    pub fn prepare(&mut self, writes: &[Write]) -> (Arc<Commit>, impl FnOnce() + 'static) {
        let previous = self.version;
        // Versions are positions of a log: they have gaps.
        self.version = StateVersion(previous.0 + 3);
        self.connection.execute_batch("BEGIN IMMEDIATE").expect("a transaction");
        let mut applier = Applier::new(&self.connection, self.schema.catalogue.clone());
        applier.begin(self.version);
        writes.iter().for_each(|write| self.apply(&mut applier, write));
        assert_eq!(applier.surprises, 0, "the model and the replica differ");
        let (tables, size) = applier.net.take();
        drop(applier);
        self.connection
            .execute(r#"UPDATE "_zero.replicationState" SET stateVersion = ?1"#, [self.version.to_lexi()])
            .expect("the state version");
        let connection = self.connection.clone();
        let show = move || connection.execute_batch("COMMIT").expect("a commit");
        (Arc::new(Commit { version: self.version, previous, tables, size }), show)
    }

    fn apply(&self, applier: &mut Applier, write: &Write) {
        let id = |table: &usize| TableId(*table as u16);
        let key = |table: &usize, row: &Row| {
            Before::Key(self.schema.spec(*table).row_key.iter().map(|c| row[*c].stored()).collect())
        };
        let done = match write {
            Write::Insert { table, row } => applier.insert(id(table), stored(row)),
            Write::Update { table, old, new } => {
                applier.update(id(table), key(table, old), stored(new), &Absent::new())
            }
            Write::Delete { table, row } => applier.delete(id(table), &key(table, row)),
            Write::Truncate { table } => applier.truncate(&[id(table)]),
        };
        done.expect("the replica takes every write");
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// Where the files are: in memory, if that can be had.
fn files() -> PathBuf {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() }
}

fn file(directory: &Path) -> PathBuf {
    directory.join("replica")
}

fn stored(row: &Row) -> StoredRow {
    row.iter().map(Cell::stored).collect()
}

fn about(schema: &Schema) -> Metadata {
    Metadata {
        catalogue: (*schema.catalogue).clone(),
        system_identifier: "test".to_owned(),
        database_oid: 1,
        slot: "test".to_owned(),
        publications: Vec::new(),
        shard: "test_0".to_owned(),
        replica_version: FIRST,
        state_version: FIRST,
        position: FIRST,
        resync: None,
    }
}
