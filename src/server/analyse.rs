//! Reads one query for the inspector, beside all that is served: what it gives, by which statements,
//! and how SQLite reads them (`docs/spec/sync-protocol.md` §18, "Result").

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kelvin_io::executor::{now, sleep, spawn};
use serde_json::{Map, Value, json};

use super::core::Core;
use super::serving::Serving;
use crate::core::effect::Reported;
use crate::core::session::Session;
use crate::model::catalogue::Catalogue;
use crate::protocol::dialect::Dialect;
use crate::protocol::inspect::Analyze;
use crate::protocol::row_part::RowPart;
use crate::replica::reader::{ReadError, Reader};
use crate::views::pace::Pace;
use crate::views::scan::{Chunk, Job, Witnesses};
use crate::zql::explain::{rows_statement, steps_of};
use crate::zql::limits::Limits;
use crate::zql::parser::{self, Strictness};
use crate::zql::plan::{Plan, plan};

/// Longest time that an analysis may read. Whoever waits for longer knows enough.
const LIMIT: Duration = Duration::from_secs(60);

/// Most bytes of rows that an answer has: browsers show it in a console.
const MAX_ROWS: usize = 2 << 20;

/// Analyses that a core has under way at a time: they are a developer's, and take a thread each.
const MAX_RUNNING: usize = 1;

/// What was read.
#[derive(Default)]
struct Analysed {
    /// Rows that statements gave, by node.
    read: Vec<u64>,
    /// Rows that a client would be sent.
    sent: u64,
    /// Those, with their nodes, if they are wanted.
    rows: Vec<(usize, Value)>,
    bytes: usize,
}

/// Reads the query and describes how. An error says why that is not possible.
pub async fn analyse(
    session: &Session,
    serving: &Serving,
    text: &str,
    wanted: &Analyze,
) -> Result<Value, String> {
    let ast = parser::parse(text, Strictness::Tolerant, &Limits::DEFAULT)
        .map_err(|error| format!("invalid query: {error}"))?;
    let begin = serving.with(|s| {
        let group = s.groups.get(session.request.group_id.as_str())?;
        let keys = group.schema.keys.clone();
        Some((keys, s.shared.catalogue.clone()))
    });
    let Some((keys, catalogue)) = begin else { return Err("the client group is gone".to_owned()) };
    let plan = Arc::new(plan(&ast, &catalogue, &*keys, &Limits::DEFAULT).map_err(|error| error.to_string())?);
    let layout = serving.with(|s| s.shared.views.layout(&plan, &catalogue));
    let job = Job {
        plan: plan.clone(),
        nodes: layout.identities.iter().copied().zip(layout.encoders.iter().cloned()).collect(),
        poke_id: Some("inspect".to_owned()),
        dialect: Dialect::Text,
        witnesses: Witnesses::new(),
        since: None,
    };
    let (started, began) = (milliseconds_of_day(), now());
    let (reader, result) = read(serving, job, wanted).await;
    let elapsed = now().saturating_duration_since(began).as_secs_f64() * 1e3;
    let described = result.map_err(|error| match error {
        ReadError::Interrupted => format!("it took longer than {} seconds", LIMIT.as_secs()),
        error => error.to_string(),
    });
    let described = described.and_then(|(found, driver)| {
        let reader = reader.as_ref().ok_or("the reading thread is gone")?;
        let report = Report { plan: &plan, catalogue: &catalogue, driver, found: &found };
        let times = [started, started + elapsed, elapsed];
        report.write(reader, wanted, times).map_err(|error| error.to_string())
    });
    reader.into_iter().for_each(|reader| serving.give_reader_back(reader));
    described
}

/// Counts an analysis for as long as it is under way.
pub struct Running<'c>(&'c Core);

impl Running<'_> {
    /// Begins one, if there is room.
    pub fn begin(core: &Core) -> Result<Running<'_>, String> {
        if core.analyses.get() >= MAX_RUNNING {
            return Err("another query is being analysed; try again".to_owned());
        }
        core.analyses.set(core.analyses.get() + 1);
        Ok(Running(core))
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.analyses.set(self.0.analyses.get() - 1);
    }
}

fn milliseconds_of_day() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64() * 1e3
}

