//! How much may come in a second: a bucket that fills at a constant rate.

/// Takes what comes at once up to a burst, and then at a rate. Time is given: nothing here reads a
/// clock.
#[derive(Debug, Clone)]
pub struct Rate {
    per_second: f64,
    burst: f64,
    /// What may come at once; negative: what has come too early.
    left: f64,
    at: f64,
}

impl Rate {
    /// Full.
    pub fn new(per_second: f64, burst: f64) -> Rate {
        Rate { per_second, burst, left: burst, at: 0.0 }
    }

    /// Takes so much at `now`, in milliseconds. Returns how long whoever brings it has to wait
    /// before the next, in milliseconds.
    pub fn take(&mut self, amount: f64, now: f64) -> f64 {
        let passed = (now - self.at).max(0.0) / 1_000.0;
        self.at = now;
        self.left = (self.left + passed * self.per_second).min(self.burst) - amount;
        (-self.left / self.per_second).max(0.0) * 1_000.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_the_rest_waits_its_time() {
        let mut rate = Rate::new(100.0, 50.0);
        assert!((0..50).all(|_| rate.take(1.0, 0.0) == 0.0));
        assert_eq!(rate.take(1.0, 0.0), 10.0);
        assert_eq!(rate.take(1.0, 20.0), 0.0, "two have come in again");
        assert_eq!(rate.take(200.0, 20.0), 2_000.0, "what is larger than the burst passes, and is paid for");
        assert_eq!(rate.take(0.0, 1e9), 0.0);
        assert_eq!(rate.take(51.0, 1e9), 10.0, "no more than the burst is saved");
    }
}
