//! What the replica holds: tables, columns, keys, indexes.
//!
//! Every identifier that comes from outside (a client's AST, a client schema, a
//! relation message) is resolved here before it reaches SQL text.
//! Follows `docs/spec/replication.md` §5 and `docs/spec/zql.md` §15.

use std::collections::{BTreeMap, HashSet};

use serde::{Deserialize, Serialize};

use super::ids::TableId;
use crate::model::table_map::TableMap;

pub use super::table::{Column, ColumnIndex, Index, Partition, Table, ZeroType};

/// Most tables that a lineage can have, those included that are gone: so many ids there are. Nobody publishes
/// as many at a time, and a lineage that has used them all is replaced by a new initial sync.
pub const MAX_TABLES: usize = u16::MAX as usize + 1;

/// All replicated tables at one schema epoch.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Catalogue {
    /// Grows with every change of the schema.
    pub epoch: u64,
    /// By id.
    pub(super) slots: TableMap<Table>,
    /// In the order in which they are listed.
    pub(super) by_name: BTreeMap<String, TableId>,
    /// Ids that were given in this lineage: the next table gets this one.
    pub(super) given: usize,
    /// Names that tables do not have any more, each with the table that had it last.
    pub(super) former_names: BTreeMap<String, TableId>,
    /// Names in the file of tables that are gone, and are to be removed from it.
    pub(super) dropped: Vec<String>,
    /// Tables whose rows are still being copied: nobody is shown them.
    pub(super) filling: TableMap<Table>,
    /// Tables that are gone, for whoever still names their rows. Not stored.
    pub(super) gone: TableMap<Table>,
}

