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
use super::outlet::Outlet;
use crate::core::effect::{End, Event};
use crate::core::overload::too_much_inbound;
use crate::core::session::Session;
use crate::protocol::downstream;
use crate::protocol::error::{Kind, ProtocolError};
use crate::protocol::websocket::{CLOSE_PROTOCOL_ERROR, CLOSE_TOO_LARGE, pong_frame};

/// Reads frames until the connection ends.
pub async fn read(
    core: &Core,
    session: &Session,
    outlet: &Outlet,
    reader: &mut ReadHalf,
    frames: &mut FrameReader,
) -> End {
    let limit = core.config.websocket.max_payload_bytes;
    let mut rates = FrameRates::default();
    loop {
        loop {
            if outlet.has_ended() {
                return End::Ours;
            }
            match next_frame(core, outlet, &mut rates, frames).await {
                Ok(None) => break,
                Ok(Some(Message::Nothing(_))) => {}
                Ok(Some(Message::Close)) => {
                    outlet.settled();
                    return End::Peer;
                }
                Ok(Some(Message::Ping(payload))) => outlet.urgent_frame(pong_frame(&payload)),
                Ok(Some(Message::Data(bytes))) => {
                    outlet.settled();
                    core.metrics.message_in(bytes.len());
                    receive(core, session, outlet, bytes).await;
                }
                Err(ReadError::TooLarge) => {
                    let reason = format!("a message is larger than {limit} bytes");
                    outlet.close_with(CLOSE_TOO_LARGE, &reason);
                }
                Err(ReadError::Protocol(why)) => outlet.close_with(CLOSE_PROTOCOL_ERROR, why),
            }
        }
        session.inbox.set_partial(frames.waiting());
        if session.inbox.is_too_much() {
            session.fail(&too_much_inbound());
            return End::Ours;
        }
        let ended = async {
            outlet.until_ended().await;
            None
        };
        // The bytes come into a buffer of the core: thousands of idle connections have none.
        let more = poll_fn(|cx| {
            let mut scratch = core.scratch.borrow_mut();
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
                outlet.hang_up();
                return End::Peer;
            }
            Some(Ok(_)) => {}
        }
    }
}

/// What the next frame brings. Whoever sends too many waits before it is taken.
async fn next_frame(
    core: &Core,
    outlet: &Outlet,
    rates: &mut FrameRates,
    frames: &mut FrameReader,
) -> Result<Option<Message>, ReadError> {
    let Some(frame) = frames.next_message()? else { return Ok(None) };
    match rates.take(&frame, core.clock()) {
        Pause::None => {}
        Pause::Yield => yield_now().await,
        Pause::Wait(wait) => {
            let slept = sleep(Duration::from_secs_f64(wait / 1_000.0));
            Box::pin(futures_lite::future::or(slept, outlet.until_ended())).await;
        }
    }
    Ok(Some(frame))
}

/// Takes what comes after the end, no faster than messages are taken, until the peer, or the writer, has had enough.
pub async fn discard(core: &Core, outlet: &Outlet, mut reader: ReadHalf) {
    let mut chunk = vec![0u8; DISCARD];
    let mut rates = FrameRates::default();
    while let Ok(count @ 1..) = reader.read(&mut chunk).await {
        let wait = rates.discard(count, core.clock());
        if wait > 0.0 {
            sleep(Duration::from_secs_f64(wait / 1_000.0)).await;
        }
    }
    outlet.hang_up();
}

/// Answers pings at once, and hands everything else to the core.
async fn receive(core: &Core, session: &Session, outlet: &Outlet, bytes: Vec<u8>) {
    if bytes == b"[\"ping\",{}]" {
        return outlet.urgent(downstream::PONG);
    }
    match String::from_utf8(bytes) {
        Ok(text) => {
            futures_lite::future::or(session.inbox.until_room(), outlet.until_ended()).await;
            match core.serving() {
                Some(serving) => serving.tell(Event::Message(session.id, text)),
                // It is handled when the core is there.
                None => session.inbox.push(text),
            }
        }
        Err(_) => session.fail(&ProtocolError::new(Kind::InvalidMessage, "a message is not UTF-8")),
    }
}
