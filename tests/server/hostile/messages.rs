//! Messages of a client that was let in: what is no message, and what is one that asks for too much.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::outcome::Outcome::{self, Error, Served};
use super::suite::Suite;
use crate::support::app::{Answer, Call, items, schema};

const INVALID: Outcome = Error("InvalidMessage");

type Row = (&'static str, String, Outcome);

fn change(ops: &str) -> String {
    format!(r#"["changeDesiredQueries",{{"desiredQueriesPatch":[{ops}]}}]"#)
}

/// A query by name with these arguments.
fn asked(args: &str) -> String {
    change(&format!(r#"{{"op":"put","hash":"h","name":"itemsOf","args":{args}}}"#))
}

fn no_messages() -> Vec<Row> {
    let row = |name, text: &str| (name, text.to_owned(), INVALID);
    vec![
        row("nothing", "null"),
        row("an object", "{}"),
        row("an empty list", "[]"),
        row("the beginning of lists", "[[[["),
        ("lists without an end", "[".repeat(100_000), INVALID),
        ("objects without an end", r#"{"a":"#.repeat(100_000), INVALID),
        row("a NUL", "\u{0}"),
        row("no end", r#"["ping""#),
        row("no body", r#"["ping"]"#),
        row("two bodies", r#"["ping",{},{}]"#),
        row("a surprise in a ping", r#"["ping",{"a":1}]"#),
        row("a list for an object", r#"["ping",[]]"#),
        row("the server's own message", r#"["pong",{}]"#),
        row("a poke", r#"["pokeStart",{"pokeID":"1","baseCookie":null}]"#),
        row("a number for a kind", r#"[1,{}]"#),
        row("an unknown kind", r#"["noSuchMessage",{}]"#),
        row("a kind in other letters", r#"["PING",{}]"#),
        row("a kind in escapes", r#"["p\u0069ng",{}]"#),
        row("two messages", r#"["ping",{}]["ping",{}]"#),
        row("a comment", r#"["ping",/**/{}]"#),
        row("a comma too many", r#"["ping",{},]"#),
        row("quotes of another language", "['ping',{}]"),
        row("a value that is no JSON", r#"["ping",NaN]"#),
        row("a prototype", r#"["ping",{"__proto__":{"admin":true}}]"#),
        row("a key twice", r#"["changeDesiredQueries",{"desiredQueriesPatch":[],"desiredQueriesPatch":[]}]"#),
        row("no list of operations", r#"["changeDesiredQueries",{}]"#),
        row("a list that is none", r#"["changeDesiredQueries",{"desiredQueriesPatch":{"length":1}}]"#),
        row("a surprise", r#"["changeDesiredQueries",{"desiredQueriesPatch":[],"more":1}]"#),
        row("all clients", r#"["deleteClients",{"clientIDs":"all"}]"#),
        row("clients and a surprise", r#"["deleteClients",{"clientIDs":[],"more":1}]"#),
        row("clients that are no texts", r#"["deleteClients",{"clientIDs":[{"$ne":null}]}]"#),
        row("no token", r#"["updateAuth",{}]"#),
        row("a token that is none", r#"["updateAuth",{"auth":{"a":1}}]"#),
        row("a mutation below nothing", r#"["ackMutationResponses",{"id":-1,"clientID":"c"}]"#),
        row("half a mutation", r#"["ackMutationResponses",{"id":1.5,"clientID":"c"}]"#),
        row("a mutation beyond all", r#"["ackMutationResponses",{"id":1e300,"clientID":"c"}]"#),
        row("an inspector that asks nothing", r#"["inspect",{}]"#),
        row(
            "an inspector that asks anything",
            r#"["inspect",{"op":"eval","id":"1","value":"process.exit()"}]"#,
        ),
        row(
            "a long operation of an inspector",
            &format!(r#"["inspect",{{"op":"{}é","id":"1"}}]"#, "x".repeat(39)),
        ),
    ]
}

fn no_operations() -> Vec<Row> {
    let row = |name, op: &str| (name, change(op), INVALID);
    let put = |rest: &str| format!(r#"{{"op":"put","hash":"h",{rest}}}"#);
    let named = |rest: &str| put(&format!(r#""name":"items","args":{rest}"#));
    vec![
        row("an unknown operation", r#"{"op":"move","hash":"h"}"#),
        row("a put of nothing", r#"{"op":"put"}"#),
        row("a del of nothing", r#"{"op":"del"}"#),
        row("a hash that is a number", r#"{"op":"put","hash":7,"name":"items","args":[]}"#),
        row("a hash that is long", &format!(r#"{{"op":"del","hash":"{}"}}"#, "x".repeat(1_025))),
        row(
            "a name that is long",
            &format!(r#"{{"op":"put","hash":"h","name":"{}","args":[]}}"#, "x".repeat(1_025)),
        ),
        row("arguments that are an object", &named("{}")),
        row("arguments that are missing", &put(r#""name":"items""#)),
        row("a name and a query", &put(r#""name":"items","args":[],"ast":{"table":"item"}"#)),
        row("a time that is a text", &named(r#"[],"ttl":"long""#)),
        row("a time beyond all numbers", &named(r#"[],"ttl":1e999"#)),
        row("a surprise in an operation", &named(r#"[],"more":1"#)),
        row("arguments without an end", &named("[1e999")),
        (
            "twenty thousand operations and one",
            change(&vec![r#"{"op":"del","hash":"h"}"#; 20_001].join(",")),
            INVALID,
        ),
        ("more queries than a client may have", change(&many_queries(5_001)), INVALID),
    ]
}

fn many_queries(count: usize) -> String {
    let one = |n| format!(r#"{{"op":"put","hash":"{n}","name":"itemsOf","args":["{n}"]}}"#);
    (0..count).map(one).collect::<Vec<_>>().join(",")
}

fn asks_much() -> Vec<Row> {
    let row = |name, text: String| (name, text, Served);
    let ack =
        |client: &str, id: &str| format!(r#"["ackMutationResponses",{{"clientID":{client},"id":{id}}}]"#);
    let inspect = |rest: &str| format!(r#"["inspect",{{"id":"1",{rest}}}]"#);
    vec![
        row("keys in escapes", r#"["changeDesiredQueries",{"d\u0065siredQueriesPatch":[]}]"#.into()),
        row("blanks", format!("[{} \"ping\" , {{ }} ]", " \n\t\r".repeat(100_000))),
        row("an empty hash", change(r#"{"op":"put","hash":"","name":"items","args":[]}"#)),
        row(
            "a hash of all kinds of characters",
            change(r#"{"op":"put","hash":"\u0000\n\"'\\;--\ud83d\ude00","name":"items","args":[]}"#),
        ),
        row("half a character in an argument", asked(r#"["\ud800"]"#)),
        row("a number that nobody can hold", asked("[1e999]")),
        row("a number of many digits", asked(&format!("[0.{}]", "1".repeat(100_000)))),
        row(
            "a time that is endless",
            change(r#"{"op":"put","hash":"h","name":"items","args":[],"ttl":1e308}"#),
        ),
        row(
            "a time below nothing",
            change(r#"{"op":"put","hash":"h","name":"items","args":[],"ttl":-1e308}"#),
        ),
        row(
            "a time of next to nothing",
            change(r#"{"op":"put","hash":"h","name":"items","args":[],"ttl":1e-320}"#),
        ),
        row("arguments as deep as may be", asked(&format!("{}{}", "[".repeat(100), "]".repeat(100)))),
        row("arguments far deeper than that", asked(&format!("{}{}", "[".repeat(5_000), "]".repeat(5_000)))),
        row("an argument of a megabyte", asked(&format!("[\"{}\"]", "x".repeat(1 << 20)))),
        row("a hundred thousand arguments", asked(&format!("[{}]", vec!["\"x\""; 100_000].join(",")))),
        row("a query that the app refuses", change(r#"{"op":"put","hash":"h","name":"refused","args":[]}"#)),
        row(
            "a query of a name that nobody has",
            change(r#"{"op":"put","hash":"h","name":"__proto__","args":[]}"#),
        ),
        row("one query, wanted and not wanted", flapping()),
        row("one hash for many queries", one_hash()),
        row(
            "ten thousand that were never wanted",
            change(
                &(0..10_000).map(|n| format!(r#"{{"op":"del","hash":"{n}"}}"#)).collect::<Vec<_>>().join(","),
            ),
        ),
        row("nothing is wanted, a thousand times", change(&vec![r#"{"op":"clear"}"#; 1_000].join(","))),
        ("itself is deleted", r#"["deleteClients",{"clientIDs":["SELF"]}]"#.into(), Error("Internal")),
        row(
            "the bystander is deleted",
            r#"["deleteClients",{"clientIDs":["BYSTANDER"],"clientGroupIDs":["GROUP"]}]"#.into(),
        ),
        row(
            "SQL is deleted",
            r#"["deleteClients",{"clientIDs":["'); DROP TABLE item; --","\u0000"]}]"#.into(),
        ),
        row(
            "ten thousand are deleted",
            format!(
                r#"["deleteClients",{{"clientIDs":[{}]}}]"#,
                (0..10_000).map(|n| format!("\"c{n}\"")).collect::<Vec<_>>().join(",")
            ),
        ),
        row("the bystander's results", ack("\"BYSTANDER\"", "9007199254740991")),
        row("nobody's results", ack("\"\"", "0")),
        row("results of SQL", ack(r#""' OR '1'='1""#, "1")),
        ("results of a long name", ack(&format!("\"{}\"", "x".repeat(1 << 20)), "1"), INVALID),
        row("a guess at the password", inspect(r#""op":"authenticate","value":"guess""#)),
        row(
            "a guess of a megabyte",
            inspect(&format!(r#""op":"authenticate","value":"{}""#, "x".repeat(1 << 20))),
        ),
        row("an inspector's look without a password", inspect(r#""op":"queries""#)),
        row("an inspector's look at the bystander", inspect(r#""op":"queries","clientID":"BYSTANDER""#)),
        row(
            "an inspector's query",
            inspect(r#""op":"analyze-query","value":{"table":"hidden"},"options":{"vendedRows":true}"#),
        ),
        row(
            "an inspector's long id",
            format!(r#"["inspect",{{"op":"version","id":"{}"}}]"#, "x".repeat(1 << 20)),
        ),
        row(
            "messages that mean nothing any more",
            r#"["pull",{"clientGroupID":"GROUP","cookie":null,"requestID":"r"}]"#.into(),
        ),
    ]
}

/// A query that is wanted and not wanted in turns, in one message.
fn flapping() -> String {
    let put = r#"{"op":"put","hash":"h","name":"items","args":[],"ttl":1}"#;
    change(&[put, r#"{"op":"del","hash":"h"}"#].repeat(5_000).join(","))
}

/// The same hash, each time for another query.
fn one_hash() -> String {
    let one = |n| format!(r#"{{"op":"put","hash":"one","name":"itemsOf","args":["{n}"]}}"#);
    change(&(0..1_000).map(one).collect::<Vec<_>>().join(","))
}

/// Lists of a million: the longest that fit into a message.
fn of_a_million() -> Vec<Row> {
    let ids = vec!["\"x\""; 1_000_000].join(",");
    vec![
        ("a million are deleted", format!(r#"["deleteClients",{{"clientIDs":[{ids}]}}]"#), INVALID),
        (
            // Nobody reads them.
            "a million groups are deleted",
            format!(r#"["deleteClients",{{"clientGroupIDs":[{ids}]}}]"#),
            Served,
        ),
    ]
}

/// One tab acknowledges thousands of results while the app takes its time: another's push comes all the same.
#[test]
fn acknowledgements() {
    let mut suite = Suite::new(&[]);
    suite.input("thousands of acknowledgements", |suite| {
        let mut client = suite.tab_whose_app_says(Answer::Normal);
        let token = client.token.clone().expect("a token");
        suite.stage.app.rule_mutate(&token, Some(Answer::Slow(Duration::from_millis(100))));
        for id in 0..5_000 {
            client.send(json!(["ackMutationResponses", {"clientID": client.id, "id": id}]));
        }
        client.round_trip();
        let mut other = suite.tab();
        let began = Instant::now();
        other.mutate("put", json!({"id": "other", "owner": "other", "n": 1}));
        let of_other = |call: &Call| call.body["clientGroupID"] == other.group.as_str();
        suite.stage.app.until_mutation("the other's push", of_other);
        assert!(began.elapsed() < Duration::from_secs(2), "it took {:?}", began.elapsed());
        // What was acknowledged last is what counts, and it arrives.
        suite.stage.app.until_mutation("the last acknowledgement", |call| {
            call.body["mutations"][0]["args"][0]["upToMutationID"] == 4_999
        });
    });
    suite.finish();
}

#[test]
fn messages() {
    let mut suite = Suite::new(&[]);
    for (name, text, outcome) in [no_messages(), no_operations(), asks_much(), of_a_million()].concat() {
        suite.input(name, |suite| {
            let mut client = suite.tab();
            let text = text.replace("SELF", &client.id);
            let text =
                text.replace("BYSTANDER", &suite.bystander.id).replace("GROUP", &suite.bystander.group);
            client.send_text(text);
            outcome.check(&mut client, name);
        });
    }
    suite.finish();
}

/// First messages: `initConnection` bodies.
fn beginnings() -> Vec<(&'static str, Value, Outcome)> {
    let with = |field: &str, value: Value| json!({"desiredQueriesPatch": [], "clientSchema": schema(), field: value});
    let knowing = |name: &str| {
        let mut schema = schema();
        schema["tables"][name] = json!({"columns": {"id": {"type": "string"}}, "primaryKey": ["id"]});
        json!({"desiredQueriesPatch": [], "clientSchema": schema})
    };
    let ids: Vec<String> = (0..10_000).map(|n| format!("c{n}")).collect();
    let misfit = Error("SchemaVersionNotSupported");
    vec![
        ("a surprise", with("surprise", json!(1)), INVALID),
        ("no schema", json!({"desiredQueriesPatch": []}), Error("InvalidConnectionRequest")),
        ("a schema that is a list", with("clientSchema", json!([])), INVALID),
        ("a table of SQL", knowing("item\"; DROP TABLE item; --"), misfit),
        ("a table of the database's own", knowing("pg_catalog.pg_authid"), misfit),
        ("a table of SQLite's own", knowing("sqlite_master"), misfit),
        ("a table of the server's own", knowing("_zero.replicationConfig"), misfit),
        ("a table with a NUL", knowing("item\0"), misfit),
        ("a table of a long name", knowing(&"x".repeat(100_000)), misfit),
        ("a prototype for a table", knowing("__proto__"), misfit),
        ("headers that are a list", with("userQueryHeaders", json!(["a"])), INVALID),
        ("nobody is there", with("activeClients", json!([])), Served),
        ("ten thousand are there", with("activeClients", json!(ids)), Served),
        ("ten thousand are gone", with("deleted", json!({"clientIDs": ids})), Served),
        ("a million are there", with("activeClients", json!(vec!["x"; 1_000_000])), INVALID),
        ("a million are gone", with("deleted", json!({"clientIDs": vec!["x"; 1_000_000]})), INVALID),
        ("another group is gone", with("deleted", json!({"clientGroupIDs": ["group0", "group1"]})), Served),
        ("a trace of a megabyte", with("traceparent", json!("x".repeat(1 << 20))), Served),
        (
            "headers that hold lines",
            with(
                "userQueryHeaders",
                json!({"X-Evil\r\nX-Worse": "1\r\n2", "authorization": "Bearer admin", "host": "evil"}),
            ),
            Served,
        ),
        (
            "ten thousand headers",
            with(
                "userPushHeaders",
                Value::Object((0..10_000).map(|n| (format!("x-{n}"), json!("1"))).collect()),
            ),
            INVALID,
        ),
        (
            "a metadata service",
            with("userQueryURL", json!("http://169.254.169.254/latest/meta-data/")),
            Error("TransformFailed"),
        ),
        ("a file", with("userQueryURL", json!("file:///etc/passwd")), Error("TransformFailed")),
        ("no URL", with("userQueryURL", json!("\u{0}\u{202e}")), Error("TransformFailed")),
        ("a long URL", with("userQueryURL", json!(format!("http://{}/", "x".repeat(100_000)))), INVALID),
        (
            "the app's address before another",
            with("userQueryURL", json!("http://APP@evil.example/query")),
            Error("TransformFailed"),
        ),
        (
            "the app's address within another",
            with("userQueryURL", json!("http://evil.example/?http://APP/query")),
            Error("TransformFailed"),
        ),
        (
            "a name within the app's address",
            with("userQueryURL", json!("http://evil:word@APP/query")),
            Served,
        ),
        ("a path upward", with("userQueryURL", json!("http://APP/query/../admin")), Error("TransformFailed")),
        (
            "another endpoint of the app",
            with("userQueryURL", json!("http://APP/mutate")),
            Error("TransformFailed"),
        ),
        (
            "parameters that are the server's",
            with("userQueryURL", json!("http://APP/query?schema=x&appID=y")),
            Error("TransformFailed"),
        ),
        ("an empty URL", with("userQueryURL", json!("")), Served),
    ]
}

#[test]
fn first_messages() {
    let mut suite = Suite::new(&[]);
    for (name, body, outcome) in beginnings() {
        suite.input(name, |suite| {
            let mut client = suite.stage.client();
            client.open(None);
            client.until_connected();
            let app = format!("127.0.0.1:{}", suite.stage.app.port);
            client.send_text(json!(["initConnection", body]).to_string().replace("APP", &app));
            outcome.check(&mut client, name);
        });
    }
    suite.input("a second beginning", |suite| {
        let mut client = suite.tab();
        client.send_init(&[]);
        Error("Internal").check(&mut client, "a second beginning");
    });
    suite.input("messages before the beginning", |suite| {
        let mut client = suite.stage.client();
        client.open(None);
        client.until_connected();
        client.change(vec![items().put()]);
        client.send(json!(["deleteClients", {"clientIDs": [suite.bystander.id]}]));
        client.send(json!(["updateAuth", {"auth": "x"}]));
        client.round_trip();
        client.send_init(&[]);
        client.until("its first pokes", |c| c.store.cookie.is_some());
        assert!(client.store.got.is_empty() && client.store.rows.is_empty());
    });
    suite.input("somebody joins the bystander's group as another user", |suite| {
        let mut client =
            crate::support::client::Client::in_group(&suite.stage.server, &suite.bystander.group);
        client.user = Some("mallory".into());
        assert_eq!(client.until_refused()["kind"], "Unauthorized");
    });
    suite.finish();
}
