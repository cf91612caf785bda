//! What integration tests and benches share. Each test binary uses a part of it.
#![allow(dead_code)]

pub mod app;
pub mod chunks;
pub mod client;
pub mod frames;
pub mod http;
pub mod key_server;
pub mod lateness;
pub mod load;
pub mod mutators;
pub mod ports;
pub mod postgres;
pub mod proxy;
pub mod random;
pub mod replicator;
pub mod server;
pub mod sql;
pub mod stage;
pub mod store;
pub mod tables;
pub mod tokens;
pub mod values;

use std::future::Future;

/// Runs a test's body on an executor of its own, and fails with it.
pub fn on_executor<F, Fut>(body: F)
where
    F: FnOnce() -> Fut + Send + 'static,
    Fut: Future<Output = ()> + 'static,
{
    let executor = kelvin_io::executor::start("test", None, body).expect("an executor starts");
    executor.join().expect("the test's body does not panic");
}
