//! The frames of a record log: how far a file can be believed.
//!
//! A file begins with [`HEAD`]. Each frame is the length of its payload (4 bytes), a checksum
//! (8 bytes), and the payload; both numbers little-endian. A checksum covers the one before it,
//! too: what is left in a file of an earlier write at the same place is never taken for a
//! continuation. The first frame that does not hold ends the file: a crash tears the end off,
//! and what was not synced may be there in part, or not at all.

use std::io::{self, Read};

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// What a file begins with: a name and the version of the format.
pub const HEAD: &[u8; 12] = b"KelvinCVR\x00\x00\x01";

/// Bytes of a frame beside its payload.
pub const OVERHEAD: usize = 12;

/// Bytes of the salt, which follows the name.
const SALT: usize = 8;

/// Largest payload: one is in memory at a time, with what it says. A greater length is not a frame to whoever
/// reads, so none is ever written: [`super::parts`] says what becomes of a record that is larger.
pub const MAX_PAYLOAD: usize = 64 << 20;

/// A payload is larger than it may be. Nothing of it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLarge;

/// A number that no other file has, for [`Chain::new`]: what is left of another one at the same place on the
/// disk must not go on where this one ends.
pub fn salt(epoch: u64, core: usize, sequence: u64) -> u64 {
    let mut name = [0; 24];
    for (part, number) in name.chunks_mut(8).zip([epoch, core as u64, sequence]) {
        part.copy_from_slice(&number.to_le_bytes());
    }
    xxh3_64_with_seed(&name, 0)
}

/// Appends frames to a buffer, each bound to the one before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chain(u64);

impl Chain {
    /// Of a new file. `salt`: a number that no other file at the same place has.
    pub fn new(salt: u64) -> Chain {
        Chain(salt)
    }

    /// Appends a frame with what `write` appends, if that is no more than `most` bytes and [`MAX_PAYLOAD`].
    pub fn frame(
        &mut self,
        out: &mut Vec<u8>,
        most: usize,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), TooLarge> {
        let start = out.len();
        out.extend([0; OVERHEAD]);
        write(out);
        let payload = &out[start + OVERHEAD..];
        if payload.len() > most.min(MAX_PAYLOAD) {
            out.truncate(start);
            return Err(TooLarge);
        }
        let length = payload.len() as u32;
        self.0 = xxh3_64_with_seed(payload, self.0);
        out[start..start + 4].copy_from_slice(&length.to_le_bytes());
        out[start + 4..start + OVERHEAD].copy_from_slice(&self.0.to_le_bytes());
        Ok(())
    }
}

/// The start of a file, for [`Chain::new`] with the same salt.
pub fn head(salt: u64) -> Vec<u8> {
    let mut out = HEAD.to_vec();
    out.extend(salt.to_le_bytes());
    out
}

/// The payloads of a file, as far as it holds. One is in memory at a time.
pub struct Frames<R> {
    input: R,
    chain: u64,
    payload: Vec<u8>,
    held: u64,
}

impl<R: Read> Frames<R> {
    /// Of a file, from its start. `None`: this is no such file, or its start is torn.
    pub fn of(mut input: R) -> io::Result<Option<Frames<R>>> {
        let mut start = [0; HEAD.len() + SALT];
        if !fill(&mut input, &mut start)? {
            return Ok(None);
        }
        let (name, salt) = start.split_at(HEAD.len());
        let Some(salt) = salt.first_chunk().filter(|_| name == HEAD) else { return Ok(None) };
        let chain = u64::from_le_bytes(*salt);
        Ok(Some(Frames { input, chain, payload: Vec::new(), held: start.len() as u64 }))
    }

