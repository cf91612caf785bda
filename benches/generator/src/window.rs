//! `bench window`: one client has the newest issues, and rows are changed that lie outside its
//! window, or move into it and out of it.

use super::args::{Args, Flag};
use super::common::Common;
use super::error::BenchError;
use super::marker::Marker;
use super::meter::Meter;
use super::outcome::{Measured, Verdict, figure, usage_figures, who_was_full};
use super::query::Query;
use super::sql::{Row, Sql};

/// Flags of `bench window`.
pub const FLAGS: &[Flag] = &[
    Flag { name: "upstream", value: "URL", default: None, help: "Postgres, where the rows are changed" },
    Flag { name: "limit", value: "N", default: Some("50"), help: "rows of the window" },
    Flag { name: "rows", value: "N", default: Some("20000"), help: "changes of rows, a multiple of ten" },
    Flag {
        name: "kind",
        value: "KIND",
        default: Some("unindexed"),
        help: "unindexed: a column without an index, rows outside; miss: created_at of rows that stay outside; \
               hit: created_at, ten rows into the window or out of it",
    },
];

/// Rows of a transaction.
const ROWS: u64 = 10;
/// Most issues whose rows are changed; then they are changed again.
const ISSUES_MAX: u64 = 100_000;

/// What a transaction changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Unindexed,
    Miss,
    Hit,
}

/// Runs `bench window`.
pub fn run(args: &Args) -> Result<(), BenchError> {
    let common = Common::new(args)?;
    let kind = match args.text("kind")? {
        "unindexed" => Kind::Unindexed,
        "miss" => Kind::Miss,
        "hit" => Kind::Hit,
        other => return Err(BenchError::Usage(format!("--kind {other}: unindexed, miss or hit"))),
    };
    let (rows, limit): (u64, u64) = (args.number("rows")?, args.number("limit")?);
    if rows == 0 || !rows.is_multiple_of(ROWS) {
        return Err(BenchError::Usage(format!("--rows must be a multiple of {ROWS}")));
    }
    let mut sql = Sql::connect(args.text("upstream")?)?;
    let issues = sql.number("select count(*) from issues")?;
    let measured = measure(&common, sql, kind, rows, limit);
    common.conclude(format!("window {limit} of {issues} issues {}", args.text("kind")?), measured)
}

fn measure(common: &Common, mut sql: Sql, kind: Kind, rows: u64, limit: u64) -> Result<Measured, BenchError> {
    let deadline = common.deadline();
    let tens = outside(&mut sql, rows.min(ISSUES_MAX), limit)?;
    let mut marker = Marker::watch(common, &mut sql, &[Query::recent(limit)])?;
    marker.settle(&mut sql, deadline)?;

    let meter = Meter::start(common.pids);
    let times = marker.behind(sql, rows / ROWS, |i| change(kind, &tens, i), deadline)?;
    let usage = meter.stop();
    let wall = times.seen.duration_since(times.begun).as_secs_f64();
    let mut figures = vec![
        figure("rows_rate", "rows/s", rows as f64 / wall),
        figure("wall", "s", wall),
        figure("behind_commit", "s", times.seen.duration_since(times.committed).as_secs_f64()),
        figure("postgres_wall", "s", times.committed.duration_since(times.begun).as_secs_f64()),
    ];
    figures.extend(usage.server().cpu_s.map(|s| figure("server_per_row", "us CPU", s * 1e6 / rows as f64)));
    figures.extend(usage_figures(&usage));
    Ok(Measured { figures, verdict: Verdict::Valid, notes: vec![who_was_full(&usage)] })
}

/// Lists of ten ids each, of issues that are far from the window and from one another.
fn outside(sql: &mut Sql, issues: u64, limit: u64) -> Result<Vec<String>, BenchError> {
    let rows = sql.rows(&format!(
        "with numbered as (select id, row_number() over (order by created_at) - 1 as at, count(*) over () as n \
         from issues) select id from numbered where at < n - {limit} - {issues} / 10 \
         and at % greatest(n / {issues}, 1) = 0 order by id limit {issues}"
    ))?;
    if (rows.len() as u64) < ROWS {
        return Err(BenchError::Usage("there are too few issues outside the window".to_owned()));
    }
    let id = |row: &Row| row.first().cloned().flatten().unwrap_or_default().replace('\'', "''");
    let ids: Vec<String> = rows.iter().map(|row| format!("'{}'", id(row))).collect();
    // Neighbours in a transaction are not neighbours on disk.
    let apart = ids.len() / ROWS as usize;
    let ten = |first: usize| {
        (0..ROWS as usize).map(|i| ids[first + i * apart].as_str()).collect::<Vec<_>>().join(",")
    };
    Ok((0..apart).map(ten).collect())
}

fn change(kind: Kind, tens: &[String], transaction: u64) -> String {
    let of = |at: u64| &tens[(at % tens.len() as u64) as usize];
    match kind {
        Kind::Unindexed => format!("update issues set rev = rev + 1 where id in ({})", of(transaction)),
        Kind::Miss => format!(
            "update issues set created_at = created_at - interval '1 hour' where id in ({})",
            of(transaction)
        ),
        // First into the window, then out again.
        Kind::Hit => {
            let year = if transaction.is_multiple_of(2) { 2100 } else { 2000 };
            format!(
                "update issues set created_at = timestamptz '{year}-01-01' + {transaction} * interval '1 s' \
                 where id in ({})",
                of(transaction / 2)
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_into_the_window_goes_out_of_it_next() {
        let tens = ["'a'".to_owned(), "'b'".to_owned()];
        let texts: Vec<String> = (0..4).map(|i| change(Kind::Hit, &tens, i)).collect();
        assert!(texts[0].contains("2100") && texts[0].contains("'a'"));
        assert!(texts[1].contains("2000") && texts[1].contains("'a'"));
        assert!(texts[2].contains("2100") && texts[2].contains("'b'"));
    }
}
