//! Upgrade requests: targets, headers, cookies.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::json;

use super::outcome::Outcome::{self, Closed, Error, Served};
use super::suite::Suite;
use crate::support::app::schema;
use crate::support::client::{Client, Event, WAIT, protocol};

/// What is asked for when nothing is wrong.
const GOOD: &str = "clientID=c&clientGroupID=upgrades&ts=1.5&lmid=0&wsid=w&baseCookie=";

fn without(name: &str) -> String {
    let kept: Vec<&str> = GOOD.split('&').filter(|p| !p.starts_with(&format!("{name}="))).collect();
    format!("/sync/v51/connect?{}", kept.join("&"))
}

fn with(name: &str, value: &str) -> String {
    format!("{}&{name}={value}", without(name))
}

/// Targets: what is sent, what happens, and a word that the reason holds.
fn targets() -> Vec<(&'static str, String, Outcome, &'static str)> {
    let long = "x".repeat(5_000);
    let path = |path: &str| format!("{path}?{GOOD}");
    let closed = Closed(1002);
    vec![
        ("no client", without("clientID"), closed, "clientID"),
        ("no group", without("clientGroupID"), closed, "clientGroupID"),
        ("no time", without("ts"), closed, "ts"),
        ("no mutation id", without("lmid"), closed, "lmid"),
        ("an empty client", with("clientID", ""), closed, "clientID"),
        ("a time that is none", with("ts", "soon"), closed, "ts"),
        ("a mutation id that is none", with("lmid", "x1"), closed, "lmid"),
        ("a long client", with("clientID", &long), closed, "clientID"),
        ("a long group", with("clientGroupID", &long), closed, "clientGroupID"),
        ("a long user", with("userID", &long), closed, "userID"),
        ("a long connection id", with("wsid", &long), closed, "wsid"),
        ("a long profile", with("profileID", &long), closed, "profileID"),
        ("two segments before the path", path("/a/b/sync/v51/connect"), closed, "/a/b/sync"),
        ("a slash at the end", path("/sync/v51/connect/"), closed, "Invalid URL"),
        ("no action", path("/sync/v51"), closed, "Invalid URL"),
        ("a fraction of a version", path("/sync/v5.1/connect"), closed, "Invalid URL"),
        ("a version that is none", path("/sync/vx/connect"), closed, "vx"),
        ("a path upward", path("/../sync/v51/connect"), closed, "Invalid URL"),
        ("another worker", path("/replication/v51/changes"), closed, "replication"),
        ("another path", path("/nonsense"), closed, "/nonsense"),
        ("capital letters", path("/SYNC/v51/connect"), closed, "SYNC"),
        ("a long path", path(&format!("/{long}/b/c/d")), closed, "..."),
        ("a version too old", path("/sync/v29/connect"), Error("VersionNotSupported"), ""),
        ("the next version", path("/sync/v53/connect"), Error("VersionNotSupported"), ""),
        ("a version to come", path("/sync/v1000000/connect"), Error("VersionNotSupported"), ""),
        ("a version below nothing", path("/sync/v-1/connect"), Error("VersionNotSupported"), ""),
        ("a version that is no number", path("/sync/vNaN/connect"), Error("VersionNotSupported"), ""),
        ("a version without an end", path("/sync/vinf/connect"), Error("VersionNotSupported"), ""),
        ("one segment before the path", path("/base/sync/v51/connect"), Served, ""),
        ("a time without an end", with("ts", &"9".repeat(5_000)), Served, ""),
        ("parameters twice", format!("{}&clientID=other&ts=x", with("ts", "1")), Served, ""),
        ("a thousand parameters", format!("/sync/v51/connect?{GOOD}{}", "&a=b".repeat(1_000)), Served, ""),
        ("bytes that are no text", with("clientID", "%ff%fe%00"), Served, ""),
        ("lines of a log", with("clientID", "%0a%7b%22level%22:%22ERROR%22%7d%0d%0aforged"), Served, ""),
        ("SQL", with("clientGroupID", "'%3b%20DROP%20TABLE%20item%3b%20--"), Served, ""),
        ("half an escape", with("clientID", "%2"), Served, ""),
        ("an answer within the id", with("wsid", "%22%7d%5d%0d%0a%0d%0aHTTP/1.1%20200"), Served, ""),
    ]
}

fn encoded(json: &str) -> String {
    utf8_percent_encode(&STANDARD.encode(json), NON_ALPHANUMERIC).to_string()
}

