//! A view's rows, encoded once for everybody who needs all of them.
//!
//! Made by a lane while it hydrates. Each part is a finished WebSocket frame with a
//! `pokePart`, so a group that has nothing else sends the frames as they are; a group that
//! already holds some of the rows takes single fragments out of them.

use std::cell::RefCell;
use std::rc::Rc;

use bytes::Bytes;
use kelvin_io::websocket;

use super::rows::RowId;
use crate::changes::version::StateVersion;

/// Most row patches per part, as the reference (`docs/spec/sync-protocol.md` §9.5).
pub const PATCHES_PER_PART: usize = 100;

/// Size at which a part is closed early, in bytes: rows may be large.
pub const PART_SIZE: usize = 256 << 10;

/// Most bytes that one view may take in encoded form. A browser could not hold more, and
/// several such views must fit into a core's memory.
pub const MAX_FULL_SIZE: usize = 1 << 30;

/// One frame with a `pokePart` that puts rows.
#[derive(Debug)]
pub struct Part {
    /// The frame.
    pub frame: Bytes,
    /// Rows in it, each with the end of its fragment in the frame.
    pub rows: Vec<(RowId, u32)>,
    /// Where the first fragment starts.
    pub start: u32,
}

impl Part {
    /// Row numbers with their fragments.
    pub fn fragments(&self) -> impl Iterator<Item = (RowId, &[u8])> {
        let mut start = self.start as usize;
        self.rows.iter().map(move |(id, end)| {
            let fragment = &self.frame[start..*end as usize];
            // A comma stands between two fragments.
            start = *end as usize + 1;
            (*id, fragment)
        })
    }
}

/// Parts that are finished and were not taken yet. Whoever drives the reading may take them
/// while it goes on, so that they need not be kept (rule 22).
pub type Finished = Rc<RefCell<Vec<Part>>>;

/// All rows of a view at one version.
#[derive(Debug)]
pub struct Full {
    /// Version of the snapshot that was read.
    pub at: StateVersion,
    /// `pokeID` inside the frames.
    pub poke_id: String,
    /// The frames; of a view that was streamed, those that were not taken.
    pub parts: Vec<Part>,
    /// Bytes in all frames.
    pub size: usize,
    /// Some parts were taken while it was read.
    pub partial: bool,
}

/// Puts a [`Full`] together row by row.
pub struct FullBuilder {
    poke_id: String,
    prefix: Vec<u8>,
    buffer: Vec<u8>,
    rows: Vec<(RowId, u32)>,
    finished: Finished,
    /// Parts finished so far, taken or not.
    count: usize,
    size: usize,
}

impl FullBuilder {
    /// Starts one; `poke_id` must be unique among the pokes of a connection.
    pub fn new(poke_id: String) -> FullBuilder {
        let prefix = format!("[\"pokePart\",{{\"pokeID\":\"{poke_id}\",\"rowsPatch\":[").into_bytes();
        let (buffer, rows, finished) = (Vec::new(), Vec::new(), Finished::default());
        FullBuilder { poke_id, prefix, buffer, rows, finished, count: 0, size: 0 }
    }

    /// Where finished parts are left.
    pub fn finished(&self) -> Finished {
        self.finished.clone()
    }

    /// Where to append the fragment of the next row.
    pub fn begin_row(&mut self) -> &mut Vec<u8> {
        if self.rows.is_empty() {
            self.buffer.clear();
            self.buffer.resize(websocket::MAX_HEADER, 0);
            self.buffer.extend(&self.prefix);
        } else {
            self.buffer.push(b',');
        }
        &mut self.buffer
    }

    /// Ends the fragment that [`FullBuilder::begin_row`] began.
    pub fn commit(&mut self, id: RowId) {
        self.rows.push((id, self.buffer.len() as u32));
        if self.rows.len() == PATCHES_PER_PART || self.buffer.len() >= PART_SIZE {
            self.close_part();
        }
    }

    /// Bytes so far.
    pub fn size(&self) -> usize {
        self.size + self.buffer.len()
    }

    fn close_part(&mut self) {
        if self.rows.is_empty() {
            return;
        }
        self.buffer.extend(b"]}]");
        let (frame, skipped) = websocket::finish_frame(&mut self.buffer);
        self.size += frame.len();
        let rows = std::mem::take(&mut self.rows);
        let start = websocket::MAX_HEADER + self.prefix.len() - skipped;
        let rows = rows.into_iter().map(|(id, end)| (id, end - skipped as u32)).collect();
        self.finished.borrow_mut().push(Part { frame, rows, start: start as u32 });
        self.count += 1;
    }

    /// All parts that were not taken.
    pub fn finish(mut self, at: StateVersion) -> Full {
        self.close_part();
        let parts = self.finished.take();
        let partial = parts.len() < self.count;
        Full { at, poke_id: self.poke_id, parts, size: self.size, partial }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fragments_are_found_again_in_the_frames() {
        let mut builder = FullBuilder::new("p1".into());
        for i in 0..250u32 {
            builder.begin_row().extend(format!("{{\"n\":{i}}}").as_bytes());
            builder.commit(RowId(i));
        }
        let full = builder.finish(StateVersion(1));
        assert_eq!(full.parts.len(), 3, "no more than a hundred patches in a part");
        let found: Vec<(RowId, String)> = full
            .parts
            .iter()
            .flat_map(|p| p.fragments())
            .map(|(id, f)| (id, String::from_utf8(f.to_vec()).unwrap()))
            .collect();
        assert_eq!(found.len(), 250);
        assert_eq!(found[249], (RowId(249), "{\"n\":249}".to_owned()));
        for part in &full.parts {
            let payload = websocket::payload_of(&part.frame);
            let json: serde_json::Value = serde_json::from_slice(payload).unwrap();
            assert_eq!(json[0], "pokePart");
            assert_eq!(json[1]["pokeID"], "p1");
        }
    }
}
