//! The app's endpoints fail, refuse, or are asked with the wrong identity.

use crate::support::app::{Answer, App, Call, Query, query};
use crate::support::client::{Client, Event, WAIT};
use crate::support::ports::free_port;
use crate::support::stage::Stage;
use serde_json::{Value, json};

const THREE: &str = "INSERT INTO item VALUES ('a', 'x', 1, NULL), ('b', 'x', 1, NULL), ('c', 'y', 1, NULL)";

fn items() -> Query {
    query("items", json!([]))
}

fn of(owner: &str) -> Query {
    query("itemsOf", json!([owner]))
}

fn with(stage: &Stage, queries: &[Query]) -> Client {
    let mut client = stage.client();
    client.connect(queries);
    client.until_got(queries);
    client
}

/// Connects with the app answering so; returns the error that comes of it, and how often
/// the app was called.
fn refusal(stage: &Stage, answers: Vec<Answer>) -> (Value, usize) {
    let mut bystander = with(stage, &[items()]);
    let before = stage.app.queries().len();
    stage.app.script_query(answers);
    let mut client = stage.client();
    client.connect(&[items()]);
    // An error waits for a first message.
    client.ping();
    let error = client.until_error();
    let calls = stage.app.queries().len() - before;
    assert_eq!(error["kind"], "TransformFailed", "{error}");
    assert!(error["queryIDs"].is_array(), "{error}");
    assert!(client.pokes.is_empty(), "nothing was told before the app agreed");
    bystander.round_trip();
    (error, calls)
}

#[test]
fn transformations_that_fail_as_a_whole() {
    let stage = Stage::prepared(THREE, &[]);
    let text = |text: &str| vec![Answer::Text(text.to_owned())];
    let (error, calls) = refusal(&stage, vec![Answer::Status(401, "who are you?")]);
    assert_eq!((&error["origin"], &error["reason"]), (&json!("zeroCache"), &json!("http")));
    assert_eq!((&error["status"], &error["bodyPreview"], calls), (&json!(401), &json!("who are you?"), 1));
    let (error, calls) = refusal(&stage, vec![Answer::Status(400, "bad")]);
    assert_eq!((&error["status"], calls), (&json!(400), 1), "not tried again");
    let (error, calls) = refusal(&stage, vec![Answer::Status(500, "oops"); 4]);
    assert_eq!((&error["status"], calls), (&json!(500), 4));
    let (error, calls) = refusal(&stage, text("<html>not JSON</html>"));
    assert_eq!((&error["reason"], calls), (&json!("parse"), 1));
    for malformed in [
        r#"{"kind":"Other"}"#,
        "[]",
        "7",
        r#"["transformed",{}]"#,
        r#"{"kind":"QueryResponse","queries":[{"id":"x"}]}"#,
    ] {
        let (error, _) = refusal(&stage, text(malformed));
        assert_eq!(error["reason"], "parse", "{malformed}");
    }
    let failed = json!({"kind": "TransformFailed", "origin": "server", "reason": "database", "message": "db down",
                        "queryIDs": [], "details": {"a": 1}});
    for body in [failed.to_string(), json!(["transformFailed", failed]).to_string()] {
        let (error, _) = refusal(&stage, text(&body));
        assert_eq!((&error["origin"], &error["reason"]), (&json!("server"), &json!("database")));
        assert_eq!((&error["message"], &error["details"]), (&json!("db down"), &json!({"a": 1})));
    }
    // A long page of an error is not passed on as a whole.
    let (error, _) = refusal(&stage, vec![Answer::Status(404, LONG)]);
    let preview = error["bodyPreview"].as_str().expect("a preview");
    assert!(preview.chars().count() == 515 && preview.ends_with("..."), "{}", preview.len());
}

const LONG: &str = concat!(
    "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789",
    "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789",
    "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789",
    "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789",
    "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789",
    "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789",
);

#[test]
fn failures_that_pass_are_not_noticed() {
    let stage = Stage::prepared(THREE, &[]);
    stage.app.script_query(vec![Answer::Status(500, "x"), Answer::Status(503, "x"), Answer::Drop]);
    let tab = with(&stage, &[items()]);
    assert_eq!(tab.store.rows.len(), 3);
    assert_eq!(stage.app.queries().len(), 4);
    stage.app.script_query([Answer::Legacy]);
    assert_eq!(with(&stage, &[items()]).store.rows.len(), 3);
}

