//! What was so when the record logs ended (rules 18, 19, 24).

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::names::{Names, Row};
use crate::cvr::record::GroupRecord;
use crate::model::ids::RecordId;
use crate::model::version::StateVersion;
use crate::protocol::cookie::Cookie;
use crate::views::limits::ViewLimits;

/// What one delta did.
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
    /// All rows named.
    pub fn rows(&self) -> impl Iterator<Item = Row> {
        self.entered.iter().chain(&self.left).chain(&self.edited).copied()
    }

    /// Rows named.
    pub fn len(&self) -> usize {
        self.entered.len() + self.left.len() + self.edited.len()
    }

    /// Whether nothing happened.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes in the rest of what the same batch did.
    pub(super) fn extend(&mut self, rest: Delta) {
        self.entered.extend(rest.entered);
        self.left.extend(rest.left);
        self.edited.extend(rest.edited);
    }

    pub(super) fn rows_mut(&mut self) -> impl Iterator<Item = &mut Row> {
        self.entered.iter_mut().chain(&mut self.left).chain(&mut self.edited)
    }
}

/// What happened to a view of late, oldest first: no more than a view of now would keep.
#[derive(Debug, Clone, Default)]
pub struct Journal {
    deltas: VecDeque<Delta>,
    keys: usize,
    floor: StateVersion,
}

impl Journal {
    /// A journal that knows nothing from before `version`.
    pub fn starting_at(version: StateVersion) -> Journal {
        Journal { floor: version, ..Journal::default() }
    }

    /// Appends a delta; drops the oldest ones beyond the limits.
    pub fn push(&mut self, delta: Delta) {
        if delta.is_empty() {
            return;
        }
        self.keys += delta.len();
        self.deltas.push_back(delta);
        let ViewLimits { journal_keys, journal_deltas, .. } = ViewLimits::DEFAULT;
        while self.keys > journal_keys || self.deltas.len() > journal_deltas {
            let Some(dropped) = self.deltas.pop_front() else { break };
            self.keys -= dropped.len();
            self.floor = dropped.end;
        }
    }

    /// Whether everything after `version` is still known.
    pub fn reaches(&self, version: StateVersion) -> bool {
        version >= self.floor
    }

    /// It knows nothing from before this version.
    pub fn floor(&self) -> StateVersion {
        self.floor
    }

    /// All of them.
    pub fn deltas(&self) -> impl Iterator<Item = &Delta> {
        self.deltas.iter()
    }

    /// All rows named.
    pub fn rows(&self) -> impl Iterator<Item = Row> {
        self.deltas.iter().flat_map(Delta::rows)
    }

    pub(super) fn rows_mut(&mut self) -> impl Iterator<Item = &mut Row> {
        self.deltas.iter_mut().flat_map(Delta::rows_mut)
    }

    /// Bytes of memory, roughly.
    pub fn bytes(&self) -> usize {
        self.deltas.len() * size_of::<Delta>() + self.keys * size_of::<Row>()
    }
}

/// A view as it was. A copy for one more core costs nothing.
#[derive(Debug, Clone)]
pub struct Generation {
    /// Which life.
    pub id: RecordId,
    /// What it asked.
    pub key: Arc<[u8]>,
    /// Its rows, in order of their numbers.
    pub members: Arc<[Row]>,
    /// What happened of late.
    pub journal: Arc<Journal>,
    /// It is right at this version.
    pub at: StateVersion,
}

/// Rows of a view that a group left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    /// Cookie since which it had the view.
    pub since: Cookie,
    /// Cookie at which it left.
    pub until: Cookie,
    /// What a tab may hold because of it.
    pub rows: Vec<Row>,
}

/// A group as it was.
#[derive(Debug, Clone)]
pub struct RecoveredGroup {
    /// As it was written last, with what was found out since: cookie, version, floor, seals.
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
    /// What the numbers of rows stand for; the same for all cores.
    pub names: Arc<Names>,
    /// Views that are complete.
    pub generations: Vec<Generation>,
    /// Groups.
    pub groups: Vec<RecoveredGroup>,
    /// Client schemas by number; JSON.
    pub schemas: HashMap<u64, String>,
    /// Views that were left out because they would have taken too much memory.
    pub left_out: usize,
}
