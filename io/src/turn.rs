//! How long a socket that always has data, or always takes some, may keep its executor.
//!
//! A socket that is ready answers at once, so a task that reads in a loop never waits, and no other task of the
//! executor runs for as long as the peer sends. Each direction of a socket therefore has turns: after one it says
//! once that nothing is there, and has its task run again when the others have run.

use std::io;
use std::task::{Context, Poll};

/// Bytes of one turn: to copy them takes some ten microseconds.
const MAX_BYTES: usize = 256 << 10;

/// Calls of one turn, however little each of them moves: a call of the system takes a microsecond or two.
const MAX_CALLS: u32 = 32;

/// One turn of one direction of a socket.
#[derive(Default)]
pub(crate) struct Turn {
    bytes: usize,
    calls: u32,
}

impl Turn {
    /// Whether others come first. The task is then woken again, and has to be told that it waits.
    pub(crate) fn is_over(&mut self, cx: &Context<'_>) -> bool {
        if self.bytes < MAX_BYTES && self.calls < MAX_CALLS {
            return false;
        }
        *self = Turn::default();
        cx.waker().wake_by_ref();
        true
    }

    /// Counts what a call came to. Whoever really waits has let others run.
    pub(crate) fn count(&mut self, outcome: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match &outcome {
            Poll::Ready(Ok(bytes)) => {
                self.bytes = self.bytes.saturating_add(*bytes);
                self.calls += 1;
            }
            Poll::Ready(Err(_)) => {}
            Poll::Pending => *self = Turn::default(),
        }
        outcome
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::task::{Wake, Waker};

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicU32);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Calls that give so many bytes each until the turn is over.
    fn calls_of(bytes: usize) -> u32 {
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(woken.clone());
        let (mut turn, mut calls) = (Turn::default(), 0);
        while !turn.is_over(&Context::from_waker(&waker)) {
            assert!(turn.count(Poll::Ready(Ok(bytes))).is_ready());
            calls += 1;
        }
        assert_eq!(woken.0.load(Ordering::Relaxed), 1, "nobody else would wake it");
        assert!(!turn.is_over(&Context::from_waker(&waker)), "the next turn begins");
        calls
    }

    #[test]
    fn a_turn_ends_by_bytes_or_by_calls() {
        assert_eq!(calls_of(1), MAX_CALLS);
        assert_eq!(calls_of(64 << 10), 4);
        assert_eq!(calls_of(usize::MAX), 1);
    }

    #[test]
    fn whoever_waits_begins_anew() {
        let mut turn = Turn::default();
        for _ in 0..10 * MAX_CALLS {
            assert!(!turn.is_over(&Context::from_waker(Waker::noop())));
            let _ = turn.count(Poll::Ready(Ok(1)));
            let _ = turn.count(Poll::Pending);
        }
    }
}
