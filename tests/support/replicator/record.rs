//! What a replication manager says, and its commits folded over the tables.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

use kelvin::model::catalogue::{Catalogue, Column, Table};
use kelvin::model::commit::{Commit, TableChange};
use kelvin::model::ids::TableId;
use kelvin::model::logging::Level;
use kelvin::model::value::Value;
use kelvin::model::version::StateVersion;
use kelvin::replica::events::{Events, ReplicaReady};
use kelvin::replica::gauges::Gauges;
use kelvin::replica::live_indexes::IndexRequest;
use kelvin::replica::writer::Commits;
use kelvin_io::channel::{Receiver, Sender, bounded};
use kelvin_io::executor;

use super::tables;

/// Commits that may wait to be checked.
const COMMITS: usize = 64;

/// Both ends of the channel of index_requests.
pub struct Wishes(pub Sender<IndexRequest>, Receiver<IndexRequest>);

impl Default for Wishes {
    fn default() -> Self {
        let (sender, receiver) = bounded(8);
        Wishes(sender, receiver)
    }
}

/// What the manager said.
#[derive(Default)]
pub struct Record {
    pub progress: Vec<String>,
    pub log: Vec<String>,
    pub start: Option<ReplicaReady>,
    pub gauges: Option<Arc<Gauges>>,
    pub commits: Vec<Arc<Commit>>,
    /// Catalogues with further indexes.
    pub indexed: Vec<Arc<Catalogue>>,
    /// Where indexes are wished for.
    pub index_requests: Wishes,
    /// Tables as the commits make them: key -> row.
    pub(super) model: BTreeMap<TableId, BTreeMap<String, String>>,
    /// Tables that a commit did not list row by row, or whose rows have other columns than before.
    pub(super) bulk: BTreeSet<TableId>,
    pub rebegins: u32,
    /// Readers answer that they cannot begin again now, and do not.
    pub busy: bool,
    /// Readers as cores hold them: each has a read transaction open at any time.
    pub readers: Vec<rusqlite::Connection>,
    /// Largest log, in bytes, that was seen after a commit.
    pub largest_log: u64,
    pub(super) replica: PathBuf,
    /// Epoch of the tables that the model is of.
    pub(super) epoch: u64,
    /// Commits with their rows are kept; off for measurements.
    pub forget: bool,
}

pub struct RecordLog(pub Rc<RefCell<Record>>);

impl Events for RecordLog {
    fn progress(&self, text: &str) {
        self.0.borrow_mut().progress.push(text.to_owned());
    }

    fn log(&self, level: Level, message: &str, fields: &[(&str, String)]) {
        let line = format!("{level:?} {message} {fields:?}");
        if std::env::var_os("KELVIN_TEST_LOG").is_some() {
            eprintln!("{line}");
        }
        self.0.borrow_mut().log.push(line);
    }

    fn gauges(&self, gauges: Arc<Gauges>) {
        self.0.borrow_mut().gauges = Some(gauges);
    }

    fn ready(&self, start: ReplicaReady) {
        let mut record = self.0.borrow_mut();
        let connection = tables::open(&record.replica);
        if !record.forget {
            record.epoch = start.catalogue.epoch;
            for table in start.catalogue.tables() {
                let rows = keyed(&connection, table);
                record.model.insert(table.id, rows);
            }
        }
        record.start = Some(start);
    }

    fn commits(&self) -> Commits {
        let (sender, commits) = bounded(COMMITS);
        let record = self.0.clone();
        executor::spawn(async move {
            while let Ok(commit) = commits.recv().await {
                record.borrow_mut().hear(commit);
            }
        })
        .detach();
        Box::new(move |commit, _| sender.send_blocking(commit).unwrap_or_default())
    }

    fn indexed(&self, catalogue: Arc<Catalogue>) {
        self.0.borrow_mut().indexed.push(catalogue);
    }

    fn index_requests(&self) -> Receiver<IndexRequest> {
        self.0.borrow().index_requests.1.clone()
    }

    fn readers_rebegin(&self) -> Pin<Box<dyn Future<Output = bool>>> {
        let mut record = self.0.borrow_mut();
        record.rebegins += 1;
        let free = !record.busy;
        if free {
            record.begin_again();
        }
        Box::pin(async move { free })
    }
}

