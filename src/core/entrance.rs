//! What is known of those who are let in to one core. It is there before the replica can be read.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use super::connections::Connections;
use super::host::Host;
use super::inbox::Inbound;
use super::limits::Limits;
use super::session::{Session, Sessions};
use super::settings::Settings;
use crate::groups::sink::Sink;
use crate::model::ids::ConnectionId;
use crate::observe::metrics::Metrics;

/// The way in to one core.
pub struct Entrance {
    /// Connections that were told `connected`.
    pub connections: Rc<Connections>,
    /// The same, with what is known of them.
    pub sessions: Sessions,
    /// Of the operator.
    pub settings: Settings,
    /// Limits of the core.
    pub limits: Rc<Cell<Limits>>,
    /// Whoever runs it.
    pub host: Rc<dyn Host>,
    /// Its numbers.
    pub metrics: Arc<Metrics>,
    /// What clients have sent and is not handled.
    pub inbound: Rc<Inbound>,
}

impl Entrance {
    /// A connection is over. Returns its session, if it was let in.
    pub fn leave(&self, id: ConnectionId) -> Option<Rc<Session>> {
        let session = self.sessions.remove(id)?;
        session.outbox.close();
        self.connections.remove(id);
        self.connections.leave(&session.tab(), id);
        Some(session)
    }
}
