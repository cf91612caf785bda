//! All client groups of one core, and what is to be done for them.
//!
//! Events come in as calls; what they ask of the world comes out as return values and
//! through each connection's [`Sink`]. The clock is an argument. The server drives it: it
//! runs batches and lanes, and calls [`Syncer::work`] between batches.

use std::collections::BTreeSet;
use std::rc::Rc;

use hashbrown::{HashMap, HashSet};
use serde_json::Value;

use super::catchup::{CatchUp, Progress};
use super::group::{ConfigChange, Group};
use super::mutations::MutationTables;
use super::query::Spec;
use super::schema;
use super::shared::Shared;
use super::sink::{Connection, ConnectionId, Phase, Sink};
use super::step::{Transition, ZERO, config_step, failed, give_up, step};
use crate::changes::batch::{Batch, TableBatch};
use crate::changes::version::StateVersion;
use crate::protocol::client_schema::ClientSchema;
use crate::protocol::cookie::Cookie;
use crate::protocol::downstream::transform_error;
use crate::protocol::error::{Kind, ProtocolError};
use crate::protocol::upstream::{InitConnection, QueryBody, QueryOp};
use crate::views::full::Full;
use crate::views::view::{State, ViewId};
use crate::zql::ast::{self, Ast, Condition, Strictness};
use crate::zql::{canonical, plan};

/// How long a group and its views stay after its last connection went, in milliseconds
/// (ruling 16): a page reload finds them.
pub const LINGER: f64 = 60_000.0;

/// Most groups without connections that a core remembers: what they were told is a few
/// kilobytes each, and without it their clients lose their unsent mutations.
pub const MAX_IDLE_GROUPS: usize = 20_000;

/// How long an encoded view is kept for others who ask for the same, in milliseconds.
pub const KEEP_FULL: f64 = 2_000.0;

/// Most bytes of encoded views kept on a core once nobody waits for them. Several clients
/// that ask for the same at the same moment find them; a thousand different queries must
/// not pile theirs up.
pub const MAX_FULLS: usize = 8 << 20;

/// Rows up to which a view that exists already is sent by reading its rows by key.
const SMALL_VIEW: usize = 1_000;

/// A query to be transformed by the app.
#[derive(Debug, Clone, PartialEq)]
pub struct Named {
    /// Its hash.
    pub hash: String,
    /// Name.
    pub name: String,
    /// JSON array.
    pub args: String,
}

/// Answer of the app for one query.
pub enum Transformed {
    /// The query to execute.
    Ast(Box<Ast>),
    /// Refused; an entry of `transformError`.
    Refused(Value),
}

/// Who connects.
pub struct Arrival {
    /// Number of the connection.
    pub id: ConnectionId,
    /// Tab.
    pub client_id: String,
    /// Group.
    pub group_id: Rc<str>,
    /// User that the connection was validated for.
    pub user_id: Option<String>,
    /// Cookie in the URL, if the tab has one.
    pub base_cookie: Option<Cookie>,
    /// Way out.
    pub sink: Rc<dyn Sink>,
}

/// A view that has to be read in a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaneRequest {
    /// The view.
    pub view: ViewId,
    /// Its life: a result for another one is thrown away.
    pub incarnation: u64,
}

/// The groups of a core.
pub struct Syncer {
    /// What they share.
    pub shared: Shared,
    /// Groups by id.
    pub groups: HashMap<Rc<str>, Group>,
    connections: HashMap<ConnectionId, Rc<str>>,
    catchups: HashMap<ConnectionId, CatchUp>,
    tables: Option<MutationTables>,
    /// Groups with something to do between batches.
    due: BTreeSet<Rc<str>>,
    lanes: HashMap<ViewId, u64>,
    requested: Vec<LaneRequest>,
    full_since: HashMap<ViewId, f64>,
    serial: u64,
}

impl Syncer {
    /// `schema`: the shard's schema upstream.
    pub fn new(shared: Shared, schema: &str) -> Syncer {
        let tables = MutationTables::find(&shared.catalogue, schema);
        Syncer {
            shared,
            groups: HashMap::new(),
            connections: HashMap::new(),
            catchups: HashMap::new(),
            tables,
            due: BTreeSet::new(),
            lanes: HashMap::new(),
            requested: Vec::new(),
            full_since: HashMap::new(),
            serial: 0,
        }
    }

