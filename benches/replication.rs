//! How fast changes get from Postgres into the replica: `cargo bench --bench replication`.
//!
//! Postgres, which this starts by itself with fsync off, the generator and Kelvin share
//! the machine. Arguments choose among `initial`, `large`, `small`, `backlog`; none means all.

#[path = "../tests/support/mod.rs"]
mod support;

use std::time::Instant;

use support::on_executor;
use support::postgres::{Cluster, Database};
use support::replicator::{Replicator, Scratch, settings};

/// Issues of the initial sync.
const ISSUES: u32 = 1_000_000;

const SCHEMA: &str = "
    CREATE TYPE issue_status AS ENUM ('open', 'in_progress', 'done', 'wontfix');
    CREATE TABLE issues (
      id text PRIMARY KEY, project_id text NOT NULL, num integer NOT NULL, title text NOT NULL, body text,
      status issue_status NOT NULL DEFAULT 'open', priority integer NOT NULL DEFAULT 0,
      estimate double precision, creator_id text NOT NULL, assignee_id text, meta jsonb,
      rev bigint NOT NULL DEFAULT 0, created_at timestamptz NOT NULL DEFAULT now(),
      updated_at timestamptz NOT NULL DEFAULT now(), UNIQUE (project_id, num));
    CREATE INDEX issues_created ON issues (created_at DESC, id);
    CREATE INDEX issues_assignee ON issues (assignee_id);
    CREATE INDEX issues_creator ON issues (creator_id);
    CREATE INDEX issues_status ON issues (status);
";

/// Rows number `from` up to before `to`.
fn rows(from: u32, to: u32) -> String {
    let mix = |salt: u32| format!("(((i::bigint + {salt}) * 2654435761) % 2147483648)");
    format!(
        "INSERT INTO issues SELECT 'i' || lpad(i::text, 7, '0'), 'p' || i % 1000, i / 1000 + 1,
           'Crash when saving ' || i,
           CASE WHEN i % 6 = 5 THEN NULL ELSE repeat('Lorem ipsum dolor sit amet. ', (1 + {} % 8)::int) END,
           (array['open','open','in_progress','done','wontfix'])[1 + {} % 5]::issue_status, i % 5,
           CASE WHEN i % 4 = 3 THEN NULL ELSE (i % 400) / 8.0 END, 'u' || {} % 10000,
           CASE WHEN i % 3 = 2 THEN NULL ELSE 'u' || {} % 10000 END,
           CASE WHEN i % 5 = 4 THEN NULL ELSE jsonb_build_object('k', i % 13, 'tags',
             jsonb_build_array('t' || i % 3, i)) END, 0,
           timestamptz '2025-01-01 00:00:00+00' + i * interval '1 second' + (i % 1000) * interval '1 ms',
           timestamptz '2025-06-01 00:00:00+00' + {} % 100000 * interval '1 second'
         FROM generate_series({from}, {}) i",
        mix(23),
        mix(29),
        mix(41),
        mix(43),
        mix(47),
        to - 1
    )
}

fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|f| f.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0
}

fn print(what: &str, rows: u32, started: Instant, cpu: f64) {
    let seconds = started.elapsed().as_secs_f64();
    println!(
        "{what}: {rows} rows in {seconds:.2} s = {:.0} rows/s; our CPU {:.2} s = {:.1} us/row",
        rows as f64 / seconds,
        cpu_seconds() - cpu,
        (cpu_seconds() - cpu) * 1e6 / rows as f64
    );
}

async fn large(database: &Database, replicator: &mut Replicator, from: u32, rows_in_it: u32) {
    replicator.catch_up(database).await;
    database.run(&rows(from, from + rows_in_it)).await;
    let (started, cpu) = (Instant::now(), cpu_seconds());
    replicator.catch_up(database).await;
    print("one transaction, from its commit", rows_in_it, started, cpu);
}

