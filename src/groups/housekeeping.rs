//! What ends: groups that cannot go on or that nobody uses, encoded views that nobody waits
//! for.

use super::group::Group;
use super::restore::forget_held;
use super::sink::Phase;
use super::step::give_up;
use super::syncer::*;
use crate::model::version::StateVersion;
use crate::protocol::error::ProtocolError;
use crate::testing::faults::{self, Fault};
use crate::testing::met::{Limit, met};
use crate::views::view::ViewId;
use std::rc::Rc;

/// How long a view is read for clients that are gone, in milliseconds: a page that is reloaded
/// is back by then.
pub const READ_FOR_NOBODY: f64 = 3_000.0;

/// Wait after a query's time is over, in milliseconds: those whose time is over soon after go
/// in the same poke.
const EXPIRE_TOGETHER: f64 = 50.0;

impl Syncer {
    /// Ends a group that cannot go on: its clients are told, its state is dropped.
    pub fn fail_group(&mut self, group_id: &Rc<str>, error: &ProtocolError) {
        let Some(group) = self.groups.get(group_id) else { return };
        group.connections.iter().for_each(|c| c.sink.fail(error));
        self.drop_group(group_id);
    }

    pub(super) fn drop_group(&mut self, group_id: &Rc<str>) {
        if let Some(group) = self.groups.get(group_id) {
            self.shared.forgotten.add(group_id, group.cookie);
        }
        self.drop_untold(group_id);
    }

    /// Drops a group whose cookies nobody has, or that are noted already.
    pub(super) fn drop_untold(&mut self, group_id: &Rc<str>) {
        self.release_views(group_id);
        let Some(group) = self.groups.remove(group_id) else { return };
        self.shared.record_log.forget(group_id);
        for connection in &group.connections {
            self.connections.remove(&connection.id);
            if let Some(catchup) = self.catchups.remove(&connection.id) {
                catchup.abandon(&self.shared);
            }
        }
    }

    /// Gives up all views of a group. Its clients' cookies can then not be served from
    /// history any more.
    pub(super) fn release_views(&mut self, group_id: &Rc<str>) {
        let Some(group) = self.groups.get_mut(group_id) else { return };
        let mut views = Vec::new();
        for query in group.queries.values_mut() {
            views.extend(query.current.take());
            views.extend(query.pending.take());
            query.transforming = None;
            query.got = false;
        }
        group.views.clear();
        forget_held(group, &mut self.shared);
        let left: Vec<_> = group.left.drain(..).flat_map(|l| l.rows).collect();
        self.shared.rows.borrow_mut().release_all(&left);
        group.version = StateVersion::ZERO;
        for view in views {
            give_up(group, &mut self.shared, view);
        }
    }

    /// Gives up all views of a group that nobody is connected to. It stays known: its clients are
    /// sent everything anew when they come back, and need not start over.
    pub(super) fn retire(&mut self, id: &Rc<str>) {
        self.release_views(id);
        let Some(group) = self.groups.get_mut(id) else { return };
        // Not even a cookie of this moment can be proved any more.
        let _ = group.next_cookie(StateVersion(group.cookie.major), self.shared.epoch);
        if !faults::is_on(Fault::Floor) {
            group.floor = group.cookie;
        }
        group.attached = false;
        self.shared.note(group);
    }

    /// Drops encoded views beyond the budget, oldest first, but none that a group still waits
    /// for.
    pub(super) fn trim_encoded(&mut self) {
        self.trim_encoded_to(self.shared.limits.encoded_bytes);
    }

    /// Drops all encoded views that no group waits for.
    pub fn drop_encoded(&mut self) {
        self.trim_encoded_to(0);
    }

    fn trim_encoded_to(&mut self, most: usize) {
        let mut total: usize = self.shared.encoded.values().map(|encoded| encoded.bytes()).sum();
        if total <= most {
            return;
        }
        let mut oldest: Vec<(f64, ViewId)> =
            self.encoded_since.iter().map(|(v, since)| (*since, *v)).collect();
        oldest.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        for (_, view) in oldest {
            if total <= most {
                return;
            }
            if self.is_awaited(view) {
                continue;
            }
            met(Limit::EncodedBytes);
            self.encoded_since.remove(&view);
            total -= self.shared.encoded.remove(&view).map_or(0, |encoded| encoded.bytes());
        }
    }

    pub(super) fn is_awaited(&self, view: ViewId) -> bool {
        let groups = self.shared.interested.get(&view).into_iter().flatten();
        groups
            .filter_map(|id| self.groups.get(id))
            .any(|group| group.queries.values().any(|q| q.pending == Some(view)))
    }

    /// Work of the clock: expired queries, groups that nobody uses, encoded views that
    /// nobody asked for.
    pub fn tick(&mut self, now: f64) {
        for group in self.groups.values_mut() {
            group.close_resending(now);
        }
        for (id, group) in &self.groups {
            let expired = group.next_expiry(now).is_some_and(|left| left <= -EXPIRE_TOGETHER);
            let behind = group.connections.iter().any(|c| c.phase != Phase::Live && !c.sink.is_behind());
            if expired || behind {
                self.due.insert(id.clone());
            }
        }
        let idle: Vec<Rc<str>> = self
            .groups
            .iter()
            .filter(|(_, g)| g.idle_since.is_some_and(|since| now - since >= LINGER) && g.has_views())
            .map(|(id, _)| id.clone())
            .collect();
        idle.iter().for_each(|id| self.retire(id));
        self.give_up_readings(now);
        self.retry(now);
        self.forget_oldest_groups();
        let over = |since: &f64| now - since >= KEEP_ENCODED;
        let unused: Vec<ViewId> =
            self.encoded_since.iter().filter(|(_, since)| over(since)).map(|(v, _)| *v).collect();
        for view in unused {
            self.encoded_since.remove(&view);
            self.shared.encoded.remove(&view);
        }
    }

    /// Gives up the views that are being read for nobody but clients that are gone. A client
    /// that comes back asks for them again.
    fn give_up_readings(&mut self, now: f64) {
        let is_gone = |group: &Group| group.idle_since.is_some_and(|since| now - since >= READ_FOR_NOBODY);
        let views = &self.shared.views;
        let is_read = |id: ViewId| views.get(id).is_some_and(|view| !view.is_live());
        let mut given_up = Vec::new();
        for group in self.groups.values_mut().filter(|group| is_gone(group)) {
            for query in group.queries.values_mut() {
                if let Some(view) = query.pending.take_if(|view| is_read(*view)) {
                    given_up.push((group.id.clone(), view));
                }
            }
        }
        for (group, view) in given_up {
            if let Some(group) = self.groups.get(&group) {
                give_up(group, &mut self.shared, view);
            }
        }
    }

    pub(super) fn forget_oldest_groups(&mut self) {
        let mut idle: Vec<(f64, Rc<str>)> =
            self.groups.iter().filter_map(|(id, g)| Some((g.left_at?, id.clone()))).collect();
        let most = self.shared.limits.idle_groups;
        if idle.len() <= most {
            return;
        }
        met(Limit::IdleGroups);
        idle.sort_by(|a, b| a.0.total_cmp(&b.0).then_with(|| a.1.cmp(&b.1)));
        for (_, id) in &idle[..idle.len() - most] {
            self.drop_group(id);
        }
    }

    /// Connected clients at the moment; a group also knows clients that are away.
    pub fn connected(&self) -> usize {
        self.connections.len()
    }

    /// Queries of all groups at the moment, each counted once per group.
    pub fn desired_queries(&self) -> usize {
        self.groups.values().map(|g| g.queries.len()).sum()
    }
}
