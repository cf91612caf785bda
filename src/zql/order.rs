//! The order of a node's rows, decided in memory as SQLite decides it
//! (`docs/spec/zql.md` §3.3, §15.1).

use std::cmp::Ordering;

use super::ast::Direction;
use super::predicate::Bound;
use super::test;
use crate::model::catalogue::ColumnIndex;
use crate::model::value::Value;

/// Columns of an order, completed with the key: no two rows are equal in it.
pub type Order = [(ColumnIndex, Direction)];

/// A row's values of the order's columns, in its order.
pub type Position = Box<[Value]>;

/// Where a row stands.
pub fn position(order: &Order, row: &[Value]) -> Position {
    order.iter().map(|(column, _)| row[*column as usize].clone()).collect()
}

/// Compares two positions.
pub fn compare(order: &Order, a: &[Value], b: &[Value]) -> Ordering {
    for (at, (_, direction)) in order.iter().enumerate() {
        let ordering = directed(*direction, &a[at], &b[at]);
        if ordering.is_ne() {
            return ordering;
        }
    }
    Ordering::Equal
}

/// Compares a row with a position.
pub fn compare_row(order: &Order, row: &[Value], position: &[Value]) -> Ordering {
    for (at, (column, direction)) in order.iter().enumerate() {
        let ordering = directed(*direction, &row[*column as usize], &position[at]);
        if ordering.is_ne() {
            return ordering;
        }
    }
    Ordering::Equal
}

fn directed(direction: Direction, a: &Value, b: &Value) -> Ordering {
    match direction {
        Direction::Ascending => test::compare(a, b),
        Direction::Descending => test::compare(b, a),
    }
}

/// Where a node's rows begin.
#[derive(Debug, Clone)]
pub struct Cursor {
    /// Values of the order's columns.
    pub position: Position,
    /// The row at the cursor itself is left out.
    pub exclusive: bool,
}

impl Cursor {
    /// A bound that every row that is admitted keeps: the order's first column tells.
    pub fn bound(&self, order: &Order) -> Option<Bound> {
        let (column, direction) = *order.first()?;
        let value = self.position.first().filter(|value| !matches!(value, Value::Null))?;
        Bound::new(column, value, direction == Direction::Ascending)
    }

    /// Whether the row is at or after the cursor.
    pub fn admits(&self, order: &Order, row: &[Value]) -> bool {
        match compare_row(order, row, &self.position) {
            Ordering::Less => false,
            Ordering::Equal => !self.exclusive,
            Ordering::Greater => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_is_first_in_one_direction_and_last_in_the_other() {
        let [null, one, two] = [Value::Null, Value::Integer(1), Value::Integer(2)].map(|value| [value]);
        let up = [(0, Direction::Ascending)];
        let down = [(0, Direction::Descending)];
        assert_eq!(compare(&up, &null, &one), Ordering::Less);
        assert_eq!(compare(&down, &null, &one), Ordering::Greater);
        let cursor = Cursor { position: one.clone().into(), exclusive: true };
        assert!(!cursor.admits(&up, &one) && cursor.admits(&up, &two));
        assert!(!cursor.admits(&down, &two));
    }
}
