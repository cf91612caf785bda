//! Reads record logs back: what was so when they ended (rules 18, 19, 24).
//!
//! Files are read in order of epoch, core and sequence. Nothing is believed that is not
//! complete: a view without all its members, or with a hole in its batches, is left out, and
//! groups that had it start over from a cleared store.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use hashbrown::HashSet;

use super::names::{Names, Row};
use super::record::{
    Batch, GroupRecord, Header, LeftRecord, NamedIdentity, Record, RecordId, RecordedDelta, RecordedRow,
    Start,
};
use super::recovered::{Delta, Group, Incarnation, Journal, Left, Recovered};
use crate::changes::version::StateVersion;
use crate::protocol::cookie::{Cookie, MAX_STEP};

/// Epochs before the present one whose cookies a group can be served from.
const MAX_SEALS: usize = 16;

/// Most row keys kept of views that a group left; beyond it tabs that were away start over.
const MAX_LEFT: usize = 100_000;

/// Bytes that a row takes when it is first taken in, roughly: what [`super::limit`] counts until it looks.
const ROW: usize = 8;

/// The log that a view or a group goes on in: epoch and core.
type Log = (u64, usize);

/// A view as far as it is known.
pub(super) struct Known {
    pub(super) key: Arc<[u8]>,
    pub(super) members: HashSet<Row>,
    pub(super) journal: Journal,
    /// The journal that is being written, until all of it is there.
    pub(super) coming: Option<Journal>,
    at: StateVersion,
    log: Log,
    stale: bool,
    complete: bool,
}

/// The state that records add up to.
pub struct Replay {
    /// Bytes beyond which views are left out.
    pub(super) limit: usize,
    /// Bytes of views, and of what groups left, beside names: at most so many, roughly.
    pub(super) held: usize,
    pub(super) names: Names,
    pub(super) incarnations: BTreeMap<RecordId, Known>,
    /// Identities of a view's rows: places in the list of all.
    pub(super) lists: HashMap<RecordId, Vec<u16>>,
    pub(super) left_out: HashSet<RecordId>,
    pub(super) groups: BTreeMap<String, (Group, Log)>,
    replica: u64,
    schemas: HashMap<u64, String>,
    heads: BTreeMap<Log, StateVersion>,
    log: Log,
}

impl Replay {
    /// Knows nothing yet. `limit`: bytes that views and their rows may take; beyond it, whole views
    /// are left out ([`super::limit`]).
    pub fn up_to(limit: usize) -> Replay {
        Replay {
            limit,
            held: 0,
            names: Names::default(),
            incarnations: BTreeMap::new(),
            lists: HashMap::new(),
            left_out: HashSet::new(),
            groups: BTreeMap::new(),
            replica: 0,
            schemas: HashMap::new(),
            heads: BTreeMap::new(),
            log: (0, 0),
        }
    }

    /// Takes the next record of the file that is being read.
    pub fn apply(&mut self, record: Record) {
        match record {
            Record::Header(header) => self.header(&header),
            Record::Schema(number, text) => drop(self.schemas.insert(number, text)),
            Record::Start(start) => self.start(start),
            Record::Identities(id, identities) => {
                let list = self.intern_all(&identities);
                self.lists.insert(id, list);
            }
            Record::Journal(id, delta) => {
                let Some(delta) = self.resolve(id, &delta) else { return };
                if let Some(journal) = self.incarnations.get_mut(&id).and_then(|known| known.coming.as_mut())
                {
                    journal.push(delta);
                }
            }
            Record::Members(id, rows) => {
                let rows = self.rows(id, &rows);
                if let Some((known, rows)) = self.incarnations.get_mut(&id).zip(rows) {
                    known.members.extend(rows);
                }
            }
            Record::Complete(id, count) => self.complete(id, count),
            Record::Batch(batch) => self.batch(&batch),
            Record::Stale(id, since) => {
                if let Some(known) = self.incarnations.get_mut(&id) {
                    (known.stale, known.at) = (true, since);
                }
            }
            Record::Rejoin(id, deltas) => {
                deltas.iter().for_each(|delta| self.delta(id, delta));
                if let Some(known) = self.incarnations.get_mut(&id) {
                    (known.stale, known.log) = (false, self.log);
                }
            }
            Record::Gone(id) => {
                self.forget(id);
                self.left_out.remove(&id);
            }
            Record::Group(record) => self.group(*record),
            Record::Left(left) => self.left(&left),
            Record::GroupGone(id) => drop(self.groups.remove(&id)),
            Record::Checkpoint => {}
        }
        self.keep_within_limit();
    }

