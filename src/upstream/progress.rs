//! How far an initial sync is, for people.

use std::sync::Mutex;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

/// What an initial sync has done so far.
pub struct Progress {
    /// When it began.
    pub started: Instant,
    /// Rows copied.
    pub rows: AtomicU64,
    /// What is being done when it is not copying.
    pub phase: Mutex<Option<String>>,
    /// The table that was begun last.
    pub table: Mutex<String>,
}

impl Default for Progress {
    fn default() -> Self {
        Progress {
            started: Instant::now(),
            rows: AtomicU64::new(0),
            phase: Mutex::default(),
            table: Mutex::default(),
        }
    }
}

/// As in "initial sync: 430,000 of 1,000,000 rows (43 %), 95,000 rows/s, table issues".
pub fn describe(rows: u64, total: u64, rate: f64, table: &str) -> String {
    let rate = thousands(rate as u64);
    let done = thousands(rows);
    if total == 0 {
        // Tables that were never analysed have no estimate.
        return format!("initial sync: {done} rows, {rate} rows/s, table {table}");
    }
    // The estimate may be too small.
    let total = total.max(rows);
    let percent = rows * 100 / total;
    format!("initial sync: {done} of {} rows ({percent} %), {rate} rows/s, table {table}", thousands(total))
}

fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_reads_well() {
        assert_eq!(thousands(1_000_000), "1,000,000");
        assert_eq!(thousands(999), "999");
        assert_eq!(
            describe(430_000, 1_000_000, 95_000.4, "issues"),
            "initial sync: 430,000 of 1,000,000 rows (43 %), 95,000 rows/s, table issues"
        );
        assert_eq!(describe(12, 0, 12.0, "t"), "initial sync: 12 rows, 12 rows/s, table t");
        assert_eq!(describe(12, 10, 1.0, "t"), "initial sync: 12 of 12 rows (100 %), 1 rows/s, table t");
    }
}
