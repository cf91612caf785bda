//! Bringing one connection to its group's state: a tab that was away, a tab that has
//! nothing, a socket that was slow (rules 19 to 22).
//!
//! A catch-up is one poke, written in slices between batches. Each slice gives rows as
//! they are when it is written; at the end comes the net of everything that happened
//! meanwhile, and the poke ends at the group's cookie of that moment.

use std::collections::VecDeque;

use bytes::Bytes;

use super::group::{Group, LeftView};
use super::shared::{RowOp, Shared};
use super::step::failed;
use crate::groups::sink::{Connection, Phase};
use crate::model::ids::ConnectionId;
use crate::model::version::StateVersion;
use crate::protocol::cookie::Cookie;
use crate::protocol::error::ProtocolError;
use crate::protocol::mutation_result::result_put;
use crate::protocol::poke::{PokeBody, QueryPatch, poke_cancel, poke_start};
use crate::protocol::poke_writer::{Place, PokeWriter};
use crate::testing::faults::{self, Fault};
use crate::testing::met::{Limit, met};
use crate::views::rows::{RowId, RowSet};
use crate::views::view::ViewId;

/// What a tab holds already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Base {
    /// Nothing.
    Nothing,
    /// The group's state at this cookie, which history still covers.
    Cookie(Cookie),
    /// Something that cannot be proved: everything is cleared first (rule 21).
    Unknown(Cookie),
}

impl Base {
    /// Cookie whose state the tab has.
    fn cookie(self) -> Option<Cookie> {
        match self {
            Base::Cookie(cookie) => Some(cookie),
            Base::Nothing | Base::Unknown(_) => None,
        }
    }
}

/// A catch-up under way.
pub struct CatchUp {
    connection: ConnectionId,
    base: Base,
    poke_id: String,
    /// Where the poke goes on.
    place: Place,
    /// Cookie whose state the rows written and still to be written add up to.
    reached: Option<Cookie>,
    /// Version of that state.
    version: StateVersion,
    /// Rows still to be written; holds references.
    rows: VecDeque<RowId>,
    started: bool,
    /// Rows that a hydration has written, or still writes.
    stream: Option<StreamedView>,
}

/// Rows of one view, as they are at one version, that a hydration writes into the poke.
#[derive(Debug, Clone, Copy)]
pub struct StreamedView {
    /// The view; the group waits for it.
    pub view: ViewId,
    /// Its life.
    pub generation: u64,
    /// Version of the rows.
    pub at: StateVersion,
    /// The hydration has not written all of them yet.
    pub reading: bool,
}

/// What has become of a stream.
enum Fate {
    /// The view is not the group's yet.
    Waits,
    /// The group has the view: what was sent is part of its state.
    Joined,
    /// The group does not want the view any more, or the view is gone.
    Void,
}

/// What to do after a slice.
#[derive(Debug, PartialEq, Eq)]
pub enum Progress {
    /// Call again when the socket takes more and no batch is running.
    More,
    /// The connection is live.
    Done,
    /// The group has to be hydrated, or the replica has to come so far, first.
    Wait,
}

impl CatchUp {
    /// Prepares the catch-up of a connection. Nothing is sent yet.
    pub fn new(group: &Group, shared: &Shared, connection: ConnectionId, serial: u64) -> Option<CatchUp> {
        let Connection { cookie, dialect, .. } = group.connections.iter().find(|c| c.id == connection)?;
        let base = match *cookie {
            None => Base::Nothing,
            Some(cookie) if provable(group, shared, cookie) => Base::Cookie(cookie),
            Some(cookie) => Base::Unknown(cookie),
        };
        Some(CatchUp {
            connection,
            base,
            poke_id: format!("c{serial}"),
            place: Place::first(*dialect),
            reached: base.cookie(),
            version: StateVersion::ZERO,
            rows: VecDeque::new(),
            started: false,
            stream: None,
        })
    }

