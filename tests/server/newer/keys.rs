//! Keys that are none, or not yet, or of ranges: a row is not found when it changes, or clients are given a key that two
//! rows may have.

use super::{follows, keys};
use crate::support::on_executor;
use crate::support::postgres::{Cluster, is_before, is_since};
use crate::support::replicator::{Replicator, Scratch};

/// Ranges that do not overlap, beside columns of other types, as primary key, as unique key, and with every identity.
const TEMPORAL: &str = "
    CREATE EXTENSION btree_gist;
    CREATE TABLE stay (room int, during daterange, guest text, PRIMARY KEY (room, during WITHOUT OVERLAPS));
    CREATE TABLE price (code text, at numrange, n int, uid int NOT NULL UNIQUE, PRIMARY KEY (code, at WITHOUT OVERLAPS));
    CREATE TABLE shift (who text NOT NULL, at tsmultirange NOT NULL, n int, UNIQUE (who, at WITHOUT OVERLAPS));
    CREATE TABLE whole (id int, at tstzrange, n int, body text, PRIMARY KEY (id, at WITHOUT OVERLAPS));
    ALTER TABLE whole REPLICA IDENTITY FULL; ALTER TABLE whole ALTER body SET STORAGE EXTERNAL;
    CREATE TABLE seat (id int PRIMARY KEY, at int4range NOT NULL, row int NOT NULL, UNIQUE (row, at WITHOUT OVERLAPS));
    ALTER TABLE seat REPLICA IDENTITY USING INDEX seat_row_at_key;
    INSERT INTO stay SELECT i % 10, daterange(date '2026-01-01' + i, date '2026-01-04' + i), 'g' || i
      FROM generate_series(1, 200, 7) i;
    INSERT INTO price SELECT 'c' || i % 5, numrange(i, i + 1.50), i, i FROM generate_series(1, 100, 3) i;
    INSERT INTO shift SELECT 'w' || i, tsmultirange(tsrange(now()::timestamp + i * interval '1 day', NULL)), i
      FROM generate_series(1, 20) i;
    INSERT INTO whole SELECT i, tstzrange(now(), now() + interval '1 hour'), i, repeat('x', 4000) FROM generate_series(1, 20) i;
    INSERT INTO seat SELECT i, int4range(i, i, '[]'), i % 4 FROM generate_series(1, 20) i;
";

const WRITES: [&str; 6] = [
    "UPDATE stay SET guest = guest || '!' WHERE room < 5; UPDATE price SET n = -n WHERE uid > 50;
     UPDATE shift SET n = 0 WHERE n < 5; UPDATE whole SET n = n + 1; UPDATE seat SET id = id + 100 WHERE row = 1",
    "UPDATE stay SET during = daterange(lower(during) + 1000, upper(during) + 1001) WHERE room IN (1, 4);
     UPDATE price SET at = numrange(lower(at), upper(at) - 0.250) WHERE uid < 20; UPDATE price SET code = 'z' WHERE uid = 1;
     UPDATE shift SET at = at + tsmultirange(tsrange('2020-01-01', '2020-02-01')) WHERE n > 10;
     UPDATE whole SET at = tstzrange(lower(at) - interval '1 day', NULL) WHERE id < 9;
     UPDATE seat SET at = int4range(lower(at) + 50, upper(at) + 50) WHERE id < 7",
    // The same number, written otherwise, is the same key.
    "UPDATE price SET at = numrange(lower(at) + 0.000, upper(at) + 0.0000), n = 7 WHERE uid < 40",
    "DELETE FROM stay WHERE room = 3; DELETE FROM price WHERE n = 7 AND uid > 20; DELETE FROM shift WHERE n = 0;
     DELETE FROM whole WHERE id > 15; DELETE FROM seat WHERE row = 2",
    "BEGIN; UPDATE stay SET room = -1 WHERE room = 5; UPDATE stay SET room = 5 WHERE room = 6;
     UPDATE stay SET room = 6 WHERE room = -1; COMMIT",
    "BEGIN; DELETE FROM stay; INSERT INTO stay VALUES (1, '(,)', 'all'), (2, '[2026-01-01,2026-01-05)', NULL);
     UPDATE stay SET during = '[2026-01-01,2026-02-01)' WHERE room = 1;
     INSERT INTO stay VALUES (1, '[2026-02-01,2026-03-01)', 'next'); COMMIT",
];

