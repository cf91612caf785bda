//! When to tell upstream how far we are, and what. Sans-IO.
//!
//! Upstream may forget everything below an acknowledged position, so only what survives a
//! power cut is acknowledged. A status is also how upstream knows that we live; one with
//! position zero says only that.

use std::time::{Duration, Instant};

use crate::model::version::StateVersion;

/// Decides about one connection.
#[derive(Debug)]
pub struct Acks {
    /// Longest silence, or none if upstream does not time out.
    silence: Option<Duration>,
    acknowledged: StateVersion,
    last: Instant,
}

impl Acks {
    /// `wal_sender_timeout`: zero if upstream waits for ever.
    pub fn new(wal_sender_timeout: Duration, now: Instant) -> Acks {
        // The server asks for a sign of life after half the timeout; three quarters leave
        // room for both.
        let silence = (!wal_sender_timeout.is_zero()).then(|| wal_sender_timeout * 3 / 4);
        Acks { silence, acknowledged: StateVersion::ZERO, last: now }
    }

    /// The status to send now, if any. `asked`: upstream wants one at once.
    pub fn due(&mut self, durable: StateVersion, asked: bool, now: Instant) -> Option<StateVersion> {
        let status = if durable > self.acknowledged {
            durable
        } else if asked {
            // Repeating what is acknowledged moves nothing.
            self.acknowledged
        } else if self.silence.is_some_and(|silence| now.duration_since(self.last) >= silence) {
            StateVersion::ZERO
        } else {
            return None;
        };
        self.acknowledged = self.acknowledged.max(status);
        self.last = now;
        Some(status)
    }

    /// What upstream knows to be safe.
    pub fn acknowledged(&self) -> StateVersion {
        self.acknowledged
    }

    /// Longest time until [`Acks::due`] should be asked again.
    pub fn check_after(&self) -> Duration {
        const NEVER: Duration = Duration::from_secs(3600);
        self.silence.map_or(NEVER, |silence| silence / 5)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_durable_positions_are_acknowledged_and_silence_is_broken() {
        let start = Instant::now();
        let mut acks = Acks::new(Duration::from_secs(60), start);
        assert_eq!(acks.due(StateVersion::ZERO, false, start), None);
        assert_eq!(acks.due(StateVersion::ZERO, true, start), Some(StateVersion::ZERO));
        assert_eq!(acks.due(StateVersion(5), false, start), Some(StateVersion(5)));
        assert_eq!(acks.due(StateVersion(5), false, start), None);
        assert_eq!(acks.due(StateVersion(5), true, start), Some(StateVersion(5)));
        let later = start + Duration::from_secs(45);
        assert_eq!(acks.due(StateVersion(5), false, later), Some(StateVersion::ZERO));
        assert_eq!(acks.due(StateVersion(5), false, later), None);
        assert_eq!(acks.acknowledged(), StateVersion(5));
    }

    #[test]
    fn without_a_timeout_nothing_is_sent_for_its_own_sake() {
        let start = Instant::now();
        let mut acks = Acks::new(Duration::ZERO, start);
        assert_eq!(acks.due(StateVersion::ZERO, false, start + Duration::from_secs(86_400)), None);
    }
}
