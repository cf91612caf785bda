//! Queries as an app or a client spells them out.

use kelvin::zql::ast::{Ast, Condition, Correlated, Direction, Literal, Operand, Operator, System};
use serde_json::{Value, json};

const OPERATORS: [&str; 14] = [
    "=",
    "!=",
    "IS",
    "IS NOT",
    "<",
    ">",
    "<=",
    ">=",
    "LIKE",
    "NOT LIKE",
    "ILIKE",
    "NOT ILIKE",
    "IN",
    "NOT IN",
];

fn literal(literal: &Literal) -> Value {
    match literal {
        Literal::Null => Value::Null,
        Literal::Bool(b) => json!(b),
        Literal::Number(n) => json!(n),
        Literal::String(s) => json!(s),
        Literal::Array(items) => Value::Array(items.iter().map(self::literal).collect()),
        // As deep as queries may be: deeper than serde_json reads.
        Literal::Json(text) => simd_json::serde::from_slice(&mut text.clone().into_bytes()).expect("JSON"),
    }
}

fn operand(operand: &Operand) -> Value {
    match operand {
        Operand::Literal(value) => json!({"type": "literal", "value": literal(value)}),
        Operand::Column(name) => json!({"type": "column", "name": name}),
        Operand::Static { anchor, field } => json!({"type": "static", "anchor": anchor, "field": field}),
    }
}

fn correlated(related: &Correlated) -> Value {
    let system = if related.system == System::Permissions { "permissions" } else { "client" };
    json!({"correlation": {"parentField": related.parent_field, "childField": related.child_field},
           "subquery": spelled(&related.subquery), "system": system})
}

fn condition(of: &Condition) -> Value {
    let group = |kind: &str, members: &[Condition]| json!({"type": kind, "conditions": members.iter().map(condition).collect::<Vec<_>>()});
    match of {
        Condition::Simple { op, left, right } => {
            let name = OPERATORS.iter().find(|name| Operator::named(name) == Some(*op)).expect("an operator");
            json!({"type": "simple", "op": name, "left": operand(left), "right": operand(right)})
        }
        Condition::And(members) => group("and", members),
        Condition::Or(members) => group("or", members),
        Condition::Exists { related, negated, flip } => {
            let op = if *negated { "NOT EXISTS" } else { "EXISTS" };
            let mut out = json!({"type": "correlatedSubquery", "op": op, "related": correlated(related)});
            if let Some(flip) = flip {
                out["flip"] = json!(flip);
            }
            out
        }
    }
}

/// A query as a client would spell it.
pub fn spelled(ast: &Ast) -> Value {
    let mut out =
        json!({"table": ast.table, "related": ast.related.iter().map(correlated).collect::<Vec<_>>()});
    let order = ast.order_by.iter().map(|(column, direction)| {
        json!([column, if *direction == Direction::Ascending { "asc" } else { "desc" }])
    });
    out["orderBy"] = order.collect();
    if let Some(alias) = &ast.alias {
        out["alias"] = json!(alias);
    }
    if let Some(of) = &ast.condition {
        out["where"] = condition(of);
    }
    if let Some(limit) = ast.limit {
        out["limit"] = json!(limit);
    }
    if let Some(start) = &ast.start {
        let row: serde_json::Map<_, _> =
            start.row.iter().map(|(name, value)| (name.clone(), literal(value))).collect();
        out["start"] = json!({"row": row, "exclusive": start.exclusive});
    }
    out
}
