//! Keys whose stored values are alike: rows that upstream tells apart become one, or a change finds the wrong one
//! (`docs/spec/replication.md` §7.4).

use std::time::Duration;

use crate::support::app::query;
use crate::support::on_executor;
use crate::support::postgres::{Cluster, Database};
use crate::support::replicator::{Replicator, Scratch, settings};
use crate::support::stage::Stage;
use kelvin::upstream::copy::Format;
use kelvin::upstream::settings::Settings;
use kelvin_io::executor;
use serde_json::json;

/// Types of keys, with values of which some are stored alike.
const KEYS: &[(&str, &[&str])] = &[
    (
        "numeric",
        &[
            "9007199254740992",
            "9007199254740993",
            "NaN",
            "Infinity",
            "-Infinity",
            "0.1",
            "0.10000000000000000001",
            "1e400",
            "-1e400",
            "1e-400",
            "0",
            "100.00",
        ],
    ),
    ("float8", &["NaN", "Infinity", "-Infinity", "0.1", "1e21", "-0"]),
    ("float4", &["NaN", "Infinity", "-Infinity", "0.1", "16777217", "1e-45"]),
    ("date", &["infinity", "-infinity", "5874897-12-31", "5874897-12-30", "4713-01-01 BC", "2024-02-29"]),
    (
        "timestamp",
        &[
            "infinity",
            "-infinity",
            "294276-12-31 23:59:59.999999",
            "294276-12-31 23:59:59.999998",
            "294276-12-31 23:59:59.999",
            "294276-12-31 23:59:59.998",
            "2300-01-01 00:00:00.000001",
            "2300-01-01 00:00:00.000002",
            "4714-11-24 00:00:00 BC",
        ],
    ),
    (
        "timestamptz",
        &[
            "infinity",
            "-infinity",
            "294276-12-31 23:59:59.999999+00",
            "294276-12-31 23:59:59.999998+00",
            "2024-01-01 00:00:00.5+00",
        ],
    ),
    ("time", &["00:00:00.0001", "00:00:00.0002", "00:00:00", "24:00:00", "01:02:03.004"]),
    ("timetz", &["12:00:00+00", "13:00:00+01", "14:30:00+02:30", "12:00:00.0001+00", "24:00:00+00"]),
    ("numeric[]", &["{9007199254740992}", "{9007199254740993}", "{NaN}", "{NULL}", "{}"]),
    ("timestamp[]", &["{infinity}", "{-infinity}", "{NULL}", "{2024-01-01 00:00:00}"]),
    ("int[]", &["{1,2}", "[0:1]={1,2}", "[2:3]={1,2}", "{}"]),
    ("text[]", &["{a=b}", "[0:0]={a=b}", "[5:5]={\"a=b\"}"]),
];

/// Tables of one type: with a primary key, with all of the row as identity, and with a key of two columns.
fn tables(number: usize) -> [String; 3] {
    [format!("k{number}"), format!("f{number}"), format!("c{number}")]
}

fn create(number: usize, ty: &str) -> String {
    let [plain, full, two] = tables(number);
    format!(
        "CREATE TABLE {plain} (n int, k {ty} PRIMARY KEY);
         CREATE TABLE {full} (k {ty} NOT NULL UNIQUE, n int); ALTER TABLE {full} REPLICA IDENTITY FULL;
         CREATE TABLE {two} (k {ty}, n int, t numeric, PRIMARY KEY (t, k));"
    )
}

fn insert(number: usize, ty: &str, values: &[&str], first: usize) -> String {
    let mut sql = String::new();
    for (at, value) in values.iter().enumerate() {
        let n = first + at;
        for table in &tables(number)[..2] {
            sql.push_str(&format!("INSERT INTO {table} (k, n) VALUES ('{value}'::{ty}, {n});"));
        }
        for t in ["1", "'NaN'", "'Infinity'"] {
            sql.push_str(&format!("INSERT INTO c{number} VALUES ('{value}'::{ty}, {n}, {t});"));
        }
    }
    sql
}

