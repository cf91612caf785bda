//! Generated columns: published ones that are empty or old, others that appear, and tables that cannot be copied.

use super::{columns, copied_anew, follows, keys};
use crate::support::on_executor;
use crate::support::postgres::{Cluster, Database, is_before, is_since};
use crate::support::replicator::{Replicator, Scratch, settings};
use kelvin::upstream::copy::Format;
use kelvin::upstream::settings::Settings;

/// Stored columns of several types: plain, large, of a key, of a partitioned table; and virtual ones beside them.
const TABLES: &str = "
    CREATE TABLE doc (id int PRIMARY KEY, n int, body text, twice int GENERATED ALWAYS AS (n * 2) STORED,
                      later int GENERATED ALWAYS AS (n * 3), at timestamptz GENERATED ALWAYS AS (to_timestamp(n)) STORED,
                      shout text GENERATED ALWAYS AS (upper(body)) STORED, last int);
    ALTER TABLE doc ALTER body SET STORAGE EXTERNAL, ALTER shout SET STORAGE EXTERNAL;
    CREATE TABLE slug (title text NOT NULL, slug text GENERATED ALWAYS AS (lower(title)) STORED PRIMARY KEY, n int);
    CREATE TABLE event (id int, day date, n int, twice int GENERATED ALWAYS AS (n * 2) STORED, PRIMARY KEY (id, day))
      PARTITION BY RANGE (day);
    CREATE TABLE event_a PARTITION OF event FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
    CREATE TABLE event_b PARTITION OF event FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
    INSERT INTO doc (id, n, body, last) SELECT i, i, repeat('x', 3000 * (i % 2)) || i, i FROM generate_series(1, 40) i;
    INSERT INTO slug (title, n) SELECT 'Title ' || i, i FROM generate_series(1, 20) i;
    INSERT INTO event SELECT i, date '2025-12-01' + i, i FROM generate_series(1, 60) i;
";

const PUBLISH: &str = "CREATE PUBLICATION everything FOR TABLES IN SCHEMA public
                         WITH (publish_via_partition_root = true, publish_generated_columns = stored)";

const WRITES: &str = "
    UPDATE doc SET n = n + 1 WHERE id < 10; UPDATE doc SET last = 0 WHERE id % 3 = 0; UPDATE doc SET n = NULL WHERE id = 30;
    UPDATE doc SET body = 'short' WHERE id = 5; UPDATE doc SET id = id + 100 WHERE id > 35; DELETE FROM doc WHERE id = 20;
    INSERT INTO doc (id, n) VALUES (500, 7); INSERT INTO event VALUES (500, '2025-05-05', 1);
    UPDATE event SET n = 0 WHERE id < 5; UPDATE event SET day = '2026-06-06' WHERE id = 7; DELETE FROM event WHERE id = 8;
";

const KEY_WRITES: &str = "
    UPDATE slug SET title = 'New ' || n WHERE n < 5; UPDATE slug SET n = -n WHERE n > 10; DELETE FROM slug WHERE n = 7;
    INSERT INTO slug VALUES ('Another', DEFAULT, 99)
";

fn published(database: &Database, scratch: &Scratch) -> Settings {
    Settings { publications: vec!["everything".into()], ..settings(&database.target, &scratch.replica()) }
}

#[test]
fn generated_columns_that_are_published_are_empty_or_old() {
    if is_before(18) {
        return;
    }
    on_executor(|| async {
        for copy_format in [Format::Binary, Format::Text] {
            let database = Cluster::shared().database().await;
            let scratch = Scratch::new();
            database.run(TABLES).await;
            database.run(PUBLISH).await;
            let mut replicator =
                Replicator::start(Settings { copy_format, ..published(&database, &scratch) });
            replicator.ready().await;
            replicator.check(&database).await;
            assert_eq!(columns(&replicator, "doc"), ["id", "n", "body", "twice", "at", "shout", "last"]);
            assert_eq!(columns(&replicator, "event"), ["id", "day", "n", "twice"]);
            assert_eq!(keys(&replicator, "slug").0, ["slug"]);
            database.run(WRITES).await;
            database.run(KEY_WRITES).await;
            replicator.check(&database).await;
            assert_eq!(replicator.gauges().surprises(), 0);
            replicator.stop().await;
        }
    });
}

