//! The part of a filter that can be decided from one row alone.
//!
//! Used to route changes: a row that cannot match before and cannot match after a change
//! cannot have changed a node's result (rule 4). Conditions on other tables count as
//! "may hold".

use std::collections::BTreeMap;

use super::test::{self, Comparison, Test};
use crate::model::catalogue::ColumnIndex;
use crate::model::key::MAX_SAFE_INTEGER;
use crate::model::value::Value;

/// Values that rows must have in certain columns.
#[derive(Debug, Clone, PartialEq)]
pub struct Wanted {
    /// Ascending.
    pub columns: Box<[ColumnIndex]>,
    /// One per column.
    pub values: Box<[Value]>,
}

/// A bound that every row that passes keeps in one column. NULL keeps no lower bound.
#[derive(Debug, Clone, PartialEq)]
pub struct Bound {
    /// The column.
    pub column: ColumnIndex,
    /// The smallest value there is, or else the largest; the value itself is among them.
    pub value: Value,
    /// It is the smallest.
    pub lower: bool,
}

impl Bound {
    /// `None`: SQLite compares such a large number otherwise than we do.
    pub fn new(column: ColumnIndex, value: &Value, lower: bool) -> Option<Bound> {
        is_exact(value).then(|| Bound { column, value: value.clone(), lower })
    }
}

/// Whether our order of numbers around this one is SQLite's.
fn is_exact(value: &Value) -> bool {
    !matches!(value, Value::Real(r) if r.abs() > MAX_SAFE_INTEGER as f64)
}

