//! Queries as JSON.

use kelvin::zql::ast::{Ast, Condition};
use kelvin::zql::canonical;
use kelvin::zql::limits::Limits;
use kelvin::zql::parser::{Strictness, parse};
use proptest::prelude::*;

use super::engine::fuzz;
use super::mutate::{text, value};
use super::spelled::spelled;

pub const SEEDS: [&str; 5] = [
    r#"{"table":"item","orderBy":[["id","asc"],["n","desc"]],"limit":10}"#,
    r#"{"table":"item","where":{"type":"and","conditions":[{"type":"simple","op":"=","left":{"type":"column","name":"id"},"right":{"type":"literal","value":"x"}},{"type":"or","conditions":[{"type":"simple","op":"IN","left":{"type":"column","name":"n"},"right":{"type":"literal","value":[1,2.5,null,true]}}]}]}}"#,
    r#"{"table":"item","alias":"a","where":{"type":"correlatedSubquery","op":"NOT EXISTS","flip":true,"related":{"system":"permissions","correlation":{"parentField":["id","n"],"childField":["a","b"]},"subquery":{"table":"pair","alias":"p"}}}}"#,
    r#"{"table":"item","related":[{"correlation":{"parentField":["id"],"childField":["a"]},"subquery":{"table":"pair","alias":"p","limit":1},"hidden":true}],"start":{"row":{"id":"x","n":{"a":1}},"exclusive":false}}"#,
    r#"{"table":"item","where":{"type":"simple","op":"NOT ILIKE","left":{"type":"literal","value":"a%"},"right":{"type":"static","anchor":"authData","field":["sub","x"]}}}"#,
];

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
