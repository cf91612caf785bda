//! What the app says of a connection later on: tokens that it is shown again, or for the first
//! time, while the connection is open.

use std::time::{Duration, Instant};

use crate::support::app::{Answer, Query, query};
use crate::support::client::Client;
use crate::support::stage::Stage;
use serde_json::{Value, json};

const THREE: &str = "INSERT INTO item VALUES ('a', 'x', 1, NULL), ('b', 'x', 1, NULL), ('c', 'y', 1, NULL)";

const OFF: (&str, &str) = ("AUTH_RETRANSFORM_INTERVAL_SECONDS", "0");

fn items() -> Query {
    query("items", json!([]))
}

/// Every second, if anything.
fn revalidating() -> Stage {
    Stage::prepared(THREE, &[("AUTH_REVALIDATE_INTERVAL_SECONDS", "1"), OFF])
}

fn retransforming() -> Stage {
    let settings = [("AUTH_RETRANSFORM_INTERVAL_SECONDS", "1"), ("AUTH_REVALIDATE_INTERVAL_SECONDS", "-1")];
    Stage::prepared(THREE, &settings)
}

/// A tab with this token, and one of its group with the other.
fn two(stage: &Stage, tokens: [&str; 2]) -> (Client, Client) {
    let mut first = stage.client();
    first.user = Some("u".into());
    first.token = Some(tokens[0].into());
    first.connect(&[items()]);
    first.until_got(&[items()]);
    let mut second = first.sibling();
    second.token = Some(tokens[1].into());
    second.connect(&[items()]);
    second.until("a poke", |c| !c.pokes.is_empty());
    // The first hears of the second.
    first.settle(Duration::from_millis(100));
    (first, second)
}

/// The query `items` with the rows of one owner only.
fn narrower(owner: &str) -> Answer {
    let ast = json!({"table": "item", "orderBy": [["id", "asc"]], "where":
        {"type": "simple", "op": "=", "left": {"type": "column", "name": "owner"},
         "right": {"type": "literal", "value": owner}}});
    let query = json!({"id": items().hash(), "name": "items", "ast": ast});
    Answer::Text(json!({"kind": "QueryResponse", "queries": [query]}).to_string())
}

fn pause(seconds: f64) {
    std::thread::sleep(Duration::from_secs_f64(seconds));
}

fn update(tab: &mut Client, token: &str) {
    tab.send(json!(["updateAuth", {"auth": token}]));
}

#[test]
fn a_connection_that_the_app_refuses_later_ends_alone() {
    let stage = revalidating();
    let (mut first, mut second) = two(&stage, ["one", "two"]);
    let calls = |token: &str| stage.app.queries_with(token).len();
    let before = (calls("one"), calls("two"));
    stage.app.until_queries_with("one", before.0 + 1);
    stage.app.until_queries_with("two", before.1 + 1);
    let asked = stage.app.queries_with("two").pop().expect("a call");
    assert_eq!(asked.body, json!(["transform", []]), "it is only asked whether it is let in");
    stage.app.rule_query("two", Some(Answer::Status(401, "no longer")));
    let error = second.until_error();
    assert_eq!((&error["kind"], &error["status"]), (&json!("TransformFailed"), &json!(401)));
    first.round_trip();
    // It is another user's by now.
    stage.app.rule_query("one", Some(Answer::User(json!("somebody else"))));
    assert_eq!(first.until_error()["kind"], "Unauthorized");
}

#[test]
fn failures_that_pass_disconnect_nobody_and_are_tried_again_after_an_interval() {
    let stage = Stage::prepared(THREE, &[("AUTH_REVALIDATE_INTERVAL_SECONDS", "3"), OFF]);
    let (mut first, mut second) = two(&stage, ["one", "two"]);
    let before = stage.app.queries_with("one").len();
    stage.app.rule_query("one", Some(Answer::Status(500, "oops")));
    stage.app.rule_query("two", Some(Answer::Status(500, "oops")));
    stage.app.until_queries_with("one", before + 4);
    let failed = Instant::now();
    stage.app.rule_query("one", None);
    stage.app.until_queries_with("one", before + 5);
    // Rounds are a second apart.
    assert!(failed.elapsed() > Duration::from_millis(2_500), "{:?}", failed.elapsed());
    let calls = stage.app.queries_with("two").len();
    assert!(calls <= 1 + 4, "nobody's turn comes within the interval: {calls} calls");
    first.round_trip();
    second.round_trip();
}

