//! Fills tables that came while the replica follows: copies their rows as a temporary slot's snapshot shows them
//! (`docs/spec/schema-changes.md` S9).

use std::cell::RefCell;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::TryStreamExt;
use kelvin_io::executor;
use kelvin_io::postgres::{Connection, Walsender};

use super::copy::{self, Columns, Format};
use super::error::{Doing, Error};
use super::look::Looker;
use super::published::PublishedTable;
use super::settings::Settings;
use super::{check, slot, snapshot};
use crate::model::catalogue::{Catalogue, ColumnIndex, Table};
use crate::model::commit::Row;
use crate::model::logging::Level;
use crate::model::value::Value;
use crate::replica::events::Events;
use crate::replica::feed::{FillFeed, Stored, WriterGone};
use crate::replica::gauges::Gauges;
use crate::replica::work::Copied;

/// How often it is looked whether there is something to be filled.
const LOOK: Duration = Duration::from_millis(50);

/// Pause before a failed attempt is made again; doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// Longest pause between attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Bytes of rows that the writer is given at a time: some milliseconds of its time.
const CHUNK: usize = 128 << 10;

/// How often it is said how far a copy is.
const REPORT: Duration = Duration::from_secs(10);

/// Rows that it is given at most.
const ROWS: usize = 1_000;

/// Fills one table after the other.
pub struct Filler {
    /// Whom to connect to.
    pub settings: Rc<Settings>,
    /// What slots of this replica are called.
    pub slot: String,
    /// What the tables are where the stream is.
    pub catalogue: Rc<RefCell<Arc<Catalogue>>>,
    /// Has what was filled shown.
    pub looker: Rc<Looker>,
    /// Where to report.
    pub events: Rc<dyn Events>,
    /// The same, in numbers.
    pub gauges: Arc<Gauges>,
}

/// Why a table was not filled.
enum Obstacle {
    Error(Error),
    /// It is another one by now, which is filled in its place.
    Changed,
    /// The writer takes nothing more.
    WriterGone,
}

impl From<Error> for Obstacle {
    fn from(error: Error) -> Self {
        Obstacle::Error(error)
    }
}

impl From<WriterGone> for Obstacle {
    fn from(_: WriterGone) -> Self {
        Obstacle::WriterGone
    }
}

