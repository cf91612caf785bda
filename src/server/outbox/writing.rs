//! The task that writes what waits for a socket, until the connection is over.

use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures_lite::AsyncWrite;
use futures_lite::future::poll_fn;
use kelvin_io::executor::{now, sleep, timeout, yield_now};

use super::{Outbox, slices, wake};
use crate::groups::sink::Sink;
use crate::testing::panics;

/// How long a socket may take nothing at all before it is given up. The client would have
/// missed two pongs by then.
const STALL: Duration = Duration::from_secs(30);

/// How long a client may go on sending after its connection was ended. Closing the socket
/// before it has stopped would reset the connection, and the last frames, with the reason
/// in them, could be lost on the way.
const LINGER: Duration = Duration::from_secs(5);

impl Outbox {
    /// Writes what waits until the connection is over. `drained` is called whenever an
    /// outbox that was behind is no longer.
    pub async fn write(self: Rc<Self>, drained: impl Fn()) {
        loop {
            self.until_nonempty().await;
            panics::here("writing to a client");
            if self.broken.get() {
                return;
            }
            if self.closing.get()
                && self.queued.get() + self.held_bytes.get() == 0
                && !self.settling.keeps_any()
            {
                self.writer.borrow().finish();
                timeout(LINGER, self.until_broken()).await;
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
            // In this order: a full socket that is asked once more takes a little.
            if futures_lite::future::or(stall, write).await {
                self.hang_up();
                return;
            }
            // A fast reader must not have the core for as long as there is something to write.
            if self.queued.get() > 0 {
                yield_now().await;
            }
            if self.was_behind.get() && self.queued.get() < self.send_buffer.behind() / 2 {
                self.was_behind.set(false);
                self.metrics.slow_socket_caught_up();
                drained();
            }
        }
    }

    /// Waits until the reader has seen the end of the connection.
    async fn until_broken(&self) {
        poll_fn(|cx| {
            if self.broken.get() {
                return Poll::Ready(());
            }
            *self.waker.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Waits until something waits to be written or the connection is over.
    async fn until_nonempty(&self) {
        poll_fn(|cx| {
            let is_all = self.held_bytes.get() == 0 && !self.settling.keeps_any();
            let ends = self.closing.get() && is_all;
            if self.broken.get() || ends || self.queued.get() > 0 {
                return Poll::Ready(());
            }
            *self.waker.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Waits until the socket took something or broke.
    async fn write_some(&self) {
        let written = poll_fn(|cx| {
            if self.broken.get() {
                return Poll::Ready(Ok(0));
            }
            let queue = self.queue.borrow();
            let slices = slices(&*queue);
            Pin::new(&mut *self.writer.borrow_mut()).poll_write_vectored(cx, &slices)
        });
        match written.await {
            Ok(0) | Err(_) => self.broken.set(true),
            Ok(count) => self.consume(count),
        }
    }

    /// Takes written bytes off the queue.
    pub(super) fn consume(&self, mut count: usize) {
        self.last_sent.set(now());
        self.metrics.bytes_sent(count);
        self.queued.set(self.queued.get() - count);
        if !self.is_behind() {
            wake(&self.room_waker);
        }
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

    /// Tries to write without waiting; returns how much was taken of the frames. Of many it
    /// tries only the first.
    pub(super) fn write_now(&self, frames: &[Bytes]) -> usize {
        match self.writer.borrow().try_send(&slices(frames)) {
            Ok(0) => 0,
            Ok(written) => {
                self.last_sent.set(now());
                self.metrics.bytes_sent(written);
                written
            }
            Err(_) => {
                self.broken.set(true);
                self.wake();
                0
            }
        }
    }
}
