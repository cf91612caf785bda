//! The initial sync: a new slot, and a copy of every published row as the slot's snapshot
//! shows it (`docs/spec/replication.md` §8).

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::TryStreamExt;
use futures_util::future::{self, Either};
use kelvin_io::channel::{Receiver, Sender, bounded};
use kelvin_io::executor;
use kelvin_io::postgres::{Connection, Walsender, connect, until_closed};

use super::copy::{self, Columns, Format};
use super::error::{Doing, Error};
use super::progress::{Progress, describe};
use super::published::{self, Published};
use super::settings::Settings;
use super::shard::Shard;
use super::slot::{self, NewSlot};
use super::types::Malformed;
use super::{check, replicas, snapshot};
use crate::model::catalogue::{Catalogue, Table};
use crate::model::ids::TableId;
use crate::model::logging::Level;
use crate::model::table_map::TableMap;
use crate::replica::events::Events;
use crate::replica::gauges::Gauges;
use crate::replica::load::{self, Loader};
use crate::replica::metadata::Metadata;

/// Bytes of rows that go to the loader together; fewer switches between tables and
/// threads, and small beside the page cache.
const CHUNK: usize = 256 << 10;

/// Chunks that may wait for the loader.
const CHUNKS: usize = 32;

/// How often progress is reported.
const REPORT: Duration = Duration::from_secs(1);

/// What identifies the upstream database.
#[derive(Debug, Clone)]
pub struct Upstream {
    /// Settings of the server.
    pub server: check::Server,
    /// `system_identifier`.
    pub system_identifier: String,
}

/// Replaces the replica by a new one. On failure the slot is dropped again.
pub async fn run(
    settings: &Settings,
    shard: &Shard,
    upstream: &Upstream,
    epoch: u64,
    events: &Rc<dyn Events>,
    gauges: &Gauges,
) -> Result<Metadata, Error> {
    events.progress("initial sync: creating the replication slot");
    let connection =
        connect(&settings.target, "zero-initial-sync").await.doing("connecting for the initial sync")?;
    let mut walsender = Walsender::connect(&settings.target, "zero-initial-sync-slot")
        .await
        .map_err(|e| check::explain_walsender(e, &settings.target.user))?;
    let failover = settings.failover && slot::can_fail_over(upstream.server.version);
    if settings.failover && !failover {
        events.log(
            Level::Warn,
            "ZERO_UPSTREAM_PG_REPLICATION_SLOT_FAILOVER is ignored: Postgres has failover slots since version 17",
            &[("version", (upstream.server.version / 10_000).to_string())],
        );
    }
    let slot = new_slot(&connection, &mut walsender, shard, failover).await?;
    events.log(
        Level::Info,
        "created replication slot",
        &[("slot", slot.name.clone()), ("version", slot.version.to_lexi())],
    );
    let copied = copy_all(settings, shard, upstream, epoch, (events, gauges), &slot).await;
    if copied.is_err() {
        // The session that exported the snapshot also keeps the slot busy.
        drop(walsender);
        until_closed().await;
        let _ = replicas::release(&connection.client, shard, &slot.name).await;
        if let Err(e) = slot::drop_slot(&connection.client, &slot.name).await {
            events.log(
                Level::Warn,
                "could not drop the slot of a failed initial sync",
                &[("slot", slot.name.clone()), ("error", e.to_string())],
            );
        }
    }
    copied
}

async fn new_slot(
    connection: &Connection,
    walsender: &mut Walsender,
    shard: &Shard,
    failover: bool,
) -> Result<NewSlot, Error> {
    let client = &connection.client;
    slot::lock(client, shard).await?;
    slot::release_dead(client, shard).await?;
    slot::drop_unclaimed(client, shard).await?;
    check::check(client, 1).await?;
    let slot = slot::create(client, walsender, shard, failover).await?;
    // The id is a time, as the reference's.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let id = now.as_millis().to_string();
    slot::mark_alive(client, &slot.name).await?;
    replicas::claim(client, shard, &id, &slot.name, slot.version).await?;
    slot::unlock(client, shard).await?;
    Ok(slot)
}

