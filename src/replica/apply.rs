//! Applying upstream's changes to the replica's tables, and noting their net effect.

use std::sync::Arc;

use rusqlite::Connection;

use super::error::Error;
use super::net::Net;
use super::oversize;
use super::statements::{ColumnSet, TableStatements};
use super::work::{Absent, Before, Op};
use crate::model::catalogue::{Catalogue, Table};
use crate::model::commit::{Row, RowKey};
use crate::model::ids::TableId;
use crate::model::table_map::TableMap;
use crate::model::value::Value;
use crate::model::version::StateVersion;

/// Applies changes within a transaction that somebody else begins and ends.
pub struct Applier<'c> {
    connection: &'c Connection,
    catalogue: Arc<Catalogue>,
    statements: TableMap<TableStatements<'c>>,
    /// Most bytes of a row.
    pub row_limit: usize,
    /// `_0_version` of the rows that are written now.
    version: Value,
    /// Effect since the last [`Net::take`].
    pub net: Net,
    /// Changed rows since they were last counted.
    pub rows: u64,
    /// Changes that missed their row, or met one unexpectedly.
    pub surprises: u64,
}

impl<'c> Applier<'c> {
    /// Prepares nothing yet; statements are made when a table is first touched.
    pub fn new(connection: &'c Connection, catalogue: Arc<Catalogue>) -> Self {
        Applier {
            connection,
            statements: TableMap::default(),
            catalogue,
            row_limit: oversize::MAX_ROW,
            version: Value::Null,
            net: Net::default(),
            rows: 0,
            surprises: 0,
        }
    }

    /// The tables are these from here on. Statements of before would be in the way of changing them, or mean something
    /// else; rows that were noted get what they have in columns that came.
    pub fn follow(&mut self, catalogue: Arc<Catalogue>) {
        self.forget_statements();
        for table in catalogue.tables() {
            self.net.widen(table);
        }
        self.catalogue = catalogue;
    }

    /// Prepares all statements anew when they are needed.
    pub fn forget_statements(&mut self) {
        self.statements = TableMap::default();
    }

    /// Goes back to these tables: the change of them was undone.
    pub fn go_back(&mut self, catalogue: Arc<Catalogue>) {
        self.forget_statements();
        self.catalogue = catalogue;
    }

    /// Version of the rows written from here on.
    pub fn begin(&mut self, version: StateVersion) {
        self.version = Value::Text(version.to_lexi().into_boxed_str());
    }

    /// Rows that are written from here on have none: they count as changed when they are shown.
    pub fn begin_unversioned(&mut self) {
        self.version = Value::Null;
    }

    /// Applies one change of rows.
    pub fn apply(&mut self, op: Op) -> Result<(), Error> {
        match op {
            Op::Insert { table, row } => self.insert(table, row),
            Op::Update { table, before, row, absent } => self.update(table, before, row, &absent),
            Op::Delete { table, before } => self.delete(table, &before),
            Op::Truncate { tables } => self.truncate(&tables),
            _ => Err(Error::Misfit("something that is no change of rows")),
        }
    }

    /// Adds a row, or puts it in the place of the one with its key.
    pub fn insert(&mut self, id: TableId, mut row: Row) -> Result<(), Error> {
        self.rows += 1;
        let catalogue = self.catalogue.clone();
        let table = table_of(&catalogue, id, Some(&row))?;
        self.fit(table, &mut row);
        let version = self.version.clone();
        // A unique index takes any number of NULLs, which an infinity in a key is stored as.
        let is_enforced = table.exact_key().is_none() || !key_of(table, &row).any(Value::is_null);
        let found = if is_enforced { None } else { self.statements(table)?.find(key_of(table, &row))? };
        if found.is_none() && self.statements(table)?.insert(&row, &version)? {
            return self.note(table, None, Some(row));
        }
        self.surprises += 1;
        let found = match found {
            Some(found) => Some(found),
            None => self.statements(table)?.find(key_of(table, &row))?,
        };
        match found {
            Some((rowid, old)) => self.write(table, rowid, old, row),
            // The conflict is with a row that IS finds no more: impossible, but no reason
            // to lose count.
            None => Ok(()),
        }
    }

