//! Steps of a group: what changes together under one cookie (rules 13 to 17).
//!
//! A step happens between batches, when every got view is at the core's version. It sums
//! up what happened to the rows since the group's last step: for each row that is named by
//! a journal, came with a joined view or went with a removed one, whether some got view
//! held it before, and whether one does now.

use super::compose::{Told, compose};
use super::group::Group;
use super::history::{forget_left, keep_left, remember};
use super::restore::leave_held;
use super::shared::{RowOp, Shared};
use crate::groups::sink::{Connection, Phase};
use crate::model::version::StateVersion;
use crate::protocol::cookie::Cookie;
use crate::protocol::dialect::{Dialect, PerDialect};
use crate::protocol::error::{Kind, ProtocolError};
use crate::protocol::poke::{PokeBody, QueryPatch, poke_start};
use crate::protocol::poke_writer::{Place, PokeWriter};
use crate::replica::reader::ReadError;
use crate::testing::faults::{self, Fault};
use crate::testing::met::{Limit, met};
use crate::views::rows::RowMap;
use crate::views::view::{View, ViewId};

/// Changes of the got set that a step brings about.
#[derive(Debug, Default)]
pub struct Transition {
    /// Queries whose pending view is ready: joined, or swapped if they had one.
    pub ready: Vec<String>,
    /// Queries that go: expired or refused.
    pub removed: Vec<String>,
}

/// What journals say of a row.
#[derive(Debug, Clone, Copy, Default)]
struct Noted {
    edited: bool,
}

/// An error while a step was composed: the group cannot go on.
pub fn failed(error: ReadError) -> ProtocolError {
    crate::error!("a step could not be composed: {error}");
    ProtocolError::new(Kind::Internal, error.for_clients())
}

/// Takes a step at the core's version. Returns how many row operations were told.
pub fn step(group: &mut Group, shared: &mut Shared, transition: &Transition) -> Result<usize, ProtocolError> {
    let since = group.version;
    let resumes = !group.held.is_empty();
    let before: Vec<ViewId> = group.views.keys().copied().collect();
    let provable = before.iter().all(|v| shared.views.get(*v).is_none_or(|v| v.journal.reaches(since)));
    let moved = apply(group, shared, transition);
    let after: Vec<ViewId> = group.views.keys().copied().collect();
    let fresh = before.is_empty() && moved.left.is_empty();
    // What nobody is told at once need not be listed at once: it is hundreds of thousands of rows.
    let unlisted = is_oversized(shared, &moved) || (is_left_large(shared, &moved) && !is_heard(group));
    let ops = match fresh || unlisted {
        true => Vec::new(),
        false => operations(shared, &before, &after, &moved, since),
    };
    // A row that no journal names any more may have gone.
    let nothing = provable
        && !unlisted
        && ops.is_empty()
        && moved.got.is_empty()
        && moved.joined.is_empty()
        && !resumes
        && group.pending_lmids.is_empty()
        && group.pending_results.is_empty();
    let changed = after.iter().filter_map(|view| shared.views.get(*view)).map(|view| view.at).max();
    group.version = shared.version.max(changed.unwrap_or(shared.version));
    if nothing {
        // Nobody at this cookie has to be told, but a tab that comes back from an earlier one
        // may hold rows that only the view which was left can name.
        let cookie = group.cookie;
        if !moved.is_empty() {
            shared.note(group);
        }
        keep_left(group, shared, &moved, cookie);
        forget_left(group, shared);
        return Ok(0);
    }
    let previous = group.cookie;
    let is_more_than_data = !moved.is_empty()
        || !group.pending_results.is_empty()
        || resumes
        || !provable
        // What was written of it comes after the batch: the batch does not vouch for it.
        || group.noted_at == shared.version;
    let mut cookie = group.next_cookie(shared.version, shared.epoch)?;
    if is_more_than_data && cookie.step() == 0 {
        // Cookies of plain data follow from the batch, and only they are the first of their version.
        cookie = group.next_cookie(shared.version, shared.epoch)?;
    }
    remember(group, shared, &moved, cookie);
    leave_held(group, shared, cookie);
    if !provable {
        group.floor = cookie;
    }
    if cookie.step() != 0 {
        shared.note(group);
    }
    let previous = provable.then_some(previous);
    let body = account(group, &moved, shared.limits.result_changes);
    let told = match unlisted {
        true => PerDialect::default(),
        false => in_dialects(group, previous, |dialect| compose(shared, &body, &moved, fresh, &ops, dialect))
            .map_err(failed)?,
    };
    deliver(group, shared, previous, cookie, &told);
    // Only now: what was left may be what keeps the numbers of rows that were just told.
    let floor = group.floor;
    forget_left(group, shared);
    if group.floor != floor {
        shared.note(group);
    }
    Ok(told.iter().flatten().map(|told| told.rows).max().unwrap_or(0))
}

