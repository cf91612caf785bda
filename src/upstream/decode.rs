//! From pgoutput messages to the writer's work. Sans-IO: it knows the catalogue and the
//! relation messages of one connection, and decides nothing about time.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use super::heartbeat;
use super::pgoutput::{Field, Invalid, Old, Pgoutput, Relation, Tuple, parse};
use super::types::{Kind, Malformed, convert};
use crate::model::catalogue::{Catalogue, Table};
use crate::model::commit::{Row, RowKey};
use crate::model::ids::TableId;
use crate::model::value::Value;
use crate::model::version::StateVersion;
use crate::replica::work::{Absent, Before, Op, Operations};

/// Why a stream cannot be decoded any further. What came before is in the batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// The schema is not the catalogue's any more.
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
    catalogue: Arc<Catalogue>,
    kinds: HashMap<u32, (TableId, Arc<[Kind]>)>,
    /// Relations that this connection has described, and that are as the catalogue says.
    known: HashMap<u32, TableId>,
    /// Names of relations that it has described and that are not in the catalogue.
    unknown: HashMap<u32, String>,
    message_prefix: String,
    batch: Operations,
    /// Where in the batch the open transaction begins.
    begin_at: Option<usize>,
    version: Option<StateVersion>,
    /// A logical message of the shard's event triggers came: the schema may have changed.
    schema_hint: bool,
}

