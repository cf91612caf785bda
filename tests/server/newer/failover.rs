//! Slots and origins: a slot that is not there after the standby has taken over, a server that does not know such slots,
//! or rows that came to upstream from elsewhere and never go on.

use std::time::{Duration, Instant};

use super::made_anew;
use crate::support::on_executor;
use crate::support::postgres::{Cluster, Database, is_before, is_since};
use crate::support::replicator::{Replicator, Scratch, settings};
use kelvin::upstream::settings::Settings;
use kelvin_io::executor;

const TABLE: &str =
    "CREATE TABLE t (id int PRIMARY KEY, n int); INSERT INTO t SELECT i, i FROM generate_series(1, 50) i";

fn with_failover(database: &Database, scratch: &Scratch) -> Settings {
    Settings { failover: true, ..settings(&database.target, &scratch.replica()) }
}

/// A server that does not know such slots refuses to make one.
#[test]
fn a_failover_slot_is_asked_for_where_there_is_none() {
    on_executor(|| async {
        let database = Cluster::shared().database().await;
        let scratch = Scratch::new();
        database.run(TABLE).await;
        let mut replicator = Replicator::start(with_failover(&database, &scratch));
        replicator.ready().await;
        database.run("UPDATE t SET n = 0 WHERE id = 1").await;
        replicator.check(&database).await;
        let slot = "SELECT coalesce(to_jsonb(s)->>'failover', 'unknown') FROM pg_replication_slots s WHERE database = current_database()";
        let (failover, is_ignored) = if is_since(17) { ("true", false) } else { ("unknown", true) };
        assert_eq!(database.value(slot).await, failover);
        assert_eq!(replicator.said("SLOT_FAILOVER is ignored"), is_ignored);
        replicator.stop().await;
    });
}

#[test]
fn a_slot_fails_over_that_was_not_asked_to() {
    if is_before(17) {
        return;
    }
    on_executor(|| async {
        let database = Cluster::shared().database().await;
        let scratch = Scratch::new();
        database.run(TABLE).await;
        let replicator = Replicator::follow(&database, &scratch).await;
        let slot = "SELECT failover::text FROM pg_replication_slots WHERE database = current_database()";
        assert_eq!(database.value(slot).await, "false");
        replicator.stop().await;
    });
}

/// Waits until the standby has the slot for good.
async fn until_synced(primary: &Database, standby: &Database) {
    let started = Instant::now();
    let synced = "SELECT count(*) FROM pg_replication_slots WHERE synced AND NOT temporary";
    while standby.value(synced).await != "1" {
        assert!(started.elapsed() < Duration::from_secs(60), "the standby does not get the slot");
        primary.run("UPDATE t SET n = n + 1 WHERE id = 2; SELECT pg_log_standby_snapshot()").await;
        executor::sleep(Duration::from_millis(200)).await;
    }
}

#[test]
fn a_standby_that_takes_over_makes_everybody_start_anew() {
    if is_before(17) {
        return;
    }
    on_executor(|| async {
        let cluster = Cluster::start("synchronized_standby_slots = 'standby'");
        let database = cluster.database().await;
        database.run(TABLE).await;
        database.run("SELECT pg_create_physical_replication_slot('standby', true)").await;
        let name = database.target.database.clone();
        drop(database);
        let standby = cluster.standby(
            "hot_standby_feedback = on\nprimary_slot_name = 'standby'\nwal_retrieve_retry_interval = '100ms'",
        );
        let database = Database::open(cluster.target(&name)).await;
        let scratch = Scratch::new();
        let mut replicator = Replicator::start(with_failover(&database, &scratch));
        replicator.ready().await;
        let there = Database::open(standby.target(&name)).await;
        // Only now: without a primary whoever does it gives up for a minute.
        there.run("ALTER SYSTEM SET sync_replication_slots = on").await;
        standby.reload();
        until_synced(&database, &there).await;
        database.run("UPDATE t SET n = -1 WHERE id = 7; DELETE FROM t WHERE id = 8").await;
        replicator.check(&database).await;
        // The standby gets what was written while nobody followed, and then there is no other server.
        replicator.stop().await;
        database.run("UPDATE t SET n = -2 WHERE id = 9").await;
        let written = database.value("SELECT pg_current_wal_flush_lsn()").await;
        let replayed = format!("SELECT pg_last_wal_replay_lsn() >= '{written}'");
        while there.value(&replayed).await != "t" {
            executor::sleep(Duration::from_millis(20)).await;
        }
        drop(database);
        cluster.stop("immediate");
        there.run("SELECT pg_promote()").await;
        there.run("UPDATE t SET n = -3 WHERE id = 10; INSERT INTO t VALUES (100, 100)").await;
        let mut replicator = Replicator::start(with_failover(&there, &scratch));
        replicator.ready().await;
        assert!(!replicator.said("starting an initial sync"), "{:#?}", replicator.record.borrow().log);
        replicator.check(&there).await;
        replicator.stop().await;
    });
}