/// As the default publication is, and as all are on servers that cannot publish them.
#[test]
fn generated_columns_that_are_not_published_appear() {
    on_executor(|| async {
        let database = Cluster::shared().database().await;
        let scratch = Scratch::new();
        let newest = is_since(18);
        let stored = TABLES.replace(
            "later int GENERATED ALWAYS AS (n * 3),",
            "later int GENERATED ALWAYS AS (n * 3) STORED,",
        );
        database.run(if newest { TABLES } else { &stored }).await;
        let mut replicator = Replicator::follow(&database, &scratch).await;
        database.run(WRITES).await;
        replicator.check(&database).await;
        assert_eq!(columns(&replicator, "doc"), ["id", "n", "body", "last"]);
        assert_eq!(columns(&replicator, "event"), ["id", "day", "n"]);
        assert_eq!(replicator.gauges().surprises(), 0);
        replicator.stop().await;
    });
}

/// What Postgres sends of a row that goes is nothing then, and the row would stay.
#[test]
fn rows_whose_key_is_generated_and_not_published_stay() {
    on_executor(|| async {
        let database = Cluster::shared().database().await;
        let scratch = Scratch::new();
        let newest = is_since(18);
        database
            .run(
                "CREATE TABLE t (id int PRIMARY KEY);
                 CREATE TABLE of_full (n int NOT NULL, k int GENERATED ALWAYS AS (n * 2) STORED PRIMARY KEY);
                 ALTER TABLE of_full REPLICA IDENTITY FULL; INSERT INTO of_full VALUES (1), (2);
                 CREATE TABLE slug (title text NOT NULL, slug text GENERATED ALWAYS AS (lower(title)) STORED PRIMARY KEY,
                                    n int UNIQUE NOT NULL);
                 INSERT INTO slug (title, n) SELECT 'Title ' || i, i FROM generate_series(1, 20) i",
            )
            .await;
        let mut replicator = Replicator::follow(&database, &scratch).await;
        if newest {
            // There the app is told that it cannot: with the key unpublished only new rows come.
            let refused = database.connection.client.batch_execute("DELETE FROM slug WHERE n = 7").await;
            assert!(refused.is_err(), "a row without an identity goes");
            database.run("INSERT INTO slug VALUES ('Another', DEFAULT, 99); INSERT INTO t VALUES (1)").await;
        } else {
            assert!(replicator.said("slug is left out") && replicator.said("generated column"));
            database.run(KEY_WRITES).await;
            database
                .run("INSERT INTO t VALUES (1); DELETE FROM of_full WHERE n = 1; UPDATE of_full SET n = 5")
                .await;
        }
        replicator.check(&database).await;
        replicator.stop().await;
    });
}

#[test]
fn a_list_of_columns_names_a_generated_one_in_vain() {
    if is_before(18) {
        return;
    }
    on_executor(|| async {
        let database = Cluster::shared().database().await;
        let scratch = Scratch::new();
        database.run(TABLES).await;
        // The condition is of a virtual column, of which Postgres keeps what it is computed from.
        database
            .run(
                "CREATE TABLE seen (id int PRIMARY KEY, far int GENERATED ALWAYS AS (id * 2), t text);
                 INSERT INTO seen (id, t) SELECT i, 't' || i FROM generate_series(1, 20) i;
                 CREATE PUBLICATION everything FOR TABLE doc (id, twice, shout), seen WHERE (far > 20)",
            )
            .await;
        let mut replicator = Replicator::start(published(&database, &scratch));
        replicator.ready().await;
        assert_eq!(columns(&replicator, "doc"), ["id", "twice", "shout"]);
        assert_eq!(columns(&replicator, "seen"), ["id", "t"]);
        assert_eq!(replicator.rows("seen").len(), 10);
        database.run(WRITES).await;
        database.run("UPDATE seen SET id = id + 100 WHERE id < 3; UPDATE seen SET id = -id WHERE id = 15; UPDATE seen SET t = 'u'").await;
        replicator.check_tables(&database, &["doc"]).await;
        assert_eq!(replicator.rows("seen").len(), 11);
        replicator.stop().await;
    });
}

#[test]
fn a_table_with_generated_columns_that_comes_cannot_be_filled() {
    if is_before(18) {
        return;
    }
    on_executor(|| async {
        let database = Cluster::shared().database().await;
        let scratch = Scratch::new();
        database.run(&format!("CREATE TABLE t (id int PRIMARY KEY); {PUBLISH}")).await;
        let mut replicator = Replicator::start(published(&database, &scratch));
        replicator.ready().await;
        database.run(TABLES).await;
        database.run(WRITES).await;
        database.run(KEY_WRITES).await;
        follows(&mut replicator, &database).await;
        assert_eq!(columns(&replicator, "doc"), ["id", "n", "body", "twice", "at", "shout", "last"]);
        assert_eq!(replicator.gauges().surprises(), 0);
        replicator.stop().await;
    });
}

