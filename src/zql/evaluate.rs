//! Evaluates a plan over one snapshot: the definition of what a view holds
//! (`docs/spec/zql.md` §5).
//!
//! Nodes are read one after another, each for the distinct keys that its parent's rows
//! gave; a parent row that appears under several keys is looked below only once.

use rusqlite::Row;
use rusqlite::types::{ToSqlOutput, Value as SqlValue, ValueRef};

use super::key::{self, Scalar};
use super::plan::{MAX_WITNESSES, Node, Plan};
use super::sql::{Statement, Statements, json_array};
use crate::replica::reader::{ReadError, Reader};
use crate::replica::value::Value;

/// Receives what an evaluation finds.
pub trait Collect {
    /// A row of a node, each once. `key`: the correlation key under which it was found, empty
    /// for the root; `identity`: the bytes of its client key.
    fn row(&mut self, node: usize, key: &[u8], identity: &[u8], row: &Row<'_>) -> Result<(), ReadError>;

    /// A parent row of a node has this correlation key. True if it is the first: rows are then
    /// looked up for it.
    fn scope(&mut self, node: usize, key: &[u8]) -> bool;

    /// Identities of the witnesses that the view has for this key, which are kept while
    /// they still are witnesses (ruling 1).
    fn witnesses(&self, node: usize, key: &[u8]) -> Vec<Vec<u8>>;
}

/// Lets other work of the core go on between rows.
pub trait Pace {
    /// Whether the slice is used up. Asked after every row; must be cheap.
    fn due(&mut self) -> bool;
    /// Lets others run.
    fn rest(&mut self) -> impl Future<Output = ()>;
}

/// Never rests: for tests and tools.
pub struct NoPace;

impl Pace for NoPace {
    fn due(&mut self) -> bool {
        false
    }
    async fn rest(&mut self) {}
}

/// Distinct correlation keys of one node with their values, in the order found.
type Keys = Vec<(Box<[u8]>, Vec<Value>)>;

/// Evaluates the plan on the reader's snapshot.
pub async fn evaluate<C: Collect, P: Pace>(
    reader: &Reader,
    plan: &Plan,
    collect: &mut C,
    pace: &mut P,
) -> Result<(), ReadError> {
    let mut scopes: Vec<Keys> = vec![Keys::new(); plan.nodes.len()];
    for index in 0..plan.nodes.len() {
        let keys = std::mem::take(&mut scopes[index]);
        let mut run = Run { reader, plan, index, scopes: &mut scopes, collect, pace, bytes: Vec::new() };
        run.node(keys).await?;
    }
    Ok(())
}

struct Run<'a, C, P> {
    reader: &'a Reader,
    plan: &'a Plan,
    index: usize,
    scopes: &'a mut [Keys],
    collect: &'a mut C,
    pace: &'a mut P,
    bytes: Vec<u8>,
}

