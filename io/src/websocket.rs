//! WebSocket frames of clients (RFC 6455), which are masked. Pure: bytes in, messages out.

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

pub use tungstenite::handshake::derive_accept_key;

/// Bytes by which the buffer of a large message grows at least.
const STEP: usize = 64 << 10;

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
        let mut reader = FrameReader::new(100, vec![0x81, 1, b'x']);
        assert!(matches!(reader.next_message(), Err(ReadError::Protocol(_))));
    }
}
