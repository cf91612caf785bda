//! `bench fanout`: one row changes, and every client must hear of it.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::args::{Args, Flag};
use super::arrivals::{ARRIVALS_MAX, Arrival, Commit, latencies};
use super::change::Change;
use super::common::Common;
use super::connection::Counts;
use super::error::BenchError;
use super::message::Search;
use super::meter::{Meter, thread_cpu_s};
use super::outcome::{Measured, Verdict, figure, latency_verdict, usage_figures};
use super::query::Query;
use super::sql::Sql;
use super::swarm::Swarm;

/// Flags of `bench fanout`.
pub const FLAGS: &[Flag] = &[
    Flag { name: "upstream", value: "URL", default: None, help: "Postgres, where the commits are made" },
    Flag { name: "clients", value: "N", default: Some("100"), help: "clients, each a group of its own" },
    Flag { name: "rate", value: "N", default: Some("5"), help: "commits per second" },
    Flag { name: "seconds", value: "S", default: Some("20"), help: "how long, after the warm-up" },
    Flag { name: "warm-up", value: "S", default: Some("3"), help: "seconds of commits that do not count" },
    Flag { name: "window", value: "N", default: Some("20"), help: "rows of the query that all clients have" },
    Flag {
        name: "change",
        value: "KIND",
        default: Some("update"),
        help: "update: a row of the window changes; insert: a new row comes in on top",
    },
    Flag { name: "receivers", value: "N", default: Some("1"), help: "threads that receive" },
    Flag {
        name: "drain",
        value: "S",
        default: Some("10"),
        help: "seconds after the last commit for the last poke",
    },
];

/// Clients that may wait for their first rows at the same time.
const CONNECTING: usize = 32;
/// Marker numbers per second of the clock: a later run never shows an earlier one's markers,
/// as long as it commits no more often than this.
const MARKERS_PER_SECOND: u64 = 500;

struct Plan {
    upstream: String,
    clients: usize,
    rate: f64,
    seconds: f64,
    warm_up: f64,
    window: u64,
    insert: bool,
    receivers: usize,
    drain: Duration,
}

impl Plan {
    fn read(args: &Args) -> Result<Plan, BenchError> {
        let plan = Plan {
            upstream: args.text("upstream")?.to_owned(),
            clients: args.number("clients")?,
            rate: args.number("rate")?,
            seconds: args.number("seconds")?,
            warm_up: args.number("warm-up")?,
            window: args.number("window")?,
            insert: match args.text("change")? {
                "update" => false,
                "insert" => true,
                other => return Err(BenchError::Usage(format!("--change {other}: update or insert"))),
            },
            receivers: args.number("receivers")?,
            drain: Duration::from_secs(args.number("drain")?),
        };
        if !(plan.rate > 0.0 && plan.rate <= MARKERS_PER_SECOND as f64) {
            return Err(BenchError::Usage(format!("--rate: more than 0, at most {MARKERS_PER_SECOND}")));
        }
        if plan.clients == 0 || plan.receivers == 0 || plan.receivers > plan.clients {
            return Err(BenchError::Usage(
                "--clients and --receivers: at least 1, and no idle receiver".to_owned(),
            ));
        }
        if (plan.warm_up_commits() + plan.commits()) as u64 * plan.clients as u64 > ARRIVALS_MAX {
            return Err(BenchError::Usage(format!("clients x commits: at most {ARRIVALS_MAX}")));
        }
        Ok(plan)
    }

    fn warm_up_commits(&self) -> u32 {
        (self.warm_up * self.rate) as u32
    }

    fn commits(&self) -> u32 {
        ((self.seconds * self.rate) as u32).max(1)
    }
}

/// What the committing and the receiving threads share.
struct Shared {
    begun: Instant,
    /// Marker of the first commit.
    base: u64,
    /// Commits of the run, the warm-up included.
    total: u32,
    /// Clients that have seen the last commit.
    complete: AtomicUsize,
    /// Receivers stop, because the time is over or one of them failed.
    stop: AtomicBool,
}

struct Received {
    arrivals: Vec<Arrival>,
    counts: Counts,
    cpu_s: f64,
}

/// Runs `bench fanout`.
pub fn run(args: &Args) -> Result<(), BenchError> {
    let common = Common::new(args)?;
    let plan = Plan::read(args)?;
    let measured = measure(&common, &plan);
    common.conclude(
        format!("fanout {} clients {}/s {}", plan.clients, plan.rate, args.text("change")?),
        measured,
    )
}

fn measure(common: &Common, plan: &Plan) -> Result<Measured, BenchError> {
    let mut sql = Sql::connect(&plan.upstream)?;
    let change = Change::prepare(&mut sql, plan.insert)?;
    let swarms = connect(common, plan)?;
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let shared = Shared {
        begun: Instant::now(),
        base: clock * MARKERS_PER_SECOND,
        total: plan.warm_up_commits() + plan.commits(),
        complete: AtomicUsize::new(0),
        stop: AtomicBool::new(false),
    };
    std::thread::scope(|scope| {
        let receivers: Vec<_> = swarms.into_iter().map(|s| scope.spawn(|| receive(s, &shared))).collect();
        let committed = commit_all(common, plan, &mut sql, &change, &shared);
        shared.stop.store(true, Ordering::Relaxed);
        let mut received = Vec::new();
        for receiver in receivers {
            received
                .push(receiver.join().map_err(|_| BenchError::Failed("a receiver panicked".to_owned()))??);
        }
        let (commits, usage) = committed?;
        let mut measured = report(plan, &commits, &received);
        if measured.verdict == Verdict::Valid {
            measured.verdict = latency_verdict(&usage);
        }
        measured.figures.extend(usage_figures(&usage));
        Ok(measured)
    })
}