    /// Checks what can be checked before the app is asked: cookie, client schema, user
    /// (`docs/spec/view-syncer.md` §2.4).
    pub fn check(&self, arrival: &Arrival, init: &InitConnection) -> Result<(), ProtocolError> {
        let known = self.groups.get(&arrival.group_id);
        let Some(group) = known else {
            return match (&arrival.base_cookie, &init.client_schema) {
                (Some(cookie), _) if *cookie > ZERO => Err(ProtocolError::new(
                    Kind::ClientNotFound,
                    "the client group is not known here; it has to start anew",
                )),
                (_, None) => Err(ProtocolError::new(
                    Kind::InvalidConnectionRequest,
                    "a new client group must send its client schema",
                )),
                (_, Some(sent)) => self.check_schema(sent),
            };
        };
        if init.client_schema.as_ref().is_some_and(|sent| *sent != group.schema) {
            return Err(ProtocolError::new(
                Kind::InvalidConnectionRequest,
                "the client schema differs from the one that the client group began with",
            ));
        }
        match arrival.base_cookie {
            Some(cookie) if self.is_impossible(group, cookie) => Err(ProtocolError::new(
                Kind::InvalidConnectionRequestBaseCookie,
                format!("the client has cookie {cookie}, which is ahead of the server's {}", group.label),
            )),
            _ => Ok(()),
        }
    }

    fn check_schema(&self, sent: &ClientSchema) -> Result<(), ProtocolError> {
        schema::resolve(sent, &self.shared.catalogue).map(|_| ())
    }

    /// Whether nobody can have issued this cookie to the group (rule 21): it is of our
    /// epoch, or of a server without epochs, and ahead of what was issued.
    fn is_impossible(&self, group: &Group, cookie: Cookie) -> bool {
        (cookie.epoch() == self.shared.epoch || cookie.config == 0) && cookie > group.label
    }

    /// Named queries that the app has to transform for a connection that arrives: those of
    /// the group, and those that it brings.
    pub fn prospective(&self, group_id: &str, ops: &[QueryOp]) -> Vec<Named> {
        let mut out: Vec<Named> = Vec::new();
        let mut seen: HashSet<&str> = HashSet::new();
        if let Some(group) = self.groups.get(group_id) {
            // A refused query is asked for again only when a client puts it again.
            for (hash, query) in group.queries.iter().filter(|(_, query)| !query.failed) {
                out.extend(named(hash, &query.spec));
                seen.insert(hash);
            }
        }
        for op in ops {
            if let QueryOp::Put { hash, query: Some(QueryBody::Named { name, args }), .. } = op
                && seen.insert(hash)
            {
                out.push(Named { hash: hash.clone(), name: name.clone(), args: args.get().to_owned() });
            }
        }
        out
    }

    /// Takes a validated connection in: registers the client, applies what it brings, tells
    /// everybody (`docs/spec/sync-protocol.md` §4.4).
    pub fn init(&mut self, arrival: Arrival, init: &InitConnection, now: f64) -> Result<(), ProtocolError> {
        // The world may have changed while the app was asked.
        self.check(&arrival, init)?;
        let group_id = arrival.group_id.clone();
        let known = self.groups.contains_key(&group_id);
        let joined = self.join(arrival, init, now);
        if joined.is_err() && !known {
            // Nobody has been told anything of it.
            self.drop_group(&group_id);
        }
        joined
    }

