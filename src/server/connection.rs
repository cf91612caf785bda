//! One client connection, from the accepted upgrade to the last frame
//! (`docs/spec/sync-protocol.md` §4).
//!
//! One task reads frames and answers pings at once; what else comes it hands to the core, which handles the messages
//! of a connection one after another. A second task writes what waits in the outbox.

use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_lite::AsyncWriteExt;
use kelvin_io::executor::{Task, now, spawn, timeout};
use kelvin_io::http_server::upgrade_head;
use kelvin_io::socket::ReadHalf;
use kelvin_io::websocket::FrameReader;

use super::core::Core;
use super::handover::Handover;
use super::incoming::{discard, read};
use super::outlet::Outlet;
use super::settling::until_shown;
use crate::backend::context::Context;
use crate::config::Config;
use crate::core::admission::Arrived;
use crate::core::effect::{End, Event};
use crate::core::session::Session;
use crate::model::ids::ConnectionId;
use crate::protocol::connect::ConnectRequest;

/// A connection whose upgrade has been answered.
struct Opened {
    request: Rc<ConnectRequest>,
    peer: String,
    reader: ReadHalf,
    outlet: Rc<Outlet>,
    writing: Task<()>,
    /// `None`: it is not let in.
    session: Option<Rc<Session>>,
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
        let Opened { request, peer, mut reader, outlet, writing, session, rest } = opened;
        let mut frames = FrameReader::new(core.config.websocket.max_payload_bytes, rest);
        if let Some(session) = session {
            let mut leaving = Leaving { core: &core, id: session.id, end: End::Ours };
            leaving.end = read(&core, &session, &outlet, &mut reader, &mut frames).await;
        }
        if let Some(left) = outlet.settles_within() {
            let stopping = core.until_stopping();
            let shown = futures_lite::future::or(until_shown(&mut reader, &mut frames), stopping);
            Box::pin(timeout(Duration::from_secs_f64(left / 1_000.0), shown)).await;
        }
        outlet.settled();
        drop(frames);
        // What was queued last, an error or a close, still has to leave and to arrive.
        discard(&core, &outlet, reader).await;
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

/// Has everybody forget a connection when it is over, however that came.
struct Leaving<'c> {
    core: &'c Core,
    id: ConnectionId,
    end: End,
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        match self.core.serving() {
            Some(serving) => serving.tell(Event::Left(self.id, self.end)),
            None => drop(self.core.entrance.leave(self.id)),
        }
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
    stream.write_all(&upgrade_head(&key, protocol.as_deref())).await.ok()?;
    let (reader, writer) = stream.split();
    let (id, version) = (core.new_connection(), request.protocol_version().unwrap_or(0));
    let send_buffer = core.entrance.connections.send_buffer.clone();
    let outlet = Outlet::new(id, writer, version, core.metrics.clone(), send_buffer);
    let (drained, written) = (core.clone(), outlet.clone());
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
    let arrived = Arrived {
        id,
        from: address.ip(),
        request: request.clone(),
        outbox: outlet.shared(),
        token: Ok(None),
        context: context(&core.config, &headers),
        first,
        timestamp: 0,
    };
    drop(headers);
    let session = admit(core, arrived, token).await;
    session.iter().for_each(|session| outlet.belongs_to(&session.inbox));
    Some(Opened { request, peer: address.to_string(), reader, outlet, writing, session, rest })
}

/// Has the token judged, and the core decide (§4.1). `None`: refused, and told so.
async fn admit(core: &Rc<Core>, mut arrived: Arrived, token: Option<String>) -> Option<Rc<Session>> {
    if let Some(error) = core.refusal(&arrived.request) {
        arrived.outbox.fail_with(&error, None);
        return None;
    }
    arrived.token = core.authenticator.admit(token.as_deref(), arrived.request.user_id.as_deref()).await;
    drop(token);
    arrived.timestamp = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
    core.admit(arrived)
}

/// What goes along to the app of the headers of a request.
fn context(config: &Config, headers: &[(String, String)]) -> Context {
    let header = |name: &str| {
        let found: Vec<&str> = headers.iter().filter(|(n, _)| n == name).map(|(_, v)| v.as_str()).collect();
        (!found.is_empty()).then(|| found.join("; "))
    };
    Context {
        cookie: header("cookie"),
        origin: header("origin"),
        request_headers: forwarded(config, headers),
        ..Context::default()
    }
}

/// The headers that either endpoint of the app may be sent; the others are not kept.
fn forwarded(config: &Config, headers: &[(String, String)]) -> Vec<(String, String)> {
    let lists = [&config.query.allowed_request_headers, &config.mutate.allowed_request_headers];
    let is_allowed = |(name, _): &&(String, String)| lists.iter().any(|list| list.contains(name));
    headers.iter().filter(is_allowed).cloned().collect()
}

/// Closes a connection whose writing has ended, however that came.
struct HangUp(Rc<Outlet>);

impl Drop for HangUp {
    fn drop(&mut self) {
        self.0.hang_up();
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
