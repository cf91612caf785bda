//! WebSocket frames of a server (RFC 6455): reading masked frames of clients, writing
//! unmasked ones that many sockets may share. Pure: bytes in, messages out.

use bytes::Bytes;
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

pub use tungstenite::handshake::derive_accept_key;

/// Longest header of a frame that is not masked.
pub const MAX_HEADER: usize = 10;

/// Longest reason of a close frame in bytes.
pub const MAX_CLOSE_REASON: usize = 123;

/// Close code of a protocol error.
pub const CLOSE_PROTOCOL_ERROR: u16 = 1002;
/// Close code of a message beyond the limit.
pub const CLOSE_TOO_LARGE: u16 = 1009;

/// Bytes by which the buffer of a large message grows at least.
const STEP: usize = 64 << 10;

/// Makes a frame of a buffer of [`MAX_HEADER`] free bytes and a text payload. The frame has
/// exactly its size, and the buffer can be used again: growing a new one for every frame
/// costs several times the pages. Also returns how many of the free bytes were left over.
pub fn finish_frame(buffer: &mut [u8]) -> (Bytes, usize) {
    let length = buffer.len() - MAX_HEADER;
    let header = header(OpCode::Data(Data::Text), length);
    let skipped = MAX_HEADER - header.len();
    buffer[skipped..MAX_HEADER].copy_from_slice(&header);
    (Bytes::copy_from_slice(&buffer[skipped..]), skipped)
}

/// A text frame.
pub fn text_frame(payload: &[u8]) -> Bytes {
    frame(OpCode::Data(Data::Text), payload)
}

/// A pong that answers a ping frame.
pub fn pong_frame(payload: &[u8]) -> Bytes {
    frame(OpCode::Control(Control::Pong), payload)
}

/// A close frame; without a code the payload is empty. The reason is cut to what fits.
pub fn close_frame(close: Option<(u16, &str)>) -> Bytes {
    let mut payload = Vec::new();
    if let Some((code, reason)) = close {
        payload.extend(code.to_be_bytes());
        payload.extend(cut(reason, MAX_CLOSE_REASON).as_bytes());
    }
    frame(OpCode::Control(Control::Close), &payload)
}

/// Cuts text to at most `limit` bytes at a character, marking the cut.
pub fn cut(text: &str, limit: usize) -> String {
    if text.len() <= limit {
        return text.to_owned();
    }
    let mut end = limit - 3;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}...", &text[..end])
}

/// The payload of an unmasked frame that this module made.
pub fn payload_of(frame: &[u8]) -> &[u8] {
    match frame[1] {
        126 => &frame[4..],
        127 => &frame[10..],
        _ => &frame[2..],
    }
}

fn frame(opcode: OpCode, payload: &[u8]) -> Bytes {
    let mut out = header(opcode, payload.len());
    out.extend(payload);
    Bytes::from(out)
}

fn header(opcode: OpCode, length: usize) -> Vec<u8> {
    let header = FrameHeader { opcode, ..FrameHeader::default() };
    let mut out = Vec::with_capacity(MAX_HEADER + length.min(125));
    // Writing into a vector cannot fail.
    let _ = header.format(length as u64, &mut out);
    out
}

/// What a client sent.
#[derive(Debug, PartialEq, Eq)]
pub enum Message {
    /// A whole message; the reference accepts JSON in binary messages too.
    Data(Vec<u8>),
    /// A ping frame.
    Ping(Vec<u8>),
    /// A close frame.
    Close,
    /// A pong, or a part of a message that is not whole yet, with so many bytes: nothing to handle, but to read it
    /// took its time, which counts for whoever sent it.
    Nothing(usize),
}

/// Why reading cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadError {
    /// The peer does not speak the protocol.
    Protocol(&'static str),
    /// A message is larger than the limit.
    TooLarge,
}

/// Takes bytes as they come and gives messages.
pub struct FrameReader {
    buffer: Vec<u8>,
    start: usize,
    /// Payload of a message that is not complete yet.
    partial: Option<Vec<u8>>,
    limit: usize,
}