    fn join(&mut self, arrival: Arrival, init: &InitConnection, now: f64) -> Result<(), ProtocolError> {
        if !self.groups.contains_key(&arrival.group_id) {
            let Some(schema) = init.client_schema.clone() else { return Ok(()) };
            let keys = schema::resolve(&schema, &self.shared.catalogue)?;
            let group = Group::new(arrival.group_id.clone(), schema, keys);
            self.groups.insert(arrival.group_id.clone(), group);
        }
        let Some(group) = self.groups.get_mut(&arrival.group_id) else { return Ok(()) };
        match &group.user {
            Some(user) if *user != arrival.user_id => {
                return Err(ProtocolError::new(
                    Kind::Unauthorized,
                    "the client group belongs to another user",
                ));
            }
            _ => group.user = Some(arrival.user_id.clone()),
        }
        if init.deleted.iter().flatten().any(|id| *id == arrival.client_id) {
            return Err(ProtocolError::new(Kind::Internal, "a client must not delete itself"));
        }
        let mut change = ConfigChange::default();
        group.register(&arrival.client_id, &mut change)?;
        if let Err(error) = group.desire(&arrival.client_id, &init.desired, now, &mut change) {
            // What was taken before a limit was reached has happened: the other tabs are told.
            config_step(group, &mut self.shared, &change)?;
            self.due.insert(arrival.group_id);
            return Err(error);
        }
        if let Some(active) = &init.active_clients {
            let active: HashSet<&String> = active.iter().collect();
            let gone: Vec<String> = group
                .clients
                .iter()
                .filter(|(id, c)| !c.deleted && **id != arrival.client_id && !active.contains(id))
                .map(|(id, _)| id.clone())
                .collect();
            gone.iter().for_each(|id| group.delete_client(id, now, &mut change));
        }
        for id in init.deleted.iter().flatten() {
            group.delete_client(id, now, &mut change);
        }
        // A tab exactly at the group's label takes part in its steps from here on.
        let in_step = arrival.base_cookie.unwrap_or(ZERO) == group.label && group.label >= group.floor;
        group.connections.push(Connection {
            id: arrival.id,
            client_id: arrival.client_id,
            sink: arrival.sink.clone(),
            label: arrival.base_cookie,
            phase: if in_step { Phase::Live } else { Phase::Behind },
        });
        self.connections.insert(arrival.id, arrival.group_id.clone());
        group.connections_changed(now);
        if in_step && !change.is_change() {
            // The first poke is due even if it is empty: the client trusts its queries only
            // after one (trap T8).
            greet(group, &mut self.shared, arrival.id);
        }
        config_step(group, &mut self.shared, &change)?;
        if let Some(ids) = init.deleted.as_ref().filter(|ids| !ids.is_empty()) {
            acknowledge_deletions(group, ids);
        }
        self.due.insert(arrival.group_id);
        Ok(())
    }

    /// Applies a change of a client's desired set.
    pub fn change_desired(
        &mut self,
        id: ConnectionId,
        ops: &[QueryOp],
        now: f64,
    ) -> Result<(), ProtocolError> {
        let Some((group, shared, client)) = self.of_connection(id) else { return Ok(()) };
        let mut change = ConfigChange::default();
        let desired = group.desire(&client, ops, now, &mut change);
        // What was taken before a limit was reached has happened: the other tabs are told.
        config_step(group, shared, &change)?;
        let group_id = group.id.clone();
        self.due.insert(group_id);
        desired
    }

    /// Deletes clients of the group and tells all its tabs.
    pub fn delete_clients(
        &mut self,
        id: ConnectionId,
        ids: &[String],
        now: f64,
    ) -> Result<(), ProtocolError> {
        let Some((group, shared, client)) = self.of_connection(id) else { return Ok(()) };
        if ids.contains(&client) {
            return Err(ProtocolError::new(Kind::Internal, "a client must not delete itself"));
        }
        let mut change = ConfigChange::default();
        ids.iter().for_each(|id| group.delete_client(id, now, &mut change));
        config_step(group, shared, &change)?;
        if !ids.is_empty() {
            acknowledge_deletions(group, ids);
        }
        Ok(())
    }

    fn of_connection(&mut self, id: ConnectionId) -> Option<(&mut Group, &mut Shared, String)> {
        let group_id = self.connections.get(&id)?;
        let group = self.groups.get_mut(group_id)?;
        let client = group.connection(id)?.client_id.clone();
        Some((group, &mut self.shared, client))
    }

    /// Id of the group that a connection has joined.
    pub fn group_of(&self, id: ConnectionId) -> Option<Rc<str>> {
        self.connections.get(&id).cloned()
    }

