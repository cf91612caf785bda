//! A group as a record has it, and back.

use std::rc::Rc;

use super::desires::{Client, Desire};
use super::group::Group;
use super::query::{Query, Spec};
use super::schema::Resolved;
use super::user::User;
use crate::cvr::record::cookie;
use crate::cvr::record::{ClientRecord, DesireRecord, GroupRecord, NOTHING, QueryRecord};
use crate::model::ids::RecordId;
use crate::model::version::StateVersion;
use crate::protocol::cookie::Cookie;
use crate::protocol::mutation_result::is_removal;
use crate::views::view::ViewId;

/// A view that a group had before the process started, and that no view of now stands for yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// Which life of which view.
    pub id: RecordId,
    /// Cookie since which the group had it.
    pub since: Cookie,
}

/// Epoch whose cookies are known, and how far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seal {
    /// The epoch.
    pub epoch: u64,
    /// Last version that the history of that epoch is known up to.
    pub head: StateVersion,
    /// Last cookie that a record of the group has.
    pub told: Cookie,
}

impl Seal {
    /// Whether a cookie of this epoch stands for a state that is known. Cookies of plain data are
    /// in no record of the group: they follow from the batch.
    pub fn covers(&self, cookie: Cookie) -> bool {
        cookie.epoch() == self.epoch
            && cookie.major <= self.head.0
            && (cookie <= self.told || cookie.step() == 0)
    }
}

/// Results that were cleaned up that a record names: a group is written with each of them, and only
/// tabs that were away when the server ended need them.
const MAX_RESULTS_GONE: usize = 64;

fn pair(cookie: Cookie) -> (u64, u64) {
    (cookie.major, cookie.config)
}

/// Start of 2026, in milliseconds since 1970. A clock that is before it has not been set yet, and what it says is not
/// written down: with a right one, everybody would seem to have been away for decades.
const FIRST_DAY: f64 = 1_767_225_600_000.0;

/// What is written of a group of which everything would be too much: whose it is, and that none of its cookies
/// can be served. Its clients are sent everything anew, and say once more what they want.
pub fn bare(group: &Group, now: f64, clock_zero: f64, schema: u64) -> GroupRecord {
    GroupRecord {
        id: group.id.to_string(),
        schema,
        user: group.user.as_ref().map(|user| user.id.clone()),
        is_proved: group.user.as_ref().is_some_and(|user| user.is_proved),
        profile: group.profile.clone(),
        first_cookie: pair(group.first_cookie),
        cookie: pair(group.cookie),
        version: group.version.0,
        floor: NOTHING,
        lost: true,
        clock: group.clock(now),
        left_at: left_at(group, clock_zero),
        ..GroupRecord::default()
    }
}

fn left_at(group: &Group, clock_zero: f64) -> Option<u64> {
    group.left_at.map(|at| clock_zero + at).filter(|at| *at >= FIRST_DAY).map(|at| at as u64)
}

/// Writes a group down. `id_of`: the record of each of its views, of which one that is not recorded has none;
/// `schema`: its number; `clock_zero`: as [`super::shared::Shared::clock_zero`].
pub fn record(
    group: &Group,
    now: f64,
    clock_zero: f64,
    schema: u64,
    id_of: impl Fn(ViewId) -> Option<RecordId>,
) -> GroupRecord {
    let is_whole = group.views.keys().all(|view| id_of(*view).is_some());
    let floor = pair(group.floor.max(results_floor(group)));
    let views = group.views.iter().filter_map(|(view, (since, _))| Some((id_of(*view)?, *since)));
    let held = group.held.iter().map(|held| (held.id, held.since));
    GroupRecord {
        id: group.id.to_string(),
        schema,
        user: group.user.as_ref().map(|user| user.id.clone()),
        is_proved: group.user.as_ref().is_some_and(|user| user.is_proved),
        profile: group.profile.clone(),
        first_cookie: pair(group.first_cookie),
        cookie: pair(group.cookie),
        version: group.version.0,
        floor: if is_whole { floor } else { NOTHING },
        lost: false,
        clock: group.clock(now),
        left_at: left_at(group, clock_zero),
        seals: group.seals.iter().map(|s| (s.epoch, s.head.0, s.told.major, s.told.config)).collect(),
        clients: group.clients.iter().map(|(id, client)| client_record(id, client)).collect(),
        queries: group
            .queries
            .iter()
            .map(|(hash, query)| {
                // Of one that nobody has come back to: what it had from a process before this one.
                let view = query.current.and_then(&id_of).or(query.recorded);
                query_record(hash, query, view)
            })
            .collect(),
        removed: group.removed_queries.iter().map(|(hash, cookie)| (hash.clone(), pair(*cookie))).collect(),
        views: views.chain(held).map(|(id, since)| (id.epoch, id.number, pair(since))).collect(),
        results: group.results.keys().cloned().collect(),
        results_gone: results_gone(group).map(|(at, op)| (pair(*at), op.clone())).collect(),
        results_going: group.pending_results.iter().filter(|op| is_removal(op)).cloned().collect(),
    }
}

