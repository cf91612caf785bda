//! One comparison, resolved and typed: the form that SQL text and the in-memory predicate
//! are both made from, so that they cannot disagree (`docs/spec/zql.md` §4.3–§4.5).

use std::cmp::Ordering;
use std::sync::Arc;

use super::ast::{Literal, Operand, Operator};
use super::list::List;
use super::plan::PlanError;
use crate::model::catalogue::{ColumnIndex, Table, ZeroType};
use crate::model::value::Value;
use crate::replica::like::{self, Pattern};

/// A resolved comparison. Null on the column side is false unless the variant says otherwise.
#[derive(Debug, Clone, PartialEq)]
pub enum Test {
    /// Does not depend on the row.
    Constant(bool),
    /// The column is null.
    IsNull(ColumnIndex),
    /// The column is not null.
    IsNotNull(ColumnIndex),
    /// Column against constant.
    Compare(ColumnIndex, Comparison, Value),
    /// Differs from the constant; null does.
    IsNot(ColumnIndex, Value),
    /// One of the constants, or (true) none of them.
    In(ColumnIndex, Arc<List>, bool),
    /// Matches the pattern.
    Like {
        /// Column matched.
        column: ColumnIndex,
        /// Pattern, folded already if `fold`.
        pattern: Arc<Pattern>,
        /// ILIKE.
        fold: bool,
        /// NOT LIKE.
        negated: bool,
    },
}

/// Comparison of two values that are not null.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Comparison {
    fn of(op: Operator) -> Option<Comparison> {
        Some(match op {
            Operator::Equal | Operator::Is => Comparison::Equal,
            Operator::NotEqual | Operator::IsNot => Comparison::NotEqual,
            Operator::Less => Comparison::Less,
            Operator::LessOrEqual => Comparison::LessOrEqual,
            Operator::Greater => Comparison::Greater,
            Operator::GreaterOrEqual => Comparison::GreaterOrEqual,
            _ => return None,
        })
    }

    fn holds(self, ordering: Ordering) -> bool {
        match self {
            Comparison::Equal => ordering == Ordering::Equal,
            Comparison::NotEqual => ordering != Ordering::Equal,
            Comparison::Less => ordering == Ordering::Less,
            Comparison::LessOrEqual => ordering != Ordering::Greater,
            Comparison::Greater => ordering == Ordering::Greater,
            Comparison::GreaterOrEqual => ordering != Ordering::Less,
        }
    }

    /// The SQL operator.
    pub fn sql(self) -> &'static str {
        match self {
            Comparison::Equal => "=",
            Comparison::NotEqual => "<>",
            Comparison::Less => "<",
            Comparison::LessOrEqual => "<=",
            Comparison::Greater => ">",
            Comparison::GreaterOrEqual => ">=",
        }
    }
}

/// Converts a constant to what a column of this type stores. `None`: no value of the column
/// can equal it (`docs/spec/zql.md` §4.5 for constants of another type).
pub fn stored(literal: &Literal, zero_type: ZeroType) -> Option<Value> {
    Some(match (zero_type, literal) {
        (ZeroType::Json, Literal::Null) => return None,
        // JSON columns compare by their text: meaningful for scalars only.
        (ZeroType::Json, literal) => Value::Text(json_text(literal).into()),
        (ZeroType::String, Literal::String(s)) => Value::Text(s.as_str().into()),
        (ZeroType::Boolean, Literal::Bool(b)) => Value::Integer(*b as i64),
        (ZeroType::Number, Literal::Number(n)) => Value::number(*n),
        _ => return None,
    })
}

fn json_text(literal: &Literal) -> String {
    match literal {
        Literal::Null => "null".into(),
        Literal::Bool(b) => b.to_string(),
        Literal::Number(n) => ryu_js::Buffer::new().format(*n).to_owned(),
        Literal::String(s) => serde_json::to_string(s).unwrap_or_default(),
        Literal::Array(items) => {
            format!("[{}]", items.iter().map(json_text).collect::<Vec<_>>().join(","))
        }
        Literal::Json(text) => text.clone(),
    }
}

