//! HTTP requests from clients: upgrade requests and a few small pages.
//!
//! Only heads matter here: nothing that is served takes a body.

use std::io;
use std::time::Duration;

use futures_lite::{AsyncReadExt, AsyncWriteExt};

use crate::executor::timeout;
use crate::socket::TcpStream;

/// Longest request head in bytes. Clients put up to 8 KiB of queries into one header, the
/// app's cookies come on top.
pub const MAX_HEAD: usize = 128 << 10;

/// Most headers of a request.
const MAX_HEADERS: usize = 128;

/// Longest time between the first byte of a request and the end of its head, and longest
/// wait for the next request of a connection.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(72);

/// The head of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Method.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Names in lower case, in order of arrival.
    pub headers: Vec<(String, String)>,
    /// Bytes that came after the head.
    pub rest: Vec<u8>,
    /// Whether the connection may be used again.
    pub keep_alive: bool,
}

impl Request {
    /// Value of a header; several of one name are joined by a comma.
    pub fn header(&self, name: &str) -> Option<String> {
        let found: Vec<&str> =
            self.headers.iter().filter(|(n, _)| n == name).map(|(_, v)| v.as_str()).collect();
        (!found.is_empty()).then(|| found.join(", "))
    }

    /// Whether it asks for a WebSocket.
    pub fn is_upgrade(&self) -> bool {
        let has = |name, token: &str| {
            self.header(name).is_some_and(|v| v.to_ascii_lowercase().split(',').any(|t| t.trim() == token))
        };
        has("connection", "upgrade") && has("upgrade", "websocket") && self.method == "GET"
    }
}

/// Why no request came.
#[derive(Debug)]
pub enum RequestError {
    /// The peer went, or the network failed. Nothing to answer.
    Io(io::Error),
    /// Not HTTP: answer 400 and close.
    Malformed(&'static str),
    /// Beyond a limit: answer 431 and close.
    TooLarge(&'static str),
    /// Nothing came in time.
    Timeout,
}

/// Takes the bytes of a connection as they come and gives the heads of requests. Pure: reading is the caller's.
#[derive(Debug, Default)]
pub struct HeadReader {
    pending: Vec<u8>,
    /// Length at which a head without an end is looked at the next time. It doubles: a head that comes byte by
    /// byte must not be read anew for each of them.
    look_at: usize,
    seen: usize,
}

impl HeadReader {
    /// `first_bytes`: what came after the request before.
    pub fn new(first_bytes: Vec<u8>) -> HeadReader {
        HeadReader { pending: first_bytes, look_at: 0, seen: 0 }
    }

    /// Takes more bytes.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.pending.extend(bytes);
    }

    /// Whether nothing of a request has come.
    pub fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// The head, once it is there; what came after it is in [`Request::rest`], and the reader is empty then.
    /// `Ok(None)`: more has to come. Bytes beyond [`MAX_HEAD`] without a head are an error.
    pub fn next_head(&mut self) -> Result<Option<Request>, RequestError> {
        // Empty lines before a request mean nothing.
        let blank = self.pending.iter().take_while(|b| matches!(b, b'\r' | b'\n')).count();
        self.pending.drain(..blank);
        if self.pending.len() >= self.look_at || may_end(&self.pending, self.seen) {
            if let Some(request) = parse(&self.pending)? {
                *self = HeadReader::default();
                return Ok(Some(request));
            }
            self.look_at = self.pending.len() * 2;
        }
        if self.pending.len() >= MAX_HEAD {
            return Err(RequestError::TooLarge("the request head is too large"));
        }
        self.seen = self.pending.len();
        Ok(None)
    }
}

/// Reads one request head. `Ok(None)`: the peer closed between requests.
pub async fn read_request(stream: &mut TcpStream, pending: Vec<u8>) -> Result<Option<Request>, RequestError> {
    let read = async {
        let mut chunk = [0u8; 4096];
        let mut heads = HeadReader::new(pending);
        loop {
            if let Some(request) = heads.next_head()? {
                return Ok(Some(request));
            }
            let count = stream.read(&mut chunk).await.map_err(RequestError::Io)?;
            if count == 0 {
                return if heads.is_empty() {
                    Ok(None)
                } else {
                    Err(RequestError::Malformed("the request head ended early"))
                };
            }
            heads.feed(&chunk[..count]);
        }
    };
    timeout(HEAD_TIMEOUT, read).await.unwrap_or(Err(RequestError::Timeout))
}

/// Whether the bytes from `seen` on may complete a head: it ends with an empty line.
fn may_end(bytes: &[u8], seen: usize) -> bool {
    let mut from = seen;
    while let Some(found) = bytes[from..].iter().position(|b| *b == b'\n') {
        let before = bytes[..from + found].strip_suffix(b"\r").unwrap_or(&bytes[..from + found]);
        if before.is_empty() || before.ends_with(b"\n") {
            return true;
        }
        from += found + 1;
    }
    false
}

fn parse(bytes: &[u8]) -> Result<Option<Request>, RequestError> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut head = httparse::Request::new(&mut headers);
    let length = match head.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => {
            return Err(RequestError::TooLarge("the request has too many headers"));
        }
        Err(_) => return Err(RequestError::Malformed("the request head is malformed")),
    };
    let mut request = Request {
        method: head.method.unwrap_or_default().to_owned(),
        target: head.path.unwrap_or_default().to_owned(),
        headers: Vec::with_capacity(head.headers.len()),
        rest: bytes[length..].to_vec(),
        keep_alive: head.version == Some(1),
    };
    for header in head.headers.iter() {
        let value = String::from_utf8_lossy(header.value).into_owned();
        request.headers.push((header.name.to_ascii_lowercase(), value));
    }
    if request.header("connection").is_some_and(|v| v.eq_ignore_ascii_case("close")) {
        request.keep_alive = false;
    }
    let body = request.header("content-length").is_some_and(|v| v.trim() != "0")
        || request.header("transfer-encoding").is_some();
    if body {
        // Nothing here takes one; the connection cannot be used after it.
        request.keep_alive = false;
        request.rest.clear();
    }
    Ok(Some(request))
}

