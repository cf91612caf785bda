//! A client group: its clients, what they want, what they have been told
//! (`docs/spec/view-syncer.md` §2, §3; rules 12, 14, 17).
//!
//! State and small decisions only; the steps that change what clients hold are in
//! [`super::step`] and [`super::catchup`].

use super::user::User;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use super::desires::{Client, Desire, MAX_DESIRED, clamp_ttl};
use super::limits::GroupLimits;
use super::query::{Query, Spec};
use super::record::{Held, Seal};
use super::schema::Resolved;
use super::shared::Shared;
use super::sorted::SortedMap;
use crate::groups::sink::Connection;
use crate::model::ids::ConnectionId;
use crate::model::version::StateVersion;
use crate::protocol::cookie::{Cookie, MAX_STEP};
use crate::protocol::downstream::QueryPatch;
use crate::protocol::error::{Kind, ProtocolError};
use crate::protocol::upstream::QueryOp;
use crate::testing::faults::{self, Fault};
use crate::testing::met::{Limit, met};
use crate::views::rows::RowId;
use crate::views::view::{View, ViewId};
use crate::zql::limits::Limits;

/// Most queries of one group, wanted or within their time to live.
pub const MAX_QUERIES: usize = 10_000;

/// Most clients that one group remembers. A browser profile has tens of tabs.
pub const MAX_CLIENTS: usize = 1_000;

/// A view that the group had and has no more: what a tab may still hold because of it.
#[derive(Debug)]
pub struct LeftView {
    /// Label since which the group had it.
    pub since: Cookie,
    /// Label at which it left.
    pub until: Cookie,
    /// Its members at the end and all that its journal named. Holds references.
    pub rows: Vec<RowId>,
}

/// One client group.
pub struct Group {
    /// Its id.
    pub id: Rc<str>,
    /// What its clients believe the tables to be.
    pub schema: Rc<Resolved>,
    /// User that the group belongs to, once a connection was validated.
    pub user: Option<User>,
    /// Browser profile that last connected (`docs/spec/sync-protocol.md` §4.4).
    pub profile: Option<Box<str>>,
    /// Clients by id.
    pub clients: SortedMap<String, Client>,
    /// Queries by hash.
    pub queries: SortedMap<String, Box<Query>>,
    /// Queries that are gone, with the label at which clients were told; oldest first.
    pub removed_queries: VecDeque<(String, Cookie)>,
    /// Got views, with the label since which and the number of queries that they answer.
    pub views: SortedMap<ViewId, (Cookie, usize)>,
    /// Views left of late, oldest first.
    pub left: VecDeque<LeftView>,
    /// The label that it began at, as which a tab counts that has nothing. Cookies of any epoch below it are of another
    /// group that had the same id.
    pub born: Cookie,
    /// Last label issued.
    pub label: Cookie,
    /// Data version of the state that the last label stands for.
    pub version: StateVersion,
    /// Cookies below this cannot be served from history.
    pub floor: Cookie,
    /// What clients wanted before this label may have been forgotten.
    pub desires_since: Cookie,
    /// Last mutation ids by client.
    pub lmids: BTreeMap<String, u64>,
    /// Mutation results that were not cleaned up yet: JSON by client and mutation.
    pub results: BTreeMap<(String, u64), String>,
    /// Changed last mutation ids that no step has told yet.
    pub pending_lmids: BTreeMap<String, u64>,
    /// Changed results that no step has told yet: JSON of the patch operations.
    pub pending_results: Vec<String>,
    /// Told changes of results, with their labels.
    pub result_changes: VecDeque<(Cookie, String)>,
    /// Views that it had before the process started, and that no view of now stands for yet.
    pub held: Vec<Held>,
    /// Epochs of before whose labels can be served.
    pub seals: Vec<Seal>,
    /// It has changed since it was written down.
    pub dirty: bool,
    /// The core's version when it changed last.
    pub noted_at: StateVersion,
    /// Whether last mutation ids and results have been read from the replica.
    pub attached: bool,
    /// Open connections.
    pub connections: Vec<Connection>,
    /// Group's clock: milliseconds with at least one connection.
    clock: f64,
    clock_runs_since: Option<f64>,
    /// When the last connection went, or the process started, in milliseconds of the process.
    pub idle_since: Option<f64>,
    /// When the last connection went, in milliseconds of the process: negative if it was not there yet.
    pub left_at: Option<f64>,
    /// At least so many bytes were made of its queries ([`crate::zql::limits::Limits::plans`]).
    pub planned: usize,
    /// Counts transformations requested.
    pub transformations: u64,
    /// Views that joined anew while the group still waited for others, since its last step.
    pub passed: u32,
    /// A connection has shown the administrator's password: all may inspect.
    pub inspected: bool,
}