    /// The next one. `None`: what follows, if anything, is no whole frame; do not ask again.
    pub fn next_payload(&mut self) -> io::Result<Option<&[u8]>> {
        let mut start = [0; OVERHEAD];
        if !fill(&mut self.input, &mut start)? {
            return Ok(None);
        }
        let [a, b, c, d, checksum @ ..] = start;
        let length = u32::from_le_bytes([a, b, c, d]) as usize;
        // An empty frame would be what a file that was made longer in advance is full of.
        if length == 0 || length > MAX_PAYLOAD {
            return Ok(None);
        }
        self.payload.clear();
        // As it comes: a length may be anything, and would be believed before anything is there.
        self.input.by_ref().take(length as u64).read_to_end(&mut self.payload)?;
        let expected = xxh3_64_with_seed(&self.payload, self.chain);
        if self.payload.len() < length || u64::from_le_bytes(checksum) != expected {
            return Ok(None);
        }
        self.chain = expected;
        self.held += (OVERHEAD + length) as u64;
        Ok(Some(&self.payload))
    }

    /// Bytes of the file up to the end of the last frame that held.
    pub fn held(&self) -> u64 {
        self.held
    }
}

/// Reads so many bytes. False: there are not so many.
fn fill(input: &mut impl Read, bytes: &mut [u8]) -> io::Result<bool> {
    match input.read_exact(bytes) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn file(payloads: &[Vec<u8>]) -> Vec<u8> {
        let (mut out, mut chain) = (head(7), Chain::new(7));
        for payload in payloads {
            chain.frame(&mut out, MAX_PAYLOAD, |out| out.extend(payload)).unwrap();
        }
        out
    }

    /// All payloads, and how many bytes hold.
    fn read(file: &[u8]) -> (Vec<Vec<u8>>, u64) {
        let Some(mut frames) = Frames::of(file).unwrap() else { return Default::default() };
        let mut found = Vec::new();
        while let Some(payload) = frames.next_payload().unwrap() {
            found.push(payload.to_vec());
        }
        (found, frames.held())
    }

    #[test]
    fn what_is_left_of_an_earlier_file_is_no_continuation() {
        let old = file(&[vec![1; 5], vec![2; 5], vec![3; 5]]);
        let mut new = head(8);
        Chain::new(8).frame(&mut new, MAX_PAYLOAD, |out| out.extend([9; 5])).unwrap();
        // The new file was written over the start of the old one.
        let mut mixed = old.clone();
        mixed[..new.len()].copy_from_slice(&new);
        assert_eq!(read(&mixed).0, [[9; 5]]);
    }

    #[test]
    fn what_is_too_large_leaves_no_trace() {
        let (mut out, mut chain) = (head(7), Chain::new(7));
        let mut append = |length| chain.frame(&mut out, 10, |out| out.extend(vec![1; length]));
        assert_eq!([append(10), append(11), append(3)], [Ok(()), Err(TooLarge), Ok(())]);
        assert_eq!(read(&out).0, [vec![1; 10], vec![1; 3]]);
        let before = out.len();
        let whole = chain.frame(&mut out, usize::MAX, |out| out.resize(out.len() + MAX_PAYLOAD, 1));
        assert_eq!((whole, read(&out).1 as usize), (Ok(()), out.len()), "the largest that is read");
        out.truncate(before);
        let larger = chain.frame(&mut out, usize::MAX, |out| out.resize(out.len() + MAX_PAYLOAD + 1, 1));
        assert_eq!((larger, out.len()), (Err(TooLarge), before), "whatever was asked for");
    }

    #[test]
    fn no_two_files_have_the_same_salt() {
        let mut salts = std::collections::HashSet::new();
        let names = [(1, 0), (1, 1), (1, 256), (2, 0), (2, 255)];
        let files = names.iter().flat_map(|name| (0..70_000).map(move |sequence| (name, sequence)));
        assert!(
            files.into_iter().all(|((epoch, core), sequence)| salts.insert(salt(*epoch, *core, sequence)))
        );
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
            prop_assert!(payloads.starts_with(&read(&bytes).0));
        }

        #[test]
        fn a_whole_file_is_read_whole(
            payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..12),
            zeros in 0usize..40,
        ) {
            let mut bytes = file(&payloads);
            bytes.extend(vec![0; zeros]);
            let (found, held) = read(&bytes);
            prop_assert_eq!(found, payloads);
            prop_assert_eq!(bytes.len() - held as usize, zeros);
        }
    }
}