#[test]
fn a_failure_later_on_ends_the_connection_that_asked() {
    let stage = Stage::prepared(THREE, &[]);
    let mut tab = with(&stage, &[items()]);
    let mut other = tab.sibling();
    other.connect(&[]);
    other.until("a poke", |c| !c.pokes.is_empty());
    let before = stage.app.queries().len();
    stage.app.script_query([Answer::Status(400, "no")]);
    tab.change(vec![of("x").put()]);
    let error = tab.until_error();
    assert_eq!((&error["kind"], &error["status"]), (&json!("TransformFailed"), &json!(400)));
    assert_eq!(error["queryIDs"], json!([of("x").hash()]), "only what was missing was asked for");
    assert_eq!(stage.app.queries()[before].names(), ["itemsOf"]);
    other.round_trip();
    tab.connect(&[]);
    tab.until_got(&[of("x")]);
}

#[test]
fn an_app_that_is_not_there() {
    let url = format!("http://127.0.0.1:{}/query", free_port());
    let stage = Stage::new(&[("QUERY_URL", &url)]);
    let mut tab = stage.client();
    tab.connect(&[items()]);
    let error = tab.until_error();
    assert_eq!((&error["kind"], &error["reason"]), (&json!("TransformFailed"), &json!("internal")));
    // Without any: named queries are never answered, and that is no error.
    let stage = Stage::new(&[("QUERY_URL", "")]);
    let mut tab = stage.client();
    tab.connect(&[items()]);
    tab.until("its wish is noted", |c| c.store.desired.get(&c.id).is_some_and(|d| d.len() == 1));
    tab.round_trip();
    assert!(tab.store.got.is_empty());
}

fn call(app: &App, which: usize) -> Call {
    app.until_queries(which + 1)[which].clone()
}

#[test]
fn what_goes_along_to_the_app() {
    let stage = Stage::prepared(
        THREE,
        &[
            ("QUERY_API_KEY", "key"),
            ("QUERY_FORWARD_COOKIES", "true"),
            ("QUERY_ALLOWED_CLIENT_HEADERS", "X-Tenant"),
            ("QUERY_ALLOWED_REQUEST_HEADERS", "x-trace,accept-language"),
            ("MUTATE_API_KEY", "other key"),
        ],
    );
    let mut tab = stage.client();
    tab.token = Some("token".into());
    tab.user = Some("u1".into());
    let header = |n: &str, v: &str| (n.to_owned(), v.to_owned());
    tab.headers = vec![
        header("Cookie", "session=1"),
        header("Origin", "https://app.example"),
        header("X-Trace", "abc"),
        header("X-Secret", "no"),
    ];
    tab.init = json!({"userQueryHeaders": {"x-tenant": "7", "x-other": "no", "authorization": "no"},
                      "userPushHeaders": {"x-tenant": "7"}});
    tab.connect(&[items()]);
    tab.until_got(&[items()]);
    let asked = call(&stage.app, 0).request;
    let target = &asked.target;
    assert!(target.contains("schema=zero_0") && target.contains("appID=zero"), "{target}");
    let expected = [
        ("authorization", Some("Bearer token")),
        ("x-api-key", Some("key")),
        ("cookie", Some("session=1")),
        ("origin", Some("https://app.example")),
        ("x-trace", Some("abc")),
        ("x-tenant", Some("7")),
        ("content-type", Some("application/json")),
        ("x-secret", None),
        ("x-other", None),
    ];
    for (name, value) in expected {
        assert_eq!(asked.header(name), value, "{name}");
    }
    tab.mutate("put", json!({"id": "a", "n": 2}));
    let pushed = stage.app.until_mutation("a push", |_| true).remove(0).request;
    let expected = [
        ("authorization", Some("Bearer token")),
        ("x-api-key", Some("other key")),
        ("origin", Some("https://app.example")),
        ("cookie", None),
        ("x-trace", None),
        ("x-tenant", None),
    ];
    for (name, value) in expected {
        assert_eq!(pushed.header(name), value, "{name} of a push");
    }
}

