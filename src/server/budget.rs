//! How much memory the process may use, and how near it is to that (decision 008).
//!
//! A thread of its own looks twenty times a second and says how tight memory is; every core acts
//! on what it says. What is held is counted by the allocator: what the system has given to the
//! process does not shrink when something is given up. But it is what a limit counts, so it is
//! looked at, too.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::Duration;

use kelvin_io::{allocator, memory};

use super::supervise::Guard;
use crate::core::host::Pressure;
use crate::testing::panics;

/// Time between looks. Hydrations take some tens of megabytes in it at most.
const LOOK: Duration = Duration::from_millis(50);

/// Looks between which what is free goes back to the system: a second. It is done on the same thread, since
/// it takes up to twenty milliseconds after a large view, and the allocator would do it on a core.
const PURGE_EVERY: u32 = 20;

/// Part of what the process can have that it uses if nothing else is said, in percent. The rest is
/// for what is not counted: buffers of the kernel, pages of SQLite, what an allocator loses.
const DEFAULT_SHARE: usize = 75;

/// Parts of the budget in percent, of what is allocated and of what the system has given: from the
/// first on memory is tight, from the second on it is full. Between a limit and the one below it nothing
/// changes, or groups would come and go in turn.
const HELD_PARTS: Parts = Parts { calm: 80, tight: 87, full: 95 };
const IN_USE_PARTS: Parts = Parts { calm: 65, tight: 72, full: 85 };

/// Looks after which memory that is full does not become free by itself: five seconds. What was on the way has
/// arrived by then, and what is free has gone back to the system.
const STAYS_FULL: usize = 100;

struct Parts {
    calm: usize,
    tight: usize,
    full: usize,
}

/// From what is in use, of a budget, and what was before.
fn pressure_of(budget: usize, in_use: usize, held: usize, before: Pressure) -> Pressure {
    let above = |percent: fn(&Parts) -> usize| {
        in_use > part(budget, percent(&IN_USE_PARTS)) || held > part(budget, percent(&HELD_PARTS))
    };
    if above(|parts| parts.full) {
        Pressure::Full
    } else if above(|parts| parts.tight) || (before != Pressure::Calm && above(|parts| parts.calm)) {
        Pressure::Tight
    } else {
        Pressure::Calm
    }
}

fn part(bytes: usize, percent: usize) -> usize {
    bytes / 100 * percent
}

/// The memory of the process; shared by all cores.
pub struct Budget {
    bytes: usize,
    pressure: AtomicU8,
    in_use: AtomicUsize,
    held: AtomicUsize,
    /// Looks in a row at which memory was full.
    full: AtomicUsize,
}

impl Budget {
    /// `bytes`: what was set; else a part of what the process can have.
    pub fn new(bytes: Option<usize>) -> Budget {
        let by_limit = || memory::limit().map_or(usize::MAX, |limit| part(limit, DEFAULT_SHARE));
        Budget {
            bytes: bytes.unwrap_or_else(by_limit),
            pressure: AtomicU8::new(Pressure::Calm as u8),
            in_use: AtomicUsize::new(0),
            held: AtomicUsize::new(0),
            full: AtomicUsize::new(0),
        }
    }

    /// Looks for as long as anybody else has the budget, which ends with the run.
    pub fn watch(self: &Arc<Self>, guard: Guard) -> std::io::Result<()> {
        let budget = self.clone();
        std::thread::Builder::new().name("memory".to_owned()).spawn(move || {
            let _guard = guard;
            let mut looks = 0;
            while Arc::strong_count(&budget) > 1 {
                panics::here("watching memory");
                budget.look_again();
                budget.count();
                looks += 1;
                if looks % PURGE_EVERY == 0 {
                    memory::purge();
                }
                std::thread::sleep(LOOK);
            }
        })?;
        Ok(())
    }

    /// Finds how tight memory is now.
    pub fn look_again(&self) {
        self.look(allocator::in_use(), memory::held());
    }

    fn count(&self) {
        let full = if self.pressure() == Pressure::Full { self.full.load(Ordering::Relaxed) + 1 } else { 0 };
        self.full.store(full, Ordering::Relaxed);
    }

