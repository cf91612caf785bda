//! Contents of rows at the core's version, as patch fragments.
//!
//! Kept until the snapshot moves: everybody who is sent a row at one version is sent the same
//! bytes. Of a row that the batch changed they are what its commits say; others are read by key
//! on the live snapshot when somebody needs them. So telling of a change reads nothing, whether
//! the replica's pages are in memory or not.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use super::changed::Changed;
use super::entries::IdentityId;
use super::journal::Delta;
use super::registry::Views;
use super::rows::{RowId, RowMap, Rows};
use crate::model::catalogue::{Catalogue, quote};
use crate::model::key;
use crate::protocol::row_patch::{Encoder, UnsafeInteger};
use crate::replica::reader::{ReadError, Reader};
use crate::testing::faults::{self, Fault};
use crate::zql::evaluate::parameters;

/// Most bytes of fragments kept for one version. Beyond it rows are read again.
const MAX_CACHED: usize = 32 << 20;

/// Reads rows by key.
pub struct Contents {
    reader: Rc<Reader>,
    catalogue: Arc<Catalogue>,
    rows: Rc<RefCell<Rows>>,
    lookups: HashMap<IdentityId, (Rc<str>, Arc<Encoder>)>,
    cache: RowMap<Rc<[u8]>>,
    cached: usize,
    /// Of rows that the batch under way changed, for the version that it ends with.
    coming: RowMap<Rc<[u8]>>,
    coming_size: usize,
}

impl Contents {
    /// Over the live reader of a core.
    pub fn new(reader: Rc<Reader>, catalogue: Arc<Catalogue>, rows: Rc<RefCell<Rows>>) -> Contents {
        Contents {
            reader,
            catalogue,
            rows,
            lookups: HashMap::new(),
            cache: RowMap::default(),
            cached: 0,
            coming: RowMap::default(),
            coming_size: 0,
        }
    }

    /// The tables are these from now on, and the snapshot is one of theirs.
    pub fn follow_schema(&mut self, catalogue: &Arc<Catalogue>) {
        self.give_up_coming();
        self.catalogue = catalogue.clone();
        self.lookups.clear();
    }

    /// Keeps the rows that came or changed with a batch, as its commits have them: somebody is
    /// about to be told. They count from [`Contents::arrived`] on.
    pub fn expect(&mut self, delta: &Delta, changed: &Changed<'_>, views: &mut Views) {
        for id in delta.entered.iter().chain(&delta.edited) {
            if self.coming_size >= MAX_CACHED || self.coming.contains_key(id) {
                continue;
            }
            let identity = self.rows.borrow().identity_of(*id);
            let changed = changed.of(identity);
            let at = changed.find(self.rows.borrow().key_of(*id));
            let Some(row) = at.and_then(|at| changed.get(at).new) else { continue };
            let (_, encoder) = self.lookup(identity, views);
            let mut out = Vec::with_capacity(512);
            // What clients cannot hold fails again for whoever reads it, and is told there.
            if encoder.put::<ReadError>(|_, column| Ok((&row[column as usize]).into()), &mut out).is_ok() {
                self.coming_size += out.len();
                self.rows.borrow_mut().acquire(*id);
                self.coming.insert(*id, out.into());
            }
        }
    }

    /// The batch takes effect: the snapshot is the one that it ends with.
    pub fn arrived(&mut self) {
        self.cached += std::mem::take(&mut self.coming_size);
        for (id, fragment) in self.coming.drain() {
            if self.cache.insert(id, fragment).is_some() {
                self.rows.borrow_mut().release(id);
            }
        }
    }

    /// The batch does not take effect.
    pub fn give_up_coming(&mut self) {
        let mut rows = self.rows.borrow_mut();
        self.coming.drain().for_each(|(id, _)| rows.release(id));
        self.coming_size = 0;
    }

    /// Forgets fragments: the snapshot has moved.
    pub fn moved(&mut self) {
        let mut rows = self.rows.borrow_mut();
        self.cache.drain().for_each(|(id, _)| rows.release(id));
        self.cached = 0;
    }

    /// The put of a row. `None`: there is no such row at this version.
    pub fn put(&mut self, id: RowId, views: &mut Views) -> Result<Option<Rc<[u8]>>, ReadError> {
        if let Some(found) = self.cache.get(&id).cloned() {
            debug_assert!(
                self.is_what_is_read(id, &found, views),
                "a commit says otherwise than the replica"
            );
            return Ok(Some(found));
        }
        let mut out = Vec::with_capacity(512);
        if !self.read(id, views, &mut out)? {
            return Ok(None);
        }
        let fragment: Rc<[u8]> = out.into();
        if self.cached + fragment.len() <= MAX_CACHED {
            self.cached += fragment.len();
            // A number that is free is given to another row, which must not find this one's.
            self.rows.borrow_mut().acquire(id);
            self.cache.insert(id, fragment.clone());
        }
        Ok(Some(fragment))
    }

    /// The deletion of a row.
    pub fn del(&mut self, id: RowId, views: &mut Views) -> Rc<[u8]> {
        let identity = self.rows.borrow().identity_of(id);
        let (_, encoder) = self.lookup(identity, views);
        let mut out = Vec::with_capacity(128);
        encoder.del(self.rows.borrow().key_of(id), &mut out);
        out.into()
    }

    fn read(&mut self, id: RowId, views: &mut Views, out: &mut Vec<u8>) -> Result<bool, ReadError> {
        let identity = self.rows.borrow().identity_of(id);
        let (sql, encoder) = self.lookup(identity, views);
        let key = key::values(self.rows.borrow().key_of(id));
        let mut statement = self.reader.prepare(&sql)?;
        let mut found = statement.query(parameters(&key, &[]))?;
        let Some(row) = found.next()? else { return Ok(false) };
        encoder.put::<ReadError>(|position, _| Ok(row.get_ref(position)?.into()), out)?;
        Ok(true)
    }

    /// Whether the replica says the same; nothing can be said if it cannot be read.
    fn is_what_is_read(&mut self, id: RowId, fragment: &[u8], views: &mut Views) -> bool {
        if faults::is_on(Fault::Identity) {
            return true;
        }
        let mut out = Vec::new();
        self.read(id, views, &mut out).map_or(true, |found| found && *out == *fragment)
    }

    fn lookup(&mut self, identity: IdentityId, views: &mut Views) -> (Rc<str>, Arc<Encoder>) {
        if let Some(found) = self.lookups.get(&identity) {
            return found.clone();
        }
        let encoder = views.encoder(identity, &self.catalogue);
        let rows = self.rows.borrow();
        let described = rows.describe(identity);
        let table = self.catalogue.get(described.table);
        let columns: Vec<String> = table.visible_columns().map(|(_, c)| quote(&c.stored_name)).collect();
        let key: Vec<String> = described
            .key
            .iter()
            .map(|c| format!("{}=?", quote(&table.columns[*c as usize].stored_name)))
            .collect();
        let sql = format!(
            "SELECT {} FROM {} WHERE {}",
            columns.join(","),
            quote(&table.stored_name),
            key.join(" AND ")
        );
        let entry = (Rc::<str>::from(sql), encoder);
        self.lookups.insert(identity, entry.clone());
        entry
    }
}

impl From<UnsafeInteger> for ReadError {
    fn from(error: UnsafeInteger) -> Self {
        ReadError::Unsupported(error.0)
    }
}
