//! Mutations go to the app with the wrong identity, in the wrong order, or with an answer that is
//! not understood and not told (`docs/spec/view-syncer.md` §7, §9).

use crate::support::app::{Answer, Call, items};
use crate::support::client::Client;
use crate::support::stage::Stage;
use serde_json::{Value, json};

/// A second tab of the group.
fn second(tab: &Client) -> Client {
    let mut second = tab.sibling();
    second.connect(&[]);
    second.until("a poke", |c| !c.pokes.is_empty());
    second
}

fn until_applied(client: &mut Client, id: u64) {
    let own = client.id.clone();
    client.until(&format!("mutation {id}"), |c| c.store.lmids.get(&own).is_some_and(|l| *l >= id));
}

/// Sends a mutation of one tab by way of another, or of its own.
fn push(sender: &mut Client, mutation: &Value) {
    sender.push(vec![mutation.clone()]);
    sender.round_trip();
}

fn put(tab: &mut Client) -> Value {
    tab.mutation("put", json!({"id": tab.id, "n": 1}))
}

fn header<'c>(call: &'c Call, name: &str) -> Option<&'c str> {
    call.request.header(name)
}

#[test]
fn mutations_of_two_tabs_go_apart_each_with_its_own_token() {
    let stage = Stage::new(&[("MUTATE_FORWARD_COOKIES", "true")]);
    let mut first = stage.client();
    (first.user, first.token) = (Some("u".into()), Some("one".into()));
    first.headers = vec![("Cookie".into(), "tab=1".into())];
    first.connect(&[items()]);
    first.until_got(&[items()]);
    let mut second = first.sibling();
    second.token = Some("two".into());
    second.headers = vec![("Cookie".into(), "tab=2".into())];
    second.connect(&[]);
    second.until("a poke", |c| !c.pokes.is_empty());
    stage.app.script_mutate([Answer::Hang]);
    first.mutate("put", json!({"id": "a", "n": 1}));
    stage.app.until_mutation("the first", |c| c.ids() == [1]);
    // The second tab sends one of the first's, too: it goes with the sender's identity.
    let orphan = put(&mut first);
    push(&mut second, &orphan);
    second.mutate("put", json!({"id": "b", "n": 1}));
    second.round_trip();
    let later = put(&mut first);
    push(&mut first, &later);
    stage.app.release();
    until_applied(&mut first, 3);
    until_applied(&mut second, 1);
    let seen: Vec<(Option<String>, Option<String>, Vec<u64>)> = stage
        .app
        .mutations()
        .iter()
        .map(|c| (header(c, "authorization").map(Into::into), header(c, "cookie").map(Into::into), c.ids()))
        .collect();
    let of = |token: &str, cookie: &str, ids: &[u64]| {
        (Some(format!("Bearer {token}")), Some(cookie.to_owned()), ids.to_vec())
    };
    assert_eq!(seen, [of("one", "tab=1", &[1]), of("two", "tab=2", &[2, 1]), of("one", "tab=1", &[3])]);
}

#[test]
fn a_token_that_changes_back_and_forth_keeps_the_order() {
    let stage = Stage::new(&[]);
    let mut tab = stage.client();
    (tab.user, tab.token) = (Some("u".into()), Some("one".into()));
    tab.connect(&[items()]);
    tab.until_got(&[items()]);
    stage.app.script_mutate([Answer::Hang]);
    tab.mutate("put", json!({"id": "a", "n": 0}));
    stage.app.until_mutation("the first", |c| c.ids() == [1]);
    for (n, token) in ["one", "two", "one", "one"].iter().enumerate() {
        tab.send(json!(["updateAuth", {"auth": token}]));
        tab.mutate("put", json!({"id": "a", "n": n}));
    }
    tab.round_trip();
    stage.app.release();
    until_applied(&mut tab, 5);
    let seen: Vec<(Option<String>, Vec<u64>)> = stage
        .app
        .mutations()
        .iter()
        .map(|c| (header(c, "authorization").map(str::to_owned), c.ids()))
        .collect();
    let of = |token: &str, ids: &[u64]| (Some(format!("Bearer {token}")), ids.to_vec());
    assert_eq!(seen, [of("one", &[1]), of("one", &[2]), of("two", &[3]), of("one", &[4, 5])]);
}

