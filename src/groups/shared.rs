//! What all groups of a core share: views, contents, frames.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use hashbrown::{HashMap, HashSet};

use super::forgotten::Forgotten;
use super::limits::GroupLimits;
use super::record_log::RecordLog;
use super::recovered_views::RecoveredViews;
use super::schema::Schemas;
use crate::model::catalogue::Catalogue;
use crate::model::lexi;
use crate::model::version::StateVersion;
use crate::protocol::poke::poke_end;
use crate::protocol::poke_writer::{Place, PokeWriter};
use crate::replica::live_indexes::IndexRequest;
use crate::replica::reader::{ReadError, Reader};
use crate::views::contents::Contents;
use crate::views::encoded::EncodedView;
use crate::views::registry::Views;
use crate::views::rows::{RowId, Rows};
use crate::views::view::ViewId;
use crate::zql::limits::Limits;
use crate::zql::texts::Texts;

/// Most bytes of shared frames kept for one version.
const MAX_SHARED: usize = 16 << 20;

/// One row operation of a poke.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RowOp {
    /// The row as it is now.
    Put(RowId),
    /// The row is gone.
    Del(RowId),
}

impl RowOp {
    /// The row.
    pub fn row(self) -> RowId {
        match self {
            RowOp::Put(id) | RowOp::Del(id) => id,
        }
    }
}

/// Frames that end a poke, by the row operations in them.
type RowFrames = HashMap<Box<[RowOp]>, Rc<[Bytes]>>;

/// What the groups of one core share.
pub struct Shared {
    /// Row numbers.
    pub rows: Rc<RefCell<Rows>>,
    /// Views.
    pub views: Views,
    /// Contents of rows at `version`.
    pub contents: Contents,
    /// The live reader of the core, on the snapshot of `version`.
    pub reader: Rc<Reader>,
    /// Version that every got view is at, between batches.
    pub version: StateVersion,
    /// Epoch of this process (rule 18).
    pub epoch: u64,
    /// Tables.
    pub catalogue: Arc<Catalogue>,
    /// Groups that have a view, and groups that wait for it.
    pub interested: HashMap<ViewId, HashSet<Rc<str>>>,
    /// How much groups keep.
    pub limits: GroupLimits,
    /// How much queries may be.
    pub query_limits: Limits,
    /// SQL texts of all plans.
    pub texts: Texts,
    /// Client schemas of the groups.
    pub schemas: Schemas,
    /// Indexes that new views would read by.
    pub index_requests: Vec<IndexRequest>,
    /// What is written down.
    pub record_log: RecordLog,
    /// Views of before the process started.
    pub recovered: RecoveredViews,
    /// Version before which nothing is read: what is recorded is later (rule 24).
    pub wait_for: StateVersion,
    /// Queries that clients spelled out, and that were not answered.
    pub spelled: u64,
    /// Cookies of groups that were forgotten.
    pub forgotten: Forgotten,
    /// Milliseconds since 1970 at zero of the core's clock: times that outlive the process count from there.
    pub clock_zero: f64,
    /// Encoded views, for as long as somebody may need them.
    pub encoded: HashMap<ViewId, Rc<EncodedView>>,
    frames: HashMap<Place, RowFrames>,
    shared_bytes: usize,
    ends: HashMap<String, Bytes>,
}

impl Shared {
    /// Nothing yet, at the version of the live reader's snapshot.
    pub fn new(
        rows: Rc<RefCell<Rows>>,
        reader: Rc<Reader>,
        version: StateVersion,
        epoch: u64,
        catalogue: Arc<Catalogue>,
        limits: GroupLimits,
    ) -> Shared {
        Shared {
            views: Views::new(rows.clone(), limits.views),
            contents: Contents::new(reader.clone(), catalogue.clone(), rows.clone()),
            rows,
            reader,
            version,
            epoch,
            catalogue,
            interested: HashMap::new(),
            limits,
            query_limits: Limits::DEFAULT,
            texts: Texts::default(),
            schemas: Schemas::default(),
            index_requests: Vec::new(),
            record_log: RecordLog::new(limits.record_rows, limits.record_frame),
            recovered: RecoveredViews::default(),
            wait_for: StateVersion::ZERO,
            spelled: 0,
            forgotten: Forgotten::default(),
            clock_zero: 0.0,
            encoded: HashMap::new(),
            frames: HashMap::new(),
            shared_bytes: 0,
            ends: HashMap::new(),
        }
    }

    /// Takes the new version: everything that was encoded for the old one is forgotten.
    pub fn moved(&mut self, version: StateVersion) {
        self.version = version;
        self.contents.moved();
        let mut rows = self.rows.borrow_mut();
        let kept = self.frames.values_mut().flat_map(|frames| frames.drain());
        kept.flat_map(|(ops, _)| ops).for_each(|op| rows.release(op.row()));
        drop(rows);
        self.ends.clear();
        self.shared_bytes = 0;
    }

    /// The encoded form of a view, if the view can tell all that happened since.
    pub fn encoded_view(&self, view: ViewId) -> Option<&Rc<EncodedView>> {
        let encoded = self.encoded.get(&view)?;
        self.views.get(view)?.journal.reaches(encoded.at).then_some(encoded)
    }

    /// `pokeID` of pokes whose frames are shared at this version.
    pub fn poke_id(&self) -> String {
        lexi::encode(self.version.0)
    }

    /// Finishes a poke with these operations. Groups that say them at the same place of a poke with the id of this version
    /// share the frames.
    pub fn finish(&mut self, mut poke: PokeWriter, ops: &[RowOp]) -> Result<Vec<Bytes>, ReadError> {
        if ops.is_empty() {
            return Ok(poke.finish());
        }
        let place = poke.place();
        if let Some(found) = self.frames.get(&place).and_then(|frames| frames.get(ops)) {
            return Ok(poke.finish_with(found));
        }
        let mut rest = PokeWriter::new(place, poke.poke_id());
        self.write_rows(ops, &mut rest)?;
        let rest: Rc<[Bytes]> = rest.finish().into();
        let size: usize = rest.iter().map(Bytes::len).sum();
        if self.shared_bytes + size <= MAX_SHARED {
            self.shared_bytes += size;
            // The frames stand for these numbers: nobody else may get them meanwhile.
            let mut rows = self.rows.borrow_mut();
            ops.iter().for_each(|op| rows.acquire(op.row()));
            drop(rows);
            self.frames.entry(place).or_default().insert(ops.into(), rest.clone());
        }
        Ok(poke.finish_with(&rest))
    }

    /// Adds these operations to a poke.
    pub fn write_rows(&mut self, ops: &[RowOp], poke: &mut PokeWriter) -> Result<(), ReadError> {
        for op in ops {
            let fragment = match op {
                RowOp::Put(id) => self.contents.put(*id, &mut self.views)?,
                RowOp::Del(id) => Some(self.contents.del(*id, &mut self.views)),
            };
            fragment.into_iter().for_each(|fragment| poke.row(&fragment));
        }
        Ok(())
    }

    /// `pokeEnd`, shared by the groups that reach the same cookie.
    pub fn end_frame(&mut self, poke_id: &str, cookie: &str) -> Bytes {
        let key = format!("{poke_id} {cookie}");
        self.ends.entry(key).or_insert_with(|| poke_end(poke_id, cookie)).clone()
    }
}
