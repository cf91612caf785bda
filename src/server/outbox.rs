//! What waits to be written to one socket.
//!
//! Frames are shared: the same bytes may wait in many outboxes. A frame is written at once
//! if the socket takes it; what is left over waits for the writer task. An outbox that holds
//! too much says that it is behind, and its connection is caught up later instead of being
//! given more (design, "Everything is bounded").

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io::IoSlice;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use futures_lite::AsyncWrite;
use futures_lite::future::poll_fn;
use kelvin_io::executor::{now, sleep};
use kelvin_io::socket::WriteHalf;
use kelvin_io::websocket::{close_frame, text_frame};

use crate::groups::sink::Sink;
use crate::observe::metrics::Metrics;
use crate::protocol::downstream;
use crate::protocol::error::ProtocolError;

/// Bytes that may wait before a connection counts as behind. Live pokes are small; this is
/// several seconds of a busy view, and less than what the kernel buffers on top.
pub const BEHIND: usize = 1 << 20;

/// Most frames that are handed to the kernel in one call.
const MAX_SLICES: usize = 64;

/// How long a socket may take nothing at all before it is given up. The client would have
/// missed two pongs by then.
const STALL: Duration = Duration::from_secs(30);

/// The way out to one socket.
pub struct Outbox {
    writer: RefCell<WriteHalf>,
    queue: RefCell<VecDeque<Bytes>>,
    queued: Cell<usize>,
    /// Part of the first frame has been written.
    partial: Cell<bool>,
    /// The last frame has been queued.
    closing: Cell<bool>,
    broken: Cell<bool>,
    waker: RefCell<Option<Waker>>,
    last_sent: Cell<Instant>,
    protocol_version: Cell<u32>,
    was_behind: Cell<bool>,
    metrics: Arc<Metrics>,
}

impl Outbox {
    /// For a socket; errors are told in the dialect of `protocol_version`.
    pub fn new(writer: WriteHalf, protocol_version: u32, metrics: Arc<Metrics>) -> Rc<Outbox> {
        Rc::new(Outbox {
            writer: RefCell::new(writer),
            queue: RefCell::new(VecDeque::new()),
            queued: Cell::new(0),
            partial: Cell::new(false),
            closing: Cell::new(false),
            broken: Cell::new(false),
            waker: RefCell::new(None),
            last_sent: Cell::new(now()),
            protocol_version: Cell::new(protocol_version),
            was_behind: Cell::new(false),
            metrics,
        })
    }

    /// Sends one message.
    pub fn message(&self, json: &[u8]) {
        self.send(&[text_frame(json)]);
    }

    /// Sends one message ahead of everything that waits: a client that is sent a long poke
    /// still has to see its pong within seconds (trap T7).
    pub fn urgent(&self, json: &[u8]) {
        if self.queued.get() == 0 || self.closing.get() || self.broken.get() {
            return self.message(json);
        }
        let frame = text_frame(json);
        self.queued.set(self.queued.get() + frame.len());
        let position = usize::from(self.partial.get());
        self.queue.borrow_mut().insert(position, frame);
    }

    /// Sends an error and closes, with a code or plainly.
    pub fn fail_with(&self, error: &ProtocolError, code: Option<u16>) {
        if self.closing.get() {
            return;
        }
        self.metrics.error_sent(error.kind.name());
        // What was still to come is of no use to a client that drops its state.
        self.drop_queued();
        let body = downstream::error(&error.body(self.protocol_version.get()));
        let close = close_frame(code.map(|code| (code, error.message.as_str())));
        self.send(&[text_frame(&body), close]);
        self.closing.set(true);
        self.wake();
    }

    /// Closes with a code and a reason.
    pub fn close_with(&self, code: u16, reason: &str) {
        if !self.closing.get() {
            self.send(&[close_frame(Some((code, reason)))]);
            self.closing.set(true);
            self.wake();
        }
    }

    /// How long nothing was sent.
    pub fn idle(&self) -> Duration {
        now().saturating_duration_since(self.last_sent.get())
    }

    /// The connection is over: drops what waits.
    pub fn hang_up(&self) {
        self.broken.set(true);
        self.queue.borrow_mut().clear();
        self.queued.set(0);
        self.writer.borrow().shutdown();
        self.wake();
    }

