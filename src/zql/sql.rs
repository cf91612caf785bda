//! Statements of a plan. Names come from the catalogue and are quoted; constants are bound.
//!
//! The whole filter, EXISTS included, is one SQL expression, so SQLite decides membership
//! with its indexes; ordering and limits are its business too.

use std::sync::Arc;

use super::ast::{Ast, Condition, Correlated, Direction};
use super::plan::{Kind, MAX_WITNESSES, PlanError};
use super::planner::{Planner, Resolved, comparable, correlation, cursor};
use super::predicate::Predicate;
use super::test::{self, Test};
use crate::replica::catalogue::{ColumnIndex, Table, quote};
use crate::replica::value::Value;

/// The version of a row (`docs/spec/replication.md` §7.1), quoted.
const VERSION: &str = "\"_0_version\"";

/// SQL text and the constants bound after the variable parameters.
#[derive(Debug, Clone)]
pub struct Statement {
    /// Text; equal for all queries of one shape, so that prepared statements are shared.
    pub text: Arc<str>,
    /// Constants, in order, after the variable ones.
    pub constants: Arc<[Value]>,
}

/// How a node's rows are read.
#[derive(Debug, Clone)]
pub enum Statements {
    /// The root: no variable parameters.
    Once(Statement),
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
        let mut sql = Builder { text: self.body.text.to_string(), constants: self.body.constants.to_vec() };
        sql.push(" AND ");
        after(&mut sql, &self.order, position, true);
        sql.push(&self.order_by);
        sql.push(" LIMIT ");
        sql.bind(&Value::Integer(count as i64));
        sql.finish()
    }
}

/// Text under construction with its constants.
#[derive(Default)]
struct Builder {
    text: String,
    constants: Vec<Value>,
}

impl Builder {
    fn push(&mut self, text: &str) {
        self.text.push_str(text);
    }

    fn bind(&mut self, value: &Value) {
        self.text.push('?');
        self.constants.push(value.clone());
    }

    fn finish(self) -> Statement {
        Statement { text: self.text.into(), constants: self.constants.into() }
    }
}

fn column(alias: usize, table: &Table, index: ColumnIndex) -> String {
    format!("t{alias}.{}", quote(&table.columns[index as usize].name))
}

