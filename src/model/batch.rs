//! Several commits as one change: first old, last new per row (rule 2).

use std::collections::HashMap;
use std::sync::Arc;

use crate::model::catalogue::Catalogue;
use crate::model::commit::{Commit, Row, TableChange};
use crate::model::ids::TableId;
use crate::model::key;
use crate::model::version::StateVersion;
use crate::testing::faults::{self, Fault};

/// Net change of one row over a batch, borrowed from its commits.
#[derive(Debug, Clone, Copy)]
pub struct Change<'c> {
    /// The row before the batch.
    pub old: Option<&'c Row>,
    /// The row after it.
    pub new: Option<&'c Row>,
}

/// Net change of one table.
#[derive(Debug)]
pub enum TableBatch<'c> {
    /// Every changed row.
    Rows(Vec<Change<'c>>),
    /// Look at everything again.
    Bulk,
}

/// The same commits with rows that have all columns which their tables have in this catalogue: those of before a
/// column came lack it (`docs/spec/schema-changes.md` S4).
pub fn widen(commits: Vec<Arc<Commit>>, catalogue: &Catalogue) -> Vec<Arc<Commit>> {
    let is_narrow = |(id, change): (&TableId, &TableChange)| {
        let TableChange::Rows(rows) = change else { return false };
        let first = rows.first().and_then(|row| row.new.as_ref().or(row.old.as_ref()));
        let table = catalogue.find(*id);
        first.zip(table).is_some_and(|(row, table)| row.len() < table.columns.len())
    };
    let wide = |commit: Arc<Commit>| {
        if !commit.tables.iter().any(is_narrow) {
            return commit;
        }
        let mut commit = (*commit).clone();
        for (id, change) in &mut commit.tables {
            if let (TableChange::Rows(rows), Some(table)) = (change, catalogue.find(*id)) {
                rows.iter_mut().for_each(|row| row.widen(table));
            }
        }
        Arc::new(commit)
    };
    commits.into_iter().map(wide).collect()
}

/// Net change of all tables over consecutive commits.
#[derive(Debug)]
pub struct Batch<'c> {
    /// Version that the batch ends with.
    pub end: StateVersion,
    /// Changed tables.
    pub tables: HashMap<TableId, TableBatch<'c>>,
}

impl<'c> Batch<'c> {
    /// Folds consecutive commits. Rows that are equal before and after are dropped.
    pub fn fold(commits: &'c [Arc<Commit>], end: StateVersion) -> Batch<'c> {
        let mut tables: HashMap<TableId, Vec<&'c TableChange>> = HashMap::new();
        for commit in commits {
            for (table, change) in &commit.tables {
                tables.entry(*table).or_default().push(change);
            }
        }
        let tables = tables.into_iter().map(|(table, changes)| (table, fold_table(&changes))).collect();
        Batch { end, tables }
    }

    /// Everything changed: after a gap, or after too many commits to keep.
    pub fn everything(catalogue: &Catalogue, end: StateVersion) -> Batch<'c> {
        let tables = catalogue.tables().map(|t| (t.id, TableBatch::Bulk)).collect();
        Batch { end, tables }
    }

    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        self.tables.values().all(|t| matches!(t, TableBatch::Rows(rows) if rows.is_empty()))
    }
}

fn fold_table<'c>(changes: &[&'c TableChange]) -> TableBatch<'c> {
    let mut lists = Vec::with_capacity(changes.len());
    for change in changes {
        match change {
            TableChange::Bulk => return TableBatch::Bulk,
            TableChange::Rows(rows) => lists.push(rows),
        }
    }
    if let [only] = lists.as_slice() {
        let rows = only.iter().map(|r| Change { old: r.old.as_ref(), new: r.new.as_ref() });
        return TableBatch::Rows(rows.filter(differs).collect());
    }
    let mut positions: HashMap<Vec<u8>, usize> = HashMap::new();
    let mut folded: Vec<Change<'c>> = Vec::new();
    for row in lists.into_iter().flatten() {
        let mut bytes = Vec::new();
        for value in row.key.iter() {
            // A NULL cannot be part of a row key; were it so, the rows would stay apart.
            key::push(value.into(), &mut bytes);
        }
        match positions.entry(bytes) {
            std::collections::hash_map::Entry::Occupied(found) => {
                folded[*found.get()].new = row.new.as_ref();
                if faults::is_on(Fault::Fold) {
                    folded[*found.get()].old = row.old.as_ref();
                }
            }
            std::collections::hash_map::Entry::Vacant(free) => {
                free.insert(folded.len());
                folded.push(Change { old: row.old.as_ref(), new: row.new.as_ref() });
            }
        }
    }
    folded.retain(differs);
    TableBatch::Rows(folded)
}

fn differs(change: &Change) -> bool {
    change.old != change.new
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::commit::RowChange;
    use crate::model::value::Value;

    fn commit(version: u64, changes: Vec<(i64, Option<i64>, Option<i64>)>) -> Arc<Commit> {
        let row = |key: i64, v: i64| -> Row { [Value::Integer(key), Value::Integer(v)].into() };
        let rows = changes
            .into_iter()
            .map(|(key, old, new)| RowChange {
                key: [Value::Integer(key)].into(),
                old: old.map(|v| row(key, v)),
                new: new.map(|v| row(key, v)),
            })
            .collect();
        Arc::new(Commit {
            version: StateVersion(version),
            previous: StateVersion(version - 1),
            tables: [(TableId(0), TableChange::Rows(rows))].into(),
            size: 0,
        })
    }

    #[test]
    fn a_row_that_ends_as_it_began_is_dropped_and_the_rest_is_net() {
        let commits = [
            commit(1, vec![(1, Some(5), Some(6)), (2, None, Some(1)), (3, Some(1), None)]),
            commit(2, vec![(1, Some(6), Some(5)), (2, Some(1), Some(2)), (3, None, Some(9))]),
        ];
        let batch = Batch::fold(&commits, StateVersion(2));
        let Some(TableBatch::Rows(rows)) = batch.tables.get(&TableId(0)) else { panic!("rows expected") };
        assert_eq!(rows.len(), 2);
        assert!(rows.iter().any(|r| r.old.is_none() && r.new.unwrap()[1] == Value::Integer(2)));
        let value = |row: Option<&Row>| row.map(|r| r[1].clone());
        assert!(
            rows.iter().any(|r| {
                value(r.old) == Some(Value::Integer(1)) && value(r.new) == Some(Value::Integer(9))
            })
        );
    }

    #[test]
    fn bulk_dominates() {
        let mut bulk = (*commit(2, vec![])).clone();
        bulk.tables.insert(TableId(0), TableChange::Bulk);
        let commits = [commit(1, vec![(1, None, Some(1))]), Arc::new(bulk)];
        let batch = Batch::fold(&commits, StateVersion(2));
        assert!(matches!(batch.tables[&TableId(0)], TableBatch::Bulk));
    }
}