/// Statements that change, remove and rename rows, each for all tables of a type.
fn changes(number: usize, ty: &str, values: &[&str]) -> Vec<String> {
    let (first, second, last) = (values[0], values[1], values[values.len() - 1]);
    let each =
        |make: &dyn Fn(&str) -> String| tables(number).iter().map(|table| make(table)).collect::<String>();
    vec![
        each(&|t| format!("UPDATE {t} SET n = n + 100 WHERE k = '{second}'::{ty};")),
        each(&|t| format!("UPDATE {t} SET n = n + 1000 WHERE k = '{last}'::{ty};")),
        each(&|t| format!("DELETE FROM {t} WHERE k = '{first}'::{ty};")),
        // Onto the key that went, whose stored value may be the same.
        each(&|t| format!("UPDATE {t} SET k = '{first}'::{ty} WHERE k = '{second}'::{ty};")),
        insert(number, ty, &[second], 50),
        // The two take each other's.
        each(&|t| {
            format!(
                "BEGIN; CREATE TEMP TABLE was ON COMMIT DROP AS SELECT * FROM {t} WHERE k = '{first}'::{ty};
                 DELETE FROM {t} WHERE k = '{first}'::{ty};
                 UPDATE {t} SET k = '{first}'::{ty} WHERE k = '{second}'::{ty};
                 UPDATE was SET k = '{second}'::{ty}; INSERT INTO {t} SELECT * FROM was; COMMIT;"
            )
        }),
        each(&|t| format!("UPDATE {t} SET n = n + 1;")),
    ]
}

async fn for_all(database: &Database, statements: impl Fn(usize, &str, &[&str]) -> Vec<String>) {
    let all: Vec<Vec<String>> =
        KEYS.iter().enumerate().map(|(number, (ty, values))| statements(number, ty, values)).collect();
    for step in 0..all[0].len() {
        let sql: String = all.iter().map(|of_type| of_type[step].as_str()).collect();
        database.run(&sql).await;
    }
}

async fn through(format: Format) {
    let database = Cluster::shared().database().await;
    let scratch = Scratch::new();
    for_all(&database, |number, ty, values| {
        vec![create(number, ty), insert(number, ty, &values[..values.len() - 1], 0)]
    })
    .await;
    let settings = Settings { copy_format: format, ..settings(&database.target, &scratch.replica()) };
    let mut replicator = Replicator::start(settings);
    replicator.ready().await;
    replicator.check(&database).await;
    for_all(&database, |number, ty, values| vec![insert(number, ty, &values[values.len() - 1..], 40)]).await;
    replicator.check(&database).await;
    let surprises = replicator.gauges().surprises();
    for step in 0..changes(0, KEYS[0].0, KEYS[0].1).len() {
        for_all(&database, |number, ty, values| vec![changes(number, ty, values).remove(step)]).await;
        replicator.check(&database).await;
    }
    assert_eq!(replicator.gauges().surprises(), surprises, "every change has found its row");
    replicator.stop().await;
}

#[test]
fn rows_of_a_text_copy_become_one() {
    on_executor(|| through(Format::Text));
}

#[test]
fn rows_of_a_binary_copy_become_one() {
    on_executor(|| through(Format::Binary));
}