    fn start(&mut self, start: Start) {
        if self.left_out.contains(&start.id) {
            return;
        }
        let list = self.intern_all(&start.identities);
        self.lists.insert(start.id, list);
        let log = self.log;
        let known = self.incarnations.entry(start.id).or_insert_with(|| Known {
            key: start.key.into(),
            members: HashSet::new(),
            journal: Journal::starting_at(start.floor),
            coming: None,
            at: StateVersion::ZERO,
            log,
            stale: false,
            complete: false,
        });
        (known.log, known.stale) = (log, start.stale.is_some());
        known.at = start.stale.unwrap_or(known.at);
        known.coming = Some(Journal::starting_at(start.floor));
    }

    /// Nothing is known of a view any more.
    pub(super) fn forget(&mut self, id: RecordId) {
        self.incarnations.remove(&id);
        self.lists.remove(&id);
    }

    fn header(&mut self, header: &Header) {
        if self.log != (0, 0) && header.epoch > self.log.0 {
            self.end_epoch();
        }
        self.log = (header.epoch, header.core);
        self.replica = self.replica.max(header.replica);
        let head = self.heads.entry(self.log).or_insert(StateVersion(header.head));
        // A later file of the same core goes on where the one before it ended, or it did not end
        // where it should have.
        if head.0 != header.head {
            self.lose(StateVersion(header.head));
        }
    }

    /// Batches are missing: what depended on them is not known any more.
    fn lose(&mut self, head: StateVersion) {
        let log = self.log;
        self.incarnations.retain(|_, known| known.log != log || known.stale);
        self.heads.insert(log, head);
    }

    fn complete(&mut self, id: RecordId, count: u64) {
        let Some(known) = self.incarnations.get_mut(&id) else { return };
        if known.members.len() as u64 != count {
            return self.forget(id);
        }
        known.complete = true;
        if let Some(journal) = known.coming.take() {
            known.journal = journal;
        }
    }

    fn batch(&mut self, batch: &Batch) {
        if self.heads.get(&self.log) != Some(&batch.previous) {
            self.lose(batch.previous);
        }
        self.heads.insert(self.log, batch.end);
        for (id, delta) in &batch.deltas {
            self.delta(*id, delta);
        }
    }

    fn delta(&mut self, id: RecordId, delta: &RecordedDelta) {
        let Some(delta) = self.resolve(id, delta) else { return };
        let Some(known) = self.incarnations.get_mut(&id) else { return };
        for row in &delta.left {
            known.members.remove(row);
        }
        known.members.extend(delta.entered.iter().copied());
        if let Some(journal) = &mut known.coming {
            journal.push(delta.clone());
        }
        known.journal.push(delta);
    }

    fn group(&mut self, mut record: GroupRecord) {
        let mut left = VecDeque::new();
        if let Some((before, _)) = self.groups.remove(&record.id) {
            left = before.left;
            for (epoch, number, since) in before.record.views {
                // It may have left, and come again at once.
                let stays = record.views.contains(&(epoch, number, since));
                if stays || record.floor >= record.label {
                    continue;
                }
                match self.incarnations.get(&RecordId { epoch, number }).filter(|known| known.complete) {
                    Some(known) => {
                        if !known.journal.reaches(StateVersion(since.0)) {
                            record.floor = record.floor.max((known.journal.floor().0, 0));
                        }
                        let rows = known.all_rows();
                        self.held += rows.len() * ROW;
                        left.push_back(Left { since: cookie(since), until: cookie(record.label), rows });
                    }
                    None => record.floor = record.label,
                }
            }
        }
        let mut group = Group { record, left };
        forget_left(&mut group, MAX_LEFT);
        self.groups.insert(group.record.id.clone(), (group, self.log));
    }

    fn left(&mut self, left: &LeftRecord) {
        if !self.groups.contains_key(&left.group) {
            return;
        }
        let list = self.intern_all(&left.identities);
        let Some(rows) = take_in(&mut self.names, &list, &left.rows) else { return };
        self.held += rows.len() * ROW;
        let Some((group, _)) = self.groups.get_mut(&left.group) else { return };
        group.left.push_back(Left { since: cookie(left.since), until: cookie(left.until), rows });
        forget_left(group, MAX_LEFT);
    }

    fn intern_all(&mut self, identities: &[NamedIdentity]) -> Vec<u16> {
        identities.iter().map(|identity| self.names.identity(identity)).collect()
    }

