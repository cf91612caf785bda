//! What is given up when memory is short, and in which order (decision 008): what nobody is
//! connected to, what nobody asks for any more, and at last groups that are connected.
//!
//! Whatever is kept because of a group counts as its own: its views, but also what spells its queries, what
//! was made of them, and what waits on its connections. Else those would go first who have the most rows, and
//! somebody who fills the memory with anything else would stay.
//!
//! Bytes are estimates, and what is given up becomes free in slices: whoever calls looks again when
//! that is done.

use std::cmp::Reverse;
use std::rc::Rc;

use super::group::Group;
use super::reading::HydrationRequest;
use super::syncer::Syncer;
use crate::protocol::error::{Kind, ProtocolError};
use crate::views::view::{Status, ViewId};

/// Groups, or queries, that are given up in one call: the rest of the core waits for it.
pub const MAX_SHED: usize = 32;

/// Bytes of a group beside its views: itself and its clients, and each query without what spells it.
const PER_GROUP: usize = 2_048;
const PER_QUERY: usize = 512;

/// Connected groups that take less than this part of what the largest takes are not sent away with it: when it
/// has gone it is looked again. What is in use is more than what groups are known to take, and the
/// difference is mostly on the way to or from the large ones.
const ALIKE: usize = 4;

/// Groups that together take less than this part of the excess are not sent away for it: that would not help. What
/// is in use then is on the way for others that have gone already, and becomes free by itself.
const HELPS: usize = 4;

/// Bytes beside its views above which a group that nobody is connected to is forgotten when memory is short.
/// It costs its clients the mutations that they have not sent, so those that are like most others stay.
const LARGE: usize = 256 << 10;

/// Memory that has to become free, in bytes of this core.
#[derive(Debug, Clone, Copy)]
pub struct Excess {
    /// How much.
    pub bytes: usize,
    /// Bytes in use, of which that is a part.
    pub in_use: usize,
    /// It has been so for so long that it does not go by itself.
    pub stays: bool,
}

impl Excess {
    /// The part of so many bytes that groups are known to take which has to go. What is in use beside that is
    /// on the way to or from the groups, and goes with them: if all of it were asked of the groups themselves, small
    /// ones would be sent away for what large ones have on the way.
    fn of_known(self, known: usize) -> usize {
        let part = known as u128 * self.bytes as u128 / self.in_use.max(1) as u128;
        self.bytes.min(usize::try_from(part).unwrap_or(usize::MAX)).max(1)
    }
}

/// About how many bytes are kept because of a group beside its views.
fn bytes_beside(group: &Group) -> usize {
    let queries = group.queries.iter().map(|(hash, query)| PER_QUERY + hash.len() + query.spec.bytes());
    let waiting = group.connections.iter().map(|connection| connection.sink.bytes());
    let results = group.results.values().chain(&group.pending_results).map(String::len);
    PER_GROUP + queries.sum::<usize>() + waiting.sum::<usize>() + results.sum::<usize>()
}

impl Syncer {
    /// About how many bytes are kept because of a group: its views with the keys of their rows, what spells
    /// its queries, what waits on its connections. `own`: each view divided among the groups that share it: what
    /// would be free if the group went.
    pub fn bytes_of_group(&self, group: &Group, own: bool) -> usize {
        let pending = group.queries.values().filter_map(|query| query.pending);
        let rows = self.shared.rows.borrow();
        let bytes = |id: ViewId| {
            let Some(view) = self.shared.views.get(id) else { return 0 };
            let sharers = self.shared.interested.get(&id).map_or(1, |groups| groups.len().max(1));
            let bytes = view.bytes() + view.bytes_of_keys(&rows, own);
            bytes / if own { sharers } else { 1 }
        };
        let views: usize = group.views.keys().copied().chain(pending).map(bytes).sum();
        views + bytes_beside(group)
    }

    /// Gives up the views of the groups that have been idle longest, until that makes about so many
    /// bytes. Returns how many groups that were.
    pub fn shed_idle(&mut self, bytes: usize) -> usize {
        let mut idle: Vec<(f64, Rc<str>)> = self
            .groups
            .iter()
            .filter_map(|(id, group)| Some((group.idle_since.filter(|_| group.has_views())?, id.clone())))
            .collect();
        idle.sort_by(|a, b| a.0.total_cmp(&b.0).then_with(|| a.1.cmp(&b.1)));
        self.shed(idle.into_iter().map(|(_, id)| id), bytes, |syncer, id| syncer.retire(id))
    }

    /// Forgets the groups that nobody is connected to and that take much although they have no views, those
    /// first that take most, until that makes about so many bytes: their clients start anew. Returns how many
    /// groups that were.
    pub fn shed_large(&mut self, bytes: usize) -> usize {
        let idle = self.groups.iter().filter(|(_, group)| group.connections.is_empty());
        let mut large: Vec<(usize, Rc<str>)> = idle
            .map(|(id, group)| (bytes_beside(group), id.clone()))
            .filter(|(bytes, _)| *bytes > LARGE)
            .collect();
        large.sort_by_key(|(size, id)| (Reverse(*size), id.clone()));
        self.shed(large.into_iter().map(|(_, id)| id), bytes, |syncer, id| syncer.drop_group(id))
    }

