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
        help: "issue.board queries per group, all different (with --shared: of all groups the same)",
    },
    Flag {
        name: "shared",
        value: "N",
        default: None,
        help: "groups that come later with the same queries: the memory of each is measured",
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
    let further: Option<u64> = args.optional_number("shared")?;
    let first = |group: u64| if further.is_some() { 0 } else { group * queries };
    let boards = |group| (first(group)..first(group) + queries).map(Query::board).collect();
    let wanted: Vec<Vec<Query>> = (0..groups + further.unwrap_or(0)).map(boards).collect();
    let plan = Plan { pid, first: groups as usize, wanted, settle, seconds };
    let measured = measure(&common, &plan);
    let shared = further.map(|n| format!(" shared, {n} more")).unwrap_or_default();
    common.conclude(format!("idle {groups} x {queries}{shared}"), measured)
}

struct Plan {
    pid: u32,
    /// Groups before the further ones.
    first: usize,
    /// The queries of all groups.
    wanted: Vec<Vec<Query>>,
    settle: Duration,
    seconds: Duration,
}

fn memory_mb(usage: &TreeUsage) -> f64 {
    megabytes(usage.pss_anon_kib + usage.pss_shmem_kib)
}

fn measure(common: &Common, plan: &Plan) -> Result<Measured, BenchError> {
    let gone = || BenchError::NotFinished("the server is gone".to_owned());
    let now = || procfs::usage(plan.pid).ok_or_else(gone);
    let (first, further) = plan.wanted.split_at(plan.first);
    let before = now()?;
    let mut swarm = Swarm::new(Search::Queries)?;
    swarm.gather(&common.target, first, CONNECTING, common.deadline())?;
    let rows = swarm.counts().rows;
    if rows == 0 {
        return Err(BenchError::NotFinished("no rows came: are there so many projects?".to_owned()));
    }
    swarm.idle(plan.settle)?;
    let mut per_further = None;
    if !further.is_empty() {
        let without = memory_mb(&now()?);
        swarm.gather(&common.target, further, CONNECTING, common.deadline())?;
        swarm.idle(plan.settle)?;
        per_further = Some((memory_mb(&now()?) - without) * 1e6 / 1024.0 / further.len() as f64);
    }
    let meter = Meter::start(common.pids);
    swarm.idle(plan.seconds)?;
    let usage = meter.stop();
    let after = usage.server().tree.ok_or_else(gone)?;
    let growth = memory_mb(&after) - memory_mb(&before);
    let cpu = usage.server().cpu_s.unwrap_or(0.0) / usage.wall.as_secs_f64();
    let mut figures = vec![
        figure("memory", "MB", memory_mb(&after)),
        figure("memory_before", "MB", memory_mb(&before)),
        figure("per_group", "KB", growth * 1e3 / plan.wanted.len().max(1) as f64),
        figure("idle_cpu", "% of a core", cpu * 100.0),
        figure("rows", "rows", rows as f64),
        figure("processes", "", after.processes as f64),
    ];
    figures.extend(per_further.map(|kib| figure("per_further_group", "KiB", kib)));
    figures.extend(usage_figures(&usage));
    let mut notes = Vec::new();
    if per_further.is_some() {
        notes.push("memory is of the processes; what the kernel keeps per socket is not in it".to_owned());
    }
    let late = swarm.counts().late_pongs;
    if late > 0 {
        notes.push(format!("{late} pongs came later than 5 s"));
    }
    Ok(Measured { figures, verdict: Verdict::Valid, notes })
}
