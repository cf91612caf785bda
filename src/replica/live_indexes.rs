//! Indexes that live queries need and upstream does not have (rules, finding 18).
//!
//! Postgres does not index foreign keys, and an app's queries may ask by columns that no other
//! reader of its database asks by. Whoever plans a query notes what it would read by; the
//! writer creates such an index when it has nothing else to do. They are named so that they are
//! found again at the next start, and are no part of the catalogue that is compared with
//! upstream's.

use rusqlite::Connection;

use super::error::{Doing, Error};
use super::schema;
use crate::model::catalogue::{Catalogue, ColumnIndex, Index, Table};
use crate::model::ids::TableId;

/// Most such indexes of one table: each one makes every insert into it dearer.
pub const MAX_PER_TABLE: usize = 8;

/// Most such indexes of a replica.
pub const MAX_TOTAL: usize = 64;

/// Entries that ANALYZE looks at: enough to know how many rows share a key.
const ANALYSIS_LIMIT: u32 = 1_000;

/// How their names begin.
const PREFIX: &str = "_kelvin.live.";

/// An index that a query would read by.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IndexRequest {
    /// The table.
    pub table: TableId,
    /// Its columns, in index order.
    pub columns: Vec<ColumnIndex>,
}

impl IndexRequest {
    fn index(&self, table: &Table) -> Index {
        let columns: Vec<&str> =
            self.columns.iter().map(|c| table.columns[*c as usize].stored_name.as_str()).collect();
        Index {
            name: String::new(),
            stored_name: format!("{PREFIX}{}({})", table.copy_name(), columns.join(",")),
            unique: false,
            columns: self.columns.iter().map(|c| (*c, false)).collect(),
        }
    }
}

/// The catalogue with the indexes that were made for it earlier.
pub fn find(connection: &Connection, catalogue: &Catalogue) -> Result<Catalogue, Error> {
    let mut found = catalogue.clone();
    for table in catalogue.tables() {
        for (stored_name, columns) in list(connection, table)? {
            let known: Option<Vec<_>> =
                columns.iter().map(|c| Some((stored_column(table, c)?, false))).collect();
            if let Some(columns) = known {
                found.add_index(table.id, Index { name: String::new(), stored_name, unique: false, columns });
            }
        }
    }
    Ok(found)
}

/// Drops those of a table that have a column which is gone.
pub fn drop_unusable(connection: &Connection, table: &Table) -> Result<(), Error> {
    let doing = "dropping an index of a column that is gone";
    for (name, columns) in list(connection, table)? {
        if columns.iter().any(|column| stored_column(table, column).is_none()) {
            let drop = format!("DROP INDEX {}", crate::model::catalogue::quote(&name));
            connection.execute_batch(&drop).doing(doing)?;
        }
    }
    Ok(())
}

/// Drops all of a table that is no part of the catalogue any more.
pub fn drop_all(connection: &Connection, table: &Table) -> Result<(), Error> {
    for (name, _) in list(connection, table)? {
        let drop = format!("DROP INDEX {}", crate::model::catalogue::quote(&name));
        connection.execute_batch(&drop).doing("dropping the indexes of a table that is gone")?;
    }
    Ok(())
}

/// Gives a copy of a table those that the table has, as far as its columns are in the copy.
pub fn copy(connection: &Connection, table: &Table, copy: &Table) -> Result<(), Error> {
    let doing = "creating the indexes of a copy";
    let has = list(connection, copy)?;
    for (_, columns) in
        list(connection, table)?.into_iter().filter(|(_, columns)| has.iter().all(|(_, has)| has != columns))
    {
        let columns: Option<Vec<ColumnIndex>> =
            columns.iter().map(|column| stored_column(copy, column)).collect();
        let Some(columns) = columns else { continue };
        let index = IndexRequest { table: copy.id, columns }.index(copy);
        connection.execute_batch(&schema::create_index(copy, &index, false)).doing(doing)?;
    }
    Ok(())
}

/// Names in the file of a table's own indexes, and of the columns of each.
fn list(connection: &Connection, table: &Table) -> Result<Vec<(String, Vec<String>)>, Error> {
    let doing = "listing the replica's own indexes";
    let texts = |sql: &str, of: &str| -> Result<Vec<String>, Error> {
        let mut statement = connection.prepare(sql).doing(doing)?;
        let texts = statement.query_map([of], |row| row.get(0)).and_then(|rows| rows.collect());
        texts.doing(doing)
    };
    let names = "SELECT name FROM sqlite_schema WHERE type = 'index' AND tbl_name = ?1 ORDER BY name";
    let names = texts(names, &table.stored_name)?;
    let own = names.into_iter().filter(|name| name.starts_with(PREFIX));
    own.map(|name| {
        let columns = texts("SELECT name FROM pragma_index_info(?1) ORDER BY seqno", &name)?;
        Ok((name, columns))
    })
    .collect()
}

