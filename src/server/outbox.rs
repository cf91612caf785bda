//! What waits to be written to one socket.
//!
//! Frames are shared: the same bytes may wait in many outboxes. A frame is written at once
//! if the socket takes it; what is left over waits for the writer task. An outbox that holds
//! too much says that it is behind, and its connection is caught up later instead of being
//! given more (design, "Everything is bounded").

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_lite::future::poll_fn;
use kelvin_io::executor::now;
use kelvin_io::sends::{Job, Sends};
use kelvin_io::socket::WriteHalf;
use serde_json::Value;

use super::inbox::Inbox;
use super::send_buffer::{MAX_COLLECTED, SendBuffer};
use super::settling::Settling;
use crate::groups::sink::Sink;
use crate::observe::metrics::Metrics;
use crate::protocol::downstream;
use crate::protocol::error::{ProtocolError, refusal_for};
use crate::protocol::poke::ends_poke;
use crate::protocol::websocket::{close_frame, payload_of, text_frame};

/// Most frames that are handed to the kernel in one call.
const MAX_SLICES: usize = 64;

/// Most bytes of them: others are let in between. To copy a megabyte into fresh pages of the
/// kernel takes milliseconds. A frame that is larger by itself goes whole.
const MAX_WRITE: usize = 256 << 10;

mod writing;

/// First byte of the frame that answers a ping frame.
const PONG_FRAME: u8 = 0x8a;

/// The way out to one socket.
pub struct Outbox {
    this: Weak<Outbox>,
    send_buffer: Rc<SendBuffer>,
    /// The other direction, for as long as messages of it are handled.
    inbox: RefCell<Weak<Inbox>>,
    writer: RefCell<WriteHalf>,
    queue: RefCell<VecDeque<Bytes>>,
    queued: Cell<usize>,
    /// What is held until it is recorded, its bytes, and how many of its frames may go.
    held: RefCell<VecDeque<Bytes>>,
    held_bytes: Cell<usize>,
    marked: Cell<usize>,
    /// Part of the first frame has been written.
    partial: Cell<bool>,
    /// The last frame has been queued.
    closing: Cell<bool>,
    broken: Cell<bool>,
    waker: RefCell<Option<Waker>>,
    /// Of whoever waits for the end.
    end_waker: RefCell<Option<Waker>>,
    /// Of whoever waits for room.
    room_waker: RefCell<Option<Waker>>,
    last_sent: Cell<Instant>,
    protocol_version: Cell<u32>,
    /// Whether errors can be told yet.
    pub settling: Settling,
    was_behind: Cell<bool>,
    /// It waits for the send buffer to be opened.
    collected: Cell<bool>,
    metrics: Arc<Metrics>,
}

impl Outbox {
    /// For a socket; errors are told in the dialect of `protocol_version`.
    pub fn new(
        writer: WriteHalf,
        protocol_version: u32,
        metrics: Arc<Metrics>,
        send_buffer: Rc<SendBuffer>,
    ) -> Rc<Outbox> {
        Rc::new_cyclic(|this| Outbox {
            this: this.clone(),
            send_buffer,
            inbox: RefCell::default(),
            writer: RefCell::new(writer),
            queue: RefCell::new(VecDeque::new()),
            queued: Cell::new(0),
            held: RefCell::new(VecDeque::new()),
            held_bytes: Cell::new(0),
            marked: Cell::new(0),
            partial: Cell::new(false),
            closing: Cell::new(false),
            broken: Cell::new(false),
            waker: RefCell::new(None),
            end_waker: RefCell::new(None),
            room_waker: RefCell::new(None),
            last_sent: Cell::new(now()),
            protocol_version: Cell::new(protocol_version),
            settling: Settling::default(),
            was_behind: Cell::new(false),
            collected: Cell::new(false),
            metrics,
        })
    }

    /// Messages of the same connection wait there.
    pub fn belongs_to(&self, inbox: &Rc<Inbox>) {
        *self.inbox.borrow_mut() = Rc::downgrade(inbox);
    }

    /// Sends one message.
    pub fn message(&self, json: &[u8]) {
        self.send(&[text_frame(json)]);
    }

    /// Sends one message ahead of everything that waits: a client that is sent a long poke
    /// still has to see its pong within seconds (trap T7).
    pub fn urgent(&self, json: &[u8]) {
        self.urgent_frame(text_frame(json));
    }