fn connect(common: &Common, plan: &Plan) -> Result<Vec<Swarm>, BenchError> {
    let deadline = common.deadline();
    let mut swarms = Vec::new();
    for i in 0..plan.receivers {
        let share = plan.clients / plan.receivers + usize::from(i < plan.clients % plan.receivers);
        let mut swarm = Swarm::new(Search::Queries)?;
        swarm.gather(&common.target, &vec![vec![Query::recent(plan.window)]; share], CONNECTING, deadline)?;
        swarm.search = Search::Marker;
        swarms.push(swarm);
    }
    Ok(swarms)
}

/// The warm-up, then the commits that count; waits until every client has seen the last one,
/// or the time for that is over.
fn commit_all(
    common: &Common,
    plan: &Plan,
    sql: &mut Sql,
    change: &Change,
    shared: &Shared,
) -> Result<(Vec<Commit>, super::meter::Usage), BenchError> {
    // The first marker belongs to commit number 0.
    let marker = |number: u32| shared.base + 1 + u64::from(number);
    let [from, first, end] = [0, plan.warm_up_commits(), shared.total].map(marker);
    change.commit(sql, shared.begun, plan.rate, from..first, &shared.stop)?;
    let meter = Meter::start(common.pids);
    let commits = change.commit(sql, shared.begun, plan.rate, first..end, &shared.stop)?;
    let until = Instant::now() + plan.drain;
    while shared.complete.load(Ordering::Relaxed) < plan.clients
        && Instant::now() < until
        && !shared.stop.load(Ordering::Relaxed)
    {
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok((commits, meter.stop()))
}

/// Receives until every client of the swarm has seen the last commit, or it is told to stop.
fn receive(mut swarm: Swarm, shared: &Shared) -> Result<Received, BenchError> {
    let cpu_before = thread_cpu_s();
    let before = swarm.counts();
    let last = shared.base + u64::from(shared.total);
    let clients = swarm.connections.len();
    let mut arrivals = Vec::with_capacity(clients * shared.total as usize);
    let mut complete = 0;
    while complete < clients && !shared.stop.load(Ordering::Relaxed) {
        let turned = swarm.turn(Instant::now() + Duration::from_millis(50), &mut |client, poke, now| {
            if poke.marker <= client.seen.max(shared.base) {
                return;
            }
            let micros = now.duration_since(shared.begun).as_micros() as u32;
            // A poke that shows a commit shows all before it.
            for marker in client.seen.max(shared.base) + 1..=poke.marker.min(last) {
                arrivals.push(((marker - shared.base - 1) as u32, micros));
            }
            client.seen = poke.marker;
            if poke.marker >= last {
                complete += 1;
                shared.complete.fetch_add(1, Ordering::Relaxed);
            }
        });
        if let Err(e) = turned {
            shared.stop.store(true, Ordering::Relaxed);
            return Err(e);
        }
    }
    let mut counts = swarm.counts();
    counts.pokes -= before.pokes;
    counts.bytes -= before.bytes;
    Ok(Received { arrivals, counts, cpu_s: thread_cpu_s() - cpu_before })
}

fn report(plan: &Plan, commits: &[Commit], received: &[Received]) -> Measured {
    let first = plan.warm_up_commits();
    let arrivals: Vec<Arrival> = received.iter().flat_map(|r| r.arrivals.iter().copied()).collect();
    let all = latencies(commits, first, &arrivals);
    let expected = u64::from(plan.commits()) * plan.clients as u64;
    let pokes: u64 = received.iter().map(|r| r.counts.pokes).sum();
    let bytes: u64 = received.iter().map(|r| r.counts.bytes).sum();
    let late: u64 = received.iter().map(|r| r.counts.late_pongs).sum();
    let cpu_s: f64 = received.iter().map(|r| r.cpu_s).sum();
    let lateness = commits.iter().map(|c| c.sent.saturating_sub(c.due)).max().unwrap_or_default();
    let figures = vec![
        figure("latency_p50", "ms", all.percentile_ms(50.0)),
        figure("latency_p90", "ms", all.percentile_ms(90.0)),
        figure("latency_p99", "ms", all.percentile_ms(99.0)),
        figure("latency_max", "ms", all.max_ms()),
        figure("deliveries", "", all.count() as f64),
        figure("pokes", "", pokes as f64),
        figure("poke_size", "B", bytes as f64 / pokes.max(1) as f64),
        figure("commit_late_max", "ms", lateness.as_secs_f64() * 1e3),
        figure("receive_per_poke", "us CPU", cpu_s * 1e6 / pokes.max(1) as f64),
    ];
    let verdict = if all.count() < expected {
        let missing = expected - all.count();
        Verdict::NotFinished(format!("{missing} of {expected} deliveries were missing at the end"))
    } else {
        Verdict::Valid
    };
    let notes = if late > 0 { vec![format!("{late} pongs came later than 5 s")] } else { Vec::new() };
    Measured { figures, verdict, notes }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_deliveries_are_not_a_number_to_judge() {
        let plan = Plan {
            upstream: String::new(),
            clients: 2,
            rate: 1.0,
            seconds: 1.0,
            warm_up: 0.0,
            window: 1,
            insert: false,
            receivers: 1,
            drain: Duration::ZERO,
        };
        let commit = Commit { due: Duration::ZERO, sent: Duration::ZERO, acknowledged: Duration::ZERO };
        let received = |arrivals| [Received { arrivals, counts: Counts::default(), cpu_s: 0.0 }];
        assert_eq!(report(&plan, &[commit], &received(vec![(0, 5), (0, 6)])).verdict, Verdict::Valid);
        assert!(matches!(report(&plan, &[commit], &received(vec![(0, 5)])).verdict, Verdict::NotFinished(_)));
    }
}
