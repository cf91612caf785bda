//! Statements of a plan. Names come from the catalogue and are quoted; constants are bound.
//!
//! The whole filter, EXISTS included, is one SQL expression ([`super::filter`]), so SQLite decides
//! membership with its indexes; ordering and limits are its business too.

use std::sync::Arc;

use super::ast::{Ast, Direction};
use super::builder::{Builder, Statement};
use super::driving::Once;
use super::filter::{Scope, Side};
use super::plan::{Kind, MAX_WITNESSES, PlanError};
use super::planner::Planner;
use super::predicate::Predicate;
use super::resolved::{Resolved, cursor};
use super::test::Test;
use crate::model::catalogue::{ColumnIndex, Table, quote};
use crate::model::value::Value;
use crate::replica::schema::value_of;

/// The version of a row (`docs/spec/replication.md` §7.1), quoted.
const VERSION: &str = "\"_0_version\"";

/// How a node's rows are read.
#[derive(Debug, Clone)]
pub enum Statements {
    /// The root: no variable parameters.
    Once(Once),
    /// One execution per key of the parent; the variable parameters are the key.
    PerKey(Statement),
    /// One execution for all keys, given as one JSON array of arrays: the correlated
    /// columns have no index, and a scan for every parent would be ruinous.
    Batch(Statement),
    /// Witnesses: `fill` lists the first rows for a key, `holds` tells whether a row with
    /// a given key is still one (variable parameters: parent key, then row key).
    Witness {
        /// First rows by key order.
        fill: Statement,
        /// Is this row one?
        holds: Statement,
    },
    /// Can have no rows.
    Never,
}

/// The rows of a limited node after a certain position: one statement for each pattern of NULLs
/// in the position.
#[derive(Debug, Clone)]
pub struct Refill {
    body: Statement,
    order: Vec<OrderColumn>,
    order_by: Arc<str>,
}

/// A column of an order: how SQL names it.
#[derive(Debug, Clone)]
struct OrderColumn {
    name: String,
    direction: Direction,
    not_null: bool,
}

impl Refill {
    /// Its texts, to be shared.
    pub(super) fn texts(&mut self) -> impl Iterator<Item = &mut Arc<str>> {
        [&mut self.body.text, &mut self.order_by].into_iter()
    }

    /// Reads up to `count` rows. The key of the parent is the variable parameter.
    pub fn after(&self, position: &[Value], count: u64) -> Statement {
        let mut sql = Builder::after(&self.body);
        sql.push(" AND ");
        after(&mut sql, &self.order, position, true);
        sql.push(&self.order_by);
        sql.push(" LIMIT ");
        sql.bind(&Value::Integer(count as i64));
        sql.finish()
    }
}

pub(super) fn column(alias: usize, table: &Table, index: ColumnIndex) -> String {
    format!("t{alias}.{}", quote(&table.columns[index as usize].stored_name))
}

pub(super) fn columns(alias: usize, table: &Table, indexes: &[ColumnIndex]) -> String {
    let names: Vec<String> = indexes.iter().map(|i| column(alias, table, *i)).collect();
    names.join(",")
}

