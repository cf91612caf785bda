//! What each client wants, and until when (`docs/spec/view-syncer.md` §3.5, §3.6).

use super::sorted::SortedMap;
use crate::protocol::cookie::Cookie;

/// Time to live when the client names none, in milliseconds.
pub const DEFAULT_TTL: f64 = 300_000.0;

/// Longest time to live, in milliseconds.
pub const MAX_TTL: f64 = 600_000.0;

/// Most queries that one client may want at a time. A page wants tens; the bound keeps one
/// tab from filling a core.
pub const MAX_DESIRED: usize = 5_000;

/// Clamps a client's time to live: absent is the default, negative is for ever.
pub fn clamp_ttl(ttl: Option<f64>) -> f64 {
    match ttl {
        None => DEFAULT_TTL,
        Some(ttl) if ttl.is_nan() => DEFAULT_TTL,
        Some(ttl) if ttl < 0.0 => MAX_TTL,
        Some(ttl) => ttl.min(MAX_TTL),
    }
}

/// One query as one client wants or wanted it.
#[derive(Debug, Clone, PartialEq)]
pub struct Desire {
    /// Milliseconds that it stays once it is not wanted.
    pub ttl: f64,
    /// Time on the group's clock since when it is not wanted.
    pub inactive_since: Option<f64>,
    /// Whether the client wants it, as far as it has been told.
    pub desired: bool,
    /// Cookie of the last change of `desired`.
    pub changed: Cookie,
}

impl Desire {
    /// Whether it counts no more, at this time of the group's clock.
    pub fn is_expired(&self, clock: f64) -> bool {
        self.time_left(clock) <= 0.0
    }

    /// Milliseconds until it counts no more, negative afterwards; without end while it is
    /// wanted.
    pub fn time_left(&self, clock: f64) -> f64 {
        match self.inactive_since {
            Some(since) => since + self.ttl - clock,
            None if self.desired => f64::INFINITY,
            None => f64::NEG_INFINITY,
        }
    }
}

/// One client of a group.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Client {
    /// Wanted queries by hash, and those not wanted any more that somebody may still have
    /// to be told of.
    pub desires: SortedMap<String, Desire>,
    /// Deleted; kept for its desires.
    pub deleted: bool,
    /// How often in a row it came and had to come once more to say what it wants.
    pub resends: u32,
}

impl Client {
    /// Queries wanted at the moment.
    pub fn desired_count(&self) -> usize {
        self.desires.values().filter(|d| d.desired).count()
    }

    /// Whether a put would change anything: unknown, not wanted, or wanted for longer.
    pub fn needs(&self, hash: &str, ttl: f64) -> bool {
        match self.desires.get(hash) {
            None => true,
            Some(desire) => !desire.desired || ttl > desire.ttl,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_to_live_are_clamped() {
        assert_eq!(clamp_ttl(None), DEFAULT_TTL);
        assert_eq!(clamp_ttl(Some(-1.0)), MAX_TTL);
        assert_eq!(clamp_ttl(Some(86_400_000.0)), MAX_TTL);
        assert_eq!(clamp_ttl(Some(0.0)), 0.0);
    }

    #[test]
    fn a_desire_expires_after_its_time_on_the_group_clock() {
        let mut desire = Desire {
            ttl: 5_000.0,
            inactive_since: None,
            desired: true,
            changed: Cookie { major: 0, config: 1 },
        };
        assert!(!desire.is_expired(1e12));
        desire.inactive_since = Some(10.0);
        desire.desired = false;
        assert!(!desire.is_expired(5_009.0) && desire.is_expired(5_010.0));
    }
}
