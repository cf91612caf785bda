//! Changes of rows as the stream carries them, as operations on the table that they are of
//! (`docs/spec/replication.md` §10, `docs/spec/schema-changes.md` S7).

use std::borrow::Cow;

use super::pgoutput::{Field, Old, Tuple};
use super::shape::Shape;
use super::stop::Stop;
use super::types::convert;
use crate::model::catalogue::Table;
use crate::model::commit::{Row, RowKey};
use crate::model::ids::TableId;
use crate::model::value::Value;
use crate::replica::work::{Absent, Before, Op};

/// A row that has come. `None`: without some of its values, which nobody else says.
pub fn insert(table: &Table, shape: &Shape, new: &Tuple<'_>) -> Result<Option<Op>, Stop> {
    let came = row(table, shape, new, None)?;
    Ok(came.absent.is_empty().then_some(Op::Insert { table: came.table, row: came.values }))
}

/// A row that has changed.
pub fn update(table: &Table, shape: &Shape, old: Option<&Old<'_>>, new: &Tuple<'_>) -> Result<Op, Stop> {
    let old_tuple = old.map(|(Old::Key(tuple) | Old::Full(tuple))| tuple);
    let mut changed = row(table, shape, new, old_tuple)?;
    let found = match old.zip(old_tuple) {
        None => Before::SameKey,
        Some((old, old_tuple)) => {
            fill(table, shape, old_tuple, matches!(old, Old::Full(_)), &mut changed)?;
            before(table, shape, old)?
        }
    };
    changed.absent.extend_from_slice(&shape.lacking);
    Ok(Op::Update { table: changed.table, before: found, row: changed.values, absent: changed.absent })
}

/// A row that has gone.
pub fn delete(table: &Table, shape: &Shape, old: &Old<'_>) -> Result<Op, Stop> {
    Ok(Op::Delete { table: table.id, before: before(table, shape, old)? })
}

/// Takes values that the new row does not carry from the old one: all of them if it
/// was sent in full, those of the key otherwise.
fn fill(
    table: &Table,
    shape: &Shape,
    old: &Tuple<'_>,
    full: bool,
    converted: &mut Converted,
) -> Result<(), Stop> {
    if converted.absent.is_empty() {
        return Ok(());
    }
    let earlier = row(table, shape, old, None)?;
    let key = &table.row_key;
    let values = &mut converted.values;
    converted.absent.retain(|column| {
        let known = full || key.contains(column);
        if known {
            values[*column as usize] = earlier.values[*column as usize].clone();
        }
        !known
    });
    Ok(())
}

/// How to find the row that changed.
fn before(table: &Table, shape: &Shape, old: &Old<'_>) -> Result<Before, Stop> {
    let (Old::Key(tuple) | Old::Full(tuple)) = old;
    let earlier = row(table, shape, tuple, None)?;
    if table.row_key.is_empty() {
        return match old {
            Old::Full(_) => Ok(Before::Whole(earlier.values)),
            Old::Key(_) => Err(Stop::Protocol(format!("a key for table {}, which has none", table.name))),
        };
    }
    let key: RowKey = table.row_key.iter().map(|c| earlier.values[*c as usize].clone()).collect();
    Ok(Before::Key(key))
}

/// `old`: has the values of the key that did not change and were not sent.
fn row(table: &Table, shape: &Shape, tuple: &Tuple<'_>, old: Option<&Tuple<'_>>) -> Result<Converted, Stop> {
    if shape.columns.len() != tuple.len() {
        return Err(Stop::Protocol(format!("a row of {} with {} columns", table.name, tuple.len())));
    }
    let mut absent = Absent::new();
    let mut values = vec![Value::Null; table.columns.len()];
    for (field, place) in tuple.iter().zip(&shape.columns) {
        let Some((at, kind)) = place else { continue };
        match field {
            Field::Null => {}
            Field::Unchanged => absent.push(*at),
            Field::Text(text) => {
                let value = convert(*kind, Cow::Borrowed(text)).map_err(|source| Stop::Value {
                    column: format!("{}.{}", table.name, table.columns[usize::from(*at)].name),
                    source,
                })?;
                values[usize::from(*at)] = value.into_value();
            }
        }
    }
    if let Some(at) = table.exact_key() {
        values[usize::from(at)] = Value::Text(shape.exact_key(table, tuple, old).into());
    }
    for at in &shape.lacking {
        values[usize::from(*at)] = table.columns[usize::from(*at)].missing.clone();
    }
    Ok(Converted { table: table.id, values: values.into_boxed_slice(), absent })
}

struct Converted {
    table: TableId,
    values: Row,
    absent: Absent,
}
