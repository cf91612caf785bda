//! `bench write`: many rows are inserted; how long until a client sees what was committed
//! behind them.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::args::{Args, Flag};
use super::common::Common;
use super::error::BenchError;
use super::message::{MARKER_DIGITS, MARKER_TEXT, Search};
use super::meter::Meter;
use super::outcome::{Measured, Verdict, figure, usage_figures, who_was_full};
use super::query::Query;
use super::sql::Sql;
use super::swarm::Swarm;

/// Flags of `bench write`.
pub const FLAGS: &[Flag] = &[
    Flag { name: "upstream", value: "URL", default: None, help: "Postgres, where the rows are inserted" },
    Flag { name: "rows", value: "N", default: Some("100000"), help: "issues to insert" },
    Flag {
        name: "transactions",
        value: "N",
        default: Some("1"),
        help: "over how many transactions they are spread",
    },
];

/// The label that is the marker.
const LABEL: &str = "kelvin-bench";
/// Transactions that are sent before the first of them is acknowledged. Postgres must not
/// wait for the generator, and need not be flooded.
const PIPELINE: u64 = 16;
/// `num` of the first issue inserted: above all that were seeded, in every project.
const FIRST_NUM: u64 = 1_000_000_000;

/// Runs `bench write`.
pub fn run(args: &Args) -> Result<(), BenchError> {
    let common = Common::new(args)?;
    let rows: u64 = args.number("rows")?;
    let transactions: u64 = args.number("transactions")?;
    if transactions == 0 || !rows.is_multiple_of(transactions) {
        return Err(BenchError::Usage("--rows must be a multiple of --transactions".to_owned()));
    }
    let measured = measure(&common, args.text("upstream")?, rows, transactions);
    common.conclude(format!("write {rows} rows in {transactions}"), measured)
}

fn measure(common: &Common, upstream: &str, rows: u64, transactions: u64) -> Result<Measured, BenchError> {
    let deadline = common.deadline();
    let mut sql = Sql::connect(upstream)?;
    let mut marker = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    sql.execute(&format!(
        "insert into labels (id, name) values ('{LABEL}', '') on conflict (id) do nothing"
    ))?;
    let mut swarm = Swarm::new(Search::Queries)?;
    swarm.gather(&common.target, &[vec![Query::label(LABEL)]], 1, deadline)?;
    swarm.search = Search::Marker;
    // What an earlier run has left goes away first, and the server must be done with that.
    sql.execute("delete from issues where id like 'kw%'")?;
    set_marker(&mut sql, marker)?;
    wait_for(&mut swarm, marker, deadline)?;

    marker += 1;
    let meter = Meter::start(common.pids);
    let begun = Instant::now();
    let inserted = std::thread::scope(|scope| {
        let writer = scope.spawn(move || {
            insert(&mut sql, rows, transactions)?;
            let committed = Instant::now();
            set_marker(&mut sql, marker)?;
            Ok::<_, BenchError>(committed)
        });
        let seen = wait_for(&mut swarm, marker, deadline);
        let committed = writer.join().map_err(|_| BenchError::Failed("the writer panicked".to_owned()))??;
        seen.map(|seen| (committed, seen))
    });
    let (committed, seen) = inserted?;
    let usage = meter.stop();
    // One transaction: nothing can be shown before it is committed. Many: the server works
    // while they are written, so the clock starts before the first.
    let start = if transactions == 1 { committed } else { begun };
    let wall = seen.duration_since(start).as_secs_f64();
    let mut figures = vec![
        figure("rows_rate", "rows/s", rows as f64 / wall),
        figure("wall", "s", wall),
        figure("behind_commit", "s", seen.duration_since(committed).as_secs_f64()),
        figure("postgres_wall", "s", committed.duration_since(begun).as_secs_f64()),
    ];
    figures.extend(usage_figures(&usage));
    Ok(Measured { figures, verdict: Verdict::Valid, notes: vec![who_was_full(&usage)] })
}

fn set_marker(sql: &mut Sql, marker: u64) -> Result<(), BenchError> {
    sql.execute(&format!(
        "update labels set name = '{MARKER_TEXT}{marker:0width$}' where id = '{LABEL}'",
        width = MARKER_DIGITS
    ))
}

/// Waits for the poke that shows the marker; gives the time at which its end had come.
fn wait_for(swarm: &mut Swarm, marker: u64, deadline: Instant) -> Result<Instant, BenchError> {
    let mut seen = None;
    while seen.is_none() {
        if Instant::now() >= deadline {
            return Err(BenchError::NotFinished("the marker behind the rows was never seen".to_owned()));
        }
        let until = deadline.min(Instant::now() + Duration::from_secs(1));
        swarm.turn(until, &mut |_, poke, now| {
            if poke.marker >= marker {
                seen = seen.or(Some(now));
            }
        })?;
    }
    Ok(seen.unwrap_or_else(Instant::now))
}

/// Inserts the rows, transaction by transaction, pipelined.
fn insert(sql: &mut Sql, rows: u64, transactions: u64) -> Result<(), BenchError> {
    let each = rows / transactions;
    let mut sent = 0;
    for done in 0..transactions {
        while sent < transactions.min(done + PIPELINE) {
            sql.send(&insert_sql(sent * each, (sent + 1) * each))?;
            sent += 1;
        }
        sql.flush()?;
        sql.receive()?;
    }
    Ok(())
}

fn insert_sql(from: u64, to: u64) -> String {
    format!(
        "insert into issues (id, project_id, num, title, body, creator_id) \
         select 'kw' || i, 'p' || i % 100, {FIRST_NUM} + i, 'Written ' || i, repeat('Lorem ipsum dolor sit amet. ', 4), \
         'u' || i % 20 from generate_series({from}, {to} - 1) i"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_in_one_transaction() {
        assert!(insert_sql(0, 10).ends_with("generate_series(0, 10 - 1) i"));
        assert!(insert_sql(10, 20).ends_with("generate_series(10, 20 - 1) i"));
    }
}
