//! Bringing the file to what upstream's tables have become (`docs/spec/schema-changes.md` S3).

use rusqlite::Connection;

use super::error::{Doing, Error};
use super::{live_indexes, metadata, schema};
use crate::model::catalogue::{Catalogue, Table, quote};

/// Rows of a dropped table that are removed at a time, so that commits need not wait for it.
const DROPPED_ROWS: u32 = 10_000;

/// Changes tables and indexes from one catalogue to the one that follows it, within an open transaction. Rows are not
/// touched: columns that came have one value in all of them, and those that are gone keep what they had.
pub fn apply(connection: &Connection, old: &Catalogue, new: &Catalogue) -> Result<(), Error> {
    let doing = "following a change of the schema";
    let run = |sql: &str| connection.execute_batch(sql).doing(doing);
    let known = || new.all().filter_map(|table| Some((old.find_any(table.id)?, table)));
    let indexes = |table: &Table| schema::create_indexes(table);
    // What is left of those that are gone is removed later; the names of their indexes may be another's now.
    for gone in old.all().filter(|table| new.find_any(table.id).is_none()) {
        for (name, _) in indexes(gone) {
            run(&format!("DROP INDEX IF EXISTS {}", quote(&name)))?;
        }
    }
    for (before, table) in known() {
        for column in &table.columns[before.columns.len()..] {
            run(&schema::add_column(table, column))?;
        }
        let after = indexes(table);
        for (name, _) in indexes(before).iter().filter(|index| !after.contains(index)) {
            run(&format!("DROP INDEX IF EXISTS {}", quote(name)))?;
        }
        live_indexes::drop_unusable(connection, table)?;
    }
    for table in new.all().filter(|table| old.find_any(table.id).is_none()) {
        run(&schema::create_table(table))?;
        indexes(table).iter().try_for_each(|(_, sql)| run(sql))?;
    }
    for (before, table) in known() {
        let had = indexes(before);
        // One that upstream's own takes the place of, and that was missed before, is there already.
        indexes(table).iter().filter(|index| !had.contains(index)).try_for_each(|(_, sql)| run(sql))?;
    }
    metadata::set_catalogue(connection, new)
}

/// Removes some rows of a table that is gone from the catalogue, and the table when none is left. True: it is.
pub fn drop_some(connection: &Connection, stored_name: &str) -> Result<bool, Error> {
    let doing = "removing a table that upstream has dropped";
    let name = quote(stored_name);
    let is_there: bool = connection
        .query_row(
            "SELECT count(*) > 0 FROM sqlite_schema WHERE type = 'table' AND name = ?1",
            [stored_name],
            |row| row.get(0),
        )
        .doing(doing)?;
    if is_there {
        let some =
            format!("DELETE FROM {name} WHERE rowid IN (SELECT rowid FROM {name} LIMIT {DROPPED_ROWS})");
        if connection.execute(&some, []).doing(doing)? > 0 {
            return Ok(false);
        }
        connection.execute_batch(&format!("DROP TABLE {name}")).doing(doing)?;
    }
    Ok(true)
}