    /// The catch-up of a connection at its group's cookie, which has no rows: a hydration writes
    /// those of a view while it reads them. The poke has been started already.
    pub fn of_stream(connection: &Connection, cookie: Cookie, poke_id: &str, view: StreamedView) -> CatchUp {
        CatchUp {
            connection: connection.id,
            place: Place::first(connection.dialect),
            base: Base::Cookie(cookie),
            poke_id: poke_id.to_owned(),
            reached: Some(cookie),
            version: StateVersion(cookie.major),
            rows: VecDeque::new(),
            started: true,
            stream: Some(view),
        }
    }

    /// Whether a hydration writes this view's rows into the poke.
    pub fn is_reading(&self, generation: u64) -> bool {
        self.stream.is_some_and(|s| s.generation == generation && s.reading)
    }

    /// Whether a hydration has written all rows of this view into the poke.
    pub fn has_read(&self, generation: u64) -> bool {
        self.stream.is_some_and(|s| s.generation == generation && !s.reading)
    }

    /// The hydration has written the last row, or given up.
    pub fn end_reading(&mut self) {
        if let Some(stream) = &mut self.stream {
            stream.reading = false;
        }
    }

    /// Writes on in the poke; [`CatchUp::pause`] gives the frames.
    pub fn go_on(&self) -> PokeWriter {
        PokeWriter::new(self.place, &self.poke_id)
    }

    /// The frames that were written. The poke goes on later.
    pub fn pause(&mut self, poke: PokeWriter) -> Vec<Bytes> {
        let (frames, place) = poke.pause();
        self.place = place;
        frames
    }

    fn fate(stream: &StreamedView, group: &Group, shared: &Shared) -> Fate {
        let alive = shared.views.get(stream.view).is_some_and(|v| v.generation == stream.generation);
        if !alive {
            return Fate::Void;
        }
        if group.views.contains_key(&stream.view) && !stream.reading {
            return Fate::Joined;
        }
        match group.queries.values().any(|q| q.pending == Some(stream.view)) {
            true => Fate::Waits,
            false => Fate::Void,
        }
    }

    /// Whether the poke is open on the connection.
    pub fn is_open(&self) -> bool {
        self.started
    }

    /// Writes the next slice. Must be called between batches.
    pub fn slice(&mut self, group: &mut Group, shared: &mut Shared) -> Result<Progress, ProtocolError> {
        if group.is_held(shared) && !faults::is_on(Fault::Hold) {
            return Ok(Progress::Wait);
        }
        if let Base::Unknown(cookie) = self.base {
            // Cookies of this epoch pass those of a later one only with the next version.
            let behind = (cookie.major, cookie.epoch()) > (shared.version.0, shared.epoch);
            if (behind || group.is_waiting()) && !self.started {
                return Ok(Progress::Wait);
            }
        }
        let fate = self.stream.map(|stream| Self::fate(&stream, group, shared));
        if matches!(fate, Some(Fate::Waits)) {
            return Ok(Progress::Wait);
        }
        let mut frames = Vec::new();
        if matches!(fate, Some(Fate::Void)) || (self.started && !self.can_go_on(group, shared)) {
            self.start_over(group, shared, &mut frames);
            if let Some(connection) = group.connection(self.connection) {
                connection.sink.send(&frames);
            }
            return Ok(Progress::More);
        }
        if !self.started && self.base == Base::Cookie(group.cookie) {
            // What was sent has been taken back, and nothing else has happened.
            if let Some(connection) = group.connection(self.connection) {
                connection.sink.send(&frames);
                connection.phase = Phase::Live;
            }
            return Ok(Progress::Done);
        }
        let mut poke = self.go_on();
        if !self.started {
            frames.push(self.begin(group, shared, &mut poke)?);
        }
        self.write_rows(group, shared, &mut poke)?;
        // Only what is collected now adds up to the state of now: rows that are left over from
        // an earlier slice do not know of the batches since.
        let mut done = false;
        if self.rows.is_empty() {
            self.collect(group, shared);
            done = self.rows.len() <= shared.limits.catch_up_rows;
        }
        if done {
            self.write_rows(group, shared, &mut poke)?;
            poke.part(&config_since(group, self.base.cookie()));
            frames.extend(poke.finish());
            frames.push(shared.end_frame(&self.poke_id, &group.cookie.to_string()));
        } else {
            frames.extend(self.pause(poke));
        }
        let cookie = group.cookie;
        if let Some(connection) = group.connection(self.connection) {
            connection.sink.send(&frames);
            if done {
                connection.cookie = Some(cookie);
                connection.phase = Phase::Live;
            }
        }
        Ok(if done { Progress::Done } else { Progress::More })
    }

