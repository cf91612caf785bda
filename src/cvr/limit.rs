//! What is left out when what records add up to would take too much memory.
//!
//! A server that was killed for its memory would else be killed again at every start. Without a view
//! its groups start over from a cleared store, which costs them time but is always right (rule 21). The
//! largest views go first: they free most for each group that starts over. What groups left goes
//! last, and the groups themselves stay.

use super::known::{Content, Known};
use super::names::Row;
use super::replay::Replay;
use super::sealing::forget_left;
use crate::model::ids::RecordId;

/// Bytes of a member: a number and a byte of its hash, in a table that is half full at worst.
const MEMBER: usize = 10;

/// Bytes of a view beside its rows: what it asks, and its places in tables.
const VIEW: usize = 500;

/// Bytes of the name of a row that only one view has, for a first guess of what that view frees.
const NAME: usize = 40;

impl Known {
    fn bytes(&self) -> usize {
        let of = |content: &Content| content.members.len() * MEMBER + content.journal.bytes();
        VIEW + self.contents().map(of).sum::<usize>()
    }

    /// Members, those of what is being written once more.
    fn members(&self) -> usize {
        self.contents().map(|content| content.members.len()).sum()
    }
}

impl Replay {
    /// Leaves views out if what is known takes more than it may.
    pub(super) fn keep_within_limit(&mut self) {
        if self.bytes() <= self.limit {
            return;
        }
        self.count();
        if self.bytes() <= self.limit {
            return;
        }
        // Somewhat more, so that the next record does not bring this up again.
        let goal = self.limit - self.limit / 8;
        while self.bytes() > goal {
            if self.generations.is_empty() {
                self.groups.values_mut().for_each(|(group, _)| forget_left(group, 0));
            }
            self.leave_out(self.bytes() - goal);
            self.coming.retain(|(id, _)| self.generations.contains_key(id));
            self.give_up_names();
            self.count();
        }
    }

    /// Bytes of memory, roughly: of what only grew since the last count it is known how much.
    fn bytes(&self) -> usize {
        self.names.bytes() + self.held
    }

    fn count(&mut self) {
        let left = self.groups.values().flat_map(|(group, _)| &group.left).map(|left| left.rows.len());
        let coming: usize = self.coming.iter().map(|(_, delta)| delta.len()).sum();
        self.held = (left.sum::<usize>() + coming) * size_of::<Row>()
            + self.generations.values().map(Known::bytes).sum::<usize>();
    }

    /// Leaves out the largest views until so many bytes may be free, or none is left.
    fn leave_out(&mut self, bytes: usize) {
        let size = |known: &Known| known.bytes() + known.members() * NAME;
        let mut views: Vec<(usize, RecordId)> =
            self.generations.iter().map(|(id, known)| (size(known), *id)).collect();
        views.sort_unstable();
        let mut freed = 0;
        while freed < bytes {
            let Some((size, id)) = views.pop() else { break };
            freed += size;
            self.forget(id);
            self.left_out.insert(id);
        }
    }

