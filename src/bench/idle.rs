//! `bench idle`: groups that are connected and quiet.

use std::time::Duration;

use super::args::{Args, Flag};
use super::common::Common;
use super::error::BenchError;
use super::message::Search;
use super::meter::Meter;
use super::outcome::{Measured, Verdict, figure, megabytes, usage_figures};
use super::procfs::{self, TreeUsage};
use super::query::Query;
use super::swarm::Swarm;

/// Flags of `bench idle`.
pub const FLAGS: &[Flag] = &[
    Flag { name: "groups", value: "N", default: Some("200"), help: "client groups, one client each" },
    Flag {
        name: "queries",
        value: "N",
        default: Some("5"),
        help: "issue.board queries per group, all different",
    },
    Flag {
        name: "settle",
        value: "S",
        default: Some("10"),
        help: "seconds between the last rows and the measurement",
    },
    Flag {
        name: "seconds",
        value: "S",
        default: Some("10"),
        help: "seconds over which idle CPU is measured",
    },
];

/// Groups that may wait for their rows at the same time.
const CONNECTING: usize = 8;

/// Runs `bench idle`.
pub fn run(args: &Args) -> Result<(), BenchError> {
    let common = Common::new(args)?;
    let groups: u64 = args.number("groups")?;
    let queries: u64 = args.number("queries")?;
    let settle = Duration::from_secs(args.number("settle")?);
    let seconds = Duration::from_secs(args.number("seconds")?);
    let pid = common.pids.server.ok_or_else(|| BenchError::Usage("idle needs --server-pid".to_owned()))?;
    let wanted: Vec<Vec<Query>> =
        (0..groups).map(|g| (g * queries..(g + 1) * queries).map(Query::board).collect()).collect();
    let measured = measure(&common, pid, &wanted, settle, seconds);
    common.conclude(format!("idle {groups} x {queries}"), measured)
}

fn memory_mb(usage: &TreeUsage) -> f64 {
    megabytes(usage.pss_anon_kib + usage.pss_shmem_kib)
}

fn measure(
    common: &Common,
    pid: u32,
    wanted: &[Vec<Query>],
    settle: Duration,
    seconds: Duration,
) -> Result<Measured, BenchError> {
    let gone = || BenchError::NotFinished("the server is gone".to_owned());
    let before = procfs::usage(pid).ok_or_else(gone)?;
    let mut swarm = Swarm::new(Search::Queries)?;
    swarm.gather(&common.target, wanted, CONNECTING, common.deadline())?;
    let rows = swarm.counts().rows;
    if rows == 0 {
        return Err(BenchError::NotFinished("no rows came: are there so many projects?".to_owned()));
    }
    swarm.idle(settle)?;
    let meter = Meter::start(common.pids);
    swarm.idle(seconds)?;
    let usage = meter.stop();
    let after = usage.server().tree.ok_or_else(gone)?;
    let mut figures = vec![
        figure("memory", "MB", memory_mb(&after)),
        figure("memory_before", "MB", memory_mb(&before)),
        figure(
            "per_group",
            "KB",
            (memory_mb(&after) - memory_mb(&before)) * 1e3 / wanted.len().max(1) as f64,
        ),
        figure(
            "idle_cpu",
            "% of a core",
            usage.server().cpu_s.unwrap_or(0.0) / usage.wall.as_secs_f64() * 100.0,
        ),
        figure("rows", "rows", rows as f64),
        figure("processes", "", after.processes as f64),
    ];
    figures.extend(usage_figures(&usage));
    let late = swarm.counts().late_pongs;
    let notes = if late > 0 { vec![format!("{late} pongs came later than 5 s")] } else { Vec::new() };
    Ok(Measured { figures, verdict: Verdict::Valid, notes })
}
