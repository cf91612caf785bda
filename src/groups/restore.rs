//! Groups and views after a restart: what the records say becomes what the core goes on from
//! (rules 19, 24).
//!
//! A group that comes back is held until every query that its clients have is answered by a
//! view of now, and then takes one step. Of a view that asks for what one of before asked for,
//! the step tells the difference; the rows of others count as left.

use std::num::NonZeroU32;
use std::rc::Rc;
use std::sync::Arc;

use super::group::{Group, LeftView};
use super::group_record::{self, Held};
use super::recovered_views::RecoveredView;
use super::schema::Resolved;
use super::shared::Shared;
use super::syncer::Syncer;
use crate::cvr::names::{Names, Row};
use crate::cvr::record::NamedIdentity;
use crate::cvr::recovered::{Generation, Recovered, RecoveredGroup};
use crate::model::catalogue::Catalogue;
use crate::model::ids::RecordId;
use crate::model::version::StateVersion;
use crate::protocol::client_schema::ClientSchema;
use crate::protocol::cookie::Cookie;
use crate::views::entries::IdentityId;
use crate::views::journal::{Delta, Journal};
use crate::views::rows::{RowId, Rows};
use crate::views::view::ViewId;

/// Rows whose numbers are given up in one step at the end.
const GIVEN_UP: usize = 10_000;

/// Restores what was recovered, bit by bit: a core has other things to do.
pub struct Restoration {
    numbers: Numbers,
    generations: std::vec::IntoIter<Generation>,
    groups: std::vec::IntoIter<RecoveredGroup>,
    schemas: std::collections::HashMap<u64, String>,
    /// Groups and views that do not fit the tables any more.
    pub misfits: usize,
}

impl Restoration {
    /// Prepares it. `None`: the records are of a replica that this one is older than, so that
    /// nothing can be said of what they say (rule 24).
    pub fn new(recovered: Recovered, replica: StateVersion, shared: &mut Shared) -> Option<Restoration> {
        if recovered.replica > replica {
            return None;
        }
        shared.wait_for = recovered.head;
        Some(Restoration {
            numbers: Numbers::new(recovered.names, &shared.catalogue, &mut shared.rows.borrow_mut()),
            generations: recovered.generations.into_iter(),
            groups: recovered.groups.into_iter(),
            schemas: recovered.schemas,
            misfits: 0,
        })
    }

    /// Restores the next view or group. False: all are.
    pub fn step(&mut self, syncer: &mut Syncer, now: f64) -> bool {
        if let Some(generation) = self.generations.next() {
            let journal = syncer.shared.views.journal(generation.journal.floor());
            let (id, mut rows) = (generation.id, syncer.shared.rows.borrow_mut());
            let old = self.view(&generation, journal, &mut rows);
            drop(rows);
            match old {
                Some(old) => syncer.shared.recovered.add(id, old),
                None => self.misfits += 1,
            }
            return true;
        }
        let Some(recorded) = self.groups.next() else {
            let mut rows = syncer.shared.rows.borrow_mut();
            if self.numbers.give_up(&mut rows) {
                return true;
            }
            syncer.shared.recovered.drop_unused(&mut rows);
            return false;
        };
        if let Some(group) = self.group(recorded, &mut syncer.shared, now) {
            self.misfits += usize::from(group.schema.misfit.is_some());
            syncer.groups.insert(group.id.clone(), Box::new(group));
        }
        true
    }