impl Planner<'_> {
    pub(super) fn statements(
        &self,
        ast: &Ast,
        resolved: &Resolved,
        kind: Kind,
        child_columns: &[ColumnIndex],
        filter: &Predicate,
    ) -> Result<Statements, PlanError> {
        // Planned in any case: a wrong name is an error even in a query without rows.
        let body = |key: &[ColumnIndex]| self.body(ast, resolved, key, Side::Row);
        let never = *filter == Predicate::Test(Test::Constant(false)) || resolved.limit == Some(0);
        let table = resolved.table;
        let statements = match kind {
            Kind::Root => Statements::Once(self.once(ast, resolved, filter)?),
            Kind::Related if self.reads_by_index(table, child_columns) => {
                Statements::PerKey(self.ordered(body(child_columns)?, resolved, resolved.limit)?)
            }
            Kind::Related => Statements::Batch(self.batch(ast, resolved, child_columns)?),
            Kind::Witness => {
                let by_key = Resolved {
                    table,
                    order: resolved.key.iter().map(|c| (*c, Direction::Ascending)).collect(),
                    key: resolved.key.clone(),
                    limit: None,
                };
                let fill = self.ordered(body(child_columns)?, &by_key, Some(MAX_WITNESSES as u64))?;
                let both: Vec<ColumnIndex> =
                    child_columns.iter().chain(resolved.key.iter()).copied().collect();
                Statements::Witness { fill, holds: self.finish(body(&both)?)? }
            }
        };
        Ok(if never { Statements::Never } else { statements })
    }

    /// Whether the row with a given key passes the filter and the cursor: one row if it does.
    pub(super) fn holds(&self, ast: &Ast, resolved: &Resolved) -> Result<Statement, PlanError> {
        self.finish(self.select("1", ast, resolved, &resolved.key, Side::Row)?)
    }

    /// The row with a given key.
    pub(super) fn lookup(&self, resolved: &Resolved) -> Result<Statement, PlanError> {
        let table = resolved.table;
        let visible: Vec<ColumnIndex> = table.visible_columns().map(|(i, _)| i).collect();
        let mut sql = self.builder();
        sql.push(&format!(
            "SELECT {} FROM {} AS t0 WHERE ",
            columns(0, table, &visible),
            quote(&table.stored_name)
        ));
        sql.push(&equal(table, &resolved.key));
        self.finish(sql)
    }

    /// Rows of a limited node after those that it has.
    pub(super) fn refill(
        &self,
        ast: &Ast,
        resolved: &Resolved,
        child_columns: &[ColumnIndex],
    ) -> Result<Refill, PlanError> {
        // It reads on in the order, unless the app hints at the other way.
        let side = if child_columns.is_empty() { Side::Parent } else { Side::Row };
        let body = self.finish(self.body(ast, resolved, child_columns, side)?)?;
        let order_by: Arc<str> = format!(" ORDER BY {}", order_by(0, resolved)).into();
        self.charge_text(order_by.len())?;
        Ok(Refill { body, order: order_columns(0, resolved), order_by })
    }

    /// `SELECT visible columns, version FROM table WHERE key = ? … AND filter AND start`.
    fn body(
        &self,
        ast: &Ast,
        resolved: &Resolved,
        key: &[ColumnIndex],
        side: Side,
    ) -> Result<Builder<'_>, PlanError> {
        self.select(&wanted(resolved.table), ast, resolved, key, side)
    }

    /// The same with other columns.
    pub(super) fn select(
        &self,
        wanted: &str,
        ast: &Ast,
        resolved: &Resolved,
        key: &[ColumnIndex],
        side: Side,
    ) -> Result<Builder<'_>, PlanError> {
        let table = resolved.table;
        let mut sql = self.builder();
        sql.push(&format!("SELECT {wanted} FROM {} AS t0 WHERE ", quote(&table.stored_name)));
        for c in key {
            sql.push(&format!("{}=? AND ", column(0, table, *c)));
        }
        self.filter(&mut sql, ast, resolved, Scope { table, alias: 0, side })?;
        Ok(sql)
    }

    /// Adds `ORDER BY` and `LIMIT`.
    pub(super) fn ordered(
        &self,
        mut sql: Builder,
        resolved: &Resolved,
        limit: Option<u64>,
    ) -> Result<Statement, PlanError> {
        // Without a limit the order of rows does not matter: a view is a set.
        if let Some(limit) = limit {
            sql.push(" ORDER BY ");
            sql.push(&order_by(0, resolved));
            sql.push(" LIMIT ");
            sql.bind(&Value::Integer(limit as i64));
        }
        self.finish(sql)
    }

    fn batch(&self, ast: &Ast, resolved: &Resolved, key: &[ColumnIndex]) -> Result<Statement, PlanError> {
        let table = resolved.table;
        let visible: Vec<ColumnIndex> = table.visible_columns().map(|(i, _)| i).collect();
        let mut sql = self.builder();
        let names = columns(0, table, &visible);
        if resolved.limit.is_some() {
            let outer: Vec<String> =
                visible.iter().map(|c| quote(&table.columns[*c as usize].stored_name)).collect();
            sql.push(&format!(
                "SELECT {},{VERSION} FROM (SELECT {names},t0.{VERSION}, row_number() OVER (PARTITION BY {} ORDER BY {}) AS \"_0_rank\" ",
                outer.join(","),
                columns(0, table, key),
                order_by(0, resolved),
            ));
        } else {
            sql.push(&format!("SELECT {names},t0.{VERSION} "));
        }
        let parts: Vec<String> = (0..key.len()).map(|i| format!("json_extract(value,'$[{i}]')")).collect();
        sql.push(&format!(
            "FROM {} AS t0 WHERE ({}) IN (SELECT {} FROM json_each(?)) AND ",
            quote(&table.stored_name),
            columns(0, table, key),
            parts.join(","),
        ));
        self.filter(&mut sql, ast, resolved, Scope { table, alias: 0, side: Side::Row })?;
        if let Some(limit) = resolved.limit {
            sql.push(") WHERE \"_0_rank\"<=");
            sql.bind(&Value::Integer(limit as i64));
            // Whoever keeps a window takes the last row of each key for its end.
            sql.push(" ORDER BY \"_0_rank\"");
        }
        self.finish(sql)
    }
}

