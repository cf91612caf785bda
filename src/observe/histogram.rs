//! A histogram with fixed logarithmic buckets, constant memory, and no lock.

use std::sync::atomic::{AtomicU64, Ordering};

/// Buckets of one decade: by the first two digits of a value, 10 to 99.
const PER_DECADE: usize = 90;
/// Values below 10 have a bucket each; the first decade is 10..100, the last 10^12..10^13 (in
/// nanoseconds: 2.8 hours). What is larger counts into the last bucket.
const DECADES: usize = 12;
const BUCKETS: usize = 10 + DECADES * PER_DECADE;

/// Counts values of any unit; times are in nanoseconds. A bucket is at most a tenth of its value wide,
/// and every bound of the form `d·10^n` or `dd·10^n` is a bound of a bucket.
pub struct Histogram {
    buckets: Box<[AtomicU64]>,
    sum: AtomicU64,
    max: AtomicU64,
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram {
            buckets: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect(),
            sum: AtomicU64::new(0),
            max: AtomicU64::new(0),
        }
    }
}

impl Histogram {
    /// Counts `value`. Three relaxed atomics.
    pub fn record(&self, value: u64) {
        self.buckets[bucket_of(value)].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
        self.max.fetch_max(value, Ordering::Relaxed);
    }

    /// The largest value so far.
    pub fn max(&self) -> u64 {
        self.max.load(Ordering::Relaxed)
    }
}

/// The contents of one or several histograms at one moment (values that arrive meanwhile may be counted
/// in part).
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    buckets: Vec<u64>,
    sum: u64,
    max: u64,
}

impl Default for Snapshot {
    fn default() -> Snapshot {
        Snapshot { buckets: vec![0; BUCKETS], sum: 0, max: 0 }
    }
}

impl Snapshot {
    /// Adds the contents of `histogram`.
    pub fn add(&mut self, histogram: &Histogram) {
        for (own, other) in self.buckets.iter_mut().zip(&histogram.buckets) {
            *own += other.load(Ordering::Relaxed);
        }
        self.sum = self.sum.wrapping_add(histogram.sum.load(Ordering::Relaxed));
        self.max = self.max.max(histogram.max());
    }

    /// Number of values.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// Sum of the values.
    pub fn sum(&self) -> u64 {
        self.sum
    }

    /// The largest value.
    pub fn max(&self) -> u64 {
        self.max
    }

    /// Number of values below `bound`, which should be a bound of a bucket.
    pub fn below(&self, bound: u64) -> u64 {
        self.buckets[..bucket_of(bound)].iter().sum()
    }

    /// A value that the share `quantile` (0 to 1) of the values does not exceed; at most a tenth too
    /// large. 0 when there are no values.
    pub fn quantile(&self, quantile: f64) -> u64 {
        let wanted = (self.count() as f64 * quantile).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                // The last bucket has no upper bound.
                let upper = if bucket + 1 < BUCKETS { lower_bound(bucket + 1) - 1 } else { self.max };
                return upper.min(self.max);
            }
        }
        self.max
    }
}

fn bucket_of(value: u64) -> usize {
    let Some(decade) = value.checked_ilog10().and_then(|digits| digits.checked_sub(1)) else {
        return value as usize;
    };
    let first_two_digits = (value / 10u64.pow(decade)) as usize;
    (10 + decade as usize * PER_DECADE + first_two_digits - 10).min(BUCKETS - 1)
}

/// The smallest value that belongs to `bucket`.
fn lower_bound(bucket: usize) -> u64 {
    match bucket.checked_sub(10) {
        None => bucket as u64,
        Some(above) => (above % PER_DECADE + 10) as u64 * 10u64.pow((above / PER_DECADE) as u32),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(values: impl IntoIterator<Item = u64>) -> Snapshot {
        let histogram = Histogram::default();
        values.into_iter().for_each(|value| histogram.record(value));
        let mut snapshot = Snapshot::default();
        snapshot.add(&histogram);
        snapshot
    }

    #[test]
    fn every_bucket_begins_at_its_lower_bound() {
        for bucket in 0..BUCKETS {
            let lower = lower_bound(bucket);
            assert_eq!(bucket_of(lower), bucket);
            assert!(lower == 0 || bucket_of(lower - 1) == bucket - 1);
        }
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn quantiles_are_within_a_tenth() {
        let snapshot = snapshot(1..=100_000);
        for quantile in [0.01, 0.5, 0.9, 0.99, 0.999] {
            let exact = quantile * 100_000.0;
            let estimate = snapshot.quantile(quantile) as f64;
            assert!(estimate >= exact && estimate <= exact * 1.1 + 1.0, "{quantile}: {estimate}");
        }
        assert_eq!(snapshot.quantile(1.0), 100_000);
        assert_eq!((snapshot.count(), snapshot.sum()), (100_000, 5_000_050_000));
    }

    #[test]
    fn nothing_counted_and_the_largest_value_are_no_trouble() {
        assert_eq!(snapshot([]).quantile(0.99), 0);
        assert_eq!(snapshot([u64::MAX]).quantile(0.5), u64::MAX);
        assert_eq!(snapshot([0]).quantile(0.5), 0);
    }

    #[test]
    fn counts_below_a_bound_are_exact() {
        let snapshot = snapshot([9_999, 10_000, 19_999, 20_000]);
        assert_eq!((snapshot.below(10_000), snapshot.below(20_000)), (1, 3));
    }
}
