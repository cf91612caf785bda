//! A text that must never be printed.

use std::fmt;

/// A password, key or token. `Debug` shows only that it is there, and there is no `Display`, so that
/// it cannot reach a log by accident.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps `text`.
    pub fn new(text: impl Into<String>) -> Secret {
        Secret(text.into())
    }

    /// The text, for the one place that sends or verifies it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether `given` is the same text, in a time that depends on the lengths only.
    pub fn matches(&self, given: &str) -> bool {
        let (own, given) = (self.0.as_bytes(), given.as_bytes());
        let mut difference = own.len() ^ given.len();
        for (index, byte) in given.iter().enumerate() {
            // Of an own text that is shorter, any byte will do: the lengths differ already.
            difference |= usize::from(byte ^ own.get(index).unwrap_or(&0));
        }
        difference == 0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(hidden)")
    }
}
