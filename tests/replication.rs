//! Rows that get lost, doubled or changed on their way from Postgres into the replica.

mod support;

use support::on_executor;
use support::postgres::Cluster;
use support::replicator::{Replicator, Scratch, settings};

const ISSUES: &str = "
    CREATE TYPE status AS ENUM ('open', 'done');
    CREATE TABLE issue (id text PRIMARY KEY, title text NOT NULL, status status, n int, at timestamptz,
                        body text);
    CREATE INDEX issue_n ON issue (n DESC, id);
    CREATE UNIQUE INDEX issue_title ON issue (title);
    ALTER TABLE issue ALTER body SET STORAGE EXTERNAL;
    INSERT INTO issue SELECT 'i' || i, 'title ' || i, 'open', i, now(), repeat('x', 5000)
      FROM generate_series(1, 100) i;
";

#[test]
fn rows_are_copied_and_followed() {
    on_executor(|| async {
        let database = Cluster::shared().database().await;
        let scratch = Scratch::new();
        database.run(ISSUES).await;
        let mut replicator = Replicator::follow(&database, &scratch).await;
        replicator.check(&database).await;
        database.run("INSERT INTO issue VALUES ('new', 'new', 'done', NULL, 'infinity', NULL)").await;
        database.run("UPDATE issue SET n = n + 1 WHERE n < 10").await;
        database.run("DELETE FROM issue WHERE n > 90").await;
        // Swaps values of a unique index that is not the key; changes keys; unchanged TOAST.
        database
            .run(
                "BEGIN; UPDATE issue SET title = 'tmp' WHERE id = 'i1';
                 UPDATE issue SET title = 'title 1' WHERE id = 'i2';
                 UPDATE issue SET title = 'title 2' WHERE id = 'i1'; COMMIT;
                 UPDATE issue SET id = id || '-b' WHERE n BETWEEN 20 AND 30;
                 BEGIN; DELETE FROM issue WHERE id = 'i50';
                 INSERT INTO issue VALUES ('i50', 'again', 'open', 7, NULL, NULL); COMMIT",
            )
            .await;
        replicator.check(&database).await;
        assert_eq!(replicator.record.borrow().gauges.as_ref().unwrap().surprises(), 0);
        replicator.stop().await;
    });
}

#[test]
fn a_stopped_replica_goes_on_where_it_was() {
    on_executor(|| async {
        let database = Cluster::shared().database().await;
        let scratch = Scratch::new();
        database.run(ISSUES).await;
        let mut replicator = Replicator::follow(&database, &scratch).await;
        let first = replicator.ready().await;
        database.run("UPDATE issue SET n = 0 WHERE id = 'i7'").await;
        replicator.check(&database).await;
        replicator.stop().await;
        database.run("UPDATE issue SET n = 1 WHERE id = 'i7'; DELETE FROM issue WHERE id = 'i8'").await;
        let mut replicator = Replicator::start(settings(&database.target, &scratch.replica()));
        let second = replicator.ready().await;
        assert_eq!(second.replica_version, first.replica_version, "no new sync");
        assert!(second.version > first.version);
        assert!(second.epoch > first.epoch);
        replicator.check(&database).await;
        replicator.stop().await;
    });
}
