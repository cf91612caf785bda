//! Filters as SQL: one expression, EXISTS included. Names come from the catalogue and are
//! quoted; constants are bound.

use super::ast::{Ast, Condition, Correlated};
use super::builder::Builder;
use super::plan::PlanError;
use super::planner::Planner;
use super::resolved::{Resolved, comparable, correlation, visible_column};
use super::sql::{column, columns, start};
use super::test::{self, Test};
use crate::model::catalogue::{Table, quote};
use crate::model::value::Value;

/// Members of an AND or an OR that are joined in a row. SQLite reads each as one level deeper, and takes a
/// thousand of them: more are put in brackets by halves.
const IN_A_ROW: usize = 32;

/// From where the rows of an EXISTS are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// Some rows are at hand, by their key: each asks for itself.
    Row,
    /// All rows are read. Each asks for itself, unless the app hints at the other way.
    Parent,
    /// The subquery is read first, once, and gives keys by which the rows are found.
    Child,
}

/// A filter under construction: the table that it is about, by its number in the statement.
#[derive(Clone, Copy)]
pub(super) struct Scope<'a> {
    pub table: &'a Table,
    pub alias: usize,
    pub side: Side,
}

impl Planner<'_> {
    /// The filter and the cursor of a query.
    pub(super) fn filter(
        &self,
        sql: &mut Builder,
        ast: &Ast,
        resolved: &Resolved,
        scope: Scope<'_>,
    ) -> Result<(), PlanError> {
        match &ast.condition {
            Some(condition) => self.condition(sql, condition, scope, true)?,
            None => sql.push("TRUE"),
        }
        self.cursor_bound(sql, ast, resolved, scope.alias)
    }

    /// The same, with one of the conditions that all must hold read from another side.
    pub(super) fn filter_from(
        &self,
        sql: &mut Builder,
        ast: &Ast,
        resolved: &Resolved,
        scope: Scope<'_>,
        (which, side): (usize, Side),
    ) -> Result<(), PlanError> {
        joined(sql, " AND ", conjuncts(ast), 0, &mut |sql, at, member| {
            let side = if at == which { side } else { scope.side };
            self.condition(sql, member, Scope { side, ..scope }, true)
        })?;
        self.cursor_bound(sql, ast, resolved, scope.alias)
    }

    fn cursor_bound(
        &self,
        sql: &mut Builder,
        ast: &Ast,
        resolved: &Resolved,
        alias: usize,
    ) -> Result<(), PlanError> {
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
        scope: Scope<'_>,
        conjunctive: bool,
    ) -> Result<(), PlanError> {
        self.check(sql)?;
        match condition {
            Condition::Simple { .. } => {
                test_sql(sql, &self.test(scope.table, condition)?, scope);
                Ok(())
            }
            Condition::And(members) | Condition::Or(members) => {
                let and = matches!(condition, Condition::And(_));
                if members.is_empty() {
                    sql.push(if and { "TRUE" } else { "FALSE" });
                    return Ok(());
                }
                sql.push("(");
                let conjunctive = conjunctive && (and || members.len() == 1);
                let word = if and { " AND " } else { " OR " };
                joined(sql, word, members, 0, &mut |sql, _, member| {
                    self.condition(sql, member, scope, conjunctive)
                })?;
                sql.push(")");
                Ok(())
            }
            Condition::Exists { related, negated, flip } => {
                let hinted = flip.unwrap_or(false) && conjunctive;
                self.exists(sql, related, *negated, hinted, scope)
            }
        }
    }

    fn exists(
        &self,
        sql: &mut Builder,
        related: &Correlated,
        negated: bool,
        hinted: bool,
        scope: Scope<'_>,
    ) -> Result<(), PlanError> {
        let (parent, alias) = (scope.table, scope.alias);
        let resolved = self.resolve(&related.subquery)?;
        let (parents, children) = correlation(parent, resolved.table, related)?;
        let inner = Scope { table: resolved.table, alias: alias + 1, side: Side::Row };
        if resolved.limit == Some(0) || !comparable(parent, &parents, resolved.table, &children) {
            // Still planned, so that a wrong name inside is an error.
            self.filter(&mut self.builder(), &related.subquery, &resolved, inner)?;
            sql.push(if negated { "TRUE" } else { "FALSE" });
            return Ok(());
        }
        let from_child = match scope.side {
            Side::Parent => hinted && !negated,
            Side::Child => !negated,
            Side::Row => false,
        };
        if !from_child && self.reads_by_index(resolved.table, &children) {
            sql.push(&format!(
                "{}EXISTS (SELECT 1 FROM {} AS t{} WHERE ",
                if negated { "NOT " } else { "" },
                quote(&resolved.table.stored_name),
                inner.alias,
            ));
            for (p, c) in parents.iter().zip(&children) {
                let (child, parent) = (column(inner.alias, resolved.table, *c), column(alias, parent, *p));
                sql.push(&format!("{child}={parent} AND "));
            }
            self.filter(sql, &related.subquery, &resolved, inner)?;
            sql.push(")");
            return Ok(());
        }
        // Evaluated once: a set of keys that SQLite may start from.
        if negated {
            let nulls: Vec<String> =
                parents.iter().map(|c| format!("{} IS NULL OR ", column(alias, parent, *c))).collect();
            sql.push(&format!("({}", nulls.concat()));
        }
        let not = if negated { "NOT " } else { "" };
        sql.push(&format!("({}) {not}IN (", columns(alias, parent, &parents)));
        let wanted = columns(inner.alias, resolved.table, &children);
        self.set(sql, &wanted, related, inner.alias, scope.side)?;
        sql.push(if negated { "))" } else { ")" });
        Ok(())
    }

    /// The rows of a subquery, whoever their parents are.
    fn set(
        &self,
        sql: &mut Builder,
        wanted: &str,
        related: &Correlated,
        alias: usize,
        side: Side,
    ) -> Result<(), PlanError> {
        let ast = &related.subquery;
        let resolved = self.resolve(ast)?;
        let table = resolved.table;
        sql.push(&format!("SELECT {wanted} FROM {} AS t{alias} WHERE ", quote(&table.stored_name)));
        for name in &related.child_field {
            let c = visible_column(table, name)?;
            sql.push(&format!("{} IS NOT NULL AND ", column(alias, table, c)));
        }
        // Where its own filter finds few rows these ask for themselves what is below them.
        let side = match side {
            Side::Child if !self.fixes_index(table, ast.condition.as_ref())? => Side::Child,
            _ => Side::Parent,
        };
        self.filter(sql, ast, &resolved, Scope { table, alias, side })
    }

    /// Whether a filter fixes an indexed column.
    fn fixes_index(&self, table: &Table, condition: Option<&Condition>) -> Result<bool, PlanError> {
        let Some(condition) = condition else { return Ok(false) };
        match condition {
            Condition::Simple { .. } => Ok(match self.test(table, condition)? {
                Test::Compare(c, test::Comparison::Equal, _) => table.has_index_on(&[c]),
                _ => false,
            }),
            Condition::And(members) => {
                for member in members {
                    if self.fixes_index(table, Some(member))? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            Condition::Or(members) if members.len() == 1 => self.fixes_index(table, members.first()),
            Condition::Or(_) | Condition::Exists { .. } => Ok(false),
        }
    }
}

/// Members of an AND or an OR, each with its place, counted from `first` on.
fn joined(
    sql: &mut Builder,
    word: &str,
    members: &[Condition],
    first: usize,
    each: &mut dyn FnMut(&mut Builder, usize, &Condition) -> Result<(), PlanError>,
) -> Result<(), PlanError> {
    if members.len() > IN_A_ROW {
        let (left, right) = members.split_at(members.len() / 2);
        sql.push("(");
        joined(sql, word, left, first, each)?;
        sql.push(&format!("){word}("));
        joined(sql, word, right, first + left.len(), each)?;
        sql.push(")");
        return Ok(());
    }
    for (at, member) in members.iter().enumerate() {
        if at > 0 {
            sql.push(word);
        }
        each(sql, first + at, member)?;
    }
    Ok(())
}

/// The conditions of a filter that must all hold.
pub(super) fn conjuncts(ast: &Ast) -> &[Condition] {
    match &ast.condition {
        None => &[],
        Some(Condition::And(members)) => members,
        Some(one) => std::slice::from_ref(one),
    }
}

fn test_sql(sql: &mut Builder, test: &Test, scope: Scope<'_>) {
    let name = |c: &u16| column(scope.alias, scope.table, *c);
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
        Test::In(c, list, negated) => {
            // One bound JSON array keeps the text the same for every length.
            if *negated {
                sql.push(&format!("({} IS NOT NULL AND ", name(c)));
            }
            let not = if *negated { "NOT " } else { "" };
            sql.push(&format!("{} {not}IN (SELECT value FROM json_each(", name(c)));
            sql.bind_text(list.json());
            sql.push(if *negated { ")))" } else { "))" });
        }
        Test::Like { column: c, pattern, fold, negated } => {
            let name = name(c);
            let function = if *fold { "zero_ilike" } else { "zero_like" };
            // What a pattern begins with is a range that an index can find.
            let range = pattern.range().filter(|_| !fold && !negated);
            sql.push(if *negated { "NOT " } else { "(" });
            if let Some((lower, beyond)) = range {
                sql.push(&format!("{name}>="));
                sql.bind(&Value::Text(lower.into()));
                sql.push(" AND ");
                if let Some(beyond) = beyond {
                    sql.push(&format!("{name}<"));
                    sql.bind(&Value::Text(beyond.into()));
                    sql.push(" AND ");
                }
            }
            sql.push(&format!("{function}({name},"));
            sql.bind_text(pattern.text());
            sql.push(if *negated { ")" } else { "))" });
        }
    }
}
