//! What happened to a view of late: which rows came, went or changed, by version.
//!
//! Groups step along it and returning tabs are brought up to date from it, without
//! touching the rows that did not change (rules 15, 19, 20).

use std::collections::VecDeque;

use super::limits::ViewLimits;
use super::rows::{RowId, Rows};
use crate::model::version::StateVersion;
use crate::testing::met::{Limit, met};

/// Change of a view by one batch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Delta {
    /// Version that the batch ended with.
    pub end: StateVersion,
    /// Rows that came in.
    pub entered: Vec<RowId>,
    /// Rows that went out.
    pub left: Vec<RowId>,
    /// Members before and after whose contents changed.
    pub edited: Vec<RowId>,
}

impl Delta {
    /// Whether nothing happened.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Rows named.
    pub fn len(&self) -> usize {
        self.entered.len() + self.left.len() + self.edited.len()
    }

    /// All rows named.
    pub fn rows(&self) -> impl Iterator<Item = RowId> {
        self.entered.iter().chain(&self.left).chain(&self.edited).copied()
    }
}

/// Recent deltas of one view, oldest first. Holds a reference to every row it names.
#[derive(Debug)]
pub struct Journal {
    deltas: VecDeque<Delta>,
    keys: usize,
    floor: StateVersion,
    limits: ViewLimits,
}

impl Journal {
    /// A journal that knows nothing from before `version`.
    pub fn starting_at(version: StateVersion, limits: ViewLimits) -> Journal {
        Journal { deltas: VecDeque::new(), keys: 0, floor: version, limits }
    }

    /// Appends a delta; drops the oldest ones beyond the limits.
    pub fn push(&mut self, delta: Delta, rows: &mut Rows) {
        if delta.is_empty() {
            return;
        }
        delta.rows().for_each(|id| rows.acquire(id));
        self.keys += delta.len();
        self.deltas.push_back(delta);
        let ViewLimits { journal_keys, journal_deltas, .. } = self.limits;
        while self.keys > journal_keys || self.deltas.len() > journal_deltas {
            met(if self.keys > journal_keys { Limit::JournalKeys } else { Limit::JournalDeltas });
            let Some(dropped) = self.deltas.pop_front() else { break };
            self.keys -= dropped.len();
            self.floor = dropped.end;
            dropped.rows().for_each(|id| rows.release(id));
        }
    }

    /// The same once more, with references of its own.
    pub fn copy(&self, rows: &mut Rows) -> Journal {
        self.deltas.iter().flat_map(Delta::rows).for_each(|id| rows.acquire(id));
        Journal { deltas: self.deltas.clone(), ..*self }
    }

    /// Whether everything after `version` is still known.
    pub fn reaches(&self, version: StateVersion) -> bool {
        version >= self.floor
    }

    /// Deltas whose end is after `version`, oldest first.
    pub fn since(&self, version: StateVersion) -> impl Iterator<Item = &Delta> {
        // Most views have not changed since.
        let start = match self.deltas.back() {
            Some(last) if last.end > version => self.deltas.partition_point(|d| d.end <= version),
            _ => self.deltas.len(),
        };
        self.deltas.range(start..)
    }

    /// End version of the last delta that was dropped.
    pub fn floor(&self) -> StateVersion {
        self.floor
    }

    /// Deltas kept.
    pub fn len(&self) -> usize {
        self.deltas.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.deltas.is_empty()
    }

    /// Rows that they name.
    pub fn keys(&self) -> usize {
        self.keys
    }

    /// Gives up everything.
    pub fn clear(&mut self, rows: &mut Rows) {
        for delta in self.deltas.drain(..) {
            delta.rows().for_each(|id| rows.release(id));
        }
        self.keys = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ids::TableId;

    #[test]
    fn a_dropped_delta_raises_the_floor_and_a_quiet_view_keeps_it() {
        let mut rows = Rows::default();
        let identity = rows.identity(TableId(0), &[0].into());
        let id = rows.intern(identity, b"a");
        let mut journal = Journal::starting_at(StateVersion(10), ViewLimits::DEFAULT);
        assert!(journal.reaches(StateVersion(10)) && !journal.reaches(StateVersion(9)));
        for version in 11..(11 + ViewLimits::DEFAULT.journal_deltas as u64 + 2) {
            journal
                .push(Delta { end: StateVersion(version), edited: vec![id], ..Delta::default() }, &mut rows);
        }
        assert_eq!(journal.floor(), StateVersion(12));
        assert!(!journal.reaches(StateVersion(11)));
        assert_eq!(journal.since(StateVersion(13)).next().unwrap().end, StateVersion(14));
        journal.clear(&mut rows);
        rows.release(id);
        assert_eq!(rows.len(), 0, "the journal gave its references back");
    }
}