    /// Changes a row; adds it if it is not there.
    pub fn update(
        &mut self,
        id: TableId,
        before: Before,
        mut row: Row,
        absent: &Absent,
    ) -> Result<(), Error> {
        self.rows += 1;
        let catalogue = self.catalogue.clone();
        let table = table_of(&catalogue, id, Some(&row))?;
        if absent.iter().any(|column| usize::from(*column) >= row.len()) {
            return Err(Error::Misfit("a row without a column that its table does not have"));
        }
        check(table, &before)?;
        let found = match &before {
            Before::SameKey => self.statements(table)?.find(key_of(table, &row))?,
            Before::Key(key) => self.statements(table)?.find(key.iter())?,
            Before::Whole(old) => {
                let old = self.as_stored(table, old);
                self.statements(table)?.find(key_of(table, &old))?
            }
        };
        let Some((rowid, old)) = found else {
            self.surprises += 1;
            // While the table is copied the rows that are shown need not be those that are published; the copy has it.
            return if self.catalogue.is_copied(id) { Ok(()) } else { self.insert(id, row) };
        };
        for column in absent {
            row[*column as usize] = old[*column as usize].clone();
        }
        self.fit(table, &mut row);
        if !table.row_key.is_empty() && !key_of(table, &old).eq(key_of(table, &row)) {
            self.make_way(table, rowid, &row)?;
        }
        self.write(table, rowid, old, row)
    }

    /// Takes out of a row what the replica has no room for.
    fn fit(&self, table: &Table, row: &mut Row) {
        let lacking = oversize::fit(self.row_limit, table, row);
        if !lacking.is_empty() {
            oversize::report(table, &oversize::key_of(table, row), &lacking);
        }
    }

    /// The row by whose values one is looked for, as it was stored.
    fn as_stored(&self, table: &Table, row: &Row) -> Row {
        let mut row = row.clone();
        oversize::fit(self.row_limit, table, &mut row);
        row
    }

    /// Removes whatever has the key that a row is about to take.
    fn make_way(&mut self, table: &Table, rowid: i64, row: &Row) -> Result<(), Error> {
        let statements = self.statements(table)?;
        let Some((other, old)) = statements.find(key_of(table, row))? else { return Ok(()) };
        if other == rowid {
            return Ok(());
        }
        statements.delete(other)?;
        self.surprises += 1;
        self.note(table, Some(old), None)
    }

    /// Writes the columns that differ; nothing if none does.
    fn write(&mut self, table: &Table, rowid: i64, old: Row, row: Row) -> Result<(), Error> {
        let changed: ColumnSet = (0..row.len()).filter(|i| old[*i] != row[*i]).map(|i| i as u16).collect();
        if changed.is_empty() {
            return Ok(());
        }
        let version = self.version.clone();
        self.statements(table)?.update(rowid, &changed, &row, &version)?;
        self.note(table, Some(old), Some(row))
    }

    /// Removes a row.
    pub fn delete(&mut self, id: TableId, before: &Before) -> Result<(), Error> {
        self.rows += 1;
        let catalogue = self.catalogue.clone();
        let table = table_of(&catalogue, id, None)?;
        check(table, before)?;
        let found = match before {
            Before::Key(key) => self.statements(table)?.find(key.iter())?,
            Before::Whole(row) => {
                let row = self.as_stored(table, row);
                self.statements(table)?.find(key_of(table, &row))?
            }
            Before::SameKey => None,
        };
        match found {
            Some((rowid, old)) => {
                self.statements(table)?.delete(rowid)?;
                self.note(table, Some(old), None)
            }
            None => {
                self.surprises += 1;
                Ok(())
            }
        }
    }

