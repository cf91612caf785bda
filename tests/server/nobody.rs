//! A client that is logged out is turned away, or somebody else is let in, because client, app and server
//! have different words for nobody (`docs/spec/view-syncer.md` §11.2).

use crate::support::app::{Answer, THREE, items};
use crate::support::client::Client;
use crate::support::stage::Stage;
use serde_json::{Value, json};

/// What the `userID` of a client may be, as it stands in the URL: `None` is left out.
const USERS: [Option<&str>; 4] = [None, Some(""), Some("anon"), Some("u1")];

/// What the app may say: absent, and three words for nobody or somebody.
fn words() -> [Option<Value>; 5] {
    [None, Some(Value::Null), Some(json!("anon")), Some(json!("u1")), Some(json!(""))]
}

/// Whether the reference lets the client in. An empty `userID` is none; anything else is a name like any
/// other, "anon" too, and has to be the app's word by word. An app that does not say it believes the client.
fn is_let_in(user: Option<&str>, word: Option<&Value>) -> bool {
    let user = user.filter(|user| !user.is_empty());
    word.is_none_or(|word| *word == user.map_or(Value::Null, |user| json!(user)))
}

fn tab(stage: &Stage, user: Option<&str>) -> Client {
    let mut tab = stage.client();
    tab.user = user.map(str::to_owned);
    tab
}

fn said(word: Option<Value>) -> Answer {
    word.map_or(Answer::Normal, Answer::User)
}

#[test]
fn queries_of_nobody_are_answered() {
    let stage = Stage::prepared(THREE, &[]);
    for user in USERS {
        for word in words() {
            let mut tab = tab(&stage, user);
            stage.app.script_query([said(word.clone())]);
            tab.connect(&[items()]);
            match is_let_in(user, word.as_ref()) {
                true => tab.until_got(&[items()]),
                false => {
                    tab.ping();
                    assert_eq!(tab.until_error()["kind"], "Unauthorized", "{user:?} {word:?}");
                }
            }
        }
    }
}

#[test]
fn mutations_of_nobody_are_taken() {
    let stage = Stage::prepared(THREE, &[]);
    for user in USERS {
        for word in words() {
            let mut tab = tab(&stage, user);
            tab.connect(&[items()]);
            tab.until_got(&[items()]);
            stage.app.script_mutate([said(word.clone())]);
            let id = tab.mutate("put", json!({"id": "a", "n": 2}));
            match is_let_in(user, word.as_ref()) {
                true => {
                    tab.until("its number", |c| c.store.lmids.get(&c.id) == Some(&id));
                    tab.round_trip();
                }
                false => {
                    let error = tab.until_error();
                    assert_eq!(
                        (&error["kind"], &error["status"]),
                        (&json!("PushFailed"), &json!(401)),
                        "{user:?} {word:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn answers_of_older_libraries_name_nobody() {
    let stage = Stage::prepared(THREE, &[]);
    let mut tab = tab(&stage, Some("anon"));
    stage.app.script_query([Answer::Legacy]);
    tab.connect(&[items()]);
    tab.until_got(&[items()]);
    for user in [json!("somebody else"), Value::Null, json!(7)] {
        let mutation = json!({"id": {"clientID": tab.id, "id": 1}, "result": {}});
        stage.app.script_mutate([Answer::Text(json!({"mutations": [mutation], "userID": user}).to_string())]);
        let id = tab.mutate("put", json!({"id": "a", "n": 2}));
        stage.app.until_mutation("the push", |c| c.ids() == [id]);
        tab.round_trip();
    }
}

#[test]
fn what_was_said_of_a_token_that_is_gone_is_no_verdict_on_the_next() {
    let stage = Stage::prepared(THREE, &[]);
    let mut tab = stage.client();
    (tab.user, tab.token) = (Some("u".into()), Some("one".into()));
    tab.connect(&[items()]);
    tab.until_got(&[items()]);
    stage.app.script_mutate([Answer::After(
        std::time::Duration::from_millis(800),
        Box::new(Answer::User(json!("who had it before"))),
    )]);
    let id = tab.mutate("put", json!({"id": "a", "n": 2}));
    stage.app.until_mutation("the push", |_| true);
    tab.send(json!(["updateAuth", {"auth": "two"}]));
    tab.until("its number", |c| c.store.lmids.get(&c.id) == Some(&id));
    // The one after it is sent when the answer is there.
    let next = tab.mutate("put", json!({"id": "a", "n": 3}));
    tab.until("the next number", |c| c.store.lmids.get(&c.id) == Some(&next));
    tab.round_trip();
}
