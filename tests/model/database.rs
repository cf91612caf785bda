//! The rows of all tables, in memory.

use std::collections::BTreeMap;

use super::cell::{self, Cell};
use super::schema::Schema;

pub type Row = Vec<Cell>;

/// One step of an upstream transaction.
#[derive(Clone, Debug)]
pub enum Write {
    Insert { table: usize, row: Row },
    Update { table: usize, old: Row, new: Row },
    Delete { table: usize, row: Row },
    Truncate { table: usize },
}

/// Rows by the values of their row key.
#[derive(Clone)]
pub struct Database {
    pub schema: Schema,
    tables: Vec<BTreeMap<String, Row>>,
}

impl Database {
    pub fn new(schema: &Schema) -> Database {
        let tables = schema.specs.iter().map(|_| BTreeMap::new()).collect();
        Database { schema: schema.clone(), tables }
    }

    /// The same rows, named as other clients name them.
    pub fn known_as(&self, schema: &Schema) -> Database {
        Database { schema: schema.clone(), tables: self.tables.clone() }
    }

    pub fn rows(&self, table: usize) -> impl Iterator<Item = &Row> {
        self.tables[table].values()
    }

    pub fn len(&self, table: usize) -> usize {
        self.tables[table].len()
    }

    pub fn nth(&self, table: usize, n: usize) -> &Row {
        self.tables[table].values().nth(n).expect("a row of the table")
    }

    /// The row that the replica would find for this one's key.
    pub fn same_key(&self, table: usize, row: &Row) -> Option<&Row> {
        self.tables[table].get(&self.row_key(table, row))
    }

    pub fn apply(&mut self, write: &Write) {
        match write {
            Write::Insert { table, row } => self.put(*table, row),
            Write::Update { table, old, new } => {
                self.remove(*table, old);
                self.put(*table, new);
            }
            Write::Delete { table, row } => self.remove(*table, row),
            Write::Truncate { table } => self.tables[*table].clear(),
        }
    }

    fn put(&mut self, table: usize, row: &Row) {
        let key = self.row_key(table, row);
        let before = self.tables[table].insert(key, row.clone());
        assert!(before.is_none(), "there is {before:?} already");
    }

    fn remove(&mut self, table: usize, row: &Row) {
        let key = self.row_key(table, row);
        assert_eq!(self.tables[table].remove(&key).as_ref(), Some(row), "not the row that was there");
    }

    fn row_key(&self, table: usize, row: &Row) -> String {
        key(&self.schema.spec(table).row_key, row)
    }

    /// The name by which clients know the row.
    pub fn identity(&self, table: usize, row: &Row) -> String {
        key(&self.schema.identity(table), row)
    }
}

/// The values of some columns as a text.
pub fn key(columns: &[usize], row: &Row) -> String {
    let parts: Vec<String> = columns.iter().map(|c| cell::name(&row[*c])).collect();
    parts.join(",")
}
