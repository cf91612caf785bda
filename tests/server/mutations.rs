//! A mutation is lost, done twice, done out of order, or its outcome told wrongly.

use std::io::Write;
use std::time::Duration;

use crate::support::app::{Answer, Call, Query, query};
use crate::support::client::Client;
use crate::support::frames::{TEXT, frame};
use crate::support::stage::Stage;
use serde_json::{Value, json};

fn items() -> Query {
    query("items", json!([]))
}

/// A tab that has all items.
fn tab(stage: &Stage) -> Client {
    let mut tab = stage.client();
    tab.connect(&[items()]);
    tab.until_got(&[items()]);
    tab
}

/// Waits until the client knows that its mutation has been applied.
fn until_applied(client: &mut Client, id: u64) {
    let own = client.id.clone();
    client.until(&format!("mutation {id}"), |c| c.store.lmids.get(&own).is_some_and(|l| *l >= id));
}

#[test]
fn a_mutation_reaches_the_app_as_it_was_made() {
    let stage = Stage::new(&[]);
    let mut tab = tab(&stage);
    let mut mutation =
        tab.mutation("put", json!({"id": "a", "owner": "o", "n": 1, "more": [1.0, "é\u{0}", null]}));
    mutation["timestamp"] = json!(1790000000000.25);
    tab.push(vec![mutation.clone()]);
    until_applied(&mut tab, 1);
    // The row and the number in the same poke: no moment in which the one is there alone.
    let poke = tab.pokes.iter().find(|p| !p.lmids.is_empty()).expect("a poke");
    assert_eq!(poke.puts.len(), 1);
    let calls = stage.app.mutations();
    assert_eq!(calls.len(), 1);
    let body = &calls[0].body;
    assert_eq!(body["mutations"], json!([mutation]));
    assert_eq!((&body["clientGroupID"], &body["pushVersion"]), (&json!(tab.group), &json!(1)));
    assert!(body["requestID"].is_string() && body["timestamp"].is_number());
    let target = &calls[0].request.target;
    assert!(target.contains("schema=zero_0") && target.contains("appID=zero"), "{target}");
    // No mutations are no mistake, and no call. A push gets no answer of its own.
    tab.push(Vec::new());
    tab.round_trip();
    assert_eq!(stage.app.mutations().len(), 1);
    // The same again, as after every reconnect: harmless.
    tab.push(vec![mutation]);
    stage.app.until_mutation("the repetition", |c| c.ids() == [1]);
    let next = tab.mutate("put", json!({"id": "b", "n": 1}));
    until_applied(&mut tab, next);
    assert_eq!(tab.store.rows.len(), 2);
}

#[test]
fn an_error_of_the_app_comes_with_the_number_of_its_mutation() {
    let stage = Stage::new(&[]);
    let mut tab = tab(&stage);
    let mut other = tab.sibling();
    other.connect(&[]);
    let bad = tab.mutate("nonesuch", json!({"n": 7}));
    until_applied(&mut tab, bad);
    let key = (tab.id.clone(), bad);
    let result = tab.store.results.get(&key).cloned().expect("the result came no later than the number");
    assert_eq!((&result["error"], &result["details"]), (&json!("app"), &json!({"n": 7})));
    let poke = tab.pokes.iter().find(|p| !p.lmids.is_empty()).expect("a poke");
    assert_eq!(poke.results.len(), 1, "in the same poke");
    other.until("the result of the other tab", |c| c.store.results.contains_key(&key));
    // The client has taken note: the app may forget it.
    tab.send(json!(["ackMutationResponses", {"clientID": tab.id, "id": bad}]));
    let calls = stage.app.until_mutation("the cleanup", |c| c.names() == ["_zero_cleanupResults"]);
    let body = &calls.last().expect("a call").body;
    let expected =
        json!({"type": "single", "clientGroupID": tab.group, "clientID": tab.id, "upToMutationID": bad});
    assert_eq!(body["mutations"][0]["args"], json!([expected]));
    assert_eq!((&body["mutations"][0]["id"], &body["pushVersion"]), (&json!(0), &json!(1)));
    tab.until("its end", |c| c.store.results.is_empty());
    other.until("its end", |c| c.store.results.is_empty());
    // A failed cleanup is nobody's problem.
    stage.app.script_mutate([Answer::Status(400, "no")]);
    tab.send(json!(["ackMutationResponses", {"clientID": tab.id, "id": bad}]));
    let calls = stage.app.until_mutations(2, "_zero_cleanupResults");
    assert_eq!(calls[1].body["mutations"][0]["args"], json!([expected]));
    let good = tab.mutate("put", json!({"id": "a", "n": 1}));
    until_applied(&mut tab, good);
    assert!(tab.store.results.is_empty());
    // A tab that comes later is told all numbers, and no results that are gone.
    let mut late = Client::in_group(&stage.server, &tab.group);
    late.connect(&[items()]);
    late.until("the numbers", |c| c.store.lmids.get(&tab.id) == Some(&good));
    assert!(late.store.results.is_empty());
}

