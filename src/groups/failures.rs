//! Queries that this server cannot answer at present (ruling 7): a row that no client can hold, more rows than
//! there is room for, what is not built yet.
//!
//! Their clients are told, once more whenever they come back, and every few seconds: what an app shows anew asks
//! nothing of the server. A view that could not be kept or read is read again by itself, at first soon, then less
//! often, and sooner if one of its tables has changed; when it can be had, its queries are got again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use serde_json::Value;

use super::execution::query_name;
use super::group::Group;
use super::syncer::Syncer;
use crate::model::batch::Batch;
use crate::model::catalogue::Catalogue;
use crate::model::ids::ConnectionId;
use crate::protocol::downstream::refusal;
use crate::views::registry::ViewKey;
use crate::views::view::ViewId;
use crate::zql::plan::Plan;

/// Milliseconds until a view is read again that failed for the first time: twice as many after each time.
const FIRST_WAIT: f64 = 500.0;

/// The same at most. What it needs is read in full each time.
const LONGEST_WAIT: f64 = 60_000.0;

/// Milliseconds between times that clients are told.
const TELL_AGAIN: f64 = 10_000.0;

/// Queries whose clients are told in one round of the clock, and views that are read again: the rest have their turn
/// in the next.
const PER_ROUND: usize = 200;

/// Groups and hashes of queries.
type Queries = BTreeSet<(Rc<str>, String)>;

/// Views and queries that failed here.
#[derive(Default)]
pub(super) struct Failures {
    now: f64,
    views: BTreeMap<ViewKey, FailedView>,
    /// Whose clients are told, and when; in order of time.
    to_tell: VecDeque<(f64, Rc<str>, String)>,
    listed: Queries,
}

struct FailedView {
    plan: Arc<Plan>,
    /// Those that wait for it.
    queries: Queries,
    due: f64,
    wait: f64,
    /// A table that it reads may have changed since it began to be read last.
    touched: bool,
}

impl FailedView {
    fn is_due(&self, now: f64) -> bool {
        let due = if self.touched { self.due } else { self.due.max(self.due - self.wait + LONGEST_WAIT) };
        now >= due
    }
}

impl Failures {
    /// Notes which tables a batch changed.
    pub fn touch(&mut self, batch: &Batch) {
        for view in self.views.values_mut() {
            view.touched |= view.plan.tables.iter().any(|table| batch.tables.contains_key(table));
        }
    }

    fn add(&mut self, key: ViewKey, plan: &Arc<Plan>, queries: Vec<(Rc<str>, String)>) {
        let now = self.now;
        let view = self.views.entry(key).or_insert_with(|| FailedView {
            plan: plan.clone(),
            queries: Queries::new(),
            due: now,
            wait: FIRST_WAIT / 2.0,
            // What has changed while it was read is not known.
            touched: true,
        });
        view.wait = (2.0 * view.wait).min(LONGEST_WAIT);
        view.due = now + view.wait;
        view.queries.extend(queries);
    }

    /// Views that are to be read again, with the queries that wait for them. They are remembered for a while, so that
    /// one that fails again and again is read ever less often.
    fn take_due(&mut self, now: f64) -> Vec<(ViewKey, Arc<Plan>, Queries)> {
        self.now = now;
        self.views.retain(|_, view| !view.queries.is_empty() || now < view.due + LONGEST_WAIT);
        let due = self.views.iter_mut().filter(|(_, view)| !view.queries.is_empty() && view.is_due(now));
        due.take(PER_ROUND)
            .map(|(key, view)| {
                (view.due, view.touched) = (now, false);
                (key.clone(), view.plan.clone(), std::mem::take(&mut view.queries))
            })
            .collect()
    }

    /// Views that ask for what is gone are not read again.
    pub fn forget_unanswerable(&mut self, catalogue: &Catalogue) {
        self.views.retain(|_, view| view.plan.is_answerable(catalogue));
    }

    fn tell_later(&mut self, group: &Rc<str>, hash: &str) {
        if self.listed.insert((group.clone(), hash.to_owned())) {
            self.to_tell.push_back((self.now + TELL_AGAIN, group.clone(), hash.to_owned()));
        }
    }

    fn next_to_tell(&mut self) -> Option<(Rc<str>, String)> {
        self.to_tell.front().filter(|(at, _, _)| *at <= self.now)?;
        let (_, group, hash) = self.to_tell.pop_front()?;
        let next = (group, hash);
        self.listed.remove(&next);
        Some(next)
    }
}

