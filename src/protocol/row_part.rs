//! Parts that put rows, encoded once for everybody who needs all rows of a view.
//!
//! A part is a finished frame of one dialect, that of those who wait for it: sockets share it as it is. Sockets of the
//! other dialect share a copy, which is made when the first of them needs it. It cannot be cut out of the
//! same bytes: a frame stands in one piece in memory, or an urgent one could come in between, and
//! neither header stands where the other's text could be.

use std::cell::OnceCell;

use bytes::Bytes;

use super::chunk::{MAX_CHUNK, TYPE, chunks};
use super::dialect::Dialect;
use super::poke::{PART_SIZE, PATCHES_PER_PART};
use super::websocket::{MAX_HEADER, Opcode, finish_frame, payload_of};

/// What a message of the text dialect begins with, before the part's JSON object, and ends with after it.
pub(super) const TEXT_BEGIN: &[u8] = b"[\"pokePart\",";
pub(super) const TEXT_END: u8 = b']';

/// The same of the binary dialect: the object is not the first of its array.
const BINARY_BEGIN: &[u8] = &[TYPE, b','];

/// Where the object begins in a buffer: there is room for what comes before it in any dialect.
pub(super) const BEGIN: usize = MAX_HEADER + TEXT_BEGIN.len();

/// A part that puts rows.
#[derive(Debug)]
pub struct RowPart {
    /// As it is sent in `dialect`.
    frame: Bytes,
    dialect: Dialect,
    /// Where the fragment of the first row starts in the frame, and where each ends.
    start: u32,
    ends: Vec<u32>,
    /// As it is sent in the other dialect, once somebody has needed that.
    other: OnceCell<Box<[Bytes]>>,
}

impl RowPart {
    /// Rows in it.
    pub fn rows(&self) -> usize {
        self.ends.len()
    }

    /// Bytes that it takes.
    pub fn bytes(&self) -> usize {
        self.frame.len() + self.other.get().map_or(0, |frames| frames.iter().map(Bytes::len).sum())
    }

    /// The rows' fragments, in order.
    pub fn fragments(&self) -> impl Iterator<Item = &[u8]> {
        let mut start = self.start as usize;
        self.ends.iter().map(move |end| {
            let fragment = &self.frame[start..*end as usize];
            // A comma stands between two fragments.
            start = *end as usize + 1;
            fragment
        })
    }

    /// Its frames. Those of the binary dialect go on with an array that has begun.
    pub fn frames(&self, dialect: Dialect) -> &[Bytes] {
        match dialect == self.dialect {
            true => std::slice::from_ref(&self.frame),
            false => self.other.get_or_init(|| self.translated(dialect)),
        }
    }

    fn translated(&self, dialect: Dialect) -> Box<[Bytes]> {
        let payload = payload_of(&self.frame);
        match dialect {
            Dialect::Text => {
                let mut buffer = vec![0; BEGIN];
                buffer.extend(&payload[BINARY_BEGIN.len()..]);
                [finish(&mut buffer, Dialect::Text).0].into()
            }
            Dialect::Binary => {
                let object = &payload[TEXT_BEGIN.len()..payload.len() - 1];
                chunks(&[&BINARY_BEGIN[1..], object].concat()).collect()
            }
        }
    }
}

/// Makes the frame of an object that stands in the buffer from [`BEGIN`] on.
pub(super) fn finish(buffer: &mut Vec<u8>, dialect: Dialect) -> (Bytes, usize) {
    let (opcode, begin) = match dialect {
        Dialect::Text => (Opcode::Text, TEXT_BEGIN),
        Dialect::Binary => (Opcode::Binary, BINARY_BEGIN),
    };
    if dialect == Dialect::Text {
        buffer.push(TEXT_END);
    }
    let at = BEGIN - begin.len();
    buffer[at..BEGIN].copy_from_slice(begin);
    finish_frame(opcode, buffer, at)
}

/// Writes such parts row by row.
pub struct RowPartWriter {
    dialect: Dialect,
    /// What the object begins with.
    prefix: Vec<u8>,
    buffer: Vec<u8>,
    /// Where the fragments in the buffer end.
    ends: Vec<u32>,
    /// Bytes in the parts that are closed.
    size: usize,
}

impl RowPartWriter {
    /// For pokes with this id, which must be unique among the pokes of a connection.
    pub fn new(dialect: Dialect, poke_id: &str) -> RowPartWriter {
        let prefix = format!("{{\"pokeID\":\"{poke_id}\",\"rowsPatch\":[").into_bytes();
        RowPartWriter { dialect, prefix, buffer: Vec::new(), ends: Vec::new(), size: 0 }
    }

    /// Where to append the fragment of the next row.
    pub fn begin_row(&mut self) -> &mut Vec<u8> {
        if self.ends.is_empty() {
            self.buffer.clear();
            self.buffer.resize(BEGIN, 0);
            self.buffer.extend(&self.prefix);
        } else {
            self.buffer.push(b',');
        }
        &mut self.buffer
    }

