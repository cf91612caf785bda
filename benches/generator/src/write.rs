//! `bench write`: many rows are inserted; how long until a client sees what was committed
//! behind them.

use super::args::{Args, Flag};
use super::common::Common;
use super::error::BenchError;
use super::marker::Marker;
use super::meter::Meter;
use super::outcome::{Measured, Verdict, figure, usage_figures, who_was_full};
use super::sql::Sql;

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
    let mut marker = Marker::watch(common, &mut sql, &[])?;
    // What an earlier run has left goes away first, and the server must be done with that.
    sql.execute("delete from issues where id like 'kw%'")?;
    marker.settle(&mut sql, deadline)?;

    let each = rows / transactions;
    let meter = Meter::start(common.pids);
    let times = marker.behind(sql, transactions, |i| insert_sql(i * each, (i + 1) * each), deadline)?;
    let usage = meter.stop();
    // One transaction: nothing can be shown before it is committed. Many: the server works
    // while they are written, so the clock starts before the first.
    let start = if transactions == 1 { times.committed } else { times.begun };
    let wall = times.seen.duration_since(start).as_secs_f64();
    let mut figures = vec![
        figure("rows_rate", "rows/s", rows as f64 / wall),
        figure("wall", "s", wall),
        figure("behind_commit", "s", times.seen.duration_since(times.committed).as_secs_f64()),
        figure("postgres_wall", "s", times.committed.duration_since(times.begun).as_secs_f64()),
    ];
    figures.extend(usage_figures(&usage));
    Ok(Measured { figures, verdict: Verdict::Valid, notes: vec![who_was_full(&usage)] })
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
