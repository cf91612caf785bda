//! Net changes of a commit: first old row, last new row, per row key (rule 1).

use std::collections::HashMap;

use hashbrown::HashMap as FastMap;
use smallvec::SmallVec;

use crate::model::catalogue::Table;
use crate::model::commit::{MAX_ROWS_PER_TABLE, Row, RowChange, RowKey, TableChange};
use crate::model::ids::TableId;
use crate::model::value::Value;

/// Most bytes of rows that a commit holds, over all tables; the table that passes it
/// becomes bulk. Commits wait in the queues of every core, so they must stay small
/// beside a core's memory.
const MAX_BYTES: usize = 32 << 20;

/// A row key as bytes that are equal exactly for equal keys.
type KeyBytes = SmallVec<[u8; 40]>;

/// Collects the changes between two commits.
#[derive(Default)]
pub struct Net {
    tables: HashMap<TableId, Changes>,
    bytes: usize,
}

enum Changes {
    Rows { changes: Vec<RowChange>, by_key: FastMap<KeyBytes, usize> },
    Bulk,
}

impl Default for Changes {
    fn default() -> Self {
        Changes::Rows { changes: Vec::new(), by_key: FastMap::new() }
    }
}

impl Net {
    /// Whether rows of the table are still listed, so that they are worth cloning.
    pub fn lists(&self, table: TableId) -> bool {
        !matches!(self.tables.get(&table), Some(Changes::Bulk))
    }

    /// The table changed in a way that is not listed row by row.
    pub fn bulk(&mut self, table: TableId) {
        let before = self.tables.insert(table, Changes::Bulk);
        if let Some(Changes::Rows { changes, .. }) = before {
            self.bytes -= changes.iter().map(change_size).sum::<usize>();
        }
    }

    /// A row changed from `old` to `new`, both with this key.
    pub fn row(&mut self, table: TableId, key: RowKey, old: Option<Row>, new: Option<Row>) {
        let Changes::Rows { changes, by_key } = self.tables.entry(table).or_default() else { return };
        match by_key.entry(key_bytes(&key)) {
            hashbrown::hash_map::Entry::Occupied(entry) => {
                let change = &mut changes[*entry.get()];
                self.bytes -= change_size(change);
                change.new = new;
                self.bytes += change_size(change);
            }
            hashbrown::hash_map::Entry::Vacant(entry) => {
                entry.insert(changes.len());
                let change = RowChange { key, old, new };
                self.bytes += change_size(&change);
                changes.push(change);
            }
        }
        if changes.len() > MAX_ROWS_PER_TABLE || self.bytes > MAX_BYTES {
            self.bulk(table);
        }
    }

    /// Gives rows of a table what they have in columns that it has got since.
    pub fn widen(&mut self, table: &Table) {
        let Some(Changes::Rows { changes, .. }) = self.tables.get_mut(&table.id) else { return };
        for change in changes {
            self.bytes -= change_size(change);
            change.widen(table);
            self.bytes += change_size(change);
        }
    }

    /// Takes what was collected: the changed tables, and their size in bytes.
    pub fn take(&mut self) -> (HashMap<TableId, TableChange>, usize) {
        let size = std::mem::take(&mut self.bytes);
        let tables = self.tables.drain().filter_map(|(table, changes)| match changes {
            Changes::Bulk => Some((table, TableChange::Bulk)),
            Changes::Rows { mut changes, .. } => {
                changes.retain(|change| change.old != change.new);
                (!changes.is_empty()).then_some((table, TableChange::Rows(changes)))
            }
        });
        (tables.collect(), size)
    }

    /// Forgets everything: the transaction was undone.
    pub fn clear(&mut self) {
        *self = Net::default();
    }
}

fn change_size(change: &RowChange) -> usize {
    let values =
        |values: &[Value]| std::mem::size_of_val(values) + values.iter().map(Value::heap_size).sum::<usize>();
    let rows = change.old.iter().chain(&change.new).map(|row| values(row)).sum::<usize>();
    std::mem::size_of::<RowChange>() + values(&change.key) + rows
}

/// Stored numbers are normalised, so equal values are equal bytes.
fn key_bytes(key: &[Value]) -> KeyBytes {
    let mut bytes = KeyBytes::new();
    for value in key {
        match value {
            Value::Null => bytes.push(0),
            Value::Integer(i) => {
                bytes.push(1);
                bytes.extend_from_slice(&i.to_le_bytes());
            }
            Value::Real(r) => {
                bytes.push(2);
                bytes.extend_from_slice(&r.to_bits().to_le_bytes());
            }
            Value::Text(text) => {
                bytes.push(3);
                bytes.extend_from_slice(&(text.len() as u64).to_le_bytes());
                bytes.extend_from_slice(text.as_bytes());
            }
            Value::Blob(blob) => {
                bytes.push(4);
                bytes.extend_from_slice(&(blob.len() as u64).to_le_bytes());
                bytes.extend_from_slice(blob);
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(t: &str) -> Value {
        Value::Text(t.into())
    }

    fn row(values: &[i64]) -> Option<Row> {
        Some(values.iter().map(|v| Value::Integer(*v)).collect())
    }

    fn key(k: i64) -> RowKey {
        Box::new([Value::Integer(k)])
    }

    #[test]
    fn only_the_first_old_and_the_last_new_row_remain() {
        let mut net = Net::default();
        let table = TableId(0);
        net.row(table, key(1), row(&[1, 1]), row(&[1, 2]));
        net.row(table, key(1), row(&[1, 2]), row(&[1, 3]));
        // Came and went; went and came back the same.
        net.row(table, key(2), None, row(&[2, 0]));
        net.row(table, key(2), row(&[2, 0]), None);
        net.row(table, key(3), row(&[3, 0]), None);
        net.row(table, key(3), None, row(&[3, 0]));
        let (tables, size) = net.take();
        let change = RowChange { key: key(1), old: row(&[1, 1]), new: row(&[1, 3]) };
        assert_eq!(tables, HashMap::from([(table, TableChange::Rows(vec![change]))]));
        assert!(size > 0);
        assert_eq!(net.take(), (HashMap::new(), 0));
    }

    #[test]
    fn too_many_rows_become_bulk() {
        let mut net = Net::default();
        for i in 0..=MAX_ROWS_PER_TABLE as i64 {
            net.row(TableId(0), key(i), None, row(&[i]));
        }
        assert!(!net.lists(TableId(0)));
        net.row(TableId(0), key(0), None, row(&[0]));
        assert_eq!(net.take(), (HashMap::from([(TableId(0), TableChange::Bulk)]), 0));
    }

    #[test]
    fn keys_of_several_columns_do_not_run_into_each_other() {
        assert_ne!(key_bytes(&[text("ab"), text("c")]), key_bytes(&[text("a"), text("bc")]));
        assert_ne!(key_bytes(&[Value::Integer(1)]), key_bytes(&[text("1")]));
    }
}
