//! One replicated table: its columns, keys and indexes, and what becomes of them when upstream changes it.
//!
//! A column has one position for as long as the lineage lasts: a new one is added at the end, and one that is
//! dropped leaves its place empty. So whatever names a column by its position, or a stored column by its stored
//! name, goes on meaning the same when others come, go, or are renamed (`docs/spec/schema-changes.md` S1, S2).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::ids::TableId;
use super::value::Value;

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

/// Position of a column in [`Table::columns`].
pub type ColumnIndex = u16;

/// Most columns of a stored table, those included that are gone: SQLite takes no more.
const MAX_COLUMNS: usize = 1_999;

/// Names that no stored column gets: of the row's version, and those by which SQLite knows a row.
const RESERVED: [&str; 4] = ["_0_version", "rowid", "_rowid_", "oid"];

/// One replicated column.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Column {
    /// Upstream name, which is also the name on the wire.
    pub name: String,
    /// Name in the file, which never changes. Empty in what was read from upstream, and in files of before there
    /// were such names: then it is the name.
    #[serde(default)]
    pub stored_name: String,
    /// Upstream type name without modifiers, `[]` once per dimension.
    pub upstream_type: String,
    /// What separates the elements of its arrays, where that is no comma.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delimiter: Option<u8>,
    /// OID of the upstream type.
    pub type_oid: u32,
    /// Upstream attribute number; identifies the column across renames.
    pub attnum: i16,
    /// `None`: not a type that clients can hold; replicated, never sent.
    pub zero_type: Option<ZeroType>,
    /// NOT NULL upstream.
    pub not_null: bool,
    /// Dropped upstream, or not published any more: nothing is stored there, and nobody sees it.
    #[serde(default)]
    pub gone: bool,
    /// What rows have in it that were there before it, and were not written since.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub missing: Value,
    /// Transaction that changed the column's definition last: together with [`Table::file`] it tells that stored
    /// values were rewritten. Zero: not known.
    #[serde(default)]
    pub defined_by: u32,
    /// Labels of its enum type by their OIDs: renaming one changes stored values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<u32, String>,
}

/// Attribute number of the column that Kelvin adds where stored keys do not tell all rows apart. No column of
/// upstream's has it.
const EXACT_KEY: i16 = i16::MIN;

impl Column {
    /// The column that keeps of each row's key what its stored values lose. Nobody but the replica knows of it:
    /// no column of upstream's that is replicated is called so.
    pub fn exact_key() -> Column {
        let (name, upstream_type) = ("(exact key)".to_owned(), "text".to_owned());
        Column { name, upstream_type, type_oid: 25, attnum: EXACT_KEY, not_null: true, ..Column::default() }
    }

    /// Whether it is that one.
    pub fn is_exact_key(&self) -> bool {
        self.attnum == EXACT_KEY
    }
}

/// One index of the replica, as upstream declares it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Index {
    /// Upstream name.
    pub name: String,
    /// Name in the file; see [`Column::stored_name`].
    #[serde(default)]
    pub stored_name: String,
    /// Unique upstream. Only the row key is enforced as unique in the replica (rule 25).
    pub unique: bool,
    /// Columns in index order; true = descending.
    pub columns: Vec<(ColumnIndex, bool)>,
}

/// A partition of a table: by these it is seen that rows came or went with it, or in it, that were not sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partition {
    /// File of its rows; zero, if it has partitions of its own.
    pub file: u32,
    /// Transaction that made it a partition.
    pub attached_by: u32,
}

/// What a copy is for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Refill {
    /// The table that is shown until then.
    pub table: TableId,
    /// Why its rows could not be kept, for the log.
    pub because: String,
    /// Clients may hold other values than the table that is shown: each row counts as changed.
    pub all_new: bool,
}

