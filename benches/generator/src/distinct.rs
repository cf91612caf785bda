//! `bench distinct`: every client has views that nobody else has, and each commit is for one
//! of them. What does the number of the other views cost?

use super::args::{Args, Flag};
use super::audience::Audience;
use super::common::Common;
use super::error::BenchError;
use super::message::Search;
use super::outcome::{Measured, Verdict, figure, latency_verdict, usage_figures};
use super::query::Query;
use super::round::Round;
use super::sql::Sql;
use super::swarm::Swarm;
use super::watched::{Kind, Watched};

/// Flags of `bench distinct`, besides those of a round.
pub const FLAGS: &[Flag] = &[
    Flag { name: "groups", value: "N", default: Some("100"), help: "client groups, one client each" },
    Flag { name: "views", value: "N", default: Some("10"), help: "queries of each, all different" },
    Flag {
        name: "kind",
        value: "KIND",
        default: Some("key"),
        help: "key: one issue; related: with its comments; exists: a project's issues with a marked comment",
    },
];

/// Clients that may wait for their first rows at the same time.
const CONNECTING: usize = 8;

/// Runs `bench distinct`.
pub fn run(args: &Args) -> Result<(), BenchError> {
    let common = Common::new(args)?;
    let (groups, views): (usize, usize) = (args.number("groups")?, args.number("views")?);
    if groups == 0 || views == 0 {
        return Err(BenchError::Usage("--groups and --views: at least 1".to_owned()));
    }
    let kind = Kind::parse(args.text("kind")?)?;
    let round = Round::read(args)?;
    let audience = Audience::Owner { keys: groups * views, each: views };
    round.check(audience)?;
    let mut sql = Sql::connect(args.text("upstream")?)?;
    let watched = Watched::prepare(&mut sql, kind, groups * views)?;
    let measured = measure(&common, &round, audience, &mut sql, &watched, views);
    common.conclude(format!("distinct {groups} x {views} {}", args.text("kind")?), measured)
}

fn measure(
    common: &Common,
    round: &Round,
    audience: Audience,
    sql: &mut Sql,
    watched: &Watched,
    views: usize,
) -> Result<Measured, BenchError> {
    let keys: Vec<usize> = (0..watched.len()).collect();
    let wanted: Vec<Vec<Query>> =
        keys.chunks(views).map(|own| own.iter().map(|key| watched.query(*key)).collect()).collect();
    let mut swarm = Swarm::new(Search::Queries)?;
    swarm.gather(&common.target, &wanted, CONNECTING, common.deadline())?;
    swarm.search = Search::Marker;
    let change =
        |commit: u32, marker| watched.change(audience.key(commit), commit as usize / watched.len(), marker);
    let seen = round.run(common, sql, vec![swarm], audience, change)?;
    let mut verdict = seen.verdict();
    if verdict == Verdict::Valid {
        verdict = latency_verdict(&seen.usage);
    }
    let per_commit = seen.usage.server().cpu_s.map(|s| s * 1e6 / f64::from(round.commits));
    let mut figures: Vec<_> =
        per_commit.map(|us| figure("server_per_commit", "us CPU", us)).into_iter().collect();
    figures.extend(seen.figures());
    figures.extend(usage_figures(&seen.usage));
    Ok(Measured { figures, verdict, notes: seen.notes() })
}