/// What a change of the configuration did.
#[derive(Debug, Default)]
pub struct ConfigChange {
    /// Patches to tell, by client.
    pub desired: Vec<(String, Vec<QueryPatch>)>,
    /// A client was registered: the label moves even without patches.
    pub registered: bool,
}

impl ConfigChange {
    /// Whether the label has to move.
    pub fn is_change(&self) -> bool {
        self.registered || !self.desired.is_empty()
    }

    /// Whether something happened to a query of a client.
    fn names(&self, client: &str, hash: &str) -> bool {
        let patches = self.desired.iter().find(|(c, _)| c == client).map(|(_, patches)| patches);
        patches.into_iter().flatten().any(|patch| match patch {
            QueryPatch::Put(named) | QueryPatch::Del(named) => named == hash,
        })
    }

    fn push(&mut self, client: &str, patch: QueryPatch) {
        match self.desired.iter_mut().find(|(c, _)| c == client) {
            Some((_, patches)) => patches.push(patch),
            None => self.desired.push((client.to_owned(), vec![patch])),
        }
    }
}

impl Group {
    /// A group that nobody has been told anything of.
    pub fn new(id: Rc<str>, schema: Rc<Resolved>) -> Group {
        let zero = Cookie { major: 0, config: 0 };
        Group {
            id,
            schema,
            user: None,
            profile: None,
            clients: SortedMap::new(),
            queries: SortedMap::new(),
            removed_queries: VecDeque::new(),
            views: SortedMap::new(),
            left: VecDeque::new(),
            born: zero,
            label: zero,
            version: StateVersion::ZERO,
            floor: zero,
            desires_since: zero,
            lmids: BTreeMap::new(),
            results: BTreeMap::new(),
            pending_lmids: BTreeMap::new(),
            pending_results: Vec::new(),
            result_changes: VecDeque::new(),
            held: Vec::new(),
            seals: Vec::new(),
            dirty: false,
            noted_at: StateVersion::ZERO,
            attached: false,
            connections: Vec::new(),
            clock: 0.0,
            clock_runs_since: None,
            idle_since: None,
            left_at: None,
            planned: 0,
            transformations: 0,
            passed: 0,
            inspected: false,
        }
    }

    /// Issues the next label; `major`: data version of the state that it stands for.
    /// An error when a group made a million steps at one version: its clients start anew.
    pub fn next_label(&mut self, major: StateVersion, epoch: u64) -> Result<Cookie, ProtocolError> {
        let label = if major.0 > self.label.major {
            Cookie::label(major.0, epoch, 0)
        } else if self.label.epoch() < epoch {
            Cookie::label(self.label.major, epoch, 1)
        } else if self.label.step() < MAX_STEP {
            Cookie { config: self.label.config + u64::from(!faults::is_on(Fault::Labels)), ..self.label }
        } else {
            return Err(ProtocolError::new(
                Kind::ClientNotFound,
                "the client group has no labels left at this version; it has to start anew",
            ));
        };
        self.label = label;
        Ok(label)
    }

    /// Has a new group begin at this label.
    pub fn begin_at(&mut self, born: Cookie) {
        self.born = born;
        self.label = born;
        self.floor = born;
    }

