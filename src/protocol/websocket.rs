//! WebSocket frames to clients (RFC 6455), unmasked: many sockets may share one. Each is a message of its own.

use bytes::Bytes;

/// Longest header of a frame.
pub const MAX_HEADER: usize = 10;

/// Longest reason of a close frame in bytes.
pub const MAX_CLOSE_REASON: usize = 123;

/// Close code of a protocol error.
pub const CLOSE_PROTOCOL_ERROR: u16 = 1002;
/// Close code of a message beyond the limit.
pub const CLOSE_TOO_LARGE: u16 = 1009;

/// What a frame holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opcode {
    /// Text.
    Text = 1,
    /// Bytes.
    Binary = 2,
    /// The end of the connection.
    Close = 8,
    /// The answer to a ping frame.
    Pong = 10,
}

/// Makes a frame of what stands in a buffer from `at` on; before it is room for a header. The frame has exactly
/// its size, and the buffer can be used again: growing a new one for every frame costs several times the
/// pages. Also returns how many of the first bytes of the buffer were left out.
pub fn finish_frame(opcode: Opcode, buffer: &mut [u8], at: usize) -> (Bytes, usize) {
    let (header, length) = header(opcode, buffer.len() - at);
    let skipped = at - length;
    buffer[skipped..at].copy_from_slice(&header[..length]);
    (Bytes::copy_from_slice(&buffer[skipped..]), skipped)
}

/// A text frame.
pub fn text_frame(payload: &[u8]) -> Bytes {
    frame(Opcode::Text, &[payload])
}

/// A pong that answers a ping frame.
pub fn pong_frame(payload: &[u8]) -> Bytes {
    frame(Opcode::Pong, &[payload])
}

/// A close frame; without a code the payload is empty. The reason is cut to what fits.
pub fn close_frame(close: Option<(u16, &str)>) -> Bytes {
    match close {
        None => frame(Opcode::Close, &[]),
        Some((code, reason)) => {
            frame(Opcode::Close, &[&code.to_be_bytes(), cut(reason, MAX_CLOSE_REASON).as_bytes()])
        }
    }
}

/// A frame whose payload is these pieces, one after another.
pub fn frame(opcode: Opcode, payload: &[&[u8]]) -> Bytes {
    let size = payload.iter().map(|piece| piece.len()).sum();
    let (header, length) = header(opcode, size);
    let mut out = Vec::with_capacity(length + size);
    out.extend(&header[..length]);
    payload.iter().for_each(|piece| out.extend(*piece));
    Bytes::from(out)
}

/// The payload of a frame that this module made.
pub fn payload_of(frame: &[u8]) -> &[u8] {
    match frame[1] {
        126 => &frame[4..],
        127 => &frame[10..],
        _ => &frame[2..],
    }
}

fn header(opcode: Opcode, length: usize) -> ([u8; MAX_HEADER], usize) {
    const WHOLE: u8 = 0x80;
    let mut out = [0; MAX_HEADER];
    out[0] = WHOLE | opcode as u8;
    match length {
        0..126 => {
            out[1] = length as u8;
            (out, 2)
        }
        126..=0xffff => {
            out[1] = 126;
            out[2..4].copy_from_slice(&(length as u16).to_be_bytes());
            (out, 4)
        }
        _ => {
            out[1] = 127;
            out[2..].copy_from_slice(&(length as u64).to_be_bytes());
            (out, 10)
        }
    }
}

/// Cuts text to at most `limit` bytes at a character, marking the cut.
fn cut(text: &str, limit: usize) -> String {
    if text.len() <= limit {
        return text.to_owned();
    }
    let mut end = limit - 3;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}...", &text[..end])
}

#[cfg(test)]
mod tests {
    use tungstenite::protocol::frame::FrameHeader;
    use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

    use super::*;

    #[test]
    fn reasons_are_cut_at_a_character() {
        let reason = "é".repeat(100);
        let frame = close_frame(Some((1002, &reason)));
        let payload = payload_of(&frame);
        assert!(payload.len() <= 125);
        assert!(std::str::from_utf8(&payload[2..]).unwrap().ends_with("..."));
    }

    #[test]
    fn frames_are_read_by_others_as_what_they_are() {
        let kinds = [
            (Opcode::Text, OpCode::Data(Data::Text)),
            (Opcode::Binary, OpCode::Data(Data::Binary)),
            (Opcode::Close, OpCode::Control(Control::Close)),
            (Opcode::Pong, OpCode::Control(Control::Pong)),
        ];
        for length in [0, 1, 125, 126, 65_535, 65_536] {
            for (opcode, expected) in kinds {
                let payload = vec![b'a'; length];
                let frame = frame(opcode, &[&payload]);
                let mut cursor = std::io::Cursor::new(&frame);
                let (header, announced) = FrameHeader::parse(&mut cursor).unwrap().unwrap();
                assert_eq!((header.opcode, header.is_final, header.mask), (expected, true, None));
                assert_eq!((announced, payload_of(&frame)), (length as u64, &payload[..]));
                assert_eq!(frame.len() - cursor.position() as usize, length);
            }
        }
    }

    #[test]
    fn a_frame_is_finished_in_place() {
        for length in [0, 125, 126, 65_535, 65_536] {
            for at in [MAX_HEADER, MAX_HEADER + 7] {
                let mut buffer = vec![0; at];
                buffer.extend(std::iter::repeat_n(b'a', length));
                let (frame, skipped) = finish_frame(Opcode::Text, &mut buffer, at);
                assert_eq!(frame, text_frame(&vec![b'a'; length]));
                assert_eq!(frame.len(), length + at - skipped);
            }
        }
    }
}
