//! State versions (`docs/spec/replication.md` §6).

use crate::model::lexi;

/// Position in the upstream's log: the commit LSN of the transaction that a state ends with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct StateVersion(pub u64);

impl StateVersion {
    /// The version before any data.
    pub const ZERO: StateVersion = StateVersion(0);

    /// LexiVersion form: plain string order is numeric order.
    pub fn to_lexi(self) -> String {
        lexi::encode(self.0)
    }

    /// Reads the LexiVersion form; `None` if it is not one.
    pub fn from_lexi(text: &str) -> Option<Self> {
        lexi::decode(text).map(StateVersion)
    }

    /// Postgres form, `H/L` in hexadecimal.
    pub fn to_lsn(self) -> String {
        format!("{:X}/{:X}", self.0 >> 32, self.0 & 0xffff_ffff)
    }

    /// Reads the Postgres form.
    pub fn from_lsn(text: &str) -> Option<Self> {
        let (high, low) = text.split_once('/')?;
        let high = u64::from_str_radix(high, 16).ok()?;
        let low = u64::from_str_radix(low, 16).ok()?;
        (high <= u32::MAX as u64 && low <= u32::MAX as u64).then_some(StateVersion(high << 32 | low))
    }
}

impl std::fmt::Display for StateVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.to_lexi())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lsn_and_lexi_forms_agree_with_the_specification() {
        let version = StateVersion::from_lsn("0/16B3748").unwrap();
        assert_eq!(version.0, 23_803_720);
        assert_eq!(version.to_lexi(), "4e672g");
        assert_eq!(version.to_lsn(), "0/16B3748");
        assert_eq!(StateVersion::from_lsn("1/FFFFFFFFF"), None);
    }
}
