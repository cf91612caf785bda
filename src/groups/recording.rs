//! What is recorded of a core's groups and views, step by step.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::group::Group;
use super::namer::Namer;
use super::old::Old;
use super::record;
use super::recorder::{Filling, LogName, Output, Writing};
use super::shared::Shared;
use super::syncer::Syncer;
use crate::changes::faults::{self, Fault};
use crate::changes::version::StateVersion;
use crate::cvr::record::{Batch, LeftRecord, Record, RecordId, RecordedDelta, RecordedRow, Start};
use crate::views::journal::Delta;
use crate::views::rows::RowId;
use crate::views::view::{Status, View, ViewId};

/// Members up to which a view is written at once, before the first group that has it.
const SMALL: usize = 2_000;

/// A file is begun anew when it is so many times as large as what lives, and this much more: what
/// is written twice is then a small part of all that is written.
const TIMES: u64 = 2;
const SLACK: u64 = 16 << 20;

impl Syncer {
    /// What has to be written because of what was done since the last call. `now`: the core's
    /// clock, in milliseconds.
    pub fn take_records(&mut self, now: f64) -> Option<Output> {
        let (changed, stale) = self.shared.views.take_marks();
        let Some(name) = self.shared.recorder.name else {
            self.shared.recorder.dirty.drain(..).for_each(drop);
            return None;
        };
        if self.shared.recorder.sequence == 0 {
            self.shared.recorder.head = self.shared.version;
            self.begin_records(name);
        }
        self.record_adopted();
        // What is not at the batch's end, or is only because it was read anew, is said first: once
        // the batch is there, it vouches for all views.
        self.record_stale(&stale);
        self.record_ended();
        let rejoined = self.record_rejoined();
        self.record_batch(&changed, &stale, &rejoined);
        self.record_groups(now);
        let recorder = &mut self.shared.recorder;
        for id in std::mem::take(&mut recorder.forgotten) {
            if !self.groups.contains_key(&id) {
                recorder.append(&Record::GroupGone(id.to_string()));
            }
        }
        for id in std::mem::take(&mut recorder.gone) {
            recorder.append(&Record::Gone(id));
        }
        let back = std::mem::take(&mut recorder.back);
        back.into_iter().for_each(|id| self.write_back(id));
        let recorder = &mut self.shared.recorder;
        if recorder.filling.is_none() && recorder.size > TIMES * recorder.complete_size + SLACK {
            self.begin_records(name);
        }
        let out = std::mem::take(&mut self.shared.recorder.out);
        (out != Output::default()).then_some(out)
    }

    /// Begins a file: all that is known is to be written into it.
    fn begin_records(&mut self, name: LogName) {
        let recorder = &mut self.shared.recorder;
        recorder.begin_file(name);
        recorder.views.values_mut().for_each(|writing| writing.next = None);
        let mut views: Vec<ViewId> = recorder.views.keys().copied().collect();
        views.sort_unstable();
        let mut groups: Vec<Rc<str>> = self.groups.keys().cloned().collect();
        groups.sort_unstable();
        recorder.filling = Some(Filling {
            whole: true,
            views: views.into(),
            waiting: 0,
            old: self.shared.old.ids().into(),
            begun: None,
            groups: groups.into(),
        });
    }

    /// Begins the file anew: the one before it is lost. All that is known is written again.
    pub fn restart_records(&mut self) {
        if let Some(name) = self.shared.recorder.name {
            self.shared.recorder.out = Output::default();
            self.begin_records(name);
        }
    }

    fn record_adopted(&mut self) {
        let shared = &mut self.shared;
        for id in std::mem::take(&mut shared.recorder.adopted) {
            let (Some(writing), Some(view)) = (shared.recorder.views.get(&id), shared.views.get(id)) else {
                continue;
            };
            let rows = shared.rows.borrow();
            let identities = Namer::of_view(view, &rows).identities(&shared.catalogue);
            let record = Record::Identities(writing.id, identities);
            drop(rows);
            shared.recorder.append(&record);
        }
    }

