//! What goes into the record log, and in which order (rules 15, 19, 23).
//!
//! Called after everything that changes groups or views; appends to a buffer, which the server
//! writes before what was sent meanwhile leaves. A batch is one record for all groups: of each
//! recorded view that it changed, the keys of its delta. A group is written, whole, whenever
//! anything but plain data changed. A view is written when the first group has it.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::rc::Rc;

use hashbrown::HashMap;

use super::group::Group;
use super::old::Old;
use super::record;
use super::schema::Resolved;
use super::shared::Shared;
use super::syncer::Syncer;
use crate::changes::faults::{self, Fault};
use crate::changes::version::StateVersion;
use crate::cvr::frame::{self, Chain};
use crate::cvr::record::{
    Batch, Header, LeftRecord, NamedIdentity, Record, RecordId, RecordedDelta, RecordedRow, Start,
};
use crate::replica::catalogue::Catalogue;
use crate::views::journal::Delta;
use crate::views::rows::{IdentityId, RowId, Rows};
use crate::views::view::{Status, View, ViewId};

/// Rows of one record of members.
const CHUNK: usize = 1_000;

/// Members up to which a view is written at once, before the first group that has it.
const SMALL: usize = 2_000;

/// Groups that are written per slice when a file is begun.
const GROUPS: usize = 32;

/// A file is begun anew when it is so many times as large as what lives, and this much more: what
/// is written twice is then a small part of all that is written.
const TIMES: u64 = 2;
const SLACK: u64 = 16 << 20;

/// Bits of a record's number below the core's.
const CORE_SHIFT: u32 = 48;

/// What is to be written.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// Bytes for the present file.
    pub bytes: Vec<u8>,
    /// A new file is to be begun with these, after the others.
    pub next: Option<(u64, Vec<u8>)>,
    /// All that is known is in the present file: those before it are not needed any more.
    pub complete: bool,
}

/// Which log is written.
#[derive(Debug, Clone, Copy)]
pub struct LogName {
    /// Version at which the replica began.
    pub replica: StateVersion,
    /// Epoch of the process.
    pub epoch: u64,
    /// The core.
    pub core: usize,
}

/// How far a view has been written.
struct Writing {
    id: RecordId,
    /// Next part of its members; `None`: all are written.
    next: Option<usize>,
    /// It was right at this version only, and has to be read anew.
    stale: Option<StateVersion>,
}

/// Decides what is written.
pub struct Recorder {
    name: Option<LogName>,
    sequence: u64,
    head: StateVersion,
    chain: Chain,
    out: Output,
    /// Bytes of the present file, and of it when it was complete.
    size: u64,
    complete_size: u64,
    /// The file is not complete yet; these are still to be written.
    filling: Option<Filling>,
    views: HashMap<ViewId, Writing>,
    /// Of these, those that are stale.
    stale: BTreeSet<ViewId>,
    /// Views that were read anew and are not at the core's version yet.
    behind: BTreeSet<ViewId>,
    /// Views that go on with a record of before: their rows are named otherwise from now on.
    adopted: Vec<ViewId>,
    dirty: Vec<Rc<str>>,
    gone: Vec<RecordId>,
    /// Of these, those that are written as they were.
    back: Vec<RecordId>,
    forgotten: Vec<Rc<str>>,
    schemas: HashSet<u64>,
    next_number: u64,
}

#[derive(Default)]
struct Filling {
    /// Of a whole file, not just of what came to it.
    whole: bool,
    views: VecDeque<ViewId>,
    old: VecDeque<RecordId>,
    groups: VecDeque<Rc<str>>,
}

impl Default for Recorder {
    /// One that records nothing.
    fn default() -> Self {
        Recorder {
            name: None,
            sequence: 0,
            head: StateVersion::ZERO,
            chain: Chain::new(0),
            out: Output::default(),
            size: 0,
            complete_size: 0,
            filling: None,
            views: HashMap::new(),
            stale: BTreeSet::new(),
            behind: BTreeSet::new(),
            adopted: Vec::new(),
            dirty: Vec::new(),
            gone: Vec::new(),
            back: Vec::new(),
            forgotten: Vec::new(),
            schemas: HashSet::new(),
            next_number: 1,
        }
    }
}

impl Recorder {
    /// Begins to record.
    pub fn start(&mut self, name: LogName) {
        self.name = Some(name);
    }

    /// Whether anything is recorded.
    pub fn is_on(&self) -> bool {
        self.name.is_some()
    }

    fn note(&mut self, group: &mut Group) {
        if !std::mem::replace(&mut group.dirty, true) {
            self.dirty.push(group.id.clone());
        }
    }

    /// A group is forgotten.
    pub fn forget(&mut self, group: &Rc<str>) {
        if self.is_on() {
            self.forgotten.push(group.clone());
        }
    }

    /// A view goes on with a record of before, which was right at `at`.
    pub fn adopt(&mut self, view: ViewId, id: RecordId, at: StateVersion) {
        if !self.is_on() {
            return;
        }
        self.views.insert(view, Writing { id, next: None, stale: Some(at) });
        self.stale.insert(view);
        self.adopted.push(view);
        // It has not been written into this file: it is as what it is now.
        if let Some(filling) = self.filling.as_mut().filter(|filling| filling.old.contains(&id)) {
            filling.old.retain(|old| *old != id);
            filling.views.push_back(view);
        }
    }

