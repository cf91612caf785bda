//! Groups that nobody has been in for days are forgotten (`docs/spec/view-syncer.md` §4.7): whoever
//! comes back to one all the same starts over.
//!
//! Without it what is recorded of every browser profile that ever came is kept, and read back at
//! every start.

use crate::model::purging::Purging;
use std::rc::Rc;

use super::syncer::Syncer;

/// Longest time between two purges, in milliseconds.
const LONGEST_INTERVAL: f64 = 16.0 * 60_000.0;

/// Decides when what is purged.
#[derive(Debug)]
pub struct Purger {
    rule: Purging,
    batch: usize,
    backlog: usize,
    interval: f64,
    /// Time of the next purge, on the core's clock; `None`: no purge yet.
    next: Option<f64>,
}

impl Purger {
    /// One that has not purged yet.
    pub fn new(rule: Purging) -> Purger {
        Purger { rule, batch: rule.batch, backlog: 0, interval: rule.interval, next: None }
    }

    /// Whether it is time. The first purge is an interval after the first call: whoever was there when
    /// the process ended has that long to come back.
    fn is_time(&mut self, now: f64) -> bool {
        now >= *self.next.get_or_insert(now + self.rule.interval)
    }

    /// Of so many groups that are due, how many go now. Sets the time of the next purge.
    fn take(&mut self, due: usize, now: f64) -> usize {
        let taken = due.min(self.batch);
        let backlog = due - taken;
        if backlog > self.backlog {
            self.batch += self.rule.batch;
        }
        self.backlog = backlog;
        self.interval = match taken {
            0 => (self.interval * 2.0).min(LONGEST_INTERVAL.max(self.rule.interval)),
            _ => self.rule.interval,
        };
        self.next = Some(now + self.interval);
        taken
    }
}

impl Syncer {
    /// Forgets groups from now on.
    pub fn purge_by(&mut self, rule: Purging) {
        self.purger = Some(Purger::new(rule));
    }

    /// Forgets the groups that nobody has been in for longest, if it is time. Returns how many.
    pub fn purge(&mut self, now: f64) -> usize {
        let Some(purger) = self.purger.as_mut().filter(|purger| purger.rule.batch > 0) else { return 0 };
        if !purger.is_time(now) {
            return 0;
        }
        let before = now - purger.rule.after;
        let left = self.groups.iter().filter_map(|(id, group)| Some((group.left_at?, id.clone())));
        let mut due: Vec<(f64, Rc<str>)> = left.filter(|(at, _)| *at <= before).collect();
        due.sort_by(|a, b| a.0.total_cmp(&b.0).then_with(|| a.1.cmp(&b.1)));
        due.truncate(purger.take(due.len(), now));
        due.iter().for_each(|(_, id)| self.drop_group(id));
        due.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: Purging = Purging { after: 0.0, interval: 60_000.0, batch: 25 };

    #[test]
    fn the_first_purge_waits_for_those_who_come_back() {
        let mut purger = Purger::new(RULE);
        assert!(!purger.is_time(5.0));
        assert!(!purger.is_time(60_004.0));
        assert!(purger.is_time(60_005.0));
    }

    #[test]
    fn a_growing_backlog_is_taken_in_growing_batches() {
        let mut purger = Purger::new(RULE);
        assert_eq!(purger.take(100, 0.0), 25);
        assert_eq!(purger.next, Some(60_000.0));
        assert_eq!(purger.take(75, 60_000.0), 50);
        assert_eq!(purger.take(25, 120_000.0), 25, "it shrinks");
        assert_eq!(purger.take(300, 180_000.0), 50);
        assert_eq!(purger.take(300, 240_000.0), 75, "it grew from nothing");
    }

    #[test]
    fn while_there_is_nothing_it_looks_more_and_more_seldom() {
        let mut purger = Purger::new(RULE);
        let mut now = 0.0;
        let mut waits = Vec::new();
        for _ in 0..6 {
            assert_eq!(purger.take(0, now), 0);
            waits.push((purger.next.unwrap() - now) / 60_000.0);
            now = purger.next.unwrap();
        }
        assert_eq!(waits, [2.0, 4.0, 8.0, 16.0, 16.0, 16.0]);
        assert_eq!(purger.take(1, now), 1);
        assert_eq!(purger.next, Some(now + 60_000.0));
    }
}
