//! Random writes to rows whose keys are stored alike, or nearly: one takes the place of another, is changed for it, or stays.
//! The oracle is Postgres.

use crate::support::on_executor;
use crate::support::postgres::{Cluster, Database};
use crate::support::random::Random;
use crate::support::replicator::{Replicator, Scratch, settings};
use kelvin::upstream::copy::Format;
use kelvin::upstream::settings::Settings;

/// Transactions between two comparisons of all rows.
const STEPS: u64 = 25;

/// Comparisons of a run.
const ROUNDS: u64 = 6;

/// Numbers of 4,000 digits, which are stored apart from their rows, so that an update does not carry them.
const LONG: &str =
    "CREATE TABLE long AS SELECT n AS id, (string_agg((10000000 + (i * 7919) % 9999991)::text, '')
                    || n)::numeric AS v FROM generate_series(0, 2) n, generate_series(1, 500) i GROUP BY n
                    ORDER BY n; ALTER TABLE long ADD PRIMARY KEY (id);";

const NUMBERS: [&str; 14] = [
    "9007199254740992",
    "9007199254740993",
    "9007199254740993.0",
    "-9007199254740993",
    "NaN",
    "Infinity",
    "-Infinity",
    "1e400",
    "1e-400",
    "0",
    "0.1",
    "0.10000000000000000001",
    "0.1000000000000000055511151231257827",
    "5",
];

const DOUBLES: [&str; 11] = [
    "NaN",
    "Infinity",
    "-Infinity",
    "-0",
    "1e23",
    "9.999999999999999e22",
    "5e-324",
    "9007199254740992",
    "0.30000000000000004",
    "9.5367431640625e-07",
    "1.7976931348623157e308",
];

const MOMENTS: [&str; 10] = [
    "infinity",
    "-infinity",
    "2300-01-01 00:00:00.000001",
    "2300-01-01 00:00:00.000002",
    "2300-01-01 00:00:00",
    "294276-12-31 23:59:59.999999",
    "294276-12-31 23:59:59.999",
    "2024-01-01 00:00:00.123456",
    "1600-01-01 00:00:00.000001",
    "1600-01-01 00:00:00.000002",
];

const CLOCKS: [&str; 6] =
    ["12:00:00+00", "13:00:00+01", "12:00:00.0001+00", "12:00:00.0002+00", "24:00:00+00", "00:00:00+00"];

/// Tables: by two columns, by all of the row, by a chosen index, and without any key.
const TABLES: &str = "CREATE TABLE two (big text, k numeric, n int, t timestamp, PRIMARY KEY (t, k));
    ALTER TABLE two ALTER k SET STORAGE EXTERNAL;
    CREATE TABLE whole (k numeric PRIMARY KEY, n int, big text); ALTER TABLE whole REPLICA IDENTITY FULL;
    CREATE TABLE chosen (n int, k float8 NOT NULL, t timetz NOT NULL, id int PRIMARY KEY);
    CREATE UNIQUE INDEX chosen_key ON chosen (t, k); ALTER TABLE chosen REPLICA IDENTITY USING INDEX chosen_key;
    CREATE TABLE bag (k float4, n int); ALTER TABLE bag REPLICA IDENTITY FULL;";

fn number(random: &mut Random) -> String {
    match random.below(4) {
        0 => format!("(SELECT v FROM long WHERE id = {})", random.below(3)),
        _ => format!("'{}'::numeric", random.one_of(&NUMBERS)),
    }
}

fn double(random: &mut Random) -> String {
    format!("'{}'::float8", random.one_of(&DOUBLES))
}

fn moment(random: &mut Random) -> String {
    format!("'{}'::timestamp", random.one_of(&MOMENTS))
}

fn clock(random: &mut Random) -> String {
    format!("'{}'::timetz", random.one_of(&CLOCKS))
}

/// A text that is now and then stored apart.
fn text(random: &mut Random) -> String {
    match random.below(3) {
        0 => "(SELECT string_agg(md5(i::text), '') FROM generate_series(1, 200) i)".to_owned(),
        _ => format!("'{}'", random.below(9)),
    }
}

/// A table with what its rows are told by, as (table, condition, assignment, columns, values).
fn place(random: &mut Random) -> (&'static str, String, String, &'static str, String) {
    let n = random.below(1000);
    match random.below(7) {
        0..=2 => {
            let (k, t) = (number(random), moment(random));
            let values = format!("{k}, {t}, {n}, {}", text(random));
            ("two", format!("k = {k} AND t = {t}"), format!("k = {k}, t = {t}"), "k, t, n, big", values)
        }
        3 | 4 => {
            let k = number(random);
            let values = format!("{k}, {n}, {}", text(random));
            ("whole", format!("k = {k}"), format!("k = {k}"), "k, n, big", values)
        }
        5 => {
            let (k, t) = (double(random), clock(random));
            let values = format!("{k}, {t}, {n}, {}", random.next() % 1_000_000_000);
            ("chosen", format!("k = {k} AND t = {t}"), format!("k = {k}, t = {t}"), "k, t, n, id", values)
        }
        _ => {
            let k = format!("'{}'::float4", random.one_of(&["NaN", "Infinity", "0.1", "16777217", "1e-45"]));
            ("bag", format!("k = {k}"), format!("k = {k}"), "k, n", format!("{k}, {n}"))
        }
    }
}

