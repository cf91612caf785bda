//! How fast changes get from Postgres into the replica: `cargo bench --bench replication`.
//!
//! Postgres, which this starts by itself with fsync off, the generator and Kelvin share
//! the machine. Arguments choose among `initial`, `large`, `small`, `backlog`, `copy`, `log`, `ddl`;
//! none means all but the last three, which take minutes. `million` begins with a million issues
//! instead of a hundred thousand.

#[path = "../tests/support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use futures_util::TryStreamExt;
use kelvin::model::catalogue::Column;
use kelvin::upstream::copy::{self, Columns, Format};
use kelvin_io::executor;
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
    ticks(&std::fs::read_to_string("/proc/self/stat").unwrap_or_default())
}

/// User and system time of a process, in seconds.
fn ticks(stat: &str) -> f64 {
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|f| f.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0
}

/// Bytes that this process has given to the kernel to write, sockets included: the log,
/// and what checkpoints copy from it.
fn written_bytes() -> f64 {
    let io = std::fs::read_to_string("/proc/self/io").unwrap_or_default();
    let field = io.lines().find_map(|line| line.strip_prefix("wchar: "));
    field.and_then(|n| n.parse().ok()).unwrap_or(0.0)
}

/// What has been used until now.
struct Used {
    started: Instant,
    cpu: f64,
    written: f64,
}

impl Used {
    fn now() -> Used {
        Used { started: Instant::now(), cpu: cpu_seconds(), written: written_bytes() }
    }
}

fn print(what: &str, rows: u64, since: &Used) {
    let seconds = since.started.elapsed().as_secs_f64();
    let cpu = cpu_seconds() - since.cpu;
    println!(
        "{what}: {rows} rows in {seconds:.2} s = {:.0} rows/s; our CPU {cpu:.2} s = {:.1} us/row; {:.1} KiB/row written",
        rows as f64 / seconds,
        cpu * 1e6 / rows as f64,
        (written_bytes() - since.written) / 1024.0 / rows as f64
    );
}

async fn large(database: &Database, replicator: &mut Replicator, from: u32, rows_in_it: u32) {
    replicator.catch_up(database).await;
    database.run(&rows(from, from + rows_in_it)).await;
    let since = Used::now();
    replicator.catch_up(database).await;
    print("one transaction, from its commit", u64::from(rows_in_it), &since);
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
    let since = Used::now();
    insert_staged(database, from).await;
    let written = since.started.elapsed();
    replicator.catch_up(database).await;
    print(&format!("2,000 transactions of 10 rows (written in {written:.2?})"), 20_000, &since);
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
    let since = Used::now();
    replicator.catch_up(database).await;
    print("backlog of 2,000 transactions of 10 rows", 20_000, &since);
    println!("  commits handed out: {}", replicator.record.borrow().commits.len());
    replicator
}

/// CPU seconds of another process.
fn cpu_of(pid: i32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    ticks(&stat)
}

/// Reads all issues by COPY in both formats, and converts them as the initial sync does.
async fn copy(database: &Database, base: u32) {
    let columns = |status: &str| {
        format!(
            "id, project_id, num, title, body, {status}, priority, estimate, creator_id, assignee_id, meta, rev,
             created_at, updated_at"
        )
    };
    // As `published` reads them: type OIDs of the columns; the enum's own is none of these.
    let read = [25, 25, 23, 25, 25, 0, 23, 701, 25, 25, 3802, 20, 1184, 1184]
        .map(|type_oid| Column { type_oid, ..Column::default() });
    let connection = kelvin_io::postgres::connect(&database.target, "bench").await.expect("connected");
    let client = &connection.client;
    let pid: i32 = client.query_one("SELECT pg_backend_pid()", &[]).await.expect("a pid").get(0);
    for round in 0..4 {
        for format in [Format::Text, Format::Binary] {
            let (name, columns) = match format {
                Format::Text => ("text", columns("status")),
                Format::Binary => ("binary", columns("pg_catalog.textin(pg_catalog.enum_out(status))")),
            };
            let rules = Columns::new(format, &read);
            let sql = format!("COPY (SELECT {columns} FROM public.issues) TO STDOUT (FORMAT {name})");
            let (since, server) = (Used::now(), cpu_of(pid));
            let (mut bytes, mut first) = (0, true);
            let lines = client.copy_out(sql.as_str()).await.expect("COPY begins");
            let mut lines = std::pin::pin!(lines);
            while let Some(message) = lines.try_next().await.expect("COPY goes on") {
                bytes += message.len();
                let row = copy::row(format, message, std::mem::take(&mut first)).expect("a copy");
                let Some(row) = row else { continue };
                let whole = rules.read::<Bad>(&row, |_, value| {
                    std::hint::black_box(value);
                    Ok(())
                });
                assert!(whole.is_ok_and(|whole| whole));
            }
            // The first round warms the caches.
            if round > 0 {
                print(
                    &format!(
                        "COPY {name}, {} MB, server CPU {:.2} s",
                        bytes / 1_000_000,
                        cpu_of(pid) - server
                    ),
                    u64::from(base),
                    &since,
                );
            }
        }
    }
}

#[derive(Debug)]
struct Bad;

impl From<(usize, kelvin::upstream::types::Malformed)> for Bad {
    fn from(_: (usize, kelvin::upstream::types::Malformed)) -> Self {
        Bad
    }
}

/// Readers that the log has: as many as a machine with this many cores would have.
const READERS: usize = 4;

