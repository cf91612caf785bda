//! The frames of a record log: how far a file can be believed.
//!
//! A file begins with [`HEAD`]. Each frame is the length of its payload (4 bytes), a checksum
//! (8 bytes), and the payload; both numbers little-endian. A checksum covers the one before it,
//! too: what is left in a file of an earlier write at the same place is never taken for a
//! continuation. The first frame that does not hold ends the file: a crash tears the end off,
//! and what was not synced may be there in part, or not at all.

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// What a file begins with: a name and the version of the format.
pub const HEAD: &[u8; 12] = b"KelvinCVR\x00\x00\x01";

/// Bytes of a frame beside its payload.
pub const OVERHEAD: usize = 12;

/// Largest payload. Whoever writes more cuts it; a greater length is not a frame.
pub const MAX_PAYLOAD: usize = 64 << 20;

/// Appends frames to a buffer, each bound to the one before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chain(u64);

impl Chain {
    /// Of a new file. `salt`: a number that no other file at the same place has.
    pub fn new(salt: u64) -> Chain {
        Chain(salt)
    }

    /// Appends a frame with what `write` appends.
    pub fn frame(&mut self, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
        let start = out.len();
        out.extend([0; OVERHEAD]);
        write(out);
        let payload = &out[start + OVERHEAD..];
        let length = payload.len() as u32;
        self.0 = xxh3_64_with_seed(payload, self.0);
        out[start..start + 4].copy_from_slice(&length.to_le_bytes());
        out[start + 4..start + OVERHEAD].copy_from_slice(&self.0.to_le_bytes());
    }
}

/// The start of a file, for [`Chain::new`] with the same salt.
pub fn head(salt: u64) -> Vec<u8> {
    let mut out = HEAD.to_vec();
    out.extend(salt.to_le_bytes());
    out
}

/// The payloads of a file, as far as it holds.
pub struct Frames<'f> {
    rest: &'f [u8],
    chain: u64,
}

impl<'f> Frames<'f> {
    /// `None`: this is no such file, or its start is torn.
    pub fn of(file: &'f [u8]) -> Option<Frames<'f>> {
        let rest = file.strip_prefix(HEAD)?;
        let (salt, rest) = rest.split_first_chunk()?;
        Some(Frames { rest, chain: u64::from_le_bytes(*salt) })
    }

    /// Bytes after the last frame that holds.
    pub fn remainder(&self) -> usize {
        self.rest.len()
    }
}

impl<'f> Iterator for Frames<'f> {
    type Item = &'f [u8];

    fn next(&mut self) -> Option<&'f [u8]> {
        let (length, rest) = self.rest.split_first_chunk()?;
        let (checksum, rest) = rest.split_first_chunk()?;
        let length = u32::from_le_bytes(*length) as usize;
        // An empty frame would be what a file that was made longer in advance is full of.
        if length == 0 || length > MAX_PAYLOAD {
            return None;
        }
        let payload = rest.get(..length)?;
        let expected = xxh3_64_with_seed(payload, self.chain);
        if u64::from_le_bytes(*checksum) != expected {
            return None;
        }
        self.chain = expected;
        self.rest = &rest[length..];
        Some(payload)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn file(payloads: &[Vec<u8>]) -> Vec<u8> {
        let (mut out, mut chain) = (head(7), Chain::new(7));
        for payload in payloads {
            chain.frame(&mut out, |out| out.extend(payload));
        }
        out
    }

    #[test]
    fn what_is_left_of_an_earlier_file_is_no_continuation() {
        let old = file(&[vec![1; 5], vec![2; 5], vec![3; 5]]);
        let mut new = head(8);
        Chain::new(8).frame(&mut new, |out| out.extend([9; 5]));
        // The new file was written over the start of the old one.
        let mut mixed = old.clone();
        mixed[..new.len()].copy_from_slice(&new);
        let found: Vec<&[u8]> = Frames::of(&mixed).unwrap().collect();
        assert_eq!(found, [[9; 5]]);
    }

    proptest! {
        #[test]
        fn a_torn_or_damaged_file_gives_a_prefix_of_what_was_written(
            payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..12),
            cut in any::<prop::sample::Index>(),
            damage in prop::option::of((any::<prop::sample::Index>(), 1u8..)),
            zeros in 0usize..40,
        ) {
            let mut bytes = file(&payloads);
            let whole = bytes.len();
            bytes.truncate(cut.index(whole + 1));
            if let Some((at, flip)) = damage.filter(|_| !bytes.is_empty()) {
                let at = at.index(bytes.len());
                bytes[at] ^= flip;
            }
            bytes.extend(vec![0; zeros]);
            let found: Vec<Vec<u8>> =
                Frames::of(&bytes).map(|frames| frames.map(<[u8]>::to_vec).collect()).unwrap_or_default();
            prop_assert!(payloads.starts_with(&found));
        }

        #[test]
        fn a_whole_file_is_read_whole(
            payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..12),
            zeros in 0usize..40,
        ) {
            let mut bytes = file(&payloads);
            bytes.extend(vec![0; zeros]);
            let mut frames = Frames::of(&bytes).unwrap();
            let found: Vec<Vec<u8>> = frames.by_ref().map(<[u8]>::to_vec).collect();
            prop_assert_eq!(found, payloads);
            prop_assert_eq!(frames.remainder(), zeros);
        }
    }
}
