//! Who is let in (`docs/spec/sync-protocol.md` §4.1, decision 008).

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use super::connections::Taken;
use super::entrance::Entrance;
use super::host::Pressure;
use super::inbox::Inbox;
use super::messages;
use super::outbox::Outbox;
use super::overload::{no_memory, overloaded};
use super::recording::{self, RecordQueue};
use super::session::{Session, panicked};
use super::signal::Signal;
use super::state::CoreState;
use super::warning::Warning;
use crate::auth::token::Token;
use crate::backend::context::Context;
use crate::groups::sink::Sink;
use crate::model::ids::ConnectionId;
use crate::protocol::connect::ConnectRequest;
use crate::protocol::cookie::Cookie;
use crate::protocol::downstream;
use crate::protocol::error::{Kind, ProtocolError};
use crate::testing::met::{Limit, met};

/// Close code after a failed authentication.
const CLOSE_AUTH: u16 = 3000;

/// Somebody who wants to come in, and whose token was judged.
pub struct Arrived {
    /// Number of the connection.
    pub id: ConnectionId,
    /// The address that it comes from.
    pub from: IpAddr,
    /// What the client says, without its first message.
    pub request: Rc<ConnectRequest>,
    /// Way out.
    pub outbox: Rc<Outbox>,
    /// Its token, or why that is none.
    pub token: Result<Option<Token>, ProtocolError>,
    /// What goes along to the app of the request's headers.
    pub context: Context,
    /// The message that came with the request.
    pub first: Option<String>,
    /// Milliseconds since 1970.
    pub timestamp: u64,
}

/// Why somebody is not let in.
enum Refused {
    /// It is told so, and the connection is closed with this code.
    With(ProtocolError, Option<u16>),
    /// It has a newer connection.
    Replaced,
}

impl From<ProtocolError> for Refused {
    fn from(error: ProtocolError) -> Refused {
        Refused::With(error, None)
    }
}

impl Entrance {
    /// Why nobody is let in now, or not this one. `serving`: the core, once the replica can be read.
    pub fn refusal(&self, request: &ConnectRequest, serving: Option<&CoreState>) -> Option<ProtocolError> {
        if serving.is_some_and(|state| state.record_queue() == RecordQueue::Failed) {
            return Some(recording::refusal());
        }
        let most = self.limits.get().connections;
        if self.connections.len() >= most {
            met(Limit::Connections);
            let text = format_args!("a core has {most} connections, as many as it takes");
            self.host.warn(Warning::Connections, text);
            let message = "the server has as many connections as it takes; it is tried again";
            return self.refused(overloaded(message, &request.wsid));
        }
        let is_here = || {
            let group = request.group_id.as_str();
            serving.is_some_and(|state| state.look().groups.get(group).is_some_and(|g| g.has_views()))
        };
        match self.host.memory().pressure {
            Pressure::Calm => None,
            // What it needs is mostly here.
            Pressure::Tight if is_here() => None,
            Pressure::Tight | Pressure::Full => self.refused(no_memory(&request.wsid)),
        }
    }

    fn refused(&self, error: ProtocolError) -> Option<ProtocolError> {
        self.metrics.refused_for_load();
        Some(error)
    }

    /// Lets somebody in: says `connected`. Or says why not.
    pub fn admit(&self, arrived: Arrived, serving: Option<&CoreState>) -> Option<Rc<Session>> {
        let (id, request, outbox) = (arrived.id, arrived.request.clone(), arrived.outbox.clone());
        let refused = match self.try_admit(arrived, serving) {
            Ok(session) => return Some(session),
            Err(refused) => refused,
        };
        match refused {
            Refused::With(error, code) => {
                crate::info!(
                    client = &request.client_id, group = &request.group_id, kind = error.kind.name();
                    "a connection was not admitted: {}", error.message
                );
                outbox.fail_with(&error, code);
            }
            Refused::Replaced => outbox.close(),
        }
        self.connections.leave(&(request.group_id.clone(), request.client_id.clone()), id);
        None
    }

    fn try_admit(&self, arrived: Arrived, serving: Option<&CoreState>) -> Result<Rc<Session>, Refused> {
        let Arrived { id, from, request, outbox, token, context, first, timestamp } = arrived;
        let token = token.map_err(|error| Refused::With(error, Some(CLOSE_AUTH)))?;
        let shown = token.as_ref().map(|token| token.expose().to_owned());
        let context = Rc::new(Context { token: shown, ..context });
        let base_cookie = base_cookie(&request);
        let session = Rc::new(Session {
            id,
            from,
            request,
            base_cookie: base_cookie.as_ref().ok().copied().flatten(),
            outbox,
            inbox: Inbox::new(self.inbound.clone()),
            query_context: RefCell::new(context.clone()),
            push_context: RefCell::new(context),
            token: RefCell::new(token),
            revision: Cell::new(0),
            initialised: Cell::new(false),
            validated_at: Cell::new(None),
            asking: Cell::new(false),
            ask_again: Cell::new(None),
            is_handled: Cell::new(false),
            cancelled: Signal::default(),
        });
        let (request, group) = (&session.request, &session.request.group_id);
        if let Some(state) = serving {
            let checked = state.look().check_user(group, &session.user());
            checked.map_err(|error| Refused::With(error, Some(CLOSE_AUTH)))?;
        }
        // Only now: a bad token must not push a good connection out.
        if !self.replace_previous(&session, serving) {
            return Err(Refused::Replaced);
        }
        request.protocol_version().map_err(|why| ProtocolError::new(Kind::VersionNotSupported, why))?;
        base_cookie?;
        if let Some(first) = &first {
            // It is the client's: whatever it does, others go on.
            let check = AssertUnwindSafe(|| messages::check_first(&session, first, serving));
            catch_unwind(check).unwrap_or_else(|_| Err(panicked()))?;
        }
        self.connections.insert(id, session.outbox.clone());
        session.outbox.welcome(&downstream::connected(&request.wsid, timestamp));
        first.into_iter().for_each(|first| session.inbox.push(first));
        self.sessions.insert(session.clone());
        Ok(session)
    }

    /// Closes an older connection of the same client, without an error: that tab must not stop.
    /// It may still be without a group, or the app may be being asked about it. `false`: this one is
    /// the older, and was only longer about its token.
    fn replace_previous(&self, session: &Session, serving: Option<&CoreState>) -> bool {
        match self.connections.take_over(session.tab(), session.id) {
            Taken::First => true,
            Taken::From(previous) => {
                serving.into_iter().for_each(|state| disconnect(state, previous));
                self.connections.remove(previous).into_iter().for_each(|outbox| outbox.close());
                true
            }
            Taken::ByAnother => false,
        }
    }
}

/// Its group goes on without a connection.
pub(super) fn disconnect(state: &CoreState, id: ConnectionId) {
    let now = state.now();
    state.with(|s| s.disconnect(id, now));
}

fn base_cookie(request: &ConnectRequest) -> Result<Option<Cookie>, ProtocolError> {
    let Some(text) = request.base_cookie.as_deref() else { return Ok(None) };
    let malformed = || ProtocolError::new(Kind::Internal, format!("the cookie {text:?} is malformed"));
    Cookie::parse(text).map(Some).ok_or_else(malformed)
}
