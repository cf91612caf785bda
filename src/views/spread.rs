//! How values of one kind are spread: a few numbers that keep percentiles.

use serde_json::{Value, json};

/// Powers of two, from a microsecond on: the last one has what takes longer than half an hour.
const BUCKETS: usize = 32;

/// Nanoseconds below which all is one bucket.
const LEAST: u64 = 1_024;

/// Times, in nanoseconds. Takes no room before the first one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Spread(Option<Box<[(u32, u64); BUCKETS]>>);

impl Spread {
    /// Counts a time.
    pub fn record(&mut self, nanoseconds: u64) {
        let bucket = (nanoseconds / LEAST).checked_ilog2().map_or(0, |power| power as usize + 1);
        let buckets = self.0.get_or_insert_with(|| Box::new([(0, 0); BUCKETS]));
        let (count, sum) = &mut buckets[bucket.min(BUCKETS - 1)];
        *count = count.saturating_add(1);
        *sum = sum.saturating_add(nanoseconds);
    }

    /// Adds those of another.
    pub fn add(&mut self, other: &Spread) {
        let Some(others) = &other.0 else { return };
        let buckets = self.0.get_or_insert_with(|| Box::new([(0, 0); BUCKETS]));
        for ((count, sum), (more, also)) in buckets.iter_mut().zip(others.iter()) {
            *count = count.saturating_add(*more);
            *sum = sum.saturating_add(*also);
        }
    }

    /// As the inspector has it (`docs/spec/sync-protocol.md` §18): a t-digest, the mean of each
    /// bucket in milliseconds with its count.
    pub fn to_digest(&self) -> Value {
        const COMPRESSION: f64 = 1_000.0;
        let mut out = vec![json!(COMPRESSION)];
        for (count, sum) in self.0.iter().flat_map(|buckets| buckets.iter()).filter(|(count, _)| *count > 0) {
            out.push(json!(*sum as f64 / f64::from(*count) / 1e6));
            out.push(json!(count));
        }
        Value::Array(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_a_kind_are_one_centroid() {
        let mut spread = Spread::default();
        assert_eq!(spread.to_digest(), json!([1000.0]));
        [1_000_000, 1_040_000, 3_000_000, 0, u64::MAX].into_iter().for_each(|time| spread.record(time));
        let digest = spread.to_digest();
        assert_eq!(digest.as_array().map(Vec::len), Some(1 + 2 * 4));
        assert_eq!((&digest[3], &digest[4]), (&json!(1.02), &json!(2)));
        let mut twice = Spread::default();
        twice.add(&spread);
        twice.add(&spread);
        assert_eq!(twice.to_digest()[4], json!(4));
    }
}
