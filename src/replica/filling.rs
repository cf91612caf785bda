//! Filling tables while the stream goes on (`docs/spec/schema-changes.md` S9).
//!
//! What the stream says of a table that is being filled is put aside, in the same transaction of the file. The rows are copied
//! as they were at one exact position; then what was put aside from there on is added, in the order in which it came. When
//! nothing is left the table can be shown.

use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use kelvin_io::channel::Sender;
use rusqlite::{Connection, OptionalExtension, params};

use super::apply::Applier;
use super::error::{Doing, Error};
use super::live_indexes;
use super::refilling::Comparison;
use super::statements::TableStatements;
use super::work::{FillWork, Op};
use super::{op_codec, oversize};
use crate::model::catalogue::{Catalogue, Table, quote};
use crate::model::commit::Row;
use crate::model::ids::TableId;
use crate::model::value::Value;
use crate::model::version::StateVersion;

/// Operations that are added at a time: as many milliseconds as a commit takes.
const SLICE: usize = 500;

/// Tables that are being filled, and what is to be done for them.
pub(super) struct Fillings<'c> {
    connection: &'c Connection,
    tables: HashMap<TableId, Filling<'c>>,
    /// Steps that wait for the border of a transaction. Whoever copies has one under way at a time.
    waiting: VecDeque<FillWork>,
    /// Number of the last operation that was put aside.
    last: i64,
    /// Most bytes of a row, and of what is put aside.
    row_limit: usize,
}

struct Filling<'c> {
    from: StateVersion,
    table: Table,
    version: Value,
    rows: TableStatements<'c>,
    /// Of a copy: which of its rows are those that are shown.
    comparison: Option<Comparison<'c>>,
    /// All rows are there: what was put aside is being added.
    applier: Option<Applier<'c>>,
    /// Who is told when nothing is left.
    reply: Option<Sender<()>>,
}

