//! When the checks of one client group are due that are repeated while connections are open
//! (`docs/spec/view-syncer.md` §11.6), and with whose credentials its queries are transformed.
//!
//! Times are milliseconds of one clock.

use std::time::Duration;

use crate::model::ids::ConnectionId;

/// Times between checks, in milliseconds; `None`: off.
#[derive(Debug, Clone, Copy)]
pub struct Intervals {
    /// Between validations of each connection.
    pub revalidate: Option<f64>,
    /// Between transformations of a group's queries.
    pub retransform: Option<f64>,
}

impl Intervals {
    /// From the settings.
    pub fn new(revalidate: Option<Duration>, retransform: Option<Duration>) -> Intervals {
        let millis = |time: Duration| time.as_secs_f64() * 1000.0;
        Intervals { revalidate: revalidate.map(millis), retransform: retransform.map(millis) }
    }
}

/// A connection that the app has let in with the credentials that it has now.
#[derive(Debug, Clone, Copy)]
pub struct Validated {
    /// Which.
    pub id: ConnectionId,
    /// When it was let in last.
    pub at: f64,
}

/// The checks of one group.
#[derive(Debug, Default)]
pub struct Upkeep {
    background: Option<ConnectionId>,
    retransform_at: Option<f64>,
    not_before: f64,
}

impl Upkeep {
    /// Connections that have to be validated anew, oldest first.
    pub fn revalidations(&self, open: &[Validated], intervals: Intervals, now: f64) -> Vec<ConnectionId> {
        let Some(interval) = intervals.revalidate.filter(|_| now >= self.not_before) else {
            return Vec::new();
        };
        let mut due: Vec<ConnectionId> =
            open.iter().filter(|c| now - c.at >= interval).map(|c| c.id).collect();
        due.sort();
        due
    }

    /// The connection whose credentials the queries have to be transformed with anew; `None`:
    /// it is not time yet, or there is none.
    pub fn retransformation(
        &mut self,
        open: &[Validated],
        intervals: Intervals,
        now: f64,
    ) -> Option<ConnectionId> {
        let interval = intervals.retransform?;
        let ids = || open.iter().map(|c| c.id);
        // It stays the same for as long as it can: each change may change what the app answers.
        self.background = match self.background {
            Some(id) if ids().any(|open| open == id) => Some(id),
            Some(_) => ids().max(),
            None => ids().min(),
        };
        if self.background.is_none() {
            self.retransform_at = None;
        }
        let due = *self.retransform_at.get_or_insert(now + interval);
        self.background.filter(|_| now >= due.max(self.not_before))
    }

    /// The queries were transformed anew.
    pub fn retransformed(&mut self, intervals: Intervals, now: f64) {
        self.retransform_at = intervals.retransform.map(|interval| now + interval);
    }

    /// A check failed in a way that may pass: none is tried again within this time.
    pub fn defer(&mut self, interval: Option<f64>, now: f64) {
        self.not_before = self.not_before.max(now + interval.unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: Intervals = Intervals { revalidate: Some(100.0), retransform: Some(150.0) };

    fn open(connections: &[(u64, f64)]) -> Vec<Validated> {
        connections.iter().map(|(id, at)| Validated { id: ConnectionId(*id), at: *at }).collect()
    }

    fn ids(ids: &[u64]) -> Vec<ConnectionId> {
        ids.iter().copied().map(ConnectionId).collect()
    }

    #[test]
    fn each_connection_is_validated_an_interval_after_the_last_time() {
        let upkeep = Upkeep::default();
        let open = open(&[(2, 0.0), (1, 0.0), (3, 50.0)]);
        assert_eq!(upkeep.revalidations(&open, EVERY, 99.0), []);
        assert_eq!(upkeep.revalidations(&open, EVERY, 100.0), ids(&[1, 2]), "in the order of arrival");
        assert_eq!(upkeep.revalidations(&open, EVERY, 150.0), ids(&[1, 2, 3]));
        let off = Intervals { revalidate: None, ..EVERY };
        assert_eq!(upkeep.revalidations(&open, off, 1e9), []);
    }

    #[test]
    fn a_failure_that_may_pass_puts_everything_off() {
        let mut upkeep = Upkeep::default();
        let open = open(&[(1, 0.0)]);
        assert_eq!(upkeep.retransformation(&open, EVERY, 0.0), None);
        upkeep.defer(EVERY.revalidate, 100.0);
        assert_eq!(upkeep.revalidations(&open, EVERY, 199.0), []);
        assert_eq!(upkeep.retransformation(&open, EVERY, 199.0), None);
        assert_eq!(upkeep.revalidations(&open, EVERY, 200.0), ids(&[1]));
        assert_eq!(upkeep.retransformation(&open, EVERY, 200.0), Some(ConnectionId(1)));
    }

    #[test]
    fn one_connection_serves_for_all_until_it_goes() {
        let mut upkeep = Upkeep::default();
        let mut at =
            |connections: &[(u64, f64)], now| upkeep.retransformation(&open(connections), EVERY, now);
        assert_eq!(at(&[(2, 0.0), (1, 0.0)], 0.0), None);
        assert_eq!(at(&[(3, 0.0), (2, 0.0), (1, 0.0)], 150.0), Some(ConnectionId(1)), "the first");
        assert_eq!(at(&[(2, 0.0), (3, 0.0)], 150.0), Some(ConnectionId(3)), "the newest takes its place");
        assert_eq!(at(&[(2, 0.0), (3, 0.0), (4, 0.0)], 150.0), Some(ConnectionId(3)));
        assert_eq!(at(&[], 150.0), None);
        assert_eq!(at(&[(5, 0.0)], 151.0), None, "it begins anew");
        upkeep.retransformed(EVERY, 300.0);
        let five = open(&[(5, 0.0)]);
        assert_eq!(upkeep.retransformation(&five, EVERY, 449.0), None);
        assert_eq!(upkeep.retransformation(&five, EVERY, 450.0), Some(ConnectionId(5)));
        let off = Intervals { retransform: None, ..EVERY };
        assert_eq!(upkeep.retransformation(&five, off, 1e9), None);
    }
}
