//! When upstream is looked at (`docs/spec/schema-changes.md` S8).

use std::time::{Duration, Instant};

/// How often upstream is looked at without a reason, if that takes little.
const LOOK: Duration = Duration::from_secs(1);

/// The same at least.
pub const LOOK_AT_LEAST: Duration = Duration::from_secs(10);

/// So many times the time that a look took passes until the next.
const LOOK_SHARE: u32 = 50;

/// The same if something asks for it: an app that makes temporary tables all the time asks all the time.
const PROMPTED_SHARE: u32 = 4;

/// When a look that was asked for and saw nothing new is repeated: the message of a transaction can be here before the
/// transaction is visible.
const AGAIN: Duration = Duration::from_millis(25);

/// When the next look is due.
pub struct Schedule {
    due: Instant,
    earliest: Instant,
    repeats: bool,
}

impl Schedule {
    /// Somebody has just looked.
    pub fn new(now: Instant) -> Schedule {
        Schedule { due: now + LOOK, earliest: now, repeats: false }
    }

    /// When the next look is due.
    pub fn due(&self) -> Instant {
        self.due
    }

    /// Something may have changed.
    pub fn prompt(&mut self, now: Instant) {
        self.due = self.due.min(now.max(self.earliest));
        self.repeats = true;
    }

    /// A look has ended; `found`: it saw what was not known.
    pub fn looked(&mut self, began: Instant, now: Instant, found: bool) {
        let took = now.saturating_duration_since(began);
        self.earliest = now + took * PROMPTED_SHARE;
        self.due = now + (took * LOOK_SHARE).clamp(LOOK, LOOK_AT_LEAST);
        if std::mem::take(&mut self.repeats) && !found {
            self.due = (now + AGAIN).max(self.earliest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn looks_take_a_small_part_of_the_time() {
        let now = Instant::now();
        let mut schedule = Schedule::new(now);
        assert_eq!(schedule.due(), now + LOOK);
        schedule.looked(now, now + 5 * MS, false);
        assert_eq!(schedule.due(), now + 5 * MS + LOOK);
        schedule.looked(now, now + 100 * MS, false);
        assert_eq!(schedule.due(), now + 5100 * MS);
        schedule.looked(now, now + 2000 * MS, true);
        assert_eq!(schedule.due(), now + 2000 * MS + LOOK_AT_LEAST);
    }

    #[test]
    fn who_asks_all_the_time_is_answered_now_and_then() {
        let now = Instant::now();
        let mut schedule = Schedule::new(now);
        schedule.prompt(now);
        assert_eq!(schedule.due(), now);
        schedule.looked(now, now + 10 * MS, true);
        schedule.prompt(now + 11 * MS);
        assert_eq!(schedule.due(), now + 50 * MS);
        schedule.prompt(now + 60 * MS);
        assert_eq!(schedule.due(), now + 50 * MS, "it is due already");
    }

    #[test]
    fn a_look_that_came_too_early_is_repeated_once() {
        let now = Instant::now();
        let mut schedule = Schedule::new(now);
        schedule.prompt(now);
        schedule.looked(now, now + MS, false);
        assert_eq!(schedule.due(), now + MS + AGAIN);
        schedule.looked(now + 26 * MS, now + 27 * MS, false);
        assert_eq!(schedule.due(), now + 27 * MS + LOOK);
    }
}