async fn copy_all(
    settings: &Settings,
    shard: &Shard,
    upstream: &Upstream,
    epoch: u64,
    (events, gauges): (&Rc<dyn Events>, &Gauges),
    slot: &NewSlot,
) -> Result<Metadata, Error> {
    let first = snapshot::session(settings, &slot.snapshot, "zero-initial-sync-copy-worker").await?;
    let published = published::read(&first.client, &shard.publications(), upstream.server.version).await?;
    for warning in &published.warnings {
        events.log(Level::Warn, warning, &[]);
    }
    let metadata = Metadata {
        catalogue: published.catalogue(epoch),
        system_identifier: upstream.system_identifier.clone(),
        database_oid: upstream.server.database_oid,
        slot: slot.name.clone(),
        publications: shard.publications(),
        shard: shard.schema(),
        replica_version: slot.version,
        state_version: slot.version,
        position: slot.version,
        resync: None,
    };
    let total = estimate(&first, &published).await?;
    let workers = settings.copy_workers.clamp(1, published.tables.len().max(1));
    let mut sessions = vec![first];
    for _ in 1..workers {
        sessions.push(snapshot::session(settings, &slot.snapshot, "zero-initial-sync-copy-worker").await?);
    }
    let progress = Arc::new(Progress::default());
    let format = settings.copy_format;
    let (chunks, result) = start_loader(settings, &metadata, progress.clone())?;
    let tables = Rc::new(RefCell::new(largest_last(&metadata.catalogue, published, &total, format)));
    let copying =
        future::try_join_all(sessions.into_iter().map(|session| {
            worker(session, slot, tables.clone(), format, (chunks.clone(), progress.clone()))
        }));
    let all = async {
        copying.await?;
        // An early end of the loader is reported by its result.
        let _ = chunks.send(Work::Finish(Box::new(metadata.clone()))).await;
        drop(chunks);
        result.recv().await.map_err(|_| Error::Replica(crate::replica::Error::ThreadGone("initial-sync")))?
    };
    gauges.set_copied_rows(0);
    gauges.set_expected_rows(total.iter().sum());
    let report = report(&progress, gauges, events);
    match future::select(std::pin::pin!(all), std::pin::pin!(report)).await {
        Either::Left((loaded, _)) => loaded?,
        Either::Right((never, _)) => match never {},
    }
    let rows = progress.rows.load(Ordering::Relaxed);
    copied(gauges, rows);
    // The estimate may have been too large as well.
    gauges.set_expected_rows(rows);
    let seconds = progress.started.elapsed().as_secs_f64();
    events.log(
        Level::Info,
        "initial sync complete",
        &[
            ("rows", rows.to_string()),
            ("seconds", format!("{seconds:.1}")),
            ("rowsPerSecond", format!("{:.0}", rows as f64 / seconds.max(0.001))),
        ],
    );
    Ok(metadata)
}

/// Rows per table as the planner believes, in the order of `published`.
async fn estimate(session: &Connection, published: &Published) -> Result<Vec<u64>, Error> {
    let oids: Vec<u32> = published.tables.iter().map(|t| t.table.oid).collect();
    // A partitioned table has its rows in its leaves; one never analysed says -1.
    let rows = session
        .client
        .query(
            "SELECT o.oid, coalesce((SELECT sum(greatest(c.reltuples, 0))
                                       FROM pg_partition_tree(o.oid) p JOIN pg_class c ON c.oid = p.relid
                                      WHERE p.isleaf),
                                    greatest((SELECT reltuples FROM pg_class WHERE oid = o.oid), 0))::int8
               FROM unnest($1::oid[]) WITH ORDINALITY AS o(oid, n) ORDER BY o.n",
            &[&oids],
        )
        .await
        .doing("estimating the number of rows")?;
    Ok(rows.iter().map(|row| row.get::<_, i64>(1).max(0) as u64).collect())
}

