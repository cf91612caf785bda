//! What is written down, and what is told only then (rule 23).
//!
//! While a write is under way, what is to be recorded collects, and what is sent is held: the next write
//! takes all of it (group commit). A disk that fails stops the core's groups, with a reason, until it takes a whole
//! new file.

use std::cell::{Cell, RefCell};

use super::limits::RecordLimits;
use crate::cvr::frame::MAX_PAYLOAD;
use crate::groups::record_log::Output;
use crate::protocol::error::{Kind, ProtocolError};

/// Milliseconds between warnings of what is not recorded: a client can bring it about again and again.
const SAY_AGAIN: f64 = 60_000.0;

/// How much waits to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordQueue {
    /// Little, or nothing is recorded.
    Short,
    /// So much that what is not live waits.
    Long,
    /// So much that no view is read meanwhile.
    Overfull,
    /// The disk takes nothing.
    Failed,
}

/// What is to be written down.
#[derive(Default)]
pub struct Recording {
    on: Cell<bool>,
    waiting: RefCell<Vec<Output>>,
    waiting_bytes: Cell<usize>,
    writing: Cell<bool>,
    failed: Cell<bool>,
    /// What has not been recorded since that was said last.
    unrecorded: Cell<usize>,
    said_at: Cell<Option<f64>>,
}

impl Recording {
    /// From now on something is recorded.
    pub fn start(&self) {
        self.on.set(true);
    }

    /// Whether something is.
    pub fn is_on(&self) -> bool {
        self.on.get()
    }

    /// Whether the disk takes nothing.
    pub fn has_failed(&self) -> bool {
        self.failed.get()
    }

    /// Whether what is sent now has to wait for a write.
    pub fn is_behind(&self) -> bool {
        self.writing.get() || self.waiting_bytes.get() > 0
    }

    /// How much waits.
    pub fn queue(&self, limits: &RecordLimits) -> RecordQueue {
        match self.waiting_bytes.get() {
            _ if self.failed.get() => RecordQueue::Failed,
            bytes if bytes > limits.waiting_bytes => RecordQueue::Overfull,
            bytes if bytes > limits.filling_bytes => RecordQueue::Long,
            _ => RecordQueue::Short,
        }
    }

    /// Takes what has to be written.
    pub fn push(&self, output: Output, now: f64) {
        if output.unrecorded > 0 {
            self.say_unrecorded(output.unrecorded, now);
        }
        self.waiting_bytes.set(self.waiting_bytes.get() + output.len().max(1));
        self.waiting.borrow_mut().push(output);
    }

    /// What is written next, if something waits and nothing is being written.
    pub fn begin(&self) -> Option<Vec<Output>> {
        if self.writing.get() || self.waiting_bytes.get() == 0 {
            return None;
        }
        self.writing.set(true);
        self.waiting_bytes.set(0);
        Some(self.waiting.take())
    }

    /// What was written last is on the disk.
    pub fn written(&self) {
        self.writing.set(false);
    }

    /// The disk does not take it. What waits is of no use: the next file is a whole one.
    pub fn fail(&self) {
        self.failed.set(true);
        self.writing.set(false);
        self.waiting_bytes.set(0);
        self.waiting.take();
    }

    /// The disk takes records again.
    pub fn recovered(&self) {
        self.failed.set(false);
    }

    /// Some views or groups are not recorded. Said at once, and then no more than once in a while.
    fn say_unrecorded(&self, count: usize, now: f64) {
        let count = self.unrecorded.get() + count;
        self.unrecorded.set(count);
        if self.said_at.get().is_some_and(|at| now - at < SAY_AGAIN) {
            return;
        }
        self.said_at.set(Some(now));
        self.unrecorded.set(0);
        crate::warn!(
            count = count;
            "some client groups or views are not recorded, since a key of a row, or what a group asks for, is larger \
             than {MAX_PAYLOAD} bytes together: after a restart their clients are sent everything anew. Queries \
             with smaller arguments, or fewer of them, help"
        );
    }
}

/// What clients are told while the disk takes nothing.
pub fn refusal() -> ProtocolError {
    ProtocolError::new(
        Kind::Rehome,
        "the server's disk does not take the records of client views; it serves again once there is room on it",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(bytes: usize) -> Output {
        Output { bytes: vec![1; bytes], ..Output::default() }
    }

    #[test]
    fn what_collects_during_a_write_goes_with_the_next_one() {
        let recording = Recording::default();
        recording.push(output(3), 0.0);
        assert_eq!(recording.begin().map(|outputs| outputs.len()), Some(1));
        (0..2).for_each(|_| recording.push(output(3), 0.0));
        assert!(recording.begin().is_none(), "two writes at a time");
        recording.written();
        assert!(recording.is_behind());
        assert_eq!(recording.begin().map(|outputs| outputs.len()), Some(2));
        recording.written();
        assert!(!recording.is_behind() && recording.begin().is_none());
    }

    #[test]
    fn what_waits_is_counted_until_a_write_takes_it() {
        let limits = RecordLimits { filling_bytes: 10, waiting_bytes: 20 };
        let recording = Recording::default();
        let queue = |bytes| {
            recording.push(output(bytes), 0.0);
            recording.queue(&limits)
        };
        let met = [queue(10), queue(10), queue(1)];
        assert_eq!(met, [RecordQueue::Short, RecordQueue::Long, RecordQueue::Overfull]);
        recording.begin().expect("a write");
        assert_eq!(recording.queue(&limits), RecordQueue::Short);
        recording.fail();
        assert_eq!(recording.queue(&limits), RecordQueue::Failed);
        assert!(!recording.is_behind());
    }
}
