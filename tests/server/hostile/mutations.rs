//! Pushes: mutations that are none, of somebody else, too many, or out of order.

use serde_json::{Value, json};

use super::outcome::Outcome::{self, Error, Served};
use super::suite::Suite;
use crate::support::app::{Call, items};
use crate::support::client::Client;

/// A push of these mutations; `SELF` and `GROUP` are put in, and `BYSTANDER` and its `GROUPS`.
fn push(mutations: &[Value]) -> Value {
    json!({"clientGroupID": "GROUP", "mutations": mutations, "pushVersion": 1, "timestamp": 1, "requestID": "SELF"})
}

fn mutation(id: Value, name: &str, arg: Value) -> Value {
    json!({"type": "custom", "id": id, "clientID": "SELF", "name": name, "args": [arg], "timestamp": 1.5})
}

fn put(id: u64) -> Value {
    mutation(json!(id), "put", json!({"id": "hostile", "owner": "hostile", "n": 1}))
}

fn with(mut value: Value, field: &str, to: Value) -> Value {
    value[field] = to;
    value
}

fn pushes() -> Vec<(&'static str, Value, Outcome)> {
    let one = |mutation: Value| push(&[mutation]);
    let invalid = Error("InvalidMessage");
    let many = |count: u64| push(&(1..=count).map(put).collect::<Vec<_>>());
    vec![
        ("a number for a mutation", one(json!(7)), invalid),
        ("an empty mutation", one(json!({})), invalid),
        ("a list for a mutation", one(json!(["custom", 1, "c", "m", [], 1])), invalid),
        ("a mutation of another type", one(with(put(1), "type", json!("other"))), invalid),
        ("a mutation with a surprise", one(with(put(1), "admin", json!(true))), invalid),
        ("a number that is a text", one(mutation(json!("1"), "put", json!({}))), invalid),
        ("a number below nothing", one(mutation(json!(-1), "put", json!({}))), invalid),
        ("a number beyond all", one(mutation(json!(1e300), "put", json!({}))), invalid),
        (
            "a number that is not exact",
            one(mutation(json!(9_007_199_254_740_992_u64), "put", json!({}))),
            invalid,
        ),
        ("arguments that are no list", one(with(put(1), "args", json!({}))), invalid),
        ("a long client", one(with(put(1), "clientID", json!("x".repeat(1_025)))), invalid),
        ("a long name", one(with(put(1), "name", json!("x".repeat(1_025)))), invalid),
        ("a time that is a text", one(with(put(1), "timestamp", json!("now"))), invalid),
        (
            "no request",
            json!({"clientGroupID": "GROUP", "mutations": [], "pushVersion": 1, "timestamp": 1}),
            invalid,
        ),
        ("ten thousand mutations and one", many(10_001), invalid),
        ("the bystander's group", with(one(put(1)), "clientGroupID", json!("OTHERS")), Error("InvalidPush")),
        ("no group", with(one(put(1)), "clientGroupID", json!("")), Error("InvalidPush")),
        ("a mutation of old", one(with(put(1), "type", json!("crud"))), Error("InvalidPush")),
        ("no mutations", push(&[]), Served),
        ("a mutation that nobody knows", one(mutation(json!(1), "__proto__", json!({}))), Served),
        ("a name of SQL", one(mutation(json!(1), "put'; DROP TABLE item; --", json!({}))), Served),
        ("the same mutation twice", push(&[put(1), put(1)]), Served),
        ("a mutation from the past", one(put(0)), Served),
        ("a mutation of the future", one(put(7)), Error("PushFailed")),
        ("the last mutation of all", one(put(9_007_199_254_740_991)), Error("PushFailed")),
        ("mutations backwards", push(&[put(2), put(1)]), Error("PushFailed")),
        (
            "an argument of a megabyte",
            one(mutation(json!(1), "put", json!({"id": "hostile", "x": "x".repeat(1 << 20)}))),
            Served,
        ),
        ("a hundred thousand arguments", one(with(put(1), "args", json!(vec![1; 100_000]))), Served),
        ("another client's mutation", one(with(put(1), "clientID", json!("BYSTANDER"))), Served),
        ("a client of SQL", one(with(put(1), "clientID", json!("' OR '1'='1"))), Served),
        ("a time of the far future", with(one(put(1)), "timestamp", json!(1e308)), Served),
        ("a format that is to come", with(one(put(1)), "pushVersion", json!(1e308)), Served),
        ("a time without an end", with(one(put(1)), "timestamp", json!(-1e308)), Served),
        ("five hundred mutations", many(500), Served),
    ]
}

/// Waits until the app has answered: the group's next push waits for that, and errors are told before.
fn until_answered(suite: &Suite, client: &mut Client) {
    let is = |call: &Call, id: &str| call.body["requestID"] == json!(id);
    suite.stage.app.until_mutation("the push", |call| is(call, &client.id));
    let probe = format!("probe of {}", client.id);
    let next = json!({"type": "custom", "id": 1, "clientID": probe, "name": "put", "timestamp": 1,
                      "args": [{"id": "probe", "owner": "hostile", "n": 1}]});
    let body = json!({"clientGroupID": client.group, "mutations": [next], "pushVersion": 1, "timestamp": 1,
                      "requestID": probe});
    client.send(json!(["push", body]));
    suite.stage.app.until_mutation("the next push", |call| is(call, &probe));
}

#[test]
fn mutations() {
    let mut suite = Suite::new(&[]);
    for (name, body, outcome) in pushes() {
        suite.input(name, |suite| {
            let mut client = suite.tab();
            let text = json!(["push", body]).to_string();
            let text =
                text.replace("\"GROUP\"", &format!("\"{}\"", client.group)).replace("SELF", &client.id);
            let text =
                text.replace("BYSTANDER", &suite.bystander.id).replace("OTHERS", &suite.bystander.group);
            client.send_text(text);
            if outcome == Served && name != "no mutations" {
                until_answered(suite, &mut client);
            }
            outcome.check(&mut client, name);
        });
    }
    suite.input("a push before the beginning", |suite| {
        let mut client = suite.stage.client();
        client.open(None);
        client.until_connected();
        client.mutate("put", json!({"id": "early", "owner": "hostile", "n": 1}));
        client.round_trip();
        client.send_init(&[items()]);
        client.until("what it has pushed", |c| c.store.row("item", "early").is_some());
    });
    suite.input("a push to where nobody may push", |suite| {
        let mut client = suite.stage.client();
        client.init = json!({"userPushURL": "http://169.254.169.254/latest"});
        client.connect(&[]);
        client.mutate("put", json!({"id": "elsewhere", "owner": "hostile", "n": 1}));
        Error("PushFailed").check(&mut client, "elsewhere");
    });
    suite.input("a push and goodbye", |suite| {
        for n in 0..50 {
            let mut client = suite.tab();
            client.mutate("put", json!({"id": format!("goodbye{n}"), "owner": "hostile", "n": 1}));
            client.vanish();
        }
        let mut client = suite.stage.tab(&[items()]);
        client.until("all that was pushed", |c| {
            (0..50).all(|n| c.store.row("item", format!("goodbye{n}")).is_some())
        });
    });
    suite.finish();
}
