//! A query resolved against the catalogue: one statement per node of its tree.
//!
//! Nodes are the root, every `related` subquery, and every EXISTS whose rows clients are
//! sent as witnesses. Node 0 is the root; a node comes after its parent. Whether an EXISTS
//! holds is decided inside its parent's statement; the node only lists its witnesses.

use std::rc::Rc;

use super::ast::{Ast, Condition, Correlated, Direction, System};
use super::canonical::distinct_related;
use super::predicate::Predicate;
use super::sql::Statements;
use super::test;
use crate::replica::catalogue::{Catalogue, ColumnIndex, Table, TableId, ZeroType};
use crate::replica::value::Value;

/// Most rows of an EXISTS that are sent per parent key (ruling 1).
pub const MAX_WITNESSES: usize = 3;

/// Why a query cannot be executed. Named to the app, so it says which name is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanError(pub String);

impl PlanError {
    pub(super) fn new(message: impl Into<String>) -> PlanError {
        PlanError(message.into())
    }
}

impl std::fmt::Display for PlanError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for PlanError {}

/// How clients know the rows of each table.
pub trait Keys {
    /// Key columns that the client schema names, sorted by name; `None` if the client
    /// schema lacks the table, whose rows are then never sent (ruling 8).
    fn client_key(&self, table: &Table) -> Option<Vec<ColumnIndex>>;
}

/// What a node is in its query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The query itself.
    Root,
    /// Rows below each parent row.
    Related,
    /// Up to [`MAX_WITNESSES`] rows that show why an EXISTS holds.
    Witness,
}

/// One node.
#[derive(Debug)]
pub struct Node {
    /// Table that its rows come from.
    pub table: TableId,
    /// Columns that identify a row for clients, sorted by name.
    pub key: Rc<[ColumnIndex]>,
    /// Whether its rows are sent at all.
    pub emitted: bool,
    /// What it is.
    pub kind: Kind,
    /// Position of the parent in [`Plan::nodes`].
    pub parent: Option<usize>,
    /// Positions of its children.
    pub children: Vec<usize>,
    /// Columns of the parent's table that select rows here.
    pub parent_columns: Vec<ColumnIndex>,
    /// Columns of this table that are equal to those.
    pub child_columns: Vec<ColumnIndex>,
    /// Columns that a statement returns, in order: all that clients may see.
    pub columns: Rc<[ColumnIndex]>,
    /// Its statements.
    pub statements: Statements,
    /// Part of the filter that one row alone decides.
    pub filter: Predicate,
    /// Columns whose change can move a row in or out of the result, or change what is
    /// below it. A change of any other column only changes contents.
    pub structural: Vec<ColumnIndex>,
}

impl Node {
    /// Where a statement's rows have this column.
    pub fn position(&self, column: ColumnIndex) -> usize {
        self.columns.binary_search(&column).unwrap_or(usize::MAX)
    }
}

/// A query that can be executed at one schema epoch.
#[derive(Debug)]
pub struct Plan {
    /// The tree; parents first.
    pub nodes: Vec<Node>,
    /// Conditions that no node stands for: their rows decide, but nobody is sent them.
    pub watches: Vec<Watch>,
    /// Every table that the answer depends on, witnesses and conditions included.
    pub tables: Vec<TableId>,
}

/// A condition whose rows are never sent: a NOT EXISTS that must hold, a permission rule.
#[derive(Debug)]
pub struct Watch {
    /// Table of the subquery.
    pub table: TableId,
    /// Part of its filter that one row alone decides.
    pub filter: Predicate,
    /// Columns whose change can change whether a row counts, and for which parent.
    pub structural: Vec<ColumnIndex>,
}

/// Resolves a query.
pub fn plan(ast: &Ast, catalogue: &Catalogue, keys: &dyn Keys) -> Result<Plan, PlanError> {
    let mut planner = Planner { catalogue, keys, nodes: Vec::new(), watches: Vec::new(), tables: Vec::new() };
    planner.node(ast, Kind::Root, None, true)?;
    planner.tables.sort_unstable();
    planner.tables.dedup();
    Ok(Plan { nodes: planner.nodes, watches: planner.watches, tables: planner.tables })
}

/// A subquery with its correlation resolved.
pub(super) struct Resolved<'a> {
    pub table: &'a Table,
    pub order: Vec<(ColumnIndex, Direction)>,
    pub key: Rc<[ColumnIndex]>,
    pub limit: Option<u64>,
}