impl<'c> Fillings<'c> {
    pub(super) fn new(connection: &'c Connection, row_limit: usize) -> Result<Fillings<'c>, Error> {
        let last = connection
            .query_row(r#"SELECT max(seq) FROM "_kelvin.spool""#, [], |row| row.get::<_, Option<i64>>(0))
            .doing("looking for what was put aside")?;
        let (tables, waiting, last) = (HashMap::new(), VecDeque::new(), last.unwrap_or(0));
        Ok(Fillings { connection, tables, waiting, last, row_limit })
    }

    /// Remembers a step.
    pub(super) fn add(&mut self, work: FillWork) {
        self.waiting.push_back(work);
    }

    /// Whether something can be done at the border of a transaction.
    pub(super) fn has_work(&self) -> bool {
        !self.waiting.is_empty() || self.tables.values().any(|filling| filling.reply.is_some())
    }

    /// Puts an operation aside, within an open transaction.
    pub(super) fn put_aside(&mut self, table: &Table, version: StateVersion, op: &Op) -> Result<(), Error> {
        let mut bytes = Vec::new();
        op_codec::write([op], &mut bytes);
        if bytes.len() <= self.row_limit {
            return self.put_bytes_aside(table, version, &bytes);
        }
        for op in oversize::fit_operation(self.row_limit, table, op.clone()) {
            bytes.clear();
            op_codec::write([&op], &mut bytes);
            self.put_bytes_aside(table, version, &bytes)?;
        }
        Ok(())
    }

    fn put_bytes_aside(&mut self, table: &Table, version: StateVersion, bytes: &[u8]) -> Result<(), Error> {
        self.last += 1;
        self.connection
            .prepare_cached(
                r#"INSERT INTO "_kelvin.spool" ("table", seq, version, op) VALUES (?1, ?2, ?3, ?4)"#,
            )
            .and_then(|mut insert| insert.execute(params![table.id.0, self.last, version.0 as i64, bytes]))
            .doing("putting a change aside")?;
        Ok(())
    }

    /// Does the next thing, within a transaction of its own.
    pub(super) fn step(&mut self, catalogue: &Catalogue) -> Result<(), Error> {
        match self.waiting.pop_front() {
            Some(work) => self.perform(work, catalogue),
            None => self.add_some(),
        }
    }

    fn perform(&mut self, work: FillWork, catalogue: &Catalogue) -> Result<(), Error> {
        let doing = "filling a table";
        match work {
            FillWork::Begin { table: id, from } => {
                self.tables.remove(&id);
                let Some(table) = catalogue.filling().find(|table| table.id == id) else { return Ok(()) };
                let empty = format!("DELETE FROM {}", quote(&table.stored_name));
                self.connection.execute(&empty, []).doing(doing)?;
                let of_before = r#"DELETE FROM "_kelvin.spool" WHERE "table" = ?1 AND version < ?2"#;
                self.connection.execute(of_before, params![id.0, from.0 as i64]).doing(doing)?;
                if let Some(shown) = table.refill.as_ref().and_then(|refill| catalogue.find(refill.table)) {
                    live_indexes::copy(self.connection, shown, table)?;
                }
                let filling = Filling {
                    from,
                    table: table.clone(),
                    version: match table.refill {
                        // When it is shown; that is known then.
                        Some(_) => Value::Null,
                        None => Value::Text(from.to_lexi().into_boxed_str()),
                    },
                    rows: TableStatements::prepare(self.connection, table)?,
                    comparison: Comparison::new(self.connection, catalogue, table)?,
                    applier: None,
                    reply: None,
                };
                self.tables.insert(id, filling);
            }
            FillWork::Rows { table, rows, reply } => {
                let answer = match self.tables.get_mut(&table) {
                    Some(filling) => filling.insert(rows(), self.row_limit)?,
                    None => Err("the table has become another meanwhile".to_owned()),
                };
                // Whoever has given up does not listen.
                let _ = reply.try_send(answer);
            }
            FillWork::End { table, reply } => {
                if let Some(filling) = self.tables.get_mut(&table) {
                    let alone = Arc::new(Catalogue::of_one(&filling.table));
                    let mut applier = Applier::new(self.connection, alone);
                    applier.row_limit = self.row_limit;
                    filling.applier = Some(applier);
                    filling.reply = Some(reply);
                }
            }
        }
        Ok(())
    }

    /// Adds some of what was put aside for one table.
    fn add_some(&mut self) -> Result<(), Error> {
        let next = self.tables.iter_mut().find(|(_, filling)| filling.reply.is_some());
        let Some((id, filling)) = next else { return Ok(()) };
        if filling.add(self.connection, *id, SLICE)? == 0
            && let Some(reply) = filling.reply.take()
        {
            let _ = reply.try_send(());
        }
        Ok(())
    }

    /// The catalogue is another one from here on: tables that are shown now get all that was put aside, within the
    /// open transaction, and those that are not filled any more are forgotten.
    pub(super) fn follow(&mut self, old: &Catalogue, new: &Catalogue) -> Result<(), Error> {
        for table in new.tables() {
            let copy = new.taken_over(old, table).map(|copy| copy.id);
            let Some(id) = copy.or(Some(table.id).filter(|id| old.is_filling(*id))) else { continue };
            let filling = self.tables.get_mut(&id).filter(|filling| filling.applier.is_some());
            let filling = filling.ok_or(Error::Misfit("a table that has not been filled"))?;
            while filling.add(self.connection, id, SLICE)? > 0 {}
        }
        // Statements would be in the way of changes, or mean something else.
        for (id, filling) in &mut self.tables {
            if let Some(table) = new.filling().find(|table| table.id == *id) {
                filling.follow(self.connection, table, new)?;
            }
        }
        Ok(())
    }

    /// What was decided is committed: what concerns tables that are not filled any more goes.
    pub(super) fn committed(&mut self, catalogue: &Catalogue) {
        self.tables.retain(|id, _| catalogue.is_filling(*id));
    }
}

/// Removes what was put aside for tables that are not being filled any more.
pub(super) fn forget_others(connection: &Connection, catalogue: &Catalogue) -> Result<(), Error> {
    let doing = "forgetting what was put aside";
    let sql = r#"SELECT "table" FROM "_kelvin.spool" WHERE "table" > ?1 LIMIT 1"#;
    let mut after = -1i64;
    loop {
        let next = connection.query_row(sql, [after], |row| row.get::<_, i64>(0)).optional().doing(doing)?;
        let Some(id) = next else { return Ok(()) };
        after = id;
        if !catalogue.is_filling(TableId(id as u16)) {
            connection.execute(r#"DELETE FROM "_kelvin.spool" WHERE "table" = ?1"#, [id]).doing(doing)?;
        }
    }
}

impl<'c> Filling<'c> {
    /// Inserts rows that were copied.
    fn insert(
        &mut self,
        rows: Result<Vec<Row>, String>,
        row_limit: usize,
    ) -> Result<Result<u64, String>, Error> {
        let rows = match rows {
            Ok(rows) => rows,
            Err(why) => return Ok(Err(why)),
        };
        let mut count = 0;
        for mut row in rows {
            if row.len() != self.table.columns.len() {
                return Ok(Err("a row with other columns than its table".to_owned()));
            }
            let lacking = oversize::fit(row_limit, &self.table, &mut row);
            if !lacking.is_empty() {
                oversize::report(&self.table, &oversize::key_of(&self.table, &row), &lacking);
            }
            let version = match &mut self.comparison {
                Some(comparison) => Cow::Owned(comparison.version(&row)?),
                None => Cow::Borrowed(&self.version),
            };
            count += u64::from(self.rows.insert(&row, &version)?);
        }
        Ok(Ok(count))
    }

    /// Adds up to so many operations that were put aside. Returns how many it took; zero: nothing is left.
    fn add(&mut self, connection: &Connection, id: TableId, most: usize) -> Result<usize, Error> {
        let doing = "adding what was put aside";
        let Some(applier) = &mut self.applier else { return Ok(0) };
        let select =
            r#"SELECT seq, version, op FROM "_kelvin.spool" WHERE "table" = ?1 ORDER BY seq LIMIT ?2"#;
        let read = |row: &rusqlite::Row<'_>| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)? as u64, row.get::<_, Vec<u8>>(2)?))
        };
        let mut statement = connection.prepare_cached(select).doing(doing)?;
        let some: Vec<(i64, u64, Vec<u8>)> =
            statement.query_map(params![id.0, most as i64], read).and_then(Iterator::collect).doing(doing)?;
        drop(statement);
        for (_, version, bytes) in some.iter().filter(|(_, version, _)| StateVersion(*version) >= self.from) {
            for op in op_codec::read(bytes).map_err(|_| Error::Misfit("a change that cannot be read"))? {
                let op = op.map_err(|_| Error::Misfit("a change that cannot be read"))?;
                match &op {
                    // What it does not carry may be another value in the copy than in the row that is shown.
                    Op::Update { absent, .. } if self.table.refill.is_some() && !absent.is_empty() => {
                        applier.begin_unversioned();
                    }
                    _ => applier.begin(StateVersion(*version)),
                }
                applier.apply(op)?;
            }
        }
        // Nobody has seen the table: there is nobody to be told.
        applier.net.clear();
        if let Some((last, _, _)) = some.last() {
            let done = r#"DELETE FROM "_kelvin.spool" WHERE "table" = ?1 AND seq <= ?2"#;
            connection.execute(done, params![id.0, last]).doing(doing)?;
        }
        Ok(some.len())
    }

    /// Other tables have changed, or an index of this one.
    fn follow(
        &mut self,
        connection: &'c Connection,
        table: &Table,
        catalogue: &Catalogue,
    ) -> Result<(), Error> {
        self.table = table.clone();
        self.rows = TableStatements::prepare(connection, table)?;
        self.comparison = Comparison::new(connection, catalogue, table)?;
        if let Some(applier) = &mut self.applier {
            applier.go_back(Arc::new(Catalogue::of_one(table)));
        }
        Ok(())
    }
}