/// What is stored with a replica.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Stored<T> {
    epoch: u64,
    /// Ids that were given. Not there in what was stored when ids were not kept: they were positions by name.
    #[serde(default)]
    ids_given: Option<usize>,
    #[serde(default)]
    former_names: BTreeMap<String, TableId>,
    #[serde(default)]
    dropped: Vec<String>,
    #[serde(default = "Vec::new")]
    filling: Vec<Table>,
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
        let tables = ids.zip(tables).map(|(id, table)| Table { id, epoch, ..table });
        Catalogue::default().with(epoch, given, tables)
    }

    /// One that has nothing but this table, with its id and its names.
    pub fn of_one(table: &Table) -> Self {
        let mut one = Catalogue { epoch: table.epoch, ..Catalogue::default() };
        one.by_name.insert(table.name.clone(), table.id);
        one.slots.insert(table.id, table.clone());
        one
    }

    pub(super) fn with(mut self, epoch: u64, given: usize, tables: impl IntoIterator<Item = Table>) -> Self {
        (self.epoch, self.given) = (epoch, given);
        for table in tables {
            self.by_name.insert(table.name.clone(), table.id);
            self.slots.insert(table.id, table);
        }
        self.give_stored_names();
        self
    }

    /// Whether this can be what a lineage goes on with: a name that clients know means what it meant.
    pub fn fits(&self) -> bool {
        self.all().all(|table| table.fits() && !self.former_names.contains_key(&table.name))
    }

    /// Gives what has none its name in the file, where tables and indexes share their names, in any case.
    fn give_stored_names(&mut self) {
        let stored = |table: &Table| {
            let indexes = table.indexes.iter().map(|index| index.stored_name.clone());
            indexes.chain([table.stored_name.clone()]).collect::<Vec<_>>()
        };
        let mut taken: HashSet<String> = self.dropped.iter().cloned().collect();
        taken.extend(self.all().flat_map(stored));
        taken = taken.into_iter().map(|name| name.to_ascii_lowercase()).collect();
        let mut ids: Vec<TableId> = self.by_name.values().copied().collect();
        ids.extend(self.filling.iter().map(|table| table.id));
        for id in &ids {
            let Some(table) = self.slots.get_mut(*id).or(self.filling.get_mut(*id)) else { continue };
            give_free_name(&table.name, &mut table.stored_name, &mut taken);
            table.give_stored_names();
        }
        for id in &ids {
            let table = self.slots.get_mut(*id).or(self.filling.get_mut(*id));
            let indexes = table.into_iter().flat_map(|table| &mut table.indexes);
            indexes.for_each(|index| give_free_name(&index.name, &mut index.stored_name, &mut taken));
        }
    }

    /// Reads the form that [`Catalogue::to_json`] wrote, or the ones before it.
    pub fn from_json(json: &str) -> Result<Self, serde_json::Error> {
        let mut stored: Stored<Vec<Table>> = serde_json::from_str(json)?;
        // Of before there were names of its own in the file: all had those of upstream.
        for table in stored.tables.iter_mut().filter(|table| table.stored_name.is_empty()) {
            table.stored_name.clone_from(&table.name);
            table.columns.iter_mut().for_each(|column| column.stored_name.clone_from(&column.name));
            table.indexes.iter_mut().for_each(|index| index.stored_name.clone_from(&index.name));
        }
        let Some(given) = stored.ids_given else {
            return Ok(Catalogue::new(stored.epoch, stored.tables));
        };
        let count = stored.tables.len();
        let is_given = stored.tables.iter().all(|table| usize::from(table.id.0) < given);
        let filling = stored.filling.into_iter().map(|table| (table.id, table)).collect();
        let empty = Catalogue {
            former_names: stored.former_names,
            dropped: stored.dropped,
            filling,
            ..Catalogue::default()
        };
        let catalogue = empty.with(stored.epoch, given, stored.tables);
        if !is_given || catalogue.by_name.len() != count || catalogue.slots.iter().count() != count {
            return Err(serde::de::Error::custom("ids of tables that were not given once"));
        }
        Ok(catalogue)
    }

    /// The stored form.
    pub fn to_json(&self) -> String {
        let tables: Vec<&Table> = self.tables().collect();
        let stored = Stored {
            epoch: self.epoch,
            ids_given: Some(self.given),
            former_names: self.former_names.clone(),
            dropped: self.dropped.clone(),
            filling: self.filling.iter().cloned().collect(),
            tables,
        };
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

    /// The table with this id, which is one of this catalogue's, or was one of those before it.
    pub fn get(&self, id: TableId) -> &Table {
        // The caller has the id from one of them.
        self.slots.get(id).or(self.gone.get(id)).expect("a table of this catalogue")
    }

    /// Remembers the tables that another catalogue has or remembers, and that are gone from this one.
    pub fn remember_gone(&mut self, before: &Catalogue) {
        for table in before.gone.iter().chain(before.slots.iter()) {
            if self.slots.get(table.id).is_none() {
                self.gone.insert(table.id, table.clone());
            }
        }
    }

    /// The table with this id, if there is one.
    pub fn find(&self, id: TableId) -> Option<&Table> {
        self.slots.get(id)
    }

    /// Whether nothing but the epoch is different.
    pub fn says_the_same_as(&self, other: &Catalogue) -> bool {
        (&self.slots, self.given) == (&other.slots, other.given)
            && (&self.former_names, &self.dropped) == (&other.former_names, &other.dropped)
            && self.filling.iter().eq(other.filling.iter())
    }

    /// Tables in the file that are no part of it any more.
    pub fn dropped(&self) -> &[String] {
        &self.dropped
    }

    /// One of them is not in the file any more.
    pub fn forget_dropped(&mut self, stored_name: &str) {
        self.dropped.retain(|name| name != stored_name);
    }

    /// Tables that are being filled.
    pub fn filling(&self) -> impl Iterator<Item = &Table> {
        self.filling.iter()
    }

    /// Whether a table is being filled.
    pub fn is_filling(&self, id: TableId) -> bool {
        self.filling.get(id).is_some()
    }

    /// All tables, those included that are being filled.
    pub fn all(&self) -> impl Iterator<Item = &Table> {
        self.tables().chain(self.filling.iter())
    }

    /// The table with this id, also if it is being filled.
    pub fn find_any(&self, id: TableId) -> Option<&Table> {
        self.find(id).or(self.filling.get(id))
    }

    /// Gives a table one more index.
    pub fn add_index(&mut self, id: TableId, index: Index) {
        if let Some(table) = self.slots.get_mut(id) {
            table.indexes.push(index);
        }
    }
}