#[test]
fn mutations_of_another_tab_are_passed_on() {
    let stage = Stage::new(&[]);
    let mut first = tab(&stage);
    let mut second = first.sibling();
    second.connect(&[]);
    let orphan = second.mutation("nonesuch", json!({}));
    // What a closed tab has left behind is sent by another one of its group.
    first.push(vec![orphan]);
    until_applied(&mut second, 1);
    assert!(second.store.results.contains_key(&(second.id.clone(), 1)));
}

#[test]
fn what_queues_up_is_sent_together_and_in_order() {
    let stage = Stage::new(&[]);
    let mut first = tab(&stage);
    let mut second = first.sibling();
    second.connect(&[]);
    second.round_trip();
    stage.app.script_mutate([Answer::Hang]);
    first.mutate("put", json!({"id": "a", "n": 0}));
    stage.app.until_mutation("the first", |c| c.ids() == [1]);
    for n in 1..4 {
        first.mutate("put", json!({"id": "a", "n": n}));
        first.round_trip();
        second.mutate("put", json!({"id": "b", "n": n}));
        second.round_trip();
    }
    stage.app.release();
    until_applied(&mut first, 4);
    until_applied(&mut second, 3);
    let calls: Vec<(Value, Vec<u64>)> =
        stage.app.mutations().iter().map(|c| (c.body["mutations"][0]["clientID"].clone(), c.ids())).collect();
    let (one, two) = (json!(first.id), json!(second.id));
    assert_eq!(calls, [(one.clone(), vec![1]), (one, vec![2, 3, 4]), (two, vec![1, 2, 3])]);
}

#[test]
fn a_mutation_that_was_sent_before_the_tab_was_closed_counts() {
    let stage = Stage::new(&[]);
    let mut witness = tab(&stage);
    for (what, close) in [("with a close", frame(0x88, &[])), ("without a word", Vec::new())] {
        // The app is still being asked about the connection when it goes.
        stage.app.script_query([Answer::Slow(Duration::from_millis(200))]);
        let mut tab = stage.client();
        tab.connect(&[items()]);
        let mutation = tab.mutation("put", json!({"id": what, "n": 1}));
        let push = json!(["push", {"clientGroupID": tab.group, "mutations": [mutation], "pushVersion": 1,
                                   "timestamp": 1, "requestID": "r"}]);
        // In one packet: the server learns of both at the same time.
        let bytes = [frame(TEXT, push.to_string().as_bytes()), close].concat();
        tab.raw().write_all(&bytes).expect("it can be sent");
        tab.vanish();
        witness.until(what, |c| c.store.row("item", what).is_some());
    }
}

/// Pushes one mutation with the app answering so; returns the error that comes of it.
fn failure(stage: &Stage, answers: Vec<Answer>) -> Value {
    stage.app.script_mutate(answers);
    let mut tab = tab(stage);
    let mut other = tab.sibling();
    other.connect(&[]);
    let id = tab.mutate("put", json!({"id": "a", "n": 1}));
    let error = tab.until_error();
    assert_eq!(error["kind"], "PushFailed", "{error}");
    assert_eq!(error["mutationIDs"], json!([{"id": id, "clientID": tab.id}]), "{error}");
    other.round_trip();
    // It has kept the mutation, and sends it again when it comes back.
    tab.connect(&[]);
    let mut again = tab.mutation("put", json!({"id": "a", "n": 1}));
    again["id"] = json!(id);
    tab.push(vec![again]);
    until_applied(&mut tab, id);
    error
}

