//! A client group: its clients, what they want, what they have been told
//! (`docs/spec/view-syncer.md` §2, §3; rules 12, 14, 17).
//!
//! State and small decisions only; the steps that change what clients hold are in
//! [`super::step`] and [`super::catchup`].

use super::user::User;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use super::desires::Client;
use super::group_record::{Held, Seal};
use super::query::Query;
use super::schema::Resolved;
use super::shared::Shared;
use super::sorted::SortedMap;
use crate::groups::sink::Connection;
use crate::model::ids::ConnectionId;
use crate::model::version::StateVersion;
use crate::protocol::cookie::{Cookie, MAX_STEP};
use crate::protocol::error::{Kind, ProtocolError};
use crate::testing::faults::{self, Fault};
use crate::views::rows::RowId;
use crate::views::view::{View, ViewId};

/// A view that the group had and has no more: what a tab may still hold because of it.
#[derive(Debug)]
pub struct LeftView {
    /// Cookie since which the group had it.
    pub since: Cookie,
    /// Cookie at which it left.
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
    /// Queries that are gone, with the cookie at which clients were told; oldest first.
    pub removed_queries: VecDeque<(String, Cookie)>,
    /// Got views, with the cookie since which and the number of queries that they answer.
    pub views: SortedMap<ViewId, (Cookie, usize)>,
    /// Views left of late, oldest first.
    pub left: VecDeque<LeftView>,
    /// Lowest cookie of this life of the group; a tab without a cookie counts as being here. Cookies of any epoch below
    /// it are of another group that had the same id.
    pub first_cookie: Cookie,
    /// Last cookie issued.
    pub cookie: Cookie,
    /// Data version of the state that the last cookie stands for.
    pub version: StateVersion,
    /// Cookies below this cannot be served from history.
    pub floor: Cookie,
    /// What clients wanted before this cookie may have been forgotten.
    pub desires_since: Cookie,
    /// Last mutation ids by client.
    pub lmids: BTreeMap<String, u64>,
    /// Mutation results that were not cleaned up yet: JSON by client and mutation.
    pub results: BTreeMap<(String, u64), String>,
    /// Changed last mutation ids that no step has told yet.
    pub pending_lmids: BTreeMap<String, u64>,
    /// Changed results that no step has told yet: JSON of the patch operations.
    pub pending_results: Vec<String>,
    /// Told changes of results, with their cookies.
    pub result_changes: VecDeque<(Cookie, String)>,
    /// Views that it had before the process started, and that no view of now stands for yet.
    pub held: Vec<Held>,
    /// Epochs of before whose cookies can be served.
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
    pub(super) clock: f64,
    clock_runs_since: Option<f64>,
    /// When the last connection went, or the process started, in milliseconds of the process.
    pub idle_since: Option<f64>,
    /// When the last connection went, in milliseconds of the process: negative if it was not there yet.
    pub left_at: Option<f64>,
    /// At least so many bytes were made of its queries ([`crate::zql::limits::Limits::plans`]).
    pub planned: usize,
    /// Views that joined anew while the group still waited for others, since its last step.
    pub passed: u32,
    /// A connection has shown the administrator's password: all may inspect.
    pub inspected: bool,
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
            first_cookie: zero,
            cookie: zero,
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
            passed: 0,
            inspected: false,
        }
    }

    /// Issues the next cookie; `major`: data version of the state that it stands for.
    /// An error when a group made a million steps at one version: its clients start anew.
    pub fn next_cookie(&mut self, major: StateVersion, epoch: u64) -> Result<Cookie, ProtocolError> {
        let cookie = if major.0 > self.cookie.major {
            Cookie::new(major.0, epoch, 0)
        } else if self.cookie.epoch() < epoch {
            Cookie::new(self.cookie.major, epoch, 1)
        } else if self.cookie.step() < MAX_STEP {
            Cookie { config: self.cookie.config + u64::from(!faults::is_on(Fault::Cookies)), ..self.cookie }
        } else {
            return Err(ProtocolError::new(
                Kind::ClientNotFound,
                "the client group has no cookies left at this version; it has to start anew",
            ));
        };
        self.cookie = cookie;
        Ok(cookie)
    }

    /// Has a new group begin at this cookie.
    pub fn begin_at(&mut self, first_cookie: Cookie) {
        self.first_cookie = first_cookie;
        self.cookie = first_cookie;
        self.floor = first_cookie;
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

    /// Whether some client that is there waits for the first answer to a query. One that is away keeps nobody waiting:
    /// it may be that nobody asks for what it wants before it comes back.
    pub fn is_waiting(&self) -> bool {
        let mut waiting = self.queries.iter().filter(|(_, query)| query.is_waiting());
        waiting.any(|(hash, _)| self.connections.iter().any(|c| self.wants(&c.client_id, hash)))
    }

    /// Whether a client wants a query.
    pub fn wants(&self, client: &str, hash: &str) -> bool {
        self.clients.get(client).is_some_and(|c| c.desires.get(hash).is_some_and(|d| d.desired))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::groups::config_change::ConfigChange;
    use crate::groups::limits::GroupLimits;
    use crate::protocol::client_schema::ClientSchema;
    use crate::protocol::upstream::QueryBody;
    use crate::protocol::upstream::QueryOp;
    use crate::zql::limits::Limits;

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
        let a = group.next_cookie(StateVersion::ZERO, 3).unwrap();
        let b = group.next_cookie(StateVersion::ZERO, 3).unwrap();
        let c = group.next_cookie(StateVersion(9), 3).unwrap();
        let d = group.next_cookie(StateVersion(9), 3).unwrap();
        assert!(a < b && b < c && c < d);
        assert_eq!((c.step(), d.step()), (0, 1));
        group.cookie = Cookie::new(9, 3, MAX_STEP);
        assert!(group.next_cookie(StateVersion(9), 3).is_err());
    }

    #[test]
    fn a_query_expires_only_while_somebody_is_connected() {
        let mut group = group();
        let mut change = ConfigChange::default();
        group.register("c", usize::MAX, &mut change).unwrap();
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
}