    /// The connection of a client, if it has one.
    pub fn connection_of(&self, group_id: &str, client_id: &str) -> Option<ConnectionId> {
        let group = self.groups.get(group_id)?;
        group.connections.iter().find(|c| c.client_id == client_id).map(|c| c.id)
    }

    /// Takes a connection out.
    pub fn disconnect(&mut self, id: ConnectionId, now: f64) {
        if let Some(catchup) = self.catchups.remove(&id) {
            catchup.abandon(&self.shared);
        }
        let Some(group_id) = self.connections.remove(&id) else { return };
        let Some(group) = self.groups.get_mut(&group_id) else { return };
        group.connections.retain(|c| c.id != id);
        group.connections_changed(now);
    }

    /// Queries of a group that have to be transformed now; `all`: those that were, too.
    /// Queries that clients spelled out are transformed at once.
    pub fn transform(&mut self, group_id: &str, all: bool) -> (u64, Vec<Named>) {
        let Some(group) = self.groups.get_mut(group_id) else { return (0, Vec::new()) };
        group.transformations += 1;
        let serial = group.transformations;
        let mut out = Vec::new();
        let mut spelled = Vec::new();
        for (hash, query) in &mut group.queries {
            if !query.is_missing() && (!all || query.failed) {
                continue;
            }
            match named(hash, &query.spec) {
                Some(named) => {
                    query.transforming = Some(serial);
                    out.push(named);
                }
                None if query.is_missing() => spelled.push(hash.clone()),
                None => {}
            }
        }
        let id = group.id.clone();
        for hash in spelled {
            self.execute_spelled(&id, &hash);
        }
        (serial, out)
    }

    /// A request for transformations failed as a whole: the queries stay as they are.
    pub fn transform_failed(&mut self, group_id: &str, serial: u64) {
        let Some(group) = self.groups.get_mut(group_id) else { return };
        for query in group.queries.values_mut().filter(|q| q.transforming == Some(serial)) {
            query.transforming = None;
        }
    }

    /// Takes the app's answer for one query. `serial`: that of the request; `None` for the
    /// request that validated a connection, whose answers count for whoever has none.
    pub fn transformed(&mut self, group_id: &str, hash: &str, serial: Option<u64>, answer: Transformed) {
        let Some(group) = self.groups.get_mut(group_id) else { return };
        let id = group.id.clone();
        let Some(query) = group.queries.get_mut(hash) else { return };
        if query.failed || (serial.is_some() && query.transforming != serial) {
            return;
        }
        query.transforming = None;
        match answer {
            Transformed::Ast(ast) => self.execute(&id, hash, &ast),
            Transformed::Refused(error) => self.refuse(&id, hash, error),
        }
    }

    /// Queries that clients spell out are subject to read permissions. There are none, so
    /// they have no rows (`docs/spec/zql.md` §14).
    fn execute_spelled(&mut self, group_id: &Rc<str>, hash: &str) {
        let Some(Spec::Ast(json)) =
            self.groups.get(group_id).and_then(|g| g.queries.get(hash)).map(|q| q.spec.clone())
        else {
            return;
        };
        match ast::parse(&json, Strictness::Strict) {
            Ok(mut ast) => {
                ast.condition = Some(Condition::Or(Vec::new()));
                ast.related.clear();
                self.execute(group_id, hash, &ast);
            }
            Err(error) => self.refuse(group_id, hash, refusal(hash, "", &error.to_string())),
        }
    }

