//! Short forms for writing queries down.

use kelvin::zql::ast::{Ast, Condition, Correlated, Direction, Literal, Operand, Operator, Start, System};

/// Everything of a table.
pub fn from(table: &str) -> Ast {
    Ast { table: table.to_owned(), ..Ast::default() }
}

/// What can be said of a query after [`from`].
pub trait Build: Sized {
    fn filter(self, condition: Condition) -> Self;
    /// `"p"` or `"p desc"`.
    fn order(self, by: &str) -> Self;
    fn limit(self, limit: usize) -> Self;
    fn start(self, row: &[(&str, Literal)], exclusive: bool) -> Self;
    /// `tie`: `"id=issueID"`, several with commas.
    fn related(self, tie: &str, child: Ast) -> Self;
    fn alias(self, alias: &str) -> Self;
}

impl Build for Ast {
    fn filter(mut self, condition: Condition) -> Self {
        self.condition = Some(match self.condition {
            None => condition,
            Some(before) => Condition::And(vec![before, condition]),
        });
        self
    }

    fn order(mut self, by: &str) -> Self {
        let (column, direction) = match by.strip_suffix(" desc") {
            Some(column) => (column, Direction::Descending),
            None => (by, Direction::Ascending),
        };
        self.order_by.push((column.to_owned(), direction));
        self
    }

    fn limit(mut self, limit: usize) -> Self {
        self.limit = Some(limit as f64);
        self
    }

    fn start(mut self, row: &[(&str, Literal)], exclusive: bool) -> Self {
        let row = row.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        self.start = Some(Start { row, exclusive });
        self
    }

    fn related(mut self, tie: &str, mut child: Ast) -> Self {
        let alias = format!("r{}", self.related.len());
        child.alias.get_or_insert(alias);
        self.related.push(tied(tie, child));
        self
    }

    fn alias(mut self, alias: &str) -> Self {
        self.alias = Some(alias.to_owned());
        self
    }
}

fn tied(tie: &str, mut subquery: Ast) -> Correlated {
    subquery.alias.get_or_insert("e".to_owned());
    let (parent_field, child_field) = tie
        .split(',')
        .map(|pair| pair.split_once('=').expect("parent=child"))
        .map(|(parent, child)| (parent.to_owned(), child.to_owned()))
        .unzip();
    Correlated { parent_field, child_field, subquery, system: System::Client }
}

pub fn exists(tie: &str, child: Ast) -> Condition {
    Condition::Exists { related: Box::new(tied(tie, child)), negated: false, flip: None }
}

pub fn not_exists(tie: &str, child: Ast) -> Condition {
    Condition::Exists { related: Box::new(tied(tie, child)), negated: true, flip: None }
}

/// The same condition with a hint.
pub fn flipped(condition: Condition, to: bool) -> Condition {
    match condition {
        Condition::Exists { related, negated, .. } => Condition::Exists { related, negated, flip: Some(to) },
        other => other,
    }
}

/// The same subquery as a permission rule brings it in.
pub fn by_permissions(condition: Condition) -> Condition {
    match condition {
        Condition::Exists { mut related, negated, flip } => {
            related.system = System::Permissions;
            Condition::Exists { related, negated, flip }
        }
        other => other,
    }
}

pub fn and(all: impl Into<Vec<Condition>>) -> Condition {
    Condition::And(all.into())
}

pub fn or(any: impl Into<Vec<Condition>>) -> Condition {
    Condition::Or(any.into())
}

/// `"p = "` and a constant, `"p IS NOT"` and a constant.
pub fn test(column: &str, op: &str, value: impl Into<Constant>) -> Condition {
    compare(Operand::Column(column.to_owned()), op, value)
}

/// A comparison of two constants.
pub fn constant(left: impl Into<Constant>, op: &str, right: impl Into<Constant>) -> Condition {
    compare(Operand::Literal(left.into().0), op, right)
}

fn compare(left: Operand, op: &str, value: impl Into<Constant>) -> Condition {
    let op = Operator::named(op).unwrap_or_else(|| panic!("no operator {op}"));
    Condition::Simple { op, left, right: Operand::Literal(value.into().0) }
}

/// A constant of a query.
pub struct Constant(pub Literal);

/// The constant null.
pub const NULL: Constant = Constant(Literal::Null);

impl From<&str> for Constant {
    fn from(text: &str) -> Self {
        Constant(Literal::String(text.to_owned()))
    }
}

impl From<f64> for Constant {
    fn from(number: f64) -> Self {
        Constant(Literal::Number(number))
    }
}

impl From<bool> for Constant {
    fn from(value: bool) -> Self {
        Constant(Literal::Bool(value))
    }
}

impl From<&[f64]> for Constant {
    fn from(numbers: &[f64]) -> Self {
        Constant(Literal::Array(numbers.iter().map(|n| Literal::Number(*n)).collect()))
    }
}
