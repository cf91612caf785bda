//! Clients that may want something else than what is known of them, and say so only when they connect
//! (rule 21).
//!
//! What a client sends when it connects is how its wishes differ from what it was told that it wants.
//! If a change of these never reached it, or is not known here, that says nothing of the queries
//! concerned: a client that took a query out, lost its socket before the answer and wants the query again
//! has nothing to say, and would lose it. It is told what is known, and its connection is closed once,
//! some time later; when it comes back it compares its wishes with that.

use hashbrown::HashSet;

use super::catchup::is_of_history;
use super::desires::Client;
use super::group::Group;
use super::shared::Shared;
use super::step::ZERO;
use crate::groups::sink::{Connection, Phase};
use crate::protocol::cookie::Cookie;
use crate::protocol::upstream::QueryOp;
use crate::testing::faults::{self, Fault};

/// Time that a client has to take in a poke before its connection is closed: closing at once would have
/// it throw the poke away, in milliseconds.
pub const RESEND_AFTER: f64 = 5_000.0;

/// How often that time is doubled at most for a client that comes back as it was, because it needs longer
/// to take the poke in: five minutes in the end.
const MOST_DOUBLED: u32 = 6;

/// Whether a client has to come back to say what it wants.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Resends {
    /// No.
    No,
    /// Some time after it has been sent all that it missed.
    Later,
    /// At this time, in milliseconds.
    At(f64),
}

impl Group {
    /// Whether a client that holds what it was told up to `base`, and asks for these changes, may want
    /// something else than what is known here once they are made. To be asked before they are.
    pub(super) fn is_unsure(
        &self,
        shared: &Shared,
        client: &str,
        base: Option<Cookie>,
        ops: &[QueryOp],
    ) -> bool {
        if faults::is_on(Fault::Resend) {
            return false;
        }
        if base.is_some_and(|cookie| !is_of_history(self, shared, cookie) || cookie < self.desires_since) {
            return true;
        }
        let Some(client) = self.clients.get(client) else { return false };
        is_silent_of_some(client, base, ops)
    }

    /// Notes whether a client that comes has to come once more, and how often it had to so far.
    pub(super) fn count_resend(&mut self, client: &str, unsure: bool) -> Resends {
        let Some(client) = self.clients.get_mut(client) else { return Resends::No };
        client.resends = if unsure { client.resends.saturating_add(1) } else { 0 };
        if unsure { Resends::Later } else { Resends::No }
    }

    /// A client was told of changes of what it wants that it did not ask for: it has to come once more.
    pub(super) fn resend_soon(&mut self, client: &str) {
        let is_its = |c: &&mut Connection| c.client_id == client && c.resends == Resends::No;
        if let Some(connection) = self.connections.iter_mut().find(is_its) {
            connection.resends = Resends::Later;
            self.count_resend(client, true);
        }
    }

    /// Some of what clients wanted is not known any more: tabs that were away since before now learn of it
    /// by a clear poke, and say anew what they want.
    pub(super) fn forget_desires(&mut self) {
        self.floor = self.cookie;
        self.desires_since = self.cookie;
    }

    /// Closes connections whose clients have to come back.
    pub(super) fn close_resending(&mut self, now: f64) {
        for connection in &mut self.connections {
            let times = self.clients.get(&connection.client_id).map_or(0, |client| client.resends);
            resend(connection, times, now);
        }
    }
}

/// Whether what a client wanted has changed above its cookie without its saying anything about it now.
fn is_silent_of_some(client: &Client, base: Option<Cookie>, ops: &[QueryOp]) -> bool {
    let mut said: HashSet<&str> = HashSet::new();
    for op in ops {
        match op {
            QueryOp::Put { hash, .. } | QueryOp::Del { hash } => drop(said.insert(hash)),
            // From here on it says all that it wants.
            QueryOp::Clear => return false,
        }
    }
    let after = base.unwrap_or(ZERO);
    // A client that has nothing names all that it wants.
    let matters = |desired: bool| desired || base.is_some();
    let mut unknown = client.desires.iter().filter(|(_, d)| d.changed > after && matters(d.desired));
    unknown.any(|(hash, _)| !said.contains(hash.as_str()))
}

fn resend(connection: &mut Connection, times: u32, now: f64) {
    // Not in the middle of what it has to know.
    if connection.phase != Phase::Live || connection.sink.is_behind() {
        return;
    }
    match connection.resends {
        Resends::Later => {
            let doubled = times.saturating_sub(1).min(MOST_DOUBLED);
            connection.resends = Resends::At(now + RESEND_AFTER * f64::from(1 << doubled));
        }
        Resends::At(time) if now >= time => {
            connection.resends = Resends::No;
            connection.sink.close();
        }
        Resends::At(_) | Resends::No => {}
    }
}
