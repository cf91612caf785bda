//! A view's rows, encoded once for everybody who needs all of them.
//!
//! Made by a hydration while it hydrates. A group that has nothing else is sent the parts as they are; a group that
//! already holds some of the rows takes single fragments out of them.

use std::cell::Cell;

use super::rows::RowId;
use crate::model::version::StateVersion;
use crate::protocol::poke_writer::PokeWriter;
use crate::protocol::row_part::RowPart;

/// Most bytes that one view may take in encoded form. A browser could not hold more, and
/// several such views must fit into a core's memory.
pub const MAX_ENCODED_SIZE: usize = 1 << 30;

/// A part of a poke that puts rows.
#[derive(Debug)]
pub struct Part {
    /// As it is sent.
    pub encoded: RowPart,
    /// Rows in it.
    pub rows: Vec<RowId>,
}

impl Part {
    /// Row numbers with their fragments.
    pub fn fragments(&self) -> impl Iterator<Item = (RowId, &[u8])> {
        self.rows.iter().copied().zip(self.encoded.fragments())
    }
}

/// All rows of a view at one version.
#[derive(Debug)]
pub struct EncodedView {
    /// Version of the snapshot that was read.
    pub at: StateVersion,
    /// `pokeID` inside the parts.
    pub poke_id: String,
    /// The parts; of a view that was streamed, those that were not taken.
    pub parts: Vec<Part>,
    /// Bytes of all parts, as they were written.
    pub size: usize,
    /// Some parts were taken while it was read.
    pub partial: bool,
    /// Bytes of those that are there in the other dialect, too.
    copies: Cell<usize>,
}

impl EncodedView {
    /// Of these parts, whether all are there or not.
    pub fn new(at: StateVersion, poke_id: &str, parts: Vec<Part>, size: usize, partial: bool) -> EncodedView {
        EncodedView { at, poke_id: poke_id.to_owned(), parts, size, partial, copies: Cell::new(0) }
    }

    /// Whether nothing was encoded.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty() && !self.partial
    }

    /// Bytes of all parts, in the dialects that they are there in.
    pub fn bytes(&self) -> usize {
        self.size + self.copies.get()
    }

    /// Adds one of its parts to a poke with its id, as it is.
    pub fn write(&self, part: &Part, poke: &mut PokeWriter) {
        let before = part.encoded.bytes();
        poke.encoded(&part.encoded);
        self.copies.set(self.copies.get() + part.encoded.bytes() - before);
    }
}