pub(super) struct Planner<'a> {
    pub catalogue: &'a Catalogue,
    keys: &'a dyn Keys,
    nodes: Vec<Node>,
    watches: Vec<Watch>,
    tables: Vec<TableId>,
}

/// Where a node hangs.
struct Edge<'e> {
    parent: usize,
    correlated: &'e Correlated,
}

impl<'a> Planner<'a> {
    fn node(&mut self, ast: &Ast, kind: Kind, edge: Option<Edge>, emitted: bool) -> Result<(), PlanError> {
        let resolved = self.resolve(ast)?;
        let table = resolved.table;
        self.tables.push(table.id);
        let (parent, parent_columns, child_columns) = match &edge {
            None => (None, Vec::new(), Vec::new()),
            Some(edge) => {
                let parent_table = self.catalogue.get(self.nodes[edge.parent].table);
                let (parent, child) = correlation(parent_table, table, edge.correlated)?;
                (Some(edge.parent), parent, child)
            }
        };
        let mut filter = self.predicate(table, ast.condition.as_ref())?;
        if let Some(parent) = parent
            && !comparable(
                self.catalogue.get(self.nodes[parent].table),
                &parent_columns,
                table,
                &child_columns,
            )
        {
            filter = Predicate::Test(test::Test::Constant(false));
        }
        let statements = self.statements(ast, &resolved, kind, &child_columns, &filter)?;
        let in_schema = self.keys.client_key(table).is_some();
        let mut structural = self.structural(ast, &resolved, &filter)?;
        structural.extend(&child_columns);
        structural.sort_unstable();
        structural.dedup();
        let index = self.nodes.len();
        self.nodes.push(Node {
            table: table.id,
            key: resolved.key.clone(),
            emitted: emitted && in_schema,
            kind,
            parent,
            children: Vec::new(),
            parent_columns,
            child_columns,
            columns: table.visible_columns().map(|(i, _)| i).collect(),
            statements,
            filter,
            structural,
        });
        if let Some(parent) = parent {
            self.nodes[parent].children.push(index);
        }
        if let Some(condition) = &ast.condition {
            self.witnesses(condition, index, true, emitted)?;
        }
        // What an app relates to rows of an EXISTS is not part of the answer (zql T7).
        if kind != Kind::Witness {
            for child in distinct_related(ast) {
                let emitted = emitted && child.system == System::Client;
                let edge = Edge { parent: index, correlated: child };
                self.node(&child.subquery, Kind::Related, Some(edge), emitted)?;
            }
        }
        Ok(())
    }

    /// Adds a node for every condition whose rows clients are sent. `must_hold`: the
    /// condition holds for every row of the node. `emitted`: no permission rule stands above.
    fn witnesses(
        &mut self,
        condition: &Condition,
        parent: usize,
        must_hold: bool,
        emitted: bool,
    ) -> Result<(), PlanError> {
        match condition {
            Condition::Simple { .. } => Ok(()),
            Condition::And(members) => {
                members.iter().try_for_each(|m| self.witnesses(m, parent, must_hold, emitted))
            }
            Condition::Or(members) => {
                let must_hold = must_hold && members.len() == 1;
                members.iter().try_for_each(|m| self.witnesses(m, parent, must_hold, emitted))
            }
            Condition::Exists { related, negated, .. } => {
                // A NOT EXISTS that holds has no rows; a permission's rows are nobody's.
                if (*negated && must_hold) || related.system == System::Permissions {
                    return self.watch(related);
                }
                let edge = Edge { parent, correlated: related };
                self.node(&related.subquery, Kind::Witness, Some(edge), emitted)
            }
        }
    }

    /// Watches a condition and all conditions inside it.
    fn watch(&mut self, related: &Correlated) -> Result<(), PlanError> {
        let ast = &related.subquery;
        let resolved = self.resolve(ast)?;
        let filter = self.predicate(resolved.table, ast.condition.as_ref())?;
        let mut structural = self.structural(ast, &resolved, &filter)?;
        for name in &related.child_field {
            structural.push(visible_column(resolved.table, name)?);
        }
        self.tables.push(resolved.table.id);
        self.watches.push(Watch { table: resolved.table.id, filter, structural });
        match &ast.condition {
            Some(condition) => self.watch_condition(condition),
            None => Ok(()),
        }
    }

