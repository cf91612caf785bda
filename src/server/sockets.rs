//! The sockets of a core: what it tells many of them leaves in one system call.

use std::any::Any;
use std::cell::RefCell;
use std::io;
use std::time::Instant;

use kelvin_io::executor::now;
use kelvin_io::sends::{Job, Sends};

use super::outlet::ServerSocket;
use crate::core::socket::{Sending, Sockets};

/// Sends to the sockets of one core.
pub struct ServerSockets {
    started: Instant,
    /// `None`: the kernel has no such thing, or it failed; each socket is then written by itself.
    ring: RefCell<Option<Sends>>,
}

impl ServerSockets {
    /// Of a core whose clock began then.
    pub fn new(started: Instant) -> ServerSockets {
        ServerSockets { started, ring: RefCell::new(Sends::new().ok()) }
    }
}

impl Sockets for ServerSockets {
    fn now(&self) -> f64 {
        now().saturating_duration_since(self.started).as_secs_f64() * 1000.0
    }

    fn sends_together(&self) -> bool {
        self.ring.borrow().is_some()
    }

    fn send_together(&self, sends: &mut [Sending<'_>]) {
        let mut ring = self.ring.borrow_mut();
        let Some(open) = ring.as_mut() else { return };
        let frames: Vec<_> = sends.iter_mut().map(|sending| std::mem::take(&mut sending.frames)).collect();
        let halves: Vec<_> = sends.iter().map(|sending| of_server(sending).map(ServerSocket::half)).collect();
        let jobs =
            halves.iter().zip(frames).filter_map(|(half, frames)| Some(Job::new(half.as_ref()?, frames)));
        let mut jobs: Vec<Job> = jobs.collect();
        let result = open.send(&mut jobs);
        let sent: Vec<io::Result<usize>> = jobs.into_iter().map(|job| job.sent).collect();
        drop(halves);
        let ours = sends.iter_mut().filter(|sending| of_server(sending).is_some());
        ours.zip(sent).for_each(|(sending, sent)| sending.sent = sent);
        if let Err(error) = result {
            crate::warn!("sends are no longer collected: {error}");
            *ring = None;
        }
    }
}

/// Every socket of a server is one of its own.
fn of_server<'s>(sending: &'s Sending<'_>) -> Option<&'s ServerSocket> {
    let any: &dyn Any = sending.socket;
    any.downcast_ref()
}
