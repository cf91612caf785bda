//! How one core hears of commits: a bounded queue of shared allocations.
//!
//! The replication manager never waits for a core. A core that falls too far behind loses
//! the queue's contents and is told so: it looks at everything again (rules 1 and 16 of
//! `docs/spec/rules.md`).

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kelvin_io::notify::{Notified, Notifier, notify};

use crate::core::host::Commits;
use crate::model::commit::Commit;
use crate::model::version::StateVersion;

/// Most bytes of rows that wait for one core. The rows are shared by all cores, so this is
/// about the most that a stuck core can pin.
pub const MAX_BYTES: usize = 128 << 20;

/// Most commits that wait for one core.
pub const MAX_COMMITS: usize = 100_000;

#[derive(Default)]
struct Waiting {
    commits: VecDeque<Arc<Commit>>,
    bytes: usize,
    gap: bool,
    newest: StateVersion,
}

/// The replication manager's end.
#[derive(Clone)]
pub struct CommitSender {
    waiting: Arc<Mutex<Waiting>>,
    signal: Notifier,
}

/// A core's end.
pub struct CommitReceiver {
    waiting: Arc<Mutex<Waiting>>,
    signal: Notified,
}

/// A queue for one core.
pub fn queue() -> (CommitSender, CommitReceiver) {
    let waiting = Arc::new(Mutex::new(Waiting::default()));
    let (signal, signalled) = notify();
    (CommitSender { waiting: waiting.clone(), signal }, CommitReceiver { waiting, signal: signalled })
}

fn lock(waiting: &Mutex<Waiting>) -> MutexGuard<'_, Waiting> {
    // Nothing in a critical section can panic half way through a change.
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

impl CommitSender {
    /// Adds a commit. True if the queue overflowed and was dropped.
    pub fn send(&self, commit: &Arc<Commit>) -> bool {
        let overflowed = {
            let mut waiting = lock(&self.waiting);
            waiting.newest = commit.version;
            let full = waiting.commits.len() >= MAX_COMMITS || waiting.bytes + commit.size > MAX_BYTES;
            if full && !waiting.commits.is_empty() {
                waiting.commits.clear();
                waiting.bytes = 0;
                waiting.gap = true;
            }
            waiting.bytes += commit.size;
            waiting.commits.push_back(commit.clone());
            full
        };
        self.signal.notify();
        overflowed
    }
}

impl CommitReceiver {
    /// Waits until something was sent since the last call. False: no more will come.
    pub async fn wait(&self) -> bool {
        self.signal.wait().await
    }

    /// Whether the commit that ends with this version, or a later one, has been sent.
    pub fn has_reached(&self, version: StateVersion) -> bool {
        lock(&self.waiting).newest >= version
    }

    /// Takes the commits after `from` up to `to`; later ones stay.
    pub fn take(&self, from: StateVersion, to: StateVersion) -> Commits {
        let mut waiting = lock(&self.waiting);
        let mut taken = Commits { gap: std::mem::take(&mut waiting.gap), ..Commits::default() };
        let mut last = from;
        while let Some(commit) = waiting.commits.front().filter(|c| c.version <= to).cloned() {
            waiting.commits.pop_front();
            waiting.bytes -= commit.size;
            if commit.version <= from {
                continue;
            }
            taken.gap |= commit.previous != last;
            last = commit.version;
            taken.commits.push(commit);
        }
        taken.gap |= last != to;
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commit(previous: u64, version: u64, size: usize) -> Arc<Commit> {
        Arc::new(Commit {
            version: StateVersion(version),
            previous: StateVersion(previous),
            tables: Default::default(),
            size,
        })
    }

    #[test]
    fn commits_up_to_the_snapshot_are_taken_and_later_ones_stay() {
        let (sender, receiver) = queue();
        for (p, v) in [(1, 2), (2, 5), (5, 6)] {
            assert!(!sender.send(&commit(p, v, 1)));
        }
        let taken = receiver.take(StateVersion(1), StateVersion(5));
        assert_eq!((taken.commits.len(), taken.gap), (2, false));
        let taken = receiver.take(StateVersion(5), StateVersion(6));
        assert_eq!((taken.commits.len(), taken.gap), (1, false));
    }

    #[test]
    fn a_commit_is_there_once_it_or_a_later_one_was_sent() {
        let (sender, receiver) = queue();
        assert!(!receiver.has_reached(StateVersion(2)));
        sender.send(&commit(1, 3, 1));
        assert!(receiver.has_reached(StateVersion(2)) && !receiver.has_reached(StateVersion(4)));
    }

    #[test]
    fn a_missing_commit_is_a_gap() {
        let (sender, receiver) = queue();
        sender.send(&commit(3, 4, 1));
        assert!(receiver.take(StateVersion(1), StateVersion(4)).gap);
        assert!(receiver.take(StateVersion(4), StateVersion(7)).gap, "the snapshot is ahead of the queue");
    }

    #[test]
    fn a_queue_that_overflows_is_dropped_and_says_so() {
        let (sender, receiver) = queue();
        sender.send(&commit(1, 2, MAX_BYTES));
        assert!(sender.send(&commit(2, 3, 10)));
        let taken = receiver.take(StateVersion(1), StateVersion(3));
        assert!(taken.gap);
        assert!(receiver.take(StateVersion(3), StateVersion(3)).commits.is_empty());
    }
}
