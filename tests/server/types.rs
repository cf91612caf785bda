//! Values that differ by the way they came: copied, inserted or updated (ruling 29), or
//! that are not what clients of the reference would see.

use std::collections::BTreeMap;

use crate::support::on_executor;
use crate::support::postgres::{Cluster, Database};
use crate::support::random::Random;
use crate::support::replicator::{Replicator, Scratch, settings};
use crate::support::values::{CASES, PRELUDE, literal};
use crate::support::{tables, values};
use kelvin::model::value::Value;
use kelvin::upstream::copy::Format;
use kelvin::upstream::settings::Settings;

/// One column per type.
fn create(types: &[&str]) -> String {
    let columns: Vec<String> = types.iter().enumerate().map(|(i, ty)| format!("c{i} {ty}")).collect();
    format!("CREATE TABLE kinds (id int PRIMARY KEY, {})", columns.join(", "))
}

/// Inserts rows from `first` on, one per entry; an entry has one literal per column.
async fn insert(database: &Database, first: usize, rows: &[Vec<String>]) {
    for (at, row) in rows.iter().enumerate() {
        database.run(&format!("INSERT INTO kinds VALUES ({}, {})", first + at, row.join(", "))).await;
    }
}

/// The same in a second step, over a row of NULLs.
async fn update(database: &Database, first: usize, rows: &[Vec<String>]) {
    for (at, row) in rows.iter().enumerate() {
        let set: Vec<String> = row.iter().enumerate().map(|(i, value)| format!("c{i} = {value}")).collect();
        let id = first + at;
        database
            .run(&format!(
                "INSERT INTO kinds (id) VALUES ({id}); UPDATE kinds SET {} WHERE id = {id}",
                set.join(", ")
            ))
            .await;
    }
}

/// Sends rows on all three ways, with a copy in either format; returns what the replica
/// holds, by id.
async fn every_way(types: &[&str], rows: &[Vec<String>]) -> BTreeMap<i64, Vec<Value>> {
    let text = three_ways(types, rows, Format::Text).await;
    let binary = three_ways(types, rows, Format::Binary).await;
    assert_eq!(text, binary);
    binary
}

async fn three_ways(types: &[&str], rows: &[Vec<String>], format: Format) -> BTreeMap<i64, Vec<Value>> {
    let database = Cluster::shared().database().await;
    let scratch = Scratch::new();
    database.run(PRELUDE).await;
    database.run(&create(types)).await;
    insert(&database, 0, rows).await;
    let settings = Settings { copy_format: format, ..settings(&database.target, &scratch.replica()) };
    let mut replicator = Replicator::start(settings);
    replicator.ready().await;
    insert(&database, rows.len(), rows).await;
    update(&database, 2 * rows.len(), rows).await;
    replicator.check(&database).await;
    let start = replicator.record.borrow().start.clone().unwrap();
    let connection = tables::open(&replicator.replica);
    let table = start.catalogue.table("kinds").unwrap();
    let found = tables::replica_values(&connection, table).into_iter().map(|mut row| {
        let Value::Integer(id) = row.remove(0) else { panic!("an id") };
        (id, row)
    });
    let found: BTreeMap<i64, Vec<Value>> = found.collect();
    replicator.stop().await;
    let count = rows.len() as i64;
    for at in 0..count {
        for (column, ty) in types.iter().enumerate() {
            let text = &rows[at as usize][column];
            let [copied, inserted, updated] = [0, 1, 2].map(|way| &found[&(at + way * count)][column]);
            assert_eq!(copied, inserted, "{ty} {text}: copied and inserted");
            assert_eq!(copied, updated, "{ty} {text}: copied and updated");
        }
    }
    found
}

#[test]
fn known_values_are_stored_as_clients_expect_them() {
    on_executor(|| async {
        let types: Vec<&str> = CASES.iter().map(|(ty, _)| *ty).collect();
        let most = CASES.iter().map(|(_, cases)| cases.len()).max().unwrap();
        let rows: Vec<Vec<String>> = (0..most)
            .map(|at| {
                let column = |cases: &[values::Case]| match cases.get(at) {
                    Some(case) => literal(case.0),
                    None => "NULL".into(),
                };
                CASES.iter().map(|(_, cases)| column(cases)).collect()
            })
            .collect();
        let found = every_way(&types, &rows).await;
        let mut wrong = Vec::new();
        for (column, (ty, cases)) in CASES.iter().enumerate() {
            for at in 0..most {
                let expected = cases.get(at).map_or(Value::Null, |case| case.1.value());
                let is = &found[&(at as i64)][column];
                if *is != expected {
                    wrong.push(format!("{ty} {:?}: {is:?} instead of {expected:?}", rows[at][column]));
                }
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
    });
}

#[test]
fn random_values_are_stored_alike_on_every_way() {
    on_executor(|| async {
        let mut random = Random::new(29);
        let rows: Vec<Vec<String>> = (0..120)
            .map(|_| {
                let column = |ty: &&str| {
                    if random.chance(12) { "NULL".into() } else { values::random(ty, &mut random) }
                };
                values::RANDOM.iter().map(column).collect()
            })
            .collect();
        every_way(values::RANDOM, &rows).await;
    });
}

#[test]
fn rows_without_columns_and_with_very_large_values_arrive() {
    on_executor(|| async {
        let database = Cluster::shared().database().await;
        let scratch = Scratch::new();
        database
            .run(
                "CREATE TABLE large (id int PRIMARY KEY, body text, list int[]);
                 CREATE TABLE empty (); INSERT INTO empty DEFAULT VALUES;
                 INSERT INTO large SELECT 1, repeat('x\\t\\n', 2000000), array_agg(i)
                   FROM generate_series(1, 200000) i",
            )
            .await;
        let mut replicator = Replicator::follow(&database, &scratch).await;
        database
            .run("INSERT INTO large SELECT 2, body, list FROM large; INSERT INTO empty DEFAULT VALUES")
            .await;
        database.run("UPDATE large SET id = id + 10; UPDATE large SET list = '{}' WHERE id = 11").await;
        replicator.check(&database).await;
        replicator.stop().await;
    });
}
