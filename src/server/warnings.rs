//! Warnings of what an operator has to act on, but clients can cause as often as they like.
//!
//! An app that is away fails for every client; without a limit that would be thousands of lines a second, and
//! the queue of the log would drop others for them.

use std::cell::RefCell;
use std::fmt;
use std::time::{Duration, Instant};

use kelvin_io::executor::now;

use crate::core::warning::Warning;

/// Time between two lines of a kind, from one core. Whoever has to be woken by it is by one.
const EVERY: Duration = Duration::from_secs(10);

const KINDS: usize = 9;

/// When something was warned of last.
#[derive(Debug, Clone, Copy, Default)]
struct Last {
    at: Option<Instant>,
    /// Times since then.
    left_out: u64,
}

/// The limits of one core.
pub struct Warnings {
    core: usize,
    last: RefCell<[Last; KINDS]>,
}

impl Warnings {
    /// Nothing was warned of yet.
    pub fn new(core: usize) -> Warnings {
        Warnings { core, last: RefCell::default() }
    }

    /// Logs a warning, unless there was one of its kind less than [`EVERY`] ago. The next one says how often
    /// that was.
    pub fn warn(&self, warning: Warning, text: fmt::Arguments<'_>) {
        if let Some(left_out) = self.left_out(warning, now()) {
            crate::warn!(core = self.core, left_out = left_out; "{text}");
        }
    }

    /// Whether a line of this kind is a warning now; the others of the next [`EVERY`] are not.
    pub fn is_due(&self, warning: Warning) -> bool {
        self.left_out(warning, now()).is_some()
    }

    /// `None`: it is too early for a line of this kind; else how many were left out before it.
    fn left_out(&self, warning: Warning, now: Instant) -> Option<u64> {
        let last = &mut self.last.borrow_mut()[warning as usize];
        if last.at.is_some_and(|at| now.saturating_duration_since(at) < EVERY) {
            last.left_out += 1;
            return None;
        }
        last.at = Some(now);
        Some(std::mem::take(&mut last.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clients_cause_without_end_is_warned_of_now_and_then() {
        let (warnings, began) = (Warnings::new(0), now());
        let said = |warning, seconds| warnings.left_out(warning, began + Duration::from_secs(seconds));
        assert_eq!(said(Warning::Query, 0), Some(0));
        for _ in 0..1_000 {
            assert_eq!(said(Warning::Query, 9), None);
        }
        assert_eq!(said(Warning::Sockets, 9), Some(0), "each kind has its own limit");
        assert_eq!(said(Warning::Query, 10), Some(1_000));
        assert_eq!(said(Warning::Query, 20), Some(0));
        assert_eq!(KINDS, Warning::Sockets as usize + 1);
    }
}
