//! Tables whose stored rows cannot be kept are copied beside the stream: rows stay what they were, or everything is synced
//! anew for one table (`docs/spec/schema-changes.md` S21, S22).

use crate::ddl::{COPIED, TABLES, followed};
use crate::support::on_executor;
use crate::support::postgres::Cluster;
use crate::support::replicator::{Replicator, Scratch};

macro_rules! refills {
    ($($name:ident $(after $before:tt)?: [$($statement:expr),*], $because:expr;)*) => {
        $(
            #[test]
            fn $name() {
                on_executor(|| async {
                    let before: &[&str] = &[$($before)?];
                    followed(&before.concat(), &[$($statement),*], Some($because)).await
                });
            }
        )*
    };
}

// Values of rows are others, or are told by others.
refills! {
    a_column_is_added_with_a_value_in_each_row:
        ["ALTER TABLE t ADD d float8 DEFAULT random()", "UPDATE t SET d = 8 WHERE id = 1"],
        "a value of its own in each row";
    a_column_is_numbered:
        ["ALTER TABLE t ADD d int GENERATED ALWAYS AS IDENTITY", "UPDATE t SET b = 8 WHERE id = 1"],
        "a value of its own in each row";
    a_column_comes_back_under_its_name:
        ["ALTER TABLE t DROP b; ALTER TABLE t ADD b int DEFAULT 0", "UPDATE t SET b = 7 WHERE id = 2"],
        "t";
    a_column_comes_back_later_under_its_name:
        ["ALTER TABLE t DROP b", "UPDATE t SET a = 'y' WHERE id = 3", "ALTER TABLE t ADD b int DEFAULT 0", "UPDATE t SET b = 7 WHERE id = 2"],
        "a column has the name of one that is gone";
    two_columns_swap_their_names_at_once after "ALTER TABLE u ADD m int":
        ["ALTER TABLE u RENAME n TO x; ALTER TABLE u RENAME m TO n; ALTER TABLE u RENAME x TO m; UPDATE u SET n = 5 WHERE id > 9",
         "UPDATE u SET m = 6 WHERE id > 40"],
        "a column has the name of one that is gone";
    two_columns_swap_their_names:
        ["ALTER TABLE u ADD m int", "ALTER TABLE u RENAME n TO x; ALTER TABLE u RENAME m TO n; UPDATE u SET n = 5"],
        "u";
    a_type_changes: ["ALTER TABLE t ALTER b TYPE text USING b || 'x'", "UPDATE t SET b = 'y' WHERE id = 4"],
        "has the type text instead of int4";
    a_type_changes_and_back: ["ALTER TABLE t ALTER b TYPE text USING b || '1'", "UPDATE t SET b = '77' WHERE id = 4",
        "ALTER TABLE t ALTER b TYPE int USING b::int", "UPDATE t SET b = 78 WHERE id = 5"],
        "column t.b";
    values_are_rewritten: ["ALTER TABLE u ALTER n TYPE int USING n * 100", "UPDATE u SET n = 1 WHERE id = 4"],
        "values of column u.n were rewritten";
    values_are_rewritten_and_nothing_written: ["ALTER TABLE u ALTER n TYPE int USING n * 100"],
        "values of column u.n were rewritten";
    values_are_rewritten_again_and_again:
        ["ALTER TABLE u ALTER n TYPE int USING n * 100", "ALTER TABLE u ALTER n TYPE int USING n + 1; UPDATE u SET n = 3 WHERE id = 9",
         "ALTER TABLE u ALTER n TYPE int USING -n"],
        "values of column u.n were rewritten";
    texts_are_padded: ["ALTER TABLE t ALTER a TYPE char(9)", "UPDATE t SET a = 'z' WHERE id = 4"], "column t.a";
    texts_are_cut: ["ALTER TABLE t ALTER a TYPE varchar(2) USING left(a, 2)"], "column t.a";
    times_are_rounded: ["ALTER TABLE t ALTER c TYPE timestamptz(0)"], "column t.c";
    labels_are_renamed after "CREATE TYPE e AS ENUM ('x', 'y'); ALTER TABLE t ADD e e DEFAULT 'x'":
        ["UPDATE t SET e = 'y' WHERE id < 9",
         "ALTER TYPE e RENAME VALUE 'x' TO 'z'; ALTER TYPE e RENAME VALUE 'y' TO 'x'; UPDATE t SET e = 'z' WHERE id = 3"],
        "values of the enum e of column t.e were renamed";
}

