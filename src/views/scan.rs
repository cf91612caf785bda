//! Reading a whole view, on a thread beside the core: everything that depends on the rows
//! alone is done here, in SQLite and in bytes. What is found is handed over in chunks, out of
//! which the core makes the view's state ([`super::assemble`]).

use std::sync::Arc;

use hashbrown::{HashMap, HashSet};
use rusqlite::Row;

use super::encoded::MAX_ENCODED_SIZE;
use super::entries::IdentityId;
use super::window::TAIL;
use crate::model::key::Scalar;
use crate::model::version::StateVersion;
use crate::protocol::dialect::Dialect;
use crate::protocol::row_part::{RowPart, RowPartWriter};
use crate::protocol::row_patch::Encoder;
use crate::replica::reader::{ReadError, Reader};
use crate::zql::evaluate::{Collect, ScopeKey, evaluate};
use crate::zql::order::Position;
use crate::zql::plan::{Kind, Node, Plan};

/// Most rows that one view may hold. A browser's local store is far below it.
pub const MAX_MEMBERS: usize = 4_000_000;

/// Most rows or keys of one chunk: the core takes one in a fraction of a slice.
const CHUNK_ROWS: usize = 200;

/// Bytes of parts after which a chunk is handed over.
const CHUNK_SIZE: usize = 96 << 10;

/// Witnesses that a view has, by node and correlation key.
pub type Witnesses = HashMap<(u16, Box<[u8]>), Vec<Box<[u8]>>>;

/// What is to be read.
pub struct Job {
    /// The query.
    pub plan: Arc<Plan>,
    /// By node: how clients know its rows, and who writes them.
    pub nodes: Vec<(IdentityId, Arc<Encoder>)>,
    /// Encode every row, for pokes with this id.
    pub poke_id: Option<String>,
    /// In this dialect.
    pub dialect: Dialect,
    /// Witnesses so far, which are preferred.
    pub witnesses: Witnesses,
    /// Tell which rows are of a later version than this.
    pub since: Option<StateVersion>,
}

/// A row that was found.
pub struct FoundRow {
    /// Its node.
    pub node: u16,
    /// Number of its correlation key.
    pub key: u32,
    /// Where its identity ends in [`Chunk::bytes`].
    pub end: u32,
    /// It changed since [`Job::since`].
    pub edited: bool,
    /// Its fragment is in the parts: no row of the same identity was there before.
    pub encoded: bool,
    /// Where it stands, if it is among the last of a window.
    pub position: Option<Position>,
}

/// Keys of one node that came into scope.
pub struct FoundKeys {
    /// The node.
    pub node: u16,
    /// Where each ends in [`Chunk::key_bytes`], and the number of its parents.
    pub keys: Vec<(u32, u32)>,
}

/// A part of what was found, in order. What lasts is made out of it by the core: a thread that reads
/// would leave it among what it has freed.
#[derive(Default)]
pub struct Chunk {
    /// Keys; they come before the rows.
    pub keys: Vec<FoundKeys>,
    /// The keys, one after another.
    pub key_bytes: Vec<u8>,
    /// Rows.
    pub rows: Vec<FoundRow>,
    /// Identities of the rows, one after another.
    pub bytes: Vec<u8>,
    /// Parts with the rows that are marked as encoded.
    pub parts: Vec<RowPart>,
}

/// Reads the view on the reader's snapshot. `hand` takes what is found; its error ends it. Returns the
/// number of the condition that the root was read from.
pub fn scan(
    reader: &Reader,
    job: &Job,
    hand: &mut dyn FnMut(Chunk) -> Result<(), ReadError>,
) -> Result<usize, ReadError> {
    let mut scan = Scan::new(job, hand);
    let driver = evaluate(reader, &job.plan, &mut scan)?;
    scan.hand_over()?;
    Ok(driver)
}

struct Scan<'j> {
    job: &'j Job,
    hand: &'j mut dyn FnMut(Chunk) -> Result<(), ReadError>,
    chunk: Chunk,
    parts: Option<RowPartWriter>,
    /// Bytes of the parts in the chunk.
    size: usize,
    /// Rows and keys in the chunk.
    weight: usize,
    sent: usize,
    /// Identities of which several nodes may send the same row, with those that are encoded.
    shared: HashMap<IdentityId, HashSet<Box<[u8]>>>,
    /// Of the node at hand, if it has windows: rows by key.
    counts: Vec<u32>,
    since: Option<String>,
}