/// Resolves one comparison against the catalogue.
pub fn resolve(table: &Table, op: Operator, left: &Operand, right: &Operand) -> Result<Test, PlanError> {
    let right = match right {
        Operand::Literal(literal) => literal,
        Operand::Column(_) => return Err(PlanError::new("the right side of a comparison is a column")),
        Operand::Static { .. } => return Err(PlanError::new("a static parameter was not bound")),
    };
    match left {
        Operand::Column(name) => {
            let column = super::resolved::visible_column(table, name)?;
            column_test(table, column, op, right)
        }
        Operand::Literal(left) => constant(op, left, right).map(Test::Constant),
        Operand::Static { .. } => Err(PlanError::new("a static parameter was not bound")),
    }
}

fn column_test(table: &Table, column: ColumnIndex, op: Operator, right: &Literal) -> Result<Test, PlanError> {
    let definition = &table.columns[column as usize];
    let Some(zero_type) = definition.zero_type else { return Ok(Test::Constant(false)) };
    match op {
        Operator::In | Operator::NotIn => {
            let negated = op == Operator::NotIn;
            let Literal::Array(items) = right else {
                return Err(PlanError::new(format!(
                    "IN on column \"{}\" needs an array of values",
                    definition.name
                )));
            };
            let values = items.iter().filter_map(|item| stored(item, zero_type));
            Ok(Test::In(column, Arc::new(List::new(values)), negated))
        }
        _ if *right == Literal::Null => Ok(match op {
            Operator::Is => Test::IsNull(column),
            Operator::IsNot => Test::IsNotNull(column),
            _ => Test::Constant(false),
        }),
        Operator::Like | Operator::NotLike | Operator::Ilike | Operator::NotIlike => {
            let Literal::String(pattern) = right else { return Ok(Test::Constant(false)) };
            if zero_type != ZeroType::String {
                return Ok(Test::Constant(false));
            }
            let fold = matches!(op, Operator::Ilike | Operator::NotIlike);
            let negated = matches!(op, Operator::NotLike | Operator::NotIlike);
            Ok(Test::Like { column, pattern: Arc::new(prepared(pattern, fold)?), fold, negated })
        }
        _ => Ok(comparison(column, zero_type, op, right)),
    }
}

fn comparison(column: ColumnIndex, zero_type: ZeroType, op: Operator, right: &Literal) -> Test {
    let Some(comparison) = Comparison::of(op) else { return Test::Constant(false) };
    match stored(right, zero_type) {
        Some(value) if op == Operator::IsNot => Test::IsNot(column, value),
        Some(_) if zero_type == ZeroType::Json && !is_equality(comparison) => Test::Constant(false),
        Some(value) => Test::Compare(column, comparison, value),
        // A constant of another type equals nothing.
        None => match op {
            Operator::NotEqual => Test::IsNotNull(column),
            Operator::IsNot => Test::Constant(true),
            _ => Test::Constant(false),
        },
    }
}

fn is_equality(comparison: Comparison) -> bool {
    matches!(comparison, Comparison::Equal | Comparison::NotEqual)
}

fn prepared(pattern: &str, fold: bool) -> Result<Pattern, PlanError> {
    let prepared = if fold { Pattern::new(&like::fold(pattern)) } else { Pattern::new(pattern) };
    prepared.map_err(PlanError)
}

