//! Hash maps that grow a little at a time.
//!
//! A hash map that doubles moves all it holds at once. With half a million rows that takes tens
//! of milliseconds, in which a core serves nobody. Here a large map is many small ones, one of
//! which is split in two whenever so many entries have come (linear hashing). So no entry costs
//! more than the moving of some hundred others, and half of the room is never empty.

use std::borrow::Borrow;
use std::hash::{BuildHasher, Hash};

use hashbrown::{DefaultHashBuilder, HashMap};

/// Entries per shard on the average, above which one of them is split. A shard that is next to
/// be split holds twice as many: both numbers are just below what a table of a power of two takes.
pub const PER_SHARD: usize = 400;

/// The shard of a hash, of so many. Other bits than those by which a map finds its entries.
pub fn shard_of(hash: u64, shards: usize) -> usize {
    let bits = (hash >> 32) as usize;
    let round = shards.next_power_of_two();
    let shard = bits & (round - 1);
    // It has not been split off yet in this round.
    if shard < shards { shard } else { shard - round / 2 }
}

/// The shard that is split when one more is added to so many.
pub fn splits(shards: usize) -> usize {
    shards - (shards + 1).next_power_of_two() / 2
}

/// A hash map of any size.
#[derive(Debug, Clone)]
pub struct ShardedMap<K, V, S = DefaultHashBuilder> {
    shards: Shards<K, V, S>,
    len: usize,
}

#[derive(Debug, Clone)]
enum Shards<K, V, S> {
    One(HashMap<K, V, S>),
    Many(Vec<HashMap<K, V, S>>),
}

impl<K, V, S: Default> Default for ShardedMap<K, V, S> {
    fn default() -> Self {
        ShardedMap { shards: Shards::One(HashMap::default()), len: 0 }
    }
}

/// What a map held.
pub type IntoIter<K, V, S> = std::iter::Flatten<std::vec::IntoIter<HashMap<K, V, S>>>;

impl<K, V, S> ShardedMap<K, V, S> {
    /// Entries.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn shards(&self) -> &[HashMap<K, V, S>] {
        match &self.shards {
            Shards::One(map) => std::slice::from_ref(map),
            Shards::Many(maps) => maps,
        }
    }

    /// The entries of one shard; `None` after the last. An entry that stays may come into a later
    /// shard, never into an earlier one: whoever goes through them in order misses none.
    pub fn part(&self, part: usize) -> Option<&HashMap<K, V, S>> {
        self.shards().get(part)
    }

    /// All entries, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.shards().iter().flatten()
    }

    /// All keys, in no order.
    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.iter().map(|(key, _)| key)
    }

    /// All values, in no order.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }
}

impl<K, V, S> IntoIterator for ShardedMap<K, V, S> {
    type Item = (K, V);
    type IntoIter = IntoIter<K, V, S>;

    fn into_iter(self) -> Self::IntoIter {
        let maps = match self.shards {
            Shards::One(map) => vec![map],
            Shards::Many(maps) => maps,
        };
        maps.into_iter().flatten()
    }
}

impl<K: Eq + Hash, V, S: BuildHasher + Default> ShardedMap<K, V, S> {
    fn shard<Q: Hash + ?Sized>(&self, key: &Q) -> &HashMap<K, V, S> {
        match &self.shards {
            Shards::One(map) => map,
            // All shards hash alike: they are made from one hasher.
            Shards::Many(maps) => &maps[shard_of(maps[0].hasher().hash_one(key), maps.len())],
        }
    }

    fn shard_mut<Q: Hash + ?Sized>(&mut self, key: &Q) -> &mut HashMap<K, V, S> {
        match &mut self.shards {
            Shards::One(map) => map,
            Shards::Many(maps) => {
                let shard = shard_of(maps[0].hasher().hash_one(key), maps.len());
                &mut maps[shard]
            }
        }
    }