impl FrameReader {
    /// `limit`: most bytes of one message.
    pub fn new(limit: usize, first_bytes: Vec<u8>) -> FrameReader {
        FrameReader { buffer: first_bytes, start: 0, partial: None, limit }
    }

    /// Bytes that are kept for a message that is not whole yet.
    pub fn waiting(&self) -> usize {
        self.buffer.capacity() + self.partial.as_ref().map_or(0, Vec::capacity)
    }

    /// Takes more bytes.
    pub fn feed(&mut self, bytes: &[u8]) {
        if self.start == self.buffer.len() {
            self.buffer.clear();
            self.start = 0;
        }
        self.buffer.extend(bytes);
    }

    /// What the next frame brings, or `None` until more bytes come.
    pub fn next_message(&mut self) -> Result<Option<Message>, ReadError> {
        let Some((opcode, fin, payload)) = self.next_frame()? else { return Ok(None) };
        let bytes = payload.len();
        match opcode {
            OpCode::Control(Control::Close) => return Ok(Some(Message::Close)),
            OpCode::Control(Control::Ping) => return Ok(Some(Message::Ping(payload))),
            OpCode::Control(Control::Pong) => return Ok(Some(Message::Nothing(bytes))),
            OpCode::Control(Control::Reserved(_)) | OpCode::Data(Data::Reserved(_)) => {
                return Err(ReadError::Protocol("a frame of a kind that does not exist"));
            }
            OpCode::Data(Data::Continue) => match &mut self.partial {
                None => return Err(ReadError::Protocol("a continuation without a beginning")),
                Some(partial) => partial.extend(payload),
            },
            OpCode::Data(_) if self.partial.is_some() => {
                return Err(ReadError::Protocol("a new message inside another"));
            }
            OpCode::Data(_) => self.partial = Some(payload),
        }
        Ok(Some(match self.partial.take_if(|_| fin) {
            Some(whole) => Message::Data(whole),
            None => Message::Nothing(bytes),
        }))
    }

    fn next_frame(&mut self) -> Result<Option<(OpCode, bool, Vec<u8>)>, ReadError> {
        let pending = &self.buffer[self.start..];
        let mut cursor = std::io::Cursor::new(pending);
        let parsed =
            FrameHeader::parse(&mut cursor).map_err(|_| ReadError::Protocol("a malformed frame header"))?;
        let Some((header, length)) = parsed else { return Ok(None) };
        let at = cursor.position() as usize;
        let so_far = self.partial.as_ref().map_or(0, Vec::len) as u64;
        if length.saturating_add(so_far) > self.limit as u64 {
            return Err(ReadError::TooLarge);
        }
        if matches!(header.opcode, OpCode::Control(_)) && (length > 125 || !header.is_final) {
            return Err(ReadError::Protocol("a control frame that is too long or in parts"));
        }
        if header.rsv1 || header.rsv2 || header.rsv3 {
            return Err(ReadError::Protocol("an extension that was not agreed upon"));
        }
        let Some(mask) = header.mask else { return Err(ReadError::Protocol("a frame without a mask")) };
        let end = at + length as usize;
        if pending.len() < end {
            let missing = end - pending.len();
            self.compact();
            // A length that was announced is not yet a message: memory follows what came.
            self.buffer.reserve(missing.min(self.buffer.len().max(STEP)));
            return Ok(None);
        }
        let mut payload = pending[at..end].to_vec();
        payload.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
        self.start += end;
        self.shrink();
        Ok(Some((header.opcode, header.is_final, payload)))
    }

    fn compact(&mut self) {
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
    }

