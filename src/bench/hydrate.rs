//! `bench hydrate`: groups that connect at once and ask for many rows.

use std::time::{Duration, Instant};

use super::args::{Args, Flag};
use super::common::Common;
use super::error::BenchError;
use super::message::Search;
use super::meter::Meter;
use super::outcome::{Measured, Verdict, figure, usage_figures, who_was_full};
use super::query::Query;
use super::swarm::Swarm;

/// Flags of `bench hydrate`.
pub const FLAGS: &[Flag] = &[
    Flag { name: "groups", value: "N", default: Some("20"), help: "client groups, one client each" },
    Flag { name: "rows", value: "N", default: Some("1000"), help: "rows of issue.recent per group" },
    Flag {
        name: "queries",
        value: "KIND",
        default: Some("different"),
        help: "same: all groups ask for --rows; different: for --rows, --rows + 1, and so on",
    },
    Flag { name: "warm-up", value: "N", default: Some("3"), help: "groups before, which do not count" },
];

/// Rows of a group of the warm-up: enough to wake every part of the server, and never a
/// number that the run asks for.
const WARM_UP_ROWS: u64 = 500;
/// Time for the server to forget the groups of the warm-up.
const PAUSE: Duration = Duration::from_millis(500);

/// Runs `bench hydrate`.
pub fn run(args: &Args) -> Result<(), BenchError> {
    let common = Common::new(args)?;
    let groups: u64 = args.number("groups")?;
    let rows: u64 = args.number("rows")?;
    let kind = args.text("queries")?;
    let limits: Vec<u64> = match kind {
        "same" => vec![rows; groups as usize],
        "different" => (rows..rows + groups).collect(),
        _ => return Err(BenchError::Usage(format!("--queries {kind}: same or different"))),
    };
    let measured = measure(&common, &limits, args.number("warm-up")?);
    common.conclude(format!("hydrate {groups} x {rows} {kind}"), measured)
}

fn measure(common: &Common, limits: &[u64], warm_up: u64) -> Result<Measured, BenchError> {
    let deadline = common.deadline();
    let least = limits.iter().copied().min().unwrap_or(0);
    let warm_rows = WARM_UP_ROWS.min(least / 2).max(1);
    let warm: Vec<Vec<Query>> = (0..warm_up).map(|i| vec![Query::recent(warm_rows + i)]).collect();
    Swarm::new(Search::Queries)?.gather(&common.target, &warm, 1, deadline)?;
    std::thread::sleep(PAUSE);

    let mut swarm = Swarm::new(Search::Queries)?;
    let meter = Meter::start(common.pids);
    let begun = Instant::now();
    for limit in limits {
        swarm.add(&common.target, &[Query::recent(*limit)])?;
    }
    let all_got = |s: &Swarm| s.connections.iter().all(|c| c.got_at.is_some());
    swarm.run_until(deadline, "waiting for the queries of all groups", all_got, |_, _, _| ())?;
    let usage = meter.stop();
    check_rows(&swarm, limits)?;

    let times = || swarm.connections.iter().filter_map(|c| c.got_at).map(|at| at - begun);
    let wall = times().max().unwrap_or_default().as_secs_f64();
    let counts = swarm.counts();
    let mut figures = vec![
        figure("rows_rate", "rows/s", counts.rows as f64 / wall),
        figure("wall", "s", wall),
        figure("first_group", "s", times().min().unwrap_or_default().as_secs_f64()),
        figure("rows", "rows", counts.rows as f64),
        figure("received", "MB", counts.bytes as f64 / 1e6),
    ];
    figures.extend(usage_figures(&usage));
    Ok(Measured { figures, verdict: Verdict::Valid, notes: vec![who_was_full(&usage)] })
}

/// A server that is fast because it sends less has not won anything.
fn check_rows(swarm: &Swarm, limits: &[u64]) -> Result<(), BenchError> {
    for (i, (connection, limit)) in swarm.connections.iter().zip(limits).enumerate() {
        if connection.counts.rows != *limit {
            return Err(BenchError::NotFinished(format!(
                "group {i} was sent {} rows for its {limit} (are there as many issues?)",
                connection.counts.rows
            )));
        }
    }
    Ok(())
}
