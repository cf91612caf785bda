//! Search for short markers in a message that arrives in pieces, without keeping it.

use memchr::memmem::Finder;

/// Bytes of a message that are kept from one piece to the next: one less than the longest
/// needle with its value.
const TAIL: usize = 48;

/// A text to look for, and how many bytes after it belong to it.
pub struct Needle {
    finder: Finder<'static>,
    /// Length of the text and its value together, in bytes; at most `TAIL + 1`.
    length: usize,
}

impl Needle {
    /// A needle whose value is the `value` bytes after `text`.
    pub fn new(text: &'static str, value: usize) -> Needle {
        let length = text.len() + value;
        assert!(length <= TAIL + 1, "a needle longer than the tail that is kept");
        Needle { finder: Finder::new(text), length }
    }

    fn value<'a>(&self, whole: &'a [u8]) -> &'a [u8] {
        &whole[self.finder.needle().len()..]
    }
}

/// The end of what has been seen of a message.
#[derive(Debug)]
pub struct Tail {
    bytes: [u8; TAIL],
    length: usize,
}

impl Default for Tail {
    fn default() -> Tail {
        Tail { bytes: [0; TAIL], length: 0 }
    }
}

impl Tail {
    /// Forgets it: a new message begins.
    pub fn clear(&mut self) {
        self.length = 0;
    }

    /// Calls `found` with the value of each needle that ends in `piece`. The position is
    /// where the needle starts, counted from the start of `piece` (negative: before it).
    pub fn each(&self, piece: &[u8], needle: &Needle, mut found: impl FnMut(isize, &[u8])) {
        if self.length > 0 {
            self.across(piece, needle, &mut found);
        }
        for at in needle.finder.find_iter(piece) {
            if let Some(whole) = piece.get(at..at + needle.length) {
                found(at as isize, needle.value(whole));
            }
        }
    }

    /// Needles that start in the tail and end in `piece`.
    fn across(&self, piece: &[u8], needle: &Needle, found: &mut impl FnMut(isize, &[u8])) {
        let mut join = [0; 2 * TAIL];
        let ahead = piece.len().min(TAIL);
        join[..self.length].copy_from_slice(&self.bytes[..self.length]);
        join[self.length..self.length + ahead].copy_from_slice(&piece[..ahead]);
        for at in needle.finder.find_iter(&join[..self.length + ahead]) {
            let end = at + needle.length;
            if at < self.length && end > self.length && end <= self.length + ahead {
                found(at as isize - self.length as isize, needle.value(&join[at..end]));
            }
        }
    }

    /// Keeps the end of `piece`, for the next one.
    pub fn keep(&mut self, piece: &[u8]) {
        if piece.len() >= TAIL {
            self.bytes.copy_from_slice(&piece[piece.len() - TAIL..]);
            self.length = TAIL;
            return;
        }
        let stay = self.length.min(TAIL - piece.len());
        self.bytes.copy_within(self.length - stay..self.length, 0);
        self.bytes[stay..stay + piece.len()].copy_from_slice(piece);
        self.length = stay + piece.len();
    }
}

/// Reads a value of decimal digits.
pub fn decimal(value: &[u8]) -> Option<u64> {
    std::str::from_utf8(value).ok()?.parse().ok()
}

/// Reads a value of hexadecimal digits.
pub fn hexadecimal(value: &[u8]) -> Option<u64> {
    u64::from_str_radix(std::str::from_utf8(value).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn search(text: &[u8], step: usize) -> Vec<u64> {
        let needle = Needle::new("mark:", 4);
        let mut tail = Tail::default();
        let mut got = Vec::new();
        for piece in text.chunks(step) {
            tail.each(piece, &needle, |_, v| got.extend(decimal(v)));
            tail.keep(piece);
        }
        got
    }

    #[test]
    fn found_once_wherever_it_is_cut() {
        let text = format!(
            "{}mark:0001{}mark:0002mark:0003{}mark:00",
            "x".repeat(60),
            "y".repeat(3),
            "z".repeat(100)
        );
        for step in 1..text.len() + 1 {
            assert_eq!(search(text.as_bytes(), step), [1, 2, 3], "step {step}");
        }
    }

    #[test]
    fn the_position_is_relative_to_the_piece() {
        let needle = Needle::new("mark:", 4);
        let mut tail = Tail::default();
        tail.keep(b"..mark:0");
        let mut at = Vec::new();
        tail.each(b"001..mark:0002", &needle, |p, _| at.push(p));
        assert_eq!(at, [-6, 5]);
    }

    #[test]
    fn a_new_message_knows_nothing_of_the_last() {
        let needle = Needle::new("mark:", 4);
        let mut tail = Tail::default();
        tail.keep(b"mark:00");
        tail.clear();
        tail.each(b"01", &needle, |_, _| panic!("found across messages"));
    }

    #[test]
    fn values() {
        assert_eq!(decimal(b"000012"), Some(12));
        assert_eq!(decimal(b"00x"), None);
        assert_eq!(hexadecimal(b"00ff"), Some(255));
    }
}
