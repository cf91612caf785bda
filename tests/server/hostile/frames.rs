//! WebSocket frames that break the protocol, and ones that keep to it in ways that no client uses.

use std::io::Write;
use std::net::Shutdown;
use std::time::{Duration, Instant};

use base64::Engine;

use super::outcome::Outcome::{self, Closed, Ended, Error, Served};
use super::suite::Suite;
use crate::support::client::protocol;
use crate::support::frames::{PING, TEXT, frame, head, unmasked};

const MESSAGE: &[u8] = br#"["ping",{}]"#;
const FIRST: u8 = 0x01;
const MORE: u8 = 0x00;
const LAST: u8 = 0x80;
const BINARY: u8 = 0x82;
const CLOSE: u8 = 0x88;
const PONG: u8 = 0x8a;

type Row = (&'static str, Vec<u8>, Outcome);

/// A frame whose mask changes nothing.
fn unhidden(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = head(first, payload.len() as u64, true);
    out.extend([0; 4]);
    out.extend(payload);
    out
}

/// A frame that says its length in more bytes than it needs.
fn long_winded(width: u8, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u64).to_be_bytes();
    let mut out = vec![TEXT, 0x80 | width];
    out.extend(if width == 126 { &length[6..] } else { &length[..] });
    out.extend([0; 4]);
    out.extend(payload);
    out
}

fn broken() -> Vec<Row> {
    let error = Closed(1002);
    let large = |length: u64| [head(TEXT, length, true), vec![1, 2, 3, 4]].concat();
    let mut noise = 0x9e37_79b9_u32;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (noise >> 24) as u8
    })
    .take(1 << 20)
    .collect();
    vec![
        ("no mask", unmasked(TEXT, MESSAGE), error),
        ("a pong without a mask", unmasked(PONG, b""), error),
        ("first reserved bit", frame(TEXT | 0x40, MESSAGE), error),
        ("second reserved bit", frame(TEXT | 0x20, MESSAGE), error),
        ("third reserved bit", frame(TEXT | 0x10, MESSAGE), error),
        (
            "compressed, though nobody agreed",
            frame(TEXT | 0x40, b"\xaa\x56\x2a\xc8\xcc\x4b\x57\xd2\x51\xaa\xae\x05\x00"),
            error,
        ),
        ("a compressed bomb", frame(TEXT | 0x40, &[0; 60_000]), error),
        ("reserved data opcode", frame(0x83, MESSAGE), error),
        ("reserved control opcode", frame(0x8b, MESSAGE), error),
        ("long ping", frame(PING, &[b'x'; 126]), error),
        ("ping in parts", frame(0x09, b"x"), error),
        ("long close", frame(CLOSE, &[b'x'; 200]), error),
        ("continuation of nothing", frame(LAST, MESSAGE), error),
        ("message within a message", [frame(FIRST, b"[\"pi"), frame(TEXT, MESSAGE)].concat(), error),
        ("message begun twice", [frame(FIRST, b"["), frame(FIRST, b"[")].concat(), error),
        ("a request for a page", b"GET /metrics HTTP/1.1\r\n\r\n".to_vec(), error),
        ("a greeting of TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(), error),
        ("noise", [vec![0x0f], noise].concat(), error),
        ("just too large", large((10 << 20) + 1), Closed(1009)),
        ("absurd", large(u64::MAX >> 1), Closed(1009)),
        ("all bits", large(u64::MAX), Closed(1009)),
        (
            "too large in parts",
            [frame(FIRST, &[b' '; 9 << 20]), head(MORE, 2 << 20, true)].concat(),
            Closed(1009),
        ),
        (
            "too large after a ping",
            [frame(FIRST, b"["), frame(PING, b""), large(1 << 40)].concat(),
            Closed(1009),
        ),
    ]
}

fn content() -> Vec<Row> {
    let invalid = Error("InvalidMessage");
    let utf16: Vec<u8> = "[\"ping\",{}]".encode_utf16().flat_map(u16::to_le_bytes).collect();
    vec![
        ("not UTF-8", frame(TEXT, b"[\"ping\",{\"\xff\xfe\":1}]"), invalid),
        ("half a character", frame(TEXT, b"[\"ping\",{\"\xc3"), invalid),
        ("half a surrogate", frame(TEXT, b"[\"ping\",{\"\xed\xa0\x80\":1}]"), invalid),
        ("overlong characters", frame(TEXT, b"[\xc0\xa2ping\xc0\xa2,{}]"), invalid),
        ("UTF-16", frame(BINARY, &utf16), invalid),
        ("a byte order mark", frame(TEXT, b"\xef\xbb\xbf[\"ping\",{}]"), invalid),
        ("a megabyte of zeros", frame(BINARY, &[0; 1 << 20]), invalid),
        ("an empty message", frame(TEXT, b""), invalid),
        ("an empty message in parts", [frame(FIRST, b""), frame(LAST, b"")].concat(), invalid),
        ("ten megabytes of blanks", frame(TEXT, &[b' '; 10 << 20]), invalid),
        ("ten megabytes of brackets", frame(TEXT, &[b'['; 10 << 20]), invalid),
        ("ten megabytes of one word", frame(TEXT, &[b'"'; 10 << 20]), invalid),
    ]
}

