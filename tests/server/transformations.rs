//! Named queries: too much is asked of the app, or what it answers reaches the wrong clients, or
//! none (`docs/spec/view-syncer.md` §8).

use crate::support::app::{Answer, Query, THREE, items, of, query};
use crate::support::client::{Client, Event};
use crate::support::stage::Stage;
use serde_json::{Value, json};

fn second(tab: &Client, queries: &[Query]) -> Client {
    let mut second = tab.sibling();
    second.connect(queries);
    second.until("a poke", |c| !c.pokes.is_empty());
    second
}

/// An answer with these entries.
fn entries(entries: &[Value]) -> Answer {
    Answer::Text(json!({"kind": "QueryResponse", "queries": entries}).to_string())
}

fn refusal(query: &Query) -> Value {
    json!({"id": query.hash(), "name": query.name, "error": "app", "message": "no"})
}

fn answer(query: &Query) -> Value {
    let ast = json!({"table": "item", "orderBy": [["id", "asc"]]});
    json!({"id": query.hash(), "name": query.name, "ast": ast})
}

#[test]
fn the_app_is_asked_once_and_before_anything_is_told() {
    let stage = Stage::prepared(THREE, &[]);
    stage.app.script_query([Answer::Hang]);
    let mut tab = stage.client();
    tab.connect(&[items(), of("x")]);
    let calls = stage.app.until_queries(1);
    assert_eq!(calls[0].body[0], "transform");
    let asked = |q: &Query| json!({"id": q.hash(), "name": q.name, "args": q.args});
    assert_eq!(calls[0].body[1], json!([asked(&items()), asked(&of("x"))]));
    tab.quiet("nothing is told before the app has agreed");
    stage.app.release();
    tab.until_got(&[items(), of("x")]);
    tab.round_trip();
    assert_eq!(stage.app.queries().len(), 1);
    // Without queries the call asks whether the client is let in.
    let mut idle = stage.client();
    idle.connect(&[]);
    idle.until("a poke", |c| !c.pokes.is_empty());
    assert_eq!(stage.app.until_queries(2)[1].body, json!(["transform", []]));
    // A second tab has all of them transformed with its own identity; the first is not asked about.
    let mut other = second(&tab, &[of("y")]);
    other.until_got(&[of("y")]);
    let mut names = stage.app.until_queries(3)[2].names();
    names.sort();
    assert_eq!(names, ["items", "itemsOf", "itemsOf"]);
    other.round_trip();
    assert_eq!(stage.app.queries().len(), 3);
}

#[test]
fn a_client_that_was_not_let_in_has_left_no_trace() {
    let stage = Stage::prepared(THREE, &[]);
    let mut first = stage.tab(&[items()]);
    let mut refused = first.sibling();
    for status in [401, 403] {
        stage.app.script_query([Answer::Status(status, "no")]);
        refused.connect(&[of("x")]);
        let error = refused.until_error();
        assert_eq!((&error["kind"], &error["status"]), (&json!("TransformFailed"), &json!(status)));
        assert_eq!(error["reason"], "http");
    }
    first.quiet("the others do not hear of it");
    assert!(!first.store.desired.contains_key(&refused.id));
    // The group began with it: there is none.
    let mut alone = stage.client();
    stage.app.script_query([Answer::Status(401, "no")]);
    alone.connect(&[items()]);
    alone.until_error();
    alone.open(Some(&json!({"desiredQueriesPatch": []})));
    alone.until_connected();
    assert_eq!(alone.until_error()["kind"], "InvalidConnectionRequest", "its schema was not kept");
}

