//! From which side the root of a query with EXISTS is read (decision 009).
//!
//! Newest issues with a label: if many have it, the newest ones are looked at until there are
//! enough; if few have it, those are found by the label and sorted. The wrong way takes a
//! thousand times longer, and which one it is depends on the label: no statistics about all
//! labels tell. So both ways are tried within a few steps of SQLite's machine, and then within more
//! of them, until one of them is over: what is read then costs no more than some such trials.
//! Steps are counted, not timed.

use std::sync::Arc;

use super::ast::{Ast, Condition, Correlated};
use super::builder::Statement;
use super::evaluate::parameters;
use super::filter::{Scope, Side, conjuncts};
use super::plan::PlanError;
use super::planner::Planner;
use super::predicate::Predicate;
use super::resolved::{Resolved, comparable, correlation};
use super::sql::wanted;
use crate::model::catalogue::{Table, quote};
use crate::replica::reader::{ReadError, Reader};

/// Most conditions from which a root may be read.
const MAX_DRIVERS: usize = 4;

/// Steps of SQLite's machine of the first trial: a tenth of a millisecond.
const FIRST: u32 = 8_192;

/// So many times longer is each trial than the one before.
const GROWTH: u32 = 4;

/// Trials: the last one has half a million steps, some eight milliseconds. A query that is not over
/// by then from either side takes so long that trying it out for longer would not be noticed, but
/// it would rarely choose better: there are too many rows on both sides.
const TRIALS: usize = 4;

/// How the root is read.
#[derive(Debug, Clone)]
pub struct Once {
    /// From the table itself; conditions are looked at row by row.
    pub statement: Statement,
    /// Other ways, if there are any.
    pub driving: Option<Arc<Driving>>,
}

/// The other ways, and how to find out whether one of them is better.
#[derive(Debug)]
pub struct Driving {
    /// The statement from the table, without what its rows hold.
    pub trial: Statement,
    /// One for each condition that must hold.
    pub drivers: Vec<Driver>,
}

/// One condition from which the root may be read.
#[derive(Debug)]
pub struct Driver {
    /// The statement without what its rows hold. It is all of it that is tried: a subquery may have few
    /// rows, and each of these many parents.
    pub trial: Statement,
    /// The rows of the root by the keys that these give.
    pub statement: Statement,
}

impl Driving {
    /// All its statements.
    pub fn statements_mut(&mut self) -> impl Iterator<Item = &mut Statement> {
        self.drivers.iter_mut().flat_map(Driver::statements_mut).chain([&mut self.trial])
    }
}

impl Driver {
    fn statements_mut(&mut self) -> impl Iterator<Item = &mut Statement> {
        [&mut self.trial, &mut self.statement].into_iter()
    }
}

impl Once {
    /// How to read the root: the number of the condition to start from, from 1; 0: from the table
    /// itself. It depends on the data, never on the clock.
    pub fn choose(&self, reader: &Reader) -> Result<usize, ReadError> {
        let Some(driving) = self.driving.as_deref().filter(|_| reader.may_try()) else {
            return Ok(0);
        };
        let mut steps = FIRST;
        for _ in 0..TRIALS {
            if is_over(reader, &driving.trial, steps)? {
                break;
            }
            for (at, driver) in driving.drivers.iter().enumerate() {
                if is_over(reader, &driver.trial, steps)? {
                    return Ok(at + 1);
                }
            }
            steps *= GROWTH;
        }
        Ok(0)
    }

    /// The statement that reads it so.
    pub fn from(&self, driver: usize) -> &Statement {
        let drivers = self.driving.as_deref().map_or(&[][..], |driving| &driving.drivers);
        driver.checked_sub(1).and_then(|at| drivers.get(at)).map_or(&self.statement, |d| &d.statement)
    }

    /// How many conditions it could be read from.
    pub fn drivers(&self) -> usize {
        self.driving.as_deref().map_or(0, |driving| driving.drivers.len())
    }
}

/// Whether a statement gives all its rows within so many steps.
fn is_over(reader: &Reader, statement: &Statement, steps: u32) -> Result<bool, ReadError> {
    let run = || {
        let mut prepared = reader.prepare(&statement.text)?;
        let mut rows = prepared.query(parameters(&[], &statement.constants))?;
        while rows.next()?.is_some() {}
        Ok(())
    };
    Ok(reader.within(steps, run)?.is_some())
}

impl Planner<'_> {
    /// How the root is read.
    pub(super) fn once(&self, ast: &Ast, resolved: &Resolved, filter: &Predicate) -> Result<Once, PlanError> {
        let body = self.select(&wanted(resolved.table), ast, resolved, &[], Side::Parent)?;
        let statement = self.ordered(body, resolved, resolved.limit)?;
        let driving = match is_one_row(resolved.table, filter) {
            true => None,
            false => self.driving(ast, resolved)?,
        };
        Ok(Once { statement, driving: driving.map(Arc::new) })
    }

    fn driving(&self, ast: &Ast, resolved: &Resolved) -> Result<Option<Driving>, PlanError> {
        let table = resolved.table;
        let mut drivers = Vec::new();
        for (which, member) in conjuncts(ast).iter().enumerate() {
            if drivers.len() == MAX_DRIVERS || !self.drives(table, member)? {
                continue;
            }
            let from = |wanted: &str| {
                let mut sql = self.builder();
                sql.push(&format!("SELECT {wanted} FROM {} AS t0 WHERE ", quote(&table.stored_name)));
                let scope = Scope { table, alias: 0, side: Side::Parent };
                self.filter_from(&mut sql, ast, resolved, scope, (which, Side::Child))?;
                self.ordered(sql, resolved, resolved.limit)
            };
            drivers.push(Driver { trial: from("1")?, statement: from(&wanted(table))? });
        }
        if drivers.is_empty() {
            return Ok(None);
        }
        let body = self.select("1", ast, resolved, &[], Side::Parent)?;
        let trial = self.ordered(body, resolved, resolved.limit)?;
        Ok(Some(Driving { trial, drivers }))
    }

    /// Whether the table could be read from a condition, or from a part of it.
    fn drives(&self, table: &Table, condition: &Condition) -> Result<bool, PlanError> {
        match condition {
            Condition::Simple { .. } => Ok(false),
            Condition::And(members) | Condition::Or(members) => {
                for member in members {
                    if self.drives(table, member)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            Condition::Exists { related, negated, .. } => Ok(!negated && self.is_driver(table, related)?),
        }
    }

    /// Whether the table can be read from a subquery: its rows are found by the keys that it gives.
    fn is_driver(&self, table: &Table, related: &Correlated) -> Result<bool, PlanError> {
        let resolved = self.resolve(&related.subquery)?;
        let (parents, children) = correlation(table, resolved.table, related)?;
        Ok(resolved.limit != Some(0)
            && comparable(table, &parents, resolved.table, &children)
            && self.reads_by_index(table, &parents)
            // Otherwise it is read first in any case.
            && self.reads_by_index(resolved.table, &children))
    }
}

/// Whether at most one row of a table passes a filter.
fn is_one_row(table: &Table, filter: &Predicate) -> bool {
    let Some(alternatives) = filter.wanted() else { return false };
    let is_key =
        |columns: &[u16]| table.candidate_keys.iter().any(|key| key.iter().all(|c| columns.contains(c)));
    alternatives.iter().all(|alternative| is_key(&alternative.columns))
}
