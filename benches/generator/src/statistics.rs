//! Medians, ratios and percentiles.

use std::time::Duration;

use hdrhistogram::Histogram;

/// Longest latency that is told apart, in microseconds (ten minutes).
const LATENCY_MAX_US: u64 = 600_000_000;
/// Significant digits of a latency.
const DIGITS: u8 = 3;

/// The middle of some runs and how far they lie apart.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// Runs.
    pub n: usize,
    /// The least.
    pub min: f64,
    /// The middle one, or the mean of the two in the middle.
    pub median: f64,
    /// The greatest.
    pub max: f64,
}

impl Spread {
    /// Of these values; `None` when there are none.
    pub fn of(values: &[f64]) -> Option<Spread> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let n = sorted.len();
        Some(Spread { n, min, median: (sorted[(n - 1) / 2] + sorted[n / 2]) / 2.0, max })
    }
}

/// `a / b`, unless there is nothing to divide by.
pub fn ratio(a: f64, b: f64) -> Option<f64> {
    (b > 0.0).then(|| a / b)
}

/// Latencies of every client and every commit.
pub struct Latencies(Histogram<u64>);

impl Latencies {
    /// None yet.
    pub fn new() -> Latencies {
        Latencies(Histogram::new_with_bounds(1, LATENCY_MAX_US, DIGITS).expect("bounds that are in order"))
    }

    /// Adds one. What is longer than the longest counts as the longest.
    pub fn record(&mut self, latency: Duration) {
        self.0.saturating_record(
            u64::try_from(latency.as_micros()).unwrap_or(u64::MAX).clamp(1, LATENCY_MAX_US),
        );
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// A percentile, in milliseconds.
    pub fn percentile_ms(&self, percent: f64) -> f64 {
        self.0.value_at_percentile(percent) as f64 / 1000.0
    }

    /// The longest, in milliseconds.
    pub fn max_ms(&self) -> f64 {
        self.0.max() as f64 / 1000.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(Spread::of(&[]), None);
        assert_eq!(Spread::of(&[3.0, 1.0, 2.0]), Some(Spread { n: 3, min: 1.0, median: 2.0, max: 3.0 }));
        assert_eq!(Spread::of(&[4.0, 1.0]).unwrap().median, 2.5);
    }

    #[test]
    fn ratios() {
        assert_eq!(ratio(10.0, 4.0), Some(2.5));
        assert_eq!(ratio(10.0, 0.0), None);
    }

    #[test]
    fn percentiles_of_a_known_series() {
        let mut l = Latencies::new();
        for ms in 1..=100 {
            l.record(Duration::from_millis(ms));
        }
        l.record(Duration::ZERO);
        assert_eq!(l.count(), 101);
        assert!((l.percentile_ms(50.0) - 50.0).abs() < 0.1);
        assert!((l.percentile_ms(99.0) - 99.0).abs() < 0.1);
        assert!((l.max_ms() - 100.0).abs() < 0.1);
    }

    #[test]
    fn an_endless_latency_is_kept_at_the_bound() {
        let mut l = Latencies::new();
        l.record(Duration::from_secs(1 << 40));
        assert_eq!(l.count(), 1);
        assert!(l.max_ms() >= 599_000.0);
    }
}