    /// A view was read anew, of a version before the core's. What it missed comes with batches that
    /// have been written already: it is told with the rest of what it differs in (rule 24).
    pub fn falls_behind(&mut self, view: ViewId) {
        self.behind.insert(view);
    }

    /// A view that was read anew is at the core's version.
    pub fn keeps_up(&mut self, view: ViewId) {
        self.behind.remove(&view);
    }

    /// A view is gone. Returns its record.
    pub fn view_gone(&mut self, view: ViewId) -> Option<RecordId> {
        self.stale.remove(&view);
        self.behind.remove(&view);
        Some(self.views.remove(&view)?.id)
    }

    /// A record goes on no more. `is_held`: what it was before the process started is needed still.
    pub fn gone(&mut self, id: RecordId, is_held: bool) {
        self.gone.push(id);
        if is_held {
            self.back.push(id);
        }
    }

    /// A view of before is not needed any more.
    pub fn old_gone(&mut self, id: RecordId) {
        if self.is_on() {
            self.gone.push(id);
        }
    }

    fn append(&mut self, record: &Record) {
        let bytes = match &mut self.out.next {
            Some((_, bytes)) => bytes,
            None => &mut self.out.bytes,
        };
        let before = bytes.len();
        self.chain.frame(bytes, |out| record.write(out));
        self.size += (bytes.len() - before) as u64;
    }

    /// Begins a new file, which is complete once [`Syncer::fill_records`] has nothing to do.
    fn begin_file(&mut self, name: LogName) {
        self.sequence += 1;
        // Epochs are never used twice, so this is the file's alone.
        let salt = name.epoch << 24 | (name.core as u64) << 16 | (self.sequence & 0xffff);
        let head = frame::head(salt);
        (self.size, self.chain) = (head.len() as u64, Chain::new(salt));
        self.out.next = Some((self.sequence, head));
        self.schemas.clear();
        let header = Header {
            replica: name.replica.0,
            epoch: name.epoch,
            core: name.core,
            sequence: self.sequence,
            head: self.head.0,
        };
        self.append(&Record::Header(header));
    }

    /// Number of a client schema, which is written if the file does not have it.
    fn schema(&mut self, schema: &Resolved) -> u64 {
        let text = serde_json::to_string(&schema.schema).unwrap_or_default();
        let number = xxhash_rust::xxh3::xxh3_64(text.as_bytes());
        if self.schemas.insert(number) {
            self.append(&Record::Schema(number, text));
        }
        number
    }
}

/// Names the rows of one view, or of several.
struct Namer<'n> {
    rows: &'n Rows,
    identities: Vec<IdentityId>,
}

