//! Tables and indexes of the replica as SQL.
//!
//! Columns that hold text are declared TEXT; all others have no declared type. Neither
//! makes SQLite convert a value: TEXT affinity would turn numbers into text, but a text
//! column is only ever given text, and a column without a type takes everything as it is.
//! So a stored value is the converted value, and comparisons with other columns and
//! parameters happen without coercion for numbers.

use crate::model::catalogue::{Catalogue, Column, ColumnIndex, Index, Table, quote};
use crate::model::value::Value;

/// Column that holds the version of the transaction that wrote the row.
pub const ROW_VERSION: &str = "_0_version";

/// `CREATE TABLE` without indexes. Rows have an implicit rowid.
pub fn create_table(table: &Table) -> String {
    let mut sql = format!("CREATE TABLE {} (", quote(&table.stored_name));
    for column in &table.columns {
        sql.push_str(&declaration(column));
        sql.push_str(", ");
    }
    sql.push_str(&format!("{} TEXT)", quote(ROW_VERSION)));
    sql
}

/// A column as it is declared.
fn declaration(column: &Column) -> String {
    let name = quote(&column.stored_name);
    if holds_text(column) { name + " TEXT" } else { name }
}

/// `ALTER TABLE` for a column that came: every row has in it what such rows have upstream.
pub fn add_column(table: &Table, column: &Column) -> String {
    let (name, column, missing) = (quote(&table.stored_name), declaration(column), literal(&column.missing));
    format!("ALTER TABLE {name} ADD COLUMN {column} DEFAULT {missing}")
}

fn literal(value: &Value) -> String {
    match value {
        Value::Null => "NULL".to_owned(),
        Value::Integer(i) => i.to_string(),
        Value::Real(r) => format!("{r:?}"),
        Value::Text(text) => format!("'{}'", text.replace('\'', "''")),
        Value::Blob(bytes) => {
            let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("x'{digits}'")
        }
    }
}

/// Whether every stored value of the column is text (or NULL). Decided by the built-in
/// types that are stored otherwise.
fn holds_text(column: &Column) -> bool {
    const NOT_TEXT: [u32; 13] = [16, 17, 20, 21, 23, 700, 701, 1700, 1082, 1083, 1266, 1114, 1184];
    !NOT_TEXT.contains(&column.type_oid)
}

/// The index that enforces the row key: one of upstream's with exactly its columns.
pub fn key_index(table: &Table) -> Option<usize> {
    if table.row_key.is_empty() {
        return None;
    }
    table.indexes.iter().position(|index| {
        index.unique
            && index.columns.len() == table.upstream_key().len()
            && index.columns.iter().all(|(c, _)| table.upstream_key().contains(c))
    })
}

/// `CREATE INDEX` for one index. Only the row key is unique (rule 25): a second unique
/// index could refuse a row that upstream accepted, in the middle of a transaction. Where stored keys do not tell all
/// rows apart it ends with what does.
pub fn create_index(table: &Table, index: &Index, unique: bool) -> String {
    let exact = table.exact_key().filter(|_| unique).map(|c| (c, false));
    let columns: Vec<String> = index
        .columns
        .iter()
        .chain(&exact)
        .map(|(c, descending)| {
            let name = quote(&table.columns[*c as usize].stored_name);
            if *descending { name + " DESC" } else { name }
        })
        .collect();
    format!(
        "CREATE {}INDEX {} ON {} ({})",
        if unique { "UNIQUE " } else { "" },
        quote(&index.stored_name),
        quote(&table.stored_name),
        columns.join(", ")
    )
}

/// All indexes of a table as (name, SQL), the row key's first.
pub fn create_indexes(table: &Table) -> Vec<(String, String)> {
    let key = key_index(table);
    let mut all = Vec::with_capacity(table.indexes.len() + 1);
    match key {
        Some(at) => {
            let index = &table.indexes[at];
            all.push((index.stored_name.clone(), create_index(table, index, true)));
        }
        None if table.row_key.is_empty() => {}
        None => {
            let columns = table.upstream_key().iter().map(|c| (*c, false)).collect();
            let stored_name = format!("_kelvin.{}.key", table.copy_name());
            let own = Index { name: String::new(), stored_name, unique: true, columns };
            all.push((own.stored_name.clone(), create_index(table, &own, true)));
        }
    }
    for (at, index) in table.indexes.iter().enumerate() {
        if Some(at) != key {
            all.push((index.stored_name.clone(), create_index(table, index, false)));
        }
    }
    all
}

/// A name for the rowid that no column takes; `None` if all are taken.
pub fn rowid_name(columns: &[Column]) -> Option<&'static str> {
    ["rowid", "_rowid_", "oid"]
        .into_iter()
        .find(|name| !columns.iter().any(|c| c.stored_name.eq_ignore_ascii_case(name)))
}

/// The value of a column in the list of a SELECT: nothing, of one that is gone.
pub fn value_of(column: &Column) -> String {
    if column.gone { "NULL".to_owned() } else { quote(&column.stored_name) }
}

/// `"a", "b", "c"`.
pub(super) fn column_list(table: &Table) -> String {
    let values: Vec<String> = table.columns.iter().map(value_of).collect();
    values.join(", ")
}

/// `"a" IS ?1 AND "b" IS ?2`. IS, because an infinite timestamp is a key value upstream
/// and NULL here; an index serves IS as it does `=`.
pub(super) fn matches(table: &Table, columns: impl Iterator<Item = ColumnIndex>) -> String {
    let terms: Vec<String> = columns
        .enumerate()
        .map(|(i, c)| format!("{} IS ?{}", quote(&table.columns[c as usize].stored_name), i + 1))
        .collect();
    terms.join(" AND ")
}

/// Creates every table of the catalogue.
pub fn create_tables(catalogue: &Catalogue) -> Vec<String> {
    catalogue.tables().map(create_table).collect()
}