    fn record_batch(&mut self, changed: &[ViewId], stale: &[(ViewId, StateVersion)], rejoined: &[ViewId]) {
        let shared = &mut self.shared;
        let (from, end) = (shared.recorder.head, shared.version);
        if from == end {
            return;
        }
        shared.recorder.head = end;
        let rows = shared.rows.borrow();
        let mut deltas = BTreeMap::new();
        for id in changed {
            let newly_stale = stale.iter().find(|(stale, _)| stale == id).map(|(_, since)| *since);
            let is_told = |w: &&Writing| w.stale.is_none() || newly_stale.is_some();
            let Some(writing) = shared.recorder.views.get(id).filter(is_told) else { continue };
            let Some(view) = shared.views.get(*id).filter(|_| !rejoined.contains(id)) else { continue };
            // What comes after it became stale is told when it is at the head again.
            let since = newly_stale.unwrap_or(end);
            let namer = Namer::of_view(view, &rows);
            for delta in view.journal.since(from).take_while(|delta| delta.end <= since) {
                deltas.insert((writing.id, delta.end), namer.delta(delta));
            }
        }
        drop(rows);
        let deltas = deltas.into_iter().map(|((id, _), delta)| (id, delta)).collect();
        shared.recorder.append(&Record::Batch(Batch { previous: from, end, deltas }));
    }

    fn record_stale(&mut self, stale: &[(ViewId, StateVersion)]) {
        let recorder = &mut self.shared.recorder;
        for (id, since) in stale.iter().copied() {
            let Some(writing) = recorder.views.get_mut(&id).filter(|w| w.stale.is_none()) else { continue };
            writing.stale = Some(since);
            recorder.stale.insert(id);
            let record = Record::Stale(writing.id, since);
            recorder.append(&record);
        }
    }

    /// Views that are gone are not in the batch, which comes before it is said that they are.
    fn record_ended(&mut self) {
        let recorder = &mut self.shared.recorder;
        let (head, is_batch) = (recorder.head, recorder.head != self.shared.version);
        for id in std::mem::take(&mut recorder.ended).into_iter().filter(|_| is_batch) {
            recorder.append(&Record::Stale(id, head));
        }
    }

    /// Views that were read anew are at the head again.
    fn record_rejoined(&mut self) -> Vec<ViewId> {
        let shared = &self.shared;
        let recorder = &shared.recorder;
        let is_back =
            |id: &ViewId| shared.views.get(*id).is_some_and(View::is_live) && !recorder.behind.contains(id);
        let back: Vec<ViewId> = recorder.stale.iter().copied().filter(is_back).collect();
        back.iter().for_each(|id| self.record_rejoin(*id));
        back
    }

    fn record_rejoin(&mut self, id: ViewId) {
        let shared = &mut self.shared;
        let Some(view) = shared.views.get(id) else { return };
        let Some(writing) = shared.recorder.views.get_mut(&id) else { return };
        let Some(since) = writing.stale.take() else { return };
        shared.recorder.stale.remove(&id);
        let record = writing.id;
        if !view.journal.reaches(since) {
            // It differs in more than is listed: it is another one to whoever reads this.
            return self.record_as_another(id, record);
        }
        // What was written of its members is in another order now.
        writing.next = writing.next.map(|_| 0);
        let rows = shared.rows.borrow();
        let namer = Namer::of_view(view, &rows);
        // It may have been stale for a moment only, between two records.
        let since = since.min(shared.recorder.head);
        let after = if faults::is_on(Fault::Record) { shared.version } else { since };
        let deltas = view.journal.since(after).map(|delta| namer.delta(delta)).collect();
        drop(rows);
        shared.recorder.append(&Record::Rejoin(record, deltas));
        if shared.recorder.head < shared.version {
            return;
        }
        // The version's batch was written before this, and does not vouch for it.
        for id in shared.interested.get(&id).into_iter().flatten() {
            if let Some(group) = self.groups.get_mut(id) {
                group.noted_at = shared.version;
            }
        }
    }

    fn record_as_another(&mut self, view: ViewId, lost: RecordId) {
        let shared = &mut self.shared;
        shared.recorder.views.remove(&view);
        shared.recorder.gone.push(lost);
        if let Some(view) = shared.views.get_mut(view) {
            view.record = None;
        }
        let groups: Vec<Rc<str>> = shared.interested.get(&view).into_iter().flatten().cloned().collect();
        for id in &groups {
            if let Some(group) = self.groups.get_mut(id) {
                shared.note(group);
            }
        }
    }

    fn record_groups(&mut self, now: f64) {
        for id in std::mem::take(&mut self.shared.recorder.dirty) {
            self.record_group(&id, now);
        }
    }

    fn record_group(&mut self, id: &Rc<str>, now: f64) {
        let Some(group) = self.groups.get_mut(id) else { return };
        group.dirty = false;
        let views: Vec<ViewId> = group.views.keys().copied().collect();
        views.into_iter().for_each(|view| self.start_view(view));
        let Some(group) = self.groups.get(id) else { return };
        let schema = self.shared.recorder.schema(&group.schema);
        let recorder = &self.shared.recorder;
        let id_of = |view: ViewId| recorder.views.get(&view).map(|writing| writing.id);
        let record = record::record(group, now, self.shared.clock_zero, schema, id_of);
        self.shared.recorder.append(&Record::Group(Box::new(record)));
    }

