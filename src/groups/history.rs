//! What a group keeps for tabs that were away: queries and views that it has no more (rules 19, 20).

use super::group::{Group, LeftView};
use super::shared::Shared;
use super::step::{Moved, give_up, is_heard};
use crate::model::version::StateVersion;
use crate::protocol::cookie::Cookie;
use crate::testing::met::{Limit, met};

/// Keeps what tabs that were away need.
pub(super) fn remember(group: &mut Group, shared: &mut Shared, moved: &Moved, cookie: Cookie) {
    for joined in &moved.joined {
        if let Some(entry) = group.views.get_mut(joined) {
            entry.0 = cookie;
        }
    }
    for (hash, got) in &moved.got {
        if let Some(query) = group.queries.get_mut(hash) {
            query.got_changed = cookie;
        }
        if !got {
            group.removed_queries.push_back((hash.clone(), cookie));
        }
    }
    while group.removed_queries.len() > shared.limits.removed_queries {
        met(Limit::RemovedQueries);
        if let Some((_, dropped)) = group.removed_queries.pop_front() {
            group.floor = group.floor.max(dropped);
        }
    }
    keep_left(group, shared, moved, cookie);
}

/// Keeps the rows of views that were left, and ends the subscriptions.
pub(super) fn keep_left(group: &mut Group, shared: &mut Shared, moved: &Moved, cookie: Cookie) {
    for (id, since) in &moved.left {
        let view = shared.views.get(*id);
        let most = shared.limits.left_keys;
        let is_large = view.is_some_and(|view| view.size + view.journal.keys() > most);
        if is_large && !is_heard(group) {
            // More than is kept: whoever was away since before now starts anew. Nobody is told
            // anything, so the numbers of the rows may go.
            group.floor = group.floor.max(cookie);
        } else if let Some(view) = view {
            let mut rows = view.state.sorted();
            rows.extend(view.journal.since(StateVersion::ZERO).flat_map(|d| d.rows()));
            rows.sort_unstable();
            rows.dedup();
            if !view.journal.reaches(StateVersion(since.major)) {
                group.floor = group.floor.max(Cookie { major: view.journal.floor().0, config: 0 });
            }
            let mut numbers = shared.rows.borrow_mut();
            rows.iter().for_each(|row| numbers.acquire(*row));
            drop(numbers);
            group.left.push_back(LeftView { since: *since, until: cookie, rows });
        }
        give_up(group, shared, *id);
    }
}

/// Forgets the views left longest ago beyond the limit.
pub(super) fn forget_left(group: &mut Group, shared: &mut Shared) {
    while group.left.iter().map(|l| l.rows.len()).sum::<usize>() > shared.limits.left_keys {
        met(Limit::LeftKeys);
        let Some(dropped) = group.left.pop_front() else { break };
        group.floor = group.floor.max(dropped.until);
        shared.rows.borrow_mut().release_all(&dropped.rows);
    }
}