impl<'j> Scan<'j> {
    fn new(job: &'j Job, hand: &'j mut dyn FnMut(Chunk) -> Result<(), ReadError>) -> Scan<'j> {
        let sending = || job.nodes.iter().zip(&job.plan.nodes).filter(|(_, node)| node.emitted);
        let mut shared = HashMap::new();
        for ((identity, _), _) in sending() {
            if sending().filter(|((other, _), _)| other == identity).count() > 1 {
                shared.insert(*identity, HashSet::new());
            }
        }
        Scan {
            job,
            hand,
            chunk: Chunk::default(),
            parts: job.poke_id.as_deref().map(|poke_id| RowPartWriter::new(job.dialect, poke_id)),
            size: 0,
            weight: 0,
            sent: 0,
            shared,
            counts: Vec::new(),
            since: job.since.map(|version| version.to_lexi()),
        }
    }

    fn hand_over(&mut self) -> Result<(), ReadError> {
        self.close_part();
        (self.size, self.weight) = (0, 0);
        (self.hand)(std::mem::take(&mut self.chunk))
    }

    fn close_part(&mut self) {
        if let Some(part) = self.parts.as_mut().and_then(RowPartWriter::close) {
            self.size += part.bytes();
            self.chunk.parts.push(part);
        }
    }

    /// Whether the row is the first of its identity that is sent.
    fn is_first(&mut self, node: usize, identity: &[u8]) -> bool {
        match self.shared.get_mut(&self.job.nodes[node].0) {
            None => true,
            Some(known) if known.contains(identity) => false,
            Some(known) => known.insert(identity.into()),
        }
    }

    /// Writes the row, or finds out that clients cannot hold it: it is this query that fails
    /// then and not the poke of a group.
    fn encode(&mut self, node: usize, row: &Row<'_>) -> Result<bool, ReadError> {
        let encoder = &self.job.nodes[node].1;
        self.sent += 1;
        if self.sent > MAX_MEMBERS {
            return Err(ReadError::Unsupported(format!(
                "the query's result has more than {MAX_MEMBERS} rows; give it a limit"
            )));
        }
        let Some(parts) = &mut self.parts else {
            encoder.check::<ReadError>(|position, _| Ok(row.get_ref(position)?.into()))?;
            return Ok(false);
        };
        encoder.put::<ReadError>(|position, _| Ok(row.get_ref(position)?.into()), parts.begin_row())?;
        parts.end_row();
        if parts.size() > MAX_ENCODED_SIZE {
            return Err(ReadError::Unsupported(format!(
                "the query's result is larger than {} MiB; give it a limit",
                MAX_ENCODED_SIZE >> 20
            )));
        }
        Ok(true)
    }

    /// Where the row stands, if it is among the last of its window.
    fn position(&mut self, node: &Node, key: usize, row: &Row<'_>) -> Result<Option<Position>, ReadError> {
        let Some(limit) = node.limit.filter(|_| node.kind != Kind::Witness) else { return Ok(None) };
        let count = &mut self.counts[key];
        *count += 1;
        if (*count as u64 - 1) + (TAIL as u64) < limit {
            return Ok(None);
        }
        let value = |column: usize| Ok(Scalar::from(row.get_ref(column)?).to_value());
        let position: Result<Vec<_>, ReadError> =
            node.order.iter().map(|(column, _)| value(node.position(*column))).collect();
        Ok(Some(position?.into()))
    }

    fn is_edited(&self, node: &Node, row: &Row<'_>) -> Result<bool, ReadError> {
        let Some(since) = &self.since else { return Ok(false) };
        let version = row.get_ref(node.columns.len())?;
        // A row without a version is not known to be as it was.
        Ok(version.as_str().map_or(true, |version| version > since.as_str()))
    }
}

impl Collect for Scan<'_> {
    fn keys(&mut self, node: usize, keys: &[ScopeKey]) -> Result<(), ReadError> {
        let plan = &self.job.plan.nodes[node];
        let limited = plan.limit.is_some() && plan.kind != Kind::Witness;
        self.counts = vec![0; if limited { keys.len() } else { 0 }];
        for keys in keys.chunks(CHUNK_ROWS) {
            self.weight += keys.len();
            let bytes = &mut self.chunk.key_bytes;
            let place = |key: &ScopeKey| {
                bytes.extend(&key.bytes);
                (bytes.len() as u32, key.parents)
            };
            let keys = keys.iter().map(place).collect();
            self.chunk.keys.push(FoundKeys { node: node as u16, keys });
            if self.weight >= CHUNK_ROWS {
                self.hand_over()?;
            }
        }
        Ok(())
    }

    fn row(&mut self, node: usize, key: usize, identity: &[u8], row: &Row<'_>) -> Result<(), ReadError> {
        let plan = &self.job.plan.nodes[node];
        let encoded = match plan.emitted && self.is_first(node, identity) {
            true => self.encode(node, row)?,
            false => false,
        };
        self.chunk.bytes.extend(identity);
        let found = FoundRow {
            node: node as u16,
            key: key as u32,
            end: self.chunk.bytes.len() as u32,
            edited: plan.emitted && self.is_edited(plan, row)?,
            encoded,
            position: self.position(plan, key, row)?,
        };
        self.chunk.rows.push(found);
        if self.parts.as_ref().is_some_and(RowPartWriter::is_full) {
            self.close_part();
        }
        self.weight += 1;
        if self.weight >= CHUNK_ROWS || self.size >= CHUNK_SIZE {
            self.hand_over()?;
        }
        Ok(())
    }

    fn witnesses(&self, node: usize, key: &[u8]) -> Vec<Vec<u8>> {
        // A map with pairs cannot be asked without one.
        match self.job.witnesses.is_empty() {
            true => Vec::new(),
            false => self
                .job
                .witnesses
                .get(&(node as u16, key.into()))
                .map_or_else(Vec::new, |all| all.iter().map(|identity| identity.to_vec()).collect()),
        }
    }
}
