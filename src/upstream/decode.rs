//! From pgoutput messages to the writer's work. Sans-IO: it knows the catalogue and the
//! relation messages of one connection, and decides nothing about time.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use super::announcement::is_context_only;
use super::heartbeat;
use super::pgoutput::{Pgoutput, Relation, parse};
use super::published::Published;
use super::relations::Relations;
use super::row_changes;
use super::schema_change::{Difference, Looks, Passed, compare};
use super::shape::Shape;
use super::stop::Stop;
use crate::model::catalogue::{Catalogue, Table};
use crate::model::ids::TableId;
use crate::model::version::StateVersion;
use crate::replica::work::{Op, Operations};

/// What follows the shard's own prefix in the prefix of a marker: a look at upstream was exact where it stands.
pub const MARKER_SUFFIX: &str = "/kelvin-schema";

/// The same of what `update_schemas()` writes: the schema may have changed.
pub const LOOK_SUFFIX: &str = "/kelvin-look";

/// Decodes the stream of one connection.
pub struct Decoder {
    /// What the tables are where the stream is.
    catalogue: Arc<Catalogue>,
    /// Their ids, by what they are upstream.
    tables: HashMap<u32, TableId>,
    relations: Relations,
    message_prefix: String,
    /// Looks at upstream whose markers have not come.
    looks: Rc<RefCell<Looks>>,
    /// The message that cannot be decoded before upstream is looked at.
    waiting: Option<Vec<u8>>,
    /// Relation that the message before described, if it is not in the catalogue.
    described: Option<u32>,
    /// A table and one of its partitions, whose rows came before it was known.
    unknown_partition: Option<(u32, u32)>,
    /// The message that a look is needed for has no other use.
    is_passed_over: bool,
    batch: Operations,
    /// Where in the batch the open transaction begins.
    begin_at: Option<usize>,
    version: Option<StateVersion>,
    /// A logical message of the shard's event triggers came: the schema may have changed.
    schema_hint: bool,
}

impl Decoder {
    /// For a new connection. `message_prefix`: see `Shard::message_prefix`.
    pub fn new(catalogue: Arc<Catalogue>, message_prefix: String, looks: Rc<RefCell<Looks>>) -> Self {
        Decoder {
            tables: catalogue.all().map(|table| (table.oid, table.id)).collect(),
            catalogue,
            relations: Relations::default(),
            message_prefix,
            looks,
            waiting: None,
            described: None,
            unknown_partition: None,
            is_passed_over: false,
            batch: Operations::default(),
            begin_at: None,
            version: None,
            schema_hint: false,
        }
    }

    /// What the tables are where the stream is.
    pub fn catalogue(&self) -> &Arc<Catalogue> {
        &self.catalogue
    }

    /// Whether a transaction has begun and not ended.
    fn in_transaction(&self) -> bool {
        self.version.is_some()
    }

    /// Takes what has been decoded.
    pub fn take(&mut self) -> Operations {
        self.begin_at = None;
        std::mem::take(&mut self.batch)
    }

    /// Whether something was decoded.
    pub fn is_empty(&self) -> bool {
        self.batch.ops.is_empty()
    }

    /// Whether a message hinted at a changed schema since the last call.
    pub fn take_schema_hint(&mut self) -> bool {
        std::mem::take(&mut self.schema_hint)
    }

    /// Upstream has nothing for us below this position. Ignored inside a transaction.
    pub fn seen(&mut self, position: StateVersion) {
        if self.in_transaction() {
            return;
        }
        match self.batch.ops.last_mut() {
            Some(Op::Seen { position: last }) => *last = position.max(*last),
            _ => self.batch.ops.push(Op::Seen { position }),
        }
    }

    /// Decodes one message of the plugin.
    pub fn message(&mut self, payload: &[u8]) -> Result<(), Stop> {
        let decoded = self.decode(payload);
        let is_passed_over = std::mem::take(&mut self.is_passed_over);
        if let Err(Stop::Look(_)) = decoded
            && !is_passed_over
        {
            self.waiting = Some(payload.to_vec());
        }
        decoded
    }

    /// Goes on after a look at upstream, which is the newest one.
    pub fn go_on(&mut self) -> Result<(), Stop> {
        let published = self.looks.borrow().newest().cloned();
        published.iter().try_for_each(|published| self.follow(published))?;
        self.relations.ignore_unknown();
        if let Some((root, partition)) = self.unknown_partition.take() {
            let is_gone = |table: &Table| !table.partitions.contains_key(&partition);
            if self.table(root).is_some_and(is_gone) {
                // It has come and gone between two looks: nobody says what became of its rows.
                let reason = "a partition came and went".to_owned();
                self.looks.borrow_mut().unexplained.insert(root, reason);
                published.iter().try_for_each(|published| self.follow(published))?;
            }
        }
        match self.waiting.take() {
            Some(payload) => self.message(&payload),
            None => Ok(()),
        }
    }

