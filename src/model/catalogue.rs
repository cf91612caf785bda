//! What the replica holds: tables, columns, keys, indexes.
//!
//! Every identifier that comes from outside (a client's AST, a client schema, a
//! relation message) is resolved here before it reaches SQL text.
//! Follows `docs/spec/replication.md` §5 and `docs/spec/zql.md` §15.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use super::ids::TableId;
use crate::model::table_map::TableMap;

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

/// Most tables that a lineage can have, those included that are gone: so many ids there are. Nobody publishes
/// as many at a time, and a lineage that has used them all is replaced by a new initial sync.
pub const MAX_TABLES: usize = u16::MAX as usize + 1;

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
    /// What everything here names it by; given by the catalogue.
    pub id: TableId,
    /// Name in the replica and on the wire: bare for schema `public`, else `schema.table`.
    pub name: String,
    /// Upstream schema.
    pub schema: String,
    /// Upstream table name.
    pub upstream_name: String,
    /// OID of the upstream relation: what the table is, whatever it is called.
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
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Catalogue {
    /// Grows with every change of the schema.
    pub epoch: u64,
    /// By id.
    slots: TableMap<Table>,
    /// In the order in which they are listed.
    by_name: BTreeMap<String, TableId>,
    /// Ids that were given in this lineage: the next table gets this one.
    given: usize,
}

/// What is stored with a replica.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Stored<T> {
    epoch: u64,
    /// Ids that were given. Not there in what was stored when ids were not kept: they were positions by name.
    #[serde(default)]
    ids_given: Option<usize>,
    tables: T,
}

impl Catalogue {
    /// The catalogue of a new lineage: ids are given in the order of the names. Of more than
    /// [`MAX_TABLES`] those that are too many are left out; whoever reads them from upstream refuses that.
    pub fn new(epoch: u64, mut tables: Vec<Table>) -> Self {
        tables.sort_by(|a, b| a.name.cmp(&b.name));
        tables.truncate(MAX_TABLES);
        let given = tables.len();
        let ids = (0..=u16::MAX).map(TableId);
        Catalogue::of(epoch, given, ids.zip(tables).map(|(id, table)| Table { id, ..table }))
    }

    fn of(epoch: u64, given: usize, tables: impl Iterator<Item = Table>) -> Self {
        let mut catalogue = Catalogue { epoch, given, ..Catalogue::default() };
        for table in tables {
            catalogue.by_name.insert(table.name.clone(), table.id);
            catalogue.slots.insert(table.id, table);
        }
        catalogue
    }

    /// What this catalogue becomes, in the same lineage, when these are the tables: each one that it knows by its
    /// OID keeps its id, and any other gets one that was never given. `None`: there are no more ids.
    pub fn followed_by(&self, epoch: u64, mut tables: Vec<Table>) -> Option<Catalogue> {
        let known: HashMap<u32, TableId> = self.tables().map(|table| (table.oid, table.id)).collect();
        let mut given = self.given;
        tables.sort_by(|a, b| a.name.cmp(&b.name));
        for table in &mut tables {
            table.id = match known.get(&table.oid) {
                Some(id) => *id,
                None => {
                    given += 1;
                    TableId(u16::try_from(given - 1).ok()?)
                }
            };
        }
        Some(Catalogue::of(epoch, given, tables.into_iter()))
    }

    /// Reads the form that [`Catalogue::to_json`] wrote, or the one before it.
    pub fn from_json(json: &str) -> Result<Self, serde_json::Error> {
        let stored: Stored<Vec<Table>> = serde_json::from_str(json)?;
        let Some(given) = stored.ids_given else {
            return Ok(Catalogue::new(stored.epoch, stored.tables));
        };
        let count = stored.tables.len();
        let is_given = stored.tables.iter().all(|table| usize::from(table.id.0) < given);
        let catalogue = Catalogue::of(stored.epoch, given, stored.tables.into_iter());
        if !is_given || catalogue.by_name.len() != count || catalogue.slots.iter().count() != count {
            return Err(serde::de::Error::custom("ids of tables that were not given once"));
        }
        Ok(catalogue)
    }

    /// The stored form.
    pub fn to_json(&self) -> String {
        let tables: Vec<&Table> = self.tables().collect();
        let stored = Stored { epoch: self.epoch, ids_given: Some(self.given), tables };
        serde_json::to_string(&stored).unwrap_or_default()
    }

    /// All tables, in the order of their names. The position of one says nothing about its id.
    pub fn tables(&self) -> impl ExactSizeIterator<Item = &Table> + Clone {
        self.by_name.values().map(|id| self.get(*id))
    }

    /// Finds a table by its replica name.
    pub fn table(&self, name: &str) -> Option<&Table> {
        self.by_name.get(name).map(|id| self.get(*id))
    }