impl<'n> Namer<'n> {
    fn of_view(view: &View, rows: &'n Rows) -> Namer<'n> {
        let mut identities = view.layout.identities.clone();
        identities.sort_unstable();
        identities.dedup();
        Namer { rows, identities }
    }

    fn of_rows(list: &[RowId], rows: &'n Rows) -> Namer<'n> {
        let mut identities: Vec<IdentityId> = list.iter().map(|id| rows.identity_of(*id)).collect();
        identities.sort_unstable();
        identities.dedup();
        Namer { rows, identities }
    }

    fn row(&self, id: RowId) -> RecordedRow {
        let identity = self.rows.identity_of(id);
        let at = self.identities.binary_search(&identity).unwrap_or_default();
        (at as u16, self.rows.key_of(id).into())
    }

    fn delta(&self, delta: &Delta) -> RecordedDelta {
        let all = |list: &[RowId]| list.iter().map(|id| self.row(*id)).collect();
        RecordedDelta {
            end: delta.end,
            entered: all(&delta.entered),
            left: all(&delta.left),
            edited: all(&delta.edited),
        }
    }

    fn identities(&self, catalogue: &Catalogue) -> Vec<NamedIdentity> {
        let name = |identity: &IdentityId| {
            let described = self.rows.describe(*identity);
            let table = catalogue.get(described.table);
            let columns = described.key.iter().map(|c| table.columns[*c as usize].name.clone());
            (table.name.clone(), columns.collect())
        };
        self.identities.iter().map(name).collect()
    }
}

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
        self.record_batch(&changed, &stale);
        self.record_stale(stale);
        self.record_rejoined();
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
        back.into_iter().for_each(|id| self.write_old(id));
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
            old: self.shared.old.ids().into(),
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

    fn record_batch(&mut self, changed: &[ViewId], stale: &[(ViewId, StateVersion)]) {
        let shared = &mut self.shared;
        let (from, end) = (shared.recorder.head, shared.version);
        if from == end {
            return;
        }
        shared.recorder.head = end;
        let rows = shared.rows.borrow();
        let mut deltas = BTreeMap::new();
        for id in changed {
            let Some(writing) = shared.recorder.views.get(id).filter(|w| w.stale.is_none()) else { continue };
            let Some(view) = shared.views.get(*id) else { continue };
            // What comes after it became stale is told when it is at the head again.
            let since = stale.iter().find(|(stale, _)| stale == id).map_or(end, |(_, since)| *since);
            let namer = Namer::of_view(view, &rows);
            for delta in view.journal.since(from).take_while(|delta| delta.end <= since) {
                deltas.insert((writing.id, delta.end), namer.delta(delta));
            }
        }
        drop(rows);
        let deltas = deltas.into_iter().map(|((id, _), delta)| (id, delta)).collect();
        shared.recorder.append(&Record::Batch(Batch { previous: from, end, deltas }));
    }

    fn record_stale(&mut self, stale: Vec<(ViewId, StateVersion)>) {
        let recorder = &mut self.shared.recorder;
        for (id, since) in stale {
            let Some(writing) = recorder.views.get_mut(&id).filter(|w| w.stale.is_none()) else { continue };
            writing.stale = Some(since);
            recorder.stale.insert(id);
            let record = Record::Stale(writing.id, since);
            recorder.append(&record);
        }
    }

    /// Views that were read anew are at the head again.
    fn record_rejoined(&mut self) {
        let shared = &self.shared;
        let recorder = &shared.recorder;
        let is_back =
            |id: &ViewId| shared.views.get(*id).is_some_and(View::is_live) && !recorder.behind.contains(id);
        let back: Vec<ViewId> = recorder.stale.iter().copied().filter(is_back).collect();
        back.into_iter().for_each(|id| self.record_rejoin(id));
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
        let after = if faults::is_on(Fault::Record) { shared.version } else { since };
        let deltas = view.journal.since(after).map(|delta| namer.delta(delta)).collect();
        drop(rows);
        shared.recorder.append(&Record::Rejoin(record, deltas));
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
        let record = record::record(group, now, schema, id_of);
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
            let number = (name.core as u64) << CORE_SHIFT | shared.recorder.next_number;
            shared.recorder.next_number += 1;
            RecordId { epoch: name.epoch, number }
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
        if self.shared.recorder.views.get(&id).is_some_and(|writing| writing.next.is_some()) {
            self.shared.recorder.filling.get_or_insert_default().views.push_back(id);
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
        let Some(view) = shared.views.get(id) else { return false };
        if view.state.len() != view.size {
            // A lane reads it anew and has what it held.
            return false;
        }
        let record = writing.id;
        let rows = shared.rows.borrow();
        let namer = Namer::of_view(view, &rows);
        let part = view.state.part(next);
        let is_last = part.is_none();
        let members: Vec<RecordedRow> = part.into_iter().flatten().map(|id| namer.row(id)).collect();
        writing.next = (!is_last).then_some(next + 1);
        let count = view.size as u64;
        drop(rows);
        for chunk in members.chunks(CHUNK) {
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
        if let Some(id) = filling.old.pop_front() {
            self.write_old(id);
            return true;
        }
        if let Some(id) = filling.views.front().copied() {
            let known = self.shared.recorder.views.get(&id);
            let (begun, gone) = (known.is_some_and(|w| w.next.is_some()), known.is_none());
            if !gone && !begun {
                self.write_start(id);
            }
            let more = !gone && self.write_members(id);
            let waits = self.shared.recorder.views.get(&id).is_some_and(|w| w.next.is_some());
            if let Some(filling) = self.shared.recorder.filling.as_mut().filter(|_| !more) {
                filling.views.pop_front();
                if waits {
                    filling.views.push_back(id);
                    // The others first; if there are none, later.
                    return filling.views.len() > 1;
                }
            }
            return true;
        }
        let groups: Vec<Rc<str>> = filling.groups.drain(..filling.groups.len().min(GROUPS)).collect();
        for id in &groups {
            self.record_group(id, now);
            self.write_left(id);
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

    /// Writes a view of before that nobody has asked for yet.
    fn write_old(&mut self, id: RecordId) {
        let shared = &mut self.shared;
        let Some(Old { key, members, journal, at, .. }) = shared.old.get(id) else { return };
        let rows = shared.rows.borrow();
        let mut named: Vec<RowId> = members.clone();
        named.extend(journal.since(StateVersion::ZERO).flat_map(Delta::rows));
        let namer = Namer::of_rows(&named, &rows);
        let identities = namer.identities(&shared.catalogue);
        let mut records = vec![Record::Start(Start {
            id,
            key: key.to_vec(),
            floor: journal.floor(),
            stale: Some(*at),
            identities,
        })];
        records
            .extend(journal.since(StateVersion::ZERO).map(|delta| Record::Journal(id, namer.delta(delta))));
        for chunk in members.chunks(CHUNK) {
            records.push(Record::Members(id, chunk.iter().map(|id| namer.row(*id)).collect()));
        }
        records.push(Record::Complete(id, members.len() as u64));
        drop(rows);
        records.iter().for_each(|record| shared.recorder.append(record));
    }
}

impl Shared {
    /// A group has to be written anew.
    pub fn note(&mut self, group: &mut Group) {
        group.noted_at = self.version;
        self.recorder.note(group);
    }
}
