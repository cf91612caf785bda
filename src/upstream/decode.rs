//! From pgoutput messages to the writer's work. Sans-IO: it knows the catalogue and the
//! relation messages of one connection, and decides nothing about time.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;

use super::announcement::is_context_only;
use super::heartbeat;
use super::pgoutput::{Field, Invalid, Old, Pgoutput, Relation, Tuple, parse};
use super::published::Published;
use super::schema_change::{Difference, Looks, Passed, compare};
use super::shape::Shape;
use super::types::{Malformed, convert};
use crate::model::catalogue::{Catalogue, Table};
use crate::model::commit::{Row, RowKey};
use crate::model::ids::TableId;
use crate::model::value::Value;
use crate::model::version::StateVersion;
use crate::replica::work::{Absent, Before, Op, Operations};

/// What follows the shard's own prefix in the prefix of a marker: a look at upstream was exact where it stands.
pub const MARKER_SUFFIX: &str = "/kelvin-schema";

/// The same of what `update_schemas()` writes: the schema may have changed.
pub const LOOK_SUFFIX: &str = "/kelvin-look";

/// Why a stream cannot be decoded any further. What came before is in the batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// The schema is not the catalogue's any more, for this reason: upstream has to be looked at, and what was seen be
    /// given to [`Decoder::go_on`].
    Look(String),
    /// The schema has become what the replica cannot follow.
    SchemaChanged(String),
    /// The server, or we, broke the protocol.
    Protocol(String),
    /// A value that its type does not allow.
    Value {
        /// `table.column`.
        column: String,
        /// What was expected and what came.
        source: Malformed,
    },
}

impl From<Invalid> for Stop {
    fn from(e: Invalid) -> Self {
        Stop::Protocol(e.to_string())
    }
}

