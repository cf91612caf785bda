//! Cookies: names of what a client group has been sent (`docs/spec/sync-protocol.md` §6.3,
//! rules 17 and 18).
//!
//! `major:lexi(E·2^20 + k)`: the major part is a lower bound of the data version, E the
//! epoch of the process that issued it, k counts steps at one major.

use crate::model::lexi;

/// Bits of the step counter inside the config number.
const STEP_BITS: u32 = 20;

/// Most steps of one group at one major version.
pub const MAX_STEP: u64 = (1 << STEP_BITS) - 1;

/// A cookie that this server could have issued, or one that another server did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Cookie {
    /// LSN of the state version.
    pub major: u64,
    /// Config number; 0 if the cookie has none.
    pub config: u64,
}

impl Cookie {
    /// A cookie of this epoch.
    pub fn new(major: u64, epoch: u64, step: u64) -> Cookie {
        Cookie { major, config: (epoch << STEP_BITS) | step }
    }

    /// Epoch of the process that issued it; 0 for cookies of servers without epochs.
    pub fn epoch(self) -> u64 {
        self.config >> STEP_BITS
    }

    /// Step within the major version.
    pub fn step(self) -> u64 {
        self.config & MAX_STEP
    }

    /// Reads a cookie; `None` if it is malformed. A minor version is accepted and rounds
    /// down: the major part is a lower bound in any case.
    pub fn parse(text: &str) -> Option<Cookie> {
        let (state, config) = match text.split_once(':') {
            None => (text, None),
            Some((state, config)) => (state, Some(config)),
        };
        let major = match state.split_once('.') {
            None => state,
            Some((major, minor)) => {
                lexi::decode(minor)?;
                major
            }
        };
        let config = config.map_or(Some(0), lexi::decode)?;
        Some(Cookie { major: lexi::decode(major)?, config })
    }
}

impl std::fmt::Display for Cookie {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&lexi::encode(self.major))?;
        match self.config {
            0 => Ok(()),
            config => write!(f, ":{}", lexi::encode(config)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn cookies_of_the_reference_are_read() {
        assert_eq!(Cookie::parse("00"), Some(Cookie { major: 0, config: 0 }));
        assert_eq!(Cookie::parse("00:0z"), Some(Cookie { major: 0, config: 35 }));
        assert_eq!(Cookie::parse("21ab.01:02").map(|c| c.config), Some(2));
        for bad in ["", ":", "0:01", "00:", "00:01:02", "x", "00:1"] {
            assert_eq!(Cookie::parse(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn labels_grow_as_strings(
            a in (0u64..1 << 60, 1u64..1 << 30, 0u64..MAX_STEP),
            b in (0u64..1 << 60, 1u64..1 << 30, 0u64..MAX_STEP),
        ) {
            let (x, y) = (Cookie::new(a.0, a.1, a.2), Cookie::new(b.0, b.1, b.2));
            prop_assert_eq!(x.to_string().cmp(&y.to_string()), x.cmp(&y));
            prop_assert_eq!(Cookie::parse(&x.to_string()), Some(x));
            prop_assert_eq!((x.epoch(), x.step()), (a.1, a.2));
        }
    }
}