#[test]
fn a_refusal_is_told_to_those_who_want_the_query() {
    let stage = Stage::prepared(THREE, &[]);
    let refused = query("refused", json!([]));
    let mut other = stage.tab(&[items()]);
    let mut tab = other.sibling();
    tab.connect(&[of("x"), refused.clone()]);
    // First the error, then the poke without the query.
    let mut told = false;
    let del = ("del".to_owned(), refused.hash());
    tab.until_event("the poke without it", |event| match event {
        Event::TransformError(errors) => {
            let expected = json!({"error": "app", "id": refused.hash(), "name": "refused",
                                  "message": "not for you", "details": {"code": 7}});
            assert_eq!(errors, [expected]);
            assert!(!std::mem::replace(&mut told, true), "it is told once");
            None
        }
        Event::Poke(poke) => poke.got.contains(&del).then_some(()),
        Event::Pong => None,
        other => panic!("{other:?}"),
    });
    assert!(told, "the poke came first");
    tab.until_got(&[of("x")]);
    assert!(tab.store.desired[&tab.id].contains(&refused.hash()), "it is still wanted");
    other.until("the other query", |c| c.store.got.contains(&of("x").hash()));
    other.round_trip();
    assert!(other.refused.is_empty(), "who does not want it is not told");
    // Who wants it later is told, too.
    let before = tab.refused.len();
    other.change(vec![refused.put()]);
    other.until("its refusal", |c| !c.refused.is_empty());
    tab.until("the refusal of what it wants", |c| c.refused.len() > before);
}

#[test]
fn a_query_that_was_refused_is_asked_for_again_when_somebody_wants_it_again() {
    let stage = Stage::prepared(THREE, &[]);
    stage.app.script_query([entries(&[refusal(&items())])]);
    let mut tab = stage.client();
    tab.connect(&[items()]);
    tab.until("its refusal", |c| !c.refused.is_empty());
    // Not for nothing.
    let calls = stage.app.queries().len();
    tab.change(vec![of("x").put()]);
    tab.until_got(&[of("x")]);
    assert_eq!(stage.app.queries()[calls].names(), ["itemsOf"]);
    // By another tab: both have it.
    let mut other = second(&tab, &[items()]);
    other.until_got(&[items()]);
    tab.until_got(&[items()]);
    assert_eq!(tab.store.rows.len(), 3);
}

#[test]
fn a_query_that_the_answer_leaves_out_stays_as_it_is() {
    let stage = Stage::prepared(THREE, &[]);
    stage.app.script_query([entries(&[answer(&of("x"))]), entries(&[])]);
    let mut tab = stage.client();
    tab.connect(&[items(), of("x")]);
    tab.until_got(&[of("x")]);
    tab.round_trip();
    assert!(!tab.store.got.contains(&items().hash()) && tab.refused.is_empty());
    // The next answer has it.
    tab.change(vec![of("y").put()]);
    tab.until_got(&[items(), of("y")]);
}

