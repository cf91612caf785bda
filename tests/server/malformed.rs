//! Somebody sends what no client sends, and it is allowed, or takes its time. Nobody else notices. What is refused at
//! once is in `hostile_inputs`.

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use crate::support::app::{query, schema};
use crate::support::client::{Client, Event, WAIT};
use crate::support::frames::{PING, frame};
use crate::support::http::get;
use crate::support::stage::Stage;
use serde_json::{Value, json};

/// A bystander must see a commit within this time, whatever others do.
const PROMPT: Duration = Duration::from_secs(2);

/// A connected client that has nothing to wait for.
fn at_rest(stage: &Stage) -> Client {
    let mut client = stage.client();
    client.connect(&[]);
    client.until("its first pokes", |c| c.store.cookie.is_some());
    client
}

#[test]
fn unusual_frames_that_are_allowed() {
    let stage = Stage::new(&[]);
    let mut client = at_rest(&stage);
    let pong = |client: &mut Client, what: &str| {
        let event = client.next(WAIT);
        assert!(matches!(event, Some(Event::Pong)), "{what}: {event:?}");
    };
    let message = br#"["ping",{}]"#;
    let mut pieces = frame(0x01, &message[..1]);
    for byte in &message[1..message.len() - 1] {
        pieces.extend(frame(0x00, &[*byte]));
        pieces.extend(frame(PING, b"between"));
        pieces.extend(frame(0x00, b""));
    }
    pieces.extend(frame(0x80, &message[message.len() - 1..]));
    // Each byte in a packet of its own, at the worst.
    for chunk in pieces.chunks(3) {
        client.raw().write_all(chunk).expect("it can be sent");
    }
    pong(&mut client, "in pieces");
    client.raw().write_all(&frame(0x82, message)).expect("it can be sent");
    pong(&mut client, "in a binary message");
    client.send_text(" [ \"ping\" , { } ] ".to_owned());
    pong(&mut client, "with blanks");
    client.raw().write_all(&frame(0x8a, b"a pong nobody asked for")).expect("it can be sent");
    client.round_trip();
    client.close();
}

#[test]
fn queries_that_cannot_be_run_fail_alone() {
    let mut stage = Stage::prepared(
        "INSERT INTO item VALUES ('a', 'o', 1, NULL); INSERT INTO hidden VALUES ('secret')",
        &[],
    );
    let bystander = stage.bystander();
    let good = query("items", json!([]));
    let bad: Vec<_> = ["noTable", "noColumn", "noOrderColumn", "noRelated", "refused", "unparsed"]
        .map(|name| query(name, json!(["x"])))
        .into();
    let mut tab = stage.client();
    let mut all = vec![good.clone()];
    all.extend(bad.iter().cloned());
    tab.connect(&all);
    tab.until_got(std::slice::from_ref(&good));
    let refused = |client: &Client, query: &crate::support::app::Query| {
        let told = client.refused.iter().any(|e| e["id"] == json!(query.hash()));
        let del = ("del".to_owned(), query.hash());
        told && client.pokes.iter().any(|p| p.got.contains(&del))
    };
    tab.until("all refusals", |c| bad.iter().all(|q| refused(c, q)));
    let entry = |client: &Client, name: &str| {
        client.refused.iter().find(|e| e["name"] == name).cloned().unwrap_or_default()
    };
    assert_eq!(entry(&tab, "refused")["details"], json!({"code": 7}));
    let unparsed = entry(&tab, "unparsed");
    assert_eq!(unparsed["error"], "parse");
    assert_eq!((&unparsed["message"], &unparsed["details"]), (&json!("bad args"), &json!([1])));
    assert_eq!(entry(&tab, "noTable")["error"], "app");
    assert!(entry(&tab, "noTable")["message"].as_str().is_some_and(|m| m.contains("nonesuch")));
    // They can be asked for later just as well, and the good one goes on.
    let later = query("noTable", json!(["later"]));
    tab.change(vec![later.put()]);
    tab.until("the later refusal", |c| refused(c, &later));
    stage.sql.run("UPDATE item SET n = 2");
    tab.until("a change", |c| c.store.row("item", "a").is_some_and(|r| r["n"] == 2));
    assert!(bad.iter().all(|q| !tab.store.got.contains(&q.hash())));
    // A table that the client does not know gives no rows, and no error.
    let hidden = query("hidden", json!([]));
    tab.change(vec![hidden.put()]);
    tab.until_got(std::slice::from_ref(&hidden));
    assert_eq!(tab.store.rows.len(), 1);
    bystander.finish(PROMPT);
}

