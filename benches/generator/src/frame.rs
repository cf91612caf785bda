//! WebSocket frames: a parser for what a server sends, and the few frames that a client
//! sends back.
//!
//! The parser never copies a payload. A server's frames are not masked, so what the socket
//! gave is handed on in place, in as many pieces as it came in.

/// Longest header of a server's frame: two bytes and a 64-bit length.
const HEADER_MAX: usize = 10;
/// Longest payload of a control frame (RFC 6455, 5.5), in bytes.
pub const CONTROL_MAX: usize = 125;

/// Opcode of a text message.
pub const TEXT: u8 = 1;
/// Opcode of a close frame.
pub const CLOSE: u8 = 8;
/// Opcode of a ping frame.
pub const PING: u8 = 9;
/// Opcode of a pong frame.
pub const PONG: u8 = 10;

/// A part of a message or of a control frame, as it lies in the read buffer.
#[derive(Debug, PartialEq, Eq)]
pub struct Piece<'a> {
    /// Opcode of the message (a continuation frame has that of its first frame).
    pub opcode: u8,
    /// The bytes.
    pub bytes: &'a [u8],
    /// Nothing of this message came before.
    pub first: bool,
    /// Nothing of this message comes after.
    pub last: bool,
}

/// Something that no server may send.
#[derive(Debug, PartialEq, Eq)]
pub struct FrameError(pub &'static str);

/// The state between two reads.
#[derive(Debug, Default)]
pub struct FrameParser {
    head: [u8; HEADER_MAX],
    head_length: usize,
    in_payload: bool,
    remaining: u64,
    fin: bool,
    frame_opcode: u8,
    frame_started: bool,
    /// Opcode of the data message that is open across frames; 0 = none.
    message_opcode: u8,
    message_started: bool,
}

impl FrameParser {
    /// Takes bytes of the stream and hands the pieces of messages to `sink`.
    pub fn feed<'a>(
        &mut self,
        mut input: &'a [u8],
        mut sink: impl FnMut(Piece<'a>),
    ) -> Result<(), FrameError> {
        loop {
            if !self.in_payload {
                match self.header(input)? {
                    Some(used) => input = &input[used..],
                    None => return Ok(()),
                }
            }
            let n = usize::try_from(self.remaining).unwrap_or(usize::MAX).min(input.len());
            if n == 0 && self.remaining > 0 {
                return Ok(());
            }
            let (bytes, rest) = input.split_at(n);
            input = rest;
            self.remaining -= n as u64;
            sink(self.piece(bytes));
        }
    }

    /// Reads a header; gives the bytes used, or `None` when all of the input was a part of one.
    fn header(&mut self, input: &[u8]) -> Result<Option<usize>, FrameError> {
        let mut used = 0;
        loop {
            if self.head_length >= 2 {
                let length = self.head[1] & 0x7f;
                let want = match length {
                    126 => 4,
                    127 => HEADER_MAX,
                    _ => 2,
                };
                if self.head_length == want {
                    self.open(want)?;
                    return Ok(Some(used));
                }
            }
            let Some(&byte) = input.get(used) else { return Ok(None) };
            self.head[self.head_length] = byte;
            self.head_length += 1;
            used += 1;
        }
    }

    fn open(&mut self, length: usize) -> Result<(), FrameError> {
        let [b0, b1, ..] = self.head;
        if b1 & 0x80 != 0 {
            return Err(FrameError("a masked frame from a server"));
        }
        if b0 & 0x70 != 0 {
            return Err(FrameError("reserved bits without an agreed extension"));
        }
        self.remaining = match length {
            2 => u64::from(b1 & 0x7f),
            4 => u64::from(u16::from_be_bytes([self.head[2], self.head[3]])),
            _ => u64::from_be_bytes(self.head[2..].try_into().expect("a header of ten bytes")),
        };
        self.fin = b0 & 0x80 != 0;
        self.frame_opcode = b0 & 0x0f;
        self.head_length = 0;
        self.in_payload = true;
        self.frame_started = false;
        match self.frame_opcode {
            0 if self.message_opcode == 0 => Err(FrameError("a continuation of nothing")),
            0 => Ok(()),
            1 | 2 if self.message_opcode != 0 => Err(FrameError("a message inside a message")),
            1 | 2 => {
                self.message_opcode = self.frame_opcode;
                self.message_started = false;
                Ok(())
            }
            CLOSE | PING | PONG if self.fin && self.remaining <= CONTROL_MAX as u64 => Ok(()),
            CLOSE | PING | PONG => Err(FrameError("a control frame that is cut or too long")),
            _ => Err(FrameError("an unknown opcode")),
        }
    }

    fn piece<'a>(&mut self, bytes: &'a [u8]) -> Piece<'a> {
        let frame_ends = self.remaining == 0;
        self.in_payload = !frame_ends;
        if self.frame_opcode >= CLOSE {
            let first = !std::mem::replace(&mut self.frame_started, true);
            return Piece { opcode: self.frame_opcode, bytes, first, last: frame_ends };
        }
        let opcode = self.message_opcode;
        let first = !std::mem::replace(&mut self.message_started, true);
        let last = frame_ends && self.fin;
        if last {
            self.message_opcode = 0;
        }
        Piece { opcode, bytes, first, last }
    }
}