impl Filler {
    /// Fills whatever is to be filled, for as long as the writer takes it.
    pub async fn run(&self, feed: &FillFeed) {
        let mut pause = FIRST_PAUSE;
        loop {
            let Some(table) = self.next() else {
                executor::sleep(LOOK).await;
                continue;
            };
            match self.fill(&table, feed).await {
                Ok(()) => pause = FIRST_PAUSE,
                Err(Obstacle::WriterGone) => return,
                Err(Obstacle::Changed) => executor::sleep(LOOK).await,
                Err(Obstacle::Error(error)) => {
                    let fields = [
                        ("table", table.name.clone()),
                        ("error", error.to_string()),
                        ("pauseMs", pause.as_millis().to_string()),
                    ];
                    self.events.log(Level::Warn, "a table could not be filled; it is tried again", &fields);
                    executor::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    fn next(&self) -> Option<Table> {
        let (catalogue, looks) = (self.catalogue.borrow(), self.looker.looks.borrow());
        self.gauges.set_filling_tables(catalogue.filling().count() as u64);
        catalogue.filling().find(|table| !looks.filled.contains(&table.id)).cloned()
    }

    async fn fill(&self, table: &Table, feed: &FillFeed) -> Result<(), Obstacle> {
        let began = Instant::now();
        // A slot says exactly which transactions its snapshot shows, and is there only when all older ones have ended.
        let mut walsender = Walsender::connect(&self.settings.target, "zero-backfill-replication-session")
            .await
            .map_err(|e| check::explain_walsender(e, &self.settings.target.user))?;
        let slot = slot::create_temporary(&mut walsender, &self.slot).await?;
        let session = snapshot::session(&self.settings, &slot.snapshot, "zero-backfill-stream").await?;
        snapshot::lock(&session, table).await?;
        let published = self.looker.published(&session.client).await?;
        let published = published.tables.into_iter().find(|published| published.table.oid == table.oid);
        let published = published.filter(|published| is_same(&published.table, table));
        let published = published.ok_or(Obstacle::Changed)?;
        self.events.log(Level::Info, "filling a table", &[("table", table.name.clone())]);
        feed.begin(table.id, slot.version).await?;
        let rows = self.copy(&session, table, &published, feed).await?;
        // Neither the snapshot nor its slot is needed any more.
        drop((session, walsender));
        if !feed.end(table.id).await? {
            return Err(Obstacle::Changed);
        }
        self.looker.looks.borrow_mut().filled.insert(table.id);
        let seconds = began.elapsed().as_secs_f64();
        let fields =
            [("table", table.name.clone()), ("rows", rows.to_string()), ("seconds", format!("{seconds:.2}"))];
        self.events.log(Level::Info, "a table was filled", &fields);
        Ok(self.looker.look_anew().await?)
    }

    async fn copy(
        &self,
        session: &Connection,
        table: &Table,
        published: &PublishedTable,
        feed: &FillFeed,
    ) -> Result<u64, Obstacle> {
        let (format, doing) = (self.settings.copy_format, "copying a table that has come");
        let policy = |error| snapshot::explain_policy(error, &table.name);
        let sql = copy::statement(published, format);
        let messages = session.client.copy_out(sql.as_str()).await.doing(doing).map_err(policy)?;
        let mut messages = pin!(messages);
        let reading = Arc::new(Reading::new(table, format));
        let (mut chunk, mut size, mut first, mut total) = (Vec::new(), 0, true, 0);
        let (mut stored, mut reported): (Option<Stored>, _) = (None, Instant::now());
        self.gauges.set_filled_rows(0);
        loop {
            let message = messages.try_next().await.doing(doing).map_err(policy)?;
            let is_over = message.is_none();
            if let Some(message) = message {
                let row = copy::row(format, message, std::mem::take(&mut first));
                let row = row.map_err(|e| Error::Setup(format!("a copy of {}: {e}", table.name)))?;
                if let Some(row) = row {
                    size += row.len();
                    chunk.push(row);
                }
            }
            if size >= CHUNK || chunk.len() >= ROWS || (is_over && !chunk.is_empty()) {
                size = 0;
                let rows = reading.clone().rows(std::mem::take(&mut chunk));
                // These have come while the ones before were stored.
                total += count(stored.take()).await?;
                stored = Some(feed.rows(table.id, rows).await?);
                self.gauges.set_filled_rows(total);
            }
            if reported.elapsed() >= REPORT {
                reported = Instant::now();
                let fields = [("table", table.name.clone()), ("rows", total.to_string())];
                self.events.log(Level::Info, "a table is being filled", &fields);
            }
            if is_over {
                total += count(stored).await?;
                self.gauges.set_filled_rows(total);
                return Ok(total);
            }
        }
    }
}

/// Waits until rows are stored, if there are some, and says how many there were.
async fn count(stored: Option<Stored>) -> Result<u64, Obstacle> {
    match stored {
        Some(stored) => Ok(stored.count().await?.map_err(Error::Setup)?),
        None => Ok(0),
    }
}

/// Whether what is copied is what the catalogue expects.
fn is_same(published: &Table, table: &Table) -> bool {
    let there: Vec<ColumnIndex> = table.published_columns();
    let expected = there.iter().map(|at| &table.columns[usize::from(*at)]);
    let column = |c: &crate::model::catalogue::Column| (c.attnum, c.type_oid, c.name.clone());
    let copied = published.columns.iter().filter(|c| !c.is_exact_key());
    copied.map(column).eq(expected.map(column)) && published.row_filter == table.row_filter
}

/// How the rows of a copy become rows of the catalogue.
struct Reading {
    table: String,
    columns: Columns,
    /// Where each copied column belongs.
    places: Vec<ColumnIndex>,
    width: usize,
}

impl Reading {
    fn new(table: &Table, format: Format) -> Reading {
        let mut places = table.published_columns();
        places.extend(table.exact_key());
        let columns = Columns::of(format, table);
        Reading { table: table.name.clone(), columns, places, width: table.columns.len() }
    }

    fn rows(self: Arc<Self>, chunk: Vec<Bytes>) -> Copied {
        Box::new(move || chunk.iter().map(|row| self.row(row)).collect())
    }

    fn row(&self, bytes: &[u8]) -> Result<Row, String> {
        let mut values = vec![Value::Null; self.width];
        let whole = self.columns.read::<Bad>(bytes, |at, value| {
            values[usize::from(self.places[at])] = value.clone().into_value();
            Ok(())
        });
        match whole {
            Ok(true) => Ok(values.into_boxed_slice()),
            Ok(false) => Err(format!("a row of {} with other columns than its table", self.table)),
            Err(Bad(at, why)) => Err(format!("column {at} of table {}: {why}", self.table)),
        }
    }
}

struct Bad(usize, String);

impl From<(usize, super::types::Malformed)> for Bad {
    fn from((at, malformed): (usize, super::types::Malformed)) -> Self {
        Bad(at, malformed.to_string())
    }
}
