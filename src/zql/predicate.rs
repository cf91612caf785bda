//! The part of a filter that can be decided from one row alone.
//!
//! Used to route changes: a row that cannot match before and cannot match after a change
//! cannot have changed a node's result (rule 4). Conditions on other tables count as
//! "may hold".

use super::test::Test;
use crate::replica::catalogue::ColumnIndex;
use crate::replica::value::Value;

/// A filter over one row; unknown parts are true.
#[derive(Debug, Clone, PartialEq)]
pub enum Predicate {
    /// Decided elsewhere: EXISTS and NOT EXISTS.
    Unknown,
    /// A comparison.
    Test(Test),
    /// All of these.
    And(Vec<Predicate>),
    /// Any of these.
    Or(Vec<Predicate>),
}

impl Predicate {
    /// Whether the row may pass the filter.
    pub fn may_hold(&self, row: &[Value]) -> bool {
        match self {
            Predicate::Unknown => true,
            Predicate::Test(test) => test.holds(row),
            Predicate::And(members) => members.iter().all(|m| m.may_hold(row)),
            Predicate::Or(members) => members.iter().any(|m| m.may_hold(row)),
        }
    }

    /// Adds every column that the filter reads.
    pub fn columns(&self, out: &mut Vec<ColumnIndex>) {
        match self {
            Predicate::Unknown => {}
            Predicate::Test(test) => out.extend(test.column()),
            Predicate::And(members) | Predicate::Or(members) => {
                members.iter().for_each(|m| m.columns(out));
            }
        }
    }
}
