//! While tables are copied the app migrates, its role has limits of its own, or a policy hides rows: the migration waits or
//! dies, the start fails, or rows are missing.

use std::time::{Duration, Instant};

use crate::support::on_executor;
use crate::support::postgres::{Cluster, Database};
use crate::support::replicator::{Replicator, Scratch, settings};
use kelvin::upstream::settings::Settings;
use kelvin_io::executor;

/// Two tables, the larger of which is copied first.
const LARGE: &str = "CREATE TABLE first (id int PRIMARY KEY, v int, t text);
     CREATE TABLE second (id int PRIMARY KEY, v int, t text); CREATE INDEX second_t ON second (v);
     INSERT INTO first SELECT i, i, repeat('x', 100) FROM generate_series(1, 300000) i;
     INSERT INTO second SELECT i, i, repeat('y', 100) FROM generate_series(1, 200000) i;
     ANALYZE first; ANALYZE second";

/// One table after the other.
fn one_worker(database: &Database, scratch: &Scratch) -> Settings {
    Settings { copy_workers: 1, ..settings(&database.target, &scratch.replica()) }
}

/// Waits until a table is being copied.
async fn until_copied(replicator: &mut Replicator, database: &Database, table: &str) {
    let started = Instant::now();
    let count = format!("SELECT count(*) FROM pg_stat_progress_copy WHERE relid = '{table}'::regclass");
    while database.value(&count).await == "0" {
        assert_eq!(replicator.ended().await.map(|end| format!("{end:?}")), None);
        assert!(started.elapsed() < Duration::from_secs(30), "{table} is not copied");
        executor::sleep(Duration::from_millis(1)).await;
    }
}

#[test]
fn a_table_that_is_copied_already_is_locked() {
    on_executor(|| async {
        let database = Cluster::shared().database().await;
        database.run(LARGE).await;
        let scratch = Scratch::new();
        let mut replicator = Replicator::start(one_worker(&database, &scratch));
        until_copied(&mut replicator, &database, "second").await;
        let started = Instant::now();
        database
            .run("SET lock_timeout = '5s'; ALTER TABLE first ADD COLUMN x int DEFAULT 3; DROP INDEX second_t")
            .await;
        assert!(started.elapsed() < Duration::from_secs(30));
        replicator.ready().await;
        assert!(replicator.follows(&database).await);
        replicator.check(&database).await;
        replicator.stop().await;
    });
}

#[test]
fn a_table_that_is_rewritten_before_its_turn_is_empty() {
    on_executor(|| async {
        let database = Cluster::shared().database().await;
        database.run(LARGE).await;
        let scratch = Scratch::new();
        let mut replicator = Replicator::start(one_worker(&database, &scratch));
        until_copied(&mut replicator, &database, "first").await;
        database.run("ALTER TABLE second ALTER v TYPE bigint").await;
        replicator.ready().await;
        assert!(
            replicator.said("table second was rewritten while it was copied"),
            "{:#?}",
            replicator.record.borrow().log
        );
        replicator.check(&database).await;
        replicator.stop().await;
    });
}

#[test]
fn limits_that_the_app_has_for_its_sessions_end_ours() {
    on_executor(|| async {
        let cluster = Cluster::start("");
        let database = cluster.database().await;
        database.run(LARGE).await;
        let name = &database.target.database;
        for setting in [
            "statement_timeout = '20ms'",
            "default_transaction_read_only = on",
            "idle_session_timeout = '100ms'",
            "idle_in_transaction_session_timeout = '50ms'",
        ] {
            database.run(&format!("ALTER DATABASE {name} SET {setting}")).await;
        }
        let scratch = Scratch::new();
        let mut replicator = Replicator::start(one_worker(&database, &scratch));
        replicator.ready().await;
        database.run("UPDATE second SET v = 0 WHERE id < 10").await;
        executor::sleep(Duration::from_millis(300)).await;
        replicator.check(&database).await;
        assert!(!replicator.said("lost"), "{:#?}", replicator.record.borrow().log);
        replicator.stop().await;
    });
}

#[test]
fn rows_that_a_policy_hides_are_missed() {
    on_executor(|| async {
        let database = Cluster::shared().database().await;
        database
            .run(&format!(
                "CREATE ROLE hidden LOGIN REPLICATION; GRANT CREATE ON DATABASE {} TO hidden;
                 CREATE TABLE t (id int PRIMARY KEY, owner text); INSERT INTO t VALUES (1, 'hidden'), (2, 'other');
                 ALTER TABLE t ENABLE ROW LEVEL SECURITY; CREATE POLICY own ON t USING (owner = current_user);
                 GRANT SELECT ON t TO hidden; CREATE PUBLICATION pub FOR TABLE t",
                database.target.database
            ))
            .await;
        let scratch = Scratch::new();
        let mut settings = settings(&database.target, &scratch.replica());
        settings.target.user = "hidden".into();
        settings.publications = vec!["pub".into()];
        let message = Replicator::start(settings.clone()).failure().await;
        assert!(message.contains("table t has row security") && message.contains("BYPASSRLS"), "{message}");
        assert!(!scratch.replica().exists(), "nothing can be served");
        database.run("ALTER ROLE hidden BYPASSRLS").await;
        let mut replicator = Replicator::start(settings);
        replicator.ready().await;
        assert_eq!(replicator.rows("t").len(), 2);
        replicator.stop().await;
        database.run("ALTER ROLE hidden NOBYPASSRLS NOREPLICATION").await;
    });
}
