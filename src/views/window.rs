//! The window of a node with a limit: where its last rows stand (rule 7).
//!
//! Which rows are in a window the slot tells. The order of all of them is not kept: only the
//! last ones can be pushed out, so only these have their positions here.

use std::cmp::Ordering;

use super::rows::RowId;
use crate::zql::order::{self, Order, Position};

/// Rows whose positions are known at least, if the window has as many; so many can be pushed
/// out before the window has to be read again.
pub const TAIL: usize = 64;

/// Rows at which the positions of the first ones are forgotten again.
const MAX_TAIL: usize = 4 * TAIL;

/// The end of a window.
#[derive(Debug, Clone, Default)]
pub struct Window {
    /// The last rows, in order: no other row of the window is after any of these.
    tail: Vec<(Position, RowId)>,
}

impl Window {
    /// Adds the row that comes after all others.
    pub fn push(&mut self, position: Position, id: RowId) {
        self.tail.push((position, id));
    }

    /// Position of the last row, if it is known.
    pub fn last(&self) -> Option<&Position> {
        self.tail.last().map(|(position, _)| position)
    }

    /// Rows whose positions are known.
    pub fn known(&self) -> usize {
        self.tail.len()
    }

    /// Forgets a row.
    pub fn remove(&mut self, id: RowId) {
        self.tail.retain(|(_, row)| *row != id);
    }

    /// Adds a row. `others`: rows of the window, without it.
    pub fn insert(&mut self, order: &Order, position: Position, id: RowId, others: usize) {
        let at =
            self.tail.partition_point(|(known, _)| order::compare(order, known, &position) == Ordering::Less);
        // Before the first known one it may be before others that are not known.
        if at > 0 || self.tail.len() == others {
            self.tail.insert(at, (position, id));
        }
        if self.tail.len() > MAX_TAIL {
            self.tail.drain(..self.tail.len() - TAIL);
        }
    }

    /// Takes the last row out; `None`: it is not known.
    pub fn pop(&mut self) -> Option<RowId> {
        self.tail.pop().map(|(_, id)| id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::value::Value;
    use crate::zql::ast::Direction;

    #[test]
    fn only_rows_known_to_be_last_are_kept_in_order() {
        let order = [(0, Direction::Ascending)];
        let at = |n: i64| -> Position { [Value::Integer(n)].into() };
        let mut window = Window::default();
        window.push(at(10), RowId(10));
        window.push(at(20), RowId(20));
        // Of three rows two are known: one that is before both may be before the third, too.
        window.insert(&order, at(5), RowId(5), 3);
        window.insert(&order, at(15), RowId(15), 4);
        assert_eq!(window.known(), 3);
        assert_eq!(
            (window.pop(), window.pop(), window.pop()),
            (Some(RowId(20)), Some(RowId(15)), Some(RowId(10)))
        );
        assert_eq!(window.pop(), None);
        window.insert(&order, at(5), RowId(5), 0);
        assert_eq!(window.pop(), Some(RowId(5)), "it is the only row");
    }
}
