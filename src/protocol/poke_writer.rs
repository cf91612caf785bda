//! Writes what stands between `pokeStart` and `pokeEnd` (`docs/spec/sync-protocol.md` §9.5), in a connection's dialect.

use bytes::Bytes;

use super::chunk::{MAX_TEXT, beginning_with, chunks};
use super::dialect::Dialect;
use super::poke::PokeBody;
use super::row_part::{BEGIN, RowPart, finish};

/// Bytes of a part beside its rows, mostly.
const BESIDE_ROWS: usize = 64;

/// How the next part of a poke is written: parts that say the same are written alike at the same place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Place {
    /// The dialect.
    pub dialect: Dialect,
    /// The array of the binary dialect has begun. Parts of the text dialect stand by themselves.
    has_begun: bool,
}

impl Place {
    /// That of the first part.
    pub fn first(dialect: Dialect) -> Place {
        Place { dialect, has_begun: false }
    }
}

/// Writes the parts of one poke.
pub struct PokeWriter {
    place: Place,
    poke_id: String,
    /// Row operations of the part that is being filled.
    rows: PokeBody,
    /// Text of the array that is in no message yet.
    text: Vec<u8>,
    frames: Vec<Bytes>,
}

impl PokeWriter {
    /// From this place of a poke on.
    pub fn new(place: Place, poke_id: &str) -> PokeWriter {
        let (rows, text, frames) = (PokeBody::default(), Vec::new(), Vec::new());
        PokeWriter { place, poke_id: poke_id.to_owned(), rows, text, frames }
    }

    /// `pokeID` of the poke.
    pub fn poke_id(&self) -> &str {
        &self.poke_id
    }

    /// Adds a part, if it says anything.
    pub fn part(&mut self, body: &PokeBody) {
        self.end_rows();
        if !body.is_empty() {
            self.write(body);
        }
    }

    /// Adds a row operation.
    pub fn row(&mut self, fragment: &[u8]) {
        self.rows.push_row(fragment);
        if self.rows.is_full() {
            self.end_rows();
        }
    }

    /// Adds a part that was encoded for pokes with this id, as it is. It may pass rows that were added before it.
    pub fn encoded(&mut self, part: &RowPart) {
        let frames = part.frames(self.place.dialect);
        if self.place.dialect == Dialect::Text || self.place.has_begun {
            self.write_out();
            self.frames.extend(frames.iter().cloned());
        } else {
            self.place.has_begun = true;
            let first = frames.first().map(|first| beginning_with(b'[', first));
            self.frames.extend(first.into_iter().chain(frames.iter().skip(1).cloned()));
        }
    }

    /// The place of what comes next.
    pub fn place(&mut self) -> Place {
        self.end_rows();
        self.place
    }

    /// What has been written so far, of a poke that goes on at this place later.
    pub fn pause(mut self) -> (Vec<Bytes>, Place) {
        self.end_rows();
        self.write_out();
        (self.frames, self.place)
    }

    /// All of it: there are no further parts.
    pub fn finish(mut self) -> Vec<Bytes> {
        self.end_rows();
        if self.place.dialect == Dialect::Binary {
            // Also a poke without parts has its array.
            self.text.extend(if self.place.has_begun { &b"]"[..] } else { b"[]" });
        }
        self.write_out();
        self.frames
    }

    /// The same with a rest that was finished at [`PokeWriter::place`], for several pokes.
    pub fn finish_with(self, rest: &[Bytes]) -> Vec<Bytes> {
        let (mut frames, _) = self.pause();
        frames.extend(rest.iter().cloned());
        frames
    }

    fn end_rows(&mut self) {
        if !self.rows.is_empty() {
            let rows = std::mem::take(&mut self.rows);
            self.write(&rows);
        }
    }

    fn write(&mut self, body: &PokeBody) {
        match self.place.dialect {
            Dialect::Text => {
                let mut buffer = Vec::with_capacity(BEGIN + body.rows.len() + BESIDE_ROWS);
                buffer.resize(BEGIN, 0);
                body.write(&self.poke_id, &mut buffer);
                self.frames.push(finish(&mut buffer, Dialect::Text).0);
            }
            Dialect::Binary => {
                self.text.push(if self.place.has_begun { b',' } else { b'[' });
                self.place.has_begun = true;
                body.write(&self.poke_id, &mut self.text);
                let whole = self.text.len() / MAX_TEXT * MAX_TEXT;
                self.frames.extend(chunks(&self.text[..whole]));
                self.text.drain(..whole);
            }
        }
    }

