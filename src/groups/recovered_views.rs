//! Views of before the process started, until views of now take their place (rule 24).
//!
//! A view that asks for the same takes over what such a one held and is read anew; the
//! difference goes the usual way. It stays here until every group that had it has come back: one
//! whose query asks for something else now leaves what it held.

use hashbrown::{HashMap, HashSet};

use crate::model::ids::RecordId;
use crate::model::version::StateVersion;
use crate::views::journal::Journal;
use crate::views::rows::{RowId, Rows};

/// A view of before. Holds a reference to each of its rows.
pub struct RecoveredView {
    /// What it asked.
    pub key: Box<[u8]>,
    /// Rows that it sent.
    pub members: Vec<RowId>,
    /// What happened of late.
    pub journal: Journal,
    /// Version at which it was right.
    pub at: StateVersion,
    /// Groups that had it and have not come back.
    pub groups: usize,
}

/// All of them.
#[derive(Default)]
pub struct RecoveredViews {
    by_id: HashMap<RecordId, RecoveredView>,
    by_key: HashMap<Box<[u8]>, RecordId>,
    taken: HashSet<RecordId>,
}

impl RecoveredViews {
    /// Adds one.
    pub fn add(&mut self, id: RecordId, old: RecoveredView) {
        // Of two that asked for the same on two cores, views of now go on with one.
        self.by_key.entry(old.key.clone()).or_insert(id);
        self.by_id.insert(id, old);
    }

    /// One more group had it.
    pub fn add_group(&mut self, id: RecordId) {
        if let Some(old) = self.by_id.get_mut(&id) {
            old.groups += 1;
        }
    }

    /// One of them.
    pub fn get(&self, id: RecordId) -> Option<&RecoveredView> {
        self.by_id.get(&id)
    }

    /// All that nobody has taken, in order.
    pub fn ids(&self) -> Vec<RecordId> {
        let free = self.by_id.keys().filter(|id| !self.taken.contains(*id));
        let mut ids: Vec<RecordId> = free.copied().collect();
        ids.sort_unstable();
        ids
    }

    /// Whether none is left.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// The one that asked for this, for a view of now to go on with: only one does.
    pub fn take(&mut self, key: &[u8]) -> Option<(RecordId, &RecoveredView)> {
        let id = self.by_key.remove(key)?;
        self.taken.insert(id);
        Some((id, self.by_id.get(&id)?))
    }

    /// The view that went on with it is gone. Whether groups had it that have not come back.
    pub fn give_back(&mut self, id: RecordId) -> bool {
        self.taken.remove(&id);
        let Some(old) = self.by_id.get(&id) else { return false };
        self.by_key.entry(old.key.clone()).or_insert(id);
        true
    }

    /// Whether a view of now goes on with it.
    pub fn is_taken(&self, id: RecordId) -> bool {
        self.taken.contains(&id)
    }

    /// Gives up those that no group had.
    pub fn drop_unused(&mut self, rows: &mut Rows) {
        let unused: Vec<RecordId> =
            self.by_id.iter().filter(|(_, old)| old.groups == 0).map(|(id, _)| *id).collect();
        for id in unused {
            self.release(id, rows);
        }
    }

    /// One group less had it. Whether it is given up.
    pub fn release(&mut self, id: RecordId, rows: &mut Rows) -> bool {
        let Some(old) = self.by_id.get_mut(&id) else { return false };
        old.groups = old.groups.saturating_sub(1);
        if old.groups > 0 {
            return false;
        }
        let Some(mut old) = self.by_id.remove(&id) else { return false };
        if self.by_key.get(&old.key) == Some(&id) {
            self.by_key.remove(&old.key);
        }
        rows.release_all(&old.members);
        old.journal.clear(rows);
        true
    }
}
