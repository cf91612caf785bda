//! Values of the model, with the meaning of `docs/spec/zql.md` §4.

use std::cmp::Ordering;

use kelvin::model::value::Value;
use kelvin::zql::ast::Literal;
use serde_json::json;

/// One value of one row.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    Null,
    Bool(bool),
    /// Numbers of columns that store integers, and of those that store doubles.
    Int(i64),
    Real(f64),
    Text(String),
    Json(String),
    Bytes(Vec<u8>),
}

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Bool,
    Int,
    Real,
    Text,
    Json,
    /// Nothing that clients can hold.
    Bytes,
}

impl Cell {
    pub fn is_null(&self) -> bool {
        *self == Cell::Null
    }

    pub fn number(&self) -> Option<f64> {
        match self {
            Cell::Int(i) => Some(*i as f64),
            Cell::Real(r) => Some(*r),
            _ => None,
        }
    }

    /// As the replica stores it.
    pub fn stored(&self) -> Value {
        match self {
            Cell::Null => Value::Null,
            Cell::Bool(b) => Value::Integer(*b as i64),
            Cell::Int(i) => Value::Integer(*i),
            Cell::Real(r) => Value::Real(*r),
            Cell::Text(t) | Cell::Json(t) => Value::Text(t.as_str().into()),
            Cell::Bytes(b) => Value::Blob(b.as_slice().into()),
        }
    }

    /// As clients read it.
    pub fn json(&self) -> serde_json::Value {
        match self {
            Cell::Null | Cell::Bytes(_) => json!(null),
            Cell::Bool(b) => json!(b),
            Cell::Int(i) => json!(*i as f64),
            Cell::Real(r) => json!(*r + 0.0),
            Cell::Text(t) => json!(t),
            Cell::Json(t) => serde_json::from_str(t).expect("the model's JSON is valid"),
        }
    }

    /// The same value as a constant of a query.
    pub fn literal(&self) -> Literal {
        match self {
            Cell::Null | Cell::Bytes(_) => Literal::Null,
            Cell::Bool(b) => Literal::Bool(*b),
            Cell::Int(i) => Literal::Number(*i as f64),
            Cell::Real(r) => Literal::Number(*r),
            Cell::Text(t) => Literal::String(t.clone()),
            Cell::Json(t) => Literal::Json(t.clone()),
        }
    }
}

/// A constant as a value.
pub fn of_literal(literal: &Literal) -> Cell {
    match literal {
        Literal::Null | Literal::Array(_) => Cell::Null,
        Literal::Bool(b) => Cell::Bool(*b),
        Literal::Number(n) => Cell::Real(*n),
        Literal::String(s) => Cell::Text(s.clone()),
        Literal::Json(j) => Cell::Json(j.clone()),
    }
}

/// Order of values of one column: null is equal to null and lowest.
pub fn compare(a: &Cell, b: &Cell) -> Ordering {
    match (a, b) {
        (Cell::Null, Cell::Null) => Ordering::Equal,
        (Cell::Null, _) => Ordering::Less,
        (_, Cell::Null) => Ordering::Greater,
        (Cell::Bool(a), Cell::Bool(b)) => a.cmp(b),
        (Cell::Text(a), Cell::Text(b)) => a.as_bytes().cmp(b.as_bytes()),
        _ => match (a.number(), b.number()) {
            (Some(a), Some(b)) => a.partial_cmp(&b).expect("the model has no NaN"),
            _ => panic!("{a:?} and {b:?} are of different types"),
        },
    }
}

/// Equality of values that are not null; false for different types.
pub fn equal(a: &Cell, b: &Cell) -> bool {
    match (a, b) {
        (Cell::Null, _) | (_, Cell::Null) => false,
        (Cell::Bool(a), Cell::Bool(b)) => a == b,
        (Cell::Text(a), Cell::Text(b)) => a == b,
        _ => matches!((a.number(), b.number()), (Some(a), Some(b)) if a == b),
    }
}

/// A text that is equal for equal values and no others of one column: for keys of maps.
/// Booleans are named as the numbers that they are stored as.
pub fn name(cell: &Cell) -> String {
    match cell {
        Cell::Null => "null".to_owned(),
        Cell::Bool(b) => name(&Cell::Int(*b as i64)),
        Cell::Text(t) | Cell::Json(t) => format!("{t:?}"),
        Cell::Int(_) | Cell::Real(_) => format!("{}", cell.number().map_or(0.0, |n| n + 0.0)),
        Cell::Bytes(b) => format!("{b:?}"),
    }
}
