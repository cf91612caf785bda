//! What newer majors of Postgres have: rows that are wrong, or a replica that cannot be made, only there.
//!
//! Each test says of itself that it is skipped where the server is too old; `make test` runs them with the oldest major
//! and with the newest.

mod failover;
mod generated;
mod keys;

use crate::ddl::COPIED;
use crate::support::postgres::Database;
use crate::support::replicator::Replicator;
use crate::support::tables;
use kelvin::model::catalogue::ColumnIndex;
use kelvin::upstream::settings::Settings;

/// Names of the columns of a table's row key, and of the keys that clients may have.
fn keys(replicator: &Replicator, table: &str) -> (Vec<String>, Vec<Vec<String>>) {
    let catalogue = tables::catalogue(&tables::open(&replicator.replica));
    let table = catalogue.table(table).expect("the table exists");
    let names = |key: &Vec<ColumnIndex>| -> Vec<String> {
        key.iter().map(|c| table.columns[usize::from(*c)].name.clone()).collect()
    };
    (names(&table.row_key), table.candidate_keys.iter().map(names).collect())
}

/// Names of the columns that a table of the replica has.
fn columns(replicator: &Replicator, table: &str) -> Vec<String> {
    let catalogue = tables::catalogue(&tables::open(&replicator.replica));
    let table = catalogue.table(table).expect("the table exists");
    table.columns.iter().filter(|c| !c.gone && !c.is_exact_key()).map(|c| c.name.clone()).collect()
}

/// Waits until the replica's tables are upstream's, and compares all rows.
async fn follows(replicator: &mut Replicator, database: &Database) {
    assert!(replicator.follows(database).await, "{:?}", replicator.ended().await);
    replicator.check(database).await;
}

/// Expects that a table is copied anew, for this reason, and that all is there then.
async fn copied_anew(replicator: &mut Replicator, database: &Database, reason: &str) {
    let is_it = |line: &String| line.contains(COPIED) && line.contains(reason);
    replicator.until(reason, |record| record.log.iter().any(is_it)).await;
    follows(replicator, database).await;
}

/// Expects that a replica can no longer follow, for this reason, and that the one that is made then can.
async fn made_anew(replicator: Replicator, settings: Settings, database: &Database, reason: &str) {
    let said = replicator.resync().await;
    assert!(said.contains(reason), "{said}");
    // A part of the change may lie behind the new sync; then it ends once more.
    for _ in 0..4 {
        let mut again = Replicator::start(settings.clone());
        again.ready().await;
        if again.follows(database).await {
            again.check(database).await;
            again.stop().await;
            return;
        }
    }
    panic!("it is made anew again and again");
}
