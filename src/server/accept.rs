//! Accepting connections on one core: pages are answered, WebSockets go to the core that
//! owns their client group.

use std::rc::Rc;
use std::time::Duration;

use futures_lite::AsyncWriteExt;
use futures_lite::future::or;
use kelvin_io::executor::{sleep, spawn, yield_now};
use kelvin_io::http_server::{Request, RequestError, Response, read_request, upgrade_head, write_response};
use kelvin_io::socket::{Listener, TcpStream};

use super::core::Core;
use super::handover::{Handover, owner};
use super::pages;
use super::rate::Rate;
use crate::core::warning::Warning;
use crate::protocol::connect;
use crate::protocol::websocket::{CLOSE_PROTOCOL_ERROR, close_frame};

/// Wait after a failed accept: out of file descriptors, most likely.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// How long a peer that was refused may go on sending.
const LINGER: Duration = Duration::from_secs(2);

/// Connections that a core accepts in a second: a handshake costs up to a tenth of a millisecond,
/// and those that are connected come first.
const ACCEPTS_PER_SECOND: f64 = 4_000.0;

/// Pages that one connection is answered in a second, after a burst of as many. Whoever watches a server asks for a
/// few.
const PAGES_PER_SECOND: f64 = 100.0;

/// Wait when there are so many handshakes.
const HANDSHAKE_WAIT: Duration = Duration::from_millis(5);

/// Accepts until the core is to end.
pub async fn run(core: Rc<Core>, listener: Rc<Listener>) {
    let mut rate = Rate::new(ACCEPTS_PER_SECOND, ACCEPTS_PER_SECOND);
    loop {
        match listener.accept().await {
            Ok(stream) => {
                let handshake = core.handshakes.begin(core.clock());
                let here = core.clone();
                spawn(async move {
                    let ends = or(here.until_stopping(), handshake.is_told());
                    or(serve(&here, stream), ends).await;
                })
                .detach();
                // Whoever comes too soon waits in the kernel's queue.
                pause(rate.take(1.0, core.clock())).await;
                while !core.handshakes.make_room(core.clock()) && !core.is_stopping() {
                    sleep(HANDSHAKE_WAIT).await;
                }
            }
            Err(_) if core.is_stopping() => return,
            Err(error) => {
                let text = format_args!("a connection could not be accepted: {error}");
                core.warnings.warn(Warning::Sockets, text);
                sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

/// Waits so many milliseconds, and lets others run in any case: a queue that is never empty must not keep the core.
async fn pause(wait: f64) {
    if wait > 0.0 {
        sleep(Duration::from_secs_f64(wait / 1_000.0)).await;
    } else {
        yield_now().await;
    }
}

/// Takes sockets that other cores hand over.
pub async fn receive(core: Rc<Core>, sockets: kelvin_io::channel::Receiver<Box<Handover>>) {
    while let Ok(handover) = sockets.recv().await {
        core.metrics.socket_received();
        let core = core.clone();
        spawn(super::connection::serve(core, handover)).detach();
    }
}

async fn serve(core: &Rc<Core>, mut stream: TcpStream) {
    let Ok(from) = stream.peer_addr().map(|address| address.ip()) else { return };
    let mut pending = Vec::new();
    let mut rate = Rate::new(PAGES_PER_SECOND, PAGES_PER_SECOND);
    loop {
        let request = match read_request(&mut stream, std::mem::take(&mut pending)).await {
            Ok(Some(request)) => request,
            Ok(None) | Err(RequestError::Io(_) | RequestError::Timeout) => return,
            Err(RequestError::Malformed(why)) => return refuse(stream, &Response::text(400, why)).await,
            Err(RequestError::TooLarge(why)) => return refuse(stream, &Response::text(431, why)).await,
        };
        if request.is_upgrade() {
            return upgrade(core, stream, request).await;
        }
        let response = pages::answer(&request, from, &core.config, &core.status).await;
        let keep_alive = request.keep_alive;
        let head_only = request.method == "HEAD";
        if write_response(&mut stream, &response, head_only, keep_alive).await.is_err() {
            return;
        }
        if !keep_alive {
            return stream.finish(LINGER).await;
        }
        pause(rate.take(1.0, core.clock())).await;
        pending = request.rest;
    }
}

async fn refuse(mut stream: TcpStream, response: &Response) {
    if write_response(&mut stream, response, false, false).await.is_ok() {
        stream.finish(LINGER).await;
    }
}

/// Sends a WebSocket to its core. A request that is wrong is upgraded all the same and
/// closed with the reason: browsers cannot see a refused upgrade.
async fn upgrade(core: &Rc<Core>, mut stream: TcpStream, request: Request) {
    let protocol = request.header("sec-websocket-protocol");
    let Some(key) = request.header("sec-websocket-key") else {
        return refuse(stream, &Response::text(400, "Sec-WebSocket-Key is missing")).await;
    };
    let parsed = match connect::parse(&request.target, protocol.as_deref()) {
        Ok(parsed) => parsed,
        Err(reason) => {
            crate::info!(core = core.index; "a connection was refused: {reason}");
            let mut out = upgrade_head(&key, protocol.as_deref());
            out.extend(close_frame(Some((CLOSE_PROTOCOL_ERROR, &reason))));
            if stream.write_all(&out).await.is_ok() {
                stream.finish(LINGER).await;
            }
            return;
        }
    };
    core.metrics.connection_accepted();
    let to = owner(&parsed.group_id, core.peers.len());
    let handover = Box::new(Handover {
        stream: stream.detach(),
        request: parsed,
        key,
        protocol,
        headers: request.headers,
        rest: request.rest,
    });
    if to == core.index {
        // A task of its own: what reading the request took is not kept as long as the connection.
        return spawn(super::connection::serve(core.clone(), handover)).detach();
    }
    // Dropping the socket closes it; the client tries again.
    if core.peers[to].try_send(handover).is_ok() {
        core.metrics.socket_handed_over();
    } else {
        core.metrics.connection_closed();
        let text = format_args!("too many sockets are on their way to core {to}; one was dropped");
        core.warnings.warn(Warning::Sockets, text);
    }
}
