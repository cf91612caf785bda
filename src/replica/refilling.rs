//! Copying a table anew that is shown meanwhile (`docs/spec/schema-changes.md` S21): which rows are other ones than before, and
//! which of the stream's changes concern both tables.

use rusqlite::{Connection, OptionalExtension, Statement, params};

use super::error::{Doing, Error};
use super::schema::{ROW_VERSION, column_list, matches, rowid_name};
use super::stored::{bind_value, read_value};
use super::work::{Before, Op};
use crate::model::catalogue::{Catalogue, ColumnIndex, Table, quote};
use crate::model::value::Value;
use crate::model::version::StateVersion;

/// Rows whose version is set at a time, so that commits need not wait for all of a table.
const SLICE: i64 = 5_000;

/// Tells of the rows of a copy whether the table that is shown has the same ones.
pub(super) struct Comparison<'c> {
    key: Vec<ColumnIndex>,
    /// Columns that both have.
    both: Vec<ColumnIndex>,
    find: Statement<'c>,
}

impl<'c> Comparison<'c> {
    /// `None`: all rows of the copy count as changed, or it is none.
    pub(super) fn new(
        connection: &'c Connection,
        catalogue: &Catalogue,
        copy: &Table,
    ) -> Result<Option<Self>, Error> {
        let Some(refill) = copy.refill.as_ref().filter(|refill| !refill.all_new) else { return Ok(None) };
        let Some(shown) = catalogue.find(refill.table) else { return Ok(None) };
        let is_there = |at: &ColumnIndex| shown.columns.get(usize::from(*at)).is_some_and(|c| !c.gone);
        if copy.row_key.is_empty() || copy.row_key != shown.row_key || !copy.row_key.iter().all(is_there) {
            return Ok(None);
        }
        let sql = format!(
            "SELECT {}, {} FROM {} WHERE {} LIMIT 1",
            quote(ROW_VERSION),
            column_list(shown),
            quote(&shown.stored_name),
            matches(shown, shown.row_key.iter().copied())
        );
        let find = connection.prepare(&sql).doing("preparing to compare rows")?;
        let both = copy.columns_there().into_iter().filter(is_there).collect();
        Ok(Some(Comparison { key: copy.row_key.clone(), both, find }))
    }

    /// The version of the row that is shown, if it is the same; else none, which counts as changed just now.
    pub(super) fn version(&mut self, row: &[Value]) -> Result<Value, Error> {
        let doing = "comparing a row with the one that is shown";
        for (at, column) in self.key.iter().enumerate() {
            bind_value(&mut self.find, at + 1, &row[usize::from(*column)]).doing(doing)?;
        }
        let mut rows = self.find.raw_query();
        let Some(shown) = rows.next().doing(doing)? else { return Ok(Value::Null) };
        for column in &self.both {
            if read_value(shown, usize::from(*column) + 1).doing(doing)? != row[usize::from(*column)] {
                return Ok(Value::Null);
            }
        }
        read_value(shown, 0).doing(doing)
    }
}

/// A change of a copy as one of the table that is shown, which has fewer columns.
pub(super) fn narrowed(op: &Op, shown: &Table) -> Option<Op> {
    let narrow = |row: &[Value]| -> Box<[Value]> {
        let value = |(value, column): (&Value, &crate::model::catalogue::Column)| match column.gone {
            true => Value::Null,
            false => value.clone(),
        };
        row.iter().zip(&shown.columns).map(value).collect()
    };
    let of_shown = |before: &Before| match before {
        Before::Whole(row) => Before::Whole(narrow(row)),
        before => before.clone(),
    };
    let table = shown.id;
    match op {
        Op::Insert { row, .. } => Some(Op::Insert { table, row: narrow(row) }),
        Op::Update { before, row, absent, .. } => {
            let is_there = |at: &&ColumnIndex| shown.columns.get(usize::from(**at)).is_some_and(|c| !c.gone);
            let absent = absent.iter().filter(is_there).copied().collect();
            Some(Op::Update { table, before: of_shown(before), row: narrow(row), absent })
        }
        Op::Delete { before, .. } => Some(Op::Delete { table, before: of_shown(before) }),
        Op::Truncate { .. } => Some(Op::Truncate { tables: vec![table] }),
        _ => None,
    }
}

/// Notes that rows of a table without a version have changed with this one, within the transaction that shows them.
pub(super) fn shown_at(connection: &Connection, table: &Table, version: StateVersion) -> Result<(), Error> {
    connection
        .execute(
            r#"INSERT OR REPLACE INTO "_kelvin.refilled" ("table", version, after) VALUES (?1, ?2, NULL)"#,
            params![table.id.0, version.to_lexi()],
        )
        .doing("noting when a copy was shown")?;
    Ok(())
}

/// Writes that version into some of these rows, within a transaction. Until it is there they count as changed each time that
/// somebody reads them. False: there are none.
pub(super) fn set_some_versions(connection: &Connection, catalogue: &Catalogue) -> Result<bool, Error> {
    let doing = "writing versions of rows that were copied";
    let next = r#"SELECT "table", version, after FROM "_kelvin.refilled" LIMIT 1"#;
    let read = |row: &rusqlite::Row<'_>| {
        Ok((row.get::<_, u16>(0)?, row.get::<_, String>(1)?, row.get::<_, Option<i64>>(2)?))
    };
    let Some((id, version, after)) = connection.query_row(next, [], read).optional().doing(doing)? else {
        return Ok(false);
    };
    let last = match catalogue.find(crate::model::ids::TableId(id)) {
        Some(table) => {
            set_versions_of(connection, table, &version, after.unwrap_or(i64::MIN)).doing(doing)?
        }
        None => None,
    };
    let done = match last {
        Some(last) => {
            let further = r#"UPDATE "_kelvin.refilled" SET after = ?2 WHERE "table" = ?1"#;
            connection.execute(further, params![id, last])
        }
        None => connection.execute(r#"DELETE FROM "_kelvin.refilled" WHERE "table" = ?1"#, [id]),
    };
    done.doing(doing)?;
    Ok(true)
}

/// Returns the last row of the slice; `None`: that was all.
fn set_versions_of(
    connection: &Connection,
    table: &Table,
    version: &str,
    after: i64,
) -> rusqlite::Result<Option<i64>> {
    let (name, rowid) = (quote(&table.stored_name), rowid_name(&table.columns).unwrap_or("rowid"));
    let slice = format!(
        "SELECT max(r) FROM (SELECT {rowid} AS r FROM {name} WHERE {rowid} > ?1 ORDER BY {rowid} LIMIT {SLICE})"
    );
    let last: Option<i64> = connection.query_row(&slice, [after], |row| row.get(0))?;
    if let Some(last) = last {
        let version_of = quote(ROW_VERSION);
        let set = format!(
            "UPDATE {name} SET {version_of} = ?1 WHERE {rowid} > ?2 AND {rowid} <= ?3 AND {version_of} IS NULL"
        );
        connection.execute(&set, params![version, after, last])?;
    }
    Ok(last)
}