    /// Gives a query the view that answers it.
    fn execute(&mut self, group_id: &Rc<str>, hash: &str, ast: &Ast) {
        let Some(group) = self.groups.get_mut(group_id) else { return };
        let planned = match plan::plan(ast, &self.shared.catalogue, &group.keys) {
            Ok(planned) => planned,
            Err(error) => {
                let name = query_name(group, hash);
                return self.refuse(group_id, hash, refusal(hash, &name, &error.to_string()));
            }
        };
        let mut key = Vec::with_capacity(512);
        key.extend(self.shared.catalogue.epoch.to_be_bytes());
        canonical::write(ast, &mut key);
        group.keys.write(&planned.tables, &mut key);
        let catalogue = self.shared.catalogue.clone();
        let view = self.shared.views.subscribe(key.into(), &catalogue, || Rc::new(planned));
        let Some(query) = group.queries.get_mut(hash) else {
            give_up(group, &mut self.shared, view);
            return;
        };
        if query.pending == Some(view) || (query.current == Some(view) && query.pending.is_none()) {
            // The same answer as before.
            self.shared.views.unsubscribe(view);
            return;
        }
        let replaced = if query.current == Some(view) {
            self.shared.views.unsubscribe(view);
            query.pending.take()
        } else {
            query.pending.replace(view)
        };
        if let Some(replaced) = replaced {
            give_up(group, &mut self.shared, replaced);
        }
        self.shared.interested.entry(view).or_default().insert(group_id.clone());
        self.request_lane(view);
        self.due.insert(group_id.clone());
    }

    /// Asks for a lane if the view has to be read before anybody can have its rows.
    fn request_lane(&mut self, id: ViewId) {
        let Some(view) = self.shared.views.get(id) else { return };
        // A number is used again: the lane under way may be one of a view that is gone.
        if self.lanes.get(&id) == Some(&view.incarnation) {
            return;
        }
        let small = view.state.members.len() <= SMALL_VIEW;
        if view.live && (small || self.shared.full(id).is_some()) {
            return;
        }
        self.lanes.insert(id, view.incarnation);
        self.requested.push(LaneRequest { view: id, incarnation: view.incarnation });
    }

    /// Lanes asked for since the last call.
    pub fn take_lane_requests(&mut self) -> Vec<LaneRequest> {
        std::mem::take(&mut self.requested)
    }

    /// Takes the result of a lane: the view's state, and its rows in encoded form. The core
    /// must be at their version or later. `in_step`: the core was at that version when the
    /// lane began. True if the view still has to be brought forward to the core's version.
    pub fn lane_done(
        &mut self,
        request: LaneRequest,
        state: State,
        full: Full,
        in_step: bool,
        now: f64,
    ) -> bool {
        let lane = self.lanes.get(&request.view) == Some(&request.incarnation);
        if lane {
            self.lanes.remove(&request.view);
        }
        let view = self.shared.views.get_mut(request.view).filter(|v| v.incarnation == request.incarnation);
        let (true, Some(view)) = (lane, view) else {
            self.shared.rows.borrow_mut().release_all(&state.members);
            return false;
        };
        let at = full.at;
        let hydrated = !view.live;
        if hydrated {
            view.journal = crate::views::journal::Journal::starting_at(at);
            view.state = Rc::new(state);
            view.at = at;
            view.live = true;
        } else {
            self.shared.rows.borrow_mut().release_all(&state.members);
        }
        // The journal of a view that lives knows nothing of a snapshot between two batches: a
        // row that was there then and only then would be sent, and never be taken back.
        if hydrated || in_step {
            self.shared.fulls.insert(request.view, Rc::new(full));
            self.full_since.insert(request.view, now);
        }
        self.wake_interested(request.view);
        hydrated && at < self.shared.version
    }

    /// A lane could not read its view: the queries that wait for it are refused (ruling 7).
    pub fn lane_failed(&mut self, request: LaneRequest, message: &str) {
        if self.lanes.get(&request.view) != Some(&request.incarnation) {
            // The number may be another view's by now.
            return;
        }
        self.lanes.remove(&request.view);
        if self.shared.views.get(request.view).is_some_and(|v| v.incarnation == request.incarnation) {
            self.view_failed(request.view, message);
        }
    }

    /// A view could not be read: every query that it answers is refused, in all groups, and
    /// nobody joins it any more.
    pub fn view_failed(&mut self, view: ViewId, message: &str) {
        self.shared.views.retire(view);
        let groups: Vec<Rc<str>> = self.shared.interested.get(&view).into_iter().flatten().cloned().collect();
        for group_id in groups {
            let Some(group) = self.groups.get(&group_id) else { continue };
            let uses = |q: &&super::query::Query| q.pending == Some(view) || q.current == Some(view);
            let hashes: Vec<String> =
                group.queries.iter().filter(|(_, q)| uses(q)).map(|(h, _)| h.clone()).collect();
            for hash in hashes {
                let Some(group) = self.groups.get(&group_id) else { break };
                let error = refusal(&hash, &query_name(group, &hash), message);
                self.refuse(&group_id, &hash, error);
            }
        }
    }

