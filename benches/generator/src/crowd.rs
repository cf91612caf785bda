//! `bench crowd`: more clients come than a server has memory for, each with many rows that nobody else
//! has. Are those that it serves already served as before, and what are the others told?

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::args::{Args, Flag};
use super::audience::Audience;
use super::change::Change;
use super::common::Common;
use super::error::BenchError;
use super::message::Search;
use super::outcome::{Figure, Measured, Verdict, figure, usage_figures, who_was_full};
use super::procfs;
use super::query::Query;
use super::round::{Round, Seen};
use super::sql::Sql;
use super::swarm::Swarm;

/// Flags of `bench crowd`, besides those of a round.
pub const FLAGS: &[Flag] = &[
    Flag {
        name: "clients",
        value: "N",
        default: Some("100"),
        help: "clients that are there before, and stay",
    },
    Flag { name: "window", value: "N", default: Some("20"), help: "rows of the query that they have" },
    Flag { name: "calm", value: "S", default: Some("10"), help: "seconds before the crowd comes" },
    Flag {
        name: "groups",
        value: "N",
        default: Some("2000"),
        help: "groups of the crowd, of one client each",
    },
    Flag { name: "queries", value: "N", default: Some("20"), help: "queries of each, that nobody else has" },
    Flag { name: "rows", value: "N", default: Some("1000"), help: "rows of each of them, at least" },
];

/// Clients that may wait for their first rows at the same time.
const CONNECTING: usize = 32;
/// Connections that the crowd opens in one turn: all of it comes within seconds.
const PER_TURN: usize = 20;
/// How long one turn waits.
const TURN: Duration = Duration::from_millis(20);
/// How often the server's memory is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// What a client is told that is to come back later, and the shortest time that a stock client waits.
const RETRYABLE: &str = "ServerOverloaded";
const STOCK_WAIT: Duration = Duration::from_secs(5);

struct Plan {
    clients: usize,
    window: u64,
    groups: usize,
    queries: u64,
    rows: u64,
    projects: u64,
    calm: Round,
    busy: Round,
}

/// What became of the crowd.
#[derive(Clone, Debug, Default)]
struct Crowd {
    /// Groups that have all their rows and are connected at the end.
    served: usize,
    /// How often one was told to come back later.
    refused: usize,
    /// Other ends of connections.
    failed: Vec<String>,
    rows: u64,
    /// The most memory that the server had that was not a file's, in KiB.
    most_kib: u64,
}

/// Runs `bench crowd`.
pub fn run(args: &Args) -> Result<(), BenchError> {
    let common = Common::new(args)?;
    let busy = Round::read(args)?;
    let mut sql = Sql::connect(args.text("upstream")?)?;
    let plan = Plan {
        clients: args.number("clients")?,
        window: args.number("window")?,
        groups: args.number("groups")?,
        queries: args.number("queries")?,
        rows: args.number("rows")?,
        projects: sql.number("select count(*) from projects")?.max(1),
        calm: Round { commits: ((args.number::<f64>("calm")? * busy.rate) as u32).max(1), ..busy },
        busy,
    };
    plan.calm.check(Audience::All(plan.clients))?;
    plan.busy.check(Audience::All(plan.clients))?;
    let name = format!("crowd of {} x {} x {} rows", plan.groups, plan.queries, plan.rows);
    let measured = measure(&common, &mut sql, &plan);
    common.conclude(name, measured)
}

impl Plan {
    /// The queries of one group. Together with those of all others they go over the projects again
    /// and again, each time with another limit.
    fn queries_of(&self, group: usize) -> Vec<Query> {
        let numbers = (0..self.queries).map(|n| group as u64 * self.queries + n);
        numbers.map(|n| Query::project(n % self.projects, self.rows + n / self.projects)).collect()
    }
}

fn measure(common: &Common, sql: &mut Sql, plan: &Plan) -> Result<Measured, BenchError> {
    let change = Change::prepare(sql, false)?;
    let mut swarm = Swarm::new(Search::Queries)?;
    let wanted = vec![vec![Query::recent(plan.window)]; plan.clients];
    swarm.gather(&common.target, &wanted, CONNECTING, common.deadline())?;
    swarm.search = Search::Marker;
    let all = Audience::All(plan.clients);
    let mut calm = plan.calm.run(common, sql, vec![swarm], all, |_, marker| change.sql(marker))?;
    let swarms = std::mem::take(&mut calm.swarms);
    let stop = AtomicBool::new(false);
    let (busy, crowd, most_kib) = std::thread::scope(|scope| {
        let crowd = scope.spawn(|| come(common, plan, &stop));
        let memory = scope.spawn(|| most_memory(common.pids.server, &stop));
        let busy = plan.busy.run(common, sql, swarms, all, |_, marker| change.sql(marker));
        stop.store(true, Ordering::Relaxed);
        let panicked = |_| BenchError::Failed("a thread panicked".to_owned());
        Ok::<_, BenchError>((busy?, crowd.join().map_err(panicked)??, memory.join().map_err(panicked)?))
    })?;
    Ok(judge(common, &calm, &busy, &Crowd { most_kib, ..crowd }))
}