struct CopyTable {
    id: TableId,
    table: Table,
    sql: String,
}

/// Copy jobs, to be taken from the end: the largest table first, so that it does not
/// remain alone at last.
fn largest_last(catalogue: &Catalogue, published: Published, rows: &[u64], format: Format) -> Vec<CopyTable> {
    let mut jobs: Vec<(u64, CopyTable)> = published
        .tables
        .iter()
        .zip(rows)
        .filter_map(|(published, rows)| {
            let id = catalogue.table(&published.table.name)?.id;
            let (table, sql) = (published.table.clone(), copy::statement(published, format));
            Some((*rows, CopyTable { id, table, sql }))
        })
        .collect();
    jobs.sort_by_key(|(rows, _)| *rows);
    jobs.into_iter().map(|(_, job)| job).collect()
}

enum Work {
    Rows { table: TableId, rows: Vec<Bytes> },
    Finish(Box<Metadata>),
}

/// Copies tables until none is left.
async fn worker(
    session: Connection,
    slot: &NewSlot,
    tables: Rc<RefCell<Vec<CopyTable>>>,
    format: Format,
    (chunks, progress): (Sender<Work>, Arc<Progress>),
) -> Result<(), Error> {
    let doing = "copying a table";
    loop {
        let Some(job) = tables.borrow_mut().pop() else { return Ok(()) };
        session.client.batch_execute("COMMIT").await.doing(doing)?;
        snapshot::begin(&session, &slot.snapshot).await?;
        snapshot::lock(&session, &job.table).await?;
        if let Ok(mut table) = progress.table.lock() {
            table.clone_from(&job.table.name);
        }
        let copied = session.client.copy_out(job.sql.as_str()).await.doing(doing);
        let rows = copied.map_err(|error| snapshot::explain_policy(error, &job.table.name))?;
        let mut rows = std::pin::pin!(rows);
        let mut chunk = Vec::new();
        let mut size = 0;
        let mut first = true;
        let policy = |error| snapshot::explain_policy(error, &job.table.name);
        while let Some(message) = rows.try_next().await.doing(doing).map_err(policy)? {
            let row = copy::row(format, message, std::mem::take(&mut first));
            let Some(row) = row.map_err(|e| protocol(&e.to_string()))? else { continue };
            size += row.len();
            chunk.push(row);
            if size >= CHUNK {
                send(&chunks, job.id, std::mem::take(&mut chunk)).await?;
                size = 0;
            }
        }
        send(&chunks, job.id, chunk).await?;
    }
}

async fn send(chunks: &Sender<Work>, table: TableId, rows: Vec<Bytes>) -> Result<(), Error> {
    // The loader has failed; its result says why.
    let _ = chunks.send(Work::Rows { table, rows }).await;
    Ok(())
}

type LoadResult = Result<(), Error>;

fn start_loader(
    settings: &Settings,
    metadata: &Metadata,
    progress: Arc<Progress>,
) -> Result<(Sender<Work>, Receiver<LoadResult>), Error> {
    let (chunks, work) = bounded(CHUNKS);
    let (sender, result) = bounded(1);
    let (path, how) = (settings.replica_file.clone(), (settings.copy_format, settings.row_limit));
    let metadata = metadata.clone();
    std::thread::Builder::new()
        .name("initial-sync".into())
        .spawn(move || {
            let loaded = load_rows(&path, &metadata, how, &work, &progress);
            // Closed at once, so that no worker goes on copying for nothing.
            work.close();
            let _ = sender.try_send(loaded);
        })
        .map_err(|source| {
            let path = settings.replica_file.clone();
            Error::Replica(crate::replica::Error::Io { doing: "starting a thread for", path, source })
        })?;
    Ok((chunks, result))
}

