//! One client connection, from the accepted upgrade to the last frame
//! (`docs/spec/sync-protocol.md` §4).
//!
//! Two tasks share it: one reads frames and answers pings at once; the other handles the
//! messages strictly one after another. A third writes what waits in the outbox.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_lite::{AsyncWriteExt, FutureExt};
use kelvin_io::executor::{Task, now, spawn, timeout, yield_now};
use kelvin_io::http_server::upgrade_head;
use kelvin_io::socket::ReadHalf;
use kelvin_io::websocket::FrameReader;

use super::core::Core;
use super::handover::Handover;
use super::inbox::Inbox;
use super::incoming::{End, discard, read};
use super::outlet::Outlet;
use super::overload;
use super::serving::Serving;
use super::settling::until_shown;
use crate::auth::token::Token;
use crate::backend::context::Context;
use crate::config::Config;
use crate::core::connections::Taken;
use crate::core::effect::Event;
use crate::groups::sink::Sink;
use crate::groups::user::User;
use crate::model::ids::ConnectionId;
use crate::protocol::connect::ConnectRequest;
use crate::protocol::cookie::Cookie;
use crate::protocol::downstream;
use crate::protocol::error::{Kind, ProtocolError};
use crate::testing::panics;

/// Close code after a failed authentication.
const CLOSE_AUTH: u16 = 3000;

/// One connection.
pub struct Session {
    /// Its number on this core.
    pub id: ConnectionId,
    /// The address that it came from.
    pub from: IpAddr,
    /// The core.
    pub core: Rc<Core>,
    /// What the client said when it connected, without its first message.
    pub request: Rc<ConnectRequest>,
    /// Cookie in the URL.
    pub base_cookie: Option<Cookie>,
    /// Way out.
    pub outbox: Rc<Outlet>,
    /// What goes along to the query endpoint.
    pub query_context: RefCell<Context>,
    /// What goes along to the mutate endpoint.
    pub push_context: RefCell<Rc<Context>>,
    /// The token that it was admitted with, or that has taken its place.
    pub token: RefCell<Option<Token>>,
    /// Counts tokens: what the app said of an older one counts for nothing (view-syncer §11.3).
    pub revision: Cell<u64>,
    /// `initConnection` has been handled.
    pub initialised: Cell<bool>,
    /// When the app last let the connection in, in milliseconds of the core; `None`: it has not
    /// seen the present token.
    pub validated_at: Cell<Option<f64>>,
    /// The app is being asked for transformations that this connection wants.
    pub asking: Cell<bool>,
    /// They have to be asked for once more when that is done; `true`: all of them.
    pub ask_again: Cell<Option<bool>>,
}

