//! Power cuts: whatever the disk had not got yet must come again from upstream, and
//! upstream must not have been told that it may forget it.

use std::path::Path;
use std::time::Duration;

use crate::support::on_executor;
use crate::support::postgres::{Cluster, Database};
use crate::support::replicator::{Replicator, Scratch};
use crate::support::tables;
use kelvin::model::version::StateVersion;
use kelvin::replica::file::{FoundFile, inspect};
use kelvin_io::executor;
use kelvin_io::postgres::{Target, connect};

/// Longest time until upstream has been told of progress some times.
const PROGRESS: Duration = Duration::from_secs(60);

const TABLE: &str = "CREATE TABLE t (id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY, n int, body text);
    INSERT INTO t (n, body) SELECT i, repeat('a', i % 500) FROM generate_series(1, 2000) i;";

/// What a power cut leaves of the log beyond what was synced.
#[derive(Debug, Clone, Copy)]
enum Rest {
    /// Nothing.
    Cut,
    /// A frame and a half, which is none.
    Torn,
    /// The length, but zeros in place of the bytes.
    Zeros,
    /// Later frames, but not the first ones.
    Hole,
    /// Everything.
    Whole,
}

async fn write_on(target: Target) {
    let connection = connect(&target, "writer").await.expect("connected");
    loop {
        let sql = "INSERT INTO public.t (n, body) SELECT i, repeat('z', 700) FROM generate_series(1, 5) i;
                   UPDATE public.t SET n = n + 1 WHERE id % 97 = (SELECT max(id) FROM public.t) % 97;
                   DELETE FROM public.t WHERE id = (SELECT min(id) FROM public.t)";
        connection.client.batch_execute(sql).await.expect("it writes");
        executor::sleep(Duration::from_micros(300)).await;
    }
}

async fn confirmed(database: &Database) -> StateVersion {
    let sql = "SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE database = current_database()";
    StateVersion::from_lsn(&database.value(sql).await).expect("an LSN")
}

/// Copies a replica as the disk would have it after a power cut.
fn cut(from: &Path, to: &Path, synced: u64, rest: Rest) {
    std::fs::copy(from, to).unwrap();
    let log = |path: &Path| kelvin::replica::file::beside(path, "-wal");
    let whole = std::fs::read(log(from)).unwrap();
    let synced = synced as usize;
    assert!(synced <= whole.len());
    let mut kept = whole[..synced].to_vec();
    match rest {
        Rest::Cut => {}
        Rest::Torn => kept.extend_from_slice(&whole[synced..whole.len().min(synced + 6000)]),
        Rest::Zeros => kept.resize(whole.len(), 0),
        Rest::Hole => {
            let middle = synced + (whole.len() - synced) / 2;
            kept.resize(middle, 0);
            kept.extend_from_slice(&whole[middle..]);
        }
        Rest::Whole => kept = whole,
    }
    std::fs::write(log(to), kept).unwrap();
    // The index of the log is in shared memory only.
    let _ = std::fs::remove_file(kelvin::replica::file::beside(to, "-shm"));
}

fn position(path: &Path) -> StateVersion {
    match inspect(path).unwrap() {
        FoundFile::Replica(metadata) => metadata.position,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_was_acknowledged_is_on_the_disk_at_any_time() {
    on_executor(|| async {
        let database = Cluster::shared().database().await;
        let scratch = Scratch::new();
        database.run(TABLE).await;
        let mut replicator = Replicator::follow(&database, &scratch).await;
        let gauges = replicator.gauges();
        let writer = executor::spawn(write_on(database.target.clone()));
        let mut last = StateVersion::ZERO;
        let mut grew = 0;
        let began = std::time::Instant::now();
        let mut round = 0;
        // A machine that is busy needs more of them until progress is seen often enough.
        while round < 60 || (grew <= 5 && began.elapsed() < PROGRESS) {
            round += 1;
            executor::sleep(Duration::from_millis(15 + round % 7)).await;
            // In this order: what is synced may only have grown since.
            let told = confirmed(&database).await;
            let synced = gauges.synced_wal_bytes();
            let copy = Scratch::new();
            cut(
                &replicator.replica,
                &copy.replica(),
                synced,
                if round % 2 == 0 { Rest::Cut } else { Rest::Zeros },
            );
            let kept = position(&copy.replica());
            assert!(kept >= told, "round {round}: {kept:?} on the disk, {told:?} acknowledged");
            assert!(told >= last, "acknowledgements never go back");
            grew += u32::from(told > last);
            last = told;
        }
        assert!(grew > 5, "upstream is told of progress");
        writer.cancel().await;
        replicator.check(&database).await;
        replicator.stop().await;
    });
}

#[test]
fn after_a_power_cut_it_goes_on_without_gap() {
    on_executor(|| async {
        let database = Cluster::shared().database().await;
        database.run(TABLE).await;
        let mut scratch = Scratch::new();
        let mut replicator = Replicator::follow(&database, &scratch).await;
        let lineage = replicator.ready().await.replica_version;
        for rest in [Rest::Cut, Rest::Torn, Rest::Zeros, Rest::Hole, Rest::Whole, Rest::Cut] {
            let writer = executor::spawn(write_on(database.target.clone()));
            executor::sleep(Duration::from_millis(400)).await;
            // An open reader: so the end of the manager does not tidy up.
            let reader = tables::open(&replicator.replica);
            reader.execute_batch("BEGIN; SELECT count(*) FROM t").unwrap();
            // Stopping syncs and acknowledges nothing more; what was synced until now stays.
            let synced = replicator.gauges().synced_wal_bytes();
            terminate(&database).await;
            let told = confirmed(&database).await;
            let synced = synced.max(replicator.gauges().synced_wal_bytes());
            let replica = replicator.replica.clone();
            replicator.stop().await;
            let told = told.max(confirmed(&database).await);
            let next = Scratch::new();
            cut(&replica, &next.replica(), synced, rest);
            drop(reader);
            if position(&next.replica()) < told {
                // It was acknowledged after the length was read: take all of it.
                cut(&replica, &next.replica(), synced, Rest::Whole);
            }
            drop(std::mem::replace(&mut scratch, next));
            replicator = Replicator::follow(&database, &scratch).await;
            let start = replicator.ready().await;
            assert_eq!(start.replica_version, lineage, "{rest:?}: it was synced anew");
            writer.cancel().await;
            replicator.check(&database).await;
        }
        assert_eq!(replicator.gauges().surprises(), 0);
        replicator.stop().await;
    });
}

/// Ends the stream, so that nothing is acknowledged while the test looks.
async fn terminate(database: &Database) {
    database
        .run("SELECT pg_terminate_backend(pid) FROM pg_stat_replication WHERE application_name = 'zero-replicator'")
        .await;
}
