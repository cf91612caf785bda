//! The pages of a server beside its sync endpoint.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use super::handshake::Target;

/// How long an answer may take; some servers answer only when they are ready.
const ANSWER: Duration = Duration::from_secs(2);
/// Longest page, in bytes.
const PAGE_MAX: u64 = 1 << 20;

/// Status and body of a page.
pub fn get(target: &Target, path: &str) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&target.address, ANSWER)?;
    stream.set_read_timeout(Some(ANSWER))?;
    let request =
        format!("GET {}{path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", target.base, target.host);
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(PAGE_MAX).read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    Ok((status, body.to_owned()))
}