/// Whether a joined view is too large to be read by key in one go: its encoded form went to
/// one tab as it was made. The others are brought there in slices.
fn is_oversized(shared: &Shared, moved: &Moved) -> bool {
    let members = |v: &ViewId| shared.views.get(*v).map_or(0, |v| v.state.len());
    moved.joined.iter().any(|v| shared.encoded_view(*v).is_none() && members(v) > shared.limits.small_view)
}

/// Whether a view that was left is so large that its rows are not looked at without need.
fn is_left_large(shared: &Shared, moved: &Moved) -> bool {
    let small = shared.limits.small_view;
    moved.left.iter().any(|(v, _)| shared.views.get(*v).is_some_and(|v| v.size > small))
}

/// Whether anybody is connected.
pub(super) fn is_heard(group: &Group) -> bool {
    !group.connections.is_empty()
}

/// What a transition did to the group's views.
#[derive(Default)]
pub(super) struct Moved {
    pub joined: Vec<ViewId>,
    /// With the cookie since which the group had them.
    pub left: Vec<(ViewId, Cookie)>,
    pub got: Vec<(String, bool)>,
}

impl Moved {
    fn is_empty(&self) -> bool {
        self.joined.is_empty() && self.left.is_empty() && self.got.is_empty()
    }
}

fn apply(group: &mut Group, shared: &mut Shared, transition: &Transition) -> Moved {
    let mut moved = Moved::default();
    for hash in &transition.ready {
        let Some(query) = group.queries.get_mut(hash) else { continue };
        let Some(pending) = query.pending.take() else { continue };
        if let Some(old) = query.current.replace(pending) {
            leave(group, shared, old, &mut moved);
        }
        match group.views.get_mut(&pending) {
            Some((_, queries)) => *queries += 1,
            None => {
                group.views.insert(pending, (group.cookie, 1));
                moved.joined.push(pending);
            }
        }
        let Some(query) = group.queries.get_mut(hash) else { continue };
        query.trouble = None;
        if !std::mem::replace(&mut query.got, true) {
            moved.got.push((hash.clone(), true));
        }
    }
    for hash in &transition.removed {
        let Some(query) = group.queries.get_mut(hash) else { continue };
        let current = query.current.take();
        let pending = query.pending.take();
        // A refused query is told even if it never was got, but not each time that it is tried again.
        if std::mem::take(&mut query.got) || (query.failed && !query.refusal_told) {
            moved.got.push((hash.clone(), false));
        }
        if let Some(pending) = pending {
            give_up(group, shared, pending);
        }
        if let Some(old) = current {
            leave(group, shared, old, &mut moved);
        }
    }
    // A view that one query left and another joined stayed.
    let rejoined: Vec<ViewId> =
        moved.left.iter().map(|(v, _)| *v).filter(|v| group.views.contains_key(v)).collect();
    moved.joined.retain(|v| !rejoined.contains(v));
    for (view, since) in &moved.left {
        if rejoined.contains(view)
            && let Some(entry) = group.views.get_mut(view)
        {
            entry.0 = *since;
        }
    }
    for view in rejoined {
        moved.left.retain(|(v, _)| *v != view);
        // One subscription was counted for the old query, one for the new.
        shared.views.unsubscribe(view);
    }
    moved
}