/// Comes, waits when it is told to, and comes back, until it is told to stop.
fn come(common: &Common, plan: &Plan, stop: &AtomicBool) -> Result<Crowd, BenchError> {
    let mut swarm = Swarm::new(Search::Queries)?;
    swarm.lenient = true;
    let mut crowd = Crowd::default();
    // When those come back that were refused.
    let mut back: Vec<(Instant, usize)> = Vec::new();
    // Those that will not: each is closed for good.
    let mut gone: Vec<usize> = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let from = swarm.connections.len();
        for group in from..(from + PER_TURN).min(plan.groups) {
            swarm.add(&common.target, &plan.queries_of(group))?;
        }
        let now = Instant::now();
        for group in back.extract_if(.., |(at, _)| *at <= now).map(|(_, group)| group).collect::<Vec<_>>() {
            crowd.rows += swarm.connections[group].counts.rows;
            swarm.reopen(group, &common.target, &plan.queries_of(group))?;
        }
        swarm.turn(now + TURN, &mut |_, _, _| ())?;
        for group in std::mem::take(&mut swarm.closed) {
            if back.iter().any(|(_, waiting)| *waiting == group) || gone.contains(&group) {
                continue;
            }
            let reason = swarm.connections[group].closed().unwrap_or_default();
            match reason.contains(RETRYABLE) {
                true => {
                    crowd.refused += 1;
                    back.push((Instant::now() + wait_of(reason), group));
                }
                false => {
                    gone.push(group);
                    crowd.failed.push(reason.to_owned());
                }
            }
        }
    }
    let is_served = |c: &&super::connection::Connection| c.missing.is_empty() && c.closed().is_none();
    crowd.served = swarm.connections.iter().filter(is_served).count();
    crowd.rows += swarm.counts().rows;
    Ok(crowd)
}

/// How long a stock client would wait after this error.
fn wait_of(reason: &str) -> Duration {
    let digits = reason.split("\"minBackoffMs\":").nth(1).unwrap_or_default();
    let number: String = digits.chars().take_while(char::is_ascii_digit).collect();
    STOCK_WAIT.max(Duration::from_millis(number.parse().unwrap_or(0)))
}

fn most_memory(server: Option<u32>, stop: &AtomicBool) -> u64 {
    let mut most = 0;
    while !stop.load(Ordering::Relaxed) {
        most = most.max(server.map_or(0, procfs::anonymous_kib));
        std::thread::sleep(LOOK);
    }
    most
}

fn judge(common: &Common, calm: &Seen, busy: &Seen, crowd: &Crowd) -> Measured {
    let is_over = common.pids.server.is_some_and(|pid| !procfs::is_running(pid));
    let verdict = if is_over {
        Verdict::NotFinished("the server ended".to_owned())
    } else if let Some(reason) = crowd.failed.first() {
        let text =
            format!("{} of the crowd were not told to come back, as with {reason:?}", crowd.failed.len());
        Verdict::NotFinished(text)
    } else {
        match calm.verdict() {
            Verdict::Valid => busy.verdict(),
            other => other,
        }
    };
    let mut notes = busy.notes();
    notes.push(who_was_full(&busy.usage));
    Measured { figures: figures(calm, busy, crowd), verdict, notes }
}

fn figures(calm: &Seen, busy: &Seen, crowd: &Crowd) -> Vec<Figure> {
    let mut out = busy.figures();
    out.push(figure("calm_p99", "ms", calm.latencies.percentile_ms(99.0)));
    out.push(figure("served", "groups", crowd.served as f64));
    out.push(figure("refused", "times", crowd.refused as f64));
    out.push(figure("crowd_rows", "rows", crowd.rows as f64));
    out.push(figure("most_memory", "MB", crowd.most_kib as f64 * 1024.0 / 1e6));
    out.extend(usage_figures(&busy.usage));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_who_are_refused_wait_as_they_are_told_and_never_less_than_a_stock_client() {
        let text = r#"["error",{"kind":"ServerOverloaded","message":"x","minBackoffMs":7321}]"#;
        assert_eq!(wait_of(text), Duration::from_millis(7_321));
        assert_eq!(wait_of(r#"{"minBackoffMs":10}"#), STOCK_WAIT);
        assert_eq!(wait_of("closed"), STOCK_WAIT);
    }
}