fn statement(random: &mut Random) -> String {
    let (table, condition, assignment, columns, values) = place(random);
    let n = random.below(1000);
    match random.below(12) {
        0..=4 => format!("INSERT INTO {table} ({columns}) VALUES ({values}) ON CONFLICT DO NOTHING"),
        5 | 6 => format!("UPDATE {table} SET n = {n} WHERE {condition}"),
        7 => format!("DELETE FROM {table} WHERE {condition}"),
        // One row, whichever it is, takes a key that nobody has.
        8..=10 => format!(
            "UPDATE {table} SET {assignment} WHERE ctid = (SELECT ctid FROM {table} ORDER BY n, ctid OFFSET {} LIMIT 1)
             AND NOT EXISTS (SELECT 1 FROM {table} WHERE {condition})",
            random.below(12)
        ),
        _ if random.chance(6) => format!("TRUNCATE {table}"),
        _ => format!("UPDATE {table} SET n = n + 1"),
    }
}

fn transaction(random: &mut Random) -> String {
    let statements: Vec<String> = (0..1 + random.below(4)).map(|_| statement(random)).collect();
    let end = if random.chance(6) { "ROLLBACK" } else { "COMMIT" };
    format!("BEGIN; {}; {end}", statements.join("; "))
}

async fn write(database: &Database, random: &mut Random) {
    for _ in 0..STEPS {
        let sql = transaction(random);
        println!("{sql}");
        database.run(&sql).await;
    }
}

async fn run(seed: u64, format: Format) {
    let mut random = Random::new(seed);
    let database = Cluster::shared().database().await;
    database.run(&format!("{LONG} {TABLES}")).await;
    write(&database, &mut random).await;
    let scratch = Scratch::new();
    let settings = Settings { copy_format: format, ..settings(&database.target, &scratch.replica()) };
    let mut replicator = Replicator::start(settings);
    replicator.ready().await;
    replicator.check(&database).await;
    for _ in 0..ROUNDS {
        write(&database, &mut random).await;
        replicator.check(&database).await;
    }
    assert_eq!(replicator.gauges().surprises(), 0, "a change has missed its row");
    replicator.stop().await;
}

#[test]
fn random_writes_after_a_binary_copy_find_another_row() {
    on_executor(|| run(1, Format::Binary));
}

#[test]
fn random_writes_after_a_text_copy_find_another_row() {
    on_executor(|| run(2, Format::Text));
}

#[test]
fn random_writes_merge_rows() {
    on_executor(|| async {
        for seed in 3..7 {
            run(seed, Format::Binary).await;
        }
    });
}

#[test]
fn a_key_that_comes_later_merges_rows() {
    on_executor(|| async {
        let database = Cluster::shared().database().await;
        let scratch = Scratch::new();
        database
            .run(
                "CREATE TABLE t (id int PRIMARY KEY, k numeric NOT NULL, n int);
                 INSERT INTO t VALUES (1, 9007199254740992, 1), (2, 9007199254740993, 2), (3, 'NaN', 3), (4, 'Infinity', 4)",
            )
            .await;
        let change = "UPDATE t SET n = n + 10 WHERE k = 9007199254740993; DELETE FROM t WHERE k = 'NaN';
                      INSERT INTO t VALUES (3, 'NaN', 30); UPDATE t SET k = '-Infinity' WHERE k = 'Infinity';
                      UPDATE t SET k = 'Infinity' WHERE k = '-Infinity'";
        let mut replicator = Replicator::follow(&database, &scratch).await;
        for key in ["k", "id"] {
            database
                .run(&format!("ALTER TABLE t DROP CONSTRAINT t_pkey; ALTER TABLE t ADD PRIMARY KEY ({key})"))
                .await;
            database.run(change).await;
            let is_it = |line: &String| line.contains("has been filled");
            let copies = if key == "k" { 1 } else { 2 };
            let enough = |lines: &[String]| lines.iter().filter(|line| is_it(line)).count() >= copies;
            replicator.until("the table is copied anew", |record| enough(&record.log)).await;
            replicator.check(&database).await;
            let before = replicator.gauges().surprises();
            database.run(change).await;
            replicator.check(&database).await;
            assert_eq!(replicator.gauges().surprises(), before);
        }
        replicator.stop().await;
    });
}
