//! Something for each table, found by the table's id.

use std::ops::Index;

use crate::model::ids::TableId;

/// Ids are given from zero on, so this is a list with gaps where tables are gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableMap<T> {
    slots: Vec<Option<T>>,
}

impl<T> Default for TableMap<T> {
    fn default() -> Self {
        TableMap { slots: Vec::new() }
    }
}

impl<T> TableMap<T> {
    /// What is there for a table.
    pub fn get(&self, id: TableId) -> Option<&T> {
        self.slots.get(usize::from(id.0))?.as_ref()
    }

    /// The same, to be changed.
    pub fn get_mut(&mut self, id: TableId) -> Option<&mut T> {
        self.slots.get_mut(usize::from(id.0))?.as_mut()
    }

    /// The place of a table, whether or not something is there.
    pub fn slot(&mut self, id: TableId) -> &mut Option<T> {
        let at = usize::from(id.0);
        if at >= self.slots.len() {
            self.slots.resize_with(at + 1, || None);
        }
        &mut self.slots[at]
    }

    /// Puts something there.
    pub fn insert(&mut self, id: TableId, value: T) {
        *self.slot(id) = Some(value);
    }

    /// All that is there, in the order of the ids.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.slots.iter().flatten()
    }
}

impl<T> FromIterator<(TableId, T)> for TableMap<T> {
    fn from_iter<I: IntoIterator<Item = (TableId, T)>>(entries: I) -> Self {
        let mut map = TableMap::default();
        entries.into_iter().for_each(|(id, value)| map.insert(id, value));
        map
    }
}

impl<T> Index<TableId> for TableMap<T> {
    type Output = T;

    fn index(&self, id: TableId) -> &T {
        // The caller has the id from the same catalogue.
        self.get(id).expect("a table of this catalogue")
    }
}
