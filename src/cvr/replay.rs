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
};
use crate::changes::version::StateVersion;
use crate::protocol::cookie::{Cookie, MAX_STEP};

/// Epochs before the present one whose cookies a group can be served from.
const MAX_SEALS: usize = 16;

/// Most row keys kept of views that a group left; beyond it tabs that were away start over.
const MAX_LEFT: usize = 100_000;

/// What one delta did, by identities of the whole.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Delta {
    /// Version that the batch ended with.
    pub end: StateVersion,
    /// Rows that came in.
    pub entered: Vec<Row>,
    /// Rows that went out.
    pub left: Vec<Row>,
    /// Members whose contents changed.
    pub edited: Vec<Row>,
}

impl Delta {
    fn rows(&self) -> impl Iterator<Item = &Row> {
        self.entered.iter().chain(&self.left).chain(&self.edited)
    }
}

/// A view as it was.
#[derive(Debug, Clone)]
pub struct Incarnation {
    /// Which life.
    pub id: RecordId,
    /// What it asked.
    pub key: Box<[u8]>,
    /// Its rows.
    pub members: HashSet<Row>,
    /// What happened of late, oldest first.
    pub journal: VecDeque<Delta>,
    /// The journal knows nothing from before.
    pub floor: StateVersion,
    /// It is right at this version.
    pub at: StateVersion,
}

/// Rows of a view that a group left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    /// Label since which it had the view.
    pub since: Cookie,
    /// Label at which it left.
    pub until: Cookie,
    /// What a tab may hold because of it.
    pub rows: Vec<Row>,
}

/// A group as it was.
#[derive(Debug, Clone)]
pub struct Group {
    /// As it was written last, with what was found out since: label, version, floor, seals.
    pub record: GroupRecord,
    /// Views that it left of late.
    pub left: VecDeque<Left>,
}

/// What was so when the logs ended.
#[derive(Debug, Default)]
pub struct Recovered {
    /// Version at which the replica began.
    pub replica: StateVersion,
    /// The latest version that anything is known of.
    pub head: StateVersion,
    /// Identities of all rows.
    pub identities: Vec<NamedIdentity>,
    /// Names of all rows: the place of an identity in `identities`, and a key.
    pub names: Arc<Names>,
    /// Views that are complete.
    pub incarnations: Vec<Incarnation>,
    /// Groups.
    pub groups: Vec<Group>,
    /// Client schemas by number; JSON.
    pub schemas: HashMap<u64, String>,
}

/// The log that a view or a group goes on in: epoch and core.
type Log = (u64, usize);

struct Known {
    incarnation: Incarnation,
    log: Log,
    stale: bool,
    complete: bool,
    /// The journal that is being written, until all of it is there.
    coming: Option<(VecDeque<Delta>, StateVersion)>,
}

/// The state that records add up to.
#[derive(Default)]
pub struct Replay {
    replica: u64,
    identities: Vec<NamedIdentity>,
    by_identity: HashMap<NamedIdentity, u16>,
    names: Names,
    incarnations: BTreeMap<RecordId, Known>,
    lists: HashMap<RecordId, Vec<u16>>,
    groups: BTreeMap<String, (Group, Log)>,
    schemas: HashMap<u64, String>,
    heads: BTreeMap<Log, StateVersion>,
    log: Log,
}

