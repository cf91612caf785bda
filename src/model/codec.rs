//! Numbers and texts in what is written as bytes: short ones take few of them.

/// Why bytes cannot be read: whoever wrote them was another version, or they were changed on their way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("bytes that are not what this version writes")
    }
}

impl std::error::Error for Malformed {}

/// Appends a number, seven bits a byte, the lowest first.
pub fn number(mut n: u64, out: &mut Vec<u8>) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

/// Appends bytes with their length.
pub fn bytes(bytes: &[u8], out: &mut Vec<u8>) {
    number(bytes.len() as u64, out);
    out.extend(bytes);
}

/// What is left of the bytes that are being read.
#[derive(Debug, Clone, Copy)]
pub struct Input<'r>(pub &'r [u8]);

impl<'r> Input<'r> {
    /// One byte.
    pub fn byte(&mut self) -> Result<u8, Malformed> {
        let (first, rest) = self.0.split_first().ok_or(Malformed)?;
        self.0 = rest;
        Ok(*first)
    }

    /// A number.
    pub fn number(&mut self) -> Result<u64, Malformed> {
        let mut n = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            n |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(n);
            }
        }
        Err(Malformed)
    }

    /// A count of things of which each takes at least one byte.
    pub fn count(&mut self) -> Result<usize, Malformed> {
        let count = self.number()?;
        if count > self.0.len() as u64 { Err(Malformed) } else { Ok(count as usize) }
    }

    /// Bytes with their length.
    pub fn bytes(&mut self) -> Result<&'r [u8], Malformed> {
        let length = self.count()?;
        let (found, rest) = self.0.split_at(length);
        self.0 = rest;
        Ok(found)
    }

    /// A text.
    pub fn text(&mut self) -> Result<&'r str, Malformed> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Malformed)
    }

    /// Nothing may be left.
    pub fn end(self) -> Result<(), Malformed> {
        if self.0.is_empty() { Ok(()) } else { Err(Malformed) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(n: u64, text in ".*") {
            let mut out = Vec::new();
            number(n, &mut out);
            bytes(text.as_bytes(), &mut out);
            let mut input = Input(&out);
            prop_assert_eq!(input.number(), Ok(n));
            prop_assert_eq!(input.text(), Ok(text.as_str()));
            prop_assert_eq!(input.end(), Ok(()));
        }

        #[test]
        fn no_bytes_are_too_wild_to_be_refused(bytes: Vec<u8>) {
            let mut input = Input(&bytes);
            let _ = input.number();
            let _ = input.text();
            let _ = input.count();
        }
    }
}
