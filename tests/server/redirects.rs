//! The app sends a request elsewhere: nobody there is asked, and nobody there learns who the user is.

use crate::support::app::{Answer, App, THREE, items};
use crate::support::stage::Stage;
use serde_json::json;

#[test]
fn a_query_that_is_sent_elsewhere_fails_and_nobody_else_is_asked() {
    let stage = Stage::prepared(THREE, &[]);
    let other = App::start(stage.postgres, &stage.database);
    stage.app.script_query((0..20).map(|_| Answer::Redirect(other.query_url())));
    let mut tab = stage.client();
    tab.connect(&[items()]);
    let error = tab.until_error();
    assert_eq!((&error["kind"], &error["reason"]), (&json!("TransformFailed"), &json!("http")));
    assert_eq!(error["status"], json!(307));
    assert_eq!(other.queries().len(), 0);
}

#[test]
fn a_mutation_that_is_sent_elsewhere_fails_and_nobody_else_is_asked() {
    let stage = Stage::prepared(THREE, &[]);
    let other = App::start(stage.postgres, &stage.database);
    stage.app.script_mutate((0..20).map(|_| Answer::Redirect(other.mutate_url())));
    let mut tab = stage.client();
    tab.connect(&[items()]);
    tab.until_got(&[items()]);
    tab.mutate("put", json!({"id": "a", "n": 7}));
    let error = tab.until_error();
    assert_eq!((&error["kind"], &error["reason"]), (&json!("PushFailed"), &json!("http")));
    assert_eq!(other.mutations().len(), 0);
}
