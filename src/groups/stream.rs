//! Streams: a large view's rows on their way to a tab while a hydration still reads them.
//!
//! A tab that waits for one large view and has nothing else gets the parts of its poke as
//! they are made, so they need not all be kept, and it can begin to take them in. Such a poke
//! is a catch-up (rule 22): what happened to the rows since the hydration's snapshot follows when
//! the view has joined, and only then the end with the cookie.

use super::catchup::{CatchUp, StreamedView};
use super::group::Group;
use super::reading::{HydrationRequest, Reading};
use super::syncer::*;
use crate::groups::sink::Phase;
use crate::model::ids::ConnectionId;
use crate::protocol::poke::poke_start;
use crate::views::encoded::Part;
use crate::views::view::ViewId;

impl Syncer {
    /// Offers parts that a hydration has finished while it goes on. True: they were taken, and all
    /// further ones must be offered, too; false: the hydration keeps them for whoever needs them.
    pub fn stream(&mut self, reading: &Reading, parts: &mut Vec<Part>) -> bool {
        let generation = reading.request.generation;
        let known = self.streams.get(&generation).copied();
        let Some(id) = known.or_else(|| self.open_stream(reading)) else { return false };
        let parts = std::mem::take(parts);
        // A tab that went, or does not want them any more, misses nothing.
        if let Some(catchup) = self.catchups.get_mut(&id).filter(|c| c.is_reading(generation))
            && let Some(group) = self.connections.get(&id).and_then(|group| self.groups.get_mut(group))
            && let Some(connection) = group.connection(id)
        {
            let mut poke = catchup.go_on();
            parts.iter().for_each(|part| poke.encoded(&part.encoded));
            connection.sink.send(&catchup.pause(poke));
        }
        true
    }

    /// The hydration is over.
    pub(super) fn end_stream(&mut self, generation: u64) {
        if let Some(id) = self.streams.remove(&generation)
            && let Some(catchup) = self.catchups.get_mut(&id).filter(|c| c.is_reading(generation))
        {
            catchup.end_reading();
        }
    }

    fn open_stream(&mut self, reading: &Reading) -> Option<ConnectionId> {
        let HydrationRequest { view, generation, .. } = reading.request;
        self.shared.views.get(view).filter(|v| v.generation == generation)?;
        // The journal of a view that lives begins at a version that it had.
        if self.hydrations.get(&view) != Some(&generation) || (reading.frames_only && !reading.in_step) {
            return None;
        }
        let mut waiting = self.shared.interested.get(&view)?.iter().filter(|id| self.waits_for(id, view));
        let (group_id, others) = (waiting.next()?.clone(), waiting.next());
        if others.is_some() {
            return None;
        }
        let group = self.groups.get_mut(&group_id).filter(|group| has_only(group, view))?;
        let cookie = group.cookie;
        let [connection] = &mut group.connections[..] else { return None };
        let in_step = connection.phase == Phase::Live && connection.cookie == Some(cookie);
        if !in_step || connection.sink.is_behind() {
            return None;
        }
        connection.phase = Phase::CatchingUp;
        connection.sink.send(&[poke_start(&reading.poke_id, Some(&cookie.to_string()))]);
        let stream = StreamedView { view, generation, at: reading.at, reading: true };
        let catchup = CatchUp::of_stream(connection, cookie, &reading.poke_id, stream);
        self.catchups.insert(connection.id, catchup);
        self.streams.insert(generation, connection.id);
        Some(connection.id)
    }

    pub(super) fn waits_for(&self, group_id: &str, view: ViewId) -> bool {
        self.groups.get(group_id).is_some_and(|g| g.queries.values().any(|q| q.pending == Some(view)))
    }

    /// Whether a group waits for a view whose rows went to another one.
    pub(super) fn is_awaited_beside_stream(&self, request: HydrationRequest) -> bool {
        let has_read = |group: &Group| {
            let catchups = group.connections.iter().filter_map(|c| self.catchups.get(&c.id));
            catchups.into_iter().any(|c| c.has_read(request.generation))
        };
        let waiting = self.shared.interested.get(&request.view).into_iter().flatten();
        waiting
            .filter(|id| self.waits_for(id, request.view))
            .filter_map(|id| self.groups.get(id))
            .any(|group| !has_read(group))
    }
}

/// Whether the group has no rows and waits for nothing else: an open poke holds up
/// everything beside it.
fn has_only(group: &Group, view: ViewId) -> bool {
    group.views.is_empty() && group.queries.values().all(|q| q.failed || q.pending == Some(view))
}
