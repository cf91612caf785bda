//! What an outbox holds until it is recorded (rule 23).

use std::collections::VecDeque;

use bytes::Bytes;

use super::Outbox;

impl Outbox {
    /// Sends frames once what they stand for is recorded.
    pub(super) fn pass(&self, frames: &[Bytes]) {
        match self.send_buffer.is_held() || self.held_bytes.get() > 0 {
            true => self.hold(frames),
            false => self.deliver(frames),
        }
    }

    /// Keeps frames until what they stand for is recorded.
    fn hold(&self, frames: &[Bytes]) {
        let mut held = self.held.borrow_mut();
        if held.is_empty() {
            self.this.upgrade().into_iter().for_each(|this| self.send_buffer.push_held(this));
        }
        held.extend(frames.iter().cloned());
        let size: usize = frames.iter().map(Bytes::len).sum();
        self.held_bytes.set(self.held_bytes.get() + size);
    }

    /// What is held now may go with the next [`Outbox::release_marked`].
    pub(in crate::core) fn mark_held(&self) {
        self.marked.set(self.held.borrow().len());
    }

    /// Sends what was marked. True: something is held still.
    pub(in crate::core) fn release_marked(&self) -> bool {
        let marked: Vec<Bytes> = {
            let mut held = self.held.borrow_mut();
            let marked = held.drain(..self.marked.take()).collect();
            if held.is_empty() {
                // Most connections are quiet for long: what one of them took for a poke is given back.
                *held = VecDeque::new();
            }
            marked
        };
        let size: usize = marked.iter().map(Bytes::len).sum();
        self.held_bytes.set(self.held_bytes.get() - size);
        if !self.broken.get() {
            self.deliver(&marked);
            self.note_room();
        }
        !self.held.borrow().is_empty()
    }

    /// Drops what is held.
    pub(in crate::core) fn drop_held(&self) {
        self.held.borrow_mut().clear();
        self.held_bytes.set(0);
        self.marked.set(0);
    }
}