/// Values of `Sec-WebSocket-Protocol`.
fn headers() -> Vec<(&'static str, Option<String>, Outcome)> {
    let some = |text: &str| Some(text.to_owned());
    let json = |text: &str| Some(encoded(text));
    let init = |body: &str| json(&format!(r#"{{"initConnectionMessage":{body}}}"#));
    vec![
        ("no header", None, Closed(1002)),
        ("no base64", some("!!!"), Closed(1002)),
        ("half an escape", some("e30%3"), Closed(1002)),
        ("no JSON", some("bm90IGpzb24"), Closed(1002)),
        ("a list", json("[]"), Closed(1002)),
        ("lists within lists", json(&"[".repeat(30_000)), Closed(1002)),
        ("lists within a message", init(&"[".repeat(30_000)), Closed(1002)),
        ("a token that is a list", json(r#"{"authToken":["t"]}"#), Closed(1002)),
        ("two tokens", json(r#"{"authToken":"a","authToken":"b"}"#), Closed(1002)),
        (
            "half a character",
            some(
                &utf8_percent_encode(&STANDARD.encode(b"{\"authToken\":\"\xc3"), NON_ALPHANUMERIC)
                    .to_string(),
            ),
            Closed(1002),
        ),
        ("another message", init(r#"["push",{}]"#), Error("InvalidMessage")),
        ("a message that is none", init("7"), Error("InvalidMessage")),
        (
            "a message with a surprise",
            init(r#"["initConnection",{"desiredQueriesPatch":[],"surprise":1}]"#),
            Error("InvalidMessage"),
        ),
        (
            "a message without a schema",
            init(r#"["initConnection",{"desiredQueriesPatch":[]}]"#),
            Error("InvalidConnectionRequest"),
        ),
        ("sixty kilobytes of blanks", json(&" ".repeat(45_000)), Closed(1002)),
    ]
}

#[test]
fn upgrades() {
    let mut suite = Suite::new(&[]);
    let header = protocol(None, None);
    for (name, target, outcome, word) in targets() {
        suite.input(name, |suite| {
            let mut client = suite.stage.client();
            client.open_raw(&target, Some(&header));
            match (outcome, client.next(WAIT)) {
                (Served, Some(Event::Connected(_))) => client.round_trip(),
                (Error(kind), Some(Event::Error(error))) => {
                    assert_eq!(error["kind"], kind, "{name}: {error}")
                }
                (Closed(code), Some(Event::Closed(seen, reason))) => {
                    assert_eq!(seen, Some(code), "{name}: {reason}");
                    assert!(reason.contains(word) && reason.len() <= 123, "{name}: {reason:?}");
                }
                (_, other) => panic!("{name}: {other:?}"),
            }
        });
    }
    let log = suite.stage.server.log();
    assert!(
        log.contains("forged") && !log.lines().any(|l| l.starts_with("forged") || l.starts_with('{')),
        "a log that lies"
    );
    for (name, header, outcome) in headers() {
        suite.input(name, |suite| {
            let mut client = suite.stage.client();
            let target = client.target();
            client.open_raw(&target, header.as_deref());
            if let Error(_) = outcome {
                client.until_connected();
            }
            outcome.check(&mut client, name);
        });
    }
    suite.finish();
}

/// Cookies that nobody has issued, of a group that nobody knows: they are malformed, or are not known any more.
fn cookies() -> Vec<(String, &'static str)> {
    let malformed = [
        "x", "0", "000", "00:", ":01", "00:01:02", "00:1", "0A", "00 ", "é", "00.", "-1", "zz", "\0",
        "00:01\n",
    ];
    let unknown = [
        "01",
        "4l6hww",
        "4l6hww:03",
        "c1y2p0ij32e8e7",
        "00:01",
        "21ab.01:02",
        "c3w5e11264sgsf:c3w5e11264sgsf",
    ];
    let long = std::iter::once(("0".repeat(50_000), "Internal"));
    malformed
        .into_iter()
        .map(|c| (c.to_owned(), "Internal"))
        .chain(unknown.into_iter().map(|c| (c.to_owned(), "ClientNotFound")))
        .chain(long)
        .collect()
}

#[test]
fn cookies_that_nobody_issued() {
    let mut suite = Suite::new(&[]);
    for (cookie, kind) in cookies() {
        let name: String = cookie.chars().take(40).collect();
        suite.input(&name, |suite| {
            let mut client = suite.stage.client();
            client.store.cookie = Some(cookie.clone());
            client.open(Some(&json!({"desiredQueriesPatch": [], "clientSchema": schema()})));
            if kind != "Internal" {
                client.until_connected();
            }
            Error(kind).check(&mut client, &cookie);
        });
    }
    suite.input("a cookie that was not issued to the group yet", |suite| {
        let known = suite.tab();
        let mut client = known.sibling();
        client.store.cookie = Some("c1y2p0ij32e8e7".to_owned());
        client.open(Some(&json!({"desiredQueriesPatch": []})));
        client.until_connected();
        Error("InvalidConnectionRequestBaseCookie").check(&mut client, "ahead");
    });
    suite.input("another group's cookie", |suite| {
        let mut stranger = suite.tab();
        let mut client = suite.stage.client();
        client.store.cookie = stranger.store.cookie.clone();
        client.open(Some(&json!({"desiredQueriesPatch": []})));
        client.until_connected();
        Error("ClientNotFound").check(&mut client, "of another group");
        stranger.round_trip();
    });
    suite.input("a tab that comes again and again", |suite| {
        let mut earlier: Vec<Client> = Vec::new();
        let first = suite.stage.client();
        for _ in 0..50 {
            let mut again = first.sibling();
            again.id.clone_from(&first.id);
            again.open(Some(&again.init_body(Vec::new())));
            earlier.push(again);
        }
        let mut last = earlier.pop().expect("the last");
        last.until("it is served", |c| c.store.cookie.is_some());
        for mut client in earlier {
            Outcome::Ended.check(&mut client, "replaced");
        }
        last.round_trip();
    });
    suite.finish();
}
