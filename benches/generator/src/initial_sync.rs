//! `bench initial-sync`: how fast a server that has just been started fills its replica.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::args::{Args, Flag};
use super::common::Common;
use super::error::BenchError;
use super::handshake::Target;
use super::message::Search;
use super::outcome::{Measured, Verdict, figure, megabytes};
use super::page;
use super::procfs;
use super::query::{self, Query};
use super::sql::Sql;
use super::swarm::Swarm;

/// Flags of `bench initial-sync`.
pub const FLAGS: &[Flag] = &[
    Flag { name: "upstream", value: "URL", default: None, help: "Postgres, where the rows are counted" },
    Flag {
        name: "started",
        value: "TIME",
        default: None,
        help: "when the server was started, in seconds since 1970 with a fraction (default: now)",
    },
];

/// How often the server is asked whether it is ready.
const POLL: Duration = Duration::from_millis(10);

/// Runs `bench initial-sync`.
pub fn run(args: &Args) -> Result<(), BenchError> {
    let common = Common::new(args)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let started: f64 = args.optional_number("started")?.unwrap_or(now.as_secs_f64());
    let before = Duration::try_from_secs_f64(now.as_secs_f64() - started).unwrap_or_default();
    let mut sql = Sql::connect(args.text("upstream")?)?;
    let issues = sql.number("select count(*) from issues")?;
    let measured = measure(&common, &mut sql, issues, Instant::now() - before);
    common.conclude(format!("initial-sync {issues} issues"), measured)
}

fn measure(common: &Common, sql: &mut Sql, issues: u64, started: Instant) -> Result<Measured, BenchError> {
    let deadline = common.deadline();
    while !ready(&common.target) {
        if common.pids.server.is_some_and(|pid| procfs::usage(pid).is_none()) {
            return Err(BenchError::NotFinished("the server is gone".to_owned()));
        }
        if Instant::now() >= deadline {
            return Err(BenchError::NotFinished("the server never became ready".to_owned()));
        }
        std::thread::sleep(POLL);
    }
    let wall = started.elapsed().as_secs_f64();
    let server = common.pids.server.and_then(procfs::usage);
    // "Ready" is worth what a client gets for it.
    Swarm::new(Search::Queries)?.gather(&common.target, &[vec![Query::recent(10)]], 1, deadline)?;
    let served = started.elapsed().as_secs_f64();
    let mut rows = 0;
    for table in query::tables() {
        rows += sql.number(&format!("select count(*) from {table}"))?;
    }
    let mut figures = vec![
        figure("rows_rate", "rows/s", rows as f64 / wall),
        figure("issues_rate", "rows/s", issues as f64 / wall),
        figure("wall", "s", wall),
        figure("first_client", "s", served),
        figure("rows", "rows", rows as f64),
    ];
    if let Some(server) = server {
        figures.push(figure("server_cpu", "s", server.cpu_s));
        figures.push(figure("server_pss", "MB", megabytes(server.pss_anon_kib + server.pss_shmem_kib)));
    }
    Ok(Measured { figures, verdict: Verdict::Valid, notes: Vec::new() })
}

/// Whether `GET /keepalive` is answered with 200.
fn ready(target: &Target) -> bool {
    page::get(target, "/keepalive").is_ok_and(|(status, _)| status == 200)
}
