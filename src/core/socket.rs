//! The socket of a connection, as a core knows it.

use std::any::Any;
use std::io::{self, IoSlice};

/// What has become of an outbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// There is something to write, or the connection is to end.
    More,
    /// Nothing more will be queued.
    Ended,
}

/// One socket. Nothing here waits.
pub trait Socket: Any {
    /// Writes what the socket takes at once; how many bytes that was, 0 if it is full. An error: it is of no use.
    fn try_send(&self, frames: &[IoSlice<'_>]) -> io::Result<usize>;
    /// Tells whoever waits for the outbox.
    fn changed(&self, change: Change);
    /// Ends both directions at once.
    fn shutdown(&self);
    /// Bytes of messages that came and were not handled, whole or in part.
    fn inbound(&self) -> usize;
}

/// All sockets of a core.
pub trait Sockets {
    /// Milliseconds since the core began.
    fn now(&self) -> f64;
    /// Whether several can be sent to at once.
    fn sends_together(&self) -> bool;
    /// Sends to several, to each what it takes at once. None is in two of the sends.
    fn send_together(&self, sends: &mut [Sending<'_>]);
}

/// What one socket of several is sent.
pub struct Sending<'f> {
    /// The socket.
    pub socket: &'f dyn Socket,
    /// What it is sent, in order.
    pub frames: Vec<IoSlice<'f>>,
    /// Bytes that it took.
    pub sent: io::Result<usize>,
}
