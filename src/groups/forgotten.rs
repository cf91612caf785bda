//! Cookies of groups that this process has forgotten.
//!
//! A group may begin again under the same id, while a tab still has a cookie of the group that was
//! forgotten. No cookie may mean two things (rule 12): what begins later begins above.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::step::ZERO;
use crate::model::version::StateVersion;
use crate::protocol::cookie::{Cookie, MAX_STEP};
use crate::protocol::error::{Kind, ProtocolError};

/// Most groups of one version that are remembered each. The first of them has issued half a million cookies without a
/// commit; beyond so many, no new group is let in before the next.
const MAX_USED_UP: usize = 1_000;

/// What was issued to groups that are forgotten.
#[derive(Debug, Default)]
pub struct Forgotten {
    /// The highest cookie.
    highest: Cookie,
    /// Those that had issued so many cookies at one version that beginning above theirs would take them from
    /// everybody: the last cookie of each, by id.
    used_up: BTreeMap<Rc<str>, Cookie>,
    /// There were more of these at this version.
    full_at: Option<u64>,
}

impl Forgotten {
    /// A group is forgotten that clients had been told this cookie of.
    pub fn add(&mut self, id: &Rc<str>, cookie: Cookie) {
        if cookie.step() <= MAX_STEP / 2 {
            self.highest = self.highest.max(cookie);
            return;
        }
        // At later versions, all begin above it.
        self.highest = self.highest.max(Cookie::new(cookie.major, cookie.epoch(), 1));
        if self.used_up.len() < MAX_USED_UP {
            self.used_up.insert(id.clone(), cookie);
        } else {
            self.full_at = self.full_at.max(Some(cookie.major));
        }
    }

    /// The cookie that a new group begins at; its own are above it. An error if there is none at this version: it
    /// comes again under another id.
    pub fn first(&mut self, id: &str, version: StateVersion, epoch: u64) -> Result<Cookie, ProtocolError> {
        // Whatever begins at this version is above those of earlier ones.
        self.used_up.retain(|_, cookie| cookie.major >= version.0);
        self.full_at = self.full_at.filter(|major| *major >= version.0);
        if self.full_at.is_some() || self.used_up.contains_key(id) {
            return Err(ProtocolError::new(
                Kind::ClientNotFound,
                "the client group is not known here, and its id cannot be used again so soon",
            ));
        }
        if self.highest == ZERO {
            return Ok(ZERO);
        }
        // Step 0 of a version is what plain data gets.
        let begins = Cookie::new(version.0, epoch, 1);
        let above = Cookie { config: self.highest.config + 1, ..self.highest };
        Ok(begins.max(above))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EPOCH: u64 = 3;

    fn cookie(major: u64, step: u64) -> Cookie {
        Cookie::new(major, EPOCH, step)
    }

    fn first(forgotten: &mut Forgotten, id: &str, version: u64) -> Option<Cookie> {
        forgotten.first(id, StateVersion(version), EPOCH).ok()
    }

    #[test]
    fn what_begins_later_begins_above() {
        let mut forgotten = Forgotten::default();
        assert_eq!(first(&mut forgotten, "a", 9), Some(ZERO), "nothing is forgotten");
        forgotten.add(&"a".into(), cookie(9, 4));
        forgotten.add(&"b".into(), cookie(8, 7));
        assert_eq!(first(&mut forgotten, "a", 9), Some(cookie(9, 5)));
        assert_eq!(first(&mut forgotten, "a", 10), Some(cookie(10, 1)));
        assert_eq!(first(&mut forgotten, "a", 8), Some(cookie(9, 5)), "it had been further");
    }

    #[test]
    fn labels_that_one_has_used_up_are_not_taken_from_others() {
        let mut forgotten = Forgotten::default();
        forgotten.add(&"b".into(), cookie(9, MAX_STEP));
        assert_eq!(first(&mut forgotten, "c", 9), Some(cookie(9, 2)));
        forgotten.add(&"a".into(), cookie(9, MAX_STEP / 2));
        assert_eq!(first(&mut forgotten, "c", 9), Some(cookie(9, MAX_STEP / 2 + 1)));
        assert_eq!(first(&mut forgotten, "b", 9), None);
        assert_eq!(first(&mut forgotten, "b", 10), Some(cookie(10, 1)));
    }

    #[test]
    fn it_is_above_those_that_used_up_theirs_at_versions_of_before() {
        let mut forgotten = Forgotten::default();
        forgotten.add(&"b".into(), cookie(9, MAX_STEP));
        assert_eq!(first(&mut forgotten, "b", 10), Some(cookie(10, 1)));
    }

    #[test]
    fn more_of_them_than_are_remembered_keep_all_out_until_the_next_version() {
        let mut forgotten = Forgotten::default();
        (0..=MAX_USED_UP).for_each(|n| forgotten.add(&n.to_string().into(), cookie(9, MAX_STEP)));
        assert_eq!(first(&mut forgotten, "new", 9), None);
        assert_eq!(first(&mut forgotten, "new", 10), Some(cookie(10, 1)));
        assert_eq!(first(&mut forgotten, "new", 10), Some(cookie(10, 1)), "for good");
    }
}