/// An answer.
#[derive(Debug)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// Type of the body.
    pub content_type: &'static str,
    /// Further headers.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Response {
    /// A text answer.
    pub fn text(status: u16, body: impl Into<Vec<u8>>) -> Response {
        Response { status, content_type: "text/plain; charset=utf-8", headers: Vec::new(), body: body.into() }
    }

    /// A JSON answer.
    pub fn json(status: u16, body: impl Into<Vec<u8>>) -> Response {
        Response { content_type: "application/json; charset=utf-8", ..Response::text(status, body) }
    }

    /// Adds a header.
    pub fn with_header(mut self, name: &'static str, value: impl Into<String>) -> Response {
        self.headers.push((name, value.into()));
        self
    }
}

/// Writes an answer. `head_only`: for HEAD requests.
pub async fn write_response(
    stream: &mut TcpStream,
    response: &Response,
    head_only: bool,
    keep_alive: bool,
) -> io::Result<()> {
    let mut out = format!(
        "HTTP/1.1 {} {}\r\nContent-Type: {}\r\nContent-Length: {}\r\nConnection: {}\r\n",
        response.status,
        reason(response.status),
        response.content_type,
        response.body.len(),
        if keep_alive { "keep-alive" } else { "close" },
    );
    for (name, value) in &response.headers {
        out.push_str(&format!("{name}: {value}\r\n"));
    }
    out.push_str("\r\n");
    let mut out = out.into_bytes();
    if !head_only {
        out.extend(&response.body);
    }
    stream.write_all(&out).await
}

/// The head that accepts a WebSocket upgrade. The offered protocol is repeated byte for
/// byte: browsers fail the connection otherwise.
pub fn upgrade_head(key: &str, protocol: Option<&str>) -> Vec<u8> {
    let accept = crate::websocket::derive_accept_key(key.trim().as_bytes());
    let mut head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n"
    );
    if let Some(protocol) = protocol {
        head.push_str(&format!("Sec-WebSocket-Protocol: {protocol}\r\n"));
    }
    head.push_str("\r\n");
    head.into_bytes()
}

fn reason(status: u16) -> &'static str {
    http::StatusCode::from_u16(status).ok().and_then(|s| s.canonical_reason()).unwrap_or("")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upgrade_request_is_recognised() {
        let head = b"GET /sync/v51/connect?x=1 HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, Upgrade\r\n\
                     Upgrade: WebSocket\r\nX-A: 1\r\nx-a: 2\r\n\r\nrest";
        let request = parse(head).unwrap().unwrap();
        assert!(request.is_upgrade());
        assert_eq!(request.header("x-a").as_deref(), Some("1, 2"));
        assert_eq!(request.rest, b"rest");
        assert_eq!(parse(&head[..40]).unwrap(), None);
    }

    #[test]
    fn the_end_of_a_head_is_seen_wherever_it_was_cut() {
        for head in [b"GET / HTTP/1.1\r\nA: 1\r\n\r\n".as_slice(), b"GET / HTTP/1.1\nA: 1\n\n", b"\r\n"] {
            for cut in 0..head.len() {
                assert!(may_end(head, cut), "{cut}");
                assert!(cut < 2 || !may_end(&head[..cut], 0) || parse(&head[..cut]).is_ok());
            }
        }
        assert!(!may_end(b"GET / HTTP/1.1\r\nA: 1\r\n", 0));
    }

    #[test]
    fn malformed_heads_are_errors_and_not_panics() {
        for bad in [b"\x00\x01\x02\x03\r\n\r\n".as_slice(), b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n"] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_accept_key_is_that_of_the_rfc() {
        let head = String::from_utf8(upgrade_head("dGhlIHNhbXBsZSBub25jZQ==", Some("e30%3D"))).unwrap();
        assert!(head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        assert!(head.contains("Sec-WebSocket-Protocol: e30%3D\r\n"));
    }
}
