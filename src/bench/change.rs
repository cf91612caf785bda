//! The commits of `bench fanout`: what they change, and when.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::arrivals::Commit;
use super::error::BenchError;
use super::message::{MARKER_DIGITS, MARKER_TEXT};
use super::sql::Sql;

/// Pause between the start of a schedule and the first commit that is due.
const LEAD: Duration = Duration::from_millis(50);
/// Numbers of inserted issues stay below this: the column is a 32-bit integer.
const NUM_MAX: u64 = 1_000_000_000;

/// The change that a commit makes.
pub struct Change {
    /// The issue that is updated: the newest, so that it is in every window.
    id: String,
    insert: bool,
}

impl Change {
    /// Finds the newest issue; removes what an earlier run has inserted.
    pub fn prepare(sql: &mut Sql, insert: bool) -> Result<Change, BenchError> {
        sql.execute("delete from issues where id like 'kf%'")?;
        let rows = sql.rows("select id from issues order by created_at desc, id limit 1")?;
        let id = rows.into_iter().next().and_then(|r| r.into_iter().next().flatten());
        let id =
            id.ok_or_else(|| BenchError::Failed("there are no issues: run `kelvin bench seed`".to_owned()))?;
        Ok(Change { id: id.replace('\'', "''"), insert })
    }

    /// Makes a commit for each marker, on schedule: the time at which one is due does not
    /// depend on the one before. Times are counted from `begun`. Ends early when told to.
    pub fn commit(
        &self,
        sql: &mut Sql,
        begun: Instant,
        rate: f64,
        markers: Range<u64>,
        stop: &AtomicBool,
    ) -> Result<Vec<Commit>, BenchError> {
        let first_due = begun.elapsed() + LEAD;
        let mut commits = Vec::new();
        for (i, marker) in markers.enumerate() {
            let due = first_due + Duration::from_secs_f64(i as f64 / rate);
            std::thread::sleep(due.saturating_sub(begun.elapsed()));
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let text = self.sql(marker);
            let sent = begun.elapsed();
            sql.execute(&text)?;
            commits.push(Commit { due, sent, acknowledged: begun.elapsed() });
        }
        Ok(commits)
    }

    fn sql(&self, marker: u64) -> String {
        let text = format!("{MARKER_TEXT}{marker:0width$}", width = MARKER_DIGITS);
        if self.insert {
            // A project of its own: `num` is unique in a project.
            format!(
                "insert into issues (id, project_id, num, title, creator_id, created_at) values \
                 ('kf{marker}', 'kf', {num}, '{text}', 'u0', timestamptz '2100-01-01' + {num} * interval '1 ms')",
                num = marker % NUM_MAX
            )
        } else {
            format!("update issues set title = '{text}', rev = rev + 1 where id = '{}'", self.id)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers_have_a_fixed_length() {
        for insert in [true, false] {
            let change = Change { id: "i1".to_owned(), insert };
            assert!(change.sql(7).contains("kelvin-bench:000000000007"), "{insert}");
        }
    }
}
