//! Schema changes under a running stream: rows that land in the wrong column, or a stream
//! that goes on with a schema it does not know.

use std::time::Duration;

use crate::support::on_executor;
use crate::support::postgres::{Cluster, Database};
use crate::support::random::Random;
use crate::support::replicator::{Record, Replicator, Scratch, settings};
use crate::support::tables;
use kelvin_io::executor;

pub const TABLES: &str = "
    CREATE TABLE t (id int PRIMARY KEY, a text, b int, c timestamptz);
    CREATE TABLE u (id int PRIMARY KEY, n int);
    INSERT INTO t SELECT i, 'a' || i, i, now() FROM generate_series(1, 50) i;
    INSERT INTO u SELECT i, i FROM generate_series(1, 50) i;
";

/// Follows, runs statements one by one as transactions while somebody else writes, and expects that the replica has
/// all of it in the end, and that no new sync was needed: neither for these, nor when it starts again. `before` has happened by then;
/// `copied`: why a table is copied anew.
pub async fn followed(before: &str, statements: &[&str], copied: Option<&str>) {
    let database = Cluster::shared().database().await;
    let scratch = Scratch::new();
    database.run(TABLES).await;
    database.run(before).await;
    let mut replicator = Replicator::follow(&database, &scratch).await;
    database.run("UPDATE t SET b = b + 1").await;
    replicator.check(&database).await;
    for statement in statements {
        database.run(statement).await;
        database
            .run("UPDATE u SET id = id + 100 WHERE id < 10; UPDATE u SET id = id - 100 WHERE id > 100")
            .await;
    }
    until_followed(&mut replicator, &database, copied).await;
    replicator.check(&database).await;
    assert!(copied.is_some() || !replicator.said(COPIED), "{:#?}", replicator.record.borrow().log);
    replicator.stop().await;
    let mut again = Replicator::follow(&database, &scratch).await;
    assert!(!again.said("starting an initial sync"), "{:#?}", again.record.borrow().log);
    again.check(&database).await;
    again.stop().await;
    let last = statements.last().expect("a statement");
    // Those that happen while nobody follows are found on the way.
    let scratch = Scratch::new();
    let database = Cluster::shared().database().await;
    database.run(TABLES).await;
    database.run(before).await;
    Replicator::follow(&database, &scratch).await.stop().await;
    for statement in statements {
        database.run(statement).await;
    }
    let mut later = Replicator::follow(&database, &scratch).await;
    assert!(!later.said("starting an initial sync"), "{last}: {:#?}", later.record.borrow().log);
    until_followed(&mut later, &database, copied).await;
    later.check(&database).await;
    later.stop().await;
}

/// What is said of a table whose rows cannot be kept.
pub const COPIED: &str = "is copied anew: ";

/// Waits until the replica's tables are upstream's, some of them because they were copied.
async fn until_followed(replicator: &mut Replicator, database: &Database, copied: Option<&str>) {
    if let Some(because) = copied {
        let is_it = |line: &String| line.contains(COPIED) && line.contains(because);
        replicator.until("a table is copied anew", |record| record.log.iter().any(is_it)).await;
    }
    assert!(replicator.follows(database).await, "{:?}", replicator.ended().await);
}

macro_rules! follows {
    ($($name:ident: $statements:expr;)*) => {
        $(
            #[test]
            fn $name() {
                on_executor(|| followed("", &$statements, None));
            }
        )*
    };
}