/// One query of the group does not need the view any more.
fn leave(group: &mut Group, shared: &mut Shared, view: ViewId, moved: &mut Moved) {
    let Some((since, queries)) = group.views.get_mut(&view) else { return };
    *queries -= 1;
    if *queries == 0 {
        // Its subscription is kept until the step has looked at its rows.
        moved.left.push((view, *since));
        group.views.remove(&view);
    } else {
        shared.views.unsubscribe(view);
    }
}

/// Ends one subscription of a group.
pub fn give_up(group: &Group, shared: &mut Shared, view: ViewId) {
    let wanted = group.views.contains_key(&view) || group.queries.values().any(|q| q.pending == Some(view));
    if !wanted && let Some(groups) = shared.interested.get_mut(&view) {
        groups.remove(&group.id);
    }
    if shared.views.unsubscribe(view) {
        let record = shared.record_log.view_gone(view);
        if let Some(id) = record {
            // Groups that have not come back may need what it was.
            let is_held = shared.recovered.give_back(id);
            shared.record_log.gone(id, is_held);
        }
        shared.interested.remove(&view);
        shared.encoded.remove(&view);
    }
}

/// Row operations of the step, in order of row numbers.
fn operations(
    shared: &Shared,
    before: &[ViewId],
    after: &[ViewId],
    moved: &Moved,
    since: StateVersion,
) -> Vec<RowOp> {
    let view = |id: &ViewId| shared.views.get(*id);
    let mut touched: RowMap<Noted> = RowMap::default();
    let before: Vec<(&View, RowMap<bool>)> =
        before.iter().filter_map(view).map(|v| (v, note_journal(v, since, &mut touched))).collect();
    for joined in moved.joined.iter().filter_map(view) {
        for id in joined.state.iter() {
            touched.entry(id).or_default();
        }
    }
    for (left, _) in &moved.left {
        for id in view(left).into_iter().flat_map(|v| v.state.iter()) {
            touched.entry(id).or_default();
        }
    }
    let after: Vec<&View> = after.iter().filter_map(view).collect();
    let mut ops = Vec::new();
    for (id, noted) in touched {
        let held = |(v, first): &(&View, RowMap<bool>)| {
            first.get(&id).copied().unwrap_or_else(|| v.state.contains(id))
        };
        let alive_before = before.iter().any(held);
        let left = |v: &(&View, RowMap<bool>)| held(v) && !v.0.state.contains(id);
        let forgotten = faults::is_on(Fault::Alive) && before.iter().any(left);
        let alive_after = after.iter().any(|v| v.state.contains(id)) && !forgotten;
        match (alive_before, alive_after) {
            (false, true) => ops.push(RowOp::Put(id)),
            (true, true) if noted.edited => ops.push(RowOp::Put(id)),
            (true, false) => ops.push(RowOp::Del(id)),
            _ => {}
        }
    }
    ops.sort_unstable_by_key(|op| match op {
        RowOp::Put(id) | RowOp::Del(id) => *id,
    });
    ops
}

/// Notes the rows that the journal names since then. Returns for each whether the view
/// held it at the beginning: the first that happened to it tells.
fn note_journal(view: &View, since: StateVersion, touched: &mut RowMap<Noted>) -> RowMap<bool> {
    let mut first = RowMap::default();
    for delta in view.journal.since(since) {
        for id in &delta.entered {
            first.entry(*id).or_insert(false);
            touched.entry(*id).or_default();
        }
        for id in delta.left.iter().chain(&delta.edited) {
            first.entry(*id).or_insert(true);
            // A row that left may come back changed.
            touched.entry(*id).or_default().edited = true;
        }
    }
    first
}