#[test]
fn an_answer_that_is_none_is_told() {
    let stage = Stage::new(&[]);
    let answers = [
        "{}",
        "[]",
        "null",
        r#"{"ok":true}"#,
        r#"{"kind":"MutateResponse"}"#,
        r#"{"mutations":7}"#,
        r#"{"mutations":[{"id":7,"result":{}}]}"#,
        r#"{"mutations":[{"id":{"clientID":"c","id":1}}]}"#,
        r#"{"mutations":[{"id":{"clientID":"c","id":1},"result":{"error":"strange"}}]}"#,
        r#"{"error":"strange"}"#,
        r#"{"error":"http","status":500}"#,
        r#"{"kind":"PushFailed","reason":"internal","message":"m"}"#,
        r#"{"kind":"MutateResponse","userID":7,"mutations":[]}"#,
    ];
    for answer in answers {
        let mut tab = stage.tab(&[items()]);
        stage.app.script_mutate([Answer::Text(answer.to_owned())]);
        let id = tab.mutate("put", json!({"id": "a", "n": 1}));
        let error = tab.until_error();
        assert_eq!(error["kind"], "PushFailed", "{answer}: {error}");
        assert_eq!((&error["origin"], &error["reason"]), (&json!("zeroCache"), &json!("parse")), "{answer}");
        assert_eq!(error["mutationIDs"], json!([{"id": id, "clientID": tab.id}]), "{answer}");
    }
    // Fields that are new to us are no reason.
    let mut tab = stage.tab(&[items()]);
    let answer = json!({"kind": "MutateResponse", "more": 1, "mutations": [
        {"id": {"clientID": tab.id, "id": 1, "more": 1}, "result": {"data": [1], "more": 1}, "more": 1}]});
    stage.app.script_mutate([Answer::Text(answer.to_string())]);
    tab.mutate("put", json!({"id": "a", "n": 1}));
    stage.app.until_mutation("the push", |c| c.body["clientGroupID"] == json!(tab.group));
    tab.quiet("nothing is wrong");
}

#[test]
fn every_client_whose_mutation_came_too_early_is_told() {
    let stage = Stage::new(&[]);
    let mut first = stage.tab(&[items()]);
    let mut second = second(&first);
    let result = |client: &Client, id: u64, result: Value| json!({"id": {"clientID": client.id, "id": id}, "result": result});
    let early = json!({"error": "oooMutation", "details": "expected 1"});
    let answer = json!({"mutations": [
        result(&first, 8, json!({})), result(&first, 9, early.clone()), result(&second, 9, early)]});
    stage.app.script_mutate([Answer::Text(answer.to_string())]);
    first.mutate("put", json!({"id": "a", "n": 1}));
    let id = |client: &Client, id: u64| json!({"clientID": client.id, "id": id});
    let told = [(&mut first, vec![8, 9]), (&mut second, vec![9])];
    for (tab, ids) in told {
        let error = tab.until_error();
        assert_eq!((&error["origin"], &error["reason"]), (&json!("server"), &json!("oooMutation")));
        assert_eq!(error["details"], "expected 1");
        assert_eq!(error["mutationIDs"], json!(ids.iter().map(|n| id(tab, *n)).collect::<Vec<_>>()));
    }
}