    /// Gives up the names of rows that nothing has any more.
    fn give_up_names(&mut self) {
        let mut is_kept = vec![false; self.names.len()];
        let mut mark = |row: Row| is_kept[row.0 as usize] = true;
        for content in self.generations.values().flat_map(Known::contents) {
            content.members.iter().copied().for_each(&mut mark);
            content.journal.rows().for_each(&mut mark);
        }
        let left = self.groups.values().flat_map(|(group, _)| &group.left);
        left.flat_map(|left| &left.rows).copied().for_each(&mut mark);
        self.coming.iter().flat_map(|(_, delta)| delta.rows()).for_each(&mut mark);
        let renumbered = self.names.keep(&is_kept);
        let of = |row: &Row| renumbered[row.0 as usize];
        for content in self.generations.values_mut().flat_map(Known::contents_mut) {
            content.members = std::mem::take(&mut content.members).iter().map(of).collect();
            content.journal.rows_mut().for_each(|row| *row = of(row));
        }
        let left = self.groups.values_mut().flat_map(|(group, _)| &mut group.left);
        left.flat_map(|left| &mut left.rows).for_each(|row| *row = of(row));
        self.coming.iter_mut().flat_map(|(_, delta)| delta.rows_mut()).for_each(|row| *row = of(row));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cvr::record::{
        BatchRecord, GroupRecord, Header, Record, RecordedDelta, RecordedRow, StartRecord,
    };
    use crate::cvr::recovered::Recovered;
    use crate::model::version::StateVersion;

    fn id(view: u64) -> RecordId {
        RecordId::of_core(1, 0, view)
    }

    /// Rows with long keys, of which no two views have the same.
    fn rows(view: u64, numbers: std::ops::Range<usize>) -> Vec<RecordedRow> {
        numbers.map(|n| (0, format!("{view}-{n:0100}").into_bytes().into())).collect()
    }

    fn group(view: u64) -> GroupRecord {
        GroupRecord {
            id: format!("g{view}"),
            cookie: (10, 1),
            version: 10,
            views: vec![(1, id(view).number, (10, 0))],
            ..GroupRecord::default()
        }
    }

    fn view(view: u64, members: usize) -> Vec<Record> {
        let identities = vec![("issue".to_owned(), vec!["id".to_owned()])];
        let key = view.to_le_bytes().to_vec();
        let mut out = vec![Record::Start(StartRecord {
            id: id(view),
            key,
            floor: StateVersion(10),
            stale: None,
            identities,
        })];
        out.extend((0..members).step_by(100).map(|n| Record::Members(id(view), rows(view, n..n + 100))));
        out.push(Record::Complete(id(view), members as u64));
        out.push(Record::Group(Box::new(group(view))));
        out
    }

    /// Three views, the second of which is large, and a batch that changes each of them.
    fn read_back(limit: usize) -> Recovered {
        let mut replay = Replay::up_to(limit);
        replay.apply(Record::Header(Header { replica: 1, epoch: 1, core: 0, sequence: 1, head: 10 }));
        [view(1, 300), view(2, 5_000), view(3, 400)].into_iter().flatten().for_each(|r| replay.apply(r));
        let delta = |view| RecordedDelta {
            end: StateVersion(11),
            entered: rows(view, 9_000..9_001),
            left: rows(view, 0..1),
            edited: vec![],
        };
        let deltas = (1..=3).map(|view| (id(view), delta(view))).collect();
        replay.apply(Record::Batch(BatchRecord {
            previous: StateVersion(10),
            end: StateVersion(11),
            deltas,
        }));
        replay.finish()
    }

    #[test]
    fn the_largest_view_is_left_out_and_its_group_starts_over() {
        let all = read_back(usize::MAX);
        assert_eq!((all.generations.len(), all.left_out, all.names.len()), (3, 0, 5_703));
        let recovered = read_back(300_000);
        assert_eq!(recovered.left_out, 1);
        assert!(recovered.names.bytes() < 300_000, "what only that view had is given up, too");
        let ids: Vec<RecordId> = recovered.generations.iter().map(|view| view.id).collect();
        assert_eq!(ids, [id(1), id(3)]);
        for (view, size) in recovered.generations.iter().zip([300, 400]) {
            let number = view.id.number;
            let expected = [rows(number, 1..size), rows(number, 9_000..9_001)].concat();
            let mut found: Vec<RecordedRow> = view
                .members
                .iter()
                .map(|row| recovered.names.get(*row))
                .map(|(i, k)| (i, k.into()))
                .collect();
            found.sort_unstable();
            assert_eq!(found, expected);
            let left = view.journal.deltas().flat_map(|delta| &delta.left);
            let left: Vec<&[u8]> = left.map(|row| recovered.names.get(*row).1).collect();
            assert_eq!(left, [&*rows(number, 0..1)[0].1]);
        }
        for group in &recovered.groups {
            let starts_over = group.record.floor == group.record.cookie && group.record.views.is_empty();
            assert_eq!(starts_over, group.record.id == "g2");
        }
    }

    #[test]
    fn no_limit_is_too_low_to_end() {
        let recovered = read_back(0);
        assert_eq!((recovered.generations.len(), recovered.left_out, recovered.names.len()), (0, 3, 0));
        assert_eq!(recovered.groups.len(), 3);
    }
}
