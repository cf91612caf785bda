//! Search for a short text in which some characters may be any: one bit for each of its characters says
//! whether what was read last may be the text up to there (Baeza-Yates and Gonnet).

use hashbrown::HashMap;

/// A character of a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Token {
    /// `_`
    One,
    /// This one.
    Char(char),
}

/// What is searched for.
#[derive(Debug, Clone)]
pub struct ShiftAnd {
    length: usize,
    /// Words of a set of bits.
    words: usize,
    /// Of each character the places that it may have, one set after the other; the first set is of all
    /// characters that are not listed.
    places: Vec<u64>,
    sets: HashMap<char, u32>,
}

impl ShiftAnd {
    /// Of the characters of a pattern; at least one.
    pub(super) fn new(pattern: &[Token]) -> ShiftAnd {
        let words = pattern.len().div_ceil(64).max(1);
        let mut any = vec![0; words];
        for at in (0..pattern.len()).filter(|at| pattern[*at] == Token::One) {
            any[at / 64] |= 1 << (at % 64);
        }
        let (mut places, mut sets) = (any.clone(), HashMap::new());
        for (at, token) in pattern.iter().enumerate() {
            let Token::Char(c) = token else { continue };
            let set = *sets.entry(*c).or_insert_with(|| {
                places.extend(&any);
                (places.len() / words - 1) as u32
            });
            places[set as usize * words + at / 64] |= 1 << (at % 64);
        }
        ShiftAnd { length: pattern.len(), words, places, sets }
    }

    /// What follows the first place where it fits.
    pub fn after<'t>(&self, text: &'t str) -> Option<&'t str> {
        let last = self.length - 1;
        let mut state = vec![0; self.words];
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            let set = self.sets.get(&c).map_or(0, |set| *set as usize) * self.words;
            let mut carry = 1;
            for (word, places) in state.iter_mut().zip(&self.places[set..]) {
                let next = *word >> 63;
                *word = ((*word << 1) | carry) & places;
                carry = next;
            }
            if state[last / 64] >> (last % 64) & 1 == 1 {
                return Some(chars.as_str());
            }
        }
        None
    }

    /// About how many bytes it takes.
    pub fn bytes(&self) -> usize {
        self.places.len() * size_of::<u64>() + self.sets.len() * size_of::<(char, u32)>() * 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_place_is_found_over_the_borders_of_words() {
        for length in [3, 63, 64, 65, 128, 200] {
            let mut pattern = vec![Token::Char('a'), Token::One];
            pattern.resize(length - 1, Token::Char('a'));
            pattern.push(Token::Char('é'));
            let search = ShiftAnd::new(&pattern);
            let text = format!("{}éxé", "a".repeat(300));
            assert_eq!(search.after(&text), Some("xé"), "{length}");
            assert_eq!(search.after(&text[..300]), None);
        }
    }
}
