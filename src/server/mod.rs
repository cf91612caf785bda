//! What runs on which core; start, drain, stop; HTTP pages.
//!
//! This module performs what the others decide: it owns sockets, threads and timers, and runs the
//! [`crate::core::view_syncer::ViewSyncer`] of each core.

pub mod accept;
mod analyse;
pub mod authenticator;
pub mod budget;
pub mod commit_queue;
pub mod connection;
pub mod core;
mod core_run;
mod driver;
mod frame_rates;
pub mod handover;
pub mod handshakes;
pub mod host;
mod incoming;
mod inspect;
mod node;
mod outlet;
pub mod overload;
pub mod pace;
pub mod pages;
mod questions;
mod rate;
pub mod reading_threads;
pub mod record_files;
pub mod record_writer;
pub mod replication;
mod rounds;
pub mod run;
pub mod serving;
pub mod settling;
mod sockets;
pub mod status;
pub mod supervise;
mod warnings;