/// The loader's thread.
fn load_rows(
    path: &std::path::Path,
    metadata: &Metadata,
    (format, row_limit): (Format, usize),
    work: &Receiver<Work>,
    progress: &Progress,
) -> LoadResult {
    let catalogue = Arc::new(metadata.catalogue.clone());
    let columns: TableMap<Columns> =
        catalogue.tables().map(|table| (table.id, Columns::of(format, table))).collect();
    let connection = load::open(path, &catalogue)?;
    let mut loader = Loader::new(&connection, catalogue.clone(), metadata.replica_version);
    loader.row_limit = row_limit;
    let finished = loop {
        match work.recv_blocking() {
            Ok(Work::Rows { table, rows }) => {
                load_chunk(&mut loader, &catalogue, table, &columns[table], &rows)?;
                progress.rows.fetch_add(rows.len() as u64, Ordering::Relaxed);
            }
            Ok(Work::Finish(metadata)) => break metadata,
            // Given up from above.
            Err(_) => return Ok(()),
        }
    };
    drop(loader);
    load::finish(connection, path, &finished, |table, at, of| {
        if let Ok(mut phase) = progress.phase.lock() {
            *phase = Some(format!("initial sync: building index {} of {of} ({table})", at + 1));
        }
    })?;
    Ok(())
}

fn load_chunk(
    loader: &mut Loader<'_>,
    catalogue: &Catalogue,
    id: TableId,
    columns: &Columns,
    rows: &[Bytes],
) -> Result<(), Error> {
    let mut table = loader.table(id)?;
    for row in rows {
        let whole = columns.read::<LoadError>(row, |at, value| Ok(table.set(at, value)?));
        if !whole.map_err(|e| e.of(catalogue, id))? {
            return Err(protocol("a row with other columns than its table"));
        }
        table.insert()?;
    }
    Ok(())
}

fn protocol(what: &str) -> Error {
    let source = kelvin_io::postgres::Error::Protocol(what.to_owned());
    Error::Postgres { doing: "copying a table", source }
}

enum LoadError {
    Value(usize, Malformed),
    Replica(crate::replica::Error),
}

impl LoadError {
    fn of(self, catalogue: &Catalogue, id: TableId) -> Error {
        match self {
            LoadError::Replica(e) => Error::Replica(e),
            LoadError::Value(at, source) => {
                let table = catalogue.get(id);
                Error::Value { column: format!("{}.{}", table.name, table.columns[at].name), source }
            }
        }
    }
}

impl From<(usize, Malformed)> for LoadError {
    fn from((at, malformed): (usize, Malformed)) -> Self {
        LoadError::Value(at, malformed)
    }
}

impl From<crate::replica::Error> for LoadError {
    fn from(e: crate::replica::Error) -> Self {
        LoadError::Replica(e)
    }
}

/// Reports progress until it is dropped.
async fn report(progress: &Progress, gauges: &Gauges, events: &Rc<dyn Events>) -> std::convert::Infallible {
    let total = gauges.expected_rows();
    let mut last = (Instant::now(), 0);
    loop {
        executor::sleep(REPORT).await;
        let rows = progress.rows.load(Ordering::Relaxed);
        copied(gauges, rows);
        let rate = (rows - last.1) as f64 / last.0.elapsed().as_secs_f64().max(0.001);
        last = (Instant::now(), rows);
        let phase = progress.phase.lock().ok().and_then(|phase| phase.clone());
        let table = progress.table.lock().map(|table| table.clone()).unwrap_or_default();
        events.progress(&phase.unwrap_or_else(|| describe(rows, total, rate, &table)));
    }
}

/// So many rows have been copied. What is expected was an estimate: it is corrected first, so that whoever
/// looks sees no more rows than are expected.
fn copied(gauges: &Gauges, rows: u64) {
    gauges.set_expected_rows(gauges.expected_rows().max(rows));
    gauges.set_copied_rows(rows);
}
