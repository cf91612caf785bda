//! Names of a query as the catalogue knows them, and its values as they are stored.

use std::sync::Arc;

use super::ast::{Ast, Correlated, Direction, Literal};
use super::order::Cursor;
use super::plan::PlanError;
use super::test;
use crate::model::catalogue::{ColumnIndex, Table};
use crate::model::value::Value;

/// A subquery with its correlation resolved.
pub(super) struct Resolved<'a> {
    pub table: &'a Table,
    pub order: Vec<(ColumnIndex, Direction)>,
    pub key: Arc<[ColumnIndex]>,
    pub limit: Option<u64>,
}

/// The limit of a node. A limit that is not an integer never stops anything
/// (`docs/spec/zql.md` §3.4).
pub(super) fn limit(ast: &Ast) -> Result<Option<u64>, PlanError> {
    match ast.limit {
        None => Ok(None),
        Some(limit) if limit < 0.0 || limit.is_nan() => {
            Err(PlanError::new(format!("limit {limit} is below zero")))
        }
        Some(limit) if limit.fract() != 0.0 || limit > 1e15 => Ok(None),
        Some(limit) => Ok(Some(limit as u64)),
    }
}

/// Resolves a column that clients may see.
pub(super) fn visible_column(table: &Table, name: &str) -> Result<ColumnIndex, PlanError> {
    let found = table.column(name).filter(|c| table.columns[*c as usize].zero_type.is_some());
    found.ok_or_else(|| PlanError::new(format!("table \"{}\" has no column \"{name}\"", table.name)))
}

pub(super) fn correlation(
    parent: &Table,
    child: &Table,
    correlated: &Correlated,
) -> Result<(Vec<ColumnIndex>, Vec<ColumnIndex>), PlanError> {
    let parents = correlated.parent_field.iter().map(|n| visible_column(parent, n));
    let children = correlated.child_field.iter().map(|n| visible_column(child, n));
    Ok((parents.collect::<Result<_, _>>()?, children.collect::<Result<_, _>>()?))
}

/// Whether the correlated columns have the same types. Values of different Zero types
/// never match, whatever SQLite would say (rules, 12).
pub(super) fn comparable(
    parent: &Table,
    parent_columns: &[ColumnIndex],
    child: &Table,
    child_columns: &[ColumnIndex],
) -> bool {
    parent_columns
        .iter()
        .zip(child_columns)
        .all(|(p, c)| parent.columns[*p as usize].zero_type == child.columns[*c as usize].zero_type)
}

/// The cursor of a query, with its values as they are stored.
pub(super) fn cursor(ast: &Ast, resolved: &Resolved) -> Result<Option<Cursor>, PlanError> {
    let Some(start) = &ast.start else { return Ok(None) };
    let mut position = Vec::with_capacity(resolved.order.len());
    for (column, _) in &resolved.order {
        let name = &resolved.table.columns[*column as usize].name;
        let given = start.row.iter().find(|(n, _)| n == name).map(|(_, v)| v);
        position.push(cursor_value(resolved.table, *column, given.unwrap_or(&Literal::Null))?);
    }
    Ok(Some(Cursor { position: position.into(), exclusive: start.exclusive }))
}

/// The stored value of a cursor's field.
fn cursor_value(table: &Table, column: ColumnIndex, literal: &Literal) -> Result<Value, PlanError> {
    if *literal == Literal::Null {
        return Ok(Value::Null);
    }
    let definition = &table.columns[column as usize];
    let stored = definition.zero_type.and_then(|t| test::stored(literal, t));
    stored.ok_or_else(|| {
        PlanError::new(format!("the cursor's value for \"{}\" is not of that column's type", definition.name))
    })
}
