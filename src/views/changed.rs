//! The rows that a batch changed, by the keys that clients know them by (rule 3).
//!
//! A client key need not be the replica's row key: two rows may swap theirs. Seen by client
//! key, that is two rows that changed their contents.

use hashbrown::HashTable;

use super::entries::IdentityId;
use super::rows::{Identity, Rows};
use super::view::identity_bytes;
use crate::model::batch::{Batch, Change, TableBatch};
use crate::model::commit::Row;
use crate::model::key;
use crate::testing::faults::{self, Fault};

/// One row before and after the batch.
#[derive(Debug, Clone)]
pub struct ChangedRow<'c> {
    /// Bytes of its client key.
    pub identity: Box<[u8]>,
    /// As it was; `None`: there was none.
    pub old: Option<&'c Row>,
    /// As it is.
    pub new: Option<&'c Row>,
}

/// Changed rows of one identity.
#[derive(Default)]
pub struct ChangedRows<'c> {
    rows: Vec<ChangedRow<'c>>,
    by_identity: HashTable<u32>,
    /// For each change of the batch: where its old and its new row are.
    positions: Vec<[Option<u32>; 2]>,
}

impl<'c> ChangedRows<'c> {
    fn new(changes: &[Change<'c>], identity: &Identity) -> ChangedRows<'c> {
        let mut out = ChangedRows::default();
        for change in changes {
            let apart = faults::is_on(Fault::Identity);
            let from = if apart { out.rows.len() as u32 } else { 0 };
            let mut place = |row| Some((out.entry(identity_bytes(&identity.key, row)?, from), row));
            let (old, new) = (change.old.and_then(&mut place), change.new.and_then(&mut place));
            if let Some((at, row)) = old {
                out.rows[at as usize].old = Some(row);
            }
            if let Some((at, row)) = new {
                out.rows[at as usize].new = Some(row);
            }
            out.positions.push([old.map(|(at, _)| at), new.map(|(at, _)| at)]);
        }
        out
    }

    /// The row with a client key; made, if there is none from this place on.
    fn entry(&mut self, identity: Vec<u8>, from: u32) -> u32 {
        let hash = key::hash(&identity);
        let rows = &self.rows;
        let is_it = |at: &u32| *at >= from && *rows[*at as usize].identity == *identity;
        if let Some(found) = self.by_identity.find(hash, is_it) {
            return *found;
        }
        let at = self.rows.len() as u32;
        self.rows.push(ChangedRow { identity: identity.into(), old: None, new: None });
        let rows = &self.rows;
        self.by_identity.insert_unique(hash, at, |at| key::hash(&rows[*at as usize].identity));
        at
    }

    /// A row by its place.
    pub fn get(&self, at: u32) -> &ChangedRow<'c> {
        &self.rows[at as usize]
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &ChangedRow<'c>> {
        self.rows.iter()
    }

    /// Where the row with a client key is, if it changed.
    pub fn find(&self, identity: &[u8]) -> Option<u32> {
        let found =
            self.by_identity.find(key::hash(identity), |at| *self.rows[*at as usize].identity == *identity);
        found.copied()
    }

    /// Rows that a change of the batch is about: one, or two if it changed the client key.
    pub fn of_change(&self, change: usize) -> impl Iterator<Item = u32> + use<> {
        let [old, new] = self.positions[change];
        old.into_iter().chain(new.filter(|new| old != Some(*new)))
    }
}

/// Changed rows of all identities.
pub struct Changed<'c> {
    by_identity: Vec<ChangedRows<'c>>,
}

impl<'c> Changed<'c> {
    /// Of a batch, for the identities that the views of a core use.
    pub fn new(batch: &Batch<'c>, rows: &Rows) -> Changed<'c> {
        let of = |identity: &Identity| match batch.tables.get(&identity.table) {
            Some(TableBatch::Rows(changes)) => ChangedRows::new(changes, identity),
            _ => ChangedRows::default(),
        };
        Changed { by_identity: rows.identities().map(of).collect() }
    }

    /// Of one identity.
    pub fn of(&self, identity: IdentityId) -> &ChangedRows<'c> {
        &self.by_identity[identity.0 as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ids::TableId;
    use crate::model::value::Value;

    #[test]
    fn rows_that_swap_their_client_keys_have_changed_their_contents() {
        let row = |id: i64, name: &str| -> Row { [Value::Integer(id), Value::Text(name.into())].into() };
        let (bug, wuz) = (row(1, "bug"), row(1, "wuz"));
        let (wuz9, bug9) = (row(9, "wuz"), row(9, "bug"));
        let changes =
            [Change { old: Some(&bug), new: Some(&wuz) }, Change { old: Some(&wuz9), new: Some(&bug9) }];
        let identity = Identity { table: TableId(0), key: [1].into() };
        let rows = ChangedRows::new(&changes, &identity);
        assert_eq!(rows.rows.len(), 2);
        let name = rows.find(&identity_bytes(&identity.key, &bug).unwrap()).unwrap();
        assert_eq!((rows.get(name).old, rows.get(name).new), (Some(&bug), Some(&bug9)));
        assert_eq!(rows.of_change(0).count(), 2);
    }
}