    /// Removes all rows of some tables.
    pub fn truncate(&mut self, tables: &[TableId]) -> Result<(), Error> {
        let catalogue = self.catalogue.clone();
        for id in tables {
            self.statements(table_of(&catalogue, *id, None)?)?.truncate()?;
            self.net.bulk(*id);
        }
        Ok(())
    }

    /// Records the net effect: a changed key is one row gone and another come.
    fn note(&mut self, table: &Table, old: Option<Row>, new: Option<Row>) -> Result<(), Error> {
        if table.row_key.is_empty() {
            // Rows that cannot be told apart. Clients may still see such a table by a
            // deferrable key, and then look at all of it.
            if table.is_syncable() {
                self.net.bulk(table.id);
            }
            return Ok(());
        }
        if !self.net.lists(table.id) {
            return Ok(());
        }
        if self.has_twins(table, old.as_ref(), new.as_ref())? {
            self.net.bulk(table.id);
            return Ok(());
        }
        let key = |row: &Row| -> RowKey { key_of(table, row).cloned().collect() };
        match (old, new) {
            (Some(old), Some(new)) if !key_of(table, &old).eq(key_of(table, &new)) => {
                self.net.row(table.id, key(&old), Some(old), None);
                self.net.row(table.id, key(&new), None, Some(new));
            }
            (old, new) => {
                if let Some(row) = new.as_ref().or(old.as_ref()) {
                    self.net.row(table.id, key(row), old, new);
                }
            }
        }
        Ok(())
    }

    /// Whether another row has the stored key that one has, or had. To clients they are one row, which does not
    /// go with one of them: views have to look.
    fn has_twins(&mut self, table: &Table, old: Option<&Row>, new: Option<&Row>) -> Result<bool, Error> {
        if table.exact_key().is_none() {
            return Ok(false);
        }
        let statements = self.statements(table)?;
        let key = |row: &Row| oversize::key_of(table, row);
        let (old, new) = (old.map(key), new.map(key));
        let came = new.as_ref().map(|key| statements.count_alike(key)).transpose()?.unwrap_or(0);
        let left = old.filter(|old| new.as_ref() != Some(old));
        let left = left.map(|key| statements.count_alike(&key)).transpose()?.unwrap_or(0);
        Ok(came > 1 || left > 0)
    }

    fn statements(&mut self, table: &Table) -> Result<&mut TableStatements<'c>, Error> {
        let slot = self.statements.slot(table.id);
        match slot {
            Some(statements) => Ok(statements),
            None => Ok(slot.insert(TableStatements::prepare(self.connection, table)?)),
        }
    }
}

/// The table of an operation, which its source may have taken from another catalogue.
fn table_of<'c>(catalogue: &'c Catalogue, id: TableId, row: Option<&Row>) -> Result<&'c Table, Error> {
    let table = catalogue.find(id).ok_or(Error::Misfit("a change of a table that is not there"))?;
    match row {
        Some(row) if row.len() != table.columns.len() => {
            Err(Error::Misfit("a row with other columns than its table"))
        }
        _ => Ok(table),
    }
}

/// Whether a row of the table can be found so.
fn check(table: &Table, before: &Before) -> Result<(), Error> {
    let fits = match before {
        Before::SameKey => true,
        Before::Key(key) => !key.is_empty() && key.len() == table.row_key.len(),
        Before::Whole(row) => table.row_key.is_empty() && row.len() == table.columns.len(),
    };
    if fits { Ok(()) } else { Err(Error::Misfit("a row with another key than its table")) }
}

/// Values of the row key; of all columns that are there in a table without one.
fn key_of<'r>(table: &'r Table, row: &'r Row) -> impl Iterator<Item = &'r Value> {
    let all = if table.row_key.is_empty() { row.len() } else { 0 };
    let there = table.columns.iter().zip(row.iter()).take(all).filter(|(column, _)| !column.gone);
    table.row_key.iter().map(|c| &row[*c as usize]).chain(there.map(|(_, value)| value))
}
