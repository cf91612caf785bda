//! How SQLite reads the rows of a plan: for the log of slow queries, and for the test that no
//! query scans a table for want of an index.

use super::plan::{Node, Plan};
use super::sql::Statements;
use crate::replica::reader::{ReadError, Reader};

/// One line for each step of each node's statement, as `EXPLAIN QUERY PLAN` names it. `driver`: the
/// condition that the root is read from ([`super::driving::Once::choose`]).
pub fn explain(reader: &Reader, plan: &Plan, driver: usize) -> Result<Vec<String>, ReadError> {
    let mut out = Vec::new();
    for (index, node) in plan.nodes.iter().enumerate() {
        for text in statements(node, driver) {
            out.extend(steps_of(reader, text)?.into_iter().map(|step| format!("{index}: {step}")));
        }
    }
    Ok(out)
}

/// The steps of one statement.
pub fn steps_of(reader: &Reader, sql: &str) -> Result<Vec<String>, ReadError> {
    // Not from the cache: each is asked for once.
    let mut steps = reader.prepare_once(&format!("EXPLAIN QUERY PLAN {sql}"))?;
    let parameters = steps.parameter_count();
    for parameter in 1..=parameters {
        steps.raw_bind_parameter(parameter, rusqlite::types::Null)?;
    }
    let mut rows = steps.raw_query();
    let mut out = Vec::new();
    while let Some(row) = rows.next()? {
        out.push(row.get(3)?);
    }
    Ok(out)
}

/// The statement that gives the rows of a node.
pub fn rows_statement(node: &Node, driver: usize) -> Option<&str> {
    match &node.statements {
        Statements::Once(once) => Some(&once.from(driver).text),
        Statements::PerKey(statement) | Statements::Batch(statement) => Some(&statement.text),
        Statements::Witness { fill, .. } => Some(&fill.text),
        Statements::Never => None,
    }
}

fn statements(node: &Node, driver: usize) -> Vec<&str> {
    let Some(rows) = rows_statement(node, driver) else { return Vec::new() };
    let holds = match &node.statements {
        Statements::Witness { holds, .. } => Some(&*holds.text),
        _ => None,
    };
    [rows].into_iter().chain(holds).chain([&*node.holds.text, &*node.lookup.text]).collect()
}
