//! Rows that get lost, doubled or changed on their way from Postgres into the replica.

use crate::support::on_executor;
use crate::support::postgres::Cluster;
use crate::support::random::Random;
use crate::support::replicator::{Replicator, Scratch, settings};
use crate::support::tables;

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

#[test]
fn truncated_tables_are_empty() {
    on_executor(|| async {
        let database = Cluster::shared().database().await;
        let scratch = Scratch::new();
        database
            .run(
                "CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY, a int REFERENCES a);
                 CREATE TABLE c (id int); INSERT INTO a SELECT generate_series(1, 50);
                 INSERT INTO b SELECT i, i FROM generate_series(1, 50) i; INSERT INTO c VALUES (1), (1)",
            )
            .await;
        let mut replicator = Replicator::follow(&database, &scratch).await;
        // Rows of the same transaction from before and after it.
        database
            .run("BEGIN; INSERT INTO a VALUES (60); TRUNCATE a CASCADE; INSERT INTO a VALUES (61); COMMIT")
            .await;
        replicator.check(&database).await;
        database
            .run("INSERT INTO c VALUES (2); TRUNCATE c, b RESTART IDENTITY; INSERT INTO b VALUES (1, 61)")
            .await;
        replicator.check(&database).await;
        replicator.stop().await;
    });
}

#[test]
fn tables_of_every_identity_are_followed() {
    on_executor(|| async {
        let database = Cluster::shared().database().await;
        let scratch = Scratch::new();
        database
            .run(
                "CREATE TABLE full_key (id int PRIMARY KEY, n int, body text);
                 ALTER TABLE full_key REPLICA IDENTITY FULL; ALTER TABLE full_key ALTER body SET STORAGE EXTERNAL;
                 CREATE TABLE full_bare (n int, t text); ALTER TABLE full_bare REPLICA IDENTITY FULL;
                 CREATE TABLE bare (n int, t text);
                 CREATE TABLE by_index (a int NOT NULL, b text NOT NULL, n int, UNIQUE (b, a));
                 CREATE TABLE two_keys (id int PRIMARY KEY, other text NOT NULL UNIQUE);
                 ALTER TABLE two_keys REPLICA IDENTITY USING INDEX two_keys_other_key;
                 INSERT INTO full_key SELECT i, i, repeat('x', 4000) FROM generate_series(1, 20) i;
                 INSERT INTO full_bare SELECT i % 5, 't' FROM generate_series(1, 20) i;
                 INSERT INTO by_index SELECT i, 'b' || i, i FROM generate_series(1, 20) i;
                 INSERT INTO two_keys SELECT i, 'o' || i FROM generate_series(1, 20) i",
            )
            .await;
        let mut replicator = Replicator::follow(&database, &scratch).await;
        database
            .run(
                "UPDATE full_key SET n = -n WHERE id < 9; UPDATE full_key SET id = id + 100 WHERE id > 15;
                 DELETE FROM full_key WHERE id = 3;
                 UPDATE full_bare SET t = NULL WHERE n = 3; DELETE FROM full_bare WHERE ctid IN
                   (SELECT ctid FROM full_bare WHERE n = 2 LIMIT 2); INSERT INTO full_bare VALUES (NULL, NULL);
                 DELETE FROM full_bare WHERE n IS NULL;
                 INSERT INTO bare VALUES (1, 'a'), (1, 'a'), (NULL, NULL);
                 UPDATE by_index SET n = 0 WHERE a < 5; UPDATE by_index SET a = a + 100 WHERE a > 15;
                 DELETE FROM by_index WHERE b = 'b7';
                 UPDATE two_keys SET id = id + 50 WHERE id < 5; UPDATE two_keys SET other = 'p' || id WHERE id = 9;
                 DELETE FROM two_keys WHERE id = 12",
            )
            .await;
        replicator.check(&database).await;
        assert_eq!(replicator.gauges().surprises(), 0);
        replicator.stop().await;
    });
}

#[test]
fn partitions_are_one_table() {
    on_executor(|| async {
        let database = Cluster::shared().database().await;
        let scratch = Scratch::new();
        database
            .run(
                "CREATE TABLE event (id int, day date, n int, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
                 CREATE TABLE event_a PARTITION OF event FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
                 CREATE TABLE event_b (n int, day date NOT NULL, id int NOT NULL);
                 ALTER TABLE event ATTACH PARTITION event_b FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
                 INSERT INTO event SELECT i, date '2024-12-01' + i, i FROM generate_series(1, 60) i",
            )
            .await;
        let mut replicator = Replicator::follow(&database, &scratch).await;
        database
            .run(
                "UPDATE event SET n = 0 WHERE id < 40; INSERT INTO event_b VALUES (1, '2025-05-05', 500);
                 UPDATE event SET day = '2025-07-01' WHERE id = 3; DELETE FROM event WHERE id = 4",
            )
            .await;
        replicator.check(&database).await;
        // Of one partition alone Postgres does not tell; of all it does.
        database.run("TRUNCATE event; INSERT INTO event VALUES (9, '2024-05-05', 1)").await;
        replicator.check(&database).await;
        assert_eq!(replicator.gauges().surprises(), 0);
        replicator.stop().await;
    });
}

