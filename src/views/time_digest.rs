//! How values of one kind are spread: a few numbers that keep percentiles.

use serde_json::{Value, json};

/// Powers of four, from a microsecond on: the last one has what takes longer than four minutes.
const BUCKETS: usize = 16;

/// Nanoseconds below which all is one bucket.
const LEAST: u64 = 1_024;

/// Times, in nanoseconds. Takes no room before the first one: most views are never touched.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TimeDigest(Option<Box<Buckets>>);

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Buckets {
    counts: [u32; BUCKETS],
    sums: [u64; BUCKETS],
}

impl TimeDigest {
    /// Counts a time.
    pub fn record(&mut self, nanoseconds: u64) {
        let bucket = (nanoseconds / LEAST).checked_ilog2().map_or(0, |power| power as usize / 2 + 1);
        self.0.get_or_insert_default().add(bucket.min(BUCKETS - 1), 1, nanoseconds);
    }

    /// Adds those of another.
    pub fn add(&mut self, other: &TimeDigest) {
        let Some(others) = &other.0 else { return };
        let own = self.0.get_or_insert_default();
        (0..BUCKETS).for_each(|bucket| own.add(bucket, others.counts[bucket], others.sums[bucket]));
    }

    /// As the inspector has it (`docs/spec/sync-protocol.md` §18): a t-digest, the mean of each
    /// bucket in milliseconds with its count.
    pub fn to_digest(&self) -> Value {
        const COMPRESSION: f64 = 1_000.0;
        let mut out = vec![json!(COMPRESSION)];
        let all = self.0.iter().flat_map(|buckets| buckets.counts.iter().zip(&buckets.sums));
        for (count, sum) in all.filter(|(count, _)| **count > 0) {
            out.push(json!(*sum as f64 / f64::from(*count) / 1e6));
            out.push(json!(count));
        }
        Value::Array(out)
    }
}

impl Buckets {
    fn add(&mut self, bucket: usize, count: u32, sum: u64) {
        self.counts[bucket] = self.counts[bucket].saturating_add(count);
        self.sums[bucket] = self.sums[bucket].saturating_add(sum);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_a_kind_are_one_centroid() {
        let mut times = TimeDigest::default();
        assert_eq!(times.to_digest(), json!([1000.0]));
        [1_000_000, 1_040_000, 3_000_000, 0, u64::MAX].into_iter().for_each(|time| times.record(time));
        let digest = times.to_digest();
        assert_eq!(digest.as_array().map(Vec::len), Some(1 + 2 * 4));
        assert_eq!((&digest[3], &digest[4]), (&json!(1.02), &json!(2)));
        let mut twice = TimeDigest::default();
        twice.add(&times);
        twice.add(&times);
        assert_eq!(twice.to_digest()[4], json!(4));
    }
}