impl Session {
    /// Whether the connection is still the one that its group knows.
    pub fn is_current(&self, serving: &Serving) -> bool {
        serving.with(|s| s.group_of(self.id)).is_some()
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

/// How long messages that came before the end may take to be handled.
const FINISH: Duration = Duration::from_secs(10);

/// A connection whose upgrade has been answered.
struct Opened {
    request: Rc<ConnectRequest>,
    peer: String,
    reader: ReadHalf,
    outbox: Rc<Outlet>,
    writing: Task<()>,
    /// `None`: it is not let in.
    session: Option<Rc<Session>>,
    /// `initConnection`, if it came with the request.
    first: Option<String>,
    /// What came after the request.
    rest: Vec<u8>,
}

/// Serves a connection until it ends.
pub async fn serve(core: Rc<Core>, handover: Box<Handover>) {
    let began = now();
    let _open = Open(core.clone());
    // A task is as large as the largest thing that it ever waits for: what happens once is boxed, or
    // each connection would keep the room for it for days.
    let stopped = async {
        core.until_stopping().await;
        None
    };
    let opened = Box::pin(futures_lite::future::or(open(&core, *handover), stopped)).await;
    if let Some(opened) = opened {
        let Opened { request, peer, mut reader, outbox, writing, session, first, rest } = opened;
        let mut frames = FrameReader::new(core.config.websocket.max_payload_bytes, rest);
        if let Some(session) = session {
            run(session, first, &mut reader, &mut frames).await;
        }
        if let Some(left) = outbox.settles_within() {
            let stopping = core.until_stopping();
            let shown = futures_lite::future::or(until_shown(&mut reader, &mut frames), stopping);
            Box::pin(timeout(Duration::from_secs_f64(left / 1_000.0), shown)).await;
        }
        outbox.settled();
        drop(frames);
        // What was queued last, an error or a close, still has to leave and to arrive.
        discard(&core, &outbox, reader).await;
        writing.await;
        crate::info!(
            core = core.index, client = &request.client_id, group = &request.group_id, peer = peer,
            version = request.version, ms = now().saturating_duration_since(began).as_millis() as u64;
            "connection ended"
        );
    }
}

/// Counts a connection as closed however its task ends: also by a panic, or with the executor.
struct Open(Rc<Core>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.metrics.connection_closed();
    }
}

/// Answers the upgrade. `None`: the client has gone.
async fn open(core: &Rc<Core>, handover: Handover) -> Option<Opened> {
    let Handover { stream, mut request, key, protocol, headers, rest } = handover;
    let first = request.init_connection.take().map(|first| as_message(&first));
    let token = request.auth_token.take();
    let request = Rc::new(request);
    let mut stream = stream.attach();
    let address = stream.peer_addr().ok()?;
    let peer = address.to_string();
    stream.write_all(&upgrade_head(&key, protocol.as_deref())).await.ok()?;
    let (reader, writer) = stream.split();
    let (id, version) = (core.new_connection(), request.protocol_version().unwrap_or(0));
    let send_buffer = core.connections.send_buffer.clone();
    let outbox = Outlet::new(id, writer, version, core.metrics.clone(), send_buffer);
    let (drained, written) = (core.clone(), outbox.clone());
    let writing = spawn(async move {
        // Without it nothing would leave any more, and the tab would hold for good what it has.
        let _ends = HangUp(written.clone());
        let drained = || {
            if let Some(serving) = drained.serving() {
                serving.tell(Event::Drained);
            }
        };
        written.write(drained).await;
    });
    let session = admit(core, (id, address.ip()), request.clone(), token, headers, &outbox).await;
    let session = session.and_then(|session| welcome(session, first.as_deref()));
    if session.is_none() {
        forget_tab(core, id, &request);
    }
    Some(Opened { request, peer, reader, outbox, writing, session, first, rest })
}

/// Checks everything that comes before `connected` (§4.1). `None`: refused, and told so.
async fn admit(
    core: &Rc<Core>,
    (id, from): (ConnectionId, IpAddr),
    request: Rc<ConnectRequest>,
    token: Option<String>,
    headers: Vec<(String, String)>,
    outbox: &Rc<Outlet>,
) -> Option<Rc<Session>> {
    if let Some(error) = core
        .serving()
        .and_then(|serving| serving.record_refusal())
        .or_else(|| overload::refusal(core, &request))
    {
        outbox.fail_with(&error, None);
        return None;
    }
    let admitted = core.authenticator.admit(token.as_deref(), request.user_id.as_deref()).await;
    drop(token);
    let token = match admitted.and_then(|token| check_user(core, &request, token.as_ref()).map(|()| token)) {
        Ok(token) => token,
        Err(error) => {
            crate::info!(
                client = &request.client_id, group = &request.group_id, kind = error.kind.name();
                "a connection was not admitted: {}", error.message
            );
            outbox.fail_with(&error, Some(CLOSE_AUTH));
            return None;
        }
    };
    // Only now: a bad token must not push a good connection out.
    if !replace_previous(core, id, &request) {
        outbox.close();
        return None;
    }
    if let Err(why) = request.protocol_version() {
        outbox.fail_with(&ProtocolError::new(Kind::VersionNotSupported, why), None);
        return None;
    }
    let base_cookie = match request.base_cookie.as_deref().map(Cookie::parse) {
        None => None,
        Some(Some(cookie)) => Some(cookie),
        Some(None) => {
            let message = format!("the cookie {:?} is malformed", request.base_cookie);
            outbox.fail_with(&ProtocolError::new(Kind::Internal, message), None);
            return None;
        }
    };
    let header = |name: &str| {
        let found: Vec<&str> = headers.iter().filter(|(n, _)| n == name).map(|(_, v)| v.as_str()).collect();
        (!found.is_empty()).then(|| found.join("; "))
    };
    let context = Context {
        token: token.as_ref().map(|token| token.expose().to_owned()),
        cookie: header("cookie"),
        origin: header("origin"),
        request_headers: forwarded(&core.config, &headers),
        ..Context::default()
    };
    Some(Rc::new(Session {
        id,
        from,
        core: core.clone(),
        request,
        base_cookie,
        outbox: outbox.clone(),
        query_context: RefCell::new(context.clone()),
        push_context: RefCell::new(Rc::new(context)),
        token: RefCell::new(token),
        revision: Cell::new(0),
        initialised: Cell::new(false),
        validated_at: Cell::new(None),
        asking: Cell::new(false),
        ask_again: Cell::new(None),
    }))
}

/// Says `connected`; or, instead of it, what is wrong with the first message as far as it can be known.
/// `first`: the message that came with the request.
fn welcome(session: Rc<Session>, first: Option<&str>) -> Option<Rc<Session>> {
    if let Err(error) = first.map_or(Ok(()), |first| super::messages::check_first(&session, first)) {
        session.fail(&error);
        return None;
    }
    session.core.connections.insert(session.id, session.outbox.shared());
    let timestamp = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
    session.outbox.welcome(&downstream::connected(&session.request.wsid, timestamp));
    Some(session)
}

/// The headers that either endpoint of the app may be sent; the others are not kept.
fn forwarded(config: &Config, headers: &[(String, String)]) -> Vec<(String, String)> {
    let lists = [&config.query.allowed_request_headers, &config.mutate.allowed_request_headers];
    let is_allowed = |(name, _): &&(String, String)| lists.iter().any(|list| list.contains(name));
    headers.iter().filter(is_allowed).cloned().collect()
}

fn check_user(core: &Core, request: &ConnectRequest, token: Option<&Token>) -> Result<(), ProtocolError> {
    let user = User { id: request.user_id.clone(), is_proved: token.is_some_and(Token::is_verified) };
    let Some(serving) = core.serving() else { return Ok(()) };
    serving.with(|s| s.check_user(&request.group_id, &user))
}

/// Closes an older connection of the same client, without an error: that tab must not stop.
/// It may still be without a group, or the app may be being asked about it. `false`: this one is
/// the older, and was only longer about its token.
fn replace_previous(core: &Core, id: ConnectionId, request: &ConnectRequest) -> bool {
    let tab = (request.group_id.clone(), request.client_id.clone());
    match core.connections.take_over(tab, id) {
        Taken::First => true,
        Taken::From(previous) => {
            disconnect(core, previous);
            core.connections.remove(previous).into_iter().for_each(|outbox| outbox.close());
            true
        }
        Taken::ByAnother => false,
    }
}

async fn run(session: Rc<Session>, first: Option<String>, reader: &mut ReadHalf, frames: &mut FrameReader) {
    let inbox = Inbox::new(session.core.inbound.clone());
    session.outbox.belongs_to(&inbox);
    let handling = spawn(handle_all(session.clone(), first, inbox.clone()));
    let leaving = Leaving { session, inbox: inbox.clone() };
    let end = read(&leaving.session, reader, frames, &inbox).await;
    drop(leaving);
    match end {
        // Mutations that it has sent before it went count.
        End::Peer => drop(Box::pin(timeout(FINISH, handling)).await),
        End::Ours => Box::pin(handling.cancel()).await,
    }
}

/// Closes a connection whose writing has ended, however that came.
struct HangUp(Rc<Outlet>);

impl Drop for HangUp {
    fn drop(&mut self) {
        self.0.hang_up();
    }
}

/// Has everybody forget a connection when it is over, however that came.
struct Leaving {
    session: Rc<Session>,
    inbox: Rc<Inbox>,
}

impl Drop for Leaving {
    fn drop(&mut self) {
        let session = &self.session;
        session.outbox.close();
        let core = &session.core;
        core.connections.remove(session.id);
        core.live.borrow_mut().remove(&session.id);
        forget_tab(core, session.id, &session.request);
        disconnect(core, session.id);
        self.inbox.close();
    }
}

fn disconnect(core: &Core, id: ConnectionId) {
    let Some(serving) = core.serving() else { return };
    let clock = core.clock();
    serving.with(|s| s.disconnect(id, clock));
}

fn forget_tab(core: &Core, id: ConnectionId, request: &ConnectRequest) {
    core.connections.leave(&(request.group_id.clone(), request.client_id.clone()), id);
}

async fn handle_all(session: Rc<Session>, first: Option<String>, inbox: Rc<Inbox>) {
    handle_each(&session, first, &inbox).await;
    inbox.close();
}

async fn handle_each(session: &Rc<Session>, first: Option<String>, inbox: &Inbox) {
    let Some(serving) = session.core.until_ready().await else { return };
    if let Some(first) = first
        && !handle(session, &serving, &first).await
    {
        return;
    }
    while let Some(message) = inbox.next().await {
        if !handle(session, &serving, &message).await {
            return;
        }
        // Many may be there, and most are handled without a wait.
        yield_now().await;
    }
}

/// The message that the header of the request holds.
fn as_message(header: &str) -> String {
    let parsed: Result<(String, &serde_json::value::RawValue), _> = serde_json::from_str(header);
    let body = match &parsed {
        Ok((kind, body)) if kind == "initConnection" => body.get(),
        // Refused by the parser with a message that says why.
        _ => "null",
    };
    format!("[\"initConnection\",{body}]")
}

async fn handle(session: &Rc<Session>, serving: &Rc<Serving>, message: &str) -> bool {
    // Boxed for the same reason: a connection waits for messages most of the time.
    let handling = Box::pin(async {
        panics::here("a message");
        super::messages::handle(session, serving, message).await
    });
    // It would look served: its pings are answered by another task.
    let handled = AssertUnwindSafe(handling).catch_unwind().await;
    match handled.unwrap_or_else(|_| Err(panicked())) {
        Ok(()) => true,
        Err(error) => {
            session.fail(&error);
            false
        }
    }
}
