//! Commits on an open-loop schedule: the time at which one is due does not depend on the
//! one before, nor on the server.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::arrivals::Commit;
use super::error::BenchError;
use super::message::{MARKER_DIGITS, MARKER_TEXT};
use super::sql::Sql;

/// Pause between the start of a schedule and the first commit that is due.
const LEAD: Duration = Duration::from_millis(50);
/// Marker numbers per second of the clock: a later run never shows an earlier one's markers,
/// as long as it commits no more often than this.
pub const MARKERS_PER_SECOND: u64 = 2_000;

/// A marker from which a run that begins now may count up.
pub fn fresh_marker() -> u64 {
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    clock.as_millis() as u64 * MARKERS_PER_SECOND / 1000
}

/// A marker as it stands in a column.
pub fn marker_text(marker: u64) -> String {
    format!("{MARKER_TEXT}{marker:0width$}", width = MARKER_DIGITS)
}

/// Makes a commit for each marker, on schedule. Times are counted from `begun`. Ends early
/// when told to.
pub fn commit(
    sql: &mut Sql,
    begun: Instant,
    rate: f64,
    markers: Range<u64>,
    stop: &AtomicBool,
    text: &impl Fn(u64) -> String,
) -> Result<Vec<Commit>, BenchError> {
    let first_due = begun.elapsed() + LEAD;
    let mut commits = Vec::new();
    for (i, marker) in markers.enumerate() {
        let due = first_due + Duration::from_secs_f64(i as f64 / rate);
        std::thread::sleep(due.saturating_sub(begun.elapsed()));
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let text = text(marker);
        let sent = begun.elapsed();
        sql.execute(&text)?;
        commits.push(Commit { due, sent, acknowledged: begun.elapsed() });
    }
    Ok(commits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers_of_the_clock_have_their_fixed_length_for_a_century() {
        assert!(marker_text(fresh_marker()).len() == MARKER_TEXT.len() + MARKER_DIGITS);
        let in_a_century = fresh_marker() + 100 * 366 * 86_400 * MARKERS_PER_SECOND;
        assert!(in_a_century < 10u64.pow(MARKER_DIGITS as u32));
    }
}
