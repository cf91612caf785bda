//! Evaluates a plan over one snapshot: the definition of what a view holds
//! (`docs/spec/zql.md` §5).
//!
//! Nodes are read one after another, each for the distinct keys that its parent's rows
//! gave; a parent row that appears under several keys is looked below only once. An evaluation
//! may take long and does not rest: it runs on a thread of its own.

use hashbrown::HashTable;
use rusqlite::Row;
use rusqlite::types::{ToSqlOutput, Value as SqlValue, ValueRef};

use super::builder::{Constant, Statement};
use super::plan::{MAX_WITNESSES, Node, Plan};
use super::sql::{Statements, json_array};
use crate::model::key::{self, Scalar};
use crate::model::value::Value;
use crate::replica::reader::{ReadError, Reader};

/// Only integers that no client can hold are equal to a number without having its key.
pub const UNEQUAL: &str = "a correlation key is an integer that clients cannot hold";

/// Receives what an evaluation finds. An error ends the evaluation.
pub trait Collect {
    /// The correlation keys of a node, before its rows. Keys have numbers: positions here.
    fn keys(&mut self, node: usize, keys: &[ScopeKey]) -> Result<(), ReadError>;

    /// A row of a node, each once. `key`: number of the correlation key under which it was
    /// found; `identity`: the bytes of its client key. The row has the node's columns and then
    /// its version.
    fn row(&mut self, node: usize, key: usize, identity: &[u8], row: &Row<'_>) -> Result<(), ReadError>;

    /// Identities of the witnesses that the view has for this key, which are kept while
    /// they still are witnesses (ruling 1).
    fn witnesses(&self, node: usize, key: &[u8]) -> Vec<Vec<u8>>;
}

/// A correlation key in the scope of a node.
pub struct ScopeKey {
    /// The key as bytes; empty for the root.
    pub bytes: Box<[u8]>,
    /// Rows of the parent node that have it.
    pub parents: u32,
    values: Box<[Value]>,
}

/// The keys in the scope of a node, in the order found.
#[derive(Default)]
struct Scope {
    keys: Vec<ScopeKey>,
    numbers: HashTable<usize>,
}

impl Scope {
    fn of_root() -> Scope {
        let root = ScopeKey { bytes: Box::default(), parents: 1, values: Box::default() };
        Scope { keys: vec![root], numbers: HashTable::new() }
    }

    fn find(&self, bytes: &[u8]) -> Option<usize> {
        self.numbers.find(key::hash(bytes), |at| *self.keys[*at].bytes == *bytes).copied()
    }

    fn insert(&mut self, bytes: &[u8], values: Box<[Value]>) {
        let keys = &mut self.keys;
        keys.push(ScopeKey { bytes: bytes.into(), parents: 1, values });
        self.numbers.insert_unique(key::hash(bytes), keys.len() - 1, |at| key::hash(&keys[*at].bytes));
    }
}

/// Evaluates the plan on the reader's snapshot. Returns the number of the condition that the root
/// was read from ([`super::driving::Once::choose`]).
pub fn evaluate<C: Collect>(reader: &Reader, plan: &Plan, collect: &mut C) -> Result<usize, ReadError> {
    let driver = match plan.nodes.first().map(|root| &root.statements) {
        Some(Statements::Once(once)) => once.choose(reader)?,
        _ => 0,
    };
    evaluate_from(reader, plan, driver, collect)?;
    Ok(driver)
}

/// The same, with the root read from the condition of that number.
pub fn evaluate_from<C: Collect>(
    reader: &Reader,
    plan: &Plan,
    driver: usize,
    collect: &mut C,
) -> Result<(), ReadError> {
    let mut scopes: Vec<Scope> = plan.nodes.iter().map(|_| Scope::default()).collect();
    scopes[0] = Scope::of_root();
    for index in 0..plan.nodes.len() {
        let scope = std::mem::take(&mut scopes[index]);
        collect.keys(index, &scope.keys)?;
        let (bytes, scratch) = (Vec::new(), Vec::new());
        let below = &mut scopes;
        let mut run = Run { reader, plan, driver, index, scope: &scope, below, collect, bytes, scratch };
        run.node()?;
    }
    Ok(())
}

struct Run<'a, C> {
    reader: &'a Reader,
    plan: &'a Plan,
    driver: usize,
    index: usize,
    scope: &'a Scope,
    below: &'a mut [Scope],
    collect: &'a mut C,
    /// Identity of the row at hand.
    bytes: Vec<u8>,
    /// A key of the row at hand.
    scratch: Vec<u8>,
}

