//! A view as far as records have told of it.

use std::sync::Arc;

use hashbrown::HashSet;

use super::names::Row;
use super::record::Log;
use super::recovered::{Generation, Journal};
use crate::model::ids::RecordId;
use crate::model::version::StateVersion;

/// A view as far as it is known.
pub(super) struct Known {
    pub(super) key: Arc<[u8]>,
    pub(super) log: Log,
    /// What was written last, whole.
    pub(super) whole: Option<Content>,
    /// What is being written. It takes the place of the other once all of it is there: if the log
    /// ends before, nothing is lost.
    pub(super) coming: Option<Content>,
}

/// What a view holds, and how it came to that.
pub(super) struct Content {
    pub(super) members: HashSet<Row>,
    pub(super) journal: Journal,
    pub(super) at: StateVersion,
    pub(super) stale: bool,
}

impl Known {
    pub(super) fn contents(&self) -> impl Iterator<Item = &Content> {
        self.whole.iter().chain(&self.coming)
    }

    pub(super) fn contents_mut(&mut self) -> impl Iterator<Item = &mut Content> {
        self.whole.iter_mut().chain(&mut self.coming)
    }

    pub(super) fn recovered(self, id: RecordId) -> Option<Generation> {
        let content = self.whole?;
        let mut members: Vec<Row> = content.members.into_iter().collect();
        members.sort_unstable();
        Some(Generation {
            id,
            key: self.key,
            members: members.into(),
            journal: Arc::new(content.journal),
            at: content.at,
        })
    }
}

impl Content {
    /// All that a tab may hold of it.
    pub(super) fn all_rows(&self) -> Vec<Row> {
        let mut rows: Vec<Row> = self.members.iter().copied().chain(self.journal.rows()).collect();
        rows.sort_unstable();
        rows.dedup();
        rows.shrink_to_fit();
        rows
    }
}