/// Finds a column by its name in the file; none that is gone.
fn stored_column(table: &Table, name: &str) -> Option<ColumnIndex> {
    let at = table.columns.iter().position(|c| !c.gone && c.stored_name == name)?;
    Some(at as ColumnIndex)
}

/// Creates an index within an open transaction. `None`: there is one already, there are too
/// many, or the table is gone.
pub fn create(
    connection: &Connection,
    catalogue: &Catalogue,
    index_request: &IndexRequest,
) -> Result<Option<Catalogue>, Error> {
    let is_own = |index: &&Index| index.stored_name.starts_with(PREFIX);
    let Some(table) = catalogue.find(index_request.table) else { return Ok(None) };
    let is_there = |c: &ColumnIndex| table.columns.get(usize::from(*c)).is_some_and(|column| !column.gone);
    if !index_request.columns.iter().all(is_there) {
        return Ok(None);
    }
    let of_table = table.indexes.iter().filter(is_own).count();
    let total: usize = catalogue.tables().map(|t| t.indexes.iter().filter(is_own).count()).sum();
    let exists = table.indexes.iter().any(|index| {
        index.columns.len() >= index_request.columns.len()
            && index.columns.iter().zip(&index_request.columns).all(|((have, _), want)| have == want)
    });
    if exists || of_table >= MAX_PER_TABLE || total >= MAX_TOTAL {
        return Ok(None);
    }
    let doing = "creating an index that queries need";
    let index = index_request.index(table);
    connection.execute_batch(&schema::create_index(table, &index, false)).doing(doing)?;
    let analyse = format!(
        "PRAGMA analysis_limit = {ANALYSIS_LIMIT}; ANALYZE {}",
        crate::model::catalogue::quote(&index.stored_name)
    );
    connection.execute_batch(&analyse).doing(doing)?;
    let mut with_index = catalogue.clone();
    with_index.add_index(table.id, index);
    Ok(Some(with_index))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::catalogue::{Column, ZeroType};

    fn catalogue() -> Catalogue {
        let column = |name: &str| Column {
            name: name.to_owned(),
            upstream_type: "text".to_owned(),
            type_oid: 25,
            attnum: 1,
            zero_type: Some(ZeroType::String),
            not_null: true,
            ..Column::default()
        };
        let columns: Vec<Column> = (0..20).map(|n| column(&format!("c\"{n}"))).collect();
        let table = Table {
            id: TableId(0),
            name: "a table".to_owned(),
            schema: "public".to_owned(),
            upstream_name: "a table".to_owned(),
            oid: 1,
            columns,
            row_key: vec![0],
            candidate_keys: vec![vec![0]],
            indexes: Vec::new(),
            ..Table::default()
        };
        Catalogue::new(3, vec![table])
    }

    #[test]
    fn an_index_is_made_once_and_found_again() {
        let connection = Connection::open_in_memory().unwrap();
        let before = catalogue();
        connection.execute_batch(&schema::create_table(before.get(TableId(0)))).unwrap();
        let index_request = IndexRequest { table: TableId(0), columns: vec![3, 1] };
        let after = create(&connection, &before, &index_request).unwrap().expect("it is new");
        assert!(after.get(TableId(0)).has_index_on(&[3]) && after.get(TableId(0)).has_index_on(&[1, 3]));
        assert_eq!(after.epoch, 3, "the rows are the same");
        assert_eq!(create(&connection, &after, &index_request).unwrap(), None);
        let prefix = IndexRequest { table: TableId(0), columns: vec![3] };
        assert_eq!(create(&connection, &after, &prefix).unwrap(), None, "a longer one serves it");
        assert_eq!(find(&connection, &before).unwrap(), after);
    }

    #[test]
    fn no_table_gets_too_many() {
        let connection = Connection::open_in_memory().unwrap();
        let mut catalogue = catalogue();
        connection.execute_batch(&schema::create_table(catalogue.get(TableId(0)))).unwrap();
        for column in 0..20 {
            let index_request = IndexRequest { table: TableId(0), columns: vec![column] };
            if let Some(more) = create(&connection, &catalogue, &index_request).unwrap() {
                catalogue = more;
            }
        }
        assert_eq!(catalogue.get(TableId(0)).indexes.len(), MAX_PER_TABLE);
    }
}
