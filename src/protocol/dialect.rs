//! Dialects: in which form a connection is sent the parts of its pokes. Everything else on the wire is the same for
//! all protocol versions, or differs in single fields.

use std::ops::{Index, IndexMut};

/// First protocol version whose clients take the parts of a poke as bytes.
const BINARY_SINCE: u32 = 52;

/// The form of what stands between `pokeStart` and `pokeEnd` (`docs/spec/sync-protocol.md` §9.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// Each part is a text message, `pokePart`: up to protocol 51.
    Text,
    /// All parts of a poke are one JSON array, cut anywhere into binary messages: from protocol 52 on.
    Binary,
}

impl Dialect {
    /// All of them.
    pub const ALL: [Dialect; 2] = [Dialect::Text, Dialect::Binary];

    /// That of a protocol version.
    pub fn of(version: u32) -> Dialect {
        if version < BINARY_SINCE { Dialect::Text } else { Dialect::Binary }
    }
}

/// One of something for each dialect.
#[derive(Debug, Clone, Default)]
pub struct PerDialect<T>([T; Dialect::ALL.len()]);

impl<T> PerDialect<T> {
    /// What there is for each.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter()
    }
}

impl<T> Index<Dialect> for PerDialect<T> {
    type Output = T;

    fn index(&self, dialect: Dialect) -> &T {
        &self.0[dialect as usize]
    }
}

impl<T> IndexMut<Dialect> for PerDialect<T> {
    fn index_mut(&mut self, dialect: Dialect) -> &mut T {
        &mut self.0[dialect as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::connect::{MIN_PROTOCOL_VERSION, PROTOCOL_VERSION};

    #[test]
    fn no_client_before_52_is_sent_bytes_and_those_after_it_are() {
        for version in MIN_PROTOCOL_VERSION..=PROTOCOL_VERSION {
            let expected = if version <= 51 { Dialect::Text } else { Dialect::Binary };
            assert_eq!(Dialect::of(version), expected, "{version}");
        }
    }
}
