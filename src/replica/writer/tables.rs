//! What the writer does when tables have changed, and with changes of those that are being filled
//! (`docs/spec/schema-changes.md` S3, S9, S21).

use std::sync::Arc;

use super::Session;
use crate::model::catalogue::Catalogue;
use crate::model::ids::TableId;
use crate::replica::error::Error;
use crate::replica::work::Op;
use crate::replica::{filling, live_indexes, refilling, schema_change};

impl Session<'_> {
    /// A change of a table that is being filled, and of the one that is shown until then.
    pub(super) fn put_aside(&mut self, table: TableId, op: Op) -> Result<(), Error> {
        self.applier.rows += 1;
        let version = self.current.unwrap_or(self.complete);
        let gone = Error::Misfit("a change of a table that is not there");
        let copy = self.catalogue.find_any(table).ok_or(gone)?;
        self.fillings.put_aside(copy, version, &op)?;
        let shown = self.catalogue.changing_like(copy);
        match shown.and_then(|shown| refilling::narrowed(&op, shown)) {
            Some(op) => self.applier.apply(op),
            None => Ok(()),
        }
    }

    /// Brings the file to what the tables are from here on. It is undone with the transaction.
    pub(super) fn follow(&mut self, upstream: Arc<Catalogue>) -> Result<(), Error> {
        self.applier.forget_statements();
        self.fillings.follow(&self.upstream, &upstream)?;
        schema_change::apply(self.connection, &self.upstream, &upstream)?;
        self.show_changed(&upstream)?;
        filling::forget_others(self.connection, &upstream)?;
        let catalogue = Arc::new(live_indexes::find(self.connection, &upstream)?);
        self.applier.follow(catalogue.clone());
        let was = (
            std::mem::replace(&mut self.upstream, upstream),
            std::mem::replace(&mut self.catalogue, catalogue),
        );
        self.before.get_or_insert(was);
        Ok(())
    }

    /// Whoever reads tables has to read those anew whose rows are others now, or are found by other keys.
    fn show_changed(&mut self, upstream: &Catalogue) -> Result<(), Error> {
        for table in upstream.tables() {
            let Some(was) = self.upstream.find(table.id) else { continue };
            if upstream.taken_over(&self.upstream, table).is_some() {
                refilling::shown_at(self.connection, table, self.current.unwrap_or(self.complete))?;
                self.applier.net.bulk(table.id);
                self.lacks_versions = true;
            } else if was.row_key != table.row_key {
                self.applier.net.bulk(table.id);
            }
        }
        Ok(())
    }
}