    fn drop_queued(&self) {
        let mut queue = self.queue.borrow_mut();
        // The first frame may be half written.
        let keep = queue.front().cloned().filter(|_| self.partial.get());
        queue.clear();
        let kept = keep.as_ref().map_or(0, Bytes::len);
        queue.extend(keep);
        self.queued.set(kept);
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    /// Writes what waits until the connection is over. `drained` is called whenever an
    /// outbox that was behind is no longer.
    pub async fn write(self: Rc<Self>, drained: impl Fn()) {
        loop {
            self.until_nonempty().await;
            if self.broken.get() {
                return;
            }
            if self.closing.get() && self.queued.get() == 0 {
                self.hang_up();
                return;
            }
            let write = async {
                self.write_some().await;
                false
            };
            let stall = async {
                sleep(STALL).await;
                true
            };
            if futures_lite::future::or(write, stall).await {
                self.hang_up();
                return;
            }
            if self.was_behind.get() && self.queued.get() < BEHIND / 2 {
                self.was_behind.set(false);
                self.metrics.slow_socket_caught_up();
                drained();
            }
        }
    }

    /// Waits until something waits to be written or the connection is over.
    async fn until_nonempty(&self) {
        poll_fn(|cx| {
            if self.broken.get() || self.closing.get() || self.queued.get() > 0 {
                return std::task::Poll::Ready(());
            }
            *self.waker.borrow_mut() = Some(cx.waker().clone());
            std::task::Poll::Pending
        })
        .await;
    }

    /// Waits until the socket took something or broke.
    async fn write_some(&self) {
        let written = poll_fn(|cx| {
            if self.broken.get() {
                return std::task::Poll::Ready(Ok(0));
            }
            let queue = self.queue.borrow();
            let slices: Vec<IoSlice> = queue.iter().take(MAX_SLICES).map(|f| IoSlice::new(f)).collect();
            Pin::new(&mut *self.writer.borrow_mut()).poll_write_vectored(cx, &slices)
        });
        match written.await {
            Ok(0) | Err(_) => self.broken.set(true),
            Ok(count) => self.consume(count),
        }
    }

    /// Takes written bytes off the queue.
    fn consume(&self, mut count: usize) {
        self.last_sent.set(now());
        self.queued.set(self.queued.get() - count);
        let mut queue = self.queue.borrow_mut();
        while count > 0 {
            let Some(front) = queue.front_mut() else { break };
            if front.len() > count {
                front.advance(count);
                self.partial.set(true);
                return;
            }
            count -= front.len();
            queue.pop_front();
            self.partial.set(false);
        }
    }

    /// Tries to write without waiting; returns how much was taken of the frames.
    fn write_now(&self, frames: &[Bytes]) -> usize {
        let mut written = 0;
        for chunk in frames.chunks(MAX_SLICES) {
            let slices: Vec<IoSlice> = chunk.iter().map(|f| IoSlice::new(f)).collect();
            let wanted: usize = chunk.iter().map(Bytes::len).sum();
            match self.writer.borrow().try_send(&slices) {
                Ok(count) => {
                    written += count;
                    if count < wanted {
                        break;
                    }
                }
                Err(_) => {
                    self.broken.set(true);
                    self.wake();
                    break;
                }
            }
        }
        if written > 0 {
            self.last_sent.set(now());
        }
        written
    }
}

impl Sink for Outbox {
    fn send(&self, frames: &[Bytes]) {
        if self.closing.get() || self.broken.get() || frames.is_empty() {
            return;
        }
        let total: usize = frames.iter().map(Bytes::len).sum();
        self.metrics.frame_sent(total);
        let mut written = if self.queued.get() == 0 { self.write_now(frames) } else { 0 };
        if written == total || self.broken.get() {
            return;
        }
        self.queued.set(self.queued.get() + total - written);
        let mut queue = self.queue.borrow_mut();
        for frame in frames {
            if frame.len() <= written {
                written -= frame.len();
                continue;
            }
            if written > 0 {
                self.partial.set(true);
            }
            queue.push_back(frame.slice(written..));
            written = 0;
        }
        drop(queue);
        if self.queued.get() >= BEHIND {
            self.was_behind.set(true);
        }
        self.wake();
    }

    fn is_behind(&self) -> bool {
        self.queued.get() >= BEHIND
    }

    fn fail(&self, error: &ProtocolError) {
        self.fail_with(error, None);
    }

    fn close(&self) {
        if !self.closing.get() {
            self.send(&[close_frame(None)]);
            self.closing.set(true);
            self.wake();
        }
    }
}
