//! Tables as sets of rows, read from either side, to be compared.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use futures_util::TryStreamExt;
use kelvin::model::catalogue::{Catalogue, Column, ColumnIndex, Table, quote};
use kelvin::model::value::Value;
use kelvin::upstream::copy::{Columns, Format};
use kelvin::upstream::types::Malformed;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags};

use super::postgres::Database;

/// Rows of a table, printed and sorted.
pub type Rows = Vec<String>;

pub fn print(values: &[Value]) -> String {
    format!("{values:?}")
}

#[derive(Debug)]
struct Bad(String);

impl From<(usize, Malformed)> for Bad {
    fn from((at, e): (usize, Malformed)) -> Self {
        Bad(format!("column {at}: {e}"))
    }
}

/// Reads a table of Postgres through the conversion.
pub async fn upstream(database: &Database, table: &Table) -> Rows {
    upstream_where(database, table, table.row_filter.as_deref().unwrap_or("true")).await
}

/// Reads the rows of a table of Postgres that a row filter lets pass.
pub async fn upstream_where(database: &Database, table: &Table, condition: &str) -> Rows {
    let there: Vec<&Column> = table.columns.iter().filter(|c| !c.gone && !c.is_exact_key()).collect();
    let columns: Vec<String> = there.iter().map(|c| quote(&c.name)).collect();
    let sql = format!(
        "COPY (SELECT {} FROM {}.{} WHERE {condition}) TO STDOUT",
        columns.join(", "),
        quote(&table.schema),
        quote(&table.upstream_name)
    );
    // A session of ours, because it fixes how values print.
    let session = kelvin_io::postgres::connect(&database.target, "test").await.expect("connected");
    let lines = session.client.copy_out(sql.as_str()).await.expect("COPY begins");
    let mut lines = std::pin::pin!(lines);
    let columns = Columns::new(Format::Text, there);
    let mut rows = Vec::new();
    while let Some(line) = lines.try_next().await.expect("COPY goes on") {
        let mut values = Vec::new();
        let whole = columns.read::<Bad>(&line, |_, value| {
            values.push(value.clone().into_value());
            Ok(())
        });
        assert!(whole.expect("values convert"), "a whole row");
        rows.push(print(&values));
    }
    rows.sort();
    rows
}

/// Opens a replica for reading.
pub fn open(path: &Path) -> Connection {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags(path, flags).expect("the replica opens")
}

/// Reads what upstream has, too, of a table of the replica.
pub fn replica(connection: &Connection, table: &Table) -> Rows {
    let own = table.columns.iter().filter(|c| !c.gone).position(Column::is_exact_key);
    let upstreams = |mut row: Vec<Value>| {
        own.map(|at| row.remove(at));
        print(&row)
    };
    let mut rows: Rows = replica_values(connection, table).into_iter().map(upstreams).collect();
    rows.sort();
    rows
}

/// Reads the columns that a table of the replica has, in no order of the rows.
pub fn replica_values(connection: &Connection, table: &Table) -> Vec<Vec<Value>> {
    let columns: Vec<String> =
        table.columns.iter().filter(|c| !c.gone).map(|c| quote(&c.stored_name)).collect();
    // A table may have no columns at all.
    let list = if columns.is_empty() { "NULL".into() } else { columns.join(", ") };
    let sql = format!("SELECT {list} FROM {}", quote(&table.stored_name));
    let mut statement = connection.prepare(&sql).expect("the table is there");
    let width = columns.len();
    let rows =
        statement.query_map([], |row| Ok((0..width).map(|at| value(row.get_ref_unwrap(at))).collect()));
    rows.expect("the table is read").map(|row| row.expect("a row")).collect()
}

fn value(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(i) => Value::Integer(i),
        ValueRef::Real(r) => Value::Real(r),
        ValueRef::Text(t) => Value::Text(std::str::from_utf8(t).expect("UTF-8").into()),
        ValueRef::Blob(b) => Value::Blob(b.into()),
    }
}

/// The tables of a replica as it is now.
pub fn catalogue(connection: &Connection) -> Catalogue {
    kelvin::replica::metadata::catalogue(connection).expect("it is read").expect("there is one")
}

/// Whether the tables of schema public have the columns that upstream says: all but those that are generated and not
/// published, and null where a constraint of before says nothing of stored rows.
pub async fn are_those_of(catalogue: &Catalogue, database: &Database) -> bool {
    let sql = "SELECT coalesce(string_agg(format('%s.%s %s', c.relname, a.attname, CASE WHEN a.attnotnull AND NOT EXISTS
                  (SELECT 1 FROM pg_constraint v WHERE v.conrelid = c.oid AND v.contype = 'n' AND NOT v.convalidated
                      AND v.conkey = ARRAY[a.attnum]) THEN 'NO' ELSE 'YES' END), ',' ORDER BY c.relname, a.attnum), '')
                 FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
                WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
                  AND (a.attgenerated = '' OR (current_setting('server_version_num')::int >= 180000 AND EXISTS
                  (SELECT 1 FROM pg_publication_tables p WHERE p.schemaname = 'public' AND p.tablename = c.relname
                      AND a.attname = ANY(p.attnames))))";
    let there = database.value(sql).await;
    let mut tables: Vec<_> = catalogue.tables().filter(|table| table.schema == "public").collect();
    tables.sort_by(|a, b| a.upstream_name.cmp(&b.upstream_name));
    let column = |table: &Table, c: ColumnIndex| {
        let column = &table.columns[usize::from(c)];
        format!("{}.{} {}", table.upstream_name, column.name, if column.not_null { "NO" } else { "YES" })
    };
    let here: Vec<String> = tables
        .iter()
        .flat_map(|table| table.published_columns().into_iter().map(|c| column(table, c)).collect::<Vec<_>>())
        .collect();
    here.join(",") == there
}

/// What the first table that is not the same on both sides differs in.
pub async fn difference(database: &Database, catalogue: &Catalogue, path: &Path) -> Option<String> {
    let connection = open(path);
    for table in catalogue.tables() {
        let (there, here) = (upstream(database, table).await, replica(&connection, table));
        if there != here {
            return Some(format!("table {} differs: {}", table.name, first_difference(&there, &here)));
        }
    }
    None
}

/// Fails unless every table is the same on both sides.
pub async fn assert_equal(database: &Database, catalogue: &Arc<Catalogue>, path: &Path) {
    if let Some(difference) = difference(database, catalogue, path).await {
        panic!("{difference}");
    }
    let connection = open(path);
    let check: String = connection.query_row("PRAGMA integrity_check", [], |r| r.get(0)).expect("checked");
    assert_eq!(check, "ok");
}

pub fn first_difference(there: &Rows, here: &Rows) -> String {
    let count = |rows: &Rows| {
        let mut counts: BTreeMap<String, i64> = BTreeMap::new();
        rows.iter().for_each(|row| *counts.entry(row.clone()).or_default() += 1);
        counts
    };
    let (there_counts, here_counts) = (count(there), count(here));
    let only = |a: &BTreeMap<String, i64>, b: &BTreeMap<String, i64>| {
        a.iter().find(|(row, n)| b.get(*row) != Some(n)).map(|(row, _)| row.clone())
    };
    format!(
        "{} rows upstream, {} here; only upstream: {:?}; only here: {:?}",
        there.len(),
        here.len(),
        only(&there_counts, &here_counts),
        only(&here_counts, &there_counts)
    )
}