impl Decoder {
    /// For a new connection. `message_prefix`: see `Shard::message_prefix`.
    pub fn new(catalogue: Arc<Catalogue>, message_prefix: String) -> Self {
        let kinds = catalogue
            .tables()
            .map(|t| {
                let kinds = t.columns.iter().map(|c| Kind::of(c.type_oid, &c.upstream_type)).collect();
                (t.oid, (t.id, kinds))
            })
            .collect();
        Decoder {
            catalogue,
            kinds,
            known: HashMap::new(),
            unknown: HashMap::new(),
            message_prefix,
            batch: Operations::default(),
            begin_at: None,
            version: None,
            schema_hint: false,
        }
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
        match parse(payload)? {
            Pgoutput::Begin { commit_lsn } => self.begin(StateVersion(commit_lsn)),
            Pgoutput::Commit { commit_lsn } => self.commit(StateVersion(commit_lsn)),
            Pgoutput::Relation(relation) => self.relation(&relation),
            Pgoutput::Insert { oid, new } => {
                let row = self.row(oid, &new)?;
                self.push(Op::Insert { table: row.table, row: row.values })
            }
            Pgoutput::Update { oid, old, new } => self.update(oid, old, &new),
            Pgoutput::Delete { oid, old } => {
                let (table, before) = self.before(oid, &old)?;
                self.push(Op::Delete { table, before })
            }
            Pgoutput::Truncate { oids } => {
                let tables: Result<Vec<TableId>, Stop> = oids.iter().map(|oid| self.table(*oid)).collect();
                self.push(Op::Truncate { tables: tables? })
            }
            Pgoutput::Message { transactional, position, prefix } => {
                let ours = prefix.strip_prefix(self.message_prefix.as_str());
                self.schema_hint |= matches!(ours, Some("" | "/ddl"));
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

    fn relation(&mut self, relation: &Relation<'_>) -> Result<(), Stop> {
        let Some((table, _)) = self.kinds.get(&relation.oid) else {
            // Partitions are described too, beside the root that their changes are sent as.
            // So only a change tells that a relation is published by itself.
            self.unknown.insert(relation.oid, format!("{}.{}", relation.schema, relation.name));
            return Ok(());
        };
        if let Some(difference) = difference(self.catalogue.get(*table), relation) {
            return Err(Stop::SchemaChanged(difference));
        }
        self.known.insert(relation.oid, *table);
        Ok(())
    }

    fn table(&self, oid: u32) -> Result<TableId, Stop> {
        self.known.get(&oid).copied().ok_or_else(|| match self.unknown.get(&oid) {
            Some(name) => Stop::SchemaChanged(format!("table {name} was added to the publications")),
            None => Stop::Protocol(format!("a change of unknown relation {oid}")),
        })
    }

    fn update(&mut self, oid: u32, old: Option<Old<'_>>, new: &Tuple<'_>) -> Result<(), Stop> {
        let mut row = self.row(oid, new)?;
        let before = match &old {
            None => Before::SameKey,
            Some(old) => {
                let old_tuple = match old {
                    Old::Key(tuple) | Old::Full(tuple) => tuple,
                };
                self.fill(oid, old_tuple, matches!(old, Old::Full(_)), &mut row)?;
                self.before(oid, old)?.1
            }
        };
        let Converted { table, values, absent } = row;
        self.push(Op::Update { table, before, row: values, absent })
    }

    /// Takes values that the new row does not carry from the old one: all of them if it
    /// was sent in full, those of the key otherwise.
    fn fill(&self, oid: u32, old: &Tuple<'_>, full: bool, row: &mut Converted) -> Result<(), Stop> {
        if row.absent.is_empty() {
            return Ok(());
        }
        let before = self.row(oid, old)?;
        let key = &self.catalogue.get(row.table).row_key;
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
    fn before(&self, oid: u32, old: &Old<'_>) -> Result<(TableId, Before), Stop> {
        let (Old::Key(tuple) | Old::Full(tuple)) = old;
        let row = self.row(oid, tuple)?;
        let table = self.catalogue.get(row.table);
        if table.row_key.is_empty() {
            return match old {
                Old::Full(_) => Ok((row.table, Before::Whole(row.values))),
                Old::Key(_) => Err(Stop::Protocol(format!("a key for table {}, which has none", table.name))),
            };
        }
        let key: RowKey = table.row_key.iter().map(|c| row.values[*c as usize].clone()).collect();
        Ok((row.table, Before::Key(key)))
    }

    fn row(&self, oid: u32, tuple: &Tuple<'_>) -> Result<Converted, Stop> {
        let id = self.table(oid)?;
        let table = self.catalogue.get(id);
        let Some((_, kinds)) = self.kinds.get(&oid).filter(|(_, kinds)| kinds.len() == tuple.len()) else {
            return Err(Stop::Protocol(format!("a row of {} with {} columns", table.name, tuple.len())));
        };
        let mut absent = Absent::new();
        let mut values = Vec::with_capacity(tuple.len());
        for (at, (field, kind)) in tuple.iter().zip(kinds.iter()).enumerate() {
            values.push(match field {
                Field::Null => Value::Null,
                Field::Unchanged => {
                    absent.push(at as u16);
                    Value::Null
                }
                Field::Text(text) => convert(*kind, Cow::Borrowed(text))
                    .map_err(|source| Stop::Value {
                        column: format!("{}.{}", table.name, table.columns[at].name),
                        source,
                    })?
                    .into_value(),
            });
        }
        Ok(Converted { table: id, values: values.into_boxed_slice(), absent })
    }
}

struct Converted {
    table: TableId,
    values: Row,
    absent: Absent,
}

/// In what a relation message differs from the catalogue.
fn difference(table: &Table, relation: &Relation<'_>) -> Option<String> {
    let name = format!("{}.{}", relation.schema, relation.name);
    if table.schema != relation.schema || table.upstream_name != relation.name {
        return Some(format!("table {}.{} was renamed to {name}", table.schema, table.upstream_name));
    }
    if relation.columns.len() != table.columns.len() {
        return Some(format!(
            "table {name} has {} columns instead of {}",
            relation.columns.len(),
            table.columns.len()
        ));
    }
    for (ours, theirs) in table.columns.iter().zip(&relation.columns) {
        if ours.name != theirs.name {
            return Some(format!("table {name} has a column {} in the place of {}", theirs.name, ours.name));
        }
        if ours.type_oid != theirs.type_oid {
            return Some(format!("column {name}.{} has another type", ours.name));
        }
    }
    // FULL flags every column; no identity flags none, and then nothing but inserts comes.
    let key = || relation.columns.iter().enumerate().filter(|(_, c)| c.key);
    let flagged = key().count();
    let same = flagged == table.row_key.len() && key().all(|(i, _)| table.row_key.contains(&(i as u16)));
    (relation.identity != b'f' && flagged > 0 && !same)
        .then(|| format!("table {name} has another primary key or replica identity"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::catalogue::{Column, ZeroType};
    use crate::upstream::pgoutput::RelationColumn;

    fn table() -> Table {
        let column = |name: &str, type_oid, attnum| Column {
            name: name.into(),
            upstream_type: "text".into(),
            type_oid,
            attnum,
            zero_type: Some(ZeroType::String),
            not_null: false,
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
        }
    }

    fn relation<'a>(name: &'a str, columns: &[(&'a str, u32, bool)]) -> Relation<'a> {
        Relation {
            oid: 7,
            schema: "public",
            name,
            identity: b'd',
            columns: columns
                .iter()
                .map(|(name, type_oid, key)| RelationColumn { key: *key, name, type_oid: *type_oid })
                .collect(),
        }
    }

    #[test]
    fn every_change_of_a_relation_is_noticed() {
        let same = [("id", 25, true), ("n", 23, false)];
        assert_eq!(difference(&table(), &relation("t", &same)), None);
        for changed in [
            relation("u", &same),
            relation("t", &same[..1]),
            relation("t", &[("id", 25, true), ("m", 23, false)]),
            relation("t", &[("id", 25, true), ("n", 20, false)]),
            relation("t", &[("id", 25, false), ("n", 23, true)]),
            relation("t", &[("id", 25, true), ("n", 23, true)]),
        ] {
            assert!(difference(&table(), &changed).is_some(), "{changed:?}");
        }
    }

    #[test]
    fn changes_outside_of_transactions_are_refused() {
        let mut decoder = Decoder::new(Arc::new(Catalogue::new(1, vec![table()])), "zero/0".into());
        let truncate = b"T\0\0\0\x01\0\0\0\0\x07";
        assert!(matches!(decoder.message(truncate), Err(Stop::Protocol(_))), "unknown relation");
        decoder.known.insert(7, TableId(0));
        assert!(matches!(decoder.message(truncate), Err(Stop::Protocol(_))), "no transaction");
        decoder.seen(StateVersion(5));
        decoder.seen(StateVersion(9));
        assert_eq!(decoder.take().ops, [Op::Seen { position: StateVersion(9) }]);
    }
}