fn unusual() -> Vec<Row> {
    let pieces = || MESSAGE.iter().flat_map(|byte| frame(MORE, &[*byte])).collect::<Vec<u8>>();
    let in_pieces = [frame(FIRST, b""), pieces(), frame(LAST, b"")].concat();
    let between = [frame(FIRST, b"[\"pi"), frame(PING, b"x").repeat(500), frame(LAST, b"ng\",{}]")].concat();
    vec![
        ("a mask of zeros", unhidden(TEXT, MESSAGE), Served),
        ("a length in two bytes more", long_winded(126, MESSAGE), Served),
        ("a length in eight bytes more", long_winded(127, MESSAGE), Served),
        ("a binary message", frame(BINARY, MESSAGE), Served),
        ("a byte in each frame", in_pieces, Served),
        ("pings within a message", between, Served),
        (
            "two thousand empty parts",
            [frame(FIRST, MESSAGE), frame(MORE, b"").repeat(2_000), frame(LAST, b"")].concat(),
            Served,
        ),
        ("two thousand pings", frame(PING, &[b'x'; 125]).repeat(2_000), Served),
        ("two thousand pongs", frame(PONG, &[b'x'; 125]).repeat(2_000), Served),
        ("two thousand messages", frame(TEXT, MESSAGE).repeat(2_000), Served),
        ("two thousand that take the long way", frame(TEXT, b"[ \"ping\" , { } ]").repeat(2_000), Served),
        ("a message that does not end", frame(FIRST, &[b' '; 9 << 20]), Served),
    ]
}

fn goodbyes() -> Vec<Row> {
    let after = |first: &[u8]| [first, &frame(TEXT, b"nonsense")].concat();
    vec![
        ("goodbye", frame(CLOSE, b""), Ended),
        ("goodbye with half a code", frame(CLOSE, b"\x03"), Ended),
        ("goodbye with a code that nobody may send", frame(CLOSE, b"\x03\xee"), Ended),
        ("goodbye with code nought", frame(CLOSE, b"\x00\x00"), Ended),
        ("goodbye with a reason that is no text", frame(CLOSE, b"\x03\xe8\xff\xfe"), Ended),
        ("goodbye twice", frame(CLOSE, b"").repeat(2), Ended),
        ("nonsense after goodbye", after(&frame(CLOSE, b"")), Ended),
        ("goodbye within a message", [frame(FIRST, b"["), frame(CLOSE, b"")].concat(), Ended),
        ("a megabyte after goodbye", [frame(CLOSE, b""), vec![b'x'; 1 << 20]].concat(), Ended),
    ]
}

#[test]
fn frames() {
    let mut suite = Suite::new(&[]);
    for (name, sent, outcome) in [broken(), content(), unusual(), goodbyes()].concat() {
        suite.input(name, |suite| {
            let mut client = suite.tab();
            // Whoever is refused may be refused before all has been sent.
            let sent = client.raw().write_all(&sent);
            assert!(sent.is_ok() || outcome != Served, "{name}: {sent:?}");
            if name == "a message that does not end" {
                return suite.tab().round_trip();
            }
            outcome.check(&mut client, name);
        });
    }
    suite.input("a byte in each packet", |suite| {
        let mut client = suite.tab();
        client.raw().set_nodelay(true).expect("a socket");
        let message = [b"[\"ping\",{}".as_slice(), &[b' '; 2_000], b"]"].concat();
        for byte in frame(TEXT, &message) {
            client.raw().write_all(&[byte]).expect("it is open");
        }
        client.round_trip();
    });
    suite.input("half a frame, and then the end", |suite| {
        let mut client = suite.tab();
        client.raw().write_all(&frame(TEXT, MESSAGE)[..9]).expect("it is open");
        client.raw().shutdown(Shutdown::Write).expect("it is open");
        Ended.check(&mut client, "half a frame");
    });
    suite.input("frames in the packet of the upgrade", frames_with_the_upgrade);
    for (name, one) in
        [("a flood of pongs", frame(PONG, b"")), ("a flood of long pongs", frame(PONG, &[0; 125]))]
    {
        suite.input(name, |suite| flood(suite, &[], &one));
    }
    for (name, first) in
        [("a flood of empty parts", b"[".as_slice()), ("a flood of empty parts of nothing", b"")]
    {
        suite.input(name, |suite| flood(suite, &frame(FIRST, first), &frame(MORE, b"")));
    }
    suite.input("frames that wait for nobody", |suite| {
        for _ in 0..100 {
            let mut client = suite.tab();
            client.raw().write_all(&frame(PING, b"x").repeat(100)).expect("it is open");
        }
    });
    suite.finish();
}

/// Sends one frame again and again, as fast as the server takes them, for a while.
fn flood(suite: &mut Suite, first: &[u8], again: &[u8]) {
    let mut client = suite.tab();
    client.raw().set_write_timeout(Some(Duration::from_millis(100))).expect("a socket");
    client.raw().write_all(first).expect("it is open");
    let many = again.repeat((64 << 10) / again.len());
    let until = Instant::now() + Duration::from_secs(3);
    // The server may hold the sender back, or send it away.
    while Instant::now() < until {
        let _ = client.raw().write(&many);
    }
}

/// A client that does not wait for the answer to its upgrade.
fn frames_with_the_upgrade(suite: &mut Suite) {
    use std::io::Read;
    let client = suite.stage.client();
    let key = base64::engine::general_purpose::STANDARD.encode([7; 16]);
    let mut sent = format!(
        "GET {} HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Protocol: {}\r\n\r\n",
        client.target(),
        protocol(Some(&client.init_body(Vec::new())), None)
    )
    .into_bytes();
    sent.extend(frame(TEXT, MESSAGE));
    sent.extend(frame(CLOSE, b""));
    let mut stream =
        std::net::TcpStream::connect(("127.0.0.1", suite.stage.server.port)).expect("it is accepted");
    stream.set_read_timeout(Some(std::time::Duration::from_secs(20))).expect("a socket");
    stream.write_all(&sent).expect("it is open");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("the server closes");
    let text = String::from_utf8_lossy(&answer);
    assert!(text.starts_with("HTTP/1.1 101") && text.contains("[\"pong\""), "{text}");
}