#[test]
fn rows_of_a_table_that_comes_later_become_one() {
    on_executor(|| async {
        let database = Cluster::shared().database().await;
        let scratch = Scratch::new();
        database.run("CREATE TABLE t (id int PRIMARY KEY)").await;
        let mut replicator = Replicator::follow(&database, &scratch).await;
        // Some is copied, some is put aside meanwhile.
        for_all(&database, |number, ty, values| {
            let mut steps = vec![create(number, ty), insert(number, ty, values, 0)];
            steps.extend(changes(number, ty, values));
            steps.push(format!("ALTER TABLE k{number} ADD x int DEFAULT 5;"));
            steps.push(format!("UPDATE k{number} SET x = n;"));
            steps
        })
        .await;
        executor::sleep(Duration::from_millis(100)).await;
        assert!(replicator.follows(&database).await, "{:?}", replicator.ended().await);
        replicator.check(&database).await;
        for_all(&database, |number, ty, values| {
            let second = values[1];
            vec![format!("DELETE FROM k{number} WHERE k = '{second}'::{ty}; UPDATE k{number} SET n = n + 1;")]
        })
        .await;
        replicator.check(&database).await;
        replicator.stop().await;
    });
}

#[test]
fn a_client_loses_a_row_with_the_one_that_looks_like_it() {
    let tick = "DROP TABLE tick; CREATE TABLE tick (id numeric PRIMARY KEY);
                INSERT INTO tick VALUES (1), (0.50), (9007199254740993), (12345678901234567890.123), (-7)";
    let mut stage = Stage::prepared(tick, &[]);
    let ticks = query("ticks", json!([]));
    let mut tab = stage.tab(std::slice::from_ref(&ticks));
    let large = 9_007_199_254_740_992_u64;
    let ids = |c: &crate::support::client::Client| {
        let mut ids: Vec<f64> = c.store.table("tick").iter().map(|row| row["id"].as_f64().unwrap()).collect();
        ids.sort_by(f64::total_cmp);
        ids
    };
    let all = [-7.0, 0.5, 1.0, large as f64, 12345678901234567890.0];
    assert_eq!(ids(&tab), all, "numbers as they were without their exact keys");
    // A second one that is the same number to clients; then either goes.
    stage.sql.run("INSERT INTO tick VALUES (9007199254740992), (2)");
    tab.until("another row", |c| c.store.table("tick").len() == 6);
    let mut late = stage.tab(std::slice::from_ref(&ticks));
    assert_eq!(ids(&late), ids(&tab));
    stage.sql.run("DELETE FROM tick WHERE id = 9007199254740993 OR id = 2");
    tab.until("a row to go", |c| c.store.table("tick").len() == 5);
    late.until("a row to go", |c| c.store.table("tick").len() == 5);
    assert_eq!(ids(&tab), all);
    // One in the place of the other, which to clients changes nothing.
    stage.sql.run(
        "BEGIN; DELETE FROM tick WHERE id = 9007199254740992; INSERT INTO tick VALUES (9007199254740993), (3); COMMIT;
         UPDATE tick SET id = 9007199254740992 WHERE id = 9007199254740993; DELETE FROM tick WHERE id = 3; INSERT INTO tick VALUES (4)",
    );
    for tab in [&mut tab, &mut late] {
        tab.until("what comes after it", |c| ids(c).contains(&4.0) && !ids(c).contains(&3.0));
        assert!(ids(tab).contains(&(large as f64)));
    }
    stage.sql.run("DELETE FROM tick WHERE id = 4");
    tab.until("it to go", |c| c.store.table("tick").len() == 5);
    late.until("it to go", |c| c.store.table("tick").len() == 5);
    stage.sql.run("DELETE FROM tick WHERE id = 9007199254740992");
    tab.until("the last of the two to go", |c| c.store.table("tick").len() == 4);
    late.until("the last of the two to go", |c| c.store.table("tick").len() == 4);
    // What has no key on the wire is refused, as ever.
    stage.sql.run("INSERT INTO tick VALUES ('NaN'), ('Infinity')");
    tab.until("its refusal", |c| c.refused.iter().any(|error| error["id"] == ticks.hash().as_str()));
    stage.sql.run("DELETE FROM tick WHERE id >= 'Infinity'");
    tab.until_got(&[ticks]);
    tab.until("all of it again", |c| c.store.table("tick").len() == 4);
}