#[test]
fn mutations_that_the_app_accepts_count_as_being_let_in() {
    let stage = Stage::prepared(THREE, &[("AUTH_REVALIDATE_INTERVAL_SECONDS", "2"), OFF]);
    let (mut first, _second) = two(&stage, ["one", "two"]);
    let (one, two) = (stage.app.queries_with("one").len(), stage.app.queries_with("two").len());
    for n in 0..8 {
        first.mutate("put", json!({"id": "a", "n": n}));
        first.round_trip();
        pause(0.5);
    }
    assert_eq!(stage.app.queries_with("one").len(), one);
    assert!(stage.app.queries_with("two").len() > two);
}

#[test]
fn intervals_of_zero_or_less_are_off() {
    let stage = Stage::prepared(THREE, &[("AUTH_REVALIDATE_INTERVAL_SECONDS", "-5"), OFF]);
    let (mut first, _second) = two(&stage, ["one", "two"]);
    let before = stage.app.queries().len();
    pause(3.0);
    assert_eq!(stage.app.queries().len(), before);
    first.round_trip();
}

#[test]
fn what_the_app_answers_differently_later_takes_the_place_of_the_old_in_all_tabs() {
    let stage = retransforming();
    let (mut first, mut second) = two(&stage, ["one", "two"]);
    let before = (first.pokes.len(), second.pokes.len());
    let calls = stage.app.queries_with("one").len();
    stage.app.until_queries_with("one", calls + 2);
    assert_eq!(stage.app.queries_with("two").len(), 1, "one connection serves for all");
    first.round_trip();
    assert_eq!(first.pokes.len(), before.0, "the same answer is no change");
    stage.app.rule_query("one", Some(narrower("y")));
    for (tab, before) in [(&mut first, before.0), (&mut second, before.1)] {
        tab.until("fewer rows", |c| c.store.rows.len() == 1);
        let [poke] = &tab.pokes[before..] else { panic!("{:?}", &tab.pokes[before..]) };
        assert_eq!((poke.dels.len(), poke.puts.len(), poke.got.len()), (2, 0, 0), "the rows that differ");
    }
}

#[test]
fn another_connection_serves_when_the_one_that_did_is_refused() {
    let stage = retransforming();
    let (mut first, mut second) = two(&stage, ["one", "two"]);
    stage.app.rule_query("two", Some(narrower("y")));
    stage.app.rule_query("one", Some(Answer::Status(403, "no longer")));
    let error = first.until_error();
    assert_eq!((&error["kind"], &error["status"]), (&json!("TransformFailed"), &json!(403)));
    second.until("its own answer", |c| c.store.rows.len() == 1);
    // Failures that pass end nobody.
    stage.app.rule_query("two", Some(Answer::Status(500, "oops")));
    let calls = stage.app.queries_with("two").len();
    stage.app.until_queries_with("two", calls + 8);
    second.round_trip();
}

#[test]
fn what_the_app_says_of_an_older_token_does_not_count() {
    let stage = Stage::prepared(THREE, &[]);
    let (mut tab, mut other) = two(&stage, ["one", "two"]);
    let refusals = [Answer::Status(401, "expired"), Answer::User(json!("somebody else"))];
    for (refusal, owner) in refusals.into_iter().zip(["x", "y"]) {
        // The app is being asked with the old token when the new one comes.
        let (old, new) = (stage.app.queries_with("one").len(), stage.app.queries_with("three").len());
        stage.app.rule_query("one", Some(Answer::After(Duration::from_millis(400), Box::new(refusal))));
        let of = query("itemsOf", json!([owner]));
        tab.change(vec![of.put()]);
        stage.app.until_queries_with("one", old + 1);
        update(&mut tab, "three");
        stage.app.until_queries_with("three", new + 1);
        tab.until_got(&[of]);
        stage.app.rule_query("one", None);
        update(&mut tab, "one");
        stage.app.until_queries_with("one", old + 2);
    }
    tab.round_trip();
    other.round_trip();
}