follows! {
    an_added_column_is_lost: ["ALTER TABLE t ADD d int DEFAULT 7", "UPDATE t SET d = 8 WHERE id = 1",
        "INSERT INTO t (id) VALUES (500)", "INSERT INTO t (id, d) VALUES (501, NULL)"];
    an_added_column_without_a_default_is_lost: ["ALTER TABLE t ADD d timestamptz", "UPDATE t SET d = now() WHERE id < 5"];
    a_default_that_was_changed_at_once_is_taken_for_the_rows:
        ["ALTER TABLE t ADD d int DEFAULT 5, ALTER d SET DEFAULT 7", "UPDATE t SET b = 0 WHERE id = 1"];
    a_default_that_is_gone_is_forgotten:
        ["ALTER TABLE t ADD d int DEFAULT 5 NOT NULL; ALTER TABLE t ALTER d DROP DEFAULT", "UPDATE t SET b = 0"];
    a_default_of_the_moment_is_computed_again: ["ALTER TABLE t ADD d timestamptz DEFAULT now()"];
    texts_in_a_default_end_it: ["ALTER TABLE t ADD d text DEFAULT 'it''s \"so\"', ADD e jsonb DEFAULT '{\"a\": [1]}',
        ADD f text[] DEFAULT '{x,\"y z\"}', ADD g bool DEFAULT true, ADD h numeric DEFAULT -1.50"];
    a_dropped_column_takes_others_along:
        ["ALTER TABLE t DROP b; INSERT INTO t VALUES (1000, 'x', NULL)", "UPDATE t SET a = 'y' WHERE id = 1000"];
    a_column_takes_the_place_of_another:
        ["ALTER TABLE t DROP a; ALTER TABLE t ADD a2 text", "UPDATE t SET a2 = 'new' WHERE id = 2"];
    a_renamed_column_is_another: ["ALTER TABLE t RENAME a TO z", "UPDATE t SET z = 'new' WHERE id = 3"];
    a_column_gets_its_old_name_back:
        ["ALTER TABLE t RENAME a TO z", "UPDATE t SET z = 'new' WHERE id = 3", "ALTER TABLE t RENAME z TO a",
         "UPDATE t SET a = 'newer' WHERE id = 4"];
    a_renamed_table_is_another: ["ALTER TABLE t RENAME TO renamed", "DELETE FROM renamed WHERE id = 5"];
    a_table_that_is_dropped_comes_again: ["DROP TABLE t"];
    an_unpublished_schema_goes_on: ["CREATE SCHEMA s; ALTER TABLE t SET SCHEMA s", "INSERT INTO s.t VALUES (777)"];
    a_column_is_added_and_nothing_written: ["ALTER TABLE t ADD d int"];
    a_column_may_not_be_null: ["ALTER TABLE t ALTER a SET NOT NULL", "ALTER TABLE t ALTER a DROP NOT NULL",
        "ALTER TABLE t ALTER b SET NOT NULL"];
    a_type_is_another_for_the_same_values: ["ALTER TABLE t ALTER a TYPE varchar", "UPDATE t SET a = 'v' WHERE id = 2"];
    a_transaction_changes_rows_on_both_sides_of_a_change:
        ["BEGIN; DELETE FROM u WHERE id < 5; UPDATE t SET b = 1 WHERE id = 1; ALTER TABLE t ADD d text;
          INSERT INTO t VALUES (2000, 'x', 1, NULL, 'd'); UPDATE t SET d = 'all'; UPDATE t SET b = 2 WHERE id = 1; COMMIT"];
    a_column_replaces_another_in_one_transaction:
        ["BEGIN; ALTER TABLE t ADD b2 text; UPDATE t SET b2 = b::text; UPDATE t SET b = -1 WHERE id = 2;
          ALTER TABLE t DROP b; UPDATE t SET a = 'after' WHERE id = 3; COMMIT", "UPDATE t SET b2 = 'x' WHERE id = 4"];
    a_change_that_is_undone_stays:
        ["BEGIN; UPDATE t SET b = 5; ALTER TABLE t ADD d int; UPDATE t SET d = 1; ROLLBACK", "UPDATE t SET b = 6"];
    a_savepoint_that_is_undone_stays:
        ["BEGIN; UPDATE t SET b = 5; SAVEPOINT s; ALTER TABLE t ADD d int; UPDATE t SET d = 1; ROLLBACK TO s;
          UPDATE t SET b = 7 WHERE id = 1; COMMIT", "UPDATE t SET b = 6 WHERE id = 2"];
    many_changes_come_between_two_looks:
        ["ALTER TABLE t ADD d int; UPDATE t SET d = 1 WHERE id = 1; ALTER TABLE t RENAME d TO e;
          UPDATE t SET e = 2 WHERE id = 2; ALTER TABLE t ADD f text DEFAULT 'f'; UPDATE t SET f = 'g' WHERE id = 3;
          ALTER TABLE t RENAME a TO a1; UPDATE t SET a1 = 'h' WHERE id = 4; ALTER TABLE t DROP c;
          UPDATE t SET b = 9 WHERE id = 5"];
    names_differ_only_in_case: ["ALTER TABLE t ADD \"A\" text DEFAULT 'A'", "UPDATE t SET \"A\" = 'B' WHERE id = 1"];
    a_large_value_that_did_not_change_is_lost:
        ["INSERT INTO t SELECT 3000, string_agg(md5(i::text), ''), 1 FROM generate_series(1, 2000) i",
         "ALTER TABLE t ADD d int", "UPDATE t SET d = 1 WHERE id = 3000", "UPDATE t SET id = 3001 WHERE id = 3000"];
    a_created_table_is_missed:
        ["CREATE TABLE v (id int PRIMARY KEY, t text)", "INSERT INTO v VALUES (1, 'a'), (2, 'b')", "UPDATE v SET t = 'c' WHERE id = 1",
         "DELETE FROM v WHERE id = 2", "CREATE INDEX ON v (t)"];
    a_table_that_is_created_with_its_rows_is_empty:
        ["BEGIN; CREATE TABLE v (id int PRIMARY KEY); INSERT INTO v VALUES (1); UPDATE t SET b = 3; INSERT INTO v VALUES (2); COMMIT",
         "CREATE TABLE w AS SELECT i AS id, i * 2 AS n FROM generate_series(1, 1000) i", "ALTER TABLE w ADD PRIMARY KEY (id)",
         "UPDATE w SET n = 0 WHERE id = 7"];
    a_table_that_is_moved_into_the_publication_is_empty:
        ["CREATE SCHEMA s; CREATE TABLE s.v (id int PRIMARY KEY, t text); INSERT INTO s.v SELECT i, 'v' || i FROM generate_series(1, 3000) i",
         "ALTER TABLE s.v SET SCHEMA public", "UPDATE v SET t = 'x' WHERE id < 50", "UPDATE v SET id = id + 10000 WHERE id > 2990"];
    a_table_that_changes_while_it_is_filled_is_half_of_each:
        ["CREATE TABLE v (id int PRIMARY KEY, t text); INSERT INTO v SELECT i, repeat('v', 50) FROM generate_series(1, 20000) i",
         "ALTER TABLE v ADD COLUMN n int DEFAULT 4; UPDATE v SET n = 5 WHERE id < 100", "ALTER TABLE v RENAME COLUMN t TO u",
         "UPDATE v SET u = 'y' WHERE id > 19000", "TRUNCATE v", "INSERT INTO v VALUES (1, 'z', 1)"];
    a_table_that_goes_before_it_is_filled_is_waited_for:
        ["CREATE TABLE v (id int PRIMARY KEY); INSERT INTO v SELECT generate_series(1, 20000)", "DROP TABLE v", "UPDATE t SET b = 0"];
    a_partitioned_table_is_empty:
        ["CREATE TABLE p (id int PRIMARY KEY, t text) PARTITION BY RANGE (id);
          CREATE TABLE p_1 PARTITION OF p FOR VALUES FROM (0) TO (100); CREATE TABLE p_2 PARTITION OF p FOR VALUES FROM (100) TO (200);
          INSERT INTO p SELECT i, 'p' FROM generate_series(1, 150) i", "UPDATE p SET id = id + 150 WHERE id BETWEEN 5 AND 40", "DELETE FROM p WHERE id = 77"];
    a_key_changes:
        ["ALTER TABLE t DROP CONSTRAINT t_pkey; ALTER TABLE t ADD PRIMARY KEY (a, id)", "UPDATE t SET b = 0 WHERE id = 6",
         "UPDATE t SET a = a || 'x' WHERE id < 20; DELETE FROM t WHERE id = 30"];
    an_index_is_made_and_renamed:
        ["CREATE INDEX i ON t (b)", "ALTER INDEX i RENAME TO j", "ALTER TABLE t RENAME TO i", "CREATE INDEX t ON i (c)"];
}

#[test]
fn a_publication_that_is_dropped_goes_on() {
    on_executor(|| async {
        let database = Cluster::shared().database().await;
        let scratch = Scratch::new();
        database.run(TABLES).await;
        let replicator = Replicator::follow(&database, &scratch).await;
        database.run("DROP PUBLICATION \"_zero_public_0\"").await;
        let reason = replicator.resync().await;
        assert!(reason.contains("_zero_public_0"), "{reason}");
    });
}

#[test]
fn without_auto_reset_it_halts_and_keeps_the_file() {
    on_executor(|| async {
        let database = Cluster::shared().database().await;
        let scratch = Scratch::new();
        database.run(TABLES).await;
        let mut settings = settings(&database.target, &scratch.replica());
        settings.auto_reset = false;
        let mut replicator = Replicator::start(settings.clone());
        replicator.ready().await;
        database.run("UPDATE u SET n = 3 WHERE id = 1").await;
        replicator.check(&database).await;
        let rows = replicator.rows("t");
        database.run("DROP TABLE u").await;
        replicator.until("it is followed", |record| said(record, "table u is not published")).await;
        database.run("CREATE TABLE u (id int PRIMARY KEY)").await;
        let message = replicator.failure().await;
        assert!(
            message.contains("the name of one that is gone") && message.contains("ZERO_AUTO_RESET"),
            "{message}"
        );
        // It says so again, until somebody decides.
        let again = Replicator::start(settings).failure().await;
        assert!(
            again.contains("the name of one that is gone") && again.contains("ZERO_AUTO_RESET=true"),
            "{again}"
        );
        let connection = rusqlite::Connection::open(scratch.replica()).unwrap();
        let kept: i64 = connection.query_row("SELECT count(*) FROM t", [], |r| r.get(0)).unwrap();
        assert_eq!(kept, rows.len() as i64);
    });
}

fn said(record: &Record, text: &str) -> bool {
    record.log.iter().any(|line| line.contains(text))
}

/// As apps do whose database lets nobody make event triggers.
#[test]
fn a_migration_that_says_so_itself_is_an_error() {
    on_executor(|| async {
        let database = Cluster::shared().database().await;
        let scratch = Scratch::new();
        database.run(TABLES).await;
        let mut replicator = Replicator::follow(&database, &scratch).await;
        let call = "SELECT zero_0.update_schemas()";
        database
            .run(&format!(
                "BEGIN; ALTER TABLE t ADD d int DEFAULT 1; {call}; UPDATE t SET d = 2 WHERE id = 1; COMMIT"
            ))
            .await;
        database.run(&format!("BEGIN; ALTER TABLE t ADD e int; {call}; COMMIT; {call}")).await;
        assert!(replicator.follows(&database).await, "{:?}", replicator.ended().await);
        replicator.check(&database).await;
        replicator.stop().await;
    });
}

#[test]
fn a_table_without_a_primary_key_that_comes_cannot_be_updated() {
    on_executor(|| async {
        let database = Cluster::shared().database().await;
        let scratch = Scratch::new();
        database.run(TABLES).await;
        let mut replicator = Replicator::follow(&database, &scratch).await;
        database
            .run("CREATE TABLE v (code text NOT NULL UNIQUE, n int); INSERT INTO v VALUES ('a', 1), ('b', 2)")
            .await;
        let identity = "SELECT relreplident FROM pg_class WHERE oid = 'v'::regclass";
        let started = std::time::Instant::now();
        while database.value(identity).await != "i" {
            assert!(started.elapsed() < Duration::from_secs(20), "its replica identity is not set");
            executor::sleep(Duration::from_millis(20)).await;
        }
        database.run("UPDATE v SET n = 3 WHERE code = 'a'; DELETE FROM v WHERE code = 'b'").await;
        assert!(replicator.follows(&database).await, "{:?}", replicator.ended().await);
        replicator.check(&database).await;
        assert_eq!(replicator.rows("v").len(), 1);
        replicator.stop().await;
    });
}

/// Everything that may happen to rows of a table while it is filled, by several sessions.
#[test]
fn a_table_that_is_filled_under_writes_differs() {
    on_executor(|| async {
        let database = Cluster::shared().database().await;
        let scratch = Scratch::new();
        database.run(TABLES).await;
        let mut replicator = Replicator::follow(&database, &scratch).await;
        database
            .run(
                "CREATE SCHEMA s; CREATE TABLE s.v (id int PRIMARY KEY, n int, t text);
                 INSERT INTO s.v SELECT i, i, repeat(md5(i::text), 100) FROM generate_series(1, 30000) i",
            )
            .await;
        // A transaction that wrote before the table was published, and goes on after that.
        let open = Database::open(database.target.clone()).await;
        open.run("BEGIN; INSERT INTO s.v VALUES (-1, 1, 'before')").await;
        database
            .run("CREATE PUBLICATION more FOR TABLE t; ALTER PUBLICATION \"_zero_public_0\" ADD TABLE s.v")
            .await;
        open.run("INSERT INTO s.v VALUES (-2, 1, 'after')").await;
        let mut random = Random::new(7);
        for round in 0..400 {
            let (id, other) = (random.below(30_000), random.below(1_000_000));
            let sql = match random.below(8) {
                0 => format!("DELETE FROM s.v WHERE id = {id}"),
                1 => format!("UPDATE s.v SET id = {} WHERE id = {id}", other + 40_000),
                2 => format!("INSERT INTO s.v VALUES ({id}, 0, 'again') ON CONFLICT DO NOTHING"),
                3 => format!("UPDATE s.v SET t = 'short' WHERE id = {id}"),
                4 => format!("BEGIN; UPDATE s.v SET n = -1 WHERE id < {}; ROLLBACK", id % 100),
                // Values that are stored apart do not come with the row.
                _ => format!("UPDATE s.v SET n = n + 1 WHERE id % 5000 = {}", id % 5000),
            };
            database.run(&sql).await;
            if round == 40 {
                open.run("COMMIT").await;
            }
        }
        assert!(replicator.follows(&database).await, "{:?}", replicator.ended().await);
        replicator
            .until("the table is shown", |record| {
                record.log.iter().any(|line| line.contains("s.v has been filled"))
            })
            .await;
        replicator.check(&database).await;
        assert!(!replicator.rows("s.v").is_empty());
        let left = "SELECT count(*) FROM \"_kelvin.spool\"";
        let left: i64 = tables::open(&replicator.replica).query_row(left, [], |row| row.get(0)).unwrap();
        assert_eq!(left, 0, "changes that were put aside");
        replicator.stop().await;
    });
}

/// Waits until the file has the index that upstream has got.
async fn until_indexed(replicator: &mut Replicator) {
    let started = std::time::Instant::now();
    let has_it = |replicator: &Replicator| {
        let catalogue = tables::catalogue(&tables::open(&replicator.replica));
        catalogue.table("t").expect("the table").indexes.iter().any(|index| index.name == "t_b_idx")
    };
    while !has_it(replicator) {
        assert_eq!(replicator.ended().await.map(|end| format!("{end:?}")), None);
        assert!(started.elapsed() < Duration::from_secs(30), "the index is not made");
        executor::sleep(Duration::from_millis(50)).await;
    }
}

#[test]
fn changes_that_rows_do_not_depend_on_are_survived() {
    on_executor(|| async {
        let database = Cluster::shared().database().await;
        let scratch = Scratch::new();
        database.run(TABLES).await;
        let mut replicator = Replicator::follow(&database, &scratch).await;
        database
            .run(
                "CREATE INDEX ON t (b); CREATE SCHEMA s; CREATE TABLE s.other (id int); INSERT INTO s.other VALUES (1);
                 ALTER TABLE t ALTER b SET DEFAULT 5; COMMENT ON TABLE t IS 'x'; ALTER TABLE t ADD CHECK (id > 0);
                 UPDATE t SET b = 9 WHERE id = 9",
            )
            .await;
        // What changes a column's definition is to be known before the file is another one.
        until_indexed(&mut replicator).await;
        database.run("VACUUM FULL t").await;
        database.run("UPDATE t SET b = 10 WHERE id = 10").await;
        until_indexed(&mut replicator).await;
        replicator.check(&database).await;
        let connection = crate::support::tables::open(&replicator.replica);
        let sql = "SELECT count(*) FROM sqlite_schema WHERE type = 'index' AND name = 't_b_idx'";
        assert_eq!(connection.query_row(sql, [], |r| r.get::<_, i64>(0)).unwrap(), 1);
        drop(connection);
        replicator.check(&database).await;
        replicator.stop().await;
    });
}