    fn look(&self, in_use: usize, held: usize) {
        let before = self.pressure();
        let pressure = pressure_of(self.bytes, in_use, held, before);
        self.in_use.store(in_use, Ordering::Relaxed);
        self.held.store(held, Ordering::Relaxed);
        self.pressure.store(pressure as u8, Ordering::Relaxed);
        if pressure == before {
            return;
        }
        match pressure {
            Pressure::Full => crate::warn!(
                budget = self.bytes, in_use = in_use, held = held;
                "memory is full: no views are read and nobody is let in until there is some. Give the server more, \
                 or put up with fewer clients"
            ),
            Pressure::Tight => crate::warn!(
                budget = self.bytes, in_use = in_use, held = held;
                "memory is tight: what is kept for clients that are gone is given up, and no new ones are let in"
            ),
            Pressure::Calm => crate::info!(in_use = in_use, held = held; "there is enough memory again"),
        }
    }

    /// How tight memory was a moment ago.
    pub fn pressure(&self) -> Pressure {
        match self.pressure.load(Ordering::Relaxed) {
            0 => Pressure::Calm,
            1 => Pressure::Tight,
            _ => Pressure::Full,
        }
    }

    /// Bytes that the process may use.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes that are allocated.
    pub fn in_use(&self) -> usize {
        self.in_use.load(Ordering::Relaxed)
    }

    /// Bytes that the system has given, beside pages of files.
    pub fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Bytes that would have to be given up for memory to be calm again.
    pub fn excess(&self) -> usize {
        let over = |bytes: usize, percent: usize| bytes.saturating_sub(part(self.bytes, percent));
        over(self.in_use(), IN_USE_PARTS.calm).max(over(self.held(), HELD_PARTS.calm))
    }

    /// Bytes of those allocated that would have to be given up.
    pub fn excess_in_use(&self) -> usize {
        self.in_use().saturating_sub(part(self.bytes, IN_USE_PARTS.calm))
    }

    /// Whether memory has been full for so long that it does not become free by itself.
    pub fn stays_full(&self) -> bool {
        self.full.load(Ordering::Relaxed) >= STAYS_FULL
    }

    /// Most bytes of one view: a quarter. What one query asks for must leave room for others.
    pub fn of_view(&self) -> usize {
        self.bytes / 4
    }

    /// Most bytes of the views of one group: half.
    pub fn of_group(&self) -> usize {
        self.bytes / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    fn after(steps: &[(usize, usize)]) -> Pressure {
        let budget = Budget::new(Some(1_000 * MIB));
        steps.iter().for_each(|(in_use, held)| budget.look(in_use * MIB, held * MIB));
        budget.pressure()
    }

    #[test]
    fn either_what_is_allocated_or_what_was_given_makes_memory_tight() {
        assert_eq!(after(&[(100, 100)]), Pressure::Calm);
        assert_eq!(after(&[(730, 760)]), Pressure::Tight);
        assert_eq!(after(&[(100, 900)]), Pressure::Tight);
        assert_eq!(after(&[(860, 870)]), Pressure::Full);
        assert_eq!(after(&[(100, 960)]), Pressure::Full);
    }

    #[test]
    fn memory_that_was_tight_is_calm_only_well_below() {
        assert_eq!(after(&[(730, 760), (700, 760)]), Pressure::Tight);
        assert_eq!(after(&[(860, 870), (700, 760)]), Pressure::Tight);
        assert_eq!(after(&[(700, 760)]), Pressure::Calm);
        assert_eq!(after(&[(860, 870), (640, 790)]), Pressure::Calm);
    }

    #[test]
    fn memory_stays_full_when_it_has_been_so_for_five_seconds() {
        let budget = Budget::new(Some(1_000 * MIB));
        budget.look(600 * MIB, 990 * MIB);
        assert_eq!((budget.pressure(), budget.excess_in_use()), (Pressure::Full, 0));
        (1..STAYS_FULL).for_each(|_| budget.count());
        assert!(!budget.stays_full());
        budget.count();
        assert!(budget.stays_full());
        budget.look(700 * MIB, 790 * MIB);
        budget.count();
        assert!(!budget.stays_full() && budget.excess_in_use().abs_diff(50 * MIB) < 1_000);
    }

    #[test]
    fn what_has_to_go_is_what_is_above_calm() {
        let budget = Budget::new(Some(1_000 * MIB));
        budget.look(700 * MIB, 700 * MIB);
        assert!(budget.excess().abs_diff(50 * MIB) < 1_000);
        budget.look(100 * MIB, 900 * MIB);
        assert!(budget.excess().abs_diff(100 * MIB) < 1_000);
    }
}
