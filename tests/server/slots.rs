//! Slots and files that do not fit each other any more: a silent gap, or data that is
//! thrown away without being asked.

use std::time::Duration;

use crate::support::on_executor;
use crate::support::postgres::{Cluster, Database};
use crate::support::replicator::{Replicator, Scratch, settings};
use kelvin_io::executor;

const TABLE: &str =
    "CREATE TABLE t (id int PRIMARY KEY, n int); INSERT INTO t SELECT i, i FROM generate_series(1, 99) i;";

/// A replica that was synced, followed something and was stopped.
async fn stopped(database: &Database, scratch: &Scratch) {
    database.run(TABLE).await;
    let mut replicator = Replicator::follow(database, scratch).await;
    database.run("UPDATE t SET n = 0 WHERE id = 1").await;
    replicator.check(database).await;
    replicator.stop().await;
    // The server notices a moment later.
    for _ in 0..100 {
        if database
            .value("SELECT count(*) FROM pg_replication_slots WHERE active AND database = current_database()")
            .await
            == "0"
        {
            return;
        }
        executor::sleep(Duration::from_millis(20)).await;
    }
    panic!("the slot stays active");
}

/// Starts again and expects a new sync, for a reason that the log names.
async fn synced_anew(database: &Database, scratch: &Scratch, reason: &str) -> Replicator {
    let mut replicator = Replicator::follow(database, scratch).await;
    assert!(replicator.said(reason), "{:#?}", replicator.record.borrow().log);
    assert!(replicator.said("starting an initial sync"));
    database.run("UPDATE t SET n = n + 1000 WHERE id = 3").await;
    replicator.check(database).await;
    replicator
}

/// Starts without `auto_reset`; the file must stay as it is.
async fn halts(database: &Database, scratch: &Scratch, reason: &str) {
    // Whoever closes the file last moves what is in the log into it.
    let connection = rusqlite::Connection::open(scratch.replica()).unwrap();
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    drop(connection);
    let before = std::fs::read(scratch.replica()).unwrap();
    let mut settings = settings(&database.target, &scratch.replica());
    settings.auto_reset = false;
    let message = Replicator::start(settings).failure().await;
    assert!(message.contains(reason) && message.contains("ZERO_AUTO_RESET=true"), "{message}");
    assert!(std::fs::read(scratch.replica()).unwrap() == before, "the file was changed");
}

async fn slot(database: &Database) -> String {
    database.value("SELECT slot_name FROM pg_replication_slots WHERE database = current_database()").await
}

#[test]
fn a_slot_that_was_dropped() {
    on_executor(|| async {
        let database = Cluster::shared().database().await;
        let scratch = Scratch::new();
        stopped(&database, &scratch).await;
        let slot = slot(&database).await;
        database.run(&format!("SELECT pg_drop_replication_slot('{slot}'); DELETE FROM t WHERE id = 7")).await;
        halts(&database, &scratch, "does not exist any more").await;
        synced_anew(&database, &scratch, "does not exist any more").await.stop().await;
    });
}

#[test]
fn a_slot_that_was_moved_forward() {
    on_executor(|| async {
        let database = Cluster::shared().database().await;
        let scratch = Scratch::new();
        stopped(&database, &scratch).await;
        let slot = slot(&database).await;
        database.run("DELETE FROM t WHERE id = 8").await;
        database.run(&format!("SELECT pg_replication_slot_advance('{slot}', pg_current_wal_lsn())")).await;
        halts(&database, &scratch, "changes between are lost").await;
        synced_anew(&database, &scratch, "changes between are lost").await.stop().await;
    });
}

#[test]
fn a_slot_that_was_dropped_while_the_stream_was_away() {
    on_executor(|| async {
        let database = Cluster::shared().database().await;
        let scratch = Scratch::new();
        database.run(TABLE).await;
        let replicator = Replicator::follow(&database, &scratch).await;
        let slot = slot(&database).await;
        database
            .run(&format!(
                "DO $$ BEGIN
                   PERFORM pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = '{slot}';
                   FOR i IN 1..100 LOOP
                     BEGIN PERFORM pg_drop_replication_slot('{slot}'); RETURN;
                     EXCEPTION WHEN object_in_use THEN PERFORM pg_sleep(0.01); END;
                   END LOOP;
                 END $$"
            ))
            .await;
        let reason = replicator.resync().await;
        assert!(reason.contains("does not exist any more"), "{reason}");
        synced_anew(&database, &scratch, "does not exist any more").await.stop().await;
    });
}

#[test]
fn a_slot_that_was_lost_to_the_size_limit() {
    on_executor(|| async {
        let cluster =
            Cluster::start("max_slot_wal_keep_size = 16MB\nmax_wal_size = 32MB\nmin_wal_size = 32MB");
        let database = cluster.database().await;
        let scratch = Scratch::new();
        stopped(&database, &scratch).await;
        database.run("CREATE SCHEMA other; CREATE TABLE other.junk (t text)").await;
        for _ in 0..4 {
            database
                .run(
                    "INSERT INTO other.junk SELECT repeat(md5(i::text), 50) FROM generate_series(1, 20000) i;
                     SELECT pg_switch_wal(); CHECKPOINT",
                )
                .await;
        }
        assert_eq!(database.value("SELECT wal_status FROM pg_replication_slots").await, "lost");
        halts(&database, &scratch, "max_slot_wal_keep_size").await;
        synced_anew(&database, &scratch, "max_slot_wal_keep_size").await.stop().await;
    });
}

