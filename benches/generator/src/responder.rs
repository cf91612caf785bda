//! `bench responder`: the app's backend, as far as the load needs it. A Node backend costs
//! a quarter of a millisecond per call on the cores that are being measured; this one does
//! not count, and both servers get the same.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use super::args::{Args, Flag};
use super::asts::ast;
use super::error::BenchError;

/// Flags of `bench responder`.
pub const FLAGS: &[Flag] =
    &[Flag { name: "port", value: "PORT", default: Some("4900"), help: "on 127.0.0.1" }];

/// Longest request head, in bytes.
const HEAD_MAX: usize = 64 << 10;
/// Longest request body, in bytes: thousands of queries.
const BODY_MAX: usize = 4 << 20;
/// Most connections at a time; each has a thread. Servers keep a pool of some tens.
const CONNECTIONS_MAX: usize = 512;
/// Stack of such a thread, in bytes.
const STACK: usize = 128 << 10;

/// Runs `bench responder`, until it is stopped.
pub fn run(args: &Args) -> Result<(), BenchError> {
    let listener = TcpListener::bind(("127.0.0.1", args.number::<u16>("port")?))?;
    println!("http://{}/query", listener.local_addr()?);
    let open = Arc::new(AtomicUsize::new(0));
    for stream in listener.incoming() {
        let stream = stream?;
        if open.fetch_add(1, Ordering::Relaxed) >= CONNECTIONS_MAX {
            open.fetch_sub(1, Ordering::Relaxed);
            continue;
        }
        let open = open.clone();
        std::thread::Builder::new().stack_size(STACK).spawn(move || {
            // A connection that breaks is the server's affair; it opens another.
            let _ = serve(stream);
            open.fetch_sub(1, Ordering::Relaxed);
        })?;
    }
    Ok(())
}

fn serve(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut input = Vec::new();
    while let Some((head, body)) = request(&mut stream, &mut input)? {
        let (status, answer) = answer(&head, &body);
        let response = format!(
            "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{answer}",
            answer.len()
        );
        stream.write_all(response.as_bytes())?;
    }
    Ok(())
}

/// Reads a request: its head and its body. `None` at the end of the stream.
fn request(stream: &mut impl Read, input: &mut Vec<u8>) -> io::Result<Option<(String, Vec<u8>)>> {
    let too_long = || io::Error::new(io::ErrorKind::InvalidData, "the request is too long");
    let mut buffer = [0; 16 << 10];
    let mut wanted = None;
    loop {
        if wanted.is_none()
            && let Some(end) = memchr::memmem::find(input, b"\r\n\r\n")
        {
            let head = String::from_utf8_lossy(&input[..end]).into_owned();
            let length = content_length(&head);
            if length > BODY_MAX {
                return Err(too_long());
            }
            wanted = Some((head, end + 4, length));
        }
        if let Some((head, start, length)) = &wanted
            && input.len() >= start + length
        {
            let body = input[*start..start + length].to_vec();
            input.drain(..start + length);
            return Ok(Some((head.clone(), body)));
        }
        if wanted.is_none() && input.len() > HEAD_MAX {
            return Err(too_long());
        }
        let n = stream.read(&mut buffer)?;
        if n == 0 {
            return Ok(None);
        }
        input.extend_from_slice(&buffer[..n]);
    }
}

fn content_length(head: &str) -> usize {
    let value = head
        .lines()
        .filter_map(|l| l.split_once(':'))
        .find(|(n, _)| n.eq_ignore_ascii_case("content-length"));
    value.and_then(|(_, v)| v.trim().parse().ok()).unwrap_or(0)
}

fn answer(head: &str, body: &[u8]) -> (&'static str, String) {
    let path = head.split(' ').nth(1).unwrap_or_default();
    if !head.starts_with("POST ") || path.split('?').next() != Some("/query") {
        return ("404 Not Found", json!({"error": "only POST /query is answered"}).to_string());
    }
    match transform(body) {
        Ok(answer) => ("200 OK", answer.to_string()),
        Err(why) => ("400 Bad Request", json!({ "error": why }).to_string()),
    }
}

/// Answers `["transform", [{id, name, args}, ...]]`.
fn transform(body: &[u8]) -> Result<Value, String> {
    let request: Value = serde_json::from_slice(body).map_err(|e| e.to_string())?;
    let queries = match (request[0].as_str(), request[1].as_array()) {
        (Some("transform"), Some(queries)) => queries,
        _ => return Err("not a transform request".to_owned()),
    };
    let results: Vec<Value> = queries
        .iter()
        .map(|q| match ast(q["name"].as_str().unwrap_or_default(), &q["args"]) {
            Ok(ast) => json!({"id": q["id"], "name": q["name"], "ast": ast}),
            Err(why) => json!({"error": "app", "id": q["id"], "name": q["name"], "message": why}),
        })
        .collect();
    Ok(json!({"kind": "QueryResponse", "userID": null, "queries": results}))
}

#[cfg(test)]
mod tests {
    use super::super::query::Query;
    use super::*;

    #[test]
    fn two_requests_in_one_stream() {
        let mut stream: &[u8] =
            b"POST /query HTTP/1.1\r\ncontent-length: 3\r\n\r\nabcPOST / HTTP/1.1\r\n\r\n";
        let mut input = Vec::new();
        let first = request(&mut stream, &mut input).unwrap().unwrap();
        assert_eq!(
            (first.0.as_str(), first.1.as_slice()),
            ("POST /query HTTP/1.1\r\ncontent-length: 3", &b"abc"[..])
        );
        assert_eq!(request(&mut stream, &mut input).unwrap().unwrap().1, b"");
        assert!(request(&mut stream, &mut input).unwrap().is_none());
    }

    #[test]
    fn transforms() {
        let query = Query::recent(5);
        let body = json!(["transform", [{"id": query.hash(), "name": query.name, "args": [query.args]}]]);
        let (status, text) = answer("POST /query?schema=zero_0 HTTP/1.1", body.to_string().as_bytes());
        let answer: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(status, "200 OK");
        assert_eq!(answer["queries"][0]["ast"]["limit"], 5);
        assert_eq!(transform(b"[\"transform\",[]]").unwrap()["queries"], json!([]));
    }

    #[test]
    fn anything_else_is_refused() {
        let body = br#"["transform",[]]"#;
        assert_eq!(answer("POST /query HTTP/1.1", body).0, "200 OK");
        for head in ["GET /query", "POST /", "POST /mutate", "POST /query/x", "POST /queryx?a=/query", "POST"]
        {
            assert_eq!(answer(&format!("{head} HTTP/1.1"), body).0, "404 Not Found", "{head}");
        }
        assert_eq!(answer("POST /query HTTP/1.1", b"{}").0, "400 Bad Request");
        let unknown = transform(br#"["transform",[{"id":"a","name":"x","args":[]}]]"#).unwrap();
        assert_eq!(unknown["queries"][0]["error"], "app");
    }
}
