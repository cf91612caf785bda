//! A replication manager under test, and everything that it says.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use kelvin::model::version::StateVersion;
use kelvin::replica::events::ReplicaReady;
use kelvin::replica::gauges::Gauges;
use kelvin::replica::oversize::MAX_ROW;
use kelvin::replica::verdict::End;
use kelvin::replica::wal::Limits;
use kelvin::upstream::copy::Format;
use kelvin::upstream::manager;
use kelvin::upstream::settings::Settings;
use kelvin_io::channel::{Sender, bounded};
use kelvin_io::executor::{self, Task};
use kelvin_io::postgres::Target;

use super::postgres::Database;
use super::tables;

mod record;

pub use record::Record;
use record::{RecordLog, keyed};

/// Longest time that anything may take.
const LIMIT: Duration = Duration::from_secs(60);

/// A directory that is removed at the end.
pub struct Scratch {
    pub path: PathBuf,
}

impl Scratch {
    pub fn new() -> Scratch {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("kelvin-test-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a directory is made");
        Scratch { path }
    }

    pub fn replica(&self) -> PathBuf {
        self.path.join("replica.db")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

pub fn settings(target: &Target, replica: &Path) -> Settings {
    Settings {
        target: target.clone(),
        app_id: "zero".into(),
        shard: 0,
        publications: vec![],
        replica_file: replica.to_owned(),
        copy_workers: 3,
        copy_format: Format::Binary,
        auto_reset: true,
        connect_timeout: Duration::from_secs(20),
        failover: false,
        inbound_timeout: None,
        heartbeat_interval: None,
        log_limits: Limits::default(),
        row_limit: MAX_ROW,
        task_id: "test".into(),
    }
}

/// Where the database is. What was committed before is published with what is written here, or earlier.
async fn now(database: &Database) -> StateVersion {
    let lsn = database.value("SELECT pg_current_wal_insert_lsn()").await;
    database
        .run(
            "INSERT INTO zero_0.clients VALUES ('marker', 'marker', 1)
             ON CONFLICT (\"clientGroupID\", \"clientID\") DO UPDATE
             SET \"lastMutationID\" = clients.\"lastMutationID\" + 1",
        )
        .await;
    StateVersion::from_lsn(&lsn).expect("an LSN")
}

/// A running manager.
pub struct Replicator {
    pub record: Rc<RefCell<Record>>,
    pub replica: PathBuf,
    stop: Sender<()>,
    task: Option<Task<End>>,
    end: Option<End>,
}

impl Replicator {
    pub fn start(settings: Settings) -> Replicator {
        Replicator::start_with(settings, false)
    }

    pub fn start_with(settings: Settings, forget: bool) -> Replicator {
        let replica = settings.replica_file.clone();
        let record = Record { replica: replica.clone(), forget, ..Record::default() };
        let record = Rc::new(RefCell::new(record));
        let (stop, stopped) = bounded(1);
        let events = Rc::new(RecordLog(record.clone()));
        let task = executor::spawn(manager::run(settings, events, stopped));
        Replicator { record, replica, stop, task: Some(task), end: None }
    }

    /// Starts on a database with its default settings and waits until it is ready.
    pub async fn follow(database: &Database, scratch: &Scratch) -> Replicator {
        let mut replicator = Replicator::start(settings(&database.target, &scratch.replica()));
        replicator.ready().await;
        replicator
    }

    /// Starts on a database with further publications instead of the default one.
    pub async fn follow_publications(database: &Database, scratch: &Scratch, names: &[&str]) -> Replicator {
        let publications = names.iter().map(|name| (*name).to_owned()).collect();
        let settings = Settings { publications, ..settings(&database.target, &scratch.replica()) };
        let mut replicator = Replicator::start(settings);
        replicator.ready().await;
        replicator
    }

    /// Waits until the replica can be read.
    pub async fn ready(&mut self) -> ReplicaReady {
        self.until("the replica is ready", |r| r.start.is_some()).await;
        self.record.borrow().start.clone().expect("it is ready")
    }

    /// Waits for a condition; fails if the manager ends first or time is up.
    pub async fn until(&mut self, what: &str, condition: impl Fn(&Record) -> bool) {
        let started = Instant::now();
        while !condition(&self.record.borrow()) {
            self.ended().await;
            if self.task.is_none() && !condition(&self.record.borrow()) {
                panic!(
                    "waiting until {what}: it ended with {:?}; log {:#?}",
                    self.end,
                    self.record.borrow().log
                );
            }
            assert!(started.elapsed() < LIMIT, "waiting until {what}: {:#?}", self.record.borrow().log);
        }
    }

    /// Waits until everything that the database has committed is here.
    pub async fn catch_up(&mut self, database: &Database) {
        let lsn = now(database).await;
        self.until("the replica has caught up", |r| r.version() >= lsn).await;
    }

    /// Whether it follows until all is here and the tables are upstream's; else it has ended before.
    pub async fn follows(&mut self, database: &Database) -> bool {
        let started = Instant::now();
        let lsn = now(database).await;
        loop {
            if self.ended().await.is_some() {
                return false;
            }
            let is_here = self.record.borrow().start.is_some() && self.record.borrow().version() >= lsn;
            if is_here {
                let catalogue = tables::catalogue(&tables::open(&self.replica));
                if catalogue.filling().next().is_none() && tables::are_those_of(&catalogue, database).await {
                    return true;
                }
            }
            assert!(started.elapsed() < LIMIT, "it stays what it was: {:#?}", self.record.borrow().log);
            executor::sleep(Duration::from_millis(20)).await;
        }
    }

    /// How it ended, if it has.
    pub async fn ended(&mut self) -> Option<End> {
        if let Some(task) = &mut self.task
            && let Some(end) = executor::timeout(Duration::from_millis(2), &mut *task).await
        {
            self.task = None;
            self.end = Some(end.expect("the manager does not panic"));
        }
        self.end.clone()
    }

    /// Catches up and compares every table with upstream, and the commits with both.
    pub async fn check(&mut self, database: &Database) {
        self.catch_up(database).await;
        let connection = tables::open(&self.replica);
        let catalogue = Arc::new(tables::catalogue(&connection));
        tables::assert_equal(database, &catalogue, &self.replica).await;
        let mut record = self.record.borrow_mut();
        let bulk = std::mem::take(&mut record.bulk);
        for table in catalogue.tables() {
            let rows = keyed(&connection, table);
            if bulk.contains(&table.id) {
                record.model.insert(table.id, rows);
            } else {
                assert_eq!(record.model.get(&table.id), Some(&rows), "folded commits of {}", table.name);
            }
        }
    }

    /// Compares the columns that the replica has of some tables with upstream's.
    pub async fn check_tables(&mut self, database: &Database, names: &[&str]) {
        self.catch_up(database).await;
        let connection = tables::open(&self.replica);
        let catalogue = tables::catalogue(&connection);
        for name in names {
            let table = catalogue.table(name).expect("the table exists");
            assert_eq!(
                tables::upstream(database, table).await,
                tables::replica(&connection, table),
                "{name}"
            );
        }
    }

    /// A table as the replica holds it now.
    pub fn rows(&self, name: &str) -> tables::Rows {
        let connection = tables::open(&self.replica);
        let catalogue = tables::catalogue(&connection);
        tables::replica(&connection, catalogue.table(name).expect("the table exists"))
    }

    /// Whether a line of the log holds this text.
    pub fn said(&self, text: &str) -> bool {
        self.record.borrow().log.iter().any(|line| line.contains(text))
    }

    pub fn gauges(&self) -> Arc<Gauges> {
        self.record.borrow().gauges.clone().expect("it is ready")
    }

    /// Waits for the end, which must be that the replica cannot follow; returns why.
    pub async fn resync(self) -> String {
        match self.end().await {
            End::Resync(reason) => reason,
            other => panic!("{other:?} instead of a new sync"),
        }
    }

    /// Waits for the end, which must be a failure; returns its message.
    pub async fn failure(self) -> String {
        match self.end().await {
            End::Failed { message, .. } => message,
            other => panic!("{other:?} instead of a failure"),
        }
    }

    /// Waits for the end.
    pub async fn end(mut self) -> End {
        let Some(task) = self.task.take() else { return self.end.expect("it ended") };
        let end = executor::timeout(LIMIT, task).await;
        end.unwrap_or_else(|| panic!("it does not end: {:#?}", self.record.borrow().log)).expect("no panic")
    }

    /// Stops it.
    pub async fn stop(self) -> End {
        let _ = self.stop.try_send(());
        self.end().await
    }
}