#[test]
fn another_cluster_in_the_place_of_the_first() {
    on_executor(|| async {
        let first = Cluster::shared().database().await;
        let scratch = Scratch::new();
        stopped(&first, &scratch).await;
        let cluster = Cluster::start_anew("");
        let second = cluster.database().await;
        second.run(TABLE).await;
        second.run("DELETE FROM t WHERE id > 50").await;
        halts(&second, &scratch, "the upstream database is another one").await;
        synced_anew(&second, &scratch, "the upstream database is another one").await.stop().await;
    });
}

#[test]
fn foreign_files_are_renamed_and_kept() {
    on_executor(|| async {
        let database = Cluster::shared().database().await;
        let scratch = Scratch::new();
        database.run(TABLE).await;
        let connection = rusqlite::Connection::open(scratch.replica()).unwrap();
        connection.execute_batch("CREATE TABLE mine (a); INSERT INTO mine VALUES (42)").unwrap();
        drop(connection);
        let replicator = Replicator::follow(&database, &scratch).await;
        assert!(replicator.said("it was renamed"));
        replicator.stop().await;
        let aside = scratch.path.join("replica.db.aside");
        let kept = rusqlite::Connection::open(&aside).unwrap();
        assert_eq!(kept.query_row("SELECT a FROM mine", [], |r| r.get::<_, i64>(0)).unwrap(), 42);
        // A second one, and no database at all; the sidecars go with it.
        std::fs::write(scratch.replica(), "notes of somebody").unwrap();
        std::fs::write(scratch.path.join("replica.db-wal2"), "more").unwrap();
        let mut replicator = Replicator::follow(&database, &scratch).await;
        replicator.check(&database).await;
        replicator.stop().await;
        assert_eq!(std::fs::read(scratch.path.join("replica.db.aside2")).unwrap(), b"notes of somebody");
        assert_eq!(std::fs::read(scratch.path.join("replica.db.aside2-wal2")).unwrap(), b"more");
    });
}

#[test]
fn a_damaged_replica_is_made_anew() {
    on_executor(|| async {
        let database = Cluster::shared().database().await;
        let scratch = Scratch::new();
        stopped(&database, &scratch).await;
        let mut bytes = std::fs::read(scratch.replica()).unwrap();
        bytes[100..].fill(0xaa);
        std::fs::write(scratch.replica(), bytes).unwrap();
        synced_anew(&database, &scratch, "damaged").await.stop().await;
    });
}

#[test]
fn a_replica_that_is_damaged_where_nobody_looks_at_the_start_is_made_anew_once() {
    on_executor(|| async {
        let database = Cluster::shared().database().await;
        let scratch = Scratch::new();
        database.run("CREATE TABLE wide (id int PRIMARY KEY, t text); INSERT INTO wide SELECT i, repeat('w', 500) FROM generate_series(1, 5000) i").await;
        stopped(&database, &scratch).await;
        let connection = rusqlite::Connection::open(scratch.replica()).unwrap();
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
        drop(connection);
        let mut bytes = std::fs::read(scratch.replica()).unwrap();
        let (from, to) = (bytes.len() / 4, bytes.len() * 3 / 4);
        bytes[from..to].fill(0xaa);
        std::fs::write(scratch.replica(), bytes).unwrap();
        // The test itself could not read it either.
        let mut replicator = Replicator::start_with(settings(&database.target, &scratch.replica()), true);
        replicator.ready().await;
        database.run("UPDATE wide SET t = 'n'").await;
        let reason = replicator.resync().await;
        assert!(reason.contains("damaged"), "{reason}");
        let mut again = Replicator::follow(&database, &scratch).await;
        again.check(&database).await;
        again.stop().await;
    });
}

#[test]
fn a_database_that_was_restored_from_before_is_noticed() {
    on_executor(|| async {
        let cluster = Cluster::start("");
        let database = cluster.database().await;
        let scratch = Scratch::new();
        stopped(&database, &scratch).await;
        let target = database.target.clone();
        drop(database);
        cluster.stop("fast");
        cluster.run_there("sh", &["-c", "cp -r . ../kelvin-test-pg-kept-$(basename $PWD)"]);
        cluster.launch();
        let database = Database::open(target.clone()).await;
        let mut replicator = Replicator::follow(&database, &scratch).await;
        database.run("INSERT INTO t SELECT i, i FROM generate_series(1000, 3000) i").await;
        replicator.check(&database).await;
        replicator.stop().await;
        drop(database);
        cluster.stop("fast");
        cluster.run_there(
            "sh",
            &["-c", "k=../kelvin-test-pg-kept-$(basename $PWD); rm -rf ./*; cp -r $k/. . && rm -rf $k"],
        );
        cluster.launch();
        let database = Database::open(target).await;
        database.run("UPDATE t SET n = 5 WHERE id = 2").await;
        synced_anew(&database, &scratch, "has gone back").await.stop().await;
    });
}

#[test]
fn slots_of_replaced_replicas_are_dropped() {
    on_executor(|| async {
        let database = Cluster::shared().database().await;
        let scratch = Scratch::new();
        stopped(&database, &scratch).await;
        std::fs::remove_file(scratch.replica()).unwrap();
        let mut replicator = Replicator::follow(&database, &scratch).await;
        replicator.check(&database).await;
        replicator
            .until("the old slot is dropped", |r| r.log.iter().any(|l| l.contains("dropped an unused")))
            .await;
        let count = "SELECT count(*) FROM pg_replication_slots WHERE database = current_database()";
        assert_eq!(database.value(count).await, "1");
        replicator.stop().await;
    });
}