fn columns(alias: usize, table: &Table, indexes: &[ColumnIndex]) -> String {
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
        let body = |key: &[ColumnIndex]| self.body(ast, resolved, key);
        let never = *filter == Predicate::Test(Test::Constant(false)) || resolved.limit == Some(0);
        let table = resolved.table;
        let statements = match kind {
            Kind::Root => Statements::Once(self.ordered(body(&[])?, resolved, resolved.limit)),
            Kind::Related if self.reads_by_index(table, child_columns) => {
                Statements::PerKey(self.ordered(body(child_columns)?, resolved, resolved.limit))
            }
            Kind::Related => Statements::Batch(self.batch(ast, resolved, child_columns)?),
            Kind::Witness => {
                let by_key = Resolved {
                    table,
                    order: resolved.key.iter().map(|c| (*c, Direction::Ascending)).collect(),
                    key: resolved.key.clone(),
                    limit: None,
                };
                let fill = self.ordered(body(child_columns)?, &by_key, Some(MAX_WITNESSES as u64));
                let both: Vec<ColumnIndex> =
                    child_columns.iter().chain(resolved.key.iter()).copied().collect();
                Statements::Witness { fill, holds: body(&both)?.finish() }
            }
        };
        Ok(if never { Statements::Never } else { statements })
    }

    /// Whether the row with a given key passes the filter and the cursor: one row if it does.
    pub(super) fn holds(&self, ast: &Ast, resolved: &Resolved) -> Result<Statement, PlanError> {
        Ok(self.select("1", ast, resolved, &resolved.key)?.finish())
    }

    /// The row with a given key.
    pub(super) fn lookup(&self, resolved: &Resolved) -> Statement {
        let table = resolved.table;
        let visible: Vec<ColumnIndex> = table.visible_columns().map(|(i, _)| i).collect();
        let mut sql = Builder::default();
        sql.push(&format!("SELECT {} FROM {} AS t0 WHERE ", columns(0, table, &visible), quote(&table.name)));
        sql.push(&equal(table, &resolved.key));
        sql.finish()
    }

    /// Rows of a limited node after those that it has.
    pub(super) fn refill(
        &self,
        ast: &Ast,
        resolved: &Resolved,
        child_columns: &[ColumnIndex],
    ) -> Result<Refill, PlanError> {
        let body = self.body(ast, resolved, child_columns)?.finish();
        let order_by = format!(" ORDER BY {}", order_by(0, resolved)).into();
        Ok(Refill { body, order: order_columns(0, resolved), order_by })
    }

    /// `SELECT visible columns, version FROM table WHERE key = ? … AND filter AND start`.
    fn body(&self, ast: &Ast, resolved: &Resolved, key: &[ColumnIndex]) -> Result<Builder, PlanError> {
        let table = resolved.table;
        let visible: Vec<ColumnIndex> = table.visible_columns().map(|(i, _)| i).collect();
        let wanted = format!("{},t0.{VERSION}", columns(0, table, &visible));
        self.select(&wanted, ast, resolved, key)
    }

    /// The same with other columns.
    fn select(
        &self,
        wanted: &str,
        ast: &Ast,
        resolved: &Resolved,
        key: &[ColumnIndex],
    ) -> Result<Builder, PlanError> {
        let table = resolved.table;
        let mut sql = Builder::default();
        sql.push(&format!("SELECT {wanted} FROM {} AS t0 WHERE ", quote(&table.name)));
        for c in key {
            sql.push(&format!("{}=? AND ", column(0, table, *c)));
        }
        self.filter(&mut sql, ast, resolved, 0)?;
        Ok(sql)
    }

    /// Adds `ORDER BY` and `LIMIT`.
    fn ordered(&self, mut sql: Builder, resolved: &Resolved, limit: Option<u64>) -> Statement {
        // Without a limit the order of rows does not matter: a view is a set.
        if let Some(limit) = limit {
            sql.push(" ORDER BY ");
            sql.push(&order_by(0, resolved));
            sql.push(" LIMIT ");
            sql.bind(&Value::Integer(limit as i64));
        }
        sql.finish()
    }

    fn batch(&self, ast: &Ast, resolved: &Resolved, key: &[ColumnIndex]) -> Result<Statement, PlanError> {
        let table = resolved.table;
        let visible: Vec<ColumnIndex> = table.visible_columns().map(|(i, _)| i).collect();
        let mut sql = Builder::default();
        let names = columns(0, table, &visible);
        if resolved.limit.is_some() {
            let outer: Vec<String> =
                visible.iter().map(|c| quote(&table.columns[*c as usize].name)).collect();
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
            quote(&table.name),
            columns(0, table, key),
            parts.join(","),
        ));
        self.filter(&mut sql, ast, resolved, 0)?;
        if let Some(limit) = resolved.limit {
            sql.push(") WHERE \"_0_rank\"<=");
            sql.bind(&Value::Integer(limit as i64));
            // Whoever keeps a window takes the last row of each key for its end.
            sql.push(" ORDER BY \"_0_rank\"");
        }
        Ok(sql.finish())
    }

    fn filter(
        &self,
        sql: &mut Builder,
        ast: &Ast,
        resolved: &Resolved,
        alias: usize,
    ) -> Result<(), PlanError> {
        match &ast.condition {
            Some(condition) => self.condition(sql, condition, resolved.table, alias, true)?,
            None => sql.push("TRUE"),
        }
        if ast.start.is_some() {
            sql.push(" AND ");
            start(sql, ast, resolved, alias)?;
        }
        Ok(())
    }

    /// `conjunctive`: the condition must hold for every row, so SQLite may drive from it.
    fn condition(
        &self,
        sql: &mut Builder,
        condition: &Condition,
        table: &Table,
        alias: usize,
        conjunctive: bool,
    ) -> Result<(), PlanError> {
        match condition {
            Condition::Simple { op, left, right } => {
                test_sql(sql, &test::resolve(table, *op, left, right)?, table, alias);
                Ok(())
            }
            Condition::And(members) | Condition::Or(members) => {
                let and = matches!(condition, Condition::And(_));
                if members.is_empty() {
                    sql.push(if and { "TRUE" } else { "FALSE" });
                    return Ok(());
                }
                sql.push("(");
                for (i, member) in members.iter().enumerate() {
                    if i > 0 {
                        sql.push(if and { " AND " } else { " OR " });
                    }
                    self.condition(sql, member, table, alias, conjunctive && (and || members.len() == 1))?;
                }
                sql.push(")");
                Ok(())
            }
            Condition::Exists { related, negated, flip } => {
                self.exists(sql, related, *negated, flip.unwrap_or(false) && conjunctive, table, alias)
            }
        }
    }

    fn exists(
        &self,
        sql: &mut Builder,
        related: &Correlated,
        negated: bool,
        flip: bool,
        parent: &Table,
        alias: usize,
    ) -> Result<(), PlanError> {
        let resolved = self.resolve(&related.subquery)?;
        let (parents, children) = correlation(parent, resolved.table, related)?;
        if resolved.limit == Some(0) || !comparable(parent, &parents, resolved.table, &children) {
            // Still planned, so that a wrong name inside is an error.
            self.filter(&mut Builder::default(), &related.subquery, &resolved, alias + 1)?;
            sql.push(if negated { "TRUE" } else { "FALSE" });
            return Ok(());
        }
        let from_child = !self.reads_by_index(resolved.table, &children)
            || (!negated && (flip || self.is_selective(&related.subquery)?));
        let inner = alias + 1;
        if from_child {
            // Evaluated once: a set of keys that SQLite may start from.
            if negated {
                let nulls: Vec<String> =
                    parents.iter().map(|c| format!("{} IS NULL OR ", column(alias, parent, *c))).collect();
                sql.push(&format!("({}", nulls.concat()));
            }
            sql.push(&format!(
                "({}) {}IN (SELECT {} FROM {} AS t{inner} WHERE ",
                columns(alias, parent, &parents),
                if negated { "NOT " } else { "" },
                columns(inner, resolved.table, &children),
                quote(&resolved.table.name),
            ));
            for c in &children {
                sql.push(&format!("{} IS NOT NULL AND ", column(inner, resolved.table, *c)));
            }
        } else {
            sql.push(&format!(
                "{}EXISTS (SELECT 1 FROM {} AS t{inner} WHERE ",
                if negated { "NOT " } else { "" },
                quote(&resolved.table.name),
            ));
            for (p, c) in parents.iter().zip(&children) {
                sql.push(&format!(
                    "{}={} AND ",
                    column(inner, resolved.table, *c),
                    column(alias, parent, *p)
                ));
            }
        }
        self.filter(sql, &related.subquery, &resolved, inner)?;
        sql.push(if from_child && negated { "))" } else { ")" });
        Ok(())
    }

    /// Whether a subquery is likely to have few rows: it fixes an indexed column.
    fn is_selective(&self, ast: &Ast) -> Result<bool, PlanError> {
        let table = self.table(&ast.table)?;
        match &ast.condition {
            Some(condition) => self.fixes_index(table, condition),
            None => Ok(false),
        }
    }

    fn fixes_index(&self, table: &Table, condition: &Condition) -> Result<bool, PlanError> {
        match condition {
            Condition::Simple { op, left, right } => {
                let resolved = test::resolve(table, *op, left, right)?;
                Ok(match resolved {
                    Test::Compare(c, test::Comparison::Equal, _) => table.has_index_on(&[c]),
                    _ => false,
                })
            }
            Condition::And(members) => {
                for member in members {
                    if self.fixes_index(table, member)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            Condition::Or(members) if members.len() == 1 => self.fixes_index(table, &members[0]),
            Condition::Or(_) => Ok(false),
            Condition::Exists { related, negated: false, .. } => {
                let child = self.table(&related.subquery.table)?;
                let (parents, _) = correlation(table, child, related)?;
                Ok(table.has_index_on(&parents) && self.is_selective(&related.subquery)?)
            }
            Condition::Exists { .. } => Ok(false),
        }
    }
}

/// Rows of a table with given values in some columns, all columns of them. The last
/// parameter is the number of rows that is enough.
pub(super) fn parents(table: &Table, key: &[ColumnIndex]) -> Arc<str> {
    let all: Vec<ColumnIndex> = (0..table.columns.len() as ColumnIndex).collect();
    let (columns, name) = (columns(0, table, &all), quote(&table.name));
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

fn test_sql(sql: &mut Builder, test: &Test, table: &Table, alias: usize) {
    let name = |c: &ColumnIndex| column(alias, table, *c);
    match test {
        Test::Constant(value) => sql.push(if *value { "TRUE" } else { "FALSE" }),
        Test::IsNull(c) => sql.push(&format!("{} IS NULL", name(c))),
        Test::IsNotNull(c) => sql.push(&format!("{} IS NOT NULL", name(c))),
        Test::Compare(c, comparison, value) => {
            sql.push(&format!("{}{}", name(c), comparison.sql()));
            sql.bind(value);
        }
        Test::IsNot(c, value) => {
            sql.push(&format!("{} IS NOT ", name(c)));
            sql.bind(value);
        }
        Test::In(c, values, negated) => {
            // One bound JSON array keeps the text the same for every length.
            if *negated {
                sql.push(&format!("({} IS NOT NULL AND ", name(c)));
            }
            let not = if *negated { "NOT " } else { "" };
            sql.push(&format!("{} {not}IN (SELECT value FROM json_each(", name(c)));
            sql.bind(&Value::Text(json_array(values).into()));
            sql.push(if *negated { ")))" } else { "))" });
        }
        Test::Like { column: c, pattern, fold, negated } => {
            let not = if *negated { "NOT " } else { "" };
            if *fold {
                sql.push(&format!("zero_lower({}) {not}LIKE ", name(c)));
            } else {
                sql.push(&format!("{} {not}LIKE ", name(c)));
            }
            sql.bind(&Value::Text(pattern.as_str().into()));
            sql.push(" ESCAPE '\\'");
        }
    }
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
fn start(sql: &mut Builder, ast: &Ast, resolved: &Resolved, alias: usize) -> Result<(), PlanError> {
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

/// Rows after a position; `exclusive`: not the row at the position itself.
fn after(sql: &mut Builder, order: &[OrderColumn], position: &[Value], exclusive: bool) {
    leading_bound(sql, &order[0], &position[0]);
    sql.push("(");
    for i in 0..order.len() {
        if i > 0 {
            sql.push(" OR ");
        }
        sql.push("(");
        equal_prefix(sql, &order[..i], position);
        strictly_after(sql, &order[i], &position[i]);
        sql.push(")");
    }
    if !exclusive {
        sql.push(" OR (");
        equal_prefix(sql, order, position);
        sql.push("TRUE)");
    }
    sql.push(")");
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

fn equal_prefix(sql: &mut Builder, order: &[OrderColumn], position: &[Value]) {
    for (column, value) in order.iter().zip(position) {
        sql.push(&format!("{} IS ", column.name));
        sql.bind(value);
        sql.push(" AND ");
    }
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
