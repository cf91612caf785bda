//! The marker behind a load: a label that one client watches. When the client is shown its new
//! name, it has been shown all that was committed before.

use std::time::{Duration, Instant};

use super::error::BenchError;
use super::message::Search;
use super::query::Query;
use super::schedule::{fresh_marker, marker_text};
use super::sql::Sql;
use super::swarm::Swarm;

/// The label.
const LABEL: &str = "kelvin-bench";
/// Transactions that are sent before the first of them is acknowledged. Postgres must not
/// wait for the generator, and need not be flooded.
const PIPELINE: u64 = 16;

/// A marker and the client that waits for it.
pub struct Marker {
    swarm: Swarm,
    number: u64,
}

/// When a load was committed, and seen.
pub struct Times {
    /// Before the first transaction was sent.
    pub begun: Instant,
    /// When the last transaction of the load was acknowledged.
    pub committed: Instant,
    /// When the end of the poke had come that shows the marker.
    pub seen: Instant,
}

impl Marker {
    /// Connects a client that has the label and `queries`.
    pub fn watch(
        common: &super::common::Common,
        sql: &mut Sql,
        queries: &[Query],
    ) -> Result<Marker, BenchError> {
        sql.execute(&format!(
            "insert into labels (id, name) values ('{LABEL}', '') on conflict (id) do nothing"
        ))?;
        let mut swarm = Swarm::new(Search::Queries)?;
        let wanted = [&[Query::label(LABEL)], queries].concat();
        swarm.gather(&common.target, &[wanted], 1, common.deadline())?;
        swarm.search = Search::Marker;
        Ok(Marker { swarm, number: fresh_marker() })
    }

    /// Waits until all that has been committed until now has been shown.
    pub fn settle(&mut self, sql: &mut Sql, deadline: Instant) -> Result<(), BenchError> {
        self.number += 1;
        set(sql, self.number)?;
        self.wait(deadline).map(|_| ())
    }

    /// Commits so many transactions, pipelined, and the marker behind them; gives the times.
    pub fn behind(
        &mut self,
        mut sql: Sql,
        transactions: u64,
        text: impl Fn(u64) -> String + Send,
        deadline: Instant,
    ) -> Result<Times, BenchError> {
        self.number += 1;
        let number = self.number;
        let begun = Instant::now();
        std::thread::scope(|scope| {
            let writer = scope.spawn(move || {
                pipeline(&mut sql, transactions, text)?;
                let committed = Instant::now();
                set(&mut sql, number)?;
                Ok::<_, BenchError>(committed)
            });
            let seen = self.wait(deadline);
            let committed =
                writer.join().map_err(|_| BenchError::Failed("the writer panicked".to_owned()))??;
            seen.map(|seen| Times { begun, committed, seen })
        })
    }

    /// Waits for the poke that shows the marker; gives the time at which its end had come.
    fn wait(&mut self, deadline: Instant) -> Result<Instant, BenchError> {
        let mut seen = None;
        let number = self.number;
        while seen.is_none() {
            if Instant::now() >= deadline {
                return Err(BenchError::NotFinished("the marker behind the rows was never seen".to_owned()));
            }
            let until = deadline.min(Instant::now() + Duration::from_secs(1));
            self.swarm.turn(until, &mut |_, poke, now| {
                if poke.marker >= number {
                    seen = seen.or(Some(now));
                }
            })?;
        }
        Ok(seen.unwrap_or_else(Instant::now))
    }
}

fn set(sql: &mut Sql, marker: u64) -> Result<(), BenchError> {
    sql.execute(&format!("update labels set name = '{}' where id = '{LABEL}'", marker_text(marker)))
}

fn pipeline(sql: &mut Sql, transactions: u64, text: impl Fn(u64) -> String) -> Result<(), BenchError> {
    let mut sent = 0;
    for done in 0..transactions {
        while sent < transactions.min(done + PIPELINE) {
            sql.send(&text(sent))?;
            sent += 1;
        }
        sql.flush()?;
        sql.receive()?;
    }
    Ok(())
}
