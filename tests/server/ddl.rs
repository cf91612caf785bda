//! Schema changes under a running stream: rows that land in the wrong column, or a stream
//! that goes on with a schema it does not know.

use std::time::Duration;

use crate::support::on_executor;
use crate::support::postgres::{Cluster, Database};
use crate::support::replicator::{Replicator, Scratch, settings};
use kelvin_io::executor;

const TABLES: &str = "
    CREATE TABLE t (id int PRIMARY KEY, a text, b int, c timestamptz);
    CREATE TABLE u (id int PRIMARY KEY, n int);
    INSERT INTO t SELECT i, 'a' || i, i, now() FROM generate_series(1, 50) i;
    INSERT INTO u SELECT i, i FROM generate_series(1, 50) i;
";

/// Follows, runs statements one by one as transactions, and expects that the manager ends
/// to sync anew, any number of times, and that all rows are right afterwards. Returns the
/// reasons.
async fn through(statements: &[&str]) -> Vec<String> {
    let database = Cluster::shared().database().await;
    let scratch = Scratch::new();
    database.run(TABLES).await;
    let mut replicator = Replicator::follow(&database, &scratch).await;
    database.run("UPDATE t SET b = b + 1").await;
    replicator.check(&database).await;
    for statement in statements {
        database.run(statement).await;
    }
    let mut reasons = vec![replicator.resync().await];
    loop {
        let mut replicator = Replicator::start(settings(&database.target, &scratch.replica()));
        replicator.ready().await;
        // A part of the change may lie behind the new sync; then it ends once more.
        if let Some(reason) = settles(&mut replicator, &database).await {
            reasons.push(reason);
            assert!(reasons.len() < 5, "{reasons:#?}");
            continue;
        }
        replicator.check(&database).await;
        replicator.stop().await;
        return reasons;
    }
}

async fn settles(replicator: &mut Replicator, database: &Database) -> Option<String> {
    database.run("UPDATE u SET n = n + 1 WHERE id < 10").await;
    executor::sleep(Duration::from_millis(300)).await;
    replicator.ended().await.map(|end| format!("{end:?}"))
}

macro_rules! changes {
    ($($name:ident: $statements:expr, $reason:expr;)*) => {
        $(
            #[test]
            fn $name() {
                on_executor(|| async {
                    let reasons = through(&$statements).await;
                    assert!(reasons[0].contains($reason), "{reasons:#?}");
                });
            }
        )*
    };
}

changes! {
    a_column_is_added: ["ALTER TABLE t ADD d int DEFAULT 7", "UPDATE t SET d = 8 WHERE id = 1"],
        "has 5 columns instead of 4";
    a_column_is_dropped: ["ALTER TABLE t DROP b; INSERT INTO t VALUES (1000, 'x', NULL)"],
        "has 3 columns instead of 4";
    a_column_takes_the_place_of_another:
        ["ALTER TABLE t DROP a; ALTER TABLE t ADD a2 text", "UPDATE t SET a2 = 'new' WHERE id = 2"],
        "t";
    a_column_is_renamed: ["ALTER TABLE t RENAME a TO z", "UPDATE t SET z = 'new' WHERE id = 3"],
        "has a column z in the place of a";
    two_columns_swap_their_names:
        ["ALTER TABLE u ADD m int", "ALTER TABLE u RENAME n TO x; ALTER TABLE u RENAME m TO n; UPDATE u SET n = 5"],
        "u";
    a_type_changes: ["ALTER TABLE t ALTER b TYPE text USING b || 'x'", "UPDATE t SET b = 'y' WHERE id = 4"],
        "has another type";
    a_table_is_created: ["CREATE TABLE v (id int PRIMARY KEY)", "INSERT INTO v VALUES (1)"],
        "was added to the publications";
    a_table_is_renamed: ["ALTER TABLE t RENAME TO renamed", "DELETE FROM renamed WHERE id = 5"],
        "was renamed to public.renamed";
    two_tables_swap_their_names:
        ["BEGIN; ALTER TABLE t RENAME TO tmp; ALTER TABLE u RENAME TO t; ALTER TABLE tmp RENAME TO u;
          UPDATE t SET n = 77; ALTER TABLE u ADD n int; COMMIT"],
        "was renamed";
    a_key_changes:
        ["ALTER TABLE t DROP CONSTRAINT t_pkey; ALTER TABLE t ADD PRIMARY KEY (a, id)",
         "UPDATE t SET b = 0 WHERE id = 6"],
        "key";
    a_table_is_dropped_and_made_again:
        ["DROP TABLE u; CREATE TABLE u (id int PRIMARY KEY, n int); INSERT INTO u VALUES (1, 1)"],
        "was added to the publications";
}

// What no row message shows is found by looking at the schema every few seconds.
changes! {
    a_table_is_dropped_and_nothing_written: ["DROP TABLE t"], "is not published any more";
    a_publication_is_dropped: ["DROP PUBLICATION \"_zero_public_0\""], "_zero_public_0";
    a_column_is_added_and_nothing_written: ["ALTER TABLE t ADD d int"], "has 5 columns instead of 4";
}

#[test]
fn a_change_in_the_middle_of_a_transaction_undoes_all_of_it_and_copies_it() {
    on_executor(|| async {
        let reasons = through(&["BEGIN; DELETE FROM u WHERE id < 20; ALTER TABLE t ADD d text;
              INSERT INTO t VALUES (2000, 'x', 1, NULL, 'd'); UPDATE t SET d = 'all'; COMMIT"])
        .await;
        assert!(reasons[0].contains("columns"), "{reasons:#?}");
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
        database.run("ALTER TABLE t ADD d int; INSERT INTO t VALUES (3000)").await;
        let message = replicator.failure().await;
        assert!(message.contains("has 5 columns") && message.contains("ZERO_AUTO_RESET"), "{message}");
        // It says so again, until somebody decides.
        let again = Replicator::start(settings).failure().await;
        assert!(again.contains("columns") && again.contains("ZERO_AUTO_RESET=true"), "{again}");
        let connection = rusqlite::Connection::open(scratch.replica()).unwrap();
        let kept: i64 = connection.query_row("SELECT count(*) FROM t", [], |r| r.get(0)).unwrap();
        assert_eq!(kept, rows.len() as i64);
    });
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
        database.run("VACUUM FULL t").await;
        database.run("UPDATE t SET b = 10 WHERE id = 10").await;
        replicator.check(&database).await;
        replicator.stop().await;
        // The new index is built at the next start.
        let mut replicator = Replicator::follow(&database, &scratch).await;
        assert!(!replicator.said("starting an initial sync"));
        let connection = crate::support::tables::open(&replicator.replica);
        let sql = "SELECT count(*) FROM sqlite_schema WHERE type = 'index' AND name = 't_b_idx'";
        assert_eq!(connection.query_row(sql, [], |r| r.get::<_, i64>(0)).unwrap(), 1);
        drop(connection);
        replicator.check(&database).await;
        replicator.stop().await;
    });
}
