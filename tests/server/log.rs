//! A log of the replica that grows for ever, or that stalls commits to keep it short
//! (rule 25).

use std::time::Duration;

use crate::support::lateness::Lateness;
use crate::support::on_executor;
use crate::support::postgres::{Cluster, Database};
use crate::support::replicator::{Replicator, Scratch, settings};
use kelvin::replica::wal::Limits;
use kelvin_io::executor;
use kelvin_io::postgres::{Target, connect};

const MIB: u64 = 1 << 20;

const TABLE: &str = "CREATE TABLE t (id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY, n int, body text);
    CREATE INDEX t_n ON t (n);";

/// Writes about ten KiB of rows per transaction without pause.
async fn write_on(target: Target) {
    let connection = connect(&target, "writer").await.expect("connected");
    let one = "BEGIN; INSERT INTO public.t (n, body) SELECT random() * 1e9, repeat('z', 1000)
               FROM generate_series(1, 10) i; COMMIT;";
    loop {
        connection.client.batch_execute(&one.repeat(20)).await.expect("it writes");
    }
}

async fn start(database: &Database, scratch: &Scratch, limits: Limits) -> Replicator {
    database.run(TABLE).await;
    let mut settings = settings(&database.target, &scratch.replica());
    settings.log_limits = limits;
    let mut replicator = Replicator::start_with(settings, true);
    replicator.ready().await;
    replicator.record.borrow_mut().add_readers(3);
    replicator
}

fn log_file(replicator: &Replicator) -> u64 {
    std::fs::metadata(kelvin::replica::file::beside(&replicator.replica, "-wal")).unwrap().len()
}

#[test]
fn it_stays_short_while_readers_follow() {
    on_executor(|| async {
        let database = Cluster::shared().database().await;
        let scratch = Scratch::new();
        let limits = Limits { soft: 2 * MIB, hard: 1024 * MIB };
        let lateness = Lateness::measured();
        let mut replicator = start(&database, &scratch, limits).await;
        let writer = executor::spawn(write_on(database.target.clone()));
        let gauges = replicator.gauges();
        let watched = gauges.clone();
        replicator.until("it was restarted", move |_| watched.wal_restarts() >= 4).await;
        writer.cancel().await;
        replicator.catch_up(&database).await;
        // What is written until an attempt is due and during it; not what was written in all.
        let (largest, written) = (log_file(&replicator), gauges.synced_bytes());
        assert!(written > largest, "{written} bytes in a log of {largest}");
        // The longest that it tries, and the delay of a machine that is busy with tests.
        let limit = lateness.allow(Duration::from_millis(250));
        assert!(gauges.longest_hold() < limit, "{:?}", gauges.longest_hold());
        replicator.stop().await;
    });
}

#[test]
fn it_recovers_when_a_busy_reader_is_done() {
    on_executor(|| async {
        let database = Cluster::shared().database().await;
        let scratch = Scratch::new();
        let limits = Limits { soft: MIB, hard: 8 * MIB };
        let lateness = Lateness::measured();
        let mut replicator = start(&database, &scratch, limits).await;
        replicator.record.borrow_mut().busy = true;
        let writer = executor::spawn(write_on(database.target.clone()));
        let gauges = replicator.gauges();
        let watched = gauges.clone();
        replicator.until("the hard limit is passed", move |_| watched.wal_bytes() > 12 * MIB).await;
        assert_eq!(gauges.wal_restarts(), 0);
        // The operator is told, and replication goes on, though not at full speed.
        replicator
            .until("it is said", |r| r.log.iter().any(|l| l.contains("the replica's log is large")))
            .await;
        let commits = replicator.record.borrow().commits.len();
        replicator.until("commits go on", |r| r.commits.len() > commits + 3).await;
        let limit = lateness.allow(Duration::from_millis(1500));
        assert!(gauges.longest_hold() < limit, "{:?}", gauges.longest_hold());
        replicator.record.borrow_mut().busy = false;
        let watched = gauges.clone();
        replicator.until("it was restarted", move |_| watched.wal_restarts() >= 2).await;
        writer.cancel().await;
        replicator.catch_up(&database).await;
        replicator.stop().await;
    });
}