#[test]
fn client_schemas_that_do_not_fit() {
    let stage = Stage::new(&[]);
    let bystander = stage.bystander();
    let mut wrong = schema();
    wrong["tables"]["zebra"] = json!({"columns": {"id": {"type": "string"}}, "primaryKey": ["id"]});
    wrong["tables"]["app.ant"] = json!({"columns": {"id": {"type": "string"}}, "primaryKey": ["id"]});
    wrong["tables"]["item"]["columns"]["size"] = json!({"type": "string"});
    wrong["tables"]["item"]["columns"]["n"] = json!({"type": "boolean"});
    wrong["tables"]["pair"]["primaryKey"] = json!(["a"]);
    let mut client = stage.client();
    client.init = json!({"clientSchema": wrong});
    client.connect(&[]);
    let error = client.until_error();
    assert_eq!(error["kind"], "SchemaVersionNotSupported");
    let message = error["message"].as_str().expect("a message").to_owned();
    let lines: Vec<&str> = message.lines().collect();
    // Missing tables first, in order; then, table by table, columns, types, the key.
    let words = [r#""app.ant""#, r#""zebra""#, r#""item"."size""#, r#""item"."n""#, r#""pair""#];
    assert_eq!(lines.len(), words.len(), "{message}");
    for (line, word) in lines.iter().zip(words) {
        assert!(line.contains(word), "{line:?} is not about {word}");
    }
    for empty in [json!({"tables": {}, "more": 1}), json!({}), json!([]), json!({"tables": {"item": {}}})] {
        let mut client = stage.client();
        client.init = json!({"clientSchema": empty});
        client.connect(&[]);
        assert_eq!(client.until_error()["kind"], "InvalidMessage", "{empty}");
    }
    let mut client = stage.client();
    client.open(Some(&json!({"desiredQueriesPatch": []})));
    client.until_connected();
    assert_eq!(client.until_error()["kind"], "InvalidConnectionRequest", "no schema");
    // A second tab with another one is refused; the first stays.
    let mut first = at_rest(&stage);
    let mut second = Client::in_group(&stage.server, &first.group);
    let mut other = schema();
    other["tables"].as_object_mut().expect("tables").remove("pair");
    second.init = json!({"clientSchema": other});
    second.connect(&[]);
    assert_eq!(second.until_error()["kind"], "InvalidConnectionRequest");
    // The order of keys does not matter.
    let mut third = Client::in_group(&stage.server, &first.group);
    let mut reordered = schema();
    let tables: Vec<(String, Value)> =
        reordered["tables"].as_object().expect("tables").clone().into_iter().rev().collect();
    reordered["tables"] = Value::Object(tables.into_iter().collect());
    third.init = json!({"clientSchema": reordered});
    third.connect(&[]);
    third.until("a poke", |c| c.store.cookie.is_some());
    first.round_trip();
    bystander.finish(PROMPT);
}

#[test]
fn heads_that_never_end() {
    let stage = Stage::new(&[]);
    let bystander = stage.bystander();
    let before = stage.server.descriptors();
    let open = || TcpStream::connect(("127.0.0.1", stage.server.port)).expect("it is accepted");
    let mut slow: Vec<TcpStream> = (0..300).map(|_| open()).collect();
    let drip = |sockets: &mut [TcpStream], bytes: &[u8]| {
        for socket in sockets {
            socket.write_all(bytes).expect("it is still open");
        }
    };
    drip(&mut slow, b"GET /sync/v51/connect HTTP/1.1\r\n");
    for _ in 0..5 {
        drip(&mut slow, b"X-Drip: 1\r\n");
        assert_eq!(get(stage.server.port, "/keepalive").expect("it answers").0, 200);
    }
    // One head, a byte at a time: looking at it again for each byte would take minutes.
    let mut long = open();
    long.set_nodelay(true).expect("a socket");
    let mut client = at_rest(&stage);
    for byte in b"GET / HTTP/1.1\r\nX-Long: ".iter().copied().chain(std::iter::repeat_n(b'x', 30_000)) {
        long.write_all(&[byte]).expect("it is still open");
    }
    client.round_trip();
    drop((slow, long));
    let deadline = std::time::Instant::now() + WAIT;
    while stage.server.descriptors() > before + 8 {
        assert!(std::time::Instant::now() < deadline, "{} descriptors stay", stage.server.descriptors());
        std::thread::sleep(Duration::from_millis(10));
    }
    bystander.finish(PROMPT);
}