    /// An idle connection must not keep the buffer of its largest message.
    fn shrink(&mut self) {
        const KEEP: usize = 512;
        if self.start == self.buffer.len() {
            self.start = 0;
            self.buffer.clear();
            if self.buffer.capacity() > KEEP {
                self.buffer = Vec::new();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(opcode: OpCode, fin: bool, payload: &[u8]) -> Vec<u8> {
        let mask = [1, 2, 3, 4];
        let header = FrameHeader { opcode, is_final: fin, mask: Some(mask), ..FrameHeader::default() };
        let mut out = Vec::new();
        header.format(payload.len() as u64, &mut out).unwrap();
        out.extend(payload.iter().zip(mask.iter().cycle()).map(|(b, m)| b ^ m));
        out
    }

    #[test]
    fn a_message_in_pieces_and_a_ping_between_them() {
        let mut bytes = masked(OpCode::Data(Data::Text), false, b"hel");
        bytes.extend(masked(OpCode::Control(Control::Ping), true, b"p"));
        bytes.extend(masked(OpCode::Data(Data::Continue), true, b"lo"));
        let mut reader = FrameReader::new(100, Vec::new());
        let mut seen = Vec::new();
        for byte in bytes {
            reader.feed(&[byte]);
            seen.extend(reader.next_message().unwrap());
        }
        let expected = [Message::Nothing(3), Message::Ping(b"p".to_vec()), Message::Data(b"hello".to_vec())];
        assert_eq!(seen, expected);
    }

    #[test]
    fn a_message_over_the_limit_is_refused_before_it_is_read() {
        let bytes = masked(OpCode::Data(Data::Text), true, &[b'x'; 101]);
        let mut reader = FrameReader::new(100, bytes[..20].to_vec());
        assert_eq!(reader.next_message(), Err(ReadError::TooLarge));
        let mut parts = masked(OpCode::Data(Data::Text), false, &[b'x'; 60]);
        parts.extend(masked(OpCode::Data(Data::Continue), true, &[b'x'; 60]));
        let mut reader = FrameReader::new(100, parts);
        assert_eq!(reader.next_message(), Ok(Some(Message::Nothing(60))));
        assert_eq!(reader.next_message(), Err(ReadError::TooLarge));
    }

    #[test]
    fn frames_that_are_no_messages_are_seen_one_by_one() {
        let mut bytes = masked(OpCode::Control(Control::Pong), true, b"");
        bytes.extend(masked(OpCode::Data(Data::Text), false, b""));
        bytes.extend(masked(OpCode::Data(Data::Continue), false, b"").repeat(3));
        bytes.extend(masked(OpCode::Control(Control::Pong), true, b"pong"));
        bytes.extend(masked(OpCode::Data(Data::Continue), true, b""));
        let mut reader = FrameReader::new(100, bytes);
        let seen: Vec<Message> = std::iter::from_fn(|| reader.next_message().unwrap()).collect();
        let nothing = |bytes| Message::Nothing(bytes);
        let expected =
            [nothing(0), nothing(0), nothing(0), nothing(0), nothing(0), nothing(4), Message::Data(vec![])];
        assert_eq!(seen, expected);
    }

    #[test]
    fn frames_of_kinds_that_do_not_exist_are_refused() {
        for opcode in [OpCode::Data(Data::Reserved(3)), OpCode::Control(Control::Reserved(11))] {
            let mut reader = FrameReader::new(100, masked(opcode, true, b"x"));
            assert!(matches!(reader.next_message(), Err(ReadError::Protocol(_))), "{opcode:?}");
        }
    }

    #[test]
    fn frames_without_a_mask_are_refused() {
        let mut reader = FrameReader::new(100, text_frame(b"x").to_vec());
        assert!(matches!(reader.next_message(), Err(ReadError::Protocol(_))));
    }

    #[test]
    fn reasons_are_cut_at_a_character() {
        let reason = "é".repeat(100);
        let frame = close_frame(Some((1002, &reason)));
        let payload = payload_of(&frame);
        assert!(payload.len() <= 125);
        assert!(std::str::from_utf8(&payload[2..]).unwrap().ends_with("..."));
    }

    #[test]
    fn a_frame_is_finished_in_place() {
        for length in [0, 125, 126, 65_535, 65_536] {
            let mut buffer = vec![0; MAX_HEADER];
            buffer.extend(std::iter::repeat_n(b'a', length));
            let (frame, skipped) = finish_frame(&mut buffer);
            assert_eq!(frame, text_frame(&vec![b'a'; length]));
            assert_eq!(frame.len(), length + MAX_HEADER - skipped);
        }
    }
}
