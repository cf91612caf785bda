//! Rows by number: each identity that any view of the core holds is kept once.
//!
//! An identity is a table, the key columns by which a client schema knows its rows, and
//! the key's bytes (rule 3). Members of views are numbers; contents stay in SQLite.

use std::hash::BuildHasherDefault;
use std::sync::Arc;

use hashbrown::{HashMap, HashTable};

use super::entries::{Entries, IdentityId};
use super::sharded::{PER_SHARD, ShardedMap, shard_of, splits};
use crate::model::catalogue::ColumnIndex;
use crate::model::ids::TableId;
use crate::model::key;

/// Number of a row on this core. Valid while somebody holds a reference to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RowId(pub u32);

/// What an [`IdentityId`] stands for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The table.
    pub table: TableId,
    /// Key columns, sorted by name.
    pub key: Arc<[ColumnIndex]>,
}

/// Bytes that a row takes beside its key: what is known of it, its place in the index, room that is left, what the allocator
/// does not use.
const PER_ENTRY: usize = Entries::OVERHEAD + 28;

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

/// A set of row numbers, of any size.
#[derive(Debug, Clone, Default)]
pub struct RowSet(ShardedMap<RowId, (), BuildHasherDefault<RowIdHasher>>);

impl RowSet {
    /// Adds a row; whether it is new.
    pub fn insert(&mut self, id: RowId) -> bool {
        self.0.insert(id, ()).is_none()
    }

    /// Takes a row out; whether it was in.
    pub fn remove(&mut self, id: &RowId) -> bool {
        self.0.remove(id).is_some()
    }

    /// Whether the row is in it.
    pub fn contains(&self, id: &RowId) -> bool {
        self.0.contains_key(id)
    }

    /// Rows.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The rows of one part; `None` after the last ([`ShardedMap::part`]).
    pub fn part(&self, part: usize) -> Option<impl Iterator<Item = &RowId>> {
        Some(self.0.part(part)?.map(|(id, ())| id))
    }

    /// All rows, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &RowId> {
        self.0.keys()
    }
}

impl Extend<RowId> for RowSet {
    fn extend<I: IntoIterator<Item = RowId>>(&mut self, ids: I) {
        self.0.extend(ids.into_iter().map(|id| (id, ())));
    }
}

impl FromIterator<RowId> for RowSet {
    fn from_iter<I: IntoIterator<Item = RowId>>(ids: I) -> RowSet {
        let mut out = RowSet::default();
        out.extend(ids);
        out
    }
}

/// What a set held.
pub type RowSetIter = std::iter::Map<
    super::sharded::IntoIter<RowId, (), BuildHasherDefault<RowIdHasher>>,
    fn((RowId, ())) -> RowId,
>;

impl IntoIterator for RowSet {
    type Item = RowId;
    type IntoIter = RowSetIter;

    fn into_iter(self) -> RowSetIter {
        self.0.into_iter().map(|(id, ())| id)
    }
}

/// Rows of one identity by the hash of their key, in shards of which one is split at a time
/// ([`super::sharded`]).
struct ByKey {
    shards: Vec<HashTable<u32>>,
    len: usize,
}

impl ByKey {
    fn new() -> ByKey {
        ByKey { shards: vec![HashTable::new()], len: 0 }
    }

    fn of(&self, hash: u64) -> &HashTable<u32> {
        &self.shards[shard_of(hash, self.shards.len())]
    }

    fn of_mut(&mut self, hash: u64) -> &mut HashTable<u32> {
        let shard = shard_of(hash, self.shards.len());
        &mut self.shards[shard]
    }

    fn insert(&mut self, hash: u64, row: u32, hash_of: impl Fn(&u32) -> u64) {
        if self.len >= PER_SHARD * (self.shards.len() + 1) {
            self.split(&hash_of);
        }
        self.len += 1;
        self.of_mut(hash).insert_unique(hash, row, hash_of);
    }

    fn split(&mut self, hash_of: impl Fn(&u32) -> u64) {
        let shards = self.shards.len();
        let split = splits(shards);
        // With room: a table that grows asks each of its rows for its key again.
        let mut new = [HashTable::with_capacity(PER_SHARD), HashTable::with_capacity(PER_SHARD)];
        for row in std::mem::take(&mut self.shards[split]) {
            let hash = hash_of(&row);
            let goes = shard_of(hash, shards + 1) != split;
            new[usize::from(goes)].insert_unique(hash, row, &hash_of);
        }
        let [stays, goes] = new;
        self.shards[split] = stays;
        self.shards.push(goes);
    }

    fn remove(&mut self, hash: u64, row: u32) {
        if let Ok(found) = self.of_mut(hash).find_entry(hash, |other| *other == row) {
            found.remove();
            self.len -= 1;
        }
    }
}

/// All rows that the views of a core know.
#[derive(Default)]
pub struct Rows {
    identities: Vec<Identity>,
    by_key: Vec<ByKey>,
    entries: Entries,
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
        self.by_key.push(ByKey::new());
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
        let by_key = &mut self.by_key[identity.0 as usize];
        if let Some(found) = by_key.of(hash).find(hash, |i| entries.key(*i) == bytes) {
            entries.acquire(*found);
            return RowId(*found);
        }
        let index = match self.free.pop() {
            Some(index) => {
                entries.reuse(index, identity, bytes);
                index
            }
            None => entries.push(identity, bytes),
        };
        by_key.insert(hash, index, |i| key::hash(entries.key(*i)));
        RowId(index)
    }

    /// The number of a row that somebody holds.
    pub fn find(&self, identity: IdentityId, bytes: &[u8]) -> Option<RowId> {
        let hash = key::hash(bytes);
        let table = self.by_key[identity.0 as usize].of(hash);
        table.find(hash, |i| self.entries.key(*i) == bytes).map(|i| RowId(*i))
    }

    /// Takes one more reference to a row.
    pub fn acquire(&mut self, id: RowId) {
        self.entries.acquire(id.0);
    }

    /// Gives one reference back; the last one frees the number.
    pub fn release(&mut self, id: RowId) {
        if self.entries.release(id.0) > 0 {
            return;
        }
        let by_key = &mut self.by_key[self.entries.identity(id.0).0 as usize];
        by_key.remove(key::hash(self.entries.key(id.0)), id.0);
        self.entries.forget(id.0);
        self.free.push(id.0);
    }

    /// Gives many references back.
    pub fn release_all(&mut self, ids: &[RowId]) {
        ids.iter().for_each(|id| self.release(*id));
    }

    /// About how many bytes a row takes, and how many hold it.
    pub fn cost_of(&self, id: RowId) -> (usize, u32) {
        (PER_ENTRY + self.entries.key(id.0).len(), self.entries.references(id.0))
    }

    /// Identity of a row.
    pub fn identity_of(&self, id: RowId) -> IdentityId {
        self.entries.identity(id.0)
    }

    /// Key bytes of a row.
    pub fn key_of(&self, id: RowId) -> &[u8] {
        self.entries.key(id.0)
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
