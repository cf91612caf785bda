//! WebSocket frames.

use kelvin::protocol::websocket::{payload_of, text_frame};
use kelvin_io::websocket::{FrameReader, Message, ReadError};
use proptest::prelude::*;

use super::engine::fuzz;
use super::mutate::{bytes, cuts, pieces};

/// Largest message here: small enough that it is reached.
const LIMIT: usize = 4_096;

/// What a reader may keep beside what came: its step for a large message, and what it keeps for the next.
const SLACK: usize = 64 << 10;

fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [7, 0, 255, 1];
    let mut out = vec![first];
    match payload.len() {
        n @ 0..126 => out.push(0x80 | n as u8),
        n => {
            out.push(0x80 | 126);
            out.extend((n as u16).to_be_bytes());
        }
    }
    out.extend(mask);
    out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    out
}

fn seeds() -> Vec<Vec<u8>> {
    let parts = [frame(0x01, b"[\"pi"), frame(0x89, b"between"), frame(0x00, b"ng\""), frame(0x80, b",{}]")];
    vec![
        frame(0x81, b"[\"ping\",{}]"),
        frame(0x82, &[b'x'; 300]),
        parts.concat(),
        [frame(0x8a, b""), frame(0x81, b""), frame(0x88, b"\x03\xe8bye")].concat(),
        frame(0x81, &vec![b'x'; LIMIT + 1]),
        vec![0x81, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4],
        // A length of all bits, and one that is just beyond the limit when it is added to what came before.
        vec![0x81, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4],
    ]
}

/// All that is read until an error, and the error.
fn read(pieces: &[&[u8]]) -> (Vec<Message>, Option<ReadError>, usize) {
    let mut reader = FrameReader::new(LIMIT, Vec::new());
    let (mut messages, mut most) = (Vec::new(), 0);
    for piece in pieces {
        reader.feed(piece);
        loop {
            match reader.next_message() {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(error) => return (messages, Some(error), most),
            }
        }
        most = most.max(reader.waiting());
    }
    (messages, None, most)
}

#[test]
fn frames_are_read_alike_however_they_come() {
    fuzz((bytes(seeds(), vec![b"\x81\x80", b"\x00\x80", b"\x88\x80"]), cuts()), |(bytes, cuts)| {
        let (whole, error, most) = read(&[&bytes]);
        let (in_pieces, same, least) = read(&pieces(&bytes, &cuts));
        prop_assert_eq!(&whole, &in_pieces);
        prop_assert_eq!(error, same);
        let came: usize = whole
            .iter()
            .map(|m| match m {
                Message::Data(payload) | Message::Ping(payload) => payload.len(),
                // What is a part of a message comes once more with the whole.
                Message::Close | Message::Nothing(_) => 0,
            })
            .sum();
        prop_assert!(came <= bytes.len(), "more is read than was sent");
        prop_assert!(
            most.max(least) <= 4 * bytes.len() + SLACK,
            "{} bytes are kept of {}",
            most.max(least),
            bytes.len()
        );
        let largest =
            whole.iter().filter_map(|m| if let Message::Data(d) = m { Some(d.len()) } else { None }).max();
        prop_assert!(largest.unwrap_or(0) <= LIMIT);
        Ok(())
    });
}

#[test]
fn frames_that_are_sent_hold_what_was_said() {
    fuzz((prop::collection::vec(any::<u8>(), 0..2_000), cuts()), |(payload, cuts)| {
        let sent = text_frame(&payload);
        prop_assert_eq!(payload_of(&sent), &payload[..]);
        // A client would send it in parts, masked.
        let parts = pieces(&payload, &cuts);
        let last = parts.len() - 1;
        let frames = parts
            .iter()
            .enumerate()
            .map(|(n, part)| frame(if n == 0 { 1 } else { 0 } | if n == last { 0x80 } else { 0 }, part));
        let bytes = frames.collect::<Vec<_>>().concat();
        let (mut read, _, _) = read(&[&bytes]);
        read.retain(|message| !matches!(message, Message::Nothing(_)));
        prop_assert_eq!(read, vec![Message::Data(payload)]);
        Ok(())
    });
}
