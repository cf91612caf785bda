//! A query that is more than one may be ends the connection, its group or the process, or makes others wait.

use std::time::Duration;

use crate::support::app::{THREE, items};
use crate::support::stage::Stage;
use serde_json::{Value, json};

/// A bystander must see a commit within this time.
const PROMPT: Duration = Duration::from_secs(3);

/// Asks for the query that the app answers with whatever it is given.
fn spelled(hash: &str, ast: Value) -> Value {
    json!({"op": "put", "hash": hash, "name": "spelled", "args": [ast]})
}

fn ordered(count: usize) -> Value {
    json!({"table": "item", "orderBy": vec![["id", "asc"]; count],
        "start": {"row": {"id": "a"}, "exclusive": true}})
}

fn like(pattern: &str) -> Value {
    json!({"table": "item", "orderBy": [["id", "asc"]], "where": {"type": "simple", "op": "LIKE",
        "left": {"type": "column", "name": "payload"}, "right": {"type": "literal", "value": pattern}}})
}

#[test]
fn what_the_app_answers_beyond_a_limit_is_refused_alone() {
    let stage = Stage::prepared(THREE, &[]);
    let bystander = stage.bystander();
    let mut tab = stage.tab(&[items()]);
    let simple = |n: usize| json!({"type": "simple", "op": "=", "left": {"type": "column", "name": "n"}, "right": {"type": "literal", "value": n}});
    let or = |count: usize| json!({"table": "item", "where": {"type": "or", "conditions": (0..count).map(simple).collect::<Vec<_>>()}});
    for (ast, expected) in [
        (ordered(5_000), "columns in an order"),
        (ordered(20_000), "columns in an order"),
        (or(5_000), "conditions and subqueries"),
        (like(&format!("%{}%", "a".repeat(1 << 17))), "a LIKE pattern has at most"),
        (
            json!({"table": "item", "where": {"type": "simple", "op": "IN", "left": {"type": "column", "name": "n"},
            "right": {"type": "literal", "value": vec![1; 60_000]}}}),
            "constants",
        ),
    ] {
        let told = tab.refused.len();
        tab.change(vec![spelled(&told.to_string(), ast)]);
        tab.until(expected, |c| c.refused.len() > told);
        let text = tab.refused[told].to_string();
        assert!(text.contains(expected), "{expected}: {}", &text[text.len().saturating_sub(300)..]);
    }
    // What is only unusual is served: a repeated column, more conditions than SQLite takes in a row.
    for (hash, ast) in [("repeated", ordered(20)), ("long", or(3_000))] {
        tab.change(vec![spelled(hash, ast)]);
        tab.until(hash, |c| c.store.got.contains(hash));
    }
    assert_eq!(tab.store.table("item").len(), 3);
    tab.round_trip();
    bystander.finish(PROMPT);
}

#[test]
fn what_a_client_spells_out_beyond_a_limit_is_refused_alone() {
    let stage = Stage::prepared(THREE, &[]);
    let bystander = stage.bystander();
    let mut tab = stage.tab(&[items()]);
    let deep = format!("{}1{}", "[".repeat(20_000), "]".repeat(20_000));
    let put = |hash: &str, ast: &str| {
        format!(
            r#"["changeDesiredQueries",{{"desiredQueriesPatch":[{{"op":"put","hash":"{hash}","ast":{ast}}}]}}]"#
        )
    };
    let nested = format!(r#"{{"table":"item","where":{deep}}}"#);
    for (hash, ast) in [("order", ordered(20_000).to_string()), ("deep", nested)] {
        let told = tab.refused.len();
        tab.send_text(put(hash, &ast));
        tab.until(hash, |c| c.refused.len() > told);
    }
    tab.round_trip();
    assert_eq!(tab.store.table("item").len(), 3);
    bystander.finish(PROMPT);
}

/// A core stood for four seconds, for each row and each view.
#[test]
fn a_long_pattern_and_a_long_text_keep_nobody_waiting() {
    let stage = Stage::prepared(THREE, &[]);
    let patterns = (0..8).map(|n| format!("%{}b{}%", "a".repeat(40_000), "_".repeat(n)));
    let patterns: Vec<String> = patterns.chain(["%\0zzz".to_owned()]).collect();
    let asked = patterns.iter().enumerate().map(|(n, pattern)| spelled(&n.to_string(), like(pattern)));
    let mut tab = stage.tab(&[]);
    tab.change(asked.collect());
    tab.until("all answers", |c| (0..patterns.len()).all(|n| c.store.got.contains(&n.to_string())));
    let bystander = stage.bystander();
    let mut sql = stage.connect();
    for id in 0..20 {
        sql.run(&format!("INSERT INTO item VALUES ('long{id}', 'x', 1, repeat('a', 100000))"));
    }
    sql.run("INSERT INTO item VALUES ('found', 'x', 1, repeat('a', 40000) || 'aaaaaaab')");
    tab.until("what matches", |c| c.store.row("item", "found").is_some());
    assert_eq!(tab.store.table("item").len(), 1, "a pattern does not end at a NUL");
    bystander.finish(PROMPT);
}