    fn watch_condition(&mut self, condition: &Condition) -> Result<(), PlanError> {
        match condition {
            Condition::Simple { .. } => Ok(()),
            Condition::And(members) | Condition::Or(members) => {
                members.iter().try_for_each(|m| self.watch_condition(m))
            }
            Condition::Exists { related, .. } => self.watch(related),
        }
    }

    pub(super) fn table(&self, name: &str) -> Result<&'a Table, PlanError> {
        let table = self.catalogue.table(name).filter(|t| t.is_syncable());
        table.ok_or_else(|| {
            let known: Vec<&str> =
                self.catalogue.tables.iter().filter(|t| t.is_syncable()).map(|t| t.name.as_str()).collect();
            PlanError::new(format!("table \"{name}\" is not one of \"{}\"", known.join("\", \"")))
        })
    }

    pub(super) fn resolve(&self, ast: &Ast) -> Result<Resolved<'a>, PlanError> {
        let table = self.table(&ast.table)?;
        let mut key = self.keys.client_key(table).unwrap_or_else(|| table.candidate_keys[0].clone());
        key.sort_by(|a, b| table.columns[*a as usize].name.cmp(&table.columns[*b as usize].name));
        let mut order = Vec::with_capacity(ast.order_by.len() + key.len());
        for (name, direction) in &ast.order_by {
            let column = visible_column(table, name)?;
            if table.columns[column as usize].zero_type == Some(ZeroType::Json) {
                return Err(PlanError::new(format!(
                    "cannot order by \"{}\".\"{name}\": JSON values have no order",
                    table.name
                )));
            }
            order.push((column, *direction));
        }
        for column in &key {
            if !order.iter().any(|(c, _)| c == column) {
                order.push((*column, Direction::Ascending));
            }
        }
        Ok(Resolved { table, order, key: key.into(), limit: limit(ast)? })
    }

    fn predicate(&self, table: &Table, condition: Option<&Condition>) -> Result<Predicate, PlanError> {
        let members = |members: &[Condition]| -> Result<Vec<_>, PlanError> {
            members.iter().map(|m| self.predicate(table, Some(m))).collect()
        };
        Ok(match condition {
            None => Predicate::And(Vec::new()),
            Some(Condition::Simple { op, left, right }) => {
                Predicate::Test(test::resolve(table, *op, left, right)?)
            }
            Some(Condition::And(m)) => Predicate::And(members(m)?),
            Some(Condition::Or(m)) => Predicate::Or(members(m)?),
            Some(Condition::Exists { .. }) => Predicate::Unknown,
        })
    }

    fn structural(
        &self,
        ast: &Ast,
        resolved: &Resolved,
        filter: &Predicate,
    ) -> Result<Vec<ColumnIndex>, PlanError> {
        let mut out = resolved.key.to_vec();
        filter.columns(&mut out);
        if resolved.limit.is_some() || ast.start.is_some() {
            out.extend(resolved.order.iter().map(|(c, _)| *c));
        }
        for child in distinct_related(ast) {
            for name in &child.parent_field {
                out.push(visible_column(resolved.table, name)?);
            }
        }
        if let Some(condition) = &ast.condition {
            condition_parents(resolved.table, condition, &mut out)?;
        }
        Ok(out)
    }
}

fn condition_parents(
    table: &Table,
    condition: &Condition,
    out: &mut Vec<ColumnIndex>,
) -> Result<(), PlanError> {
    match condition {
        Condition::Simple { .. } => Ok(()),
        Condition::And(members) | Condition::Or(members) => {
            members.iter().try_for_each(|m| condition_parents(table, m, out))
        }
        Condition::Exists { related, .. } => {
            for name in &related.parent_field {
                out.push(visible_column(table, name)?);
            }
            Ok(())
        }
    }
}

/// The limit of a node. A limit that is not an integer never stops anything
/// (`docs/spec/zql.md` §3.4).
fn limit(ast: &Ast) -> Result<Option<u64>, PlanError> {
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

/// The stored value of a cursor's field.
pub(super) fn cursor_value(
    table: &Table,
    column: ColumnIndex,
    literal: &super::ast::Literal,
) -> Result<Value, PlanError> {
    if *literal == super::ast::Literal::Null {
        return Ok(Value::Null);
    }
    let definition = &table.columns[column as usize];
    let stored = definition.zero_type.and_then(|t| test::stored(literal, t));
    stored.ok_or_else(|| {
        PlanError::new(format!("the cursor's value for \"{}\" is not of that column's type", definition.name))
    })
}