impl<C: Collect> Run<'_, C> {
    fn node_plan(&self) -> &Node {
        &self.plan.nodes[self.index]
    }

    fn node(&mut self) -> Result<(), ReadError> {
        let scope = self.scope;
        // Cloning shares the text and the constants.
        match self.node_plan().statements.clone() {
            Statements::Never => Ok(()),
            Statements::Once(once) => self.rows(once.from(self.driver), &[], Some(0)),
            Statements::PerKey(statement) => {
                for (number, key) in scope.keys.iter().enumerate() {
                    self.rows(&statement, &key.values, Some(number))?;
                }
                Ok(())
            }
            Statements::Batch(_) if scope.keys.is_empty() => Ok(()),
            Statements::Batch(statement) => {
                let tuples: Vec<String> = scope.keys.iter().map(|key| json_array(&key.values)).collect();
                let list = Value::Text(format!("[{}]", tuples.join(",")).into());
                self.rows(&statement, &[list], None)
            }
            Statements::Witness { fill, holds } => {
                for (number, key) in scope.keys.iter().enumerate() {
                    self.witnesses(&fill, &holds, number, key)?;
                }
                Ok(())
            }
        }
    }

    /// `key`: of all the rows; `None`: each row tells its own.
    fn rows(
        &mut self,
        statement: &Statement,
        variable: &[Value],
        key: Option<usize>,
    ) -> Result<(), ReadError> {
        let mut prepared = self.reader.prepare(&statement.text)?;
        let mut rows = prepared.query(parameters(variable, &statement.constants))?;
        let mut own = Vec::new();
        while let Some(row) = rows.next()? {
            let key = match key {
                Some(key) => key,
                None => self.correlation(row, &mut own)?,
            };
            self.identity(row)?;
            self.visit(row, key)?;
        }
        Ok(())
    }

    /// Number of the row's own correlation key.
    fn correlation(&self, row: &Row<'_>, bytes: &mut Vec<u8>) -> Result<usize, ReadError> {
        bytes.clear();
        let node = self.node_plan();
        for column in &node.child_columns {
            key::push(row.get_ref(node.position(*column))?.into(), bytes);
        }
        // Equal to SQLite, not to us.
        self.scope.find(bytes).ok_or_else(|| ReadError::Unsupported(UNEQUAL.to_owned()))
    }

    /// Keeps the witnesses that still are some, then fills up with the first by key.
    fn witnesses(
        &mut self,
        fill: &Statement,
        holds: &Statement,
        number: usize,
        key: &ScopeKey,
    ) -> Result<(), ReadError> {
        let mut chosen: Vec<Vec<u8>> = Vec::with_capacity(MAX_WITNESSES);
        for identity in self.collect.witnesses(self.index, &key.bytes) {
            let mut variable = key.values.to_vec();
            variable.extend(key::values(&identity));
            let mut prepared = self.reader.prepare(&holds.text)?;
            let mut rows = prepared.query(parameters(&variable, &holds.constants))?;
            if let Some(row) = rows.next()? {
                self.bytes.clone_from(&identity);
                self.visit(row, number)?;
                chosen.push(identity);
            }
        }
        if chosen.len() == MAX_WITNESSES {
            return Ok(());
        }
        let mut prepared = self.reader.prepare(&fill.text)?;
        let mut rows = prepared.query(parameters(&key.values, &fill.constants))?;
        while let Some(row) = rows.next()? {
            self.identity(row)?;
            if chosen.len() == MAX_WITNESSES || chosen.contains(&self.bytes) {
                continue;
            }
            chosen.push(self.bytes.clone());
            self.visit(row, number)?;
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

    /// Hands the row out and brings its keys into the scopes of the nodes below. Its identity
    /// is in `self.bytes`.
    fn visit(&mut self, row: &Row<'_>, key: usize) -> Result<(), ReadError> {
        let node = &self.plan.nodes[self.index];
        for child in &node.children {
            self.descend(node, *child, row)?;
        }
        self.collect.row(self.index, key, &self.bytes, row)
    }

    fn descend(&mut self, node: &Node, child: usize, row: &Row<'_>) -> Result<(), ReadError> {
        let columns = &self.plan.nodes[child].parent_columns;
        let bytes = &mut self.scratch;
        bytes.clear();
        for column in columns {
            // A NULL in a correlation key matches nothing.
            if !key::push(row.get_ref(node.position(*column))?.into(), bytes) {
                return Ok(());
            }
        }
        let scope = &mut self.below[child];
        if let Some(number) = scope.find(bytes) {
            scope.keys[number].parents += 1;
            return Ok(());
        }
        let value = |c: &_| Ok(Scalar::from(row.get_ref(node.position(*c))?).to_value());
        let values: Result<Box<[Value]>, ReadError> = columns.iter().map(value).collect();
        scope.insert(bytes, values?);
        Ok(())
    }
}

/// Variable parameters first, then the constants of the statement.
pub fn parameters<'v>(
    variable: &'v [Value],
    constants: &'v [Constant],
) -> rusqlite::ParamsFromIter<impl Iterator<Item = Bound<'v>>> {
    rusqlite::params_from_iter(variable.iter().map(Bound::Value).chain(constants.iter().map(Bound::of)))
}

/// A stored value as a parameter, without a copy.
pub enum Bound<'v> {
    /// A value.
    Value(&'v Value),
    /// A text.
    Text(&'v str),
}

impl<'v> Bound<'v> {
    fn of(constant: &'v Constant) -> Bound<'v> {
        match constant {
            Constant::Value(value) => Bound::Value(value),
            Constant::Shared(text) => Bound::Text(text),
        }
    }
}

impl rusqlite::ToSql for Bound<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        let value = match self {
            Bound::Value(value) => *value,
            Bound::Text(text) => return Ok(ToSqlOutput::Borrowed(ValueRef::Text(text.as_bytes()))),
        };
        Ok(match value {
            Value::Null => ToSqlOutput::Owned(SqlValue::Null),
            Value::Integer(i) => ToSqlOutput::Owned(SqlValue::Integer(*i)),
            Value::Real(r) => ToSqlOutput::Owned(SqlValue::Real(*r)),
            Value::Text(t) => ToSqlOutput::Borrowed(ValueRef::Text(t.as_bytes())),
            Value::Blob(b) => ToSqlOutput::Borrowed(ValueRef::Blob(b)),
        })
    }
}
