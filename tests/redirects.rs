//! The app sends a request elsewhere, and secrets go along, or nothing comes of it.

mod support;

use serde_json::json;
use support::app::{Answer, App, THREE, items};
use support::client::Client;
use support::stage::Stage;

fn stage() -> Stage {
    Stage::prepared(
        THREE,
        &[("QUERY_FORWARD_COOKIES", "true"), ("MUTATE_FORWARD_COOKIES", "true"), ("QUERY_API_KEY", "key")],
    )
}

fn tab(stage: &Stage) -> Client {
    let mut tab = stage.client();
    (tab.user, tab.token) = (Some("u".into()), Some("token".into()));
    tab.headers =
        vec![("Cookie".into(), "session=1".into()), ("Origin".into(), "https://app.example".into())];
    tab
}

#[test]
fn on_the_same_server_everything_goes_along() {
    let stage = stage();
    let target = format!("{}?moved=1", stage.app.query_url());
    stage.app.script_query([Answer::Redirect(target), Answer::Normal]);
    let mut tab = tab(&stage);
    tab.connect(&[items()]);
    tab.until_got(&[items()]);
    let calls = stage.app.queries();
    assert_eq!(calls.len(), 2);
    let moved = &calls[1];
    assert!(moved.request.target.contains("moved=1"));
    assert_eq!(moved.body, calls[0].body);
    assert_eq!(moved.request.header("authorization"), Some("Bearer token"));
    assert_eq!(moved.request.header("cookie"), Some("session=1"));
    assert_eq!(moved.request.header("content-type"), Some("application/json"));
}

#[test]
fn another_server_does_not_learn_who_the_user_is() {
    let stage = stage();
    let other = App::start(stage.postgres, &stage.database);
    stage.app.script_query([Answer::Redirect(other.query_url())]);
    stage.app.script_mutate([Answer::Redirect(other.mutate_url())]);
    let mut tab = tab(&stage);
    tab.connect(&[items()]);
    tab.until_got(&[items()]);
    tab.mutate("put", json!({"id": "a", "n": 7}));
    tab.until("the mutation", |c| c.store.lmids.get(&c.id) == Some(&1));
    for call in other.queries().iter().chain(&other.mutations()) {
        for secret in ["authorization", "cookie"] {
            assert_eq!(call.request.header(secret), None, "{secret} of {:?}", call.names());
        }
        assert_eq!(call.request.header("content-type"), Some("application/json"));
    }
    assert_eq!((other.queries().len(), other.mutations().len()), (1, 1));
}

#[test]
fn a_redirect_without_an_end_is_told() {
    let stage = stage();
    stage.app.script_query((0..20).map(|_| Answer::Redirect(stage.app.query_url())));
    let mut tab = tab(&stage);
    tab.connect(&[items()]);
    let error = tab.until_error();
    assert_eq!((&error["kind"], &error["reason"]), (&json!("TransformFailed"), &json!("internal")));
    assert!(stage.app.queries().len() < 20, "it goes on for ever");
}