    /// The value of a key.
    pub fn get<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.shard(key).get(key)
    }

    /// The value of a key, to change.
    pub fn get_mut<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        self.shard_mut(key).get_mut(key)
    }

    /// Whether there is such a key.
    pub fn contains_key<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.shard(key).contains_key(key)
    }

    /// Takes an entry out.
    pub fn remove<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let removed = self.shard_mut(key).remove(key);
        self.len -= usize::from(removed.is_some());
        removed
    }
}

impl<K: Eq + Hash, V, S: BuildHasher + Clone + Default> ShardedMap<K, V, S> {
    /// Puts an entry in; returns the value that its key had.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        self.make_room();
        let before = self.shard_mut(&key).insert(key, value);
        self.len += usize::from(before.is_none());
        before
    }

    /// The value of a key; a new one if it has none.
    pub fn or_default(&mut self, key: K) -> &mut V
    where
        V: Default,
    {
        self.make_room();
        self.len += usize::from(!self.contains_key(&key));
        self.shard_mut(&key).entry(key).or_default()
    }

    /// Splits a shard if all of them have become too full on the average.
    fn make_room(&mut self) {
        let shards = self.shards().len();
        if self.len < PER_SHARD * (shards + 1) {
            return;
        }
        let split = splits(shards);
        if let Shards::One(map) = &mut self.shards {
            self.shards = Shards::Many(vec![std::mem::take(map)]);
        }
        let Shards::Many(maps) = &mut self.shards else { return };
        let hasher = maps[0].hasher().clone();
        let whole = std::mem::replace(&mut maps[split], HashMap::with_hasher(hasher.clone()));
        let (stays, goes): (Vec<_>, Vec<_>) =
            whole.into_iter().partition(|(key, _)| shard_of(hasher.hash_one(key), shards + 1) == split);
        maps[split].extend(stays);
        let mut new = HashMap::with_hasher(hasher);
        new.extend(goes);
        maps.push(new);
    }
}

impl<K: Eq + Hash, V, S: BuildHasher + Clone + Default> Extend<(K, V)> for ShardedMap<K, V, S> {
    fn extend<I: IntoIterator<Item = (K, V)>>(&mut self, entries: I) {
        entries.into_iter().for_each(|(key, value)| drop(self.insert(key, value)));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap as Plain;

    use super::*;

    #[test]
    fn a_shard_is_split_in_two_and_no_other_key_moves() {
        for shards in 1..200 {
            let split = splits(shards);
            for hash in (0..2_000_u64).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15)) {
                let (before, after) = (shard_of(hash, shards), shard_of(hash, shards + 1));
                assert!(after == before || (before == split && after == shards), "{shards} {hash}");
            }
        }
    }

    #[test]
    fn no_shard_is_much_fuller_than_the_others() {
        let mut map: ShardedMap<u64, ()> = ShardedMap::default();
        map.extend((0..100_000).map(|n| (n, ())));
        let fullest = map.shards().iter().map(HashMap::len).max();
        assert!(fullest.is_some_and(|most| most < 3 * PER_SHARD), "{fullest:?}");
    }

    #[test]
    fn a_map_that_is_cut_loses_nothing() {
        let mut map: ShardedMap<Box<[u8]>, u32> = ShardedMap::default();
        let mut plain: Plain<u32, u32> = Plain::new();
        let key = |n: u32| -> Box<[u8]> { n.to_string().into_bytes().into() };
        for n in 0..30 * PER_SHARD as u32 {
            assert_eq!(map.insert(key(n), n), plain.insert(n, n));
            assert_eq!(map.insert(key(n / 2), n), plain.insert(n / 2, n));
            if n % 3 == 0 {
                assert_eq!(map.remove(&*key(n / 3)), plain.remove(&(n / 3)));
                *map.or_default(key(n + 7)) += 1;
                *plain.entry(n + 7).or_default() += 1;
            }
            assert_eq!(map.len(), plain.len());
        }
        assert!(matches!(map.shards, Shards::Many(_)));
        assert!(
            plain.iter().all(|(n, value)| map.get(&*key(*n)) == Some(value) && map.contains_key(&*key(*n)))
        );
        assert_eq!(map.iter().count(), plain.len());
        assert_eq!(map.into_iter().count(), plain.len());
    }
}
