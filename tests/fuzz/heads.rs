//! Heads of HTTP requests.

use kelvin_io::http_server::{HeadReader, Request, RequestError};
use proptest::prelude::*;

use super::engine::fuzz;
use super::mutate::{bytes, cuts, pieces};

const SEEDS: [&str; 6] = [
    "GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
    "GET /sync/v51/connect?clientID=c&wsid=w HTTP/1.1\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: e30%3D\r\n\r\nrest",
    "POST / HTTP/1.0\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\nbody",
    "\r\n\r\nHEAD /statz HTTP/1.1\nAuthorization: Basic YTph\n\nGET / HTTP/1.1\r\n\r\n",
    "GET / HTTP/1.1\r\nA:\r\nB: \t x \r\nA: 2\r\n\r\n",
    "OPTIONS * HTTP/1.1\r\n\r",
];

enum Read {
    Nothing,
    Refused,
    Head(Box<Request>),
}

/// What is read first, and the bytes that come after it.
fn read(pieces: &[&[u8]]) -> Read {
    let mut reader = HeadReader::default();
    for (n, piece) in pieces.iter().enumerate() {
        reader.feed(piece);
        match reader.next_head() {
            Ok(None) => {}
            Ok(Some(mut request)) => {
                // A request with a body is the last of its connection: what follows is not looked at.
                if request.header("content-length").is_none_or(|l| l.trim() == "0")
                    && request.header("transfer-encoding").is_none()
                {
                    pieces[n + 1..].iter().for_each(|later| request.rest.extend(*later));
                }
                return Read::Head(Box::new(request));
            }
            Err(RequestError::Malformed(_) | RequestError::TooLarge(_)) => return Read::Refused,
            Err(error) => panic!("reading bytes ends with {error:?}"),
        }
    }
    Read::Nothing
}

#[test]
fn heads_are_read_alike_however_they_come() {
    let seeds = SEEDS.iter().map(|seed| seed.as_bytes().to_vec()).collect();
    let words: Vec<&[u8]> =
        vec![b"\r\n", b"\n\n", b"\r\n\r\n", b": ", b"\0", b"Connection: close\r\n", b" HTTP/1.1"];
    fuzz((bytes(seeds, words), cuts()), |(bytes, cuts)| {
        match (read(&[&bytes]), read(&pieces(&bytes, &cuts))) {
            (Read::Head(whole), Read::Head(in_pieces)) => {
                prop_assert_eq!(&whole, &in_pieces);
                prop_assert!(whole.rest.len() <= bytes.len());
                prop_assert!(whole.headers.iter().all(|(name, _)| *name == name.to_ascii_lowercase()));
                // What is echoed must not be able to end a header of the answer.
                prop_assert!(whole.headers.iter().all(|(_, value)| !value.contains(['\r', '\n', '\0'])));
                prop_assert!(!whole.is_upgrade() || whole.method == "GET");
            }
            // In pieces an error may be seen later, and never earlier.
            (Read::Refused, Read::Refused | Read::Nothing) | (Read::Nothing, Read::Nothing) => {}
            _ => prop_assert!(false, "whole and in pieces it means different things"),
        }
        Ok(())
    });
}
