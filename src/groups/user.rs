//! Whose a client group is (`docs/spec/view-syncer.md` §11.3).

use super::syncer::Syncer;
use crate::protocol::error::{Kind, ProtocolError};

/// The user of a connection, and of the group that it joined first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// As the client says; `None`: nobody is logged in.
    pub id: Option<String>,
    /// A token that was verified here says so too. Without one the client's word is all there is: then the app's
    /// endpoints judge, if there are any.
    pub is_proved: bool,
}

impl User {
    /// Whether a connection of `other` may join a group of this user. A group whose user was proved once is not open to
    /// somebody who only says that he is that user.
    pub fn admits(&self, other: &User) -> Result<(), ProtocolError> {
        let refused = |why| Err(ProtocolError::new(Kind::Unauthorized, why));
        if self.id != other.id {
            return refused("the client group belongs to another user");
        }
        if self.is_proved && !other.is_proved {
            return refused("the client group belongs to a user who has shown a token; connect with one");
        }
        Ok(())
    }
}

impl Syncer {
    /// Whether a user may join a group; one that is not known is anybody's.
    pub fn check_user(&self, group: &str, user: &User) -> Result<(), ProtocolError> {
        let pinned = self.groups.get(group).and_then(|group| group.user.as_ref());
        pinned.map_or(Ok(()), |pinned| pinned.admits(user))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(id: Option<&str>, is_proved: bool) -> User {
        User { id: id.map(str::to_owned), is_proved }
    }

    #[test]
    fn nobody_joins_a_group_by_only_saying_who_he_is_if_its_user_has_proved_it() {
        let may = |pinned: &User, other: &User| pinned.admits(other).is_ok();
        let (said, proved) = (user(Some("u"), false), user(Some("u"), true));
        assert!(may(&said, &said) && may(&proved, &proved) && may(&said, &proved));
        assert!(!may(&proved, &said));
        assert!(!may(&proved, &user(Some("v"), true)) && !may(&said, &user(None, false)));
        assert!(may(&user(None, false), &user(None, false)), "somebody who is not logged in");
    }
}