/// Virtual columns have numbers among the others and no values, so that nobody has to look at rows.
#[test]
fn virtual_columns_that_come_and_go_cost_a_sync_or_appear() {
    if is_before(18) {
        return;
    }
    on_executor(|| async {
        let database = Cluster::shared().database().await;
        let scratch = Scratch::new();
        database.run(TABLES).await;
        database.run(PUBLISH).await;
        let mut replicator = Replicator::start(published(&database, &scratch));
        replicator.ready().await;
        for change in [
            "ALTER TABLE doc ADD v text GENERATED ALWAYS AS (body || '!') VIRTUAL",
            "ALTER TABLE doc ADD plain int DEFAULT 4; UPDATE doc SET plain = 5 WHERE id < 9",
            "ALTER TABLE doc RENAME later TO even_later; UPDATE doc SET n = 8 WHERE id = 8",
            "ALTER TABLE doc ALTER v SET EXPRESSION AS (body || '?')",
            "ALTER TABLE doc DROP v; INSERT INTO doc (id, n) VALUES (900, 1)",
            "ALTER TABLE doc DROP twice; UPDATE doc SET n = 9 WHERE id = 9",
            "ALTER TABLE event ADD v int GENERATED ALWAYS AS (n + 1); UPDATE event SET n = 3 WHERE id = 3",
        ] {
            database.run(change).await;
            follows(&mut replicator, &database).await;
        }
        assert_eq!(columns(&replicator, "doc"), ["id", "n", "body", "at", "shout", "last", "plain"]);
        replicator.stop().await;
    });
}

/// Follows, makes a change that gives each row a value of its own, and expects that its table is copied for it.
async fn read_anew(change: &[&str], reason: &str) {
    let database = Cluster::shared().database().await;
    let scratch = Scratch::new();
    database.run(TABLES).await;
    database.run(PUBLISH).await;
    let settings = published(&database, &scratch);
    let mut replicator = Replicator::start(settings);
    replicator.ready().await;
    for statement in change {
        database.run(statement).await;
    }
    database.run(WRITES).await;
    copied_anew(&mut replicator, &database, reason).await;
}

macro_rules! read_anew {
    ($($name:ident: $change:expr, $reason:expr;)*) => {
        $(
            #[test]
            fn $name() {
                if !is_before(18) {
                    on_executor(|| read_anew(&$change, $reason));
                }
            }
        )*
    };
}

read_anew! {
    a_stored_column_that_is_added_is_empty: ["ALTER TABLE doc ADD four int GENERATED ALWAYS AS (n * 4) STORED"],
        "a value of its own in each row";
    a_stored_column_that_is_added_to_partitions_is_empty:
        ["ALTER TABLE event ADD four int GENERATED ALWAYS AS (n * 4) STORED"], "a value of its own in each row";
    an_expression_that_becomes_another_leaves_old_values: ["ALTER TABLE doc ALTER twice SET EXPRESSION AS (n * 20)"],
        "column doc.twice were rewritten";
}

#[test]
fn the_publication_comes_to_publish_what_was_there() {
    if is_before(18) {
        return;
    }
    on_executor(|| async {
        let database = Cluster::shared().database().await;
        let scratch = Scratch::new();
        database.run(TABLES).await;
        database.run(&format!("DROP TABLE slug; {}", PUBLISH.replace("= stored", "= none"))).await;
        let settings = published(&database, &scratch);
        let mut replicator = Replicator::start(settings);
        replicator.ready().await;
        assert_eq!(columns(&replicator, "doc"), ["id", "n", "body", "last"]);
        database.run("ALTER PUBLICATION everything SET (publish_generated_columns = stored)").await;
        database.run(WRITES).await;
        copied_anew(&mut replicator, &database, "were published, or came and went").await;
    });
}

/// From then on it is a column like any other: it keeps its values, and is published.
#[test]
fn a_column_that_is_generated_no_longer_is_empty() {
    on_executor(|| async {
        let database = Cluster::shared().database().await;
        let scratch = Scratch::new();
        database
            .run(
                "CREATE TABLE t (id int PRIMARY KEY, n int, twice int GENERATED ALWAYS AS (n * 2) STORED);
                 INSERT INTO t SELECT i, i FROM generate_series(1, 20) i",
            )
            .await;
        let mut replicator = Replicator::follow(&database, &scratch).await;
        assert_eq!(columns(&replicator, "t"), ["id", "n"]);
        database.run("ALTER TABLE t ALTER twice DROP EXPRESSION; UPDATE t SET twice = 0 WHERE id < 5").await;
        copied_anew(&mut replicator, &database, "were published, or came and went").await;
    });
}
