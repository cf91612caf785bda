//! Just enough HTTP to be an app's backend, and to look at a server's pages.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// A request that was read.
#[derive(Debug, Clone)]
pub struct Incoming {
    /// Path and query.
    pub target: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Incoming {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }
}

/// Reads a request; `None` at the end of the stream.
pub fn read(stream: &mut TcpStream, input: &mut Vec<u8>) -> io::Result<Option<Incoming>> {
    let mut chunk = [0; 64 << 10];
    loop {
        if let Some(end) = memchr::memmem::find(input, b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&input[..end]).into_owned();
            let headers: Vec<(String, String)> = head
                .lines()
                .skip(1)
                .filter_map(|l| l.split_once(':'))
                .map(|(n, v)| (n.to_ascii_lowercase(), v.trim().to_owned()))
                .collect();
            let length = headers.iter().find(|(n, _)| n == "content-length");
            let length: usize = length.and_then(|(_, v)| v.parse().ok()).unwrap_or(0);
            if input.len() >= end + 4 + length {
                let body = input[end + 4..end + 4 + length].to_vec();
                input.drain(..end + 4 + length);
                let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
                return Ok(Some(Incoming { target, headers, body }));
            }
        }
        match stream.read(&mut chunk)? {
            0 => return Ok(None),
            count => input.extend_from_slice(&chunk[..count]),
        }
    }
}

/// Writes an answer.
pub fn respond(stream: &mut TcpStream, status: u16, body: &str) -> io::Result<()> {
    let head = format!(
        "HTTP/1.1 {status} x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(format!("{head}{body}").as_bytes())
}

/// Says that the request has to be made elsewhere.
pub fn redirect(stream: &mut TcpStream, location: &str) -> io::Result<()> {
    let head = format!("HTTP/1.1 307 x\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n");
    stream.write_all(head.as_bytes())
}

/// GETs a page: status and body. An error if nobody answers.
pub fn get(port: u16, path: &str) -> io::Result<(u16, String)> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let answer = exchange(port, request.as_bytes())?;
    let status = answer.split(' ').nth(1).and_then(|s| s.parse().ok());
    let status = status.ok_or_else(|| io::Error::other(format!("not HTTP: {answer:?}")))?;
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
    Ok((status, body))
}

/// Sends bytes and returns all that comes back until the peer closes.
pub fn exchange(port: u16, bytes: &[u8]) -> io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    // The peer may refuse before it has read all; what it says is what counts.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Err(e) if answer.is_empty() => Err(e),
        _ => Ok(String::from_utf8_lossy(&answer).into_owned()),
    }
}
