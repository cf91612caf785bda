//! How long a server's cores ran without yielding, from the histogram on its `/metrics` page.

use super::handshake::Target;
use super::page;

/// What of a slice is counted.
#[derive(Clone, Copy, Debug)]
pub enum Clock {
    /// The time that went by.
    Wall,
    /// The processor's time: without what other processes took of it.
    Cpu,
}

impl Clock {
    /// The histogram's name on the page.
    fn buckets(self) -> &'static str {
        match self {
            Clock::Wall => "kelvin_slice_seconds_bucket{le=\"",
            Clock::Cpu => "kelvin_slice_cpu_seconds_bucket{le=\"",
        }
    }

    /// Name of the longest of each core.
    fn longest(self) -> &'static str {
        match self {
            Clock::Wall => "kelvin_slice_longest_seconds{",
            Clock::Cpu => "kelvin_slice_cpu_longest_seconds{",
        }
    }
}

/// The slices of all cores since the server was started.
#[derive(Clone, Debug, PartialEq)]
pub struct Slices {
    /// In seconds.
    longest: f64,
    /// Upper bound in seconds (infinite: the last), and how many were not longer.
    buckets: Vec<(f64, u64)>,
}

impl Slices {
    /// Until now; `None`: this server does not say.
    pub fn now(target: &Target, clock: Clock) -> Option<Slices> {
        let (status, text) = page::get(target, "/metrics").ok()?;
        let slices = Slices::parse(&text, clock);
        (status == 200 && !slices.buckets.is_empty()).then_some(slices)
    }

    fn parse(text: &str, clock: Clock) -> Slices {
        let bucket = |line: &str| {
            let (bound, count) = line.strip_prefix(clock.buckets())?.split_once("\"} ")?;
            let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse().ok()? };
            Some((bound, count.parse().ok()?))
        };
        let longest =
            |line: &str| line.strip_prefix(clock.longest())?.split_once("} ")?.1.parse::<f64>().ok();
        Slices {
            longest: text.lines().filter_map(longest).fold(0.0, f64::max),
            buckets: text.lines().filter_map(bucket).collect(),
        }
    }

    /// The longest since `before`, in milliseconds: exactly, if it is the longest of all, or
    /// else the bound of its bucket.
    pub fn longest_since(&self, before: &Slices) -> f64 {
        if self.longest > before.longest {
            return self.longest * 1e3;
        }
        let mut below = 0;
        let mut bound = 0.0;
        for (now, then) in self.buckets.iter().zip(&before.buckets) {
            let not_longer = now.1.saturating_sub(then.1);
            if not_longer > below {
                bound = now.0;
            }
            below = not_longer;
        }
        bound.min(self.longest) * 1e3
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(counts: [u64; 3], longest: f64) -> Slices {
        let [a, b, c] = counts;
        let text = format!(
            "kelvin_slice_longest_seconds{{core=\"0\"}} 0.0001\nkelvin_slice_longest_seconds{{core=\"1\"}} {longest}\n\
             # TYPE kelvin_slice_seconds histogram\nkelvin_slice_seconds_bucket{{le=\"0.001\"}} {a}\n\
             kelvin_slice_seconds_bucket{{le=\"0.002\"}} {b}\nkelvin_slice_seconds_bucket{{le=\"+Inf\"}} {c}\n"
        );
        Slices::parse(&text, Clock::Wall)
    }

    #[test]
    fn the_longest_of_a_phase_is_told_from_that_of_all_time() {
        let before = page([10, 12, 13], 0.5);
        assert_eq!(page([20, 22, 23], 0.5).longest_since(&before), 1.0);
        assert_eq!(page([20, 23, 24], 0.5).longest_since(&before), 2.0);
        assert_eq!(page([20, 23, 25], 0.5).longest_since(&before), 500.0);
        assert_eq!(page([20, 23, 25], 0.75).longest_since(&before), 750.0);
        assert_eq!(before.longest_since(&before), 0.0);
    }
}