/// Appends a client's frame. Its mask is zero, which leaves the payload as it is; the mask
/// protects browsers' intermediaries, and there are none here.
pub fn client_frame(out: &mut Vec<u8>, opcode: u8, payload: &[u8]) {
    out.push(0x80 | opcode);
    match payload.len() {
        n if n < 126 => out.push(0x80 | n as u8),
        n if n < 1 << 16 => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(n as u16).to_be_bytes());
        }
        n => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(n as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(payload);
}

/// Appends a server's frame (the null server and the tests).
pub fn server_frame(out: &mut Vec<u8>, first_byte: u8, payload: &[u8]) {
    out.push(first_byte);
    match payload.len() {
        n if n < 126 => out.push(n as u8),
        n if n < 1 << 16 => {
            out.push(126);
            out.extend_from_slice(&(n as u16).to_be_bytes());
        }
        n => {
            out.push(127);
            out.extend_from_slice(&(n as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(payload);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Messages put together again: opcode and bytes.
    fn parse(stream: &[u8], step: usize) -> Result<Vec<(u8, Vec<u8>)>, FrameError> {
        let mut parser = FrameParser::default();
        let mut done = Vec::new();
        let mut open: Vec<(u8, Vec<u8>)> = Vec::new();
        for chunk in stream.chunks(step) {
            parser.feed(chunk, |p| {
                if p.first {
                    open.push((p.opcode, Vec::new()));
                }
                let at = open.iter().rposition(|m| m.0 == p.opcode).unwrap();
                open[at].1.extend_from_slice(p.bytes);
                if p.last {
                    done.push(open.remove(at));
                }
            })?;
        }
        assert!(open.is_empty());
        Ok(done)
    }

    #[test]
    fn every_length_form_in_every_cut() {
        let mut stream = Vec::new();
        let long = vec![b'x'; 70_000];
        for payload in [&b""[..], b"abc", &long[..126], &long[..65_535], &long] {
            server_frame(&mut stream, 0x81, payload);
        }
        for step in [1, 2, 3, 7, 4096, stream.len()] {
            let got = parse(&stream, step).unwrap();
            let lengths: Vec<usize> = got.iter().map(|m| m.1.len()).collect();
            assert_eq!(lengths, [0, 3, 126, 65_535, 70_000], "step {step}");
        }
    }

    #[test]
    fn a_ping_between_the_frames_of_a_message() {
        let mut stream = Vec::new();
        server_frame(&mut stream, 0x01, b"one ");
        server_frame(&mut stream, 0x89, b"p");
        server_frame(&mut stream, 0x80, b"message");
        for step in [1, 5, 100] {
            assert_eq!(
                parse(&stream, step).unwrap(),
                [(PING, b"p".to_vec()), (TEXT, b"one message".to_vec())],
                "step {step}"
            );
        }
    }

    #[test]
    fn what_no_server_may_send() {
        for bad in [
            &[0x81, 0x81, 0, 0, 0, 0, 0][..],
            &[0xc1, 0],
            &[0x80, 0],
            &[0x09, 0],
            &[0x83, 0],
            &[0x89, 126, 0, 200],
        ] {
            assert!(parse(bad, 100).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_client_frame_is_masked_with_zeros() {
        let mut out = Vec::new();
        client_frame(&mut out, TEXT, b"hi");
        assert_eq!(out, [0x81, 0x82, 0, 0, 0, 0, b'h', b'i']);
        out.clear();
        client_frame(&mut out, TEXT, &[0; 300]);
        assert_eq!(&out[..4], [0x81, 0xfe, 1, 44]);
    }
}