    /// Registers a client. Comes before any change of what it wants.
    pub fn register(&mut self, client: &str, change: &mut ConfigChange) -> Result<(), ProtocolError> {
        if let Some(known) = self.clients.get_mut(client) {
            change.registered |= std::mem::take(&mut known.deleted);
            return Ok(());
        }
        if self.clients.len() >= MAX_CLIENTS {
            // Deleted clients are kept only for tabs that were away.
            let before = self.clients.len();
            self.clients.retain(|_, c| !c.deleted);
            if self.clients.len() < before {
                self.forget_desires();
            }
        }
        if self.clients.len() >= MAX_CLIENTS {
            return Err(ProtocolError::new(
                Kind::Internal,
                format!("the client group has more than {MAX_CLIENTS} clients; close some tabs"),
            ));
        }
        self.clients.insert(client.to_owned(), Client::default());
        change.registered = true;
        Ok(())
    }

    /// Applies changes of a client's desired set, in order.
    pub fn desire(
        &mut self,
        client: &str,
        ops: &[QueryOp],
        limits: (&Limits, &GroupLimits),
        now: f64,
        change: &mut ConfigChange,
    ) -> Result<(), ProtocolError> {
        let clock = self.clock(now);
        let mut asked = None;
        for op in ops {
            match op {
                QueryOp::Put { hash, ttl, query } => {
                    let spec = query.as_ref().filter(|_| self.must_be_told(hash)).map(|body| {
                        let asked = asked.get_or_insert_with(|| self.bytes_asked());
                        // It takes the place of what it was.
                        let before = self.queries.get(hash).map_or(0, |query| query.spec.bytes());
                        *asked = asked.saturating_sub(before);
                        let spec = Spec::of(body, *asked, limits.0);
                        *asked += spec.bytes();
                        spec
                    });
                    self.put(client, (hash, *ttl, spec), limits.1, change)?;
                }
                QueryOp::Del { hash } => self.deactivate(client, hash, Some(clock), change),
                QueryOp::Clear => {
                    for hash in self.desired_hashes(client) {
                        self.deactivate(client, &hash, None, change);
                    }
                }
            }
        }
        Ok(())
    }

    /// Bytes by which its queries are spelled.
    pub fn bytes_asked(&self) -> usize {
        self.queries.values().map(|query| query.spec.bytes()).sum()
    }

    /// Whether it has to be said what a query is: it is not known, or was refused.
    fn must_be_told(&self, hash: &str) -> bool {
        self.queries.get(hash).is_none_or(|query| query.failed)
    }

    fn put(
        &mut self,
        client: &str,
        (hash, ttl, spec): (&str, Option<f64>, Option<Spec>),
        limits: &GroupLimits,
        change: &mut ConfigChange,
    ) -> Result<(), ProtocolError> {
        // Ids of the reference's internal queries.
        if matches!(hash, "lmids" | "mutationResults") {
            return Ok(());
        }
        let known = self.queries.contains_key(hash);
        if !known && self.queries.len() >= MAX_QUERIES {
            return Err(too_many(format!("the client group has more than {MAX_QUERIES} queries")));
        }
        match (known, spec) {
            (true, spec) => {
                if let Some(query) = self.queries.get_mut(hash)
                    && std::mem::take(&mut query.failed)
                    && let Some(spec) = spec
                {
                    query.trouble = None;
                    query.refusal_told = false;
                    query.spec = spec;
                }
            }
            (false, Some(spec)) => {
                self.queries.insert(hash.to_owned(), Box::new(Query::new(spec)));
            }
            (false, None) => {
                return Err(ProtocolError::new(
                    Kind::Internal,
                    format!("query {hash} is not known here; its put must say what it is"),
                ));
            }
        }
        let ttl = clamp_ttl(ttl);
        let Some(record) = self.clients.get_mut(client) else { return Ok(()) };
        if !record.needs(hash, ttl) {
            return Ok(());
        }
        let many = record.desires.len() >= MAX_DESIRED;
        if many && !record.desires.contains_key(hash) && record.desired_count() >= MAX_DESIRED {
            return Err(too_many(format!("the client wants more than {MAX_DESIRED} queries at a time")));
        }
        if record.desires.len() >= limits.remembered_queries {
            met(Limit::RememberedQueries);
            // That one of them ended may just have happened, and is told with a label that is still to come.
            let is_over = |d: &Desire| !d.desired && d.inactive_since.is_none_or(|s| s + d.ttl <= self.clock);
            record.desires.retain(|hash, d| !is_over(d) || change.names(client, hash));
            (self.floor, self.desires_since) = (self.label, self.label);
        }
        let desire = Desire { ttl, inactive_since: None, desired: true, changed: self.label };
        record.desires.insert(hash.to_owned(), desire);
        change.push(client, QueryPatch::Put(hash.to_owned()));
        Ok(())
    }