    /// The tables are as they were seen, if that is not what they are here already.
    fn follow(&mut self, published: &Published) -> Result<(), Stop> {
        let difference = compare(&self.catalogue, published, &self.looks.borrow());
        match difference {
            Difference::None => Ok(()),
            Difference::Rows(reason) => Err(Stop::SchemaChanged(reason)),
            Difference::Schema(catalogue) => {
                self.looks.borrow_mut().unexplained.clear();
                self.catalogue = Arc::new(catalogue);
                self.tables = self.catalogue.all().map(|table| (table.oid, table.id)).collect();
                let find = |oid: u32| self.tables.get(&oid).and_then(|id| self.catalogue.find_any(*id));
                self.relations.bring(find);
                let come = self.relations.come(|oid| self.tables.contains_key(&oid));
                self.push(Op::Schema { catalogue: self.catalogue.clone() })?;
                come.iter().try_for_each(|said| self.decode(said))
            }
        }
    }

    fn decode(&mut self, payload: &[u8]) -> Result<(), Stop> {
        let described = self.described.take();
        match parse(payload)? {
            Pgoutput::Begin { commit_lsn } => self.begin(StateVersion(commit_lsn)),
            Pgoutput::Commit { commit_lsn } => self.commit(StateVersion(commit_lsn)),
            Pgoutput::Relation(relation) => self.relation(&relation, payload),
            Pgoutput::Insert { oid, new } => {
                self.explain(described, oid)?;
                let Some(shape) = self.relations.shape(oid)? else { return Ok(()) };
                match row_changes::insert(self.table_of(shape)?, shape, &new)? {
                    Some(op) => self.push(op),
                    None => self.copy_anew(oid),
                }
            }
            Pgoutput::Update { oid, old, new } => {
                self.explain(described, oid)?;
                let Some(shape) = self.relations.shape(oid)? else { return Ok(()) };
                self.push(row_changes::update(self.table_of(shape)?, shape, old.as_ref(), &new)?)
            }
            Pgoutput::Delete { oid, old } => {
                self.explain(described, oid)?;
                let Some(shape) = self.relations.shape(oid)? else { return Ok(()) };
                self.push(row_changes::delete(self.table_of(shape)?, shape, &old)?)
            }
            Pgoutput::Truncate { oids } => {
                let mut tables = Vec::with_capacity(oids.len());
                for oid in oids {
                    tables.extend(self.relations.shape(oid)?.map(|shape| shape.table));
                }
                self.push(Op::Truncate { tables })
            }
            Pgoutput::Message { transactional, position, prefix, content } => {
                let ours = prefix.strip_prefix(self.message_prefix.as_str());
                self.schema_hint |=
                    matches!(ours, Some("" | "/ddl" | LOOK_SUFFIX)) && !is_context_only(content);
                if ours == Some(MARKER_SUFFIX) && transactional {
                    let passed = self.looks.borrow_mut().pass(&String::from_utf8_lossy(content));
                    return match passed {
                        Passed::Seen(published) => self.follow(&published),
                        Passed::Early => Err(Stop::Look("the schema is being looked at".into())),
                        Passed::Old => Ok(()),
                    };
                }
                // Whatever was committed before it has been sent before it.
                if ours == Some(heartbeat::SUFFIX) && !transactional {
                    self.seen(StateVersion(position));
                }
                Ok(())
            }
            Pgoutput::Other => Ok(()),
        }
    }

    fn begin(&mut self, version: StateVersion) -> Result<(), Stop> {
        if self.in_transaction() {
            return Err(Stop::Protocol("a transaction within a transaction".into()));
        }
        self.version = Some(version);
        self.begin_at = Some(self.batch.ops.len());
        self.push(Op::Begin { version, whole: false })
    }

    fn commit(&mut self, version: StateVersion) -> Result<(), Stop> {
        if self.version.take() != Some(version) {
            return Err(Stop::Protocol("a commit that is not of the transaction that began".into()));
        }
        let begin = self.begin_at.take().and_then(|at| self.batch.ops.get_mut(at));
        if let Some(Op::Begin { whole, .. }) = begin {
            *whole = true;
        }
        self.batch.ops.push(Op::Commit);
        Ok(())
    }

    fn push(&mut self, op: Op) -> Result<(), Stop> {
        if !self.in_transaction() {
            return Err(Stop::Protocol("a change outside of a transaction".into()));
        }
        self.batch.ops.push(op);
        Ok(())
    }

