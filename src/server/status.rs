//! What the process is up to, for health pages; shared by all cores.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::replica::gauges::Gauges;

/// Readiness of the process.
#[derive(Default)]
pub struct Status {
    ready: AtomicBool,
    stopping: AtomicBool,
    cores_started: AtomicUsize,
    /// Times that `/keepalive` was asked for.
    keepalives: AtomicUsize,
    waiting_for: Mutex<String>,
    gauges: Mutex<Option<Arc<Gauges>>>,
}

impl Status {
    /// Says what is being waited for.
    pub fn progress(&self, text: &str) {
        *self.waiting_for.lock().unwrap_or_else(PoisonError::into_inner) = text.to_owned();
    }

    /// Clients can be served.
    pub fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Release);
    }

    /// `/keepalive` was asked for.
    pub fn keepalive_seen(&self) {
        self.keepalives.fetch_add(1, Ordering::AcqRel);
    }

    /// How often `/keepalive` was asked for.
    pub fn keepalives(&self) -> usize {
        self.keepalives.load(Ordering::Acquire)
    }

    /// One more core serves; returns how many do.
    pub fn core_started(&self) -> usize {
        self.cores_started.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// The process is about to end.
    pub fn set_stopping(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    /// Keeps the replica's numbers for pages.
    pub fn set_gauges(&self, gauges: Arc<Gauges>) {
        *self.gauges.lock().unwrap_or_else(PoisonError::into_inner) = Some(gauges);
    }

    /// The replica's numbers.
    pub fn gauges(&self) -> Option<Arc<Gauges>> {
        self.gauges.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// `Ok` if clients can be served, else what is being waited for (ruling 19).
    pub fn health(&self) -> Result<(), String> {
        if self.stopping.load(Ordering::Acquire) {
            return Err("stopping".to_owned());
        }
        if self.ready.load(Ordering::Acquire) {
            return Ok(());
        }
        Err(format!("waiting for {}", self.waiting_for.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}
