//! What goes into the record log, and in which order (rules 15, 19, 23).
//!
//! Called after everything that changes groups or views; appends to a buffer, which the server
//! writes before what was sent meanwhile leaves. A batch is one record for all groups: of each
//! recorded view that it changed, the keys of its delta. A group is written, whole, whenever
//! anything but plain data changed. A view is written when the first group has it.

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::rc::Rc;

use hashbrown::HashMap;

use super::group::Group;
use super::schema::Resolved;
use crate::cvr::frame::{self, Chain, MAX_PAYLOAD, TooLarge};
use crate::cvr::parts::{self, Sizes};
use crate::cvr::record::{BatchRecord, Header, Record};
use crate::model::ids::RecordId;
use crate::model::version::StateVersion;
use crate::testing::met::{Limit, met};
use crate::views::view::ViewId;

/// What is to be written.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// Bytes for the present file.
    pub bytes: Vec<u8>,
    /// A new file is to be begun with these, after the others.
    pub next: Option<(u64, Vec<u8>)>,
    /// All that is known is in the present file: those before it are not needed any more.
    pub complete: bool,
    /// Views and groups that are not recorded from now on, since something of them is too large for a frame:
    /// after a restart clients that had them start from a cleared store.
    pub unrecorded: usize,
}

impl Output {
    /// Bytes.
    pub fn len(&self) -> usize {
        self.bytes.len() + self.next.as_ref().map_or(0, |(_, bytes)| bytes.len())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Which log is written.
#[derive(Debug, Clone, Copy)]
pub struct LogName {
    /// Version at which the replica began.
    pub replica: StateVersion,
    /// Epoch of the process.
    pub epoch: u64,
    /// The core.
    pub core: usize,
}

/// How far a view has been written.
pub(super) struct Writing {
    pub id: RecordId,
    /// Next part of its members; `None`: all are written.
    pub next: Option<usize>,
    /// It was right at this version only, and has to be read anew.
    pub stale: Option<StateVersion>,
}

/// Decides what is written.
pub struct RecordLog {
    pub(super) name: Option<LogName>,
    pub(super) sequence: u64,
    pub(super) head: StateVersion,
    pub(super) chain: Chain,
    pub(super) out: Output,
    /// Bytes of the present file, and of it when it was complete.
    pub(super) size: u64,
    pub(super) complete_size: u64,
    /// The file is not complete yet; these are still to be written.
    pub(super) filling: Option<Filling>,
    pub(super) views: HashMap<ViewId, Writing>,
    /// Of these, those that are stale.
    pub(super) stale: BTreeSet<ViewId>,
    /// Views that were read anew and are not at the core's version yet.
    pub(super) behind: BTreeSet<ViewId>,
    /// Views that go on with a record of before: their rows are named otherwise from now on.
    pub(super) adopted: Vec<ViewId>,
    pub(super) dirty: Vec<Rc<str>>,
    /// Records of views that were at the head and are gone.
    pub(super) ended: Vec<RecordId>,
    pub(super) gone: Vec<RecordId>,
    /// Records that go on as what they were before the process started: they are written again.
    pub(super) back: Vec<RecordId>,
    pub(super) forgotten: Vec<Rc<str>>,
    pub(super) schemas: HashSet<u64>,
    pub(super) next_number: u64,
    /// Views that have something too large for a frame. They are tried again with the next file.
    pub(super) unrecorded: BTreeSet<ViewId>,
    /// The same of groups: tried again whenever they change.
    pub(super) unrecorded_groups: HashSet<Rc<str>>,
    /// Most rows of one record of members.
    pub(super) piece: usize,
    /// Of what is put into a frame.
    sizes: Sizes,
}

/// Least bytes of a frame that can be asked for: what is said when something is too large must fit.
const MIN_PAYLOAD: usize = 256;

#[derive(Default)]
pub(super) struct Filling {
    /// Of a whole file, not just of what came to it.
    pub whole: bool,
    pub views: VecDeque<ViewId>,
    /// Of these, how many in a row had to wait until they are read.
    pub waiting: usize,
    pub recovered: VecDeque<RecordId>,
    /// Members of the first of these that have been written, if it has been begun.
    pub begun: Option<usize>,
    pub groups: VecDeque<Rc<str>>,
}

impl RecordLog {
    /// One that records nothing yet. `piece`: rows of one record of members.
    pub fn new(piece: usize, sizes: Sizes) -> RecordLog {
        RecordLog {
            name: None,
            sequence: 0,
            head: StateVersion::ZERO,
            chain: Chain::new(0),
            out: Output::default(),
            size: 0,
            complete_size: 0,
            filling: None,
            views: HashMap::new(),
            stale: BTreeSet::new(),
            behind: BTreeSet::new(),
            adopted: Vec::new(),
            dirty: Vec::new(),
            ended: Vec::new(),
            gone: Vec::new(),
            back: Vec::new(),
            forgotten: Vec::new(),
            schemas: HashSet::new(),
            next_number: 1,
            unrecorded: BTreeSet::new(),
            unrecorded_groups: HashSet::new(),
            piece: piece.max(1),
            sizes: Sizes { most: sizes.most.clamp(MIN_PAYLOAD, MAX_PAYLOAD), ..sizes },
        }
    }

    /// Begins to record.
    pub fn start(&mut self, name: LogName) {
        self.name = Some(name);
    }

    /// Whether anything is recorded.
    pub fn is_on(&self) -> bool {
        self.name.is_some()
    }

    pub(super) fn note(&mut self, group: &mut Group) {
        if !std::mem::replace(&mut group.dirty, true) {
            self.dirty.push(group.id.clone());
        }
    }

    /// A group is forgotten.
    pub fn forget(&mut self, group: &Rc<str>) {
        if self.is_on() {
            self.forgotten.push(group.clone());
        }
    }

    /// A view goes on with a record of before, which was right at `at`.
    pub fn adopt(&mut self, view: ViewId, id: RecordId, at: StateVersion) {
        if !self.is_on() {
            return;
        }
        self.views.insert(view, Writing { id, next: None, stale: Some(at) });
        self.stale.insert(view);
        self.adopted.push(view);
        // It has not been written into this file: it is as what it is now.
        if let Some(filling) = self.filling.as_mut().filter(|filling| filling.recovered.contains(&id)) {
            if filling.recovered.front() == Some(&id) {
                filling.begun = None;
            }
            filling.recovered.retain(|old| *old != id);
            filling.views.push_back(view);
        }
    }

    /// A view was read anew, of a version before the core's. What it missed comes with batches that
    /// have been written already: it is told with the rest of what it differs in (rule 24).
    pub fn falls_behind(&mut self, view: ViewId) {
        self.behind.insert(view);
    }

    /// A view that was read anew is at the core's version.
    pub fn keeps_up(&mut self, view: ViewId) {
        self.behind.remove(&view);
    }

    /// A view is gone. Returns its record.
    pub fn view_gone(&mut self, view: ViewId) -> Option<RecordId> {
        self.stale.remove(&view);
        self.behind.remove(&view);
        self.unrecorded.remove(&view);
        let writing = self.views.remove(&view)?;
        if writing.stale.is_none() {
            self.ended.push(writing.id);
        }
        Some(writing.id)
    }

    /// A record goes on no more. `is_held`: what it was before the process started is needed still.
    /// Then it is not said to be gone: the process may end before all of it is written again.
    pub fn gone(&mut self, id: RecordId, is_held: bool) {
        match is_held {
            true => self.back.push(id),
            false => self.gone.push(id),
        }
    }

    /// A view of before is not needed any more.
    pub fn old_gone(&mut self, id: RecordId) {
        if self.is_on() {
            self.gone.push(id);
        }
    }

    /// Appends a record, in parts if it is larger than a frame and can be cut. An error: nothing of it was
    /// written, and what it is about is not in the log.
    pub(super) fn append(&mut self, record: Record) -> Result<(), TooLarge> {
        let Sizes { part, most } = self.sizes;
        if !parts::is_list(&record) {
            return self.append_whole(&record, most);
        }
        if self.append_whole(&record, part).is_ok() {
            return Ok(());
        }
        let parts = parts::split(record, self.sizes)?;
        met(Limit::RecordPart);
        parts.iter().try_for_each(|part| self.append_whole(part, most))
    }

    /// Appends a batch. Returns the views of which it could not say what happened: they are said to be gone
    /// before it, since it vouches for all others.
    pub(super) fn append_batch(&mut self, mut batch: BatchRecord) -> Vec<RecordId> {
        let gone = parts::too_large(&batch, self.sizes.most);
        gone.iter().for_each(|id| self.append_small(Record::Gone(*id)));
        batch.deltas.retain(|(id, _)| !gone.contains(id));
        // What is left has nothing that is too large for a part.
        let written = self.append(Record::Batch(batch));
        debug_assert!(written.is_ok(), "a batch without its large rows");
        gone
    }

    /// Appends a record that is small whatever it is about.
    pub(super) fn append_small(&mut self, record: Record) {
        let written = self.append_whole(&record, MAX_PAYLOAD);
        debug_assert!(written.is_ok(), "a record that is small");
    }

    fn append_whole(&mut self, record: &Record, most: usize) -> Result<(), TooLarge> {
        let bytes = match &mut self.out.next {
            Some((_, bytes)) => bytes,
            None => &mut self.out.bytes,
        };
        let before = bytes.len();
        let framed = self.chain.frame(bytes, most, |out| record.write(out));
        framed.inspect_err(|_| met(Limit::RecordFrame))?;
        self.size += (bytes.len() - before) as u64;
        Ok(())
    }

    /// Begins a new file, which is complete once [`super::syncer::Syncer::fill_records`] has nothing to do.
    pub(super) fn begin_file(&mut self, name: LogName) {
        self.sequence += 1;
        // Epochs are never used twice, so this is the file's alone.
        let salt = frame::salt(name.epoch, name.core, self.sequence);
        let head = frame::head(salt);
        (self.size, self.chain) = (head.len() as u64, Chain::new(salt));
        self.out.next = Some((self.sequence, head));
        self.schemas.clear();
        let header = Header {
            replica: name.replica.0,
            epoch: name.epoch,
            core: name.core,
            sequence: self.sequence,
            head: self.head.0,
        };
        self.append_small(Record::Header(header));
    }

    /// Number of a client schema, which is written if the file does not have it. An error: it is too large,
    /// and groups that have it cannot be served after a restart.
    pub(super) fn schema(&mut self, schema: &Resolved) -> Result<u64, TooLarge> {
        let text = serde_json::to_string(&schema.schema).unwrap_or_default();
        let number = xxhash_rust::xxh3::xxh3_64(text.as_bytes());
        if !self.schemas.contains(&number) {
            self.append(Record::Schema(number, text))?;
            self.schemas.insert(number);
        }
        Ok(number)
    }
}