#[test]
fn an_answer_that_is_none_is_told() {
    let stage = Stage::prepared(THREE, &[]);
    let id = items().hash();
    let one = |entry: Value| json!({"kind": "QueryResponse", "queries": [entry]}).to_string();
    let failed = |more: Value| {
        let mut body = json!({"kind": "TransformFailed", "queryIDs": [], "message": "m"});
        body.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        body.to_string()
    };
    let answers = [
        "{}".to_owned(),
        "[]".to_owned(),
        "null".to_owned(),
        r#"{"kind":"QueryResponse"}"#.to_owned(),
        r#"{"kind":"QueryResponse","userID":7,"queries":[]}"#.to_owned(),
        // Clients stop for good at an entry that they cannot read.
        one(json!({"id": id, "name": "items", "error": "parse"})),
        one(json!({"id": id, "name": "items", "error": "app", "message": 7})),
        one(json!({"id": id, "error": "app"})),
        one(json!({"id": id, "name": "items", "error": "zero", "details": 1})),
        one(json!({"id": id, "name": "items", "ast": {"where": 7}})),
        failed(json!({"origin": "server", "reason": "strange"})),
        failed(json!({"origin": "zeroCache", "reason": "http"})),
        failed(json!({"origin": "server"})),
        r#"{"kind":"TransformFailed","origin":"server","reason":"internal","queryIDs":[]}"#.to_owned(),
    ];
    for answer in answers {
        let mut tab = stage.client();
        stage.app.script_query([Answer::Text(answer.clone())]);
        tab.connect(&[items()]);
        // An error waits for a first message.
        tab.ping();
        let error = tab.until_error();
        assert_eq!(error["kind"], "TransformFailed", "{answer}: {error}");
        assert_eq!((&error["origin"], &error["reason"]), (&json!("zeroCache"), &json!("parse")), "{answer}");
        assert_eq!(error["queryIDs"], json!([id]));
    }
    // What the app passes on of an endpoint behind it is passed on.
    let mut tab = stage.client();
    let behind =
        failed(json!({"origin": "zeroCache", "reason": "http", "status": 401, "bodyPreview": "who?"}));
    stage.app.script_query([Answer::Text(behind)]);
    tab.connect(&[items()]);
    let error = tab.until_error();
    assert_eq!((&error["reason"], &error["status"]), (&json!("http"), &json!(401)));
    assert_eq!((&error["message"], &error["bodyPreview"]), (&json!("m"), &json!("who?")));
    // Fields that are new to us are no reason.
    let mut newer = answer(&items());
    newer["more"] = json!(1);
    let mut refused = refusal(&of("x"));
    (refused["more"], refused["error"], refused["message"]) = (json!(1), json!("app"), Value::Null);
    refused.as_object_mut().expect("an object").remove("message");
    let body = json!({"kind": "QueryResponse", "more": 1, "queries": [newer, refused]});
    // Nor is the mark that some frameworks put before their text.
    stage.app.script_query([Answer::Text(format!("\u{feff}{body}"))]);
    let mut tab = stage.client();
    tab.connect(&[items(), of("x")]);
    tab.until_got(&[items()]);
    tab.until("the refusal", |c| c.refused.len() == 1);
}

#[test]
fn a_failure_leaves_what_is_there() {
    let mut stage = Stage::prepared(THREE, &[]);
    let mut tab = stage.tab(&[items()]);
    let mut other = second(&tab, &[]);
    // A tab whose first call fails does not take the group's queries along.
    stage.app.script_query(vec![Answer::Status(500, "down"); 4]);
    let mut third = tab.sibling();
    third.connect(&[of("x")]);
    let error = third.until_error();
    assert_eq!((&error["kind"], &error["status"]), (&json!("TransformFailed"), &json!(500)));
    stage.app.script_query([Answer::Status(404, "gone")]);
    other.change(vec![of("y").put()]);
    other.until_error();
    stage.sql.run("UPDATE item SET n = 9 WHERE id = 'c'");
    tab.until("a change", |c| c.store.row("item", "c").is_some_and(|r| r["n"] == 9));
    assert!(tab.store.got.contains(&items().hash()));
}

#[test]
fn what_is_wanted_while_the_app_is_asked_is_asked_for_together() {
    let stage = Stage::prepared(THREE, &[]);
    let mut tab = stage.tab(&[items()]);
    let calls = stage.app.queries().len();
    stage.app.script_query([Answer::Hang]);
    let queries: Vec<Query> = ["x", "y", "z", "v", "w"].map(of).to_vec();
    tab.change(vec![queries[0].put()]);
    stage.app.until_queries(calls + 1);
    for query in &queries[1..] {
        tab.change(vec![query.put()]);
    }
    // What is not wanted any more by then need not be asked for, and does no harm.
    tab.change(vec![queries[4].del()]);
    tab.round_trip();
    stage.app.release();
    tab.until_got(&queries[..4]);
    tab.round_trip();
    let calls = stage.app.queries().split_off(calls);
    assert_eq!(calls.len(), 2, "{:?}", calls.iter().map(|c| c.names()).collect::<Vec<_>>());
    assert_eq!(calls[0].names().len(), 1);
}
