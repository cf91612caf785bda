//! All client groups of one core, and what is to be done for them.
//!
//! Events come in as calls; what they ask of the world comes out as return values and
//! through each connection's [`Sink`]. The clock is an argument. The server drives it: it
//! runs batches and hydrations, and calls [`Syncer::work`] between batches.

use std::collections::BTreeSet;
use std::rc::Rc;

use hashbrown::HashMap;

use super::catchup::{CatchUp, Progress};
use super::failures::Failures;
use super::group::Group;
use super::mutations::MutationTables;
use super::purging::Purger;
use super::reading::HydrationRequest;
use super::shared::Shared;
use super::step::{Transition, failed, step};
use super::user::User;
use crate::groups::sink::{Phase, Sink};
use crate::model::batch::{Batch, TableBatch};
use crate::model::ids::ConnectionId;
use crate::protocol::cookie::Cookie;
use crate::protocol::dialect::Dialect;
use crate::protocol::error::ProtocolError;
use crate::testing::faults::{self, Fault};
use crate::testing::panics;
use crate::views::view::ViewId;

/// How long a group and its views stay after its last connection went, in milliseconds
/// (ruling 16): a page reload finds them.
pub const LINGER: f64 = 60_000.0;

/// How long an encoded view is kept for others who ask for the same, in milliseconds.
pub const KEEP_ENCODED: f64 = 2_000.0;

/// Who connects.
pub struct Arrival {
    /// Number of the connection.
    pub id: ConnectionId,
    /// Tab.
    pub client_id: String,
    /// Group.
    pub group_id: Rc<str>,
    /// User that the connection was validated for.
    pub user: User,
    /// Browser profile, which may have several groups; `None`: an old client, whose group is all there
    /// is of it.
    pub profile_id: Option<String>,
    /// Cookie in the URL, if the tab has one.
    pub base_cookie: Option<Cookie>,
    /// Form of the pokes that it is sent, as its version of the protocol has it.
    pub dialect: Dialect,
    /// Way out.
    pub sink: Rc<dyn Sink>,
}

/// The groups of a core.
pub struct Syncer {
    /// What they share.
    pub shared: Shared,
    /// Groups by id.
    pub groups: HashMap<Rc<str>, Box<Group>>,
    pub(super) connections: HashMap<ConnectionId, Rc<str>>,
    pub(super) catchups: HashMap<ConnectionId, CatchUp>,
    pub(super) tables: Option<MutationTables>,
    /// Groups with something to do between batches.
    pub(super) due: BTreeSet<Rc<str>>,
    pub(super) hydrations: HashMap<ViewId, u64>,
    /// Hydrations whose rows are being sent to a connection, by the view's generation.
    pub(super) streams: HashMap<u64, ConnectionId>,
    pub(super) requested: Vec<HydrationRequest>,
    pub(super) encoded_since: HashMap<ViewId, f64>,
    pub(super) serial: u64,
    /// Counts requests for transformations.
    pub(super) transformations: u64,
    pub(super) failures: Failures,
    /// The tables have changed since queries were planned anew that named what there was not.
    pub(super) plans_anew: bool,
    /// `None`: groups are not forgotten for being old.
    pub(super) purger: Option<Purger>,
}

impl Syncer {
    /// `schema`: the shard's schema upstream, `{app}_{shard}`.
    pub fn new(mut shared: Shared, schema: &str) -> Syncer {
        let app = schema.rsplit_once('_').map_or(schema, |(app, _)| app);
        shared.schemas.set_own(&[app, schema]);
        let tables = MutationTables::find(&shared.catalogue, schema);
        Syncer {
            shared,
            groups: HashMap::new(),
            connections: HashMap::new(),
            catchups: HashMap::new(),
            tables,
            due: BTreeSet::new(),
            hydrations: HashMap::new(),
            streams: HashMap::new(),
            requested: Vec::new(),
            encoded_since: HashMap::new(),
            serial: 0,
            transformations: 0,
            failures: Failures::default(),
            plans_anew: false,
            purger: None,
        }
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

    /// Hands changed last mutation ids and results to their groups, and notes which tables changed for views that could
    /// not be read.
    pub fn route_mutations(&mut self, batch: &Batch) {
        self.failures.touch(batch);
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
        panics::here("the work of a group");
        if let Err(error) = self.advance_group(group_id, now) {
            self.fail_group(group_id, &error);
        }
        self.trim_encoded();
    }

    fn advance_group(&mut self, group_id: &Rc<str>, now: f64) -> Result<(), ProtocolError> {
        let Some(group) = self.groups.get_mut(group_id) else { return Ok(()) };
        if let Some(tables) = self.tables.as_ref().filter(|_| !group.attached) {
            tables.attach(&self.shared.reader, group).map_err(failed)?;
        }
        let (shared, hydrations, catchups) = (&self.shared, &self.hydrations, &self.catchups);
        // The hydration under way may be for others, who came when this group was sent the rows.
        let streamed = |generation: u64| {
            group.connections.iter().any(|c| catchups.get(&c.id).is_some_and(|c| c.has_read(generation)))
        };
        let ready = |id: ViewId| {
            shared.views.get(id).is_some_and(|v| {
                v.is_live() && (hydrations.get(&id) != Some(&v.generation) || streamed(v.generation))
            })
        };
        let mut transition = Transition { removed: group.expired(now), ..Transition::default() };
        let mut held = group.has_stale(shared);
        for (hash, query) in &group.queries {
            if query.failed && (query.got || query.pending.is_some() || !query.refusal_told) {
                transition.removed.push(hash.clone());
            } else if let Some(pending) = query.pending.filter(|_| !transition.removed.contains(hash)) {
                if ready(pending) {
                    transition.ready.push(hash.clone());
                } else {
                    held |= query.current.is_some() || query.is_resuming();
                }
            } else if query.pending.is_none() && !transition.removed.contains(hash) {
                held |= query.is_resuming();
            }
        }
        // While a view is replaced or read anew nothing of the new version may leave (rule 16).
        if !held || faults::is_on(Fault::Hold) {
            group.passed = 0;
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
    pub(super) fn catch_up(&mut self, group_id: &Rc<str>) -> Result<(), ProtocolError> {
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
}

fn wants(client: &super::desires::Client, hash: &str) -> bool {
    client.desires.get(hash).is_some_and(|d| d.desired)
}
