//! What the rows were at every version, and what plain SQL says that a query's answer was.
//!
//! A database of its own, which knows nothing of the replica: each table has every version of
//! every row, with the time that it lasted.

use std::collections::BTreeMap;

use kelvin::zql::ast::{Ast, Condition, Correlated, System};
use rusqlite::functions::FunctionFlags;
use rusqlite::types::{ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Connection, params_from_iter};
use serde_json::Value;

use super::cell::Cell;
use super::database::{Row, Write};
use super::meaning::like;
use super::plain_sql::{self, pairs};
use super::schema::Schema;

/// One version of one row, by the order in which they came.
pub type Number = usize;

/// A version of a row.
pub struct Version {
    pub table: usize,
    pub row: Row,
    /// What clients read; nothing of columns that they cannot hold.
    pub value: Value,
    since: u64,
    until: u64,
}

/// Until nothing has happened to it.
const FOR_EVER: u64 = i64::MAX as u64;

pub struct Oracle {
    connection: Connection,
    schema: Schema,
    /// By number.
    pub versions: Vec<Version>,
    /// When each table changed.
    changes: Vec<Vec<u64>>,
}

/// The rows that may be chosen for one key of one EXISTS.
#[derive(Debug)]
pub struct Slot {
    /// Clients are told its rows.
    pub sent: bool,
    /// Each with the slots that it needs.
    pub rows: Vec<(Number, Vec<usize>)>,
}

/// A query's answer: root and related rows exactly, and what may be chosen beside them.
#[derive(Debug, Default)]
pub struct Answer {
    /// Rows that clients must have.
    pub exact: Vec<Number>,
    /// Slots of these, and of root and related rows that clients do not know.
    pub needed: Vec<usize>,
    pub slots: Vec<Slot>,
}

impl Oracle {
    pub fn new(schema: &Schema) -> Oracle {
        let connection = Connection::open_in_memory().expect("a database in memory");
        connection.set_prepared_statement_cache_capacity(1_000);
        connection
            .create_scalar_function("lower_all", 1, FunctionFlags::SQLITE_DETERMINISTIC, |context| {
                Ok(context.get::<Option<String>>(0)?.map(|text| text.to_lowercase()))
            })
            .expect("a function");
        connection
            .create_scalar_function("like_all", 2, FunctionFlags::SQLITE_DETERMINISTIC, |context| {
                let text = |at| context.get::<Option<String>>(at);
                let (text, pattern) = (text(0)?, text(1)?);
                Ok(text.zip(pattern).map(|(text, pattern)| like(&text, &pattern)))
            })
            .expect("a function");
        let mut sql = String::new();
        for (table, spec) in schema.specs.iter().enumerate() {
            let columns: String = (0..spec.columns.len()).map(|c| format!(", c{c}")).collect();
            sql += &format!("CREATE TABLE t{table} (number INTEGER PRIMARY KEY, since, until{columns});");
        }
        connection.execute_batch(&sql).expect("tables");
        let changes = vec![Vec::new(); schema.specs.len()];
        Oracle { connection, schema: schema.clone(), versions: Vec::new(), changes }
    }

    /// A transaction that made a version.
    pub fn commit(&mut self, version: u64, writes: &[Write]) {
        for write in writes {
            let table = match write {
                Write::Insert { table, row } => self.begin(*table, row, version),
                Write::Delete { table, row } => self.end(*table, Some(row), version),
                Write::Truncate { table } => self.end(*table, None, version),
                Write::Update { table, old, new } => {
                    self.end(*table, Some(old), version);
                    self.begin(*table, new, version)
                }
            };
            if self.changes[table].last() != Some(&version) {
                self.changes[table].push(version);
            }
        }
    }

