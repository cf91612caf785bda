//! From the name of a query to the view that answers it: transformation, planning, hydrations,
//! refusals.

use super::group::Group;
use super::query::Spec;
use super::restore::resume_query;
use super::schema::ClientKeys;
use super::shared::Shared;
use super::step::give_up;
use super::syncer::*;
use crate::model::catalogue::Catalogue;
use crate::model::ids::{ConnectionId, TableId};
use crate::model::key;
use crate::protocol::downstream::refusal;
use crate::testing::faults::{self, Fault};
use crate::views::registry::Source;
use crate::views::task::ViewOutcome;
use crate::views::view::ViewId;
use crate::zql::ast::Ast;
use crate::zql::custom_query::Named;
use crate::zql::custom_query::Transformed;
use crate::zql::plan::PlanError;
use crate::zql::{canonical, plan};
use serde_json::Value;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;

/// What the clients of a query that they spelled out are told.
pub const SPELLED: &str = "queries that the client spells out need read permissions, which this server does not apply yet; \
     define the query with a name (defineQueries) and let the app answer it at ZERO_QUERY_URL";

impl Syncer {
    /// Queries of a group that have to be transformed now; `all`: those that were, too. One that
    /// is being asked about for the first time is not: if a second request took its place and
    /// failed, the answer to the first would be lost.
    /// Queries that clients spelled out are transformed at once.
    pub fn transform(&mut self, group_id: &str, all: bool) -> (u64, Vec<Named>) {
        let Some(group) = self.groups.get_mut(group_id) else { return (0, Vec::new()) };
        // Of the core, not of the group: a request may outlive its group, and find another of the same id.
        self.transformations += 1;
        let serial = self.transformations;
        let mut out = Vec::new();
        let mut spelled = Vec::new();
        for (hash, query) in &mut group.queries {
            let is_first_asked =
                query.is_waiting() && query.pending.is_none() && query.transforming.is_some();
            if !query.is_missing() && (!all || query.is_refused() || is_first_asked) {
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

    /// Connections that want a query which nobody is asking the app about; all of them, if the group can go nowhere
    /// before it is answered.
    pub fn unanswered(&self, group_id: &str) -> Vec<ConnectionId> {
        let Some(group) = self.groups.get(group_id) else { return Vec::new() };
        let missing =
            || group.queries.iter().filter(|(hash, q)| q.is_missing() && named(hash, &q.spec).is_some());
        let is_held = missing().any(|(_, query)| query.is_resuming());
        let wants = |client: &str| missing().any(|(hash, _)| group.wants(client, hash));
        let connections = group.connections.iter();
        connections.filter(|c| is_held || wants(&c.client_id)).map(|c| c.id).collect()
    }

    /// Takes the app's answer for one query. `serial`: that of the request; `None` for the
    /// request that validated a connection, whose answers count for whoever has none.
    pub fn transformed(&mut self, group_id: &str, hash: &str, serial: Option<u64>, answer: Transformed) {
        let Some(group) = self.groups.get_mut(group_id) else { return };
        let id = group.id.clone();
        let Some(query) = group.queries.get_mut(hash) else { return };
        let is_too_much = matches!(query.spec, Spec::TooMuch { .. });
        if query.is_refused() || is_too_much || (serial.is_some() && query.transforming != serial) {
            return;
        }
        query.transforming = None;
        // It may mean something else now.
        if query.trouble.take().is_some() {
            query.failed = false;
        }
        match answer {
            Transformed::Ast(ast) => self.execute(&id, hash, &ast),
            Transformed::Refused(error) => self.refuse(&id, hash, error),
        }
    }

    /// Queries that clients spell out are subject to read permissions (`docs/spec/zql.md` §14). There are none yet, and
    /// without them nothing may be read: an answer without rows would look as if there were none.
    pub(super) fn execute_spelled(&mut self, group_id: &Rc<str>, hash: &str) {
        match self.groups.get(group_id).and_then(|g| g.queries.get(hash)).map(|q| q.spec.clone()) {
            Some(Spec::Ast(_)) => {
                self.fail_here(group_id, hash, SPELLED);
                self.shared.spelled += 1;
            }
            Some(Spec::TooMuch { name, why }) => self.refuse(group_id, hash, refusal(hash, &name, &why)),
            Some(Spec::Named { .. }) | None => {}
        }
    }

    /// Gives a query the view that answers it.
    pub(super) fn execute(&mut self, group_id: &Rc<str>, hash: &str, ast: &Ast) {
        let Some(group) = self.groups.get_mut(group_id) else { return };
        let view = match subscribe(&mut self.shared, ast, &group.schema.keys) {
            Ok(view) => view,
            Err(error) => {
                let name = query_name(group, hash);
                if let Some(query) = group.queries.get_mut(hash) {
                    query.unplanned = true;
                }
                return self.refuse(group_id, hash, refusal(hash, &name, &error.to_string()));
            }
        };
        if !has_room(group, &self.shared, view) {
            give_up(group, &mut self.shared, view);
            let why = format!(
                "the client group's queries take more than {} MiB beside their rows: close some",
                self.shared.query_limits.plans >> 20
            );
            let name = query_name(group, hash);
            return self.refuse(group_id, hash, refusal(hash, &name, &why));
        }
        if resume_query(group, &mut self.shared, hash, view) {
            self.shared.interested.entry(view).or_default().insert(group_id.clone());
            self.request_hydration(view);
            self.due.insert(group_id.clone());
            return;
        }
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
        self.request_hydration(view);
        self.due.insert(group_id.clone());
    }

    /// Takes a catalogue with further indexes: views that would read by them are planned anew.
    /// No batch may be under way.
    pub fn take_catalogue(&mut self, catalogue: &Arc<Catalogue>) {
        // One of other tables comes with the snapshot that shows them, and has the index.
        if catalogue.epoch != self.shared.catalogue.epoch {
            return;
        }
        let mut catalogue = (**catalogue).clone();
        catalogue.remember_gone(&self.shared.catalogue);
        let catalogue = Arc::new(catalogue);
        self.shared.catalogue = catalogue.clone();
        self.shared.views.plan_anew(&catalogue, &self.shared.query_limits);
    }

    /// Tells the clients that want a query that it was refused; its rows go with the next
    /// step (trap T25).
    pub(super) fn refuse(&mut self, group_id: &Rc<str>, hash: &str, error: Value) {
        let Some(group) = self.groups.get_mut(group_id) else { return };
        let Some(query) = group.queries.get_mut(hash) else { return };
        query.failed = true;
        query.transforming = None;
        self.shared.note(group);
        for connection in &group.connections {
            let wants = group.clients.get(&connection.client_id).and_then(|c| c.desires.get(hash));
            if wants.is_some_and(|d| d.desired) {
                connection.sink.refuse(std::slice::from_ref(&error));
            }
        }
        self.due.insert(group_id.clone());
    }

    pub(super) fn wake_interested(&mut self, view: ViewId) {
        if let Some(groups) = self.shared.interested.get(&view) {
            self.due.extend(groups.iter().cloned());
        }
    }

    /// Makes known what a batch did to a view.
    pub fn brought_forward(&mut self, view: ViewId, outcome: ViewOutcome) {
        match outcome {
            ViewOutcome::Same => {}
            // Its groups have a step to take.
            ViewOutcome::Touched => self.wake_interested(view),
            ViewOutcome::Stale(_) => self.request_hydration(view),
            ViewOutcome::Failed(error) => self.view_failed(view, &error),
        }
    }
}

/// Whether a group may have one view more, for what is made of its queries. All that it ever had is counted
/// together, and only when that is too much, those that it has now.
fn has_room(group: &mut Group, shared: &Shared, view: ViewId) -> bool {
    let bytes = |id: ViewId| shared.views.get(id).map_or(0, |view| view.asked);
    let most = shared.query_limits.plans;
    group.planned = group.planned.saturating_add(bytes(view));
    if group.planned > most {
        let views = group.queries.values().flat_map(|query| [query.current, query.pending]).flatten();
        let views: BTreeSet<ViewId> = views.chain([view]).collect();
        group.planned = views.into_iter().map(bytes).sum();
    }
    group.planned <= most
}

/// The view that answers a query. Whether it is there already is known without a plan.
fn subscribe(shared: &mut Shared, ast: &Ast, keys: &Rc<ClientKeys>) -> Result<ViewId, PlanError> {
    let catalogue = shared.catalogue.clone();
    let mut key = Vec::with_capacity(512);
    let tables = tables_of(ast, &catalogue);
    // Only what follows is the same in every process.
    key.extend(epochs_of(&tables, &catalogue).to_be_bytes());
    canonical::write(ast, &mut key);
    if !faults::is_on(Fault::ViewKey) {
        keys.write(&tables, &catalogue, &mut key);
    }
    if let Some(view) = shared.views.join(&key) {
        return Ok(view);
    }
    let mut planned = plan::plan(ast, &catalogue, &**keys, &shared.query_limits)?;
    shared.texts.share_plan(&mut planned);
    let planned = Arc::new(planned);
    let view = shared.views.subscribe(key.into(), &catalogue, || planned.clone());
    shared.adopt(view);
    if !planned.index_requests.is_empty() {
        shared.index_requests.extend(planned.index_requests.iter().cloned());
        shared.views.remember_source(view, Source { ast: ast.clone(), keys: keys.clone() });
    }
    Ok(view)
}

/// What is another number when one of the tables has become another since: who asks for its rows now may see columns
/// that those do not who asked before, and they have views of their own.
fn epochs_of(tables: &[TableId], catalogue: &Catalogue) -> u64 {
    let of_one = |id: &TableId| [u64::from(id.0), catalogue.get(*id).epoch].map(u64::to_be_bytes).concat();
    key::hash(&tables.iter().flat_map(of_one).collect::<Vec<u8>>())
}

/// Tables that a query names, in order of their numbers. Names that are wrong are left out: such
/// a query has no plan.
fn tables_of(ast: &Ast, catalogue: &Catalogue) -> Vec<TableId> {
    let mut names = Vec::new();
    ast.tables(&mut names);
    let mut tables: Vec<TableId> =
        names.into_iter().filter_map(|name| catalogue.table(name)).map(|table| table.id).collect();
    // By name: the order is the same in every process.
    tables.sort_unstable_by_key(|id| &catalogue.get(*id).name);
    tables.dedup();
    tables
}

pub(super) fn named(hash: &str, spec: &Spec) -> Option<Named> {
    match spec {
        Spec::Named { name, args } => {
            Some(Named { hash: hash.to_owned(), name: name.clone(), args: args.clone() })
        }
        Spec::Ast(_) | Spec::TooMuch { .. } => None,
    }
}

pub(super) fn query_name(group: &Group, hash: &str) -> String {
    match group.queries.get(hash).map(|q| &q.spec) {
        Some(Spec::Named { name, .. } | Spec::TooMuch { name, .. }) => name.clone(),
        _ => String::new(),
    }
}