    /// Ends the fragment that [`RowPartWriter::begin_row`] began.
    pub fn end_row(&mut self) {
        self.ends.push(self.buffer.len() as u32);
    }

    /// Whether the part should be closed.
    pub fn is_full(&self) -> bool {
        self.ends.len() >= PATCHES_PER_PART || self.buffer.len() >= PART_SIZE
    }

    /// Bytes so far.
    pub fn size(&self) -> usize {
        self.size + self.buffer.len()
    }

    /// Finishes the part, if there is anything in it.
    pub fn close(&mut self) -> Option<RowPart> {
        if self.ends.is_empty() {
            return None;
        }
        self.buffer.extend(b"]}");
        // What does not fit into one binary message is cut when it is sent: its fragments must stand in one piece.
        let fits = self.buffer.len() - BEGIN + BINARY_BEGIN.len() <= MAX_CHUNK;
        let dialect = if fits { self.dialect } else { Dialect::Text };
        let (frame, skipped) = finish(&mut self.buffer, dialect);
        self.size += frame.len();
        let mut ends = std::mem::take(&mut self.ends);
        ends.iter_mut().for_each(|end| *end -= skipped as u32);
        let start = (BEGIN + self.prefix.len() - skipped) as u32;
        self.buffer.clear();
        Some(RowPart { frame, dialect, start, ends, other: OnceCell::new() })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn parts(dialect: Dialect, rows: &[String]) -> Vec<RowPart> {
        let mut writer = RowPartWriter::new(dialect, "p1");
        let mut parts = Vec::new();
        for row in rows {
            writer.begin_row().extend(row.as_bytes());
            writer.end_row();
            if writer.is_full() {
                parts.extend(writer.close());
            }
        }
        parts.extend(writer.close());
        parts
    }

    /// The object in the frames of a part.
    fn object(part: &RowPart, dialect: Dialect) -> Value {
        let payloads: Vec<&[u8]> = part.frames(dialect).iter().map(|frame| payload_of(frame)).collect();
        let opcodes: Vec<u8> = part.frames(dialect).iter().map(|frame| frame[0]).collect();
        match dialect {
            Dialect::Text => {
                assert_eq!(opcodes, [0x81]);
                let message: Value = serde_json::from_slice(payloads[0]).unwrap();
                assert_eq!(message[0], "pokePart");
                message[1].clone()
            }
            Dialect::Binary => {
                assert!(opcodes.iter().all(|opcode| *opcode == 0x82));
                assert!(payloads.iter().all(|payload| payload[0] == 0 && payload.len() <= 1 << 20));
                let text: Vec<u8> = payloads.iter().flat_map(|payload| &payload[1..]).copied().collect();
                assert_eq!(text[0], b',');
                serde_json::from_slice(&text[1..]).unwrap()
            }
        }
    }

    #[test]
    fn fragments_are_found_again_in_the_frames() {
        let rows: Vec<String> = (0..250).map(|i| format!("{{\"n\":{i}}}")).collect();
        for dialect in Dialect::ALL {
            let parts = parts(dialect, &rows);
            assert_eq!(parts.len(), 3, "no more than a hundred patches in a part");
            let found: Vec<&[u8]> = parts.iter().flat_map(RowPart::fragments).collect();
            assert!(found.iter().copied().eq(rows.iter().map(String::as_bytes)));
            assert_eq!(parts.iter().map(RowPart::rows).sum::<usize>(), rows.len());
        }
    }

    #[test]
    fn a_part_says_the_same_in_every_dialect_whichever_it_was_written_for() {
        let rows = |length: usize| vec![format!("{{\"n\":\"{}\"}}", "é".repeat(length)), "{}".to_owned()];
        for (length, pieces) in [(3, 1), (40_000, 1), (600_000, 2), (1_200_000, 3)] {
            let whole = parts(Dialect::Text, &rows(length));
            let expected: Vec<Value> = whole.iter().map(|part| object(part, Dialect::Text)).collect();
            for written in Dialect::ALL {
                let parts = parts(written, &rows(length));
                assert_eq!(parts[0].frames(Dialect::Binary).len(), pieces);
                for dialect in Dialect::ALL {
                    let read: Vec<Value> = parts.iter().map(|part| object(part, dialect)).collect();
                    assert_eq!(read, expected, "{length} written as {written:?}, read as {dialect:?}");
                }
            }
        }
    }

    #[test]
    fn whoever_speaks_the_dialect_that_it_was_written_for_costs_no_copy() {
        let part = &parts(Dialect::Binary, &["{}".to_owned()])[0];
        let before = part.bytes();
        part.frames(Dialect::Binary);
        assert_eq!(part.bytes(), before);
        let copy = part.frames(Dialect::Text)[0].as_ptr();
        assert!(part.bytes() > before, "the copy counts");
        assert_eq!(part.frames(Dialect::Text)[0].as_ptr(), copy, "it is made once");
    }
}
