//! Messages of clients.

use kelvin::protocol::parse::parse;
use kelvin::protocol::upstream::{MAX_MUTATIONS, MAX_NAME, MAX_QUERY_OPS, QueryOp, Upstream};
use proptest::prelude::*;

use super::engine::fuzz;
use super::mutate::{text, value};

pub const SEEDS: [&str; 9] = [
    r#"["initConnection",{"desiredQueriesPatch":[{"op":"put","hash":"1","name":"q","args":[1,"a"],"ttl":300000},{"op":"del","hash":"2"},{"op":"clear"}],"clientSchema":{"tables":{"t":{"columns":{"id":{"type":"string"}},"primaryKey":["id"]}}},"deleted":{"clientIDs":["x"]},"activeClients":["c"],"userQueryURL":"http://a/b","userQueryHeaders":{"a":"b"},"traceparent":"t"}]"#,
    r#"["changeDesiredQueries",{"desiredQueriesPatch":[{"op":"put","hash":"1","ast":{"table":"item","limit":1}}]}]"#,
    r#"["push",{"clientGroupID":"g","mutations":[{"type":"custom","id":4,"clientID":"c","name":"m","args":[{"a":1}],"timestamp":1.5}],"pushVersion":1,"timestamp":1,"requestID":"r"}]"#,
    r#"["deleteClients",{"clientIDs":["a","b"],"clientGroupIDs":["g"]}]"#,
    r#"["ping",{}]"#,
    r#"["updateAuth",{"auth":"token"}]"#,
    r#"["ackMutationResponses",{"clientID":"c","id":7}]"#,
    r#"["inspect",{"op":"analyze-query","id":"1","value":{"table":"t"},"options":{"vendedRows":true}}]"#,
    r#"["inspect",{"op":"queries","id":"1","clientID":"c"}]"#,
];

/// What every message that is taken keeps to.
fn is_bounded(message: &Upstream) -> bool {
    let short = |op: &QueryOp| match op {
        QueryOp::Put { hash, .. } | QueryOp::Del { hash } => hash.len() <= MAX_NAME,
        QueryOp::Clear => true,
    };
    match message {
        Upstream::InitConnection(init) => {
            init.desired.len() <= MAX_QUERY_OPS && init.desired.iter().all(short)
        }
        Upstream::ChangeDesiredQueries(ops) => ops.len() <= MAX_QUERY_OPS && ops.iter().all(short),
        Upstream::Push(push) => {
            let is_exact = |id: u64| id <= 1 << 53;
            push.mutations.len() <= MAX_MUTATIONS
                && push.mutations.iter().all(|m| is_exact(m.id) && m.client_id.len() <= MAX_NAME)
        }
        _ => true,
    }
}

#[test]
fn messages_of_any_bytes_are_taken_or_refused() {
    let words: Vec<&[u8]> =
        vec![b"\"", b"\\u0000", b"\\ud800", b"{", b"[", b"1e999", b"null", b",", b"\"op\":\"put\""];
    fuzz(text(&SEEDS, words), |text| {
        match parse(&text) {
            Ok(message) => prop_assert!(is_bounded(&message), "{message:?}"),
            Err(why) => prop_assert!(!why.is_empty()),
        }
        Ok(())
    });
}

#[test]
fn messages_mean_the_same_however_they_are_spelled() {
    fuzz(value(&SEEDS), |value| {
        let (short, long) = (value.to_string(), serde_json::to_string_pretty(&value).expect("JSON"));
        match (parse(&short), parse(&long)) {
            (Ok(a), Ok(b)) => {
                prop_assert!(is_bounded(&a));
                // Parts that are passed on keep their spelling.
                let plain = |m: &Upstream| format!("{m:?}").replace("\\n", "").replace(['\n', ' '], "");
                prop_assert_eq!(plain(&a), plain(&b));
            }
            (Err(_), Err(_)) => {}
            (a, b) => prop_assert!(false, "{a:?} and {b:?}"),
        }
        Ok(())
    });
}
