//! Where frames for one connection go. Implemented by the server's sockets, and by tests.

use crate::model::ids::ConnectionId;
use std::rc::Rc;

use bytes::Bytes;
use serde_json::Value;

use super::resends::Resends;
use crate::protocol::cookie::Cookie;
use crate::protocol::dialect::Dialect;
use crate::protocol::error::ProtocolError;

/// One socket's way out.
pub trait Sink {
    /// Queues finished frames, each in one piece. Never blocks and never fails: a socket that broke drops them.
    fn send(&self, frames: &[Bytes]);
    /// Whether the socket has fallen so far behind that it must not be given more for now.
    /// It is caught up from its cookie when it has drained.
    fn is_behind(&self) -> bool;
    /// Bytes that wait for it: what it was sent and has not taken, and messages of it that were not handled.
    fn bytes(&self) -> usize;
    /// Tells of refused queries, entries of `transformError`, as the client can read it.
    fn refuse(&self, errors: &[Value]);
    /// Drops what is queued, sends the error, closes.
    fn fail(&self, error: &ProtocolError);
    /// Closes without an error: the client comes back by itself.
    fn close(&self);
}

/// One connection of a group.
pub struct Connection {
    /// Its number.
    pub id: ConnectionId,
    /// Tab behind it.
    pub client_id: String,
    /// Form of its pokes.
    pub dialect: Dialect,
    /// Way out.
    pub sink: Rc<dyn Sink>,
    /// Last cookie sent on it; before the first poke, the cookie it came with. `None`: the
    /// tab has nothing.
    pub cookie: Option<Cookie>,
    /// What it is being sent.
    pub phase: Phase,
    /// Whether its client has to come back to say what it wants: then it is closed once the client has
    /// had the time to take in what it was sent.
    pub resends: Resends,
}

/// How a connection is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// It is at its cookie and takes part in the group's steps.
    Live,
    /// It is behind: a catch-up is due, as soon as its socket has drained.
    Behind,
    /// A catch-up poke is open on it.
    CatchingUp,
}