    /// Begins the poke. Returns the frame that it begins with.
    fn begin(
        &mut self,
        group: &mut Group,
        shared: &mut Shared,
        poke: &mut PokeWriter,
    ) -> Result<Bytes, ProtocolError> {
        self.started = true;
        let base = match self.base {
            Base::Nothing => None,
            Base::Cookie(cookie) | Base::Unknown(cookie) => Some(cookie),
        };
        if let Base::Unknown(cookie) = self.base {
            // The cookie must be after what the tab has, or it would ignore the poke.
            while group.cookie <= cookie && !faults::is_on(Fault::Cookies) {
                group.next_cookie(shared.version, shared.epoch)?;
            }
            shared.note(group);
        }
        if matches!(self.base, Base::Unknown(_)) && !faults::is_on(Fault::Clear) {
            // Alone in its part: the client forgets everything before it in the same part.
            poke.part(&PokeBody::clear());
        }
        Ok(poke_start(&self.poke_id, base.map(|c| c.to_string()).as_deref()))
    }

    /// Whether everything that happened since the state reached is still known.
    fn can_go_on(&self, group: &Group, shared: &Shared) -> bool {
        let Some(reached) = self.reached else { return true };
        let streamed = |s: StreamedView| shared.views.get(s.view).is_some_and(|v| v.journal.reaches(s.at));
        // The rows so far are those of the cookie reached. Desires, queries and results are written at the end, all that
        // changed since the tab's own cookie.
        let since = match self.base {
            Base::Cookie(cookie) => cookie,
            Base::Nothing | Base::Unknown(_) => reached,
        };
        since >= group.floor
            && self.stream.is_none_or(streamed)
            && group.views.iter().all(|(view, (since, _))| {
                *since > reached || shared.views.get(*view).is_some_and(|v| v.journal.reaches(self.version))
            })
    }

    /// Takes back what was sent of the poke: more happened meanwhile than is remembered, or it
    /// is not wanted any more.
    fn start_over(&mut self, group: &Group, shared: &Shared, frames: &mut Vec<Bytes>) {
        frames.push(poke_cancel(&self.poke_id));
        self.place = Place::first(self.place.dialect);
        if let Base::Cookie(cookie) = self.base
            && !provable(group, shared, cookie)
        {
            self.base = Base::Unknown(cookie);
        }
        shared.rows.borrow_mut().release_all(&self.rows.drain(..).collect::<Vec<_>>());
        self.reached = self.base.cookie();
        self.stream = None;
        self.version = StateVersion::ZERO;
        self.started = false;
    }

    /// Finds the rows that may differ between the state reached and the state now.
    fn collect(&mut self, group: &Group, shared: &mut Shared) {
        let mut rows: Vec<RowId> = match self.reached {
            None => all_rows(group, shared, self.connection),
            Some(cookie) => touched(group, shared, cookie, self.version, self.stream.take()),
        };
        rows.sort_unstable();
        rows.dedup();
        let mut numbers = shared.rows.borrow_mut();
        rows.iter().for_each(|id| numbers.acquire(*id));
        self.rows = rows.into();
        self.reached = Some(group.cookie);
        self.version = shared.version;
    }

    fn write_rows(
        &mut self,
        group: &Group,
        shared: &mut Shared,
        poke: &mut PokeWriter,
    ) -> Result<(), ProtocolError> {
        let most = shared.limits.catch_up_rows;
        if self.rows.len() > most {
            met(Limit::CatchUpRows);
        }
        let count = self.rows.len().min(most);
        let rows: Vec<RowId> = self.rows.drain(..count).collect();
        let alive = |id: RowId| {
            group.views.keys().any(|v| shared.views.get(*v).is_some_and(|v| v.state.contains(id)))
        };
        let ops: Vec<RowOp> =
            rows.iter().map(|id| if alive(*id) { RowOp::Put(*id) } else { RowOp::Del(*id) }).collect();
        let written = shared.write_rows(&ops, poke);
        shared.rows.borrow_mut().release_all(&rows);
        written.map_err(failed)
    }

