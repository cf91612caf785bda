//! Everything that a test of the process needs: a database with the app's tables, the
//! app's backend, the server, and a bystander who must not notice anything.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::app::{App, Query, TABLES, query};
use super::client::Client;
use super::lateness::Lateness;
use super::postgres::Cluster;
use super::server::Server;
use super::sql::Sql;

/// A database, an app and a server.
pub struct Stage {
    // Dropped first: the server must not see its database go.
    pub server: Server,
    pub app: App,
    pub sql: Sql,
    pub postgres: u16,
    pub database: String,
}

impl Stage {
    /// On the cluster of this process.
    pub fn new(settings: &[(&str, &str)]) -> Stage {
        Stage::prepared("", settings)
    }

    /// The same with statements that are run before the server starts.
    pub fn prepared(statements: &str, settings: &[(&str, &str)]) -> Stage {
        let mut stage = Stage::unstarted(Cluster::shared(), statements, settings);
        stage.server.start();
        stage
    }

    /// On a cluster, with statements run; the server is not started.
    pub fn unstarted(cluster: &Cluster, statements: &str, settings: &[(&str, &str)]) -> Stage {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let database = format!("stage_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        Sql::connect(cluster.port, "postgres").run(&format!("CREATE DATABASE {database}"));
        let mut sql = Sql::connect(cluster.port, &database);
        sql.run(TABLES);
        if !statements.is_empty() {
            sql.run(statements);
        }
        let app = App::start(cluster.port, &database);
        let mut all = vec![
            ("UPSTREAM_DB", format!("postgres://postgres@127.0.0.1:{}/{database}", cluster.port)),
            ("QUERY_URL", app.query_url()),
            ("MUTATE_URL", app.mutate_url()),
            ("NUM_SYNC_WORKERS", "1".to_owned()),
        ];
        for (name, value) in settings {
            all.retain(|(n, _)| n != name);
            all.push((name, (*value).to_owned()));
        }
        Stage { server: Server::new(&all), app, sql, postgres: cluster.port, database }
    }

    /// A further connection to the database.
    pub fn connect(&self) -> Sql {
        Sql::connect(self.postgres, &self.database)
    }

    /// A tab in a group of its own.
    pub fn client(&self) -> Client {
        Client::new(&self.server)
    }

    /// A tab in a group of its own that has these queries.
    pub fn tab(&self, queries: &[Query]) -> Client {
        let mut client = self.client();
        client.connect(queries);
        client.until_got(queries);
        client
    }

    /// Somebody who sees a change every now and then, from now on.
    pub fn bystander(&self) -> Bystander {
        Bystander::start(self.client(), self.connect())
    }
}

/// A client that makes a change, waits until it sees it, and so on, on a thread of its own.
pub struct Bystander {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Seen>>,
    lateness: Lateness,
}

/// What a bystander saw.
#[derive(Debug, Clone, Copy)]
pub struct Seen {
    /// Changes.
    pub changes: u32,
    /// Longest time from a commit to the poke with it.
    pub slowest: Duration,
}

impl Bystander {
    fn start(mut client: Client, mut sql: Sql) -> Bystander {
        client.connect(&[query("ticks", serde_json::json!([]))]);
        client.until_got(&[query("ticks", serde_json::json!([]))]);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut seen = Seen { changes: 0, slowest: Duration::ZERO };
            while !stopped.load(Ordering::Relaxed) || seen.changes == 0 {
                let id = seen.changes;
                sql.run(&format!("INSERT INTO tick VALUES ({id})"));
                let began = Instant::now();
                client.until("a change of the bystander's", |c| c.store.row("tick", id).is_some());
                seen.slowest = seen.slowest.max(began.elapsed());
                seen.changes += 1;
                std::thread::sleep(Duration::from_millis(10));
            }
            client.round_trip();
            seen
        });
        Bystander { stop, thread: Some(thread), lateness: Lateness::measured() }
    }

    /// Waits for one more change; what the bystander saw must have come promptly, for this machine as it is.
    pub fn finish(mut self, limit: Duration) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("it runs");
        let seen = thread.join().unwrap_or_else(|_| panic!("the bystander was not served"));
        let limit = self.lateness.allow(limit);
        assert!(seen.slowest < limit, "a bystander's change took {:?} of {limit:?}", seen.slowest);
        seen
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