/// Writes without pause for a minute with readers that begin again when they are asked,
/// then with ones that refuse for a while, and says how large the log became.
async fn log(database: &Database, replicator: &mut Replicator, from: u32) {
    replicator.record.borrow_mut().add_readers(READERS);
    let mut next = from;
    for (what, busy, seconds) in [
        ("readers that begin again", false, 60),
        ("busy readers", true, 10),
        ("readers that begin again", false, 20),
    ] {
        replicator.record.borrow_mut().busy = busy;
        replicator.record.borrow_mut().largest_log = 0;
        let gauges = replicator.gauges();
        let (rows, restarts) = (gauges.rows_applied(), gauges.wal_restarts());
        let since = Used::now();
        while since.started.elapsed().as_secs() < seconds {
            let mut pipelined = String::new();
            for _ in 0..100 {
                pipelined.push_str(&format!("BEGIN; {}; COMMIT;", crate::rows(next, next + 10)));
                next += 10;
            }
            database.run(&pipelined).await;
        }
        print(what, gauges.rows_applied() - rows, &since);
        println!(
            "  largest log {} MiB, {} restarts, commits held for at most {:?}",
            replicator.record.borrow().largest_log >> 20,
            gauges.wal_restarts() - restarts,
            gauges.longest_hold()
        );
    }
    replicator.catch_up(database).await;
}

/// Milliseconds from before a small write until the replica has it, again and again for so many seconds.
async fn latencies(database: &Database, replicator: &mut Replicator, seconds: f64) -> Vec<f64> {
    let (started, mut all) = (Instant::now(), Vec::new());
    while started.elapsed().as_secs_f64() < seconds {
        let began = Instant::now();
        // It writes a row by itself.
        replicator.catch_up(database).await;
        all.push(began.elapsed().as_secs_f64() * 1e3);
        executor::sleep(Duration::from_millis(2)).await;
    }
    all.sort_by(f64::total_cmp);
    all
}

fn print_latencies(what: &str, all: &[f64]) {
    let at = |share: f64| all[((all.len() - 1) as f64 * share) as usize];
    println!(
        "{what}: {} writes, p50 {:.1} ms, p99 {:.1} ms, longest {:.1} ms",
        all.len(),
        at(0.5),
        at(0.99),
        at(1.0)
    );
}

/// Changes tables while somebody writes: how long writes wait for that, and how fast a table is filled.
async fn ddl(database: &Database, replicator: &mut Replicator, base: u32) {
    let other = Database::open(database.target.clone()).await;
    print_latencies("no change", &latencies(database, replicator, 3.0).await);
    for statement in [
        "ALTER TABLE issues ADD COLUMN extra text DEFAULT 'x'",
        "ALTER TABLE issues RENAME COLUMN extra TO extra2",
        "ALTER TABLE issues ALTER COLUMN priority DROP NOT NULL",
        "ALTER TABLE issues DROP COLUMN extra2",
        "CREATE INDEX issues_rev ON issues (rev)",
    ] {
        other.run(statement).await;
        print_latencies(statement, &latencies(database, replicator, 3.0).await);
    }
    other.run("CREATE SCHEMA apart; CREATE TABLE apart.copied (LIKE issues INCLUDING INDEXES)").await;
    other.run("INSERT INTO apart.copied SELECT * FROM issues").await;
    other.run("VACUUM ANALYZE apart.copied").await;
    // A name that comes back for another table would need a new sync.
    for (what, name, writes) in
        [("filling a table", "copied", false), ("filling a table under writes", "again", true)]
    {
        replicator.catch_up(database).await;
        let filled = |replicator: &Replicator| {
            replicator.record.borrow().log.iter().filter(|line| line.contains("has been filled")).count()
        };
        let before = filled(replicator);
        let since = Used::now();
        other.run(&format!("ALTER TABLE apart.{name} SET SCHEMA public")).await;
        let mut written = 0;
        let mut all = Vec::new();
        while filled(replicator) == before {
            if writes {
                let one = |n: u64| {
                    format!("UPDATE {name} SET rev = rev + 1 WHERE id = 'i' || lpad('{n}', 7, '0');")
                };
                let from = written % u64::from(base - 100);
                other.run(&(from..from + 50).map(one).collect::<String>()).await;
                written += 50;
            }
            all.extend(latencies(database, replicator, 0.01).await);
        }
        print(what, u64::from(base), &since);
        println!("  {:.0} updates/s beside it", written as f64 / since.started.elapsed().as_secs_f64());
        all.sort_by(f64::total_cmp);
        print_latencies("  writes meanwhile", &all);
        other
            .run(&format!(
                "ALTER TABLE {name} SET SCHEMA apart; ALTER TABLE IF EXISTS apart.copied RENAME TO again"
            ))
            .await;
        executor::sleep(Duration::from_secs(3)).await;
    }
}

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let has = move |name: &str| {
        (wanted.is_empty() && !["log", "copy", "ddl", "million"].contains(&name))
            || wanted.iter().any(|w| w == name)
    };
    on_executor(move || async move {
        let cluster = Cluster::start("shared_buffers = 512MB");
        let database = cluster.database().await;
        let scratch = Scratch::new();
        database.run(SCHEMA).await;
        let base = if has("initial") || has("million") { ISSUES } else { 100_000 };
        database.run(&rows(0, base)).await;
        database.run("VACUUM ANALYZE issues").await;
        database.run("CHECKPOINT").await;
        if has("copy") {
            copy(&database, base).await;
        }
        let since = Used::now();
        let settings = settings(&database.target, &scratch.replica());
        let mut replicator = Replicator::start_with(settings, true);
        replicator.ready().await;
        print("initial sync with indexes", u64::from(base), &since);
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
        if has("log") {
            log(&database, &mut replicator, 4_000_000).await;
        }
        if has("ddl") {
            ddl(&database, &mut replicator, base).await;
        }
        let gauges = replicator.record.borrow().gauges.clone();
        println!("{gauges:?}, {} re-begins", replicator.record.borrow().rebegins);
        replicator.stop().await;
    });
}