    /// Ends the time to live of queries that no client of a connected group wants any more. Returns
    /// in how many groups.
    pub fn shed_unwanted(&mut self) -> usize {
        let mut shed = 0;
        for (id, group) in &mut self.groups {
            if shed < MAX_SHED && !group.connections.is_empty() && group.expire_unwanted() {
                shed += 1;
                self.due.insert(id.clone());
            }
        }
        shed
    }

    /// Sends groups away that are connected, those first that take most, until about the excess has gone.
    /// `elsewhere`: what is kept for a group outside of here. Returns how many groups that were.
    pub fn shed_connected(
        &mut self,
        excess: Excess,
        elsewhere: impl Fn(&str) -> usize,
        error: &ProtocolError,
        now: f64,
    ) -> usize {
        let connected = self.groups.iter().filter(|(_, group)| !group.connections.is_empty());
        let mut sizes: Vec<(usize, Rc<str>)> = connected
            .map(|(id, group)| (self.bytes_of_group(group, true) + elsewhere(id), id.clone()))
            .collect();
        sizes.sort_by_key(|(size, id)| (Reverse(*size), id.clone()));
        let least = sizes.first().map_or(0, |(size, _)| size / ALIKE);
        let known: usize = sizes.iter().map(|(size, _)| size).sum();
        if known < excess.bytes / HELPS && !excess.stays {
            return 0;
        }
        let bytes = excess.of_known(known);
        let large = sizes.into_iter().take_while(|(size, _)| *size >= least);
        self.shed(large.map(|(_, id)| id), bytes, |syncer, id| syncer.send_away(id, error, now))
    }

    fn shed(
        &mut self,
        groups: impl Iterator<Item = Rc<str>>,
        bytes: usize,
        give_up: impl Fn(&mut Syncer, &Rc<str>),
    ) -> usize {
        let (mut shed, mut count) = (0, 0);
        for id in groups.take(MAX_SHED) {
            if shed >= bytes {
                break;
            }
            count += 1;
            shed += self.groups.get(&id).map_or(0, |group| self.bytes_of_group(group, true));
            give_up(self, &id);
        }
        count
    }

    /// Tells the clients of a group to come back later, and gives its views up. It stays known.
    pub fn send_away(&mut self, id: &Rc<str>, error: &ProtocolError, now: f64) {
        let Some(group) = self.groups.get_mut(id) else { return };
        let connections = std::mem::take(&mut group.connections);
        group.connections_changed(now);
        for connection in connections {
            connection.sink.fail(error);
            self.connections.remove(&connection.id);
            if let Some(catchup) = self.catchups.remove(&connection.id) {
                catchup.abandon(&self.shared);
            }
        }
        self.retire(id);
    }

    /// What a view held is lost, by a mistake of ours. Nobody finds it any more, and the groups that have it are
    /// sent away: they come back to a store that is cleared, and to a view that is read anew.
    pub fn lose_view(&mut self, view: ViewId, now: f64) {
        let error = ProtocolError::new(Kind::Rehome, "a query has to be read anew; its rows are sent again");
        self.shared.views.retire(view);
        let groups: Vec<Rc<str>> = self.shared.interested.get(&view).into_iter().flatten().cloned().collect();
        groups.iter().for_each(|id| self.send_away(id, &error, now));
    }

    /// A reading panicked. A view that nobody had yet is refused; what one held before may be lost.
    pub fn reading_lost(&mut self, request: HydrationRequest, now: f64) {
        let view = self.shared.views.get(request.view).filter(|v| v.generation == request.generation);
        match view.map(|view| view.status) {
            None => self.hydration_given_up(request),
            Some(Status::New) => {
                self.hydration_failed(
                    request,
                    None,
                    "the query could not be read; the server's log says why",
                );
            }
            Some(_) => {
                self.hydration_given_up(request);
                self.lose_view(request.view, now);
            }
        }
    }

    /// There is no room to read a view for the first time: the groups that wait for it are sent away.
    /// Returns how many; `None`: it is another kind of reading, which goes on.
    pub fn refuse_reading(
        &mut self,
        request: HydrationRequest,
        error: &ProtocolError,
        now: f64,
    ) -> Option<usize> {
        let view = self.shared.views.get(request.view).filter(|v| v.generation == request.generation);
        if view.is_none_or(|view| view.status != Status::New) {
            return None;
        }
        let groups: Vec<Rc<str>> =
            self.shared.interested.get(&request.view).into_iter().flatten().cloned().collect();
        groups.iter().for_each(|id| self.send_away(id, error, now));
        Some(groups.len())
    }

    /// Whether all groups that a view is read for have more than so many bytes.
    pub fn is_read_for_large_groups(&self, request: HydrationRequest, most: usize) -> bool {
        let mut groups = self.shared.interested.get(&request.view).into_iter().flatten().peekable();
        let is_large =
            |id: &Rc<str>| self.groups.get(id).is_some_and(|g| self.bytes_of_group(g, false) > most);
        groups.peek().is_some() && groups.all(is_large)
    }
}
