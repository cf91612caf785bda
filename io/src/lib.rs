//! The runtime of Kelvin, behind a small vocabulary: executors, timers, sockets and
//! their hand-over, HTTP, WebSocket, Postgres.
//!
//! Only this crate names glommio and only it holds `unsafe`. It knows nothing of Zero.
//! Everything above it may be driven by another runtime, so nothing above it may assume
//! io_uring, a clock or a socket of its own.

#![allow(unsafe_code)]

pub mod allocator;
pub mod append_file;
pub mod executor;
pub mod http_client;
pub mod http_server;
pub mod memory;
pub mod notify;
pub mod postgres;
pub mod sends;
pub mod signals;
pub mod socket;
pub mod tls;
mod turn;
pub mod watchdog;
pub mod websocket;

/// Bounded queues between cores and threads. Sending never blocks a core: `try_send`.
pub mod channel {
    pub use async_channel::{Receiver, RecvError, Sender, TryRecvError, TrySendError, bounded};
}
