//! Rows by number while records are read back: what names a row is kept once, however many views
//! held it.

use std::collections::HashMap;

use hashbrown::HashTable;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::record::NamedIdentity;
use crate::model::codec::{self, Input};

/// Number of a row in [`Names`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Row(pub u32);

/// Bytes of one piece of the keys: a list that doubles would take three times what it holds for a
/// moment. A longer key has a piece of its own.
const PIECE: usize = 1 << 20;

/// Bits of a place below the piece's number, and below the identity's.
const PIECE_SHIFT: u32 = 20;
const IDENTITY_SHIFT: u32 = 48;

/// Most bytes of a key's length.
const MAX_LENGTH: usize = 10;

/// Bytes of a row in the index: its number and a byte of its hash, in a table that is half full.
const INDEXED: usize = 10;

/// Rows by number. Each is an identity and the bytes of a key.
#[derive(Debug, Default)]
pub struct Names {
    identities: Vec<NamedIdentity>,
    by_identity: HashMap<NamedIdentity, u16>,
    /// By row: identity, piece, and where in the piece the length of the key is, and then the key.
    places: Vec<u64>,
    pieces: Vec<Vec<u8>>,
    index: HashTable<Row>,
}

impl Names {
    /// All identities; rows have their places in this list.
    pub fn identities(&self) -> &[NamedIdentity] {
        &self.identities
    }

    /// The place of an identity, made if it is new.
    pub fn identity(&mut self, identity: &NamedIdentity) -> u16 {
        if let Some(found) = self.by_identity.get(identity) {
            return *found;
        }
        let number = self.identities.len() as u16;
        self.identities.push(identity.clone());
        self.by_identity.insert(identity.clone(), number);
        number
    }

    /// The number of a row, made if it is new.
    pub fn row(&mut self, identity: u16, key: &[u8]) -> Row {
        let Names { places, pieces, index, .. } = self;
        let hash = hash(identity, key);
        if let Some(found) = index.find(hash, |row| get(places, pieces, *row) == (identity, key)) {
            return *found;
        }
        let row = Row(places.len() as u32);
        places.push(append(pieces, identity, key));
        index.insert_unique(hash, row, |row| {
            let (identity, key) = get(places, pieces, *row);
            self::hash(identity, key)
        });
        row
    }

    /// The place of a row's identity, and its key.
    pub fn get(&self, row: Row) -> (u16, &[u8]) {
        get(&self.places, &self.pieces, row)
    }

    /// Rows.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Bytes of memory, roughly.
    pub fn bytes(&self) -> usize {
        let full = self.pieces.len().saturating_sub(1) * PIECE;
        let keys = full + self.pieces.last().map_or(0, Vec::len);
        keys + self.places.len() * (size_of::<u64>() + INDEXED)
    }

    /// No further row is made: what only that needs is given up.
    pub fn freeze(&mut self) {
        self.index = HashTable::new();
        self.places.shrink_to_fit();
    }

    /// Gives up all rows but these. Returns the new number of each; of the others any.
    pub fn keep(&mut self, is_kept: &[bool]) -> Vec<Row> {
        self.index = HashTable::new();
        let before = std::mem::take(&mut self.places);
        let mut pieces = std::mem::take(&mut self.pieces);
        let (mut renumbered, mut over) = (Vec::with_capacity(before.len()), 0);
        for (row, place) in before.iter().enumerate() {
            // Rows are in order of their places: what comes before this one is not needed any more.
            while over < piece_of(*place) {
                pieces[over] = Vec::new();
                over += 1;
            }
            renumbered.push(Row(self.places.len() as u32));
            if is_kept.get(row) == Some(&true) {
                let (identity, key) = get(&before, &pieces, Row(row as u32));
                self.row(identity, key);
            }
        }
        renumbered
    }
}

fn hash(identity: u16, key: &[u8]) -> u64 {
    xxh3_64_with_seed(key, u64::from(identity))
}

fn piece_of(place: u64) -> usize {
    (place >> PIECE_SHIFT) as usize & ((1 << (IDENTITY_SHIFT - PIECE_SHIFT)) - 1)
}

fn get<'n>(places: &[u64], pieces: &'n [Vec<u8>], row: Row) -> (u16, &'n [u8]) {
    let place = places[row.0 as usize];
    let start = place as usize & (PIECE - 1);
    let key = Input(&pieces[piece_of(place)][start..]).bytes();
    ((place >> IDENTITY_SHIFT) as u16, key.unwrap_or_default())
}

/// Appends a key; where it is.
fn append(pieces: &mut Vec<Vec<u8>>, identity: u16, key: &[u8]) -> u64 {
    let wanted = key.len() + MAX_LENGTH;
    if pieces.last().is_none_or(|piece| piece.capacity() - piece.len() < wanted || piece.len() >= PIECE) {
        pieces.push(Vec::with_capacity(wanted.max(PIECE)));
    }
    let last = pieces.len() - 1;
    let start = pieces[last].len();
    codec::bytes(key, &mut pieces[last]);
    u64::from(identity) << IDENTITY_SHIFT | (last << PIECE_SHIFT | start) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_that_many_views_held_is_kept_once() {
        let mut names = Names::default();
        let [by_id, by_name] = ["id", "name"].map(|key| names.identity(&("issue".into(), vec![key.into()])));
        let long = vec![7; PIECE + 1];
        let keys: [&[u8]; 4] = [b"a", b"", &long, b"b"];
        let rows: Vec<Row> = keys.iter().map(|key| names.row(by_id, key)).collect();
        assert_eq!(keys.iter().map(|key| names.row(by_id, key)).collect::<Vec<_>>(), rows);
        assert_ne!(names.row(by_name, b"a"), rows[0], "the same key in another identity is another row");
        assert_eq!((names.len(), names.identities().len()), (5, 2));
        names.freeze();
        keys.iter().zip(rows).for_each(|(key, row)| assert_eq!(names.get(row), (by_id, *key)));
    }

    #[test]
    fn rows_that_stay_keep_their_names_when_others_are_given_up() {
        let mut names = Names::default();
        let key = |i: usize| vec![i as u8; i * 300];
        let rows: Vec<Row> = (0..200).map(|i| names.row(0, &key(i))).collect();
        let (before, is_kept) = (names.bytes(), |i: &usize| i.is_multiple_of(3));
        let renumbered = names.keep(&(0..200).map(|i| is_kept(&i)).collect::<Vec<_>>());
        assert_eq!(names.len(), 67);
        assert!(names.bytes() < before);
        for i in (0..200).filter(is_kept) {
            let row = renumbered[rows[i].0 as usize];
            assert_eq!(names.get(row), (0, &*key(i)));
            assert_eq!(names.row(0, &key(i)), row);
        }
    }
}