#[test]
fn urls_that_clients_choose() {
    let stage = Stage::prepared(THREE, &[]);
    let connect = |url: String| {
        let mut tab = stage.client();
        tab.init = json!({"userQueryURL": url});
        tab.connect(&[items()]);
        tab
    };
    let before = stage.app.queries().len();
    let mut elsewhere = connect(format!("http://127.0.0.1:{}/mutate", stage.app.port));
    let error = elsewhere.until_error();
    assert_eq!((&error["kind"], &error["reason"]), (&json!("TransformFailed"), &json!("internal")));
    let mut taken = connect(format!("{}?schema=mine", stage.app.query_url()));
    assert_eq!(taken.until_error()["reason"], "internal");
    assert_eq!(stage.app.queries().len(), before, "nobody was called");
    let mut kept = connect(format!("{}?tenant=7", stage.app.query_url()));
    kept.until_got(&[items()]);
    let target = &call(&stage.app, before).request.target;
    assert!(target.contains("tenant=7") && target.contains("schema=zero_0"), "{target}");
}

#[test]
fn users_that_do_not_match() {
    let stage = Stage::prepared(THREE, &[]);
    // The app knows better who it was asked by.
    let mut tab = stage.client();
    tab.user = Some("u1".into());
    stage.app.script_query([Answer::User(json!("u2"))]);
    tab.connect(&[items()]);
    assert_eq!(tab.until_error()["kind"], "Unauthorized");
    let mut tab = stage.client();
    tab.user = Some("u1".into());
    stage.app.script_query([Answer::User(Value::Null)]);
    tab.connect(&[items()]);
    assert_eq!(tab.until_error()["kind"], "Unauthorized");
    stage.app.script_query([Answer::User(json!("u1"))]);
    tab.connect(&[items()]);
    tab.until_got(&[items()]);
    // A group is one user's.
    let mut other = Client::in_group(&stage.server, &tab.group);
    for user in [None, Some("u2".to_owned())] {
        other.user = user;
        other.open(Some(&json!({"desiredQueriesPatch": []})));
        match (other.next(WAIT), other.next(WAIT)) {
            (Some(Event::Error(error)), Some(Event::Closed(Some(3000), reason))) => {
                assert_eq!(error["kind"], "Unauthorized");
                assert!(error["message"].as_str().is_some_and(|m| m.starts_with(&reason)), "{reason}");
            }
            other => panic!("{other:?}"),
        }
    }
    tab.round_trip();
}

#[test]
fn tokens_that_cannot_be_used() {
    let refused = |stage: &Stage, user: Option<&str>, kind: &str| {
        let mut tab = stage.client();
        tab.token = Some("token".into());
        tab.user = user.map(str::to_owned);
        tab.open(Some(&json!({"desiredQueriesPatch": []})));
        match (tab.next(WAIT), tab.next(WAIT)) {
            (Some(Event::Error(error)), Some(Event::Closed(Some(3000), _))) => {
                assert_eq!(error["kind"], kind)
            }
            other => panic!("{other:?}"),
        }
    };
    let stage = Stage::new(&[]);
    refused(&stage, None, "Unauthorized");
    // Nobody to show it to: said, not left unanswered.
    let stage = Stage::new(&[("MUTATE_URL", "")]);
    refused(&stage, Some("u1"), "AuthInvalidated");
}

