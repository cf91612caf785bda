//! What is known of each row by its number: its identity, its key, how often it is held.
//!
//! In pieces: a list that doubles would move a million entries at once. The keys of a piece stand one
//! after another: an allocation for each would take as much again as most keys are long.

use std::collections::BTreeMap;

/// A table seen through certain key columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IdentityId(pub u16);

/// Rows of one piece. To write the keys of all of them together anew takes some twenty microseconds.
const PIECE: usize = if cfg!(test) { 64 } else { 4_096 };

/// Keys of so many bytes have an allocation of their own: the length of others is one byte.
const LONG: usize = 255;

/// Place of a key that has.
const ELSEWHERE: u32 = u32::MAX;

#[derive(Clone, Copy)]
struct Entry {
    /// Where its key begins in its piece, with its length.
    at: u32,
    references: u32,
    identity: IdentityId,
}

#[derive(Default)]
struct Piece {
    entries: Vec<Entry>,
    keys: Vec<u8>,
    /// Bytes of keys of rows that are gone.
    waste: usize,
    /// Long keys by the row's place.
    long: BTreeMap<usize, Box<[u8]>>,
}

impl Piece {
    fn key(&self, place: usize) -> &[u8] {
        match self.entries[place].at {
            ELSEWHERE => self.long.get(&place).map_or(&[], |key| key),
            at => {
                let at = at as usize;
                let length = self.keys[at] as usize;
                &self.keys[at + 1..at + 1 + length]
            }
        }
    }

    /// Takes a key in; returns where it is.
    fn keep(&mut self, place: usize, key: &[u8]) -> u32 {
        if key.len() >= LONG {
            self.long.insert(place, key.into());
            return ELSEWHERE;
        }
        let at = self.keys.len();
        if self.keys.capacity() < at + 1 + key.len() {
            // An eighth more, not twice as much: most of this is never written to again.
            self.keys.reserve_exact((at / 8).max(1 + key.len()));
        }
        self.keys.push(key.len() as u8);
        self.keys.extend_from_slice(key);
        at as u32
    }

    fn forget(&mut self, place: usize) {
        if self.long.remove(&place).is_none() {
            self.waste += 1 + self.key(place).len();
        }
        self.entries[place].at = ELSEWHERE;
        if self.waste == self.keys.len() {
            (self.keys, self.waste) = (Vec::new(), 0);
        } else if self.waste > (self.keys.len() / 2).max(self.entries.len()) {
            // So much waste that it pays for looking at all entries.
            self.compact();
        }
    }

    /// Drops the keys of rows that are gone.
    fn compact(&mut self) {
        let mut keys = Vec::with_capacity(self.keys.len() - self.waste);
        for entry in self.entries.iter_mut().filter(|e| e.references > 0 && e.at != ELSEWHERE) {
            let at = entry.at as usize;
            entry.at = keys.len() as u32;
            keys.extend_from_slice(&self.keys[at..at + 1 + self.keys[at] as usize]);
        }
        self.keys = keys;
        self.waste = 0;
    }
}

/// The rows by number, in pieces. Numbers are given and taken by the caller.
#[derive(Default)]
pub(super) struct Entries(Vec<Piece>);

impl Entries {
    /// Bytes that a row takes beside its key.
    pub const OVERHEAD: usize = size_of::<Entry>() + 1;

    fn entry(&self, index: u32) -> &Entry {
        &self.0[index as usize / PIECE].entries[index as usize % PIECE]
    }

    fn entry_mut(&mut self, index: u32) -> &mut Entry {
        &mut self.0[index as usize / PIECE].entries[index as usize % PIECE]
    }

    /// Key of a row.
    pub fn key(&self, index: u32) -> &[u8] {
        self.0[index as usize / PIECE].key(index as usize % PIECE)
    }

    /// Identity of a row.
    pub fn identity(&self, index: u32) -> IdentityId {
        self.entry(index).identity
    }

    /// How often a row is held.
    pub fn references(&self, index: u32) -> u32 {
        self.entry(index).references
    }

