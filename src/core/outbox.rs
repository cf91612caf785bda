//! What waits to be written to one socket.
//!
//! Frames are shared: the same bytes may wait in many outboxes. A frame is written at once
//! if the socket takes it; what is left over waits for whoever writes to the socket. An outbox that holds
//! too much says that it is behind, and its connection is caught up later instead of being
//! given more (design, "Everything is bounded").

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::rc::{Rc, Weak};
use std::sync::Arc;

use bytes::{Buf, Bytes};
use serde_json::Value;

use super::send_buffer::SendBuffer;
use super::settling::Settling;
use super::signal::WaitList;
use super::socket::{Change, Sending, Socket, Sockets};
use crate::groups::sink::Sink;
use crate::model::ids::ConnectionId;
use crate::observe::metrics::Metrics;
use crate::protocol::downstream;
use crate::protocol::error::{ProtocolError, refusal_for};
use crate::protocol::poke::ends_poke;
use crate::protocol::websocket::{close_frame, payload_of, text_frame};
use crate::testing::met::{Limit, met};

/// Most frames that are handed to the kernel in one call.
const MAX_SLICES: usize = 64;

/// Most bytes of them: others are let in between. To copy a megabyte into fresh pages of the
/// kernel takes milliseconds. A frame that is larger by itself goes whole.
const MAX_WRITE: usize = 256 << 10;

mod held;
mod urgent;

/// What whoever writes to a socket has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// Nothing: no frame may be written now.
    Rest,
    /// Write what waits.
    Write,
    /// Everything has been written, and nothing more will come.
    Finish,
    /// The connection is over.
    Stop,
}

/// The way out to one socket.
pub struct Outbox {
    this: Weak<Outbox>,
    id: ConnectionId,
    send_buffer: Rc<SendBuffer>,
    socket: Rc<dyn Socket>,
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
    /// When something was written last, in milliseconds of the core.
    last_sent: Cell<f64>,
    protocol_version: u32,
    /// Whether errors can be told yet.
    settling: Settling,
    /// Somebody was told that it is behind.
    was_behind: Cell<bool>,
    /// It waits for the send buffer to be opened.
    collected: Cell<bool>,
    /// Tasks that wait until it is not behind.
    room: WaitList,
    metrics: Arc<Metrics>,
}

impl Outbox {
    /// Of a connection; errors are told in the dialect of `protocol_version`.
    pub fn new(
        id: ConnectionId,
        socket: Rc<dyn Socket>,
        protocol_version: u32,
        metrics: Arc<Metrics>,
        send_buffer: Rc<SendBuffer>,
    ) -> Rc<Outbox> {
        Rc::new_cyclic(|this| Outbox {
            this: this.clone(),
            id,
            last_sent: Cell::new(send_buffer.now()),
            send_buffer,
            socket,
            queue: RefCell::new(VecDeque::new()),
            queued: Cell::new(0),
            held: RefCell::new(VecDeque::new()),
            held_bytes: Cell::new(0),
            marked: Cell::new(0),
            partial: Cell::new(false),
            closing: Cell::new(false),
            broken: Cell::new(false),
            protocol_version,
            settling: Settling::default(),
            was_behind: Cell::new(false),
            collected: Cell::new(false),
            room: WaitList::default(),
            metrics,
        })
    }

    /// Sends one message.
    pub fn message(&self, json: &[u8]) {
        self.send(&[text_frame(json)]);
    }

    /// Sends `connected`, the first of all messages. An error after it may have to wait.
    pub fn welcome(&self, json: &[u8]) {
        // It tells nothing that is recorded; and if it were held, an error would drop it.
        self.deliver(&[text_frame(json)]);
        self.settling.begin(self.send_buffer.now());
    }

    /// The client has shown that it can be told errors, or has had the time: what was kept is sent.
    pub fn settled(&self) {
        let kept = self.settling.end();
        if !kept.is_empty() && !self.broken.get() {
            self.pass(&kept);
            self.socket.changed(Change::More);
        }
    }

    /// Milliseconds for which the client may still have to show that it can be told the error that is kept for it;
    /// `None`: none is kept.
    pub fn settles_within(&self) -> Option<f64> {
        self.settling.keeps_any().then(|| self.settling.left(self.send_buffer.now()))
    }