    fn relation(&mut self, relation: &Relation<'_>, said: &[u8]) -> Result<(), Stop> {
        self.relations.forget(relation.oid);
        let Some(table) = self.table(relation.oid) else {
            self.relations.not_ours(relation.oid, said);
            self.described = Some(relation.oid);
            return Ok(());
        };
        let reason = match Shape::exact(table, relation) {
            Ok(shape) => {
                self.relations.know(relation.oid, shape, said);
                return Ok(());
            }
            Err(reason) => reason,
        };
        let newest = self.looks.borrow().newest().cloned();
        let Some(published) = newest else { return Err(Stop::Look(reason)) };
        // What was followed before may have been undone with a connection that was lost.
        self.follow(&published)?;
        let Some(table) = self.table(relation.oid) else {
            self.relations.not_ours(relation.oid, said);
            return Ok(());
        };
        match Shape::exact(table, relation).or_else(|_| Shape::former(table, relation)) {
            Ok(shape) => {
                self.relations.know(relation.oid, shape, said);
                Ok(())
            }
            // Whatever has such rows is older than the snapshot that the table is filled from: each change of its columns
            // begins that anew.
            Err(_) if self.catalogue.is_filling(table.id) => {
                self.relations.ignore(relation.oid, said);
                Ok(())
            }
            // Nobody says which of its columns are which: all rows are read again, in a snapshot that is newer than these.
            Err(reason) => {
                self.looks.borrow_mut().unexplained.insert(relation.oid, reason);
                self.follow(&published)?;
                self.relations.ignore(relation.oid, said);
                Ok(())
            }
        }
    }

    /// A row has come into the publication by its filter, without those large values that did not change. Nobody else says what
    /// they are.
    fn copy_anew(&mut self, oid: u32) -> Result<(), Stop> {
        let reason = "a row that its filter lets through now came without its large values (REPLICA IDENTITY FULL would bring them)";
        let newest = self.looks.borrow().newest().cloned();
        self.looks.borrow_mut().unexplained.insert(oid, reason.to_owned());
        match newest {
            Some(published) => self.follow(&published),
            None => {
                self.is_passed_over = true;
                Err(Stop::Look(reason.to_owned()))
            }
        }
    }

    /// A relation that is described, and then a change of another one, is a partition of that.
    fn explain(&mut self, described: Option<u32>, changed: u32) -> Result<(), Stop> {
        let Some((partition, table)) = described.zip(self.table(changed)) else { return Ok(()) };
        if partition == changed || table.partitions.contains_key(&partition) {
            return Ok(());
        }
        let reason = format!("table {} has a partition that is not known", table.name);
        self.unknown_partition = Some((changed, partition));
        Err(Stop::Look(reason))
    }

    fn table(&self, oid: u32) -> Option<&Table> {
        self.tables.get(&oid).and_then(|id| self.catalogue.find_any(*id))
    }

    /// The table of a relation that is known.
    fn table_of(&self, shape: &Shape) -> Result<&Table, Stop> {
        let table = self.catalogue.find_any(shape.table);
        table.ok_or_else(|| Stop::Protocol("a change of a table that is gone".into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::catalogue::{Column, ZeroType};

    fn table() -> Table {
        let column = |name: &str, type_oid, attnum| Column {
            name: name.into(),
            upstream_type: "text".into(),
            type_oid,
            attnum,
            zero_type: Some(ZeroType::String),
            not_null: false,
            ..Column::default()
        };
        Table {
            id: TableId(0),
            name: "t".into(),
            schema: "public".into(),
            upstream_name: "t".into(),
            oid: 7,
            columns: vec![column("id", 25, 1), column("n", 23, 2)],
            row_key: vec![0],
            candidate_keys: vec![vec![0]],
            indexes: vec![],
            ..Table::default()
        }
    }

    #[test]
    fn changes_outside_of_transactions_are_refused() {
        let mut decoder =
            Decoder::new(Arc::new(Catalogue::new(1, vec![table()])), "zero/0".into(), Rc::default());
        let truncate = b"T\0\0\0\x01\0\0\0\0\x07";
        assert!(matches!(decoder.message(truncate), Err(Stop::Protocol(_))), "unknown relation");
        let shape = Shape { table: TableId(0), columns: Box::from([]), lacking: Box::from([]) };
        decoder.relations.know(7, shape, &[]);
        assert!(matches!(decoder.message(truncate), Err(Stop::Protocol(_))), "no transaction");
        decoder.seen(StateVersion(5));
        decoder.seen(StateVersion(9));
        assert_eq!(decoder.take().ops, [Op::Seen { position: StateVersion(9) }]);
    }
}