#[test]
fn a_failure_is_told_to_the_client_of_the_mutation_and_to_nobody_else() {
    let stage = Stage::new(&[]);
    let mut first = stage.tab(&[items()]);
    let mut second = second(&first);
    let mut gone = first.sibling();
    // Of the app: it names one of the two mutations.
    let (one, two) = (put(&mut first), put(&mut second));
    let failed = json!({"kind": "PushFailed", "origin": "server", "reason": "database", "message": "db down",
                        "details": {"a": 1}, "mutationIDs": [{"clientID": second.id, "id": 1}]});
    stage.app.script_mutate([Answer::Text(failed.to_string())]);
    first.push(vec![one, two]);
    let error = second.until_error();
    assert_eq!((&error["origin"], &error["reason"]), (&json!("server"), &json!("database")));
    assert_eq!((&error["message"], &error["details"]), (&json!("db down"), &json!({"a": 1})));
    first.round_trip();
    // Of a client that has no connection: nobody is told.
    stage.app.script_mutate([Answer::Status(401, "no")]);
    let orphan = put(&mut gone);
    let calls = stage.app.mutations().len();
    push(&mut first, &orphan);
    stage.app.until_mutation("the orphan", |c| c.body["mutations"][0]["clientID"] == json!(gone.id));
    first.quiet("the sender has done nothing wrong");
    assert_eq!(stage.app.mutations().len(), calls + 1, "401 is not tried again");
    // Of the sender's own.
    stage.app.script_mutate([Answer::Status(403, "no")]);
    first.mutate("put", json!({"id": "a", "n": 1}));
    let error = first.until_error();
    assert_eq!((&error["reason"], &error["status"]), (&json!("http"), &json!(403)));
}

#[test]
fn what_goes_along_with_a_push() {
    let stage = Stage::new(&[
        ("MUTATE_API_KEY", "key"),
        ("MUTATE_FORWARD_COOKIES", "true"),
        ("MUTATE_ALLOWED_CLIENT_HEADERS", "X-Tenant,Origin"),
        ("MUTATE_ALLOWED_REQUEST_HEADERS", "X-Trace"),
        ("QUERY_API_KEY", "another"),
    ]);
    let mut tab = stage.client();
    (tab.user, tab.token) = (Some("u".into()), Some("token".into()));
    let pair = |n: &str, v: &str| (n.to_owned(), v.to_owned());
    tab.headers = vec![
        pair("Cookie", "session=1"),
        pair("Origin", "https://app.example"),
        pair("X-Trace", "abc"),
        pair("X-Trace", "def"),
        pair("X-Secret", "no"),
    ];
    tab.init = json!({"userPushHeaders": {"x-tenant": "7", "x-other": "no", "origin": "https://evil.example"},
                      "userQueryHeaders": {"x-tenant": "8"}});
    tab.connect(&[items()]);
    tab.until_got(&[items()]);
    tab.mutate("nonesuch", json!({}));
    tab.until("the result", |c| !c.store.results.is_empty());
    tab.send(json!(["ackMutationResponses", {"clientID": tab.id, "id": 1}]));
    tab.send(json!(["deleteClients", {"clientIDs": ["long-gone"]}]));
    let calls = stage.app.until_mutations(2, "_zero_cleanupResults");
    let push = stage.app.until_mutation("the push", |_| true).remove(0);
    // What cleans up goes along with the same.
    for call in std::iter::once(&push).chain(&calls) {
        let expected = [
            ("authorization", Some("Bearer token")),
            ("x-api-key", Some("key")),
            ("cookie", Some("session=1")),
            ("origin", Some("https://app.example")),
            ("x-tenant", Some("7")),
            ("content-type", Some("application/json")),
            ("x-secret", None),
            ("x-other", None),
        ];
        for (name, value) in expected {
            assert_eq!(header(call, name), value, "{name} of {:?}", call.names());
        }
        assert_eq!(header(call, "x-trace"), Some("abc, def"), "several values are one");
    }
}