    /// Begins to write a view, if it is not written yet.
    fn start_view(&mut self, id: ViewId) {
        let shared = &mut self.shared;
        let Some(name) = shared.recorder.name.filter(|_| !shared.recorder.views.contains_key(&id)) else {
            return;
        };
        let Some(view) = shared.views.get_mut(id) else { return };
        let record = *view.record.get_or_insert_with(|| {
            shared.recorder.next_number += 1;
            RecordId::of_core(name.epoch, name.core, shared.recorder.next_number)
        });
        let stale = match view.status {
            Status::Recorded(at) | Status::Stale(at) => Some(at),
            Status::New | Status::Live => None,
        };
        shared.recorder.views.insert(id, Writing { id: record, next: None, stale });
        if stale.is_some() {
            shared.recorder.stale.insert(id);
        }
        self.write_start(id);
        if self.shared.views.get(id).is_some_and(|view| view.size <= SMALL) {
            while self.write_members(id) {}
        }
        self.write_rest_later(id);
    }

    fn write_rest_later(&mut self, id: ViewId) {
        let recorder = &mut self.shared.recorder;
        if recorder.views.get(&id).is_some_and(|writing| writing.next.is_some()) {
            recorder.filling.get_or_insert_default().views.push_back(id);
        }
    }

    /// Writes what comes before a view's members.
    fn write_start(&mut self, id: ViewId) {
        let shared = &mut self.shared;
        let (Some(view), Some(key)) = (shared.views.get(id), shared.views.key_of(id)) else { return };
        let Some(writing) = shared.recorder.views.get_mut(&id) else { return };
        writing.next = Some(0);
        let (record, stale) = (writing.id, writing.stale);
        let rows = shared.rows.borrow();
        let namer = Namer::of_view(view, &rows);
        let identities = namer.identities(&shared.catalogue);
        let journal: Vec<RecordedDelta> =
            view.journal.since(StateVersion::ZERO).map(|delta| namer.delta(delta)).collect();
        drop(rows);
        let start = Start { id: record, key: key.to_vec(), floor: view.journal.floor(), stale, identities };
        shared.recorder.append(&Record::Start(start));
        for delta in journal {
            shared.recorder.append(&Record::Journal(record, delta));
        }
    }

    /// Writes some more of a view's members. False: they are all written, or have to wait until
    /// the view is at the head again.
    fn write_members(&mut self, id: ViewId) -> bool {
        let shared = &mut self.shared;
        let Some(writing) = shared.recorder.views.get_mut(&id) else { return false };
        let Some(next) = writing.next else { return false };
        let Some(view) = shared.views.get(id).filter(|view| is_as_written(view, writing)) else {
            return false;
        };
        let record = writing.id;
        let rows = shared.rows.borrow();
        let namer = Namer::of_view(view, &rows);
        let part = view.state.part(next);
        let is_last = part.is_none();
        let members: Vec<RecordedRow> = part.into_iter().flatten().map(|id| namer.row(id)).collect();
        writing.next = (!is_last).then_some(next + 1);
        let count = view.size as u64;
        drop(rows);
        for chunk in members.chunks(shared.recorder.piece) {
            shared.recorder.append(&Record::Members(record, chunk.to_vec()));
        }
        if is_last {
            shared.recorder.append(&Record::Complete(record, count));
        }
        !is_last
    }

    /// Writes some more of what a file does not have yet, at a time when every view is at the
    /// core's version. False: there is nothing that could be written now.
    pub fn fill_records(&mut self, now: f64) -> bool {
        let Some(filling) = &mut self.shared.recorder.filling else { return false };
        if let Some(id) = filling.old.front().copied() {
            self.fill_old(id);
            return true;
        }
        if let Some(id) = filling.views.front().copied() {
            return self.fill_view(id);
        }
        // One at a time: it may have left views of many rows.
        if let Some(id) = filling.groups.pop_front() {
            self.record_group(&id, now);
            self.write_left(&id);
        }
        let recorder = &mut self.shared.recorder;
        let empty = |f: &mut Filling| f.views.is_empty() && f.groups.is_empty();
        let Some(filled) = recorder.filling.take_if(empty) else { return true };
        if filled.whole {
            recorder.append(&Record::Checkpoint);
            recorder.complete_size = recorder.size;
            recorder.out.complete = true;
        }
        false
    }

