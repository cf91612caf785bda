//! Changes that get lost or are applied twice when the connection to Postgres breaks.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::support::on_executor;
use crate::support::postgres::{Cluster, Database};
use crate::support::replicator::{Replicator, Scratch, settings};
use kelvin_io::executor;
use kelvin_io::postgres::connect;

const TABLE: &str = "CREATE TABLE t (id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY, n int, body text);";

/// Inserts in small transactions until it is stopped or the connection breaks.
async fn write_on(target: kelvin_io::postgres::Target) {
    let Ok(connection) = connect(&target, "writer").await else { return };
    loop {
        let sql = "INSERT INTO public.t (n, body) SELECT i, repeat('z', 100) FROM generate_series(1, 7) i;
                   UPDATE public.t SET n = n + 1 WHERE id = (SELECT max(id) FROM public.t)";
        if connection.client.batch_execute(sql).await.is_err() {
            return;
        }
        // Leaves the executor to the replicator.
        executor::sleep(Duration::from_millis(1)).await;
    }
}

/// Ends every walsender of the database's app.
async fn terminate_walsender(database: &Database) {
    database
        .run("SELECT pg_terminate_backend(pid) FROM pg_stat_replication WHERE application_name = 'zero-replicator'")
        .await;
}

/// Stops the server. In fast mode it waits until its log is acknowledged, so the
/// replicator must run meanwhile; and must not keep it waiting.
async fn stop(cluster: &Arc<Cluster>, mode: &'static str) {
    let (stopped, started) = (cluster.clone(), Instant::now());
    executor::blocking(move || stopped.stop(mode)).await;
    assert!(started.elapsed() < Duration::from_secs(30), "{mode}: {:?}", started.elapsed());
}

async fn rows_arrive(replicator: &mut Replicator, n: usize) {
    let before = replicator.record.borrow().commits.len();
    replicator.until("more commits arrive", |r| r.commits.len() >= before + n).await;
}

#[test]
fn a_crash_of_postgres_loses_and_repeats_nothing() {
    on_executor(|| async {
        let cluster = Arc::new(Cluster::start(""));
        let database = cluster.database().await;
        let scratch = Scratch::new();
        database.run(TABLE).await;
        let mut replicator = Replicator::follow(&database, &scratch).await;
        let mut database = database;
        for mode in ["immediate", "fast", "immediate"] {
            let writer = executor::spawn(write_on(database.target.clone()));
            rows_arrive(&mut replicator, 20).await;
            stop(&cluster, mode).await;
            writer.await.expect("the writer does not panic");
            executor::sleep(Duration::from_millis(300)).await;
            cluster.launch();
            database = Database::open(database.target.clone()).await;
            // The model of the record_log fails on a gap, a repetition or a wrong old row.
            replicator.check(&database).await;
        }
        assert_eq!(replicator.gauges().surprises(), 0);
        assert!(replicator.said("the replication stream was lost"));
        replicator.stop().await;
    });
}

#[test]
fn a_walsender_that_is_ended_again_and_again_is_replaced() {
    on_executor(|| async {
        let database = Cluster::shared().database().await;
        let scratch = Scratch::new();
        database.run(TABLE).await;
        let mut replicator = Replicator::follow(&database, &scratch).await;
        let writer = executor::spawn(write_on(database.target.clone()));
        for _ in 0..5 {
            rows_arrive(&mut replicator, 10).await;
            terminate_walsender(&database).await;
        }
        rows_arrive(&mut replicator, 10).await;
        writer.cancel().await;
        replicator.check(&database).await;
        assert_eq!(replicator.gauges().surprises(), 0);
        replicator.stop().await;
    });
}

#[test]
fn a_large_transaction_that_breaks_off_comes_again_as_a_whole() {
    on_executor(|| async {
        let database = Cluster::shared().database().await;
        let scratch = Scratch::new();
        database.run(TABLE).await;
        let mut replicator = Replicator::follow(&database, &scratch).await;
        let commits = replicator.record.borrow().commits.len();
        database
            .run("INSERT INTO t (n, body) SELECT i, repeat('x', 300) FROM generate_series(1, 120000) i")
            .await;
        // Some of it has surely been sent, and hardly all of it.
        executor::sleep(Duration::from_millis(150)).await;
        terminate_walsender(&database).await;
        executor::sleep(Duration::from_millis(400)).await;
        terminate_walsender(&database).await;
        replicator.check(&database).await;
        assert!(replicator.record.borrow().commits.len() > commits);
        replicator.stop().await;
    });
}

#[test]
fn postgres_that_is_away_at_the_start_is_waited_for() {
    on_executor(|| async {
        let cluster = Cluster::start("");
        let database = cluster.database().await;
        let scratch = Scratch::new();
        database.run(TABLE).await;
        let target = database.target.clone();
        drop(database);
        cluster.stop("fast");
        let mut replicator = Replicator::start(settings(&target, &scratch.replica()));
        replicator
            .until("it waits", |r| r.progress.iter().any(|p| p.contains("waiting for the upstream database")))
            .await;
        cluster.launch();
        replicator.ready().await;
        let database = Database::open(target.clone()).await;
        replicator.check(&database).await;
        replicator.stop().await;
        // And not for ever.
        drop(database);
        cluster.stop("fast");
        let mut impatient = settings(&target, &scratch.replica());
        impatient.connect_timeout = Duration::from_millis(500);
        let message = Replicator::start(impatient).failure().await;
        assert!(message.contains("Check ZERO_UPSTREAM_DB"), "{message}");
    });
}