#[test]
fn the_url_of_a_push_is_one_that_is_allowed() {
    let stage = Stage::new(&[]);
    let connect = |url: &str| {
        let mut tab = stage.client();
        tab.init = json!({"userPushURL": url});
        tab.connect(&[items()]);
        tab.until_got(&[items()]);
        tab
    };
    for url in [
        format!("http://127.0.0.1:{}/query", stage.app.port),
        format!("{}?appID=mine", stage.app.mutate_url()),
        "http://127.0.0.1:1/mutate".to_owned(),
        "not a url".to_owned(),
    ] {
        let mut tab = connect(&url);
        let id = tab.mutate("put", json!({"id": "a", "n": 1}));
        let error = tab.until_error();
        assert_eq!((&error["kind"], &error["reason"]), (&json!("PushFailed"), &json!("internal")), "{url}");
        assert_eq!(error["mutationIDs"], json!([{"id": id, "clientID": tab.id}]));
    }
    assert!(stage.app.mutations().is_empty(), "nobody was called");
    let mut tab = connect(&format!("{}?tenant=7", stage.app.mutate_url()));
    tab.mutate("put", json!({"id": "a", "n": 1}));
    until_applied(&mut tab, 1);
    let target = stage.app.mutations()[0].request.target.clone();
    assert!(target.contains("tenant=7") && target.contains("schema=zero_0"), "{target}");
    // Each group may have its own, out of a list with a pattern.
    let pattern = format!("http://127.0.0.1:{}/mutate/:tenant", stage.app.port);
    let several = Stage::new(&[("MUTATE_URL", &format!("{},{pattern}", stage.app.mutate_url()))]);
    let mut tab = several.client();
    tab.init = json!({"userPushURL": format!("http://127.0.0.1:{}/mutate/seven", stage.app.port)});
    tab.connect(&[items()]);
    tab.mutate("put", json!({"id": "b", "n": 1}));
    let calls = stage.app.until_mutation("the tenant's", |c| c.request.target.starts_with("/mutate/seven?"));
    assert_eq!(calls.len(), 2);
}

#[test]
fn cleaning_up_waits_for_no_mutation() {
    let stage = Stage::new(&[]);
    let mut tab = stage.tab(&[items()]);
    stage.app.script_mutate([Answer::Hang]);
    tab.mutate("put", json!({"id": "a", "n": 1}));
    stage.app.until_mutation("the push", |c| c.ids() == [1]);
    tab.send(json!(["ackMutationResponses", {"clientID": tab.id, "id": 1}]));
    stage.app.until_mutations(1, "_zero_cleanupResults");
    // Nor does anything else of the connection wait for it.
    stage.app.script_mutate([Answer::Hang]);
    tab.send(json!(["ackMutationResponses", {"clientID": tab.id, "id": 1}]));
    stage.app.until_mutations(2, "_zero_cleanupResults");
    tab.change(vec![items().del()]);
    tab.until("its wish is gone", |c| c.store.desired[&c.id].is_empty());
    stage.app.release();
    until_applied(&mut tab, 1);
}

#[test]
fn a_push_before_the_connection_is_initialised_counts() {
    let stage = Stage::new(&[]);
    let mut tab = stage.client();
    tab.open(None);
    tab.until_connected();
    tab.mutate("put", json!({"id": "a", "n": 1}));
    stage.app.until_mutation("the push", |c| c.ids() == [1]);
    tab.send_init(&[items()]);
    until_applied(&mut tab, 1);
    tab.until("the row", |c| c.store.row("item", "a").is_some());
}

#[test]
fn the_first_of_what_is_joined_gives_the_envelope() {
    let stage = Stage::new(&[]);
    let mut tab = stage.tab(&[items()]);
    stage.app.script_mutate([Answer::Hang]);
    tab.mutate("put", json!({"id": "a", "n": 1}));
    stage.app.until_mutation("the first", |c| c.ids() == [1]);
    for (request, timestamp) in [("second", 2.5), ("third", 3.5)] {
        let mutation = put(&mut tab);
        tab.send(json!(["push", {"clientGroupID": tab.group, "mutations": [mutation], "pushVersion": 1,
                                 "timestamp": timestamp, "requestID": request}]));
    }
    tab.round_trip();
    stage.app.release();
    until_applied(&mut tab, 3);
    let calls = stage.app.mutations();
    let [_, joined] = calls.as_slice() else { panic!("{} calls", calls.len()) };
    assert_eq!(joined.ids(), [2, 3]);
    assert_eq!((&joined.body["requestID"], &joined.body["timestamp"]), (&json!("second"), &json!(2.5)));
    assert_eq!(joined.body["pushVersion"], 1);
}