    /// `None`: a table or a column is gone. `restored`: its journal, which is empty yet.
    fn view(
        &mut self,
        generation: &Generation,
        mut restored: Journal,
        rows: &mut Rows,
    ) -> Option<RecoveredView> {
        let Generation { key, members, journal, at, .. } = generation;
        if !self.numbers.are_there(members.iter().copied().chain(journal.rows())) {
            return None;
        }
        let members = self.numbers.all(members, rows);
        for delta in journal.deltas() {
            let mut all = |list: &[Row]| {
                let mut ids = self.numbers.all(list, rows);
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
        Some(RecoveredView { key: (**key).into(), members, journal: restored, at: *at, groups: 0 })
    }

    /// One whose client schema does not fit the tables any more is kept as well: its clients are told
    /// so, and are served again once it fits. `None`: its schema is not known, or it has no cookies left.
    fn group(&mut self, recorded: RecoveredGroup, shared: &mut Shared, now: f64) -> Option<Group> {
        let RecoveredGroup { record, left } = recorded;
        let schema = self.schema(record.schema, shared)?;
        let mut group = group_record::restore(record, schema, now, shared.clock_zero);
        // No cookie of another process is issued any more.
        group.next_cookie(StateVersion(group.cookie.major), shared.epoch).ok()?;
        let is_known = |held: &Held| shared.recovered.get(held.id).is_some();
        if !group.held.iter().all(is_known) {
            group.floor = group.cookie;
            group.held.clear();
        }
        for held in &group.held {
            shared.recovered.add_group(held.id);
        }
        for left in left {
            if !self.numbers.are_there(left.rows.iter().copied()) {
                group.floor = group.floor.max(left.until);
                continue;
            }
            let rows = self.numbers.all(&left.rows, &mut shared.rows.borrow_mut());
            group.left.push_back(LeftView { since: left.since, until: left.until, rows });
        }
        Some(group)
    }

    fn schema(&self, number: u64, shared: &mut Shared) -> Option<Rc<Resolved>> {
        let schema: ClientSchema = serde_json::from_str(self.schemas.get(&number)?).ok()?;
        let catalogue = shared.catalogue.clone();
        Some(shared.schemas.restore(&schema, &catalogue))
    }
}

/// Numbers of now for rows of the records: each row is looked for once, whatever holds it.
struct Numbers {
    names: Arc<Names>,
    identities: Vec<Option<IdentityId>>,
    /// By row of the records. A reference is held to each, until all is restored.
    known: Vec<Option<NonZeroU32>>,
}

impl Numbers {
    fn new(names: Arc<Names>, catalogue: &Catalogue, rows: &mut Rows) -> Numbers {
        let named = |identity: &NamedIdentity| resolve(identity, catalogue, rows);
        let identities = names.identities().iter().map(named).collect();
        let known = vec![None; names.len()];
        Numbers { names, identities, known }
    }

    /// Whether the tables and key columns of all of these are still there.
    fn are_there(&self, mut rows: impl Iterator<Item = Row>) -> bool {
        let is_there = |row| self.identities[self.names.get(row).0 as usize].is_some();
        self.identities.iter().all(Option::is_some) || rows.all(is_there)
    }

    /// The numbers, with a reference to each.
    fn all(&mut self, list: &[Row], rows: &mut Rows) -> Vec<RowId> {
        list.iter().filter_map(|row| self.number(*row, rows)).collect()
    }

    fn number(&mut self, row: Row, rows: &mut Rows) -> Option<RowId> {
        let known = &mut self.known[row.0 as usize];
        if let Some(number) = known {
            let id = RowId(number.get() - 1);
            rows.acquire(id);
            return Some(id);
        }
        let (identity, key) = self.names.get(row);
        let id = rows.intern(self.identities[identity as usize]?, key);
        *known = NonZeroU32::new(id.0 + 1);
        rows.acquire(id);
        Some(id)
    }

    /// Gives up some of the references. False: none is left.
    fn give_up(&mut self, rows: &mut Rows) -> bool {
        let start = self.known.len().saturating_sub(GIVEN_UP);
        let given_up = self.known.drain(start..).flatten();
        given_up.for_each(|number| rows.release(RowId(number.get() - 1)));
        !self.known.is_empty()
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
        if let Some((id, old)) = self.recovered.take(&key) {
            let mut rows = self.rows.borrow_mut();
            old.members.iter().for_each(|row| rows.acquire(*row));
            let journal = old.journal.copy(&mut rows);
            drop(rows);
            let at = old.at;
            self.views.adopt(view, id, old.members.clone(), journal, at);
            self.record_log.adopt(view, id, at);
        }
    }

    /// The record that a query had its rows from, if this view goes on with it.
    fn goes_on(&self, view: ViewId, recorded: Option<RecordId>) -> bool {
        recorded.is_some() && self.views.get(view).is_some_and(|view| view.record == recorded)
    }

    /// All that tabs may hold because of a view of before, with a reference to each row; and the
    /// version from which on that is known.
    fn rows_held(&self, id: RecordId) -> Option<(Vec<RowId>, StateVersion)> {
        let old = self.recovered.get(id)?;
        let mut rows = old.members.clone();
        rows.extend(old.journal.since(StateVersion::ZERO).flat_map(Delta::rows));
        rows.sort_unstable();
        rows.dedup();
        let mut numbers = self.rows.borrow_mut();
        rows.iter().for_each(|row| numbers.acquire(*row));
        Some((rows, old.journal.floor()))
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
/// whoever comes back. `cookie`: of the step that does.
pub(super) fn leave_held(group: &mut Group, shared: &mut Shared, cookie: Cookie) {
    for held in std::mem::take(&mut group.held) {
        match shared.rows_held(held.id) {
            Some((rows, floor)) => {
                // Rows that had gone before the journal begins are not among these.
                if floor > StateVersion(held.since.major) {
                    group.floor = group.floor.max(Cookie { major: floor.0, config: 0 });
                }
                group.left.push_back(LeftView { since: held.since, until: cookie, rows });
            }
            None => group.floor = group.floor.max(cookie),
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
    let gone = shared.recovered.release(id, &mut shared.rows.borrow_mut());
    if gone && !shared.recovered.is_taken(id) {
        shared.record_log.old_gone(id);
    }
}