/// Decodes the stream of one connection.
pub struct Decoder {
    /// What the tables are where the stream is.
    catalogue: Arc<Catalogue>,
    /// Their ids, by what they are upstream.
    tables: HashMap<u32, TableId>,
    /// Relations that this connection has described.
    known: HashMap<u32, Shape>,
    /// What it has said of relations that are not in the catalogue.
    unknown: HashMap<u32, Vec<u8>>,
    /// Those of which a look has shown that their rows are not wanted.
    ignored: HashSet<u32>,
    message_prefix: String,
    /// Looks at upstream whose markers have not come.
    looks: Rc<RefCell<Looks>>,
    /// The message that cannot be decoded before upstream is looked at.
    waiting: Option<Vec<u8>>,
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
            known: HashMap::new(),
            unknown: HashMap::new(),
            ignored: HashSet::new(),
            message_prefix,
            looks,
            waiting: None,
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
        if let Err(Stop::Look(_)) = decoded {
            self.waiting = Some(payload.to_vec());
        }
        decoded
    }

    /// Goes on after a look at upstream, which is the newest one.
    pub fn go_on(&mut self) -> Result<(), Stop> {
        let published = self.looks.borrow().newest().cloned();
        published.iter().try_for_each(|published| self.follow(published))?;
        self.ignored.extend(self.unknown.keys());
        match self.waiting.take() {
            Some(payload) => self.message(&payload),
            None => Ok(()),
        }
    }

    /// The tables are as they were seen, if that is not what they are here already.
    fn follow(&mut self, published: &Published) -> Result<(), Stop> {
        let difference = compare(&self.catalogue, published, &self.looks.borrow().filled);
        match difference {
            Difference::None => Ok(()),
            Difference::Rows(reason) => Err(Stop::SchemaChanged(reason)),
            Difference::Schema(catalogue) => {
                self.catalogue = Arc::new(catalogue);
                self.tables = self.catalogue.all().map(|table| (table.oid, table.id)).collect();
                for (oid, mut shape) in std::mem::take(&mut self.known) {
                    if let Some(table) = self.catalogue.find_any(shape.table) {
                        shape.bring_to(table);
                        self.known.insert(oid, shape);
                    }
                }
                let is_ours =
                    |oid: &u32, _: &mut Vec<u8>| self.tables.contains_key(oid) && !self.ignored.contains(oid);
                let come: Vec<Vec<u8>> = self.unknown.extract_if(is_ours).map(|(_, said)| said).collect();
                self.push(Op::Schema { catalogue: self.catalogue.clone() })?;
                come.iter().try_for_each(|said| self.decode(said))
            }
        }
    }

    fn decode(&mut self, payload: &[u8]) -> Result<(), Stop> {
        match parse(payload)? {
            Pgoutput::Begin { commit_lsn } => self.begin(StateVersion(commit_lsn)),
            Pgoutput::Commit { commit_lsn } => self.commit(StateVersion(commit_lsn)),
            Pgoutput::Relation(relation) => self.relation(&relation, payload),
            Pgoutput::Insert { oid, new } => {
                let Some(shape) = self.shape(oid)? else { return Ok(()) };
                let row = self.row(shape, &new, None)?;
                self.push(Op::Insert { table: row.table, row: row.values })
            }
            Pgoutput::Update { oid, old, new } => self.update(oid, old, &new),
            Pgoutput::Delete { oid, old } => {
                let Some(shape) = self.shape(oid)? else { return Ok(()) };
                let (table, before) = self.before(shape, &old)?;
                self.push(Op::Delete { table, before })
            }
            Pgoutput::Truncate { oids } => {
                let mut tables = Vec::with_capacity(oids.len());
                for oid in oids {
                    tables.extend(self.shape(oid)?.map(|shape| shape.table));
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
        self.known.remove(&relation.oid);
        let Some(table) = self.table(relation.oid) else { return self.not_ours(relation.oid, said) };
        let reason = match Shape::exact(table, relation) {
            Ok(shape) => return self.know(relation, shape),
            Err(reason) => reason,
        };
        let newest = self.looks.borrow().newest().cloned();
        let Some(published) = newest else { return Err(Stop::Look(reason)) };
        // What was followed before may have been undone with a connection that was lost.
        self.follow(&published)?;
        let Some(table) = self.table(relation.oid) else { return self.not_ours(relation.oid, said) };
        match Shape::exact(table, relation).or_else(|_| Shape::former(table, relation)) {
            Ok(shape) => self.know(relation, shape),
            // Whatever has such rows is older than the snapshot that the table is filled from: each change of its columns
            // begins that anew.
            Err(_) if self.catalogue.is_filling(table.id) => {
                self.not_ours(relation.oid, said)?;
                self.ignored.insert(relation.oid);
                Ok(())
            }
            Err(reason) => Err(Stop::SchemaChanged(reason)),
        }
    }

    fn table(&self, oid: u32) -> Option<&Table> {
        self.tables.get(&oid).and_then(|id| self.catalogue.find_any(*id))
    }

    /// The table of a relation that is known.
    fn table_of(&self, shape: &Shape) -> Result<&Table, Stop> {
        let table = self.catalogue.find_any(shape.table);
        table.ok_or_else(|| Stop::Protocol("a change of a table that is gone".into()))
    }

    fn know(&mut self, relation: &Relation<'_>, shape: Shape) -> Result<(), Stop> {
        self.known.insert(relation.oid, shape);
        Ok(())
    }

    /// Partitions are described too, beside the root that their changes are sent as. So only a change tells that a
    /// relation is published by itself.
    fn not_ours(&mut self, oid: u32, said: &[u8]) -> Result<(), Stop> {
        self.unknown.insert(oid, said.to_vec());
        self.ignored.remove(&oid);
        Ok(())
    }

    /// How rows of a relation are to be taken. `None`: they are not wanted.
    fn shape(&self, oid: u32) -> Result<Option<&Shape>, Stop> {
        if let Some(shape) = self.known.get(&oid) {
            return Ok(Some(shape));
        }
        match self.unknown.get(&oid) {
            Some(_) if self.ignored.contains(&oid) => Ok(None),
            Some(said) => Err(Stop::Look(match parse(said) {
                Ok(Pgoutput::Relation(of)) => format!("table {}.{} is published", of.schema, of.name),
                _ => format!("relation {oid} is published"),
            })),
            None => Err(Stop::Protocol(format!("a change of unknown relation {oid}"))),
        }
    }

    fn update(&mut self, oid: u32, old: Option<Old<'_>>, new: &Tuple<'_>) -> Result<(), Stop> {
        let Some(shape) = self.shape(oid)? else { return Ok(()) };
        let old_tuple = old.as_ref().map(|(Old::Key(tuple) | Old::Full(tuple))| tuple);
        let mut row = self.row(shape, new, old_tuple)?;
        let before = match old.as_ref().zip(old_tuple) {
            None => Before::SameKey,
            Some((old, old_tuple)) => {
                self.fill(shape, old_tuple, matches!(old, Old::Full(_)), &mut row)?;
                self.before(shape, old)?.1
            }
        };
        row.absent.extend_from_slice(&shape.lacking);
        let Converted { table, values, absent } = row;
        self.push(Op::Update { table, before, row: values, absent })
    }

    /// Takes values that the new row does not carry from the old one: all of them if it
    /// was sent in full, those of the key otherwise.
    fn fill(&self, shape: &Shape, old: &Tuple<'_>, full: bool, row: &mut Converted) -> Result<(), Stop> {
        if row.absent.is_empty() {
            return Ok(());
        }
        let before = self.row(shape, old, None)?;
        let key = &self.table_of(shape)?.row_key;
        let values = &mut row.values;
        row.absent.retain(|column| {
            let known = full || key.contains(column);
            if known {
                values[*column as usize] = before.values[*column as usize].clone();
            }
            !known
        });
        Ok(())
    }

    /// How to find the row that changed.
    fn before(&self, shape: &Shape, old: &Old<'_>) -> Result<(TableId, Before), Stop> {
        let (Old::Key(tuple) | Old::Full(tuple)) = old;
        let row = self.row(shape, tuple, None)?;
        let table = self.table_of(shape)?;
        if table.row_key.is_empty() {
            return match old {
                Old::Full(_) => Ok((row.table, Before::Whole(row.values))),
                Old::Key(_) => Err(Stop::Protocol(format!("a key for table {}, which has none", table.name))),
            };
        }
        let key: RowKey = table.row_key.iter().map(|c| row.values[*c as usize].clone()).collect();
        Ok((row.table, Before::Key(key)))
    }

    /// `old`: has the values of the key that did not change and were not sent.
    fn row(&self, shape: &Shape, tuple: &Tuple<'_>, old: Option<&Tuple<'_>>) -> Result<Converted, Stop> {
        let table = self.table_of(shape)?;
        if shape.columns.len() != tuple.len() {
            return Err(Stop::Protocol(format!("a row of {} with {} columns", table.name, tuple.len())));
        }
        let mut absent = Absent::new();
        let mut values = vec![Value::Null; table.columns.len()];
        for (field, place) in tuple.iter().zip(&shape.columns) {
            let Some((at, kind)) = place else { continue };
            match field {
                Field::Null => {}
                Field::Unchanged => absent.push(*at),
                Field::Text(text) => {
                    let value = convert(*kind, Cow::Borrowed(text)).map_err(|source| Stop::Value {
                        column: format!("{}.{}", table.name, table.columns[usize::from(*at)].name),
                        source,
                    })?;
                    values[usize::from(*at)] = value.into_value();
                }
            }
        }
        if let Some(at) = table.exact_key() {
            values[usize::from(at)] = Value::Text(shape.exact_key(table, tuple, old).into());
        }
        for at in &shape.lacking {
            values[usize::from(*at)] = table.columns[usize::from(*at)].missing.clone();
        }
        Ok(Converted { table: table.id, values: values.into_boxed_slice(), absent })
    }
}

struct Converted {
    table: TableId,
    values: Row,
    absent: Absent,
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
        decoder.known.insert(7, Shape { table: TableId(0), columns: Box::from([]), lacking: Box::from([]) });
        assert!(matches!(decoder.message(truncate), Err(Stop::Protocol(_))), "no transaction");
        decoder.seen(StateVersion(5));
        decoder.seen(StateVersion(9));
        assert_eq!(decoder.take().ops, [Op::Seen { position: StateVersion(9) }]);
    }
}
