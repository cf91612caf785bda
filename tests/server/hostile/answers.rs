//! Answers of the app's backend, which somebody has taken over, or that was never good: bytes that are no HTTP, HTTP
//! that is no answer, answers to what nobody asked.

use serde_json::{Value, json};

use super::outcome::Outcome::{self, Error, Served};
use super::suite::Suite;
use crate::support::app::{Answer, Call, query};

type Row = (&'static str, Answer, Outcome);

fn bytes(text: &str) -> Answer {
    Answer::Bytes(text.as_bytes().to_vec())
}

/// A whole answer with this head and body.
fn answer(head: &str, body: &str) -> Answer {
    bytes(&format!("HTTP/1.1 {head}\r\n\r\n{body}"))
}

fn no_http() -> Vec<Row> {
    let row = |name, answer| (name, answer, Error("TransformFailed"));
    let good = r#"{"kind":"QueryResponse","queries":[]}"#;
    let chunked = |body: &str| answer("200 OK\r\nTransfer-Encoding: chunked", body);
    vec![
        row("no answer", Answer::Drop),
        row("an empty line", bytes("\r\n\r\n")),
        row("a greeting of TLS", bytes("\x15\x03\x01\x00\x02\x02\x28")),
        row("JSON without a head", bytes(good)),
        row("zeros", Answer::Bytes(vec![0; 1 << 20])),
        row("a version that is not there", bytes("HTTP/7.7 200 OK\r\n\r\n")),
        row("a status of letters", answer("two hundred", "")),
        row("a status beyond all", answer("99999 x", "")),
        row("another protocol", answer("101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade", "x")),
        row("a length that is none", answer("200 OK\r\nContent-Length: many", good)),
        row("a length below nothing", answer("200 OK\r\nContent-Length: -1", good)),
        row("two lengths", answer("200 OK\r\nContent-Length: 1\r\nContent-Length: 37", good)),
        row("less than was announced", answer("200 OK\r\nContent-Length: 1000", good)),
        row("more than there is memory", answer("200 OK\r\nContent-Length: 18446744073709551615", good)),
        row("a chunk of a size that is none", chunked("zz\r\n{}\r\n0\r\n\r\n")),
        row("a chunk of a size beyond all", chunked("ffffffffffffffffff\r\n{}\r\n0\r\n\r\n")),
        row("a chunk that ends early", chunked("ff\r\n{}")),
        row(
            "a head without an end",
            Answer::Endless(b"HTTP/1.1 200 OK\r\n".to_vec(), b"X-A: 1\r\n".repeat(1_000)),
        ),
        row(
            "a header without an end",
            Answer::Endless(b"HTTP/1.1 200 OK\r\nX-A: ".to_vec(), vec![b'x'; 64 << 10]),
        ),
        row(
            "a body without an end",
            Answer::Endless(b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), vec![b' '; 64 << 10]),
        ),
        row(
            "chunks without an end",
            Answer::Endless(
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec(),
                b"1\r\nx\r\n".repeat(10_000),
            ),
        ),
        row(
            "extensions of a chunk without an end",
            Answer::Endless(
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;".to_vec(),
                vec![b'x'; 64 << 10],
            ),
        ),
        row(
            "a body that is compressed",
            Answer::Bytes(
                [&b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n\x1f\x8b\x08\x00"[..], &[0; 100]]
                    .concat(),
            ),
        ),
        row("nothing, with success", answer("204 No Content\r\nContent-Length: 37", good)),
        row("it is elsewhere", answer("307 x\r\nLocation: http://169.254.169.254/\r\nContent-Length: 0", "")),
        row("it is where it was", answer("302 x\r\nLocation: /query\r\nContent-Length: 0", "")),
        row("it has not changed", answer("304 Not Modified", "")),
        row("an error of a megabyte", Answer::Status(400, Box::leak("é".repeat(1 << 19).into_boxed_str()))),
        row("not allowed", Answer::Status(401, "no")),
    ]
}

/// Bodies of `/query` that are no answer to what was asked.
fn no_answers() -> Vec<Row> {
    let row = |name, body: &str| (name, Answer::Text(body.to_owned()), Error("TransformFailed"));
    let queries = |entries: Value| json!({"kind": "QueryResponse", "queries": entries}).to_string();
    let one = |entry: Value| queries(json!([entry]));
    vec![
        row("an empty body", ""),
        row("null", "null"),
        row("a list", "[]"),
        row("an object", "{}"),
        row("a page", "<html><body>Bad Gateway</body></html>"),
        row("lists without an end", &"[".repeat(1 << 20)),
        row("objects without an end", &r#"{"kind":"#.repeat(1 << 17)),
        row("ten megabytes of zeros", &"0".repeat(10 << 20)),
        row("another kind", r#"{"kind":"MutateResponse","queries":[]}"#),
        row("a kind that is a list", r#"{"kind":["QueryResponse"],"queries":[]}"#),
        row("a kind twice", r#"{"kind":"QueryResponse","kind":"QueryResponse","queries":[]}"#),
        row("no queries", r#"{"kind":"QueryResponse"}"#),
        row("queries that are none", r#"{"kind":"QueryResponse","queries":{"length":1}}"#),
        row("a query that is null", &queries(json!([null]))),
        row("a query without an id", &one(json!({"name": "q", "ast": {"table": "item"}}))),
        row("an id that is a number", &one(json!({"id": 1, "name": "q", "ast": {"table": "item"}}))),
        row("neither a query nor an error", &one(json!({"id": "h", "name": "q"}))),
        row("an error that nobody knows", &one(json!({"id": "h", "name": "q", "error": "panic"}))),
        row("an error that does not say what", &one(json!({"id": "h", "name": "q", "error": "parse"}))),
        row("a user that is a number", r#"{"kind":"QueryResponse","userID":7,"queries":[]}"#),
        row(
            "a failure that nobody knows",
            r#"{"kind":"TransformFailed","origin":"client","reason":"x","message":"m","queryIDs":[]}"#,
        ),
        row("a failure of nothing", r#"{"kind":"TransformFailed"}"#),
        row(
            "an old failure",
            r#"["transformFailed",{"origin":"server","reason":"database","message":"m","queryIDs":[]}]"#,
        ),
        row("an old answer of three", r#"["transformed",[],[]]"#),
        row("half a character", r#"{"kind":"\ud800","queries":[]}"#),
        ("another user", Answer::User(json!("somebody else")), Error("Unauthorized")),
        ("nobody", Answer::User(Value::Null), Error("Unauthorized")),
    ]
}

/// Answers that can be read, of which only what was asked for counts.
fn answers_to_other_questions() -> Vec<Row> {
    let ticks = json!({"table": "tick"});
    let queries =
        |entries: Vec<Value>| Answer::Text(json!({"kind": "QueryResponse", "queries": entries}).to_string());
    let entry = |id: &str| json!({"id": id, "name": "q", "ast": ticks});
    let refusal =
        |details: Value| json!({"id": "h", "name": "q", "error": "app", "message": "m", "details": details});
    let row = |name, answer| (name, answer, Served);
    let deep = format!(
        r#"{{"kind":"QueryResponse","more":{}{},"queries":[]}}"#,
        "[".repeat(50_000),
        "]".repeat(50_000)
    );
    vec![
        row("nothing that was asked for", queries(vec![])),
        row("what the bystander asked for", queries(vec![entry("itemsOf:[\"bystander\"]")])),
        row("what nobody asked for", queries(vec![entry("nobody's")])),
        row(
            "ten thousand that nobody asked for",
            queries((0..10_000).map(|n| entry(&n.to_string())).collect()),
        ),
        row("the same a thousand times", queries(vec![entry("h"); 1_000])),
        row("an answer and a refusal", queries(vec![entry("h"), refusal(json!(1))])),
        row("a refusal and an answer", queries(vec![refusal(json!(1)), entry("h")])),
        row("a refusal of a megabyte", queries(vec![refusal(json!("x".repeat(1 << 20)))])),
        row("a refusal with markup", queries(vec![refusal(json!("</script><script>\u{2028}"))])),
        row("what nobody reads, deep", Answer::Text(deep)),
        row(
            "two answers",
            answer(
                "200 OK\r\nContent-Length: 37",
                &format!(
                    "{}HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx",
                    r#"{"kind":"QueryResponse","queries":[]}"#
                ),
            ),
        ),
        row(
            "a thousand times: go on",
            bytes(&format!(
                "{}HTTP/1.1 200 OK\r\n\r\n{}",
                "HTTP/1.1 100 Continue\r\n\r\n".repeat(1_000),
                r#"{"kind":"QueryResponse","queries":[]}"#
            )),
        ),
        row(
            "a mark before it",
            Answer::Bytes(
                b"HTTP/1.1 200 OK\r\n\r\n\xef\xbb\xbf{\"kind\":\"QueryResponse\",\"queries\":[]}".to_vec(),
            ),
        ),
    ]
}

#[test]
fn answers_about_queries() {
    let mut suite = Suite::new(&[]);
    for (name, answer, outcome) in [no_http(), no_answers(), answers_to_other_questions()].concat() {
        suite.input(name, |suite| {
            let mut client = suite.tab_whose_app_says(answer);
            let token = client.token.clone().expect("a token");
            let calls = suite.stage.app.queries_with(&token).len();
            client.change(vec![json!({"op": "put", "hash": "h", "name": "refused", "args": []})]);
            if outcome == Served {
                suite.stage.app.until_queries_with(&token, calls + 1);
                // The next question is asked when the answer to this one has been looked at.
                suite.stage.app.rule_query(&token, None);
                client.change(vec![query("ticks", json!([])).put()]);
                client.until_got(&[query("ticks", json!([]))]);
                assert!(
                    client.store.table("item").is_empty(),
                    "{name}: rows of a query that was not answered"
                );
            }
            outcome.check(&mut client, name);
        });
    }
    suite.finish();
}

/// Bodies of `/mutate`.
fn about_mutations() -> Vec<Row> {
    let failed = |rest: &str| Answer::Text(format!(r#"{{"kind":"PushFailed","message":"m",{rest}}}"#));
    let result = |client: &str, id: &str, result: &str| {
        Answer::Text(format!(
            r#"{{"kind":"MutateResponse","mutations":[{{"id":{{"clientID":{client},"id":{id}}},"result":{result}}}]}}"#
        ))
    };
    let text = |body: &str| Answer::Text(body.to_owned());
    let error = |name, answer| (name, answer, Error("PushFailed"));
    let served = |name, answer| (name, answer, Served);
    vec![
        error("no answer", Answer::Drop),
        error("no JSON", text("<html>")),
        error("a list", text("[]")),
        error("a list in the order of an answer", text(r#"["MutateResponse",null,[]]"#)),
        error("an object", text("{}")),
        error("lists without an end", text(&"[".repeat(1 << 20))),
        error(
            "a body without an end",
            Answer::Endless(b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), vec![b' '; 64 << 10]),
        ),
        error("a mutation below nothing", result("\"c\"", "-1", "{}")),
        error("half a mutation", result("\"c\"", "1.5", "{}")),
        error("a client that is a number", result("7", "1", "{}")),
        error("a result that is none", result("\"c\"", "1", "null")),
        error("an error that nobody knows", result("\"c\"", "1", r#"{"error":"panic"}"#)),
        error("a failure without ids", failed(r#""origin":"server","reason":"database""#)),
        error(
            "a failure that nobody knows",
            failed(r#""origin":"server","reason":"weather","mutationIDs":[]"#),
        ),
        error("an old failure that nobody knows", text(r#"{"error":"weather"}"#)),
        error(
            "an old failure with a status beyond all",
            text(r#"{"error":"http","status":70000,"details":"x"}"#),
        ),
        error("another user", Answer::User(json!("somebody else"))),
        error("an error of a megabyte", Answer::Status(400, Box::leak("é".repeat(1 << 19).into_boxed_str()))),
        served("results of nobody", result("\"nobody\"", "1", "{}")),
        served("results of the bystander", result("\"BYSTANDER\"", "1", r#"{"error":"oooMutation"}"#)),
        served(
            "a failure of the bystander's",
            failed(
                r#""origin":"server","reason":"database","mutationIDs":[{"clientID":"BYSTANDER","id":1}]"#,
            ),
        ),
        served("a failure of nobody's", failed(r#""origin":"server","reason":"database","mutationIDs":[]"#)),
        served(
            "results of a megabyte",
            result("\"c\"", "1", &format!(r#"{{"error":"app","details":"{}"}}"#, "x".repeat(1 << 20))),
        ),
        served(
            "ten thousand results",
            text(&format!(
                r#"{{"mutations":[{}]}}"#,
                vec![r#"{"id":{"clientID":"c","id":1},"result":{}}"#; 10_000].join(",")
            )),
        ),
    ]
}

#[test]
fn answers_about_mutations() {
    let mut suite = Suite::new(&[]);
    for (name, answer, outcome) in about_mutations() {
        suite.input(name, |suite| {
            let answer = match answer {
                Answer::Text(text) => Answer::Text(text.replace("BYSTANDER", &suite.bystander.id)),
                other => other,
            };
            let mut client = suite.tab_whose_app_says(Answer::Normal);
            let token = client.token.clone().expect("a token");
            suite.stage.app.rule_mutate(&token, Some(answer));
            client.mutate("put", json!({"id": "hostile", "owner": "hostile", "n": 1}));
            if outcome == Served {
                let of_client = |call: &Call| call.body["clientGroupID"] == client.group.as_str();
                suite.stage.app.until_mutation("the push", of_client);
                suite.stage.app.rule_mutate(&token, None);
                client.mutate("put", json!({"id": "after", "owner": "hostile", "n": 1}));
                // Whatever was said of the first, it was not made: the second comes too early.
                return Error("PushFailed").check(&mut client, name);
            }
            outcome.check(&mut client, name);
        });
    }
    suite.finish();
}
