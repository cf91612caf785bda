//! The way to one tab: an outbox of the server, and a socket that is slow, tears what it is given, or breaks.

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::rc::Rc;

use bytes::Bytes;
use kelvin::core::outbox::{Outbox, Task};
use kelvin::core::socket::{Change, Sending, Socket, Sockets};
use kelvin::model::ids::ConnectionId;

use super::client::digest;

/// The first byte of a close frame.
const CLOSE: u8 = 0x88;

/// A socket of a test.
#[derive(Default)]
pub struct SimulatedSocket {
    /// It takes nothing: whoever reads from it does not.
    pub stopped: Cell<bool>,
    /// Most bytes that it takes at once; 0: as many as there are.
    pub most: Cell<usize>,
    /// Whatever it is given fails.
    pub broken: Cell<bool>,
    come: RefCell<Vec<u8>>,
    /// Of all that ever came.
    pub digest: Cell<u64>,
}

impl Socket for SimulatedSocket {
    fn try_send(&self, frames: &[IoSlice<'_>]) -> io::Result<usize> {
        if self.broken.get() {
            return Err(io::Error::from(io::ErrorKind::ConnectionReset));
        }
        if self.stopped.get() {
            return Ok(0);
        }
        let bytes: Vec<u8> = frames.iter().flat_map(|frame| frame.iter().copied()).collect();
        let most = if self.most.get() == 0 { bytes.len() } else { self.most.get().min(bytes.len()) };
        self.digest.set(digest(self.digest.get(), &bytes[..most]));
        self.come.borrow_mut().extend(&bytes[..most]);
        Ok(most)
    }

    fn changed(&self, _: Change) {}

    fn shutdown(&self) {
        self.broken.set(true);
    }

    fn inbound(&self) -> usize {
        0
    }
}

/// What comes from a server.
#[derive(Debug)]
pub enum Came {
    /// A message.
    Frame(Bytes),
    /// The end.
    Close,
}

impl SimulatedSocket {
    /// The next frame, if it has come whole.
    pub fn next(&self) -> Option<Came> {
        let mut come = self.come.borrow_mut();
        let length = match come.get(1)? {
            126 => 4 + usize::from(u16::from_be_bytes(come.get(2..4)?.try_into().ok()?)),
            127 => 10 + u64::from_be_bytes(come.get(2..10)?.try_into().ok()?) as usize,
            short => 2 + usize::from(*short),
        };
        if come.len() < length {
            return None;
        }
        let frame: Vec<u8> = come.drain(..length).collect();
        Some(if frame[0] == CLOSE { Came::Close } else { Came::Frame(frame.into()) })
    }
}

/// A connection of a tab.
#[derive(Clone)]
pub struct Line {
    pub id: ConnectionId,
    pub outbox: Rc<Outbox>,
    pub socket: Rc<SimulatedSocket>,
}

impl Line {
    /// Writes what the socket takes. True: it was behind, and is no longer.
    pub fn write(&self) -> bool {
        let mut has_caught_up = false;
        loop {
            match self.outbox.task() {
                Task::Write => {}
                Task::Rest | Task::Finish | Task::Stop => return has_caught_up,
            }
            match self.outbox.offer(|frames| self.socket.try_send(frames)) {
                Ok(0) => return has_caught_up,
                sent => has_caught_up |= self.outbox.written(sent),
            }
        }
    }
}

/// The sockets of a core.
#[derive(Default)]
pub struct SimulatedSockets {
    pub now: Cell<f64>,
    /// What goes to several is not sent together.
    pub apart: Cell<bool>,
}

impl Sockets for SimulatedSockets {
    fn now(&self) -> f64 {
        self.now.get()
    }

    fn sends_together(&self) -> bool {
        !self.apart.get()
    }

    fn send_together(&self, sends: &mut [Sending<'_>]) {
        for sending in sends {
            sending.sent = sending.socket.try_send(&sending.frames);
        }
    }
}
