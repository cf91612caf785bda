//! What comes in on one connection: frames are read at a rate that leaves the core to others, pings are answered at
//! once, and everything else is queued.

use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use futures_lite::future::poll_fn;
use futures_lite::{AsyncRead, AsyncReadExt};
use kelvin_io::executor::{sleep, yield_now};
use kelvin_io::socket::{DISCARD, ReadHalf};
use kelvin_io::websocket::{FrameReader, Message, ReadError};

use super::core::Core;
use super::frame_rates::{FrameRates, Pause};
use super::inbox::Inbox;
use super::outlet::Outlet;
use super::overload;
use super::session::Session;
use crate::protocol::downstream;
use crate::protocol::error::{Kind, ProtocolError};
use crate::protocol::websocket::{CLOSE_PROTOCOL_ERROR, CLOSE_TOO_LARGE, pong_frame};

/// Who ended a connection.
pub enum End {
    /// The client, or the network.
    Peer,
    /// This server.
    Ours,
}

/// Reads frames until the connection ends.
pub async fn read(session: &Session, reader: &mut ReadHalf, frames: &mut FrameReader, inbox: &Inbox) -> End {
    let limit = session.core.config.websocket.max_payload_bytes;
    let mut rates = FrameRates::default();
    loop {
        loop {
            if session.outbox.has_ended() {
                return End::Ours;
            }
            match next_frame(session, &mut rates, frames).await {
                Ok(None) => break,
                Ok(Some(Message::Nothing(_))) => {}
                Ok(Some(Message::Close)) => {
                    session.outbox.settled();
                    return End::Peer;
                }
                Ok(Some(Message::Ping(payload))) => session.outbox.urgent_frame(pong_frame(&payload)),
                Ok(Some(Message::Data(bytes))) => {
                    session.outbox.settled();
                    session.core.metrics.message_in(bytes.len());
                    receive(session, bytes, inbox).await;
                }
                Err(ReadError::TooLarge) => {
                    let reason = format!("a message is larger than {limit} bytes");
                    session.outbox.close_with(CLOSE_TOO_LARGE, &reason);
                }
                Err(ReadError::Protocol(why)) => session.outbox.close_with(CLOSE_PROTOCOL_ERROR, why),
            }
        }
        inbox.set_partial(frames.waiting());
        if inbox.is_too_much() {
            session.fail(&overload::too_much_inbound());
            return End::Ours;
        }
        let ended = async {
            session.outbox.until_ended().await;
            None
        };
        // The bytes come into a buffer of the core: thousands of idle connections have none.
        let more = poll_fn(|cx| {
            let mut scratch = session.core.scratch.borrow_mut();
            let read = Pin::new(&mut *reader).poll_read(cx, &mut scratch);
            if let Poll::Ready(Ok(count)) = &read {
                frames.feed(&scratch[..*count]);
            }
            read.map(Some)
        });
        match futures_lite::future::or(ended, more).await {
            // Somebody else has ended the connection; what comes now is not looked at.
            None => return End::Ours,
            Some(Ok(0) | Err(_)) => {
                session.outbox.hang_up();
                return End::Peer;
            }
            Some(Ok(_)) => {}
        }
    }
}

/// What the next frame brings. Whoever sends too many waits before it is taken.
async fn next_frame(
    session: &Session,
    rates: &mut FrameRates,
    frames: &mut FrameReader,
) -> Result<Option<Message>, ReadError> {
    let Some(frame) = frames.next_message()? else { return Ok(None) };
    match rates.take(&frame, session.core.clock()) {
        Pause::None => {}
        Pause::Yield => yield_now().await,
        Pause::Wait(wait) => {
            let slept = sleep(Duration::from_secs_f64(wait / 1_000.0));
            Box::pin(futures_lite::future::or(slept, session.outbox.until_ended())).await;
        }
    }
    Ok(Some(frame))
}

/// Takes what comes after the end, no faster than messages are taken, until the peer, or the writer, has had enough.
pub async fn discard(core: &Core, outbox: &Outlet, mut reader: ReadHalf) {
    let mut chunk = vec![0u8; DISCARD];
    let mut rates = FrameRates::default();
    while let Ok(count @ 1..) = reader.read(&mut chunk).await {
        let wait = rates.discard(count, core.clock());
        if wait > 0.0 {
            sleep(Duration::from_secs_f64(wait / 1_000.0)).await;
        }
    }
    outbox.hang_up();
}

/// Answers pings at once, queues everything else.
async fn receive(session: &Session, bytes: Vec<u8>, inbox: &Inbox) {
    if bytes == b"[\"ping\",{}]" {
        return session.outbox.urgent(downstream::PONG);
    }
    match String::from_utf8(bytes) {
        Ok(text) => {
            futures_lite::future::or(inbox.until_room(), session.outbox.until_ended()).await;
            inbox.push(text);
        }
        Err(_) => session.fail(&ProtocolError::new(Kind::InvalidMessage, "a message is not UTF-8")),
    }
}
