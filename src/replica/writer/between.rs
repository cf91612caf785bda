//! What the writer does between upstream's transactions: indexes that queries ask for, tables that are filled, and tables that
//! are gone.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kelvin_io::channel::Receiver;

use super::{Output, Session};
use crate::replica::error::{Doing, Error};
use crate::replica::live_indexes::{self, IndexRequest};
use crate::replica::work::Work;
use crate::replica::{metadata, refilling, schema_change};

/// Most indexes that may wait to be created; further requests are forgotten. Views that have none
/// are slow, not wrong, and the next view of the kind asks again.
const MAX_INDEX_REQUESTS: usize = 64;

/// How long a request waits for a moment in which nothing else is to be done. After that it is
/// fulfilled between two transactions: a writer that is always busy is when it is needed most.
const WISH_WAITS: Duration = Duration::from_secs(10);

impl Session<'_> {
    /// Remembers that an index was asked for.
    pub(super) fn note(&mut self, index_request: IndexRequest) {
        let is_known = self.index_requests.iter().any(|(other, _)| *other == index_request);
        if self.index_requests.len() < MAX_INDEX_REQUESTS && !is_known {
            self.index_requests.push_back((index_request, Instant::now()));
        }
    }

    /// Creates indexes that were asked for, if this is the moment.
    pub(super) fn fulfil(&mut self, queue: &Receiver<Work>) -> Result<(), Error> {
        while let Some((index_request, since)) = self.index_requests.front() {
            let patient = !queue.is_empty() && since.elapsed() < WISH_WAITS;
            if patient || self.current.is_some() {
                return Ok(());
            }
            let index_request = index_request.clone();
            self.index_requests.pop_front();
            self.create_index(&index_request)?;
        }
        Ok(())
    }

    fn create_index(&mut self, index_request: &IndexRequest) -> Result<(), Error> {
        self.finish()?;
        self.open()?;
        let created = live_indexes::create(self.connection, &self.catalogue, index_request)?;
        self.commit.raw_execute().doing("committing an index")?;
        self.closed();
        if let Some(catalogue) = created {
            self.catalogue = Arc::new(catalogue);
            let _ = self.output.send_blocking(Output::Indexed(self.catalogue.clone()));
        }
        Ok(())
    }

    /// Goes on with tables that are being filled: one step, and more for as long as nothing else is to be done.
    pub(super) fn fill(&mut self, queue: &Receiver<Work>) -> Result<(), Error> {
        while self.current.is_none() && self.fillings.has_work() {
            self.finish()?;
            self.open()?;
            self.fillings.step(&self.upstream)?;
            self.commit.raw_execute().doing("filling a table")?;
            self.closed();
            if !queue.is_empty() {
                break;
            }
        }
        Ok(())
    }

    /// Removes tables that upstream has dropped, for as long as nothing else is to be done.
    pub(super) fn drop_tables(&mut self, queue: &Receiver<Work>) -> Result<(), Error> {
        while queue.is_empty()
            && self.current.is_none()
            && let Some(name) = self.catalogue.dropped().first().cloned()
        {
            self.finish()?;
            self.open()?;
            self.applier.forget_statements();
            if schema_change::drop_some(self.connection, &name)? {
                for catalogue in [&mut self.upstream, &mut self.catalogue] {
                    Arc::make_mut(catalogue).forget_dropped(&name);
                }
                metadata::set_catalogue(self.connection, &self.upstream)?;
            }
            self.commit.raw_execute().doing("removing a table")?;
            self.closed();
        }
        Ok(())
    }

    /// Writes versions of rows that were copied, for as long as nothing else is to be done.
    pub(super) fn set_versions(&mut self, queue: &Receiver<Work>) -> Result<(), Error> {
        while self.lacks_versions && queue.is_empty() && self.current.is_none() {
            self.finish()?;
            self.open()?;
            self.lacks_versions = refilling::set_some_versions(self.connection, &self.upstream)?;
            self.commit.raw_execute().doing("writing versions")?;
            self.closed();
        }
        Ok(())
    }
}
