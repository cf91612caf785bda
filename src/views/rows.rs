//! Rows by number: each identity that any view of the core holds is kept once.
//!
//! An identity is a table, the key columns by which a client schema knows its rows, and
//! the key's bytes (rule 3). Members of views are numbers; contents stay in SQLite.

use std::hash::BuildHasherDefault;
use std::sync::Arc;

use hashbrown::{HashMap, HashTable};

use crate::replica::catalogue::{ColumnIndex, TableId};
use crate::zql::key;

/// Number of a row on this core. Valid while somebody holds a reference to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RowId(pub u32);

/// A table seen through certain key columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IdentityId(pub u16);

/// What an [`IdentityId`] stands for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The table.
    pub table: TableId,
    /// Key columns, sorted by name.
    pub key: Arc<[ColumnIndex]>,
}

struct Entry {
    key: Box<[u8]>,
    identity: IdentityId,
    references: u32,
}

/// Row numbers are already evenly spread; hashing them costs one multiplication.
#[derive(Default)]
pub struct RowIdHasher(u64);

impl std::hash::Hasher for RowIdHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        self.0 = key::hash(bytes);
    }
    fn write_u32(&mut self, n: u32) {
        self.0 = (n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

/// A map keyed by row number.
pub type RowMap<T> = HashMap<RowId, T, BuildHasherDefault<RowIdHasher>>;
/// A set of row numbers.
pub type RowSet = hashbrown::HashSet<RowId, BuildHasherDefault<RowIdHasher>>;

/// All rows that the views of a core know.
#[derive(Default)]
pub struct Rows {
    identities: Vec<Identity>,
    by_key: Vec<HashTable<u32>>,
    entries: Vec<Entry>,
    free: Vec<u32>,
}

impl Rows {
    /// The number of an identity, made if it is new.
    pub fn identity(&mut self, table: TableId, key: &Arc<[ColumnIndex]>) -> IdentityId {
        let wanted = Identity { table, key: key.clone() };
        if let Some(found) = self.identities.iter().position(|i| *i == wanted) {
            return IdentityId(found as u16);
        }
        self.identities.push(wanted);
        self.by_key.push(HashTable::new());
        IdentityId((self.identities.len() - 1) as u16)
    }

    /// What an identity stands for.
    pub fn describe(&self, identity: IdentityId) -> &Identity {
        &self.identities[identity.0 as usize]
    }

    /// All identities, in order of their numbers.
    pub fn identities(&self) -> impl Iterator<Item = &Identity> {
        self.identities.iter()
    }

    /// The number of a row, made if it is new. The caller holds one reference.
    pub fn intern(&mut self, identity: IdentityId, bytes: &[u8]) -> RowId {
        let hash = key::hash(bytes);
        let entries = &mut self.entries;
        let table = &mut self.by_key[identity.0 as usize];
        if let Some(found) = table.find(hash, |i| &*entries[*i as usize].key == bytes) {
            entries[*found as usize].references += 1;
            return RowId(*found);
        }
        let entry = Entry { key: bytes.into(), identity, references: 1 };
        let index = match self.free.pop() {
            Some(index) => {
                entries[index as usize] = entry;
                index
            }
            None => {
                entries.push(entry);
                (entries.len() - 1) as u32
            }
        };
        table.insert_unique(hash, index, |i| key::hash(&entries[*i as usize].key));
        RowId(index)
    }

    /// The number of a row that somebody holds.
    pub fn find(&self, identity: IdentityId, bytes: &[u8]) -> Option<RowId> {
        let hash = key::hash(bytes);
        let table = &self.by_key[identity.0 as usize];
        table.find(hash, |i| &*self.entries[*i as usize].key == bytes).map(|i| RowId(*i))
    }

    /// Takes one more reference to a row.
    pub fn acquire(&mut self, id: RowId) {
        self.entries[id.0 as usize].references += 1;
    }

    /// Gives one reference back; the last one frees the number.
    pub fn release(&mut self, id: RowId) {
        let entry = &mut self.entries[id.0 as usize];
        entry.references -= 1;
        if entry.references > 0 {
            return;
        }
        let bytes = std::mem::take(&mut entry.key);
        let table = &mut self.by_key[entry.identity.0 as usize];
        if let Ok(found) = table.find_entry(key::hash(&bytes), |i| *i == id.0) {
            found.remove();
        }
        self.free.push(id.0);
    }

    /// Gives many references back.
    pub fn release_all(&mut self, ids: &[RowId]) {
        ids.iter().for_each(|id| self.release(*id));
    }

    /// Identity of a row.
    pub fn identity_of(&self, id: RowId) -> IdentityId {
        self.entries[id.0 as usize].identity
    }

    /// Key bytes of a row.
    pub fn key_of(&self, id: RowId) -> &[u8] {
        &self.entries[id.0 as usize].key
    }

    /// Table of a row.
    pub fn table_of(&self, id: RowId) -> TableId {
        self.describe(self.identity_of(id)).table
    }

    /// Rows held at the moment.
    pub fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    /// Whether no row is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_lives_as_long_as_its_references() {
        let mut rows = Rows::default();
        let key: Arc<[ColumnIndex]> = [0].into();
        let identity = rows.identity(TableId(0), &key);
        let a = rows.intern(identity, b"a");
        assert_eq!(rows.intern(identity, b"a"), a);
        let b = rows.intern(identity, b"b");
        assert_ne!(a, b);
        rows.release(a);
        assert_eq!(rows.find(identity, b"a"), Some(a));
        rows.release(a);
        assert_eq!(rows.find(identity, b"a"), None);
        assert_eq!(rows.len(), 1);
        assert_eq!(rows.intern(identity, b"c"), a, "the number is used again");
        assert_eq!(rows.key_of(a), b"c");
    }

    #[test]
    fn the_same_key_in_another_identity_is_another_row() {
        let mut rows = Rows::default();
        let by_id = rows.identity(TableId(0), &[0].into());
        let by_name = rows.identity(TableId(0), &[1].into());
        assert_ne!(rows.intern(by_id, b"x"), rows.intern(by_name, b"x"));
    }
}
