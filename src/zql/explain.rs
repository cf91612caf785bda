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
            // Not from the cache: each is asked for once.
            let mut steps = reader.prepare_once(&format!("EXPLAIN QUERY PLAN {text}"))?;
            let parameters = steps.parameter_count();
            for parameter in 1..=parameters {
                steps.raw_bind_parameter(parameter, rusqlite::types::Null)?;
            }
            let mut rows = steps.raw_query();
            while let Some(row) = rows.next()? {
                out.push(format!("{index}: {}", row.get::<_, String>(3)?));
            }
        }
    }
    Ok(out)
}

fn statements(node: &Node, driver: usize) -> Vec<&str> {
    let of_rows: Vec<&str> = match &node.statements {
        Statements::Once(once) => vec![&once.from(driver).text],
        Statements::PerKey(statement) | Statements::Batch(statement) => vec![&statement.text],
        Statements::Witness { fill, holds } => vec![&fill.text, &holds.text],
        Statements::Never => return Vec::new(),
    };
    of_rows.into_iter().chain([&*node.holds.text, &*node.lookup.text]).collect()
}