#[test]
fn a_key_without_overlaps_does_not_tell_rows() {
    if is_before(18) {
        return;
    }
    on_executor(|| async {
        let database = Cluster::shared().database().await;
        let scratch = Scratch::new();
        database.run(TEMPORAL).await;
        let mut replicator = Replicator::follow(&database, &scratch).await;
        replicator.check(&database).await;
        for writes in WRITES {
            database.run(writes).await;
            replicator.check(&database).await;
        }
        assert_eq!(replicator.gauges().surprises(), 0);
        let of = |table: &str| {
            let (row_key, candidates) = keys(&replicator, table);
            (row_key.join(" "), candidates.iter().map(|key| key.join(" ")).collect::<Vec<_>>().join(","))
        };
        // No client can hold a range, so that none of these keys is theirs.
        let expected = [
            ("stay", "room during", ""),
            ("price", "code at", "uid"),
            ("shift", "who at", ""),
            ("whole", "id at", ""),
            ("seat", "row at", "id"),
        ];
        for (table, row_key, candidates) in expected {
            assert_eq!(of(table), (row_key.to_owned(), candidates.to_owned()), "{table}");
        }
        let identities = "SELECT string_agg(relname || relreplident::text, ' ' ORDER BY relname) FROM pg_class WHERE relkind = 'r'
                           AND relnamespace = 'public'::regnamespace";
        assert_eq!(database.value(identities).await, "priced seati shifti stayd wholef");
        replicator.stop().await;
    });
}

#[test]
fn a_table_with_a_key_without_overlaps_that_comes_is_not_filled() {
    if is_before(18) {
        return;
    }
    on_executor(|| async {
        let database = Cluster::shared().database().await;
        let scratch = Scratch::new();
        database.run("CREATE TABLE t (id int PRIMARY KEY)").await;
        let mut replicator = Replicator::follow(&database, &scratch).await;
        database.run(TEMPORAL).await;
        follows(&mut replicator, &database).await;
        // Of a table without primary key Kelvin has to set what tells its rows first.
        let started = std::time::Instant::now();
        let identity = "SELECT relreplident FROM pg_class WHERE oid = 'shift'::regclass";
        while database.value(identity).await != "i" {
            assert!(started.elapsed().as_secs() < 20, "its replica identity is not set");
            kelvin_io::executor::sleep(std::time::Duration::from_millis(20)).await;
        }
        for writes in WRITES {
            database.run(writes).await;
        }
        follows(&mut replicator, &database).await;
        assert_eq!(keys(&replicator, "stay").0, ["room", "during"]);
        replicator.stop().await;
    });
}

#[test]
fn a_key_gets_or_loses_its_range_unnoticed() {
    if is_before(18) {
        return;
    }
    on_executor(|| async {
        let database = Cluster::shared().database().await;
        let scratch = Scratch::new();
        database
            .run(
                "CREATE EXTENSION btree_gist; CREATE TABLE t (id int PRIMARY KEY, at int4range NOT NULL, n int);
                 INSERT INTO t SELECT i, int4range(i, i + 5), i FROM generate_series(1, 20) i",
            )
            .await;
        let mut replicator = Replicator::follow(&database, &scratch).await;
        database
            .run(
                "ALTER TABLE t DROP CONSTRAINT t_pkey, ADD PRIMARY KEY (id, at WITHOUT OVERLAPS);
                 INSERT INTO t VALUES (1, '[100,200)', 0); UPDATE t SET n = 5 WHERE id = 1 AND at @> 150",
            )
            .await;
        follows(&mut replicator, &database).await;
        database
            .run("DELETE FROM t WHERE id = 1 AND at @> 150; UPDATE t SET at = '[1,3)' WHERE id = 2")
            .await;
        replicator.check(&database).await;
        database.run("ALTER TABLE t DROP CONSTRAINT t_pkey, ADD PRIMARY KEY (id); UPDATE t SET id = 99 WHERE id = 3").await;
        follows(&mut replicator, &database).await;
        replicator.stop().await;
    });
}

#[test]
fn a_column_that_may_hold_nulls_in_spite_of_its_constraint_is_a_key_of_clients() {
    if is_before(18) {
        return;
    }
    on_executor(|| async {
        let database = Cluster::shared().database().await;
        let scratch = Scratch::new();
        database
            .run(
                "CREATE TABLE t (id int PRIMARY KEY, code text UNIQUE, n int); CREATE TABLE u (code text UNIQUE, n int);
                 INSERT INTO t VALUES (1, NULL, 1), (2, NULL, 2), (3, 'c', 3); INSERT INTO u VALUES (NULL, 1), (NULL, 2), ('c', 3);
                 ALTER TABLE t ADD CONSTRAINT there NOT NULL code NOT VALID;
                 ALTER TABLE u ADD CONSTRAINT there NOT NULL code NOT VALID",
            )
            .await;
        let mut replicator = Replicator::follow(&database, &scratch).await;
        replicator.check(&database).await;
        let key = |name: &str| vec![name.to_owned()];
        assert_eq!(keys(&replicator, "t"), (key("id"), vec![key("id")]));
        assert_eq!(keys(&replicator, "u"), (vec![], vec![]));
        database
            .run(
                "UPDATE t SET n = 5 WHERE id = 3; DELETE FROM t WHERE id = 1; UPDATE t SET code = 'b' WHERE code IS NULL;
                 INSERT INTO u VALUES ('d', 4)",
            )
            .await;
        replicator.check(&database).await;
        database.run("ALTER TABLE t VALIDATE CONSTRAINT there").await;
        follows(&mut replicator, &database).await;
        assert_eq!(keys(&replicator, "t"), (key("id"), vec![key("code"), key("id")]));
        database.run("ALTER TABLE t DROP CONSTRAINT there; UPDATE t SET code = NULL WHERE id = 2").await;
        follows(&mut replicator, &database).await;
        assert_eq!(keys(&replicator, "t"), (key("id"), vec![key("id")]));
        database
            .run("ALTER TABLE t ADD CONSTRAINT again NOT NULL n NOT VALID; UPDATE t SET n = 9 WHERE id = 3")
            .await;
        follows(&mut replicator, &database).await;
        replicator.stop().await;
    });
}