/// One replicated table.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Table {
    /// What everything here names it by; given by the catalogue.
    pub id: TableId,
    /// Name on the wire: bare for schema `public`, else `schema.table`.
    pub name: String,
    /// Name in the file, which never changes; see [`Column::stored_name`].
    #[serde(default)]
    pub stored_name: String,
    /// Epoch of the catalogue in which it became what it is: another one where clients may see something else.
    #[serde(default)]
    pub epoch: u64,
    /// Upstream schema.
    pub schema: String,
    /// Upstream table name.
    pub upstream_name: String,
    /// OID of the upstream relation: what the table is, whatever it is called.
    pub oid: u32,
    /// In the order in which they came.
    pub columns: Vec<Column>,
    /// Names that columns do not have any more, each with the column that had it last.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub former_names: BTreeMap<String, ColumnIndex>,
    /// Key by which replication finds rows, empty if the table has none (inserts only). Where stored values do not tell
    /// all keys apart its last column is [`Column::exact_key`].
    pub row_key: Vec<ColumnIndex>,
    /// Unique keys of NOT NULL, visible columns, best first (fewest columns, then names).
    /// Empty: the table is not synced to clients.
    pub candidate_keys: Vec<Vec<ColumnIndex>>,
    /// Indexes of the replica.
    pub indexes: Vec<Index>,
    /// Condition of the rows that are published; `None`: all.
    #[serde(default)]
    pub row_filter: Option<String>,
    /// File of its rows upstream: another one after the table was rewritten. Zero: not known, or it has several.
    #[serde(default)]
    pub file: u32,
    /// Attribute numbers that upstream has given, to columns that are not published as well. Zero: not known.
    #[serde(default)]
    pub attributes: i16,
    /// Of a partitioned table: its partitions of all levels, by OID.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub partitions: BTreeMap<u32, Partition>,
    /// Of a table that is being filled: what it takes the place of when it is. `None`: it is a new one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refill: Option<Refill>,
    /// Id under which its rows were copied, if they were copied anew since the table came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filled_as: Option<TableId>,
}

impl Table {
    /// Finds a column by name.
    pub fn column(&self, name: &str) -> Option<ColumnIndex> {
        self.columns.iter().position(|c| !c.gone && c.name == name).map(|i| i as ColumnIndex)
    }

    /// Columns that are not gone.
    pub fn columns_there(&self) -> Vec<ColumnIndex> {
        (0..self.columns.len() as ColumnIndex).filter(|i| !self.columns[usize::from(*i)].gone).collect()
    }

    /// Those of them that upstream has, in its order.
    pub fn published_columns(&self) -> Vec<ColumnIndex> {
        let mut there = self.columns_there();
        there.retain(|i| !self.columns[usize::from(*i)].is_exact_key());
        there.sort_by_key(|i| self.columns[usize::from(*i)].attnum);
        there
    }

    /// The row key as upstream has it.
    pub fn upstream_key(&self) -> &[ColumnIndex] {
        match self.exact_key() {
            Some(_) => &self.row_key[..self.row_key.len() - 1],
            None => &self.row_key,
        }
    }

    /// The last column of the row key, where that is the one that Kelvin adds ([`Column::exact_key`]).
    pub fn exact_key(&self) -> Option<ColumnIndex> {
        self.row_key.last().copied().filter(|at| self.columns[usize::from(*at)].is_exact_key())
    }

