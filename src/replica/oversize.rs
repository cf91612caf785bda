//! Rows that SQLite cannot store (`docs/spec/replication.md` §7.5).
//!
//! It takes no row of more than a billion bytes, and Postgres sends up to 2^30. What has no room is NULL in the replica, which
//! is said once with the row's key, and all else goes on. Were the row left out, a later update that does not carry its large
//! values (TOAST) would bring back half of it.

use super::stored::Stored;
use super::work::{Before, Op};
use crate::model::catalogue::{ColumnIndex, Table};
use crate::model::commit::{Row, RowKey};
use crate::model::value::Value;

/// Most bytes of a row, with room for what SQLite adds, and for the small values of all columns that a table can have.
pub const MAX_ROW: usize = 990_000_000;

/// A value of so many bytes always has room, as has every value of a key, of which an index upstream takes much less than
/// what is left.
const SMALL: usize = 4 << 10;

/// Bytes that are counted for each value beside its text.
const PER_VALUE: usize = 20;

/// Characters of a key that are said.
const SAID: usize = 200;

/// What room is left in a row, whose values are taken in the order of their columns.
#[derive(Debug)]
pub struct Room {
    left: usize,
    /// Columns that had none, with the bytes of their values.
    pub lacking: Vec<(ColumnIndex, usize)>,
}

impl Room {
    /// Of a row of at most so many bytes.
    pub fn new(limit: usize) -> Room {
        Room { left: limit, lacking: Vec::new() }
    }

    /// Whether there is room for a value of so many bytes in a column of the table.
    pub fn take(&mut self, table: &Table, column: usize, bytes: usize) -> bool {
        let is_of_key = || table.row_key.contains(&(column as ColumnIndex));
        let has_room = bytes <= SMALL || bytes + PER_VALUE <= self.left || is_of_key();
        match has_room {
            true => self.left = self.left.saturating_sub(bytes + PER_VALUE),
            false => self.lacking.push((column as ColumnIndex, bytes)),
        }
        has_room
    }
}

/// Takes the values out of a row of the table for which it has no room. Returns their columns and bytes.
pub fn fit(limit: usize, table: &Table, row: &mut [Value]) -> Vec<(ColumnIndex, usize)> {
    let bytes: usize = row.iter().map(|value| value.heap_size() + PER_VALUE).sum();
    if bytes <= limit {
        return Vec::new();
    }
    let mut room = Room::new(limit);
    for (at, value) in row.iter_mut().enumerate() {
        if !room.take(table, at, value.heap_size()) {
            *value = Value::Null;
        }
    }
    room.lacking
}

/// Operations that do what one does, each of which has room in one value: a change of a whole row, that is the old one and
/// the new one, becomes two of them.
pub fn fit_operation(limit: usize, table: &Table, op: Op) -> Vec<Op> {
    let fitting = |mut row: Row, is_new: bool| {
        let lacking = fit(limit, table, &mut row);
        if is_new && !lacking.is_empty() {
            report(table, &key_of(table, &row), &lacking);
        }
        row
    };
    match op {
        Op::Update { table, before: Before::Whole(old), row, .. } => vec![
            Op::Delete { table, before: Before::Whole(fitting(old, false)) },
            Op::Insert { table, row: fitting(row, true) },
        ],
        Op::Update { table, before, row, absent } => {
            vec![Op::Update { table, before, row: fitting(row, true), absent }]
        }
        Op::Insert { table, row } => vec![Op::Insert { table, row: fitting(row, true) }],
        Op::Delete { table, before: Before::Whole(row) } => {
            vec![Op::Delete { table, before: Before::Whole(fitting(row, false)) }]
        }
        other => vec![other],
    }
}

/// The values of a row's key, as upstream has it.
pub fn key_of(table: &Table, row: &Row) -> RowKey {
    table.upstream_key().iter().map(|c| row[usize::from(*c)].clone()).collect()
}

/// Bytes of a value beside the enum itself.
pub fn size(value: &Stored<'_>) -> usize {
    match value {
        Stored::Text(text) => text.len(),
        Stored::Blob(bytes) => bytes.len(),
        Stored::Null | Stored::Integer(_) | Stored::Real(_) => 0,
    }
}

/// Says what a row lacks; `key`: the values of its row key.
pub fn report(table: &Table, key: &[Value], lacking: &[(ColumnIndex, usize)]) {
    for (column, bytes) in lacking {
        crate::error!("{}", sentence(table, key, *column, *bytes));
    }
}

fn sentence(table: &Table, key: &[Value], column: ColumnIndex, bytes: usize) -> String {
    let key: String = describe(table, key).chars().take(SAID).collect();
    let (table, column) = (&table.name, &table.columns[usize::from(column)].name);
    format!(
        "a value of {bytes} bytes is more than the replica can hold beside the rest of its row, and is null there: column \
         {column} of table {table}, {key}"
    )
}

fn describe(table: &Table, key: &[Value]) -> String {
    let part = |(column, value): (&ColumnIndex, &Value)| {
        let name = &table.columns[usize::from(*column)].name;
        match value {
            Value::Null => format!("{name} = null"),
            Value::Integer(i) => format!("{name} = {i}"),
            Value::Real(r) => format!("{name} = {r}"),
            Value::Text(text) => format!("{name} = {text}"),
            Value::Blob(bytes) => format!("{name} of {} bytes", bytes.len()),
        }
    };
    let parts: Vec<String> = table.upstream_key().iter().zip(key).map(part).collect();
    if parts.is_empty() { "which has no key".to_owned() } else { parts.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::catalogue::Column;

    #[test]
    fn what_has_no_room_is_named_with_its_row() {
        let column = |name: &str| Column { name: name.into(), ..Column::default() };
        let columns = vec![column("id"), column("at"), column("body")];
        let table = Table { name: "t".into(), columns, row_key: vec![0, 1], ..Table::default() };
        let said = sentence(&table, &[Value::Integer(7), Value::Text("x".into())], 2, 5_000_000);
        assert!(
            said.contains("5000000 bytes") && said.ends_with("column body of table t, id = 7, at = x"),
            "{said}"
        );
    }

    #[test]
    fn a_value_without_room_makes_none_for_others() {
        let text = |n: usize| Value::Text("x".repeat(n).into());
        let mut row = [text(50_000), text(60_000), text(30_000), text(3_000), Value::Integer(1)];
        let before = row.clone();
        let mut table = Table::default();
        assert_eq!(fit(143_100, &table, &mut row), []);
        assert_eq!(row, before);
        assert_eq!(fit(80_050, &table, &mut row), [(1, 60_000)]);
        assert_eq!(row, [text(50_000), Value::Null, text(30_000), text(3_000), Value::Integer(1)]);
        table.row_key = vec![2];
        assert_eq!(fit(40_000, &table, &mut row), [(0, 50_000)], "a key is never lost");
        assert_eq!(row[2], text(30_000));
    }
}