/// What clients may see of a row of a statement's first table, and its version.
pub(super) fn wanted(table: &Table) -> String {
    let visible: Vec<ColumnIndex> = table.visible_columns().map(|(i, _)| i).collect();
    format!("{},t0.{VERSION}", columns(0, table, &visible))
}

/// Rows of a table with given values in some columns, all columns of them. The last
/// parameter is the number of rows that is enough.
pub(super) fn parents(table: &Table, key: &[ColumnIndex]) -> Arc<str> {
    let name = quote(&table.stored_name);
    let all: Vec<String> = table.columns.iter().map(value_of).collect();
    let columns = all.join(",");
    format!("SELECT {columns} FROM {name} AS t0 WHERE {} LIMIT ?", equal(table, key)).into()
}

fn equal(table: &Table, key: &[ColumnIndex]) -> String {
    key.iter().map(|c| format!("{}=?", column(0, table, *c))).collect::<Vec<_>>().join(" AND ")
}

fn order_by(alias: usize, resolved: &Resolved) -> String {
    let parts: Vec<String> = resolved
        .order
        .iter()
        .map(|(c, direction)| {
            let suffix = if *direction == Direction::Descending { " DESC" } else { "" };
            format!("{}{suffix}", column(alias, resolved.table, *c))
        })
        .collect();
    parts.join(",")
}

/// A JSON array of stored values, for `json_each`.
pub fn json_array(values: &[Value]) -> String {
    let items: Vec<String> = values.iter().map(json_value).collect();
    format!("[{}]", items.join(","))
}

fn json_value(value: &Value) -> String {
    match value {
        Value::Integer(i) => i.to_string(),
        // Debug form keeps a decimal point or an exponent, so SQLite reads a REAL.
        Value::Real(r) if r.is_finite() => format!("{r:?}"),
        Value::Text(text) => serde_json::to_string(text).unwrap_or_default(),
        _ => "null".to_owned(),
    }
}

/// Rows at or after the cursor, null first (`docs/spec/zql.md` §15.1).
pub(super) fn start(
    sql: &mut Builder,
    ast: &Ast,
    resolved: &Resolved,
    alias: usize,
) -> Result<(), PlanError> {
    if let Some(cursor) = cursor(ast, resolved)? {
        after(sql, &order_columns(alias, resolved), &cursor.position, cursor.exclusive);
    }
    Ok(())
}

fn order_columns(alias: usize, resolved: &Resolved) -> Vec<OrderColumn> {
    let of = |(c, direction): &(ColumnIndex, Direction)| OrderColumn {
        name: column(alias, resolved.table, *c),
        direction: *direction,
        not_null: resolved.table.columns[*c as usize].not_null,
    };
    resolved.order.iter().map(of).collect()
}

/// Rows after a position; `exclusive`: not the row at the position itself. Each column is named a
/// fixed number of times, so that the text is linear in the order.
fn after(sql: &mut Builder, order: &[OrderColumn], position: &[Value], exclusive: bool) {
    leading_bound(sql, &order[0], &position[0]);
    let last = order.len() - 1;
    for (at, (column, value)) in order.iter().zip(position).enumerate() {
        sql.push("(");
        strictly_after(sql, column, value);
        if at < last || !exclusive {
            sql.push(&format!(" OR ({} IS ", column.name));
            sql.bind(value);
        }
        if at < last {
            sql.push(" AND ");
        }
    }
    // A row that is equal in all columns but the last is inside of so many brackets.
    let open = if exclusive { 2 * last + 1 } else { 2 * last + 2 };
    sql.push(&")".repeat(open));
}

/// A bound on the first column alone, which an index can use.
fn leading_bound(sql: &mut Builder, column: &OrderColumn, value: &Value) {
    let descending = column.direction == Direction::Descending;
    if value.is_null() || (descending && !column.not_null) {
        return;
    }
    sql.push(&format!("{}{}", column.name, if descending { "<=" } else { ">=" }));
    sql.bind(value);
    sql.push(" AND ");
}

fn strictly_after(sql: &mut Builder, column: &OrderColumn, value: &Value) {
    let name = &column.name;
    match (column.direction, value.is_null()) {
        (Direction::Ascending, true) => sql.push(&format!("{name} IS NOT NULL")),
        (Direction::Ascending, false) => {
            sql.push(&format!("{name}>"));
            sql.bind(value);
        }
        // Null is last in descending order: nothing comes after it.
        (Direction::Descending, true) => sql.push("FALSE"),
        (Direction::Descending, false) => {
            sql.push(&format!("({name} IS NULL OR {name}<"));
            sql.bind(value);
            sql.push(")");
        }
    }
}