#[test]
fn a_slot_that_was_lost_because_nobody_used_it_is_said_to_be_too_far_behind() {
    if is_before(18) {
        return;
    }
    on_executor(|| async {
        let cluster = Cluster::start("idle_replication_slot_timeout = '1s'");
        let database = cluster.database().await;
        let scratch = Scratch::new();
        database.run(TABLE).await;
        Replicator::follow(&database, &scratch).await.stop().await;
        let started = Instant::now();
        while database.value("SELECT wal_status FROM pg_replication_slots").await != "lost" {
            assert!(started.elapsed() < Duration::from_secs(30), "the slot is not lost");
            executor::sleep(Duration::from_millis(500)).await;
            database.run("INSERT INTO t SELECT max(id) + 1 FROM t; SELECT pg_switch_wal(); CHECKPOINT").await;
        }
        let mut replicator = Replicator::follow(&database, &scratch).await;
        assert!(replicator.said("idle_replication_slot_timeout"), "{:#?}", replicator.record.borrow().log);
        replicator.check(&database).await;
        replicator.stop().await;
    });
}

/// Upstream subscribes to another database: what comes from there has an origin.
async fn through_a_subscription(options: &str) {
    let source = Cluster::shared().database().await;
    let database = Cluster::shared().database().await;
    let scratch = Scratch::new();
    let table = "CREATE TABLE t (id int PRIMARY KEY, n int)";
    let slot = format!("from_{}", source.target.database);
    source.run(&format!("{table}; CREATE PUBLICATION p FOR TABLE t")).await;
    source.run(&format!("SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')")).await;
    database.run(&format!("{table}; INSERT INTO t VALUES (-1, 1), (-2, 2)")).await;
    let mut replicator = Replicator::follow(&database, &scratch).await;
    let (port, name) = (source.target.port, &source.target.database);
    database
        .run(&format!(
            "CREATE SUBSCRIPTION s_{slot} CONNECTION 'host=127.0.0.1 port={port} user=postgres dbname={name}' PUBLICATION p
               WITH (create_slot = false, slot_name = '{slot}', copy_data = false{options})"
        ))
        .await;
    source
        .run(
            "INSERT INTO t SELECT i, i FROM generate_series(1, 100) i; UPDATE t SET n = 0 WHERE id < 10;
             UPDATE t SET id = id + 1000 WHERE id > 90; DELETE FROM t WHERE id = 50",
        )
        .await;
    database.run("UPDATE t SET n = 7 WHERE id = -1").await;
    let started = Instant::now();
    while database.value("SELECT count(*) || ' ' || coalesce(max(id), 0) FROM t").await != "101 1100" {
        assert!(started.elapsed() < Duration::from_secs(30), "the subscription does not bring it");
        executor::sleep(Duration::from_millis(50)).await;
    }
    replicator.check(&database).await;
    database
        .run(&format!(
            "ALTER SUBSCRIPTION s_{slot} DISABLE; ALTER SUBSCRIPTION s_{slot} SET (slot_name = NONE); DROP SUBSCRIPTION s_{slot}"
        ))
        .await;
    replicator.stop().await;
}