/// What a step tells beside rows. It has happened, whoever is told.
fn account(group: &mut Group, moved: &Moved, most: usize) -> PokeBody {
    let mut body = PokeBody::default();
    for (hash, got) in &moved.got {
        let hash = hash.clone();
        body.got.push(if *got { QueryPatch::Put(hash) } else { QueryPatch::Del(hash) });
    }
    body.mutations = std::mem::take(&mut group.pending_results);
    for change in &body.mutations {
        group.result_changes.push_back((group.cookie, change.clone()));
    }
    while group.result_changes.len() > most {
        met(Limit::ResultChanges);
        if let Some((cookie, _)) = group.result_changes.pop_front() {
            group.floor = group.floor.max(cookie);
        }
    }
    body.lmids = std::mem::take(&mut group.pending_lmids).into_iter().collect();
    body
}

/// Makes what a step tells, in each dialect that somebody is told it in.
fn in_dialects(
    group: &Group,
    previous: Option<Cookie>,
    mut tell: impl FnMut(Dialect) -> Result<Told, ReadError>,
) -> Result<PerDialect<Option<Told>>, ReadError> {
    let mut told = PerDialect::default();
    for dialect in Dialect::ALL {
        let mut of_it = group.connections.iter().filter(|c| c.dialect == dialect);
        if of_it.any(|c| receives(c, group.first_cookie, previous)) {
            told[dialect] = Some(tell(dialect)?);
        }
    }
    Ok(told)
}

/// Sends a step to every connection that is exactly at the cookie before it; to nobody if
/// there is no such cookie. The others are brought there by a catch-up.
fn deliver(
    group: &mut Group,
    shared: &mut Shared,
    previous: Option<Cookie>,
    cookie: Cookie,
    told: &PerDialect<Option<Told>>,
) {
    let first_cookie = group.first_cookie;
    for connection in &mut group.connections {
        let told = told[connection.dialect].as_ref();
        let Some(told) = told.filter(|_| receives(connection, first_cookie, previous)) else {
            fall_behind(connection);
            continue;
        };
        let base = connection.cookie.map(|l| l.to_string());
        let mut frames = Vec::with_capacity(told.frames.len() + 2);
        frames.push(poke_start(&told.poke_id, base.as_deref()));
        frames.extend(told.frames.iter().cloned());
        frames.push(shared.end_frame(&told.poke_id, &cookie.to_string()));
        connection.cookie = Some(cookie);
        connection.sink.send(&frames);
    }
}

fn receives(connection: &Connection, first_cookie: Cookie, previous: Option<Cookie>) -> bool {
    if faults::is_on(Fault::Sockets) {
        return connection.phase != Phase::CatchingUp;
    }
    let in_step = previous == Some(connection.cookie.unwrap_or(first_cookie));
    connection.phase == Phase::Live && in_step && !connection.sink.is_behind()
}

/// The cookie of a client that has nothing, as cookies compare.
pub const ZERO: Cookie = Cookie { major: 0, config: 0 };

fn fall_behind(connection: &mut Connection) {
    if connection.phase == Phase::Live {
        connection.phase = Phase::Behind;
    }
}

/// Tells a change of the configuration: no rows, so it may happen at any time (rule 14).
pub fn config_step(
    group: &mut Group,
    shared: &mut Shared,
    change: &super::config_change::ConfigChange,
) -> Result<(), ProtocolError> {
    if !change.is_change() {
        return Ok(());
    }
    let previous = group.cookie;
    // The major stays: no data came with it.
    let cookie = group.next_cookie(StateVersion(previous.major), shared.epoch)?;
    group.stamp(change, cookie);
    shared.note(group);
    let poke_id = cookie.to_string();
    let body = PokeBody { desired: change.desired.clone(), ..PokeBody::default() };
    let tell = |dialect| {
        let mut poke = PokeWriter::new(Place::first(dialect), &poke_id);
        poke.part(&body);
        Ok(Told { poke_id: poke_id.clone(), frames: poke.finish(), rows: 0 })
    };
    let told = in_dialects(group, Some(previous), tell).map_err(failed)?;
    deliver(group, shared, Some(previous), cookie, &told);
    Ok(())
}
