//! Mutations that wait for the app, and those who wait to add to them.

use std::cell::Cell;
use std::rc::Rc;

use super::limits::PushLimits;
use super::queues::Queues;
use super::signal::WaitList;
use crate::backend::push::{PushBatch, Queue};
use crate::testing::met::{Limit, met};

/// Mutations that wait for the app.
#[derive(Default)]
pub struct Pushes {
    queues: Queues<Queue>,
    /// Bytes of all of them.
    bytes: Cell<usize>,
    /// Senders that wait until there is room.
    room: WaitList,
}

impl Pushes {
    /// Bytes of mutations of a group that wait for the app.
    pub fn bytes_of(&self, group: &str) -> usize {
        self.queues.look(group, Queue::bytes).unwrap_or(0)
    }

    /// Whether a group's mutations may be queued: it has none, or not too many, and the core has not either.
    fn has_room(&self, group: &str, limits: &PushLimits) -> bool {
        match self.bytes_of(group) {
            0 => true,
            bytes => bytes <= limits.of_group && self.bytes.get() <= limits.of_core,
        }
    }

    /// Waits until a group's mutations may be queued.
    pub async fn until_room(&self, group: &str, limits: impl Fn() -> PushLimits) {
        let has_room = || self.has_room(group, &limits());
        if !has_room() {
            met(Limit::PushBytes);
            self.room.until(has_room).await;
        }
    }

    fn changed(&self, from: usize, to: usize) {
        self.bytes.set(self.bytes.get() - from + to);
    }

    /// Queues mutations. True: nobody brings those of the group to the app yet.
    pub fn add(&self, group: &Rc<str>, batch: PushBatch) -> bool {
        self.queues.add(group, |queue| {
            let before = queue.bytes();
            queue.push(batch);
            self.changed(before, queue.bytes());
        })
    }

    /// The next request of a group; `None`: there is nothing of it any more.
    pub fn next(&self, group: &str) -> Option<PushBatch> {
        let next = self.queues.next(group, |queue| {
            let before = queue.bytes();
            let batch = queue.pop();
            self.changed(before, queue.bytes());
            batch
        });
        self.room.wake();
        next
    }

    /// Forgets what a group has waiting.
    pub fn remove(&self, group: &str) {
        if let Some(queue) = self.queues.remove(group) {
            self.changed(queue.bytes(), 0);
        }
        self.room.wake();
    }
}