    /// Takes a query out of a client's desired set. It stays for its time to live from
    /// `since` on, or not at all.
    fn deactivate(&mut self, client: &str, hash: &str, since: Option<f64>, change: &mut ConfigChange) {
        let Some(record) = self.clients.get_mut(client) else { return };
        let Some(desire) = record.desires.get_mut(hash).filter(|d| d.desired) else { return };
        desire.desired = false;
        desire.inactive_since = since;
        change.push(client, QueryPatch::Del(hash.to_owned()));
    }

    fn desired_hashes(&self, client: &str) -> Vec<String> {
        let Some(record) = self.clients.get(client) else { return Vec::new() };
        record.desires.iter().filter(|(_, d)| d.desired).map(|(hash, _)| hash.clone()).collect()
    }

    /// Deletes a client: what it wanted goes on for its time to live.
    pub fn delete_client(&mut self, client: &str, now: f64, change: &mut ConfigChange) {
        let clock = self.clock(now);
        let wanted = self.desired_hashes(client);
        for hash in &wanted {
            self.deactivate(client, hash, Some(clock), change);
        }
        if !wanted.is_empty() {
            // It may be there all the same, and says what it wants only when it connects.
            self.resend_soon(client);
        }
        if let Some(record) = self.clients.get_mut(client) {
            record.deleted = true;
        }
    }

    /// Stamps the changes with the label that tells them.
    pub fn stamp(&mut self, change: &ConfigChange, label: Cookie) {
        for (client, patches) in &change.desired {
            let Some(record) = self.clients.get_mut(client) else { continue };
            for patch in patches {
                let (QueryPatch::Put(hash) | QueryPatch::Del(hash)) = patch;
                if let Some(desire) = record.desires.get_mut(hash) {
                    desire.changed = label;
                }
            }
        }
    }

    /// Queries that nobody wants any more and whose time is over.
    pub fn expired(&self, now: f64) -> Vec<String> {
        let clock = self.clock(now);
        let mut wanted = vec![false; self.queries.len()];
        for client in self.clients.values() {
            // Both are in order: no query is looked up.
            let mut queries = self.queries.keys().enumerate().peekable();
            for (hash, desire) in &client.desires {
                while queries.next_if(|(_, known)| *known < hash).is_some() {}
                if let Some((at, _)) = queries.next_if(|(_, known)| *known == hash) {
                    wanted[at] |= !desire.is_expired(clock);
                }
            }
        }
        let expired = self.queries.keys().zip(wanted).filter(|(_, wanted)| !wanted);
        expired.map(|(hash, _)| hash.clone()).collect()
    }

    /// Time until the next query expires, in milliseconds, negative if one has; `None` if none
    /// will.
    pub fn next_expiry(&self, now: f64) -> Option<f64> {
        let clock = self.clock(now);
        self.clock_runs_since?;
        // A query goes when the last client's time is over, not when the first one's is.
        let left = |hash: &String| {
            let desires = self.clients.values().filter_map(|c| c.desires.get(hash));
            desires.map(|d| d.time_left(clock)).fold(f64::NEG_INFINITY, f64::max)
        };
        let inactive = self.clients.values().flat_map(|c| &c.desires).filter(|(_, d)| !d.desired);
        inactive
            .filter(|(hash, _)| self.queries.contains_key(*hash))
            .map(|(hash, _)| left(hash))
            .filter(|left| *left < f64::INFINITY)
            .min_by(f64::total_cmp)
    }

    /// The group's clock: it stands while nobody is connected.
    pub fn clock(&self, now: f64) -> f64 {
        self.clock + self.clock_runs_since.map_or(0.0, |since| (now - since).max(0.0))
    }

    /// Sets the group's clock to what it was.
    pub fn set_clock(&mut self, clock: f64) {
        self.clock = clock;
    }

