//! What the replica holds: tables, columns, keys, indexes.
//!
//! Every identifier that comes from outside (a client's AST, a client schema, a
//! relation message) is resolved here before it reaches SQL text.
//! Follows `docs/spec/replication.md` §5 and `docs/spec/zql.md` §15.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

/// Type of a column as clients know it (`docs/spec/zql.md` §4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ZeroType {
    /// Text, UUIDs, enums, network addresses.
    String,
    /// Integers, floats, numerics, dates and times (milliseconds).
    Number,
    /// Stored as 0 or 1.
    Boolean,
    /// JSON text, arrays included.
    Json,
}

impl ZeroType {
    /// Name of the type in a client schema.
    pub fn name(self) -> &'static str {
        match self {
            ZeroType::String => "string",
            ZeroType::Number => "number",
            ZeroType::Boolean => "boolean",
            ZeroType::Json => "json",
        }
    }
}

/// Position of a table in [`Catalogue::tables`]; stable for one schema epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TableId(pub u16);

/// Position of a column in [`Table::columns`].
pub type ColumnIndex = u16;

/// One replicated column.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// Upstream name, which is also the name on the wire.
    pub name: String,
    /// Upstream type name without modifiers, `[]` once per dimension.
    pub upstream_type: String,
    /// OID of the upstream type.
    pub type_oid: u32,
    /// Upstream attribute number; identifies the column across renames.
    pub attnum: i16,
    /// `None`: not a type that clients can hold; replicated, never sent.
    pub zero_type: Option<ZeroType>,
    /// NOT NULL upstream.
    pub not_null: bool,
}

/// One index of the replica, as upstream declares it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Index {
    /// Name in the replica.
    pub name: String,
    /// Unique upstream. Only the row key is enforced as unique in the replica (rule 25).
    pub unique: bool,
    /// Columns in index order; true = descending.
    pub columns: Vec<(ColumnIndex, bool)>,
}

/// One replicated table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// Position in the catalogue.
    pub id: TableId,
    /// Name in the replica and on the wire: bare for schema `public`, else `schema.table`.
    pub name: String,
    /// Upstream schema.
    pub schema: String,
    /// Upstream table name.
    pub upstream_name: String,
    /// OID of the upstream relation.
    pub oid: u32,
    /// In attribute order.
    pub columns: Vec<Column>,
    /// Key by which replication finds rows, empty if the table has none (inserts only).
    pub row_key: Vec<ColumnIndex>,
    /// Unique keys of NOT NULL, visible columns, best first (fewest columns, then names).
    /// Empty: the table is not synced to clients.
    pub candidate_keys: Vec<Vec<ColumnIndex>>,
    /// Indexes of the replica.
    pub indexes: Vec<Index>,
}

impl Table {
    /// Finds a column by name.
    pub fn column(&self, name: &str) -> Option<ColumnIndex> {
        self.columns.iter().position(|c| c.name == name).map(|i| i as ColumnIndex)
    }

    /// Columns that clients may see, in order.
    pub fn visible_columns(&self) -> impl Iterator<Item = (ColumnIndex, &Column)> {
        self.columns
            .iter()
            .enumerate()
            .filter(|(_, c)| c.zero_type.is_some())
            .map(|(i, c)| (i as ColumnIndex, c))
    }

    /// Whether clients may ask for the table's rows.
    pub fn is_syncable(&self) -> bool {
        !self.candidate_keys.is_empty()
    }

    /// Whether some index starts with exactly these columns, in any order.
    pub fn has_index_on(&self, columns: &[ColumnIndex]) -> bool {
        self.indexes.iter().any(|index| {
            index.columns.len() >= columns.len()
                && index.columns[..columns.len()].iter().all(|(c, _)| columns.contains(c))
        })
    }
}

/// All replicated tables at one schema epoch.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Catalogue {
    /// Grows with every change of the schema.
    pub epoch: u64,
    /// Ordered by name.
    pub tables: Vec<Table>,
    #[serde(skip)]
    by_name: HashMap<String, TableId>,
}

impl Catalogue {
    /// Builds a catalogue; assigns table ids by position.
    pub fn new(epoch: u64, mut tables: Vec<Table>) -> Self {
        tables.sort_by(|a, b| a.name.cmp(&b.name));
        for (i, table) in tables.iter_mut().enumerate() {
            table.id = TableId(i as u16);
        }
        let by_name = tables.iter().map(|t| (t.name.clone(), t.id)).collect();
        Catalogue { epoch, tables, by_name }
    }

    /// Reads the form that [`Catalogue::to_json`] wrote.
    pub fn from_json(json: &str) -> Result<Self, serde_json::Error> {
        let raw: Catalogue = serde_json::from_str(json)?;
        Ok(Catalogue::new(raw.epoch, raw.tables))
    }

    /// The stored form.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Finds a table by its replica name.
    pub fn table(&self, name: &str) -> Option<&Table> {
        self.by_name.get(name).map(|id| &self.tables[id.0 as usize])
    }

    /// The table with this id.
    pub fn get(&self, id: TableId) -> &Table {
        &self.tables[id.0 as usize]
    }
}

/// Quotes an identifier for SQLite and Postgres alike.
pub fn quote(identifier: &str) -> String {
    let mut out = String::with_capacity(identifier.len() + 2);
    out.push('"');
    for c in identifier.chars() {
        if c == '"' {
            out.push('"');
        }
        out.push(c);
    }
    out.push('"');
    out
}