    /// Writes some more of the first view of before.
    fn fill_old(&mut self, id: RecordId) {
        let begun = self.shared.recorder.filling.as_ref().and_then(|filling| filling.begun);
        let next = match begun {
            None => self.start_old(id),
            Some(from) => self.write_old_members(id, from),
        };
        let Some(filling) = &mut self.shared.recorder.filling else { return };
        filling.begun = next;
        if next.is_none() {
            filling.old.pop_front();
        }
    }

    /// Writes some more of the first view in line. False: all of them have to wait.
    fn fill_view(&mut self, id: ViewId) -> bool {
        let known = self.shared.recorder.views.get(&id);
        let (begun, gone) = (known.is_some_and(|w| w.next.is_some()), known.is_none());
        if !gone && !begun {
            self.write_start(id);
        }
        let more = !gone && self.write_members(id);
        let waits = self.shared.recorder.views.get(&id).is_some_and(|w| w.next.is_some());
        let Some(filling) = &mut self.shared.recorder.filling else { return false };
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
        self.shared.recorder.filling.is_some()
    }

    fn write_left(&mut self, id: &Rc<str>) {
        let Some(group) = self.groups.get(id) else { return };
        let shared = &mut self.shared;
        let rows = shared.rows.borrow();
        let records = group.left.iter().map(|left| {
            let namer = Namer::of_rows(&left.rows, &rows);
            Record::Left(LeftRecord {
                group: group.id.to_string(),
                since: (left.since.major, left.since.config),
                until: (left.until.major, left.until.config),
                identities: namer.identities(&shared.catalogue),
                rows: left.rows.iter().map(|id| namer.row(*id)).collect(),
            })
        });
        let records: Vec<Record> = records.collect();
        drop(rows);
        records.iter().for_each(|record| shared.recorder.append(record));
    }

    /// Writes a record again whose view is gone. Another view may have gone on with it at once: then it
    /// is as that view has it.
    fn write_back(&mut self, id: RecordId) {
        let shared = &mut self.shared;
        let mut views = shared.recorder.views.iter();
        let Some((view, writing)) = views.find(|(_, writing)| writing.id == id) else {
            return self.write_old(id);
        };
        let view = *view;
        if !shared.views.get(view).is_some_and(|view| is_as_written(view, writing)) {
            // Its members come later, and what it differs in may come before them: that is nothing to
            // what the first view held.
            shared.recorder.append(&Record::Gone(id));
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
        let Old { key, journal, at, .. } = shared.old.get(id)?;
        let rows = shared.rows.borrow();
        let named: Vec<RowId> = journal.since(StateVersion::ZERO).flat_map(Delta::rows).collect();
        let namer = Namer::of_rows(&named, &rows);
        let identities = namer.identities(&shared.catalogue);
        let start = Start { id, key: key.to_vec(), floor: journal.floor(), stale: Some(*at), identities };
        let mut records = vec![Record::Start(start)];
        records
            .extend(journal.since(StateVersion::ZERO).map(|delta| Record::Journal(id, namer.delta(delta))));
        drop(rows);
        records.iter().for_each(|record| shared.recorder.append(record));
        Some(0)
    }

    /// Writes some members of a view of before. Returns the next to write; `None`: that was all, or nobody
    /// needs it any more.
    fn write_old_members(&mut self, id: RecordId, from: usize) -> Option<usize> {
        let shared = &mut self.shared;
        let members = &shared.old.get(id)?.members;
        let end = members.len().min(from + shared.recorder.piece);
        if from == end {
            let count = members.len() as u64;
            shared.recorder.append(&Record::Complete(id, count));
            return None;
        }
        let rows = shared.rows.borrow();
        let namer = Namer::of_rows(&members[from..end], &rows);
        // Each piece has names of its own: to find those of all rows would be as long a step as to write them.
        let identities = Record::Identities(id, namer.identities(&shared.catalogue));
        let named = Record::Members(id, members[from..end].iter().map(|row| namer.row(*row)).collect());
        drop(rows);
        [identities, named].iter().for_each(|record| shared.recorder.append(record));
        Some(end)
    }
}

/// Whether a view holds what its record is about, so that its members can be written.
fn is_as_written(view: &View, writing: &Writing) -> bool {
    // It was read anew, and what it differs in has not been told yet. It may be stale again by now.
    let differs = writing.stale.is_some_and(|since| match view.status {
        Status::Stale(at) | Status::Recorded(at) => at != since,
        Status::New | Status::Live => true,
    });
    // If rows are missing, a lane reads it anew and has what it held.
    !differs && view.state.len() == view.size
}

impl Shared {
    /// A group has to be written anew.
    pub fn note(&mut self, group: &mut Group) {
        group.noted_at = self.version;
        self.recorder.note(group);
    }
}