    /// Tells the clients that want a query that it was refused; its rows go with the next
    /// step (trap T25).
    fn refuse(&mut self, group_id: &Rc<str>, hash: &str, error: Value) {
        let Some(group) = self.groups.get_mut(group_id) else { return };
        let Some(query) = group.queries.get_mut(hash) else { return };
        query.failed = true;
        query.transforming = None;
        let frame = kelvin_io::websocket::text_frame(&transform_error(&[error]));
        for connection in &group.connections {
            let wants = group.clients.get(&connection.client_id).and_then(|c| c.desires.get(hash));
            if wants.is_some_and(|d| d.desired) && connection.phase != Phase::CatchingUp {
                connection.sink.send(std::slice::from_ref(&frame));
            }
        }
        self.due.insert(group_id.clone());
    }

    fn wake_interested(&mut self, view: ViewId) {
        if let Some(groups) = self.shared.interested.get(&view) {
            self.due.extend(groups.iter().cloned());
        }
    }

    /// A view has changed by a batch: its groups have a step to take.
    pub fn touched(&mut self, view: ViewId) {
        self.wake_interested(view);
    }

    /// Hands changed last mutation ids and results to their groups.
    pub fn route_mutations(&mut self, batch: &Batch) {
        let Some(tables) = self.tables.clone() else { return };
        for (table, changes) in &batch.tables {
            if tables.is_bulk(*table, changes) {
                self.groups.values_mut().for_each(|g| g.attached = false);
                self.due.extend(self.groups.keys().cloned());
                continue;
            }
            let (true, TableBatch::Rows(rows)) = (tables.contains(*table), changes) else { continue };
            for change in rows {
                let Some(id) = tables.group_of(*table, change) else { continue };
                if let Some(group) = self.groups.get_mut(id).filter(|g| g.attached) {
                    tables.apply(*table, change, group);
                    self.due.insert(group.id.clone());
                }
            }
        }
    }

    /// The socket of a connection takes more again.
    pub fn drained(&mut self, id: ConnectionId) {
        if let Some(group) = self.connections.get(&id) {
            self.due.insert(group.clone());
        }
    }

    /// Whether something is to be done between batches.
    pub fn has_work(&self) -> bool {
        !self.due.is_empty()
    }

    /// Takes the next group that has something to do.
    pub fn next_due(&mut self) -> Option<Rc<str>> {
        self.due.pop_first()
    }

    /// Does what is due for a group: steps, then a slice of each catch-up. Must be called
    /// between batches.
    pub fn work(&mut self, group_id: &Rc<str>, now: f64) {
        if let Err(error) = self.advance_group(group_id, now) {
            self.fail_group(group_id, &error);
        }
        self.trim_fulls();
    }

    fn advance_group(&mut self, group_id: &Rc<str>, now: f64) -> Result<(), ProtocolError> {
        let Some(group) = self.groups.get_mut(group_id) else { return Ok(()) };
        if let Some(tables) = self.tables.as_ref().filter(|_| !group.attached) {
            tables.attach(&self.shared.reader, group).map_err(failed)?;
        }
        let lanes = &self.lanes;
        let shared = &self.shared;
        let ready = |id: ViewId| {
            shared.views.get(id).is_some_and(|v| v.live && lanes.get(&id) != Some(&v.incarnation))
        };
        let mut transition = Transition { removed: group.expired(now), ..Transition::default() };
        let mut held = false;
        for (hash, query) in &group.queries {
            if query.failed && (query.got || query.pending.is_some() || !query.refusal_told) {
                transition.removed.push(hash.clone());
            } else if let Some(pending) = query.pending.filter(|_| !transition.removed.contains(hash)) {
                if ready(pending) {
                    transition.ready.push(hash.clone());
                } else {
                    held |= query.current.is_some();
                }
            }
        }
        // While a view is being replaced nothing of the new version may leave (rule 16).
        if !held {
            step(group, &mut self.shared, &transition)?;
            for hash in transition.removed {
                match group.queries.get_mut(&hash) {
                    Some(query) if query.failed && !group.clients.values().all(|c| !wants(c, &hash)) => {
                        query.refusal_told = true;
                    }
                    _ => {
                        group.queries.remove(&hash);
                    }
                }
            }
        }
        self.catch_up(group_id)
    }