    /// Puts the text so far into messages.
    fn write_out(&mut self) {
        self.frames.extend(chunks(&self.text));
        self.text.clear();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::protocol::poke::{PATCHES_PER_PART, QueryPatch};
    use crate::protocol::row_part::RowPartWriter;
    use crate::protocol::websocket::payload_of;

    /// What is added to a poke.
    #[derive(Debug, Clone)]
    enum Said {
        Body(PokeBody),
        /// Rows with texts of so many characters.
        Rows(Vec<usize>),
        /// The same, encoded before for a dialect.
        Encoded(Vec<usize>, Dialect),
        /// A slice ends, and the poke goes on later.
        Pause,
    }

    /// A row whose characters have one to four bytes, so that borders of messages fall anywhere in them.
    fn row(length: usize) -> String {
        let text: String = "aé€😀".chars().cycle().skip(length % 4).take(length).collect();
        json!({"op": "put", "tableName": "t", "value": {"id": length, "text": text}}).to_string()
    }

    fn body() -> impl Strategy<Value = PokeBody> {
        let got = prop::collection::vec("[a-zé]{1,8}", 0..4);
        (got, prop::collection::vec(("[a-z]{1,8}", 0..9u64), 0..3)).prop_map(|(got, lmids)| PokeBody {
            got: got.into_iter().map(QueryPatch::Put).collect(),
            lmids,
            ..PokeBody::default()
        })
    }

    fn said() -> impl Strategy<Value = Said> {
        // Most are small; some rows alone are larger than a message.
        let length = prop_oneof![8 => 0..200usize, 1 => 100_000..140_000usize, 1 => 400_000..900_000usize];
        let rows = prop::collection::vec(length, 0..4).boxed();
        let many = prop::collection::vec(0..3usize, 0..250).boxed();
        let rows = prop_oneof![3 => rows, 1 => many].boxed();
        prop_oneof![
            2 => body().prop_map(Said::Body),
            3 => rows.clone().prop_map(Said::Rows),
            2 => (rows, prop::sample::select(&Dialect::ALL[..])).prop_map(|(rows, of)| Said::Encoded(rows, of)),
            1 => Just(Said::Pause),
        ]
    }

    fn encoded(lengths: &[usize], dialect: Dialect) -> Vec<RowPart> {
        let mut writer = RowPartWriter::new(dialect, "p");
        let mut parts = Vec::new();
        for length in lengths {
            writer.begin_row().extend(row(*length).as_bytes());
            writer.end_row();
            if writer.is_full() {
                parts.extend(writer.close());
            }
        }
        parts.extend(writer.close());
        parts
    }

    /// The frames of a poke without the rest, and where it goes on.
    fn write(said: &[Said], dialect: Dialect) -> (Vec<Bytes>, PokeWriter) {
        let mut writer = PokeWriter::new(Place::first(dialect), "p");
        let mut frames = Vec::new();
        for said in said {
            match said {
                Said::Body(body) => writer.part(body),
                Said::Rows(rows) => rows.iter().for_each(|length| writer.row(row(*length).as_bytes())),
                Said::Encoded(rows, of) => encoded(rows, *of).iter().for_each(|part| writer.encoded(part)),
                Said::Pause => {
                    let (written, place) = writer.pause();
                    frames.extend(written);
                    writer = PokeWriter::new(place, "p");
                }
            }
        }
        (frames, writer)
    }

    /// The parts in text messages.
    fn parts(frames: &[Bytes]) -> Vec<Value> {
        let read = |frame: &Bytes| -> Value {
            assert_eq!(frame[0], 0x81, "a text message");
            let mut message: Value = serde_json::from_slice(payload_of(frame)).expect("JSON");
            assert_eq!((&message[0], &message[1]["pokeID"]), (&json!("pokePart"), &json!("p")));
            message[1].take()
        };
        frames.iter().map(read).collect()
    }

    /// The text that binary messages have together.
    fn joined(frames: &[Bytes]) -> Vec<u8> {
        for frame in frames {
            assert_eq!(frame[0], 0x82, "a binary message");
            let payload = payload_of(frame);
            assert!(payload.len() <= 1 << 20 && payload.len() > 1, "{} bytes", payload.len());
            assert_eq!(payload[0], 0);
        }
        frames.iter().flat_map(|frame| &payload_of(frame)[1..]).copied().collect()
    }

    fn finished(said: &[Said], dialect: Dialect) -> Vec<Bytes> {
        let (mut frames, writer) = write(said, dialect);
        frames.extend(writer.finish());
        frames
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_poke_says_the_same_in_every_dialect(said in prop::collection::vec(said(), 0..8)) {
            let expected = parts(&finished(&said, Dialect::Text));
            let text = joined(&finished(&said, Dialect::Binary));
            let text = std::str::from_utf8(&text).expect("UTF-8");
            let read: Vec<Value> = serde_json::from_str(text).expect("one array");
            prop_assert_eq!(&read, &expected);
            let rows = |part: &Value| part["rowsPatch"].as_array().map_or(0, Vec::len);
            prop_assert!(read.iter().all(|part| rows(part) <= PATCHES_PER_PART));
        }

        /// A client forgets it, and must not take it for a whole one.
        #[test]
        fn a_poke_that_is_cancelled_leaves_its_array_unfinished(said in prop::collection::vec(said(), 0..8)) {
            let (mut frames, writer) = write(&said, Dialect::Binary);
            frames.extend(writer.pause().0);
            let text = joined(&frames);
            prop_assert!(frames.is_empty() || serde_json::from_slice::<Value>(&text).is_err());
            let whole = joined(&finished(&said, Dialect::Binary));
            prop_assert!(whole.starts_with(&text), "what was out is how the whole begins");
        }

        /// Groups share what stands at the same place.
        #[test]
        fn a_rest_that_is_shared_stands_at_its_place(
            said in prop::collection::vec(said(), 0..4),
            rest in prop::collection::vec(0..200usize, 0..9),
        ) {
            for dialect in Dialect::ALL {
                let (mut frames, mut writer) = write(&said, dialect);
                let mut shared = PokeWriter::new(writer.place(), "p");
                rest.iter().for_each(|length| shared.row(row(*length).as_bytes()));
                frames.extend(writer.finish_with(&shared.finish()));
                let whole = [&said[..], &[Said::Pause, Said::Rows(rest.clone())]].concat();
                let whole = finished(&whole, dialect);
                match dialect {
                    Dialect::Text => prop_assert_eq!(parts(&frames), parts(&whole)),
                    Dialect::Binary => prop_assert_eq!(joined(&frames), joined(&whole)),
                }
            }
        }
    }

    #[test]
    fn a_poke_without_parts_has_one_message_with_an_empty_array() {
        assert!(finished(&[], Dialect::Text).is_empty());
        let frames = finished(&[Said::Body(PokeBody::default()), Said::Pause], Dialect::Binary);
        assert_eq!(frames, [Bytes::from_static(b"\x82\x03\0[]")]);
    }

    #[test]
    fn what_is_small_is_one_message() {
        let lmids = PokeBody { lmids: vec![("c".into(), 7)], ..PokeBody::default() };
        let frames = finished(&[Said::Body(lmids), Said::Rows(vec![3; 5])], Dialect::Binary);
        assert_eq!(frames.len(), 1);
    }

    #[test]
    fn a_message_is_filled_before_the_next_one_begins() {
        let frames = finished(&[Said::Rows(vec![60_000; 30])], Dialect::Binary);
        let lengths: Vec<usize> = frames.iter().map(|frame| payload_of(frame).len()).collect();
        let (last, others) = lengths.split_last().unwrap();
        assert!(others.len() > 2 && others.iter().all(|length| *length == 1 << 20) && *last <= 1 << 20);
    }

    #[test]
    fn encoded_parts_are_shared_and_not_copied() {
        for dialect in Dialect::ALL {
            let parts = encoded(&[60_000; 30], dialect);
            assert!(parts.len() > 3);
            let mut writer = PokeWriter::new(Place::first(dialect), "p");
            writer.part(&PokeBody { lmids: vec![("c".into(), 7)], ..PokeBody::default() });
            parts.iter().for_each(|part| writer.encoded(part));
            let frames = writer.finish();
            for part in &parts {
                let shared = part.frames(dialect)[0].as_ptr();
                assert!(frames.iter().any(|frame| frame.as_ptr() == shared), "{dialect:?}");
            }
        }
    }
}
