//! The writer's prepared statements, per table and set of columns.

use std::collections::HashMap;

use rusqlite::{Connection, Statement};
use smallvec::SmallVec;

use super::error::{Doing, Error};
use super::schema::{ROW_VERSION, column_list, matches, rowid_name};
use super::stored::{bind_value, read_value};
use crate::model::catalogue::{ColumnIndex, Table, quote};
use crate::model::commit::Row;
use crate::model::value::Value;

/// Most UPDATE statements kept per table. An app has a handful of forms of update per
/// table; more than this means columns that change at random, and all are prepared anew.
const MAX_UPDATES: usize = 128;

/// Columns that an update sets, in order.
pub(super) type ColumnSet = SmallVec<[ColumnIndex; 8]>;

/// Statements of one table.
pub(super) struct TableStatements<'c> {
    connection: &'c Connection,
    name: String,
    columns: Vec<String>,
    /// Columns that are not gone.
    there: Vec<ColumnIndex>,
    rowid: &'static str,
    insert: Statement<'c>,
    select: Statement<'c>,
    delete: Statement<'c>,
    /// Rows, two at most, with the key as it is stored; in a table where that may be several.
    alike: Option<Statement<'c>>,
    updates: HashMap<ColumnSet, Statement<'c>>,
}

impl<'c> TableStatements<'c> {
    pub(super) fn prepare(connection: &'c Connection, table: &Table) -> Result<Self, Error> {
        let doing = "preparing the statements of a table";
        let name = quote(&table.stored_name);
        // No column is stored under all three names.
        let rowid = rowid_name(&table.columns).unwrap_or("rowid");
        let there = table.columns_there();
        let columns: Vec<String> = table.columns.iter().map(|c| quote(&c.stored_name)).collect();
        let listed: String = there.iter().map(|c| format!("{}, ", columns[usize::from(*c)])).collect();
        let parameters = "?, ".repeat(there.len());
        // DO NOTHING reports a conflict as zero rows; the old row is then read and updated.
        let insert = format!(
            "INSERT INTO {name} ({listed}{}) VALUES ({parameters}?) ON CONFLICT DO NOTHING",
            quote(ROW_VERSION)
        );
        let key = if table.row_key.is_empty() { &there } else { &table.row_key };
        // In a table without columns every row is like every other.
        let select = match there.len() {
            0 => format!("SELECT {rowid}{} FROM {name} LIMIT 1", ", NULL".repeat(columns.len())),
            _ => format!(
                "SELECT {rowid}, {} FROM {name} WHERE {} LIMIT 1",
                column_list(table),
                matches(table, key.iter().copied())
            ),
        };
        let alike = match table.exact_key() {
            Some(_) => {
                let same = matches(table, table.upstream_key().iter().copied());
                let sql = format!("SELECT count(*) FROM (SELECT 1 FROM {name} WHERE {same} LIMIT 2)");
                Some(connection.prepare(&sql).doing(doing)?)
            }
            None => None,
        };
        let delete = format!("DELETE FROM {name} WHERE {rowid} = ?");
        Ok(TableStatements {
            connection,
            columns,
            there,
            rowid,
            insert: connection.prepare(&insert).doing(doing)?,
            select: connection.prepare(&select).doing(doing)?,
            delete: connection.prepare(&delete).doing(doing)?,
            alike,
            updates: HashMap::new(),
            name,
        })
    }

    /// Inserts a row; `false`: one with its key exists.
    pub(super) fn insert(&mut self, row: &[Value], version: &Value) -> Result<bool, Error> {
        let doing = "inserting a row";
        for (at, column) in self.there.iter().enumerate() {
            bind_value(&mut self.insert, at + 1, &row[usize::from(*column)]).doing(doing)?;
        }
        bind_value(&mut self.insert, self.there.len() + 1, version).doing(doing)?;
        Ok(self.insert.raw_execute().doing(doing)? > 0)
    }

    /// Finds a row by its key values (or, in a table without key, by the values of all columns that are there).
    pub(super) fn find<'v>(
        &mut self,
        key: impl Iterator<Item = &'v Value>,
    ) -> Result<Option<(i64, Row)>, Error> {
        let doing = "reading a row before its change";
        for (at, value) in key.enumerate() {
            bind_value(&mut self.select, at + 1, value).doing(doing)?;
        }
        let width = self.columns.len();
        let mut rows = self.select.raw_query();
        let Some(row) = rows.next().doing(doing)? else { return Ok(None) };
        let rowid = row.get(0).doing(doing)?;
        let values: rusqlite::Result<Row> = (1..=width).map(|at| read_value(row, at)).collect();
        Ok(Some((rowid, values.doing(doing)?)))
    }

    /// How many rows have a key as it is stored, as upstream does not know it: two, if there are more.
    pub(super) fn count_alike(&mut self, key: &[Value]) -> Result<u64, Error> {
        let doing = "looking for rows with the same stored key";
        let Some(alike) = &mut self.alike else { return Ok(0) };
        for (at, value) in key.iter().enumerate() {
            bind_value(alike, at + 1, value).doing(doing)?;
        }
        let mut rows = alike.raw_query();
        let count = rows.next().doing(doing)?.map(|row| row.get::<_, i64>(0)).transpose().doing(doing)?;
        Ok(count.unwrap_or(0) as u64)
    }

    /// Sets some columns of a row.
    pub(super) fn update(
        &mut self,
        rowid: i64,
        set: &ColumnSet,
        row: &[Value],
        version: &Value,
    ) -> Result<(), Error> {
        let doing = "updating a row";
        if !self.updates.contains_key(set) {
            self.prepare_update(set)?;
        }
        let Some(statement) = self.updates.get_mut(set) else { return Ok(()) };
        for (at, column) in set.iter().enumerate() {
            bind_value(statement, at + 1, &row[*column as usize]).doing(doing)?;
        }
        bind_value(statement, set.len() + 1, version).doing(doing)?;
        statement.raw_bind_parameter(set.len() + 2, rowid).doing(doing)?;
        statement.raw_execute().doing(doing)?;
        Ok(())
    }

    fn prepare_update(&mut self, set: &ColumnSet) -> Result<(), Error> {
        if self.updates.len() >= MAX_UPDATES {
            self.updates.clear();
        }
        let mut sql = format!("UPDATE {} SET ", self.name);
        for column in set {
            sql.push_str(&self.columns[*column as usize]);
            sql.push_str(" = ?, ");
        }
        sql.push_str(&format!("{} = ? WHERE {} = ?", quote(ROW_VERSION), self.rowid));
        let statement = self.connection.prepare(&sql).doing("preparing an update")?;
        self.updates.insert(set.clone(), statement);
        Ok(())
    }

    pub(super) fn delete(&mut self, rowid: i64) -> Result<(), Error> {
        let doing = "deleting a row";
        self.delete.raw_bind_parameter(1, rowid).doing(doing)?;
        self.delete.raw_execute().doing(doing)?;
        Ok(())
    }

    pub(super) fn truncate(&mut self) -> Result<(), Error> {
        self.connection.execute(&format!("DELETE FROM {}", self.name), []).doing("truncating a table")?;
        Ok(())
    }
}
