//! Writes views and groups whole: when a first group has a view, and when a file is begun anew (rule 23).

use std::rc::Rc;

use super::record_log::{Filling, Writing};
use super::recovered_views::RecoveredView;
use super::row_naming::RowNaming;
use super::syncer::Syncer;
use crate::cvr::record::{LeftRecord, Record, RecordedDelta, RecordedRow, StartRecord};
use crate::model::ids::RecordId;
use crate::model::version::StateVersion;
use crate::testing::met::{Limit, met};
use crate::views::journal::Delta;
use crate::views::rows::RowId;
use crate::views::view::{Status, View, ViewId};

/// Members up to which a view is written at once, before the first group that has it.
const SMALL: usize = 2_000;

impl Syncer {
    /// Begins to write a view, if it is not written yet.
    pub(super) fn start_view(&mut self, id: ViewId) {
        let shared = &mut self.shared;
        let record_log = &shared.record_log;
        let is_known = record_log.views.contains_key(&id) || record_log.unrecorded.contains(&id);
        let Some(name) = record_log.name.filter(|_| !is_known) else { return };
        let Some(view) = shared.views.get_mut(id) else { return };
        let record = *view.record.get_or_insert_with(|| {
            shared.record_log.next_number += 1;
            RecordId::of_core(name.epoch, name.core, shared.record_log.next_number)
        });
        let stale = match view.status {
            Status::Recorded(at) | Status::Stale(at) => Some(at),
            Status::New | Status::Live => None,
        };
        shared.record_log.views.insert(id, Writing { id: record, next: None, stale });
        if stale.is_some() {
            shared.record_log.stale.insert(id);
        }
        self.write_start(id);
        if self.shared.views.get(id).is_some_and(|view| view.size <= SMALL) {
            while self.write_members(id) {}
        }
        self.write_rest_later(id);
    }

    fn write_rest_later(&mut self, id: ViewId) {
        let record_log = &mut self.shared.record_log;
        if record_log.views.get(&id).is_some_and(|writing| writing.next.is_some()) {
            record_log.filling.get_or_insert_default().views.push_back(id);
        }
    }

    /// Writes what comes before a view's members.
    fn write_start(&mut self, id: ViewId) {
        let shared = &mut self.shared;
        let (Some(view), Some(key)) = (shared.views.get(id), shared.views.key_of(id)) else { return };
        let Some(writing) = shared.record_log.views.get_mut(&id) else { return };
        writing.next = Some(0);
        let (record, stale) = (writing.id, writing.stale);
        let rows = shared.rows.borrow();
        let naming = RowNaming::of_view(view, &rows);
        let identities = naming.identities(&shared.catalogue);
        let journal: Vec<RecordedDelta> =
            view.journal.since(StateVersion::ZERO).map(|delta| naming.delta(delta)).collect();
        drop(rows);
        let start =
            StartRecord { id: record, key: key.to_vec(), floor: view.journal.floor(), stale, identities };
        let record_log = &mut shared.record_log;
        let written = record_log.append(Record::Start(start)).and_then(|()| {
            let mut journal = journal.into_iter().map(|delta| Record::Journal(record, delta));
            journal.try_for_each(|delta| record_log.append(delta))
        });
        if written.is_err() {
            self.leave_out(id);
        }
    }

    /// Writes some more of a view's members. False: they are all written, or have to wait until
    /// the view is at the head again.
    fn write_members(&mut self, id: ViewId) -> bool {
        let shared = &mut self.shared;
        let Some(writing) = shared.record_log.views.get_mut(&id) else { return false };
        let Some(next) = writing.next else { return false };
        let Some(view) = shared.views.get(id).filter(|view| is_as_written(view, writing)) else {
            return false;
        };
        let record = writing.id;
        let rows = shared.rows.borrow();
        let naming = RowNaming::of_view(view, &rows);
        let part = view.state.part(next);
        let is_last = part.is_none();
        let members: Vec<RecordedRow> = part.into_iter().flatten().map(|id| naming.row(id)).collect();
        writing.next = (!is_last).then_some(next + 1);
        let count = view.size as u64;
        drop(rows);
        let record_log = &mut shared.record_log;
        let mut chunks = members.chunks(record_log.piece);
        if chunks.len() > 1 || !is_last {
            met(Limit::RecordRows);
        }
        if chunks.any(|chunk| record_log.append(Record::Members(record, chunk.to_vec())).is_err()) {
            self.leave_out(id);
            return false;
        }
        if is_last {
            record_log.append_small(Record::Complete(record, count));
        }
        !is_last
    }

