//! One client connection as the core knows it (`docs/spec/sync-protocol.md` §4).

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::rc::Rc;

use super::connections::Tab;
use super::inbox::Inbox;
use super::outbox::Outbox;
use super::signal::Signal;
use crate::auth::token::Token;
use crate::backend::context::Context;
use crate::groups::sink::Sink;
use crate::groups::user::User;
use crate::model::ids::ConnectionId;
use crate::protocol::connect::ConnectRequest;
use crate::protocol::cookie::Cookie;
use crate::protocol::error::{Kind, ProtocolError};

/// Milliseconds that messages may take which came before a client went: its mutations count.
const FINISH: f64 = 10_000.0;

/// One connection, from `connected` on.
pub struct Session {
    /// Its number on this core.
    pub id: ConnectionId,
    /// The address that it came from.
    pub from: IpAddr,
    /// What the client said when it connected, without its first message.
    pub request: Rc<ConnectRequest>,
    /// Cookie in the URL.
    pub base_cookie: Option<Cookie>,
    /// Way out.
    pub outbox: Rc<Outbox>,
    /// Messages that wait to be handled.
    pub inbox: Rc<Inbox>,
    /// What goes along to the query endpoint.
    pub query_context: RefCell<Rc<Context>>,
    /// What goes along to the mutate endpoint.
    pub push_context: RefCell<Rc<Context>>,
    /// The token that it was admitted with, or that has taken its place.
    pub token: RefCell<Option<Token>>,
    /// Counts tokens: what the app said of an older one counts for nothing (view-syncer §11.3).
    pub revision: Cell<u64>,
    /// `initConnection` has come.
    pub initialised: Cell<bool>,
    /// When the app last let the connection in, in milliseconds of the core; `None`: it has not
    /// seen the present token.
    pub validated_at: Cell<Option<f64>>,
    /// The app is being asked for transformations that this connection wants.
    pub asking: Cell<bool>,
    /// They have to be asked for once more when that is done; `true`: all of them.
    pub ask_again: Cell<Option<bool>>,
    /// A task handles its messages.
    pub is_handled: Cell<bool>,
    /// That task has to end, wherever it is.
    pub cancelled: Signal,
}

impl Session {
    /// The client of a group that it is of.
    pub fn tab(&self) -> Tab {
        (self.request.group_id.clone(), self.request.client_id.clone())
    }

    /// Whose it is.
    pub fn user(&self) -> User {
        let is_proved = self.token.borrow().as_ref().is_some_and(Token::is_verified);
        User { id: self.request.user_id.clone(), is_proved }
    }

    /// Tells an error and ends the connection.
    pub fn fail(&self, error: &ProtocolError) {
        crate::info!(
            client = &self.request.client_id, group = &self.request.group_id, kind = error.kind.name();
            "a connection ends with an error: {}", error.message
        );
        self.outbox.fail(error);
    }
}

/// What a client is told whose work ended in a panic. It would happen again, so it is not asked to try.
pub fn panicked() -> ProtocolError {
    ProtocolError::new(Kind::Internal, "the server has made a mistake; its log says which")
}

/// The sessions of a core.
#[derive(Default)]
pub struct Sessions {
    open: RefCell<BTreeMap<ConnectionId, Rc<Session>>>,
    /// Clients that have gone, and whose last messages are handled still; and since when they are gone.
    leaving: RefCell<BTreeMap<ConnectionId, (f64, Rc<Session>)>>,
}

impl Sessions {
    /// A connection is open.
    pub fn insert(&self, session: Rc<Session>) {
        self.open.borrow_mut().insert(session.id, session);
    }

    /// A connection that is open.
    pub fn get(&self, id: ConnectionId) -> Option<Rc<Session>> {
        self.open.borrow().get(&id).cloned()
    }

    /// All that are open.
    pub fn all(&self) -> Vec<Rc<Session>> {
        self.open.borrow().values().cloned().collect()
    }

    /// A connection is over.
    pub fn remove(&self, id: ConnectionId) -> Option<Rc<Session>> {
        self.open.borrow_mut().remove(&id)
    }

    /// Its last messages are handled for a while.
    pub fn linger(&self, session: Rc<Session>, now: f64) {
        if session.is_handled.get() {
            self.leaving.borrow_mut().insert(session.id, (now, session));
        }
    }

    /// Nothing is done for it any more.
    pub fn finished(&self, id: ConnectionId) {
        self.leaving.borrow_mut().remove(&id);
    }

    /// Ends what takes too long for clients that have gone.
    pub fn end_late(&self, now: f64) {
        let leaving = self.leaving.borrow();
        let late = leaving.values().filter(|(since, _)| now - since >= FINISH);
        late.for_each(|(_, session)| session.cancelled.raise());
    }
}