    fn begin(&mut self, table: usize, row: &Row, version: u64) -> usize {
        let number = self.versions.len();
        let places: String = (0..row.len()).map(|_| ", ?").collect();
        let sql = format!("INSERT INTO t{table} VALUES (?, ?, ?{places})");
        let mut statement = self.connection.prepare_cached(&sql).expect("an insert");
        let about = [number as i64, version as i64, FOR_EVER as i64].map(Cell::Int);
        statement.execute(params_from_iter(about.iter().chain(row))).expect("a row");
        let columns = &self.schema.spec(table).columns;
        let fields = self.schema.visible(table).into_iter();
        let value = fields.map(|c| (columns[c].0.to_owned(), row[c].json())).collect();
        let (row, since, until) = (row.clone(), version, FOR_EVER);
        self.versions.push(Version { table, row, value: Value::Object(value), since, until });
        table
    }

    fn end(&mut self, table: usize, row: Option<&Row>, version: u64) -> usize {
        let sql = format!("UPDATE t{table} SET until = ? WHERE number = ?");
        let mut statement = self.connection.prepare_cached(&sql).expect("an update");
        for (number, known) in self.versions.iter_mut().enumerate() {
            let is_it = known.table == table && row.is_none_or(|row| *row == known.row);
            if is_it && known.until == FOR_EVER {
                known.until = version;
                statement.execute([version as i64, number as i64]).expect("a row");
            }
        }
        table
    }

    pub fn find(&self, table: &str) -> usize {
        self.schema.find(table)
    }

    pub fn table(&self, table: usize) -> &'static str {
        self.schema.spec(table).name
    }

    /// Rows that there were.
    pub fn alive(&self, version: u64) -> impl Iterator<Item = Number> {
        let there = move |v: &Version| v.since <= version && version < v.until;
        self.versions.iter().enumerate().filter(move |(_, v)| there(v)).map(|(number, _)| number)
    }

    /// The first version since which no table of a query has changed.
    pub fn unchanged_since(&self, ast: &Ast, version: u64) -> u64 {
        let mut tables = Vec::new();
        tables_of(ast, &mut |name| tables.push(self.schema.find(name)));
        let last = |table: usize| self.changes[table].iter().rfind(|at| **at <= version).copied();
        tables.into_iter().filter_map(last).max().unwrap_or(0)
    }

    /// What a query's answer was. `known_by`: what its clients believe.
    pub fn answer(&self, ast: &Ast, known_by: &Schema, version: u64) -> Answer {
        let mut asking = Asking {
            oracle: self,
            schema: known_by,
            version,
            answer: Answer::default(),
            made: BTreeMap::new(),
        };
        asking.result(ast, &[], &[], true);
        asking.answer
    }

    fn numbers(&self, sql: &str, version: u64, key: &[Cell]) -> Vec<Number> {
        let mut statement = self.connection.prepare_cached(sql).expect("the query as SQL");
        let parameters = [Cell::Int(version as i64)];
        let rows = statement.query_map(params_from_iter(parameters.iter().chain(key)), |row| row.get(0));
        let numbers: Result<Vec<i64>, _> = rows.and_then(Iterator::collect);
        numbers.expect("an answer").into_iter().map(|number| number as Number).collect()
    }
}

impl ToSql for Cell {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Cell::Null => ValueRef::Null,
            Cell::Bool(b) => ValueRef::Integer(*b as i64),
            Cell::Int(i) => ValueRef::Integer(*i),
            Cell::Real(r) => ValueRef::Real(*r),
            Cell::Text(t) | Cell::Json(t) => ValueRef::Text(t.as_bytes()),
            Cell::Bytes(b) => ValueRef::Blob(b),
        }))
    }
}

/// Every table that a query names.
fn tables_of(ast: &Ast, name: &mut dyn FnMut(&str)) {
    name(&ast.table);
    ast.condition.iter().for_each(|condition| tables_of_condition(condition, name));
    ast.related.iter().for_each(|child| tables_of(&child.subquery, name));
}

fn tables_of_condition(condition: &Condition, name: &mut dyn FnMut(&str)) {
    match condition {
        Condition::Simple { .. } => {}
        Condition::And(members) | Condition::Or(members) => {
            members.iter().for_each(|member| tables_of_condition(member, name));
        }
        Condition::Exists { related, .. } => tables_of(&related.subquery, name),
    }
}

