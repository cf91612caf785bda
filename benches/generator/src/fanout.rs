//! `bench fanout`: one row changes, and every client must hear of it.

use super::args::{Args, Flag};
use super::audience::Audience;
use super::change::Change;
use super::common::Common;
use super::error::BenchError;
use super::message::Search;
use super::outcome::{Measured, Verdict, figure, latency_verdict, usage_figures};
use super::page;
use super::query::Query;
use super::round::Round;
use super::sql::Sql;
use super::swarm::Swarm;

/// Flags of `bench fanout`, besides those of a round.
pub const FLAGS: &[Flag] = &[
    Flag { name: "clients", value: "N", default: Some("100"), help: "clients, each a group of its own" },
    Flag { name: "window", value: "N", default: Some("20"), help: "rows of the query that all clients have" },
    Flag {
        name: "change",
        value: "KIND",
        default: Some("update"),
        help: "update: a row of the window changes; insert: a new row comes in on top",
    },
    Flag { name: "receivers", value: "N", default: Some("1"), help: "threads that receive" },
];

/// Clients that may wait for their first rows at the same time.
const CONNECTING: usize = 32;

struct Plan {
    clients: usize,
    window: u64,
    insert: bool,
    receivers: usize,
    round: Round,
}

impl Plan {
    fn read(args: &Args) -> Result<Plan, BenchError> {
        let plan = Plan {
            clients: args.number("clients")?,
            window: args.number("window")?,
            insert: match args.text("change")? {
                "update" => false,
                "insert" => true,
                other => return Err(BenchError::Usage(format!("--change {other}: update or insert"))),
            },
            receivers: args.number("receivers")?,
            round: Round::read(args)?,
        };
        if plan.clients == 0 || plan.receivers == 0 || plan.receivers > plan.clients {
            return Err(BenchError::Usage(
                "--clients and --receivers: at least 1, and no idle receiver".to_owned(),
            ));
        }
        plan.round.check(Audience::All(plan.clients))?;
        Ok(plan)
    }
}

/// Runs `bench fanout`.
pub fn run(args: &Args) -> Result<(), BenchError> {
    let common = Common::new(args)?;
    let plan = Plan::read(args)?;
    let measured = measure(&common, args.text("upstream")?, &plan);
    common.conclude(
        format!("fanout {} clients {}/s {}", plan.clients, plan.round.rate, args.text("change")?),
        measured,
    )
}

fn measure(common: &Common, upstream: &str, plan: &Plan) -> Result<Measured, BenchError> {
    let mut sql = Sql::connect(upstream)?;
    let change = Change::prepare(&mut sql, plan.insert)?;
    let swarms = connect(common, plan)?;
    let audience = Audience::All(plan.clients);
    let recorded = record_bytes(common);
    let seen = plan.round.run(common, &mut sql, swarms, audience, |_, marker| change.sql(marker))?;
    let recorded = record_bytes(common).zip(recorded).map(|(after, before)| after - before);
    let mut verdict = seen.verdict();
    if verdict == Verdict::Valid {
        verdict = latency_verdict(&seen.usage);
    }
    let mut figures = seen.figures();
    figures.extend(
        seen.usage.server().cpu_s.map(|s| figure("server_per_poke", "us CPU", s * 1e6 / seen.pokes())),
    );
    let commits = f64::from(plan.round.commits + plan.round.warm_up);
    figures.extend(recorded.map(|bytes| figure("record_bytes", "B/commit", bytes / commits)));
    figures.extend(usage_figures(&seen.usage));
    Ok(Measured { figures, verdict, notes: seen.notes() })
}

/// Bytes that the server has written to its record logs; `None`: it does not say.
fn record_bytes(common: &Common) -> Option<f64> {
    let (status, page) = page::get(&common.target, "/metrics").ok()?;
    let written = |line: &str| line.strip_prefix("kelvin_record_bytes_total ")?.trim().parse().ok();
    page.lines().find_map(written).filter(|_| status == 200)
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