    /// Columns that clients may see, in order.
    pub fn visible_columns(&self) -> impl Iterator<Item = (ColumnIndex, &Column)> {
        self.columns
            .iter()
            .enumerate()
            .filter(|(_, c)| !c.gone && c.zero_type.is_some())
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

    /// Whether all of it, as far as it is stored and named, may be what this lineage goes on with: no more columns
    /// than can be stored, and none with a name by which clients know another.
    pub fn fits(&self) -> bool {
        self.columns.len() <= MAX_COLUMNS
            && !self.columns.iter().any(|c| !c.gone && self.former_names.contains_key(&c.name))
    }

    /// What names its own indexes in the file: no other copy of its rows has the same.
    pub fn copy_name(&self) -> String {
        match (self.filled_as, &self.refill) {
            (Some(id), _) => format!("#{}", id.0),
            (None, Some(_)) => format!("#{}", self.id.0),
            (None, None) => self.stored_name.clone(),
        }
    }

    /// Gives every column that has none its name in the file: its own, if none that was there before, in any
    /// case, has it.
    pub(super) fn give_stored_names(&mut self) {
        let mut taken: Vec<String> = RESERVED.map(str::to_owned).into();
        taken.extend(self.columns.iter().map(|c| c.stored_name.to_ascii_lowercase()));
        for column in self.columns.iter_mut().filter(|c| c.stored_name.is_empty()) {
            let mut name = column.name.clone();
            while taken.contains(&name.to_ascii_lowercase()) {
                name.push('_');
            }
            taken.push(name.to_ascii_lowercase());
            column.stored_name = name;
        }
    }

    /// The same table when upstream says that it is `now`, whose columns are counted as upstream does. A column
    /// is known by its attribute number, and keeps its place; `epoch`: of the catalogue that it is for.
    pub(super) fn followed_by(&self, mut now: Table, epoch: u64) -> Table {
        let mut columns = self.columns.clone();
        for column in &mut columns {
            (column.gone, column.zero_type) = (true, None);
        }
        let mut places = Vec::with_capacity(now.columns.len());
        for column in std::mem::take(&mut now.columns) {
            let known = self.columns.iter().position(|old| !old.gone && old.attnum == column.attnum);
            match known {
                Some(at) => {
                    let (stored_name, missing) =
                        (self.columns[at].stored_name.clone(), self.columns[at].missing.clone());
                    columns[at] = Column { stored_name, missing, ..column };
                    places.push(at as ColumnIndex);
                }
                None => {
                    places.push(columns.len() as ColumnIndex);
                    columns.push(column);
                }
            }
        }
        let place = |column: &ColumnIndex| places[usize::from(*column)];
        let key = |key: &Vec<ColumnIndex>| key.iter().map(place).collect();
        let mut next = Table {
            id: self.id,
            stored_name: self.stored_name.clone(),
            epoch: self.epoch,
            former_names: self.former_names.clone(),
            row_key: key(&now.row_key),
            candidate_keys: now.candidate_keys.iter().map(key).collect(),
            indexes: self.indexes_at(&now.indexes, place),
            refill: self.refill.clone(),
            filled_as: self.filled_as,
            columns,
            ..now
        };
        next.give_stored_names();
        next.remember_names_of(self);
        if self.looks_different(&next) {
            next.epoch = epoch;
        }
        next
    }

    /// Indexes whose columns are at these places. One that differs from one of before in its name only is that one in
    /// the file: it need not be built again.
    pub(super) fn indexes_at(
        &self,
        indexes: &[Index],
        place: impl Fn(&ColumnIndex) -> ColumnIndex,
    ) -> Vec<Index> {
        let mut free: Vec<&Index> = self.indexes.iter().collect();
        let mut placed: Vec<Index> = Vec::with_capacity(indexes.len());
        for index in indexes {
            let columns = index.columns.iter().map(|(c, descending)| (place(c), *descending)).collect();
            placed.push(Index { stored_name: String::new(), columns, ..index.clone() });
        }
        for same_name in [true, false] {
            for index in placed.iter_mut().filter(|index| index.stored_name.is_empty()) {
                let is_it = |old: &&Index| {
                    old.unique == index.unique
                        && old.columns == index.columns
                        && (!same_name || old.name == index.name)
                };
                if let Some(at) = free.iter().position(is_it) {
                    index.stored_name.clone_from(&free.swap_remove(at).stored_name);
                }
            }
        }
        placed
    }

    /// Whether the rows that are being copied of it are those of what it has become.
    pub(super) fn is_filled_alike(&self, now: &Table) -> bool {
        let stored = |table: &Table| {
            let column = |c: &Column| (c.name.clone(), c.type_oid, c.gone, c.labels.clone());
            (
                table.columns.iter().map(column).collect::<Vec<_>>(),
                table.row_key.clone(),
                table.row_filter.clone(),
            )
        };
        let is_rewritten = |(was, is): (&Column, &Column)| was.defined_by != is.defined_by;
        let rewritten = self.file != now.file && self.columns.iter().zip(&now.columns).any(is_rewritten);
        // Where columns came and went, rows on the way cannot all be told.
        stored(self) == stored(now) && !rewritten && self.attributes == now.attributes
    }

    pub(super) fn remember_names_of(&mut self, before: &Table) {
        for (at, old) in before.columns.iter().enumerate().filter(|(_, old)| !old.gone) {
            let now = &self.columns[at];
            if now.gone || now.name != old.name {
                self.former_names.insert(old.name.clone(), at as ColumnIndex);
            }
        }
        // One that has its old name again is no other column.
        for (at, column) in self.columns.iter().enumerate().filter(|(_, column)| !column.gone) {
            if self.former_names.get(&column.name) == Some(&(at as ColumnIndex)) {
                self.former_names.remove(&column.name);
            }
        }
    }

    /// Whether whoever asks for rows of it may see something else than before.
    pub(super) fn looks_different(&self, other: &Table) -> bool {
        let seen = |table: &Table| {
            let column = |c: &Column| (c.name.clone(), c.zero_type, c.gone);
            (
                table.name.clone(),
                table.columns.iter().map(column).collect::<Vec<_>>(),
                table.candidate_keys.clone(),
            )
        };
        seen(self) != seen(other)
    }
}