#[test]
fn what_upstream_has_from_another_database_is_missing() {
    on_executor(|| async {
        through_a_subscription("").await;
        if !is_before(16) {
            // Two databases that subscribe to each other take only what was written in the other.
            through_a_subscription(", origin = none").await;
        }
        // The same of whoever names an origin for what they write.
        let database = Cluster::shared().database().await;
        let scratch = Scratch::new();
        database.run(TABLE).await;
        let mut replicator = Replicator::follow(&database, &scratch).await;
        let name = format!("of_{}", database.target.database);
        database
            .run(&format!(
                "SELECT pg_replication_origin_create('{name}'), pg_replication_origin_session_setup('{name}')"
            ))
            .await;
        database.run("BEGIN; SELECT pg_replication_origin_xact_setup('0/1234', now()); UPDATE t SET n = 9 WHERE id < 9; COMMIT").await;
        database.run("SELECT pg_replication_origin_session_reset(); DELETE FROM t WHERE id = 20").await;
        replicator.check(&database).await;
        replicator.stop().await;
    });
}

const REMADE: [&str; 3] = [
    "DROP PUBLICATION mine",
    "UPDATE t SET n = -1 WHERE id = 3; DELETE FROM t WHERE id = 4",
    "CREATE PUBLICATION mine FOR TABLE t",
];

async fn with_a_publication(database: &Database, scratch: &Scratch) -> Settings {
    database.run(TABLE).await;
    database.run("CREATE PUBLICATION mine FOR TABLE t").await;
    Settings { publications: vec!["mine".into()], ..settings(&database.target, &scratch.replica()) }
}

/// Postgres fails at what was written while there was no publication; from 18 on it warns and passes over it. So it does for a
/// role that wants no warnings.
#[test]
fn what_was_written_while_there_was_no_publication_is_missing() {
    on_executor(|| async {
        let database = Cluster::shared().database().await;
        let scratch = Scratch::new();
        let settings = with_a_publication(&database, &scratch).await;
        let name = &database.target.database;
        database.run(&format!("ALTER DATABASE \"{name}\" SET client_min_messages = error")).await;
        let mut replicator = Replicator::start(settings.clone());
        replicator.ready().await;
        replicator.stop().await;
        // Nobody follows meanwhile, and then under a running stream, faster than anybody looks.
        for is_running in [false, true] {
            let mut replicator = is_running.then(|| Replicator::start(settings.clone()));
            if let Some(replicator) = &mut replicator {
                replicator.ready().await;
            }
            for statement in REMADE {
                database.run(statement).await;
            }
            let replicator = replicator.unwrap_or_else(|| Replicator::start(settings.clone()));
            // While it runs a look may find that first.
            let reason = if is_running { "publication" } else { "a publication was not there" };
            made_anew(replicator, settings.clone(), &database, reason).await;
        }
    });
}

#[test]
fn a_publication_that_is_made_again_in_one_transaction_costs_a_sync() {
    on_executor(|| async {
        let database = Cluster::shared().database().await;
        let scratch = Scratch::new();
        let settings = with_a_publication(&database, &scratch).await;
        let mut replicator = Replicator::start(settings.clone());
        replicator.ready().await;
        let [drop, _, create] = REMADE;
        let change = format!(
            "BEGIN; UPDATE t SET n = 10 WHERE id = 1; {drop}; {create}; UPDATE t SET n = 11 WHERE id = 2; COMMIT"
        );
        database.run(&change).await;
        replicator.check(&database).await;
        replicator.stop().await;
        database.run(&change.replace("11", "12")).await;
        let mut replicator = Replicator::start(settings);
        replicator.ready().await;
        replicator.check(&database).await;
        assert!(!replicator.said("starting an initial sync"), "{:#?}", replicator.record.borrow().log);
        replicator.stop().await;
    });
}
