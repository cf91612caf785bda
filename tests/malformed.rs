//! Somebody sends what no client sends. He is told why, if he can be told, and nobody else
//! notices.

mod support;

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};
use support::app::{query, schema};
use support::client::{Client, Event, WAIT, protocol};
use support::frames::{PING, TEXT, frame, head, unmasked};
use support::http::{exchange, get};
use support::stage::Stage;

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
fn malformed_frames() {
    let stage = Stage::new(&[]);
    let bystander = stage.bystander();
    let ping = br#"["ping",{}]"#;
    let protocol_error = [
        ("no mask", unmasked(TEXT, ping)),
        ("first reserved bit", frame(TEXT | 0x40, ping)),
        ("second reserved bit", frame(TEXT | 0x20, ping)),
        ("third reserved bit", frame(TEXT | 0x10, ping)),
        ("reserved data opcode", frame(0x83, ping)),
        ("reserved control opcode", frame(0x8b, ping)),
        ("long ping", frame(PING, &[b'x'; 126])),
        ("ping in parts", frame(0x09, b"x")),
        ("long close", frame(0x88, &[b'x'; 200])),
        ("continuation of nothing", frame(0x80, ping)),
        ("message within a message", [frame(0x01, b"[\"pi"), frame(TEXT, ping)].concat()),
    ];
    for (what, bytes) in protocol_error {
        let mut client = at_rest(&stage);
        client.raw().write_all(&bytes).expect("it can be sent");
        let (code, reason) = client.until_closed();
        assert_eq!(code, Some(1002), "{what}: {reason}");
        assert!(!reason.is_empty(), "{what}");
    }
    for (what, length) in
        [("just too large", (10 << 20) + 1), ("absurd", u64::MAX >> 1), ("all bits", u64::MAX)]
    {
        let mut client = at_rest(&stage);
        client.raw().write_all(&head(TEXT, length, true)).expect("it can be sent");
        client.raw().write_all(&[1, 2, 3, 4]).expect("it can be sent");
        assert_eq!(client.until_closed().0, Some(1009), "{what}");
    }
    let mut client = at_rest(&stage);
    client.raw().write_all(&frame(TEXT, b"[\"ping\",{\"\xff\xfe\":1}]")).expect("it can be sent");
    assert_eq!(client.until_error()["kind"], "InvalidMessage", "not UTF-8");
    bystander.finish(PROMPT);
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
fn malformed_messages() {
    let stage = Stage::new(&[]);
    let bystander = stage.bystander();
    let put = |op: &str| format!(r#"["changeDesiredQueries",{{"desiredQueriesPatch":[{op}]}}]"#);
    let push = |mutation: &str| {
        format!(
            r#"["push",{{"clientGroupID":"g","mutations":[{mutation}],"pushVersion":1,"timestamp":1,"requestID":"r"}}]"#
        )
    };
    let ast = |ast: &str| put(&format!(r#"{{"op":"put","hash":"h","ast":{ast}}}"#));
    let deep = format!(r#"{{"table":"item","where":{}"#, r#"{"type":"and","conditions":["#.repeat(50_000));
    let cases = [
        String::new(),
        "null".into(),
        "{}".into(),
        "[]".into(),
        "[[[[".into(),
        "[".repeat(100_000),
        "\u{0}".into(),
        r#"["ping""#.into(),
        r#"["ping"]"#.into(),
        r#"["ping",{},{}]"#.into(),
        r#"["ping",{"a":1}]"#.into(),
        r#"["ping",[]]"#.into(),
        r#"["pong",{}]"#.into(),
        r#"[1,{}]"#.into(),
        r#"["noSuchMessage",{}]"#.into(),
        r#"["changeDesiredQueries",{}]"#.into(),
        r#"["changeDesiredQueries",{"desiredQueriesPatch":[],"more":1}]"#.into(),
        put(r#"{"op":"move","hash":"h"}"#),
        put(r#"{"op":"put"}"#),
        put(r#"{"op":"del"}"#),
        put(r#"{"op":"put","hash":7,"name":"items","args":[]}"#),
        put(r#"{"op":"put","hash":"h","name":"items","args":{}}"#),
        put(r#"{"op":"put","hash":"h","name":"items","args":[],"ttl":"long"}"#),
        put(r#"{"op":"put","hash":"h","name":"items","args":[],"more":1}"#),
        put(r#"{"op":"put","hash":"h","name":"items","args":[1e999]}"#).replace("[1e999]", "[1e999"),
        ast("{}"),
        ast(r#"{"table":"item","more":1}"#),
        ast(r#"{"table":"item","limit":"few"}"#),
        ast(r#"{"table":"item","orderBy":[["id","sideways"]]}"#),
        ast(
            r#"{"table":"item","where":{"type":"simple","op":"~","left":{"type":"column","name":"id"},"right":{"type":"literal","value":1}}}"#,
        ),
        ast(&deep),
        r#"["deleteClients",{"clientIDs":"all"}]"#.into(),
        r#"["deleteClients",{"clientIDs":[],"more":1}]"#.into(),
        r#"["updateAuth",{}]"#.into(),
        r#"["ackMutationResponses",{"id":-1,"clientID":"c"}]"#.into(),
        r#"["ackMutationResponses",{"id":1.5,"clientID":"c"}]"#.into(),
        r#"["inspect",{}]"#.into(),
        push("7"),
        push("{}"),
        push(r#"{"type":"other","id":1,"clientID":"c","name":"m","args":[],"timestamp":1}"#),
        push(r#"{"type":"custom","id":"1","clientID":"c","name":"m","args":[],"timestamp":1}"#),
        push(r#"{"type":"custom","id":1e300,"clientID":"c","name":"m","args":[],"timestamp":1}"#),
        push(r#"{"type":"custom","id":1,"clientID":"c","name":"m","args":{},"timestamp":1}"#),
        r#"["push",{"clientGroupID":"g","mutations":[],"pushVersion":1,"timestamp":1}]"#.into(),
    ];
    for message in cases {
        let mut client = at_rest(&stage);
        let shown: String = message.chars().take(200).collect();
        println!("{shown}");
        client.send_text(message);
        let error = client.until_error();
        assert_eq!(error["kind"], "InvalidMessage", "{shown}: {error}");
        assert_eq!(error["origin"], "zeroCache", "{shown}");
    }
    // The same as the first message, in the header.
    let mut client = stage.client();
    client.open(Some(&json!({"desiredQueriesPatch": [], "surprise": 1})));
    client.until_connected();
    assert_eq!(client.until_error()["kind"], "InvalidMessage");
    bystander.finish(PROMPT);
}

#[test]
fn upgrades_that_are_refused_by_a_close() {
    let stage = Stage::new(&[]);
    let bystander = stage.bystander();
    let good = "clientID=c&clientGroupID=g&ts=1.5&lmid=0&wsid=w&baseCookie=";
    let without = |name: &str| {
        let kept: Vec<&str> = good.split('&').filter(|p| !p.starts_with(&format!("{name}="))).collect();
        format!("/sync/v51/connect?{}", kept.join("&"))
    };
    let with = |name: &str, value: &str| format!("{}&{name}={value}", without(name));
    let header = protocol(None, None);
    let long = "x".repeat(5_000);
    let cases: [(String, Option<&str>, &str); 19] = [
        (without("clientID"), Some(&header), "clientID"),
        (without("clientGroupID"), Some(&header), "clientGroupID"),
        (without("ts"), Some(&header), "ts"),
        (without("lmid"), Some(&header), "lmid"),
        (with("clientID", ""), Some(&header), "clientID"),
        (with("ts", "soon"), Some(&header), "ts"),
        (with("lmid", "x1"), Some(&header), "lmid"),
        (with("clientID", &long), Some(&header), "clientID"),
        (with("userID", &long), Some(&header), "userID"),
        (format!("/a/b/sync/v51/connect?{good}"), Some(&header), "/a/b/sync"),
        (format!("/sync/v51/connect/?{good}"), Some(&header), "Invalid URL"),
        (format!("/sync/v51?{good}"), Some(&header), "Invalid URL"),
        (format!("/sync/v5.1/connect?{good}"), Some(&header), "Invalid URL"),
        (format!("/sync/vx/connect?{good}"), Some(&header), "vx"),
        (format!("/nonsense?{good}"), Some(&header), "/nonsense"),
        (format!("/SYNC/v51/connect?{good}"), Some(&header), "SYNC"),
        (with("ts", "1"), None, "Sec-WebSocket-Protocol"),
        (with("ts", "1"), Some("!!!"), "Sec-WebSocket-Protocol"),
        (with("ts", "1"), Some("bm90IGpzb24"), "Sec-WebSocket-Protocol"),
    ];
    for (target, header, word) in cases {
        let mut client = stage.client();
        client.open_raw(&target, header);
        match client.next(WAIT) {
            Some(Event::Closed(code, reason)) => {
                assert_eq!(code, Some(1002), "{target}: {reason}");
                assert!(reason.contains(word) && reason.len() <= 123, "{target}: {reason:?}");
            }
            other => panic!("{target}: {other:?}"),
        }
    }
    let mut client = stage.client();
    client.open_raw(&format!("/{long}/b/c/d?{good}"), Some(&header));
    let (_, reason) = client.until_closed();
    assert!(reason.len() <= 123 && reason.ends_with("..."), "{reason:?}");
    // The version is looked at last.
    for version in [0, 29, 53, 1_000_000] {
        let mut client = stage.client();
        client.version = version;
        client.open(None);
        let error = client.until_error();
        assert_eq!(error["kind"], "VersionNotSupported", "{error}");
    }
    // One segment before the path, and a fraction in ts, are what browsers send.
    let mut client = stage.client();
    let target = format!("/base{}", client.target());
    client.open_raw(&target, Some(&header));
    client.wsid = String::new();
    assert!(matches!(client.next(WAIT), Some(Event::Connected(_))));
    bystander.finish(PROMPT);
}

#[test]
fn cookies_that_nobody_issued() {
    let stage = Stage::new(&[]);
    let bystander = stage.bystander();
    for cookie in ["x", "0", "000", "00:", ":01", "00:01:02", "00:1", "0A", "00 ", "é", "00.", "-1", "zz"] {
        let mut client = stage.client();
        client.store.cookie = Some(cookie.to_owned());
        client.open(Some(&json!({"desiredQueriesPatch": [], "clientSchema": schema()})));
        let error = client.until_error();
        assert_eq!(error["kind"], "Internal", "{cookie}: {error}");
    }
    for cookie in ["01", "4l6hww", "4l6hww:03", "c1y2p0ij32e8e7", "00:01"] {
        let mut client = stage.client();
        client.store.cookie = Some(cookie.to_owned());
        client.open(Some(&json!({"desiredQueriesPatch": []})));
        client.until_connected();
        assert_eq!(client.until_error()["kind"], "ClientNotFound", "{cookie}");
    }
    // Of a group that is known, but never issued to it.
    let known = at_rest(&stage);
    let mut client = known.sibling();
    client.store.cookie = Some("c1y2p0ij32e8e7".to_owned());
    client.open(Some(&json!({"desiredQueriesPatch": []})));
    client.until_connected();
    assert_eq!(client.until_error()["kind"], "InvalidConnectionRequestBaseCookie");
    bystander.finish(PROMPT);
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
    let refused = |client: &Client, query: &support::app::Query| {
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
fn requests_that_are_no_http() {
    let mut stage = Stage::new(&[]);
    let bystander = stage.bystander();
    let port = stage.server.port;
    let status = |bytes: &[u8]| {
        let answer =
            exchange(port, bytes).unwrap_or_else(|e| panic!("{e}: {:?}", String::from_utf8_lossy(bytes)));
        answer.split(' ').nth(1).and_then(|s| s.parse::<u16>().ok()).unwrap_or(0)
    };
    let close = "Connection: close\r\n\r\n";
    assert_eq!(status(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello over tls \r\n\r\n"), 400);
    assert_eq!(status(b"GET\r\n\r\n"), 400);
    assert_eq!(status(b"GET / HTTP/9.9\r\n\r\n"), 400);
    assert_eq!(status(b"\0\0\0\0\0\0\0\0"), 400);
    assert_eq!(status(format!("GET /nonesuch HTTP/1.1\r\n{close}").as_bytes()), 404);
    assert_eq!(status(format!("DELETE / HTTP/1.1\r\n{close}").as_bytes()), 404);
    let body = "POST / HTTP/1.1\r\nContent-Length: 100000\r\n\r\n".to_owned() + &"x".repeat(100_000);
    assert_eq!(status(body.as_bytes()), 404);
    let upgrade = "GET /sync/v51/connect HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    assert_eq!(status(upgrade.as_bytes()), 400, "no key");
    let large = format!("GET / HTTP/1.1\r\nX-Large: {}\r\n{close}", "x".repeat(200 << 10));
    assert_eq!(status(large.as_bytes()), 431);
    let many = format!("GET / HTTP/1.1\r\n{}{close}", "X-Many: 1\r\n".repeat(500));
    assert_eq!(status(many.as_bytes()), 431);
    // Clients put queries into a header, apps put cookies beside them: 60 KiB are normal.
    let cookies = format!("GET / HTTP/1.1\r\nCookie: {}\r\n{close}", "x".repeat(60 << 10));
    assert_eq!(status(cookies.as_bytes()), 200);
    assert_eq!(get(port, "/keepalive").expect("it answers").0, 200);
    assert!(stage.server.has_ended().is_none());
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
