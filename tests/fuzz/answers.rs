//! Answers of the app's backend.

use kelvin::backend::{push, transform};
use kelvin::zql::limits::Limits;
use proptest::prelude::*;

use super::engine::fuzz;
use super::mutate::{bytes, value};

const QUERIES: [&str; 4] = [
    r#"{"kind":"QueryResponse","userID":"u","queries":[{"id":"h","name":"q","ast":{"table":"item","orderBy":[["id","asc"]]}},{"id":"i","name":"r","error":"app","message":"m","details":{"a":1}}]}"#,
    r#"{"kind":"TransformFailed","origin":"server","reason":"database","message":"m","queryIDs":["h"],"details":[1]}"#,
    r#"["transformed",[{"id":"h","name":"q","ast":{"table":"item"}}]]"#,
    r#"["transformFailed",{"origin":"zeroCache","reason":"http","status":500,"bodyPreview":"x","message":"m"}]"#,
];

const MUTATIONS: [&str; 5] = [
    r#"{"kind":"MutateResponse","userID":null,"mutations":[{"id":{"clientID":"c","id":4},"result":{}},{"id":{"clientID":"d","id":1},"result":{"error":"oooMutation","details":{"a":1}}}]}"#,
    r#"{"kind":"PushFailed","origin":"server","reason":"database","message":"m","mutationIDs":[{"clientID":"c","id":4}]}"#,
    r#"{"error":"http","status":401,"details":"no","mutationIDs":[{"clientID":"c","id":4}]}"#,
    r#"{"error":"zeroPusher","details":"d"}"#,
    r#"{"error":"unsupportedPushVersion"}"#,
];

#[test]
fn answers_about_queries_are_understood_or_refused() {
    fuzz(value(&QUERIES), |value| {
        let text = value.to_string();
        if let Ok(answer) = transform::response(text.as_bytes(), &Limits::DEFAULT) {
            let listed =
                value.get("queries").or_else(|| value.get(1)).and_then(|l| l.as_array()).map_or(0, Vec::len);
            prop_assert_eq!(answer.queries.len(), listed);
            prop_assert!(transform::texts(text.as_bytes()).is_ok());
        }
        Ok(())
    });
}

#[test]
fn answers_about_mutations_are_understood_or_refused() {
    let ids = [("c".to_owned(), 4), ("d".to_owned(), 1)];
    fuzz(value(&MUTATIONS), |value| {
        if let Ok(outcome) = push::response(value.to_string().as_bytes(), &ids) {
            prop_assert!(value.is_object(), "a list in the right order is no answer");
            // Each client is told once.
            let mut clients: Vec<&String> = outcome.errors.iter().map(|(client, _)| client).collect();
            let all = clients.len();
            clients.sort();
            clients.dedup();
            prop_assert_eq!(clients.len(), all);
        }
        Ok(())
    });
}

#[test]
fn answers_of_any_bytes_are_understood_or_refused() {
    let seeds = QUERIES.iter().chain(&MUTATIONS).map(|seed| seed.as_bytes().to_vec()).collect();
    fuzz(bytes(seeds, vec![b"[[[[", b"\\ud800", b"\xff", b"{\"", b"1e999"]), |bytes| {
        let _ = transform::response(&bytes, &Limits::DEFAULT);
        let _ = transform::texts(&bytes);
        let _ = push::response(&bytes, &[]);
        Ok(())
    });
}