/// Rows to insert from, so that the generator costs little: `b` numbers the transaction.
async fn stage(database: &Database, from: u32) {
    database
        .run(
            "DROP SCHEMA IF EXISTS stage CASCADE; CREATE SCHEMA stage; CREATE TABLE stage.rows (LIKE issues)",
        )
        .await;
    let staged = rows(from, from + 20_000).replace("INSERT INTO issues", "INSERT INTO stage.rows");
    database.run(&staged).await;
    database
        .run(
            "ALTER TABLE stage.rows ADD b int; UPDATE stage.rows SET b = (substr(id, 2)::int) / 10;
             CREATE INDEX ON stage.rows (b); ANALYZE stage.rows",
        )
        .await;
}

async fn insert_staged(database: &Database, from: u32) {
    let columns = "id, project_id, num, title, body, status, priority, estimate, creator_id, assignee_id,
                   meta, rev, created_at, updated_at";
    database
        .run(&format!("PREPARE ins AS INSERT INTO issues SELECT {columns} FROM stage.rows WHERE b = $1"))
        .await;
    let mut pipelined = String::new();
    for transaction in 0..2_000 {
        pipelined.push_str(&format!("BEGIN; EXECUTE ins({}); COMMIT;", from / 10 + transaction));
        if transaction % 100 == 99 {
            database.run(&std::mem::take(&mut pipelined)).await;
        }
    }
    database.run("DEALLOCATE ins").await;
}

async fn small(database: &Database, replicator: &mut Replicator, from: u32) {
    stage(database, from).await;
    replicator.catch_up(database).await;
    let before = replicator.record.borrow().commits.len();
    let (started, cpu) = (Instant::now(), cpu_seconds());
    insert_staged(database, from).await;
    let written = started.elapsed();
    replicator.catch_up(database).await;
    print(&format!("2,000 transactions of 10 rows (written in {written:.2?})"), 20_000, started, cpu);
    println!("  commits handed out: {}", replicator.record.borrow().commits.len() - before);
}

/// The same, with the manager away while they are written.
async fn backlog(database: &Database, replicator: Replicator, from: u32) -> Replicator {
    let settings = settings(&database.target, &replicator.replica);
    stage(database, from).await;
    replicator.stop().await;
    insert_staged(database, from).await;
    let mut replicator = Replicator::start_with(settings, true);
    replicator.ready().await;
    let (started, cpu) = (Instant::now(), cpu_seconds());
    replicator.catch_up(database).await;
    print("backlog of 2,000 transactions of 10 rows", 20_000, started, cpu);
    println!("  commits handed out: {}", replicator.record.borrow().commits.len());
    replicator
}

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let has = move |name: &str| wanted.is_empty() || wanted.iter().any(|w| w == name);
    on_executor(move || async move {
        let cluster = Cluster::start("shared_buffers = 512MB");
        let database = cluster.database().await;
        let scratch = Scratch::new();
        database.run(SCHEMA).await;
        let base = if has("initial") { ISSUES } else { 100_000 };
        database.run(&rows(0, base)).await;
        database.run("VACUUM ANALYZE issues").await;
        database.run("CHECKPOINT").await;
        let (started, cpu) = (Instant::now(), cpu_seconds());
        let settings = settings(&database.target, &scratch.replica());
        let mut replicator = Replicator::start_with(settings, true);
        replicator.ready().await;
        print("initial sync with indexes", base, started, cpu);
        for line in &replicator.record.borrow().progress {
            println!("  {line}");
        }
        if has("large") {
            large(&database, &mut replicator, 2_000_000, 100_000).await;
            large(&database, &mut replicator, 2_100_000, 100_000).await;
        }
        if has("small") {
            small(&database, &mut replicator, 3_000_000).await;
            small(&database, &mut replicator, 3_100_000).await;
        }
        if has("backlog") {
            replicator = backlog(&database, replicator, 3_200_000).await;
        }
        let gauges = replicator.record.borrow().gauges.clone();
        println!("{gauges:?}, {} re-begins", replicator.record.borrow().rebegins);
        replicator.stop().await;
    });
}