/// Results that were cleaned up of late: those that are there are told anew in any case.
fn results_gone(group: &Group) -> impl Iterator<Item = &(Cookie, String)> {
    let all = group.result_changes.iter().filter(|(_, op)| is_removal(op));
    let count = all.clone().count();
    all.skip(count.saturating_sub(MAX_RESULTS_GONE))
}

/// Cookie below which a tab may miss a result that was cleaned up, if the group is restored from its
/// record.
fn results_floor(group: &Group) -> Cookie {
    let all = group.result_changes.iter().filter(|(_, op)| is_removal(op));
    let count = all.clone().count();
    let dropped = all.take(count.saturating_sub(MAX_RESULTS_GONE)).last();
    dropped.map_or(Cookie { major: 0, config: 0 }, |(at, _)| *at)
}

fn client_record(id: &str, client: &Client) -> ClientRecord {
    let desires = client.desires.iter().map(|(hash, desire)| DesireRecord {
        hash: hash.clone(),
        ttl: desire.ttl,
        inactive: desire.inactive_since,
        desired: desire.desired,
        changed: pair(desire.changed),
    });
    ClientRecord { id: id.to_owned(), deleted: client.deleted, desires: desires.collect() }
}

fn query_record(hash: &str, query: &Query, view: Option<RecordId>) -> QueryRecord {
    let (name, text) = match &query.spec {
        Spec::Named { name, args } => (Some(name.clone()), args.clone()),
        Spec::Ast(text) => (None, text.clone()),
        // Nothing that could be taken for what was asked.
        Spec::TooMuch { .. } => (None, String::new()),
    };
    QueryRecord {
        hash: hash.to_owned(),
        name,
        text,
        // What this server cannot answer the next one tries anew.
        failed: query.is_refused(),
        refusal_told: query.refusal_told,
        got: query.got,
        got_changed: pair(query.got_changed),
        view: view.map(|id| (id.epoch, id.number)),
    }
}

/// Makes a group of what was written down, at `now`. Its views are what it held; none is a view of now yet.
pub fn restore(record: GroupRecord, schema: Rc<Resolved>, now: f64, clock_zero: f64) -> Group {
    let mut group = Group::new(record.id.as_str().into(), schema);
    group.user = record.user.map(|id| User { id, is_proved: record.is_proved });
    group.profile = record.profile;
    group.first_cookie = cookie(record.first_cookie);
    group.cookie = cookie(record.cookie);
    group.version = StateVersion(record.version);
    group.floor = cookie(record.floor);
    // That is not recorded by itself; where something was forgotten the floor was raised with it. A floor above all
    // cookies means that none can be served, and is lowered by the next step; this is not.
    group.desires_since = group.floor.min(group.cookie);
    group.set_clock(record.clock);
    group.idle_since = Some(now);
    // Who was connected at the end was there until now: nobody can say when the end was.
    group.left_at = Some(record.left_at.map_or(now, |at| now.min(at as f64 - clock_zero)));
    let seal = |(epoch, head, major, config)| Seal {
        epoch,
        head: StateVersion(head),
        told: Cookie { major, config },
    };
    group.seals = record.seals.into_iter().map(seal).collect();
    group.clients = record.clients.into_iter().map(restore_client).collect();
    group.queries = record.queries.into_iter().map(restore_query).collect();
    group.removed_queries = record.removed.into_iter().map(|(hash, at)| (hash, cookie(at))).collect();
    let held = record
        .views
        .into_iter()
        .map(|(epoch, number, since)| Held { id: RecordId { epoch, number }, since: cookie(since) });
    group.held = held.collect();
    // What they were is not known, only that clients may have them.
    group.result_changes = record.results_gone.into_iter().map(|(at, op)| (cookie(at), op)).collect();
    group.pending_results = record.results_going;
    group.results = record.results.into_iter().map(|key| (key, String::new())).collect();
    group
}