#[test]
fn tokens_that_are_replaced() {
    let stage = Stage::prepared(THREE, &[]);
    let mut tab = stage.client();
    tab.user = Some("u1".into());
    tab.token = Some("first".into());
    tab.connect(&[items()]);
    tab.until_got(&[items()]);
    let mut other = tab.sibling();
    other.connect(&[]);
    other.until("a poke", |c| !c.pokes.is_empty());
    other.round_trip();
    tab.round_trip();
    let before = stage.app.queries().len();
    let pokes = tab.pokes.len();
    tab.send(json!(["updateAuth", {"auth": "first"}]));
    tab.round_trip();
    assert_eq!(stage.app.queries().len(), before, "the same token is no news");
    tab.send(json!(["updateAuth", {"auth": "second"}]));
    let asked = call(&stage.app, before);
    assert_eq!(asked.request.header("authorization"), Some("Bearer second"));
    assert_eq!(asked.names(), ["items"], "everything is asked for again");
    tab.round_trip();
    assert_eq!(tab.pokes.len(), pokes, "the same answer is no change");
    tab.mutate("put", json!({"id": "a", "n": 2}));
    let pushed = stage.app.until_mutation("a push", |_| true).remove(0);
    assert_eq!(pushed.request.header("authorization"), Some("Bearer second"));
    stage.app.script_query([Answer::Status(403, "no")]);
    tab.send(json!(["updateAuth", {"auth": "third"}]));
    let error = tab.until_error();
    assert_eq!((&error["kind"], &error["status"]), (&json!("TransformFailed"), &json!(403)));
    other.round_trip();
    other.send(json!(["updateAuth", {"auth": ""}]));
    assert_eq!(other.until_error()["kind"], "Unauthorized");
}

#[test]
fn an_answer_that_changes_takes_the_place_of_the_old_one() {
    let stage = Stage::prepared(THREE, &[]);
    let mut tab = stage.client();
    tab.user = Some("u1".into());
    tab.token = Some("first".into());
    tab.connect(&[items()]);
    tab.until_got(&[items()]);
    let narrower = |owner: &str| {
        let ast = json!({"table": "item", "orderBy": [["id", "asc"]], "where":
            {"type": "simple", "op": "=", "left": {"type": "column", "name": "owner"},
             "right": {"type": "literal", "value": owner}}});
        let query = json!({"id": items().hash(), "name": "items", "ast": ast});
        Answer::Text(json!({"kind": "QueryResponse", "queries": [query]}).to_string())
    };
    let before = tab.pokes.len();
    stage.app.script_query([narrower("y")]);
    tab.send(json!(["updateAuth", {"auth": "second"}]));
    tab.until("fewer rows", |c| c.store.rows.len() == 1);
    let [poke] = &tab.pokes[before..] else { panic!("{:?}", &tab.pokes[before..]) };
    assert_eq!(
        (poke.dels.len(), poke.puts.len(), poke.got.len()),
        (2, 0, 0),
        "the rows that differ, nothing else"
    );
    // Refused from now on: what it gave goes.
    let refused = json!({"kind": "QueryResponse", "queries": [
        {"id": items().hash(), "name": "items", "error": "app", "message": "no more"}]});
    stage.app.script_query([Answer::Text(refused.to_string())]);
    tab.send(json!(["updateAuth", {"auth": "third"}]));
    tab.until("its end", |c| c.store.got.is_empty() && c.store.rows.is_empty());
    assert_eq!(tab.refused.len(), 1);
    // The app's users try again by asking again.
    tab.change(vec![items().del(), items().put()]);
    tab.until_got(&[items()]);
    assert_eq!(tab.store.rows.len(), 3);
}

/// Calls of one endpoint under way at a time from one core (`src/backend/call.rs`).
const MAX_CALLS: usize = 128;

#[test]
fn no_more_calls_than_the_limit_are_under_way_and_the_others_come_when_they_are_answered() {
    const GROUPS: usize = 300;
    let stage = Stage::prepared(THREE, &[]);
    let mut bystander = with(&stage, &[items()]);
    let before = stage.app.queries().len();
    stage.app.script_query(vec![Answer::Hang; GROUPS]);
    let ask = |at: usize| {
        let mut client = stage.client();
        client.connect(&[of(&format!("owner {at}"))]);
        client
    };
    let mut clients: Vec<Client> = (0..GROUPS).map(ask).collect();
    let mut answered = 0;
    while answered < GROUPS {
        let under_way = MAX_CALLS.min(GROUPS - answered);
        stage.app.until_queries(before + answered + under_way);
        // More would have come by now.
        bystander.quiet("while the app holds its answers");
        assert_eq!(
            stage.app.queries().len() - before,
            answered + under_way,
            "calls after {answered} answers"
        );
        stage.app.release();
        answered += under_way;
    }
    for (at, client) in clients.iter_mut().enumerate() {
        client.until_got(&[of(&format!("owner {at}"))]);
    }
    let calls = stage.app.queries().len() - before;
    assert_eq!(calls, GROUPS, "each was asked once");
}