    /// Starts or stops the clock when the first connection comes or the last one goes.
    pub fn connections_changed(&mut self, now: f64) {
        self.clock = self.clock(now);
        let connected = !self.connections.is_empty();
        self.clock_runs_since = connected.then_some(now);
        self.idle_since = (!connected).then_some(now);
        self.left_at = self.idle_since;
    }

    /// Ends the time of queries that no client wants any more. Whether that changed anything.
    pub fn expire_unwanted(&mut self) -> bool {
        let is_wanted =
            |hash: &str| self.clients.values().filter_map(|c| c.desires.get(hash)).any(|d| d.desired);
        let unwanted: Vec<&String> = self.queries.keys().filter(|hash| !is_wanted(hash)).collect();
        let mut changed = false;
        for client in self.clients.values_mut() {
            for hash in &unwanted {
                let ended = client.desires.get_mut(*hash).filter(|d| d.ttl > 0.0);
                changed |= ended.map(|desire| desire.ttl = 0.0).is_some();
            }
        }
        changed
    }

    /// A connection of the group.
    pub fn connection(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        self.connections.iter_mut().find(|c| c.id == id)
    }

    /// Whether rows must wait: a got query is being replaced (rule 16).
    pub fn is_held(&self, shared: &Shared) -> bool {
        self.queries.values().any(|q| q.is_swapping() || q.is_resuming()) || self.has_stale(shared)
    }

    /// Whether the client of a connection wants a query that a view answers.
    pub(super) fn is_wanted_by(&self, connection: ConnectionId, view: ViewId) -> bool {
        let connection = self.connections.iter().find(|c| c.id == connection);
        let client = connection.and_then(|c| self.clients.get(&c.client_id));
        let wants = |hash| client.and_then(|c| c.desires.get(hash)).is_some_and(|d| d.desired);
        self.queries.iter().any(|(hash, query)| query.current == Some(view) && wants(hash))
    }

    /// Whether a view that the group has is being read anew.
    pub fn has_stale(&self, shared: &Shared) -> bool {
        self.views.keys().any(|id| shared.views.get(*id).is_some_and(View::is_stale))
    }

    /// Whether it holds, or waits for, anything that a retired group does not.
    pub fn has_views(&self) -> bool {
        let is_used = |query: &Query| query.current.is_some() || query.pending.is_some();
        !self.held.is_empty() || self.queries.values().any(|query| is_used(query))
    }

    /// Whether some query that clients believe to have, or wait for, has no answer yet.
    pub fn is_waiting(&self) -> bool {
        self.queries.values().any(|query| query.is_waiting())
    }
}