fn restore_client(record: ClientRecord) -> (String, Client) {
    let desires = record.desires.into_iter().map(|desire| {
        let restored = Desire {
            ttl: desire.ttl,
            inactive_since: desire.inactive,
            desired: desire.desired,
            changed: cookie(desire.changed),
        };
        (desire.hash, restored)
    });
    let client = Client { desires: desires.collect(), deleted: record.deleted, resends: 0 };
    (record.id, client)
}

fn restore_query(record: QueryRecord) -> (String, Box<Query>) {
    let spec = match record.name {
        Some(name) => Spec::Named { name, args: record.text },
        None if record.text.is_empty() => {
            let why = "the query was more than is kept; it has to be asked for again".to_owned();
            Spec::TooMuch { name: String::new(), why }
        }
        None => Spec::Ast(record.text),
    };
    let query = Query {
        failed: record.failed,
        refusal_told: record.refusal_told,
        got: record.got,
        got_changed: cookie(record.got_changed),
        recorded: record.view.map(|(epoch, number)| RecordId { epoch, number }),
        ..Query::new(spec)
    };
    (record.hash, Box::new(query))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::client_schema::ClientSchema;

    /// Milliseconds since 1970 when the process began that writes, and the one that reads.
    const WRITES: f64 = FIRST_DAY + 9e9;
    const READS: f64 = WRITES + 60_000.0;

    fn schema() -> Rc<Resolved> {
        let schema = ClientSchema { tables: Default::default() };
        Rc::new(Resolved { schema, keys: Rc::default(), misfit: None })
    }

    /// When somebody was there last, on the clock of the process that reads, a second after it began.
    fn read_back(left_at: Option<f64>, began: f64) -> Option<f64> {
        let mut group = Group::new("g".into(), schema());
        group.left_at = left_at;
        let written = record(&group, 30_000.0, began, 1, |_| None);
        restore(written, schema(), 1_000.0, READS).left_at
    }

    #[test]
    fn clients_of_a_group_of_which_nothing_can_be_served_come_back_once_and_not_for_ever() {
        let mut group = Group::new("g".into(), schema());
        group.cookie = Cookie::new(5, 1, 2);
        let written = bare(&group, 30_000.0, WRITES, 1);
        assert_eq!(written.floor, NOTHING);
        let restored = restore(written, schema(), 1_000.0, READS);
        assert_eq!(restored.desires_since, group.cookie, "what comes later was told by this process");
    }

    #[test]
    fn the_time_without_connections_is_of_the_calendar() {
        assert_eq!(read_back(Some(5_000.0), WRITES), Some(-55_000.0));
        assert_eq!(read_back(None, WRITES), Some(1_000.0), "somebody was there at the end");
        assert_eq!(read_back(Some(5_000.0), READS + 1e9), Some(1_000.0), "that is to come");
        assert_eq!(read_back(Some(5_000.0), 0.0), Some(1_000.0), "the clock had not been set");
    }

    #[test]
    fn it_is_known_where_a_group_began() {
        let mut group = Group::new("g".into(), schema());
        group.begin_at(Cookie::new(9, 3, 1));
        let restored = restore(record(&group, 0.0, WRITES, 1, |_| None), schema(), 0.0, READS);
        assert_eq!(restored.first_cookie, group.first_cookie);
    }
}
