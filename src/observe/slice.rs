//! How long a core runs without yielding to its other tasks.

use super::metrics::Metrics;

/// Measures one slice of work. It has no clock: the caller reads its own, in nanoseconds.
///
/// ```ignore
/// let slice = SliceTimer::begin(clock.now_ns());
/// while let Some(row) = next() {
///     work(row);
///     if slice.is_over(clock.now_ns(), budget_ns) { break; }
/// }
/// slice.end(clock.now_ns(), &metrics);
/// ```
#[derive(Debug)]
#[must_use = "a slice counts when it is ended"]
pub struct SliceTimer {
    started_ns: u64,
}

impl SliceTimer {
    /// The core begins to work.
    pub fn begin(now_ns: u64) -> SliceTimer {
        SliceTimer { started_ns: now_ns }
    }

    /// How long it has worked, in nanoseconds; 0 for a clock that went back.
    pub fn elapsed_ns(&self, now_ns: u64) -> u64 {
        now_ns.saturating_sub(self.started_ns)
    }

    /// Whether it has worked for `budget_ns` or longer, so that it should yield.
    pub fn is_over(&self, now_ns: u64, budget_ns: u64) -> bool {
        self.elapsed_ns(now_ns) >= budget_ns
    }

    /// The core yields. Returns the length of the slice in nanoseconds.
    pub fn end(self, now_ns: u64, metrics: &Metrics) -> u64 {
        let ran_ns = self.elapsed_ns(now_ns);
        metrics.slice_done(ran_ns);
        ran_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_is_over_at_its_budget_and_a_clock_that_goes_back_is_no_trouble() {
        let metrics = Metrics::new(0);
        let slice = SliceTimer::begin(1_000);
        assert!(!slice.is_over(1_999, 1_000) && slice.is_over(2_000, 1_000));
        assert!(!slice.is_over(500, 1_000));
        assert_eq!(slice.end(3_000, &metrics), 2_000);
        assert_eq!(metrics.longest_slice_ns(), 2_000);
    }
}