    /// A row is held once more.
    pub fn acquire(&mut self, index: u32) {
        self.entry_mut(index).references += 1;
    }

    /// A row is held once less; returns how often it still is. Once it is not, its number is to be given to
    /// [`Entries::forget`] before anything else.
    pub fn release(&mut self, index: u32) -> u32 {
        let entry = self.entry_mut(index);
        entry.references -= 1;
        entry.references
    }

    /// Adds a row that is held once; returns its number.
    pub fn push(&mut self, identity: IdentityId, key: &[u8]) -> u32 {
        if self.0.last().is_none_or(|piece| piece.entries.len() == PIECE) {
            let mut piece = Piece::default();
            // The first one grows as it is needed: most tests and small apps have few rows.
            piece.entries.reserve_exact(if self.0.is_empty() { 0 } else { PIECE });
            self.0.push(piece);
        }
        let index = self.len();
        if let Some(piece) = self.0.last_mut() {
            let at = piece.keep(index % PIECE, key);
            piece.entries.push(Entry { at, references: 1, identity });
        }
        index as u32
    }

    /// Uses the number of a row that is gone for another, which is held once.
    pub fn reuse(&mut self, index: u32, identity: IdentityId, key: &[u8]) {
        let (piece, place) = (&mut self.0[index as usize / PIECE], index as usize % PIECE);
        let at = piece.keep(place, key);
        piece.entries[place] = Entry { at, references: 1, identity };
    }

    /// Drops the key of a row that nobody holds.
    pub fn forget(&mut self, index: u32) {
        self.0[index as usize / PIECE].forget(index as usize % PIECE);
    }

    /// Numbers given so far.
    pub fn len(&self) -> usize {
        let full = self.0.len().saturating_sub(1);
        full * PIECE + self.0.last().map_or(0, |piece| piece.entries.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const IDENTITY: IdentityId = IdentityId(7);

    fn long(n: usize) -> Vec<u8> {
        vec![n as u8; LONG - 2 + n % 4]
    }

    proptest! {
        /// Rows come and go; those that are held keep their keys.
        #[test]
        fn keys_stay_what_they_are_while_others_come_and_go(
            steps in prop::collection::vec((0..5, 0usize..200, 0usize..40), 1..900),
        ) {
            let mut entries = Entries::default();
            let mut held: BTreeMap<u32, Vec<u8>> = BTreeMap::new();
            let mut free = Vec::new();
            for (step, n, length) in steps {
                let key = if n < 8 { long(n) } else { vec![n as u8; length] };
                match (step, held.keys().nth(n).copied()) {
                    (0, Some(index)) => {
                        entries.acquire(index);
                        assert_eq!(entries.release(index), 1);
                    }
                    (1 | 2, Some(index)) => {
                        assert_eq!(entries.release(index), 0);
                        entries.forget(index);
                        held.remove(&index);
                        free.push(index);
                    }
                    _ => {
                        let index = match free.pop() {
                            Some(index) => {
                                entries.reuse(index, IDENTITY, &key);
                                index
                            }
                            None => entries.push(IDENTITY, &key),
                        };
                        assert!(held.insert(index, key).is_none());
                    }
                }
                for (index, key) in &held {
                    assert_eq!((entries.key(*index), entries.references(*index)), (&key[..], 1));
                }
            }
            assert_eq!(entries.len(), held.len() + free.len());
        }
    }

    #[test]
    fn what_was_taken_by_keys_that_are_gone_is_given_back() {
        let mut entries = Entries::default();
        let all: Vec<u32> = (0..PIECE).map(|n| entries.push(IDENTITY, &n.to_be_bytes())).collect();
        for index in &all[..PIECE - 1] {
            entries.release(*index);
            entries.forget(*index);
        }
        assert!(entries.0[0].keys.capacity() < 64);
        assert_eq!(entries.key(all[PIECE - 1]), (PIECE - 1).to_be_bytes());
    }
}
