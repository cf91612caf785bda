//! `bench hydrate`: groups that connect at once and ask for many rows.

use std::time::{Duration, Instant};

use super::args::{Args, Flag};
use super::common::Common;
use super::error::BenchError;
use super::message::Search;
use super::meter::Meter;
use super::outcome::{Measured, Verdict, figure, usage_figures, who_was_full};
use super::query::Query;
use super::statistics::ratio;
use super::swarm::Swarm;

/// Flags of `bench hydrate`.
pub const FLAGS: &[Flag] = &[
    Flag { name: "groups", value: "N", default: Some("20"), help: "client groups, one client each" },
    Flag { name: "query", value: "NAME", default: Some("recent"), help: "issue.recent or issue.board" },
    Flag { name: "rows", value: "N", default: Some("1000"), help: "recent: rows per group" },
    Flag { name: "boards", value: "N", default: Some("20"), help: "board: queries per group" },
    Flag {
        name: "queries",
        value: "KIND",
        default: Some("different"),
        help: "same: all groups ask for the same; different: for --rows, --rows + 1, ... rows, or other boards; \
               further: the same, and one group has it already and stays",
    },
    Flag { name: "warm-up", value: "N", default: Some("3"), help: "groups before, which do not count" },
];

/// Rows of a group of the warm-up: enough to wake every part of the server, and never a
/// number that the run asks for.
const WARM_UP_ROWS: u64 = 500;
/// Time for the server to forget the groups of the warm-up.
const PAUSE: Duration = Duration::from_millis(500);

/// What is asked for.
struct Plan {
    /// The queries of each group.
    groups: Vec<Vec<Query>>,
    /// Rows that each group must be sent, where they are known.
    rows: Option<Vec<u64>>,
    /// A group that has its queries before the others come, and stays.
    present: Option<Vec<Query>>,
    warm_up: Vec<Vec<Query>>,
}

/// Runs `bench hydrate`.
pub fn run(args: &Args) -> Result<(), BenchError> {
    let common = Common::new(args)?;
    let kind = args.text("queries")?;
    let same = match kind {
        "same" | "further" => true,
        "different" => false,
        _ => return Err(BenchError::Usage(format!("--queries {kind}: same, different or further"))),
    };
    let groups: u64 = args.number("groups")?;
    let each: u64;
    let (mut plan, name) = match args.text("query")? {
        "recent" => {
            each = args.number("rows")?;
            (recent(groups, each, same, args.number("warm-up")?), String::new())
        }
        "board" => {
            each = args.number("boards")?;
            (boards(groups, each, same, args.number("warm-up")?), "board ".to_owned())
        }
        other => return Err(BenchError::Usage(format!("--query {other}: recent or board"))),
    };
    if kind == "further" {
        plan.present = plan.groups.first().cloned();
    }
    let measured = measure(&common, &plan);
    common.conclude(format!("hydrate {name}{groups} x {each} {kind}"), measured)
}

fn recent(groups: u64, rows: u64, same: bool, warm_up: u64) -> Plan {
    let limits: Vec<u64> = (0..groups).map(|g| if same { rows } else { rows + g }).collect();
    let warm_rows = WARM_UP_ROWS.min(rows / 2).max(1);
    Plan {
        groups: limits.iter().map(|limit| vec![Query::recent(*limit)]).collect(),
        rows: Some(limits),
        present: None,
        warm_up: (0..warm_up).map(|i| vec![Query::recent(warm_rows + i)]).collect(),
    }
}

fn boards(groups: u64, each: u64, same: bool, warm_up: u64) -> Plan {
    let first = |g: u64| if same { 0 } else { g * each };
    let boards = |first: u64| (first..first + each).map(Query::board).collect::<Vec<_>>();
    Plan {
        groups: (0..groups).map(|g| boards(first(g))).collect(),
        rows: None,
        present: None,
        warm_up: (0..warm_up).map(|i| vec![Query::recent(WARM_UP_ROWS + i)]).collect(),
    }
}

fn measure(common: &Common, plan: &Plan) -> Result<Measured, BenchError> {
    let deadline = common.deadline();
    Swarm::new(Search::Queries)?.gather(&common.target, &plan.warm_up, 1, deadline)?;
    std::thread::sleep(PAUSE);
    // It stays until the end, but is not read while the others are: nothing changes.
    let mut present = Swarm::new(Search::Queries)?;
    present.gather(&common.target, plan.present.as_slice(), 1, deadline)?;

    let mut swarm = Swarm::new(Search::Queries)?;
    let meter = Meter::start(common.pids);
    let begun = Instant::now();
    for queries in &plan.groups {
        swarm.add(&common.target, queries)?;
    }
    let all_got = |s: &Swarm| s.connections.iter().all(|c| c.got_at.is_some());
    swarm.run_until(deadline, "waiting for the queries of all groups", all_got, |_, _, _| ())?;
    let usage = meter.stop();
    check_rows(&swarm, plan)?;

    let times = || swarm.connections.iter().filter_map(|c| c.got_at).map(|at| at - begun);
    let wall = times().max().unwrap_or_default().as_secs_f64();
    let counts = swarm.counts();
    let rows = counts.rows as f64;
    let queries = plan.groups.iter().map(Vec::len).sum::<usize>() as f64;
    let mut figures = vec![figure("rows_rate", "rows/s", rows / wall)];
    let per_cpu = usage.server().cpu_s.and_then(|cpu| ratio(rows, cpu));
    figures.extend(per_cpu.map(|rate| figure("rows_per_cpu", "rows/s of CPU", rate)));
    figures.extend([
        figure("hydrations", "hydrations/s", queries / wall),
        figure("wall", "s", wall),
        figure("first_group", "s", times().min().unwrap_or_default().as_secs_f64()),
        figure("rows", "rows", rows),
        figure("received", "MB", counts.bytes as f64 / 1e6),
    ]);
    figures.extend(usage_figures(&usage));
    Ok(Measured { figures, verdict: Verdict::Valid, notes: vec![who_was_full(&usage)] })
}

/// A server that is fast because it sends less has not won anything.
fn check_rows(swarm: &Swarm, plan: &Plan) -> Result<(), BenchError> {
    let sent = |group: usize| swarm.connections[group].counts.rows;
    for (group, queries) in plan.groups.iter().enumerate() {
        // How many rows a board has is not known; but groups with equal queries have equally many.
        let wanted = match &plan.rows {
            Some(rows) => rows[group],
            None if plan.groups[0] == *queries => sent(0),
            None => sent(group),
        };
        if sent(group) == 0 || sent(group) != wanted {
            return Err(BenchError::NotFinished(format!(
                "group {group} was sent {} rows for {wanted} (are there as many?)",
                sent(group)
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn different_boards_are_all_different_and_shared_ones_all_the_same() {
        let plan = boards(5, 4, false, 0);
        let mut all: Vec<u64> = plan.groups.iter().flatten().map(|q| q.id).collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 20);
        let plan = boards(5, 4, true, 0);
        assert!(plan.groups.iter().all(|g| *g == plan.groups[0]));
    }
}
