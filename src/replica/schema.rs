//! Tables and indexes of the replica as SQL.
//!
//! Columns that hold text are declared TEXT; all others have no declared type. Neither
//! makes SQLite convert a value: TEXT affinity would turn numbers into text, but a text
//! column is only ever given text, and a column without a type takes everything as it is.
//! So a stored value is the converted value, and comparisons with other columns and
//! parameters happen without coercion for numbers.

use crate::model::catalogue::{Catalogue, Column, ColumnIndex, Index, Table, quote};

/// Column that holds the version of the transaction that wrote the row.
pub const ROW_VERSION: &str = "_0_version";

/// `CREATE TABLE` without indexes. Rows have an implicit rowid.
pub fn create_table(table: &Table) -> String {
    let mut sql = format!("CREATE TABLE {} (", quote(&table.name));
    for column in &table.columns {
        sql.push_str(&quote(&column.name));
        if holds_text(column) {
            sql.push_str(" TEXT");
        }
        sql.push_str(", ");
    }
    sql.push_str(&format!("{} TEXT)", quote(ROW_VERSION)));
    sql
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
            && index.columns.len() == table.row_key.len()
            && index.columns.iter().all(|(c, _)| table.row_key.contains(c))
    })
}

/// `CREATE INDEX` for one index. Only the row key is unique (rule 25): a second unique
/// index could refuse a row that upstream accepted, in the middle of a transaction.
pub fn create_index(table: &Table, index: &Index, unique: bool) -> String {
    let columns: Vec<String> = index
        .columns
        .iter()
        .map(|(c, descending)| {
            let name = quote(&table.columns[*c as usize].name);
            if *descending { name + " DESC" } else { name }
        })
        .collect();
    format!(
        "CREATE {}INDEX {} ON {} ({})",
        if unique { "UNIQUE " } else { "" },
        quote(&index.name),
        quote(&table.name),
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
            all.push((index.name.clone(), create_index(table, index, true)));
        }
        None if table.row_key.is_empty() => {}
        None => {
            let columns = table.row_key.iter().map(|c| (*c, false)).collect();
            let own = Index { name: format!("_kelvin.{}.key", table.name), unique: true, columns };
            all.push((own.name.clone(), create_index(table, &own, true)));
        }
    }
    for (at, index) in table.indexes.iter().enumerate() {
        if Some(at) != key {
            all.push((index.name.clone(), create_index(table, index, false)));
        }
    }
    all
}

/// A name for the rowid that no column takes; `None` if all are taken.
pub fn rowid_name(columns: &[Column]) -> Option<&'static str> {
    ["rowid", "_rowid_", "oid"]
        .into_iter()
        .find(|name| !columns.iter().any(|c| c.name.eq_ignore_ascii_case(name)))
}

/// `"a", "b", "c"`.
pub(super) fn column_list(table: &Table) -> String {
    let names: Vec<String> = table.columns.iter().map(|c| quote(&c.name)).collect();
    names.join(", ")
}

/// `"a" IS ?1 AND "b" IS ?2`. IS, because an infinite timestamp is a key value upstream
/// and NULL here; an index serves IS as it does `=`.
pub(super) fn matches(table: &Table, columns: impl Iterator<Item = ColumnIndex>) -> String {
    let terms: Vec<String> = columns
        .enumerate()
        .map(|(i, c)| format!("{} IS ?{}", quote(&table.columns[c as usize].name), i + 1))
        .collect();
    terms.join(" AND ")
}

/// Creates every table of the catalogue.
pub fn create_tables(catalogue: &Catalogue) -> Vec<String> {
    catalogue.tables().map(create_table).collect()
}
