//! A log in which what an operator has to act on is a line among thousands, or is no warning at all.

use std::time::{Duration, Instant};

use crate::support::app::{Answer, items};
use crate::support::client::Client;
use crate::support::stage::Stage;
use serde_json::{Value, json};

/// Longest time until a line is there.
const LOGGED: Duration = Duration::from_secs(20);

/// Lines of a level with some words.
fn lines(stage: &Stage, level: &str, words: &str) -> usize {
    let is_of = |line: &&str| line.contains(&format!(" {level} ")) && line.contains(words);
    stage.server.log().lines().filter(is_of).count()
}

fn until_warned(stage: &Stage, words: &str) {
    let deadline = Instant::now() + LOGGED;
    while lines(stage, "WARN", words) == 0 {
        assert!(Instant::now() < deadline, "no warning says {words:?}\n{}", stage.server.log());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A tab that is told an error of this kind.
fn refused(stage: &Stage, kind: &str) -> Value {
    let mut tab = stage.client();
    tab.connect(&[items()]);
    let error = tab.until_error();
    assert_eq!(error["kind"], kind, "{error}");
    error
}

/// Fewer lines than there were causes: one in ten seconds.
fn check_limit(stage: &Stage, words: &str, began: Instant) {
    let most = 1 + began.elapsed().as_secs() as usize / 10;
    let logged = lines(stage, "WARN", words);
    assert!((1..=most).contains(&logged), "{logged} warnings of {words:?} within {:?}", began.elapsed());
}

#[test]
fn a_query_endpoint_that_fails_is_warned_of_now_and_then() {
    let stage = Stage::new(&[]);
    let began = Instant::now();
    stage.app.script_query((0..8).map(|_| Answer::Status(400, "no")));
    (0..8).for_each(|_| drop(refused(&stage, "TransformFailed")));
    until_warned(&stage, "the app's query endpoint fails");
    check_limit(&stage, "the app's query endpoint fails", began);
}

#[test]
fn a_mutate_endpoint_that_fails_is_warned_of_now_and_then() {
    let stage = Stage::new(&[]);
    let began = Instant::now();
    stage.app.script_mutate((0..10).map(|_| Answer::Text("{}".into())));
    for _ in 0..10 {
        let mut tab = stage.tab(&[items()]);
        tab.mutate("put", json!({"id": "a", "n": 1}));
        assert_eq!(tab.until_error()["kind"], "PushFailed");
    }
    until_warned(&stage, "the app's mutate endpoint fails");
    check_limit(&stage, "the app's mutate endpoint fails", began);
    stage.app.script_mutate((0..10).map(|_| Answer::Status(400, "no")));
    let mut tab: Client = stage.tab(&[items()]);
    for id in 1..=10 {
        tab.send(json!(["ackMutationResponses", {"clientID": tab.id, "id": id}]));
    }
    until_warned(&stage, "results of mutations were not cleaned up");
    check_limit(&stage, "results of mutations were not cleaned up", began);
}

#[test]
fn a_user_whom_the_app_refuses_is_no_reason_to_warn() {
    let stage = Stage::new(&[]);
    stage.app.script_query([Answer::Status(401, "no"), Answer::Status(403, "no")]);
    (0..2).for_each(|_| drop(refused(&stage, "TransformFailed")));
    stage.server.until_log(" INFO ", "a connection ends with an error");
    assert_eq!(lines(&stage, "WARN", "endpoint"), 0);
}

#[test]
fn tokens_that_nothing_can_judge_are_warned_of_now_and_then() {
    let stage = Stage::new(&[("MUTATE_URL", "")]);
    let began = Instant::now();
    for _ in 0..20 {
        let mut tab = stage.client();
        tab.user = Some("somebody".into());
        tab.token = Some("opaque".into());
        tab.open(Some(&tab.init_body(vec![items().put()])));
        assert_eq!(tab.until_error()["kind"], "AuthInvalidated");
    }
    until_warned(&stage, "nothing can judge it");
    check_limit(&stage, "nothing can judge it", began);
}

#[test]
fn mutations_for_which_no_endpoint_is_set_are_warned_of() {
    let stage = Stage::new(&[("MUTATE_URL", "")]);
    let mut tab = stage.tab(&[items()]);
    tab.mutate("put", json!({"id": "a", "n": 1}));
    assert_eq!(tab.until_error()["kind"], "InvalidPush");
    until_warned(&stage, "set ZERO_MUTATE_URL");
}
