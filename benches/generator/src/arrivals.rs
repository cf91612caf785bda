//! Latency of every commit at every client, without coordinated omission.

use std::time::Duration;

use super::statistics::Latencies;

/// One commit of an open-loop schedule, as times since the start of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Commit {
    /// When it should have been sent.
    pub due: Duration,
    /// When it was sent.
    pub sent: Duration,
    /// When Postgres acknowledged it.
    pub acknowledged: Duration,
}

/// Commit and microseconds since the start of the run.
pub type Arrival = (u32, u32);

/// Most arrivals of a run: 256 MiB of them.
pub const ARRIVALS_MAX: u64 = 32 << 20;

/// Adds the latencies of all arrivals. Commit numbers count from 0; those that are not in `commits`
/// (the warm-up) do not count.
///
/// A latency runs from the acknowledged commit. When the commit was sent late, because the
/// one before it took too long, the delay is added: a client on that schedule has waited
/// for it as well.
pub fn latencies(commits: &[Commit], first: u32, arrivals: &[Arrival], out: &mut Latencies) {
    for (number, micros) in arrivals {
        let Some(commit) = number.checked_sub(first).and_then(|i| commits.get(i as usize)) else { continue };
        let at = Duration::from_micros(u64::from(*micros));
        let late = commit.sent.saturating_sub(commit.due);
        out.record((at + late).saturating_sub(commit.acknowledged));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn latencies(commits: &[Commit], first: u32, arrivals: &[Arrival]) -> Latencies {
        let mut out = Latencies::new();
        super::latencies(commits, first, arrivals, &mut out);
        out
    }

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn from_the_acknowledged_commit() {
        let commits = [Commit { due: ms(10), sent: ms(10), acknowledged: ms(12) }];
        let l = latencies(&commits, 0, &[(0, 20_000), (0, 22_000)]);
        assert_eq!((l.count(), l.max_ms().round()), (2, 10.0));
    }

    #[test]
    fn a_commit_that_is_sent_late_counts_from_its_due_time() {
        let commits = [Commit { due: ms(10), sent: ms(110), acknowledged: ms(112) }];
        assert_eq!(latencies(&commits, 0, &[(0, 120_000)]).max_ms().round(), 108.0);
    }

    #[test]
    fn a_poke_before_the_acknowledgement_counts_as_none() {
        let commits = [Commit { due: ms(10), sent: ms(10), acknowledged: ms(12) }];
        assert!(latencies(&commits, 0, &[(0, 11_000)]).max_ms() < 0.01);
    }

    #[test]
    fn the_warm_up_does_not_count() {
        let commits = [Commit { due: ms(10), sent: ms(10), acknowledged: ms(12) }];
        assert_eq!(latencies(&commits, 5, &[(4, 1), (5, 13_000), (6, 1)]).count(), 1);
    }
}