impl<C: Collect, P: Pace> Run<'_, C, P> {
    fn node_plan(&self) -> &Node {
        &self.plan.nodes[self.index]
    }

    async fn node(&mut self, keys: Keys) -> Result<(), ReadError> {
        // Cloning shares the text and the constants.
        match self.node_plan().statements.clone() {
            Statements::Never => Ok(()),
            Statements::Once(statement) => self.rows(&statement, &[], Some(&[])).await,
            Statements::PerKey(statement) => {
                for (key, values) in &keys {
                    self.rows(&statement, values, Some(key)).await?;
                }
                Ok(())
            }
            Statements::Batch(_) if keys.is_empty() => Ok(()),
            Statements::Batch(statement) => {
                let tuples: Vec<String> = keys.iter().map(|(_, values)| json_array(values)).collect();
                let list = Value::Text(format!("[{}]", tuples.join(",")).into());
                self.rows(&statement, &[list], None).await
            }
            Statements::Witness { fill, holds } => {
                for (key, values) in &keys {
                    self.witnesses(&fill, &holds, key, values).await?;
                }
                Ok(())
            }
        }
    }

    /// `key`: of all the rows; `None`: each row tells its own.
    async fn rows(
        &mut self,
        statement: &Statement,
        variable: &[Value],
        key: Option<&[u8]>,
    ) -> Result<(), ReadError> {
        let mut prepared = self.reader.prepare(&statement.text)?;
        let mut rows = prepared.query(parameters(variable, &statement.constants))?;
        let mut own = Vec::new();
        while let Some(row) = rows.next()? {
            self.identity(row)?;
            let identity = std::mem::take(&mut self.bytes);
            if key.is_none() {
                self.correlation(row, &mut own)?;
            }
            self.visit(row, key.unwrap_or(&own), &identity)?;
            self.bytes = identity;
            if self.pace.due() {
                self.pace.rest().await;
            }
        }
        Ok(())
    }

    /// The row's own correlation key.
    fn correlation(&self, row: &Row<'_>, out: &mut Vec<u8>) -> Result<(), ReadError> {
        out.clear();
        let node = self.node_plan();
        for column in &node.child_columns {
            key::push(row.get_ref(node.position(*column))?.into(), out);
        }
        Ok(())
    }

    /// Keeps the witnesses that still are some, then fills up with the first by key.
    async fn witnesses(
        &mut self,
        fill: &Statement,
        holds: &Statement,
        key: &[u8],
        values: &[Value],
    ) -> Result<(), ReadError> {
        let mut chosen: Vec<Vec<u8>> = Vec::with_capacity(MAX_WITNESSES);
        for identity in self.collect.witnesses(self.index, key) {
            let mut variable = values.to_vec();
            variable.extend(key::values(&identity));
            let mut prepared = self.reader.prepare(&holds.text)?;
            let mut rows = prepared.query(parameters(&variable, &holds.constants))?;
            if let Some(row) = rows.next()? {
                self.visit(row, key, &identity)?;
                chosen.push(identity);
            }
        }
        if chosen.len() < MAX_WITNESSES {
            let mut prepared = self.reader.prepare(&fill.text)?;
            let mut rows = prepared.query(parameters(values, &fill.constants))?;
            while let Some(row) = rows.next()? {
                self.identity(row)?;
                if chosen.len() == MAX_WITNESSES || chosen.contains(&self.bytes) {
                    continue;
                }
                let identity = self.bytes.clone();
                self.visit(row, key, &identity)?;
                chosen.push(identity);
            }
        }
        if self.pace.due() {
            self.pace.rest().await;
        }
        Ok(())
    }

    /// Puts the row's client key into `self.bytes`.
    fn identity(&mut self, row: &Row<'_>) -> Result<(), ReadError> {
        let node = &self.plan.nodes[self.index];
        self.bytes.clear();
        for column in node.key.iter() {
            let value: Scalar = row.get_ref(node.position(*column))?.into();
            let usable = match value {
                Scalar::Integer(i) => i.unsigned_abs() <= key::MAX_SAFE_INTEGER as u64,
                _ => true,
            };
            if !usable || !key::push(value, &mut self.bytes) {
                return Err(ReadError::Unsupported(
                    "a row's key is null or an integer that clients cannot hold".to_owned(),
                ));
            }
        }
        Ok(())
    }

    /// Hands the row out and brings its keys into the scopes of the nodes below.
    fn visit(&mut self, row: &Row<'_>, key: &[u8], identity: &[u8]) -> Result<(), ReadError> {
        let node = &self.plan.nodes[self.index];
        for child in &node.children {
            self.descend(node, *child, row)?;
        }
        self.collect.row(self.index, key, identity, row)
    }

    fn descend(&mut self, node: &Node, child: usize, row: &Row<'_>) -> Result<(), ReadError> {
        let columns = &self.plan.nodes[child].parent_columns;
        let mut bytes = Vec::with_capacity(32);
        for column in columns {
            // A NULL in a correlation key matches nothing.
            if !key::push(row.get_ref(node.position(*column))?.into(), &mut bytes) {
                return Ok(());
            }
        }
        if !self.collect.scope(child, &bytes) {
            return Ok(());
        }
        let mut values = Vec::with_capacity(columns.len());
        for column in columns {
            values.push(Scalar::from(row.get_ref(node.position(*column))?).to_value());
        }
        self.scopes[child].push((bytes.into(), values));
        Ok(())
    }
}

/// Variable parameters first, then the constants of the statement.
pub fn parameters<'v>(
    variable: &'v [Value],
    constants: &'v [Value],
) -> rusqlite::ParamsFromIter<impl Iterator<Item = Bound<'v>>> {
    rusqlite::params_from_iter(variable.iter().chain(constants).map(Bound))
}

/// A stored value as a parameter, without a copy.
pub struct Bound<'v>(&'v Value);

impl rusqlite::ToSql for Bound<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self.0 {
            Value::Null => ToSqlOutput::Owned(SqlValue::Null),
            Value::Integer(i) => ToSqlOutput::Owned(SqlValue::Integer(*i)),
            Value::Real(r) => ToSqlOutput::Owned(SqlValue::Real(*r)),
            Value::Text(t) => ToSqlOutput::Borrowed(ValueRef::Text(t.as_bytes())),
            Value::Blob(b) => ToSqlOutput::Borrowed(ValueRef::Blob(b)),
        })
    }
}