    /// Gives up; call it when the connection goes in the middle.
    pub fn abandon(self, shared: &Shared) {
        shared.rows.borrow_mut().release_all(&self.rows.into_iter().collect::<Vec<_>>());
    }
}

/// Whether everything that happened since this cookie is known.
fn provable(group: &Group, shared: &Shared, cookie: Cookie) -> bool {
    let major = StateVersion(cookie.major);
    is_of_history(group, shared, cookie)
        && cookie <= group.cookie
        && cookie >= group.floor
        && group.views.iter().all(|(view, (since, _))| {
            *since > cookie || shared.views.get(*view).is_some_and(|v| v.journal.reaches(major))
        })
}

/// Whether a cookie was issued in a history that is known.
pub(super) fn is_of_history(group: &Group, shared: &Shared, cookie: Cookie) -> bool {
    cookie.epoch() == shared.epoch || group.seals.iter().any(|seal| seal.covers(cookie))
}

fn all_rows(group: &Group, shared: &Shared, connection: ConnectionId) -> Vec<RowId> {
    let mut rows = RowSet::default();
    for id in group.views.keys() {
        if faults::is_on(Fault::OwnRows) && !group.is_wanted_by(connection, *id) {
            continue;
        }
        rows.extend(shared.views.get(*id).into_iter().flat_map(|view| view.state.iter()));
    }
    rows.into_iter().collect()
}

/// Rows that may differ from the state at `cookie` (rule 19). `version`: the data version
/// of that state if it is known; else its major is a lower bound. Of a streamed view the tab
/// has every row as it was then.
fn touched(
    group: &Group,
    shared: &Shared,
    cookie: Cookie,
    version: StateVersion,
    stream: Option<StreamedView>,
) -> Vec<RowId> {
    let mut rows = Vec::new();
    let since = version.max(StateVersion(cookie.major));
    for (id, (got_since, _)) in &group.views {
        let Some(view) = shared.views.get(*id) else { continue };
        if let Some(stream) = stream.filter(|s| s.view == *id) {
            rows.extend(view.journal.since(stream.at).flat_map(|d| d.rows()));
            continue;
        }
        if *got_since > cookie {
            rows.extend(view.state.iter());
        }
        rows.extend(view.journal.since(since).flat_map(|d| d.rows()));
    }
    let is_missed = |l: &&LeftView| l.until > cookie && l.since <= cookie && !faults::is_on(Fault::Left);
    for left in group.left.iter().filter(is_missed) {
        rows.extend(left.rows.iter().copied());
    }
    rows
}

/// Everything beside rows that changed since then, or all of it.
fn config_since(group: &Group, since: Option<Cookie>) -> PokeBody {
    let newer = |cookie: Cookie| since.is_none_or(|since| cookie > since);
    let mut body = PokeBody::default();
    for (client, record) in &group.clients {
        let mut patches = Vec::new();
        for (hash, desire) in record.desires.iter().filter(|(_, d)| newer(d.changed)) {
            if desire.desired {
                patches.push(QueryPatch::Put(hash.clone()));
            } else if since.is_some() {
                patches.push(QueryPatch::Del(hash.clone()));
            }
        }
        if !patches.is_empty() {
            body.desired.push((client.clone(), patches));
        }
    }
    for (hash, query) in group.queries.iter().filter(|(_, q)| newer(q.got_changed)) {
        if query.got {
            body.got.push(QueryPatch::Put(hash.clone()));
        }
    }
    if let Some(since) = since {
        for (hash, _) in group.removed_queries.iter().filter(|(_, cookie)| *cookie > since) {
            if !group.queries.get(hash).is_some_and(|q| q.got) {
                body.got.push(QueryPatch::Del(hash.clone()));
            }
        }
    }
    body.lmids = group.lmids.iter().map(|(client, id)| (client.clone(), *id)).collect();
    body.mutations = match since {
        None => group.results.iter().map(|((client, id), json)| result_put(client, *id, json)).collect(),
        Some(since) => {
            group.result_changes.iter().filter(|(l, _)| *l > since).map(|(_, json)| json.clone()).collect()
        }
    };
    body
}