    /// Writes some more of what a file does not have yet, at a time when every view is at the
    /// core's version. False: there is nothing that could be written now.
    pub fn fill_records(&mut self, now: f64) -> bool {
        let Some(filling) = &mut self.shared.record_log.filling else { return false };
        if let Some(id) = filling.recovered.front().copied() {
            self.fill_old(id);
            return true;
        }
        if let Some(id) = filling.views.front().copied() {
            return self.fill_view(id);
        }
        // One at a time: it may have left views of many rows.
        if let Some(id) = filling.groups.pop_front() {
            self.record_group(&id, now);
            self.write_left(&id, now);
        }
        let record_log = &mut self.shared.record_log;
        let empty = |f: &mut Filling| f.views.is_empty() && f.groups.is_empty();
        let Some(filled) = record_log.filling.take_if(empty) else { return true };
        if filled.whole {
            record_log.append_small(Record::Checkpoint);
            record_log.complete_size = record_log.size;
            record_log.out.complete = true;
        }
        false
    }

    /// Writes some more of the first view of before.
    fn fill_old(&mut self, id: RecordId) {
        let begun = self.shared.record_log.filling.as_ref().and_then(|filling| filling.begun);
        let next = match begun {
            None => self.start_old(id),
            Some(from) => self.write_old_members(id, from),
        };
        let Some(filling) = &mut self.shared.record_log.filling else { return };
        filling.begun = next;
        if next.is_none() {
            filling.recovered.pop_front();
        }
    }

    /// Writes some more of the first view in line. False: all of them have to wait.
    fn fill_view(&mut self, id: ViewId) -> bool {
        let known = self.shared.record_log.views.get(&id);
        let (begun, gone) = (known.is_some_and(|w| w.next.is_some()), known.is_none());
        if !gone && !begun {
            self.write_start(id);
        }
        let more = !gone && self.write_members(id);
        let waits = self.shared.record_log.views.get(&id).is_some_and(|w| w.next.is_some());
        let Some(filling) = &mut self.shared.record_log.filling else { return false };
        if more || !waits {
            filling.waiting = 0;
        }
        if more {
            return true;
        }
        filling.views.pop_front();
        if waits {
            filling.waiting += 1;
            filling.views.push_back(id);
        }
        // The others first; if all of them wait, later.
        filling.waiting < filling.views.len().max(1)
    }

    /// Whether the file lacks something still.
    pub fn is_filling(&self) -> bool {
        self.shared.record_log.filling.is_some()
    }

    fn write_left(&mut self, id: &Rc<str>, now: f64) {
        let Some(group) = self.groups.get(id) else { return };
        let shared = &mut self.shared;
        let rows = shared.rows.borrow();
        let records = group.left.iter().map(|left| {
            let naming = RowNaming::of_rows(&left.rows, &rows);
            Record::Left(LeftRecord {
                group: group.id.to_string(),
                since: (left.since.major, left.since.config),
                until: (left.until.major, left.until.config),
                identities: naming.identities(&shared.catalogue),
                rows: left.rows.iter().map(|id| naming.row(*id)).collect(),
            })
        });
        let records: Vec<Record> = records.collect();
        drop(rows);
        if records.into_iter().any(|record| shared.record_log.append(record).is_err()) {
            self.forget_left(id, now);
        }
    }

    /// A row of a view that a group left is too large to be written: whoever was away when it was left starts
    /// from a cleared store, whether there is a restart or not.
    fn forget_left(&mut self, id: &Rc<str>, now: f64) {
        let Some(group) = self.groups.get_mut(id) else { return };
        for left in std::mem::take(&mut group.left) {
            group.floor = group.floor.max(left.until);
            self.shared.rows.borrow_mut().release_all(&left.rows);
        }
        self.record_group(id, now);
    }

