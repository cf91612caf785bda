//! What is recorded of a core's groups and views, step by step.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::group::Group;
use super::group_record;
use super::record_log::{Filling, LogName, Output, Writing};
use super::row_naming::RowNaming;
use super::shared::Shared;
use super::syncer::Syncer;
use crate::cvr::record::{BatchRecord, Record};
use crate::model::ids::RecordId;
use crate::model::version::StateVersion;
use crate::testing::faults::{self, Fault};
use crate::views::view::{View, ViewId};

/// A file is begun anew when it is so many times as large as what lives, and this much more: what
/// is written twice is then a small part of all that is written.
const TIMES: u64 = 2;
const SLACK: u64 = 16 << 20;

impl Syncer {
    /// What has to be written because of what was done since the last call. `now`: the core's
    /// clock, in milliseconds.
    pub fn take_records(&mut self, now: f64) -> Option<Output> {
        let (changed, stale) = self.shared.views.take_marks();
        let Some(name) = self.shared.record_log.name else {
            self.shared.record_log.dirty.drain(..).for_each(drop);
            return None;
        };
        if self.shared.record_log.sequence == 0 {
            self.shared.record_log.head = self.shared.version;
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
        let record_log = &mut self.shared.record_log;
        for id in std::mem::take(&mut record_log.forgotten) {
            if !self.groups.contains_key(&id) {
                record_log.unrecorded_groups.remove(&id);
                record_log.append_small(Record::GroupGone(id.to_string()));
            }
        }
        for id in std::mem::take(&mut record_log.gone) {
            record_log.append_small(Record::Gone(id));
        }
        let back = std::mem::take(&mut record_log.back);
        back.into_iter().for_each(|id| self.write_back(id));
        let record_log = &mut self.shared.record_log;
        if record_log.filling.is_none() && record_log.size > TIMES * record_log.complete_size + SLACK {
            self.begin_records(name);
        }
        let out = std::mem::take(&mut self.shared.record_log.out);
        (out != Output::default()).then_some(out)
    }

    /// Begins a file: all that is known is to be written into it.
    fn begin_records(&mut self, name: LogName) {
        let record_log = &mut self.shared.record_log;
        record_log.begin_file(name);
        // Perhaps they have become smaller.
        record_log.unrecorded.clear();
        record_log.views.values_mut().for_each(|writing| writing.next = None);
        let mut views: Vec<ViewId> = record_log.views.keys().copied().collect();
        views.sort_unstable();
        let mut groups: Vec<Rc<str>> = self.groups.keys().cloned().collect();
        groups.sort_unstable();
        record_log.filling = Some(Filling {
            whole: true,
            views: views.into(),
            waiting: 0,
            recovered: self.shared.recovered.ids().into(),
            begun: None,
            groups: groups.into(),
        });
    }

    /// Begins the file anew: the one before it is lost. All that is known is written again.
    pub fn restart_records(&mut self) {
        if let Some(name) = self.shared.record_log.name {
            self.shared.record_log.out = Output::default();
            self.begin_records(name);
        }
    }

    fn record_adopted(&mut self) {
        for id in std::mem::take(&mut self.shared.record_log.adopted) {
            let shared = &mut self.shared;
            let (Some(writing), Some(view)) = (shared.record_log.views.get(&id), shared.views.get(id)) else {
                continue;
            };
            let rows = shared.rows.borrow();
            let identities = RowNaming::of_view(view, &rows).identities(&shared.catalogue);
            let record = Record::Identities(writing.id, identities);
            drop(rows);
            if shared.record_log.append(record).is_err() {
                self.leave_out(id);
            }
        }
    }

    fn record_batch(&mut self, changed: &[ViewId], stale: &[(ViewId, StateVersion)], rejoined: &[ViewId]) {
        let shared = &mut self.shared;
        let (from, end) = (shared.record_log.head, shared.version);
        if from == end {
            return;
        }
        shared.record_log.head = end;
        let rows = shared.rows.borrow();
        let (mut deltas, mut unlisted) = (BTreeMap::new(), Vec::new());
        for id in changed {
            let newly_stale = stale.iter().find(|(stale, _)| stale == id).map(|(_, since)| *since);
            let is_told = |w: &&Writing| w.stale.is_none() || newly_stale.is_some();
            let Some(writing) = shared.record_log.views.get(id).filter(is_told) else { continue };
            let Some(view) = shared.views.get(*id).filter(|_| !rejoined.contains(id)) else { continue };
            // What comes after it became stale is told when it is at the head again.
            let since = newly_stale.unwrap_or(end);
            if since > from && !view.journal.reaches(from) {
                unlisted.push((*id, writing.id));
                continue;
            }
            let naming = RowNaming::of_view(view, &rows);
            for delta in view.journal.since(from).take_while(|delta| delta.end <= since) {
                deltas.insert((writing.id, delta.end), naming.delta(delta));
            }
        }
        drop(rows);
        for (_, record) in &unlisted {
            // It changed in more than is listed. The batch, which vouches for all others, says nothing of it.
            shared.record_log.append_small(Record::Stale(*record, from));
        }
        let deltas = deltas.into_iter().map(|((id, _), delta)| (id, delta)).collect();
        let gone = shared.record_log.append_batch(BatchRecord { previous: from, end, deltas });
        unlisted.into_iter().for_each(|(view, record)| self.record_as_another(view, record));
        for record in gone {
            let mut views = self.shared.record_log.views.iter();
            if let Some(view) = views.find(|(_, writing)| writing.id == record).map(|(view, _)| *view) {
                self.leave_out(view);
            }
        }
    }

    fn record_stale(&mut self, stale: &[(ViewId, StateVersion)]) {
        let record_log = &mut self.shared.record_log;
        for (id, since) in stale.iter().copied() {
            let Some(writing) = record_log.views.get_mut(&id).filter(|w| w.stale.is_none()) else { continue };
            writing.stale = Some(since);
            record_log.stale.insert(id);
            let record = Record::Stale(writing.id, since);
            record_log.append_small(record);
        }
    }

    /// Views that are gone are not in the batch, which comes before it is said that they are.
    fn record_ended(&mut self) {
        let record_log = &mut self.shared.record_log;
        let (head, is_batch) = (record_log.head, record_log.head != self.shared.version);
        for id in std::mem::take(&mut record_log.ended).into_iter().filter(|_| is_batch) {
            record_log.append_small(Record::Stale(id, head));
        }
    }

    /// Views that were read anew are at the head again.
    fn record_rejoined(&mut self) -> Vec<ViewId> {
        let shared = &self.shared;
        let record_log = &shared.record_log;
        let is_back =
            |id: &ViewId| shared.views.get(*id).is_some_and(View::is_live) && !record_log.behind.contains(id);
        let back: Vec<ViewId> = record_log.stale.iter().copied().filter(is_back).collect();
        back.iter().for_each(|id| self.record_rejoin(*id));
        back
    }

    fn record_rejoin(&mut self, id: ViewId) {
        let shared = &mut self.shared;
        let Some(view) = shared.views.get(id) else { return };
        let Some(writing) = shared.record_log.views.get_mut(&id) else { return };
        let Some(since) = writing.stale.take() else { return };
        shared.record_log.stale.remove(&id);
        let record = writing.id;
        // It may have been stale for a moment only, between two records.
        let since = since.min(shared.record_log.head);
        if !view.journal.reaches(since) {
            // It differs in more than is listed: it is another one to whoever reads this.
            return self.record_as_another(id, record);
        }
        // What was written of its members is in another order now.
        writing.next = writing.next.map(|_| 0);
        let rows = shared.rows.borrow();
        let naming = RowNaming::of_view(view, &rows);
        let after = if faults::is_on(Fault::Record) { shared.version } else { since };
        let deltas = view.journal.since(after).map(|delta| naming.delta(delta)).collect();
        drop(rows);
        if shared.record_log.append(Record::Rejoin(record, deltas)).is_err() {
            return self.leave_out(id);
        }
        if shared.record_log.head < shared.version {
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
        shared.record_log.views.remove(&view);
        shared.record_log.gone.push(lost);
        if let Some(view) = shared.views.get_mut(view) {
            view.record = None;
        }
        self.note_interested(view);
    }

    fn note_interested(&mut self, view: ViewId) {
        let shared = &mut self.shared;
        let groups: Vec<Rc<str>> = shared.interested.get(&view).into_iter().flatten().cloned().collect();
        for id in &groups {
            if let Some(group) = self.groups.get_mut(id) {
                shared.note(group);
            }
        }
    }

    /// A view has something that is too large to be written: it is not recorded until the next file is begun.
    pub(super) fn leave_out(&mut self, view: ViewId) {
        let record_log = &mut self.shared.record_log;
        record_log.stale.remove(&view);
        if let Some(writing) = record_log.views.remove(&view) {
            record_log.append_small(Record::Gone(writing.id));
        }
        if record_log.unrecorded.insert(view) {
            record_log.out.unrecorded += 1;
        }
        if let Some(view) = self.shared.views.get_mut(view) {
            view.record = None;
        }
        self.note_interested(view);
    }

    fn record_groups(&mut self, now: f64) {
        // A view that turns out to be too large has its groups written again.
        while !self.shared.record_log.dirty.is_empty() {
            for id in std::mem::take(&mut self.shared.record_log.dirty) {
                self.record_group(&id, now);
            }
        }
    }

    pub(super) fn record_group(&mut self, id: &Rc<str>, now: f64) {
        let Some(group) = self.groups.get_mut(id) else { return };
        let views: Vec<ViewId> = group.views.keys().copied().collect();
        views.into_iter().for_each(|view| self.start_view(view));
        let Some(group) = self.groups.get_mut(id) else { return };
        group.dirty = false;
        let record_log = &mut self.shared.record_log;
        let written = record_log.schema(&group.schema).and_then(|schema| {
            let id_of = |view: ViewId| record_log.views.get(&view).map(|writing| writing.id);
            let record = group_record::record(group, now, self.shared.clock_zero, schema, id_of);
            record_log.append(Record::Group(Box::new(record))).map(|()| true).or_else(|_| {
                let bare = group_record::bare(group, now, self.shared.clock_zero, schema);
                record_log.append(Record::Group(Box::new(bare))).map(|()| false)
            })
        });
        let is_whole = written == Ok(true);
        if written.is_err() {
            // An older record would have them served from what is no longer so.
            record_log.append_small(Record::GroupGone(id.to_string()));
        }
        if is_whole {
            record_log.unrecorded_groups.remove(id);
        } else if record_log.unrecorded_groups.insert(id.clone()) {
            record_log.out.unrecorded += 1;
        }
    }
}

impl Shared {
    /// A group has to be written anew.
    pub fn note(&mut self, group: &mut Group) {
        group.noted_at = self.version;
        self.record_log.note(group);
    }
}
