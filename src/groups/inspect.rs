//! What the inspector is told of a group's queries (`docs/spec/view-syncer.md` §13).

use super::execution::named;
use super::group::Group;
use super::query::{Query, Spec};
use crate::groups::syncer::Syncer;
use crate::views::time_digest::TimeDigest;
use crate::views::view::View;
use crate::zql::custom_query::Named;

/// One query as one client wants it.
pub struct Inspected {
    /// The client.
    pub client_id: String,
    /// The query's hash.
    pub query_id: String,
    /// As the client spelled it out: JSON text.
    pub ast: Option<String>,
    /// As the app knows it.
    pub named: Option<Named>,
    /// Clients have been told that they have it.
    pub got: bool,
    /// The client does not want it any more.
    pub deleted: bool,
    /// Milliseconds that it stays once it is not wanted.
    pub ttl: f64,
    /// Time on the group's clock, in milliseconds, since when it is not wanted.
    pub inactivated_at: Option<f64>,
    /// Rows that it has.
    pub row_count: usize,
    /// How long it took to be read the last time, in nanoseconds.
    pub reading: Option<u64>,
    /// How long its changes take.
    pub updates: TimeDigest,
}

/// What all queries of a group cost.
#[derive(Default)]
pub struct Costs {
    /// How long each took to be read the last time.
    pub readings: TimeDigest,
    /// How long their changes take.
    pub updates: TimeDigest,
}

impl Syncer {
    /// The queries of a group that are wanted, or within their time to live, in order of clients
    /// and hashes. `client`: of this one alone.
    pub fn inspect(&self, group: &str, client: Option<&str>, now: f64) -> Vec<Inspected> {
        let Some(group) = self.groups.get(group) else { return Vec::new() };
        let clock = group.clock(now);
        let mut out = Vec::new();
        for (id, known) in group.clients.iter().filter(|(id, _)| client.is_none_or(|only| only == **id)) {
            for (hash, desire) in known.desires.iter().filter(|(_, desire)| !desire.is_expired(clock)) {
                let Some(query) = group.queries.get(hash) else { continue };
                let view = self.answer(query);
                out.push(Inspected {
                    client_id: id.clone(),
                    query_id: hash.clone(),
                    ast: match &query.spec {
                        Spec::Ast(text) => Some(text.clone()),
                        Spec::Named { .. } | Spec::TooMuch { .. } => None,
                    },
                    named: named(hash, &query.spec),
                    got: query.got,
                    deleted: !desire.desired,
                    ttl: desire.ttl,
                    inactivated_at: desire.inactive_since,
                    row_count: view.map_or(0, |view| view.size),
                    reading: view.and_then(|view| view.cost.last_reading),
                    updates: view.map(|view| view.cost.updates.clone()).unwrap_or_default(),
                });
            }
        }
        out
    }

    /// What the queries of a group cost.
    pub fn costs(&self, group: &str) -> Costs {
        let mut costs = Costs::default();
        let queries = self.groups.get(group).into_iter().flat_map(|group| group.queries.values());
        for view in queries.filter_map(|query| self.answer(query)) {
            view.cost.last_reading.into_iter().for_each(|time| costs.readings.record(time));
            costs.updates.add(&view.cost.updates);
        }
        costs
    }

    fn answer(&self, query: &Query) -> Option<&View> {
        self.shared.views.get(query.current?)
    }

    /// Whether a connection of the group has shown the administrator's password.
    pub fn may_inspect(&self, group: &str) -> bool {
        self.groups.get(group).is_some_and(|group| group.inspected)
    }

    /// Lets a group's connections inspect, for as long as the group is in memory, or does not.
    pub fn let_inspect(&mut self, group: &str, may: bool) {
        if let Some(group) = self.groups.get_mut(group).map(Box::<Group>::as_mut) {
            group.inspected = may;
        }
    }
}
