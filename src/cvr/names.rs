//! Rows by number: each name once, however many views have the row.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};

/// Number of a row in [`Names`].
pub type Row = u32;

/// Names of rows: an identity, and the bytes of a key.
#[derive(Debug, Clone, Default)]
pub struct Names {
    /// All keys, one after the other, and where each ends.
    keys: Vec<u8>,
    ends: Vec<usize>,
    identities: Vec<u16>,
    index: HashTable<Row>,
    hasher: DefaultHashBuilder,
}

impl Names {
    /// The number of a name.
    pub fn intern(&mut self, identity: u16, key: &[u8]) -> Row {
        let hash = self.hasher.hash_one((identity, key));
        if let Some(row) = self.index.find(hash, |row| self.get(*row) == (identity, key)) {
            return *row;
        }
        let row = self.ends.len() as Row;
        self.keys.extend(key);
        self.ends.push(self.keys.len());
        self.identities.push(identity);
        let Names { keys, ends, identities, index, hasher } = self;
        let hash_of = |row: &Row| hasher.hash_one((identities[*row as usize], key_of(keys, ends, *row)));
        index.insert_unique(hash, row, hash_of);
        row
    }

    /// The name of a number: identity and key.
    pub fn get(&self, row: Row) -> (u16, &[u8]) {
        (self.identities[row as usize], key_of(&self.keys, &self.ends, row))
    }
}

fn key_of<'k>(keys: &'k [u8], ends: &[usize], row: Row) -> &'k [u8] {
    let start = (row as usize).checked_sub(1).map_or(0, |before| ends[before]);
    &keys[start..ends[row as usize]]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_one_number_and_a_number_its_name() {
        let mut names = Names::default();
        let name = |n: u32| ((n % 3) as u16, vec![n as u8; (n % 7) as usize]);
        let first: Vec<Row> = (0..1_000).map(|n| names.intern(name(n).0, &name(n).1)).collect();
        for n in 0..1_000 {
            let (identity, key) = name(n);
            assert_eq!(names.get(first[n as usize]), (identity, &key[..]));
            assert_eq!(names.intern(identity, &key), first[n as usize]);
        }
        assert_ne!(names.intern(0, b"a"), names.intern(1, b"a"));
        assert_ne!(names.intern(0, b""), names.intern(0, b"a"));
    }
}