#[test]
fn only_what_the_publications_hold_is_replicated() {
    on_executor(|| async {
        let database = Cluster::shared().database().await;
        let scratch = Scratch::new();
        database
            .run(
                "CREATE TABLE doc (id int PRIMARY KEY, secret text, n int NOT NULL, twice int GENERATED ALWAYS AS (n * 2)
                                   STORED, serial int GENERATED ALWAYS AS IDENTITY);
                 CREATE TABLE hidden (id int PRIMARY KEY);
                 CREATE PUBLICATION some_rows FOR TABLE doc (id, n, serial) WHERE (id % 2 = 0);
                 INSERT INTO doc SELECT i, 'secret', i FROM generate_series(1, 40) i",
            )
            .await;
        let mut replicator = Replicator::follow_publications(&database, &scratch, &["some_rows"]).await;
        let catalogue = replicator.record.borrow().start.clone().unwrap().catalogue;
        let doc = catalogue.table("doc").unwrap();
        let names: Vec<&str> = doc.columns.iter().map(|c| c.name.as_str()).collect();
        assert_eq!(names, ["id", "n", "serial"]);
        assert!(catalogue.table("hidden").is_none());
        let even = tables::upstream_where(&database, doc, "id % 2 = 0").await;
        assert_eq!(replicator.rows("doc"), even);
        // Into the filter, out of it, and beside it.
        database
            .run(
                "UPDATE doc SET id = 101 WHERE id = 2; UPDATE doc SET id = 102 WHERE id = 3;
                 UPDATE doc SET n = 7, secret = 'other' WHERE id IN (4, 5); DELETE FROM doc WHERE id IN (6, 7);
                 INSERT INTO doc VALUES (200, 's', 1), (201, 's', 1); INSERT INTO hidden VALUES (1)",
            )
            .await;
        replicator.catch_up(&database).await;
        let even = tables::upstream_where(&database, doc, "id % 2 = 0").await;
        assert_eq!(replicator.rows("doc"), even);
        replicator.stop().await;
    });
}

/// A statement on one of the tables of the property below.
fn statement(random: &mut Random) -> String {
    let id = random.below(40);
    let (n, other) = (random.below(1000), random.below(40));
    match random.below(13) {
        0..3 => {
            format!("INSERT INTO a VALUES ({id}, {n}, repeat('y', 3000 * ({n} % 2))) ON CONFLICT DO NOTHING")
        }
        3 => format!("UPDATE a SET n = {n} WHERE id = {id}"),
        4 => format!(
            "UPDATE a SET id = {other} WHERE id = {id} AND NOT EXISTS (SELECT 1 FROM a WHERE id = {other})"
        ),
        5 => format!("DELETE FROM a WHERE id = {id}"),
        6 => format!(
            "INSERT INTO b VALUES ('k{id}', {other}, {n}) ON CONFLICT (k, l) DO UPDATE SET n = excluded.n"
        ),
        7 => format!("UPDATE b SET l = l + 100 WHERE k = 'k{id}'"),
        8 => format!("DELETE FROM b WHERE l % 7 = {}", id % 7),
        9 => format!("INSERT INTO c VALUES ({}, {n})", id % 5),
        10 => format!("UPDATE c SET n = n + 1 WHERE g = {}", id % 5),
        11 => format!("DELETE FROM c WHERE g = {} AND n % 2 = 0", id % 5),
        _ if random.chance(12) => "TRUNCATE b".into(),
        // Many keys at once, most of them to keys that others just had.
        _ => format!(
            "UPDATE a SET id = id + 1000; UPDATE a SET id = 999 + {other} - id + 1000 WHERE id < 1000 + {other}"
        ),
    }
}

#[test]
fn random_transactions_end_in_equal_tables() {
    on_executor(|| async {
        let database = Cluster::shared().database().await;
        let scratch = Scratch::new();
        let mut random = Random::new(7);
        database
            .run(
                "CREATE TABLE a (id int PRIMARY KEY, n int, body text); ALTER TABLE a ALTER body
                   SET STORAGE EXTERNAL; CREATE INDEX a_n ON a (n);
                 CREATE TABLE b (k text, l int, n int, PRIMARY KEY (k, l));
                 CREATE TABLE c (g int, n int); ALTER TABLE c REPLICA IDENTITY FULL",
            )
            .await;
        let mut replicator = Replicator::follow(&database, &scratch).await;
        for _ in 0..6 {
            for _ in 0..60 {
                let mut transaction = String::from("BEGIN;");
                for _ in 0..1 + random.below(8) {
                    match random.below(10) {
                        0 => {
                            transaction += &format!("SAVEPOINT s; {}; ROLLBACK TO s;", statement(&mut random))
                        }
                        1 => transaction += &format!("SAVEPOINT s; {}; RELEASE s;", statement(&mut random)),
                        _ => transaction += &format!("{};", statement(&mut random)),
                    }
                }
                transaction += if random.chance(10) { "ROLLBACK" } else { "COMMIT" };
                // A key may be taken; the transaction is undone then, which is a case too.
                if database.connection.client.batch_execute(&transaction).await.is_err() {
                    database.run("ROLLBACK").await;
                }
            }
            replicator.check(&database).await;
        }
        assert_eq!(replicator.gauges().surprises(), 0);
        replicator.stop().await;
    });
}