// Rows are found by other keys, or by other names.
refills! {
    two_tables_swap_their_names:
        ["BEGIN; ALTER TABLE t RENAME TO tmp; ALTER TABLE u RENAME TO t; ALTER TABLE tmp RENAME TO u;
          UPDATE t SET n = 77; ALTER TABLE u ADD n int; COMMIT", "UPDATE u SET n = 5; DELETE FROM t WHERE id = 40"],
        "another table has its name now";
    a_table_takes_the_place_of_another:
        ["BEGIN; CREATE TABLE w (LIKE t INCLUDING ALL); INSERT INTO w SELECT id, a, b + 1, c FROM t WHERE id < 40; DROP TABLE t;
          ALTER TABLE w RENAME TO t; UPDATE t SET a = 'w' WHERE id = 3; COMMIT", "DELETE FROM t WHERE id = 7"],
        "another table has its name now";
    a_table_is_dropped_and_made_again:
        ["DROP TABLE u; CREATE TABLE u (id int PRIMARY KEY, n int); INSERT INTO u VALUES (1, 1)"],
        "another table has its name now";
    a_key_gets_another_column:
        ["ALTER TABLE t DROP CONSTRAINT t_pkey; ALTER TABLE t ADD x int GENERATED ALWAYS AS IDENTITY; ALTER TABLE t ADD PRIMARY KEY (x, id)",
         "UPDATE t SET b = 0 WHERE id = 6"],
        "t";
}

const PARTITIONED: &str = "CREATE TABLE p (id int PRIMARY KEY, n int) PARTITION BY RANGE (id);
    CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (100); CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (100) TO (200);
    INSERT INTO p SELECT i, i FROM generate_series(1, 180) i";

const DEEP: &str = "CREATE TABLE p (id int PRIMARY KEY, n int) PARTITION BY RANGE (id);
    CREATE TABLE q PARTITION OF p FOR VALUES FROM (200) TO (300) PARTITION BY RANGE (id);
    CREATE TABLE q1 PARTITION OF q FOR VALUES FROM (200) TO (300); INSERT INTO p VALUES (220, 1)";

// Rows come and go with partitions, and no message says so.
refills! {
    a_partition_is_dropped after PARTITIONED:
        ["DROP TABLE p1", "UPDATE p SET n = 0 WHERE id < 150"],
        "a partition of table p was dropped or detached";
    a_partition_is_detached after PARTITIONED:
        ["ALTER TABLE p DETACH PARTITION p1", "UPDATE p1 SET n = 7"],
        "a partition of table p was dropped or detached";
    a_partition_is_truncated after PARTITIONED:
        ["TRUNCATE p2"],
        "a partition of table p was truncated or rewritten";
    a_partition_is_attached_with_rows after PARTITIONED:
        ["CREATE TABLE p3 (LIKE p); INSERT INTO p3 SELECT i, i FROM generate_series(200, 250) i; ALTER TABLE p3 ADD PRIMARY KEY (id)",
         "ALTER TABLE p ATTACH PARTITION p3 FOR VALUES FROM (200) TO (300)", "UPDATE p SET n = -1 WHERE id > 170"],
        "a partition of table p was attached";
    a_partition_is_made_with_rows_in_one_transaction after PARTITIONED:
        ["BEGIN; CREATE TABLE p3 (LIKE p INCLUDING ALL); INSERT INTO p3 SELECT i, i FROM generate_series(200, 250) i;
          ALTER TABLE p ATTACH PARTITION p3 FOR VALUES FROM (200) TO (300); COMMIT", "UPDATE p SET n = -1 WHERE id > 170"],
        "a partition of table p was attached";
    a_partition_changes_its_rows_while_it_is_none after PARTITIONED:
        ["ALTER TABLE p DETACH PARTITION p1; UPDATE p1 SET n = 7; ALTER TABLE p ATTACH PARTITION p1 FOR VALUES FROM (0) TO (100)"],
        "a partition of table p was dropped or detached";
    a_partition_comes_and_goes after PARTITIONED:
        ["BEGIN; CREATE TABLE p3 PARTITION OF p FOR VALUES FROM (200) TO (300); INSERT INTO p VALUES (210, 1); COMMIT;
          DROP TABLE p3"],
        "a partition came and went";
    a_partition_of_a_partition_is_truncated after DEEP:
        ["TRUNCATE q1"],
        "a partition of table p was truncated or rewritten";
}

#[test]
fn partitions_that_are_made_empty_are_copied() {
    on_executor(|| async {
        let more = "BEGIN; INSERT INTO p VALUES (190, 1); CREATE TABLE p3 PARTITION OF p FOR VALUES FROM (200) TO (300);
                    INSERT INTO p SELECT i, i FROM generate_series(200, 250) i; COMMIT";
        let last = "UPDATE p SET n = 0 WHERE id > 170; DELETE FROM p WHERE id = 210";
        followed(PARTITIONED, &[more, last], None).await;
    });
}

#[test]
fn a_default_goes_when_the_rows_have_it_already() {
    on_executor(|| async {
        let database = Cluster::shared().database().await;
        let scratch = Scratch::new();
        database.run(TABLES).await;
        Replicator::follow(&database, &scratch).await.stop().await;
        database.run("ALTER TABLE t ADD d int DEFAULT 5 NOT NULL; ALTER TABLE t ALTER d DROP DEFAULT").await;
        database.run("VACUUM FULL t").await;
        database.run("UPDATE t SET b = 8 WHERE id = 1").await;
        let mut replicator = Replicator::follow(&database, &scratch).await;
        replicator.until("it is copied", |record| record.log.iter().any(|line| line.contains(COPIED))).await;
        assert!(replicator.follows(&database).await, "{:?}", replicator.ended().await);
        replicator.check(&database).await;
        replicator.stop().await;
    });
}

/// Postgres sends a row that comes into the publication by an update as an insert, without what is stored apart.
#[test]
fn a_row_that_a_filter_lets_through_has_lost_its_large_values() {
    on_executor(|| async {
        let database = Cluster::shared().database().await;
        let scratch = Scratch::new();
        database.run(TABLES).await;
        database.run("CREATE PUBLICATION mine FOR TABLE t WHERE (id > 10), TABLE u").await;
        let large = "(SELECT string_agg(md5(i::text), '') FROM generate_series(1, 500) i)";
        database.run(&format!("UPDATE t SET a = {large} WHERE id < 8")).await;
        let mut replicator = Replicator::follow_publications(&database, &scratch, &["mine"]).await;
        for round in 1..4 {
            let update = format!(
                "UPDATE t SET id = id + 1000 WHERE id = {round}; UPDATE t SET b = b + 1; UPDATE u SET n = n + 1"
            );
            database.run(&format!("BEGIN; {update}; COMMIT")).await;
            let is_it = |line: &String| line.contains("table t has been filled");
            let enough = |lines: &[String]| lines.iter().filter(|line| is_it(line)).count() >= round;
            replicator.until("it is copied", |record| enough(&record.log)).await;
            replicator.check_tables(&database, &["t", "u"]).await;
        }
        replicator.stop().await;
    });
}

/// What a publication shows changes while nobody writes.
#[test]
fn what_is_not_published_any_more_stays_and_what_is_does_not_come() {
    on_executor(|| async {
        let database = Cluster::shared().database().await;
        let scratch = Scratch::new();
        database.run(TABLES).await;
        database.run("CREATE PUBLICATION mine FOR TABLE u, TABLE t (id, a, b) WHERE (id > 10)").await;
        let mut replicator = Replicator::follow_publications(&database, &scratch, &["mine"]).await;
        let changes = [
            ("t (id, a, b) WHERE (id < 30)", "other rows of table t are published", 29),
            ("t (id, a, b, c) WHERE (id < 30)", "columns of table t were published", 29),
            ("t (id, b) WHERE (id > 40 OR id = 3)", "other rows of table t are published", 11),
            ("t", "other rows of table t are published", 50),
        ];
        for (at, (published, because, rows)) in changes.into_iter().enumerate() {
            database.run(&format!("ALTER PUBLICATION mine SET TABLE u, TABLE {published}")).await;
            let is_it = |line: &String| line.contains(COPIED) && line.contains(because);
            let enough = |lines: &[String]| {
                lines.iter().filter(|line| line.contains("table t has been filled")).count() > at
            };
            replicator.until(because, |record| record.log.iter().any(is_it) && enough(&record.log)).await;
            replicator.check_tables(&database, &["t", "u"]).await;
            assert_eq!(replicator.rows("t").len(), rows, "{published}");
            database
                .run("UPDATE t SET b = b + 1, a = a || '!' WHERE id = 20 OR id = 45; UPDATE u SET n = n + 1")
                .await;
            replicator.check_tables(&database, &["t", "u"]).await;
        }
        replicator.stop().await;
    });
}

/// Rows on the way are told by the key of before.
#[test]
fn a_key_is_another_unique_index() {
    on_executor(|| async {
        let database = Cluster::shared().database().await;
        let scratch = Scratch::new();
        database.run(TABLES).await;
        let mut replicator = Replicator::follow(&database, &scratch).await;
        for statement in [
            "ALTER TABLE t ALTER b SET NOT NULL; CREATE UNIQUE INDEX tb ON t (b)",
            "ALTER TABLE t REPLICA IDENTITY USING INDEX tb",
            "UPDATE t SET b = b + 1000 WHERE id < 20; DELETE FROM t WHERE id = 30",
            "ALTER TABLE t REPLICA IDENTITY DEFAULT",
            "UPDATE t SET b = b + 1000 WHERE id < 20; UPDATE t SET id = id + 1000 WHERE id < 7",
        ] {
            database.run(statement).await;
        }
        assert!(replicator.follows(&database).await, "{:?}", replicator.ended().await);
        replicator.check(&database).await;
        replicator.stop().await;
    });
}
