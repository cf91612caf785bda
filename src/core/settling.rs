//! Errors that a client must not be told yet (`docs/spec/sync-protocol.md` §4.3).
//!
//! When a stock client has taken `connected` it reads its store, and only then counts itself as connected.
//! An error that it takes in between ends its connection, and is forgotten when the store has answered: it
//! goes on as connected, without a socket. Whatever it sends on a connection it sends after that, so the
//! first message shows that an error may be told. Until then it is kept.

use std::cell::{Cell, RefCell};

use bytes::Bytes;

/// Milliseconds after `connected` for which an error may be kept. A stock client gives an attempt up after ten seconds,
/// of which some have passed when it is told `connected`; one second more for the way there.
pub const SETTLES_WITHIN: f64 = 11_000.0;

/// Whether a client has shown that it can be told an error, and the error that it will be told.
#[derive(Default)]
pub struct Settling {
    /// When it was told `connected`; `None`: it was not, or it has shown it.
    since: Cell<Option<f64>>,
    kept: RefCell<Vec<Bytes>>,
}

impl Settling {
    /// The client has been told `connected`.
    pub fn begin(&self, now: f64) {
        self.since.set(Some(now));
    }

    /// Milliseconds for which an error would be kept at most.
    pub fn left(&self, now: f64) -> f64 {
        self.since.get().map_or(0.0, |since| (since + SETTLES_WITHIN - now).max(0.0))
    }

    /// Keeps the last frames of a connection.
    pub fn keep(&self, frames: &[Bytes]) {
        self.kept.borrow_mut().extend_from_slice(frames);
    }

    /// Whether something is kept.
    pub fn keeps_any(&self) -> bool {
        !self.kept.borrow().is_empty()
    }

    /// The client has shown it, or has had the time. Returns what was kept.
    pub fn end(&self) -> Vec<Bytes> {
        self.since.set(None);
        self.kept.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_kept_for_as_long_as_the_client_may_read_its_store_and_no_longer() {
        let settling = Settling::default();
        assert_eq!(settling.left(5.0), 0.0);
        settling.begin(1_000.0);
        assert_eq!(settling.left(2_000.0), SETTLES_WITHIN - 1_000.0);
        assert_eq!(settling.left(1_000.0 + SETTLES_WITHIN), 0.0);
        settling.keep(&[Bytes::from_static(b"error")]);
        assert_eq!(settling.end(), [Bytes::from_static(b"error")]);
        assert!(!settling.keeps_any() && settling.left(2_000.0) == 0.0);
    }
}
