//! Groups and views after a restart: what the records say becomes what the core goes on from
//! (rules 19, 24).
//!
//! A group that comes back is held until every query that its clients have is answered by a
//! view of now, and then takes one step. Of a view that asks for what one of before asked for,
//! the step tells the difference; the rows of others count as left.

use std::rc::Rc;
use std::sync::Arc;

use super::group::{Group, LeftView};
use super::old::Old;
use super::record::{self, Held};
use super::schema::Resolved;
use super::shared::Shared;
use super::syncer::Syncer;
use crate::changes::version::StateVersion;
use crate::cvr::names::{Names, Row};
use crate::cvr::record::{NamedIdentity, RecordId};
use crate::cvr::replay::{Group as RecordedGroup, Incarnation, Recovered};
use crate::protocol::client_schema::ClientSchema;
use crate::protocol::cookie::Cookie;
use crate::replica::catalogue::Catalogue;
use crate::views::journal::{Delta, Journal};
use crate::views::rows::{IdentityId, RowId, Rows};
use crate::views::view::ViewId;

/// Restores what was recovered, bit by bit: a core has other things to do.
pub struct Restoration {
    identities: Vec<Option<IdentityId>>,
    names: Arc<Names>,
    incarnations: std::vec::IntoIter<Incarnation>,
    groups: std::vec::IntoIter<RecordedGroup>,
    schemas: std::collections::HashMap<u64, String>,
    /// Groups and views that could not be restored.
    pub dropped: usize,
}

impl Restoration {
    /// Prepares it. `None`: the records are of a replica that this one is older than, so that
    /// nothing can be said of what they say (rule 24).
    pub fn new(recovered: Recovered, replica: StateVersion, shared: &mut Shared) -> Option<Restoration> {
        if recovered.replica > replica {
            return None;
        }
        shared.wait_for = recovered.head;
        let mut rows = shared.rows.borrow_mut();
        let named = |identity: &NamedIdentity| resolve(identity, &shared.catalogue, &mut rows);
        let identities = recovered.identities.iter().map(named).collect();
        Some(Restoration {
            identities,
            names: recovered.names,
            incarnations: recovered.incarnations.into_iter(),
            groups: recovered.groups.into_iter(),
            schemas: recovered.schemas,
            dropped: 0,
        })
    }

    /// Restores the next view or group. False: all are.
    pub fn step(&mut self, syncer: &mut Syncer, now: f64) -> bool {
        if let Some(incarnation) = self.incarnations.next() {
            let (id, mut rows) = (incarnation.id, syncer.shared.rows.borrow_mut());
            let old = self.view(incarnation, &mut rows);
            drop(rows);
            match old {
                Some(old) => syncer.shared.old.add(id, old),
                None => self.dropped += 1,
            }
            return true;
        }
        let Some(recorded) = self.groups.next() else {
            syncer.shared.old.drop_unused(&mut syncer.shared.rows.borrow_mut());
            return false;
        };
        if let Some(group) = self.group(recorded, &mut syncer.shared, now) {
            syncer.groups.insert(group.id.clone(), group);
        } else {
            self.dropped += 1;
        }
        true
    }

    fn view(&self, incarnation: Incarnation, rows: &mut Rows) -> Option<Old> {
        let Incarnation { key, members, journal, floor, at, .. } = incarnation;
        let named = members
            .iter()
            .chain(journal.iter().flat_map(|d| d.entered.iter().chain(&d.left).chain(&d.edited)));
        if named.into_iter().any(|row| self.is_lost(*row)) {
            // A table or a column is gone.
            return None;
        }
        let mut sorted: Vec<Row> = members.into_iter().collect();
        sorted.sort_unstable();
        let members = sorted.iter().filter_map(|row| self.intern(row, rows)).collect();
        let mut restored = Journal::starting_at(floor);
        for delta in journal {
            let mut all = |list: &[Row]| -> Vec<RowId> {
                let mut ids: Vec<RowId> = list.iter().filter_map(|row| self.intern(row, rows)).collect();
                ids.sort_unstable();
                ids
            };
            let delta = Delta {
                end: delta.end,
                entered: all(&delta.entered),
                left: all(&delta.left),
                edited: all(&delta.edited),
            };
            let held: Vec<RowId> = delta.rows().collect();
            restored.push(delta, rows);
            rows.release_all(&held);
        }
        Some(Old { key, members, journal: restored, at, groups: 0 })
    }

    fn intern(&self, row: &Row, rows: &mut Rows) -> Option<RowId> {
        let (identity, key) = self.names.get(*row);
        Some(rows.intern(self.identities[identity as usize]?, key))
    }

    /// Whether the row's table, or a column of its key, is gone.
    fn is_lost(&self, row: Row) -> bool {
        self.identities[self.names.get(row).0 as usize].is_none()
    }

