//! A view's rows, encoded once for everybody who needs all of them.
//!
//! Made by a hydration while it hydrates. Each part is a finished WebSocket frame with a
//! `pokePart`, so a group that has nothing else sends the frames as they are; a group that
//! already holds some of the rows takes single fragments out of them.

use bytes::Bytes;
use kelvin_io::websocket;

use super::rows::RowId;
use crate::model::version::StateVersion;

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

impl Full {
    /// Whether nothing was encoded.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty() && !self.partial
    }
}

/// Writes frames row by row.
pub struct Frames {
    prefix: Vec<u8>,
    buffer: Vec<u8>,
    /// Where the fragments in the buffer end.
    ends: Vec<u32>,
    /// Bytes in the frames that are closed.
    size: usize,
}

impl Frames {
    /// For pokes with this id, which must be unique among the pokes of a connection.
    pub fn new(poke_id: &str) -> Frames {
        let prefix = format!("[\"pokePart\",{{\"pokeID\":\"{poke_id}\",\"rowsPatch\":[").into_bytes();
        Frames { prefix, buffer: Vec::new(), ends: Vec::new(), size: 0 }
    }

    /// Where to append the fragment of the next row.
    pub fn begin_row(&mut self) -> &mut Vec<u8> {
        if self.ends.is_empty() {
            self.buffer.clear();
            self.buffer.resize(websocket::MAX_HEADER, 0);
            self.buffer.extend(&self.prefix);
        } else {
            self.buffer.push(b',');
        }
        &mut self.buffer
    }

    /// Ends the fragment that [`Frames::begin_row`] began.
    pub fn end_row(&mut self) {
        self.ends.push(self.buffer.len() as u32);
    }

    /// Whether the frame should be closed.
    pub fn is_full(&self) -> bool {
        self.ends.len() >= PATCHES_PER_PART || self.buffer.len() >= PART_SIZE
    }

    /// Bytes so far.
    pub fn size(&self) -> usize {
        self.size + self.buffer.len()
    }

    /// Finishes the frame, if there is anything in it. Returns it with the place where its
    /// first fragment starts, and those where fragments end.
    pub fn close(&mut self) -> Option<(Bytes, u32, Vec<u32>)> {
        if self.ends.is_empty() {
            return None;
        }
        self.buffer.extend(b"]}]");
        let (frame, skipped) = websocket::finish_frame(&mut self.buffer);
        self.size += frame.len();
        let mut ends = std::mem::take(&mut self.ends);
        ends.iter_mut().for_each(|end| *end -= skipped as u32);
        let start = websocket::MAX_HEADER + self.prefix.len() - skipped;
        self.buffer.clear();
        Some((frame, start as u32, ends))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fragments_are_found_again_in_the_frames() {
        let mut frames = Frames::new("p1");
        let mut parts: Vec<Part> = Vec::new();
        for i in 0..250u32 {
            frames.begin_row().extend(format!("{{\"n\":{i}}}").as_bytes());
            frames.end_row();
            if frames.is_full() || i == 249 {
                let (frame, start, ends) = frames.close().unwrap();
                let first = parts.iter().map(|p| p.rows.len() as u32).sum::<u32>();
                let rows = ends.into_iter().enumerate().map(|(n, end)| (RowId(first + n as u32), end));
                parts.push(Part { frame, start, rows: rows.collect() });
            }
        }
        assert_eq!(parts.len(), 3, "no more than a hundred patches in a part");
        let found: Vec<(RowId, String)> = parts
            .iter()
            .flat_map(|p| p.fragments())
            .map(|(id, f)| (id, String::from_utf8(f.to_vec()).unwrap()))
            .collect();
        assert_eq!(found.len(), 250);
        assert_eq!(found[249], (RowId(249), "{\"n\":249}".to_owned()));
        for part in &parts {
            let payload = websocket::payload_of(&part.frame);
            let json: serde_json::Value = serde_json::from_slice(payload).unwrap();
            assert_eq!(json[0], "pokePart");
            assert_eq!(json[1]["pokeID"], "p1");
        }
    }
}