    /// Sends an error and closes, with a code or plainly. Nothing is sent after it.
    pub fn fail_with(&self, error: &ProtocolError, code: Option<u16>) {
        if self.closing.get() {
            return;
        }
        self.metrics.error_sent(error.kind.name());
        // What was still to come is of no use to a client that drops its state; and what is held may go on with a poke
        // whose rest is dropped here.
        self.drop_queued();
        self.drop_held();
        let body = downstream::error(&error.body(self.protocol_version));
        let close = close_frame(code.map(|code| (code, error.message.as_str())));
        let frames = [text_frame(&body), close];
        if self.settling.left(self.send_buffer.now()) > 0.0 {
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
        self.tell_end();
    }

    /// Whether the last frame has been queued, or the connection is over.
    pub fn has_ended(&self) -> bool {
        self.closing.get() || self.broken.get()
    }

    /// Waits until it is not behind, or has ended.
    pub async fn until_caught_up(&self) {
        self.room.until(|| !self.is_behind() || self.has_ended()).await;
    }

    /// Milliseconds for which nothing was sent.
    pub fn idle(&self) -> f64 {
        self.send_buffer.now() - self.last_sent.get()
    }

    /// The connection is over: drops what waits.
    pub fn hang_up(&self) {
        self.broken.set(true);
        self.queue.borrow_mut().clear();
        self.queued.set(0);
        self.drop_held();
        self.socket.shutdown();
        self.tell_end();
    }

    /// The socket is of no use any more.
    pub fn broke(&self) {
        self.broken.set(true);
        self.tell_end();
    }

    fn tell_end(&self) {
        self.socket.changed(Change::More);
        self.socket.changed(Change::Ended);
        self.room.wake();
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

    /// Keeps frames until the send buffer is opened, if they are to be collected.
    fn collect(&self, frames: &[Bytes], total: usize) -> bool {
        if !self.send_buffer.collects(total) || self.queued.get() > 0 {
            return false;
        }
        self.queue.borrow_mut().extend(frames.iter().cloned());
        self.queued.set(total);
        if !self.collected.replace(true) {
            self.this.upgrade().into_iter().for_each(|this| self.send_buffer.push(this));
        }
        true
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
        self.socket.changed(Change::More);
    }

    /// Whoever asked whether it is behind hears of it when it is no longer. True: that is now.
    pub(super) fn note_room(&self) -> bool {
        let waiting = self.queued.get() + self.held_bytes.get();
        if waiting < self.send_buffer.behind() {
            self.room.wake();
        }
        if waiting > self.send_buffer.behind() / 2 || !self.was_behind.replace(false) {
            return false;
        }
        self.metrics.slow_socket_caught_up();
        self.send_buffer.has_drained(self.id);
        true
    }

    /// Tries to write without waiting; returns how much was taken of the frames. Of many it
    /// tries only the first.
    fn write_now(&self, frames: &[Bytes]) -> usize {
        match self.socket.try_send(&slices(frames)) {
            Ok(written) => {
                if written > 0 {
                    self.last_sent.set(self.send_buffer.now());
                    self.metrics.bytes_sent(written);
                }
                written
            }
            Err(_) => {
                self.broke();
                0
            }
        }
    }
}

/// What whoever writes to the socket needs.
impl Outbox {
    /// What is to be done.
    pub fn task(&self) -> Task {
        let is_all = self.held_bytes.get() == 0 && !self.settling.keeps_any();
        match self.queued.get() {
            _ if self.broken.get() => Task::Stop,
            0 if self.closing.get() && is_all => Task::Finish,
            0 => Task::Rest,
            _ => Task::Write,
        }
    }

    /// Offers what waits, as much as one call takes. `send` must not come back here.
    pub fn offer<T>(&self, send: impl FnOnce(&[IoSlice<'_>]) -> T) -> T {
        let queue = self.queue.borrow();
        send(&slices(&*queue))
    }

    /// The socket took so many bytes of what was offered, or is of no use. True: it was behind, and is no longer, which
    /// the core is to be told.
    pub fn written(&self, written: io::Result<usize>) -> bool {
        match written {
            Ok(count @ 1..) => self.consume(count.min(self.queued.get())),
            Ok(0) | Err(_) => self.broke(),
        }
        self.note_room()
    }

    /// Takes written bytes off the queue.
    fn consume(&self, mut count: usize) {
        self.last_sent.set(self.send_buffer.now());
        self.metrics.bytes_sent(count);
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

    /// Sends what was collected for these sockets, as far as each takes it at once.
    pub(super) fn send_all(outboxes: &[Rc<Outbox>], sockets: &dyn Sockets) {
        let queues: Vec<_> = outboxes.iter().map(|outbox| outbox.queue.borrow()).collect();
        let mut sends: Vec<Sending> = outboxes
            .iter()
            .zip(&queues)
            .map(|(outbox, queue)| Sending { socket: &*outbox.socket, frames: slices(&**queue), sent: Ok(0) })
            .collect();
        sockets.send_together(&mut sends);
        let sent: Vec<io::Result<usize>> = sends.into_iter().map(|sending| sending.sent).collect();
        drop(queues);
        for (outbox, sent) in outboxes.iter().zip(sent) {
            outbox.sent_together(sent);
        }
    }

    /// Takes the outcome of a send that was collected.
    fn sent_together(&self, sent: io::Result<usize>) {
        self.collected.set(false);
        match sent {
            Ok(0) => {}
            Ok(count) => self.consume(count.min(self.queued.get())),
            Err(_) => return self.broke(),
        }
        self.note_room();
        if self.queued.get() > 0 {
            self.socket.changed(Change::More);
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

impl Sink for Outbox {
    fn send(&self, frames: &[Bytes]) {
        if !self.has_ended() && !frames.is_empty() {
            self.pass(frames);
        }
    }

    fn is_behind(&self) -> bool {
        let is_behind = self.queued.get() + self.held_bytes.get() >= self.send_buffer.behind();
        if is_behind {
            met(Limit::OutboxBytes);
            self.was_behind.set(true);
        }
        is_behind
    }

    fn bytes(&self) -> usize {
        self.queued.get() + self.held_bytes.get() + self.socket.inbound()
    }

    fn refuse(&self, errors: &[Value]) {
        let entries: Vec<Value> =
            errors.iter().map(|entry| refusal_for(self.protocol_version, entry)).collect();
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