fn too_many(what: String) -> ProtocolError {
    ProtocolError::new(Kind::InvalidMessage, format!("{what}; close views that are not needed"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::client_schema::ClientSchema;
    use crate::protocol::upstream::QueryBody;

    fn group() -> Group {
        let schema = ClientSchema { tables: BTreeMap::new() };
        Group::new("g".into(), Rc::new(Resolved { schema, keys: Rc::default(), misfit: None }))
    }

    fn put(hash: &str, ttl: f64) -> QueryOp<'static> {
        let args = serde_json::from_str::<&serde_json::value::RawValue>("[]").unwrap();
        let query = Some(QueryBody::Named { name: "q".into(), args });
        QueryOp::Put { hash: hash.into(), ttl: Some(ttl), query }
    }

    #[test]
    fn labels_only_grow_and_the_step_starts_over_with_the_major() {
        let mut group = group();
        let a = group.next_label(StateVersion::ZERO, 3).unwrap();
        let b = group.next_label(StateVersion::ZERO, 3).unwrap();
        let c = group.next_label(StateVersion(9), 3).unwrap();
        let d = group.next_label(StateVersion(9), 3).unwrap();
        assert!(a < b && b < c && c < d);
        assert_eq!((c.step(), d.step()), (0, 1));
        group.label = Cookie::label(9, 3, MAX_STEP);
        assert!(group.next_label(StateVersion(9), 3).is_err());
    }

    #[test]
    fn a_put_that_changes_nothing_is_no_change() {
        let mut group = group();
        let mut change = ConfigChange::default();
        group.register("c", &mut change).unwrap();
        group
            .desire("c", &[put("1", 1000.0)], (&Limits::DEFAULT, &GroupLimits::default()), 0.0, &mut change)
            .unwrap();
        assert_eq!(change.desired.len(), 1);
        let mut again = ConfigChange::default();
        group.register("c", &mut again).unwrap();
        group
            .desire("c", &[put("1", 500.0)], (&Limits::DEFAULT, &GroupLimits::default()), 0.0, &mut again)
            .unwrap();
        assert!(!again.is_change());
        group
            .desire("c", &[put("1", 2000.0)], (&Limits::DEFAULT, &GroupLimits::default()), 0.0, &mut again)
            .unwrap();
        assert!(again.is_change(), "a longer time to live is one");
    }

    #[test]
    fn a_query_expires_only_while_somebody_is_connected() {
        let mut group = group();
        let mut change = ConfigChange::default();
        group.register("c", &mut change).unwrap();
        group
            .desire("c", &[put("1", 100.0)], (&Limits::DEFAULT, &GroupLimits::default()), 0.0, &mut change)
            .unwrap();
        assert!(group.expired(1e9).is_empty(), "wanted queries never expire");
        group
            .desire(
                "c",
                &[QueryOp::Del { hash: "1".into() }],
                (&Limits::DEFAULT, &GroupLimits::default()),
                0.0,
                &mut change,
            )
            .unwrap();
        assert!(group.expired(1e9).is_empty(), "the clock stands");
        assert!(group.next_expiry(0.0).is_none());
        group.clock_runs_since = Some(0.0);
        assert_eq!(group.next_expiry(40.0), Some(60.0));
        assert_eq!(group.expired(100.0), ["1"]);
        assert_eq!(group.next_expiry(130.0), Some(-30.0), "since when it is over");
    }

    #[test]
    fn what_spells_too_much_is_not_kept_and_the_others_are() {
        let limits = Limits { arguments: 50, asked: 80, ..Limits::DEFAULT };
        let named = |args: &'static str| {
            let args = serde_json::from_str::<&serde_json::value::RawValue>(args).unwrap();
            Some(QueryBody::Named { name: "q".into(), args })
        };
        let put = |hash: &str, query| QueryOp::Put { hash: hash.into(), ttl: None, query };
        const LONG: &str = r#"["0123456789012345678901234567890123456789012345678901234567890123456789"]"#;
        const FAIR: &str = r#"["0123456789012345678901234567890123456789"]"#;
        let mut group = group();
        let mut change = ConfigChange::default();
        group.register("c", &mut change).unwrap();
        let ops = [put("long", named(LONG)), put("a", named(FAIR)), put("b", named(FAIR))];
        group.desire("c", &ops, (&limits, &GroupLimits::default()), 0.0, &mut change).unwrap();
        let is_kept =
            |group: &Group, hash: &str| matches!(group.queries.get(hash).unwrap().spec, Spec::Named { .. });
        assert_eq!(["long", "a", "b"].map(|hash| is_kept(&group, hash)), [false, true, false]);
        assert!(group.clients.get("c").unwrap().desires.values().all(|desire| desire.desired));
        // When there is room again it is enough to ask again.
        group.queries.get_mut("b").unwrap().failed = true;
        group.queries.remove("a");
        group.queries.remove("long");
        group
            .desire("c", &[put("b", named(FAIR))], (&limits, &GroupLimits::default()), 0.0, &mut change)
            .unwrap();
        assert!(is_kept(&group, "b"));
    }

    #[test]
    fn ten_thousand_desired_queries_are_refused() {
        let mut group = group();
        let mut change = ConfigChange::default();
        group.register("c", &mut change).unwrap();
        let ops: Vec<QueryOp> = (0..10_000).map(|i| put(&i.to_string(), 0.0)).collect();
        let error = group
            .desire("c", &ops, (&Limits::DEFAULT, &GroupLimits::default()), 0.0, &mut change)
            .unwrap_err();
        assert_eq!(error.kind, Kind::InvalidMessage);
    }
}