impl Replay {
    /// Takes the next record of the file that is being read.
    pub fn apply(&mut self, record: Record) {
        match record {
            Record::Header(header) => self.header(&header),
            Record::Schema(number, text) => drop(self.schemas.insert(number, text)),
            Record::Start(start) => {
                let list = self.intern_all(&start.identities);
                self.lists.insert(start.id, list);
                let new = Known {
                    incarnation: Incarnation {
                        id: start.id,
                        key: start.key.clone().into(),
                        members: HashSet::new(),
                        journal: VecDeque::new(),
                        floor: start.floor,
                        at: StateVersion::ZERO,
                    },
                    log: self.log,
                    stale: false,
                    complete: false,
                    coming: None,
                };
                let known = self.incarnations.entry(start.id).or_insert(new);
                (known.log, known.stale) = (self.log, start.stale.is_some());
                known.incarnation.at = start.stale.unwrap_or(known.incarnation.at);
                known.coming = Some((VecDeque::new(), start.floor));
            }
            Record::Identities(id, identities) => {
                let list = self.intern_all(&identities);
                self.lists.insert(id, list);
            }
            Record::Journal(id, delta) => {
                let delta = self.resolve(id, &delta);
                if let Some((Some((journal, _)), delta)) = self
                    .incarnations
                    .get_mut(&id)
                    .map(|known| &mut known.coming)
                    .map(Option::as_mut)
                    .zip(delta)
                {
                    journal.push_back(delta);
                }
            }
            Record::Members(id, rows) => {
                let rows = self.rows(id, &rows);
                if let Some((known, rows)) = self.incarnations.get_mut(&id).zip(rows) {
                    known.incarnation.members.extend(rows);
                }
            }
            Record::Complete(id, count) => self.complete(id, count),
            Record::Batch(batch) => self.batch(&batch),
            Record::Stale(id, since) => {
                if let Some(known) = self.incarnations.get_mut(&id) {
                    known.stale = true;
                    known.incarnation.at = since;
                }
            }
            Record::Rejoin(id, deltas) => {
                deltas.iter().for_each(|delta| self.delta(id, delta));
                if let Some(known) = self.incarnations.get_mut(&id) {
                    (known.stale, known.log) = (false, self.log);
                }
            }
            Record::Gone(id) => drop(self.incarnations.remove(&id)),
            Record::Group(record) => self.group(*record),
            Record::Left(left) => self.left(&left),
            Record::GroupGone(id) => drop(self.groups.remove(&id)),
            Record::Checkpoint => {}
        }
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
        if known.incarnation.members.len() as u64 != count {
            self.incarnations.remove(&id);
            return;
        }
        known.complete = true;
        if let Some((journal, floor)) = known.coming.take() {
            known.incarnation.journal = journal;
            known.incarnation.floor = floor;
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
        let members = &mut known.incarnation.members;
        for row in &delta.left {
            members.remove(row);
        }
        members.extend(delta.entered.iter().copied());
        if let Some((journal, _)) = &mut known.coming {
            journal.push_back(delta.clone());
        }
        known.incarnation.journal.push_back(delta);
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
                match self.known_rows(RecordId { epoch, number }) {
                    Some(rows) => {
                        left.push_back(Left { since: cookie(since), until: cookie(record.label), rows })
                    }
                    None => record.floor = record.label,
                }
            }
        }
        let mut group = Group { record, left };
        forget_left(&mut group);
        self.groups.insert(group.record.id.clone(), (group, self.log));
    }

    /// All that a tab may hold of a view; `None`: that is not known.
    fn known_rows(&self, id: RecordId) -> Option<Vec<Row>> {
        let known = self.incarnations.get(&id).filter(|known| known.complete)?;
        let mut rows: HashSet<Row> = known.incarnation.members.clone();
        rows.extend(known.incarnation.journal.iter().flat_map(Delta::rows).copied());
        let mut rows: Vec<Row> = rows.into_iter().collect();
        rows.sort_unstable();
        Some(rows)
    }

    fn left(&mut self, left: &LeftRecord) {
        let list = self.intern_all(&left.identities);
        let Some((group, _)) = self.groups.get_mut(&left.group) else { return };
        let names = &mut self.names;
        let rows = left.rows.iter().filter_map(|(at, key)| Some(names.intern(*list.get(*at as usize)?, key)));
        group.left.push_back(Left {
            since: cookie(left.since),
            until: cookie(left.until),
            rows: rows.collect(),
        });
        forget_left(group);
    }

    fn intern_all(&mut self, identities: &[NamedIdentity]) -> Vec<u16> {
        identities.iter().map(|identity| self.intern(identity)).collect()
    }

    fn intern(&mut self, identity: &NamedIdentity) -> u16 {
        if let Some(found) = self.by_identity.get(identity) {
            return *found;
        }
        let number = self.identities.len() as u16;
        self.identities.push(identity.clone());
        self.by_identity.insert(identity.clone(), number);
        number
    }

    fn rows(&mut self, id: RecordId, rows: &[RecordedRow]) -> Option<Vec<Row>> {
        let (list, names) = (self.lists.get(&id)?, &mut self.names);
        rows.iter().map(|(at, key)| Some(names.intern(*list.get(*at as usize)?, key))).collect()
    }

    fn resolve(&mut self, id: RecordId, delta: &RecordedDelta) -> Option<Delta> {
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
            known.incarnation.at = self.heads.get(&known.log).copied().unwrap_or(StateVersion::ZERO);
        }
        let views: BTreeMap<RecordId, StateVersion> = self
            .incarnations
            .iter()
            .filter(|(_, known)| known.complete)
            .map(|(id, known)| (*id, known.incarnation.at))
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
        let complete = self.incarnations.into_values().filter(|known| known.complete);
        Recovered {
            replica: StateVersion(self.replica),
            head,
            identities: self.identities,
            names: Arc::new(self.names),
            incarnations: complete.map(|known| known.incarnation).collect(),
            groups: self.groups.into_values().map(|(group, _)| group).collect(),
            schemas: self.schemas,
        }
    }
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

fn forget_left(group: &mut Group) {
    while group.left.iter().map(|left| left.rows.len()).sum::<usize>() > MAX_LEFT {
        let Some(dropped) = group.left.pop_front() else { break };
        let until = (dropped.until.major, dropped.until.config);
        group.record.floor = group.record.floor.max(until);
    }
}

/// A label as records have it.
pub fn cookie((major, config): (u64, u64)) -> Cookie {
    Cookie { major, config }
}