/// Postgres takes such an index for an identity, and says of a row that goes that its key was null.
#[test]
fn rows_whose_identity_is_null_stay() {
    if is_before(18) {
        return;
    }
    on_executor(|| async {
        let database = Cluster::shared().database().await;
        let scratch = Scratch::new();
        database
            .run(
                "CREATE TABLE t (code text UNIQUE, n int); INSERT INTO t VALUES (NULL, 1), (NULL, 2), ('c', 3);
                 ALTER TABLE t ADD CONSTRAINT there NOT NULL code NOT VALID; ALTER TABLE t REPLICA IDENTITY USING INDEX t_code_key;
                 CREATE TABLE u (id int PRIMARY KEY)",
            )
            .await;
        let mut replicator = Replicator::follow(&database, &scratch).await;
        assert!(replicator.said("t is left out") && replicator.said("VALIDATE CONSTRAINT"));
        database
            .run("DELETE FROM t WHERE n = 2; UPDATE t SET n = 4 WHERE code = 'c'; INSERT INTO u VALUES (1)")
            .await;
        replicator.check(&database).await;
        database.run("DELETE FROM t WHERE code IS NULL; ALTER TABLE t VALIDATE CONSTRAINT there").await;
        follows(&mut replicator, &database).await;
        database.run("UPDATE t SET n = 5 WHERE code = 'c'; INSERT INTO t VALUES ('d', 6); DELETE FROM t WHERE n = 5").await;
        replicator.check(&database).await;
        assert_eq!(replicator.rows("t").len(), 1);
        replicator.stop().await;
    });
}

/// Unique in ways that do not tell one row from all others, and constraints that nobody enforces.
#[test]
fn what_does_not_tell_rows_is_a_key() {
    on_executor(|| async {
        let database = Cluster::shared().database().await;
        let scratch = Scratch::new();
        let newest = is_since(18);
        database
            .run(
                "CREATE TABLE t (id int PRIMARY KEY, a int, b int NOT NULL, c int NOT NULL, d int NOT NULL, e int NOT NULL,
                                 UNIQUE NULLS NOT DISTINCT (a), UNIQUE (b) DEFERRABLE INITIALLY DEFERRED,
                                 EXCLUDE USING btree (e WITH =));
                 CREATE UNIQUE INDEX ON t (c) WHERE c > 10; CREATE UNIQUE INDEX ON t ((d + 1));
                 CREATE TABLE u (a int UNIQUE NULLS NOT DISTINCT, n int); CREATE TABLE w (a int NOT NULL UNIQUE DEFERRABLE, n int);
                 CREATE TABLE x (id int PRIMARY KEY DEFERRABLE, n int); INSERT INTO t SELECT i, NULLIF(i, 1), i, i, i, i
                   FROM generate_series(1, 20) i; INSERT INTO u VALUES (NULL, 1), (2, 2); INSERT INTO w VALUES (1, 1), (2, 2);
                 INSERT INTO x VALUES (1, 1)",
            )
            .await;
        if newest {
            database
                .run(
                    "ALTER TABLE t ADD CONSTRAINT few CHECK (b < 10) NOT ENFORCED,
                       ADD CONSTRAINT of_u FOREIGN KEY (a) REFERENCES u (a) NOT ENFORCED",
                )
                .await;
        }
        let mut replicator = Replicator::follow(&database, &scratch).await;
        replicator.check(&database).await;
        let key = |name: &str| vec![name.to_owned()];
        // One that is deferrable holds when a transaction has ended, which is when clients are told.
        assert_eq!(keys(&replicator, "t"), (key("id"), vec![key("b"), key("id")]));
        assert_eq!(keys(&replicator, "u"), (vec![], vec![]));
        assert_eq!(keys(&replicator, "w"), (vec![], vec![key("a")]));
        assert_eq!(keys(&replicator, "x"), (vec![], vec![key("id")]));
        database
            .run(
                "BEGIN; UPDATE t SET b = 21 - b; COMMIT; UPDATE t SET a = 50 WHERE a IS NULL;
                 UPDATE t SET c = 3 WHERE c < 5; INSERT INTO u VALUES (3, 3); INSERT INTO w VALUES (3, 3); INSERT INTO x VALUES (2, 2)",
            )
            .await;
        replicator.check(&database).await;
        if newest {
            database
                .run(
                    "ALTER TABLE t ALTER CONSTRAINT of_u NOT ENFORCED; UPDATE t SET a = a + 100, b = b + 100",
                )
                .await;
            follows(&mut replicator, &database).await;
        }
        assert_eq!(replicator.gauges().surprises(), 0);
        replicator.stop().await;
    });
}