/// Rows of a table of the replica by key. Empty for a table without key.
pub(super) fn keyed(connection: &rusqlite::Connection, table: &Table) -> BTreeMap<String, String> {
    if table.row_key.is_empty() {
        return BTreeMap::new();
    }
    let key_table = Table {
        columns: table
            .row_key
            .iter()
            .chain(&(0..table.columns.len() as u16).collect::<Vec<_>>())
            .map(|c| table.columns[*c as usize].clone())
            .collect(),
        ..table.clone()
    };
    // Key columns first, then all: the printed row is cut where the key ends.
    let width = table.row_key.len();
    let mut rows = BTreeMap::new();
    for values in tables::replica_values(connection, &key_table) {
        let (key, there) = values.split_at(width);
        let mut there = there.iter().cloned();
        // As commits have it: nothing in a column that is gone.
        let value = |column: &Column| if column.gone { Value::Null } else { there.next().expect("a value") };
        let whole: Vec<Value> = table.columns.iter().map(value).collect();
        rows.insert(tables::print(key), tables::print(&whole));
    }
    rows
}

impl Record {
    /// Gives the replica readers, which begin now.
    pub fn add_readers(&mut self, n: usize) {
        self.readers = (0..n).map(|_| tables::open(&self.replica)).collect();
        self.readers.iter().for_each(|reader| reader.execute_batch("BEGIN").expect("it begins"));
        self.begin_again();
    }

    fn begin_again(&self) {
        for reader in &self.readers {
            reader.execute_batch("ROLLBACK; BEGIN").expect("it begins");
            // Only a read takes the snapshot.
            let count =
                reader.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get::<_, i64>(0));
            count.expect("it reads");
        }
    }

    fn hear(&mut self, commit: Arc<Commit>) {
        self.take(commit);
        let size = self.gauges.as_ref().map_or(0, |gauges| gauges.wal_bytes());
        self.largest_log = self.largest_log.max(size);
        if !self.busy {
            self.begin_again();
        }
    }

    pub(super) fn version(&self) -> StateVersion {
        let start = self.start.as_ref().map(|s| s.version).unwrap_or_default();
        self.commits.last().map_or(start, |c| c.version)
    }

    /// Rows of tables that have become others are not compared until all of them are looked at.
    fn follow_schema(&mut self) {
        let connection = tables::open(&self.replica);
        let epoch =
            connection.query_row("SELECT epoch FROM \"_kelvin.schema\"", [], |row| row.get::<_, i64>(0));
        let epoch = epoch.expect("an epoch") as u64;
        if epoch != self.epoch {
            let catalogue = tables::catalogue(&connection);
            let changed = catalogue.tables().filter(|table| table.epoch > self.epoch).map(|table| table.id);
            self.bulk.extend(changed);
            self.epoch = epoch;
        }
    }

    /// Folds a commit over the model; fails if it does not fit.
    fn take(&mut self, commit: Arc<Commit>) {
        assert_eq!(commit.previous, self.version(), "commits follow each other");
        assert!(commit.version > commit.previous, "versions grow");
        assert!(self.start.is_some(), "ready came first");
        if self.forget {
            let light = Commit { tables: Default::default(), ..(*commit).clone() };
            self.commits.push(Arc::new(light));
            return;
        }
        self.follow_schema();
        for (id, change) in &commit.tables {
            let TableChange::Rows(rows) = change else {
                self.bulk.insert(*id);
                continue;
            };
            if self.bulk.contains(id) {
                continue;
            }
            let model = self.model.entry(*id).or_default();
            assert!(!rows.is_empty(), "a table without changes is not listed");
            for row in rows {
                assert_ne!(row.old, row.new, "equal rows are dropped");
                let key = tables::print(&row.key);
                let old = row.old.as_ref().map(|old| tables::print(old));
                assert_eq!(model.get(&key), old.as_ref(), "the old row of {id:?} {key}");
                match &row.new {
                    Some(new) => model.insert(key, tables::print(new)),
                    None => model.remove(&key),
                };
            }
        }
        self.commits.push(commit);
    }
}