    /// Rows of a view; `None`: it is not known, nor are they.
    fn rows(&mut self, id: RecordId, rows: &[RecordedRow]) -> Option<Vec<Row>> {
        self.incarnations.get(&id)?;
        self.held += rows.len() * ROW;
        take_in(&mut self.names, self.lists.get(&id)?, rows)
    }

    fn resolve(&mut self, id: RecordId, delta: &RecordedDelta) -> Option<Delta> {
        self.held += size_of::<Delta>();
        Some(Delta {
            end: delta.end,
            entered: self.rows(id, &delta.entered)?,
            left: self.rows(id, &delta.left)?,
            edited: self.rows(id, &delta.edited)?,
        })
    }

    /// The process that wrote so far is gone: nothing of it goes on, and its history is sealed.
    fn end_epoch(&mut self) {
        for known in self.incarnations.values_mut().filter(|known| !known.stale) {
            known.stale = true;
            known.at = self.heads.get(&known.log).copied().unwrap_or(StateVersion::ZERO);
        }
        let views: BTreeMap<RecordId, StateVersion> = self
            .incarnations
            .iter()
            .filter(|(_, known)| known.complete)
            .map(|(id, known)| (*id, known.at))
            .collect();
        for (group, log) in self.groups.values_mut() {
            let head = self.heads.get(log).copied().unwrap_or(StateVersion::ZERO);
            seal(&mut group.record, head, *log, &views);
        }
    }

    /// What was so at the end.
    pub fn finish(mut self) -> Recovered {
        self.end_epoch();
        let head = self.heads.values().copied().max().unwrap_or(StateVersion::ZERO);
        self.names.freeze();
        let complete = self.incarnations.into_iter().filter(|(_, known)| known.complete);
        Recovered {
            replica: StateVersion(self.replica),
            head,
            names: Arc::new(self.names),
            incarnations: complete.map(|(id, known)| known.recovered(id)).collect(),
            groups: self.groups.into_values().map(|(group, _)| group).collect(),
            schemas: self.schemas,
            left_out: self.left_out.len(),
        }
    }
}

impl Known {
    /// All that a tab may hold of it.
    fn all_rows(&self) -> Vec<Row> {
        let mut rows: Vec<Row> = self.members.iter().copied().chain(self.journal.rows()).collect();
        rows.sort_unstable();
        rows.dedup();
        rows.shrink_to_fit();
        rows
    }

    fn recovered(self, id: RecordId) -> Incarnation {
        let mut members: Vec<Row> = self.members.into_iter().collect();
        members.sort_unstable();
        Incarnation {
            id,
            key: self.key,
            members: members.into(),
            journal: Arc::new(self.journal),
            at: self.at,
        }
    }
}

/// Rows as a record names them, by their numbers. `None`: one is of no identity in the list.
fn take_in(names: &mut Names, list: &[u16], rows: &[RecordedRow]) -> Option<Vec<Row>> {
    rows.iter().map(|(at, key)| Some(names.row(*list.get(*at as usize)?, key))).collect()
}

/// Ends a group's history in one epoch: its state is that of its views when the log ended, and
/// every label that it may have been given is below its last one.
fn seal(record: &mut GroupRecord, head: StateVersion, log: Log, views: &BTreeMap<RecordId, StateVersion>) {
    if record.seals.last().is_some_and(|seal| seal.0 >= log.0) {
        return;
    }
    let told = cookie(record.label);
    record.seals.push((log.0, head.0, told.major, told.config));
    if record.seals.len() > MAX_SEALS {
        record.seals.remove(0);
    }
    let last = Cookie::label(head.0.max(told.major), log.0, MAX_STEP).max(told);
    record.label = (last.major, last.config);
    let of = |(epoch, number, _): &(u64, u64, _)| views.get(&RecordId { epoch: *epoch, number: *number });
    let version = record.views.iter().map(of).try_fold(head, |least, at| Some(least.min(*at?)));
    match version {
        Some(version) => record.version = version.0,
        None => {
            // A view is not known any more, and with it not what tabs hold.
            record.floor = record.label;
            record.views.clear();
        }
    }
}

/// Forgets the views left longest ago beyond so many rows.
pub(super) fn forget_left(group: &mut Group, most: usize) {
    while group.left.iter().map(|left| left.rows.len()).sum::<usize>() > most {
        let Some(dropped) = group.left.pop_front() else { break };
        let until = (dropped.until.major, dropped.until.config);
        group.record.floor = group.record.floor.max(until);
    }
}

/// A label as records have it.
pub fn cookie((major, config): (u64, u64)) -> Cookie {
    Cookie { major, config }
}