    /// The same for a frame. One that waits answers all pings so far: a client that sends
    /// them without reading must not fill the memory.
    pub fn urgent_frame(&self, frame: Bytes) {
        if self.closing.get() || self.broken.get() {
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

    /// Sends `connected`. An error after it may have to wait.
    pub fn welcome(&self, json: &[u8]) {
        self.message(json);
        self.settling.begin();
    }

    /// The client has shown that it can be told errors, or has had the time: what was kept is sent.
    pub fn settled(&self) {
        let kept = self.settling.end();
        if !kept.is_empty() && !self.broken.get() {
            self.pass(&kept);
            self.wake();
        }
    }

    /// Sends an error and closes, with a code or plainly. Nothing is sent after it.
    pub fn fail_with(&self, error: &ProtocolError, code: Option<u16>) {
        if self.closing.get() {
            return;
        }
        self.metrics.error_sent(error.kind.name());
        // What was still to come is of no use to a client that drops its state.
        self.drop_queued();
        let body = downstream::error(&error.body(self.protocol_version.get()));
        let close = close_frame(code.map(|code| (code, error.message.as_str())));
        let frames = [text_frame(&body), close];
        if self.settling.left() > Duration::ZERO {
            self.settling.keep(&frames);
        } else {
            self.send(&frames);
        }
        self.end();
    }

    /// Closes with a code and a reason.
    pub fn close_with(&self, code: u16, reason: &str) {
        if !self.closing.get() {
            self.send(&[close_frame(Some((code, reason)))]);
            self.end();
        }
    }

    /// Nothing more is queued.
    fn end(&self) {
        self.closing.set(true);
        self.wake();
    }

    /// Whether the last frame has been queued, or the connection is over.
    pub fn has_ended(&self) -> bool {
        self.closing.get() || self.broken.get()
    }

    /// Waits for [`Outbox::has_ended`]. One task at a time may wait.
    pub async fn until_ended(&self) {
        poll_fn(|cx| {
            if self.has_ended() {
                return Poll::Ready(());
            }
            *self.end_waker.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
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
        self.drop_held();
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

    /// Waits until the outbox is not behind, or has ended. One task at a time may wait.
    pub async fn until_caught_up(&self) {
        poll_fn(|cx| {
            if !self.is_behind() || self.has_ended() {
                return Poll::Ready(());
            }
            *self.room_waker.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    fn wake(&self) {
        wake(&self.waker);
        if self.has_ended() {
            wake(&self.end_waker);
            wake(&self.room_waker);
        }
    }

    /// Keeps frames until the send buffer is opened, if they are to be collected.
    fn collect(&self, frames: &[Bytes], total: usize) -> bool {
        if !self.send_buffer.is_closed() || total > MAX_COLLECTED || self.queued.get() > 0 {
            return false;
        }
        self.queue.borrow_mut().extend(frames.iter().cloned());
        self.queued.set(total);
        if !self.collected.replace(true) {
            self.this.upgrade().into_iter().for_each(|this| self.send_buffer.push(this));
        }
        true
    }

    /// Sends what was collected for these sockets, as far as each takes it at once.
    pub fn send_all(outboxes: &[Rc<Outbox>], ring: &mut Sends) -> io::Result<()> {
        let writers: Vec<_> = outboxes.iter().map(|outbox| outbox.writer.borrow()).collect();
        let queues: Vec<_> = outboxes.iter().map(|outbox| outbox.queue.borrow()).collect();
        let jobs = writers.iter().zip(&queues).map(|(writer, queue)| Job::new(writer, slices(&**queue)));
        let mut jobs: Vec<Job> = jobs.collect();
        let result = ring.send(&mut jobs);
        let sent: Vec<io::Result<usize>> = jobs.into_iter().map(|job| job.sent).collect();
        drop((writers, queues));
        for (outbox, sent) in outboxes.iter().zip(sent) {
            outbox.sent(sent);
        }
        result
    }

    /// Takes the outcome of a send that was collected.
    fn sent(&self, sent: io::Result<usize>) {
        self.collected.set(false);
        match sent {
            Ok(count) => self.consume(count.min(self.queued.get())),
            Err(_) => self.broken.set(true),
        }
        if self.queued.get() > 0 || self.broken.get() {
            self.was_behind.set(self.was_behind.get() || self.is_behind());
            self.wake();
        }
    }
}

/// The first of these frames, as many as one call takes.
fn slices<'f>(frames: impl IntoIterator<Item = &'f Bytes>) -> Vec<IoSlice<'f>> {
    let mut size = 0;
    let fit = frames.into_iter().take(MAX_SLICES).take_while(|frame| {
        let fits = size < MAX_WRITE;
        size += frame.len();
        fits
    });
    fit.map(|frame| IoSlice::new(frame)).collect()
}

fn wake(waker: &RefCell<Option<Waker>>) {
    if let Some(waker) = waker.borrow_mut().take() {
        waker.wake();
    }
}

impl Outbox {
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
    pub fn mark_held(&self) {
        self.marked.set(self.held.borrow().len());
    }

    /// Sends what was marked. True: something is held still.
    pub fn release_marked(&self) -> bool {
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
        }
        !self.held.borrow().is_empty()
    }

    /// Drops what is held.
    pub fn drop_held(&self) {
        self.held.borrow_mut().clear();
        self.held_bytes.set(0);
        self.marked.set(0);
    }

    /// Sends frames once what they stand for is recorded.
    fn pass(&self, frames: &[Bytes]) {
        match self.send_buffer.is_held() || self.held_bytes.get() > 0 {
            true => self.hold(frames),
            false => self.deliver(frames),
        }
    }

    /// Writes frames, or queues them.
    fn deliver(&self, frames: &[Bytes]) {
        if frames.is_empty() {
            return;
        }
        let total: usize = frames.iter().map(Bytes::len).sum();
        self.metrics.pokes_sent(frames.iter().filter(|frame| ends_poke(payload_of(frame))).count());
        if self.collect(frames, total) {
            return;
        }
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
        if self.queued.get() >= self.send_buffer.behind() {
            self.was_behind.set(true);
        }
        self.wake();
    }
}

impl Sink for Outbox {
    fn send(&self, frames: &[Bytes]) {
        if !self.closing.get() && !self.broken.get() && !frames.is_empty() {
            self.pass(frames);
        }
    }

    fn is_behind(&self) -> bool {
        self.queued.get() + self.held_bytes.get() >= self.send_buffer.behind()
    }

    fn bytes(&self) -> usize {
        let inbound = self.inbox.borrow().upgrade().map_or(0, |inbox| inbox.bytes());
        self.queued.get() + self.held_bytes.get() + inbound
    }

    fn refuse(&self, errors: &[Value]) {
        let version = self.protocol_version.get();
        let entries: Vec<Value> = errors.iter().map(|entry| refusal_for(version, entry)).collect();
        self.message(&downstream::transform_error(&entries));
    }

    fn fail(&self, error: &ProtocolError) {
        self.fail_with(error, None);
    }

    fn close(&self) {
        if !self.closing.get() {
            self.send(&[close_frame(None)]);
            self.end();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_lite::AsyncReadExt;
    use kelvin_io::executor::{spawn, start};
    use kelvin_io::socket::{Listener, TcpStream};

    use super::*;
    use crate::protocol::error::Kind;

    /// More than a socket takes at once.
    const LARGE: usize = 32 << 20;

    #[test]
    fn an_error_comes_after_a_frame_that_is_half_written_and_not_within_it() {
        let executor = start("test", None, || async {
            let listener = Listener::bind(0).expect("a port");
            let port = listener.local_addr().expect("an address").port();
            let mut client = TcpStream::connect("127.0.0.1", port).await.expect("connected");
            let (mut reader, writer) = listener.accept().await.expect("accepted").split();
            let outbox = Outbox::new(writer, 51, Arc::new(Metrics::new(0)), Rc::new(SendBuffer::new()));
            spawn(outbox.clone().write(|| ())).detach();
            outbox.message(&vec![b'x'; LARGE]);
            outbox.message(b"of no use");
            outbox.fail(&ProtocolError::new(Kind::Internal, "over"));
            let mut come = Vec::new();
            client.read_to_end(&mut come).await.expect("all of it");
            drop(client);
            let _ = reader.read(&mut [0]).await;
            outbox.hang_up();
            come
        });
        let come = executor.unwrap().join().unwrap();
        let large = text_frame(&vec![b'x'; LARGE]);
        assert!(come.starts_with(&large), "the frame was cut off");
        let rest = &come[large.len()..];
        let error = text_frame(&downstream::error(&ProtocolError::new(Kind::Internal, "over").body(51)));
        assert_eq!(rest, [&*error, &*close_frame(None)].concat(), "{}", String::from_utf8_lossy(rest));
    }
}
