//! What the process is up to, for health pages; shared by all cores.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;

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
    /// How often the views were asked for, and what each core last said of its own.
    views_asked: AtomicUsize,
    views: Mutex<BTreeMap<usize, (usize, Vec<Value>)>>,
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

    /// Asks all cores what their views cost. Returns the number of the question.
    pub fn ask_views(&self) -> usize {
        self.views_asked.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// The question that a core has not answered yet, if there is one.
    pub fn views_wanted(&self, core: usize) -> Option<usize> {
        let asked = self.views_asked.load(Ordering::Acquire);
        let views = self.views.lock().unwrap_or_else(PoisonError::into_inner);
        (asked > views.get(&core).map_or(0, |(answered, _)| *answered)).then_some(asked)
    }

    /// A core answers a question.
    pub fn set_views(&self, core: usize, question: usize, views: Vec<Value>) {
        self.views.lock().unwrap_or_else(PoisonError::into_inner).insert(core, (question, views));
    }

    /// The answers to a question, by core; `None`: not all cores have answered.
    pub fn views(&self, question: usize) -> Option<Vec<(usize, Vec<Value>)>> {
        let views = self.views.lock().unwrap_or_else(PoisonError::into_inner);
        let answered = views.iter().filter(|(_, (answered, _))| *answered >= question);
        let answers: Vec<_> = answered.map(|(core, (_, views))| (*core, views.clone())).collect();
        (answers.len() >= self.cores_started.load(Ordering::Acquire)).then_some(answers)
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
