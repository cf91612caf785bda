//! What a query means: `docs/spec/zql.md` §4.3, §4.4 and §5 word by word. Every answer is
//! found by looking at every row.

use std::cmp::Ordering;

use kelvin::zql::ast::{Ast, Condition, Correlated, Direction, Literal, Operand, Operator};

use super::cell::{self, Cell, Kind};
use super::database::{Database, Row};

/// Column values that rows must have: `K` of the specification.
pub type Binding = Vec<(usize, Cell)>;

impl Database {
    /// `rows(A, K)`.
    pub fn select(&self, ast: &Ast, binding: &Binding) -> Vec<&Row> {
        let mut rows = self.matches(ast, binding);
        let order = self.order(ast);
        rows.sort_by(|a, b| by_order(&order, a, b));
        if let Some(limit) = ast.limit.filter(|l| l.fract() == 0.0) {
            rows.truncate(limit as usize);
        }
        rows
    }

    /// `rows(A ∖ limit, K)`, in no order.
    pub fn matches(&self, ast: &Ast, binding: &Binding) -> Vec<&Row> {
        let table = self.schema.find(&ast.table);
        self.rows(table)
            .filter(|row| binding.iter().all(|(column, value)| cell::equal(&row[*column], value)))
            .filter(|row| self.is_at_or_after_start(ast, row))
            .filter(|row| ast.condition.as_ref().is_none_or(|c| self.holds(table, c, row)))
            .collect()
    }

    /// Rows that make an EXISTS true for a parent: `M` of the specification.
    pub fn witnesses(&self, ast: &Ast, binding: &Binding) -> Vec<&Row> {
        if ast.limit == Some(0.0) { Vec::new() } else { self.matches(ast, binding) }
    }

    fn holds(&self, table: usize, condition: &Condition, row: &Row) -> bool {
        match condition {
            Condition::And(all) => all.iter().all(|c| self.holds(table, c, row)),
            Condition::Or(any) => any.iter().any(|c| self.holds(table, c, row)),
            Condition::Simple { op, left, right } => {
                let right = literal_of(right);
                match left {
                    Operand::Column(name) => test(*op, &row[self.schema.column(table, name)], right),
                    other => test(*op, &cell::of_literal(literal_of(other)), right),
                }
            }
            Condition::Exists { related, negated, .. } => {
                let found = self
                    .bind(table, related, row)
                    .is_some_and(|binding| !self.witnesses(&related.subquery, &binding).is_empty());
                found != *negated
            }
        }
    }

    /// `bind(q, r)`; none: some value is null, or the types differ, so nothing can match.
    pub fn bind(&self, parent: usize, related: &Correlated, row: &Row) -> Option<Binding> {
        let child = self.schema.find(&related.subquery.table);
        let mut binding = Binding::new();
        for (parent_name, child_name) in related.parent_field.iter().zip(&related.child_field) {
            let parent_column = self.schema.column(parent, parent_name);
            let child_column = self.schema.column(child, child_name);
            let comparable = class(self.schema.spec(parent).columns[parent_column].1)
                == class(self.schema.spec(child).columns[child_column].1);
            if row[parent_column].is_null() || !comparable {
                return None;
            }
            binding.push((child_column, row[parent_column].clone()));
        }
        Some(binding)
    }

    /// `order(A)`: completed with the key that clients know, its columns sorted by name.
    fn order(&self, ast: &Ast) -> Vec<(usize, Direction)> {
        let table = self.schema.find(&ast.table);
        let given = ast.order_by.iter();
        let mut order: Vec<_> = given.map(|(name, d)| (self.schema.column(table, name), *d)).collect();
        for column in self.schema.identity(table) {
            if !order.iter().any(|(c, _)| *c == column) {
                order.push((column, Direction::Ascending));
            }
        }
        order
    }

    fn is_at_or_after_start(&self, ast: &Ast, row: &Row) -> bool {
        let Some(start) = &ast.start else { return true };
        let table = self.schema.find(&ast.table);
        let mut cursor: Row = vec![Cell::Null; self.schema.spec(table).columns.len()];
        for (name, value) in &start.row {
            cursor[self.schema.column(table, name)] = cell::of_literal(value);
        }
        match by_order(&self.order(ast), &cursor, row) {
            Ordering::Less => true,
            Ordering::Equal => !start.exclusive,
            Ordering::Greater => false,
        }
    }
}

fn by_order(order: &[(usize, Direction)], a: &Row, b: &Row) -> Ordering {
    for (column, direction) in order {
        let ordering = cell::compare(&a[*column], &b[*column]);
        let ordering = if *direction == Direction::Ascending { ordering } else { ordering.reverse() };
        if ordering != Ordering::Equal {
            return ordering;
        }
    }
    Ordering::Equal
}

/// Types whose values can be equal.
fn class(kind: Kind) -> u8 {
    match kind {
        Kind::Bool => 0,
        Kind::Int | Kind::Real => 1,
        Kind::Text => 2,
        Kind::Json => 3,
        Kind::Bytes => 4,
    }
}

fn literal_of(operand: &Operand) -> &Literal {
    match operand {
        Operand::Literal(literal) => literal,
        other => panic!("{other:?} is not a constant"),
    }
}

/// One comparison.
pub fn test(op: Operator, left: &Cell, right: &Literal) -> bool {
    if let Literal::Array(items) = right {
        let contained = items.iter().any(|i| cell::equal(left, &cell::of_literal(i)));
        return match op {
            Operator::In => contained,
            Operator::NotIn => !left.is_null() && !contained,
            _ => panic!("{op:?} does not take a list"),
        };
    }
    let right = cell::of_literal(right);
    let equal = cell::equal(left, &right);
    let both = !left.is_null() && !right.is_null();
    match op {
        Operator::Equal => equal,
        Operator::NotEqual => both && !equal,
        Operator::Is => equal || (left.is_null() && right.is_null()),
        Operator::IsNot => !(equal || left.is_null() && right.is_null()),
        Operator::Less => both && cell::compare(left, &right) == Ordering::Less,
        Operator::LessOrEqual => both && cell::compare(left, &right) != Ordering::Greater,
        Operator::Greater => both && cell::compare(left, &right) == Ordering::Greater,
        Operator::GreaterOrEqual => both && cell::compare(left, &right) != Ordering::Less,
        Operator::Like | Operator::NotLike | Operator::Ilike | Operator::NotIlike => {
            let (Cell::Text(text), Cell::Text(pattern)) = (left, &right) else { return false };
            let fold = matches!(op, Operator::Ilike | Operator::NotIlike);
            let like =
                if fold { like(&text.to_lowercase(), &pattern.to_lowercase()) } else { like(text, pattern) };
            like == matches!(op, Operator::Like | Operator::Ilike)
        }
        Operator::In | Operator::NotIn => panic!("{op:?} takes a list"),
    }
}

/// LIKE as Postgres has it, tried out in all ways. SQLite's own ends a pattern at a NUL.
pub fn like(text: &str, pattern: &str) -> bool {
    let mut rest = pattern.chars();
    match rest.next() {
        None => text.is_empty(),
        Some('%') => (0..=text.len())
            .filter(|at| text.is_char_boundary(*at))
            .any(|at| like(&text[at..], rest.as_str())),
        Some(c) => {
            let wanted = if c == '\\' { rest.next() } else { Some(c).filter(|c| *c != '_') };
            let mut chars = text.chars();
            let Some(first) = chars.next() else { return false };
            wanted.is_none_or(|w| w == first) && like(chars.as_str(), rest.as_str())
        }
    }
}