    /// `None`: the client schema does not fit the tables any more, which clients are told when they
    /// come with it.
    fn group(&mut self, recorded: RecordedGroup, shared: &mut Shared, now: f64) -> Option<Group> {
        let RecordedGroup { record, left } = recorded;
        let schema = self.schema(record.schema, shared)?;
        let mut group = record::restore(record, schema);
        // No label of another process is issued any more.
        group.next_label(StateVersion(group.label.major), shared.epoch).ok()?;
        let is_known = |held: &Held| shared.old.get(held.id).is_some();
        if !group.held.iter().all(is_known) {
            group.floor = group.label;
            group.held.clear();
        }
        for held in &group.held {
            shared.old.add_group(held.id);
        }
        for left in left {
            if left.rows.iter().any(|row| self.is_lost(*row)) {
                group.floor = group.floor.max(left.until);
                continue;
            }
            let mut rows = shared.rows.borrow_mut();
            let rows = left.rows.iter().filter_map(|row| self.intern(row, &mut rows)).collect();
            group.left.push_back(LeftView { since: left.since, until: left.until, rows });
        }
        group.idle_since = Some(now);
        Some(group)
    }

    fn schema(&self, number: u64, shared: &mut Shared) -> Option<Rc<Resolved>> {
        let schema: ClientSchema = serde_json::from_str(self.schemas.get(&number)?).ok()?;
        let catalogue = shared.catalogue.clone();
        shared.schemas.resolve(&schema, &catalogue).ok()
    }
}

/// An identity of now by its names; `None`: there is no such table, or it lost such a column.
fn resolve((table, columns): &NamedIdentity, catalogue: &Catalogue, rows: &mut Rows) -> Option<IdentityId> {
    let table = catalogue.table(table)?;
    let key: Option<Vec<_>> = columns.iter().map(|name| table.column(name)).collect();
    Some(rows.identity(table.id, &key?.into()))
}

impl Shared {
    /// Has a new view take over what one of before held that asked for the same.
    pub(super) fn adopt(&mut self, view: ViewId) {
        let Some(key) = self.views.key_of(view).map(Box::<[u8]>::from) else { return };
        if let Some((id, old)) = self.old.take(&key) {
            let mut rows = self.rows.borrow_mut();
            old.members.iter().for_each(|row| rows.acquire(*row));
            let journal = old.journal.copy(&mut rows);
            drop(rows);
            let at = old.at;
            self.views.adopt(view, id, old.members.clone(), journal, at);
            self.recorder.adopt(view, id, at);
        }
    }

    /// The record that a query had its rows from, if this view goes on with it.
    fn goes_on(&self, view: ViewId, recorded: Option<RecordId>) -> bool {
        recorded.is_some() && self.views.get(view).is_some_and(|view| view.record == recorded)
    }

    /// All that tabs may hold because of a view of before, with a reference to each row.
    fn rows_held(&self, id: RecordId) -> Option<Vec<RowId>> {
        let old = self.old.get(id)?;
        let mut rows = old.members.clone();
        rows.extend(old.journal.since(StateVersion::ZERO).flat_map(Delta::rows));
        rows.sort_unstable();
        rows.dedup();
        let mut numbers = self.rows.borrow_mut();
        rows.iter().for_each(|row| numbers.acquire(*row));
        Some(rows)
    }
}

/// Gives a restored query the view that goes on with the one that answered it. False: this is
/// another one.
pub(super) fn resume_query(group: &mut Group, shared: &mut Shared, hash: &str, view: ViewId) -> bool {
    let Some(query) = group.queries.get_mut(hash) else { return false };
    if query.current.is_some() || !query.got || !shared.goes_on(view, query.recorded) {
        return false;
    }
    let held = group.held.iter().position(|held| Some(held.id) == query.recorded);
    match (group.views.get_mut(&view), held) {
        (Some((_, queries)), _) => *queries += 1,
        (None, Some(at)) => {
            let held = group.held.swap_remove(at);
            group.views.insert(view, (held.since, 1));
            release(shared, held.id);
        }
        (None, None) => return false,
    }
    query.current = Some(view);
    query.recorded = None;
    shared.note(group);
    true
}

/// Leaves the views of before that no view of now goes on with: their rows are looked at for
/// whoever comes back. `label`: of the step that does.
pub(super) fn leave_held(group: &mut Group, shared: &mut Shared, label: Cookie) {
    for held in std::mem::take(&mut group.held) {
        match shared.rows_held(held.id) {
            Some(rows) => group.left.push_back(LeftView { since: held.since, until: label, rows }),
            None => group.floor = group.floor.max(label),
        }
        release(shared, held.id);
    }
    group.queries.values_mut().for_each(|query| query.recorded = None);
}

/// Gives up what a group had before, when it is forgotten or goes cold.
pub(super) fn forget_held(group: &mut Group, shared: &mut Shared) {
    for held in std::mem::take(&mut group.held) {
        release(shared, held.id);
    }
    group.queries.values_mut().for_each(|query| query.recorded = None);
}

fn release(shared: &mut Shared, id: RecordId) {
    let gone = shared.old.release(id, &mut shared.rows.borrow_mut());
    if gone && !shared.old.is_taken(id) {
        shared.recorder.old_gone(id);
    }
}