fn constant(op: Operator, left: &Literal, right: &Literal) -> Result<bool, PlanError> {
    if let Operator::In | Operator::NotIn = op {
        let Literal::Array(items) = right else {
            return Err(PlanError::new("IN needs an array of values"));
        };
        return Ok(*left != Literal::Null && items.contains(left) == (op == Operator::In));
    }
    match op {
        Operator::Is => return Ok(left == right),
        Operator::IsNot => return Ok(left != right),
        _ if *left == Literal::Null || *right == Literal::Null => return Ok(false),
        Operator::Equal => return Ok(left == right),
        Operator::NotEqual => return Ok(left != right),
        _ => {}
    }
    if let Some(comparison) = Comparison::of(op) {
        let ordering = match (left, right) {
            (Literal::Number(a), Literal::Number(b)) => a.partial_cmp(b),
            (Literal::String(a), Literal::String(b)) => Some(a.cmp(b)),
            (Literal::Bool(a), Literal::Bool(b)) => Some(a.cmp(b)),
            _ => None,
        };
        return Ok(ordering.is_some_and(|o| comparison.holds(o)));
    }
    let (Literal::String(text), Literal::String(pattern)) = (left, right) else { return Ok(false) };
    let fold = matches!(op, Operator::Ilike | Operator::NotIlike);
    let negated = matches!(op, Operator::NotLike | Operator::NotIlike);
    let pattern = prepared(pattern, fold)?;
    let matched = if fold { pattern.matches(&like::fold(text)) } else { pattern.matches(text) };
    Ok(matched != negated)
}

/// Order of two stored values of one column: null first, then numbers, then text by bytes.
pub fn compare(a: &Value, b: &Value) -> Ordering {
    match (a, b) {
        (Value::Null, Value::Null) => Ordering::Equal,
        (Value::Integer(a), Value::Integer(b)) => a.cmp(b),
        (Value::Text(a), Value::Text(b)) => a.as_bytes().cmp(b.as_bytes()),
        (Value::Blob(a), Value::Blob(b)) => a.cmp(b),
        _ => match (rank(a), rank(b)) {
            (1, 1) => as_f64(a).total_cmp(&as_f64(b)),
            (a, b) => a.cmp(&b),
        },
    }
}

fn rank(value: &Value) -> u8 {
    match value {
        Value::Null => 0,
        Value::Integer(_) | Value::Real(_) => 1,
        Value::Text(_) => 2,
        Value::Blob(_) => 3,
    }
}

fn as_f64(value: &Value) -> f64 {
    match value {
        Value::Integer(i) => *i as f64,
        // -0 and 0 are one number.
        Value::Real(r) => *r + 0.0,
        _ => 0.0,
    }
}

impl Test {
    /// Evaluates the test on a row in catalogue order.
    pub fn holds(&self, row: &[Value]) -> bool {
        match self {
            Test::Constant(value) => *value,
            Test::IsNull(column) => row[*column as usize].is_null(),
            Test::IsNotNull(column) => !row[*column as usize].is_null(),
            Test::Compare(column, comparison, value) => {
                let found = &row[*column as usize];
                !found.is_null() && comparison.holds(compare(found, value))
            }
            Test::IsNot(column, value) => compare(&row[*column as usize], value) != Ordering::Equal,
            Test::In(column, list, negated) => {
                let found = &row[*column as usize];
                !found.is_null() && list.contains(found) != *negated
            }
            Test::Like { column, pattern, fold, negated } => {
                let Value::Text(text) = &row[*column as usize] else { return false };
                let matched = if *fold { pattern.matches(&like::fold(text)) } else { pattern.matches(text) };
                matched != *negated
            }
        }
    }

    /// About how many bytes its constants take that its copies do not share.
    pub fn bytes(&self) -> usize {
        match self {
            Test::Compare(_, _, value) | Test::IsNot(_, value) => value.heap_size(),
            _ => 0,
        }
    }

    /// About how many bytes take those that they share.
    pub fn bytes_shared(&self) -> usize {
        match self {
            Test::In(_, list, _) => list.bytes(),
            Test::Like { pattern, .. } => pattern.bytes(),
            _ => 0,
        }
    }

    /// The column that the test reads, if any.
    pub fn column(&self) -> Option<ColumnIndex> {
        match self {
            Test::Constant(_) => None,
            Test::IsNull(c) | Test::IsNotNull(c) | Test::Compare(c, ..) | Test::IsNot(c, _) => Some(*c),
            Test::In(c, ..) | Test::Like { column: c, .. } => Some(*c),
        }
    }
}