/// Most alternatives that a filter is looked up by. Beyond it looking at each row costs less.
const MAX_WANTED: usize = 64;

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

    /// About how many bytes it takes, without what copies share.
    pub fn bytes(&self) -> usize {
        size_of::<Predicate>()
            + match self {
                Predicate::Unknown => 0,
                Predicate::Test(test) => test.bytes(),
                Predicate::And(members) | Predicate::Or(members) => {
                    members.iter().map(Predicate::bytes).sum()
                }
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

    /// Values one of which every row that passes has: `None` if that cannot be said.
    pub fn wanted(&self) -> Option<Vec<Wanted>> {
        let alternatives = self.alternatives();
        if alternatives.len() > MAX_WANTED || alternatives.iter().any(Fixed::is_empty) {
            return None;
        }
        let wanted = alternatives.into_iter().map(|fixed| {
            let (columns, values): (Vec<_>, Vec<_>) = fixed.into_iter().unzip();
            Wanted { columns: columns.into(), values: values.into() }
        });
        Some(wanted.collect())
    }

    /// A bound that every row that passes keeps; the first one there is.
    pub fn bound(&self) -> Option<Bound> {
        match self {
            Predicate::Test(Test::Compare(column, comparison, value)) => {
                let lower = match comparison {
                    Comparison::Greater | Comparison::GreaterOrEqual => true,
                    Comparison::Less | Comparison::LessOrEqual => false,
                    Comparison::Equal | Comparison::NotEqual => return None,
                };
                Bound::new(*column, value, lower)
            }
            Predicate::And(members) => members.iter().find_map(Predicate::bound),
            Predicate::Or(members) if members.len() == 1 => members[0].bound(),
            _ => None,
        }
    }

    /// Disjunctive normal form of what is fixed; an alternative without values fixes nothing.
    fn alternatives(&self) -> Vec<Fixed> {
        match self {
            Predicate::Unknown => vec![Fixed::new()],
            Predicate::Test(test) => fixed(test),
            Predicate::Or(members) => {
                let mut out: Vec<Fixed> = members.iter().flat_map(Predicate::alternatives).collect();
                out.sort_unstable_by_key(Fixed::len);
                match out.first() {
                    // Any row may pass.
                    Some(first) if first.is_empty() => vec![Fixed::new()],
                    _ => out,
                }
            }
            Predicate::And(members) => {
                members.iter().fold(vec![Fixed::new()], |all, member| both(all, member.alternatives()))
            }
        }
    }
}

/// Values that one alternative fixes, by column.
type Fixed = BTreeMap<ColumnIndex, Value>;

fn fixed(test: &Test) -> Vec<Fixed> {
    let one = |column: &ColumnIndex, value: &Value| {
        // SQLite compares large numbers otherwise than their hashes do.
        if is_exact(value) { Fixed::from([(*column, value.clone())]) } else { Fixed::new() }
    };
    match test {
        Test::Constant(false) => Vec::new(),
        Test::IsNull(column) => vec![one(column, &Value::Null)],
        Test::Compare(column, Comparison::Equal, value) => vec![one(column, value)],
        // More than a filter is looked up by: they would be put together only to be counted.
        Test::In(column, list, false) if list.values().len() <= MAX_WANTED => {
            list.values().iter().map(|value| one(column, value)).collect()
        }
        _ => vec![Fixed::new()],
    }
}

/// Alternatives of two filters that must both pass. If they become too many, those of the
/// first alone: that finds more rows, never fewer.
fn both(first: Vec<Fixed>, second: Vec<Fixed>) -> Vec<Fixed> {
    if first.len() * second.len() > MAX_WANTED {
        return if first.iter().any(Fixed::is_empty) { second } else { first };
    }
    let mut out = Vec::with_capacity(first.len() * second.len());
    for a in &first {
        for b in &second {
            let differs = |(column, value): (&ColumnIndex, &Value)| {
                b.get(column).is_some_and(|other| test::compare(other, value).is_ne())
            };
            if !a.iter().any(differs) {
                out.push(a.iter().chain(b).map(|(c, v)| (*c, v.clone())).collect());
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::zql::list::List;

    fn equal(column: ColumnIndex, n: i64) -> Predicate {
        Predicate::Test(Test::Compare(column, Comparison::Equal, Value::Integer(n)))
    }

    fn of(predicate: &Predicate) -> Option<Vec<String>> {
        let text = |w: Wanted| format!("{:?}={:?}", w.columns, w.values);
        predicate.wanted().map(|all| all.into_iter().map(text).collect())
    }

    #[test]
    fn a_filter_says_which_values_its_rows_have() {
        let list = Test::In(1, Arc::new(List::new([5, 6].map(Value::Integer).into_iter())), false);
        let both = Predicate::And(vec![equal(2, 7), Predicate::Test(list), Predicate::Unknown]);
        let expected = ["[1, 2]=[Integer(5), Integer(7)]", "[1, 2]=[Integer(6), Integer(7)]"];
        assert_eq!(of(&both).unwrap(), expected);
        let either = Predicate::Or(vec![equal(0, 1), Predicate::Test(Test::IsNull(3))]);
        assert_eq!(of(&either).unwrap(), ["[0]=[Integer(1)]", "[3]=[Null]"]);
        assert_eq!(of(&Predicate::Or(vec![equal(0, 1), Predicate::Unknown])), None, "any row may pass");
        assert_eq!(of(&Predicate::And(vec![equal(0, 1), equal(0, 2)])).unwrap(), Vec::<String>::new());
        assert_eq!(of(&Predicate::Or(Vec::new())).unwrap(), Vec::<String>::new(), "no row passes");
        assert_eq!(of(&Predicate::And(Vec::new())), None);
    }

    #[test]
    fn a_filter_says_within_which_bound_its_rows_are() {
        let less = Predicate::Test(Test::Compare(1, Comparison::LessOrEqual, Value::Integer(5)));
        let both = Predicate::And(vec![Predicate::Unknown, less.clone(), equal(0, 1)]);
        let bound = Bound { column: 1, value: Value::Integer(5), lower: false };
        assert_eq!(both.bound(), Some(bound));
        assert_eq!(Predicate::Or(vec![less.clone(), Predicate::Unknown]).bound(), None, "any row may pass");
        assert_eq!(Predicate::Or(vec![less.clone()]).bound(), less.bound());
        assert_eq!(equal(0, 1).bound(), None, "that is looked up otherwise");
    }

    #[test]
    fn too_many_alternatives_are_not_multiplied() {
        let list = |column, n| Test::In(column, Arc::new(List::new((0..n).map(Value::Integer))), false);
        let both = Predicate::And(vec![Predicate::Test(list(0, 20)), Predicate::Test(list(1, 20))]);
        assert_eq!(both.wanted().map(|all| all.len()), Some(20));
        assert_eq!(Predicate::Test(list(0, 100)).wanted(), None);
        let with_long = Predicate::And(vec![Predicate::Test(list(0, 100)), equal(1, 1)]);
        assert_eq!(of(&with_long).unwrap(), ["[1]=[Integer(1)]"]);
    }
}