#[test]
fn a_push_that_fails_is_told_to_who_made_it() {
    let stage = Stage::new(&[]);
    let text = |text: &str| vec![Answer::Text(text.to_owned())];
    let error = failure(&stage, vec![Answer::Status(401, "who are you?")]);
    assert_eq!((&error["origin"], &error["reason"]), (&json!("zeroCache"), &json!("http")));
    assert_eq!((&error["status"], &error["bodyPreview"]), (&json!(401), &json!("who are you?")));
    let error = failure(&stage, vec![Answer::Status(403, "no")]);
    assert_eq!(error["status"], 403);
    let error = failure(&stage, vec![Answer::Status(500, "oops"); 4]);
    assert_eq!((&error["status"], &error["reason"]), (&json!(500), &json!("http")));
    let error = failure(&stage, text("<html>"));
    assert_eq!((&error["origin"], &error["reason"]), (&json!("zeroCache"), &json!("parse")));
    let error = failure(&stage, text("{\"kind\":\"SomethingElse\"}"));
    assert_eq!(error["reason"], "parse");
    let error = failure(&stage, text(r#"{"error":"unsupportedPushVersion"}"#));
    assert_eq!((&error["origin"], &error["reason"]), (&json!("server"), &json!("unsupportedPushVersion")));
    let error = failure(&stage, text(r#"{"error":"zeroPusher","details":"x"}"#));
    assert_eq!((&error["origin"], &error["reason"]), (&json!("server"), &json!("internal")));
    let error = failure(&stage, text(r#"{"error":"http","status":418,"details":"teapot"}"#));
    assert_eq!((&error["status"], &error["bodyPreview"]), (&json!(418), &json!("teapot")));
    let error = failure(&stage, vec![Answer::User(json!("somebody else"))]);
    assert_eq!((&error["reason"], &error["status"]), (&json!("http"), &json!(401)));
    // Connections that break are tried again.
    stage.app.script_mutate([Answer::Drop, Answer::Status(502, "x"), Answer::Legacy]);
    let mut tab = tab(&stage);
    let id = tab.mutate("put", json!({"id": "b", "n": 1}));
    until_applied(&mut tab, id);
}

/// Postgres has no text with a NUL in it.
#[test]
fn an_id_that_the_app_cannot_write_is_its_failure() {
    let stage = Stage::new(&[]);
    let mut odd = stage.client();
    odd.id.push('\0');
    odd.connect(&[]);
    let id = odd.mutate("put", json!({"id": "a", "n": 1}));
    let error = odd.until_error();
    assert_eq!((&error["kind"], &error["status"]), (&json!("PushFailed"), &json!(500)), "{error}");
    assert_eq!(error["mutationIDs"], json!([{"id": id, "clientID": odd.id}]));
    // The same of results that nobody needs any more, of which nobody is told.
    let mut tab = tab(&stage);
    tab.send(json!(["deleteClients", {"clientIDs": [odd.id]}]));
    tab.until("the acknowledgement", |c| c.deleted == [odd.id.as_str()]);
    stage.app.until_mutations(1, "_zero_cleanupResults");
    let good = tab.mutate("put", json!({"id": "a", "n": 1}));
    until_applied(&mut tab, good);
}

#[test]
fn a_mutation_that_comes_too_early() {
    let stage = Stage::new(&[]);
    let mut early = tab(&stage);
    early.mutation("put", json!({}));
    let id = early.mutate("put", json!({"id": "a", "n": 1}));
    let error = early.until_error();
    assert_eq!((&error["kind"], &error["reason"]), (&json!("PushFailed"), &json!("oooMutation")));
    assert_eq!(error["origin"], "server");
    assert_eq!(error["mutationIDs"], json!([{"id": id, "clientID": early.id}]));
    // The way in which older libraries say it.
    let mut early = tab(&stage);
    let result = json!([{"id": {"clientID": early.id, "id": 2}, "result": {"error": "oooMutation"}}]);
    stage.app.script_mutate([Answer::Text(json!({"mutations": result}).to_string())]);
    early.mutation("put", json!({}));
    early.mutate("put", json!({"id": "a", "n": 1}));
    assert_eq!(early.until_error()["reason"], "oooMutation");
    assert!(stage.connect().rows("SELECT 1 FROM item").is_empty());
}

#[test]
fn pushes_that_are_refused_here() {
    let stage = Stage::new(&[]);
    let mut wrong = tab(&stage);
    wrong.group = "another".into();
    wrong.mutate("put", json!({"id": "a", "n": 1}));
    assert_eq!(wrong.until_error()["kind"], "InvalidPush", "another group");
    let mut crud = tab(&stage);
    let mut mutation = crud.mutation("_zero_crud", json!({"ops": []}));
    mutation["type"] = json!("crud");
    crud.push(vec![mutation]);
    assert_eq!(crud.until_error()["kind"], "InvalidPush", "not executed here");
    assert!(stage.app.mutations().is_empty());
    let without = Stage::new(&[("MUTATE_URL", "")]);
    let mut tab = tab(&without);
    tab.mutate("put", json!({"id": "a", "n": 1}));
    let error = tab.until_error();
    assert_eq!(error["kind"], "InvalidPush");
    assert!(error["message"].as_str().is_some_and(|m| m.contains("ZERO_MUTATE_URL")), "{error}");
    // Nothing to clean up with, and nothing to complain about.
    tab.connect(&[]);
    tab.send(json!(["ackMutationResponses", {"clientID": tab.id, "id": 1}]));
    tab.round_trip();
}

#[test]
fn numbers_never_go_back() {
    let mut stage = Stage::new(&[]);
    let mut tab = tab(&stage);
    // The store fails when a number gets smaller.
    for round in 0..10 {
        let ids: Vec<u64> = (0..3).map(|n| tab.mutate("put", json!({"id": "a", "n": n}))).collect();
        if round % 2 == 0 {
            until_applied(&mut tab, ids[1]);
        }
        // A connection that is replaced is not read to its end: a stock client sends what has no
        // number yet once more, this one does not.
        stage.app.until_mutation("all three", |c| c.ids().contains(&ids[2]));
        tab.vanish();
        tab.connect(&[]);
    }
    until_applied(&mut tab, 30);
    let sum = |calls: Vec<Call>| calls.iter().map(|c| c.ids().len()).sum::<usize>();
    assert_eq!(sum(stage.app.mutations()), 30, "what the server has taken it sends once");
    stage.sql.run("DELETE FROM zero_0.clients");
    stage.sql.run("INSERT INTO item VALUES ('last', 'o', 1, NULL)");
    tab.until("a later change", |c| c.store.row("item", "last").is_some());
    tab.settle(Duration::from_millis(50));
}
