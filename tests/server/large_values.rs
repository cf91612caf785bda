//! Values that are larger than what the replica or a client can hold: one of them ends replication, or every query over its
//! table.

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

const ROW_LIMIT: usize = 200_000;

/// Text that cannot be compressed, of a number of KiB.
fn text(kib: usize) -> String {
    format!("(SELECT string_agg(md5(i::text), '') FROM generate_series(1, {}) i)", kib * 32)
}

/// What is in a table, with lengths in the place of texts; from upstream as if there were no limit.
fn lengths(replicator: &Replicator, name: &str) -> Vec<String> {
    let cut = |row: &String| {
        let mut out = String::new();
        for part in row.split("Text(\"") {
            match part.split_once('"') {
                Some((text, rest)) if !out.is_empty() => out.push_str(&format!("{}{rest}", text.len())),
                _ => out.push_str(part),
            }
        }
        out.replace("Integer(", "").replace([')', '[', ']', ' '], "")
    };
    let mut rows: Vec<String> = replicator.rows(name).iter().map(cut).collect();
    rows.sort();
    rows
}

async fn start(database: &Database, scratch: &Scratch, format: Format) -> Replicator {
    let settings = Settings {
        copy_format: format,
        row_limit: ROW_LIMIT,
        ..settings(&database.target, &scratch.replica())
    };
    let mut replicator = Replicator::start(settings);
    replicator.ready().await;
    replicator
}

async fn through(format: Format) {
    let database = Cluster::shared().database().await;
    let scratch = Scratch::new();
    let (fits, large) = (text(100), text(250));
    database
        .run(&format!(
            "CREATE TABLE t (id int PRIMARY KEY, a text, b text, n int);
             INSERT INTO t VALUES (1, {fits}, {fits}, 1), (2, {large}, 'b', 2), (3, 'a', 'b', 3), (4, {fits}, 'b', 4);
             CREATE TABLE f (a text, n int); ALTER TABLE f REPLICA IDENTITY FULL; INSERT INTO f VALUES ({large}, 1), ('a', 2)"
        ))
        .await;
    let mut replicator = start(&database, &scratch, format).await;
    assert_eq!(lengths(&replicator, "t"), ["1,102400,Null,1", "2,Null,1,2", "3,1,1,3", "4,102400,1,4"]);
    assert_eq!(lengths(&replicator, "f"), ["1,2", "Null,1"]);
    database
        .run(&format!(
            "INSERT INTO t VALUES (5, {large}, 'b', 5); UPDATE t SET a = {large} WHERE id = 3;
             UPDATE t SET n = n + 10 WHERE id IN (1, 2); UPDATE t SET b = {fits} WHERE id = 4;
             UPDATE f SET n = 3 WHERE n = 1; INSERT INTO f VALUES ({large}, 4); DELETE FROM f WHERE n = 4"
        ))
        .await;
    replicator.catch_up(&database).await;
    assert_eq!(
        lengths(&replicator, "t"),
        ["1,102400,Null,11", "2,Null,1,12", "3,Null,1,3", "4,102400,Null,4", "5,Null,1,5"]
    );
    assert_eq!(lengths(&replicator, "f"), ["1,2", "Null,3"]);
    // What is made smaller is whole again.
    database
        .run("UPDATE t SET a = 'a' WHERE id <> 4; UPDATE t SET b = 'b' WHERE id IN (1, 4); UPDATE f SET a = 'x'")
        .await;
    replicator.check(&database).await;
    replicator.stop().await;
}

#[test]
fn a_row_that_is_too_large_ends_a_binary_copy_or_the_stream() {
    on_executor(|| through(Format::Binary));
}

#[test]
fn a_row_that_is_too_large_ends_a_text_copy_or_the_stream() {
    on_executor(|| through(Format::Text));
}

#[test]
fn a_row_that_is_too_large_ends_the_filling_of_a_table() {
    on_executor(|| async {
        let database = Cluster::shared().database().await;
        let scratch = Scratch::new();
        database.run("CREATE TABLE t (id int PRIMARY KEY)").await;
        let mut replicator = start(&database, &scratch, Format::Binary).await;
        let large = text(250);
        database
            .run(&format!(
                "CREATE TABLE late (id int PRIMARY KEY, a text); INSERT INTO late VALUES (1, {large}), (2, 'a')"
            ))
            .await;
        // Put aside, or applied, as it happens.
        for id in 3..9 {
            database.run(&format!("INSERT INTO late VALUES ({id}, {large})")).await;
            executor::sleep(Duration::from_millis(20)).await;
        }
        let filled = |r: &crate::support::replicator::Record| {
            r.log.iter().any(|line| line.contains("a table was filled"))
        };
        replicator.until("the table is filled", filled).await;
        database.run("UPDATE late SET a = 'b' WHERE id > 5; DELETE FROM late WHERE id = 4").await;
        executor::sleep(Duration::from_millis(500)).await;
        replicator.catch_up(&database).await;
        assert_eq!(lengths(&replicator, "late"), ["1,Null", "2,1", "3,Null", "5,Null", "6,1", "7,1", "8,1"]);
        replicator.stop().await;
    });
}

#[test]
fn a_date_that_is_far_away_takes_its_table_with_it() {
    let tick = "DROP TABLE tick; CREATE TABLE tick (id timestamp PRIMARY KEY);
                INSERT INTO tick VALUES ('294276-12-31'), ('2024-01-01'), ('4713-01-01 BC')";
    let item = "DROP TABLE pair; CREATE TABLE pair (a text, b date, c text, PRIMARY KEY (a, b));
                INSERT INTO pair VALUES ('x', '5874897-12-31', NULL), ('x', '4713-01-01 BC', NULL), ('y', '2024-02-29', NULL)";
    let mut stage = Stage::prepared(&format!("{tick}; {item}"), &[]);
    let (ticks, pairs) = (query("ticks", json!([])), query("pairs", json!([])));
    let mut tab = stage.tab(&[ticks, pairs]);
    let mut ids: Vec<f64> = tab.store.table("tick").iter().map(|row| row["id"].as_f64().unwrap()).collect();
    ids.sort_by(f64::total_cmp);
    assert_eq!(ids, [-210_863_520_000_000.0, 1_704_067_200_000.0, 9_224_317_929_600_000.0]);
    let days = |c: &crate::support::client::Client| {
        let mut days: Vec<f64> = c.store.table("pair").iter().map(|row| row["b"].as_f64().unwrap()).collect();
        days.sort_by(f64::total_cmp);
        days
    };
    assert_eq!(days(&tab), [-210_863_520_000_000.0, 1_709_164_800_000.0, 185_331_706_992_000_000.0]);
    stage
        .sql
        .run("UPDATE pair SET b = '5874897-12-30' WHERE b = '5874897-12-31'; DELETE FROM pair WHERE a = 'y'");
    tab.until("other dates", |c| days(c) == [-210_863_520_000_000.0, 185_331_706_905_600_000.0]);
}
