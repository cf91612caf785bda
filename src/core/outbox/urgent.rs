//! What overtakes everything else that waits.

use bytes::Bytes;

use super::Outbox;
use crate::protocol::websocket::text_frame;

/// First byte of the frame that answers a ping frame.
const PONG_FRAME: u8 = 0x8a;

impl Outbox {
    /// Sends one message ahead of everything that waits: a client that is sent a long poke
    /// still has to see its pong within seconds (trap T7).
    pub fn urgent(&self, json: &[u8]) {
        self.urgent_frame(text_frame(json));
    }

    /// The same for a frame. One that waits answers all pings so far: a client that sends
    /// them without reading must not fill the memory.
    pub fn urgent_frame(&self, frame: Bytes) {
        if self.has_ended() {
            return;
        }
        if self.queued.get() == 0 {
            // It tells nothing that is recorded, so it need not be held; and what is held has no
            // bound against a client that sends one ping after the other.
            return self.deliver(&[frame]);
        }
        let first = usize::from(self.partial.get());
        let mut queue = self.queue.borrow_mut();
        let same = |other: &Bytes| *other == frame || (frame[0] == PONG_FRAME && other[0] == PONG_FRAME);
        // At most one of each kind is there, ahead of everything else.
        let waiting = (first..queue.len().min(first + 2)).find(|at| same(&queue[*at]));
        let replaced = waiting.and_then(|at| queue.remove(at)).map_or(0, |old| old.len());
        self.queued.set(self.queued.get() + frame.len() - replaced);
        queue.insert(first, frame);
    }
}
