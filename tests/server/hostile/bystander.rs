//! Somebody who uses the server as it is meant: pings all the time, and waits for changes of its rows.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::delay::{Waiting, this_thread};
use crate::support::app::{Query, of, query};
use crate::support::client::{Client, Event, WAIT};

/// Pause between two pings.
const PAUSE: Duration = Duration::from_millis(5);

/// The rows that the bystander has, and one that it must not get.
pub const ROWS: &str =
    "INSERT INTO item VALUES ('watched', 'bystander', 0, 'p'), ('still', 'bystander', 7, NULL),
    ('other', 'somebody', 1, NULL)";

/// Its queries.
pub fn queries() -> Vec<Query> {
    vec![of("bystander"), query("pairs", json!([]))]
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    /// What it has of the row that changes.
    seen: AtomicI64,
    slowest: Mutex<Duration>,
}

/// The bystander, on a thread of its own.
pub struct Bystander {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Client>>,
    pub id: String,
    pub group: String,
}

impl Bystander {
    /// Connects, waits until it has its rows, and goes on. `core`: the thread that serves it.
    pub fn start(mut client: Client, core: PathBuf) -> Bystander {
        client.connect(&queries());
        client.until_got(&queries());
        let shared = Arc::new(Shared::default());
        let (id, group) = (client.id.clone(), client.group.clone());
        let told = shared.clone();
        let thread = std::thread::spawn(move || {
            while !told.stop.load(Ordering::Relaxed) {
                ping(&mut client, &core, &told);
                std::thread::sleep(PAUSE);
            }
            client
        });
        Bystander { shared, thread: Some(thread), id, group }
    }

    /// Waits until it sees this value in the row that changes.
    pub fn until_seen(&mut self, n: i64, what: &str) {
        let deadline = Instant::now() + WAIT;
        while self.shared.seen.load(Ordering::Relaxed) != n {
            self.is_there(what);
            assert!(Instant::now() < deadline, "{what}: a change does not come to the bystander");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Fails if the bystander was disconnected, or was told something wrong.
    fn is_there(&mut self, what: &str) {
        if self.thread.as_ref().is_some_and(JoinHandle::is_finished) {
            let ended = self.thread.take().expect("it was there").join();
            assert!(ended.is_ok(), "{what}: the bystander was not served: see above");
        }
    }

    /// Longest that the server let it wait for a pong since this was last asked.
    pub fn slowest(&self) -> Duration {
        std::mem::take(&mut self.shared.slowest.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Stops it; returns what it holds.
    pub fn finish(mut self) -> Vec<Value> {
        self.shared.stop.store(true, Ordering::Relaxed);
        let client = self.thread.take().expect("it runs").join().expect("the bystander was served");
        assert!(client.refused.is_empty(), "{:?}", client.refused);
        let mut rows: Vec<Value> = client.store.table("item").into_iter().cloned().collect();
        rows.extend(client.store.table("pair").into_iter().cloned());
        rows
    }
}

impl Drop for Bystander {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn ping(client: &mut Client, core: &Path, shared: &Shared) {
    let waiting = Waiting::begin(vec![core.to_owned(), this_thread()]);
    client.ping();
    loop {
        match client.next(WAIT) {
            Some(Event::Pong) => break,
            Some(Event::Poke(_)) => {
                let row = client.store.row("item", "watched");
                let n = row.and_then(|row| row["n"].as_i64()).unwrap_or(-1);
                shared.seen.store(n, Ordering::Relaxed);
            }
            other => panic!("the bystander waits for a pong, and is told {other:?}"),
        }
    }
    let waited = waiting.end();
    let mut slowest = shared.slowest.lock().unwrap_or_else(PoisonError::into_inner);
    *slowest = waited.max(*slowest);
}
