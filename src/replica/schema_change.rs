//! Bringing the file to what upstream's tables have become (`docs/spec/schema-changes.md` S3).

use rusqlite::Connection;

use super::error::{Doing, Error};
use super::{live_indexes, metadata, schema};
use crate::model::catalogue::{Catalogue, Table, quote};

/// Rows of a dropped table that are removed at a time, so that commits need not wait for it.
const DROPPED_ROWS: u32 = 10_000;

/// Changes tables and indexes from one catalogue to the one that follows it, within an open transaction. Rows are not
/// touched: columns that came have one value in all of them, those that are gone keep what they had, and a copy that has been
/// filled changes its name with the table that it takes the place of.
pub fn apply(connection: &Connection, old: &Catalogue, new: &Catalogue) -> Result<(), Error> {
    let doing = "following a change of the schema";
    let run = |sql: &str| connection.execute_batch(sql).doing(doing);
    let indexes = |table: &Table| schema::create_indexes(table);
    let mut known: Vec<(Table, &Table)> = Vec::new();
    for table in new.all() {
        match new.taken_over(old, table) {
            Some(copy) => {
                swap(connection, table, copy)?;
                // The rest is as with any table whose name in the file is this one.
                known.push((Table { stored_name: table.stored_name.clone(), ..copy.clone() }, table));
            }
            None => known.extend(old.find_any(table.id).map(|before| (before.clone(), table))),
        }
    }
    // What is left of those that are gone is removed later; the names of their indexes may be another's now.
    let is_there = |table: &&Table| known.iter().any(|(before, _)| before.id == table.id);
    for gone in old.all().filter(|table| !is_there(table)) {
        for (name, _) in indexes(gone) {
            run(&format!("DROP INDEX IF EXISTS {}", quote(&name)))?;
        }
    }
    for (before, table) in &known {
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
    for (before, table) in &known {
        let had = indexes(before);
        // One that upstream's own takes the place of, and that was missed before, is there already.
        indexes(table).iter().filter(|index| !had.contains(index)).try_for_each(|(_, sql)| run(sql))?;
    }
    metadata::set_catalogue(connection, new)
}

/// The name that a table has while two change theirs. No other begins so.
const BETWEEN: &str = "_kelvin.between";

/// Has a table and its copy change their names: statements that name the table find the copy from here on.
fn swap(connection: &Connection, table: &Table, copy: &Table) -> Result<(), Error> {
    let doing = "putting a copy in the place of its table";
    live_indexes::drop_all(connection, table)?;
    let (shown, copied, between) = (quote(&table.stored_name), quote(&copy.stored_name), quote(BETWEEN));
    for (from, to) in [(&shown, &between), (&copied, &shown), (&between, &copied)] {
        connection.execute_batch(&format!("ALTER TABLE {from} RENAME TO {to}")).doing(doing)?;
    }
    Ok(())
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