/// An answer in the making.
struct Asking<'o> {
    oracle: &'o Oracle,
    schema: &'o Schema,
    version: u64,
    answer: Answer,
    /// Slots by place of the subquery in memory, and key.
    made: BTreeMap<(usize, String), usize>,
}

impl Asking<'_> {
    /// Root or related rows under one key, with all that belongs to them.
    fn result(&mut self, ast: &Ast, columns: &[usize], key: &[Cell], visible: bool) {
        let table = self.schema.find(&ast.table);
        let sql = plain_sql::select(self.schema, ast, columns);
        let rows = self.oracle.numbers(&sql, self.version, key);
        if visible && self.is_known(table) {
            self.answer.exact.extend(&rows);
        }
        for row in &rows {
            let mut slots = Vec::new();
            self.conditions(table, ast.condition.as_ref(), *row, true, visible, &mut slots);
            self.answer.needed.extend(slots);
        }
        for (position, child) in ast.related.iter().enumerate() {
            // Of several with one name the last counts.
            let later = &ast.related[position + 1..];
            let alias = &child.subquery.alias;
            if alias.is_some() && later.iter().any(|l| l.subquery.alias == *alias) {
                continue;
            }
            let visible = visible && child.system == System::Client;
            let mut done: Vec<Vec<Cell>> = Vec::new();
            for row in rows.iter().filter(|_| visible) {
                let Some((columns, key)) = self.key(table, child, *row) else { continue };
                if !done.contains(&key) {
                    self.result(&child.subquery, &columns, &key, visible);
                    done.push(key);
                }
            }
        }
    }

    fn is_known(&self, table: usize) -> bool {
        self.schema.spec(table).client_key.is_some()
    }

    /// Columns of the child and the values that they must have; `None`: nothing can match.
    fn key(&self, parent: usize, child: &Correlated, row: Number) -> Option<(Vec<usize>, Vec<Cell>)> {
        let row = &self.oracle.versions[row].row;
        let pairs = pairs(self.schema, parent, child)?;
        let key: Vec<Cell> = pairs.iter().map(|(p, _)| row[*p].clone()).collect();
        (!key.contains(&Cell::Null)).then(|| (pairs.into_iter().map(|(_, c)| c).collect(), key))
    }

    /// Slots of the conditions of a row. `must_hold`: the condition holds for it, so that a NOT
    /// EXISTS has no rows.
    fn conditions(
        &mut self,
        table: usize,
        condition: Option<&Condition>,
        row: Number,
        must_hold: bool,
        visible: bool,
        out: &mut Vec<usize>,
    ) {
        match condition {
            None | Some(Condition::Simple { .. }) => {}
            Some(Condition::And(all)) => {
                all.iter().for_each(|c| self.conditions(table, Some(c), row, must_hold, visible, out));
            }
            Some(Condition::Or(any)) => {
                let must_hold = must_hold && any.len() == 1;
                any.iter().for_each(|c| self.conditions(table, Some(c), row, must_hold, visible, out));
            }
            Some(Condition::Exists { related, negated, .. }) => {
                let shown = visible && related.system == System::Client && !(*negated && must_hold);
                if shown && let Some((columns, key)) = self.key(table, related, row) {
                    out.push(self.slot(&related.subquery, &columns, &key));
                }
            }
        }
    }

    fn slot(&mut self, ast: &Ast, columns: &[usize], key: &[Cell]) -> usize {
        let place = (std::ptr::from_ref(ast) as usize, format!("{key:?}"));
        if let Some(slot) = self.made.get(&place) {
            return *slot;
        }
        let table = self.schema.find(&ast.table);
        let sql = plain_sql::witnesses(self.schema, ast, columns);
        let numbers = self.oracle.numbers(&sql, self.version, key);
        let mut rows = Vec::new();
        for number in numbers {
            let mut slots = Vec::new();
            self.conditions(table, ast.condition.as_ref(), number, true, true, &mut slots);
            rows.push((number, slots));
        }
        self.answer.slots.push(Slot { sent: self.is_known(table), rows });
        self.made.insert(place, self.answer.slots.len() - 1);
        self.answer.slots.len() - 1
    }
}
