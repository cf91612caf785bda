//! Queries as JSON.

use kelvin::zql::ast::{Ast, Condition, Correlated, Direction, Literal, Operand, Operator, System};
use kelvin::zql::canonical;
use kelvin::zql::limits::Limits;
use kelvin::zql::parser::{Strictness, parse};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::engine::fuzz;
use super::mutate::{text, value};

pub const SEEDS: [&str; 5] = [
    r#"{"table":"item","orderBy":[["id","asc"],["n","desc"]],"limit":10}"#,
    r#"{"table":"item","where":{"type":"and","conditions":[{"type":"simple","op":"=","left":{"type":"column","name":"id"},"right":{"type":"literal","value":"x"}},{"type":"or","conditions":[{"type":"simple","op":"IN","left":{"type":"column","name":"n"},"right":{"type":"literal","value":[1,2.5,null,true]}}]}]}}"#,
    r#"{"table":"item","alias":"a","where":{"type":"correlatedSubquery","op":"NOT EXISTS","flip":true,"related":{"system":"permissions","correlation":{"parentField":["id","n"],"childField":["a","b"]},"subquery":{"table":"pair","alias":"p"}}}}"#,
    r#"{"table":"item","related":[{"correlation":{"parentField":["id"],"childField":["a"]},"subquery":{"table":"pair","alias":"p","limit":1},"hidden":true}],"start":{"row":{"id":"x","n":{"a":1}},"exclusive":false}}"#,
    r#"{"table":"item","where":{"type":"simple","op":"NOT ILIKE","left":{"type":"literal","value":"a%"},"right":{"type":"static","anchor":"authData","field":["sub","x"]}}}"#,
];

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
fn spelled(ast: &Ast) -> Value {
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

fn depth(of: &Condition) -> usize {
    1 + match of {
        Condition::Simple { .. } => 0,
        Condition::And(members) | Condition::Or(members) => members.iter().map(depth).max().unwrap_or(0),
        Condition::Exists { related, .. } => depth_of(&related.subquery),
    }
}

fn depth_of(ast: &Ast) -> usize {
    let related = ast.related.iter().map(|related| depth_of(&related.subquery)).max().unwrap_or(0);
    1 + related.max(ast.condition.as_ref().map_or(0, depth))
}

fn identity(ast: &Ast) -> Vec<u8> {
    let mut out = Vec::new();
    canonical::write(ast, &mut out);
    out
}

fn holds(text: &str) -> Result<(), TestCaseError> {
    let strict = parse(text, Strictness::Strict, &Limits::DEFAULT);
    let Ok(ast) = parse(text, Strictness::Tolerant, &Limits::DEFAULT) else {
        prop_assert!(strict.is_err(), "what is good for strangers is not good for the app");
        return Ok(());
    };
    prop_assert!(depth_of(&ast) <= Limits::DEFAULT.depth + 2 && text.len() <= Limits::DEFAULT.text);
    if let Ok(strict) = strict {
        prop_assert_eq!(&strict, &ast);
    }
    // A key that is there twice can be spelled once only.
    let names = ast.start.iter().flat_map(|start| start.row.windows(2).map(|pair| pair[0].0 == pair[1].0));
    if names.into_iter().any(|same| same) {
        return Ok(());
    }
    let again = parse(&spelled(&ast).to_string(), Strictness::Strict, &Limits::DEFAULT);
    prop_assert_eq!(again.as_ref().map_err(ToString::to_string), Ok(&ast));
    let identity_of = identity(&ast);
    prop_assert_eq!(&identity_of, &identity(&again.expect("it was read")));
    prop_assert!(identity_of.len() <= 16 * text.len() + 64, "{} bytes of {}", identity_of.len(), text.len());
    Ok(())
}

#[test]
fn queries_that_are_read_can_be_spelled_and_read_again() {
    fuzz(value(&SEEDS), |value| holds(&value.to_string()));
}

#[test]
fn a_start_at_a_row_with_deep_json_can_be_spelled_and_read_again() {
    let deep = "[".repeat(200) + &"]".repeat(200);
    let text = format!(r#"{{"table":"item","start":{{"row":{{"id":{{"a":{deep}}}}},"exclusive":false}}}}"#);
    assert!(parse(&text, Strictness::Strict, &Limits::DEFAULT).is_ok());
    holds(&text).expect("it is the same");
}

#[test]
fn queries_of_any_bytes_are_read_or_refused() {
    fuzz(
        text(
            &SEEDS,
            vec![b"{\"type\":\"and\",\"conditions\":[", b"]}", b"1e999", b"\\ud800", b"[[[[", b"\"\""],
        ),
        |text| holds(&text),
    );
}