/// Lengthens a name until nothing else in the file has it, if it has not been given yet.
fn give_free_name(name: &str, stored_name: &mut String, taken: &mut HashSet<String>) {
    if !stored_name.is_empty() {
        return;
    }
    stored_name.push_str(name);
    while !taken.insert(stored_name.to_ascii_lowercase()) {
        stored_name.push('_');
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
            ..Column::default()
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
            ..Table::default()
        }
    }

    /// Names and ids, in the order in which the tables are listed.
    fn ids(catalogue: &Catalogue) -> Vec<(&str, u16)> {
        catalogue.tables().map(|table| (table.name.as_str(), table.id.0)).collect()
    }

    /// What a catalogue becomes when what has come has been filled.
    fn filled(before: &Catalogue, epoch: u64, tables: Vec<Table>) -> Option<Catalogue> {
        let next = before.followed_by(epoch, tables, &KEPT)?;
        let filling: Vec<TableId> = next.filling().map(|table| table.id).collect();
        Some(filling.into_iter().fold(next, |next, id| next.with_filled(id)))
    }

    /// Rows of tables can always be kept.
    const KEPT: fn(&Table, &Table) -> Option<String> = |_, _| None;

    fn of(tables: &[(u32, &str)]) -> Vec<Table> {
        tables.iter().map(|(oid, name)| table(*oid, name)).collect()
    }

    #[test]
    fn ids_stay_when_a_table_comes_and_another_goes() {
        let first = Catalogue::new(1, of(&[(30, "c"), (10, "a"), (20, "b")]));
        assert_eq!(ids(&first), [("a", 0), ("b", 1), ("c", 2)]);
        // One in front of all others, one gone, one with another name.
        let second = filled(&first, 2, of(&[(30, "z"), (40, "_"), (20, "b")])).unwrap();
        assert_eq!(ids(&second), [("_", 3), ("b", 1), ("z", 2)]);
        assert_eq!(second.epoch, 2);
        assert_eq!(second.find(TableId(0)), None);
        assert_eq!(second.get(TableId(2)).name, "z");
        assert_eq!(second.table("c"), None);
        // Another table of a name that was there is what clients know by it; and one that comes back was gone.
        let third = filled(&second, 3, of(&[(50, "b"), (10, "a"), (30, "z")])).unwrap();
        assert_eq!(ids(&third), [("a", 4), ("b", 1), ("z", 2)]);
    }

    #[test]
    fn an_id_is_not_given_again_after_a_restart() {
        let first = Catalogue::new(1, of(&[(10, "a"), (20, "b")]));
        let second = filled(&first, 1, of(&[(10, "a")])).unwrap();
        let read = Catalogue::from_json(&second.to_json()).unwrap();
        assert_eq!(read, second);
        let third = filled(&read, 1, of(&[(10, "a"), (30, "b")])).unwrap();
        assert_eq!(ids(&third), [("a", 0), ("b", 2)]);
        let none = Catalogue::from_json(&read.followed_by(1, Vec::new(), &KEPT).unwrap().to_json()).unwrap();
        assert_eq!(ids(&filled(&none, 1, of(&[(10, "a")])).unwrap()), [("a", 2)]);
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
        let last = filled(&full, 1, of(&[(10, "a")])).unwrap();
        assert_eq!(ids(&last), [("a", u16::MAX)]);
        assert_eq!(filled(&last, 1, of(&[(10, "a"), (20, "b")])), None);
        assert!(filled(&last, 2, of(&[(10, "a")])).is_some());
    }

    #[test]
    fn a_table_that_comes_is_shown_when_it_is_filled_and_begun_anew_when_it_changes() {
        let first = Catalogue::new(1, of(&[(10, "a")]));
        let second = first.followed_by(2, of(&[(10, "a"), (20, "b")]), &KEPT).unwrap();
        assert_eq!((ids(&second), second.filling().count()), (vec![("a", 0)], 1));
        assert_eq!(Catalogue::from_json(&second.to_json()).unwrap(), second);
        // Nothing of it has changed.
        let same = second.followed_by(3, of(&[(10, "a"), (20, "b")]), &KEPT).unwrap();
        assert_eq!(same.filling().map(|table| table.id).collect::<Vec<_>>(), [TableId(1)]);
        assert_eq!(ids(&same.with_filled(TableId(1))), [("a", 0), ("b", 1)]);
        let mut changed = of(&[(10, "a"), (20, "b")]);
        changed[1].columns[0].type_oid = 23;
        let third = second.followed_by(3, changed, &KEPT).unwrap();
        assert_eq!(third.filling().map(|table| table.id).collect::<Vec<_>>(), [TableId(2)]);
        assert_eq!(third.dropped(), ["b"]);
        assert_eq!(third.filling().next().unwrap().stored_name, "b_", "the other is still in the file");
        let gone = third.followed_by(4, of(&[(10, "a")]), &KEPT).unwrap();
        assert_eq!((gone.filling().count(), gone.dropped().len()), (0, 2));
    }
}
