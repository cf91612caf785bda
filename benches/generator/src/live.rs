//! `bench live`: a fan-out, first alone, then beside large hydrations. Does anybody notice
//! somebody else's large query?

use std::sync::atomic::{AtomicBool, Ordering};

use super::args::{Args, Flag};
use super::audience::Audience;
use super::change::Change;
use super::common::Common;
use super::disturbance::{self, Hydrated};
use super::error::BenchError;
use super::message::Search;
use super::outcome::{Figure, Measured, Verdict, figure, usage_figures, who_was_full};
use super::query::Query;
use super::round::{Round, Seen};
use super::slices::{Clock, Slices};
use super::sql::Sql;
use super::statistics::ratio;
use super::swarm::Swarm;

/// Flags of `bench live`, besides those of a round.
pub const FLAGS: &[Flag] = &[
    Flag { name: "clients", value: "N", default: Some("100"), help: "clients, each a group of its own" },
    Flag { name: "window", value: "N", default: Some("20"), help: "rows of the query that all clients have" },
    Flag { name: "calm", value: "S", default: Some("10"), help: "seconds of the phase without hydrations" },
    Flag { name: "rows", value: "N", default: Some("500000"), help: "rows of a hydration" },
    Flag {
        name: "evict",
        value: "FILE",
        default: None,
        help: "the replica, to be pushed out of the page cache during the second phase",
    },
];

/// Clients that may wait for their first rows at the same time.
const CONNECTING: usize = 32;
/// The 99th percentile beside hydrations may be so many times the one without,
const TIMES: f64 = 3.0;
/// or so many milliseconds, which nobody sees.
const UNSEEN_MS: f64 = 20.0;

struct Plan {
    clients: usize,
    window: u64,
    rows: u64,
    evict: Option<String>,
    calm: Round,
    busy: Round,
}

/// One phase.
struct Phase {
    seen: Seen,
    /// The longest slice, in milliseconds, where the server says.
    longest_slice: Option<f64>,
    /// The same of the processor's time.
    longest_slice_cpu: Option<f64>,
}

/// Runs `bench live`.
pub fn run(args: &Args) -> Result<(), BenchError> {
    let common = Common::new(args)?;
    let busy = Round::read(args)?;
    let plan = Plan {
        clients: args.number("clients")?,
        window: args.number("window")?,
        rows: args.number("rows")?,
        evict: args.optional("evict").map(str::to_owned),
        calm: Round { commits: ((args.number::<f64>("calm")? * busy.rate) as u32).max(1), ..busy },
        busy,
    };
    plan.calm.check(Audience::All(plan.clients))?;
    plan.busy.check(Audience::All(plan.clients))?;
    let evicted = if plan.evict.is_some() { ", evicted" } else { "" };
    let name = format!("live {} clients {}/s beside {} rows{evicted}", plan.clients, busy.rate, plan.rows);
    let measured = measure(&common, args.text("upstream")?, &plan);
    common.conclude(name, measured)
}

fn measure(common: &Common, upstream: &str, plan: &Plan) -> Result<Measured, BenchError> {
    let mut sql = Sql::connect(upstream)?;
    let change = Change::prepare(&mut sql, false)?;
    let mut swarm = Swarm::new(Search::Queries)?;
    let wanted = vec![vec![Query::recent(plan.window)]; plan.clients];
    swarm.gather(&common.target, &wanted, CONNECTING, common.deadline())?;
    swarm.search = Search::Marker;
    let mut calm = phase(common, &plan.calm, plan.clients, &mut sql, &change, vec![swarm])?;
    let swarms = std::mem::take(&mut calm.seen.swarms);
    let (busy, hydrated) =
        beside(common, plan, || phase(common, &plan.busy, plan.clients, &mut sql, &change, swarms))?;
    let verdict = match calm.seen.verdict() {
        Verdict::Valid => busy.seen.verdict(),
        other => other,
    };
    let mut notes = busy.seen.notes();
    notes.push(who_was_full(&busy.seen.usage));
    Ok(Measured { figures: figures(&calm, &busy, hydrated), verdict, notes })
}

fn phase(
    common: &Common,
    round: &Round,
    clients: usize,
    sql: &mut Sql,
    change: &Change,
    swarms: Vec<Swarm>,
) -> Result<Phase, BenchError> {
    let now = |clock| Slices::now(&common.target, clock);
    let before = (now(Clock::Wall), now(Clock::Cpu));
    let seen = round.run(common, sql, swarms, Audience::All(clients), |_, marker| change.sql(marker))?;
    let longest = |clock, before: Option<Slices>| Some(now(clock)?.longest_since(&before?));
    let (longest_slice, longest_slice_cpu) = (longest(Clock::Wall, before.0), longest(Clock::Cpu, before.1));
    Ok(Phase { seen, longest_slice, longest_slice_cpu })
}

/// Does something while hydrations run, and files are evicted if that is wanted.
fn beside<T>(
    common: &Common,
    plan: &Plan,
    work: impl FnOnce() -> Result<T, BenchError>,
) -> Result<(T, Hydrated), BenchError> {
    let stop = AtomicBool::new(false);
    let panicked = |_| BenchError::Failed("a thread panicked".to_owned());
    std::thread::scope(|scope| {
        let hydrating = scope.spawn(|| disturbance::hydrate(common, plan.rows, &stop));
        let evicting = plan.evict.as_ref().map(|path| scope.spawn(|| disturbance::evict(path, &stop)));
        let done = work();
        stop.store(true, Ordering::Relaxed);
        let hydrated = hydrating.join().map_err(panicked)?;
        if let Some(evicting) = evicting {
            evicting.join().map_err(panicked)??;
        }
        Ok((done?, hydrated?))
    })
}

fn figures(calm: &Phase, busy: &Phase, hydrated: Hydrated) -> Vec<Figure> {
    let p99 = |phase: &Phase| phase.seen.latencies.percentile_ms(99.0);
    let bound = (TIMES * p99(calm)).max(UNSEEN_MS);
    let wall = busy.seen.usage.wall.as_secs_f64();
    let mut out = busy.seen.figures();
    out.push(figure("calm_p50", "ms", calm.seen.latencies.percentile_ms(50.0)));
    out.push(figure("calm_p99", "ms", p99(calm)));
    out.extend(ratio(p99(busy), p99(calm)).map(|times| figure("p99_ratio", "times calm_p99", times)));
    out.push(figure("p99_of_bound", "% of max(3 x calm_p99, 20 ms)", p99(busy) / bound * 100.0));
    out.extend(busy.longest_slice.map(|ms| figure("longest_slice", "ms", ms)));
    out.extend(busy.longest_slice_cpu.map(|ms| figure("longest_slice_cpu", "ms CPU", ms)));
    out.extend(calm.longest_slice.map(|ms| figure("calm_longest_slice", "ms", ms)));
    out.push(figure("hydrations", "hydrations/s", hydrated.queries as f64 / wall));
    out.push(figure("hydrated", "rows/s", hydrated.rows as f64 / wall));
    out.extend(usage_figures(&busy.seen.usage));
    out
}