#[test]
fn a_new_token_is_shown_to_the_app_even_if_nothing_is_to_be_asked() {
    let stage = Stage::prepared(THREE, &[]);
    let mut tab = stage.client();
    tab.user = Some("u".into());
    tab.token = Some("one".into());
    tab.connect(&[]);
    tab.until("a poke", |c| !c.pokes.is_empty());
    let mut other = tab.sibling();
    other.connect(&[]);
    other.until("a poke", |c| !c.pokes.is_empty());

    tab.settle(Duration::from_millis(100));
    let pokes = tab.pokes.len();
    update(&mut tab, "two");
    stage.app.until_queries_with("two", 1);
    assert_eq!(stage.app.queries_with("two")[0].body, json!(["transform", []]));
    tab.round_trip();
    assert_eq!(tab.pokes.len(), pokes);
    stage.app.rule_query("three", Some(Answer::Status(403, "no")));
    update(&mut tab, "three");
    let error = tab.until_error();
    assert_eq!((&error["kind"], &error["status"]), (&json!("TransformFailed"), &json!(403)));
    assert_eq!(error["queryIDs"], Value::Array(Vec::new()));
    other.round_trip();
}

#[test]
fn what_was_answered_a_moment_ago_is_not_asked_for_again() {
    let stage = Stage::prepared(THREE, &[]);
    let (mut tab, _other) = two(&stage, ["one", "two"]);
    let of = query("itemsOf", json!(["x"])).ttl(0);
    let again = |tab: &mut Client| {
        tab.change(vec![of.del()]);
        tab.until("it is gone", |c| !c.store.got.contains(&of.hash()));
        tab.change(vec![of.put()]);
        tab.until_got(std::slice::from_ref(&of));
    };
    tab.change(vec![of.put()]);
    tab.until_got(std::slice::from_ref(&of));
    let asked = stage.app.queries().len();
    again(&mut tab);
    assert_eq!(stage.app.queries().len(), asked);
    // With other arguments it is another query, and with another token another answer.
    tab.change(vec![query("itemsOf", json!(["y"])).put()]);
    tab.until_got(&[query("itemsOf", json!(["y"]))]);
    assert_eq!(stage.app.queries().len(), asked + 1);
    update(&mut tab, "three");
    stage.app.until_queries_with("three", 1);
    tab.round_trip();
    tab.change(vec![of.del()]);
    tab.until("it is gone", |c| !c.store.got.contains(&of.hash()));
    pause(5.1);
    let asked = stage.app.queries().len();
    tab.change(vec![of.put()]);
    tab.until_got(std::slice::from_ref(&of));
    assert_eq!(stage.app.queries().len(), asked + 1, "it was too long ago");
}

#[test]
fn what_one_tab_was_refused_another_that_wants_it_asks_for_itself() {
    let stage = Stage::prepared(THREE, &[]);
    let (mut first, mut second) = two(&stage, ["one", "two"]);
    let calls = stage.app.queries_with("two").len();
    let refusal = Box::new(Answer::Status(401, "expired"));
    stage.app.rule_query("two", Some(Answer::After(Duration::from_millis(400), refusal)));
    let of = query("itemsOf", json!(["x"]));
    second.change(vec![of.put()]);
    stage.app.until_queries_with("two", calls + 1);
    first.change(vec![of.put()]);
    first.round_trip();
    assert_eq!(second.until_error()["status"], 401);
    first.until_got(&[of]);
}