/// Has a thread read it on a snapshot of its own.
async fn read(
    serving: &Serving,
    job: Job,
    wanted: &Analyze,
) -> (Option<Reader>, Result<(Analysed, usize), ReadError>) {
    let stop = Arc::new(AtomicBool::new(false));
    let begun = serving.take_reader().and_then(|mut reader| {
        reader.stop_when(stop.clone())?;
        reader.begin()?;
        Ok(reader)
    });
    let reader = match begun {
        Ok(reader) => reader,
        Err(error) => return (None, Err(error)),
    };
    let raised = stop.clone();
    let limit = spawn(async move {
        sleep(LIMIT).await;
        raised.store(true, Ordering::Relaxed);
    });
    let mut found = Analysed { read: vec![0; job.plan.nodes.len()], ..Analysed::default() };
    let messages = match serving.reading_threads.read(reader, job) {
        Ok(messages) => messages,
        Err(error) => return (None, Err(error)),
    };
    let mut taken = Ok(());
    let mut pace = serving.pace("analysing a query");
    let out = loop {
        pace.end();
        let Ok(message) = messages.recv().await else { break (None, Err(ReadError::Interrupted)) };
        pace.begin();
        match message {
            Reported::Chunk(chunk) if taken.is_ok() => {
                taken = found.take(&chunk, wanted);
                if taken.is_err() {
                    stop.store(true, Ordering::Relaxed);
                }
            }
            Reported::Chunk(_) => {}
            Reported::End(reader, result) => {
                let result = std::mem::replace(&mut taken, Ok(())).and(result);
                break (reader, result.map(|driver| (found, driver)));
            }
        }
        if pace.is_over() {
            pace.rest().await;
        }
    };
    pace.end();
    limit.cancel().await;
    out
}

impl Analysed {
    fn take(&mut self, chunk: &Chunk, wanted: &Analyze) -> Result<(), ReadError> {
        chunk.rows.iter().for_each(|row| self.read[row.node as usize] += 1);
        let encoded: Vec<usize> =
            chunk.rows.iter().filter(|row| row.encoded).map(|row| row.node as usize).collect();
        self.sent += encoded.len() as u64;
        if !wanted.synced_rows && !wanted.read_rows {
            return Ok(());
        }
        self.bytes += chunk.parts.iter().map(RowPart::bytes).sum::<usize>();
        if self.bytes > MAX_ROWS {
            let text = format!("the rows are more than {} MiB: ask without them", MAX_ROWS >> 20);
            return Err(ReadError::Unsupported(text));
        }
        let mut nodes = encoded.into_iter();
        for fragment in chunk.parts.iter().flat_map(RowPart::fragments) {
            let patch: Value = serde_json::from_slice(fragment).unwrap_or_default();
            self.rows.extend(nodes.next().zip(patch.get("value").cloned()));
        }
        Ok(())
    }
}

/// What is told of it.
struct Report<'r> {
    plan: &'r Plan,
    catalogue: &'r Catalogue,
    driver: usize,
    found: &'r Analysed,
}

impl Report<'_> {
    fn table(&self, node: usize) -> String {
        self.catalogue.get(self.plan.nodes[node].table).name.clone()
    }

    fn write(&self, reader: &Reader, wanted: &Analyze, times: [f64; 3]) -> Result<Value, ReadError> {
        let mut plans = Map::new();
        let mut counts: BTreeMap<String, BTreeMap<String, u64>> = BTreeMap::new();
        for (at, node) in self.plan.nodes.iter().enumerate() {
            let Some(sql) = rows_statement(node, self.driver) else { continue };
            plans.insert(sql.to_owned(), json!(steps_of(reader, sql)?));
            *counts.entry(self.table(at)).or_default().entry(sql.to_owned()).or_default() +=
                self.found.read[at];
        }
        let [start, end, elapsed] = times;
        let mut out = json!({
            "warnings": self.warnings(wanted),
            "syncedRowCount": self.found.sent,
            "start": start,
            "end": end,
            "elapsed": elapsed,
            "sqlitePlans": plans,
            "readRowCountsByQuery": counts,
            "readRowCount": self.found.read.iter().sum::<u64>(),
        });
        if wanted.synced_rows {
            out["syncedRows"] = self.synced_rows();
        }
        if wanted.read_rows {
            out["readRows"] = self.read_rows();
        }
        Ok(out)
    }

    fn warnings(&self, wanted: &Analyze) -> Vec<String> {
        let index_request = |index_request: &crate::replica::live_indexes::IndexRequest| {
            let table = self.catalogue.get(index_request.table);
            let columns: Vec<&str> =
                index_request.columns.iter().map(|c| table.columns[*c as usize].name.as_str()).collect();
            format!(
                "an index of {:?} on {} would be read by; it is made when the query is used",
                table.name,
                columns.join(", ")
            )
        };
        let unguarded = || "read permissions are not applied to a query that is spelled out".to_owned();
        let unguarded = wanted.named.is_none().then(unguarded);
        unguarded.into_iter().chain(self.plan.index_requests.iter().map(index_request)).collect()
    }

    fn synced_rows(&self) -> Value {
        let mut tables: BTreeMap<String, Vec<&Value>> = BTreeMap::new();
        for (node, row) in &self.found.rows {
            tables.entry(self.table(*node)).or_default().push(row);
        }
        json!(tables)
    }

    fn read_rows(&self) -> Value {
        let mut tables: BTreeMap<String, BTreeMap<&str, Vec<&Value>>> = BTreeMap::new();
        for (node, row) in &self.found.rows {
            let sql = rows_statement(&self.plan.nodes[*node], self.driver).unwrap_or_default();
            tables.entry(self.table(*node)).or_default().entry(sql).or_default().push(row);
        }
        json!(tables)
    }
}