impl Syncer {
    /// A view could not be read: every query that it answers is refused, in all groups, and
    /// nobody joins it any more. It is tried again.
    pub fn view_failed(&mut self, view: ViewId, message: &str) {
        self.shared.views.retire(view);
        let known = self.shared.views.get(view).map(|found| found.plan.clone());
        let key = self.shared.views.whole_key_of(view).cloned();
        let groups: Vec<Rc<str>> = self.shared.interested.get(&view).into_iter().flatten().cloned().collect();
        let mut queries = Vec::new();
        for id in groups {
            let Some(group) = self.groups.get(&id) else { continue };
            let uses = |q: &super::query::Query| q.pending == Some(view) || q.current == Some(view);
            let used = group.queries.iter().filter(|(_, query)| uses(query));
            queries.extend(used.map(|(hash, _)| (id.clone(), hash.clone())));
        }
        queries.iter().for_each(|(group, hash)| self.fail_here(group, hash, message));
        if let Some((key, plan)) = key.zip(known) {
            self.failures.add(key, &plan, queries);
        }
    }

    /// A query cannot be answered here. That is no answer of the app's, and need not stay so.
    pub(super) fn fail_here(&mut self, group_id: &Rc<str>, hash: &str, message: &str) {
        let Some(group) = self.groups.get_mut(group_id) else { return };
        let Some(query) = group.queries.get_mut(hash) else { return };
        query.trouble = Some(message.into());
        let error = refusal(hash, &query_name(group, hash), message);
        self.refuse(group_id, hash, error);
        self.failures.tell_later(group_id, hash);
    }

    /// Tells a connection that has just come which of the queries that it wants cannot be answered here: its client
    /// knows them, and does not ask again.
    pub(super) fn tell_trouble(&self, group: &Group, id: ConnectionId) {
        let Some(connection) = group.connections.iter().find(|c| c.id == id) else { return };
        let Some(client) = group.clients.get(&connection.client_id) else { return };
        let wanted = client.desires.iter().filter(|(_, desire)| desire.desired);
        let errors: Vec<Value> = wanted.filter_map(|(hash, _)| trouble(group, hash)).collect();
        if !errors.is_empty() {
            connection.sink.refuse(&errors);
        }
    }

    /// Reads views again that failed, and tells clients of those that did not get better.
    pub(super) fn retry(&mut self, now: f64) {
        for (key, plan, queries) in self.failures.take_due(now) {
            for (group, hash) in queries {
                self.try_again(&group, &hash, &key, &plan);
            }
        }
        for _ in 0..PER_ROUND {
            let Some((id, hash)) = self.failures.next_to_tell() else { return };
            let Some(group) = self.groups.get(&id) else { continue };
            let is_tried = group.queries.get(&hash).is_some_and(|query| query.trouble.is_some());
            let Some(error) = trouble(group, &hash) else {
                if is_tried {
                    self.failures.tell_later(&id, &hash);
                }
                continue;
            };
            for connection in &group.connections {
                let client = group.clients.get(&connection.client_id);
                if client.and_then(|c| c.desires.get(&hash)).is_some_and(|desire| desire.desired) {
                    connection.sink.refuse(std::slice::from_ref(&error));
                }
            }
            self.failures.tell_later(&id, &hash);
        }
    }

    fn try_again(&mut self, id: &Rc<str>, hash: &str, key: &ViewKey, plan: &Arc<Plan>) {
        let Some(group) = self.groups.get_mut(id) else { return };
        // Nobody is there to be sent anything.
        let is_idle = group.connections.is_empty();
        let Some(query) = group.queries.get_mut(hash).filter(|q| q.failed && q.trouble.is_some()) else {
            return;
        };
        if is_idle || query.current.is_some() || query.pending.is_some() {
            self.failures.add_again(key, (id.clone(), hash.to_owned()));
            return;
        }
        let catalogue = self.shared.catalogue.clone();
        let view = self.shared.views.subscribe(key.clone(), &catalogue, || plan.clone());
        query.failed = false;
        query.pending = Some(view);
        self.shared.interested.entry(view).or_default().insert(id.clone());
        self.request_hydration(view);
        self.due.insert(id.clone());
    }
}

impl Failures {
    /// It could not be tried yet: it is when the view is due once more.
    fn add_again(&mut self, key: &ViewKey, query: (Rc<str>, String)) {
        let now = self.now;
        if let Some(view) = self.views.get_mut(key) {
            view.due = now + view.wait;
            view.queries.insert(query);
        }
    }
}

/// What is told of a query that failed here; `None` of others, and of one that is being tried.
fn trouble(group: &Group, hash: &str) -> Option<Value> {
    let query = group.queries.get(hash).filter(|query| query.failed)?;
    Some(refusal(hash, &query_name(group, hash), query.trouble.as_deref()?))
}