    /// Writes a record again whose view is gone. Another view may have gone on with it at once: then it
    /// is as that view has it.
    pub(super) fn write_back(&mut self, id: RecordId) {
        let shared = &mut self.shared;
        let mut views = shared.record_log.views.iter();
        let Some((view, writing)) = views.find(|(_, writing)| writing.id == id) else {
            return self.write_old(id);
        };
        let view = *view;
        if !shared.views.get(view).is_some_and(|view| is_as_written(view, writing)) {
            // Its members come later, and what it differs in may come before them: that is nothing to
            // what the first view held.
            shared.record_log.append_small(Record::Gone(id));
        }
        self.write_start(view);
        while self.write_members(view) {}
        self.write_rest_later(view);
    }

    /// Writes a view of before that nobody has asked for yet.
    fn write_old(&mut self, id: RecordId) {
        let mut next = self.start_old(id);
        while let Some(from) = next {
            next = self.write_old_members(id, from);
        }
    }

    /// Begins with a view of before. Returns the first member to write; `None`: nobody needs it any more.
    fn start_old(&mut self, id: RecordId) -> Option<usize> {
        let shared = &mut self.shared;
        let RecoveredView { key, journal, at, .. } = shared.recovered.get(id)?;
        let rows = shared.rows.borrow();
        let named: Vec<RowId> = journal.since(StateVersion::ZERO).flat_map(Delta::rows).collect();
        let naming = RowNaming::of_rows(&named, &rows);
        let identities = naming.identities(&shared.catalogue);
        let start =
            StartRecord { id, key: key.to_vec(), floor: journal.floor(), stale: Some(*at), identities };
        let mut records = vec![Record::Start(start)];
        records
            .extend(journal.since(StateVersion::ZERO).map(|delta| Record::Journal(id, naming.delta(delta))));
        drop(rows);
        self.append_old(id, records).then_some(0)
    }

    /// Writes some members of a view of before. Returns the next to write; `None`: that was all, or nobody
    /// needs it any more.
    fn write_old_members(&mut self, id: RecordId, from: usize) -> Option<usize> {
        let shared = &mut self.shared;
        let members = &shared.recovered.get(id)?.members;
        let end = members.len().min(from + shared.record_log.piece);
        if end < members.len() {
            met(Limit::RecordRows);
        }
        if from == end {
            let count = members.len() as u64;
            shared.record_log.append_small(Record::Complete(id, count));
            return None;
        }
        let rows = shared.rows.borrow();
        let naming = RowNaming::of_rows(&members[from..end], &rows);
        // Each piece has names of its own: to find those of all rows would be as long a step as to write them.
        let identities = Record::Identities(id, naming.identities(&shared.catalogue));
        let named = Record::Members(id, members[from..end].iter().map(|row| naming.row(*row)).collect());
        drop(rows);
        self.append_old(id, vec![identities, named]).then_some(end)
    }

    /// Appends records of a view of before. False: one of them is too large, and the view is not recorded any more.
    fn append_old(&mut self, id: RecordId, records: Vec<Record>) -> bool {
        let record_log = &mut self.shared.record_log;
        let is_written = records.into_iter().all(|record| record_log.append(record).is_ok());
        if !is_written {
            record_log.append_small(Record::Gone(id));
            record_log.out.unrecorded += 1;
        }
        is_written
    }
}

/// Whether a view holds what its record is about, so that its members can be written.
fn is_as_written(view: &View, writing: &Writing) -> bool {
    // It was read anew, and what it differs in has not been told yet. It may be stale again by now.
    let differs = writing.stale.is_some_and(|since| match view.status {
        Status::Stale(at) | Status::Recorded(at) => at != since,
        Status::New | Status::Live => true,
    });
    // If rows are missing, a hydration reads it anew and has what it held.
    !differs && view.state.len() == view.size
}