    /// Goes on with every catch-up of the group.
    fn catch_up(&mut self, group_id: &Rc<str>) -> Result<(), ProtocolError> {
        let Some(group) = self.groups.get_mut(group_id) else { return Ok(()) };
        let behind: Vec<ConnectionId> = group
            .connections
            .iter()
            .filter(|c| c.phase != Phase::Live && !c.sink.is_behind())
            .map(|c| c.id)
            .collect();
        for id in behind {
            let mut catchup = match self.catchups.remove(&id) {
                Some(catchup) => catchup,
                None => {
                    self.serial += 1;
                    let Some(new) = CatchUp::new(group, &self.shared, id, self.serial) else { continue };
                    new
                }
            };
            let progress = catchup.slice(group, &mut self.shared)?;
            match progress {
                Progress::Done => {}
                Progress::Wait if catchup.is_open() => {
                    self.catchups.insert(id, catchup);
                }
                // Decided anew when something changes.
                Progress::Wait => catchup.abandon(&self.shared),
                Progress::More => {
                    if let Some(connection) = group.connection(id) {
                        connection.phase = Phase::CatchingUp;
                        if !connection.sink.is_behind() {
                            self.due.insert(group_id.clone());
                        }
                    }
                    self.catchups.insert(id, catchup);
                }
            }
        }
        Ok(())
    }

    /// Ends a group that cannot go on: its clients are told, its state is dropped.
    pub fn fail_group(&mut self, group_id: &Rc<str>, error: &ProtocolError) {
        let Some(group) = self.groups.get(group_id) else { return };
        group.connections.iter().for_each(|c| c.sink.fail(error));
        self.drop_group(group_id);
    }

    fn drop_group(&mut self, group_id: &Rc<str>) {
        self.release_views(group_id);
        let Some(group) = self.groups.remove(group_id) else { return };
        for connection in &group.connections {
            self.connections.remove(&connection.id);
            if let Some(catchup) = self.catchups.remove(&connection.id) {
                catchup.abandon(&self.shared);
            }
        }
    }

    /// Gives up all views of a group. Its clients' cookies can then not be served from
    /// history any more.
    fn release_views(&mut self, group_id: &Rc<str>) {
        let Some(group) = self.groups.get_mut(group_id) else { return };
        let mut views = Vec::new();
        for query in group.queries.values_mut() {
            views.extend(query.current.take());
            views.extend(query.pending.take());
            query.transforming = None;
            query.got = false;
        }
        group.views.clear();
        let left: Vec<_> = group.left.drain(..).flat_map(|l| l.rows).collect();
        self.shared.rows.borrow_mut().release_all(&left);
        group.version = StateVersion::ZERO;
        for view in views {
            give_up(group, &mut self.shared, view);
        }
    }

    /// Drops encoded views beyond the budget, oldest first, but none that a group still waits
    /// for.
    fn trim_fulls(&mut self) {
        let mut total: usize = self.shared.fulls.values().map(|f| f.size).sum();
        if total <= MAX_FULLS {
            return;
        }
        let mut oldest: Vec<(f64, ViewId)> = self.full_since.iter().map(|(v, since)| (*since, *v)).collect();
        oldest.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        for (_, view) in oldest {
            if total <= MAX_FULLS {
                return;
            }
            if self.is_awaited(view) {
                continue;
            }
            self.full_since.remove(&view);
            total -= self.shared.fulls.remove(&view).map_or(0, |f| f.size);
        }
    }

