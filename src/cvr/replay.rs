//! Reads record logs back: what was so when they ended (rules 18, 19, 24).
//!
//! Files are read in order of epoch, core and sequence. Nothing is believed that is not
//! complete: a view without all its members, or with a hole in its batches, is left out, and
//! groups that had it start over from a cleared store.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use hashbrown::HashSet;

use super::known::{Content, Known};
use super::names::{Names, Row};
use super::recovered::{Delta, Journal, Left, Recovered, RecoveredGroup};
use super::sealing::{forget_left, seal};
use crate::cvr::record::{
    BatchRecord, GroupRecord, Header, LeftRecord, Log, NOTHING, NamedIdentity, Record, RecordedDelta,
    RecordedRow, StartRecord, cookie,
};
use crate::model::ids::RecordId;
use crate::model::version::StateVersion;

/// Most row keys kept of views that a group left; beyond it tabs that were away start over.
const MAX_LEFT: usize = 100_000;

/// Bytes that a row takes when it is first taken in, roughly: what [`super::limit`] counts until it looks.
const ROW: usize = 8;

/// The state that records add up to.
pub struct Replay {
    /// Bytes beyond which views are left out.
    pub(super) limit: usize,
    /// Bytes of views, and of what groups left, beside names: at most so many, roughly.
    pub(super) held: usize,
    pub(super) names: Names,
    pub(super) generations: BTreeMap<RecordId, Known>,
    /// Identities of a view's rows: places in the list of all.
    pub(super) lists: HashMap<RecordId, Vec<u16>>,
    pub(super) left_out: HashSet<RecordId>,
    pub(super) groups: BTreeMap<String, (RecoveredGroup, Log)>,
    replica: u64,
    /// Of a batch, or of a view that was read anew, whose own record has not come yet.
    pub(super) coming: Vec<(RecordId, Delta)>,
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
            generations: BTreeMap::new(),
            lists: HashMap::new(),
            left_out: HashSet::new(),
            groups: BTreeMap::new(),
            replica: 0,
            coming: Vec::new(),
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
                if let Some(coming) = self.generations.get_mut(&id).and_then(|known| known.coming.as_mut()) {
                    coming.journal.push(delta);
                }
            }
            Record::Members(id, rows) => {
                let rows = self.rows(id, &rows);
                let coming = self.generations.get_mut(&id).and_then(|known| known.coming.as_mut());
                if let Some((coming, rows)) = coming.zip(rows) {
                    coming.members.extend(rows);
                }
            }
            Record::Complete(id, count) => self.complete(id, count),
            Record::Deltas(deltas) => self.take_in_deltas(&deltas),
            Record::Batch(batch) => self.batch(&batch),
            Record::Stale(id, since) => {
                for content in self.generations.get_mut(&id).into_iter().flat_map(Known::contents_mut) {
                    (content.stale, content.at) = (true, since);
                }
            }
            Record::Rejoin(id, deltas) => {
                deltas.iter().for_each(|delta| self.take_in_delta(id, delta));
                self.let_count();
                if let Some(known) = self.generations.get_mut(&id) {
                    known.log = self.log;
                    known.contents_mut().for_each(|content| content.stale = false);
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

    fn start(&mut self, start: StartRecord) {
        if self.left_out.contains(&start.id) {
            return;
        }
        let list = self.intern_all(&start.identities);
        self.lists.insert(start.id, list);
        let log = self.log;
        let known = self.generations.entry(start.id).or_insert_with(|| Known {
            key: start.key.into(),
            log,
            whole: None,
            coming: None,
        });
        known.log = log;
        known.coming = Some(Content {
            members: HashSet::new(),
            journal: Journal::starting_at(start.floor),
            at: start.stale.unwrap_or(StateVersion::ZERO),
            stale: start.stale.is_some(),
        });
    }

    /// Nothing is known of a view any more.
    pub(super) fn forget(&mut self, id: RecordId) {
        self.generations.remove(&id);
        self.lists.remove(&id);
    }

    fn header(&mut self, header: &Header) {
        // The file before ended in the middle of something.
        self.coming.clear();
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

    /// Records are missing. What was known of the core's views and groups may have changed in them, and
    /// what comes may be told to those who heard of that: only what is written again whole can be
    /// believed.
    fn lose(&mut self, head: StateVersion) {
        let log = self.log;
        self.generations.retain(|id, _| id.core() != log.1);
        // Cookies of this epoch are not known to the others.
        for (group, _) in self.groups.values_mut().filter(|(_, known)| *known == log) {
            group.record.floor = NOTHING;
            group.record.lost = true;
        }
        self.heads.insert(log, head);
    }

    fn complete(&mut self, id: RecordId, count: u64) {
        let Some(known) = self.generations.get_mut(&id) else { return };
        match known.coming.take() {
            Some(coming) if coming.members.len() as u64 == count => known.whole = Some(coming),
            Some(_) => self.forget(id),
            None => {}
        }
    }

    fn batch(&mut self, batch: &BatchRecord) {
        if self.heads.get(&self.log) != Some(&batch.previous) {
            self.lose(batch.previous);
        }
        self.heads.insert(self.log, batch.end);
        self.take_in_deltas(&batch.deltas);
        self.let_count();
    }

    fn take_in_deltas(&mut self, deltas: &[(RecordId, RecordedDelta)]) {
        deltas.iter().for_each(|(id, delta)| self.take_in_delta(*id, delta));
    }

    fn take_in_delta(&mut self, id: RecordId, delta: &RecordedDelta) {
        let Some(delta) = self.resolve(id, delta) else { return };
        match self.coming.last_mut().filter(|(last, before)| (*last, before.end) == (id, delta.end)) {
            // The rest of it.
            Some((_, before)) => before.extend(delta),
            None => self.coming.push((id, delta)),
        }
    }

    /// The record has come that makes the deltas before it count.
    fn let_count(&mut self) {
        for (id, delta) in std::mem::take(&mut self.coming) {
            let Some(known) = self.generations.get_mut(&id) else { continue };
            for content in known.contents_mut() {
                for row in &delta.left {
                    content.members.remove(row);
                }
                content.members.extend(delta.entered.iter().copied());
                content.journal.push(delta.clone());
            }
        }
    }

    fn group(&mut self, mut record: GroupRecord) {
        let mut left = VecDeque::new();
        if let Some((before, _)) = self.groups.remove(&record.id) {
            left = before.left;
            for (epoch, number, since) in before.record.views {
                // It may have left, and come again at once.
                let stays = record.views.contains(&(epoch, number, since));
                if stays || record.floor >= record.cookie {
                    continue;
                }
                let known = self.generations.get(&RecordId { epoch, number });
                match known.and_then(|known| known.whole.as_ref()) {
                    Some(content) => {
                        if !content.journal.reaches(StateVersion(since.0)) {
                            record.floor = record.floor.max((content.journal.floor().0, 0));
                        }
                        let rows = content.all_rows();
                        self.held += rows.len() * ROW;
                        left.push_back(Left { since: cookie(since), until: cookie(record.cookie), rows });
                    }
                    None => record.floor = record.cookie,
                }
            }
        }
        let mut group = RecoveredGroup { record, left };
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
        self.generations.get(&id)?;
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
        let mut views = BTreeMap::new();
        for (id, known) in &mut self.generations {
            // Nobody goes on writing it.
            known.coming = None;
            let Some(content) = &mut known.whole else { continue };
            if !std::mem::replace(&mut content.stale, true) {
                content.at = self.heads.get(&known.log).copied().unwrap_or(StateVersion::ZERO);
            }
            views.insert(*id, content.at);
        }
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
        Recovered {
            replica: StateVersion(self.replica),
            head,
            names: Arc::new(self.names),
            generations: self.generations.into_iter().filter_map(|(id, k)| k.recovered(id)).collect(),
            groups: self.groups.into_values().map(|(group, _)| group).collect(),
            schemas: self.schemas,
            left_out: self.left_out.len(),
        }
    }
}

/// Rows as a record names them, by their numbers. `None`: one is of no identity in the list.
fn take_in(names: &mut Names, list: &[u16], rows: &[RecordedRow]) -> Option<Vec<Row>> {
    rows.iter().map(|(at, key)| Some(names.row(*list.get(*at as usize)?, key))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: RecordId = RecordId { epoch: 1, number: 1 };

    fn start(stale: Option<u64>) -> Record {
        let identities = vec![("issue".to_owned(), vec!["id".to_owned()])];
        let stale = stale.map(StateVersion);
        Record::Start(StartRecord { id: ID, key: vec![1], floor: StateVersion(10), stale, identities })
    }

    fn members(rows: &[u8]) -> Record {
        Record::Members(ID, rows.iter().map(|row| (0, [*row].into())).collect())
    }

    /// A group that has the view.
    fn group() -> Record {
        Record::Group(Box::new(GroupRecord {
            id: "g".to_owned(),
            cookie: (10, 1),
            version: 10,
            views: vec![(ID.epoch, ID.number, (10, 0))],
            ..GroupRecord::default()
        }))
    }

    /// What is known of the view, keys of its rows and version, once these have been read.
    fn read_back(records: impl IntoIterator<Item = Record>) -> Option<(Vec<u8>, u64)> {
        let recovered = recovered(records);
        let [view] = recovered.generations.as_slice() else { return None };
        let key = |row: &Row| recovered.names.get(*row).1[0];
        Some((view.members.iter().map(key).collect(), view.at.0))
    }

    /// The view was complete with the rows 1 and 2 at version 10, and 3 entered at 11.
    fn recovered(records: impl IntoIterator<Item = Record>) -> Recovered {
        let mut replay = Replay::up_to(usize::MAX);
        let entered = vec![(0, [3].into())];
        let delta = RecordedDelta { end: StateVersion(11), entered, left: vec![], edited: vec![] };
        let before = [
            Record::Header(Header { replica: 1, epoch: 1, core: 0, sequence: 1, head: 10 }),
            start(None),
            members(&[1, 2]),
            Record::Complete(ID, 2),
            group(),
            Record::Batch(BatchRecord {
                previous: StateVersion(10),
                end: StateVersion(11),
                deltas: vec![(ID, delta)],
            }),
        ];
        before.into_iter().chain(records).for_each(|record| replay.apply(record));
        replay.finish()
    }

    #[test]
    fn what_is_known_of_a_view_goes_on_until_it_is_written_again() {
        let again = [start(Some(7)), members(&[1, 4]), Record::Complete(ID, 2)];
        for written in 0..again.len() {
            let read = read_back(again.iter().take(written).cloned());
            assert_eq!(read, Some((vec![1, 2, 3], 11)), "{written} records of it");
        }
        assert_eq!(read_back(again), Some((vec![1, 4], 7)));
    }

    #[test]
    fn what_was_right_before_records_were_lost_is_not_taken_for_what_comes_after() {
        let header = Record::Header(Header { replica: 1, epoch: 1, core: 0, sequence: 2, head: 20 });
        let entered = vec![(0, [6].into())];
        let delta = RecordedDelta { end: StateVersion(21), entered, left: vec![], edited: vec![] };
        let batch =
            BatchRecord { previous: StateVersion(20), end: StateVersion(21), deltas: vec![(ID, delta)] };
        // It was read anew in what is lost: nobody knows which rows groups were told of then.
        let lost = [Record::Stale(ID, StateVersion(11)), header];
        assert_eq!(read_back(lost.clone().into_iter().chain([Record::Batch(batch.clone())])), None);
        let again = [start(None), members(&[1, 4]), Record::Complete(ID, 2), Record::Batch(batch)];
        let lost_and_again = lost.into_iter().chain(again);
        assert_eq!(read_back(lost_and_again.clone()), Some((vec![1, 4, 6], 21)));
        let of_group = |records: Vec<Record>| {
            let record = &recovered(records).groups[0].record;
            (record.views.len(), record.floor < record.cookie)
        };
        assert_eq!(of_group(vec![]), (1, true));
        assert_eq!(of_group(lost_and_again.clone().collect()), (0, false), "it may have changed, too");
        assert_eq!(of_group(lost_and_again.chain([group()]).collect()), (1, true));
    }

    #[test]
    fn a_view_that_is_written_again_in_part_is_not_known_at_all() {
        assert_eq!(read_back([start(Some(7)), members(&[1]), Record::Complete(ID, 2)]), None);
    }
}