    /// The table with this id, which is one of this catalogue's.
    pub fn get(&self, id: TableId) -> &Table {
        &self.slots[id]
    }

    /// The table with this id, if there is one.
    pub fn find(&self, id: TableId) -> Option<&Table> {
        self.slots.get(id)
    }

    /// Gives a table one more index.
    pub fn add_index(&mut self, id: TableId, index: Index) {
        if let Some(table) = self.slots.get_mut(id) {
            table.indexes.push(index);
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn table(oid: u32, name: &str) -> Table {
        let column = Column {
            name: "id".to_owned(),
            upstream_type: "text".to_owned(),
            type_oid: 25,
            attnum: 1,
            zero_type: Some(ZeroType::String),
            not_null: true,
        };
        Table {
            id: TableId(0),
            name: name.to_owned(),
            schema: "public".to_owned(),
            upstream_name: name.to_owned(),
            oid,
            columns: vec![column],
            row_key: vec![0],
            candidate_keys: vec![vec![0]],
            indexes: Vec::new(),
        }
    }

    /// Names and ids, in the order in which the tables are listed.
    fn ids(catalogue: &Catalogue) -> Vec<(&str, u16)> {
        catalogue.tables().map(|table| (table.name.as_str(), table.id.0)).collect()
    }

    fn of(tables: &[(u32, &str)]) -> Vec<Table> {
        tables.iter().map(|(oid, name)| table(*oid, name)).collect()
    }

    #[test]
    fn ids_stay_when_a_table_comes_and_another_goes() {
        let first = Catalogue::new(1, of(&[(30, "c"), (10, "a"), (20, "b")]));
        assert_eq!(ids(&first), [("a", 0), ("b", 1), ("c", 2)]);
        // One in front of all others, one gone, one with another name.
        let second = first.followed_by(2, of(&[(30, "z"), (40, "_"), (20, "b")])).unwrap();
        assert_eq!(ids(&second), [("_", 3), ("b", 1), ("z", 2)]);
        assert_eq!(second.epoch, 2);
        assert_eq!(second.find(TableId(0)), None);
        assert_eq!(second.get(TableId(2)).name, "z");
        assert_eq!(second.table("c"), None);
        // Another table of a name that was there; and one that comes back was gone.
        let third = second.followed_by(3, of(&[(50, "b"), (10, "a"), (30, "z")])).unwrap();
        assert_eq!(ids(&third), [("a", 4), ("b", 5), ("z", 2)]);
    }

    #[test]
    fn an_id_is_not_given_again_after_a_restart() {
        let first = Catalogue::new(1, of(&[(10, "a"), (20, "b")]));
        let second = first.followed_by(1, of(&[(10, "a")])).unwrap();
        let read = Catalogue::from_json(&second.to_json()).unwrap();
        assert_eq!(read, second);
        let third = read.followed_by(1, of(&[(10, "a"), (30, "b")])).unwrap();
        assert_eq!(ids(&third), [("a", 0), ("b", 2)]);
        let none = Catalogue::from_json(&read.followed_by(1, Vec::new()).unwrap().to_json()).unwrap();
        assert_eq!(ids(&none.followed_by(1, of(&[(10, "a")])).unwrap()), [("a", 2)]);
    }

    #[test]
    fn what_was_stored_without_ids_is_read_as_positions() {
        let catalogue = Catalogue::new(7, of(&[(10, "a"), (20, "b")]));
        let mut stored: serde_json::Value = serde_json::from_str(&catalogue.to_json()).unwrap();
        assert!(stored.as_object_mut().unwrap().remove("idsGiven").is_some());
        assert_eq!(Catalogue::from_json(&stored.to_string()).unwrap(), catalogue);
    }

    #[test]
    fn ids_that_contradict_each_other_are_not_read() {
        let good = Catalogue::new(1, of(&[(10, "a"), (20, "b")])).to_json();
        for (from, to) in [
            (r#""id":1"#, r#""id":0"#),
            (r#""idsGiven":2"#, r#""idsGiven":1"#),
            (r#""name":"b""#, r#""name":"a""#),
        ] {
            let bad = good.replace(from, to);
            assert_ne!(bad, good);
            assert!(Catalogue::from_json(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_lineage_that_has_no_more_ids_says_so() {
        let full = Catalogue { given: MAX_TABLES - 1, ..Catalogue::default() };
        let last = full.followed_by(1, of(&[(10, "a")])).unwrap();
        assert_eq!(ids(&last), [("a", u16::MAX)]);
        assert_eq!(last.followed_by(1, of(&[(10, "a"), (20, "b")])), None);
        assert!(last.followed_by(2, of(&[(10, "a")])).is_some());
    }
}
