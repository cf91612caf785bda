//! Requests for pages: bytes that are no HTTP, heads that are made to be misread, guesses at passwords.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::suite::Suite;
use crate::support::http::get;

/// A table's row: what it is, what is sent, and the statuses of all answers until the server closes.
type Row = (&'static str, Vec<u8>, &'static [u16]);

/// A request with a head of these lines, after which nothing else comes.
fn head(lines: &str) -> Vec<u8> {
    format!("{lines}\r\nConnection: close\r\n\r\n").into_bytes()
}

fn bytes(text: &str) -> Vec<u8> {
    text.as_bytes().to_vec()
}

fn no_http() -> Vec<Row> {
    let zeros = vec![0; 4_096];
    vec![
        (
            "a greeting of TLS",
            bytes("\x16\x03\x01\x02\0\x01\0\x01\u{7f}\x03\x03 hello over tls \r\n\r\n"),
            &[400],
        ),
        ("a method alone", bytes("GET\r\n\r\n"), &[400]),
        ("a request of HTTP 0.9", bytes("GET /\r\n\r\n"), &[400]),
        ("a version that is not there", bytes("GET / HTTP/9.9\r\n\r\n"), &[400]),
        ("the preface of HTTP 2", bytes("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), &[400]),
        ("zeros", bytes("\0\0\0\0\0\0\0\0"), &[400]),
        ("many zeros", zeros, &[400]),
        ("JSON", bytes("[\"ping\",{}]\r\n\r\n"), &[400]),
        ("a greeting of Postgres", b"\0\0\0\x08\x04\xd2\x16\x2f\r\n\r\n".to_vec(), &[400]),
        ("half a head", bytes("GET / HTTP/1.1\r\nHost: h"), &[400]),
        ("nothing at all", Vec::new(), &[]),
        (
            "a megabyte of empty lines",
            [&b"\r\n".repeat(512 << 10)[..], &head("GET / HTTP/1.1")].concat(),
            &[200],
        ),
        ("a header without a colon", head("GET / HTTP/1.1\r\nHost"), &[400]),
        ("a blank before the colon", head("GET / HTTP/1.1\r\nHost : h"), &[400]),
        ("a header without a name", head("GET / HTTP/1.1\r\n: h"), &[400]),
        ("a folded header", head("GET / HTTP/1.1\r\nX-A: 1\r\n folded"), &[400]),
        ("a NUL in a value", head("GET / HTTP/1.1\r\nX-A: a\0b"), &[400]),
        ("a return in a value", head("GET / HTTP/1.1\r\nX-A: a\rX-B: b"), &[400]),
        ("a NUL in the target", head("GET /\0 HTTP/1.1"), &[400]),
        ("a large header", head(&format!("GET / HTTP/1.1\r\nX-A: {}", "x".repeat(200 << 10))), &[431]),
        ("many headers", head(&format!("GET / HTTP/1.1{}", "\r\nX-A: 1".repeat(500))), &[431]),
        ("a long method", "A".repeat(200 << 10).into_bytes(), &[431]),
        ("a long target", head(&format!("GET /{} HTTP/1.1", "x".repeat(200 << 10))), &[431]),
    ]
}

/// Requests that hide another one, or that mean something else to a proxy before the server.
fn smuggled() -> Vec<Row> {
    let hidden = "GET /metrics HTTP/1.1\r\n\r\n";
    let with = |headers: &str, body: &str| bytes(&format!("POST / HTTP/1.1\r\n{headers}\r\n\r\n{body}"));
    vec![
        ("a body that is a request", with(&format!("Content-Length: {}", hidden.len()), hidden), &[404]),
        ("less body than there is", with("Content-Length: 3", hidden), &[404]),
        (
            "two lengths",
            with(&format!("Content-Length: 0\r\nContent-Length: {}", hidden.len()), hidden),
            &[404],
        ),
        ("a list of lengths", with("Content-Length: 0, 0", hidden), &[404]),
        ("a length with a sign", with("Content-Length: +0", hidden), &[404]),
        ("a length below nothing", with("Content-Length: -1", hidden), &[404]),
        ("a length beyond all numbers", with(&format!("Content-Length: {}", "9".repeat(60)), hidden), &[404]),
        (
            "both kinds of length",
            with("Content-Length: 4\r\nTransfer-Encoding: chunked", &format!("0\r\n\r\n{hidden}")),
            &[404],
        ),
        ("chunks", with("Transfer-Encoding: chunked", &format!("0\r\n\r\n{hidden}")), &[404]),
        ("a coding that is not known", with("Transfer-Encoding: xchunked", hidden), &[404]),
        ("a body of a GET", bytes(&format!("GET / HTTP/1.1\r\nContent-Length: 27\r\n\r\n{hidden}")), &[200]),
        ("a body that never comes", with("Content-Length: 1000000\r\nExpect: 100-continue", ""), &[404]),
        ("a large body", with("Content-Length: 100000", &"x".repeat(100_000)), &[404]),
        ("a body that does not end", with("Content-Length: 100000000", &"x".repeat(4 << 20)), &[404]),
    ]
}

/// Heads that can be read, and ask for what is not there, or in a way that nobody does.
fn odd() -> Vec<Row> {
    let get = |rest: &str| head(&format!("GET / HTTP/1.1\r\n{rest}"));
    vec![
        ("no host", head("GET / HTTP/1.1"), &[200]),
        ("two hosts", get("Host: a\r\nHost: b"), &[200]),
        ("line ends of one byte", bytes("GET / HTTP/1.1\nConnection: close\n\n"), &[200]),
        ("60 KiB of cookies", get(&format!("Cookie: {}", "x".repeat(60 << 10))), &[200]),
        (
            "a value that is no text",
            [&b"GET / HTTP/1.1\r\nX-A: \xff\xfe\r\n"[..], b"Connection: close\r\n\r\n"].concat(),
            &[200],
        ),
        ("a page that is not there", head("GET /nonesuch HTTP/1.1"), &[404]),
        ("a path upward", head("GET /../../../../etc/passwd HTTP/1.1"), &[404]),
        ("an encoded path upward", head("GET /%2e%2e/%2e%2e/etc/passwd HTTP/1.1"), &[404]),
        ("a path of markup", head("GET /<script>alert(\"1\")</script>\\ HTTP/1.1"), &[404]),
        ("another server's page", head("GET http://example.com/keepalive HTTP/1.1"), &[404]),
        ("a page of the file system", head("GET file:///etc/passwd HTTP/1.1"), &[404]),
        ("a star", head("OPTIONS * HTTP/1.1"), &[404]),
        ("a tunnel", head("CONNECT 169.254.169.254:80 HTTP/1.1"), &[404]),
        ("a deletion", head("DELETE / HTTP/1.1"), &[404]),
        ("a method in small letters", head("get / HTTP/1.1"), &[404]),
        ("an upgrade to HTTP 2", get("Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA"), &[200]),
        (
            "an upgrade without a key",
            head("GET /sync/v51/connect HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket"),
            &[400],
        ),
        (
            "five hundred at once",
            [b"GET / HTTP/1.1\r\n\r\n".repeat(500), b"\r\n".to_vec()].concat(),
            &[200; 500],
        ),
        ("a good one before a bad one", bytes("GET / HTTP/1.1\r\n\r\nGET\r\n\r\n"), &[200, 400]),
    ]
}

/// Guesses at the admin's password. Whoever guesses too often may be told so instead.
fn guesses() -> Vec<Row> {
    let with = |value: &str| head(&format!("GET /statz HTTP/1.1\r\nAuthorization: {value}"));
    vec![
        ("no password", head("GET /statz HTTP/1.1"), &[401]),
        ("a scheme alone", with("Basic"), &[401]),
        ("another scheme", with("Bearer YTph"), &[401]),
        ("no base64", with("Basic !!!"), &[401]),
        ("no text", with("Basic //79"), &[401]),
        ("a name without a password", with("Basic YQ=="), &[401]),
        ("60 KiB of password", with(&format!("Basic {}", "YTph".repeat(15 << 10))), &[401]),
    ]
}

/// All statuses that are answered until the server closes, and the text of it.
fn exchange(port: u16, sent: &[u8]) -> (Vec<u16>, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("it is accepted");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket");
    // The server may refuse before it has read all; what it says is what counts.
    let _ = stream.write_all(sent).and_then(|()| stream.shutdown(Shutdown::Write));
    let mut answer = Vec::new();
    let end = stream.read_to_end(&mut answer);
    assert!(end.is_ok() || !answer.is_empty(), "{end:?}");
    let text = String::from_utf8_lossy(&answer).into_owned();
    (statuses(&text), text)
}

/// The statuses of answers one after another.
fn statuses(mut text: &str) -> Vec<u16> {
    let mut found = Vec::new();
    while let Some((head, rest)) = text.split_once("\r\n\r\n") {
        found.push(head.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0));
        let length = head.lines().find_map(|l| l.strip_prefix("Content-Length: "));
        text = &rest[length.and_then(|l| l.parse().ok()).unwrap_or(0)..];
    }
    assert!(text.is_empty(), "after the answers comes {text:?}");
    found
}

#[test]
fn requests() {
    let mut suite = Suite::new(&[]);
    for (name, sent, expected) in [no_http(), smuggled(), odd(), guesses()].concat() {
        suite.input(name, |suite| {
            let (statuses, text) = exchange(suite.stage.server.port, &sent);
            let blocked = expected == [401] && statuses == [429];
            assert!(blocked || statuses == expected, "{name}: {statuses:?}");
            assert!(!text.contains("kelvin_"), "{name}: a page that was not asked for");
            let body = text.split_once("\r\n\r\n").map(|(_, body)| body).unwrap_or_default();
            if expected == [404] {
                serde_json::from_str::<serde_json::Value>(body)
                    .unwrap_or_else(|e| panic!("{name}: {e}: {body}"));
            }
        });
    }
    suite.input("what a request says is not said again", |suite| {
        let sent = head("TRACE / HTTP/1.1\r\nCookie: secret");
        let (statuses, text) = exchange(suite.stage.server.port, &sent);
        assert!(statuses == [404] && !text.contains("secret"), "{text}");
    });
    suite.input("a thousand guesses at the password", |suite| {
        let password = |n: u32| STANDARD.encode(format!("admin:{n}"));
        let guess = |n| head(&format!("GET /statz HTTP/1.1\r\nAuthorization: Basic {}", password(n)));
        let told = |n| exchange(suite.stage.server.port, &guess(n)).0;
        assert!((0..1_000).any(|n| told(n) == [429]), "nobody says that it is enough");
    });
    suite.input("whoever asks goes before the answer", |suite| {
        for _ in 0..200 {
            let mut stream =
                TcpStream::connect(("127.0.0.1", suite.stage.server.port)).expect("it is accepted");
            let _ = stream.write_all(&b"GET /metrics HTTP/1.1\r\n\r\n".repeat(20));
        }
    });
    suite.input("answers that nobody reads", never_read);
    suite.input("connections that say nothing", |suite| {
        let open = || TcpStream::connect(("127.0.0.1", suite.stage.server.port)).expect("it is accepted");
        let silent: Vec<TcpStream> = (0..300).map(|_| open()).collect();
        assert_eq!(get(suite.stage.server.port, "/keepalive").expect("it answers").0, 200);
        drop(silent);
    });
    suite.finish();
}

/// Asks for large pages and reads none of them: the server must not make more than the socket takes.
fn never_read(suite: &mut Suite) {
    let mut streams = Vec::new();
    for _ in 0..20 {
        let mut stream = TcpStream::connect(("127.0.0.1", suite.stage.server.port)).expect("it is accepted");
        stream.set_write_timeout(Some(Duration::from_millis(50))).expect("a socket");
        // It is full at some time.
        let _ = stream.write_all(&b"GET /metrics HTTP/1.1\r\n\r\n".repeat(2_000));
        streams.push(stream);
    }
    assert_eq!(get(suite.stage.server.port, "/keepalive").expect("it answers").0, 200);
}