    fn is_awaited(&self, view: ViewId) -> bool {
        let groups = self.shared.interested.get(&view).into_iter().flatten();
        groups
            .filter_map(|id| self.groups.get(id))
            .any(|group| group.queries.values().any(|q| q.pending == Some(view)))
    }

    /// Work of the clock: expired queries, groups that nobody uses, encoded views that
    /// nobody asked for.
    pub fn tick(&mut self, now: f64) {
        for (id, group) in &self.groups {
            let expired = group.next_expiry(now).is_some_and(|left| left <= 0.0);
            let behind = group.connections.iter().any(|c| c.phase != Phase::Live && !c.sink.is_behind());
            if expired || behind {
                self.due.insert(id.clone());
            }
        }
        let idle: Vec<Rc<str>> = self
            .groups
            .iter()
            .filter(|(_, g)| {
                g.idle_since.is_some_and(|since| now - since >= LINGER)
                    && g.queries.values().any(|q| q.current.is_some() || q.pending.is_some())
            })
            .map(|(id, _)| id.clone())
            .collect();
        for id in idle {
            self.release_views(&id);
            if let Some(group) = self.groups.get_mut(&id) {
                // Not even a cookie of this moment can be proved any more.
                let _ = group.next_label(StateVersion(group.label.major), self.shared.epoch);
                group.floor = group.label;
                group.attached = false;
            }
        }
        self.forget_oldest_groups();
        let over = |since: &f64| now - since >= KEEP_FULL;
        let fulls: Vec<ViewId> =
            self.full_since.iter().filter(|(_, since)| over(since)).map(|(v, _)| *v).collect();
        for view in fulls {
            self.full_since.remove(&view);
            self.shared.fulls.remove(&view);
        }
    }

    fn forget_oldest_groups(&mut self) {
        let mut idle: Vec<(f64, Rc<str>)> =
            self.groups.iter().filter_map(|(id, g)| Some((g.idle_since?, id.clone()))).collect();
        if idle.len() <= MAX_IDLE_GROUPS {
            return;
        }
        idle.sort_by(|a, b| a.0.total_cmp(&b.0));
        for (_, id) in &idle[..idle.len() - MAX_IDLE_GROUPS] {
            self.drop_group(id);
        }
    }

    /// Clients, connections and queries at the moment.
    pub fn counts(&self) -> (usize, usize, usize) {
        let clients = self.groups.values().map(|g| g.clients.len()).sum();
        let queries = self.groups.values().map(|g| g.queries.len()).sum();
        (clients, self.connections.len(), queries)
    }
}

fn wants(client: &super::desires::Client, hash: &str) -> bool {
    client.desires.get(hash).is_some_and(|d| d.desired)
}

fn named(hash: &str, spec: &Spec) -> Option<Named> {
    match spec {
        Spec::Named { name, args } => {
            Some(Named { hash: hash.to_owned(), name: name.clone(), args: args.clone() })
        }
        Spec::Ast(_) => None,
    }
}

fn query_name(group: &Group, hash: &str) -> String {
    match group.queries.get(hash).map(|q| &q.spec) {
        Some(Spec::Named { name, .. }) => name.clone(),
        _ => String::new(),
    }
}

/// An entry of `transformError` that this server decided on.
fn refusal(hash: &str, name: &str, message: &str) -> Value {
    serde_json::json!({"error": "app", "id": hash, "name": name, "message": message})
}

/// An empty poke at the cookie that the tab has.
fn greet(group: &mut Group, shared: &mut Shared, id: ConnectionId) {
    let label = group.label;
    let Some(connection) = group.connection(id) else { return };
    let poke_id = label.to_string();
    let base = connection.label.map(|l| l.to_string());
    let start = super::shared::start_frame(&poke_id, base.as_deref());
    let end = shared.end_frame(&poke_id, &poke_id);
    connection.label = Some(label);
    connection.sink.send(&[start, end]);
}

fn acknowledge_deletions(group: &Group, ids: &[String]) {
    let frame = kelvin_io::websocket::text_frame(&crate::protocol::downstream::delete_clients(ids));
    for connection in &group.connections {
        connection.sink.send(std::slice::from_ref(&frame));
    }
}
