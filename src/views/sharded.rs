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

/// Bytes that the entries of a map may take in order of their keys, before they are hashed. A view has
/// such maps by the node, and most of them are small: a list has no room that is empty, and one more
/// entry moves no more than this.
const FEW: usize = 4_096;

/// Least entries by which a list grows: it is filled up, not doubled.
const STEP: usize = 4;

/// A map of any size.
#[derive(Debug, Clone)]
pub struct ShardedMap<K, V, S = DefaultHashBuilder> {
    shards: Shards<K, V, S>,
    len: usize,
}

#[derive(Debug, Clone)]
enum Shards<K, V, S> {
    /// In order of the keys.
    Few(Vec<(K, V)>),
    One(HashMap<K, V, S>),
    Many(Vec<HashMap<K, V, S>>),
}

impl<K, V, S> Default for ShardedMap<K, V, S> {
    fn default() -> Self {
        ShardedMap { shards: Shards::Few(Vec::new()), len: 0 }
    }
}

/// What a map held.
pub type IntoIter<K, V, S> =
    std::iter::Chain<std::vec::IntoIter<(K, V)>, std::iter::Flatten<std::vec::IntoIter<HashMap<K, V, S>>>>;

impl<K, V, S> ShardedMap<K, V, S> {
    /// Entries.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn few(&self) -> &[(K, V)] {
        match &self.shards {
            Shards::Few(list) => list,
            Shards::One(_) | Shards::Many(_) => &[],
        }
    }

    fn maps(&self) -> &[HashMap<K, V, S>] {
        match &self.shards {
            Shards::Few(_) => &[],
            Shards::One(map) => std::slice::from_ref(map),
            Shards::Many(maps) => maps,
        }
    }

    /// The entries of one shard; `None` after the last. An entry that stays may come into a later
    /// shard, never into an earlier one: whoever goes through them in order misses none.
    pub fn part(&self, part: usize) -> Option<impl Iterator<Item = (&K, &V)>> {
        let map = self.maps().get(part);
        let few = match (map, &self.shards) {
            (None, Shards::Few(list)) if part == 0 => &list[..],
            (None, _) => return None,
            (Some(_), _) => &[],
        };
        Some(few.iter().map(|(key, value)| (key, value)).chain(map.into_iter().flatten()))
    }

    /// All entries, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.few().iter().map(|(key, value)| (key, value)).chain(self.maps().iter().flatten())
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
        let (few, maps) = match self.shards {
            Shards::Few(list) => (list, Vec::new()),
            Shards::One(map) => (Vec::new(), vec![map]),
            Shards::Many(maps) => (Vec::new(), maps),
        };
        few.into_iter().chain(maps.into_iter().flatten())
    }
}

/// Where a key is in a list, or where it belongs.
fn place<K: Borrow<Q>, V, Q: Ord + ?Sized>(list: &[(K, V)], key: &Q) -> Result<usize, usize> {
    list.binary_search_by(|(other, _)| other.borrow().cmp(key))
}

/// Puts an entry where it belongs.
fn put<K, V>(list: &mut Vec<(K, V)>, at: usize, key: K, value: V) {
    if list.len() == list.capacity() {
        list.reserve_exact((list.len() / 4).max(STEP));
    }
    list.insert(at, (key, value));
}

/// The map that a hash belongs to. All hash alike: they are made from one hasher.
fn shard<Q: Hash + ?Sized, K, V, S: BuildHasher>(maps: &[HashMap<K, V, S>], key: &Q) -> usize {
    match maps {
        [_] => 0,
        _ => shard_of(maps[0].hasher().hash_one(key), maps.len()),
    }
}

impl<K: Eq + Hash + Ord, V, S: BuildHasher> ShardedMap<K, V, S> {
    /// The value of a key.
    pub fn get<Q: Hash + Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        match &self.shards {
            Shards::Few(list) => place(list, key).ok().map(|at| &list[at].1),
            Shards::One(map) => map.get(key),
            Shards::Many(maps) => maps[shard(maps, key)].get(key),
        }
    }

    /// The value of a key, to change.
    pub fn get_mut<Q: Hash + Ord + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        match &mut self.shards {
            Shards::Few(list) => place(list, key).ok().map(|at| &mut list[at].1),
            Shards::One(map) => map.get_mut(key),
            Shards::Many(maps) => {
                let at = shard(maps, key);
                maps[at].get_mut(key)
            }
        }
    }

    /// Whether there is such a key.
    pub fn contains_key<Q: Hash + Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.get(key).is_some()
    }

    /// Takes an entry out.
    pub fn remove<Q: Hash + Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let removed = match &mut self.shards {
            Shards::Few(list) => place(list, key).ok().map(|at| list.remove(at).1),
            Shards::One(map) => map.remove(key),
            Shards::Many(maps) => {
                let at = shard(maps, key);
                maps[at].remove(key)
            }
        };
        self.len -= usize::from(removed.is_some());
        removed
    }
}

impl<K: Eq + Hash + Ord, V, S: BuildHasher + Clone + Default> ShardedMap<K, V, S> {
    /// Most entries in a list.
    const MOST_FEW: usize = FEW / if size_of::<(K, V)>() == 0 { 1 } else { size_of::<(K, V)>() };

    /// Puts an entry in; returns the value that its key had.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        self.make_room();
        let before = match &mut self.shards {
            Shards::Few(list) => match place(list, &key) {
                Ok(at) => Some(std::mem::replace(&mut list[at].1, value)),
                Err(at) => {
                    put(list, at, key, value);
                    None
                }
            },
            Shards::One(map) => map.insert(key, value),
            Shards::Many(maps) => {
                let at = shard(maps, &key);
                maps[at].insert(key, value)
            }
        };
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
        match &mut self.shards {
            Shards::Few(list) => {
                let at = place(list, &key).unwrap_or_else(|at| {
                    put(list, at, key, V::default());
                    at
                });
                &mut list[at].1
            }
            Shards::One(map) => map.entry(key).or_default(),
            Shards::Many(maps) => {
                let at = shard(maps, &key);
                maps[at].entry(key).or_default()
            }
        }
    }

    /// Hashes a list that is full, and splits a shard if all of them have become too full on the
    /// average.
    fn make_room(&mut self) {
        if let Shards::Few(list) = &mut self.shards {
            if list.len() >= Self::MOST_FEW {
                let mut map = HashMap::with_capacity_and_hasher(list.len() + 1, S::default());
                map.extend(std::mem::take(list));
                self.shards = Shards::One(map);
            }
            return;
        }
        let shards = self.maps().len();
        if self.len < PER_SHARD * (shards + 1) {
            return;
        }
        let split = splits(shards);
        if let Shards::One(map) = &mut self.shards {
            let hasher = map.hasher().clone();
            self.shards = Shards::Many(vec![std::mem::replace(map, HashMap::with_hasher(hasher))]);
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

impl<K: Eq + Hash + Ord, V, S: BuildHasher + Clone + Default> Extend<(K, V)> for ShardedMap<K, V, S> {
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
        let fullest = map.maps().iter().map(HashMap::len).max();
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
